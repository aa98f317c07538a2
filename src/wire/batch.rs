//! Messages that hold many records in one JSON array.

use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::DecodeError;

/// The array in `text` from its `[` on, if `text` is one, or an object whose first member is an array named `member`.
pub fn of<'a>(text: &'a str, member: Option<&str>) -> Option<&'a str> {
    let text = text.trim_ascii_start();
    if text.starts_with('[') {
        return Some(text);
    }
    let name = text.strip_prefix('{')?.trim_ascii_start().strip_prefix('"')?.strip_prefix(member?)?;
    let array = name.strip_prefix('"')?.trim_ascii_start().strip_prefix(':')?.trim_ascii_start();
    array.starts_with('[').then_some(array)
}

/// Hands each element of the `array`, a part of `payload`, to `take`. What follows the array is not looked at. Where
/// the array breaks off, its whole elements have been handed on.
pub fn each<'a>(payload: &[u8], array: &'a str, take: &mut dyn FnMut(&'a str)) -> Result<(), DecodeError> {
    let base = super::error::offset_in(payload, array).unwrap_or_default();
    let mut json = serde_json::Deserializer::from_str(array);
    json.deserialize_seq(Each(take)).map_err(|error| DecodeError::json(payload, base, array, &error, None))
}

struct Each<'t, 'a>(&'t mut dyn FnMut(&'a str));

impl<'de> Visitor<'de> for Each<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<(), A::Error> {
        while let Some(record) = records.next_element::<&RawValue>()? {
            (self.0)(record.get());
        }
        Ok(())
    }
}
