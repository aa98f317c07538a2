//! Thresholds and rates: the threshold for a budget of false positives, and the cases above it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evidence::interval;

/// Number of bootstrap samples.
const DRAWS: usize = 1_000;

/// Highest legitimate scores, from which thresholds are computed.
#[derive(Clone, Debug)]
pub struct Bars {
    /// In descending order.
    maxima: Vec<f32>,
    token_days: usize,
}

/// A threshold and its cost. A score alerts if it lies *above* the threshold, so equal scores have equal results, and
/// the threshold for a budget never costs more than the budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    pub score: f32,
    /// Legitimate maxima above it.
    pub false_alerts: usize,
}

impl Bars {
    /// `maxima`: one per token-day, or one per cause if several token-days have the same cause.
    #[must_use]
    pub fn new(mut maxima: Vec<f32>, token_days: usize) -> Self {
        maxima.sort_unstable_by(|a, b| b.total_cmp(a));
        Self { maxima, token_days }
    }

    /// The lowest threshold with at most `budget` false positives per 1,000 token-days.
    #[must_use]
    pub fn at_budget(&self, budget: f64) -> Bar {
        // The small addition corrects rounding: 0.1 · 30 is less than 3 in binary.
        let allowed = (budget * self.token_days as f64 / 1_000.0 + 1e-9) as usize;
        self.at(self.maxima.get(allowed).copied().unwrap_or(f32::NEG_INFINITY))
    }

    /// The cost of a given threshold.
    #[must_use]
    pub fn at(&self, score: f32) -> Bar {
        Bar { score, false_alerts: self.maxima.partition_point(|highest| *highest > score) }
    }

    #[must_use]
    pub const fn token_days(&self) -> usize {
        self.token_days
    }

    /// False positives per 1,000 token-days.
    #[must_use]
    pub fn rate(&self, bar: Bar) -> f64 {
        bar.false_alerts as f64 * 1_000.0 / self.token_days.max(1) as f64
    }
}

/// The highest score of each theft, by scenario. A campaign is one theft.
pub type Thefts<'a> = BTreeMap<&'a str, Vec<f32>>;

/// A share with its 95 % interval; all three from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    pub share: f64,
    pub low: f64,
    pub high: f64,
}

/// Mean over the scenarios of the share of thefts above `bar`; 0 without thefts.
#[must_use]
pub fn macro_recall(thefts: &Thefts<'_>, bar: f32) -> f64 {
    mean(thefts.values().map(|scores| recall(scores, bar)))
}

/// Share of `scores` above `bar`.
#[must_use]
pub fn recall(scores: &[f32], bar: f32) -> f64 {
    caught(scores, bar) as f64 / scores.len().max(1) as f64
}

/// Number of `scores` above `bar`.
fn caught(scores: &[f32], bar: f32) -> usize {
    scores.iter().filter(|score| **score > bar).count()
}

/// Macro recall with the 2.5th and 97.5th percentile of bootstrap samples (Efron, 1979). Each sample draws, in each
/// scenario, as many thefts as there are, with repetition. The threshold is fixed. The same seed gives the same
/// interval.
#[must_use]
pub fn macro_recall_interval(thefts: &Thefts<'_>, bar: f32, seed: u64) -> Share {
    let mut random = SplitMix(seed);
    let mut draws: Vec<f64> = (0..DRAWS)
        .map(|_| {
            mean(thefts.values().map(|scores| {
                let drawn = (0..scores.len()).filter(|_| scores[random.below(scores.len())] > bar).count();
                drawn as f64 / scores.len().max(1) as f64
            }))
        })
        .collect();
    draws.sort_unstable_by(f64::total_cmp);
    let share = macro_recall(thefts, bar);
    Share { share, low: draws[DRAWS / 40], high: draws[DRAWS - 1 - DRAWS / 40] }
}

/// `count` of `total` with its exact interval. Without observations, the interval is that of all shares.
#[must_use]
pub fn proportion(count: usize, total: usize) -> Share {
    let (low, high) = interval(count as u64, total as u64).unwrap_or((0.0, 1.0));
    Share { share: count as f64 / total.max(1) as f64, low, high }
}

/// The value below which `share` of the sorted `values` lie, by nearest rank; `None` without values.
#[must_use]
pub fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count.max(1))
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
struct SplitMix(u64);

