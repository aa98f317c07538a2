//! Counts of the revocations of each rule.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::proportion::interval;
use super::revocation::{Known, Requested};
use crate::deliver::{Caps, Scope};
use crate::millis::HOUR_MS;
use crate::port::Limit;

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
    /// Requests that would have waited for an hourly limit, if this rule alone had requested revocations, by limit.
    pub(crate) would_wait: BTreeMap<Limit, u64>,
    /// Requests that a breaker would have stopped, if no person had lifted its stop.
    pub(crate) would_stop: u64,
    /// Requests in mode `enforce` that did wait for a limit, those that a breaker stopped, and those that failed.
    pub(crate) capped: u64,
    pub(crate) stopped: u64,
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
///
/// `full_hours`: hours of a day in which requests wait for a limit, after which a breaker stops them. 0: never.
pub(crate) fn by_rule(rows: &[Requested], caps: Caps<'_>, full_hours: u32) -> Vec<Evidence> {
    let mut rules: BTreeMap<&str, Vec<&Requested>> = BTreeMap::new();
    for requested in rows {
        rules.entry(&requested.rule).or_default().push(requested);
    }
    rules.into_iter().map(|(rule, of_rule)| counted(rule, &of_rule, caps, full_hours)).collect()
}

fn counted(rule: &str, of_rule: &[&Requested], caps: Caps<'_>, full_hours: u32) -> Evidence {
    let (would_wait, would_stop) = would_wait(of_rule, caps, full_hours);
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
        would_wait,
        would_stop,
        capped: count(|requested| requested.outcomes.was_capped),
        stopped: count(|requested| requested.outcomes.was_stopped),
        failed: count(|requested| requested.outcomes.has_failed),
    }
}

/// Number of requests that find a limit reached, by the limit that they wait for last. They are sent when the window of an
/// hour has room, in order. Then the number of requests that a breaker stops.
fn would_wait(of_rule: &[&Requested], caps: Caps<'_>, full_hours: u32) -> (BTreeMap<Limit, u64>, u64) {
    let scopes: Vec<Scope> = of_rule.iter().map(|requested| requested.scope()).collect();
    let mut sent: HashMap<_, Vec<i64>> = HashMap::new();
    let mut waiting = BTreeMap::new();
    let (mut full, mut stopped): (HashMap<_, Full>, u64) = (HashMap::new(), 0);
    for (requested, scope) in of_rule.iter().zip(&scopes) {
        let parts = Limit::ALL.into_iter().filter_map(|limit| Some((limit, scope.part(limit)?)));
        // `None`: no request fits.
        let mut room = Some((requested.at, None));
        for (limit, part) in parts.clone() {
            let earlier = sent.entry((limit, part)).or_default();
            let fit = (caps.of(limit, scope) / caps.weight.max(1)) as usize;
            let Some((at, _)) = room else { break };
            // The time from which one more fits beside the last ones.
            let free = if earlier.len() < fit {
                i64::MIN
            } else {
                earlier.get(earlier.len() - fit).map_or(i64::MAX, |at| at + HOUR_MS)
            };
            if free == i64::MAX {
                *waiting.entry(limit).or_default() += 1;
                room = None;
            } else if free > at {
                room = Some((free, Some(limit)));
            }
        }
        let Some((at, waits_for)) = room else { continue };
        // Requests do not stop a rule in all tenants.
        let may_stop = |limit: &Limit| full_hours > 0 && !matches!(limit, Limit::Total | Limit::RuleTotal);
        if let Some((limit, part)) = waits_for.filter(may_stop).and_then(|limit| Some((limit, scope.part(limit)?))) {
            full.entry((limit, part)).or_default().wait((requested.at, at), full_hours);
        }
        if parts.clone().any(|part| full.get(&part).and_then(|full| full.stops_at).is_some_and(|stop| stop <= at)) {
            stopped += 1;
            continue;
        }
        if let Some(limit) = waits_for {
            *waiting.entry(limit).or_default() += 1;
        }
        for part in parts {
            let sent = sent.entry(part).or_default();
            let place = sent.partition_point(|earlier| *earlier <= at);
            sent.insert(place, at);
        }
    }
    (waiting, stopped)
}

/// The hours in which requests wait for a limit.
#[derive(Debug, Default)]
struct Full {
    /// Number of each hour of the clock since the epoch.
    hours: BTreeSet<i64>,
    /// Time from which a breaker stops the requests, milliseconds since the epoch.
    stops_at: Option<i64>,
}

