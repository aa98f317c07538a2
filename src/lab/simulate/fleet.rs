//! Vehicles and trackers of two fleets. They report every few minutes over mobile networks, and cross borders.

mod roads;

use std::net::IpAddr;
use std::sync::Arc;

use super::actor::Actor;
use super::apps::{App, Binding, Route, Taste, Tokens, get, write};
use super::clients::{Client, FIRMWARE};
use super::connection::those;
use super::grant::{Grant, Owner, Visitor};
use super::label::{Label, News};
use super::networks::{Network, Purpose};
use super::random::Random;
use super::record::{Call, Record, Subject};
use super::span::Span;
use crate::event::TokenType;
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};
use roads::Road;

/// Vehicles with device grants (RFC 8628).
const TELEMATICS: App = App::new("telematics", "device", Tokens::Refreshing { minutes: 1_440 }, REPORTS);

/// Vehicles with device grants whose access tokens do not expire. They have no refresh tokens.
const FIXED_TELEMATICS: App = App::new("telematics", "device", Tokens::Standing(TokenType::Access), REPORTS);

/// Trackers with an API key. Half of them prove possession of a certificate.
const TRACKER: App = App {
    binding: Binding::Certificate,
    ..App::new("tracker", "device", Tokens::Standing(TokenType::ApiKey), REPORTS)
};

const REPORTS: &[Route] = &[
    write("POST", "/v2/telemetry", 0.72),
    get("/v2/commands", 0.16, 600.0),
    write("POST", "/v2/events", 0.08),
    get("/v2/config", 0.03, 3_000.0),
    get("/v2/geofences", 0.01, 9_000.0),
    get("/v2/devices/{}", 0.003, 2_000.0),
    write("POST", "/v2/devices/{}/unlock", 0.002),
    get("/v2/exports/trips", 0.001, 2_000_000.0),
];

