//! Bounds of the control plane: names and parameters, rooms and peers, event logs, calls and the
//! API's patience.

use std::time::Duration;

/// Characters of a room or peer name: long enough for a UUID with a prefix, short enough for a log line.
pub const NAME_CHARS_MAX: usize = 128;

/// Bytes of `appData` as serialised JSON: it is copied into every list and event.
pub const APP_DATA_BYTES_MAX: usize = 4 * 1024;

/// Bytes of a request body: the largest honest one (capabilities of every codec) is under 32 KiB.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

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

/// M-sections of an SDP offer: as many as one transport may have producers.
pub const SDP_MEDIA_MAX: usize = PRODUCERS_PER_TRANSPORT_MAX;

/// Formats, codecs and lists of parameters of one m-section: payload types have seven bits.
pub const SDP_FORMATS_MAX: usize = 128;

/// SSRCs of one m-section: browsers name two, six with the oldest kind of simulcast.
pub const SDP_SSRCS_MAX: usize = 32;

/// STUN and TURN servers that clients are told of: browsers warn of five and more, which slow down
/// gathering.
pub const ICE_SERVERS_MAX: usize = 16;

/// URLs of one such server: UDP, TCP and TLS, by both families.
pub const ICE_SERVER_URLS_MAX: usize = 8;

/// Characters of a URL, a name or a secret of such a server: a STUN USERNAME has under 509 bytes
/// (RFC 8489 §14.3), and all of them travel in headers.
pub const ICE_SERVER_TEXT_CHARS_MAX: usize = 508;

/// Bytes of a file of such servers: more than as many as there may be.
pub const ICE_SERVERS_FILE_BYTES_MAX: u64 = 256 * 1024;

/// How long credentials made for a TURN server are valid: as the draft that describes them advises
/// (draft-uberti-behave-turn-rest-00 §2.2), longer than calls last.
pub const TURN_CREDENTIALS_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes of what a proxy says that it took off a path: a few names of a site's sections.
pub const PROXY_PREFIX_BYTES_MAX: usize = 256;

/// Characters of an ICE user name fragment (RFC 8839 §5.4).
pub const ICE_CHARS_MAX: usize = 256;

/// A peer without any transport leaves after this long: a page that reloads takes less.
pub const PEER_GRACE: Duration = Duration::from_secs(60);

/// A WHEP session that has nothing left to play ends after this long, so that its player is told,
/// and asks anew: a publisher who comes back at once is found by then, and no room is kept by who
/// watches nobody.
pub const WHEP_GRACE: Duration = Duration::from_secs(10);

/// A transport whose client was never told to connect is closed after this long, unless the peer
/// uses another: mediasoup-client connects with its first producer or consumer, and a page may wait
/// from morning to evening for somebody to come. Each takes little without its DTLS, and those older
/// than [`CONNECT_TIMEOUT`](super::CONNECT_TIMEOUT) go as soon as there are as many transports as
/// there may be.
pub const UNUSED_TRANSPORT_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// A room without peers is closed after this long: the first peer needs time to come after creation.
pub const ROOM_GRACE: Duration = Duration::from_secs(60);

/// Events of one room kept for readers that reconnect.
pub const ROOM_LOG_EVENTS_MAX: usize = 1024;

/// Bytes of one room's events kept for readers that reconnect: some 500 common events, or 64 with
/// the largest `appData`.
pub const ROOM_LOG_BYTES_MAX: usize = 256 * 1024;

/// Age of a room event kept for readers that reconnect.
pub const ROOM_LOG_AGE_MAX: Duration = Duration::from_secs(300);

/// Events of one room in a second that only tell a client's bandwidth or a consumer's score; more wait,
/// the newest of each object. A call of ten makes fewer; of twenty a second the log of a big room
/// still holds the last minute.
pub const ROOM_GAUGES_PER_SECOND_MAX: usize = 20;

/// The same, times the readers that get them: a tenth of a core.
pub const ROOM_GAUGE_DELIVERIES_PER_SECOND_MAX: usize = 5_000;

/// Events waiting for one reader, or of one room for the thread of all readers; beyond it the reader,
/// or all of that room, are disconnected. Equal to the log's length: whoever is further behind could
/// not be served from the log either.
pub const EVENT_READER_QUEUE: usize = ROOM_LOG_EVENTS_MAX;

