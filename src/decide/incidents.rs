//! Grouping of alerts into incidents: by baseline within a day, or by cause within a tenant. Incidents of several
//! tenants with one cause have one campaign.

use serde::{Deserialize, Serialize};

use crate::memory::{Generations, Limits, Usage};
use crate::millis::{DAY_MS, HOUR_MS};
use crate::verdict::{CampaignId, IncidentId, Severity, SharedVictim, VICTIMS_MAX, Verdict, Victim};

/// Maximum number of open incidents.
const INCIDENTS_MAX: usize = 1 << 14;
/// Bytes of the victims of all open incidents. Beyond it, the victims of the older half of them are dropped.
const VICTIMS_BYTES_MAX: usize = 64 << 20;
/// An alert of the same baseline later than this opens another incident.
const BASELINE_MS: i64 = DAY_MS;
/// Alerts with the same application and network, or the same address, have one cause within this time.
const CAUSE_MS: i64 = 2 * HOUR_MS;

/// An incident that other alerts may still join.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Open {
    pub(crate) id: IncidentId,
    pub(crate) campaign: CampaignId,
    /// Milliseconds since the epoch, event time.
    pub(crate) opened_at: i64,
    pub(crate) updated_at: i64,
    severity: Severity,
    verdict: Verdict,
    /// Rules that have fired, as bits.
    rules: u32,
    baselines: u32,
}

/// Result of joining an alert to an incident.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Joined {
    pub(crate) open: Open,
    /// The alert opened the incident.
    pub(crate) new: bool,
    /// To be reported and stored: it is new, its severity rose, it has a new rule or a new victim, or an action is
    /// taken.
    pub(crate) report: bool,
    /// The baseline is new to the incident, so its token is not revoked yet.
    pub(crate) new_baseline: bool,
}

/// Fields of an alert that incidents depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alert {
    pub(crate) baseline: u64,
    pub(crate) causes: [Cause; 2],
    pub(crate) at: i64,
    pub(crate) severity: Severity,
    pub(crate) verdict: Verdict,
    pub(crate) rules: u32,
    pub(crate) acts: bool,
}

/// Cause by which alerts of other baselines join: an application on a network, or an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cause {
    /// Within the tenant: its other alerts join the incident. 0: none.
    pub(crate) of_tenant: u64,
    /// Across tenants: their incidents join the campaign.
    pub(crate) of_all: u64,
}

/// The last campaign of a cause.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Campaign {
    id: CampaignId,
    updated_at: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Incidents {
    open: Generations<Open>,
    /// Victims of each open incident, up to [`VICTIMS_MAX`].
    victims: Generations<Vec<SharedVictim>>,
    /// Bytes of the victims of the younger half, and their maximum.
    victims_bytes: usize,
    victims_bytes_max: usize,
    /// Incident of each baseline, and of each cause in a tenant.
    of_baseline: Generations<u64>,
    of_cause: Generations<u64>,
    /// Incident in which an action against a baseline was last requested.
    acted: Generations<u64>,
    campaigns: Generations<Campaign>,
}

impl Default for Incidents {
    fn default() -> Self {
        let new = || Generations::new(INCIDENTS_MAX);
        Self {
            open: Generations::new(INCIDENTS_MAX),
            victims: Generations::new(INCIDENTS_MAX),
            victims_bytes: 0,
            victims_bytes_max: VICTIMS_BYTES_MAX / 2,
            of_baseline: new(),
            of_cause: new(),
            acted: new(),
            campaigns: Generations::new(INCIDENTS_MAX),
        }
    }
}

impl Incidents {
    /// Upper limit of the bytes of all tables.
    pub(crate) const BYTES_MAX: usize = Generations::<Open>::bytes_of(INCIDENTS_MAX)
        + Generations::<Vec<Victim>>::bytes_of(INCIDENTS_MAX)
        + 3 * Generations::<u64>::bytes_of(INCIDENTS_MAX)
        + Generations::<Campaign>::bytes_of(INCIDENTS_MAX)
        + VICTIMS_BYTES_MAX;

    /// Changes the maximum of each table.
    pub(crate) fn limit(&mut self, limits: &Limits) {
        let max = limits.scaled(INCIDENTS_MAX);
        self.open.limit(max);
        self.victims.limit(max);
        self.of_baseline.limit(max);
        self.of_cause.limit(max);
        self.acted.limit(max);
        self.campaigns.limit(max);
        self.victims_bytes_max = limits.scaled(VICTIMS_BYTES_MAX) / 2;
    }

    pub(crate) fn usage(&self) -> Usage {
        let Self { open, victims, of_baseline, of_cause, acted, campaigns, .. } = self;
        let all =
            [open.usage(), victims.usage(), of_baseline.usage(), of_cause.usage(), acted.usage(), campaigns.usage()];
        Usage::of_all(all).plus(Usage { bytes: self.victims_bytes, evicted: 0 })
    }

