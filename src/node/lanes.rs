//! All lanes of a node: between its shards, and to and from the control thread.
//!
//! Called by [`Node::start`](super::Node::start) once. Invariant: whatever goes into a thread wakes
//! it by its one waker.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::ports::Sockets;
use super::{NodeSetup, ShardLinks};
use crate::id::ShardId;
use crate::lane::{Waker, lane};
use crate::limits::{
    COMMAND_LANE_CAPACITY, EVENT_LANE_CAPACITY, HANDOFF_LANE_CAPACITY, NOTE_LANE_CAPACITY,
};
use crate::shard::ShardSetup;
use crate::shard::handoff::ShardPeer;
use crate::shard::relay::relay_lanes;
use crate::shard::steer::FlowMap;

/// Makes all lanes, and of them each shard's setup and the control thread's links.
pub(super) fn connect<F>(
    setup: &NodeSetup<F>,
    sockets: Sockets,
    flows: Option<&FlowMap>,
    stop: &Arc<AtomicBool>,
) -> io::Result<(ShardLinks, Vec<ShardSetup>)> {
    let control_waker = Waker::new()?;
    let mut wakers = Vec::new();
    let (mut peers, mut relay_peers, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..sockets.len() {
        let waker = Waker::new()?;
        let (datagrams, datagrams_end) = lane(HANDOFF_LANE_CAPACITY, &waker);
        let (notes, notes_end) = lane(NOTE_LANE_CAPACITY, &waker);
        peers.push(ShardPeer { datagrams, notes });
        let (relay, relay_end) = relay_lanes(&waker);
        relay_peers.push(relay);
        ends.push((datagrams_end, notes_end, relay_end));
        wakers.push(waker);
    }
    let (mut senders, mut from_shards, mut setups) = (Vec::new(), Vec::new(), Vec::new());
    let ids = (0..=u16::MAX).map(ShardId);
    for (((id, (udp, tcp)), ends), waker) in ids.zip(sockets).zip(ends).zip(wakers) {
        let (datagrams, notes, relay) = ends;
        let (sender, commands) = lane(COMMAND_LANE_CAPACITY, &waker);
        let (control, from_shard) = lane(EVENT_LANE_CAPACITY, &control_waker);
        senders.push(sender);
        from_shards.push(from_shard);
        setups.push(ShardSetup {
            id,
            udp,
            tcp,
            waker,
            commands,
            control,
            peers: peers.clone(),
            datagrams,
            notes,
            coalesce: setup.coalesce,
            relay_peers: relay_peers.clone(),
            relay,
            stun_owner: setup.stun_owner,
            flows: flows.cloned(),
            stop: Arc::clone(stop),
        });
    }
    Ok((ShardLinks { senders, from_shards, waker: control_waker }, setups))
}
