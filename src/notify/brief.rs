//! An alert in short, for channels without a layout of their own.

use std::fmt::Write as _;

use super::{summary, words};
use crate::port::Progress;
use crate::verdict::Incident;

/// Longest names and reasons in the headline, characters.
const ACCOUNT_CHARS_MAX: usize = 90;
const WHAT_CHARS_MAX: usize = 90;
/// Reasons, other revocations and victims in the details.
const REASONS_MAX: usize = 8;
const OUTCOMES_MAX: usize = 8;
const VICTIMS_MAX: usize = 15;

/// One line: severity, account, reasons and the state of the revocation.
pub(super) fn headline(incident: &Incident, progress: &Progress) -> String {
    let badge = words::badge(progress).map_or_else(String::new, |badge| format!(", {badge}"));
    let severity = summary::severity(incident.severity);
    let account = summary::account(incident, ACCOUNT_CHARS_MAX);
    format!("[{severity}] {account}: {}{badge}", summary::what(incident, WHAT_CHARS_MAX))
}

/// Several lines: revocations, reasons with shares, victims and ids. Without unsafe characters.
pub(super) fn details(incident: &Incident, progress: &Progress) -> String {
    let mut text = words::answer(incident, progress);
    let (reasons, left) = summary::reasons(incident, REASONS_MAX);
    for signal in reasons {
        let _ = write!(text, "\n{} {}", summary::share(signal), words::plain(&signal.reason));
    }
    if left > 0 {
        let _ = write!(text, "\n{}", summary::more(left));
    }
    let (outcomes, left) = words::other_outcomes(incident, progress, OUTCOMES_MAX);
    for outcome in outcomes {
        let _ = write!(text, "\n{outcome}");
    }
    if left > 0 {
        let _ = write!(text, "\n{left} more revocations");
    }
    if incident.victims_total > 1 {
        let (victims, left) = words::victims(incident, progress, VICTIMS_MAX);
        let _ = write!(text, "\n{} accounts:", incident.victims_total);
        for victim in victims {
            let _ = write!(text, "\n- {victim}");
        }
        if left > 0 {
            let _ = write!(text, "\n- and {left} others");
        }
    }
    let fields = [
        ("tenant", &incident.tenant_id),
        ("user", &incident.user_id),
        ("app", &incident.app_id),
        ("grant", &incident.family_id),
        ("token", &incident.token_id),
    ];
    let named = fields.iter().filter(|(_, id)| !id.is_empty()).map(|(name, id)| format!("{name} {}", words::plain(id)));
    let ids = named.collect::<Vec<_>>().join(", ");
    let opened = summary::minute(incident.opened_at.millis());
    let _ = write!(text, "\n{ids}\n{}, opened {opened} UTC. Why: tokenwarden explain {0}", incident.id);
    text
}
