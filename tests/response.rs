//! Alerts and revocations of an incident: mail with an SMTP server, webhook and revocation with an HTTP server, and their
//! failures.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test fails by panicking")]

#[path = "response/silences.rs"]
mod silences;
mod support;
#[path = "response/users.rs"]
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tokenwarden::deliver::{
    DAMAGED_FILE, Deliverer, DigestSettings, Outbox, PAUSE_FILE, Route, RouteOf, Routes, Running, Settings,
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
    let known = (1..=victim).map(|known| Victim { family_id: format!("grant-{known}"), ..Victim::default() });
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

#[test]
fn mail_is_sent_over_tls_with_a_password() {
    for tls in ["smtps", "starttls"] {
        let folder = tempfile::tempdir().expect("a folder");
        let smtp = Smtp::start(tls);
        let rig = Rig::start(folder.path(), || email(smtp.port, tls, &smtp.ca_file(), PASSWORD), None, quick());
        rig.take(&[incident(7, Mode::Shadow)]);
        // Joins folded headers and quoted-printable lines.
        let mail = smtp.wait_for(1).remove(0).replace("=\r\n", "").replace("\r\n ", " ");
        for line in [
            "X-Tls: True",
            "X-Auth: True",
            "X-To: sec@example.com",
            "[HIGH] acme/ana <b> crm: two holders",
            "References: <INC-0000000000000007@example.com>",
            "Content-Type: multipart/alternative",
        ] {
            assert!(mail.contains(line), "{tls}: no {line} in\n{mail}");
        }
        let (_, html) = mail.split_once("<!DOCTYPE html>").expect("HTML");
        assert!(html.contains("ana &lt;b&gt;") && !html.contains("ana <b>"), "{html}");
        assert_eq!(rig.settled(), ["revoke_family shadow", "alert_email done"]);
        rig.stop();
    }
}

#[test]
fn mail_is_sent_once_after_an_outage() {
    let folder = tempfile::tempdir().expect("a folder");
    let smtp = Smtp::start("smtps");
    let unused = free_port();
    let rig = Rig::start(folder.path(), || email(unused, "smtps", &smtp.ca_file(), PASSWORD), None, quick());
    rig.take(&[incident(7, Mode::Shadow)]);
    rig.until("the mail is retried", |rows| rows.iter().filter(|row| row.outcome == ActionOutcome::Retry).count() >= 2);
    rig.stop();
    // After a restart with the server available, the mail is sent, and a repeated incident is ignored.
    let rig = Rig::start(folder.path(), || email(smtp.port, "smtps", &smtp.ca_file(), PASSWORD), None, quick());
    rig.take(&[incident(7, Mode::Shadow)]);
    rig.settled();
    assert_eq!(smtp.mails().len(), 1);
    rig.take(&[incident(7, Mode::Shadow)]);
    rig.settled();
    assert_eq!(smtp.mails().len(), 1);
    rig.stop();
}

#[test]
fn mail_with_wrong_password_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let smtp = Smtp::start("starttls");
    let rig = Rig::start(folder.path(), || email(smtp.port, "starttls", &smtp.ca_file(), "wr0ng"), None, quick());
    rig.take(&[incident(7, Mode::Shadow)]);
    rig.until("the mail is rejected", |rows| rows.iter().any(|row| row.kind == "alert_email"));
    let row = rig.store.actions().into_iter().find(|row| row.kind == "alert_email").expect("a row");
    assert_eq!(row.outcome, ActionOutcome::Retry);
    assert!(row.reason.starts_with("the mail server rejects the credentials (535"), "{}", row.reason);
    assert!(!row.reason.contains("wr0ng"), "{}", row.reason);
    assert_eq!(rig.outbox.waiting(), 1);
    rig.stop();
}

#[test]
fn validate_tests_the_smtp_password() {
    let folder = tempfile::tempdir().expect("a folder");
    let smtp = Smtp::start("starttls");
    let keep = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    let (port, ca) = (smtp.port, smtp.ca_file());
    let email = format!(
        "rules_dir = 'rules'\n[source.file]\npath = 'events'\n[alert.email]\nfrom = 'warden@example.com'\nto = ['sec@example.com']\n\
         username = '{USER}'\npassword_file = 'password'\nca_file = '{}'\n",
        ca.display()
    );
    keep_one_rule(folder.path());
    let validate = |password: &str, port: u16| {
        keep("events", "");
        keep_secret(&folder.path().join("password"), password);
        keep("tokenwarden.toml", &format!("{email}smtp_url = 'smtp://localhost:{port}'\n"));
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
            .args(["validate", "--config", "tokenwarden.toml"])
            .current_dir(folder.path())
            .env_clear()
            .env("TOKENWARDEN_CACHE", cache())
            .output()
            .expect("tokenwarden runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!text.contains(password) && !String::from_utf8_lossy(&output.stderr).contains(password), "{output:?}");
        let failed: Vec<_> = text.lines().filter(|line| line.starts_with("FAILED")).map(str::to_owned).collect();
        (output.status.code(), failed.join("\n"), text)
    };
    let (status, failed, text) = validate(PASSWORD, port);
    assert_eq!((status, failed.as_str()), (Some(0), ""), "{text}");
    let (status, failed, _) = validate("wr0ng-secret", port);
    assert_eq!(status, Some(69));
    assert!(
        failed.starts_with("FAILED  alerts: email to sec@example.com: the mail server rejects the credentials (535 "),
        "{failed}"
    );
    assert!(failed.ends_with("); correct alert.email.username or its password"), "{failed}");
    let (status, failed, _) = validate(PASSWORD, free_port());
    assert_eq!(status, Some(69));
    assert!(failed.contains(": the mail server (alert.email.smtp_url) cannot be reached: "), "{failed}");
}

#[test]
fn webhook_is_retried_with_one_id_and_signature() {
    let (folder, web) = (tempfile::tempdir().expect("a folder"), Web::start());
    web.answer(&[500, 429, 200]);
    let rig = Rig::start(folder.path(), || webhook(&web), None, quick());
    rig.take(&[incident(7, Mode::Shadow)]);
    assert_eq!(
        rig.settled(),
        ["revoke_family shadow", "alert_webhook retry", "alert_webhook retry", "alert_webhook done"]
    );
    let requests = web.requests();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        assert_eq!(request.header("webhook-id"), requests[0].header("webhook-id"));
        assert!(request.header("webhook-id").is_some() && request.is_signed_with(SECRET), "{request:?}");
    }
    let body: serde_json::Value = serde_json::from_str(&requests[0].body).expect("JSON");
    assert_eq!((&body["class_uid"], &body["incident"]["revocation"]), (&2004.into(), &"shadow".into()));
    rig.stop();
}

