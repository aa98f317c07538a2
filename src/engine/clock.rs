//! Event time: accepted times, stream time, and the watermark that ends visits.
//!
//! Producers write event times, and a producer's clock may be wrong or manipulated. A time is accepted if it is within
//! `clock_skew_ms_max` of the time at which the log appended the record (`LogAppendTime`), or of the time of most
//! subjects. A rejected time does not change the stream time. The decision is
//! `docs/decisions/0024-event-time-validation.md`.

use serde::{Deserialize, Serialize};

use crate::millis::{HOUR_MS, MINUTE_MS};

/// Events per batch. The watermark is the earliest time of a batch, without outliers.
const BATCH: u32 = 256;
/// Number of outliers of a batch that may be far behind.
const OUTLIERS: usize = 8;
/// Number of latest subjects whose median time is the stream time.
const LAST: usize = 9;
/// The median is computed at each of the first 256 events, then at every eighth.
const EACH_UNTIL: u32 = 256;
const EVERY: u32 = 8;
/// If the times of the last subjects differ by more than this, the lead of a clock is not measured.
const DENSE_MS: i64 = 10 * MINUTE_MS;
/// Maximum lead of a clock that is measured.
const AHEAD_MS_MAX: i64 = 2 * HOUR_MS;

/// Number of groups of subjects that vote on times outside the tolerance: established subjects, and all.
const ESTABLISHED: usize = 1_024;
const ANY: usize = 256;
/// A vote expires after this number of further votes. 600 consecutive events of one wrong clock have no majority.
const ESTABLISHED_VOTES: u32 = 4_096;
const ANY_VOTES: u32 = 256;
/// Once 16 groups of established subjects have voted, only they decide, so that invented ids cannot move the stream
/// time. If 8,192 events pass without an established subject, all subjects decide.
const ESTABLISHED_MIN: u32 = 16;
const UNESTABLISHED_EVENTS: u32 = 8_192;
/// Slots for the votes of tenants; two tenants may share one.
const TENANTS: usize = 64;

/// Events over which the time per event is measured.
const PACE_EVENTS: u32 = 64;
/// Maximum pause, as the usual duration of this many events. With fewer events a day, longer pauses are usual.
const PAUSE_EVENTS: i64 = 1_000;

const UNLIMITED_MS: i64 = 1 << 50;

/// Class of an event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    Within,
    /// Later than any correct clock.
    Ahead,
    /// Earlier than late deliveries.
    Behind,
}

/// Voter of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voter {
    /// Keys.
    pub(crate) subject: u64,
    pub(crate) tenant: u64,
    /// The subject has a history.
    pub(crate) established: bool,
}

/// Milliseconds since the epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Clock {
    skew_ms_max: i64,
    now: Option<i64>,
    /// The latest of [`Self::last`].
    newest: i64,
    /// Latest append time; 0: unknown.
    appended: i64,
    /// Number of accepted times.
    taken: u32,
    /// One time per subject, and the index of the next one.
    last: [Reported; LAST],
    next: usize,
    watermark: i64,
    /// The earliest times of the current batch, sorted.
    earliest: [i64; OUTLIERS],
    events: u32,
    established: Votes,
    any: Votes,
    /// Events of other subjects since the last one of an established subject.
    unestablished: u32,
    pace: Pace,
}

/// A subject's time.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Reported {
    subject: u64,
    at: i64,
}

impl Clock {
    /// Times within `skew_ms_max` of the append time are accepted.
    pub(crate) fn new(skew_ms_max: i64) -> Self {
        Self {
            skew_ms_max,
            now: None,
            newest: 0,
            taken: 0,
            appended: 0,
            last: [Reported::default(); LAST],
            next: 0,
            watermark: 0,
            earliest: [i64::MAX; OUTLIERS],
            events: 0,
            established: Votes::new(ESTABLISHED, ESTABLISHED_VOTES),
            any: Votes::new(ANY, ANY_VOTES),
            unestablished: 0,
            pace: Pace::default(),
        }
    }

    /// Changes the tolerance of [`Self::new`].
    pub(crate) const fn set_skew(&mut self, skew_ms_max: i64) {
        self.skew_ms_max = skew_ms_max;
    }

    /// Classifies `at` by the append time of the record, which producers cannot set, or else by the stream time.
    pub(crate) fn range(&self, at: i64, appended: Option<i64>) -> Range {
        if let Some(appended) = appended {
            if at > appended + self.skew_ms_max {
                return Range::Ahead;
            }
            if at >= appended - self.skew_ms_max {
                return Range::Within;
            }
        }
        let Some(now) = self.now else { return Range::Within };
        let tolerance = self.tolerance();
        if at > self.newest + tolerance {
            // A subject that continues alone while all others are silent advances in steps of the tolerance.
            Range::Ahead
        } else if at < now - tolerance {
            Range::Behind
        } else {
            Range::Within
        }
    }

