//! Who has lately come from where with one application, or from one address: the ground on which a campaign is seen.

use smallvec::SmallVec;

use super::generations::Generations;

/// Visitors kept a group, and for how long.
const USERS_MAX: usize = 64;
const WINDOW_SECONDS: u32 = 2 * 3_600;
const WINDOW_MS: i64 = WINDOW_SECONDS as i64 * 1_000;
const FLEETS_MAX: usize = 1 << 17;
/// A group is weighed from so many users on.
pub const USERS_MIN: usize = 3;
/// So many applications are several.
pub const SEVERAL_APPS: usize = 3;
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
}

impl Member {
    /// `at`: milliseconds since the epoch; `oddness`: how unlike its owner this visit is, route + ½ client + hour.
    #[must_use]
    pub fn new(user: u64, tenant: u64, app: u64, at: i64, oddness: f64) -> Self {
        let oddness = oddness.clamp(-2.0, 3.0) as f32;
        Self { user, tenant, app, second: (at / 1_000) as u32, oddness }
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
    /// Users of the last two hours, the asker among them.
    pub users: usize,
    /// Sum of the others' oddness.
    pub oddness: f64,
    /// Their applications, counted up to [`SEVERAL_APPS`], where there are [`USERS_MIN`] users and three in four of
    /// them are of the asker's tenant; else 0.
    pub apps: usize,
}

/// Groups by application and network, by application and prefix, and by address.
#[derive(Debug)]
pub struct Fleets {
    groups: Generations<Fleet>,
    /// When groups were forgotten last, milliseconds since the epoch.
    forgot_at: i64,
    /// When an application was last used from networks that its users know, and how often lately.
    homes: Generations<Home>,
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

impl Default for Fleets {
    fn default() -> Self {
        Self { groups: Generations::new(FLEETS_MAX), forgot_at: 0, homes: Generations::new(FLEETS_MAX) }
    }
}

impl Fleets {
    /// Forgets the groups that nobody has come to within the window before `watermark`: most are such, and those that are
    /// not stay near the processor. `now` may be far ahead of a watermark that hardly moves, and groups are joined now. Both
    /// in milliseconds since the epoch.
    pub fn forget(&mut self, watermark: i64, now: i64) {
        // Where the clock has gone back by more than the window, the groups are of a time that was wrong.
        if watermark - self.forgot_at > WINDOW_MS || self.forgot_at > now + WINDOW_MS {
            self.groups.turn_over();
            self.forgot_at = now;
        }
    }

    /// What company a user is in who visits as `member`, by those whose visits were noted before.
    #[must_use]
    pub fn company(&self, group: u64, member: &Member) -> Company {
        let members = self.groups.get(group).map_or(&[][..], |fleet| &fleet.members);
        let others = || members.iter().filter(|other| other.is_with(member));
        let oddness = others().map(|other| f64::from(other.oddness)).sum();
        // Of a full group the eldest makes room.
        let full = others().count() >= USERS_MAX;
        let all = || others().skip(usize::from(full)).chain([member]);
        let users = all().count();
        Company { users, oddness, apps: if users >= USERS_MIN { apps(all(), member.tenant) } else { 0 } }
    }

    /// Notes a user's latest visit in a group. Visits more than the window before it are forgotten; one that is told late
    /// makes nobody forgotten who came since.
    pub fn join(&mut self, group: u64, member: Member) {
        let fleet = self.groups.entry(group, || Fleet { members: SmallVec::new() });
        let since = member.second.saturating_sub(WINDOW_SECONDS);
        fleet.members.retain(|other| other.second >= since && other.user != member.user);
        if fleet.members.len() >= USERS_MAX {
            // The eldest makes room: 64 are a campaign as well as more are.
            fleet.members.remove(0);
        }
        fleet.members.push(member);
    }

    /// An application is used by a tenant from where its users are at home.
    pub fn at_home(&mut self, app: u64, tenant: u64, at: i64) {
        for key in [app, app ^ tenant] {
            let home = self.homes.entry(key, Home::default);
            if home.at > at + AHEAD_MS_MAX {
                home.at = at;
            }
            if at - home.at >= FADE_STEP_MS {
                let hours = (at - home.at) as f64 / 3_600_000.0;
                home.visits *= crate::math::faded(hours, 1.0);
                home.usual *= crate::math::faded(hours, 72.0);
                home.at = at;
            }
            home.visits += 1.0;
            home.usual += 1.0;
        }
    }

    /// The tenant's part of an application's usual visits; 1 where nothing is known.
    #[must_use]
    pub fn tenant_share(&self, app: u64, tenant: u64, at: i64) -> f64 {
        let usual = |key: u64| {
            let home = self.homes.get(key)?;
            Some(home.usual * crate::math::faded((at - home.at).max(0) as f64 / 3_600_000.0, 72.0))
        };
        match (usual(app ^ tenant), usual(app)) {
            (Some(of_tenant), Some(all)) if all > 0.0 => (of_tenant / all).min(1.0),
            _ => 1.0,
        }
    }