impl Full {
    /// A request waits in this period, milliseconds since the epoch.
    fn wait(&mut self, (since, until): (i64, i64), full_hours: u32) {
        if self.stops_at.is_some() {
            return;
        }
        for hour in since.div_euclid(HOUR_MS)..=(until - 1).div_euclid(HOUR_MS) {
            self.hours.insert(hour);
            if self.hours.range(hour - 23..=hour).count() >= full_hours as usize {
                self.stops_at = Some(hour * HOUR_MS);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::Limits;
    use crate::evidence::revocation::Outcomes;

    /// Without limits of rules and applications.
    fn limits(of_tenant: u32, total: u32) -> Limits {
        Limits { of_rule: Some(of_tenant), of_rule_total: Some(total), ..Limits::new(of_tenant, total) }
    }

    fn evidence_of(rows: &[Requested]) -> Vec<Evidence> {
        by_rule(rows, Caps { limits: &limits(2, 3), weight: 1 }, 0)
    }

    fn requested(tenant: &str, number: i64, known: Known) -> Requested {
        Requested {
            rule: "new_country".to_owned(),
            tenant: tenant.to_owned(),
            user: format!("user-{}", number % 2),
            application: "crm".to_owned(),
            target: format!("family:{number}"),
            at: number,
            known,
            enforced: false,
            outcomes: Outcomes::default(),
        }
    }

    fn waits(requests: &[(&str, i64)], limits: &Limits, weight: u32) -> BTreeMap<Limit, u64> {
        let rows: Vec<Requested> = requests.iter().map(|(tenant, at)| requested(tenant, *at, Known::Nothing)).collect();
        by_rule(&rows, Caps { limits, weight }, 0)[0].would_wait.clone()
    }

    #[test]
    fn evidence_counts_grants_users_and_tenants() {
        let mut rows: Vec<Requested> = (0..4).map(|number| requested("a", number, Known::Theft)).collect();
        rows.push(requested("b", 4, Known::Owner));
        rows.push(requested("b", 5, Known::Nothing));
        let [evidence] = &evidence_of(&rows)[..] else { panic!("one rule") };
        assert_eq!((evidence.grants, evidence.users, evidence.tenants), (6, 4, 2));
        assert_eq!((evidence.theft, evidence.owner, evidence.judged(), evidence.is_thin()), (4, 1, 5, true));
        let (share, (low, high)) = evidence.precision().expect("five are judged");
        assert!((share - 0.8).abs() < 1e-12 && low > 0.28 && low < 0.29 && high > 0.99, "{low} to {high}");
        let rows: Vec<Requested> = (0..30).map(|number| requested("a", number, Known::Theft)).collect();
        assert!(!evidence_of(&rows)[0].is_thin());
        assert_eq!(evidence_of(&[requested("a", 1, Known::Nothing)])[0].precision(), None);
    }

    #[test]
    fn limits_of_an_hour_are_applied_in_order() {
        let waits_in = |requests: &[(&str, i64)], limits: &Limits, weight| -> Vec<(Limit, u64)> {
            waits(requests, limits, weight).into_iter().collect()
        };
        let waits = |requests: &[(&str, i64)]| waits_in(requests, &limits(2, 3), 1);
        assert_eq!(waits(&[("a", 0), ("a", 1)]), []);
        let third_and_so_the_fourth = [("a", 0), ("a", 1), ("a", 2), ("a", HOUR_MS)];
        assert_eq!(waits(&third_and_so_the_fourth), [(Limit::Tenant, 2)]);
        assert_eq!(waits(&[("a", 0), ("a", 1), ("b", 2), ("b", 3)]), [(Limit::Total, 1)], "all tenants together");
        assert_eq!(waits(&[("a", 0), ("a", HOUR_MS), ("a", 2 * HOUR_MS)]), []);
        assert_eq!(waits_in(&[("a", 0), ("a", 1)], &limits(2, 9), 2), [(Limit::Tenant, 1)]);
        assert_eq!(waits_in(&[("a", 0)], &limits(2, 9), 5), [(Limit::Tenant, 1)], "no request fits");
        let of_rule = Limits { of_application: Some(9), ..Limits::new(9, 12) };
        let six: Vec<_> = (0..6).map(|at| ("a", at)).collect();
        assert_eq!(waits_in(&six, &of_rule, 1), [(Limit::Rule, 1)], "half of the tenant's limit");
        let of_application = Limits { of_application: Some(2), ..of_rule };
        assert_eq!(waits_in(&six, &of_application, 1), [(Limit::Application, 4)]);
    }

    #[test]
    fn breaker_stops_what_waits_for_hours() {
        let stops = |requests: &[(&str, i64)], full_hours| {
            let rows: Vec<Requested> = requests.iter().map(|(of, at)| requested(of, *at, Known::Nothing)).collect();
            by_rule(&rows, Caps { limits: &limits(2, 90), weight: 1 }, full_hours)[0].would_stop
        };
        // Two are sent each hour. In the third hour, the seventh and later ones still wait.
        let flood = vec![("a", 0); 20];
        assert_eq!((stops(&flood, 0), stops(&flood, 3)), (0, 14));
        assert_eq!(stops(&flood[..6], 3), 0);
        let with_another: Vec<_> = flood.iter().copied().chain([("b", 9 * HOUR_MS), ("a", 9 * HOUR_MS)]).collect();
        assert_eq!(stops(&with_another, 3), 15, "another tenant continues");
    }
}
