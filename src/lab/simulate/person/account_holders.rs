//! People with grants in several applications, who sometimes sign in anew on a trip.

use std::collections::HashSet;

use super::{Person, Profile};
use crate::lab::simulate::company;
use crate::lab::simulate::connection::trips;
use crate::lab::simulate::networks::Network;
use crate::lab::simulate::random::Random;
use crate::lab::simulate::span::Span;
use crate::lab::simulate::tool::Tool;

impl Person {
    /// The first `count` people.
    pub(crate) fn account_holders(count: u32, span: &Span, networks: &[Network]) -> Vec<Self> {
        let cities = ["Paris", "Amsterdam", "Chicago", "Stockholm"];
        let company = [company::small("brightlane", &cities, span, networks)];
        let person = |number: u64| {
            let number = 700_000 + number;
            let mut person = Self::with_profile(number, span, &company, networks, Profile::Staff);
            let mut random = Random::new(span.seed, 15_000_000 + number);
            let more = trips(1 << 24 | number, span, person.phone.network, networks, &mut random);
            person.trips.extend(more);
            person.trip_logins = Some(HashSet::new());
            person
        };
        (0..u64::from(count)).map(person).collect()
    }

    /// Whether the person signs in anew at `at`, at the first use of the application on a trip.
    pub(super) fn signs_in_on_trip(&mut self, tool: &Tool, at: i64) -> bool {
        let Some(done) = &mut self.trip_logins else { return false };
        let trip = self.trips.iter().find(|trip| (trip.leaves..trip.returns).contains(&at));
        let is_first = trip.is_some_and(|trip| done.insert((trip.leaves, tool.objects)));
        is_first && tool.grant.holder.family.is_some() && self.random.chance(0.5)
    }
}
