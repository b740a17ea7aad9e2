//! ICE-TCP: passive connections whose frames (RFC 4571: two bytes of length) are datagrams.
//!
//! Owned by one shard, used on its thread. Every shard listens on the one port (`SO_REUSEPORT`), so
//! strangers are spread over the cores; the first frame must be a STUN request, whose ufrag names
//! the shard that gets the connection. Invariants: nothing blocks; a connection keeps at most one
//! partial frame and [`TCP_WRITE_BYTES_MAX`] to write; the number of connections is bounded, those
//! without a first frame give way to newer ones, and those whose address ICE has not validated in
//! time, or any more, are closed. It does not know what the frames mean.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{Timespec, epoll};
use slotmap::{DefaultKey, Key, KeyData, SlotMap};

use super::handoff::Adoption;
use crate::engine::io::{Path, Protocol, Received};
use crate::id::ShardId;
use crate::limits::{
    TCP_ACCEPTS_PER_TURN_MAX, TCP_CLAIM_TIMEOUT, TCP_CONNECTIONS_PER_SHARD_MAX,
    TCP_EVENTS_PER_TURN_MAX, TCP_FIRST_FRAME_BYTES_MAX, TCP_FRAME_BYTES_MAX, TCP_IDLE_TIMEOUT,
    TCP_READ_BYTES, TCP_STRANGERS_PER_SHARD_MAX, TCP_WRITE_BYTES_MAX,
};

/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 2;

/// The listener's word in epoll events; no slot-map key is zero.
const LISTENER: u64 = 0;

/// The ICE-TCP connections of one shard.
pub(crate) struct TcpConnections {
    epoll: OwnedFd,
    listener: Option<TcpListener>,
    /// False after `accept` found no descriptor left, until the next sweep.
    listening: bool,
    connections: SlotMap<DefaultKey, Connection>,
    by_path: HashMap<Path, DefaultKey>,
    strangers: usize,
    events: Vec<epoll::Event>,
    scratch: Box<[u8]>,
    ready: Vec<(DefaultKey, epoll::EventFlags)>,
}

struct Connection {
    stream: TcpStream,
    path: Path,
    stage: Stage,
    /// The beginning of a frame whose end has not arrived.
    partial: Vec<u8>,
    /// What the kernel would not take yet: whole frames, the first perhaps begun.
    unsent: Vec<u8>,
    since: Instant,
    heard: Instant,
}

/// `Stranger` (no first frame yet) → `Open` (its frames are the machine's).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Stranger,
    Open,
}

/// Where a connection belongs, by its first frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Belongs {
    /// To this shard.
    Here,
    /// To another shard.
    To(ShardId),
    /// To nobody: its first frame is no STUN request for a shard of ours.
    Nowhere,
}

/// Who hears what [`TcpConnections`] found, in order.
pub(crate) trait TcpSink {
    /// Where the connection of this first frame belongs; nowhere closes it.
    fn belongs(&self, first_frame: &[u8]) -> Belongs;
    /// True while the machine holds the path as validated.
    fn owns(&self, path: &Path) -> bool;
    /// Whole frames of one connection.
    fn frames<'a>(&mut self, frames: &mut dyn Iterator<Item = Received<'a>>);
    /// A connection that belongs to another shard; it is closed when that cannot take it.
    fn passed_on(&mut self, owner: ShardId, adoption: Box<Adoption>);
    /// A connection whose frames were the machine's has ended.
    fn closed(&mut self, path: Path);
}

/// The frames of `bytes`, of at most `max` bytes each, and how many bytes they take. `Err` when a
/// frame is longer.
fn frames_in(bytes: &[u8], max: usize) -> Result<usize, TooLong> {
    let mut end = 0;
    while let Some(rest) = bytes.get(end..) {
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else { break };
        let length = usize::from(u16::from_be_bytes(*length));
        if length > max {
            return Err(TooLong);
        }
        if rest.len() < length {
            break;
        }
        end += LENGTH_BYTES + length;
    }
    Ok(end)
}

#[derive(Debug, PartialEq, Eq)]
struct TooLong;

