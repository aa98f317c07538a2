//! The score of one event: the share of each detector, their sum, and further inputs of the verdict.

use std::ops::{Index, IndexMut};

use super::id::DetectorId;
use super::lesson::Lesson;
use crate::memory::{ClientLevel, Evidence, NetLevel};
use crate::place::NetworkClass;
use crate::verdict::RuleId;

/// Share of each detector in the score: its weighted evidence, nats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Shares([f64; DetectorId::COUNT]);

impl Shares {
    pub(crate) fn sum(&self) -> f64 {
        self.0.iter().sum()
    }
}

impl Index<DetectorId> for Shares {
    type Output = f64;

    fn index(&self, detector: DetectorId) -> &f64 {
        &self.0[detector as usize]
    }
}

impl IndexMut<DetectorId> for Shares {
    fn index_mut(&mut self, detector: DetectorId) -> &mut f64 {
        &mut self.0[detector as usize]
    }
}

/// Place of use, compared with the owner's places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// The network was known when the holder began, or the holder is older than 10 days.
    Usual,
    /// The token of a machine on servers is used from an access network and an unknown address, possibly by an employee.
    ByHand,
    /// The token of a machine on servers is used from other servers, possibly after a move of the machine.
    Moved,
    Elsewhere,
}

/// Origin of an event, for [`Setting::of`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The token is that of a machine on servers.
    pub(crate) machine_on_servers: bool,
    /// Class of the network, if the GeoIP data has it.
    pub(crate) class: Option<NetworkClass>,
    pub(crate) level: NetLevel,
    /// The holder is at most 10 days old, on a network that was new when it began.
    pub(crate) new_holder: bool,
}

impl Setting {
    pub(crate) fn of(origin: Origin) -> Self {
        let Origin { machine_on_servers, class, level, new_holder } = origin;
        if machine_on_servers && class == Some(NetworkClass::Access) && level > NetLevel::KnownAddress {
            Self::ByHand
        } else if machine_on_servers && new_holder && class != Some(NetworkClass::Anonymiser) {
            Self::Moved
        } else if new_holder {
            Self::Elsewhere
        } else {
            Self::Usual
        }
    }
}

/// The score of one event, and the numbers that the verdict and the reasons read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Score {
    pub(crate) log_odds: f64,
    pub(crate) shares: Shares,
    /// Sum of the shares about the identity of the holder ([`super::Detector::OF_IDENTITY`]).
    pub(crate) of_identity: f64,
    /// Evidence against the holder.
    pub(crate) evidence: Evidence,
    /// Part of `fan` by application.
    pub(crate) app_fan: f64,
    /// Part of `fan` by address.
    pub(crate) ip_fan: f64,
    /// Reduction for a shared cause; at most 0.
    pub(crate) together: f64,
    /// Part of `route` from change-point detection: calls between the owner's calls.
    pub(crate) between: f64,
    pub(crate) setting: Setting,
    /// Number of events in the visit.
    pub(crate) visit_calls: u32,
    /// Users who are new at the same place within two hours, including this one.
    pub(crate) arrivals: usize,
    pub(crate) net_level: NetLevel,
    pub(crate) client_level: ClientLevel,
    pub(crate) lifecycle_rule: Option<RuleId>,
    /// The event adds evidence, or begins a visit or holder.
    pub(crate) changed: bool,
    /// The event is later than the allowed lateness.
    pub(crate) late: bool,
}

impl Score {
    /// Score without evidence, for example of a token in its first visit.
    pub(crate) fn nothing(prior_log_odds: f64) -> Self {
        Self {
            log_odds: prior_log_odds,
            shares: Shares::default(),
            of_identity: 0.0,
            evidence: Evidence::default(),
            app_fan: 0.0,
            ip_fan: 0.0,
            together: 0.0,
            between: 0.0,
            setting: Setting::Usual,
            visit_calls: 0,
            arrivals: 0,
            net_level: NetLevel::KnownAddress,
            client_level: ClientLevel::Known,
            lifecycle_rule: None,
            changed: false,
            late: false,
        }
    }

    /// Score of what the detectors have found, before their shares are added.
    pub(crate) fn of(lesson: &Lesson, setting: Setting, prior_log_odds: f64) -> Self {
        let Lesson { holder, visit, .. } = lesson;
        Self {
            log_odds: prior_log_odds,
            shares: Shares::default(),
            of_identity: 0.0,
            evidence: holder.evidence,
            app_fan: visit.app_fan.into(),
            ip_fan: visit.ip_fan.into(),
            together: visit.together.into(),
            between: visit.between.into(),
            setting,
            visit_calls: visit.calls,
            arrivals: usize::from(visit.arrivals),
            net_level: visit.net_level,
            client_level: visit.client_level,
            lifecycle_rule: RuleId::ALL.get(usize::from(holder.lifecycle_rule)).copied(),
            changed: lesson.changed,
            late: lesson.late,
        }
    }

    /// Part of the identity evidence that `fan` does not explain, 0 to 1.
    pub(crate) fn unexplained(&self) -> f64 {
        let found = self.of_identity + self.app_fan + self.ip_fan;
        if found > 0.0 { ((found + self.together) / found).clamp(0.0, 1.0) } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_token_on_access_network_is_by_hand() {
        let new = Origin {
            machine_on_servers: true,
            class: Some(NetworkClass::Access),
            level: NetLevel::NewNetwork,
            new_holder: true,
        };
        assert_eq!(Setting::of(new), Setting::ByHand);
        let old = Origin { new_holder: false, ..new };
        assert_eq!(Setting::of(old), Setting::ByHand, "an old holder");
        let known = Origin { level: NetLevel::KnownAddress, ..old };
        assert_eq!(Setting::of(known), Setting::Usual, "the address has become known");
        let hosting = Origin { class: Some(NetworkClass::Hosting), ..new };
        assert_eq!(Setting::of(hosting), Setting::Moved);
        let anonymous = Origin { class: Some(NetworkClass::Anonymiser), ..new };
        assert_eq!(Setting::of(anonymous), Setting::Elsewhere, "a machine does not move to an anonymiser");
        assert_eq!(Setting::of(Origin { new_holder: false, ..hosting }), Setting::Usual);
        let unknown = Origin { class: None, ..new };
        assert_eq!(Setting::of(unknown), Setting::Moved, "GeoIP data does not have the network");
        let person = Origin { machine_on_servers: false, ..new };
        assert_eq!(Setting::of(person), Setting::Elsewhere, "a token of a person");
    }

    #[test]
    fn unexplained_excludes_explained_evidence() {
        let halved = Score { of_identity: 8.0, together: -4.0, ..Score::nothing(-7.0) };
        assert!((halved.unexplained() - 0.5).abs() < 1e-9);
        assert!((Score::nothing(-7.0).unexplained() - 1.0).abs() < 1e-9);
    }
}
