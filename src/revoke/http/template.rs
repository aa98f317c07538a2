//! Templates with named values. Each value is escaped for its position.

use std::borrow::Cow;
use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

use crate::outgoing::{Piece, pieces, unknown_name};
use crate::port::RevokeRequest;
use crate::verdict::Target;

/// Text with values as `{name}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A value of the configuration.
    Fixed(String),
    Value(Value),
    /// A name from an ARN, which must be of this AWS account.
    OfAccount(Value, String),
}

/// The incident whose values fill a template.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filling<'a> {
    pub(super) asked: &'a RevokeRequest<'a>,
    /// Milliseconds since the epoch, wall clock.
    pub(super) now: i64,
}

/// A value that a template can contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Id of the target.
    Id,
    /// `token` or `family`.
    Kind,
    /// `token_type_hint` of RFC 7009. A family is revoked by its refresh token.
    Hint,
    TokenId,
    FamilyId,
    /// The session of the token, else the family.
    SessionId,
    AppId,
    UserId,
    TenantId,
    Reason,
    Key,
    /// Time of the request, RFC 3339.
    Now,
    /// Name of the IAM user, from the ARN in `user_id`.
    IamUser,
    /// Name of the IAM role, from the ARN in `family_id`.
    IamRole,
}

const VALUES: [(&str, Value); 14] = [
    ("id", Value::Id),
    ("kind", Value::Kind),
    ("hint", Value::Hint),
    ("token_id", Value::TokenId),
    ("family_id", Value::FamilyId),
    ("session_id", Value::SessionId),
    ("app_id", Value::AppId),
    ("user_id", Value::UserId),
    ("tenant_id", Value::TenantId),
    ("reason", Value::Reason),
    ("key", Value::Key),
    ("now", Value::Now),
    ("iam_user", Value::IamUser),
    ("iam_role", Value::IamRole),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    Url,
    Json,
    Form,
    /// The caller escapes the filled template as a whole.
    None,
}

/// All characters except the unreserved ones of RFC 3986.
pub(super) const ESCAPED_IN_URLS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Template {
    /// `{word}` is a value of the incident or of `fixed`. Any other brace is text, because JSON contains braces.
    pub(super) fn parse(text: &str, fixed: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut parts = Vec::new();
        for piece in pieces(text) {
            let word = match piece {
                Piece::Text(text) => {
                    parts.push(Part::Text(text.to_owned()));
                    continue;
                }
                Piece::Name(word) => word,
            };
            let part = match (VALUES.iter().find(|(name, _)| *name == word), fixed.get(word)) {
                (Some((_, value @ (Value::IamUser | Value::IamRole))), _) => {
                    let account = fixed.get("account").ok_or("requires `values.account`, the AWS account")?;
                    Part::OfAccount(*value, account.clone())
                }
                (Some((_, value)), _) => Part::Value(*value),
                (None, Some(value)) if matches!(&**value, "" | "." | "..") => {
                    return Err(format!("has `{{{word}}}`, whose value is empty, `.` or `..`"));
                }
                (None, Some(value)) => Part::Fixed(value.clone()),
                (None, None) => {
                    let known = VALUES.iter().map(|(name, _)| *name).chain(fixed.keys().map(String::as_str));
                    return Err(unknown_name(word, known));
                }
            };
            parts.push(part);
        }
        Ok(Self(parts))
    }

    /// The URL with example values, for checks before a request. The host must not depend on values.
    pub(super) fn example(&self) -> Result<Url, String> {
        let filled = |value: &str| {
            let mut text = String::new();
            for part in &self.0 {
                match part {
                    Part::Text(literal) => text.push_str(literal),
                    Part::Fixed(fixed) => text.extend(utf8_percent_encode(fixed, ESCAPED_IN_URLS)),
                    Part::Value(_) | Part::OfAccount(..) => text.push_str(value),
                }
            }
            Url::parse(&text).map_err(|error| format!("is not a URL: {error}"))
        };
        let (one, other) = (filled("a")?, filled("b")?);
        if one[..url::Position::BeforePath] != other[..url::Position::BeforePath] {
            return Err("must have a fixed host: values are allowed only in path and query".to_owned());
        }
        Ok(one)
    }

    /// Whether it is a JSON document.
    pub(super) fn is_json(&self) -> bool {
        matches!(self.0.first(), Some(Part::Text(text)) if text.trim_start().starts_with(['{', '[']))
    }

    /// Whether it contains `value`.
    pub(super) fn names(&self, value: Value) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Value(named) | Part::OfAccount(named, _) if *named == value))
    }

    /// An empty value is an error, because an empty id would change the request. For example, it could delete a whole
    /// collection.
    pub(super) fn fill(&self, with: &Filling<'_>, escape: Escape) -> Result<String, String> {
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Fixed(text) => push_escaped(&mut filled, text, escape),
                Part::Value(value) => push_value(&mut filled, value.name(), &value.of(with), escape)?,
                Part::OfAccount(value, account) => {
                    let asked = with.asked;
                    let text = match value {
                        Value::IamRole => iam_role(asked.family_id, account),
                        _ => iam_user(asked.user_id, account),
                    };
                    push_value(&mut filled, value.name(), text, escape)?;
                }
            }
        }
        Ok(filled)
    }
}

