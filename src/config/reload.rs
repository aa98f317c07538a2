//! Rule files that change while the service runs.
//!
//! A folder of rules is taken as a whole or not at all. It is refused if a file has a mistake in it, and if a rule that
//! is in force has no file any more: a folder that was copied by half must not end detection. To disable a rule of a
//! running service, set `status = "disabled"` in its file.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use xxhash_rust::xxh3::xxh3_64;

use super::rule_file::{self, LoadedRules, RuleCases, RuleFileError};
use crate::port::{Clock, Notice, Outbox};
use crate::rule::{Rule, RuleSet, Status};
use crate::telemetry::Metrics;
use crate::verdict::{Mode, RuleId};

/// Time between two looks at the files. Changed files are read once two looks in a row find them alike.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The same where the operator asks for a look.
const SETTLE: Duration = Duration::from_millis(250);
/// Lines of a notice; the log has all of them.
const NOTICE_LINES_MAX: usize = 10;
const DAY_MS: i64 = 86_400_000;

/// Keeps the rules in force those of a folder.
pub struct Follower {
    pub dir: PathBuf,
    /// What the service began with.
    pub in_force: LoadedRules,
    pub rules: watch::Sender<Arc<RuleSet>>,
    /// Notified when the operator asks for a look.
    pub nudge: Arc<Notify>,
    pub metrics: Arc<Metrics>,
    pub outbox: Arc<dyn Outbox>,
    pub clock: Arc<dyn Clock>,
}

impl Follower {
    /// Watches the folder until nobody listens to `rules` any more.
    pub async fn run(self) {
        let nudge = Arc::clone(&self.nudge);
        let mut watch = Watch::new(self);
        watch.report_missing();
        let mut wait = LOOK_EVERY;
        while !watch.follower.rules.is_closed() {
            let nudged = tokio::select! {
                () = nudge.notified() => true,
                () = tokio::time::sleep(wait) => false,
            };
            watch.look(nudged);
            wait = if nudged && watch.unread { SETTLE } else { LOOK_EVERY };
        }
    }
}

/// A follower with what it knows of the files.
struct Watch {
    follower: Follower,
    /// The files at the last look.
    seen: Vec<FileState>,
    /// Whether the files may differ from the rules in force.
    unread: bool,
    /// Whether the folder is refused and people know it.
    refused: bool,
    /// Notices that the outbox did not take yet.
    unsent: Vec<(String, Notice)>,
}

impl Watch {
    fn new(follower: Follower) -> Self {
        // Files that changed after the service read them are noticed by the first reading.
        let seen = file_states(&follower.dir);
        Self { follower, seen, unread: true, refused: false, unsent: Vec::new() }
    }

    /// Looks once, and reads the files if they have changed and are not being written any more.
    fn look(&mut self, nudged: bool) {
        self.send_notices();
        self.unread |= nudged;
        let now = file_states(&self.follower.dir);
        if now != self.seen {
            (self.seen, self.unread) = (now, true);
            return;
        }
        if !self.unread {
            return;
        }
        let read = rule_file::load(&self.follower.dir);
        // A file that was written meanwhile may have been read by half.
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
            tracing::info!(rule = change.rule.as_str(), change = change.what, "a rule has changed");
        }
        rules.send_replace(Arc::new(loaded.rules.clone()));
        *in_force = loaded;
        let told: Vec<_> = changes.iter().filter(|change| change.is_grave).map(Change::to_line).collect();
        if !told.is_empty() {
            let at = clock.now_millis();
            let text = format!("The rules in {} were reloaded:\n{}", dir.display(), lines(&told));
            let notice = Notice { title: "rules were disabled or may now revoke".to_owned(), text, at };
            self.notify(format!("rules-changed-{at}"), notice);
        }
    }

    fn refuse(&mut self, problems: &[String]) {
        let Follower { dir, metrics, clock, .. } = &self.follower;
        metrics.reloaded("refused");
        metrics.rules_refused(true);
        for problem in problems {
            tracing::error!(problem, "rules not reloaded; the rules in force stay");
        }
        if self.refused {
            return;
        }
        self.refused = true;
        let at = clock.now_millis();
        let text = format!(
            "The rules in {} have changed and cannot be used. The rules that were in force before stay in force.\n{}\n\
             Put the files right: they are read again when they change. To disable a rule, set status = \"disabled\" in \
             its file.",
            dir.display(),
            lines(problems)
        );
        self.notify(format!("rules-refused-{at}"), Notice { title: "changed rules are refused".to_owned(), text, at });
    }

    /// Reports rules that were disabled from the start because the folder has no file for them.
    fn report_missing(&mut self) {
        let Follower { dir, in_force, metrics, clock, .. } = &self.follower;
        metrics.rules_without_file(in_force.missing.len());
        let Some(missing) = in_force.missing_note() else { return };
        let at = clock.now_millis();
        let text = format!(
            "The service has started with the rules in {}. {missing}. Copy the files that come with this version. To \
             keep a rule disabled, set status = \"disabled\" in its file.",
            dir.display()
        );
        // A service that starts again and again reports it once a day.
        let key = format!("rules-missing-{:016x}-{}", xxh3_64(missing.as_bytes()), at.div_euclid(DAY_MS));
        self.notify(key, Notice { title: "rules are disabled because they have no file".to_owned(), text, at });
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
                tracing::error!(%error, "a notice about the rules waits for the outbox");
            }
            sent.is_err()
        });
    }
}

