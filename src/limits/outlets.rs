//! What goes out of the node beside media: Kafka and webhooks.

use std::time::Duration;

/// Messages between the control thread and an outlet's thread, which takes some 50,000 a second:
/// room for a pause of a third of a second at that rate.
pub const OUTLET_QUEUE: usize = 16 * 1024;

/// Bytes of the messages in that queue: what a client puts into `appData` must not fill memory.
pub const OUTLET_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Messages that an outlet holds in memory, sent or about to be: librdkafka's own queue holds as
/// many, so that it is never full before the window is.
pub const OUTLET_WINDOW: usize = 10_000;

/// Bytes of the messages in that window.
pub const OUTLET_WINDOW_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of one outlet's spool on disk: an hour of 200 events a second of 350 bytes.
pub const SPOOL_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bytes after which the spool begins another file; one file is in memory while it is read.
pub const SPOOL_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// How often an outlet looks for what was there the last time and still waits, to write it to disk:
/// a crash loses no more than what happened in two of them. A destination that is well answers
/// sooner, and then the disk has nothing to do.
pub const OUTLET_KEEP_PERIOD: Duration = Duration::from_millis(500);

/// Bytes after which a file of what waits in memory is followed by another: a crash has what is in
/// the oldest delivered again, some 200 events of 350 bytes.
pub const SPOOL_KEPT_SEGMENT_BYTES: u64 = 64 * 1024;

/// Messages that an outlet takes from its queue before it looks at what else there is to do.
pub const OUTLET_TURN: usize = 256;

/// How often an outlet looks after what is under way: delivery reports wait for as long.
pub const OUTLET_POLL: Duration = Duration::from_millis(20);

/// The same where nothing is under way.
pub const OUTLET_IDLE_POLL: Duration = Duration::from_millis(500);

/// How long an outlet may go on delivering after it was told to stop; what is left goes to disk.
pub const OUTLET_FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the node waits for an outlet's end: a request under way, its flush, its last write.
pub const OUTLET_STOP_TIMEOUT: Duration = Duration::from_secs(12);

/// Between attempts to make a Kafka producer anew, at first and at most.
pub const KAFKA_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long a webhook's receiver may take to answer.
pub const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// The same for what is left at the end: one that is up answers sooner.
pub const WEBHOOK_LAST_TIMEOUT: Duration = Duration::from_secs(1);

/// Between attempts to deliver to a webhook, at first and at most, before jitter.
pub const WEBHOOK_RETRY: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_secs(60));

/// Events in one delivery to a webhook: at 50 ms a request, 2,000 events a second.
pub const WEBHOOK_BATCH: usize = 100;

/// Bytes of events in one delivery: most receivers take 1 MiB and more, some 256 KiB. One event is
/// at most a fiftieth of it.
pub const WEBHOOK_BATCH_BYTES_MAX: usize = 240 * 1024;

/// Bytes of a webhook's answer that are read: its status is all that counts.
pub const WEBHOOK_ANSWER_BYTES_MAX: u64 = 64 * 1024;

const _: () = assert!(
    WEBHOOK_TIMEOUT.as_secs() + OUTLET_FLUSH_TIMEOUT.as_secs() + WEBHOOK_LAST_TIMEOUT.as_secs()
        < OUTLET_STOP_TIMEOUT.as_secs()
);
const _: () = assert!(SPOOL_SEGMENT_BYTES * 4 < SPOOL_BYTES_MAX);
