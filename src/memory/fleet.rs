//! Who has lately come from where with one application, or from one address: the ground on which a campaign is seen.

use smallvec::SmallVec;

use super::fair::{Fair, Place, Write};
use super::shared::Shared;
use super::tenants::{Seat, Tenant};

/// Visitors kept a group, and for how long.
const USERS_MAX: usize = 64;
const WINDOW_SECONDS: u32 = 2 * 3_600;
const FLEETS_MAX: usize = 1 << 17;
/// Seconds of the stream after which a group without a new visit is dropped: events of the window may come late.
const GROUP_LIFETIME: u32 = 2 * WINDOW_SECONDS;
/// The same of an application's visits, of which a thousandth is left then.
const HOME_LIFETIME: u32 = 30 * 86_400;
/// A group is weighed from so many users on.
pub const USERS_MIN: usize = 3;
/// So many applications are several.
pub const SEVERAL_APPS: usize = 3;
/// Maximum of other tenants that a group counts separately.
const TENANTS_MAX: usize = 16;
/// A time so far ahead of an event's comes of a clock that was wrong.
const AHEAD_MS_MAX: i64 = 7 * 86_400_000;
/// What an application does at home fades in such steps: it is used thousands of times in between.
const FADE_STEP_MS: i64 = 60_000;

/// One user's latest visit in a group. Most groups have one member for ever, and so it is kept small.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member {
    user: u64,
    tenant: u64,
    app: u64,
    /// Since the epoch.
    second: u32,
    oddness: f32,
    seat: Option<Seat>,
}

impl Member {
    /// `at`: milliseconds since the epoch; `oddness`: how unlike its owner this visit is, route + ½ client + hour.
    #[must_use]
    pub fn new(user: u64, tenant: Tenant, app: u64, at: i64, oddness: f64) -> Self {
        let oddness = oddness.clamp(-2.0, 3.0) as f32;
        Self { user, tenant: tenant.key, app, second: (at / 1_000) as u32, oddness, seat: tenant.seat }
    }

    /// Whom it counts as: all tenants without a seat are one.
    const fn counts_as(&self) -> u64 {
        if self.seat.is_some() { self.tenant } else { 0 }
    }

    /// Another user, within the window.
    const fn is_with(&self, member: &Self) -> bool {
        member.second.abs_diff(self.second) <= WINDOW_SECONDS && self.user != member.user
    }
}

/// Users who came new to one place.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// One lies in the group itself.
    members: SmallVec<[Member; 1]>,
}

/// What a group says of one of its users.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Company {
    /// Users of the last two hours, the asker among them: those of its tenant, and one of each other tenant but one.
    pub users: usize,
    /// Sum of the others' oddness.
    pub oddness: f64,
    /// Applications of its tenant, counted up to [`SEVERAL_APPS`], where there are [`USERS_MIN`] users and three in four
    /// of them are of its tenant; else 0.
    pub apps: usize,
}

/// A group, and where it was found.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    key: u64,
    /// `None`: nobody has joined it yet.
    place: Option<Place>,
}

/// Groups by application and network, by application and prefix, and by address.
#[derive(Debug)]
pub struct Fleets {
    groups: Fair<Fleet>,
    /// When an application was last used by a tenant from networks that its users know, and how often lately.
    homes: Fair<Home>,
    /// The usual visits of all tenants with an application.
    usual: Fair<Usual>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Home {
    /// Up to when it has faded, milliseconds since the epoch.
    at: i64,
    /// Visits, halved every two hours.
    visits: f64,
    /// The same over the last days: what is usual.
    usual: f64,
}

/// As [`Home::usual`].
#[derive(Clone, Copy, Debug, Default)]
struct Usual {
    at: i64,
    visits: Shared<1>,
}

impl Default for Fleets {
    fn default() -> Self {
        Self {
            groups: Fair::new(FLEETS_MAX, GROUP_LIFETIME),
            homes: Fair::new(FLEETS_MAX, HOME_LIFETIME),
            usual: Fair::new(FLEETS_MAX, HOME_LIFETIME),
        }
    }
}

impl Fleets {
    /// The group of this key, for [`Self::company`] and [`Self::join`] in one event.
    #[must_use]
    pub fn group(&self, key: u64) -> Group {
        let key = mixed(key);
        Group { key, place: self.groups.find(key) }
    }

