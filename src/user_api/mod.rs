//! The HTTP API with which users see and revoke their own grants (`docs/user-api.md`).
//!
//! A caller is a user of one tenant. The grants are read from the store with bound values. A revocation is a job as that of
//! `tokenwarden revoke`: with a journal, retries, the pause switch and rows in `actions`.

mod caller;
mod callers;
mod data;
mod limits;
mod page;
mod revocation;
mod settings;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, on};
use axum::{Extension, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use self::caller::{Caller, Denied};
use self::callers::Callers;
use self::data::{Data, GrantName};
use self::limits::Limits;
use self::revocation::{ANSWER_WAIT, JobResult, JobState, NotStarted, Revocations};
pub(crate) use self::settings::UserApiSettings;
use crate::by_hand::{PER_MINUTE, Pace};
use crate::listener;
use crate::port::{Clock, Mistake, Radius, Revoker, Store, StoreError};
use crate::store::StoreSettings;
use crate::telemetry::Metrics;

/// The description of the API, OpenAPI 3.1.
const DESCRIPTION: &str = include_str!("../../docs/user-api.json");
/// Time limit of a request.
const REQUEST_WAIT: Duration = Duration::from_secs(30);
/// Maximum number of requests with an accepted credential that are handled at once.
const CONCURRENT_MAX: usize = 64;
/// `Retry-After` of an answer 503, seconds.
const RETRY_AFTER_S: i64 = 30;

/// What the API uses of the service.
pub(crate) struct Parts<S> {
    pub(crate) store: Arc<S>,
    pub(crate) store_settings: StoreSettings,
    pub(crate) revoker: Arc<dyn Revoker>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    /// Folder of the outbox.
    pub(crate) folder: PathBuf,
}

struct Api<S> {
    callers: Callers,
    limits: Limits,
    data: Data,
    revocations: Revocations<S>,
    room: Semaphore,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// Why a user must not request revocations from this revoker, with the fix. `None`: a user may.
pub(crate) fn objection(revoker: &dyn Revoker) -> Option<&'static str> {
    matches!(revoker.radius(), Some(Radius::Role | Radius::App)).then_some(
        "needs a provider whose requests end what belongs to one user: a request of [revoke.http] ends sessions of a role \
         or an application; choose another preset, or remove [user_api]",
    )
}

/// The API, ready to listen.
pub(crate) struct UserApi(Router);

impl UserApi {
    /// The key of a mistake is one in `[user_api]`. Must be called in a runtime, in which jobs of an earlier
    /// process are continued.
    pub(crate) fn new<S: Store + 'static>(settings: &UserApiSettings, parts: Parts<S>) -> Result<Self, Mistake>
    where
        S::Rows: 'static,
    {
        let Parts { store, store_settings, revoker, clock, metrics, folder } = parts;
        let callers = Callers::new(settings, &clock)?;
        let (running, pace) = (Arc::default(), Arc::new(Pace::new(PER_MINUTE)));
        let revocations = Revocations { revoker, store, clock: Arc::clone(&clock), folder, running, pace };
        revocations.resume();
        let api = Api {
            callers,
            limits: Limits::new(settings.per_minute_of_user, settings.per_minute),
            data: Data::new(store_settings),
            revocations,
            room: Semaphore::new(CONCURRENT_MAX),
            clock,
            metrics,
        };
        Ok(Self(router(Arc::new(api))))
    }

    pub(crate) async fn serve(self, address: std::net::SocketAddr) -> std::io::Result<()> {
        let listener = TcpListener::bind(address).await?;
        tokio::spawn(async move {
            listener::serve(listener, self.0, listener::HEADERS_WAIT).await;
        });
        Ok(())
    }
}

/// Method and path of each route that needs a caller, in the notation of OpenAPI.
const ROUTES: [(&str, &str); 4] =
    [("get", "/v1/grants"), ("post", "/v1/grants/revoke"), ("post", "/v1/grants/{id}/revoke"), ("get", "/v1/history")];
const DESCRIPTION_PATH: &str = "/openapi.json";

fn router<S: Store + 'static>(api: Arc<Api<S>>) -> Router
where
    S::Rows: 'static,
{
    let [grants, revoke_all, revoke_one, history] = ROUTES.map(|(_, path)| path);
    Router::new()
        .route(grants, on(MethodFilter::GET, show_grants::<S>))
        .route(revoke_all, on(MethodFilter::POST, revoke_all_grants::<S>))
        .route(revoke_one, on(MethodFilter::POST, revoke_grant::<S>))
        .route(history, on(MethodFilter::GET, show_history::<S>))
        .layer(middleware::from_fn_with_state(Arc::clone(&api), authenticate::<S>))
        .route(DESCRIPTION_PATH, on(MethodFilter::GET, describe))
        .fallback(async || problem(StatusCode::NOT_FOUND, "the path does not exist; see /openapi.json"))
        .method_not_allowed_fallback(async || {
            problem(StatusCode::METHOD_NOT_ALLOWED, "the path has another method; see /openapi.json")
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&api), guard::<S>))
        .with_state(api)
}

