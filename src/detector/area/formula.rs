//! `area`: the part of the service that is called. Evaluated for each area that is new to a visit.

use crate::math::ln;
use crate::memory::baseline::OwnCalls;

/// The evidence, and the owner's probability of this area.
///
/// `P_own = (1 − ν)·c/n + ν·q`: the owner visits known areas by their own habit, and new or evicted ones as others of
/// the tenant do. Thieves follow the owner in 25 % and the tenant in 75 % of cases. The ratio is limited to ±3 and has
/// the weight 0.35.
///
/// `own`: the owner's visits to this area; `once`: areas seen about once; `cohort_new`: the cohort's share of new
/// areas; `tenant`: q.
#[must_use]
pub fn evidence(own: &OwnCalls, once: f64, cohort_new: f64, tenant: f64) -> (f64, f64) {
    let total = own.of_all.max(own.of_this);
    let novelty = ((once + own.elsewhere + 5.0 * cohort_new) / (total + 5.0)).clamp(0.0, 1.0);
    let usual = if total > 0.0 { (own.of_this / total).min(1.0) } else { tenant };
    let owner = (1.0 - novelty) * usual + novelty * tenant;
    let thief = 0.25 * owner + 0.75 * tenant;
    (0.35 * ln(thief / owner.max(1e-9)).clamp(-3.0, 3.0), owner.min(1.0))
}

/// Sum with the decayed evidence of earlier areas, in [−5, 3].
#[must_use]
pub fn carried(before: f64, area: f64) -> f64 {
    (before + area).clamp(-5.0, 3.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn own(of_this: f64, of_all: f64, elsewhere: f64) -> OwnCalls {
        OwnCalls { of_this, of_all, elsewhere }
    }

    #[test]
    fn who_goes_everywhere_is_at_home_in_one_more_place() {
        let (narrow, _) = evidence(&own(0.0, 1_000.0, 0.0), 1.0, 0.1, 0.05);
        let (wide, _) = evidence(&own(0.0, 1_000.0, 900.0), 1.0, 0.1, 0.05);
        assert!(narrow > 1.0 && wide < 0.1, "{narrow} {wide}");
    }

    #[test]
    fn an_area_of_ones_own_speaks_for_the_owner() {
        let (usual, _) = evidence(&own(90.0, 100.0, 0.0), 1.0, 0.1, 0.05);
        assert!(usual < -0.3, "{usual}");
        let (unusual, p) = evidence(&own(0.0, 100.0, 0.0), 1.0, 0.1, 0.05);
        // ν = 1.5/105, P_own = ν·.05; the thief .75·.05 above it: beyond the clamp.
        assert!((unusual - 0.35 * 3.0).abs() < 1e-9 && p < 0.001);
        assert!(evidence(&own(0.0, 0.0, 0.0), 0.0, 0.1, 0.05).0.abs() < 1e-9, "nothing is known of a new token");
    }

    proptest! {
        #[test]
        fn the_term_is_finite_and_falls_with_own_use(
            visits in 0.0..100.0_f64, elsewhere in 0.0..1e4_f64, total in 0.0..1e4_f64, once in 0.0..4.0_f64, new in 0.0..1.0_f64, tenant in 0.0..1.0_f64,
        ) {
            let total = total.max(visits + 1.0);
            let (ratio, p) = evidence(&own(visits, total, elsewhere), once, new, tenant);
            prop_assert!(ratio.is_finite() && ratio.abs() <= 1.05 + 1e-9 && (0.0..=1.0).contains(&p));
            prop_assert!(evidence(&own(visits + 1.0, total, elsewhere), once, new, tenant).0 <= ratio + 1e-9);
        }
    }
}
