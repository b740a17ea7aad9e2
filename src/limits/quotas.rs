//! Bounds of what callers may have and ask for, each of which a setting can move: `limits`.

use std::str::FromStr;

use super::{CONSUMERS_PER_TRANSPORT_MAX, PRODUCERS_PER_TRANSPORT_MAX, TRANSPORTS_PER_SHARD_MAX};

/// Readers of events on the node when nothing is said: fewer than there may be connections.
pub const EVENT_READERS: usize = 16 * 1024;

/// The highest value of a limit: nothing that is counted comes near.
pub const LIMIT_MAX: u32 = 10_000_000;

/// Who has too much, which says how a refusal is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All callers together: the node is full.
    Node,
    /// One room.
    Room,
    /// One peer, or one of its transports.
    Peer,
    /// One caller, in one second.
    Rate,
}

macro_rules! limits {
    ($($(#[doc = $doc:literal])* $limit:ident = $name:literal, $scope:ident, $default:expr, $what:literal;)*) => {
        /// Something that there may only be so much of.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Limit { $($(#[doc = $doc])* $limit,)* }

        impl Limit {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$limit,)*];

            /// Its name in the setting, in refusals and in metrics.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$limit => $name,)* }
            }

            /// What is counted, for a sentence.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self { $(Self::$limit => $what,)* }
            }

            /// Who has too much.
            #[must_use]
            pub fn scope(self) -> Scope {
                match self { $(Self::$limit => Scope::$scope,)* }
            }

            /// What it is when nothing is said.
            #[must_use]
            pub fn default_value(self) -> u32 {
                match self { $(Self::$limit => $default,)* }
            }
        }
    };
}

limits! {
    /// Rooms of the node: one without anybody in it takes some hundred bytes.
    Rooms = "rooms", Node, 100_000, "rooms";
    /// Peers of the node: more than all shards of a large host could serve.
    Peers = "peers", Node, 500_000, "peers";
    /// Transports of the node, some 42 KiB each: the shards' own bound is reached before, on all but
    /// the largest hosts.
    Transports = "transports", Node, 500_000, "transports";
    /// Producers of the node: one audio and one video for each peer that there may be.
    Producers = "producers", Node, 1_000_000, "producers";
    /// Consumers of the node, some kilobytes each.
    Consumers = "consumers", Node, 4_000_000, "consumers";
    /// Readers of events of the node, each a connection with a queue.
    EventReaders = "event-readers", Node, number(EVENT_READERS), "event readers";
    /// Peers of one room: a large broadcast.
    RoomPeers = "room-peers", Room, 10_000, "peers of a room";
    /// Transports of one room: two for each peer, and twice as many while they change over.
    RoomTransports = "room-transports", Room, 40_000, "transports of a room";
    /// Producers of one room: what a reader of its list can still make sense of.
    RoomProducers = "room-producers", Room, 10_000, "producers of a room";
    /// Consumers of one room: 1,000 who see and hear each other, or 10,000 who watch 100.
    RoomConsumers = "room-consumers", Room, 2_000_000, "consumers of a room";
    /// Readers of one room's events: the call page of each peer is one.
    RoomEventReaders = "room-event-readers", Room, 10_000, "event readers of a room";
    /// Transports of one peer: a send and a receive one are usual; one that speaks WHEP has one for
    /// each peer that it watches, and twice as many for the moment in which it changes over.
    PeerTransports = "peer-transports", Peer, 64, "transports of a peer";
    /// Producers of one peer: cameras, screens and microphones of a studio.
    PeerProducers = "peer-producers", Peer, 128, "producers of a peer";
    /// Consumers of one peer: two full transports of them.
    PeerConsumers = "peer-consumers", Peer, 4096, "consumers of a peer";
    /// Readers of events of one peer, where tokens tell who reads: a page, its reload, and tools.
    PeerEventReaders = "peer-event-readers", Peer, 16, "event readers of a peer";
    /// Requests per second of one address, save loopback, where a proxy or the load test are: a
    /// thousand people of one office who join within ten seconds.
    AddressRequests = "address-requests", Rate, 1000, "requests of an address";
    /// Requests per second of one token: a page that joins a large call asks for a hundred consumers
    /// at once, and then now and then.
    TokenRequests = "token-requests", Rate, 200, "requests of a token";
    /// Requests per second of one API key: a backend calls for everybody, so there is no limit.
    KeyRequests = "key-requests", Rate, 0, "requests of an API key";
    /// Producers of one transport; not to be set.
    TransportProducers = "transport-producers", Peer, number(PRODUCERS_PER_TRANSPORT_MAX),
        "producers of a transport";
    /// Consumers of one transport; not to be set.
    TransportConsumers = "transport-consumers", Peer, number(CONSUMERS_PER_TRANSPORT_MAX),
        "consumers of a transport";
    /// SSRCs of one transport, which are drawn by chance; not to be set.
    TransportSsrcs = "transport-ssrcs", Peer, u32::MAX, "SSRCs of a transport";
    /// What one shard can hold, and with that the node, which fills the emptiest; not to be set.
    Shard = "shard", Node, number(TRANSPORTS_PER_SHARD_MAX), "a shard's transports or mirrors";
}

