//! Fan: many users' tokens of one application, or from one address, new to the same place within two hours.

use crate::math::ln;
use crate::memory::fleet::{Company, USERS_MIN};

/// Share of its usual visits below which an application has left home: it was moved, and nobody stole it.
const MOVED_BELOW: f64 = 0.1;

/// `.6·Σ_others oddness + ln(k − 2)` in [−3, 10], from three users on: a migration brings usual calls and clients and
/// pools to less than nothing, a campaign pools high.
///
/// `home_share`: what the application still has of its usual visits from elsewhere, 0 to 1. After a migration it is
/// nothing, and the term counts .3.
#[must_use]
pub fn judge(company: Company, home_share: f64) -> f64 {
    if company.users < USERS_MIN {
        return 0.0;
    }
    let pooled = (0.6 * company.oddness + ln(company.users as f64 - 2.0)).clamp(-3.0, 10.0);
    if home_share < MOVED_BELOW { 0.3 * pooled } else { pooled }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_pools_high_and_a_migration_does_not() {
        let campaign = judge(Company { users: 8, oddness: 14.0 }, 1.0);
        assert!((campaign - (8.4 + 6.0_f64.ln()).min(10.0)).abs() < 1e-12);
        assert!(judge(Company { users: 60, oddness: -60.0 }, 1.0) < -2.9, "usual calls and clients");
        let moved = judge(Company { users: 8, oddness: 5.0 }, 0.01);
        assert!((moved - 0.3 * (3.0 + 6.0_f64.ln())).abs() < 1e-12);
        assert_eq!(judge(Company { users: 2, oddness: 6.0 }, 1.0).to_bits(), 0.0_f64.to_bits());
    }
}
