//! Reads other systems' records by their tables in [`mapping`](super::mapping).

use std::borrow::Cow;
use std::str::FromStr;

use super::Decoded;
use super::error::{DecodeError, TWICE, offset_in};
use super::flat::{Flat, NESTED, Paths};
use super::mapping::{Change, Field, Mapping, Row, Source, matches};
use super::repair::BAD_TEXT;
use super::scalar::{STATUS_MAX, Scalar};
use super::text::{self, Screen, blank, cut};
use crate::event::{Event, EventGeo, Timestamp, TokenType};
use crate::token::TokenId;

/// A mapping, made ready.
#[derive(Debug)]
pub struct Mapper {
    mapping: &'static Mapping,
    paths: Paths,
}

/// Why a record is no event: what it cannot be without is missing or cannot be read. Any other field that cannot be read
/// counts as absent, is named in the event's attributes, and what was sent for it stays there.
struct Fault {
    path: &'static str,
    reason: &'static str,
    at: Option<usize>,
}

impl Mapper {
    pub fn new(mapping: &'static Mapping) -> Self {
        Self { mapping, paths: Paths::of(mapping) }
    }

    /// Name of the first member of an object around an array of records.
    pub fn batch(&self) -> Option<&'static str> {
        self.mapping.batch
    }

    /// Decodes the one record in `text`, which begins at byte `base` of `payload`. It gives one event, or two where
    /// its call was made with one token and changed another: the `use` of the former comes first, under the record's
    /// id with `:use` after it, for ids are for single events.
    pub fn decode<'a>(
        &self,
        payload: &'a [u8],
        base: usize,
        text: &'a str,
        screen: &mut Screen<'_>,
        take: &mut dyn FnMut(Result<Decoded<'a>, DecodeError>),
    ) {
        let mut json = serde_json::Deserializer::from_str(text);
        let mut record = match Flat::read(&self.paths, self.mapping.absent, &mut json) {
            Ok(record) => record,
            Err(error) => return take(Err(DecodeError::json(payload, base, text, &error, None))),
        };
        if record.is_too_deep() {
            screen.unreadable("attrs", text::TOO_DEEP);
        }
        let skip = self.mapping.skips.iter().find(|skip| {
            record.fault(skip.path).is_none() && record.text(skip.path).is_some_and(|word| word == skip.word)
        });
        if let Some(skip) = skip.filter(|skip| !skip.unless_change) {
            return take(Ok(Decoded::Skipped(skip.reason)));
        }
        let read = self.read(payload, &mut record, screen);
        let Events { used, changed } = match read {
            Ok(events) => events,
            Err(Fault { path, reason, at }) => {
                return take(Err(DecodeError::new(payload, at.unwrap_or(base), path, reason)));
            }
        };
        let used = used.filter(|_| skip.is_none());
        let attrs = attrs(record, screen);
        match (used, changed) {
            (None, None) => take(Ok(Decoded::Skipped(skip.map_or("no token and no principal", |skip| skip.reason)))),
            (Some(event), None) | (None, Some(event)) => take(Ok(Decoded::Event(Event { attrs, ..event }))),
            (Some(used), Some(changed)) => {
                let event_id = Cow::Owned(format!("{}:use", used.event_id));
                take(Ok(Decoded::Event(Event { event_id, attrs: attrs.clone(), ..used })));
                take(Ok(Decoded::Event(Event { attrs, ..changed })));
            }
        }
    }

    fn read<'a>(
        &self,
        payload: &[u8],
        record: &mut Flat<'_, 'a>,
        screen: &mut Screen<'_>,
    ) -> Result<Events<'a>, Fault> {
        let mut base = Draft::new();
        for row in self.mapping.fields {
            base.fill(row, payload, record, screen)?;
        }
        for (field, filled) in [(Field::EventId, !base.event.event_id.is_empty()), (Field::Timestamp, base.timed)] {
            if !filled {
                return Err(Fault { path: self.first_path(field), reason: "missing", at: None });
            }
        }
        let failed = base.event.status.is_some_and(|status| status >= 400);
        let change = self.mapping.changes.iter().find(|change| !failed && change.applies(record));
        let changed = match change {
            Some(change) => base.changed(change, payload, record, screen)?,
            None => None,
        };
        let used = match &changed {
            // One token, one event.
            Some(changed) if changed.token_id == base.event.token_id => None,
            // A caller without a token of its own leaves nothing to judge beside what it changed.
            Some(_) if !base.has_token() => None,
            _ => base.used(screen),
        };
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

