//! What will be played: rooms, peers, what each publishes, and when each packet is due.
//!
//! Made by `main` from the arguments; a pure function of them, so a seed names a run. Scenarios live
//! here and only here: a new one is a new arm of [`Shape::of`].

use std::ops::Range;

use crate::args::{Args, Scenario};
use crate::behaviour::{FrameSizes, Percent};
use crate::clock::{MILLISECOND, SECOND};
use crate::frames::Frames;
use crate::payload::Kind;
use crate::rng::Rng;
use crate::rtp::HEADER_BYTES;
use crate::schedule::Schedule;
use crate::shim::Conditions;

/// Audio packets per second: one every 20 ms.
const AUDIO_PPS: u64 = 50;

/// Peers of a room of scenario `rooms`.
const ROOM_OF_FOUR: u32 = 4;

/// Transports of a room of scenario `idle`.
const IDLE_IN_ROOM: u32 = 100;

/// Frames per second of a simulcast publisher.
const SIMULCAST_FPS: u64 = 30;

/// Rid, picture height and bits per second of the encodings of a simulcast publisher: libwebrtc's
/// targets for 1280 × 720.
const SIMULCAST: [(u8, u16, u64); 3] =
    [(b'q', 180, 150_000), (b'h', 360, 500_000), (b'f', 720, 2_500_000)];

/// One encoding of a publication: a stream of RTP packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoding {
    /// Its number in the plan, which its stamps carry.
    pub(crate) number: u32,
    /// How large its packets are.
    pub(crate) frames: Frames,
    /// RTP synchronisation source.
    pub(crate) ssrc: u32,
    /// The first sequence number.
    pub(crate) sequence: u16,
    /// The rid among several encodings: one letter.
    pub(crate) rid: Option<u8>,
    /// Picture height.
    pub(crate) height: u16,
    /// Bits per second that are announced for it, with a rid.
    pub(crate) bitrate: u64,
}

impl Encoding {
    /// The synchronisation source of what is sent again.
    pub(crate) fn repair_ssrc(&self) -> u32 {
        self.ssrc | 0x8000_0000
    }
}

/// One stream that a peer publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publication {
    /// What it looks like.
    pub(crate) kind: Kind,
    /// When the frames of each of its encodings are due.
    pub(crate) schedule: Schedule,
    /// The mid in its transport: one digit.
    pub(crate) mid: u8,
    /// From the smallest to the largest; never empty.
    pub(crate) encodings: Vec<Encoding>,
}

impl Publication {
    /// The numbers of its encodings, which follow each other.
    pub(crate) fn numbers(&self) -> Range<u32> {
        let first = self.encodings.first().map_or(0, |encoding| encoding.number);
        first..first + u32::try_from(self.encodings.len()).unwrap_or(0)
    }
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

/// Transports that join and leave while the run goes on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Churn {
    /// Joins per second.
    pub(crate) joins_per_s: u32,
    /// How long each stays on average, seconds.
    pub(crate) stay: f64,
}

/// How the clients of a run behave.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Conduct {
    /// The way to the server.
    pub(crate) up: Conditions,
    /// The way from the server.
    pub(crate) down: Conditions,
    /// Lost packets are asked for and sent again.
    pub(crate) repair: bool,
    /// Once connected, only consent is kept up: the agent is put away.
    pub(crate) idle: bool,
    /// Only joins during the run are timed.
    pub(crate) churns: bool,
}

/// All rooms of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// The rooms.
    pub(crate) rooms: Vec<Room>,
    /// How clients behave.
    pub(crate) conduct: Conduct,
    /// Joins during the run.
    pub(crate) churn: Option<Churn>,
}

/// What a scenario is made of, with the arguments' numbers.
struct Shape {
    rooms: u32,
    publishers: u32,
    subscribers: u32,
    kinds: &'static [Kind],
    meets: bool,
}

