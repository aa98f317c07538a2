//! Recent arrivals of users at one place: a network or prefix with one application, or an address. `fan` detects
//! campaigns by them.

use serde::{Deserialize, Serialize};

use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};
use smallvec::SmallVec;

use super::fair::{Fair, Slot, Write};
use super::limits::Limits;
use super::shared::Shared;
use super::tenants::{Seat, Tenant};
use super::usage::Usage;

/// Maximum number of users in a group.
const USERS_MAX: usize = 64;
/// Time for which a user stays in a group, seconds.
const WINDOW_SECONDS: u32 = 2 * 3_600;
const FLEETS_MAX: usize = 1 << 17;
/// Time after which a group without a new visit is dropped, seconds of the stream. Events of the window may be late.
const GROUP_LIFETIME: u32 = 2 * WINDOW_SECONDS;
/// The same for usual visits of an application. One thousandth of their number is left then.
const VISITS_LIFETIME: u32 = 30 * 86_400;
/// Number of users from which a group is evidence.
pub(crate) const USERS_MIN: usize = 3;
/// Maximum of applications that are counted.
pub(crate) const SEVERAL_APPS: usize = 3;
/// Maximum number of other tenants that a group counts separately.
const TENANTS_MAX: usize = 16;
/// A stored time that is further ahead of an event came from a wrong clock.
const AHEAD_MS_MAX: i64 = 7 * DAY_MS;
/// Step in which counts of usual visits decay. An application can have thousands of visits in one step.
const FADE_STEP_MS: i64 = MINUTE_MS;

/// The latest visit of one user in a group. It is small, because most groups have one member.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Member {
    user: u64,
    tenant: u64,
    app: u64,
    /// Seconds since the epoch.
    second: u32,
    /// See [`Self::new`].
    deviation: f32,
    seat: Option<Seat>,
}

impl Member {
    /// `at`: milliseconds since the epoch. `deviation`: evidence that the visit is not the owner's, route + hour, nats.
    pub(crate) fn new(user: u64, tenant: Tenant, app: u64, at: i64, deviation: f64) -> Self {
        let deviation = deviation.clamp(-2.0, 3.0) as f32;
        Self { user, tenant: tenant.key, app, second: (at / 1_000) as u32, deviation, seat: tenant.seat }
    }

    /// The tenant for counts. All tenants without a seat are one.
    const fn counts_as(&self) -> u64 {
        if self.seat.is_some() { self.tenant } else { 0 }
    }

    /// Whether `member` is another user, within the window.
    const fn is_with(&self, member: &Self) -> bool {
        member.second.abs_diff(self.second) <= WINDOW_SECONDS && self.user != member.user
    }
}

/// Users who are new at one place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Fleet {
    /// The first one needs no allocation.
    members: SmallVec<[Member; 1]>,
}

/// The users who arrived at the same place as one user, within two hours.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Arrivals {
    /// Users of the last two hours, including this one: those of its tenant, and one of each other tenant except one.
    pub(crate) users: usize,
    /// Sum of the deviations of the others.
    pub(crate) deviation: f64,
    /// Number of applications of its tenant, at most [`SEVERAL_APPS`]. 0 if there are fewer than [`USERS_MIN`] users,
    /// or less than three quarters of them are of its tenant.
    pub(crate) apps: usize,
}

/// Key of a group, and its slot in the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    key: u64,
    /// `None`: the group is empty.
    slot: Option<Slot>,
}