#[test]
fn retry_after_is_respected() {
    let (folder, hook, api) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    hook.answer_come_again(100);
    api.answer_come_again(200);
    let clock = TestClock::start();
    let time = Arc::clone(&clock);
    let channel = || webhook_at(&hook, time);
    let rig = Rig::start_at(clock, folder.path(), channel, Some(revoker(&api, "by_id")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    api.wait_for(1);
    hook.wait_for(1);
    rig.wait("both responses are recorded", || rig.trail().len() == 2);
    for (second, (from_hook, from_api)) in [(99, (1, 1)), (100, (2, 1)), (199, (2, 1)), (200, (3, 2))] {
        let now = (rig.clock.now_millis() - support::clock::START) / 1_000;
        rig.clock.advance(Duration::from_secs(u64::try_from(second - now).expect("the clock does not go back")));
        hook.wait_for(from_hook);
        api.wait_for(from_api);
        assert_eq!(api.requests().len(), from_api, "after {second} s");
    }
    rig.stop();
}

#[test]
fn rejected_alert_is_reported_on_other_channel() {
    let (folder, smtp, hook) = (tempfile::tempdir().expect("a folder"), Smtp::start("smtps"), Web::start());
    hook.answer(&[400, 400]);
    let both = || [email(smtp.port, "smtps", &smtp.ca_file(), PASSWORD), webhook(&hook)].concat();
    let rig = Rig::start(folder.path(), both, None, quick());
    rig.take(&[incident(1, Mode::Shadow), incident(2, Mode::Shadow)]);
    let trail = rig.settled();
    let count = |wanted: &str| trail.iter().filter(|line| *line == wanted).count();
    assert_eq!(count("alert_webhook failed"), 2, "{trail:?}");
    let mails = smtp.mails();
    let notices = mails.iter().filter(|mail| mail.contains("An alert channel rejects alerts")).count();
    assert_eq!((notices, mails.len()), (1, 3), "one notice per hour, and both alerts");
    assert_eq!(hook.requests().len(), 2, "the notice is not sent to the channel that it concerns");
    rig.stop();
}

#[test]
fn alerts_keep_their_order_after_a_restart() {
    let (folder, hook) = (tempfile::tempdir().expect("a folder"), Web::start());
    let incidents: Vec<_> = (1..=40).rev().map(|number| incident(number, Mode::Shadow)).collect();
    let rig = Rig::start(folder.path(), || webhook(&hook), None, quick());
    hook.hold(true);
    rig.take(&incidents);
    hook.wait_for(1);
    rig.stop();
    hook.hold(false);
    let rig = Rig::start(folder.path(), || webhook(&hook), None, quick());
    rig.settled();
    let sent: Vec<_> = hook.requests().iter().skip(1).map(|asked| asked.body.clone()).collect();
    assert_eq!(sent.len(), 40);
    for (body, incident) in sent.iter().zip(&incidents) {
        assert!(body.contains(&incident.id.to_string()), "expected {}, got {body}", incident.id);
    }
    rig.stop();
}

#[test]
fn breaker_opens_on_rejected_credentials_only() {
    for (status, opens) in [(400, false), (401, true)] {
        let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
        web.answer(&[status; 5]);
        let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&web, "rfc7009")), quick());
        rig.take(&(1..=5).map(|number| incident(number, Mode::Enforce)).collect::<Vec<_>>());
        let trail = rig.settled();
        assert_eq!(trail.iter().filter(|line| *line == "revoke_family failed").count(), 5, "{trail:?}");
        assert_eq!(rig.outbox.held(), 5, "the revocations are retried later");
        let sent = hook.requests().iter().any(|asked| asked.body.contains("Revocation requests fail"));
        assert_eq!(sent, opens, "{status}");
        rig.stop();
    }
}

#[test]
fn only_channel_that_rejects_keeps_alerts_for_a_day() {
    let (folder, web) = (tempfile::tempdir().expect("a folder"), Web::start());
    web.answer(&[307, 410]);
    let clock = TestClock::start();
    let channel = || webhook_at(&web, Arc::clone(&clock) as _);
    let rig = Rig::start_at(Arc::clone(&clock), folder.path(), channel, None, quick());
    for number in 1..=3 {
        rig.take(&[incident(number, Mode::Shadow)]);
        rig.settled();
    }
    let failed = |rig: &Rig| rig.trail().iter().filter(|line| *line == "alert_webhook failed").count();
    assert_eq!((failed(&rig), rig.outbox.held()), (3, 3));
    assert_eq!(web.requests().len(), 2, "no request after 410");
    assert_eq!(rig.unready(), ["channel (webhook): the alert channel rejects alerts"]);
    assert!(rig.metrics.text().contains("tokenwarden_channel_rejecting{channel=\"webhook\"} 1"));
    clock.advance(Duration::from_secs(22 * 3_600));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(web.requests().len(), 2, "no request on the same day");
    web.answer(&[410]);
    clock.advance(Duration::from_secs(2 * 3_600));
    rig.wait("one alert is retried", || web.requests().len() == 3);
    rig.wait("all three alerts fail again", || failed(&rig) == 6);
    clock.advance(Duration::from_secs(24 * 3_600));
    web.wait_for(6);
    rig.wait("all alerts are accepted", || rig.outbox.held() == 0);
    assert_eq!(rig.unready(), Vec::<String>::new());
    assert!(rig.metrics.text().contains("tokenwarden_channel_rejecting{channel=\"webhook\"} 0"));
    rig.stop();
}

#[test]
fn rejected_mail_is_kept_until_restart() {
    let (folder, smtp) = (tempfile::tempdir().expect("a folder"), Smtp::start("smtps"));
    smtp.reject("554 5.7.1 rejected: grant-7 of ana");
    let channel = || email(smtp.port, "smtps", &smtp.ca_file(), PASSWORD);
    let rig = Rig::start(folder.path(), channel, None, quick());
    rig.take(&[incident(7, Mode::Shadow)]);
    rig.settled();
    assert_eq!(rig.unready(), ["channel (email sec@example.com): the alert channel rejects alerts"]);
    let row = rig.store.actions().into_iter().find(|row| row.kind == "alert_email").expect("a row");
    assert_eq!(row.outcome, ActionOutcome::Failed);
    assert_eq!(row.reason, "the mail server answered 554 5.7.1: 554 5.7.1 rejected: grant-7 of ana");
    rig.stop();
    smtp.accept();
    let rig = Rig::start(folder.path(), channel, None, quick());
    smtp.wait_for(1);
    rig.wait("no alert is held", || rig.outbox.held() == 0);
    assert_eq!(rig.unready(), Vec::<String>::new());
    rig.stop();
}

#[test]
fn revocation_is_retried_with_its_key_until_done() {
    let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    web.answer(&[503, 200]);
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&web, "rfc7009")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.settled();
    // A later change of the same incident requests the same revocation.
    rig.take(&[changed(incident(7, Mode::Enforce), 8)]);
    let trail = rig.settled();
    assert_eq!(
        trail.iter().filter(|line| line.starts_with("revoke")).collect::<Vec<_>>(),
        ["revoke_family retry", "revoke_family done"]
    );
    let requests = web.requests();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/tokens"));
        assert_eq!(request.body, "token=grant-7&token_type_hint=refresh_token");
        assert_eq!(request.header("idempotency-key"), requests[0].header("idempotency-key"));
        assert!(request.header("authorization").is_some_and(|value| value.starts_with("Basic ")));
    }
    let sent: Vec<String> = hook
        .requests()
        .iter()
        .map(|request| {
            let body: serde_json::Value = serde_json::from_str(&request.body).expect("JSON");
            body["incident"]["revocation"].as_str().expect("a string").to_owned()
        })
        .collect();
    assert_eq!(sent, ["waiting", "done", "done"], "waiting, the outcome, the later change");
    rig.stop();
}

#[test]
fn revocation_of_unknown_token_is_already_gone() {
    let (folder, web) = (tempfile::tempdir().expect("a folder"), Web::start());
    web.answer(&[404]);
    let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&web, "by_id")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    assert_eq!(rig.settled(), ["revoke_family already_gone"]);
    let request = web.requests().remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("DELETE", "/tokens/grant-7"));
    rig.stop();
}

