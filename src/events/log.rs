//! One room's log and the readers that follow it.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::iter;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::gauges::{GaugeOf, Gauges};
use super::position::{EntryId, Position};
use super::readers::{Feed, Readers, Seat};
use super::room_event::RoomEvent;
use super::timestamp::WallAnchor;
use crate::id::{PeerId, RoomId};
use crate::limits::{
    EVENT_READER_QUEUE, Limit, Limits, ROOM_LOG_AGE_MAX, ROOM_LOG_BYTES_MAX, ROOM_LOG_EVENTS_MAX,
    SNAPSHOT_AGE_MAX,
};

/// One entry of a room's log, as readers get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which one of which log.
    pub id: EntryId,
    /// When it happened, in milliseconds since 1970.
    pub unix_ms: u64,
    /// A server-sent event, written once for all readers: they share its bytes.
    event: Bytes,
    /// Where its `data` begins.
    text_at: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Text<'a> {
    id: EntryId,
    seq: u64,
    /// ISO 8601, UTC.
    time: String,
    room_id: &'a RoomId,
    #[serde(rename = "type")]
    kind: &'static str,
    data: Value,
}

impl Entry {
    fn new(
        id: EntryId,
        (room_id, unix_ms, time): (&RoomId, u64, String),
        kind: &'static str,
        data: Value,
    ) -> Self {
        let text = Text { id, seq: id.seq, time, room_id, kind, data };
        let text = serde_json::to_string(&text).unwrap_or_default();
        let head = format!("id: {id}\nevent: {kind}\ndata: ");
        // JSON has no raw line breaks, so it is one `data` line.
        let event = Bytes::from(format!("{head}{text}{SSE_END}"));
        Self { id, unix_ms, event, text_at: head.len() }
    }

    /// `{id, seq, time, roomId, type, data}` as JSON, in UTF-8.
    #[must_use]
    pub fn text(&self) -> Bytes {
        self.event.slice(self.text_at..self.event.len() - SSE_END.len())
    }

    /// The same as a server-sent event.
    #[must_use]
    pub fn sse(&self) -> Bytes {
        self.event.clone()
    }

    /// Bytes that it keeps in memory.
    fn size(&self) -> usize {
        self.event.len()
    }
}

/// What ends a server-sent event.
const SSE_END: &str = "\n\n";

/// Where a reader starts.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// At the entries after its position, all of them retained.
    Entries(Vec<Arc<Entry>>),
    /// Its position is of another log, unknown here or beyond retention: the state as of an entry.
    Snapshot {
        /// The last entry that the state contains.
        id: EntryId,
    },
}

/// A reader's end of a log.
#[derive(Debug)]
pub struct Subscription {
    /// What it gets first.
    pub start: Start,
    /// What happens from then on; ends with the room, or when the reader is too slow.
    pub live: mpsc::Receiver<Arc<Entry>>,
    /// Counts as a reader of the room and the node for as long as it lives.
    pub seat: Arc<Seat>,
}

/// One who follows, and who that is where it is known.
#[derive(Debug)]
struct Reader {
    seat: Weak<Seat>,
    peer: Option<PeerId>,
}

/// A state of the room that readers begin at.
#[derive(Debug)]
struct Snapshot {
    /// When the room was last seen to be so.
    at: Instant,
    /// Of the state that it was made of.
    hash: u64,
    entry: Arc<Entry>,
}

impl Snapshot {
    /// Whether readers may begin at it, also where something has happened since.
    fn is_young(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) <= SNAPSHOT_AGE_MAX
    }
}

/// The log of one room.
#[derive(Debug)]
pub struct RoomLog {
    room: RoomId,
    epoch: u64,
    last: u64,
    /// Of all entries.
    bytes: usize,
    entries: VecDeque<(Instant, Arc<Entry>)>,
    /// The way to the readers, if there are any.
    feed: Option<Feed>,
    /// Who they are, and some who are gone.
    readers: Vec<Reader>,
    /// How many there are.
    seated: Arc<AtomicUsize>,
    leaver: Option<PeerId>,
    gauges: Gauges,
    /// The last one, while readers may begin at it, or nothing has happened since.
    snapshot: Option<Snapshot>,
}

