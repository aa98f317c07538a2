//! One column of a block.

use super::bytes::{put_sized, put_text, take_sized, take_text};
use super::words::Words;

/// A column under construction.
#[derive(Clone)]
pub(in crate::store) struct Column {
    shape: Shape,
    values: Values,
    /// The values of a map, whose names are `values`.
    map_values: Option<Values>,
}

/// Number of values per row.
#[derive(Clone)]
enum Shape {
    One,
    /// One, and whether it is NULL.
    Nullable(Vec<u8>),
    /// An array or a map: the number of values up to the end of each row.
    Many(Vec<u64>),
}

/// Values of one type.
#[derive(Clone)]
pub(in crate::store) enum Values {
    /// Numbers and addresses of as many bytes.
    Fixed(usize, Vec<u8>),
    /// Texts, each after its length.
    Texts(Vec<u8>),
    Words(Words),
}

impl Column {
    pub(super) fn of_type(name: &str) -> Self {
        let inner = |prefix| name.strip_prefix(prefix).and_then(|rest: &str| rest.strip_suffix(')'));
        if let Some(value) = inner("Nullable(") {
            return Self { shape: Shape::Nullable(Vec::new()), values: Values::of_type(value), map_values: None };
        }
        if let Some(value) = inner("Array(") {
            return Self { shape: Shape::Many(Vec::new()), values: Values::of_type(value), map_values: None };
        }
        if let Some((key, value)) = inner("Map(").and_then(|pair| pair.split_once(", ")) {
            let (values, map_values) = (Values::of_type(key), Some(Values::of_type(value)));
            return Self { shape: Shape::Many(Vec::new()), values, map_values };
        }
        Self { shape: Shape::One, values: Values::of_type(name), map_values: None }
    }

    /// Begins a row with one value, which is then written.
    pub(super) fn one(&mut self) -> &mut Values {
        debug_assert!(matches!(self.shape, Shape::One), "one value");
        &mut self.values
    }

    /// As [`Self::one`]; a NULL also has a value.
    pub(super) fn nullable(&mut self, is_null: bool) -> &mut Values {
        let Shape::Nullable(nulls) = &mut self.shape else { unreachable!("the column is nullable") };
        nulls.push(u8::from(is_null));
        &mut self.values
    }

    /// Begins a row with `count` values.
    pub(super) fn many(&mut self, count: usize) -> &mut Values {
        let Shape::Many(ends) = &mut self.shape else { unreachable!("the column has arrays") };
        ends.push(ends.last().copied().unwrap_or_default() + count as u64);
        &mut self.values
    }

    /// Begins a row of a map with `count` names and values.
    pub(super) fn pairs(&mut self, count: usize) -> (&mut Values, &mut Values) {
        self.many(count);
        let Some(values) = &mut self.map_values else { unreachable!("the column has maps") };
        (&mut self.values, values)
    }

    pub(super) fn append(&mut self, other: &Self) {
        match (&mut self.shape, &other.shape) {
            (Shape::Nullable(nulls), Shape::Nullable(others)) => nulls.extend_from_slice(others),
            (Shape::Many(ends), Shape::Many(others)) => {
                let before = ends.last().copied().unwrap_or_default();
                ends.extend(others.iter().map(|end| before + end));
            }
            _ => {}
        }
        self.values.append(&other.values);
        if let (Some(values), Some(others)) = (&mut self.map_values, &other.map_values) {
            values.append(others);
        }
    }

    /// Removes the rows for which `keep` is false.
    pub(super) fn retain(&mut self, keep: &[bool]) {
        let by_value: Vec<bool> = match &mut self.shape {
            Shape::One => keep.to_vec(),
            Shape::Nullable(nulls) => {
                retain(nulls, keep.iter().copied());
                keep.to_vec()
            }
            Shape::Many(ends) => {
                let (mut before, mut end, mut by_value) = (0, 0, Vec::new());
                for (row_end, keep) in ends.iter_mut().zip(keep) {
                    let count = *row_end - before;
                    by_value.extend((0..count).map(|_| *keep));
                    before = *row_end;
                    end += if *keep { count } else { 0 };
                    *row_end = end;
                }
                retain(ends, keep.iter().copied());
                by_value
            }
        };
        self.values.retain(&by_value);
        self.map_values.iter_mut().for_each(|values| values.retain(&by_value));
    }

