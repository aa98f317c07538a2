//! Windows of two hours with enough users.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::evidence::WINDOW_MS;
use crate::appearance::Appearance;
use crate::millis::DAY_MS;
use crate::verdict::RuleId;

/// Appearances by time and event.
pub(super) type InOrder = BTreeMap<(i64, u64), Arc<Appearance>>;

/// Appearances that may have one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// Through one application.
    App(u64),
    /// From one address.
    Address(u32),
}

impl Group {
    pub(super) const fn rule(self) -> RuleId {
        match self {
            Self::App(_) => RuleId::AppFanout,
            Self::Address(_) => RuleId::IpFanout,
        }
    }

    /// The groups of an appearance on its network.
    pub(super) fn of(appearance: &Appearance) -> impl Iterator<Item = Self> + use<> {
        [appearance.app.map(Self::App), Some(Self::Address(appearance.address))].into_iter().flatten()
    }
}

/// The appearances of one tenant and day that are in windows with enough users.
#[derive(Debug, Default)]
pub(super) struct Qualified<'a> {
    pub(super) appearances: Vec<&'a Appearance>,
    /// The largest number of users among these windows.
    pub(super) users: usize,
}

/// The members of a group that are in the current window or were in an earlier one, of one tenant.
#[derive(Debug, Default)]
struct Members<'a> {
    /// All of them, by time.
    all: Vec<&'a Appearance>,
    /// Those in the window: the indexes of the first and after the last one.
    begin: usize,
    end: usize,
    /// The index after the last one that has qualified.
    done: usize,
    /// Users in the window, with the number of appearances of each.
    users: BTreeMap<u64, usize>,
}

impl Members<'_> {
    fn enter(&mut self) {
        *self.users.entry(self.all[self.end].user).or_default() += 1;
        self.end += 1;
    }

    /// Returns whether none is left.
    fn leave(&mut self) -> bool {
        let user = self.all[self.begin].user;
        self.begin += 1;
        if let Some(count) = self.users.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(&user);
            }
        }
        self.begin == self.end
    }
}

/// The tenants in a window.
#[derive(Debug, Default)]
struct Present {
    known: usize,
    /// Their names may be invented, so all of them count as one.
    unknown: usize,
}

impl Present {
    const fn of(&mut self, is_known: bool) -> &mut usize {
        if is_known { &mut self.known } else { &mut self.unknown }
    }

    /// Number of tenants other than the one whose users are counted, except one.
    fn others(&self) -> usize {
        (self.known + self.unknown.min(1)).saturating_sub(2)
    }
}

/// The appearances in windows that contain the time `at` and have enough users, by `fires`; by tenant and day. `all`: a
/// group on one network. The users of a tenant count, and one user of each other tenant except one.
pub(super) fn qualified<'a>(
    all: &'a InOrder,
    at: i64,
    fires: &impl Fn(usize) -> bool,
) -> BTreeMap<(u64, i64), Qualified<'a>> {
    let near = all.range((at - WINDOW_MS, 0)..=(at + WINDOW_MS, u64::MAX));
    let near: Vec<&Appearance> = near.map(|(_, near)| &**near).collect();
    let known: BTreeSet<u64> = near.iter().filter(|near| near.tenant_is_known).map(|near| near.tenant).collect();
    let mut tenants = BTreeMap::<u64, Members<'a>>::new();
    for appearance in &near {
        tenants.entry(appearance.tenant).or_default().all.push(appearance);
    }
    let mut found = BTreeMap::<(u64, i64), Qualified<'a>>::new();
    let (mut end, mut present) = (0, Present::default());
    for begin in &near {
        let from = begin.at.millis();
        if from > at {
            break;
        }
        while let Some(next) = near.get(end).filter(|next| next.at.millis() <= from + WINDOW_MS) {
            if let Some(members) = tenants.get_mut(&next.tenant) {
                *present.of(known.contains(&next.tenant)) += usize::from(members.users.is_empty());
                members.enter();
            }
            end += 1;
        }
        // The window that begins here contains `at`, because `near` begins one window before it.
        let others = present.others();
        for (tenant, members) in &mut tenants {
            let count = members.users.len() + others;
            if !members.users.is_empty() && fires(count) {
                qualify(&mut found, *tenant, members, count);
            }
        }
        if let Some(members) = tenants.get_mut(&begin.tenant) {
            *present.of(known.contains(&begin.tenant)) -= usize::from(members.leave());
        }
    }
    found
}

/// Adds the members in the window that have not qualified yet. A window has members of at most two days: those of its
/// first and of its last member.
fn qualify<'a>(found: &mut BTreeMap<(u64, i64), Qualified<'a>>, tenant: u64, members: &mut Members<'a>, users: usize) {
    for index in members.done.max(members.begin)..members.end {
        let appearance = members.all[index];
        found.entry((tenant, day_of(appearance))).or_default().appearances.push(appearance);
    }
    members.done = members.done.max(members.end);
    for index in [members.begin, members.end - 1] {
        let qualified = found.entry((tenant, day_of(members.all[index]))).or_default();
        qualified.users = qualified.users.max(users);
    }
}

/// Day of the appearance, UTC, since the epoch.
const fn day_of(appearance: &Appearance) -> i64 {
    appearance.at.millis().div_euclid(DAY_MS)
}
