//! Millions of simple holders, generated event by event with a few bytes of state, to measure the cost of many tokens.
//! No token is stolen.

use std::sync::Arc;

use super::apps::{App, PLUGINS, Taste, WAREHOUSE};
use super::clients::{Client, LIBRARIES};
use super::company::tenant;
use super::networks::{self, Network, Purpose};
use super::random::Random;
use super::record::{Call, Holder, Record, Sighting, Subject};
use crate::event::Kind;
use crate::millis::DAY_MS;

/// Traffic of a crowd: each token is used once per round, in a pseudo-random order.
pub(crate) struct Crowd {
    seed: u64,
    start: i64,
    tokens: u64,
    networks: Vec<Network>,
    /// Networks of the holders.
    lines: Vec<usize>,
    clients: Vec<Arc<Client>>,
    written: u64,
}

/// Number of uses of each token.
const ROUNDS: u64 = 2;

/// Duration of the traffic in milliseconds.
const SPAN: i64 = 2 * DAY_MS;

/// Number of events that are generated at once.
const EVENTS_AT_ONCE: u64 = 10_000;

impl Crowd {
    /// Number of tokens of the size `huge`.
    pub(crate) const HUGE: u64 = 10_000_000;

    pub(crate) fn new(seed: u64, start: i64, tokens: u64) -> Self {
        let networks = networks::all();
        let fixed = |n: &Network| matches!(n.purpose, Purpose::Home | Purpose::Cloud);
        let lines = networks.iter().enumerate().filter(|(_, n)| fixed(n)).map(|(at, _)| at).collect();
        let clients = LIBRARIES.iter().map(|library| library.client("", 1)).collect();
        Self { seed, start, tokens, networks, lines, clients, written: 0 }
    }

    /// Total number of events.
    pub(crate) const fn events(&self) -> u64 {
        self.tokens * ROUNDS
    }

    pub(crate) const fn written(&self) -> u64 {
        self.written
    }

    /// Appends the next events to `out`, one JSON object per line, in time order. Returns false at the end.
    pub(crate) fn next_events(&mut self, out: &mut Vec<u8>) -> bool {
        let until = (self.written + EVENTS_AT_ONCE).min(self.events());
        if self.written == until {
            return false;
        }
        while self.written < until {
            let record = self.event(self.written);
            self.written += 1;
            record.write(&format!("e{:08}", self.written), out);
        }
        true
    }

    fn event(&self, number: u64) -> Record {
        let round = number / self.tokens;
        // A step that is coprime to the number of tokens visits each token once per round.
        let step = coprime_step(self.tokens);
        let token = ((u128::from(number % self.tokens) * u128::from(step) + u128::from(round))
            % u128::from(self.tokens)) as u64;
        let at = self.start + (i128::from(SPAN) * i128::from(number) / i128::from(self.events())) as i64;
        let mut own = Random::new(self.seed, 10_000_000_000 + token);
        let app: &'static App = if own.chance(0.5) { &WAREHOUSE } else { own.pick(&PLUGINS) };
        let network = &self.networks[*own.pick(&self.lines)];
        let address = network.random_v4(&mut own);
        let client = Arc::clone(own.pick(&self.clients));
        let (token_id, taste, object) = (own.bits(), Taste::new(app, &mut own), own.below(500_000));
        let mut now = Random::new(self.seed, 20_000_000_000 + number);
        let route = taste.choose(app, &mut now);
        let call = Call { route, object: object + now.below(50), bytes: route.answer_bytes(&mut now) };
        let holder = Holder {
            tenant: tenant(token).0,
            subject: Subject::User(format!("holder-{token}")),
            app,
            family: None,
            zone: network.zone.clone(),
        };
        Record {
            at,
            kind: Kind::Use,
            token: token_id,
            token_type: app.tokens.in_calls(),
            parent: None,
            holder: Arc::new(holder),
            expires_at: None,
            sighting: Some(Sighting { address, client, call: Some(call), status: 200, binding: None }),
            label: None,
        }
    }
}

/// A number near the golden section of `n` that is coprime to it.
fn coprime_step(n: u64) -> u64 {
    let divisor = |a: u64, b: u64| {
        let (mut a, mut b) = (a, b);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let mut step = (n as f64 * 0.618) as u64 + 1;
    while divisor(step, n) != 1 {
        step += 1;
    }
    step
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn crowd_uses_every_token_once_per_round() {
        let mut crowd = Crowd::new(1, 1_790_000_000_000, 1_000);
        let (mut out, mut seen, mut last) = (Vec::new(), HashMap::<String, u64>::new(), String::new());
        while crowd.next_events(&mut out) {}
        for line in std::str::from_utf8(&out).expect("text").lines() {
            let event: serde_json::Value = serde_json::from_str(line).expect("one object a line");
            *seen.entry(event["token_id"].as_str().expect("text").to_owned()).or_default() += 1;
            let at = event["timestamp"].as_str().expect("text").to_owned();
            assert!(last <= at);
            last = at;
        }
        assert_eq!(seen.len(), 1_000);
        assert!(seen.values().all(|uses| *uses == ROUNDS));
        assert_eq!(crowd.written(), crowd.events());
    }
}
