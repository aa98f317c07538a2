//! State of one partition: visits, holders, baselines, cohorts, users and the population. It uses event time,
//! every table is bounded, and no result depends on the order of hashes.

use serde::{Deserialize, Serialize};

pub(crate) mod activity;
pub(crate) mod areas;
pub(crate) mod baseline;
pub(crate) mod baselines;
pub(crate) mod blocks;
pub(crate) mod bursts;
pub(crate) mod cohort;
pub(crate) mod ends;
pub(crate) mod fair;
pub(crate) mod fleet;
pub(crate) mod generations;
pub(crate) mod holder;
pub(crate) mod hour;
pub(crate) mod level;
pub(crate) mod limits;
pub(crate) mod minute;
pub(crate) mod pools;
pub(crate) mod population;
pub(crate) mod rate;
pub(crate) mod recent;
pub(crate) mod routes;
pub(crate) mod seen;
pub(crate) mod shared;
pub(crate) mod sighting;
pub(crate) mod sketch;
pub(crate) mod templates;
pub(crate) mod tenants;
pub(crate) mod thieves;
mod touch;
pub(crate) mod trail;
mod usage;
pub(crate) mod user;
pub(crate) mod users;
pub(crate) mod visit;

pub use baseline::Baseline;
pub(crate) use baselines::Baselines;
pub(crate) use bursts::Bursts;
pub(crate) use cohort::{AllCohorts, Cohorts, Kind};
pub(crate) use ends::{Ended, Ends};
pub(crate) use fleet::Fleets;
pub(crate) use generations::Generations;
pub(crate) use holder::{Evidence, Holder, Nats, Review};
pub(crate) use level::{ClientLevel, NetLevel};
pub(crate) use limits::{Costs, Limits};
pub(crate) use minute::Minute;
pub(crate) use population::Population;
pub(crate) use recent::Recent;
pub(crate) use seen::{Feature, Seen};
pub(crate) use sighting::{Sighting, Site};
pub(crate) use templates::Templates;
pub(crate) use tenants::{Tenant, Tenants};
pub(crate) use thieves::Thieves;
pub(crate) use trail::Trail;
pub use usage::Usage;
pub(crate) use user::User;
use users::PerUser;
pub(crate) use visit::{Visit, Visits};

pub(crate) type Users = PerUser<User>;
/// Empty without [`crate::engine::Settings::campaigns`].
pub(crate) type Trails = PerUser<Trail>;

/// Maximum number of open visits in a partition.
const VISITS_OPEN_MAX: usize = 1 << 20;
const LINEAGES_MAX: usize = 1 << 20;
const EXPIRIES_MAX: usize = 1 << 20;
const NAMES_MAX: usize = 1 << 16;
const MINUTES_MAX: usize = 1 << 20;
/// Bytes of the allocation of a name.
const NAME_BYTES: usize = 96;

/// Statistics of other tokens with which a holder is compared.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Others {
    pub(crate) tenants: Tenants,
    pub(crate) population: Population,
    pub(crate) cohorts: AllCohorts,
    pub(crate) fleets: Fleets,
    pub(crate) bursts: Bursts,
    pub(crate) templates: Templates,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) baselines: Baselines,
    pub(crate) users: Users,
    pub(crate) trails: Trails,
    pub(crate) visits: Visits,
    pub(crate) others: Others,
    pub(crate) ends: Ends,
    pub(crate) thieves: Thieves,
    /// Baseline of a token, for events that name no family: the family that an earlier event of the token named, or
    /// else the first refresh token of the chain in which it was issued.
    pub(crate) lineages: Generations<u64>,
    /// Expiry of issued tokens, milliseconds since the epoch.
    pub(crate) expiries: Generations<i64>,
    /// Calls of the running minute, for grants with a policy on calls per minute.
    pub(crate) minutes: Generations<Minute>,
    /// Names of networks and client families, for explanations.
    pub(crate) names: Generations<Box<str>>,
}

impl Memory {
    pub(crate) const COSTS: Costs = Costs {
        tables: Self::TABLES_BYTES_MAX,
        user: Users::BYTES_EACH,
        seed: Generations::<baselines::Seed>::bytes_of(1),
        recent: Recent::BYTES_EACH,
    };

    /// Upper limit of the bytes of the tables whose maximum [`Limits::scaled`] reduces.
    const TABLES_BYTES_MAX: usize = Ends::BYTES_MAX
        + Fleets::BYTES_MAX
        + Population::BYTES_MAX
        + VISITS_OPEN_MAX * Visits::BYTES_EACH
        + Generations::<u64>::bytes_of(LINEAGES_MAX)
        + Generations::<i64>::bytes_of(EXPIRIES_MAX)
        + Generations::<Minute>::bytes_of(MINUTES_MAX)
        + Generations::<Box<str>>::bytes_of(NAMES_MAX)
        + NAMES_MAX * NAME_BYTES;

