//! The lane of silences: reports those that have ended, and writes the counts of withheld alerts to their log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::deliverer::Deliverer;
use super::lane::Attempt;
use super::record::Record;
use super::silences::Silences;
use super::task::{Message, Report};
use crate::port::{ActionOutcome, Notifier, SilenceId, SilenceKey, SilenceRecord, SilenceState, Store, WithheldCount};
use crate::telemetry::Condition;

/// The lane.
pub(super) const SILENCES: &str = "silences";
/// Interval in which the end of a silence is noticed.
const LOOK_WAIT: Duration = Duration::from_secs(1);
/// Minimum time between two writes of counts to the log, milliseconds.
const COUNT_INTERVAL_MS: i64 = 5_000;

impl<S: Store + 'static> Deliverer<S>
where
    S::Rows: 'static,
{
    /// The record of a message that is not sent because of `silence`.
    pub(super) fn silenced(
        &self,
        notifier: &dyn Notifier,
        message: &Message,
        report: &Report,
        silence: SilenceId,
    ) -> Record {
        let (lane, at) = (notifier.lane(), self.clock.now_millis());
        let attempt = Attempt {
            action_id: format!("{}/{lane}", message.key),
            incident: Some(&report.incident),
            kind: format!("alert_{}", notifier.name()),
            target: notifier.target(),
            number: message.effect.attempts + 1,
            outcome: ActionOutcome::Silenced,
            status: 0,
        };
        let row = self.row(attempt, at, format!("withheld by the silence {silence}"));
        self.metrics.delivered(notifier.name(), ActionOutcome::Silenced);
        let (key, sent) = (message.key.clone(), report.sent.clone());
        Record::Silenced { key, lane, at, silence, log_odds: report.incident.log_odds, sent, row }
    }

    /// Reports the silences that have ended, and writes the counts of withheld alerts to the log.
    pub(super) async fn end_silences(&self, silences: Arc<Silences>, mut stop: watch::Receiver<bool>) {
        let mut written: BTreeMap<SilenceId, u64> = BTreeMap::new();
        let mut write_at = i64::MIN;
        loop {
            let now = self.clock.now_millis();
            self.lane_works(SILENCES);
            self.health.set(Condition::Silences, silences.is_unreadable());
            self.metrics.silences(silences.count(now), silences.refused());
            if silences.is_complete() {
                let records = self.ended(&silences, now);
                if !records.is_empty() {
                    self.record(records);
                }
            }
            if now >= write_at {
                write_at = now + COUNT_INTERVAL_MS;
                self.write_counts(&silences, &mut written).await;
            }
            if *stop.borrow() {
                return;
            }
            self.pause(LOOK_WAIT, &mut stop).await;
        }
    }

    /// A message for each silence that has ended, and has withheld alerts that no message has reported.
    fn ended(&self, silences: &Silences, now: i64) -> Vec<Record> {
        let withheld: Vec<_> = {
            let inner = self.outbox.inner();
            let unreported = inner.state.withheld.iter().filter(|(_, withheld)| withheld.is_unreported());
            unreported.map(|(silence, withheld)| (*silence, withheld.clone())).collect()
        };
        let mut records = Vec::new();
        for (silence, withheld) in withheld.into_iter().filter(|(silence, _)| !silences.is_active(*silence, now)) {
            let (key, notice) = (withheld.key(silence), withheld.notice(silence, now));
            records.extend(self.notice(key, &notice.title, notice.text, self.outbox.notice_lanes()));
            records.push(Record::Summarized { silence, alerts: withheld.alerts() });
        }
        records
    }

    /// Writes the counts that have changed. A count that cannot be written is written later.
    async fn write_counts(&self, silences: &Silences, written: &mut BTreeMap<SilenceId, u64>) {
        let now = self.clock.now_millis();
        let counts: Vec<(SilenceId, WithheldCount)> = {
            let inner = self.outbox.inner();
            let counts = inner.state.withheld.iter().map(|(silence, withheld)| (*silence, withheld.count(now)));
            counts.filter(|(silence, count)| written.get(silence) != Some(&count.alerts)).collect()
        };
        if counts.is_empty() {
            return;
        }
        let member = self.member();
        for (silence, count) in counts {
            let key = SilenceKey { silence, member: member.clone() };
            match silences.append(SilenceRecord { key, state: SilenceState::Withheld(count) }).await {
                Ok(()) => _ = written.insert(silence, count.alerts),
                Err(reason) => {
                    tracing::warn!(reason, "the number of withheld alerts is not written; retrying");
                    return;
                }
            }
        }
    }
}
