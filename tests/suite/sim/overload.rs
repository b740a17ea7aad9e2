//! A shard that is given more than it can send: what it sheds, whose it is, and that it recovers.

use std::time::{Duration, Instant};

use ringcast::control::command::{Command, ConnectTransport, CreateTransport};
use ringcast::engine::dtls::PeerCertificate;
use ringcast::engine::io::{Train, TransmitBatch};
use ringcast::engine::machine::Machine;
use ringcast::engine::transport::rtc::RemoteDtls;
use ringcast::id::{PeerId, RoomId, TransportId};
use uuid::Uuid;

use super::media::{Codec, Packet};
use super::room::{Camera, Feed, Room, View, ms, secs};

/// What a shard can send: so many datagrams a millisecond, and nothing saved up.
pub(crate) struct Capacity {
    per_ms: f64,
    /// Below zero after a batch that held more than was left.
    left: f64,
    since: Option<Instant>,
    /// There is more to send than could be.
    waiting: bool,
}

impl Capacity {
    pub(crate) fn new(per_ms: f64) -> Self {
        Self { per_ms, left: per_ms, since: None, waiting: false }
    }

    pub(crate) fn is_left(&mut self, now: Instant) -> bool {
        let passed = self.since.replace(now).map_or(Duration::ZERO, |since| now - since);
        self.left = (self.left + passed.as_secs_f64() * 1e3 * self.per_ms).min(self.per_ms);
        self.left > 0.0
    }

    pub(crate) fn spend(&mut self, batch: &TransmitBatch, more: bool) {
        self.left -= batch.trains().iter().map(Train::segments).sum::<usize>() as f64;
        self.waiting = more;
    }

    /// When the rest may leave.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.since.filter(|_| self.waiting).map(|since| since + ms(1))
    }
}

/// A camera, a microphone, and what each viewer receives of them.
struct Call {
    feeds: [Feed; 2],
    pictures: Vec<View>,
    sounds: Vec<View>,
}

fn call(room: &mut Room, viewers: usize) -> Call {
    let publisher = room.publisher();
    let camera = room.produce(publisher, &Camera::new(Codec::Vp8));
    let microphone = room.produce(publisher, &Camera::new(Codec::Opus));
    let (mut pictures, mut sounds) = (Vec::new(), Vec::new());
    for _ in 0..viewers {
        let viewer = room.subscriber();
        pictures.push(room.consume(viewer, &camera));
        sounds.push(room.consume(viewer, &microphone));
    }
    room.start(&camera);
    room.start(&microphone);
    Call { feeds: [camera, microphone], pictures, sounds }
}

/// A shard with a large call and a small one, whose cameras are so far `apart`.
fn two_calls(apart: Duration) -> (Room, Call, Call) {
    let mut room = Room::new(1);
    let large = call(&mut room, 12);
    room.run_for(apart);
    let small = call(&mut room, 2);
    room.run_for(secs(2));
    (room, large, small)
}

/// Places in what was sent of what a viewer heard, in order of arrival, with the time of each.
fn places(room: &Room, view: &View, feed: &Feed) -> Vec<(usize, Instant)> {
    let sent: &[Packet] = &room.source(feed, 0).sent;
    let mut from = 0;
    let place = |heard: super::clients::Heard| {
        let ahead = sent[from..].iter().position(|packet| *packet.payload == *heard.payload);
        from += ahead.expect("nothing else than what was sent, and in its order");
        (from, heard.at)
    };
    room.heard(view).into_iter().map(place).collect()
}

/// The part of what was sent between two moments that the viewers heard.
fn part_heard(room: &Room, views: &[View], feed: &Feed, (from, to): (Instant, Instant)) -> f64 {
    let sent = &room.source(feed, 0).sent;
    let within = |place: usize| (from..to).contains(&sent[place].at);
    let due = views.len() * (0..sent.len()).filter(|place| within(*place)).count();
    let heard = views.iter().flat_map(|view| places(room, view, feed));
    heard.filter(|(place, _)| within(*place)).count() as f64 / due as f64
}

