//! A thief who signs in as the user.

use std::sync::Arc;

use super::Planter;
use super::past::Past;
use crate::event::{Kind, TokenType};
use crate::lab::simulate::apps::Tokens;
use crate::lab::simulate::clients::{BROWSERS, PHONES};
use crate::lab::simulate::networks::{Network, Purpose};
use crate::lab::simulate::record::{Holder, Record};
use crate::lab::simulate::thief::{Manner, Target, Thief, network_of};
use crate::millis::{HOUR_MS, MINUTE_MS};

/// The first tokens of a new grant.
pub(super) struct Login {
    pub(super) holder: Arc<Holder>,
    pub(super) access: u64,
    pub(super) expires_at: i64,
    /// The events of the refresh and the access token.
    pub(super) issued: [Record; 2],
}

impl Planter {
    /// A new grant of the same user for the same application. `None` if its grants are not refreshed.
    pub(super) fn login(&mut self, past: &Past<'_>, at: i64) -> Option<Login> {
        let (Tokens::Rotating { minutes } | Tokens::Refreshing { minutes }) = past.holder.app.tokens else {
            return None;
        };
        let family = Some(self.random.bits() >> 16);
        let holder = Arc::new(Holder { family, ..Holder::clone(past.holder) });
        let (refresh, access, expires_at) = (self.random.bits(), self.random.bits(), at + minutes * MINUTE_MS);
        let issued = |token, token_type, parent, expires_at, after| Record {
            at: at + after,
            kind: Kind::Issued,
            token,
            token_type,
            parent,
            holder: Arc::clone(&holder),
            expires_at,
            sighting: None,
            label: None,
        };
        let issued = [
            issued(refresh, TokenType::Refresh, None, None, 0),
            issued(access, TokenType::Access, Some(refresh), Some(expires_at), 2),
        ];
        Some(Login { holder, access, expires_at, issued })
    }

    /// Signs in on another device, reads and exports, for one to four sessions.
    pub(super) fn login_takeover(
        &mut self,
        past: &Past<'_>,
        suitable: &[&Past<'_>],
        networks: &[Network],
    ) -> Option<Vec<Record>> {
        let of_user = |other: &&&Past<'_>| other.holder.subject == past.holder.subject;
        if suitable.iter().filter(of_user).count() < 2 {
            return None;
        }
        let owned = *self.random.pick(&past.uses);
        let mut thief = self.with_a_password(owned, networks)?;
        let mut begins = owned.at + self.random.log_uniform(MINUTE_MS as f64, 10.0 * HOUR_MS as f64) as i64;
        let Login { holder, access, mut expires_at, issued } = self.login(past, begins)?;
        let mut refresh = issued[0].clone();
        let mut taken = Record { token: access, holder, ..owned.clone() };
        let mut stolen: Vec<Record> = issued.into();
        for session in 0..self.random.within(1..5) {
            if session > 0 {
                begins = expires_at + self.random.log_uniform(MINUTE_MS as f64, 12.0 * HOUR_MS as f64) as i64;
                (refresh, taken.token) = self.next_tokens(&refresh, &taken, begins, &thief, &mut stolen);
                expires_at = begins + past.holder.app.tokens.lifetime_ms();
            }
            taken.expires_at = Some(expires_at);
            let rare = self.random.log_uniform(0.1, 0.6);
            let manner = Manner { rare, mimics: 0.0, ..Manner::any(&mut self.random) };
            let visit = (begins + self.random.log_uniform(400.0, 20_000.0) as i64, taken.expires_at);
            let target = Target { owned: &taken, habits: &past.uses };
            stolen.extend(self.calls(target, visit, &mut thief, &manner, networks));
        }
        (stolen.len() > 3).then_some(stolen)
    }

    /// Exchanges the thief's refresh token. Returns its successor, and the new access token.
    fn next_tokens(
        &mut self,
        refresh: &Record,
        taken: &Record,
        at: i64,
        thief: &Thief,
        stolen: &mut Vec<Record>,
    ) -> (Record, u64) {
        let sighting = thief.at_token_endpoint(200);
        stolen.push(Record { at, kind: Kind::Refreshed, sighting: Some(sighting), ..refresh.clone() });
        let parent = Some(refresh.token);
        let mut next = refresh.clone();
        if refresh.holder.app.tokens.rotates() {
            next = Record { at: at + 20, token: self.random.bits(), parent, ..next };
            stolen.push(next.clone());
        }
        let access = self.random.bits();
        stolen.push(Record {
            at: at + 21,
            kind: Kind::Issued,
            token: access,
            parent,
            expires_at: Some(at + refresh.holder.app.tokens.lifetime_ms()),
            sighting: None,
            ..taken.clone()
        });
        (next, access)
    }

    /// On another device: in a home of the owner's city or country, on a rented server, behind a VPN or abroad.
    fn with_a_password(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        let mut thief = match self.random.below(10) {
            0..=2 => self.far_thief(owned, networks, |network| {
                network.purpose == Purpose::Home && network.city == own.city && network.asn != own.asn
            }),
            3..=4 => self.residential_proxy(owned, networks),
            5..=6 => self.same_country_vpn(owned, networks),
            7..=8 => self.far_thief(owned, networks, |network| {
                matches!(network.purpose, Purpose::Rented | Purpose::Vpn | Purpose::Cloud)
            }),
            _ => self.foreigner(owned, networks),
        }?;
        let app = owned.holder.app;
        thief.client = match self.random.below(10) {
            0..=2 => Arc::clone(&owned.sighting.as_ref()?.client),
            3..=7 if !app.has_sessions => {
                self.random.pick(PHONES).client(app.name, 1 + usize::from(self.random.chance(0.5)))
            }
            _ => self.random.pick(BROWSERS).any_client(&mut self.random),
        };
        Some(thief)
    }
}
