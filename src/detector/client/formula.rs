//! `client`: evidence of the client software. Evaluated once per visit.

use crate::detector::levels::{LevelRatio, level_ratio};
use crate::math::ln;
use crate::memory::level::{ClientLevel, LEVELS};

/// Assumed shares of thieves by level: one in three copies the owner's client.
pub(crate) const THIEF: [f64; LEVELS] = [0.35, 0.05, 0.03, 0.07, 0.10, 0.40];

/// `ln P_T/P_O` of the level. For a family that is new to the baseline, the ratio of this family is added, limited to
/// ±3. Example: an HTTP library is rare among browser sessions, but not among thieves.
///
/// `which`: probabilities that the thief and the owner use this family.
pub(crate) fn evidence(
    level: ClientLevel,
    own: &[f64; LEVELS],
    cohort: &[f64; LEVELS],
    which: (f64, f64),
) -> LevelRatio {
    let mut client = level_ratio(level as usize, &THIEF, own, cohort);
    if level >= ClientLevel::UsersFamily {
        client.ratio += ln(which.0 / which.1).clamp(-3.0, 3.0);
    }
    client
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COHORT: [f64; LEVELS] = [0.90, 0.02, 0.01, 0.04, 0.01, 0.02];

    #[test]
    fn new_library_counts_more_than_an_upgrade() {
        let own = [60.0, 0.0, 0.0, 2.0, 0.0, 0.0];
        let library = evidence(ClientLevel::NewFamily, &own, &COHORT, (0.1, 0.001));
        // P_O(5) = 6·0.02/36.
        assert!((library.ratio - ((0.4_f64 / (0.12 / 36.0)).ln() + 3.0)).abs() < 1e-9);
        assert!(evidence(ClientLevel::NewVersion, &own, &COHORT, (0.1, 0.001)).ratio < 1.0);
        assert!(evidence(ClientLevel::Known, &own, &COHORT, (0.1, 0.001)).ratio < -0.9);
    }

    proptest! {
        #[test]
        fn evidence_is_finite_for_all_inputs(
            level in 0..LEVELS, own in proptest::array::uniform6(0.0..1e6_f64), thief in 0.0..1.0_f64, owner in 0.0..1.0_f64,
        ) {
            prop_assert!(evidence(ClientLevel::ALL[level], &own, &COHORT, (thief, owner)).ratio.is_finite());
        }
    }
}
