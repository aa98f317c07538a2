//! Thefts from developers at a code hosting service: source files, and secrets.

use super::Planter;
use super::past::Past;
use crate::lab::simulate::networks::Network;
use crate::lab::simulate::person::developers::{CONTENTS, SECRETS};
use crate::lab::simulate::record::{Call, Record};
use crate::lab::simulate::repositories::{self, REPOSITORIES};
use crate::lab::simulate::thief::Manner;
use crate::millis::{HOUR_MS, MINUTE_MS};

impl Planter {
    /// Reads many files of several repositories, directory by directory.
    pub(super) fn source_exfiltration(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let owned = *self.random.pick(&past.uses);
        let mut thief = match self.random.below(20) {
            0..=5 => self.insider(owned, networks)?,
            6..=12 => self.same_country_vpn(owned, networks)?,
            _ => self.residential_proxy(owned, networks)?,
        };
        let manner = Manner::any(&mut self.random);
        let pause = self.random.log_uniform(250.0, 6_000.0);
        let mut at = owned.at + self.random.log_uniform(30_000.0, 8.0 * HOUR_MS as f64) as i64;
        let route = &past.holder.app.routes[CONTENTS];
        let mut stolen = Vec::new();
        for _ in 0..self.random.within(2..10) {
            // The repository of one of the owner's calls, or any.
            let known = self.random.pick(&past.uses).sighting.as_ref()?.call?.object;
            let any = repositories::file(self.random.below(REPOSITORIES), 0, 0);
            let repository = repositories::repository(if self.random.chance(0.5) { known } else { any });
            for _ in 0..self.random.log_uniform(2.0, 25.0) as u64 {
                let directory = self.random.below(1 << 14);
                for number in 0..self.random.within(3..16) as u64 {
                    if owned.expires_at.is_some_and(|until| at >= until) {
                        break;
                    }
                    let object = repositories::file(repository, directory, number);
                    let bytes = route.answer_bytes(&mut self.random);
                    let mut record = thief.misuse(past.target(owned), at, &manner, networks, &mut self.random);
                    record.sighting.as_mut()?.call = Some(Call { route, object, bytes });
                    stolen.push(record);
                    at += self.random.log_normal(pause, 0.6) as i64 + 20;
                }
            }
        }
        (stolen.len() >= 30).then_some(stolen)
    }

    /// Lists secrets, keys and jobs of a few repositories.
    pub(super) fn secret_search(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let owned = *self.random.pick(&past.uses);
        let mut thief = self.anywhere(owned, networks)?;
        let manner = Manner::any(&mut self.random);
        let mut at = owned.at + self.random.log_uniform(30_000.0, 8.0 * HOUR_MS as f64) as i64;
        let mut stolen = Vec::new();
        for _ in 0..self.random.within(3..26) {
            if owned.expires_at.is_some_and(|until| at >= until) {
                break;
            }
            let route = self.random.pick(&past.holder.app.routes[SECRETS]);
            let object = self.random.pick(&past.uses).sighting.as_ref()?.call?.object;
            let bytes = route.answer_bytes(&mut self.random);
            let mut record = thief.misuse(past.target(owned), at, &manner, networks, &mut self.random);
            record.sighting.as_mut()?.call = Some(Call { route, object, bytes });
            stolen.push(record);
            at += manner.pause(&mut self.random).min(20 * MINUTE_MS);
        }
        (stolen.len() >= 2).then_some(stolen)
    }
}
