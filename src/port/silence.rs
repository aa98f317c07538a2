//! Silences: alerts of a scope that are not sent until a time. Detection, rows and revocations continue.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::record_log::{KEPT_MS, LogRecord};
use crate::millis::{DAY_MS, MINUTE_MS};
use crate::number::{counted, id_of};
use crate::verdict::{Incident, IncidentId, RuleId, Severity, Verdict, Victim};

/// Largest accepted difference between the clocks of the command and of a member.
const SKEW_MS: i64 = 5 * MINUTE_MS;

/// Identity of a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SilenceId(pub u64);

impl SilenceId {
    /// The id in a text such as `SIL-0123456789ABCDEF`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        id_of(text, "SIL-").map(Self)
    }
}

impl fmt::Display for SilenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIL-{:016X}", self.0)
    }
}

/// The incidents of a silence: those that fulfil every condition. A record with an unknown condition is unreadable, so
/// that an earlier version does not silence more than intended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scope {
    /// Empty text: events without a tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Every rule that fired is one of these.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub rules: BTreeSet<RuleId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
}

impl Scope {
    /// Whether it has no condition, so that it would contain every incident. The names of all rules are no condition.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.of_tenant_only() && self.tenant.is_none()
    }

    /// Whether the tenant is the only condition, if any.
    fn of_tenant_only(&self) -> bool {
        let has_rules = !self.rules.is_empty() && !RuleId::ALL.iter().all(|rule| self.rules.contains(rule));
        !has_rules && self.incident.is_none() && !self.has_victim()
    }

    const fn has_victim(&self) -> bool {
        self.user.is_some() || self.app.is_some() || self.grant.is_some()
    }

    /// Whether alerts about `incident` are in the scope. An incident of severity critical or with the verdict `revoke` is
    /// only in a scope that names an incident.
    fn contains(&self, incident: &Incident) -> bool {
        let is_grave = incident.severity == Severity::Critical || incident.verdict == Verdict::Revoke;
        !self.is_unlimited()
            && (!is_grave || self.incident.is_some())
            && self.incident.is_none_or(|id| id == incident.id)
            && self.tenant.as_ref().is_none_or(|tenant| *tenant == incident.tenant_id)
            && self.contains_rules(&incident.fired().collect())
            && self.contains_victims(incident)
    }

    /// Whether every unsent change is in the scope.
    fn contains_changes(&self, unsent: &Unsent) -> bool {
        let Unsent { victims, rules, .. } = unsent;
        let has_rules = || rules.as_ref().is_some_and(|rules| rules.iter().all(|fired| self.contains_rules(fired)));
        let has_victims = || {
            victims.as_ref().is_some_and(|victims| {
                let mut victims = victims.iter();
                victims.all(|victim| self.contains_victim(&victim.user_id, &victim.app_id, &victim.family_id))
            })
        };
        (self.rules.is_empty() || has_rules()) && (!self.has_victim() || has_victims())
    }

    fn contains_rules(&self, fired: &BTreeSet<RuleId>) -> bool {
        self.rules.is_empty() || !fired.is_empty() && fired.is_subset(&self.rules)
    }

    /// Every victim fulfils the conditions, so that a silence of one user does not hide that another one is affected.
    fn contains_victims(&self, incident: &Incident) -> bool {
        let are_listed = incident.victims_total as usize <= incident.victims.len().max(1);
        let mut victims = incident.victims.iter();
        !self.has_victim()
            || are_listed
                && self.contains_victim(&incident.user_id, &incident.app_id, &incident.family_id)
                && victims.all(|victim| self.contains_victim(&victim.user_id, &victim.app_id, &victim.family_id))
    }

    fn contains_victim(&self, user: &str, app: &str, grant: &str) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        is(&self.user, user) && is(&self.app, app) && is(&self.grant, grant)
    }
}

