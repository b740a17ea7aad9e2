//! What a WHIP client sends, as producers: one per m-section that sends something the room carries.

use super::error::SdpError;
use super::offer::Offer;
use super::section::{Flow, Section};
use crate::ortc::codec::Codec;
use crate::ortc::types::{
    Direction, MediaKind, RtcpFeedback, RtcpParameters, RtpCapabilities, RtpCodecParameters,
    RtpEncodingParameters, RtpHeaderExtensionParameters, RtpParameters, RtxEncoding,
};
use crate::ortc::{capability_of, unusable_feedback, uri};

/// SDP does not tell temporal layers. Browsers send three in each encoding of a simulcast, as their
/// ORTC clients declare; what declared fewer would be sent on without the upper ones.
const SIMULCAST_MODE: &str = "L1T3";

/// Nor does it tell the layers of a single stream, of which browsers send up to three of each kind in
/// these codecs. What has fewer goes on whole: layers are chosen among those that arrive.
const LAYERED_MODE: &str = "L3T3";

/// What becomes of an m-section that is offered for sending.
#[derive(Debug, Clone)]
pub enum Sending {
    /// Nothing here carries it, or the client has switched it off: port 0.
    Refused,
    /// The client does not send.
    Idle,
    /// A producer.
    Producer(Box<Publication>),
}

/// A producer to be made.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Audio or video.
    pub kind: MediaKind,
    /// As the client sends: one codec, with its retransmissions.
    pub rtp: RtpParameters,
}

/// What each m-section of an offer becomes, in their order.
///
/// # Errors
/// `Unsupported` when nothing of it can be taken, or when a stream could not be told from others.
pub fn sendings(offer: &Offer, room: &RtpCapabilities) -> Result<Vec<Sending>, SdpError> {
    let numbered = offer.sections.iter().zip(1..);
    let sendings: Vec<Sending> = numbered
        .map(|(section, number)| sending(section, number, room))
        .collect::<Result<_, _>>()?;
    if sendings.iter().any(|sending| matches!(sending, Sending::Producer(_))) {
        return Ok(sendings);
    }
    Err(SdpError::unsupported("the offer sends nothing with a codec of this room"))
}

fn sending(section: &Section, number: u32, room: &RtpCapabilities) -> Result<Sending, SdpError> {
    let Some(kind) = section.kind().filter(|_| !section.off) else { return Ok(Sending::Refused) };
    if !matches!(section.flow, Flow::Out | Flow::Both) {
        return Ok(Sending::Idle);
    }
    let rids = ascending_rids(section);
    let offered = section.codecs.of(&section.formats);
    // Redundancy of sound is left to clients that speak ORTC: every viewer decodes what is inside.
    let is_media = |codec: &&RtpCodecParameters| {
        !matches!(codec.codec(), Codec::Rtx | Codec::Red) && capability_of(room, codec).is_some()
    };
    let mut media = offered.iter().filter(is_media);
    let one_of = |these: [Codec; 2]| media.clone().find(|codec| these.contains(&codec.codec()));
    // Studios offer one codec alone. What browsers send as encodings of VP9 is a single stream: it
    // is taken as its first encoding alone.
    let layered = one_of([Codec::Vp8, Codec::H264]).or_else(|| one_of([Codec::Av1, Codec::H265]));
    let layered = layered.filter(|_| rids.len() > 1);
    let rids = if layered.is_some() { rids } else { Vec::new() };
    let Some(chosen) = layered.or_else(|| media.next()) else { return Ok(Sending::Refused) };
    let chosen = common_profile(chosen, offered.iter().filter(is_media), room);
    let rtx = offered.iter().find(|c| c.codec().is_rtx() && c.apt() == Some(chosen.payload_type));
    let header_extensions = extensions(section, kind, room);
    let mut codecs: Vec<RtpCodecParameters> =
        [Some(chosen), rtx].into_iter().flatten().cloned().collect();
    reduce_feedback(&mut codecs, &header_extensions, room);
    let has = |uri: &str| header_extensions.iter().any(|extension| extension.uri == uri);
    let (by_mid, by_rid) = (has(uri::MID), has(uri::RID));
    let encodings = encodings(section, &rids, chosen.codec());
    let is_found = |encoding: &RtpEncodingParameters| {
        encoding.ssrc.is_some() || (by_mid && (encoding.rid.is_none() || by_rid))
    };
    if !encodings.iter().all(is_found) {
        let what = "has neither a=ssrc nor the header extensions that tell its packets";
        return Err(SdpError::unsupported(format!("m-section {number}: {what}")));
    }
    let rtp = RtpParameters {
        mid: Some(section.mid.clone()),
        codecs,
        header_extensions,
        encodings,
        rtcp: RtcpParameters { cname: section.cname.clone(), reduced_size: true },
        msid: section.msid.clone(),
    };
    Ok(Sending::Producer(Box::new(Publication { kind, rtp })))
}

