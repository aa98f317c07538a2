//! History of a user over all of their tokens. A new grant of the user starts from it.

use serde::{Deserialize, Serialize};

use super::users::OfUser;
use crate::millis::MINUTE_MS;

/// Networks, client families and countries stored per user.
const NETWORKS_MAX: usize = 6;
const FAMILIES_MAX: usize = 4;
const COUNTRIES_MAX: usize = 3;

/// Values of events that were the owner's with a probability of at least 0.5. The one that was added first is evicted.
/// It fits in one cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[repr(align(64))]
pub(crate) struct User {
    networks: [u32; NETWORKS_MAX],
    families: [u32; FAMILIES_MAX],
    countries: [u32; COUNTRIES_MAX],
    /// Minutes since the epoch; 0: never.
    changed_at: u32,
    visits: u16,
    /// Day of the last access, since the epoch.
    last_day: u16,
}

super::touch::touch!(User { visits });

/// Days since the epoch, up to 179 years.
const fn day(at: i64) -> u16 {
    (at / (1_440 * MINUTE_MS)) as u16
}

impl OfUser for User {
    fn seen(&mut self, at: i64) {
        self.last_day = self.last_day.max(day(at));
    }

    /// Visits, halved for each month without access; then the last access.
    fn retention(&self, now: i64) -> (u16, u16) {
        let months = u32::from(day(now).saturating_sub(self.last_day)) / 30;
        (self.visits.checked_shr(months).unwrap_or(0), self.last_day)
    }

    fn touch(&self) -> u64 {
        self.touch()
    }
}

impl User {
    pub(crate) const fn is_known(&self) -> bool {
        self.visits > 0
    }

    pub(crate) fn has_network(&self, network: u32) -> bool {
        self.networks.contains(&network)
    }

    pub(crate) fn has_family(&self, family: u32) -> bool {
        self.families.contains(&family)
    }

    pub(crate) fn has_country(&self, country: u32) -> bool {
        self.countries.contains(&country)
    }

    pub(crate) fn countries(&self) -> impl Iterator<Item = u32> {
        self.countries.into_iter().filter(|country| *country != 0)
    }

    /// Whether any country is known.
    pub(crate) fn has_countries(&self) -> bool {
        self.countries != [0; COUNTRIES_MAX]
    }

    /// Records a change of password or factor. A stored change after `latest` came from a wrong clock and is dropped.
    pub(crate) fn change_credential(&mut self, at: i64, latest: i64) {
        let before = if self.changed_at() > latest { 0 } else { self.changed_at };
        self.changed_at = before.max((at / MINUTE_MS) as u32);
    }

    /// Days since the last change of a credential; `None` if there was none before `at`.
    pub(crate) fn days_since_change(&self, at: i64) -> Option<f64> {
        let minutes = at / MINUTE_MS - i64::from(self.changed_at);
        (self.changed_at != 0 && minutes >= 0).then(|| minutes as f64 / 1_440.0)
    }

    /// Milliseconds since the epoch.
    pub(crate) const fn changed_at(&self) -> i64 {
        self.changed_at as i64 * MINUTE_MS
    }

    /// Learns a visit of the owner. 0 means unknown.
    pub(crate) fn learn(&mut self, network: u32, family: u32, country: u32) {
        remember(&mut self.networks, network);
        remember(&mut self.families, family);
        remember(&mut self.countries, country);
        self.visits = self.visits.saturating_add(1);
    }
}

fn remember<const MAX: usize>(known: &mut [u32; MAX], key: u32) {
    if key != 0 && !known.contains(&key) {
        known.rotate_right(1);
        known[0] = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::millis::DAY_MS;

    #[test]
    fn user_touch_reads_every_cache_line() {
        crate::memory::tests::assert_every_line_is_touched(&User::default().touched(), 0, size_of::<User>());
    }

    #[test]
    fn user_with_recent_visits_is_kept() {
        let seen = |visits, day| {
            let mut user = User::default();
            (0..visits).for_each(|_| user.learn(7, 7, 7));
            user.seen(day * DAY_MS);
            user.seen(0);
            user
        };
        let now = 20_000 * DAY_MS;
        assert!(seen(9, 20_000).retention(now) > seen(8, 20_000).retention(now));
        assert!(seen(9, 19_970).retention(now) < seen(5, 20_000).retention(now), "a month away");
        assert!(seen(9, 19_971).retention(now) > seen(9, 19_972 - 30).retention(now));
        assert!(seen(1, 19_999).retention(now) < seen(1, 20_000).retention(now));
        assert!(seen(u16::MAX, 1).retention(now) < seen(1, 20_000).retention(now), "decades ago");
    }
}
