//! Made-up traffic with real manners: people and machines use tokens for a fortnight, and in its last two days some
//! tokens are stolen. The same settings give the same bytes on every machine.
//!
//! What is in it, and what is not: `docs/simulator.md`. Labels are kept apart; no field of an event gives them away.

mod apps;
mod clients;
mod grant;
mod machine;
mod networks;
mod person;
mod random;
mod record;
mod score;
mod theft;

pub use score::{KindScore, Score, score};
pub use theft::{Theft, TheftKind};

use machine::{Machine, Vendor};
use networks::{Habit, Line, Network, Purpose};
use person::{Company, DAY, HOUR, Person};
use random::Random;
use record::Record;
use theft::{Day, Planter};

/// How much of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub seed: u64,
    /// UTC midnight at which the story begins, milliseconds since the epoch; a Saturday, so that the thefts of the
    /// last two days of a fortnight fall on workdays.
    pub start: i64,
    pub days: u32,
    /// Each holds one to three grants.
    pub people: u32,
    pub services: u32,
    pub build_jobs: u32,
    /// Users of each vendor's plugin.
    pub plugin_users: u32,
}

impl Settings {
    /// The fortnight of `tokenwarden demo`: some 2,600 grants and keys, the last whole Saturday-to-Friday fortnight
    /// before `now` (milliseconds since the epoch).
    #[must_use]
    pub fn fortnight(now: i64) -> Self {
        // 1970-01-03 was a Saturday.
        let saturday = (now - 2 * DAY).div_euclid(7 * DAY) * 7 * DAY + 2 * DAY;
        Self {
            seed: 1,
            start: saturday - 14 * DAY,
            days: 14,
            people: 1_000,
            services: 130,
            build_jobs: 110,
            plugin_users: 120,
        }
    }
}

/// The running story.
pub struct Simulation {
    settings: Settings,
    networks: Vec<Network>,
    people: Vec<Person>,
    machines: Vec<Machine>,
    planter: Planter,
    thefts: Vec<Theft>,
    /// Generated and not yet written, because something earlier may still come.
    pending: Vec<Record>,
    day: u32,
    written: u64,
}

/// Thefts happen in so many last days.
const THEFT_DAYS: u32 = 2;

/// Local days begin up to this long before the UTC day of their name, so that an event is final only before it.
const EASTERNMOST: i64 = 14 * HOUR;

const TENANTS: &[(&str, &[&str])] = &[
    ("acme", &["Berlin", "Munich", "London"]),
    ("globex", &["New York", "Chicago", "Dallas"]),
    ("initech", &["Paris", "Lyon", "Madrid"]),
    ("umbra", &["London", "Manchester", "Amsterdam"]),
    ("tyrell", &["San Francisco", "Seattle", "Tokyo"]),
    ("wayne", &["Sao Paulo", "New York"]),
    ("stark", &["Bengaluru", "Mumbai", "Sydney"]),
    ("cyber", &["Hamburg", "Warsaw", "Stockholm", "Toronto"]),
];

