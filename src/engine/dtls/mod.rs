//! The node's DTLS identity, and the tap that takes the SRTP keys out of a handshake.
//!
//! [`DtlsIdentity`] is made once by the node and shared by all engines: making a certificate and a
//! DTLS configuration for each transport would make a handshake five times as dear. [`tapped`] is
//! called by [`rtc`](super::transport::rtc), on the shard's thread.
//!
//! str0m asks a `DtlsProvider` for a `DtlsInstance` for each `Rtc`. Ours wraps dimpl's and
//!
//! * keeps the keying material for our own SRTP. str0m never gets any: two users of one AES-GCM key
//!   would repeat nonces, and an `Rtc` without keys can neither seal nor open media;
//! * lets application data go (str0m would keep it without bound until SCTP is started);
//! * tells faults that end a handshake from packets that merely do not fit, which anyone who can
//!   forge the client's address could send.
//!
//! Who may come with a certificate of another kind than ECDSA is served by OpenSSL ([`libssl`]), with
//! the same tap.
//!
//! Invariants: DTLS 1.2 only; no cookie exchange (ICE has proved that the client is where it says);
//! never a seeded random number generator.

mod libssl;

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use libssl::LibsslProvider;
use str0m::RtcConfig;
use str0m::config::{DtlsCert, DtlsVersion};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, KeyingMaterial, ProtocolVersion,
    SrtpProfile as DtlsProfile,
};

use crate::engine::srtp::SrtpProfile;
use crate::limits::{
    CONNECT_TIMEOUT, DTLS_DATAGRAM_BYTES_MAX, DTLS_RETRANSMISSIONS_MAX, DTLS_RETRANSMIT_AFTER,
};

/// Why a node has no DTLS identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No key pair or certificate could be made.
    #[error("no DTLS certificate could be generated")]
    Certificate,
    /// The DTLS library refused our configuration.
    #[error("the DTLS configuration is not valid")]
    Configuration,
}

/// What certificates a client may come with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerCertificate {
    /// ECDSA, as browsers make them.
    Ecdsa,
    /// RSA too: publishers and viewers that speak SDP.
    Any,
}

/// The certificate of this node with what every `Rtc` is made from.
pub struct DtlsIdentity {
    fingerprint: [u8; 32],
    for_ecdsa: RtcConfig,
    for_any: RtcConfig,
}

impl fmt::Debug for DtlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DtlsIdentity")
    }
}

impl DtlsIdentity {
    /// A fresh key pair (P-256) with a self-signed certificate. Costs milliseconds: once per
    /// process.
    pub fn generate() -> Result<Self, IdentityError> {
        let certificate = dimpl::certificate::generate_self_signed_certificate()
            .map_err(|_| IdentityError::Certificate)?;
        shared_config().ok_or(IdentityError::Configuration)?;
        let crypto = str0m::crypto::from_feature_flags();
        let fingerprint = crypto.sha256_provider.sha256(&certificate.certificate);
        let template = |provider: &'static dyn DtlsProvider| {
            let mut crypto = str0m::crypto::from_feature_flags();
            crypto.dtls_provider = provider;
            RtcConfig::new()
                .set_crypto_provider(Arc::new(crypto))
                .set_dtls_cert(certificate.clone())
                .set_dtls_version(DtlsVersion::Dtls12)
                .set_mtu(DTLS_DATAGRAM_BYTES_MAX..=DTLS_DATAGRAM_BYTES_MAX)
                .set_rtp_mode(true)
                .clear_codecs()
                .clear_extension_map()
        };
        let for_ecdsa = template(&TappingProvider);
        let for_any = template(&LibsslProvider);
        Ok(Self { fingerprint, for_ecdsa, for_any })
    }

    /// SHA-256 of the certificate, as clients are told (RFC 8122).
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// What an `Rtc` with this identity is built from; to be built inside [`tapped`].
    #[must_use]
    pub fn rtc_config(&self, peer: PeerCertificate) -> RtcConfig {
        match peer {
            PeerCertificate::Ecdsa => self.for_ecdsa.clone(),
            PeerCertificate::Any => self.for_any.clone(),
        }
    }
}

