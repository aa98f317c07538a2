//! Values that one baseline has seen, by feature, in two small exact tables.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

use crate::math::nearest;

/// Feature of a visit or a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Feature {
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

const FEATURES: usize = 10;
/// Entries per feature: people have few countries and many addresses. 40 in total.
const QUOTA: [usize; FEATURES] = [6, 4, 5, 3, 3, 2, 3, 2, 8, 4];

/// Counts have units of 1/16, so that a value can count by the probability that the event was the owner's.
const UNIT: f64 = 16.0;

/// `weight`, 0 to 1, in sixteenths, for a value seen at `minute` (since the epoch). Rounding is unbiased: it rounds up
/// with a frequency equal to the remainder, by a hash of the minute and of `salt`. Small weights thus add up.
///
/// `salt` varies between calls and does not depend on names: hashes of names differ between installations, and verdicts
/// must not.
pub(crate) fn sixteenths(weight: f64, salt: u32, minute: u32) -> u16 {
    let mut mixed = (u64::from(minute) << 32 | u64::from(salt)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    // Between −0.5 and 0.5, so that a whole number is not rounded up or down.
    let rounding = ((mixed >> 32) as f64 + 0.5) / 4_294_967_296.0 - 0.5;
    nearest(weight * UNIT + rounding).1 as u16
}

/// Minutes.
const DAY: u32 = 1_440;

/// Weight from which a value is known: half of a certain event.
const KNOWN: u16 = 8;

/// Half-life of an entry's weight in the choice of the entry to evict, days.
const STALE_DAYS: u32 = 30;

/// Begin of the entries of each feature, and end of the last.
const BEGIN: [usize; FEATURES + 1] = {
    let mut begin = [0; FEATURES + 1];
    let mut feature = 0;
    while feature < FEATURES {
        begin[feature + 1] = begin[feature] + QUOTA[feature];
        feature += 1;
    }
    begin
};
/// First feature that is read at calls. Those before are read at the beginning of a visit.
const OF_CALLS: usize = Feature::Route as usize;
const OF_VISITS_ENTRIES: usize = BEGIN[OF_CALLS];
const OF_CALLS_ENTRIES: usize = BEGIN[FEATURES] - OF_VISITS_ENTRIES;

/// Weights by feature and key. The weakest entry of a feature is replaced by a new one after it was outweighed
/// (frequent-items rule of Misra and Gries). A flood of new values therefore does not evict the usual ones.
///
/// The keys of a feature are adjacent and are all compared at once. A search that stops at a match would have an
/// unpredictable branch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[repr(C)]
pub(crate) struct Seen {
    pub(super) of_calls: Table<OF_CALLS_ENTRIES>,
    pub(super) of_visits: Table<OF_VISITS_ENTRIES>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[repr(C)]
pub(super) struct Table<const ENTRIES: usize> {
    #[serde(with = "BigArray")]
    pub(super) keys: [u32; ENTRIES],
    /// Sixteenths; 0: free entry.
    #[serde(with = "BigArray")]
    counts: [u16; ENTRIES],
    /// Time of the last event of each entry, in units of two days; wraps after 512 days.
    #[serde(with = "BigArray")]
    pub(super) ages: [u8; ENTRIES],
}

impl<const ENTRIES: usize> Default for Table<ENTRIES> {
    fn default() -> Self {
        Self { keys: [0; ENTRIES], counts: [0; ENTRIES], ages: [0; ENTRIES] }
    }
}

impl<const ENTRIES: usize> Table<ENTRIES> {
    fn entries(&self, places: Range<usize>) -> (&[u32], &[u16]) {
        (&self.keys[places.clone()], &self.counts[places])
    }

    fn entries_mut(&mut self, places: Range<usize>) -> Entries<'_> {
        Entries {
            keys: &mut self.keys[places.clone()],
            counts: &mut self.counts[places.clone()],
            ages: &mut self.ages[places],
        }
    }
}

impl Seen {
    /// Weight of `key`; 0 if it was never seen or was evicted.
    pub(crate) fn count(&self, feature: Feature, key: u32) -> f64 {
        f64::from(self.sixteenths_of(feature, key)) / UNIT
    }

    pub(crate) fn knows(&self, feature: Feature, key: u32) -> bool {
        self.sixteenths_of(feature, key) >= KNOWN
    }

    /// Whether any value of the feature is known.
    pub(crate) fn knows_any(&self, feature: Feature) -> bool {
        self.of(feature).any(|(_, count)| count >= KNOWN)
    }

    /// All known values of the feature.
    pub(crate) fn known(&self, feature: Feature) -> impl Iterator<Item = u32> {
        self.of(feature).filter(|(_, count)| *count >= KNOWN).map(|(key, _)| key)
    }

    /// All values of the feature with their weights.
    pub(crate) fn each(&self, feature: Feature) -> impl Iterator<Item = (u32, f64)> {
        self.of(feature).filter(|(_, count)| *count > 0).map(|(key, count)| (key, f64::from(count) / UNIT))
    }

    /// Number of known values of the feature, and number of those seen about once.
    pub(crate) fn variety(&self, feature: Feature) -> (usize, usize) {
        let known = self.of(feature).filter(|(_, count)| *count >= KNOWN);
        known.fold((0, 0), |(all, once), (_, count)| (all + 1, once + usize::from(f64::from(count) < 1.5 * UNIT)))
    }

    /// The most frequent value of a feature with its weight.
    pub(crate) fn most(&self, feature: Feature) -> Option<(u32, f64)> {
        self.each(feature).reduce(|most, other| if other.1 > most.1 { other } else { most })
    }

    /// Total weight of the entries of a feature.
    pub(crate) fn total(&self, feature: Feature) -> f64 {
        f64::from(self.of(feature).map(|(_, count)| u32::from(count)).sum::<u32>()) / UNIT
    }

    /// Counts a value seen at `minute` (since the epoch) with a weight of 0 to 1.
    #[allow(
        clippy::inline_always,
        reason = "with a constant feature its loops are unrolled: 8 % of all instructions of a step"
    )]
    #[inline(always)]
    pub(crate) fn learn(&mut self, feature: Feature, key: u32, weight: f64, minute: u32) {
        self.entries_mut(feature).learn(key, weight, feature, minute);
    }

    /// Makes a value known with the weight of one certain visit, whatever the weights of the others. Learning a known value
    /// again has no effect.
    pub(crate) fn confirm(&mut self, feature: Feature, key: u32, minute: u32) {
        let found = self.of(feature).position(|(other, count)| other == key && count > 0);
        let entries = self.entries_mut(feature);
        let weakest = entries.counts.iter().enumerate().min_by_key(|(_, count)| **count).map(|(place, _)| place);
        if let Some(place) = found.or(weakest) {
            let count = if found.is_some() { entries.counts[place] } else { 0 };
            entries.keys[place] = key;
            entries.counts[place] = count.max(UNIT as u16);
            entries.ages[place] = (minute / (2 * DAY)) as u8;
        }
    }

    /// Removes a value.
    pub(crate) fn forget(&mut self, feature: Feature, key: u32) {
        let found = self.of(feature).position(|(other, _)| other == key);
        if let Some(place) = found {
            let entries = self.entries_mut(feature);
            (entries.keys[place], entries.counts[place]) = (0, 0);
        }
    }

    /// Subtracts 1/16 from all entries of a feature.
    pub(crate) fn fade(&mut self, feature: Feature) {
        for count in self.entries_mut(feature).counts {
            *count -= *count / 16;
        }
    }

    /// Keys and counts of all entries of a feature, including free ones.
    fn of(&self, feature: Feature) -> impl Iterator<Item = (u32, u16)> {
        let (keys, counts) = self.entries(feature);
        keys.iter().copied().zip(counts.iter().copied())
    }

    #[inline]
    fn entries(&self, feature: Feature) -> (&[u32], &[u16]) {
        if feature.is_of_calls() {
            self.of_calls.entries(feature.places())
        } else {
            self.of_visits.entries(feature.places())
        }
    }

    #[inline]
    fn entries_mut(&mut self, feature: Feature) -> Entries<'_> {
        if feature.is_of_calls() {
            self.of_calls.entries_mut(feature.places())
        } else {
            self.of_visits.entries_mut(feature.places())
        }
    }

    /// 0 if `key` is not stored.
    #[inline]
    fn sixteenths_of(&self, feature: Feature, key: u32) -> u16 {
        self.of(feature).fold(0, |found, (other, count)| found | if other == key { count } else { 0 })
    }
}

