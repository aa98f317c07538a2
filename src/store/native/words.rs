//! A column of texts with few distinct values: a dictionary, and the index of each row's text in it.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::bytes::{put_sized, put_text, take_sized, take_text};

/// Version of the dictionary's serialization.
const VERSION: u64 = 1;
/// Flags of a dictionary that belongs to this block only: it has keys of its own, which replace earlier ones.
const OWN_KEYS: u64 = 1 << 9 | 1 << 10;

/// The dictionary and the rows.
#[derive(Clone, Default)]
pub(in crate::store) struct Words {
    /// The distinct texts, each after its length.
    keys: Vec<u8>,
    /// Start and end of each text in `keys`.
    places: Vec<(u32, u32)>,
    /// Numbers of the texts, by their hash.
    numbers: HashTable<u32>,
    /// Number of each row's text.
    rows: Vec<u32>,
    /// Number of the last text. Consecutive rows often have the same one.
    last: u32,
}

impl Words {
    pub(super) fn push(&mut self, text: &[u8]) {
        let number = self.number(text);
        self.rows.push(number);
    }

    fn number(&mut self, text: &[u8]) -> u32 {
        if self.key(self.last) == Some(text) {
            return self.last;
        }
        let Self { keys, places, numbers, .. } = self;
        let key = |number: u32| {
            let (start, end) = places[number as usize];
            &keys[start as usize..end as usize]
        };
        let hash = xxh3_64(text);
        let number = if let Some(number) = numbers.find(hash, |number| key(*number) == text) {
            *number
        } else {
            numbers.insert_unique(hash, places.len() as u32, |number| xxh3_64(key(*number)));
            put_text(keys, text);
            places.push(((keys.len() - text.len()) as u32, keys.len() as u32));
            places.len() as u32 - 1
        };
        self.last = number;
        number
    }

    fn key(&self, number: u32) -> Option<&[u8]> {
        let (start, end) = *self.places.get(number as usize)?;
        self.keys.get(start as usize..end as usize)
    }

    pub(super) fn append(&mut self, other: &Self) {
        let numbers: Vec<u32> =
            (0..other.places.len()).map(|key| self.number(other.key(key as u32).unwrap_or_default())).collect();
        self.rows.extend(other.rows.iter().map(|row| numbers[*row as usize]));
    }

    /// Removes the rows for which `keep` is false. The dictionary stays as it is.
    pub(super) fn retain(&mut self, keep: &[bool]) {
        let mut keep = keep.iter();
        self.rows.retain(|_| keep.next().copied().unwrap_or(true));
    }

    /// The text of each row.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.iter().map(|row| self.key(*row).unwrap_or_default())
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.keys.len() + self.rows.len()
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.places.clear();
        self.numbers.clear();
        self.rows.clear();
        self.last = 0;
    }

    /// What the engine reads before the column, and before the offsets of an array.
    pub(super) fn send_head(to: &mut Vec<u8>) {
        to.extend_from_slice(&VERSION.to_le_bytes());
    }

    pub(super) fn send(&self, to: &mut Vec<u8>) {
        // Without values, for example if all arrays are empty, the engine reads nothing.
        if self.rows.is_empty() {
            return;
        }
        let width = match self.places.len() {
            0..=0x100 => 0_u64,
            0x101..=0x1_0000 => 1,
            _ => 2,
        };
        to.extend_from_slice(&(OWN_KEYS | width).to_le_bytes());
        to.extend_from_slice(&(self.places.len() as u64).to_le_bytes());
        to.extend_from_slice(&self.keys);
        to.extend_from_slice(&(self.rows.len() as u64).to_le_bytes());
        match width {
            0 => to.extend(self.rows.iter().map(|row| *row as u8)),
            1 => to.extend(self.rows.iter().flat_map(|row| (*row as u16).to_le_bytes())),
            _ => to.extend(self.rows.iter().flat_map(|row| row.to_le_bytes())),
        }
    }

    pub(super) fn save(&self, to: &mut Vec<u8>) {
        put_sized(to, &self.keys);
        let rows: Vec<u8> = self.rows.iter().flat_map(|row| row.to_le_bytes()).collect();
        put_sized(to, &rows);
    }

    /// Adds saved rows. Returns the bytes after them.
    pub(super) fn load<'a>(&mut self, from: &'a [u8]) -> Option<&'a [u8]> {
        let (mut keys, from) = take_sized(from)?;
        let mut numbers = Vec::new();
        while !keys.is_empty() {
            let (text, rest) = take_text(keys)?;
            numbers.push(self.number(text));
            keys = rest;
        }
        let (rows, from) = take_sized(from)?;
        for row in rows.chunks(4) {
            let row = u32::from_le_bytes(row.try_into().ok()?);
            self.rows.push(*numbers.get(row as usize)?);
        }
        Some(from)
    }
}