/// Groups by application and network, by application and prefix, and by address.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fleets {
    groups: Fair<Fleet>,
    /// Visits of each tenant with an application at usual places.
    of_tenant: Fair<UsualVisits>,
    /// The same of all tenants.
    of_all: Fair<AllVisits>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct UsualVisits {
    /// Time of the last decay, milliseconds since the epoch.
    at: i64,
    /// Number of visits, with a half-life of 1 hour.
    recent: f64,
    /// The same with a half-life of 72 hours.
    usual: f64,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct AllVisits {
    at: i64,
    /// Sum of [`UsualVisits::usual`].
    usual: Shared<1>,
}

impl Default for Fleets {
    fn default() -> Self {
        Self {
            groups: Fair::new(FLEETS_MAX, GROUP_LIFETIME),
            of_tenant: Fair::new(FLEETS_MAX, VISITS_LIFETIME),
            of_all: Fair::new(FLEETS_MAX, VISITS_LIFETIME),
        }
    }
}

impl Fleets {
    /// Upper limit of the bytes of all tables, with all groups full.
    pub(crate) const BYTES_MAX: usize = Fair::<Fleet>::bytes_of(FLEETS_MAX)
        + FLEETS_MAX * (USERS_MAX * size_of::<Member>() + 2 * size_of::<u64>())
        + Fair::<UsualVisits>::bytes_of(FLEETS_MAX)
        + Fair::<AllVisits>::bytes_of(FLEETS_MAX);

    /// Changes the maximum of each table.
    pub(crate) fn limit(&mut self, limits: &Limits) {
        let max = limits.scaled(FLEETS_MAX);
        self.groups.limit(max);
        self.of_tenant.limit(max);
        self.of_all.limit(max);
    }

    /// Bytes without the members of groups beyond the first one, and number of evictions.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of_all([self.groups.usage(), self.of_tenant.usage(), self.of_all.usage()])
    }

    /// The group of this key, for [`Self::arrivals`] and [`Self::join`] in one event.
    pub(crate) fn group(&self, key: u64) -> Group {
        let key = mixed(key);
        Group { key, slot: self.groups.find(key) }
    }

    /// The users who joined the group before `member`.
    pub(crate) fn arrivals(&self, group: Group, member: &Member) -> Arrivals {
        let Some(slot) = group.slot else { return Arrivals { users: 1, ..Arrivals::default() } };
        let members = &self.groups.at(slot).members;
        let with = || members.iter().filter(|other| other.is_with(member));
        // A full group has many members, so those of the tenant are counted in one pass.
        let (mut own, mut deviation, mut has_others) = (0, 0.0, false);
        let mut apps = Apps::of(member);
        for other in with() {
            if other.tenant == member.tenant {
                own += 1;
                deviation += f64::from(other.deviation);
                apps.add(other);
            } else {
                has_others = true;
            }
        }
        let others = if has_others {
            Others::of(with().filter(|other| other.tenant != member.tenant))
        } else {
            Others::default()
        };
        // A full group evicts its oldest member.
        let of_tenant = (own + 1).min(USERS_MAX);
        let users = of_tenant + others.users;
        let deviation = deviation + others.deviation;
        let mostly_own = 4 * of_tenant >= 3 * users;
        let apps = if users >= USERS_MIN && mostly_own { apps.found } else { 0 };
        Arrivals { users, deviation, apps }
    }

    /// Stores the latest visit of a user in a group, and removes visits that are older by more than the window. A late
    /// visit removes no newer ones. `now`: time of the stream, milliseconds since the epoch.
    pub(crate) fn join(&mut self, group: Group, member: Member, now: i64) {
        let by = Write { owner: member.seat, second: (now / 1_000) as u32 };
        let fleet = self.groups.entry_at(group.key, group.slot, by, || Fleet { members: SmallVec::new() });
        let since = member.second.saturating_sub(WINDOW_SECONDS);
        fleet.members.retain(|other| other.second >= since && other.user != member.user);
        if fleet.members.len() >= USERS_MAX {
            // The oldest member of the largest tenant is evicted. More than 64 users are no further evidence.
            let of =
                |member: &Member| fleet.members.iter().filter(|other| other.counts_as() == member.counts_as()).count();
            // `max_by_key` returns the last of equal members. In reverse order, this is the oldest.
            let oldest = (0..fleet.members.len()).rev().max_by_key(|at| of(&fleet.members[*at])).unwrap_or(0);
            fleet.members.remove(oldest);
        }
        fleet.members.push(member);
    }

    /// Counts a visit of a tenant with an application at the user's usual place. `at`: milliseconds since the epoch.
    pub(crate) fn learn_usual_visit(&mut self, app: u64, tenant: Tenant, at: i64) {
        let by = Write { owner: tenant.seat, second: (at / 1_000) as u32 };
        let own = self.of_tenant.entry(app ^ tenant.key, by, UsualVisits::default);
        if let Some(hours) = hours_to_fade(&mut own.at, at) {
            own.recent *= crate::math::faded(hours, 1.0);
            own.usual *= crate::math::faded(hours, 72.0);
        }
        own.recent += 1.0;
        own.usual += 1.0;
        let Some(seat) = tenant.seat else { return };
        let all = self.of_all.entry(app, by, AllVisits::default);
        if let Some(hours) = hours_to_fade(&mut all.at, at) {
            all.usual.fade(crate::math::faded(hours, 72.0));
        }
        all.usual.teach(seat, &[own.usual], &[1.0]);
    }

    /// Share of a tenant in the usual visits of an application, without the largest other tenant. 1 if no visits are
    /// known.
    pub(crate) fn tenant_share(&self, app: u64, tenant: Tenant, at: i64) -> f64 {
        let left = |since: i64| crate::math::faded((at - since).max(0) as f64 / HOUR_MS as f64, 72.0);
        let own = self.of_tenant.get(app ^ tenant.key).map(|own| own.usual * left(own.at));
        let all = self.of_all.get(app).map(|all| all.usual.count(tenant.seat) * left(all.at));
        match (own, all) {
            (Some(own), Some(all)) if own > 0.0 => {
                let all = if tenant.seat.is_some() { all } else { own + all };
                (own / all.max(own)).min(1.0)
            }
            _ => 1.0,
        }
    }

    /// Current visits of a tenant with an application at usual places, as a share of the usual number. It is near 0
    /// after a migration. 1 if no visits are known.
    pub(crate) fn usual_share(&self, app: u64, tenant: Tenant, at: i64) -> f64 {
        let Some(own) = self.of_tenant.get(app ^ tenant.key) else { return 1.0 };
        let hours = (at - own.at).max(0) as f64 / HOUR_MS as f64;
        // In a steady state, each number is the rate times half-life/ln 2.
        let now = own.recent * crate::math::faded(hours, 1.0);
        let usual = own.usual * crate::math::faded(hours, 72.0) / 72.0;
        if usual < 1.0 { 1.0 } else { (now / usual).min(1.0) }
    }
}

