//! Popularity of routes in the population, and the preferences of a thief among them.

use serde::{Deserialize, Serialize};

use super::generations::{Generations, Map};
use super::limits::Limits;
use super::shared::{Contribution, Own, Shared, Sums, Values};
use super::tenants::{BySeat, Seat, Tenant};
use super::usage::Usage;
use crate::math::{exp, ln};

/// Routes per generation. There are two, and a route that is called moves to the younger one.
const GENERATION: usize = 1 << 15;
/// A route with fewer calls than this is rare.
const RARE_BELOW: f64 = 2.0;
/// Number of all calls from which a route can be rare.
const KNOWN_CALLS: f64 = 2_000.0;
/// The thief's preference for all rare routes: that of twenty ordinary routes, √0.3 each.
pub(crate) const UNKNOWN: f64 = 20.0 * 0.547_722_557_505_166_1;

/// Counts of one tenant and route.
const OWN_MAX: usize = 1 << 18;

/// Use of one route in the population, as one tenant reads it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RouteUse {
    count: f64,
    /// How attractive its words are to a thief; 1 is an ordinary route.
    pub(crate) promise: f32,
    /// promise^0.6
    lure: f32,
}

impl RouteUse {
    /// A route without calls.
    pub(crate) fn new(promise: f64) -> Self {
        Self { count: 0.0, promise: promise as f32, lure: exp(0.6 * ln(promise)) as f32 }
    }

    /// promise^0.6: the thief's preference relative to an ordinary route.
    pub(crate) fn lure(self) -> f64 {
        f64::from(self.lure)
    }

    /// Calls, the thief's preference, and number of routes, for the sums.
    fn values(self, count: f64) -> [f64; 3] {
        [count, self.preference_of(count), 1.0]
    }

    /// The thief's preference: `(count + 0.3)^0.5 · promise^0.6`.
    fn preference(self) -> f64 {
        self.preference_of(self.count)
    }

    /// The same for another number of calls.
    pub(crate) fn preference_of(self, count: f64) -> f64 {
        libm::sqrt(count + 0.3) * f64::from(self.lure)
    }
}

/// One route as the table stores it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Held {
    calls: Shared<1>,
    used: RouteUse,
    /// Its values in the sums.
    values: Values<3>,
}

impl Held {
    fn new(promise: f64) -> Self {
        Self { calls: Shared::default(), used: RouteUse::new(promise), values: Values::ZERO }
    }

    fn read(&self, seat: Option<Seat>) -> RouteUse {
        RouteUse { count: self.calls.count(seat), ..self.used }
    }

    /// Counts a call of a tenant with a seat, and returns the use of the route.
    fn learn(
        &mut self,
        sums: &mut Sums<3>,
        owns: &mut Generations<Own>,
        (tenant, seat): (Tenant, Seat),
        (route, weight): (u32, f64),
    ) -> RouteUse {
        let contribution = if self.calls.stores(seat) {
            Contribution::of_stored(seat, weight)
        } else {
            own_contribution(owns, tenant, seat, (route, weight))
        };
        let displaced = self.calls.learn(&contribution);
        let values = self.calls.values(|count| self.used.values(count));
        sums.change(&self.values, &values);
        self.values = values;
        if let Some((seat, part)) = displaced {
            owns.insert(own(Tenant { key: 0, seat: Some(seat) }, route), Own::taught(part));
        }
        self.read(Some(seat))
    }
}

/// One generation with its sums.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Generation {
    routes: Map<u32, Held>,
    /// Number of routes that each tenant called first in this generation.
    made: BySeat<usize>,
    /// The same of all tenants.
    all_made: usize,
    /// Sums of calls, of the thief's preferences, and of routes.
    sums: Sums<3>,
}

impl Generation {
    fn take(&mut self, route: u32) -> Option<Held> {
        let held = self.routes.remove(&route)?;
        self.sums.change(&held.values, &Values::ZERO);
        Some(held)
    }
}

/// All routes. An invented path, or one with an id that looks like a word, is called once and evicted after 32,768
/// other routes. The table is never full.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Routes {
    young: Generation,
    old: Generation,
    /// Calls of each tenant and route, except for the two tenants whose parts the route itself stores. These parts are
    /// lost when the route is evicted.
    owns: Generations<Own>,
}

