//! Size of a simulation, and the sizes that commands offer.

use super::span::Depth;
use super::theft::kind::TheftKind;
use crate::millis::DAY_MS;

/// Size of a simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub seed: u64,
    /// UTC midnight at which it begins, in milliseconds since the epoch.
    pub start: i64,
    pub days: u32,
    pub depth: Depth,
    /// Number of people; each has one to three grants.
    pub people: u32,
    pub services: u32,
    /// Number of secrets that two sites share.
    pub shared_accounts: u32,
    pub build_jobs: u32,
    /// Number of plugin vendors, at most twelve.
    pub vendors: u32,
    /// Number of users of each vendor's plugin.
    pub plugin_users: u32,
    /// Populations besides the companies.
    pub others: Others,
    /// Number of last days in which thefts happen.
    pub theft_days: u32,
    /// Number of thefts of each kind.
    pub thefts: Vec<(TheftKind, u32)>,
}

/// Members of the populations besides the companies. By default, there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Number of services that get access tokens with a client secret.
    pub service_clients: u32,
    /// Number of vehicles and trackers.
    pub devices: u32,
    /// Number of users of each aggregator.
    pub aggregator_users: u32,
    /// Number of people with the application of a consumer VPN.
    pub vpn_people: u32,
    /// Number of people with grants in several applications.
    pub account_holders: u32,
    /// Number of developers at a code hosting service.
    pub developers: u32,
}

impl Settings {
    /// The fortnight of `tokenwarden demo`: some 2,600 grants and keys, in the last complete Saturday-to-Friday
    /// fortnight before `now` (milliseconds since the epoch). The thefts of the last two days thus fall on workdays.
    pub fn fortnight(now: i64) -> Self {
        // 1970-01-03 was a Saturday.
        let saturday = (now - 2 * DAY_MS).div_euclid(7 * DAY_MS) * 7 * DAY_MS + 2 * DAY_MS;
        Self {
            seed: 1,
            start: saturday - 14 * DAY_MS,
            days: 14,
            depth: Depth::Plain,
            people: 1_000,
            services: 130,
            shared_accounts: 0,
            build_jobs: 110,
            vendors: 3,
            plugin_users: 120,
            others: Others::default(),
            theft_days: 2,
            thefts: TheftKind::FORTNIGHT.to_vec(),
        }
    }

    /// Ten days of a small population with all hard cases, and two thefts of each kind in the last six days.
    pub fn afternoon(seed: u64, start: i64) -> Self {
        Self {
            seed,
            start,
            days: 10,
            depth: Depth::Full,
            people: 160,
            services: 40,
            shared_accounts: 4,
            build_jobs: 30,
            vendors: 3,
            plugin_users: 25,
            others: Others::default(),
            theft_days: 6,
            thefts: TheftKind::DEEP.map(|kind| (kind, if kind == TheftKind::Campaign { 1 } else { 2 })).to_vec(),
        }
    }

    /// Ninety days of some 6,200 grants, keys and clients. In the last sixty days, 26 thefts of each kind from the
    /// companies and 20 of each kind from the other populations.
    pub(crate) fn quarter(seed: u64, start: i64) -> Self {
        Self {
            days: 90,
            people: 1_500,
            services: 260,
            shared_accounts: 20,
            build_jobs: 160,
            vendors: 12,
            plugin_users: 70,
            others: Others {
                service_clients: 150,
                devices: 300,
                aggregator_users: 250,
                vpn_people: 150,
                account_holders: 90,
                developers: 120,
            },
            theft_days: 60,
            thefts: [TheftKind::DEEP.map(|kind| (kind, 26)).as_slice(), &TheftKind::WIDE.map(|kind| (kind, 20))]
                .concat(),
            ..Self::afternoon(seed, start)
        }
    }
}
