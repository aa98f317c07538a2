//! Encoder of ClickHouse's `Native` format: one column after another, each as the engine keeps it in memory
//! (<https://clickhouse.com/docs/interfaces/formats/Native>). The engine reads it in a fraction of the time that it needs
//! for rows.
//!
//! A [`Block`] has one [`Column`] per column of a table. A row is written through [`Block::row`], which gives the columns
//! in order. Numbers are little-endian, texts follow their length as LEB128, and an IPv6 address is in network order.

mod bytes;
mod column;
mod words;

use std::net::Ipv6Addr;

use self::bytes::{length, put_size, put_text, take_size};
use self::column::{Column, Values};

/// Rows of one table, by column.
#[derive(Clone)]
pub(super) struct Block {
    columns: Vec<Column>,
    rows: usize,
}

impl Block {
    /// An empty block of columns of these types.
    pub(super) fn new<'a>(types: impl Iterator<Item = &'a str>) -> Self {
        Self { columns: types.map(Column::of_type).collect(), rows: 0 }
    }

    /// Adds a row: `write` writes the value of each column in turn.
    pub(super) fn row(&mut self, write: impl FnOnce(&mut Row<'_>)) {
        let mut row = Row(self.columns.iter_mut());
        write(&mut row);
        debug_assert!(row.0.next().is_none(), "a value for every column");
        self.rows += 1;
    }

    /// Adds the rows of a block with the same columns.
    pub(super) fn append(&mut self, other: &Self) {
        for (column, others) in self.columns.iter_mut().zip(&other.columns) {
            column.append(others);
        }
        self.rows += other.rows;
    }

    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    /// Approximate size as sent.
    pub(super) fn bytes(&self) -> usize {
        self.columns.iter().map(Column::bytes).sum()
    }

    /// Removes the rows and keeps the buffers.
    pub(super) fn clear(&mut self) {
        self.columns.iter_mut().for_each(Column::clear);
        self.rows = 0;
    }

    /// Removes the rows for which `keep` is false.
    pub(super) fn retain(&mut self, keep: &[bool]) {
        self.columns.iter_mut().for_each(|column| column.retain(keep));
        self.rows = keep.iter().filter(|keep| **keep).count();
    }

    /// The texts of column number `column`.
    pub(super) fn texts(&self, column: usize) -> Vec<&[u8]> {
        self.columns.get(column).map(Column::texts).unwrap_or_default()
    }

    /// The numbers of column number `column`, which have `N` bytes.
    pub(super) fn numbers<const N: usize>(&self, column: usize) -> impl Iterator<Item = [u8; N]> {
        self.columns.get(column).into_iter().flat_map(Column::numbers)
    }

    /// Appends the block as it is sent. `names` are name and type of each column.
    pub(super) fn send(&self, names: &[(&str, &str)], to: &mut Vec<u8>) {
        length(to, self.columns.len());
        length(to, self.rows);
        for (column, (name, kind)) in self.columns.iter().zip(names) {
            put_text(to, name.as_bytes());
            put_text(to, kind.as_bytes());
            column.send(to);
        }
    }

    /// Appends the rows in a form that [`Self::load`] reads.
    pub(super) fn save(&self, to: &mut Vec<u8>) {
        put_size(to, self.rows);
        self.columns.iter().for_each(|column| column.save(to));
    }

    /// Adds the rows at the start of `from`. Returns the bytes after them, or `None` if they are not complete rows of
    /// these columns; the block then has no meaning.
    pub(super) fn load<'a>(&mut self, from: &'a [u8]) -> Option<&'a [u8]> {
        let (rows, mut from) = take_size(from)?;
        for column in &mut self.columns {
            from = column.load(rows, from)?;
        }
        self.rows += rows;
        Some(from)
    }
}

/// The columns of a block that have no value for the current row yet.
pub(super) struct Row<'a>(std::slice::IterMut<'a, Column>);