/// A revoker whose revocations are verified by introspection.
fn verified(web: &Web, clock: Arc<dyn Clock>) -> Arc<dyn Revoker> {
    let text = format!(
        "preset = 'rfc7009'\nurl = '{0}/tokens'\nclient_id = 'warden'\nclient_secret = 'x'\n[verify]\nurl = '{0}/introspect'",
        web.url
    );
    let settings: HttpRevokerSettings = toml::from_str(&text).expect("settings");
    Arc::new(HttpRevoker::new(&settings, clock).expect("settings"))
}

#[test]
fn verified_revocation_has_its_times_in_row_and_alert() {
    let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    web.answer_body(200, "");
    web.answer_body(200, r#"{"active":true}"#);
    web.answer_body(200, r#"{"active":false}"#);
    let clock = TestClock::start();
    let revoker = verified(&web, Arc::clone(&clock) as _);
    let rig = Rig::start_at(clock, folder.path(), || webhook(&hook), Some(revoker), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.settled();
    let rows = rig.store.actions();
    let row = rows.iter().find(|row| row.kind == "revoke_family").expect("a row");
    let confirmation = row.confirmation.expect("a confirmation");
    assert!(confirmation.revoked_at >= START, "{row:?}");
    // The second read is half a second after the first.
    assert!(confirmation.verified_at.is_some_and(|at| at >= confirmation.revoked_at + 500), "{row:?}");
    assert_eq!(row.radius, Some(Radius::Grant));
    let last = hook.requests().pop().expect("an alert");
    let body: serde_json::Value = serde_json::from_str(&last.body).expect("JSON");
    assert_eq!(body["incident"]["confirmation"]["verified_at"], serde_json::json!(confirmation.verified_at));
    assert!(
        body["finding_info"]["desc"].as_str().is_some_and(|text| text.contains("found the token inactive")),
        "{body}"
    );
    rig.stop();
}

#[test]
fn revocation_that_leaves_the_token_active_is_reported() {
    let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    web.answer_body(200, "");
    for _ in 0..3 {
        web.answer_body(200, r#"{"active":true}"#);
    }
    let clock = TestClock::start();
    let revoker = verified(&web, Arc::clone(&clock) as _);
    let rig = Rig::start_at(clock, folder.path(), || webhook(&hook), Some(revoker), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.until("the failure is reported", |_| hook.requests().iter().any(|request| request.body.contains("\"failed\"")));
    let rows = rig.store.actions();
    let row = rows.iter().find(|row| row.kind == "revoke_family").expect("a row");
    assert_eq!((row.outcome, row.http_status, row.confirmation), (ActionOutcome::Failed, 200, None));
    assert_eq!(row.reason, "the provider answered 200, and the token is still active");
    let last = hook.requests().pop().expect("an alert");
    assert!(
        last.body.contains("NOT revoked: the grant grant-7 (the provider answered 200, and the token is still active)")
    );
    rig.stop();
}

#[test]
fn revocation_needs_enforce_mode_without_pause() {
    let web = Web::start();
    for (mode, ceiling, paused, outcome) in [
        (Mode::Shadow, Mode::Enforce, false, "revoke_family shadow"),
        (Mode::Alert, Mode::Enforce, false, "revoke_family proposed"),
        (Mode::Enforce, Mode::Shadow, false, "revoke_family shadow"),
        (Mode::Enforce, Mode::Enforce, true, "revoke_family paused"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        if paused {
            std::fs::write(folder.path().join(PAUSE_FILE), "").expect("a file");
        }
        let settings = Settings { mode: ceiling, ..quick() };
        let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&web, "rfc7009")), settings);
        rig.take(&[incident(7, mode)]);
        assert_eq!(rig.settled(), [outcome]);
        assert_eq!(rig.outbox.held(), usize::from(paused));
        rig.stop();
    }
    assert_eq!(web.requests().len(), 0);
}

#[test]
fn cap_on_revocations_outlasts_a_restart() {
    let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    let settings = Settings { revocations_per_hour_max: 2, ..quick() };
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&web, "rfc7009")), settings.clone());
    rig.take(&[1, 2, 3].map(|number| incident(number, Mode::Enforce)));
    rig.settled();
    rig.stop();
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&web, "rfc7009")), settings);
    rig.take(&[incident(4, Mode::Enforce)]);
    let trail = rig.settled();
    assert!(trail.contains(&"revoke_family capped".to_owned()), "{trail:?}");
    assert_eq!(web.requests().len(), 2);
    let notices = hook.requests().iter().filter(|request| request.body.contains("The cap on revocations")).count();
    assert_eq!(notices, 1, "one per hour");
    rig.stop();
}

#[test]
fn failing_provider_is_reported_once() {
    let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    web.answer(&[500; 6]);
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&web, "rfc7009")), quick());
    rig.take(&[incident(1, Mode::Enforce)]);
    rig.until("the notice is sent", |_| hook.requests().iter().any(|r| r.body.contains("Revocation requests fail")));
    assert!(rig.metrics.text().contains("tokenwarden_revocation_breaker_open 1"), "{}", rig.metrics.text());
    let trail = rig.settled();
    assert_eq!(trail.iter().filter(|line| *line == "revoke_family done").count(), 1);
    assert!(rig.metrics.text().contains("tokenwarden_revocation_breaker_open 0"));
    let notices = hook.requests().iter().filter(|r| r.body.contains("Revocation requests fail")).count();
    assert_eq!(notices, 1);
    rig.stop();
}

#[test]
fn revocation_without_outcome_is_retried() {
    let (folder, web) = (tempfile::tempdir().expect("a folder"), Web::start());
    let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&web, "rfc7009")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.settled();
    rig.stop();
    // The journal as after a crash: without the outcome.
    let journal = folder.path().join("journal.ndjson");
    let text = std::fs::read_to_string(&journal).expect("a journal");
    let kept: Vec<_> = text.lines().take_while(|line| !line.contains(r#""record":"ended""#)).collect();
    assert!(kept.iter().any(|line| line.contains(r#""record":"called""#)), "{text}");
    std::fs::write(&journal, format!("{}\n0123456789abcdef {{\"record\":\"end", kept.join("\n"))).expect("a journal");
    let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&web, "rfc7009")), quick());
    rig.settled();
    let requests = web.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].header("idempotency-key"), requests[1].header("idempotency-key"));
    rig.stop();
}

#[test]
fn alert_is_sent_while_the_store_is_down() {
    let (folder, hook) = (tempfile::tempdir().expect("a folder"), Web::start());
    let rig = Rig::start(folder.path(), || webhook(&hook), None, quick());
    for _ in 0..4 {
        rig.store.fail_next(StoreError::Retriable("down".to_owned()));
    }
    rig.take(&[incident(7, Mode::Shadow)]);
    hook.wait_for(1);
    rig.until("the rows are stored", |rows| rows.len() == 2);
    rig.stop();
}

