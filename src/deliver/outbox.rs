//! The outbox: incidents and notices on disk, and the next task of each lane.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::breakers::Breakers;
use super::digest::{Collected, DigestSettings};
use super::journal::{DAMAGED_FILE, Journal};
use super::limits::Caps;
use super::record::{Effect, Hold, REVOKE, Record, Thread, Work};
use super::routes::{Routes, name_of};
use super::silences::Silences;
use super::state::{Due, Item, REVOCATION_MS_MAX, State, Turn, change_key, revocation_key};
use super::task::{Message, Next, Report, ToRevoke, What, report};
use super::user_notices::UserNotices;
use crate::lock::unpoisoned;
use crate::port::{self, Clock, Notice, Notifier, Revocation, SilenceId, StoppedBy};
use crate::retry::{Retries, RetryPolicy};
use crate::verdict::{Incident, IncidentId};

/// Maximum number of deliveries that wait. Beyond it, the worker waits and no delivery is dropped.
const OPEN_MAX: usize = 20_000;
/// Notices that may wait beyond [`OPEN_MAX`], so that a full outbox can be reported.
const NOTICES_MAX: usize = 1_000;
/// Maximum length of a notice's key. A longer key is hashed.
const NOTICE_KEY_BYTES_MAX: usize = 100;
/// The journal is rewritten when it exceeds twice its size after the last rewrite by this much.
const GROWTH_BYTES_MAX: u64 = 8 << 20;
/// Attempts to write the whole outbox to disk, after an append has failed.
const DISK_RETRY: RetryPolicy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(10));
/// While this file is in the folder of the outbox, no revocation is requested.
pub const PAUSE_FILE: &str = "pause-actions";
/// Interval at which the folder is checked for [`PAUSE_FILE`] while revocations are paused.
const PAUSE_LOOK_MS: i64 = 10_000;
/// Alerts that are collected at a time.
const COLLECTED_MAX: usize = 1_000;

/// Incidents on disk that wait to be delivered.
pub struct Outbox {
    inner: Mutex<Inner>,
    folder: PathBuf,
    /// One lane per channel and recipient.
    pub(super) channels: Vec<String>,
    pub(super) routes: Routes,
    /// By name of the channel.
    digests: BTreeMap<String, DigestSettings>,
    pub(super) silences: Option<Arc<Silences>>,
    pub(super) breakers: Option<Arc<Breakers>>,
    pub(super) users: Option<Arc<UserNotices>>,
    clock: Arc<dyn Clock>,
    pub(super) changed: watch::Sender<()>,
    /// Number of journal lines that could not be read at the start.
    damaged: usize,
}

#[derive(Debug)]
pub(super) struct Inner {
    journal: Journal,
    pub(super) state: State,
    rewritten_bytes: u64,
    /// The journal lacks records that the state has.
    unwritten: Option<Unwritten>,
    /// The kind of revocation that is requested next.
    turn: Turn,
}

/// Why the journal is behind the state.
#[derive(Debug)]
struct Unwritten {
    retries: Retries,
    error: io::Error,
}

