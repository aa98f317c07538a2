//! Internet connections of people: at home, over a VPN and on trips.

use super::label::Label;
use super::networks::{Habit, Line, Network, Purpose, continent};
use super::random::Random;
use super::span::{Depth, Span};
use crate::millis::{DAY_MS, HOUR_MS};

/// Some days in another place.
#[derive(Clone, Debug)]
pub(super) struct Trip {
    pub(super) leaves: i64,
    pub(super) returns: i64,
    /// Travel time without a network, after departure and before return, in milliseconds.
    journey: i64,
    pub(super) hotel: Line,
    pub(super) roaming: Line,
}

impl Trip {
    /// Whether the person travels at `at`, without a network.
    pub(super) fn is_in_transit(&self, at: i64) -> bool {
        (self.leaves..self.leaves + self.journey).contains(&at)
            || (self.returns - self.journey..self.returns).contains(&at)
    }
}

pub(super) fn home_habit(random: &mut Random) -> Habit {
    match random.below(10) {
        0..=5 => Habit::Fixed,
        6..=7 => Habit::Changing(DAY_MS),
        _ => Habit::Changing(5 * DAY_MS),
    }
}

/// A commercial VPN for a few people who live in `country`, with the share of sessions over it.
pub(super) fn commercial_vpn(
    number: u64,
    depth: Depth,
    country: &str,
    networks: &[Network],
    random: &mut Random,
) -> Option<(Line, f64)> {
    let (share, own_server) = if depth == Depth::Full { (0.12, random.chance(0.3)) } else { (0.06, false) };
    if !random.chance(share) {
        return None;
    }
    let anywhere = random.chance(0.2);
    let near = |n: &Network| anywhere || n.country == country || continent(n.country) == continent(country);
    let purpose = if own_server { Purpose::Rented } else { Purpose::Vpn };
    let exits = those(networks, |n| n.purpose == purpose && near(n));
    if exits.is_empty() {
        return None;
    }
    let exit = *random.pick(&exits);
    let mut line = Line::new(networks, exit, Habit::Pool, random);
    line.news = Some(Label::honest("vpn_on_off", number).until(i64::MAX));
    // Some use it almost always, some rarely.
    Some((line, random.log_uniform(0.03, 0.9)))
}

pub(super) fn trips(number: u64, span: &Span, carrier: usize, networks: &[Network], random: &mut Random) -> Vec<Trip> {
    let count = match span.depth {
        Depth::Plain => u32::from(random.chance(0.05)),
        Depth::Full => random.poisson(0.3),
    };
    (0..count).map(|n| trip(u64::from(n) << 32 | number, span, carrier, networks, random)).collect()
}

fn trip(instance: u64, span: &Span, carrier: usize, networks: &[Network], random: &mut Random) -> Trip {
    let city = networks[carrier].city;
    let foreign = span.depth == Depth::Full && random.chance(0.15);
    let elsewhere =
        those(networks, |n| n.city != city && (n.purpose == Purpose::Home || foreign && n.purpose == Purpose::Abroad));
    let hotel = *random.pick(&elsewhere);
    let far = continent(networks[hotel].country) != continent(networks[carrier].country);
    let locals = those(networks, |n| n.purpose == Purpose::Mobile && n.city == networks[hotel].city);
    // Most carriers route roaming traffic through the home country. Travellers with other carriers buy a local card.
    let roaming = if random.chance(0.5) || locals.is_empty() { carrier } else { *random.pick(&locals) };
    let leaves = span.start + random.within(DAY_MS..(span.days - 3).max(2) * DAY_MS);
    let news = Label::honest("travel", instance).until(i64::MAX);
    Trip {
        leaves,
        returns: leaves + random.within(2 * DAY_MS..6 * DAY_MS),
        journey: if far { random.within(9 * HOUR_MS..16 * HOUR_MS) } else { random.within(3 * HOUR_MS..6 * HOUR_MS) },
        hotel: Line::new(networks, hotel, Habit::Fixed, random).with(news),
        roaming: Line::new(networks, roaming, Habit::Pool, random).with(news),
    }
}

/// Indices of the networks for which `suits` is true.
pub(super) fn those(networks: &[Network], suits: impl Fn(&Network) -> bool) -> Vec<usize> {
    networks.iter().enumerate().filter(|(_, n)| suits(n)).map(|(at, _)| at).collect()
}
