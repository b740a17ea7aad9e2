//! Connections in virtual time: clients that are slow over anything there is to be slow over.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::IntoResponse;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::{Instant, sleep};

use super::admission::Place;
use super::connection::Speaker;
use super::*;
use crate::api::body::bytes_of;
use crate::api::error::ApiError;
use crate::events::ReaderThread;
use crate::limits::{
    API_ANSWER_TIMEOUT, API_BODY_TIMEOUT, API_HEAD_TIMEOUT, API_SILENCE_MAX, EVENT_KEEP_ALIVE,
};

/// Bytes between the two ends: less than any answer that matters here.
const BETWEEN: usize = 512;

fn routes() -> Router {
    let events = || async {
        let comments = stream::unfold((), |()| async {
            sleep(EVENT_KEEP_ALIVE).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b": alive\n\n")), ()))
        });
        let body = axum::body::Body::from_stream(comments);
        ([("content-type", "text/event-stream")], body)
    };
    let echo = |request| async { Ok::<_, ApiError>(bytes_of(request).await?.into_response()) };
    Router::new()
        .route("/quick", get(|| async { "quick" }))
        .route("/large", get(|| async { "x".repeat(10 * 1024 * 1024) }))
        .route("/echo", post(echo))
        .route("/events", get(events))
}

/// The client's end of a served connection.
struct Client {
    stream: DuplexStream,
    counts: Arc<ConnectionCounts>,
    began: Instant,
}

impl Client {
    fn connect() -> Self {
        let (stream, served) = tokio::io::duplex(BETWEEN);
        let counts = Arc::new(ConnectionCounts::default());
        let address: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let admission = Admission::new(ConnectionLimits::default());
        let (place, _): (Place, bool) = admission.admit(address.ip()).unwrap();
        let course = Arc::new(Course::new(place, Patience::default(), Arc::clone(&counts)));
        let (keep, stopping) = watch::channel(false);
        let speaker = Speaker { routes: routes(), address, course, stopping };
        tokio::spawn(async move {
            if let Some(rest) = speaker.speak(served).await {
                rest.await;
            }
            drop(keep);
        });
        Self { stream, counts, began: Instant::now() }
    }

    async fn says(&mut self, text: &str) {
        // Where the other end has closed, reading tells.
        let _ = self.stream.write_all(text.as_bytes()).await;
    }

    async fn asks(&mut self, path: &str) {
        self.says(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    }

    /// Everything up to the end of the connection.
    async fn reads_to_the_end(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes).await;
        String::from_utf8(bytes).unwrap()
    }

    /// What it was given up for, and after how long.
    async fn is_given_up(&mut self) -> (&'static str, Duration) {
        while self.counts.open_and_accepted().0 > 0 {
            sleep(Duration::from_millis(50)).await;
        }
        let told = self.counts.all_timed_out().find(|(_, count)| *count == 1);
        (told.expect("a reason").0, self.began.elapsed())
    }

