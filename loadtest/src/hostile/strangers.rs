//! Whoever is of no use to a server: readers of room events that never read, connections that never
//! finish a request's head, and scrapers that never pause.
//!
//! A thread keeps the connections and one each scrapes; they sleep but for a look at who was cut off,
//! so that they cost the server and not the generator. Invariant: whoever the server cuts off is
//! replaced, so that it always has as many.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::api::Api;

/// How often it is looked who was cut off.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a server may take to take a connection, and to answer a reader.
const PATIENCE: Duration = Duration::from_secs(20);

/// What half-open connections have said: nothing, or part of a head.
const BEGINNINGS: [&str; 4] =
    ["", "P", "POST /media/room HTTP/1.1\r\nhost: x\r\n", "GET /readyz HTTP/1.1\r\nhost: x\r\nx:"];

/// How many there are of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args, Serialize)]
pub(crate) struct Crowd {
    /// Readers of room events that never read: server-sent events and WebSockets by turns.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=30_000))]
    pub(crate) readers: u32,
    /// Connections to the API that never finish a request's head.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=30_000))]
    pub(crate) half_open: u32,
    /// Clients that ask for /metrics again as soon as they were answered.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub(crate) scrapers: u32,
}

/// What the server did with them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Treatment {
    /// Readers that it cut off, each of which was replaced.
    pub(crate) readers_cut: u64,
    /// Half-open connections that it cut off, each of which was replaced.
    pub(crate) half_open_cut: u64,
    /// Connections that it did not take, or readers that it refused; tried again.
    pub(crate) refused: u64,
    /// Scrapes that it answered.
    pub(crate) scrapes: u64,
}

/// Where they go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    /// Header lines of every request.
    headers: String,
}

