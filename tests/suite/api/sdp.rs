//! WHIP and WHEP: offers in, answers out, and every refusal.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use ringcast::control::command::{CloseReason, Command, Event, Refusal};
use ringcast::limits::WHEP_GRACE;
use serde_json::{Value, json};

use super::harness::{Node, bare, opus, settle};

const X_FORWARDED_PREFIX: header::HeaderName =
    header::HeaderName::from_static("x-forwarded-prefix");

/// What came back, as text.
pub(super) struct Answered {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    pub(super) text: String,
}

impl Answered {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
    }

    fn has(&self, line: &str) -> bool {
        self.text.lines().any(|found| found == line)
    }

    pub(super) fn code(&self) -> (u16, String) {
        let body: Value = serde_json::from_str(&self.text).unwrap();
        assert_eq!(body["success"], false);
        (self.status.as_u16(), body["code"].as_str().unwrap().to_owned())
    }
}

async fn send(node: &Node, request: Request<Body>) -> Answered {
    let response = node.send(request).await;
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    Answered { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

pub(super) async fn offer(node: &Node, path: &str, sdp: &str) -> Answered {
    send(node, request(Method::POST, path, "application/sdp", &[], sdp)).await
}

fn request(
    method: Method,
    path: &str,
    media_type: &str,
    headers: &[(header::HeaderName, &str)],
    body: &str,
) -> Request<Body> {
    let mut request =
        Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, media_type);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

pub(super) async fn patch(node: &Node, path: &str, tag: Option<&str>, fragment: &str) -> Answered {
    let headers: Vec<_> = tag.iter().map(|tag| (header::IF_MATCH, *tag)).collect();
    let media_type = "application/trickle-ice-sdpfrag";
    send(node, request(Method::PATCH, path, media_type, &headers, fragment)).await
}

/// An offer of an m-section for each kind, with ids that are not the room's.
pub(super) fn sdp(flow: &str, kinds: &[&str]) -> String {
    let mids: Vec<String> = (0..kinds.len()).map(|at| format!("m{at}")).collect();
    let mut text = format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n\
         a=ice-ufrag:theirs\r\na=ice-pwd:0123456789012345678901\r\n\
         a=fingerprint:sha-256 {}\r\na=setup:actpass\r\n",
        mids.join(" "),
        vec!["AB"; 32].join(":"),
    );
    for (at, (kind, mid)) in kinds.iter().zip(&mids).enumerate() {
        let codecs = match *kind {
            "audio" => "a=rtpmap:111 opus/48000/2\r\n",
            _ => {
                "a=rtpmap:111 VP8/90000\r\na=rtcp-fb:111 nack\r\na=rtpmap:112 rtx/90000\r\n\
                 a=fmtp:112 apt=111\r\n"
            }
        };
        let formats = if *kind == "audio" { "111" } else { "111 112" };
        let ssrc = if flow == "sendonly" {
            format!("a=ssrc:{} cname:x\r\n", at + 1)
        } else {
            String::new()
        };
        text += &format!(
            "m={kind} 9 UDP/TLS/RTP/SAVPF {formats}\r\na=mid:{mid}\r\na={flow}\r\na=rtcp-mux\r\n\
             a=extmap:13 urn:ietf:params:rtp-hdrext:sdes:mid\r\n{codecs}{ssrc}"
        );
    }
    text
}

/// What the m-sections of an answer are called.
fn labels(sdp: &str) -> impl Iterator<Item = &str> {
    sdp.lines().filter_map(|line| line.strip_prefix("a=label:"))
}

pub(super) fn restart(ufrag: &str) -> String {
    format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:x\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:m0\r\n")
}

#[tokio::test]
async fn a_whip_publisher_is_a_peer_with_producers_like_any_other() {
    let node = Node::start(1);
    let path = "/whip/studio%20one?peerId=obs";
    let made = offer(&node, path, &sdp("sendonly", &["audio", "video", "video"])).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.header("content-type"), "application/sdp");
    assert_eq!(made.header("etag"), "\"aaufrag\"");
    assert_eq!(made.header("accept-patch"), "application/trickle-ice-sdpfrag");
    assert!(made.headers.get(header::LINK).is_none(), "no ICE servers are configured");
    for line in [
        "a=ice-lite",
        "a=group:BUNDLE m0 m1 m2",
        "a=ice-ufrag:aaufrag",
        "a=setup:passive",
        "a=recvonly",
        "a=rtpmap:111 opus/48000/2",
        "m=video 9 UDP/TLS/RTP/SAVPF 111 112",
        "a=candidate:udpcandidate 1 udp 1076302079 192.0.2.7 10000 typ host",
        "a=end-of-candidates",
    ] {
        assert!(made.has(line), "{line} is not in\n{}", made.text);
    }
    let listed = node.get("/media/room/studio%20one/producers").await;
    let producers = listed.data()["producers"].as_array().unwrap();
    let shape: Vec<_> =
        producers.iter().map(|it| (it["peerId"].as_str(), it["source"].as_str())).collect();
    let obs = Some("obs");
    assert_eq!(shape, [(obs, Some("audio")), (obs, Some("video")), (obs, Some("video-2"))]);
    let labels: Vec<_> = labels(&made.text).map(Some).collect();
    let ids: Vec<_> = producers.iter().map(|it| it["producerId"].as_str()).collect();
    assert_eq!(labels, ids, "each m-section is labelled with its producer");
    let told = ["CreateTransport", "ConnectTransport", "CreateProducer", "CreateProducer"];
    assert_eq!(node.shard().told()[..4], told);

    // An ORTC client consumes it.
    let receives = node.transport("studio%20one", "bob").await;
    let first = producers[0]["producerId"].as_str().unwrap();
    assert_eq!(node.consume(("studio one", "bob"), &receives, first).await.status, 201);

    let session = made.header("location").to_owned();
    let ended = node.delete(&session).await;
    assert_eq!((ended.status.as_u16(), &ended.data()["success"]), (200, &json!(true)));
    let room = node.get("/media/room/studio%20one").await;
    let peers = room.data()["peers"].as_array().unwrap();
    assert_eq!(peers.len(), 1, "who ends their only session has left");
    assert_eq!(node.delete(&session).await.code(), "session_not_found");
}

