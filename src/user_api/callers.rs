//! Finds the caller of a request: a token of the user, or the headers of the account page.

use std::sync::Arc;

use axum::http::{HeaderMap, Method, header};
use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq as _;

use super::caller::{Caller, Denied, Via};
use super::page::SignedHeaders;
use super::settings::{AccountPageSettings, JwtSettings, UserApiSettings};
use crate::jose::{self, Rejected};
use crate::jwks::{Keys, KeysPlace};
use crate::millis::SECOND_MS;
use crate::port::{Clock, Mistake};

/// Difference of clocks that is accepted for the times of a token.
const LEEWAY_MS: i64 = 30 * SECOND_MS;

/// Finds the caller of a request.
pub(super) struct Callers {
    jwt: Option<(JwtSettings, Keys)>,
    page: Option<(AccountPageSettings, SignedHeaders)>,
    clock: Arc<dyn Clock>,
}

impl Callers {
    /// The error is the key in `[user_api]` and the problem.
    pub(super) fn new(settings: &UserApiSettings, clock: &Arc<dyn Clock>) -> Result<Self, Mistake> {
        let jwt = settings.jwt.clone().map(|jwt| {
            let place = keys_of(&jwt).ok_or_else(|| Mistake::new("jwt", "needs one of jwks_file and jwks_url"))?;
            Keys::of(place, Arc::clone(clock)).map(|keys| (jwt, keys))
        });
        let page = settings.account_page.clone().map(|page| {
            let headers = SignedHeaders::new(page.secret.clone(), Arc::clone(clock));
            (page, headers)
        });
        Ok(Self { jwt: jwt.transpose()?, page, clock: Arc::clone(clock) })
    }

    /// The caller of a request with these headers.
    pub(super) async fn caller(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Caller, Denied> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Denied::credential("the request needs one header Authorization: Bearer"));
        };
        let token = value.to_str().ok().and_then(|value| value.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let token = token.ok_or_else(|| Denied::credential("the scheme of Authorization must be Bearer"))?;
        if let Some((page, signed)) = &self.page
            && bool::from(token.as_bytes().ct_eq(page.token.expose_secret().as_bytes()))
        {
            return signed.caller(method, path, headers);
        }
        match &self.jwt {
            Some((settings, keys)) => self.of_token(token, settings, keys).await,
            None => Err(Denied::credential("the bearer token is wrong")),
        }
    }

    async fn of_token(&self, token: &str, settings: &JwtSettings, keys: &Keys) -> Result<Caller, Denied> {
        let rejected = |rejected: Rejected| Denied::credential(format!("the bearer token {rejected}"));
        let keys = keys.with(&jose::key_id(token).map_err(rejected)?).await;
        let keys = keys.map_err(|_| Denied::Unavailable("the keys of the identity provider cannot be read"))?;
        let signed = keys.verify(token, &settings.algorithms).map_err(rejected)?;
        // A token for another purpose, for example a Security Event Token, is not a token of a user (RFC 8725 section 3.11).
        let kind = signed.kind.to_ascii_lowercase();
        if !["", "jwt", "at+jwt"].contains(&kind.strip_prefix("application/").unwrap_or(&kind)) {
            return Err(Denied::credential("the bearer token has another purpose (typ)"));
        }
        let now = self.clock.now_millis();
        if signed.text("iss") != Some(settings.issuer.as_str()) {
            return Err(Denied::credential("the bearer token is of another issuer (iss)"));
        }
        if !signed.is_for(&settings.audience) {
            return Err(Denied::credential("the bearer token is for another audience (aud)"));
        }
        if signed.time("exp").is_none_or(|expiry| expiry.saturating_add(LEEWAY_MS) <= now) {
            return Err(Denied::credential("the bearer token has expired, or has no expiry (exp)"));
        }
        // A claim that is present must be a time.
        let starts = signed.claims.contains_key("nbf").then(|| signed.time("nbf").unwrap_or(i64::MAX));
        if starts.is_some_and(|start| start.saturating_sub(LEEWAY_MS) > now) {
            return Err(Denied::credential("the bearer token is not valid yet (nbf)"));
        }
        let is_young = |issued: i64| {
            let age = now.saturating_sub(issued);
            (-LEEWAY_MS..=i64::from(settings.max_age_s) * SECOND_MS + LEEWAY_MS).contains(&age)
        };
        if !signed.time("iat").is_some_and(is_young) {
            return Err(Denied::credential("the bearer token is too old, or has no time of issue (iat)"));
        }
        let missing = || Denied::credential("the bearer token does not name a user and tenant");
        let tenant = match &settings.tenant_claim {
            Some(claim) => signed.text(claim).ok_or_else(missing)?.to_owned(),
            None => settings.tenant.clone().ok_or_else(missing)?,
        };
        let user = signed.text(&settings.user_claim).ok_or_else(missing)?.to_owned();
        Caller::new(tenant, user, Via::Jwt).ok_or_else(missing)
    }
}

/// The place of the keys. `None`: not exactly one is set.
fn keys_of(settings: &JwtSettings) -> Option<KeysPlace> {
    KeysPlace::one_of(
        ("jwt.jwks_file", settings.jwks_file.as_ref()),
        ("jwt.jwks_url", settings.jwks_url.as_ref()),
        settings.ca_file.as_ref(),
        settings.allow_private,
    )
}
