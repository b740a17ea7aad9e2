//! Sequence numbers, which wrap.

/// How far `a` is ahead of `b`, the short way round (RFC 1982's serial arithmetic).
#[must_use]
pub const fn seq_diff(a: u16, b: u16) -> i16 {
    a.wrapping_sub(b).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_go_the_short_way_round() {
        for (a, b, diff) in [
            (1u16, 0u16, 1i16),
            (0, 1, -1),
            (0, 65_535, 1),
            (65_535, 0, -1),
            (0x8000, 0, i16::MIN),
            (0, 0x8000, i16::MIN),
            (5, 5, 0),
        ] {
            assert_eq!(seq_diff(a, b), diff, "{a} {b}");
        }
    }
}
