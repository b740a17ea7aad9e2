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

/// Silence of the selected address after which media from another validated one moves the
/// selection: above any reordering around a switch, below what a viewer notices.
pub const FOLLOW_MEDIA_AFTER: Duration = Duration::from_millis(200);

/// Silence of the selected address after which a request from another one moves the selection:
/// browsers check a selected address every 2.5 s.
pub const FOLLOW_STUN_AFTER: Duration = Duration::from_secs(3);

/// Validated addresses of one shard: every transport may have all of its tuples.
pub const PATHS_PER_SHARD_MAX: usize = TRANSPORTS_PER_SHARD_MAX * TUPLES_PER_TRANSPORT_MAX;

/// STUN answers and DTLS datagrams of one transport waiting to be sent: a handshake flight is at
/// most 10, and whatever is dropped is sent again by its protocol.
pub const CONNECTION_OUTPUT_MAX: usize = 32;

/// Outputs taken from one `Rtc` for one input: far above a flight, so that a fault cannot stall a
/// shard.
pub const RTC_OUTPUTS_MAX: usize = 256;

/// Bytes of a DTLS datagram at most: passes every network that passes browsers' own 1,200.
pub const DTLS_DATAGRAM_BYTES_MAX: usize = 1200;

/// First retransmission of a DTLS flight; doubles each time. RFC 6347's 1 s would be a second of
/// black for each lost flight.
pub const DTLS_RETRANSMIT_AFTER: Duration = Duration::from_millis(200);

/// Retransmissions of a DTLS flight: 200 ms doubled 7 times is 25 s, within the connect time-out.
pub const DTLS_RETRANSMISSIONS_MAX: usize = 6;

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
const _: () = assert!(SHARDS_MAX <= 32 * 32);
const _: () = assert!(TRANSPORTS_PER_SHARD_MAX <= 1 << 20);
const _: () = assert!(CONSENT_TIMEOUT.as_secs() >= 10);