/// The configuration of all handshakes of the process. It holds no secret and depends on nothing
/// but constants, so one static serves all identities; validating it is most of what it costs. The
/// provider must be `'static`, hence no field of [`DtlsIdentity`].
fn shared_config() -> Option<&'static Arc<dimpl::Config>> {
    static CONFIG: OnceLock<Option<Arc<dimpl::Config>>> = OnceLock::new();
    let make = || {
        dimpl::Config::builder()
            .mtu(DTLS_DATAGRAM_BYTES_MAX)
            .use_server_cookie(false)
            .flight_start_rto(DTLS_RETRANSMIT_AFTER)
            .flight_retries(DTLS_RETRANSMISSIONS_MAX)
            .handshake_timeout(CONNECT_TIMEOUT)
            .build()
            .ok()
            .map(Arc::new)
    };
    CONFIG.get_or_init(make).as_ref()
}

/// The SRTP keys that a handshake agreed on.
#[derive(Clone, PartialEq, Eq)]
pub struct TappedKeys {
    /// The protection profile (RFC 5764, RFC 7714).
    pub profile: SrtpProfile,
    /// Client key, server key, client salt, server salt (RFC 5764 §4.2).
    pub material: Box<[u8]>,
    /// True when this side was the DTLS client, and so seals with the client's key.
    pub local_is_client: bool,
}

impl fmt::Debug for TappedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TappedKeys").field(&self.profile).finish()
    }
}

impl TappedKeys {
    fn new(
        negotiated: DtlsProfile,
        material: &KeyingMaterial,
        local_is_client: bool,
    ) -> Option<Self> {
        let profile = match negotiated {
            DtlsProfile::AEAD_AES_256_GCM => SrtpProfile::AeadAes256Gcm,
            DtlsProfile::AEAD_AES_128_GCM => SrtpProfile::AeadAes128Gcm,
            DtlsProfile::AES128_CM_SHA1_80 => SrtpProfile::Aes128CmSha1_80,
            _ => return None,
        };
        let material = Box::from(&**material);
        Some(Self { profile, material, local_is_client })
    }
}

/// What one handshake tells besides its datagrams. Both ends live on one thread; the type is
/// `Sync` only because str0m's trait asks for it.
#[derive(Debug, Clone, Default)]
pub struct Tap(Arc<Tapped>);

#[derive(Debug, Default)]
struct Tapped {
    keys: OnceLock<TappedKeys>,
    refused: AtomicBool,
}

impl Tap {
    /// The SRTP keys, once the handshake is through; `None` also when it agreed on none.
    #[must_use]
    pub fn keys(&self) -> Option<&TappedKeys> {
        self.0.keys.get()
    }

    /// True once for each time that a packet was let go.
    #[must_use]
    pub fn take_refused(&self) -> bool {
        self.0.refused.swap(false, Ordering::Relaxed)
    }

    fn keep(&self, keys: TappedKeys) {
        // A handshake yields keys once; a second set could only be a fault.
        let _ = self.0.keys.set(keys);
    }

    fn refuse(&self) {
        self.0.refused.store(true, Ordering::Relaxed);
    }
}

thread_local! {
    /// The tap of the instance made last on this thread. str0m's trait names a `'static` provider
    /// and passes nothing from the `Rtc`'s builder to it, so the way back is through here; it is
    /// filled and emptied within [`tapped`] only.
    static NEWEST: Cell<Option<Tap>> = const { Cell::new(None) };
}

/// Runs `build`, which builds one `Rtc` from [`DtlsIdentity::rtc_config`], and returns it with its
/// tap; `None` when `build` built none.
pub fn tapped<T>(build: impl FnOnce() -> T) -> Option<(T, Tap)> {
    NEWEST.take();
    let built = build();
    NEWEST.take().map(|tap| (built, tap))
}

#[derive(Debug)]
struct TappingProvider;

impl DtlsProvider for TappingProvider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        dimpl::certificate::generate_self_signed_certificate().ok()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let config = shared_config()
            .filter(|_| version == DtlsVersion::Dtls12)
            .ok_or_else(|| CryptoError::Other("only DTLS 1.2".into()))?;
        let dtls = dimpl::Dtls::new_12(Arc::clone(config), certificate.clone(), now);
        let tap = Tap::default();
        NEWEST.set(Some(tap.clone()));
        Ok(Box::new(TappingInstance { dtls, tap, connected: false }))
    }

    /// Never: it would seed the handshake's random numbers.
    fn is_test(&self) -> bool {
        false
    }
}

struct TappingInstance {
    dtls: dimpl::Dtls,
    tap: Tap,
    connected: bool,
}

impl fmt::Debug for TappingInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TappingInstance")
    }
}

