//! Made-up traffic with real manners: people and machines use tokens for days or months, and some tokens are stolen.
//! The same settings give the same bytes on every machine.
//!
//! What is in it, and from where its numbers are: `docs/simulator.md`. Labels are kept apart; no field of an event
//! gives them away.

mod apps;
mod arrival;
mod clients;
mod company;
mod crowd;
mod grant;
mod label;
mod machine;
mod networks;
mod person;
mod random;
mod record;
mod score;
mod span;
mod theft;
mod thief;

pub use crowd::Crowd;
pub use score::{KindScore, Score, score};
pub use span::Depth;
pub use theft::{Theft, TheftKind};

use apps::PLUGINS;
use arrival::{Arrivals, Outage};
use company::{Company, tenant};
use machine::{Machine, Vendor};
use networks::Network;
use person::Person;
use random::Random;
use span::{DAY, HOUR, Span};
use theft::{Day, Planter};

/// How much of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub seed: u64,
    /// UTC midnight at which the story begins, milliseconds since the epoch.
    pub start: i64,
    pub days: u32,
    pub depth: Depth,
    /// Each holds one to three grants.
    pub people: u32,
    pub services: u32,
    /// Secrets that two sites share.
    pub shared_accounts: u32,
    pub build_jobs: u32,
    /// Vendors of plugins, at most twelve.
    pub vendors: u32,
    /// Users of each vendor's plugin.
    pub plugin_users: u32,
    /// Thefts happen in so many last days.
    pub theft_days: u32,
    /// How many thefts of each kind.
    pub thefts: Vec<(TheftKind, u32)>,
}

impl Settings {
    /// The fortnight of `tokenwarden demo`: some 2,600 grants and keys, the last whole Saturday-to-Friday fortnight
    /// before `now` (milliseconds since the epoch), so that the thefts of the last two days fall on workdays.
    #[must_use]
    pub fn fortnight(now: i64) -> Self {
        // 1970-01-03 was a Saturday.
        let saturday = (now - 2 * DAY).div_euclid(7 * DAY) * 7 * DAY + 2 * DAY;
        Self {
            seed: 1,
            start: saturday - 14 * DAY,
            days: 14,
            depth: Depth::Plain,
            people: 1_000,
            services: 130,
            shared_accounts: 0,
            build_jobs: 110,
            vendors: 3,
            plugin_users: 120,
            theft_days: 2,
            thefts: TheftKind::FORTNIGHT.to_vec(),
        }
    }

    /// Ten days of a small world with all that makes life hard, and two thefts of each kind in the last six.
    #[must_use]
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
            theft_days: 6,
            thefts: TheftKind::DEEP.map(|kind| (kind, if kind == TheftKind::Campaign { 1 } else { 2 })).to_vec(),
        }
    }

    /// Ninety days of some 4,500 grants and keys, and 26 thefts of each kind in the last sixty.
    #[must_use]
    pub fn quarter(seed: u64, start: i64) -> Self {
        Self {
            days: 90,
            people: 1_500,
            services: 260,
            shared_accounts: 20,
            build_jobs: 160,
            vendors: 12,
            plugin_users: 70,
            theft_days: 60,
            thefts: TheftKind::DEEP.map(|kind| (kind, 26)).to_vec(),
            ..Self::afternoon(seed, start)
        }
    }
}

/// The running story.
pub struct Simulation {
    settings: Settings,
    networks: Vec<Network>,
    companies: Vec<Company>,
    people: Vec<Person>,
    machines: Vec<Machine>,
    planter: Planter,
    thefts: Vec<Theft>,
    arrivals: Arrivals,
    labels: Vec<u8>,
    day: u32,
}

/// Local days begin up to this long before the UTC day of their name, so that an event is final only before it.
const EASTERNMOST: i64 = 14 * HOUR;

