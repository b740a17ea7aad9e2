//! The UDP socket of a shard: `recvmmsg` with `UDP_GRO`, `sendmmsg` of `UDP_SEGMENT` trains.
//!
//! Bound by the node, then owned by one shard and used on its thread only. Invariants: no call
//! blocks, but for one wait of at most [`SEND_WAIT_MAX`] per batch when the send buffer is full;
//! slots are allocated once; pointers given to the kernel are made anew for each call and outlive
//! none. With `bpf`, the only file with `unsafe`. It does not know what the bytes mean.
//!
//! Not under Miri, which knows none of these system calls; the tests below run them for real.
#![expect(unsafe_code, reason = "recvmmsg, sendmmsg and four socket options have no safe wrapper")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::control_message::{NAME_LENGTH, RECEIVE_CONTROL_BYTES};
use super::run::ClockPair;
use super::slots::{ReceiveSlots, SendSlots};
use crate::engine::io::{Protocol, Train, TransmitBatch};
use crate::engine::report::TrainSizes;
use crate::limits::{PLAIN_HOSTS_MAX, SEND_WAIT_MAX, SOCKET_BUFFER_BYTES, TRAINS_PER_BATCH_MAX};

/// A non-blocking UDP socket in the `SO_REUSEPORT` group of its port.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    fd: OwnedFd,
    v6: bool,
    gso: bool,
    gro: bool,
    /// Hosts whose route takes no trains.
    plain: Vec<IpAddr>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Datagrams the kernel took.
    pub(crate) datagrams: u64,
    /// Messages it took them in.
    pub(crate) messages: u64,
    /// Those messages by their number of segments.
    pub(crate) trains: TrainSizes,
    /// Trains that had to go datagram by datagram.
    pub(crate) refused: u64,
    /// Datagrams it refused.
    pub(crate) failed: u64,
}

impl Sent {
    fn note(&mut self, segments: usize) {
        self.datagrams += segments as u64;
        self.messages += 1;
        self.trains.add(segments);
    }
}

