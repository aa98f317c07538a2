//! A list that grows by blocks: nothing in it moves when it does, and no place has a pointer to itself.

use std::ops::{Index, IndexMut};

/// Of each block but the last; a power of two.
const BLOCK: usize = 1 << 16;

#[derive(Debug)]
pub struct Blocks<T>(Vec<Vec<T>>);

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Blocks<T> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * BLOCK + last.len())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn push(&mut self, item: T) {
        if self.len().is_multiple_of(BLOCK) {
            self.0.push(Vec::with_capacity(BLOCK));
        }
        if let Some(last) = self.0.last_mut() {
            last.push(item);
        }
    }

    /// Takes out what is at `place`, where the last one goes.
    pub fn swap_remove(&mut self, place: usize) -> Option<T> {
        let last = self.0.last_mut()?.pop()?;
        if self.0.last().is_some_and(Vec::is_empty) {
            self.0.pop();
        }
        if place == self.len() { Some(last) } else { Some(std::mem::replace(&mut self[place], last)) }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }
}

impl<T> Index<usize> for Blocks<T> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        &self.0[place / BLOCK][place % BLOCK]
    }
}

impl<T> IndexMut<usize> for Blocks<T> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        &mut self.0[place / BLOCK][place % BLOCK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list() {
        let (mut blocks, mut list) = (Blocks::default(), Vec::new());
        for number in 0..3 * BLOCK {
            blocks.push(number);
            list.push(number);
        }
        blocks[BLOCK] = 7;
        list[BLOCK] = 7;
        for place in [0, BLOCK - 1, 2 * BLOCK + 5, 3 * BLOCK - 4, 1] {
            assert_eq!(blocks.swap_remove(place), Some(list.swap_remove(place)));
        }
        while list.len() > BLOCK - 1 {
            assert_eq!((blocks.len(), blocks.is_empty()), (list.len(), false));
            assert_eq!(blocks.swap_remove(list.len() / 2), Some(list.swap_remove(list.len() / 2)));
        }
        blocks.push(9);
        list.push(9);
        assert!(blocks.iter().eq(&list));
        while let Some(last) = list.pop() {
            assert_eq!(blocks.swap_remove(list.len()), Some(last));
        }
        assert!(blocks.is_empty() && blocks.swap_remove(0).is_none());
    }
}
