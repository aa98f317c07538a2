//! Thefts, planted into honest days: a thief takes a token that its owner really holds at that moment.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::Settings;
use super::apps::{App, DEPLOY, Tokens};
use super::label::Label;
use super::networks::{Network, Purpose, continent};
use super::random::Random;
use super::record::{Holder, Record, Sighting};
use super::span::{DAY, Depth, HOUR, MINUTE};
use super::thief::{Manner, Thief, network_of};
use crate::event::{Kind, TokenType};

/// What was planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TheftKind {
    /// Used from another country.
    Foreign,
    /// Used by the owner and a thief of the same country in turns.
    TwoHolders,
    /// Hundreds of calls in the owner's night.
    NightBurst,
    /// A refresh token presented again after its successor was in use.
    RefreshReuse,
    /// Many users' tokens of one application, used from few new addresses.
    Campaign,
    /// From a VPN's exit or a rented server in the owner's country.
    SameCountryVpn,
    /// From homes in the owner's country, another every few calls.
    ResidentialProxy,
    /// From the owner's own line, or the house next door.
    Insider,
    /// A call or two on some days, for weeks.
    SlowAndLow,
    /// A new session of the owner's that began in a thief's hands.
    PhishedSession,
    /// A phone's tokens on another phone.
    ClonedMobile,
    /// A build job's secret outside the build.
    LeakedCiSecret,
    /// Hundreds of objects, one after the other.
    RecordScraping,
    /// Each fresh access token of the owner's is used elsewhere, for days.
    RotationBypass,
    /// A few calls that answer much.
    BulkExport,
    AfterRevocation,
    AfterLogout,
    AfterExpiry,
    /// With another key than the token is bound to.
    BindingMismatch,
    /// From elsewhere, after the owner's password has changed, with what was issued before.
    StaleCredential,
}

impl TheftKind {
    /// The thefts of the fortnight, and how many of each.
    pub const FORTNIGHT: [(Self, u32); 5] = [
        (Self::Foreign, 6),
        (Self::TwoHolders, 6),
        (Self::NightBurst, 6),
        (Self::RefreshReuse, 6),
        (Self::Campaign, 3),
    ];

    /// The thefts of a world of full depth.
    pub const DEEP: [Self; 19] = [
        Self::Foreign,
        Self::SameCountryVpn,
        Self::ResidentialProxy,
        Self::Insider,
        Self::SlowAndLow,
        Self::PhishedSession,
        Self::ClonedMobile,
        Self::LeakedCiSecret,
        Self::RecordScraping,
        Self::TwoHolders,
        Self::RotationBypass,
        Self::RefreshReuse,
        Self::BulkExport,
        Self::Campaign,
        Self::AfterRevocation,
        Self::AfterLogout,
        Self::AfterExpiry,
        Self::BindingMismatch,
        Self::StaleCredential,
    ];

