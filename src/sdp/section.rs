//! One m-section of an offer: bounded, and what it says about media put into types.

use super::codecs::Codecs;
use super::error::SdpError;
use super::lines::TextLine;
use crate::limits::{
    CNAME_CHARS_MAX, ENCODINGS_PER_PRODUCER_MAX, EXTENSION_URI_CHARS_MAX, HEADER_EXTENSIONS_MAX,
    MID_CHARS_MAX, MSID_CHARS_MAX, SDP_FORMATS_MAX, SDP_SSRCS_MAX,
};
use crate::ortc::types::MediaKind;

/// What offers an extension encrypted (RFC 6904 §4), mostly beside the same one in clear. Nobody here
/// decrypts them, so they are passed over.
const ENCRYPTED_EXTENSION: &str = "urn:ietf:params:rtp-hdrext:encrypt";

/// The largest id of a header extension in the one-byte form (RFC 8285 §4.2).
const EXTENSION_ID_MAX: u8 = 14;

/// Which way media may flow, as the offerer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// The offerer sends and receives: what an m-section means that says nothing.
    #[default]
    Both,
    /// The offerer sends.
    Out,
    /// The offerer receives.
    In,
    /// Neither.
    Idle,
}

/// One m-section of an offer.
#[derive(Debug, Clone, Default)]
pub struct Section {
    /// `audio`, `video`, `application` …
    pub media: String,
    /// `UDP/TLS/RTP/SAVPF` …
    pub protocol: String,
    /// Its formats as they came: payload types where it is about RTP.
    pub formats: Vec<String>,
    /// Its media id.
    pub mid: String,
    /// Which way media may flow.
    pub flow: Flow,
    /// The offerer has switched it off (port 0 without `bundle-only`).
    pub off: bool,
    /// RTP and RTCP share a port.
    pub rtcp_mux: bool,
    /// RTCP packets may be single (RFC 5506 §5).
    pub rtcp_rsize: bool,
    /// Media stream and track id, `stream track`.
    pub msid: Option<String>,
    /// Canonical name of its sources.
    pub cname: Option<String>,
    /// URI and id of each header extension.
    pub extensions: Vec<(String, u8)>,
    /// SSRCs in their order.
    pub ssrcs: Vec<u32>,
    /// SSRCs of media, and of their retransmissions.
    pub repairs: Vec<(u32, u32)>,
    /// RIDs that the offerer can send, with the largest picture each may have, if told.
    pub rids: Vec<(String, Option<u64>)>,
    /// Order of the RIDs in `a=simulcast:send`.
    pub simulcast: Vec<String>,
    pub(super) codecs: Codecs,
}

impl Section {
    /// From an `m=` line.
    pub(super) fn new(line: &TextLine<'_>) -> Result<Self, SdpError> {
        let mut words = line.value.split(' ').filter(|word| !word.is_empty());
        let mut word = || words.next().ok_or_else(|| line.malformed("has too few words"));
        let (media, port, protocol) = (word()?.to_owned(), word()?, word()?.to_owned());
        let port = port.split('/').next().unwrap_or_default();
        let port: u16 = port.parse().map_err(|_| line.malformed("has no port"))?;
        let formats: Vec<String> = words.map(str::to_owned).collect();
        if formats.is_empty() || formats.len() > SDP_FORMATS_MAX {
            let most = format!("must have 1 to {SDP_FORMATS_MAX} formats");
            return Err(line.malformed(&most));
        }
        Ok(Self { media, protocol, formats, off: port == 0, ..Self::default() })
    }

    /// Audio or video over RTP; `None` for everything else.
    #[must_use]
    pub fn kind(&self) -> Option<MediaKind> {
        let over_rtp = self.protocol.ends_with("RTP/SAVPF") || self.protocol.ends_with("RTP/SAVP");
        match self.media.as_str() {
            "audio" if over_rtp => Some(MediaKind::Audio),
            "video" if over_rtp => Some(MediaKind::Video),
            _ => None,
        }
    }

    /// The id under which the offerer knows a header extension.
    #[must_use]
    pub fn extension_id(&self, uri: &str) -> Option<u8> {
        self.extensions.iter().find(|(known, _)| known == uri).map(|(_, id)| *id)
    }

    /// Takes in one attribute; those that say nothing here are passed over.
    pub(super) fn read(
        &mut self,
        line: &TextLine<'_>,
        name: &str,
        value: &str,
    ) -> Result<(), SdpError> {
        match name {
            "mid" => self.mid = bounded(line, value, MID_CHARS_MAX)?,
            "sendrecv" => self.flow = Flow::Both,
            "sendonly" => self.flow = Flow::Out,
            "recvonly" => self.flow = Flow::In,
            "inactive" => self.flow = Flow::Idle,
            "bundle-only" => self.off = false,
            "rtcp-mux" => self.rtcp_mux = true,
            "rtcp-rsize" => self.rtcp_rsize = true,
            "rtpmap" => self.codecs.read_map(line, &self.media, value)?,
            "fmtp" => self.codecs.read_parameters(line, value)?,
            "rtcp-fb" => self.codecs.read_feedback(line, value)?,
            "extmap" => self.read_extension(line, value)?,
            "ssrc" => self.read_ssrc(line, value)?,
            "ssrc-group" => self.read_group(line, value)?,
            "msid" => self.msid = Some(bounded_words(line, value, MSID_CHARS_MAX)?),
            "rid" => self.read_rid(line, value)?,
            "simulcast" => self.read_simulcast(line, value)?,
            _ => {}
        }
        Ok(())
    }

