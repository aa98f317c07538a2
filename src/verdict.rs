//! Results of scoring: signals, verdict, incident and requested action. Plain data without effects.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::{BaselineId, Timestamp, TokenType};
use crate::number::id_of;

/// Declares [`RuleId`] with its wire names and groups in one table.
macro_rules! rule_ids {
    ($($variant:ident = $name:literal, $group:ident;)+) => {
        /// Identity of a rule: the file `rules/<id>.toml`, and the part of the score that it names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum RuleId { $(#[serde(rename = $name)] $variant,)+ }

        impl RuleId {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)+];

            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            pub(crate) const fn group(self) -> Group {
                match self { $(Self::$variant => Group::$group,)+ }
            }
        }
    };
}

rule_ids! {
    NewCountry = "new_country", Place;
    ImpossibleTravel = "impossible_travel", Place;
    NewIp = "new_ip", Place;
    NewNetwork = "new_network", Place;
    UnusualTime = "unusual_time", Time;
    VolumeSpike = "volume_spike", Volume;
    BytesSpike = "bytes_spike", Volume;
    NewClient = "new_client", Client;
    NewEndpoint = "new_endpoint", Calls;
    SensitiveEndpoint = "sensitive_endpoint", Calls;
    Enumeration = "enumeration", Calls;
    ConcurrentUse = "concurrent_use", Holders;
    RefreshReuse = "refresh_reuse", Lifecycle;
    UseAfterRevocation = "use_after_revocation", Lifecycle;
    UseAfterSessionEnd = "use_after_session_end", Lifecycle;
    UseAfterExpiry = "use_after_expiry", Lifecycle;
    StaleAfterCredentialChange = "stale_after_credential_change", Lifecycle;
    BindingMismatch = "binding_mismatch", Lifecycle;
    TokenAge = "token_age", Lifecycle;
    AppFanout = "app_fanout", Campaign;
    IpFanout = "ip_fanout", Campaign;
}

impl RuleId {
    pub const COUNT: usize = Self::ALL.len();

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|id| id.as_str() == text)
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Subject of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Group {
    Place,
    Time,
    Volume,
    Client,
    Calls,
    Holders,
    Lifecycle,
    Campaign,
}

impl Group {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Time => "time",
            Self::Volume => "volume",
            Self::Client => "client",
            Self::Calls => "calls",
            Self::Holders => "holders",
            Self::Lifecycle => "lifecycle",
            Self::Campaign => "campaign",
        }
    }
}

/// Severity of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    pub(crate) const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

/// Permitted actions of a rule or of the whole installation. The order allows a ceiling to be a minimum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Events are scored, stored and reported. A revocation is only recorded as one that would have been made.
    #[default]
    Shadow,
    /// As shadow, and the alert asks the reader to revoke.
    Alert,
    /// Revocations are requested automatically.
    Enforce,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Shadow, Self::Alert, Self::Enforce];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Alert => "alert",
            Self::Enforce => "enforce",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.as_str() == text)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Allow,
    Watch,
    Alert,
    Revoke,
}

impl Verdict {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Watch => "watch",
            Self::Alert => "alert",
            Self::Revoke => "revoke",
        }
    }
}

/// The action that the verdict requests. The [`Mode`] decides whether it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    None,
    Alert,
    RevokeToken,
    RevokeFamily,
}

impl Action {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Alert => "alert",
            Self::RevokeToken => "revoke_token",
            Self::RevokeFamily => "revoke_family",
        }
    }
}

/// Finding of one rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    pub rule: RuleId,
    /// The rule's part of the log-odds, nats.
    pub share: f64,
    /// The owner's probability of an observation at least as unusual.
    pub p_value: f64,
    /// `share` reaches the rule's threshold.
    pub fired: bool,
    pub observed: String,
    pub expected: String,
    /// One sentence for people.
    pub reason: String,
}

/// Identity of an incident. The same baseline and opening time always give the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IncidentId(pub u64);

