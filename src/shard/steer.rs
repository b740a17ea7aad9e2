//! Kernel steering: a program on the port's group of sockets that gives each datagram to the socket
//! of the shard that owns it, so that shards hand over (next to) nothing.
//!
//! Made by the node once all sockets are bound ([`attach`]); then each shard owns a [`Flows`] on its
//! own thread. STUN goes by the shard's characters in our half of USERNAME and never by the map; all
//! else by a map from addresses to shards; what is in neither, by the kernel's hash.
//!
//! Invariants: only addresses that ICE has validated enter the map, so strangers can neither fill it
//! nor evict from it (it evicts nobody at all); a key is a whole [`Path`], so that a client that is
//! known at two of our addresses keeps one when the other goes; a path that finds no room is told to
//! all shards and handed over in user space. It needs `CAP_BPF` and no more: the program reads
//! packets through `bpf_skb_load_bytes` only. Whether a datagram is authentic is not looked at.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use super::bpf::{Assembler, Call, Instruction, Label, Map, MapKind, Program, Register};
use super::bpf::{Size, Update, When};
use crate::engine::io::{Path, PathChange, Protocol};
use crate::id::ShardId;
use crate::limits::{
    FLOW_RETRIES_PER_SECOND_MAX, FLOWS_MAX, PATHS_PER_SHARD_MAX, STEERED_ATTRIBUTES_MAX,
};

/// Remote address, local address (IPv4 mapped into IPv6), remote port as in the packet, two zeroes.
const KEY_BYTES: usize = 36;
/// The shard.
const VALUE_BYTES: usize = 4;

type FlowKey = [u8; KEY_BYTES];
type FlowTable = Map<KEY_BYTES, VALUE_BYTES>;
type SocketTable = Map<4, 4>;

/// Why the kernel does not steer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SteerError {
    /// There is only one place to go.
    #[error("there is one shard")]
    Alone,
    /// Not permitted (`CAP_BPF`), or no memory.
    #[error("the kernel refuses BPF maps: {0}")]
    Map(io::Error),
    /// Not permitted, or not understood.
    #[error("the kernel refuses the program: {0}")]
    Program(io::Error),
    /// A kernel without `SO_ATTACH_REUSEPORT_EBPF`.
    #[error("the kernel refuses to attach the program: {0}")]
    Attach(io::Error),
}

/// Puts the program before a group of bound sockets, in order of their shards. It stays as long as
/// one of them is open.
///
/// # Errors
/// [`SteerError`]; the group is then as it was.
pub(crate) fn attach<S: AsFd>(sockets: &[S]) -> Result<FlowMap, SteerError> {
    let [first, _, ..] = sockets else { return Err(SteerError::Alone) };
    let shards = u32::try_from(sockets.len()).unwrap_or(u32::MAX);
    let bound = FLOWS_MAX.min(sockets.len() * PATHS_PER_SHARD_MAX);
    let flows = FlowTable::new(MapKind::Hash, u32::try_from(bound).unwrap_or(u32::MAX))
        .map_err(SteerError::Map)?;
    let table = SocketTable::new(MapKind::Sockets, shards).map_err(SteerError::Map)?;
    for (shard, socket) in (0..shards).zip(sockets) {
        let fd = socket.as_fd().as_raw_fd().to_ne_bytes();
        table.set(&shard.to_ne_bytes(), &fd, Update::Any).map_err(SteerError::Map)?;
    }
    let program = Program::load(&program(&flows, &table, shards)).map_err(SteerError::Program)?;
    program.attach(first.as_fd()).map_err(SteerError::Attach)?;
    Ok(FlowMap(Arc::new(flows)))
}

/// The kernel's map from paths to shards; the same for all shards, each of which writes its own.
#[derive(Debug, Clone)]
pub(crate) struct FlowMap(Arc<FlowTable>);

impl FlowMap {
    /// Sends what comes over `path` to `shard`, whoever had it.
    ///
    /// # Errors
    /// When the map is full, or the kernel has no memory.
    pub(crate) fn insert(&self, path: &Path, shard: ShardId) -> io::Result<()> {
        self.0.set(&key_of(path), &u32::from(shard.0).to_ne_bytes(), Update::Any)
    }

    /// Forgets a path, unless another shard has it by now.
    pub(crate) fn remove(&self, path: &Path, shard: ShardId) {
        let (key, ours) = (key_of(path), u32::from(shard.0).to_ne_bytes());
        if !self.0.value(&key).is_ok_and(|owner| owner == ours) {
            return;
        }
        match self.0.take(&key) {
            // Another shard validated it between the two calls: it must not lose it. Should it have
            // lost it in this instant too, an entry stays that the next owner overwrites.
            Ok(owner) if owner != ours => drop(self.0.set(&key, &owner, Update::New)),
            Ok(_) => {}
            // Before Linux 5.14. Deleting what is gone is no error to anybody.
            Err(_) => drop(self.0.delete(&key)),
        }
    }

    /// The shard that a path is steered to.
    #[cfg(test)]
    fn shard_of(&self, path: &Path) -> Option<u32> {
        self.0.value(&key_of(path)).ok().map(u32::from_ne_bytes)
    }
}

