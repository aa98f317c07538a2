//! Policy: what people simply want, whatever the odds that somebody else holds the token. A finding raises the verdict
//! by itself and counts nothing in the log-odds.

use crate::event::{Event, TokenType};
use crate::rule::{RuleSet, Status};
use crate::verdict::{RuleId, Signal, Verdict};

const HOUR_MS: f64 = 3_600_000.0;
const DAY_MS: f64 = 86_400_000.0;

/// What policy has to say of one event.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub rule: RuleId,
    pub verdict: Verdict,
    pub observed: String,
    pub expected: String,
    /// One sentence a person understands.
    pub reason: String,
}

impl Finding {
    /// As a signal: it speaks, and has no part in the log-odds.
    #[must_use]
    pub fn signal(self) -> Signal {
        let Self { rule, observed, expected, reason, .. } = self;
        Signal { rule, share: 0.0, p_value: 1.0, fired: true, observed, expected, reason }
    }
}

/// All findings of one event. Allocates nothing where there are none.
#[must_use]
pub fn judge(rules: &RuleSet, event: &Event<'_>) -> Vec<Finding> {
    token_age(rules, event).into_iter().collect()
}

/// A token in use longer after its issue than tokens of its type are to live. A copy of it was of use for as long.
fn token_age(rules: &RuleSet, event: &Event<'_>) -> Option<Finding> {
    let rule = rules.rule(RuleId::TokenAge);
    let (unit_ms, unit, max) = match (event.token_type, rule.values.as_slice()) {
        (TokenType::Access, [access_hours_max, _]) => (HOUR_MS, "hours", *access_hours_max),
        (TokenType::Refresh, [_, refresh_days_max]) => (DAY_MS, "days", *refresh_days_max),
        _ => return None,
    };
    let age = (event.timestamp.millis() - event.issued_at?.millis()) as f64 / unit_ms;
    if age <= max || rule.status == Status::Disabled {
        return None;
    }
    let kind = event.token_type.as_str();
    let observed = format!("issued {age:.1} {unit} ago");
    let expected = format!("{kind} tokens of at most {max} {unit}");
    let reason = format!("the {kind} token is older than policy allows: {observed}, {max} {unit} at most");
    Some(Finding { rule: RuleId::TokenAge, verdict: Verdict::Watch, observed, expected, reason })
}
