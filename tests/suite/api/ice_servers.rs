//! What clients are told of STUN and TURN servers, and who is told.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use ringcast::api::ApiOptions;
use ringcast::config::{IceCredentials, IceServer, Secret};
use ringcast::limits::{Limits, RATE_BURST};
use serde_json::{Value, json};
use sha1::Sha1;

use super::credentials::{SECRET, claims, claims_but, guarded_with, signed};
use super::harness::{Node, bare};
use super::sdp::sdp;

fn stun() -> IceServer {
    IceServer { urls: vec!["stun:stun.example.org:3478".to_owned()], credentials: None }
}

fn turn(credentials: IceCredentials) -> IceServer {
    let urls = ["turn:turn.example.org?transport=udp", "turns:turn.example.org:443"];
    IceServer { urls: urls.map(str::to_owned).to_vec(), credentials: Some(credentials) }
}

fn fixed() -> IceCredentials {
    let username = "a \"guest\"".to_owned();
    IceCredentials::Fixed { username, credential: Secret::new("p\\w") }
}

const STUN: &str = "<stun:stun.example.org:3478>; rel=\"ice-server\"";

const TURN: &str = r#"<turn:turn.example.org?transport=udp>; rel="ice-server"; username="a \"guest\""; credential="p\\w"; credential-type="password""#;

fn links(headers: &HeaderMap) -> Vec<String> {
    let links = headers.get_all(header::LINK).iter();
    links.map(|link| link.to_str().unwrap().to_owned()).collect()
}

async fn linked(node: &Node, request: Request<Body>) -> Vec<String> {
    let response = node.send(request).await;
    assert!(response.status().is_success(), "{}", response.status());
    links(response.headers())
}

fn offering(path: &str, flow: &str) -> Request<Body> {
    let request = Request::builder().method(Method::POST).uri(path);
    let request = request.header(header::CONTENT_TYPE, "application/sdp");
    request.body(Body::from(sdp(flow, &["audio"]))).unwrap()
}

async fn told(node: &Node) -> Value {
    let body = json!({ "peerId": "alice", "direction": "send" });
    node.post("/media/transport/r", body).await.data()["iceServers"].clone()
}

#[tokio::test]
async fn without_any_nothing_is_said_of_them() {
    let node = Node::start(1);
    assert!(linked(&node, offering("/whip/r?peerId=alice", "sendonly")).await.is_empty());
    assert!(linked(&node, bare(Method::OPTIONS, "/whip/r")).await.is_empty());
    assert_eq!(told(&node).await, Value::Null);
}

#[tokio::test]
async fn whip_whep_and_new_transports_tell_of_all_of_them() {
    let ice_servers = vec![stun(), turn(fixed())].into();
    let node = Node::start_with(1, &ApiOptions { ice_servers, ..ApiOptions::default() });
    let turns = TURN.replace("turn:turn.example.org?transport=udp", "turns:turn.example.org:443");
    let all = [STUN, TURN, &turns];
    assert_eq!(linked(&node, offering("/whip/r?peerId=alice", "sendonly")).await, all);
    assert_eq!(linked(&node, offering("/whep/r?viewerId=bob", "recvonly")).await, all);
    for path in ["/whip/r", "/whep/r"] {
        let asked = bare(Method::OPTIONS, path);
        assert_eq!(linked(&node, asked).await, all, "who may POST may know: {path}");
    }
    assert!(linked(&node, bare(Method::OPTIONS, "/whip/session/x")).await.is_empty());
    let turn = json!({
        "urls": ["turn:turn.example.org?transport=udp", "turns:turn.example.org:443"],
        "username": "a \"guest\"", "credential": "p\\w",
    });
    assert_eq!(told(&node).await, json!([{ "urls": ["stun:stun.example.org:3478"] }, turn]));
}