fn push_value(to: &mut String, name: &str, text: &str, escape: Escape) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("the request requires `{name}`, which is not known"));
    }
    if escape == Escape::Url {
        // Servers resolve dot segments even if they are written as %2E, and gateways also those behind %2F.
        if text.split(['/', '\\']).any(|part| matches!(part, "." | "..")) {
            return Err(format!("`{name}` contains `.` or `..` as a path segment, which is not allowed in a URL"));
        }
        // GitLab and Okta read these as the credential of the request itself.
        if matches!(text, "me" | "self") {
            return Err(format!("`{name}` is `{text}`, which would be tokenwarden's own credential in a URL"));
        }
    }
    push_escaped(to, text, escape);
    Ok(())
}

fn push_escaped(to: &mut String, text: &str, escape: Escape) {
    match escape {
        Escape::Url => to.extend(utf8_percent_encode(text, ESCAPED_IN_URLS)),
        Escape::Form => to.extend(url::form_urlencoded::byte_serialize(text.as_bytes())),
        Escape::Json => {
            let quoted = serde_json::Value::from(text).to_string();
            to.push_str(&quoted[1..quoted.len() - 1]);
        }
        Escape::None => to.push_str(text),
    }
}

impl Value {
    fn of<'a>(self, with: &Filling<'a>) -> Cow<'a, str> {
        let asked = with.asked;
        Cow::Borrowed(match self {
            Self::Id => asked.target.id(),
            Self::Kind => asked.target.kind(),
            Self::Hint if matches!(asked.target, Target::Family(_)) => "refresh_token",
            Self::Hint => "access_token",
            Self::TokenId => asked.token_id,
            Self::SessionId if !asked.session_id.is_empty() => asked.session_id,
            Self::FamilyId | Self::SessionId => asked.family_id,
            Self::AppId => asked.app_id,
            Self::UserId => asked.user_id,
            Self::TenantId => asked.tenant_id,
            Self::Reason => asked.reason,
            Self::Key => asked.key,
            // Filled with the account.
            Self::IamUser | Self::IamRole => "",
            Self::Now => {
                let now = jiff::Timestamp::from_millisecond(with.now).unwrap_or_default();
                return Cow::Owned(format!("{now:.0}"));
            }
        })
    }

    fn name(self) -> &'static str {
        VALUES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// Path below `kind` of an IAM ARN of `account`, such as `arn:aws:iam::111122223333:user/division/ana`.
fn iam_path<'a>(arn: &'a str, kind: &str, account: &str) -> Option<&'a str> {
    let mut parts = arn.splitn(6, ':');
    let is_iam = parts.next()? == "arn" && parts.next().is_some() && parts.next()? == "iam";
    let is_of_account = parts.nth(1)? == account;
    let resource = parts.next()?;
    (is_iam && is_of_account).then(|| resource.strip_prefix(kind)?.strip_prefix('/')).flatten()
}