/// What one record tells: of the token it used, and of one it changed.
struct Events<'a> {
    used: Option<Event<'a>>,
    changed: Option<Event<'a>>,
}

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

impl Change {
    fn applies(&self, record: &Flat<'_, '_>) -> bool {
        self.when.iter().all(|(path, patterns)| {
            record.fault(path).is_none()
                && record.texts(path).iter().any(|text| patterns.iter().any(|pattern| matches(pattern, text)))
        })
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

    /// The change of a token, if the record says which.
    fn changed(
        &self,
        change: &Change,
        payload: &[u8],
        record: &mut Flat<'_, 'a>,
        screen: &mut Screen<'_>,
    ) -> Result<Option<Event<'a>>, Fault> {
        let mut draft = self.clone();
        draft.event.kind = change.kind;
        for (field, _) in change.fields {
            draft.clear(*field);
        }
        for row in change.fields {
            draft.fill(row, payload, record, screen)?;
        }
        Ok(draft.has_token().then_some(draft.event))
    }

    /// Fills a field from the first of its sources that gives what it can take.
    fn fill(
        &mut self,
        (field, sources): &Row,
        payload: &[u8],
        record: &mut Flat<'_, 'a>,
        screen: &mut Screen<'_>,
    ) -> Result<(), Fault> {
        let required = matches!(field, Field::EventId | Field::Timestamp | Field::TokenId);
        // The first source that cannot be read, where none after it can.
        let mut unreadable = None;
        for source in *sources {
            let fault = source.fault(record, required);
            let Some(text) = source.text(record).or(fault.map(|_| Cow::Borrowed(""))) else { continue };
            let at = offset_in(payload, text.as_bytes());
            let set = match fault {
                Some((_, reason)) => Err(reason),
                None if *field == Field::Scopes => {
                    let Source::Path(path) = source else { continue };
                    self.event.scopes.extend(scopes(record.texts(path)).map(|scope| screen.text(scope)));
                    Ok(())
                }
                None => self.set(*field, text, screen),
            };
            match set {
                Ok(()) => {
                    source.mark_used(record);
                    if *field != Field::Scopes {
                        return Ok(());
                    }
                }
                Err(reason) => {
                    let path = fault.map_or_else(|| source.last_path(), |(path, _)| path);
                    if required {
                        return Err(Fault { path, reason, at });
                    }
                    unreadable.get_or_insert((path, reason));
                }
            }
        }
        if let Some((path, reason)) = unreadable {
            screen.unreadable(path, reason);
        }
        Ok(())
    }
}