#[tokio::test]
async fn names_are_made_up_where_none_are_given_and_sources_are_taken() {
    let node = Node::start(1);
    let made = offer(&node, "/whip/r?source=screen", &sdp("sendonly", &["video"])).await;
    assert_eq!(made.status, 201);
    let listed = node.get("/media/room/r/producers").await;
    let producer = &listed.data()["producers"][0];
    assert!(producer["peerId"].as_str().unwrap().starts_with("whip-"));
    assert_eq!(producer["source"], "screen");
    let played = offer(&node, "/whep/r", &sdp("recvonly", &["video"])).await;
    assert_eq!(played.status, 201);
    let room = node.get("/media/room/r").await;
    let peers = room.data()["peers"].as_array().unwrap();
    assert!(peers.iter().any(|peer| peer["peerId"].as_str().unwrap().starts_with("whep-")));
}

#[tokio::test]
async fn whep_plays_the_kth_producer_on_the_kth_line_in_the_clients_numbers() {
    let node = Node::start(1);
    for peer in ["alice", "bob", "eve"] {
        let path = format!("/whip/r?peerId={peer}");
        assert_eq!(offer(&node, &path, &sdp("sendonly", &["audio", "video"])).await.status, 201);
    }
    let kinds = ["video", "audio", "video", "video"];
    let played = offer(&node, "/whep/r?viewerId=eve", &sdp("recvonly", &kinds)).await;
    assert_eq!(played.status, 201, "{}", played.text);
    assert!(played.has("a=group:BUNDLE m0 m1 m2 m3"));
    let sections: Vec<&str> = played.text.split("m=").skip(1).collect();
    let flows = sections.iter().map(|text| {
        ["a=sendonly", "a=inactive"].into_iter().find(|flow| text.contains(flow)).unwrap()
    });
    let expected = ["a=sendonly", "a=sendonly", "a=sendonly", "a=inactive"];
    assert_eq!(flows.collect::<Vec<_>>(), expected, "her own camera is not played");

    let listed = node.get("/media/room/r/producers").await;
    let track =
        |at: usize| listed.data()["producers"][at]["producerId"].as_str().unwrap().to_owned();
    assert!(sections[0].contains(&format!(" {}\r\n", track(1))), "alice's video");
    assert!(sections[1].contains(&format!(" {}\r\n", track(0))), "alice's audio");
    assert!(sections[2].contains(&format!(" {}\r\n", track(3))), "bob's video");
    assert!(sections[0].contains("a=extmap:13 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"));
    assert!(sections[0].contains("a=ssrc-group:FID "));
    node.shard().with(|script| {
        let found = script.commands.iter().find_map(|command| match command {
            Command::CreateConsumer(consumer) => Some(consumer),
            _ => None,
        });
        let consumer = found.unwrap();
        assert_eq!(consumer.rtp.mid.as_deref(), Some("m0"));
        assert_eq!(consumer.rtp.codecs[0].payload_type, 111);
        assert_eq!(consumer.rtp.codecs[1].payload_type, 112);
        let renumbered = consumer.renumbered[0];
        assert_eq!((renumbered.payload_type, renumbered.mapped_payload_type), (101, 111));
    });
    let labelled: Vec<_> = labels(&played.text).collect();
    assert_eq!(labelled.len(), 3, "each m-section that plays is labelled with its consumer");
    let path = format!("/media/consumer/{}/pause", labelled[0]);
    assert_eq!(node.post(&path, json!({})).await.status, 201);
    let one = offer(&node, "/whep/r?peerId=bob", &sdp("recvonly", &["audio"])).await;
    assert!(one.text.contains(&format!(" {}\r\n", track(2))), "of bob alone");
}

