//! Aggregators of bank accounts: each reads the accounts of hundreds of users from a few servers, some times a day.

use std::sync::Arc;

use super::{Change, Hosts, Machine, Rhythm, Work, all_of, any_zone};
use crate::event::TokenType;
use crate::lab::simulate::apps::{App, Route, Tokens, get};
use crate::lab::simulate::clients::{Client, LIBRARIES};
use crate::lab::simulate::grant::Owner;
use crate::lab::simulate::label::Label;
use crate::lab::simulate::networks::{Network, Purpose};
use crate::lab::simulate::random::Random;
use crate::lab::simulate::record::Subject;
use crate::lab::simulate::span::Span;
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};

/// Access tokens for an hour.
const BUDGETS: App = App::new("budgetly", "aggregator", Tokens::Refreshing { minutes: 60 }, READS);

/// Access tokens that are valid as long as the user's consent.
const INSIGHTS: App = App::new("finlens", "aggregator", Tokens::Standing(TokenType::Access), READS);

const READS: &[Route] = &[
    get("/v1/accounts", 0.36, 4_000.0),
    get("/v1/accounts/{}/transactions", 0.34, 22_000.0),
    get("/v1/accounts/{}/balances", 0.24, 1_200.0),
    get("/v1/parties/me", 0.04, 800.0),
    get("/v1/accounts/{}/beneficiaries", 0.006, 6_000.0),
    get("/v1/accounts/{}/standing-orders", 0.005, 4_000.0),
    get("/v1/accounts/{}/statements", 0.003, 400_000.0),
];

/// Each aggregator's application, and the banks of its users.
const AGGREGATORS: [(&App, &[&str]); 2] =
    [(&BUDGETS, &["meridianbank"]), (&INSIGHTS, &["meridianbank", "harborbank", "alpenbank"])];

struct Aggregator {
    app: &'static App,
    banks: &'static [&'static str],
    hosts: Hosts,
    client: Arc<Client>,
    /// Beginning and length of the move of all grants to other servers, and the new client.
    moves_at: i64,
    moves_for: i64,
    new_hosts: Hosts,
    new_client: Option<Arc<Client>>,
    /// Times at which all users are read at once.
    pushes: [i64; 2],
}

impl Aggregator {
    fn new(number: u64, span: &Span, networks: &[Network]) -> Self {
        let mut random = Random::new(span.seed, 13_900_000 + number);
        let (app, banks) = AGGREGATORS[number as usize];
        let clouds = all_of(Purpose::Cloud, networks);
        let servers = |random: &mut Random| {
            let network = *random.pick(&clouds);
            Hosts::Own((0..2 + random.below(3)).map(|_| networks[network].random_v4(random)).collect())
        };
        let library = random.pick(LIBRARIES);
        Self {
            app,
            banks,
            hosts: servers(&mut random),
            client: library.client("", 0),
            moves_at: span.moment(&mut random),
            moves_for: random.within(DAY_MS..3 * DAY_MS),
            new_hosts: servers(&mut random),
            new_client: random.chance(0.5).then(|| random.pick(LIBRARIES).any_client(&mut random)),
            pushes: [span.moment(&mut random), span.moment(&mut random)],
        }
    }
}

impl Machine {
    /// The grants of `users` users to each aggregator.
    pub(crate) fn aggregated(users: u32, span: &Span, networks: &[Network]) -> Vec<Self> {
        let mut grants = Vec::new();
        for number in 0..AGGREGATORS.len() as u64 {
            let aggregator = Aggregator::new(number, span, networks);
            let grant = |user| Self::aggregator_grant(number, user, &aggregator, span, networks);
            grants.extend((0..u64::from(users)).map(grant));
        }
        grants
    }

    fn aggregator_grant(
        aggregator_number: u64,
        user: u64,
        aggregator: &Aggregator,
        span: &Span,
        networks: &[Network],
    ) -> Self {
        let number = aggregator_number * 100_000 + user;
        let mut random = Random::new(span.seed, 13_000_000 + number);
        let period_ms = DAY_MS / (1 + random.below(4)) as i64;
        let rhythm = Rhythm::Slots { first_ms: random.within(0..period_ms), period_ms, jitter_ms: 20 * MINUTE_MS };
        let tenant = aggregator.banks[(user % aggregator.banks.len() as u64) as usize];
        let subject = Subject::User(format!("customer-{number}"));
        let owner = Owner { tenant, subject, zone: &any_zone(networks, &mut random) };
        let work = Work { app: aggregator.app, hosts: aggregator.hosts.clone(), rhythm, calls: 1.0 };
        let mut machine = Self::new(number, random, owner, work, span);
        let random = &mut machine.random;
        machine.grant.ensure_family(random);
        machine.client = Arc::clone(&aggregator.client);
        machine.changes.clear();
        let label = Label::honest("aggregator_move", aggregator_number);
        let moved_at = aggregator.moves_at + random.within(0..aggregator.moves_for);
        let mut changes = vec![(moved_at, Change::Hosts(aggregator.new_hosts.clone(), label))];
        if let Some(client) = &aggregator.new_client {
            changes.push((moved_at, Change::Deploy(Arc::clone(client), false, label)));
        }
        machine.plan(changes);
        let pushed = |(push, at): (usize, &i64)| {
            let label = Label::honest("aggregator_push", aggregator_number << 8 | push as u64);
            (at + machine.random.within(0..HOUR_MS / 3), label)
        };
        machine.pushes = aggregator.pushes.iter().enumerate().map(pushed).collect();
        machine
    }
}
