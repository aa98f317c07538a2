//! Rates that are learnt.

use serde::{Deserialize, Serialize};

use super::shared::Separate;
use super::tenants::Seat;

/// Chances from which a rate that follows changes forgets half of them.
const LATELY_MAX: f64 = 2_000.0;

/// Rate of an occurrence, as two sums of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rate {
    happened: f64,
    chances: f64,
}

impl Rate {
    /// Learns a chance. `share`: how much of it happened, 0 to 1.
    pub(crate) fn learn(&mut self, share: f64, weight: f64) {
        self.learn_occurrence(weight * share);
        self.learn_chance(weight);
    }

    /// The same for a rate that follows a change within some 2,000 chances.
    pub(crate) fn learn_lately(&mut self, share: f64, weight: f64) {
        if self.chances >= LATELY_MAX {
            (self.happened, self.chances) = (0.5 * self.happened, 0.5 * self.chances);
        }
        self.learn(share, weight);
    }

    /// Learns an occurrence whose chance is learnt apart.
    pub(crate) fn learn_occurrence(&mut self, weight: f64) {
        self.happened += weight;
    }

    /// Learns a chance whose occurrences are learnt apart.
    pub(crate) fn learn_chance(&mut self, weight: f64) {
        self.chances += weight;
    }

    /// The rate after adding `weight` chances of the assumed rate.
    #[must_use]
    pub(crate) fn get(self, assumed: f64, weight: f64) -> f64 {
        (self.happened + weight * assumed) / (self.chances + weight)
    }

    #[must_use]
    pub(crate) const fn happened(self) -> f64 {
        self.happened
    }

    #[must_use]
    pub(crate) const fn chances(self) -> f64 {
        self.chances
    }
}

/// A rate of each tenant.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Rates(Separate<2>);

impl Rates {
    pub(crate) fn learn(&mut self, seat: Option<Seat>, happened: bool, weight: f64) {
        if let Some(seat) = seat {
            self.0.learn(seat, &[if happened { weight } else { 0.0 }, weight]);
        }
    }

    #[must_use]
    pub(crate) fn read(&self, seat: Option<Seat>) -> Rate {
        let [happened, chances] = self.0.read(seat);
        Rate { happened, chances }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_starts_from_the_assumed_one() {
        let mut rate = Rate::default();
        assert!((rate.get(0.05, 10.0) - 0.05).abs() < 1e-12);
        rate.learn(1.0, 0.5);
        rate.learn(0.0, 9.5);
        assert!((rate.get(0.05, 10.0) - 1.0 / 20.0).abs() < 1e-12);
    }

    /// A producer that stops to report keys: requests without a key become usual within days, not never.
    #[test]
    fn rate_follows_a_change_after_any_past() {
        let mut rate = Rate::default();
        (0..1_000_000).for_each(|_| rate.learn_lately(0.0, 1.0));
        (0..2_000).for_each(|_| rate.learn_lately(1.0, 1.0));
        let after = rate.get(0.05, 10.0);
        assert!(after > 0.45, "{after}");
        // The same with the lowest weight that learning gives to suspicious visits.
        (0..1_000_000).for_each(|_| rate.learn_lately(0.0, 1.0));
        (0..20_000).for_each(|_| rate.learn_lately(1.0, 0.03));
        let slowly = rate.get(0.05, 10.0);
        assert!(slowly > 0.2, "{slowly}");
    }
}
