//! What of a packet one receiver gets: all of it, or of sound with redundancy only the newest block;
//! and no packets of mere silence where those are not wanted.
//!
//! Called by `egress` for each packet and each repeat of one, on the shard's thread. Invariant: the
//! answer for one packet is always the same, so that a repeat has the bytes that were sent.

use crate::engine::codec::red;
use crate::engine::consumer::{Consumer, SendCodec};
use crate::engine::packet::PacketMeta;
use crate::engine::ring::Padded;

impl Consumer {
    /// The codec and payload that this receiver gets of a packet; `None` when it negotiated
    /// nothing that could carry it, or does not want it.
    pub(super) fn readable<'p>(
        &self,
        meta: &PacketMeta,
        payload: Padded<'p>,
    ) -> Option<(SendCodec, Padded<'p>)> {
        if self.ignore_dtx {
            let newest = payload.unpadded();
            if red::is_opus_dtx(meta.primary.map_or(newest, |primary| primary.of(newest))) {
                return None;
            }
        }
        if let Some(codec) = self.codec(meta.payload_type) {
            return Some((*codec, payload));
        }
        let primary = meta.primary?;
        let codec = *self.codec(primary.payload_type)?;
        let bytes = payload.bytes.get(usize::from(primary.start)..)?;
        Some((codec, Padded { bytes, ..payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::command::CreateConsumer;
    use crate::engine::codec::red::Primary;
    use crate::engine::test_instant;
    use crate::engine::{ProducerKey, TransportKey};
    use crate::id::{ConsumerId, ProducerId, TransportId};
    use crate::ortc::parse_rtp_parameters;
    use crate::ortc::types::CodecMapping;
    use serde_json::json;
    use uuid::Uuid;

    /// A consumer that negotiated these payload types of Opus (100) and RED (109).
    fn consumer(payload_types: &[u8], ignore_dtx: bool) -> Consumer {
        Consumer::new(
            &command(payload_types, ignore_dtx),
            ProducerKey::default(),
            TransportKey::default(),
            (0, 0),
        )
        .unwrap()
    }

    fn command(payload_types: &[u8], ignore_dtx: bool) -> CreateConsumer {
        let codecs: Vec<_> = payload_types
            .iter()
            .map(|payload_type| {
                let mime = if *payload_type == 109 { "audio/red" } else { "audio/opus" };
                json!({"mimeType": mime, "payloadType": payload_type, "clockRate": 48_000,
                       "channels": 2})
            })
            .collect();
        let rtp = json!({"mid": "0", "codecs": codecs, "encodings": [{"ssrc": 1}]});
        CreateConsumer {
            transport: TransportId(Uuid::nil()),
            consumer: ConsumerId(Uuid::nil()),
            producer: ProducerId(Uuid::nil()),
            mirror: None,
            rtp: parse_rtp_parameters(rtp).unwrap(),
            renumbered: Vec::new(),
            paused: false,
            preferred_layers: None,
            ignore_dtx,
        }
    }

    #[test]
    fn a_receiver_that_numbers_itself_is_sent_its_own_payload_type() {
        let mut command = command(&[111], false);
        command.renumbered = vec![CodecMapping { payload_type: 100, mapped_payload_type: 111 }];
        let keys = (ProducerKey::default(), TransportKey::default());
        let consumer = Consumer::new(&command, keys.0, keys.1, (0, 0)).unwrap();
        let sent_as = |payload_type| {
            let meta = PacketMeta { payload_type, ..PacketMeta::default() };
            let payload = Padded { bytes: &[1], padding: 0, arrival: test_instant() };
            consumer.readable(&meta, payload).map(|(codec, _)| codec.sent_as)
        };
        assert_eq!(sent_as(100), Some(111));
        assert_eq!(sent_as(111), None, "that is another codec of the room");
    }

    #[test]
    fn redundancy_is_for_those_who_know_it_and_silence_for_those_who_want_it() {
        let opus = PacketMeta { payload_type: 100, ..PacketMeta::default() };
        let primary = Some(Primary { payload_type: 100, start: 8 });
        let red = PacketMeta { payload_type: 109, primary, ..PacketMeta::default() };
        let (whole, newest, quiet) = (b"heads..onewest", b"newest", b"heads..ox");
        let (both, plain) = (&[100, 109][..], &[100][..]);
        // Payload types known, silence ignored, packet, payload; what it gets.
        type Case<'a> = (&'a [u8], bool, &'a PacketMeta, &'a [u8], Option<(u8, &'a [u8])>);
        let table: [Case<'_>; 10] = [
            (both, false, &red, whole, Some((109, whole))),
            (plain, false, &red, whole, Some((100, newest))),
            (plain, true, &red, whole, Some((100, newest))),
            (both, true, &red, whole, Some((109, whole))),
            (plain, false, &red, quiet, Some((100, b"x"))),
            (both, true, &red, quiet, None),
            (both, false, &opus, b"xy", Some((100, b"xy"))),
            (both, true, &opus, b"xy", None),
            (both, true, &opus, b"xyz", Some((100, b"xyz"))),
            (&[109], false, &opus, newest, None),
        ];
        for (knows, ignore_dtx, meta, bytes, expected) in table {
            let consumer = consumer(knows, ignore_dtx);
            // The trains' padding behind it is no payload.
            for padding in [0_u8, 5] {
                let padded = [bytes, &vec![0; usize::from(padding)]].concat();
                let payload = Padded { bytes: &padded, padding, arrival: test_instant() };
                let found = consumer.readable(meta, payload);
                let found = found.map(|(codec, got)| (codec.sent_as, got.unpadded()));
                assert_eq!(found, expected, "{knows:?} {ignore_dtx} {bytes:?} {padding}");
            }
        }
    }
}
