//! Every bound of the server, each with its reason. Nothing that grows has its limit elsewhere.

use std::time::Duration;

/// Characters of a room or peer name: long enough for a UUID with a prefix, short enough for a log line.
pub const NAME_CHARS_MAX: usize = 128;

/// Bytes of `appData` as serialised JSON: it is copied into every list and event.
pub const APP_DATA_BYTES_MAX: usize = 4 * 1024;

/// Bytes of a request body: the largest honest one (capabilities of every codec) is under 32 KiB.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// Shards: two base-32 characters of the ufrag name the shard (32 × 32).
pub const SHARDS_MAX: usize = 1024;

/// Transports of one shard: 20 bits of slot in the ufrag.
pub const TRANSPORTS_PER_SHARD_MAX: usize = 16 * 1024;

/// Transports of one peer: a send and a receive one, doubled for a reloaded page, doubled again.
pub const TRANSPORTS_PER_PEER_MAX: usize = 8;

/// Producers of one transport: cameras, screens and microphones of one device.
pub const PRODUCERS_PER_TRANSPORT_MAX: usize = 64;

/// Consumers of one transport: one SDP session of a browser stays usable up to about this.
pub const CONSUMERS_PER_TRANSPORT_MAX: usize = 2048;

/// Encodings of one producer (mediasoup's clients use at most 4).
pub const ENCODINGS_PER_PRODUCER_MAX: usize = 8;

/// Codecs in a peer's parameters or capabilities; Chromium's whole list has about 60.
pub const CODECS_MAX: usize = 256;

/// Header extensions in a peer's parameters or capabilities.
pub const HEADER_EXTENSIONS_MAX: usize = 128;

/// Peers of one room.
pub const PEERS_PER_ROOM_MAX: usize = 10_000;

/// Rooms of one node.
pub const ROOMS_MAX: usize = 100_000;

/// Addresses one transport may have live at a time (mediasoup's 8).
pub const TUPLES_PER_TRANSPORT_MAX: usize = 8;

/// Incoming SRTP contexts of one transport: 8 encodings × (media + RTX) × producers, rounded.
pub const SRTP_CONTEXTS_PER_TRANSPORT_MAX: usize = 256;

/// Slots of one producer stream's packet ring for video: one second at 1,024 packets/s.
pub const VIDEO_RING_SLOTS_MAX: usize = 1024;

/// Slots of one producer stream's packet ring for audio: one second of 20 ms packets, rounded up.
pub const AUDIO_RING_SLOTS_MAX: usize = 64;

/// Bytes of one datagram that media may have: Ethernet's 1,500 less the smallest IP and UDP headers.
pub const MEDIA_DATAGRAM_BYTES_MAX: usize = 1472;

/// A transport that has not connected by then is closed.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A transport without a valid STUN request for this long is closed (RFC 7675 consent).
pub const CONSENT_TIMEOUT: Duration = Duration::from_secs(30);

/// A peer without any transport leaves after this long: a page that reloads takes less.
pub const PEER_GRACE: Duration = Duration::from_secs(60);

/// A room without peers is closed after this long: the first peer needs time to come after creation.
pub const ROOM_GRACE: Duration = Duration::from_secs(60);

/// How long SIGTERM waits for the threads to end.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Commands waiting for one shard; beyond it a request is answered 503.
pub const COMMAND_LANE_CAPACITY: usize = 1024;

/// Events of one shard waiting for the control thread; beyond it they are counted and resynchronised.
pub const EVENT_LANE_CAPACITY: usize = 8192;

/// Reports of one shard waiting for the control thread; an unread older one is replaced by the next.
pub const REPORT_LANE_CAPACITY: usize = 4;

/// Misdirected datagrams waiting for one shard; beyond it they are dropped and counted.
pub const HANDOFF_LANE_CAPACITY: usize = 4096;

/// Events of one room kept for readers that reconnect.
pub const ROOM_LOG_EVENTS_MAX: usize = 1024;

/// Age of a room event kept for readers that reconnect.
pub const ROOM_LOG_AGE_MAX: Duration = Duration::from_secs(300);

/// Live readers of one room's events.
pub const EVENT_READERS_PER_ROOM_MAX: usize = 1024;

