//! The alert rules and the dashboard in `deploy/monitoring` use metrics, labels and runbooks that exist.

use std::collections::BTreeSet;

use yaml_rust2::{Yaml, YamlLoader};

use super::{Condition, Health, Metrics, StoreState};
use crate::port::{ActionOutcome, GapKind, OffsetGap};
use crate::tally::{Note, Tally};

const ALERTS: &str = include_str!("../../deploy/monitoring/alerts.yaml");
const DASHBOARD: &str = include_str!("../../deploy/monitoring/dashboard.json");
const RUNBOOKS: &str = include_str!("../../docs/runbooks.md");
const PREFIX: &str = "tokenwarden_";

/// The text of `/metrics` of a service to which everything has happened, since a family without a label is not exported.
fn everything() -> String {
    let metrics = Metrics::new();
    let mut tally = Tally { skipped: vec![("a service call", 1)], ..Tally::default() };
    let notes = [
        Note::Unreadable("tenant_id"),
        Note::WithoutAddress(crate::format::Format::Native),
        Note::ConfirmedIgnored,
        Note::Redacted,
        Note::OpaqueIds,
    ];
    for note in notes {
        tally.note(&"t".into(), note, 1);
    }
    metrics.epoch_done(&tally);
    metrics.states("t", crate::engine::Counters { ahead: 1, behind: 1, ..Default::default() });
    metrics.conditions(&Health::default(), 0);
    metrics.lag("t", 0, Some(1));
    metrics.rebuild_left("t", 0, Some(1));
    metrics.memory_since("t-0", Some(1));
    metrics.memory_of_table("baselines", 1, 1);
    metrics.offset_gap(&OffsetGap {
        kind: GapKind::Deleted,
        topic: "t".into(),
        partition: 0,
        expected: 0,
        resumed: 1,
        end: 2,
    });
    metrics.sightings("read", 1);
    metrics.snapshot_age("t-0", Some(1));
    metrics.snapshot_stored("t-0", 1);
    metrics.snapshot_failed();
    metrics.store_state(StoreState::Ok);
    metrics.reloaded("done");
    metrics.delivered("email", ActionOutcome::Done);
    metrics.revoked(ActionOutcome::Done);
    metrics.lane_panicked("email");
    metrics.channel_rejecting("email", true);
    metrics.text()
}

/// Names of the exported series.
fn exported() -> BTreeSet<String> {
    let text = everything();
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// Names of metrics in an expression of Prometheus.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    expression.split(move |letter| !is_part(letter)).filter(|word| word.starts_with(PREFIX))
}

/// Metrics in `expressions` that no service exports.
fn unknown<'e>(expressions: impl IntoIterator<Item = &'e str>) -> Vec<&'e str> {
    let exported = exported();
    assert!(exported.contains("tokenwarden_store_write_seconds_bucket"), "{exported:?}");
    expressions.into_iter().flat_map(names).filter(|name| !exported.contains(*name)).collect()
}

fn alerts() -> Vec<Yaml> {
    let documents = YamlLoader::load_from_str(ALERTS).expect("it is YAML");
    let groups = documents[0]["groups"].as_vec().expect("groups");
    groups.iter().flat_map(|group| group["rules"].as_vec().expect("rules").clone()).collect()
}

#[test]
fn alert_rules_use_exported_metrics() {
    let alerts = alerts();
    assert!(alerts.len() > 10);
    let expressions: Vec<_> = alerts.iter().map(|alert| alert["expr"].as_str().expect("an expression")).collect();
    assert_eq!(unknown(expressions.iter().copied()), [""; 0]);
    let conditions: BTreeSet<_> = Condition::ALL.map(Condition::name).into();
    let mut alerted = BTreeSet::new();
    for expression in &expressions {
        for rest in expression.split("condition=").skip(1) {
            let named = rest.trim_start_matches('~').split('"').nth(1).expect("a value in quotes");
            alerted.extend(named.split('|'));
        }
    }
    let unknown: Vec<_> = alerted.difference(&conditions).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // Alerts for these use another metric.
    let elsewhere = BTreeSet::from(["store", "offset_gap"]);
    let missing: Vec<_> = conditions.difference(&alerted).filter(|name| !elsewhere.contains(*name)).collect();
    assert!(missing.is_empty(), "no alert for {missing:?}");
}

#[test]
fn alert_rules_have_severity_summary_and_runbook() {
    let mut seen = BTreeSet::new();
    for alert in alerts() {
        let name = alert["alert"].as_str().expect("a name").to_owned();
        let severity = alert["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("critical" | "warning")), "{name}: {severity:?}");
        let annotation = |key: &str| alert["annotations"][key].as_str().unwrap_or_default();
        assert!(!annotation("summary").is_empty(), "{name} has no summary");
        assert_eq!(annotation("runbook"), format!("docs/runbooks.md#{}", name.to_lowercase()));
        assert!(RUNBOOKS.contains(&format!("\n## {name}\n")), "{name} has no runbook");
        assert!(seen.insert(name.clone()), "{name} is there twice");
    }
    let runbooks = RUNBOOKS.lines().filter_map(|line| line.strip_prefix("## Tokenwarden"));
    let without_alert: Vec<_> = runbooks.filter(|name| !seen.contains(&format!("Tokenwarden{name}"))).collect();
    assert!(without_alert.is_empty(), "{without_alert:?}");
}

#[test]
fn dashboard_uses_exported_metrics() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions: Vec<_> = targets.map(|target| target["expr"].as_str().expect("an expression")).collect();
    assert!(expressions.len() > 20);
    assert!(expressions.iter().all(|expression| names(expression).next().is_some()));
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let queries = variables.iter().filter_map(|variable| variable["query"]["query"].as_str());
    assert_eq!(unknown(expressions.iter().copied().chain(queries)), [""; 0]);
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have the same id");
}
