//! Rules that follow their files: a change, or a nudge, and the running service judges by the new ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};

use super::rule_file;
use crate::rule::RuleSet;
use crate::telemetry::Metrics;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Name, length and time of change of each file: what tells that something has changed.
type Fingerprint = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// Watches `dir` and sends its rules whenever they change, and whenever `nudge` asks, until nobody listens. Rules with
/// a mistake in them are told once and not sent: the old ones go on.
pub async fn follow(dir: PathBuf, rules: watch::Sender<Arc<RuleSet>>, nudge: Arc<Notify>, metrics: Arc<Metrics>) {
    let mut seen = fingerprint(&dir);
    while !rules.is_closed() {
        let nudged = tokio::select! {
            () = nudge.notified() => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let now = fingerprint(&dir);
        if now == seen && !nudged {
            continue;
        }
        seen = now;
        match rule_file::load(&dir) {
            Ok(loaded) => {
                metrics.reloaded("done");
                tracing::info!(dir = %dir.display(), "rules reloaded");
                rules.send_replace(Arc::new(loaded.rules));
            }
            Err(errors) => {
                metrics.reloaded("refused");
                for error in errors {
                    tracing::error!(%error, "rules not reloaded; the old ones go on");
                }
            }
        }
    }
}

fn fingerprint(dir: &Path) -> Fingerprint {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Fingerprint = entries
        .filter_map(|entry| {
            let about = entry.metadata().ok()?;
            Some((entry.path(), about.len(), about.modified().ok()))
        })
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::RuleId;

    #[tokio::test]
    async fn changed_rules_are_taken_and_wrong_ones_are_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/new_country.toml");
        let text = std::fs::read_to_string(source).expect("a rule");
        let file = dir.path().join("new_country.toml");
        let write = |severity: &str| {
            let from = text.lines().find(|line| line.starts_with("severity")).expect("a severity");
            std::fs::write(&file, text.replace(from, &format!("severity = \"{severity}\""))).expect("a file");
        };
        write("low");
        let loaded = rule_file::load(dir.path()).expect("the rules are right");
        let (sender, mut receiver) = watch::channel(Arc::new(loaded.rules));
        let nudge = Arc::new(Notify::new());
        let metrics = Arc::new(Metrics::new());
        tokio::spawn(follow(dir.path().to_owned(), sender, Arc::clone(&nudge), Arc::clone(&metrics)));
        let severity = |rules: &RuleSet| rules.rule(RuleId::NewCountry).severity.as_str();

        write("frightful");
        nudge.notify_one();
        let told = |metrics: &Metrics| metrics.text().contains("rule_reloads_total{result=\"refused\"} 1");
        while !told(&metrics) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!receiver.has_changed().expect("the follower lives"), "wrong rules were sent");

        write("critical");
        nudge.notify_one();
        receiver.changed().await.expect("the follower lives");
        assert_eq!(severity(&receiver.borrow_and_update().clone()), "critical");
    }
}
