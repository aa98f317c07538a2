//! The structure that alerts share in the terminal, in mail and in webhooks: a summary line, then one line per reason
//! with its share of the log-odds.

use std::fmt::Write as _;

use super::words::{plain, shortened};
use crate::verdict::{Action, Incident, Mode, RuleId, Severity, Signal};

/// Longest line of an alert in the terminal, characters.
const COLUMNS_MAX: usize = 100;
/// Lines of an alert in the terminal: the summary, the reasons, and the log-odds with the action.
const LINES_MAX: usize = 8;
/// Longest name of the user and application in the terminal, characters. The summary keeps at least 22.
const ACCOUNT_CHARS_MAX: usize = 26;

/// The alert for a terminal, without colours and control characters, at most `LINES_MAX` lines of at most
/// `COLUMNS_MAX` characters. The times are UTC.
///
/// ```text
/// 2026-11-18 11:15 HIGH acme/ana crm: two holders, new country  [INC-0000000000000042]
///    +4.6  alternates between two holders
///    +2.6  used from a country that is new to it
///     8.1  log-odds in total; would revoke the grant (shadow mode)
/// ```
pub fn block(incident: &Incident) -> String {
    let time = minute(incident.updated_at.millis());
    let mut text = format!("{time} {}", headline(incident, COLUMNS_MAX - time.len() - 1));
    let (reasons, left) = reasons(incident, LINES_MAX - 2);
    for signal in reasons {
        let _ = write!(text, "\n{}", line_of_reason(&share(signal), &plain(&signal.reason)));
    }
    if left > 0 {
        let _ = write!(text, "\n{}", line_of_reason("", &more(left)));
    }
    let mut total = "log-odds in total".to_owned();
    if let Some(action) = action(incident) {
        let _ = write!(total, "; {action}");
    }
    let _ = write!(text, "\n{}", line_of_reason(&format!("{:.1}", incident.log_odds), &total));
    text
}

fn headline(incident: &Incident, chars_max: usize) -> String {
    let start = format!("{} {}: ", severity(incident.severity), account(incident, ACCOUNT_CHARS_MAX));
    let end = format!("  [{}]", incident.id);
    let room = chars_max.saturating_sub(start.chars().count() + end.len());
    start + &what(incident, room) + &end
}

fn line_of_reason(share: &str, text: &str) -> String {
    shortened(&format!("{share:>7}  {text}"), COLUMNS_MAX - 1)
}

/// `2 more reasons`.
pub(super) fn more(left: usize) -> String {
    format!("{left} more reason{}", if left == 1 { "" } else { "s" })
}

/// Signals that raise the log-odds or come from a policy, in their order: at most `lines_max`, less one if that is too
/// few, so that the number of the others fits in.
pub(super) fn reasons(incident: &Incident, lines_max: usize) -> (Vec<&Signal>, usize) {
    let signals: Vec<_> = incident.signals.iter().filter(|signal| is_reason(signal)).collect();
    let kept = if signals.len() > lines_max { lines_max - 1 } else { signals.len() };
    let left = signals.len() - kept;
    (signals.into_iter().take(kept).collect(), left)
}

fn is_reason(signal: &Signal) -> bool {
    signal.share > 0.0 || is_policy(signal)
}

/// A policy has no share in the log-odds.
fn is_policy(signal: &Signal) -> bool {
    signal.share == 0.0 && signal.fired
}

/// `+4.6`, nats; `policy` for a reason without a share.
pub(super) fn share(signal: &Signal) -> String {
    if is_policy(signal) { "policy".to_owned() } else { format!("{:+.1}", signal.share) }
}

/// `acme/ana crm`, `acme/ana crm and 52 others`: tenant and user, or the grant or token of an event without user, and
/// the application. Without unsafe characters, at most `chars_max`.
pub(super) fn account(incident: &Incident, chars_max: usize) -> String {
    let others = match incident.victims_total.saturating_sub(1) {
        0 => String::new(),
        1 => " and 1 other".to_owned(),
        others => format!(" and {others} others"),
    };
    let mut account = String::new();
    if !incident.tenant_id.is_empty() {
        let _ = write!(account, "{}/", plain(&incident.tenant_id));
    }
    account.push_str(&plain(if incident.user_id.is_empty() { &incident.subject } else { &incident.user_id }));
    if !incident.app_id.is_empty() {
        let _ = write!(account, " {}", plain(&incident.app_id));
    }
    // The ellipsis is one character.
    let room = chars_max.saturating_sub(others.len() + 1);
    let account = if account.chars().count() + others.len() > chars_max { shortened(&account, room) } else { account };
    account + &others
}

/// `two holders, new country and 1 more`: what the reasons are about, the largest share first, at most `chars_max`
/// characters unless the first one alone is longer.
pub(super) fn what(incident: &Incident, chars_max: usize) -> String {
    let mut titles: Vec<&str> = Vec::new();
    for signal in incident.signals.iter().filter(|signal| is_reason(signal)) {
        let title = if is_policy(signal) { "policy violated" } else { title(signal.rule) };
        if !titles.contains(&title) {
            titles.push(title);
        }
    }
    let joined = |count: usize| {
        let left = titles.len() - count;
        let more = if left > 0 { format!(" and {left} more") } else { String::new() };
        titles.iter().take(count).copied().collect::<Vec<_>>().join(", ") + &more
    };
    let fits = |text: &String| text.chars().count() <= chars_max;
    match titles.len() {
        0 => "several weak reasons".to_owned(),
        count => (1..=count).rev().map(joined).find(fits).unwrap_or_else(|| titles[0].to_owned()),
    }
}

