//! People: working hours, internet connections, devices and sessions.

mod account_holders;
pub(super) mod developers;
mod equipment;
mod session;
mod vpn_people;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::actor::Actor;
use super::apps::Taste;
use super::clients::{BROWSERS, Client, PHONES, TOOLS};
use super::company::Company;
use super::connection::{Trip, commercial_vpn, home_habit, those, trips};
use super::consumer_vpn::ConsumerVpn;
use super::label::Label;
use super::names::user_name;
use super::networks::{Habit, Line, Network, Purpose, Zone};
use super::random::Random;
use super::record::Record;
use super::span::{Depth, Mood, Span, cluster};
use super::tool::{Device, Tool};
use crate::event::Kind;
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};

/// One person and all their tools.
#[derive(Debug)]
pub(super) struct Person {
    number: u64,
    user: String,
    tenant: &'static str,
    depth: Depth,
    random: Random,
    zone: Zone,
    home: Line,
    office: Option<Line>,
    phone: Line,
    vpn: Option<(Line, f64)>,
    consumer_vpn: Option<ConsumerVpn>,
    trips: Vec<Trip>,
    /// Trips on which the person used an application, if they sometimes sign in anew then.
    trip_logins: Option<HashSet<(i64, u64)>>,
    /// Days without work: the first, and one past the last.
    holiday: (i64, i64),
    /// Local hour at which the day begins.
    begins: f64,
    /// Calls per session relative to other people.
    activity: f64,
    weekend: f64,
    /// Days of the week in the office, as bits from Monday.
    office_days: u8,
    mood: Mood,
    /// Future changes, the latest first.
    changes: Vec<(i64, Change)>,
    /// Number of changes so far, which numbers their cases.
    changed: u64,
    /// Night in which the person works on an incident.
    night: Option<(i64, Label)>,
    tools: Vec<Tool>,
}

/// A change in a person's behaviour. Tools are given by index; an index out of range has no effect.
#[derive(Clone, Debug)]
enum Change {
    /// Another connection at home: another provider or another city.
    Home(Line),
    Office(Line),
    CompanyVpn(Line),
    /// A newer version of the same program.
    Upgrade(usize, Arc<Client>),
    /// Another computer or phone: another program, and a new login for all grants except long-lived secrets.
    Device(Device, Arc<Client>),
    NewTask(usize),
    Password,
    Revocation(usize),
    /// Everything is downloaded once.
    Export(usize),
}

/// The applications that a person uses.
#[derive(Clone, Copy)]
enum Profile {
    Staff,
    /// Only a code hosting service.
    Developer,
}

/// Time and place of a session.
#[derive(Clone, Copy)]
struct Moment {
    at: i64,
    /// Milliseconds since local midnight.
    local: i64,
    works: bool,
    weekday: u8,
}

impl Actor for Person {
    /// The events of one local day; `midnight` is UTC midnight of the same date.
    fn day(&mut self, midnight: i64, weekday: u8, networks: &[Network], out: &mut Vec<Record>) {
        let offset = self.zone.offset_ms(midnight + 4 * HOUR_MS);
        let works = weekday < 5 && !(self.holiday.0..self.holiday.1).contains(&midnight);
        let mood = self.mood.on(midnight, self.depth, &mut self.random);
        let begins_at = midnight - offset;
        let mut sessions: Vec<(i64, usize)> = Vec::new();
        for (number, tool) in self.tools.iter().enumerate() {
            let rate = match (works, tool.device) {
                (true, _) => 1.0,
                (false, Device::Laptop) => 0.3 * self.weekend,
                (false, Device::Phone) => 0.5 + self.weekend,
            };
            let (device, random) = (tool.device, &mut self.random);
            let count = random.count(tool.sessions * rate * mood, 0.5);
            let mut begins: Vec<i64> = (0..count).map(|_| device.session_begins(self.begins, random)).collect();
            let night = self.night.is_some_and(|(night, _)| (begins_at..begins_at + DAY_MS).contains(&night));
            if night && device == Device::Laptop {
                begins.extend((0..random.within(1..4)).map(|_| random.within(HOUR_MS..5 * HOUR_MS)));
            }
            cluster(&mut begins, self.depth, random);
            sessions.extend(begins.into_iter().map(|local| (local, number)));
        }
        sessions.sort_unstable();
        for (local, number) in &sessions {
            let moment = Moment { at: begins_at + local, local: *local, works, weekday };
            if moment.at > self.tools[*number].busy_until && self.reachable(moment.at) {
                self.with_tool(*number, |person, tool| {
                    tool.busy_until = person.session(tool, moment, networks, out) + MINUTE_MS;
                });
            }
            self.apply_changes(begins_at..moment.at, networks, out);
        }
        for number in 0..self.tools.len() {
            let tool = &self.tools[number];
            let used = sessions.iter().any(|(_, used)| *used == number) && tool.busy_until > begins_at;
            if used && !tool.grant.is_ended() && self.random.chance(tool.logs_out) {
                let moment = Moment { at: tool.busy_until, local: 18 * HOUR_MS, works, weekday };
                self.with_tool(number, |person, tool| person.log_out(tool, moment, networks, out));
            }
        }
    }
}