    fn read_extension(&mut self, line: &TextLine<'_>, value: &str) -> Result<(), SdpError> {
        let mut words = value.split(' ');
        let (id, uri) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (id, direction) = id.split_once('/').unwrap_or((id, ""));
        let id: u16 = id.parse().map_err(|_| line.malformed("has no extension id"))?;
        if uri == ENCRYPTED_EXTENSION {
            return Ok(());
        }
        let uri = bounded(line, uri, EXTENSION_URI_CHARS_MAX)?;
        if self.extensions.len() >= HEADER_EXTENSIONS_MAX {
            return Err(line.malformed("is one extension too many"));
        }
        // Ids of the two-byte form are not taken: not every receiver is told that the forms mix.
        match u8::try_from(id) {
            Ok(id @ 1..=EXTENSION_ID_MAX) if direction != "inactive" => {
                if self.extensions.iter().any(|(known, taken)| *taken == id || *known == uri) {
                    return Err(line.malformed("repeats an extension or its id"));
                }
                self.extensions.push((uri, id));
            }
            _ => {}
        }
        Ok(())
    }

    fn read_ssrc(&mut self, line: &TextLine<'_>, value: &str) -> Result<(), SdpError> {
        let (ssrc, attribute) = value.split_once(' ').unwrap_or((value, ""));
        let ssrc = ssrc.parse().map_err(|_| line.malformed("has no SSRC"))?;
        if !self.ssrcs.contains(&ssrc) {
            if self.ssrcs.len() >= SDP_SSRCS_MAX {
                return Err(line.malformed("is one SSRC too many"));
            }
            self.ssrcs.push(ssrc);
        }
        if let Some(cname) = attribute.strip_prefix("cname:")
            && self.cname.is_none()
        {
            self.cname = Some(bounded_words(line, cname, CNAME_CHARS_MAX)?);
        }
        Ok(())
    }

    /// Groups of media and its retransmissions (RFC 4588 §8.8); others say nothing here.
    fn read_group(&mut self, line: &TextLine<'_>, value: &str) -> Result<(), SdpError> {
        let Some(members) = value.strip_prefix("FID ") else { return Ok(()) };
        let mut ssrcs = members.split(' ').map(|word| word.parse().ok());
        let (Some(Some(media)), Some(Some(repair))) = (ssrcs.next(), ssrcs.next()) else {
            return Err(line.malformed("has no two SSRCs"));
        };
        if self.repairs.len() >= SDP_SSRCS_MAX {
            return Err(line.malformed("is one group too many"));
        }
        self.repairs.push((media, repair));
        Ok(())
    }

    fn read_rid(&mut self, line: &TextLine<'_>, value: &str) -> Result<(), SdpError> {
        let mut words = value.splitn(3, ' ');
        let (rid, direction) = (words.next().unwrap_or_default(), words.next());
        if direction != Some("send") {
            return Ok(());
        }
        if self.rids.len() >= ENCODINGS_PER_PRODUCER_MAX {
            return Err(line.malformed("is one RID too many"));
        }
        let restrictions = words.next().unwrap_or_default().split(';');
        let bound = |name: &str| {
            let found = restrictions.clone().find_map(|r| r.trim().strip_prefix(name));
            found.and_then(|number| number.strip_prefix('=')?.parse::<u32>().ok())
        };
        let largest = match (bound("max-width"), bound("max-height")) {
            (None, None) => None,
            (width, height) => {
                let side = |side: Option<u32>| u64::from(side.unwrap_or(u32::MAX));
                Some(side(width).saturating_mul(side(height)))
            }
        };
        self.rids.push((bounded(line, rid, MID_CHARS_MAX)?, largest));
        Ok(())
    }

    /// The first alternative of each stream to be sent (RFC 8853 §5.1).
    fn read_simulcast(&mut self, line: &TextLine<'_>, value: &str) -> Result<(), SdpError> {
        let mut words = value.split(' ').skip_while(|word| *word != "send");
        let streams = words.nth(1).unwrap_or_default();
        for stream in streams.split(';').filter(|stream| !stream.is_empty()) {
            let first = stream.split(',').next().unwrap_or_default();
            let rid = bounded(line, first.strip_prefix('~').unwrap_or(first), MID_CHARS_MAX)?;
            if self.simulcast.len() >= ENCODINGS_PER_PRODUCER_MAX {
                return Err(line.malformed("has too many streams"));
            }
            self.simulcast.push(rid);
        }
        Ok(())
    }
}

/// A word of 1 to `most` characters.
pub(super) fn bounded(line: &TextLine<'_>, text: &str, most: usize) -> Result<String, SdpError> {
    if text.contains(char::is_whitespace) {
        return Err(line.malformed("has a space in a word"));
    }
    bounded_words(line, text, most)
}

/// Words of 1 to `most` characters altogether.
fn bounded_words(line: &TextLine<'_>, text: &str, most: usize) -> Result<String, SdpError> {
    let text = text.trim();
    if text.is_empty() || text.chars().nth(most).is_some() {
        return Err(line.malformed(&format!("must have a value of 1 to {most} characters")));
    }
    Ok(text.to_owned())
}
