//! What comes of an incident outside: mail on a real SMTP server, a webhook, a revocation at an API; with each of them
//! failing in its own way.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test that cannot go on says so")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokenwarden::deliver::{Deliverer, Outbox, PAUSE_FILE, Running, Settings};
use tokenwarden::event::{BaselineId, Timestamp};
use tokenwarden::notify::{Email, EmailSettings, StartTls, Webhook, WebhookSettings};
use tokenwarden::port::{ActionRow, Clock, Notice, Notifier, Outbox as _, Revoker, StoreError};
use tokenwarden::revoke::{HttpRevoker, HttpRevokerSettings};
use tokenwarden::rule::RuleSet;
use tokenwarden::store::MemoryStore;
use tokenwarden::telemetry::{Health, Metrics, SystemClock};
use tokenwarden::verdict::{Action, CampaignId, Incident, IncidentId, Mode, RuleId, Severity, Signal, Target, Verdict};

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
        tell: true,
        revoke: Some(Target::Family(format!("grant-{number}"))),
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn quick() -> Settings {
    Settings {
        mode: Mode::Enforce,
        retry_wait: (Duration::from_millis(50), Duration::from_millis(400)),
        breaker_wait: Duration::from_millis(300),
        rows_wait: Duration::from_millis(20),
        ..Settings::default()
    }
}

/// A deliverer at work on a folder.
struct Rig {
    runtime: tokio::runtime::Runtime,
    outbox: Arc<Outbox>,
    store: Arc<MemoryStore>,
    metrics: Arc<Metrics>,
    running: Option<Running>,
}

impl Rig {
    fn start(
        folder: &Path,
        notifiers: impl FnOnce() -> Vec<Arc<dyn Notifier>>,
        revoker: Option<Arc<dyn Revoker>>,
        settings: Settings,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (outbox, notifiers) = {
            let _inside = runtime.enter();
            let notifiers = notifiers();
            (Arc::new(Outbox::open(folder, &notifiers, clock()).expect("an outbox")), notifiers)
        };
        let (store, metrics) = (Arc::new(MemoryStore::default()), Arc::new(Metrics::new()));
        let deliverer = Deliverer {
            outbox: Arc::clone(&outbox),
            notifiers,
            revoker,
            store: Arc::clone(&store),
            clock: clock(),
            metrics: Arc::clone(&metrics),
            health: Arc::new(Health::default()),
            settings,
        };
        let running = Some(deliverer.start(runtime.handle()));
        Self { runtime, outbox, store, metrics, running }
    }

    fn take(&self, incidents: &[Incident]) {
        self.outbox.take(incidents).expect("they are taken");
    }

    fn notify(&self, key: &str, title: &str) {
        let notice = Notice { title: title.to_owned(), text: "What to do.".to_owned(), at: 1_795_000_000_000 };
        self.outbox.notify(key, notice).expect("it is stored");
    }

    /// Waits until nothing waits, then gives the trail as `kind outcome` lines.
    fn settled(&self) -> Vec<String> {
        let running = self.running.as_ref().expect("it runs");
        assert_eq!(self.runtime.block_on(running.settle(PATIENCE)), 0, "{:?}", self.trail());
        self.trail()
    }

    fn trail(&self) -> Vec<String> {
        self.store.actions().iter().map(|row| format!("{} {}", row.kind, row.outcome)).collect()
    }

