//! DTLS by OpenSSL, for clients that may have a certificate of any kind.
//!
//! dimpl, which serves everybody else, takes ECDSA certificates only. Browsers have those;
//! GStreamer makes RSA ones, and so do other publishers that speak WHIP. A server cannot know which
//! before the client has been asked for it, so who comes with SDP is served from here.
//!
//! OpenSSL reads datagrams from a [`Wire`] and writes them there. Its timers know no time but the
//! system's, so flights are sent again from here: the same datagrams, of which a receiver takes the
//! records that it has not had (RFC 6347 §4.1.2.6). Invariants: DTLS 1.2 only; no session is stored or resumed, nothing is renegotiated; the client must prove that it has
//! the key of its certificate, and which certificate that is, str0m compares with what was
//! signalled; application data is thrown away.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslSessionCacheMode,
    SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::X509;
use str0m::config::{DtlsCert, DtlsVersion};
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, KeyingMaterial, ProtocolVersion,
    SrtpProfile as DtlsProfile,
};

use super::{NEWEST, Tap, TappedKeys, TappingProvider};
use crate::limits::{
    DTLS_DATAGRAM_BYTES_MAX, DTLS_FLIGHT_DATAGRAMS_MAX, DTLS_RETRANSMISSIONS_MAX,
    DTLS_RETRANSMIT_AFTER,
};

/// Forward secret suites with authenticated encryption; RSA ones are for servers that have an RSA
/// certificate, when we are the client.
const SUITES: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
    ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:\
    ECDHE-RSA-CHACHA20-POLY1305";
/// In our order of preference, which a server's is.
const PROFILES: &str = "SRTP_AEAD_AES_256_GCM:SRTP_AEAD_AES_128_GCM:SRTP_AES128_CM_SHA1_80";
/// RFC 5764 §4.2.
const LABEL: &str = "EXTRACTOR-dtls_srtp";
/// Nothing is due any more. str0m wants a moment all the same.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// Makes instances of OpenSSL.
#[derive(Debug)]
pub(super) struct LibsslProvider;

impl DtlsProvider for LibsslProvider {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        TappingProvider.generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        if version != DtlsVersion::Dtls12 {
            return Err(CryptoError::Other("only DTLS 1.2".into()));
        }
        let tap = Tap::default();
        let stream = stream(certificate).map_err(|error| CryptoError::Other(error.to_string()))?;
        NEWEST.set(Some(tap.clone()));
        let (state, told) = (State::Idle, VecDeque::new());
        Ok(Box::new(LibsslInstance { stream, tap, now, state, told, again: None }))
    }

    /// Never: it would seed the handshake's random numbers.
    fn is_test(&self) -> bool {
        false
    }
}

thread_local! {
    /// The context of the certificate used last. Making one takes longer than a handshake, and a
    /// node has one certificate; the provider must be `'static`, hence no field of the identity.
    static CONTEXT: RefCell<Option<(Vec<u8>, SslContext)>> = const { RefCell::new(None) };
}

fn shared_context(certificate: &DtlsCert) -> Result<SslContext, ErrorStack> {
    CONTEXT.with_borrow_mut(|kept| match kept {
        Some((of, context)) if *of == certificate.certificate => Ok(context.clone()),
        _ => {
            let made = context(certificate)?;
            *kept = Some((certificate.certificate.clone(), made.clone()));
            Ok(made)
        }
    })
}

fn stream(certificate: &DtlsCert) -> Result<SslStream<Wire>, ErrorStack> {
    let context = shared_context(certificate)?;
    let mut ssl = Ssl::new(&context)?;
    ssl.set_mtu(u32::try_from(DTLS_DATAGRAM_BYTES_MAX).unwrap_or(u32::MAX))?;
    SslStream::new(ssl, Wire::default())
}

