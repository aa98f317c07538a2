//! `route`: the called routes. The first call of a route in a visit counts in full, repeats count less.

use smallvec::SmallVec;

use crate::math::{exp, ln};
use crate::memory::baseline::OwnCalls;
use crate::memory::level::ClientLevel;

/// Weight of a route's ratio in a visit, because calls of one visit are not independent.
const DEPENDENCE: f64 = 0.8;
/// Maximum evidence of a call against the owner.
const AGAINST_OWNER_MAX: f64 = 8.0;
/// Bounds of the probability that the owner has a new task, and this probability if the client is new too.
const NEW_TASK: (f64, f64) = (0.002, 0.1);
const NEW_TASK_NEW_CLIENT: f64 = 0.4;
/// Minimum of a sum of evidence.
const SUM_MIN: f64 = -2.0;
/// Evidence against the owner from which calls count as a new task of the owner, nats.
pub(crate) const TASK: f64 = 3.0;
/// Age in days from which a holder is assumed to be the owner. A thief at the owner's place started later.
pub(crate) const SETTLED_DAYS: f64 = 10.0;
/// Assumed probability that a thief's call goes to a rare route, and its maximum for attractive words.
const RARE_THIEF: f64 = 0.3;
const RARE_THIEF_MAX: f64 = 0.5;
/// Weight of others' calls in the owner's probability, calls.
const OTHERS: f64 = 12.0;

/// Evidence of one call: thief against owner, and thief against an owner with a new task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Call {
    /// In [−3, 8].
    pub(crate) against_owner: f64,
    /// In [−3, 4].
    pub(crate) against_task: f64,
    /// The owner's probability of this route.
    pub(crate) p_value: f64,
}

/// `P_own = (c + (12 + e)·B)/(n + 12)`. The owner's calls that are not stored by route (e) are distributed like those of
/// others (B).
fn probability(own: &OwnCalls, others: f64) -> f64 {
    (own.of_this + (OTHERS + own.elsewhere) * others) / (own.of_all.max(own.of_this) + OTHERS)
}

impl Call {
    /// Evidence of a route that appears in a visit of N `calls`. The probability that it appears is `1 − e^−NP`.
    fn new(thief: f64, owner: f64, others: f64, calls: f64) -> Self {
        let appears = |probability: f64| {
            let expected = calls * probability;
            // The series avoids the loss of precision of the difference.
            if expected < 1e-3 { expected * (1.0 - 0.5 * expected) } else { 1.0 - exp(-expected) }
        };
        let thief = appears(thief);
        Self {
            against_owner: ln(thief / appears(owner)).clamp(-3.0, AGAINST_OWNER_MAX),
            against_task: ln(thief / appears(others)).clamp(-3.0, 4.0),
            p_value: owner.min(1.0),
        }
    }
}

/// `ln P_T/P_own` and `ln P_T/B` of the N-th call (`calls`) of a visit.
///
/// `others`: B, the route's probability for others with this client; `thief`: P_T.
#[must_use]
pub(crate) fn evidence(own: &OwnCalls, others: f64, thief: f64, calls: f64) -> Call {
    Call::new(thief, probability(own, others), others, calls)
}

/// The same for a rare route, which has fewer than two calls in the population. Nothing is known about a single rare route,
/// so all share one probability. 30 % of a thief's calls go to them, and more if their words are attractive.
///
/// `others`: the share of such calls among those of others with this application; `lure`: [`promise`]^0.6.
#[must_use]
pub(crate) fn rare(own: &OwnCalls, others: f64, lure: f64, calls: f64) -> Call {
    Call::new((RARE_THIEF * lure).min(RARE_THIEF_MAX), probability(own, others), others, calls)
}

/// Evidence of the n-th unusual call of a visit against an owner with a new task. Calls of one task are not
/// independent, so the n-th adds 1/√n.
#[must_use]
pub(crate) fn of_one_task(against_task: f64, number: u16) -> f64 {
    against_task / libm::sqrt(number.max(1).into())
}

