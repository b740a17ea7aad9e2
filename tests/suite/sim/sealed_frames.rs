//! Pictures that the server cannot look into, or only a little: end-to-end encryption with
//! dependency descriptors, and H265.

use ringcast::ortc::types::MediaKind;

use super::room::{Peer, ms, secs};
use super::studio::{DESCRIPTOR, Studio, Take, assert_no_gap, extended, picture};

/// A dependency descriptor (of one layer) of a frame in one packet; with its structure it begins a
/// key frame.
fn descriptor(frame: u16, key: bool) -> Vec<u8> {
    let [high, low] = frame.to_be_bytes();
    let mut bytes = vec![0xc0, high, low];
    if key {
        // Structure follows: no offset, one decode target, one template, which is present and may
        // be switched to; no references, no chains, no resolutions.
        bytes.extend([0b1000_0000, 0b0000_0000, 0b1110_0000]);
    }
    bytes
}

/// Sends frames of which the payload tells the opposite of the descriptor; returns what must
/// arrive, from the first key frame on.
fn perform(studio: &mut Studio, looks: [&[u8]; 2]) -> Vec<Vec<u8>> {
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for frame in 0..60_u16 {
        let key = frame % 20 == 10;
        let mut payload = looks[usize::from(key)].to_vec();
        payload.extend(frame.to_be_bytes());
        let descriptor = descriptor(frame, key);
        let extensions: [(u8, &[u8]); 1] = [(DESCRIPTOR, &descriptor)];
        studio.send(&Take {
            payload_type: 96,
            payload: &payload,
            extensions: &extensions,
            marker: true,
        });
        studio.pass(ms(33));
        if key || !expected.is_empty() {
            expected.push(payload);
        }
    }
    studio.pass(ms(100));
    expected
}

#[test]
fn encrypted_pictures_begin_where_the_descriptor_says_and_arrive_untouched() {
    // What seems to be a delta frame where the descriptor says key frame, and the other way round.
    let vp8: [&[u8]; 2] = [&[0x90, 0x80, 0x11, 0x00], &[0x90, 0x80, 0x11, 0xff]];
    let h264: [&[u8]; 2] = [&[0x67, 0x42, 0xe0], &[0xff, 0xff, 0xff]];
    for (mime, looks) in [("video/VP8", vp8), ("video/H264", h264)] {
        for shard in [0, 1] {
            let mut codecs = picture(mime);
            if mime == "video/H264" {
                codecs[0]["parameters"] = serde_json::json!({"packetization-mode": 1,
                    "profile-level-id": "42e01f", "level-asymmetry-allowed": 1});
            }
            let mut studio = Studio::new(621, MediaKind::Video, codecs);
            // The structure is known from here on: what came before is decided by the payload.
            let first = descriptor(0, true);
            studio.send(&Take {
                payload_type: 96,
                payload: looks[1],
                extensions: &[(DESCRIPTOR, &first)],
                marker: true,
            });
            studio.pass(secs(1));
            let bob = studio.receiver(shard, &extended(), |_| ());
            let expected = perform(&mut studio, looks);
            let heard = studio.heard(bob);
            assert_no_gap(&heard);
            let payloads: Vec<_> = heard.iter().map(|heard| heard.payload.clone()).collect();
            assert_eq!(payloads.len(), expected.len(), "{mime}");
            assert_eq!(
                payloads.iter().map(|p| &p[p.len() - 2..]).collect::<Vec<_>>(),
                expected.iter().map(|p| &p[p.len() - 2..]).collect::<Vec<_>>(),
                "{mime}"
            );
            assert!(key_frames_asked(&studio, studio.alice) > 0, "for want of one");
        }
    }
}

fn key_frames_asked(studio: &Studio, peer: Peer) -> usize {
    let rtcp = &studio.room.seats[peer.0].raw().rtcp;
    let is_pli = |item: &ringcast::engine::rtcp::RtcpItem<'_>| {
        matches!(item, ringcast::engine::rtcp::RtcpItem::Pli { .. })
    };
    rtcp.iter().map(|(_, bytes)| ringcast::engine::rtcp::parse(bytes).filter(is_pli).count()).sum()
}

#[test]
fn h265_begins_with_its_parameters() {
    let mut studio = Studio::new(622, MediaKind::Video, picture("video/H265"));
    let bob = studio.receiver(0, &extended(), |_| ());
    let sets: &[u8] = &[48 << 1, 1, 0, 3, 32 << 1, 1, 0x0c, 0, 3, 34 << 1, 1, 0xc0];
    let frames: [&[u8]; 6] = [
        &[1 << 1, 1, 0x80],
        // A key frame whose parameters were lost is no beginning.
        &[19 << 1, 1, 0x80],
        sets,
        &[49 << 1, 1, 0x80 | 19, 0xaf],
        &[49 << 1, 1, 0x40 | 19, 0xaf],
        &[1 << 1, 1, 0x80],
    ];
    for payload in frames {
        let take = Take { payload_type: 96, payload, extensions: &[], marker: true };
        studio.send(&take);
        studio.pass(ms(33));
    }
    studio.pass(ms(100));
    let heard = studio.heard(bob);
    assert_no_gap(&heard);
    let payloads: Vec<_> = heard.iter().map(|heard| heard.payload.as_slice()).collect();
    assert_eq!(payloads, frames[2..]);
    assert!(heard.iter().all(|heard| heard.payload_type == 110));
}
