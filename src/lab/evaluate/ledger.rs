//! Results of a labelled run: the scores of each token-day and each case, but not the events.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::calibration::Calibration;
use super::labels::CaseNumber;
use super::observation::{DETECTORS, NONE, OURS, Observation, Scores};
use crate::event::BaselineId;
use crate::millis::DAY_MS;
use crate::verdict::{IncidentId, Verdict};

/// Time after a theft's event in which an alert on the same token is attributed to the theft, in milliseconds. It
/// equals the half-life of evidence, because often the owner's next use reveals the theft.
const AFTERMATH_MS: i64 = DAY_MS;

/// Result of [`Ledger::observe`] that the report lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    Nothing,
    /// The first verdict of revoke on a token that was not stolen.
    FalseRevocation,
}

/// Everything that is measured during the run.
#[derive(Debug, Default)]
pub struct Ledger {
    days: HashMap<(BaselineId, i64), TokenDay>,
    cases: BTreeMap<CaseNumber, CaseRecord>,
    stolen: HashMap<BaselineId, Stolen>,
    /// For each revoked baseline, whether its first revocation was correct.
    revoked: HashMap<BaselineId, bool>,
    /// Incidents with an event of a thief.
    true_incidents: HashSet<IncidentId>,
    pub calibration: Calibration,
}

/// A baseline that a thief has used.
#[derive(Clone, Copy, Debug)]
struct Stolen {
    /// The first theft.
    case: CaseNumber,
    /// Event time of the thief's last use, in milliseconds since the epoch.
    at: i64,
    /// The thief's use is the latest use of the token.
    is_last: bool,
}

/// The legitimate events of one baseline on one UTC day.
#[derive(Clone, Debug)]
pub struct TokenDay {
    /// The highest scores of legitimate events; [`NONE`] if the day had none.
    pub maxima: Scores,
    /// By method: whether the highest score came while, or within a day after, a thief used the token.
    pub while_stolen: [bool; DETECTORS],
    /// The incident of the event with our highest score.
    pub incident: Option<IncidentId>,
    /// Whether the first verdict of alert or revoke on this day was correct.
    pub alerted: Option<bool>,
}

/// The events of one case.
#[derive(Clone, Debug)]
pub struct CaseRecord {
    pub events: u32,
    /// Number of times that the thief began to use the token, first or after the owner.
    pub turns: u32,
    /// Event time of the earliest event, in milliseconds since the epoch.
    pub first_at: i64,
    /// By method: the events whose score exceeded all earlier ones; the last one has the highest score.
    pub rises: [Vec<Rise>; DETECTORS],
    pub verdict: Verdict,
}

/// A score above all earlier ones of the case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rise {
    pub score: f32,
    /// Number of the case's events up to this one.
    pub events: u32,
    /// Number of the thief's turns up to this one.
    pub turns: u32,
    /// Event time in milliseconds since the epoch.
    pub at: i64,
}

impl Ledger {
    pub fn observe(&mut self, seen: &Observation) -> Noted {
        let theft = seen.is_theft();
        let before = self.stolen.get_mut(&seen.baseline);
        let new_turn = before.as_ref().is_none_or(|before| !before.is_last);
        let mut stolen = theft;
        if let Some((number, true)) = seen.case {
            let case = before.map_or(number, |before| before.case);
            self.stolen.insert(seen.baseline, Stolen { case, at: seen.at, is_last: true });
            self.true_incidents.extend(seen.incident);
        } else if let Some(before) = before {
            before.is_last = false;
            stolen = seen.at - before.at <= AFTERMATH_MS;
        }
        if let Some((number, _)) = seen.case {
            self.cases.entry(number).or_insert_with(|| CaseRecord::new(seen.at)).add(seen, new_turn);
        }
        self.calibration.add(seen);
        let day = self.days.entry((seen.baseline, seen.at.div_euclid(DAY_MS))).or_insert(TokenDay::NEW);
        if !theft {
            day.add(seen, stolen);
        }
        if seen.verdict >= Verdict::Alert {
            day.alerted.get_or_insert(stolen);
        }
        if seen.verdict == Verdict::Revoke && !self.revoked.contains_key(&seen.baseline) {
            // A stolen token stays stolen.
            let was_stolen = self.stolen.contains_key(&seen.baseline);
            self.revoked.insert(seen.baseline, was_stolen);
            if !was_stolen {
                return Noted::FalseRevocation;
            }
        }
        Noted::Nothing
    }

    /// Token-days: baselines by UTC days with a legitimate event.
    pub fn token_days(&self) -> impl Iterator<Item = &TokenDay> {
        self.days.values().filter(|day| day.is_honest())
    }

