//! Reads other systems' records by their tables in [`mapping`](super::mapping).

use std::borrow::Cow;
use std::str::FromStr;

use super::decoded::Decoded;
use super::error::{DecodeError, offset_in};
use super::flat::{Flat, NESTED, Paths};
use super::mapping::lasting::is_lasting;
use super::mapping::table::{Change, Field, Mapping, Reinstatement, Row, Skip, Source, Test, UNCLEAR, matches};
use super::repair::{BAD_TEXT, is_broken};
use super::scalar::Scalar;
use super::text::{self, Limit, Screen, blank, cut};
use super::time;
use crate::event::{Concerns, Event, EventGeo, ProviderFacts, Timestamp, TokenType};
use crate::token::TokenId;

/// A mapping, made ready.
#[derive(Debug)]
pub(crate) struct Mapper {
    mapping: &'static Mapping,
    paths: Paths,
}

/// Why nothing was handed on of an object: a record may stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It has none of the members that every record of the format has some of.
    Foreign,
    /// The same, but it may be a record of the format that speaks of no token.
    NoToken,
}

/// Why a record is skipped that names neither a token nor who holds one.
pub(crate) const NO_TOKEN: &str = "no token and no principal";

/// Why a record is no event: what it cannot be without is missing or cannot be read. Any other field that cannot be
/// read as it was sent is repaired ([`Limit`]) or counts as absent, is named in the event's attributes, and what was sent
/// for one that is absent stays there.
struct Fault {
    path: &'static str,
    reason: &'static str,
    at: Option<usize>,
}

/// One record on its way through a mapping.
struct Reading<'r, 's, 'p, 'a> {
    payload: &'a [u8],
    record: &'r mut Flat<'p, 'a>,
    screen: &'r mut Screen<'s>,
}

impl Mapper {
    pub(crate) fn new(mapping: &'static Mapping) -> Self {
        Self { mapping, paths: Paths::of(mapping) }
    }

    /// Decodes the one record in `text`, which begins at byte `base` of `payload`. It gives one event, or several where
    /// its call was made with one token and changed others: the `use` of the former comes first, under the record's id
    /// with `:use` after it, for ids are for single events.
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
        // The first one, told where the record speaks of a token at all.
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
            // One token, one event.
            || changed.iter().any(|changed| changed.token_id == base.event.token_id)
            // A caller without a token of its own leaves nothing to judge beside what it changed.
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
            // The other name that the record has may be that of the changed token.
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

    /// Where a field is looked for first: its name in the record's own format.
    fn first_path(&self, field: Field) -> &'static str {
        let mut first = "";
        if let Some((_, [source, ..])) = self.mapping.fields.iter().find(|(filled, _)| *filled == field) {
            source.paths(&mut |path| first = path);
        }
        first
    }
}

/// What one record tells: of the token it used, and of those it changed.
struct Events<'a> {
    used: Option<Event<'a>>,
    changed: Vec<Event<'a>>,
}

/// Tokens of one record that are told of; more are left out.
const CHANGED_MAX: usize = 64;

/// What no field took, without its secrets.
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

/// Whether a test holds: for a field that cannot be read none does.
fn holds((path, patterns): &Test, record: &Flat<'_, '_>) -> bool {
    record.fault(path).is_none()
        && record.texts(path).iter().any(|text| patterns.iter().any(|pattern| matches(pattern, text)))
}

impl Change {
    fn applies(&self, record: &Flat<'_, '_>) -> bool {
        self.when.iter().all(|test| holds(test, record)) && !self.unless.iter().any(|test| holds(test, record))
    }
}

impl Reinstatement {
    fn applies(&self, record: &Flat<'_, '_>) -> bool {
        self.when.iter().all(|test| holds(test, record))
    }
}

impl Skip {
    fn applies(&self, record: &Flat<'_, '_>) -> bool {
        self.when.iter().all(|test| holds(test, record)) && !self.unless.iter().any(|test| holds(test, record))
    }
}

/// An event in the making.
#[derive(Clone)]
struct Draft<'a> {
    event: Event<'a>,
    timed: bool,
    principal: Option<Cow<'a, str>>,
}

impl<'a> Draft<'a> {
    fn new() -> Self {
        Self { event: blank(), timed: false, principal: None }
    }

    fn has_token(&self) -> bool {
        !self.event.token_id.as_str().is_empty()
    }

