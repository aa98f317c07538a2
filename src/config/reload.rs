//! Reloads rule files that change while the service runs.
//!
//! A reload is applied completely or not at all. It is refused if a file has an error, or if the file of an active rule
//! is missing. An incomplete copy of the folder therefore does not disable detection. To disable a rule of a running
//! service, set `status = "disabled"` in its file.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use xxhash_rust::xxh3::xxh3_64;

use super::rule_change::{Change, changes, lost};
use super::rule_file::{self, LoadedRules, RuleFileError};
use crate::millis::DAY_MS;
use crate::port::{Clock, Notice, Outbox};
use crate::rule::RuleSet;
use crate::telemetry::Metrics;

/// Time between two checks of the files. Changed files are read when two checks in a row find the same state.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Time between two checks after SIGHUP.
const SETTLE: Duration = Duration::from_millis(250);
/// Maximum number of lines in a notice. The log has all of them.
const NOTICE_LINES_MAX: usize = 10;

/// Keeps the active rules equal to those of a folder.
pub(crate) struct Follower {
    pub(crate) dir: PathBuf,
    /// The rules with which the service started; later the active rules.
    pub(crate) in_force: LoadedRules,
    pub(crate) rules: watch::Sender<Arc<RuleSet>>,
    /// Notified at SIGHUP.
    pub(crate) nudge: Arc<Notify>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Follower {
    /// Watches the folder until all receivers of `rules` are dropped.
    pub(crate) async fn run(self) {
        let nudge = Arc::clone(&self.nudge);
        let mut watch = Watch::new(self);
        watch.report_missing();
        let mut wait = LOOK_EVERY;
        while !watch.follower.rules.is_closed() {
            let nudged = tokio::select! {
                () = nudge.notified() => true,
                () = tokio::time::sleep(wait) => false,
            };
            watch.unread |= nudged;
            watch.look();
            wait = if nudged && watch.unread { SETTLE } else { LOOK_EVERY };
        }
    }
}

/// A follower with the state of the files.
struct Watch {
    follower: Follower,
    /// State of the files at the last check.
    seen: Vec<FileState>,
    /// Whether the files may differ from the active rules.
    unread: bool,
    /// Whether the folder is refused and a notice was sent.
    refused: bool,
    /// Notices that could not be written to the outbox yet.
    unsent: Vec<(String, Notice)>,
}

impl Watch {
    fn new(follower: Follower) -> Self {
        // Files that changed since the start of the service are read by the first check.
        let seen = file_states(&follower.dir);
        Self { follower, seen, unread: true, refused: false, unsent: Vec::new() }
    }

    /// Checks the files once, and reads them if they have changed and are no longer being written.
    fn look(&mut self) {
        self.send_notices();
        let now = file_states(&self.follower.dir);
        if now != self.seen {
            (self.seen, self.unread) = (now, true);
            return;
        }
        if !self.unread {
            return;
        }
        let read = rule_file::load(&self.follower.dir);
        // A file that changed meanwhile may have been read incompletely.
        let after = file_states(&self.follower.dir);
        self.unread = after != self.seen;
        if self.unread {
            self.seen = after;
            return;
        }
        let problems = match read {
            Ok(loaded) => match lost(&self.follower.in_force, &loaded) {
                lost if lost.is_empty() => return self.accept(loaded),
                lost => lost,
            },
            Err(errors) => errors.iter().map(RuleFileError::to_string).collect(),
        };
        self.refuse(&problems);
    }

    fn accept(&mut self, loaded: LoadedRules) {
        let Follower { dir, in_force, rules, metrics, clock, .. } = &mut self.follower;
        self.refused = false;
        metrics.reloaded("done");
        metrics.rules_refused(false);
        metrics.rules_without_file(loaded.missing.len());
        let changes = changes(&in_force.rules, &loaded.rules);
        tracing::info!(dir = %dir.display(), changed = changes.len(), "rules reloaded");
        for change in &changes {
            tracing::info!(rule = change.rule.as_str(), change = change.what, "rule changed");
        }
        rules.send_replace(Arc::new(loaded.rules.clone()));
        *in_force = loaded;
        let reported: Vec<_> = changes.iter().filter(|change| change.is_reported).map(Change::to_line).collect();
        if !reported.is_empty() {
            let at = clock.now_millis();
            let text = format!("The rules in {} were reloaded:\n{}", dir.display(), lines(&reported));
            let notice = Notice { title: "rules were disabled or may now revoke".to_owned(), text, at, about: None };
            self.notify(format!("rules-changed-{at}"), notice);
        }
    }