    pub(crate) fn new(limits: &Limits) -> Self {
        let mut new = Self {
            baselines: Baselines::new(limits),
            users: Users::new(limits.users),
            trails: Trails::new(limits.users),
            visits: Visits::new(VISITS_OPEN_MAX),
            others: Others::default(),
            ends: Ends::default(),
            thieves: Thieves::default(),
            lineages: Generations::new(LINEAGES_MAX),
            expiries: Generations::new(EXPIRIES_MAX),
            minutes: Generations::new(MINUTES_MAX),
            names: Generations::new(NAMES_MAX),
        };
        new.limit_tables(limits);
        new
    }

    /// Changes the limits of all tables, and evicts what is above them: about a second for a million baselines. `now`:
    /// milliseconds since the epoch. `has_incident`: whether a baseline has an open incident; it is evicted last.
    pub(crate) fn limit(&mut self, limits: &Limits, now: i64, has_incident: &dyn Fn(u64) -> bool) {
        self.baselines.limit(limits, now, has_incident);
        self.users.limit(limits.users, now);
        self.trails.limit(limits.users, now);
        self.limit_tables(limits);
    }

    fn limit_tables(&mut self, limits: &Limits) {
        self.visits.limit(limits.scaled(VISITS_OPEN_MAX));
        self.others.population.limit(limits);
        self.others.fleets.limit(limits);
        self.ends.limit(limits);
        self.lineages.limit(limits.scaled(LINEAGES_MAX));
        self.expiries.limit(limits.scaled(EXPIRIES_MAX));
        self.minutes.limit(limits.scaled(MINUTES_MAX));
        self.names.limit(limits.scaled(NAMES_MAX));
    }

    /// Use of each group of tables. Takes no time that depends on the number of entries.
    pub(crate) fn usage(&self) -> [(&'static str, Usage); 7] {
        let Self { baselines, users, trails, visits, others, ends, lineages, expiries, minutes, names, .. } = self;
        let tokens = [lineages.usage(), expiries.usage(), minutes.usage(), names.usage()];
        [
            ("baselines", baselines.usage()),
            ("seeds", baselines.seeds.usage()),
            ("users", users.usage().plus(trails.usage())),
            ("visits", visits.usage()),
            ("tokens", Usage::of_all(tokens).plus(ends.usage())),
            ("population", others.population.usage()),
            ("groups", others.fleets.usage()),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::enrichment::Device;
    use crate::place::{Coordinates, NetworkClass};

    /// A sighting of an owner at the usual place.
    pub(crate) fn sighting() -> Sighting {
        Sighting {
            at: 1_790_000_000_000,
            address: 1,
            is_wide: false,
            prefix: 2,
            network: 3320,
            class: NetworkClass::Access,
            country: u32::from(b'D') << 8 | u32::from(b'E'),
            agent: 4,
            version: 5,
            family: 6,
            fingerprint: 7,
            device: Device::Desktop,
            coordinates: Some(Coordinates { latitude: 52.52, longitude: 13.40, accuracy_km: Some(20) }),
            tenant: 8,
            app: 9,
            visit: 10,
        }
    }

    /// A baseline of the largest size.
    fn full() -> Baseline {
        let mut baseline = Baseline::new(1, Kind::new(crate::event::TokenType::Refresh, Device::Desktop), 0);
        for number in 1..200 {
            let mut seen = sighting();
            for key in [
                &mut seen.address,
                &mut seen.prefix,
                &mut seen.network,
                &mut seen.country,
                &mut seen.agent,
                &mut seen.version,
                &mut seen.family,
                &mut seen.fingerprint,
            ] {
                *key = number;
            }
            baseline.learn_place(&seen, 1.0);
            baseline.learn_client(&seen, 1.0);
            baseline.seen.learn(Feature::Route, number, 1.0, 20_000 * 1_440);
            baseline.seen.learn(Feature::Area, number, 1.0, 20_000 * 1_440);
            let (place, _) = baseline.place_of_holder(number, number);
            baseline.put_holder(place, Holder::born(number, number, i64::from(number), NetLevel::NewCountry));
        }
        baseline.grown = Some(Box::new(baseline::Grown::after(199)));
        baseline.refreshes = Some(Box::default());
        baseline
    }

    /// Asserts that reads at these offsets from the beginning of a cache line touch every cache line from `from` to
    /// `to`, bytes.
    pub(crate) fn assert_every_line_is_touched(places: &[usize], from: usize, to: usize) {
        let touched: std::collections::BTreeSet<_> = places.iter().map(|place| place / 64).collect();
        assert!(touched.into_iter().eq(from / 64..to.div_ceil(64)), "{places:?} of {from} to {to}");
    }

    #[test]
    fn baseline_has_at_most_1300_bytes() {
        let bytes = full().bytes();
        let mut young = Baseline::new(1, Kind::new(crate::event::TokenType::Access, Device::Desktop), 0);
        young.put_holder(0, Holder::born(1, 1, 0, NetLevel::KnownAddress));
        assert!(bytes <= 1_300, "{bytes}");
        assert!(young.bytes() <= 640, "{}", young.bytes());
    }
}