/// Each frame without its length; empty ones (which some clients send to keep alive) are skipped.
fn each_frame(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
        let (frame, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        bytes = rest;
        Some(frame)
    })
    .filter(|frame| !frame.is_empty())
}

impl TcpConnections {
    /// Connections of one shard, with the listener if this shard has one.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub(crate) fn new(listener: Option<TcpListener>) -> io::Result<Self> {
        let mut connections = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            listener,
            listening: false,
            connections: SlotMap::new(),
            by_path: HashMap::new(),
            strangers: 0,
            events: Vec::with_capacity(TCP_EVENTS_PER_TURN_MAX),
            scratch: vec![0; TCP_READ_BYTES].into_boxed_slice(),
            ready: Vec::with_capacity(TCP_EVENTS_PER_TURN_MAX),
        };
        connections.listen()?;
        Ok(connections)
    }

    fn listen(&mut self) -> io::Result<()> {
        if let Some(listener) = self.listener.as_ref().filter(|_| !self.listening) {
            let data = epoll::EventData::new_u64(LISTENER);
            epoll::add(&self.epoll, listener, data, epoll::EventFlags::IN)?;
            self.listening = true;
        }
        Ok(())
    }

    /// True when there is nothing to look after between events.
    pub(crate) fn is_empty(&self) -> bool {
        self.connections.is_empty() && (self.listening || self.listener.is_none())
    }

    /// Accepts, reads and writes whatever is ready, without waiting; true when more may be.
    pub(crate) fn handle_ready(&mut self, now: Instant, sink: &mut dyn TcpSink) -> bool {
        self.events.clear();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let space = rustix::buffer::spare_capacity(&mut self.events);
        if epoll::wait(&self.epoll, space, Some(&at_once)).is_err() {
            return false;
        }
        let full = self.events.len() == TCP_EVENTS_PER_TURN_MAX;
        let mut accept = false;
        for event in &self.events {
            let (data, flags) = (event.data.u64(), event.flags);
            if data == LISTENER {
                accept = true;
            } else {
                self.ready.push((DefaultKey::from(KeyData::from_ffi(data)), flags));
            }
        }
        let mut ready = std::mem::take(&mut self.ready);
        for (key, flags) in ready.drain(..) {
            if flags.contains(epoll::EventFlags::OUT) {
                self.handle_writable(key, sink);
            }
            if flags
                .intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
            {
                self.handle_readable(now, key, sink);
            }
        }
        self.ready = ready;
        if accept {
            self.accept(now, sink);
        }
        full
    }

    fn accept(&mut self, now: Instant, sink: &mut dyn TcpSink) {
        for _ in 0..TCP_ACCEPTS_PER_TURN_MAX {
            let Some(listener) = &self.listener else { return };
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(_) => {
                    // Out of descriptors or memory: the connection stays in the queue and would
                    // report itself for ever. Look again at the next sweep.
                    let _ = epoll::delete(&self.epoll, listener);
                    self.listening = false;
                    return;
                }
            };
            if self.strangers >= TCP_STRANGERS_PER_SHARD_MAX {
                self.drop_oldest_stranger(sink);
            }
            // A connection that fails this early is nobody's loss.
            let _ = self.admit(now, stream, Stage::Stranger, sink);
        }
    }

    fn drop_oldest_stranger(&mut self, sink: &mut dyn TcpSink) {
        let strangers = self.connections.iter().filter(|(_, c)| c.stage == Stage::Stranger);
        if let Some(oldest) = strangers.min_by_key(|(_, c)| c.since).map(|(key, _)| key) {
            self.close(oldest, sink);
        }
    }

    fn admit(
        &mut self,
        now: Instant,
        stream: TcpStream,
        stage: Stage,
        sink: &mut dyn TcpSink,
    ) -> io::Result<DefaultKey> {
        if self.connections.len() >= TCP_CONNECTIONS_PER_SHARD_MAX {
            return Err(ErrorKind::QuotaExceeded.into());
        }
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let mut remote = stream.peer_addr()?;
        remote.set_ip(remote.ip().to_canonical());
        let local = stream.local_addr()?.ip().to_canonical();
        let path = Path { protocol: Protocol::Tcp, remote, local };
        // The same four numbers again: the connection we know is dead.
        if let Some(dead) = self.by_path.get(&path).copied() {
            self.close(dead, sink);
        }
        let fresh = Connection {
            stream,
            path,
            stage,
            partial: Vec::new(),
            unsent: Vec::new(),
            since: now,
            heard: now,
        };
        let key = self.connections.insert(fresh);
        let data = epoll::EventData::new_u64(key.data().as_ffi());
        if let Some(connection) = self.connections.get(key) {
            let added = epoll::add(&self.epoll, &connection.stream, data, epoll::EventFlags::IN);
            if let Err(error) = added {
                self.connections.remove(key);
                return Err(error.into());
            }
        }
        self.strangers += usize::from(stage == Stage::Stranger);
        self.by_path.insert(path, key);
        Ok(key)
    }

    /// Takes over a connection that another shard accepted.
    pub(crate) fn adopt(&mut self, now: Instant, adoption: Adoption, sink: &mut dyn TcpSink) {
        let Adoption { stream, bytes } = adoption;
        if let Ok(key) = self.admit(now, stream, Stage::Open, sink) {
            self.take_bytes(key, &bytes, sink);
            self.close_unproven(key, sink);
        }
    }

    fn handle_readable(&mut self, now: Instant, key: DefaultKey, sink: &mut dyn TcpSink) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let kept = connection.partial.len();
        let Some((head, tail)) = self.scratch.split_at_mut_checked(kept) else { return };
        head.copy_from_slice(&connection.partial);
        match connection.stream.read(tail) {
            Ok(count) if count > 0 => {
                connection.heard = now;
                // Lent out, so that the sink may be handed slices of it.
                let scratch = std::mem::take(&mut self.scratch);
                self.take_bytes(key, scratch.get(..kept + count).unwrap_or_default(), sink);
                self.scratch = scratch;
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Ok(_) | Err(_) => self.close(key, sink),
        }
    }

    /// All bytes of a connection that make no part of an earlier frame.
    fn take_bytes(&mut self, key: DefaultKey, bytes: &[u8], sink: &mut dyn TcpSink) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let first = connection.stage == Stage::Stranger;
        let longest = if first { TCP_FIRST_FRAME_BYTES_MAX } else { TCP_FRAME_BYTES_MAX };
        if first {
            let Some(frame) = each_frame(bytes).next() else {
                // A stranger that sends many bytes and no frame holds one partial frame at most.
                return match frames_in(bytes, longest) {
                    Ok(end) => keep_partial(connection, bytes.get(end..).unwrap_or_default()),
                    Err(TooLong) => self.close(key, sink),
                };
            };
            if frame.len() > longest {
                return self.close(key, sink);
            }
            match sink.belongs(frame) {
                Belongs::Here => {
                    connection.stage = Stage::Open;
                    self.strangers = self.strangers.saturating_sub(1);
                }
                Belongs::To(owner) => return self.pass_on(key, owner, bytes, sink),
                Belongs::Nowhere => return self.close(key, sink),
            }
        }
        let Ok(end) = frames_in(bytes, TCP_FRAME_BYTES_MAX) else { return self.close(key, sink) };
        let Some((whole, partial)) = bytes.split_at_checked(end) else { return };
        let path = connection.path;
        // A stream has no time of its frames: they came when they were read.
        let arrival = connection.heard;
        keep_partial(connection, partial);
        sink.frames(&mut each_frame(whole).map(|bytes| Received { path, arrival, bytes }));
        if first {
            self.close_unproven(key, sink);
        }
    }

    /// Closes a connection whose first request validated nothing: anyone can make up a user name
    /// that looks like one of ours.
    fn close_unproven(&mut self, key: DefaultKey, sink: &mut dyn TcpSink) {
        if self.connections.get(key).is_some_and(|connection| !sink.owns(&connection.path)) {
            self.close(key, sink);
        }
    }

    fn handle_writable(&mut self, key: DefaultKey, sink: &mut dyn TcpSink) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match connection.stream.write(&connection.unsent) {
            Ok(count) => {
                connection.unsent.drain(..count.min(connection.unsent.len()));
                if connection.unsent.is_empty() {
                    connection.unsent = Vec::new();
                    let _ = self.watch(key, epoll::EventFlags::IN);
                }
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.close(key, sink),
        }
    }

    /// Sends one datagram as a frame; false when it was dropped, because the connection is gone or
    /// its buffer full.
    pub(crate) fn send(&mut self, path: &Path, frame: &[u8]) -> bool {
        let Some(key) = self.by_path.get(path).copied() else { return false };
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let Ok(length) = u16::try_from(frame.len()) else { return false };
        let length = length.to_be_bytes();
        let total = LENGTH_BYTES + frame.len();
        if !connection.unsent.is_empty() {
            let fits = connection.unsent.len() + total <= TCP_WRITE_BYTES_MAX;
            if fits {
                connection.unsent.extend(length);
                connection.unsent.extend(frame);
            }
            return fits;
        }
        let parts = [IoSlice::new(&length), IoSlice::new(frame)];
        // An error that is not "would block" shows again as a readable event, which closes.
        let taken = connection.stream.write_vectored(&parts).unwrap_or(0);
        if taken < total {
            let whole = length.iter().chain(frame).copied();
            connection.unsent.extend(whole.skip(taken));
            let _ = self.watch(key, epoll::EventFlags::IN | epoll::EventFlags::OUT);
        }
        true
    }

    /// Once a second: closes what is idle, never spoke, or is not (any longer) a validated path.
    pub(crate) fn sweep(&mut self, now: Instant, sink: &mut dyn TcpSink) {
        let age = |then: Instant| now.saturating_duration_since(then);
        let over = |connection: &Connection| {
            let claimed = connection.stage == Stage::Open && sink.owns(&connection.path);
            (!claimed && age(connection.since) >= TCP_CLAIM_TIMEOUT)
                || age(connection.heard) >= TCP_IDLE_TIMEOUT
        };
        let connections = self.connections.iter();
        let ended: Vec<_> =
            connections.filter(|(_, connection)| over(connection)).map(|(key, _)| key).collect();
        for key in ended {
            self.close(key, sink);
        }
        // Refused again only when descriptors are still short: the next sweep tries again.
        let _ = self.listen();
    }

    fn watch(&self, key: DefaultKey, flags: epoll::EventFlags) -> io::Result<()> {
        if let Some(connection) = self.connections.get(key) {
            let data = epoll::EventData::new_u64(key.data().as_ffi());
            epoll::modify(&self.epoll, &connection.stream, data, flags)?;
        }
        Ok(())
    }

    fn pass_on(&mut self, key: DefaultKey, owner: ShardId, bytes: &[u8], sink: &mut dyn TcpSink) {
        let Some(Connection { stream, .. }) = self.remove(key) else { return };
        sink.passed_on(owner, Box::new(Adoption { stream, bytes: bytes.to_vec() }));
    }

    fn close(&mut self, key: DefaultKey, sink: &mut dyn TcpSink) {
        let Some(connection) = self.remove(key) else { return };
        if connection.stage == Stage::Open {
            sink.closed(connection.path);
        }
    }

    fn remove(&mut self, key: DefaultKey) -> Option<Connection> {
        let connection = self.connections.remove(key)?;
        // Explicitly: a passed-on descriptor stays open and would go on reporting here.
        let _ = epoll::delete(&self.epoll, &connection.stream);
        self.by_path.remove(&connection.path);
        self.strangers -= usize::from(connection.stage == Stage::Stranger);
        Some(connection)
    }
}