#[test]
fn notice_is_sent_once_per_key_also_after_restart() {
    let (folder, hook) = (tempfile::tempdir().expect("a folder"), Web::start());
    for _ in 0..2 {
        let rig = Rig::start(folder.path(), || webhook(&hook), None, quick());
        rig.notify("spool-full", "the spool is full");
        rig.notify("spool-full", "the spool is full again");
        rig.notify("a key with spaces\r\nX-Header: 1", "topic not writable");
        rig.settled();
        rig.stop();
    }
    let requests = hook.requests();
    let keys: Vec<_> = requests.iter().filter_map(|request| request.header("webhook-id")).collect();
    assert_eq!(keys.len(), 2, "{requests:?}");
    assert_eq!(keys[0], "notice-spool-full");
    assert!(keys[1].starts_with("notice-") && !keys[1].contains(' '), "{keys:?}");
    assert!(requests[0].body.contains("the spool is full\""), "{requests:?}");
}

#[test]
fn notice_without_channel_is_dropped() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), Vec::new, None, quick());
    rig.notify("spool-full", "the spool is full");
    assert_eq!(rig.outbox.waiting(), 0);
    rig.stop();
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

#[test]
fn victims_that_join_are_reported_once_a_minute() {
    let (folder, hook) = (tempfile::tempdir().expect("a folder"), Web::start());
    let clock = TestClock::start();
    let channel = || webhook_at(&hook, Arc::clone(&clock) as _);
    let rig = Rig::start_at(Arc::clone(&clock), folder.path(), channel, None, quick());
    let join = |victim| {
        let alert = joined(7, victim, Mode::Shadow);
        rig.take(&[Incident { revoke: None, action: Action::Alert, ..alert }]);
    };
    join(1);
    hook.wait_for(1);
    rig.wait("the delivery is recorded", || rig.outbox.waiting() == 0);
    join(2);
    clock.advance(Duration::from_secs(5));
    hook.wait_for(2);
    rig.wait("the delivery is recorded", || rig.outbox.waiting() == 0);
    // 48 more, one per second. The minute since the last message ends at second 65.
    for victim in 3..=50 {
        clock.advance(Duration::from_secs(1));
        join(victim);
    }
    clock.advance(Duration::from_secs(11));
    std::thread::sleep(Duration::from_millis(100));
    clock.advance(Duration::from_secs(1));
    hook.wait_for(3);
    rig.wait("the delivery is recorded", || rig.outbox.waiting() == 0);
    let messages = messages(&hook);
    assert_eq!(messages.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 5, 65], "50 victims make 3 messages");
    let new = |message: usize| grants(&messages[message].1, "victims_new", "family_id");
    assert_eq!((new(0), new(1)), (vec!["grant-1".to_owned()], vec!["grant-2".to_owned()]));
    assert_eq!(new(2), (3..=50).map(|victim| format!("grant-{victim}")).collect::<Vec<_>>());
    assert_eq!(messages[2].1["victims_total"], 50);
    rig.stop();
}

#[test]
fn severity_that_rises_is_reported_at_once() {
    let (folder, hook) = (tempfile::tempdir().expect("a folder"), Web::start());
    let rig = Rig::start(folder.path(), || webhook(&hook), None, quick());
    let alert = Incident { revoke: None, ..incident(7, Mode::Shadow) };
    rig.take(std::slice::from_ref(&alert));
    hook.wait_for(1);
    rig.wait("the delivery is recorded", || rig.outbox.waiting() == 0);
    rig.take(&[Incident { severity: Severity::Critical, ..changed(alert, 8) }]);
    hook.wait_for(2);
    rig.stop();
}

#[test]
fn outcome_of_each_revocation_is_reported() {
    let (folder, api, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    api.answer(&[200, 404, 403, 200]);
    let clock = TestClock::start();
    let channel = || webhook_at(&hook, Arc::clone(&clock) as _);
    let settings = Settings { revocations_per_hour_max: 4, ..quick() };
    let rig = Rig::start_at(Arc::clone(&clock), folder.path(), channel, Some(revoker(&api, "by_id")), settings);
    rig.take(&[joined(7, 1, Mode::Enforce)]);
    hook.wait_for(1);
    for victim in 2..=5 {
        rig.take(&[joined(7, victim, Mode::Enforce)]);
    }
    rig.wait("all revocations have an outcome", || rig.revocations().len() == 5);
    clock.advance(Duration::from_secs(10));
    rig.wait("all outcomes are reported", || rig.outbox.waiting() == 0);
    let messages = messages(&hook);
    assert_eq!(messages.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 10]);
    let last = &messages[1].1;
    let mut outcomes: Vec<_> = grants(last, "revocations", "id")
        .into_iter()
        .zip(grants(last, "revocations", "revocation"))
        .map(|(id, outcome)| format!("{id} {outcome}"))
        .collect();
    assert_eq!(outcomes.pop().as_deref(), Some("grant-1 done"), "the outcome was reported before");
    assert_eq!(outcomes, ["grant-2 already_gone", "grant-3 failed", "grant-4 done", "grant-5 capped"]);
    assert_eq!((&last["revocations_done"], &last["revocations_not_done"]), (&3.into(), &2.into()));
    let notices = hook.requests().len() - messages.len();
    assert_eq!(notices, 1, "one notice about the limit");
    rig.stop();
}

#[test]
fn incident_does_not_delay_another_tenant() {
    let (folder, hook) = (tempfile::tempdir().expect("a folder"), Web::start());
    let rig = Rig::start(folder.path(), || webhook(&hook), None, quick());
    for victim in 1..=20 {
        let decoy = Incident { tenant_id: "decoys".to_owned(), revoke: None, ..joined(6, victim, Mode::Shadow) };
        rig.take(&[decoy]);
    }
    rig.take(&[Incident { revoke: None, ..incident(7, Mode::Shadow) }]);
    let found = eventually(PATIENCE, "both are reported", || {
        let tenants: Vec<_> = messages(&hook).iter().map(|(_, message)| message["tenant_id"].clone()).collect();
        tenants.contains(&"acme".into()).then_some(tenants.len())
    });
    assert_eq!(found, Some(2), "the clock is not advanced");
    rig.stop();
}

#[test]
fn capped_revocation_is_requested_later() {
    let (folder, api, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    let settings = Settings { revocations_per_hour_max: 2, ..quick() };
    let clock = TestClock::start();
    let start = || {
        let channel = || webhook(&hook);
        Rig::start_at(Arc::clone(&clock), folder.path(), channel, Some(revoker(&api, "by_id")), settings.clone())
    };
    let rig = start();
    rig.take(&[1, 2, 3, 4, 5].map(|number| incident(number, Mode::Enforce)));
    rig.settled();
    assert_eq!((api.requests().len(), rig.outbox.held()), (2, 3));
    rig.stop();
    let rig = start();
    clock.advance(Duration::from_secs(3_500));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(api.requests().len(), 2, "the hour is not over");
    clock.advance(Duration::from_secs(100));
    rig.wait("two more revocations are done", || rig.revocations() == ["grant-3 done", "grant-4 done"]);
    // A new revocation waits behind those that wait already.
    rig.take(&[incident(6, Mode::Enforce)]);
    clock.advance(Duration::from_secs(3_600));
    rig.wait("the others are done", || api.requests().len() == 6);
    rig.settled();
    let sent = messages(&hook).iter().filter(|(_, message)| message["incident_id"] == "INC-0000000000000005").count();
    assert_eq!(sent, 2, "one message for capped, one for done");
    assert_eq!(rig.outbox.held(), 0);
    rig.stop();
}

#[test]
fn cap_of_one_tenant_does_not_affect_others() {
    let (folder, api) = (tempfile::tempdir().expect("a folder"), Web::start());
    let settings = Settings { revocations_per_hour_max: 2, revocations_per_hour_total_max: 5, ..quick() };
    let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&api, "by_id")), settings);
    let of = |tenant: &str, number: u64| Incident { tenant_id: tenant.to_owned(), ..incident(number, Mode::Enforce) };
    rig.take(&(1..=10).map(|number| of("attacker", number)).collect::<Vec<_>>());
    rig.take(&[of("acme", 11), of("acme", 12), of("other", 13), of("other", 14)]);
    rig.settled();
    let mut made: Vec<_> = api.requests().iter().map(|request| request.path.clone()).collect();
    made.sort();
    let expected = [1, 2, 11, 12, 13].map(|number| format!("/tokens/grant-{number}"));
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(made, expected, "two per tenant, until the total is reached");
    rig.stop();
}