fn context(certificate: &DtlsCert) -> Result<SslContext, ErrorStack> {
    let mut context = SslContextBuilder::new(SslMethod::dtls())?;
    context.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    context.set_max_proto_version(Some(SslVersion::DTLS1_2))?;
    context.set_options(
        SslOptions::NO_TICKET
            | SslOptions::NO_COMPRESSION
            | SslOptions::NO_RENEGOTIATION
            | SslOptions::NO_QUERY_MTU,
    );
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    context.set_cipher_list(SUITES)?;
    context.set_groups_list("X25519:P-256:P-384")?;
    context.set_tlsext_use_srtp(PROFILES)?;
    context.set_certificate(&*X509::from_der(&certificate.certificate)?)?;
    context.set_private_key(&*PKey::private_key_from_der(&certificate.private_key)?)?;
    // Self-signed, all of them: what counts is the fingerprint, which str0m looks at.
    let mode = SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT;
    context.set_verify_callback(mode, |_, _| true);
    Ok(context.build())
}

/// Where OpenSSL reads one datagram at a time and writes whole ones.
#[derive(Debug, Default)]
struct Wire {
    arrived: Option<Vec<u8>>,
    leaving: VecDeque<Vec<u8>>,
    /// All that was written since something arrived that made OpenSSL write.
    flight: Vec<Vec<u8>>,
    /// Something has arrived, and nothing has been written yet.
    answers: bool,
}

impl Wire {
    fn arrive(&mut self, datagram: &[u8]) {
        self.arrived = Some(datagram.to_vec());
        self.answers = true;
    }

    fn send_flight_again(&mut self) {
        self.leaving.extend(self.flight.iter().cloned());
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(datagram) = self.arrived.take() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let taken = datagram.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(&datagram) {
            *to = *from;
        }
        Ok(taken)
    }
}

impl Write for Wire {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.answers) {
            self.flight.clear();
        }
        if self.flight.len() < DTLS_FLIGHT_DATAGRAMS_MAX {
            self.flight.push(datagram.to_vec());
        }
        self.leaving.push_back(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Neither side has begun.
    Idle,
    Shaking {
        is_client: bool,
    },
    Connected {
        is_client: bool,
    },
    Closed {
        is_client: bool,
    },
}

/// What str0m is to be told next, behind all datagrams.
#[derive(Debug)]
enum Told {
    Connected,
    Certificate(Vec<u8>),
    Closed,
}

/// One association.
struct LibsslInstance {
    stream: SslStream<Wire>,
    tap: Tap,
    now: Instant,
    state: State,
    told: VecDeque<Told>,
    again: Option<Again>,
}

/// When a flight is to be sent again.
#[derive(Debug, Clone, Copy)]
struct Again {
    at: Instant,
    times: usize,
}

impl fmt::Debug for LibsslInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LibsslInstance").field("state", &self.state).finish_non_exhaustive()
    }
}

impl LibsslInstance {
    /// Goes on with the handshake as far as what has arrived carries.
    fn shake(&mut self, is_client: bool) -> Result<(), DtlsImplError> {
        let before = self.stream.get_ref().leaving.len();
        let shaken = if is_client { self.stream.connect() } else { self.stream.accept() };
        if self.stream.get_ref().leaving.len() > before {
            self.again = Some(Again { at: self.now + DTLS_RETRANSMIT_AFTER, times: 0 });
        }
        match shaken {
            Ok(()) => {
                self.again = None;
                // From here on OpenSSL answers what a client sends again.
                self.stream.get_mut().flight = Vec::new();
                self.state = State::Connected { is_client };
                self.connected(is_client)
            }
            Err(error) if error.code() == ErrorCode::WANT_READ => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "DTLS handshake refused");
                Err(DtlsImplError::ConnectionClosed)
            }
        }
    }

    fn connected(&mut self, is_client: bool) -> Result<(), DtlsImplError> {
        let ssl = self.stream.ssl();
        let certificate = ssl.peer_certificate().and_then(|certificate| certificate.to_der().ok());
        // The mode above leaves no other way, but nobody may pass without one.
        let certificate = certificate.ok_or(DtlsImplError::ConnectionClosed)?;
        // A client that agreed to no SRTP gets none; the connection sees that there are no keys.
        if let Some((profile, bytes)) = ssl.selected_srtp_profile().and_then(profile_of) {
            let mut material = vec![0; bytes];
            ssl.export_keying_material(&mut material, LABEL, None)
                .map_err(|_| DtlsImplError::ConnectionClosed)?;
            let material = KeyingMaterial::new(&material);
            if let Some(keys) = TappedKeys::new(profile, &material, is_client) {
                self.tap.keep(keys);
            }
        }
        // The certificate first: it is looked at before anybody hears of a connection.
        self.told.extend([Told::Certificate(certificate), Told::Connected]);
        Ok(())
    }

    /// Reads what came after the handshake. Records that are not authentic OpenSSL drops itself.
    fn read(&mut self, is_client: bool) -> Result<(), DtlsImplError> {
        let mut scratch = [0; DTLS_DATAGRAM_BYTES_MAX];
        loop {
            match self.stream.ssl_read(&mut scratch) {
                Ok(_) => self.tap.refuse(),
                Err(error) if error.code() == ErrorCode::ZERO_RETURN => {
                    self.state = State::Closed { is_client };
                    self.told.push_back(Told::Closed);
                    return Ok(());
                }
                Err(error) if error.code() == ErrorCode::WANT_READ => return Ok(()),
                Err(error) => {
                    tracing::debug!(%error, "DTLS association ended");
                    return Err(DtlsImplError::ConnectionClosed);
                }
            }
        }
    }

    fn send_again(&mut self, again: Again) -> Result<(), DtlsImplError> {
        if again.times >= DTLS_RETRANSMISSIONS_MAX {
            return Err(DtlsImplError::ConnectionClosed);
        }
        self.stream.get_mut().send_flight_again();
        let times = again.times + 1;
        let wait = DTLS_RETRANSMIT_AFTER * (1 << times.min(16));
        self.again = Some(Again { at: self.now + wait, times });
        Ok(())
    }

    fn go_on(&mut self) -> Result<(), DtlsImplError> {
        match self.state {
            State::Idle | State::Closed { .. } => Ok(()),
            State::Shaking { is_client } => self.shake(is_client),
            State::Connected { is_client } => self.read(is_client),
        }
    }
}

