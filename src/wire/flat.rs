//! A record laid flat: every text, number and truth value in it under its dotted path.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use super::error::TWICE;
use super::mapping::Mapping;
use super::repair::{BAD_TEXT, shown};
use super::scalar::Scalar;
use super::text::{ATTR_NAME_BYTES_MAX, ATTRS_MAX, DEPTH_MAX, char_boundary};

/// Why an object can be in no field.
pub const NESTED: &str = "expected a text or a number";

/// The paths that a mapping reads, and those that it keeps out.
#[derive(Debug)]
pub struct Paths {
    /// Sorted.
    wanted: Vec<Wanted>,
    excluded: Vec<Excluded>,
}

#[derive(Debug)]
struct Wanted {
    path: &'static str,
    /// Lies under an excluded path: read where the mapping says so, and never kept as an attribute.
    hidden: bool,
}

#[derive(Debug)]
struct Excluded {
    path: &'static str,
    /// Something under it is wanted nevertheless.
    holds_wanted: bool,
}

impl Paths {
    pub fn of(mapping: &Mapping) -> Self {
        let mut paths = Vec::new();
        let mut note = |path| paths.push(path);
        let changes = mapping.changes.iter();
        for (_, sources) in mapping.fields.iter().chain(changes.clone().flat_map(|change| change.fields)) {
            sources.iter().for_each(|source| source.paths(&mut note));
        }
        changes.flat_map(|change| change.when).for_each(|(path, _)| note(path));
        mapping.skips.iter().for_each(|skip| note(skip.path));
        paths.sort_unstable();
        paths.dedup();
        let under = |path: &str, parent: &str| path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('.'));
        let excluded = mapping
            .excluded
            .iter()
            .map(|parent| Excluded { path: parent, holds_wanted: paths.iter().any(|path| under(path, parent)) });
        let hidden = |path: &str| mapping.excluded.iter().any(|parent| under(path, parent));
        let wanted = paths.iter().map(|path| Wanted { path, hidden: hidden(path) });
        Self { excluded: excluded.collect(), wanted: wanted.collect() }
    }

    fn slot(&self, path: &str) -> Option<usize> {
        self.wanted.binary_search_by(|wanted| wanted.path.cmp(path)).ok()
    }
}

/// One record, flat.
pub struct Flat<'p, 'a> {
    paths: &'p Paths,
    /// What stands at each wanted path: one text, or those of an array.
    found: Vec<Found<'a>>,
    /// Everything else, as it came.
    rest: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    omitted: u64,
    /// Something nests deeper than [`DEPTH_MAX`] and was left out.
    too_deep: bool,
}

#[derive(Clone, Default)]
struct Found<'a> {
    texts: SmallVec<[Cow<'a, str>; 1]>,
    /// Why no field can take it, whatever its texts are.
    fault: Option<&'static str>,
    /// A field has taken it.
    used: bool,
}

impl<'p, 'a> Flat<'p, 'a> {
    /// Reads the object in `json`. `absent`: texts that stand for nothing.
    pub fn read(
        paths: &'p Paths,
        absent: &'static [&'static str],
        json: &mut serde_json::Deserializer<serde_json::de::StrRead<'a>>,
    ) -> Result<Self, serde_json::Error> {
        let found = vec![Found::default(); paths.wanted.len()];
        let mut flat = Self { paths, found, rest: Vec::new(), omitted: 0, too_deep: false };
        let mut path = String::new();
        let mut node = Node { flat: &mut flat, path: &mut path, absent, array_length: None, hidden: false, depth: 0 };
        json.deserialize_map(node.reborrow())?;
        json.end()?;
        Ok(flat)
    }

    /// The text at a wanted path, or the first of several.
    pub fn text(&self, path: &str) -> Option<&Cow<'a, str>> {
        self.texts(path).first()
    }

    /// All texts at a wanted path.
    pub fn texts(&self, path: &str) -> &[Cow<'a, str>] {
        self.paths.slot(path).and_then(|slot| self.found.get(slot)).map_or(&[], |found| &found.texts)
    }

    /// Why the texts at a wanted path can be in no field.
    pub fn fault(&self, path: &str) -> Option<&'static str> {
        self.paths.slot(path).and_then(|slot| self.found.get(slot)).and_then(|found| found.fault)
    }

    /// Something was left out because it nests too deeply.
    pub const fn is_too_deep(&self) -> bool {
        self.too_deep
    }

    /// The text is in a field now, and no attribute.
    pub fn mark_used(&mut self, path: &str) {
        if let Some(found) = self.paths.slot(path).and_then(|slot| self.found.get_mut(slot)) {
            found.used = true;
        }
    }

    /// The text of `member` in the first object in `array` with such a `type`.
    pub fn typed(&self, array: &str, kind: &str, member: &str) -> Option<&Cow<'a, str>> {
        let element = self
            .rest
            .iter()
            .filter(|(_, text)| text == kind)
            .find_map(|(path, _)| path.strip_prefix(array)?.strip_prefix('.')?.strip_suffix(".type"))?;
        let wanted = format!("{array}.{element}.{member}");
        self.rest.iter().find(|(path, _)| *path == wanted).map(|(_, text)| text)
    }

    /// What no field has taken, and the number of texts beyond the limit.
    pub fn into_rest(self) -> (impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>, u64) {
        let unused = self.paths.wanted.iter().zip(self.found).filter(|(wanted, found)| !wanted.hidden && !found.used);
        let unused =
            unused.flat_map(|(wanted, found)| found.texts.into_iter().map(|text| (Cow::Borrowed(wanted.path), text)));
        (self.rest.into_iter().chain(unused), self.omitted)
    }

    fn put(&mut self, path: &str, array_length: Option<usize>, hidden: bool, text: Cow<'a, str>) {
        let known = array_length.and_then(|length| path.get(..length)).unwrap_or(path);
        if let Some(found) = self.paths.slot(known).and_then(|slot| self.found.get_mut(slot)) {
            // Only an escape can stand for NUL, and a text with an escape is never borrowed.
            if matches!(&text, Cow::Owned(text) if text.contains('\0')) {
                found.fault = Some(BAD_TEXT);
            } else if array_length.is_none() {
                found.begin();
            }
            if found.texts.len() < ATTRS_MAX {
                found.texts.push(shown(text));
            }
        } else if hidden {
            // Bodies are passed over.
        } else if self.rest.len() < ATTRS_MAX {
            let end = char_boundary(path, ATTR_NAME_BYTES_MAX);
            self.rest.push((Cow::Owned(path.get(..end).unwrap_or_default().to_owned()), text));
        } else {
            self.omitted += 1;
        }
    }
}

