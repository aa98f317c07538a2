//! Machines: scheduled services, build jobs on hosted runners, and vendors' plugins that act for many users.

use std::net::IpAddr;
use std::sync::Arc;

use super::apps::{App, CALENDAR_PLUGIN, DEPLOY, LEADS_PLUGIN, NOTES_PLUGIN, Taste, WAREHOUSE};
use super::clients::{Client, LIBRARIES};
use super::grant::{Grant, Visitor};
use super::networks::{Network, Purpose};
use super::person::{DAY, HOUR};
use super::random::Random;
use super::record::{Call, Record};

/// One program with one secret.
#[derive(Debug)]
pub(super) struct Machine {
    random: Random,
    grant: Grant,
    client: Arc<Client>,
    /// A new version is rolled out at some moment of the story.
    deploy: Option<(i64, Arc<Client>)>,
    hosts: Hosts,
    rhythm: Rhythm,
    taste: Taste,
    /// Calls of a run, in the median.
    calls: f64,
    objects: u64,
}

#[derive(Debug)]
enum Hosts {
    /// The service's own addresses, and when it moves to another of its provider's.
    Own { addresses: Vec<IpAddr>, network: usize, moves_at: Option<i64> },
    /// A fresh runner each time.
    Runners(Vec<usize>),
}

#[derive(Clone, Copy, Debug)]
enum Rhythm {
    Every {
        period_ms: i64,
        jitter_ms: i64,
    },
    /// At the hour of the day, once.
    Daily {
        at_ms: i64,
    },
    /// When the team pushes: so many times a workday in the median.
    Pushes {
        a_day: f64,
    },
    /// When something happens that a user cares for.
    Webhooks {
        a_day: f64,
    },
}

/// A plugin's vendor: all its users' tokens are used from its few servers.
#[derive(Debug)]
pub(super) struct Vendor {
    app: &'static App,
    addresses: Vec<IpAddr>,
    network: usize,
    client: Arc<Client>,
}

impl Vendor {
    pub fn all(seed: u64, networks: &[Network]) -> Vec<Self> {
        let mut random = Random::new(seed, 3_000_000);
        let apps: [&'static App; 3] = [&CALENDAR_PLUGIN, &LEADS_PLUGIN, &NOTES_PLUGIN];
        apps.into_iter()
            .map(|app| {
                let network = any(Purpose::Cloud, networks, &mut random);
                let addresses = (0..3).map(|_| networks[network].random_v4(&mut random)).collect();
                Self { app, addresses, network, client: random.pick(LIBRARIES).any_client(&mut random) }
            })
            .collect()
    }
}

impl Machine {
    pub fn service(number: u64, seed: u64, start: i64, days: i64, tenant: &'static str, networks: &[Network]) -> Self {
        let mut random = Random::new(seed, 4_000_000 + number);
        let network = any(Purpose::Cloud, networks, &mut random);
        let addresses = (0..=random.below(2)).map(|_| networks[network].random_v4(&mut random)).collect();
        let rhythm = match random.below(10) {
            0 => Rhythm::Every { period_ms: HOUR / 6, jitter_ms: 4_000 },
            1..=2 => Rhythm::Every { period_ms: HOUR / 2, jitter_ms: 20_000 },
            3..=5 => Rhythm::Every { period_ms: HOUR, jitter_ms: 60_000 },
            6 => Rhythm::Every { period_ms: 4 * HOUR, jitter_ms: 60_000 },
            7..=8 => Rhythm::Webhooks { a_day: 14.0 },
            _ => Rhythm::Daily { at_ms: random.within(0..24) * HOUR },
        };
        let calls = if matches!(rhythm, Rhythm::Daily { .. }) { 20.0 } else { 0.4 };
        let moves_at = random.chance(0.06).then(|| start + random.within(0..days * DAY));
        let user = format!("svc-{}-{number}", random.pick(&["orders", "stock", "billing", "reports", "mirror"]));
        let hosts = Hosts::Own { addresses, network, moves_at };
        Self::new(random, &WAREHOUSE, tenant, &user, networks[network].offset_ms, hosts, rhythm, calls, (start, days))
    }

    pub fn build_job(
        number: u64,
        seed: u64,
        start: i64,
        days: i64,
        tenant: &'static str,
        networks: &[Network],
    ) -> Self {
        let mut random = Random::new(seed, 5_000_000 + number);
        let runners = networks.iter().enumerate().filter(|(_, n)| n.purpose == Purpose::Ci).map(|(at, _)| at).collect();
        let rhythm = if random.chance(0.75) {
            let a_day = random.log_normal(4.0, 0.5);
            Rhythm::Pushes { a_day }
        } else {
            Rhythm::Daily { at_ms: random.within(0..5) * HOUR }
        };
        let user = format!("ci-{}-{number}", random.pick(&["web", "api", "mobile", "infra", "docs"]));
        let offset_ms = *random.pick(&[-5 * HOUR, HOUR, HOUR]);
        Self::new(random, &DEPLOY, tenant, &user, offset_ms, Hosts::Runners(runners), rhythm, 4.0, (start, days))
    }

