//! Bounds of an engine: caches, repair, feedback, key frames, clocks, addresses and handshakes.

use std::time::Duration;

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

/// What a transport may send before anything is known of its path (mediasoup's 600 kbit/s): a
/// small picture at once, and on a slow link a second of queue at worst.
pub const BWE_START_BPS: u64 = 600_000;

/// No estimate is below this: a voice and what tells us that there is more again.
pub const BWE_LEAST_BPS: u64 = 30_000;

/// Packets that a transport remembers for feedback at first: 1 KiB.
pub const BWE_HISTORY_PACKETS_MIN: usize = 128;

/// Packets that a transport remembers for feedback at most: two seconds at 40 Mbit/s, 64 KiB.
pub const BWE_HISTORY_PACKETS_MAX: usize = 8192;

/// Feedback on a packet is waited for this long: a round trip of 300 ms, a queue of a second and
/// the feedback's own interval.
pub const BWE_HISTORY_SPAN: Duration = Duration::from_secs(2);

/// Bytes of one datagram that media may have: Ethernet's 1,500 less the smallest IP and UDP headers.
pub const MEDIA_DATAGRAM_BYTES_MAX: usize = 1472;

/// Packets that a receiver asked for again and that wait for their turn, per consumer: more than one
/// NACK names at once; the rest is asked for anew.
pub const REPAIRS_QUEUED_MAX: usize = 128;

/// Runs of consecutive packets that a consumer remembers having sent, besides the one going on: a
/// packet lost on its way to us and repaired makes three, a layer left out one per frame; at one loss
/// in twenty a second of 1,000 packets has 150.
pub const SENT_RUNS_MAX: usize = 256;

/// The shortest time between two repeats of one packet for one receiver: libwebrtc's NACK timer, so
/// no honest receiver asks faster.
pub const REPAIR_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// Part of a transport's estimate that repairs of video may use. At 10 % of random loss they need
/// little more than 10 %; what is lost in a full queue is asked for again and again, and must not
/// keep the queue full.
pub const REPAIR_PERCENT: u64 = 25;

/// Repairs that may go at once, in time of their part of the estimate.
pub const REPAIR_BURST: Duration = Duration::from_secs(1);

/// Bits of repairs that may go at once however small the estimate: three packets.
pub const REPAIR_BURST_BITS_MIN: i64 = 28_800;

/// Age of a video packet that is still worth sending again (mediasoup's).
pub const REPAIR_AGE_VIDEO_MAX: Duration = Duration::from_secs(2);

/// Age of an audio packet that is still worth sending again (mediasoup's).
pub const REPAIR_AGE_AUDIO_MAX: Duration = Duration::from_secs(1);

/// The longest a packet may wait for its turn to be sent, then its consumer leaves it out.
/// Jitter buffers of browsers follow a delay that grows to some 200 ms; beyond that a call is felt
/// as late, and a shard that is so far behind cannot send all of it any more. Well above a turn
/// (some ms), so that it does not trigger without overload.
pub const FORWARD_AGE_MAX: Duration = Duration::from_millis(200);

/// Packets before a key frame's first one in arrival that may belong to it, and packets through
/// which a new consumer looks back for one: a key frame of 300 KB.
pub const KEY_FRAME_LOOKBACK: u64 = 256;

/// Age of a key frame with which a new consumer may still start at once: what follows it is sent in
/// one burst, so it must be short.
pub const KEY_FRAME_AGE_MAX: Duration = Duration::from_millis(300);

/// Bytes of RTCP waiting for one transport's turn: sender reports of 100 consumers in one half, what
/// cannot wait for a later turn in the other.
pub const RTCP_QUEUE_BYTES_MAX: usize = 16 * 1024;

/// What sequence numbers jump, less what rounds it to a multiple of 2^16, when a sender takes another
/// SSRC: beyond every window behind them.
pub const STREAM_RESTART_GAP: u64 = 1 << 20;

/// Repairs of an SSRC that its sender has left arrive for no longer than this: several of the
/// longest round trips for which lost packets are asked again.
pub const STRAGGLERS_MAX: Duration = Duration::from_secs(2);

/// Sender reports that find no room wait for this long: a tenth of the time in which all should have
/// left, and as soon as the queue has been emptied in any but an overloaded turn.
pub const REPORT_PAUSE: Duration = Duration::from_millis(100);

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

/// A transport that has not connected by then is closed, from the moment its client was told to (the
/// control thread closes those whose client never is, see
/// [`UNUSED_TRANSPORT_MAX`](crate::limits::UNUSED_TRANSPORT_MAX)).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A transport without a valid STUN request or an authentic media packet for this long is closed
/// (RFC 7675 consent).
pub const CONSENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Silence of the selected address after which media from another validated one moves the
/// selection: above any reordering around a switch, below what a viewer notices.
pub const FOLLOW_MEDIA_AFTER: Duration = Duration::from_millis(200);