impl Row<'_> {
    /// The next column.
    fn next(&mut self) -> &mut Column {
        let Some(column) = self.0.next() else { unreachable!("a row has one value per column") };
        column
    }
}

/// A `String` or `LowCardinality(String)`.
pub(super) fn text(row: &mut Row<'_>, text: &str) {
    row.next().one().text(text);
}

/// `None` is written as the empty text.
pub(super) fn optional_text(row: &mut Row<'_>, value: Option<&str>) {
    text(row, value.unwrap_or_default());
}

/// A `String` of any bytes.
pub(super) fn text_bytes(row: &mut Row<'_>, bytes: &[u8]) {
    row.next().one().text_bytes(bytes);
}

pub(super) fn u16(row: &mut Row<'_>, number: u16) {
    row.next().one().fixed(number.to_le_bytes());
}

pub(super) fn u32(row: &mut Row<'_>, number: u32) {
    row.next().one().fixed(number.to_le_bytes());
}

pub(super) fn i32(row: &mut Row<'_>, number: i32) {
    row.next().one().fixed(number.to_le_bytes());
}

pub(super) fn u64(row: &mut Row<'_>, number: u64) {
    row.next().one().fixed(number.to_le_bytes());
}

/// `Int64`, and `DateTime64(3)` as milliseconds since the epoch.
pub(super) fn i64(row: &mut Row<'_>, number: i64) {
    row.next().one().fixed(number.to_le_bytes());
}

pub(super) fn f64(row: &mut Row<'_>, number: f64) {
    row.next().one().fixed(number.to_le_bytes());
}

pub(super) fn ipv6(row: &mut Row<'_>, address: Ipv6Addr) {
    row.next().one().fixed(address.octets());
}

/// A `Nullable` of a number with these bytes; a NULL has zeros.
pub(super) fn nullable<const N: usize>(row: &mut Row<'_>, value: Option<[u8; N]>) {
    row.next().nullable(value.is_none()).fixed(value.unwrap_or([0; N]));
}

/// An `Array` whose elements `write` writes.
pub(super) fn array<T>(
    row: &mut Row<'_>,
    values: impl ExactSizeIterator<Item = T>,
    mut write: impl FnMut(&mut Values, T),
) {
    let to = row.next().many(values.len());
    for value in values {
        write(to, value);
    }
}

