//! `fan`: tokens of several users appear within two hours at one network, prefix or address that is new to each of them.

use crate::math::{exp, ln};
use crate::memory::fleet::{Arrivals, SEVERAL_APPS, USERS_MIN};

/// Share of the usual visits below which an application is assumed to have been migrated to another network.
const MOVED_BELOW: f64 = 0.1;

/// `0.6·Σ_others d + ln(k − 2)` in [−3, 10] for k ≥ 3 users. `d = route + hour` is the evidence of one user.
/// A migration has usual calls, so the sum is negative. In a campaign it is high. A new client is not in the sum: it is
/// the same for all users of the group, in a migration and in a campaign.
///
/// `usual_share`: current visits of the application from known addresses, as a share of its usual ones, 0 to 1. After a
/// migration it is near 0. Below 0.1, the evidence has the weight 0.3.
pub(crate) fn evidence(arrivals: Arrivals, usual_share: impl FnOnce() -> f64) -> f64 {
    if arrivals.users < USERS_MIN {
        return 0.0;
    }
    let pooled = (0.6 * arrivals.deviation + ln(arrivals.users as f64 - 2.0)).clamp(-3.0, 10.0);
    if usual_share() < MOVED_BELOW { 0.3 * pooled } else { pooled }
}

/// Number of users, most of them of one tenant and with several applications, from which a shared cause is assumed.
const TOGETHER_USERS: usize = 4;
/// One application is enough if the tenant has less than this share of its visits: a breach of the application would
/// also affect other tenants.
const TENANT_SHARE_MAX: f64 = 0.5;
/// Probability of a shared cause: per user, and maximum.
const TOGETHER_A_USER: f64 = 0.03;
const TOGETHER_MAX: f64 = 0.5;

/// Reduces `ratio`, the evidence of place, client and hour, if many users of one tenant appear at the same new address
/// within two hours: `−ln[(1−ρ)e^−ratio + ρ]`. ρ is the probability of a shared cause. `tenant_share`: the tenant's
/// share of the application's usual visits.
///
/// Honest causes are a new office, a new VPN, or a scan of a company's tokens by its security team. A thief with all
/// tokens of the company causes the same pattern. The first users keep their evidence, so an alert is raised. Evidence
/// of routes, volume and life cycle is not reduced.
pub(crate) fn together(ratio: f64, arrivals: Arrivals, tenant_share: impl FnOnce() -> f64) -> f64 {
    if ratio <= 0.0 || arrivals.users < TOGETHER_USERS || arrivals.apps == 0 {
        return ratio;
    }
    if arrivals.apps < SEVERAL_APPS && tenant_share() >= TENANT_SHARE_MAX {
        return ratio;
    }
    let explained = (TOGETHER_A_USER * (arrivals.users + 1 - TOGETHER_USERS) as f64).min(TOGETHER_MAX);
    -ln((1.0 - explained) * exp(-ratio) + explained)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_cause_reduces_evidence_of_one_tenant() {
        let arrivals = |users, apps| Arrivals { users, deviation: 0.0, apps };
        // ρ = 0.03·12 = 0.36
        let expected = -(0.64 * (-12.0_f64).exp() + 0.36).ln();
        assert!((together(12.0, arrivals(15, 4), || 1.0) - expected).abs() < 1e-12);
        assert!(together(12.0, arrivals(4, 3), || 1.0) < 3.6);
        assert!(together(12.0, arrivals(4, 1), || 0.2) < 3.6, "one application, which other tenants also use");
        for unexplained in [arrivals(3, 3), arrivals(60, 2), arrivals(60, 0)] {
            assert!((together(12.0, unexplained, || 0.6) - 12.0).abs() < 1e-12, "{unexplained:?}");
        }
        assert!((together(12.0, arrivals(60, 0), || 0.1) - 12.0).abs() < 1e-12, "several tenants: no shared cause");
        assert!((together(-2.0, arrivals(60, 9), || 0.1) + 2.0).abs() < 1e-12, "evidence for the owner is not reduced");
        let more: Vec<f64> = (6..64).map(|users| together(12.0, arrivals(users, 3), || 1.0)).collect();
        assert!(more.is_sorted_by(|a, b| a >= b) && more.iter().all(|left| (0.0..12.0).contains(left)));
    }

    #[test]
    fn campaign_has_more_evidence_than_a_migration() {
        let campaign = evidence(Arrivals { users: 8, deviation: 14.0, apps: 1 }, || 1.0);
        assert!((campaign - (8.4 + 6.0_f64.ln()).min(10.0)).abs() < 1e-12);
        assert!(evidence(Arrivals { users: 60, deviation: -60.0, apps: 1 }, || 1.0) < -2.9, "usual calls");
        let guests = Arrivals { users: 5, deviation: -6.0, apps: 0 };
        assert!((evidence(guests, || 1.0) - (3.0_f64.ln() - 3.6)).abs() < 1e-12, "users of several tenants");
        let moved = evidence(Arrivals { users: 8, deviation: 5.0, apps: 1 }, || 0.01);
        assert!((moved - 0.3 * (3.0 + 6.0_f64.ln())).abs() < 1e-12);
        assert_eq!(evidence(Arrivals { users: 2, deviation: 6.0, apps: 1 }, || 1.0).to_bits(), 0.0_f64.to_bits());
    }
}
