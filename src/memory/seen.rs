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

/// Entries kept of each sort: people have few countries and many addresses. 40 in all.
const QUOTA: [usize; 10] = [6, 4, 5, 3, 3, 2, 3, 2, 8, 4];

/// Counts are kept in sixteenths, so that a sighting can count by the probability that it was the owner's.
const UNIT: f64 = 16.0;

/// From this weight on something counts as known: half a sure sighting.
const KNOWN: u16 = 8;

/// Half of an entry's weight in the choice of what to forget goes in so many days.
const STALE_DAYS: u32 = 30;

/// One thing that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    key: u32,
    /// Sixteenths.
    count: u16,
    /// When it was last seen, in pairs of days, wrapping after a year and a half.
    age: u8,
    sort: Sort,
}

/// Sightings by sort and key. The weakest of a sort makes room for what is new once it has been outweighed (Misra and
/// Gries's frequent-items rule), so that a flood of novelties does not wash away what is usual.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    entries: Vec<Entry>,
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
        self.of(sort).any(|entry| entry.count >= KNOWN)
    }

    /// All that is known of the sort.
    pub fn known(&self, sort: Sort) -> impl Iterator<Item = u32> {
        self.of(sort).filter(|entry| entry.count >= KNOWN).map(|entry| entry.key)
    }

    /// How many of the sort are known, and how many of them hardly so: seen about once.
    #[must_use]
    pub fn variety(&self, sort: Sort) -> (usize, usize) {
        let known = self.of(sort).filter(|entry| entry.count >= KNOWN);
        known.fold((0, 0), |(all, once), entry| (all + 1, once + usize::from(f64::from(entry.count) < 1.5 * UNIT)))
    }

    /// The most usual of a sort, with its weight.
    #[must_use]
    pub fn most(&self, sort: Sort) -> Option<(u32, f64)> {
        let most = self.of(sort).reduce(|most, entry| if entry.count > most.count { entry } else { most })?;
        Some((most.key, f64::from(most.count) / UNIT))
    }

    /// Weight of all that is kept of a sort.
    #[must_use]
    pub fn total(&self, sort: Sort) -> f64 {
        self.of(sort).map(|entry| f64::from(entry.count)).sum::<f64>() / UNIT
    }

    /// Counts a sighting on `day` (since the epoch) with a weight of 0 to 1.
    pub fn learn(&mut self, sort: Sort, key: u32, weight: f64, day: u32) {
        let weight = (weight * UNIT + 0.5) as u16;
        if weight == 0 {
            return;
        }
        let age = (day / 2) as u8;
        let mut size = 0;
        let mut weakest: Option<(u32, usize)> = None;
        for (at, entry) in self.entries.iter_mut().enumerate().filter(|(_, entry)| entry.sort == sort) {
            if entry.key == key {
                entry.count = entry.count.saturating_add(weight);
                entry.age = age;
                return;
            }
            size += 1;
            let worth = entry.worth(age);
            if weakest.is_none_or(|(least, _)| worth < least) {
                weakest = Some((worth, at));
            }
        }
        let new = Entry { key, count: weight, age, sort };
        match weakest.filter(|_| size >= QUOTA[sort as usize]) {
            None => self.push(new),
            Some((worth, at)) if worth <= u32::from(weight) << 8 => self.entries[at] = new,
            Some((_, at)) => self.entries[at].count = self.entries[at].count.saturating_sub(weight),
        }
    }

    /// Bytes held outside the struct itself.
    #[must_use]
    pub fn heap(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    /// Room grows by eight entries at a time: doubling would waste half of what most baselines hold.
    fn push(&mut self, entry: Entry) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(8);
        }
        self.entries.push(entry);
    }

    fn of(&self, sort: Sort) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.sort == sort)
    }

    fn find(&self, sort: Sort, key: u32) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key && entry.sort == sort)
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
    fn a_thief_teaches_little() {
        let mut seen = Seen::default();
        seen.learn(Sort::Address, 1, 1.0, 100);
        seen.learn(Sort::Address, 2, 0.05, 100);
        assert!(seen.knows(Sort::Address, 1) && !seen.knows(Sort::Address, 2));
        assert!(!seen.knows(Sort::Prefix, 1), "sorts are kept apart");
        for _ in 0..10 {
            seen.learn(Sort::Address, 2, 0.05, 100);
        }
        assert!(seen.knows(Sort::Address, 2), "what goes on unconfirmed is a move");
    }

    #[test]
    fn a_flood_of_new_things_does_not_wash_away_the_usual() {
        let mut seen = Seen::default();
        for _ in 0..200 {
            seen.learn(Sort::Address, 7, 1.0, 100);
        }
        for key in 1_000..1_100 {
            seen.learn(Sort::Address, key, 1.0, 101);
        }
        assert!(seen.knows(Sort::Address, 7));
        assert!(seen.heap() <= 8 * size_of::<Entry>());
    }

    #[test]
    fn what_was_usual_long_ago_makes_room() {
        let mut seen = Seen::default();
        for key in 0..6 {
            for _ in 0..20 {
                seen.learn(Sort::Address, key, 1.0, 100);
            }
        }
        for _ in 0..3 {
            seen.learn(Sort::Address, 99, 1.0, 300);
        }
        assert!(seen.knows(Sort::Address, 99));
    }

    #[test]
    fn no_baseline_holds_more_than_its_quota() {
        let mut seen = Seen::default();
        let sorts = [Sort::Address, Sort::Prefix, Sort::Network, Sort::Country, Sort::Agent, Sort::Version];
        for sort in sorts.into_iter().chain([Sort::Family, Sort::Fingerprint, Sort::Route, Sort::Area]) {
            for key in 0..100 {
                seen.learn(sort, key, 1.0, key);
            }
            assert_eq!(seen.of(sort).count(), QUOTA[sort as usize]);
        }
        assert!(seen.heap() <= 40 * 8);
    }
}
