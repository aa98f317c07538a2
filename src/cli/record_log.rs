//! The logs that every member reads as a whole, as the configuration defines them: a topic if the source is Kafka,
//! otherwise a file in the outbox folder.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::failure::Failure;
use crate::config::Config;
use crate::lock::unpoisoned;
use crate::port::{LogRecord, RecordLog, RecordObserver};
use crate::record_file::RecordFile;
use crate::source::kafka::{Finding, Level, RecordTopic};

/// Time limit for reading the whole log.
const READ_WAIT: Duration = Duration::from_secs(30);
const READ_LOOK: Duration = Duration::from_millis(20);

/// Opens the log.
pub(super) fn open<R: LogRecord>(config: &Config) -> Result<Arc<dyn RecordLog<R>>, Failure> {
    if let Some(kafka) = &config.source.kafka {
        return Ok(Arc::new(RecordTopic::<R>::new(kafka)?));
    }
    Ok(Arc::new(open_file::<R>(config)?))
}

/// Creates the topic or file if it does not exist. Removes old records of a file. `now`: milliseconds since the epoch.
pub(super) fn prepare<R: LogRecord>(config: &Config, now: i64) -> Result<(), Failure> {
    let Some(kafka) = &config.source.kafka else {
        let file = open_file::<R>(config)?;
        return match file.compact(now) {
            // A full disk does not prevent the start.
            Err(error) if file.exists() => {
                tracing::error!(%error, file = R::NAME, "old records of a file cannot be removed, so its size stays");
                Ok(())
            }
            compacted => compacted.map_err(|error| unwritable::<R>(config, &error)),
        };
    };
    RecordTopic::<R>::ensure(kafka)?;
    let Finding { level, topic, text, .. } = RecordTopic::<R>::check(kafka)?;
    if level != Level::Ok {
        tracing::warn!(topic, "{text}");
    }
    Ok(())
}

fn open_file<R: LogRecord>(config: &Config) -> Result<RecordFile<R>, Failure> {
    RecordFile::open(&config.outbox.dir).map_err(|error| unwritable::<R>(config, &error))
}

fn unwritable<R: LogRecord>(config: &Config, error: &std::io::Error) -> Failure {
    let (name, dir) = (R::NAME, config.outbox.dir.display());
    Failure::Unavailable(format!("cannot write {name}.ndjson in {dir} (outbox.dir): {error}"))
}

/// The records of a log.
struct Collected<R> {
    records: Mutex<Vec<R>>,
    is_complete: AtomicBool,
}

impl<R: LogRecord> RecordObserver<R> for Collected<R> {
    fn record(&self, record: R) {
        unpoisoned(&self.records).push(record);
    }

    fn removed(&self, key: R::Key) {
        unpoisoned(&self.records).retain(|record| *record.key() != key);
    }

    fn all_read(&self) {
        self.is_complete.store(true, Ordering::Release);
    }

    fn read_failed(&self) {}

    fn read_succeeded(&self) {}
}

/// All records, in order. A later one replaces an earlier one with the same key.
pub(super) fn read_all<R: LogRecord>(log: &dyn RecordLog<R>) -> Result<Vec<R>, Failure> {
    let collected = Arc::new(Collected { records: Mutex::default(), is_complete: AtomicBool::new(false) });
    log.follow(Arc::clone(&collected) as Arc<dyn RecordObserver<R>>);
    let mut waited = Duration::ZERO;
    while !collected.is_complete.load(Ordering::Acquire) {
        if waited >= READ_WAIT {
            let reason = format!("the {} cannot be read within {} s", R::NAME, READ_WAIT.as_secs());
            return Err(Failure::Unavailable(reason));
        }
        std::thread::sleep(READ_LOOK);
        waited += READ_LOOK;
    }
    Ok(std::mem::take(&mut *unpoisoned(&collected.records)))
}
