//! The demo provider: a small identity provider on loopback, which exists only in the demo. It holds the grants that
//! alerts name, revokes them (RFC 7009), answers whether they are active (RFC 7662), and accepts uses of active ones.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use url::{Url, form_urlencoded};

use crate::lock::unpoisoned;
use crate::outgoing;
use crate::port::{Clock, Mistake};
use crate::revoke::{HttpRevoker, HttpRevokerSettings};

/// Credential of the demo at its own provider. It protects nothing.
const CLIENT: &str = "client_id = 'demo'\nclient_secret = 'demo'\n";

/// The running provider. Its server ends with the runtime.
pub(super) struct Provider {
    url: Url,
    grants: Arc<Grants>,
}

/// Whether each grant is active.
#[derive(Default)]
struct Grants(Mutex<BTreeMap<String, bool>>);

impl Provider {
    /// Listens on a free port of loopback.
    pub(super) async fn start() -> Result<Self, String> {
        let grants = Arc::new(Grants::default());
        let router = Router::new()
            .route("/revoke", post(revoke))
            .route("/introspect", post(introspect))
            .route("/use", get(use_grant))
            .with_state(Arc::clone(&grants));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        tokio::spawn(async move { axum::serve(listener, router).await });
        let url = Url::parse(&format!("http://{address}")).map_err(|error| error.to_string())?;
        Ok(Self { url, grants })
    }

    /// The revoker of the service for this provider, which verifies each revocation by introspection.
    pub(super) fn revoker(&self, clock: Arc<dyn Clock>) -> Result<HttpRevoker, String> {
        let url = self.url.as_str().trim_end_matches('/');
        let settings =
            format!("preset = 'rfc7009'\nurl = '{url}/revoke'\n{CLIENT}[verify]\nurl = '{url}/introspect'\n");
        let settings: HttpRevokerSettings = toml::from_str(&settings).map_err(|error| error.to_string())?;
        HttpRevoker::new(&settings, clock).map_err(|Mistake { key, problem }| format!("{key} {problem}"))
    }

    /// Adds an active grant, unless it exists.
    pub(super) fn hold(&self, grant: &str) {
        unpoisoned(&self.grants.0).entry(grant.to_owned()).or_insert(true);
    }

    /// Uses each revoked grant as a thief would. Returns the number of uses, and how many the provider refused.
    pub(super) async fn use_revoked(&self) -> Result<(usize, usize), String> {
        let revoked: Vec<String> = {
            let grants = unpoisoned(&self.grants.0);
            grants.iter().filter(|(_, is_active)| !**is_active).map(|(grant, _)| grant.clone()).collect()
        };
        let client = outgoing::client(&self.url, false, None)?;
        let target = self.url.join("use").map_err(|error| error.to_string())?;
        let mut refused = 0;
        for grant in &revoked {
            let answer = client.get(target.clone()).bearer_auth(grant).send().await;
            let answer = answer.map_err(|error| outgoing::reason(&error))?;
            refused += usize::from(answer.status() == StatusCode::UNAUTHORIZED);
        }
        Ok((revoked.len(), refused))
    }
}

impl Grants {
    fn is_active(&self, grant: &str) -> bool {
        unpoisoned(&self.0).get(grant).copied().unwrap_or(false)
    }
}

/// The parameter `token` of a form.
fn token(form: &str) -> Option<String> {
    form_urlencoded::parse(form.as_bytes()).find(|(name, _)| name == "token").map(|(_, token)| token.into_owned())
}

/// RFC 7009 section 2.2: an unknown token is a success.
async fn revoke(State(grants): State<Arc<Grants>>, form: String) -> StatusCode {
    let Some(token) = token(&form) else { return StatusCode::BAD_REQUEST };
    if let Some(is_active) = unpoisoned(&grants.0).get_mut(&token) {
        *is_active = false;
    }
    StatusCode::OK
}

/// RFC 7662 section 2.2.
async fn introspect(State(grants): State<Arc<Grants>>, form: String) -> Response {
    let is_active = token(&form).is_some_and(|token| grants.is_active(&token));
    ([(header::CONTENT_TYPE, "application/json")], format!("{{\"active\":{is_active}}}")).into_response()
}

/// A resource that accepts active grants only.
async fn use_grant(State(grants): State<Arc<Grants>>, headers: HeaderMap) -> StatusCode {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let grant = value.and_then(|value| value.strip_prefix("Bearer "));
    if grant.is_some_and(|grant| grants.is_active(grant)) { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
}
