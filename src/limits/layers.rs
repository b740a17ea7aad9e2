//! Bounds of an engine: what of a publisher arrives, and how its layers are left and found again.

use std::time::Duration;

/// A stream without packets for this long is silent, and left behind if others go on: with a mirror's pulse, the key frame of
/// another stream can still be there within a second.
pub const STREAM_INACTIVE: Duration = Duration::from_millis(700);

/// The same for a stream with slow pictures, such as a shared screen's (mediasoup's for all).
pub const STREAM_INACTIVE_SLOW: Duration = Duration::from_millis(1500);

/// The same for a stream with discontinuous transmission (mediasoup's 5 s).
pub const STREAM_INACTIVE_DTX: Duration = Duration::from_secs(5);

/// Time between two packets from which on a stream's pictures are slow: a third of what would be
/// taken for its end.
pub const STREAM_SLOW_GAP: Duration = Duration::from_millis(230);

/// A stream counts as slow for this long after its last such gap: a screen rests and moves.
pub const STREAM_SLOW_FOR: Duration = Duration::from_secs(10);

/// A layer inside a stream does not arrive any more when so many pictures came without it: twice
/// the longest period of temporal layers in use (L3T3: 4 pictures).
pub const LAYER_PICTURES_MISSED_MAX: u32 = 8;

/// Pictures for which a lower spatial layer's switch point is waited for before a key frame is asked
/// for: more than the longest period of temporal layers in use.
pub const LAYER_SWITCH_PICTURES_MAX: u8 = 5;

/// Pictures for which a switching point up to the next temporal layer is waited for before a key
/// frame is asked for: some encoders mark none. Five seconds at 30 fps; libwebrtc's come every
/// eighth picture at the latest.
pub const LAYER_SYNC_PICTURES_MAX: u8 = 150;

/// Pictures of which a consumer of a layered stream remembers what became of them: half a second
/// at 30 fps, within which a lost packet is repaired.
pub const PICTURES_REMEMBERED: usize = 16;

/// Encodings of one picture arrive within this of each other: a sender paces a key frame of the
/// largest over a fifth of a second. With a silence before, and the key frame of another encoding
/// behind, still a second.
pub const STREAM_APART_MAX: Duration = Duration::from_millis(250);

/// What a stream's pauses are taken for before there was one: nobody knows yet whether it is a
/// screen on which nothing moves.
pub const STREAM_PAUSE_FIRST: Duration = Duration::from_secs(3);

/// A picture that has not come for so long is not waited for, however slow its stream was.
pub const STREAM_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Behind a silence nothing is decided by what a stream takes for so long: what came within the last
/// second is too little until then.
pub const STREAM_RESUMES_FOR: Duration = Duration::from_secs(1);

/// What a stream with few pictures brings within this is one burst: what a sender makes of a page
/// that is turned, a picture and some better ones.
pub const SLOW_BURST: Duration = Duration::from_millis(250);

/// Bursts by which the rate of such a stream is measured: with fewer one large picture would be all
/// there is, with more it would be known late.
pub const SLOW_BURSTS: usize = 4;

/// A stream that arrives for less than this is not gone over to while another is there: a
/// publisher probing its bandwidth starts and stops streams (mediasoup's 2 s).
pub const STREAM_YOUNG: Duration = Duration::from_secs(2);

const _: () = assert!(STREAM_INACTIVE.as_millis() < STREAM_INACTIVE_SLOW.as_millis());
const _: () = assert!(STREAM_SLOW_GAP.as_millis() * 3 <= STREAM_INACTIVE.as_millis());
const _: () = assert!(STREAM_PAUSE_FIRST.as_millis() > STREAM_INACTIVE_SLOW.as_millis());
const _: () = assert!(STREAM_APART_MAX.as_millis() < STREAM_INACTIVE.as_millis());