/// A few words for each rule.
const fn title(rule: RuleId) -> &'static str {
    match rule {
        RuleId::NewCountry => "new country",
        RuleId::ImpossibleTravel => "impossible travel",
        RuleId::NewIp => "new address",
        RuleId::NewNetwork => "new network",
        RuleId::UnusualTime => "unusual time",
        RuleId::VolumeSpike => "many calls",
        RuleId::BytesSpike => "many bytes",
        RuleId::NewClient => "new client",
        RuleId::NewEndpoint => "unusual routes",
        RuleId::SensitiveEndpoint => "sensitive routes",
        RuleId::Enumeration => "many objects",
        RuleId::ConcurrentUse => "two holders",
        RuleId::RefreshReuse => "refresh token reused",
        RuleId::UseAfterRevocation => "used after revocation",
        RuleId::UseAfterSessionEnd => "used after logout",
        RuleId::UseAfterExpiry => "used after expiry",
        RuleId::StaleAfterCredentialChange => "old token",
        RuleId::BindingMismatch => "another key",
        RuleId::TokenAge => "token too old",
        RuleId::AppFanout => "app-wide new network",
        RuleId::IpFanout => "shared new address",
    }
}

pub(super) const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "INFO",
        Severity::Low => "LOW",
        Severity::Medium => "MEDIUM",
        Severity::High => "HIGH",
        Severity::Critical => "CRITICAL",
    }
}

/// The revocation that the incident requests, as its mode allows it.
fn action(incident: &Incident) -> Option<String> {
    let what = match incident.action {
        Action::None | Action::Alert => return None,
        Action::RevokeToken => "the token",
        Action::RevokeFamily => "the grant",
    };
    Some(match incident.mode {
        Mode::Shadow => format!("would revoke {what} (shadow mode)"),
        Mode::Alert => format!("proposes to revoke {what} (alert mode)"),
        Mode::Enforce => format!("revokes {what}"),
    })
}

/// Milliseconds since the epoch as `2026-11-18 11:15`, UTC.
pub(super) fn minute(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| String::new(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

#[cfg(test)]
mod tests {
    use super::super::tests::incident;
    use super::*;

    #[test]
    fn block_has_a_summary_and_a_line_per_reason() {
        let mut incident = incident();
        assert_eq!(
            block(&incident),
            "2026-11-18 11:15 HIGH acme/ana crm: two holders, new country, new client  [INC-0000000000000042]\n   \
             +4.6  two holders take turns\n   \
             +2.6  never seen in Brazil\n   \
             +0.9  a client that it has never used\n    \
             8.1  log-odds in total; revokes the grant"
        );
        incident.mode = Mode::Shadow;
        incident.tenant_id = String::new();
        incident.user_id = String::new();
        incident.app_id = String::new();
        incident.subject = "x\u{1b}[2J\ny".to_owned();
        incident.signals.truncate(1);
        assert_eq!(
            block(&incident),
            "2026-11-18 11:15 HIGH x␛[2J␊y: two holders  [INC-0000000000000042]\n   \
             +4.6  two holders take turns\n    \
             8.1  log-odds in total; would revoke the grant (shadow mode)"
        );
    }

    #[test]
    fn block_is_at_most_eight_lines_of_100_columns() {
        for rule in RuleId::ALL {
            let mut incident = incident();
            incident.severity = Severity::Critical;
            for text in [&mut incident.tenant_id, &mut incident.user_id, &mut incident.app_id] {
                *text = "é\n ".repeat(200);
            }
            incident.victims_total = 100_000;
            let signal = Signal { rule: *rule, reason: "long ".repeat(100), ..incident.signals[0].clone() };
            incident.signals = vec![signal; 9];
            let text = block(&incident);
            let widths: Vec<_> = text.lines().map(|line| line.chars().count()).collect();
            assert_eq!(widths.len(), 8, "{text}");
            assert!(widths.iter().all(|width| *width <= 100), "{widths:?}\n{text}");
            assert!(text.contains("\n         4 more reasons\n"), "{text}");
        }
    }

    #[test]
    fn policy_is_a_reason_without_a_share() {
        let mut incident = incident();
        incident.signals = vec![Signal { share: 0.0, fired: true, ..incident.signals[0].clone() }];
        let text = block(&incident);
        assert!(text.contains(": policy violated  ["), "{text}");
        assert!(text.contains("\n policy  two holders take turns\n"), "{text}");
        incident.signals.clear();
        assert!(block(&incident).contains(": several weak reasons  ["));
    }

    #[test]
    fn what_counts_the_titles_that_do_not_fit() {
        let incident = incident();
        assert_eq!(what(&incident, 100), "two holders, new country, new client");
        assert_eq!(what(&incident, 35), "two holders, new country and 1 more");
        assert_eq!(what(&incident, 34), "two holders and 2 more");
        assert_eq!(what(&incident, 5), "two holders");
    }
}
