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
    let (at, found) = (Register::R9, asm.label());
    asm.set(at, ATTRIBUTES_AT);
    // Written out: without CAP_PERFMON the verifier also walks what a processor might speculate,
    // and in there no counter ends a loop.
    for _ in 0..STEERED_ATTRIBUTES_MAX {
        asm.copy(Register::R2, at);
        // Type, length, and the first characters of a value.
        load_bytes(asm, 8, pass);
        asm.load(Size::Half, Register::R1, (Register::R10, frame::READ))
            .read_network_16(Register::R1)
            .jump_if(Register::R1, When::Equal, USERNAME, found)
            .load(Size::Half, Register::R1, (Register::R10, frame::READ + 2))
            .read_network_16(Register::R1)
            // The attribute's header, and its value padded to words.
            .add(Register::R1, 4 + 3)
            .and(Register::R1, 0x1_fffc)
            .add_register(at, Register::R1);
    }
    asm.jump(pass).place(found);
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

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as Client;

    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::engine::demux::{Ufrag, stun_owner};
    use crate::shard::slots::ReceiveSlots;
    use crate::shard::socket::UdpSocket;
    use crate::shard::tests::may_steer;

    const SHARDS: u16 = 5;

    /// A steered group of sockets without shards, asked who got what.
    struct Group {
        sockets: Vec<UdpSocket>,
        flows: FlowMap,
        port: u16,
    }

    /// What a test sends, and from where.
    struct Sender {
        client: Client,
        path: Path,
    }

    fn group(listen: &str) -> Option<Group> {
        let first = UdpSocket::bind(format!("{listen}:0").parse().unwrap(), false).unwrap();
        let at = first.local_addr().unwrap();
        let more = (1..SHARDS).map(|_| UdpSocket::bind(at, false).unwrap());
        let sockets: Vec<_> = std::iter::once(first).chain(more).collect();
        let attached = attach(&sockets.iter().collect::<Vec<_>>());
        if !may_steer() {
            assert!(matches!(attached, Err(SteerError::Map(_))), "CAP_BPF is what it takes");
            return None;
        }
        Some(Group { sockets, flows: attached.unwrap(), port: at.port() })
    }

    /// A group for each way to listen, with the address to send to.
    fn groups() -> impl Iterator<Item = (Group, &'static str)> {
        let ways = [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")];
        let dual = [("[::]", "127.0.0.1"), ("[::]", "::1"), ("[::]", "127.0.0.9")];
        let all = ways.into_iter().chain(dual);
        all.filter_map(|(listen, to)| Some((group(listen)?, to)))
    }

    impl Group {
        fn sender(&self, to: &str) -> Sender {
            let local: IpAddr = to.parse().unwrap();
            let from = if local.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
            let client = Client::bind(from).unwrap();
            client.connect((local, self.port)).unwrap();
            let remote = client.local_addr().unwrap();
            Sender { client, path: Path { protocol: Protocol::Udp, remote, local } }
        }

        /// Sends, and tells whose socket has it; loopback delivers before `send` returns.
        fn shard_for(&self, sender: &Sender, bytes: &[u8]) -> u16 {
            sender.client.send(bytes).unwrap();
            let mut found = Vec::new();
            for (shard, socket) in (0..).zip(&self.sockets) {
                let mut slots = ReceiveSlots::new(socket.has_gro());
                // An empty datagram is a message without any.
                let messages = socket.recv_batch(&mut slots);
                for received in slots.iter() {
                    assert_eq!((received.path, received.bytes), (sender.path, bytes));
                }
                found.extend(std::iter::repeat_n(shard, messages));
            }
            assert_eq!(found.len(), 1, "{bytes:?} is there once");
            found[0]
        }
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        let mut bytes = [&kind.to_be_bytes(), &length.to_be_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(attributes: &[Vec<u8>]) -> Vec<u8> {
        let body = attributes.concat();
        let length = u16::try_from(body.len()).unwrap();
        let head = [&[0, 1][..], &length.to_be_bytes(), &MAGIC_COOKIE.to_be_bytes(), &[7; 12]];
        [head.concat(), body].concat()
    }

    fn username(shard: u16) -> Vec<u8> {
        let ufrag = Ufrag::new(ShardId(shard), 3, 9, &mut StdRng::seed_from_u64(shard.into()));
        attribute(0x0006, format!("{ufrag}:them").as_bytes())
    }

    /// A request whose USERNAME stands behind attributes with values of these lengths.
    fn request(shard: u16, before: &[usize]) -> Vec<u8> {
        let others = before.iter().map(|length| attribute(0x8022, &vec![6; *length]));
        let rest = [username(shard), attribute(0x0025, &[]), attribute(0x0008, &[1; 20])];
        message(&others.chain(rest).collect::<Vec<_>>())
    }

    #[test]
    fn stun_reaches_the_shard_it_names_wherever_the_name_stands() {
        for (group, to) in groups() {
            for before in [&[][..], &[0], &[5], &[4, 0, 8, 1, 2, 3], &[900, 7, 64], &[1; 31]] {
                for shard in 0..SHARDS {
                    let bytes = request(shard, before);
                    assert_eq!(stun_owner(&bytes), Some(ShardId(shard)));
                    // From a new address each time: no hash is behind it.
                    let sender = group.sender(to);
                    assert_eq!(group.shard_for(&sender, &bytes), shard, "{to}, {before:?}");
                    // Nor the map.
                    let other = ShardId((shard + 1) % SHARDS);
                    group.flows.insert(&sender.path, other).unwrap();
                    assert_eq!(group.shard_for(&sender, &bytes), shard, "{to}, {before:?}");
                }
            }
        }
    }

    #[test]
    fn all_else_follows_the_flow_map_and_a_path_that_is_not_in_it_the_kernels_hash() {
        for (group, to) in groups() {
            for bytes in [&[22, 254, 253][..], &[128; 1200], &[200], &[129, 96, 0, 1, 2, 3, 4, 5]] {
                let sender = group.sender(to);
                let hashed = group.shard_for(&sender, bytes);
                for shard in (0..SHARDS).map(ShardId) {
                    group.flows.insert(&sender.path, shard).unwrap();
                    assert_eq!(group.shard_for(&sender, bytes), shard.0, "{to}");
                    let stranger = group.sender(to);
                    group.shard_for(&stranger, bytes);
                    assert_eq!(group.flows.shard_of(&stranger.path), None);
                }
                group.flows.remove(&sender.path, ShardId(SHARDS - 1));
                assert_eq!(group.shard_for(&sender, bytes), hashed, "the same hash as before");
            }
        }
    }

    #[test]
    fn strangers_are_spread_over_all_shards() {
        for (group, to) in groups() {
            let mut reached = [false; SHARDS as usize];
            for _ in 0..200 {
                let shard = group.shard_for(&group.sender(to), &[128; 40]);
                reached[usize::from(shard)] = true;
            }
            assert_eq!(reached, [true; SHARDS as usize], "{to}");
        }
    }

    #[test]
    fn a_client_known_at_two_of_our_addresses_keeps_one_when_the_other_goes() {
        let Some(group) = group("[::]") else { return };
        let client = Client::bind("127.0.0.1:0").unwrap();
        let remote = client.local_addr().unwrap();
        let senders = ["127.0.0.1", "127.0.0.2"].map(|to| {
            let client = client.try_clone().unwrap();
            Sender { client, path: Path { remote, ..group.sender(to).path } }
        });
        let send = |sender: &Sender| {
            sender.client.connect((sender.path.local, group.port)).unwrap();
            group.shard_for(sender, &[128; 100])
        };
        for (sender, shard) in senders.iter().zip([ShardId(1), ShardId(4)]) {
            group.flows.insert(&sender.path, shard).unwrap();
        }
        assert_eq!(senders.each_ref().map(send), [1, 4]);
        group.flows.remove(&senders[0].path, ShardId(1));
        assert_eq!(send(&senders[1]), 4);
    }

    #[test]
    fn who_lost_a_path_to_another_shard_cannot_take_it_from_there() {
        let Some(group) = group("127.0.0.1") else { return };
        let path = group.sender("127.0.0.1").path;
        group.flows.insert(&path, ShardId(1)).unwrap();
        group.flows.insert(&path, ShardId(2)).unwrap();
        group.flows.remove(&path, ShardId(1));
        assert_eq!(group.flows.shard_of(&path), Some(2));
        group.flows.remove(&path, ShardId(2));
        assert_eq!(group.flows.shard_of(&path), None);
        group.flows.remove(&path, ShardId(2));
    }

    #[test]
    fn a_request_that_names_no_shard_of_ours_arrives_somewhere() {
        let bad_digits = [b"1a", b"a1", b"A2", b"b8", b"`a", b"{a", &[0, 0], &[255, 255]];
        let bad_names = bad_digits.map(|digits| attribute(6, &[&digits[..], b"cdef:x"].concat()));
        let short = [attribute(6, &[]), attribute(6, b"a"), attribute(6, b"ab")];
        let beyond = request(1, &[1; STEERED_ATTRIBUTES_MAX]);
        let mut lying = request(1, &[8]);
        lying[22..24].copy_from_slice(&[255, 255]);
        let mut foreign = request(1, &[]);
        foreign[4] = 0;
        let strange = [request(SHARDS, &[]), request(1023, &[]), beyond, lying, foreign];
        let named = bad_names.into_iter().chain(short).map(|attribute| message(&[attribute]));
        let all: Vec<_> = named.chain(strange).collect();
        for (group, to) in groups() {
            for bytes in &all {
                group.shard_for(&group.sender(to), bytes);
            }
            let whole = request(2, &[3, 0]);
            for length in 0..whole.len() {
                group.shard_for(&group.sender(to), &whole[..length]);
            }
        }
    }

    #[test]
    fn a_path_without_room_is_given_back_until_there_is_some() {
        let Ok(table) = FlowTable::new(MapKind::Hash, 1) else {
            assert!(!may_steer());
            return;
        };
        let map = FlowMap(Arc::new(table));
        let path = |port| Path {
            protocol: Protocol::Udp,
            remote: SocketAddr::from(([192, 0, 2, 1], port)),
            local: IpAddr::from([127, 0, 0, 1]),
        };
        let mut flows = Flows::new(map.clone(), ShardId(3));
        assert_eq!(flows.follow(PathChange::Added(path(1))), None);
        for port in 2..5 {
            assert_eq!(flows.follow(PathChange::Added(path(port))), Some(path(port)));
        }
        // The third has gone meanwhile.
        let alive = |of: &Path| *of != path(3);
        assert_eq!(flows.retry(alive), [path(2), path(4)]);
        assert_eq!(flows.follow(PathChange::Removed(path(1))), None);
        assert_eq!(flows.retry(alive), [path(4)]);
        assert_eq!((map.shard_of(&path(2)), map.shard_of(&path(4))), (Some(3), None));
        map.remove(&path(2), ShardId(3));
        assert_eq!(flows.retry(alive), []);
        assert_eq!(map.shard_of(&path(4)), Some(3));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever a stranger sends, it arrives once, and where user space would put it.
        #[test]
        fn the_program_and_user_space_agree_on_any_bytes(
            head in prop_oneof![Just(true), any::<bool>()],
            tail in prop::collection::vec(any::<u8>(), 0..200),
            before in prop::collection::vec(0_usize..40, 0..8),
            shard in 0..SHARDS,
        ) {
            let Some(group) = group("[::1]") else { return Ok(()) };
            let sender = group.sender("::1");
            let bytes = if head {
                let mut bytes = request(shard, &before);
                bytes.extend(&tail);
                bytes
            } else {
                tail
            };
            let reached = group.shard_for(&sender, &bytes);
            let named = stun_owner(&bytes).filter(|owner| owner.0 < SHARDS);
            prop_assert!(named.is_none_or(|owner| owner.0 == reached));
        }
    }
}
