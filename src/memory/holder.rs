//! Holder: one network and one client family that use a token, with the evidence that it is a thief.

use serde::{Deserialize, Serialize};

use super::level::NetLevel;
use crate::millis::MINUTE_MS;

/// Maximum number of detectors with evidence against a holder: two bytes each.
pub(crate) const DETECTORS_MAX: usize = 13;

/// Holders per baseline. The longest unused one is evicted.
pub(crate) const HOLDERS_MAX: usize = 4;

const DAY_MINUTES: f64 = 1_440.0;

/// Evidence in two bytes: 1/256 nat, from −128 to 128. Four holders take 256 bytes of a baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Nats(i16);

impl Nats {
    const UNIT: f64 = 256.0;

    /// Rounds to the nearest value and saturates. NaN becomes the maximum, which is against the holder.
    pub(crate) fn new(nats: f64) -> Self {
        // Adding 1.5·2^52 leaves the integer in the low bits of the float. A cast would check every value for overflow.
        const WHOLE: f64 = 6_755_399_441_055_744.0;
        let units = nats * Self::UNIT;
        let below = if units < f64::from(i16::MAX) { units } else { f64::from(i16::MAX) };
        let within = if below > f64::from(i16::MIN) { below } else { f64::from(i16::MIN) };
        Self((within + WHOLE).to_bits() as i16)
    }

    pub(crate) fn get(self) -> f64 {
        f64::from(self.0) / Self::UNIT
    }

    /// Multiplies by `left`/65,536, rounded to the nearest.
    #[must_use]
    pub(crate) const fn faded(self, left: i32) -> Self {
        Self(((self.0 as i32 * left + (1 << 15)) >> 16) as i16)
    }
}

/// Evidence against a holder, positive for a thief: the sum of each detector, and the parts that some keep beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Evidence {
    /// By the number of the detector.
    pub(crate) sums: [Nats; DETECTORS_MAX],
    /// Part of `net` that comes from travel speed.
    pub(crate) travel: Nats,
    /// Sums of `route`: against the owner, and against the owner with a new task.
    pub(crate) route_owner: Nats,
    pub(crate) route_task: Nats,
    /// Part of `route` that comes from attractive words in routes.
    pub(crate) sensitive: Nats,
    /// Part of `volume` that comes from distinct objects.
    pub(crate) objects: Nats,
    /// Evidence of bytes, which `volume` does not contain.
    pub(crate) bytes: Nats,
}

/// The verdict of a person, or of a `confirmed` event, on a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Review {
    Unknown,
    /// The owner, by a `confirmed` event, or by feedback to an incident.
    Owner,
    /// A thief, by feedback to an incident.
    Thief,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// [`crate::memory::Sighting::network`].
    pub(crate) network: u32,
    pub(crate) family: u32,
    /// Minutes since the epoch.
    pub(crate) born: u32,
    /// Milliseconds since the epoch.
    pub(crate) last_at: i64,
    /// Level of the network when the holder began.
    pub(crate) level: NetLevel,
    /// Changes of network that were credited to it.
    pub(crate) switches: u8,
    pub(crate) review: Review,
    /// Number of the rule of its `lifecycle` evidence.
    pub(crate) lifecycle_rule: u8,
    pub(crate) evidence: Evidence,
    /// Log-odds after its last event.
    pub(crate) log_odds: Nats,
}

impl Holder {
    pub(crate) fn born(network: u32, family: u32, at: i64, level: NetLevel) -> Self {
        Self {
            network,
            family,
            born: (at / MINUTE_MS) as u32,
            last_at: at,
            level,
            switches: 0,
            review: Review::Unknown,
            lifecycle_rule: u8::MAX,
            evidence: Evidence::default(),
            log_odds: Nats::new(f64::MIN),
        }
    }

    /// Prefetches it. The returned value has no meaning.
    pub(crate) fn touch(&self) -> u64 {
        u64::from(self.network) ^ self.last_at as u64 ^ u64::from(self.switches)
    }

    /// Marks it as the owner's and clears its evidence.
    pub(crate) fn confirm(&mut self) {
        self.review = Review::Owner;
        self.evidence = Evidence::default();
        self.log_odds = Nats::new(f64::MIN);
        self.switches = 0;
        self.lifecycle_rule = u8::MAX;
    }

    /// Limits its times to `at`, milliseconds since the epoch.
    pub(super) fn limit(&mut self, at: i64) {
        self.last_at = self.last_at.min(at);
        self.born = self.born.min((at / MINUTE_MS) as u32);
    }

    /// Days since it began.
    pub(crate) fn age_days(&self, at: i64) -> f64 {
        (at / MINUTE_MS - i64::from(self.born)) as f64 / DAY_MINUTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nats_round_to_the_nearest_256th() {
        let units = |nats: f64| Nats::new(nats).0;
        assert_eq!([0.0, 1.0, -1.0, 3.5, -127.0].map(units), [0, 256, -256, 896, -32_512]);
        assert_eq!([0.6, -0.6, 1.4, -1.4].map(|part| units(part / 256.0)), [1, -1, 1, -1]);
        assert_eq!([1e9, f64::INFINITY, f64::NAN].map(units), [i16::MAX; 3]);
        assert_eq!([-1e9, f64::NEG_INFINITY, f64::MIN].map(units), [i16::MIN; 3]);
    }
}