/// The profile with the length of its keys and salts, both sides' together (RFC 5764 §4.1.2,
/// RFC 7714 §12).
fn profile_of(selected: &openssl::srtp::SrtpProtectionProfileRef) -> Option<(DtlsProfile, usize)> {
    use openssl::srtp::SrtpProfileId;
    match selected.id() {
        id if id == SrtpProfileId::SRTP_AEAD_AES_256_GCM => {
            Some((DtlsProfile::AEAD_AES_256_GCM, 2 * (32 + 12)))
        }
        id if id == SrtpProfileId::SRTP_AEAD_AES_128_GCM => {
            Some((DtlsProfile::AEAD_AES_128_GCM, 2 * (16 + 12)))
        }
        id if id == SrtpProfileId::SRTP_AES128_CM_SHA1_80 => {
            Some((DtlsProfile::AES128_CM_SHA1_80, 2 * (16 + 14)))
        }
        _ => None,
    }
}

impl DtlsInstance for LibsslInstance {
    fn set_active(&mut self, active: bool) {
        if self.state == State::Idle {
            self.state = State::Shaking { is_client: active };
        }
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.stream.get_mut().arrive(packet);
        let handled = self.go_on();
        // What came with the last message of a handshake.
        if matches!(self.state, State::Connected { .. }) && handled.is_ok() {
            self.go_on()?;
        }
        // What OpenSSL did not want must not be taken for the beginning of the next.
        self.stream.get_mut().arrived = None;
        handled
    }

