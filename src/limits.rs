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

/// Misdirected datagrams waiting for one shard; beyond it they are dropped and counted. Slots hold
/// the datagram itself and are resident from the start: 1.6 MB per shard.
pub const HANDOFF_LANE_CAPACITY: usize = 1024;

/// Bytes of a datagram that is handed to another shard: Ethernet's payload, and media is shorter.
pub const HANDOFF_BYTES_MAX: usize = 1500;

/// Claims, disclaims and TCP connections waiting for one shard; a lost claim is repeated by the
/// next STUN request, a lost connection is closed.
pub const NOTE_LANE_CAPACITY: usize = 1024;

/// Paths whose owning shard one shard remembers: all of its peers' transports on four shards.
pub const HANDOFF_PATHS_MAX: usize = 4 * TRANSPORTS_PER_SHARD_MAX;

/// A remembered path without a datagram for this long is forgotten: twice the consent time-out.
pub const HANDOFF_PATH_IDLE: Duration = Duration::from_secs(60);

/// Commands one turn carries out, so that a flood of them does not hold up media.
pub const COMMANDS_PER_TURN_MAX: usize = 64;

/// Receive batches one turn reads before it flushes: bounds the age of what waits to be sent.
pub const RECEIVE_BATCHES_PER_TURN_MAX: usize = 8;

/// Handed-off datagrams one turn takes over.
pub const HANDOFFS_PER_TURN_MAX: usize = 256;

/// Notes of other shards one turn reads.
pub const NOTES_PER_TURN_MAX: usize = 64;

/// Messages of one `recvmmsg` with `UDP_GRO`: each needs a 64 KiB slot; 8 and 64 cost the same.
pub const RECEIVE_SLOTS_GRO: usize = 16;

/// Messages of one `recvmmsg` without `UDP_GRO`, in slots of 2 KiB.
pub const RECEIVE_SLOTS_PLAIN: usize = 64;

/// Trains of one `sendmmsg`.
pub const TRAINS_PER_BATCH_MAX: usize = 64;

/// Segments of one train: longer ones save little more and hit real networks as bursts.
pub const SEGMENTS_PER_TRAIN_MAX: usize = 8;

/// Bytes of one transmit batch: some 200 media packets, small enough to stay in L2.
pub const TRANSMIT_BATCH_BYTES: usize = 256 * 1024;

/// How long a full send buffer may hold up a shard, once per batch; then the rest is dropped.
pub const SEND_WAIT_MAX: Duration = Duration::from_millis(1);

/// Send and receive buffer asked of the kernel for each UDP socket: 100 ms at 600 Mbit/s.
pub const SOCKET_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// A shard that waited this long without traffic parks in its runtime.
pub const IDLE_BEFORE_PARK: Duration = Duration::from_millis(5);

/// How long a bind is retried: a ring of a process that has just died keeps the port for 40 ms.
pub const BIND_PATIENCE: Duration = Duration::from_secs(1);

/// Time between two attempts to bind.
pub const BIND_RETRY: Duration = Duration::from_millis(100);

/// How long a shard's thread may take to come up.
pub const START_TIMEOUT: Duration = Duration::from_secs(10);

/// ICE-TCP connections of one shard: a descriptor and up to [`TCP_WRITE_BYTES_MAX`] each.
pub const TCP_CONNECTIONS_PER_SHARD_MAX: usize = 4096;

/// Connections of one shard that have not yet sent their first frame; the oldest gives way.
pub const TCP_STRANGERS_PER_SHARD_MAX: usize = 256;

/// Connections accepted per turn.
pub const TCP_ACCEPTS_PER_TURN_MAX: usize = 32;

/// Connections served per turn.
pub const TCP_EVENTS_PER_TURN_MAX: usize = 64;

/// A connection whose address ICE has not validated by then is closed.
pub const TCP_CLAIM_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection without a byte for this long is closed: twice the consent time-out.
pub const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of a connection's first frame: a STUN request with every ICE attribute is under 300.
pub const TCP_FIRST_FRAME_BYTES_MAX: usize = 1024;

/// Bytes of a frame: what travels in UDP datagrams elsewhere, with room to spare.
pub const TCP_FRAME_BYTES_MAX: usize = 4096;

/// Bytes waiting to be written to one connection: half a second at 4 Mbit/s; then whole frames are
/// dropped, as a network would.
pub const TCP_WRITE_BYTES_MAX: usize = 256 * 1024;

/// Bytes read from one connection per turn.
pub const TCP_READ_BYTES: usize = 64 * 1024;

/// Events of one room kept for readers that reconnect.
pub const ROOM_LOG_EVENTS_MAX: usize = 1024;

/// Age of a room event kept for readers that reconnect.
pub const ROOM_LOG_AGE_MAX: Duration = Duration::from_secs(300);

/// Live readers of one room's events.
pub const EVENT_READERS_PER_ROOM_MAX: usize = 1024;

/// Live readers of events on the node.
pub const EVENT_READERS_MAX: usize = 16 * 1024;

const _: () = assert!(TCP_FIRST_FRAME_BYTES_MAX <= TCP_FRAME_BYTES_MAX);
const _: () = assert!(TCP_FRAME_BYTES_MAX + 2 <= TCP_READ_BYTES);
const _: () = assert!(HANDOFF_BYTES_MAX >= MEDIA_DATAGRAM_BYTES_MAX);
const _: () = assert!(SEGMENTS_PER_TRAIN_MAX <= 64);
const _: () = assert!(VIDEO_RING_SLOTS_MAX.is_power_of_two());
const _: () = assert!(AUDIO_RING_SLOTS_MAX.is_power_of_two());
const _: () = assert!(AUDIO_RING_SLOTS_MAX <= VIDEO_RING_SLOTS_MAX);
const _: () = assert!(SHARDS_MAX <= 32 * 32);
const _: () = assert!(TRANSPORTS_PER_SHARD_MAX <= 1 << 20);
const _: () = assert!(CONSENT_TIMEOUT.as_secs() >= 10);
