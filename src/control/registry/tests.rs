use super::*;
use crate::limits::{PEER_GRACE, ROOM_GRACE};
use std::time::{Duration, Instant};

fn room() -> RoomId {
    RoomId::try_from("room").unwrap()
}

fn peer() -> PeerId {
    PeerId::try_from("alice").unwrap()
}

fn new(direction: Direction) -> NewTransport {
    NewTransport { room: room(), peer: peer(), direction }
}

fn start() -> (Registry, Instant) {
    let now = tokio::time::Instant::now().into_std();
    let mut registry = Registry::default();
    let _ = registry.add_room(&room(), ShardId(3), None, now).unwrap();
    (registry, now)
}

fn join(registry: &mut Registry) -> (TransportId, Effects) {
    let id = TransportId::random();
    registry.reserve_transport(id, new(Direction::Send), ShardId(3)).unwrap();
    (id, registry.commit_transport(id).unwrap())
}

fn names(effects: &Effects) -> Vec<&'static str> {
    effects.events.iter().map(|happening| happening.event.name()).collect()
}

#[test]
fn a_peer_joins_once_with_its_first_transport() {
    let (mut registry, _) = start();
    let (_, first) = join(&mut registry);
    let (_, second) = join(&mut registry);
    assert_eq!((names(&first), names(&second)), (vec!["peer-joined"], vec![]));
}

#[test]
fn a_reserved_transport_is_invisible_until_its_shard_has_made_it() {
    let (mut registry, now) = start();
    let id = TransportId::random();
    registry.reserve_transport(id, new(Direction::Recv), ShardId(3)).unwrap();
    assert_eq!(registry.transport(id).unwrap_err(), ControlError::TransportNotFound);
    registry.abandon_transport(id, now);
    assert_eq!(registry.totals(), Totals { rooms: 1, ..Totals::default() });
    assert_eq!(registry.census(ShardId(3)), Census { rooms: 1, transports: 0 });
}

#[test]
fn the_last_peer_that_leaves_ends_the_room() {
    let (mut registry, _) = start();
    let (id, _) = join(&mut registry);
    let effects = registry.leave(&room(), &peer(), "left").unwrap();
    assert_eq!(names(&effects), ["transport-closed", "peer-left", "room-closed"]);
    assert_eq!(effects.closes, [(ShardId(3), Close::Transport(id))]);
    assert_eq!(registry.totals(), Totals::default());
    assert_eq!(registry.census(ShardId(3)), Census::default());
}

#[test]
fn a_peer_without_transports_leaves_after_its_grace_and_not_before() {
    let (mut registry, now) = start();
    let (id, _) = join(&mut registry);
    let closed = registry.close_transport(id, "closed", now).unwrap();
    assert_eq!(names(&closed), ["transport-closed"]);
    assert_eq!(names(&registry.expire(now + PEER_GRACE - Duration::from_secs(1))), [""; 0]);
    assert_eq!(names(&registry.expire(now + PEER_GRACE)), ["peer-left", "room-closed"]);
}

#[test]
fn a_peer_that_comes_back_in_its_grace_stays() {
    let (mut registry, now) = start();
    let (id, _) = join(&mut registry);
    let _ = registry.close_transport(id, "closed", now).unwrap();
    let _ = join(&mut registry);
    assert_eq!(names(&registry.expire(now + PEER_GRACE * 2)), [""; 0]);
}

#[test]
fn a_room_that_nobody_comes_to_ends_after_its_grace() {
    let (mut registry, now) = start();
    assert_eq!(names(&registry.expire(now + ROOM_GRACE - Duration::from_secs(1))), [""; 0]);
    assert_eq!(names(&registry.expire(now + ROOM_GRACE)), ["room-closed"]);
    assert_eq!(registry.totals(), Totals::default());
}

#[test]
fn a_room_that_is_asked_for_again_waits_as_long_again() {
    let (mut registry, now) = start();
    let later = now + ROOM_GRACE - Duration::from_secs(1);
    assert!(registry.renew_room(&room(), later));
    assert_eq!(names(&registry.expire(now + ROOM_GRACE)), [""; 0]);
    assert_eq!(names(&registry.expire(later + ROOM_GRACE)), ["room-closed"]);
    assert!(!registry.renew_room(&room(), later), "it is gone");
}

#[test]
fn ending_a_room_closes_its_transports_and_tells_only_that_it_ended() {
    let (mut registry, _) = start();
    let _ = join(&mut registry);
    let _ = join(&mut registry);
    let effects = registry.close_room(&room(), "deleted").unwrap();
    assert_eq!(names(&effects), ["room-closed"]);
    assert_eq!(effects.closes.len(), 2);
    assert_eq!(registry.totals(), Totals::default());
    assert_eq!(registry.census(ShardId(3)), Census::default());
}

#[test]
fn mids_count_up_and_begin_again_after_eight_digits() {
    let (mut registry, _) = start();
    let (id, _) = join(&mut registry);
    let transport = registry.transport_mut(id).unwrap();
    assert_eq!([transport.take_mid(), transport.take_mid()], ["0", "1"]);
    transport.next_mid = 99_999_999;
    assert_eq!([transport.take_mid(), transport.take_mid()], ["99999999", "0"]);
}