    /// The name in labels.
    #[must_use]
    pub const fn scenario(self) -> &'static str {
        match self {
            Self::Foreign => "foreign_host",
            Self::TwoHolders => "online_theft",
            Self::NightBurst | Self::RecordScraping => "record_scraping",
            Self::RefreshReuse => "refresh_reuse",
            Self::Campaign => "app_campaign",
            Self::SameCountryVpn => "same_country_vpn",
            Self::ResidentialProxy => "residential_proxy",
            Self::Insider => "insider",
            Self::SlowAndLow => "slow_and_low",
            Self::PhishedSession => "phished_session",
            Self::ClonedMobile => "cloned_mobile_session",
            Self::LeakedCiSecret => "leaked_ci_secret",
            Self::RotationBypass => "rotation_bypass",
            Self::BulkExport => "bulk_export",
            Self::AfterRevocation => "use_after_revocation",
            Self::AfterLogout => "use_after_logout",
            Self::AfterExpiry => "use_after_expiry",
            Self::BindingMismatch => "binding_mismatch",
            Self::StaleCredential => "stale_credential",
        }
    }

    /// One line for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Foreign => "used from another continent",
            Self::TwoHolders => "used by two holders at once",
            Self::NightBurst => "a burst of calls by night",
            Self::RefreshReuse => "a refresh token presented twice",
            Self::Campaign => "one app's tokens from one new network",
            Self::SameCountryVpn => "used over a VPN in the owner's country",
            Self::ResidentialProxy => "used through homes in the owner's country",
            Self::Insider => "used from the owner's own network",
            Self::SlowAndLow => "a call now and then for weeks",
            Self::PhishedSession => "a session that began with the thief",
            Self::ClonedMobile => "a phone's tokens on another phone",
            Self::LeakedCiSecret => "a build secret outside the build",
            Self::RecordScraping => "records read one after the other",
            Self::RotationBypass => "each fresh token used elsewhere too",
            Self::BulkExport => "everything exported at once",
            Self::AfterRevocation => "used after its revocation",
            Self::AfterLogout => "used after its session ended",
            Self::AfterExpiry => "used after it expired",
            Self::BindingMismatch => "used with another key",
            Self::StaleCredential => "used after the password changed",
        }
    }

    /// Comes after something that happens to few owners on a day.
    const fn follows(self) -> bool {
        matches!(self, Self::AfterRevocation | Self::AfterLogout | Self::StaleCredential)
    }

    /// Goes on for days.
    const fn stays(self) -> bool {
        matches!(self, Self::SlowAndLow | Self::RotationBypass | Self::ClonedMobile)
    }
}

/// One theft, as only its author knows it.
#[derive(Clone, Debug)]
pub struct Theft {
    pub kind: TheftKind,
    pub app_id: &'static str,
    /// The families, or tokens where there is no family, that were used by the thief.
    pub victims: Vec<String>,
    /// First and last event of the thief's, milliseconds since the epoch.
    pub first_at: i64,
    pub last_at: i64,
    /// Ids of the thief's events, and of those of the owner's that only the theft made odd.
    pub event_ids: Vec<String>,
}

/// Plants thefts as they were planned.
pub(super) struct Planter {
    random: Random,
    depth: Depth,
    /// On which of the days that have thefts; what no holder suits on its day waits for the next.
    planned: Vec<(u32, TheftKind)>,
    victims: HashSet<u64>,
    stays: Vec<Stay>,
}

/// The day that is planted.
pub(super) struct Day {
    /// UTC, milliseconds since the epoch.
    pub midnight: i64,
    /// End of the story.
    pub end: i64,
    /// Among the days on which thefts happen, from 0.
    pub number: u32,
}

/// One holder's events of the day, in time order.
struct Past<'r> {
    /// The family, else the token.
    id: u64,
    holder: &'r Arc<Holder>,
    uses: Vec<&'r Record>,
    refreshes: Vec<&'r Record>,
    /// Revocation or end of session.
    end: Option<&'r Record>,
    /// When the user's credential changed today.
    changed_at: Option<i64>,
}

/// What a thief did today.
#[derive(Default)]
struct Loot {
    records: Vec<Record>,
    /// Events of the owner's, by token and time, that are odd because of the theft.
    made_odd: Vec<(u64, i64)>,
    stay: Option<Stay>,
}

/// A theft that goes on.
struct Stay {
    theft: usize,
    victim: u64,
    kind: TheftKind,
    thief: Thief,
    manner: Manner,
    until: i64,
}

impl From<Vec<Record>> for Loot {
    fn from(records: Vec<Record>) -> Self {
        Self { records, ..Self::default() }
    }
}