    /// One user's grant to a vendor's plugin.
    pub fn plugin(number: u64, seed: u64, start: i64, days: i64, tenant: &'static str, vendor: &Vendor) -> Self {
        let mut random = Random::new(seed, 6_000_000 + number);
        let a_day = random.log_normal(4.0, 0.6);
        let hosts = Hosts::Own { addresses: vendor.addresses.clone(), network: vendor.network, moves_at: None };
        let offset_ms = *random.pick(&[-6 * HOUR, -5 * HOUR, 0, HOUR, HOUR]);
        let user = format!("member-{number}");
        let rhythm = Rhythm::Webhooks { a_day };
        let mut machine = Self::new(random, vendor.app, tenant, &user, offset_ms, hosts, rhythm, 1.2, (start, days));
        machine.client = Arc::clone(&vendor.client);
        machine.deploy = None;
        machine
    }

    #[expect(clippy::too_many_arguments, reason = "the common end of three ways to make one")]
    fn new(
        mut random: Random,
        app: &'static App,
        tenant: &'static str,
        user: &str,
        offset_ms: i64,
        hosts: Hosts,
        rhythm: Rhythm,
        calls: f64,
        (start, days): (i64, i64),
    ) -> Self {
        let grant = Grant::new(tenant, user, app, offset_ms, &mut random);
        let taste = Taste::new(app, &mut random);
        let library = random.pick(LIBRARIES);
        let deploy = random.chance(0.25).then(|| (start + random.within(0..days * DAY), library.client("", 1)));
        let objects = random.below(500_000);
        Self { client: library.client("", 0), random, grant, deploy, hosts, rhythm, taste, calls, objects }
    }

    /// The events of one day that begins at `midnight`, UTC.
    pub fn day(&mut self, midnight: i64, weekday: u8, networks: &[Network], out: &mut Vec<Record>) {
        let random = &mut self.random;
        let workday = weekday < 5;
        let local = |hour: f64, offset: i64| midnight - offset + (hour.clamp(0.0, 23.9) * HOUR as f64) as i64;
        let offset = self.grant.holder.offset_ms;
        let mut runs: Vec<i64> = match self.rhythm {
            Rhythm::Every { period_ms, jitter_ms } => {
                (0..DAY / period_ms).map(|n| midnight + n * period_ms + random.within(0..jitter_ms)).collect()
            }
            Rhythm::Daily { at_ms } => vec![midnight + at_ms + random.within(0..120_000)],
            Rhythm::Pushes { a_day } => {
                let count = random.count(if workday { a_day } else { a_day * 0.08 }, 0.6);
                (0..count).map(|_| local(random.normal(14.0, 3.0), offset)).collect()
            }
            Rhythm::Webhooks { a_day } => {
                let count = random.count(if workday { a_day } else { a_day * 0.3 }, 0.4);
                (0..count).map(|_| local(random.normal(13.0, 4.0), offset)).collect()
            }
        };
        runs.sort_unstable();
        for at in runs {
            self.run(at, networks, out);
        }
    }

    fn run(&mut self, begins: i64, networks: &[Network], out: &mut Vec<Record>) {
        let random = &mut self.random;
        if let Some((from, client)) = &self.deploy
            && begins >= *from
        {
            self.client = Arc::clone(client);
            self.deploy = None;
        }
        let address = match &mut self.hosts {
            Hosts::Own { addresses, network, moves_at } => {
                if moves_at.is_some_and(|moves_at| begins >= moves_at) {
                    addresses.clear();
                    addresses.push(networks[*network].random_v4(random));
                    *moves_at = None;
                }
                *random.pick(addresses)
            }
            Hosts::Runners(pool) => networks[*random.pick(pool)].random_v4(random),
        };
        let visitor = Visitor { address, client: Arc::clone(&self.client) };
        let mut at = begins;
        for _ in 0..=random.count(self.calls, 0.5) {
            let route = self.taste.choose(self.grant.holder.app, random);
            let object = self.objects + random.below(5_000);
            let call = Call { route, object, bytes: route.answer_bytes(random) };
            self.grant.call(at, &visitor, call, random, out);
            at += random.log_normal(900.0, 1.0) as i64 + 40;
        }
    }
}

fn any(purpose: Purpose, networks: &[Network], random: &mut Random) -> usize {
    let all: Vec<usize> = networks.iter().enumerate().filter(|(_, n)| n.purpose == purpose).map(|(at, _)| at).collect();
    *random.pick(&all)
}
