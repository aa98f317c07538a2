//! A list that grows in blocks. Growth does not move its entries, and entries need no allocation of their own.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Entries per block; a power of two.
const BLOCK: usize = 1 << 16;

#[derive(Debug)]
pub(crate) struct Blocks<T> {
    blocks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), len: 0 }
    }
}

impl<T> Blocks<T> {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, item: T) {
        let block = self.len / BLOCK;
        if block == self.blocks.len() {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        self.blocks[block].push(item);
        self.len += 1;
    }

    /// Removes the entry at `index`, if it exists, and moves the last entry there. One block that becomes empty is kept,
    /// because it is filled again soon.
    pub(crate) fn swap_remove(&mut self, index: usize) -> Option<T> {
        let left = self.len.checked_sub(1).filter(|left| index <= *left)?;
        let last = self.blocks[left / BLOCK].pop()?;
        self.len = left;
        self.blocks.truncate(left.div_ceil(BLOCK) + 1);
        if index == left { Some(last) } else { Some(std::mem::replace(&mut self[index], last)) }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten()
    }

    /// Bytes of the entries, without what they allocate.
    pub(crate) const fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

impl<T> Index<usize> for Blocks<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        &self.blocks[index / BLOCK][index % BLOCK]
    }
}

impl<T> IndexMut<usize> for Blocks<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.blocks[index / BLOCK][index % BLOCK]
    }
}

impl<T: Serialize> Serialize for Blocks<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.len))?;
        self.iter().try_for_each(|item| list.serialize_element(item))?;
        list.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Blocks<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = Blocks<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut blocks = Blocks::default();
                while let Some(item) = items.next_element()? {
                    blocks.push(item);
                }
                Ok(blocks)
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_behave_like_a_list() {
        let (mut blocks, mut list) = (Blocks::default(), Vec::new());
        for number in 0..3 * BLOCK {
            blocks.push(number);
            list.push(number);
        }
        blocks[BLOCK] = 7;
        list[BLOCK] = 7;
        for index in [0, BLOCK - 1, 2 * BLOCK + 5, 3 * BLOCK - 4, 1] {
            assert_eq!(blocks.swap_remove(index), Some(list.swap_remove(index)));
        }
        while list.len() > BLOCK - 1 {
            assert_eq!(blocks.len(), list.len());
            assert_eq!(blocks.swap_remove(list.len() / 2), Some(list.swap_remove(list.len() / 2)));
        }
        blocks.push(9);
        list.push(9);
        assert!(blocks.iter().eq(&list));
        while let Some(last) = list.pop() {
            assert_eq!(blocks.swap_remove(list.len()), Some(last));
        }
        assert!(blocks.swap_remove(0).is_none());
        blocks.push(1);
        assert!(blocks.swap_remove(1).is_none() && blocks.len() == 1);
    }

    #[test]
    fn empty_block_is_kept() {
        let mut blocks = Blocks::default();
        for number in 0..=BLOCK {
            blocks.push(number);
        }
        let begins = |blocks: &Blocks<usize>| &raw const blocks[BLOCK];
        let before = begins(&blocks);
        assert_eq!(blocks.swap_remove(3), Some(3));
        assert_eq!((blocks.blocks.len(), blocks.len()), (2, BLOCK));
        blocks.push(7);
        assert!(begins(&blocks) == before && (blocks[3], blocks[BLOCK]) == (BLOCK, 7));
    }

    #[test]
    fn other_empty_blocks_are_freed() {
        let mut blocks = Blocks::default();
        (0..4 * BLOCK).for_each(|number| blocks.push(number));
        while blocks.len() > BLOCK {
            blocks.swap_remove(0);
        }
        assert_eq!(blocks.blocks.len(), 2);
    }
}
