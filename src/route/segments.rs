//! Segments of a path.

use crate::key::{Class, KeyHasher};

/// Maximum number of segments with keys. Further segments belong to the last one.
pub const SEGMENTS_MAX: usize = 8;
/// Placeholder of an id.
pub(super) const HOLE: &[u8] = b"{}";
/// Key of a segment that is an id.
pub const ID: u32 = 1;

/// Keys of the segments of a path, in order. Empty for an operation that is not a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    keys: [u32; SEGMENTS_MAX],
    count: u8,
}

impl Segments {
    /// Segments of a `template` of a path.
    pub(super) fn of(template: &[u8], hasher: &KeyHasher) -> Self {
        let mut segments = Self::default();
        if !is_path(template) {
            return segments;
        }
        let mut rest = template;
        while let Some(at) = rest.iter().position(|byte| *byte != b'/') {
            let text = &rest[at..];
            let is_last = usize::from(segments.count) == SEGMENTS_MAX - 1;
            let end = if is_last { None } else { text.iter().position(|byte| *byte == b'/') };
            let (word, after) = text.split_at(end.unwrap_or(text.len()));
            let key = if word == HOLE { ID } else { (hasher.name(Class::Segment, word) as u32).max(ID + 1) };
            segments.keys[usize::from(segments.count)] = key;
            segments.count += 1;
            rest = after;
        }
        segments
    }

    #[must_use]
    pub fn keys(&self) -> &[u32] {
        &self.keys[..usize::from(self.count)]
    }
}

fn is_path(template: &[u8]) -> bool {
    template.first() == Some(&b'/')
}

/// Segments that are names, as bits from the first segment on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names(u8);

impl Names {
    /// Adds the segment `number`, from 0.
    pub const fn add(&mut self, number: usize) {
        self.0 |= 1 << number;
    }

    /// Adds all segments from `number` on.
    pub const fn add_all_from(&mut self, number: usize) {
        self.0 |= u8::MAX << number;
    }

    const fn contains(self, number: usize) -> bool {
        self.0 & (1 << if number < SEGMENTS_MAX { number } else { SEGMENTS_MAX - 1 }) != 0
    }

    /// Whether all segments from `number` on are names.
    const fn contains_all_from(self, number: usize) -> bool {
        number < SEGMENTS_MAX && self.0 >> number == u8::MAX >> number
    }
}

/// `template` with `names` replaced by `{}`.
pub(super) fn without(template: &str, names: Names) -> String {
    let mut text = String::with_capacity(template.len());
    for (number, word) in template.split('/').filter(|word| !word.is_empty()).enumerate() {
        text.push('/');
        if names.contains_all_from(number) {
            text.push_str("{}");
            break;
        }
        text.push_str(if names.contains(number) { "{}" } else { word });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(template: &str) -> Vec<u32> {
        Segments::of(template.as_bytes(), &KeyHasher::default()).keys().to_vec()
    }

    #[test]
    fn segments_are_words_between_slashes() {
        let (short, long) = (keys("/repos/acme/hooks/{}"), keys("/repos/acme/contents/a/b/c/d/e/f"));
        assert_eq!((short.len(), short[3]), (4, ID));
        assert_eq!(short[..2], long[..2]);
        assert_ne!(short[2], long[2]);
        assert_eq!(long.len(), SEGMENTS_MAX);
        assert_ne!(long, keys("/repos/acme/contents/a/b/c/d/e/g"), "further segments belong to the last");
        assert_eq!(keys("/repos//acme"), short[..2], "empty segments do not count");
        for operation in ["", "iam.amazonaws.com ListUsers", "repo.create", "s3:GetObject"] {
            assert!(keys(operation).is_empty(), "{operation}");
        }
    }

    #[test]
    fn names_are_replaced_in_the_text() {
        let mut names = Names::default();
        names.add(1);
        assert_eq!(without("/repos/acme/hooks", names), "/repos/{}/hooks");
        names.add_all_from(3);
        assert_eq!(without("/repos/acme/contents/src/main.rs", names), "/repos/{}/contents/{}");
        assert_eq!(without("/repos/acme/contents", names), "/repos/{}/contents");
        let mut last = Names::default();
        last.add(7);
        assert_eq!(without("/1/2/3/4/5/6/7/8/9", last), "/1/2/3/4/5/6/7/{}", "further segments belong to the last");
    }
}