impl Default for Routes {
    fn default() -> Self {
        Self { young: Generation::default(), old: Generation::default(), owns: Generations::new(OWN_MAX) }
    }
}

/// Key of a tenant's own count of a route: by its seat, where it has one.
fn own(tenant: Tenant, route: u32) -> u64 {
    let tenant = tenant.seat.map_or(tenant.key, Seat::key);
    (tenant ^ u64::from(route)).wrapping_mul(0x9fb2_1c65_1e98_df25)
}

/// The tenant as it was before it had a seat.
const fn unseated(tenant: Tenant) -> Tenant {
    Tenant { seat: None, ..tenant }
}

/// Counts a call of a tenant whose part the route does not store.
fn own_contribution(
    owns: &mut Generations<Own>,
    tenant: Tenant,
    seat: Seat,
    (route, weight): (u32, f64),
) -> Contribution {
    let key = own(tenant, route);
    let counted = owns.entry(key, Own::default);
    if counted.count > 0.0 {
        return counted.teach(seat, weight);
    }
    let before = owns.remove(own(unseated(tenant), route)).unwrap_or_default();
    let counted = owns.entry(key, Own::default);
    *counted = before;
    counted.teach(seat, weight)
}

impl Routes {
    /// Upper limit of the bytes of the counts by tenant.
    pub(super) const OWN_BYTES_MAX: usize = Generations::<Own>::bytes_of(OWN_MAX);

    /// Changes the maximum number of counts by tenant.
    pub(super) fn limit(&mut self, limits: &Limits) {
        self.owns.limit(limits.scaled(OWN_MAX));
    }

    /// Bytes of all routes and counts, and number of evicted counts.
    pub(super) fn usage(&self) -> Usage {
        let routes = self.young.routes.allocation_size() + self.old.routes.allocation_size();
        self.owns.usage().plus(Usage { bytes: routes, evicted: 0 })
    }

    pub(crate) fn get(&self, tenant: Tenant, route: u32) -> Option<RouteUse> {
        let held = self.young.routes.get(&route).or_else(|| self.old.routes.get(&route))?;
        let mut used = held.read(tenant.seat);
        if tenant.seat.is_none() {
            used.count += self.owns.get(own(tenant, route)).map_or(0.0, |own| own.count);
        }
        Some(used)
    }

    /// Use of a route that is not in the table, by the calls of the tenant itself.
    pub(crate) fn of_own(&self, tenant: Tenant, route: u32, promise: f64) -> RouteUse {
        let count = self.owns.get(own(tenant, route)).or_else(|| self.owns.get(own(unseated(tenant), route)));
        RouteUse { count: count.map_or(0.0, |own| own.count), ..RouteUse::new(promise) }
    }

    /// Counts a call, and returns the use of the route.
    pub(crate) fn learn(&mut self, tenant: Tenant, route: u32, promise: f64, weight: f64) -> RouteUse {
        let Some(seat) = tenant.seat else {
            self.owns.entry(own(tenant, route), Own::default).count += weight;
            return self.get(tenant, route).unwrap_or_else(|| self.of_own(tenant, route, promise));
        };
        let Self { young: Generation { routes, sums, .. }, owns, .. } = self;
        if let Some(held) = routes.get_mut(&route) {
            return held.learn(sums, owns, (tenant, seat), (route, weight));
        }
        if !self.make(seat, route, promise) {
            self.owns.entry(own(tenant, route), Own::default).count += weight;
            return self.of_own(tenant, route, promise);
        }
        let Self { young: Generation { routes, sums, .. }, owns, .. } = self;
        routes.entry(route).or_insert_with(|| Held::new(promise)).learn(sums, owns, (tenant, seat), (route, weight))
    }

    /// Makes a route of the younger generation, or moves it there; `false` if the tenant has no room left in it.
    fn make(&mut self, seat: Seat, route: u32, promise: f64) -> bool {
        // If there are several tenants, none of them may fill a generation.
        let Generation { made, all_made, .. } = &mut self.young;
        let Some(made) = made.get_mut(seat) else { return false };
        if *made >= GENERATION / 2 && *all_made > *made {
            return false;
        }
        *made += 1;
        *all_made += 1;
        let held = self.old.take(route).unwrap_or_else(|| Held::new(promise));
        if self.young.routes.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.sums.change(&Values::ZERO, &held.values);
        self.young.routes.insert(route, held);
        true
    }

