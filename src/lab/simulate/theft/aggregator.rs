//! Thefts from an aggregator: one user's grant, or its store of grants.

use std::sync::Arc;

use super::past::Past;
use super::{Day, Planter};
use crate::lab::simulate::networks::{Network, Purpose};
use crate::lab::simulate::record::Record;
use crate::lab::simulate::thief::{Manner, Thief};
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};

impl Planter {
    /// One grant is used elsewhere too.
    pub(super) fn aggregator_grant(&mut self, past: &Past<'_>, day: &Day, networks: &[Network]) -> Option<Vec<Record>> {
        let taken = *self.random.pick(&past.uses);
        let mut thief = self.on_a_server(taken, networks)?;
        let manner = Manner::any(&mut self.random);
        let mut at = taken.at + self.random.log_uniform(20_000.0, DAY_MS as f64) as i64;
        let (mut current, mut stolen) = (taken.clone(), Vec::new());
        for _ in 0..manner.calls {
            self.renew(&mut current, past, at, &thief, &mut stolen)?;
            stolen.push(thief.misuse(past.target(&current), at + 200, &manner, networks, &mut self.random));
            at += manner.pause(&mut self.random);
        }
        stolen.retain(|record| record.at < day.end);
        (!stolen.is_empty()).then_some(stolen)
    }

    /// The grants of many users from few servers within hours.
    pub(super) fn aggregator_store(
        &mut self,
        first: &Past<'_>,
        day: &Day,
        suitable: &[&Past<'_>],
        networks: &[Network],
    ) -> Option<Vec<Record>> {
        let app = first.holder.app;
        let mut left: Vec<&Past<'_>> = suitable.iter().filter(|past| past.holder.app.id == app.id).copied().collect();
        let users = self.random.log_uniform(10.0, 40.0) as usize;
        if left.len() < users {
            return None;
        }
        let taken = *first.uses.first()?;
        let mut thieves: Vec<Thief> = (0..self.random.within(1..4))
            .map(|_| {
                let mut thief = self.far_thief(taken, networks, |network| {
                    matches!(network.purpose, Purpose::Rented | Purpose::Cloud)
                })?;
                if self.random.chance(0.4) {
                    thief.client = Arc::clone(&taken.sighting.as_ref()?.client);
                }
                Some(thief)
            })
            .collect::<Option<_>>()?;
        let begins = day.midnight + self.random.within(2 * HOUR_MS..22 * HOUR_MS);
        let span = self.random.log_uniform(15.0 * MINUTE_MS as f64, 8.0 * HOUR_MS as f64) as i64;
        let manner = Manner::any(&mut self.random);
        let mut stolen = Vec::new();
        for _ in 0..users {
            let past = left.swap_remove(self.random.below(left.len() as u64) as usize);
            let thief = self.random.below(thieves.len() as u64) as usize;
            let mut at = begins + self.random.within(0..span);
            let mut current = Record::clone(past.uses.first()?);
            for _ in 0..self.random.within(1..6) {
                self.renew(&mut current, past, at, &thieves[thief], &mut stolen)?;
                stolen.push(thieves[thief].misuse(
                    past.target(&current),
                    at + 200,
                    &manner,
                    networks,
                    &mut self.random,
                ));
                at += self.random.within(800..20_000);
            }
        }
        stolen.retain(|record| record.at < day.end);
        Some(stolen)
    }
}
