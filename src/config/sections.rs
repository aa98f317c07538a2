//! Sections of the configuration other than the settings of one adapter.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use crate::deliver::{BreakerSettings, Limits};
use crate::engine;
use crate::event::TokenType;
use crate::feed::{Feed, Tenant};
use crate::port::Radius;
use crate::revoke::HttpRevokerSettings;
use crate::source::kafka::KafkaSettings;
use crate::token::TokenIds;
use crate::verdict::{Mode, RuleId};
use crate::wire::Format;

/// Source of events: at most one of the two.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SourceSection {
    pub(crate) kafka: Option<KafkaSettings>,
    pub(crate) file: Option<FileSection>,
}

impl SourceSection {
    /// Whether all events have the same configured tenant.
    pub(crate) fn has_one_tenant(&self) -> bool {
        let topics = self.kafka.iter().flat_map(|kafka| &kafka.topics).map(|topic| topic.feed.tenant);
        let mut tenants = topics.chain(self.file.iter().map(|file| file.tenant));
        let Some(Some(first)) = tenants.next() else { return false };
        tenants.all(|tenant| tenant == Some(first))
    }
}

/// A file of events. The path `-` is standard input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileSection {
    pub(crate) path: PathBuf,
    #[serde(default)]
    pub(crate) format: Format,
    #[serde(default)]
    pub(crate) confirmed: bool,
    #[serde(default)]
    pub(crate) tenant: Option<Tenant>,
}

impl FileSection {
    /// Format, trust and tenant of its events.
    pub(crate) const fn feed(&self) -> Feed {
        Feed { format: self.format, confirmed: self.confirmed, tenant: self.tenant }
    }
}

/// Revocation of tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Revoke {
    /// Upper limit of the modes of all rules.
    pub(crate) mode: Mode,
    /// Maximum number of revocations per tenant and hour. Further ones wait.
    pub(crate) max_per_hour: u32,
    /// Maximum number of revocations of all tenants per hour. The default is five times `max_per_hour`.
    pub(crate) max_per_hour_total: Option<u32>,
    limits: LimitsSection,
    breakers: BreakersSection,
    pub(crate) http: Option<HttpRevokerSettings>,
}

/// Limits of revocations per hour of rules and applications, and of single tenants.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsSection {
    /// Of one rule in a tenant. The default is half of the tenant's limit.
    rule: Option<u32>,
    /// Of one rule in all tenants. The default is half of the limit of all tenants.
    rule_total: Option<u32>,
    /// Of one application of a tenant. The default is the tenant's limit.
    application: Option<u32>,
    /// By name, instead of `max_per_hour`, `rule` and `application`.
    tenants: BTreeMap<String, u32>,
    rules: BTreeMap<RuleId, u32>,
    applications: BTreeMap<String, u32>,
}

/// When revocations of a rule, an application or a tenant stop until a person lifts the stop. 0: never.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BreakersSection {
    /// Hours of a day in which revocations wait for a limit.
    full_hours: u32,
    /// Users for whom people refute revocations of a rule within 30 days.
    refuted: u32,
}

impl Default for BreakersSection {
    fn default() -> Self {
        let BreakerSettings { full_hours, refuted, .. } = BreakerSettings::default();
        Self { full_hours, refuted }
    }
}

/// Default of `max_per_hour_total`, in multiples of `max_per_hour`.
const TENANTS_AT_CAP: u32 = 5;

impl Default for Revoke {
    fn default() -> Self {
        Self {
            mode: Mode::Shadow,
            max_per_hour: 20,
            max_per_hour_total: None,
            limits: LimitsSection::default(),
            breakers: BreakersSection::default(),
            http: None,
        }
    }
}

impl Revoke {
    /// Maximum number of revocations of all tenants per hour.
    pub(crate) fn total_per_hour(&self) -> u32 {
        self.max_per_hour_total.unwrap_or(self.max_per_hour.saturating_mul(TENANTS_AT_CAP))
    }