    fn refuse(&mut self, problems: &[String]) {
        let Follower { dir, metrics, clock, .. } = &self.follower;
        metrics.reloaded("refused");
        metrics.rules_refused(true);
        for problem in problems {
            tracing::error!(problem, "rules not reloaded; the previous rules stay active");
        }
        if self.refused {
            return;
        }
        self.refused = true;
        let at = clock.now_millis();
        let text = format!(
            "The rules in {} have changed and cannot be used. The previous rules stay active.\n{}\nCorrect the files. They \
             are read again when they change. To disable a rule, set status = \"disabled\" in its file.",
            dir.display(),
            lines(problems)
        );
        self.notify(
            format!("rules-refused-{at}"),
            Notice { title: "changed rules are refused".to_owned(), text, at, about: None },
        );
    }

    /// Reports rules that are disabled at the start because the folder has no file for them.
    fn report_missing(&mut self) {
        let Follower { dir, in_force, metrics, clock, .. } = &self.follower;
        metrics.rules_without_file(in_force.missing.len());
        let Some(missing) = in_force.missing_note() else { return };
        let at = clock.now_millis();
        let text = format!(
            "The service started with the rules in {}. {missing}. Copy the rule files of this version. To keep a rule \
             disabled, set status = \"disabled\" in its file.",
            dir.display()
        );
        // The key limits the notice to one per day, even if the service restarts often.
        let key = format!("rules-missing-{:016x}-{}", xxh3_64(missing.as_bytes()), at.div_euclid(DAY_MS));
        self.notify(
            key,
            Notice { title: "rules are disabled because they have no file".to_owned(), text, at, about: None },
        );
    }

    fn notify(&mut self, key: String, notice: Notice) {
        self.unsent.push((key, notice));
        self.send_notices();
    }

    fn send_notices(&mut self) {
        let outbox = &self.follower.outbox;
        self.unsent.retain(|(key, notice)| {
            let sent = outbox.notify(key, notice.clone());
            if let Err(error) = &sent {
                tracing::error!(%error, "cannot write a notice about the rules to the outbox; retrying");
            }
            sent.is_err()
        });
    }
}

/// State of a file, to detect changes. Symbolic links are followed, because Kubernetes replaces a link to change mounted
/// configuration.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct FileState {
    path: PathBuf,
    device: u64,
    inode: u64,
    length: u64,
    /// Status change time (ctime) in seconds and nanoseconds. A program cannot set it back, unlike the modification time.
    changed: (i64, i64),
}

impl FileState {
    fn new(path: PathBuf, about: &Metadata) -> Self {
        let changed = (about.ctime(), about.ctime_nsec());
        Self { path, device: about.dev(), inode: about.ino(), length: about.len(), changed }
    }
}

fn file_states(dir: &Path) -> Vec<FileState> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.path();
            let about = std::fs::metadata(&path).ok()?;
            Some(FileState::new(path, &about))
        })
        .collect();
    files.sort();
    files
}

