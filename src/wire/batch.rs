//! Messages that hold many records in one JSON array, or one value behind another.

use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::DecodeError;

/// Names of the first member of an object around an array of records: CloudTrail's files and events of AWS Lambda, the
/// answer of `lookup-events`, and the batches of Azure Event Hubs and Amazon Data Firehose.
const MEMBERS: [&str; 3] = ["Records", "Events", "records"];

/// The array in `text` from its `[` on, if `text` is one, or an object whose first member is an array of records.
pub fn of(text: &str) -> Option<&str> {
    let text = text.trim_ascii_start();
    if text.starts_with('[') {
        return Some(text);
    }
    let name = text.strip_prefix('{')?.trim_ascii_start().strip_prefix('"')?;
    let rest = MEMBERS.iter().find_map(|member| name.strip_prefix(member)?.strip_prefix('"'))?;
    let array = rest.trim_ascii_start().strip_prefix(':')?.trim_ascii_start();
    array.starts_with('[').then_some(array)
}

/// Hands each element of the `array`, a part of `payload`, to `take`, and returns how many there were. What follows the
/// array is not looked at. Where the array breaks off, its whole elements have been handed on.
pub fn each<'a>(payload: &[u8], array: &'a str, take: &mut dyn FnMut(&'a str)) -> Result<usize, DecodeError> {
    let base = super::error::offset_in(payload, array).unwrap_or_default();
    let mut json = serde_json::Deserializer::from_str(array);
    json.deserialize_seq(Each(take)).map_err(|error| DecodeError::json(payload, base, array, &error, None))
}

/// The values in `text`, if it is several objects or arrays one behind another and nothing else.
pub fn in_a_row(text: &str) -> Option<Vec<&str>> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let values = values.map(|value| value.ok().map(RawValue::get)).collect::<Option<Vec<_>>>()?;
    (values.len() > 1 && values.iter().all(|value| value.starts_with(['{', '[']))).then_some(values)
}

struct Each<'t, 'a>(&'t mut dyn FnMut(&'a str));

impl<'de> Visitor<'de> for Each<'_, 'de> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while let Some(record) = records.next_element::<&RawValue>()? {
            (self.0)(record.get());
            count += 1;
        }
        Ok(count)
    }
}