impl UdpSocket {
    /// Binds and prepares a socket; `exclusive` leaves it out of any `SO_REUSEPORT` group, to learn
    /// whether the port is free.
    ///
    /// # Errors
    /// What the kernel says; refused buffer sizes are logged, not returned.
    pub(crate) fn bind(address: SocketAddr, exclusive: bool) -> io::Result<Self> {
        let v6 = address.is_ipv6();
        let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP))?;
        if v6 {
            sockopt::set_ipv6_v6only(&fd, !address.ip().is_unspecified())?;
        }
        if !exclusive {
            sockopt::set_socket_reuseport(&fd, true)?;
        }
        rustix::net::bind(&fd, &address)?;
        let mut socket = Self { fd, v6, gso: false, gro: false, plain: Vec::new() };
        let (level, kind) = if v6 {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
        } else {
            (libc::IPPROTO_IP, libc::IP_PKTINFO)
        };
        socket.set_option(level, kind, 1)?;
        // The rest are counters, times and speed: a kernel without them serves as well.
        let _ = socket.set_option(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
        let _ = socket.set_option(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
        socket.gro = socket.set_option(libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        // Zero leaves the socket as it is: a kernel that takes the option knows the feature.
        socket.gso = socket.set_option(libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        Ok(socket)
    }

    /// Asks for [`SOCKET_BUFFER_BYTES`] both ways; returns the sysctls that stand in the way.
    pub(crate) fn grow_buffers(&self) -> Vec<&'static str> {
        let (fd, bytes) = (&self.fd, SOCKET_BUFFER_BYTES);
        if sockopt::set_socket_recv_buffer_size_force(fd, bytes).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(fd, bytes);
        }
        if sockopt::set_socket_send_buffer_size_force(fd, bytes).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(fd, bytes);
        }
        [
            ("net.core.rmem_max", sockopt::socket_recv_buffer_size(fd)),
            ("net.core.wmem_max", sockopt::socket_send_buffer_size(fd)),
        ]
        .into_iter()
        .filter(|(_, size)| size.as_ref().is_ok_and(|size| *size < bytes))
        .map(|(sysctl, _)| sysctl)
        .collect()
    }

    fn set_option(&self, level: i32, kind: i32, value: i32) -> io::Result<()> {
        const I32_BYTES: libc::socklen_t = 4;
        // SAFETY: the pointer and length name the local `value`, which the kernel only reads, and
        // during the call only.
        let result = unsafe {
            libc::setsockopt(self.fd.as_raw_fd(), level, kind, (&raw const value).cast(), I32_BYTES)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The address it is bound to.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        let address = rustix::net::getsockname(&self.fd)?;
        SocketAddr::try_from(address).map_err(io::Error::from)
    }

    /// True while trains may have more than one segment.
    pub(crate) fn has_gso(&self) -> bool {
        self.gso
    }

    /// True when the kernel may join received datagrams.
    pub(crate) fn has_gro(&self) -> bool {
        self.gro
    }

    /// Reads what is waiting, at most one batch, into the slots; returns how many messages.
    /// Zero when nothing waits, also after an error, which on an unbound-peer socket concerns an
    /// earlier datagram.
    pub(crate) fn recv_batch(&self, slots: &mut ReceiveSlots) -> usize {
        slots.filled = 0;
        let slot_bytes = slots.slot_bytes;
        let mut buffers = slots.buffer.chunks_exact_mut(slot_bytes);
        for (slot, header) in slots.slots.iter_mut().zip(&mut slots.headers) {
            let buffer = buffers.next().unwrap_or_default();
            slot.iovec =
                libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            header.msg_len = 0;
            let message = &mut header.msg_hdr;
            message.msg_name = slot.name.as_mut_ptr().cast();
            message.msg_namelen = NAME_LENGTH;
            message.msg_iov = &raw mut slot.iovec;
            message.msg_iovlen = 1;
            message.msg_control = slot.control.as_mut_ptr().cast();
            message.msg_controllen = RECEIVE_CONTROL_BYTES;
            message.msg_flags = 0;
        }
        let count = libc::c_uint::try_from(slots.headers.len()).unwrap_or(0);
        // SAFETY: every header points to its own slot's name, control and iovec, and that to its
        // own chunk of the buffer, with their true lengths; all live in `slots`, which is borrowed
        // mutably during the call, and none is moved before it returns.
        let received = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                slots.headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        slots.filled = usize::try_from(received).unwrap_or(0);
        let clocks = ClockPair::read();
        for (slot, header) in slots.slots.iter_mut().zip(&slots.headers).take(slots.filled) {
            slot.read(header, clocks);
            slots.dropped = slot.dropped.unwrap_or(slots.dropped);
        }
        slots.filled
    }

    /// Sends every UDP train of the batch. A message that fails does not stop those behind it; a
    /// full send buffer is waited for once, then the rest is given up.
    pub(crate) fn send_batch(&mut self, batch: &TransmitBatch, slots: &mut SendSlots) -> Sent {
        let mut sent = Sent::default();
        let mut may_wait = true;
        let mut trains = batch.trains();
        while !trains.is_empty() {
            let (now, later) = trains.split_at(trains.len().min(TRAINS_PER_BATCH_MAX));
            trains = later;
            slots.used = 0;
            for train in now.iter().filter(|train| train.path.protocol == Protocol::Udp) {
                if self.is_plain(train) {
                    // Those of one segment too, so that they keep their order.
                    self.send_singly(batch, slots, train, &mut sent);
                } else {
                    slots.add(train.path, batch.bytes(train), *train, self.v6);
                }
            }
            self.send_slots(batch, slots, &mut may_wait, &mut sent);
        }
        sent
    }

    fn send_slots(
        &mut self,
        batch: &TransmitBatch,
        slots: &mut SendSlots,
        may_wait: &mut bool,
        sent: &mut Sent,
    ) {
        let mut next = 0;
        while next < slots.used {
            let taken = match self.sendmmsg(slots, next) {
                Ok(taken) => {
                    for train in slots.trains(next, taken) {
                        sent.note(train.segments());
                    }
                    taken
                }
                Err(error) if error == libc::EINTR => 0,
                Err(error) if error == libc::EAGAIN => {
                    if !std::mem::take(may_wait) || !self.wait_writable() {
                        *may_wait = false;
                        let rest = slots.trains(next, slots.used - next);
                        sent.failed += rest.map(|train| train.segments() as u64).sum::<u64>();
                        return;
                    }
                    0
                }
                Err(error) => {
                    self.handle_refused(batch, slots, next, error, sent);
                    1
                }
            };
            next += taken;
        }
    }

    /// A message the kernel refused for itself: a train goes again datagram by datagram (its
    /// segments may exceed the path's MTU, or the device cannot checksum), anything else is lost.
    fn handle_refused(
        &mut self,
        batch: &TransmitBatch,
        slots: &mut SendSlots,
        index: usize,
        error: i32,
        sent: &mut Sent,
    ) {
        let Some(train) = slots.trains(index, 1).next().copied() else { return };
        let segmentation = matches!(error, libc::EIO | libc::EINVAL | libc::EMSGSIZE);
        if train.segments() == 1 || !segmentation {
            sent.failed += train.segments() as u64;
            return;
        }
        if error == libc::EIO {
            self.note_plain(train.path.remote.ip());
        }
        sent.refused += 1;
        self.send_singly(batch, slots, &train, sent);
    }

    /// The device or the transformation on the way to that host makes no checksums (a tunnel, IPsec):
    /// it is not tried again. Where that is so for many the device is everybody's.
    fn note_plain(&mut self, host: IpAddr) {
        if self.plain.contains(&host) {
            // Of several trains that were given to the kernel together.
        } else if self.plain.len() < PLAIN_HOSTS_MAX {
            tracing::info!(remote = %host, "no UDP segmentation on the way there: one by one");
            self.plain.push(host);
        } else {
            self.gso = false;
        }
    }

    fn is_plain(&self, train: &Train) -> bool {
        !self.plain.is_empty() && self.plain.contains(&train.path.remote.ip())
    }

    /// Sends a train datagram by datagram.
    fn send_singly(
        &self,
        batch: &TransmitBatch,
        slots: &mut SendSlots,
        train: &Train,
        sent: &mut Sent,
    ) {
        let mut one = slots.single.take().unwrap_or_else(|| Box::new(SendSlots::with_capacity(1)));
        for bytes in batch.bytes(train).chunks(train.segment()) {
            one.used = 0;
            one.add_single(train.path, bytes, self.v6);
            let mut outcome = self.sendmmsg(&mut one, 0);
            while outcome == Err(libc::EINTR) {
                outcome = self.sendmmsg(&mut one, 0);
            }
            if outcome == Ok(1) {
                sent.note(1);
            } else {
                sent.failed += 1;
            }
        }
        slots.single = Some(one);
    }

    /// Gives the messages from `first` on to the kernel; returns how many it took.
    fn sendmmsg(&self, slots: &mut SendSlots, first: usize) -> Result<usize, i32> {
        let used = slots.used;
        for (slot, header) in slots.slots.iter_mut().zip(&mut slots.headers).take(used).skip(first)
        {
            let message = &mut header.msg_hdr;
            message.msg_name = slot.name.as_mut_ptr().cast();
            message.msg_namelen = slot.name_bytes;
            message.msg_iov = &raw mut slot.iovec;
            message.msg_iovlen = 1;
            message.msg_control = slot.control.as_mut_ptr().cast();
            message.msg_controllen = slot.control_bytes;
        }
        let Some(headers) = slots.headers.get_mut(first..used) else { return Ok(0) };
        let count = libc::c_uint::try_from(headers.len()).unwrap_or(0);
        // SAFETY: every header in the range was just pointed at its own slot's name, control and
        // iovec with their used lengths; these live in `slots`, borrowed mutably. The iovec points
        // into the caller's batch (or a part of it), which the caller borrows while the slots hold
        // it, and the kernel only reads it.
        let taken = unsafe {
            libc::sendmmsg(self.fd.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT)
        };
        usize::try_from(taken)
            .map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or_default())
    }

    fn wait_writable(&self) -> bool {
        let nanoseconds = i64::from(SEND_WAIT_MAX.subsec_nanos());
        let timeout = Timespec { tv_sec: 0, tv_nsec: nanoseconds };
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Headers without pointers, to be filled before each call.
pub(super) fn headers(count: usize) -> Box<[libc::mmsghdr]> {
    // SAFETY: `mmsghdr` is integers and raw pointers, for which all zeroes is a value (null).
    let zeroed = || unsafe { std::mem::zeroed::<libc::mmsghdr>() };
    std::iter::repeat_with(zeroed).take(count).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::slots::SLOT_BYTES_PLAIN;
    use super::*;
    use crate::engine::io::Path;
    use crate::shard::run::clock;

    fn socket(address: &str) -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind(address.parse().unwrap(), false).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn path(local: &str, remote: SocketAddr) -> Path {
        Path { protocol: Protocol::Udp, remote, local: local.parse().unwrap() }
    }

    /// A batch of datagrams, each of its length and filled with its number.
    fn batch(segments_max: usize, datagrams: &[(Path, usize)]) -> TransmitBatch {
        let mut batch = TransmitBatch::new(256 * 1024, 256, segments_max);
        for (number, (path, len)) in datagrams.iter().enumerate() {
            batch.slot(*len).unwrap().fill(u8::try_from(number).unwrap());
            batch.commit(*path, *len);
        }
        batch
    }

    /// Waits for `count` datagrams: path, length, first byte.
    fn receive(socket: &UdpSocket, count: usize) -> Vec<(Path, usize, u8)> {
        let mut slots = ReceiveSlots::new(socket.has_gro());
        let mut received = Vec::new();
        while received.len() < count {
            let timeout = Timespec { tv_sec: 5, tv_nsec: 0 };
            let mut fds = [PollFd::new(socket, PollFlags::IN)];
            assert_eq!(poll(&mut fds, Some(&timeout)), Ok(1), "only {received:?} of {count}");
            socket.recv_batch(&mut slots);
            received.extend(slots.iter().map(|r| (r.path, r.bytes.len(), r.bytes[0])));
        }
        received
    }

    #[test]
    fn trains_arrive_as_the_datagrams_they_were_made_of() {
        for (here, there, local) in [
            ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "[::1]:0", "::1"),
            ("[::]:0", "127.0.0.1:0", "127.0.0.1"),
            ("[::]:0", "[::1]:0", "::1"),
        ] {
            for segments_max in [1, 8] {
                let (mut sender, from) = socket(here);
                let (receiver, to) = socket(there);
                let lens = [1200, 1200, 1200, 700, 1200, 100, 100, 101];
                let datagrams: Vec<_> = lens.iter().map(|len| (path(local, to), *len)).collect();
                let batch = batch(segments_max, &datagrams);
                let sent = sender.send_batch(&batch, &mut SendSlots::new());
                assert_eq!((sent.datagrams, sent.failed), (8, 0), "{here} to {there}");
                assert_eq!(sent.messages, if segments_max == 1 { 8 } else { 4 });

                let received = receive(&receiver, lens.len());
                let remote = SocketAddr::new(local.parse().unwrap(), from.port());
                let expected: Vec<_> =
                    (0_u8..).zip(lens).map(|(n, len)| (path(local, remote), len, n)).collect();
                assert_eq!(received, expected, "{here} to {there}");
            }
        }
    }

    /// Sends a burst, lets it wait, reads it; true when it arrived before it began to be read.
    fn arrives_before_it_is_read(sender: &mut UdpSocket, receiver: &UdpSocket, to: Path) -> bool {
        let sent = batch(8, &[(to, 100); 4]);
        sender.send_batch(&sent, &mut SendSlots::new());
        // Loopback delivers while it sends.
        let sent_at = clock();
        let mut slots = ReceiveSlots::new(receiver.has_gro());
        receiver.recv_batch(&mut slots);
        let arrivals: Vec<_> = slots.iter().map(|received| received.arrival).collect();
        assert_eq!(arrivals.len(), 4);
        arrivals.iter().all(|arrival| *arrival <= sent_at)
    }

    #[test]
    fn what_waited_to_be_read_arrived_when_the_kernel_took_it() {
        for here in ["127.0.0.1:0", "[::1]:0"] {
            let (mut sender, _) = socket(here);
            let (receiver, to) = socket(here);
            let to = path(&to.ip().to_string(), to);
            let deadline = clock() + Duration::from_secs(10);
            // The kernel begins to stamp in the background when the first socket asks for it.
            while !arrives_before_it_is_read(&mut sender, &receiver, to) {
                assert!(clock() < deadline, "{here}: always when it was read");
            }
        }
    }

    #[test]
    fn an_answer_leaves_from_the_address_that_was_asked() {
        for (listen, asked) in [("[::]:0", "127.0.0.5"), ("0.0.0.0:0", "127.0.0.6")] {
            let (mut server, at) = socket(listen);
            let (mut client, _) = socket("127.0.0.1:0");
            let to = SocketAddr::new(asked.parse().unwrap(), at.port());
            let mut slots = SendSlots::new();
            client.send_batch(&batch(1, &[(path("127.0.0.1", to), 10)]), &mut slots);
            let (request, ..) = receive(&server, 1)[0];
            assert_eq!(request.local.to_string(), asked, "a mapped address is normalised");
            server.send_batch(&batch(1, &[(request, 20)]), &mut slots);
            assert_eq!(receive(&client, 1)[0].0.remote, to);
        }
    }

    #[test]
    fn a_message_that_fails_does_not_stop_those_behind_it() {
        let (mut sender, _) = socket("127.0.0.1:0");
        let (receiver, to) = socket("127.0.0.1:0");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (good, bad) = (path("127.0.0.1", to), path("127.0.0.1", nowhere));
        let datagrams =
            [(bad, 100), (good, 100), (bad, 100), (bad, 100), (good, 50), (good, 60), (bad, 1)];
        for segments_max in [1, 8] {
            let batch = batch(segments_max, &datagrams);
            let sent = sender.send_batch(&batch, &mut SendSlots::new());
            assert_eq!((sent.datagrams, sent.failed), (3, 4));
            let numbers: Vec<_> = receive(&receiver, 3).iter().map(|r| r.2).collect();
            assert_eq!(numbers, [1, 4, 5]);
        }
    }

    #[test]
    fn a_refused_train_is_sent_again_datagram_by_datagram() {
        let (mut sender, _) = socket("127.0.0.1:0");
        let (receiver, to) = socket("127.0.0.1:0");
        // Without checksums the kernel refuses to segment (EINVAL).
        sender.set_option(libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        let datagrams: Vec<_> = [90, 90, 90, 30, 90].map(|len| (path("127.0.0.1", to), len)).into();
        let sent = sender.send_batch(&batch(8, &datagrams), &mut SendSlots::new());
        assert_eq!((sent.datagrams, sent.messages, sent.failed), (5, 5, 0));
        // The shorter one ended the first train; the last was a message of its own.
        assert_eq!(sent.refused, 1);
        assert_eq!(sent.trains.iter().next(), Some((1, 5)));
        let lens: Vec<_> = receive(&receiver, 5).iter().map(|r| r.1).collect();
        assert_eq!(lens, [90, 90, 90, 30, 90]);
    }

    #[test]
    fn a_host_whose_route_takes_no_trains_costs_the_others_none() {
        let (mut sender, _) = socket("127.0.0.1:0");
        if !sender.has_gso() {
            return;
        }
        let (near, near_at) = socket("127.0.0.1:0");
        let (far, far_at) = socket("127.0.0.2:0");
        let lens = [90, 90, 90, 30, 90];
        let to_both: Vec<_> = [far_at, near_at]
            .into_iter()
            .flat_map(|to| lens.map(|len| (path("127.0.0.1", to), len)))
            .collect();
        let batch = batch(8, &to_both);
        let mut slots = SendSlots::new();
        let (first, mut sent) = (batch.trains()[0], Sent::default());
        slots.add(first.path, batch.bytes(&first), first, sender.v6);
        // Only a tunnel's device or IPsec says so.
        sender.handle_refused(&batch, &mut slots, 0, libc::EIO, &mut sent);
        assert_eq!((sent.datagrams, sent.messages, sent.refused, sent.failed), (4, 4, 1, 0));
        let sent = sender.send_batch(&batch, &mut slots);
        assert_eq!((sent.datagrams, sent.messages, sent.refused, sent.failed), (10, 7, 0, 0));
        let lens_of = |receiver: &UdpSocket, count| -> Vec<_> {
            receive(receiver, count).iter().map(|received| received.1).collect()
        };
        assert_eq!(lens_of(&far, 9), [&lens[..4], &lens[..]].concat());
        assert_eq!(lens_of(&near, 5), lens);
        assert!(sender.has_gso());
        let host = |n: usize| IpAddr::from([10, 0, 0, u8::try_from(n).unwrap()]);
        // The first is known, and told of twice.
        for n in [0].into_iter().chain(0..PLAIN_HOSTS_MAX - 1) {
            sender.note_plain(host(n));
        }
        assert!(sender.has_gso());
        sender.note_plain(host(PLAIN_HOSTS_MAX));
        assert!(!sender.has_gso(), "what is so for many is so for the device of all");
    }

    #[test]
    fn a_batch_of_more_trains_than_one_call_takes_is_sent_whole() {
        let (mut sender, _) = socket("127.0.0.1:0");
        let (receiver, to) = socket("127.0.0.1:0");
        let datagrams = vec![(path("127.0.0.1", to), 10); TRAINS_PER_BATCH_MAX * 3 + 1];
        let sent = sender.send_batch(&batch(1, &datagrams), &mut SendSlots::new());
        assert_eq!(sent.messages, datagrams.len() as u64);
        assert_eq!(receive(&receiver, datagrams.len()).len(), datagrams.len());
    }

    #[test]
    fn tcp_trains_are_left_to_others() {
        let (mut sender, _) = socket("127.0.0.1:0");
        let (_receiver, to) = socket("127.0.0.1:0");
        let tcp = Path { protocol: Protocol::Tcp, ..path("127.0.0.1", to) };
        let sent = sender.send_batch(&batch(8, &[(tcp, 10)]), &mut SendSlots::new());
        assert_eq!(sent, Sent::default());
    }

    #[test]
    fn overlong_datagrams_are_left_out_and_counted_without_gro() {
        let (mut sender, _) = socket("127.0.0.1:0");
        let (receiver, to) = socket("127.0.0.1:0");
        receiver.set_option(libc::SOL_UDP, libc::UDP_GRO, 0).unwrap();
        let there = path("127.0.0.1", to);
        let long = SLOT_BYTES_PLAIN + 1;
        sender.send_batch(&batch(1, &[(there, 9), (there, long)]), &mut SendSlots::new());
        let mut slots = ReceiveSlots::new(false);
        assert_eq!(receiver.recv_batch(&mut slots), 2);
        assert_eq!((slots.iter().count(), slots.truncated()), (1, 1));
    }

    #[test]
    fn an_exclusive_bind_finds_a_group_in_its_way() {
        let (_member, address) = socket("127.0.0.1:0");
        assert!(UdpSocket::bind(address, false).is_ok(), "a second member is welcome");
        let refused = UdpSocket::bind(address, true).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn what_the_kernel_drops_is_counted() {
        let (receiver, to) = socket("127.0.0.1:0");
        sockopt::set_socket_recv_buffer_size(&receiver.fd, 4096).unwrap();
        let (mut sender, _) = socket("127.0.0.1:0");
        let there = path("127.0.0.1", to);
        let flood = batch(1, &[(there, 1000); 100]);
        sender.send_batch(&flood, &mut SendSlots::new());
        let mut slots = ReceiveSlots::new(receiver.has_gro());
        while receiver.recv_batch(&mut slots) > 0 {}
        // The counter rides on datagrams that arrive after the loss.
        sender.send_batch(&batch(1, &[(there, 10)]), &mut SendSlots::new());
        receiver.recv_batch(&mut slots);
        assert!(slots.kernel_dropped() > 0);
    }
}
