//! Calibration: log-odds against shares of thefts, p-values against shares of legitimate visits.
//!
//! The unit is a visit, as in scoring: same address and user agent, gaps below 30 minutes. A visit counts with its
//! highest log-odds and its lowest p-value, because these decide the verdict.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::observation::Observation;
use crate::enrichment::Device;
use crate::event::{BaselineId, TokenType};

/// p-values at which the observed share is compared with the nominal one.
pub const NOMINAL: [f64; 3] = [1e-2, 1e-3, 1e-4];

/// A gap that ends a visit, in milliseconds.
const GAP_MS: i64 = 1_800_000;
/// Interval in event time, in milliseconds, at which ended visits are removed from memory.
const SWEEP_MS: i64 = 4 * GAP_MS;
/// Log-odds outside of this range count in the outermost bin.
const Z_MIN: i32 = -12;
const Z_MAX: i32 = 20;

const DEVICES: [Device; 4] = [Device::Desktop, Device::Mobile, Device::Machine, Device::Unknown];

/// Counts over visits, filled event by event.
#[derive(Debug)]
pub struct Calibration {
    open: HashMap<BaselineId, SmallVec<[Visit; 1]>>,
    swept_at: i64,
    bins: [Bin; (Z_MAX - Z_MIN) as usize],
    cohorts: [[Tail; DEVICES.len()]; TokenType::ALL.len()],
}

#[derive(Clone, Copy, Debug)]
struct Visit {
    holder: u64,
    theft: bool,
    last_at: i64,
    log_odds: f64,
    p_value: f64,
    token_type: TokenType,
    device: Device,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    honest: u64,
    theft: u64,
    /// In millionths. Sums of integers do not depend on the order in which visits end.
    log_odds_sum: i64,
}

/// Number of legitimate visits, and how many of them had a p-value of at most each of [`NOMINAL`].
#[derive(Clone, Copy, Debug, Default)]
struct Tail {
    visits: u64,
    at_most: [u64; NOMINAL.len()],
}

/// Visits with similar log-odds: the observed and the expected share of thefts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZBin {
    /// Lower end of a bin one nat wide. The outermost bins include all values beyond them.
    pub from: i32,
    pub honest: u64,
    pub theft: u64,
    /// Share of thefts, 0 to 1.
    pub observed: f64,
    /// σ(mean log-odds − prior of scoring + log-odds of theft in this set), 0 to 1.
    pub expected: f64,
}

/// p-values of the legitimate visits of one cohort.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PTail {
    /// Token type and device; `all` for all visits.
    pub cohort: String,
    pub visits: u64,
    /// For each of [`NOMINAL`]: the share of visits with a p-value of at most that, divided by it. 1 is calibrated.
    pub observed_over_nominal: [f64; NOMINAL.len()],
}

impl Default for Calibration {
    fn default() -> Self {
        Self {
            open: HashMap::new(),
            swept_at: i64::MIN,
            bins: [Bin::default(); (Z_MAX - Z_MIN) as usize],
            cohorts: [[Tail::default(); DEVICES.len()]; TokenType::ALL.len()],
        }
    }
}

impl Calibration {
    /// Adds an event to its visit.
    pub fn add(&mut self, seen: &Observation) {
        let theft = seen.is_theft();
        let Self { open, bins, cohorts, .. } = self;
        let visits = open.entry(seen.baseline).or_default();
        visits.retain(|visit| {
            let going_on = seen.at - visit.last_at < GAP_MS;
            if !going_on {
                visit.close(bins, cohorts);
            }
            going_on
        });
        match visits.iter_mut().find(|visit| visit.holder == seen.holder && visit.theft == theft) {
            Some(visit) => {
                visit.last_at = visit.last_at.max(seen.at);
                visit.log_odds = visit.log_odds.max(seen.log_odds);
                visit.p_value = visit.p_value.min(seen.p_value);
            }
            None => visits.push(Visit {
                holder: seen.holder,
                theft,
                last_at: seen.at,
                log_odds: seen.log_odds,
                p_value: seen.p_value,
                token_type: seen.token_type,
                device: seen.device,
            }),
        }
        // The absolute difference, so that one event from the far future does not stop the removal.
        if seen.at.abs_diff(self.swept_at) >= SWEEP_MS as u64 {
            self.swept_at = seen.at;
            self.close_before(seen.at - GAP_MS);
        }
    }

    /// Counts the visits that are still open.
    pub fn finish(&mut self) {
        self.close_before(i64::MAX);
    }

    /// One line for each bin with a visit. `prior`: prior log-odds of scoring.
    #[must_use]
    pub fn z(&self, prior: f64) -> Vec<ZBin> {
        let (honest, theft) = self.bins.iter().fold((0, 0), |(h, t), bin| (h + bin.honest, t + bin.theft));
        // Half a visit is added to each class, so that an empty class stays finite.
        let set = ((theft as f64 + 0.5) / (honest as f64 + 0.5)).ln();
        let bins = self.bins.iter().enumerate().filter(|(_, bin)| bin.honest + bin.theft > 0);
        bins.map(|(index, bin)| {
            let visits = (bin.honest + bin.theft) as f64;
            let log_odds = bin.log_odds_sum as f64 / 1e6 / visits - prior + set;
            ZBin {
                from: Z_MIN + index as i32,
                honest: bin.honest,
                theft: bin.theft,
                observed: bin.theft as f64 / visits,
                expected: 1.0 / (1.0 + (-log_odds).exp()),
            }
        })
        .collect()
    }

