//! Offers as clients write them, offers as nobody should, and any bytes at all.

use proptest::prelude::*;

use super::play::{Receiving, receivings};
use super::publish::{Publication, Sending, sendings};
use super::{Answer, Fragment, Line, Offer, SdpError, Session, Setup};
use crate::control::addresses::MediaAddresses;
use crate::control::{DtlsFingerprint, DtlsParameters, IceParameters, TransportReply};
use crate::id::TransportId;
use crate::limits::{SDP_MEDIA_MAX, SDP_SSRCS_MAX};
use crate::ortc::types::RtpCapabilities;
use crate::ortc::{Menu, normalise_producer, uri};

fn room() -> RtpCapabilities {
    Menu::EXTENDED.router_capabilities(&Menu::EXTENDED.media_codecs()).unwrap()
}

fn head(mids: &str) -> String {
    let pairs = vec!["AB"; 32].join(":");
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {mids}\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
         a=fingerprint:sha-256 {pairs}\r\na=setup:actpass\r\n"
    )
}

fn audio(flow: &str) -> String {
    format!(
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9\r\nc=IN IP4 0.0.0.0\r\na=mid:a0\r\na={flow}\r\n\
         a=extmap:14 {}\r\na=extmap:2 {}\r\na=extmap:3 urn:unknown\r\na=extmap:4 {}\r\n\
         a=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\n\
         a=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\n\
         a=rtpmap:9 G722/8000\r\na=msid:stream track\r\na=ssrc:77 cname:alice\r\n",
        uri::MID,
        uri::AUDIO_LEVEL,
        uri::TRANSPORT_CC,
    )
}

fn video(flow: &str, more: &str) -> String {
    format!(
        "m=video 9 UDP/TLS/RTP/SAVPF 35 36 96 97\r\na=mid:v1\r\na={flow}\r\n\
         a=extmap:9 {}\r\na=extmap:10 {}\r\na=extmap:11 {}\r\na=extmap:12 {}\r\n\
         a=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:35 VP9/90000\r\na=fmtp:35 profile-id=0\r\n\
         a=rtpmap:36 rtx/90000\r\na=fmtp:36 apt=35\r\na=rtpmap:96 VP8/90000\r\n\
         a=rtcp-fb:* goog-remb\r\na=rtcp-fb:* transport-cc\r\na=rtcp-fb:96 nack\r\n\
         a=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 x-strange\r\na=rtpmap:97 rtx/90000\r\n\
         a=fmtp:97 apt=96\r\n{more}",
        uri::MID,
        uri::RID,
        uri::RRID,
        uri::TRANSPORT_CC,
    )
}

fn data() -> &'static str {
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:d2\r\na=sctp-port:5000\r\n"
}

fn published(text: &str) -> Vec<Sending> {
    sendings(&Offer::parse(text).unwrap(), &room()).unwrap()
}

fn publication(sending: &Sending) -> &Publication {
    match sending {
        Sending::Producer(publication) => publication,
        other => panic!("{other:?}"),
    }
}

fn transport() -> TransportReply {
    let addresses =
        MediaAddresses { addresses: vec!["192.0.2.7".to_owned()], port: 9, udp: true, tcp: true };
    TransportReply {
        id: TransportId::random(),
        ice_parameters: IceParameters {
            username_fragment: "ours".to_owned(),
            password: "secret".to_owned(),
            ice_lite: true,
        },
        ice_candidates: addresses.candidates(),
        dtls_parameters: DtlsParameters {
            role: "auto",
            fingerprints: vec![DtlsFingerprint { algorithm: "sha-256", value: "AB:CD".into() }],
        },
    }
}

