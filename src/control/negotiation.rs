//! The steps of `ortc` in order, with what needs chance: SSRCs and CNAMEs.
//!
//! Called by the use cases on the control thread; holds no state.

use rand::Rng;
use rand::distr::Alphanumeric;

use super::command::Layers;
use super::error::ControlError;
use super::registry::Transport;
use crate::limits::Limit;
use crate::ortc::scalability::Scalability;
use crate::ortc::types::{MediaKind, ProducerType, RtpCapabilities, RtpMapping, RtpParameters};
use crate::ortc::{self, Menu, OrtcError};

/// mediasoup's range of SSRCs, less room for a producer's further encodings. 1234, which clients
/// use for probing, is not in it.
const SSRCS: std::ops::Range<u32> = 100_000_000..999_999_000;

/// Draws until a free SSRC is found: with 4,096 of 900 million in use, a second draw is rare and a
/// sixteenth does not happen.
const SSRC_DRAWS: usize = 16;

/// Characters of a CNAME made for a client that gave none (mediasoup's 8).
const CNAME_CHARS: usize = 8;

impl From<OrtcError> for ControlError {
    fn from(error: OrtcError) -> Self {
        match error {
            OrtcError::Invalid(what) => Self::Invalid(what),
            OrtcError::Unsupported(what) => Self::Unsupported(what),
        }
    }
}

/// A producer's parameters, negotiated.
pub(super) struct Produced {
    pub(super) producer_type: ProducerType,
    /// As the client sends.
    pub(super) rtp: RtpParameters,
    pub(super) mapping: RtpMapping,
    /// As the room sees it.
    pub(super) consumable: RtpParameters,
    /// The CNAME of the transport from now on.
    pub(super) cname: String,
}

/// Negotiates a producer. The first CNAME of a transport is that of all its producers, so that
/// receivers keep them in sync.
pub(super) fn produce(
    kind: MediaKind,
    rtp: RtpParameters,
    room: &RtpCapabilities,
    transport: &Transport,
) -> Result<Produced, ControlError> {
    let mut rtp = ortc::normalise_producer(kind, rtp)?;
    let cname = transport
        .cname
        .clone()
        .or_else(|| rtp.rtcp.cname.take().filter(|cname| !cname.is_empty()))
        .unwrap_or_else(random_cname);
    rtp.rtcp.cname = Some(cname.clone());
    let producer_type = Menu::EXTENDED.producer_type(&rtp)?;
    let mapping = ortc::producer_mapping(&rtp, room, rand::rng().random_range(SSRCS))?;
    let consumable = ortc::consumable_parameters(kind, &rtp, room, &mapping);
    Ok(Produced { producer_type, rtp, mapping, consumable, cname })
}

fn random_cname() -> String {
    rand::rng().sample_iter(Alphanumeric).take(CNAME_CHARS).map(char::from).collect()
}

/// An SSRC that is free on the transport together with the next one, which RTX gets.
pub(super) fn free_ssrc(transport: &Transport) -> Result<u32, ControlError> {
    (0..SSRC_DRAWS)
        .map(|_| rand::rng().random_range(SSRCS))
        .find(|ssrc| transport.is_ssrc_free(*ssrc) && transport.is_ssrc_free(ssrc + 1))
        .ok_or(ControlError::LimitReached(Limit::TransportSsrcs))
}

/// The layers a consumer gets at most, clamped to those there are; `None` where there is but one.
pub(super) fn preferred_layers(
    producer_type: ProducerType,
    consumer: &RtpParameters,
    wanted: Option<(u8, Option<u8>)>,
) -> Option<Layers> {
    highest_layers(producer_type, consumer).map(|highest| clamped(highest, wanted))
}

/// What is wanted, as far as it is there: what is not given is the highest.
pub(super) fn clamped(highest: Layers, wanted: Option<(u8, Option<u8>)>) -> Layers {
    let (spatial, temporal) = wanted.unwrap_or((highest.spatial, None));
    Layers {
        spatial: spatial.min(highest.spatial),
        temporal: temporal.map_or(highest.temporal, |t| t.min(highest.temporal)),
    }
}

/// The highest layers of a consumer; `None` where there is but one.
pub(super) fn highest_layers(
    producer_type: ProducerType,
    consumer: &RtpParameters,
) -> Option<Layers> {
    if producer_type == ProducerType::Simple {
        return None;
    }
    let layers = consumer
        .encodings
        .first()
        .and_then(|encoding| encoding.scalability_mode.as_deref())
        .map_or(Scalability::SINGLE, Scalability::of);
    Some(Layers { spatial: layers.spatial - 1, temporal: layers.temporal - 1 })
}