impl Outbox {
    /// Opens the outbox in `folder` for `notifiers`. Only one process can open it. Deliveries in it are continued.
    pub fn open(folder: &Path, notifiers: &[Arc<dyn Notifier>], clock: Arc<dyn Clock>) -> io::Result<Self> {
        let (journal, opened) = Journal::open(folder)?;
        let mut state = State::default();
        for record in opened.records {
            state.apply(record);
        }
        state.try_again(clock.now_millis());
        let channels: Vec<String> = notifiers.iter().map(|notifier| notifier.lane()).collect();
        if opened.damaged > 0 {
            let key = notice_key(&format!("outbox-damaged-{:032x}", opened.fingerprint));
            let text = format!(
                "{} lines of the outbox cannot be read. Alerts or revocations in them are lost. The other lines are \
                 delivered. The damaged file is kept as {DAMAGED_FILE} in outbox.dir. Inspect it, check the disk, and \
                 remove it.",
                opened.damaged
            );
            let notice =
                Notice { title: "The outbox is damaged".to_owned(), text, at: clock.now_millis(), about: None };
            tracing::error!("{}: {}", notice.title, notice.text);
            if !channels.is_empty() && !state.has(&key) {
                let lanes = channels.clone();
                state.apply(Record::Taken { key, at: notice.at, work: Work::Notice(notice), lanes });
            }
        }
        let mut inner = Inner { rewritten_bytes: journal.bytes(), journal, state, unwritten: None, turn: Turn::New };
        // A full disk does not prevent the start: what the file has is delivered.
        inner.rewrite(clock.now_millis());
        let inner = Mutex::new(inner);
        let (changed, damaged) = (watch::Sender::new(()), opened.damaged);
        let (routes, digests) = (Routes::default(), BTreeMap::new());
        let folder = folder.to_owned();
        let (silences, breakers, users) = (None, None, None);
        Ok(Self { inner, folder, channels, routes, digests, silences, breakers, users, clock, changed, damaged })
    }

    /// The same with routes. Without them, every channel gets everything.
    #[must_use]
    pub fn with_routes(mut self, routes: Routes) -> Self {
        self.routes = routes;
        self
    }

    /// The same with limits of messages, by name of the channel.
    #[must_use]
    pub fn with_digests(mut self, digests: BTreeMap<String, DigestSettings>) -> Self {
        self.digests = digests;
        self
    }

    /// The same with silences.
    #[must_use]
    pub fn with_silences(mut self, silences: Option<Arc<Silences>>) -> Self {
        self.silences = silences;
        self
    }

    /// The same with breakers. Without them, no revocation is stopped.
    #[must_use]
    pub fn with_breakers(mut self, breakers: Option<Arc<Breakers>>) -> Self {
        self.breakers = breakers;
        self
    }

    /// The stop because of which the revocation of `incident` is not requested.
    pub(super) fn stop_of(&self, incident: &Incident) -> Option<StoppedBy> {
        let settings = self.breakers.as_ref()?.settings;
        self.inner().state.stop_of(incident, |cause| settings.applies(cause))
    }

    /// The same with messages to users.
    #[must_use]
    pub fn with_users(mut self, users: Option<Arc<UserNotices>>) -> Self {
        self.users = users;
        self
    }

    /// The silence because of which a message is not sent. A new outcome of a revocation is always sent.
    pub(super) fn silence_of(&self, report: &Report) -> Option<SilenceId> {
        let silences = self.silences.as_ref().filter(|_| !report.has_new_outcome)?;
        silences.of(&report.incident, &report.unsent, self.clock.now_millis())
    }

    /// The limit of messages of a lane.
    pub(super) fn digest_of(&self, lane: &str) -> Option<DigestSettings> {
        self.digests.get(name_of(lane)).copied()
    }

    /// Whether alerts are collected that no digest contains yet.
    pub(super) fn collects(&self) -> bool {
        !self.inner().state.digests.is_empty()
    }

    /// Alerts of `lane` that are due and may be collected, each with its incident.
    pub(super) fn collectable(&self, lane: &str, settings: &DigestSettings) -> Vec<(Collected, Box<Incident>)> {
        let now = self.clock.now_millis();
        let inner = self.inner();
        let due = inner.state.due_incidents(lane, now, COLLECTED_MAX);
        due.filter_map(|(id, key, incident)| {
            let report = report(&inner.state, id, lane, now)?;
            let alert = Collected { key: key.to_owned(), incident: id, severity: incident.severity };
            let may_collect = settings.may_collect(&report.incident, &report.progress);
            (may_collect && self.silence_of(&report).is_none()).then_some((alert, report.incident))
        })
        .collect()
    }

