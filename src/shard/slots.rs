//! Space for the messages of one `recvmmsg` or `sendmmsg`, taken once and used again.
//!
//! Owned by a shard, lent to its socket for each call, on the shard's thread. Invariants: a slot's
//! pointers are good during the call for which they were written and are never followed here; what
//! was received is read out of a slot when the call is over.

use std::net::IpAddr;
use std::ptr;
use std::time::Instant;

use super::control_message::{
    NAME_BYTES, RECEIVE_CONTROL_BYTES, SEND_CONTROL_BYTES, read_ancillary, read_name,
    write_ancillary, write_name,
};
use super::run::ClockPair;
use super::socket::headers;
use crate::engine::io::{Path, Protocol, Received, Train};
use crate::limits::{RECEIVE_SLOTS_GRO, RECEIVE_SLOTS_PLAIN, TRAINS_PER_BATCH_MAX};

/// Bytes of a slot with `UDP_GRO`: the kernel joins up to 64 KiB and truncates silently.
pub(super) const SLOT_BYTES_GRO: usize = 64 * 1024;

/// Bytes of a slot without `UDP_GRO`: Ethernet's payload and to spare.
pub(super) const SLOT_BYTES_PLAIN: usize = 2048;

/// Reused space for one `recvmmsg`, and what it brought.
pub(crate) struct ReceiveSlots {
    pub(super) buffer: Box<[u8]>,
    pub(super) slot_bytes: usize,
    pub(super) slots: Box<[ReceiveSlot]>,
    pub(super) headers: Box<[libc::mmsghdr]>,
    pub(super) filled: usize,
    pub(super) dropped: u32,
}

pub(super) struct ReceiveSlot {
    pub(super) name: [u8; NAME_BYTES],
    pub(super) control: [u8; RECEIVE_CONTROL_BYTES],
    pub(super) iovec: libc::iovec,
    pub(super) path: Option<Path>,
    pub(super) arrival: Option<Instant>,
    pub(super) len: usize,
    pub(super) segment: usize,
    pub(super) dropped: Option<u32>,
    pub(super) truncated: bool,
}

impl ReceiveSlot {
    pub(super) fn read(&mut self, header: &libc::mmsghdr, clocks: ClockPair) {
        let message = &header.msg_hdr;
        let control = self.control.get(..message.msg_controllen).unwrap_or_default();
        let ancillary = read_ancillary(control);
        let name = self.name.get(..message.msg_namelen as usize).unwrap_or_default();
        self.path = read_name(name).map(|remote| {
            let unknown = IpAddr::from([0; 4]);
            let local = ancillary.local.unwrap_or(unknown);
            Path { protocol: Protocol::Udp, remote, local }
        });
        self.arrival = Some(clocks.instant_of(ancillary.stamp));
        self.len = header.msg_len as usize;
        self.segment = ancillary.segment.unwrap_or(self.len).max(1);
        self.dropped = ancillary.dropped;
        self.truncated = message.msg_flags & libc::MSG_TRUNC != 0;
    }
}

