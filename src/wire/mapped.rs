//! Reads other systems' records by the tables in [`mapping`](super::mapping).

mod draft;
mod lookup;

use std::borrow::Cow;

use self::draft::{Draft, Fault, Reading, facts};
use super::decoded::Decoded;
use super::error::{DecodeError, offset_in};
use super::flat::{Flat, Paths};
use super::mapping::table::{Field, Mapping, Source};
use super::text::{self, Limit, Screen};
use crate::event::Event;

/// A mapping, prepared for reading.
#[derive(Debug)]
pub(crate) struct Mapper {
    mapping: &'static Mapping,
    paths: Paths,
}

/// Why an object gave no event. It may contain a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It has none of the members that identify a record of the format.
    Foreign,
    /// The same, but it may be a record of the format without a token.
    NoToken,
}

/// Why a record is skipped that names neither a token nor its holder.
pub(crate) const NO_TOKEN: &str = "no token and no principal";

impl Mapper {
    pub(crate) fn new(mapping: &'static Mapping) -> Self {
        Self { mapping, paths: Paths::of(mapping) }
    }

    /// Decodes the one record in `text`, a part of `payload`. The result is one event, or several if the call used one
    /// token and changed others. The `use` then comes first. Its id is the record's id with `:use` appended, because
    /// ids must be unique.
    pub(crate) fn decode<'a>(
        &self,
        payload: &'a [u8],
        text: &'a str,
        screen: &mut Screen<'_>,
        take: &mut dyn FnMut(Result<Decoded<'a>, DecodeError>),
    ) -> Result<(), Unread> {
        let base = offset_in(payload, text).unwrap_or_default();
        let mut json = serde_json::Deserializer::from_str(text);
        let mut record = match Flat::read(&self.paths, &mut json) {
            Ok(record) => record,
            Err(error) => {
                take(Err(DecodeError::json(payload, base, text, &error, None)));
                return Ok(());
            }
        };
        if !self.mapping.marks.iter().any(|mark| record.has(mark)) {
            let weak = self.mapping.weak_marks.iter().any(|mark| record.has(mark));
            return Err(if weak { Unread::NoToken } else { Unread::Foreign });
        }
        if record.is_too_deep() {
            screen.unreadable("attrs", text::TOO_DEEP);
        }
        let skip = self.mapping.skips.iter().find(|skip| skip.applies(&record));
        if let Some(skip) = skip.filter(|skip| !skip.unless_change) {
            take(Ok(Decoded::Skipped(skip.reason)));
            return Ok(());
        }
        let read = self.read(&mut Reading { payload, record: &mut record, screen });
        let Events { used, changed } = match read {
            Ok(events) => events,
            Err(Fault { path, reason, at }) => {
                take(Err(DecodeError::new(payload, at.unwrap_or(base), path, reason)));
                return Ok(());
            }
        };
        let used = used.filter(|_| skip.is_none());
        let Some(first) = used.as_ref().or(changed.first()) else {
            take(Ok(Decoded::Skipped(skip.map_or(NO_TOKEN, |skip| skip.reason))));
            return Ok(());
        };
        let event_id = if first.event_id.is_empty() {
            Cow::Owned(screen.content_id(Flat::digest(&self.paths, text).unwrap_or_default()))
        } else {
            first.event_id.clone()
        };
        let attrs = attrs(record, screen);
        if let Some(used) = used {
            let event_id = if changed.is_empty() { event_id.clone() } else { Cow::Owned(format!("{event_id}:use")) };
            take(Ok(Decoded::Event(Event { event_id, attrs: attrs.clone(), ..used })));
        }
        for (number, changed) in changed.into_iter().enumerate() {
            let event_id =
                if number == 0 { event_id.clone() } else { Cow::Owned(format!("{event_id}:{}", number + 1)) };
            take(Ok(Decoded::Event(Event { event_id, attrs: attrs.clone(), ..changed })));
        }
        Ok(())
    }

    fn read<'a>(&self, reading: &mut Reading<'_, '_, '_, 'a>) -> Result<Events<'a>, Fault> {
        let mut base = Draft::new();
        // The first fault, reported only if the record concerns a token.
        let mut fault = None;
        let mut token_unreadable = false;
        for row in self.mapping.fields {
            if let Err(found) = base.fill(row, reading) {
                token_unreadable |= row.0 == Field::TokenId;
                fault.get_or_insert(found);
            }
        }
        let failed = base.event.status.is_some_and(|status| status >= 400);
        let mut changed = Vec::new();
        for change in self.mapping.changes.iter().filter(|change| !failed || change.failed_too) {
            if change.applies(reading.record) {
                changed = base.changed(change, reading)?;
                if !changed.is_empty() {
                    break;
                }
            }
        }
        let reinstated = self.mapping.reinstatements.iter().find(|one| !failed && one.applies(reading.record));
        let timed = base.timed;
        let mut used = if token_unreadable
            // At most one event for each token.
            || changed.iter().any(|changed| changed.token_id == base.event.token_id)
            // A caller without a token of its own adds no use to score beside the changes.
            || !changed.is_empty() && !base.has_token()
        {
            None
        } else {
            base.used(reading.screen)
        };
        if used.is_some() || !changed.is_empty() || token_unreadable {
            if let Some(fault) = fault {
                return Err(fault);
            }
            if !timed {
                return Err(Fault { path: self.first_path(Field::Timestamp), reason: "missing", at: None });
            }
        }
        if let Some(used) = &mut used
            && !changed.is_empty()
            && let Some(facts) = &mut used.facts
        {
            // The record's other name may be that of the changed token.
            facts.alias = None;
        }
        if let (Some(reinstated), Some(event)) = (reinstated, used.as_mut().or(changed.first_mut())) {
            let token = Source::first_of(reinstated.token, reading.record);
            let token = token.and_then(|text| reading.screen.token_name(text).ok());
            let mut holder = |sources| {
                let holder = Source::first_of(sources, reading.record);
                holder.and_then(|text| reading.screen.limited("attrs", text, Limit::Id(text::ID_BYTES_MAX)).ok())
            };
            let (person, role) = (holder(reinstated.user), holder(reinstated.role));
            if token.is_some() || person.is_some() || role.is_some() {
                let facts = facts(event);
                (facts.reinstated_token, facts.reinstated_user, facts.reinstated_role) = (token, person, role);
            }
        }
        Ok(Events { used, changed })
    }

    /// The first path of a field: its name in the record's own format.
    fn first_path(&self, field: Field) -> &'static str {
        let mut first = "";
        if let Some((_, [source, ..])) = self.mapping.fields.iter().find(|(filled, _)| *filled == field) {
            source.paths(&mut |path| first = path);
        }
        first
    }
}

/// The events of one record: the use of a token, and the changes of tokens.
struct Events<'a> {
    used: Option<Event<'a>>,
    changed: Vec<Event<'a>>,
}

/// Values that no field took, without secrets.
fn attrs<'a>(record: Flat<'_, 'a>, screen: &mut Screen<'_>) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
    let (mut rest, mut omitted) = record.into_rest();
    let mut attrs: Vec<_> = rest.by_ref().take(text::ATTRS_MAX).map(|(name, value)| screen.attr(name, value)).collect();
    omitted += rest.count() as u64;
    if omitted > 0 {
        attrs.push((Cow::Borrowed(text::ATTRS_OMITTED), Cow::Owned(omitted.to_string())));
    }
    screen.name_unreadable(&mut attrs);
    attrs
}
