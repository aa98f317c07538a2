//! Services that get access tokens with a client secret (OAuth client credentials): no user, no grant, a new token for
//! each hour of work.

use super::{Change, Hosts, Machine, Rhythm, Work, any, any_zone};
use crate::lab::simulate::apps::{App, Route, Tokens, get, write};
use crate::lab::simulate::clients::LIBRARIES;
use crate::lab::simulate::grant::Owner;
use crate::lab::simulate::label::Label;
use crate::lab::simulate::networks::{Network, Purpose};
use crate::lab::simulate::random::Random;
use crate::lab::simulate::record::Subject;
use crate::lab::simulate::span::Span;
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};

const PAYMENTS: App = App {
    logs_issuance: true,
    ..interface(
        "payments",
        &[
            get("/v3/invoices", 0.3, 30_000.0),
            get("/v3/invoices/{}", 0.22, 4_000.0),
            write("POST", "/v3/payments", 0.16),
            get("/v3/payments/{}", 0.14, 2_000.0),
            get("/v3/balances", 0.12, 3_000.0),
            write("PATCH", "/v3/invoices/{}", 0.05),
            get("/v3/payouts", 0.01, 20_000.0),
            get("/v3/webhooks", 0.004, 1_500.0),
            get("/v3/exports/ledger", 0.002, 6_000_000.0),
        ],
    )
};

const FREIGHT: App = interface(
    "freight",
    &[
        get("/v1/consignments/{}", 0.34, 5_000.0),
        get("/v1/tracking/{}", 0.26, 2_500.0),
        write("POST", "/v1/labels", 0.16),
        get("/v1/rates", 0.14, 9_000.0),
        write("POST", "/v1/pickups", 0.06),
        get("/v1/customers", 0.01, 50_000.0),
        get("/v1/api-clients", 0.003, 2_000.0),
        get("/v1/exports/manifests", 0.002, 5_000_000.0),
    ],
);

/// An interface for services.
const fn interface(id: &'static str, routes: &'static [Route]) -> App {
    App::new(id, "service", Tokens::Minted { minutes: 60 }, routes)
}

/// Tenants, and the interface that each offers to services.
const TENANTS: [(&str, &App); 4] =
    [("ledgerline", &PAYMENTS), ("cargonaut", &FREIGHT), ("tallyhouse", &PAYMENTS), ("northfreight", &FREIGHT)];

/// Where a service runs.
#[derive(Clone, Copy)]
enum Site {
    /// A few fixed addresses in a cloud.
    Servers,
    /// Hosts of one cloud region that live for an hour.
    Scaled,
    /// A partner's own network.
    Partner,
}

impl Site {
    fn any(random: &mut Random) -> Self {
        match random.below(20) {
            0..=9 => Self::Servers,
            10..=15 => Self::Scaled,
            _ => Self::Partner,
        }
    }

    fn hosts(self, networks: &[Network], random: &mut Random) -> Hosts {
        let purposes: &[Purpose] = match self {
            Self::Servers | Self::Scaled => &[Purpose::Cloud],
            Self::Partner => &[Purpose::Home, Purpose::Rented],
        };
        let network = any(purposes, networks, random);
        match self {
            Self::Scaled => Hosts::Scaled { network, hosts: 1 + random.below(3), stream: random.bits() },
            Self::Servers => Hosts::Own((0..=random.below(3)).map(|_| networks[network].random_v4(random)).collect()),
            Self::Partner => Hosts::Own(vec![networks[network].random_v4(random)]),
        }
    }
}

impl Machine {
    /// The first `count` services.
    pub(crate) fn service_clients(count: u32, span: &Span, networks: &[Network]) -> Vec<Self> {
        (0..u64::from(count)).map(|number| Self::service_client(number, span, networks)).collect()
    }

    fn service_client(number: u64, span: &Span, networks: &[Network]) -> Self {
        let mut random = Random::new(span.seed, 11_000_000 + number);
        let tenant_number = number % TENANTS.len() as u64;
        let (tenant, app) = TENANTS[tenant_number as usize];
        let site = Site::any(&mut random);
        let rhythm = match random.below(20) {
            0..=2 => Rhythm::Every { period_ms: HOUR_MS / 2, jitter_ms: 20_000 },
            3..=9 => Rhythm::Every { period_ms: HOUR_MS, jitter_ms: MINUTE_MS },
            10..=12 => Rhythm::Every { period_ms: 4 * HOUR_MS, jitter_ms: MINUTE_MS },
            13..=17 => Rhythm::Webhooks { a_day: 18.0 },
            _ => Rhythm::Daily { at_ms: random.within(0..24) * HOUR_MS, local: false },
        };
        let calls = if matches!(rhythm, Rhythm::Daily { .. }) { 20.0 } else { 0.4 };
        let owner = Owner { tenant, subject: Subject::Client(number), zone: &any_zone(networks, &mut random) };
        let hosts = site.hosts(networks, &mut random);
        let mut machine = Self::new(number, random, owner, Work { app, hosts, rhythm, calls }, span);
        machine.changes.clear();
        let random = &mut machine.random;
        let mut changes = Vec::new();
        let (moves, scenario) = match site {
            Site::Servers | Site::Scaled => (0.15, "client_region_move"),
            Site::Partner => (0.3, "partner_move"),
        };
        if let Some(at) = span.happens(moves, random) {
            changes.push((at, Change::Hosts(site.hosts(networks, random), Label::honest(scenario, number))));
        }
        if let (Site::Servers, Some(at)) = (site, span.happens(0.15, random)) {
            let hosts = Site::Scaled.hosts(networks, random);
            changes.push((at, Change::Hosts(hosts, Label::honest("client_autoscaled", number))));
        }
        // The services of a tenant are deployed on one day; some have a release of their own.
        let release = Random::new(span.seed, 11_900_000 + tenant_number).within(0..span.days * DAY_MS);
        let client = random.pick(LIBRARIES).any_client(random);
        if random.chance(0.6) {
            let at = span.start + release + random.within(0..3 * HOUR_MS);
            let label = Label::honest("client_deploy", tenant_number);
            changes.push((at, Change::Deploy(client, random.chance(0.5), label)));
        } else if let Some(at) = span.happens(0.5, random) {
            let label = Label::honest("client_deploy", 1_000 + number);
            changes.push((at, Change::Deploy(client, random.chance(0.5), label)));
        }
        let backfill = Change::Backfill(Label::honest("client_backfill", number));
        changes.extend(span.happens(0.1, random).map(|at| (at, backfill)));
        let outage = random.within(2 * HOUR_MS..30 * HOUR_MS);
        changes.extend(span.happens(0.3, random).map(|at| (at, Change::Outage(outage))));
        machine.plan(changes);
        machine
    }
}