impl IncidentId {
    /// The id in a text such as `INC-0123456789ABCDEF`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        id_of(text, "INC-").map(Self)
    }
}

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "INC-{:016X}", self.0)
    }
}

/// What a person found out about an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// Another party than the owner used the token.
    True,
    /// The owner used the token.
    False,
    /// Unusual, and allowed: a test, a new tool, a trip.
    Benign,
}

impl Judgement {
    /// The word in the command, the table and the record.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::True => "true",
            Self::False => "false",
            Self::Benign => "benign",
        }
    }
}

/// Links incidents of several tenants with one cause. Visible only to the operator of all tenants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CampaignId(pub u64);

impl fmt::Display for CampaignId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CAM-{:016X}", self.0)
    }
}

/// A grant, or a token without a grant, that an incident affects. Fields that the event does not have are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    pub token_id: String,
    pub family_id: String,
    pub user_id: String,
    pub app_id: String,
}

impl Victim {
    /// Memory with its texts, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let Self { token_id, family_id, user_id, app_id } = self;
        size_of::<Self>() + [token_id, family_id, user_id, app_id].map(String::len).iter().sum::<usize>()
    }
}

/// A victim in the list of an incident. The changes of an incident share it, because thousands of changes can wait at
/// once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedVictim(Arc<Victim>);

impl From<Victim> for SharedVictim {
    fn from(victim: Victim) -> Self {
        Self(Arc::new(victim))
    }
}

impl Deref for SharedVictim {
    type Target = Victim;

    fn deref(&self) -> &Victim {
        &self.0
    }
}

impl Serialize for SharedVictim {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedVictim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Victim::deserialize(deserializer).map(Self::from)
    }
}

/// Maximum number of victims that an incident lists. Further ones are counted.
pub(crate) const VICTIMS_MAX: usize = 100;

/// Target of a revocation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Token(String),
    Family(String),
}

impl Target {
    /// `token` or `family`.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Family(_) => "family",
        }
    }

    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Token(id) | Self::Family(id) => id,
        }
    }

    pub(crate) const fn action(&self) -> Action {
        match self {
            Self::Token(_) => Action::RevokeToken,
            Self::Family(_) => Action::RevokeFamily,
        }
    }
}

/// State of an incident after the event that opened or changed it. Self-contained, because it outlives the event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    pub id: IncidentId,
    /// Event time of the event that opened it.
    pub opened_at: Timestamp,
    /// Event time of the event that changed it last.
    pub updated_at: Timestamp,
    pub severity: Severity,
    pub verdict: Verdict,
    pub baseline: BaselineId,
    /// The family or token of the baseline, as text.
    pub subject: String,
    pub tenant_id: String,
    pub token_id: String,
    pub family_id: String,
    pub user_id: String,
    pub app_id: String,
    /// The session of the event that changed it last. Empty if the event has none.
    #[serde(default)]
    pub session_id: String,
    /// Type and expiry of the token, as far as they are known.
    #[serde(default)]
    pub token_type: TokenType,
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// The event that changed it last.
    pub event_id: String,
    /// Identity of that event by tenant, id and content, because two events may have one id.
    #[serde(default)]
    pub change: u64,
    /// Incidents of other tenants with the same cause have the same campaign.
    #[serde(default)]
    pub campaign_id: CampaignId,
    /// The first [`VICTIMS_MAX`] grants and tokens of the incident, in the order in which they joined.
    #[serde(default)]
    pub victims: Vec<SharedVictim>,
    /// Number of all victims.
    #[serde(default)]
    pub victims_total: u32,
    /// The tenant has too few visits to have limits of its own. Its name may be invented, so such tenants share their
    /// limits.
    #[serde(default)]
    pub tenant_is_new: bool,
    pub log_odds: f64,
    /// Largest share first.
    pub signals: Vec<Signal>,
    /// One sentence: what happened.
    pub reason: String,
    pub action: Action,
    pub mode: Mode,
    /// To be reported: the incident is new, its severity rose, it has a new rule or victim, or an action is taken.
    #[serde(rename = "tell")] // The name in the files of the outbox.
    pub report: bool,
    /// To be revoked, if `mode` allows it. Requested once per incident and target.
    pub revoke: Option<Target>,
}

