use super::*;
use crate::millis::{DAY_MS, HOUR_MS, SECOND_MS};

const NOON: i64 = 1_790_000_000_000;

/// A stream of events.
struct Stream {
    clock: Clock,
    at: i64,
    events: u64,
}

impl Stream {
    fn new() -> Self {
        Self { clock: Clock::new(DAY_MS), at: NOON, events: 0 }
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

    /// Adds `events` events of `subjects` established subjects of ten tenants, `every` milliseconds. Returns the number
    /// of rejected times.
    fn live(&mut self, events: u64, subjects: u64, every: i64) -> usize {
        self.live_with(events, subjects, every, |at| at)
    }

    /// Like [`Self::live`], with a wrong clock.
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

/// Errors of a wrong clock.
const WRONG: [i64; 4] = [400 * DAY_MS, 29 * DAY_MS, -400 * DAY_MS, -3 * DAY_MS];

#[test]
fn wrong_clock_of_a_run_of_events_moves_nothing() {
    for (wrong, established) in WRONG.into_iter().flat_map(|wrong| [(wrong, true), (wrong, false)]) {
        let mut stream = Stream::new();
        assert_eq!(stream.live(20_000, 2_000, 2 * SECOND_MS), 0);
        let (now, watermark) = (stream.clock.now(), stream.clock.watermark());
        for number in 0..600 {
            // Real subjects behind one gateway, or invented ids.
            let subject = if established { number % 300 } else { 1_000_000 + number };
            let range = stream.see(stream.at + wrong, voter(subject, subject % 10, established), None);
            assert_ne!(range, Range::Within, "{wrong} {established} {number}");
        }
        assert_eq!((stream.clock.now(), stream.clock.watermark()), (now, watermark));
        assert_eq!(stream.live(2_000, 2_000, 2 * SECOND_MS), 0, "all correct times are accepted");
    }
}

#[test]
fn wrong_clock_that_goes_on_costs_no_honest_event() {
    for wrong in WRONG {
        let mut stream = Stream::new();
        stream.live(20_000, 2_000, 2 * SECOND_MS);
        for number in 0..5_000_u64 {
            // A third of all events is from one tenant, and half of those have invented ids.
            if number % 3 == 0 {
                let by = voter(5_000_000 + number % 700, 77, number % 2 == 0);
                assert_ne!(stream.see(stream.at + wrong, by, None), Range::Within);
            } else {
                assert_eq!(stream.live(1, 2_000, 2 * SECOND_MS), 0, "{number}");
            }
        }
        let now = stream.clock.now().expect("it is known");
        assert!((stream.at - 60 * SECOND_MS..=stream.at).contains(&now));
    }
}

#[test]
fn invented_majority_moves_no_time() {
    for wrong in WRONG.into_iter().chain([20 * HOUR_MS, -20 * HOUR_MS]) {
        let mut stream = Stream::new();
        stream.live(20_000, 2_000, 2 * SECOND_MS);
        for number in 0..40_000_u64 {
            if number % 20 == 0 {
                assert_eq!(stream.live(1, 2_000, 2 * SECOND_MS), 0, "{wrong} {number}");
            } else {
                let by = voter(5_000_000 + number, number % 700, false);
                stream.see(stream.at + wrong, by, None);
            }
        }
        let now = stream.clock.now().expect("it is known");
        assert!((stream.at - 60 * SECOND_MS..=stream.at).contains(&now), "{wrong}: {}", now - stream.at);
        assert!((0..HOUR_MS).contains(&(stream.at - stream.clock.watermark())), "{wrong}");
    }
}

/// Control: if the established subjects disappear, the others decide.
#[test]
fn stream_goes_on_without_its_established_subjects() {
    for by in [-60, 21] {
        let mut stream = Stream::new();
        stream.live(20_000, 2_000, 2 * SECOND_MS);
        stream.at += by * DAY_MS;
        let mut off = 0;
        for number in 0..20_000 {
            stream.at += 2 * SECOND_MS;
            let range = stream.see(stream.at, voter(9_000_000 + number, number % 10, false), None);
            off += u32::from(range != Range::Within);
        }
        assert!((UNESTABLISHED_EVENTS..UNESTABLISHED_EVENTS + 1_200).contains(&off), "{by}: {off}");
        assert!(stream.clock.now().is_some_and(|now| (now - stream.at).abs() < HOUR_MS));
    }
}

#[test]
fn clock_recovers_from_a_wrong_beginning() {
    for (wrong, subjects) in WRONG.into_iter().flat_map(|wrong| [(wrong, 2_000), (wrong, 40)]) {
        let mut stream = Stream::new();
        for number in 0..600 {
            stream.see(NOON + wrong + number, voter(1_000_000 + number as u64, 1, false), None);
        }
        let off = stream.live(3_000, subjects, 2 * SECOND_MS);
        assert!(off <= 600, "{wrong}: {off} of 3,000 are rejected");
        assert_eq!(stream.live(1_000, subjects, 2 * SECOND_MS), 0);
        let late = stream.at - stream.clock.watermark();
        assert!((0..HOUR_MS).contains(&late), "the watermark is correct again: {late}");
    }
}

#[test]
fn stream_resumes_after_weeks_of_silence() {
    for (subjects, every) in [(2_000, 2 * SECOND_MS), (40, 360 * SECOND_MS), (1, HOUR_MS), (5, DAY_MS)] {
        let mut stream = Stream::new();
        stream.live(5_000, subjects, every);
        stream.at += 21 * DAY_MS;
        let off = stream.live(3_000, subjects, every);
        assert!(off <= 1_200, "{subjects}: {off}");
        assert_eq!(stream.live(1_000, subjects, every), 0);
        assert!(stream.clock.watermark() > NOON + 21 * DAY_MS);
    }
}

#[test]
fn one_token_with_gaps_of_days_is_accepted() {
    let mut stream = Stream::new();
    for day in 0..400 {
        let range = stream.see(NOON + day * day % 17 * DAY_MS + day * 20 * DAY_MS, voter(1, 1, day > 4), None);
        assert_eq!(range, Range::Within, "{day}");
    }
}

#[test]
fn backfill_of_old_events_is_accepted_after_a_while() {
    let mut stream = Stream::new();
    stream.live(20_000, 2_000, 2 * SECOND_MS);
    stream.at -= 60 * DAY_MS;
    let off = stream.live(5_000, 2_000, 2 * SECOND_MS);
    assert!(off <= 1_200, "{off}");
    assert!(stream.clock.now().is_some_and(|now| (now - stream.at).abs() < HOUR_MS));
    assert!(stream.clock.watermark() <= stream.at, "the watermark moves back with the stream");
}

#[test]
fn append_time_of_the_log_bounds_accepted_times() {
    let mut clock = Clock::new(DAY_MS);
    let by = |number| voter(number, number % 3, true);
    // The first events of a stream, 400 days ahead.
    for number in 0..600 {
        let appended = Some(NOON + number as i64);
        assert_eq!(clock.range(NOON + 400 * DAY_MS, appended), Range::Ahead);
        clock.consult(NOON + 400 * DAY_MS, by(number), appended);
    }
    assert_eq!(clock.now(), None);
    // A backfill: the log is of today, and all events of last month.
    for number in 0..1_000 {
        let (at, appended) = (NOON - 30 * DAY_MS + number as i64 * SECOND_MS, Some(NOON + number as i64));
        assert_eq!(clock.range(at, appended), Range::Within, "{number}");
        clock.take(at, by(number), appended);
    }
    // Events of today are accepted at once, from any subject.
    assert_eq!(clock.range(NOON, Some(NOON)), Range::Within);
    assert_eq!(clock.range(NOON - 400 * DAY_MS, Some(NOON)), Range::Behind);
}

#[test]
fn first_instant_of_the_epoch_is_a_time() {
    let mut clock = Clock::new(DAY_MS);
    clock.take(0, voter(1, 1, false), None);
    assert_eq!(clock.now(), Some(1));
}

#[test]
fn one_subject_does_not_move_the_stream_time() {
    let mut stream = Stream::new();
    stream.live(20_000, 2_000, 2 * SECOND_MS);
    let now = stream.clock.now().expect("it is known");
    // Each step is within the tolerance of the previous one.
    for step in 1..600 {
        stream.see(stream.at + step * 20 * HOUR_MS, voter(7, 7, true), None);
    }
    assert!(stream.clock.now().is_some_and(|later| later - now < 60 * SECOND_MS));
    assert!(stream.clock.watermark() <= now + 60 * SECOND_MS);
    assert_eq!(stream.live(1_000, 2_000, 2 * SECOND_MS), 0);
}

#[test]
fn outliers_on_either_side_do_not_move_the_watermark() {
    let mut stream = Stream::new();
    for number in 0..200 {
        stream.live(50, 500, SECOND_MS);
        for wrong in [-20 * HOUR_MS, 20 * HOUR_MS] {
            stream.see(stream.at + wrong, voter(number, 1, true), None);
        }
    }
    let behind = stream.at - stream.clock.watermark();
    assert!((0..600 * SECOND_MS).contains(&behind), "{behind}");
}

#[test]
fn clock_ahead_is_measured_where_others_are_near() {
    let mut stream = Stream::new();
    stream.live(100, 50, SECOND_MS);
    let ahead = stream.clock.ahead(stream.at + 3_900 * SECOND_MS);
    assert!((3_880 * SECOND_MS..3_910 * SECOND_MS).contains(&ahead), "{ahead}");
    assert!(stream.clock.ahead(stream.at + SECOND_MS) < 10 * SECOND_MS);
    assert_eq!(stream.clock.ahead(stream.at + 5 * DAY_MS), 0, "the other subjects are silent");
    stream.live(20, 50, HOUR_MS);
    assert_eq!(stream.clock.ahead(stream.at + HOUR_MS), 0, "too few to measure");
}
