//! Services with a schedule, and secrets that two sites share.

use super::{Change, Hosts, Machine, Rhythm, Work, any, any_zone};
use crate::lab::simulate::apps::WAREHOUSE;
use crate::lab::simulate::clients::LIBRARIES;
use crate::lab::simulate::grant::Owner;
use crate::lab::simulate::label::Label;
use crate::lab::simulate::networks::{Network, Purpose};
use crate::lab::simulate::random::Random;
use crate::lab::simulate::record::Subject;
use crate::lab::simulate::span::{Depth, Span};
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};

impl Machine {
    /// `tenant` is its name and number.
    pub(crate) fn service(
        number: u64,
        span: &Span,
        (tenant, tenant_number): (&'static str, u64),
        networks: &[Network],
    ) -> Self {
        let mut random = Random::new(span.seed, 4_000_000 + number);
        let deep = span.depth == Depth::Full;
        let clouds: &[Purpose] = if deep { &[Purpose::Cloud, Purpose::Rented] } else { &[Purpose::Cloud] };
        let network = any(clouds, networks, &mut random);
        let own = |network: usize, random: &mut Random| {
            Hosts::Own((0..=random.below(2)).map(|_| networks[network].random_v4(random)).collect())
        };
        let hosts = if deep && random.chance(0.12) {
            // Functions without a server of their own.
            Hosts::Runners(vec![network])
        } else if deep && random.chance(0.08) {
            // Traffic leaves through a pool of gateways.
            Hosts::Own((0..24).map(|_| networks[network].random_v4(&mut random)).collect())
        } else {
            own(network, &mut random)
        };
        let rhythm = match random.below(10) {
            0 => Rhythm::Every { period_ms: HOUR_MS / 6, jitter_ms: 4_000 },
            1..=2 => Rhythm::Every { period_ms: HOUR_MS / 2, jitter_ms: 20_000 },
            3..=5 => Rhythm::Every { period_ms: HOUR_MS, jitter_ms: MINUTE_MS },
            6 => Rhythm::Every { period_ms: 4 * HOUR_MS, jitter_ms: MINUTE_MS },
            7..=8 => Rhythm::Webhooks { a_day: 14.0 },
            _ => Rhythm::Daily { at_ms: random.within(0..24) * HOUR_MS, local: deep && random.chance(0.6) },
        };
        let calls = if matches!(rhythm, Rhythm::Daily { .. }) { 20.0 } else { 0.4 };
        let user = format!("svc-{}-{number}", random.pick(&["orders", "stock", "billing", "reports", "mirror"]));
        let zone = any_zone(networks, &mut random);
        let mut machine = Self::new(
            number,
            random,
            Owner { tenant, subject: Subject::User(user), zone: &zone },
            Work { app: &WAREHOUSE, hosts, rhythm, calls },
            span,
        );
        let random = &mut machine.random;
        let mut changes = Vec::new();
        match span.depth {
            Depth::Plain if random.chance(0.06) => {
                let at = span.moment(random);
                changes.push((at, Change::Hosts(own(network, random), Label::honest("load_balancer", number))));
            }
            Depth::Plain => {}
            Depth::Full => {
                if let Some(at) = span.happens(0.08, random) {
                    changes.push((at, Change::Hosts(own(network, random), Label::honest("load_balancer", number))));
                }
                if let Some(at) = span.happens(0.08, random) {
                    let region = any(clouds, networks, random);
                    changes.push((at, Change::Hosts(own(region, random), Label::honest("region_move", number))));
                }
                // Most of the tenant's services get a new version on the same day, a few at another time.
                let fleet = Random::new(span.seed, 7_000_000 + tenant_number).within(0..span.days * DAY_MS);
                if random.chance(0.7) {
                    let at = span.start + fleet + random.within(0..3 * HOUR_MS);
                    let client = random.pick(LIBRARIES).any_client(random);
                    let with_task = random.chance(0.5);
                    changes.push((at, Change::Deploy(client, with_task, Label::honest("deploy_day", tenant_number))));
                }
                changes.extend(span.happens(0.1, random).map(|at| (at, Change::NewSecret)));
                changes.extend(
                    span.happens(0.12, random).map(|at| (at, Change::Backfill(Label::honest("backfill", number)))),
                );
                let outage = random.within(2 * HOUR_MS..30 * HOUR_MS);
                changes.extend(span.happens(0.3, random).map(|at| (at, Change::Outage(outage))));
                machine.closes_months = random.chance(0.15);
            }
        }
        machine.plan(changes);
        machine
    }

    /// One secret that two sites share permanently, each with its own schedule and program.
    pub(crate) fn shared(number: u64, span: &Span, tenant: &'static str, networks: &[Network]) -> [Self; 2] {
        let mut random = Random::new(span.seed, 4_500_000 + number);
        let user = format!("shared-{number}");
        let zone = any_zone(networks, &mut random);
        let site = |random: &mut Random, offset: u64| {
            let network = any(&[Purpose::Cloud, Purpose::Home, Purpose::Rented], networks, random);
            let hosts = Hosts::Own(vec![networks[network].random_v4(random)]);
            let rhythm = if random.chance(0.5) {
                Rhythm::Every { period_ms: *random.pick(&[20 * MINUTE_MS, HOUR_MS, 3 * HOUR_MS]), jitter_ms: 90_000 }
            } else {
                Rhythm::Webhooks { a_day: 12.0 }
            };
            let own = Random::new(span.seed, 4_600_000 + number * 2 + offset);
            let mut machine = Self::new(
                number,
                own,
                Owner { tenant, subject: Subject::User(user.clone()), zone: &zone },
                Work { app: &WAREHOUSE, hosts, rhythm, calls: 0.6 },
                span,
            );
            machine.news = Some(Label::honest("shared_account", number).until(i64::MAX));
            machine
        };
        let (first, mut second) = (site(&mut random, 0), site(&mut random, 1));
        second.grant = first.grant.clone();
        [first, second]
    }
}
