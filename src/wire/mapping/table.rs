//! Types of the tables that map records to events: fields, sources and conditions.

use crate::event::{Concerns, Kind, TokenType};

/// The table of one format. A record is read as a `use` of a token, and also as a change of a token if one of
/// [`Self::changes`] applies.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Every record of this format has at least one of these paths. An object without any is another record, or an
    /// envelope.
    pub(crate) marks: &'static [&'static str],
    /// An object with one of these and no mark may be a record of this format, if it contains no record.
    pub(crate) weak_marks: &'static [&'static str],
    /// Paths that no other format has together, to name the format of a record in an error.
    pub(crate) looks: &'static [&'static str],
    /// The sources of each field.
    pub(crate) fields: &'static [Row],
    /// Changes of tokens; the first that applies and names a token counts.
    pub(crate) changes: &'static [Change],
    /// Records that make an ended token valid again.
    pub(crate) reinstatements: &'static [Reinstatement],
    /// Records that concern no token.
    pub(crate) skips: &'static [Skip],
    /// Bodies of requests and responses. They contain secrets, so nothing under these paths becomes an attribute.
    pub(crate) excluded: &'static [&'static str],
    /// Paths whose text may be an object as JSON.
    pub(crate) embedded: &'static [&'static str],
    /// Texts that mean absence.
    pub(crate) absent: &'static [&'static str],
    /// Paths that differ between two deliveries of one record. They do not count for an id made from the contents.
    pub(crate) volatile: &'static [&'static str],
}

/// A status for an outcome that does not show whether the credential was accepted.
pub(crate) const UNCLEAR: &str = "unclear";