    /// The use of the token, or of whatever its principal holds.
    fn used(self, screen: &mut Screen<'_>) -> Option<Event<'a>> {
        let mut event = self.event;
        if event.token_id.as_str().is_empty() {
            event.token_id = screen.token(self.principal?);
            event.token_type = TokenType::Other;
        }
        Some(event)
    }

    /// The changes of tokens, if the record says of which.
    fn changed(&self, change: &Change, reading: &mut Reading<'_, '_, '_, 'a>) -> Result<Vec<Event<'a>>, Fault> {
        let mut draft = self.clone();
        draft.event.kind = change.kind;
        draft.event.reuse_reported = change.reuse;
        if let Some(facts) = &mut draft.event.facts {
            facts.alias = None;
        }
        for (field, _) in change.fields {
            draft.clear(*field);
        }
        for row in change.fields {
            draft.fill(row, reading)?;
        }
        if change.renewed || change.concerns != Concerns::Token {
            let facts = facts(&mut draft.event);
            (facts.renewed, facts.concerns) = (change.renewed, change.concerns);
        }
        let Some(each) = change.each else {
            return Ok(if draft.has_token() { vec![draft.event] } else { Vec::new() });
        };
        let mut events = Vec::new();
        for (kind, token_type) in each.kinds {
            let ids: Vec<_> = reading.record.all_typed(each.array, kind, "id").take(CHANGED_MAX).cloned().collect();
            for text in ids {
                let at = offset_in(reading.payload, text.as_bytes());
                let token_id =
                    reading.screen.token_name(text).map_err(|reason| Fault { path: each.array, reason, at })?;
                events.push(Event { token_id, token_type: *token_type, ..draft.event.clone() });
            }
        }
        Ok(events)
    }

    /// Fills a field from the first of its sources that gives what it can take.
    fn fill(&mut self, (field, sources): &Row, reading: &mut Reading<'_, '_, '_, 'a>) -> Result<(), Fault> {
        if matches!(field, Field::Timestamp | Field::IssuedAt | Field::ExpiresAt) {
            return self.fill_time(*field, sources, reading);
        }
        // The first source that cannot be read, where none after it can.
        let mut unreadable = None;
        for source in *sources {
            let fault = source.fault(reading.record, *field);
            let Some(text) = source.text(reading.record).or(fault.map(|_| Cow::Borrowed(""))) else { continue };
            let at = offset_in(reading.payload, text.as_bytes());
            let set = match fault {
                Some((_, reason)) => Err(reason),
                None if *field == Field::Scopes => {
                    let Source::Path(path) = source else { continue };
                    let texts = reading.record.texts(path);
                    self.event.scopes.extend(scopes(texts).map(|scope| reading.screen.text(scope)));
                    Ok(())
                }
                None => self.set(*field, (source.last_path(), text), reading.screen),
            };
            match set {
                Ok(()) => {
                    // A role's parts say more than its name for the engine does.
                    if *field != Field::Role {
                        source.mark_used(reading.record);
                    }
                    if *field != Field::Scopes {
                        return Ok(());
                    }
                }
                Err(reason) => {
                    let path = fault.map_or_else(|| source.last_path(), |(path, _)| path);
                    if field.is_required() {
                        return Err(Fault { path, reason, at });
                    }
                    unreadable.get_or_insert((path, reason));
                    match field {
                        // What another source gives may be less than this one had told.
                        Field::Status => self.event.outcome_unclear = true,
                        // Another source may name another tenant.
                        Field::TenantId => {
                            self.event.tenant_id = Some(Cow::Borrowed(text::UNREADABLE_TENANT));
                            break;
                        }
                        _ => {}
                    }
                }
            }
        }
        if let Some((path, reason)) = unreadable {
            reading.screen.unreadable(path, reason);
        }
        Ok(())
    }

