//! Which incoming stream a packet belongs to: by SSRC, else by MID, else by RID.
//!
//! Owns a transport's tables of announced SSRCs, MIDs and RIDs (mediasoup's "RTP listener"). Called
//! by the transport when a packet's SSRC is not known yet; the answer is remembered with the SSRC's
//! SRTP context, so this is not on the path of every packet. Invariants: an SSRC and a MID name one
//! producer each; a RID names one encoding of a MID, or of the transport where no MID is announced.
//! It does not look into packets.

use crate::control::command::Refusal;
use crate::engine::{ProducerKey, StreamKey};
use crate::ortc::types::RtpParameters;

/// What a packet is for its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The media itself.
    Media,
    /// Repair: retransmissions (RFC 4588).
    Rtx,
}

/// Where the packets of an SSRC go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The stream.
    pub stream: StreamKey,
    /// Media or repair.
    pub role: Role,
}

/// What a packet says about where it belongs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints<'a> {
    /// RTP SSRC.
    pub ssrc: u32,
    /// RTP payload type.
    pub payload_type: u8,
    /// SDES MID (RFC 9143 §15).
    pub mid: Option<&'a str>,
    /// SDES RtpStreamId (RFC 8852).
    pub rid: Option<&'a str>,
    /// SDES RepairedRtpStreamId (RFC 8852).
    pub repaired_rid: Option<&'a str>,
}

#[derive(Debug)]
struct Encoding {
    stream: StreamKey,
    ssrc: Option<u32>,
    rtx_ssrc: Option<u32>,
    rid: Option<String>,
}

#[derive(Debug)]
struct Entry {
    producer: ProducerKey,
    mid: Option<String>,
    encodings: Vec<Encoding>,
    rtx_payload_types: Vec<u8>,
    payload_types: Vec<u8>,
}

impl Entry {
    fn role_of(&self, payload_type: u8) -> Option<Role> {
        if self.rtx_payload_types.contains(&payload_type) {
            Some(Role::Rtx)
        } else if self.payload_types.contains(&payload_type) {
            Some(Role::Media)
        } else {
            None
        }
    }

    fn by_ssrc(&self, ssrc: u32) -> Option<Route> {
        self.encodings.iter().find_map(|e| {
            if e.ssrc == Some(ssrc) {
                Some(Route { stream: e.stream, role: Role::Media })
            } else if e.rtx_ssrc == Some(ssrc) {
                Some(Route { stream: e.stream, role: Role::Rtx })
            } else {
                None
            }
        })
    }

    fn by_rid(&self, hints: &Hints<'_>) -> Option<Route> {
        let (rid, role) = match (hints.rid, hints.repaired_rid) {
            (_, Some(rid)) => (rid, Role::Rtx),
            (Some(rid), None) => (rid, self.role_of(hints.payload_type)?),
            (None, None) => return None,
        };
        let encoding = self.encodings.iter().find(|e| e.rid.as_deref() == Some(rid))?;
        Some(Route { stream: encoding.stream, role })
    }

    /// An encoding that announced neither SSRC nor RID takes what its MID brings.
    fn by_mid(&self, hints: &Hints<'_>) -> Option<Route> {
        if let Some(route) = self.by_rid(hints) {
            return Some(route);
        }
        let [only] = self.encodings.as_slice() else { return None };
        let role = self.role_of(hints.payload_type)?;
        Some(Route { stream: only.stream, role })
    }
}

/// One transport's tables.
#[derive(Debug, Default)]
pub struct Listener {
    entries: Vec<Entry>,
}

impl Listener {
    /// Takes up a producer whose encodings are received by `streams`, in order.
    ///
    /// # Errors
    /// [`Refusal::StreamInUse`] when an SSRC, MID or RID is taken; then nothing was added.
    pub fn add(
        &mut self,
        producer: ProducerKey,
        rtp: &RtpParameters,
        streams: &[StreamKey],
    ) -> Result<(), Refusal> {
        self.check(rtp)?;
        let is_rtx = |mime: &str| mime.to_ascii_lowercase().ends_with("/rtx");
        let types = |rtx: bool| {
            rtp.codecs.iter().filter(move |c| is_rtx(&c.mime_type) == rtx).map(|c| c.payload_type)
        };
        self.entries.push(Entry {
            producer,
            mid: rtp.mid.clone().filter(|mid| !mid.is_empty()),
            encodings: rtp
                .encodings
                .iter()
                .zip(streams)
                .map(|(encoding, stream)| Encoding {
                    stream: *stream,
                    ssrc: encoding.ssrc,
                    rtx_ssrc: encoding.rtx.map(|rtx| rtx.ssrc),
                    rid: encoding.rid.clone(),
                })
                .collect(),
            rtx_payload_types: types(true).collect(),
            payload_types: types(false).collect(),
        });
        Ok(())
    }

    /// Whether a producer of these parameters may be added.
    ///
    /// # Errors
    /// [`Refusal::StreamInUse`] naming what is taken, in mediasoup's words.
    pub fn check(&self, rtp: &RtpParameters) -> Result<(), Refusal> {
        let in_use = |ssrc: u32| self.entries.iter().any(|e| e.by_ssrc(ssrc).is_some());
        let mut own = Vec::new();
        for encoding in &rtp.encodings {
            let pairs = [(encoding.ssrc, "ssrc"), (encoding.rtx.map(|rtx| rtx.ssrc), "RTX ssrc")];
            for (ssrc, what) in pairs {
                let Some(ssrc) = ssrc else { continue };
                if in_use(ssrc) || own.contains(&ssrc) {
                    return Err(Refusal::StreamInUse(what));
                }
                own.push(ssrc);
            }
        }
        let mid = rtp.mid.as_deref().filter(|mid| !mid.is_empty());
        if mid.is_some() && self.entries.iter().any(|e| e.mid.as_deref() == mid) {
            return Err(Refusal::StreamInUse("MID"));
        }
        if mid.is_none() {
            let rids = || rtp.encodings.iter().filter_map(|e| e.rid.as_deref());
            let mut theirs = self.entries.iter().filter(|e| e.mid.is_none());
            if theirs
                .any(|e| e.encodings.iter().any(|x| rids().any(|r| x.rid.as_deref() == Some(r))))
            {
                return Err(Refusal::StreamInUse("RID"));
            }
        }
        Ok(())
    }

