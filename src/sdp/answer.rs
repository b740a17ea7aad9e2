//! Answers: every m-section of the offer in its place (RFC 9429 §5.3), with ICE-lite, all
//! candidates, and one association for all.

use serde_json::{Map, Value};

use super::fragment::{Session, write_ice};
use super::lines::Writer;
use super::offer::Offer;
use super::section::Section;
use crate::control::TransportReply;
use crate::ortc::types::{RtpCodecParameters, RtpParameters};

/// What an m-section is answered with.
#[derive(Debug, Clone, Copy)]
pub enum Line<'a> {
    /// Port 0.
    Refused,
    /// Nothing flows.
    Idle,
    /// We receive a producer.
    Takes {
        /// In the client's numbers.
        rtp: &'a RtpParameters,
        /// The producer's id.
        label: &'a str,
    },
    /// We send a consumer.
    Gives {
        /// In the client's numbers.
        rtp: &'a RtpParameters,
        /// What is equal for media to be played in sync.
        stream: &'a str,
        /// What names this one.
        track: &'a str,
        /// The consumer's id.
        label: &'a str,
    },
}

/// An answer to an offer.
#[derive(Debug)]
pub struct Answer<'a> {
    /// What is answered.
    pub offer: &'a Offer,
    /// Which m-sections are in it.
    pub session: &'a Session,
    /// One per m-section of the offer.
    pub lines: Vec<Line<'a>>,
    /// Where the media goes.
    pub transport: &'a TransportReply,
}

impl Answer<'_> {
    fn sections(&self) -> impl Iterator<Item = (&Section, &Line<'_>)> {
        self.offer.sections.iter().zip(&self.lines)
    }

    /// The answer as text.
    #[must_use]
    pub fn write(&self) -> String {
        let mut writer = Writer::default();
        // A number below 2^63 of its own (RFC 8866 §5.2).
        let session = self.transport.id.0.as_u64_pair().0 >> 1;
        writer.line(format_args!("v=0"));
        writer.line(format_args!("o=- {session} 1 IN IP4 0.0.0.0"));
        writer.line(format_args!("s=-"));
        writer.line(format_args!("t=0 0"));
        writer.line(format_args!("a=group:{}", self.session.bundle));
        writer.line(format_args!("a=ice-lite"));
        for (section, line) in self.sections() {
            self.write_section(&mut writer, section, line);
        }
        writer.finish()
    }

    fn write_section(&self, writer: &mut Writer, section: &Section, line: &Line<'_>) {
        let formats = match line {
            Line::Takes { rtp, .. } | Line::Gives { rtp, .. } => {
                let types: Vec<_> = rtp.codecs.iter().map(|c| c.payload_type.to_string()).collect();
                types.join(" ")
            }
            Line::Refused | Line::Idle => section.formats.first().cloned().unwrap_or_default(),
        };
        let port = if matches!(line, Line::Refused) { 0 } else { 9 };
        writer.line(format_args!("m={} {port} {} {formats}", section.media, section.protocol));
        writer.line(format_args!("c=IN IP4 0.0.0.0"));
        if !section.mid.is_empty() {
            writer.line(format_args!("a=mid:{}", section.mid));
        }
        match line {
            Line::Refused => {
                writer.line(format_args!("a=inactive"));
                return;
            }
            Line::Idle => {
                let formats = section.formats.get(..1).unwrap_or_default();
                write_codecs(writer, &section.codecs.of(formats));
                writer.line(format_args!("a=inactive"));
            }
            Line::Takes { rtp, label } => {
                write_rtp(writer, rtp);
                writer.line(format_args!("a=recvonly"));
                write_label(writer, label);
                write_simulcast(writer, section, rtp);
            }
            Line::Gives { rtp, stream, track, label } => {
                write_rtp(writer, rtp);
                writer.line(format_args!("a=sendonly"));
                write_label(writer, label);
                writer.line(format_args!("a=msid:{stream} {track}"));
                write_ssrcs(writer, rtp);
            }
        }
        writer.line(format_args!("a=rtcp-mux"));
        if section.rtcp_rsize {
            writer.line(format_args!("a=rtcp-rsize"));
        }
        let setup = if self.offer.setup.client_begins() { "passive" } else { "active" };
        writer.line(format_args!("a=setup:{setup}"));
        for fingerprint in &self.transport.dtls_parameters.fingerprints {
            writer.line(format_args!(
                "a=fingerprint:{} {}",
                fingerprint.algorithm, fingerprint.value
            ));
        }
        write_ice(writer, &self.transport.ice_parameters, &self.transport.ice_candidates);
    }
}

/// Under which name the other routes know this medium (RFC 4574).
fn write_label(writer: &mut Writer, label: &str) {
    writer.line(format_args!("a=label:{label}"));
}

fn write_rtp(writer: &mut Writer, rtp: &RtpParameters) {
    write_codecs(writer, &rtp.codecs);
    for extension in &rtp.header_extensions {
        writer.line(format_args!("a=extmap:{} {}", extension.id, extension.uri));
    }
}

fn write_codecs(writer: &mut Writer, codecs: &[RtpCodecParameters]) {
    for codec in codecs {
        let (payload_type, clock_rate) = (codec.payload_type, codec.clock_rate);
        let name = codec.mime_type.split_once('/').map_or("", |(_, name)| name);
        match codec.channels {
            Some(channels @ 2..) => {
                writer.line(format_args!("a=rtpmap:{payload_type} {name}/{clock_rate}/{channels}"));
            }
            _ => writer.line(format_args!("a=rtpmap:{payload_type} {name}/{clock_rate}")),
        }
        let parameters = parameters(&codec.parameters);
        if !parameters.is_empty() {
            writer.line(format_args!("a=fmtp:{payload_type} {parameters}"));
        }
        for feedback in &codec.rtcp_feedback {
            let text = format!("{} {}", feedback.kind, feedback.parameter);
            writer.line(format_args!("a=rtcp-fb:{payload_type} {}", text.trim_end()));
        }
    }
}

/// `name=value;…`, without those that would be read as several.
fn parameters(parameters: &Map<String, Value>) -> String {
    let pairs: Vec<String> = parameters
        .iter()
        .filter_map(|(name, value)| {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return None,
            };
            let pair = if value.is_empty() { name.clone() } else { format!("{name}={value}") };
            (!pair.contains(';')).then_some(pair)
        })
        .collect();
    pairs.join(";")
}

fn write_simulcast(writer: &mut Writer, section: &Section, rtp: &RtpParameters) {
    let is_taken = |rid: &&String| rtp.encodings.iter().any(|e| e.rid.as_ref() == Some(*rid));
    let rids: Vec<&str> = section.simulcast.iter().filter(is_taken).map(String::as_str).collect();
    if rids.is_empty() {
        return;
    }
    for rid in &rids {
        writer.line(format_args!("a=rid:{rid} recv"));
    }
    writer.line(format_args!("a=simulcast:recv {}", rids.join(";")));
}

fn write_ssrcs(writer: &mut Writer, rtp: &RtpParameters) {
    let cname = rtp.rtcp.cname.as_deref().unwrap_or("-");
    for encoding in &rtp.encodings {
        let Some(ssrc) = encoding.ssrc else { continue };
        let repair = encoding.rtx.map(|rtx| rtx.ssrc);
        if let Some(repair) = repair {
            writer.line(format_args!("a=ssrc-group:FID {ssrc} {repair}"));
        }
        for ssrc in [Some(ssrc), repair].into_iter().flatten() {
            writer.line(format_args!("a=ssrc:{ssrc} cname:{cname}"));
        }
    }
}