#[tokio::test]
async fn who_asks_too_often_is_told_so_and_preflights_do_not_count() {
    let from = ConnectInfo(SocketAddr::new("192.0.2.1".parse().unwrap(), 5000));
    let asking = |bearer: Option<&str>, preflight: bool| {
        let mut asked = bare(Method::OPTIONS, "/whip/r");
        asked.extensions_mut().insert(from);
        let headers = asked.headers_mut();
        headers.insert(header::ORIGIN, "https://calls.example".parse().unwrap());
        if let Some(bearer) = bearer {
            headers.insert(header::AUTHORIZATION, format!("Bearer {bearer}").parse().unwrap());
        }
        if preflight {
            headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, "POST".parse().unwrap());
        }
        asked
    };
    let options = |options: &mut ApiOptions| {
        options.ice_servers = vec![stun(), turn(fixed())].into();
        let mut limits = Limits::default();
        limits.set("address-requests=1".parse().unwrap());
        options.limits = limits;
    };
    let most = 2 * RATE_BURST.as_secs();
    let guarded = guarded_with(options);
    for preflight in [true, false] {
        for _ in 0..most {
            assert_eq!(linked(&guarded, asking(None, preflight)).await, [STUN]);
        }
    }
    let mut open = ApiOptions::default();
    options(&mut open);
    let open = Node::start_with(1, &open);
    for (node, bearer) in [(&guarded, Some("nonsense")), (&open, None)] {
        let mut asked = 0;
        let refused = loop {
            let response = node.send(asking(bearer, false)).await;
            if response.status() != 200 {
                break response;
            }
            asked += 1;
            assert!(asked < 1000 * most, "they are never refused");
        };
        assert!(asked >= RATE_BURST.as_secs(), "a burst of {asked}");
        assert_eq!(refused.status(), 429);
        let headers = refused.headers();
        assert!(links(headers).is_empty() && headers.contains_key(header::RETRY_AFTER));
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://calls.example");
        assert_eq!(linked(node, asking(None, true)).await, [STUN], "a preflight is let through");
    }
    assert_eq!(linked(&guarded, asking(Some(SECRET), false)).await.len(), 3);
}

#[tokio::test]
async fn credentials_are_for_who_may_post_and_a_preflight_is_not_told() {
    let node = guarded_with(|options| options.ice_servers = vec![stun(), turn(fixed())].into());
    let publisher = signed(&claims());
    let viewer = signed(&claims_but(json!({ "publish": null })));
    let elsewhere = signed(&claims_but(json!({ "room": "other" })));
    for (bearer, path, links) in [
        ("", "/whip/r", 1),
        ("nonsense", "/whip/r", 1),
        (SECRET, "/whip/r", 3),
        (&publisher, "/whip/r", 3),
        (&publisher, "/whep/r", 3),
        (&viewer, "/whip/r", 1),
        (&viewer, "/whep/r", 3),
        (&elsewhere, "/whip/r", 1),
    ] {
        let mut asked = bare(Method::OPTIONS, path);
        if !bearer.is_empty() {
            let value = format!("Bearer {bearer}").parse().unwrap();
            asked.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let told = linked(&node, asked).await;
        assert_eq!(told.len(), links, "{bearer} {path}: {told:?}");
        assert_eq!(told[0], STUN);
    }
}

#[tokio::test]
async fn a_shared_secret_makes_credentials_that_the_turn_server_takes_until_tomorrow() {
    let username = Some("ringcast".to_owned());
    let shared = IceCredentials::TimeLimited { username, secret: Secret::new("north") };
    let ice_servers = vec![turn(shared)].into();
    let node = Node::start_with(1, &ApiOptions { ice_servers, ..ApiOptions::default() });
    node.room("r").await;
    let told = told(&node).await;
    let (name, credential) = (told[0]["username"].as_str(), told[0]["credential"].as_str());
    let (until, rest) = name.unwrap().split_once(':').unwrap();
    assert_eq!(rest, "ringcast");
    #[expect(
        clippy::disallowed_methods,
        reason = "TURN servers compare with the clock on the wall"
    )]
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let until: u64 = until.parse().unwrap();
    assert!((now + 86_000..=now + 86_401).contains(&until), "{until} {now}");
    let mut check = Hmac::<Sha1>::new_from_slice(b"north").unwrap();
    check.update(name.unwrap().as_bytes());
    check.verify_slice(&STANDARD.decode(credential.unwrap()).unwrap()).unwrap();
}
