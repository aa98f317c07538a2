//! `credential`: a new holder of an old token, within 3 days after its user changed the password or a factor. The owner
//! has new tokens after such a change. The holder of the old token may be the thief because of whom it was made.

use crate::math::ln;

/// New holders are scored up to this time after a change, days.
pub(crate) const DAYS_MAX: f64 = 3.0;

/// `ln(0.08·(visits + 100)/(visits within 3 days after a change + 1))`, in 0 to 4: the assumed share of such visits
/// among those of thieves, against their share in the population.
///
/// `visits`: visits of the population; `after_change`: those within three days of a change.
pub(crate) fn evidence(visits: f64, after_change: f64) -> f64 {
    ln(0.08 * (visits + 100.0) / (after_change + 1.0)).clamp(0.0, 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_rises_where_changes_are_rare() {
        assert!((evidence(0.0, 0.0) - 8.0_f64.ln()).abs() < 1e-12);
        assert!((evidence(100_000.0, 0.0) - 4.0).abs() < 1e-12);
        assert_eq!(evidence(1_000.0, 500.0).to_bits(), 0.0_f64.to_bits());
    }
}