impl TappingInstance {
    /// True for what ends the association. Once connected only what is authenticated does; before,
    /// nothing is, and a peer that breaks the rules or says so cannot be served.
    fn is_fatal(&self, error: &DtlsImplError) -> bool {
        match error {
            DtlsImplError::SecurityError(dimpl::SecurityError::FatalAlert { .. })
            | DtlsImplError::ConnectionClosed
            | DtlsImplError::Timeout(_) => true,
            DtlsImplError::SecurityError(_) | DtlsImplError::CertificateError(_) => !self.connected,
            _ => false,
        }
    }
}

impl DtlsInstance for TappingInstance {
    fn set_active(&mut self, active: bool) {
        self.dtls.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        match self.dtls.handle_packet(packet) {
            Err(error) if !self.is_fatal(&error) => {
                tracing::debug!(%error, "DTLS packet refused");
                self.tap.refuse();
                Ok(())
            }
            handled => handled,
        }
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        match self.dtls.poll_output(buffer) {
            DtlsOutput::Connected => {
                self.connected = true;
                DtlsOutput::Connected
            }
            // A second `Connected` is what str0m ignores.
            DtlsOutput::KeyingMaterial(material, profile) => {
                if let Some(keys) = TappedKeys::new(profile, &material, self.dtls.is_active()) {
                    self.tap.keep(keys);
                }
                DtlsOutput::Connected
            }
            DtlsOutput::ApplicationData(_) => {
                self.tap.refuse();
                DtlsOutput::Connected
            }
            other => other,
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.dtls.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.dtls.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.dtls.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.dtls.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.dtls.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.dtls.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.dtls.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an anchor for virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn every_identity_has_its_own_certificate_and_tells_its_fingerprint() {
        let [one, two] = [(); 2].map(|()| DtlsIdentity::generate().unwrap());
        assert_ne!(one.fingerprint(), two.fingerprint());
        let mut rtc = one.rtc_config(PeerCertificate::Ecdsa).build(start());
        let told = rtc.direct_api().local_dtls_fingerprint().clone();
        assert_eq!((told.hash_func.as_str(), &*told.bytes), ("sha-256", &one.fingerprint()[..]));
    }

    #[test]
    fn each_rtc_has_its_own_tap_and_nothing_stays_behind() {
        let identity = DtlsIdentity::generate().unwrap();
        let build = || identity.rtc_config(PeerCertificate::Ecdsa).build(start());
        let (_one, first) = tapped(build).unwrap();
        let (_two, second) = tapped(build).unwrap();
        first.refuse();
        assert!(!second.take_refused());
        assert!(first.take_refused() && !first.take_refused());
        let _untapped = build();
        assert!(tapped(|| ()).is_none());
    }

    #[test]
    fn only_dtls_1_2_is_spoken_and_never_with_seeded_randomness() {
        let certificate = TappingProvider.generate_certificate().unwrap();
        for version in [DtlsVersion::Dtls13, DtlsVersion::Auto] {
            assert!(TappingProvider.new_dtls(&certificate, start(), version, None).is_err());
        }
        assert!(!TappingProvider.is_test());
        assert_eq!(shared_config().unwrap().rng_seed(), None);
        assert!(!shared_config().unwrap().use_server_cookie());
    }

    #[test]
    fn what_anyone_could_have_sent_does_not_end_a_connected_association() {
        use dimpl::{CertificateError, SecurityError};
        let certificate = TappingProvider.generate_certificate().unwrap();
        let config = shared_config().unwrap();
        let dtls = dimpl::Dtls::new_12(Arc::clone(config), certificate, start());
        let mut instance = TappingInstance { dtls, tap: Tap::default(), connected: false };
        let alert = SecurityError::FatalAlert { description: 40 };
        let suite = SecurityError::NoMutuallyAcceptableCipherSuite;
        let certificate = CertificateError::NoServerCertificateReceived;
        for (error, before, after) in [
            (DtlsImplError::SecurityError(alert), true, true),
            (DtlsImplError::ConnectionClosed, true, true),
            (DtlsImplError::SecurityError(suite), true, false),
            (DtlsImplError::CertificateError(certificate), true, false),
            (DtlsImplError::ReceiveQueueFull, false, false),
            (DtlsImplError::RenegotiationAttempt, false, false),
        ] {
            for (connected, fatal) in [(false, before), (true, after)] {
                instance.connected = connected;
                assert_eq!(instance.is_fatal(&error), fatal, "{error:?}, connected: {connected}");
            }
        }
    }
}