impl Person {
    pub(crate) fn new(number: u64, span: &Span, companies: &[Company], networks: &[Network]) -> Self {
        Self::with_profile(number, span, companies, networks, Profile::Staff)
    }

    fn with_profile(number: u64, span: &Span, companies: &[Company], networks: &[Network], profile: Profile) -> Self {
        let mut random = Random::new(span.seed, 1_000_000 + number);
        let deep = span.depth == Depth::Full;
        let company = &companies[(number % companies.len() as u64) as usize];
        let office_number = random.below(company.offices.len() as u64) as usize;
        let (city, office) = company.offices[office_number].clone();
        // Some work from home in any city.
        let remote = deep && random.chance(0.04);
        let (home_network, phone_network) = if remote {
            let abroad = *random.pick(&those(networks, |n| n.purpose == Purpose::Abroad));
            (abroad, abroad)
        } else {
            let in_city = |purpose| those(networks, |n| n.purpose == purpose && n.city == city);
            (*random.pick(&in_city(Purpose::Home)), *random.pick(&in_city(Purpose::Mobile)))
        };
        let home = Line::new(networks, home_network, home_habit(&mut random), &mut random);
        let phone = Line::new(networks, phone_network, Habit::Pool, &mut random);
        let zone = networks[home_network].zone.clone();
        let away = span.moment(&mut random).div_euclid(DAY_MS) * DAY_MS;
        let holiday = match span.depth {
            Depth::Plain if random.chance(0.1) => (away, away + random.within(2..9) * DAY_MS),
            Depth::Full if random.chance(0.4) => (away, away + random.within(3..22) * DAY_MS),
            _ => (0, 0),
        };
        let vpn = match &company.vpn {
            Some(exit) if random.chance(0.5) => Some((exit.clone(), 0.5)),
            _ => commercial_vpn(number, span.depth, networks[home_network].country, networks, &mut random),
        };
        let developer = random.chance(0.3);
        let mut person = Self {
            number,
            user: user_name(number),
            tenant: company.tenant,
            depth: span.depth,
            zone,
            home,
            office: (!remote && random.chance(0.7)).then_some(office),
            phone,
            vpn,
            consumer_vpn: None,
            trip_logins: None,
            trips: trips(number, span, phone_network, networks, &mut random),
            holiday,
            begins: random.normal(8.7, 0.8),
            activity: random.log_normal(1.0, 0.6).min(4.0),
            weekend: random.unit() * 0.35,
            office_days: random.bits() as u8,
            mood: Mood::default(),
            changes: Vec::new(),
            changed: 0,
            night: None,
            tools: Vec::new(),
            random,
        };
        match profile {
            Profile::Staff => person.equip(developer, span),
            Profile::Developer => person.equip_developer(span),
        }
        if deep {
            person.draw_changes(company, office_number, home_network, span, networks);
        }
        person.changes.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        person
    }

    fn draw_changes(
        &mut self,
        company: &Company,
        office_number: usize,
        home_network: usize,
        span: &Span,
        networks: &[Network],
    ) {
        let Network { city, country, .. } = networks[home_network];
        let random = &mut self.random;
        let mut changes = Vec::new();
        let mut another_home = |share: f64, suits: &dyn Fn(&Network) -> bool, scenario, random: &mut Random| {
            let suitable = those(networks, |n| n.purpose == Purpose::Home && suits(n));
            if let Some(at) = span.happens(share, random)
                && !suitable.is_empty()
            {
                let network = *random.pick(&suitable);
                let habit = home_habit(random);
                let mut line = Line::new(networks, network, habit, random);
                line.news = Some(Label::honest(scenario, self.number).until(at + 4 * DAY_MS));
                changes.push((at, Change::Home(line)));
            }
        };
        another_home(0.07, &|n| n.city == city, "provider_change", random);
        another_home(0.03, &|n| n.city != city && n.country == country, "relocation", random);
        if let Some((at, line)) = &company.vpn_rollout {
            changes.push((*at, Change::CompanyVpn(line.clone())));
        }
        if let Some((at, lines)) = &company.office_move
            && self.office.is_some()
        {
            changes.push((*at, Change::Office(lines[office_number].clone())));
        }
        let browser = random.pick(BROWSERS);
        let version = 1 + usize::from(random.chance(0.5));
        let laptop = Change::Device(Device::Laptop, browser.client("", version));
        changes.extend(span.happens(0.08, random).map(|at| (at, laptop)));
        let phone_app = self.tools.iter().find(|tool| tool.device == Device::Phone).map(|tool| tool.grant.holder.app);
        if let Some(app) = phone_app {
            let phone = Change::Device(Device::Phone, random.pick(PHONES).client(app.name, 2));
            changes.extend(span.happens(0.08, random).map(|at| (at, phone)));
        }
        let mut tool = |share, change: fn(usize) -> Change, random: &mut Random| {
            let number = random.below(self.tools.len() as u64) as usize;
            changes.extend(span.happens(share, random).map(|at| (at, change(number))));
        };
        tool(0.15, Change::NewTask, random);
        tool(0.4, Change::Revocation, random);
        tool(0.2, Change::Export, random);
        tool(0.5, |_| Change::Password, random);
        let night = Label::honest("night_work", self.number);
        self.night = span.happens(0.12, random).map(|at| (at, night));
        self.changes.extend(changes);
    }