    async fn is_given_up_after(&mut self, over: &str, time: Duration) {
        let (told, after) = self.is_given_up().await;
        assert_eq!(told, over);
        assert!(after >= time && after < time + Duration::from_secs(2), "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_half_a_head_is_given_up() {
    for said in ["", "G", "GET /quick HTTP/1.1\r\nhost:"] {
        let mut client = Client::connect();
        client.says(said).await;
        client.is_given_up_after("head", API_HEAD_TIMEOUT).await;
        assert_eq!(client.reads_to_the_end().await, "");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_byte_by_byte_has_no_more_time() {
    let mut client = Client::connect();
    client.says("GET /quick HTTP/1.1\r\n").await;
    for _ in 0..API_HEAD_TIMEOUT.as_secs() - 1 {
        client.says("a").await;
        sleep(Duration::from_secs(1)).await;
    }
    client.is_given_up_after("head", API_HEAD_TIMEOUT).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_byte_by_byte_is_refused_when_its_time_is_over() {
    let mut client = Client::connect();
    client.says("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n").await;
    for _ in 0..API_BODY_TIMEOUT.as_secs() + 1 {
        client.says("a").await;
        sleep(Duration::from_secs(1)).await;
    }
    let answer = client.reads_to_the_end().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"code\":\"request_timeout\""), "{answer}");
    client.is_given_up_after("body", API_BODY_TIMEOUT).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_idle_between_requests_for_longer_than_proxies_do() {
    let mut client = Client::connect();
    for _ in 0..3 {
        client.asks("/quick").await;
        sleep(Duration::from_secs(70)).await;
    }
    let mut answers = [0; 3 * 120];
    let read = client.stream.read(&mut answers).await.unwrap();
    let answers = String::from_utf8_lossy(&answers[..read]);
    assert_eq!(answers.matches("200 OK").count(), 3, "{answers}");
    let asked = Duration::from_secs(140);
    client.is_given_up_after("idle", asked + API_SILENCE_MAX).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_head_has_its_time_from_its_first_byte() {
    let mut client = Client::connect();
    client.asks("/quick").await;
    sleep(Duration::from_secs(60)).await;
    client.says("GET /quick HT").await;
    let end = Duration::from_secs(60) + API_HEAD_TIMEOUT;
    client.is_given_up_after("head", end).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_or_reads_in_sips_is_given_up() {
    let mut client = Client::connect();
    client.asks("/large").await;
    client.is_given_up_after("answer", API_ANSWER_TIMEOUT).await;

    let mut client = Client::connect();
    client.asks("/large").await;
    for _ in 0..API_ANSWER_TIMEOUT.as_secs() - 1 {
        client.stream.read_exact(&mut [0; 10]).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    client.is_given_up_after("answer", API_ANSWER_TIMEOUT).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_stays_for_as_long_as_it_is_read() {
    let mut client = Client::connect();
    client.asks("/events").await;
    let mut bytes = [0; 256];
    while client.began.elapsed() < Duration::from_secs(3600) {
        assert!(client.stream.read(&mut bytes).await.unwrap() > 0);
    }
    // From here on nobody reads: what is between the ends fills up, and then nothing moves.
    let (told, after) = client.is_given_up().await;
    assert_eq!(told, "silence");
    assert!(after > Duration::from_secs(3600) + API_SILENCE_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_head_too_large_is_refused() {
    let client = Client::connect();
    let head = format!("GET /quick HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let (mut read, mut write) = tokio::io::split(client.stream);
    let writing = tokio::spawn(async move {
        let _ = write.write_all(head.as_bytes()).await;
    });
    let mut answer = [0; 16];
    read.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431 Req");
    writing.abort();
}

#[tokio::test]
async fn an_event_stream_goes_on_where_readers_are_and_is_the_last_answer_of_its_connection() {
    let here = || std::thread::current().name().unwrap_or_default().to_owned();
    let events = move || async move {
        let told = stream::once(async move { Ok::<_, Infallible>(format!("told by {}", here())) });
        ([("content-type", "text/event-stream")], axum::body::Body::from_stream(told))
    };
    let routes = Router::new()
        .route("/call", get(move || async move { format!("answered by {}", here()) }))
        .route("/events", get(events));
    let readers = ReaderThread::start().unwrap();
    let serving = Serving {
        routes,
        tls: None,
        counts: Arc::default(),
        limits: ConnectionLimits::default(),
        proxies: Proxies::default(),
        streams: readers.runtime(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let client = async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        for path in ["call", "events", "call"] {
            let head = format!("GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
        }
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        drop(stop);
        text
    };
    let shutdown = async {
        let _ = stopped.await;
    };
    let (text, ()) = tokio::join!(client, serving.run(listener, shutdown));
    assert!(text.contains(&format!("answered by {}", here())), "{text}");
    assert!(text.contains("told by readers"), "{text}");
    assert!(text.contains("connection: close"), "{text}");
    assert_eq!(text.matches("answered by").count(), 1, "{text}");
    readers.stop();
}

#[tokio::test]
async fn a_trusted_proxy_brings_everyone_and_others_have_their_share() {
    let limits = ConnectionLimits { node: 100, address: Some(1) };
    let shared = Shared {
        routes: Router::new(),
        tls: None,
        counts: Arc::default(),
        admission: Admission::new(limits),
        proxies: Proxies::of(["10.0.0.0/8"]).unwrap(),
        handshakes: Handshakes::default(),
        patience: Patience::default(),
        streams: Handle::current(),
        stopping: watch::channel(false).1,
    };
    let admit = |address: &str| {
        let address = shared.counts_as(address.parse().unwrap());
        shared.admission.admit(address).map(|(place, evicted)| {
            assert!(!evicted);
            place.is_busy();
            place
        })
    };
    let brought: Vec<Place> = (0..10).map(|_| admit("::ffff:10.0.0.1").unwrap()).collect();
    let own = admit("192.0.2.1").unwrap();
    assert_eq!(admit("192.0.2.1").unwrap_err(), Refused::AddressLimit);
    drop((brought, own));
}