/// Refuses bodies, limits the time, and adds the headers of all answers.
async fn guard<S: Store + 'static>(State(api): State<Arc<Api<S>>>, request: Request, next: Next) -> Response
where
    S::Rows: 'static,
{
    // A body is never read, so that a client that sends it slowly takes no place.
    let mut response = if has_body(request.headers()) {
        let mut response = problem(StatusCode::PAYLOAD_TOO_LARGE, "a request must have no body");
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    } else {
        let late = |_| unavailable("the request took too long", RETRY_AFTER_S);
        tokio::time::timeout(REQUEST_WAIT, next.run(request)).await.unwrap_or_else(late)
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    api.metrics.user_api_answered(response.status().as_u16());
    response
}

/// Whether the headers announce a body (RFC 9112 section 6.3).
fn has_body(headers: &HeaderMap) -> bool {
    let is_empty = |length: &HeaderValue| length.as_bytes() == b"0";
    headers.contains_key(header::TRANSFER_ENCODING) || !headers.get_all(header::CONTENT_LENGTH).iter().all(is_empty)
}

const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// Finds the caller and counts the request.
async fn authenticate<S: Store + 'static>(State(api): State<Arc<Api<S>>>, mut request: Request, next: Next) -> Response
where
    S::Rows: 'static,
{
    let (method, path): (&Method, _) = (request.method(), request.uri().path());
    let caller = match api.callers.caller(method, path, request.headers()).await {
        Ok(caller) => caller,
        Err(Denied::Unavailable(reason)) => return unavailable(reason, RETRY_AFTER_S),
        Err(Denied::Credential(reason)) => {
            let mut response = problem(StatusCode::UNAUTHORIZED, &reason);
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return response;
        }
    };
    if let Err(seconds) = api.limits.count(&caller, api.clock.now_millis()) {
        let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "too many requests within a minute");
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        return response;
    }
    let Ok(_place) = api.room.try_acquire() else {
        return unavailable("too many requests are handled at once", RETRY_AFTER_S);
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

async fn describe() -> Response {
    DESCRIPTION.into_response()
}

async fn show_grants<S: Store + 'static>(
    State(api): State<Arc<Api<S>>>,
    Extension(caller): Extension<Caller>,
) -> Response
where
    S::Rows: 'static,
{
    read(api.data.grants(&caller).await)
}

async fn show_history<S: Store + 'static>(
    State(api): State<Arc<Api<S>>>,
    Extension(caller): Extension<Caller>,
) -> Response
where
    S::Rows: 'static,
{
    read(api.data.history(&caller).await)
}

async fn revoke_all_grants<S: Store + 'static>(
    State(api): State<Arc<Api<S>>>,
    Extension(caller): Extension<Caller>,
) -> Response
where
    S::Rows: 'static,
{
    revoke(&api, &caller, None).await
}

async fn revoke_grant<S: Store + 'static>(
    State(api): State<Arc<Api<S>>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Response