#[expect(clippy::cast_possible_truncation, reason = "bounds are far below 2³²")]
const fn number(bound: usize) -> u32 {
    bound as u32
}

impl Limit {
    /// Whether the setting `limits` can move it.
    #[must_use]
    pub fn is_settable(self) -> bool {
        !matches!(
            self,
            Self::TransportProducers
                | Self::TransportConsumers
                | Self::TransportSsrcs
                | Self::Shard
        )
    }
}

/// The value of every limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits(Vec<u32>);

impl Default for Limits {
    fn default() -> Self {
        Self(Limit::ALL.iter().map(|limit| limit.default_value()).collect())
    }
}

impl Limits {
    /// Moves one limit.
    pub fn set(&mut self, LimitSetting { limit, value }: LimitSetting) {
        if let Some(place) = self.0.get_mut(limit as usize) {
            *place = value;
        }
    }

    /// Every limit that can be set, as the setting says it: `rooms=100`.
    pub fn settings(&self) -> impl Iterator<Item = String> {
        let settable = Limit::ALL.iter().filter(|limit| limit.is_settable());
        settable.map(|limit| format!("{}={}", limit.name(), self.get(*limit)))
    }

    /// The most there may be; of a rate, requests per second, and 0 for any number.
    #[must_use]
    pub fn get(&self, limit: Limit) -> usize {
        let value = self.0.get(limit as usize).copied();
        usize::try_from(value.unwrap_or_else(|| limit.default_value())).unwrap_or(usize::MAX)
    }

    /// The limit, when there is as much as there may be already.
    ///
    /// # Errors
    /// The limit itself.
    pub fn check(&self, limit: Limit, present: usize) -> Result<(), Limit> {
        if present < self.get(limit) { Ok(()) } else { Err(limit) }
    }
}

/// A limit and its value, as the setting says them: `rooms=100`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSetting {
    /// Which.
    pub limit: Limit,
    /// How much.
    pub value: u32,
}

impl FromStr for LimitSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no limit and its value, such as room-peers=50");
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let name = name.trim();
        let settable = Limit::ALL.iter().filter(|limit| limit.is_settable());
        let Some(&limit) = settable.clone().find(|limit| limit.name() == name) else {
            let known: Vec<&str> = settable.map(|limit| limit.name()).collect();
            return Err(format!("{name:?} is no limit; there are {}", known.join(", ")));
        };
        let least = u32::from(limit.scope() != Scope::Rate);
        match value.trim().parse() {
            Ok(value) if (least..=LIMIT_MAX).contains(&value) => Ok(Self { limit, value }),
            _ => Err(format!("{name} has a value from {least} to {LIMIT_MAX}, not {value:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_place_a_name_and_a_value_that_is_in_range() {
        let mut limits = Limits::default();
        let mut names = Vec::new();
        for (place, limit) in Limit::ALL.iter().enumerate() {
            assert_eq!(*limit as usize, place);
            assert!(!names.contains(&limit.name()));
            names.push(limit.name());
            let said = format!("{}=7", limit.name()).parse();
            assert_eq!(said.is_ok(), limit.is_settable(), "{limit:?}");
            let Ok(said) = said else { continue };
            assert!(limit.default_value() <= LIMIT_MAX);
            limits.set(said);
            assert_eq!(limits.get(*limit), 7);
            assert_eq!((limits.check(*limit, 6), limits.check(*limit, 7)), (Ok(()), Err(*limit)));
        }
    }

    #[test]
    fn only_a_rate_may_be_without_bound() {
        for (text, good) in [
            ("rooms=1", true),
            (" rooms = 1 ", true),
            ("rooms=0", false),
            ("key-requests=0", true),
            ("rooms=10000001", false),
            ("rooms=-1", false),
            ("rooms=many", false),
            ("rooms", false),
            ("shard=1", false),
            ("halls=1", false),
        ] {
            assert_eq!(text.parse::<LimitSetting>().is_ok(), good, "{text}");
        }
    }
}
