//! Machines: scheduled services, build jobs on hosted runners, and plugins of vendors that act for many users.

use std::net::IpAddr;
use std::sync::Arc;

use super::apps::{App, DEPLOY, PLUGINS, Taste, WAREHOUSE};
use super::clients::{Client, LIBRARIES};
use super::grant::{Grant, Owner, Visitor};
use super::label::{Label, News};
use super::networks::{Network, Purpose, Zone};
use super::random::Random;
use super::record::{Call, Record};
use super::span::{Depth, Mood, Span, cluster, ends_month};
use crate::event::Kind;
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};

/// One program with one secret.
#[derive(Debug)]
pub(super) struct Machine {
    number: u64,
    depth: Depth,
    random: Random,
    grant: Grant,
    client: Arc<Client>,
    hosts: Hosts,
    rhythm: Rhythm,
    taste: Taste,
    /// Median number of calls per run.
    calls: f64,
    objects: u64,
    mood: Mood,
    /// Has many times the usual work on the last day of a month.
    closes_months: bool,
    /// Future changes, the latest first.
    changes: Vec<(i64, Change)>,
    news: Option<News>,
    /// No run starts before this time.
    down_until: i64,
}

#[derive(Clone, Debug)]
enum Hosts {
    /// Addresses of the service.
    Own(Vec<IpAddr>),
    /// A new runner in one of these networks for each run.
    Runners(Vec<usize>),
}

/// A change in a machine's behaviour.
#[derive(Clone, Debug)]
enum Change {
    Hosts(Hosts, Label),
    /// A new version of the client; with `true` also a new task.
    Deploy(Arc<Client>, bool, Label),
    /// A new secret replaces the old one. An outdated job still tries the old one for a while.
    NewSecret,
    /// The work of many days in one run.
    Backfill(Label),
    Outage(i64),
}

#[derive(Clone, Copy, Debug)]
enum Rhythm {
    Every {
        period_ms: i64,
        jitter_ms: i64,
    },
    /// Once a day at this time, in the holder's zone or in UTC.
    Daily {
        at_ms: i64,
        local: bool,
    },
    /// On pushes of a team; median number per workday.
    Pushes {
        a_day: f64,
    },
    /// On webhooks of a user's events.
    Webhooks {
        a_day: f64,
    },
}

/// A vendor of plugins, whose few servers use the tokens of all its users.
#[derive(Debug)]
pub(super) struct Vendor {
    app: &'static App,
    addresses: Vec<IpAddr>,
    client: Arc<Client>,
    /// A change on one day that affects the tokens of all its users.
    change: Option<(i64, Change)>,
}

impl Vendor {
    /// The first `count` vendors.
    pub(crate) fn all(count: usize, span: &Span, networks: &[Network]) -> Vec<Self> {
        let mut random = Random::new(span.seed, 3_000_000);
        let make = |(number, app): (usize, &'static App)| {
            let address = |random: &mut Random| {
                let network = any(&[Purpose::Cloud, Purpose::Rented], networks, random);
                (0..3).map(|_| networks[network].random_v4(random)).collect::<Vec<_>>()
            };
            let addresses = address(&mut random);
            let client = random.pick(LIBRARIES).any_client(&mut random);
            let moved = address(&mut random);
            let at = span.moment(&mut random);
            // Of three vendors, one moves to other servers, one deploys a version, and one does not change.
            let change = match number % 3 {
                0 => Some(Change::Hosts(Hosts::Own(moved), Label::honest("app_migration", number as u64))),
                1 => Some(Change::Deploy(
                    random.pick(LIBRARIES).any_client(&mut random),
                    true,
                    Label::honest("deploy_day", 1_000 + number as u64),
                )),
                _ => None,
            };
            let change = change.filter(|_| span.depth == Depth::Full).map(|change| (at, change));
            Self { app, addresses, client, change }
        };
        PLUGINS.iter().take(count).enumerate().map(make).collect()
    }
}

