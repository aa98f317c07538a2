//! How incidents are put into words: the same ones on a terminal, in a subject and in a mail.

use crate::port::{Progress, Revocation};
use crate::verdict::{Incident, Target, Victim};

pub(super) use crate::sanitize::line as plain;

/// At most `max` characters of `text`, cut at a word where there is one.
pub(super) fn shortened(text: &str, max: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(max) else { return text.to_owned() };
    let cut = &text[..end];
    let cut = cut.rfind(' ').filter(|at| *at > end / 2).map_or(cut, |at| &cut[..at]);
    format!("{}…", cut.trim_end_matches([' ', ',', ';', ':']))
}

/// `user ana, app crm`; empty where the event named neither.
pub(super) fn holder(incident: &Incident) -> String {
    let named = [("user", &incident.user_id), ("app", &incident.app_id)];
    let named: Vec<_> =
        named.iter().filter(|(_, id)| !id.is_empty()).map(|(what, id)| format!("{what} {}", plain(id))).collect();
    named.join(", ")
}

/// `acme/ci-deploy`: the tenant, where there is one, and whose baseline it is.
pub(super) fn subject(incident: &Incident, separator: char) -> String {
    let subject = plain(&incident.subject);
    if incident.tenant_id.is_empty() { subject } else { format!("{}{separator}{subject}", plain(&incident.tenant_id)) }
}

/// `acme/ci-deploy and 52 others`.
pub(super) fn subjects(incident: &Incident, separator: char) -> String {
    let subject = subject(incident, separator);
    match incident.victims_total.saturating_sub(1) {
        0 => subject,
        1 => format!("{subject} and 1 other"),
        others => format!("{subject} and {others} others"),
    }
}

/// `the grant ci-deploy`.
pub(super) fn target(target: &Target) -> String {
    let what = match target {
        Target::Token(_) => "the token",
        Target::Family(_) => "the family",
    };
    format!("{what} {}", plain(target.id()))
}

/// `grant g-17, token at-9, user ana, app crm`.
pub(super) fn victim(victim: &Victim) -> String {
    let fields =
        [("grant", &victim.family_id), ("token", &victim.token_id), ("user", &victim.user_id), ("app", &victim.app_id)];
    let named = fields.iter().filter(|(_, id)| !id.is_empty()).map(|(what, id)| format!("{what} {}", plain(id)));
    named.collect::<Vec<_>>().join(", ")
}

/// Victims to name, those first that the receiver does not know of: at most `max`, and how many are not named.
pub(super) fn victims(incident: &Incident, progress: &Progress, max: usize) -> (Vec<String>, usize) {
    let earlier = incident.victims.iter().filter(|victim| !progress.joined.contains(victim));
    let named: Vec<_> = progress.joined.iter().rev().chain(earlier).take(max).map(victim).collect();
    let others = (incident.victims_total as usize).saturating_sub(named.len());
    (named, others)
}

/// What becomes of the revocation that an incident asks for, in full sentences.
pub(super) fn answer(incident: &Incident, revocation: &Revocation) -> String {
    match &incident.revoke {
        Some(asked) => outcome(asked, revocation),
        None => "No revocation was requested. Please review this alert.".to_owned(),
    }
}

/// How a revocation stands, in full sentences.
pub(super) fn outcome(asked: &Target, revocation: &Revocation) -> String {
    let target = target(asked);
    match revocation {
        Revocation::NotAsked => format!("Nothing was revoked. Revoking {target} would end it."),
        Revocation::Shadow => format!("Nothing was revoked: in shadow mode, tokenwarden would have revoked {target}."),
        Revocation::Proposed => {
            format!("Nothing was revoked: in alert mode this is left to people. Proposed: revoke {target}.")
        }
        Revocation::Waiting(reason) => {
            format!("NOT revoked yet: {target}. It is being tried again ({}).", plain(reason))
        }
        Revocation::Done => format!("Revoked: {target}."),
        Revocation::AlreadyGone => format!("Already gone: the provider no longer knows {target}."),
        Revocation::Capped(cap) => format!(
            "NOT revoked: {target}. The cap of {cap} revocations an hour is reached. It will be requested when the cap \
             has room; revoke it by hand if that is too late."
        ),
        Revocation::Paused => {
            format!("NOT revoked: {target}. Actions are paused. It will be requested when they are resumed.")
        }
        Revocation::Failed(reason) => format!("NOT revoked: {target} ({}). Revoke it by hand.", plain(reason)),
    }
}

/// Revocations of other targets, those first that the receiver does not know of: at most `max`, and how many are not
/// named.
pub(super) fn other_outcomes(incident: &Incident, progress: &Progress, max: usize) -> (Vec<String>, usize) {
    let is_own = |asked: &Target| incident.revoke.as_ref() == Some(asked);
    let others = progress.outcomes.iter().filter(|asked| !is_own(&asked.target));
    let named: Vec<_> = others.take(max).map(|asked| outcome(&asked.target, &asked.revocation)).collect();
    let own = usize::from(progress.outcomes.iter().any(|asked| is_own(&asked.target)));
    let left = progress.outcomes_total.saturating_sub(named.len() + own);
    (named, left)
}

/// The same in a subject's few words; `None` where there is nothing to say.
pub(super) fn badge(progress: &Progress) -> Option<String> {
    match (progress.revoked, progress.not_revoked) {
        (revoked, not @ 1..) if progress.outcomes_total > 1 => {
            return Some(format!("{revoked} REVOKED, {not} NOT REVOKED"));
        }
        (revoked @ 1.., 0) if progress.outcomes_total > 1 => return Some(format!("{revoked} REVOKED")),
        _ => {}
    }
    let badge = match progress.revocation {
        Revocation::NotAsked => return None,
        Revocation::Shadow => "would have revoked",
        Revocation::Proposed => "revocation proposed",
        Revocation::Waiting(_) => "NOT YET REVOKED",
        Revocation::Done => "REVOKED",
        Revocation::AlreadyGone => "ALREADY GONE",
        Revocation::Capped(_) | Revocation::Paused | Revocation::Failed(_) => "NOT REVOKED",
    };
    Some(badge.to_owned())
}

/// Whether a token that was to be revoked still works.
pub(super) const fn is_not_revoked(revocation: &Revocation) -> bool {
    matches!(revocation, Revocation::Waiting(_) | Revocation::Capped(_) | Revocation::Paused | Revocation::Failed(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_word() {
        assert_eq!(shortened("two holders", 20), "two holders");
        assert_eq!(shortened("two holders, DE and BR", 14), "two holders…");
        assert_eq!(shortened("ääääääää", 3), "äää…");
    }
}