impl AsFd for TcpConnections {
    /// Readable when [`handle_ready`](Self::handle_ready) has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn keep_partial(connection: &mut Connection, partial: &[u8]) {
    connection.partial.clear();
    connection.partial.extend_from_slice(partial);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(frames: &[&[u8]]) -> Vec<u8> {
        let framed = |frame: &&[u8]| {
            let length = u16::try_from(frame.len()).unwrap().to_be_bytes();
            [&length, *frame].concat()
        };
        frames.iter().flat_map(framed).collect()
    }

    #[test]
    fn frames_are_found_whole_and_empty_ones_are_skipped() {
        let bytes = framed(&[b"one", b"", b"three"]);
        for (cut, end, expected) in [
            (bytes.len(), bytes.len(), vec![&b"one"[..], b"three"]),
            (bytes.len() - 1, 7, vec![b"one"]),
            (8, 7, vec![b"one"]),
            (4, 0, vec![]),
            (1, 0, vec![]),
        ] {
            let seen = &bytes[..cut];
            assert_eq!(frames_in(seen, 5), Ok(end), "cut at {cut}");
            assert_eq!(each_frame(&seen[..end]).collect::<Vec<_>>(), expected, "cut at {cut}");
        }
        assert_eq!(frames_in(&bytes, 4), Err(TooLong));
    }

