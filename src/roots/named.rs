//! TLS to a server whose certificates an operator names: authorities, or the one that it shows.
//!
//! What `openssl req -x509` makes says of itself that it is an authority, and as that no chain may
//! end at a server with it. Whoever names the very certificate of a server means that server, so it
//! is taken byte for byte, while it is valid and for the names in it.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned,
};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};
use x509_cert::Certificate as X509;
use x509_cert::der::Decode as _;

/// Speaks TLS with who has one of the named certificates, or one that they vouch for.
#[derive(Clone)]
pub(super) struct Trusting(Arc<ClientConfig>);

impl Trusting {
    /// # Errors
    /// When none of the certificates can be used.
    pub(super) fn new(named: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(named.iter().cloned());
        let chains =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&crypto))
                .build()
                .map_err(|error| error.to_string())?;
        let config = ClientConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Named { named, chains }))
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }
}

impl fmt::Debug for Trusting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trusting")
    }
}

/// Checks what a server shows.
#[derive(Debug)]
struct Named {
    named: Vec<CertificateDer<'static>>,
    chains: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.named.contains(shown) {
            return self.chains.verify_server_cert(shown, intermediates, name, ocsp, now);
        }
        let parsed = X509::from_der(shown).map_err(|_| CertificateError::BadEncoding)?;
        let validity = parsed.tbs_certificate().validity();
        let seconds = now.as_secs();
        if seconds < validity.not_before.to_unix_duration().as_secs() {
            return Err(CertificateError::NotValidYet.into());
        }
        if seconds > validity.not_after.to_unix_duration().as_secs() {
            return Err(CertificateError::Expired.into());
        }
        verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

impl<In: Transport> Connector<In> for Trusting {
    type Out = Either<In, Secured>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| ureq::Error::HostNotFound)?;
        let connection = ClientConnection::new(Arc::clone(&self.0), name)?;
        let transport: Box<dyn Transport> = Box::new(transport);
        let adapter = TransportAdapter::new(transport, Arc::clone(&details.current_time));
        let mut stream = StreamOwned::new(connection, adapter);
        stream.sock.set_timeout(details.timeout);
        stream.conn.complete_io(&mut stream.sock)?;
        let (input, output) =
            (details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Secured { buffers: LazyBuffers::new(input, output), stream })))
    }
}

/// A connection with TLS.
pub(super) struct Secured {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Transport for Secured {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        Ok(self.stream.write_all(output)?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secured")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_named_certificate_itself_is_taken_for_its_names_while_it_is_valid() {
        let issued = || {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.not_before = rcgen::date_time_ymd(2027, 1, 1);
            params.not_after = rcgen::date_time_ymd(2028, 1, 1);
            params.self_signed(&key).unwrap().der().clone()
        };
        let (named, other) = (issued(), issued());
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(named.clone()).unwrap();
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crypto);
        let verifier = Named { named: vec![named.clone()], chains: chains.build().unwrap() };
        let begin = 1_798_761_600;
        let verified = |shown: &CertificateDer<'_>, name: &'static str, seconds: u64| {
            let name = ServerName::try_from(name).unwrap();
            let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            verifier.verify_server_cert(shown, &[], &name, &[], now).map_err(|e| e.to_string())
        };
        assert!(verified(&named, "a.example", begin).is_ok());
        for (shown, name, seconds, words) in [
            (&named, "b.example", begin, "not valid for name"),
            (&named, "a.example", begin - 1, "NotValidYet"),
            (&named, "a.example", begin + 366 * 86_400, "Expired"),
            (&other, "a.example", begin, "CaUsedAsEndEntity"),
        ] {
            let why = verified(shown, name, seconds).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
