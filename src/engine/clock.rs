//! Event time: which times are believed, how late it is, and which visits are over.
//!
//! Producers write event times, and a producer's clock may be wrong or lie. A time is believed if it lies within
//! `clock_skew_ms_max` of the time at which the log appended the record (`LogAppendTime`), or of the time that most
//! subjects agree on. A time that is not believed moves nothing. The decision is
//! `docs/decisions/0024-event-time-validation.md`.

/// Events of which the earliest, but for some strays, are taken for the watermark.
const BATCH: u32 = 256;
/// So many of them may lie far behind.
const STRAYS: usize = 8;
/// Subjects that spoke last, of whose times the median is taken for now.
const LAST: usize = 9;
/// The median is taken at each of so many events, and then at every eighth.
const EACH_UNTIL: u32 = 256;
const EVERY: u32 = 8;
/// Where the last subjects' times lie farther apart than this, they are too few to measure a clock that is ahead.
const DENSE_MS: i64 = 10 * 60_000;
/// A clock that is ahead by more than this is not measured.
const AHEAD_MS_MAX: i64 = 2 * 3_600_000;

/// Groups of subjects that vote when an event's time lies far off: of established subjects, and of any.
const ESTABLISHED: usize = 1_024;
const ANY: usize = 256;
/// A vote counts until so many others have come. Six hundred events of one wrong clock in a row are outvoted.
const ESTABLISHED_VOTES: u32 = 4_096;
const ANY_VOTES: u32 = 256;
/// Established subjects decide alone once so many groups of them have spoken, until so many events of other subjects have
/// come without one of theirs. Names that somebody invents move no time meanwhile, however many they are. The limit is
/// for a stream that has lost its established subjects.
const ESTABLISHED_MIN: u32 = 16;
const UNESTABLISHED_EVENTS: u32 = 8_192;
/// Tenants whose votes are counted apart; by chance two may share a place.
const TENANTS: usize = 64;

/// Events over which the pace of a stream is measured.
const PACE_EVENTS: u32 = 64;
/// A stream may pause for as long as so many of its events usually take: fewer than this many events a day, and a
/// pause of more than a day is nothing unusual.
const PAUSE_EVENTS: i64 = 1_000;

const MINUTE_MS: i64 = 60_000;
const UNLIMITED_MS: i64 = 1 << 50;

/// Where an event's time lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    Within,
    /// Later than any clock that is right can show.
    Ahead,
    /// Earlier than what is delivered late.
    Behind,
}

/// On whose behalf an event tells the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voter {
    /// Keys.
    pub subject: u64,
    pub tenant: u64,
    /// The subject has a past: names that somebody invents have none.
    pub established: bool,
}

/// Milliseconds since the epoch.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    skew_ms_max: i64,
    now: Option<i64>,
    /// The latest of [`Self::last`].
    newest: i64,
    /// When the log appended the newest record; 0: it does not tell.
    appended: i64,
    /// Times taken so far.
    taken: u32,
    /// Each of another subject, and the place that the next one takes.
    last: [Claim; LAST],
    next: usize,
    watermark: i64,
    /// The earliest of the running batch, in their order.
    earliest: [i64; STRAYS],
    events: u32,
    established: Votes,
    any: Votes,
    /// Events of other subjects since the last one of an established subject.
    unestablished: u32,
    pace: Pace,
}

/// A subject's time.
#[derive(Clone, Copy, Debug, Default)]
struct Claim {
    subject: u64,
    at: i64,
}

impl Clock {
    /// Times within `skew_ms_max` of what the log says are believed.
    #[must_use]
    pub(crate) fn new(skew_ms_max: i64) -> Self {
        Self {
            skew_ms_max,
            now: None,
            newest: 0,
            taken: 0,
            appended: 0,
            last: [Claim::default(); LAST],
            next: 0,
            watermark: 0,
            earliest: [i64::MAX; STRAYS],
            events: 0,
            established: Votes::new(ESTABLISHED, ESTABLISHED_VOTES),
            any: Votes::new(ANY, ANY_VOTES),
            unestablished: 0,
            pace: Pace::default(),
        }
    }