impl Shape {
    fn of(args: &Args) -> Self {
        const BOTH: &[Kind] = &[Kind::Audio, Kind::Video];
        const VIDEO: &[Kind] = &[Kind::Video];
        let (publishers, subscribers, kinds, meets) = match args.scenario {
            Scenario::Livestream => (1, 100, VIDEO, false),
            Scenario::Audio => (10, 50, &[Kind::Audio] as &[Kind], false),
            Scenario::Meeting => (8, 0, BOTH, true),
            Scenario::Rooms => (ROOM_OF_FOUR, 0, BOTH, true),
            Scenario::Churn | Scenario::Lossy => (1, 20, VIDEO, false),
            Scenario::Simulcast => (1, 10, VIDEO, false),
            Scenario::Soak => (4, 0, BOTH, true),
            Scenario::Idle => {
                let transports = args.behaviour.transports;
                let rooms = args.rooms.unwrap_or_else(|| transports.div_ceil(IDLE_IN_ROOM));
                let subscribers = transports.div_ceil(rooms);
                return Self { rooms, publishers: 0, subscribers, kinds: &[], meets: false };
            }
        };
        let (publishers, subscribers) = match args.scenario {
            Scenario::Rooms => (publishers, subscribers),
            _ => (args.publishers.unwrap_or(publishers), args.subscribers.unwrap_or(subscribers)),
        };
        let rooms = args.rooms.unwrap_or(if args.scenario == Scenario::Rooms { 25 } else { 1 });
        Self { rooms, publishers, subscribers, kinds, meets }
    }
}

impl Plan {
    /// The plan of a scenario with its parameters. `run` tells the rooms of this run from those of
    /// others on the same server.
    pub(crate) fn new(args: &Args, run: &str) -> Self {
        let mut maker = Maker::new(args);
        let shape = Shape::of(args);
        let mut idle_left = args.behaviour.transports;
        let rooms = (0..shape.rooms)
            .map(|room| {
                let publishing = (0..shape.publishers).map(|peer| Peer {
                    id: format!("publisher-{peer}"),
                    publications: maker.publications(shape.kinds),
                    subscribes: shape.meets,
                });
                let mut peers: Vec<_> = publishing.collect();
                let subscribers = match args.scenario {
                    Scenario::Idle => shape.subscribers.min(idle_left),
                    _ => shape.subscribers,
                };
                idle_left = idle_left.saturating_sub(subscribers);
                peers.extend((0..subscribers).map(|peer| Peer {
                    id: format!("subscriber-{peer}"),
                    publications: Vec::new(),
                    subscribes: true,
                }));
                Room { id: format!("loadtest-{run}-{room}"), peers }
            })
            .collect();
        Self { rooms, conduct: conduct(args), churn: churn(args) }
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

    /// How many streams are delivered when everything works, joins during the run left out.
    pub(crate) fn subscriptions(&self) -> usize {
        let of_room = |room: &Room| {
            let all: usize = room.peers.iter().map(|peer| peer.publications.len()).sum();
            let subscribers = room.peers.iter().filter(|peer| peer.subscribes);
            subscribers.map(|peer| all - peer.publications.len()).sum::<usize>()
        };
        self.rooms.iter().map(of_room).sum()
    }

    /// How many transports it needs, joins during the run left out.
    pub(crate) fn transports(&self) -> usize {
        let peers = self.rooms.iter().flat_map(|room| &room.peers);
        peers
            .map(|peer| usize::from(!peer.publications.is_empty()) + usize::from(peer.subscribes))
            .sum()
    }
}

/// How the clients of a scenario behave.
fn conduct(args: &Args) -> Conduct {
    let behaviour = &args.behaviour;
    let (loss, reorder) = match args.scenario {
        Scenario::Lossy => (2.0, 0.5),
        Scenario::Soak => (0.2, 0.0),
        _ => (0.0, 0.0),
    };
    let up = behaviour.loss_up.unwrap_or(Percent(loss));
    let down = behaviour.loss_down.unwrap_or(up);
    let conditions = |loss: Percent| Conditions {
        loss: loss.share(),
        burst: behaviour.loss_burst,
        reorder: behaviour.reorder.unwrap_or(Percent(reorder)).share(),
    };
    let repairs = matches!(args.scenario, Scenario::Lossy | Scenario::Simulcast | Scenario::Soak);
    Conduct {
        up: conditions(up),
        down: conditions(down),
        repair: behaviour.repair || repairs,
        idle: args.scenario == Scenario::Idle,
        churns: churn(args).is_some(),
    }
}

/// The joins of a scenario while it runs.
fn churn(args: &Args) -> Option<Churn> {
    let asked = args.behaviour.joins_per_s;
    let joins_per_s = match args.scenario {
        Scenario::Churn => asked.unwrap_or(20),
        Scenario::Soak => asked.unwrap_or(2),
        _ => return None,
    };
    Some(Churn { joins_per_s, stay: args.behaviour.stay })
}

/// Packets per second of a publisher of video with one encoding.
pub(crate) fn video_pps(args: &Args) -> u64 {
    let pps = args.behaviour.bitrate.map(|bits| (bits / 8 / args.size).max(1)).or(args.pps);
    pps.unwrap_or(match args.scenario {
        Scenario::Livestream => 500,
        _ => 125,
    })
}

struct Maker {
    rng: Rng,
    scenario: Scenario,
    video_pps: u64,
    burst: u64,
    video_bytes: u64,
    frame_sizes: FrameSizes,
    audio_bytes: u64,
    numbers: u32,
}

impl Maker {
    fn new(args: &Args) -> Self {
        Self {
            rng: Rng::new(args.seed),
            scenario: args.scenario,
            video_pps: video_pps(args),
            burst: args.burst,
            video_bytes: args.size,
            frame_sizes: args.behaviour.frame_sizes,
            audio_bytes: args.audio_size,
            numbers: 0,
        }
    }