/// Age of a snapshot of a room that a new reader of its events may begin at, with what happened since.
/// A snapshot of a thousand peers takes milliseconds to make, and readers come by the thousand after
/// a restart; a quarter of a second is before anybody could have seen the room change.
pub const SNAPSHOT_AGE_MAX: Duration = Duration::from_millis(250);

/// By how much the thread of readers of events, and one that writes metrics, come behind calls and
/// media: where a core is full such a thread gets a tenth of what one of the others gets, which is
/// still thousands of events a second.
pub const BEHIND_CALLS_NICE: i32 = 10;

/// Log lines that wait for who reads the log, some hundred bytes each; more are let go and counted.
/// What a busy server says in a minute, and the flood of a thousand rooms that end at once.
pub const LOG_LINES_WAITING_MAX: usize = 8192;

/// Silence on an event stream after which a comment is sent: proxies cut idle streams after 30 s
/// and more.
pub const EVENT_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a WebSocket reader may take over one message: a client that is stuck for longer would
/// not be in the call either, and the message stays in memory for as long.
pub const EVENT_WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pings and pongs of one reader in [`EVENT_KEEP_ALIVE`]: four times as many as libraries send that
/// ping every second. Each costs the control thread some microseconds.
pub const EVENT_READER_PINGS_MAX: u32 = 60;

/// Bytes of a message from a WebSocket reader, who has nothing to say.
pub const EVENT_READER_SAYS_MAX: usize = 1024;

/// Calls to shards that wait for their answers: each is a few hundred bytes, and a shard answers
/// thousands per second.
pub const CALLS_OUTSTANDING_MAX: usize = 16 * 1024;

/// How long a shard may take to answer. A shard's turn takes milliseconds, and one that has not
/// turned for 3 s is reported as dead; a request that waited longer is better tried again.
pub const SHARD_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Objects in one page of a room's statistics: some 700 bytes each.
pub const ROOM_STATS_PAGE_MAX: usize = 1000;

/// Calls to shards under way for all requests of rooms' statistics together: at most half of what a
/// turn carries out, so that they never delay others' commands by a whole turn.
pub const ROOM_STATS_CALLS_MAX: usize = 32;

/// Rooms in one answer to an operator who looks through them: more than a screen shows.
pub const OVERVIEW_ROOMS_MAX: usize = 100;

/// Transports that are asked for their bitrates for one such answer: all of a page of usual calls;
/// rooms for which they do not reach are told without.
pub const OVERVIEW_CALLS_MAX: usize = 512;

/// How long such an answer waits for these bitrates; shards answer within milliseconds.
pub const OVERVIEW_PATIENCE: Duration = Duration::from_secs(1);

/// How often the control thread looks for peers and rooms whose grace is over.
pub const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(5);

/// How long a command that must not be lost (a close, an inventory) waits before it tries a full lane again.
pub const CLOSE_RETRY_DELAY: Duration = Duration::from_millis(50);

/// A report is made once a second; one older than this says that its shard did not turn for 2 s.
pub const REPORT_AGE_MAX: Duration = Duration::from_secs(3);

/// How often a service manager is told of the node: about as often as shards report.
pub const NOTIFY_PERIOD: Duration = Duration::from_secs(1);

/// By how much a service manager's patience with a node that stops is prolonged, again and again: its
/// control thread may be away for as long as the outlets need.
pub const NOTIFY_EXTENSION: Duration = Duration::from_secs(30);

/// How long `ringcast health` waits for an answer: less than the patience of those who ask through it.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// How long `ringcast drain` waits for one answer of a server, which may be far away.
pub const REMOTE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of such an answer: `/admin/status` of 1,024 shards has under 1 MiB.
pub const REMOTE_ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How often `ringcast drain` asks how many rooms are left.
pub const DRAIN_ASK_PERIOD: Duration = Duration::from_secs(1);

/// So many times in a row a server may not be there before `ringcast drain` gives up.
pub const DRAIN_ASKS_MISSED_MAX: usize = 5;

/// So many times in a row nobody may listen there before `ringcast drain --exit` takes it that the
/// server has ended: one refusal may be of a port that is just being opened or forwarded.
pub const DRAIN_REFUSALS: usize = 3;

/// How long a token is valid that `ringcast drain` asks with: clocks may differ, and each question
/// has a new one.
pub const DRAIN_TOKEN_TTL: Duration = Duration::from_secs(60);

/// How long `ringcast doctor` waits for a name, a connection or a program of the host.
pub const DOCTOR_PATIENCE: Duration = Duration::from_secs(2);

