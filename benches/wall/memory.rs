//! Memory reads, the reference for state that does not fit into a cache.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tokenwarden::memory::Baseline;

const WORDS: usize = 8;
/// Cache lines of a baseline.
const LINES: usize = size_of::<Baseline>() / (8 * WORDS);
const GROUPS: usize = 1 << 15;

#[derive(Clone)]
#[repr(align(64))]
struct Entry([[u64; WORDS]; LINES]);

/// Nanoseconds to read all lines of an entry as large as a baseline, out of `entries`. First value: each entry is known
/// only after the one before. Second value: `group` entries are known at a time and prefetched.
pub(crate) fn entry(entries: usize, group: usize) -> (f64, f64) {
    let mut held: Vec<Entry> = vec![Entry([[0; WORDS]; LINES]); entries];
    // Pages that were never written all map to one page, so every entry is written first.
    for Entry(lines) in &mut held {
        lines[0][0] = black_box(0);
    }
    let mut random = 1_u64;
    let mut next = move || {
        // Marsaglia, "Xorshift RNGs", 2003.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let sum = |Entry(lines): &Entry| lines.iter().fold(0, |sum, line| sum ^ line[0]);

    let began = Instant::now();
    let mut last = 0;
    for _ in 0..GROUPS * group {
        // The sums are 0, which the processor cannot predict.
        last = sum(&held[(next() ^ last) as usize % entries]);
    }
    black_box(last);
    let one_by_one = began.elapsed();

    let began = Instant::now();
    let mut places = vec![0; group];
    for _ in 0..GROUPS {
        places.fill_with(|| next() as usize % entries);
        black_box(places.iter().fold(0, |touched, place| touched ^ sum(&held[*place])));
        for place in &places {
            last = sum(&held[*place ^ last as usize]);
        }
    }
    black_box(last);
    let ahead = began.elapsed();
    let each = |took: Duration| took.as_nanos() as f64 / (GROUPS * group) as f64;
    (each(one_by_one), each(ahead))
}
