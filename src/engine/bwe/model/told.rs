//! What each packet that a receiver tells of changes in the model.
//!
//! Packets of a picture leave together and mostly arrive together. Behind the first of them none tells
//! anything of the delay that the last does not, and bytes and packets are sums: such followers are
//! counted at once, with the same result as one by one (but that a clock which jumps between two of
//! them is seen with the next).

use super::{Model, signed};
use crate::engine::bwe::history::{SentPacket, Told};
use crate::engine::bwe::throughput::{self, Throughput};

/// Packets behind one that was counted.
#[derive(Debug)]
pub(super) struct Followers {
    /// When all of them left.
    at_us: u64,
    /// When the last one arrived.
    arrival_us: i64,
    /// Of all of them.
    bytes: u32,
    /// How many they are.
    packets: u16,
    until_us: i64,
}

impl Followers {
    /// None yet, behind a packet.
    fn of(packet: SentPacket, arrival_us: i64) -> Self {
        let until_us = throughput::bucket_end_us(arrival_us);
        Self { at_us: packet.at_us, arrival_us, bytes: 0, packets: 0, until_us }
    }

    /// Takes in the next packet; false when it does not belong to them.
    fn take(&mut self, packet: SentPacket, arrival_us: i64) -> bool {
        let together = (self.arrival_us..self.until_us).contains(&arrival_us);
        let fits = together && packet.at_us == self.at_us && packet.cluster == 0;
        if fits {
            self.arrival_us = arrival_us;
            self.bytes = self.bytes.saturating_add(packet.bytes);
            self.packets = self.packets.saturating_add(1);
        }
        fits
    }
}

impl Model {
    /// One status, behind those that `followers` are of; which it joins, or those that may follow it.
    pub(super) fn handle_told(
        &mut self,
        told: Told,
        arrival_us: i64,
        mut followers: Option<Followers>,
    ) -> Option<Followers> {
        if let (Told::Received(packet), Some(them)) = (told, &mut followers)
            && them.take(packet, arrival_us)
        {
            return followers;
        }
        self.handle_followers(followers);
        match told {
            Told::Received(packet) => {
                self.told_until_us = self.told_until_us.max(packet.at_us);
                self.handle_received(packet, arrival_us);
                return self.may_follow(packet).then(|| Followers::of(packet, arrival_us));
            }
            Told::Lost(packet) => {
                self.told_until_us = self.told_until_us.max(packet.at_us);
                self.count_loss(packet, true);
                self.sent.add(signed(packet.at_us), packet.bytes);
                self.probing.handle_told(packet.cluster, packet.bytes, None);
            }
            Told::Late(packet) => self.loss.handle_late(packet.at_us),
        }
        None
    }

    fn handle_received(&mut self, packet: SentPacket, arrival_us: i64) {
        if self.delay.handle_packet(packet.at_us, arrival_us, packet.bytes) {
            self.received = Throughput::new();
        }
        self.received.add(arrival_us, packet.bytes);
        self.sent.add(signed(packet.at_us), packet.bytes);
        self.count_loss(packet, false);
        if packet.cluster != 0 {
            self.probing.handle_told(packet.cluster, packet.bytes, Some(arrival_us));
        }
    }

    /// Whether packets that left and arrived with this one change nothing but sums.
    fn may_follow(&self, packet: SentPacket) -> bool {
        let is_in_burst = self.delay.is_in_burst(packet.at_us);
        packet.cluster == 0 && is_in_burst && !self.loss.is_turning(packet.at_us)
    }

    pub(super) fn handle_followers(&mut self, followers: Option<Followers>) {
        let Some(all) = followers.filter(|followers| followers.packets > 0) else { return };
        self.delay.extend_burst(all.arrival_us, all.bytes);
        self.received.add_all(all.arrival_us, all.bytes, all.packets);
        self.sent.add_all(signed(all.at_us), all.bytes, all.packets);
        self.loss.handle_followers(all.at_us, all.bytes, u32::from(all.packets));
    }

    /// What a probe loses says nothing of the rate that is sent otherwise.
    fn count_loss(&mut self, packet: SentPacket, lost: bool) {
        if packet.cluster == 0 {
            self.loss.handle_packet(packet.at_us, packet.bytes, lost);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Since the packet before it: departure and arrival in microseconds; its bytes; its probe; and
    /// whether it is lost.
    type Step = (u64, i64, u32, bool, bool);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let departure = prop_oneof![4 => Just(0), 2 => 0_u64..40_000, 1 => 0_u64..700_000];
        let arrival = prop_oneof![4 => 0_i64..3 * 250, 2 => -2_000_i64..60_000];
        let rarely = || prop::bool::weighted(0.03);
        prop::collection::vec((departure, arrival, 100_u32..1_300, rarely(), rarely()), 1..600)
    }

    /// All that is known after these, counted one by one or followers at once.
    fn told(steps: &[Step], at_once: bool) -> String {
        let mut model = Model::new(0, 0, 1e6);
        let (mut at_us, mut arrival_us, mut followers) = (1_000_000, 5_000_000, None);
        for &(departure, arrival, bytes, is_probe, is_lost) in steps {
            at_us += departure;
            arrival_us += arrival + signed(departure);
            let packet = SentPacket { at_us, bytes, cluster: u8::from(is_probe) };
            let told = if is_lost { Told::Lost(packet) } else { Told::Received(packet) };
            followers = model.handle_told(told, arrival_us, followers).filter(|_| at_once);
        }
        model.handle_followers(followers);
        format!("{model:?}")
    }

    proptest! {
        #[test]
        fn followers_count_as_they_would_one_by_one(steps in steps()) {
            prop_assert_eq!(told(&steps, true), told(&steps, false));
        }
    }

    #[test]
    fn the_packets_of_a_picture_are_followers() {
        let packet = SentPacket { at_us: 7, bytes: 1_200, cluster: 0 };
        let mut followers = Followers::of(packet, 500);
        assert!(followers.take(packet, 500) && followers.take(packet, 750));
        assert_eq!((followers.packets, followers.bytes, followers.arrival_us), (2, 2_400, 750));
        for (other, arrival_us) in [
            (SentPacket { at_us: 8, ..packet }, 750),
            (SentPacket { cluster: 1, ..packet }, 750),
            (packet, 500),
            (packet, 25_000),
        ] {
            assert!(!followers.take(other, arrival_us), "{other:?} at {arrival_us}");
        }
    }
}