/// What a machine does with its token.
struct Work {
    app: &'static App,
    hosts: Hosts,
    rhythm: Rhythm,
    /// Median number of calls per run.
    calls: f64,
}

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
            Owner { tenant, user: &user, zone: &zone },
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
                Owner { tenant, user: &user, zone: &zone },
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

    pub(crate) fn build_job(number: u64, span: &Span, tenant: &'static str, networks: &[Network]) -> Self {
        let mut random = Random::new(span.seed, 5_000_000 + number);
        let runners: Vec<usize> = all_of(Purpose::Ci, networks);
        // Before a larger pool is opened, jobs run in a part of it.
        let deep = span.depth == Depth::Full;
        let first = if deep { vec![*random.pick(&runners)] } else { runners.clone() };
        let rhythm = if random.chance(0.75) {
            let a_day = random.log_normal(4.0, 0.5);
            Rhythm::Pushes { a_day }
        } else {
            Rhythm::Daily { at_ms: random.within(0..5) * HOUR_MS, local: false }
        };
        let user = format!("ci-{}-{number}", random.pick(&["web", "api", "mobile", "infra", "docs"]));
        let zone = any_zone(networks, &mut random);
        let hosts = Hosts::Runners(first);
        let mut machine = Self::new(
            number,
            random,
            Owner { tenant, user: &user, zone: &zone },
            Work { app: &DEPLOY, hosts, rhythm, calls: 4.0 },
            span,
        );
        let random = &mut machine.random;
        let mut changes = Vec::new();
        let more = Change::Hosts(Hosts::Runners(runners), Label::honest("runner_pool", number));
        changes.extend(span.happens(0.5, random).map(|at| (at, more)));
        changes.extend(span.happens(0.08, random).map(|at| (at, Change::NewSecret)));
        let client = random.pick(LIBRARIES).any_client(random);
        let deploy = Change::Deploy(client, true, Label::honest("new_task", 5_000_000 + number));
        changes.extend(span.happens(0.2, random).map(|at| (at, deploy)));
        machine.plan(changes);
        machine
    }

    /// One user's grant to a vendor's plugin.
    pub(crate) fn plugin(
        number: u64,
        span: &Span,
        tenant: &'static str,
        vendor: &Vendor,
        networks: &[Network],
    ) -> Self {
        let mut random = Random::new(span.seed, 6_000_000 + number);
        let a_day = match span.depth {
            Depth::Plain => random.log_normal(4.0, 0.6),
            Depth::Full => random.log_normal(3.0, 1.0).min(40.0),
        };
        let hosts = Hosts::Own(vendor.addresses.clone());
        let zone = any_zone(networks, &mut random);
        let user = format!("member-{number}");
        let rhythm = Rhythm::Webhooks { a_day };
        let mut machine = Self::new(
            number,
            random,
            Owner { tenant, user: &user, zone: &zone },
            Work { app: vendor.app, hosts, rhythm, calls: 1.2 },
            span,
        );
        machine.client = Arc::clone(&vendor.client);
        machine.changes.clear();
        if let Some((at, change)) = &vendor.change {
            // Rolled out over some hours.
            let at = at + machine.random.within(0..4 * HOUR_MS);
            machine.changes.push((at, change.clone()));
        }
        machine
    }

    fn new(
        number: u64,
        mut random: Random,
        owner: Owner<'_>,
        Work { app, hosts, rhythm, calls }: Work,
        span: &Span,
    ) -> Self {
        let grant = Grant::new(owner, app, span.depth, &mut random);
        let taste = Taste::new(app, &mut random);
        let library = random.pick(LIBRARIES);
        let objects = random.below(500_000);
        let update = random.chance(0.25).then(|| {
            let label = Label::honest("client_update", number);
            (span.moment(&mut random), Change::Deploy(library.client("", 1), false, label))
        });
        Self {
            number,
            depth: span.depth,
            client: library.client("", 0),
            random,
            grant,
            hosts,
            rhythm,
            taste,
            calls,
            objects,
            mood: Mood::default(),
            closes_months: false,
            changes: update.into_iter().collect(),
            news: None,
            down_until: 0,
        }
    }

    fn plan(&mut self, changes: Vec<(i64, Change)>) {
        self.changes.extend(changes);
        self.changes.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    }

    /// The events of the day that begins at `midnight`, UTC.
    pub(crate) fn day(&mut self, midnight: i64, weekday: u8, networks: &[Network], out: &mut Vec<Record>) {
        let mood = self.mood.on(midnight, self.depth, &mut self.random);
        let random = &mut self.random;
        let workday = weekday < 5;
        let zone = &self.grant.holder.zone;
        let offset = zone.offset_ms(midnight + 12 * HOUR_MS);
        let local = |hour: f64| midnight - offset + (hour.clamp(0.0, 23.9) * HOUR_MS as f64) as i64;
        let mut label = None;
        let mut runs: Vec<i64> = match self.rhythm {
            Rhythm::Every { period_ms, jitter_ms } => {
                (0..DAY_MS / period_ms).map(|n| midnight + n * period_ms + random.within(0..jitter_ms)).collect()
            }
            Rhythm::Daily { at_ms, local: false } => vec![midnight + at_ms + random.within(0..120_000)],
            Rhythm::Daily { at_ms, local: true } => {
                if zone.offset_ms(midnight - 3 * DAY_MS) != offset {
                    label = Some(Label::honest("summer_time", self.number));
                }
                vec![midnight - offset + at_ms + random.within(0..120_000)]
            }
            Rhythm::Pushes { a_day } => {
                let count = random.count(if workday { a_day * mood } else { a_day * 0.08 }, 0.6);
                (0..count).map(|_| local(random.normal(14.0, 3.0))).collect()
            }
            Rhythm::Webhooks { a_day } => {
                let count = random.count(mood * if workday { a_day } else { a_day * 0.3 }, 0.4);
                (0..count).map(|_| local(random.normal(13.0, 4.0))).collect()
            }
        };
        match self.rhythm {
            Rhythm::Every { .. } | Rhythm::Daily { .. } => runs.sort_unstable(),
            Rhythm::Pushes { .. } | Rhythm::Webhooks { .. } => cluster(&mut runs, self.depth, random),
        }
        let mut calls = self.calls;
        if self.closes_months && ends_month(midnight) {
            calls = (calls + 1.0) * random.log_uniform(10.0, 40.0) / (runs.len().max(1) as f64).sqrt();
            label = Some(Label::honest("month_end", self.number << 16 | (midnight / DAY_MS) as u64));
        }
        for at in runs {
            if let Some(backfill) = self.apply_changes(at, networks, out) {
                (calls, label) = (self.random.log_uniform(60.0, 900.0), Some(backfill));
                self.run(at, calls, label, networks, out);
                (calls, label) = (self.calls, None);
            } else if at >= self.down_until {
                self.run(at, calls, label, networks, out);
            }
        }
    }

    /// Applies changes up to `at`. Returns the label of a backfill that starts now.
    fn apply_changes(&mut self, at: i64, networks: &[Network], out: &mut Vec<Record>) -> Option<Label> {
        while self.changes.last().is_some_and(|(from, _)| at >= *from) {
            let (from, change) = self.changes.pop()?;
            let mut news = |label: Label| self.news = Some(label.until(from + 3 * DAY_MS));
            match change {
                Change::Hosts(hosts, label) => {
                    self.hosts = hosts;
                    news(label);
                }
                Change::Deploy(client, with_task, label) => {
                    self.client = client;
                    news(label);
                    if with_task {
                        self.taste = Taste::new(self.grant.holder.app, &mut self.random);
                    }
                }
                Change::NewSecret => self.new_secret(at, networks, out),
                Change::Backfill(label) => return Some(label),
                Change::Outage(lasts) => self.down_until = from + lasts,
            }
        }
        None
    }

    /// The old secret is revoked an hour after the new one is in use. One of two jobs still uses the old one.
    fn new_secret(&mut self, at: i64, networks: &[Network], out: &mut Vec<Record>) {
        let visitor = self.visitor(None, networks);
        let mut old = self.grant.clone();
        let revoked_at = at + HOUR_MS;
        old.end(revoked_at, Kind::Revoked, out);
        if self.random.chance(0.5) {
            let label = Label::honest("stale_client", 1 << 40 | self.number);
            let mut tried_at = revoked_at;
            for _ in 0..self.random.within(2..12) {
                tried_at += self.random.log_normal(2.0 * HOUR_MS as f64, 1.2) as i64 + 35_000;
                let call = self.make_call();
                out.push(old.stale_call(tried_at, 401, label, &visitor, call));
            }
        }
        let label = Label::honest("new_secret", self.number);
        self.grant.begin_anew(at - 1_000, Some(label), &mut self.random, out);
        self.news = Some(label.until(at + DAY_MS));
    }

    fn run(&mut self, begins: i64, calls: f64, label: Option<Label>, networks: &[Network], out: &mut Vec<Record>) {
        let label = label.or_else(|| self.news.and_then(|news| news.at(begins)));
        let visitor = self.visitor(label, networks);
        let mut at = begins;
        let count = if calls > 40.0 { calls as u32 } else { self.random.count(calls, 0.5) };
        for _ in 0..=count {
            let call = self.make_call();
            self.grant.call(at, &visitor, call, &mut self.random, out);
            at += self.random.log_normal(900.0, 1.0) as i64 + 40;
        }
    }

    fn visitor(&mut self, label: Option<Label>, networks: &[Network]) -> Visitor {
        let random = &mut self.random;
        let address = match &self.hosts {
            Hosts::Own(addresses) => *random.pick(addresses),
            Hosts::Runners(pool) => networks[*random.pick(pool)].random_v4(random),
        };
        Visitor { address, hop: None, client: Arc::clone(&self.client), label }
    }

    fn make_call(&mut self) -> Call {
        let random = &mut self.random;
        let route = self.taste.choose(self.grant.holder.app, random);
        Call { route, object: self.objects + random.below(5_000), bytes: route.answer_bytes(random) }
    }
}

fn all_of(purpose: Purpose, networks: &[Network]) -> Vec<usize> {
    networks.iter().enumerate().filter(|(_, n)| n.purpose == purpose).map(|(at, _)| at).collect()
}

fn any(purposes: &[Purpose], networks: &[Network], random: &mut Random) -> usize {
    let purpose = *random.pick(purposes);
    *random.pick(&all_of(purpose, networks))
}

/// Zone of the users whose work the machine does.
fn any_zone(networks: &[Network], random: &mut Random) -> Zone {
    networks[any(&[Purpose::Home], networks, random)].zone.clone()
}