impl Simulation {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let networks = networks::all();
        let (seed, start, depth) = (settings.seed, settings.start, settings.depth);
        let span = Span { seed, start, days: i64::from(settings.days), depth };
        let companies = company::all(&span, &networks);
        let people =
            (0..u64::from(settings.people)).map(|number| Person::new(number, &span, &companies, &networks)).collect();
        let services = (0..u64::from(settings.services))
            .map(|number| Machine::service(number, &span, tenant(number), &networks));
        let shared = (0..u64::from(settings.shared_accounts))
            .flat_map(|number| Machine::shared(number, &span, tenant(number).0, &networks));
        let build_jobs = (0..u64::from(settings.build_jobs))
            .map(|number| Machine::build_job(number, &span, tenant(number).0, &networks));
        let vendors = Vendor::all(settings.vendors as usize, &span, &networks);
        let plugins = vendors.iter().enumerate().flat_map(|(vendor_number, vendor)| {
            let (span, networks) = (&span, &networks);
            (0..u64::from(settings.plugin_users)).map(move |user| {
                let number = vendor_number as u64 * 1_000_000 + user;
                Machine::plugin(number, span, tenant(user).0, vendor, networks)
            })
        });
        let machines = services.chain(shared).chain(build_jobs).chain(plugins).collect();
        Self {
            planter: Planter::new(seed, &settings),
            arrivals: Arrivals::new(seed, depth == Depth::Full, outages(&span)),
            settings,
            networks,
            companies,
            people,
            machines,
            thefts: Vec::new(),
            labels: Vec::new(),
            day: 0,
        }
    }

    /// Appends the next day's events to `out`, one JSON object a line, in order of arrival. False when the story is
    /// over.
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
        for company in &mut self.companies {
            if let Some(scan) = &mut company.scan
                && (midnight..midnight + DAY).contains(&scan.at)
            {
                scan.run(company.tenant, self.settings.seed, &self.networks, &mut today);
            }
        }
        self.day += 1;
        let days_left = self.settings.days - self.day;
        if days_left < self.settings.theft_days {
            let day = Day { midnight, end: self.end(), number: self.settings.theft_days - days_left - 1 };
            self.planter.plant(&mut today, &day, &self.networks, &mut self.thefts);
        }
        let (start, end) = (self.settings.start, self.end());
        // The first local day begins before the story where the sun rises early.
        for record in today.into_iter().filter(|record| (start..end).contains(&record.at)) {
            self.arrivals.admit(record);
        }
        let final_before = if days_left == 0 { i64::MAX } else { midnight + DAY - EASTERNMOST };
        let thefts = &mut self.thefts;
        self.arrivals.write_before(final_before, out, &mut self.labels, |written| {
            let stolen = written.record.label.filter(|label| label.theft);
            if let Some(theft) = stolen.and_then(|label| thefts.get_mut(label.instance as usize)) {
                theft.event_ids.push(written.event_id.clone());
            }
        });
        true
    }

    /// Events written so far, repeated deliveries included.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.arrivals.written()
    }

    /// What was planted; complete when the story is over.
    #[must_use]
    pub fn thefts(&self) -> &[Theft] {
        &self.thefts
    }

    /// The labels of the events written since the last call, one JSON object a line.
    pub fn take_labels(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.labels)
    }

    /// Days of the story, and how many of them have been told.
    #[must_use]
    pub const fn progress(&self) -> (u32, u32) {
        (self.settings.days, self.day)
    }

    const fn end(&self) -> i64 {
        self.settings.start + self.settings.days as i64 * DAY
    }
}

/// An hour or so, three times in a story, in which one application's events are held back.
fn outages(span: &Span) -> Vec<Outage> {
    let mut random = Random::new(span.seed, 8_000_001);
    let apps = [apps::CRM.id, apps::WAREHOUSE.id, PLUGINS[0].id];
    apps.into_iter()
        .map(|app| {
            let from = span.moment(&mut random);
            Outage { app, from, until: from + random.within(HOUR / 4..HOUR) }
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
        for (kind, planned) in TheftKind::FORTNIGHT {
            let of_kind: Vec<&Theft> = thefts.iter().filter(|theft| theft.kind == kind).collect();
            assert_eq!(of_kind.len(), planned as usize, "{kind:?}");
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
