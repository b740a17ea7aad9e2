//! Equal sizes for the packets of a train: how much RTP padding each packet of a run gets.
//!
//! Pure; called by the router once per batch and stream, however many consumers follow. The kernel
//! cuts a train into equal segments of which only the last may be shorter, and encoders split a
//! frame into packets that differ by a byte or so: unpadded, each frame would break in two trains
//! and cost twice as many messages. What is decided here holds for every consumer of the packet.
//!
//! Invariants: no packet gets more than [`TRAIN_PADDING_MAX`] bytes; no group more than
//! [`TRAIN_PADDING_PER_MILLE_MAX`] of its own bytes, and so no stream does; the longest packet of a
//! group and its last one get none. It does not know headers: packets that carry different header
//! extensions may still differ, which costs a train and nothing else.

use crate::limits::{TRAIN_PADDING_MAX, TRAIN_PADDING_PER_MILLE_MAX};

/// Packets looked at together; what is behind them begins a new group.
pub const RUN_MAX: usize = 64;

/// Tells for each of `sizes` (bytes, in the order of sending) how many bytes of padding make it a
/// segment of a train of at most `segments_max`; `padding` has room for as many.
pub fn equalise(sizes: &[usize], segments_max: usize, padding: &mut [u8]) {
    let (mut sizes, mut padding) = (sizes, padding);
    while let Some((group, to)) = sizes.split_at_checked(group_len(sizes, segments_max))
        && let Some((now, later)) = padding.split_at_mut_checked(group.len())
        && !group.is_empty()
    {
        let target = segment(group);
        for (bytes, size) in now.iter_mut().zip(group) {
            *bytes = u8::try_from(target.saturating_sub(*size)).unwrap_or_default();
        }
        // It ends the train, and may be shorter.
        if let Some(last) = now.last_mut() {
            *last = 0;
        }
        (sizes, padding) = (to, later);
    }
}

/// The size that all packets of a train but the last must have.
fn segment(group: &[usize]) -> usize {
    group.iter().copied().max().unwrap_or_default()
}

/// How many of the first packets can be one train.
fn group_len(sizes: &[usize], segments_max: usize) -> usize {
    let longest = sizes.len().min(segments_max);
    (2..=longest)
        .take_while(|len| sizes.get(..*len).is_some_and(is_affordable))
        .last()
        .unwrap_or_else(|| longest.min(1))
}

/// True when padding all packets but the last to the longest is within the bounds.
fn is_affordable(group: &[usize]) -> bool {
    let target = segment(group);
    let total: usize = group.iter().sum();
    let Some((_, front)) = group.split_last() else { return false };
    let spent: usize = front.iter().map(|size| target - size).sum();
    front.iter().all(|size| target - size <= TRAIN_PADDING_MAX)
        && spent * 1000 <= total * TRAIN_PADDING_PER_MILLE_MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn padding(sizes: &[usize]) -> Vec<u8> {
        let mut padding = vec![0; sizes.len()];
        equalise(sizes, 8, &mut padding);
        padding
    }

    /// How many trains packets of these sizes make.
    fn trains(sizes: impl IntoIterator<Item = usize>) -> usize {
        let mut trains: Vec<(usize, usize, bool)> = Vec::new();
        for size in sizes {
            match trains.last_mut() {
                Some((segment, count, open)) if *open && *count < 8 && size <= *segment => {
                    *count += 1;
                    *open = size == *segment;
                }
                _ => trains.push((size, 1, true)),
            }
        }
        trains.len()
    }

    #[test]
    fn a_frame_split_as_libwebrtc_does_becomes_one_train() {
        // It puts the smaller packets first, which breaks every frame at its second size.
        assert_eq!(trains([1101, 1101, 1102, 1102, 1102]), 2);
        assert_eq!(padding(&[1101, 1101, 1102, 1102, 1102]), [1, 1, 0, 0, 0]);
    }

    #[test]
    fn what_would_waste_too_much_stays_as_it_is() {
        for (sizes, wanted) in [
            (&[][..], &[][..]),
            (&[700], &[0]),
            (&[1200, 400], &[0, 0]),
            (&[400, 1200, 1200], &[0, 0, 0]),
            (&[1168, 1200, 1200], &[32, 0, 0]),
            (&[1167, 1200, 1200], &[0, 0, 0]),
            // 30 of 190 bytes is more than its share.
            (&[80, 110], &[0, 0]),
            (&[100, 100, 103, 90], &[3, 3, 0, 0]),
            // Two frames of one batch: the tail of the first ends its train.
            (&[1100, 1101, 1101, 350, 900, 901, 901], &[1, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(padding(sizes), wanted, "{sizes:?}");
        }
    }

    #[test]
    fn a_group_is_no_longer_than_a_train() {
        let mut sizes = vec![1000; 8];
        sizes.extend([1001; 4]);
        assert_eq!(padding(&sizes), [0; 12]);
    }

    proptest! {
        #[test]
        fn it_keeps_its_bounds_and_never_makes_more_trains(
            sizes in proptest::collection::vec(50_usize..1400, 0..RUN_MAX)
        ) {
            let padding = padding(&sizes);
            let padded = || sizes.iter().zip(&padding).map(|(size, more)| size + usize::from(*more));
            let spent: usize = padding.iter().map(|more| usize::from(*more)).sum();
            let total: usize = sizes.iter().sum();
            prop_assert!(padding.iter().all(|more| usize::from(*more) <= TRAIN_PADDING_MAX));
            prop_assert!(spent * 1000 <= total * TRAIN_PADDING_PER_MILLE_MAX);
            prop_assert!(trains(padded()) <= trains(sizes.iter().copied()) + 1);
            prop_assert!(padded().max() == sizes.iter().copied().max());
        }
    }
}