    /// Fills a time. Producers get the unit of a number wrong: where a time as text stands beside it that is more than a
    /// day off, the text counts.
    fn fill_time(
        &mut self,
        field: Field,
        sources: &'static [Source],
        reading: &mut Reading<'_, '_, '_, 'a>,
    ) -> Result<(), Fault> {
        let required = field.is_required();
        let (mut number, mut text, mut fault) = (None, None, None);
        for source in sources {
            let found = source.fault(reading.record, field);
            let Some(said) = source.text(reading.record).or(found.map(|_| Cow::Borrowed(""))) else { continue };
            let at = offset_in(reading.payload, said.as_bytes());
            let time = match found {
                Some((_, reason)) => Err(reason),
                // A zero stands for no time.
                None if !required && said == "0" => continue,
                None => time(&said),
            };
            match time {
                Ok(Time::Number(time)) => _ = number.get_or_insert((time, source)),
                Ok(Time::Text(time)) => _ = text.get_or_insert((time, source)),
                Err(reason) => {
                    let path = found.map_or_else(|| source.last_path(), |(path, _)| path);
                    fault.get_or_insert(Fault { path, reason, at });
                }
            }
        }
        let chosen = match (number, text) {
            (Some((number, _)), Some(text)) if (number.millis() - text.0.millis()).abs() > DAY_MS => Some(text),
            (number, text) => number.or(text),
        };
        let Some((time, source)) = chosen else {
            return match fault {
                Some(fault) if required => Err(fault),
                Some(Fault { path, reason, .. }) => {
                    reading.screen.unreadable(path, reason);
                    Ok(())
                }
                None => Ok(()),
            };
        };
        source.mark_used(reading.record);
        match field {
            Field::IssuedAt => self.event.issued_at = Some(time),
            Field::ExpiresAt => self.event.expires_at = Some(time),
            _ => (self.event.timestamp, self.timed) = (time, true),
        }
        Ok(())
    }
}

impl Field {
    /// Without it, or where it cannot be read, a record is no event.
    const fn is_required(self) -> bool {
        matches!(self, Self::EventId | Self::Timestamp | Self::TokenId)
    }

    /// How long a text may be, as in the native format; `None` for a field that is no text.
    const fn limit(self) -> Option<Limit> {
        Some(match self {
            Self::EventId => Limit::Whole(text::EVENT_ID_BYTES_MAX),
            Self::PrincipalId => Limit::Id(text::TOKEN_ID_BYTES_MAX),
            Self::FamilyId => Limit::Whole(text::ID_BYTES_MAX),
            Self::SessionId | Self::UserId | Self::AppId | Self::TenantId | Self::Realm | Self::Role => {
                Limit::Id(text::ID_BYTES_MAX)
            }
            Self::UserAgent => Limit::Text(text::USER_AGENT_BYTES_MAX),
            Self::Endpoint => Limit::Text(text::ENDPOINT_BYTES_MAX),
            Self::ClientFingerprint | Self::Method | Self::GeoCountry | Self::AsOrg => {
                Limit::Text(text::WORD_BYTES_MAX)
            }
            _ => return None,
        })
    }

    /// Whether unreadable characters cost the text nothing but themselves.
    const fn is_repaired(self) -> bool {
        matches!(self.limit(), Some(Limit::Id(_) | Limit::Text(_)))
    }
}

impl<'a> Draft<'a> {
    /// `path` is where the text was found.
    fn set(
        &mut self,
        field: Field,
        (path, text): (&'static str, Cow<'a, str>),
        screen: &mut Screen<'_>,
    ) -> Result<(), &'static str> {
        let text = match field.limit() {
            Some(limit) => screen.limited(path, text, limit)?,
            None => text,
        };
        let event = &mut self.event;
        match field {
            Field::EventId => event.event_id = text,
            Field::TokenId => event.token_id = screen.token_name(text)?,
            Field::TokenAlias => facts(event).alias = Some(screen.token_name(text)?),
            Field::Realm => facts(event).realm = Some(text),
            Field::Role => facts(event).role = Some(text),
            Field::OwnCall => facts(event).own_call = true,
            Field::ParentTokenId => event.parent_token_id = Some(screen.token_name(text)?),
            Field::PrincipalId => self.principal = Some(text),
            Field::TokenType => event.token_type = TokenType::parse(&text).ok_or("no such token type")?,
            Field::FamilyId => event.family_id = Some(text),
            Field::SessionId => event.session_id = Some(text),
            Field::UserId => event.user_id = Some(text),
            Field::AppId => event.app_id = Some(text),
            Field::TenantId => event.tenant_id = Some(text),
            Field::IpAddress => event.address = Scalar::Text(text).address()?,
            Field::UserAgent => event.user_agent = Some(text),
            Field::ClientFingerprint => event.client_fingerprint = Some(text),
            Field::Method => event.method = Some(text),
            Field::Endpoint => event.endpoint = Some(text),
            Field::Status if text == UNCLEAR => event.outcome_unclear = true,
            Field::Status => event.status = Scalar::Text(text).status()?,
            Field::BytesOut => event.bytes_out = Scalar::Text(text).integer(u64::MAX)?,
            Field::GeoCountry => geo(event).country = Some(text),
            Field::GeoLatitude => geo(event).latitude = Some(degrees(&text, 90.0)?),
            Field::GeoLongitude => geo(event).longitude = Some(degrees(&text, 180.0)?),
            Field::Asn => geo(event).asn = Some(number(text.trim_start_matches("AS")).ok_or("no network's number")?),
            Field::AsOrg => geo(event).as_org = Some(text),
            // Filled from all texts at once.
            Field::Scopes | Field::Timestamp | Field::IssuedAt | Field::ExpiresAt => {}
        }
        Ok(())
    }

    /// Forgets what the used token had there, so that nothing of it passes for the changed one's.
    fn clear(&mut self, field: Field) {
        let event = &mut self.event;
        match field {
            Field::TokenId => event.token_id = TokenId::default(),
            Field::TokenType => event.token_type = TokenType::default(),
            Field::FamilyId => event.family_id = None,
            Field::SessionId => event.session_id = None,
            Field::UserId => event.user_id = None,
            Field::AppId => event.app_id = None,
            Field::Realm => {
                if let Some(facts) = &mut event.facts {
                    facts.realm = None;
                }
            }
            Field::Role => {
                if let Some(facts) = &mut event.facts {
                    facts.role = None;
                }
            }
            Field::IssuedAt => event.issued_at = None,
            Field::ExpiresAt => event.expires_at = None,
            _ => {}
        }
    }
}