    /// All limits of revocations per hour.
    pub(crate) fn limits(&self) -> Limits {
        let section = &self.limits;
        Limits {
            of_tenant: self.max_per_hour,
            total: self.total_per_hour(),
            of_rule: section.rule,
            of_rule_total: section.rule_total,
            of_application: section.application,
            tenants: section.tenants.clone(),
            rules: section.rules.clone(),
            applications: section.applications.clone(),
        }
    }

    /// When revocations stop. `None` unless the mode is `enforce`: nothing is requested. `has_one_tenant`: of all events.
    pub(crate) fn breakers(&self, has_one_tenant: bool) -> Option<BreakerSettings> {
        let BreakersSection { full_hours, refuted } = self.breakers;
        (self.mode == Mode::Enforce).then_some(BreakerSettings { full_hours, refuted, has_one_tenant })
    }

    /// Hours of a day in which revocations wait for a limit, after which they stop. 0: never.
    pub(crate) const fn full_hours(&self) -> u32 {
        self.breakers.full_hours
    }

    /// Key below `revoke` and number of each limit that is written in the configuration.
    fn written_limits(&self) -> Vec<(String, u32)> {
        let section = &self.limits;
        let of = |name: &str, limit: Option<u32>| limit.map(|limit| (name.to_owned(), limit));
        let single = [
            Some(("max_per_hour".to_owned(), self.max_per_hour)),
            of("max_per_hour_total", self.max_per_hour_total),
            of("limits.rule", section.rule),
            of("limits.rule_total", section.rule_total),
            of("limits.application", section.application),
        ];
        let tenants = section.tenants.iter().map(|(name, limit)| (format!("limits.tenants.{name}"), *limit));
        let rules = section.rules.iter().map(|(name, limit)| (format!("limits.rules.{name}"), *limit));
        let named = section.applications.iter();
        let applications = named.map(|(name, limit)| (format!("limits.applications.{name}"), *limit));
        single.into_iter().flatten().chain(tenants).chain(rules).chain(applications).collect()
    }

    /// The error is the key below `revoke` and the problem: a limit below `weight`, that of one request. 0 is
    /// valid: it stops the revocations.
    pub(crate) fn check_weight(&self, radius: Radius) -> Result<(), (String, String)> {
        let weight = radius.weight();
        let few = self.written_limits().into_iter().find(|(_, limit)| (1..weight).contains(limit));
        few.map_or(Ok(()), |(key, limit)| {
            let problem = format!(
                "is {limit}, and a revocation with the radius `{}` counts as {weight}, so none would be requested; set at \
                 least {weight}",
                radius.as_str()
            );
            Err((key, problem))
        })
    }

    /// The error is the key and the problem.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let total = self.total_per_hour();
        if self.max_per_hour > total {
            let problem = "must be at least `max_per_hour`, the limit of one tenant";
            return Err(("revoke.max_per_hour_total".to_owned(), problem.to_owned()));
        }
        if let Some((name, _)) = self.limits.tenants.iter().find(|(_, limit)| **limit > total) {
            let problem = "is more than `revoke.max_per_hour_total`, the limit of all tenants; raise that limit too";
            return Err((format!("revoke.limits.tenants.{name}"), problem.to_owned()));
        }
        if self.breakers.full_hours > 24 {
            let problem = "must be at most 24, the hours of a day; 0 turns it off";
            return Err(("revoke.breakers.full_hours".to_owned(), problem.to_owned()));
        }
        Ok(())
    }
}

