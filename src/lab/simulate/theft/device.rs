//! Thefts from devices: a clone with the same key, and the key of a device that sleeps.

use std::sync::Arc;

use super::past::Past;
use super::{Day, Planter};
use crate::lab::simulate::networks::{Network, Purpose, continent};
use crate::lab::simulate::record::Record;
use crate::lab::simulate::thief::{Manner, Pace, Target, Thief, network_of};
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};

impl Planter {
    /// Another device with the same firmware and key reports too, in hours of its own and for days.
    pub(super) fn device_clone(&mut self, past: &Past<'_>, day: &Day, networks: &[Network]) -> Option<Vec<Record>> {
        let taken = *self.random.pick(&past.uses);
        let mut thief = self.other_device(taken, networks)?;
        let rare = self.random.log_uniform(0.005, 0.2);
        let manner = Manner { calls: 1, pace: Pace::Patient, rare, mimics: 1.0 - 2.0 * rare };
        let period = self.random.log_uniform(5.0, 30.0) * MINUTE_MS as f64;
        let shift = self.random.log_uniform(3.0, 20.0) * HOUR_MS as f64;
        let mut begins = taken.at + self.random.log_uniform(MINUTE_MS as f64, 8.0 * HOUR_MS as f64) as i64;
        let until = begins + (self.random.log_uniform(0.3, 12.0) * DAY_MS as f64) as i64;
        let mut current = taken.clone();
        let mut stolen = Vec::new();
        while begins < until.min(day.end) {
            if !thief.exits.is_empty() {
                thief.address = networks[*self.random.pick(&thief.exits)].random_v4(&mut self.random);
            }
            let (mut at, ends) = (begins, (begins + shift as i64).min(until).min(day.end));
            while at < ends {
                self.renew(&mut current, past, at, &thief, &mut stolen)?;
                let target = Target { owned: &current, habits: &past.uses };
                stolen.push(thief.misuse(target, at + 400, &manner, networks, &mut self.random));
                at += (period * (0.8 + 0.4 * self.random.unit())) as i64;
            }
            begins += DAY_MS + self.random.within(-HOUR_MS..HOUR_MS);
        }
        (stolen.len() >= 3).then_some(stolen)
    }

    /// On a network of a kind on which devices never are.
    pub(super) fn sleeping_key(&mut self, past: &Past<'_>, day: &Day, networks: &[Network]) -> Option<Vec<Record>> {
        let taken = *past.uses.last()?;
        let mut thief = self.far_thief(taken, networks, |network| {
            matches!(network.purpose, Purpose::Cloud | Purpose::Rented | Purpose::Vpn)
        })?;
        let manner = Manner::any(&mut self.random);
        let begins = day.midnight + self.random.within(0..DAY_MS);
        let stolen = self.calls(past.target(taken), (begins, Some(day.end)), &mut thief, &manner, networks);
        (!stolen.is_empty()).then_some(stolen)
    }

    /// The same firmware on another carrier of the country, in another country, or on another continent.
    fn other_device(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        let distance = self.random.below(10);
        let suits = |network: &Network| {
            network.purpose == Purpose::Mobile
                && match distance {
                    0..=3 => network.country == own.country && (network.asn != own.asn || network.city != own.city),
                    4..=7 => network.country != own.country && continent(network.country) == continent(own.country),
                    _ => continent(network.country) != continent(own.country),
                }
        };
        let mut thief = self.far_thief(owned, networks, suits)?;
        thief.client = Arc::clone(&owned.sighting.as_ref()?.client);
        // The clone stays in one network, with another address on each day.
        let place = networks.iter().position(|network| network.holds(thief.address))?;
        thief.exits = vec![place];
        Some(thief)
    }
}
