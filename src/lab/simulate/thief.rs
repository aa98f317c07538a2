//! Thieves: their network, client and behaviour.

use crate::millis::MINUTE_MS;
use std::net::IpAddr;
use std::sync::Arc;

use super::clients::{BROWSERS, Client, LIBRARIES, PHONES};
use super::networks::Network;
use super::random::Random;
use super::record::{Call, Record, Sighting};
use super::span::Depth;

#[derive(Clone, Debug)]
pub(super) struct Thief {
    pub(crate) address: IpAddr,
    pub(crate) client: Arc<Client>,
    /// Networks of the thief's addresses, and the probability of another one before each call.
    pub(crate) exits: Vec<usize>,
    pub(crate) moves: f64,
    /// The key that the thief proves possession of.
    pub(crate) key: Option<u64>,
    /// Share of the calls that the server refuses because the token has ended.
    pub(crate) refused: f64,
}

/// Behaviour of a thief.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(crate) calls: usize,
    pub(crate) pace: Pace,
    /// Share of calls that owners rarely make.
    pub(crate) rare: f64,
    /// Share of calls that resemble the owner's.
    pub(crate) mimics: f64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    Program,
    Person,
    Patient,
}

/// The token that a thief uses.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// An event of the token.
    pub(crate) owned: &'a Record,
    /// The owner's calls of the day.
    pub(crate) habits: &'a [&'a Record],
}

impl Thief {
    /// In a network that `suits`, with a copy of the owner's client or with another common client.
    pub(crate) fn new(
        owned: &Record,
        networks: &[Network],
        suits: impl Fn(&Network) -> bool,
        depth: Depth,
        random: &mut Random,
    ) -> Option<Self> {
        let suitable: Vec<&Network> = networks.iter().filter(|network| suits(network)).collect();
        if suitable.is_empty() {
            return None;
        }
        let address = random.pick(&suitable).random_v4(random);
        let copies = if depth == Depth::Full { 0.5 } else { 0.4 };
        let client = if random.chance(copies) {
            Arc::clone(&owned.sighting.as_ref()?.client)
        } else {
            let programs = if random.chance(0.6) { LIBRARIES } else { BROWSERS };
            random.pick(programs).any_client(random)
        };
        Some(Self { address, client, exits: Vec::new(), moves: 0.0, key: None, refused: 0.0 })
    }

    /// A request at the token endpoint.
    pub(crate) fn at_token_endpoint(&self, status: u16) -> Sighting {
        Sighting { address: self.address, client: Arc::clone(&self.client), call: None, status, binding: None }
    }

    /// On the owner's own machine.
    pub(crate) fn in_place_of(owned: &Record) -> Option<Self> {
        let sighting = owned.sighting.as_ref()?;
        let (address, client) = (sighting.address, Arc::clone(&sighting.client));
        Some(Self { address, client, exits: Vec::new(), moves: 0.0, key: sighting.binding, refused: 0.0 })
    }

    /// The owner's application on a phone, with the same model in one of two cases.
    pub(crate) fn phone(owned: &Record, random: &mut Random) -> Option<Arc<Client>> {
        let own = &owned.sighting.as_ref()?.client;
        let app = owned.holder.app.name;
        Some(if random.chance(0.5) {
            Arc::clone(own)
        } else {
            random.pick(PHONES).client(app, 1 + random.below(2) as usize)
        })
    }

    /// One call with the token of `target`.
    pub(crate) fn misuse(
        &mut self,
        target: Target<'_>,
        at: i64,
        manner: &Manner,
        networks: &[Network],
        random: &mut Random,
    ) -> Record {
        let Target { owned, habits } = target;
        if !self.exits.is_empty() && random.chance(self.moves) {
            self.address = networks[*random.pick(&self.exits)].random_v4(random);
        }
        let app = owned.holder.app;
        let habit = habits.get(random.below(habits.len() as u64) as usize);
        let (route, object) = match habit.and_then(|record| record.sighting.as_ref()?.call) {
            Some(call) if random.chance(manner.mimics) => (call.route, call.object + random.below(40)),
            _ if random.chance(manner.rare) => (app.rare_route(random), random.below(100_000)),
            _ => (random.pick(app.routes), random.below(100_000)),
        };
        let call = Call { route, object, bytes: route.answer_bytes(random) };
        let status = match random.below(1_000) {
            _ if random.chance(self.refused) => 401,
            0..=39 => 403,
            40..=54 => 404,
            55..=59 => 429,
            _ => 200,
        };
        let client = Arc::clone(&self.client);
        let sighting = Sighting { address: self.address, client, call: Some(call), status, binding: self.key };
        Record { at, sighting: Some(sighting), label: None, ..owned.clone() }
    }
}

impl Manner {
    /// Thieves of the fortnight: some manual, careless calls.
    pub(crate) fn plain(random: &mut Random) -> Self {
        Self { calls: random.within(6..30) as usize, pace: Pace::Person, rare: 0.25, mimics: 0.0 }
    }

    pub(crate) fn any(random: &mut Random) -> Self {
        let pace = match random.below(10) {
            0..=3 => Pace::Program,
            4..=7 => Pace::Person,
            _ => Pace::Patient,
        };
        let mimics = if random.chance(0.4) { 0.9 * random.unit() } else { 0.0 };
        Self { calls: random.log_uniform(2.0, 150.0) as usize, pace, rare: random.log_uniform(0.02, 0.6), mimics }
    }

    /// During the owner's own calls.
    pub(crate) fn online(depth: Depth, random: &mut Random) -> Self {
        match depth {
            Depth::Plain => Self { rare: 0.2, ..Self::plain(random) },
            Depth::Full => Self::any(random),
        }
    }

    /// Milliseconds to the next call.
    pub(crate) fn pause(&self, random: &mut Random) -> i64 {
        match self.pace {
            Pace::Program => random.log_normal(900.0, 1.0) as i64 + 30,
            Pace::Person => (random.pareto(2.0, 0.85).min(600.0) * 1_000.0) as i64,
            Pace::Patient => random.log_normal(9.0 * MINUTE_MS as f64, 1.0) as i64,
        }
    }
}

/// The network of a record's address.
pub(super) fn network_of<'n>(record: &Record, networks: &'n [Network]) -> Option<&'n Network> {
    let address = record.sighting.as_ref()?.address;
    networks.iter().find(|network| network.holds(address))
}
