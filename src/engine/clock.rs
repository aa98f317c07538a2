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
mod tests {
    use super::*;

    const NOON: i64 = 1_790_000_000_000;
    const SECOND: i64 = 1_000;
    const HOUR: i64 = 3_600 * SECOND;
    const DAY: i64 = 24 * HOUR;

    /// A stream as judgement reads it.
    struct Stream {
        clock: Clock,
        at: i64,
        events: u64,
    }

    impl Stream {
        fn new() -> Self {
            Self { clock: Clock::new(DAY), at: NOON, events: 0 }
        }

        fn see(&mut self, at: i64, by: Voter, appended: Option<i64>) -> Range {
            let mut range = self.clock.range(at, appended);
            if range != Range::Within {
                self.clock.consult(at, by, appended);
                range = self.clock.range(at, appended);
            }
            if range == Range::Within {
                self.clock.take(at, by, appended);
            }
            range
        }

        /// So many events of `subjects` established subjects of ten tenants, `every` milliseconds. How many are not
        /// believed.
        fn live(&mut self, events: u64, subjects: u64, every: i64) -> usize {
            self.live_with(events, subjects, every, |at| at)
        }

        /// The same, by a clock that is wrong.
        fn live_with(&mut self, events: u64, subjects: u64, every: i64, clock: impl Fn(i64) -> i64) -> usize {
            let mut off = 0;
            for _ in 0..events {
                self.at += every;
                self.events += 1;
                let number = self.events.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
                let range = self.see(clock(self.at), voter(number % subjects, number % subjects % 10, true), None);
                off += usize::from(range != Range::Within);
            }
            off
        }
    }