impl Past<'_> {
    fn is_bound(&self) -> bool {
        self.uses.iter().any(|record| record.sighting.as_ref().is_some_and(|sighting| sighting.binding.is_some()))
    }

    fn rotates(&self) -> bool {
        matches!(self.holder.app.tokens, Tokens::Rotating { .. })
    }

    /// Whether the thief of `kind` can do anything with this holder's day.
    fn suits(&self, kind: TheftKind, depth: Depth) -> bool {
        let app = self.holder.app;
        let family = self.holder.family.is_some();
        let uses = self.uses.len();
        let ended_by = |kind| self.end.is_some_and(|end| end.kind == kind);
        let lives = self.end.is_none();
        if self.is_bound() != (kind == TheftKind::BindingMismatch) || uses == 0 {
            return false;
        }
        match kind {
            TheftKind::Foreign if depth == Depth::Plain => family && uses > 3,
            TheftKind::Foreign
            | TheftKind::SameCountryVpn
            | TheftKind::ResidentialProxy
            | TheftKind::Insider
            | TheftKind::SlowAndLow
            | TheftKind::RecordScraping
            | TheftKind::BulkExport => lives && app.id != DEPLOY.id,
            TheftKind::BindingMismatch => lives && uses >= 3,
            TheftKind::TwoHolders if depth == Depth::Plain => family && uses >= 14,
            TheftKind::TwoHolders => lives && uses >= 8,
            TheftKind::NightBurst => {
                uses <= 150 && matches!(app.tokens, Tokens::Standing(TokenType::Personal | TokenType::ApiKey))
            }
            TheftKind::RefreshReuse => lives && self.rotates() && self.refreshes.len() >= 2,
            TheftKind::Campaign => is_plugin(app),
            TheftKind::PhishedSession => lives && app.has_sessions,
            TheftKind::ClonedMobile => lives && family && !app.has_sessions,
            TheftKind::LeakedCiSecret => lives && app.id == DEPLOY.id,
            TheftKind::RotationBypass => lives && self.rotates(),
            TheftKind::AfterRevocation => ended_by(Kind::Revoked),
            TheftKind::AfterLogout => ended_by(Kind::SessionEnded),
            TheftKind::AfterExpiry => lives && family,
            TheftKind::StaleCredential => lives && self.changed_at.is_some(),
        }
    }
}

impl Planter {
    pub fn new(seed: u64, settings: &Settings) -> Self {
        let mut random = Random::new(seed, 9_000_000);
        let days = settings.theft_days.max(1);
        let mut planned: Vec<(u32, TheftKind)> = Vec::new();
        for &(kind, count) in &settings.thefts {
            // Stays need some days of their own, and others a day on which something ended.
            let within = if kind.stays() || kind.follows() { (days * 2 / 3).max(1) } else { days };
            planned.extend((0..count).map(|n| match settings.depth {
                Depth::Plain => (n % days, kind),
                Depth::Full => (random.below(u64::from(within)) as u32, kind),
            }));
        }
        planned.sort_unstable();
        Self { random, depth: settings.depth, planned, victims: HashSet::new(), stays: Vec::new() }
    }

    /// Adds thefts to a day's honest records.
    pub fn plant(&mut self, records: &mut Vec<Record>, day: &Day, networks: &[Network], thefts: &mut Vec<Theft>) {
        let pasts = pasts(records);
        let mut planted = Vec::new();
        let mut made_odd: Vec<(u64, i64, Label)> = Vec::new();
        let mut stays = std::mem::take(&mut self.stays);
        stays.retain(|stay| stay.until > day.midnight);
        for stay in &mut stays {
            let Some(past) = pasts.iter().find(|past| past.id == stay.victim) else { continue };
            let stolen = self.day_of_stay(past, stay, networks);
            if let (Some(last), Some(theft)) = (stolen.iter().map(|record| record.at).max(), thefts.get_mut(stay.theft))
            {
                theft.last_at = theft.last_at.max(last);
            }
            let label = theft_label(stay.kind, stay.theft);
            planted.extend(stolen.into_iter().map(|record| Record { label: Some(label), ..record }));
        }
        let due = self.planned.partition_point(|(number, _)| *number <= day.number);
        let mut waiting = Vec::new();
        for (_, kind) in self.planned.drain(..due).collect::<Vec<_>>() {
            let suitable: Vec<&Past<'_>> =
                pasts.iter().filter(|past| past.suits(kind, self.depth) && !self.victims.contains(&past.id)).collect();
            let tries = if suitable.is_empty() { 0 } else { 400 };
            let Some(loot) = (0..tries).find_map(|_| self.steal(kind, day, &suitable, networks)) else {
                waiting.push((day.number + 1, kind));
                continue;
            };
            let number = thefts.len();
            let label = theft_label(kind, number);
            let stolen = loot.records;
            let Some(first) = stolen.iter().min_by_key(|record| record.at) else { continue };
            let mut victims: Vec<u64> = stolen.iter().map(victim).collect();
            victims.sort_unstable();
            victims.dedup();
            self.victims.extend(&victims);
            let mut names: Vec<String> = stolen.iter().map(victim_name).collect();
            names.sort_unstable();
            names.dedup();
            thefts.push(Theft {
                kind,
                app_id: first.holder.app.id,
                victims: names,
                first_at: first.at,
                last_at: stolen.iter().map(|record| record.at).max().unwrap_or(first.at),
                event_ids: Vec::new(),
            });
            made_odd.extend(loot.made_odd.into_iter().map(|(token, at)| (token, at, label)));
            stays.extend(loot.stay.map(|stay| Stay { theft: number, ..stay }));
            planted.extend(stolen.into_iter().map(|record| Record { label: Some(label), ..record }));
        }
        self.planned.splice(0..0, waiting);
        self.stays = stays;
        for (token, at, label) in made_odd {
            for record in records.iter_mut().filter(|record| record.token == token && record.at == at) {
                record.label = Some(label);
            }
        }
        records.append(&mut planted);
    }