    fn with_tool(&mut self, number: usize, act: impl FnOnce(&mut Self, &mut Tool)) {
        let mut tools = std::mem::take(&mut self.tools);
        if let Some(tool) = tools.get_mut(number) {
            act(self, tool);
        }
        self.tools = tools;
    }

    /// Applies changes before the end of `span`. Changes before its start, while nothing happened, take effect at the
    /// start.
    fn apply_changes(&mut self, span: Range<i64>, networks: &[Network], out: &mut Vec<Record>) {
        while self.changes.last().is_some_and(|(at, _)| *at < span.end) {
            let Some((at, change)) = self.changes.pop() else { return };
            let at = at.max(span.start);
            self.changed += 1;
            let label = |scenario| Label::honest(scenario, self.changed << 32 | self.number);
            let random = &mut self.random;
            match change {
                Change::Home(line) => self.home = line,
                Change::Office(line) => self.office = Some(line),
                Change::CompanyVpn(line) => self.vpn = Some((line, 0.8)),
                Change::Upgrade(number, client) => {
                    if let Some(tool) = self.tools.get_mut(number) {
                        tool.client = client;
                        tool.news = Some(label("browser_upgrade").until(at + DAY_MS));
                    }
                }
                Change::Device(device, client) => {
                    let label = label("new_device");
                    for tool in self.tools.iter_mut().filter(|tool| tool.device == device) {
                        tool.news = Some(label.until(at + 3 * DAY_MS));
                        if tool.grant.holder.family.is_some() {
                            tool.client = Arc::clone(&client);
                            tool.grant.begin_anew(at.max(tool.busy_until), Some(label), random, out);
                        } else {
                            tool.client = random.pick(TOOLS).any_client(random);
                        }
                    }
                }
                Change::NewTask(number) => {
                    let Some(tool) = self.tools.get_mut(number) else { continue };
                    let scenario = if let Some(files) = &mut tool.working_set {
                        files.begin_repository(random);
                        "new_repository"
                    } else {
                        tool.taste = Taste::new(tool.grant.holder.app, random);
                        tool.objects = random.below(90_000) + 1_000;
                        "new_task"
                    };
                    tool.news = Some(label(scenario).until(at + 3 * DAY_MS));
                }
                Change::Password => {
                    let label = label("kept_credential");
                    let Some(tool) = self.tools.first() else { continue };
                    // Mostly at the end of a session.
                    let at = if tool.busy_until > span.start { tool.busy_until } else { at };
                    out.push(tool.grant.credential_changes(at));
                    // Most keep their tokens; a third is logged out on the other devices.
                    let signs_out = random.chance(0.33);
                    for (number, tool) in self.tools.iter_mut().enumerate() {
                        if signs_out && number > 0 && tool.grant.holder.family.is_some() && !tool.grant.is_ended() {
                            tool.grant.end(at.max(tool.busy_until) + 4_000, Kind::Revoked, out);
                        } else if tool.news.is_none_or(|news| news.until < at) {
                            tool.news = Some(label.until(at + 3 * DAY_MS));
                        }
                    }
                }
                Change::Revocation(number) => {
                    if let Some(tool) = self.tools.get_mut(number)
                        && !tool.grant.is_ended()
                    {
                        tool.grant.end(at.max(tool.busy_until), Kind::Revoked, out);
                    }
                }
                Change::Export(number) => self.with_tool(number, |person, tool| person.export(tool, at, networks, out)),
            }
        }
    }

    /// Not during a flight.
    fn reachable(&self, at: i64) -> bool {
        !self.trips.iter().any(|trip| trip.is_in_transit(at))
    }
}