    /// Where `at` lies, by what is known so far; `appended`: when the log appended the record, by a clock that no
    /// producer can choose.
    #[must_use]
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
            // Who goes on alone while all others are silent goes by steps.
            Range::Ahead
        } else if at < now - tolerance {
            Range::Behind
        } else {
            Range::Within
        }
    }

    /// Takes a time that lies far off as a vote. Where most subjects have come to it, as after a silence of the whole
    /// stream, or when a backfill begins, it is the time from now on.
    pub(crate) fn consult(&mut self, at: i64, by: Voter, appended: Option<i64>) {
        if appended.is_some_and(|appended| at > appended + self.skew_ms_max) {
            // Nobody can know it yet.
            return;
        }
        let (Some(now), Some(votes)) = (self.now, self.vote(at, by)) else { return };
        if let Some(agreed) = votes.agreed(at, now) {
            (self.now, self.newest) = (Some(agreed), agreed);
            self.last = [Claim::default(); LAST];
            self.last[0] = Claim { subject: 0, at: agreed };
            self.next = 1;
            self.watermark = self.watermark.min(agreed);
            (self.events, self.earliest) = (0, [i64::MAX; STRAYS]);
            self.pace.restart(agreed);
        }
    }

    /// Takes a time that is believed.
    pub(crate) fn take(&mut self, at: i64, by: Voter, appended: Option<i64>) {
        // 0 stands for a subject that has not spoken.
        let at = at.max(1);
        self.appended = self.appended.max(appended.unwrap_or(0));
        if self.vote(at, by).is_none() {
            return;
        }
        // One subject, however often it speaks, has one of the places.
        let place = self.last.iter().position(|claim| claim.subject == by.subject);
        let place = place.filter(|place| self.last[*place].at != 0).unwrap_or_else(|| {
            let place = self.next;
            self.next = (place + 1) % LAST;
            place
        });
        self.last[place] = Claim { subject: by.subject, at };
        self.newest = self.newest.max(at);
        self.taken = self.taken.wrapping_add(1).max(1);
        let now = match self.now {
            // Sorting takes longer than all else here, and in a few events the median hardly moves.
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

        let latest = STRAYS - 1;
        if at < self.earliest[latest] {
            self.earliest[latest] = at;
            let place = self.earliest[..latest].partition_point(|earlier| *earlier <= at);
            self.earliest[place..].rotate_right(1);
        }
        self.events += 1;
        if self.events == BATCH {
            self.watermark = self.watermark.max(self.earliest[latest].min(now));
            (self.events, self.earliest) = (0, [i64::MAX; STRAYS]);
        }
    }

    /// Notes a vote. The votes that decide now; `None` where this one is not among them.
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

    /// How far from now a time may lie.
    fn tolerance(&self) -> i64 {
        self.pace.pause_ms.max(self.skew_ms_max)
    }

    /// Event time that hardly any events are to come from before. It moves back only with the stream as a whole.
    #[must_use]
    pub(crate) const fn watermark(&self) -> i64 {
        self.watermark
    }

    /// When it is, by the subjects that spoke last: one of them moves it nowhere. It may go back by as much as clocks
    /// differ. `None`: nobody has spoken yet.
    #[must_use]
    pub(crate) const fn now(&self) -> Option<i64> {
        self.now
    }

    /// The latest time of the subjects that spoke last: what stands in for a time that is not believed.
    #[must_use]
    pub(crate) fn newest(&self) -> Option<i64> {
        self.now.map(|_| self.newest)
    }

    /// The latest time that is believed: what memory holds of a later one came of a clock that was wrong.
    #[must_use]
    pub(crate) fn latest(&self) -> i64 {
        if self.now.is_none() { i64::MAX } else { self.newest.max(self.appended) + self.tolerance() }
    }

    /// By how much the clock that said `at` is ahead of others, as far as they can tell.
    #[must_use]
    pub(crate) fn ahead(&self, at: i64) -> i64 {
        let sorted = self.sorted();
        let spread = sorted[LAST - 3] - sorted[2];
        let ahead = at - sorted[LAST / 2] - spread;
        // By more than clocks differ it is no clock: the others are silent.
        let is_skew = (0..=AHEAD_MS_MAX).contains(&ahead);
        if sorted[0] != 0 && spread <= DENSE_MS && is_skew { ahead } else { 0 }
    }

    fn sorted(&self) -> [i64; LAST] {
        let mut sorted = self.last.map(|claim| claim.at);
        sorted.sort_unstable();
        sorted
    }
}