impl ReceiveSlots {
    /// Slots that fit a socket with or without GRO.
    pub(crate) fn new(gro: bool) -> Self {
        let (count, slot_bytes) = if gro {
            (RECEIVE_SLOTS_GRO, SLOT_BYTES_GRO)
        } else {
            (RECEIVE_SLOTS_PLAIN, SLOT_BYTES_PLAIN)
        };
        let slot = || ReceiveSlot {
            name: [0; NAME_BYTES],
            control: [0; RECEIVE_CONTROL_BYTES],
            iovec: libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 },
            path: None,
            arrival: None,
            len: 0,
            segment: 1,
            dropped: None,
            truncated: false,
        };
        Self {
            buffer: vec![0; count * slot_bytes].into_boxed_slice(),
            slot_bytes,
            slots: std::iter::repeat_with(slot).take(count).collect(),
            headers: headers(count),
            filled: 0,
            dropped: 0,
        }
    }

    /// The datagrams of the last [`recv_batch`](super::socket::UdpSocket::recv_batch), one by one as
    /// they were sent. Truncated messages are left out.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        let filled = self.slots.iter().zip(self.buffer.chunks_exact(self.slot_bytes));
        filled.take(self.filled).filter(|(slot, _)| !slot.truncated).flat_map(|(slot, buffer)| {
            let bytes = buffer.get(..slot.len).unwrap_or_default();
            let (path, arrival) = (slot.path, slot.arrival);
            bytes
                .chunks(slot.segment)
                .filter_map(move |bytes| Some(Received { path: path?, arrival: arrival?, bytes }))
        })
    }

    /// How many messages of the last batch were longer than their slot.
    pub(crate) fn truncated(&self) -> usize {
        self.slots.iter().take(self.filled).filter(|slot| slot.truncated).count()
    }

    /// True when the last batch filled every slot: more may be waiting.
    pub(crate) fn is_full(&self) -> bool {
        self.filled == self.slots.len()
    }

    /// Datagrams the kernel dropped for want of buffer, since the socket was made.
    pub(crate) fn kernel_dropped(&self) -> u32 {
        self.dropped
    }
}

/// Reused space for one `sendmmsg`.
pub(crate) struct SendSlots {
    pub(super) slots: Box<[SendSlot]>,
    pub(super) headers: Box<[libc::mmsghdr]>,
    pub(super) used: usize,
    /// For a refused train that goes again datagram by datagram; made when first needed.
    pub(super) single: Option<Box<SendSlots>>,
}

pub(super) struct SendSlot {
    pub(super) name: [u8; NAME_BYTES],
    pub(super) name_bytes: u32,
    pub(super) control: [u8; SEND_CONTROL_BYTES],
    pub(super) control_bytes: usize,
    pub(super) iovec: libc::iovec,
    pub(super) train: Option<Train>,
}

impl SendSlots {
    /// Space for [`TRAINS_PER_BATCH_MAX`] messages.
    pub(crate) fn new() -> Self {
        Self::with_capacity(TRAINS_PER_BATCH_MAX)
    }

    pub(super) fn with_capacity(count: usize) -> Self {
        let slot = || SendSlot {
            name: [0; NAME_BYTES],
            name_bytes: 0,
            control: [0; SEND_CONTROL_BYTES],
            control_bytes: 0,
            iovec: libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 },
            train: None,
        };
        Self {
            slots: std::iter::repeat_with(slot).take(count).collect(),
            headers: headers(count),
            used: 0,
            single: None,
        }
    }

    pub(super) fn add(&mut self, path: Path, bytes: &[u8], train: Train, v6: bool) {
        let segment =
            (train.segments() > 1).then(|| u16::try_from(train.segment()).unwrap_or(u16::MAX));
        self.fill(path, bytes, segment, v6, Some(train));
    }

    pub(super) fn add_single(&mut self, path: Path, bytes: &[u8], v6: bool) {
        self.fill(path, bytes, None, v6, None);
    }

    pub(super) fn fill(
        &mut self,
        path: Path,
        bytes: &[u8],
        segment: Option<u16>,
        v6: bool,
        train: Option<Train>,
    ) {
        let Some(slot) = self.slots.get_mut(self.used) else { return };
        slot.name_bytes = write_name(&mut slot.name, v6, path.remote);
        slot.control_bytes = write_ancillary(&mut slot.control, v6, path.local, segment);
        // The kernel only reads through this pointer; `iovec` has no const form.
        slot.iovec =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        slot.train = train;
        self.used += 1;
    }

    pub(super) fn trains(&self, first: usize, count: usize) -> impl Iterator<Item = &Train> {
        self.slots.iter().skip(first).take(count).filter_map(|slot| slot.train.as_ref())
    }
}