    /// Counts a vote for a time outside the tolerance. If most groups agree, it becomes the stream time. This happens
    /// after a silence of the whole stream, or when a backfill begins.
    pub(crate) fn consult(&mut self, at: i64, by: Voter, appended: Option<i64>) {
        if appended.is_some_and(|appended| at > appended + self.skew_ms_max) {
            // An event from the future of the log cannot be confirmed.
            return;
        }
        let (Some(now), Some(votes)) = (self.now, self.vote(at, by)) else { return };
        if let Some(agreed) = votes.agreed(at, now) {
            (self.now, self.newest) = (Some(agreed), agreed);
            self.last = [Reported::default(); LAST];
            self.last[0] = Reported { subject: 0, at: agreed };
            self.next = 1;
            self.watermark = self.watermark.min(agreed);
            (self.events, self.earliest) = (0, [i64::MAX; OUTLIERS]);
            self.pace.restart(agreed);
        }
    }

    /// Learns an accepted time.
    pub(crate) fn take(&mut self, at: i64, by: Voter, appended: Option<i64>) {
        // 0: empty slot.
        let at = at.max(1);
        self.appended = self.appended.max(appended.unwrap_or(0));
        if self.vote(at, by).is_none() {
            return;
        }
        // A subject has one slot.
        let index = self.last.iter().position(|reported| reported.subject == by.subject);
        let index = index.filter(|index| self.last[*index].at != 0).unwrap_or_else(|| {
            let index = self.next;
            self.next = (index + 1) % LAST;
            index
        });
        self.last[index] = Reported { subject: by.subject, at };
        self.newest = self.newest.max(at);
        self.taken = self.taken.wrapping_add(1).max(1);
        let now = match self.now {
            // Sorting is the most expensive step, and the median changes little in a few events.
            Some(now) if self.taken > EACH_UNTIL && !self.taken.is_multiple_of(EVERY) => now,
            _ => {
                let sorted = self.sorted();
                let unknown = sorted.partition_point(|at| *at == 0);
                self.newest = sorted[LAST - 1];
                sorted[unknown + (LAST - unknown) / 2]
            }
        };
        self.now = Some(now);
        self.pace.count(now);

        let latest = OUTLIERS - 1;
        if at < self.earliest[latest] {
            self.earliest[latest] = at;
            let index = self.earliest[..latest].partition_point(|earlier| *earlier <= at);
            self.earliest[index..].rotate_right(1);
        }
        self.events += 1;
        if self.events == BATCH {
            self.watermark = self.watermark.max(self.earliest[latest].min(now));
            (self.events, self.earliest) = (0, [i64::MAX; OUTLIERS]);
        }
    }

    /// Counts a vote. Returns the votes that decide now; `None` if this vote is not among them.
    #[inline]
    fn vote(&mut self, at: i64, by: Voter) -> Option<&Votes> {
        if by.established {
            self.established.set(at, by);
        }
        self.unestablished = if by.established { 0 } else { self.unestablished.saturating_add(1) };
        let established_decide =
            self.established.groups >= ESTABLISHED_MIN && self.unestablished < UNESTABLISHED_EVENTS;
        if established_decide {
            return by.established.then_some(&self.established);
        }
        self.any.set(at, by);
        Some(&self.any)
    }

    /// Maximum accepted distance from the stream time.
    fn tolerance(&self) -> i64 {
        self.pace.pause_ms.max(self.skew_ms_max)
    }

    /// Event time before which few events are expected. It moves back only with the whole stream.
    pub(crate) const fn watermark(&self) -> i64 {
        self.watermark
    }

    /// Stream time: the median of the last subjects. It may go back by the difference of their clocks. `None`: no event
    /// yet.
    pub(crate) const fn now(&self) -> Option<i64> {
        self.now
    }