/// Weight of the n-th call of a route in a visit. The n-th repeat would count 0.3/n. Calls at powers of four count for
/// all calls since the last one (0.3·ln 4), other repeats 0.
#[must_use]
pub(crate) fn weight(calls: u16) -> f64 {
    match calls {
        1 => DEPENDENCE,
        calls if calls.is_power_of_two() && calls.trailing_zeros().is_multiple_of(2) => {
            DEPENDENCE * 0.3 * (2.0 * std::f64::consts::LN_2)
        }
        _ => 0.0,
    }
}

/// Sum of the evidence of calls. It favours the owner by at most 2 nats, because most calls of a thief are those of the
/// application, and the owner makes them too.
#[must_use]
pub(crate) fn added(sum: f64, call: f64) -> f64 {
    (sum + call).max(SUM_MIN)
}

/// Evidence of all calls of a holder, in [−6, 10]: `ln[0.95/((1 − t)·e^−A + t·e^−N) + 0.05]`. A and N are sums over the
/// calls of this visit and, decayed, of earlier ones. t is the probability of a new task ([`new_task`]), and 0.05 the
/// probability that a thief imitates the owner. A new task lasts for many visits, so the two sums are stored.
#[must_use]
pub(crate) fn holder(against_owner: f64, against_task: f64, new_task: f64) -> f64 {
    let owner = (1.0 - new_task) * exp(-against_owner) + new_task * exp(-against_task);
    ln(0.95 / owner + 0.05).clamp(-6.0, 10.0)
}

/// Probability that the owner has a new task: the cohort's `rate` of new tasks per visit, in 0.002 to 0.1; 0.4 if the
/// client is new too.
#[must_use]
pub(crate) fn new_task(rate: f64, client: ClientLevel) -> f64 {
    if client >= ClientLevel::UsersFamily { NEW_TASK_NEW_CLIENT } else { rate.clamp(NEW_TASK.0, NEW_TASK.1) }
}

/// Sums (A, N) of the calls since A was last at or below 0: Page's cumulative sum ("Continuous Inspection Schemes",
/// Biometrika 1954). A thief at the owner's place may start between the owner's calls. The owner's earlier calls then
/// do not reduce the evidence.
#[must_use]
pub(crate) fn between((against_owner, against_task): (f64, f64), call: &Call, weight: f64) -> (f64, f64) {
    let owner = against_owner + weight * call.against_owner;
    if owner > 0.0 { (owner, against_task + weight * call.against_task) } else { (0.0, 0.0) }
}

/// Attractiveness of a route to a thief, by the words in its template. 1 is an ordinary route. Case is ignored, and the
/// strongest word counts. A write without such a word has 0.5.
#[must_use]
pub(crate) fn promise(template: &str, reads: bool) -> f64 {
    const WORDS: [(f64, &[&str]); 5] = [
        (4.0, &["secret", "key", "hook", "member", "polic", "role", "credential", "token"]),
        (4.0, &["export", "archive", "tarball", "zipball", "download", "dump", "backup", "snapshot"]),
        (3.0, &["delete"]),
        (1.5, &["create", "list", "whoami", "search"]),
        (0.5, &[]),
    ];
    // A template has few beginnings of words, so they are found before they are compared.
    let text = template.as_bytes();
    let beginnings: SmallVec<[&[u8]; 16]> =
        (0..text.len()).filter(|at| begins_word(text, *at)).map(|at| &text[at..]).collect();
    let has = |word: &&str| {
        let is_word = |start: &[u8]| start.eq_ignore_ascii_case(word.as_bytes());
        beginnings.iter().any(|beginning| beginning.get(..word.len()).is_some_and(is_word))
    };
    let found = WORDS.iter().find(|(_, words)| words.iter().any(has));
    match found {
        Some((promise, _)) => *promise,
        None if reads => 1.0,
        None => WORDS[WORDS.len() - 1].0,
    }
}

