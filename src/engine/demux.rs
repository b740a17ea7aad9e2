//! Which transport a datagram belongs to: its first byte, its ICE user name, or its address.
//!
//! Owned by the engine, on its shard's thread; [`stun_owner`] and [`PacketClass`] are also called
//! by whoever receives datagrams, before the owner is known. STUN is routed by user name alone and
//! never by address; everything else by an address that ICE has validated. So a stranger can put
//! nothing into the address map, and cannot take an address from its owner without the password.
//!
//! Invariants: a user name of a transport that is gone matches no later one (slots have epochs);
//! at most [`TRANSPORTS_PER_SHARD_MAX`] slots and [`PATHS_PER_SHARD_MAX`] addresses. Deliberately
//! not here: whether a request is authentic ([`ice`](super::transport::ice)).

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, Hasher};

use rand::{CryptoRng, Rng};

use super::io::Path;
use super::transport::stun;
use crate::id::ShardId;
use crate::limits::{PATHS_PER_SHARD_MAX, TRANSPORTS_PER_SHARD_MAX};

/// What a datagram is, by its first bytes (RFC 7983; RTP and RTCP by RFC 5761 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketClass {
    /// 0–3.
    Stun,
    /// 20–63.
    Dtls,
    /// 128–191, and a second byte that is no RTCP type.
    Rtp,
    /// 128–191, and a second byte of 192–223.
    Rtcp,
    /// Anything else: ZRTP, TURN channels, noise.
    Other,
}

impl PacketClass {
    /// Classifies a datagram; it is not parsed any further.
    #[must_use]
    pub fn of(datagram: &[u8]) -> Self {
        match datagram {
            [0..=3, ..] => Self::Stun,
            [20..=63, ..] => Self::Dtls,
            [128..=191, 192..=223, ..] => Self::Rtcp,
            [128..=191, _, ..] => Self::Rtp,
            _ => Self::Other,
        }
    }
}

/// Characters of a user name fragment, as mediasoup's.
pub const UFRAG_CHARS: usize = 32;
const SHARD_CHARS: usize = 2;
const SLOT_CHARS: usize = 4;
const EPOCH_CHARS: usize = 4;
const EPOCH_MASK: u32 = (1 << (5 * EPOCH_CHARS)) - 1;

/// Lower-case RFC 4648 base 32: every character is an ICE character (RFC 8839 §5.4), and none looks
/// like another in a log.
const BASE_32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// An ICE user name fragment: shard (2 characters of base 32), slot (4), the slot's epoch (4), and
/// 22 random characters (110 bits).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ufrag([u8; UFRAG_CHARS]);

impl Ufrag {
    /// A fresh fragment. Of slot and epoch the low 20 bits count.
    #[must_use]
    pub fn new<R: CryptoRng + ?Sized>(shard: ShardId, slot: u32, epoch: u32, rng: &mut R) -> Self {
        let mut text = [0; UFRAG_CHARS];
        let fields = digits::<SHARD_CHARS>(u32::from(shard.0))
            .into_iter()
            .chain(digits::<SLOT_CHARS>(slot))
            .chain(digits::<EPOCH_CHARS>(epoch));
        let random = std::iter::repeat_with(|| rng.random());
        for (to, digit) in text.iter_mut().zip(fields.chain(random)) {
            *to = char_byte(digit);
        }
        Self(text)
    }

    /// The text that clients are told.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base 32 is ASCII")
    }

    /// The base-32 character for the low five bits of `random`.
    #[must_use]
    pub fn char_of(random: u8) -> char {
        char::from(char_byte(random))
    }

    /// The owner, slot and epoch.
    fn place(&self) -> Option<Place> {
        place(self.as_str())
    }
}

impl fmt::Debug for Ufrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Ufrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn char_byte(digit: u8) -> u8 {
    BASE_32.get(usize::from(digit & 31)).copied().unwrap_or(b'a')
}

/// The low `N` base-32 digits of a number, the highest first.
fn digits<const N: usize>(number: u32) -> [u8; N] {
    let mut rest = number;
    let mut digits = [0; N];
    for digit in digits.iter_mut().rev() {
        let [low, ..] = rest.to_le_bytes();
        *digit = low & 31;
        rest >>= 5;
    }
    digits
}

fn number(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |number, byte| {
        let digit = match byte {
            b'a'..=b'z' => byte - b'a',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        Some((number << 5) | u32::from(digit))
    })
}

/// Where a user name fragment points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    shard: ShardId,
    slot: u32,
    epoch: u32,
}

