//! What is a good room token, and everything that is none.

use axum::body::Body;
use axum::http::Request;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use ringcast::access::ApiKeys;
use serde_json::{Value, json};

use super::credentials::{
    BEFORE, LATER, OTHER, SECRET, claims, claims_but, guarded, guarded_with, signed, signed_by,
};

#[tokio::test]
async fn what_is_no_good_token_is_refused_with_the_reason_and_without_its_text() {
    let node = guarded();
    let good = signed(&claims());
    let (head_and_body, signature) = good.rsplit_once('.').unwrap();
    let (_, body) = head_and_body.split_once('.').unwrap();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"; // {"alg":"none","typ":"JWT"}
    let rs256 = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJhY2tlbmQifQ"; // {"alg":"RS256","kid":"backend"}
    let crit = Header { crit: Some(vec!["b64".to_owned()]), ..Header::new(Algorithm::HS256) };
    let crit = encode(&crit, &claims(), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
    let more = signed(&claims_but(json!({ "room": "s" })));
    let swapped = format!("{}.{signature}", more.rsplit_once('.').unwrap().0);
    let but = |changes| signed(&claims_but(changes));
    for (token, reason) in [
        (but(json!({ "exp": BEFORE })), "has expired"),
        (but(json!({ "exp": LATER * 1000 })), "it is in seconds since 1970"),
        (but(json!({ "nbf": LATER - 60 })), "not valid yet"),
        (but(json!({ "exp": null })), "has no `exp`"),
        (but(json!({ "exp": "soon" })), "`exp` is malformed"),
        (but(json!({ "room": null })), "has no `room`"),
        (but(json!({ "sub": null })), "has no `sub`"),
        (but(json!({ "sub": "" })), "`sub` is malformed"),
        (but(json!({ "room": null, "admin": true })), "has no `room`"),
        (but(json!({ "node": true })), "it has no `room`"),
        (but(json!({ "room": 7 })), "`room` is malformed"),
        (but(json!({ "publish": "yes" })), "`publish` is malformed"),
        (format!("{none}.{body}."), "HS256"),
        (format!("{none}.{body}.{signature}"), "HS256"),
        (format!("{rs256}.{body}.{signature}"), "HS256"),
        (signed_by("backend", SECRET, Algorithm::HS512, &claims()), "HS256"),
        (signed_by("backend", SECRET, Algorithm::HS384, &claims()), "HS256"),
        (signed_by("backend", OTHER, Algorithm::HS256, &claims()), "signature is wrong"),
        (signed_by("stranger", SECRET, Algorithm::HS256, &claims()), "names no key"),
        (crit, "critical"),
        (swapped, "signature is wrong"),
        (format!("{head_and_body}."), "signature is wrong"),
        (format!("{head_and_body}.AAAA"), "signature is wrong"),
        (head_and_body.to_owned(), "neither a known key nor"),
        (but(json!({ "more": "m".repeat(5000) })), "longer than 4096 bytes"),
        (format!("{SECRET}x"), "neither a known key nor"),
        (format!("backend:{SECRET}"), "neither a known key nor"),
        ("..".to_owned(), "neither a known key nor"),
        (format!("{good}.{good}"), "neither a known key nor"),
    ] {
        let refused = node.called_with(&token).room("r").await;
        assert_eq!((refused.status.as_u16(), refused.code()), (401, "invalid_token"), "{token}");
        let sentence = refused.body["data"].as_str().unwrap();
        assert!(sentence.contains(reason), "{reason:?} is not in {sentence:?}: {token}");
        assert!(!sentence.contains(SECRET) && !sentence.contains(body), "{sentence}");
    }
    let request = Request::builder().uri("/media/rooms").header("authorization", "Basic YTpi");
    let refused = node.ask(request.body(Body::empty()).unwrap()).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (401, "unauthorized"));
    assert_eq!(node.called_with(&good).room("r").await.status, 201, "the good one is good");
}

#[tokio::test]
async fn a_key_is_named_by_kid_or_by_the_issuer_or_is_the_only_one() {
    let node = guarded();
    let bare = |claims: &Value, secret: &str| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
    };
    let issued = bare(&claims_but(json!({ "iss": "spare" })), OTHER);
    assert_eq!(node.called_with(&issued).room("r").await.status, 201);
    let unnamed = bare(&claims(), SECRET);
    assert_eq!(node.called_with(&unnamed).room("r").await.code(), "invalid_token");
    let only = ApiKeys::new(vec![format!("backend:{SECRET}").parse().unwrap()]).unwrap();
    let node = guarded_with(|options| options.keys = only.into());
    assert_eq!(node.called_with(&unnamed).room("r").await.status, 201);
    let foreign = bare(&claims_but(json!({ "iss": "https://login.example" })), SECRET);
    assert_eq!(node.called_with(&foreign).room("r").await.status, 201);
}
