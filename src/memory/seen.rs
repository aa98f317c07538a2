//! What one baseline has seen, of every sort, in one small exact table.

/// What is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Sort {
    Address,
    Prefix,
    Network,
    Country,
    /// The whole user agent.
    Agent,
    /// Client family and version.
    Version,
    Family,
    Fingerprint,
    Route,
    Area,
}

const SORTS: usize = 10;
/// Entries kept of each sort: people have few countries and many addresses. 40 in all.
const QUOTA: [usize; SORTS] = [6, 4, 5, 3, 3, 2, 3, 2, 8, 4];

/// Counts are kept in sixteenths, so that a sighting can count by the probability that it was the owner's.
const UNIT: f64 = 16.0;

/// `weight`, 0 to 1, in sixteenths, for what `key` stands for and was seen at `minute` (since the epoch). It is rounded up
/// as often as what would be cut off is large, by a hash of both, so that no rhythm of visits meets the same rounding
/// again and again: the least of weights adds up too, and what goes on for long is learnt.
#[must_use]
pub fn sixteenths(weight: f64, key: u32, minute: u32) -> u16 {
    let mut mixed = (u64::from(minute) << 32 | u64::from(key)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    // Of 2^32 parts, so that a whole sighting is never more than that.
    let rounding = (mixed >> 32) as f64 / 4_294_967_296.0;
    (weight * UNIT + rounding) as u16
}

/// Minutes.
const DAY: u32 = 1_440;

/// From this weight on something counts as known: half a sure sighting.
const KNOWN: u16 = 8;

/// Half of an entry's weight in the choice of what to forget goes in so many days.
const STALE_DAYS: u32 = 30;

/// One thing that was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    key: u32,
    /// Sixteenths.
    count: u16,
    /// When it was last seen, in pairs of days, wrapping after a year and a half.
    age: u8,
}

/// Sightings by sort and key. The weakest of a sort makes room for what is new once it has been outweighed (Misra and
/// Gries's frequent-items rule), so that a flood of novelties does not wash away what is usual.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Those of a sort lie together, so that nothing else is looked at; behind the last is room for more.
    entries: Box<[Entry]>,
    /// Where the entries of each sort end.
    ends: [u8; SORTS],
}

impl Seen {
    /// Weight of the sightings of `key`; 0 where there are none, or forgotten ones.
    #[must_use]
    pub fn count(&self, sort: Sort, key: u32) -> f64 {
        self.find(sort, key).map_or(0.0, |entry| f64::from(entry.count) / UNIT)
    }

    #[must_use]
    pub fn knows(&self, sort: Sort, key: u32) -> bool {
        self.find(sort, key).is_some_and(|entry| entry.count >= KNOWN)
    }

    /// Whether anything of the sort is known.
    #[must_use]
    pub fn knows_any(&self, sort: Sort) -> bool {
        self.of(sort).iter().any(|entry| entry.count >= KNOWN)
    }

    /// All that is known of the sort.
    pub fn known(&self, sort: Sort) -> impl Iterator<Item = u32> {
        self.of(sort).iter().filter(|entry| entry.count >= KNOWN).map(|entry| entry.key)
    }

    /// All of the sort, with their weights.
    pub fn each(&self, sort: Sort) -> impl Iterator<Item = (u32, f64)> {
        self.of(sort).iter().map(|entry| (entry.key, f64::from(entry.count) / UNIT))
    }

    /// How many of the sort are known, and how many of them hardly so: seen about once.
    #[must_use]
    pub fn variety(&self, sort: Sort) -> (usize, usize) {
        let known = self.of(sort).iter().filter(|entry| entry.count >= KNOWN);
        known.fold((0, 0), |(all, once), entry| (all + 1, once + usize::from(f64::from(entry.count) < 1.5 * UNIT)))
    }

    /// The most usual of a sort, with its weight.
    #[must_use]
    pub fn most(&self, sort: Sort) -> Option<(u32, f64)> {
        let most = self.of(sort).iter().reduce(|most, entry| if entry.count > most.count { entry } else { most })?;
        Some((most.key, f64::from(most.count) / UNIT))
    }

    /// Weight of all that is kept of a sort.
    #[must_use]
    pub fn total(&self, sort: Sort) -> f64 {
        self.of(sort).iter().map(|entry| f64::from(entry.count)).sum::<f64>() / UNIT
    }

    /// Counts a sighting at `minute` (since the epoch) with a weight of 0 to 1.
    pub fn learn(&mut self, sort: Sort, key: u32, weight: f64, minute: u32) {
        let weight = sixteenths(weight, key, minute);
        if weight == 0 {
            return;
        }
        let age = (minute / (2 * DAY)) as u8;
        let new = Entry { key, count: weight, age };
        let range = self.range(sort);
        let entries = &mut self.entries[range];
        if let Some(entry) = entries.iter_mut().find(|entry| entry.key == key) {
            entry.count = entry.count.saturating_add(weight);
            entry.age = age;
        } else if entries.len() < QUOTA[sort as usize] {
            self.insert(sort, new);
        } else if let Some(weakest) = entries.iter_mut().min_by_key(|entry| entry.worth(age)) {
            if weakest.worth(age) <= u32::from(weight) << 8 {
                *weakest = new;
            } else {
                weakest.count = weakest.count.saturating_sub(weight);
            }
        }
    }

