//! Tables that map records to events: their columns and conditions.

use crate::event::{Concerns, Kind, TokenType};

/// One format. A record is read as a `use` of a token, and besides as a change of one where [`Self::changes`] says so.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Paths of which every record of this format has at least one: what has none is another record, or wraps one.
    pub marks: &'static [&'static str],
    /// An object with one of these and no mark may be a record of this format, if no record stands in it.
    pub weak_marks: &'static [&'static str],
    /// Paths that no other format has together: by these a stray record is told.
    pub looks: &'static [&'static str],
    /// Where each field comes from.
    pub fields: &'static [Row],
    /// What a record tells of tokens besides that one was used; the first that matches and names a token counts.
    pub changes: &'static [Change],
    /// Records after which something that was ended is alive again.
    pub reinstatements: &'static [Reinstatement],
    /// Records that speak of nobody's token.
    pub skips: &'static [Skip],
    /// Bodies of requests and responses: they hold secrets, so nothing under these paths becomes an attribute.
    pub excluded: &'static [&'static str],
    /// Paths at which an object may stand as JSON in a text.
    pub embedded: &'static [&'static str],
    /// Texts that stand for nothing.
    pub absent: &'static [&'static str],
    /// Paths under which two deliveries of one record differ. They count for no id that is made of the content.
    pub volatile: &'static [&'static str],
}

/// The status, in place of a number, of an outcome that leaves open whether the credential was accepted.
pub(crate) const UNCLEAR: &str = "unclear";

/// A field, and its sources: the first that gives a value it can take.
pub(crate) type Row = (Field, &'static [Source]);

/// One of the texts at a path matches one of the patterns.
pub(crate) type Test = (&'static str, &'static [&'static str]);

/// What a table can fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    EventId,
    Timestamp,
    TokenId,
    /// Another name of the token: the one that life-cycle events call it by.
    TokenAlias,
    /// Stands in for the token where a record names none: who the token speaks for.
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
    /// Any text: the provider made the call itself.
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

/// Where a field's text comes from. A path names a member by the names on the way to it with dots between; of an array
/// of texts it names the first, and all of them for [`Field::Scopes`].
#[derive(Debug)]
pub(crate) enum Source {
    Path(&'static str),
    /// A path's text, unless it has one of these patterns: then it is another thing than the field holds.
    Except(&'static str, &'static [&'static str]),
    /// What precedes the last such character in a path's text.
    Head(&'static str, char),
    /// One of the parts that such a character separates, from 0.
    Part(&'static str, char, usize),
    /// What follows the last such character in a path's text, if it is a name that stays: not one that a program makes for each session ([`is_lasting`](super::lasting::is_lasting)).
    Name(&'static str, char),
    /// The whole of a path's text, if [`Self::Name`] gives its tail.
    Named(&'static str, char),
    /// All of these with the text between.
    Joined(&'static [Source], &'static str),
    /// The word beside the first pattern that a path's text matches. The text itself stays an attribute.
    Words(&'static str, &'static [(&'static str, &'static str)]),
    /// A member of the first element of an array of objects that has such a `type`.
    Typed {
        array: &'static str,
        kind: &'static str,
        member: &'static str,
    },
    /// This very text.
    Text(&'static str),
    /// Another source where every test holds.
    When(&'static [Test], &'static Source),
    /// Another source where no test holds.
    Unless(&'static [Test], &'static Source),
}

/// A record whose call issued, refreshed or took away a token, or changed a credential.
#[derive(Debug)]
pub(crate) struct Change {
    pub kind: Kind,
    /// Every test must hold.
    pub when: &'static [Test],
    /// None may.
    pub unless: &'static [Test],
    /// The changed tokens are the elements of an array; one event each.
    pub each: Option<Each>,
    /// Fields that tell of the changed token, in place of those of the one that was used. Where this names a token, a
    /// record without its id is but a use; where it does not, the token is the used one, and must have an id too.
    pub fields: &'static [Row],
    /// What the change is one of.
    pub concerns: Concerns,
    /// The name of the token goes on with a new secret.
    pub renewed: bool,
    /// The provider reports the re-use of a refresh token.
    pub reuse: bool,
    /// It counts also where the call failed. Other failed calls change nothing.
    pub failed_too: bool,
}

/// The usual change, for tables to name what is different.
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
    pub array: &'static str,
    /// Types, and the tokens that they are. The member `id` names the token.
    pub kinds: &'static [(&'static str, TokenType)],
}

/// A record after which a token, or all of a user's or role's, that were ended are alive again.
#[derive(Debug)]
pub(crate) struct Reinstatement {
    pub when: &'static [Test],
    pub token: &'static [Source],
    pub user: &'static [Source],
    pub role: &'static [Source],
}

/// For tables to name what is alive again.
pub(crate) const REINSTATEMENT: Reinstatement = Reinstatement { when: &[], token: &[], user: &[], role: &[] };

/// A record to pass over.
#[derive(Debug)]
pub(crate) struct Skip {
    pub when: &'static [Test],
    /// It is read nevertheless where one of these holds.
    pub unless: &'static [Test],
    pub reason: &'static str,
    /// It is read nevertheless where it changes a token.
    pub unless_change: bool,
}

/// Whether `text` has the form of `pattern`, in which each `*` stands for any text.
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
    /// Calls `visit` with every path that this source takes a text from.
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

    /// The array of objects that this source looks into.
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
    fn stars_stand_for_any_text() {
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
