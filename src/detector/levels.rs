//! Evidence of a level of novelty, for the detectors `net` and `client`.

use crate::math::ln;
use crate::memory::level::LEVELS;

/// Evidence of a level of novelty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LevelRatio {
    /// ln of the thief's probability of this level over the owner's.
    pub(crate) ratio: f64,
    /// The owner's probability of a level as new or newer.
    pub(crate) p_value: f64,
}

/// Evidence of a level. The owner's probability is estimated from past visits and shrunk towards the cohort's shares:
/// `P_O(L) = (k_L·m/Σk + 6·c_L)/(m + 6)`, `m = min(Σk, 30)`.
///
/// `own`: past visits by level; `cohort`: shares that sum to one.
pub(crate) fn level_ratio(
    level: usize,
    thief: &[f64; LEVELS],
    own: &[f64; LEVELS],
    cohort: &[f64; LEVELS],
) -> LevelRatio {
    /// Maximum weight of the owner's visits.
    const OWN_MAX: f64 = 30.0;
    /// Weight of the cohort, visits.
    const COHORT: f64 = 6.0;
    let total: f64 = own.iter().sum();
    let sure = total.min(OWN_MAX);
    let own_weight = if total > 0.0 { sure / total } else { 0.0 };
    let all = sure + COHORT;
    let of_all = |level: usize| own[level] * own_weight + COHORT * cohort[level];
    // Level 0 is the least new, so every visit reaches it.
    let p_value = if level == 0 { 1.0 } else { ((level..LEVELS).map(of_all).sum::<f64>() / all).min(1.0) };
    LevelRatio { ratio: ln(thief[level] * all / of_all(level)), p_value }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn level_ratio_combines_owner_and_cohort() {
        let thief = [0.05, 0.03, 0.10, 0.05, 0.42, 0.35];
        let cohort = [0.7, 0.1, 0.1, 0.05, 0.04, 0.01];
        // Ten visits, all at level 0: P_O(5) = 6·0.01/16, P_O(0) = (10 + 4.2)/16.
        let own = [10.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert!((level_ratio(5, &thief, &own, &cohort).ratio - (0.35_f64 / 0.00375).ln()).abs() < 1e-9);
        assert!((level_ratio(0, &thief, &own, &cohort).ratio - (0.05_f64 / 0.8875).ln()).abs() < 1e-9);
        assert!((level_ratio(0, &thief, &own, &cohort).p_value - 1.0).abs() < 1e-9);
        assert!((level_ratio(4, &thief, &own, &cohort).p_value - 6.0 * 0.05 / 16.0).abs() < 1e-9);
        // A hundred visits count as thirty.
        let own = [90.0, 0.0, 0.0, 0.0, 10.0, 0.0];
        assert!((level_ratio(4, &thief, &own, &cohort).ratio - (0.42_f64 / (3.24 / 36.0)).ln()).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn level_ratio_falls_with_own_visits(
            own in proptest::array::uniform6(0.0..300.0_f64), level in 0..LEVELS, more in 1.0..50.0_f64,
        ) {
            let cohort = [0.7, 0.1, 0.1, 0.05, 0.04, 0.01];
            let thief = [0.05, 0.03, 0.10, 0.05, 0.42, 0.35];
            let mut richer = own;
            richer[level] += more;
            let before = level_ratio(level, &thief, &own, &cohort);
            let after = level_ratio(level, &thief, &richer, &cohort);
            prop_assert!(before.ratio.is_finite() && (0.0..=1.0).contains(&before.p_value));
            // Below 30 visits, a further visit also increases the owner's weight.
            if own.iter().sum::<f64>() >= 30.0 || own.iter().sum::<f64>() == 0.0 {
                prop_assert!(after.ratio <= before.ratio + 1e-9);
            }
        }
    }
}
