//! `tokenwarden shadow report`: what each rule revoked or would have revoked, and what is known about it.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::explain::{StoreArguments, line, store_error};
use super::failure::Failure;
use super::{delivery, moment};
use crate::config::Config;
use crate::deliver::{Caps, Limits};
use crate::evidence::{self, Evidence, THIN_BELOW};
use crate::number::grouped;
use crate::port::{Clock as _, Limit, Radius};
use crate::rule::Status;
use crate::store::Reader;
use crate::telemetry::SystemClock;
use crate::verdict::{Mode, RuleId};

/// Evidence for the decision which rules may revoke.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show for each rule what it revoked or would have revoked, and how much of it was confirmed or refuted.
    Report(Report),
}

#[derive(Debug, Args)]
struct Report {
    #[command(flatten)]
    store: StoreArguments,
    /// Begin of the period, in event time: RFC 3339, a date, or 30m, 12h or 7d before now.
    #[arg(long, value_name = "TIME", default_value = SINCE)]
    since: String,
}

/// Default begin of the period.
const SINCE: &str = "90d";

/// Prints the report.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Command::Report(report) = &arguments.command;
    let config = Config::load(report.store.config())?;
    let since = moment::parse(&report.since, SystemClock.now_millis(), "--since")?;
    let (weight, topics, rules_dir) = (weight(&config)?, evidence::confirming_topics(&config), rules_dir(&config));
    let (limits, full_hours) = (config.revoke.limits(), config.revoke.full_hours());
    let (mode, settings) = (config.revoke.mode, config.store.clone());
    report.store.answer(settings, text, async |reader| {
        let rows = evidence::read(reader, since, &topics).await.map_err(|error| store_error(&error))?;
        let rules = evidence::by_rule(&rows, Caps { limits: &limits, weight }, full_hours);
        let rules: Vec<Value> = rules.iter().map(|rule| of_rule(rule, &rules_dir, mode)).collect();
        Ok(json!({
            "since": crate::millis::rfc3339(since), "thin_below": THIN_BELOW, "caps": caps(&limits, weight),
            "full_hours": full_hours,
            "revoke_mode": mode, "rules": rules,
        }))
    })
}

/// Warnings about rules that may revoke although their evidence is thin. None if the store cannot be read: this is no
/// check of the store.
pub(super) async fn thin_evidence(config: &Config, reader: &Reader) -> Vec<String> {
    let enforcing = config.load_rules().map(|loaded| {
        let rules = RuleId::ALL.iter().map(|id| loaded.rules.rule(*id));
        let rules =
            rules.filter(|rule| rule.status != Status::Disabled && rule.mode.min(config.revoke.mode) == Mode::Enforce);
        rules.map(|rule| rule.id.as_str()).collect::<Vec<_>>()
    });
    let Ok(enforcing) = enforcing else { return Vec::new() };
    let (Ok(since), Ok(weight)) = (moment::parse(SINCE, SystemClock.now_millis(), "--since"), weight(config)) else {
        return Vec::new();
    };
    if enforcing.is_empty() {
        return Vec::new();
    }
    let Ok(rows) = evidence::read(reader, since, &evidence::confirming_topics(config)).await else { return Vec::new() };
    let known = evidence::by_rule(&rows, Caps { limits: &config.revoke.limits(), weight }, 0);
    let judged = |rule: &str| known.iter().find(|of| of.rule == rule).map_or(0, Evidence::judged);
    let thin = enforcing.into_iter().map(|rule| (rule, judged(rule))).filter(|(_, judged)| *judged < THIN_BELOW);
    thin.map(|(rule, judged)| {
        format!(
            "{rule} may revoke, and its evidence is thin: {judged} revocations of the last {SINCE} were confirmed or \
             refuted, fewer than {THIN_BELOW}; see `tokenwarden shadow report`"
        )
    })
    .collect()
}

/// The number of revocations that one request to the configured provider counts as.
fn weight(config: &Config) -> Result<u32, Failure> {
    let clock: std::sync::Arc<dyn crate::port::Clock> = std::sync::Arc::new(SystemClock);
    let radius = delivery::provider(config, &clock)?.and_then(|provider| provider.radius());
    Ok(radius.map_or(1, Radius::weight))
}

fn caps(limits: &Limits, weight: u32) -> Value {
    json!({
        "max_per_hour": limits.of_tenant, "max_per_hour_total": limits.total, "counts_as": weight,
        "rule": limits.of_rule, "rule_total": limits.of_rule_total, "application": limits.of_application,
        "tenants": limits.tenants, "rules": limits.rules, "applications": limits.applications,
    })
}

/// The folder of the rule files for the line that promotes a rule. `RULES_DIR`: none is configured, so the operator chooses
/// one for `rules_dir`.
fn rules_dir(config: &Config) -> String {
    config.rules_dir.as_ref().map_or_else(|| "RULES_DIR".to_owned(), |dir| dir.display().to_string())
}

