//! The endpoint that gateways ask before they accept a token: nginx `auth_request`, Envoy `ext_authz`, and others.
//!
//! It answers 200 if the presented token is not on the denylist, and 401 if it is. 503 means that the denylist is not read
//! yet. The gateway checks the signature and expiry of the token itself.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{self, AsHeaderName};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use percent_encoding::percent_decode;
use tokio::net::TcpListener;

use crate::denylist::{Claims, Denylist, Presented, presented};
use crate::port::{Clock, DeniedKey, DenylistRecord, RecordLog, RecordObserver};
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

/// Interval of [`maintain`].
const MAINTAIN_WAIT: Duration = Duration::from_secs(60);
/// Interval in which [`maintain`] checks whether the log is read.
const READY_LOOK: Duration = Duration::from_secs(1);

/// The denylist, which follows its log.
pub(crate) struct Followed {
    pub(crate) list: Denylist,
    pub(crate) health: Arc<Health>,
}

impl RecordObserver<DenylistRecord> for Followed {
    fn record(&self, record: DenylistRecord) {
        self.list.record(record);
    }

    fn removed(&self, key: DeniedKey) {
        self.list.removed(key);
    }

    fn all_read(&self) {
        self.list.complete();
    }

    fn read_failed(&self) {
        self.health.set(Condition::Denylist, true);
    }

    fn read_succeeded(&self) {
        self.health.set(Condition::Denylist, false);
    }
}

/// Keeps the log current while the process runs: removes expired entries, and writes lost ones again.
pub(crate) async fn maintain(followed: Arc<Followed>, log: Arc<dyn RecordLog<DenylistRecord>>, clock: Arc<dyn Clock>) {
    loop {
        let is_ready = followed.list.is_ready();
        if is_ready && let Err(reason) = followed.list.maintain(&*log).await {
            tracing::warn!(
                reason,
                "the log of the denylist cannot be written: expired entries stay in it, and lost ones are missing; retrying"
            );
        }
        clock.sleep(if is_ready { MAINTAIN_WAIT } else { READY_LOOK }).await;
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
        Checked::Denied | Checked::Ambiguous => {
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, REVOKED)]).into_response()
        }
        Checked::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "the denylist is not read yet\n").into_response(),
    }
}

impl Gate {
    /// Every value of a header counts, because a client may add one to that of the gateway.
    fn checked(&self, headers: &HeaderMap) -> Checked {
        let token = |id: String| Target::Token(self.hasher.name(Cow::Owned(id)).0.as_str().to_owned());
        let grant = |id: String| Target::Family(self.hasher.id(Cow::Owned(id)).0.into_owned());
        let mut presented: Vec<Presented> =
            headers.get_all(header::AUTHORIZATION).iter().map(|value| self.presented(value)).collect();
        let targets = decoded(headers, TOKEN_ID).map(token).chain(decoded(headers, GRANT_ID).map(grant)).collect();
        // The tenant of ids is that of the token beside them.
        let tenant = presented.iter().find_map(|presented| presented.tenant.clone());
        presented.push(Presented { targets, tenant });
        presented.retain(|presented| !presented.targets.is_empty());
        if presented.is_empty() {
            return Checked::NoToken;
        }
        if !self.followed.list.is_ready() {
            return Checked::NotReady;
        }
        let fixed = match &self.tenant {
            TenantOf::Fixed(tenant) => Some(tenant.clone()),
            TenantOf::Claim => None,
            TenantOf::Header(name) => {
                let mut tenants = decoded(headers, name);
                let (Some(tenant), None) = (tenants.next(), tenants.next()) else { return Checked::Ambiguous };
                Some(tenant)
            }
        };
        let denies = |presented: Presented| {
            let tenant = fixed.clone().or(presented.tenant).unwrap_or_default();
            self.followed.list.denies(&tenant, presented.targets)
        };
        if presented.into_iter().any(denies) { Checked::Denied } else { Checked::Accepted }
    }

