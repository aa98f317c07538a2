//! Counts of the revocations of each rule.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::proportion::interval;
use super::revocation::{Caps, Known, Requested};
use crate::millis::HOUR_MS;

/// Below this number of judged revocations, the evidence for a rule is thin: even if all were right, the lower end of the
/// 95 % interval is below 0.886.
pub(crate) const THIN_BELOW: u64 = 30;

/// What is known about the revocations of one rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Evidence {
    pub(crate) rule: String,
    /// Distinct grants and tokens.
    pub(crate) grants: u64,
    /// Distinct users with a name.
    pub(crate) users: u64,
    pub(crate) tenants: u64,
    /// Of the grants, those of incidents in mode `enforce`.
    pub(crate) enforced: u64,
    pub(crate) theft: u64,
    pub(crate) owner: u64,
    /// Requests that would have waited for the hourly limits, if this rule alone had requested revocations.
    pub(crate) would_wait: u64,
    /// Requests in mode `enforce` that did wait, and those that failed.
    pub(crate) capped: u64,
    pub(crate) failed: u64,
}

impl Evidence {
    /// Number of revocations about which something is known.
    pub(crate) const fn judged(&self) -> u64 {
        self.theft + self.owner
    }

    pub(crate) const fn is_thin(&self) -> bool {
        self.judged() < THIN_BELOW
    }

    /// Share of thefts among the judged revocations, with its exact 95 % interval.
    pub(crate) fn precision(&self) -> Option<(f64, (f64, f64))> {
        let interval = interval(self.theft, self.judged())?;
        Some((self.theft as f64 / self.judged() as f64, interval))
    }
}

/// The evidence of each rule with revocations, ordered by rule.
pub(crate) fn by_rule(rows: &[Requested], caps: Caps) -> Vec<Evidence> {
    let mut rules: BTreeMap<&str, Vec<&Requested>> = BTreeMap::new();
    for requested in rows {
        rules.entry(&requested.rule).or_default().push(requested);
    }
    rules.into_iter().map(|(rule, of_rule)| counted(rule, &of_rule, caps)).collect()
}

fn counted(rule: &str, of_rule: &[&Requested], caps: Caps) -> Evidence {
    let count = |is: fn(&Requested) -> bool| of_rule.iter().filter(|requested| is(requested)).count() as u64;
    let users = of_rule.iter().filter(|requested| !requested.user.is_empty());
    let users: BTreeSet<_> = users.map(|requested| (&requested.tenant, &requested.user)).collect();
    let tenants: BTreeSet<_> = of_rule.iter().map(|requested| &requested.tenant).collect();
    Evidence {
        rule: rule.to_owned(),
        grants: of_rule.len() as u64,
        users: users.len() as u64,
        tenants: tenants.len() as u64,
        enforced: count(|requested| requested.enforced),
        theft: count(|requested| requested.known == Known::Theft),
        owner: count(|requested| requested.known == Known::Owner),
        would_wait: would_wait(of_rule, caps),
        capped: count(|requested| requested.was_capped),
        failed: count(|requested| requested.has_failed),
    }
}

/// Number of requests that find the limit of their tenant or of all tenants reached. They are sent when the window of an
/// hour has room, in order.
fn would_wait(of_rule: &[&Requested], caps: Caps) -> u64 {
    let mut sent_of: HashMap<&str, Vec<i64>> = HashMap::new();
    let mut sent: Vec<i64> = Vec::new();
    let mut waiting = 0;
    let fit = |cap: u32| (cap / caps.weight.max(1)) as usize;
    // The time from which one more fits beside the last ones. `None`: none fits at all.
    let room = |sent: &[i64], cap: u32| match fit(cap) {
        0 => None,
        fit if sent.len() < fit => Some(i64::MIN),
        fit => Some(sent[sent.len() - fit] + HOUR_MS),
    };
    for requested in of_rule {
        let own = sent_of.entry(&requested.tenant).or_default();
        let (Some(own_room), Some(total_room)) = (room(own, caps.of_tenant), room(&sent, caps.total)) else {
            waiting += 1;
            continue;
        };
        let at = requested.at.max(own_room).max(total_room);
        waiting += u64::from(at > requested.at);
        own.push(at);
        let place = sent.partition_point(|earlier| *earlier <= at);
        sent.insert(place, at);
    }
    waiting
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { of_tenant: 2, total: 3, weight: 1 };

    fn requested(tenant: &str, number: i64, known: Known) -> Requested {
        Requested {
            rule: "new_country".to_owned(),
            tenant: tenant.to_owned(),
            user: format!("user-{}", number % 2),
            target: format!("family:{number}"),
            at: number,
            known,
            enforced: false,
            was_capped: false,
            has_failed: false,
        }
    }

    fn waits(requests: &[(&str, i64)], caps: Caps) -> u64 {
        let rows: Vec<Requested> = requests.iter().map(|(tenant, at)| requested(tenant, *at, Known::Nothing)).collect();
        by_rule(&rows, caps)[0].would_wait
    }

    #[test]
    fn evidence_counts_grants_users_and_tenants() {
        let mut rows: Vec<Requested> = (0..4).map(|number| requested("a", number, Known::Theft)).collect();
        rows.push(requested("b", 4, Known::Owner));
        rows.push(requested("b", 5, Known::Nothing));
        let [evidence] = &by_rule(&rows, CAPS)[..] else { panic!("one rule") };
        assert_eq!((evidence.grants, evidence.users, evidence.tenants), (6, 4, 2));
        assert_eq!((evidence.theft, evidence.owner, evidence.judged(), evidence.is_thin()), (4, 1, 5, true));
        let (share, (low, high)) = evidence.precision().expect("five are judged");
        assert!((share - 0.8).abs() < 1e-12 && low > 0.28 && low < 0.29 && high > 0.99, "{low} to {high}");
        let rows: Vec<Requested> = (0..30).map(|number| requested("a", number, Known::Theft)).collect();
        assert!(!by_rule(&rows, CAPS)[0].is_thin());
        assert_eq!(by_rule(&[requested("a", 1, Known::Nothing)], CAPS)[0].precision(), None);
    }

    #[test]
    fn limits_of_an_hour_are_applied_in_order() {
        assert_eq!(waits(&[("a", 0), ("a", 1)], CAPS), 0);
        assert_eq!(waits(&[("a", 0), ("a", 1), ("a", 2), ("a", HOUR_MS)], CAPS), 2, "the third and so the fourth");
        assert_eq!(waits(&[("a", 0), ("a", 1), ("b", 2), ("b", 3)], CAPS), 1, "all tenants together");
        assert_eq!(waits(&[("a", 0), ("a", HOUR_MS), ("a", 2 * HOUR_MS)], CAPS), 0);
        assert_eq!(waits(&[("a", 0), ("a", 1)], Caps { weight: 2, of_tenant: 2, total: 9 }), 1);
        assert_eq!(waits(&[("a", 0)], Caps { weight: 5, of_tenant: 2, total: 9 }), 1, "no request fits");
    }
}
