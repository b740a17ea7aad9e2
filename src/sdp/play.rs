//! What a WHEP client can receive: one wish per m-section, in its own numbers.

use super::error::SdpError;
use super::offer::Offer;
use super::section::{Flow, Section};
use crate::ortc::ClientNumbers;
use crate::ortc::codec::Codec;
use crate::ortc::types::{
    Direction, MediaKind, RtpCapabilities, RtpCodecCapability, RtpCodecParameters,
    RtpHeaderExtension,
};

/// What becomes of an m-section that is offered for receiving.
#[derive(Debug, Clone)]
pub enum Receiving {
    /// It is not about audio or video, or the client has switched it off: port 0.
    Refused,
    /// The client does not receive.
    Idle,
    /// A consumer may be sent here.
    Wish(Box<Wish>),
}

/// An m-section that waits for a producer.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Audio or video.
    pub kind: MediaKind,
    /// What the client can decode, payload types its own, header extensions in the room's numbers.
    pub capabilities: RtpCapabilities,
    /// The client's numbers.
    pub numbers: ClientNumbers,
}

/// What each m-section of an offer becomes, in their order.
///
/// # Errors
/// `Unsupported` when the offer receives nothing.
pub fn receivings(offer: &Offer, room: &RtpCapabilities) -> Result<Vec<Receiving>, SdpError> {
    let receivings: Vec<Receiving> =
        offer.sections.iter().map(|section| receiving(section, room)).collect();
    if receivings.iter().any(|receiving| matches!(receiving, Receiving::Wish(_))) {
        return Ok(receivings);
    }
    Err(SdpError::unsupported("the offer receives neither audio nor video"))
}

fn receiving(section: &Section, room: &RtpCapabilities) -> Receiving {
    let Some(kind) = section.kind().filter(|_| !section.off) else { return Receiving::Refused };
    if !matches!(section.flow, Flow::In | Flow::Both) {
        return Receiving::Idle;
    }
    let codecs = section.codecs.of(&section.formats);
    let capability = |codec: &RtpCodecParameters| capability(kind, codec, room);
    let sent = room.header_extensions.iter().filter(|known| {
        known.kind == kind && matches!(known.direction, Direction::Sendrecv | Direction::Sendonly)
    });
    let header_extensions: Vec<RtpHeaderExtension> =
        sent.filter(|known| section.extension_id(&known.uri).is_some()).cloned().collect();
    Receiving::Wish(Box::new(Wish {
        kind,
        capabilities: RtpCapabilities {
            codecs: codecs.iter().filter_map(capability).collect(),
            header_extensions,
        },
        numbers: ClientNumbers { mid: section.mid.clone(), extensions: section.extensions.clone() },
    }))
}

/// A codec that the room knows by name, with the feedback that both sides know.
fn capability(
    kind: MediaKind,
    codec: &RtpCodecParameters,
    room: &RtpCapabilities,
) -> Option<RtpCodecCapability> {
    // Redundancy is numbered inside its payloads, in the room's numbers.
    let known = room.codecs.iter().filter(|known| known.codec() != Codec::Red).find(|known| {
        known.mime_type.eq_ignore_ascii_case(&codec.mime_type)
            && known.clock_rate == codec.clock_rate
            && known.channels == codec.channels
    })?;
    let mut rtcp_feedback = codec.rtcp_feedback.clone();
    rtcp_feedback.retain(|feedback| known.rtcp_feedback.contains(feedback));
    Some(RtpCodecCapability {
        kind,
        mime_type: codec.mime_type.clone(),
        preferred_payload_type: Some(codec.payload_type),
        clock_rate: codec.clock_rate,
        channels: codec.channels,
        parameters: codec.parameters.clone(),
        rtcp_feedback,
    })
}
