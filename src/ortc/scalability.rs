//! Scalability modes (`L3T3_KEY`): how many layers an encoding has. Pure; used by `ortc` for
//! producer types and by the engine for layer choice. Does not check a mode against a codec.

/// What a scalability mode says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scalability {
    /// Spatial layers, 1–99.
    pub spatial: u8,
    /// Temporal layers, 1–99.
    pub temporal: u8,
    /// True when spatial layers depend on each other in key frames only (K-SVC).
    pub key_mode: bool,
}

impl Scalability {
    /// One layer of each: what an absent or unknown mode means.
    pub const SINGLE: Self = Self { spatial: 1, temporal: 1, key_mode: false };

    /// Reads the beginning `(L|S)<n>T<m>[_KEY]`; anything else is a single layer, as in mediasoup
    /// (what follows, such as `h` or `_SHIFT`, is not looked at).
    #[must_use]
    pub fn of(mode: &str) -> Self {
        Self::read(mode).unwrap_or(Self::SINGLE)
    }

    fn read(mode: &str) -> Option<Self> {
        let (spatial, rest) = layers(mode.strip_prefix(['L', 'S'])?)?;
        let (temporal, rest) = layers(rest.strip_prefix('T')?)?;
        Some(Self { spatial, temporal, key_mode: rest.starts_with("_KEY") })
    }

    /// True when there is more than one layer of some kind.
    #[must_use]
    pub fn is_layered(self) -> bool {
        self.spatial > 1 || self.temporal > 1
    }
}

/// One or two digits, the first not zero, and what follows.
fn layers(text: &str) -> Option<(u8, &str)> {
    let digits = text.bytes().take(2).take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits)?;
    if number.starts_with('0') {
        return None;
    }
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mode_is_read_as_mediasoup_reads_it() {
        let table = [
            ("L1T1", (1, 1, false)),
            ("L1T3", (1, 3, false)),
            ("L3T2", (3, 2, false)),
            ("S3T3", (3, 3, false)),
            ("L3T3_KEY", (3, 3, true)),
            ("L3T3_KEY_SHIFT", (3, 3, true)),
            ("L2T2h", (2, 2, false)),
            ("L99T10", (99, 10, false)),
            ("L100T1", (1, 1, false)),
            ("L4T123", (4, 12, false)),
            ("L0T3", (1, 1, false)),
            ("L3T0", (1, 1, false)),
            ("l3t3", (1, 1, false)),
            ("L3", (1, 1, false)),
            ("LT", (1, 1, false)),
            (" L3T3", (1, 1, false)),
            ("", (1, 1, false)),
        ];
        for (mode, (spatial, temporal, key_mode)) in table {
            assert_eq!(
                Scalability::of(mode),
                Scalability { spatial, temporal, key_mode },
                "{mode}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_has_between_1_and_99_layers(mode in "\\PC*") {
            let scalability = Scalability::of(&mode);
            prop_assert!((1..=99).contains(&scalability.spatial));
            prop_assert!((1..=99).contains(&scalability.temporal));
        }

        #[test]
        fn a_mode_keeps_its_numbers(spatial in 1u8..=99, temporal in 1u8..=99, key_mode: bool) {
            let mode = format!("L{spatial}T{temporal}{}", if key_mode { "_KEY" } else { "" });
            prop_assert_eq!(Scalability::of(&mode), Scalability { spatial, temporal, key_mode });
        }
    }
}
