//! Intervals from ranks: how much one set of measurements differs from another, without assuming
//! how they are distributed. Pure, and exact for up to [`EXACT_MAX`] values a side.
//!
//! Unpaired: the Hodges–Lehmann shift, the median of all differences, with the interval that the
//! Mann–Whitney test does not reject. Paired: the median of the Walsh averages, with the interval of
//! Wilcoxon's signed-rank test. Both tell when there are too few values for any interval: 95 % needs
//! four a side unpaired, six pairs paired. (Sources: Hollander, Wolfe, Chicken, Nonparametric
//! Statistical Methods, §3.1–3.3 and §4.1–4.3.)

/// What lies outside the interval on one side: 95 % inside.
const TAIL: f64 = 0.025;

/// Values a side up to which distributions are counted out; callers average more into fewer.
pub(crate) const EXACT_MAX: usize = 20;

/// A shift with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shift {
    /// The estimate.
    pub(crate) by: f64,
    /// Its interval; none when there are too few values.
    pub(crate) interval: Option<(f64, f64)>,
}

/// How far `new` lies above `base`; `None` when either is empty.
pub(crate) fn unpaired(base: &[f64], new: &[f64]) -> Option<Shift> {
    let differences = new.iter().flat_map(|new| base.iter().map(move |base| new - base));
    shift(differences.collect(), &mann_whitney(base.len(), new.len()))
}

/// How far each `new` lies above the `base` of the same place; `None` when they are not as many.
pub(crate) fn paired(base: &[f64], new: &[f64]) -> Option<Shift> {
    (base.len() == new.len()).then_some(())?;
    let differences: Vec<f64> = base.iter().zip(new).map(|(base, new)| new - base).collect();
    let mut walsh = Vec::new();
    for (place, first) in differences.iter().enumerate() {
        walsh.extend(differences.iter().skip(place).map(|second| (first + second) / 2.0));
    }
    shift(walsh, &signed_ranks(differences.len()))
}

/// The middle of sorted values; zero without any.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = ((values.len().max(1) - 1) / 2, values.len() / 2);
    let at = |place: usize| values.get(place).copied().unwrap_or(0.0);
    f64::midpoint(at(low), at(high))
}

/// Estimate and interval from all differences and the distribution of their test's statistic.
fn shift(mut differences: Vec<f64>, ways: &[f64]) -> Option<Shift> {
    if differences.is_empty() {
        return None;
    }
    differences.sort_unstable_by(f64::total_cmp);
    let by = median(&differences);
    let interval = outside(ways).and_then(|outside| {
        let low = differences.get(outside.checked_sub(1)?)?;
        let high = differences.get(differences.len().checked_sub(outside)?)?;
        Some((*low, *high))
    });
    Some(Shift { by, interval })
}

/// The largest `k` for which the statistic is below `k` with at most the tail's probability; `None`
/// when even its smallest value is likelier.
fn outside(ways: &[f64]) -> Option<usize> {
    let all: f64 = ways.iter().sum();
    let mut sum = 0.0;
    let below = ways.iter().take_while(|ways| {
        sum += **ways;
        sum <= TAIL * all
    });
    Some(below.count()).filter(|count| *count > 0)
}

/// In how many ways two samples of these sizes give each value of Mann and Whitney's U.
fn mann_whitney(a: usize, b: usize) -> Vec<f64> {
    // The coefficients of the Gaussian binomial: ∏ (1 - x^(b+i)) / (1 - x^i).
    let mut ways = vec![0.0; a * b + 1];
    if let Some(first) = ways.first_mut() {
        *first = 1.0;
    }
    for i in 1..=a {
        for place in (b + i..ways.len()).rev() {
            let taken = ways.get(place - b - i).copied().unwrap_or(0.0);
            if let Some(ways) = ways.get_mut(place) {
                *ways -= taken;
            }
        }
        for place in i..ways.len() {
            let carried = ways.get(place - i).copied().unwrap_or(0.0);
            if let Some(ways) = ways.get_mut(place) {
                *ways += carried;
            }
        }
    }
    ways
}

/// In how many ways this many signs give each value of Wilcoxon's T.
fn signed_ranks(pairs: usize) -> Vec<f64> {
    let mut ways = vec![0.0; pairs * (pairs + 1) / 2 + 1];
    if let Some(first) = ways.first_mut() {
        *first = 1.0;
    }
    for rank in 1..=pairs {
        for place in (rank..ways.len()).rev() {
            let carried = ways.get(place - rank).copied().unwrap_or(0.0);
            if let Some(ways) = ways.get_mut(place) {
                *ways += carried;
            }
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_those_of_the_tables() {
        assert_eq!(mann_whitney(2, 3), [1.0, 1.0, 2.0, 2.0, 2.0, 1.0, 1.0]);
        assert_eq!(signed_ranks(3), [1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0]);
        let all: f64 = mann_whitney(20, 20).iter().sum();
        assert!((all - 137_846_528_820.0).abs() < 1.0, "C(40, 20)");
        // Critical values of published tables, two-sided 5 %: U ≤ 2 for 5 and 5, T ≤ 8 for 10.
        assert_eq!(outside(&mann_whitney(5, 5)), Some(3));
        assert_eq!(outside(&signed_ranks(10)), Some(9));
        assert_eq!(outside(&mann_whitney(4, 4)), Some(1));
        assert_eq!(outside(&mann_whitney(3, 4)), None);
        assert_eq!(outside(&signed_ranks(6)), Some(1));
        assert_eq!(outside(&signed_ranks(5)), None);
    }

    #[test]
    fn a_shift_lies_in_its_interval_and_order_does_not_matter() {
        let base = [10.0, 11.0, 9.0, 10.5, 9.5];
        let new = [13.0, 12.5, 12.0, 13.5, 14.0];
        let found = unpaired(&base, &new).unwrap();
        let (low, high) = found.interval.unwrap();
        assert!((found.by - 3.0).abs() < 1e-9);
        assert!(low > 0.0 && low < 3.0 && high > 3.0);
        let turned: Vec<_> = new.iter().rev().copied().collect();
        assert_eq!(unpaired(&base, &turned), Some(found));
        let back = unpaired(&new, &base).unwrap();
        assert!((back.by + found.by).abs() < 1e-9 && back.interval == Some((-high, -low)));
    }

    #[test]
    fn pairs_see_what_drift_hides() {
        let base = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0];
        let new = base.map(|value| value + 1.0);
        let (low, high) = paired(&base, &new).unwrap().interval.unwrap();
        assert!((low - 1.0).abs() < 1e-9 && (high - 1.0).abs() < 1e-9);
        let (low, high) = unpaired(&base, &new).unwrap().interval.unwrap();
        assert!(low < 0.0 && high > 0.0);
        assert_eq!(paired(&base, &new[1..]), None);
    }

    #[test]
    fn too_few_values_have_an_estimate_and_no_interval() {
        let found = unpaired(&[1.0], &[2.0]).unwrap();
        assert_eq!(found, Shift { by: 1.0, interval: None });
        assert_eq!(unpaired(&[], &[2.0]), None);
        assert!((median(&[3.0, 1.0, 2.0, 10.0]) - 2.5).abs() < 1e-9);
    }
}
