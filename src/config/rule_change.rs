//! Differences between two sets of rules.

use super::rule_file::{LoadedRules, RuleCases};
use crate::rule::{Rule, RuleSet, Status};
use crate::verdict::{Mode, RuleId};

/// Problems of `new`: active rules of `old` that `new` would disable unintentionally.
pub(super) fn lost(old: &LoadedRules, new: &LoadedRules) -> Vec<String> {
    let in_force = old.rules.iter().filter(|rule| rule.status != Status::Disabled);
    in_force
        .filter_map(|rule| {
            let id = rule.id;
            if new.missing.contains(&id) {
                return Some(format!(
                    "{id}.toml is missing, but the rule is active; to disable it, set status = \"disabled\" in its file"
                ));
            }
            let (before, after) = (cases(old, id)?, cases(new, id)?);
            let is_cut_off = !before.cases.is_empty() && after.cases.is_empty();
            is_cut_off.then(|| format!("{} no longer has test cases and may be truncated", after.file.display()))
        })
        .collect()
}

fn cases(loaded: &LoadedRules, id: RuleId) -> Option<&RuleCases> {
    loaded.cases.iter().find(|cases| cases.rule == id)
}

/// One difference between two sets of rules.
pub(super) struct Change {
    pub(super) rule: RuleId,
    /// `mode shadow → enforce`
    pub(super) what: String,
    /// Whether a notice is sent: the rule no longer alerts, or may now revoke.
    pub(super) is_reported: bool,
}

impl Change {
    pub(super) fn to_line(&self) -> String {
        format!("{}: {}", self.rule, self.what)
    }
}

pub(super) fn changes(old: &RuleSet, new: &RuleSet) -> Vec<Change> {
    old.iter().zip(new.iter()).flat_map(|(old, new)| changes_of(old, new)).collect()
}

fn changes_of(old: &Rule, new: &Rule) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut note = |is_changed: bool, what: String, is_reported: bool| {
        if is_changed {
            changes.push(Change { rule: new.id, what, is_reported });
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