    /// Probability of a route among all calls, and the thief's probability of it among all routes.
    pub(crate) fn probabilities(&self, seat: Option<Seat>, used: RouteUse) -> (f64, f64) {
        let [calls, preferences, routes] = self.sums(seat);
        let of_calls = (used.count + 0.3) / (calls.max(used.count) + 0.3 * (routes + 20.0));
        (of_calls, used.preference() / (preferences + UNKNOWN))
    }

    /// Whether a route is rare: an id in a path that looks like a word, a name, or a guess.
    pub(crate) fn is_rare(&self, seat: Option<Seat>, used: RouteUse) -> bool {
        used.count < RARE_BELOW && self.sums(seat)[0] > KNOWN_CALLS
    }

    fn sums(&self, seat: Option<Seat>) -> [f64; 3] {
        let (young, old) = (self.young.sums.read(seat), self.old.sums.read(seat));
        std::array::from_fn(|at| young[at] + old[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tenants::seated;

    #[test]
    fn routes_keep_a_called_one_in_a_flood() {
        let mut routes = Routes::default();
        for number in 0..200_000 {
            routes.learn(seated(0), 1_000 + number, 1.0, 1.0);
            if number % 100 == 0 {
                routes.learn(seated(0), 7, 4.0, 1.0);
            }
        }
        let used = routes.get(seated(0), 7).expect("it is called once in 100 calls");
        assert!((used.count - 2_000.0).abs() < 1.0);
        assert!(routes.young.routes.len() + routes.old.routes.len() <= 2 * GENERATION);
        assert!(routes.get(seated(0), 1_000).is_none(), "called once, and evicted");
        assert!(routes.is_rare(seated(0).seat, RouteUse::new(1.0)) && !routes.is_rare(seated(0).seat, used));
        // The sums are those of the stored routes.
        let all: Vec<RouteUse> = routes
            .young
            .routes
            .values()
            .chain(routes.old.routes.values())
            .map(|held| held.read(seated(0).seat))
            .collect();
        let (calls, preferences) =
            all.iter().fold((0.0, 0.0), |sums, used| (sums.0 + used.count, sums.1 + used.preference()));
        let sums = routes.sums(seated(0).seat);
        assert!((sums[0] - calls).abs() < 1e-6 * calls);
        assert!((sums[1] - preferences).abs() < 1e-6 * preferences);
        let probability = |used: &RouteUse| routes.probabilities(seated(0).seat, *used).0;
        assert!((all.iter().map(probability).sum::<f64>() - 1.0).abs() < 1e-3);
    }

    #[test]
    fn recalled_routes_evict_no_others() {
        let mut routes = Routes::default();
        let all = |routes: &mut Routes| {
            (0..40_000).for_each(|number| _ = routes.learn(seated(0), 1_000 + number, 1.0, 1.0));
        };
        all(&mut routes);
        (0..100).for_each(|_| _ = routes.learn(seated(1), 7, 4.0, 1.0));
        (0..4).for_each(|_| all(&mut routes));
        let used = routes.get(seated(1), 7).expect("a route of another tenant");
        assert!((used.count - 100.0).abs() < 1e-9);
    }

    #[test]
    fn routes_of_one_tenant_evict_no_others() {
        let mut routes = Routes::default();
        for _ in 0..100 {
            routes.learn(seated(1), 7, 4.0, 1.0);
        }
        (0..200_000).for_each(|number| {
            routes.learn(seated(0), 1_000 + number, 1.0, 1.0);
        });
        let used = routes.get(seated(1), 7).expect("a route of another tenant");
        assert!((used.count - 100.0).abs() < 1e-9);
        assert_eq!(
            routes.get(seated(0), 7).map(|used| used.count),
            Some(0.0),
            "calls of one tenant do not count for another"
        );
        let sums = routes.sums(seated(1).seat);
        assert!((sums[0] - 100.0).abs() < 1e-6 && (sums[2] - 1.0).abs() < 1e-6, "{sums:?}");
        assert!((routes.of_own(seated(0), 200_999, 1.0).count - 1.0).abs() < 1e-9, "its own calls count");
    }
}
