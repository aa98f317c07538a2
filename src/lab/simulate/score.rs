//! Compares the alerts of a run with the simulated thefts.

use std::collections::{BTreeMap, BTreeSet};

use super::theft::{Theft, TheftKind};
use crate::millis::{HOUR_MS, MINUTE_MS};
use crate::verdict::{Incident, IncidentId};

/// Detected thefts and false positives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Score {
    pub(crate) by_kind: Vec<KindScore>,
    /// Incidents with an alert that no theft explains, ordered by id.
    pub(crate) raised_falsely: Vec<Incident>,
}

/// The thefts of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct KindScore {
    pub(crate) kind: TheftKind,
    pub(crate) planted: usize,
    pub(crate) found: usize,
    /// Median of the minutes from the thief's first event to the first alert, over the detected thefts.
    pub(crate) minutes_to_alert: Option<f64>,
}

/// Time after the thief's last event in which an alert on the same token counts as a detection, in milliseconds. Often
/// only the owner's next use reveals the theft.
const AFTERMATH_MS: i64 = HOUR_MS;

/// `alerts`: incidents as they were reported, in any order. An incident that was opened before any theft, or without
/// one, is a false positive. This holds even if a later theft of the same token joined it.
pub(crate) fn score(thefts: &[Theft], alerts: &[Incident]) -> Score {
    let mut found_after: Vec<Option<i64>> = vec![None; thefts.len()];
    let mut incidents: BTreeMap<IncidentId, Vec<&Incident>> = BTreeMap::new();
    for alert in alerts {
        incidents.entry(alert.id).or_default().push(alert);
    }
    let mut raised_falsely = Vec::new();
    for alerts in incidents.values() {
        let mut explained = false;
        for alert in alerts {
            for (theft, found) in thefts.iter().zip(&mut found_after).filter(|(theft, _)| speaks_of(alert, theft)) {
                let after = (alert.updated_at.millis() - theft.first_at).max(0);
                *found = Some(found.map_or(after, |before| before.min(after)));
                explained |= alert.opened_at.millis() >= theft.first_at;
            }
        }
        if !explained && let Some(first) = alerts.iter().min_by_key(|alert| alert.updated_at) {
            raised_falsely.push((*first).clone());
        }
    }
    let kinds: BTreeSet<TheftKind> = thefts.iter().map(|theft| theft.kind).collect();
    let by_kind = kinds.into_iter().map(|kind| {
        let of_kind = || thefts.iter().zip(&found_after).filter(move |(theft, _)| theft.kind == kind);
        let mut delays: Vec<i64> = of_kind().filter_map(|(_, found)| *found).collect();
        delays.sort_unstable();
        KindScore {
            kind,
            planted: of_kind().count(),
            found: delays.len(),
            minutes_to_alert: delays.get(delays.len() / 2).map(|millis| *millis as f64 / MINUTE_MS as f64),
        }
    });
    Score { by_kind: by_kind.collect(), raised_falsely }
}

/// Whether the alert came with an event of the thief, or on a victim during the theft.
fn speaks_of(alert: &Incident, theft: &Theft) -> bool {
    let meanwhile = (theft.first_at..=theft.last_at + AFTERMATH_MS).contains(&alert.updated_at.millis());
    let of_victim = theft.victims.iter().any(|victim| *victim == alert.family_id || *victim == alert.token_id);
    (meanwhile && of_victim) || theft.event_ids.contains(&alert.event_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{BaselineId, Timestamp};
    use crate::verdict::{Action, CampaignId, Mode, Severity, Verdict};

    fn theft(kind: TheftKind, victim: &str, first_at: i64) -> Theft {
        Theft {
            kind,
            victims: vec![victim.to_owned()],
            first_at,
            last_at: first_at + 600_000,
            event_ids: vec![format!("stolen-{victim}")],
        }
    }

    fn alert(id: u64, family: &str, event: &str, opened_at: i64, updated_at: i64) -> Incident {
        let at = |millis| Timestamp::from_millis(millis).expect("in range");
        Incident {
            id: IncidentId(id),
            opened_at: at(opened_at),
            updated_at: at(updated_at),
            severity: Severity::High,
            verdict: Verdict::Alert,
            baseline: BaselineId(0),
            subject: family.to_owned(),
            tenant_id: String::new(),
            token_id: String::new(),
            family_id: family.to_owned(),
            user_id: String::new(),
            app_id: "crm".to_owned(),
            session_id: String::new(),
            token_type: crate::event::TokenType::Other,
            expires_at: None,
            event_id: event.to_owned(),
            change: 0,
            campaign_id: CampaignId(0x43),
            victims: Vec::new(),
            victims_total: 1,
            tenant_is_new: false,
            log_odds: 3.0,
            signals: Vec::new(),
            reason: String::new(),
            action: Action::Alert,
            mode: Mode::Shadow,
            report: true,
            revoke: None,
        }
    }

    #[test]
    fn alerts_are_compared_with_thefts() {
        let thefts = [
            theft(TheftKind::Foreign, "g-1", 10 * HOUR_MS),
            theft(TheftKind::Foreign, "g-2", 10 * HOUR_MS),
            theft(TheftKind::TwoHolders, "g-3", 10 * HOUR_MS),
        ];
        let alerts = [
            // Detected by the thief's event, and reported again later.
            alert(1, "g-1", "stolen-g-1", 10 * HOUR_MS, 10 * HOUR_MS + 120_000),
            alert(1, "g-1", "owner", 10 * HOUR_MS, 11 * HOUR_MS),
            // Detected by an event of the owner between two of the thief's.
            alert(3, "g-3", "owner", 10 * HOUR_MS + MINUTE_MS, 10 * HOUR_MS + MINUTE_MS),
            // One token was never stolen, the other one days before.
            alert(4, "g-9", "owner", 10 * HOUR_MS, 10 * HOUR_MS),
            alert(5, "g-2", "owner", 90 * HOUR_MS, 90 * HOUR_MS),
        ];
        let score = score(&thefts, &alerts);
        let of = |kind: TheftKind| score.by_kind.iter().find(|k| k.kind == kind).copied().expect("each kind is there");
        assert_eq!((of(TheftKind::Foreign).planted, of(TheftKind::Foreign).found), (2, 1));
        assert_eq!(of(TheftKind::Foreign).minutes_to_alert, Some(2.0));
        assert_eq!((of(TheftKind::TwoHolders).planted, of(TheftKind::TwoHolders).found), (1, 1));
        assert_eq!(score.by_kind.len(), 2);
        assert_eq!(score.raised_falsely.iter().map(|incident| incident.id.0).collect::<Vec<_>>(), [4, 5]);
    }

    #[test]
    fn earlier_incident_is_false_and_may_detect() {
        let thefts = [theft(TheftKind::Foreign, "g-1", 1_000_000)];
        let alerts = [alert(1, "g-1", "owner", 10_000, 10_000), alert(1, "g-1", "stolen-g-1", 10_000, 1_060_000)];
        let score = score(&thefts, &alerts);
        assert_eq!(score.by_kind[0].found, 1);
        assert_eq!(score.raised_falsely.len(), 1);
    }
}