impl Found<'_> {
    /// Another value begins that stands here. Two readers that take different ones of them see different records.
    fn begin(&mut self) {
        if !self.texts.is_empty() {
            self.fault = Some(TWICE);
        }
    }
}

/// A value on its way into a [`Flat`].
struct Node<'n, 'p, 'a> {
    flat: &'n mut Flat<'p, 'a>,
    path: &'n mut String,
    absent: &'static [&'static str],
    /// In an array: length of the array's own path.
    array_length: Option<usize>,
    hidden: bool,
    /// Objects and arrays around it.
    depth: usize,
}

impl<'p, 'a> Node<'_, 'p, 'a> {
    fn reborrow(&mut self) -> Node<'_, 'p, 'a> {
        Node { flat: &mut *self.flat, path: &mut *self.path, ..*self }
    }

    /// Notes what an object or array is to the field that is looked for here.
    fn enter(&mut self, note: fn(&mut Found<'a>)) {
        if let Some(found) = self.flat.paths.slot(self.path).and_then(|slot| self.flat.found.get_mut(slot)) {
            note(found);
        }
    }

    /// Takes in one value. Null and the empty text say nothing.
    fn put(self, text: Cow<'a, str>) {
        if !text.is_empty() && !self.absent.contains(&text.as_ref()) {
            self.flat.put(self.path, self.array_length, self.hidden, text);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.enter(|found| found.fault = Some(NESTED));
        if self.depth >= DEPTH_MAX {
            self.flat.too_deep = true;
            while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        let depth = self.depth + 1;
        let outer = self.path.len();
        while let Some(name) = members.next_key::<Scalar<'de>>()? {
            let Scalar::Text(name) = name else { continue };
            if outer > 0 {
                self.path.push('.');
            }
            self.path.push_str(&name);
            let excluded = self.flat.paths.excluded.iter().find(|excluded| excluded.path == self.path);
            if let Some(Excluded { holds_wanted: false, .. }) = excluded {
                members.next_value::<IgnoredAny>()?;
            } else {
                let hidden = self.hidden || excluded.is_some();
                members.next_value_seed(Node { hidden, depth, array_length: None, ..self.reborrow() })?;
            }
            self.path.truncate(outer);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.enter(Found::begin);
        if self.depth >= DEPTH_MAX {
            self.flat.too_deep = true;
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        let depth = self.depth + 1;
        let outer = self.path.len();
        for index in 0.. {
            self.path.push('.');
            self.path.push_str(&index.to_string());
            let item = items.next_element_seed(Node { depth, array_length: Some(outer), ..self.reborrow() })?;
            self.path.truncate(outer);
            if item.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        self.put(Cow::Borrowed(text));
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.put(Cow::Owned(text.to_owned()));
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.put(Cow::Borrowed(if value { "true" } else { "false" }));
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.put(Cow::Owned(number.to_string()));
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.put(Cow::Owned(number.to_string()));
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.put(Cow::Owned(number.to_string()));
        Ok(())
    }
}