    /// The values of a column of texts, one per row.
    pub(super) fn texts(&self) -> Vec<&[u8]> {
        match &self.values {
            Values::Words(words) => words.iter().collect(),
            Values::Texts(bytes) => {
                let mut rest = bytes.as_slice();
                std::iter::from_fn(|| {
                    let (text, after) = take_text(rest)?;
                    rest = after;
                    Some(text)
                })
                .collect()
            }
            Values::Fixed(..) => unreachable!("the column has texts"),
        }
    }

    /// The values of a column of numbers of `N` bytes, one per row.
    pub(super) fn numbers<const N: usize>(&self) -> impl Iterator<Item = [u8; N]> {
        let Values::Fixed(_, bytes) = &self.values else { unreachable!("the column has numbers") };
        bytes.as_chunks().0.iter().copied()
    }

    pub(super) fn bytes(&self) -> usize {
        let shape = match &self.shape {
            Shape::One => 0,
            Shape::Nullable(nulls) => nulls.len(),
            Shape::Many(ends) => 8 * ends.len(),
        };
        shape + self.values.bytes() + self.map_values.as_ref().map_or(0, Values::bytes)
    }

    pub(super) fn clear(&mut self) {
        match &mut self.shape {
            Shape::One => {}
            Shape::Nullable(nulls) => nulls.clear(),
            Shape::Many(ends) => ends.clear(),
        }
        self.values.clear();
        self.map_values.iter_mut().for_each(Values::clear);
    }

    pub(super) fn send(&self, to: &mut Vec<u8>) {
        for values in [Some(&self.values), self.map_values.as_ref()].into_iter().flatten() {
            if matches!(values, Values::Words(_)) {
                Words::send_head(to);
            }
        }
        match &self.shape {
            Shape::One => {}
            Shape::Nullable(nulls) => to.extend_from_slice(nulls),
            Shape::Many(ends) => to.extend(ends.iter().flat_map(|end| end.to_le_bytes())),
        }
        self.values.send(to);
        self.map_values.iter().for_each(|values| values.send(to));
    }

    pub(super) fn save(&self, to: &mut Vec<u8>) {
        match &self.shape {
            Shape::One => {}
            Shape::Nullable(nulls) => put_sized(to, nulls),
            Shape::Many(ends) => put_sized(to, &ends.iter().flat_map(|end| end.to_le_bytes()).collect::<Vec<_>>()),
        }
        self.values.save(to);
        self.map_values.iter().for_each(|values| values.save(to));
    }

    /// Adds `rows` saved rows. Returns the bytes after them.
    pub(super) fn load<'a>(&mut self, rows: usize, from: &'a [u8]) -> Option<&'a [u8]> {
        let mut from = from;
        let mut count = rows;
        match &mut self.shape {
            Shape::One => {}
            Shape::Nullable(nulls) => {
                let (saved, rest) = take_sized(from)?;
                nulls.extend_from_slice((saved.len() == rows).then_some(saved)?);
                from = rest;
            }
            Shape::Many(ends) => {
                let (saved, rest) = take_sized(from)?;
                if saved.len() != rows * 8 {
                    return None;
                }
                let before = ends.last().copied().unwrap_or_default();
                let saved = saved.chunks_exact(8).filter_map(|end| end.try_into().ok()).map(u64::from_le_bytes);
                ends.extend(saved.map(|end| before + end));
                count = usize::try_from(ends.last().copied().unwrap_or_default() - before).ok()?;
                from = rest;
            }
        }
        from = self.values.load(count, from)?;
        match &mut self.map_values {
            Some(values) => values.load(count, from),
            None => Some(from),
        }
    }
}

impl Values {
    fn of_type(name: &str) -> Self {
        match name {
            "String" => Self::Texts(Vec::new()),
            "LowCardinality(String)" => Self::Words(Words::default()),
            name => Self::Fixed(width(name), Vec::new()),
        }
    }

