//! Thefts, planted into honest days: a thief takes a token that its owner really holds at that moment.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::apps::{App, Tokens};
use super::clients::{BROWSERS, Client, LIBRARIES};
use super::networks::{Network, Purpose, continent};
use super::person::HOUR;
use super::random::Random;
use super::record::{Call, Holder, Record, Sighting};
use crate::event::{Kind, TokenType};

/// What was planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TheftKind {
    /// Used from another continent.
    Foreign,
    /// Used by the owner and a thief of the same country in turns.
    TwoHolders,
    /// Hundreds of calls in the owner's night.
    NightBurst,
    /// A refresh token presented again after its successor was in use.
    RefreshReuse,
    /// Many users' tokens of one application, used from one new address.
    Campaign,
}

impl TheftKind {
    pub const ALL: [Self; 5] = [Self::Foreign, Self::TwoHolders, Self::NightBurst, Self::RefreshReuse, Self::Campaign];

    /// One line for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Foreign => "used from another continent",
            Self::TwoHolders => "used by two holders at once",
            Self::NightBurst => "a burst of calls by night",
            Self::RefreshReuse => "a refresh token presented twice",
            Self::Campaign => "one app's tokens from one new network",
        }
    }

    pub(super) const fn planned(self) -> usize {
        match self {
            Self::Campaign => 3,
            _ => 6,
        }
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
    /// Ids of the thief's events.
    pub event_ids: Vec<String>,
}

/// Plants thefts until each kind has its number.
pub(super) struct Planter {
    random: Random,
    victims: HashSet<*const Holder>,
    planted: BTreeMap<TheftKind, usize>,
}

/// The day that is planted.
pub(super) struct Day {
    /// UTC, milliseconds since the epoch.
    pub midnight: i64,
    /// End of the story.
    pub end: i64,
    /// Days on which thefts happen, this one included.
    pub theft_days_left: usize,
}

/// One holder's events of the day, in time order.
struct Past<'r> {
    holder: &'r Arc<Holder>,
    uses: Vec<&'r Record>,
    refreshes: Vec<&'r Record>,
}

struct Thief {
    address: IpAddr,
    client: Arc<Client>,
}

