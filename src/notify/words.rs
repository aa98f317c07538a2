//! Wording of revocations and victims, shared by all channels.

use crate::port::{Progress, Revocation};
use crate::verdict::{Incident, Target, Victim};

pub(super) use crate::sanitize::line as plain;

/// `text`, or its first `max` characters and an ellipsis, cut at a word if one ends in the second half.
pub(super) fn shortened(text: &str, max: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(max) else { return text.to_owned() };
    let cut = &text[..end];
    let cut = cut.rfind(' ').filter(|at| *at > end / 2).map_or(cut, |at| &cut[..at]);
    format!("{}…", cut.trim_end_matches([' ', ',', ';', ':']))
}

/// Section of the configuration of the channel `name`.
pub(super) fn section(name: &str) -> String {
    match name {
        "email" | "webhook" => format!("alert.{name}"),
        name => format!("alert.channel.{name}"),
    }
}

/// `the grant`.
const fn kind(target: &Target) -> &'static str {
    match target {
        Target::Token(_) => "the token",
        Target::Family(_) => "the grant",
    }
}

/// `grant g-17, token at-9, user ana, app crm`.
pub(super) fn victim(victim: &Victim) -> String {
    let fields =
        [("grant", &victim.family_id), ("token", &victim.token_id), ("user", &victim.user_id), ("app", &victim.app_id)];
    let named = fields.iter().filter(|(_, id)| !id.is_empty()).map(|(what, id)| format!("{what} {}", plain(id)));
    named.collect::<Vec<_>>().join(", ")
}

/// At most `max` victims, first those that joined since the channel's previous message, and the number of the others.
pub(super) fn victims(incident: &Incident, progress: &Progress, max: usize) -> (Vec<String>, usize) {
    let earlier = incident.victims.iter().filter(|victim| !progress.joined.contains(victim));
    let named: Vec<_> = progress.joined.iter().rev().chain(earlier).take(max).map(victim).collect();
    let others = (incident.victims_total as usize).saturating_sub(named.len());
    (named, others)
}

/// State of the revocation that the incident requests, in full sentences.
pub(super) fn answer(incident: &Incident, revocation: &Revocation) -> String {
    match &incident.revoke {
        Some(asked) => outcome(asked, revocation),
        None => "No revocation was requested. Please review this alert.".to_owned(),
    }
}

/// State of a revocation, in full sentences.
pub(super) fn outcome(asked: &Target, revocation: &Revocation) -> String {
    let what = kind(asked);
    let target = format!("{what} {}", plain(asked.id()));
    match revocation {
        Revocation::NotAsked => format!("Nothing was revoked. To end this use, revoke {target}."),
        Revocation::Shadow => format!("Nothing was revoked. Outside shadow mode, tokenwarden would revoke {target}."),
        Revocation::Proposed => format!("Nothing was revoked (alert mode). Please decide whether to revoke {target}."),
        Revocation::Waiting(reason) => {
            format!("NOT revoked yet: {target}. The request is retried ({}).", plain(reason))
        }
        Revocation::Done => format!("Revoked: {target}."),
        Revocation::AlreadyGone => format!("Already revoked: the provider no longer has {target}."),
        Revocation::Capped(cap) => format!(
            "NOT revoked: {target}. The limit of {cap} revocations per hour is reached. The revocation is requested when \
             the limit allows it. If that is too late, revoke {what} at the provider."
        ),
        Revocation::Paused => {
            format!("NOT revoked: {target}. Revocations are paused. The revocation is requested after the pause.")
        }
        Revocation::Failed(reason) => {
            format!("NOT revoked: {target} ({}). Revoke {what} at the provider.", plain(reason))
        }
    }
}

/// At most `max` revocations of other targets, first those that are new to the channel, and the number of the others.
pub(super) fn other_outcomes(incident: &Incident, progress: &Progress, max: usize) -> (Vec<String>, usize) {
    let is_own = |asked: &Target| incident.revoke.as_ref() == Some(asked);
    let others = progress.outcomes.iter().filter(|asked| !is_own(&asked.target));
    let named: Vec<_> = others.take(max).map(|asked| outcome(&asked.target, &asked.revocation)).collect();
    let own = usize::from(progress.outcomes.iter().any(|asked| is_own(&asked.target)));
    let left = progress.outcomes_total.saturating_sub(named.len() + own);
    (named, left)
}

/// State of the revocations for a subject. `None` if none was requested.
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
        Revocation::Shadow => "would revoke (shadow)",
        Revocation::Proposed => "revocation proposed",
        Revocation::Waiting(_) => "NOT YET REVOKED",
        Revocation::Done => "REVOKED",
        Revocation::AlreadyGone => "ALREADY REVOKED",
        Revocation::Capped(_) | Revocation::Paused | Revocation::Failed(_) => "NOT REVOKED",
    };
    Some(badge.to_owned())
}

/// A revocation was requested, and the token still works.
pub(super) const fn is_not_revoked(revocation: &Revocation) -> bool {
    matches!(revocation, Revocation::Waiting(_) | Revocation::Capped(_) | Revocation::Paused | Revocation::Failed(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortened_text_is_cut_at_a_word() {
        assert_eq!(shortened("two holders", 20), "two holders");
        assert_eq!(shortened("two holders, DE and BR", 14), "two holders…");
        assert_eq!(shortened("ääääääää", 3), "äää…");
    }
}