/// Settings of scoring and verdicts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Detection {
    /// New incidents per tenant and day.
    pub(crate) alert_budget_per_day: u32,
    /// New incidents per day of all tenants together, in addition to the budget of each tenant.
    pub(crate) alert_budget_total_per_day: u32,
    pub(crate) lateness_ms_max: i64,
    pub(crate) clock_skew_ms_max: i64,
    /// Use the place that the producer sends with the event.
    pub(crate) trust_event_geo: bool,
    pub(crate) prior_log_odds: f64,
    pub(crate) revoke_margin: f64,
    /// Baselines per partition.
    pub(crate) baselines_max: usize,
    /// Event ids per partition that are stored to recognise duplicates.
    pub(crate) recent_event_ids_max: usize,
    /// Memory of the process, MiB. `None`: tables are limited by number only.
    pub(crate) memory_mib_max: Option<u64>,
    /// Find campaigns over the users of all partitions.
    pub(crate) campaigns: bool,
}

impl Default for Detection {
    fn default() -> Self {
        let engine = engine::Settings::default();
        Self {
            alert_budget_per_day: engine.alert_budget_per_day,
            alert_budget_total_per_day: engine.alert_budget_total_per_day,
            lateness_ms_max: engine.lateness_ms_max,
            clock_skew_ms_max: engine.clock_skew_ms_max,
            trust_event_geo: false,
            prior_log_odds: engine.prior_log_odds,
            revoke_margin: engine.revoke_margin,
            baselines_max: engine.baselines_max,
            recent_event_ids_max: engine.recent_event_ids_max,
            memory_mib_max: None,
            campaigns: false,
        }
    }
}

/// Folder in which alerts and revocations wait until they are delivered.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Outbox {
    pub(crate) dir: PathBuf,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { dir: PathBuf::from("outbox") }
    }
}

/// Snapshots of the memory.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SnapshotSection {
    /// Folder of the snapshots, instead of the topic of `source.kafka.state_topic`.
    pub(crate) dir: Option<PathBuf>,
    /// Time between two snapshots, milliseconds.
    pub(crate) interval_ms: i64,
}

impl Default for SnapshotSection {
    fn default() -> Self {
        Self { dir: None, interval_ms: 60_000 }
    }
}

/// The denylist, and the endpoint at which gateways check tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DenylistSection {
    pub(crate) listen: SocketAddr,
    /// Allows an address that is reachable from other machines. Requests contain tokens and are not encrypted.
    pub(crate) allow_plaintext: bool,
    /// Least time for which a revoked token or grant is denied.
    pub(crate) keep_hours: u32,
    /// The same of tokens of these types, if it is longer.
    pub(crate) lifetime_hours: BTreeMap<TokenType, u32>,
    /// Claims of a JWT that contain the `token_id` and `family_id` of the events.
    pub(crate) token_claim: String,
    pub(crate) grant_claim: String,
    /// The tenant of all requests. At most one of the three keys is set. Without any, the tenant of events without
    /// `tenant_id`.
    pub(crate) tenant: Option<String>,
    /// Claim of a JWT that contains the `tenant_id` of the events.
    pub(crate) tenant_claim: Option<String>,
    /// Header that the gateway sets to the tenant.
    pub(crate) tenant_header: Option<String>,
}

impl Default for DenylistSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9465),
            allow_plaintext: false,
            keep_hours: 24,
            lifetime_hours: BTreeMap::new(),
            token_claim: "jti".to_owned(),
            grant_claim: "sid".to_owned(),
            tenant: None,
            tenant_claim: None,
            tenant_header: None,
        }
    }
}

impl DenylistSection {
    /// Checks what the types do not ensure. The error is the key and the problem of its value.
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if !self.listen.ip().is_loopback() && !self.allow_plaintext {
            let problem = "is reachable from other machines, and requests contain tokens: listen on 127.0.0.1 beside the \
                           gateway, or set `denylist.allow_plaintext = true` in a network that encrypts";
            return Err(("denylist.listen", problem));
        }
        if !(1..=8_760).contains(&self.keep_hours) {
            return Err(("denylist.keep_hours", "must be between 1 and 8760 (365 days)"));
        }
        if self.lifetime_hours.values().any(|hours| !(self.keep_hours..=8_760).contains(hours)) {
            let problem = "has a value that is not between `denylist.keep_hours` and 8760 (365 days)";
            return Err(("denylist.lifetime_hours", problem));
        }
        if [&self.tenant, &self.tenant_claim, &self.tenant_header].into_iter().flatten().count() > 1 {
            return Err(("denylist", "has more than one of tenant, tenant_claim and tenant_header; keep one"));
        }
        Ok(())
    }
}