    fn publications(&mut self, kinds: &[Kind]) -> Vec<Publication> {
        kinds.iter().zip(b'0'..).map(|(kind, mid)| self.publication(*kind, mid)).collect()
    }

    fn publication(&mut self, kind: Kind, mid: u8) -> Publication {
        let simulcast = self.scenario == Scenario::Simulcast && kind == Kind::Video;
        let (pps, burst) = match kind {
            Kind::Audio => (AUDIO_PPS, 1),
            Kind::Video if simulcast => (SIMULCAST_FPS, 1),
            Kind::Video => (self.video_pps, self.burst),
        };
        // Publishers do not begin their frames together.
        let period = (SECOND * burst / pps).min(SECOND);
        let schedule = Schedule { phase: MILLISECOND + self.rng.below(period), pps, burst };
        let encodings = if simulcast {
            let layer = |(rid, height, bits)| self.encoding(kind, Some((rid, height, bits)));
            SIMULCAST.map(layer).into()
        } else {
            vec![self.encoding(kind, None)]
        };
        Publication { kind, schedule, mid, encodings }
    }

    fn encoding(&mut self, kind: Kind, layer: Option<(u8, u16, u64)>) -> Encoding {
        let number = self.numbers;
        self.numbers += 1;
        let ssrc = 0x1000_0000 | number << 8 & 0x0FFF_FF00 | self.rng.next_u32() & 0xFF;
        // Below half, as RFC 3711 §3.3.1 advises.
        let sequence = self.rng.next_u16() >> 1;
        let size = |bytes| usize::try_from(bytes).unwrap_or(HEADER_BYTES);
        let packets = size(self.burst);
        let packet_bytes_max = size(self.video_bytes);
        let varied = |seed, mean_bytes| Frames::Varied { seed, mean_bytes, packet_bytes_max };
        let frames = match (kind, layer) {
            (Kind::Audio, _) => Frames::Fixed { packets: 1, packet_bytes: size(self.audio_bytes) },
            (Kind::Video, Some((.., bits))) => {
                varied(self.rng.next_u64(), bits / 8 / SIMULCAST_FPS)
            }
            (Kind::Video, None) => match self.frame_sizes {
                FrameSizes::Fixed => Frames::Fixed { packets, packet_bytes: packet_bytes_max },
                FrameSizes::Libwebrtc => {
                    let payload = packet_bytes_max.saturating_sub(HEADER_BYTES);
                    let mean = payload.saturating_mul(packets);
                    varied(self.rng.next_u64(), u64::try_from(mean).unwrap_or(u64::MAX))
                }
            },
        };
        let (rid, height, bitrate) = layer.map_or((None, 360, 0), |(r, h, b)| (Some(r), h, b));
        // The number keeps sources apart, whatever the seed.
        Encoding { number, frames, ssrc, sequence, rid, height, bitrate }
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
            ("loadtest churn", 1, 20, 21),
            ("loadtest churn --subscribers 0", 1, 0, 1),
            ("loadtest lossy", 1, 20, 21),
            ("loadtest simulcast", 1, 10, 11),
            ("loadtest soak", 8, 24, 8),
            ("loadtest idle", 0, 0, 1_000),
            ("loadtest idle --transports 250 --rooms 3", 0, 0, 250),
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
        for scenario in ["rooms", "simulcast", "lossy --frame-sizes libwebrtc"] {
            let with = |seed| plan(&format!("loadtest {scenario} --seed {seed}"));
            assert_eq!(with(5), with(5));
            assert_ne!(with(5), with(6));
        }
    }

