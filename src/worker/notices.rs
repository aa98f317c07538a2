//! What people are told of the store and the spool.

use std::sync::Arc;

use super::backlog::Trouble;
use crate::port::{Notice, Outbox};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
/// An absence of the store that is over within this is reported in logs and metrics alone.
const ABSENT_MS: i64 = 5 * MINUTE_MS;
/// The same for a store that refuses rows: waiting is not expected to help.
const REFUSING_MS: i64 = MINUTE_MS;
/// How long the outbox is left alone when it did not take a notice.
const RETRY_MS: i64 = 10_000;

/// Sends each kind of notice once a day while its cause lasts.
pub(super) struct Notices {
    outbox: Option<Arc<dyn Outbox>>,
    store_day: Option<i64>,
    spool_day: Option<i64>,
    /// Not to be tried before this; wall clock.
    retry_at: i64,
}

/// What lasts at the moment.
pub(super) struct Outage {
    pub store: Option<Trouble>,
    pub spool: Option<Trouble>,
    pub spool_bytes: u64,
    pub spool_bytes_max: u64,
}

impl Notices {
    pub(super) const fn new(outbox: Option<Arc<dyn Outbox>>) -> Self {
        Self { outbox, store_day: None, spool_day: None, retry_at: 0 }
    }

    /// Reports what lasts and was not reported on the day of `now`, milliseconds since the epoch, wall clock.
    pub(super) fn report(&mut self, outage: &Outage, now: i64) {
        let Some(outbox) = &self.outbox else { return };
        if now < self.retry_at {
            return;
        }
        let day = Some(now / DAY_MS);
        if let Some(trouble) = outage.spool
            && self.spool_day != day
        {
            if outbox.notify(&format!("spool-{}", now / DAY_MS), spool_notice(outage, trouble, now)).is_err() {
                self.retry_at = now + RETRY_MS;
                return;
            }
            self.spool_day = day;
        }
        if let Some(trouble) = outage.store
            && now - trouble.since >= if trouble.is_permanent { REFUSING_MS } else { ABSENT_MS }
            && self.store_day != day
        {
            if outbox.notify(&format!("store-{}", now / DAY_MS), store_notice(outage, trouble, now)).is_err() {
                self.retry_at = now + RETRY_MS;
                return;
            }
            self.store_day = day;
        }
    }
}

fn store_notice(outage: &Outage, trouble: Trouble, now: i64) -> Notice {
    let minutes = (now - trouble.since) / MINUTE_MS;
    let (title, cause) = if trouble.is_permanent {
        ("ClickHouse refuses rows", "It rejects user, password, tables or types; the log has its reason.")
    } else {
        ("ClickHouse is unavailable", "It does not answer, or asks for another attempt; the log has the reason.")
    };
    let text = format!(
        "ClickHouse has taken no rows for {minutes} minutes. {cause} Detection, alerts and revocations go on. Rows wait in \
         memory and on disk ({} of {} bytes); once these are full, partitions pause and detection stops.",
        outage.spool_bytes, outage.spool_bytes_max
    );
    Notice { title: title.to_owned(), text, at: now }
}

fn spool_notice(outage: &Outage, trouble: Trouble, now: i64) -> Notice {
    let cause = if trouble.is_permanent {
        "The spool cannot be written to its disk; the log has the reason."
    } else {
        "The spool of rows for ClickHouse is full (store.spool_bytes_max)."
    };
    let text = format!(
        "{cause} It holds {} of {} bytes. Partitions are paused, so new events are not judged until ClickHouse takes rows \
         or the spool has room. No event is lost as long as Kafka keeps it.",
        outage.spool_bytes, outage.spool_bytes_max
    );
    Notice { title: "Detection is paused: rows cannot be stored".to_owned(), text, at: now }
}