impl Incident {
    /// Rules that fired in the last event.
    pub(crate) fn fired(&self) -> impl Iterator<Item = RuleId> + '_ {
        self.signals.iter().filter(|signal| signal.fired).map(|signal| signal.rule)
    }
}

/// Result of scoring one event.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Natural log-odds that another party than the owner holds the token; always finite.
    pub log_odds: f64,
    /// Prior log-odds, and alert threshold when this event was scored.
    pub prior_log_odds: f64,
    pub alert_from: f64,
    /// A policy requests the alert, independent of the log-odds.
    pub by_policy: bool,
    /// It would have been an alert, but the tenant's alert budget was used up.
    pub withheld: bool,
    /// Share of honest visits with log-odds at least as high, in (0, 1].
    pub p_value: f64,
    /// The largest share first; empty for an ordinary event.
    pub signals: Vec<Signal>,
    /// The incident to which this event belongs.
    pub incident_id: Option<IncidentId>,
    /// Present if this event opened or changed the incident.
    pub incident: Option<Box<Incident>>,
    pub action: Action,
    pub mode: Mode,
}

/// Life-cycle evidence from which a revocation is requested without other evidence, nats.
pub(crate) const LIFECYCLE_CERTAIN: f64 = 13.0;

/// The decisive signals: certain life-cycle signals if there are any, otherwise each signal without which `log_odds`
/// would be below `alert_from`. None if `log_odds` is below it.
pub(crate) fn decisive(signals: &[Signal], log_odds: f64, alert_from: f64) -> impl Iterator<Item = &Signal> {
    let certain = |signal: &Signal| signal.rule.group() == Group::Lifecycle && signal.share >= LIFECYCLE_CERTAIN;
    let is_certain = signals.iter().any(certain);
    let needed = move |signal: &Signal| log_odds >= alert_from && log_odds - signal.share < alert_from;
    signals.iter().filter(move |signal| if is_certain { certain(signal) } else { needed(signal) })
}

impl Outcome {
    /// Outcome without signals: the log-odds are the prior.
    pub const fn quiet(prior_log_odds: f64, alert_from: f64, mode: Mode) -> Self {
        Self {
            verdict: Verdict::Allow,
            log_odds: prior_log_odds,
            prior_log_odds,
            alert_from,
            by_policy: false,
            withheld: false,
            p_value: 1.0,
            signals: Vec::new(),
            incident_id: None,
            incident: None,
            action: Action::None,
            mode,
        }
    }

    /// The rules of the decisive signals. None if this is no alert, or a policy requested it.
    pub(crate) fn decisive(&self) -> impl Iterator<Item = RuleId> {
        let alarms = self.verdict >= Verdict::Alert && !self.by_policy;
        decisive(&self.signals, self.log_odds, self.alert_from).filter(move |_| alarms).map(|signal| signal.rule)
    }

    /// `ln(1 + e^log_odds)`: finite, ≥ 0, increasing with the log-odds.
    pub fn score(&self) -> f64 {
        if self.log_odds > 30.0 { self.log_odds } else { libm::log1p(libm::exp(self.log_odds)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_id_reads_back() {
        for id in RuleId::ALL {
            assert_eq!(RuleId::parse(id.as_str()), Some(*id));
        }
        assert_eq!(RuleId::parse("no_such_rule"), None);
    }

    #[test]
    fn score_is_the_softplus_of_the_log_odds() {
        let at = |log_odds| Outcome { log_odds, ..Outcome::quiet(-7.0, 2.0, Mode::Shadow) };
        assert!((at(-7.0).score() - 9.114_664_e-4).abs() < 1e-9);
        assert!((at(0.0).score() - std::f64::consts::LN_2).abs() < 1e-12);
        assert!((at(800.0).score() - 800.0).abs() < 1e-12);
    }
}