impl<'a> Draft<'a> {
    fn set(&mut self, field: Field, text: Cow<'a, str>, screen: &mut Screen<'_>) -> Result<(), &'static str> {
        let event = &mut self.event;
        match field {
            Field::EventId => event.event_id = id(text, text::EVENT_ID_BYTES_MAX, screen)?,
            Field::Timestamp => {
                event.timestamp = timestamp(text)?;
                self.timed = true;
            }
            Field::TokenId => event.token_id = token(text, screen)?,
            Field::ParentTokenId => event.parent_token_id = Some(token(text, screen)?),
            Field::PrincipalId => self.principal = Some(id(text, text::TOKEN_ID_BYTES_MAX, screen)?),
            Field::TokenType => event.token_type = TokenType::parse(&text).ok_or("no such token type")?,
            Field::FamilyId => event.family_id = Some(id(text, text::ID_BYTES_MAX, screen)?),
            Field::SessionId => event.session_id = Some(id(text, text::ID_BYTES_MAX, screen)?),
            Field::UserId => event.user_id = Some(id(text, text::ID_BYTES_MAX, screen)?),
            Field::AppId => event.app_id = Some(id(text, text::ID_BYTES_MAX, screen)?),
            Field::TenantId => event.tenant_id = Some(id(text, text::ID_BYTES_MAX, screen)?),
            Field::IpAddress => event.address = Scalar::Text(text).address()?,
            Field::UserAgent => event.user_agent = Some(cut(screen.text(text), text::USER_AGENT_BYTES_MAX)),
            Field::Method => event.method = Some(cut(screen.text(text), text::WORD_BYTES_MAX)),
            Field::Endpoint => event.endpoint = Some(cut(screen.text(text), text::ENDPOINT_BYTES_MAX)),
            Field::Status => event.status = Scalar::Text(text).integer(STATUS_MAX)?.map(|status| status as u16),
            Field::BytesOut => event.bytes_out = Scalar::Text(text).integer(u64::MAX)?,
            Field::IssuedAt => event.issued_at = Some(timestamp(text)?),
            Field::ExpiresAt => event.expires_at = Some(timestamp(text)?),
            Field::GeoCountry => geo(event).country = Some(cut(screen.text(text), text::WORD_BYTES_MAX)),
            Field::GeoLatitude => geo(event).latitude = Some(degrees(&text, 90.0)?),
            Field::GeoLongitude => geo(event).longitude = Some(degrees(&text, 180.0)?),
            Field::Asn => geo(event).asn = Some(number(text.trim_start_matches("AS")).ok_or("no network's number")?),
            Field::AsOrg => geo(event).as_org = Some(cut(screen.text(text), text::WORD_BYTES_MAX)),
            // Filled from all its texts at once.
            Field::Scopes => {}
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
            Field::IssuedAt => event.issued_at = None,
            Field::ExpiresAt => event.expires_at = None,
            _ => {}
        }
    }
}

/// A text that must be kept whole.
fn id<'a>(text: Cow<'a, str>, bytes_max: usize, screen: &mut Screen<'_>) -> Result<Cow<'a, str>, &'static str> {
    if text.contains('\0') {
        return Err(BAD_TEXT);
    }
    let text = screen.text(text);
    if text.len() > bytes_max { Err("too long") } else { Ok(text) }
}

fn token<'a>(text: Cow<'a, str>, screen: &mut Screen<'_>) -> Result<TokenId<'a>, &'static str> {
    let text = id(text, text::TOKEN_ID_BYTES_MAX, screen)?;
    Ok(screen.token(text))
}

/// RFC 3339, or milliseconds since the epoch.
fn timestamp(text: Cow<'_, str>) -> Result<Timestamp, &'static str> {
    let time = match number(&text) {
        Some(millis) => Scalar::Unsigned(millis),
        None => Scalar::Text(text),
    };
    time.timestamp()?.ok_or("empty")
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
                record.text(path).filter(|text| !patterns.iter().any(|pattern| matches(pattern, text))).cloned()
            }
            Self::Tail(path, before) => {
                let text = record.text(path)?;
                let start = text.rfind(before).map_or(0, |at| at + before.len_utf8());
                Some(match text {
                    Cow::Borrowed(text) => Cow::Borrowed(text.get(start..)?),
                    Cow::Owned(text) => Cow::Owned(text.get(start..)?.to_owned()),
                })
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

    /// The path that makes this source unreadable, and why. A `required` field may be given twice with one value, and
    /// an object in its place is no value.
    fn fault(&self, record: &Flat<'_, '_>, required: bool) -> Option<(&'static str, &'static str)> {
        let mut found = None;
        self.paths(&mut |path| {
            let same = || record.texts(path).windows(2).all(|pair| pair.first() == pair.last());
            let ignored = |reason| required && (reason == NESTED || reason == TWICE && same());
            let fault = record.fault(path).filter(|reason| !ignored(*reason));
            found = found.or(fault.map(|reason| (path, reason)));
        });
        found
    }

    /// The last of the paths that this source reads.
    fn last_path(&self) -> &'static str {
        let mut last = "";
        self.paths(&mut |path| last = path);
        last
    }

    /// Notes that a field holds what this source gave.
    fn mark_used(&self, record: &mut Flat<'_, '_>) {
        match self {
            Self::Path(path) | Self::Except(path, _) => record.mark_used(path),
            Self::Joined(parts, _) => parts.iter().for_each(|part| part.mark_used(record)),
            // Something of the text is lost, so it remains an attribute too.
            Self::Tail(..) | Self::Words(..) | Self::Typed { .. } | Self::Text(_) => {}
        }
    }
}
