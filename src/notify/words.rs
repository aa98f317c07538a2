//! How incidents are put into words: the same ones on a terminal, in a subject and in a mail.

use crate::port::Revocation;
use crate::verdict::{Incident, Target};

/// `text` on one line, with nothing in it that could steer a terminal, break a header or turn the reading direction.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|character| if is_unseen(character) { '\u{fffd}' } else { character }).collect()
}

/// Control characters, line and paragraph separators, and what reorders or hides text (Unicode TR 36).
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

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

/// `the grant ci-deploy`.
pub(super) fn target(target: &Target) -> String {
    let what = match target {
        Target::Token(_) => "the token",
        Target::Family(_) => "the family",
    };
    format!("{what} {}", plain(target.id()))
}

/// What becomes of the revocation that an incident asks for, in full sentences.
pub(super) fn answer(incident: &Incident, revocation: &Revocation) -> String {
    let Some(asked) = &incident.revoke else {
        return "Nothing was revoked, and nothing was to be: this is for people to judge.".to_owned();
    };
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
        Revocation::Capped(cap) => {
            format!("NOT revoked: {target}. The cap of {cap} revocations an hour is reached; revoke it by hand.")
        }
        Revocation::Paused => format!("NOT revoked: {target}. Actions are paused; revoke it by hand."),
        Revocation::Failed(reason) => {
            format!("NOT revoked: {target}. It cannot be done ({}); revoke it by hand.", plain(reason))
        }
    }
}

/// The same in a subject's two words; `None` where there is nothing to say.
pub(super) fn badge(revocation: &Revocation) -> Option<&'static str> {
    match revocation {
        Revocation::NotAsked => None,
        Revocation::Shadow => Some("would have revoked"),
        Revocation::Proposed => Some("revocation proposed"),
        Revocation::Waiting(_) => Some("NOT YET REVOKED"),
        Revocation::Done => Some("REVOKED"),
        Revocation::AlreadyGone => Some("ALREADY GONE"),
        Revocation::Capped(_) | Revocation::Paused | Revocation::Failed(_) => Some("NOT REVOKED"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_or_hides_stays() {
        assert_eq!(plain("a\r\nBcc: x\u{1b}[31m\u{202e}b\u{200b}\u{2028}é"), "a��Bcc: x�[31m�b��é");
    }

    #[test]
    fn long_texts_are_cut_at_a_word() {
        assert_eq!(shortened("two holders", 20), "two holders");
        assert_eq!(shortened("two holders, DE and BR", 14), "two holders…");
        assert_eq!(shortened("ääääääää", 3), "äää…");
    }
}