    /// Lanes that get messages about `incident`: those of its route, and those that have messages about it already.
    pub(super) fn lanes_of(&self, state: &State, incident: &Incident) -> Vec<String> {
        let mut lanes = self.routes.of_incident(incident, &self.channels);
        if let Some(thread) = state.threads.get(&incident.id.0) {
            let earlier = thread.sent.keys().chain(thread.pending.keys());
            for lane in earlier.filter(|lane| self.channels.contains(lane)) {
                if !lanes.contains(lane) {
                    lanes.push(lane.clone());
                }
            }
        }
        lanes
    }

    /// Lanes that get notices.
    pub(super) fn notice_lanes(&self) -> Vec<String> {
        self.routes.of_notice(&self.channels)
    }

    /// Number of deliveries that are not finished, without held ones (see [`Self::held`]).
    pub fn waiting(&self) -> usize {
        self.inner().state.waiting()
    }

    /// Number of held deliveries: revocations that are capped, paused, stopped or refused, messages that their channel rejected,
    /// and messages to users beyond a limit.
    pub fn held(&self) -> usize {
        self.inner().state.held()
    }

    /// Number of journal lines that could not be read at the start.
    pub(crate) const fn damaged(&self) -> usize {
        self.damaged
    }

    /// Whether a file of damaged lines of this or an earlier start exists.
    pub(super) fn keeps_damage(&self) -> bool {
        matches!(self.folder.join(DAMAGED_FILE).try_exists(), Ok(true))
    }

    /// Whether an operator has paused all revocations.
    pub(crate) fn is_paused(&self) -> bool {
        // If the file cannot be checked, revocations count as paused.
        !matches!(self.folder.join(PAUSE_FILE).try_exists(), Ok(false))
    }

    /// For the end of the input: makes postponed messages due.
    pub(super) fn flush(&self) {
        let now = self.clock.now_millis();
        self.inner().state.flush(now);
        self.changed.send_replace(());
    }

    /// Whether messages about the incident were sent, or are to be sent, by this process.
    pub(crate) fn has_incident(&self, incident: IncidentId) -> bool {
        self.inner().state.threads.contains_key(&incident.0)
    }

    /// Incidents whose last message `lane` accepted, at most `max`, those with the latest changes first.
    pub(crate) fn incidents_of(&self, lane: &str, max: usize) -> Vec<IncidentId> {
        let inner = self.inner();
        let is_sent = |thread: &Thread| thread.sent.get(lane).is_some_and(|sent| !sent.is_withheld);
        let sent = inner.state.threads.iter().filter(|(_, thread)| is_sent(thread));
        let mut found: Vec<_> = sent.map(|(id, thread)| (thread.at, IncidentId(*id))).collect();
        found.sort_unstable_by_key(|(at, id)| (std::cmp::Reverse(*at), id.0));
        found.into_iter().take(max).map(|(_, id)| id).collect()
    }

    /// As [`port::Outbox::notify`], and also for the channels that have messages about the incident.
    pub(crate) fn notify_of(&self, key: &str, notice: Notice, incident: IncidentId) -> io::Result<()> {
        let mut lanes = self.notice_lanes();
        if let Some(thread) = self.inner().state.threads.get(&incident.0) {
            let have = thread.sent.keys().filter(|lane| self.channels.contains(lane) && !lanes.contains(lane));
            let have: Vec<_> = have.cloned().collect();
            lanes.extend(have);
        }
        self.notify_lanes(key, notice, lanes)
    }

    fn notify_lanes(&self, key: &str, notice: Notice, lanes: Vec<String>) -> io::Result<()> {
        let key = notice_key(key);
        let mut inner = self.inner();
        if inner.state.has(&key) {
            return Ok(());
        }
        if inner.state.waiting() >= OPEN_MAX + NOTICES_MAX {
            return Err(full());
        }
        // Logged once per key. Without a channel, the log line is the only report.
        if notice.handled().is_some() {
            tracing::info!("{}: {}", notice.title, notice.text);
        } else {
            tracing::error!("{}: {}", notice.title, notice.text);
        }
        let record = if lanes.is_empty() {
            Record::Known { key }
        } else {
            Record::Taken { key, at: notice.at, work: Work::Notice(notice), lanes }
        };
        inner.append(vec![record], self.clock.now_millis());
        drop(inner);
        self.changed.send_replace(());
        Ok(())
    }