/// The latest time of each of a number of groups of subjects. Who speaks often, or under a few names, has few votes.
#[derive(Clone, Debug)]
struct Votes {
    /// A power of two of them.
    slots: Box<[Slot]>,
    /// Votes until one is forgotten.
    lasts: u32,
    /// Votes so far, and groups that ever gave one.
    count: u32,
    groups: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Minutes since the epoch; 0: no vote yet.
    minute: u32,
    /// Number of the vote.
    number: u32,
    tenant: u8,
}

impl Votes {
    fn new(slots: usize, lasts: u32) -> Self {
        Self { slots: vec![Slot::default(); slots].into(), lasts, count: 0, groups: 0 }
    }

    fn set(&mut self, at: i64, by: Voter) {
        let place = (by.subject >> 32) as usize & (self.slots.len() - 1);
        let slot = &mut self.slots[place];
        self.count = self.count.wrapping_add(1);
        self.groups += u32::from(slot.minute == 0);
        let tenant = (by.tenant >> 32) as usize % TENANTS;
        *slot = Slot { minute: (at / MINUTE_MS).max(1) as u32, number: self.count, tenant: tenant as u8 };
    }

    /// The time that most have come to, where that is near `at` and not near `now`: more than half of all groups heard
    /// of lately, and of those of the other tenants than the one with the most.
    fn agreed(&self, at: i64, now: i64) -> Option<i64> {
        let (at, now) = (at / MINUTE_MS, now / MINUTE_MS);
        let near = (at - now).abs() / 2;
        let (mut for_it, mut all) = ([0_usize; TENANTS], [0_usize; TENANTS]);
        let mut minutes = Vec::new();
        for slot in self.slots.iter().filter(|slot| slot.minute != 0) {
            if self.count.wrapping_sub(slot.number) >= self.lasts {
                continue;
            }
            let (minute, tenant) = (i64::from(slot.minute), usize::from(slot.tenant));
            if (minute - at).abs() <= near {
                for_it[tenant] += 1;
                all[tenant] += 1;
                // Few events come here, and an allocation is nothing beside the loop.
                minutes.push(slot.minute);
            } else if (minute - now).abs() <= near {
                all[tenant] += 1;
            }
        }
        let leading = (0..TENANTS).max_by_key(|tenant| for_it[*tenant])?;
        let is_most = |for_it: usize, all: usize| 2 * for_it > all;
        let (rest_for_it, rest) = (minutes.len() - for_it[leading], all.iter().sum::<usize>() - all[leading]);
        if !is_most(minutes.len(), rest + all[leading]) || rest > 0 && !is_most(rest_for_it, rest) {
            return None;
        }
        let middle = minutes.len() / 2;
        let (_, median, _) = minutes.select_nth_unstable(middle);
        Some(i64::from(*median) * MINUTE_MS)
    }
}

/// How fast event time goes by from event to event.
#[derive(Clone, Copy, Debug)]
struct Pace {
    events: u32,
    since: i64,
    /// Milliseconds an event, of the last two batches; `None`: not measured yet.
    last: [Option<i64>; 2],
    /// How long the stream may pause. The faster batch counts, so that one pause allows no longer ones.
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

    /// The time is another one: the batch under way says nothing.
    const fn restart(&mut self, now: i64) {
        (self.events, self.since) = (0, now);
    }
}

#[cfg(test)]
mod tests;