impl RoomLog {
    /// An empty log; `epoch` tells it from all other logs, also of rooms of the same name.
    #[must_use]
    pub fn new(room: RoomId, epoch: u64) -> Self {
        Self {
            room,
            leaver: None,
            gauges: Gauges::default(),
            epoch,
            last: 0,
            bytes: 0,
            entries: VecDeque::new(),
            feed: None,
            readers: Vec::new(),
            seated: Arc::default(),
            snapshot: None,
        }
    }

    /// Numbers an event, keeps it, and puts it on its way to every reader.
    pub fn append(&mut self, now: Instant, clock: WallAnchor, event: &RoomEvent) -> Arc<Entry> {
        self.last += 1;
        self.snapshot.take_if(|known| !known.is_young(now));
        if let RoomEvent::PeerLeft { peer, .. } = event {
            self.leaver = Some(peer.clone());
        }
        let id = self.id_of(self.last);
        let happened = (&self.room, clock.unix_ms(now), clock.iso(now));
        let entry = Arc::new(Entry::new(id, happened, event.name(), event.data()));
        self.bytes += entry.size();
        self.entries.push_back((now, Arc::clone(&entry)));
        self.prune(now);
        self.tell(&entry);
        entry
    }

    fn tell(&mut self, entry: &Arc<Entry>) {
        let Some(feed) = self.feed.take_if(|feed| !feed.tell(entry)) else { return };
        feed.cut_off(self.reader_count());
    }

    /// How many follow the log.
    fn reader_count(&self) -> usize {
        self.seated.load(Ordering::Relaxed)
    }

    /// Whether an event that tells a number has to wait, because there are many of them; if so, it is
    /// kept for [`take_deferred`](Self::take_deferred), in place of an older one of the same object.
    pub fn defers(&mut self, now: Instant, event: &RoomEvent) -> bool {
        self.gauges.defers(now, self.reader_count(), event)
    }

    /// An event that had to wait and may be appended now, with the object that it tells of.
    pub fn take_deferred(&mut self, now: Instant) -> Option<(GaugeOf, RoomEvent)> {
        self.gauges.take(now, self.reader_count())
    }

    /// True while events wait.
    #[must_use]
    pub fn has_deferred(&self) -> bool {
        self.gauges.is_waiting()
    }

    /// True when somebody follows the log.
    #[must_use]
    pub fn has_readers(&self) -> bool {
        self.reader_count() > 0
    }

    /// Lets go of entries beyond count, bytes and age, and of readers that are gone.
    pub fn prune(&mut self, now: Instant) {
        while let Some((at, entry)) = self.entries.front() {
            let too_many =
                self.entries.len() > ROOM_LOG_EVENTS_MAX || self.bytes > ROOM_LOG_BYTES_MAX;
            if !too_many && now.saturating_duration_since(*at) <= ROOM_LOG_AGE_MAX {
                break;
            }
            self.bytes -= entry.size();
            self.entries.pop_front();
        }
        if self.reader_count() == 0 {
            self.disconnect_readers();
        }
    }

    /// Who left the room last.
    #[must_use]
    pub fn last_to_leave(&self) -> Option<&PeerId> {
        self.leaver.as_ref()
    }

    fn id_of(&self, seq: u64) -> EntryId {
        EntryId { epoch: self.epoch, seq }
    }

    /// What a reader that begins at a snapshot gets first where none has to be made for it: the last
    /// one, if it is young and all that came after it is retained, and what came after it.
    #[must_use]
    pub fn young_snapshot(&self, now: Instant) -> Option<Vec<Arc<Entry>>> {
        let Snapshot { entry, .. } = self.snapshot.as_ref().filter(|known| known.is_young(now))?;
        let since = self.since(entry.id.seq)?;
        Some(iter::once(Arc::clone(entry)).chain(since).collect())
    }

