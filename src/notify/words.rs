//! Wording of revocations and victims, shared by all channels.

use std::fmt::Write as _;

use crate::millis::rfc3339;
use crate::port::{Asked, Confirmation, Progress, Radius, Reached, Revocation};
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
    let earlier = incident.victims.iter().map(|victim| &**victim).filter(|victim| !progress.joined.contains(victim));
    let named: Vec<_> = progress.joined.iter().rev().chain(earlier).take(max).map(victim).collect();
    let others = (incident.victims_total as usize).saturating_sub(named.len());
    (named, others)
}

/// State of the revocation that the incident requests, in full sentences.
pub(super) fn answer(incident: &Incident, progress: &Progress) -> String {
    match &incident.revoke {
        Some(target) => outcome(&Asked {
            target: target.clone(),
            revocation: progress.revocation.clone(),
            confirmation: progress.confirmation,
        }),
        None => "No revocation was requested. Please review this alert.".to_owned(),
    }
}

/// State of a revocation, in full sentences.
pub(super) fn outcome(asked: &Asked) -> String {
    let what = kind(&asked.target);
    let target = format!("{what} {}", plain(asked.target.id()));
    match &asked.revocation {
        Revocation::NotAsked => format!("Nothing was revoked. To end this use, revoke {target}."),
        Revocation::Shadow => format!("Nothing was revoked. Outside shadow mode, tokenwarden would revoke {target}."),
        Revocation::Proposed => format!("Nothing was revoked. Please decide whether to revoke {target}."),
        Revocation::Waiting(reason) => {
            format!("NOT revoked yet: {target}. The request is retried ({}).", plain(reason))
        }
        Revocation::Done => {
            let confirmed = asked.confirmation.map_or_else(String::new, |confirmation| confirmed(&confirmation));
            format!("Revoked: {target}{}.{confirmed}", with(asked))
        }
        Revocation::AlreadyGone => format!("Already revoked: the provider no longer has {target}."),
        Revocation::Capped(Reached { limit, cap }) => format!(
            "NOT revoked: {target}. The limit of {cap} revocations per hour {} is reached. The revocation is requested \
             when the limit allows it. If that is too late, revoke {what} at the provider.",
            limit.in_words()
        ),
        Revocation::Paused => {
            format!("NOT revoked: {target}. Revocations are paused. The revocation is requested after the pause.")
        }
        Revocation::Stopped(stopped) => format!(
            "NOT revoked: {target}, because {stopped}. The revocation is requested when a person lifts the stop \
             (tokenwarden breakers lift). If that is too late, revoke {what} at the provider."
        ),
        Revocation::Failed(reason) => {
            format!("NOT revoked: {target} ({}). Revoke {what} at the provider.", plain(reason))
        }
    }
}

/// What the revocation ended besides its target.
fn with(asked: &Asked) -> &'static str {
    let radius = asked.confirmation.and_then(|confirmation| confirmation.radius);
    let smallest = Radius::of(None, &asked.target);
    match radius.filter(|radius| *radius > smallest) {
        None | Some(Radius::Token) => "",
        Some(Radius::Grant) => ", with all tokens of its grant",
        Some(Radius::Session) => ", with all tokens of its sign-in session",
        Some(Radius::User) => ", with all sessions of the user",
        Some(Radius::Role) => ", with all sessions of the role",
        Some(Radius::App) => ", with all tokens of the application",
    }
}

/// Times of a confirmation, in full sentences.
fn confirmed(confirmation: &Confirmation) -> String {
    let mut text = format!(" The provider confirmed it at {}.", rfc3339(confirmation.revoked_at));
    if let Some(at) = confirmation.verified_at {
        let _ = write!(text, " A read at {} found the token inactive.", rfc3339(at));
    }
    text
}

/// At most `max` revocations of other targets, first those that are new to the channel, and the number of the others.
pub(super) fn other_outcomes(incident: &Incident, progress: &Progress, max: usize) -> (Vec<String>, usize) {
    let is_own = |asked: &Target| incident.revoke.as_ref() == Some(asked);
    let others = progress.outcomes.iter().filter(|asked| !is_own(&asked.target));
    let named: Vec<_> = others.take(max).map(outcome).collect();
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
        Revocation::Capped(_) | Revocation::Paused | Revocation::Stopped(_) | Revocation::Failed(_) => "NOT REVOKED",
    };
    Some(badge.to_owned())
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

    #[test]
    fn done_revocation_has_its_confirmation() {
        let confirmation =
            Confirmation { revoked_at: 1_795_000_000_000, verified_at: None, radius: Some(Radius::Grant) };
        let text = |confirmation| {
            let target = Target::Family("g-1".to_owned());
            outcome(&Asked { target, revocation: Revocation::Done, confirmation: Some(confirmation) })
        };
        let confirmed = "Revoked: the grant g-1. The provider confirmed it at 2026-11-18T11:06:40Z.";
        assert_eq!(text(confirmation), confirmed);
        let verified =
            Confirmation { verified_at: Some(1_795_000_002_000), radius: Some(Radius::User), ..confirmation };
        assert_eq!(
            text(verified),
            "Revoked: the grant g-1, with all sessions of the user. The provider confirmed it at 2026-11-18T11:06:40Z. A \
             read at 2026-11-18T11:06:42Z found the token inactive."
        );
    }
}