/// The first lines of `all`, and how many follow.
fn lines(all: &[String]) -> String {
    let mut lines: Vec<_> = all.iter().take(NOTICE_LINES_MAX).map(|line| format!("- {line}")).collect();
    if all.len() > NOTICE_LINES_MAX {
        lines.push(format!("- and {} more, in the log", all.len() - NOTICE_LINES_MAX));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::rule::Status;
    use crate::verdict::{Incident, Mode, RuleId};

    struct Noon;

    impl Clock for Noon {
        fn now_millis(&self) -> i64 {
            1_792_584_000_000
        }
    }

    /// Stores the titles and texts of notices. Refuses them while `full`.
    #[derive(Default)]
    struct Notices {
        taken: Mutex<Vec<(String, String)>>,
        full: std::sync::atomic::AtomicBool,
    }

    impl Notices {
        fn titles(&self) -> Vec<String> {
            self.taken.lock().expect("a lock").iter().map(|(title, _)| title.clone()).collect()
        }

        fn last_text(&self) -> String {
            self.taken.lock().expect("a lock").last().map_or_else(String::new, |(_, text)| text.clone())
        }
    }

    impl Outbox for Notices {
        fn take(&self, _: &[Incident]) -> std::io::Result<()> {
            Ok(())
        }

        fn notify(&self, _: &str, notice: Notice) -> std::io::Result<()> {
            if self.full.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.taken.lock().expect("a lock").push((notice.title, notice.text));
            Ok(())
        }

        fn persist(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A folder with three of the shipped rules, and its follower.
    struct Rig {
        dir: tempfile::TempDir,
        watch: Watch,
        rules: watch::Receiver<Arc<RuleSet>>,
        notices: Arc<Notices>,
        metrics: Arc<Metrics>,
    }

    const RULES: [&str; 3] = ["new_country", "new_ip", "token_age"];

    impl Rig {
        fn start() -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            for rule in RULES {
                std::fs::write(dir.path().join(format!("{rule}.toml")), shipped(rule)).expect("a file");
            }
            let in_force = rule_file::load(dir.path()).expect("the rules are right");
            let (sender, rules) = watch::channel(Arc::new(in_force.rules.clone()));
            let (notices, metrics) = (Arc::new(Notices::default()), Arc::new(Metrics::new()));
            let follower = Follower {
                dir: dir.path().to_owned(),
                in_force,
                rules: sender,
                nudge: Arc::default(),
                metrics: Arc::clone(&metrics),
                outbox: Arc::clone(&notices) as _,
                clock: Arc::new(Noon),
            };
            let mut rig = Self { dir, watch: Watch::new(follower), rules, notices, metrics };
            rig.settle();
            rig.rules.mark_unchanged();
            rig
        }

        fn write(&self, rule: &str, text: &str) {
            std::fs::write(self.dir.path().join(format!("{rule}.toml")), text).expect("a file");
        }

        /// The first check finds changed files, the second finds them unchanged and reads them.
        fn settle(&mut self) {
            self.watch.look();
            self.watch.look();
        }

        fn is_changed(&self) -> bool {
            self.rules.has_changed().expect("the follower exists")
        }

        fn severity(&mut self) -> &'static str {
            self.rules.borrow_and_update().rule(RuleId::NewCountry).severity.as_str()
        }

        fn has_metric(&self, line: &str) -> bool {
            self.metrics.text().lines().any(|there| there == format!("tokenwarden_{line}"))
        }
    }

    fn shipped(rule: &str) -> String {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("rules/{rule}.toml"));
        std::fs::read_to_string(file).expect("a rule")
    }

    fn with(rule: &str, key: &str, value: &str) -> String {
        let text = shipped(rule);
        let line = text.lines().find(|line| line.starts_with(key)).expect("the key").to_owned();
        text.replace(&line, &format!("{key} = \"{value}\""))
    }

    #[test]
    fn reload_activates_changed_rules() {
        let mut rig = Rig::start();
        rig.write("new_country", &with("new_country", "severity", "critical"));
        rig.settle();
        assert!(rig.is_changed());
        assert_eq!(rig.severity(), "critical");
        assert!(rig.has_metric("rules_reload_refused 0"), "{}", rig.metrics.text());
        assert_eq!(rig.notices.titles(), [""; 0], "a changed severity is not reported");
        rig.watch.look();
        assert!(!rig.is_changed(), "unchanged files are not read again");
    }

    #[test]
    fn reload_waits_until_files_are_written() {
        let mut rig = Rig::start();
        rig.write("new_country", &with("new_country", "severity", "low"));
        rig.watch.unread = true;
        rig.watch.look();
        rig.write("new_country", &with("new_country", "severity", "critical"));
        rig.watch.look();
        assert!(!rig.is_changed(), "the files changed between two checks");
        rig.watch.look();
        assert_eq!(rig.severity(), "critical");
    }

    #[test]
    fn reload_without_all_active_rules_is_refused() {
        type Damage = fn(&Path);
        let damages: [(Damage, &str); 6] = [
            (|dir| std::fs::remove_file(dir.join("new_ip.toml")).expect("removed"), "new_ip.toml is missing"),
            (|dir| std::fs::write(dir.join("new_ip.toml"), "").expect("cut"), "lacks the key"),
            (
                |dir| {
                    let text = shipped("new_ip");
                    let end = text.find("[places]").expect("places");
                    std::fs::write(dir.join("new_ip.toml"), &text[..end]).expect("cut");
                },
                "may be truncated",
            ),
            (|dir| std::fs::rename(dir.join("new_ip.toml"), dir.join("new_ip.tmp")).expect("moved"), "is missing"),
            (
                |dir| {
                    for rule in RULES {
                        std::fs::remove_file(dir.join(format!("{rule}.toml"))).expect("gone");
                    }
                },
                "has no rule file",
            ),
            (|dir| std::fs::remove_dir_all(dir).expect("gone"), "cannot be read"),
        ];
        for (damage, problem) in damages {
            let mut rig = Rig::start();
            // A change that would be valid alone.
            rig.write("new_country", &with("new_country", "severity", "critical"));
            damage(rig.dir.path());
            rig.settle();
            assert!(!rig.is_changed(), "{problem}");
            assert_eq!(rig.notices.titles(), ["changed rules are refused"]);
            assert!(rig.notices.last_text().contains(problem), "{}", rig.notices.last_text());
            assert!(rig.has_metric("rules_reload_refused 1"), "{}", rig.metrics.text());
            rig.watch.unread = true;
            rig.watch.look();
            assert_eq!(rig.notices.titles().len(), 1, "one notice is sent");
            // All files are restored.
            std::fs::create_dir_all(rig.dir.path()).expect("a folder");
            for rule in RULES {
                rig.write(rule, &shipped(rule));
            }
            rig.settle();
            assert!(rig.is_changed() && rig.has_metric("rules_reload_refused 0"), "{problem}");
            std::fs::remove_file(rig.dir.path().join("new_ip.toml")).expect("removed");
            rig.settle();
            assert_eq!(rig.notices.titles().len(), 2, "another refusal is reported again");
        }
    }

    #[test]
    fn reload_disables_a_rule_by_its_status() {
        let mut rig = Rig::start();
        rig.write("new_ip", &with("new_ip", "status", "disabled"));
        rig.settle();
        assert_eq!(rig.rules.borrow_and_update().rule(RuleId::NewIp).status, Status::Disabled);
        assert!(rig.notices.last_text().contains("new_ip: status stable → disabled"), "{}", rig.notices.last_text());
        std::fs::remove_file(rig.dir.path().join("new_ip.toml")).expect("removed");
        rig.settle();
        assert!(rig.is_changed(), "the file of a disabled rule may be removed");
    }

    #[test]
    fn reload_that_lets_a_rule_revoke_is_reported() {
        let mut rig = Rig::start();
        rig.write("new_country", &with("new_country", "mode", "enforce"));
        rig.settle();
        assert_eq!(rig.rules.borrow_and_update().rule(RuleId::NewCountry).mode, Mode::Enforce);
        assert!(rig.notices.last_text().contains("new_country: mode shadow → enforce"), "{}", rig.notices.last_text());
    }

    #[test]
    fn notice_waits_for_a_full_outbox() {
        let mut rig = Rig::start();
        rig.notices.full.store(true, std::sync::atomic::Ordering::Relaxed);
        rig.write("new_country", "");
        rig.settle();
        assert_eq!(rig.notices.titles().len(), 0);
        rig.notices.full.store(false, std::sync::atomic::Ordering::Relaxed);
        rig.watch.look();
        assert_eq!(rig.notices.titles(), ["changed rules are refused"]);
    }

    #[test]
    fn start_without_rule_files_is_reported() {
        let mut rig = Rig::start();
        rig.watch.report_missing();
        assert_eq!(rig.notices.titles(), ["rules are disabled because they have no file"]);
        assert!(rig.notices.last_text().contains("impossible_travel, new_network"), "{}", rig.notices.last_text());
        assert!(rig.has_metric("rules_without_file 18"), "{}", rig.metrics.text());
    }
}