/// A shard's part of the flow map.
#[derive(Debug)]
pub(crate) struct Flows {
    map: FlowMap,
    shard: ShardId,
    /// Paths that found no room, for [`retry`](Self::retry).
    unsteered: VecDeque<Path>,
}

impl Flows {
    /// For one shard.
    pub(crate) fn new(map: FlowMap, shard: ShardId) -> Self {
        Self { map, shard, unsteered: VecDeque::new() }
    }

    /// Carries a change into the map; gives back a path that found no room, which other shards must
    /// then be told of: steered STUN would never tell them.
    pub(crate) fn follow(&mut self, change: PathChange) -> Option<Path> {
        match change {
            PathChange::Added(path) => {
                if self.map.insert(&path, self.shard).is_ok() {
                    return None;
                }
                if self.unsteered.len() < PATHS_PER_SHARD_MAX {
                    self.unsteered.push_back(path);
                }
                Some(path)
            }
            PathChange::Removed(path) => {
                self.map.remove(&path, self.shard);
                None
            }
        }
    }

    /// Tries paths without room again, some each time; gives back those that still have none.
    pub(crate) fn retry(&mut self, is_ours: impl Fn(&Path) -> bool) -> Vec<Path> {
        let mut refused = Vec::new();
        for _ in 0..self.unsteered.len().min(FLOW_RETRIES_PER_SECOND_MAX) {
            let Some(path) = self.unsteered.pop_front() else { break };
            if is_ours(&path) && self.map.insert(&path, self.shard).is_err() {
                self.unsteered.push_back(path);
                refused.push(path);
            }
        }
        refused
    }
}

fn key_of(path: &Path) -> FlowKey {
    debug_assert_eq!(path.protocol, Protocol::Udp, "TCP connections are nobody's to steer");
    let mut key = [0; KEY_BYTES];
    let addresses = octets(path.remote.ip()).into_iter().chain(octets(path.local));
    let port = SocketAddr::port(&path.remote).to_be_bytes();
    for (to, byte) in key.iter_mut().zip(addresses.chain(port)) {
        *to = byte;
    }
    key
}

/// IPv6, or IPv4 mapped into it.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The program's frame, below R10: what it reads, the shard it chose, the key.
mod frame {
    /// Eight bytes read from the packet.
    pub(super) const READ: i16 = -56;
    /// The shard.
    pub(super) const SHARD: i16 = -44;
    /// The flow's key: remote address.
    pub(super) const REMOTE: i16 = -40;
    /// Then the local address.
    pub(super) const LOCAL: i16 = -24;
    /// Then port and zeroes.
    pub(super) const PORT: i16 = -8;
}

/// `struct sk_reuseport_md`: offset of the EtherType, in network order.
const ETHER_TYPE_AT: i16 = 20;
const IPV6: u16 = 0x86dd;

/// Where the program finds things: bytes from the start of the UDP header, or of the IP header.
const PAYLOAD_AT: i32 = 8;
const ATTRIBUTES_AT: i32 = PAYLOAD_AT + 20;
const IPV4_ADDRESSES_AT: i32 = 12;
const IPV6_ADDRESSES_AT: i32 = 8;

/// `BPF_HDR_START_NET`.
const FROM_IP_HEADER: i32 = 1;
/// `SK_PASS`: to the socket that was selected, or by the kernel's hash.
const PASS: i32 = 1;

const MAGIC_COOKIE: u32 = 0x2112_a442;
const USERNAME: i32 = 0x0006;

const CONTEXT: Register = Register::R6;

fn program(flows: &FlowTable, sockets: &SocketTable, shards: u32) -> Vec<Instruction> {
    let mut asm = Assembler::default();
    let [media, select, pass] = [(); 3].map(|()| asm.label());
    asm.copy(CONTEXT, Register::R1);
    asm.set(Register::R2, PAYLOAD_AT);
    // Whatever is shorter than this is no STUN.
    load_bytes(&mut asm, 8, media);
    asm.load(Size::Byte, Register::R1, (Register::R10, frame::READ))
        .jump_if(Register::R1, When::Above, 3, media)
        .load(Size::Word, Register::R1, (Register::R10, frame::READ + 4))
        .jump_if(Register::R1, When::NotEqual, network_32(MAGIC_COOKIE), pass);
    steer_stun(&mut asm, shards, select, pass);
    asm.place(media);
    steer_media(&mut asm, flows, pass);
    asm.place(select)
        .copy(Register::R1, CONTEXT)
        .map(Register::R2, sockets)
        .copy(Register::R3, Register::R10)
        .add(Register::R3, frame::SHARD.into())
        .set(Register::R4, 0)
        .call(Call::SelectReuseport)
        .place(pass)
        .set(Register::R0, PASS)
        .exit();
    asm.finish()
}