impl Target {
    /// The server at a base URL such as `http://127.0.0.1:6040`.
    pub(crate) fn of(url: &str, token: Option<&str>) -> Result<Self, String> {
        let wrong = || format!("--url: {url:?} is no http://host:port");
        let authority = url.strip_prefix("http://").ok_or_else(wrong)?.trim_end_matches('/');
        let with_port = if authority.rsplit_once(':').is_some_and(|(_, port)| is_port(port)) {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        let mut addresses = with_port.to_socket_addrs().map_err(|_| wrong())?;
        let address = addresses.next().ok_or_else(wrong)?;
        let token = token.map(|token| format!("authorization: Bearer {token}\r\n"));
        let headers = format!("host: {authority}\r\n{}", token.unwrap_or_default());
        Ok(Self { address, headers })
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn half_open(&self, number: u64) -> Result<TcpStream, String> {
        let place = usize::try_from(number).unwrap_or(0) % BEGINNINGS.len();
        let beginning = BEGINNINGS.get(place).copied().unwrap_or_default();
        let open = || -> std::io::Result<TcpStream> {
            let mut stream = self.connect()?;
            stream.write_all(beginning.as_bytes())?;
            Ok(stream)
        };
        open().map_err(|error| error.to_string())
    }

    /// Answered, so that it is a reader; from then on it takes nothing.
    fn reader(&self, room: &str, number: u64) -> Result<TcpStream, String> {
        let (how, upgrade) = match number % 2 {
            0 => ("events", ""),
            _ => (
                "ws",
                "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            ),
        };
        let headers = &self.headers;
        let head = format!("GET /media/room/{room}/{how} HTTP/1.1\r\n{headers}{upgrade}\r\n");
        let open = || -> std::io::Result<(TcpStream, [u8; 12])> {
            let mut stream = self.connect()?;
            stream.write_all(head.as_bytes())?;
            let mut status = [0; 12];
            stream.read_exact(&mut status)?;
            Ok((stream, status))
        };
        let (stream, status) = open().map_err(|error| error.to_string())?;
        match &status {
            b"HTTP/1.1 200" | b"HTTP/1.1 101" => Ok(stream),
            other => Err(format!("answered {}", String::from_utf8_lossy(other))),
        }
    }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

/// A crowd of strangers before a server.
#[derive(Debug)]
pub(crate) struct Strangers<'a> {
    target: &'a Target,
    room: &'a str,
    crowd: Crowd,
    readers: Vec<TcpStream>,
    half_open: Vec<TcpStream>,
    /// How many were opened, so that each is another one.
    opened: u64,
    treatment: Treatment,
}

impl<'a> Strangers<'a> {
    /// Connects all of them; readers follow `room`.
    ///
    /// # Errors
    /// The first refusal: a server that does not take the crowd is not compared with itself.
    pub(crate) fn gather(target: &'a Target, room: &'a str, crowd: Crowd) -> Result<Self, String> {
        let mut strangers = Self {
            target,
            room,
            crowd,
            readers: Vec::new(),
            half_open: Vec::new(),
            opened: 0,
            treatment: Treatment::default(),
        };
        strangers.fill()?;
        Ok(strangers)
    }

    /// Opens as many as are missing, until one is not taken.
    fn fill(&mut self) -> Result<(), String> {
        while self.readers.len() < places(self.crowd.readers) {
            self.opened += 1;
            let reader = self.target.reader(self.room, self.opened);
            self.readers.push(reader.map_err(|why| format!("a reader of events: {why}"))?);
        }
        while self.half_open.len() < places(self.crowd.half_open) {
            self.opened += 1;
            let stream = self.target.half_open(self.opened);
            self.half_open.push(stream.map_err(|why| format!("a half-open connection: {why}"))?);
        }
        Ok(())
    }

    /// Keeps them until `stop` has no sender any more; what was done with them.
    pub(crate) fn keep(mut self, stop: &Receiver<()>) -> Treatment {
        while stop.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            self.treatment.readers_cut += without_cut(&mut self.readers);
            self.treatment.half_open_cut += without_cut(&mut self.half_open);
            if self.fill().is_err() {
                self.treatment.refused += 1;
            }
        }
        self.treatment
    }
}

/// Lets go of connections that the other end has closed; how many.
fn without_cut(streams: &mut Vec<TcpStream>) -> u64 {
    let mut looks: Vec<_> =
        streams.iter().map(|stream| PollFd::new(stream, PollFlags::RDHUP)).collect();
    // A look that fails is made again soon.
    if poll(&mut looks, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_err() {
        return 0;
    }
    let cut: Vec<bool> = looks.iter().map(|look| !look.revents().is_empty()).collect();
    let before = streams.len();
    let mut cut = cut.into_iter();
    streams.retain(|_| cut.next() != Some(true));
    u64::try_from(before - streams.len()).unwrap_or(0)
}

fn places(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Asks for metrics without a pause until `stop` has no sender any more; how often it was answered.
pub(crate) fn scrape<'scope>(
    scope: &'scope Scope<'scope, '_>,
    api: Api,
    stop: Receiver<()>,
) -> ScopedJoinHandle<'scope, u64> {
    scope.spawn(move || {
        let mut answered = 0;
        // A server without metrics is asked less often.
        let mut pause = Duration::ZERO;
        while stop.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            let is_answered = api.metrics().is_some();
            answered += u64::from(is_answered);
            pause = if is_answered { Duration::ZERO } else { LOOK_EVERY };
        }
        answered
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_target_is_read_or_refused_naming_its_flag() {
        for (url, port) in
            [("http://127.0.0.1:7", 7), ("http://127.0.0.1:7/", 7), ("http://127.0.0.1", 80)]
        {
            assert_eq!(Target::of(url, None).unwrap().address.port(), port, "{url}");
        }
        let target = Target::of("http://127.0.0.1:7", Some("k")).unwrap();
        assert_eq!(target.headers, "host: 127.0.0.1:7\r\nauthorization: Bearer k\r\n");
        for wrong in ["127.0.0.1:7", "https://127.0.0.1:7", "http://", "http://a b"] {
            assert!(Target::of(wrong, None).unwrap_err().contains("--url"), "{wrong}");
        }
    }

    #[test]
    fn who_is_cut_off_is_noticed_although_nothing_was_read() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = || TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let mut clients = vec![open(), open()];
        let mut served: Vec<_> = (0..2).map(|_| server.accept().unwrap().0).collect();
        served[1].write_all(b"never read").unwrap();
        assert_eq!(without_cut(&mut clients), 0);
        drop(served.remove(1));
        while without_cut(&mut clients) == 0 {}
        assert_eq!(clients.len(), 1);
        assert_eq!(clients[0].local_addr().unwrap(), served[0].peer_addr().unwrap());
    }

    #[test]
    fn a_server_that_refuses_a_reader_is_told_of() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        let target = Target::of(&url, None).unwrap();
        let crowd = Crowd { readers: 1, half_open: 0, scrapers: 0 };
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut asked = [0; 22];
            stream.read_exact(&mut asked).unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap();
            (asked, stream)
        });
        let refused = Strangers::gather(&target, "tea", crowd).unwrap_err();
        assert_eq!(refused, "a reader of events: answered HTTP/1.1 404");
        let (asked, _) = answering.join().unwrap();
        assert_eq!(&asked, b"GET /media/room/tea/ws");
    }
}
