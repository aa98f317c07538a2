//! What touches the outside: incidents are taken into an outbox on disk, and from there told and acted upon.
//!
//! Every effect is done at least once, with a key that stays the same: a crash between its success and our note of it
//! repeats it under the same key. Each channel, and the provider that revokes, has a lane of its own, so that one that
//! is down holds up no other. The store is told of every attempt when it can be; nothing waits for it.

mod journal;
mod state;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::xxh3_64;

use self::journal::Journal;
use self::state::{Due, REVOKE, Record, State, Work, change_key, revocation_key};
use crate::port::{
    ActionRow, Alert, Clock, DeliveryError, Notice, Notifier, Revocation, RevokeRequest, Revoked, Revoker, Rows as _,
    Store, StoreError,
};
use crate::telemetry::{Health, Metrics};
use crate::verdict::{Incident, Mode};

/// Changes that may wait. Beyond it the worker is told to wait: nothing is dropped.
const OPEN_MAX: usize = 20_000;
/// The journal is rewritten when it has grown by this much over twice its last size.
const GROWTH_BYTES_MAX: u64 = 8 << 20;
/// Some things are told once in so long.
const HOUR_MS: i64 = 3_600_000;
/// Rows written to the store at once.
const ROWS_MAX: usize = 1_000;
/// Rows that wait on a store that is down; beyond it, attempts that will be repeated get none.
const ROWS_WAITING_MAX: usize = 100_000;
/// While this file is in the outbox's folder, nothing is revoked.
pub const PAUSE_FILE: &str = "pause-actions";

/// How the deliverer goes about it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The ceiling over every incident's own mode.
    pub mode: Mode,
    pub revocations_per_hour_max: u32,
    /// Waiting times between two attempts double from the first to the second of these.
    pub retry_wait: (Duration, Duration),
    /// After so many failed attempts in a row no revocation is asked for during `breaker_wait`.
    pub breaker_failures: u32,
    pub breaker_wait: Duration,
    /// Rows are collected for this long before they are written.
    pub rows_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Shadow,
            revocations_per_hour_max: 20,
            retry_wait: (Duration::from_secs(2), Duration::from_secs(300)),
            breaker_failures: 5,
            breaker_wait: Duration::from_secs(120),
            rows_wait: Duration::from_secs(1),
        }
    }
}

/// Incidents that wait to be told and acted upon, safe on disk.
pub struct Outbox {
    inner: Mutex<Inner>,
    folder: PathBuf,
    /// A lane for each channel and recipient.
    channels: Vec<String>,
    clock: Arc<dyn Clock>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Inner {
    journal: Journal,
    state: State,
    rewritten_bytes: u64,
}

impl Outbox {
    /// Opens the outbox in `folder` for `notifiers`; one process at a time has it. What waits there goes on.
    pub fn open(folder: &Path, notifiers: &[Arc<dyn Notifier>], clock: Arc<dyn Clock>) -> io::Result<Self> {
        let (mut journal, records) = Journal::open(folder)?;
        let mut state = State::default();
        for record in records {
            state.apply(record);
        }
        journal.rewrite(&state.records())?;
        let rewritten_bytes = journal.bytes();
        let channels = notifiers.iter().map(|notifier| lane_of(&**notifier)).collect();
        let inner = Mutex::new(Inner { journal, state, rewritten_bytes });
        Ok(Self { inner, folder: folder.to_owned(), channels, clock, changed: watch::Sender::new(()) })
    }

    /// Takes incidents for good before it returns, all or none; those that it knows change nothing.
    pub fn take(&self, incidents: &[Incident]) -> io::Result<()> {
        let now = self.clock.now_millis();
        let mut inner = self.inner();
        let mut records: Vec<Record> = Vec::new();
        let mut asked: Vec<String> = Vec::new();
        let mut keys: Vec<String> = Vec::new();
        for incident in incidents {
            let key = change_key(incident);
            if inner.state.has(&key) || keys.contains(&key) {
                continue;
            }
            let mut lanes = if incident.tell { self.channels.clone() } else { Vec::new() };
            if let Some(revocation) = revocation_key(incident)
                && inner.state.revocation(incident).is_none()
                && !asked.contains(&revocation)
            {
                asked.push(revocation);
                lanes.push(REVOKE.to_owned());
            }
            if !lanes.is_empty() {
                keys.push(key.clone());
                let work = Work::Incident(Box::new(incident.clone()));
                records.push(Record::Taken { key, at: now, work, lanes });
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        if inner.state.open.len() + records.len() > OPEN_MAX {
            let said = format!("{OPEN_MAX} changes of incidents wait to be delivered; bring the channels back");
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, said));
        }
        inner.append(records)?;
        drop(inner);
        self.changed.send_replace(());
        Ok(())
    }

