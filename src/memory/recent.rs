//! The keys that came last: whether something has been seen before.

/// Keys that share one line of the processor's cache.
const WAYS: usize = 8;

/// About `max` of the last keys, eight to a place that the key itself chooses, the eldest of the eight making room: one
/// access to memory tells and remembers. A key stays until eight others have come to its place, so that of those of
/// `max`/2 keys ago 95 in a hundred are left, of `max`/8 ago all but ten in a million (Poisson's law).
#[derive(Debug)]
pub struct Recent {
    places: Vec<Place>,
    /// A power of two less one.
    mask: u64,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Place([u64; WAYS]);

impl Recent {
    #[must_use]
    pub fn new(max: usize) -> Self {
        let places = max.div_ceil(WAYS).next_power_of_two();
        Self { places: vec![Place::default(); places], mask: places as u64 - 1 }
    }

    /// Fetches the place of `key`; what it returns has no meaning.
    #[must_use]
    pub fn touch(&self, key: u64) -> u64 {
        let Place(place) = self.places[(key.max(1) & self.mask) as usize];
        place[0]
    }

    /// Whether `key`, which is a hash, is there.
    #[must_use]
    pub fn contains(&self, key: u64) -> bool {
        let key = key.max(1);
        let Place(place) = &self.places[(key & self.mask) as usize];
        place.contains(&key)
    }

    /// Whether `key`, which is a hash, was there before.
    pub fn insert(&mut self, key: u64) -> bool {
        // 0 stands for an empty one.
        let key = key.max(1);
        let Place(place) = &mut self.places[(key & self.mask) as usize];
        if place.contains(&key) {
            return true;
        }
        place.rotate_right(1);
        place[0] = key;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(&number.to_le_bytes(), 7)
    }

    #[test]
    fn what_came_lately_is_known_and_room_does_not_grow() {
        let mut recent = Recent::new(1 << 12);
        for number in 0..100_000 {
            assert!(!recent.insert(hash(number)), "{number} is new");
            if let Some(before) = number.checked_sub(1 << 8) {
                assert!(recent.insert(hash(before)), "{before} came a sixteenth of the room ago");
            }
        }
        assert_eq!(recent.places.len() * WAYS, 1 << 12);
        assert!(!recent.insert(hash(3)), "what came long ago is forgotten");
        assert!(!recent.insert(0) && recent.insert(0));
    }
}
