//! A flattened record: every text, number and boolean under its dotted path.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use super::error::TWICE;
use super::mapping::table::{Mapping, Source};
use super::repair::{BAD_TEXT, is_broken, shown};
use super::scalar::Scalar;
use super::text::{ATTR_NAME_BYTES_MAX, ATTRS_MAX, DEPTH_MAX, char_boundary};

/// Reason for an object that a field cannot contain.
pub(crate) const NESTED: &str = "expected a text or a number";

/// The paths that a mapping reads, and those that it excludes.
#[derive(Debug)]
pub(crate) struct Paths {
    /// Sorted.
    wanted: Vec<Wanted>,
    excluded: Vec<Excluded>,
    /// Arrays of objects whose elements are read.
    arrays: Vec<&'static str>,
    /// Paths whose text may be an object as JSON.
    embedded: &'static [&'static str],
    absent: &'static [&'static str],
    volatile: &'static [&'static str],
}

#[derive(Debug)]
struct Wanted {
    path: &'static str,
    /// Below an excluded path: read if the mapping names it, but never kept as an attribute.
    hidden: bool,
}

#[derive(Debug)]
struct Excluded {
    path: &'static str,
    /// A wanted path is below it.
    holds_wanted: bool,
}

impl Paths {
    pub(crate) fn of(mapping: &Mapping) -> Self {
        let Mapping {
            marks,
            weak_marks,
            fields,
            changes,
            reinstatements,
            skips,
            excluded,
            embedded,
            absent,
            volatile,
            ..
        } = mapping;
        let reinstated = reinstatements
            .iter()
            .flat_map(|reinstatement| reinstatement.token.iter().chain(reinstatement.user).chain(reinstatement.role));
        let rows = fields.iter().chain(changes.iter().flat_map(|change| change.fields));
        let sources: Vec<&Source> = rows.flat_map(|(_, sources)| *sources).chain(reinstated).collect();
        let tests = changes.iter().flat_map(|change| change.when.iter().chain(change.unless));
        let tests = tests.chain(skips.iter().flat_map(|skip| skip.when.iter().chain(skip.unless)));
        let tests = tests.chain(reinstatements.iter().flat_map(|reinstatement| reinstatement.when));
        let mut paths: Vec<_> = marks.iter().chain(*weak_marks).copied().chain(tests.map(|(path, _)| *path)).collect();
        for source in &sources {
            source.paths(&mut |path| paths.push(path));
        }
        paths.sort_unstable();
        paths.dedup();
        let mut arrays: Vec<_> = changes.iter().filter_map(|change| change.each.map(|each| each.array)).collect();
        arrays.extend(sources.iter().filter_map(|source| source.array()));
        arrays.sort_unstable();
        arrays.dedup();
        let excluded = excluded
            .iter()
            .map(|parent| Excluded { path: parent, holds_wanted: paths.iter().any(|path| is_under(path, parent)) })
            .collect::<Vec<_>>();
        let hidden = |path: &str| excluded.iter().any(|parent| is_under(path, parent.path));
        let wanted = paths.iter().map(|path| Wanted { path, hidden: hidden(path) }).collect();
        Self { wanted, excluded, arrays, embedded, absent, volatile }
    }

    fn slot(&self, path: &str) -> Option<usize> {
        self.wanted.binary_search_by(|wanted| wanted.path.cmp(path)).ok()
    }
}

/// Whether `path` is below `parent`.
fn is_under(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('.'))
}

/// Maximum number of texts kept from the elements of arrays.
const ELEMENTS_MAX: usize = 1024;

/// One flattened record.
pub(crate) struct Flat<'p, 'a> {
    paths: &'p Paths,
    /// The texts at each wanted path: one text, or those of an array.
    found: Vec<Found<'a>>,
    /// The members of the elements of [`Paths::arrays`], with their paths.
    elements: Vec<(String, Cow<'a, str>)>,
    /// Sum of the hashes of all texts of the record's identity, if requested.
    digest: Option<u128>,
    /// All other texts, as sent.
    rest: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    omitted: u64,
    /// A value nested deeper than [`DEPTH_MAX`] was left out.
    too_deep: bool,
}

#[derive(Clone, Default)]
struct Found<'a> {
    texts: SmallVec<[Cow<'a, str>; 1]>,
    /// Why no field can contain the value, for any texts.
    fault: Option<&'static str>,
    /// A field has taken it.
    used: bool,
}

impl<'p, 'a> Flat<'p, 'a> {
    /// Reads the object in `json`.
    pub(crate) fn read(
        paths: &'p Paths,
        json: &mut serde_json::Deserializer<serde_json::de::StrRead<'a>>,
    ) -> Result<Self, serde_json::Error> {
        Self::read_into(Self::new(paths), json)
    }