/// Whether a word begins at `at`: after a non-letter, or with an upper-case letter after a lower-case one.
fn begins_word(text: &[u8], at: usize) -> bool {
    text[at].is_ascii_alphabetic()
        && (at == 0
            || !text[at - 1].is_ascii_alphabetic()
            || (text[at].is_ascii_uppercase() && text[at - 1].is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::level::LEVELS;

    /// Evidence of the first call of a visit.
    fn first(of_route: f64, of_all: f64, others: f64, thief: f64) -> Call {
        evidence(&OwnCalls { of_this: of_route, of_all, elsewhere: 0.0 }, others, thief, 1.0)
    }

    /// `1 − e^−x`
    fn appears(x: f64) -> f64 {
        1.0 - (-x).exp()
    }

    #[test]
    fn usual_calls_of_a_thief_do_not_add_up() {
        let sum = (0..50).fold(0.0, |sum, _| added(sum, -0.5));
        assert!((sum - SUM_MIN).abs() < 1e-12);
        assert!((added(sum, 4.0) - (SUM_MIN + 4.0)).abs() < 1e-12);
    }

    #[test]
    fn usual_route_favours_owner_unusual_one_thief() {
        let usual = first(80.0, 100.0, 0.5, 0.02);
        assert!((usual.against_owner - (appears(0.02) / appears(86.0 / 112.0)).ln().max(-3.0)).abs() < 1e-9);
        let unusual = first(0.0, 100.0, 1e-4, 0.01);
        // Owner: 12·10⁻⁴/112. Thief: 0.01.
        assert!((unusual.against_owner - (appears(0.01) / appears(0.0012 / 112.0)).ln()).abs() < 1e-6);
        assert!((first(0.0, 1e4, 1e-5, 0.01).against_owner - 8.0).abs() < 1e-9, "clamped");
        assert!((unusual.against_task - 4.0).abs() < 1e-9, "clamped");
        assert!(first(0.0, 0.0, 0.02, 0.02).against_owner.abs() < 1e-9, "a new token has no history");
    }

    #[test]
    fn new_route_counts_less_for_users_of_many_routes() {
        // Owner: (12 + 900)·0.01/1,012 = 0.009.
        let own = |elsewhere| OwnCalls { of_this: 0.0, of_all: 1_000.0, elsewhere };
        let wide = evidence(&own(900.0), 0.01, 0.01, 1.0);
        assert!((wide.against_owner - (appears(0.01) / appears(9.12 / 1_012.0)).ln()).abs() < 1e-9);
        assert!(evidence(&own(0.0), 0.01, 0.01, 1.0).against_owner > wide.against_owner + 4.0);
    }

    #[test]
    fn unusual_call_counts_less_in_a_long_visit() {
        let rare = |calls| evidence(&OwnCalls { of_this: 2.0, of_all: 2_000.0, elsewhere: 0.0 }, 0.001, 0.05, calls);
        assert!(rare(1.0).against_owner > 3.5);
        assert!(rare(5_000.0).against_owner < 0.01);
        let unusual = evidence(&OwnCalls { of_this: 0.0, of_all: 2_000.0, elsewhere: 0.0 }, 1e-5, 0.01, 5_000.0);
        assert!(unusual.against_owner > 7.0, "a new route counts after any number of calls");
    }

    #[test]
    fn rare_route_counts_for_owners_without_rare_calls() {
        let of = |of_route, lure| rare(&OwnCalls { of_this: of_route, of_all: 100.0, elsewhere: 0.0 }, 0.02, lure, 1.0);
        let steady = of(0.0, 1.0);
        assert!((steady.against_owner - (appears(0.3) / appears(0.24 / 112.0)).ln()).abs() < 1e-6);
        assert!((steady.against_task - (appears(0.3) / appears(0.02)).ln()).abs() < 1e-9);
        assert!(of(60.0, 1.0).against_owner < -0.3, "usual for the owner");
        assert!((of(0.0, 2.3).against_owner - (appears(0.5) / appears(0.24 / 112.0)).ln()).abs() < 1e-6, "limited");
    }

    #[test]
    fn new_task_of_the_owner_is_not_a_theft() {
        // Unusual for the owner, usual for others with this client.
        let task = holder(4.0, -1.0, 0.1);
        let theft = holder(4.0, 3.0, 0.1);
        assert!(task < 1.3 && theft > 3.5, "{task} {theft}");
        assert!(holder(20.0, -5.0, 0.1) < task, "a task that lasts for days");
        assert!(holder(4.0, -1.0, new_task(0.1, ClientLevel::NewFamily)) < task, "a new client often has a new task");
        assert!(holder(-3.0, -3.0, 0.1) >= (0.05_f64).ln(), "a thief may imitate the owner");
        assert!(holder(0.0, 0.0, 0.1).abs() < 1e-9, "no evidence");
    }

    #[test]
    fn new_task_is_less_likely_for_steady_machines() {
        assert_eq!(
            [0.0, 0.03, 0.5].map(|rate| new_task(rate, ClientLevel::Known).to_bits()),
            [0.002, 0.03, 0.1].map(f64::to_bits)
        );
        assert!(
            holder(4.0, 1.5, new_task(0.0, ClientLevel::Known))
                > holder(4.0, 1.5, new_task(0.1, ClientLevel::Known)) + 0.5
        );
    }

    #[test]
    fn change_point_ignores_earlier_calls_of_the_owner() {
        let usual = first(80.0, 100.0, 0.5, 0.02);
        let unusual = first(0.0, 1_000.0, 1e-4, 0.01);
        let alone = between((0.0, 0.0), &unusual, weight(1));
        assert!((alone.0 - DEPENDENCE * unusual.against_owner).abs() < 1e-9);
        assert!((alone.1 - DEPENDENCE * unusual.against_task).abs() < 1e-9);
        let owner_first = (0..5).fold((0.0, 0.0), |sums, _| between(sums, &usual, weight(1)));
        assert_eq!(between(owner_first, &unusual, weight(1)), alone);
        let owner_after = (0..5).fold(alone, |sums, _| between(sums, &usual, weight(1)));
        assert_eq!(owner_after, (0.0, 0.0), "calls of the owner reset the sums");
    }

    #[test]
    fn unusual_calls_of_one_task_add_less_and_less() {
        let sum: f64 = [1, 4, 9].map(|number| of_one_task(4.0, number)).iter().sum();
        assert!((sum - 4.0 * (1.0 + 1.0 / 2.0 + 1.0 / 3.0)).abs() < 1e-9, "sum of three calls");
        assert!((of_one_task(4.0, 0) - 4.0).abs() < 1e-9);
    }

    #[test]
    fn repeats_have_decreasing_weight() {
        assert!(weight(2) == 0.0 && weight(4) > 0.0 && weight(8) == 0.0, "only powers of four count");
        let sum: f64 = (1..=64).map(weight).sum();
        assert!((sum - DEPENDENCE * (1.0 + 6.0 * 0.3 * 2.0_f64.ln())).abs() < 1e-9);
    }

    #[test]
    fn promise_depends_on_words_of_the_route() {
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
        fn evidence_is_finite_and_rises_with_unusual_calls(
            own in 0.0..1e5_f64, total in 0.0..1e5_f64, elsewhere in 0.0..1e5_f64,
            calls in 1.0..1e6_f64, others in 0.0..1.0_f64, thief in 0.0..1.0_f64, more in 0.0..5.0_f64,
            rate in 0.0..1.0_f64, client in 0..LEVELS,
        ) {
            let call = evidence(&OwnCalls { of_this: own, of_all: total, elsewhere }, others, thief, calls);
            let task = new_task(rate, ClientLevel::ALL[client]);
            let before = holder(call.against_owner, call.against_task, task);
            prop_assert!(before.is_finite());
            prop_assert!(holder(call.against_owner + more, call.against_task + more, task) >= before - 1e-12);
        }
    }
}