impl Feature {
    const fn is_of_calls(self) -> bool {
        self as usize >= OF_CALLS
    }

    /// Range of its entries in their table.
    const fn places(self) -> Range<usize> {
        let before = if self.is_of_calls() { OF_VISITS_ENTRIES } else { 0 };
        BEGIN[self as usize] - before..BEGIN[self as usize + 1] - before
    }
}

/// The entries of a feature.
struct Entries<'a> {
    keys: &'a mut [u32],
    counts: &'a mut [u16],
    ages: &'a mut [u8],
}

impl Entries<'_> {
    #[allow(clippy::inline_always, reason = "see `Seen::learn`")]
    #[inline(always)]
    fn learn(self, key: u32, weight: f64, feature: Feature, minute: u32) {
        let keys = self.keys.iter().enumerate();
        let found = keys.fold(usize::MAX, |found, (place, other)| if *other == key { place } else { found });
        let before = self.counts.get(found).copied().unwrap_or(0);
        let weight = sixteenths(weight, (feature as u32) << 16 | u32::from(before), minute);
        let now = (minute / (2 * DAY)) as u8;
        if weight == 0 {
            return;
        }
        if let (Some(count), Some(age)) = (self.counts.get_mut(found), self.ages.get_mut(found)) {
            *count = count.saturating_add(weight);
            *age = now;
        } else {
            self.make_room(key, weight, now);
        }
    }

    /// Replaces the weakest entry if it is outweighed.
    #[inline(never)]
    fn make_room(self, key: u32, weight: u16, now: u8) {
        // The first free entry, or else the first of those with the lowest rank.
        let (mut weakest, mut least) = (0, u32::MAX);
        for (place, (count, age)) in self.counts.iter().zip(&*self.ages).enumerate() {
            let rank = if *count == 0 { 0 } else { retention(*count, *age, now) + 1 };
            if rank < least {
                (weakest, least) = (place, rank);
            }
        }
        if least <= (u32::from(weight) << 8) + 1 {
            (self.keys[weakest], self.counts[weakest], self.ages[weakest]) = (key, weight, now);
        } else {
            self.counts[weakest] = self.counts[weakest].saturating_sub(weight);
        }
    }
}