    /// Whether a baseline is one of an open incident.
    pub(crate) fn has(&self, baseline: u64) -> bool {
        self.of_baseline.get(baseline).is_some_and(|incident| self.open.get(*incident).is_some())
    }

    /// The open incident of a baseline, whether the event is an alert or not.
    pub(crate) fn of_baseline(&self, baseline: u64, at: i64) -> Option<&Open> {
        let open = self.open.get(*self.of_baseline.get(baseline)?)?;
        ((at - open.updated_at).abs() <= BASELINE_MS).then_some(open)
    }

    /// Whether an alert would join an open incident.
    pub(crate) fn is_known(&self, alert: &Alert) -> bool {
        self.find(alert).is_some()
    }

    /// Joins the incident of the baseline or of the cause, or opens one. `victim` names the grant or token.
    pub(crate) fn join(&mut self, alert: &Alert, victim: impl FnOnce() -> Victim) -> Joined {
        let found = self.find(alert);
        let new = found.is_none();
        let open = found.unwrap_or_else(|| {
            let id = identity(alert.baseline, alert.at);
            Open {
                id: IncidentId(id),
                campaign: self.campaign(alert).unwrap_or(CampaignId(mixed(id))),
                opened_at: alert.at,
                updated_at: alert.at,
                severity: alert.severity,
                verdict: alert.verdict,
                rules: 0,
                baselines: 0,
            }
        });
        let new_baseline = self.of_baseline.get(alert.baseline) != Some(&open.id.0);
        let more_severe = alert.severity > open.severity || alert.verdict > open.verdict;
        let more_rules = alert.rules & !open.rules != 0;
        // Per victim: the revocation of one does not suppress that of another.
        let acts = alert.acts && self.acted.get(alert.baseline) != Some(&open.id.0);
        if acts {
            self.acted.insert(alert.baseline, open.id.0);
        }
        let open = Open {
            updated_at: open.updated_at.max(alert.at),
            severity: open.severity.max(alert.severity),
            verdict: open.verdict.max(alert.verdict),
            rules: open.rules | alert.rules,
            baselines: open.baselines.saturating_add(u32::from(new_baseline)),
            ..open
        };
        self.open.insert(open.id.0, open);
        self.add_victim(open.id, new_baseline.then_some(victim));
        self.of_baseline.insert(alert.baseline, open.id.0);
        for cause in alert.causes.into_iter().filter(Cause::exists) {
            self.of_cause.insert(cause.of_tenant, open.id.0);
            self.campaigns.insert(cause.of_all, Campaign { id: open.campaign, updated_at: open.updated_at });
        }
        // A new victim is always reported: an earlier member of the incident may be a decoy.
        let report = new || more_severe || more_rules || new_baseline || acts;
        Joined { open, new, report, new_baseline }
    }

    /// Closes an incident: later alerts, also those of the same baselines, open another one.
    pub(crate) fn close(&mut self, id: IncidentId) {
        self.open.remove(id.0);
        self.victims.remove(id.0);
    }

    fn add_victim(&mut self, id: IncidentId, victim: Option<impl FnOnce() -> Victim>) {
        if self.victims_bytes > self.victims_bytes_max {
            self.victims.turn_over();
            self.victims_bytes = 0;
        }
        let was_young = self.victims.is_young(id.0);
        let victims = self.victims.entry(id.0, Vec::new);
        if !was_young {
            self.victims_bytes += victims.iter().map(|victim| victim.bytes()).sum::<usize>();
        }
        if let Some(victim) = victim.filter(|_| victims.len() < VICTIMS_MAX) {
            let victim = victim();
            self.victims_bytes += victim.bytes();
            victims.push(victim.into());
        }
    }

    /// The first victims of an open incident, in the order in which they joined.
    pub(crate) fn victims(&self, id: IncidentId) -> &[SharedVictim] {
        self.victims.get(id.0).map_or(&[], Vec::as_slice)
    }

    fn find(&self, alert: &Alert) -> Option<Open> {
        if let Some(open) = self.of_baseline(alert.baseline, alert.at) {
            return Some(*open);
        }
        let causes = alert.causes.iter().filter(|cause| cause.exists());
        causes
            .filter_map(|cause| self.open.get(*self.of_cause.get(cause.of_tenant)?))
            .find(|open| (alert.at - open.updated_at).abs() <= CAUSE_MS)
            .copied()
    }

