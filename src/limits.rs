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

/// RTCP feedback mechanisms of one codec; browsers name five.
pub const RTCP_FEEDBACK_MAX: usize = 32;

/// Parameters of one codec or header extension, or fields of one encoding; browsers use under ten.
pub const CODEC_PARAMETERS_MAX: usize = 64;

/// Characters of a codec parameter's name or value: H264's `sprop-parameter-sets` may take some
/// hundreds.
pub const PARAMETER_CHARS_MAX: usize = 1024;

/// Characters of a MIME type; the longest registered RTP name with its kind is under 40.
pub const MIME_CHARS_MAX: usize = 64;

/// Characters of a header extension's URI; the longest known one has 88.
pub const EXTENSION_URI_CHARS_MAX: usize = 256;

/// Characters of a producer's MID or RID: a one-byte header extension carries 16 bytes (RFC 8285
/// §4.2), doubled for senders that use two-byte headers.
pub const MID_CHARS_MAX: usize = 32;

/// Characters of a CNAME: an SDES item carries 255 bytes (RFC 3550 §6.5).
pub const CNAME_CHARS_MAX: usize = 255;

/// Characters of an msid: two ids of at most 64 and a space (RFC 8830 §2).
pub const MSID_CHARS_MAX: usize = 129;

/// Characters of a scalability mode; the longest known one, `L3T3_KEY_SHIFT`, has 14.
pub const SCALABILITY_MODE_CHARS_MAX: usize = 32;

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

/// Bytes of one datagram that media may have: Ethernet's 1,500 less the smallest IP and UDP headers.
pub const MEDIA_DATAGRAM_BYTES_MAX: usize = 1472;

/// Packets that a receiver asked for again and that wait for their turn, per consumer: more than one
/// NACK names at once; the rest is asked for anew.
pub const REPAIRS_QUEUED_MAX: usize = 128;

/// The shortest time between two repeats of one packet for one receiver: libwebrtc's NACK timer, so
/// no honest receiver asks faster.
pub const REPAIR_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// Age of a video packet that is still worth sending again (mediasoup's).
pub const REPAIR_AGE_VIDEO_MAX: Duration = Duration::from_secs(2);

/// Age of an audio packet that is still worth sending again (mediasoup's).
pub const REPAIR_AGE_AUDIO_MAX: Duration = Duration::from_secs(1);

/// Packets before a key frame's first one in arrival that may belong to it, and packets through
/// which a new consumer looks back for one: a key frame of 300 KB.
pub const KEY_FRAME_LOOKBACK: u64 = 256;

/// Age of a key frame with which a new consumer may still start at once: what follows it is sent in
/// one burst, so it must be short.
pub const KEY_FRAME_AGE_MAX: Duration = Duration::from_millis(300);

/// Bytes of RTCP waiting for one transport's turn: reports of a transport with 100 consumers.
pub const RTCP_QUEUE_BYTES_MAX: usize = 16 * 1024;

/// What sequence numbers jump when a sender takes another SSRC: beyond every window behind them.
pub const STREAM_RESTART_GAP: u64 = 1 << 20;

/// Time between two reports of a transport (RFC 3550's minimum of 5 s is for multicast; browsers
/// and mediasoup report every second).
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Least time between two tellings that a client's selected address changed, and nothing else.
pub const ADDRESS_NEWS_INTERVAL: Duration = Duration::from_secs(1);

/// Last words of closed transports (DTLS close_notify) waiting for the shard's next turn.
pub const FAREWELLS_QUEUED_MAX: usize = 1024;

/// Events of one engine that its shard has not taken yet; the shard takes them every turn.
pub const EVENTS_QUEUED_MAX: usize = 4096;
/// Packet statuses of one transport-wide feedback that are read or written: 100 ms of 80,000
/// packets/s. A 36-byte packet may claim 65,535 of them, which must not cost as many steps.
pub const FEEDBACK_STATUSES_MAX: u16 = 8192;

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

/// Bytes of one room's events kept for readers that reconnect: some 500 common events, or 64 with
/// the largest `appData`.
pub const ROOM_LOG_BYTES_MAX: usize = 256 * 1024;

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

/// Least time between two key-frame requests to one sender: browsers ignore one that comes within
/// 300 ms of the one before (libwebrtc's `EncoderRtcpFeedback`); the rest is jitter of the way.
pub const KEY_FRAME_SPACING_MIN: Duration = Duration::from_millis(330);

/// An unanswered key-frame request is repeated after this while the round trip is not known: the
/// encoder's time and two round trips of 100 ms.
pub const KEY_FRAME_RETRY_FIRST: Duration = Duration::from_millis(500);

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

/// A stream without packets for this long does not arrive (mediasoup's 1.5 s).
pub const STREAM_INACTIVE: Duration = Duration::from_millis(1500);

/// The same for a stream with discontinuous transmission (mediasoup's 5 s).
pub const STREAM_INACTIVE_DTX: Duration = Duration::from_secs(5);

/// A stream that arrives for less than this is not gone over to while another is there: a
/// publisher probing its bandwidth starts and stops streams (mediasoup's 2 s).
pub const STREAM_YOUNG: Duration = Duration::from_secs(2);

