//! Bounds of the shards: lanes, turns, sockets, steering, ICE-TCP.

use std::time::Duration;

use super::{RELAY_PACKETS_PER_TURN_MAX, TUPLES_PER_TRANSPORT_MAX};

/// Shards: two base-32 characters of the ufrag name the shard (32 × 32).
pub const SHARDS_MAX: usize = 1024;

/// Transports of one shard: 20 bits of slot in the ufrag.
pub const TRANSPORTS_PER_SHARD_MAX: usize = 16 * 1024;

/// Validated addresses of one shard: every transport may have all of its tuples.
pub const PATHS_PER_SHARD_MAX: usize = TRANSPORTS_PER_SHARD_MAX * TUPLES_PER_TRANSPORT_MAX;

/// Validated UDP addresses that came or went and that the shard has not been told: every address
/// may go at once (a network that fails), and the shard takes more per turn than a turn can bring.
pub const PATH_CHANGES_QUEUED_MAX: usize = 2 * PATHS_PER_SHARD_MAX;

/// Address changes one turn carries into the kernel's flow map, at 1–2 µs each: more than a turn's
/// input can bring, so that an address is always in the map before its client is answered.
pub const PATH_CHANGES_PER_TURN_MAX: usize = 2048;

/// Flows of the kernel's map at most, all shards together: two for each transport of 32 full
/// shards. The kernel keeps 16 bytes for each from the start, the rest as they come.
pub const FLOWS_MAX: usize = 1 << 20;

/// Paths that found the flow map full and are tried again per second; each is meanwhile told to
/// all other shards, whose lanes of notes take four times as many.
pub const FLOW_RETRIES_PER_SECOND_MAX: usize = 256;

/// Attributes of a STUN request among which the kernel's program looks for USERNAME; browsers send
/// about eight, and a request with more before it is handed to its shard in user space.
pub const STEERED_ATTRIBUTES_MAX: usize = 32;

/// Descriptors of one shard beside its connections: sockets, wakers, timers, rings.
pub const SHARD_DESCRIPTORS: usize = 32;

/// Memory that a process must be permitted to lock before glommio makes any ring.
pub const LOCKED_BYTES_MIN: u64 = 512 * 1024;

/// Memory that one shard's rings lock at most: buffers of 64 KiB, and three rings of 32 entries where
/// the kernel counts those too (before Linux 5.12).
pub const LOCKED_BYTES_PER_SHARD: u64 = 256 * 1024;

/// How long SIGTERM waits for the threads to end.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Commands waiting for one shard; beyond it a request is answered 503.
pub const COMMAND_LANE_CAPACITY: usize = 1024;

/// Events of one shard waiting for the control thread; beyond it they are counted and resynchronised.
pub const EVENT_LANE_CAPACITY: usize = 8192;

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

/// Video packets of other shards waiting for one shard: 160 ms of a hundred publishers' (250
/// packets/s each), longer than any turn. Beyond it a packet is dropped and its stream goes on with
/// its next key frame. Slots are pointers; the packets themselves may take 6 MB.
pub const RELAY_VIDEO_LANE_CAPACITY: usize = 4096;

/// Audio packets of other shards waiting for one shard: 200 ms of two hundred publishers' (50
/// packets/s each); beyond it a packet is lost, which a decoder conceals.
pub const RELAY_AUDIO_LANE_CAPACITY: usize = 2048;

/// Demands, key-frame requests and pulses of other shards waiting for one shard. Beyond it a demand
/// and a request are tried again, and a pulse is made good by the next one.
pub const RELAY_SIGNAL_LANE_CAPACITY: usize = 2048;

/// Emptied boxes waiting to be filled again by one shard: all that one turn of it may fill; more are
/// freed. 3 MB, and freed within 2 s of the last packet.
pub const RELAY_BOXES_RETURNED_MAX: usize = RELAY_PACKETS_PER_TURN_MAX;

/// Relayed video packets one turn takes, at some 200 ns each: what a hundred publishers send in
/// 20 ms.
pub const RELAY_VIDEO_PER_TURN_MAX: usize = 512;

/// Relayed audio packets one turn takes.
pub const RELAY_AUDIO_PER_TURN_MAX: usize = 512;

/// Signals of other shards one turn takes.
pub const RELAY_SIGNALS_PER_TURN_MAX: usize = 256;

/// How long an event may lie in its lane before the control thread is woken for it: a client that
/// connects makes four within some milliseconds, and each wake costs two threads 20 µs.
pub const EVENT_WAKE_DELAY: Duration = Duration::from_millis(5);

/// Commands one turn carries out, so that a flood of them does not hold up media.
pub const COMMANDS_PER_TURN_MAX: usize = 64;