/// Spreads a key over all 64 bits by a bijection. The lower bits of a group's key are the number of its kind, but the
/// table takes the place of an entry from these bits.
const fn mixed(key: u64) -> u64 {
    let mixed = (key ^ key >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}

/// Hours of decay between `since` and `at`. `None` if they are less than a step. Sets `since` to `at` otherwise.
fn hours_to_fade(since: &mut i64, at: i64) -> Option<f64> {
    if *since > at + AHEAD_MS_MAX {
        *since = at;
    }
    if at - *since < FADE_STEP_MS {
        return None;
    }
    let hours = (at - *since) as f64 / HOUR_MS as f64;
    *since = at;
    Some(hours)
}

/// Other tenants in a group: for each, the user with the largest deviation. The tenants with the largest positive and
/// the largest negative deviation are left out. A single other tenant therefore has no influence.
#[derive(Default)]
struct Others {
    users: usize,
    deviation: f64,
}

impl Others {
    fn of<'a>(members: impl Iterator<Item = &'a Member>) -> Self {
        let mut tenants = [(0, 0.0_f64); TENANTS_MAX];
        let mut found = 0;
        for member in members {
            let (number, deviation) = (member.counts_as(), f64::from(member.deviation));
            if let Some(known) = tenants[..found].iter_mut().find(|known| known.0 == number) {
                known.1 = known.1.max(deviation);
            } else if found < TENANTS_MAX {
                // Tenants without a seat may be invented, so they are no evidence for the owner.
                let least = if member.seat.is_some() { f64::NEG_INFINITY } else { 0.0 };
                tenants[found] = (number, deviation.max(least));
                found += 1;
            }
        }
        let deviation = tenants[..found].iter().map(|tenant| tenant.1);
        let (most, least) =
            deviation.clone().fold((0.0, 0.0), |(most, least), value| (f64::max(most, value), f64::min(least, value)));
        Self { users: found.saturating_sub(1), deviation: deviation.sum::<f64>() - most - least }
    }
}

/// Applications of members, at most [`SEVERAL_APPS`].
struct Apps {
    apps: [u64; SEVERAL_APPS],
    found: usize,
}

impl Apps {
    fn of(member: &Member) -> Self {
        Self { apps: [member.app; SEVERAL_APPS], found: 1 }
    }

