//! The outbox: incidents that are taken for good, and what each lane has to do next.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::journal::Journal;
use super::state::{Due, REVOKE, Record, State, Work, change_key, revocation_key};
use crate::port::{self, Clock, Notice, Notifier, Revocation};
use crate::verdict::Incident;

/// Changes that may wait. Beyond it the worker is told to wait: nothing is dropped.
const OPEN_MAX: usize = 20_000;
/// Notices that may wait beyond [`OPEN_MAX`], so that a full outbox can be reported.
const NOTICES_MAX: usize = 1_000;
/// A longer key of a notice is hashed.
const NOTICE_KEY_BYTES_MAX: usize = 100;
/// The journal is rewritten when it has grown by this much over twice its last size.
const GROWTH_BYTES_MAX: u64 = 8 << 20;
/// While this file is in the outbox's folder, nothing is revoked.
pub const PAUSE_FILE: &str = "pause-actions";

/// Incidents that wait to be told and acted upon, safe on disk.
pub struct Outbox {
    inner: Mutex<Inner>,
    folder: PathBuf,
    /// A lane for each channel and recipient.
    pub(super) channels: Vec<String>,
    clock: Arc<dyn Clock>,
    pub(super) changed: watch::Sender<()>,
}

#[derive(Debug)]
pub(super) struct Inner {
    journal: Journal,
    pub(super) state: State,
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

    pub(super) fn append(&self, records: Vec<Record>) -> io::Result<()> {
        self.inner().append(records)?;
        self.changed.send_replace(());
        Ok(())
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `lane` has to do next: now, or when.
    pub(super) fn next(&self, lane: &str) -> Next {
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

impl port::Outbox for Outbox {
    fn take(&self, incidents: &[Incident]) -> io::Result<()> {
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
            return Err(full());
        }
        inner.append(records)?;
        drop(inner);
        self.changed.send_replace(());
        Ok(())
    }

    fn notify(&self, key: &str, notice: Notice) -> io::Result<()> {
        let key = notice_key(key);
        let mut inner = self.inner();
        if inner.state.has(&key) {
            return Ok(());
        }
        if inner.state.open.len() >= OPEN_MAX + NOTICES_MAX {
            return Err(full());
        }
        // The log line is written once per key too. Without a channel it is all that there is.
        tracing::error!("{}: {}", notice.title, notice.text);
        let record = if self.channels.is_empty() {
            Record::Known { key }
        } else {
            Record::Taken { key, at: notice.at, work: Work::Notice(notice), lanes: self.channels.clone() }
        };
        inner.append(vec![record])?;
        drop(inner);
        self.changed.send_replace(());
        Ok(())
    }
}

fn full() -> io::Error {
    let reason = format!("{OPEN_MAX} changes of incidents wait to be delivered; bring the channels back");
    io::Error::new(io::ErrorKind::QuotaExceeded, reason)
}

/// The key of a notice stands in headers of mails and requests, so any other text is hashed.
fn notice_key(key: &str) -> String {
    let is_plain = key.len() <= NOTICE_KEY_BYTES_MAX
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_plain { format!("notice-{key}") } else { format!("notice-{:016x}", xxh3_64(key.as_bytes())) }
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

pub(super) enum Next {
    Now(Box<Task>),
    At(i64),
    Nothing,
}

/// One attempt at one effect.
pub(super) struct Task {
    pub(super) key: String,
    pub(super) work: Work,
    /// From 1.
    pub(super) attempt: u32,
    pub(super) called: bool,
    pub(super) revocation: Revocation,
}

pub(super) fn lane_of(notifier: &dyn Notifier) -> String {
    match notifier.name() {
        "email" => format!("email {}", notifier.target()),
        name => name.to_owned(),
    }
}