    /// Latest time of the last subjects. It replaces a rejected time.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.now.map(|_| self.newest)
    }

    /// Upper bound of accepted times. Later times in memory are from a wrong clock.
    pub(crate) fn latest(&self) -> i64 {
        if self.now.is_none() { i64::MAX } else { self.newest.max(self.appended) + self.tolerance() }
    }

    /// Lead of the clock that reported `at`; 0: not measurable.
    pub(crate) fn ahead(&self, at: i64) -> i64 {
        let sorted = self.sorted();
        let spread = sorted[LAST - 3] - sorted[2];
        let ahead = at - sorted[LAST / 2] - spread;
        // A larger lead is a silent stream, not a fast clock.
        let is_skew = (0..=AHEAD_MS_MAX).contains(&ahead);
        if sorted[0] != 0 && spread <= DENSE_MS && is_skew { ahead } else { 0 }
    }

    fn sorted(&self) -> [i64; LAST] {
        let mut sorted = self.last.map(|reported| reported.at);
        sorted.sort_unstable();
        sorted
    }
}

/// Latest vote of each group of subjects, so that a subject with many events has one vote.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Votes {
    /// The length is a power of two.
    slots: Box<[Slot]>,
    /// Number of votes after which a vote expires.
    lifetime: u32,
    /// Number of votes, and of groups with a vote.
    count: u32,
    groups: u32,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Slot {
    /// Minutes since the epoch; 0: no vote yet.
    minute: u32,
    /// Number of the vote.
    number: u32,
    tenant: u8,
}

impl Votes {
    fn new(slots: usize, lifetime: u32) -> Self {
        Self { slots: vec![Slot::default(); slots].into(), lifetime, count: 0, groups: 0 }
    }

    fn set(&mut self, at: i64, by: Voter) {
        let index = (by.subject >> 32) as usize & (self.slots.len() - 1);
        let slot = &mut self.slots[index];
        self.count = self.count.wrapping_add(1);
        self.groups += u32::from(slot.minute == 0);
        let tenant = (by.tenant >> 32) as usize % TENANTS;
        *slot = Slot { minute: (at / MINUTE_MS).max(1) as u32, number: self.count, tenant: tenant as u8 };
    }

    /// The median of the votes near `at`, if they are a majority of all groups, also without the tenant with the most
    /// votes. Expired votes, and votes near neither `at` nor `now`, do not count.
    fn agreed(&self, at: i64, now: i64) -> Option<i64> {
        let (at, now) = (at / MINUTE_MS, now / MINUTE_MS);
        let near = (at - now).abs() / 2;
        let (mut near_at, mut all) = ([0_usize; TENANTS], [0_usize; TENANTS]);
        let mut minutes = Vec::new();
        for slot in self.slots.iter().filter(|slot| slot.minute != 0) {
            if self.count.wrapping_sub(slot.number) >= self.lifetime {
                continue;
            }
            let (minute, tenant) = (i64::from(slot.minute), usize::from(slot.tenant));
            if (minute - at).abs() <= near {
                near_at[tenant] += 1;
                all[tenant] += 1;
                // Few events reach this line, and the loop costs more than the allocation.
                minutes.push(slot.minute);
            } else if (minute - now).abs() <= near {
                all[tenant] += 1;
            }
        }
        let leading = (0..TENANTS).max_by_key(|tenant| near_at[*tenant])?;
        let is_majority = |near_at: usize, all: usize| 2 * near_at > all;
        let (rest_near_at, rest) = (minutes.len() - near_at[leading], all.iter().sum::<usize>() - all[leading]);
        if !is_majority(minutes.len(), rest + all[leading]) || rest > 0 && !is_majority(rest_near_at, rest) {
            return None;
        }
        let middle = minutes.len() / 2;
        let (_, median, _) = minutes.select_nth_unstable(middle);
        Some(i64::from(*median) * MINUTE_MS)
    }
}

/// Event time per event.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Pace {
    events: u32,
    since: i64,
    /// Milliseconds per event in the last two batches; `None`: not measured yet.
    last: [Option<i64>; 2],
    /// Maximum pause of the stream. The faster batch counts, so that one pause does not allow longer ones.
    pause_ms: i64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { events: 0, since: 0, last: [None; 2], pause_ms: UNLIMITED_MS }
    }
}

impl Pace {
    const fn count(&mut self, now: i64) {
        if self.events == 0 {
            self.since = now;
        }
        self.events += 1;
        if self.events == PACE_EVENTS {
            let pace = (now - self.since) / (PACE_EVENTS as i64 - 1);
            self.last = [Some(if pace > 0 { pace } else { 0 }), self.last[0]];
            self.pause_ms = match self.last {
                [Some(one), Some(other)] => PAUSE_EVENTS * if one < other { one } else { other },
                _ => UNLIMITED_MS,
            };
            self.events = 0;
        }
    }

    /// After a change of the stream time, the current batch is discarded.
    const fn restart(&mut self, now: i64) {
        (self.events, self.since) = (0, now);
    }
}

#[cfg(test)]
mod tests;
