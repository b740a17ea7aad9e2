//! A webhook's receiver that takes, refuses, hangs or hangs up, as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Channel, Sender, channel};
use std::time::Duration;

use aws_lc_rs::hmac;
use ringcast::config::{Secret, WebhookConfig};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use super::calls::{PATIENCE, Told};

pub(crate) const SECRET: &str = "between us";
/// How long the test waits before it looks at its condition again.
const LOOK: Duration = Duration::from_millis(50);

/// What to do with a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Status(u16),
    /// Close the connection instead of answering.
    HangUp,
    /// Never answer, and keep the connection.
    Hang,
}

/// One delivery as it came.
pub(crate) struct Delivery {
    pub(crate) events: Vec<(String, Told)>,
    tell: Sender<Answer>,
}

impl Delivery {
    pub(crate) fn answer(self, answer: Answer) {
        // Whoever has given up hears nothing.
        let _ = self.tell.send(answer);
    }
}

/// The receiver; each delivery waits for its answer by the test.
pub(crate) struct Receiver {
    scheme: &'static str,
    address: String,
    deliveries: Channel<Delivery>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        Self::serve("http", Ok)
    }

    /// One that speaks TLS alone.
    pub(crate) fn start_secured(tls: Arc<ServerConfig>) -> Self {
        Self::serve("https", move |stream| {
            let connection = ServerConnection::new(Arc::clone(&tls))?;
            Ok(StreamOwned::new(connection, stream))
        })
    }

    fn serve<S: Read + Write>(
        scheme: &'static str,
        secured: impl Fn(TcpStream) -> Result<S, rustls::Error> + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (tell, deliveries) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (tell, secured) = (tell.clone(), secured.clone());
                std::thread::spawn(move || serve(secured(stream).unwrap(), &tell));
            }
        });
        Self { scheme, address, deliveries }
    }

    pub(crate) fn config(&self) -> WebhookConfig {
        let (url, secret) = (Secret::new(self.url()), Secret::new(SECRET));
        WebhookConfig { url, secret, ca: None }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}/hook?token=1", self.scheme, self.address)
    }

    pub(crate) fn next(&self) -> Delivery {
        self.deliveries.recv_timeout(PATIENCE).expect("a delivery")
    }

    /// The next delivery, if one comes soon.
    pub(crate) fn try_next(&self) -> Option<Delivery> {
        self.deliveries.recv_timeout(LOOK).ok()
    }

    /// Takes every delivery from now on, on a thread of its own; the events as they come.
    pub(crate) fn take_all(self) -> Channel<Value> {
        let (tell, events) = channel();
        std::thread::spawn(move || {
            for delivery in self.deliveries {
                let told: Vec<_> =
                    delivery.events.iter().map(|(_, told)| told.value.clone()).collect();
                delivery.answer(Answer::Status(204));
                for event in told {
                    // A test that has heard enough still has its deliveries taken.
                    let _ = tell.send(event);
                }
            }
        });
        events
    }

    /// Takes deliveries until it has had so many different events.
    pub(crate) fn take_different(&self, got: &mut Vec<(String, Told)>, count: usize) {
        let different = |got: &[(String, Told)]| {
            let ids: std::collections::BTreeSet<_> =
                got.iter().map(|(room, told)| (room.clone(), told.id.clone())).collect();
            ids.len()
        };
        while different(got) < count {
            let delivery = self.next();
            got.extend(delivery.events.iter().cloned());
            delivery.answer(Answer::Status(204));
        }
    }
}

fn serve(stream: impl Read + Write, tell: &Sender<Delivery>) {
    let mut reader = BufReader::new(stream);
    while let Some((head, body)) = request(&mut reader) {
        assert!(head.starts_with("POST /hook?token=1 HTTP/1.1"), "{head}");
        let events = events(&head, &body);
        let (answer, answered) = channel();
        if tell.send(Delivery { events, tell: answer }).is_err() {
            return;
        }
        match answered.recv() {
            Ok(Answer::Status(status)) => {
                let text = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
                if reader.get_mut().write_all(text.as_bytes()).is_err() {
                    return;
                }
            }
            Ok(Answer::Hang) => {
                // Until the other side lets go.
                let _ = reader.get_mut().read(&mut [0]);
                return;
            }
            Ok(Answer::HangUp) | Err(_) => return,
        }
    }
}

/// Head and body; `None` when the connection ends.
fn request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = field(&head, "content-length").parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

fn field(head: &str, name: &str) -> String {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
    line.unwrap().split_once(':').unwrap().1.trim().to_owned()
}

/// The events of a body whose signature is good.
fn events(head: &str, body: &[u8]) -> Vec<(String, Told)> {
    let signature = field(head, "ringcast-signature");
    let (time, hex) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let tag: Vec<u8> = hex
        .as_bytes()
        .chunks(2)
        .map(|digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect();
    let signed = [time.as_bytes(), b".", body].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::verify(&key, &signed, &tag).expect("signed by us");
    let forged = hmac::Key::new(hmac::HMAC_SHA256, b"someone else");
    assert!(hmac::verify(&forged, &signed, &tag).is_err());
    let body: Value = serde_json::from_slice(body).unwrap();
    let events = body["events"].as_array().unwrap();
    events
        .iter()
        .map(|value| {
            let text = |name: &str| value[name].as_str().unwrap().to_owned();
            (text("roomId"), Told { id: text("id"), value: value.clone() })
        })
        .collect()
}
