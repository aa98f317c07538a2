//! `switch`: two holders alternate. Evaluated at each change of network within 60 minutes.

use crate::math::{exp, ln};

/// A change of network after a longer gap gives no evidence. Minutes.
pub(crate) const GAP_MINUTES_MAX: f64 = 60.0;
/// Changes are counted for holders up to this age. Days.
pub(crate) const AGE_DAYS_MAX: f64 = 10.0;
/// Maximum evidence of all changes, nats.
pub(crate) const SUM_MAX: f64 = 10.0;

/// Evidence of a change of network after `gap` minutes: `ln[½(1 − e^−g/5)/(1 − e^−λg)]` in [−1, 6]. The owner's changes
/// are a Poisson process in active minutes with the rate `λ = (k + 300·λ_cohort)/(active + 300)`. A second holder is
/// assumed to appear within minutes in half of the cases. The first change of a holder has the weight 0.3, because
/// owners move. The n-th has 1/√n.
///
/// `changes`: k, changes of the owner; `active`: minutes; `cohort`: λ_cohort per minute; `nth`: number, from 1.
pub(crate) fn evidence(gap: f64, changes: f64, active: f64, cohort: f64, nth: u8) -> Switch {
    // Clocks differ by about a second.
    let gap = gap.max(1.0 / 60.0);
    let rate = (changes + 300.0 * cohort) / (active + 300.0);
    let owner = 1.0 - exp(-rate * gap);
    let ratio = ln(0.5 * (1.0 - exp(-gap / 5.0)) / owner).clamp(-1.0, 6.0);
    let weight = if nth <= 1 { 0.3 } else { 1.0 / libm::sqrt(f64::from(nth)) };
    Switch { share: weight * ratio, p_value: owner.min(1.0) }
}

/// Evidence of the silence of the previous holder since its last use: `ln(0.8·e^−E/2 + 0.2)`, in −1.6 to 0. If the owner
/// moved, the previous holder is silent. If the token was stolen, the owner continues, unless absent (0.2). Visits come
/// in bursts, so the expected number counts half.
///
/// `expected`: E, number of visits expected from the owner's rate and hours.
pub(crate) fn silence(expected: f64) -> f64 {
    ln(0.8 * exp(-0.5 * expected.max(0.0)) + 0.2)
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Switch {
    pub(crate) share: f64,
    /// The owner's probability of changing within such a gap.
    pub(crate) p_value: f64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn alternation_within_minutes_is_two_holders() {
        // λ = 300·0.005/6,300; g = 2 min: ln[0.5·(1 − e^−0.4)/(1 − e^−2λ)].
        let rate: f64 = 1.5 / 6_300.0;
        let expected = (0.5 * (1.0 - (-0.4_f64).exp()) / (1.0 - (-2.0 * rate).exp())).ln();
        let second = evidence(2.0, 0.0, 6_000.0, 0.005, 2);
        assert!((second.share - expected / 2.0_f64.sqrt()).abs() < 1e-9);
        let sum: f64 = (1..=6).map(|nth| evidence(2.0, 0.0, 6_000.0, 0.005, nth).share).sum();
        assert!(sum > 9.0, "{sum}");
        let once = evidence(2.0, 0.0, 6_000.0, 0.005, 1).share;
        assert!(once <= 1.8, "a single change may be a move: {once}");
    }

    #[test]
    fn silence_of_the_previous_holder_favours_owner() {
        assert!(silence(0.0).abs() < 1e-12, "just now");
        assert!((silence(4.0) - (0.8 * (-2.0_f64).exp() + 0.2).ln()).abs() < 1e-12);
        assert!((silence(1e6) - 0.2_f64.ln()).abs() < 1e-9);
    }

    #[test]
    fn frequent_changes_of_the_owner_are_no_evidence() {
        assert!(evidence(10.0, 600.0, 6_000.0, 0.005, 2).share < 0.0);
    }

    proptest! {
        #[test]
        fn evidence_is_finite_and_falls_with_own_changes(
            gap in 0.0..60.0_f64, changes in 0.0..1e4_f64, active in 0.0..1e6_f64, cohort in 1e-6..1.0_f64, nth in 0..=255_u8,
        ) {
            let one = evidence(gap, changes, active, cohort, nth);
            prop_assert!(one.share.is_finite() && (0.0..=1.0).contains(&one.p_value));
            prop_assert!(evidence(gap, changes + 1.0, active, cohort, nth).share <= one.share + 1e-12);
        }
    }
}