#[test]
fn revocation_of_a_user_counts_as_five() {
    let (folder, api) = (tempfile::tempdir().expect("a folder"), Web::start());
    let users = format!("preset = 'google_workspace_sign_out'\nradius = 'user'\nurl = '{}'\ntoken = 'x'", api.url);
    let users: HttpRevokerSettings = toml::from_str(&users).expect("settings");
    let users = Arc::new(HttpRevoker::new(&users, clock()).expect("settings"));
    let settings = Settings { revocations_per_hour_max: 9, ..quick() };
    let rig = Rig::start(folder.path(), Vec::new, Some(users), settings);
    rig.take(&[1, 2].map(|number| incident(number, Mode::Enforce)));
    rig.settled();
    assert_eq!(rig.revocations(), ["grant-1 done", "grant-2 capped"]);
    assert_eq!(api.requests()[0].path, "/admin/directory/v1/users/ana%20%3Cb%3E/signOut");
    rig.stop();
}

#[test]
fn invented_tenants_share_one_cap() {
    let (folder, api) = (tempfile::tempdir().expect("a folder"), Web::start());
    let settings = Settings { revocations_per_hour_max: 2, revocations_per_hour_total_max: 5, ..quick() };
    let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&api, "by_id")), settings);
    let invented = |number: u64| Incident {
        tenant_id: format!("invented-{number}"),
        tenant_is_new: true,
        ..incident(number, Mode::Enforce)
    };
    rig.take(&(1..=10).map(invented).collect::<Vec<_>>());
    rig.take(&[incident(11, Mode::Enforce), incident(12, Mode::Enforce)]);
    rig.settled();
    let mut made: Vec<_> = api.requests().iter().map(|request| request.path.clone()).collect();
    made.sort();
    assert_eq!(made, [1, 11, 12, 2].map(|number| format!("/tokens/grant-{number}")));
    assert_eq!(rig.outbox.held(), 8);
    rig.stop();
}

#[test]
fn paused_revocation_is_requested_after_the_pause() {
    let (folder, api, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    std::fs::write(folder.path().join(PAUSE_FILE), "").expect("a file");
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&api, "by_id")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.settled();
    std::fs::remove_file(folder.path().join(PAUSE_FILE)).expect("the pause file exists");
    rig.clock.advance(Duration::from_secs(10));
    rig.wait("the revocation is done", || rig.revocations() == ["grant-7 paused", "grant-7 done"]);
    rig.settled();
    let outcomes: Vec<_> = messages(&hook).iter().map(|(_, message)| message["revocation"].clone()).collect();
    assert_eq!(outcomes, ["paused", "done"]);
    rig.stop();
}

#[test]
fn rejected_revocation_is_retried() {
    let (folder, api, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    api.answer(&[403, 403, 403, 200]);
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&api, "by_id")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.settled();
    rig.clock.advance(Duration::from_secs(900));
    api.wait_for(2);
    rig.wait("the delivery is recorded", || rig.revocations().len() == 2);
    // Another use by the thief changes the incident, which requests the same revocation.
    rig.take(&[changed(incident(7, Mode::Enforce), 8)]);
    rig.clock.advance(Duration::from_secs(60));
    api.wait_for(3);
    rig.wait("the delivery is recorded", || rig.revocations().len() == 3);
    rig.clock.advance(Duration::from_secs(3_600));
    rig.wait("the revocation is done", || rig.revocations().last().is_some_and(|last| last == "grant-7 done"));
    rig.settled();
    let outcomes: Vec<_> = messages(&hook).iter().map(|(_, message)| message["revocation"].clone()).collect();
    assert_eq!(outcomes, ["failed", "failed", "done"], "the outcome, the later change, the last outcome");
    let keys: std::collections::BTreeSet<_> =
        api.requests().iter().map(|request| request.header("idempotency-key").map(str::to_owned)).collect();
    assert_eq!(keys.len(), 1);
    rig.stop();
}

#[test]
fn revocation_is_given_up_after_a_week() {
    let (folder, api, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    api.answer(&[403; 100]);
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&api, "by_id")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.settled();
    for hour in 0..7 * 24 {
        let before = rig.revocations().len();
        rig.clock.advance(Duration::from_secs(3_600));
        if hour < 2 {
            rig.wait("the revocation is retried", || rig.revocations().len() > before);
        }
    }
    rig.wait("the revocation is given up", || rig.outbox.held() == 0);
    rig.settled();
    let row = rig.store.actions().into_iter().rfind(|row| row.kind == "revoke_family").expect("a row");
    assert_eq!((row.outcome, &*row.reason), (ActionOutcome::Failed, "given up after 7 days"));
    rig.stop();
}