    fn until(&self, what: &str, probe: impl Fn(&[ActionRow]) -> bool) {
        let found = eventually(PATIENCE, what, || probe(&self.store.actions()).then_some(()));
        assert!(found.is_some(), "{what}: {:?}", self.store.actions());
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
    let emails = Email::new(&settings, rules).expect("settings");
    emails.into_iter().map(|email| Arc::new(email) as Arc<dyn Notifier>).collect()
}

fn webhook(web: &Web) -> Vec<Arc<dyn Notifier>> {
    let settings = WebhookSettings {
        url: format!("{}/hook", web.url),
        secret: SecretString::from(SECRET),
        allow_private: false,
        ca_file: None,
    };
    vec![Arc::new(Webhook::new(&settings, clock()).expect("settings"))]
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
fn a_mail_arrives_over_tls_with_a_password_and_says_what_matters() {
    for tls in ["smtps", "starttls"] {
        let folder = tempfile::tempdir().expect("a folder");
        let smtp = Smtp::start(tls);
        let rig = Rig::start(folder.path(), || email(smtp.port, tls, &smtp.ca_file(), PASSWORD), None, quick());
        rig.take(&[incident(7, Mode::Shadow)]);
        // Folded headers and quoted-printable lines put together again.
        let mail = smtp.wait_for(1).remove(0).replace("=\r\n", "").replace("\r\n ", " ");
        for line in [
            "X-Tls: True",
            "X-Auth: True",
            "X-To: sec@example.com",
            "[HIGH] Token acme/grant-7: two holders, DE and BR",
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
fn a_mail_server_that_is_down_gets_the_mail_once_when_it_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let smtp = Smtp::start("smtps");
    let nobody = free_port();
    let rig = Rig::start(folder.path(), || email(nobody, "smtps", &smtp.ca_file(), PASSWORD), None, quick());
    rig.take(&[incident(7, Mode::Shadow)]);
    rig.until("it fails and is tried again", |rows| rows.iter().filter(|row| row.outcome == "retry").count() >= 2);
    rig.stop();
    // Another start, with the server up: what waited on disk goes out, and taking it again changes nothing.
    let rig = Rig::start(folder.path(), || email(smtp.port, "smtps", &smtp.ca_file(), PASSWORD), None, quick());
    rig.take(&[incident(7, Mode::Shadow)]);
    smtp.wait_for(1);
    rig.settled();
    rig.take(&[incident(7, Mode::Shadow)]);
    rig.settled();
    assert_eq!(smtp.mails().len(), 1);
    rig.stop();
}

#[test]
fn a_wrong_password_is_one_clear_error_and_the_alert_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let smtp = Smtp::start("starttls");
    let rig = Rig::start(folder.path(), || email(smtp.port, "starttls", &smtp.ca_file(), "wr0ng"), None, quick());
    rig.take(&[incident(7, Mode::Shadow)]);
    rig.until("it is refused", |rows| rows.iter().any(|row| row.kind == "alert_email"));
    let row = rig.store.actions().into_iter().find(|row| row.kind == "alert_email").expect("a row");
    assert_eq!(row.outcome, "retry");
    assert!(row.reason.starts_with("the mail server refuses our credentials (535"), "{}", row.reason);
    assert!(!row.reason.contains("wr0ng"), "{}", row.reason);
    assert_eq!(rig.outbox.waiting(), 1);
    rig.stop();
}

#[test]
fn validate_asks_whether_the_mail_server_takes_our_password() {
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
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!said.contains(password) && !String::from_utf8_lossy(&output.stderr).contains(password), "{output:?}");
        let failed: Vec<_> = said.lines().filter(|line| line.starts_with("FAILED")).map(str::to_owned).collect();
        (output.status.code(), failed.join("\n"), said)
    };
    let (status, failed, said) = validate(PASSWORD, port);
    assert_eq!((status, failed.as_str()), (Some(0), ""), "{said}");
    let (status, failed, _) = validate("wr0ng-secret", port);
    assert_eq!(status, Some(69));
    assert!(
        failed.starts_with("FAILED  alerts: email to sec@example.com: the mail server refuses our credentials (535 "),
        "{failed}"
    );
    assert!(failed.ends_with("); correct alert.email.username or its password"), "{failed}");
    let (status, failed, _) = validate(PASSWORD, free_port());
    assert_eq!(status, Some(69));
    assert!(failed.contains(": the mail server (alert.email.smtp_url) cannot be reached: "), "{failed}");
}

#[test]
fn a_webhook_is_tried_again_with_one_id_and_its_signature_verifies() {
    let (folder, web) = (tempfile::tempdir().expect("a folder"), Web::start());
    web.answer(&[500, 429, 200]);
    let rig = Rig::start(folder.path(), || webhook(&web), None, quick());
    rig.take(&[incident(7, Mode::Shadow)]);
    let requests = web.wait_for(3);
    assert_eq!(
        rig.settled(),
        ["revoke_family shadow", "alert_webhook retry", "alert_webhook retry", "alert_webhook done"]
    );
    for request in &requests {
        assert_eq!(request.header("webhook-id"), requests[0].header("webhook-id"));
        assert!(request.header("webhook-id").is_some() && request.is_signed_with(SECRET), "{request:?}");
    }
    let body: serde_json::Value = serde_json::from_str(&requests[0].body).expect("JSON");
    assert_eq!((&body["class_uid"], &body["incident"]["revocation"]), (&2004.into(), &"shadow".into()));
    rig.stop();
}

#[test]
fn who_says_when_to_come_again_is_not_asked_before() {
    let (folder, hook, api) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    hook.answer_come_again(1);
    api.answer_come_again(2);
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&api, "by_id")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.settled();
    for (web, seconds) in [(&hook, 1), (&api, 2)] {
        let requests = web.requests();
        let waited = requests[1].at - requests[0].at;
        assert!(waited >= Duration::from_secs(seconds), "{waited:?} instead of {seconds} s");
    }
    rig.stop();
}