/// Value of an entry in the choice of the entry to evict: its count in units of 1/4096, with half-life [`STALE_DAYS`].
fn retention(count: u16, age: u8, now: u8) -> u32 {
    // Ages wrap every 512 days. An entry that seems nearly that old was seen after `now`: this event is late, or an
    // earlier clock was ahead by no more than is allowed.
    const AHEAD_DAYS: u32 = 32;
    let days = 2 * u32::from(now.wrapping_sub(age));
    let days = if days >= 512 - AHEAD_DAYS { 0 } else { days };
    (u32::from(count) << 8) >> (days / STALE_DAYS).min(31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_unbiased() {
        for weight in [0.0, 0.01, 0.03, 0.5, 0.97, 1.0] {
            for every in [1, 55, 89, 144, 1_440] {
                let sum: u32 = (0..10_000).map(|visit| u32::from(sixteenths(weight, 7, visit * every))).sum();
                // Five standard deviations.
                assert!((f64::from(sum) - 160_000.0 * weight).abs() < 250.0, "{weight} every {every} min: {sum}");
            }
        }
    }

    #[test]
    fn small_weight_is_learnt_slowly() {
        let mut seen = Seen::default();
        seen.learn(Feature::Address, 1, 1.0, 100 * DAY);
        seen.learn(Feature::Address, 2, 0.05, 100 * DAY);
        assert!(seen.knows(Feature::Address, 1) && !seen.knows(Feature::Address, 2));
        assert!(!seen.knows(Feature::Prefix, 1), "another feature");
        let visits = (1..100).take_while(|visit| {
            seen.learn(Feature::Address, 2, 0.03, 100 * DAY + visit * 61);
            !seen.knows(Feature::Address, 2)
        });
        // Known from a weight of 0.5, at 0.03 per visit.
        assert!((8..30).contains(&visits.count()), "the floor of the weight makes it known");
    }

    #[test]
    fn late_values_evict_no_usual_ones() {
        for (usual_at, odd_at) in [(100 * DAY, 100 * DAY - 1), (128 * DAY, 100 * DAY)] {
            let mut seen = Seen::default();
            for _ in 0..20 {
                seen.learn(Feature::Address, 7, 1.0, usual_at);
            }
            for odd in 100..110 {
                seen.learn(Feature::Address, odd, 1.0, odd_at);
            }
            assert!(seen.knows(Feature::Address, 7), "{usual_at} {odd_at}");
        }
    }

    #[test]
    fn flood_of_new_values_evicts_no_usual_one() {
        let mut seen = Seen::default();
        for _ in 0..200 {
            seen.learn(Feature::Address, 7, 1.0, 100 * DAY);
        }
        for key in 1_000..1_100 {
            seen.learn(Feature::Address, key, 1.0, 101 * DAY);
        }
        assert!(seen.knows(Feature::Address, 7));
        assert_eq!(seen.each(Feature::Address).count(), QUOTA[Feature::Address as usize]);
    }

    #[test]
    fn old_usual_values_are_evicted() {
        let mut seen = Seen::default();
        for key in 0..6 {
            for _ in 0..20 {
                seen.learn(Feature::Address, key, 1.0, 100 * DAY);
            }
        }
        for _ in 0..3 {
            seen.learn(Feature::Address, 99, 1.0, 300 * DAY);
        }
        assert!(seen.knows(Feature::Address, 99));
    }

    #[test]
    fn value_is_kept_while_entries_are_free() {
        let mut seen = Seen::default();
        seen.learn(Feature::Country, 1, 1.0, 100 * DAY);
        seen.learn(Feature::Country, 2, 1.0, 600 * DAY);
        assert!(seen.knows(Feature::Country, 1), "the table has free entries");
    }

    #[test]
    fn features_keep_their_quotas() {
        let mut seen = Seen::default();
        let features =
            [Feature::Address, Feature::Prefix, Feature::Network, Feature::Country, Feature::Agent, Feature::Version];
        for feature in
            features.into_iter().chain([Feature::Family, Feature::Fingerprint, Feature::Route, Feature::Area])
        {
            for key in 0..100 {
                seen.learn(feature, key, 1.0, key * DAY);
            }
            assert_eq!(seen.each(feature).count(), QUOTA[feature as usize]);
        }
    }
}
