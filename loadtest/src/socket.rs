//! The sockets of the clients, one each: `recvmmsg` with `UDP_GRO`, `sendmmsg`, and `epoll` to wait.
//!
//! Each socket is connected to the server, owned by one endpoint and used on its worker's thread.
//! Invariants: no call blocks but [`Poller::wait`]; pointers given to the kernel are made anew for
//! each call and outlive none. The only file with `unsafe`. It does not know what the bytes mean.
//! Not under Miri, which knows none of these system calls; the tests below run them for real.
//!
//! Publishers send without `UDP_SEGMENT`, as browsers do.
#![expect(
    unsafe_code,
    reason = "recvmmsg, sendmmsg, epoll and socket options have no safe wrapper"
)]

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::{mem, ptr};

/// Bytes of a slot with `UDP_GRO`: the kernel joins up to 64 KiB and truncates silently.
const SLOT_BYTES_GRO: usize = 64 * 1024;

/// Bytes of a slot without `UDP_GRO`: Ethernet's payload and to spare.
const SLOT_BYTES_PLAIN: usize = 2048;

/// Messages per `recvmmsg`, with and without `UDP_GRO`.
const SLOTS_GRO: usize = 4;
const SLOTS_PLAIN: usize = 16;

/// Datagrams per `sendmmsg`.
const SEND_BATCH: usize = 64;

/// Room for the segment size and the time stamp of a message; `u64` for its alignment.
const CONTROL_WORDS: usize = 12;

/// What the generator asks for each socket; enough for a burst of some hundred packets.
const BUFFER_BYTES: libc::c_int = 4 * 1024 * 1024;

/// `SO_MEMINFO` of `asm-generic/socket.h`, which the libc crate does not name.
const SO_MEMINFO: libc::c_int = 55;

/// One client's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: UdpSocket,
    gro: bool,
    drops_told: u32,
    /// How often the kernel said that the server's port is closed.
    refusals: Cell<u64>,
}

/// What sockets are opened with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketOptions {
    /// Ask the kernel to join datagrams.
    pub(crate) gro: bool,
    /// Ask the kernel for a time stamp of every message.
    pub(crate) kernel_stamps: bool,
}

impl Socket {
    /// A socket connected to `remote`.
    pub(crate) fn connect(remote: SocketAddr, options: SocketOptions) -> io::Result<Self> {
        let any: SocketAddr = match remote {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(remote)?;
        socket.set_nonblocking(true)?;
        let fd = socket.as_raw_fd();
        for (forced, plain) in
            [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
        {
            // Smaller buffers drop earlier, and drops are counted: no reason not to start.
            if set_option(fd, libc::SOL_SOCKET, forced, BUFFER_BYTES).is_err() {
                let _ = set_option(fd, libc::SOL_SOCKET, plain, BUFFER_BYTES);
            }
        }
        let gro = options.gro && set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        if options.kernel_stamps {
            set_option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        }
        Ok(Self { socket, gro, drops_told: 0, refusals: Cell::new(0) })
    }

    /// Its own address.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// True when the kernel joins datagrams for it.
    pub(crate) fn has_gro(&self) -> bool {
        self.gro
    }

    /// Sends one datagram; true when the kernel took it, or would have but for the server's port,
    /// which is closed: that is no fault of ours, and counted apart ([`Self::new_refusals`]).
    pub(crate) fn send(&self, datagram: &[u8]) -> bool {
        self.socket.send(datagram).map_or_else(|error| self.is_refusal(&error), |_| true)
    }

    /// True, and noted, for an error that only says that the port at the other end is closed.
    fn is_refusal(&self, error: &io::Error) -> bool {
        let refused = error.kind() == io::ErrorKind::ConnectionRefused;
        self.refusals.set(self.refusals.get() + u64::from(refused));
        refused
    }

    /// Datagrams since this was last asked of which came back that the server's port is closed.
    pub(crate) fn new_refusals(&self) -> u64 {
        self.refusals.take()
    }

    /// Sends datagrams in order with one call per [`SEND_BATCH`]; returns how many the kernel took,
    /// as [`send`](Self::send) understands it.
    pub(crate) fn send_all<'a>(&self, datagrams: impl Iterator<Item = &'a [u8]>) -> usize {
        let mut taken = 0;
        let mut datagrams = datagrams.peekable();
        while datagrams.peek().is_some() {
            let mut vectors =
                [const { libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 } }; SEND_BATCH];
            let mut count = 0;
            for (vector, datagram) in vectors.iter_mut().zip(datagrams.by_ref().take(SEND_BATCH)) {
                vector.iov_base = datagram.as_ptr().cast_mut().cast();
                vector.iov_len = datagram.len();
                count += 1;
            }
            taken += self.send_vectors(&mut vectors, count);
        }
        taken
    }

