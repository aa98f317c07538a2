//! Approximate counts of any number of keys in fixed memory.
//!
//! A count sketch (Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", ICALP 2002). Each key
//! has one cell per row and a sign in it, and its count is the median of its cells. Other keys in these cells have
//! either sign. A flood of keys therefore neither raises nor lowers counts: 10⁹ keys with one visit each change a count
//! by some 120. A count-min sketch counts too much after such a flood, and a table of keys evicts.

use serde::{Deserialize, Serialize};

const ROWS: usize = 5;
/// Binary logarithm of the cells per row.
const ROW_BITS: u32 = 15;
/// Odd factors of multiplicative hashing, one per row: multiples of 2⁶⁴/φ, made odd.
const FACTORS: [u64; ROWS] =
    [0x9e37_79b9_7f4a_7c15, 0x3c6e_f372_fe94_f82b, 0xdaa6_6d2c_7ddf_743f, 0x78dd_e6e5_fd29_f055, 0x1715_609f_7c74_6c69];

/// 640 KiB of cells. The system provides only the pages that are written.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sketch {
    cells: Box<[i32]>,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { cells: vec![0; ROWS << ROW_BITS].into() }
    }
}

impl Sketch {
    /// Adds to the count of `key`, which is a keyed hash, and returns the count.
    pub(crate) fn add(&mut self, key: u64, more: i32) -> i32 {
        let mut counts = [0; ROWS];
        for (row, count) in counts.iter_mut().enumerate() {
            // Mixed, because rows of one multiplication each would depend on each other.
            let hash = (key ^ key >> 32).wrapping_mul(FACTORS[row]);
            let hash = (hash ^ hash >> 29).wrapping_mul(FACTORS[(row + 1) % ROWS]);
            let cell = &mut self.cells[row << ROW_BITS | (hash >> (u64::BITS - ROW_BITS)) as usize];
            let sign = if hash & 1 << 40 == 0 { 1 } else { -1 };
            *cell = cell.saturating_add(sign * more);
            *count = cell.saturating_mul(sign);
        }
        counts.sort_unstable();
        counts[ROWS / 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sketch_counts_few_keys_exactly() {
        let mut sketch = Sketch::default();
        for round in 1..=20 {
            for key in 0..50 {
                assert_eq!(sketch.add(key, 1), round);
                assert_eq!(sketch.add(u64::MAX - key, 3), 3 * round);
            }
        }
        assert_eq!(sketch.add(7, -20), 0);
    }

    #[test]
    fn sketch_is_accurate_in_a_flood_of_keys() {
        let mut sketch = Sketch::default();
        for number in 0..300_000_u64 {
            let count = sketch.add(number.wrapping_mul(0xd134_2543_de82_ef95) + 7, 1);
            assert!(count.abs() < 60, "an invented key: {count}");
            if number % 1_000 == 0 {
                let count = sketch.add(1 << 60, 1) - (number / 1_000) as i32;
                assert!(count.abs() < 60, "a frequent key: {count}");
            }
        }
    }
}