const _: () = assert!(SEQ_WINDOW.is_multiple_of(64) && SEQ_WINDOW < SEQ_DROPOUT_MAX);
const _: () = assert!(KEY_FRAME_SPACING_MIN.as_millis() <= KEY_FRAME_SPACING_MAX.as_millis());
const _: () = assert!(KEY_FRAME_RETRY_MIN.as_millis() <= KEY_FRAME_RETRY_FIRST.as_millis());
const _: () = assert!(KEY_FRAME_RETRY_FIRST.as_millis() <= KEY_FRAME_RETRY_MAX.as_millis());
const _: () = assert!(TIMESTAMP_STEP.as_millis() < TIMESTAMP_EXTRA_MAX.as_millis());
const _: () = assert!(TCP_FIRST_FRAME_BYTES_MAX <= TCP_FRAME_BYTES_MAX);
const _: () = assert!(TCP_FRAME_BYTES_MAX + 2 <= TCP_READ_BYTES);
const _: () = assert!(HANDOFF_BYTES_MAX >= MEDIA_DATAGRAM_BYTES_MAX);
// A joined message has one address; each may bring one path and end another, a closed transport
// ends all of its own.
const _: () = assert!(
    PATH_CHANGES_PER_TURN_MAX
        >= 2 * RECEIVE_BATCHES_PER_TURN_MAX * RECEIVE_SLOTS_PLAIN
            + 2 * HANDOFFS_PER_TURN_MAX
            + COMMANDS_PER_TURN_MAX * TUPLES_PER_TRANSPORT_MAX
);
const _: () = assert!(4 * FLOW_RETRIES_PER_SECOND_MAX <= NOTE_LANE_CAPACITY);
const _: () = assert!(SEGMENTS_PER_TRAIN_MAX <= 64);
/// Events waiting for one reader; beyond it the reader is disconnected. Equal to the log's length:
/// whoever is further behind could not be served from the log either.
pub const EVENT_READER_QUEUE: usize = ROOM_LOG_EVENTS_MAX;

/// Silence on an event stream after which a comment is sent: proxies cut idle streams after 30 s
/// and more.
pub const EVENT_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Calls to shards that wait for their answers: each is a few hundred bytes, and a shard answers
/// thousands per second.
pub const CALLS_OUTSTANDING_MAX: usize = 16 * 1024;

/// How often the control thread looks for peers and rooms whose grace is over.
pub const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(5);

/// How long a command that must not be lost (a close, an inventory) waits before it tries a full lane again.
pub const CLOSE_RETRY_DELAY: Duration = Duration::from_millis(50);

/// A report is made once a second; one older than this says that its shard did not turn for 2 s.
pub const REPORT_AGE_MAX: Duration = Duration::from_secs(3);

/// A node whose every shard is busier than this is not ready for more.
pub const BUSY_MAX: f64 = 0.95;

/// Characters of a producer's `source`: a word such as `camera`, copied into lists and events.
pub const SOURCE_CHARS_MAX: usize = 64;

/// Fingerprints in a client's DTLS parameters: one per hash that exists, and some.
pub const FINGERPRINTS_MAX: usize = 16;

/// Least time between key-frame requests that a client may ask for; longer would look like a
/// frozen picture.
pub const KEY_FRAME_REQUEST_DELAY_MAX: Duration = Duration::from_secs(10);

/// Rooms in one page of the list.
pub const ROOMS_PAGE_MAX: usize = 1000;

/// How long open HTTP connections may take to end after the API was told to stop.
pub const API_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// An API connection on which no byte moves for this long is closed: longer than the 60 s for which
/// proxies keep idle connections, so that they let go first.
pub const API_SILENCE_MAX: Duration = Duration::from_secs(75);

const _: () = assert!(EVENT_KEEP_ALIVE.as_secs() * 2 < API_SILENCE_MAX.as_secs());
const _: () = assert!(API_STOP_TIMEOUT.as_millis() < STOP_TIMEOUT.as_millis());
const _: () = assert!(VIDEO_RING_SLOTS_MAX.is_power_of_two());
const _: () = assert!(AUDIO_RING_SLOTS_MAX.is_power_of_two());
const _: () = assert!(AUDIO_RING_SLOTS_MAX <= VIDEO_RING_SLOTS_MAX);
const _: () = assert!(SRTP_REPLAY_PACKETS.is_multiple_of(64));
const _: () = assert!(SRTCP_REPLAY_PACKETS.is_multiple_of(64));
const _: () = assert!(SRTP_REPLAY_PACKETS >= VIDEO_RING_SLOTS_MAX);
const _: () = assert!(MEDIA_DATAGRAM_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(TWCC_FEEDBACK_PACKETS_MAX < TWCC_ARRIVALS_MAX);
const _: () = assert!(TWCC_ARRIVALS_MAX < 1 << 15);
const _: () = assert!(SHARDS_MAX <= 32 * 32);
const _: () = assert!(TRANSPORTS_PER_SHARD_MAX <= 1 << 20);
const _: () = assert!(CONSENT_TIMEOUT.as_secs() >= 10);
