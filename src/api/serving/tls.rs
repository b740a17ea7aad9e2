//! The API's certificate and key: read from PEM files, read again when told, watched for their end.
//!
//! [`CertificateKeeper`] owns them and runs on the control thread; connections that begin take the
//! [`Certificate`] of the moment, and those that are open keep theirs. Invariant: what is in use
//! was whole: a certificate that parses, and the key that belongs to it. A new pair that is not, or
//! that clients do not take now, changes nothing.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use x509_cert::Certificate as X509;
use x509_cert::der::{DateTime, Decode as _};

use crate::config::{TlsConfig, unread};
use crate::events::timestamp::WallAnchor;
use crate::limits::{
    RELOAD_RETRY, RELOAD_TRIES, TLS_EXPIRY_CHECK, TLS_EXPIRY_WARNING, TLS_FILE_BYTES_MAX,
};
use crate::metrics::connections::ConnectionCounts;

/// Why a pair is of no use; each names the setting and the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("--{0} {path}: {why}", path = .2.display(), why = unread(.1))]
    Read(&'static str, io::Error, PathBuf),
    /// It is no PEM.
    #[error("--{0} {path}: it is no PEM file: {1}", path = .2.display())]
    Pem(&'static str, pem::Error, PathBuf),
    /// It holds none.
    #[error("--tls-cert {path}: there is no certificate (CERTIFICATE) in it", path = .0.display())]
    NoCertificate(PathBuf),
    /// It holds none.
    #[error(
        "--tls-key {path}: there is no private key in it (an encrypted one has to be decrypted \
         first)",
        path = .0.display()
    )]
    NoKey(PathBuf),
    /// Its first certificate does not parse.
    #[error("--tls-cert {path}: the first certificate is not readable: {1}", path = .0.display())]
    Certificate(PathBuf, x509_cert::der::Error),
    /// It is over already.
    #[error("--tls-cert {path}: the certificate has expired at {1}", path = .0.display())]
    Expired(PathBuf, DateTime),
    /// It is not valid yet.
    #[error("--tls-cert {path}: the certificate is not valid before {1}", path = .0.display())]
    NotYet(PathBuf, DateTime),
    /// They do not go together.
    #[error(
        "--tls-key {key}: the key does not belong to the certificate in --tls-cert {cert}",
        cert = .0.display(), key = .1.display()
    )]
    Strangers(PathBuf, PathBuf),
    /// They cannot be used.
    #[error("--tls-cert {cert} and --tls-key {key}: {2}", cert = .0.display(), key = .1.display())]
    Pair(PathBuf, PathBuf, rustls::Error),
}

/// When the pair in these files begins to be valid and when it ends, since 1970; it is checked as at
/// a start.
///
/// # Errors
/// [`TlsError`].
pub fn certificate_validity(files: &TlsConfig) -> Result<(Duration, Duration), TlsError> {
    let Loaded { begins, ends, .. } = Loaded::read(files)?;
    Ok((begins.unix_duration(), ends.unix_duration()))
}

/// What new connections are secured with.
#[derive(Debug, Clone)]
pub struct Certificate(watch::Receiver<Arc<ServerConfig>>);

impl Certificate {
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.borrow())
    }
}

/// A pair that can be used.
#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// When it begins to be valid.
    begins: DateTime,
    /// When it ends.
    ends: DateTime,
}

impl Loaded {
    fn read(files: &TlsConfig) -> Result<Self, TlsError> {
        let chain = read("tls-cert", &files.cert)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
        let chain = chain.map_err(|error| TlsError::Pem("tls-cert", error, files.cert.clone()))?;
        let Some(first) = chain.first() else {
            return Err(TlsError::NoCertificate(files.cert.clone()));
        };
        let parsed = X509::from_der(first)
            .map_err(|error| TlsError::Certificate(files.cert.clone(), error))?;
        let validity = parsed.tbs_certificate().validity();
        let (begins, ends) =
            (validity.not_before.to_date_time(), validity.not_after.to_date_time());
        let key = PrivateKeyDer::from_pem_slice(&read("tls-key", &files.key)?);
        let key = key.map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::NoKey(files.key.clone()),
            error => TlsError::Pem("tls-key", error, files.key.clone()),
        })?;
        let config = server_config(chain, key).map_err(|error| {
            let (cert, key) = (files.cert.clone(), files.key.clone());
            match error {
                rustls::Error::InconsistentKeys(_) => TlsError::Strangers(cert, key),
                error => TlsError::Pair(cert, key, error),
            }
        })?;
        Ok(Self { config: Arc::new(config), begins, ends })
    }

    /// Whether clients take it now.
    fn judge(&self, files: &TlsConfig, now: Duration) -> Result<(), TlsError> {
        if self.ends.unix_duration() < now {
            return Err(TlsError::Expired(files.cert.clone(), self.ends));
        }
        if self.begins.unix_duration() > now {
            return Err(TlsError::NotYet(files.cert.clone(), self.begins));
        }
        Ok(())
    }
}