    pub(super) fn append(&self, records: Vec<Record>) {
        self.inner().append(records, self.clock.now_millis());
        self.changed.send_replace(());
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        unpoisoned(&self.inner)
    }

    /// The next message of a channel, or the time when it is due.
    pub(super) fn next_message(&self, lane: &str) -> Next<Message> {
        let inner = self.inner();
        let state = &inner.state;
        let now = self.clock.now_millis();
        let digest_at = state.digests.get(lane).map(|digest| digest.due_at);
        if let Some(digest) = state.digests.get(lane).filter(|digest| digest.due_at <= now) {
            let what = What::Digest(Box::new(digest.clone()));
            return Next::Now(Box::new(Message { key: digest.key(lane), effect: Effect::default(), what }));
        }
        let item = match (state.first(lane), digest_at) {
            (None, None) => return Next::Nothing,
            (None, Some(at)) => return Next::At(at),
            (Some(Due { at, .. }), digest_at) if *at > now => {
                return Next::At(digest_at.map_or(*at, |digest| digest.min(*at)));
            }
            (Some(due), _) => &due.item,
        };
        let message = match item {
            Item::Thread(id) => report(state, *id, lane, now).and_then(|report| {
                let thread = state.threads.get(id)?;
                let effect = thread.pending.get(lane)?.clone();
                Some(Message { key: thread.key.clone(), effect, what: What::Report(Box::new(report)) })
            }),
            Item::Notice(key) => state.notices.get(key).and_then(|pending| {
                let effect = pending.lanes.get(lane)?.clone();
                Some(Message { key: key.clone(), effect, what: What::Notice(pending.notice.clone()) })
            }),
            Item::Revocation(_) => None,
        };
        message.map_or(Next::Nothing, |message| Next::Now(Box::new(message)))
    }

    /// The next revocation, or the time when it is due. Capped and paused revocations come first, in the order of their
    /// requests.
    pub(super) fn next_revocation(&self, caps: Caps<'_>) -> Next<ToRevoke> {
        let is_paused = self.is_paused();
        let mut inner = self.inner();
        let state = &inner.state;
        let now = self.clock.now_millis();
        let mut wake_at = i64::MAX;
        let mut found = None;
        if let Some((at, key)) = state.oldest_revocation() {
            wake_at = wake_at.min(at + REVOCATION_MS_MAX);
            found = (wake_at <= now).then(|| key.to_owned());
        }
        let is_expired = found.is_some();
        if let (None, Some(key)) = (&found, state.first_paused()) {
            wake_at = wake_at.min(now + PAUSE_LOOK_MS);
            found = (!is_paused).then(|| key.to_owned());
        }
        if found.is_none() && !is_paused {
            match state.first_capped(caps, now) {
                Ok(key) => found = Some(key),
                Err(room_at) => wake_at = wake_at.min(room_at),
            }
        }
        if found.is_none()
            && let Some((at, key)) = state.next_due(now, inner.turn)
        {
            wake_at = wake_at.min(at);
            found = (at <= now).then(|| key.to_owned());
        }
        let Some(key) = found else {
            return if wake_at == i64::MAX { Next::Nothing } else { Next::At(wake_at) };
        };
        let Some(asked) = state.revocations.get(&key) else { return Next::Nothing };
        let (name, incident, effect) = (asked.name.clone(), asked.incident.clone(), asked.effect.clone());
        inner.turn = Turn::after(&effect);
        Next::Now(Box::new(ToRevoke { key, name, incident, effect, is_paused, is_expired }))
    }
}

