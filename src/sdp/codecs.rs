//! Codecs of an m-section: `rtpmap`, `fmtp` and `rtcp-fb` put together, in the order of the formats.

use serde_json::{Map, Value};

use super::error::SdpError;
use super::lines::TextLine;
use crate::limits::{
    CODEC_PARAMETERS_MAX, MIME_CHARS_MAX, PARAMETER_CHARS_MAX, RTCP_FEEDBACK_MAX, SDP_FORMATS_MAX,
};
use crate::ortc::types::{RtcpFeedback, RtpCodecParameters};

/// What an m-section says of its payload types.
#[derive(Debug, Clone, Default)]
pub(super) struct Codecs {
    maps: Vec<RtpCodecParameters>,
    parameters: Vec<(u8, Map<String, Value>)>,
    /// Of all payload types where there is none.
    feedback: Vec<(Option<u8>, RtcpFeedback)>,
}

impl Codecs {
    /// `<payload type> <name>/<clock rate>[/<channels>]`
    pub(super) fn read_map(
        &mut self,
        line: &TextLine<'_>,
        media: &str,
        value: &str,
    ) -> Result<(), SdpError> {
        let (payload_type, codec) = number(line, value)?;
        let mut parts = codec.split('/');
        let (name, clock) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let clock_rate = clock.parse().map_err(|_| line.malformed("has no clock rate"))?;
        let channels = match parts.next() {
            Some(channels) => {
                Some(channels.parse().map_err(|_| line.malformed("has no number of channels"))?)
            }
            None => (media == "audio").then_some(1),
        };
        let mime_type = format!("{media}/{name}");
        if name.is_empty() || mime_type.chars().nth(MIME_CHARS_MAX).is_some() {
            return Err(line.malformed("has no codec's name"));
        }
        if self.maps.iter().any(|known| known.payload_type == payload_type) {
            return Err(line.malformed("repeats a payload type"));
        }
        if self.maps.len() >= SDP_FORMATS_MAX {
            return Err(line.malformed("is one codec too many"));
        }
        self.maps.push(RtpCodecParameters {
            mime_type,
            payload_type,
            clock_rate,
            channels: channels.filter(|_| media == "audio"),
            parameters: Map::new(),
            rtcp_feedback: Vec::new(),
        });
        Ok(())
    }

    /// `<payload type> <name>=<value>;…`
    pub(super) fn read_parameters(
        &mut self,
        line: &TextLine<'_>,
        value: &str,
    ) -> Result<(), SdpError> {
        let (payload_type, text) = number(line, value)?;
        let mut parameters = Map::new();
        for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let long = |text: &str| text.chars().nth(PARAMETER_CHARS_MAX).is_some();
            if parameters.len() >= CODEC_PARAMETERS_MAX || long(name) || long(value) {
                return Err(line.malformed("has too many or too long parameters"));
            }
            parameters.insert(name.trim().to_owned(), typed(name.trim(), value.trim()));
        }
        if self.parameters.len() >= SDP_FORMATS_MAX {
            return Err(line.malformed("is one list of parameters too many"));
        }
        self.parameters.push((payload_type, parameters));
        Ok(())
    }

    /// `<payload type or *> <type> [<parameter>]`
    pub(super) fn read_feedback(
        &mut self,
        line: &TextLine<'_>,
        value: &str,
    ) -> Result<(), SdpError> {
        let (of, text) = value.split_once(' ').unwrap_or((value, ""));
        let of = match of {
            "*" => None,
            of => Some(of.parse().map_err(|_| line.malformed("has no payload type"))?),
        };
        let (kind, parameter) = text.split_once(' ').unwrap_or((text, ""));
        let long = |text: &str| text.chars().nth(MIME_CHARS_MAX).is_some();
        let full = self.feedback.iter().filter(|(other, _)| *other == of).count();
        if kind.is_empty() || long(kind) || long(parameter) || full >= RTCP_FEEDBACK_MAX {
            return Err(line.malformed("has no, or too much feedback"));
        }
        let feedback =
            RtcpFeedback { kind: kind.to_owned(), parameter: parameter.trim().to_owned() };
        self.feedback.push((of, feedback));
        Ok(())
    }

    /// The codecs of these formats, in their order; formats without an `rtpmap` are left out.
    pub(super) fn of(&self, formats: &[String]) -> Vec<RtpCodecParameters> {
        let map_of = |format: &String| {
            let payload_type: u8 = format.parse().ok()?;
            self.maps.iter().find(|map| map.payload_type == payload_type)
        };
        formats.iter().filter_map(map_of).map(|map| self.complete(map)).collect()
    }

    fn complete(&self, map: &RtpCodecParameters) -> RtpCodecParameters {
        let own = map.payload_type;
        let parameters = self.parameters.iter().find(|(of, _)| *of == own);
        let mut rtcp_feedback = Vec::new();
        for (of, feedback) in &self.feedback {
            if of.is_none_or(|of| of == own) && !rtcp_feedback.contains(feedback) {
                rtcp_feedback.push(feedback.clone());
            }
        }
        RtpCodecParameters {
            parameters: parameters.map(|(_, map)| map.clone()).unwrap_or_default(),
            rtcp_feedback,
            ..map.clone()
        }
    }
}

fn number<'a>(line: &TextLine<'_>, value: &'a str) -> Result<(u8, &'a str), SdpError> {
    let (number, rest) = value.split_once(' ').unwrap_or((value, ""));
    match number.parse() {
        Ok(number @ 0..=127) => Ok((number, rest.trim())),
        _ => Err(line.malformed("has no payload type from 0 to 127")),
    }
}

/// Decimal integers become numbers, as in the parameters of ORTC clients; what names a profile is
/// hexadecimal, whatever it looks like.
fn typed(name: &str, value: &str) -> Value {
    let number = value.parse::<u32>().ok().filter(|number| number.to_string() == value);
    match number {
        Some(number) if !name.eq_ignore_ascii_case("profile-level-id") => number.into(),
        _ => value.into(),
    }
}