impl Planter {
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed, 9_000_000), victims: HashSet::new(), planted: BTreeMap::new() }
    }

    /// Adds thefts to a day's honest records: a share of what is still to be planted, all of it on the last day.
    pub fn plant(&mut self, records: &mut Vec<Record>, day: &Day, networks: &[Network], thefts: &mut Vec<Theft>) {
        let mut past: BTreeMap<*const Holder, Past<'_>> = BTreeMap::new();
        for record in records.iter() {
            let entry = past.entry(Arc::as_ptr(&record.holder)).or_insert_with(|| Past {
                holder: &record.holder,
                uses: Vec::new(),
                refreshes: Vec::new(),
            });
            match record.kind {
                Kind::Use => entry.uses.push(record),
                Kind::Refreshed => entry.refreshes.push(record),
                _ => {}
            }
        }
        let mut holders: Vec<Past<'_>> = past.into_values().collect();
        // By name, for the order of pointers differs from run to run.
        holders.sort_by(|a, b| (&a.holder.user, a.holder.app.id).cmp(&(&b.holder.user, b.holder.app.id)));
        for past in &mut holders {
            past.uses.sort_by_key(|record| record.at);
            past.refreshes.sort_by_key(|record| record.at);
        }
        let mut planted = Vec::new();
        for kind in TheftKind::ALL {
            let done = self.planted.get(&kind).copied().unwrap_or(0);
            let today = (kind.planned() - done).div_ceil(day.theft_days_left);
            for _ in 0..today {
                // Few holders suit; each try draws another one.
                let Some(stolen) = (0..20_000).find_map(|_| self.steal(kind, day, &holders, networks)) else { break };
                *self.planted.entry(kind).or_default() += 1;
                self.victims.extend(stolen.iter().map(|record| Arc::as_ptr(&record.holder)));
                planted.push((kind, stolen));
            }
        }
        for (kind, stolen) in planted {
            let number = thefts.len() as u16;
            let mut victims: Vec<String> = stolen.iter().map(victim_name).collect();
            victims.sort();
            victims.dedup();
            thefts.push(Theft {
                kind,
                app_id: stolen.first().map_or("", |record| record.holder.app.id),
                victims,
                first_at: stolen.iter().map(|record| record.at).min().unwrap_or(0),
                last_at: stolen.iter().map(|record| record.at).max().unwrap_or(0),
                event_ids: Vec::new(),
            });
            records.extend(stolen.into_iter().map(|record| Record { theft: Some(number), ..record }));
        }
    }

    /// One try with one holder drawn at random. `None` where nothing of the kind can happen to them today.
    fn steal(&mut self, kind: TheftKind, day: &Day, holders: &[Past<'_>], networks: &[Network]) -> Option<Vec<Record>> {
        let past = self.random.pick(holders);
        if self.victims.contains(&Arc::as_ptr(past.holder)) {
            return None;
        }
        let stolen = match kind {
            TheftKind::Foreign => self.foreign(past, networks),
            TheftKind::TwoHolders => self.two_holders(past, networks),
            TheftKind::NightBurst => self.night_burst(past, networks),
            TheftKind::RefreshReuse => self.refresh_reuse(past, networks),
            TheftKind::Campaign => self.campaign(past.holder.app, day, holders, networks),
        }?;
        stolen.iter().all(|record| (day.midnight..day.end).contains(&record.at)).then_some(stolen)
    }

    /// A valid access token, minutes after the owner's use, on another continent.
    fn foreign(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        past.holder.family?;
        let taken = *self.random.pick(past.uses.get(3..).filter(|uses| !uses.is_empty())?);
        let begins = taken.at + self.random.within(4 * 60_000..25 * 60_000);
        let until = taken.expires_at?.min(begins + 50 * 60_000) - 60_000;
        let home = continent(owner_country(taken, networks)?);
        let thief = self.thief(taken, networks, |network| {
            matches!(network.purpose, Purpose::Abroad | Purpose::Rented) && continent(network.country) != home
        })?;
        let mut at = begins;
        let mut stolen = Vec::new();
        for _ in 0..self.random.within(6..30) {
            if at < until {
                stolen.push(self.misuse(taken, at, &thief, 0.25));
                at += (self.random.pareto(2.0, 0.8).min(400.0) * 1_000.0) as i64;
            }
        }
        (stolen.len() >= 5).then_some(stolen)
    }

    /// In the midst of the owner's own session, from the same country, with whatever token the owner has just got.
    fn two_holders(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        past.holder.family?;
        let first = self.random.below(past.uses.len() as u64) as usize;
        let session: Vec<&Record> = past.uses[first..]
            .windows(2)
            .take_while(|pair| pair[1].at - pair[0].at < 12 * 60_000)
            .map(|pair| pair[0])
            .collect();
        let span = session.last()?.at - session.first()?.at;
        if session.len() < 14 || span < 15 * 60_000 {
            return None;
        }
        let taken = session[0];
        let country = owner_country(taken, networks)?;
        let asn = network_of(taken, networks)?.asn;
        let thief = self.thief(taken, networks, |network| {
            matches!(network.purpose, Purpose::Home | Purpose::Vpn | Purpose::Rented)
                && network.country == country
                && network.asn != asn
        })?;
        let turns = self.random.within(8..18) as f64;
        let mut stolen = Vec::new();
        for owned in session.iter().skip(2) {
            let at = owned.at + self.random.within(1_500..50_000);
            if self.random.chance(turns / session.len() as f64) && owned.expires_at.is_none_or(|until| at < until) {
                stolen.push(self.misuse(owned, at, &thief, 0.2));
            }
        }
        (stolen.len() >= 6).then_some(stolen)
    }

    /// A standing secret walks through objects, from the owner's own machine or from a neighbour's.
    fn night_burst(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let Tokens::Standing(TokenType::Personal | TokenType::ApiKey) = past.holder.app.tokens else { return None };
        let owned = *past.uses.last()?;
        if past.uses.len() > 150 {
            return None;
        }
        let local_midnight = (owned.at + past.holder.offset_ms).div_euclid(24 * HOUR) * 24 * HOUR;
        let begins = local_midnight - past.holder.offset_ms + self.random.within(HOUR..4 * HOUR);
        let own_network = network_of(owned, networks);
        let thief = if self.random.chance(0.5) {
            let sighting = owned.sighting.as_ref()?;
            Thief { address: sighting.address, client: Arc::clone(&sighting.client) }
        } else {
            let own = own_network?;
            self.thief(owned, networks, |network| network.asn == own.asn && network.country == own.country)?
        };
        let mut at = begins;
        let first_object = self.random.below(100_000);
        let stolen = (0..self.random.within(500..1_500))
            .map(|n| {
                let mut record = self.misuse(owned, at, &thief, 0.01);
                if let Some(call) = record.sighting.as_mut().and_then(|sighting| sighting.call.as_mut()) {
                    call.object = first_object + n as u64;
                }
                at += self.random.log_normal(1_600.0, 0.5) as i64;
                record
            })
            .collect();
        Some(stolen)
    }

    /// A copy of a refresh token that the owner has since exchanged.
    fn refresh_reuse(&mut self, past: &Past<'_>, networks: &[Network]) -> Option<Vec<Record>> {
        let Tokens::Rotating { minutes } = past.holder.app.tokens else { return None };
        let (_, earlier) = past.refreshes.split_last().filter(|(_, earlier)| !earlier.is_empty())?;
        let copied = *self.random.pick(earlier);
        let next = past.refreshes.iter().find(|later| later.at > copied.at + 60_000)?;
        let begins = next.at + self.random.within(10 * 60_000..5 * HOUR);
        let country = owner_country(copied, networks)?;
        let thief = self.thief(copied, networks, |network| match network.purpose {
            Purpose::Rented | Purpose::Vpn | Purpose::Abroad => true,
            Purpose::Home => network.country == country,
            _ => false,
        })?;
        let detected = self.random.chance(0.5);
        let sighting =
            |call, status| Sighting { address: thief.address, client: Arc::clone(&thief.client), call, status };
        let presented =
            Record { at: begins, sighting: Some(sighting(None, if detected { 400 } else { 200 })), ..copied.clone() };
        let mut stolen = vec![presented];
        if !detected {
            // A provider that does not check: the thief now has tokens of their own in the family.
            let (refresh, access) = (self.random.bits(), self.random.bits());
            let issued = |token, token_type, expires_at| Record {
                at: begins + 25,
                kind: Kind::Issued,
                token,
                token_type,
                parent: Some(copied.token),
                expires_at,
                sighting: None,
                ..copied.clone()
            };
            stolen.push(issued(refresh, TokenType::Refresh, None));
            stolen.push(issued(access, TokenType::Access, Some(begins + minutes * 60_000)));
            let mut at = begins + 2_000;
            for _ in 0..self.random.within(3..12) {
                let mut record = self.misuse(past.uses.first()?, at, &thief, 0.25);
                (record.token, record.expires_at) = (access, Some(begins + minutes * 60_000));
                stolen.push(record);
                at += (self.random.pareto(2.0, 0.9).min(200.0) * 1_000.0) as i64;
            }
        }
        Some(stolen)
    }

    /// A plugin's vendor was breached: a dozen users' tokens from one rented server within the hour.
    fn campaign(
        &mut self,
        app: &'static App,
        day: &Day,
        holders: &[Past<'_>],
        networks: &[Network],
    ) -> Option<Vec<Record>> {
        if !matches!(app.tokens, Tokens::Standing(TokenType::Access)) {
            return None;
        }
        let of_app: Vec<&Past<'_>> = holders.iter().filter(|past| past.holder.app.id == app.id).collect();
        if of_app.iter().any(|past| self.victims.contains(&Arc::as_ptr(past.holder))) {
            return None;
        }
        let first = *of_app.first()?.uses.first()?;
        let begins = day.midnight + self.random.within(2 * HOUR..22 * HOUR);
        let thief = self.thief(first, networks, |network| network.purpose == Purpose::Rented)?;
        let mut stolen = Vec::new();
        for _ in 0..self.random.within(12..20) {
            let past = self.random.pick(&of_app);
            let mut at = begins + self.random.within(0..50 * 60_000);
            for _ in 0..self.random.within(2..6) {
                stolen.push(self.misuse(past.uses.first()?, at, &thief, 0.6));
                at += self.random.within(800..20_000);
            }
        }
        Some(stolen)
    }

    /// An address in a network that `suits`, and a client: a copy of the owner's, or another browser or library.
    fn thief(&mut self, owned: &Record, networks: &[Network], suits: impl Fn(&Network) -> bool) -> Option<Thief> {
        let suitable: Vec<&Network> = networks.iter().filter(|network| suits(network)).collect();
        if suitable.is_empty() {
            return None;
        }
        let address = self.random.pick(&suitable).random_v4(&mut self.random);
        let client = if self.random.chance(0.4) {
            Arc::clone(&owned.sighting.as_ref()?.client)
        } else {
            let programs = if self.random.chance(0.6) { LIBRARIES } else { BROWSERS };
            self.random.pick(programs).any_client(&mut self.random)
        };
        Some(Thief { address, client })
    }

    /// One call with the token of `owned`; `rare` is the share of calls that owners hardly ever make.
    fn misuse(&mut self, owned: &Record, at: i64, thief: &Thief, rare: f64) -> Record {
        let app = owned.holder.app;
        let route =
            if self.random.chance(rare) { app.rare_route(&mut self.random) } else { self.random.pick(app.routes) };
        let call = Call { route, object: self.random.below(100_000), bytes: route.answer_bytes(&mut self.random) };
        let sighting = Sighting {
            address: thief.address,
            client: Arc::clone(&thief.client),
            call: Some(call),
            status: if self.random.chance(0.05) { 403 } else { 200 },
        };
        Record { at, sighting: Some(sighting), ..owned.clone() }
    }
}

fn victim_name(record: &Record) -> String {
    match record.holder.family {
        Some(family) => format!("g-{family:012x}"),
        None => format!("{:016x}", record.token),
    }
}

fn network_of<'n>(record: &Record, networks: &'n [Network]) -> Option<&'n Network> {
    let address = record.sighting.as_ref()?.address;
    networks.iter().find(|network| network.holds(address))
}

fn owner_country<'n>(record: &Record, networks: &'n [Network]) -> Option<&'n str> {
    network_of(record, networks).map(|network| network.country)
}
