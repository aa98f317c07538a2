//! The appearances that are kept, and their limits.
//!
//! Each limit counts users, so that a user with many calls displaces no appearance of another user. Above a limit, appearances between
//! the first and the last ones are dropped: a window that has one of them also has the first or the last ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::evidence::{WINDOW_MS, order_of};
use super::window::{Group, InOrder};
use crate::appearance::Appearance;

/// Maximum number of appearances.
const APPEARANCES_MAX: usize = 1 << 16;
/// Maximum number of appearances of one user on one network in a period of two hours.
const OF_USER_MAX: usize = 16;
/// Maximum number of users of one tenant in a group in a period of two hours.
const OF_GROUP_MAX: usize = 256;
/// Number of users of a full group that are kept because they appeared first in the period, and because they were the last
/// to appear in it.
const AT_EACH_END: usize = 100;
/// Number under which all unknown tenants are counted, because their names may be invented.
const UNKNOWN: u64 = 0;

/// The appearances by group, by user and by tenant. All unknown tenants count as one.
#[derive(Debug, Default)]
pub(super) struct Held {
    groups: BTreeMap<(u32, Group), InOrder>,
    /// By network, period of two hours, and user.
    users: BTreeMap<(u32, i64, u64), InOrder>,
    tenants: BTreeMap<u64, InOrder>,
    len: usize,
    dropped: u64,
}

impl Held {
    /// Adds an appearance. `None`: it is known.
    pub(super) fn add(&mut self, appearance: Appearance) -> Option<Arc<Appearance>> {
        let (order, network) = (order_of(&appearance), appearance.network);
        let of_user = self.users.entry((network, period_of(&appearance), appearance.user)).or_default();
        if of_user.contains_key(&order) {
            return None;
        }
        let appearance = Arc::new(appearance);
        of_user.insert(order, Arc::clone(&appearance));
        self.tenants.entry(counted_tenant(&appearance)).or_default().insert(order, Arc::clone(&appearance));
        for group in Group::of(&appearance) {
            self.groups.entry((network, group)).or_default().insert(order, Arc::clone(&appearance));
        }
        self.len += 1;
        Some(appearance)
    }

    /// The appearances of a group on a network.
    pub(super) fn group(&self, network: u32, group: Group) -> Option<&InOrder> {
        self.groups.get(&(network, group))
    }

    /// Drops what is above a limit since `last` was added. The campaigns with `last` must have been found.
    pub(super) fn fit(&mut self, last: &Appearance) {
        let of_user = self.users.get(&(last.network, period_of(last), last.user));
        if let Some(surplus) = of_user.filter(|of_user| of_user.len() > OF_USER_MAX).and_then(surplus) {
            self.remove(&surplus);
            self.dropped += 1;
        }
        for group in Group::of(last) {
            self.fit_group(last, group);
        }
        while self.len > APPEARANCES_MAX
            && let Some(of_tenant) = self.tenants.values().max_by_key(|of_tenant| of_tenant.len())
            && let Some((_, earliest)) = of_tenant.first_key_value()
        {
            let earliest = Arc::clone(earliest);
            self.remove(&earliest);
            self.dropped += 1;
        }
    }

    /// Drops a user of the tenant of `last` from the group if there are too many in the period. All of them are in one
    /// window, so each user of a known tenant is a victim already.
    fn fit_group(&mut self, last: &Appearance, group: Group) {
        let Some(all) = self.group(last.network, group).filter(|all| all.len() > OF_GROUP_MAX) else {
            return;
        };
        let begin = period_of(last).saturating_mul(WINDOW_MS);
        let of_tenant = all.range((begin, 0)..(begin.saturating_add(WINDOW_MS), 0));
        let of_tenant: Vec<_> = of_tenant.filter(|(_, other)| counted_tenant(other) == counted_tenant(last)).collect();
        let mut users = BTreeMap::new();
        for (order, appearance) in &of_tenant {
            users.entry(appearance.user).or_insert((**order, **order)).1 = **order;
        }
        if users.len() <= OF_GROUP_MAX {
            return;
        }
        let mut by_first: Vec<_> = users.iter().map(|(user, (first, _))| (*first, *user)).collect();
        let mut by_last: Vec<_> = users.iter().map(|(user, (_, last))| (*last, *user)).collect();
        by_first.sort_unstable();
        by_last.sort_unstable_by(|one, other| other.cmp(one));
        let ends = by_first.iter().take(AT_EACH_END).chain(by_last.iter().take(AT_EACH_END));
        let ends: BTreeSet<u64> = ends.map(|(_, user)| *user).collect();
        let Some(surplus) = users.keys().find(|user| !ends.contains(user)) else { return };
        let of_surplus = of_tenant.iter().filter(|(_, appearance)| appearance.user == *surplus);
        let of_surplus: Vec<_> = of_surplus.map(|(_, appearance)| Arc::clone(appearance)).collect();
        for appearance in of_surplus {
            let order = order_of(&appearance);
            remove_from(&mut self.groups, &(last.network, group), order);
            let is_held = |group| self.group(last.network, group).is_some_and(|all| all.contains_key(&order));
            if !Group::of(&appearance).any(is_held) {
                self.remove(&appearance);
                self.dropped += 1;
            }
        }
    }

    fn remove(&mut self, appearance: &Appearance) {
        let order = order_of(appearance);
        for group in Group::of(appearance) {
            remove_from(&mut self.groups, &(appearance.network, group), order);
        }
        remove_from(&mut self.users, &(appearance.network, period_of(appearance), appearance.user), order);
        remove_from(&mut self.tenants, &counted_tenant(appearance), order);
        self.len -= 1;
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Number of appearances that were dropped.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }
}

fn remove_from<K: Ord>(all: &mut BTreeMap<K, InOrder>, key: &K, order: (i64, u64)) {
    if let Some(some) = all.get_mut(key) {
        some.remove(&order);
        if some.is_empty() {
            all.remove(key);
        }
    }
}

const fn counted_tenant(appearance: &Appearance) -> u64 {
    if appearance.tenant_is_known { appearance.tenant } else { UNKNOWN }
}

/// The period of two hours, aligned to the epoch.
const fn period_of(appearance: &Appearance) -> i64 {
    appearance.at.millis().div_euclid(WINDOW_MS)
}

/// An appearance of a user that is neither the first nor the last one with its application or from its address; if there is
/// none, the one in the middle.
fn surplus(of_user: &InOrder) -> Option<Arc<Appearance>> {
    let all: Vec<_> = of_user.values().collect();
    let is_between = |index: usize| {
        let has =
            |others: &[&Arc<Appearance>], group| others.iter().any(|other| Group::of(other).any(|of| of == group));
        Group::of(all[index]).all(|group| has(&all[..index], group) && has(&all[index + 1..], group))
    };
    let index = (0..all.len()).find(|index| is_between(*index)).unwrap_or(all.len() / 2);
    all.get(index).map(|appearance| Arc::clone(appearance))
}
