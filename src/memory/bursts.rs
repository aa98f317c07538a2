//! Bursts of calls: their sizes, and their number today. A deployment or the end of a month causes many at once.

use serde::{Deserialize, Serialize};

use super::generations::Generations;
use super::shared::Separate;
use super::tenants::{BySeat, Seat, Tenant};

/// Classes of size, one nat each. The last class holds all larger sizes.
const SIZES: usize = 16;
const TENANTS_MAX: usize = 1 << 14;
/// A stored day that is further ahead of an event came from a wrong clock.
const DAYS_AHEAD_MAX: u32 = 7;
/// Weight of a day in the usual number.
const DAY_WEIGHT: f64 = 0.1;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Daily {
    day: u32,
    today: f64,
    /// Exponentially weighted mean of the earlier days.
    usual: f64,
}

impl Daily {
    fn on(&mut self, day: u32) -> &mut Self {
        if self.day > day + DAYS_AHEAD_MAX {
            self.day = day;
        }
        // Limited, because a clock can be far ahead.
        for _ in 0..(day.saturating_sub(self.day)).min(60) {
            self.usual += DAY_WEIGHT * (self.today - self.usual);
            self.today = 0.0;
        }
        self.day = self.day.max(day);
        self
    }

    /// Ratio of today's number to the usual one, each increased by 1.
    fn excess(&self, day: u32) -> f64 {
        if day > self.day { 1.0 } else { (self.today + 1.0) / (self.usual + 1.0) }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Bursts {
    /// Token-days of each tenant with a burst of at least this many nats, and all its token-days.
    at_least: Separate<{ SIZES + 1 }>,
    tenants: Generations<Daily>,
    /// The same for tenants with a seat, for [`Self::excess`].
    seated: BySeat<Daily>,
}

impl Default for Bursts {
    fn default() -> Self {
        Self { at_least: Separate::default(), tenants: Generations::new(TENANTS_MAX), seated: BySeat::default() }
    }
}

impl Bursts {
    /// Counts a day on which a token is used.
    pub(crate) fn token_day(&mut self, seat: Option<Seat>) {
        let Some(seat) = seat else { return };
        let mut more = [0.0; SIZES + 1];
        more[SIZES] = 1.0;
        self.at_least.learn(seat, &more);
    }

    /// Learns that a token's burst of the day has grown from `before` nats (0: it begins) to `ratio` nats.
    pub(crate) fn learn(&mut self, tenant: Tenant, day: u32, before: f64, ratio: f64) {
        if let Some(seat) = tenant.seat {
            let mut more = [0.0; SIZES + 1];
            for (size, more) in more[..SIZES].iter_mut().enumerate().skip(before.ceil().max(1.0) as usize) {
                *more = f64::from(u8::from(size as f64 <= ratio && size as f64 > before));
            }
            self.at_least.learn(seat, &more);
        }
        if before < 1.0 && ratio >= 1.0 {
            let daily = self.tenants.entry(tenant.key, Daily::default).on(day);
            daily.today += 1.0;
            if let Some(seated) = tenant.seat.and_then(|seat| self.seated.get_mut(seat)) {
                *seated = *daily;
            }
        }
    }

    /// Share of token-days with a burst of at least `ratio` nats.
    pub(crate) fn usual(&self, seat: Option<Seat>, ratio: f64) -> f64 {
        let size = (ratio.max(0.0) as usize).min(SIZES - 1);
        let at_least = self.at_least.read(seat);
        // Assumed: 1 % of ten token-days.
        (at_least[size] + 0.1) / (at_least[SIZES] + 10.0)
    }

    /// Ratio of today's bursts to the usual number: that of the tenant, or that of all others without the one with the
    /// most additional bursts, whichever is higher.
    pub(crate) fn excess(&self, tenant: Tenant, day: u32) -> f64 {
        let own = self.tenants.get(tenant.key).map_or(1.0, |daily| daily.excess(day));
        let (mut all, mut most) = (Daily { day, ..Daily::default() }, Daily::default());
        for daily in self.seated.others(tenant.seat).filter(|daily| daily.day == day) {
            all.today += daily.today;
            all.usual += daily.usual;
            if daily.today - daily.usual > most.today - most.usual {
                most = *daily;
            }
        }
        let others = Daily { today: all.today - most.today, usual: all.usual - most.usual, ..all };
        own.max(others.excess(day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tenants::seated;

    #[test]
    fn excess_is_high_on_a_day_with_many_bursts() {
        let mut bursts = Bursts::default();
        for day in 1..40 {
            for _ in 0..100 {
                bursts.token_day(seated(1).seat);
            }
            bursts.learn(seated(1), day, 0.0, 3.5);
        }
        assert!((bursts.usual(seated(1).seat, 3.5) - 39.1 / 3_910.0).abs() < 1e-9);
        assert!((bursts.usual(seated(1).seat, 9.0) - 0.1 / 3_910.0).abs() < 1e-9);
        assert!(bursts.excess(seated(1), 40) <= 1.2);
        for _ in 0..30 {
            bursts.learn(seated(1), 40, 0.0, 3.5);
            bursts.learn(seated(1), 40, 3.5, 3.9);
        }
        assert!(bursts.excess(seated(1), 40) > 10.0, "{}", bursts.excess(seated(1), 40));
        assert!((bursts.excess(seated(2), 40) - 1.0).abs() < 1e-9, "bursts of one other tenant");
        (0..30).for_each(|_| bursts.learn(seated(3), 40, 0.0, 3.5));
        assert!(bursts.excess(seated(2), 40) > 10.0, "bursts of two other tenants");
        assert!((bursts.excess(seated(1), 41) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn burst_with_a_clock_far_ahead_is_left_behind() {
        let mut bursts = Bursts::default();
        bursts.learn(seated(1), u32::MAX - 30, 0.0, f64::INFINITY);
        assert!(bursts.usual(seated(1).seat, f64::INFINITY).is_finite());
        for day in 1..40 {
            bursts.learn(seated(1), day, 0.0, 3.5);
        }
        assert!(bursts.excess(seated(1), 39) < 1.5, "{}", bursts.excess(seated(1), 39));
    }
}
