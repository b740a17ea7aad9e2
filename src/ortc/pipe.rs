//! What another router gets of a producer: every encoding, and the dependency descriptor that
//! browsers never see. Pure; the shape of the fan-out between shards and nodes. Who pipes to whom
//! is not decided here.

use serde_json::Map;

use super::consumer::all_encodings;
use super::menu::DEPENDENCY_DESCRIPTOR_ID;
use super::types::{RtcpFeedback, RtpHeaderExtensionParameters, RtpParameters};
use super::uri;

/// A pipe consumer to describe.
#[derive(Debug, Clone, Copy)]
pub struct PipeRequest<'a> {
    /// What the producer offers, from [`super::consumable_parameters`].
    pub consumable: &'a RtpParameters,
    /// Retransmissions between the routers.
    pub enable_rtx: bool,
    /// SSRC of the first encoding; the others count up, RTX SSRCs follow the last.
    pub ssrc: u32,
}

/// The parameters with which another router receives all of a producer.
///
/// Feedback is what a router can answer (`nack pli`, `ccm fir`, and `nack` with RTX). Extensions
/// that mean something on one transport only are left out, the dependency descriptor is put in, and
/// the list is sorted by id.
#[must_use]
pub fn pipe_consumer_parameters(request: PipeRequest<'_>) -> RtpParameters {
    let PipeRequest { consumable, enable_rtx, ssrc } = request;
    let mut codecs = consumable.codecs.clone();
    codecs.retain(|codec| enable_rtx || !codec.codec().is_rtx());
    for codec in &mut codecs {
        codec.rtcp_feedback.retain(|feedback| is_kept(feedback, enable_rtx));
    }
    let has_rtx = codecs.iter().any(|codec| codec.codec().is_rtx());
    RtpParameters {
        mid: None,
        codecs,
        header_extensions: header_extensions(consumable),
        encodings: all_encodings(&consumable.encodings, ssrc, has_rtx),
        rtcp: consumable.rtcp.clone(),
        msid: consumable.msid.clone(),
    }
}

fn is_kept(feedback: &RtcpFeedback, enable_rtx: bool) -> bool {
    match (feedback.kind.as_str(), feedback.parameter.as_str()) {
        ("nack", "pli") | ("ccm", "fir") => true,
        ("nack", "") => enable_rtx,
        _ => false,
    }
}

fn header_extensions(consumable: &RtpParameters) -> Vec<RtpHeaderExtensionParameters> {
    const PER_TRANSPORT: [&str; 3] = [uri::MID, uri::ABS_SEND_TIME, uri::TRANSPORT_CC];
    let mut extensions = consumable.header_extensions.clone();
    extensions.retain(|extension| {
        !PER_TRANSPORT.contains(&extension.uri.as_str())
            && extension.uri != uri::DEPENDENCY_DESCRIPTOR
    });
    extensions.push(RtpHeaderExtensionParameters {
        uri: uri::DEPENDENCY_DESCRIPTOR.to_owned(),
        id: DEPENDENCY_DESCRIPTOR_ID,
        encrypt: false,
        parameters: Map::new(),
    });
    extensions.sort_by_key(|extension| extension.id);
    extensions
}
