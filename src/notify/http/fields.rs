//! Values of an alert that the templates of a preset can contain.

use std::borrow::Cow;

use serde_json::Value;

use crate::millis::{DAY_MS, rfc3339};
use crate::notify::{brief, ocsf};
use crate::port::{Alert, IncidentState, Notice, Progress};
use crate::verdict::{Incident, Severity};

/// Longest value that a preset does not limit, UTF-16 code units.
const UNITS_MAX: usize = 250;

/// One alert, and when it is sent.
#[derive(Clone, Copy)]
pub(super) struct Sending<'a> {
    pub(super) alert: Alert<'a>,
    pub(super) key: &'a str,
    /// Milliseconds since the epoch, wall clock.
    pub(super) now: i64,
    /// Values of the incident whose work the notice is about.
    pub(super) state: Option<&'a IncidentState>,
}

/// A value of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The same for all retries of one message.
    Key,
    /// The same for all messages of one incident.
    Id,
    /// `incident` or `notice`.
    Kind,
    /// In the receiver's words.
    Severity,
    /// One line: severity, account and reasons.
    Headline,
    /// Several lines: reasons with shares, revocations, victims and ids.
    Details,
    /// Time of the last change, of the opening, and 24 hours after sending. RFC 3339.
    Time,
    Opened,
    Ends,
    Tenant,
    User,
    App,
    Grant,
    TokenId,
    /// Ids of the rules that fired, separated by commas.
    Rules,
    /// State of the revocation, one word.
    Revocation,
    /// The OCSF Detection Finding, as JSON.
    Finding,
}

pub(super) const FIELDS: [(&str, Field); 17] = [
    ("key", Field::Key),
    ("id", Field::Id),
    ("kind", Field::Kind),
    ("severity", Field::Severity),
    ("headline", Field::Headline),
    ("details", Field::Details),
    ("time", Field::Time),
    ("opened", Field::Opened),
    ("ends", Field::Ends),
    ("tenant", Field::Tenant),
    ("user", Field::User),
    ("app", Field::App),
    ("grant", Field::Grant),
    ("token_id", Field::TokenId),
    ("rules", Field::Rules),
    ("revocation", Field::Revocation),
    ("finding", Field::Finding),
];

impl Field {
    /// Maximum length unless the preset has another, UTF-16 code units.
    pub(super) const fn units_max(self) -> usize {
        match self {
            Self::Details => 3_000,
            _ => UNITS_MAX,
        }
    }

    /// The value, not escaped. Empty if the alert does not have it.
    pub(super) fn text<'a>(self, of: &Sending<'a>) -> Cow<'a, str> {
        match of.alert {
            Alert::Incident { incident, progress } => self.of_incident(of, incident, progress),
            Alert::Notice(notice) => match (self, notice.handled(), of.state) {
                (Self::Id, Some(handled), _) => handled.incident.to_string().into(),
                (Self::Opened, Some(handled), _) => rfc3339(handled.opened_at).into(),
                (Self::Tenant, _, Some(state)) => (&*state.tenant_id).into(),
                (Self::User, _, Some(state)) => (&*state.user_id).into(),
                (Self::App, _, Some(state)) => (&*state.app_id).into(),
                _ => self.of_notice(of, notice),
            },
        }
    }

    fn of_notice<'a>(self, of: &Sending<'a>, notice: &'a Notice) -> Cow<'a, str> {
        match self {
            Self::Key | Self::Id => of.key.into(),
            Self::Kind => "notice".into(),
            Self::Headline => format!("[tokenwarden] {}", notice.title).into(),
            Self::Details => (&*notice.text).into(),
            Self::Time | Self::Opened => rfc3339(notice.at).into(),
            Self::Ends => rfc3339(of.now + DAY_MS).into(),
            Self::Severity
            | Self::Tenant
            | Self::User
            | Self::App
            | Self::Grant
            | Self::TokenId
            | Self::Rules
            | Self::Revocation
            | Self::Finding => "".into(),
        }
    }

    fn of_incident<'a>(self, of: &Sending<'a>, incident: &'a Incident, progress: &Progress) -> Cow<'a, str> {
        match self {
            Self::Key => of.key.into(),
            Self::Id => incident.id.to_string().into(),
            Self::Kind => "incident".into(),
            Self::Headline => brief::headline(incident, progress).into(),
            Self::Details => brief::details(incident, progress).into(),
            Self::Time => rfc3339(incident.updated_at.millis()).into(),
            Self::Opened => rfc3339(incident.opened_at.millis()).into(),
            Self::Ends => rfc3339(of.now + DAY_MS).into(),
            Self::Tenant => (&*incident.tenant_id).into(),
            Self::User => (&*incident.user_id).into(),
            Self::App => (&*incident.app_id).into(),
            Self::Grant => (&*incident.family_id).into(),
            Self::TokenId => (&*incident.token_id).into(),
            Self::Rules => {
                let fired = incident.signals.iter().filter(|signal| signal.fired);
                fired.map(|signal| signal.rule.as_str()).collect::<Vec<_>>().join(",").into()
            }
            Self::Revocation => ocsf::revocation_word(&progress.revocation).into(),
            Self::Severity | Self::Finding => "".into(),
        }
    }
}

impl Sending<'_> {
    /// A notice about the service is as grave as an incident of severity high.
    pub(super) fn severity(&self) -> Severity {
        match self.alert {
            Alert::Incident { incident, .. } => incident.severity,
            Alert::Notice(_) => self.state.map_or(Severity::High, |state| state.severity),
        }
    }

    pub(super) fn finding(&self) -> Value {
        ocsf::finding(self.alert, self.key)
    }
}
