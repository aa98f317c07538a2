//! Route: what is called. In full at a route's first call in a visit, less at its repeats.

use crate::math::{exp, ln};

/// Weight of one route's ratio in a visit: calls of one visit are not independent.
const DEPENDENCE: f64 = 0.6;
/// Own calls beyond this are no surer.
const OTHERS: f64 = 12.0;

/// What one call of a route says, thief against owner and against an owner with a new task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call {
    /// In [−3, 5].
    pub against_owner: f64,
    /// In [−3, 4].
    pub against_task: f64,
    /// The owner's probability of this route.
    pub p_value: f64,
}

/// `ln P_T/P_own` and `ln P_T/B`, with `P_own = (c + 12·B)/(n + 12)`.
///
/// `own`: own calls of this route; `own_total`: of all; `others`: B, probability of the route for others with this
/// client; `thief`: P_T.
#[must_use]
pub fn judge(own: f64, own_total: f64, others: f64, thief: f64) -> Call {
    let owner = (own + OTHERS * others) / (own_total.max(own) + OTHERS);
    Call {
        against_owner: ln(thief / owner).clamp(-3.0, 5.0),
        against_task: ln(thief / others).clamp(-3.0, 4.0),
        p_value: owner.min(1.0),
    }
}

/// Weight of the n-th call of a route in a visit, for the whole stretch of calls up to the next power of two: the
/// n-th repeat counts .3/n, and so the stretch .3·ln 2. 0 in between.
#[must_use]
pub fn weight(calls: u16) -> f64 {
    match calls {
        1 => DEPENDENCE,
        calls if calls.is_power_of_two() => DEPENDENCE * 0.3 * std::f64::consts::LN_2,
        _ => 0.0,
    }
}

/// Evidence of all calls of a holder, in [−6, 10]: `ln[.95/(.9·e^−A + .1·e^−N) + .05]`, of the sums over the calls of
/// this visit and, faded, of earlier ones. The owner may have a new task (.1, or .4 with a client that is new too), the
/// thief may mimic the owner (.05). A new task goes on for many visits: so the sums are carried, and weighed once.
#[must_use]
pub fn holder(against_owner: f64, against_task: f64, new_client: bool) -> f64 {
    let new_task = if new_client { 0.4 } else { 0.1 };
    let owner = (1.0 - new_task) * exp(-against_owner) + new_task * exp(-against_task);
    ln(0.95 / owner + 0.05).clamp(-6.0, 10.0)
}

/// What a route's words promise a thief; 1 is an ordinary one. Words are looked for as they stand in the template, in
/// any case; the strongest counts, and a plain write counts half.
#[must_use]
pub fn promise(template: &str, reads: bool) -> f64 {
    const WORDS: [(f64, &[&str]); 4] = [
        (4.0, &["secret", "key", "hook", "member", "polic", "role", "export", "archive", "credential", "token"]),
        (3.0, &["delete"]),
        (1.5, &["create", "list", "whoami", "search"]),
        (0.5, &[]),
    ];
    let has = |word: &&str| contains_word(template.as_bytes(), word.as_bytes());
    let found = WORDS.iter().find(|(_, words)| words.iter().any(&has));
    match found {
        Some((promise, _)) => *promise,
        None if reads => 1.0,
        None => WORDS[3].0,
    }
}

/// Whether `word` stands at the beginning of a word of `text`: after no letter, or as a capital after a small one.
fn contains_word(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).enumerate().any(|(at, window)| {
        let begins = at == 0
            || !text[at - 1].is_ascii_alphabetic()
            || (window[0].is_ascii_uppercase() && text[at - 1].is_ascii_lowercase());
        begins && window.eq_ignore_ascii_case(word)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_route_of_ones_own_speaks_for_the_owner_and_a_strange_one_against() {
        let usual = judge(80.0, 100.0, 0.5, 0.02);
        assert!((usual.against_owner - (0.02_f64 / (86.0 / 112.0)).ln().max(-3.0)).abs() < 1e-9);
        let strange = judge(0.0, 100.0, 1e-4, 0.01);
        assert!((strange.against_owner - 5.0).abs() < 1e-9, "clamped");
        assert!((strange.against_task - 4.0).abs() < 1e-9, "clamped");
        assert!(judge(0.0, 0.0, 0.02, 0.02).against_owner.abs() < 1e-9, "nothing is known of a new token");
    }

    #[test]
    fn a_new_task_of_the_owners_is_not_a_theft() {
        // Odd for the owner, usual for everybody with this client.
        let task = holder(4.0, -1.0, false);
        let theft = holder(4.0, 3.0, false);
        assert!(task < 1.3 && theft > 3.5, "{task} {theft}");
        assert!(holder(20.0, -5.0, false) < task, "and goes on for days");
        assert!(holder(4.0, -1.0, true) < task, "a new client often has a new task");
        assert!(holder(-3.0, -3.0, false) >= (0.05_f64).ln(), "a thief may mimic");
        assert!(holder(0.0, 0.0, false).abs() < 1e-9, "nothing known, nothing said");
    }

    #[test]
    fn repeats_count_less_and_less() {
        let sum: f64 = (1..=64).map(weight).sum();
        assert!((sum - 0.6 * (1.0 + 6.0 * 0.3 * 2.0_f64.ln())).abs() < 1e-9);
    }

    #[test]
    fn words_promise_what_thieves_look_for() {
        for (template, reads, expected) in [
            ("/v1/projects/{}/secrets", true, 4.0),
            ("iam.amazonaws.com ListAccessKeys", true, 4.0),
            ("iam.amazonaws.com CreatePolicyVersion", false, 4.0),
            ("/orgs/{}/members", true, 4.0),
            ("/v1/export", true, 4.0),
            ("s3.amazonaws.com DeleteObject", false, 3.0),
            ("iam.amazonaws.com ListUsers", true, 1.5),
            ("/v1/contacts", true, 1.0),
            ("/v1/contacts", false, 0.5),
            ("/v1/monkeys", true, 1.0),
            ("", true, 1.0),
        ] {
            assert_eq!(promise(template, reads).to_bits(), f64::to_bits(expected), "{template}");
        }
    }

    proptest! {
        #[test]
        fn the_term_is_finite_and_rises_with_oddness(
            own in 0.0..1e5_f64, total in 0.0..1e5_f64, others in 0.0..1.0_f64, thief in 0.0..1.0_f64, more in 0.0..5.0_f64,
            new_client: bool,
        ) {
            let call = judge(own, total, others, thief);
            let before = holder(call.against_owner, call.against_task, new_client);
            prop_assert!(before.is_finite());
            prop_assert!(holder(call.against_owner + more, call.against_task + more, new_client) >= before - 1e-12);
        }
    }
}
