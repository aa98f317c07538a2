//! The API for users: the service with the real engine, a local provider, and keys that the test signs with.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{KeyInit as _, Mac as _};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokenwarden::checkpoint::Position;
use tokenwarden::event::Kind;
use tokenwarden::place::{Country, Place};
use tokenwarden::port::{Clock as _, EventRow, Rows as _, Store as _};
use tokenwarden::store::{ClickHouse, EpochRows};
use tokenwarden::telemetry::SystemClock;
use tokenwarden::verdict::{Incident, Outcome, Severity};
use tokio::io::AsyncWriteExt as _;

use super::rows::{INGESTED, START, allowed, at, event, incident, numbered, push, token};
use super::support::process::{eventually, free_port};
use super::support::web::Web;
use super::{embedded, library, turn};

const PAGE_TOKEN: &str = "account-page-t0ken";
const PAGE_SECRET: &str = "account-page-s3cret";
const PATIENCE: Duration = Duration::from_secs(60);

fn now() -> i64 {
    SystemClock.now_millis() / 1_000
}

/// A P-256 key of the identity provider.
struct Issuer(PKey<Private>);

impl Issuer {
    fn new() -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        Self(PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap())
    }

    fn jwks(&self) -> Value {
        let key = self.0.ec_key().unwrap();
        let (mut x, mut y) = (BigNum::new().unwrap(), BigNum::new().unwrap());
        let mut context = BigNumContext::new().unwrap();
        key.public_key().affine_coordinates(key.group(), &mut x, &mut y, &mut context).unwrap();
        let text = |number: &BigNum| URL_SAFE_NO_PAD.encode(number.to_vec_padded(32).unwrap());
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "k1", "x": text(&x), "y": text(&y) }] })
    }

    fn token(&self, claims: &Value) -> String {
        self.typed("JWT", claims)
    }

    fn typed(&self, kind: &str, claims: &Value) -> String {
        let parts = [json!({ "alg": "ES256", "kid": "k1", "typ": kind }), claims.clone()];
        let text = parts.map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let mut signer = Signer::new(MessageDigest::sha256(), &self.0).unwrap();
        signer.update(text.as_bytes()).unwrap();
        let signature = EcdsaSig::from_der(&signer.sign_to_vec().unwrap()).unwrap();
        let [r, s] = [signature.r(), signature.s()].map(|number| number.to_vec_padded(32).unwrap());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode([r, s].concat()))
    }

    fn of(&self, tenant: &str, user: &str) -> String {
        self.token(&claims(tenant, user))
    }
}

fn claims(tenant: &str, user: &str) -> Value {
    json!({ "iss": "https://id.example", "aud": "account", "sub": user, "tid": tenant, "iat": now(), "exp": now() + 60 })
}

/// The running service.
struct Service {
    child: Child,
    base: String,
    client: reqwest::Client,
    folder: TempDir,
}

