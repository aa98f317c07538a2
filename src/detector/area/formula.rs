//! `area`: the called parts of the service. Evaluated at the first call of an area in a visit.

use crate::math::ln;
use crate::memory::baseline::OwnCalls;

/// The evidence, and the owner's probability of this area.
///
/// `P_own = (1 − ν)·c/n + ν·q`: the owner chooses known areas by habit, and new or evicted ones like others of the
/// tenant. Thieves are assumed to choose like the owner in 25 % of cases and like the tenant in 75 %. The ratio is
/// limited to ±3 and has the weight 0.35.
///
/// `own`: c and n, the owner's visits to this area and to all areas; `once`: areas seen about once; `cohort_new`: the
/// cohort's share of new areas; `tenant`: q, the tenant's share of visits to this area.
pub(crate) fn evidence(own: &OwnCalls, once: f64, cohort_new: f64, tenant: f64) -> (f64, f64) {
    let total = own.of_all.max(own.of_this);
    let novelty = ((once + own.elsewhere + 5.0 * cohort_new) / (total + 5.0)).clamp(0.0, 1.0);
    let usual = if total > 0.0 { (own.of_this / total).min(1.0) } else { tenant };
    let owner = (1.0 - novelty) * usual + novelty * tenant;
    let thief = 0.25 * owner + 0.75 * tenant;
    (0.35 * ln(thief / owner.max(1e-9)).clamp(-3.0, 3.0), owner.min(1.0))
}

/// An area with a larger share of the tenant's visits to areas is no evidence, even if it is new to an owner.
pub(crate) const COMMON: f64 = 0.1;
/// Weight and maximum of the evidence of new areas.
const NOVELTY_WEIGHT: f64 = 0.7;
const NOVELTY_MAX: f64 = 2.0;

/// Evidence of a visit with at least `number` areas that are new to the owner, in [0, 2]: `0.7·ln P_T/P_O`. A
/// thief is assumed to reach `number` in a share `P_T = 0.7/√number` of visits. The owner's share is shrunk from up to 30 of their own visits towards that of the
/// cohort, which has the weight of 5 visits.
///
/// `own`: the owner's visits with at least so many new areas, and all visits.
pub(crate) fn novelty(number: f64, (reached, visits): (f64, f64), cohort: f64) -> f64 {
    const OWN_MAX: f64 = 30.0;
    const COHORT: f64 = 5.0;
    let sure = visits.min(OWN_MAX);
    let own = if visits > 0.0 { reached * sure / visits } else { 0.0 };
    let owner = (own + COHORT * cohort) / (sure + COHORT);
    let thief = 0.7 / libm::sqrt(number);
    (NOVELTY_WEIGHT * ln(thief / owner.max(1e-9))).clamp(0.0, NOVELTY_MAX)
}

/// Sum with the decayed evidence of earlier areas, in [−5, 2].
pub(crate) fn carried(before: f64, area: f64) -> f64 {
    (before + area).clamp(-5.0, 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn own(of_this: f64, of_all: f64, elsewhere: f64) -> OwnCalls {
        OwnCalls { of_this, of_all, elsewhere }
    }

    #[test]
    fn new_area_is_weak_evidence_for_a_wide_user() {
        let (narrow, _) = evidence(&own(0.0, 1_000.0, 0.0), 1.0, 0.1, 0.05);
        let (wide, _) = evidence(&own(0.0, 1_000.0, 900.0), 1.0, 0.1, 0.05);
        assert!(narrow > 1.0 && wide < 0.1, "{narrow} {wide}");
    }

    #[test]
    fn usual_area_is_evidence_for_the_owner() {
        let (usual, _) = evidence(&own(90.0, 100.0, 0.0), 1.0, 0.1, 0.05);
        assert!(usual < -0.3, "{usual}");
        let (unusual, p) = evidence(&own(0.0, 100.0, 0.0), 1.0, 0.1, 0.05);
        // ν = 1.5/105 and P_own = ν·0.05. The thief has 0.75·0.05 more: the ratio is clamped.
        assert!((unusual - 0.35 * 3.0).abs() < 1e-9 && p < 0.001);
        assert!(evidence(&own(0.0, 0.0, 0.0), 0.0, 0.1, 0.05).0.abs() < 1e-9, "a new token has no history");
    }

    #[test]
    fn new_areas_are_evidence_where_owners_have_few() {
        // 30 of 60 own visits count as 15 of 30: (15 + 5·0.25)/35.
        let often = novelty(1.0, (30.0, 60.0), 0.25);
        assert!((often - 0.7 * (0.7_f64 * 35.0 / 16.25).ln()).abs() < 1e-9, "{often}");
        // No history: the share of the cohort.
        assert!((novelty(4.0, (0.0, 0.0), 0.25) - 0.7 * (0.35_f64 / 0.25).ln()).abs() < 1e-9);
        assert!((novelty(16.0, (0.0, 30.0), 0.001) - NOVELTY_MAX).abs() < 1e-9, "limited");
        assert!(novelty(16.0, (30.0, 30.0), 0.5).abs() < 1e-9, "an owner who calls as many in each visit");
    }

    proptest! {
        #[test]
        fn novelty_falls_with_own_visits_that_had_as_much(
            number in 1_u8..=64, visits in 1.0..60.0_f64, share in 0.0..1.0_f64, cohort in 0.0..1.0_f64,
        ) {
            let evidence = |reached| novelty(number.into(), (reached, visits), cohort);
            let few = evidence(share * visits);
            prop_assert!((0.0..=NOVELTY_MAX).contains(&few) && evidence(visits) <= few);
        }

        #[test]
        fn evidence_is_finite_and_falls_with_own_use(
            visits in 0.0..100.0_f64, elsewhere in 0.0..1e4_f64, total in 0.0..1e4_f64, once in 0.0..4.0_f64, new in 0.0..1.0_f64, tenant in 0.0..1.0_f64,
        ) {
            let total = total.max(visits + 1.0);
            let (ratio, p) = evidence(&own(visits, total, elsewhere), once, new, tenant);
            prop_assert!(ratio.is_finite() && ratio.abs() <= 1.05 + 1e-9 && (0.0..=1.0).contains(&p));
            prop_assert!(evidence(&own(visits + 1.0, total, elsewhere), once, new, tenant).0 <= ratio + 1e-9);
        }
    }
}