#[tokio::test]
async fn an_ortc_producer_plays_by_whep() {
    let node = Node::start(2);
    node.room("r").await;
    let transport = node.transport("r", "alice").await;
    let made = node.post("/media/producer", opus("r", "alice", &transport)).await;
    let producer = made.id("producerId");
    let played = offer(&node, "/whep/r?peerId=alice", &sdp("recvonly", &["audio"])).await;
    assert_eq!(played.status, 201);
    assert!(played.has(&format!("a=msid:{transport} {producer}")), "{}", played.text);
    assert!(played.text.contains("cname:alice-cname\r\n"));
    assert_eq!(node.delete(&format!("/media/producer/{producer}")).await.status, 200);
    let session = played.header("location");
    assert_eq!(node.delete(session).await.status, 200, "the session outlives what it played");
}

#[tokio::test]
async fn patch_restarts_ice_takes_candidates_and_minds_the_tag() {
    let node = Node::start(1);
    let made = offer(&node, "/whip/r", &sdp("sendonly", &["audio", "video"])).await;
    let session = made.header("location").to_owned();
    let tag = made.header("etag").to_owned();
    let candidates = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:m0\r\na=end-of-candidates\r\n";
    assert_eq!(patch(&node, &session, Some(&tag), candidates).await.status, 204);
    assert_eq!(node.shard().count("RestartIce"), 0);

    for star in ["*", "\"*\""] {
        let fresh = format!("fresh{}", star.len());
        let restarted = patch(&node, &session, Some(star), &restart(&fresh)).await;
        assert_eq!(restarted.status, 200);
        assert_eq!(restarted.header("content-type"), "application/trickle-ice-sdpfrag");
        assert_eq!(restarted.header("etag"), "\"aafresh\"");
        for line in ["a=group:BUNDLE m0 m1", "a=mid:m0", "a=ice-ufrag:aafresh", "a=ice-pwd:new"] {
            assert!(restarted.has(line), "{line} is not in\n{}", restarted.text);
        }
    }
    assert_eq!(node.shard().count("RestartIce"), 2);
    let again = patch(&node, &session, Some("*"), &restart("fresh3")).await;
    assert_eq!(again.status, 204, "the present ICE session's own candidates");
    assert_eq!(patch(&node, &session, Some("\"aafresh\""), candidates).await.status, 204);

    let expected = |status: u16, code: &str| (status, code.to_owned());
    let stale = patch(&node, &session, Some(&tag), candidates).await;
    assert_eq!(stale.code(), expected(412, "precondition_failed"));
    let none = patch(&node, &session, None, candidates).await;
    assert_eq!(none.code(), expected(428, "precondition_required"));
    let empty = patch(&node, &session, Some("*"), "").await;
    assert_eq!(empty.code(), expected(400, "malformed_sdp"));
    let whole = request(Method::PATCH, &session, "application/sdp", &[], candidates);
    assert_eq!(send(&node, whole).await.code(), expected(415, "not_sdp"));
    let other = session.replace("/whip/", "/whep/");
    let wrong = patch(&node, &other, Some("*"), &restart("x")).await;
    assert_eq!(wrong.code(), expected(404, "session_not_found"));
}