#[test]
fn an_offer_becomes_one_producer_per_section_with_the_first_codec_of_the_room() {
    let text = head("a0 v1 d2")
        + &audio("sendonly")
        + &video(
            "sendrecv",
            "a=ssrc:5 cname:alice\r\na=ssrc:6 cname:x\r\na=ssrc-group:FID 5 6\r\n",
        )
        + data();
    let sendings = published(&text);
    assert!(matches!(sendings[2], Sending::Refused), "a data channel");
    let sound = &publication(&sendings[0]).rtp;
    assert_eq!(sound.mid.as_deref(), Some("a0"));
    assert_eq!(sound.msid.as_deref(), Some("stream track"));
    assert_eq!(sound.rtcp.cname.as_deref(), Some("alice"));
    assert_eq!(sound.codecs.len(), 1, "opus alone: G722 is not of this room");
    assert_eq!(sound.codecs[0].parameters["useinbandfec"], 1, "numbers are numbers");
    assert_eq!(sound.codecs[0].channels, Some(2));
    let ids: Vec<_> = sound.header_extensions.iter().map(|e| e.id).collect();
    assert_eq!(ids, [14, 4, 2], "those that the room takes of audio, under the client's ids");
    assert_eq!(sound.encodings[0].ssrc, Some(77));

    let picture = &publication(&sendings[1]).rtp;
    let types: Vec<_> = picture.codecs.iter().map(|c| c.payload_type).collect();
    assert_eq!(types, [35, 36], "the client's first codec and its retransmissions");
    assert_eq!(picture.encodings[0].ssrc, Some(5));
    let mode = picture.encodings[0].scalability_mode.as_deref();
    assert_eq!(mode, Some("L3T3"), "as many layers of VP9 as there may be");
    assert_eq!(picture.encodings[0].rtx.map(|rtx| rtx.ssrc), Some(6));
    for sending in &sendings[..2] {
        let Publication { kind, rtp } = publication(sending);
        normalise_producer(*kind, rtp.clone()).unwrap();
    }
}

#[test]
fn simulcast_takes_a_codec_that_can_and_goes_from_the_smallest_to_the_largest() {
    let named = |rids: [&str; 3], restriction: [&str; 3]| {
        let lines: String = rids
            .iter()
            .zip(restriction)
            .map(|(rid, restriction)| format!("a=rid:{rid} send {restriction}\r\n"))
            .collect();
        let [x, y, z] = rids;
        let more = format!("{lines}a=simulcast:send {x};~{y},other;{z} recv q\r\n");
        let text = head("v1") + &video("sendonly", &more);
        let publication = publication(&published(&text)[0]).clone();
        assert_eq!(publication.rtp.codecs[0].payload_type, 96, "VP8, although VP9 is preferred");
        let feedback: Vec<_> =
            publication.rtp.codecs[0].rtcp_feedback.iter().map(|f| f.kind.clone()).collect();
        assert_eq!(feedback, ["transport-cc", "nack", "nack"], "one estimation, nothing strange");
        let mut modes = publication.rtp.encodings.iter().map(|it| it.scalability_mode.as_deref());
        assert!(modes.all(|mode| mode == Some("L1T3")), "three temporal layers at most");
        let rids = publication.rtp.encodings.into_iter().map(|encoding| encoding.rid.unwrap());
        rids.collect::<Vec<_>>()
    };
    let plain = ["", "", ""];
    assert_eq!(named(["q", "h", "f"], plain), ["q", "h", "f"], "as browsers order them");
    assert_eq!(named(["f", "h", "q"], plain), ["q", "h", "f"]);
    assert_eq!(named(["high", "mid", "low"], plain), ["low", "mid", "high"]);
    assert_eq!(named(["0", "1", "2"], plain), ["2", "1", "0"], "as OBS counts them");
    let bounded = ["max-width=320;max-height=180", "pt=96;max-width=1280", "max-width=640"];
    assert_eq!(named(["x", "y", "z"], bounded), ["x", "z", "y"]);
}

#[test]
fn a_studio_that_has_one_codec_alone_is_taken_with_all_its_sizes() {
    for (codec, encodings) in [("AV1", 2), ("H265", 2), ("VP9", 1)] {
        let more = "a=rid:0 send\r\na=rid:1 send\r\na=simulcast:send 0;1\r\n";
        let text = head("v1") + &video("sendonly", more);
        let text =
            text.replace("VP9/90000", "x/90000").replace("VP8/90000", &format!("{codec}/90000"));
        let publication = publication(&published(&text)[0]).clone();
        let Publication { kind, rtp } = publication;
        assert_eq!(rtp.encodings.len(), encodings, "{codec}");
        let rtp = normalise_producer(kind, rtp).unwrap();
        Menu::EXTENDED.producer_type(&rtp).unwrap();
    }
}

