//! The DTLS identity of all clients of the run, and the tap that takes SRTP keys out of handshakes.
//!
//! One certificate and one validated configuration serve every client: making them anew would cost
//! the generator a millisecond per join. str0m asks a provider for a DTLS instance per agent; ours
//! wraps dimpl's, keeps the keying material and never hands it on, so that no second user of a GCM
//! key exists. The tap of the agent being built comes back through a thread-local, because the
//! provider's trait passes nothing else. Used on the worker threads; nothing is shared but constants.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use str0m::config::{DtlsCert, DtlsVersion};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, ProtocolVersion, SrtpProfile,
};
use str0m::{Rtc, RtcConfig};

use crate::srtp::{Profile, Srtp};

/// What a handshake left: keys, or the name of a profile that we do not speak.
type Tapped = OnceLock<Result<(Profile, Vec<u8>, bool), String>>;

/// The end of the wire that runs into a DTLS instance.
#[derive(Clone, Default)]
pub(crate) struct Tap(Arc<Tapped>);

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap")
    }
}

impl Tap {
    /// The contexts of a completed handshake; `None` before.
    pub(crate) fn srtp(&self) -> Option<Result<Srtp, String>> {
        self.0.get().map(|keys| match keys {
            Ok((profile, material, is_client)) => {
                Srtp::new(*profile, material, *is_client).map_err(|error| error.to_string())
            }
            Err(profile) => Err(format!("the server chose {profile}, which is not supported")),
        })
    }
}

thread_local! {
    static NEWEST: Cell<Option<Tap>> = const { Cell::new(None) };
}

/// What every agent is built from.
#[derive(Clone)]
pub(crate) struct Identity {
    template: RtcConfig,
    fingerprint: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    /// A fresh key pair with a self-signed certificate.
    pub(crate) fn generate() -> Result<Self, String> {
        let certificate =
            TapProvider.generate_certificate().ok_or("no DTLS certificate could be generated")?;
        let mut crypto = str0m::crypto::from_feature_flags();
        let hash = crypto.sha256_provider.sha256(&certificate.certificate);
        crypto.dtls_provider = &TapProvider;
        let template = RtcConfig::new()
            .set_crypto_provider(Arc::new(crypto))
            .set_dtls_cert(certificate)
            .set_dtls_version(DtlsVersion::Dtls12)
            .set_rtp_mode(true)
            .clear_codecs()
            .clear_extension_map();
        let fingerprint =
            hash.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
        Ok(Self { template, fingerprint })
    }

    /// SHA-256 of the certificate in the notation of RFC 8122.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// An agent and the tap in its DTLS.
    pub(crate) fn agent(&self, now: Instant) -> Option<(Rtc, Tap)> {
        NEWEST.take();
        let rtc = self.template.clone().build(now);
        NEWEST.take().map(|tap| (rtc, tap))
    }
}

/// One configuration for all handshakes; it depends on constants only.
fn shared_config() -> Option<&'static Arc<dimpl::Config>> {
    static CONFIG: OnceLock<Option<Arc<dimpl::Config>>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let config = dimpl::Config::builder().handshake_timeout(Duration::from_secs(20));
            config.build().ok().map(Arc::new)
        })
        .as_ref()
}

#[derive(Debug)]
struct TapProvider;

impl DtlsProvider for TapProvider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        dimpl::certificate::generate_self_signed_certificate().ok()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        _version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let config = shared_config().ok_or_else(|| CryptoError::Other("no DTLS config".into()))?;
        let tap = Tap::default();
        NEWEST.set(Some(tap.clone()));
        let inner = dimpl::Dtls::new_12(Arc::clone(config), certificate.clone(), now);
        Ok(Box::new(TapInstance { inner, tap }))
    }
}

struct TapInstance {
    inner: dimpl::Dtls,
    tap: Tap,
}

impl fmt::Debug for TapInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TapInstance")
    }
}

impl DtlsInstance for TapInstance {
    fn set_active(&mut self, active: bool) {
        self.inner.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.inner.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        match self.inner.poll_output(buffer) {
            DtlsOutput::KeyingMaterial(material, profile) => {
                let profile = match profile {
                    SrtpProfile::AEAD_AES_256_GCM => Ok(Profile::Gcm256),
                    SrtpProfile::AEAD_AES_128_GCM => Ok(Profile::Gcm128),
                    other => Err(other.to_string()),
                };
                let is_client = self.inner.is_active();
                let keys = profile.map(|profile| (profile, material.to_vec(), is_client));
                // A handshake exports once; a second set would be a fault of the library.
                let _ = self.tap.0.set(keys);
                // str0m takes a repeated `Connected` for what it already knows.
                DtlsOutput::Connected
            }
            other => other,
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.inner.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.inner.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.inner.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.inner.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.inner.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.inner.close()
    }
}