#[test]
fn error_in_the_body_of_a_200_is_a_failure() {
    for (keys, status, body, outcome) in [
        ("done_when = '\"ok\":true'", 200, r#"{"ok":false,"error":"not_authed"}"#, "failed"),
        ("already_gone_when = 'token_revoked'", 200, r#"{"ok":false,"error":"token_revoked"}"#, "already_gone"),
        ("done_when = '\"ok\":true'", 200, r#"{"ok":true,"revoked":true}"#, "done"),
        (
            "preset = 'rfc7009'\nalready_gone_when = 'invalid_token'",
            400,
            r#"{"error":"invalid_token"}"#,
            "already_gone",
        ),
        ("preset = 'rfc7009'\nalready_gone_when = 'invalid_token'", 400, r#"{"error":"invalid_request"}"#, "failed"),
    ] {
        let (folder, api, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
        api.answer_body(status, body);
        let settings = format!("url = '{}/revoke'\ntoken = 'example'\n{keys}", api.url);
        let settings: HttpRevokerSettings = toml::from_str(&settings).expect("settings");
        let revoker = Arc::new(HttpRevoker::new(&settings, clock()).expect("settings"));
        let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker), quick());
        rig.take(&[incident(7, Mode::Enforce)]);
        rig.settled();
        assert_eq!(rig.revocations(), [format!("grant-7 {outcome}")], "{body}");
        let sent = messages(&hook);
        assert_eq!(sent[0].1["revocation"], outcome, "{body}");
        rig.stop();
    }
}

/// Two tenants with a grant of the same id.
fn of_two_tenants() -> [Incident; 2] {
    let acme = Incident { revoke: Some(Target::Family("grant-1".to_owned())), ..incident(7, Mode::Enforce) };
    let other =
        Incident { tenant_id: "Ünion / b".to_owned(), revoke: acme.revoke.clone(), ..incident(8, Mode::Enforce) };
    [acme, other]
}

#[test]
fn revocation_request_carries_the_tenant() {
    for preset in ["by_id", "rfc7009", "slack", "google", "twitch"] {
        let (folder, api) = (tempfile::tempdir().expect("a folder"), Web::start());
        let rig = Rig::start(
            folder.path(),
            Vec::new,
            Some(tenants_revoker(&api, &format!("preset = '{preset}'\nradius = 'grant'"))),
            quick(),
        );
        let none = Incident { tenant_id: String::new(), ..incident(9, Mode::Enforce) };
        rig.take(&of_two_tenants());
        rig.take(&[none]);
        let asked = api.wait_for(3);
        let mut tenants: Vec<_> = asked.iter().map(|asked| asked.header("tokenwarden-tenant")).collect();
        tenants.sort_unstable();
        assert_eq!(tenants, [None, Some("%C3%9Cnion%20%2F%20b"), Some("acme")], "{preset}");
        rig.stop();
    }
}

#[test]
fn grant_of_another_tenant_is_not_revoked() {
    for (tenant, expected) in [
        ("tenant = 'acme'", [vec!["grant-1 done"], vec!["grant-1 failed"]]),
        ("tenant = ''", [vec!["grant-1 failed"], vec!["grant-1 failed"]]),
        ("", [vec!["grant-1 done"], vec!["grant-1 done"]]),
    ] {
        let (folder, api) = (tempfile::tempdir().expect("a folder"), Web::start());
        let settings = format!("preset = 'by_id'\n{tenant}");
        let rig = Rig::start(folder.path(), Vec::new, Some(tenants_revoker(&api, &settings)), quick());
        let of_incident = |incident: Incident| {
            let before = rig.revocations().len();
            rig.take(&[incident]);
            rig.settled();
            rig.revocations().split_off(before)
        };
        assert_eq!(of_two_tenants().map(of_incident), expected, "{tenant}");
        let requests = expected.concat().iter().filter(|outcome| outcome.ends_with("done")).count();
        assert_eq!(api.requests().len(), requests, "{tenant}");
        rig.stop();
    }
}

fn tenants_revoker(web: &Web, settings: &str) -> Arc<dyn Revoker> {
    let text = format!("url = '{}/grants'\nclient_id = 'w'\nclient_secret = 'w'\n{settings}", web.url);
    let settings: HttpRevokerSettings = toml::from_str(&text).expect("settings");
    Arc::new(HttpRevoker::new(&settings, clock()).expect("settings"))
}

/// Failure of the test channel and revoker at incident 1.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Panic,
    Hang,
}

/// A channel and provider that fail at incident 1 only.
struct Faulty {
    fault: Fault,
    done: std::sync::Mutex<Vec<u64>>,
}

impl Faulty {
    fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self { fault, done: std::sync::Mutex::default() })
    }

    async fn act(&self, number: u64) {
        if number == 1 {
            match self.fault {
                Fault::Panic => panic!("grant-1 must not be logged"),
                Fault::Hang => std::future::pending().await,
            }
        }
        self.done.lock().expect("a lock").push(number);
    }

    fn done(&self) -> Vec<u64> {
        self.done.lock().expect("a lock").clone()
    }
}

#[async_trait]
impl Notifier for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn target(&self) -> String {
        "a test".to_owned()
    }

    async fn notify(&self, alert: Alert<'_>, _: &str) -> Result<Accepted, DeliveryError> {
        if let Alert::Incident { incident, .. } = alert {
            self.act(incident.id.0).await;
        }
        Ok(Accepted::default())
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        Ok(())
    }
}

#[async_trait]
impl Revoker for Faulty {
    fn accepts(&self, _: &Target) -> bool {
        true
    }

    async fn revoke(&self, request: RevokeRequest<'_>) -> Result<Revoked, DeliveryError> {
        let number = request.token_id.strip_prefix("at-").and_then(|number| number.parse().ok());
        self.act(number.expect("a number")).await;
        Ok(Revoked::Done { status: 200, confirmation: Confirmation::at(START) })
    }
}

#[test]
fn channel_panic_does_not_end_its_lane() {
    let (folder, hook, faulty) = (tempfile::tempdir().expect("a folder"), Web::start(), Faulty::new(Fault::Panic));
    let channels = || [webhook(&hook), vec![Arc::clone(&faulty) as _]].concat();
    let rig = Rig::start(folder.path(), channels, None, quick());
    rig.take(&[1, 2].map(|number| Incident { revoke: None, ..incident(number, Mode::Shadow) }));
    rig.wait("the lane panics", || rig.metrics.text().contains("tokenwarden_lane_panics_total{lane=\"faulty\"} 1"));
    rig.wait("the panic is reported", || {
        rig.unready() == ["lane (faulty): the delivery lane has failed and is being restarted"]
    });
    rig.until("the alert is held", |rows| {
        rows.iter().any(|row| row.kind == "alert_faulty" && row.outcome == ActionOutcome::Failed)
    });
    rig.settled();
    assert_eq!((faulty.done(), rig.outbox.held()), (vec![2], 1));
    assert!(rig.metrics.text().contains("tokenwarden_lane_panics_total{lane=\"faulty\"} 3"), "{}", rig.metrics.text());
    assert!(hook.requests().iter().any(|request| request.body.contains("faulty rejects alerts")));
    assert!(!rig.unready().iter().any(|reason| reason.starts_with("lane ")), "{:?}", rig.unready());
    rig.stop();
}

#[test]
fn revoker_panic_does_not_end_its_lane() {
    let (folder, hook, faulty) = (tempfile::tempdir().expect("a folder"), Web::start(), Faulty::new(Fault::Panic));
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(Arc::clone(&faulty) as _), quick());
    rig.take(&[1, 2].map(|number| incident(number, Mode::Enforce)));
    rig.settled();
    assert_eq!((faulty.done(), rig.outbox.held()), (vec![2], 1), "the revocation is retried later");
    let outcomes = rig.revocations();
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "grant-1 failed").count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "grant-2 done").count(), 1, "{outcomes:?}");
    let sent = messages(&hook);
    let of_first: Vec<_> =
        sent.iter().filter(|(_, m)| m["token_id"] == "at-1").map(|(_, m)| &m["revocation"]).collect();
    assert_eq!(of_first, ["waiting", "failed"]);
    rig.stop();
}

/// A store that panics at its first three writes.
#[derive(Default)]
struct Panicky {
    store: ActionStore,
    panics: std::sync::atomic::AtomicUsize,
}

#[async_trait]
impl Store for Panicky {
    type Rows = <ActionStore as Store>::Rows;

    fn new_rows(&self) -> Self::Rows {
        self.store.new_rows()
    }

    async fn write(&self, rows: &Self::Rows) -> Result<(), StoreError> {
        let before = self.panics.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert!(before >= 3, "panic while writing");
        self.store.write(rows).await
    }
}