fn of_rule(evidence: &Evidence, rules_dir: &str, mode: Mode) -> Value {
    let precision = evidence.precision();
    let mut limits = Vec::new();
    if mode != Mode::Enforce {
        limits.push(format!("revoke.mode is \"{}\", which limits every rule", mode.as_str()));
    }
    json!({
        "rule": evidence.rule, "grants": evidence.grants, "users": evidence.users, "tenants": evidence.tenants,
        "enforced": evidence.enforced, "confirmed_theft": evidence.theft, "refuted": evidence.owner,
        "n": evidence.judged(), "precision": precision.map(|(share, _)| share),
        "precision_low": precision.map(|(_, (low, _))| low), "precision_high": precision.map(|(_, (_, high))| high),
        "evidence_is_thin": evidence.is_thin(), "would_wait_for_caps": evidence.would_wait.values().sum::<u64>(),
        "would_wait_for": evidence.would_wait, "would_be_stopped": evidence.would_stop,
        "waited_for_caps": evidence.capped, "stopped_by_breakers": evidence.stopped,
        "failed_requests": evidence.failed,
        "promote": format!("{rules_dir}/{}.toml: mode = \"enforce\"", evidence.rule), "notes": limits,
    })
}

fn text(report: &Value) -> String {
    let mut text = String::new();
    let put = |text: &mut String, words: &str| line(text, &[words]);
    let since = report["since"].as_str().unwrap_or_default();
    let rules = report["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    if rules.is_empty() {
        put(&mut text, &format!("since {since}: no rule revoked or would have revoked anything"));
        return text;
    }
    put(&mut text, &format!("since {since}, by the rule with the largest share in the log-odds"));
    for rule in rules {
        let number = |name: &str| rule[name].as_u64().map(grouped).unwrap_or_default();
        let words = |name: &str| rule[name].as_str().unwrap_or_default();
        put(&mut text, "");
        put(&mut text, words("rule"));
        put(
            &mut text,
            &format!(
                "  revocations     {} grants of {} users and {} tenants, {} of them in mode enforce",
                number("grants"),
                number("users"),
                number("tenants"),
                number("enforced")
            ),
        );
        put(
            &mut text,
            &format!(
                "  known           {} thefts confirmed, {} refuted, n = {}",
                number("confirmed_theft"),
                number("refuted"),
                number("n")
            ),
        );
        if let (Some(share), Some(low), Some(high)) =
            (rule["precision"].as_f64(), rule["precision_low"].as_f64(), rule["precision_high"].as_f64())
        {
            put(&mut text, &format!("  precision       {share:.3} (95 % interval {low:.3} to {high:.3})"));
        }
        if rule["evidence_is_thin"] == true {
            let below = report["thin_below"].as_u64().unwrap_or_default();
            put(&mut text, &format!("  evidence is thin: fewer than {below} revocations were confirmed or refuted"));
        }
        let (waiting, stopped) = (number("would_wait_for_caps"), number("would_be_stopped"));
        let by_limit = by_limit(&rule["would_wait_for"]);
        put(
            &mut text,
            &format!(
                "  limits          {waiting} would wait for the hourly limits{by_limit}, breakers would stop {stopped}"
            ),
        );
        let [waited, stopped, failed] = ["waited_for_caps", "stopped_by_breakers", "failed_requests"].map(number);
        put(
            &mut text,
            &format!(
                "  in enforce      {waited} waited for limits, breakers stopped {stopped}, {failed} requests failed"
            ),
        );
        put(&mut text, &format!("  to promote      {}", words("promote")));
        for note in rule["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            put(&mut text, &format!("                  {note}"));
        }
    }
    put(&mut text, "");
    put(&mut text, "Shadow mode sends no request, so it is not known how many requests would have failed.");
    text
}

/// The limits for which requests would wait: ` (3 rule, 2 tenant)`. Empty if none would.
fn by_limit(waiting: &Value) -> String {
    let limits = Limit::ALL.into_iter().filter_map(|limit| {
        let count = waiting[limit.as_str()].as_u64()?;
        Some(format!("{} {}", grouped(count), limit.as_str()))
    });
    let limits: Vec<_> = limits.collect();
    if limits.is_empty() { String::new() } else { format!(" ({})", limits.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_states_thin_evidence_and_the_line_that_promotes() {
        let evidence = Evidence { rule: "new_country".into(), grants: 40, users: 3, tenants: 2, ..Evidence::default() };
        let judged = Evidence {
            theft: 38,
            owner: 2,
            would_wait: [(Limit::Rule, 1_200), (Limit::Tenant, 4)].into(),
            would_stop: 900,
            ..evidence.clone()
        };
        let rules = [of_rule(&evidence, "rules", Mode::Shadow), of_rule(&judged, "rules", Mode::Enforce)];
        let report = json!({ "since": "2026-09-01T00:00:00Z", "thin_below": THIN_BELOW, "rules": rules });
        insta::assert_snapshot!(text(&report), @r#"
        since 2026-09-01T00:00:00Z, by the rule with the largest share in the log-odds

        new_country
          revocations     40 grants of 3 users and 2 tenants, 0 of them in mode enforce
          known           0 thefts confirmed, 0 refuted, n = 0
          evidence is thin: fewer than 30 revocations were confirmed or refuted
          limits          0 would wait for the hourly limits, breakers would stop 0
          in enforce      0 waited for limits, breakers stopped 0, 0 requests failed
          to promote      rules/new_country.toml: mode = "enforce"
                          revoke.mode is "shadow", which limits every rule

        new_country
          revocations     40 grants of 3 users and 2 tenants, 0 of them in mode enforce
          known           38 thefts confirmed, 2 refuted, n = 40
          precision       0.950 (95 % interval 0.831 to 0.994)
          limits          1,204 would wait for the hourly limits (4 tenant, 1,200 rule), breakers would stop 900
          in enforce      0 waited for limits, breakers stopped 0, 0 requests failed
          to promote      rules/new_country.toml: mode = "enforce"

        Shadow mode sends no request, so it is not known how many requests would have failed.
        "#);
    }
}