    /// Changes that are not done with.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner().state.open.len()
    }

    /// Whether somebody has stopped all revocations.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        // Where it cannot be told, nothing is revoked.
        !matches!(self.folder.join(PAUSE_FILE).try_exists(), Ok(false))
    }

    fn append(&self, records: Vec<Record>) -> io::Result<()> {
        self.inner().append(records)?;
        self.changed.send_replace(());
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `lane` has to do next: now, or when.
    fn next(&self, lane: &str) -> Next {
        let inner = self.inner();
        let Some(Due { at, key, .. }) = inner.state.lanes.get(lane).and_then(|due| due.first()) else {
            return Next::Nothing;
        };
        if *at > self.clock.now_millis() {
            return Next::At(*at);
        }
        let Some(change) = inner.state.open.get(key) else { return Next::Nothing };
        let effect = change.effects.get(lane);
        let revocation = match &change.work {
            Work::Incident(incident) => inner.state.revocation(incident).cloned().unwrap_or(Revocation::NotAsked),
            Work::Notice(_) => Revocation::NotAsked,
        };
        Next::Now(Box::new(Task {
            key: key.clone(),
            work: change.work.clone(),
            attempt: effect.map_or(0, |effect| effect.attempts) + 1,
            called: effect.is_some_and(|effect| effect.called),
            revocation,
        }))
    }
}

impl Inner {
    fn append(&mut self, records: Vec<Record>) -> io::Result<()> {
        self.journal.append(&records)?;
        for record in records {
            self.state.apply(record);
        }
        if self.journal.bytes() > 2 * self.rewritten_bytes + GROWTH_BYTES_MAX {
            // The records are taken; that the file stays long is no reason to take them again.
            if let Err(error) = self.journal.rewrite(&self.state.records()) {
                tracing::warn!(%error, "the outbox's file cannot be rewritten and goes on growing");
            }
            self.rewritten_bytes = self.journal.bytes();
        }
        Ok(())
    }
}

enum Next {
    Now(Box<Task>),
    At(i64),
    Nothing,
}

/// One attempt at one effect.
struct Task {
    key: String,
    work: Work,
    /// From 1.
    attempt: u32,
    called: bool,
    revocation: Revocation,
}

fn lane_of(notifier: &dyn Notifier) -> String {
    match notifier.name() {
        "email" => format!("email {}", notifier.target()),
        name => name.to_owned(),
    }
}

/// Works through an outbox until it is stopped.
pub struct Deliverer<S> {
    pub outbox: Arc<Outbox>,
    pub notifiers: Vec<Arc<dyn Notifier>>,
    pub revoker: Option<Arc<dyn Revoker>>,
    pub store: Arc<S>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub settings: Settings,
}

/// A deliverer at work.
pub struct Running {
    outbox: Arc<Outbox>,
    stop: watch::Sender<bool>,
    lanes: Vec<JoinHandle<()>>,
}

impl Running {
    /// Lets what is under way end, for at most `wait`; the rest stays on disk.
    pub async fn stop(mut self, wait: Duration) {
        self.stop.send_replace(true);
        let all = async {
            for lane in &mut self.lanes {
                let _ = lane.await;
            }
        };
        if tokio::time::timeout(wait, all).await.is_err() {
            self.lanes.iter().for_each(JoinHandle::abort);
        }
    }

