//! Signals join incidents: one a baseline and day, or one a campaign, so that one cause is one question to one person.

use crate::memory::Generations;
use crate::verdict::{IncidentId, Severity, Verdict};

/// Open incidents kept.
const INCIDENTS_MAX: usize = 1 << 14;
/// What a baseline does later than this is another incident.
const BASELINE_MS: i64 = 24 * 3_600_000;
/// What others from the same application or address do within this is the same campaign.
const CAUSE_MS: i64 = 2 * 3_600_000;
/// At so many baselines an incident is a campaign: worth telling once more.
const CAMPAIGN_BASELINES: u32 = 3;

/// What is known of an incident that may still grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Open {
    pub id: IncidentId,
    /// Milliseconds since the epoch, event time.
    pub opened_at: i64,
    pub updated_at: i64,
    severity: Severity,
    verdict: Verdict,
    /// Rules that have spoken, as bits.
    rules: u32,
    acted: bool,
    baselines: u32,
}

/// What an alarming event is to its incident.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "four independent answers about one event")]
pub struct Joined {
    pub open: Open,
    /// It opened the incident.
    pub new: bool,
    /// Something about it is worth telling: it is new, graver, has a new rule, is a campaign, or an action is taken.
    pub tell: bool,
    /// Something about it is worth storing.
    pub changed: bool,
    /// The baseline is new to it: its token is still to be taken away.
    pub new_baseline: bool,
}

/// What an alarming event brings.
#[derive(Clone, Copy, Debug)]
pub struct Alarm {
    pub baseline: u64,
    /// By which others may join: the place of its application, its address. 0: none.
    pub causes: [u64; 2],
    pub at: i64,
    pub severity: Severity,
    pub verdict: Verdict,
    pub rules: u32,
    pub acts: bool,
}

#[derive(Debug)]
pub struct Incidents {
    open: Generations<Open>,
    /// Incident of each baseline, and of each cause.
    of_baseline: Generations<u64>,
    of_cause: Generations<u64>,
}

impl Default for Incidents {
    fn default() -> Self {
        let new = || Generations::new(INCIDENTS_MAX);
        Self { open: Generations::new(INCIDENTS_MAX), of_baseline: new(), of_cause: new() }
    }
}

impl Incidents {
    /// The incident that an event of this baseline belongs to, alarming or not.
    #[must_use]
    pub fn of_baseline(&self, baseline: u64, at: i64) -> Option<&Open> {
        let open = self.open.get(*self.of_baseline.get(baseline)?)?;
        ((at - open.updated_at).abs() <= BASELINE_MS).then_some(open)
    }

    /// Whether an alarm would join an incident that people know of.
    #[must_use]
    pub fn is_known(&self, alarm: &Alarm) -> bool {
        self.find(alarm).is_some()
    }

    /// Joins the incident of its baseline or of its cause, or opens one.
    pub fn join(&mut self, alarm: &Alarm) -> Joined {
        let found = self.find(alarm);
        let new = found.is_none();
        let open = found.unwrap_or_else(|| Open {
            id: IncidentId(identity(alarm.baseline, alarm.at)),
            opened_at: alarm.at,
            updated_at: alarm.at,
            severity: alarm.severity,
            verdict: alarm.verdict,
            rules: 0,
            acted: false,
            baselines: 0,
        });
        let new_baseline = self.of_baseline.get(alarm.baseline) != Some(&open.id.0);
        let graver = alarm.severity > open.severity || alarm.verdict > open.verdict;
        let more_rules = alarm.rules & !open.rules != 0;
        let baselines = open.baselines + u32::from(new_baseline);
        let campaign = new_baseline && baselines == CAMPAIGN_BASELINES;
        let acts = alarm.acts && !open.acted;
        let open = Open {
            updated_at: open.updated_at.max(alarm.at),
            severity: open.severity.max(alarm.severity),
            verdict: open.verdict.max(alarm.verdict),
            rules: open.rules | alarm.rules,
            acted: open.acted || alarm.acts,
            baselines,
            ..open
        };
        self.open.insert(open.id.0, open);
        self.of_baseline.insert(alarm.baseline, open.id.0);
        for cause in alarm.causes.into_iter().filter(|cause| *cause != 0) {
            self.of_cause.insert(cause, open.id.0);
        }
        let tell = new || graver || more_rules || campaign || acts;
        Joined { open, new, tell, changed: tell || new_baseline, new_baseline }
    }

    fn find(&self, alarm: &Alarm) -> Option<Open> {
        if let Some(open) = self.of_baseline(alarm.baseline, alarm.at) {
            return Some(*open);
        }
        let causes = alarm.causes.iter().filter(|cause| **cause != 0);
        causes
            .filter_map(|cause| self.open.get(*self.of_cause.get(*cause)?))
            .find(|open| (alarm.at - open.updated_at).abs() <= CAUSE_MS)
            .copied()
    }
}

/// The same baseline and moment always give the same name.
const fn identity(baseline: u64, at: i64) -> u64 {
    let mixed = (baseline ^ (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

impl Open {
    #[must_use]
    pub const fn severity(&self) -> Severity {
        self.severity
    }

    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    #[must_use]
    pub const fn baselines(&self) -> u32 {
        self.baselines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn alarm(baseline: u64, at: i64) -> Alarm {
        Alarm {
            baseline,
            causes: [500, 0],
            at,
            severity: Severity::High,
            verdict: Verdict::Alert,
            rules: 0b1,
            acts: false,
        }
    }

    #[test]
    fn people_are_told_once_and_again_only_when_something_changes() {
        let mut incidents = Incidents::default();
        let first = incidents.join(&alarm(1, 0));
        assert!(first.new && first.tell && first.new_baseline);
        let again = incidents.join(&alarm(1, HOUR));
        assert!(!again.new && !again.tell && !again.changed && again.open.id == first.open.id);
        assert!(incidents.join(&Alarm { rules: 0b10, ..alarm(1, HOUR) }).tell, "a new rule");
        assert!(incidents.join(&Alarm { severity: Severity::Critical, ..alarm(1, HOUR) }).tell, "graver");
        assert!(incidents.join(&Alarm { acts: true, ..alarm(1, HOUR) }).tell, "an action");
        assert!(!incidents.join(&Alarm { acts: true, ..alarm(1, HOUR) }).tell, "the same action");
        assert!(incidents.join(&alarm(1, 30 * HOUR)).new, "another day is another incident");
    }

    #[test]
    fn one_cause_is_one_incident() {
        let mut incidents = Incidents::default();
        let first = incidents.join(&alarm(1, 0));
        let told: Vec<bool> = (2..12).map(|baseline| incidents.join(&alarm(baseline, HOUR)).tell).collect();
        assert_eq!(told.iter().filter(|tell| **tell).count(), 1, "once, that it is a campaign");
        let last = incidents.join(&alarm(12, 2 * HOUR));
        assert_eq!((last.open.id, last.open.baselines(), last.new_baseline), (first.open.id, 12, true));
        assert!(incidents.join(&alarm(13, 6 * HOUR)).new, "hours later");
        assert!(incidents.join(&Alarm { causes: [501, 0], ..alarm(14, 0) }).new, "from elsewhere");
    }
}