/// A `Map` from text to text.
pub(super) fn map<'a>(row: &mut Row<'_>, pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>) {
    let (names, values) = row.next().pairs(pairs.len());
    for (name, value) in pairs {
        names.text(name);
        values.text(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills a block.
    type Fill = fn(&mut Block);

    fn words(block: &mut Block, rows: &[&[&str]]) {
        for row in rows {
            block.row(|to| array(to, row.iter(), |to, word| to.text(word)));
        }
    }

    /// The layout is that of `SELECT … FORMAT Native` of the engine 26.5, which puts the empty text first in a
    /// dictionary.
    #[test]
    fn block_has_the_layout_of_the_engine() {
        let cases: [(&str, Fill, &str); 5] = [
            (
                "LowCardinality(String)",
                |block| ["b", "a", "", "b"].into_iter().for_each(|word| block.row(|to| text(to, word))),
                "0100000000000000 0006000000000000 0300000000000000 0162 0161 00 0400000000000000 00010200",
            ),
            (
                "Array(LowCardinality(String))",
                |block| words(block, &[&["b", "a"], &[], &["b"]]),
                "0100000000000000 0200000000000000 0200000000000000 0300000000000000 0006000000000000 0200000000000000 \
                 0162 0161 0300000000000000 000100",
            ),
            (
                "Array(LowCardinality(String))",
                |block| words(block, &[&[], &[]]),
                "0100000000000000 0000000000000000 0000000000000000",
            ),
            (
                "Map(LowCardinality(String), String)",
                |block| {
                    block.row(|to| map(to, [("k", "v")].into_iter()));
                    block.row(|to| map(to, [].into_iter()));
                },
                "0100000000000000 0100000000000000 0100000000000000 0006000000000000 0100000000000000 016b \
                 0100000000000000 00 0176",
            ),
            (
                "Nullable(Float32)",
                |block| {
                    block.row(|to| nullable(to, Some(1_f32.to_le_bytes())));
                    block.row(|to| nullable::<4>(to, None));
                },
                "0001 0000803f 00000000",
            ),
        ];
        for (kind, fill, expected) in cases {
            let mut block = Block::new([kind].into_iter());
            fill(&mut block);
            let mut sent = Vec::new();
            block.send(&[("w", kind)], &mut sent);
            let mut expected: Vec<u8> = expected
                .split_whitespace()
                .flat_map(|part| (0..part.len()).step_by(2).map(|at| u8::from_str_radix(&part[at..at + 2], 16)))
                .collect::<Result<_, _>>()
                .expect("hexadecimal");
            let head = [&[1, block.rows() as u8, 1, b'w', kind.len() as u8], kind.as_bytes()].concat();
            expected.splice(0..0, head);
            assert_eq!(sent, expected, "{kind}");
        }
    }

    const KINDS: [&str; 6] = [
        "UInt64",
        "String",
        "LowCardinality(String)",
        "Nullable(UInt16)",
        "Array(LowCardinality(String))",
        "Map(LowCardinality(String), String)",
    ];

    /// Rows with these numbers. Every third one has empty arrays.
    fn rows(numbers: impl IntoIterator<Item = u64>) -> Block {
        let mut block = Block::new(KINDS.into_iter());
        for number in numbers {
            let names: Vec<String> = (0..number % 3).map(|name| format!("{}", name * number)).collect();
            block.row(|to| {
                u64(to, number);
                text(to, &"x".repeat(number as usize));
                text(to, &format!("word {}", number % 7));
                nullable(to, (number % 2 == 0).then(|| (number as u16).to_le_bytes()));
                array(to, names.iter(), |to, name| to.text(name));
                map(to, names.iter().map(|name| (name.as_str(), "value")));
            });
        }
        block
    }

    fn sent(block: &Block) -> Vec<u8> {
        let mut bytes = Vec::new();
        block.send(&KINDS.map(|kind| ("name", kind)), &mut bytes);
        bytes
    }

    #[test]
    fn appended_and_loaded_rows_are_as_if_written() {
        let (first, second, all) = (rows(0..200), rows(200..300), rows(0..300));
        let mut appended = rows([]);
        appended.append(&first);
        appended.append(&second);
        assert_eq!(sent(&appended), sent(&all));
        let mut loaded = rows([]);
        for part in [&first, &second] {
            let mut saved = Vec::new();
            part.save(&mut saved);
            assert_eq!(loaded.load(&saved), Some(&[][..]));
            for length in (0..saved.len()).step_by(7) {
                assert_eq!(rows([]).load(&saved[..length]), None, "cut at {length}");
            }
        }
        assert_eq!(sent(&loaded), sent(&all));
    }

    #[test]
    fn retained_rows_keep_all_their_values() {
        let mut block = rows(0..100);
        block.retain(&(0..100).map(|number| number % 5 == 1).collect::<Vec<_>>());
        assert_eq!(block.rows(), 20);
        let kept = rows((0..100).filter(|number| number % 5 == 1));
        assert_eq!((block.texts(1), block.texts(2)), (kept.texts(1), kept.texts(2)));
        assert!(block.numbers::<8>(0).eq(kept.numbers::<8>(0)));
        assert!(block.numbers::<2>(3).eq(kept.numbers::<2>(3)));
        // Arrays and maps have as many values as their ends tell, or the rows could not be loaded.
        let lengths = |block: &Block| {
            let mut saved = Vec::new();
            block.save(&mut saved);
            rows([]).load(&saved).map(<[u8]>::len)
        };
        assert_eq!((lengths(&block), lengths(&kept)), (Some(0), Some(0)));
    }
}
