//! Popularity of networks, clients, routes, areas and hours among all tokens of a partition.
//!
//! A tenant reads shared statistics without the largest other tenant ([`super::shared`]). All other tables are those of
//! the tenant.
//!
//! Every table is bounded. Counts of pairs (tenant and network, family and route, …) are evicted by generations. Tables
//! with a sum of preferences do not evict: if one is full, further keys count as unknown.

mod popularity;

use serde::{Deserialize, Serialize};

pub(crate) use self::popularity::Popularity;
use self::popularity::{KEYS_MAX, Preference};
use super::generations::{Generations, Map};
use super::limits::Limits;
use super::rate::{Rate, Rates};
use super::routes::{RouteUse, Routes, UNKNOWN};
use super::shared::{Own, Shared, Sums};
use super::tenants::{BySeat, Seat, Tenant};
use super::usage::Usage;

const PAIRS_MAX: usize = 1 << 20;

/// Weight of all calls in the shares of an application, and of its calls in those of a client family. Calls.
const OF_ANYONE: f64 = 50.0;
const OF_APP: f64 = 100.0;
/// Visits from which an area counts as one of the tenant's.
const AREA_VISITS: f64 = 0.5;
/// Calls of an application over which its share of rare routes is averaged, and the weight of the cohort's share. An
/// application that is new to tokenwarden has many rare routes at first.
const RARE_CALLS: f64 = 300.0;
const RARE_CALLS_OF_COHORT: f64 = 200.0;

/// Calls of one application.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct AppUse {
    calls: f64,
    /// Sum of the thief's preferences for its routes.
    preferences: f64,
    /// Share of rare routes among its last [`RARE_CALLS`] routes that were called first in a visit.
    rare_routes: f64,
}

impl AppUse {
    fn learn_rare_route(&mut self, is_rare: bool, weight: f64) {
        if weight > 0.0 {
            let calls = self.calls.clamp(weight, RARE_CALLS);
            self.rare_routes += (f64::from(u8::from(is_rare)) - self.rare_routes) * weight / calls;
        }
    }
}

/// Calls of a tenant with one client family and application.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Callers {
    seat: Option<Seat>,
    app: u64,
    client: u64,
    of_app: AppUse,
    of_client: f64,
}

impl Callers {
    /// Share of rare routes among those that others with the application call first in a visit. With few calls, that of
    /// the cohort counts as well.
    #[must_use]
    pub(crate) fn rare_routes(&self, cohort: f64) -> f64 {
        let calls = self.of_app.calls.min(RARE_CALLS);
        (self.of_app.rare_routes * calls + RARE_CALLS_OF_COHORT * cohort) / (calls + RARE_CALLS_OF_COHORT)
    }
}

/// A user's first visit from a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewNetwork {
    pub(crate) network: u32,
    pub(crate) country: u32,
    /// The user had visits from other networks: the network is an adoption.
    pub(crate) is_known_user: bool,
}

/// A call of a route with an application and a client family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AppCall {
    pub(crate) app: u64,
    pub(crate) family: u32,
    pub(crate) route: u32,
    /// [`RouteUse::promise`]
    pub(crate) promise: f64,
    /// Whether the route is rare. `None`: the call does not teach the share of rare routes.
    pub(crate) is_rare: Option<bool>,
}

/// Probability of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Likely {
    /// For other tokens with this client family and application.
    pub(crate) others: f64,
    /// For a thief.
    pub(crate) thief: f64,
}

/// Visits by hour of the day, and their sum.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Hours {
    each: [f64; 24],
    all: f64,
}

impl Hours {
    const NONE: Self = Self { each: [0.0; 24], all: 0.0 };
}

/// Sums over the networks of a country.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Country {
    /// Sums of users and of the thief's preferences, and number of networks.
    networks: Sums<3>,
    adoptions: Sums<1>,
}

/// Key of a network in one country. Some networks span several countries.
const fn place(network: u32, country: u32) -> u32 {
    network ^ country.wrapping_mul(0x9e37_79b1)
}

/// Key of an application of one tenant.
const fn of_tenant(app: u64, tenant: u64) -> u64 {
    pair(Pair::TenantApp, app, tenant)
}

