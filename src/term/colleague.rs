//! Colleague: a machine's token in the hands of somebody of its owner's people.

use crate::math::{exp, ln};

/// The probability that a service's token is tried by hand, by somebody who may: from home, while it is set up, at night
/// when it fails.
const BY_HAND: f64 = 0.0002;

/// What is left of `strange`, nats for a thief by place, client, hour and change of holder, where a machine's token is
/// used from an access network: `−ln[(1−ρ)e^−strange + ρ]`. A colleague is as strange as a thief in all of it, and what
/// they call and how much tells them apart.
#[must_use]
pub fn explained(strange: f64) -> f64 {
    if strange <= 0.0 { strange } else { -ln((1.0 - BY_HAND) * exp(-strange) + BY_HAND) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colleague_explains_what_is_strange_up_to_how_rare_they_are() {
        assert!((explained(2.0) - -(0.9998 * (-2.0_f64).exp() + 0.0002).ln()).abs() < 1e-12);
        assert!((explained(40.0) - -(0.0002_f64).ln()).abs() < 1e-9);
        assert!((explained(-3.0) + 3.0).abs() < 1e-12);
        let more: Vec<f64> = (0..40).map(|strange| explained(f64::from(strange))).collect();
        assert!(more.is_sorted(), "{more:?}");
    }
}