#[tokio::test]
async fn offers_are_refused_with_their_status_and_leave_nothing_behind() {
    let node = Node::start(1);
    let good = sdp("sendonly", &["audio"]);
    let watch = sdp("recvonly", &["audio"]);
    for (path, sdp, status, code) in [
        ("/whip/r", "not SDP".to_owned(), 400, "malformed_sdp"),
        ("/whip/r", good.replace("opus", "speex"), 422, "not_supported"),
        ("/whip/r", good.replace("a=rtcp-mux\r\n", ""), 422, "not_supported"),
        ("/whip/r", watch.clone(), 422, "not_supported"),
        ("/whip/r?peerId=%07", good.clone(), 400, "invalid_parameter"),
        ("/whip/r?source=%07", good.clone(), 400, "invalid_parameter"),
        ("/whip/%07", good.clone(), 400, "invalid_parameter"),
        ("/whep/nowhere", watch.clone(), 404, "room_not_found"),
        ("/whep/r", good.clone(), 422, "not_supported"),
    ] {
        let refused = offer(&node, path, &sdp).await;
        assert_eq!(refused.code(), (status, code.to_owned()), "{path}");
    }
    let typed = request(Method::POST, "/whip/r", "application/json", &[], &good);
    assert_eq!(send(&node, typed).await.code(), (415, "not_sdp".to_owned()));
    let accepts = [(header::ACCEPT, "text/html, application/json;q=0.5")];
    let picky = request(Method::POST, "/whip/r", "application/sdp", &accepts, &good);
    assert_eq!(send(&node, picky).await.code(), (406, "not_acceptable".to_owned()));
    let huge = "a".repeat(300 * 1024);
    assert_eq!(offer(&node, "/whip/r", &huge).await.code(), (413, "body_too_large".to_owned()));
    let bytes = Request::builder()
        .method(Method::POST)
        .uri("/whip/r")
        .header(header::CONTENT_TYPE, "application/sdp; charset=utf-8")
        .body(Body::from(vec![0xff, 0xfe]))
        .unwrap();
    assert_eq!(send(&node, bytes).await.code(), (400, "malformed_sdp".to_owned()));
    assert_eq!(node.shard().told(), Vec::<String>::new(), "no shard heard of any of it");
}

#[tokio::test]
async fn there_must_be_something_to_play_that_the_client_decodes() {
    let node = Node::start(1);
    node.room("r").await;
    let watch = sdp("recvonly", &["audio"]);
    let early = offer(&node, "/whep/r", &watch).await;
    assert_eq!(early.code(), (409, "nothing_to_play".to_owned()));
    assert_eq!(early.header("retry-after"), "1");
    let unknown = offer(&node, "/whep/r?peerId=alice", &watch).await;
    assert_eq!(unknown.code(), (404, "peer_not_found".to_owned()));
    offer(&node, "/whip/r?peerId=alice", &sdp("sendonly", &["audio"])).await;
    let deaf = watch.replace("opus", "speex");
    assert_eq!(offer(&node, "/whep/r", &deaf).await.code().0, 409);
    let own = offer(&node, "/whep/r?viewerId=alice", &watch).await;
    assert_eq!(own.code().0, 409, "nobody plays themselves");
}

