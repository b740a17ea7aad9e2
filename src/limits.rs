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

/// SRTP packets behind the newest that are still told from replays: as many as a video ring holds, so
/// that whatever can still be repaired can still be opened (libwebrtc's window too).
pub const SRTP_REPLAY_PACKETS: usize = 1024;

/// SRTCP packets behind the newest that are still told from replays: RTCP is sparse.
pub const SRTCP_REPLAY_PACKETS: usize = 128;

/// Slots of one producer stream's packet ring for video: one second at 1,024 packets/s.
pub const VIDEO_RING_SLOTS_MAX: usize = 1024;

/// Slots of one producer stream's packet ring for audio: one second of 20 ms packets, rounded up.
pub const AUDIO_RING_SLOTS_MAX: usize = 64;

/// A packet ring grows only while it would overwrite packets younger than this: nobody asks for
/// older ones again.
pub const RING_SPAN: Duration = Duration::from_secs(1);

/// A missing packet is asked for after this long: a reordered one arrives by itself (mediasoup).
pub const NACK_DELAY: Duration = Duration::from_millis(10);

/// The shortest time between two requests for one packet (mediasoup's timer).
pub const NACK_INTERVAL_MIN: Duration = Duration::from_millis(40);

/// The longest time between two requests for one packet, whatever round trip was measured.
pub const NACK_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Requests for one packet, then it is given up (mediasoup).
pub const NACK_RETRIES_MAX: u8 = 10;

/// Missing packets of one stream; beyond it a key frame is cheaper (mediasoup).
pub const NACK_ITEMS_MAX: usize = 1000;

/// Missing packets this far behind the newest are given up (mediasoup).
pub const NACK_AGE_MAX: u64 = 10_000;

/// Arrivals of one transport kept for transport-wide feedback: two feedbacks of 100 ms and the
/// repeats for reordering at 4,000 packets/s. A larger gap in the numbers starts anew.
pub const TWCC_ARRIVALS_MAX: usize = 2048;

/// Packets of one transport-wide feedback: 400 worst-case deltas and chunks take 935 of an MTU's bytes.
pub const TWCC_FEEDBACK_PACKETS_MAX: usize = 400;

/// A transport-wide feedback is sent at least this often while packets arrive; the publisher's
/// bandwidth estimate rises only as fast as it is told.
pub const TWCC_INTERVAL: Duration = Duration::from_millis(100);

/// An arrival reported this long ago is no longer repeated for packets that come late (libwebrtc).
pub const TWCC_REPEAT: Duration = Duration::from_millis(500);

/// Sent packets of one transport remembered for transport-wide feedback: 300 ms at 3,400 packets/s.
pub const TWCC_HISTORY_MAX: usize = 1024;

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

const _: () = assert!(VIDEO_RING_SLOTS_MAX.is_power_of_two());
const _: () = assert!(AUDIO_RING_SLOTS_MAX.is_power_of_two());
const _: () = assert!(AUDIO_RING_SLOTS_MAX <= VIDEO_RING_SLOTS_MAX);
const _: () = assert!(SRTP_REPLAY_PACKETS.is_multiple_of(64));
const _: () = assert!(SRTCP_REPLAY_PACKETS.is_multiple_of(64));
const _: () = assert!(SRTP_REPLAY_PACKETS >= VIDEO_RING_SLOTS_MAX);
const _: () = assert!(MEDIA_DATAGRAM_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(TWCC_HISTORY_MAX.is_power_of_two());
const _: () = assert!(TWCC_FEEDBACK_PACKETS_MAX < TWCC_ARRIVALS_MAX);
const _: () = assert!(TWCC_ARRIVALS_MAX < 1 << 15);
const _: () = assert!(SHARDS_MAX <= 32 * 32);
const _: () = assert!(TRANSPORTS_PER_SHARD_MAX <= 1 << 20);
const _: () = assert!(CONSENT_TIMEOUT.as_secs() >= 10);