/// The changes of an incident that a channel has no message about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsent {
    /// Their different grants or tokens. `None`: too many.
    pub victims: Option<Vec<Victim>>,
    /// Their different sets of rules that fired. `None`: too many.
    pub rules: Option<Vec<BTreeSet<RuleId>>>,
    /// Time at which the incident last got graver: its severity or verdict rose, or a rule was added. Milliseconds since
    /// the epoch, wall clock.
    pub graver_at: i64,
}

/// A silence. Times are milliseconds since the epoch, wall clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    pub scope: Scope,
    pub by: String,
    pub reason: String,
    pub at: i64,
    pub until: i64,
}

/// Limits of the silences that have effect.
#[derive(Clone, Copy, Debug)]
pub struct SilenceLimits {
    /// Longest time from the beginning to the end, days.
    pub max_days: u32,
    /// Whether all events have the same tenant, so that a tenant is no condition.
    pub has_one_tenant: bool,
}

impl Default for SilenceLimits {
    fn default() -> Self {
        Self { max_days: 30, has_one_tenant: false }
    }
}

/// Why a silence has no effect. The texts contain no value of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SilenceProblem {
    Empty(&'static str),
    Unlimited,
    TenantOnly,
    Unsigned,
    InFuture,
    TooLong { days_max: u32 },
}

impl fmt::Display for SilenceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty(condition) => write!(f, "--{condition} is empty"),
            Self::Unlimited => f.write_str("the silence would match every incident"),
            Self::TenantOnly => f.write_str("the silence may match every incident, because it names a tenant only"),
            Self::Unsigned => f.write_str("the author or the reason is empty"),
            Self::InFuture => f.write_str("the silence begins in the future"),
            Self::TooLong { days_max } => {
                write!(f, "a silence may last at most {} (silences.max_days)", counted((*days_max).into(), "day"))
            }
        }
    }
}

impl Silence {
    /// Checks what the command and every member require. A process that can write to the log could otherwise silence every alert.
    pub(crate) fn check(&self, limits: SilenceLimits, now: i64) -> Result<(), SilenceProblem> {
        let Scope { user, app, grant, tenant, .. } = &self.scope;
        let named = [("app", app), ("user", user), ("grant", grant)];
        if let Some((condition, _)) = named.iter().find(|(_, value)| value.as_deref() == Some("")) {
            return Err(SilenceProblem::Empty(condition));
        }
        if self.scope.is_unlimited() {
            return Err(SilenceProblem::Unlimited);
        }
        if self.scope.of_tenant_only() && (limits.has_one_tenant || tenant.as_deref() == Some("")) {
            return Err(SilenceProblem::TenantOnly);
        }
        if self.by.trim().is_empty() || self.reason.trim().is_empty() {
            return Err(SilenceProblem::Unsigned);
        }
        if self.at > now.saturating_add(SKEW_MS) {
            return Err(SilenceProblem::InFuture);
        }
        if self.until.saturating_sub(self.at) > i64::from(limits.max_days) * DAY_MS {
            return Err(SilenceProblem::TooLong { days_max: limits.max_days });
        }
        Ok(())
    }

    /// Whether it withholds a message about `incident`. A silence of an incident ends when the incident gets graver.
    pub(crate) fn withholds(&self, incident: &Incident, unsent: &Unsent) -> bool {
        let is_known = self.scope.incident.is_none() || unsent.graver_at <= self.at;
        is_known && self.scope.contains(incident) && self.scope.contains_changes(unsent)
    }
}

/// A silence, or what one member has withheld because of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilenceKey {
    pub silence: SilenceId,
    /// Name of the member. Empty for the silence itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub member: String,
}

/// Numbers of alerts that a member has withheld.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WithheldCount {
    pub alerts: u64,
    pub incidents: u64,
    /// The highest log-odds of the incidents, nats.
    pub log_odds_max: f64,
    /// Time of the count.
    pub at: i64,
}

/// What is recorded for a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SilenceState {
    Added(Silence),
    /// A person has ended it early.
    Expired {
        silence: Silence,
        at: i64,
        by: String,
        reason: String,
    },
    Withheld(WithheldCount),
}

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SilenceRecord {
    #[serde(flatten)]
    pub key: SilenceKey,
    pub state: SilenceState,
}