fn place(ufrag: &str) -> Option<Place> {
    let text: &[u8; UFRAG_CHARS] = ufrag.as_bytes().try_into().ok()?;
    let (shard, rest) = text.split_first_chunk::<SHARD_CHARS>()?;
    let (slot, rest) = rest.split_first_chunk::<SLOT_CHARS>()?;
    let (epoch, _) = rest.split_first_chunk::<EPOCH_CHARS>()?;
    let shard = ShardId(u16::try_from(number(shard)?).ok()?);
    Some(Place { shard, slot: number(slot)?, epoch: number(epoch)? })
}

/// Our half of the USERNAME of a STUN binding request; nothing is verified.
#[must_use]
pub fn ufrag_of(datagram: &[u8]) -> Option<&str> {
    Some(stun::username(datagram)?.split_once(':')?.0)
}

/// The shard that a STUN binding request is for; nothing is verified, and the shard may not exist.
#[must_use]
pub fn stun_owner(datagram: &[u8]) -> Option<ShardId> {
    Some(place(ufrag_of(datagram)?)?.shard)
}

/// A keyed multiply-and-fold hash over a [`Path`]: a third of SipHash's cost, once per datagram.
///
/// Only addresses that hold the transport's password get into the map, and at most eight for each
/// transport, so an attacker can place few keys; the random key keeps him from choosing those.
#[derive(Debug, Clone, Copy)]
struct PathHash([u64; 2]);

impl BuildHasher for PathHash {
    type Hasher = PathHasher;

    fn build_hasher(&self) -> PathHasher {
        let [state, key] = self.0;
        PathHasher { state, key }
    }
}

struct PathHasher {
    state: u64,
    key: u64,
}

impl PathHasher {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.key | 1);
        let [low, high] = [product, product >> 64]
            .map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or_default());
        self.state = (low ^ high).wrapping_add(self.key);
    }
}