    /// The state after the last entry, in the shape of an entry. Readers that begin at the same
    /// state share it.
    pub fn snapshot(&mut self, now: Instant, clock: WallAnchor, state: Value) -> Arc<Entry> {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        let (hash, id) = (hasher.finish(), self.id_of(self.last));
        if let Some(known) = &mut self.snapshot
            && (known.hash, known.entry.id) == (hash, id)
        {
            known.at = now;
            return Arc::clone(&known.entry);
        }
        let happened = (&self.room, clock.unix_ms(now), clock.iso(now));
        let entry = Arc::new(Entry::new(id, happened, "snapshot", state));
        self.snapshot = Some(Snapshot { at: now, hash, entry: Arc::clone(&entry) });
        entry
    }

    /// Follows the log from after `after`; without a position, from a snapshot on.
    ///
    /// `readers` are those of the node; `peer` is who reads, where that is known.
    ///
    /// # Errors
    /// The limit, when the peer, the room or the node has its most readers.
    pub fn subscribe(
        &mut self,
        after: Option<Position>,
        (readers, peer): (&Arc<Readers>, Option<PeerId>),
        limits: &Limits,
    ) -> Result<Subscription, Limit> {
        self.readers.retain(|reader| Seat::is_taken(&reader.seat));
        if let Some(peer) = &peer {
            let theirs = self.readers.iter().filter(|reader| reader.peer.as_ref() == Some(peer));
            limits.check(Limit::PeerEventReaders, theirs.count())?;
        }
        limits.check(Limit::RoomEventReaders, self.reader_count())?;
        limits.check(Limit::EventReaders, readers.count())?;
        let (lane, live) = mpsc::channel(EVENT_READER_QUEUE);
        self.seat(lane, readers);
        let seat = Seat::take(readers, &self.seated);
        self.readers.push(Reader { seat: Arc::downgrade(&seat), peer });
        Ok(Subscription { start: self.start(after), live, seat })
    }

    /// One more gets what happens from now on.
    fn seat(&mut self, lane: mpsc::Sender<Arc<Entry>>, readers: &Arc<Readers>) {
        let feed = self.feed.get_or_insert_with(|| Feed::open(readers));
        let Err(lane) = feed.seat(lane) else { return };
        // They are behind, and it is not.
        let feed = self.feed.replace(Feed::open(readers));
        if let Some(behind) = feed {
            behind.cut_off(self.reader_count());
        }
        if let Some(feed) = &self.feed {
            // A new one has room.
            let _ = feed.seat(lane);
        }
    }

    fn start(&self, after: Option<Position>) -> Start {
        let here = |after: &Position| after.epoch.is_none_or(|epoch| epoch == self.epoch);
        match after.filter(here).and_then(|after| self.since(after.seq)) {
            Some(entries) => Start::Entries(entries.collect()),
            None => Start::Snapshot { id: self.id_of(self.last) },
        }
    }

    /// The entries after one, if all of them are retained.
    fn since(&self, seq: u64) -> Option<impl Iterator<Item = Arc<Entry>>> {
        let count = usize::try_from(self.last.checked_sub(seq)?).ok()?;
        let known = self.entries.len().checked_sub(count)?;
        Some(self.entries.iter().skip(known).map(|(_, entry)| Arc::clone(entry)))
    }

