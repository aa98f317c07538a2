//! The endpoint that gateways ask before they accept a token: nginx `auth_request`, Envoy `ext_authz`, and others.
//!
//! It answers 200 if the presented token is not on the denylist, and 401 if it is. 503 means that the denylist is not read
//! yet. The gateway checks the signature and expiry of the token itself.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;

use crate::denylist::{Claims, Denylist, Presented, presented};
use crate::port::{DenylistObserver, DenylistRecord};
use crate::telemetry::{Checked, Condition, Health, Metrics};
use crate::token::TokenHasher;
use crate::verdict::Target;

/// Headers of gateways that know the ids of the token, percent-encoded. A client that adds one can only be rejected.
const TOKEN_ID: &str = "tokenwarden-token-id";
const GRANT_ID: &str = "tokenwarden-grant-id";
/// Authentication schemes whose credential is a token: RFC 6750, RFC 9449, and that of GitHub.
const SCHEMES: [&str; 3] = ["bearer", "dpop", "token"];
/// Answer for a denied token, RFC 6750 section 3.1.
const REVOKED: &str = "Bearer error=\"invalid_token\", error_description=\"The token was revoked\"";

/// The denylist, which follows its log.
pub(crate) struct Followed {
    pub(crate) list: Denylist,
    pub(crate) health: Arc<Health>,
}

impl DenylistObserver for Followed {
    fn record(&self, record: DenylistRecord) {
        self.list.record(record);
    }

    fn is_complete(&self) {
        self.list.complete();
    }

    fn unreadable(&self, unreadable: bool) {
        self.health.set(Condition::Denylist, unreadable);
    }
}

/// The tenant of a request. A client must not be able to choose it, because its token is denied for one tenant only.
#[derive(Clone, Debug)]
pub(crate) enum TenantOf {
    /// All requests. The empty text is the tenant of events without `tenant_id`.
    Fixed(String),
    /// The claim of the JWT that [`Claims::tenant`] names.
    Claim,
    /// A header that the gateway sets, percent-encoded.
    Header(HeaderName),
}

/// State and settings of the endpoint.
pub(crate) struct Gate {
    pub(crate) followed: Arc<Followed>,
    pub(crate) claims: Claims,
    pub(crate) tenant: TenantOf,
    pub(crate) hasher: TokenHasher,
    pub(crate) metrics: Arc<Metrics>,
}

/// Listens on `address` until the process ends. Envoy appends the path of the original request to `/check`.
pub(crate) async fn serve(address: SocketAddr, gate: Gate) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router(gate)).await {
            tracing::error!(%error, "the denylist endpoint has stopped");
        }
    });
    Ok(())
}

fn router(gate: Gate) -> Router {
    let paths = ["/check", "/check/", "/check/{*path}"];
    let router = paths.into_iter().fold(Router::new(), |router, path| router.route(path, any(check)));
    router.with_state(Arc::new(gate))
}

async fn check(State(gate): State<Arc<Gate>>, headers: HeaderMap) -> Response {
    let checked = gate.checked(&headers);
    gate.metrics.denylist_checked(checked, gate.followed.list.len());
    match checked {
        Checked::Accepted | Checked::NoToken => StatusCode::OK.into_response(),
        Checked::Denied => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, REVOKED)]).into_response(),
        Checked::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "the denylist is not read yet\n").into_response(),
    }
}

impl Gate {
    fn checked(&self, headers: &HeaderMap) -> Checked {
        let mut presented = Presented::default();
        for value in headers.get_all(header::AUTHORIZATION) {
            let found = self.presented(value);
            presented.targets.extend(found.targets);
            presented.tenant = presented.tenant.or(found.tenant);
        }
        let Presented { mut targets, tenant } = presented;
        targets.extend(decoded(headers, TOKEN_ID).map(Target::Token));
        targets.extend(decoded(headers, GRANT_ID).map(Target::Family));
        if targets.is_empty() {
            return Checked::NoToken;
        }
        if !self.followed.list.is_ready() {
            return Checked::NotReady;
        }
        let tenant = match &self.tenant {
            TenantOf::Fixed(tenant) => tenant.clone(),
            TenantOf::Claim => tenant.unwrap_or_default(),
            TenantOf::Header(name) => decoded(headers, name.as_str()).unwrap_or_default(),
        };
        if self.followed.list.denies(&tenant, targets) { Checked::Denied } else { Checked::Accepted }
    }

    /// What a value of `Authorization` presents: nothing if its scheme does not use tokens.
    fn presented(&self, value: &HeaderValue) -> Presented {
        let credentials = value.to_str().ok().and_then(|value| value.trim().split_once(' '));
        let is_token = |scheme: &str| SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known));
        match credentials {
            Some((scheme, token)) if is_token(scheme) => presented(token.trim(), &self.claims, &self.hasher),
            _ => Presented::default(),
        }
    }
}

