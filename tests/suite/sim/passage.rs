//! How time passes in a room: datagrams, deadlines, and what leaves.

use std::time::Duration;

use ringcast::engine::io::{Path, Received};
use ringcast::engine::machine::Machine;

use super::clients::Seat;
use super::network::{Flight, Goal};
use super::overload::Capacity;
use super::room::Room;

/// Turns at one moment: more than any test has work for.
const TURNS_AT_ONCE_MAX: u32 = 20_000;

impl Room {
    /// Lets time pass.
    pub(crate) fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        self.flush();
        let mut turns = 0;
        loop {
            let timeouts = self.seats.iter().filter_map(Seat::poll_timeout);
            let again = self.capacity.as_ref().and_then(Capacity::next);
            let next = timeouts.chain(self.network.next()).chain(self.shards.next());
            let next = next.chain(again).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            turns = if next > self.now { 0 } else { turns + 1 };
            assert!(turns < TURNS_AT_ONCE_MAX, "time stands still: a deadline is never served");
            self.now = self.now.max(next);
            self.turn();
        }
        self.now = end;
    }

    fn turn(&mut self) {
        let now = self.now;
        let mut arrived: Vec<Vec<_>> = self.shards.engines.iter().map(|_| Vec::new()).collect();
        while let Some(Flight { at, goal, bytes }) = self.network.pop(now) {
            match goal {
                Goal::Server(path) => {
                    let seat = self.seats.iter().find(|seat| seat.path() == path);
                    let shard = seat.map_or(0, |seat| self.shards.home_of(seat.transport));
                    arrived[shard].push((path, at, bytes));
                }
                Goal::Seat(index) => self.seats[index].handle_datagram(now, &bytes),
            }
        }
        for (engine, arrived) in self.shards.engines.iter_mut().zip(&arrived) {
            if !arrived.is_empty() {
                let mut batch = arrived.iter().map(|(path, arrival, bytes)| Received {
                    path: *path,
                    arrival: *arrival,
                    bytes,
                });
                engine.handle_datagrams(now, &mut batch);
            }
        }
        self.shards.turn(now);
        for seat in &mut self.seats {
            if seat.poll_timeout().is_some_and(|at| at <= now) {
                seat.handle_timeout(now);
            }
        }
        self.flush();
    }

    /// Gives everything that wants to leave to the network.
    pub(crate) fn flush(&mut self) {
        let now = self.now;
        self.shards.relay(now);
        for shard in 0..self.shards.engines.len() {
            while self.capacity.as_mut().is_none_or(|capacity| capacity.is_left(now))
                && self.send(shard)
            {}
        }
        for seat in &mut self.seats {
            while let Some(bytes) = seat.poll_transmit() {
                if seat.gone || seat.lose_up.as_mut().is_some_and(|lose| lose(now, &bytes)) {
                    continue;
                }
                let goal = Goal::Server(seat.path());
                self.network.send(now, &mut self.rng, &mut seat.up, goal, &bytes);
            }
        }
        let told = self.shards.poll_events(now);
        self.events.extend(told.into_iter().map(|event| (now, event)));
    }

    /// Gives the network one batch of a shard; true while that has more.
    fn send(&mut self, shard: usize) -> bool {
        let now = self.now;
        let more = self.shards.engines[shard].poll_transmit(now, &mut self.batch);
        if let Some(capacity) = &mut self.capacity {
            capacity.spend(&self.batch, more);
        }
        for train in self.batch.trains() {
            if self.batch.bytes(train).first().is_some_and(|first| *first >= 128) {
                self.trains.push(train.segments());
            }
            let Some(index) = self.seats.iter().position(|seat| seat.path() == train.path) else {
                continue;
            };
            let seat = &mut self.seats[index];
            for bytes in self.batch.bytes(train).chunks(train.segment()) {
                if seat.gone || seat.lose_down.as_mut().is_some_and(|lose| lose(now, bytes)) {
                    continue;
                }
                let goal = Goal::Seat(index);
                self.network.send(now, &mut self.rng, &mut seat.down, goal, bytes);
            }
        }
        self.batch.clear();
        more
    }

    /// A datagram from nowhere in particular.
    pub(crate) fn inject(&mut self, path: Path, bytes: &[u8]) {
        self.inject_all(path, &[bytes.to_vec()]);
    }

    /// Datagrams of one sender that arrive in one batch.
    pub(crate) fn inject_all(&mut self, path: Path, burst: &[Vec<u8>]) {
        let arrival = self.now;
        let mut batch = burst.iter().map(|bytes| Received { path, arrival, bytes });
        self.shards.engines[0].handle_datagrams(self.now, &mut batch);
        self.flush();
    }
}
