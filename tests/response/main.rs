//! Alerts and revocations of an incident: mail with an SMTP server, webhook and revocation with an HTTP server, and their
//! failures.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

mod breakers;
mod channels;
mod digests;
mod faults;
mod limits;
mod mail;
mod messages;
mod revocations;
mod routes;
mod silences;
#[path = "../support/mod.rs"]
mod support;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tokenwarden::deliver::{
    DAMAGED_FILE, Deliverer, DigestSettings, Limits, Outbox, PAUSE_FILE, Route, RouteOf, Routes, Running, Settings,
};
use tokenwarden::event::{BaselineId, Timestamp};
use tokenwarden::notify::{Email, EmailSettings, StartTls, Webhook, WebhookSettings};
use tokenwarden::port::{
    Accepted, ActionOutcome, ActionRow, Alert, Clock, Confirmation, DeliveryError, Notice, Notifier, Outbox as _,
    Radius, RevokeRequest, Revoked, Revoker, Store, StoreError,
};
use tokenwarden::retry::RetryPolicy;
use tokenwarden::revoke::{HttpRevoker, HttpRevokerSettings};
use tokenwarden::rule::RuleSet;
use tokenwarden::telemetry::{Condition, Health, Metrics, SystemClock};
use tokenwarden::verdict::{
    Action, CampaignId, Incident, IncidentId, Mode, RuleId, Severity, Signal, Target, Verdict, Victim,
};

use support::actions::ActionStore;
use support::clock::{START, TestClock};
use support::process::{cache, eventually, free_port, keep_one_rule, keep_secret};
use support::smtp::{PASSWORD, Smtp, USER};
use support::web::Web;

const SECRET: &str = "a-secret-of-more-than-16-bytes";
const PATIENCE: Duration = Duration::from_secs(30);

