//! How other systems' records map to token events: the words of the tables, one table a format.

mod cloudtrail;
mod ecs;
mod github;
mod ocsf;
mod okta;

use crate::event::Kind;
use crate::format::Format;

/// The table of `format`; the native one needs none.
pub fn of(format: Format) -> Option<&'static Mapping> {
    match format {
        Format::Native => None,
        Format::Cloudtrail => Some(&cloudtrail::MAPPING),
        Format::Ecs => Some(&ecs::MAPPING),
        Format::Github => Some(&github::MAPPING),
        Format::Ocsf => Some(&ocsf::MAPPING),
        Format::Okta => Some(&okta::MAPPING),
    }
}

/// One format. A record is read as a `use` of a token, and besides as a change of one where [`Self::changes`] says so.
#[derive(Debug)]
pub struct Mapping {
    /// Where each field comes from.
    pub fields: &'static [Row],
    /// What a record tells of tokens besides that one was used; the first that matches counts.
    pub changes: &'static [Change],
    /// Records that speak of nobody's token.
    pub skips: &'static [Skip],
    /// Bodies of requests and responses: they hold secrets, so nothing under these paths becomes an attribute.
    pub excluded: &'static [&'static str],
    /// Texts that stand for no id.
    pub absent: &'static [&'static str],
    /// Name of the first member of an object around an array of records, where records come so.
    pub batch: Option<&'static str>,
}

/// A field, and its sources: the first that gives a value it can take.
pub type Row = (Field, &'static [Source]);

/// What a table can fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    EventId,
    Timestamp,
    TokenId,
    /// Stands in for the token where a record names none: who the token speaks for.
    PrincipalId,
    TokenType,
    FamilyId,
    ParentTokenId,
    SessionId,
    UserId,
    AppId,
    TenantId,
    IpAddress,
    UserAgent,
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
pub enum Source {
    Path(&'static str),
    /// A path's text, unless it has one of these patterns: then it is another thing than the field holds.
    Except(&'static str, &'static [&'static str]),
    /// What follows the last such character in a path's text.
    Tail(&'static str, char),
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
}

/// A record whose call issued, refreshed or took away a token, or changed a credential. Failed calls change nothing.
#[derive(Debug)]
pub struct Change {
    pub kind: Kind,
    /// Each path's text must match one of its patterns.
    pub when: &'static [(&'static str, &'static [&'static str])],
    /// Fields that tell of the changed token, in place of those of the one that was used. Where this names a token, a
    /// record without its id is but a use; where it does not, the token is the used one, and must have an id too.
    pub fields: &'static [Row],
}

/// A record to pass over: one with `word` at `path`.
#[derive(Debug)]
pub struct Skip {
    pub path: &'static str,
    pub word: &'static str,
    pub reason: &'static str,
    /// It is read nevertheless where it changes a token.
    pub unless_change: bool,
}

/// Whether `text` has the form of `pattern`, in which each `*` stands for any text.
pub fn matches(pattern: &str, text: &str) -> bool {
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
    /// Calls `visit` with every path that this source reads.
    pub fn paths(&self, visit: &mut dyn FnMut(&'static str)) {
        match self {
            Self::Path(path) | Self::Except(path, _) | Self::Tail(path, _) | Self::Words(path, _) => visit(path),
            Self::Joined(parts, _) => parts.iter().for_each(|part| part.paths(visit)),
            Self::Typed { .. } | Self::Text(_) => {}
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