/// Live readers of events on the node.
pub const EVENT_READERS_MAX: usize = 16 * 1024;

/// Rewritten sequence numbers remembered per consumer: one second at 1,024 packets/s, as long as
/// the packet ring holds what could still be asked for.
pub const SEQ_WINDOW: u64 = 1024;

/// Sequence numbers a sender may skip before it counts as begun anew (RFC 3550 A.1, `MAX_DROPOUT`).
pub const SEQ_DROPOUT_MAX: u64 = 3000;

/// How far two streams' sender reports may put a switch from where the wall clock puts it; beyond
/// it they are not believed, as a receiver's jitter buffer would follow them.
pub const TIMESTAMP_ALIGN_ERROR_MAX: Duration = Duration::from_secs(3);

/// What a frame after a switch may be late without a second key frame being asked for
/// (mediasoup's 75 ms: more would be seen as a stall).
pub const TIMESTAMP_EXTRA_MAX: Duration = Duration::from_millis(75);

/// Distance of a frame from the one before when its own timestamp would run backwards: 30 fps.
pub const TIMESTAMP_STEP: Duration = Duration::from_millis(33);

/// Key-frame requests of one stream at once: a join, a switch and a loss together.
pub const KEY_FRAME_BURST: u32 = 3;

/// One key-frame request more every second: key frames are ten times the size of others.
pub const KEY_FRAME_REFILL: Duration = Duration::from_secs(1);

/// A producer may ask for at most this between two key-frame requests: nobody waits longer for a
/// picture.
pub const KEY_FRAME_SPACING_MAX: Duration = Duration::from_secs(60);

/// An unanswered key-frame request is repeated after this at the latest (mediasoup's 1,000 ms).
pub const KEY_FRAME_RETRY_MAX: Duration = Duration::from_secs(1);

/// Time an encoder may take for a key frame beyond two round trips: a frame at 5 fps and pacing.
pub const KEY_FRAME_RETRY_MIN: Duration = Duration::from_millis(300);

/// Span over which the fastest sender report is sought: some ten reports.
pub const CLOCK_WINDOW: Duration = Duration::from_secs(10);

/// Parts in a million by which a peer's clock offset follows its measure: above a quartz's drift
/// (50), and 0.2 ms a second do not disturb lip-sync.
pub const CLOCK_SLEW_PPM: u64 = 200;

/// An error of a peer's clock offset beyond this means that its clock was set.
pub const CLOCK_JUMP: Duration = Duration::from_millis(500);

/// A longer round trip is a receiver's mistake: no call works over it.
pub const ROUND_TRIP_MAX: Duration = Duration::from_secs(60);

/// A stream without packets for this long does not arrive (mediasoup's 1.5 s).
pub const STREAM_INACTIVE: Duration = Duration::from_millis(1500);

/// The same for a stream with discontinuous transmission (mediasoup's 5 s).
pub const STREAM_INACTIVE_DTX: Duration = Duration::from_secs(5);

/// A stream that arrives for less than this is not gone over to while another is there: a
/// publisher probing its bandwidth starts and stops streams (mediasoup's 2 s).
pub const STREAM_YOUNG: Duration = Duration::from_secs(2);

const _: () = assert!(SEQ_WINDOW.is_multiple_of(64) && SEQ_WINDOW < SEQ_DROPOUT_MAX);
const _: () = assert!(KEY_FRAME_RETRY_MIN.as_millis() <= KEY_FRAME_RETRY_MAX.as_millis());
const _: () = assert!(TIMESTAMP_STEP.as_millis() < TIMESTAMP_EXTRA_MAX.as_millis());
const _: () = assert!(VIDEO_RING_SLOTS_MAX.is_power_of_two());
const _: () = assert!(AUDIO_RING_SLOTS_MAX.is_power_of_two());
const _: () = assert!(AUDIO_RING_SLOTS_MAX <= VIDEO_RING_SLOTS_MAX);
const _: () = assert!(SHARDS_MAX <= 32 * 32);
const _: () = assert!(TRANSPORTS_PER_SHARD_MAX <= 1 << 20);
const _: () = assert!(CONSENT_TIMEOUT.as_secs() >= 10);