    fn send_vectors(&self, vectors: &mut [libc::iovec; SEND_BATCH], count: usize) -> usize {
        // SAFETY: `mmsghdr` is plain data for which all zeros are valid: no name, no control data.
        let mut headers: [libc::mmsghdr; SEND_BATCH] = unsafe { mem::zeroed() };
        for (header, vector) in headers.iter_mut().zip(vectors) {
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        let mut done = 0;
        while let Some(rest) = headers.get_mut(done..count).filter(|rest| !rest.is_empty()) {
            let (fd, length) = (self.socket.as_raw_fd(), u32::try_from(rest.len()).unwrap_or(0));
            // SAFETY: the headers of `rest` point at vectors of this frame, and those at slices
            // that outlive the call; the kernel only reads them.
            let sent = unsafe { libc::sendmmsg(fd, rest.as_mut_ptr(), length, libc::MSG_DONTWAIT) };
            match usize::try_from(sent) {
                Ok(sent) if sent > 0 => done += sent,
                // What it tells of an earlier datagram costs the next one.
                Err(_) if self.is_refusal(&io::Error::last_os_error()) => done += 1,
                _ => break,
            }
        }
        done
    }

    /// Reads what waits, at most `most` messages and one batch; returns how many. Fewer than asked
    /// for means that nothing is left.
    pub(crate) fn receive(&self, batch: &mut Batch, most: usize) -> usize {
        batch.fill(self.socket.as_raw_fd(), most).unwrap_or_else(|error| {
            self.is_refusal(&error);
            0
        })
    }

    /// Datagrams dropped since this was last asked.
    pub(crate) fn new_drops(&mut self) -> u32 {
        let drops = self.drops();
        drops.wrapping_sub(mem::replace(&mut self.drops_told, drops))
    }

    /// Datagrams that the kernel dropped because the socket was full.
    pub(crate) fn drops(&self) -> u32 {
        let mut words = [0_u32; 9];
        let mut length: libc::socklen_t = 36;
        // SAFETY: pointer and length name the local array, which the kernel fills at most.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_MEMINFO,
                words.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let [.., drops] = words;
        if result == 0 { drops } else { 0 }
    }
}

fn set_option(fd: RawFd, level: i32, kind: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: pointer and length name the local `value`, which the kernel reads during the call.
    let result = unsafe { libc::setsockopt(fd, level, kind, (&raw const value).cast(), 4) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One received message: a datagram, or several equal ones that the kernel joined.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    /// Its bytes.
    pub(crate) bytes: &'a mut [u8],
    /// Bytes of each datagram in it but the last; never zero.
    pub(crate) segment: usize,
    /// The kernel's receive time, ns since 1970, where asked for.
    pub(crate) kernel_unix: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Filled {
    length: usize,
    segment: usize,
    kernel_unix: Option<u64>,
}

/// Reused receive slots of one worker.
#[derive(Debug)]
pub(crate) struct Batch {
    buffer: Vec<u8>,
    slot_bytes: usize,
    filled: Vec<Filled>,
    slots: usize,
}

impl Batch {
    /// Slots for sockets with or without `UDP_GRO`.
    pub(crate) fn new(gro: bool) -> Self {
        let (slots, slot_bytes) =
            if gro { (SLOTS_GRO, SLOT_BYTES_GRO) } else { (SLOTS_PLAIN, SLOT_BYTES_PLAIN) };
        let buffer = vec![0; slots * slot_bytes];
        Self { buffer, slot_bytes, filled: Vec::with_capacity(slots), slots }
    }

    /// Messages it holds at most.
    pub(crate) fn capacity(&self) -> usize {
        self.slots
    }

    /// What the last call received.
    pub(crate) fn messages(&mut self) -> impl Iterator<Item = Message<'_>> {
        let slots = self.buffer.chunks_exact_mut(self.slot_bytes);
        slots.zip(&self.filled).filter_map(|(slot, filled)| {
            let bytes = slot.get_mut(..filled.length)?;
            let segment = filled.segment.max(1);
            Some(Message { bytes, segment, kernel_unix: filled.kernel_unix })
        })
    }

    fn fill(&mut self, fd: RawFd, most: usize) -> io::Result<usize> {
        self.filled.clear();
        let mut control = [[0_u64; CONTROL_WORDS]; SLOTS_PLAIN];
        let mut vectors =
            [const { libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 } }; SLOTS_PLAIN];
        // SAFETY: `mmsghdr` is plain data for which all zeros are valid.
        let mut headers: [libc::mmsghdr; SLOTS_PLAIN] = unsafe { mem::zeroed() };
        let slots = self.buffer.chunks_exact_mut(self.slot_bytes);
        let frames = headers.iter_mut().zip(&mut vectors).zip(&mut control);
        let mut count = 0;
        for (((header, vector), control), slot) in frames.zip(slots).take(most) {
            *vector = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = size_of_val(control);
            count += 1;
        }
        // SAFETY: `count` headers point at vectors and control words of this frame and at disjoint
        // slots of `self.buffer`, all of which outlive the call.
        let received = unsafe {
            libc::recvmmsg(fd, headers.as_mut_ptr(), count, libc::MSG_DONTWAIT, ptr::null_mut())
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for header in headers.iter().take(received) {
            let length = usize::try_from(header.msg_len).unwrap_or(0);
            let (segment, kernel_unix) = read_control(&header.msg_hdr);
            let segment = segment.unwrap_or(length);
            self.filled.push(Filled { length, segment, kernel_unix });
        }
        Ok(received)
    }
}

/// Lets the calling thread sleep, to the precision that [`Poller::new`] asked for.
pub(crate) fn nap(nanoseconds: u64) {
    if nanoseconds == 0 {
        return;
    }
    let time = timespec(nanoseconds);
    // SAFETY: the kernel reads the local `time` during the call; what would be left after a signal
    // is not asked for.
    unsafe {
        libc::nanosleep(&raw const time, ptr::null_mut());
    }
}

fn timespec(nanoseconds: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(1),
        tv_nsec: i64::try_from(nanoseconds % 1_000_000_000).unwrap_or(0),
    }
}

/// Raises the number of descriptors that this process may have to its hard limit, and returns it.
pub(crate) fn raise_descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls name the local `limit`, which the first fills and the second reads.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return 0;
        }
        let hard = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const hard) == 0 {
            hard.rlim_cur
        } else {
            limit.rlim_cur
        }
    }
}

