//! Period of a simulation, and activity over its weeks.

use crate::millis::{DAY_MS, HOUR_MS};
use jiff::Timestamp as Instant;
use jiff::tz::TimeZone;

use super::random::Random;

/// Level of detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Ordinary working days.
    Plain,
    /// Also hard cases: moves, migrations, outages, lost responses, quiet weeks.
    Full,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(crate) seed: u64,
    /// UTC midnight, milliseconds since the epoch.
    pub(crate) start: i64,
    pub(crate) days: i64,
    pub(crate) depth: Depth,
}

impl Span {
    pub(crate) fn moment(&self, random: &mut Random) -> i64 {
        self.start + random.within(0..self.days * DAY_MS)
    }

    /// Time of a change that a share of the actors have in a simulation of full depth.
    pub(crate) fn happens(&self, share: f64, random: &mut Random) -> Option<i64> {
        (self.depth == Depth::Full && random.chance(share)).then(|| self.moment(random))
    }
}

/// Weekly activity: some weeks are busy, a few nearly idle.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mood {
    week: i64,
    level: f64,
}

impl Mood {
    /// Activity relative to a usual week.
    pub(crate) fn on(&mut self, midnight: i64, depth: Depth, random: &mut Random) -> f64 {
        let week = midnight.div_euclid(7 * DAY_MS);
        if depth == Depth::Plain {
            return 1.0;
        }
        if week != self.week {
            self.week = week;
            self.level = if random.chance(0.06) { 0.06 } else { random.log_normal(0.9, 0.5) };
        }
        self.level
    }
}

/// Moves some of the moments close after the one before, with heavy-tailed gaps. Barabási, "The origin of bursts and
/// heavy tails in human dynamics", Nature 435, 2005, found exponents near 1.
pub(super) fn cluster(moments: &mut [i64], depth: Depth, random: &mut Random) {
    moments.sort_unstable();
    if depth == Depth::Plain {
        return;
    }
    for at in 1..moments.len() {
        if random.chance(0.4) {
            let gap = random.pareto(150_000.0, 0.9).min(3.0 * HOUR_MS as f64) as i64;
            moments[at] = moments[at].min(moments[at - 1] + gap);
        }
    }
    moments.sort_unstable();
}

/// Whether the day that begins at `midnight`, UTC, is the last of its month.
pub(super) fn ends_month(midnight: i64) -> bool {
    Instant::from_millisecond(midnight + DAY_MS).is_ok_and(|tomorrow| TimeZone::UTC.to_datetime(tomorrow).day() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().expect("RFC 3339").as_millisecond()
    }

    #[test]
    fn ends_month_is_true_on_last_days() {
        assert!(ends_month(at("2026-09-30T00:00:00Z")));
        assert!(ends_month(at("2028-02-29T00:00:00Z")));
        assert!(!ends_month(at("2028-02-28T00:00:00Z")));
        assert!(!ends_month(at("2026-10-01T00:00:00Z")));
    }

    #[test]
    fn clustered_gaps_are_bursty() {
        // Burstiness of Goh and Barabási, (σ − μ)/(σ + μ): 0 for a Poisson process, towards 1 for bursts.
        let mut random = Random::new(3, 3);
        let mut moments: Vec<i64> = (0..5_000).map(|_| random.within(0..90 * DAY_MS)).collect();
        let burstiness = |moments: &[i64]| {
            let gaps: Vec<f64> = moments.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
            (deviation - mean) / (deviation + mean)
        };
        cluster(&mut moments, Depth::Plain, &mut random);
        assert!(burstiness(&moments).abs() < 0.03, "{}", burstiness(&moments));
        cluster(&mut moments, Depth::Full, &mut random);
        assert!(burstiness(&moments) > 0.05, "{}", burstiness(&moments));
    }
}