impl Hasher for PathHasher {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, byte) in word.iter_mut().zip(chunk) {
                *to = *byte;
            }
            self.fold(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.fold(number.into());
    }

    fn write_u16(&mut self, number: u16) {
        self.fold(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.fold(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.fold(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(u64::try_from(number).unwrap_or_default());
    }

    fn write_isize(&mut self, number: isize) {
        self.write(&number.to_le_bytes());
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot<K> {
    epoch: u32,
    key: Option<K>,
}

/// Maps user names and validated addresses of one shard to its transports.
#[derive(Debug)]
pub struct Demux<K> {
    shard: ShardId,
    slots: Vec<Slot<K>>,
    /// Slots to use again, the one freed longest ago first, so that epochs last.
    free: VecDeque<u32>,
    paths: HashMap<Path, K, PathHash>,
}

impl<K: Copy + PartialEq> Demux<K> {
    /// An empty one for `shard`; the address map's key is drawn from `rng`.
    #[must_use]
    pub fn new<R: CryptoRng + ?Sized>(shard: ShardId, rng: &mut R) -> Self {
        let paths = HashMap::with_hasher(PathHash(rng.random()));
        Self { shard, slots: Vec::new(), free: VecDeque::new(), paths }
    }

    /// Gives a transport a slot and its first user name; `None` when all slots are taken.
    pub fn claim<R: CryptoRng + ?Sized>(&mut self, key: K, rng: &mut R) -> Option<Ufrag> {
        let slot = match self.free.pop_front() {
            Some(slot) => slot,
            None if self.slots.len() < TRANSPORTS_PER_SHARD_MAX => {
                self.slots.push(Slot { epoch: rng.random::<u32>() & EPOCH_MASK, key: None });
                u32::try_from(self.slots.len() - 1).ok()?
            }
            None => return None,
        };
        let entry = self.slots.get_mut(usize::try_from(slot).ok()?)?;
        entry.key = Some(key);
        Some(Ufrag::new(self.shard, slot, entry.epoch, rng))
    }

    /// Another user name that leads to the same transport (ICE restart).
    pub fn renew<R: CryptoRng + ?Sized>(&self, ufrag: &Ufrag, rng: &mut R) -> Option<Ufrag> {
        let Place { shard, slot, epoch } = ufrag.place()?;
        self.transport_named(ufrag.as_str())?;
        Some(Ufrag::new(shard, slot, epoch, rng))
    }

    /// Frees the slot of a user name; no name of that transport matches from now on. Its addresses
    /// are removed one by one with [`remove_path`](Self::remove_path).
    pub fn release(&mut self, ufrag: &Ufrag) {
        let Some(place) = ufrag.place() else { return };
        if let Some(entry) = self.entry(place) {
            entry.key = None;
            entry.epoch = (entry.epoch + 1) & EPOCH_MASK;
            self.free.push_back(place.slot);
        }
    }

    fn entry(&mut self, place: Place) -> Option<&mut Slot<K>> {
        let shard = self.shard;
        let entry = self.slots.get_mut(usize::try_from(place.slot).ok()?)?;
        (place.shard == shard && entry.epoch == place.epoch && entry.key.is_some()).then_some(entry)
    }

    /// The transport that a user name fragment names. The random part is not compared here: `ice`
    /// compares the whole fragment with the transport's current and previous one.
    #[must_use]
    pub fn transport_named(&self, ufrag: &str) -> Option<K> {
        let place = place(ufrag)?;
        let slot = self.slots.get(usize::try_from(place.slot).ok()?)?;
        if place.shard == self.shard && slot.epoch == place.epoch { slot.key } else { None }
    }

    /// The transport that owns a validated address.
    #[must_use]
    pub fn transport_at(&self, path: &Path) -> Option<K> {
        self.paths.get(path).copied()
    }

    /// Gives an address to the transport that ICE validated it for, and takes it from any other;
    /// `false` when the map is full.
    pub fn insert_path(&mut self, path: Path, key: K) -> bool {
        if self.paths.len() >= PATHS_PER_SHARD_MAX && !self.paths.contains_key(&path) {
            return false;
        }
        self.paths.insert(path, key);
        true
    }

    /// Forgets an address, unless another transport owns it by now; `true` when it is gone.
    pub fn remove_path(&mut self, path: &Path, key: K) -> bool {
        let owned = self.paths.get(path) == Some(&key);
        if owned {
            self.paths.remove(path);
        }
        owned
    }

    /// How many addresses are known.
    #[must_use]
    pub fn path_count(&self) -> usize {
        self.paths.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{IpAddr, SocketAddr};

    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::engine::io::Protocol;
    use crate::engine::transport::stun::{RequestOptions, request};

    const SHARD: ShardId = ShardId(37);

    fn path(port: u16) -> Path {
        Path {
            protocol: Protocol::Udp,
            remote: SocketAddr::from(([198, 51, 100, 1], port)),
            local: IpAddr::from([192, 0, 2, 1]),
        }
    }

    fn demux() -> (Demux<u32>, StdRng) {
        let mut rng = StdRng::seed_from_u64(5);
        (Demux::new(SHARD, &mut rng), rng)
    }

    #[test]
    fn the_first_bytes_tell_what_a_datagram_is() {
        for (bytes, class) in [
            (&[][..], PacketClass::Other),
            (&[0, 1], PacketClass::Stun),
            (&[3], PacketClass::Stun),
            (&[4], PacketClass::Other),
            (&[19], PacketClass::Other),
            (&[20], PacketClass::Dtls),
            (&[63], PacketClass::Dtls),
            (&[64], PacketClass::Other),
            (&[127, 200], PacketClass::Other),
            (&[128], PacketClass::Other),
            (&[128, 191], PacketClass::Rtp),
            (&[128, 192], PacketClass::Rtcp),
            (&[191, 223], PacketClass::Rtcp),
            (&[191, 224], PacketClass::Rtp),
            (&[144, 96], PacketClass::Rtp),
            (&[192, 200], PacketClass::Other),
        ] {
            assert_eq!(PacketClass::of(bytes), class, "{bytes:?}");
        }
    }

    #[test]
    fn a_request_names_its_shard_wherever_its_username_stands() {
        let mut rng = StdRng::seed_from_u64(5);
        for shard in [0, 1, 31, 32, 1023] {
            let ufrag = Ufrag::new(ShardId(shard), 9, 9, &mut rng);
            assert_eq!(ufrag.as_str().len(), UFRAG_CHARS);
            let username = format!("{ufrag}:them");
            let options = RequestOptions { username: Some(&username), ..RequestOptions::default() };
            let mut bytes = request(&[1; 12], &options, None);
            assert_eq!(ufrag_of(&bytes), Some(ufrag.as_str()));
            assert_eq!(stun_owner(&bytes), Some(ShardId(shard)));
            // The same with another attribute in front.
            bytes.splice(20..20, [0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]);
            bytes[3] += 8;
            assert_eq!(stun_owner(&bytes), Some(ShardId(shard)));
        }
        for username in ["short:them", "nocolon", &format!("{}:them", "A".repeat(32))] {
            let options = RequestOptions { username: Some(username), ..RequestOptions::default() };
            assert_eq!(stun_owner(&request(&[1; 12], &options, None)), None, "{username}");
        }
    }

    #[test]
    fn a_name_leads_to_its_transport_until_that_is_released() {
        let (mut demux, mut rng) = demux();
        let (one, two) = (demux.claim(1, &mut rng).unwrap(), demux.claim(2, &mut rng).unwrap());
        assert_eq!(demux.transport_named(one.as_str()), Some(1));
        assert_eq!(demux.transport_named(two.as_str()), Some(2));
        let again = demux.renew(&one, &mut rng).unwrap();
        assert_ne!(again, one);
        assert_eq!(demux.transport_named(again.as_str()), Some(1));
        demux.release(&one);
        demux.release(&one);
        let reused = demux.claim(3, &mut rng).unwrap();
        assert_eq!(demux.slots.len() - demux.free.len(), 2);
        for stale in [one, again] {
            assert_eq!(demux.transport_named(stale.as_str()), None, "the slot has a new epoch");
        }
        assert_eq!(demux.transport_named(reused.as_str()), Some(3));
        assert_eq!(demux.renew(&one, &mut rng), None);
        let foreign = Ufrag::new(ShardId(36), 1, 0, &mut rng);
        assert_eq!(demux.transport_named(foreign.as_str()), None);
    }

    #[test]
    fn slots_are_bounded_and_come_back() {
        let (mut demux, mut rng) = demux();
        let names: Vec<Ufrag> = (0..u32::try_from(TRANSPORTS_PER_SHARD_MAX).unwrap())
            .map(|key| demux.claim(key, &mut rng).unwrap())
            .collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), TRANSPORTS_PER_SHARD_MAX);
        assert_eq!(demux.claim(0, &mut rng), None);
        demux.release(&names[7]);
        assert!(demux.claim(0, &mut rng).is_some());
        assert_eq!(demux.claim(0, &mut rng), None);
    }

    #[test]
    fn an_address_belongs_to_whom_it_was_validated_for_last() {
        let (mut demux, _) = demux();
        assert!(demux.insert_path(path(1), 1));
        assert!(demux.insert_path(path(1), 2));
        demux.remove_path(&path(1), 1);
        assert_eq!(demux.transport_at(&path(1)), Some(2));
        let tcp = Path { protocol: Protocol::Tcp, ..path(1) };
        assert_eq!(demux.transport_at(&tcp), None);
        demux.remove_path(&path(1), 2);
        assert_eq!((demux.transport_at(&path(1)), demux.path_count()), (None, 0));
    }

    #[test]
    fn addresses_are_bounded() {
        let (mut demux, _) = demux();
        let paths = |count: usize| {
            (0..u32::try_from(count).unwrap()).map(|n| {
                let remote = SocketAddr::from((n.to_be_bytes(), 1));
                Path { remote, ..path(1) }
            })
        };
        assert!(paths(PATHS_PER_SHARD_MAX).all(|path| demux.insert_path(path, 1)));
        assert!(!demux.insert_path(path(2), 1));
        assert!(paths(1).all(|path| demux.insert_path(path, 2)), "known ones may change hands");
    }

    #[test]
    fn neighbouring_addresses_hash_apart() {
        let (demux, _) = demux();
        let hash = *demux.paths.hasher();
        let low: HashSet<u64> = (0..4096).map(|port| hash.hash_one(path(port)) % 65_536).collect();
        assert!(low.len() > 3800, "4096 hashes fall into {} of 65,536 places", low.len());
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = (PacketClass::of(&bytes), ufrag_of(&bytes), stun_owner(&bytes));
        }

        #[test]
        fn any_name_survives(name in "\\PC{0,40}|[a-z2-7]{32}") {
            let (mut demux, mut rng) = demux();
            demux.claim(1, &mut rng).unwrap();
            let known = demux.transport_named(&name);
            prop_assert!(known.is_none() || name.starts_with("bf"));
        }

        #[test]
        fn a_name_tells_its_place(
            shard in 0..1024_u16,
            slot in 0..1_u32 << 20,
            epoch in 0..1_u32 << 20,
        ) {
            let ufrag = Ufrag::new(ShardId(shard), slot, epoch, &mut StdRng::seed_from_u64(1));
            prop_assert_eq!(ufrag.place(), Some(Place { shard: ShardId(shard), slot, epoch }));
        }
    }
}
