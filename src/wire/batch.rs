//! Messages of many records: a JSON array, or consecutive JSON values.

use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::DecodeError;
use super::pieces;

/// Names of the first member of an object around an array of records. `Records`: CloudTrail's files and events of AWS
/// Lambda. `Events`: the response of `lookup-events`. `records`: the batches of Azure Event Hubs and Amazon Data
/// Firehose.
const MEMBERS: [&str; 3] = ["Records", "Events", "records"];

/// The array from its `[` on, if `text` is an array, or an object whose first member is an array of records.
pub(crate) fn of(text: &str) -> Option<&str> {
    let text = text.trim_ascii_start();
    if text.starts_with('[') {
        return Some(text);
    }
    let name = text.strip_prefix('{')?.trim_ascii_start().strip_prefix('"')?;
    let rest = MEMBERS.iter().find_map(|member| name.strip_prefix(member)?.strip_prefix('"'))?;
    let array = rest.trim_ascii_start().strip_prefix(':')?.trim_ascii_start();
    array.starts_with('[').then_some(array)
}

/// Passes each element of the `array`, a part of `payload`, to `take`, and returns their number. Text after the array
/// is ignored. An element that is not JSON is passed on too; decoding it gives the error. If the array is truncated,
/// its complete elements are passed on before the error.
pub(crate) fn each<'a>(payload: &[u8], array: &'a str, take: &mut dyn FnMut(&'a str)) -> Result<usize, DecodeError> {
    let base = super::error::offset_in(payload, array).unwrap_or_default();
    // Behind the opening bracket, and then behind the last element that was read.
    let (mut count, mut read) = (0, 1);
    let mut json = serde_json::Deserializer::from_str(array);
    let strict = json.deserialize_seq(Each(&mut |element: &'a str| {
        count += 1;
        read = super::error::offset_in(array.as_bytes(), element).unwrap_or_default() + element.len();
        take(element);
    }));
    let Err(error) = strict else { return Ok(count) };
    let rest = array.get(read..).unwrap_or_default();
    let elements = pieces::elements(rest);
    for element in &elements.parts {
        count += 1;
        take(element);
    }
    if elements.closed || elements.breaks_off {
        return Ok(count);
    }
    Err(DecodeError::json(payload, base, array, &error, None))
}

/// The values in `text`, if it is several objects or arrays one behind another and nothing else.
pub(crate) fn in_a_row(text: &str) -> Option<Vec<&str>> {
    pieces::values(text).filter(|values| values.len() > 1)
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
