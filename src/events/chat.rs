//! What the replaced service told its chat about a call, in its words.
//!
//! Pure. The shape of these messages is a contract with readers that were written for that service:
//! nothing may be added to them.

use bytes::Bytes;
use serde_json::{Value, json};

use super::RoomEvent;
use crate::id::{PeerId, RoomId};

/// The topic of these messages.
pub(super) const TOPIC: &str = "emit_to_chat";

/// The message for what happened; `None` for what that service did not tell. `leaver` is who left
/// the room last: of a room that ends because nobody is left, that is who ended it.
pub(super) fn message(room: &RoomId, event: &RoomEvent, leaver: Option<&PeerId>) -> Option<Bytes> {
    let (name, data) = match event {
        RoomEvent::RoomCreated { initiator: Some(initiator) } => {
            ("video_call_started", json!({ "roomId": room, "initiatorId": initiator }))
        }
        RoomEvent::PeerJoined { peer } => ("video_call_joined", of(room, peer)),
        RoomEvent::PeerLeft { peer, .. } => ("video_call_left", of(room, peer)),
        RoomEvent::RoomClosed { reason: "empty" } => {
            let data = leaver.map_or_else(|| json!({ "roomId": room }), |peer| of(room, peer));
            ("video_call_ended", data)
        }
        RoomEvent::RoomClosed { .. } => ("video_call_ended", json!({ "roomId": room })),
        _ => return None,
    };
    let message = json!({ "to": room, "event": name, "data": { "success": true, "data": data } });
    Some(Bytes::from(message.to_string()))
}

fn of(room: &RoomId, peer: &PeerId) -> Value {
    json!({ "roomId": room, "peerId": peer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_in_the_replaced_services_words() {
        let room = RoomId::try_from("tea").unwrap();
        let alice = PeerId::try_from("alice").unwrap();
        let told = |event: RoomEvent| {
            let message = message(&room, &event, Some(&alice));
            message.map(|text| serde_json::from_slice::<Value>(&text).unwrap())
        };
        let expected = |name: &str, data: Value| {
            Some(json!({
                "to": "tea", "event": name, "data": { "success": true, "data": data },
            }))
        };
        let peer = alice.clone();
        let of_alice = || json!({ "roomId": "tea", "peerId": "alice" });
        assert_eq!(
            told(RoomEvent::RoomCreated { initiator: Some(peer.clone()) }),
            expected("video_call_started", json!({ "roomId": "tea", "initiatorId": "alice" }))
        );
        assert_eq!(told(RoomEvent::RoomCreated { initiator: None }), None);
        assert_eq!(
            told(RoomEvent::PeerJoined { peer: peer.clone() }),
            expected("video_call_joined", of_alice())
        );
        assert_eq!(
            told(RoomEvent::PeerLeft { peer, reason: "idle" }),
            expected("video_call_left", of_alice())
        );
        assert_eq!(
            told(RoomEvent::RoomClosed { reason: "empty" }),
            expected("video_call_ended", of_alice())
        );
        assert_eq!(
            told(RoomEvent::RoomClosed { reason: "deleted" }),
            expected("video_call_ended", json!({ "roomId": "tea" }))
        );
    }
}