    /// Takes everything, owns what `owned` says, notes what is closed.
    #[derive(Default)]
    struct Notes {
        owned: bool,
        frames: usize,
        closed: usize,
    }

    impl TcpSink for Notes {
        fn belongs(&self, _first_frame: &[u8]) -> Belongs {
            Belongs::Here
        }
        fn owns(&self, _path: &Path) -> bool {
            self.owned
        }
        fn frames<'a>(&mut self, frames: &mut dyn Iterator<Item = Received<'a>>) {
            self.frames += frames.count();
        }
        fn passed_on(&mut self, _owner: ShardId, _adoption: Box<Adoption>) {}
        fn closed(&mut self, _path: Path) {
            self.closed += 1;
        }
    }

    /// Handles what arrives until `done`.
    fn serve(
        tcp: &mut TcpConnections,
        now: Instant,
        notes: &mut Notes,
        done: fn(&Notes, usize) -> bool,
    ) {
        while !done(notes, tcp.connections.len()) {
            let timeout = Timespec { tv_sec: 5, tv_nsec: 0 };
            let mut fds = [rustix::event::PollFd::new(tcp, rustix::event::PollFlags::IN)];
            assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1));
            tcp.handle_ready(now, notes);
        }
    }

    #[test]
    fn a_connection_lives_while_it_is_heard_and_its_path_is_validated() {
        let second = std::time::Duration::from_secs(1);
        // Sends a frame, which validates its path: alive just before, gone at; the machine is told.
        for (speaks, lives, told) in [(false, TCP_CLAIM_TIMEOUT, 0), (true, TCP_IDLE_TIMEOUT, 1)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let mut tcp = TcpConnections::new(Some(listener)).unwrap();
            let mut notes = Notes { owned: true, ..Notes::default() };
            #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
            let start = Instant::now();
            serve(&mut tcp, start, &mut notes, |_, connections| connections == 1);
            if speaks {
                client.write_all(&framed(&[b"hello"])).unwrap();
                serve(&mut tcp, start, &mut notes, |notes, _| notes.frames == 1);
            }
            tcp.sweep(start + lives - second, &mut notes);
            assert_eq!((tcp.connections.len(), notes.closed), (1, 0), "{speaks}");
            tcp.sweep(start + lives, &mut notes);
            assert_eq!((tcp.connections.len(), notes.closed), (0, told), "{speaks}");
            assert_eq!((tcp.strangers, tcp.by_path.len()), (0, 0));
        }
    }

    #[test]
    fn a_connection_whose_first_request_proves_nothing_is_closed_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut tcp = TcpConnections::new(Some(listener)).unwrap();
        let mut notes = Notes::default();
        #[expect(clippy::disallowed_methods, reason = "a test needs some first instant")]
        let start = Instant::now();
        client.write_all(&framed(&[b"hello"])).unwrap();
        serve(&mut tcp, start, &mut notes, |notes, _| notes.frames == 1);
        assert_eq!((tcp.connections.len(), notes.closed), (0, 1));
        assert_eq!((tcp.strangers, tcp.by_path.len()), (0, 0));
    }

    proptest! {
        #[test]
        fn framing_survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
            if let Ok(end) = frames_in(&bytes, 4096) {
                prop_assert!(end <= bytes.len());
                let frames: usize = each_frame(&bytes[..end]).map(<[u8]>::len).sum();
                prop_assert!(frames <= end);
            }
        }
    }
}