    /// Number of UTC days with a legitimate event.
    #[must_use]
    pub fn days(&self) -> usize {
        let honest = self.days.iter().filter(|(_, day)| day.is_honest());
        honest.map(|((_, day), _)| day).collect::<HashSet<_>>().len()
    }

    pub fn cases(&self) -> impl Iterator<Item = (CaseNumber, &CaseRecord)> {
        self.cases.iter().map(|(number, case)| (*number, case))
    }

    /// The highest legitimate score of each cause of a false positive. Token-days of one incident have one cause.
    /// Incidents with a thief's event and stolen tokens are left out.
    #[must_use]
    pub fn false_causes(&self, detector: usize) -> Vec<f32> {
        let mut by_incident: HashMap<IncidentId, f32> = HashMap::new();
        let mut causes = Vec::new();
        for day in self.token_days().filter(|day| !day.while_stolen[detector]) {
            match day.incident {
                Some(incident) if detector == OURS => {
                    if !self.true_incidents.contains(&incident) {
                        let highest = by_incident.entry(incident).or_insert(f32::NEG_INFINITY);
                        *highest = highest.max(day.maxima[detector]);
                    }
                }
                _ => causes.push(day.maxima[detector]),
            }
        }
        causes.extend(by_incident.into_values());
        causes
    }

    /// For each stolen baseline its first theft, and whether its first revocation was correct.
    pub fn stolen_tokens(&self) -> impl Iterator<Item = (CaseNumber, bool)> {
        self.stolen.iter().map(|(baseline, stolen)| (stolen.case, self.revoked.get(baseline) == Some(&true)))
    }

    /// Token-days with an alert: correct, false.
    #[must_use]
    pub fn alerts(&self) -> (u64, u64) {
        split(self.days.values().filter_map(|day| day.alerted))
    }

    /// Revoked baselines: correct, false.
    #[must_use]
    pub fn revocations(&self) -> (u64, u64) {
        split(self.revoked.values().copied())
    }
}

fn split(right: impl Iterator<Item = bool>) -> (u64, u64) {
    right.fold((0, 0), |(yes, no), right| if right { (yes + 1, no) } else { (yes, no + 1) })
}

impl TokenDay {
    const NEW: Self = Self { maxima: NONE, while_stolen: [false; DETECTORS], incident: None, alerted: None };

    /// Every event has one of our scores, so a day without one had no legitimate event.
    fn is_honest(&self) -> bool {
        self.maxima[OURS] > f32::NEG_INFINITY
    }

    fn add(&mut self, seen: &Observation, stolen: bool) {
        if seen.scores[OURS] > self.maxima[OURS] {
            self.incident = seen.incident;
        }
        for (detector, score) in seen.scores.into_iter().enumerate() {
            if score > self.maxima[detector] {
                self.maxima[detector] = score;
                self.while_stolen[detector] = stolen;
            }
        }
    }
}

impl CaseRecord {
    fn new(at: i64) -> Self {
        Self { events: 0, turns: 0, first_at: at, rises: std::array::from_fn(|_| Vec::new()), verdict: Verdict::Allow }
    }

    fn add(&mut self, seen: &Observation, new_turn: bool) {
        self.events += 1;
        self.turns += u32::from(new_turn);
        self.first_at = self.first_at.min(seen.at);
        self.verdict = self.verdict.max(seen.verdict);
        for (rises, score) in self.rises.iter_mut().zip(seen.scores) {
            if rises.last().is_none_or(|last| score > last.score) {
                rises.push(Rise { score, events: self.events, turns: self.turns, at: seen.at });
            }
        }
    }

    /// The highest score of any of its events.
    #[must_use]
    pub fn highest(&self, detector: usize) -> f32 {
        self.rises[detector].last().map_or(f32::NEG_INFINITY, |rise| rise.score)
    }

