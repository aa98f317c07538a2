//! Generates realistic traffic: people and machines use tokens for days or months, and some tokens are stolen. The same
//! settings give the same bytes on every machine.
//!
//! `docs/simulator.md` describes the traffic and the sources of its numbers. Labels are written separately; no field of
//! an event reveals them.

mod actor;
mod apps;
mod arrival;
mod clients;
mod company;
mod connection;
mod consumer_vpn;
mod crowd;
mod fleet;
mod grant;
mod label;
mod machine;
mod names;
mod networks;
mod person;
mod population;
mod random;
mod record;
mod repositories;
mod score;
mod settings;
mod span;
mod theft;
mod thief;
mod tool;

use crate::millis::{DAY_MS, HOUR_MS};
pub(crate) use crowd::Crowd;
pub(crate) use score::{Score, score};
pub use settings::{Others, Settings};
pub(crate) use theft::Theft;

use actor::Actor as _;
use apps::PLUGINS;
use arrival::{Arrivals, Trouble, What};
use company::{Company, tenant};
use machine::Machine;
use machine::vendor::Vendor;
use networks::Network;
use person::Person;
use population::Population;
use random::Random;
use record::Record;
use span::Span;
use theft::kind::Group;
use theft::{Day, Planter};

/// A simulation in progress.
pub struct Simulation {
    settings: Settings,
    networks: Vec<Network>,
    companies: Vec<Company>,
    people: Vec<Person>,
    machines: Vec<Machine>,
    planter: Planter,
    populations: Vec<Population>,
    thefts: Vec<Theft>,
    arrivals: Arrivals,
    labels: Vec<u8>,
    day: u32,
}

/// Local days begin up to this long before the UTC day of the same date. Events before that are final.
const EASTERNMOST: i64 = 14 * HOUR_MS;

impl Simulation {
    pub fn new(settings: Settings) -> Self {
        let networks = networks::all();
        let (seed, start, depth) = (settings.seed, settings.start, settings.depth);
        let span = Span { seed, start, days: i64::from(settings.days), depth };
        let companies = company::all(&span, &networks);
        let people =
            (0..u64::from(settings.people)).map(|number| Person::new(number, &span, &companies, &networks)).collect();
        let services =
            (0..u64::from(settings.services)).map(|number| Machine::service(number, &span, tenant(number), &networks));
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
        let populations = population::all(&settings, &span, &networks);
        Self {
            planter: Planter::new(seed, Group::Companies, &settings),
            arrivals: Arrivals::new(seed, 1 + populations.len(), depth, troubles(&span)),
            populations,
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

    /// Appends the events of the next day to `out`, one JSON object per line, in order of arrival. Returns false at the
    /// end.
    pub fn next_day(&mut self, out: &mut Vec<u8>) -> bool {
        if self.day >= self.settings.days {
            return false;
        }
        let midnight = self.settings.start + i64::from(self.day) * DAY_MS;
        // Days since 1970-01-01, a Thursday; 0 is Monday.
        let weekday = (midnight.div_euclid(DAY_MS) + 3).rem_euclid(7) as u8;
        let mut today = Vec::new();
        for person in &mut self.people {
            person.day(midnight, weekday, &self.networks, &mut today);
        }
        for machine in &mut self.machines {
            machine.day(midnight, weekday, &self.networks, &mut today);
        }
        for company in &mut self.companies {
            if let Some(scan) = &mut company.scan
                && (midnight..midnight + DAY_MS).contains(&scan.at)
            {
                scan.run(company.tenant, self.settings.seed, &self.networks, &mut today);
            }
        }
        self.day += 1;
        let days_left = self.settings.days - self.day;
        let day = self.settings.theft_days.checked_sub(days_left + 1);
        let day = day.map(|number| Day { midnight, end: self.end(), number });
        if let Some(day) = &day {
            self.planter.plant(&mut today, day, &self.networks, &mut self.thefts);
        }
        self.admit(0, today);
        let mut populations = std::mem::take(&mut self.populations);
        for (number, population) in populations.iter_mut().enumerate() {
            let mut today = Vec::new();
            for actor in &mut population.actors {
                actor.day(midnight, weekday, &self.networks, &mut today);
            }
            population.planter.observe(&today);
            if let Some(day) = &day {
                population.planter.plant(&mut today, day, &self.networks, &mut self.thefts);
            }
            self.admit(1 + number, today);
        }
        self.populations = populations;
        let final_before = if days_left == 0 { i64::MAX } else { midnight + DAY_MS - EASTERNMOST };
        let thefts = &mut self.thefts;
        self.arrivals.write_before(final_before, out, &mut self.labels, |written| {
            let stolen = written.record.label.filter(|label| label.theft);
            if let Some(theft) = stolen.and_then(|label| thefts.get_mut(label.instance as usize)) {
                theft.event_ids.push(written.event_id.clone());
            }
        });
        true
    }

    fn admit(&mut self, source: usize, records: Vec<Record>) {
        let (start, end) = (self.settings.start, self.end());
        // In eastern zones the first local day begins before the simulation.
        for record in records.into_iter().filter(|record| (start..end).contains(&record.at)) {
            self.arrivals.admit(source, record);
        }
    }

    /// The thefts so far; complete at the end.
    pub(crate) fn thefts(&self) -> &[Theft] {
        &self.thefts
    }

    /// The labels of the events since the last call, one JSON object per line.
    pub fn take_labels(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.labels)
    }

    /// Number of days of the simulation, and how many of them are complete.
    pub(crate) const fn progress(&self) -> (u32, u32) {
        (self.settings.days, self.day)
    }

    const fn end(&self) -> i64 {
        self.settings.start + self.settings.days as i64 * DAY_MS
    }
}

/// Three times per simulation, one application's events are held back for up to an hour. Once, the clock of another
/// application's servers is ahead for a day or two.
fn troubles(span: &Span) -> Vec<Trouble> {
    let mut random = Random::new(span.seed, 8_000_001);
    let held_back = [apps::CRM.id, apps::WAREHOUSE.id, PLUGINS[0].id].map(|app| {
        let from = span.moment(&mut random);
        Trouble { app, from, until: from + random.within(HOUR_MS / 4..HOUR_MS), what: What::HeldBack }
    });
    let from = span.moment(&mut random);
    let until = from + random.within(DAY_MS..2 * DAY_MS);
    let ahead = Trouble { app: apps::MAIL.id, from, until, what: What::ClockAhead(random.within(20_000..90_000)) };
    held_back.into_iter().chain([ahead]).collect()
}

#[cfg(test)]
mod tests;
