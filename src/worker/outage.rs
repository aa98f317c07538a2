//! Lasting failures of the store, the spool and the disk of the outbox.

use crate::millis::MINUTE_MS;

/// Interval at which lasting trouble is logged.
const REPORT_EVERY_MS: i64 = MINUTE_MS;

/// Current trouble of store, spool and outbox.
pub(super) struct Outage {
    /// The outbox cannot be written to disk.
    pub(crate) outbox: Option<Trouble>,
    pub(crate) store: Option<Trouble>,
    pub(crate) spool: Option<Trouble>,
    pub(crate) spool_bytes: u64,
    pub(crate) spool_bytes_max: u64,
}

/// A failure that lasts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    /// Time of the first failure, milliseconds since the epoch, wall clock.
    pub(crate) since: i64,
    /// Retries are not expected to succeed before an operator acts.
    pub(crate) is_permanent: bool,
    reported_at: i64,
}

impl Trouble {
    /// Records a failure in `trouble`. Returns whether it is due to be reported.
    pub(super) fn note(trouble: &mut Option<Self>, is_permanent: bool, now: i64) -> bool {
        let since = trouble.map_or(now, |known| known.since);
        let is_news = trouble
            .is_none_or(|known| known.is_permanent != is_permanent || now - known.reported_at >= REPORT_EVERY_MS);
        if is_news {
            *trouble = Some(Self { since, is_permanent, reported_at: now });
        }
        is_news
    }
}
