//! `volume`: calls, objects and bytes of the running hour. Evaluated when a count doubles, to detect a burst while it
//! runs.

use crate::math::{exp, ln, ln_beta, student_tail};

/// Assumed bursts of thieves: half-normal distribution from 0.5 nats above the owner's mean, with this deviation.
const THIEF_SPREAD: f64 = 1.8;
const THIEF_FROM: f64 = 0.5;
/// Weight of the larger of calls and objects, and maximum of the evidence.
const WEIGHT: f64 = 1.0;
const MAX: f64 = 14.0;
/// Weight of bytes. A large download is usually also a rare route, so the evidence is not independent.
pub(crate) const BYTES_WEIGHT: f64 = 0.5;
/// Evidence from which an hour is a burst, nats.
pub(crate) const BURST: f64 = 1.0;
/// Share of the evidence that the next hour keeps.
pub(crate) const LATER_HOUR: f64 = 0.7;
/// Effective number of past hours in the owner's habit.
pub(crate) const CALL_HOURS_MAX: f64 = 100.0;
pub(crate) const OBJECT_HOURS_MAX: f64 = 40.0;

/// Evidence of an hourly count against the owner's habit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Burst {
    /// Nats, ≥ 0.
    pub(crate) ratio: f64,
    /// Distance above the owner's mean in deviations (0: not above), and degrees of freedom of the estimate.
    t: f64,
    freedom: f64,
}

impl Burst {
    /// The owner's probability of an hour at least as large. Expensive: computed for reported bursts only.
    pub(crate) fn p_value(&self) -> f64 {
        if self.t > 0.0 { student_tail(self.t, self.freedom) } else { 1.0 }
    }
}

/// `l = ½(n+4)·ln(1 + y²/(n+3)) − ½(max(0, x−m−0.5)/1.8)² − ½`, ≥ 0, for `y = (x−m)/(s·√(1 + 1/(n+3))) > 1`: the tail
/// of Student's t, which is wide if few hours are known, against the thief's half-normal distribution. The variance is
/// at least that of the logarithm of a Poisson count.
///
/// `count`: count of the hour so far; `mean`, `variance`: of the logarithm of the owner's hourly counts, with the season
/// of the hour added; `hours`: n.
pub(crate) fn evidence(count: f64, mean: f64, variance: f64, hours: f64) -> Burst {
    let x = ln(count.max(1.0));
    let freedom = hours + 3.0;
    if x <= mean {
        return Burst { ratio: 0.0, t: 0.0, freedom };
    }
    let t = (x - mean) / margin(mean, variance, hours);
    if t <= 1.0 {
        return Burst { ratio: 0.0, t, freedom };
    }
    let owner = 0.5 * (freedom + 1.0) * ln(1.0 + t * t / freedom);
    let beyond = (x - mean - THIEF_FROM).max(0.0) / THIEF_SPREAD;
    Burst { ratio: (owner - 0.5 * beyond * beyond - 0.5).max(0.0), t, freedom }
}

/// The largest count for which [`evidence`] gives no evidence.
pub(crate) fn usual(mean: f64, variance: f64, hours: f64) -> f64 {
    exp(mean + margin(mean, variance, hours))
}

/// `s·√(1 + 1/(n+3))`
fn margin(mean: f64, variance: f64, hours: f64) -> f64 {
    let deviation = libm::sqrt(variance.max(0.04 + 0.5 * exp(-mean.max(0.0))));
    deviation * libm::sqrt(1.0 + 1.0 / (hours + 3.0))
}

/// Evidence of the hour, in 0 to 14: the larger of calls and distinct objects, plus the evidence of [`reads`].
pub(crate) fn sum(calls: f64, objects: f64, reads: f64) -> f64 {
    let larger = calls.max(objects);
    (WEIGHT * larger + reads * (larger / 3.0).min(1.0)).clamp(0.0, MAX)
}

/// Number of calls, and of reads among them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reads {
    pub(crate) reads: f64,
    pub(crate) calls: f64,
}

/// Evidence of the share of reads, in [−1, 1]: the reads of the `hour` under the thief's beta-binomial distribution
/// (9, ½) against the owner's. The owner's parameters count at most 50 of the `own` calls and 2 calls of the cohort.
///
/// `cohort`: the cohort's share of reads.
pub(crate) fn reads(hour: Reads, own: Reads, cohort: f64) -> f64 {
    let known = own.calls.min(50.0);
    let share = if own.calls > 0.0 { (own.reads / own.calls).clamp(0.0, 1.0) } else { cohort };
    let (a, b) = (known * share + 2.0 * cohort + 0.1, known * (1.0 - share) + 2.0 * (1.0 - cohort) + 0.1);
    let fit = |a: f64, b: f64| ln_beta(a + hour.reads, b + (hour.calls - hour.reads).max(0.0)) - ln_beta(a, b);
    (fit(9.0, 0.5) - fit(a, b)).clamp(-1.0, 1.0)
}

/// Input of [`shared`]: signs of an honest cause of a burst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Causes {
    /// Share of token-days with a burst at least as large.
    pub(crate) usual: f64,
    /// The largest of 1 and today's rates of bursts over the usual ones, of the tenant and of the population.
    pub(crate) excess: f64,
    /// Probability of an honest cause by the date: [`RECURRING`], [`MONTH_BEGINS`] or 0.
    pub(crate) by_date: f64,
}

