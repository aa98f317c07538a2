//! Holder: who is suspected to hold a token (one network and one client family), with the evidence against them.

use crate::math::faded;

/// Holders per baseline. The longest unused one is evicted.
pub const HOLDERS_MAX: usize = 4;

const MINUTE: i64 = 60_000;
/// Step of the decay, milliseconds.
const FADE_STEP: i64 = 10 * MINUTE;
const DAY_MINUTES: f64 = 1_440.0;

/// Evidence in two bytes: 1/256 nat, from −128 to 128. Four holders take 224 bytes of a baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nats(i16);

impl Nats {
    const UNIT: f64 = 256.0;

    /// Rounds to the nearest value and saturates. NaN becomes the maximum, which is against the holder.
    #[must_use]
    pub fn new(nats: f64) -> Self {
        // Adding 1.5·2^52 leaves the integer in the low bits of the float. A cast would check every value for overflow.
        const WHOLE: f64 = 6_755_399_441_055_744.0;
        let units = nats * Self::UNIT;
        let below = if units < f64::from(i16::MAX) { units } else { f64::from(i16::MAX) };
        let within = if below > f64::from(i16::MIN) { below } else { f64::from(i16::MIN) };
        Self((within + WHOLE).to_bits() as i16)
    }

    #[must_use]
    pub fn get(self) -> f64 {
        f64::from(self.0) / Self::UNIT
    }

    /// Multiplies by `left`/65,536, rounded to the nearest.
    const fn faded(self, left: i32) -> Self {
        Self(((self.0 as i32 * left + (1 << 15)) >> 16) as i16)
    }
}

/// Evidence by term, positive for a thief.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    pub net: Nats,
    /// Part of `net` that comes from travel speed.
    pub travel: Nats,
    pub client: Nats,
    pub hour: Nats,
    pub route: Nats,
    /// Sums of `route`: against the owner, and against the owner with a new task.
    pub route_owner: Nats,
    pub route_task: Nats,
    /// Part of `route` that comes from attractive words in routes.
    pub sensitive: Nats,
    pub area: Nats,
    pub switch: Nats,
    pub volume: Nats,
    /// Part of `volume` that comes from distinct objects.
    pub objects: Nats,
    pub bytes: Nats,
    pub lifecycle: Nats,
    pub credential: Nats,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Holder {
    /// [`crate::memory::Sighting::network`].
    pub network: u32,
    pub family: u32,
    /// Minutes since the epoch.
    pub born: u32,
    /// Milliseconds since the epoch.
    pub last_at: i64,
    /// Level of the network when the holder began.
    pub level: u8,
    /// Changes of network that were credited to it.
    pub switches: u8,
    /// The owner or an analyst has confirmed it.
    pub confirmed: bool,
    /// Number of the rule of its `lifecycle` evidence.
    pub lifecycle_rule: u8,
    pub evidence: Evidence,
    /// Log-odds after its last event.
    pub log_odds: Nats,
}

impl Holder {
    #[must_use]
    pub fn born(network: u32, family: u32, at: i64, level: u8) -> Self {
        Self {
            network,
            family,
            born: (at / MINUTE) as u32,
            last_at: at,
            level,
            switches: 0,
            confirmed: false,
            lifecycle_rule: u8::MAX,
            evidence: Evidence::default(),
            log_odds: Nats::new(f64::MIN),
        }
    }

    /// Prefetches it. The returned value has no meaning.
    #[must_use]
    pub fn touch(&self) -> u64 {
        u64::from(self.network) ^ self.last_at as u64 ^ u64::from(self.switches)
    }

    /// Marks it as the owner's and clears its evidence.
    pub fn confirm(&mut self) {
        self.confirmed = true;
        self.evidence = Evidence::default();
        self.log_odds = Nats::new(f64::MIN);
        self.switches = 0;
        self.lifecycle_rule = u8::MAX;
    }

    /// Limits its times to `at`, milliseconds since the epoch.
    pub(super) fn limit(&mut self, at: i64) {
        self.last_at = self.last_at.min(at);
        self.born = self.born.min((at / MINUTE) as u32);
    }

    /// Days since it began.
    #[must_use]
    pub fn age_days(&self, at: i64) -> f64 {
        (at / MINUTE - i64::from(self.born)) as f64 / DAY_MINUTES
    }

    /// Decays its evidence up to `at`: the half-life is 3 days for `switch` and 1 day for all other terms. Evidence for
    /// the owner is dropped, except of routes and areas, because it belongs to one visit.
    ///
    /// The decay has steps of ten minutes, so that most events cost nothing.
    pub fn fade(&mut self, at: i64) {
        let steps = at / FADE_STEP - self.last_at / FADE_STEP;
        if steps <= 0 {
            return;
        }
        let days = (steps * FADE_STEP) as f64 / (DAY_MINUTES * MINUTE as f64);
        let left = |half_life: f64| (faded(days, half_life) * 65_536.0) as i32;
        let (fast, slow) = (left(1.0), left(3.0));
        let carried = Nats::new(if self.age_days(at) > 10.0 { -1.0 } else { -5.0 });
        let evidence = &mut self.evidence;
        let doubts = [
            &mut evidence.net,
            &mut evidence.travel,
            &mut evidence.client,
            &mut evidence.sensitive,
            &mut evidence.volume,
            &mut evidence.objects,
            &mut evidence.bytes,
            &mut evidence.lifecycle,
            &mut evidence.credential,
        ];
        for doubt in doubts {
            *doubt = (*doubt).max(Nats::default()).faded(fast);
        }
        for either in [&mut evidence.route, &mut evidence.route_owner, &mut evidence.area] {
            *either = either.faded(fast).max(carried);
        }
        evidence.route_task = evidence.route_task.faded(fast);
        evidence.switch = evidence.switch.faded(slow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nats_are_kept_to_the_nearest_256th() {
        let units = |nats: f64| Nats::new(nats).0;
        assert_eq!([0.0, 1.0, -1.0, 3.5, -127.0].map(units), [0, 256, -256, 896, -32_512]);
        assert_eq!([0.6, -0.6, 1.4, -1.4].map(|part| units(part / 256.0)), [1, -1, 1, -1]);
        assert_eq!([1e9, f64::INFINITY, f64::NAN].map(units), [i16::MAX; 3]);
        assert_eq!([-1e9, f64::NEG_INFINITY, f64::MIN].map(units), [i16::MIN; 3]);
    }
}