#[test]
fn what_cannot_be_taken_is_refused_or_idle() {
    let sends_none = head("a0") + &audio("recvonly");
    let error = sendings(&Offer::parse(&sends_none).unwrap(), &room()).unwrap_err();
    assert!(matches!(error, SdpError::Unsupported(_)), "{error}");
    let unknown = head("a0 v1")
        + &audio("sendonly")
        + "m=video 9 UDP/TLS/RTP/SAVPF 99\r\na=mid:v1\r\na=rtcp-mux\r\na=rtpmap:99 H266/90000\r\n";
    assert!(matches!(published(&unknown)[1], Sending::Refused));
    let nameless = head("v1") + &video("sendonly", "").replace(uri::MID, "urn:other");
    let error = sendings(&Offer::parse(&nameless).unwrap(), &room()).unwrap_err();
    assert!(error.to_string().contains("m-section 1"), "{error}");
}

#[test]
fn a_viewer_is_asked_in_its_own_numbers() {
    let text = head("a0 v1 d2") + &audio("recvonly") + &video("sendonly", "") + data();
    let receivings = receivings(&Offer::parse(&text).unwrap(), &room()).unwrap();
    assert!(matches!(receivings[1], Receiving::Idle));
    assert!(matches!(receivings[2], Receiving::Refused));
    let Receiving::Wish(wish) = &receivings[0] else { panic!("{receivings:?}") };
    assert_eq!(wish.numbers.mid, "a0");
    assert!(wish.numbers.extensions.contains(&(uri::MID.to_owned(), 14)));
    let known: Vec<_> =
        wish.capabilities.header_extensions.iter().map(|e| e.preferred_id).collect();
    assert_eq!(known, [1, 6], "in the room's numbers; audio is sent without transport-cc");
    let codecs: Vec<_> =
        wish.capabilities.codecs.iter().filter_map(|c| c.preferred_payload_type).collect();
    assert_eq!(codecs, [111]);
}

#[test]
fn an_answer_has_a_line_for_each_of_the_offer() {
    let more = "a=rid:q send\r\na=rid:f send\r\na=simulcast:send q;f\r\n";
    let text = head("a0 v1 d2") + &audio("inactive") + &video("sendonly", more) + data();
    let offer = Offer::parse(&text).unwrap();
    let sendings = sendings(&offer, &room()).unwrap();
    let session = Session::new(&offer, &[true, true, false]);
    let rtp = &publication(&sendings[1]).rtp;
    let lines = vec![Line::Idle, Line::Takes { rtp, label: "p" }, Line::Refused];
    let transport = transport();
    let answer = Answer { offer: &offer, session: &session, lines, transport: &transport }.write();
    for line in [
        "a=group:BUNDLE a0 v1",
        "a=ice-lite",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
        "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
        "a=setup:passive",
        "a=fingerprint:sha-256 AB:CD",
        "a=rtpmap:96 VP8/90000",
        "a=fmtp:97 apt=96",
        "a=rtcp-fb:96 nack pli",
        "a=extmap:9 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=rid:q recv",
        "a=simulcast:recv q;f",
        "a=recvonly",
        "a=label:p",
        "a=ice-ufrag:ours",
        "a=candidate:udpcandidate 1 udp 1076302079 192.0.2.7 9 typ host",
        "a=candidate:tcpcandidate 1 tcp 1076276479 192.0.2.7 9 typ host tcptype passive",
        "a=end-of-candidates",
    ] {
        assert!(answer.lines().any(|found| found == line), "{line} is not in\n{answer}");
    }
    assert!(!answer.contains("a=extmap:12 urn:3gpp"), "{answer}");
    let fragment = session.restarted(&transport.ice_parameters, &transport.ice_candidates);
    assert!(fragment.contains("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:a0\r\na=ice-ufrag:ours"));
}

#[test]
fn nothing_that_others_wrote_begins_a_line_of_an_answer() {
    let text = head("a0") + &audio("recvonly");
    let offer = Offer::parse(&text).unwrap();
    let mut rtp = publication(&published(&(head("a0") + &audio("sendonly")))[0]).rtp.clone();
    rtp.rtcp.cname = Some("x\r\na=evil:1".to_owned());
    rtp.codecs[0].parameters.insert("a\r\na=evil:2".to_owned(), "b\na=evil:3".into());
    rtp.codecs[0].parameters.insert("two".to_owned(), "1;three=4".into());
    let session = Session::new(&offer, &[true]);
    let lines = vec![Line::Gives { rtp: &rtp, stream: "s\n", track: "t", label: "c\n" }];
    let transport = transport();
    let answer = Answer { offer: &offer, session: &session, lines, transport: &transport }.write();
    assert!(!answer.lines().any(|line| line.starts_with("a=evil")), "{answer}");
    assert!(!answer.contains("three"), "{answer}");
    assert!(answer.contains("a=msid:s t\r\n"), "{answer}");
}