    /// A digest of the record in `text` that does not depend on the order of its members: equal for every delivery of
    /// the same record.
    pub(crate) fn digest(paths: &'p Paths, text: &'a str) -> Result<u128, serde_json::Error> {
        let flat = Self { digest: Some(0), ..Self::new(paths) };
        let flat = Self::read_into(flat, &mut serde_json::Deserializer::from_str(text))?;
        Ok(flat.digest.unwrap_or_default())
    }

    fn new(paths: &'p Paths) -> Self {
        let found = vec![Found::default(); paths.wanted.len()];
        Self { paths, found, elements: Vec::new(), digest: None, rest: Vec::new(), omitted: 0, too_deep: false }
    }

    fn read_into(
        mut flat: Self,
        json: &mut serde_json::Deserializer<serde_json::de::StrRead<'a>>,
    ) -> Result<Self, serde_json::Error> {
        let mut path = String::new();
        let mut node = Node { flat: &mut flat, path: &mut path, array_length: None, hidden: false, depth: 0 };
        json.deserialize_map(node.reborrow())?;
        json.end()?;
        Ok(flat)
    }

    /// Whether a wanted path has a value.
    pub(crate) fn has(&self, path: &str) -> bool {
        let found = self.paths.slot(path).and_then(|slot| self.found.get(slot));
        found.is_some_and(|found| !found.texts.is_empty() || found.fault.is_some())
    }

    /// The text at a wanted path, or the first of several.
    pub(crate) fn text(&self, path: &str) -> Option<&Cow<'a, str>> {
        self.texts(path).first()
    }

    /// All texts at a wanted path.
    pub(crate) fn texts(&self, path: &str) -> &[Cow<'a, str>] {
        self.paths.slot(path).and_then(|slot| self.found.get(slot)).map_or(&[], |found| &found.texts)
    }

    /// Why no field can contain the texts at a wanted path.
    pub(crate) fn fault(&self, path: &str) -> Option<&'static str> {
        self.paths.slot(path).and_then(|slot| self.found.get(slot)).and_then(|found| found.fault)
    }

    /// Whether a value was left out because it nests too deeply.
    pub(crate) const fn is_too_deep(&self) -> bool {
        self.too_deep
    }

    /// Records that a field contains the text, so that it is no attribute.
    pub(crate) fn mark_used(&mut self, path: &str) {
        if let Some(found) = self.paths.slot(path).and_then(|slot| self.found.get_mut(slot)) {
            found.used = true;
        }
    }

    /// Paths of the objects in `array` with the type `kind`.
    fn of_type<'f>(&'f self, array: &'f str, kind: &'f str) -> impl Iterator<Item = &'f str> {
        let of_kind = self.elements.iter().filter(move |(_, text)| text == kind);
        of_kind.filter_map(move |(path, _)| path.strip_prefix(array)?.strip_prefix('.')?.strip_suffix(".type"))
    }

    fn element(&self, array: &str, place: &str, member: &str) -> Option<&Cow<'a, str>> {
        let of_member = |path: &str| {
            path.strip_prefix(array)
                .and_then(|rest| rest.strip_prefix('.')?.strip_prefix(place)?.strip_prefix('.'))
                .is_some_and(|rest| rest == member)
        };
        self.elements.iter().find(|(path, _)| of_member(path)).map(|(_, text)| text)
    }

    /// The text of `member` in the first object in `array` of the type `kind`.
    pub(crate) fn typed(&self, array: &str, kind: &str, member: &str) -> Option<&Cow<'a, str>> {
        self.of_type(array, kind).find_map(|place| self.element(array, place, member))
    }

    /// The texts of `member` in all objects in `array` of the type `kind`.
    pub(crate) fn all_typed<'f>(
        &'f self,
        array: &'f str,
        kind: &'f str,
        member: &'f str,
    ) -> impl Iterator<Item = &'f Cow<'a, str>> {
        self.of_type(array, kind).filter_map(move |place| self.element(array, place, member))
    }

    /// The texts that no field took, and the number of texts beyond the limit.
    pub(crate) fn into_rest(self) -> (impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>, u64) {
        let unused = self.paths.wanted.iter().zip(self.found).filter(|(wanted, found)| !wanted.hidden && !found.used);
        let unused = unused
            .flat_map(|(wanted, found)| found.texts.into_iter().map(|text| (Cow::Borrowed(wanted.path), shown(text))));
        (self.rest.into_iter().chain(unused), self.omitted)
    }

    fn put(&mut self, path: &str, array_length: Option<usize>, hidden: bool, text: Cow<'a, str>) {
        if let Some(digest) = &mut self.digest {
            let volatile = |parent: &&str| path == &**parent || is_under(path, parent);
            if !hidden && !self.paths.volatile.iter().any(volatile) {
                let seed = xxh3_64(path.as_bytes());
                *digest = digest.wrapping_add(xxh3_128_with_seed(text.as_bytes(), seed));
            }
            return;
        }
        if self.elements.len() < ELEMENTS_MAX && self.paths.arrays.iter().any(|array| is_under(path, array)) {
            self.elements.push((path.to_owned(), text.clone()));
        }
        let known = array_length.and_then(|length| path.get(..length)).unwrap_or(path);
        if let Some(found) = self.paths.slot(known).and_then(|slot| self.found.get_mut(slot)) {
            if array_length.is_none() && found.texts.len() == 1 && found.texts.first() == Some(&text) {
                // A repeated equal value adds nothing.
                return;
            }
            if array_length.is_none() {
                found.begin();
            }
            if is_broken(&text) {
                found.fault.get_or_insert(BAD_TEXT);
            }
            if found.texts.len() < ATTRS_MAX {
                found.texts.push(text);
            }
        } else if hidden {
            // Excluded bodies are skipped.
        } else if self.rest.len() < ATTRS_MAX {
            let end = char_boundary(path, ATTR_NAME_BYTES_MAX);
            self.rest.push((Cow::Owned(path.get(..end).unwrap_or_default().to_owned()), text));
        } else {
            self.omitted += 1;
        }
    }
}

