//! What the engine makes of its transports' connections: their states and keys told and used, their
//! addresses known to the demultiplexer and to whoever steers datagrams.
//!
//! Called by the engine after everything that touches a connection, on the shard's thread.
//! Invariant: a path is in the demultiplexer exactly as long as some transport has it validated, and
//! no other shard has since.

use std::time::Instant;

use crate::control::command::{CloseReason, Event, IceState};
use crate::engine::dtls::TappedKeys;
use crate::engine::io::{Path, PathChange, Protocol};
use crate::engine::outgoing::Telling;
use crate::engine::srtp::SrtpKeys;
use crate::engine::transport::Transport;
use crate::engine::transport::connection::ConnectionEvent;
use crate::engine::{ConsumerKey, Engine, TimerKey, TransportKey};
use crate::id::TransportId;
use crate::limits::PATH_CHANGES_QUEUED_MAX;

impl Engine {
    /// An address whose owner was heard on it by ICE is its own, even if another transport took it
    /// in between (a NAT gave it away and back, or somebody forged it).
    pub(super) fn keep_path(&mut self, path: Path, key: TransportKey) {
        if self.demux.transport_at(&path) != Some(key)
            && self.transports.get(key).is_some_and(|t| t.connection.is_validated(&path))
            && self.demux.insert_path(path, key)
        {
            self.tell_path(path, PathChange::Added);
        }
    }

    /// Takes what a connection has to tell, and makes sure that it is called again in time.
    pub(super) fn settle_transport(&mut self, now: Instant, key: TransportKey) {
        while let Some(transport) = self.transports.get_mut(key)
            && let Some(event) = transport.connection.poll_event()
        {
            self.handle_connection_event(now, key, event);
        }
        self.mark_due(key);
        self.arm_transport(key);
    }

    fn handle_connection_event(&mut self, now: Instant, key: TransportKey, event: ConnectionEvent) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let id = transport.id;
        match event {
            ConnectionEvent::IceState(state, selected) => {
                if transport.ice_news.is_told(now, state) {
                    self.tell_ice(key, state, selected);
                }
                self.start_idle_consumers(now, key);
            }
            ConnectionEvent::DtlsState(state, cipher) => {
                self.tell(Event::DtlsState { transport: id, state, cipher });
            }
            ConnectionEvent::Keys(tapped) => {
                let TappedKeys { profile, material, local_is_client } = &tapped;
                let keys = SrtpKeys::from_dtls(*profile, material, *local_is_client);
                debug_assert!(keys.is_some(), "DTLS exports what its profile needs");
                if let Some(keys) = keys {
                    self.counters.dtls_connected += 1;
                    self.start_media(now, key, &keys);
                }
            }
            ConnectionEvent::TupleAdded(path) => {
                if self.demux.insert_path(path, key) {
                    self.tell_path(path, PathChange::Added);
                }
            }
            ConnectionEvent::TupleRemoved(path) => self.forget_path(path, key),
            ConnectionEvent::Closed(reason) => {
                if reason == CloseReason::Fault {
                    self.counters.faults += 1;
                }
                self.tell(Event::TransportClosed { transport: id, reason });
                self.remove_transport(now, key);
            }
        }
    }

    /// Gives a transport its SRTP keys without a handshake, for simulations that must be equal bit
    /// for bit and for benches that name their cipher. ICE still has to select an address; consent
    /// still ends it. No command leads here. False when there is no such transport.
    pub fn install_keys(&mut self, now: Instant, id: TransportId, keys: &SrtpKeys) -> bool {
        let Some(key) = self.transport_ids.get(&id).copied() else { return false };
        if let Some(transport) = self.transports.get_mut(key) {
            transport.connection.connect_without_dtls();
        }
        self.start_media(now, key, keys);
        self.arm_transport(key);
        true
    }

    fn start_media(&mut self, now: Instant, key: TransportKey, keys: &SrtpKeys) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        transport.key(keys);
        transport.connected = true;
        let consumers = transport.consumers.clone();
        self.start_consumers(now, &consumers);
    }

    /// What could not begin for want of an address (all TCP connections had ended) begins now. What
    /// was stopped for want of bandwidth did not wait for an address: it is shared for again.
    fn start_idle_consumers(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get_mut(key).filter(|t| t.can_send()) else { return };
        let idle = |key: &ConsumerKey| {
            let consumer = self.consumers.get(*key)?;
            let is_idle = consumer.playing.is_none() && consumer.awaiting.is_none();
            is_idle.then_some(consumer.share.stopped.is_some())
        };
        let idle: Vec<_> =
            transport.consumers.iter().filter_map(|key| Some((*key, idle(key)?))).collect();
        if idle.iter().any(|(_, stopped)| *stopped)
            && let Some(outgoing) = &mut transport.outgoing
        {
            outgoing.open(now, Telling::Nothing);
            self.arm_outgoing(key);
        }
        let waiting = idle.iter().filter(|(_, stopped)| !stopped).map(|(key, _)| *key);
        self.start_consumers(now, &waiting.collect::<Vec<_>>());
    }

    /// An authentic media packet of the client: from another validated address than the selected
    /// one it may tell of a move, from the selected one that there was none.
    pub(super) fn follow_address(
        &mut self,
        now: Instant,
        key: TransportKey,
        path: Path,
        authentic: bool,
    ) {
        let Some(transport) = self.transports.get_mut(key).filter(|_| authentic) else { return };
        let elsewhere = transport.connection.selected() != Some(path);
        // Only a selected address that fell silent is left; a refusal says it is not validated,
        // which the demultiplexer excludes.
        let _ = transport.connection.handle_media_path(now, &path);
        if elsewhere {
            self.settle_transport(now, key);
        }
    }

    pub(super) fn arm_transport(&mut self, key: TransportKey) {
        if let Some(deadline) = self.transports.get(key).and_then(Transport::next_deadline) {
            self.timers.arm(TimerKey::Transport(key), deadline);
        }
    }

    pub(super) fn tell_ice(&mut self, key: TransportKey, state: IceState, selected: Option<Path>) {
        let Some(transport) = self.transports.get(key) else { return };
        self.tell(Event::IceState {
            transport: transport.id,
            state,
            remote: selected.map(|path| path.remote),
            tcp: selected.is_some_and(|path| path.protocol == Protocol::Tcp),
        });
    }

    pub(super) fn forget_path(&mut self, path: Path, key: TransportKey) {
        if self.demux.remove_path(&path, key) {
            self.tell_path(path, PathChange::Removed);
        }
    }

    fn tell_path(&mut self, path: Path, change: fn(Path) -> PathChange) {
        // The bound is out of reach of a shard that takes them (`PATH_CHANGES_PER_TURN_MAX`); in
        // simulations nobody does.
        if path.protocol == Protocol::Udp && self.path_changes.len() < PATH_CHANGES_QUEUED_MAX {
            self.path_changes.push_back(change(path));
        }
    }
}