#[tokio::test]
async fn what_a_shard_refuses_is_taken_back_whole() {
    let node = Node::start(1);
    node.shard().with(|script| {
        script.refuse_name = Some(("CreateProducer", Refusal::StreamInUse("SSRC")));
    });
    let refused = offer(&node, "/whip/r?peerId=alice", &sdp("sendonly", &["audio"])).await;
    assert_eq!(refused.code(), (409, "already_exists".to_owned()));
    settle().await;
    assert_eq!(node.shard().count("CloseTransport"), 1);
    assert_eq!(node.get("/media/room/r").await.code(), "room_not_found", "its last peer has left");

    node.shard().with(|script| {
        script.refuse_name = Some(("CreateConsumer", Refusal::Full("consumer")));
    });
    let path = "/whip/r?peerId=alice";
    assert_eq!(offer(&node, path, &sdp("sendonly", &["audio"])).await.status, 201);
    let refused = offer(&node, "/whep/r?viewerId=bob", &sdp("recvonly", &["audio"])).await;
    assert_eq!(refused.code(), (503, "node_full".to_owned()));
    let room = node.get("/media/room/r").await;
    assert_eq!(room.data()["peers"].as_array().unwrap().len(), 1, "bob is not in the room");
}

#[tokio::test]
async fn a_session_is_only_ended_by_its_own_route() {
    let node = Node::start(1);
    node.room("r").await;
    let plain = node.transport("r", "alice").await;
    for path in [format!("/whip/session/{plain}"), "/whip/session/7".to_owned()] {
        assert_eq!(node.delete(&path).await.code(), "session_not_found");
    }
    let made = offer(&node, "/whip/r?peerId=alice", &sdp("sendonly", &["audio"])).await;
    let session = made.header("location").to_owned();
    assert_eq!(node.delete(&session.replace("whip", "whep")).await.code(), "session_not_found");
    assert_eq!(node.delete(&session).await.status, 200);
    let room = node.get("/media/room/r").await;
    assert_eq!(room.data()["peers"][0]["peerId"], "alice", "she has another transport");
}

#[tokio::test]
async fn browsers_of_other_origins_may_read_what_whip_answers_with() {
    let node = Node::start(1);
    for path in ["/whip/r", "/whep/session/x"] {
        let preflight = Request::builder()
            .method(Method::OPTIONS)
            .uri(path)
            .header(header::ORIGIN, "https://any.example")
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "PATCH")
            .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization,content-type,if-match")
            .body(Body::empty())
            .unwrap();
        let answer = send(&node, preflight).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("accept-post"), "application/sdp");
        assert_eq!(answer.header("access-control-allow-methods"), "PATCH");
    }
    let origin = [
        (header::ORIGIN, "https://any.example"),
        (header::AUTHORIZATION, "Bearer whatever"),
        (header::ACCEPT, "application/sdp"),
    ];
    let sdp = sdp("sendonly", &["audio"]);
    let made =
        send(&node, request(Method::POST, "/whip/r", "application/sdp", &origin, &sdp)).await;
    assert_eq!(made.status, 201, "a bearer token is no harm where none is asked for");
    let exposed = made.header("access-control-expose-headers").to_ascii_lowercase();
    for name in ["location", "etag", "link", "accept-patch"] {
        assert!(exposed.split(',').any(|it| it.trim() == name), "{name} is not in {exposed}");
    }
    for method in [Method::GET, Method::HEAD, Method::PUT] {
        assert_eq!(node.send(bare(method, "/whip/r")).await.status(), 405);
    }
}