    fn poll_output<'a>(&mut self, buffer: &'a mut [u8]) -> DtlsOutput<'a> {
        let leaving = &mut self.stream.get_mut().leaving;
        if let Some(first) = leaving.front() {
            let needed = first.len();
            let Some(into) = buffer.get_mut(..needed) else {
                return DtlsOutput::BufferTooSmall { needed };
            };
            into.copy_from_slice(first);
            leaving.pop_front();
            return DtlsOutput::Packet(into);
        }
        match self.told.pop_front() {
            Some(Told::Connected) => DtlsOutput::Connected,
            Some(Told::Certificate(der)) => match buffer.get_mut(..der.len()) {
                Some(into) => {
                    into.copy_from_slice(&der);
                    DtlsOutput::PeerCert(into)
                }
                None => {
                    let needed = der.len();
                    self.told.push_front(Told::Certificate(der));
                    DtlsOutput::BufferTooSmall { needed }
                }
            },
            Some(Told::Closed) => DtlsOutput::CloseNotify,
            None => DtlsOutput::Timeout(self.again.map_or(self.now + NEVER, |again| again.at)),
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.now = now;
        match (self.state, self.again) {
            (State::Shaking { .. }, Some(again)) if again.at <= now => self.send_again(again),
            (State::Shaking { .. }, None) => self.go_on(),
            _ => Ok(()),
        }
    }

    fn send_application_data(&mut self, _: &[u8]) -> Result<usize, DtlsImplError> {
        Ok(0)
    }

    fn is_active(&self) -> bool {
        match self.state {
            State::Idle => false,
            State::Shaking { is_client }
            | State::Connected { is_client }
            | State::Closed { is_client } => is_client,
        }
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        match self.state {
            State::Connected { .. } | State::Closed { .. } => Some(ProtocolVersion::DTLS1_2),
            State::Idle | State::Shaking { .. } => None,
        }
    }

    fn is_closing(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    fn is_closed(&self) -> bool {
        self.is_closing() && self.stream.get_ref().leaving.is_empty()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        if let State::Connected { is_client } = self.state {
            // The good-bye is written at once; whether one comes back does not matter.
            let _ = self.stream.shutdown();
            self.state = State::Closed { is_client };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;
    use openssl::pkey::{PKey, Private};
    use openssl::rsa::Rsa;
    use openssl::x509::X509Name;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an anchor for virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    /// A self-signed certificate like GStreamer's.
    fn rsa() -> DtlsCert {
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let mut name = X509Name::builder().unwrap();
        name.append_entry_by_text("CN", "publisher").unwrap();
        signed(&key, &name.build())
    }

    fn signed(key: &PKey<Private>, name: &openssl::x509::X509NameRef) -> DtlsCert {
        let mut certificate = X509::builder().unwrap();
        certificate.set_version(2).unwrap();
        certificate.set_subject_name(name).unwrap();
        certificate.set_issuer_name(name).unwrap();
        certificate.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        certificate.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
        certificate.set_pubkey(key).unwrap();
        certificate.sign(key, MessageDigest::sha256()).unwrap();
        let certificate = certificate.build().to_der().unwrap();
        DtlsCert { certificate, private_key: key.private_key_to_pkcs8().unwrap() }
    }

    struct End {
        dtls: Box<dyn DtlsInstance>,
        tap: Tap,
        certificate: Option<Vec<u8>>,
        connected: bool,
    }

    impl End {
        fn new(own: &DtlsCert, now: Instant, active: bool) -> Self {
            NEWEST.take();
            let dtls = LibsslProvider.new_dtls(own, now, DtlsVersion::Dtls12, None).unwrap();
            let tap = NEWEST.take().unwrap();
            let mut end = Self { dtls, tap, certificate: None, connected: false };
            end.dtls.set_active(active);
            end.dtls.handle_timeout(now).unwrap();
            end
        }

        /// What it has to send, and when it wants to be woken.
        fn drain(&mut self) -> (Vec<Vec<u8>>, Instant) {
            let (mut datagrams, mut buffer) = (Vec::new(), [0; 4096]);
            loop {
                match self.dtls.poll_output(&mut buffer) {
                    DtlsOutput::Packet(bytes) => datagrams.push(bytes.to_vec()),
                    DtlsOutput::PeerCert(der) => self.certificate = Some(der.to_vec()),
                    DtlsOutput::Connected => {
                        assert!(self.certificate.is_some(), "first who it is, then that it is");
                        self.connected = true;
                    }
                    DtlsOutput::Timeout(at) => return (datagrams, at),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// Both ends until neither has anything to send.
    fn shake(one: &mut End, other: &mut End) -> Result<(), DtlsImplError> {
        for _ in 0..10 {
            for bytes in one.drain().0 {
                assert!(bytes.len() <= DTLS_DATAGRAM_BYTES_MAX, "{} bytes", bytes.len());
                other.dtls.handle_packet(&bytes)?;
            }
            for bytes in other.drain().0 {
                one.dtls.handle_packet(&bytes)?;
            }
        }
        Ok(())
    }

    #[test]
    fn a_peer_with_an_rsa_certificate_is_served_in_both_roles() {
        let ours = LibsslProvider.generate_certificate().unwrap();
        let theirs = rsa();
        for active in [true, false] {
            let now = start();
            let mut we = End::new(&ours, now, active);
            let mut they = End::new(&theirs, now, !active);
            shake(&mut we, &mut they).unwrap();
            assert!(we.connected && they.connected);
            assert_eq!(we.certificate.as_ref(), Some(&theirs.certificate));
            let [here, there] = [&we, &they].map(|end| end.tap.keys().unwrap());
            assert_eq!((here.profile, here.material.len()), (there.profile, 88));
            assert_eq!(here.material, there.material);
            assert_eq!((here.local_is_client, there.local_is_client), (active, !active));
            they.dtls.close().unwrap();
            let (farewell, _) = they.drain();
            for bytes in farewell {
                we.dtls.handle_packet(&bytes).unwrap();
            }
            assert!(matches!(we.dtls.poll_output(&mut [0; 2048]), DtlsOutput::CloseNotify));
            assert!(we.dtls.is_closed() && they.dtls.is_closed());
        }
    }

    /// A client whose ClientHello is longer than a datagram, as those with keys that are to withstand
    /// quantum computers are.
    fn wordy_client(own: &DtlsCert) -> SslStream<Wire> {
        let mut context = SslContextBuilder::new(SslMethod::dtls()).unwrap();
        context.set_options(SslOptions::NO_QUERY_MTU);
        context.set_tlsext_use_srtp(PROFILES).unwrap();
        context.set_certificate(&X509::from_der(&own.certificate).unwrap()).unwrap();
        let key = PKey::private_key_from_der(&own.private_key).unwrap();
        context.set_private_key(&key).unwrap();
        let protocols: Vec<u8> = (0..8).flat_map(|n| [&[200][..], &[n; 200]].concat()).collect();
        context.set_alpn_protos(&protocols).unwrap();
        context.set_verify(SslVerifyMode::NONE);
        let mut ssl = Ssl::new(&context.build()).unwrap();
        ssl.set_mtu(1200).unwrap();
        SslStream::new(ssl, Wire::default()).unwrap()
    }

    #[test]
    fn a_client_hello_of_two_datagrams_is_understood_in_any_order() {
        let theirs = LibsslProvider.generate_certificate().unwrap();
        let providers: [&dyn DtlsProvider; 2] = [&LibsslProvider, &TappingProvider];
        for (provider, order) in providers.into_iter().flat_map(|provider| {
            [&[0, 1][..], &[1, 0], &[0, 0, 1, 1], &[1, 1, 0]].map(|order| (provider, order))
        }) {
            let ours = provider.generate_certificate().unwrap();
            let now = start();
            let dtls = provider.new_dtls(&ours, now, DtlsVersion::Dtls12, None).unwrap();
            let tap = NEWEST.take().unwrap();
            let mut we = End { dtls, tap, certificate: None, connected: false };
            we.dtls.set_active(false);
            we.dtls.handle_timeout(now).unwrap();
            let mut client = wordy_client(&theirs);
            let _ = client.connect();
            let hello: Vec<_> = client.get_mut().leaving.drain(..).collect();
            assert_eq!(hello.len(), 2, "{:?}", hello.iter().map(Vec::len).collect::<Vec<_>>());
            for at in order {
                we.dtls.handle_packet(&hello[*at]).unwrap();
            }
            for _ in 0..5 {
                for bytes in we.drain().0 {
                    client.get_mut().arrive(&bytes);
                    let _ = client.connect();
                }
                for bytes in std::mem::take(&mut client.get_mut().leaving) {
                    we.dtls.handle_packet(&bytes).unwrap();
                }
            }
            assert!(we.connected, "{provider:?} {order:?}");
        }
    }

    #[test]
    fn what_is_never_answered_is_sent_ever_more_seldom_and_given_up() {
        let ours = LibsslProvider.generate_certificate().unwrap();
        let mut now = start();
        let mut end = End::new(&ours, now, true);
        let (hello, mut at) = end.drain();
        assert_eq!(hello.len(), 1);
        for times in 0..DTLS_RETRANSMISSIONS_MAX {
            assert_eq!(at - now, DTLS_RETRANSMIT_AFTER * (1 << times));
            now = at;
            end.dtls.handle_timeout(now).unwrap();
            let (again, next) = end.drain();
            assert_eq!(again, hello, "the same datagram");
            at = next;
        }
        assert!(end.dtls.handle_timeout(at).is_err());
    }
}