#[test]
fn an_offer_that_is_no_offer_is_refused_with_the_line() {
    let good = head("a0") + &audio("sendonly");
    let without = |line: &str| good.replace(line, "");
    let many = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n".repeat(SDP_MEDIA_MAX + 1);
    let ssrcs: String = (0..=SDP_SSRCS_MAX).map(|ssrc| format!("a=ssrc:{ssrc} x\r\n")).collect();
    for (text, malformed, says) in [
        (String::new(), true, "v=0"),
        ("{}".to_owned(), true, "v=0"),
        (head(""), true, "no m-section"),
        (good.clone() + "nonsense", true, "line "),
        (good.replace("m=audio 9 ", "m=audio x "), true, "no port"),
        (good.replace("AB:AB", "AB:XY"), true, "hexadecimal"),
        (good.replace("actpass", "holdconn"), true, "actpass"),
        (good.replace("111 opus", "511 opus"), true, "payload type"),
        (good.replace("a=extmap:14", "a=extmap:2"), true, "repeats an extension"),
        (head("a0") + &many, true, "too many"),
        (good.clone() + &ssrcs, true, "too many"),
        (head("a0 a0") + &audio("sendonly") + &audio("sendonly"), true, "repeats an a=mid"),
        (without("a=mid:a0\r\n"), false, "no a=mid"),
        (without("a=ice-ufrag:abcd\r\n"), false, "a=ice-ufrag"),
        (good.replace("sha-256", "sha-1"), false, "sha-256"),
        (good.replace("a=rtcp-mux\r\n", ""), false, "rtcp-mux"),
        (head("a0") + &audio("sendonly") + &video("sendonly", ""), false, "BUNDLE"),
        (good.replace("BUNDLE a0", "BUNDLE b7"), false, "BUNDLE"),
    ] {
        let error = Offer::parse(&text).unwrap_err();
        assert_eq!(matches!(error, SdpError::Malformed(_)), malformed, "{error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
}

#[test]
fn extensions_offered_encrypted_too_are_taken_in_clear() {
    let clear = head("a0") + &audio("sendonly");
    let encrypted =
        |id: u8, uri: &str| format!("a=extmap:{id} urn:ietf:params:rtp-hdrext:encrypt {uri}\r\n");
    let both = clear.clone() + &encrypted(7, "urn:x") + &encrypted(8, "urn:y");
    let extensions = |text: &str| Offer::parse(text).unwrap().sections[0].extensions.clone();
    assert_eq!(extensions(&both), extensions(&clear));
}

#[test]
fn who_begins_the_handshake_follows_the_offer() {
    for (word, setup, begins) in [
        ("actpass", Setup::ActPass, true),
        ("active", Setup::Active, true),
        ("passive", Setup::Passive, false),
    ] {
        let offer = Offer::parse(&(head("a0").replace("actpass", word) + &audio("sendonly")));
        let found = offer.unwrap().setup;
        assert_eq!((found, found.client_begins()), (setup, begins));
    }
}

#[test]
fn a_section_alone_needs_no_bundle_and_bundle_only_is_not_off() {
    let alone = head("a0").replace("a=group:BUNDLE a0\r\n", "") + &audio("sendonly");
    assert_eq!(Offer::parse(&alone).unwrap().sections.len(), 1);
    let text = head("a0 v1")
        + &audio("sendonly")
        + &video("sendonly", "a=bundle-only\r\n").replace("m=video 9", "m=video 0");
    let offer = Offer::parse(&text).unwrap();
    assert!(!offer.sections[1].off);
    let off = text.replace("a=bundle-only\r\n", "");
    assert!(Offer::parse(&off).unwrap().sections[1].off);
}

#[test]
fn an_answer_has_no_more_than_the_offer_of_a_section_that_is_off_or_sends_whole_reports() {
    let off = "m=video 0 UDP/TLS/RTP/SAVPF 0\r\n".repeat(2);
    let text = head("a0") + &off + &audio("sendonly");
    let offer = Offer::parse(&text).unwrap();
    let sendings = sendings(&offer, &room()).unwrap();
    let rtp = &publication(&sendings[2]).rtp;
    let session = Session::new(&offer, &[false, false, true]);
    let lines = vec![Line::Refused, Line::Refused, Line::Takes { rtp, label: "p" }];
    let transport = transport();
    let answer = Answer { offer: &offer, session: &session, lines, transport: &transport }.write();
    assert_eq!(answer.matches("m=video 0 UDP/TLS/RTP/SAVPF 0\r\n").count(), 2, "{answer}");
    assert_eq!(answer.matches("a=mid:").count(), 1, "{answer}");
    assert!(answer.contains("a=group:BUNDLE a0\r\n"), "{answer}");
    assert!(!answer.contains("a=rtcp-rsize"), "the offer has none");
    let small = text + "a=rtcp-rsize\r\n";
    let offer = Offer::parse(&small).unwrap();
    assert!(offer.sections[2].rtcp_rsize);
}

#[test]
fn fragments_name_an_ice_session_or_bring_candidates() {
    let restart = "a=ice-ufrag:new1\r\na=ice-pwd:p\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n";
    assert_eq!(Fragment::parse(restart).unwrap().ice_ufrag.as_deref(), Some("new1"));
    let candidates =
        "m=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
    assert_eq!(Fragment::parse(candidates).unwrap(), Fragment::default());
    for bad in ["", "m=audio 9 RTP/AVP 0\r\n", "a=ice-ufrag:a b\r\n", "nonsense"] {
        assert!(Fragment::parse(bad).is_err(), "{bad:?}");
    }
    assert!(Fragment::parse("a=ice-ufrag:a\r\na=ice-ufrag:b\r\n").is_err());
}

/// Lines of a whole offer, some of them changed, left out or repeated.
fn damaged() -> impl Strategy<Value = String> {
    let more = "a=rid:q send max-width=3\r\na=rid:f send\r\na=simulcast:send q;f\r\n\
        a=ssrc-group:FID 1 2\r\n";
    let text = head("a0 v1 d2") + &audio("sendrecv") + &video("sendrecv", more) + data();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let change = (0..lines.len(), 0..5_u8, "[ -~]{0,12}");
    prop::collection::vec(change, 0..6).prop_map(move |changes| {
        let mut lines = lines.clone();
        for (at, how, text) in changes {
            let at = at % lines.len();
            let cut = text.len().min(lines[at].len());
            match how {
                0 => lines[at] = text,
                1 => lines[at].truncate(cut),
                2 => lines[at].push_str(&text),
                3 => lines[at] = format!("a={text}"),
                _ => lines.insert(at, lines[at].clone()),
            }
        }
        lines.join("\n")
    })
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in ".{0,400}", tail in "(a=[a-z-]{1,12}:.{0,30}\n){0,20}") {
        let _ = Offer::parse(&text);
        let _ = Fragment::parse(&text);
        let _ = Offer::parse(&format!("v=0\nm=audio 9 UDP/TLS/RTP/SAVPF 0\n{tail}"));
        let _ = Fragment::parse(&tail);
    }

    #[test]
    fn a_damaged_offer_is_refused_or_answered_line_by_line(text in damaged()) {
        let Ok(offer) = Offer::parse(&text) else { return Ok(()) };
        let room = room();
        let _ = receivings(&offer, &room);
        let Ok(sendings) = sendings(&offer, &room) else { return Ok(()) };
        let live: Vec<bool> =
            sendings.iter().map(|it| !matches!(it, Sending::Refused)).collect();
        let session = Session::new(&offer, &live);
        let lines = sendings.iter().map(|sending| match sending {
            Sending::Refused => Line::Refused,
            Sending::Idle => Line::Idle,
            Sending::Producer(publication) => Line::Takes { rtp: &publication.rtp, label: "p" },
        });
        let (lines, transport) = (lines.collect(), transport());
        let answer = Answer { offer: &offer, session: &session, lines, transport: &transport };
        let answer = answer.write();
        let sections = answer.lines().filter(|line| line.starts_with("m=")).count();
        prop_assert_eq!(sections, offer.sections.len());
        prop_assert!(answer.lines().all(|line| line.chars().nth(1) == Some('=')));
    }
}
