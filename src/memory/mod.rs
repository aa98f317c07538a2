//! State of one partition: visits, holders, baselines, cohorts, users and the population. It uses event time,
//! every table is bounded, and no result depends on the order of hashes.

pub mod baseline;
pub mod baselines;
pub mod blocks;
pub mod bursts;
pub mod cohort;
pub mod ends;
pub mod fair;
pub mod fleet;
pub mod generations;
pub mod holder;
pub mod hour;
pub mod level;
pub mod minute;
pub mod population;
pub mod recent;
pub mod routes;
pub mod seen;
pub mod shared;
pub mod sighting;
pub mod sketch;
pub mod tenants;
mod touch;
pub mod user;
pub mod users;
pub mod visit;

pub use baseline::Baseline;
pub use baselines::Baselines;
pub use blocks::Blocks;
pub use bursts::Bursts;
pub use cohort::{AllCohorts, Cohorts, Kind};
pub use ends::{Ended, Ends};
pub use fleet::Fleets;
pub use generations::Generations;
pub use holder::{Evidence, Holder, Nats};
pub use level::{ClientLevel, NetLevel};
pub use minute::Minute;
pub use population::Population;
pub use recent::Recent;
pub use seen::{Feature, Seen};
pub use sighting::{Sighting, Site};
pub use tenants::{Tenant, Tenants};
pub use user::User;
pub use users::Users;
pub use visit::{Visit, Visits};

/// Maximum number of open visits in a partition.
const VISITS_OPEN_MAX: usize = 1 << 20;
const LINEAGES_MAX: usize = 1 << 20;
const EXPIRIES_MAX: usize = 1 << 20;
const NAMES_MAX: usize = 1 << 16;
const MINUTES_MAX: usize = 1 << 20;

/// Statistics of other tokens with which a holder is compared.
#[derive(Debug, Default)]
pub struct Others {
    pub tenants: Tenants,
    pub population: Population,
    pub cohorts: AllCohorts,
    pub fleets: Fleets,
    pub bursts: Bursts,
}

#[derive(Debug)]
pub struct Memory {
    pub baselines: Baselines,
    pub users: Users,
    pub visits: Visits,
    pub others: Others,
    pub ends: Ends,
    /// Baseline of a token, for events that name no family: the family that an earlier event of the token named, or
    /// else the first refresh token of the chain in which it was issued.
    pub lineages: Generations<u64>,
    /// Expiry of issued tokens, milliseconds since the epoch.
    pub expiries: Generations<i64>,
    /// Calls of the running minute, for grants with a policy on calls per minute.
    pub minutes: Generations<Minute>,
    /// Names of networks and client families, for explanations.
    pub names: Generations<Box<str>>,
}

impl Memory {
    #[must_use]
    pub fn new(baselines_max: usize) -> Self {
        Self {
            baselines: Baselines::new(baselines_max),
            users: Users::new(baselines_max),
            visits: Visits::new(VISITS_OPEN_MAX),
            others: Others::default(),
            ends: Ends::default(),
            lineages: Generations::new(LINEAGES_MAX),
            expiries: Generations::new(EXPIRIES_MAX),
            minutes: Generations::new(MINUTES_MAX),
            names: Generations::new(NAMES_MAX),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::enrichment::Device;
    use crate::place::NetworkClass;

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
            site: Site::new(52.52, 13.40, 20, 1_790_000_000_000),
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
        baseline.grown = Some(Box::default());
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
    fn baseline_has_at_most_1100_bytes() {
        let bytes = full().bytes();
        let mut young = Baseline::new(1, Kind::new(crate::event::TokenType::Access, Device::Desktop), 0);
        young.put_holder(0, Holder::born(1, 1, 0, NetLevel::KnownAddress));
        assert!(bytes <= 1_100, "{bytes}");
        assert!(young.bytes() <= 640, "{}", young.bytes());
    }
}