#[test]
fn what_one_channel_refuses_for_good_is_told_by_the_other() {
    let (folder, smtp, hook) = (tempfile::tempdir().expect("a folder"), Smtp::start("smtps"), Web::start());
    hook.answer(&[400, 400]);
    let both = || [email(smtp.port, "smtps", &smtp.ca_file(), PASSWORD), webhook(&hook)].concat();
    let rig = Rig::start(folder.path(), both, None, quick());
    rig.take(&[incident(1, Mode::Shadow), incident(2, Mode::Shadow)]);
    let trail = rig.settled();
    let count = |wanted: &str| trail.iter().filter(|line| *line == wanted).count();
    assert_eq!(count("alert_webhook failed"), 2, "{trail:?}");
    let mails = smtp.mails();
    let told = mails.iter().filter(|mail| mail.contains("a channel does not take alerts")).count();
    assert!((1..=2).contains(&told), "{told} mails say so: once an hour, and the hour may turn");
    assert_eq!(mails.len() - told, 2, "and both alerts are there");
    assert_eq!(hook.requests().len(), 2, "it is not told of itself");
    rig.stop();
}

#[test]
fn alerts_of_one_moment_keep_their_order_also_after_a_restart() {
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
    let told: Vec<_> = hook.requests().iter().skip(1).map(|asked| asked.body.clone()).collect();
    assert_eq!(told.len(), 40);
    for (body, incident) in told.iter().zip(&incidents) {
        assert!(body.contains(&incident.id.to_string()), "{} is not next, but {body}", incident.id);
    }
    rig.stop();
}

#[test]
fn one_target_that_is_refused_does_not_speak_of_the_provider_and_refused_credentials_do() {
    for (status, opens) in [(400, false), (401, true)] {
        let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
        web.answer(&[status; 5]);
        let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&web, "rfc7009")), quick());
        rig.take(&(1..=5).map(|number| incident(number, Mode::Enforce)).collect::<Vec<_>>());
        let trail = rig.settled();
        assert_eq!(trail.iter().filter(|line| *line == "revoke_family failed").count(), 5, "{trail:?}");
        let told = hook.requests().iter().any(|asked| asked.body.contains("the provider does not revoke"));
        assert_eq!(told, opens, "{status}");
        rig.stop();
    }
}

#[test]
fn redirects_are_refused_and_410_ends_the_channel() {
    let (folder, web) = (tempfile::tempdir().expect("a folder"), Web::start());
    web.answer(&[307, 410]);
    let rig = Rig::start(folder.path(), || webhook(&web), None, quick());
    for number in 1..=3 {
        rig.take(&[incident(number, Mode::Shadow)]);
        rig.settled();
    }
    let failed = rig.trail().iter().filter(|line| *line == "alert_webhook failed").count();
    assert_eq!(failed, 3);
    assert_eq!(web.requests().len(), 2, "after 410 nothing is sent");
    rig.stop();
}

#[test]
fn a_revocation_that_fails_is_repeated_under_its_key_and_never_after_it_is_done() {
    let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    web.answer(&[503, 200]);
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&web, "rfc7009")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.settled();
    // A later change of the same incident asks for the same.
    rig.take(&[Incident { event_id: "event-8".to_owned(), change: 8, ..incident(7, Mode::Enforce) }]);
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
    let told: Vec<String> = hook
        .requests()
        .iter()
        .map(|request| {
            let body: serde_json::Value = serde_json::from_str(&request.body).expect("JSON");
            body["incident"]["revocation"].as_str().expect("a word").to_owned()
        })
        .collect();
    assert_eq!(told, ["waiting", "done", "done"], "first that it waits, then how it ended, then the later change");
    rig.stop();
}

