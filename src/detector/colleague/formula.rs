//! `colleague`: reduction of evidence if an employee may be using the token of a machine by hand.

use crate::math::{exp, ln};

/// Probability that an employee uses a service's token by hand, for example from home during an outage.
const BY_HAND: f64 = 0.0002;

/// Reduces `evidence` (place, client, hour and change of holder) of a machine's token that is used from an access
/// network: `−ln[(1−ρ)e^−evidence + ρ]`. An employee and a thief do not differ in it. They differ in the routes and the
/// number of their calls, whose evidence is not reduced.
#[must_use]
pub(crate) fn explained(evidence: f64) -> f64 {
    if evidence <= 0.0 { evidence } else { -ln((1.0 - BY_HAND) * exp(-evidence) + BY_HAND) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduced_evidence_is_bounded_by_the_prior() {
        assert!((explained(2.0) - -(0.9998 * (-2.0_f64).exp() + 0.0002).ln()).abs() < 1e-12);
        assert!((explained(40.0) - -(0.0002_f64).ln()).abs() < 1e-9);
        assert!((explained(-3.0) + 3.0).abs() < 1e-12);
        let more: Vec<f64> = (0..40).map(|evidence| explained(f64::from(evidence))).collect();
        assert!(more.is_sorted(), "{more:?}");
    }
}