    /// What company a user is in who visits as `member`, by those whose visits were noted before.
    #[must_use]
    pub fn company(&self, group: Group, member: &Member) -> Company {
        let members = group.place.map_or(&[][..], |place| &self.groups.at(place).members);
        let with = || members.iter().filter(|other| other.is_with(member));
        if with().next().is_none() {
            // Most come alone.
            return Company { users: 1, ..Company::default() };
        }
        let own = || with().filter(|other| other.tenant == member.tenant);
        let others = Others::of(with().filter(|other| other.tenant != member.tenant));
        // The eldest of a full group makes room.
        let of_tenant = (own().count() + 1).min(USERS_MAX);
        let users = of_tenant + others.users;
        let oddness = own().map(|other| f64::from(other.oddness)).sum::<f64>() + others.oddness;
        let mostly_own = 4 * of_tenant >= 3 * users;
        let apps = if users >= USERS_MIN && mostly_own { apps(own().chain([member])) } else { 0 };
        Company { users, oddness, apps }
    }

    /// Notes a user's latest visit in a group. Visits more than the window before it are forgotten; one that is told late
    /// makes nobody forgotten who came since. `now`: the stream's time, milliseconds since the epoch.
    pub fn join(&mut self, group: Group, member: Member, now: i64) {
        let by = Write { owner: member.seat, second: (now / 1_000) as u32 };
        let fleet = self.groups.entry_at(group.key, group.place, by, || Fleet { members: SmallVec::new() });
        let since = member.second.saturating_sub(WINDOW_SECONDS);
        fleet.members.retain(|other| other.second >= since && other.user != member.user);
        if fleet.members.len() >= USERS_MAX {
            // The eldest of the largest tenant makes room: 64 are a campaign as well as more are.
            let of =
                |member: &Member| fleet.members.iter().filter(|other| other.counts_as() == member.counts_as()).count();
            // Of equals the last is taken: the eldest comes first.
            let eldest = (0..fleet.members.len()).rev().max_by_key(|at| of(&fleet.members[*at])).unwrap_or(0);
            fleet.members.remove(eldest);
        }
        fleet.members.push(member);
    }

    /// An application is used by a tenant from where its users are at home.
    pub fn at_home(&mut self, app: u64, tenant: Tenant, at: i64) {
        let by = Write { owner: tenant.seat, second: (at / 1_000) as u32 };
        let home = self.homes.entry(app ^ tenant.key, by, Home::default);
        if let Some(hours) = fades(&mut home.at, at) {
            home.visits *= crate::math::faded(hours, 1.0);
            home.usual *= crate::math::faded(hours, 72.0);
        }
        home.visits += 1.0;
        home.usual += 1.0;
        let Some(seat) = tenant.seat else { return };
        let usual = self.usual.entry(app, by, Usual::default);
        if let Some(hours) = fades(&mut usual.at, at) {
            usual.visits.fade(crate::math::faded(hours, 72.0));
        }
        usual.visits.teach(seat, &[home.usual], &[1.0]);
    }

    /// The tenant's part of an application's usual visits, without the largest other tenant; 1 where nothing is known.
    #[must_use]
    pub fn tenant_share(&self, app: u64, tenant: Tenant, at: i64) -> f64 {
        let left = |since: i64| crate::math::faded((at - since).max(0) as f64 / 3_600_000.0, 72.0);
        let own = self.homes.get(app ^ tenant.key).map(|home| home.usual * left(home.at));
        let all = self.usual.get(app).map(|usual| usual.visits.count(tenant.seat) * left(usual.at));
        match (own, all) {
            (Some(own), Some(all)) if own > 0.0 => {
                let all = if tenant.seat.is_some() { all } else { own + all };
                (own / all.max(own)).min(1.0)
            }
            _ => 1.0,
        }
    }