/// Probability of an honest cause if the token's last burst was whole weeks or a month ago.
pub(crate) const RECURRING: f64 = 0.3;
/// Probability of an honest cause when a month begins, because reports and invoices are due then. The first bursts of
/// the day come before others show that it has many.
pub(crate) const MONTH_BEGINS: f64 = 0.05;

/// Reduction for shared causes: `l ← −ln[(1−ρ)·e^−l + ρ/2]`. ρ is the probability of an honest cause today: the share
/// of token-days with a burst as large, times today's excess of bursts. It is at least the probability by the date.
pub(crate) fn shared(ratio: f64, causes: &Causes) -> f64 {
    if ratio <= 0.0 {
        return 0.0;
    }
    let cause = (causes.usual * causes.excess.max(1.0)).max(causes.by_date).clamp(0.0, 0.7);
    (-ln((1.0 - cause) * exp(-ratio) + 0.5 * cause)).max(0.0)
}

/// Whether a burst today recurs after whole weeks or a month.
pub(crate) const fn is_recurring(day: u32, last_burst_day: u32) -> bool {
    if last_burst_day == 0 || last_burst_day >= day {
        return false;
    }
    let days = day - last_burst_day;
    days.is_multiple_of(7) || days >= 27 && days <= 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn burst_is_compared_with_the_owners_hours() {
        // m = ln 12, s² = 0.2, n = 100: y = ln(125)/√(0.2·1.0097).
        let mean = 12.0_f64.ln();
        let y = (1_500.0_f64.ln() - mean) / (0.2_f64 * (1.0 + 1.0 / 103.0)).sqrt();
        let beyond = (1_500.0_f64.ln() - mean - 0.5) / 1.8;
        let expected = 52.0 * (1.0 + y * y / 103.0).ln() - 0.5 * beyond * beyond - 0.5;
        assert!((evidence(1_500.0, mean, 0.2, 100.0).ratio - expected).abs() < 1e-9);
        assert!(evidence(18.0, mean, 0.02, 100.0).ratio < 0.6, "1.5 times the usual count");
    }

    #[test]
    fn few_known_hours_widen_the_margin() {
        let mean = 12.0_f64.ln();
        assert!(evidence(200.0, mean, 0.5, 1.0).ratio < evidence(200.0, mean, 0.5, 50.0).ratio);
    }

    #[test]
    fn reads_favour_thief_if_owner_also_writes() {
        let all = |calls| Reads { reads: calls, calls };
        let half = |calls| Reads { reads: 0.5 * calls, calls };
        assert!(reads(all(200.0), half(50.0), 0.5) > 0.9, "an owner with 50 % writes");
        assert!(reads(half(40.0), half(50.0), 0.5) < 0.0);
        assert!(reads(all(200.0), all(50.0), 0.9) < 0.0, "an owner who only reads");
    }

    #[test]
    fn shared_burst_has_an_honest_cause() {
        let single = Causes { usual: 0.001, excess: 1.0, by_date: 0.0 };
        let alone = shared(8.0, &single);
        let together = shared(8.0, &Causes { usual: 0.01, excess: 60.0, ..single });
        let monthly = shared(8.0, &Causes { by_date: RECURRING, ..single });
        let first = shared(8.0, &Causes { by_date: MONTH_BEGINS, ..single });
        assert!(alone > 6.5 && together < 1.5 && monthly < 2.0, "{alone} {together} {monthly}");
        assert!(first > 3.0 && first < 4.0, "{first}");
        assert!(shared(0.0, &Causes { usual: 0.5, excess: 1.0, by_date: RECURRING }).abs() < 1e-12, "no burst");
        for (day, last, expected) in
            [(100, 93, true), (100, 70, true), (100, 99, false), (100, 0, false), (5, 12, false)]
        {
            assert_eq!(is_recurring(day, last), expected, "{last} to {day}");
        }
    }

    proptest! {
        #[test]
        fn usual_count_gives_no_evidence(mean in 0.0..12.0_f64, variance in 0.0..9.0_f64, hours in 0.0..100.0_f64) {
            let usual = usual(mean, variance, hours);
            prop_assert!(evidence(0.999 * usual, mean, variance, hours).t <= 1.0);
            prop_assert!(evidence(1.001 * usual, mean, variance, hours).t > 1.0);
        }

        #[test]
        fn evidence_rises_with_the_burst(
            above in 0.0..3.5_f64, more in 1.0..4.0_f64, mean in 1.0..8.0_f64, variance in 0.0..0.8_f64, hours in 30.0..100.0_f64,
        ) {
            // For still larger bursts the evidence falls, but the hour keeps its maximum.
            let count = exp(mean + above);
            let one = evidence(count, mean, variance, hours);
            prop_assert!(evidence(count * more, mean, variance, hours).ratio >= one.ratio - 1e-9);
            prop_assert!(one.ratio.is_finite() && (0.0..=1.0).contains(&one.p_value()));
        }

        #[test]
        fn sum_is_within_its_bounds(calls in 0.0..1e3_f64, objects in 0.0..1e3_f64, r in -1.0..1.0_f64) {
            prop_assert!((0.0..=14.0).contains(&sum(calls, objects, r)));
        }
    }
}