    /// What a value of `Authorization` presents: nothing if its scheme does not use tokens.
    fn presented(&self, value: &HeaderValue) -> Presented {
        let credentials = value.to_str().ok().and_then(|value| value.trim().split_once([' ', '\t']));
        let is_token = |scheme: &str| SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known));
        match credentials {
            Some((scheme, token)) if is_token(scheme) => presented(token.trim(), &self.claims, &self.hasher),
            _ => Presented::default(),
        }
    }
}

/// The percent-decoded values of a header. One that is not UTF-8 is the empty text, which is no id.
fn decoded(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = String> + '_ {
    headers.get_all(name).iter().map(|value| {
        let text = percent_decode(value.as_bytes()).decode_utf8();
        text.map(Cow::into_owned).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::port::Denial;
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
        followed.record(DenylistRecord { key, denial: Denial::Denied { at: 0, until: i64::MAX } });
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
        list.all_read();
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
        list.all_read();
        deny(&list, "acme co", Target::Token("t-1".to_owned()));
        let status = |headers: &'static [(&'static str, &'static str)]| {
            let url = format!("{base}/check");
            async move { ask(url, headers).await.status().as_u16() }
        };
        assert_eq!(status(&[("authorization", JWT), ("x-tenant", "acme")]).await, 200, "another tenant");
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
            list.all_read();
            deny(&list, "acme", Target::Token("t-1".to_owned()));
            let headers = [("authorization", with_tenant.as_str()), ("x-tenant", "acme"), ("tokenwarden-tenant", "x")];
            assert_eq!(ask(format!("{base}/check"), &headers).await.status(), expected, "{tenant:?}");
        }
    }

    #[tokio::test]
    async fn further_headers_hide_no_denied_token() {
        let claims = |text: &str| format!("Bearer eyJhbGciOiJub25lIn0.{}.c2ln", URL_SAFE_NO_PAD.encode(text));
        let (denied, other) = (claims(r#"{"jti":"t-1","tid":"acme"}"#), claims(r#"{"jti":"t-2","tid":"other"}"#));
        let (base, list, _) = start(TenantOf::Claim).await;
        list.all_read();
        deny(&list, "acme", Target::Token("t-1".to_owned()));
        let check = format!("{base}/check");
        let status = async |headers: &[(&'static str, &str)]| ask(check.clone(), headers).await.status().as_u16();
        assert_eq!(status(&[("authorization", &other), ("authorization", &denied)]).await, 401);
        assert_eq!(status(&[("authorization", &other)]).await, 200);
        let ids = [("tokenwarden-token-id", "x"), ("tokenwarden-token-id", "t-1")];
        let (base, list, _) = start(TenantOf::Header(HeaderName::from_static("x-tenant"))).await;
        list.all_read();
        deny(&list, "acme", Target::Token("t-1".to_owned()));
        let check = format!("{base}/check");
        let status = async |headers: &[(&'static str, &str)]| ask(check.clone(), headers).await.status().as_u16();
        assert_eq!(status(&[ids[0], ids[1], ("x-tenant", "acme")]).await, 401);
        assert_eq!(status(&[("tokenwarden-token-id", "y"), ("x-tenant", "acme")]).await, 200);
        let twice = [("tokenwarden-token-id", "y"), ("x-tenant", "acme"), ("x-tenant", "other")];
        assert_eq!(status(&twice).await, 401, "the tenant is not clear");
        assert_eq!(status(&[("tokenwarden-token-id", "y")]).await, 401, "the gateway sets no tenant");
        let tab = denied.replace("Bearer ", "bearer\t");
        assert_eq!(status(&[("authorization", &tab), ("x-tenant", "acme")]).await, 401);
        deny(
            &list,
            "acme",
            Target::Token(TokenHasher::new(b"a key for the test").hash(b"ghp_16C7e42F292c6912E7710c838347Ae178B4a")),
        );
        let opaque = [("tokenwarden-token-id", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"), ("x-tenant", "acme")];
        assert_eq!(status(&opaque).await, 401, "the id has the form of the events");
    }
}
