//! Actions of each kind of thief with the owner's token and within a day. Other kinds are in [`issued`](super::issued)
//! and [`stay`](super::stay).

use super::past::Past;
use super::{Day, Loot, Planter, TheftKind};
use crate::event::TokenType;
use crate::lab::simulate::networks::{Network, Purpose};
use crate::lab::simulate::record::Record;
use crate::lab::simulate::span::Depth;
use crate::lab::simulate::thief::{Manner, Target, Thief};
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};

impl Planter {
    /// One attempt with one random holder. `None` if the kind does not fit the holder's day.
    pub(super) fn steal(
        &mut self,
        kind: TheftKind,
        day: &Day,
        suitable: &[&Past<'_>],
        networks: &[Network],
    ) -> Option<Loot> {
        let past = *self.random.pick(suitable);
        let loot = match kind {
            TheftKind::Foreign | TheftKind::SameCountryVpn | TheftKind::ResidentialProxy | TheftKind::Insider => {
                self.spree(kind, past, networks)?.into()
            }
            TheftKind::LeakedCiSecret | TheftKind::BindingMismatch => self.spree(kind, past, networks)?.into(),
            TheftKind::TwoHolders => self.two_holders(past, networks, Self::compatriot)?.into(),
            TheftKind::VpnThief => self.two_holders(past, networks, Self::behind_a_vpn)?.into(),
            TheftKind::LoginTakeover => self.login_takeover(past, suitable, networks)?.into(),
            TheftKind::SourceExfiltration => self.source_exfiltration(past, networks)?.into(),
            TheftKind::SecretSearch => self.secret_search(past, networks)?.into(),
            TheftKind::NightBurst | TheftKind::RecordScraping => self.scraping(kind, past, networks)?.into(),
            TheftKind::BulkExport => self.bulk_export(past, networks)?.into(),
            TheftKind::RefreshReuse => self.refresh_reuse(past, networks)?,
            TheftKind::Campaign => self.campaign(past, day, suitable, networks)?.into(),
            TheftKind::SlowAndLow | TheftKind::RotationBypass | TheftKind::ClonedMobile => {
                self.begin_stay(kind, past, day, networks)?
            }
            TheftKind::PhishedSession => self.phished_session(past, networks)?.into(),
            TheftKind::AfterRevocation | TheftKind::AfterLogout => self.after_the_end(past, networks)?.into(),
            TheftKind::AfterExpiry => self.after_expiry(past, networks)?.into(),
            TheftKind::StaleCredential => self.stale_credential(past, networks)?.into(),
            TheftKind::ClientSecret => self.client_secret(past, day, networks)?.into(),
            TheftKind::ServiceToken => self.service_token(past, networks)?.into(),
            TheftKind::DeviceClone => self.device_clone(past, day, networks)?.into(),
            TheftKind::SleepingKey => self.sleeping_key(past, day, networks)?.into(),
            TheftKind::AggregatorGrant => self.aggregator_grant(past, day, networks)?.into(),
            TheftKind::AggregatorStore => self.aggregator_store(past, day, suitable, networks)?.into(),
        };
        let in_time = loot.records.iter().all(|record| (day.midnight..day.end).contains(&record.at));
        (in_time && !loot.records.is_empty()).then_some(loot)
    }

    /// Some calls after a use by the owner, with the same token while it is valid.
    fn spree(&mut self, kind: TheftKind, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let taken = match self.depth {
            Depth::Plain => *self.random.pick(past.uses.get(3..).filter(|uses| !uses.is_empty())?),
            Depth::Full => *self.random.pick(&past.uses),
        };
        let mut thief = match kind {
            TheftKind::Insider => self.insider(taken, networks)?,
            TheftKind::LeakedCiSecret => self.far_thief(taken, networks, |network| {
                matches!(
                    network.purpose,
                    Purpose::Rented | Purpose::Vpn | Purpose::Abroad | Purpose::Ci | Purpose::Cloud
                )
            })?,
            TheftKind::BindingMismatch => self.anywhere(taken, networks)?,
            TheftKind::SameCountryVpn => self.same_country_vpn(taken, networks)?,
            TheftKind::ResidentialProxy => self.residential_proxy(taken, networks)?,
            _ => self.foreigner(taken, networks)?,
        };
        if kind == TheftKind::BindingMismatch {
            thief.key = Some(self.random.bits());
        }
        let (begins, manner) = match self.depth {
            Depth::Plain => {
                (taken.at + self.random.within(4 * MINUTE_MS..25 * MINUTE_MS), Manner::plain(&mut self.random))
            }
            Depth::Full => (
                taken.at + self.random.log_uniform(20_000.0, 6.0 * HOUR_MS as f64) as i64,
                Manner::any(&mut self.random),
            ),
        };
        let stolen = self.calls(past.target(taken), (begins, taken.expires_at), &mut thief, &manner, networks);
        let enough = if self.depth == Depth::Plain { 5 } else { 1 };
        (stolen.len() >= enough).then_some(stolen)
    }

    /// During the owner's session, with the owner's latest token.
    fn two_holders(
        &mut self,
        past: &Past<'_>,
        networks: &[Network],
        whereabouts: fn(&mut Self, &Record, &[Network]) -> Option<Thief>,
    ) -> Option<Vec<Record>> {
        let first = self.random.below(past.uses.len() as u64) as usize;
        let session: Vec<&Record> = past.uses[first..]
            .windows(2)
            .take_while(|pair| pair[1].at - pair[0].at < 12 * MINUTE_MS)
            .map(|pair| pair[0])
            .collect();
        let span = session.last()?.at - session.first()?.at;
        let (longest, least_span, turns, enough) = match self.depth {
            Depth::Plain => (14, 15 * MINUTE_MS, self.random.within(8..18) as f64, 6),
            Depth::Full => (6, 4 * MINUTE_MS, self.random.log_uniform(3.0, 18.0), 3),
        };
        if session.len() < longest || span < least_span {
            return None;
        }
        let taken = session[0];
        let mut thief = whereabouts(self, taken, networks)?;
        let manner = Manner::online(self.depth, &mut self.random);
        let mut stolen = Vec::new();
        for owned in session.iter().skip(1) {
            let at = owned.at + self.random.within(1_500..50_000);
            if self.random.chance(turns / session.len() as f64) && owned.expires_at.is_none_or(|until| at < until) {
                stolen.push(thief.misuse(past.target(owned), at, &manner, networks, &mut self.random));
            }
        }
        (stolen.len() >= enough).then_some(stolen)
    }

    /// Enumerates objects. In the fortnight: by night, with a long-lived secret, from the owner's machine or a
    /// neighbour's. Otherwise at any time and place.
    fn scraping(&mut self, kind: TheftKind, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let owned = if kind == TheftKind::NightBurst { *past.uses.last()? } else { *self.random.pick(&past.uses) };
        let local_midnight = |at: i64| {
            let offset = past.holder.zone.offset_ms(at);
            (at + offset).div_euclid(DAY_MS) * DAY_MS - offset
        };
        let (begins, count, mut thief) = if kind == TheftKind::NightBurst {
            let begins = local_midnight(owned.at) + self.random.within(HOUR_MS..4 * HOUR_MS);
            let own = self.random.chance(0.5);
            let thief = if own { Thief::in_place_of(owned)? } else { self.neighbour(owned, networks)? };
            (begins, self.random.within(500..1_500), thief)
        } else {
            let thief = match self.random.below(4) {
                0 => self.insider(owned, networks)?,
                1 => self.foreigner(owned, networks)?,
                _ => self.compatriot(owned, networks)?,
            };
            let begins = match owned.expires_at {
                Some(_) => owned.at + self.random.log_uniform(20_000.0, 30.0 * MINUTE_MS as f64) as i64,
                None if self.random.chance(0.5) => owned.at + self.random.within(MINUTE_MS..5 * HOUR_MS),
                None => local_midnight(owned.at) + DAY_MS + self.random.within(0..5 * HOUR_MS),
            };
            (begins, self.random.log_uniform(60.0, 1_500.0) as i64, thief)
        };
        let mut manner = Manner::online(self.depth, &mut self.random);
        (manner.mimics, manner.rare) = (0.0, 0.01);
        let route = *self.random.pick(&past.holder.app.object_routes());
        let pause = if self.depth == Depth::Full { self.random.log_uniform(250.0, 9_000.0) } else { 1_600.0 };
        let first_object = self.random.below(100_000);
        let (mut at, mut stolen) = (begins, Vec::new());
        for n in 0..count {
            if owned.expires_at.is_some_and(|until| at >= until) {
                break;
            }
            let mut record = thief.misuse(past.target(owned), at, &manner, networks, &mut self.random);
            if let Some(call) = record.sighting.as_mut().and_then(|sighting| sighting.call.as_mut()) {
                call.object = first_object + n as u64;
                if self.depth == Depth::Full {
                    (call.route, call.bytes) = (route, route.answer_bytes(&mut self.random));
                }
            }
            stolen.push(record);
            at += self.random.log_normal(pause, 0.5) as i64;
        }
        (stolen.len() >= 40).then_some(stolen)
    }

    /// The calls with the largest responses.
    fn bulk_export(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let owned = *self.random.pick(&past.uses);
        let mut thief = match self.random.below(5) {
            0..=1 => Thief::in_place_of(owned)?,
            2 => self.insider(owned, networks)?,
            3 => self.compatriot(owned, networks)?,
            _ => self.anywhere(owned, networks)?,
        };
        let route = past.holder.app.largest_export();
        let manner = Manner::online(self.depth, &mut self.random);
        let mut at = owned.at + self.random.log_uniform(30_000.0, 3.0 * HOUR_MS as f64) as i64;
        let mut stolen = Vec::new();
        for _ in 0..self.random.within(1..8) {
            if owned.expires_at.is_none_or(|until| at < until) {
                let mut record = thief.misuse(past.target(owned), at, &manner, networks, &mut self.random);
                if let Some(call) = record.sighting.as_mut().and_then(|sighting| sighting.call.as_mut()) {
                    (call.route, call.bytes) = (route, route.answer_bytes(&mut self.random));
                }
                stolen.push(record);
                at += self.random.log_normal(25_000.0, 1.0) as i64 + 400;
            }
        }
        Some(stolen)
    }

    /// A breach of a plugin's vendor: many users' tokens from few rented servers within hours.
    fn campaign(
        &mut self,
        first: &Past<'_>,
        day: &Day,
        suitable: &[&Past<'_>],
        networks: &[Network],
    ) -> Option<Vec<Record>> {
        let app = first.holder.app;
        let of_app: Vec<&Past<'_>> = suitable.iter().filter(|past| past.holder.app.id == app.id).copied().collect();
        if of_app.len() < 5 {
            return None;
        }
        let begins = day.midnight + self.random.within(2 * HOUR_MS..22 * HOUR_MS);
        let (users, span, hosts, manner) = match self.depth {
            Depth::Plain => (self.random.within(12..20), 50 * MINUTE_MS, 1, Manner::plain(&mut self.random)),
            Depth::Full => (
                self.random.log_uniform(5.0, 30.0) as i64,
                self.random.log_uniform(15.0 * MINUTE_MS as f64, 8.0 * HOUR_MS as f64) as i64,
                self.random.within(1..4),
                Manner::any(&mut self.random),
            ),
        };
        let taken = *first.uses.first()?;
        let mut thieves: Vec<Thief> = (0..hosts)
            .map(|_| self.far_thief(taken, networks, |network| network.purpose == Purpose::Rented))
            .collect::<Option<_>>()?;
        let mut stolen = Vec::new();
        for _ in 0..users {
            let past = *self.random.pick(&of_app);
            let mut at = begins + self.random.within(0..span);
            let thief = self.random.below(thieves.len() as u64) as usize;
            for _ in 0..self.random.within(1..6) {
                let owned = past.uses.first()?;
                stolen.push(thieves[thief].misuse(past.target(owned), at, &manner, networks, &mut self.random));
                at += self.random.within(800..20_000);
            }
        }
        Some(stolen)
    }

    /// Uses a token after its grant was revoked or its session ended, at servers that do not check.
    fn after_the_end(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let end = past.end?;
        let taken =
            *past.uses.iter().rev().find(|record| record.at < end.at && record.token_type != TokenType::Refresh)?;
        let mut thief = self.anywhere(taken, networks)?;
        thief.refused = if self.random.chance(0.2) { 0.9 } else { 0.0 };
        let begins = end.at + self.random.log_uniform(45_000.0, 20.0 * HOUR_MS as f64) as i64;
        let manner = Manner::any(&mut self.random);
        let stolen = self.calls(past.target(taken), (begins, taken.expires_at), &mut thief, &manner, networks);
        (!stolen.is_empty()).then_some(stolen)
    }

    /// Uses an expired access token at a server that does not check.
    fn after_expiry(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let taken = *self.random.pick(&past.uses);
        let mut thief = self.anywhere(taken, networks)?;
        thief.refused = if self.random.chance(0.2) { 0.7 } else { 0.0 };
        let begins = taken.expires_at? + self.random.log_uniform(3.0 * MINUTE_MS as f64, 30.0 * HOUR_MS as f64) as i64;
        let manner = Manner::any(&mut self.random);
        let stolen = self.calls(past.target(taken), (begins, None), &mut thief, &manner, networks);
        (!stolen.is_empty()).then_some(stolen)
    }

    /// The owner has changed the password, and earlier tokens are still used from another place.
    fn stale_credential(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let changed_at = past.changed_at?;
        let taken = *past.uses.iter().rev().find(|record| record.at < changed_at)?;
        let mut thief = self.anywhere(taken, networks)?;
        let begins = changed_at + self.random.log_uniform(2.0 * MINUTE_MS as f64, 40.0 * HOUR_MS as f64) as i64;
        let manner = Manner::any(&mut self.random);
        let stolen = self.calls(past.target(taken), (begins, taken.expires_at), &mut thief, &manner, networks);
        (!stolen.is_empty()).then_some(stolen)
    }

    /// Calls in the thief's manner, from `begins` until `until`, if that is given.
    pub(super) fn calls(
        &mut self,
        target: Target<'_>,
        (begins, until): (i64, Option<i64>),
        thief: &mut Thief,
        manner: &Manner,
        networks: &[Network],
    ) -> Vec<Record> {
        let (mut at, mut stolen) = (begins, Vec::new());
        for _ in 0..manner.calls {
            if until.is_some_and(|until| at >= until) {
                break;
            }
            stolen.push(thief.misuse(target, at, manner, networks, &mut self.random));
            at += manner.pause(&mut self.random);
        }
        stolen
    }
}
