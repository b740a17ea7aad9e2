//! Two peers and what one hears of the other.

use super::media::Codec;
use super::room::{Camera, Room, secs};

#[test]
fn two_peers_hear_and_see_all_that_was_sent_in_order_and_in_the_rooms_numbers() {
    for seed in [1, 2, 3] {
        let mut room = Room::new(seed);
        let alice = room.publisher();
        let camera = room.produce(alice, &Camera::new(Codec::Vp8));
        let microphone = room.produce(alice, &Camera::new(Codec::Opus));
        let bob = room.subscriber();
        let picture = room.consume(bob, &camera);
        let sound = room.consume(bob, &microphone);
        room.start(&camera);
        room.start(&microphone);
        room.run_for(secs(3));
        room.assert_all_arrived(&picture, &camera);
        room.assert_all_arrived(&sound, &microphone);
    }
}
