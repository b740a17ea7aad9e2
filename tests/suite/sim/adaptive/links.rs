//! Links do what they say.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::super::bottleneck::{Bottleneck, Excess};
use super::super::network::{Bursts, Goal, Link, Network};
use super::super::room::{beginning, ms, secs};

#[test]
fn packets_wait_for_those_before_them_and_the_tail_is_dropped() {
    let now = beginning();
    let mut link = Bottleneck::new(now, 800_000, Excess::Queued(3_000));
    // 10 ms each.
    let leaves: Vec<_> = (0..4).map(|_| link.pass(now, 1_000)).collect();
    assert_eq!(leaves, [Some(now + ms(10)), Some(now + ms(20)), Some(now + ms(30)), None]);
    assert_eq!(link.pass(now + ms(10), 1_000), Some(now + ms(40)), "room for one more");
    assert_eq!(link.pass(now + ms(11), 1_000), None);
    assert_eq!(link.pass(now + ms(100), 500), Some(now + ms(105)), "an idle link");
    assert_eq!((link.passed.len(), link.dropped.len()), (5, 2));
    assert_eq!(link.passed[3], (now + ms(10), ms(30), 1_000));
}

#[test]
fn what_is_queued_when_the_rate_changes_leaves_at_the_new_rate() {
    let now = beginning();
    let rates = vec![(now, 800_000), (now + ms(15), 80_000), (now + ms(65), 8_000_000)];
    let mut link = Bottleneck::stepped(rates, Excess::Queued(100_000));
    assert_eq!(link.pass(now, 1_000), Some(now + ms(10)));
    // Half of it at the first rate, half of what is left at the second.
    let leaves = link.pass(now, 1_000).expect("room");
    assert_eq!(leaves, now + ms(65));
    assert_eq!(link.pass(now, 1_000), Some(now + ms(66)));
}

#[test]
fn a_policer_lets_bursts_pass_and_then_its_rate_without_a_delay() {
    let now = beginning();
    let mut link = Bottleneck::new(now, 800_000, Excess::Policed(5_000));
    let at_once = (0..10).filter(|_| link.pass(now, 1_000) == Some(now)).count();
    assert_eq!(at_once, 5);
    let mut passed = 0;
    for after in 1..=1_000 {
        passed += usize::from(link.pass(now + ms(after), 1_000).is_some());
    }
    assert!((99..=101).contains(&passed), "{passed} packets in a second of 100");
}

#[test]
fn bursts_lose_their_share_in_runs_of_their_length() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut link = Link { bursts: Some(Bursts::new(0.05, 8.0)), ..Link::new(1) };
    let mut network = Network::default();
    let now = beginning();
    let (mut lost, mut runs, mut last) = (0, 0, false);
    for number in 0..100_000_u32 {
        let before = network.next().is_some();
        assert!(!before, "taken below");
        network.send(now, &mut rng, &mut link, Goal::Seat(0), &number.to_be_bytes());
        let is_lost = network.pop(now + secs(1)).is_none();
        lost += usize::from(is_lost);
        runs += usize::from(is_lost && !last);
        last = is_lost;
    }
    assert!((4_000..6_000).contains(&lost), "{lost} lost");
    assert!((7..=9).contains(&(lost / runs)), "{lost} in {runs} runs");
}

#[test]
fn links_that_are_clones_share_what_one_bottleneck_carries() {
    let mut rng = StdRng::seed_from_u64(5);
    let now = beginning();
    let cable = Bottleneck::new(now, 800_000, Excess::Queued(100_000));
    let mut one = Link::new(0).through(cable);
    let mut other = one.clone();
    let mut network = Network::default();
    for link in [&mut one, &mut other] {
        network.send(now, &mut rng, link, Goal::Seat(0), &[0; 1_000]);
    }
    let arrived: Vec<_> = (0..2).filter_map(|_| network.pop(now + secs(1))).collect();
    assert_eq!([arrived[0].at, arrived[1].at], [now + ms(10), now + ms(20)]);
}