impl Found<'_> {
    /// Records the start of a value. A second value at the same path is a fault, because two readers may choose
    /// different ones and no repair makes them agree.
    fn begin(&mut self) {
        if !self.texts.is_empty() {
            self.fault = Some(TWICE);
        }
    }
}

/// A value that is being added to a [`Flat`].
struct Node<'n, 'p, 'a> {
    flat: &'n mut Flat<'p, 'a>,
    path: &'n mut String,
    /// In an array: length of the array's path.
    array_length: Option<usize>,
    hidden: bool,
    /// Number of objects and arrays around it.
    depth: usize,
}

impl<'p, 'a> Node<'_, 'p, 'a> {
    fn reborrow(&mut self) -> Node<'_, 'p, 'a> {
        Node { flat: &mut *self.flat, path: &mut *self.path, ..*self }
    }

    /// Records that a wanted path has an object or array.
    fn enter(&mut self, note: fn(&mut Found<'a>)) {
        if let Some(found) = self.flat.paths.slot(self.path).and_then(|slot| self.flat.found.get_mut(slot)) {
            note(found);
        }
    }

    /// Adds one value. Null and the empty text count as absent.
    fn put(self, text: Cow<'a, str>) {
        if text.is_empty() || self.flat.paths.absent.contains(&text.as_ref()) {
            return;
        }
        if text.starts_with('{') && self.flat.paths.embedded.contains(&self.path.as_str()) {
            // A text that is not JSON is treated like any other body.
            if let Ok(body @ Value::Object(_)) = serde_json::from_str(&text) {
                self.graft(body);
            }
            return;
        }
        self.flat.put(self.path, self.array_length, self.hidden, text);
    }

    /// Adds an object from a JSON text. serde_json reads no deeper than 128.
    fn graft(mut self, value: Value) {
        let outer = self.path.len();
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    self.path.push('.');
                    self.path.push_str(&name);
                    Node { array_length: None, ..self.reborrow() }.graft(value);
                    self.path.truncate(outer);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.into_iter().enumerate() {
                    self.path.push('.');
                    self.path.push_str(&index.to_string());
                    Node { array_length: Some(outer), ..self.reborrow() }.graft(value);
                    self.path.truncate(outer);
                }
            }
            Value::Null => {}
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => self.flat.put(self.path, self.array_length, self.hidden, Cow::Owned(text)),
            other => self.flat.put(self.path, self.array_length, self.hidden, Cow::Owned(other.to_string())),
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
            // A name may contain dots and lead beyond the excluded path.
            let within = |excluded: &&Excluded| excluded.path == self.path || is_under(self.path, excluded.path);
            let excluded = if self.hidden { None } else { self.flat.paths.excluded.iter().find(within) };
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
