//! Notices about the store, the spool, the disk of the outbox and the alert budget.

use std::sync::Arc;
use std::time::Duration;

use super::outage::{Outage, Trouble};
use super::withheld::WithheldNotice;
use crate::millis::{DAY_MS, MINUTE_MS};
use crate::port::{Notice, Outbox};
use crate::retry::{Retries, RetryPolicy};
use crate::tally::Withheld;

/// A shorter outage of the store is reported only in logs and metrics.
const ABSENT_MS: i64 = 5 * MINUTE_MS;
/// The same for a store that rejects rows, where waiting does not help.
const REFUSING_MS: i64 = MINUTE_MS;
/// Notices that the outbox did not accept.
const RETRY: RetryPolicy = RetryPolicy::every(Duration::from_secs(10));

/// Sends each kind of notice once a day while its cause lasts.
pub(super) struct Notices {
    outbox: Option<Arc<dyn Outbox>>,
    store_day: Option<i64>,
    spool_day: Option<i64>,
    outbox_day: Option<i64>,
    withheld: WithheldNotice,
    retries: Retries,
}

impl Notices {
    pub(super) fn new(outbox: Option<Arc<dyn Outbox>>) -> Self {
        Self {
            outbox,
            store_day: None,
            spool_day: None,
            outbox_day: None,
            withheld: WithheldNotice::new("withheld"),
            retries: Retries::new(RETRY),
        }
    }

    /// Adds withheld alerts to the next notice.
    pub(super) fn withheld(&mut self, withheld: Withheld, now: i64) {
        self.withheld.add(withheld, now);
    }

    /// Reports withheld alerts now, also at the end of a run.
    pub(super) fn report_withheld(&mut self, now: i64) {
        if let Some(outbox) = &self.outbox
            && self.withheld.send(&**outbox, now).is_err()
        {
            self.retries.failed(now);
        }
    }

    /// Reports trouble that was not reported on the day of `now`, milliseconds since the epoch, wall clock.
    pub(super) fn report(&mut self, outage: &Outage, now: i64) {
        if !self.retries.is_due(now) {
            return;
        }
        let day = Some(now / DAY_MS);
        if self.withheld.is_due(now) {
            self.report_withheld(now);
        }
        let Some(outbox) = &self.outbox else { return };
        if outage.outbox.is_some() && self.outbox_day != day {
            if outbox.notify(&format!("outbox-disk-{}", now / DAY_MS), outbox_notice(now)).is_err() {
                self.retries.failed(now);
                return;
            }
            self.outbox_day = day;
        }
        if let Some(trouble) = outage.spool
            && self.spool_day != day
        {
            if outbox.notify(&format!("spool-{}", now / DAY_MS), spool_notice(outage, trouble, now)).is_err() {
                self.retries.failed(now);
                return;
            }
            self.spool_day = day;
        }
        if let Some(trouble) = outage.store
            && now - trouble.since >= if trouble.is_permanent { REFUSING_MS } else { ABSENT_MS }
            && self.store_day != day
        {
            if outbox.notify(&format!("store-{}", now / DAY_MS), store_notice(outage, trouble, now)).is_err() {
                self.retries.failed(now);
                return;
            }
            self.store_day = day;
        }
    }
}

fn outbox_notice(now: i64) -> Notice {
    let text = "Alerts and revocations continue from memory, and rows are stored. No offset is committed. If the process \
                ends, the next one reads the messages again and repeats deliveries. Repeated revocations have the same \
                keys. Make room on the disk of outbox.dir. The log has the reason.";
    let title = "The outbox cannot be written to disk";
    Notice { title: title.to_owned(), text: text.to_owned(), at: now, about: None }
}

fn store_notice(outage: &Outage, trouble: Trouble, now: i64) -> Notice {
    let minutes = (now - trouble.since) / MINUTE_MS;
    let (title, cause) = if trouble.is_permanent {
        ("ClickHouse rejects rows", "It rejects the user, password, tables or types. The log has the reason.")
    } else {
        ("ClickHouse is unavailable", "It does not respond, or requests a retry. The log has the reason.")
    };
    let text = format!(
        "ClickHouse has accepted no rows for {minutes} minutes. {cause} Detection, alerts and revocations continue. Rows \
         wait in memory and on disk ({} of {} bytes). When both are full, partitions are paused and detection stops.",
        outage.spool_bytes, outage.spool_bytes_max
    );
    Notice { title: title.to_owned(), text, at: now, about: None }
}

fn spool_notice(outage: &Outage, trouble: Trouble, now: i64) -> Notice {
    let cause = if trouble.is_permanent {
        "The spool cannot be written to disk. The log has the reason."
    } else {
        "The spool of rows for ClickHouse is full (store.spool_bytes_max)."
    };
    let text = format!(
        "{cause} It contains {} of {} bytes. Partitions are paused: new events are not scored until ClickHouse accepts rows \
         or the spool has room. No event is lost while Kafka retains it.",
        outage.spool_bytes, outage.spool_bytes_max
    );
    Notice { title: "Detection is paused: rows cannot be stored".to_owned(), text, at: now, about: None }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::verdict::Incident;

    #[derive(Default)]
    struct Sent(Mutex<Vec<(String, Notice)>>);

    impl Outbox for Sent {
        fn take(&self, _: &[Incident]) -> std::io::Result<()> {
            Ok(())
        }

        fn notify(&self, key: &str, notice: Notice) -> std::io::Result<()> {
            self.0.lock().expect("the lock is not poisoned").push((key.to_owned(), notice));
            Ok(())
        }

        fn persist(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const QUIET: Outage = Outage { outbox: None, store: None, spool: None, spool_bytes: 0, spool_bytes_max: 0 };

    #[test]
    fn withheld_alerts_are_reported_once_a_day() {
        let sent = Arc::new(Sent::default());
        let mut notices = Notices::new(Some(sent.clone()));
        let begin = 20_000 * DAY_MS;
        for minute in 0..3 * 24 * 60 {
            let now = begin + minute * MINUTE_MS;
            notices.withheld(Withheld { alerts: 1, highest: 4.0 + minute as f64 / 1e3 }, now);
            notices.report(&QUIET, now);
        }
        let sent = sent.0.lock().expect("the lock is not poisoned");
        let counts = [61, 1_440, 1_440];
        assert_eq!(sent.len(), counts.len());
        for ((_, notice), count) in sent.iter().zip(counts) {
            assert!(notice.text.starts_with(&format!("{count} alerts were withheld")), "{}", notice.text);
        }
        assert!(sent[1].1.text.contains("are 5.5"), "{}", sent[1].1.text);
        assert!(sent[0].0 != sent[1].0 && sent[1].0 != sent[2].0, "each notice has its own key");
    }

    #[test]
    fn withheld_alerts_are_reported_at_the_end() {
        let sent = Arc::new(Sent::default());
        let mut notices = Notices::new(Some(sent.clone()));
        notices.report_withheld(0);
        assert!(sent.0.lock().expect("the lock is not poisoned").is_empty(), "no alert was withheld");
        notices.withheld(Withheld { alerts: 2, highest: 3.0 }, 0);
        notices.report_withheld(MINUTE_MS);
        notices.report_withheld(MINUTE_MS);
        assert_eq!(sent.0.lock().expect("the lock is not poisoned").len(), 1);
    }
}
