//! The token and grant that a request presents.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::token::TokenHasher;
use crate::verdict::Target;

/// Claims of a JWT that contain the ids of the events.
#[derive(Clone, Debug)]
pub(crate) struct Claims {
    pub(crate) token: String,
    pub(crate) grant: String,
    /// `None`: the tenant is not in the token.
    pub(crate) tenant: Option<String>,
}

/// What a request presents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Presented {
    pub(crate) targets: Vec<Target>,
    /// Tenant in the claims of the token.
    pub(crate) tenant: Option<String>,
}

/// The targets that `credential` may be known by: its keyed hash, which events have instead of a token, and for a JWT
/// (RFC 7519) the ids in its claims, in the form that they have in events.
///
/// The signature of the JWT is not checked, because the gateway does that. A forged token can at most be rejected here.
pub(crate) fn presented(credential: &str, claims: &Claims, hasher: &TokenHasher) -> Presented {
    if credential.is_empty() {
        return Presented::default();
    }
    let name = |text: &str| Target::Token(hasher.name(Cow::Borrowed(text)).0.as_str().to_owned());
    let mut presented = Presented { targets: vec![name(credential)], tenant: None };
    if let Some(payload) = payload(credential) {
        let text = |claim: &str| payload.get(claim).and_then(Value::as_str).filter(|text| !text.is_empty());
        let grant = |id: &str| Target::Family(hasher.id(Cow::Borrowed(id)).0.into_owned());
        presented.targets.extend(text(&claims.token).map(name));
        presented.targets.extend(text(&claims.grant).map(grant));
        presented.tenant = claims.tenant.as_deref().and_then(text).map(str::to_owned);
    }
    presented
}

/// The claims of a JWT in compact form.
fn payload(credential: &str) -> Option<Value> {
    let mut parts = credential.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::TokenIds;

    fn claims() -> Claims {
        Claims { token: "jti".to_owned(), grant: "sid".to_owned(), tenant: Some("tid".to_owned()) }
    }

    fn jwt(payload: &str) -> String {
        format!("eyJhbGciOiJub25lIn0.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn jwt_presents_its_hash_and_ids() {
        let hasher = TokenHasher::new(b"a key for the test");
        let token = jwt(r#"{"jti":"t-1","sid":"g-1","sub":"ana","tid":"acme"}"#);
        let hash = Target::Token(hasher.name(Cow::Borrowed(&token)).0.as_str().to_owned());
        let found = presented(&token, &claims(), &hasher);
        let targets = vec![hash, Target::Token("t-1".to_owned()), Target::Family("g-1".to_owned())];
        assert_eq!(found, Presented { targets, tenant: Some("acme".to_owned()) });
        assert!(!format!("{found:?}").contains(&token), "the token itself is not kept");
    }

    #[test]
    fn ids_have_the_form_of_the_events() {
        let hasher = TokenHasher::new(b"a key for the test").with_ids(TokenIds::Hashed);
        let found = presented(&jwt(r#"{"jti":"t-1"}"#), &claims(), &hasher).targets;
        assert_eq!(found[1], Target::Token(hasher.name(Cow::Borrowed("t-1")).0.as_str().to_owned()));
        assert_ne!(found[1], Target::Token("t-1".to_owned()));
    }

    #[test]
    fn opaque_token_presents_its_name() {
        let hasher = TokenHasher::new(b"a key for the test");
        for token in ["ghp_16C7e42F292c6912E7710c838347Ae178B4a", "plain-id", "a.b.c", "a.!!.c", "eyJ.eyJ.x.y"] {
            let name = hasher.name(Cow::Borrowed(token)).0.as_str().to_owned();
            assert_eq!(presented(token, &claims(), &hasher).targets, [Target::Token(name)], "{token}");
        }
    }

    #[test]
    fn wrong_claims_present_nothing() {
        let hasher = TokenHasher::new(b"a key for the test");
        for payload in [r#"{"jti":7,"sid":["g-1"]}"#, r#"{"jti":""}"#, "[]", "7", "{"] {
            assert_eq!(presented(&jwt(payload), &claims(), &hasher).targets.len(), 1, "{payload}");
        }
        assert_eq!(presented("", &claims(), &hasher), Presented::default());
    }
}
