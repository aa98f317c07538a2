//! Templates with named values. Each value is escaped for its position.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

use crate::port::RevokeRequest;
use crate::verdict::Target;

/// Text with values as `{name}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(pub(super) Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Value(Value),
}

/// A value that a template can contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Id of the target.
    Id,
    /// `token`, `family` or `app`.
    Kind,
    /// `token_type_hint` of RFC 7009. A family is revoked by its refresh token.
    Hint,
    TokenId,
    FamilyId,
    AppId,
    UserId,
    TenantId,
    Reason,
    Key,
}

const VALUES: [(&str, Value); 10] = [
    ("id", Value::Id),
    ("kind", Value::Kind),
    ("hint", Value::Hint),
    ("token_id", Value::TokenId),
    ("family_id", Value::FamilyId),
    ("app_id", Value::AppId),
    ("user_id", Value::UserId),
    ("tenant_id", Value::TenantId),
    ("reason", Value::Reason),
    ("key", Value::Key),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    Url,
    Json,
    Form,
}

/// All characters except the unreserved ones of RFC 3986.
pub(super) const ESCAPED_IN_URLS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Template {
    /// `{word}` is a value. Any other brace is text, because JSON contains braces.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, after) = rest.split_at(at);
            literal.push_str(before);
            let word_end =
                after[1..].find(|c: char| !c.is_ascii_lowercase() && c != '_').map_or(after.len(), |e| e + 1);
            let word = &after[1..word_end];
            if word.is_empty() || !after[word_end..].starts_with('}') {
                literal.push('{');
                rest = &after[1..];
                continue;
            }
            let Some((_, value)) = VALUES.iter().find(|(name, _)| *name == word) else {
                let known: Vec<_> = VALUES.iter().map(|(name, _)| format!("{{{name}}}")).collect();
                return Err(format!(
                    "has `{{{word}}}`, which is not a known value; known values are {}",
                    known.join(", ")
                ));
            };
            parts.push(Part::Text(std::mem::take(&mut literal)));
            parts.push(Part::Value(*value));
            rest = &after[word_end + 1..];
        }
        literal.push_str(rest);
        parts.push(Part::Text(literal));
        Ok(Self(parts))
    }

    /// The URL with example values, for checks before a request. The host must not depend on values.
    pub(super) fn example(&self) -> Result<Url, String> {
        let filled = |value: &str| {
            let text: String = self
                .0
                .iter()
                .map(|part| match part {
                    Part::Text(text) => text.as_str(),
                    Part::Value(_) => value,
                })
                .collect();
            Url::parse(&text).map_err(|error| format!("is not a URL: {error}"))
        };
        let (one, other) = (filled("a")?, filled("b")?);
        if one[..url::Position::BeforePath] != other[..url::Position::BeforePath] {
            return Err("must have a fixed host: values are allowed only in path and query".to_owned());
        }
        Ok(one)
    }

    /// An empty value is an error, because an empty id would change the request. For example, it could delete a whole
    /// collection.
    pub(super) fn fill(&self, asked: &RevokeRequest<'_>, escape: Escape) -> Result<String, String> {
        let mut filled = String::new();
        for part in &self.0 {
            let value = match part {
                Part::Text(text) => {
                    filled.push_str(text);
                    continue;
                }
                Part::Value(value) => value,
            };
            let text = value.of(asked);
            let name = VALUES.iter().find(|(_, known)| known == value).map_or("", |(name, _)| name);
            if text.is_empty() {
                return Err(format!("the request requires `{name}`, which the incident does not have"));
            }
            match escape {
                // A dot segment is resolved even if it is written as %2E.
                Escape::Url if text == "." || text == ".." => {
                    return Err(format!("`{name}` is `{text}`, which is not allowed in a URL"));
                }
                Escape::Url => filled.extend(utf8_percent_encode(text, ESCAPED_IN_URLS)),
                Escape::Form => filled.extend(url::form_urlencoded::byte_serialize(text.as_bytes())),
                Escape::Json => {
                    let quoted = serde_json::Value::from(text).to_string();
                    filled.push_str(&quoted[1..quoted.len() - 1]);
                }
            }
        }
        Ok(filled)
    }
}