    pub(in crate::store) fn text(&mut self, text: &str) {
        self.text_bytes(text.as_bytes());
    }

    pub(super) fn text_bytes(&mut self, text: &[u8]) {
        match self {
            Self::Texts(to) => put_text(to, text),
            Self::Words(words) => words.push(text),
            Self::Fixed(..) => unreachable!("the column has texts"),
        }
    }

    pub(in crate::store) fn f64(&mut self, number: f64) {
        self.fixed(number.to_le_bytes());
    }

    pub(in crate::store) fn flag(&mut self, flag: bool) {
        self.fixed([u8::from(flag)]);
    }

    pub(super) fn fixed<const N: usize>(&mut self, value: [u8; N]) {
        let Self::Fixed(width, to) = self else { unreachable!("the column has numbers") };
        debug_assert_eq!(*width, N, "the width of the type");
        to.extend_from_slice(&value);
    }

    fn append(&mut self, other: &Self) {
        match (self, other) {
            (Self::Fixed(_, to), Self::Fixed(_, from)) | (Self::Texts(to), Self::Texts(from)) => {
                to.extend_from_slice(from);
            }
            (Self::Words(to), Self::Words(from)) => to.append(from),
            _ => unreachable!("blocks of one table have the same columns"),
        }
    }

    fn retain(&mut self, keep: &[bool]) {
        match self {
            Self::Fixed(width, bytes) => {
                let kept = bytes.chunks_exact(*width).zip(keep).filter(|(_, keep)| **keep);
                *bytes = kept.flat_map(|(value, _)| value.iter().copied()).collect();
            }
            Self::Texts(bytes) => {
                let (mut rest, mut kept) = (bytes.as_slice(), Vec::new());
                for keep in keep {
                    let Some((text, after)) = take_text(rest) else { break };
                    if *keep {
                        put_text(&mut kept, text);
                    }
                    rest = after;
                }
                *bytes = kept;
            }
            Self::Words(words) => words.retain(keep),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Fixed(_, bytes) | Self::Texts(bytes) => bytes.len(),
            Self::Words(words) => words.bytes(),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Fixed(_, bytes) | Self::Texts(bytes) => bytes.clear(),
            Self::Words(words) => words.clear(),
        }
    }

    fn send(&self, to: &mut Vec<u8>) {
        match self {
            Self::Fixed(_, bytes) | Self::Texts(bytes) => to.extend_from_slice(bytes),
            Self::Words(words) => words.send(to),
        }
    }

    fn save(&self, to: &mut Vec<u8>) {
        match self {
            Self::Fixed(_, bytes) | Self::Texts(bytes) => put_sized(to, bytes),
            Self::Words(words) => words.save(to),
        }
    }

    fn load<'a>(&mut self, count: usize, from: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Fixed(width, to) => {
                let (saved, rest) = take_sized(from)?;
                to.extend_from_slice((Some(saved.len()) == width.checked_mul(count)).then_some(saved)?);
                Some(rest)
            }
            Self::Texts(to) => {
                let (saved, rest) = take_sized(from)?;
                let mut unread = saved;
                for _ in 0..count {
                    unread = take_text(unread)?.1;
                }
                to.extend_from_slice(unread.is_empty().then_some(saved)?);
                Some(rest)
            }
            Self::Words(words) => {
                let before = words.len();
                let rest = words.load(from)?;
                (words.len() - before == count).then_some(rest)
            }
        }
    }
}

fn retain<T>(values: &mut Vec<T>, mut keep: impl Iterator<Item = bool>) {
    values.retain(|_| keep.next().unwrap_or(true));
}

/// Bytes of a value.
fn width(kind: &str) -> usize {
    match kind {
        "Bool" => 1,
        "UInt16" => 2,
        "UInt32" | "Int32" | "Float32" => 4,
        "UInt64" | "Int64" | "Float64" | "DateTime64(3, 'UTC')" => 8,
        "IPv6" => 16,
        other => unreachable!("no table has a column of type {other}"),
    }
}
