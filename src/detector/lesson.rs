//! What the detectors find of one event, for learning to store.

use std::num::NonZeroU32;

use super::switch::formula::AGE_DAYS_MAX;
use crate::memory::baseline::{Habits, Hour, Refreshes};
use crate::memory::baselines::{Baselines, Place};
use crate::memory::fleet::{Group, Member};
use crate::memory::visit::Core;
use crate::memory::{Baseline, Holder, Kind, NetLevel};

/// What the detectors found that is to be learnt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Learns {
    pub first: bool,
    /// Weight of the route's call; 0: a repeat.
    pub route: f64,
    pub promise: f64,
    /// The route is rare.
    pub rare_route: bool,
    pub area: bool,
    /// A change of network, and the probability that it was the owner's.
    pub switch: Option<f64>,
    /// Milliseconds of activity since the event before.
    pub active_ms: u32,
    /// Evidence of a burst in the running hour has grown: from and to, nats.
    pub burst: Option<(f64, f64)>,
    pub arrival: Arrival,
}

/// Place of the holder, as far as the scores of others depend on it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Arrival {
    #[default]
    None,
    AtKnownPlace,
    /// To places with others who are new there.
    WithOthers {
        member: Member,
        groups: [Option<Group>; 3],
    },
}

/// An hour of a baseline that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndedHour {
    /// The baseline's own habits with it.
    pub habits: Habits,
    pub burst_day: u16,
    /// Bin and mean of the season that it has changed.
    pub season: Option<(usize, i8)>,
    /// For others: logarithm of the count, and the owner's own mean of it, by [`crate::memory::cohort::Hourly`].
    pub hourly: [Option<(f64, f64)>; 3],
    /// Share of reading among calls.
    pub reads: f64,
    /// Probability that it was the owner's.
    pub weight: f64,
    pub last_of_day: bool,
}

/// All changes that one event makes to its baseline, holder, hour and visit, and what it teaches. Scoring writes it, and
/// learning stores it.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts about one event")]
pub(crate) struct Lesson {
    /// The baseline that is made for this event; `None`: the token has one.
    pub fresh: Option<Box<Baseline>>,
    /// The visit that goes on; `None`: the event begins one.
    pub number: Option<NonZeroU32>,
    pub visit: Core,
    /// Its route and area are not among the first of the visit.
    pub further_route: bool,
    pub further_area: bool,
    /// The holder, and its place among the holders of the baseline.
    pub holder_index: usize,
    pub holder: Holder,
    /// Another holder that a change of network was credited to.
    pub other: Option<(usize, Holder)>,
    /// Times of the baseline; `latest`: no holder was there later than this.
    pub last_at: i64,
    pub behind: u8,
    pub latest: i64,
    pub hour: Hour,
    pub hour_begins: bool,
    pub ended_hour: Option<EndedHour>,
    pub refreshes: Option<Refreshes>,
    pub token: u32,
    pub binding: u32,
    pub binding_streak: u8,
    pub kind: Kind,
    /// Log-odds of theft, of what nothing but a theft explains.
    pub log_odds: f64,
    /// The holder's last event is of an earlier hour: only for them `OWNER_MIN` makes known.
    pub seen_in_earlier_hour: bool,
    /// It came after later ones of its baseline.
    pub late: bool,
    /// The network speaks for the owner.
    pub usual_network: bool,
    /// Evidence of the worst other holder, nats.
    pub sibling: f64,
    /// Something was found that the event before did not show.
    pub changed: bool,
    pub learns: Learns,
}

impl Lesson {
    /// Of an event at `at` (milliseconds since the epoch) in a new visit of `key` and a new holder. Made in place: it is large.
    pub(crate) fn begin<'a>(lesson: &'a mut Option<Self>, baseline: &Baseline, key: u64, at: i64) -> &'a mut Self {
        lesson.insert(Self {
            fresh: None,
            number: None,
            visit: Core::begun(baseline.key, key, at),
            further_route: false,
            further_area: false,
            holder_index: 0,
            holder: Holder::born(0, 0, at, NetLevel::KnownAddress),
            other: None,
            last_at: baseline.last_at,
            behind: baseline.behind,
            latest: i64::MAX,
            hour: baseline.hour,
            hour_begins: false,
            ended_hour: None,
            refreshes: None,
            token: baseline.token,
            binding: baseline.binding,
            binding_streak: baseline.binding_streak,
            kind: baseline.kind,
            log_odds: 0.0,
            seen_in_earlier_hour: false,
            late: false,
            usual_network: false,
            sibling: 0.0,
            changed: false,
            learns: Learns { first: baseline.visits == 0, ..Learns::default() },
        })
    }

    /// The baseline of a token that has one at `place`, or the one that is made for it.
    pub(crate) fn baseline<'a>(&'a self, baselines: &'a Baselines, place: Option<Place>) -> Option<&'a Baseline> {
        self.fresh.as_deref().or_else(|| place.map(|place| baselines.get(place)))
    }

    /// Whether the event begins its visit.
    pub(crate) const fn begins_visit(&self) -> bool {
        self.number.is_none()
    }

    /// The other holders of the baseline, with their places.
    pub(crate) fn others<'a>(&self, baseline: &'a Baseline) -> impl Iterator<Item = (usize, &'a Holder)> + use<'a> {
        let own = self.holder_index;
        baseline.holders.iter().enumerate().filter(move |(index, _)| *index != own)
    }

    /// When another holder was there last.
    pub(crate) fn last_at_of(&self, other: &Holder) -> i64 {
        other.last_at.min(self.latest)
    }

    /// The baseline's habits, with the hour that has ended.
    pub(crate) fn habits<'a>(&'a self, baseline: &'a Baseline) -> &'a Habits {
        self.ended_hour.as_ref().map_or(&baseline.habits, |ended| &ended.habits)
    }

    /// Whether the holder is young, and came from a network that was new; `at`: milliseconds since the epoch.
    pub(crate) fn holder_is_new(&self, at: i64) -> bool {
        self.holder.age_days(at) < AGE_DAYS_MAX && self.holder.level >= NetLevel::NewNetwork
    }
}
