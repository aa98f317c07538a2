//! The active silences of all members.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::lock::unpoisoned;
use crate::port::{
    Clock, RecordLog, RecordObserver, Silence, SilenceId, SilenceLimits, SilenceRecord, SilenceState, Unsent,
};
use crate::verdict::Incident;

/// Maximum number of active silences. Further ones have no effect.
const ACTIVE_MAX: usize = 10_000;
/// Maximum time that alerts wait at the start for the silences to be read.
const READ_WAIT: Duration = Duration::from_secs(10);

/// The silences, which follow their log.
pub struct Silences {
    log: Arc<dyn RecordLog<SilenceRecord>>,
    clock: Arc<dyn Clock>,
    limits: SilenceLimits,
    /// Without those that have been ended by a person.
    active: Mutex<BTreeMap<SilenceId, Silence>>,
    is_complete: watch::Sender<bool>,
    is_unreadable: AtomicBool,
    /// Number of records without effect since the start.
    refused: AtomicU64,
}

impl Silences {
    /// Reads the silences of `log`, and new ones until the caller drops it.
    pub fn follow(log: Arc<dyn RecordLog<SilenceRecord>>, clock: Arc<dyn Clock>, limits: SilenceLimits) -> Arc<Self> {
        let silences = Arc::new(Self {
            log,
            clock,
            limits,
            active: Mutex::default(),
            is_complete: watch::Sender::new(false),
            is_unreadable: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        });
        silences.log.follow(Arc::clone(&silences) as Arc<dyn RecordObserver<SilenceRecord>>);
        silences
    }

    /// The first silence that is active at `now` and withholds a message about `incident`.
    pub(super) fn of(&self, incident: &Incident, unsent: &Unsent, now: i64) -> Option<SilenceId> {
        let active = unpoisoned(&self.active);
        let mut silences = active.iter().filter(|(_, silence)| silence.until > now);
        silences.find(|(_, silence)| silence.withholds(incident, unsent)).map(|(id, _)| *id)
    }

    pub(super) fn is_active(&self, id: SilenceId, now: i64) -> bool {
        unpoisoned(&self.active).get(&id).is_some_and(|silence| silence.until > now)
    }

    /// Whether the silences that existed at the start are read.
    pub(super) fn is_complete(&self) -> bool {
        *self.is_complete.borrow()
    }

    pub(super) fn is_unreadable(&self) -> bool {
        self.is_unreadable.load(Ordering::Relaxed)
    }

    /// Number of silences that are active at `now`.
    pub(super) fn count(&self, now: i64) -> usize {
        unpoisoned(&self.active).values().filter(|silence| silence.until > now).count()
    }

    /// Number of records that have had no effect since the start, because the command would refuse them.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn refuse(&self, silence: SilenceId, problem: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%silence, problem, "a silence has no effect; check who can write to the log of silences");
    }

    /// Appends a record to the log.
    pub(super) async fn append(&self, record: SilenceRecord) -> Result<(), String> {
        self.log.append(record).await
    }

    /// Waits until the silences that existed at the start are read, and for a limited time: alerts are not lost if the log
    /// cannot be read.
    pub(super) async fn read(&self, clock: &dyn Clock) {
        let mut complete = self.is_complete.subscribe();
        let waited = tokio::select! {
            read = complete.wait_for(|complete| *complete) => read.is_ok(),
            () = clock.sleep(READ_WAIT) => false,
        };
        if !waited {
            tracing::error!("the silences are not read yet; alerts are sent without them");
        }
    }
}

impl RecordObserver<SilenceRecord> for Silences {
    fn record(&self, SilenceRecord { key, state }: SilenceRecord) {
        let now = self.clock.now_millis();
        let mut active = unpoisoned(&self.active);
        active.retain(|_, silence| silence.until > now);
        let problem = match &state {
            SilenceState::Withheld(_) => return,
            _ if !key.member.is_empty() => Some("it has the name of a member".to_owned()),
            // A silence that has ended needs no check, and the configuration may have changed since.
            SilenceState::Added(silence) if silence.until > now => {
                silence.check(self.limits, now).err().map(|problem| problem.to_string())
            }
            SilenceState::Added(_) | SilenceState::Expired { .. } => None,
        };
        if let Some(problem) = problem {
            return self.refuse(key.silence, &problem);
        }
        match state {
            SilenceState::Added(silence) if silence.until > now => {
                if active.len() < ACTIVE_MAX || active.contains_key(&key.silence) {
                    active.insert(key.silence, silence);
                } else {
                    tracing::error!(silence = %key.silence, "too many silences are active; this one has no effect");
                }
            }
            _ => _ = active.remove(&key.silence),
        }
    }

    fn all_read(&self) {
        self.is_complete.send_if_modified(|complete| !std::mem::replace(complete, true));
    }

    fn read_failed(&self) {
        self.is_unreadable.store(true, Ordering::Relaxed);
    }

    fn read_succeeded(&self) {
        self.is_unreadable.store(false, Ordering::Relaxed);
    }
}