    fn voter(subject: u64, tenant: u64, established: bool) -> Voter {
        let hash = |number: u64| (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Voter { subject: hash(subject), tenant: hash(tenant), established }
    }

    /// Times that all other events of a run differ from the true one by.
    const WRONG: [i64; 4] = [400 * DAY, 29 * DAY, -400 * DAY, -3 * DAY];

    #[test]
    fn wrong_clock_of_a_run_of_events_moves_nothing() {
        for (wrong, established) in WRONG.into_iter().flat_map(|wrong| [(wrong, true), (wrong, false)]) {
            let mut stream = Stream::new();
            assert_eq!(stream.live(20_000, 2_000, 2 * SECOND), 0);
            let (now, watermark) = (stream.clock.now(), stream.clock.watermark());
            for number in 0..600 {
                // Real subjects behind one gateway, or names that somebody invents; the same range by either.
                let subject = if established { number % 300 } else { 1_000_000 + number };
                let range = stream.see(stream.at + wrong, voter(subject, subject % 10, established), None);
                assert_ne!(range, Range::Within, "{wrong} {established} {number}");
            }
            assert_eq!((stream.clock.now(), stream.clock.watermark()), (now, watermark));
            assert_eq!(stream.live(2_000, 2_000, 2 * SECOND), 0, "all honest events are believed");
        }
    }

    #[test]
    fn wrong_clock_that_goes_on_costs_no_honest_event() {
        for wrong in WRONG {
            let mut stream = Stream::new();
            stream.live(20_000, 2_000, 2 * SECOND);
            for number in 0..5_000_u64 {
                // A third of all events is one tenant's, and half of those are of names that it invents.
                if number % 3 == 0 {
                    let by = voter(5_000_000 + number % 700, 77, number % 2 == 0);
                    assert_ne!(stream.see(stream.at + wrong, by, None), Range::Within);
                } else {
                    assert_eq!(stream.live(1, 2_000, 2 * SECOND), 0, "{number}");
                }
            }
            let now = stream.clock.now().expect("it is known");
            assert!((stream.at - 60 * SECOND..=stream.at).contains(&now));
        }
    }

    #[test]
    fn invented_majority_moves_no_time() {
        for wrong in WRONG.into_iter().chain([20 * HOUR, -20 * HOUR]) {
            let mut stream = Stream::new();
            stream.live(20_000, 2_000, 2 * SECOND);
            for number in 0..40_000_u64 {
                if number % 20 == 0 {
                    assert_eq!(stream.live(1, 2_000, 2 * SECOND), 0, "{wrong} {number}");
                } else {
                    let by = voter(5_000_000 + number, number % 700, false);
                    stream.see(stream.at + wrong, by, None);
                }
            }
            let now = stream.clock.now().expect("it is known");
            assert!((stream.at - 60 * SECOND..=stream.at).contains(&now), "{wrong}: {}", now - stream.at);
            assert!((0..HOUR).contains(&(stream.at - stream.clock.watermark())), "{wrong}");
        }
    }

    /// The control of it: established subjects that are gone hold up no others.
    #[test]
    fn stream_goes_on_without_its_established_subjects() {
        for by in [-60, 21] {
            let mut stream = Stream::new();
            stream.live(20_000, 2_000, 2 * SECOND);
            stream.at += by * DAY;
            let mut off = 0;
            for number in 0..20_000 {
                stream.at += 2 * SECOND;
                let range = stream.see(stream.at, voter(9_000_000 + number, number % 10, false), None);
                off += u32::from(range != Range::Within);
            }
            assert!((UNESTABLISHED_EVENTS..UNESTABLISHED_EVENTS + 1_200).contains(&off), "{by}: {off}");
            assert!(stream.clock.now().is_some_and(|now| (now - stream.at).abs() < HOUR));
        }
    }

    #[test]
    fn clock_recovers_from_a_wrong_beginning() {
        for (wrong, subjects) in WRONG.into_iter().flat_map(|wrong| [(wrong, 2_000), (wrong, 40)]) {
            let mut stream = Stream::new();
            for number in 0..600 {
                stream.see(NOON + wrong + number, voter(1_000_000 + number as u64, 1, false), None);
            }
            let off = stream.live(3_000, subjects, 2 * SECOND);
            assert!(off <= 600, "{wrong}: {off} of 3,000 are not believed");
            assert_eq!(stream.live(1_000, subjects, 2 * SECOND), 0);
            let late = stream.at - stream.clock.watermark();
            assert!((0..HOUR).contains(&late), "the watermark is right again: {late}");
        }
    }

    #[test]
    fn stream_resumes_after_weeks_of_silence() {
        for (subjects, every) in [(2_000, 2 * SECOND), (40, 360 * SECOND), (1, HOUR), (5, DAY)] {
            let mut stream = Stream::new();
            stream.live(5_000, subjects, every);
            stream.at += 21 * DAY;
            let off = stream.live(3_000, subjects, every);
            assert!(off <= 1_200, "{subjects}: {off}");
            assert_eq!(stream.live(1_000, subjects, every), 0);
            assert!(stream.clock.watermark() > NOON + 21 * DAY);
        }
    }

    #[test]
    fn one_token_with_gaps_of_days_is_believed() {
        let mut stream = Stream::new();
        for day in 0..400 {
            let range = stream.see(NOON + day * day % 17 * DAY + day * 20 * DAY, voter(1, 1, day > 4), None);
            assert_eq!(range, Range::Within, "{day}");
        }
    }

    #[test]
    fn backfill_of_old_events_is_believed_after_a_while() {
        let mut stream = Stream::new();
        stream.live(20_000, 2_000, 2 * SECOND);
        stream.at -= 60 * DAY;
        let off = stream.live(5_000, 2_000, 2 * SECOND);
        assert!(off <= 1_200, "{off}");
        assert!(stream.clock.now().is_some_and(|now| (now - stream.at).abs() < HOUR));
        assert!(stream.clock.watermark() <= stream.at, "the watermark goes back with the stream");
    }

    #[test]
    fn append_time_of_the_log_bounds_what_is_believed() {
        let mut clock = Clock::new(DAY);
        let by = |number| voter(number, number % 3, true);
        // The first events of a stream, 400 days ahead.
        for number in 0..600 {
            let appended = Some(NOON + number as i64);
            assert_eq!(clock.range(NOON + 400 * DAY, appended), Range::Ahead);
            clock.consult(NOON + 400 * DAY, by(number), appended);
        }
        assert_eq!(clock.now(), None);
        // A backfill: the log is of today, and all events of last month.
        for number in 0..1_000 {
            let (at, appended) = (NOON - 30 * DAY + number as i64 * SECOND, Some(NOON + number as i64));
            assert_eq!(clock.range(at, appended), Range::Within, "{number}");
            clock.take(at, by(number), appended);
        }
        // What comes with it of today is believed at once, whoever sends it.
        assert_eq!(clock.range(NOON, Some(NOON)), Range::Within);
        assert_eq!(clock.range(NOON - 400 * DAY, Some(NOON)), Range::Behind);
    }

    #[test]
    fn first_instant_of_the_epoch_is_a_time() {
        let mut clock = Clock::new(DAY);
        clock.take(0, voter(1, 1, false), None);
        assert_eq!(clock.now(), Some(1));
    }

    #[test]
    fn one_subject_moves_the_time_of_no_other() {
        let mut stream = Stream::new();
        stream.live(20_000, 2_000, 2 * SECOND);
        let now = stream.clock.now().expect("it is known");
        // Within what is believed each time, and on and on.
        for step in 1..600 {
            stream.see(stream.at + step * 20 * HOUR, voter(7, 7, true), None);
        }
        assert!(stream.clock.now().is_some_and(|later| later - now < 60 * SECOND));
        assert!(stream.clock.watermark() <= now + 60 * SECOND);
        assert_eq!(stream.live(1_000, 2_000, 2 * SECOND), 0);
    }

    #[test]
    fn strays_on_either_side_do_not_move_the_watermark() {
        let mut stream = Stream::new();
        for number in 0..200 {
            stream.live(50, 500, SECOND);
            for wrong in [-20 * HOUR, 20 * HOUR] {
                stream.see(stream.at + wrong, voter(number, 1, true), None);
            }
        }
        let behind = stream.at - stream.clock.watermark();
        assert!((0..600 * SECOND).contains(&behind), "{behind}");
    }

    #[test]
    fn clock_ahead_is_measured_where_others_are_near() {
        let mut stream = Stream::new();
        stream.live(100, 50, SECOND);
        let ahead = stream.clock.ahead(stream.at + 3_900 * SECOND);
        assert!((3_880 * SECOND..3_910 * SECOND).contains(&ahead), "{ahead}");
        assert!(stream.clock.ahead(stream.at + SECOND) < 10 * SECOND);
        assert_eq!(stream.clock.ahead(stream.at + 5 * DAY), 0, "the others are silent");
        stream.live(20, 50, HOUR);
        assert_eq!(stream.clock.ahead(stream.at + HOUR), 0, "too few to tell");
    }
}
