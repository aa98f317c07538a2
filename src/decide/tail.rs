//! Distribution of the highest log-odds of honest visits. It gives p-values and the threshold that spends the budget.

use serde::{Deserialize, Serialize};

use crate::math::{exp, ln, sigma};

const LOWEST: f64 = -16.0;
const HIGHEST: f64 = 24.0;
const BINS_A_NAT: f64 = 8.0;
const BINS: usize = ((HIGHEST - LOWEST) * BINS_A_NAT) as usize;

/// The highest visits, this share and at most this number, are fitted instead of counted.
const FITTED_SHARE: f64 = 0.02;
const FITTED_VISITS: f64 = 200.0;
/// Effective number of visits: enough for p-values of a few millionths.
const REMEMBERED_VISITS: f64 = 200_000.0;
/// Visits between two fits.
const REFIT_VISITS: u64 = 256;
/// Visits before the first fit.
const FIT_VISITS_MIN: u64 = 1_000;

/// Factor on the highest log-odds of a visit, which overstate because they are the highest of many. A logistic fit of
/// thefts gives 0.47 (`docs/decisions/0019-down-weighting-suspicious-visits.md`).
const TRUE: f64 = 0.5;

/// A histogram of the highest log-odds of visits, weighted by the probability that the visit was honest. Beyond the
/// 98th percentile or the highest 200 visits it is a generalised Pareto distribution (Pickands 1975), fitted by moments
/// (Hosking and Wallis 1987).
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Tail {
    bins: Vec<f64>,
    /// Share of visits in each bin and above, as of the last fit. P-values are read from it.
    above: Vec<f64>,
    total: f64,
    visits: u64,
    /// Smallest p-value that the number of visits supports.
    least: f64,
    fit: Option<Fit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Fit {
    /// Begin of the fitted part, nats, and share of visits beyond it.
    from: f64,
    share: f64,
    shape: f64,
    scale: f64,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            bins: vec![0.0; BINS],
            // Without visits, each p-value is 1.
            above: vec![1.0; BINS + 1],
            total: 0.0,
            visits: 0,
            least: least(0),
            fit: None,
        }
    }
}

impl Tail {
    /// Number of visits.
    pub(crate) const fn visits(&self) -> u64 {
        self.visits
    }

    /// Probability that a visit with these highest log-odds was honest: its weight.
    pub(crate) fn honest(log_odds: f64) -> f64 {
        sigma(-TRUE * log_odds)
    }

    /// The tail of the visits of several tails.
    pub(crate) fn of_all<'a>(tails: impl Iterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        for tail in tails {
            all.bins.iter_mut().zip(&tail.bins).for_each(|(all, weight)| *all += weight);
            all.visits += tail.visits;
        }
        all.least = least(all.visits);
        all.update();
        all
    }

    /// Learns a visit. Returns whether p-values now include all visits.
    pub(crate) fn learn(&mut self, log_odds: f64, weight: f64) -> bool {
        self.bins[bin(log_odds)] += weight;
        self.visits += 1;
        self.least = least(self.visits);
        // More frequent at the beginning.
        let is_due = self.visits.is_multiple_of(REFIT_VISITS);
        let is_due = is_due || self.visits < REFIT_VISITS && self.visits.is_power_of_two();
        if is_due {
            self.update();
        }
        is_due
    }

    /// Share of honest visits with log-odds at least as high, in (0, 1], with the smallest supported p-value as
    /// minimum.
    pub(crate) fn p_value(&self, log_odds: f64) -> f64 {
        let p_value = match self.fit {
            Some(fit) if log_odds > fit.from => fit.beyond(log_odds),
            _ => self.counted(log_odds),
        };
        p_value.clamp(self.least, 1.0)
    }

    /// Log-odds that this share of honest visits reaches.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        // The p-value decreases with the log-odds: bisect down to the width of a bin.
        let (mut low, mut high) = (LOWEST, HIGHEST);
        for _ in 0..12 {
            let middle = 0.5 * (low + high);
            if self.p_value(middle) > share { low = middle } else { high = middle }
        }
        high
    }

    fn counted(&self, log_odds: f64) -> f64 {
        let at = bin(log_odds);
        let above = self.above[at + 1];
        // Linear within the bin.
        let passed = ((log_odds - LOWEST) * BINS_A_NAT - at as f64).clamp(0.0, 1.0);
        above + (1.0 - passed) * (self.above[at] - above)
    }

    fn update(&mut self) {
        // Older visits decay, because the population becomes better known.
        if self.total > REMEMBERED_VISITS {
            let kept = REMEMBERED_VISITS / self.total;
            self.bins.iter_mut().for_each(|weight| *weight *= kept);
        }
        self.total = self.bins.iter().sum();
        if self.total <= 0.0 {
            return;
        }
        let mut above = 0.0;
        for (share, weight) in self.above.iter_mut().rev().skip(1).zip(self.bins.iter().rev()) {
            above += weight;
            *share = above / self.total;
        }
        self.above[BINS] = 0.0;
        if self.visits >= FIT_VISITS_MIN {
            self.fit = self.refit();
        }
    }

    fn refit(&self) -> Option<Fit> {
        let mut beyond = 0.0;
        let first = (0..BINS).rev().find(|at| {
            beyond += self.bins[*at];
            beyond >= (FITTED_SHARE * self.total).min(FITTED_VISITS)
        })?;
        let from = value(first + 1);
        let (mut weight, mut mean, mut square) = (0.0, 0.0, 0.0);
        for at in first + 1..BINS {
            let excess = value(at) + 0.5 / BINS_A_NAT - from;
            weight += self.bins[at];
            mean += self.bins[at] * excess;
            square += self.bins[at] * excess * excess;
        }
        if weight < 10.0 {
            return None;
        }
        mean /= weight;
        let variance = square / weight - mean * mean;
        let ratio = mean * mean / variance.max(1e-6);
        let shape = (0.5 * (1.0 - ratio)).clamp(-0.5, 0.5);
        Some(Fit { from, share: weight / self.total, shape, scale: (mean * (1.0 - shape)).max(0.05) })
    }
}