/// The name at the end of a user's ARN, or a name. Empty if it is neither.
fn iam_user<'a>(user_id: &'a str, account: &str) -> &'a str {
    match iam_path(user_id, "user", account) {
        Some(path) => path.rsplit('/').next().unwrap_or_default(),
        None if user_id.contains([':', '/']) => "",
        None => user_id,
    }
}

/// The name in a role's ARN. Empty if it is not clear, because in a family a session name may follow the role's, and a
/// path may precede it.
fn iam_role<'a>(family_id: &'a str, account: &str) -> &'a str {
    iam_path(family_id, "role", account).filter(|path| !path.contains('/')).unwrap_or_default()
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
        session_id: "",
        token_id: id,
        token_type: crate::event::TokenType::Other,
        expires_at: None,
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
        let fixed = BTreeMap::from([("org".to_owned(), "a&b/\"c".to_owned())]);
        Template::parse(template, &fixed)?.fill(&Filling { asked: &asked(&target, id), now: 1_795_000_000_123 }, escape)
    }

    #[test]
    fn values_are_escaped_for_their_position() {
        let id = "a/b?c=d&e=f#g h{id}\"\\é";
        assert_eq!(
            fill("https://h/t/{id}?u={user_id}", id, Escape::Url).as_deref(),
            Ok(
                "https://h/t/a%2Fb%3Fc%3Dd%26e%3Df%23g%20h%7Bid%7D%22%5C%C3%A9?u=a%2Fb%3Fc%3Dd%26e%3Df%23g%20h%7Bid%7D%22%5C%C3%A9"
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
        for dots in [".", "..", "../users/x", "a/../b", "..\\x", "x/."] {
            let error = fill("https://h/t/{id}", dots, Escape::Url).expect_err(dots);
            assert!(!error.contains("users"), "{error}");
        }
        for own in ["me", "self"] {
            assert!(fill("https://h/t/{id}", own, Escape::Url).is_err(), "{own}");
            assert_eq!(fill("token={id}", own, Escape::Form), Ok(format!("token={own}")));
        }
        assert!(fill("https://h/t/{tokenid}", "x", Escape::Url).is_err_and(|error| error.contains("{token_id}")));
    }

    #[test]
    fn fixed_values_and_time_are_filled() {
        let fixed = |escape| fill("{org}", "x", escape).expect("it is filled");
        assert_eq!(fixed(Escape::Url), "a%26b%2F%22c");
        assert_eq!(fixed(Escape::Json), "a&b/\\\"c");
        assert_eq!(fixed(Escape::Form), "a%26b%2F%22c");
        assert_eq!(fill("{now}", "x", Escape::Json).as_deref(), Ok("2026-11-18T11:06:40Z"));
    }

    #[test]
    fn iam_names_are_taken_from_arns() {
        for (user_id, name) in [
            ("arn:aws:iam::111122223333:user/ana", "ana"),
            ("arn:aws-cn:iam::111122223333:user/team/x/ana", "ana"),
            ("ana@example.com", "ana@example.com"),
            ("arn:aws:sts::111122223333:assumed-role/deploy/ana", ""),
            ("arn:aws:iam::111122223333:root", ""),
            ("arn:aws:iam::111122223333:role/ana", ""),
            ("team/ana", ""),
            ("arn:aws:iam::999999999999:user/ana", ""),
        ] {
            assert_eq!(iam_user(user_id, "111122223333"), name, "{user_id}");
        }
        for (family_id, name) in [
            ("arn:aws:iam::111122223333:role/deploy", "deploy"),
            ("arn:aws:iam::111122223333:role/deploy/ana", ""),
            ("arn:aws:iam::111122223333:user/deploy", ""),
            ("deploy", ""),
            ("arn:aws:iam::999999999999:role/deploy", ""),
        ] {
            assert_eq!(iam_role(family_id, "111122223333"), name, "{family_id}");
        }
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
                prop_assert!(id.split(['/', '\\']).any(|part| part == "." || part == ".."));
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