/// Silences of alerts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SilencesSection {
    /// Maximum duration of a silence.
    pub(crate) max_days: u32,
}

impl Default for SilencesSection {
    fn default() -> Self {
        Self { max_days: 30 }
    }
}

impl SilencesSection {
    /// Checks what the types do not ensure. The error is the key and the problem of its value.
    pub(super) const fn check(&self) -> Result<(), (&'static str, &'static str)> {
        match self.max_days {
            1..=365 => Ok(()),
            _ => Err(("silences.max_days", "must be between 1 and 365")),
        }
    }
}

/// Learning from feedback. It has no keys: the section turns it on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FeedbackSection {}

/// Closing of incidents.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IncidentsSection {
    /// Time after a revocation after which an incident is closed. 0: never.
    pub(crate) close_after_days: u32,
}

impl Default for IncidentsSection {
    fn default() -> Self {
        Self { close_after_days: 7 }
    }
}

/// Hashing of bearer values, so that they are never written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Privacy {
    /// Key for the hashes of bearer values. Without it, a key is created in the outbox folder.
    pub(crate) token_key: Option<SecretString>,
    /// Whether token ids that do not look like bearer values are hashed, too.
    pub(crate) token_ids: TokenIds,
}

/// HTTP server for metrics and health checks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Admin {
    pub(crate) listen: SocketAddr,
    /// Bearer token that clients must send. Required unless `listen` is a loopback address.
    pub(crate) token: Option<SecretString>,
    /// Allowed values of the header `Host`, in addition to loopback names and the address of `listen`.
    pub(crate) hosts: Vec<String>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464), token: None, hosts: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    fn mistake(text: &str) -> String {
        let loaded = Config::from_text(text, Path::new("t.toml"), []);
        loaded.expect_err("the configuration is wrong").to_string()
    }

    #[test]
    fn mistakes_in_limits_and_lifetimes_state_their_key() {
        insta::assert_snapshot!(mistake("[revoke.limits]\ntenants = { acme = 101 }"), @"t.toml:2: `revoke.limits.tenants.acme` is more than `revoke.max_per_hour_total`, the limit of all tenants; raise that limit too");
        insta::assert_snapshot!(mistake("[revoke.limits]\nrules = { new_iq = 4 }"), @"t.toml:2: unknown value `new_iq` of `revoke.limits.rules`; did you mean `new_ip`?");
        insta::assert_snapshot!(mistake("[revoke.breakers]\nfull_hours = 25"), @"t.toml:2: `revoke.breakers.full_hours` must be at most 24, the hours of a day; 0 turns it off");
        insta::assert_snapshot!(mistake("[denylist]\nlifetime_hours = { access = 1 }"), @"t.toml:2: `denylist.lifetime_hours` has a value that is not between `denylist.keep_hours` and 8760 (365 days)");
    }

    #[test]
    fn limits_and_lifetimes_are_read_by_name() {
        let text = "[revoke]\nmax_per_hour = 8\n[revoke.limits]\nrule = 3\nrules = { new_ip = 1 }\ntenants = { acme = 9 }\n\
                    [denylist]\nlifetime_hours = { api_key = 8760 }";
        let config = Config::from_text(text, Path::new("t.toml"), []).expect("the configuration is right");
        let limits = config.revoke.limits();
        assert_eq!((limits.of_tenant, limits.total, limits.of_rule), (8, 40, Some(3)));
        assert_eq!((limits.rules.len(), limits.tenants.get("acme")), (1, Some(&9)));
        let hours: Vec<_> = config.denylist.expect("a denylist").lifetime_hours.into_iter().collect();
        assert_eq!(hours, [(crate::event::TokenType::ApiKey, 8_760)]);
    }
}
