//! Offers in the shapes that clients other than Chromium make, each answered section by section.

use super::harness::Node;
use super::sdp::offer;

/// Such an offer, its lines ended as on the wire.
fn written(text: &str) -> String {
    text.replace('\n', "\r\n")
}

const FFMPEG: &str = include_str!("../../data/offers/ffmpeg.sdp");
const FIREFOX: &str = include_str!("../../data/offers/firefox-simulcast.sdp");
const LIBDATACHANNEL: &str = include_str!("../../data/offers/libdatachannel.sdp");
const SAFARI: &str = include_str!("../../data/offers/safari.sdp");

#[tokio::test]
async fn each_publishers_offer_is_taken_with_sound_and_picture() {
    let node = Node::start(1);
    // What x264 makes unless told otherwise.
    let high = FFMPEG.replace("42e01f", "64001f");
    for (name, text, lines) in [
        ("ffmpeg", FFMPEG, &["a=setup:active", "m=video 9 UDP/TLS/RTP/SAVPF 106"][..]),
        (
            "ffmpeg-high",
            &high,
            &[
                "m=audio 9 UDP/TLS/RTP/SAVPF 111",
                "m=video 9 UDP/TLS/RTP/SAVPF 106",
                "a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f",
            ],
        ),
        (
            "firefox",
            FIREFOX,
            &[
                "m=audio 9 UDP/TLS/RTP/SAVPF 109",
                "m=video 9 UDP/TLS/RTP/SAVPF 120 124",
                "a=simulcast:recv q;h;f",
                "a=extmap:8 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            ],
        ),
        (
            "libdatachannel",
            LIBDATACHANNEL,
            &["a=setup:passive", "m=video 9 UDP/TLS/RTP/SAVPF 96", "a=rtpmap:96 H265/90000"],
        ),
        (
            "safari",
            SAFARI,
            &["m=video 9 UDP/TLS/RTP/SAVPF 98 99", "a=fmtp:99 apt=98", "a=setup:passive"],
        ),
    ] {
        for text in [written(text), text.to_owned()] {
            let made = offer(&node, &format!("/whip/{name}?peerId=a"), &text).await;
            assert_eq!(made.status, 201, "{name}: {}", made.text);
            assert_eq!(made.text.matches("a=recvonly").count(), 2, "{name}: {}", made.text);
            for line in lines {
                let found = made.text.lines().any(|found| found == *line);
                assert!(found, "{name}: {line} is not in\n{}", made.text);
            }
        }
    }
}

/// What a viewer decodes, by `profile-level-id`s.
fn viewer(profiles: &[&str]) -> String {
    let formats: Vec<String> = (0..profiles.len()).map(|at| (100 + at).to_string()).collect();
    let codecs: String = profiles
        .iter()
        .zip(&formats)
        .map(|(profile, format)| {
            format!(
                "a=rtpmap:{format} H264/90000\r\na=fmtp:{format} level-asymmetry-allowed=1;\
                 packetization-mode=1;profile-level-id={profile}\r\n"
            )
        })
        .collect();
    let (head, _) = FFMPEG.split_once("m=audio").unwrap();
    let pairs = vec!["AB"; 32].join(":");
    written(head)
        + &format!(
            "m=video 9 UDP/TLS/RTP/SAVPF {}\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\n\
             a=ice-ufrag:them\r\na=ice-pwd:0123456789012345678901\r\n\
             a=fingerprint:sha-256 {pairs}\r\na=setup:actpass\r\n{codecs}",
            formats.join(" ")
        )
}

#[tokio::test]
async fn h264_of_a_higher_profile_goes_to_those_who_decode_it() {
    let node = Node::start(1);
    for profile in ["640028", "4d001f", "42001f", "42e01f"] {
        let sdp = written(FFMPEG).replace("42e01f", profile);
        let room = format!("/whip/of-{profile}?peerId=a");
        assert_eq!(offer(&node, &room, &sdp).await.status, 201);
        let room = format!("/whep/of-{profile}");
        let played = offer(&node, &room, &viewer(&["42001f", "42e01f", "4d001f", "64001f"])).await;
        assert_eq!(played.status, 201, "{profile}: {}", played.text);
        let format = match profile {
            "42001f" => 100,
            "42e01f" => 101,
            "4d001f" => 102,
            _ => 103,
        };
        let line = format!("m=video 9 UDP/TLS/RTP/SAVPF {format}");
        assert!(played.text.contains(&line), "{profile}: {}", played.text);
    }
    let refused = offer(&node, "/whep/of-640028", &viewer(&["42e01f"])).await;
    assert_eq!(refused.code(), (409, "nothing_to_play".to_owned()));
}

#[tokio::test]
async fn a_line_goes_to_what_its_viewer_decodes_and_not_to_what_came_first() {
    let node = Node::start(1);
    let high = written(FFMPEG).replace("42e01f", "64001f");
    for (peer, sdp) in [("high", high), ("common", written(FFMPEG))] {
        assert_eq!(offer(&node, &format!("/whip/r?peerId={peer}"), &sdp).await.status, 201);
    }
    let played = offer(&node, "/whep/r", &viewer(&["42e01f"])).await;
    assert_eq!(played.status, 201, "{}", played.text);
    let listed = node.get("/media/room/r/producers").await;
    let producers = listed.data()["producers"].as_array().unwrap();
    let is_common = |producer: &&serde_json::Value| {
        producer["peerId"] == "common" && producer["kind"] == "video"
    };
    let id = producers.iter().find(is_common).unwrap()["producerId"].as_str().unwrap();
    assert!(played.text.contains(&format!(" {id}\r\n")), "{}", played.text);
}