    #[test]
    fn no_two_encodings_share_a_source_or_a_number() {
        for line in ["loadtest rooms --rooms 100", "loadtest simulcast --publishers 200"] {
            let plan = plan(line);
            let mut seen = std::collections::HashSet::new();
            for (_, _, publication) in plan.publications() {
                for encoding in &publication.encodings {
                    assert!(seen.insert(encoding.ssrc));
                    assert!(seen.insert(encoding.repair_ssrc()));
                    assert!(seen.insert(encoding.number), "numbers are far below sources");
                }
            }
        }
    }

    #[test]
    fn a_simulcast_publisher_has_three_encodings_from_small_to_large() {
        let plan = plan("loadtest simulcast");
        let (_, _, publication) = plan.publications().next().unwrap();
        let layers: Vec<_> =
            publication.encodings.iter().map(|one| (one.rid, one.height, one.number)).collect();
        let expected = [(Some(b'q'), 180, 0), (Some(b'h'), 360, 1), (Some(b'f'), 720, 2)];
        assert_eq!(layers, expected);
        assert_eq!(publication.schedule.pps / publication.schedule.burst, 30);
    }

    #[test]
    fn networks_and_joins_are_those_of_the_scenario_unless_told_otherwise() {
        let lossy = plan("loadtest lossy").conduct;
        assert!((lossy.up.loss - 0.02).abs() < 1e-9 && (lossy.down.loss - 0.02).abs() < 1e-9);
        assert!(lossy.repair && lossy.up.reorder > 0.0);
        let told = plan("loadtest lossy --loss-up 0% --loss-down 5 --reorder 0").conduct;
        assert!(!told.up.are_bad() && (told.down.loss - 0.05).abs() < 1e-9);
        let live = plan("loadtest livestream").conduct;
        assert!(!live.up.are_bad() && !live.down.are_bad() && !live.repair && !live.idle);
        assert!(plan("loadtest livestream --loss-down 1").conduct.down.are_bad());
        assert!(plan("loadtest idle").conduct.idle);
        assert_eq!(plan("loadtest churn").churn, Some(Churn { joins_per_s: 20, stay: 5.0 }));
        assert_eq!(plan("loadtest soak --joins-per-s 9").churn.unwrap().joins_per_s, 9);
        assert_eq!(plan("loadtest meeting").churn, None);
    }

    #[test]
    fn a_bit_rate_is_packets_of_the_asked_size() {
        let plan = plan("loadtest livestream --bitrate 4.8M --size 1000");
        assert_eq!(plan.publications().next().unwrap().2.schedule.pps, 600);
    }
}