    /// Waits until nothing waits any more, at most for `patience`; returns the changes that are left.
    pub async fn settle(&self, patience: Duration) -> usize {
        let done = async {
            while self.outbox.waiting() > 0 || !self.outbox.inner().state.rows.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(patience, done).await;
        self.outbox.waiting()
    }
}

impl<S: Store + 'static> Deliverer<S>
where
    S::Rows: 'static,
{
    /// Starts a lane for each channel, one for revocations and one for the store's rows.
    pub fn start(self, runtime: &Handle) -> Running {
        let outbox = Arc::clone(&self.outbox);
        let stop = watch::Sender::new(false);
        let this = Arc::new(self);
        let mut lanes = Vec::new();
        for notifier in &this.notifiers {
            let (this, notifier, stop) = (Arc::clone(&this), Arc::clone(notifier), stop.subscribe());
            lanes.push(runtime.spawn(async move { this.tell_all(&*notifier, stop).await }));
        }
        let (revoking, revoke_stop) = (Arc::clone(&this), stop.subscribe());
        lanes.push(runtime.spawn(async move { revoking.revoke_all(revoke_stop).await }));
        let store_stop = stop.subscribe();
        lanes.push(runtime.spawn(async move {
            this.end_orphans();
            this.write_all(store_stop).await;
        }));
        Running { outbox, stop, lanes }
    }

    async fn tell_all(&self, notifier: &dyn Notifier, mut stop: watch::Receiver<bool>) {
        let lane = lane_of(notifier);
        let mut changed = self.outbox.changed.subscribe();
        let mut trouble = Trouble::default();
        while let Some(task) = self.next_task(&lane, &mut changed, &mut stop).await {
            let alert = match &task.work {
                Work::Incident(incident) => Alert::Incident { incident, revocation: &task.revocation },
                Work::Notice(notice) => Alert::Notice(notice),
            };
            let began = self.clock.now_millis();
            let told = notifier.notify(alert, &task.key).await;
            let (outcome, status, reason) = match &told {
                Ok(status) => ("done", *status, String::new()),
                Err(DeliveryError::Retriable { reason, status, .. }) => ("retry", *status, reason.clone()),
                Err(DeliveryError::Permanent { reason, status }) => ("failed", *status, reason.clone()),
            };
            self.metrics.delivered(notifier.name(), outcome);
            let row = self.row(&task, &format!("{}/{lane}", task.key), began, outcome, status, reason.clone());
            let row = ActionRow { kind: format!("alert_{}", notifier.name()), target: notifier.target(), ..row };
            let ended = || Record::Ended {
                key: task.key.clone(),
                lane: lane.clone(),
                revocation: None,
                row: Some(row.clone()),
            };
            match told {
                Ok(_) => {
                    trouble.over(&lane);
                    self.record(vec![ended()], &stop).await;
                }
                Err(DeliveryError::Retriable { retry_after, .. }) => {
                    trouble.again(&lane, &reason);
                    let due_at = self.due_at(task.attempt, retry_after);
                    let (key, lane) = (task.key.clone(), lane.clone());
                    self.record(
                        vec![Record::Tried {
                            key,
                            lane,
                            attempt: task.attempt,
                            due_at,
                            revocation: None,
                            row: Some(row),
                        }],
                        &stop,
                    )
                    .await;
                    self.pause(self.wait(trouble.count, retry_after), &mut stop).await;
                }
                Err(DeliveryError::Permanent { .. }) => {
                    tracing::error!(channel = lane, alert = task.key, reason, "an alert is given up");
                    let mut records = vec![ended()];
                    if matches!(task.work, Work::Incident(_)) {
                        records.extend(self.silent_channel_notice(&lane, &reason, began));
                    }
                    self.record(records, &stop).await;
                }
            }
        }
    }

    async fn revoke_all(&self, mut stop: watch::Receiver<bool>) {
        let mut changed = self.outbox.changed.subscribe();
        let mut trouble = Trouble::default();
        let mut breaker_open = false;
        while let Some(task) = self.next_task(REVOKE, &mut changed, &mut stop).await {
            let Work::Incident(incident) = &task.work else { return };
            let (Some(target), Some(key)) = (&incident.revoke, revocation_key(incident)) else { return };
            let now = self.clock.now_millis();
            if let Some(refusal) = self.refusal(&task, incident, now) {
                let row = self.row(&task, &key, now, word(&refusal), 0, said(&refusal));
                let row = revocation_row(row, incident);
                self.metrics.revoked(word(&refusal));
                let mut records = vec![ended(&task, refusal.clone(), row)];
                if let Revocation::Capped(cap) = refusal {
                    records.extend(self.capped_notice(cap, now));
                }
                self.record(records, &stop).await;
                continue;
            }
            let Some(revoker) = &self.revoker else { return };
            if !task.called {
                self.record(vec![Record::Called { key: task.key.clone(), at: now }], &stop).await;
            }
            let asked = RevokeRequest {
                target,
                tenant_id: &incident.tenant_id,
                user_id: &incident.user_id,
                app_id: &incident.app_id,
                family_id: &incident.family_id,
                token_id: &incident.token_id,
                reason: &incident.reason,
                key: &key,
            };
            let answer = revoker.revoke(asked).await;
            let (outcome, status, reason, state) = match &answer {
                Ok(Revoked::Done { status }) => ("done", *status, incident.reason.clone(), Revocation::Done),
                Ok(Revoked::AlreadyGone { status }) => {
                    ("already_gone", *status, incident.reason.clone(), Revocation::AlreadyGone)
                }
                Err(DeliveryError::Retriable { reason, status, .. }) => {
                    ("retry", *status, reason.clone(), Revocation::Waiting(reason.clone()))
                }
                Err(DeliveryError::Permanent { reason, status }) => {
                    ("failed", *status, reason.clone(), Revocation::Failed(reason.clone()))
                }
            };
            self.metrics.revoked(outcome);
            let row = revocation_row(self.row(&task, &key, now, outcome, status, reason.clone()), incident);
            let mut records = Vec::new();
            let mut wait = None;
            match answer {
                Ok(_) => {
                    trouble.over(REVOKE);
                    breaker_open = false;
                    records.push(ended(&task, state, row));
                }
                Err(DeliveryError::Permanent { .. }) => {
                    tracing::error!(revocation = key, reason, "a revocation is given up");
                    if speaks_of_provider(status) {
                        trouble.count += 1;
                    }
                    records.push(ended(&task, state, row));
                }
                Err(DeliveryError::Retriable { retry_after, .. }) => {
                    trouble.again(REVOKE, &reason);
                    let due_at = self.due_at(task.attempt, retry_after);
                    let (key, lane) = (task.key.clone(), REVOKE.to_owned());
                    records.push(Record::Tried {
                        key,
                        lane,
                        attempt: task.attempt,
                        due_at,
                        revocation: Some(state),
                        row: Some(row),
                    });
                    wait = retry_after;
                }
            }
            if task.attempt > 1 && matches!(records.first(), Some(Record::Ended { .. })) {
                // People were told that it was being tried again; now they are told how it ended.
                let key = format!("{}-ended", task.key);
                let (work, lanes) = (task.work.clone(), self.outbox.channels.clone());
                records.push(Record::Taken { key, at: now, work, lanes });
            }
            if trouble.count >= self.settings.breaker_failures {
                if !breaker_open {
                    breaker_open = true;
                    records.extend(self.breaker_notice(&reason, now));
                }
                wait = Some(wait.unwrap_or_default().max(self.settings.breaker_wait));
            }
            self.metrics.breaker(breaker_open);
            self.record(records, &stop).await;
            if let Some(wait) = wait {
                self.pause(wait, &mut stop).await;
            }
        }
    }

    /// Why the revocation is not asked for at all, if it is not.
    fn refusal(&self, task: &Task, incident: &Incident, now: i64) -> Option<Revocation> {
        let paused = self.outbox.is_paused();
        self.metrics.paused(paused);
        match incident.mode.min(self.settings.mode) {
            Mode::Shadow => return Some(Revocation::Shadow),
            Mode::Alert => return Some(Revocation::Proposed),
            Mode::Enforce => {}
        }
        if paused {
            return Some(Revocation::Paused);
        }
        match (&self.revoker, &incident.revoke) {
            (Some(revoker), Some(target)) if revoker.accepts(target) => {}
            (Some(_), Some(target)) => {
                return Some(Revocation::Failed(format!(
                    "its provider is not configured to revoke a {}",
                    target.kind()
                )));
            }
            _ => return Some(Revocation::Failed("no [revoke.http] is configured".to_owned())),
        }
        let cap = self.settings.revocations_per_hour_max;
        let made = self.outbox.inner().state.calls_within_hour(now);
        (!task.called && made >= cap as usize).then_some(Revocation::Capped(cap))
    }

    /// Whom `lane` would have told does not know of it; those of the other channels can tell them. Once an hour at most.
    fn silent_channel_notice(&self, lane: &str, reason: &str, now: i64) -> Option<Record> {
        let others: Vec<_> = self.outbox.channels.iter().filter(|channel| *channel != lane).cloned().collect();
        let text = format!(
            "{lane} does not take alerts, the last because {reason}. They are given up there; the other channels have \
             them. Look in `actions` for what was missed, and mend the channel."
        );
        let key = format!("silent-{:016x}-{}", xxh3_64(lane.as_bytes()), now / HOUR_MS);
        self.notice(key, "a channel does not take alerts", text, now, others)
    }

    /// Once an hour at most: its key is that of the hour.
    fn capped_notice(&self, cap: u32, now: i64) -> Option<Record> {
        let text = format!(
            "{cap} revocations were asked for within an hour, which is revoke.max_per_hour. Until there are fewer, \
             incidents are only told: look whether this is an attack or a mistake, and revoke by hand."
        );
        self.notice(
            format!("capped-{}", now / HOUR_MS),
            "the cap on revocations is reached",
            text,
            now,
            self.outbox.channels.clone(),
        )
    }

    fn breaker_notice(&self, reason: &str, now: i64) -> Option<Record> {
        let text = format!(
            "{} attempts to revoke failed in a row, the last because {reason}. Revocations wait and are tried again, \
             one at a time; until one succeeds, revoke by hand.",
            self.settings.breaker_failures
        );
        self.notice(format!("breaker-{now}"), "the provider does not revoke", text, now, self.outbox.channels.clone())
    }

    fn notice(&self, key: String, title: &str, text: String, now: i64, lanes: Vec<String>) -> Option<Record> {
        tracing::error!("{title}: {text}");
        if lanes.is_empty() || self.outbox.inner().state.has(&key) {
            return None;
        }
        let work = Work::Notice(Notice { title: title.to_owned(), text, at: now });
        Some(Record::Taken { key, at: now, work, lanes })
    }

    fn row(
        &self,
        task: &Task,
        action_id: &str,
        began: i64,
        outcome: &str,
        http_status: u16,
        reason: String,
    ) -> ActionRow {
        let (incident_id, mode) = match &task.work {
            Work::Incident(incident) => (incident.id.to_string(), incident.mode.min(self.settings.mode)),
            Work::Notice(_) => (String::new(), self.settings.mode),
        };
        ActionRow {
            action_id: action_id.to_owned(),
            incident_id,
            requested_at: began,
            kind: String::new(),
            target: String::new(),
            mode,
            attempt: task.attempt,
            outcome: outcome.to_owned(),
            http_status,
            latency_ms: u32::try_from(self.clock.now_millis() - began).unwrap_or(0),
            requested_by: "tokenwarden".to_owned(),
            reason,
        }
    }

    /// What waits for a channel that is configured no more is given up, and the trail says so.
    fn end_orphans(&self) {
        let mut records = Vec::new();
        for (key, change) in &self.outbox.inner().state.open {
            for lane in change.effects.keys().filter(|lane| *lane != REVOKE && !self.outbox.channels.contains(lane)) {
                tracing::warn!(channel = lane, alert = key, "an alert is given up: its channel is configured no more");
                let task = Task {
                    key: key.clone(),
                    work: change.work.clone(),
                    attempt: 1,
                    called: false,
                    revocation: Revocation::NotAsked,
                };
                let reason = "the channel is configured no more".to_owned();
                let row = self.row(&task, &format!("{key}/{lane}"), self.clock.now_millis(), "failed", 0, reason);
                let (name, target) = lane.split_once(' ').unwrap_or((lane, ""));
                let row = ActionRow { kind: format!("alert_{name}"), target: target.to_owned(), ..row };
                let (key, lane) = (key.clone(), lane.clone());
                records.push(Record::Ended { key, lane, revocation: None, row: Some(row) });
            }
        }
        if records.is_empty() {
            return;
        }
        if let Err(error) = self.outbox.append(records) {
            tracing::error!(%error, "the outbox cannot be written");
        }
    }

    /// Brings the waiting rows to the store, for as long as it takes.
    async fn write_all(&self, mut stop: watch::Receiver<bool>) {
        let mut changed = self.outbox.changed.subscribe();
        let mut failures = 0;
        loop {
            changed.borrow_and_update();
            let waiting: Vec<ActionRow> = self.outbox.inner().state.rows.iter().take(ROWS_MAX).cloned().collect();
            let stopped = *stop.borrow();
            if waiting.is_empty() {
                if stopped {
                    return;
                }
                tokio::select! {
                    _ = changed.changed() => self.pause(self.settings.rows_wait, &mut stop).await,
                    _ = stop.changed() => {}
                }
                continue;
            }
            let mut rows = self.store.new_rows();
            for row in &waiting {
                rows.push_action(row);
            }
            match self.store.write(&rows).await {
                Ok(()) => {
                    failures = 0;
                    self.record(vec![Record::Written { rows: waiting.len() }], &stop).await;
                }
                Err(error) => {
                    failures += 1;
                    match error {
                        StoreError::Retriable(reason) => tracing::warn!(reason, "what was done waits for the store"),
                        StoreError::Permanent(reason) => tracing::error!(reason, "what was done waits for the store"),
                    }
                    if stopped {
                        return;
                    }
                    self.pause(self.wait(failures, None), &mut stop).await;
                }
            }
        }
    }

    /// The lane's next task when it is due; `None` once it is to stop.
    async fn next_task(
        &self,
        lane: &str,
        changed: &mut watch::Receiver<()>,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<Task> {
        loop {
            if *stop.borrow_and_update() {
                return None;
            }
            changed.borrow_and_update();
            let wait = match self.outbox.next(lane) {
                Next::Now(task) => return Some(*task),
                Next::At(at) => Duration::from_millis(u64::try_from(at - self.clock.now_millis()).unwrap_or(0)),
                Next::Nothing => Duration::from_secs(3_600),
            };
            tokio::select! {
                _ = changed.changed() => {}
                _ = stop.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Notes what was done. While the disk does not take it, the lane waits: to go on would be to forget it.
    async fn record(&self, mut records: Vec<Record>, stop: &watch::Receiver<bool>) {
        if self.outbox.inner().state.rows.len() > ROWS_WAITING_MAX {
            for record in &mut records {
                if let Record::Tried { row, .. } = record {
                    *row = None;
                }
            }
        }
        loop {
            match self.outbox.append(records.clone()) {
                Ok(()) => {
                    self.health.outbox_failing(false);
                    self.metrics.waiting(self.outbox.waiting());
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "the outbox cannot be written; trying again");
                    self.health.outbox_failing(true);
                }
            }
            if *stop.borrow() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn due_at(&self, attempt: u32, retry_after: Option<Duration>) -> i64 {
        self.clock.now_millis() + self.wait(attempt, retry_after).as_millis() as i64
    }

    /// How long to wait after so many failures.
    fn wait(&self, failures: u32, retry_after: Option<Duration>) -> Duration {
        let (first, last) = self.settings.retry_wait;
        let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(last);
        doubled.max(retry_after.unwrap_or_default())
    }

    async fn pause(&self, wait: Duration, stop: &mut watch::Receiver<bool>) {
        if !*stop.borrow() {
            let _ = tokio::time::timeout(wait, stop.changed()).await;
        }
    }
}

/// A lane's failures in a row, told once as long as they have one reason.
#[derive(Default)]
struct Trouble {
    count: u32,
    reason: String,
}

impl Trouble {
    fn again(&mut self, lane: &str, reason: &str) {
        self.count += 1;
        if self.reason != reason {
            reason.clone_into(&mut self.reason);
            tracing::error!(lane, reason, "it will be tried again");
        }
    }

    fn over(&mut self, lane: &str) {
        if self.count > 0 {
            tracing::info!(lane, failures = self.count, "it works again");
        }
        *self = Self::default();
    }
}

fn ended(task: &Task, revocation: Revocation, row: ActionRow) -> Record {
    Record::Ended { key: task.key.clone(), lane: REVOKE.to_owned(), revocation: Some(revocation), row: Some(row) }
}

fn revocation_row(row: ActionRow, incident: &Incident) -> ActionRow {
    let Some(target) = &incident.revoke else { return row };
    ActionRow { kind: target.action().as_str().to_owned(), target: target.id().to_owned(), ..row }
}

/// Whether a revocation given up with this status tells of the provider, or our way to it, and not of the one target: a
/// refused credential, an address that is not there. 0: the request could not even be written for this target.
const fn speaks_of_provider(status: u16) -> bool {
    !matches!(status, 0 | 400 | 409 | 422)
}

/// The outcome in the audit trail.
const fn word(revocation: &Revocation) -> &'static str {
    match revocation {
        Revocation::NotAsked | Revocation::Shadow => "shadow",
        Revocation::Proposed => "proposed",
        Revocation::Waiting(_) => "retry",
        Revocation::Done => "done",
        Revocation::AlreadyGone => "already_gone",
        Revocation::Capped(_) => "capped",
        Revocation::Paused => "paused",
        Revocation::Failed(_) => "failed",
    }
}

fn said(revocation: &Revocation) -> String {
    match revocation {
        Revocation::Failed(reason) | Revocation::Waiting(reason) => reason.clone(),
        Revocation::Capped(cap) => format!("{cap} revocations were made within the hour"),
        Revocation::Paused => format!("the file {PAUSE_FILE} stops all revocations"),
        _ => String::new(),
    }
}
