//! People: their hours, their lines to the internet, their devices, and the bursts in which they work.

use std::sync::Arc;

use super::apps::{App, CRM, DOCS, FORGE, MAIL, TALK, Taste};
use super::clients::{BROWSERS, Client, LIBRARIES, PHONES, TOOLS};
use super::grant::{Grant, Visitor};
use super::networks::{Habit, Line, Network, Purpose, continent};
use super::random::Random;
use super::record::{Call, Record};

pub(super) const HOUR: i64 = 3_600_000;
pub(super) const DAY: i64 = 24 * HOUR;

/// A company: where its people sit, and how they reach the internet from there.
#[derive(Clone, Debug)]
pub(super) struct Company {
    pub tenant: &'static str,
    /// One office a city.
    pub offices: Vec<(&'static str, Line)>,
    /// Exit of the company's own VPN, where it has one.
    pub vpn: Option<Line>,
}

/// One person and all they hold.
#[derive(Debug)]
pub(super) struct Person {
    random: Random,
    offset_ms: i64,
    home: Line,
    office: Option<Line>,
    phone: Line,
    vpn: Option<(Line, f64)>,
    trip: Option<Trip>,
    /// Days without work, first and one past the last.
    holiday: (i64, i64),
    /// Local hour at which the day begins.
    begins: f64,
    /// Calls of a session, relative to other people.
    activity: f64,
    weekend: f64,
    /// Days of the week in the office, as bits from Monday.
    office_days: u8,
    tools: Vec<Tool>,
}

/// An application on a device of the person's.
#[derive(Debug)]
struct Tool {
    grant: Grant,
    device: Device,
    client: Arc<Client>,
    /// From when on a newer client is used.
    upgrade: Option<(i64, Arc<Client>)>,
    taste: Taste,
    /// Sessions a day, in the median.
    sessions: f64,
    /// Calls a session, in the median.
    calls: f64,
    busy_until: i64,
    objects: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    Laptop,
    Phone,
}

/// Some days elsewhere.
#[derive(Clone, Debug)]
struct Trip {
    leaves: i64,
    returns: i64,
    /// On the way, without a network, after leaving and before being back.
    journey: i64,
    hotel: Line,
    roaming: Line,
}

impl Person {
    pub fn new(number: u64, seed: u64, start: i64, days: i64, companies: &[Company], networks: &[Network]) -> Self {
        let mut random = Random::new(seed, 1_000_000 + number);
        let company = &companies[(number % companies.len() as u64) as usize];
        let (city, office) = random.pick(&company.offices).clone();
        let in_city = |purpose| {
            let found = networks.iter().enumerate().filter(|(_, n)| n.purpose == purpose && n.city == city);
            found.map(|(at, _)| at).collect::<Vec<_>>()
        };
        let home_habit = match random.below(10) {
            0..=5 => Habit::Fixed,
            6..=7 => Habit::Changing(DAY),
            _ => Habit::Changing(5 * DAY),
        };
        let home_network = *random.pick(&in_city(Purpose::Home));
        let phone_network = *random.pick(&in_city(Purpose::Mobile));
        let home = Line::new(networks, home_network, home_habit, &mut random);
        let phone = Line::new(networks, phone_network, Habit::Pool, &mut random);
        let offset_ms = networks[home_network].offset_ms;
        let user = user_name(number);
        let trip = random.chance(0.05).then(|| trip(start, days, city, phone_network, networks, &mut random));
        let away = start + random.within(0..days) * DAY;
        let holiday = if random.chance(0.1) { (away, away + random.within(2..9) * DAY) } else { (0, 0) };
        let vpn = vpn(company, networks[home_network].country, networks, &mut random);
        let developer = random.chance(0.3);
        let mut person = Self {
            offset_ms,
            home,
            office: random.chance(0.7).then_some(office),
            phone,
            vpn,
            trip,
            holiday,
            begins: random.normal(8.7, 0.8),
            activity: random.log_normal(1.0, 0.6).min(4.0),
            weekend: random.unit() * 0.35,
            office_days: random.bits() as u8,
            tools: Vec::new(),
            random,
        };
        let browser = person.random.pick(BROWSERS);
        let handset = person.random.pick(PHONES);
        let switch = person.random.chance(0.6).then(|| start + person.random.within(0..days * DAY));
        let web: &'static App = if person.random.chance(0.5) { &CRM } else { &DOCS };
        let version = usize::from(person.random.chance(0.85));
        person.add(
            web,
            Device::Laptop,
            browser.client("", version),
            switch.map(|at| (at, browser.client("", 2))),
            &user,
            company,
            (1.8, 2.8),
        );
        if person.random.chance(0.75) {
            let app: &'static App = if person.random.chance(0.5) { &MAIL } else { &TALK };
            let fresh = person
                .random
                .chance(0.5)
                .then(|| (start + person.random.within(0..days * DAY), handset.client(app.name, 2)));
            person.add(app, Device::Phone, handset.client(app.name, 1), fresh, &user, company, (2.0, 1.2));
        }
        if developer {
            let tool = person.random.pick(TOOLS).client("", 1);
            person.add(&FORGE, Device::Laptop, tool, None, &user, company, (1.4, 3.5));
        }
        person
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one tool, named where they are put together")]
    fn add(
        &mut self,
        app: &'static App,
        device: Device,
        client: Arc<Client>,
        upgrade: Option<(i64, Arc<Client>)>,
        user: &str,
        company: &Company,
        (sessions, calls): (f64, f64),
    ) {
        let grant = Grant::new(company.tenant, user, app, self.offset_ms, &mut self.random);
        let taste = Taste::new(app, &mut self.random);
        let objects = self.random.below(90_000) + 1_000;
        self.tools.push(Tool { grant, device, client, upgrade, taste, sessions, calls, busy_until: 0, objects });
    }

    /// The events of one local day; `midnight` is its UTC time zero, before the offset.
    pub fn day(&mut self, midnight: i64, weekday: u8, networks: &[Network], out: &mut Vec<Record>) {
        let works = weekday < 5 && !(self.holiday.0..self.holiday.1).contains(&midnight);
        let mut tools = std::mem::take(&mut self.tools);
        for tool in &mut tools {
            let rate = match (works, tool.device) {
                (true, _) => 1.0,
                (false, Device::Laptop) => 0.3 * self.weekend,
                (false, Device::Phone) => 0.5 + self.weekend,
            };
            let sessions = self.random.count(tool.sessions * rate, 0.5);
            let mut begins: Vec<i64> = (0..sessions).map(|_| self.session_begins(tool.device)).collect();
            begins.sort_unstable();
            for local in begins {
                let at = midnight - self.offset_ms + local;
                if at > tool.busy_until && self.reachable(at) {
                    tool.busy_until = self.session(tool, at, local, works, weekday, networks, out) + 60_000;
                }
            }
        }
        self.tools = tools;
    }

    /// Local time of day at which a session begins: mornings and afternoons at the desk, any waking hour on the phone.
    fn session_begins(&mut self, device: Device) -> i64 {
        let hour = match (device, self.random.below(10)) {
            (Device::Laptop, 0..=4) => self.random.normal(self.begins + 0.8, 0.9),
            (Device::Laptop, 5..=8) => self.random.normal(self.begins + 5.5, 1.6),
            (Device::Laptop, _) => self.random.normal(20.0, 1.5),
            (Device::Phone, 0..=2) => self.random.normal(self.begins - 0.7, 0.6),
            (Device::Phone, _) => self.begins - 1.0 + self.random.unit() * 15.0,
        };
        (hour.clamp(0.0, 23.9) * HOUR as f64) as i64
    }

    /// Not on a plane.
    fn reachable(&self, at: i64) -> bool {
        self.trip.as_ref().is_none_or(|trip| {
            !(trip.leaves..trip.leaves + trip.journey).contains(&at)
                && !(trip.returns - trip.journey..trip.returns).contains(&at)
        })
    }

    /// One burst of calls; gaps are heavy-tailed. Returns when it ended.
    #[expect(clippy::too_many_arguments, reason = "one moment of one day, taken apart for nobody else")]
    fn session(
        &mut self,
        tool: &mut Tool,
        begins: i64,
        local: i64,
        works: bool,
        weekday: u8,
        networks: &[Network],
        out: &mut Vec<Record>,
    ) -> i64 {
        if let Some((from, client)) = &tool.upgrade
            && begins >= *from
        {
            tool.client = Arc::clone(client);
            tool.upgrade = None;
        }
        let calls = 1 + self.random.count(tool.calls * self.activity, 1.0);
        let mut visitor = self.visitor(tool, begins, local, works, weekday, networks);
        let mut at = begins;
        for call in 0..calls {
            if call > 0 {
                at += (self.random.pareto(1.4, 0.85).min(1_100.0) * 1_000.0) as i64;
                if tool.device == Device::Phone && self.random.chance(0.015) {
                    // Out of the wireless network's reach, or back in it.
                    visitor = self.visitor(tool, at, local, works, weekday, networks);
                }
            }
            let call = make_call(tool, &mut self.random);
            tool.grant.call(at, &visitor, call, &mut self.random, out);
        }
        at
    }

    fn visitor(&mut self, tool: &Tool, at: i64, local: i64, works: bool, weekday: u8, networks: &[Network]) -> Visitor {
        let random = &mut self.random;
        let at_work = works && (self.begins..self.begins + 8.5).contains(&(local as f64 / HOUR as f64));
        let in_office = at_work && self.office_days & (1 << weekday) != 0;
        let on_trip = self.trip.as_ref().is_some_and(|trip| (trip.leaves..trip.returns).contains(&at));
        let wireless = random.chance(if tool.device == Device::Laptop { 1.0 } else { 0.55 });
        let line = match (&mut self.trip, &mut self.office, &mut self.vpn) {
            (Some(trip), ..) if on_trip && wireless => &mut trip.hotel,
            (Some(trip), ..) if on_trip => &mut trip.roaming,
            (_, _, Some((vpn, share))) if tool.device == Device::Laptop && !in_office && random.chance(*share) => vpn,
            (_, Some(office), _) if in_office && wireless => office,
            _ if wireless => &mut self.home,
            _ => &mut self.phone,
        };
        let address = line.address(networks, at, random);
        // Who has a standing secret at hand tries a script with it now and then.
        let by_script = tool.grant.holder.family.is_none() && random.chance(0.06);
        let client = if by_script { random.pick(LIBRARIES).any_client(random) } else { Arc::clone(&tool.client) };
        Visitor { address, client }
    }
}

fn make_call(tool: &Tool, random: &mut Random) -> Call {
    let route = tool.taste.choose(tool.grant.holder.app, random);
    // People come back to the same few objects.
    let object = tool.objects + random.pareto(1.0, 0.8).min(3_000.0) as u64;
    Call { route, object, bytes: route.answer_bytes(random) }
}

/// The company's VPN for some of its people, a commercial one for a few others; with its share of sessions.
fn vpn(company: &Company, country: &str, networks: &[Network], random: &mut Random) -> Option<(Line, f64)> {
    if let Some(exit) = &company.vpn
        && random.chance(0.5)
    {
        return Some((exit.clone(), 0.5));
    }
    if !random.chance(0.06) {
        return None;
    }
    let anywhere = random.chance(0.2);
    let near = |n: &Network| anywhere || n.country == country || continent(n.country) == continent(country);
    let exits: Vec<usize> =
        networks.iter().enumerate().filter(|(_, n)| n.purpose == Purpose::Vpn && near(n)).map(|(at, _)| at).collect();
    if exits.is_empty() {
        return None;
    }
    let exit = *random.pick(&exits);
    Some((Line::new(networks, exit, Habit::Pool, random), 0.2 + 0.4 * random.unit()))
}

fn trip(start: i64, days: i64, city: &str, carrier: usize, networks: &[Network], random: &mut Random) -> Trip {
    let elsewhere: Vec<usize> = networks
        .iter()
        .enumerate()
        .filter(|(_, n)| n.purpose == Purpose::Home && n.city != city)
        .map(|(at, _)| at)
        .collect();
    let hotel = *random.pick(&elsewhere);
    let far = continent(networks[hotel].country) != continent(networks[carrier].country);
    let locals: Vec<usize> = networks
        .iter()
        .enumerate()
        .filter(|(_, n)| n.purpose == Purpose::Mobile && n.city == networks[hotel].city)
        .map(|(at, _)| at)
        .collect();
    // Roaming traffic is led home by most carriers; the others' travellers buy a local card.
    let roaming = if random.chance(0.5) || locals.is_empty() { carrier } else { *random.pick(&locals) };
    let leaves = start + random.within(DAY..(days - 3).max(2) * DAY);
    Trip {
        leaves,
        returns: leaves + random.within(2 * DAY..6 * DAY),
        journey: if far { random.within(9 * HOUR..16 * HOUR) } else { random.within(3 * HOUR..6 * HOUR) },
        hotel: Line::new(networks, hotel, Habit::Fixed, random),
        roaming: Line::new(networks, roaming, Habit::Pool, random),
    }
}

/// A readable, unique name.
fn user_name(number: u64) -> String {
    const FIRST: &[&str] = &[
        "mia", "noah", "lea", "amir", "sofia", "lucas", "yuki", "priya", "tom", "ines", "omar", "clara", "jan", "rosa",
        "kofi", "emma", "luis", "anja", "ravi", "zoe", "hugo", "nina", "paul", "aiko", "dan", "vera", "ben", "lara",
        "igor", "maya", "leon", "ada",
    ];
    const LAST: &[&str] = &[
        "novak", "silva", "meyer", "tanaka", "dubois", "patel", "smith", "rossi", "larsen", "garcia", "kowalski",
        "brown", "haddad", "moreau", "weber", "costa", "jones", "sato", "berg", "okafor", "martin", "singh", "klein",
        "lopez", "walsh", "peters", "kim", "fischer", "young", "duarte", "lind",
    ];
    let (first, last) = (FIRST.len() as u64, LAST.len() as u64);
    let name = format!("{}.{}", FIRST[(number % first) as usize], LAST[(number / first % last) as usize]);
    match number / (first * last) {
        0 => name,
        again => format!("{name}{}", again + 1),
    }
}
