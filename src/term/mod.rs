//! The terms (detectors) of the score: one file per summand. Each is a pure function of what memory holds and gives
//! nats, positive for a thief.
//!
//! The score is the prior and the weighted sum of the terms (`docs/detection.md`). The weights of net and client come from
//! a logistic fit on labelled traffic. The fitted weights of the other terms were close to 1.

pub mod area;
pub mod client;
pub mod colleague;
pub mod credential;
pub mod fan;
pub mod hour;
pub mod lifecycle;
pub mod net;
pub mod route;
pub mod sibling;
pub mod switch;
pub mod volume;

use crate::math::ln;
use crate::memory::cohort::LEVELS;

/// Identifies a term, for example in `evaluate --without TERM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    Net,
    Client,
    Hour,
    Route,
    Area,
    Switch,
    Volume,
    Lifecycle,
    Credential,
    Fan,
    Sibling,
    Colleague,
}

/// Name and weight of each term, in the order of [`Term`].
const TABLE: [(Term, &str, f64); TERMS] = [
    (Term::Net, "net", 0.8),
    (Term::Client, "client", 0.85),
    (Term::Hour, "hour", 1.0),
    (Term::Route, "route", 1.0),
    (Term::Area, "area", 1.0),
    (Term::Switch, "switch", 1.0),
    (Term::Volume, "volume", 1.0),
    (Term::Lifecycle, "lifecycle", 1.0),
    (Term::Credential, "credential", 1.0),
    (Term::Fan, "fan", 1.0),
    (Term::Sibling, "sibling", 1.0),
    (Term::Colleague, "colleague", 1.0),
];
const TERMS: usize = 12;

impl Term {
    pub fn all() -> impl Iterator<Item = Self> + Clone {
        TABLE.iter().map(|(term, _, _)| *term)
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// Factor of its evidence in the score.
    #[must_use]
    pub const fn weight(self) -> f64 {
        TABLE[self as usize].2
    }
}

/// Share of each term in the score: its weighted evidence, nats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares([f64; TERMS]);

impl Shares {
    /// Sets the share of a term from its evidence.
    pub fn set(&mut self, term: Term, evidence: f64) {
        self.0[term as usize] = term.weight() * evidence;
    }

    #[must_use]
    pub const fn of(&self, term: Term) -> f64 {
        self.0[term as usize]
    }

    /// Sum of some terms.
    #[must_use]
    pub fn of_all<const N: usize>(&self, terms: [Term; N]) -> f64 {
        terms.map(|term| self.of(term)).iter().sum()
    }

    #[must_use]
    pub fn sum(&self) -> f64 {
        self.0.iter().sum()
    }
}

/// Evidence of a level of novelty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelRatio {
    /// ln of the thief's probability of this level over the owner's.
    pub ratio: f64,
    /// The owner's probability of a level as new or newer.
    pub p_value: f64,
}

/// Evidence of a level. The owner's probability is shrunk from their past visits towards the cohort's shares:
/// `P_O(L) = (k_L·m/Σk + 6·c_L)/(m + 6)`, `m = min(Σk, 30)`.
///
/// `own`: past visits by level; `cohort`: shares that sum to one.
#[must_use]
pub fn level_ratio(level: usize, thief: &[f64; LEVELS], own: &[f64; LEVELS], cohort: &[f64; LEVELS]) -> LevelRatio {
    /// More visits of the owner do not increase their weight.
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
    fn table_has_the_order_of_the_terms() {
        assert!(TABLE.iter().enumerate().all(|(at, (term, _, _))| *term as usize == at));
    }

    #[test]
    fn a_level_is_weighed_by_own_and_cohort() {
        let thief = [0.05, 0.03, 0.10, 0.05, 0.42, 0.35];
        let cohort = [0.7, 0.1, 0.1, 0.05, 0.04, 0.01];
        // Ten visits, all at level 0: P_O(5) = 6·.01/16, P_O(0) = (10 + 4.2)/16.
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
        fn a_level_that_the_owner_has_more_often_says_less(
            own in proptest::array::uniform6(0.0..300.0_f64), level in 0..LEVELS, more in 1.0..50.0_f64,
        ) {
            let cohort = [0.7, 0.1, 0.1, 0.05, 0.04, 0.01];
            let thief = [0.05, 0.03, 0.10, 0.05, 0.42, 0.35];
            let mut richer = own;
            richer[level] += more;
            let before = level_ratio(level, &thief, &own, &cohort);
            let after = level_ratio(level, &thief, &richer, &cohort);
            prop_assert!(before.ratio.is_finite() && (0.0..=1.0).contains(&before.p_value));
            // Up to 30 visits more of the same make surer; beyond them only their share counts.
            if own.iter().sum::<f64>() >= 30.0 || own.iter().sum::<f64>() == 0.0 {
                prop_assert!(after.ratio <= before.ratio + 1e-9);
            }
        }
    }
}