    /// Forgets a producer.
    pub fn remove(&mut self, producer: ProducerKey) {
        self.entries.retain(|entry| entry.producer != producer);
    }

    /// The stream and role of a packet, in mediasoup's order: SSRC, else MID, else (only where the
    /// packet has no MID) RID.
    #[must_use]
    pub fn resolve(&self, hints: &Hints<'_>) -> Option<Route> {
        if let Some(route) = self.entries.iter().find_map(|entry| entry.by_ssrc(hints.ssrc)) {
            return Some(route);
        }
        match hints.mid {
            Some(mid) => self.entries.iter().find(|e| e.mid.as_deref() == Some(mid))?.by_mid(hints),
            None => self.entries.iter().find_map(|entry| entry.by_rid(hints)),
        }
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;
    use crate::ortc::types::RtpParameters;

    fn parameters(text: &str) -> RtpParameters {
        serde_json::from_str(text).unwrap()
    }

    fn video(mid: &str, encodings: &str) -> RtpParameters {
        parameters(&format!(
            r#"{{"mid":"{mid}","rtcp":{{"reducedSize":true}},"encodings":{encodings},"codecs":[
            {{"mimeType":"video/VP8","payloadType":96,"clockRate":90000}},
            {{"mimeType":"video/rtx","payloadType":97,"clockRate":90000}}]}}"#
        ))
    }

    #[test]
    fn packets_find_their_stream_by_ssrc_then_mid_then_rid() {
        let mut producers: SlotMap<ProducerKey, ()> = SlotMap::with_key();
        let mut streams: SlotMap<StreamKey, ()> = SlotMap::with_key();
        let s: Vec<_> = (0..4).map(|_| streams.insert(())).collect();
        let mut listener = Listener::default();
        let one = video("0", r#"[{"ssrc":1,"rtx":{"ssrc":2}}]"#);
        let rids = video("1", r#"[{"rid":"r0"},{"rid":"r1"}]"#);
        let bare = video("2", "[{}]");
        listener.add(producers.insert(()), &one, &s[..1]).unwrap();
        listener.add(producers.insert(()), &rids, &s[1..3]).unwrap();
        let third = producers.insert(());
        listener.add(third, &bare, &s[3..]).unwrap();
        let packet = |ssrc, payload_type, mid, rid, repaired_rid| {
            listener
                .resolve(&Hints { ssrc, payload_type, mid, rid, repaired_rid })
                .map(|route| (s.iter().position(|k| *k == route.stream).unwrap(), route.role))
        };
        assert_eq!(packet(1, 96, None, None, None), Some((0, Role::Media)));
        assert_eq!(packet(2, 97, Some("1"), None, None), Some((0, Role::Rtx)), "ssrc wins");
        assert_eq!(packet(9, 96, Some("1"), Some("r1"), None), Some((2, Role::Media)));
        assert_eq!(packet(9, 97, Some("1"), None, Some("r0")), Some((1, Role::Rtx)));
        assert_eq!(packet(9, 97, Some("1"), Some("r0"), None), Some((1, Role::Rtx)));
        assert_eq!(packet(9, 96, Some("1"), None, None), None, "which encoding?");
        assert_eq!(packet(9, 96, Some("2"), None, None), Some((3, Role::Media)));
        assert_eq!(packet(9, 97, Some("2"), None, None), Some((3, Role::Rtx)));
        assert_eq!(packet(9, 55, Some("2"), None, None), None, "not negotiated");
        assert_eq!(packet(9, 96, None, Some("r0"), None), Some((1, Role::Media)));
        assert_eq!(packet(9, 96, Some("7"), Some("r0"), None), None, "its MID is not ours");
        listener.remove(third);
        assert!(
            listener
                .resolve(&Hints { mid: Some("2"), payload_type: 96, ..Hints::default() })
                .is_none()
        );
    }

    #[test]
    fn what_is_taken_is_refused_by_name() {
        let mut producers: SlotMap<ProducerKey, ()> = SlotMap::with_key();
        let mut streams: SlotMap<StreamKey, ()> = SlotMap::with_key();
        let s = [streams.insert(())];
        let mut listener = Listener::default();
        let first = video("0", r#"[{"ssrc":1,"rtx":{"ssrc":2}}]"#);
        listener.add(producers.insert(()), &first, &s).unwrap();
        let no_mid = video("", r#"[{"rid":"a"}]"#);
        listener.add(producers.insert(()), &no_mid, &s).unwrap();
        for (rtp, what) in [
            (video("5", r#"[{"ssrc":1}]"#), "ssrc"),
            (video("5", r#"[{"ssrc":7,"rtx":{"ssrc":2}}]"#), "RTX ssrc"),
            (video("5", r#"[{"ssrc":7,"rtx":{"ssrc":7}}]"#), "RTX ssrc"),
            (video("0", r#"[{"ssrc":7}]"#), "MID"),
            (video("", r#"[{"rid":"a"}]"#), "RID"),
        ] {
            assert_eq!(listener.check(&rtp), Err(Refusal::StreamInUse(what)));
        }
        assert_eq!(listener.check(&video("5", r#"[{"ssrc":7}]"#)), Ok(()));
    }
}
