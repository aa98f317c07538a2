//! Thefts over several days: how they begin, and the thief's actions on each day.

use std::collections::HashSet;

use super::past::Past;
use super::{Day, Loot, Planter, Stay, TheftKind};
use crate::lab::simulate::networks::Network;
use crate::lab::simulate::record::Record;
use crate::lab::simulate::thief::Manner;
use crate::millis::{DAY_MS, HOUR_MS};

impl Planter {
    pub(super) fn begin_stay(
        &mut self,
        kind: TheftKind,
        past: &Past<'_>,
        day: &Day,
        networks: &[Network],
    ) -> Option<Loot> {
        let taken = *self.random.pick(&past.uses);
        let thief = match kind {
            TheftKind::ClonedMobile => self.other_phone(taken, networks)?,
            TheftKind::SlowAndLow => self.compatriot(taken, networks)?,
            _ => self.anywhere(taken, networks)?,
        };
        let mut manner = Manner::any(&mut self.random);
        if kind == TheftKind::SlowAndLow {
            manner.calls = self.random.within(1..3) as usize;
        }
        let days = match kind {
            TheftKind::SlowAndLow => self.random.log_uniform(5.0, 25.0),
            _ => self.random.log_uniform(1.0, 8.0),
        };
        let until = day.midnight + (days * DAY_MS as f64) as i64;
        let mut stay = Stay { theft: 0, victim: past.id, kind, thief, manner, until };
        let records = self.day_of_stay(past, &mut stay, networks);
        Some(Loot { records, made_odd: Vec::new(), stay: Some(stay) })
    }

    /// One day of a continuing theft: some sessions, each with a token that the owner used on that day.
    pub(super) fn day_of_stay(&mut self, past: &Past<'_>, stay: &mut Stay, networks: &[Network]) -> Vec<Record> {
        let mut taken: Vec<&Record> = match stay.kind {
            // Nearly every new token.
            TheftKind::RotationBypass => {
                let mut tokens = HashSet::new();
                let fresh = past.uses.iter().filter(|record| tokens.insert(record.token));
                fresh.copied().filter(|_| self.random.chance(0.8)).collect()
            }
            TheftKind::SlowAndLow => (0..self.random.poisson(0.8))
                .filter_map(|_| past.uses.get(self.random.below(past.uses.len() as u64) as usize).copied())
                .collect(),
            _ => (0..self.random.poisson(2.0))
                .filter_map(|_| past.uses.get(self.random.below(past.uses.len() as u64) as usize).copied())
                .collect(),
        };
        taken.sort_by_key(|record| record.at);
        let mut stolen = Vec::new();
        for owned in taken {
            let begins = owned.at + self.random.log_uniform(8_000.0, 2.0 * HOUR_MS as f64) as i64;
            let manner =
                Manner { calls: 1 + self.random.below(stay.manner.calls.min(12) as u64) as usize, ..stay.manner };
            if begins < stay.until {
                let thief = &mut stay.thief;
                stolen.extend(self.calls(past.target(owned), (begins, owned.expires_at), thief, &manner, networks));
            }
        }
        stolen
    }
}