    /// The first event above `bar`.
    #[must_use]
    pub fn detected(&self, detector: usize, bar: f32) -> Option<Rise> {
        self.rises[detector].iter().find(|rise| rise.score > bar).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{honest, theft};
    use super::*;
    use crate::millis::{HOUR_MS, MINUTE_MS};

    fn maxima(ledger: &Ledger) -> Vec<f32> {
        let mut all: Vec<f32> = ledger.token_days().map(|day| day.maxima[0]).collect();
        all.sort_by(f32::total_cmp);
        all
    }

    #[test]
    fn token_day_needs_a_legitimate_event() {
        let mut ledger = Ledger::default();
        ledger.observe(&honest(1, 23 * HOUR_MS, -7.0));
        ledger.observe(&honest(1, 23 * HOUR_MS + 1, -3.0));
        ledger.observe(&honest(1, DAY_MS, -5.0));
        ledger.observe(&honest(2, DAY_MS, -6.0));
        ledger.observe(&theft(3, 48 * HOUR_MS, 9.0, 0));
        assert_eq!(maxima(&ledger), [-6.0, -5.0, -3.0]);
        assert_eq!(ledger.days(), 2);
    }

    #[test]
    fn false_causes_exclude_true_incidents() {
        let mut ledger = Ledger::default();
        let in_incident = |seen: Observation, id: u64| Observation { incident: Some(IncidentId(id)), ..seen };
        ledger.observe(&in_incident(honest(1, 0, 3.0), 7));
        ledger.observe(&in_incident(honest(2, 0, 4.0), 7));
        ledger.observe(&in_incident(honest(3, 0, 5.0), 8));
        ledger.observe(&in_incident(theft(4, 0, 6.0, 0), 8));
        ledger.observe(&honest(5, 0, -7.0));
        // The owner of the stolen token, an hour later and two days later.
        ledger.observe(&honest(4, HOUR_MS, 2.0));
        ledger.observe(&honest(4, 50 * HOUR_MS, 1.0));
        let mut causes = ledger.false_causes(0);
        causes.sort_by(f32::total_cmp);
        assert_eq!(causes, [-7.0, 1.0, 4.0]);
        assert_eq!(maxima(&ledger).len(), 6, "every token-day counts without causes");
    }

    #[test]
    fn case_stores_each_rise_of_its_score() {
        let mut ledger = Ledger::default();
        for (minute, score) in [(10, -2.0), (12, -4.0), (11, 1.0), (30, 1.0), (40, 6.0)] {
            ledger.observe(&theft(1, minute * MINUTE_MS, score, 0));
        }
        let (_, case) = ledger.cases().next().expect("a case");
        assert_eq!(case.events, 5);
        assert!((case.highest(0) - 6.0).abs() < 1e-9);
        let detected = |bar| case.detected(0, bar).map(|rise| (rise.events, rise.at / MINUTE_MS));
        assert_eq!(case.first_at, 10 * MINUTE_MS);
        assert_eq!(detected(-3.0), Some((1, 10)));
        assert_eq!(detected(0.0), Some((3, 11)));
        assert_eq!(detected(1.0), Some((5, 40)), "above the threshold, not at it");
        assert_eq!(detected(6.0), None);
    }

    #[test]
    fn turn_begins_after_a_use_of_the_owner() {
        let mut ledger = Ledger::default();
        ledger.observe(&honest(1, 0, 0.0));
        for (at, thief) in [(1, true), (2, true), (3, false), (4, true), (5, false), (6, false), (7, true)] {
            ledger.observe(&if thief { theft(1, at, at as f32, 0) } else { honest(1, at, 0.0) });
        }
        let (_, case) = ledger.cases().next().expect("a case");
        assert_eq!((case.events, case.turns), (4, 3));
        assert_eq!(case.detected(0, 3.0).map(|rise| (rise.events, rise.turns)), Some((3, 2)));
    }

    #[test]
    fn revocation_is_correct_once_a_thief_came() {
        let mut ledger = Ledger::default();
        let revoke = |seen: Observation| Observation { verdict: Verdict::Revoke, ..seen };
        assert_eq!(ledger.observe(&revoke(honest(1, 0, 9.0))), Noted::FalseRevocation);
        assert_eq!(ledger.observe(&revoke(honest(1, 1, 9.0))), Noted::Nothing, "the token is already revoked");
        ledger.observe(&theft(2, 0, 0.0, 0));
        assert_eq!(ledger.observe(&revoke(honest(2, 40 * DAY_MS, 9.0))), Noted::Nothing, "a stolen token stays stolen");
        assert_eq!(ledger.observe(&revoke(theft(3, 0, 9.0, 1))), Noted::Nothing);
        assert_eq!(ledger.revocations(), (2, 1));
        // A token that is stolen after its revocation, and a second theft of the same token.
        ledger.observe(&revoke(theft(1, 2, 9.0, 2)));
        ledger.observe(&theft(2, 2 * HOUR_MS, 0.0, 3));
        let mut stolen: Vec<_> = ledger.stolen_tokens().collect();
        stolen.sort_unstable();
        assert_eq!(stolen, [(0, true), (1, true), (2, false)]);
        assert_eq!(ledger.alerts(), (1, 2), "a revocation is an alert too, which is correct for 24 hours");
    }
}