    fn campaign(&self, alert: &Alert) -> Option<CampaignId> {
        let causes = alert.causes.iter().filter(|cause| cause.exists());
        causes
            .filter_map(|cause| self.campaigns.get(cause.of_all))
            .find(|campaign| (alert.at - campaign.updated_at).abs() <= CAUSE_MS)
            .map(|campaign| campaign.id)
    }
}

impl Cause {
    const fn exists(&self) -> bool {
        self.of_tenant != 0
    }
}

/// Identity of an incident. It is the same for the same baseline and time.
const fn identity(baseline: u64, at: i64) -> u64 {
    mixed(baseline ^ (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

const fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

impl Open {
    pub(crate) const fn severity(&self) -> Severity {
        self.severity
    }

    pub(crate) const fn verdict(&self) -> Verdict {
        self.verdict
    }

    pub(crate) const fn baselines(&self) -> u32 {
        self.baselines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An alert of tenant 5. All have the same cause.
    fn alert(baseline: u64, at: i64) -> Alert {
        Alert {
            baseline,
            causes: [cause(5, 500), Cause::default()],
            at,
            severity: Severity::High,
            verdict: Verdict::Alert,
            rules: 0b1,
            acts: false,
        }
    }

    const fn cause(tenant: u64, of_all: u64) -> Cause {
        Cause { of_tenant: tenant << 32 | of_all, of_all }
    }

    fn join(incidents: &mut Incidents, alert: &Alert) -> Joined {
        let family_id = format!("grant-{}", alert.baseline);
        incidents.join(alert, || Victim { family_id, ..Victim::default() })
    }

    #[test]
    fn incident_is_reported_again_only_if_it_changes() {
        let mut incidents = Incidents::default();
        let mut join = |alert: Alert| join(&mut incidents, &alert);
        let first = join(alert(1, 0));
        assert!(first.new && first.report && first.new_baseline);
        let again = join(alert(1, HOUR_MS));
        assert!(!again.new && !again.report && again.open.id == first.open.id);
        assert!(join(Alert { rules: 0b10, ..alert(1, HOUR_MS) }).report, "a new rule");
        assert!(join(Alert { severity: Severity::Critical, ..alert(1, HOUR_MS) }).report, "a higher severity");
        assert!(join(Alert { acts: true, ..alert(1, HOUR_MS) }).report, "an action");
        assert!(!join(Alert { acts: true, ..alert(1, HOUR_MS) }).report, "the same action");
        assert!(join(alert(2, HOUR_MS)).report, "a new victim");
        assert!(join(Alert { acts: true, ..alert(2, HOUR_MS) }).report, "the same action on another victim");
        assert!(!join(Alert { acts: true, ..alert(2, HOUR_MS) }).report, "once");
        assert!(join(alert(1, 30 * HOUR_MS)).new, "another day is another incident");
    }

    #[test]
    fn incident_of_one_cause_reports_each_victim() {
        let mut incidents = Incidents::default();
        let first = join(&mut incidents, &alert(1, 0));
        for baseline in 2..200 {
            let joined = join(&mut incidents, &alert(baseline, HOUR_MS));
            assert!(joined.report && joined.new_baseline && joined.open.id == first.open.id, "{baseline}");
            assert!(!join(&mut incidents, &alert(baseline, HOUR_MS)).report, "{baseline} is reported once");
        }
        let last = join(&mut incidents, &alert(200, 2 * HOUR_MS));
        assert_eq!((last.open.id, last.open.baselines(), last.new_baseline), (first.open.id, 200, true));
        let victims = incidents.victims(first.open.id);
        assert_eq!((victims.len(), &*victims[0].family_id, &*victims[99].family_id), (100, "grant-1", "grant-100"));
        assert!(join(&mut incidents, &alert(201, 6 * HOUR_MS)).new, "hours later");
        assert!(join(&mut incidents, &Alert { causes: [cause(5, 501); 2], ..alert(202, 0) }).new, "another cause");
    }

    #[test]
    fn campaign_links_incidents_of_several_tenants() {
        let mut incidents = Incidents::default();
        let decoy = join(&mut incidents, &alert(1, 0));
        let of_other = |at| Alert { causes: [Cause::default(), cause(6, 500)], ..alert(2, at) };
        let other = join(&mut incidents, &of_other(HOUR_MS));
        assert!(
            other.new && other.report && other.open.id != decoy.open.id,
            "an incident of another tenant does not suppress it"
        );
        assert_eq!(other.open.campaign, decoy.open.campaign);
        assert_ne!(other.open.campaign.0, decoy.open.id.0, "it does not contain the id of the other incident");
        assert_eq!(incidents.victims(other.open.id).len(), 1, "it does not contain the victims of the other incident");
        let later = join(&mut incidents, &of_other(40 * HOUR_MS));
        assert!(later.new && later.open.campaign != decoy.open.campaign, "another day");
    }
}