    fn add(&mut self, member: &Member) {
        // The places that are free contain the first application.
        if self.found < SEVERAL_APPS && !self.apps.contains(&member.app) {
            self.apps[self.found] = member.app;
            self.found += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tenants::seated;

    fn join(fleets: &mut Fleets, group: u64, member: Member) -> Arrivals {
        let arrivals = arrivals(fleets, group, &member);
        fleets.join(fleets.group(group), member, i64::from(member.second) * 1_000);
        arrivals
    }

    fn arrivals(fleets: &Fleets, group: u64, member: &Member) -> Arrivals {
        fleets.arrivals(fleets.group(group), member)
    }

    #[test]
    fn group_keeps_newer_visits_when_one_comes_late() {
        let mut fleets = Fleets::default();
        let member = |user, at| Member::new(user, seated(1), user, at, 0.0);
        let hour = HOUR_MS;
        (0..3).for_each(|user| _ = join(&mut fleets, 1, member(user, 9 * hour)));
        assert_eq!(join(&mut fleets, 1, member(7, hour)).users, 1);
        assert_eq!(join(&mut fleets, 1, member(8, 9 * hour)).users, 4);
    }

    #[test]
    fn group_counts_each_recent_user_once() {
        let mut fleets = Fleets::default();
        let member = |user, at, deviation| Member::new(user, seated(1), user, at, deviation);
        join(&mut fleets, 1, member(7, 0, 1.0));
        join(&mut fleets, 1, member(7, 1_000, 2.0));
        let arrivals = join(&mut fleets, 1, member(8, 2_000, -1.0));
        assert_eq!(arrivals, Arrivals { users: 2, deviation: 2.0, apps: 0 });
        let same_app = Member::new(9, seated(1), 8, 2_000, 0.0);
        assert_eq!(join(&mut fleets, 1, same_app), Arrivals { users: 3, deviation: 1.0, apps: 2 });
        let stranger = |user: u64, tenant: u16| Member::new(user, seated(tenant), user, 2_000, 0.0);
        assert_eq!(join(&mut fleets, 1, stranger(10, 2)).apps, 0, "a user of another tenant");
        assert_eq!(
            join(&mut fleets, 1, Member::new(11, seated(1), 11, 2_000, 0.0)).apps,
            3,
            "most users are of the tenant"
        );
        for user in 12..16 {
            assert_eq!(
                join(&mut fleets, 1, stranger(user, user as u16)).apps,
                0,
                "users of a tenant that a thief owns"
            );
        }
        assert_eq!(join(&mut fleets, 1, member(9, 3 * HOUR_MS, 0.0)).users, 1);
        assert_eq!(join(&mut fleets, 2, member(9, 0, 0.0)).users, 1, "another group");
    }

    #[test]
    fn group_is_dropped_after_its_lifetime_and_no_sooner() {
        let mut fleets = Fleets::default();
        let (hour, minute) = (HOUR_MS, MINUTE_MS);
        let begin = 1_000 * hour;
        let member = |user, at| Member::new(user, seated(1), user, at, 0.0);
        join(&mut fleets, 1, member(7, begin));
        for number in 0..1_000 {
            join(&mut fleets, 10 + number, member(number, begin + 60 * minute));
        }
        assert_eq!(join(&mut fleets, 1, member(8, begin + 110 * minute)).users, 2, "two users within the window");
        for number in 0..1_000 {
            join(&mut fleets, 2_000 + number, member(number, begin + 9 * hour));
        }
        assert!(fleets.groups.len() < 1_100, "{}", fleets.groups.len());
    }

    #[test]
    fn usual_share_drops_after_a_migration() {
        let mut fleets = Fleets::default();
        let hour = HOUR_MS;
        for step in 0..4_000 {
            fleets.learn_usual_visit(1, seated(step as u16 % 4), step * hour / 10);
        }
        let end = 400 * hour;
        assert!(fleets.usual_share(1, seated(0), end) > 0.8);
        assert!(fleets.usual_share(1, seated(0), end + 6 * hour) < 0.05);
        assert!((fleets.usual_share(2, seated(0), end) - 1.0).abs() < 1e-12);
        assert!(
            (fleets.tenant_share(1, seated(0), end) - 1.0 / 3.0).abs() < 0.02,
            "one of four tenants, without the largest other one"
        );
        assert!((fleets.tenant_share(2, seated(0), end) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn group_leaves_out_one_other_tenant() {
        let mut fleets = Fleets::default();
        let member = |user: u64, tenant, deviation| Member::new(user, tenant, user, 0, deviation);
        let arrivals = |fleets: &Fleets| arrivals(fleets, 1, &member(1, seated(0), 0.0));
        let alone = arrivals(&fleets);
        for user in 0..200 {
            join(&mut fleets, 1, member(10 + user, seated(1), 3.0));
        }
        assert_eq!(arrivals(&fleets), alone, "one tenant");
        let invented = |number| Tenant { key: 5_000 + number, seat: None };
        for user in 0..200 {
            join(&mut fleets, 1, member(1_000 + user, invented(user), -2.0));
        }
        assert_eq!(arrivals(&fleets).users, 2, "tenants without a seat count as one");
        assert!(arrivals(&fleets).deviation.abs() < 1e-9, "they are no evidence for the owner");
        join(&mut fleets, 1, member(2, seated(0), 1.0));
        for user in 0..200 {
            join(&mut fleets, 1, member(2_000 + user, seated(1), 3.0));
        }
        assert_eq!(arrivals(&fleets).users, 3, "the members of its tenant are kept");
    }

    /// Users in each of some groups, of two before, after as many events of others as fill the table three times.
    fn users_after(flood: impl Fn(u64) -> Tenant) -> std::ops::RangeInclusive<usize> {
        let mut fleets = Fleets::default();
        let member = |user: u64, tenant| Member::new(user, tenant, user, 0, 1.0);
        let groups = 1..200;
        for user in 0..2 {
            groups.clone().for_each(|group| _ = join(&mut fleets, group, member(user, seated(0))));
        }
        for number in 0..3 * FLEETS_MAX as u64 {
            join(&mut fleets, 1_000_000 + number, member(number, flood(number)));
        }
        assert!(fleets.groups.len() <= FLEETS_MAX);
        let users = groups.map(|group| arrivals(&fleets, group, &member(2, seated(0))).users).collect::<Vec<_>>();
        users.iter().copied().min().unwrap_or(0)..=users.iter().copied().max().unwrap_or(0)
    }

    #[test]
    fn networks_of_other_tenants_evict_no_groups() {
        assert_eq!(users_after(|_| seated(1)), 3..=3, "one tenant");
        assert_eq!(users_after(|number| seated(1 + number as u16 % 2)), 3..=3, "two tenants");
        assert_eq!(users_after(|number| Tenant { key: 5_000 + number, seat: None }), 3..=3, "invented tenants");
        // Control: a tenant evicts its own groups.
        assert_eq!(*users_after(|_| seated(0)).start(), 1);
    }

    #[test]
    fn apps_of_one_tenant_evict_no_usual_visits() {
        let (mut fleets, hour) = (Fleets::default(), HOUR_MS);
        (0..2_000).for_each(|step| fleets.learn_usual_visit(1, seated(0), step * hour / 10));
        let end = 200 * hour;
        for app in 0..2 * FLEETS_MAX as u64 {
            fleets.learn_usual_visit(1_000_000 + app, seated(1), end);
        }
        assert!(fleets.usual_share(1, seated(0), end + 6 * hour) < 0.05, "the migration is detected");
    }

    #[test]
    fn usual_share_is_that_of_the_tenant() {
        let (mut fleets, hour) = (Fleets::default(), HOUR_MS);
        for step in 0..2_000 {
            fleets.learn_usual_visit(1, seated(0), step * hour / 10);
        }
        let (end, before) = (200 * hour, |fleets: &Fleets, at| fleets.usual_share(1, seated(0), at));
        let share = before(&fleets, end + 6 * hour);
        (0..50_000).for_each(|step| fleets.learn_usual_visit(1, seated(1), end + step * 100));
        assert!((fleets.usual_share(1, seated(0), end + 6 * hour) - share).abs() < 1e-12);
        assert!((fleets.tenant_share(1, seated(0), end) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn users_of_several_other_tenants_explain_a_move() {
        let mut fleets = Fleets::default();
        let member = |user: u64, tenant, deviation| Member::new(user, tenant, user, 0, deviation);
        let seen = |fleets: &mut Fleets| {
            let arrivals = join(fleets, 1, member(1, seated(0), 0.0));
            (arrivals.users, arrivals.deviation)
        };
        (1..5).for_each(|tenant| _ = join(&mut fleets, 1, member(10 + u64::from(tenant), seated(tenant), -2.0)));
        assert_eq!(seen(&mut fleets), (4, -6.0), "three of four tenants");
        let stranger = Tenant { key: 5_000, seat: None };
        (0..100).for_each(|user| _ = join(&mut fleets, 1, member(100 + user, stranger, -2.0)));
        assert_eq!(seen(&mut fleets), (5, -6.0), "tenants without a seat do not lower the sum");
        (0..100).for_each(|user| _ = join(&mut fleets, 1, member(300 + user, seated(5), -2.0)));
        assert_eq!(seen(&mut fleets), (6, -8.0), "the flood counts as one user");
        join(&mut fleets, 1, member(15, seated(4), 1.0));
        assert_eq!(seen(&mut fleets), (6, -6.0), "a tenant with a deviating user is no evidence for the owner");
    }
}
