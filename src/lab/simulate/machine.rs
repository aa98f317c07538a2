//! Machines: scheduled services, build jobs on hosted runners, and plugins of vendors that act for many users.

mod aggregator;
mod build_job;
mod service;
mod service_client;
pub(super) mod vendor;

use std::net::IpAddr;
use std::sync::Arc;

use super::actor::Actor;
use super::apps::{App, Taste};
use super::clients::{Client, LIBRARIES};
use super::grant::{Grant, Owner, Visitor};
use super::label::{Label, News};
use super::networks::{Network, Purpose, Zone};
use super::random::Random;
use super::record::{Call, Record};
use super::span::{Depth, Mood, Span, cluster, ends_month};
use crate::event::Kind;
use crate::millis::{DAY_MS, HOUR_MS};

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
    /// Runs outside of the rhythm.
    pushes: Vec<(i64, Label)>,
    /// No run starts before this time.
    down_until: i64,
}

#[derive(Clone, Debug)]
enum Hosts {
    /// Addresses of the service.
    Own(Vec<IpAddr>),
    /// A new runner in one of these networks for each run.
    Runners(Vec<usize>),
    /// A number of hosts in one network, each with another address in each hour.
    Scaled { network: usize, hosts: u64, stream: u64 },
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
    /// At a time of the day that is the machine's own, and after each period.
    Slots {
        first_ms: i64,
        period_ms: i64,
        jitter_ms: i64,
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

/// What a machine does with its token.
struct Work {
    app: &'static App,
    hosts: Hosts,
    rhythm: Rhythm,
    /// Median number of calls per run.
    calls: f64,
}

impl Actor for Machine {
    fn day(&mut self, midnight: i64, weekday: u8, networks: &[Network], out: &mut Vec<Record>) {
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
            Rhythm::Slots { first_ms, period_ms, jitter_ms } => (0..DAY_MS / period_ms)
                .map(|n| midnight + first_ms + n * period_ms + random.within(0..jitter_ms))
                .collect(),
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
            Rhythm::Slots { .. } => {
                let pushes = self.pushes.iter().map(|(at, _)| *at);
                runs.extend(pushes.filter(|at| (midnight..midnight + DAY_MS).contains(at)));
                runs.sort_unstable();
            }
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
                let label = self.pushes.iter().find(|(push, _)| *push == at).map(|(_, label)| *label).or(label);
                self.run(at, calls, label, networks, out);
            }
        }
    }
}

impl Machine {
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
            pushes: Vec::new(),
            down_until: 0,
        }
    }

    fn plan(&mut self, changes: Vec<(i64, Change)>) {
        self.changes.extend(changes);
        self.changes.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
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
        let visitor = self.visitor(at, None, networks);
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
        let visitor = self.visitor(begins, label, networks);
        let mut at = begins;
        let count = if calls > 40.0 { calls as u32 } else { self.random.count(calls, 0.5) };
        for _ in 0..=count {
            let call = self.make_call();
            self.grant.call(at, &visitor, call, &mut self.random, out);
            at += self.random.log_normal(900.0, 1.0) as i64 + 40;
        }
    }

    fn visitor(&mut self, at: i64, label: Option<Label>, networks: &[Network]) -> Visitor {
        let random = &mut self.random;
        let address = match &self.hosts {
            Hosts::Own(addresses) => *random.pick(addresses),
            Hosts::Runners(pool) => networks[*random.pick(pool)].random_v4(random),
            Hosts::Scaled { network, hosts, stream } => {
                let hour = at.div_euclid(HOUR_MS) as u64;
                let mut host = Random::new(stream ^ hour, random.below(*hosts));
                networks[*network].random_v4(&mut host)
            }
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
