//! What will be played: rooms, peers, what each publishes, and when each packet is due.
//!
//! Made by `main` from the arguments; a pure function of them, so a seed names a run. Scenarios live
//! here and only here: a new one is a new arm of [`Plan::new`].

use crate::args::{Args, Scenario};
use crate::clock::{MILLISECOND, SECOND};
use crate::payload::Kind;
use crate::rng::Rng;
use crate::schedule::Schedule;

/// Audio packets per second: one every 20 ms.
const AUDIO_PPS: u64 = 50;

/// Peers of a room of scenario `rooms`.
const ROOM_OF_FOUR: u32 = 4;

/// One stream that a peer publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publication {
    /// Its number in the plan, which its stamps carry.
    pub(crate) number: u32,
    /// What it looks like.
    pub(crate) kind: Kind,
    /// When its packets are due.
    pub(crate) schedule: Schedule,
    /// Bytes of an RTP packet before protection.
    pub(crate) packet_bytes: usize,
    /// RTP synchronisation source.
    pub(crate) ssrc: u32,
    /// The first sequence number.
    pub(crate) sequence: u16,
    /// The mid in its transport: one digit.
    pub(crate) mid: u8,
}

/// One participant of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// `peerId`.
    pub(crate) id: String,
    /// What it sends; a send transport is made when there is any.
    pub(crate) publications: Vec<Publication>,
    /// Whether it receives what all the others of its room publish.
    pub(crate) subscribes: bool,
}

/// One room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    /// `roomId`.
    pub(crate) id: String,
    /// Its peers.
    pub(crate) peers: Vec<Peer>,
}

/// All rooms of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The rooms.
    pub(crate) rooms: Vec<Room>,
}

impl Plan {
    /// The plan of a scenario with its parameters. `run` tells the rooms of this run from those of
    /// others on the same server.
    pub(crate) fn new(args: &Args, run: &str) -> Self {
        let mut maker = Maker::new(args);
        let rooms = args.rooms.unwrap_or(match args.scenario {
            Scenario::Rooms => 25,
            _ => 1,
        });
        let (publishers, subscribers) = (args.publishers, args.subscribers);
        let (publishers, subscribers, kinds, meets): (_, _, &[Kind], _) = match args.scenario {
            Scenario::Livestream => {
                (publishers.unwrap_or(1), subscribers.unwrap_or(100), &[Kind::Video], false)
            }
            Scenario::Audio => {
                (publishers.unwrap_or(10), subscribers.unwrap_or(50), &[Kind::Audio], false)
            }
            Scenario::Meeting => {
                let both = &[Kind::Audio, Kind::Video];
                (publishers.unwrap_or(8), subscribers.unwrap_or(0), both, true)
            }
            Scenario::Rooms => (ROOM_OF_FOUR, 0, &[Kind::Audio, Kind::Video], true),
        };
        let rooms = (0..rooms)
            .map(|room| {
                let publishing = (0..publishers).map(|peer| Peer {
                    id: format!("publisher-{peer}"),
                    publications: maker.publications(kinds),
                    subscribes: meets,
                });
                let mut peers: Vec<_> = publishing.collect();
                peers.extend((0..subscribers).map(|peer| Peer {
                    id: format!("subscriber-{peer}"),
                    publications: Vec::new(),
                    subscribes: true,
                }));
                Room { id: format!("loadtest-{run}-{room}"), peers }
            })
            .collect();
        Self { rooms }
    }

    /// All publications with their room's number and their peer's.
    #[cfg(test)]
    pub(crate) fn publications(&self) -> impl Iterator<Item = (usize, usize, &Publication)> {
        self.rooms.iter().enumerate().flat_map(|(room, in_room)| {
            in_room.peers.iter().enumerate().flat_map(move |(peer, of_peer)| {
                of_peer.publications.iter().map(move |publication| (room, peer, publication))
            })
        })
    }