/// Leaves the shard named by USERNAME in the frame and goes to `select`, or to `pass`.
fn steer_stun(asm: &mut Assembler, shards: u32, select: Label, pass: Label) {
    let (at, seen) = (Register::R9, Register::R7);
    let [next, found] = [(); 2].map(|()| asm.label());
    asm.set(at, ATTRIBUTES_AT).set(seen, 0).place(next).copy(Register::R2, at);
    // Type, length, and the first characters of a value.
    load_bytes(asm, 8, pass);
    asm.load(Size::Half, Register::R1, (Register::R10, frame::READ))
        .from_network_16(Register::R1)
        .jump_if(Register::R1, When::Equal, USERNAME, found)
        .load(Size::Half, Register::R1, (Register::R10, frame::READ + 2))
        .from_network_16(Register::R1)
        // The attribute's header, and its value padded to words.
        .add(Register::R1, 4 + 3)
        .and(Register::R1, 0x1_fffc)
        .add_register(at, Register::R1)
        .add(seen, 1)
        .jump_if(seen, When::Below, STEERED_ATTRIBUTES_MAX, next)
        .jump(pass)
        .place(found);
    base_32_digit(asm, Register::R8, frame::READ + 4, pass);
    base_32_digit(asm, Register::R2, frame::READ + 5, pass);
    asm.shift_left(Register::R8, 5)
        .add_register(Register::R8, Register::R2)
        .jump_if(Register::R8, When::AtLeast, i32::try_from(shards).unwrap_or(i32::MAX), pass)
        .store(Size::Word, (Register::R10, frame::SHARD), Register::R8)
        .jump(select);
}

/// Reads a character of a user name (`a`–`z`, `2`–`7`) as the number it stands for.
fn base_32_digit(asm: &mut Assembler, to: Register, at: i16, otherwise: Label) {
    let done = asm.label();
    asm.load(Size::Byte, to, (Register::R10, at))
        // A character below wraps to a number far above.
        .add(to, -i32::from(b'a'))
        .jump_if(to, When::Below, 26, done)
        .load(Size::Byte, to, (Register::R10, at))
        .add(to, -i32::from(b'2'))
        .jump_if(to, When::AtLeast, 6, otherwise)
        .add(to, 26)
        .place(done);
}

/// Leaves the shard of the packet's flow in the frame and falls through, or goes to `pass`.
fn steer_media(asm: &mut Assembler, flows: &FlowTable, pass: Label) {
    let [v4, port] = [(); 2].map(|()| asm.label());
    asm.load(Size::Word, Register::R1, (CONTEXT, ETHER_TYPE_AT)).jump_if(
        Register::R1,
        When::NotEqual,
        i32::from(IPV6.to_be()),
        v4,
    );
    load_addresses(asm, IPV6_ADDRESSES_AT, frame::REMOTE, 32, pass);
    asm.jump(port).place(v4);
    load_addresses(asm, IPV4_ADDRESSES_AT, frame::READ, 8, pass);
    for (address, part) in [(frame::REMOTE, 0), (frame::LOCAL, 4)] {
        asm.store_number(Size::Double, (Register::R10, address), 0)
            .store_number(Size::Half, (Register::R10, address + 8), 0)
            .store_number(Size::Half, (Register::R10, address + 10), 0xffff)
            .load(Size::Word, Register::R1, (Register::R10, frame::READ + part))
            .store(Size::Word, (Register::R10, address + 12), Register::R1);
    }
    asm.place(port)
        .store_number(Size::Word, (Register::R10, frame::PORT), 0)
        .copy(Register::R1, CONTEXT)
        .set(Register::R2, 0)
        .copy(Register::R3, Register::R10)
        .add(Register::R3, frame::PORT.into())
        .set(Register::R4, 2)
        .call(Call::LoadBytes)
        .jump_if(Register::R0, When::NotEqual, 0, pass)
        .map(Register::R1, flows)
        .copy(Register::R2, Register::R10)
        .add(Register::R2, frame::REMOTE.into())
        .call(Call::MapLookup)
        .jump_if(Register::R0, When::Equal, 0, pass)
        .load(Size::Word, Register::R1, (Register::R0, 0))
        .store(Size::Word, (Register::R10, frame::SHARD), Register::R1);
}

/// Reads bytes at R2 from the UDP header on into the frame.
fn load_bytes(asm: &mut Assembler, count: i32, otherwise: Label) {
    asm.copy(Register::R1, CONTEXT)
        .copy(Register::R3, Register::R10)
        .add(Register::R3, frame::READ.into())
        .set(Register::R4, count)
        .call(Call::LoadBytes)
        .jump_if(Register::R0, When::NotEqual, 0, otherwise);
}

fn load_addresses(asm: &mut Assembler, at: i32, to: i16, count: i32, otherwise: Label) {
    asm.copy(Register::R1, CONTEXT)
        .set(Register::R2, at)
        .copy(Register::R3, Register::R10)
        .add(Register::R3, to.into())
        .set(Register::R4, count)
        .set(Register::R5, FROM_IP_HEADER)
        .call(Call::LoadBytesRelative)
        .jump_if(Register::R0, When::NotEqual, 0, otherwise);
}

/// A number as a load from the packet sees it.
fn network_32(number: u32) -> i32 {
    i32::from_ne_bytes(number.to_be_bytes())
}
