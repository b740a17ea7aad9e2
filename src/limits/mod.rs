//! Every bound of the server, each with its reason. Nothing that grows has its limit elsewhere.
//!
//! Grouped by who keeps them; named from here by everyone. What must hold between groups is
//! asserted at the foot.

mod control;
mod layers;
mod media;
mod outlets;
mod quotas;
mod shard;

pub use self::control::*;
pub use self::layers::*;
pub use self::media::*;
pub use self::outlets::*;
pub use self::quotas::*;
pub use self::shard::*;

const _: () = assert!(HANDOFF_BYTES_MAX >= MEDIA_DATAGRAM_BYTES_MAX);
// A joined message has one address; each may bring one path and end another, a closed transport
// ends all of its own.
const _: () = assert!(
    PATH_CHANGES_PER_TURN_MAX
        >= 2 * RECEIVE_BATCHES_PER_TURN_MAX * RECEIVE_SLOTS_PLAIN
            + 2 * HANDOFFS_PER_TURN_MAX
            + COMMANDS_PER_TURN_MAX * TUPLES_PER_TRANSPORT_MAX
);
// A demand between shards has a bit for each encoding in one byte.
const _: () = assert!(ENCODINGS_PER_PRODUCER_MAX <= 8);
// Few rooms and no slow outlet: requests and rooms are done before the shards would be given up.
const _: () = assert!(
    API_STOP_TIMEOUT.as_millis() + ROOMS_STOP_TIMEOUT.as_millis() < STOP_TIMEOUT.as_millis()
);
// The same with an outlet that is slow, within what a service manager is asked for; 5 s are left, in
// which 100,000 rooms end.
const _: () = assert!(
    ROOMS_STOP_TIMEOUT.as_millis()
        + ROOMS_STOP_WAIT_MAX.as_millis()
        + API_STOP_TIMEOUT.as_millis()
        + STOP_TIMEOUT.as_millis()
        + OUTLET_STOP_TIMEOUT.as_millis()
        + 5_000
        < NOTIFY_EXTENSION.as_millis()
);
