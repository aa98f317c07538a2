//! `area`: the called parts of the service. Evaluated at the first call of an area in a visit.

use crate::math::ln;
use crate::memory::baseline::OwnCalls;

/// Assumed shares of thieves who choose an area like the owner, like the tenant, and any of the tenant's areas with equal
/// probability.
const LIKE_OWNER: f64 = 0.25;
const LIKE_TENANT: f64 = 0.3;
const ANY: f64 = 0.45;
/// Weight and limit of the evidence of one area.
const WEIGHT: f64 = 0.35;
const MAX: f64 = 3.0;

/// How a tenant uses an area, and how many areas it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AreaUse {
    /// Share of the tenant's visits to areas that are to this one.
    pub(crate) share: f64,
    /// Number of areas.
    pub(crate) areas: f64,
}

/// Evidence of one area, in [−1.05, 1.05]: `0.35·ln P_T/P_O`.
///
/// `P_O = (1 − ν)·c/n + ν·q`: the owner chooses known areas by habit, and new or evicted ones like others of the
/// tenant. `P_T = 0.25·P_O + 0.3·q + 0.45/(areas + 10)`: some thieves choose areas regardless
/// of their popularity.
///
/// `own`: c and n, the owner's visits to this area and to all areas; `once`: areas seen about once; `cohort_new`: the
/// cohort's share of new areas; `tenant`: q, the tenant's share of visits to this area.
pub(crate) fn evidence(own: &OwnCalls, once: f64, cohort_new: f64, tenant: AreaUse) -> f64 {
    let total = own.of_all.max(own.of_this);
    let novelty = ((once + own.elsewhere + 5.0 * cohort_new) / (total + 5.0)).clamp(0.0, 1.0);
    let usual = if total > 0.0 { (own.of_this / total).min(1.0) } else { tenant.share };
    let owner = (1.0 - novelty) * usual + novelty * tenant.share;
    let thief = LIKE_OWNER * owner + LIKE_TENANT * tenant.share + ANY / (tenant.areas + 10.0);
    WEIGHT * ln(thief / owner.max(1e-9)).clamp(-MAX, MAX)
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

    /// An area with a 20th of the visits of a tenant with few areas.
    const OFTEN: AreaUse = AreaUse { share: 0.05, areas: 10.0 };

    #[test]
    fn new_area_is_weak_evidence_for_a_wide_user() {
        let narrow = evidence(&own(0.0, 1_000.0, 0.0), 1.0, 0.1, OFTEN);
        let wide = evidence(&own(0.0, 1_000.0, 900.0), 1.0, 0.1, OFTEN);
        assert!(narrow > 1.0 && wide < 0.1, "{narrow} {wide}");
    }

    #[test]
    fn usual_area_is_evidence_for_the_owner() {
        assert!(evidence(&own(90.0, 100.0, 0.0), 1.0, 0.1, OFTEN) < -0.3);
        // ν = 1.5/105 and P_own = ν·0.05. The thief has 0.3·0.05 + 0.45/20 more: the ratio is clamped.
        let unusual = evidence(&own(0.0, 100.0, 0.0), 1.0, 0.1, OFTEN);
        assert!((unusual - 0.35 * 3.0).abs() < 1e-9, "{unusual}");
        assert!(evidence(&own(0.0, 0.0, 0.0), 0.0, 0.1, OFTEN).abs() < 1e-9, "a new token has no history");
    }

    #[test]
    fn rarely_visited_area_is_more_suspicious() {
        let of = |share| evidence(&own(0.0, 100.0, 50.0), 1.0, 0.1, AreaUse { share, areas: 90.0 });
        // ν = 51.5/105: P_T/P_O = 0.25 + (0.3·q + 0.0045)/(ν·q).
        let expected = |share: f64| 0.35 * (0.25 + (0.3 * share + 0.0045) / (51.5 / 105.0 * share)).ln();
        for share in [0.2, 0.01, 0.001] {
            assert!((of(share) - expected(share)).abs() < 1e-9, "{share}: {}", of(share));
        }
        assert!(of(0.001) > of(0.01) + 0.5 && of(0.2) < 0.0);
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
            visits in 0.0..100.0_f64, elsewhere in 0.0..1e4_f64, total in 0.0..1e4_f64, once in 0.0..4.0_f64,
            new in 0.0..1.0_f64, share in 0.0..1.0_f64, areas in 0.0..1e6_f64,
        ) {
            let (total, tenant) = (total.max(visits + 1.0), AreaUse { share, areas });
            let ratio = evidence(&own(visits, total, elsewhere), once, new, tenant);
            prop_assert!(ratio.is_finite() && ratio.abs() <= WEIGHT * MAX + 1e-9);
            prop_assert!(evidence(&own(visits + 1.0, total, elsewhere), once, new, tenant) <= ratio + 1e-9);
        }
    }
}