    /// Share of its usual visits that an application still has from its users' own networks: near nothing after a
    /// migration. 1 where nothing is known.
    #[must_use]
    pub fn home_share(&self, app: u64, at: i64) -> f64 {
        let Some(home) = self.homes.get(app) else { return 1.0 };
        let hours = (at - home.at).max(0) as f64 / 3_600_000.0;
        // In a steady state each is its half-life over ln 2 times the rate.
        let now = home.visits * crate::math::faded(hours, 1.0);
        let usual = home.usual * crate::math::faded(hours, 72.0) / 72.0;
        if usual < 1.0 { 1.0 } else { (now / usual).min(1.0) }
    }
}

/// Different applications of `tenant`, up to [`SEVERAL_APPS`], where three in four members are its own: members of
/// other tenants may be anybody's, and explain nobody. Else 0.
fn apps<'a>(members: impl Iterator<Item = &'a Member>, tenant: u64) -> usize {
    let mut apps = [0; SEVERAL_APPS];
    let (mut found, mut own, mut all) = (0, 0, 0);
    for member in members {
        all += 1;
        if member.tenant != tenant {
            continue;
        }
        own += 1;
        if found < SEVERAL_APPS && !apps[..found].contains(&member.app) {
            apps[found] = member.app;
            found += 1;
        }
    }
    if 4 * own >= 3 * all { found } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(fleets: &mut Fleets, group: u64, member: Member) -> Company {
        let company = fleets.company(group, &member);
        fleets.join(group, member);
        company
    }

    #[test]
    fn group_keeps_newer_visits_when_one_comes_late() {
        let mut fleets = Fleets::default();
        let member = |user, at| Member::new(user, 1, user, at, 0.0);
        let hour = 3_600_000;
        (0..3).for_each(|user| fleets.join(1, member(user, 9 * hour)));
        assert_eq!(join(&mut fleets, 1, member(7, hour)).users, 1);
        assert_eq!(join(&mut fleets, 1, member(8, 9 * hour)).users, 4);
    }

    #[test]
    fn a_group_counts_users_of_the_last_two_hours_once_each() {
        let mut fleets = Fleets::default();
        let member = |user, at, oddness| Member::new(user, 1, user, at, oddness);
        join(&mut fleets, 1, member(7, 0, 1.0));
        join(&mut fleets, 1, member(7, 1_000, 2.0));
        let company = join(&mut fleets, 1, member(8, 2_000, -1.0));
        assert_eq!(company, Company { users: 2, oddness: 2.0, apps: 0 });
        let same_app = Member::new(9, 1, 8, 2_000, 0.0);
        assert_eq!(join(&mut fleets, 1, same_app), Company { users: 3, oddness: 1.0, apps: 2 });
        let stranger = |user, tenant| Member::new(user, tenant, user, 2_000, 0.0);
        assert_eq!(join(&mut fleets, 1, stranger(10, 2)).apps, 0, "a guest of another tenant's");
        assert_eq!(join(&mut fleets, 1, Member::new(11, 1, 11, 2_000, 0.0)).apps, 3, "who is with four of their own");
        for user in 12..20 {
            assert_eq!(
                join(&mut fleets, 1, stranger(user, 2 + user % 2)).apps,
                0,
                "accounts of a thief's own explain nothing"
            );
        }
        assert_eq!(join(&mut fleets, 1, member(9, 3 * 3_600_000, 0.0)).users, 1);
        assert_eq!(join(&mut fleets, 2, member(9, 0, 0.0)).users, 1, "groups are kept apart");
    }

    #[test]
    fn a_group_is_forgotten_when_nobody_came_for_two_hours_and_no_sooner() {
        let mut fleets = Fleets::default();
        let member = |user, at| Member::new(user, 1, user, at, 0.0);
        let (hour, minute) = (3_600_000, 60_000);
        // A quiet night: the watermark lies hours behind what goes on.
        let begin = 1_000 * hour;
        join(&mut fleets, 1, member(7, begin + 5 * hour));
        fleets.forget(begin, begin + 5 * hour);
        // A busy morning moves it on at once.
        fleets.forget(begin + 5 * hour, begin + 5 * hour + 6 * minute);
        assert_eq!(
            join(&mut fleets, 1, member(8, begin + 5 * hour + 6 * minute)).users,
            2,
            "who came minutes ago is known"
        );
        fleets.forget(begin + 8 * hour, begin + 8 * hour);
        fleets.forget(begin + 11 * hour, begin + 11 * hour);
        assert_eq!(fleets.groups.len(), 0);
    }

    #[test]
    fn an_application_that_has_moved_falls_silent_at_home() {
        let mut fleets = Fleets::default();
        let hour = 3_600_000;
        for step in 0..4_000 {
            fleets.at_home(1, 7 + step as u64 % 4, step * hour / 10);
        }
        let end = 400 * hour;
        assert!(fleets.home_share(1, end) > 0.8);
        assert!(fleets.home_share(1, end + 6 * hour) < 0.05);
        assert!((fleets.home_share(2, end) - 1.0).abs() < 1e-12);
        assert!((fleets.tenant_share(1, 7, end) - 0.25).abs() < 0.02, "one tenant of four");
        assert!((fleets.tenant_share(2, 7, end) - 1.0).abs() < 1e-12);
    }
}