struct Fleet {
    tenant: &'static str,
    roads: &'static [Road],
    /// Share of the devices that have the first application, and both applications.
    apps: (f64, [&'static App; 2]),
    firmware: usize,
}

const FLEETS: [Fleet; 2] = [
    Fleet { tenant: "transalpina", roads: roads::EUROPE, apps: (0.7, [&TELEMATICS, &FIXED_TELEMATICS]), firmware: 0 },
    Fleet { tenant: "prairiefleet", roads: roads::AMERICA, apps: (1.0, [&TRACKER, &TRACKER]), firmware: 1 },
];

/// One device with one key or grant.
#[derive(Debug)]
pub(super) struct Device {
    number: u64,
    random: Random,
    grant: Grant,
    client: Arc<Client>,
    taste: Taste,
    roads: &'static [Road],
    radius: Radius,
    duty: Duty,
    /// Milliseconds between two reports.
    period: f64,
    city: &'static str,
    /// Mobile network and address, and the time of the next address.
    network: usize,
    address: IpAddr,
    address_until: i64,
    /// Time at which the device is in the network of another city.
    arrives: Option<(i64, &'static str)>,
    /// Future changes, the latest first.
    changes: Vec<(i64, Change)>,
    news: Option<News>,
    /// Number of the device's cases so far.
    cases: u64,
}

/// Where a device travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Radius {
    City,
    Country,
    Borders,
}

/// When a device reports.
#[derive(Clone, Copy, Debug)]
enum Duty {
    /// While its vehicle is used; a local hour.
    Shift {
        begins: f64,
    },
    Always,
    /// A few days, and then not for weeks. Both times are ends.
    Sleeps {
        awake_until: i64,
        asleep_until: i64,
    },
}

#[derive(Clone, Debug)]
enum Change {
    Firmware(Arc<Client>, Label),
    /// A new certificate.
    Certificate(Label),
}

impl Device {
    /// `count` devices of both fleets.
    pub(super) fn all(count: u32, span: &Span, networks: &[Network]) -> Vec<Self> {
        (0..u64::from(count)).map(|number| Self::new(number, span, networks)).collect()
    }

    fn new(number: u64, span: &Span, networks: &[Network]) -> Self {
        let mut random = Random::new(span.seed, 12_000_000 + number);
        let fleet_number = number % FLEETS.len() as u64;
        let fleet = &FLEETS[fleet_number as usize];
        let city = random.pick(fleet.roads).from;
        let network = carrier(city, networks, &mut random);
        let user = Subject::User(format!("unit-{number}"));
        let owner = Owner { tenant: fleet.tenant, subject: user, zone: &networks[network].zone };
        let app = fleet.apps.1[usize::from(!random.chance(fleet.apps.0))];
        let mut grant = Grant::new(owner, app, span.depth, &mut random);
        if fleet_number == 0 {
            grant.ensure_family(&mut random);
        }
        let radius = match random.below(10) {
            0..=3 => Radius::City,
            4..=6 => Radius::Country,
            _ => Radius::Borders,
        };
        let duty = match random.below(20) {
            0..=12 => Duty::Shift { begins: random.normal(6.5, 1.5) },
            13..=15 => Duty::Always,
            _ => Duty::Sleeps { awake_until: 0, asleep_until: span.start + random.within(0..20 * DAY_MS) },
        };
        let (shortest, longest) = if matches!(duty, Duty::Always) { (24.0, 60.0) } else { (8.0, 30.0) };
        let period = random.log_uniform(shortest, longest) * MINUTE_MS as f64;
        let product = &FIRMWARE[fleet.firmware];
        let version = usize::from(random.chance(0.8));
        let address = networks[network].random_v4(&mut random);
        let taste = Taste::new(app, &mut random);
        let mut device = Self {
            number,
            grant,
            client: product.client("", version),
            taste,
            roads: fleet.roads,
            radius,
            duty,
            period,
            city,
            network,
            address,
            address_until: i64::MIN,
            arrives: None,
            changes: Vec::new(),
            news: None,
            cases: 0,
            random,
        };
        // The whole fleet gets new firmware within ten days, and new certificates within two weeks.
        let mut whole = Random::new(span.seed, 12_900_000 + fleet_number);
        let (firmware_at, certificates_at) = (span.moment(&mut whole), span.moment(&mut whole));
        let random = &mut device.random;
        let delay = (10.0 * DAY_MS as f64 * libm::sqrt(random.unit())) as i64;
        let label = Label::honest("firmware_update", fleet_number);
        device.changes.push((firmware_at + delay, Change::Firmware(product.client("", 2), label)));
        if device.grant.is_bound() {
            let at = certificates_at + random.within(0..14 * DAY_MS);
            device.changes.push((at, Change::Certificate(Label::honest("certificate_rotation", number))));
        }
        device.changes.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        device
    }

    /// A new case of a scenario of this device.
    fn label(&mut self, scenario: &'static str) -> Label {
        self.cases += 1;
        Label::honest(scenario, self.cases << 32 | self.number)
    }

    /// Times of the day's reports.
    fn reports(&mut self, midnight: i64, weekday: u8, networks: &[Network]) -> Vec<i64> {
        let (mut from, mut until) = (midnight, midnight + DAY_MS);
        match self.duty {
            Duty::Always => {}
            Duty::Shift { begins } => {
                if !self.random.chance(if weekday < 5 { 0.92 } else { 0.2 }) {
                    return Vec::new();
                }
                let offset = networks[self.network].zone.offset_ms(midnight + 12 * HOUR_MS);
                let hour = (begins + self.random.normal(0.0, 0.4)).clamp(0.0, 14.0);
                from = midnight - offset + (hour * HOUR_MS as f64) as i64;
                until = from + (self.random.log_normal(6.0, 0.35).clamp(1.0, 14.0) * HOUR_MS as f64) as i64;
            }
            Duty::Sleeps { awake_until, asleep_until } => {
                if midnight >= awake_until && midnight < asleep_until {
                    return Vec::new();
                }
                if midnight >= asleep_until {
                    self.wake(midnight, networks);
                }
                from = midnight + self.random.within(0..2 * HOUR_MS);
            }
        }
        let mut times = Vec::new();
        let mut at = from + self.random.within(0..self.period as i64);
        while at < until {
            times.push(at);
            at += (self.period * (0.8 + 0.4 * self.random.unit())) as i64;
        }
        times
    }

    /// Wakes in any city of the fleet's roads, for some days.
    fn wake(&mut self, midnight: i64, networks: &[Network]) {
        let random = &mut self.random;
        let awake_until = midnight + random.within(2..8) * DAY_MS;
        let asleep_until = awake_until + random.within(14..40) * DAY_MS;
        self.duty = Duty::Sleeps { awake_until, asleep_until };
        let city = random.pick(self.roads).from;
        self.city = city;
        self.connect(midnight, networks);
        self.news = Some(self.label("device_woke").until(midnight + 2 * DAY_MS));
    }

    /// Starts a journey on one of the roads from here.
    fn depart(&mut self, midnight: i64, networks: &[Network]) {
        let leaves = match self.radius {
            Radius::City => 0.0,
            Radius::Country => 0.3,
            Radius::Borders => 0.5,
        };
        let sleeps = matches!(self.duty, Duty::Sleeps { .. });
        if sleeps || self.arrives.is_some() || !self.random.chance(leaves) {
            return;
        }
        let country = country(self.city, networks);
        let abroad = self.radius == Radius::Borders;
        let ways: Vec<(&'static str, f64)> = self
            .roads
            .iter()
            .filter_map(|road| road.leads_from(self.city))
            .filter(|(city, _)| abroad || self::country(city, networks) == country)
            .collect();
        if ways.is_empty() {
            return;
        }
        let (city, hours) = *self.random.pick(&ways);
        // The network of the other city is reached half-way, after rests.
        let half = hours * self.random.log_normal(0.8, 0.3) * HOUR_MS as f64;
        let sets_out = midnight + self.random.within(4 * HOUR_MS..12 * HOUR_MS);
        self.arrives = Some((sets_out + half as i64, city));
    }

    /// Another address of a carrier of the city.
    fn connect(&mut self, at: i64, networks: &[Network]) {
        let random = &mut self.random;
        if networks[self.network].city != self.city || random.chance(0.15) {
            self.network = carrier(self.city, networks, random);
        }
        self.address = networks[self.network].random_v4(random);
        self.address_until = at + random.log_normal(5.0 * HOUR_MS as f64, 0.8) as i64;
    }

    fn prepare(&mut self, at: i64, networks: &[Network]) {
        while let Some((from, _)) = self.changes.last()
            && at >= *from
            && let Some((_, change)) = self.changes.pop()
        {
            let label = match change {
                Change::Firmware(client, label) => {
                    self.client = client;
                    if self.random.chance(0.3) {
                        self.taste = Taste::new(self.grant.holder.app, &mut self.random);
                    }
                    label
                }
                Change::Certificate(label) => {
                    self.grant.renew_key(&mut self.random);
                    label
                }
            };
            self.news = Some(label.until(at + DAY_MS));
        }
        if let Some((from, city)) = self.arrives
            && at >= from
        {
            let crosses = country(self.city, networks) != country(city, networks);
            (self.city, self.arrives) = (city, None);
            self.connect(at, networks);
            if crosses && self.news.is_none_or(|news| at >= news.until) {
                self.news = Some(self.label("border_crossing").until(at + 2 * HOUR_MS));
            }
        }
        if at >= self.address_until {
            self.connect(at, networks);
        }
    }
}

impl Actor for Device {
    fn day(&mut self, midnight: i64, weekday: u8, networks: &[Network], out: &mut Vec<Record>) {
        self.depart(midnight, networks);
        for at in self.reports(midnight, weekday, networks) {
            self.prepare(at, networks);
            let label = self.news.and_then(|news| news.at(at));
            let visitor = Visitor { address: self.address, hop: None, client: Arc::clone(&self.client), label };
            let random = &mut self.random;
            let route = self.taste.choose(self.grant.holder.app, random);
            let call = Call { route, object: self.number, bytes: route.answer_bytes(random) };
            self.grant.call(at, &visitor, call, random, out);
        }
    }
}

/// A mobile network of the city.
fn carrier(city: &str, networks: &[Network], random: &mut Random) -> usize {
    *random.pick(&those(networks, |n| n.purpose == Purpose::Mobile && n.city == city))
}

fn country(city: &str, networks: &[Network]) -> &'static str {
    networks.iter().find(|network| network.city == city).map_or("", |network| network.country)
}