impl port::Outbox for Outbox {
    fn take(&self, incidents: &[Incident]) -> io::Result<()> {
        let now = self.clock.now_millis();
        let mut inner = self.inner();
        let mut records: Vec<Record> = Vec::new();
        let mut asked: HashSet<String> = HashSet::new();
        let mut keys: HashSet<String> = HashSet::new();
        for incident in incidents {
            let key = change_key(incident);
            if inner.state.has(&key) || !keys.insert(key.clone()) {
                continue;
            }
            let mut lanes = if incident.report { self.lanes_of(&inner.state, incident) } else { Vec::new() };
            if let Some(name) = revocation_key(incident).filter(|name| !asked.contains(name)) {
                let given_up = || {
                    // A revocation that was given up is requested again if the incident continues.
                    let settled = inner.state.settled(&name);
                    settled.is_none_or(|settled| matches!(settled.revocation, Revocation::Failed(_)))
                };
                match inner.state.open_revocation(&name) {
                    Some((key, open)) if open.effect.hold == Some(Hold::Refused) => {
                        records.push(Record::Nudged { key: key.clone(), at: now });
                    }
                    None if given_up() => lanes.push(REVOKE.to_owned()),
                    Some(_) | None => {}
                }
                asked.insert(name);
            }
            if !lanes.is_empty() {
                let work = Work::Incident(Box::new(incident.clone()));
                records.push(Record::Taken { key, at: now, work, lanes });
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        if inner.state.waiting() + records.len() > OPEN_MAX {
            return Err(full());
        }
        inner.append(records, now);
        drop(inner);
        self.changed.send_replace(());
        Ok(())
    }

    fn notify(&self, key: &str, notice: Notice) -> io::Result<()> {
        self.notify_lanes(key, notice, self.notice_lanes())
    }

    fn persist(&self) -> io::Result<()> {
        self.inner().persist(self.clock.now_millis())
    }
}

fn full() -> io::Error {
    let reason = format!("{OPEN_MAX} deliveries wait; repair the alert channels");
    io::Error::new(io::ErrorKind::QuotaExceeded, reason)
}

/// A notice's key is used in headers of mails and requests, so a key with other characters is hashed.
fn notice_key(key: &str) -> String {
    let is_plain = key.len() <= NOTICE_KEY_BYTES_MAX
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_plain { format!("notice-{key}") } else { format!("notice-{:016x}", xxh3_64(key.as_bytes())) }
}

impl Inner {
    /// Takes `records` over, and writes them to disk. If that is not possible, [`Self::persist`] writes them later.
    fn append(&mut self, records: Vec<Record>, now: i64) {
        if self.unwritten.is_none()
            && let Err(error) = self.journal.append(&records)
        {
            self.failed(error, now);
        }
        for record in records {
            self.state.apply(record);
        }
        if self.unwritten.is_none() && self.journal.bytes() > 2 * self.rewritten_bytes + GROWTH_BYTES_MAX {
            // The records are already on disk, so a failed rewrite does not fail the append.
            if let Err(error) = self.journal.rewrite(&self.state.records()) {
                tracing::warn!(%error, "the outbox file cannot be rewritten, so its size grows");
            }
            self.rewritten_bytes = self.journal.bytes();
        }
    }

    fn failed(&mut self, error: io::Error, now: i64) {
        let mut retries = self.unwritten.take().map_or(Retries::new(DISK_RETRY), |unwritten| unwritten.retries);
        retries.failed(now);
        self.unwritten = Some(Unwritten { retries, error });
    }

    /// Writes the whole state to disk.
    fn rewrite(&mut self, now: i64) {
        match self.journal.rewrite(&self.state.records()) {
            Ok(()) => {
                self.unwritten = None;
                self.rewritten_bytes = self.journal.bytes();
            }
            Err(error) => self.failed(error, now),
        }
    }

    /// As [`port::Outbox::persist`]. The state has all records, and its size is limited, so that the records that were not
    /// written need no queue of their own.
    fn persist(&mut self, now: i64) -> io::Result<()> {
        if self.unwritten.as_ref().is_some_and(|unwritten| unwritten.retries.is_due(now)) {
            self.rewrite(now);
        }
        match &self.unwritten {
            None => Ok(()),
            Some(Unwritten { error, .. }) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}
