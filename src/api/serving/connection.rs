//! One connection from its handshake to its end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service as _;

use super::Shared;
use super::body::{AnswerBody, TimedBody};
use super::course::Course;
use super::handshakes::Handshakes;
use super::patience::Patient;
use super::tls::Certificate;
use crate::limits::API_BUFFER_BYTES;
use crate::metrics::connections::{Refused, TimedOut};

/// What is told to whom there is no room for.
pub(super) fn too_many() -> String {
    let extra = "retry-after: 1\r\n";
    farewell(("503 Service Unavailable", extra), "too many connections are open", "overloaded")
}

/// What is told to whom speaks HTTP without TLS where that is spoken.
fn needs_tls() -> String {
    farewell(("400 Bad Request", ""), "TLS is spoken here: the URL begins with https", "needs_tls")
}

/// An answer in the envelope of refusals to a request that is not read.
fn farewell((status, extra): (&str, &str), sentence: &str, code: &str) -> String {
    let body = format!("{{\"success\":false,\"data\":\"{sentence}\",\"code\":\"{code}\"}}");
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\n{extra}content-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// First byte of a TLS record with a ClientHello (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;

/// What is left of a connection: an event stream, and then its end.
pub(super) type Rest = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves it until it ends, or until its answer is an event stream, which is to go on elsewhere;
/// whoever drops this ends it.
pub(super) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    shared: &Shared,
    course: Arc<Course>,
) -> Option<Rest> {
    // Without it, answers of two packets wait for an acknowledgement; its failure is harmless.
    let _ = stream.set_nodelay(true);
    let speaker = Speaker {
        routes: shared.routes.clone(),
        address,
        course: Arc::clone(&course),
        stopping: shared.stopping.clone(),
    };
    let Some(certificate) = &shared.tls else {
        return speaker.speak(stream).await;
    };
    let counts = &shared.counts;
    let secured = secured((stream, shared.counts_as(address.ip())), certificate, shared);
    match tokio::time::timeout(course.patience.handshake, secured).await {
        Ok(Some(stream)) => {
            course.secured();
            speaker.speak(stream).await
        }
        Ok(None) => None,
        Err(_) => {
            counts.timed_out(TimedOut::Handshake);
            None
        }
    }
}

/// The stream under TLS; `None` when the client does not speak it, which is counted.
async fn secured(
    (mut stream, address): (TcpStream, IpAddr),
    certificate: &Certificate,
    Shared { counts, handshakes, .. }: &Shared,
) -> Option<TlsStream<TcpStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 0 {
        return None;
    }
    if first != [TLS_HANDSHAKE] {
        counts.refused(Refused::Plaintext);
        refuse(&stream, &needs_tls());
        let _ = stream.shutdown().await;
        return None;
    }
    match shaken((stream, address), certificate, handshakes).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            counts.refused(Refused::Handshake);
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
    }
}

/// Shakes hands. Nobody's turn lasts while a client is waited for: neither for the rest of its
/// ClientHello nor for its answer.
async fn shaken<S: AsyncRead + AsyncWrite + Unpin>(
    (stream, address): (S, IpAddr),
    certificate: &Certificate,
    handshakes: &Handshakes,
) -> io::Result<TlsStream<S>> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let turn = handshakes.turn(address).await;
    // Agrees on keys and signs, here and now.
    let accepting = hello.into_stream(certificate.current());
    // Whatever else is ready goes before the next handshake that waits for this turn.
    tokio::task::yield_now().await;
    drop(turn);
    accepting.await
}

/// A word of farewell, for clients that listen.
pub(super) fn refuse(stream: &TcpStream, answer: &str) {
    // What is left unread would reset the connection, and with it the answer.
    let _ = stream.try_read(&mut [0; 4096]);
    let _ = stream.try_write(answer.as_bytes());
}

/// HTTP over one connection.
pub(super) struct Speaker {
    pub(super) routes: Router,
    pub(super) address: SocketAddr,
    pub(super) course: Arc<Course>,
    pub(super) stopping: watch::Receiver<bool>,
}