    /// Takes a sixteenth off everything of a sort.
    pub fn fade(&mut self, sort: Sort) {
        let range = self.range(sort);
        for entry in &mut self.entries[range] {
            entry.count -= entry.count / 16;
        }
    }

    /// Fetches the entries; what it returns has no meaning.
    #[must_use]
    pub fn touch(&self) -> u64 {
        const PER_LINE: usize = 64 / size_of::<Entry>();
        self.entries.iter().step_by(PER_LINE).fold(0, |touched, entry| touched ^ u64::from(entry.key))
    }

    /// Bytes held outside the struct itself.
    #[must_use]
    pub fn heap(&self) -> usize {
        size_of_val(&*self.entries)
    }

    /// Room grows by eight entries at a time: doubling would waste half of what most baselines hold.
    fn insert(&mut self, sort: Sort, entry: Entry) {
        let (at, len) = (usize::from(self.ends[sort as usize]), usize::from(self.ends[SORTS - 1]));
        if len == self.entries.len() {
            let mut entries = std::mem::take(&mut self.entries).into_vec();
            entries.reserve_exact(8);
            entries.resize(len + 8, Entry::default());
            self.entries = entries.into_boxed_slice();
        }
        self.entries.copy_within(at..len, at + 1);
        self.entries[at] = entry;
        for end in &mut self.ends[sort as usize..] {
            *end += 1;
        }
    }

    fn range(&self, sort: Sort) -> std::ops::Range<usize> {
        let begin = (sort as usize).checked_sub(1).map_or(0, |before| self.ends[before]);
        usize::from(begin)..usize::from(self.ends[sort as usize])
    }

    fn of(&self, sort: Sort) -> &[Entry] {
        &self.entries[self.range(sort)]
    }

    fn find(&self, sort: Sort, key: u32) -> Option<&Entry> {
        self.of(sort).iter().find(|entry| entry.key == key)
    }
}

impl Entry {
    /// What is lost if this is forgotten, in 256ths of a sixteenth: its count, halved by every [`STALE_DAYS`].
    fn worth(self, now: u8) -> u32 {
        let days = 2 * u32::from(now.wrapping_sub(self.age));
        (u32::from(self.count) << 8) >> (days / STALE_DAYS).min(31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_by_rounding() {
        for weight in [0.0, 0.01, 0.03, 0.5, 0.97, 1.0] {
            for every in [1, 55, 89, 144, 1_440] {
                let sum: u32 = (0..10_000).map(|visit| u32::from(sixteenths(weight, 7, visit * every))).sum();
                // Five deviations of as many throws of a coin.
                assert!((f64::from(sum) - 160_000.0 * weight).abs() < 250.0, "{weight} every {every} min: {sum}");
            }
        }
    }

    #[test]
    fn a_thief_teaches_little() {
        let mut seen = Seen::default();
        seen.learn(Sort::Address, 1, 1.0, 100 * DAY);
        seen.learn(Sort::Address, 2, 0.05, 100 * DAY);
        assert!(seen.knows(Sort::Address, 1) && !seen.knows(Sort::Address, 2));
        assert!(!seen.knows(Sort::Prefix, 1), "sorts are kept apart");
        let visits = (1..100).take_while(|visit| {
            seen.learn(Sort::Address, 2, 0.03, 100 * DAY + visit * 61);
            !seen.knows(Sort::Address, 2)
        });
        // Half a sighting, .03 at a time.
        assert!((8..30).contains(&visits.count()), "what goes on unconfirmed is a move");
    }

    #[test]
    fn a_flood_of_new_things_does_not_wash_away_the_usual() {
        let mut seen = Seen::default();
        for _ in 0..200 {
            seen.learn(Sort::Address, 7, 1.0, 100 * DAY);
        }
        for key in 1_000..1_100 {
            seen.learn(Sort::Address, key, 1.0, 101 * DAY);
        }
        assert!(seen.knows(Sort::Address, 7));
        assert!(seen.heap() <= 8 * size_of::<Entry>());
    }

    #[test]
    fn what_was_usual_long_ago_makes_room() {
        let mut seen = Seen::default();
        for key in 0..6 {
            for _ in 0..20 {
                seen.learn(Sort::Address, key, 1.0, 100 * DAY);
            }
        }
        for _ in 0..3 {
            seen.learn(Sort::Address, 99, 1.0, 300 * DAY);
        }
        assert!(seen.knows(Sort::Address, 99));
    }

    #[test]
    fn no_baseline_holds_more_than_its_quota() {
        let mut seen = Seen::default();
        let sorts = [Sort::Address, Sort::Prefix, Sort::Network, Sort::Country, Sort::Agent, Sort::Version];
        for sort in sorts.into_iter().chain([Sort::Family, Sort::Fingerprint, Sort::Route, Sort::Area]) {
            for key in 0..100 {
                seen.learn(sort, key, 1.0, key * DAY);
            }
            assert_eq!(seen.of(sort).len(), QUOTA[sort as usize]);
        }
        assert!(seen.heap() <= 40 * 8);
    }
}