/// What tells whether a file has changed. A link counts as the file that it leads to: Kubernetes changes mounted
/// configuration by changing a link.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct FileState {
    path: PathBuf,
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds; also changes where the modification time was set back.
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

/// Why `new` must not take the place of `old`: the rules in force that it would silently disable.
fn lost(old: &LoadedRules, new: &LoadedRules) -> Vec<String> {
    let in_force = old.rules.iter().filter(|rule| rule.status != Status::Disabled);
    in_force
        .filter_map(|rule| {
            let id = rule.id;
            if new.missing.contains(&id) {
                return Some(format!(
                    "{id}.toml is missing, and the rule is in force; to disable it, set status = \"disabled\" in its file"
                ));
            }
            let (before, after) = (cases(old, id)?, cases(new, id)?);
            let is_cut_off = !before.cases.is_empty() && after.cases.is_empty();
            is_cut_off.then(|| format!("{} has lost all its cases: it looks cut off", after.file.display()))
        })
        .collect()
}

fn cases(loaded: &LoadedRules, id: RuleId) -> Option<&RuleCases> {
    loaded.cases.iter().find(|cases| cases.rule == id)
}

/// One difference between two sets of rules.
struct Change {
    rule: RuleId,
    /// `mode shadow → enforce`
    what: String,
    /// Whether people are told: the rule stops alerting, or may revoke from now on.
    is_grave: bool,
}

impl Change {
    fn to_line(&self) -> String {
        format!("{}: {}", self.rule, self.what)
    }
}

fn changes(old: &RuleSet, new: &RuleSet) -> Vec<Change> {
    old.iter().zip(new.iter()).flat_map(|(old, new)| changes_of(old, new)).collect()
}

fn changes_of(old: &Rule, new: &Rule) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut note = |is_changed: bool, what: String, is_grave: bool| {
        if is_changed {
            changes.push(Change { rule: new.id, what, is_grave });
        }
    };
    let (from, to) = (old.status, new.status);
    note(from != to, format!("status {} → {}", from.as_str(), to.as_str()), to == Status::Disabled);
    let (from, to) = (old.mode, new.mode);
    note(from != to, format!("mode {} → {}", from.as_str(), to.as_str()), to == Mode::Enforce);
    let (from, to) = (old.severity, new.severity);
    note(from != to, format!("severity {} → {}", from.as_str(), to.as_str()), false);
    let (from, to) = (old.threshold, new.threshold);
    note(from.to_bits() != to.to_bits(), format!("threshold {from} → {to}"), false);
    for ((parameter, from), to) in new.id.parameters().iter().zip(&old.values).zip(&new.values) {
        note(from.to_bits() != to.to_bits(), format!("{} {from} → {to}", parameter.name), false);
    }
    let (from, to) = (&old.policies, &new.policies);
    note(from != to, format!("policies {} → {}", from.len(), to.len()), false);
    changes
}