/// Datagrams one turn sends before it receives again; what is left stays due. About 2 ms at 2 µs
/// for each (see `benches/forward.rs` and the kernel's part), exceeded by one batch at most.
pub const DATAGRAMS_SENT_PER_TURN_MAX: usize = 1024;

/// Media packets sealed for one transport at a time, then it is the others' turn: eight full trains.
pub const TRANSPORT_SHARE: usize = 64;

/// Timers fired per turn: a transport's reports take 1–10 µs.
pub const TIMERS_PER_TURN_MAX: usize = 256;

/// Receive batches one turn reads before it flushes: bounds the age of what waits to be sent.
pub const RECEIVE_BATCHES_PER_TURN_MAX: usize = 8;

/// Handed-off datagrams one turn takes over.
pub const HANDOFFS_PER_TURN_MAX: usize = 256;

/// Notes of other shards one turn reads.
pub const NOTES_PER_TURN_MAX: usize = 64;

/// How long a datagram may have waited in the kernel for its receive time to be believed: a full
/// buffer is read in well under a second, so an older one tells that the wall clock was set.
pub const RECEIVE_AGE_MAX: Duration = Duration::from_secs(10);

/// The longest latency of a forwarded packet that is told from longer ones: as long as a datagram
/// may have waited in the kernel.
pub const LATENCY_MAX: Duration = RECEIVE_AGE_MAX;

/// The recent past that operators are shown latencies of.
pub const LATENCY_WINDOW: Duration = Duration::from_secs(10);

/// Messages of one `recvmmsg` with `UDP_GRO`: each needs a 64 KiB slot; 8 and 64 cost the same.
pub const RECEIVE_SLOTS_GRO: usize = 16;

/// Messages of one `recvmmsg` without `UDP_GRO`, in slots of 2 KiB.
pub const RECEIVE_SLOTS_PLAIN: usize = 64;

/// Trains of one `sendmmsg`.
pub const TRAINS_PER_BATCH_MAX: usize = 32;

/// Hosts to which one shard sends datagram by datagram because the kernel refused trains for their
/// route (clients behind a tunnel or IPsec); with more of them the device is taken to be the one of
/// all, and nobody gets trains. Looked through for each train as soon as there are some.
pub const PLAIN_HOSTS_MAX: usize = 64;

/// Segments of one train: longer ones save little more and hit real networks as bursts.
pub const SEGMENTS_PER_TRAIN_MAX: usize = 8;

/// RTP padding that makes a packet a train's equal, at most: beyond it a train more costs less than
/// what every receiver's link would carry.
pub const TRAIN_PADDING_MAX: usize = 32;

/// Thousandths of a train's bytes that padding may be.
pub const TRAIN_PADDING_PER_MILLE_MAX: usize = 30;

/// Bytes of one transmit batch: 30 to 40 media packets. 256 KiB costs the same CPU, and what is
/// sealed first leaves later (median latency 860 µs instead of 780 with 100 receivers of 5 packets).
pub const TRANSMIT_BATCH_BYTES: usize = 64 * 1024;

/// How long a full send buffer may hold up a shard, once per batch; then the rest is dropped.
pub const SEND_WAIT_MAX: Duration = Duration::from_millis(1);

/// Send and receive buffer asked of the kernel for each UDP socket: 100 ms at 600 Mbit/s.
pub const SOCKET_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// A shard that waited this long without traffic parks in its runtime: longer than the gaps of any
/// call's media, because parking costs three times what waiting does.
pub const IDLE_BEFORE_PARK: Duration = Duration::from_millis(200);

/// The longest time in which media may be let gather before it wakes a shard, and three fifths of the
/// longest in which a shard that sends single packets to many waits for the next: what that adds to a
/// packet stays below what calls notice.
pub const COALESCE_MAX: Duration = Duration::from_millis(2);

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

/// Turns without a wait between them after which TCP is looked at: each look is a system call, and a
/// busy shard's turns are milliseconds.
pub const TCP_TURNS: u64 = 8;

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

const _: () = assert!(TCP_FIRST_FRAME_BYTES_MAX <= TCP_FRAME_BYTES_MAX);
const _: () = assert!(TCP_FRAME_BYTES_MAX + 2 <= TCP_READ_BYTES);
const _: () = assert!(4 * FLOW_RETRIES_PER_SECOND_MAX <= NOTE_LANE_CAPACITY);
const _: () = assert!(SEGMENTS_PER_TRAIN_MAX <= 64);
const _: () = assert!(TRAIN_PADDING_MAX <= u8::MAX as usize);
const _: () = assert!(SHARDS_MAX <= 32 * 32);
const _: () = assert!(TRANSPORTS_PER_SHARD_MAX <= 1 << 20);