    /// All legitimate visits, then each cohort that has any.
    #[must_use]
    pub fn p(&self) -> Vec<PTail> {
        let mut all = Tail::default();
        let mut cohorts = Vec::new();
        for (token_type, by_device) in TokenType::ALL.iter().zip(&self.cohorts) {
            for (device, tail) in DEVICES.iter().zip(by_device) {
                all.add(tail);
                if tail.visits > 0 {
                    cohorts.push(tail.summary(format!("{} {}", token_type.as_str(), device.as_str())));
                }
            }
        }
        cohorts.insert(0, all.summary("all".to_owned()));
        cohorts
    }

    fn close_before(&mut self, end: i64) {
        let Self { open, bins, cohorts, .. } = self;
        open.retain(|_, visits| {
            visits.retain(|visit| {
                let going_on = visit.last_at > end;
                if !going_on {
                    visit.close(bins, cohorts);
                }
                going_on
            });
            !visits.is_empty()
        });
    }
}

impl Visit {
    fn close(
        &self,
        bins: &mut [Bin; (Z_MAX - Z_MIN) as usize],
        cohorts: &mut [[Tail; DEVICES.len()]; TokenType::ALL.len()],
    ) {
        let bin = (self.log_odds.floor() as i32).clamp(Z_MIN, Z_MAX - 1) - Z_MIN;
        let bin = &mut bins[bin as usize];
        bin.log_odds_sum += (self.log_odds * 1e6).round() as i64;
        if self.theft {
            bin.theft += 1;
            return;
        }
        bin.honest += 1;
        let tail = &mut cohorts[self.token_type as usize][self.device as usize];
        tail.visits += 1;
        for (count, nominal) in tail.at_most.iter_mut().zip(NOMINAL) {
            *count += u64::from(self.p_value <= nominal);
        }
    }
}

impl Tail {
    fn add(&mut self, other: &Self) {
        self.visits += other.visits;
        for (sum, count) in self.at_most.iter_mut().zip(other.at_most) {
            *sum += count;
        }
    }

    fn summary(&self, cohort: String) -> PTail {
        let visits = self.visits.max(1) as f64;
        let observed_over_nominal = std::array::from_fn(|at| self.at_most[at] as f64 / visits / NOMINAL[at]);
        PTail { cohort, visits: self.visits, observed_over_nominal }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{honest, theft};
    use super::*;
    use crate::millis::MINUTE_MS;

    #[test]
    fn visit_counts_once_with_its_extremes() {
        let mut calibration = Calibration::default();
        let seen = |minute: i64, log_odds: f64, p_value: f64, holder: u64| Observation {
            log_odds,
            p_value,
            holder,
            ..honest(1, minute * MINUTE_MS, 0.0)
        };
        calibration.add(&seen(0, -3.5, 0.5, 1));
        calibration.add(&seen(10, -5.5, 0.001, 1));
        calibration.add(&seen(29, -5.5, 0.5, 1));
        calibration.add(&seen(30, -6.5, 0.9, 2));
        calibration.add(&seen(59, -6.5, 1.0, 1));
        calibration.finish();
        let bins = calibration.z(-7.0);
        assert_eq!(bins.iter().map(|bin| (bin.from, bin.honest)).collect::<Vec<_>>(), [(-7, 2), (-4, 1)]);
        let tails = calibration.p();
        assert_eq!((tails[0].visits, tails[1].cohort.as_str()), (3, "access desktop"));
        // One of three visits at 1e-3: a share of a third, divided by 0.001.
        let [at_100, at_1000, at_10000] = tails[0].observed_over_nominal;
        assert!((at_100 - 100.0 / 3.0).abs() < 1e-9 && (at_1000 - 1000.0 / 3.0).abs() < 1e-9 && at_10000.abs() < 1e-9);
    }

    #[test]
    fn expected_share_uses_the_prior_of_the_set() {
        let mut calibration = Calibration::default();
        for number in 0..100_i64 {
            let baseline = number as u64;
            let seen = if number % 4 == 0 { theft(baseline, 0, 0.0, 0) } else { honest(baseline, 0, 0.0) };
            calibration.add(&Observation { log_odds: -7.0, ..seen });
        }
        calibration.finish();
        let bins = calibration.z(-7.0);
        assert_eq!(bins.len(), 1);
        assert!((bins[0].observed - 0.25).abs() < 1e-9);
        assert!((bins[0].expected - 0.25).abs() < 0.005, "{}", bins[0].expected);
    }

    #[test]
    fn calibration_forgets_ended_visits() {
        let mut calibration = Calibration::default();
        for number in 0..1_000 {
            calibration.add(&honest(number as u64, number * 10 * MINUTE_MS, 0.0));
        }
        assert!(calibration.open.len() < 20, "{}", calibration.open.len());
    }
}