impl LogRecord for SilenceRecord {
    type Key = SilenceKey;
    type Value = SilenceState;
    const NAME: &'static str = "silences";
    const IF_LOST: &'static str = "silences end early";

    fn of(key: SilenceKey, state: SilenceState) -> Self {
        Self { key, state }
    }

    fn key(&self) -> &SilenceKey {
        &self.key
    }

    fn value(&self) -> &SilenceState {
        &self.state
    }

    fn is_kept(&self, now: i64) -> bool {
        let ended = match &self.state {
            SilenceState::Added(silence) => silence.until,
            SilenceState::Expired { at, .. } | SilenceState::Withheld(WithheldCount { at, .. }) => *at,
        };
        ended > now - KEPT_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{BaselineId, Timestamp};
    use crate::verdict::{Action, CampaignId, Mode, Signal};

    fn minor() -> Incident {
        let at = Timestamp::from_millis(1_795_000_000_000).expect("a time");
        let signal = Signal {
            rule: RuleId::NewIp,
            share: 2.0,
            p_value: 1e-3,
            fired: true,
            observed: String::new(),
            expected: String::new(),
            reason: String::new(),
        };
        Incident {
            id: IncidentId(0x42),
            opened_at: at,
            updated_at: at,
            severity: Severity::Medium,
            verdict: Verdict::Alert,
            baseline: BaselineId(7),
            subject: "g-1".to_owned(),
            tenant_id: "acme".to_owned(),
            token_id: "at-9".to_owned(),
            family_id: "g-1".to_owned(),
            user_id: "ana".to_owned(),
            app_id: "crm".to_owned(),
            session_id: String::new(),
            token_type: crate::event::TokenType::Other,
            expires_at: None,
            event_id: "e-1".to_owned(),
            change: 1,
            campaign_id: CampaignId(0x43),
            victims: Vec::new(),
            victims_total: 1,
            tenant_is_new: false,
            log_odds: 4.0,
            signals: vec![signal],
            reason: String::new(),
            action: Action::Alert,
            mode: Mode::Alert,
            report: true,
            revoke: None,
        }
    }

    #[test]
    fn scope_requires_every_condition() {
        let found = minor();
        let (user, tenant, grant) =
            (Some(found.user_id.clone()), Some(found.tenant_id.clone()), Some(found.family_id.clone()));
        assert!(!Scope::default().contains(&found), "a silence without a condition matches nothing");
        let every_rule = Scope { rules: RuleId::ALL.iter().copied().collect(), ..Scope::default() };
        assert!(every_rule.is_unlimited(), "the names of all rules are no condition");
        let scope = Scope { user, tenant: tenant.clone(), ..Scope::default() };
        assert!(scope.contains(&found));
        assert!(!Scope { tenant: Some("other".to_owned()), ..scope.clone() }.contains(&found));
        assert!(!Scope { app: Some("other".to_owned()), ..scope.clone() }.contains(&found));
        assert!(!Scope { user: Some(String::new()), ..scope.clone() }.contains(&found));
        assert!(Scope { incident: Some(found.id), ..scope.clone() }.contains(&found));
        assert!(!Scope { incident: Some(IncidentId(1)), ..scope }.contains(&found));
        assert!(Scope { grant, ..Scope::default() }.contains(&found));
        assert!(Scope { tenant, ..Scope::default() }.contains(&found));
    }

    #[test]
    fn scope_contains_every_fired_rule() {
        let of = |rules: &[RuleId]| Scope { rules: rules.iter().copied().collect(), ..Scope::default() };
        let signal = minor().signals[0].clone();
        let signal = |rule, fired| Signal { rule, fired, ..signal.clone() };
        let signals = vec![signal(RuleId::NewIp, true), signal(RuleId::RefreshReuse, false)];
        let found = Incident { signals: signals.clone(), ..minor() };
        assert!(of(&[RuleId::NewIp]).contains(&found), "a rule that did not fire does not count");
        assert!(!of(&[RuleId::RefreshReuse]).contains(&found));
        let both = Incident { signals: [signals, vec![signal(RuleId::NewClient, true)]].concat(), ..minor() };
        assert!(!of(&[RuleId::NewIp]).contains(&both), "another rule fired, too");
        assert!(of(&[RuleId::NewIp, RuleId::NewClient]).contains(&both));
        assert!(!of(&[RuleId::NewIp]).contains(&Incident { signals: Vec::new(), ..minor() }));
    }

    #[test]
    fn scope_contains_every_victim() {
        let victim = |user: &str| Victim { user_id: user.to_owned(), ..Victim::default() };
        let found = minor();
        let scope = Scope { user: Some(found.user_id.clone()), ..Scope::default() };
        let with = |victims: Vec<Victim>, victims_total| Incident {
            victims: victims.into_iter().map(Into::into).collect(),
            victims_total,
            ..found.clone()
        };
        assert!(scope.contains(&with(vec![victim(&found.user_id), victim(&found.user_id)], 2)));
        assert!(!scope.contains(&with(vec![victim(&found.user_id), victim("bob")], 2)));
        assert!(!scope.contains(&with(vec![victim(&found.user_id)], 2)), "a victim that is not listed");
        assert!(Scope { tenant: Some(found.tenant_id.clone()), ..Scope::default() }.contains(&with(Vec::new(), 500)));
    }

    #[test]
    fn grave_incident_needs_its_id_in_the_scope() {
        let incident = Scope { incident: Some(minor().id), ..Scope::default() };
        let grave =
            [Incident { severity: Severity::Critical, ..minor() }, Incident { verdict: Verdict::Revoke, ..minor() }];
        for grave in &grave {
            for wide in [
                Scope { user: Some(minor().user_id), ..Scope::default() },
                Scope { grant: Some(minor().family_id), ..Scope::default() },
            ] {
                assert!(wide.contains(&minor()) && !wide.contains(grave));
            }
            assert!(incident.contains(grave));
        }
    }

    #[test]
    fn unknown_unsent_changes_are_not_silenced() {
        let scope = Scope { tenant: Some("acme".to_owned()), ..Scope::default() };
        let unknown = Unsent::default();
        assert!(scope.contains_changes(&unknown), "the tenant of an incident does not change");
        assert!(!Scope { rules: [RuleId::NewIp].into(), ..scope.clone() }.contains_changes(&unknown));
        assert!(!Scope { grant: Some("g-1".to_owned()), ..scope }.contains_changes(&unknown));
    }

    #[test]
    fn record_with_unknown_condition_is_unreadable() {
        let scope =
            Scope { user: Some("a\u{202e}\n\"'; DROP".to_owned()), rules: [RuleId::NewIp].into(), ..Scope::default() };
        let silence = Silence { scope, by: "ana".to_owned(), reason: "a test".to_owned(), at: 5, until: 9 };
        let key = SilenceKey { silence: SilenceId(u64::MAX), member: String::new() };
        let record = SilenceRecord { key, state: SilenceState::Added(silence) };
        let line = serde_json::to_string(&record).expect("JSON");
        assert_eq!(serde_json::from_str::<SilenceRecord>(&line).expect("a record"), record);
        let newer = line.replace("\"user\"", "\"network\":\"x\",\"user\"");
        assert!(serde_json::from_str::<SilenceRecord>(&newer).is_err(), "{newer}");
        assert!(record.is_kept(9 + KEPT_MS - 1) && !record.is_kept(9 + KEPT_MS));
    }

    #[test]
    fn id_reads_back() {
        let id = SilenceId(0x0123_4567_89ab_cdef);
        assert_eq!(SilenceId::parse(&id.to_string()), Some(id));
        for wrong in ["", "SIL-", "SIL-1", "INC-0123456789ABCDEF", "SIL-0123456789ABCDEG"] {
            assert_eq!(SilenceId::parse(wrong), None, "{wrong}");
        }
    }
}