/// A time, by how it was written.
enum Time {
    Number(Timestamp),
    Text(Timestamp),
}

const DAY_MS: i64 = 86_400_000;

/// RFC 3339, or milliseconds since 1970. A number that is too small or too large for these is in another unit.
fn time(text: &str) -> Result<Time, &'static str> {
    // In milliseconds March 1973, and in seconds the year 5138.
    const MILLIS_MIN: f64 = 1e11;
    const MICROS_MIN: f64 = 1e14;
    const NANOS_MIN: f64 = 1e17;
    let Some(number) = number::<f64>(text).filter(|number| number.is_finite()) else {
        return time::parse(text).map(Time::Text);
    };
    if (0.0..MILLIS_MIN).contains(&number) {
        return Err(time::SECONDS);
    }
    let unit = if number >= NANOS_MIN {
        "looks like nanoseconds, where milliseconds are expected"
    } else if number >= MICROS_MIN {
        "looks like microseconds, where milliseconds are expected"
    } else {
        time::OUT_OF_RANGE
    };
    Timestamp::from_millis(number as i64).map(Time::Number).ok_or(unit)
}

/// What only a provider's own log says of `event`.
fn facts<'e, 'a>(event: &'e mut Event<'a>) -> &'e mut ProviderFacts<'a> {
    event.facts.get_or_insert_default()
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn degrees(text: &str, most: f64) -> Result<f32, &'static str> {
    let degrees = Scalar::Float(number(text).ok_or("no number of degrees")?).number(-most, most)?;
    Ok(degrees.unwrap_or_default() as f32)
}

fn geo<'e, 'a>(event: &'e mut Event<'a>) -> &'e mut EventGeo<'a> {
    event.geo.get_or_insert_default()
}

/// The scopes in `texts`, each of which may hold several.
fn scopes<'t, 'a>(texts: &'t [Cow<'a, str>]) -> impl Iterator<Item = Cow<'a, str>> + use<'t, 'a> {
    let separate = |c: char| c == ',' || c.is_ascii_whitespace();
    let split = texts.iter().flat_map(move |text| -> Vec<Cow<'a, str>> {
        match text {
            Cow::Borrowed(text) => text.split(separate).map(Cow::Borrowed).collect(),
            Cow::Owned(text) => text.split(separate).map(|scope| Cow::Owned(scope.to_owned())).collect(),
        }
    });
    split.filter(|scope| !scope.is_empty()).take(text::SCOPES_MAX).map(|scope| cut(scope, text::WORD_BYTES_MAX))
}