#[test]
fn a_token_that_is_gone_already_counts_as_done() {
    let (folder, web) = (tempfile::tempdir().expect("a folder"), Web::start());
    web.answer(&[404]);
    let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&web, "by_id")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    assert_eq!(rig.settled(), ["revoke_family already_gone"]);
    let request = web.requests().remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("DELETE", "/tokens/grant-7"));
    rig.stop();
}

#[test]
fn shadow_alert_ceiling_and_pause_call_nobody() {
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
        rig.stop();
    }
    assert_eq!(web.requests().len(), 0);
}

#[test]
fn beyond_the_cap_people_are_told_and_nothing_is_called_also_after_a_restart() {
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
    let notices = hook.requests().iter().filter(|request| request.body.contains("the cap on revocations")).count();
    assert!((1..=2).contains(&notices), "{notices} notices: once an hour, and the hour may turn");
    rig.stop();
}

#[test]
fn a_provider_that_fails_is_left_alone_and_people_are_told_once() {
    let (folder, web, hook) = (tempfile::tempdir().expect("a folder"), Web::start(), Web::start());
    web.answer(&[500; 6]);
    let rig = Rig::start(folder.path(), || webhook(&hook), Some(revoker(&web, "rfc7009")), quick());
    rig.take(&[incident(1, Mode::Enforce)]);
    web.wait_for(5);
    rig.until("it is told", |_| hook.requests().iter().any(|r| r.body.contains("the provider does not revoke")));
    assert!(rig.metrics.text().contains("tokenwarden_revocation_breaker_open 1"), "{}", rig.metrics.text());
    let trail = rig.settled();
    assert_eq!(trail.iter().filter(|line| *line == "revoke_family done").count(), 1);
    assert!(rig.metrics.text().contains("tokenwarden_revocation_breaker_open 0"));
    let notices = hook.requests().iter().filter(|r| r.body.contains("the provider does not revoke")).count();
    assert_eq!(notices, 1);
    rig.stop();
}

#[test]
fn killed_between_the_deed_and_the_note_it_is_repeated_under_the_same_key() {
    let (folder, web) = (tempfile::tempdir().expect("a folder"), Web::start());
    let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&web, "rfc7009")), quick());
    rig.take(&[incident(7, Mode::Enforce)]);
    rig.settled();
    rig.stop();
    // The journal as the crash would have left it: without the note.
    let journal = folder.path().join("journal.ndjson");
    let text = std::fs::read_to_string(&journal).expect("a journal");
    let kept: Vec<_> = text.lines().take_while(|line| !line.contains(r#""record":"ended""#)).collect();
    assert!(kept.iter().any(|line| line.contains(r#""record":"called""#)), "{text}");
    std::fs::write(&journal, format!("{}\n{{\"record\":\"end", kept.join("\n"))).expect("a journal");
    let rig = Rig::start(folder.path(), Vec::new, Some(revoker(&web, "rfc7009")), quick());
    rig.settled();
    let requests = web.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].header("idempotency-key"), requests[1].header("idempotency-key"));
    rig.stop();
}

#[test]
fn the_store_being_down_holds_up_nothing_and_its_rows_come_later() {
    let (folder, hook) = (tempfile::tempdir().expect("a folder"), Web::start());
    let rig = Rig::start(folder.path(), || webhook(&hook), None, quick());
    for _ in 0..4 {
        rig.store.fail_next(StoreError::Retriable("down".to_owned()));
    }
    rig.take(&[incident(7, Mode::Shadow)]);
    hook.wait_for(1);
    rig.until("the rows come", |rows| rows.len() == 2);
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
fn notice_without_channel_is_not_left_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), Vec::new, None, quick());
    rig.notify("spool-full", "the spool is full");
    assert_eq!(rig.outbox.waiting(), 0);
    rig.stop();
}

#[test]
fn one_process_has_the_outbox() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = Outbox::open(folder.path(), &[], clock()).expect("an outbox");
    let error = Outbox::open(folder.path(), &[], clock()).err().expect("it is taken");
    assert!(error.to_string().contains("another process has it"), "{error}");
}