/// Numbers without a gap, and a picture that goes on with a key frame wherever something is left out.
fn assert_continuous(room: &Room, call: &Call) {
    for (views, feed) in [&call.pictures, &call.sounds].into_iter().zip(&call.feeds) {
        let sent = &room.source(feed, 0).sent;
        for view in views {
            let heard = room.heard(view);
            for pair in heard.windows(2) {
                assert_eq!(pair[1].seq.wrapping_sub(pair[0].seq), 1, "a gap in the numbers");
                let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp).cast_signed();
                assert!(step >= 0, "time runs backwards");
            }
            let places = places(room, view, feed);
            for pair in places.windows(2) {
                let (before, after) = (pair[0].0, pair[1].0);
                let goes_on = after == before + 1;
                assert!(goes_on || feed.codec == Codec::Opus || sent[after].key, "{pair:?}");
            }
        }
    }
}

fn shed(room: &Room) -> (u64, u64) {
    (room.counters().shed_audio, room.counters().shed_video)
}

#[test]
fn overload_is_shed_evenly_and_leaves_no_trace() {
    // 14 viewers of 50 + 75 packets a second, and what part of that can be sent.
    for (per_ms, apart) in [(0.8, ms(450)), (1.2, ms(330))] {
        let (mut room, large, small) = two_calls(apart);
        assert_eq!(shed(&room), (0, 0), "nothing is shed while all can be sent");
        room.capacity = Some(Capacity::new(per_ms));
        room.batch = TransmitBatch::new(4 * 1600, 4, 2);
        let begun = room.now;
        room.run_for(secs(6));
        let ended = room.now;
        room.capacity = None;
        // What waited too long until now is shed still.
        room.run_for(ms(100));
        let (audio, video) = shed(&room);
        assert!(audio > 0 && video > audio, "{audio} {video}");
        room.run_for(secs(3));
        assert_eq!(shed(&room), (audio, video), "nothing is shed once all can be sent again");

        let span = (begun + secs(1), ended - secs(1));
        let part = |call: &Call| {
            let [camera, microphone] = &call.feeds;
            let picture = part_heard(&room, &call.pictures, camera, span);
            (picture, part_heard(&room, &call.sounds, microphone, span))
        };
        let (in_large, in_small) = (part(&large), part(&small));
        let told = format!("{in_large:?} and {in_small:?}");
        assert!(in_large.1 > 0.8 && (0.9..1.1).contains(&(in_small.1 / in_large.1)), "{told}");
        // When a picture comes back is a matter of its key frame, and it is the large call's that
        // brings the overload back; so this is coarse.
        assert!(in_large.0 > 0.1 && (0.5..4.0).contains(&(in_small.0 / in_large.0)), "{told}");
        assert_silence_is_short(&room, &small, span, ms(500));
        for call in [&large, &small] {
            assert_continuous(&room, call);
            // Everything of the last second arrives again.
            let late = (room.now - secs(1), room.now - ms(50));
            for (views, feed) in [&call.pictures, &call.sounds].into_iter().zip(&call.feeds) {
                assert_eq!(part_heard(&room, views, feed, late), 1.0);
            }
        }
        assert_eq!(room.counters().nacks_received, 0, "nobody misses what was shed");
    }
}

fn assert_silence_is_short(
    room: &Room,
    call: &Call,
    (from, to): (Instant, Instant),
    longest: Duration,
) {
    for view in &call.sounds {
        let heard = places(room, view, &call.feeds[1]).into_iter().map(|(_, at)| at);
        let mut last = from;
        for at in heard.filter(|at| (from..to).contains(at)).chain([to]) {
            assert!(at - last <= longest, "silence of {:?}", at - last);
            last = at;
        }
    }
}

#[test]
fn what_the_shard_can_send_in_time_is_not_shed_however_it_comes() {
    let mut room = Room::new(3);
    let publisher = room.publisher();
    let camera = room.produce(publisher, &Camera::new(Codec::Vp8));
    room.start(&camera);
    room.run_for(secs(1));
    // A late joiner catches up with a key frame that is older than any packet may wait.
    room.source_mut(&camera, 0).wants_key = true;
    room.run_for(ms(40 + 250));
    let viewer = room.subscriber();
    let asked = room.counters().plis_sent;
    let view = room.consume(viewer, &camera);
    room.run_for(secs(1));
    assert!(!room.heard(&view).is_empty() && room.counters().plis_sent <= asked + 1);
    // The process stands still: what the kernel kept meanwhile is sent, late as it is.
    room.seat(publisher).up.delay = ms(500);
    room.run_for(secs(2));
    room.now += ms(450);
    room.run_for(secs(2));
    assert_eq!(shed(&room), (0, 0));
    room.assert_played_from_key_frame(&view, &camera);
}

