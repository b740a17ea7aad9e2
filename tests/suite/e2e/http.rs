//! The least HTTP/1.1 that the API needs: one request a connection, over a blocking socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::servers::PATIENCE;

/// The API of one server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Api(pub(crate) SocketAddr);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The data of a success.
    pub(crate) fn data(&self) -> Value {
        let mut json = self.json();
        assert_eq!(json["success"], true, "{self:?}");
        json["data"].take()
    }

    /// Status and code of a refusal.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let json = self.json();
        assert_eq!(json["success"], false, "{self:?}");
        assert!(json["data"].is_string(), "no sentence: {self:?}");
        (self.status, json["code"].as_str().unwrap_or_default().to_owned())
    }
}

impl Api {
    pub(crate) fn get(self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    pub(crate) fn post(self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &body.to_string())
    }

    pub(crate) fn ask(self, method: &str, path: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.0).expect("the API is open");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.0,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses by the head alone may close before it has read the body.
        let _ = stream.write_all(body.as_bytes());
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{read:?} {text}"));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Answer { status, text: body.to_owned() }
    }

    /// A metric of one shard; not a number while there is none.
    pub(crate) fn metric_of(self, name: &str, shard: usize) -> f64 {
        let line = format!("ringcast_{name}{{shard=\"{shard}\"}} ");
        let text = self.get("/metrics").text;
        let value = text.lines().find_map(|found| found.strip_prefix(&line));
        value.map_or(f64::NAN, |value| value.parse().unwrap())
    }

    /// A metric, summed over its labels; not a number while there is none, so that no comparison
    /// with it holds.
    pub(crate) fn metric(self, name: &str) -> f64 {
        self.metric_where(name, "")
    }

    /// The same of its lines that have `label`.
    pub(crate) fn metric_where(self, name: &str, label: &str) -> f64 {
        let text = self.get("/metrics").text;
        let value = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix("ringcast_")?.strip_prefix(name)?;
            let value = rest.strip_prefix(' ').or_else(|| rest.split_once("} ").map(|(_, v)| v))?;
            (rest.starts_with('{') || rest.starts_with(' ')).then(|| value.parse().unwrap())
        };
        let lines = text.lines().filter(|line| line.contains(label));
        lines.filter_map(value).reduce(|sum, value| sum + value).unwrap_or(f64::NAN)
    }
}
