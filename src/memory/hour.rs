//! The hours of a baseline: the running one, and what past ones are like.

use serde::{Deserialize, Serialize};

use super::holder::Nats;

/// Mean and variance of the logarithm of an hourly count, and the number of hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Habit {
    pub(crate) mean: f32,
    pub(crate) variance: f32,
    pub(crate) hours: f32,
}

impl Habit {
    /// Learns an hour. Hours before the last `hours_max` ones lose weight exponentially.
    pub(crate) fn learn(&mut self, value: f64, weight: f64, hours_max: f64) {
        let hours = f64::from(self.hours) + weight;
        let rate = weight / hours.max(weight);
        let deviation = value - f64::from(self.mean);
        self.mean = (f64::from(self.mean) + rate * deviation) as f32;
        self.variance = ((1.0 - rate) * (f64::from(self.variance) + rate * deviation * deviation)) as f32;
        self.hours = hours.min(hours_max) as f32;
    }

    /// Mean and variance after adding three hours of the cohort, and the number of own hours.
    pub(crate) fn with(&self, (mean, variance): (f64, f64)) -> (f64, f64, f64) {
        const COHORT_HOURS: f64 = 3.0;
        let hours = f64::from(self.hours);
        let all = hours + COHORT_HOURS;
        let pooled = (hours * f64::from(self.mean) + COHORT_HOURS * mean) / all;
        let own =
            hours * (f64::from(self.variance) + (f64::from(self.mean) - pooled) * (f64::from(self.mean) - pooled));
        (pooled, (own + COHORT_HOURS * variance) / all, hours)
    }
}

/// Hourly habits of a baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Habits {
    pub(crate) calls: Habit,
    pub(crate) objects: Habit,
    pub(crate) bytes: Habit,
    /// Number of reads, with decay.
    pub(crate) reads: f32,
    /// Number of all calls, with decay.
    pub(crate) all_calls: f32,
}

/// Counts of the current hour. They are learnt when the hour ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hour {
    /// Hours since the epoch.
    pub(crate) number: u32,
    pub(crate) calls: u32,
    pub(crate) reads: u32,
    pub(crate) kilobytes: f32,
    /// Number of doublings of the bytes from which they can be a burst.
    pub(crate) doublings_usual: u8,
    /// Salt of the sketch. It changes every hour, so that a thief cannot choose objects that collide.
    salt: u8,
    /// Highest log-odds of an event in the hour.
    pub(crate) log_odds_max: Nats,
    /// Largest evidence of a burst, before the reduction for shared causes.
    pub(crate) burst: f32,
    /// Registers of a HyperLogLog sketch of the objects touched (Flajolet et al. 2007).
    objects: [u8; OBJECT_REGISTERS],
}

/// 16 registers have a standard error of 26 %. Hours of one owner differ by a factor of two.
const OBJECT_REGISTERS: usize = 16;

impl Hour {
    /// Begins the hour `number`. `past`: a value of the baseline that a thief cannot know.
    pub(crate) fn begin(number: u32, past: u64) -> Self {
        let salt = (past ^ u64::from(number) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        Self { number, log_odds_max: Nats::new(f64::MIN), salt: salt as u8, ..Self::default() }
    }

    /// Number of doublings of the bytes, from one kilobyte.
    pub(crate) const fn doublings(kilobytes: f32) -> u8 {
        // ⌊log2(kilobytes + 1)⌋ is the exponent: a cast to an integer would check for overflow.
        ((kilobytes + 1.0).to_bits() >> 23).saturating_sub(127) as u8
    }

    /// Counts an object by its hash.
    pub(crate) const fn touch(&mut self, object: u64) {
        let salt = (self.salt as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (object ^ salt).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        let mixed = mixed ^ mixed >> 29;
        let rank = ((mixed << 4).leading_zeros() + 1) as u8;
        let register = &mut self.objects[(mixed >> 60) as usize];
        if rank > *register {
            *register = rank;
        }
    }

    /// Estimated number of distinct objects.
    pub(crate) fn objects(&self) -> f64 {
        const M: f64 = OBJECT_REGISTERS as f64;
        #[allow(clippy::naive_bytecount, reason = "a few bytes, not worth a crate")]
        let empty = self.objects.iter().filter(|rank| **rank == 0).count();
        let harmonic: f64 = self.objects.iter().map(|rank| power_of_half(*rank)).sum();
        let raw = 0.673 * M * M / harmonic;
        // Linear counting is more accurate for small numbers.
        if raw <= 2.5 * M && empty > 0 { M * crate::math::ln(M / empty as f64) } else { raw }
    }
}

/// 2^−rank
const fn power_of_half(rank: u8) -> f64 {
    f64::from_bits((1_023 - rank as u64) << 52)
}