/// How many key-frame requests a publisher heard since then.
fn asked(room: &Room, feed: &Feed, since: Instant) -> usize {
    room.seats[feed.peer.0].stock().asked.iter().filter(|(at, ..)| *at >= since).count()
}

/// Nothing leaves for longer than a packet may wait, then all can be sent again.
fn stand_still(room: &mut Room) {
    room.capacity = Some(Capacity::new(0.0));
    room.run_for(ms(400));
    room.capacity = None;
}

#[test]
fn a_late_viewer_that_gave_up_its_way_to_another_encoding_does_not_ask_for_it() {
    let mut room = Room::new(5);
    let publisher = room.publisher();
    let camera = Camera { rids: vec!["q", "h"], ..Camera::new(Codec::Vp8) };
    let camera = room.produce(publisher, &camera);
    let viewer = room.subscriber();
    let view = room.consume(viewer, &camera);
    // The higher encoding never answers a request, and ends while it is waited for.
    room.source_mut(&camera, 1).deaf_for = usize::MAX;
    room.start(&camera);
    // Time alone changes nothing in the choice of layers while the lower one is waited for.
    room.run_for(ms(6200));
    room.stop(&camera, 1);
    stand_still(&mut room);
    room.run_for(secs(3));
    assert!(shed(&room).1 > 0);
    let (since, heard) = (room.now, room.heard(&view).len());
    room.run_for(secs(5));
    assert!(room.heard(&view).len() > heard + 100, "the lower one is seen again");
    assert_eq!(asked(&room, &camera, since), 0);
}

#[test]
fn a_key_frame_for_a_late_viewer_is_asked_for_though_its_stream_rests() {
    let mut room = Room::new(6);
    let publisher = room.publisher();
    // A shared screen on which nothing moves.
    let screen = room.produce(publisher, &Camera::new(Codec::Vp8));
    let viewer = room.subscriber();
    room.consume(viewer, &screen);
    room.start(&screen);
    room.run_for(secs(6));
    room.capacity = Some(Capacity::new(0.0));
    room.run_for(ms(100));
    room.stop(&screen, 0);
    stand_still(&mut room);
    let since = room.now;
    room.run_for(ms(300));
    assert!(shed(&room).1 > 0);
    assert_eq!(asked(&room, &screen, since), 1);
}

#[test]
fn sound_that_waited_until_its_ring_went_round_is_shed_with_what_the_ring_still_has() {
    let mut room = Room::new(7);
    let call = call(&mut room, 2);
    room.run_for(secs(2));
    room.capacity = Some(Capacity::new(0.0));
    room.run_for(secs(3));
    room.capacity = None;
    let since = room.now;
    room.run_for(secs(1));
    let sent = &room.source(&call.feeds[1], 0).sent;
    for view in &call.sounds {
        let heard = places(&room, view, &call.feeds[1]);
        let heard: Vec<_> = heard.into_iter().filter(|(_, at)| *at > since).collect();
        assert!(heard.len() >= 50, "the last second is heard");
        for (place, at) in heard {
            let late = at - sent[place].at;
            assert!(late < ms(300), "heard {late:?} after it was said");
        }
    }
    assert_continuous(&room, &call);
}

#[test]
fn timers_beyond_a_turns_part_are_left_for_the_next() {
    let mut room = Room::new(4);
    let count = 600;
    for number in 0..count {
        let transport = TransportId(Uuid::from_u128(number));
        room.command(Command::CreateTransport(CreateTransport {
            transport,
            room: RoomId::try_from("lounge").unwrap(),
            peer: PeerId::try_from("somebody").unwrap(),
        }));
        let certificate = PeerCertificate::Ecdsa;
        let remote = RemoteDtls { fingerprint: [7; 32], is_client: true, certificate };
        room.command(Command::ConnectTransport(ConnectTransport { transport, remote }));
    }
    // None of them comes in time.
    let now = room.now + secs(60);
    let mut turns = 0;
    while room.engine().poll_timeout().is_some_and(|at| at <= now) {
        room.engine().handle_timeout(now);
        turns += 1;
        let left = room.gauges().transports;
        assert!(left + turns * 256 >= 600, "{left} left after {turns} turns");
    }
    assert!(turns > 2 && room.gauges().transports == 0, "{turns} turns");
}
