//! People with the application of a consumer VPN.

use super::{Person, Profile};
use crate::lab::simulate::company;
use crate::lab::simulate::consumer_vpn::ConsumerVpn;
use crate::lab::simulate::networks::Network;
use crate::lab::simulate::random::Random;
use crate::lab::simulate::span::Span;

impl Person {
    /// The first `count` people.
    pub(crate) fn vpn_people(count: u32, span: &Span, networks: &[Network]) -> Vec<Self> {
        let company = [company::small("quillpress", &["London", "Berlin", "New York", "Warsaw"], span, networks)];
        let person = |number: u64| {
            let number = 600_000 + number;
            let mut person = Self::with_profile(number, span, &company, networks, Profile::Staff);
            let country = networks[person.home.network].country;
            let mut random = Random::new(span.seed, 14_000_000 + number);
            person.consumer_vpn = Some(ConsumerVpn::new(number, country, span, networks, &mut random));
            person.vpn = None;
            person
        };
        (0..u64::from(count)).map(person).collect()
    }
}