/// The percent-decoded value of a header that occurs once.
fn decoded(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let text = percent_decode_str(value).decode_utf8().ok()?;
    (!text.is_empty()).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::port::{Denial, DeniedKey};
    use crate::telemetry::SystemClock;

    async fn start(tenant: TenantOf) -> (String, Arc<Followed>, Arc<Metrics>) {
        let list = Denylist::new(Arc::new(SystemClock));
        let followed = Arc::new(Followed { list, health: Arc::default() });
        let metrics = Arc::new(Metrics::new());
        let gate = Gate {
            followed: Arc::clone(&followed),
            claims: Claims { token: "jti".to_owned(), grant: "sid".to_owned(), tenant: Some("tid".to_owned()) },
            tenant,
            hasher: TokenHasher::new(b"a key for the test"),
            metrics: Arc::clone(&metrics),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router(gate)).await });
        (base, followed, metrics)
    }

    fn deny(followed: &Followed, tenant: &str, target: Target) {
        let key = DeniedKey { tenant_id: tenant.to_owned(), target };
        followed.record(DenylistRecord { key, denial: Some(Denial { at: 0, until: i64::MAX }) });
    }

    async fn ask(url: String, headers: &[(&'static str, &str)]) -> reqwest::Response {
        let mut request = reqwest::Client::new().post(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("an answer")
    }

    /// `{"jti":"t-1","sid":"g-1"}`
    const JWT: &str = "Bearer eyJhbGciOiJub25lIn0.eyJqdGkiOiJ0LTEiLCJzaWQiOiJnLTEifQ.c2ln";

    #[tokio::test]
    async fn denied_grant_is_rejected_on_every_path() {
        let (base, list, metrics) = start(TenantOf::Fixed(String::new())).await;
        let check = |path: &str| format!("{base}/check{path}");
        assert_eq!(ask(check(""), &[("authorization", JWT)]).await.status(), 503, "not read yet");
        list.is_complete();
        assert_eq!(ask(check(""), &[("authorization", JWT)]).await.status(), 200);
        deny(&list, "", Target::Family("g-1".to_owned()));
        for path in ["", "/", "/v1/users/7?x=y"] {
            let answer = ask(check(path), &[("authorization", JWT)]).await;
            assert_eq!(answer.status(), 401, "{path}");
            assert_eq!(answer.headers().get("www-authenticate"), Some(&HeaderValue::from_static(REVOKED)));
        }
        assert_eq!(ask(check(""), &[("authorization", "Basic YTpi")]).await.status(), 200);
        let text = metrics.text();
        for line in ["accepted\"} 1", "denied\"} 3", "no_token\"} 1", "not_ready\"} 1"] {
            assert!(text.contains(&format!("tokenwarden_denylist_checks_total{{result=\"{line}")), "{line}: {text}");
        }
        assert!(text.contains("tokenwarden_denylist_entries 1"), "{text}");
    }

    const TENANT: (&str, &str) = ("x-tenant", "acme%20co");

    #[tokio::test]
    async fn denied_token_is_found_by_scheme_and_header() {
        let (base, list, _) = start(TenantOf::Header(HeaderName::from_static("x-tenant"))).await;
        list.is_complete();
        deny(&list, "acme co", Target::Token("t-1".to_owned()));
        let status = |headers: &'static [(&'static str, &'static str)]| {
            let url = format!("{base}/check");
            async move { ask(url, headers).await.status().as_u16() }
        };
        assert_eq!(status(&[("authorization", JWT)]).await, 200, "another tenant");
        assert_eq!(status(&[("authorization", JWT), TENANT]).await, 401);
        assert_eq!(status(&[("tokenwarden-token-id", "t-1"), TENANT]).await, 401);
        assert_eq!(status(&[("tokenwarden-grant-id", "t-1"), TENANT]).await, 200, "a grant with this id");
        let dpop = "DPoP eyJhbGciOiJub25lIn0.eyJqdGkiOiJ0LTEiLCJzaWQiOiJnLTEifQ.c2ln";
        let url = format!("{base}/check");
        assert_eq!(ask(url, &[("authorization", dpop), TENANT]).await.status(), 401);
    }

    #[tokio::test]
    async fn tenant_is_not_chosen_by_the_client() {
        let with_tenant =
            format!("Bearer eyJhbGciOiJub25lIn0.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"jti":"t-1","tid":"acme"}"#));
        for (tenant, expected) in [
            (TenantOf::Fixed("acme".to_owned()), 401),
            (TenantOf::Claim, 401),
            (TenantOf::Fixed("other".to_owned()), 200),
        ] {
            let (base, list, _) = start(tenant.clone()).await;
            list.is_complete();
            deny(&list, "acme", Target::Token("t-1".to_owned()));
            let headers = [("authorization", with_tenant.as_str()), ("x-tenant", "acme"), ("tokenwarden-tenant", "x")];
            assert_eq!(ask(format!("{base}/check"), &headers).await.status(), expected, "{tenant:?}");
        }
    }
}
