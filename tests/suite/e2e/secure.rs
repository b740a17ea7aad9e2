//! Certificates of the tests, and a client of the API over TLS as a browser is one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::http::Api;
use super::servers::PATIENCE;

/// The name that certificates are for.
pub(crate) const NAME: &str = "call.example";

/// A certificate that is its own root.
pub(crate) struct Issued {
    pub(crate) cert: String,
    pub(crate) key: String,
    root: CertificateDer<'static>,
}

impl Issued {
    /// One that ends so long after now.
    pub(crate) fn ending_after(left: Duration) -> Self {
        Self::ending(now() + left)
    }

    /// One that ended so long ago.
    pub(crate) fn ended_before(past: Duration) -> Self {
        Self::ending(now() - past)
    }

    fn ending(since_epoch: Duration) -> Self {
        Self::between(Duration::from_secs(24 * 3600), since_epoch)
    }

    fn between(begin: Duration, end: Duration) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + begin;
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + end;
        let cert = params.self_signed(&key).unwrap();
        Self { cert: cert.pem(), key: key.serialize_pem(), root: cert.der().clone() }
    }

    /// One for 127.0.0.1 that says it is an authority, as `openssl req -x509` makes them.
    pub(crate) fn by_openssl() -> Self {
        Self::of_authority("127.0.0.1", now() + Duration::from_secs(24 * 3600))
    }

    /// The same, for this name and until then.
    pub(crate) fn of_authority(name: &str, end: Duration) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + end;
        let cert = params.self_signed(&key).unwrap();
        Self { cert: cert.pem(), key: key.serialize_pem(), root: cert.der().clone() }
    }

    /// One that begins so long after now.
    pub(crate) fn beginning_after(later: Duration) -> Self {
        let begins = now() + later;
        Self::between(begins, begins + Duration::from_secs(90 * 24 * 3600))
    }

    pub(crate) fn new() -> Self {
        Self::ending_after(Duration::from_secs(90 * 24 * 3600))
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates live in real time")]
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

/// A folder with a certificate's files, gone with this value.
pub(crate) struct Files {
    folder: PathBuf,
}

impl Files {
    /// An empty folder, named after a test.
    pub(crate) fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    pub(crate) fn of(name: &str, issued: &Issued) -> Self {
        let files = Self::new(name);
        files.replace(issued);
        files
    }

    pub(crate) fn replace(&self, issued: &Issued) {
        self.write("cert.pem", &issued.cert);
        self.write("key.pem", &issued.key);
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.folder.join(name), text).unwrap();
        self.path(name)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// The flags that name them.
    pub(crate) fn flags(&self) -> [String; 2] {
        let path = |name| self.path(name);
        [format!("--tls-cert={}", path("cert.pem")), format!("--tls-key={}", path("key.pem"))]
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A connection under TLS.
pub(crate) type Secured = StreamOwned<ClientConnection, TcpStream>;

/// A client that trusts one certificate alone, and would rather speak HTTP/2.
pub(crate) fn secured(
    api: Api,
    trusted: &Issued,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Secured, std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.root.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from(NAME).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(api.0).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

/// Asks for something and reads head and body of an answer that has a length.
pub(crate) fn exchange(stream: &mut (impl Read + Write), request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "ended after {}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if length.is_some_and(|length| body.len() >= length.parse().unwrap()) {
            return text.into_owned();
        }
    }
}
