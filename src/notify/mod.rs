//! Telling people: by e-mail and by webhook, in the same words everywhere.

mod email;
mod mail;
mod webhook;
mod words;

pub use self::email::{Email, EmailSettings, StartTls};
pub use self::mail::{Mail, compose};
pub use self::webhook::{Webhook, WebhookSettings};

use std::fmt::Write as _;

use crate::port::{Progress, Revocation};
use crate::verdict::{Action, Incident, Mode};

/// Outcomes that are printed on a terminal; the others are counted.
const OUTCOME_LINES_MAX: usize = 20;

/// The incident on one line, for people, without colours; nothing in it can steer a terminal:
/// `HIGH     acme ci-deploy (user ana, app crm): used from … in all 8.1; would revoke the family (INC-…)`.
#[must_use]
pub fn line(incident: &Incident) -> String {
    let severity = incident.severity.as_str().to_uppercase();
    let mut line = format!("{severity:<8} {}", words::subjects(incident, ' '));
    let holder = words::holder(incident);
    if !holder.is_empty() {
        let _ = write!(line, " ({holder})");
    }
    let reason = words::plain(&incident.reason);
    let _ = write!(line, ": {}", reason.trim_end_matches('.'));
    if let Some(answer) = answer(incident) {
        let _ = write!(line, "; {answer}");
    }
    let _ = write!(line, " ({})", incident.id);
    line
}

/// The outcome of each revocation that the receiver does not know of, a line each, for people.
#[must_use]
pub fn outcome_lines(incident: &Incident, progress: &Progress) -> Vec<String> {
    let (mut lines, more) = words::other_outcomes(incident, progress, OUTCOME_LINES_MAX);
    if incident.revoke.is_some() && progress.revocation != Revocation::NotAsked {
        lines.insert(0, words::answer(incident, &progress.revocation));
    }
    if more > 0 {
        lines.push(format!("{more} more revocations of {}", incident.id));
    }
    lines
}

/// What the incident calls for, as its mode allows it.
fn answer(incident: &Incident) -> Option<String> {
    let what = match incident.action {
        Action::None | Action::Alert => return None,
        Action::RevokeToken => "the token",
        Action::RevokeFamily => "the family",
    };
    Some(match incident.mode {
        Mode::Shadow => format!("would revoke {what}"),
        Mode::Alert => format!("asks people to revoke {what}"),
        Mode::Enforce => format!("revokes {what}"),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::event::{BaselineId, Timestamp};
    use crate::verdict::{CampaignId, IncidentId, RuleId, Severity, Signal, Target, Verdict};

    /// The incident that the tests of this module tell.
    pub(crate) fn incident() -> Incident {
        let at = |millis| Timestamp::from_millis(millis).expect("a time");
        let signal = |rule, share, observed: &str, expected: &str, reason: &str| Signal {
            rule,
            share,
            p_value: 2e-3,
            fired: share > 1.5,
            observed: observed.to_owned(),
            expected: expected.to_owned(),
            reason: reason.to_owned(),
        };
        Incident {
            id: IncidentId(0x42),
            opened_at: at(1_795_000_000_000),
            updated_at: at(1_795_000_530_123),
            severity: Severity::High,
            verdict: Verdict::Revoke,
            baseline: BaselineId(7),
            subject: "ci-deploy".to_owned(),
            tenant_id: "acme".to_owned(),
            token_id: "at-9".to_owned(),
            family_id: "ci-deploy".to_owned(),
            user_id: "ana".to_owned(),
            app_id: "crm".to_owned(),
            event_id: "e-1".to_owned(),
            change: 1,
            campaign_id: CampaignId(0x43),
            victims: Vec::new(),
            victims_total: 1,
            tenant_is_new: false,
            log_odds: 8.1,
            signals: vec![
                signal(
                    RuleId::ConcurrentUse,
                    4.6,
                    "Berlin and São Paulo in turn, 3 changes in 9 min",
                    "one holder at a time (412 of 413 sightings)",
                    "two holders take turns",
                ),
                signal(
                    RuleId::NewCountry,
                    2.6,
                    "São Paulo, BR, AS28573 Claro",
                    "Berlin, DE, AS3320 (412 of 413 sightings)",
                    "never seen in Brazil",
                ),
                signal(RuleId::NewClient, 0.9, "curl 8", "Chrome 144 on Linux", "a client that it has never used"),
            ],
            reason: "two holders, DE and BR, within 9 minutes".to_owned(),
            action: Action::RevokeFamily,
            mode: Mode::Enforce,
            tell: true,
            revoke: Some(Target::Family("ci-deploy".to_owned())),
        }
    }

    #[test]
    fn a_line_says_who_what_and_what_is_done() {
        let mut incident = incident();
        assert_eq!(
            line(&incident),
            "HIGH     acme ci-deploy (user ana, app crm): two holders, DE and BR, within 9 minutes; \
             revokes the family (INC-0000000000000042)"
        );
        incident.mode = Mode::Shadow;
        incident.tenant_id = String::new();
        incident.user_id = String::new();
        incident.app_id = String::new();
        incident.subject = "x\u{1b}[2J\ny".to_owned();
        assert_eq!(
            line(&incident),
            "HIGH     x␛[2J␊y: two holders, DE and BR, within 9 minutes; would revoke the family \
             (INC-0000000000000042)"
        );
    }
}