/// Silence of the selected address after which a request from another one moves the selection:
/// browsers check a selected address every 2.5 s.
pub const FOLLOW_STUN_AFTER: Duration = Duration::from_secs(3);

/// STUN answers and DTLS datagrams of one transport waiting to be sent: a handshake flight is at
/// most 10, and whatever is dropped is sent again by its protocol.
pub const CONNECTION_OUTPUT_MAX: usize = 32;

/// Outputs taken from one `Rtc` for one input: far above a flight, so that a fault cannot stall a
/// shard.
pub const RTC_OUTPUTS_MAX: usize = 256;

/// Bytes of a DTLS datagram at most: passes every network that passes browsers' own 1,200.
pub const DTLS_DATAGRAM_BYTES_MAX: usize = 1200;

/// Datagrams of a DTLS flight kept to be sent again: ours has two, and up to three for a chain.
pub const DTLS_FLIGHT_DATAGRAMS_MAX: usize = 8;

/// First retransmission of a DTLS flight; doubles each time. RFC 6347's 1 s would be a second of
/// black for each lost flight.
pub const DTLS_RETRANSMIT_AFTER: Duration = Duration::from_millis(200);

/// Retransmissions of a DTLS flight: 200 ms doubled 7 times is 25 s, within the connect time-out.
pub const DTLS_RETRANSMISSIONS_MAX: usize = 6;

/// Rewritten sequence numbers remembered per consumer: one second at 1,024 packets/s, as long as
/// the packet ring holds what could still be asked for.
pub const SEQ_WINDOW: u64 = 1024;

/// Numbers behind the highest that must all have come before one of ours is put behind them: what
/// comes later than that belongs to a picture that nobody waits for.
pub const SEQ_INSERT_SPAN: u64 = 64;

/// Padding packets of a media stream remembered, to be repeated when they are lost: three probes of
/// twenty.
pub const FILLS_REMEMBERED: usize = 64;

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

/// The same while nothing arrives at all: each time twice as long, up to this. A picture that is
/// seldom taken is not there sooner for more requests, and with the next packet it is known better.
pub const KEY_FRAME_RETRY_SILENT_MAX: Duration = Duration::from_secs(5);

/// Time an encoder may take for a key frame beyond two round trips: a frame at 5 fps and pacing.
pub const KEY_FRAME_RETRY_MIN: Duration = Duration::from_millis(300);

/// Span over which the fastest sender report is sought: some ten reports.
pub const CLOCK_WINDOW: Duration = Duration::from_secs(10);

/// Parts in a million by which a peer's clock offset follows its measure: above a quartz's drift
/// (50), and 0.2 ms a second do not disturb lip-sync.
pub const CLOCK_SLEW_PPM: u64 = 200;

/// An error of a peer's clock offset beyond this means that its clock was set.
pub const CLOCK_JUMP: Duration = Duration::from_millis(500);

/// Steps of one video's ladder: eight encodings of three temporal layers.
pub const RUNGS_MAX: usize = 24;

/// What must be left in the estimate behind a step up: encoders exceed their target by some percent.
pub const RAISE_RESERVE_PERCENT: u64 = 10;

/// An estimate of at least this part of what is sent may be a dip: one overuse takes an estimate to
/// 85 % of what was received, a second one below 80 %.
pub const DIP_PERCENT: u64 = 80;

/// An estimate, and what layers cost, are wrong by so much anyway: as much less is no dip.
pub const ESTIMATE_NOISE_PERCENT: u64 = 7;

/// A queue longer than this is emptied by sending less, whatever made it: a key frame over a slow
/// link makes 400 ms.
pub const EMPTYING_MAX: Duration = Duration::from_millis(500);

/// A dip that lasts longer is none: within it a link that carries 5 % less than is sent queues 100 ms.
pub const DIP_MAX: Duration = Duration::from_secs(2);

/// After a fall for want of bandwidth the sum of all does not rise for this long (mediasoup's 10 s).
pub const BRAKE_FIRST: Duration = Duration::from_secs(10);

/// The same, times the number of falls that followed a rise at once: two changes a minute at most.
pub const BRAKE_AGAIN: Duration = Duration::from_secs(30);

/// The same at the longest: links do change.
pub const BRAKE_MAX: Duration = Duration::from_secs(120);