    /// One try with one holder drawn at random. `None` where nothing of the kind can happen to them today.
    fn steal(&mut self, kind: TheftKind, day: &Day, suitable: &[&Past<'_>], networks: &[Network]) -> Option<Loot> {
        let past = *self.random.pick(suitable);
        let loot = match kind {
            TheftKind::Foreign | TheftKind::SameCountryVpn | TheftKind::ResidentialProxy | TheftKind::Insider => {
                self.spree(kind, past, networks)?.into()
            }
            TheftKind::LeakedCiSecret | TheftKind::BindingMismatch => self.spree(kind, past, networks)?.into(),
            TheftKind::TwoHolders => self.two_holders(past, networks)?.into(),
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
        };
        let in_time = loot.records.iter().all(|record| (day.midnight..day.end).contains(&record.at));
        (in_time && !loot.records.is_empty()).then_some(loot)
    }

    /// Some calls after a use of the owner's, with the same token while it is valid.
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
            Depth::Plain => (taken.at + self.random.within(4 * MINUTE..25 * MINUTE), Manner::plain(&mut self.random)),
            Depth::Full => {
                (taken.at + self.random.log_uniform(20_000.0, 6.0 * HOUR as f64) as i64, Manner::any(&mut self.random))
            }
        };
        let stolen = self.calls(past, taken, begins, taken.expires_at, &mut thief, &manner, networks);
        let enough = if self.depth == Depth::Plain { 5 } else { 1 };
        (stolen.len() >= enough).then_some(stolen)
    }

    /// In the midst of the owner's own session, from the same country, with whatever token the owner has just got.
    fn two_holders(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let first = self.random.below(past.uses.len() as u64) as usize;
        let session: Vec<&Record> = past.uses[first..]
            .windows(2)
            .take_while(|pair| pair[1].at - pair[0].at < 12 * MINUTE)
            .map(|pair| pair[0])
            .collect();
        let span = session.last()?.at - session.first()?.at;
        let (longest, least_span, turns, enough) = match self.depth {
            Depth::Plain => (14, 15 * MINUTE, self.random.within(8..18) as f64, 6),
            Depth::Full => (6, 4 * MINUTE, self.random.log_uniform(3.0, 18.0), 3),
        };
        if session.len() < longest || span < least_span {
            return None;
        }
        let taken = session[0];
        let mut thief = self.compatriot(taken, networks)?;
        let manner = Manner::online(self.depth, &mut self.random);
        let mut stolen = Vec::new();
        for owned in session.iter().skip(1) {
            let at = owned.at + self.random.within(1_500..50_000);
            if self.random.chance(turns / session.len() as f64) && owned.expires_at.is_none_or(|until| at < until) {
                stolen.push(thief.misuse(owned, at, &past.uses, &manner, networks, &mut self.random));
            }
        }
        (stolen.len() >= enough).then_some(stolen)
    }

    /// Walks through objects one by one: in the fortnight by night, with a standing secret, from the owner's own
    /// machine or a neighbour's; else at any time and from anywhere.
    fn scraping(&mut self, kind: TheftKind, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let owned = if kind == TheftKind::NightBurst { *past.uses.last()? } else { *self.random.pick(&past.uses) };
        let local_midnight = |at: i64| {
            let offset = past.holder.zone.offset_ms(at);
            (at + offset).div_euclid(DAY) * DAY - offset
        };
        let (begins, count, mut thief) = if kind == TheftKind::NightBurst {
            let begins = local_midnight(owned.at) + self.random.within(HOUR..4 * HOUR);
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
                Some(_) => owned.at + self.random.log_uniform(20_000.0, 30.0 * MINUTE as f64) as i64,
                None if self.random.chance(0.5) => owned.at + self.random.within(MINUTE..5 * HOUR),
                None => local_midnight(owned.at) + DAY + self.random.within(0..5 * HOUR),
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
            let mut record = thief.misuse(owned, at, &past.uses, &manner, networks, &mut self.random);
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

    /// The calls that answer most.
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
        let mut at = owned.at + self.random.log_uniform(30_000.0, 3.0 * HOUR as f64) as i64;
        let mut stolen = Vec::new();
        for _ in 0..self.random.within(1..8) {
            if owned.expires_at.is_none_or(|until| at < until) {
                let mut record = thief.misuse(owned, at, &past.uses, &manner, networks, &mut self.random);
                if let Some(call) = record.sighting.as_mut().and_then(|sighting| sighting.call.as_mut()) {
                    (call.route, call.bytes) = (route, route.answer_bytes(&mut self.random));
                }
                stolen.push(record);
                at += self.random.log_normal(25_000.0, 1.0) as i64 + 400;
            }
        }
        Some(stolen)
    }

    /// A copy of a refresh token that the owner has since exchanged, or is going to.
    fn refresh_reuse(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Loot> {
        let Tokens::Rotating { minutes } = past.holder.app.tokens else { return None };
        let answered = |record: &&&Record| record.sighting.as_ref().is_some_and(|sighting| sighting.status == 200);
        let refreshes: Vec<&Record> = past.refreshes.iter().filter(answered).copied().collect();
        let thief_is_first = self.depth == Depth::Full && self.random.chance(0.4);
        let (_, earlier) = refreshes.split_last().filter(|(_, earlier)| !earlier.is_empty())?;
        let copied = *self.random.pick(if thief_is_first { &refreshes[1..] } else { earlier });
        let mut made_odd = Vec::new();
        let begins = if thief_is_first {
            // The owner's client presents what the thief has exchanged minutes or hours before.
            let before = refreshes.iter().rev().find(|before| before.at < copied.at - 20 * MINUTE)?;
            made_odd.push((copied.token, copied.at));
            copied.at - self.random.within(8 * MINUTE..copied.at - before.at - 2 * MINUTE)
        } else {
            let next = refreshes.iter().find(|later| later.at > copied.at + MINUTE)?;
            next.at + self.random.within(10 * MINUTE..5 * HOUR)
        };
        let mut thief = match self.depth {
            Depth::Plain => self.far_thief(copied, networks, |_| true)?,
            Depth::Full => self.anywhere(copied, networks)?,
        };
        let refused = !thief_is_first && self.random.chance(0.5);
        let sighting = Sighting {
            address: thief.address,
            client: Arc::clone(&thief.client),
            call: None,
            status: if refused { 400 } else { 200 },
            binding: None,
        };
        let mut stolen = vec![Record { at: begins, sighting: Some(sighting), ..copied.clone() }];
        if !refused {
            // A provider that does not check: the thief now has tokens of their own in the family.
            let (refresh, access) = (self.random.bits(), self.random.bits());
            let expires_at = begins + minutes * MINUTE;
            let issued = |token, token_type, expires_at, after| Record {
                at: begins + after,
                kind: Kind::Issued,
                token,
                token_type,
                parent: Some(copied.token),
                expires_at,
                sighting: None,
                ..copied.clone()
            };
            stolen.push(issued(refresh, TokenType::Refresh, None, 20));
            stolen.push(issued(access, TokenType::Access, Some(expires_at), 21));
            let mut taken = (*past.uses.first()?).clone();
            (taken.token, taken.expires_at) = (access, Some(expires_at));
            let mut manner = Manner::any(&mut self.random);
            manner.calls = self.random.within(3..12) as usize;
            stolen.extend(self.calls(past, &taken, begins + 700, Some(expires_at), &mut thief, &manner, networks));
        }
        Some(Loot { records: stolen, made_odd, stay: None })
    }

    /// A plugin's vendor was breached: many users' tokens from few rented servers within hours.
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
        let begins = day.midnight + self.random.within(2 * HOUR..22 * HOUR);
        let (users, span, hosts, manner) = match self.depth {
            Depth::Plain => (self.random.within(12..20), 50 * MINUTE, 1, Manner::plain(&mut self.random)),
            Depth::Full => (
                self.random.log_uniform(5.0, 30.0) as i64,
                self.random.log_uniform(15.0 * MINUTE as f64, 8.0 * HOUR as f64) as i64,
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
                stolen.push(thieves[thief].misuse(owned, at, &past.uses, &manner, networks, &mut self.random));
                at += self.random.within(800..20_000);
            }
        }
        Some(stolen)
    }

    fn begin_stay(&mut self, kind: TheftKind, past: &Past<'_>, day: &Day, networks: &[Network]) -> Option<Loot> {
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
        let until = day.midnight + (days * DAY as f64) as i64;
        let mut stay = Stay { theft: 0, victim: past.id, kind, thief, manner, until };
        let records = self.day_of_stay(past, &mut stay, networks);
        Some(Loot { records, made_odd: Vec::new(), stay: Some(stay) })
    }

    /// What a thief who stays does today: some sessions, each with a token that the owner has used today.
    fn day_of_stay(&mut self, past: &Past<'_>, stay: &mut Stay, networks: &[Network]) -> Vec<Record> {
        let mut taken: Vec<&Record> = match stay.kind {
            // Every fresh token, mostly.
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
            let begins = owned.at + self.random.log_uniform(8_000.0, 2.0 * HOUR as f64) as i64;
            let manner =
                Manner { calls: 1 + self.random.below(stay.manner.calls.min(12) as u64) as usize, ..stay.manner };
            if begins < stay.until {
                let thief = &mut stay.thief;
                stolen.extend(self.calls(past, owned, begins, owned.expires_at, thief, &manner, networks));
            }
        }
        stolen
    }

    /// The owner signs in through the thief's proxy, and the session that begins is the thief's.
    fn phished_session(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let (Tokens::Rotating { minutes } | Tokens::Refreshing { minutes }) = past.holder.app.tokens else {
            return None;
        };
        let owned = *self.random.pick(&past.uses);
        let mut thief = self.anywhere(owned, networks)?;
        let begins = owned.at + self.random.log_uniform(60_000.0, 4.0 * HOUR as f64) as i64;
        let old = past.holder;
        let holder = Arc::new(Holder {
            tenant: old.tenant,
            user: old.user.clone(),
            app: old.app,
            family: Some(self.random.bits() >> 16),
            zone: old.zone.clone(),
        });
        let (refresh, access, expires_at) = (self.random.bits(), self.random.bits(), begins + minutes * MINUTE);
        let issued = |token, token_type, parent, expires_at, after| Record {
            at: begins + after,
            kind: Kind::Issued,
            token,
            token_type,
            parent,
            holder: Arc::clone(&holder),
            expires_at,
            sighting: None,
            label: None,
        };
        let mut stolen = vec![
            issued(refresh, TokenType::Refresh, None, None, 0),
            issued(access, TokenType::Access, Some(refresh), Some(expires_at), 2),
        ];
        let mut taken = owned.clone();
        (taken.token, taken.expires_at, taken.holder) = (access, Some(expires_at), Arc::clone(&holder));
        let mut manner = Manner::any(&mut self.random);
        manner.calls = manner.calls.max(2);
        let begins = begins + self.random.log_uniform(400.0, 240_000.0) as i64;
        stolen.extend(self.calls(past, &taken, begins, Some(expires_at), &mut thief, &manner, networks));
        (stolen.len() > 2).then_some(stolen)
    }

    /// With a token whose grant was revoked, or whose session was ended: some servers do not look.
    fn after_the_end(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let end = past.end?;
        let taken =
            *past.uses.iter().rev().find(|record| record.at < end.at && record.token_type != TokenType::Refresh)?;
        let mut thief = self.anywhere(taken, networks)?;
        thief.refused = if self.random.chance(0.2) { 0.9 } else { 0.0 };
        let begins = end.at + self.random.log_uniform(45_000.0, 20.0 * HOUR as f64) as i64;
        let manner = Manner::any(&mut self.random);
        let stolen = self.calls(past, taken, begins, taken.expires_at, &mut thief, &manner, networks);
        (!stolen.is_empty()).then_some(stolen)
    }

    /// With an access token that is over, at a server that does not look.
    fn after_expiry(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let taken = *self.random.pick(&past.uses);
        let mut thief = self.anywhere(taken, networks)?;
        thief.refused = if self.random.chance(0.2) { 0.7 } else { 0.0 };
        let begins = taken.expires_at? + self.random.log_uniform(3.0 * MINUTE as f64, 30.0 * HOUR as f64) as i64;
        let manner = Manner::any(&mut self.random);
        let stolen = self.calls(past, taken, begins, None, &mut thief, &manner, networks);
        (!stolen.is_empty()).then_some(stolen)
    }

    /// The owner has changed the password, and what was issued before goes on working, elsewhere.
    fn stale_credential(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let changed_at = past.changed_at?;
        let taken = *past.uses.iter().rev().find(|record| record.at < changed_at)?;
        let mut thief = self.anywhere(taken, networks)?;
        let begins = changed_at + self.random.log_uniform(2.0 * MINUTE as f64, 40.0 * HOUR as f64) as i64;
        let manner = Manner::any(&mut self.random);
        let stolen = self.calls(past, taken, begins, taken.expires_at, &mut thief, &manner, networks);
        (!stolen.is_empty()).then_some(stolen)
    }

    /// Calls in the thief's manner, from `begins` until `until`.
    #[expect(clippy::too_many_arguments, reason = "what, when, who and how of one visit")]
    fn calls(
        &mut self,
        past: &Past<'_>,
        owned: &Record,
        begins: i64,
        until: Option<i64>,
        thief: &mut Thief,
        manner: &Manner,
        networks: &[Network],
    ) -> Vec<Record> {
        let (mut at, mut stolen) = (begins, Vec::new());
        for _ in 0..manner.calls {
            if until.is_some_and(|until| at >= until) {
                break;
            }
            stolen.push(thief.misuse(owned, at, &past.uses, manner, networks, &mut self.random));
            at += manner.pause(&mut self.random);
        }
        stolen
    }

    fn anywhere(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        match self.random.below(4) {
            0 => self.foreigner(owned, networks),
            1 => self.same_country_vpn(owned, networks),
            2 => self.residential_proxy(owned, networks),
            _ => self.compatriot(owned, networks),
        }
    }

    fn foreigner(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        let (country, home) = (own.country, continent(own.country));
        let near = self.depth == Depth::Full && self.random.chance(0.4);
        self.far_thief(owned, networks, |network| {
            let far = continent(network.country) != home || near && network.country != country;
            far && match network.purpose {
                Purpose::Abroad | Purpose::Rented => true,
                Purpose::Vpn | Purpose::Cloud => near,
                _ => false,
            }
        })
    }

    fn same_country_vpn(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        self.far_thief(owned, networks, |network| {
            network.country == own.country && matches!(network.purpose, Purpose::Vpn | Purpose::Rented)
        })
    }

    fn residential_proxy(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        let mut thief = self.far_thief(owned, networks, |network| {
            network.country == own.country && network.purpose == Purpose::Home && network.asn != own.asn
        })?;
        thief.moves = self.random.log_uniform(0.01, 0.7);
        thief.exits = networks
            .iter()
            .enumerate()
            .filter(|(_, network)| network.country == own.country && network.purpose == Purpose::Home)
            .map(|(number, _)| number)
            .collect();
        Some(thief)
    }

    /// Of the owner's country, on another provider's network.
    fn compatriot(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        self.far_thief(owned, networks, |network| {
            matches!(network.purpose, Purpose::Home | Purpose::Vpn | Purpose::Rented)
                && network.country == own.country
                && network.asn != own.asn
        })
    }

    fn neighbour(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        self.far_thief(owned, networks, |network| network.asn == own.asn && network.country == own.country)
    }

    /// Behind the owner's own address, or one of the same provider's in the same city.
    fn insider(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        let near = self.random.chance(0.4);
        let mut thief =
            self.far_thief(owned, networks, |network| network.asn == own.asn && network.city == own.city)?;
        if !near {
            thief.address = owned.sighting.as_ref()?.address;
        }
        Some(thief)
    }

    /// The same application on another carrier of the country, sometimes on the owner's own.
    fn other_phone(&mut self, owned: &Record, networks: &[Network]) -> Option<Thief> {
        let own = network_of(owned, networks)?;
        let elsewhere = self.random.chance(0.8);
        let suits = |network: &Network| {
            network.purpose == Purpose::Mobile
                && network.country == own.country
                && (!elsewhere || network.asn != own.asn)
        };
        let mut thief = self.far_thief(owned, networks, suits)?;
        thief.client = Thief::phone(owned, &mut self.random)?;
        thief.moves = self.random.log_uniform(0.01, 0.3);
        let exits = networks.iter().enumerate().filter(|(_, network)| suits(network));
        thief.exits = exits.map(|(number, _)| number).collect();
        Some(thief)
    }

    fn far_thief(&mut self, owned: &Record, networks: &[Network], suits: impl Fn(&Network) -> bool) -> Option<Thief> {
        Thief::new(owned, networks, suits, self.depth, &mut self.random)
    }
}

