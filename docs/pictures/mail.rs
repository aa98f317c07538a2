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
                4.6,
                "Berlin, DE and São Paulo, BR in turn, 3 changes in 9 min",
                "one holder at a time (412 of 413 sightings)",
                "two holders take turns",
            ),
            signal(
                RuleId::NewCountry,
                2.6,
                "São Paulo, BR, AS28573 Claro",
                "Berlin, DE, AS3320 Deutsche Telekom (412 of 413 sightings)",
                "never seen in Brazil before",
            ),
            signal(
                RuleId::NewClient,
                0.9,
                "curl 8",
                "Chrome 144 on Linux (all sightings)",
                "a client that it has never used",
            ),
        ],
        reason: "two holders, DE and BR, within 9 minutes".to_owned(),
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