/// The first of `all`, a line each.
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
    use crate::verdict::Incident;

    struct Noon;

    impl Clock for Noon {
        fn now_millis(&self) -> i64 {
            1_792_584_000_000
        }
    }

    /// Keeps the titles and texts of notices; refuses them while `full`.
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
    }

    /// A folder with three of the shipped rules and its follower.
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

        /// One look finds the files changed, the second finds them at rest.
        fn settle(&mut self) {
            self.watch.look(false);
            self.watch.look(false);
        }

        fn is_changed(&self) -> bool {
            self.rules.has_changed().expect("the follower lives")
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
    fn changed_rules_come_into_force() {
        let mut rig = Rig::start();
        rig.write("new_country", &with("new_country", "severity", "critical"));
        rig.settle();
        assert!(rig.is_changed());
        assert_eq!(rig.severity(), "critical");
        assert!(rig.has_metric("rules_reload_refused 0"), "{}", rig.metrics.text());
        assert_eq!(rig.notices.titles(), [""; 0], "a severity is no news");
        rig.watch.look(false);
        assert!(!rig.is_changed(), "files at rest are not read again");
    }

    #[test]
    fn files_still_being_written_are_not_read() {
        let mut rig = Rig::start();
        rig.write("new_country", &with("new_country", "severity", "low"));
        rig.watch.look(true);
        rig.write("new_country", &with("new_country", "severity", "critical"));
        rig.watch.look(false);
        assert!(!rig.is_changed(), "they changed between two looks");
        rig.watch.look(false);
        assert_eq!(rig.severity(), "critical");
    }

    #[test]
    fn reload_that_loses_rules_is_refused_whole() {
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
                "looks cut off",
            ),
            (|dir| std::fs::rename(dir.join("new_ip.toml"), dir.join("new_ip.tmp")).expect("moved"), "is missing"),
            (
                |dir| {
                    for rule in RULES {
                        std::fs::remove_file(dir.join(format!("{rule}.toml"))).expect("gone");
                    }
                },
                "holds no rule file",
            ),
            (|dir| std::fs::remove_dir_all(dir).expect("gone"), "cannot be read"),
        ];
        for (damage, said) in damages {
            let mut rig = Rig::start();
            // A change that would be taken alone.
            rig.write("new_country", &with("new_country", "severity", "critical"));
            damage(rig.dir.path());
            rig.settle();
            assert!(!rig.is_changed(), "{said}");
            assert_eq!(rig.notices.titles(), ["changed rules are refused"]);
            assert!(rig.notices.last_text().contains(said), "{}", rig.notices.last_text());
            assert!(rig.has_metric("rules_reload_refused 1"), "{}", rig.metrics.text());
            rig.watch.look(true);
            assert_eq!(rig.notices.titles().len(), 1, "people are told once");
            // Whole again.
            std::fs::create_dir_all(rig.dir.path()).expect("a folder");
            for rule in RULES {
                rig.write(rule, &shipped(rule));
            }
            rig.settle();
            assert!(rig.is_changed() && rig.has_metric("rules_reload_refused 0"), "{said}");
            std::fs::remove_file(rig.dir.path().join("new_ip.toml")).expect("removed");
            rig.settle();
            assert_eq!(rig.notices.titles().len(), 2, "another refusal is told again");
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
        assert!(rig.is_changed(), "the file of a disabled rule may go");
    }

    #[test]
    fn reload_that_lets_a_rule_revoke_is_told() {
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
        rig.watch.look(false);
        assert_eq!(rig.notices.titles(), ["changed rules are refused"]);
    }

    #[test]
    fn start_without_rule_files_is_told() {
        let mut rig = Rig::start();
        rig.watch.report_missing();
        assert_eq!(rig.notices.titles(), ["rules are disabled because they have no file"]);
        assert!(rig.notices.last_text().contains("impossible_travel, new_network"), "{}", rig.notices.last_text());
        assert!(rig.has_metric("rules_without_file 18"), "{}", rig.metrics.text());
    }
}
