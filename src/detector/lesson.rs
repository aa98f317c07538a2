//! Result of scoring one event, which learning stores.

use std::num::NonZeroU32;

use super::switch::formula::AGE_DAYS_MAX;
use crate::memory::baseline::{OtherKeys, Refreshes};
use crate::memory::baselines::{BaselineIndex, Baselines};
use crate::memory::fleet::{Group, Member};
use crate::memory::hour::{Habits, Hour};
use crate::memory::population::Habit;
use crate::memory::visit::Core;
use crate::memory::{Baseline, Holder, Kind, NetLevel};

/// Findings of the detectors that only learning reads.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts about one event")]
pub(crate) struct Learns {
    /// The visit is the first of the baseline.
    pub(crate) first: bool,
    /// Weight of the call of the route. 0: a repeat.
    pub(crate) route: f64,
    /// Attractiveness of the route to a thief; 1 is an ordinary route.
    pub(crate) promise: f64,
    /// The route is rare.
    pub(crate) rare_route: bool,
    /// The owner has begun a new task.
    pub(crate) new_task: bool,
    /// A habit that departs from the known key of a token, and whether it was seen.
    pub(crate) departure: Option<(Habit, bool)>,
    /// The visit could show that the key of the token was replaced, and whether it was.
    pub(crate) replaced_key: Option<bool>,
    /// The area is called for the first time in the visit.
    pub(crate) area: bool,
    /// It is the first area of the visit.
    pub(crate) first_area: bool,
    /// The area is new to the owner, and its number in the visit reaches a level ([`crate::memory::areas::level`]).
    pub(crate) area_level: Option<usize>,
    /// A change of network, and the probability that it was the owner's.
    pub(crate) switch: Option<f64>,
    /// Milliseconds of activity since the previous event.
    pub(crate) active_ms: u32,
    /// Increase of the burst evidence in the running hour: from and to, nats.
    pub(crate) burst: Option<(f64, f64)>,
    pub(crate) arrival: Arrival,
}

/// Where a holder appears, for the detector `fan`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Arrival {
    #[default]
    /// The event has no place or no reliable time, or it shows nothing new.
    None,
    /// At an address that the baseline knows.
    AtKnownPlace,
    /// At a new address. The groups count the users who are new at the same network, prefix or address.
    WithOthers { member: Member, groups: [Option<Group>; 3] },
}

/// An hour of a baseline that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndedHour {
    /// Habits of the baseline, with this hour.
    pub(crate) habits: Habits,
    /// Day of the last burst, since the epoch.
    pub(crate) burst_day: u16,
    /// Bin and new mean of the season, if this hour changes it.
    pub(crate) season: Option<(usize, i8)>,
    /// For the cohort: logarithm of the count and the owner's mean of it, by [`crate::memory::cohort::Hourly`].
    pub(crate) hourly: [Option<(f64, f64)>; 3],
    /// Share of reads among the calls.
    pub(crate) reads: f64,
    /// Probability that the hour was the owner's.
    pub(crate) weight: f64,
    /// The next event of the baseline is of a later day.
    pub(crate) last_of_day: bool,
}

/// All changes that one event makes to its baseline, holder, hour and visit, and to shared tables. Scoring writes it,
/// and learning stores it.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts about one event")]
pub(crate) struct Lesson {
    /// A new baseline for this event. `None` if the token has one.
    pub(crate) fresh: Option<Box<Baseline>>,
    /// The visit that the event continues. `None` if the event begins one.
    pub(crate) number: Option<NonZeroU32>,
    pub(crate) visit: Core,
    /// The first routes of the visit do not include the route of the event.
    pub(crate) further_route: bool,
    /// The first areas of the visit do not include the area of the event.
    pub(crate) further_area: bool,
    /// Index of the holder among the holders of the baseline.
    pub(crate) holder_index: usize,
    pub(crate) holder: Holder,
    /// Another holder to which a change of network was credited, with its index.
    pub(crate) other: Option<(usize, Holder)>,
    /// Time of the last event of the baseline, milliseconds since the epoch.
    pub(crate) last_at: i64,
    /// Consecutive events that were late after a wrong clock.
    pub(crate) behind: u8,
    /// Upper limit of the times of all holders, after a wrong clock.
    pub(crate) latest: i64,
    pub(crate) hour: Hour,
    pub(crate) hour_begins: bool,
    pub(crate) ended_hour: Option<EndedHour>,
    pub(crate) refreshes: Option<Refreshes>,
    pub(crate) token: u32,
    pub(crate) binding: u32,
    pub(crate) binding_streak: u8,
    /// `None`: unchanged.
    pub(crate) other_keys: Option<OtherKeys>,
    pub(crate) kind: Kind,
    /// Log-odds of theft without the reduction for a shared cause. Learning weighs the event by them.
    pub(crate) log_odds: f64,
    /// The holder has an event in an earlier hour. The learning floor makes values known for such holders only.
    pub(crate) seen_in_earlier_hour: bool,
    /// The event is older than the newest of its baseline by more than the allowed lateness.
    pub(crate) late: bool,
    /// The network is evidence for the owner.
    pub(crate) usual_network: bool,
    /// Evidence of the most suspicious other holder, nats.
    pub(crate) sibling: f64,
    /// The event adds evidence, or begins a visit or holder.
    pub(crate) changed: bool,
    pub(crate) learns: Learns,
}

impl Lesson {
    /// A lesson for an event at `at` (milliseconds since the epoch) in a visit and of a new holder. It is created in place,
    /// because it is large.
    pub(crate) fn begin<'a>(lesson: &'a mut Option<Self>, baseline: &Baseline, visit: &Core, at: i64) -> &'a mut Self {
        lesson.insert(Self {
            fresh: None,
            number: None,
            visit: *visit,
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
            other_keys: None,
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

    /// The new baseline, or else the one at `index`.
    pub(crate) fn baseline<'a>(
        &'a self,
        baselines: &'a Baselines,
        index: Option<BaselineIndex>,
    ) -> Option<&'a Baseline> {
        self.fresh.as_deref().or_else(|| index.map(|index| baselines.get(index)))
    }

    /// Whether the event begins its visit.
    pub(crate) const fn begins_visit(&self) -> bool {
        self.number.is_none()
    }

    /// The other holders of the baseline, with their indices.
    pub(crate) fn others<'a>(&self, baseline: &'a Baseline) -> impl Iterator<Item = (usize, &'a Holder)> + use<'a> {
        let own = self.holder_index;
        baseline.holders.iter().enumerate().filter(move |(index, _)| *index != own)
    }

    /// Time of the last event of a holder, milliseconds since the epoch.
    pub(crate) fn last_at_of(&self, other: &Holder) -> i64 {
        other.last_at.min(self.latest)
    }

    /// Habits of the baseline, with the hour that has ended.
    pub(crate) fn habits<'a>(&'a self, baseline: &'a Baseline) -> &'a Habits {
        self.ended_hour.as_ref().map_or(&baseline.habits, |ended| &ended.habits)
    }

    /// Whether the holder is at most 10 days old, on a network that was new when it began. `at`: milliseconds since the
    /// epoch.
    pub(crate) fn holder_is_new(&self, at: i64) -> bool {
        self.holder.level >= NetLevel::NewNetwork && self.holder.age_days(at) < AGE_DAYS_MAX
    }
}
