//! Alert channels, and the text of alerts for terminals. All channels have the same structure ([`block`]).

mod brief;
mod channel;
mod email;
mod escape;
mod http;
mod mail;
mod ocsf;
mod ocsf_file;
mod ocsf_kafka;
mod settings;
mod shipped;
mod signals;
mod summary;
mod syslog;
mod user_text;
mod users;
mod webhook;
mod words;

pub use self::channel::{OpenTopic, open_channel};
pub use self::email::{Email, EmailSettings, StartTls};
pub use self::mail::compose;
pub use self::settings::{ChannelKind, ChannelSettings};
pub use self::summary::block;
pub use self::user_text::UserTexts;
pub use self::users::{UserEmailSettings, UserNoticeSettings, open_users};
pub use self::webhook::{Webhook, WebhookSettings};

#[cfg(test)]
pub(crate) mod tests {
    use crate::event::{BaselineId, Timestamp};
    use crate::verdict::{Action, CampaignId, Incident, IncidentId, Mode, RuleId, Severity, Signal, Target, Verdict};

    /// The incident of the tests in this module.
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
            session_id: "s-9".to_owned(),
            token_type: crate::event::TokenType::Other,
            expires_at: None,
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
            report: true,
            revoke: Some(Target::Family("ci-deploy".to_owned())),
        }
    }
}