impl Service {
    async fn start(folder: TempDir, store: &str, web: &Web, issuer: &Issuer) -> Self {
        let (admin, port) = (free_port(), free_port());
        std::fs::write(folder.path().join("jwks.json"), issuer.jwks().to_string()).unwrap();
        let text = format!(
            "[admin]\nlisten = '127.0.0.1:{admin}'\n[source.file]\npath = '-'\n[store]\nurl = '{store}'\n\
             [revoke.http]\nmethod = 'DELETE'\nurl = '{}/{{tenant_id}}/{{id}}'\ntoken = 's3cret'\n\
             [user_api]\nlisten = '127.0.0.1:{port}'\nper_minute_of_user = 20\n\
             [user_api.jwt]\nissuer = 'https://id.example'\naudience = 'account'\njwks_file = 'jwks.json'\n\
             tenant_claim = 'tid'\n[user_api.account_page]\ntoken = '{PAGE_TOKEN}'\nsecret = '{PAGE_SECRET}'\n",
            web.url
        );
        std::fs::write(folder.path().join("t.toml"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwarden"));
        command.args(["run", "--config", "t.toml"]).current_dir(folder.path());
        command.env("TOKENWARDEN__STORE__LIBRARY", library());
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        // The service reads events until its input ends.
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let service = Self { child, base: format!("http://127.0.0.1:{port}"), client: reqwest::Client::new(), folder };
        for _ in 0..600 {
            if service.client.get(service.url("/openapi.json")).send().await.is_ok() {
                return service;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{}", std::fs::read_to_string(service.folder.path().join("log")).unwrap());
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(&self, method: Method, path: &str, token: &str) -> (u16, Value) {
        let answer = self.client.request(method, self.url(path)).bearer_auth(token).send().await.unwrap();
        checked(answer).await
    }

    async fn get(&self, path: &str, token: &str) -> (u16, Value) {
        self.send(Method::GET, path, token).await
    }

    async fn post(&self, path: &str, token: &str) -> (u16, Value) {
        self.send(Method::POST, path, token).await
    }

    /// The caller's grants, in the order of the answer.
    async fn grants(&self, token: &str) -> Vec<Value> {
        let (status, body) = self.get("/v1/grants", token).await;
        assert_eq!(status, 200, "{body}");
        body["grants"].as_array().unwrap().clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body, with the headers that every answer must have.
async fn checked(answer: Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    for (name, value) in
        [("content-type", "application/json"), ("x-content-type-options", "nosniff"), ("cache-control", "no-store")]
    {
        assert_eq!(answer.headers().get(name).map(|value| value.to_str().unwrap()), Some(value), "{status}");
    }
    let is_to_wait = matches!(status, 429 | 503);
    assert_eq!(answer.headers().contains_key("retry-after"), is_to_wait, "{status}");
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")))
}

/// Runs `test` with a provider, which has a runtime of its own.
fn with_provider(test: impl AsyncFnOnce(&Web)) {
    let web = Web::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let _turn = turn().await;
        test(&web).await;
    });
}

/// The name of a grant in the API.
fn name(family: &str) -> String {
    format!("grant.{}", URL_SAFE_NO_PAD.encode(family))
}

async fn store(folder: &Path, grants: &[(&'static str, &'static str, &'static str)]) -> ClickHouse {
    let store = ClickHouse::open(&embedded(&folder.join("data"))).await.unwrap();
    let mut rows = EpochRows::new();
    for (number, (tenant, user, family)) in grants.iter().enumerate() {
        let mut event = event(number as u64);
        event.event.timestamp = at(START + number as i64 * 3_600_000);
        event.event.tenant_id = Some((*tenant).into());
        event.event.user_id = (!user.is_empty()).then(|| (*user).into());
        event.event.family_id = Some((*family).into());
        event.event.token_id = token(&format!("token-{number}"));
        event.event.scopes = vec!["write".into(), "read".into()];
        let country = Country::parse("de").unwrap();
        event.place = Some(Arc::new(Place { country, city: "Berlin".into(), coordinates: None }));
        push(&mut rows, &numbered(event), &allowed(), number as i64);
    }
    store.write(&rows).await.unwrap();
    store
}

/// An event of the tenant `acme`.
struct Received {
    user: &'static str,
    family: &'static str,
    kind: Kind,
    ingested_at: i64,
}

#[test]
fn late_issue_event_names_no_owner() {
    with_provider(read_issue_events);
}

async fn read_issue_events(web: &Web) {
    let (folder, issuer) = (TempDir::new().unwrap(), Issuer::new());
    let store = ClickHouse::open(&embedded(&folder.path().join("data"))).await.unwrap();
    let mut rows = EpochRows::new();
    let received = [
        Received { user: "ana", family: "g-1", kind: Kind::Issued, ingested_at: INGESTED },
        Received { user: "", family: "g-1", kind: Kind::Use, ingested_at: INGESTED + 1_000 },
        // A service, whose events have no user id, before an event names ana.
        Received { user: "", family: "ci-deploy", kind: Kind::Use, ingested_at: INGESTED },
        Received { user: "ana", family: "ci-deploy", kind: Kind::Issued, ingested_at: INGESTED + 1_000 },
    ];
    for (number, Received { user, family, kind, ingested_at }) in received.into_iter().enumerate() {
        let mut event = event(number as u64);
        event.event.tenant_id = Some("acme".into());
        event.event.user_id = (!user.is_empty()).then(|| user.into());
        event.event.family_id = Some(family.into());
        (event.event.token_id, event.event.kind) = (token(&format!("token-{number}")), kind);
        let (event, outcome) = (numbered(event), allowed());
        let position = Position::new("token-events", 3, number as i64);
        let (index, scored_at) = (0, 0);
        rows.push_event(&EventRow {
            event: &event,
            outcome: &outcome,
            position: &position,
            index,
            scored_at,
            ingested_at,
        });
    }
    store.write(&rows).await.unwrap();
    let service = Service::start(folder, "embedded:data", web, &issuer).await;
    let mut found = service.grants(&issuer.of("acme", "ana")).await;
    found.sort_by_key(|grant| grant["id"].to_string());
    let found: Vec<_> = found.iter().map(|grant| (&grant["id"], &grant["revocable"])).collect();
    let (service_grant, own) = (json!(name("ci-deploy")), json!(name("g-1")));
    assert_eq!(found, [(&service_grant, &json!(false)), (&own, &json!(true))]);
}

#[test]
fn user_sees_the_open_incident_of_a_grant() {
    with_provider(see_incident);
}

async fn see_incident(web: &Web) {
    let (folder, issuer) = (TempDir::new().unwrap(), Issuer::new());
    let store = store(folder.path(), &[("acme", "ana", "g-1")]).await;
    let mut event = event(50);
    event.event.timestamp = at(START + 3_600_000);
    (event.event.tenant_id, event.event.user_id) = (Some("acme".into()), Some("ana".into()));
    (event.event.family_id, event.event.token_id) = (Some("g-5".into()), token("token-50"));
    let reported = Incident { tenant_id: "acme".into(), user_id: "ana".into(), ..incident(9, 50, Severity::High) };
    let outcome = Outcome { incident_id: Some(reported.id), ..allowed() };
    let mut rows = EpochRows::new();
    push(&mut rows, &numbered(event), &outcome, 50);
    rows.push_incident(&reported);
    store.write(&rows).await.unwrap();
    let service = Service::start(folder, "embedded:data", web, &issuer).await;
    let found = service.grants(&issuer.of("acme", "ana")).await;
    let shown: Vec<_> = found.iter().map(|grant| (&grant["id"], &grant["risk"])).collect();
    assert_eq!(shown, [(&json!(name("g-5")), &json!("high")), (&json!(name("g-1")), &json!("none"))]);
    let open = &found[0]["open_incident"];
    assert_eq!((&open["id"], &open["severity"]), (&json!(reported.id.to_string()), &json!("high")));
    assert!(open["opened_at"].is_string() && found[1]["open_incident"].is_null(), "{found:?}");
}

#[test]
fn user_sees_and_revokes_only_own_grants() {
    with_provider(see_and_revoke);
}

async fn see_and_revoke(web: &Web) {
    let (folder, issuer) = (TempDir::new().unwrap(), Issuer::new());
    let grants = [
        ("acme", "ana", "x/..y' OR 1=1"),
        ("acme", "ana", "g-1"),
        ("acme", "bob", "g-2"),
        ("other", "ana", "g-3"),
        // A grant that events of two users name.
        ("acme", "bob", "g-4"),
        ("acme", "ana", "g-4"),
        // A grant of a service, in one event of which the user id is that of ana.
        ("acme", "", "ci-deploy"),
        ("acme", "ana", "ci-deploy"),
    ];
    let store = store(folder.path(), &grants).await;
    let service = Service::start(folder, "embedded:data", web, &issuer).await;
    let ana = issuer.of("acme", "ana");

    let found = service.grants(&ana).await;
    let ids: Vec<_> = found.iter().map(|grant| grant["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, [name("ci-deploy"), name("g-4"), name("g-1"), name("x/..y' OR 1=1")], "the last used first");
    for (family, shown) in ["ci-deploy", "g-4"].into_iter().zip(&found) {
        assert_eq!(*shown, json!({ "id": name(family), "shared": true, "revocable": false }), "no details");
    }
    let found = &found[1..];
    let revocable: Vec<_> = found.iter().map(|grant| grant["revocable"].as_bool().unwrap()).collect();
    assert_eq!(revocable, [false, true, true]);
    assert_eq!((&found[1]["last_use"], &found[1]["risk"]), (&json!("2023-11-14T23:13:20Z"), &json!("none")));
    assert_eq!(found[1]["last_place"], json!({ "country": "DE", "city": "Berlin" }));
    assert_eq!((&found[1]["scopes"], &found[1]["application"]), (&json!(["read", "write"]), &json!("app-1")));
    assert_eq!((&found[1]["revoked_at"], &found[1]["open_incident"]), (&Value::Null, &Value::Null));
    // The same user id in another tenant is another user.
    let other = service.grants(&issuer.of("other", "ana")).await;
    assert_eq!(other.iter().map(|grant| &grant["id"]).collect::<Vec<_>>(), [&json!(name("g-3"))]);
    assert!(service.grants(&issuer.of("acme", "' OR 1 = 1 --")).await.is_empty());

    // Grants of others, of other tenants, and names that are none.
    for path in [name("g-2"), name("g-3"), name("none"), "x".to_owned(), "%2e%2e".to_owned(), "%ff".to_owned()] {
        let (status, body) = service.post(&format!("/v1/grants/{path}/revoke"), &ana).await;
        assert_eq!(status, 404, "{path}: {body}");
    }
    for shared in ["g-4", "ci-deploy"] {
        let (status, body) = service.post(&format!("/v1/grants/{}/revoke", name(shared)), &ana).await;
        assert_eq!(status, 409, "{shared}: {body}");
    }
    assert!(web.requests().is_empty());

    let (status, body) = service.post(&format!("/v1/grants/{}/revoke", name("g-1")), &ana).await;
    assert_eq!((status, &body["state"], &body["revoked"]), (200, &json!("revoked"), &json!(1)), "{body}");
    let paths = || web.requests().iter().map(|request| request.path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(), ["/acme/g-1"]);
    // The journal is removed when the rows are in the store.
    let outbox = service.folder.path().join("outbox");
    let journals = || {
        let entries = std::fs::read_dir(&outbox).unwrap().map(|entry| entry.unwrap().file_name());
        entries.filter(|name| name.to_string_lossy().starts_with("by-hand-")).count()
    };
    let removed = eventually(PATIENCE, "the journal is removed", || (journals() == 0).then_some(()));
    assert!(removed.is_some());
    let (_, history) = service.get("/v1/history", &ana).await;
    let action = &history["actions"][0];
    let expected = json!({ "kind": "revoke_family", "target": "g-1", "outcome": "done", "radius": "grant",
        "requested_by": "user", "verified_at": null });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&action[field], value, "{field}");
    }
    assert!(action["revoked_at"].is_string() && history["actions"].as_array().unwrap().len() == 1, "{history}");
    assert!(service.grants(&ana).await[2]["revoked_at"].is_string());
    let (_, history) = service.get("/v1/history", &issuer.of("other", "ana")).await;
    assert_eq!(history["actions"], json!([]));

    // All that belong to the user alone.
    let (status, body) = service.post("/v1/grants/revoke", &ana).await;
    // Not those of others, which the answer counts, and not the one that was revoked just now.
    let counts = ["state", "requests", "revoked", "not_possible"].map(|field| &body[field]);
    assert_eq!((status, counts), (207, [&json!("partial"), &json!(1), &json!(1), &json!(2)]), "{body}");
    assert!(paths().len() == 2 && paths()[1].starts_with("/acme/x%2F..y"), "{:?}", paths());
    std::fs::write(outbox.join("pause-actions"), "").unwrap();
    let (status, body) = service.post("/v1/grants/revoke", &issuer.of("acme", "bob")).await;
    assert_eq!((status, &body["error"]), (503, &json!("revocations are paused by the operator")));
    assert_eq!(paths().len(), 2);
    drop(service);
    store.close().await;
}

/// The headers of the account page for a request.
fn signed(method: &str, path: &str, (id, at): (&str, i64), subject: &Value) -> [(&'static str, String); 4] {
    let subject = URL_SAFE_NO_PAD.encode(subject.to_string());
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(PAGE_SECRET.as_bytes()).unwrap();
    mac.update(format!("{id}.{at}.{method} {path} {subject}").as_bytes());
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    [
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", at.to_string()),
        ("webhook-signature", signature),
        ("tokenwarden-subject", subject),
    ]
}

impl Service {
    async fn page(&self, method: Method, path: &str, headers: &[(&'static str, String)]) -> u16 {
        let mut request = self.client.request(method, self.url(path)).bearer_auth(PAGE_TOKEN);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        checked(request.send().await.unwrap()).await.0
    }
}

#[test]
fn user_api_rejects_forged_and_replayed_credentials() {
    with_provider(send_wrong_credentials);
}

async fn send_wrong_credentials(web: &Web) {
    let (folder, issuer) = (TempDir::new().unwrap(), Issuer::new());
    let store = store(folder.path(), &[("acme", "ana", "g-1")]).await;
    let service = Service::start(folder, "embedded:data", web, &issuer).await;
    let claims = claims("acme", "ana");
    let good = issuer.token(&claims);
    assert_eq!(service.get("/v1/grants", &good).await.0, 200);

    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        issuer.token(&claims)
    };
    let parts: Vec<_> = good.split('.').collect();
    let header = |header: Value| URL_SAFE_NO_PAD.encode(header.to_string());
    let none = format!("{}.{}.", header(json!({ "alg": "none", "kid": "k1" })), parts[1]);
    // The public key in PEM as the key of HS256.
    let pem = PKey::hmac(&issuer.0.public_key_to_pem().unwrap()).unwrap();
    let text = format!("{}.{}", header(json!({ "alg": "HS256", "kid": "k1" })), parts[1]);
    let mut signer = Signer::new(MessageDigest::sha256(), &pem).unwrap();
    signer.update(text.as_bytes()).unwrap();
    let hs256 = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signer.sign_to_vec().unwrap()));
    let forged_user = URL_SAFE_NO_PAD.encode(claims.to_string().replace("\"ana\"", "\"bob\""));
    for (what, token) in [
        ("no signature", none),
        ("HS256 with the public key", hs256),
        ("another key", Issuer::new().token(&claims)),
        ("changed claims", [parts[0], &forged_user, parts[2]].join(".")),
        ("expired", with("exp", json!(now() - 60))),
        ("too old", with("iat", json!(now() - 3_700))),
        ("issued in the future", with("iat", json!(now() + 600))),
        ("no time of issue", with("iat", Value::Null)),
        ("no expiry", with("exp", Value::Null)),
        ("not valid yet", with("nbf", json!(now() + 600))),
        ("nbf is no time", with("nbf", json!("soon"))),
        ("another audience", with("aud", json!("api"))),
        ("another issuer", with("iss", json!("https://evil.example"))),
        ("a security event", issuer.typed("secevent+jwt", &claims)),
        ("no tenant", with("tid", Value::Null)),
        ("no user", with("sub", json!(""))),
        ("no token", String::new()),
        ("page token without signature", PAGE_TOKEN.to_owned()),
        ("too large", format!("{}.{}.x", parts[0], "A".repeat(20_000))),
    ] {
        let (status, body) = service.get("/v1/grants", &token).await;
        assert_eq!((status, body["error"].is_string()), (401, true), "{what}: {body}");
    }

    let subject = json!({ "tenant": "acme", "user": "ana" });
    let headers = signed("GET", "/v1/grants", ("m-1", now()), &subject);
    assert_eq!(service.page(Method::GET, "/v1/grants", &headers).await, 200);
    assert_eq!(service.page(Method::GET, "/v1/grants", &headers).await, 401, "a replay");
    let other = signed("GET", "/v1/grants", ("m-2", now()), &subject);
    assert_eq!(service.page(Method::POST, "/v1/grants/revoke", &other).await, 401, "for another request");
    let old = signed("GET", "/v1/grants", ("m-3", now() - 301), &subject);
    assert_eq!(service.page(Method::GET, "/v1/grants", &old).await, 401, "too old");
    let mut changed = signed("GET", "/v1/grants", ("m-4", now()), &subject);
    changed[3].1 = URL_SAFE_NO_PAD.encode(json!({ "tenant": "acme", "user": "bob" }).to_string());
    assert_eq!(service.page(Method::GET, "/v1/grants", &changed).await, 401, "another user");

    let no_tenant = signed("GET", "/v1/grants", ("m-5", now()), &json!({ "user": "ana" }));
    assert_eq!(service.page(Method::GET, "/v1/grants", &no_tenant).await, 401, "no tenant");

    // Size, paths and methods.
    let small = service.client.post(service.url("/v1/grants/revoke")).bearer_auth(&good).body("x");
    assert_eq!(checked(small.send().await.unwrap()).await.0, 413);
    // Clients that announce a body and do not send it, more than are handled at once, delay no other request.
    let mut slow = Vec::new();
    for _ in 0..70 {
        let mut client = tokio::net::TcpStream::connect(service.base.trim_start_matches("http://")).await.unwrap();
        client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n").await.unwrap();
        slow.push(client);
    }
    assert_eq!(service.get("/v1/history", &good).await.0, 200);
    drop(slow);
    for path in ["/", "/v1", "/v1/grants/../../etc", "/v1/users/bob/grants", "/metrics"] {
        assert_eq!(service.get(path, &good).await.0, 404, "{path}");
    }
    let described: Value = serde_json::from_str(
        &service.client.get(service.url("/openapi.json")).send().await.unwrap().text().await.unwrap(),
    )
    .unwrap();
    for (path, item) in described["paths"].as_object().unwrap() {
        let path = path.replace("{id}", &name("none"));
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
            let is_described = item.get(method.as_str().to_lowercase()).is_some();
            let answer = service.client.request(method.clone(), service.url(&path)).send().await.unwrap();
            let (status, _) = checked(answer).await;
            let is_served = !matches!(status, 404 | 405);
            assert_eq!(is_served, is_described, "{method} {path}: {status}");
        }
    }
    assert!(web.requests().is_empty());

    // The limit of one user does not concern others.
    let carl = issuer.of("acme", "carl");
    let mut last = 0;
    for _ in 0..21 {
        last = service.get("/v1/history", &carl).await.0;
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429);
    assert_eq!(service.get("/v1/history", &issuer.of("acme", "dora")).await.0, 200);
    drop(service);
    store.close().await;
}

#[test]
fn user_api_reports_unavailable_store() {
    with_provider(read_without_the_store);
}

async fn read_without_the_store(web: &Web) {
    let (folder, issuer) = (TempDir::new().unwrap(), Issuer::new());
    let away = format!("http://127.0.0.1:{}", free_port());
    let service = Service::start(folder, &away, web, &issuer).await;
    let ana = issuer.of("acme", "ana");
    for path in ["/v1/grants", "/v1/history"] {
        let (status, body) = service.get(path, &ana).await;
        assert_eq!((status, &body["error"]), (503, &json!("the events cannot be read now")));
    }
    assert_eq!(service.post("/v1/grants/revoke", &ana).await.0, 503);
    assert!(web.requests().is_empty());
}
