//! A client's whole offer: its m-sections, and what holds for all of them.

use super::error::SdpError;
use super::lines::{TextLine, lines};
use super::section::{Flow, Section, bounded};
use crate::limits::{ICE_CHARS_MAX, SDP_MEDIA_MAX};

/// Who may begin the DTLS handshake, in the offerer's words (RFC 8842 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// The offerer leaves it to us, and so begins itself.
    ActPass,
    /// The offerer begins.
    Active,
    /// We begin.
    Passive,
}

impl Setup {
    /// True when the client begins the handshake, given this offer.
    #[must_use]
    pub fn client_begins(self) -> bool {
        self != Self::Passive
    }
}

/// A checked offer: at least one m-section, all live ones in one BUNDLE group, one ICE and one DTLS
/// association for all.
#[derive(Debug, Clone)]
pub struct Offer {
    /// In their order.
    pub sections: Vec<Section>,
    /// SHA-256 of the client's certificate.
    pub fingerprint: [u8; 32],
    /// Who begins the DTLS handshake.
    pub setup: Setup,
    /// The client's ICE user name fragment.
    pub ice_ufrag: String,
}

/// What may stand above the m-sections, or in them.
#[derive(Debug, Default)]
struct Association {
    ufrag: Option<String>,
    fingerprint: Option<[u8; 32]>,
    setup: Option<Setup>,
}

impl Association {
    /// Takes in one attribute; the first of each kind counts.
    fn read(&mut self, line: &TextLine<'_>, name: &str, value: &str) -> Result<(), SdpError> {
        match name {
            "ice-ufrag" if self.ufrag.is_none() => {
                self.ufrag = Some(bounded(line, value, ICE_CHARS_MAX)?);
            }
            "fingerprint" => {
                let (hash, pairs) = value.split_once(' ').unwrap_or((value, ""));
                if self.fingerprint.is_none() && hash.eq_ignore_ascii_case("sha-256") {
                    let bytes = fingerprint_bytes(pairs);
                    let must = "must have 32 hexadecimal pairs with colons between them";
                    self.fingerprint = Some(bytes.ok_or_else(|| line.malformed(must))?);
                }
            }
            "setup" if self.setup.is_none() => {
                self.setup = Some(match value {
                    "actpass" => Setup::ActPass,
                    "active" => Setup::Active,
                    "passive" => Setup::Passive,
                    _ => return Err(line.malformed("must be actpass, active or passive")),
                });
            }
            _ => {}
        }
        Ok(())
    }
}

impl Offer {
    /// Reads an offer.
    ///
    /// # Errors
    /// `Malformed` for what is no SDP or contradicts itself; `Unsupported` without BUNDLE, RTCP
    /// multiplexing, ICE, or a SHA-256 fingerprint.
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        let mut lines = lines(text);
        match lines.next() {
            Some(Ok(first)) if (first.letter, first.value) == ('v', "0") => {}
            _ => return Err(SdpError::malformed("line 1: must be v=0")),
        }
        let (mut sections, mut association) = (Vec::<Section>::new(), Association::default());
        let (mut bundle, mut flow) = (Vec::new(), Flow::default());
        for line in lines {
            let line = line?;
            if line.letter == 'm' {
                if sections.len() >= SDP_MEDIA_MAX {
                    return Err(line.malformed("is one m-section too many"));
                }
                sections.push(Section { flow, ..Section::new(&line)? });
                continue;
            }
            let Some((name, value)) = line.attribute() else { continue };
            association.read(&line, name, value)?;
            match sections.last_mut() {
                Some(section) => section.read(&line, name, value)?,
                None => match (name, value.strip_prefix("BUNDLE ")) {
                    ("group", Some(mids)) if bundle.is_empty() => {
                        bundle = mids.split(' ').map(str::to_owned).collect();
                    }
                    ("sendonly", _) => flow = Flow::Out,
                    ("recvonly", _) => flow = Flow::In,
                    ("inactive", _) => flow = Flow::Idle,
                    _ => {}
                },
            }
        }
        check(&sections, &bundle)?;
        Self::associated(sections, association)
    }

    fn associated(sections: Vec<Section>, of: Association) -> Result<Self, SdpError> {
        let Some(ice_ufrag) = of.ufrag else {
            return Err(SdpError::unsupported("the offer has no a=ice-ufrag"));
        };
        let Some(fingerprint) = of.fingerprint else {
            return Err(SdpError::unsupported("the offer has no sha-256 a=fingerprint"));
        };
        let setup = of.setup.unwrap_or(Setup::ActPass);
        Ok(Self { sections, fingerprint, setup, ice_ufrag })
    }
}

fn check(sections: &[Section], bundle: &[String]) -> Result<(), SdpError> {
    if sections.is_empty() {
        return Err(SdpError::malformed("the offer has no m-section"));
    }
    for (index, section) in sections.iter().enumerate() {
        let refuse = |what: &str| format!("m-section {}: {what}", index + 1);
        let has_mid = !section.mid.is_empty();
        if has_mid && sections.iter().take(index).any(|other| other.mid == section.mid) {
            return Err(SdpError::malformed(refuse("repeats an a=mid")));
        }
        // Of a section that is off only its place counts.
        if section.off {
            continue;
        }
        if !has_mid {
            return Err(SdpError::unsupported(refuse("has no a=mid")));
        }
        let alone = sections.len() == 1 && bundle.is_empty();
        if !alone && !bundle.contains(&section.mid) {
            return Err(SdpError::unsupported(refuse("is not in the BUNDLE group")));
        }
        if section.kind().is_some() && !section.rtcp_mux {
            return Err(SdpError::unsupported(refuse("has no a=rtcp-mux")));
        }
    }
    Ok(())
}

/// 32 hexadecimal pairs with colons between them.
#[must_use]
pub fn fingerprint_bytes(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let mut pairs = text.split(':');
    for byte in &mut bytes {
        let pair = pairs.next()?;
        // `from_str_radix` would take a sign.
        if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    pairs.next().is_none().then_some(bytes)
}