/// A fall within this time after a rise says that the rise was too much: encoders fill what they are
/// given slowly.
pub const RAISE_TRIAL: Duration = Duration::from_secs(30);

/// A rise within this time of the beginning follows a first probe, whose burst a policer lets pass:
/// that it failed says nothing of the next.
pub const RAISE_HOPE: Duration = Duration::from_secs(1);

/// Where a rise failed, an estimate of this part of what was tried is another link.
pub const AGAIN_PERCENT: u64 = 150;

/// A video that was stopped for want of bandwidth stays so for this long.
pub const STOPPED_MIN: Duration = Duration::from_secs(2);

/// A receiver that tells nothing within this after its first packet may never do, and is then sent
/// what the start value allows: a round trip of 300 ms, and 200 ms for its feedback.
pub const START_SILENCE: Duration = Duration::from_millis(500);

/// A transport's estimate is shared at least this often: rates of layers are measured as often.
pub const SHARE_INTERVAL: Duration = Duration::from_millis(200);

/// Not more often than this for what a receiver tells: a datagram may hold fifty reports.
pub const SHARE_REST: Duration = Duration::from_millis(20);

/// An estimator that wanted to be called and then had nothing to send is not called again before
/// this: it may be waiting for a path to calm down.
pub const ESTIMATOR_REST: Duration = Duration::from_millis(20);

/// Over this the prices of layers are averaged: some key frames' worth of a second's measure.
pub const PRICE_SPAN: Duration = Duration::from_secs(5);

/// What a video's packets take beyond their payload: 64 bytes of 1,100.
pub const VIDEO_OVERHEAD_PERCENT: u64 = 6;

/// What an audio's packets take beyond their payload: 50 a second, 50 bytes each.
pub const AUDIO_OVERHEAD_BPS: u64 = 20_000;

/// Least time between two tellings of a transport's estimate.
pub const BANDWIDTH_NEWS_INTERVAL: Duration = Duration::from_secs(1);

/// A change of the estimate that is told.
pub const BANDWIDTH_NEWS_PERCENT: u64 = 10;

/// Estimates from here on are not paced, but for what is far larger than pictures are: their bursts
/// are shorter than what the simulation shows to matter to sound.
pub const PACED_BPS_MAX: u64 = 500_000;

/// Estimates from here on are not paced at all; up to here only what is far larger than pictures
/// are: the key picture of all layers inside a stream (43 KB) overflowed 300 ms of a buffer at
/// 1 Mbit/s, and was 0.6 s late.
pub const PACED_LARGE_BPS_MAX: u64 = 1_500_000;

/// What may leave at once for those, in time on the link.
pub const PACE_AHEAD_LARGE: Duration = Duration::from_millis(150);

/// Part of the estimate at which a burst leaves for a slow link: at 115 the pictures behind a key
/// frame came 50 ms later than at 150, and sound no sooner (simulation, 100 to 300 kbit/s).
pub const PACE_PERCENT: u64 = 150;

/// What may leave at once for a slow link, in time on it.
pub const PACE_AHEAD: Duration = Duration::from_millis(40);

/// What a slow link still has to carry when more leaves for it: the rest up to the above is a train.
pub const PACE_REST: Duration = Duration::from_millis(10);

/// The longest that a picture waits for a slow link; then it leaves whatever there is in front of it.
pub const PACED_AGE_MAX: Duration = Duration::from_millis(600);

/// How often those who wait for a slow link are looked at, for pictures that have waited too long.
pub const PACED_LOOK: Duration = Duration::from_millis(50);

/// For so long pictures leave for a link of which nothing is known; then they wait for what the
/// receiver tells: a round trip of 50 ms and its feedback's 100 ms.
pub const START_AHEAD: Duration = Duration::from_millis(150);

/// How often who waits for that looks whether it is time to go on without.
pub const START_LOOK: Duration = Duration::from_millis(20);

/// A key frame that left this long ago is not under way any more.
pub const KEY_FRAME_UNDER_WAY_MAX: Duration = Duration::from_secs(2);

/// Packets sent lately among which a probe looks for one to repeat.
pub const PADDING_LOOKBACK: u64 = 16;

/// A packet smaller than this is not repeated for a probe: padding does as well.
pub const PADDING_PAYLOAD_MIN: usize = 200;

/// Least time between two pulses of one stream to one shard: a quarter of a second late is soon
/// enough for a choice among layers and for sender reports, which have a second.
pub const RELAY_PULSE_INTERVAL: Duration = Duration::from_millis(250);

/// Packets one turn copies to other shards, all shards together: half a millisecond of copying.
/// The rings keep what is left for the next turn.
pub const RELAY_PACKETS_PER_TURN_MAX: usize = 2048;

