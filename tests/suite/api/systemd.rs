//! What a service manager hears of a node whose shards are scripted.

use std::cell::RefCell;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use ringcast::control::drain::{After, DrainRequest};
use ringcast::limits::REPORT_AGE_MAX;
use ringcast::systemd::Notifier;

use super::harness::Node;

const SECOND: Duration = Duration::from_secs(1);

/// Plays the service manager.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    lines: RefCell<Vec<String>>,
}

impl Manager {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringcast-{}-{name}", std::process::id()));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, path, lines: RefCell::default() }
    }

    /// Has the node tell it, with a watchdog of so many seconds.
    fn follow(&self, node: &Node, watchdog: u64) {
        let path = self.path.to_str().unwrap().to_owned();
        let notifier = Notifier::from_env(&move |name| match name {
            "NOTIFY_SOCKET" => Some(path.clone()),
            "WATCHDOG_USEC" => Some(format!("{}", watchdog * 1_000_000)),
            _ => None,
        });
        let (notifier, control) = (notifier.unwrap().unwrap(), node.control.clone());
        tokio::spawn(async move { notifier.follow(control).await });
    }

    /// Takes what came: the kernel keeps ten datagrams, and a manager reads at once.
    fn listen(&self) {
        let mut bytes = [0; 1024];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            let text = std::str::from_utf8(&bytes[..length]).unwrap();
            self.lines.borrow_mut().extend(text.lines().map(str::to_owned));
        }
    }

    /// All lines since the last time.
    fn heard(&self) -> Vec<String> {
        self.listen();
        self.lines.take()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn count(heard: &[String], line: &str) -> usize {
    heard.iter().filter(|heard| *heard == line).count()
}

/// Seconds in which these shards report, and the manager listens.
async fn pass((node, manager): (&Node, &Manager), seconds: u64, shards: &[u16]) {
    for _ in 0..seconds {
        for shard in shards {
            node.reports(*shard, 0.1);
        }
        tokio::time::sleep(SECOND).await;
        manager.listen();
    }
}

#[tokio::test(start_paused = true)]
async fn ready_is_told_once_and_when_every_shard_turns() {
    let (node, manager) = (Node::start(2), Manager::new("ready"));
    manager.follow(&node, 60);
    pass((&node, &manager), 5, &[0]).await;
    assert_eq!(count(&manager.heard(), "READY=1"), 0, "one shard has not turned yet");
    pass((&node, &manager), 5, &[0, 1]).await;
    let heard = manager.heard();
    assert_eq!(count(&heard, "READY=1"), 1, "{heard:?}");
    assert_eq!(heard.last().unwrap(), "WATCHDOG=1");
    assert_eq!(count(&heard, "STATUS=0 rooms, 0 peers; 2 of 2 shards turn"), 1, "{heard:?}");
    node.room("tea").await;
    node.transport("tea", "alice").await;
    pass((&node, &manager), 2, &[0, 1]).await;
    assert_eq!(count(&manager.heard(), "STATUS=1 rooms, 1 peers; 2 of 2 shards turn"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_does_not_turn_starves_the_watchdog() {
    for watchdog in [4, 20] {
        let (node, manager) = (Node::start(2), Manager::new(&format!("starves-{watchdog}")));
        manager.follow(&node, watchdog);
        let half = Duration::from_secs(watchdog / 2).max(REPORT_AGE_MAX).as_secs();
        pass((&node, &manager), watchdog, &[0, 1]).await;
        let fed = count(&manager.heard(), "WATCHDOG=1");
        assert!(fed as u64 >= watchdog - 1, "{fed} in {watchdog} s");
        pass((&node, &manager), half - 1, &[0]).await;
        assert!(count(&manager.heard(), "WATCHDOG=1") > 0, "patience of {half} s");
        pass((&node, &manager), 3, &[0]).await;
        manager.heard();
        pass((&node, &manager), 2 * watchdog, &[0]).await;
        let heard = manager.heard();
        assert_eq!(count(&heard, "WATCHDOG=1"), 0, "{heard:?}");
        pass((&node, &manager), 2, &[0, 1]).await;
        assert!(count(&manager.heard(), "WATCHDOG=1") > 0, "it turns again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_given_time_for_as_long_as_shards_turn() {
    let (node, manager) = (Node::start(1), Manager::new("stopping"));
    manager.follow(&node, 60);
    pass((&node, &manager), 2, &[0]).await;
    manager.heard();
    node.room("tea").await;
    node.transport("tea", "alice").await;
    node.control.drain(DrainRequest { deadline: None, after: After::Exit });
    pass((&node, &manager), 3, &[0]).await;
    let heard = manager.heard();
    assert_eq!(count(&heard, "STOPPING=1"), 0, "it may be called off: {heard:?}");
    assert_eq!(count(&heard, "STATUS=draining: 1 rooms, 1 peers; 1 of 1 shards turn"), 1);
    node.control.drain(DrainRequest { deadline: None, after: After::Stop });
    pass((&node, &manager), 3, &[0]).await;
    let heard = manager.heard();
    let extension = "EXTEND_TIMEOUT_USEC=30000000";
    assert!(count(&heard, extension) > 1, "{heard:?}");
    assert_eq!(count(&heard, "STOPPING=1"), 0, "it would end the watchdog: {heard:?}");
    assert!(count(&heard, "WATCHDOG=1") > 1, "a manager's watchdog bites until the end");
    pass((&node, &manager), REPORT_AGE_MAX.as_secs() + 1, &[]).await;
    manager.heard();
    pass((&node, &manager), 5, &[]).await;
    assert_eq!(count(&manager.heard(), extension), 0, "whoever is stuck is killed in time");
    pass((&node, &manager), 3, &[0]).await;
    assert!(count(&manager.heard(), extension) > 1, "it turns again");
}
