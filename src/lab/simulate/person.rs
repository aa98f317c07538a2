//! People: working hours, internet connections, devices and sessions.

use std::ops::Range;
use std::sync::Arc;

use super::apps::{App, CRM, DOCS, FORGE, MAIL, TALK, Taste};
use super::clients::{BROWSERS, Client, LIBRARIES, PHONES, Product, TOOLS};
use super::company::Company;
use super::connection::{Trip, commercial_vpn, home_habit, those, trips};
use super::grant::{Grant, Owner, Visitor};
use super::label::Label;
use super::names::user_name;
use super::networks::{Habit, Line, Network, Purpose, Zone};
use super::random::Random;
use super::record::{Call, Record};
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
    trips: Vec<Trip>,
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

/// Time and place of a session.
#[derive(Clone, Copy)]
struct Moment {
    at: i64,
    /// Milliseconds since local midnight.
    local: i64,
    works: bool,
    weekday: u8,
}

impl Person {
    pub(crate) fn new(number: u64, span: &Span, companies: &[Company], networks: &[Network]) -> Self {
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
        person.equip(developer, span);
        if deep {
            person.draw_changes(company, office_number, home_network, span, networks);
        }
        person.changes.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        person
    }

    /// A browser for everyone, a phone for most, and a developer's secret for some.
    fn equip(&mut self, developer: bool, span: &Span) {
        let browser = self.random.pick(BROWSERS);
        let handset = self.random.pick(PHONES);
        let web: &'static App = if self.random.chance(0.5) { &CRM } else { &DOCS };
        let version = usize::from(self.random.chance(0.85));
        let upgrades = self.random.chance(0.6);
        self.add(web, Device::Laptop, browser.client("", version), (1.8, 2.8));
        if upgrades {
            self.upgrade(span, browser, "");
        }
        if self.depth == Depth::Full && self.random.chance(0.3) {
            // The same application in a browser on a second device, with its own login.
            let second = self.random.pick(BROWSERS).client("", version);
            self.add(web, Device::Laptop, second, (0.3, 2.0));
        }
        if self.random.chance(0.75) {
            let app: &'static App = if self.random.chance(0.5) { &MAIL } else { &TALK };
            let upgrades = self.random.chance(0.5);
            self.add(app, Device::Phone, handset.client(app.name, 1), (2.0, 1.2));
            if upgrades {
                self.upgrade(span, handset, app.name);
            }
        }
        if developer {
            let tool = self.random.pick(TOOLS).client("", 1);
            self.add(&FORGE, Device::Laptop, tool, (1.4, 3.5));
        }
    }

    fn add(&mut self, app: &'static App, device: Device, client: Arc<Client>, (sessions, calls): (f64, f64)) {
        let random = &mut self.random;
        let owner = Owner { tenant: self.tenant, user: &self.user, zone: &self.zone };
        let grant = Grant::new(owner, app, self.depth, random);
        let taste = Taste::new(app, random);
        let objects = random.below(90_000) + 1_000;
        // Some use an application all day, others once in a week or two.
        let keenness = if self.depth == Depth::Full { random.log_normal(0.8, 0.9).clamp(0.05, 4.0) } else { 1.0 };
        let logs_out = if app.has_sessions && self.depth == Depth::Full && random.chance(0.25) {
            random.log_uniform(0.02, 0.6)
        } else {
            0.0
        };
        let (sessions, news, busy_until) = (sessions * keenness, None, 0);
        self.tools.push(Tool { grant, device, client, news, taste, sessions, calls, busy_until, objects, logs_out });
    }

