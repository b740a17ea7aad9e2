//! What TCP connections reach of the shard they belong to.
//!
//! Lent to [`TcpConnections`](super::tcp::TcpConnections) for one call, on the shard's thread.

use std::time::Instant;

use super::handoff::{Adoption, Handoff, Note};
use super::tcp::{Belongs, TcpSink};
use crate::engine::io::{Path, Received};
use crate::engine::machine::Machine;
use crate::engine::report::IoCounters;
use crate::id::ShardId;

/// What a TCP connection may reach of its shard.
pub(super) struct Inside<'a, M> {
    pub(super) now: Instant,
    pub(super) machine: &'a mut M,
    pub(super) handoff: &'a mut Handoff,
    pub(super) io: &'a mut IoCounters,
    pub(super) id: ShardId,
}

impl<M: Machine> TcpSink for Inside<'_, M> {
    fn belongs(&self, first_frame: &[u8]) -> Belongs {
        match self.handoff.named_by(first_frame) {
            Some(owner) if owner == self.id => Belongs::Here,
            Some(owner) => Belongs::To(owner),
            None => Belongs::Nowhere,
        }
    }

    fn owns(&self, path: &Path) -> bool {
        self.machine.owns(path)
    }

    fn frames<'b>(&mut self, frames: &mut dyn Iterator<Item = Received<'b>>) {
        let mut count = 0;
        self.machine.handle_datagrams(self.now, &mut frames.inspect(|_| count += 1));
        self.io.datagrams_in += count;
    }

    fn passed_on(&mut self, owner: ShardId, adoption: Box<Adoption>) {
        if self.handoff.send_note(owner, Note::Connection(adoption)).is_err() {
            self.handoff.dropped += 1;
        }
    }

    fn closed(&mut self, path: Path) {
        self.machine.handle_path_closed(self.now, path);
    }
}