/// Each holder's day, in the order of their ids.
fn pasts(records: &[Record]) -> Vec<Past<'_>> {
    let mut pasts: BTreeMap<u64, Past<'_>> = BTreeMap::new();
    let mut changes: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for record in records {
        if record.kind == Kind::CredentialChanged {
            changes.insert((record.holder.tenant, &record.holder.user), record.at);
        }
        let id = victim(record);
        let past = pasts.entry(id).or_insert_with(|| Past {
            id,
            holder: &record.holder,
            uses: Vec::new(),
            refreshes: Vec::new(),
            end: None,
            changed_at: None,
        });
        match record.kind {
            Kind::Use if record.sighting.as_ref().is_some_and(|sighting| sighting.status != 401) => {
                past.uses.push(record);
            }
            Kind::Refreshed => past.refreshes.push(record),
            Kind::Revoked | Kind::SessionEnded => past.end = Some(record),
            _ => {}
        }
    }
    for past in pasts.values_mut() {
        past.uses.sort_by_key(|record| record.at);
        past.refreshes.sort_by_key(|record| record.at);
        past.changed_at = changes.get(&(past.holder.tenant, past.holder.user.as_str())).copied();
    }
    pasts.into_values().collect()
}

fn is_plugin(app: &App) -> bool {
    matches!(app.tokens, Tokens::Standing(TokenType::Access))
}

const fn theft_label(kind: TheftKind, number: usize) -> Label {
    Label { theft: true, scenario: kind.scenario(), instance: number as u64 }
}

fn victim(record: &Record) -> u64 {
    record.holder.family.unwrap_or(record.token)
}

fn victim_name(record: &Record) -> String {
    match record.holder.family {
        Some(family) => format!("g-{family:012x}"),
        None => format!("{:016x}", record.token),
    }
}