/// Segment size and receive time of a received message.
fn read_control(header: &libc::msghdr) -> (Option<usize>, Option<u64>) {
    let (mut segment, mut stamp) = (None, None);
    // SAFETY: the header was filled by recvmmsg and its control words live in the caller's frame;
    // CMSG_* walk within `msg_controllen`. Payloads are read unaligned, of the types the kernel
    // writes for these two kinds.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = next.as_ref() {
            let data = libc::CMSG_DATA(message);
            match (message.cmsg_level, message.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    segment = usize::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time = data.cast::<libc::timespec>().read_unaligned();
                    stamp = u64::try_from(time.tv_sec)
                        .ok()
                        .zip(u64::try_from(time.tv_nsec).ok())
                        .map(|(seconds, nanoseconds)| seconds * 1_000_000_000 + nanoseconds);
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(header, message);
        }
    }
    (segment, stamp)
}

/// Waits for sockets of one worker, with nanosecond deadlines.
#[derive(Debug)]
pub(crate) struct Poller {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    /// A poller without sockets, for the calling thread; makes its timers precise.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: plain system calls without pointers; the descriptor is owned by nobody else.
        let fd = unsafe {
            libc::prctl(libc::PR_SET_TIMERSLACK, 1_000_u64);
            libc::epoll_create1(libc::EPOLL_CLOEXEC)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just created, see above.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; 256] })
    }

    /// Adds a socket under a token.
    pub(crate) fn add(&self, socket: &Socket, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: token };
        let (epoll, fd) = (self.fd.as_raw_fd(), socket.socket.as_raw_fd());
        // SAFETY: the kernel copies the event during the call.
        let result = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits at most `nanoseconds`, then returns the tokens of readable sockets.
    pub(crate) fn wait(&mut self, nanoseconds: u64) -> impl Iterator<Item = u64> {
        let timeout = timespec(nanoseconds);
        // SAFETY: the kernel fills at most as many events as the vector holds, and reads the
        // timeout; no signal mask is given.
        let ready = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len(),
                &raw const timeout,
                ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        self.events.iter().take(usize::try_from(ready).unwrap_or(0)).map(|event| event.u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(options: SocketOptions) -> (UdpSocket, Socket) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = Socket::connect(server.local_addr().unwrap(), options).unwrap();
        server.connect(socket.local_address().unwrap()).unwrap();
        (server, socket)
    }

    #[test]
    fn datagrams_come_out_as_they_went_in_with_and_without_gro() {
        for gro in [false, true] {
            let (server, socket) = pair(SocketOptions { gro, kernel_stamps: gro });
            let mut poller = Poller::new().unwrap();
            poller.add(&socket, 42).unwrap();
            assert_eq!(poller.wait(0).count(), 0);
            let segment: libc::c_int = 1_000;
            if gro {
                let fd = server.as_raw_fd();
                set_option(fd, libc::SOL_UDP, libc::UDP_SEGMENT, segment).unwrap();
                server.send(&[7; 3_500]).unwrap();
            } else {
                for length in [1_000, 1_000, 1_000, 500] {
                    server.send(&vec![7; length]).unwrap();
                }
            }
            assert_eq!(poller.wait(1_000_000_000).collect::<Vec<_>>(), [42]);
            let mut batch = Batch::new(gro);
            let messages = socket.receive(&mut batch, usize::MAX);
            assert_eq!(messages, if gro { 1 } else { 4 });
            let lengths: Vec<_> = batch
                .messages()
                .flat_map(|message| {
                    assert_eq!(message.kernel_unix.is_some(), gro);
                    message.bytes.chunks(message.segment).map(<[u8]>::len).collect::<Vec<_>>()
                })
                .collect();
            assert_eq!(lengths, [1_000, 1_000, 1_000, 500]);
            assert_eq!(socket.receive(&mut batch, 1), 0);
            assert_eq!(socket.drops(), 0);
        }
    }

    #[test]
    fn a_batch_of_any_length_is_sent_in_order() {
        let (server, socket) = pair(SocketOptions { gro: true, kernel_stamps: false });
        let datagrams: Vec<_> = (0..150_u8).map(|n| vec![n; 20]).collect();
        assert_eq!(socket.send_all(datagrams.iter().map(Vec::as_slice)), 150);
        for n in 0..150 {
            let mut buffer = [0; 64];
            assert_eq!(server.recv(&mut buffer).unwrap(), 20);
            assert_eq!(buffer[0], n);
        }
    }

    #[test]
    fn no_more_is_read_than_asked_for_and_the_rest_waits() {
        let (server, socket) = pair(SocketOptions { gro: false, kernel_stamps: true });
        for length in [10, 20, 30] {
            server.send(&vec![7; length]).unwrap();
        }
        let mut batch = Batch::new(false);
        let mut lengths = Vec::new();
        for most in [1, 5, 5] {
            socket.receive(&mut batch, most);
            lengths.push(batch.messages().map(|message| message.bytes.len()).collect::<Vec<_>>());
        }
        assert_eq!(lengths, [vec![10], vec![20, 30], vec![]]);
    }

    #[test]
    fn a_process_may_have_as_many_descriptors_as_its_hard_limit_says() {
        let limit = raise_descriptors();
        assert!(limit > 0);
        assert_eq!(raise_descriptors(), limit);
    }

    #[test]
    fn a_closed_port_is_told_apart_from_what_could_not_be_sent() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let options = SocketOptions { gro: false, kernel_stamps: false };
        let socket = Socket::connect(server.local_addr().unwrap(), options).unwrap();
        assert!(socket.send(b"x"));
        assert_eq!(socket.new_refusals(), 0);
        drop(server);
        for _ in 0..4 {
            assert!(socket.send(b"x"));
        }
        let packet: &[u8] = b"y";
        assert_eq!(socket.send_all(std::iter::repeat_n(packet, 100)), 100);
        assert!(socket.new_refusals() > 0);
        assert!(socket.send(b"x"));
        let mut batch = Batch::new(false);
        assert_eq!(socket.receive(&mut batch, 4), 0);
        assert_eq!((socket.new_refusals(), socket.new_refusals()), (1, 0));
    }

    #[test]
    fn what_a_full_socket_loses_is_counted() {
        let (server, mut socket) = pair(SocketOptions { gro: false, kernel_stamps: false });
        let fd = socket.socket.as_raw_fd();
        set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 1).unwrap();
        for _ in 0..100 {
            server.send(&[0; 1_000]).unwrap();
        }
        assert!(socket.drops() > 50);
        assert_eq!(socket.new_drops(), socket.drops());
        assert_eq!(socket.new_drops(), 0);
    }
}
