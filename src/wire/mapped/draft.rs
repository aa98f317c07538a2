//! An event under construction, filled field by field from the sources of a table.

use std::borrow::Cow;
use std::str::FromStr;

use crate::event::{Concerns, Event, EventGeo, ProviderFacts, Timestamp, TokenType};
use crate::millis::DAY_MS;
use crate::token::TokenId;
use crate::wire::error::offset_in;
use crate::wire::flat::Flat;
use crate::wire::mapping::table::{Change, Field, Row, Source, UNCLEAR};
use crate::wire::scalar::Scalar;
use crate::wire::text::{self, Screen, cut};
use crate::wire::time;

/// Maximum number of changed tokens of one record; further ones are left out.
const CHANGED_MAX: usize = 64;

/// Why a record is no event: a required field is missing or unreadable. Any other unreadable field is repaired
/// ([`Limit`](text::Limit)) or counts as absent, and is named in the event's attributes. The sent value of an absent
/// one stays among the attributes.
pub(super) struct Fault {
    pub(super) path: &'static str,
    pub(super) reason: &'static str,
    pub(super) at: Option<usize>,
}

/// One record while its mapping is applied.
pub(super) struct Reading<'r, 's, 'p, 'a> {
    pub(super) payload: &'a [u8],
    pub(super) record: &'r mut Flat<'p, 'a>,
    pub(super) screen: &'r mut Screen<'s>,
}

/// An event under construction.
#[derive(Clone)]
pub(super) struct Draft<'a> {
    pub(super) event: Event<'a>,
    pub(super) timed: bool,
    principal: Option<Cow<'a, str>>,
}

impl<'a> Draft<'a> {
    pub(super) fn new() -> Self {
        Self { event: Event::default(), timed: false, principal: None }
    }

    pub(super) fn has_token(&self) -> bool {
        !self.event.token_id.as_str().is_empty()
    }

    /// The use of the token, or of its principal.
    pub(super) fn used(self, screen: &mut Screen<'_>) -> Option<Event<'a>> {
        let mut event = self.event;
        if event.token_id.as_str().is_empty() {
            event.token_id = screen.token(self.principal?);
            event.token_type = TokenType::Other;
        }
        Some(event)
    }

    /// The changes of tokens, if the record names the tokens.
    pub(super) fn changed(
        &self,
        change: &Change,
        reading: &mut Reading<'_, '_, '_, 'a>,
    ) -> Result<Vec<Event<'a>>, Fault> {
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

    /// Fills a field from its first source with an acceptable value.
    pub(super) fn fill(&mut self, (field, sources): &Row, reading: &mut Reading<'_, '_, '_, 'a>) -> Result<(), Fault> {
        if matches!(field, Field::Timestamp | Field::IssuedAt | Field::ExpiresAt) {
            return self.fill_time(*field, sources, reading);
        }
        // The first unreadable source, reported if no later source has a value.
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
                    self.event.scopes.extend(scopes(texts).map(|scope| reading.screen.scope(scope)));
                    Ok(())
                }
                None => self.set(*field, (source.last_path(), text), reading.screen),
            };
            match set {
                Ok(()) => {
                    // The engine reads the parts of a role too, so they stay attributes.
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
                        // Another source may be less precise.
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

    /// Fills a time. Producers send numbers in the wrong unit. If a time as text beside the number differs by more than
    /// a day, the text counts.
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
                // A zero means no time.
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

impl<'a> Draft<'a> {
    /// `path` is the path of the text.
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

    /// Removes the value of the used token, so that it is not attributed to the changed one.
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

/// A time, by its written form.
enum Time {
    Number(Timestamp),
    Text(Timestamp),
}

/// RFC 3339, or milliseconds since 1970. A number that is too small or too large is in another unit.
fn time(text: &str) -> Result<Time, &'static str> {
    // March 1973 in milliseconds, and the year 5138 in seconds.
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

/// The facts of `event` that only provider logs set.
pub(super) fn facts<'e, 'a>(event: &'e mut Event<'a>) -> &'e mut ProviderFacts<'a> {
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

/// The scopes in `texts`; each text may contain several.
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
