//! Sibling: another suspected holder of the same token, seen lately. Proxies that rotate make many contexts of one
//! thief; each lends the next what is thought of it.

use crate::math::{exp, ln, sigma};

/// The most that a sibling says.
const MAX: f64 = 4.0;
/// Probability that a thief, once there, comes from one more network and client.
const AGAIN: f64 = 0.3;

/// `ln(1 + .3·σ(s)·e^−π)`, at most 4, of the sibling's log-odds `s` and the prior log-odds π. Only a sibling that is
/// worse than the prior says anything.
#[must_use]
pub fn judge(sibling: f64, prior: f64) -> f64 {
    if sibling <= prior { 0.0 } else { ln(1.0 + AGAIN * sigma(sibling) * exp(-prior)).clamp(0.0, MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_lends_suspicion_and_an_owner_none() {
        assert!((judge(0.0, -7.0) - 4.0).abs() < 1e-12);
        let mild = judge(-4.0, -7.0);
        assert!((mild - (1.0 + 0.3 / (1.0 + 4.0_f64.exp()) * 7.0_f64.exp()).ln()).abs() < 1e-9);
        assert_eq!(judge(-9.0, -7.0).to_bits(), 0.0_f64.to_bits());
        assert!(judge(f64::MAX, -20.0).is_finite());
    }
}