#[tokio::test]
async fn the_call_page_needs_nothing_but_this_server() {
    let node = Node::start(1);
    let page = send(&node, bare(Method::GET, "/")).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let sources = page.text.split(['"', '\'']).filter(|word| word.starts_with("pages/"));
    let sources: Vec<&str> = sources.collect();
    assert_eq!(sources, ["pages/call.css", "pages/call.js"]);
    for (path, media_type) in [
        ("/pages/call.css", "text/css; charset=utf-8"),
        ("/pages/call.js", "text/javascript; charset=utf-8"),
    ] {
        let part = send(&node, bare(Method::GET, path)).await;
        assert_eq!((part.status.as_u16(), part.header("content-type")), (200, media_type));
        assert!(!part.text.contains("http://") && !part.text.contains("https://"), "{path}");
    }
    assert!(!page.text.contains("://"), "no address of elsewhere");
    assert!(!page.text.contains("style=") && !page.text.contains("onclick="), "nothing inline");
}

#[tokio::test]
async fn a_client_that_hangs_up_without_a_delete_has_left() {
    let node = Node::start(1);
    let made = offer(&node, "/whip/r?peerId=alice", &sdp("sendonly", &["audio"])).await;
    let (_, id) = made.header("location").rsplit_once('/').unwrap();
    offer(&node, "/whip/r?peerId=bob", &sdp("sendonly", &["audio"])).await;
    let closed = |reason| Event::TransportClosed { transport: id.parse().unwrap(), reason };
    node.happens(closed(CloseReason::DtlsClosed));
    let room = node.get("/media/room/r").await;
    let peers = room.data()["peers"].as_array().unwrap();
    assert_eq!(peers.iter().map(|peer| &peer["peerId"]).collect::<Vec<_>>(), ["bob"]);
}

#[tokio::test]
async fn a_session_is_found_below_what_a_proxy_says_that_it_took_off_the_path() {
    let node = Node::start(1);
    for (told, before) in [
        ("/calls", "/calls"),
        ("/a/b-c.d/", "/a/b-c.d"),
        ("/", ""),
        ("calls", ""),
        ("//evil.example", ""),
        ("/calls?x=", ""),
        ("/calls, /more", ""),
        (r"/\evil.example", ""),
    ] {
        for (kind, flow) in [("whip", "sendonly"), ("whep", "recvonly")] {
            let headers = [(X_FORWARDED_PREFIX, told)];
            let path = format!("/{kind}/r?peerId=alice");
            let sdp = sdp(flow, &["audio"]);
            let made =
                send(&node, request(Method::POST, &path, "application/sdp", &headers, &sdp)).await;
            assert_eq!(made.status, 201, "{told}: {}", made.text);
            let location = made.header("location");
            let session = location.strip_prefix(before).unwrap_or_default();
            assert!(session.starts_with(&format!("/{kind}/session/")), "{told}: {location}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_viewers_session_ends_when_nothing_is_left_that_it_could_play() {
    let node = Node::start(1);
    let publish = sdp("sendonly", &["audio", "video"]);
    let made = offer(&node, "/whip/r?peerId=alice", &publish).await;
    let watch = sdp("recvonly", &["audio", "video"]);
    let played = offer(&node, "/whep/r", &watch).await;
    let of_bob = sdp("sendonly", &["audio"]);
    let bob = offer(&node, "/whip/q?peerId=bob", &of_bob).await;
    let plays_on = offer(&node, "/whep/q", &sdp("recvonly", &["audio"])).await;
    assert_eq!(node.delete(made.header("location")).await.status, 200);
    tokio::time::sleep(WHEP_GRACE - Duration::from_secs(1)).await;
    assert_eq!(node.get("/media/room/r").await.status, 200, "alice may be back at once");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(node.delete(played.header("location")).await.code(), "session_not_found");
    assert_eq!(node.get("/media/room/r").await.code(), "room_not_found", "nobody is left");
    for session in [&plays_on, &bob] {
        assert_eq!(node.delete(session.header("location")).await.status, 200);
    }
}
