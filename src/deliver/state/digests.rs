//! Collected alerts of the lanes, and alerts that silences withhold.

use super::data::State;
use super::keys::{Item, item_of, thread_of};
use crate::deliver::digest::{Collected, Digest};
use crate::deliver::record::{Effect, Sent};
use crate::deliver::withheld::Withheld;
use crate::port::SilenceId;
use crate::verdict::Incident;

/// Maximum number of silences whose withheld alerts are kept. Beyond it, the oldest that a message has reported is removed.
const WITHHELD_MAX: usize = 1_000;

impl State {
    /// Takes alerts out of the queue of `lane` into its digest.
    pub(super) fn collect(&mut self, lane: &str, at: i64, due_at: i64, alerts: &[Collected]) {
        for alert in alerts {
            let item = item_of(lane, &alert.key);
            let Item::Thread(id) = item else { continue };
            // The incident may have changed since it was chosen, and have a higher severity now.
            let is_current = self.threads.get(&id).is_some_and(|thread| thread.key == alert.key);
            let Some((effect, number, whose)) = self.effect(&item, lane).filter(|_| is_current) else { continue };
            self.unindex(lane, &effect, number, item, whose.as_ref());
            if let Some(thread) = self.threads.get_mut(&id) {
                let sent = Sent { is_withheld: true, ..thread.sent_by(lane, alert.severity, at) };
                thread.sent.insert(lane.to_owned(), sent);
                thread.pending.remove(lane);
                if thread.pending.is_empty() {
                    thread.incident = None;
                }
            }
            let due_at = if self.is_last { at } else { due_at };
            self.digests.entry(lane.to_owned()).or_insert_with(|| Digest::new(at, due_at)).add(alert);
        }
    }

    /// Counts an alert that `silence` withholds from a channel.
    pub(super) fn withhold(&mut self, silence: SilenceId, key: &str, log_odds: f64, at: i64) {
        let Some(incident) = thread_of(key) else { return };
        self.withheld.entry(silence).or_insert_with(|| Withheld::new(at)).add(incident, key, log_odds);
        if self.withheld.len() > WITHHELD_MAX {
            let reported = self.withheld.iter().filter(|(_, withheld)| !withheld.is_unreported());
            let oldest = reported.min_by_key(|(_, withheld)| withheld.since).map(|(silence, _)| *silence);
            if let Some(oldest) = oldest {
                self.withheld.remove(&oldest);
            }
        }
    }

    /// After the end of the input: makes all digests due.
    pub(super) fn flush_digests(&mut self, now: i64) {
        for digest in self.digests.values_mut() {
            digest.due_at = digest.due_at.min(now);
        }
    }

    /// At most `max` messages of `lane` about incidents that are due at `now` and that no attempt was made to send.
    pub(in crate::deliver) fn due_incidents(
        &self,
        lane: &str,
        now: i64,
        max: usize,
    ) -> impl Iterator<Item = (u64, &str, &Incident)> {
        let due = self.lanes.get(lane).into_iter().flatten().take_while(move |due| due.at <= now).take(max);
        due.filter_map(move |due| {
            let Item::Thread(id) = due.item else { return None };
            let thread = self.threads.get(&id)?;
            let is_new = |effect: &&Effect| effect.attempts == 0 && effect.hold.is_none();
            thread.pending.get(lane).filter(is_new)?;
            Some((id, &*thread.key, &**thread.incident.as_ref()?))
        })
    }
}
