//! Subjects of security events (RFC 9493), as users and sessions of token events.

use serde_json::Value;

use super::settings::{SignalsReceiverSettings, UserIdentifier};

/// Maximum length of an id, bytes: that of ids in events.
const ID_BYTES_MAX: usize = 256;

/// The user and session of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) user: Option<String>,
    pub(super) session: Option<String>,
}

impl Subject {
    /// The subject of an identifier. What has no user or session is left out.
    pub(super) fn of(identifier: &Value, settings: &SignalsReceiverSettings) -> Self {
        let format = identifier.get("format").and_then(Value::as_str).unwrap_or_default();
        if format == "complex" {
            let user = identifier.get("user").and_then(|user| user_of(user, settings));
            return Self { user, session: identifier.get("session").and_then(session_of) };
        }
        Self { user: user_of(identifier, settings), session: None }
    }
}

fn user_of(identifier: &Value, settings: &SignalsReceiverSettings) -> Option<String> {
    let format = text(identifier, "format")?;
    if format == "aliases" {
        let all = identifier.get("identifiers").and_then(Value::as_array)?;
        // Aliases contain no aliases (RFC 9493 section 3.2.8).
        return all.iter().filter(|one| text(one, "format") != Some("aliases")).find_map(|one| user_of(one, settings));
    }
    let found = match (format, settings.user) {
        ("iss_sub", UserIdentifier::IssSub) => {
            let issuer = settings.subject_issuer.as_deref().unwrap_or(&settings.issuer);
            text(identifier, "sub").filter(|_| text(identifier, "iss") == Some(issuer))
        }
        ("email", UserIdentifier::Email) => text(identifier, "email"),
        ("opaque", UserIdentifier::Opaque) => text(identifier, "id"),
        _ => None,
    };
    found.map(str::to_owned)
}

fn session_of(identifier: &Value) -> Option<String> {
    (text(identifier, "format") == Some("opaque")).then(|| text(identifier, "id"))?.map(str::to_owned)
}

/// A text that can be the id of an event.
fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str).filter(|text| (1..=ID_BYTES_MAX).contains(&text.len()))
}
