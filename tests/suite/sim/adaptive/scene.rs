//! A plan in virtual time: a publisher for each camera, viewers behind one link.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringcast::control::command::{Command, Reply};
use ringcast::engine::srtp::SrtpProfile;
use ringcast::id::TransportId;
use ringcast::ortc::types::RtpCapabilities;

use super::super::bottleneck::{Bottleneck, Excess};
use super::super::media::Codec;
use super::super::network::{Bursts, Link};
use super::super::room::{Camera, Feed, Peer, Room, View, ms, secs, without_feedback};
use super::encoder::Encoder;
use super::incoming::Incoming;
use super::plan::{Buffer, Plan, Show};
use super::viewer::{Answer, Habits, Viewer};

/// A browser's pacer sends at 2.5 times its rate.
const PUBLISHER_BPS: u64 = 6_000_000;
const SAMPLE_EVERY: Duration = Duration::from_millis(200);

/// One viewer's picture and sound of one camera.
pub(crate) struct Watched {
    pub(crate) peer: Peer,
    pub(crate) picture: View,
    pub(crate) sound: Option<View>,
}

pub(crate) struct Scene {
    pub(crate) room: Room,
    pub(crate) plan: Plan,
    pub(crate) link: Rc<RefCell<Bottleneck>>,
    pub(crate) began: Instant,
    pub(crate) feeds: Vec<Feed>,
    pub(crate) watched: Vec<Watched>,
    /// What each transport is believed to carry, over time.
    pub(crate) estimates: Vec<Vec<(Instant, u64)>>,
    pub(crate) viewers: Vec<Peer>,
}

impl Scene {
    /// All are there, and the cameras have been on for a while: viewers join a running call.
    pub(crate) fn new(plan: &Plan, seed: u64) -> Self {
        let mut room = Room::new(seed);
        let mut feeds = Vec::new();
        for number in 0..plan.cameras {
            feeds.extend(publish(&mut room, plan, seed * 8 + number as u64));
        }
        room.run_for(secs(4));
        let began = room.now;
        let link = Rc::new(RefCell::new(bottleneck(plan, began)));
        let one_way = plan.round_trip_ms / 2;
        let bursts = plan.bursts.map(|(share, length)| Bursts::new(share, length));
        let down = Link {
            bottleneck: Some(Rc::clone(&link)),
            loss: plan.loss,
            jitter: ms(plan.jitter_ms),
            bursts,
            ..Link::new(one_way)
        };
        let up = Link { loss: plan.feedback_loss, ..Link::new(one_way) };
        let (mut watched, mut viewers) = (Vec::new(), Vec::new());
        for _ in 0..plan.viewers {
            room.link = up.clone();
            let habits = Habits { answer: plan.answer, nack: plan.nack };
            let peer = room.viewer(habits);
            room.seat(peer).down = down.clone();
            viewers.push(peer);
        }
        let understood = capabilities(&room, plan);
        for peer in &viewers {
            for pair in feeds.chunks(1 + usize::from(plan.audio)) {
                let mut consume = |feed| room.consume_as(*peer, feed, &understood, false);
                let picture = consume(&pair[0]);
                let sound = pair.get(1).map(consume);
                watched.push(Watched { peer: *peer, picture, sound });
            }
        }
        let estimates = vec![Vec::new(); viewers.len()];
        Self { room, plan: *plan, link, began, feeds, watched, estimates, viewers }
    }

    /// Plays so much of the plan.
    pub(crate) fn play(&mut self, span: Duration) {
        let end = self.room.now + span;
        while self.room.now < end {
            self.room.run_for(SAMPLE_EVERY.min(end - self.room.now));
            let now = self.room.now;
            for (peer, series) in self.viewers.iter().zip(&mut self.estimates) {
                let transport = self.room.seats[peer.0].transport;
                series.extend(estimate(&mut self.room, transport).map(|bps| (now, bps)));
            }
        }
    }

    pub(crate) fn viewer(&self, peer: Peer) -> &Viewer {
        self.room.seats[peer.0].viewer()
    }

    /// Where nothing was lost, every picture that was sent could be decoded.
    pub(crate) fn assert_whole(&self) {
        for watched in &self.watched {
            let stream = self.incoming(&watched.picture);
            assert!(stream.gaps > 0 || stream.screen.broken == 0, "{}", self.plan.name);
            // Without RTX what is repeated has the number of what was lost, or only late.
            let refused = self.viewer(watched.peer).client.refused;
            assert!(refused == 0 || !self.plan.rtx, "{refused}");
        }
    }

    pub(crate) fn incoming(&self, view: &View) -> &Incoming {
        &self.viewer(view.peer).streams[&view.ssrc]
    }
}

/// What a plan's viewers understand.
fn capabilities(room: &Room, plan: &Plan) -> RtpCapabilities {
    let mut understood = match plan.answer {
        Answer::TransportCc => room.capabilities.clone(),
        Answer::Remb(_) => without_feedback(&room.capabilities),
    };
    understood.codecs.retain(|codec| plan.rtx || !codec.codec().is_rtx());
    for codec in &mut understood.codecs {
        let is_request = |kind: &str, parameter: &str| kind == "nack" && parameter.is_empty();
        codec.rtcp_feedback.retain(|it| plan.nack || !is_request(&it.kind, &it.parameter));
    }
    understood
}

/// What the server believes a transport to carry, in bits/s.
fn estimate(room: &mut Room, transport: TransportId) -> Option<u64> {
    match room.command(Command::TransportStats(transport)) {
        Reply::TransportStats(numbers) => numbers.available_outgoing_bps,
        other => panic!("{other:?}"),
    }
}

/// A camera and, if the plan has sound, a microphone; both are on.
fn publish(room: &mut Room, plan: &Plan, seed: u64) -> Vec<Feed> {
    room.link = Link::new(10);
    let peer = room.raw_peer(SrtpProfile::AeadAes128Gcm);
    let pacer = Bottleneck::new(room.now, PUBLISHER_BPS, Excess::Queued(usize::MAX));
    room.seat(peer).up = Link::new(10).through(pacer);
    let camera = room.produce(peer, &camera(&plan.show));
    for (number, encoding) in plan.show.encodings.iter().enumerate() {
        let encoder = Encoder::new(*encoding, u8::try_from(number).unwrap(), seed);
        room.source_mut(&camera, number).encoder = Some(Box::new(encoder));
    }
    let mut feeds = vec![camera];
    if plan.audio {
        feeds.push(room.produce(peer, &Camera::new(Codec::Opus)));
    }
    for feed in &feeds {
        room.start(feed);
        // Cameras and microphones of different people do not tick together.
        room.run_for(ms(7));
    }
    feeds
}

fn camera(show: &Show) -> Camera {
    let encodings = u32::try_from(show.encodings.len()).unwrap();
    Camera { encodings, mode: show.mode, ..Camera::new(show.codec()) }
}

fn bottleneck(plan: &Plan, began: Instant) -> Bottleneck {
    let rates: Vec<_> =
        plan.steps.iter().map(|(at, kbps)| (began + secs(*at), kbps * 1_000)).collect();
    let excess = match plan.buffer {
        Buffer::Ms(ms) => {
            let bytes = usize::try_from(rates[0].1 / 8 * ms / 1_000).unwrap();
            Excess::Queued(bytes.max(24_000))
        }
        Buffer::Policer(burst) => Excess::Policed(burst),
    };
    Bottleneck::stepped(rates, excess)
}