    /// Share of a tenant's usual visits that an application still has from its users' own networks: near nothing after
    /// a migration. 1 where nothing is known.
    #[must_use]
    pub fn home_share(&self, app: u64, tenant: Tenant, at: i64) -> f64 {
        let Some(home) = self.homes.get(app ^ tenant.key) else { return 1.0 };
        let hours = (at - home.at).max(0) as f64 / 3_600_000.0;
        // In a steady state each is its half-life over ln 2 times the rate.
        let now = home.visits * crate::math::faded(hours, 1.0);
        let usual = home.usual * crate::math::faded(hours, 72.0) / 72.0;
        if usual < 1.0 { 1.0 } else { (now / usual).min(1.0) }
    }
}

/// Spreads a key over all 64 bits, one to one: the lower bits of a group's key are the number of its kind, and the table
/// takes the place of an entry from the lower bits of its key.
const fn mixed(key: u64) -> u64 {
    let mixed = (key ^ key >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}

/// Hours by which something fades that has faded up to `since`, and does so up to `at` now.
fn fades(since: &mut i64, at: i64) -> Option<f64> {
    if *since > at + AHEAD_MS_MAX {
        *since = at;
    }
    if at - *since < FADE_STEP_MS {
        return None;
    }
    let hours = (at - *since) as f64 / 3_600_000.0;
    *since = at;
    Some(hours)
}

/// Other tenants in a group: one user of each, the oddest. Of the tenants that are odd, and of those that are not, the one
/// that shows it most is left out. A single other tenant therefore has no influence.
#[derive(Default)]
struct Others {
    users: usize,
    oddness: f64,
}

impl Others {
    fn of<'a>(members: impl Iterator<Item = &'a Member>) -> Self {
        let mut members = members.peekable();
        if members.peek().is_none() {
            return Self::default();
        }
        let mut tenants = [(0, 0.0_f64); TENANTS_MAX];
        let mut found = 0;
        for member in members {
            let (number, oddness) = (member.counts_as(), f64::from(member.oddness));
            if let Some(known) = tenants[..found].iter_mut().find(|known| known.0 == number) {
                known.1 = known.1.max(oddness);
            } else if found < TENANTS_MAX {
                // Tenants without a seat may be invented, so they are no evidence for the owner.
                let least = if member.seat.is_some() { f64::NEG_INFINITY } else { 0.0 };
                tenants[found] = (number, oddness.max(least));
                found += 1;
            }
        }
        let oddness = tenants[..found].iter().map(|tenant| tenant.1);
        let (most, least) =
            oddness.clone().fold((0.0, 0.0), |(most, least), odd| (f64::max(most, odd), f64::min(least, odd)));
        Self { users: found.saturating_sub(1), oddness: oddness.sum::<f64>() - most - least }
    }
}

/// Different applications of members, up to [`SEVERAL_APPS`].
fn apps<'a>(members: impl Iterator<Item = &'a Member>) -> usize {
    let mut apps = [0; SEVERAL_APPS];
    let mut found = 0;
    for member in members {
        if found < SEVERAL_APPS && !apps[..found].contains(&member.app) {
            apps[found] = member.app;
            found += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tenants::seated;

    fn join(fleets: &mut Fleets, group: u64, member: Member) -> Company {
        let company = company(fleets, group, &member);
        fleets.join(fleets.group(group), member, i64::from(member.second) * 1_000);
        company
    }

    fn company(fleets: &Fleets, group: u64, member: &Member) -> Company {
        fleets.company(fleets.group(group), member)
    }

    #[test]
    fn group_keeps_newer_visits_when_one_comes_late() {
        let mut fleets = Fleets::default();
        let member = |user, at| Member::new(user, seated(1), user, at, 0.0);
        let hour = 3_600_000;
        (0..3).for_each(|user| _ = join(&mut fleets, 1, member(user, 9 * hour)));
        assert_eq!(join(&mut fleets, 1, member(7, hour)).users, 1);
        assert_eq!(join(&mut fleets, 1, member(8, 9 * hour)).users, 4);
    }

    #[test]
    fn a_group_counts_users_of_the_last_two_hours_once_each() {
        let mut fleets = Fleets::default();
        let member = |user, at, oddness| Member::new(user, seated(1), user, at, oddness);
        join(&mut fleets, 1, member(7, 0, 1.0));
        join(&mut fleets, 1, member(7, 1_000, 2.0));
        let company = join(&mut fleets, 1, member(8, 2_000, -1.0));
        assert_eq!(company, Company { users: 2, oddness: 2.0, apps: 0 });
        let same_app = Member::new(9, seated(1), 8, 2_000, 0.0);
        assert_eq!(join(&mut fleets, 1, same_app), Company { users: 3, oddness: 1.0, apps: 2 });
        let stranger = |user: u64, tenant: u16| Member::new(user, seated(tenant), user, 2_000, 0.0);
        assert_eq!(join(&mut fleets, 1, stranger(10, 2)).apps, 0, "a guest of another tenant's");
        assert_eq!(
            join(&mut fleets, 1, Member::new(11, seated(1), 11, 2_000, 0.0)).apps,
            3,
            "who is with four of their own"
        );
        for user in 12..16 {
            assert_eq!(
                join(&mut fleets, 1, stranger(user, user as u16)).apps,
                0,
                "accounts of a thief's own explain nothing"
            );
        }
        assert_eq!(join(&mut fleets, 1, member(9, 3 * 3_600_000, 0.0)).users, 1);
        assert_eq!(join(&mut fleets, 2, member(9, 0, 0.0)).users, 1, "groups are kept apart");
    }

    #[test]
    fn group_is_dropped_after_its_lifetime_and_no_sooner() {
        let mut fleets = Fleets::default();
        let (hour, minute) = (3_600_000, 60_000);
        let begin = 1_000 * hour;
        let member = |user, at| Member::new(user, seated(1), user, at, 0.0);
        join(&mut fleets, 1, member(7, begin));
        for number in 0..1_000 {
            join(&mut fleets, 10 + number, member(number, begin + 60 * minute));
        }
        assert_eq!(join(&mut fleets, 1, member(8, begin + 110 * minute)).users, 2, "two within the window");
        for number in 0..1_000 {
            join(&mut fleets, 2_000 + number, member(number, begin + 9 * hour));
        }
        assert!(fleets.groups.len() < 1_100, "others have taken their places: {}", fleets.groups.len());
    }

    #[test]
    fn an_application_that_has_moved_falls_silent_at_home() {
        let mut fleets = Fleets::default();
        let hour = 3_600_000;
        for step in 0..4_000 {
            fleets.at_home(1, seated(step as u16 % 4), step * hour / 10);
        }
        let end = 400 * hour;
        assert!(fleets.home_share(1, seated(0), end) > 0.8);
        assert!(fleets.home_share(1, seated(0), end + 6 * hour) < 0.05);
        assert!((fleets.home_share(2, seated(0), end) - 1.0).abs() < 1e-12);
        assert!((fleets.tenant_share(1, seated(0), end) - 1.0 / 3.0).abs() < 0.02, "one of four, and one is left out");
        assert!((fleets.tenant_share(2, seated(0), end) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn group_leaves_out_one_other_tenant() {
        let mut fleets = Fleets::default();
        let member = |user: u64, tenant, oddness| Member::new(user, tenant, user, 0, oddness);
        let company = |fleets: &Fleets| company(fleets, 1, &member(1, seated(0), 0.0));
        let alone = company(&fleets);
        for user in 0..200 {
            join(&mut fleets, 1, member(10 + user, seated(1), 3.0));
        }
        assert_eq!(company(&fleets), alone, "one tenant");
        let invented = |number| Tenant { key: 5_000 + number, seat: None };
        for user in 0..200 {
            join(&mut fleets, 1, member(1_000 + user, invented(user), -2.0));
        }
        assert_eq!(company(&fleets).users, 2, "tenants without a seat are one");
        assert!(company(&fleets).oddness.abs() < 1e-9, "and speak for nobody");
        join(&mut fleets, 1, member(2, seated(0), 1.0));
        for user in 0..200 {
            join(&mut fleets, 1, member(2_000 + user, seated(1), 3.0));
        }
        assert_eq!(company(&fleets).users, 3, "its own two are kept, beside one of others");
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
        let users = groups.map(|group| company(&fleets, group, &member(2, seated(0))).users).collect::<Vec<_>>();
        users.iter().copied().min().unwrap_or(0)..=users.iter().copied().max().unwrap_or(0)
    }

    #[test]
    fn networks_of_other_tenants_push_out_no_groups() {
        assert_eq!(users_after(|_| seated(1)), 3..=3, "of one");
        assert_eq!(users_after(|number| seated(1 + number as u16 % 2)), 3..=3, "of two");
        assert_eq!(users_after(|number| Tenant { key: 5_000 + number, seat: None }), 3..=3, "of invented ones");
        // The control: a tenant pushes out its own.
        assert_eq!(*users_after(|_| seated(0)).start(), 1);
    }

    #[test]
    fn applications_of_one_tenant_push_out_no_homes() {
        let (mut fleets, hour) = (Fleets::default(), 3_600_000);
        (0..2_000).for_each(|step| fleets.at_home(1, seated(0), step * hour / 10));
        let end = 200 * hour;
        for app in 0..2 * FLEETS_MAX as u64 {
            fleets.at_home(1_000_000 + app, seated(1), end);
        }
        assert!(fleets.home_share(1, seated(0), end + 6 * hour) < 0.05, "it has moved, and that is known");
    }

    #[test]
    fn home_share_is_the_tenants_own() {
        let (mut fleets, hour) = (Fleets::default(), 3_600_000);
        for step in 0..2_000 {
            fleets.at_home(1, seated(0), step * hour / 10);
        }
        let (end, before) = (200 * hour, |fleets: &Fleets, at| fleets.home_share(1, seated(0), at));
        let share = before(&fleets, end + 6 * hour);
        (0..50_000).for_each(|step| fleets.at_home(1, seated(1), end + step * 100));
        assert!((fleets.home_share(1, seated(0), end + 6 * hour) - share).abs() < 1e-12);
        assert!((fleets.tenant_share(1, seated(0), end) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn users_of_several_other_tenants_explain_a_move() {
        let mut fleets = Fleets::default();
        let member = |user: u64, tenant, oddness| Member::new(user, tenant, user, 0, oddness);
        let seen = |fleets: &mut Fleets| {
            let company = join(fleets, 1, member(1, seated(0), 0.0));
            (company.users, company.oddness)
        };
        (1..5).for_each(|tenant| _ = join(&mut fleets, 1, member(10 + u64::from(tenant), seated(tenant), -2.0)));
        assert_eq!(seen(&mut fleets), (4, -6.0), "three of four");
        let stranger = Tenant { key: 5_000, seat: None };
        (0..100).for_each(|user| _ = join(&mut fleets, 1, member(100 + user, stranger, -2.0)));
        assert_eq!(seen(&mut fleets), (5, -6.0), "tenants without a seat do not lower the oddness");
        (0..100).for_each(|user| _ = join(&mut fleets, 1, member(300 + user, seated(5), -2.0)));
        assert_eq!(seen(&mut fleets), (6, -8.0), "as the four without it, and no more");
        join(&mut fleets, 1, member(15, seated(4), 1.0));
        assert_eq!(seen(&mut fleets), (6, -6.0), "a tenant with an odd user is no evidence for the owner");
    }
}
