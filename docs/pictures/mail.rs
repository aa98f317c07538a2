//! Prints the HTML of an alert's mail, for a look or a picture:
//! `cargo run --example mail > mail.html && chromium --headless --no-sandbox --window-size=720,1450 --screenshot=mail.png mail.html`

#![allow(clippy::print_stdout, reason = "it is an example")]

use tokenwarden::event::{BaselineId, Timestamp};
use tokenwarden::notify::compose;
use tokenwarden::port::{Alert, Progress, Revocation};
use tokenwarden::rule::RuleSet;
use tokenwarden::verdict::{Action, CampaignId, Incident, IncidentId, Mode, RuleId, Severity, Signal, Target, Verdict};

fn main() {
    let signal = |rule, share, observed: &str, expected: &str, reason: &str| Signal {
        rule,
        share,
        p_value: 1e-3,
        fired: share > 1.5,
        observed: observed.to_owned(),
        expected: expected.to_owned(),
        reason: reason.to_owned(),
    };
    let incident = Incident {
        id: IncidentId(0x9F3C_21D0_77A4_0E42),
        opened_at: Timestamp::from_millis(1_795_000_000_000).unwrap_or(Timestamp::MIN),
        updated_at: Timestamp::from_millis(1_795_000_530_000).unwrap_or(Timestamp::MIN),
        severity: Severity::High,
        verdict: Verdict::Revoke,
        baseline: BaselineId(1),
        subject: "ci-deploy".to_owned(),
        tenant_id: "acme".to_owned(),
        token_id: "at-7f21".to_owned(),
        family_id: "ci-deploy".to_owned(),
        user_id: "ana".to_owned(),
        app_id: "crm".to_owned(),
        session_id: String::new(),
        token_type: tokenwarden::event::TokenType::Other,
        expires_at: None,
        event_id: "event-1".to_owned(),
        change: 1,
        campaign_id: CampaignId(1),
        victims: Vec::new(),
        victims_total: 1,
        tenant_is_new: false,
        log_odds: 8.1,
        signals: vec![
            signal(
                RuleId::ConcurrentUse,
                9.2,
                "3 changes of network, each within 60 minutes",
                "0.07 changes of network per hour of activity",
                "possibly two holders: 3 changes of network, each within 60 minutes, last from São Paulo, BR, AS28573 Claro; \
                 usually 0.07 changes of network per hour of activity",
            ),
            signal(
                RuleId::NewCountry,
                5.0,
                "São Paulo, BR, AS28573 Claro",
                "DE, AS3320 Deutsche Telekom (412 of 413 visits)",
                "used from a new country: São Paulo, BR, AS28573 Claro; usually DE, AS3320 Deutsche Telekom (412 of 413 visits)",
            ),
            signal(
                RuleId::NewClient,
                0.9,
                "curl 8.14.1",
                "Chrome",
                "used with a new client: curl 8.14.1; usually Chrome (413 visits so far)",
            ),
        ],
        reason: "possibly two holders, used from a new country".to_owned(),
        action: Action::RevokeFamily,
        mode: Mode::Enforce,
        report: true,
        revoke: Some(Target::Family("ci-deploy".to_owned())),
    };
    let rules = tokenwarden::config::rule_file::shipped().map_or_else(|_| RuleSet::builtin(), |loaded| loaded.rules);
    println!(
        "{}",
        compose(Alert::Incident { incident: &incident, progress: &Progress::of(Revocation::Done) }, &rules).html
    );
}
