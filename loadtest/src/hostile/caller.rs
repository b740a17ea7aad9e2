//! An application that calls the API all the time, in a room of its own: whose waits are measured,
//! and whose room's events are what readers should read.
//!
//! One thread, open loop: each call has a due time that no answer moves, and its time counts from
//! then. Each has a connection of its own, as a new visitor's has.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::api::Api;
use crate::clock::{Clock, SECOND};
use crate::tally::Times;

/// Two peers who take turns: one has come before the other leaves, and the room stays.
const PEERS: [&str; 2] = ["caller-0", "caller-1"];

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// From when a call was due to its answer.
    pub(crate) times: Times,
    /// Calls that were refused or not answered.
    pub(crate) failed: u64,
}

/// The application.
#[derive(Debug)]
pub(crate) struct Caller {
    api: Api,
    /// The room that it calls about.
    pub(crate) room: String,
    per_second: u64,
}

impl Caller {
    /// Opens the room.
    pub(crate) fn enter(api: Api, room: String, per_second: u32) -> Result<Self, String> {
        api.create_room(&room, "caller")?;
        api.create_transport(&room, PEERS[1], "send")?;
        Ok(Self { api, room, per_second: per_second.into() })
    }

    /// Calls until `stop` has no sender any more, then leaves.
    pub(crate) fn call(&self, stop: &Receiver<()>) -> Calls {
        let clock = Clock::start();
        let mut calls = Calls::default();
        for number in 0.. {
            let due = SECOND * number / self.per_second;
            let left = Duration::from_nanos(due.saturating_sub(clock.now()));
            if stop.recv_timeout(left) != Err(RecvTimeoutError::Timeout) {
                break;
            }
            match self.one(number) {
                Ok(()) => calls.times.record(clock.now() - due),
                Err(_) => calls.failed += 1,
            }
        }
        for peer in PEERS {
            // A server that is gone needs no leave.
            let _ = self.api.leave(&self.room, peer);
        }
        calls
    }

    /// One peer joins, looks at producers and room, and the other leaves; then the other way round.
    fn one(&self, number: u64) -> Result<(), String> {
        let [one, other] = PEERS;
        let (comes, goes) =
            if (number / 4).is_multiple_of(2) { (one, other) } else { (other, one) };
        match number % 4 {
            0 => self.api.create_transport(&self.room, comes, "send").map(|_| ()),
            1 => self.api.producers(&self.room, comes).map(|_| ()),
            2 => self.api.create_room(&self.room, comes).map(|_| ()),
            _ => self.api.leave(&self.room, goes),
        }
    }
}