impl Speaker {
    /// Speaks until the connection ends (`None`) or has an event stream to tell.
    pub(super) async fn speak<S>(self, stream: S) -> Option<Rest>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { routes, address, course, mut stopping } = self;
        let io = TokioIo::new(Patient::new(stream, Arc::clone(&course)));
        let move_on = Arc::new(MoveOn::default());
        let begins = Arc::clone(&move_on);
        let answers = service_fn(move |request: hyper::Request<Incoming>| {
            let (routes, course, begins) =
                (routes.clone(), Arc::clone(&course), Arc::clone(&begins));
            async move { Ok::<_, Infallible>(answer(request, address, routes, (course, begins)).await) }
        });
        let mut http = http1::Builder::new();
        // The course of the connection limits the head's time too, apart from idle time.
        http.header_read_timeout(None).max_buf_size(API_BUFFER_BYTES);
        let serving = http.serve_connection(io, answers).with_upgrades();
        let mut rest = Box::pin(async move {
            let mut serving = pin!(serving);
            let stopped = async {
                let _ = stopping.wait_for(|stopping| *stopping).await;
            };
            let ended = tokio::select! {
                ended = serving.as_mut() => ended,
                () = stopped => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to the API ended");
            }
        });
        tokio::select! {
            () = rest.as_mut() => None,
            () = move_on.wanted.notified() => Some(Box::pin(async move {
                move_on.done.notify_one();
                rest.await;
            })),
        }
    }
}

/// Between an answer that is an event stream and whoever takes its connection elsewhere.
#[derive(Debug, Default)]
struct MoveOn {
    wanted: Notify,
    /// It is where it goes on.
    done: Notify,
}

async fn answer(
    request: hyper::Request<Incoming>,
    address: SocketAddr,
    mut routes: Router,
    (course, begins): (Arc<Course>, Arc<MoveOn>),
) -> Response {
    let has_body = !request.body().is_end_stream();
    course.requested(has_body);
    let mut request: Request = if has_body {
        request.map(|body| Body::new(TimedBody::new(body, Arc::clone(&course))))
    } else {
        request.map(|_| Body::empty())
    };
    request.extensions_mut().insert(ConnectInfo(address));
    let mut response = match routes.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let streams = is_stream(&response);
    course.answers(streams);
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    if streams {
        // The last one here: the next request would be answered where this stream goes on.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        // It goes on there, from its first byte, however often the connection is polled here.
        begins.wanted.notify_one();
        begins.done.notified().await;
    }
    response.map(|body| Body::new(AnswerBody::new(body, course)))
}

/// Whether an answer goes on for as long as the client wants.
fn is_stream(response: &Response) -> bool {
    let of_events = |value: &HeaderValue| value.as_bytes().starts_with(b"text/event-stream");
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        || response.headers().get(header::CONTENT_TYPE).is_some_and(of_events)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::task::JoinSet;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::limits::API_HANDSHAKES;

    const NAME: &str = "call.example";

    /// A certificate, and a client that trusts it alone.
    fn certified() -> (Certificate, Arc<ClientConfig>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        let issued = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(issued.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider);
        let client = client.with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (Certificate::of(vec![issued.der().clone()], key), Arc::new(client))
    }

    #[tokio::test(start_paused = true)]
    async fn clients_who_begin_a_handshake_and_are_silent_hold_nobody_up() {
        let (certificate, client) = certified();
        let name = ServerName::try_from(NAME).unwrap();
        let handshakes = Arc::new(Handshakes::default());
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let (mut silent, mut held) = (JoinSet::new(), Vec::new());
        for number in 0..4 * API_HANDSHAKES {
            let mut hello = Vec::new();
            let mut begun = ClientConnection::new(Arc::clone(&client), name.clone()).unwrap();
            begun.write_tls(&mut hello).unwrap();
            let said = if number % 2 == 0 { hello.len() } else { 40 };
            let (mut stream, served) = tokio::io::duplex(64 * 1024);
            stream.write_all(&hello[..said]).await.unwrap();
            held.push(stream);
            let (certificate, handshakes) = (certificate.clone(), Arc::clone(&handshakes));
            silent.spawn(async move {
                shaken((served, address), &certificate, &handshakes).await.is_ok()
            });
        }
        let (stream, served) = tokio::io::duplex(64 * 1024);
        let both = async {
            let connects = TlsConnector::from(client).connect(name, stream);
            tokio::join!(connects, shaken((served, address), &certificate, &handshakes))
        };
        let (connected, secured) =
            tokio::time::timeout(Duration::from_secs(1), both).await.unwrap();
        assert!(connected.is_ok() && secured.is_ok());
        assert!(silent.try_join_next().is_none(), "the silent ones still wait");
        drop(held);
        assert!(silent.join_all().await.iter().all(|secured| !secured));
    }

    #[test]
    fn words_of_farewell_are_whole_answers() {
        for text in [too_many(), needs_tls()] {
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
            let envelope: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(envelope["success"], false);
            assert!(envelope["code"].is_string());
        }
    }
}