/// Descriptors of the control thread and the outlets beside the API's connections.
pub const CONTROL_DESCRIPTORS: usize = 64;

/// A node whose every shard is busier than this is not ready for more.
pub const BUSY_MAX: f64 = 0.95;

/// Characters of a producer's `source`: a word such as `camera`, copied into lists and events.
pub const SOURCE_CHARS_MAX: usize = 64;

/// For how long a caller who was silent may ask as much as it wants, as if at its rate: a page that
/// joins a call of 2,000 peers, or everybody behind one address after a restart.
pub const RATE_BURST: Duration = Duration::from_secs(20);

/// Addresses, or tokens, whose requests are counted apart, at some 100 bytes each.
pub const RATE_BUCKETS_MAX: usize = 64 * 1024;

/// How often those whose buckets are full again are forgotten: a look at all of them takes a
/// millisecond.
pub const RATE_SWEEP_PERIOD: Duration = Duration::from_secs(5);

/// Fingerprints in a client's DTLS parameters: one per hash that exists, and some.
pub const FINGERPRINTS_MAX: usize = 16;

/// Least time between key-frame requests that a client may ask for; longer would look like a
/// frozen picture.
pub const KEY_FRAME_REQUEST_DELAY_MAX: Duration = Duration::from_secs(10);

/// Rooms in one page of the list.
pub const ROOMS_PAGE_MAX: usize = 1000;

/// Longest time that rooms may be given to end by themselves: a day, longer than calls last, so that
/// a mistyped number does not keep a node alive for good.
pub const DRAIN_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Rooms closed together at the deadline of a drain: each takes a command for each of its
/// transports, and requests have their turn in between.
pub const DRAIN_CLOSES_PER_TURN: usize = 64;

/// Least time between two log lines that tell how many rooms are left of a drain.
pub const DRAIN_LOG_PERIOD: Duration = Duration::from_secs(10);

/// How long a node that ends at once waits for its shards to tell clients that rooms are over.
pub const ROOMS_STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// The least time between two such closes of [`DRAIN_CLOSES_PER_TURN`] rooms, and between two looks
/// at whether outlets have room for more: readers have their turn, and 100,000 rooms end in 3 to 5 s.
pub const ROOMS_STOP_PACE: Duration = Duration::from_millis(2);

/// How long rooms that the node ends may wait for outlets whose queues are half full, all together:
/// longer than a webhook's receiver may take over one request. After that, what finds a queue full
/// is refused, and counted.
pub const ROOMS_STOP_WAIT_MAX: Duration = Duration::from_secs(6);

/// How long open HTTP connections may take to end after the API was told to stop.
pub const API_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// An API connection on which no byte moves for this long is closed: longer than the 60 s for which
/// proxies keep idle connections, so that they let go first.
pub const API_SILENCE_MAX: Duration = Duration::from_secs(75);

/// How long a TLS handshake may take: two round trips and some 100 ms of work.
pub const API_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS handshakes of the API that are computed before everything else that is ready has its turn: of
/// each the control thread computes for up to a millisecond.
pub const API_HANDSHAKES: usize = 16;

/// The same of one address: four addresses at least share what there is.
pub const API_HANDSHAKES_PER_ADDRESS: usize = 4;

/// How long the head of a request may take, from the connection's beginning or the head's first
/// byte: a packet or two.
pub const API_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request's body may take after its head: the largest one at 13 kB/s.
pub const API_BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a client may take over an answer that ends: the largest, a script of 1.5 MB for the
/// documentation's page, at 25 kB/s. Event streams do not end.
pub const API_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes that the head of a request may have, and that are kept of an answer not yet taken.
pub const API_BUFFER_BYTES: usize = 64 * 1024;

/// How long a browser may remember that a page of another site may call: as long as Chromium does at
/// most. Unless told, browsers ask again after five seconds, and each request waits for that.
pub const CORS_MAX_AGE: Duration = Duration::from_secs(2 * 60 * 60);

/// Connections of the API that the node keeps open unless told otherwise: every event reader that
/// there may be, and some; at some 10 KiB each.
pub const API_CONNECTIONS: usize = 20_000;

/// The same of one address: an office of hundreds behind one address translation. Loopback is
/// not counted: a proxy on the same host brings everyone.
pub const API_CONNECTIONS_PER_ADDRESS: usize = 2_000;

