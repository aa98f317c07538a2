//! A table of bounded size for values that are expensive to compute and cheap to store.

use std::borrow::Borrow;

/// Two slots per hash: a new entry replaces the less recently used one. Size is bounded by construction, a look-up is
/// one probe, and many single entries do not evict a frequent one.
#[derive(Debug)]
pub(super) struct Slots<K, V> {
    pairs: Box<[Pair<K, V>]>,
}

type Pair<K, V> = [Option<(K, V)>; 2];

impl<K, V: Clone> Slots<K, V> {
    /// Room for `2 << bits` entries.
    pub(crate) fn new(bits: u32) -> Self {
        Self { pairs: (0..1_usize << bits).map(|_| [None, None]).collect() }
    }

    /// The value of `key`; `make` computes it if it is absent. `hash` must be well mixed.
    pub(crate) fn get_or_make<Q>(&mut self, hash: u64, key: &Q, make: impl FnOnce() -> V) -> V
    where
        Q: PartialEq + ToOwned<Owned = K> + ?Sized,
        K: Borrow<Q>,
    {
        let at = hash as usize & (self.pairs.len() - 1);
        let Some([first, second]) = self.pairs.get_mut(at) else { return make() };
        match (&*first, &*second) {
            (Some((have, value)), _) if have.borrow() == key => value.clone(),
            (_, Some((have, value))) if have.borrow() == key => {
                let value = value.clone();
                std::mem::swap(first, second);
                value
            }
            _ => {
                let value = make();
                *second = first.replace((key.to_owned(), value.clone()));
                value
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.pairs.fill_with(|| [None, None]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_keep_the_two_last_used_values() {
        let mut slots = Slots::new(0);
        let mut get = |key: u32| {
            let mut made = false;
            let value = slots.get_or_make(0, &key, || {
                made = true;
                key * 10
            });
            assert_eq!(value, key * 10);
            made
        };
        assert!(get(1));
        assert!(get(2));
        assert!(!get(1), "still present, and now the last used");
        assert!(get(3), "replaces 2");
        assert!(!get(1));
        assert!(get(2));
    }
}