/// Of the profiles of H264 that are offered, the one that the room lists first, which every browser
/// decodes; some clients prefer others.
fn common_profile<'a>(
    chosen: &'a RtpCodecParameters,
    media: impl Iterator<Item = &'a RtpCodecParameters>,
    room: &RtpCapabilities,
) -> &'a RtpCodecParameters {
    if chosen.codec() != Codec::H264 {
        return chosen;
    }
    let number = |codec: &&RtpCodecParameters| {
        let known = capability_of(room, codec).and_then(|known| known.preferred_payload_type);
        room.codecs.iter().position(|listed| listed.preferred_payload_type == known)
    };
    media.filter(|codec| codec.codec() == Codec::H264).min_by_key(number).unwrap_or(chosen)
}

fn encodings(section: &Section, rids: &[String], codec: Codec) -> Vec<RtpEncodingParameters> {
    if rids.len() > 1 {
        let named = |rid: &String| RtpEncodingParameters {
            rid: Some(rid.clone()),
            scalability_mode: Some(SIMULCAST_MODE.to_owned()),
            ..RtpEncodingParameters::default()
        };
        return rids.iter().map(named).collect();
    }
    let ssrc = section.ssrcs.first().copied();
    let repair = section.repairs.iter().find(|(media, _)| Some(*media) == ssrc);
    let rtx = repair.map(|(_, ssrc)| RtxEncoding { ssrc: *ssrc });
    let layered = matches!(codec, Codec::Vp9 | Codec::Av1);
    let scalability_mode = layered.then(|| LAYERED_MODE.to_owned());
    vec![RtpEncodingParameters { ssrc, rtx, scalability_mode, ..RtpEncodingParameters::default() }]
}

/// The RIDs of a simulcast, from the smallest picture to the largest.
///
/// SDP does not say which is which. Where the offer bounds their pictures, those bounds decide;
/// names that count up from 0 are from the largest down, as OBS writes them, and so are names
/// whose first is a word for the best. Otherwise they stand as W3C's `sendEncodings` do, whose
/// default scales make the last one the largest.
fn ascending_rids(section: &Section) -> Vec<String> {
    const BEST: [&str; 6] = ["f", "full", "h", "hi", "high", "max"];
    let declared = |rid: &&String| section.rids.iter().any(|(known, _)| known == *rid);
    let mut rids: Vec<String> = section.simulcast.iter().filter(declared).cloned().collect();
    let largest = |rid: &String| {
        section.rids.iter().find(|(known, _)| known == rid).and_then(|(_, largest)| *largest)
    };
    if rids.iter().any(|rid| largest(rid).is_some()) {
        rids.sort_by_key(|rid| largest(rid).unwrap_or(u64::MAX));
        return rids;
    }
    let counts = rids.iter().zip(0_u32..).all(|(rid, count)| *rid == count.to_string());
    let best_first =
        rids.first().is_some_and(|rid| BEST.contains(&rid.to_ascii_lowercase().as_str()));
    if counts || best_first {
        rids.reverse();
    }
    rids
}

/// What the room takes from producers of that kind, under the client's ids.
fn extensions(
    section: &Section,
    kind: MediaKind,
    room: &RtpCapabilities,
) -> Vec<RtpHeaderExtensionParameters> {
    let taken = room.header_extensions.iter().filter(|known| {
        known.kind == kind && matches!(known.direction, Direction::Sendrecv | Direction::Recvonly)
    });
    taken
        .filter_map(|known| {
            Some(RtpHeaderExtensionParameters {
                uri: known.uri.clone(),
                id: section.extension_id(&known.uri)?,
                encrypt: false,
                parameters: serde_json::Map::new(),
            })
        })
        .collect()
}

/// Feedback that both sides know, with one kind of bandwidth estimation: the one whose header
/// extension is there.
fn reduce_feedback(
    codecs: &mut [RtpCodecParameters],
    extensions: &[RtpHeaderExtensionParameters],
    room: &RtpCapabilities,
) {
    let dropped = unusable_feedback(extensions);
    for codec in codecs {
        let known: Vec<RtcpFeedback> = match capability_of(room, codec) {
            Some(known) if !codec.codec().is_rtx() => known.rtcp_feedback.clone(),
            _ => Vec::new(),
        };
        codec.rtcp_feedback.retain(|feedback| {
            known.contains(feedback) && !dropped.contains(&feedback.kind.as_str())
        });
    }
}