fn incident(number: u64, mode: Mode) -> Incident {
    let at = Timestamp::from_millis(1_795_000_000_000).expect("a time");
    Incident {
        id: IncidentId(number),
        opened_at: at,
        updated_at: at,
        severity: Severity::High,
        verdict: Verdict::Revoke,
        baseline: BaselineId(number),
        subject: format!("grant-{number}"),
        tenant_id: "acme".to_owned(),
        token_id: format!("at-{number}"),
        family_id: format!("grant-{number}"),
        user_id: "ana <b>".to_owned(),
        app_id: "crm".to_owned(),
        session_id: format!("session-{number}"),
        token_type: tokenwarden::event::TokenType::Other,
        expires_at: None,
        event_id: format!("event-{number}"),
        change: number,
        campaign_id: CampaignId(0x43),
        victims: Vec::new(),
        victims_total: 1,
        tenant_is_new: false,
        log_odds: 8.1,
        signals: vec![Signal {
            rule: RuleId::ConcurrentUse,
            share: 4.6,
            p_value: 1e-4,
            fired: true,
            observed: "Berlin and São Paulo in turn".to_owned(),
            expected: "one holder".to_owned(),
            reason: "two holders take turns".to_owned(),
        }],
        reason: "two holders, DE and BR".to_owned(),
        action: Action::RevokeFamily,
        mode,
        report: true,
        revoke: Some(Target::Family(format!("grant-{number}"))),
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// The incident after a change by another event.
fn changed(incident: Incident, change: u64) -> Incident {
    Incident { event_id: format!("event-{change}"), change, ..incident }
}

/// An incident that grant number `victim` joins.
fn joined(number: u64, victim: u64, mode: Mode) -> Incident {
    let grant = format!("grant-{victim}");
    let known = (1..=victim).map(|known| Victim { family_id: format!("grant-{known}"), ..Victim::default() }.into());
    Incident {
        change: victim,
        event_id: format!("event-{victim}"),
        token_id: format!("at-{victim}"),
        family_id: grant.clone(),
        revoke: Some(Target::Family(grant)),
        victims: known.take(100).collect(),
        victims_total: u32::try_from(victim).expect("few victims"),
        ..incident(number, mode)
    }
}

fn quick() -> Settings {
    Settings {
        mode: Mode::Enforce,
        retry: RetryPolicy::new(Duration::from_millis(50), Duration::from_millis(400)),
        breaker_wait: Duration::from_millis(300),
        rows_wait: Duration::ZERO,
        ..Settings::default()
    }
}

/// Without limits of rules and applications.
fn of_tenants(of_tenant: u32, total: u32) -> Limits {
    Limits { of_rule: Some(of_tenant), of_rule_total: Some(total), ..Limits::new(of_tenant, total) }
}

/// A running deliverer with its outbox.
struct Rig {
    runtime: tokio::runtime::Runtime,
    outbox: Arc<Outbox>,
    store: Arc<ActionStore>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    clock: Arc<TestClock>,
    running: Option<Running>,
}

impl Rig {
    fn start(
        folder: &Path,
        notifiers: impl FnOnce() -> Vec<Arc<dyn Notifier>>,
        revoker: Option<Arc<dyn Revoker>>,
        settings: Settings,
    ) -> Self {
        Self::start_at(TestClock::start(), folder, notifiers, revoker, settings)
    }

    fn start_at(
        clock: Arc<TestClock>,
        folder: &Path,
        notifiers: impl FnOnce() -> Vec<Arc<dyn Notifier>>,
        revoker: Option<Arc<dyn Revoker>>,
        settings: Settings,
    ) -> Self {
        Self::open(clock, folder, (notifiers, revoker), settings, |outbox| outbox)
    }

    /// With routes, without a revoker.
    fn routed(
        folder: &Path,
        notifiers: impl FnOnce() -> Vec<Arc<dyn Notifier>>,
        routes: Routes,
        settings: Settings,
    ) -> Self {
        Self::open(TestClock::start(), folder, (notifiers, None), settings, |outbox| outbox.with_routes(routes))
    }

    /// With limits of messages, without a revoker.
    fn limited(
        folder: &Path,
        notifiers: impl FnOnce() -> Vec<Arc<dyn Notifier>>,
        limits: BTreeMap<String, DigestSettings>,
        clock: Arc<TestClock>,
    ) -> Self {
        Self::open(clock, folder, (notifiers, None), quick(), |outbox| outbox.with_digests(limits))
    }

    fn open(
        clock: Arc<TestClock>,
        folder: &Path,
        (notifiers, revoker): (impl FnOnce() -> Vec<Arc<dyn Notifier>>, Option<Arc<dyn Revoker>>),
        settings: Settings,
        with: impl FnOnce(Outbox) -> Outbox,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let time: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let (outbox, notifiers) = {
            let _inside = runtime.enter();
            let notifiers = notifiers();
            (Arc::new(with(Outbox::open(folder, &notifiers, Arc::clone(&time)).expect("an outbox"))), notifiers)
        };
        let (store, metrics, health) = (Arc::new(ActionStore::default()), Arc::new(Metrics::new()), Arc::default());
        let deliverer = Deliverer {
            outbox: Arc::clone(&outbox),
            notifiers,
            revoker,
            store: Arc::clone(&store),
            clock: time,
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            settings,
        };
        health.beat(clock.now_millis());
        let running = Some(deliverer.start(runtime.handle()));
        Self { runtime, outbox, store, metrics, health, clock, running }
    }

    fn take(&self, incidents: &[Incident]) {
        self.outbox.take(incidents).expect("the incidents are stored");
    }

    fn notify(&self, key: &str, title: &str) {
        let notice =
            Notice { title: title.to_owned(), text: "What to do.".to_owned(), at: 1_795_000_000_000, about: None };
        self.outbox.notify(key, notice).expect("the item is stored");
    }

    /// Advances time until no delivery waits, then returns the rows of `actions` as `kind outcome`. Messages are no longer
    /// delayed to be combined.
    fn settled(&self) -> Vec<String> {
        let running = self.running.as_ref().expect("the deliverer runs");
        let left = self.runtime.block_on(async {
            tokio::select! {
                left = running.settle(PATIENCE) => left,
                () = self.pass_time() => 0,
            }
        });
        assert_eq!(left, 0, "{:?}", self.trail());
        self.trail()
    }

    async fn pass_time(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.clock.advance(Duration::from_millis(50));
        }
    }

    fn trail(&self) -> Vec<String> {
        self.store.actions().iter().map(|row| format!("{} {}", row.kind, row.outcome.as_str())).collect()
    }

    /// Advances time until `probe` holds for the rows of `actions`.
    fn until(&self, what: &str, probe: impl Fn(&[ActionRow]) -> bool) {
        let found = eventually(PATIENCE, what, || {
            self.clock.advance(Duration::from_millis(500));
            probe(&self.store.actions()).then_some(())
        });
        assert!(found.is_some(), "{what}: {:?}", self.store.actions());
    }

    /// Waits until `probe` holds, without advancing the clock.
    fn wait(&self, what: &str, probe: impl Fn() -> bool) {
        let found = eventually(PATIENCE, what, || probe().then_some(()));
        assert!(found.is_some(), "{what}: {:?}\n{:?}", self.trail(), self.unready());
    }

    fn unready(&self) -> Vec<String> {
        self.health.beat(self.clock.now_millis());
        self.health.unready_reasons(self.clock.now_millis())
    }

    /// Outcomes of revocations, in the order of their rows.
    fn revocations(&self) -> Vec<String> {
        let rows = self.store.actions();
        let revocations = rows.iter().filter(|row| row.kind.starts_with("revoke"));
        revocations.map(|row| format!("{} {}", row.target, row.outcome.as_str())).collect()
    }

    fn stop(mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.stop(Duration::from_secs(5)));
        }
    }
}

