//! Whom to trust over HTTPS: the web's authorities, or certificates that an operator names.

mod named;

use std::path::Path;

use rustls::pki_types::CertificateDer;
use ureq::Agent;
use ureq::config::Config;
use ureq::tls::{PemItem, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, TcpConnector};

use self::named::Trusting;
use crate::config::unread;

/// Asks as these settings say; with a PEM file, only servers that show one of its certificates, or
/// one that they vouch for.
///
/// # Errors
/// One sentence, which begins with the file's name, when it cannot be read or holds no certificate.
pub(crate) fn agent(settings: Config, ca: Option<&Path>) -> Result<Agent, String> {
    let Some(path) = ca else { return Ok(settings.into()) };
    let trusting = trusting(path)?;
    let connector = ().chain(TcpConnector::default()).chain(trusting);
    Ok(Agent::with_parts(settings, connector, DefaultResolver::default()))
}

/// Whether [`agent`] could be made with that file.
///
/// # Errors
/// As there.
pub(crate) fn check(ca: &Path) -> Result<(), String> {
    trusting(ca).map(drop)
}

fn trusting(ca: &Path) -> Result<Trusting, String> {
    read(ca).and_then(Trusting::new).map_err(|why| format!("{}: {why}", ca.display()))
}

/// The certificates of a PEM file.
fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = std::fs::read(path).map_err(|error| unread(&error))?;
    let certificates: Result<Vec<CertificateDer<'static>>, ureq::Error> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate.der().to_vec().into())),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
        .collect();
    let certificates = certificates.map_err(|error| error.to_string())?;
    if certificates.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    Ok(certificates)
}