impl SplitMix {
    /// A number from 0 to less than `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * end as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is(share: f64, expected: f64) -> bool {
        (share - expected).abs() < 1e-9
    }

    #[test]
    fn threshold_costs_at_most_its_budget() {
        // 1,000 token-days with maxima 0 to 999.
        let bars = Bars::new((0..1_000_u16).map(f32::from).collect(), 1_000);
        assert_eq!(bars.at_budget(1.0), Bar { score: 998.0, false_alerts: 1 });
        assert_eq!(bars.at_budget(5.0), Bar { score: 994.0, false_alerts: 5 });
        assert_eq!(bars.at_budget(0.5), Bar { score: 999.0, false_alerts: 0 });
        assert_eq!(bars.at_budget(1_000.0), Bar { score: f32::NEG_INFINITY, false_alerts: 1_000 });
        assert!(is(bars.rate(bars.at(989.5)), 10.0));
    }

    #[test]
    fn equal_maxima_alert_together_or_not_at_all() {
        let mut maxima = vec![5.0; 10];
        maxima.extend(vec![1.0; 990]);
        let bars = Bars::new(maxima, 1_000);
        assert_eq!(bars.at_budget(5.0), Bar { score: 5.0, false_alerts: 0 });
        assert_eq!(bars.at_budget(10.0), Bar { score: 1.0, false_alerts: 10 });
        assert_eq!(bars.at_budget(20.0), Bar { score: 1.0, false_alerts: 10 });
    }

    #[test]
    fn threshold_without_legitimate_events_is_lowest() {
        let bars = Bars::new(Vec::new(), 0);
        assert_eq!(bars.at_budget(1.0), Bar { score: f32::NEG_INFINITY, false_alerts: 0 });
        assert!(is(bars.rate(bars.at_budget(1.0)), 0.0));
    }

    #[test]
    fn macro_recall_weights_scenarios_equally() {
        let thefts = Thefts::from([("campaign", vec![9.0]), ("insider", vec![1.0, 2.0, 3.0, 4.0])]);
        // 1 of 1 and 2 of 4; a score at the threshold is not above it.
        assert!(is(macro_recall(&thefts, 2.0), 0.75));
        assert!(is(macro_recall(&thefts, 9.0), 0.0));
        assert!(is(macro_recall(&Thefts::new(), 0.0), 0.0));
    }

    #[test]
    fn interval_contains_the_share_and_repeats() {
        let thefts = Thefts::from([("a", (0..40_u8).map(f32::from).collect())]);
        let interval = macro_recall_interval(&thefts, 19.5, 7);
        assert!(is(interval.share, 0.5));
        // The standard error of 40 even draws is 0.079: the interval is about 0.5 ± 0.155 wide.
        assert!((0.30..0.40).contains(&interval.low) && (0.60..0.70).contains(&interval.high), "{interval:?}");
        assert_eq!(interval, macro_recall_interval(&thefts, 19.5, 7));
        // A single campaign gives a single value, so its share does not vary.
        let campaign = macro_recall_interval(&Thefts::from([("campaign", vec![9.0])]), 1.0, 7);
        assert_eq!(campaign, Share { share: 1.0, low: 1.0, high: 1.0 });
    }

    #[test]
    fn proportion_of_nothing_is_unknown() {
        assert_eq!(proportion(0, 0), Share { share: 0.0, low: 0.0, high: 1.0 });
        let half = proportion(5, 10);
        assert!(
            is(half.share, 0.5) && (0.18..0.19).contains(&half.low) && (0.81..0.82).contains(&half.high),
            "{half:?}"
        );
    }

    #[test]
    fn percentile_is_one_of_the_values() {
        assert_eq!(percentile(&[1.0, 2.0, 3.0, 10.0], 0.5), Some(2.0));
        assert_eq!(percentile(&[1.0, 2.0, 3.0, 10.0], 0.9), Some(10.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    proptest! {
        #[test]
        fn larger_budget_never_detects_less(
            maxima in prop::collection::vec((-8_i8..12).prop_map(f32::from), 1..300),
            scores in prop::collection::vec((-8_i8..12).prop_map(f32::from), 1..30),
            mut budgets in prop::collection::vec(0.0..1_200_f64, 2..6),
        ) {
            let bars = Bars::new(maxima.clone(), maxima.len());
            let thefts = Thefts::from([("only", scores)]);
            budgets.sort_by(f64::total_cmp);
            let mut before = 0.0;
            for budget in budgets {
                let bar = bars.at_budget(budget);
                prop_assert!(bars.rate(bar) <= budget.min(1_000.0) + 1e-6);
                prop_assert_eq!(bar.false_alerts, maxima.iter().filter(|score| **score > bar.score).count());
                let caught = macro_recall(&thefts, bar.score);
                prop_assert!(caught >= before);
                before = caught;
            }
        }
    }
}