impl Simulation {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let networks = networks::all();
        let (seed, start, days) = (settings.seed, settings.start, i64::from(settings.days));
        let companies = companies(seed, &networks);
        let tenant = |number: u64| TENANTS[(number % TENANTS.len() as u64) as usize].0;
        let people = (0..u64::from(settings.people))
            .map(|number| Person::new(number, seed, start, days, &companies, &networks))
            .collect();
        let services = (0..u64::from(settings.services))
            .map(|number| Machine::service(number, seed, start, days, tenant(number), &networks));
        let build_jobs = (0..u64::from(settings.build_jobs))
            .map(|number| Machine::build_job(number, seed, start, days, tenant(number), &networks));
        let vendors = Vendor::all(seed, &networks);
        let plugins = vendors.iter().enumerate().flat_map(|(vendor_number, vendor)| {
            (0..u64::from(settings.plugin_users)).map(move |user| {
                let number = vendor_number as u64 * 1_000_000 + user;
                Machine::plugin(number, seed, start, days, tenant(user), vendor)
            })
        });
        let machines = services.chain(build_jobs).chain(plugins).collect();
        Self {
            planter: Planter::new(seed),
            settings,
            networks,
            people,
            machines,
            thefts: Vec::new(),
            pending: Vec::new(),
            day: 0,
            written: 0,
        }
    }

    /// Appends the next day's events to `out`, one JSON object a line, in time order. False when the story is over.
    pub fn next_day(&mut self, out: &mut Vec<u8>) -> bool {
        if self.day >= self.settings.days {
            return false;
        }
        let midnight = self.settings.start + i64::from(self.day) * DAY;
        // Days since 1970-01-01, a Thursday; 0 is Monday.
        let weekday = (midnight.div_euclid(DAY) + 3).rem_euclid(7) as u8;
        let mut today = Vec::new();
        for person in &mut self.people {
            person.day(midnight, weekday, &self.networks, &mut today);
        }
        for machine in &mut self.machines {
            machine.day(midnight, weekday, &self.networks, &mut today);
        }
        self.day += 1;
        let days_left = self.settings.days - self.day;
        if days_left < THEFT_DAYS {
            let day = Day { midnight, end: self.end(), theft_days_left: days_left as usize + 1 };
            self.planter.plant(&mut today, &day, &self.networks, &mut self.thefts);
        }
        self.pending.append(&mut today);
        let last = days_left == 0;
        let final_before = if last { self.end() } else { midnight + DAY - EASTERNMOST };
        self.write_before(final_before, out);
        true
    }

    /// Events written so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// What was planted; complete when the story is over.
    #[must_use]
    pub fn thefts(&self) -> &[Theft] {
        &self.thefts
    }

    const fn end(&self) -> i64 {
        self.settings.start + self.settings.days as i64 * DAY
    }

    fn write_before(&mut self, final_before: i64, out: &mut Vec<u8>) {
        self.pending.sort_by_key(|record| record.at);
        let ready = self.pending.partition_point(|record| record.at < final_before);
        for record in self.pending.drain(..ready) {
            // The first local day begins before the story where the sun rises early.
            if record.at < self.settings.start {
                continue;
            }
            self.written += 1;
            record.write(self.written, out);
            if let Some(theft) = record.theft.and_then(|number| self.thefts.get_mut(usize::from(number))) {
                theft.event_ids.push(format!("e{:08}", self.written));
            }
        }
    }
}

