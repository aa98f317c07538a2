//! Adds thefts to legitimate days: a thief takes a token that its owner holds at that moment.

mod aggregator;
mod code;
mod deeds;
mod device;
mod issued;
pub(super) mod kind;
mod past;
mod renewal;
mod service_client;
mod stay;
mod takeover;
mod whereabouts;

use std::collections::{BTreeMap, HashSet};

use kind::Group;
pub(crate) use kind::TheftKind;

use super::label::Label;
use super::networks::Network;
use super::random::Random;
use super::record::{Record, Subject};
use super::settings::Settings;
use super::span::Depth;
use super::thief::{Manner, Thief};
use crate::event::Kind;
use crate::millis::DAY_MS;
use past::{Past, pasts, sleeping, victim};

/// One theft.
#[derive(Clone, Debug)]
pub(crate) struct Theft {
    pub(crate) kind: TheftKind,
    /// Grants, clients without a user, or other tokens, that the thief used.
    pub(crate) victims: Vec<String>,
    /// First and last event of the thief, in milliseconds since the epoch.
    pub(crate) first_at: i64,
    pub(crate) last_at: i64,
    /// Ids of the thief's events, and of events of the owner that look suspicious only because of the theft.
    pub(crate) event_ids: Vec<String>,
}

/// Adds the planned thefts.
pub(super) struct Planter {
    random: Random,
    depth: Depth,
    /// Day of each theft, counted over the days with thefts. A theft without a suitable holder waits for the next day.
    planned: Vec<(u32, TheftKind)>,
    victims: HashSet<u64>,
    stays: Vec<Stay>,
    /// The last use of each long-lived token, if thefts of sleeping tokens are planned.
    last_uses: BTreeMap<u64, Record>,
}

/// The day to which thefts are added.
pub(super) struct Day {
    /// UTC, milliseconds since the epoch.
    pub(crate) midnight: i64,
    /// End of the simulation.
    pub(crate) end: i64,
    /// Index among the days with thefts.
    pub(crate) number: u32,
}

/// Actions of a thief today.
#[derive(Default)]
struct Loot {
    records: Vec<Record>,
    /// Events of the owner, by token and time, that look suspicious because of the theft.
    made_odd: Vec<(u64, i64)>,
    stay: Option<Stay>,
}

/// A theft that continues for days.
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

impl Planter {
    /// Plans the thefts that concern `group`.
    pub(crate) fn new(seed: u64, group: Group, settings: &Settings) -> Self {
        let mut random = Random::new(seed, 9_000_000 + group as u64);
        let days = settings.theft_days.max(1);
        let mut planned: Vec<(u32, TheftKind)> = Vec::new();
        for &(kind, count) in settings.thefts.iter().filter(|(kind, _)| kind.group() == group) {
            // Thefts over several days need time, and others need a day on which a token ended.
            let within = if kind.stays() || kind.follows() { (days * 2 / 3).max(1) } else { days };
            planned.extend((0..count).map(|n| match settings.depth {
                Depth::Plain => (n % days, kind),
                Depth::Full => (random.below(u64::from(within)) as u32, kind),
            }));
        }
        planned.sort_unstable();
        Self {
            random,
            depth: settings.depth,
            planned,
            victims: HashSet::new(),
            stays: Vec::new(),
            last_uses: BTreeMap::new(),
        }
    }

    /// Remembers the last uses of long-lived tokens.
    pub(crate) fn observe(&mut self, records: &[Record]) {
        if self.planned.iter().any(|(_, kind)| *kind == TheftKind::SleepingKey) {
            for record in records.iter().filter(|record| record.kind == Kind::Use && record.expires_at.is_none()) {
                let last = self.last_uses.entry(victim(record)).or_insert_with(|| record.clone());
                if last.at < record.at {
                    *last = record.clone();
                }
            }
        }
    }

    /// Last uses of the tokens that have not been used for two weeks.
    fn asleep(&self, midnight: i64) -> Vec<Record> {
        self.last_uses.values().filter(|last| last.at < midnight - 14 * DAY_MS).cloned().collect()
    }

    /// Adds thefts to a day's legitimate records.
    pub(crate) fn plant(
        &mut self,
        records: &mut Vec<Record>,
        day: &Day,
        networks: &[Network],
        thefts: &mut Vec<Theft>,
    ) {
        let asleep = self.asleep(day.midnight);
        let pasts: Vec<Past<'_>> = pasts(records).into_iter().chain(asleep.iter().map(sleeping)).collect();
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
}

const fn theft_label(kind: TheftKind, number: usize) -> Label {
    Label { theft: true, scenario: kind.scenario(), instance: number as u64 }
}

fn victim_name(record: &Record) -> String {
    match (record.holder.family, &record.holder.subject) {
        (Some(family), _) => format!("g-{family:012x}"),
        (None, Subject::Client(number)) => format!("{}-{number}", record.holder.app.id),
        (None, Subject::User(_)) => format!("{:016x}", record.token),
    }
}