/// A field and its sources; the first source with an acceptable value counts.
pub(crate) type Row = (Field, &'static [Source]);

/// Holds if one of the texts at a path matches one of the patterns.
pub(crate) type Test = (&'static str, &'static [&'static str]);

/// The fields of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    EventId,
    Timestamp,
    TokenId,
    /// Another name of the token, used by life-cycle events.
    TokenAlias,
    /// The principal that the token represents; the token's id if a record names no token.
    PrincipalId,
    TokenType,
    FamilyId,
    ParentTokenId,
    SessionId,
    UserId,
    AppId,
    TenantId,
    /// The part of the tenant in which the token was used or lost its access.
    Realm,
    IpAddress,
    /// The role whose session the token is.
    Role,
    /// Any text means that the provider made the call.
    OwnCall,
    UserAgent,
    ClientFingerprint,
    Method,
    Endpoint,
    Status,
    BytesOut,
    /// Separated by commas or spaces, or an array.
    Scopes,
    IssuedAt,
    ExpiresAt,
    GeoCountry,
    GeoLatitude,
    GeoLongitude,
    Asn,
    AsOrg,
}

/// Source of a field's text. A path consists of the names of nested members with dots between. For an array of texts it
/// gives the first, and for [`Field::Scopes`] all of them.
#[derive(Debug)]
pub(crate) enum Source {
    Path(&'static str),
    /// A path's text, unless it matches one of these patterns.
    Except(&'static str, &'static [&'static str]),
    /// The part of a path's text before the last such character.
    Head(&'static str, char),
    /// One of the parts separated by the character, from 0.
    Part(&'static str, char, usize),
    /// The part of a path's text after the last such character, if it is a stable name
    /// ([`is_lasting`](super::lasting::is_lasting)).
    Name(&'static str, char),
    /// The whole of a path's text, if [`Self::Name`] gives a name.
    Named(&'static str, char),
    /// All of these sources, joined by the text.
    Joined(&'static [Source], &'static str),
    /// The word of the first pattern that a path's text matches. The text stays an attribute.
    Words(&'static str, &'static [(&'static str, &'static str)]),
    /// A member of the first element with this `type` in an array of objects.
    Typed {
        array: &'static str,
        kind: &'static str,
        member: &'static str,
    },
    /// A constant text.
    Text(&'static str),
    /// Another source, if all tests hold.
    When(&'static [Test], &'static Source),
    /// Another source, if no test holds.
    Unless(&'static [Test], &'static Source),
}

/// A record whose call issued, refreshed or revoked a token, or changed a credential.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) kind: Kind,
    /// All of these tests must hold.
    pub(crate) when: &'static [Test],
    /// None of these tests may hold.
    pub(crate) unless: &'static [Test],
    /// The changed tokens are the elements of an array; each gives one event.
    pub(crate) each: Option<Each>,
    /// Sources for the changed token, instead of those for the used one. If this names the token, a record without its
    /// id is only a use. Otherwise the used token is the changed one, and must have an id.
    pub(crate) fields: &'static [Row],
    /// The tokens that the change affects.
    pub(crate) concerns: Concerns,
    /// The token keeps its name and gets a new secret.
    pub(crate) renewed: bool,
    /// The provider reports the re-use of a refresh token.
    pub(crate) reuse: bool,
    /// The change counts even if the call failed. Other failed calls change nothing.
    pub(crate) failed_too: bool,
}

/// Default values of a change.
pub(crate) const CHANGE: Change = Change {
    kind: Kind::Use,
    when: &[],
    unless: &[],
    each: None,
    fields: &[],
    concerns: Concerns::Token,
    renewed: false,
    reuse: false,
    failed_too: false,
};

/// Elements of an array of objects, by their `type`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Each {
    pub(crate) array: &'static str,
    /// Types, and the kinds of their tokens. The member `id` names the token.
    pub(crate) kinds: &'static [(&'static str, TokenType)],
}

/// A record after which an ended token, or all of a user's or role's, are valid again.
#[derive(Debug)]
pub(crate) struct Reinstatement {
    pub(crate) when: &'static [Test],
    pub(crate) token: &'static [Source],
    pub(crate) user: &'static [Source],
    pub(crate) role: &'static [Source],
}

/// Default values of a reinstatement.
pub(crate) const REINSTATEMENT: Reinstatement = Reinstatement { when: &[], token: &[], user: &[], role: &[] };

/// A record that is skipped.
#[derive(Debug)]
pub(crate) struct Skip {
    pub(crate) when: &'static [Test],
    /// It is read if one of these holds.
    pub(crate) unless: &'static [Test],
    pub(crate) reason: &'static str,
    /// It is read if it changes a token.
    pub(crate) unless_change: bool,
}

/// Whether `text` matches `pattern`, in which each `*` matches any text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, pattern)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(head) else { return false };
    let (middle, tail) = pattern.rsplit_once('*').unwrap_or(("", pattern));
    for part in middle.split('*') {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(tail)
}

impl Source {
    /// Calls `visit` with every path whose text this source returns.
    pub(crate) fn value_paths(&self, visit: &mut dyn FnMut(&'static str)) {
        match self {
            Self::Path(path)
            | Self::Except(path, _)
            | Self::Head(path, _)
            | Self::Part(path, ..)
            | Self::Name(path, _)
            | Self::Named(path, _)
            | Self::Words(path, _) => visit(path),
            Self::Joined(parts, _) => parts.iter().for_each(|part| part.value_paths(visit)),
            Self::When(_, source) | Self::Unless(_, source) => source.value_paths(visit),
            Self::Typed { .. } | Self::Text(_) => {}
        }
    }

    /// Calls `visit` with every path that this source reads.
    pub(crate) fn paths(&self, visit: &mut dyn FnMut(&'static str)) {
        match self {
            Self::Joined(parts, _) => parts.iter().for_each(|part| part.paths(visit)),
            Self::When(tests, source) | Self::Unless(tests, source) => {
                tests.iter().for_each(|(path, _)| visit(path));
                source.paths(visit);
            }
            _ => self.value_paths(visit),
        }
    }

    /// The array of objects that this source reads.
    pub(crate) fn array(&self) -> Option<&'static str> {
        match self {
            Self::Typed { array, .. } => Some(array),
            Self::When(_, source) | Self::Unless(_, source) => source.array(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn pattern_star_matches_any_text() {
        for (pattern, text, expected) in [
            ("GetSessionToken", "GetSessionToken", true),
            ("GetSessionToken", "GetSessionTokens", false),
            ("AssumeRole*", "AssumeRoleWithSAML", true),
            ("AssumeRole*", "assumeRole", false),
            ("*NotFound*", "ResourceNotFoundException", true),
            ("app.oauth2.*token.grant.*", "app.oauth2.as.token.grant.access_token", true),
            ("app.oauth2.*token.grant.*", "app.oauth2.token.grant.id_token", true),
            ("app.oauth2.*token.grant.*", "app.oauth2.token.revoke", false),
            ("a*a", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