/// A regular file, bounded: a pipe would never end.
fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let wrong = |error| TlsError::Read(setting, error, path.to_owned());
    let other = |reason: &str| wrong(io::Error::other(reason.to_owned()));
    let about = std::fs::metadata(path).map_err(wrong)?;
    if !about.is_file() {
        return Err(other("it is no file"));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(wrong)?;
    file.take(TLS_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > TLS_FILE_BYTES_MAX {
        return Err(other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Keeps the pair in use up to date.
#[derive(Debug)]
pub struct CertificateKeeper {
    files: TlsConfig,
    clock: WallAnchor,
    counts: Arc<ConnectionCounts>,
    ends: Duration,
    current: watch::Sender<Arc<ServerConfig>>,
}

impl CertificateKeeper {
    /// Reads the pair for the first time. One that has expired is used, with an error in the log:
    /// media and clients that do not look go on.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn start(
        files: TlsConfig,
        clock: WallAnchor,
        counts: Arc<ConnectionCounts>,
    ) -> Result<(Self, Certificate), TlsError> {
        let loaded = Loaded::read(&files)?;
        let ends = loaded.ends.unix_duration();
        tracing::info!(certificate = %files.cert.display(), ends = %loaded.ends, "TLS");
        counts.certificate_expires(ends.as_secs());
        let (current, certificate) = watch::channel(loaded.config);
        let keeper = Self { files, clock, counts, ends, current };
        keeper.warn();
        if loaded.begins.unix_duration() > keeper.now() {
            let certificate = keeper.files.cert.display();
            tracing::error!(%certificate, begins = %loaded.begins, "the TLS certificate is not valid yet");
        }
        Ok((keeper, Certificate(certificate)))
    }

    /// Looks after the pair for as long as it is polled: reads it again whenever `hangup` says so,
    /// and one that is of no use again and again for a while, because whoever writes the two files
    /// may not be done.
    pub async fn keep(mut self, mut hangup: Hangup) {
        let mut renewal = Renewal::default();
        loop {
            if !renewal.wait(&mut hangup, Some(TLS_EXPIRY_CHECK)).await {
                self.warn();
                continue;
            }
            match self.renew().await {
                Ok(()) => renewal.succeeded(),
                Err(error) => renewal.failed(&error, "the old TLS pair stays in use"),
            }
        }
    }

    async fn renew(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (files, now) = (self.files.clone(), self.now());
        let renewed = spawn_blocking(move || {
            let loaded = Loaded::read(&files)?;
            loaded.judge(&files, now)?;
            Ok::<_, TlsError>(loaded)
        });
        let loaded = renewed.await??;
        self.ends = loaded.ends.unix_duration();
        self.counts.certificate_expires(self.ends.as_secs());
        self.current.send_replace(loaded.config);
        tracing::info!(ends = %loaded.ends, "TLS certificate and key read again");
        self.warn();
        Ok(())
    }

    fn warn(&self) {
        let certificate = self.files.cert.display();
        match self.ends.checked_sub(self.now()) {
            None => tracing::error!(%certificate, "the TLS certificate has expired"),
            Some(left) if left <= TLS_EXPIRY_WARNING => {
                let hours = left.as_secs() / 3600;
                tracing::warn!(%certificate, hours, "the TLS certificate expires soon");
            }
            Some(_) => {}
        }
    }

    /// Since 1970.
    fn now(&self) -> Duration {
        let now = tokio::time::Instant::now().into_std();
        let wall = self.clock.wall + now.saturating_duration_since(self.clock.at);
        wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

/// What is read again, when, and how often when it is of no use.
#[derive(Debug, Default)]
pub(in crate::api) struct Renewal {
    /// How often it may still be tried.
    left: u32,
    /// Whether a failure was told of since the last SIGHUP.
    is_told: bool,
}

impl Renewal {
    /// Completes when it is time: true to read again, false after `idle` of nothing to do.
    pub(in crate::api) async fn wait(
        &mut self,
        hangup: &mut Hangup,
        idle: Option<Duration>,
    ) -> bool {
        let wait = if self.left > 0 { Some(RELOAD_RETRY) } else { idle };
        let wait = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = hangup.0.recv() => {
                (self.left, self.is_told) = (RELOAD_TRIES, false);
                true
            }
            () = wait => self.left > 0,
        }
    }

    pub(in crate::api) fn succeeded(&mut self) {
        self.left = 0;
    }

    /// It was of use, and is read again to see that it was whole.
    pub(in crate::api) fn once_more(&mut self, so: &'static str) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            tracing::error!("{so}: the file changes all the time; given up until the next SIGHUP");
        }
    }

    /// Tells of the first failure and of the last.
    pub(in crate::api) fn failed(&mut self, error: &dyn fmt::Display, so: &'static str) {
        let first = !std::mem::replace(&mut self.is_told, true);
        self.left = self.left.saturating_sub(1);
        match self.left {
            0 => tracing::error!(%error, "{so}: given up until the next SIGHUP"),
            _ if first => tracing::error!(%error, "{so}; it is read again every two seconds"),
            _ => tracing::debug!(%error, "{so}"),
        }
    }
}

/// SIGHUP, from now on no end of the process.
#[derive(Debug)]
pub struct Hangup(Signal);

impl Hangup {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the runtime cannot watch signals.
    pub fn watch() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Says, at each, that there is nothing to read again.
    pub async fn ignore(mut self) {
        while self.0.recv().await.is_some() {
            tracing::info!(
                "SIGHUP: there is no TLS certificate, no file of API keys and none of STUN and \
                 TURN servers to read again"
            );
        }
    }
}

#[cfg(test)]
impl Certificate {
    /// One that stays as it is.
    pub(super) fn of(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self(watch::channel(Arc::new(server_config(chain, key).unwrap())).1)
    }
}