    /// Disconnects all readers, once they have read what they were given.
    pub fn disconnect_readers(&mut self) {
        self.feed = None;
        self.readers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProducerId;
    use crate::ortc::types::{MediaKind, ProducerType};
    use std::time::{Duration, SystemTime};
    use tokio::runtime::{Builder, Runtime};
    use tokio::task::yield_now;

    const EPOCH: u64 = 1_700_000_000_000;

    struct Story {
        log: RoomLog,
        clock: WallAnchor,
        now: Instant,
        readers: Arc<Readers>,
        limits: Limits,
        /// Of the readers.
        runtime: Runtime,
    }

    impl Story {
        fn new() -> Self {
            let now = tokio::time::Instant::now().into_std();
            let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            let room = RoomId::try_from("room").unwrap();
            let limits = Limits::default();
            let runtime = Builder::new_current_thread().build().unwrap();
            let readers = Arc::new(Readers::new(runtime.handle().clone()));
            let clock = WallAnchor { wall, at: now };
            Self { log: RoomLog::new(room, EPOCH), clock, now, readers, limits, runtime }
        }

        fn happens(&mut self, times: usize) {
            for _ in 0..times {
                let event = RoomEvent::RoomClosed { reason: "deleted" };
                self.log.append(self.now, self.clock, &event);
            }
        }

        /// What waits for the readers' thread reaches them.
        fn hands_on(&self) {
            self.runtime.block_on(async {
                // A poll takes some hundred from a feed.
                for _ in 0..EVENT_READER_QUEUE / 32 {
                    yield_now().await;
                }
            });
        }

        /// What a new reader sees at once.
        fn first(&self, mut subscription: Subscription) -> Vec<u64> {
            numbers(self, &mut subscription)
        }

        fn follows(&mut self, after: Option<u64>) -> Subscription {
            self.follows_at(after.map(|seq| Position { epoch: None, seq }))
        }

        fn follows_at(&mut self, after: Option<Position>) -> Subscription {
            self.subscribes(after, None).unwrap()
        }

        fn subscribes(
            &mut self,
            after: Option<Position>,
            peer: Option<&str>,
        ) -> Result<Subscription, Limit> {
            let peer = peer.map(|name| PeerId::try_from(name).unwrap());
            self.log.subscribe(after, (&self.readers, peer), &self.limits)
        }
    }

    fn numbers(story: &Story, subscription: &mut Subscription) -> Vec<u64> {
        story.hands_on();
        let mut seen = match &subscription.start {
            Start::Entries(entries) => entries.iter().map(|entry| entry.id.seq).collect(),
            Start::Snapshot { .. } => Vec::new(),
        };
        while let Ok(entry) = subscription.live.try_recv() {
            seen.push(entry.id.seq);
        }
        seen
    }

    #[test]
    fn entries_are_numbered_from_one_without_gaps() {
        let mut story = Story::new();
        let mut reader = story.follows(Some(0));
        story.happens(5);
        assert_eq!(numbers(&story, &mut reader), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_reader_that_reconnects_misses_nothing_within_retention() {
        let mut story = Story::new();
        story.happens(10);
        let mut reader = story.follows(Some(7));
        story.happens(2);
        assert_eq!(numbers(&story, &mut reader), [8, 9, 10, 11, 12]);
        let reader = story.follows(Some(12));
        assert_eq!(story.first(reader), Vec::<u64>::new());
    }

    #[test]
    fn a_position_beyond_retention_or_unknown_starts_with_a_snapshot() {
        let mut story = Story::new();
        story.happens(ROOM_LOG_EVENTS_MAX + 2);
        let last = u64::try_from(ROOM_LOG_EVENTS_MAX).unwrap() + 2;
        for after in [None, Some(0), Some(1), Some(last + 1), Some(u64::MAX)] {
            let reader = story.follows(after);
            assert_eq!(reader.start, Start::Snapshot { id: story.log.id_of(last) }, "{after:?}");
        }
        let reader = story.follows(Some(2));
        assert_eq!(story.first(reader).len(), ROOM_LOG_EVENTS_MAX);
        story.now += ROOM_LOG_AGE_MAX + Duration::from_secs(1);
        story.happens(1);
        assert_eq!(story.follows(Some(2)).start, Start::Snapshot { id: story.log.id_of(last + 1) });
        let reader = story.follows(Some(last));
        assert_eq!(story.first(reader), [last + 1]);
    }

    #[test]
    fn a_position_in_another_room_of_that_name_starts_with_a_snapshot() {
        let mut story = Story::new();
        story.happens(3);
        let at = |epoch: u64, seq: u64| Some(Position { epoch: Some(epoch), seq });
        let reader = story.follows_at(at(EPOCH, 1));
        assert_eq!(story.first(reader), [2, 3]);
        for seq in [0, 1, 3, 9] {
            let reader = story.follows_at(at(EPOCH - 1, seq));
            assert_eq!(reader.start, Start::Snapshot { id: story.log.id_of(3) }, "{seq}");
        }
    }

    #[test]
    fn a_young_snapshot_serves_readers_who_come_while_the_room_changes() {
        let mut story = Story::new();
        story.happens(3);
        assert_eq!(story.log.young_snapshot(story.now), None, "nobody has asked for one");
        let first = story.log.snapshot(story.now, story.clock, Value::from("of three"));
        let begins = |story: &Story| {
            let first = story.log.young_snapshot(story.now);
            first.map(|all| all.iter().map(|entry| entry.id.seq).collect::<Vec<_>>())
        };
        assert_eq!(begins(&story), Some(vec![3]));
        story.now += SNAPSHOT_AGE_MAX / 2;
        story.happens(2);
        assert_eq!(begins(&story), Some(vec![3, 4, 5]));
        let shared = story.log.young_snapshot(story.now).unwrap();
        assert!(Arc::ptr_eq(&shared[0], &first), "one copy for all");
        // What happens from then on follows.
        let mut reader = story.follows(None);
        story.happens(1);
        assert_eq!(numbers(&story, &mut reader), [6]);

        story.now += SNAPSHOT_AGE_MAX;
        assert_eq!(begins(&story), None, "it is old");
        story.log.snapshot(story.now, story.clock, Value::from("of six"));
        assert_eq!(begins(&story), Some(vec![6]));
    }

    #[test]
    fn a_state_that_lasts_is_as_young_as_it_was_last_seen() {
        let mut story = Story::new();
        story.happens(1);
        let state = || Value::from("quiet");
        let first = story.log.snapshot(story.now, story.clock, state());
        story.now += SNAPSHOT_AGE_MAX * 2;
        let second = story.log.snapshot(story.now, story.clock, state());
        assert!(Arc::ptr_eq(&first, &second));
        story.happens(1);
        let begins = story.log.young_snapshot(story.now).unwrap();
        assert_eq!(begins.iter().map(|entry| entry.id.seq).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_snapshot_that_the_log_has_left_behind_is_not_begun_at() {
        let mut story = Story::new();
        story.happens(1);
        story.log.snapshot(story.now, story.clock, Value::Null);
        story.happens(ROOM_LOG_EVENTS_MAX);
        assert_eq!(story.log.young_snapshot(story.now).unwrap().len(), ROOM_LOG_EVENTS_MAX + 1);
        story.happens(1);
        assert_eq!(story.log.young_snapshot(story.now), None, "entry 2 is gone");
    }

    #[test]
    fn an_old_snapshot_is_let_go_when_something_happens() {
        let mut story = Story::new();
        story.happens(1);
        let snapshot = story.log.snapshot(story.now, story.clock, Value::Null);
        story.now += SNAPSHOT_AGE_MAX * 2;
        story.happens(1);
        assert_eq!(Arc::strong_count(&snapshot), 1, "the log keeps no copy");
    }

    #[test]
    fn readers_share_the_bytes_of_an_entry() {
        let mut story = Story::new();
        story.happens(1);
        let entry = &story.log.entries[0].1;
        let (event, text) = (entry.sse(), entry.text());
        assert_eq!(event.as_ptr(), entry.sse().as_ptr());
        let json: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["id"], format!("{EPOCH}-1"));
        let text = str::from_utf8(&text).unwrap();
        let expected = format!("id: {EPOCH}-1\nevent: room-closed\ndata: {text}\n\n");
        assert_eq!(event, expected.as_bytes());
    }

    #[test]
    fn retention_is_bounded_in_bytes_too() {
        let mut story = Story::new();
        let peer = PeerId::try_from("a".repeat(100).as_str()).unwrap();
        let times = ROOM_LOG_EVENTS_MAX;
        for _ in 0..times {
            let event = RoomEvent::ProducerAdded {
                producer: ProducerId::random(),
                peer: peer.clone(),
                kind: MediaKind::Audio,
                source: "audio".to_owned(),
                producer_type: ProducerType::Simple,
                paused: false,
                app_data: Value::String("x".repeat(4000)),
            };
            story.log.append(story.now, story.clock, &event);
        }
        let kept: usize = story.log.entries.iter().map(|(_, entry)| entry.size()).sum();
        assert_eq!(kept, story.log.bytes);
        assert!(kept <= ROOM_LOG_BYTES_MAX && kept > ROOM_LOG_BYTES_MAX - 5000, "{kept}");
        let last = u64::try_from(times).unwrap();
        assert_eq!(story.follows(Some(0)).start, Start::Snapshot { id: story.log.id_of(last) });
        let reader = story.follows(Some(last - 9));
        assert_eq!(story.first(reader).len(), 9);
    }

    #[test]
    fn a_slow_reader_is_disconnected_and_others_are_not() {
        let mut story = Story::new();
        let mut slow = story.follows(Some(0));
        let mut quick = story.follows(Some(0));
        let mut seen = 0;
        for _ in 0..EVENT_READER_QUEUE + 10 {
            story.happens(1);
            seen += numbers(&story, &mut quick).len();
        }
        assert_eq!(seen, EVENT_READER_QUEUE + 10);
        assert_eq!(numbers(&story, &mut slow).len(), EVENT_READER_QUEUE);
        assert!(slow.live.is_closed(), "nobody sends to it any more");
        assert_eq!(story.readers.dropped(), 1);
        assert!(!quick.live.is_closed());
    }

    #[test]
    fn readers_whose_thread_does_not_keep_up_are_cut_off_and_new_ones_are_not() {
        let mut story = Story::new();
        let mut before = [0; 3].map(|_| story.follows(Some(0)));
        let fits = EVENT_READER_QUEUE - before.len();
        story.happens(fits);
        assert_eq!(story.readers.dropped(), 0);
        story.happens(1);
        assert_eq!(story.readers.dropped(), 3, "nobody waits for their thread");
        let mut after = story.follows(Some(0));
        for cut_off in &mut before {
            assert_eq!(numbers(&story, cut_off).len(), fits, "all that was on its way, in order");
            assert!(cut_off.live.is_closed());
        }
        story.happens(1);
        assert_eq!(numbers(&story, &mut after).len(), fits + 2);
    }

    #[test]
    fn readers_who_come_while_much_is_on_its_way_miss_nothing() {
        let mut story = Story::new();
        let mut first = story.follows(Some(0));
        story.happens(EVENT_READER_QUEUE - 1);
        let mut second = story.follows(Some(0));
        assert_eq!(story.readers.dropped(), 1, "no room for one more behind all that");
        story.happens(1);
        assert_eq!(numbers(&story, &mut first).len(), EVENT_READER_QUEUE - 1);
        assert_eq!(numbers(&story, &mut second).len(), EVENT_READER_QUEUE);
    }

    #[test]
    fn readers_of_a_room_are_bounded_and_a_place_is_freed_when_one_goes() {
        let mut story = Story::new();
        for limit in ["room-event-readers=5", "peer-event-readers=2", "event-readers=6"] {
            story.limits.set(limit.parse().unwrap());
        }
        let mut readers: Vec<_> = ["alice", "alice", "bob"]
            .map(|peer| story.subscribes(None, Some(peer)).unwrap())
            .into();
        let refused = story.subscribes(None, Some("alice")).unwrap_err();
        assert_eq!(refused, Limit::PeerEventReaders);
        for _ in 0..2 {
            readers.push(story.subscribes(None, None).unwrap());
        }
        for peer in [None, Some("carol")] {
            assert_eq!(story.subscribes(None, peer).unwrap_err(), Limit::RoomEventReaders);
        }
        readers.remove(0);
        readers.push(story.subscribes(None, Some("alice")).unwrap());
        readers.pop();
        // Readers of other rooms.
        let room = Arc::default();
        let _elsewhere = [0; 2].map(|_| Seat::take(&story.readers, &room));
        assert_eq!(story.subscribes(None, None).unwrap_err(), Limit::EventReaders);
        readers.pop();
        assert!(story.subscribes(None, None).is_ok());
    }
}
