//! Thefts from services with a client secret: the secret itself, or one access token.

use std::sync::Arc;

use super::past::Past;
use super::{Day, Planter};
use crate::event::Kind;
use crate::lab::simulate::networks::{Network, Purpose};
use crate::lab::simulate::record::Record;
use crate::lab::simulate::thief::{Manner, Thief};
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};

impl Planter {
    /// The thief gets tokens with the secret, and uses each for a while. The service goes on with its own tokens.
    pub(super) fn client_secret(&mut self, past: &Past<'_>, day: &Day, networks: &[Network]) -> Option<Vec<Record>> {
        let taken = *self.random.pick(&past.uses);
        let mut thief = self.on_a_server(taken, networks)?;
        let manner = Manner::any(&mut self.random);
        let mut begins = taken.at + self.random.log_uniform(MINUTE_MS as f64, 12.0 * HOUR_MS as f64) as i64;
        let lasts = self.random.log_uniform(20.0 * MINUTE_MS as f64, 4.0 * DAY_MS as f64) as i64;
        let until = (begins + lasts).min(day.end);
        let app = past.holder.app;
        let mut stolen = Vec::new();
        while begins < until {
            let expires_at = begins + app.tokens.lifetime_ms();
            let minted =
                Record { token: self.random.bits(), expires_at: Some(expires_at), label: None, ..taken.clone() };
            if app.logs_issuance {
                stolen.push(Record { at: begins, kind: Kind::Issued, sighting: None, ..minted.clone() });
            }
            let calls = 1 + self.random.below(manner.calls.min(30) as u64) as usize;
            let visit = (begins + self.random.within(80..500), Some(expires_at.min(until)));
            let manner = Manner { calls, ..manner };
            stolen.extend(self.calls(past.target(&minted), visit, &mut thief, &manner, networks));
            begins += self.random.log_normal(3.0 * HOUR_MS as f64, 1.0) as i64 + MINUTE_MS;
        }
        stolen.iter().any(|record| record.kind == Kind::Use).then_some(stolen)
    }

    /// A copy of one access token, used until it expires.
    pub(super) fn service_token(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let taken = *self.random.pick(&past.uses);
        let mut thief = self.on_a_server(taken, networks)?;
        let begins = taken.at + self.random.log_uniform(5_000.0, 45.0 * MINUTE_MS as f64) as i64;
        let manner = Manner::any(&mut self.random);
        let stolen = self.calls(past.target(taken), (begins, taken.expires_at), &mut thief, &manner, networks);
        (stolen.len() > 1).then_some(stolen)
    }

    /// On a server of the owner's own cloud region, on another server, or anywhere. Seven in ten know the owner's program,
    /// because they have the token from its server or its source.
    pub(super) fn on_a_server(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let mut thief = match self.random.below(10) {
            0..=1 => self.neighbour(owned, networks),
            2..=5 => self.far_thief(owned, networks, |network| {
                matches!(network.purpose, Purpose::Cloud | Purpose::Rented | Purpose::Vpn)
            }),
            6..=7 => self.foreigner(owned, networks),
            _ => self.anywhere(owned, networks),
        }?;
        if self.random.chance(0.4) {
            thief.client = Arc::clone(&owned.sighting.as_ref()?.client);
        }
        Some(thief)
    }
}