impl Value {
    fn of<'a>(self, asked: &RevokeRequest<'a>) -> &'a str {
        match self {
            Self::Id => asked.target.id(),
            Self::Kind => asked.target.kind(),
            Self::Hint if matches!(asked.target, Target::Family(_)) => "refresh_token",
            Self::Hint => "access_token",
            Self::TokenId => asked.token_id,
            Self::FamilyId => asked.family_id,
            Self::AppId => asked.app_id,
            Self::UserId => asked.user_id,
            Self::TenantId => asked.tenant_id,
            Self::Reason => asked.reason,
            Self::Key => asked.key,
        }
    }
}

/// A request for a test.
#[cfg(test)]
pub(super) fn asked<'a>(target: &'a Target, id: &'a str) -> RevokeRequest<'a> {
    RevokeRequest {
        target,
        tenant_id: "acme",
        user_id: id,
        app_id: "crm",
        family_id: "",
        token_id: id,
        reason: "two \"holders\"",
        key: "k-1",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(template: &str, id: &str, escape: Escape) -> Result<String, String> {
        let target = Target::Token(id.to_owned());
        Template::parse(template)?.fill(&asked(&target, id), escape)
    }

    #[test]
    fn values_are_escaped_for_their_position() {
        let id = "a/../b?c=d&e=f#g h{id}\"\\é";
        assert_eq!(
            fill("https://h/t/{id}?u={user_id}", id, Escape::Url).as_deref(),
            Ok(
                "https://h/t/a%2F..%2Fb%3Fc%3Dd%26e%3Df%23g%20h%7Bid%7D%22%5C%C3%A9?u=a%2F..%2Fb%3Fc%3Dd%26e%3Df%23g%20h%7Bid%7D%22%5C%C3%A9"
            )
        );
        assert_eq!(fill("token={id}&a={app_id}", "a&b=c d", Escape::Form).as_deref(), Ok("token=a%26b%3Dc+d&a=crm"));
        assert_eq!(
            fill(r#"{"id":"{id}","why":"{reason}"}"#, "a\"}\n", Escape::Json).as_deref(),
            Ok(r#"{"id":"a\"}\n","why":"two \"holders\""}"#)
        );
    }

    #[test]
    fn id_that_changes_the_request_is_rejected() {
        assert!(fill("https://h/t/{family_id}", "x", Escape::Url).is_err_and(|error| error.contains("`family_id`")));
        assert!(fill("https://h/t/{id}", "", Escape::Url).is_err());
        for dots in [".", ".."] {
            assert!(fill("https://h/t/{id}", dots, Escape::Url).is_err(), "{dots}");
        }
        assert!(Template::parse("https://h/{tokenid}").is_err_and(|error| error.contains("{token_id}")));
    }

    proptest! {
        #[test]
        fn url_path_keeps_its_shape_for_any_id(id in "\\PC{1,40}|[./%?#\\\\]{1,6}") {
            if let Ok(filled) = fill("https://h.example/tokens/{id}/sessions", &id, Escape::Url) {
                let url = Url::parse(&filled).expect("a URL");
                let segments: Vec<_> = url.path_segments().expect("segments").collect();
                prop_assert_eq!(segments.len(), 3);
                prop_assert_eq!((segments[0], segments[2]), ("tokens", "sessions"));
                prop_assert_eq!(
                    percent_encoding::percent_decode_str(segments[1]).decode_utf8().expect("UTF-8"), id.as_str()
                );
                prop_assert_eq!((url.host_str(), url.query(), url.fragment()), (Some("h.example"), None, None));
            } else {
                prop_assert!(id == "." || id == "..");
            }
        }

        #[test]
        fn json_body_keeps_its_shape_for_any_id(id in ".{1,40}") {
            let filled = fill(r#"{"token":"{id}","app":"{app_id}"}"#, &id, Escape::Json).expect("it is filled");
            let read: serde_json::Value = serde_json::from_str(&filled).expect("JSON");
            prop_assert_eq!(read, serde_json::json!({ "token": id, "app": "crm" }));
        }
    }
}