/// A demand or a request that found its lane full is tried again after this.
pub const RELAY_RETRY: Duration = Duration::from_millis(5);

/// Reports from which a score is worked out: half a minute (mediasoup's 24).
pub const SCORE_REPORTS: usize = 24;

/// The least limit of a transport's bitrate that is kept; lower ones count as this. Below it not even
/// audio with its headers is carried (mediasoup's).
pub const BITRATE_LIMIT_MIN_BPS: u64 = 30_000;

/// The highest limit of a transport's bitrate that is kept: as good as none, and far from overflow.
pub const BITRATE_LIMIT_MAX_BPS: u64 = u32::MAX as u64;

/// Mirrors of one shard: four for each transport it may have. One without consumers costs some
/// 2 KB until its producer closes.
pub const MIRRORS_PER_SHARD_MAX: usize = 64 * 1024;

/// The time for which one loudness stands: Opus packets are 20 ms, so each has its own.
pub const LEVEL_FRAME: Duration = Duration::from_millis(20);

/// Frames of one window of levels: the choice of the speaker needs no finer time than 200 ms.
pub const LEVEL_FRAMES: usize = 10;

/// How often a shard tells levels: five events a second, however many speak.
pub const LEVEL_WINDOW: Duration = Duration::from_millis(200);

/// Windows of silence told behind an audible one: the second over which speakers are compared.
pub const LEVEL_AFTERGLOW: u8 = 5;

/// Producers in one event of levels: 24 KB. More go into further events.
pub const LEVELS_PER_EVENT_MAX: usize = 1024;

/// Loudness (127 less the level of RFC 6464) below which nothing is told: −65 dB, the noise of a
/// quiet room at a browser's own gain.
pub const AUDIBLE_LEVEL: u8 = 62;

/// Packets of RED that must be readable in a row behind one that was not: encrypted ones seem to be
/// readable once in 250.
pub const RED_READ_MIN: u8 = 8;

/// How long layers must not have been wanted before their application is told: a viewer that
/// reloads is back by then.
pub const DEMAND_LINGER: Duration = Duration::from_secs(5);

/// Receivers whose state is read ahead at once: enough that their misses overlap, few enough that
/// they are served before what was read is displaced.
pub const WARM_TRANSPORTS: usize = 16;

/// Streams that brought something whose consumers are read ahead.
pub const WARM_STREAMS: usize = 16;

/// Due consumers of each of them that are read ahead: all that a call of four brings at a time.
pub const WARM_CONSUMERS: usize = 6;

const _: () = assert!(SEQ_INSERT_SPAN < SEQ_WINDOW);
const _: () = assert!(FILLS_REMEMBERED.is_power_of_two());
const _: () = assert!(SEQ_WINDOW.is_multiple_of(64) && SEQ_WINDOW < SEQ_DROPOUT_MAX);
const _: () = assert!(KEY_FRAME_SPACING_MIN.as_millis() <= KEY_FRAME_SPACING_MAX.as_millis());
const _: () = assert!(KEY_FRAME_RETRY_MIN.as_millis() <= KEY_FRAME_RETRY_FIRST.as_millis());
const _: () = assert!(KEY_FRAME_RETRY_FIRST.as_millis() <= KEY_FRAME_RETRY_MAX.as_millis());
const _: () = assert!(TIMESTAMP_STEP.as_millis() < TIMESTAMP_EXTRA_MAX.as_millis());
const _: () = assert!(VIDEO_RING_SLOTS_MAX.is_power_of_two());
const _: () = assert!(AUDIO_RING_SLOTS_MAX.is_power_of_two());
const _: () = assert!(AUDIO_RING_SLOTS_MAX <= VIDEO_RING_SLOTS_MAX);
const _: () = assert!(SRTP_REPLAY_PACKETS.is_multiple_of(64));
const _: () = assert!(SRTCP_REPLAY_PACKETS.is_multiple_of(64));
const _: () = assert!(SRTP_REPLAY_PACKETS >= VIDEO_RING_SLOTS_MAX);
const _: () = assert!(MEDIA_DATAGRAM_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(TWCC_FEEDBACK_PACKETS_MAX < TWCC_ARRIVALS_MAX);
const _: () = assert!(TWCC_ARRIVALS_MAX < 1 << 15);
const _: () = assert!(PACE_REST.as_millis() < PACE_AHEAD.as_millis());
const _: () = assert!(PACED_AGE_MAX.as_millis() < RING_SPAN.as_millis());
const _: () = assert!(CONSENT_TIMEOUT.as_secs() >= 10);
const _: () = assert!(SCORE_REPORTS <= u8::MAX as usize);
