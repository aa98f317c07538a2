//! `sibling`: another suspicious holder of the same baseline within a day. A thief behind rotating proxies appears as
//! many holders. Each adds a part of its evidence to the next.

use crate::math::{exp, ln, sigma};

/// Maximum evidence, nats.
const MAX: f64 = 4.0;
/// Probability that a thief appears with another network or client.
const AGAIN: f64 = 0.3;

/// `ln(1 + 0.3·σ(s)·e^−π)`, at most 4, for the sibling's log-odds `s` and the prior log-odds π. A sibling below the
/// prior gives no evidence.
#[inline(never)] // Few siblings are suspicious. Inlined, its constant part would be computed at every event.
pub(crate) fn evidence(sibling: f64, prior: f64) -> f64 {
    if sibling <= prior { 0.0 } else { ln(1.0 + AGAIN * sigma(sibling) * exp(-prior)).clamp(0.0, MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspicious_sibling_adds_evidence() {
        assert!((evidence(0.0, -7.0) - 4.0).abs() < 1e-12);
        let mild = evidence(-4.0, -7.0);
        assert!((mild - (1.0 + 0.3 / (1.0 + 4.0_f64.exp()) * 7.0_f64.exp()).ln()).abs() < 1e-9);
        assert_eq!(evidence(-9.0, -7.0).to_bits(), 0.0_f64.to_bits());
        assert!(evidence(f64::MAX, -20.0).is_finite());
    }
}