fn companies(seed: u64, networks: &[Network]) -> Vec<Company> {
    let mut random = Random::new(seed, 2_000_000);
    let mut line = |suits: &dyn Fn(&Network) -> bool| {
        let suitable: Vec<usize> = networks.iter().enumerate().filter(|(_, n)| suits(n)).map(|(at, _)| at).collect();
        let network = *random.pick(&suitable);
        Line::new(networks, network, Habit::Fixed, &mut random)
    };
    TENANTS
        .iter()
        .enumerate()
        .map(|(number, (tenant, cities))| Company {
            tenant,
            offices: cities
                .iter()
                .map(|&city| (city, line(&|n: &Network| n.purpose == Purpose::Home && n.city == city)))
                .collect(),
            vpn: (number % 3 == 0).then(|| line(&|n: &Network| n.purpose == Purpose::Cloud)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::sync::LazyLock;

    use serde::Deserialize;

    use super::*;

    const NOW: i64 = 1_790_000_000_000;

    static FORTNIGHT: LazyLock<(Vec<u8>, Vec<Theft>)> = LazyLock::new(|| story(Settings::fortnight(NOW)));

    #[derive(Deserialize)]
    struct Line<'a> {
        event_id: &'a str,
        timestamp: &'a str,
        token_id: &'a str,
        family_id: Option<&'a str>,
    }

    fn story(settings: Settings) -> (Vec<u8>, Vec<Theft>) {
        let (mut simulation, mut out) = (Simulation::new(settings), Vec::new());
        while simulation.next_day(&mut out) {}
        (out, simulation.thefts().to_vec())
    }

    fn small() -> Settings {
        Settings { people: 150, services: 20, build_jobs: 15, plugin_users: 20, ..Settings::fortnight(NOW) }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let (a, b) = (story(small()).0, story(small()).0);
        assert!(a == b);
        let (other, _) = story(Settings { seed: 2, ..small() });
        assert!(a != other);
    }

    #[test]
    fn a_fortnight_is_large_in_order_and_full_of_thefts() {
        let settings = Settings::fortnight(NOW);
        let (start, end) = (settings.start, settings.start + 14 * DAY);
        assert!(end <= NOW && NOW - end < 7 * DAY);
        let (out, thefts) = &*FORTNIGHT;
        let (mut events, mut last, mut ids, mut tokens) = (0, start, HashSet::new(), HashSet::new());
        for line in std::str::from_utf8(out).expect("text").lines() {
            let line: Line<'_> = serde_json::from_str(line).expect("one object a line");
            let at = line.timestamp.parse::<jiff::Timestamp>().expect("RFC 3339").as_millisecond();
            assert!((last..end).contains(&at));
            last = at;
            tokens.insert(line.family_id.unwrap_or(line.token_id));
            assert!(ids.insert(line.event_id));
            events += 1;
        }
        assert!(events >= 200_000, "{events}");
        assert!(tokens.len() >= 2_000, "{}", tokens.len());
        for kind in TheftKind::ALL {
            let of_kind: Vec<&Theft> = thefts.iter().filter(|theft| theft.kind == kind).collect();
            assert_eq!(of_kind.len(), kind.planned(), "{kind:?}");
            for theft in of_kind {
                assert!(theft.first_at >= end - 3 * DAY && !theft.event_ids.is_empty());
                let expected = if kind == TheftKind::Campaign { 5.. } else { 1.. };
                assert!(expected.contains(&theft.victims.len()));
            }
        }
    }

    /// Whoever has only one field to go by cannot tell thieves: each value is honest for more holders than not.
    #[test]
    fn no_value_of_a_field_gives_a_theft_away() {
        // Names of people, tokens and objects, and what differs from event to event.
        const UNIQUE: &[&str] = &[
            "event_id",
            "timestamp",
            "token_id",
            "parent_token_id",
            "family_id",
            "user_id",
            "ip_address",
            "expires_at",
            "bytes_out",
            "endpoint",
        ];
        let (out, thefts) = &*FORTNIGHT;
        let stolen: HashSet<&str> =
            thefts.iter().flat_map(|theft| theft.event_ids.iter().map(String::as_str)).collect();
        let mut holders: HashMap<String, [HashSet<String>; 2]> = HashMap::new();
        // Some days are enough: the first ones, and the last.
        let lines: Vec<&str> = std::str::from_utf8(out).expect("text").lines().collect();
        for line in lines.iter().take(60_000).chain(lines.iter().rev().take(90_000)) {
            let event: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(line).expect("one object a line");
            let is_stolen = usize::from(stolen.contains(event["event_id"].as_str().expect("an id")));
            let holder = format!("{}{}", event["user_id"], event["app_id"]);
            let mut see = |value: String| holders.entry(value).or_default()[is_stolen].insert(holder.clone());
            see(event.keys().cloned().collect::<Vec<_>>().join(","));
            for (field, value) in event.iter().filter(|(field, _)| !UNIQUE.contains(&field.as_str())) {
                see(format!("{field}={value}"));
            }
        }
        for (value, [honest, stolen]) in holders {
            assert!(honest.len() > stolen.len(), "{value}: {} honest, {} stolen", honest.len(), stolen.len());
        }
    }
}