    /// The tool that was added last gets a newer version on some day.
    fn upgrade(&mut self, span: &Span, product: &Product, app: &str) {
        let at = span.moment(&mut self.random);
        self.changes.push((at, Change::Upgrade(self.tools.len() - 1, product.client(app, 2))));
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

    /// The events of one local day; `midnight` is UTC midnight of the same date.
    pub(crate) fn day(&mut self, midnight: i64, weekday: u8, networks: &[Network], out: &mut Vec<Record>) {
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
                    if let Some(tool) = self.tools.get_mut(number) {
                        tool.taste = Taste::new(tool.grant.holder.app, random);
                        tool.objects = random.below(90_000) + 1_000;
                        tool.news = Some(label("new_task").until(at + 3 * DAY_MS));
                    }
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

    /// Downloads everything once, for a report or a migration.
    fn export(&mut self, tool: &mut Tool, at: i64, networks: &[Network], out: &mut Vec<Record>) {
        if tool.grant.is_ended() || !self.reachable(at) {
            return;
        }
        let at = at.max(tool.busy_until + 1);
        let local = (at + self.zone.offset_ms(at)).rem_euclid(DAY_MS);
        let visitor = self.visitor(tool, Moment { at, local, works: true, weekday: 0 }, networks);
        let label = Some(Label::honest("honest_export", self.changed << 32 | self.number));
        let visitor = Visitor { label, ..visitor };
        let random = &mut self.random;
        let app = tool.grant.holder.app;
        let (route, calls, pause) = if random.chance(0.4) {
            (app.largest_export(), random.within(1..6), 20_000.0)
        } else {
            (random.pick(app.routes), random.log_uniform(40.0, 900.0) as i64, 1_300.0)
        };
        tool.busy_until = at;
        for n in 0..calls {
            let call = Call { route, object: tool.objects + n as u64, bytes: route.answer_bytes(random) };
            tool.grant.call(tool.busy_until, &visitor, call, random, out);
            tool.busy_until += random.log_normal(pause, 0.7) as i64;
        }
    }

    /// Not during a flight.
    fn reachable(&self, at: i64) -> bool {
        !self.trips.iter().any(|trip| trip.is_in_transit(at))
    }

    /// One burst of calls with heavy-tailed gaps. Returns its end.
    fn session(&mut self, tool: &mut Tool, moment: Moment, networks: &[Network], out: &mut Vec<Record>) -> i64 {
        let calls = 1 + self.random.count(tool.calls * self.activity, 1.0);
        let mut visitor = self.visitor(tool, moment, networks);
        let mut at = moment.at;
        if tool.grant.is_ended() {
            at = self.come_back(tool, at, &visitor, out);
        }
        for call in 0..calls {
            if call > 0 {
                at += (self.random.pareto(1.4, 0.85).min(1_100.0) * 1_000.0) as i64;
                if tool.device == Device::Phone && self.random.chance(0.015) {
                    // The device leaves or reaches the wireless network.
                    visitor = self.visitor(tool, Moment { at, ..moment }, networks);
                }
            }
            let call = tool.make_call(&mut self.random);
            tool.grant.call(at, &visitor, call, &mut self.random, out);
        }
        at
    }

    /// The client learns that its grant has ended, and the user logs in again. Returns the time of the login.
    fn come_back(&mut self, tool: &mut Tool, at: i64, visitor: &Visitor, out: &mut Vec<Record>) -> i64 {
        let random = &mut self.random;
        let stale = Label::honest("stale_client", at as u64 ^ self.number << 44);
        let mut at = at;
        if tool.grant.was_revoked() {
            for _ in 0..random.within(1..4) {
                let call = tool.make_call(random);
                out.push(tool.grant.stale_call(at, 401, stale, visitor, call));
                at += random.within(40..2_500);
            }
            out.extend(tool.grant.stale_refresh(at, stale, visitor));
        }
        at += random.log_normal(15_000.0, 0.6) as i64;
        let label = Label::honest("new_login", at as u64 ^ self.number << 44);
        tool.grant.begin_anew(at, Some(label), random, out);
        if tool.news.is_none_or(|news| news.until < at) {
            tool.news = Some(label.until(at + 20 * MINUTE_MS));
        }
        at + random.within(80..900)
    }

    /// Logs out. A request may still be in transit, and another window may try for a while.
    fn log_out(&mut self, tool: &mut Tool, moment: Moment, networks: &[Network], out: &mut Vec<Record>) {
        let visitor = self.visitor(tool, moment, networks);
        let random = &mut self.random;
        let at = moment.at;
        tool.grant.end(at, Kind::SessionEnded, out);
        let instance = at as u64 ^ self.number << 44;
        if random.chance(0.3) {
            let call = tool.make_call(random);
            let label = Label::honest("in_flight", instance);
            out.push(tool.grant.stale_call(at + random.within(30..9_000), 200, label, &visitor, call));
        }
        if random.chance(0.25) {
            let mut tried_at = at + 10_000;
            for _ in 0..random.within(1..6) {
                tried_at += random.log_normal(4.0 * MINUTE_MS as f64, 1.3) as i64;
                let call = tool.make_call(random);
                let label = Label::honest("stale_client", instance);
                out.push(tool.grant.stale_call(tried_at, 401, label, &visitor, call));
            }
        }
    }

    fn visitor(&mut self, tool: &Tool, moment: Moment, networks: &[Network]) -> Visitor {
        let Moment { at, local, works, weekday } = moment;
        let random = &mut self.random;
        let at_work = works && (self.begins..self.begins + 8.5).contains(&(local as f64 / HOUR_MS as f64));
        let in_office = at_work && self.office_days & (1 << weekday) != 0;
        let trip = self.trips.iter_mut().find(|trip| (trip.leaves..trip.returns).contains(&at));
        let wireless = random.chance(if tool.device == Device::Laptop { 1.0 } else { 0.55 });
        let line = match (trip, &mut self.office, &mut self.vpn) {
            (Some(trip), ..) if wireless => &mut trip.hotel,
            (Some(trip), ..) => &mut trip.roaming,
            (_, _, Some((vpn, share))) if tool.device == Device::Laptop && !in_office && random.chance(*share) => vpn,
            (_, Some(office), _) if in_office && wireless => office,
            _ if wireless => &mut self.home,
            _ => &mut self.phone,
        };
        let address = line.address(networks, at, random);
        let of_line = line.news;
        let hop = (self.depth == Depth::Full && tool.device == Device::Phone)
            .then(|| (if wireless { &mut self.phone } else { &mut self.home }).address(networks, at, random));
        // Holders of a long-lived secret sometimes use it in a script.
        let by_script = tool.grant.holder.family.is_none() && random.chance(0.06);
        let client = if by_script { random.pick(LIBRARIES).any_client(random) } else { Arc::clone(&tool.client) };
        let of_night =
            self.night.filter(|(night, _)| (*night - DAY_MS..*night + DAY_MS).contains(&at) && local < 5 * HOUR_MS);
        let label = [of_line, tool.news].into_iter().flatten().find_map(|news| news.at(at));
        let label = label.or(of_night.map(|(_, label)| label));
        let label = label.or_else(|| by_script.then(|| Label::honest("script", at as u64 ^ self.number << 44)));
        Visitor { address, hop, client, label }
    }
}
