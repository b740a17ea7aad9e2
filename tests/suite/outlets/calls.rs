//! Rooms that begin, live and end, and what must be told of them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ringcast::config::{KafkaConfig, WebhookConfig};
use ringcast::events::outlet::{OutletCounts, OutletThreads, Outlets};
use ringcast::events::timestamp::WallAnchor;
use ringcast::events::{RoomEvent, RoomLog};
use ringcast::id::{PeerId, RoomId};
use serde_json::Value;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "outlets live in real time")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

/// A folder that goes when the test ends.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringcast-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What was delivered: the id and the value of one message.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) id: String,
    pub(crate) value: Value,
}

/// A node's rooms without the node.
pub(crate) struct Calls {
    outlets: Outlets,
    threads: OutletThreads,
    clock: WallAnchor,
    epoch: u64,
    logs: HashMap<String, RoomLog>,
    /// The log of each room so far.
    pub(crate) log: BTreeMap<String, Vec<Told>>,
}

impl Calls {
    pub(crate) fn start(
        kafka: Option<&KafkaConfig>,
        webhook: Option<&WebhookConfig>,
        spool: Option<&Folder>,
    ) -> Self {
        let spool = spool.map(Folder::path);
        let (outlets, threads) = Outlets::start(kafka, webhook, spool).unwrap();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let clock = WallAnchor { wall, at: clock() };
        Self { outlets, threads, clock, epoch: 0, logs: HashMap::new(), log: BTreeMap::new() }
    }

    pub(crate) fn happens(&mut self, room: &str, event: &RoomEvent) {
        let id = RoomId::try_from(room).unwrap();
        let epochs = &mut self.epoch;
        let log = self.logs.entry(room.to_owned()).or_insert_with(|| {
            *epochs += 1;
            RoomLog::new(id.clone(), *epochs)
        });
        let entry = log.append(clock(), self.clock, event);
        self.outlets.offer(&id, &entry, event, log.last_to_leave());
        let value = serde_json::from_slice(&entry.text()).unwrap();
        let told = Told { id: entry.id.to_string(), value };
        self.log.entry(room.to_owned()).or_default().push(told);
    }

    /// A call of two, from its beginning to its end: six events, all of which the chat is told.
    pub(crate) fn call(&mut self, room: &str) {
        let [alice, bob] = ["alice", "bob"].map(|name| PeerId::try_from(name).unwrap());
        self.happens(room, &RoomEvent::RoomCreated { initiator: Some(alice.clone()) });
        for peer in [&alice, &bob] {
            self.happens(room, &RoomEvent::PeerJoined { peer: peer.clone() });
        }
        for peer in [alice, bob] {
            self.happens(room, &RoomEvent::PeerLeft { peer, reason: "left" });
        }
        self.happens(room, &RoomEvent::RoomClosed { reason: "empty" });
    }

    /// Many calls in rooms of that name and a number.
    pub(crate) fn calls(&mut self, name: &str, count: usize) {
        (0..count).for_each(|number| self.call(&format!("{name}-{number}")));
    }

    pub(crate) fn counts(&self) -> Arc<OutletCounts> {
        Arc::clone(&self.outlets.views()[0].counts)
    }

    /// All events so far.
    pub(crate) fn total(&self) -> usize {
        self.log.values().map(Vec::len).sum()
    }

    /// Ends the outlets; gives back what must be told of the rooms.
    pub(crate) fn stop(self) -> BTreeMap<String, Vec<Told>> {
        self.threads.stop();
        self.log
    }
}

/// Nothing is lost, each room's order is kept, and what comes twice is known by its id.
pub(crate) fn assert_whole(expected: &BTreeMap<String, Vec<Told>>, got: &[(String, Told)]) {
    let mut first_seen: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
    for (room, told) in got {
        let seen = first_seen.entry(room).or_default();
        if !seen.iter().any(|known| known.id == told.id) {
            seen.push(told);
        }
    }
    for (room, expected) in expected {
        let seen = first_seen.remove(room.as_str()).unwrap_or_default();
        let ids = |all: &mut dyn Iterator<Item = &Told>| -> Vec<String> {
            all.map(|told| told.id.clone()).collect()
        };
        assert_eq!(ids(&mut seen.iter().copied()), ids(&mut expected.iter()), "{room}");
        for (seen, expected) in seen.iter().zip(expected) {
            assert_eq!(seen.value, expected.value);
        }
    }
    assert!(first_seen.is_empty(), "rooms that never were: {:?}", first_seen.keys());
}