impl Fit {
    #[inline(never)] // Few log-odds are beyond.
    fn beyond(&self, log_odds: f64) -> f64 {
        let excess = (log_odds - self.from) / self.scale;
        if self.shape.abs() < 1e-3 {
            return self.share * exp(-excess);
        }
        self.share * exp(-ln((1.0 + self.shape * excess).max(1e-9)) / self.shape)
    }
}

fn bin(log_odds: f64) -> usize {
    // The cast saturates, and gives 0 for NaN. One to 64 bits takes more instructions.
    (((log_odds - LOWEST) * BINS_A_NAT) as u32 as usize).min(BINS - 1)
}

/// `0.3/(visits + 100)`, with the effective number of visits.
fn least(visits: u64) -> f64 {
    0.3 / ((visits as f64).min(REMEMBERED_VISITS) + 100.0)
}

fn value(bin: usize) -> f64 {
    LOWEST + bin as f64 / BINS_A_NAT
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tail of evenly spaced quantiles of an exponential distribution.
    fn exponential(visits: u64) -> Tail {
        let mut tail = Tail::default();
        for number in 0..visits {
            // 2^64/φ: a golden-ratio sequence is evenly distributed.
            let even = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1_u64 << 53) as f64;
            tail.learn(-9.0 - (1.0 - even).ln(), 1.0);
        }
        tail
    }

    #[test]
    fn p_value_is_the_share_of_higher_visits() {
        let tail = exponential(100_000);
        for reach in [1.0, 2.0, 4.0, 6.0, 8.0] {
            let (p_value, nominal) = (tail.p_value(-9.0 + reach), (-reach).exp());
            assert!((0.7..1.4).contains(&(p_value / nominal)), "{reach}: {p_value} against {nominal}");
        }
        assert!((tail.quantile(1e-3) - (-9.0 + 1_000_f64.ln())).abs() < 0.3);
    }

    #[test]
    fn weight_of_a_visit_uses_half_of_its_log_odds() {
        assert!((Tail::honest(0.0) - 0.5).abs() < 1e-12);
        // Odds of e^2.5, not e^5.
        assert!((Tail::honest(5.0) - 1.0 / (1.0 + 2.5_f64.exp())).abs() < 1e-12);
    }

    #[test]
    fn quantile_resists_a_few_high_visits() {
        let lifted = |odd: u64| {
            let mut tail = exponential(200_000);
            let before = tail.quantile(1e-3);
            (0..odd).for_each(|_| {
                tail.learn(4.5, Tail::honest(4.5));
            });
            tail.update();
            tail.quantile(1e-3) - before
        };
        let (few, many) = (lifted(100), lifted(2_000));
        assert!((0.0..0.2).contains(&few) && (2.5..3.5).contains(&many), "nats: {few} {many}");
    }

    #[test]
    fn p_value_of_few_visits_is_not_small() {
        let mut tail = Tail::default();
        assert!((tail.p_value(5.0) - 1.0).abs() < 1e-12);
        tail.learn(-9.0, 1.0);
        assert!((tail.p_value(20.0) - 0.3 / 101.0).abs() < 1e-12);
    }

    #[test]
    fn p_value_falls_with_the_log_odds() {
        let mut tail = exponential(5_000);
        for odd in [f64::NEG_INFINITY, f64::INFINITY, f64::MAX, -1e300, 1e300] {
            tail.learn(odd, 0.5);
        }
        let mut last = 1.0;
        for step in 0..400 {
            let p = tail.p_value(-16.0 + f64::from(step) * 0.1);
            assert!(p > 0.0 && p <= last + 1e-12, "at {step}: {p} after {last}");
            last = p;
        }
    }
}