where
    S::Rows: 'static,
{
    // A name that is not UTF-8 matches no grant.
    match id.ok().and_then(|Path(id)| GrantName::parse(&id)) {
        Some(name) => revoke(&api, &caller, Some(&name)).await,
        None => no_grant(),
    }
}

/// The same answer for a grant of another user and for one that does not exist.
fn no_grant() -> Response {
    problem(StatusCode::NOT_FOUND, "you have no such grant that can be revoked here")
}

async fn revoke<S: Store + 'static>(api: &Api<S>, caller: &Caller, one: Option<&GrantName>) -> Response
where
    S::Rows: 'static,
{
    let revocations = &api.revocations;
    if revocations.is_paused() {
        return paused();
    }
    let found = match api.data.revocable(caller, one, revocations.unit(), api.clock.now_millis()).await {
        Ok(found) => found,
        Err(error) => return store_unavailable(&error),
    };
    if found.grants.is_empty() {
        return match (found.shared.len(), found.already) {
            (0, 0) => no_grant(),
            (0, _) => answer(StatusCode::OK, &json!(JobResult::nothing_left())),
            (shared, _) => {
                tracing::warn!(shared, "a user requested the revocation of grants that events of others name");
                problem(StatusCode::CONFLICT, "the grant also belongs to others; the operator can revoke it")
            }
        };
    }
    let (job, place) = match revocations.start(caller, one, found).await {
        Ok(started) => started,
        Err(NotStarted::Running(other)) => {
            let mut response = answer(StatusCode::CONFLICT, &json!(other));
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
            return response;
        }
        Err(NotStarted::Paused) => return paused(),
        Err(NotStarted::TooMany) => return unavailable("too many revocations run", RETRY_AFTER_S),
        Err(NotStarted::Impossible(reason)) => {
            tracing::warn!(reason, "a user requested a revocation that the provider does not support");
            return problem(StatusCode::CONFLICT, "the provider cannot revoke this grant; contact the operator");
        }
        Err(NotStarted::Journal(error)) => {
            tracing::error!(%error, "the journal of a revocation cannot be written");
            return unavailable("the revocation cannot be recorded, so it was not requested", RETRY_AFTER_S);
        }
    };
    let pending = JobResult::pending(&job);
    let waited = tokio::time::timeout(ANSWER_WAIT, revocations.execute(job, Some(place))).await;
    let result = waited.ok().and_then(Result::ok).unwrap_or(pending);
    let status = match result.state {
        JobState::Revoked => StatusCode::OK,
        JobState::Partial => StatusCode::MULTI_STATUS,
        JobState::Failed => StatusCode::BAD_GATEWAY,
        JobState::Pending => StatusCode::ACCEPTED,
    };
    answer(status, &json!(result))
}

fn read(found: Result<Value, StoreError>) -> Response {
    match found {
        Ok(body) => answer(StatusCode::OK, &body),
        Err(error) => store_unavailable(&error),
    }
}

/// The error may contain names of tables, so only the log has it.
fn store_unavailable(error: &StoreError) -> Response {
    tracing::error!(%error, "the API for users cannot read the store");
    unavailable("the events cannot be read now", RETRY_AFTER_S)
}

fn paused() -> Response {
    unavailable("revocations are paused by the operator", RETRY_AFTER_S)
}

fn unavailable(reason: &str, seconds: i64) -> Response {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, reason);
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response
}

fn problem(status: StatusCode, reason: &str) -> Response {
    answer(status, &json!({ "error": reason }))
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn description_has_exactly_the_routes() {
        let described: Value = serde_json::from_str(DESCRIPTION).expect("JSON");
        assert_eq!(described["openapi"], "3.1.0");
        let paths = described["paths"].as_object().expect("paths");
        let described: BTreeSet<_> = paths
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().expect("an item").keys().filter(|key| *key != "parameters");
                methods.map(|method| (method.clone(), path.clone())).collect::<Vec<_>>()
            })
            .collect();
        let routes = ROUTES.iter().chain([&("get", DESCRIPTION_PATH)]);
        let routes: BTreeSet<_> = routes.map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
        assert_eq!(described, routes);
    }
}