#[test]
fn lane_that_panics_is_restarted_with_back_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (clock, store) = (TestClock::start(), Arc::new(Panicky::default()));
    let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::default()));
    let time: Arc<dyn Clock> = Arc::clone(&clock) as _;
    let outbox = Arc::new(Outbox::open(folder.path(), &[], Arc::clone(&time)).expect("an outbox"));
    let deliverer = Deliverer {
        outbox: Arc::clone(&outbox),
        notifiers: Vec::new(),
        revoker: None,
        store: Arc::clone(&store),
        clock: time,
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        settings: quick(),
    };
    let running = deliverer.start(runtime.handle());
    outbox.take(&[incident(7, Mode::Shadow)]).expect("the item is stored");
    let panics = |count: usize| format!("tokenwarden_lane_panics_total{{lane=\"rows\"}} {count}");
    let is_unready = || health.holds(Condition::Lane, clock.now_millis());
    for count in 1..=3 {
        let panicked =
            eventually(PATIENCE, "the lane panics", || metrics.text().contains(&panics(count)).then_some(()));
        assert!(panicked.is_some() && is_unready(), "{count}");
        std::thread::sleep(Duration::from_millis(50));
        assert!(metrics.text().contains(&panics(count)), "the lane is not restarted before its back-off");
        clock.advance(Duration::from_secs(4));
    }
    let written = eventually(PATIENCE, "the row is written", || (!store.store.actions().is_empty()).then_some(()));
    assert!(written.is_some());
    let recovered = eventually(PATIENCE, "the lane has recovered", || (!is_unready()).then_some(()));
    assert!(recovered.is_some());
    runtime.block_on(running.stop(Duration::from_secs(5)));
}

#[test]
fn hanging_call_fails_after_its_timeout() {
    let (folder, faulty) = (tempfile::tempdir().expect("a folder"), Faulty::new(Fault::Hang));
    let settings = Settings { call_wait: Duration::from_secs(6), ..quick() };
    let rig = Rig::start(folder.path(), || vec![Arc::clone(&faulty) as _], Some(Arc::clone(&faulty) as _), settings);
    rig.take(&[1, 2].map(|number| incident(number, Mode::Enforce)));
    rig.until("the other alert is sent", |rows| {
        rows.iter().any(|row| row.kind == "alert_faulty" && row.outcome == ActionOutcome::Done)
    });
    assert_eq!(faulty.done(), [2, 2], "the revocation and the message of incident 2");
    let rows = rig.store.actions();
    let failed = rows.iter().find(|row| row.outcome == ActionOutcome::Retry).expect("a row");
    assert_eq!(failed.reason, "no answer within 6 s");
    rig.stop();
}

#[test]
fn damaged_outbox_is_reported_once() {
    let (folder, hook) = (tempfile::tempdir().expect("a folder"), Web::start());
    hook.hold(true);
    let rig = Rig::start(folder.path(), || webhook(&hook), None, quick());
    rig.take(&[1, 2, 3].map(|number| Incident { revoke: None, ..incident(number, Mode::Shadow) }));
    rig.stop();
    let journal = folder.path().join("journal.ndjson");
    let text = std::fs::read_to_string(&journal).expect("a journal");
    assert_eq!(text.matches("\"reason\":\"two holders, DE and BR\"").count(), 3, "{text}");
    std::fs::write(&journal, text.replacen("two holders, DE", "two holders, US", 1)).expect("a journal");
    hook.hold(false);
    let sent_before = hook.requests().len();
    for start in 1..=2 {
        let rig = Rig::start(folder.path(), || webhook(&hook), None, quick());
        rig.settled();
        let text = rig.metrics.text();
        assert_eq!(text.contains("tokenwarden_outbox_damaged 1"), start == 1, "{text}");
        let reason = "outbox_damaged: lines of the outbox are damaged; alerts or revocations may be lost";
        rig.wait("the damage is reported", || rig.unready() == [reason]);
        if start == 2 {
            std::fs::remove_file(folder.path().join(DAMAGED_FILE)).expect("a copy");
            rig.clock.advance(Duration::from_secs(10));
            rig.wait("the condition is cleared", || rig.unready().is_empty());
        }
        rig.stop();
    }
    let requests = hook.requests().split_off(sent_before);
    let notices = requests.iter().filter(|request| request.body.contains("The outbox is damaged")).count();
    assert_eq!((notices, requests.len()), (1, 3), "one notice, and the two readable incidents");
}

#[test]
fn outbox_is_locked_by_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = Outbox::open(folder.path(), &[], clock()).expect("an outbox");
    let error = Outbox::open(folder.path(), &[], clock()).err().expect("the outbox is in use");
    assert!(error.to_string().contains("another process has it"), "{error}");
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