/// Key of a client family of one application.
const fn client(app: u64, family: u32) -> u64 {
    app ^ (family as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Numbers of the tables in a map of pairs.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Pair {
    TenantApp = 1,
    Network,
    Family,
    TenantNetwork,
    TenantCountry,
    Tenant,
    AppFamily,
    App,
    TypeFamily,
    Type,
    ClientRoute,
    Client,
    AppRoute,
    TenantArea,
    TenantAreas,
    FingerprintFamily,
    Fingerprint,
    Habit,
    TenantAreaCount,
}

const fn pair(table: Pair, a: u64, b: u64) -> u64 {
    // Two rounds of a multiplicative hash, because some keys are small numbers and keys of two tables must differ.
    let mixed = (a ^ (table as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed ^ (mixed >> 32) ^ b.wrapping_mul(0xc4ce_b9fe_1a85_ec53)).wrapping_mul(0x9fb2_1c65_1e98_df25)
}

/// What the honest tokens of some applications do and those of others never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Habit {
    /// A token is accepted after the expiry of its `issued` event.
    Outlived = 1,
    /// A token with a known key is used without one: the producer does not report it, or the service does not require
    /// it.
    NoKey,
    /// The next token of a grant has another key, for example after the renewal of a certificate (RFC 8705 section 3).
    NewKey,
    /// A lasting token has another key from now on, for example after the renewal of a certificate.
    ReplacedKey,
}

impl Habit {
    /// Assumed share, and its weight in events.
    const fn assumed(self) -> (f64, f64) {
        match self {
            Self::Outlived => (0.002, 50.0),
            Self::NoKey | Self::NewKey => (0.05, 10.0),
            Self::ReplacedKey => (9e-5, 500.0),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Population {
    /// Users of each network.
    pub(crate) networks: Popularity,
    /// Users of each client family.
    pub(crate) families: Popularity,
    /// First visits of known users from each network.
    adoptions: Map<u32, Shared<1>>,
    adoptions_total: Sums<1>,
    countries: Map<u32, Country>,
    pairs: Generations<f64>,
    /// Each tenant's part of the shared counts.
    owns: Generations<Own>,
    /// Habits of applications.
    habits: Generations<Rate>,
    /// Counts that each call reads. A smaller map has fewer cache misses.
    calls: Generations<f64>,
    routes: Routes,
    apps: Generations<AppUse>,
    /// Visits of each tenant by hour of the day.
    hours: BySeat<Hours>,
    /// Visits after a travel that is too fast: from access networks, and from other networks.
    pub(crate) fast_travel: [Rates; 2],
    /// Visits within three days of a change of credentials.
    pub(crate) after_change: Rates,
}

impl Default for Population {
    fn default() -> Self {
        Self {
            networks: Popularity::new(Preference::Network),
            families: Popularity::new(Preference::Family),
            adoptions: Map::default(),
            adoptions_total: Sums::default(),
            countries: Map::default(),
            pairs: Generations::new(PAIRS_MAX),
            owns: Generations::new(PAIRS_MAX),
            habits: Generations::new(KEYS_MAX),
            calls: Generations::new(PAIRS_MAX),
            routes: Routes::default(),
            apps: Generations::new(KEYS_MAX),
            hours: BySeat::default(),
            fast_travel: <[Rates; 2]>::default(),
            after_change: Rates::default(),
        }
    }
}

impl Population {
    /// Upper limit of the bytes of the tables that evict.
    pub(crate) const BYTES_MAX: usize = 2 * Generations::<f64>::bytes_of(PAIRS_MAX)
        + Generations::<Own>::bytes_of(PAIRS_MAX)
        + Generations::<Rate>::bytes_of(KEYS_MAX)
        + Generations::<AppUse>::bytes_of(KEYS_MAX)
        + Routes::OWN_BYTES_MAX;

    /// Changes the maximum of each table that evicts.
    pub(crate) fn limit(&mut self, limits: &Limits) {
        self.pairs.limit(limits.scaled(PAIRS_MAX));
        self.owns.limit(limits.scaled(PAIRS_MAX));
        self.calls.limit(limits.scaled(PAIRS_MAX));
        self.habits.limit(limits.scaled(KEYS_MAX));
        self.apps.limit(limits.scaled(KEYS_MAX));
        self.routes.limit(limits);
    }

    /// Bytes of the tables that evict, and number of evictions.
    pub(crate) fn usage(&self) -> Usage {
        let Self { pairs, owns, calls, habits, apps, routes, .. } = self;
        let of_pairs = [pairs.usage(), owns.usage(), calls.usage()];
        Usage::of_all(of_pairs).plus(Usage::of_all([habits.usage(), apps.usage(), routes.usage()]))
    }

    /// Probabilities that the thief, and that an owner of the tenant, chooses `network` of `country`. `known`:
    /// countries of the owner. If `country` is one of them, the network is one of theirs; otherwise it is one of all
    /// others. If the country is unknown (0), the network is one of all.
    #[must_use]
    pub(crate) fn chooses(&self, tenant: Tenant, network: u32, country: u32, known: &[u32]) -> (f64, f64) {
        let Tenant { key: tenant, seat } = tenant;
        let networks = &self.networks;
        let place = place(network, country);
        let [users, preferences, kinds] = networks.sums(seat);
        let all = users + 0.1 * kinds + 5.0;
        let [adoptions_total] = self.adoptions_total.read(seat);
        let of_tenant = self.pairs.count(pair(Pair::Tenant, tenant, 0));
        let owner = |users: f64, adoptions: f64, here: f64| {
            let anywhere = (adoptions + 30.0 * users / all) / (adoptions_total + 30.0);
            (here + 10.0 * anywhere) / (of_tenant + 10.0)
        };
        let adoptions = self.adoptions.get(&place).map_or(0.0, |adoptions| adoptions.count(seat));
        let here = self.owns.get(pair(Pair::TenantNetwork, tenant, u64::from(place))).map_or(0.0, |own| own.count);
        let chosen = (networks.thief(seat, place, 5.0), owner(networks.users(seat, place) + 0.1, adoptions, here));
        if country == 0 {
            return chosen;
        }
        // Probabilities of all networks of the known countries.
        let (mut thiefs, mut owners) = (0.0, 0.0);
        let unknown = 5.0 * Preference::Network.of(0.0);
        for country in known {
            let sums = self.countries.get(country);
            let [users, of_country, kinds] = sums.map_or([0.0; 3], |sums| sums.networks.read(seat));
            let [adoptions] = sums.map_or([0.0], |sums| sums.adoptions.read(seat));
            let here = self.pairs.count(pair(Pair::TenantCountry, tenant, u64::from(*country)));
            thiefs += of_country / (preferences + unknown);
            owners += owner(users + 0.1 * kinds, adoptions, here);
        }
        let given = |chosen: f64, known_countries: f64, unknown: bool| {
            let of = if unknown { 1.0 - known_countries } else { known_countries };
            chosen / of.max(chosen).max(0.01)
        };
        let unknown = !known.contains(&country);
        (given(chosen.0, thiefs, unknown), given(chosen.1, owners, unknown))
    }

    /// Learns a user's first visit from a network.
    pub(crate) fn learn_network(&mut self, tenant: Tenant, visit: NewNetwork, weight: f64) {
        let NewNetwork { network, country, is_known_user } = visit;
        let place = place(network, country);
        let mut own =
            |table| self.owns.entry(pair(table, tenant.key, u64::from(place)), Own::default).add(tenant, weight);
        let users = own(Pair::Network);
        let adoptions = if is_known_user { own(Pair::TenantNetwork) } else { None };
        if is_known_user {
            self.pairs.add(pair(Pair::TenantCountry, tenant.key, u64::from(country)), weight);
            self.pairs.add(pair(Pair::Tenant, tenant.key, 0), weight);
        }
        let Some((before, after)) = users.and_then(|contribution| self.networks.learn(place, &contribution)) else {
            return;
        };
        // Bounded by the number of countries.
        let sums = self.countries.entry(country).or_default();
        sums.networks.change(&before, &after);
        if let Some(contribution) = adoptions {
            let adoptions = self.adoptions.entry(place).or_default();
            let before = adoptions.values(|count| [count]);
            adoptions.learn(&contribution);
            let after = adoptions.values(|count| [count]);
            sums.adoptions.change(&before, &after);
            self.adoptions_total.change(&before, &after);
        }
    }

    /// The owner's probability of a client family: its share among users of the application. With few users, its shares
    /// among those of the token type and among all users count as well.
    #[must_use]
    pub(crate) fn has_family(&self, tenant: Tenant, app: u64, token_type: usize, family: u32) -> f64 {
        let families = &self.families;
        let [users, _, kinds] = families.sums(tenant.seat);
        let anyone = (families.users(tenant.seat, family) + 0.5) / (users + 0.5 * (kinds + 2.0));
        let share = |table, total, group: u64, wider: f64| {
            let count = self.pairs.count(pair(table, group, u64::from(family)));
            (count + 10.0 * wider) / (self.pairs.count(pair(total, group, 0)) + 10.0)
        };
        let of_type = share(Pair::TypeFamily, Pair::Type, of_tenant(token_type as u64, tenant.key), anyone);
        share(Pair::AppFamily, Pair::App, of_tenant(app, tenant.key), of_type)
    }

    /// Learns a user's first visit with a client family.
    pub(crate) fn learn_family(&mut self, tenant: Tenant, app: u64, token_type: usize, family: u32, weight: f64) {
        let own = self.owns.entry(pair(Pair::Family, tenant.key, u64::from(family)), Own::default);
        if let Some(contribution) = own.add(tenant, weight) {
            self.families.learn(family, &contribution);
        }
        for (table, total, group) in
            [(Pair::TypeFamily, Pair::Type, token_type as u64), (Pair::AppFamily, Pair::App, app)]
        {
            let group = of_tenant(group, tenant.key);
            self.pairs.add(pair(table, group, u64::from(family)), weight);
            self.pairs.add(pair(total, group, 0), weight);
        }
    }

    /// Whether a fingerprint is borrowed: at least five tokens have it, and 80 % of them have another client family.
    #[must_use]
    pub(crate) fn is_borrowed(&self, fingerprint: u32, family: u32) -> bool {
        let tokens = self.pairs.count(pair(Pair::Fingerprint, u64::from(fingerprint), 0));
        let alike = || self.pairs.count(pair(Pair::FingerprintFamily, u64::from(fingerprint), u64::from(family)));
        tokens >= 5.0 && alike() <= 0.2 * tokens
    }

    /// Share of an application's events with a habit, among those that could have it.
    #[must_use]
    pub(crate) fn habit(&self, habit: Habit, tenant: u64, app: u64) -> f64 {
        let (assumed, weight) = habit.assumed();
        let rate = self.habits.get(pair(Pair::Habit, app ^ habit as u64, tenant)).copied();
        rate.unwrap_or_default().get(assumed, weight)
    }

    pub(crate) fn learn_habit(&mut self, habit: Habit, (tenant, app): (u64, u64), is_seen: bool, weight: f64) {
        let rate = self.habits.entry(pair(Pair::Habit, app ^ habit as u64, tenant), Rate::default);
        rate.learn_lately(f64::from(u8::from(is_seen)), weight);
    }

    pub(crate) fn learn_fingerprint(&mut self, fingerprint: u32, family: u32, weight: f64) {
        self.pairs.add(pair(Pair::Fingerprint, u64::from(fingerprint), 0), weight);
        self.pairs.add(pair(Pair::FingerprintFamily, u64::from(fingerprint), u64::from(family)), weight);
    }

    /// Calls of a tenant with a client family and an application, for [`Self::calls`].
    #[must_use]
    pub(crate) fn callers(&self, tenant: Tenant, app: u64, family: u32) -> Callers {
        let app = of_tenant(app, tenant.key);
        let client = client(app, family);
        let of_app = self.apps.get(app).copied().unwrap_or_default();
        Callers { seat: tenant.seat, app, client, of_app, of_client: self.calls.count(pair(Pair::Client, client, 0)) }
    }

    /// Probabilities of a route. For others: its share among the calls with the client family and the application. With
    /// few calls, its shares among those of the application and among all calls count as well. For the thief: by
    /// popularity and attractive words, among the routes of the application. If few of these are known, among all
    /// routes.
    #[must_use]
    pub(crate) fn calls(&self, callers: &Callers, route: u32, used: RouteUse) -> Likely {
        let Callers { seat, app, client, of_app, of_client } = *callers;
        let (anyone, anywhere) = self.routes.probabilities(seat, used);
        let in_app = self.calls.count(pair(Pair::AppRoute, app, u64::from(route)));
        // A total can be evicted while its parts are not, so the ratio is limited to 1.
        let with_app = ((in_app + OF_ANYONE * anyone) / (of_app.calls + OF_ANYONE)).min(1.0);
        let with_client = self.calls.count(pair(Pair::ClientRoute, client, u64::from(route)));
        let others = (with_client + OF_APP * with_app) / (of_client + OF_APP);
        // `UNKNOWN` is the weight of a choice among all routes.
        let preference = if in_app > 0.0 { used.preference_of(in_app) } else { 0.0 };
        let thief = (preference + UNKNOWN * anywhere) / (of_app.preferences + UNKNOWN);
        Likely { others: others.min(1.0), thief: thief.min(1.0) }
    }

    /// Whether a route is rare: an id in a path that looks like a word, a name, or a guess.
    #[must_use]
    pub(crate) fn is_rare(&self, tenant: Tenant, used: RouteUse) -> bool {
        self.routes.is_rare(tenant.seat, used)
    }

    /// Use of a route in the population. `None`: the route is not stored.
    #[must_use]
    pub(crate) fn route(&self, tenant: Tenant, route: u32) -> Option<RouteUse> {
        self.routes.get(tenant, route)
    }

    /// Use of a route that is not stored, by the calls of the tenant itself. `promise`: how attractive its words are.
    #[must_use]
    pub(crate) fn own_route(&self, tenant: Tenant, route: u32, promise: f64) -> RouteUse {
        self.routes.of_own(tenant, route, promise)
    }

    /// Learns a call of a route.
    pub(crate) fn learn_route(&mut self, tenant: Tenant, call: &AppCall, weight: f64) {
        let AppCall { app, family, route, promise, is_rare } = *call;
        let used = self.routes.learn(tenant, route, promise, weight);
        let app = of_tenant(app, tenant.key);
        let in_app = self.calls.add(pair(Pair::AppRoute, app, u64::from(route)), weight);
        let before = if in_app > weight { used.preference_of(in_app - weight) } else { 0.0 };
        let of_app = self.apps.entry(app, AppUse::default);
        of_app.calls += weight;
        of_app.preferences += used.preference_of(in_app) - before;
        if let Some(is_rare) = is_rare {
            of_app.learn_rare_route(is_rare, weight);
        }
        let client = client(app, family);
        self.calls.add(pair(Pair::ClientRoute, client, u64::from(route)), weight);
        self.calls.add(pair(Pair::Client, client, 0), weight);
    }

    /// Share of an area in the visits of the tenant's other tokens, as a function of the area and the visits of the token
    /// itself to it.
    pub(crate) fn touches(&self, tenant: u64) -> impl Fn(u32, f64) -> f64 {
        let all = self.calls.count(pair(Pair::TenantAreas, tenant, 0)) + 10.0;
        move |area, own| {
            let here = (self.calls.count(pair(Pair::TenantArea, tenant, u64::from(area))) - own).max(0.0);
            (here + 0.5) / all
        }
    }

    /// Number of areas of the tenant that were visited.
    #[must_use]
    pub(crate) fn areas(&self, tenant: u64) -> f64 {
        self.calls.count(pair(Pair::TenantAreaCount, tenant, 0))
    }

    pub(crate) fn learn_area(&mut self, tenant: u64, area: u32, weight: f64) {
        let visits = self.calls.add(pair(Pair::TenantArea, tenant, u64::from(area)), weight);
        if visits >= AREA_VISITS && visits - weight < AREA_VISITS {
            self.calls.add(pair(Pair::TenantAreaCount, tenant, 0), 1.0);
        }
        self.calls.add(pair(Pair::TenantAreas, tenant, 0), weight);
    }

    /// Share of each UTC hour in the tenant's visits. Uniform while there are none.
    pub(crate) fn share_of_hour(&self, tenant: Tenant) -> impl Fn(usize) -> f64 {
        let hours = tenant.seat.and_then(|seat| self.hours.get(seat)).unwrap_or(&Hours::NONE);
        let share = 1.0 / (hours.all + 24.0);
        move |hour| (hours.each[hour] + 1.0) * share
    }

    pub(crate) fn learn_hour(&mut self, tenant: Tenant, hour: usize, weight: f64) {
        if let Some(hours) = tenant.seat.and_then(|seat| self.hours.get_mut(seat)) {
            hours.each[hour] += weight;
            hours.all += weight;
        }
    }
}

#[cfg(test)]
mod tests;
