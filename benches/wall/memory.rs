//! Memory, the wall of everything that remembers more than a cache holds.

use std::hint::black_box;
use std::time::Instant;

/// Lines of a baseline in the processor's cache, of eight words each.
const LINES: usize = 9;
const VISITS: usize = 1 << 20;

type Entry = [[u64; 8]; LINES];

/// Nanoseconds that reading all lines of an entry takes, among so many, where which is next shows only after the one
/// before; and where as many as `group` are known at a time, and looked ahead for.
pub fn entry(entries: usize, group: usize) -> (f64, f64) {
    let mut held: Vec<Entry> = vec![[[0; 8]; LINES]; entries];
    // Memory that nobody has written to is all one page.
    for entry in &mut held {
        entry[0][0] = black_box(0);
    }
    let mut random = 1_u64;
    let mut next = move || {
        // Marsaglia, "Xorshift RNGs", 2003.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let sum = |entry: &Entry| entry.iter().fold(0, |sum, line| sum ^ line[0] ^ line[7]);

    let began = Instant::now();
    let mut last = 0;
    for _ in 0..VISITS {
        // All is nothing, but the processor cannot know.
        last = sum(&held[(next() ^ last) as usize % entries]);
    }
    black_box(last);
    let one_by_one = began.elapsed();

    let began = Instant::now();
    let mut places = vec![0; group];
    for _ in 0..VISITS / group {
        places.fill_with(|| next() as usize % entries);
        black_box(places.iter().fold(0, |touched, place| touched ^ sum(&held[*place])));
        for place in &places {
            last = sum(&held[*place ^ last as usize]);
        }
    }
    black_box(last);
    let ahead = began.elapsed();
    let each = |took: std::time::Duration| took.as_nanos() as f64 / VISITS as f64;
    (each(one_by_one), each(ahead))
}
