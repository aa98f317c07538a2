//! What time it is, by the events alone: neither a clock that is wrong nor a message that was held up decides it.

/// Events of which the earliest, but for some strays, are taken for the watermark.
const BATCH: u32 = 256;
/// So many of them may lie far behind.
const STRAYS: usize = 8;
/// The last events, of which the median is taken for now.
const LAST: usize = 9;
/// Beyond the median by more than this is a mistake, or the first after a long silence of everybody's.
const FAR_MS: i64 = 30 * 86_400_000;
/// Where the last events lie farther apart than this, they are too few to tell a clock that is ahead.
const DENSE_MS: i64 = 10 * 60_000;

/// Milliseconds since the epoch; 0 where nothing is known yet.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    watermark: i64,
    /// The earliest of the running batch, in their order.
    earliest: [i64; STRAYS],
    events: u32,
    last: [i64; LAST],
    next: usize,
}

impl Default for Clock {
    fn default() -> Self {
        Self { watermark: 0, earliest: [i64::MAX; STRAYS], events: 0, last: [0; LAST], next: 0 }
    }
}

impl Clock {
    pub fn see(&mut self, at: i64) {
        self.last[self.next] = at;
        self.next = (self.next + 1) % LAST;
        let latest = STRAYS - 1;
        if at < self.earliest[latest] {
            self.earliest[latest] = at;
            let place = self.earliest[..latest].partition_point(|earlier| *earlier <= at);
            self.earliest[place..].rotate_right(1);
        }
        self.events += 1;
        if self.events == BATCH {
            self.watermark = self.watermark.max(self.earliest[latest]);
            (self.events, self.earliest) = (0, [i64::MAX; STRAYS]);
        }
    }

    /// Event time that hardly any events are to come from before.
    pub const fn watermark(&self) -> i64 {
        self.watermark
    }

    /// When it is, as the last events have it: one clock that is ahead moves it nowhere.
    pub fn now(&self) -> i64 {
        self.sorted()[LAST / 2].max(self.watermark)
    }

    /// Whether `at` cannot be true: a month after what others say.
    pub fn is_far_ahead(&self, at: i64) -> bool {
        self.watermark != 0 && at > self.watermark + FAR_MS && at > self.now() + FAR_MS
    }

    /// By how much the clock that said `at` is ahead of others, as far as they can tell.
    pub fn ahead(&self, at: i64) -> i64 {
        let sorted = self.sorted();
        let spread = sorted[LAST - 3] - sorted[2];
        if sorted[0] == 0 || spread > DENSE_MS { 0 } else { (at - sorted[LAST / 2] - spread).max(0) }
    }

    fn sorted(&self) -> [i64; LAST] {
        let mut sorted = self.last;
        sorted.sort_unstable();
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_790_000_000_000;
    const SECOND: i64 = 1_000;
    const DAY: i64 = 86_400_000;
    const YEAR_2199: i64 = 7_226_582_400_000;

    #[test]
    fn strays_on_either_side_do_not_move_the_watermark() {
        let mut clock = Clock::default();
        for second in 0..10_000 {
            clock.see(NOON + second * SECOND);
            if second % 50 == 0 {
                clock.see(0);
                clock.see(YEAR_2199);
            }
        }
        let behind = NOON + 10_000 * SECOND - clock.watermark();
        assert!((0..600 * SECOND).contains(&behind), "{behind}");
    }

    #[test]
    fn a_time_that_nobody_else_is_near_is_far_ahead_until_others_come_to_it() {
        let mut clock = Clock::default();
        for second in 0..1_000 {
            clock.see(NOON + second * SECOND);
        }
        clock.see(YEAR_2199);
        assert!(clock.is_far_ahead(YEAR_2199) && !clock.is_far_ahead(NOON + DAY));
        let after_a_silence: Vec<bool> = (0..9)
            .map(|second| {
                let at = NOON + 90 * DAY + second * SECOND;
                clock.see(at);
                clock.is_far_ahead(at)
            })
            .collect();
        assert_eq!(after_a_silence.iter().filter(|far| **far).count(), 3, "{after_a_silence:?}");
        assert!(!Clock::default().is_far_ahead(YEAR_2199), "nothing is known yet");
    }

    #[test]
    fn a_clock_that_is_ahead_is_told_where_others_are_near() {
        let mut clock = Clock::default();
        for second in 0..20 {
            clock.see(NOON + second * SECOND);
        }
        let ahead = clock.ahead(NOON + 20 * SECOND + 3_900 * SECOND);
        assert!((3_890 * SECOND..3_910 * SECOND).contains(&ahead), "{ahead}");
        assert!(clock.ahead(NOON + 21 * SECOND) < 10 * SECOND);
        for hour in 1..20 {
            clock.see(NOON + hour * 3_600 * SECOND);
        }
        assert_eq!(clock.ahead(NOON + 22 * 3_600 * SECOND), 0, "too few to tell");
    }
}