/// Entries of `X-Forwarded-For` that are looked at: nobody stands behind more proxies than that.
pub const FORWARDED_HOPS_MAX: usize = 16;

/// Connections of the API that may be asked for: descriptors of a process are fewer.
pub const API_CONNECTIONS_MAX: usize = 1_000_000;

/// Of every four descriptors that the process may have, so many may be connections of the API; the
/// rest is media over TCP, sockets of shards, files.
pub const API_DESCRIPTORS_OF_FOUR: u64 = 3;

/// How long the API accepts nobody after the system has refused it another connection: it would
/// refuse again at once, and the loop would spin.
pub const API_ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that give way before that pause: as many newer ones are taken after it, 1,280 a
/// second.
pub const API_EVICTIONS_PER_PAUSE: usize = 64;

/// Bytes of a certificate chain or a key on disk: the longest real ones have some 10 KiB.
pub const TLS_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Time to a certificate's end from which the log warns: renewal by ACME begins at 30 days, and
/// has failed for two weeks by then.
pub const TLS_EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// How often files are read again that were of no use at SIGHUP: whoever writes two of them, or one
/// slowly, is done within a second.
pub const RELOAD_RETRY: Duration = Duration::from_secs(2);

/// So many times: for two minutes, longer than a copy over a network takes.
pub const RELOAD_TRIES: u32 = 60;

/// How often the log warns of it.
pub const TLS_EXPIRY_CHECK: Duration = Duration::from_secs(12 * 3600);

/// So many times as long as the metrics took to write, nobody is given them again: whoever asks
/// without end gets a fifth of a core. Without it one client took half of one from media.
pub const METRICS_REST: u32 = 4;

/// The longest such rest: a host that stood still is no reason to say nothing.
pub const METRICS_REST_MAX: Duration = Duration::from_millis(250);

/// Voices of one room among which the speaker is chosen and whose levels are told, at some 150 bytes
/// each: only who was audible of late counts, and of more than that nobody understands a word.
pub const VOICES_PER_ROOM_MAX: usize = 256;

/// Levels in one `audio-levels` event, the loudest: with two events a second the longest keep half
/// of a room's log of 256 KiB.
pub const AUDIO_LEVELS_TOLD_MAX: usize = 8;

/// Least time between two `audio-levels` events of a room.
pub const AUDIO_LEVELS_INTERVAL: Duration = Duration::from_millis(500);

/// Least time between two looks for another speaker: below the rhythm in which a shard tells
/// levels, so that each telling is looked at and those of many shards are not.
pub const SPEAKER_INTERVAL: Duration = Duration::from_millis(150);

/// A voice that was not audible for this long is forgotten; the speaker's is kept.
pub const VOICE_FORGOTTEN: Duration = Duration::from_secs(10);

/// API keys of one node: one for each service that calls it, and twice as many while they change.
pub const API_KEYS_MAX: usize = 64;

/// Bytes of a file of API keys: three times as many as the longest keys, for comments.
pub const API_KEYS_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Characters of an API key's id: a service's name.
pub const KEY_ID_CHARS_MAX: usize = 64;

/// Characters of an API key's secret, at least: a key of HS256 has 32 bytes (RFC 7518 §3.2).
pub const KEY_SECRET_CHARS_MIN: usize = 32;

/// Characters of an API key's secret: 192 random bytes in base64.
pub const KEY_SECRET_CHARS_MAX: usize = 256;

/// Bytes of a room token: one with every claim and the longest names has some 1,500; other services
/// may have put claims of theirs beside.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// How long a token may be valid that `ringcast token` makes: for a device that is never touched
/// again.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// Seconds since 1970 from which on a token's `exp` is one in milliseconds, which would never come:
/// the year 5138, or 1973.
pub const TOKEN_EXPIRES_MAX: f64 = 1e11;

/// By how much the clock of whoever signs tokens may differ from ours: hosts with NTP are within one
/// second, those without drift by some a day.
pub const TOKEN_LEEWAY: Duration = Duration::from_secs(5);

const _: () = assert!(EVENT_KEEP_ALIVE.as_secs() * 2 < API_SILENCE_MAX.as_secs());
const _: () =
    assert!(API_CONNECTIONS > super::EVENT_READERS && API_CONNECTIONS < API_CONNECTIONS_MAX);
// hyper takes no less.
const _: () = assert!(API_BUFFER_BYTES >= 8192);
