//! `client`: evidence of the client software. Evaluated once per visit.

use super::{LevelRatio, level_ratio};
use crate::math::ln;
use crate::memory::cohort::LEVELS;

/// How new a client is to the owner, from known to new.
pub mod level {
    /// Agent and fingerprint are known.
    pub const KNOWN: usize = 0;
    pub const NEW_FINGERPRINT: usize = 1;
    /// Known family and version, new user agent text.
    pub const NEW_TEXT: usize = 2;
    pub const NEW_VERSION: usize = 3;
    /// A family of the user's other tokens.
    pub const USERS_FAMILY: usize = 4;
    pub const NEW_FAMILY: usize = 5;
}

/// Assumed shares of thieves by level: one in three copies the owner's client.
pub const THIEF: [f64; LEVELS] = [0.35, 0.05, 0.03, 0.07, 0.10, 0.40];

/// `ln P_T/P_O` of the level, as for the network. For a family that is new to the baseline also which family, limited
/// to ±3: an HTTP library is rare for a browser session, but not for thieves.
///
/// `which`: the thief's probability of this family, and the owner's.
#[must_use]
pub fn judge(level: usize, own: &[f64; LEVELS], cohort: &[f64; LEVELS], which: (f64, f64)) -> LevelRatio {
    let mut client = level_ratio(level, &THIEF, own, cohort);
    if level >= level::USERS_FAMILY {
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
    fn a_library_is_odd_for_a_browsers_session_and_an_upgrade_is_not() {
        let own = [60.0, 0.0, 0.0, 2.0, 0.0, 0.0];
        let library = judge(level::NEW_FAMILY, &own, &COHORT, (0.1, 0.001));
        // P_O(5) = 6·.02/36.
        assert!((library.ratio - ((0.4_f64 / (0.12 / 36.0)).ln() + 3.0)).abs() < 1e-9);
        assert!(judge(level::NEW_VERSION, &own, &COHORT, (0.1, 0.001)).ratio < 1.0);
        assert!(judge(level::KNOWN, &own, &COHORT, (0.1, 0.001)).ratio < -0.9);
    }

    proptest! {
        #[test]
        fn the_term_is_finite_whatever_comes(
            level in 0..LEVELS, own in proptest::array::uniform6(0.0..1e6_f64), thief in 0.0..1.0_f64, owner in 0.0..1.0_f64,
        ) {
            prop_assert!(judge(level, &own, &COHORT, (thief, owner)).ratio.is_finite());
        }
    }
}
