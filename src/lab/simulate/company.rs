//! Companies: offices, internet access and security scans.

use std::collections::HashMap;
use std::sync::Arc;

use super::apps::Tokens;
use super::clients::LIBRARIES;
use super::connection::those;
use super::label::Label;
use super::networks::{Habit, Line, Network, Purpose};
use super::random::Random;
use super::record::{Call, Record, Sighting};
use super::span::{Depth, Span};
use crate::event::Kind;
use crate::millis::{DAY_MS, HOUR_MS};

#[derive(Clone, Debug)]
pub(super) struct Company {
    pub(crate) tenant: &'static str,
    /// One office per city.
    pub(crate) offices: Vec<(&'static str, Line)>,
    /// Exit of the company's VPN, if it has one.
    pub(crate) vpn: Option<Line>,
    /// Time at which all employees move to a new VPN, and its exit.
    pub(crate) vpn_rollout: Option<(i64, Line)>,
    /// Time at which the offices move, and the new line of each office.
    pub(crate) office_move: Option<(i64, Vec<Line>)>,
    /// Time at which the security team tests all tokens from one place.
    pub(crate) scan: Option<Scan>,
}

#[derive(Clone, Debug)]
pub(super) struct Scan {
    pub(crate) at: i64,
    line: Line,
    number: u64,
}

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

/// Name of company `number` modulo the number of names, and its index.
pub(super) fn tenant(number: u64) -> (&'static str, u64) {
    let number = number % TENANTS.len() as u64;
    (TENANTS[number as usize].0, number)
}

#[cfg(test)]
pub(super) fn all_tenants() -> impl Iterator<Item = String> {
    TENANTS.iter().map(|(name, _)| format!("\"tenant_id\":\"{name}\""))
}

/// A company with an office in each city, without a VPN and without changes.
pub(super) fn small(tenant: &'static str, cities: &[&'static str], span: &Span, networks: &[Network]) -> Company {
    let mut random = Random::new(span.seed, 2_000_002);
    let mut office = |city: &'static str| {
        let suits = |n: &Network| n.purpose == Purpose::Home && n.city == city;
        let network = *random.pick(&those(networks, suits));
        (city, Line::new(networks, network, Habit::Fixed, &mut random))
    };
    let offices = cities.iter().map(|city| office(city)).collect();
    Company { tenant, offices, vpn: None, vpn_rollout: None, office_move: None, scan: None }
}

pub(super) fn all(span: &Span, networks: &[Network]) -> Vec<Company> {
    let mut random = Random::new(span.seed, 2_000_000);
    let mut line = |suits: &dyn Fn(&Network) -> bool| {
        let suitable: Vec<usize> = networks.iter().enumerate().filter(|(_, n)| suits(n)).map(|(at, _)| at).collect();
        let network = *random.pick(&suitable);
        Line::new(networks, network, Habit::Fixed, &mut random)
    };
    let mut companies: Vec<Company> = TENANTS
        .iter()
        .enumerate()
        .map(|(number, (tenant, cities))| Company {
            tenant,
            offices: cities
                .iter()
                .map(|&city| (city, line(&|n: &Network| n.purpose == Purpose::Home && n.city == city)))
                .collect(),
            vpn: (number % 3 == 0).then(|| line(&|n: &Network| n.purpose == Purpose::Cloud)),
            vpn_rollout: None,
            office_move: None,
            scan: None,
        })
        .collect();
    if span.depth == Depth::Full {
        let mut later = Random::new(span.seed, 2_000_001);
        for (number, company) in companies.iter_mut().enumerate() {
            let instance = number as u64;
            let at = span.moment(&mut later);
            let news = |scenario, days: i64| Some(Label::honest(scenario, instance).until(at + days * DAY_MS));
            match number % 4 {
                1 => {
                    let mut exit = line(&|n: &Network| matches!(n.purpose, Purpose::Cloud | Purpose::Vpn));
                    exit.news = news("vpn_rollout", 4);
                    company.vpn_rollout = Some((at, exit));
                }
                2 => {
                    let lines = company.offices.iter().map(|(city, _)| {
                        let mut moved = line(&|n: &Network| n.purpose == Purpose::Home && n.city == *city);
                        moved.news = news("office_move", 4);
                        moved
                    });
                    company.office_move = Some((at, lines.collect()));
                }
                3 => {
                    let line = line(&|n: &Network| matches!(n.purpose, Purpose::Cloud | Purpose::Home));
                    company.scan = Some(Scan { at, line, number: instance });
                }
                _ => {}
            }
        }
    }
    companies
}

impl Scan {
    /// Tests, one after the other, each long-lived secret that the company's employees and services used today.
    pub(crate) fn run(&mut self, tenant: &str, seed: u64, networks: &[Network], today: &mut Vec<Record>) {
        let mut random = Random::new(seed, 2_100_000 + self.number);
        let client = random.pick(LIBRARIES).any_client(&mut random);
        let address = self.line.address(networks, self.at, &mut random);
        let mut last: HashMap<u64, usize> = HashMap::new();
        let mut found: Vec<u64> = Vec::new();
        for (number, record) in today.iter().enumerate() {
            let standing = matches!(record.holder.app.tokens, Tokens::Standing(_));
            let in_use = record.kind == Kind::Use && record.at < self.at && record.holder.tenant == tenant;
            if standing && in_use && last.insert(record.token, number).is_none() {
                found.push(record.token);
            }
        }
        let mut at = self.at;
        for token in found {
            let Some(Record { holder, sighting: Some(before), .. }) = last.get(&token).map(|&number| &today[number])
            else {
                continue;
            };
            let app = holder.app;
            let call = Call { route: app.who_am_i(), object: random.below(1_000), bytes: 400 };
            let (client, binding) = (Arc::clone(&client), before.binding);
            let sighting = Sighting { address, client, call: Some(call), status: 200, binding };
            let label = Some(Label::honest("security_scan", self.number));
            let record = Record { at, sighting: Some(sighting), label, ..today[last[&token]].clone() };
            today.push(record);
            at += random.log_normal(1_500.0, 0.8) as i64;
            if at > self.at + 3 * HOUR_MS {
                break;
            }
        }
    }
}