fn route(tenant: Option<&str>, channel: &str) -> Route {
    let tenants = tenant.map(|tenant| BTreeSet::from([tenant.to_owned()]));
    let of = RouteOf::Incidents { severity: None, tenants, rules: None };
    Route { of, channels: vec![channel.to_owned()], continues: false }
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

#[test]
fn routes_choose_the_channels() {
    let (folder, soc, oncall) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    let notice = Route { of: RouteOf::Notices, channels: vec!["soc".to_owned()], continues: false };
    let routes = Routes { routes: vec![route(Some("acme"), "oncall"), notice], ..Routes::default() };
    let both = || vec![named("soc", &soc), named("oncall", &oncall)];
    let rig = Rig::routed(folder.path(), both, routes, quick());
    let other = Incident { tenant_id: "other".to_owned(), ..incident(2, Mode::Alert) };
    rig.take(&[incident(1, Mode::Alert), other]);
    rig.notify("caps", "the caps are reached");
    rig.settled();
    assert_eq!(incidents_of(&oncall), ids(&[1, 2]));
    assert_eq!(incidents_of(&soc), ids(&[2]), "an incident without a route goes to all channels");
    assert_eq!((soc.requests().len(), oncall.requests().len()), (2, 2), "the notice goes to its route only");
    // A change that another route matches is sent there, and to the channel that has the incident already.
    rig.take(&[Incident { tenant_id: "other".to_owned(), ..changed(incident(1, Mode::Alert), 9) }]);
    rig.settled();
    assert_eq!((incidents_of(&soc), incidents_of(&oncall)), (ids(&[2, 1]), ids(&[1, 2, 1])));
    rig.stop();
}

#[test]
fn rejected_alert_goes_to_the_fallback_once() {
    for fallback in [&["soc", "mail", "oncall"][..], &[]] {
        let (folder, soc, oncall) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
        soc.answer(&[400, 400]);
        let fallback = fallback.iter().map(|name| (*name).to_owned()).collect();
        let routes = Routes { routes: vec![route(None, "soc")], fallback, ..Routes::default() };
        let both = || vec![named("soc", &soc), named("oncall", &oncall)];
        let rig = Rig::routed(folder.path(), both, routes, quick());
        rig.take(&[incident(1, Mode::Alert), incident(2, Mode::Alert)]);
        rig.settled();
        assert_eq!(incidents_of(&oncall), ids(&[1, 2]), "no other channel has them");
        assert_eq!(oncall.requests().len(), 3, "and one notice that the channel rejects alerts");
        // The channel works again.
        rig.take(&[incident(3, Mode::Alert)]);
        rig.settled();
        assert_eq!((incidents_of(&soc), incidents_of(&oncall)), (ids(&[1, 2, 3]), ids(&[1, 2])));
        rig.stop();
    }
}

#[test]
fn rejected_message_does_not_disable_the_fallback() {
    let (folder, soc, backup, other) =
        (tempfile::tempdir().expect("a folder"), Web::start(), Web::start(), Web::start());
    soc.answer(&[400; 10]);
    // A hostile message, and the notice that `soc` rejects alerts.
    backup.answer(&[400, 400]);
    let routes = Routes { routes: vec![route(None, "soc")], fallback: vec!["backup".to_owned()], ..Routes::default() };
    let all = || vec![named("soc", &soc), named("backup", &backup), named("other", &other)];
    let rig = Rig::routed(folder.path(), all, routes, quick());
    rig.take(&[incident(1, Mode::Alert)]);
    rig.settled();
    assert_eq!((incidents_of(&backup), incidents_of(&other)), (ids(&[1]), ids(&[1])), "`other` has what both reject");
    rig.take(&[incident(2, Mode::Alert), incident(3, Mode::Alert)]);
    rig.settled();
    assert_eq!((incidents_of(&backup), incidents_of(&other)), (ids(&[1, 2, 3]), ids(&[1])));
    assert_eq!(rig.outbox.held(), 0);
    rig.stop();
}

#[test]
fn message_that_fallback_and_channel_reject_is_not_lost() {
    let (folder, soc, backup, other) =
        (tempfile::tempdir().expect("a folder"), Web::start(), Web::start(), Web::start());
    soc.answer(&[503; 40]);
    backup.answer(&[400]);
    let fallback_after = Duration::from_secs(1);
    let routes = Routes { routes: vec![route(None, "soc")], fallback: vec!["backup".to_owned()], fallback_after };
    let all = || vec![named("soc", &soc), named("backup", &backup), named("other", &other)];
    let rig = Rig::routed(folder.path(), all, routes, quick());
    rig.take(&[incident(1, Mode::Alert)]);
    rig.until("the fallback rejects it", |rows| {
        rows.iter().any(|row| row.kind == "alert_backup" && row.outcome == ActionOutcome::Failed)
    });
    soc.answer(&[400]);
    rig.until("the channel rejects it", |rows| {
        rows.iter().any(|row| row.kind == "alert_soc" && row.outcome == ActionOutcome::Failed)
    });
    rig.settled();
    assert_eq!(incidents_of(&other), ids(&[1]));
    rig.stop();
}

#[test]
fn failing_channel_hands_over_after_a_time() {
    let (folder, soc, oncall) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    soc.answer(&[503; 200]);
    let fallback_after = Duration::from_secs(10);
    let routes = Routes { routes: vec![route(None, "soc")], fallback: vec!["oncall".to_owned()], fallback_after };
    let both = || vec![named("soc", &soc), named("oncall", &oncall)];
    let rig = Rig::routed(folder.path(), both, routes, quick());
    let failing = |seconds: u64| {
        for _ in 0..seconds * 20 {
            let asked = soc.requests().len();
            rig.clock.advance(Duration::from_millis(50));
            std::thread::sleep(Duration::from_millis(if asked == soc.requests().len() { 1 } else { 3 }));
        }
    };
    rig.take(&[incident(1, Mode::Alert), incident(2, Mode::Alert)]);
    soc.wait_for(1);
    failing(5);
    assert!(oncall.requests().is_empty(), "it has failed for 5 s");
    rig.until("the fallback has both", |_| incidents_of(&oncall).len() == 2);
    rig.take(&[incident(3, Mode::Alert)]);
    rig.until("the fallback has the third", |_| incidents_of(&oncall).len() == 3);
    rig.settled();
    assert_eq!(incidents_of(&oncall), ids(&[1, 2, 3]), "each once");
    let done =
        rig.store.actions().iter().filter(|row| row.kind == "alert_soc" && row.outcome == ActionOutcome::Done).count();
    assert_eq!(done, 3, "the channel gets them when it works again");
    rig.stop();
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

/// Titles of the digests that `web` got.
fn digests_of(web: &Web) -> Vec<String> {
    let titles = web.requests().into_iter().filter_map(|asked| {
        let body: serde_json::Value = serde_json::from_str(&asked.body).ok()?;
        body["message"].as_str().filter(|title| title.starts_with("Digest")).map(str::to_owned)
    });
    titles.collect()
}

#[test]
fn flood_becomes_one_digest_per_channel_and_interval() {
    let (folder, soc, oncall) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    let limits = BTreeMap::from([("soc".to_owned(), digest(10)), ("oncall".to_owned(), digest(5))]);
    let both = || vec![named("soc", &soc), named("oncall", &oncall)];
    let rig = Rig::limited(folder.path(), both, limits, TestClock::start());
    let collected = |kind: &str| {
        let rows = rig.store.actions();
        rows.iter().filter(|row| row.kind == kind && row.outcome == ActionOutcome::Collected).count()
    };
    for batch in 0..10 {
        let incidents: Vec<_> = (1..=1_000).map(|number| minor(batch * 1_000 + number)).collect();
        rig.take(&incidents);
        assert!(rig.outbox.waiting() <= 21_000, "{}", rig.outbox.waiting());
    }
    rig.wait("nothing waits", || rig.outbox.waiting() == 0);
    rig.wait("all are sent or collected", || collected("alert_soc") == 9_990 && collected("alert_oncall") == 9_995);
    assert_eq!((soc.requests().len(), oncall.requests().len()), (10, 5));
    // A verdict `revoke`, and an alert that is grave enough, are sent at once.
    let grave = Incident { severity: Severity::High, ..minor(20_002) };
    rig.take(&[incident(20_001, Mode::Shadow), grave]);
    soc.wait_for(12);
    oncall.wait_for(7);
    rig.wait("nothing waits", || rig.outbox.waiting() == 0);
    rig.clock.advance(Duration::from_secs(899));
    assert_eq!((digests_of(&soc).len(), digests_of(&oncall).len()), (0, 0));
    rig.clock.advance(Duration::from_secs(1));
    soc.wait_for(13);
    oncall.wait_for(8);
    assert_eq!(digests_of(&soc), ["Digest of 9,990 alerts in 15 min, highest severity: medium"]);
    assert_eq!(digests_of(&oncall), ["Digest of 9,995 alerts in 15 min, highest severity: medium"]);
    // The next interval of the same hour.
    rig.wait("nothing waits", || rig.outbox.waiting() == 0);
    rig.take(&[minor(30_001), minor(30_002)]);
    rig.wait("both are collected", || collected("alert_soc") == 9_992 && collected("alert_oncall") == 9_997);
    rig.clock.advance(Duration::from_secs(900));
    soc.wait_for(14);
    oncall.wait_for(9);
    assert_eq!(digests_of(&soc).len() + digests_of(&oncall).len(), 4);
    // After an hour, alerts are sent one by one again.
    rig.clock.advance(Duration::from_secs(3_600));
    rig.take(&[minor(40_001)]);
    soc.wait_for(15);
    assert!(incidents_of(&soc).contains(&IncidentId(40_001).to_string()));
    rig.stop();
}

#[test]
fn digest_outlasts_a_restart() {
    let (folder, soc) = (tempfile::tempdir().expect("a folder"), Web::start());
    let start = |clock| {
        let limits = BTreeMap::from([("soc".to_owned(), digest(1))]);
        Rig::limited(folder.path(), || vec![named("soc", &soc)], limits, clock)
    };
    let rig = start(TestClock::start());
    rig.take(&[minor(1), minor(2), minor(3)]);
    soc.wait_for(1);
    rig.wait("two are collected", || rig.trail().len() == 3);
    let clock = Arc::clone(&rig.clock);
    rig.stop();
    let rig = start(clock);
    rig.clock.advance(Duration::from_secs(900));
    soc.wait_for(2);
    assert_eq!(digests_of(&soc), ["Digest of 2 alerts in 15 min, highest severity: medium"]);
    // The end of the input does not wait for the interval.
    rig.take(&[minor(4), minor(5)]);
    rig.settled();
    // The first digest was a message, too, so that both are collected.
    assert_eq!(digests_of(&soc)[1..], ["Digest of 2 alerts in 1 min, highest severity: medium"]);
    rig.stop();
}