impl Source {
    /// The text that this source gives of a record.
    fn text<'a>(&self, record: &Flat<'_, 'a>) -> Option<Cow<'a, str>> {
        match *self {
            Self::Path(path) => record.text(path).cloned(),
            Self::Except(path, patterns) => {
                let is_other = |text: &Cow<'_, str>| patterns.iter().any(|pattern| matches(pattern, text));
                record.text(path).filter(|text| is_broken(text) || !is_other(text)).cloned()
            }
            Self::Head(path, after) => record.text(path).and_then(|text| slice(text, 0..text.rfind(after)?)),
            Self::Part(path, between, number) => record.text(path).and_then(|text| {
                let part = text.split(between).nth(number).filter(|part| !part.is_empty())?;
                let start = part.as_ptr().addr() - text.as_ptr().addr();
                slice(text, start..start + part.len())
            }),
            Self::Name(path, before) => record.text(path).and_then(|text| {
                let start = text.rfind(before)? + before.len_utf8();
                slice(text, start..text.len()).filter(|name| !name.is_empty() && is_lasting(name))
            }),
            Self::Named(path, before) => {
                let is_named = |text: &&Cow<'_, str>| text.rsplit_once(before).is_none_or(|(_, name)| is_lasting(name));
                record.text(path).filter(is_named).cloned()
            }
            Self::When(tests, source) => {
                tests.iter().all(|test| holds(test, record)).then(|| source.text(record)).flatten()
            }
            Self::Unless(tests, source) => {
                (!tests.iter().any(|test| holds(test, record))).then(|| source.text(record)).flatten()
            }
            Self::Joined(parts, between) => {
                let mut joined = String::new();
                for (at, part) in parts.iter().enumerate() {
                    joined.push_str(if at > 0 { between } else { "" });
                    joined.push_str(&part.text(record)?);
                }
                Some(Cow::Owned(joined))
            }
            Self::Words(path, words) => {
                let text = record.text(path)?;
                words.iter().find(|(pattern, _)| matches(pattern, text)).map(|(_, word)| Cow::Borrowed(*word))
            }
            Self::Typed { array, kind, member } => record.typed(array, kind, member).cloned(),
            Self::Text(text) => Some(Cow::Borrowed(text)),
        }
    }

    /// The first text that any of `sources` gives.
    fn first_of<'a>(sources: &[Self], record: &Flat<'_, 'a>) -> Option<Cow<'a, str>> {
        sources.iter().find_map(|source| source.text(record))
    }

    /// The path that makes this source unreadable for `field`, and why. An object in the place of a required field is no
    /// value. A text with unreadable characters is repaired where all of it is taken, and matches no pattern.
    fn fault(&self, record: &Flat<'_, '_>, field: Field) -> Option<(&'static str, &'static str)> {
        match self {
            Self::When(tests, _) if !tests.iter().all(|test| holds(test, record)) => return None,
            Self::Unless(tests, _) if tests.iter().any(|test| holds(test, record)) => return None,
            _ => {}
        }
        let repaired = field.is_repaired() && !self.is_of_words();
        let ignored = |reason| field.is_required() && reason == NESTED || repaired && reason == BAD_TEXT;
        let mut found = None;
        self.value_paths(&mut |path| {
            let fault = record.fault(path).filter(|reason| !ignored(*reason));
            found = found.or(fault.map(|reason| (path, reason)));
        });
        found
    }

    /// Whether it gives the word for a text instead of the text.
    fn is_of_words(&self) -> bool {
        match self {
            Self::Words(..) => true,
            Self::When(_, source) | Self::Unless(_, source) => source.is_of_words(),
            Self::Joined(parts, _) => parts.iter().any(Self::is_of_words),
            _ => false,
        }
    }

    /// The last of the paths that this source reads.
    fn last_path(&self) -> &'static str {
        let mut last = "";
        self.value_paths(&mut |path| last = path);
        last
    }

    /// Notes that a field holds what this source gave.
    fn mark_used(&self, record: &mut Flat<'_, '_>) {
        match self {
            Self::Path(path) | Self::Except(path, _) | Self::Named(path, _) => record.mark_used(path),
            Self::Joined(parts, _) => parts.iter().for_each(|part| part.mark_used(record)),
            Self::When(_, source) | Self::Unless(_, source) => source.mark_used(record),
            // Something of the text is lost, so it remains an attribute too.
            Self::Head(..) | Self::Part(..) | Self::Name(..) | Self::Words(..) | Self::Typed { .. } | Self::Text(_) => {
            }
        }
    }
}

/// A part of `text`, borrowed where the whole is.
fn slice<'a>(text: &Cow<'a, str>, part: std::ops::Range<usize>) -> Option<Cow<'a, str>> {
    Some(match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(part)?),
        Cow::Owned(text) => Cow::Owned(text.get(part)?.to_owned()),
    })
}
