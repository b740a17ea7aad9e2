//! A producer's payload types and what the room knows them as.

use crate::ortc::codec::Codec;
use crate::ortc::types::{RtpMapping, RtpParameters};

/// One payload type of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecEntry {
    /// As the producer sends it.
    pub payload_type: u8,
    /// As the room knows it.
    pub room_payload_type: u8,
    /// What it carries; [`Codec::Rtx`] for retransmissions.
    pub codec: Codec,
    /// Hz.
    pub clock_rate: u32,
    /// For RTX: the producer's payload type of what is repeated.
    pub repeats: Option<u8>,
    /// The receiver may ask for lost packets (RFC 4585 generic NACK).
    pub nack: bool,
    /// The receiver may ask for key frames with PLI.
    pub pli: bool,
    /// The receiver may ask for key frames with FIR.
    pub fir: bool,
}

/// The payload types of one producer: a handful, searched in order.
#[derive(Debug, Clone, Default)]
pub struct CodecTable(Vec<CodecEntry>);

impl CodecTable {
    /// From a producer's normalised parameters and their mapping.
    #[must_use]
    pub fn new(rtp: &RtpParameters, mapping: &RtpMapping) -> Self {
        let entries = rtp.codecs.iter().filter_map(|codec| {
            let mapped = mapping.codecs.iter().find(|m| m.payload_type == codec.payload_type)?;
            let apt = codec.parameters.get("apt").and_then(serde_json::Value::as_u64);
            let feedback = |kind: &str, parameter: &str| {
                codec.rtcp_feedback.iter().any(|f| f.kind == kind && f.parameter == parameter)
            };
            Some(CodecEntry {
                payload_type: codec.payload_type,
                room_payload_type: mapped.mapped_payload_type,
                codec: Codec::of(&codec.mime_type),
                clock_rate: codec.clock_rate,
                repeats: apt.and_then(|apt| u8::try_from(apt).ok()),
                nack: feedback("nack", ""),
                pli: feedback("nack", "pli"),
                fir: feedback("ccm", "fir"),
            })
        });
        Self(entries.collect())
    }

    /// The entry of a payload type as the producer sends it.
    #[must_use]
    pub fn entry(&self, payload_type: u8) -> Option<&CodecEntry> {
        self.0.iter().find(|entry| entry.payload_type == payload_type)
    }

    /// True when key frames of its media can be asked for by FIR only.
    #[must_use]
    pub fn wants_fir(&self) -> bool {
        let mut media = self.0.iter().filter(|entry| entry.codec.is_media());
        media.clone().any(|entry| entry.fir) && !media.any(|entry| entry.pli)
    }

    /// The first media codec: what a stream is until a packet tells otherwise.
    #[must_use]
    pub fn first_media(&self) -> Option<&CodecEntry> {
        self.0.iter().find(|entry| entry.codec != Codec::Rtx)
    }
}
