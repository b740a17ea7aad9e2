//! `application/trickle-ice-sdpfrag` (RFC 8840 §9): what PATCH of a session carries both ways.

use super::error::SdpError;
use super::lines::{Writer, lines};
use super::offer::Offer;
use super::section::bounded;
use crate::control::IceParameters;
use crate::control::addresses::IceCandidate;
use crate::limits::ICE_CHARS_MAX;

/// A client's fragment, as far as a lite agent has a use for it: candidates are learned from the
/// client's checks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fragment {
    /// The client's ICE user name fragment, if told.
    pub ice_ufrag: Option<String>,
}

impl Fragment {
    /// Reads a fragment.
    ///
    /// # Errors
    /// `Malformed` for what is no fragment, says nothing about ICE, or names two ICE sessions.
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        let mut fragment = Self::default();
        let mut says_something = false;
        for line in lines(text) {
            let line = line?;
            let Some((name, value)) = line.attribute() else { continue };
            match name {
                "ice-ufrag" => {
                    let ufrag = bounded(&line, value, ICE_CHARS_MAX)?;
                    if fragment.ice_ufrag.as_ref().is_some_and(|known| *known != ufrag) {
                        return Err(line.malformed("names another ICE session"));
                    }
                    fragment.ice_ufrag = Some(ufrag);
                }
                "candidate" | "end-of-candidates" => {}
                _ => continue,
            }
            says_something = true;
        }
        if says_something {
            return Ok(fragment);
        }
        Err(SdpError::malformed("the fragment has no ICE attribute"))
    }
}

/// What a session's fragments and preconditions need to be known of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The client's ICE user name fragment.
    pub client_ufrag: String,
    /// The `group` attribute's value.
    pub bundle: String,
    /// The kind and media id of the first m-section.
    pub first: (String, String),
}

impl Session {
    /// Of an offer whose m-sections are refused where `live` does not say otherwise.
    #[must_use]
    pub fn new(offer: &Offer, live: &[bool]) -> Self {
        let sections = || offer.sections.iter().zip(live).filter(|(_, live)| **live);
        let first = sections().next().map(|(first, _)| (first.media.clone(), first.mid.clone()));
        let bundle = "BUNDLE".to_owned();
        Self {
            client_ufrag: offer.ice_ufrag.clone(),
            bundle: sections().fold(bundle, |group, (section, _)| group + " " + &section.mid),
            first: first.unwrap_or_default(),
        }
    }

    /// The fragment that tells a client its new ICE parameters.
    #[must_use]
    pub fn restarted(&self, ice: &IceParameters, candidates: &[IceCandidate]) -> String {
        let mut writer = Writer::default();
        let (media, mid) = &self.first;
        writer.line(format_args!("a=group:{}", self.bundle));
        writer.line(format_args!("a=ice-lite"));
        writer.line(format_args!("m={media} 9 UDP/TLS/RTP/SAVPF 0"));
        writer.line(format_args!("a=mid:{mid}"));
        write_ice(&mut writer, ice, candidates);
        writer.finish()
    }
}

/// Our part of ICE, with every candidate there will be.
pub(super) fn write_ice(writer: &mut Writer, ice: &IceParameters, candidates: &[IceCandidate]) {
    writer.line(format_args!("a=ice-ufrag:{}", ice.username_fragment));
    writer.line(format_args!("a=ice-pwd:{}", ice.password));
    for candidate in candidates {
        let IceCandidate { foundation, protocol, priority, address, port, kind, .. } = candidate;
        let tcp = candidate.tcp_type.map(|kind| format!(" tcptype {kind}")).unwrap_or_default();
        writer.line(format_args!(
            "a=candidate:{foundation} 1 {protocol} {priority} {address} {port} typ {kind}{tcp}"
        ));
    }
    writer.line(format_args!("a=end-of-candidates"));
}