fn email(port: u16, tls: &str, ca_file: &Path, password: &str) -> Vec<Arc<dyn Notifier>> {
    let settings = EmailSettings {
        smtp_url: format!("{}://localhost:{port}", if tls == "smtps" { "smtps" } else { "smtp" }),
        starttls: (tls != "smtps").then_some(StartTls::Required),
        from: "Warden <warden@example.com>".to_owned(),
        to: vec!["sec@example.com".to_owned()],
        username: Some(USER.to_owned()),
        password: Some(SecretString::from(password)),
        allow_plaintext: false,
        ca_file: Some(ca_file.to_owned()),
    };
    let (_, rules) = tokio::sync::watch::channel(Arc::new(RuleSet::builtin()));
    let emails = Email::new("email", &settings, rules).expect("settings");
    emails.into_iter().map(|email| Arc::new(email) as Arc<dyn Notifier>).collect()
}

fn webhook(web: &Web) -> Vec<Arc<dyn Notifier>> {
    webhook_at(web, clock())
}

fn webhook_at(web: &Web, clock: Arc<dyn Clock>) -> Vec<Arc<dyn Notifier>> {
    let settings = WebhookSettings {
        url: format!("{}/hook", web.url),
        secret: SecretString::from(SECRET),
        allow_private: false,
        ca_file: None,
    };
    vec![Arc::new(Webhook::new("webhook", &settings, clock).expect("settings"))]
}

fn revoker(web: &Web, preset: &str) -> Arc<dyn Revoker> {
    let text = format!(
        "preset = '{preset}'\nurl = '{}/tokens'\nclient_id = 'warden'\nclient_secret = 'revoke-s3cret'",
        web.url
    );
    let settings: HttpRevokerSettings = toml::from_str(&text).expect("settings");
    Arc::new(HttpRevoker::new(&settings, clock()).expect("settings"))
}

/// Messages of the webhook: seconds since the start of the clock, and the incident.
fn messages(hook: &Web) -> Vec<(i64, serde_json::Value)> {
    let requests = hook.requests();
    let message = |request: &support::web::Asked| {
        let at: i64 = request.header("webhook-timestamp")?.parse().ok()?;
        let body: serde_json::Value = serde_json::from_str(&request.body).ok()?;
        Some((at - support::clock::START / 1_000, body.get("incident")?.clone()))
    };
    requests.iter().filter_map(message).collect()
}

fn grants(message: &serde_json::Value, list: &str, field: &str) -> Vec<String> {
    let list = message[list].as_array().expect("a list").iter();
    list.map(|victim| victim[field].as_str().expect("a text").to_owned()).collect()
}

/// A webhook with this name.
fn named(name: &str, web: &Web) -> Arc<dyn Notifier> {
    let settings = WebhookSettings {
        url: format!("{}/{name}", web.url),
        secret: SecretString::from(SECRET),
        allow_private: false,
        ca_file: None,
    };
    Arc::new(Webhook::new(name, &settings, clock()).expect("settings"))
}

/// Ids of the incidents that `web` got, in order.
fn incidents_of(web: &Web) -> Vec<String> {
    let ids = web.requests().into_iter().filter_map(|asked| {
        let body: serde_json::Value = serde_json::from_str(&asked.body).ok()?;
        Some(body["incident"]["incident_id"].as_str()?.to_owned())
    });
    ids.collect()
}

fn ids(numbers: &[u64]) -> Vec<String> {
    numbers.iter().map(|number| IncidentId(*number).to_string()).collect()
}

/// An alert of severity medium without a revocation.
fn minor(number: u64) -> Incident {
    Incident {
        severity: Severity::Medium,
        verdict: Verdict::Alert,
        action: Action::Alert,
        revoke: None,
        ..incident(number, Mode::Alert)
    }
}

fn digest(messages_per_hour_max: usize) -> DigestSettings {
    DigestSettings { messages_per_hour_max, below: Severity::High, interval: Duration::from_secs(900) }
}