    /// How many streams are delivered when everything works.
    pub(crate) fn subscriptions(&self) -> usize {
        let of_room = |room: &Room| {
            let all: usize = room.peers.iter().map(|peer| peer.publications.len()).sum();
            let subscribers = room.peers.iter().filter(|peer| peer.subscribes);
            subscribers.map(|peer| all - peer.publications.len()).sum::<usize>()
        };
        self.rooms.iter().map(of_room).sum()
    }

    /// How many transports it needs.
    pub(crate) fn transports(&self) -> usize {
        let peers = self.rooms.iter().flat_map(|room| &room.peers);
        peers
            .map(|peer| usize::from(!peer.publications.is_empty()) + usize::from(peer.subscribes))
            .sum()
    }
}

struct Maker {
    rng: Rng,
    video_pps: u64,
    burst: u64,
    video_bytes: u64,
    audio_bytes: u64,
    publications: u32,
}

impl Maker {
    fn new(args: &Args) -> Self {
        let video_pps = args.pps.unwrap_or(match args.scenario {
            Scenario::Livestream => 500,
            _ => 125,
        });
        Self {
            rng: Rng::new(args.seed),
            video_pps,
            burst: args.burst,
            video_bytes: args.size,
            audio_bytes: args.audio_size,
            publications: 0,
        }
    }

    fn publications(&mut self, kinds: &[Kind]) -> Vec<Publication> {
        kinds.iter().zip(b'0'..).map(|(kind, mid)| self.publication(*kind, mid)).collect()
    }

    fn publication(&mut self, kind: Kind, mid: u8) -> Publication {
        let (pps, burst, bytes) = match kind {
            Kind::Audio => (AUDIO_PPS, 1, self.audio_bytes),
            Kind::Video => (self.video_pps, self.burst, self.video_bytes),
        };
        // Publishers do not begin their frames together.
        let period = (SECOND * burst / pps).min(SECOND);
        let phase = MILLISECOND + self.rng.below(period);
        let number = self.publications;
        self.publications += 1;
        Publication {
            number,
            kind,
            schedule: Schedule { phase, pps, burst },
            packet_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            // The number keeps sources apart, whatever the seed.
            ssrc: 0x1000_0000 | number << 8 & 0x0FFF_FF00 | self.rng.next_u32() & 0xFF,
            // Below half, as RFC 3711 §3.3.1 advises.
            sequence: self.rng.next_u16() >> 1,
            mid,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn plan(line: &str) -> Plan {
        Plan::new(&Args::parse_from(line.split(' ')), "x")
    }

    #[test]
    fn every_scenario_has_the_streams_its_name_promises() {
        let cases = [
            ("loadtest livestream", 1, 100, 101),
            ("loadtest livestream --rooms 3 --publishers 2 --subscribers 10", 6, 60, 36),
            ("loadtest audio", 10, 500, 60),
            ("loadtest meeting --publishers 5", 10, 40, 10),
            ("loadtest rooms", 200, 600, 200),
        ];
        for (line, publications, subscriptions, transports) in cases {
            let plan = plan(line);
            assert_eq!(plan.publications().count(), publications, "{line}");
            assert_eq!(plan.subscriptions(), subscriptions, "{line}");
            assert_eq!(plan.transports(), transports, "{line}");
        }
    }

    #[test]
    fn a_seed_names_a_plan() {
        assert_eq!(plan("loadtest rooms --seed 5"), plan("loadtest rooms --seed 5"));
        assert_ne!(plan("loadtest rooms --seed 5"), plan("loadtest rooms --seed 6"));
    }

    #[test]
    fn no_two_publications_share_a_source_or_a_number() {
        let plan = plan("loadtest rooms --rooms 100");
        let mut seen = std::collections::HashSet::new();
        for (_, _, publication) in plan.publications() {
            assert!(seen.insert(publication.ssrc));
        }
    }
}
