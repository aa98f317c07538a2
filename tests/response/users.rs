//! Messages to the users whose access was revoked.

use tokenwarden::deliver::{UserLimits, UserNotices};
use tokenwarden::notify::{UserNoticeSettings, UserTexts, open_users};

use super::*;

const LIMITS: UserLimits = UserLimits { per_user_per_day: 1, per_hour: 3 };

/// Mail to users of `example.com`, and a webhook for all.
fn settings(smtp: &Smtp, hook: &Web, folder: &Path) -> UserNoticeSettings {
    let text = format!(
        "domains = ['example.com']\ntemplates_dir = '{}'\n\
         [email]\nsmtp_url = 'smtps://localhost:{}'\nfrom = 'security@example.com'\nusername = '{USER}'\n\
         password = '{PASSWORD}'\nca_file = '{}'\n\
         [webhook]\nurl = '{}/users'\nsecret = '{SECRET}'\n",
        folder.join("texts").display(),
        smtp.port,
        smtp.ca_file().display(),
        hook.url
    );
    toml::from_str(&text).expect("settings")
}

fn rig(folder: &Path, settings: &UserNoticeSettings, api: &Web, alerts: &Web) -> Rig {
    let clock = TestClock::start();
    let notifiers = || webhook(alerts);
    let time = Arc::clone(&clock);
    let with = |outbox: Outbox| {
        let notifiers = open_users(settings, time as _).expect("settings");
        let texts = UserTexts::new(settings.templates_dir.clone());
        outbox.with_users(Some(Arc::new(UserNotices { notifiers, texts, limits: LIMITS })))
    };
    Rig::open(clock, folder, (notifiers, Some(revoker(api, "by_id"))), quick(), with)
}

/// A revocation of a grant of `user`.
fn of(user: &str, number: u64) -> Incident {
    Incident { user_id: user.to_owned(), ..incident(number, Mode::Enforce) }
}

/// Outcomes of the messages to users: user and outcome.
fn outcomes(rig: &Rig) -> Vec<(String, &'static str)> {
    let rows = rig.store.actions();
    let rows = rows.iter().filter(|row| row.kind == "notify_user");
    let mut outcomes: Vec<_> = rows.map(|row| (row.target.clone(), row.outcome.as_str())).collect();
    outcomes.sort();
    outcomes
}

#[test]
fn user_is_informed_after_a_revocation() {
    let folder = tempfile::tempdir().expect("a folder");
    let (smtp, hook, api, alerts) = (Smtp::start("smtps"), Web::start(), Web::start(), Web::start());
    let rig = rig(folder.path(), &settings(&smtp, &hook, folder.path()), &api, &alerts);
    let hostile = "ana@example.com\r\nBcc: evil@example.org\u{202e}";
    // Neither a revocation that is only proposed nor one that fails is done.
    api.answer(&[400]);
    rig.take(&[of("eve@example.com", 1)]);
    rig.until("the revocation fails", |rows| rows.iter().any(|row| row.outcome == ActionOutcome::Failed));
    rig.take(&[Incident { mode: Mode::Alert, ..of("dan@example.com", 2) }]);
    hook.answer(&[503]);
    rig.take(&[of("ana@example.com", 3), of(hostile, 4)]);
    rig.settled();
    let mails = smtp.mails();
    assert_eq!(mails.len(), 1, "{mails:?}");
    let mail = mails[0].replace("=\r\n", "");
    assert!(mail.contains("X-To: ana@example.com") && mail.contains("To: ana@example.com"), "{mail}");
    assert!(mail.contains("Subject: Your access was revoked to protect your account"), "{mail}");
    assert!(mail.contains("INC-0000000000000003") && !mail.contains("http") && !mail.contains("grant-3"), "{mail}");
    let sent = hook.requests();
    let mut users: Vec<_> = sent[1..].iter().map(|asked| asked.body.clone()).collect();
    users.sort();
    assert_eq!(users.len(), 2, "one is repeated: {sent:?}");
    assert!(sent.iter().all(|asked| asked.is_signed_with(SECRET)));
    let bodies = users.iter().map(|body| serde_json::from_str(body).expect("JSON")).collect::<Vec<serde_json::Value>>();
    let mut ids: Vec<_> = bodies.iter().map(|body| body["user_id"].as_str().expect("a user")).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["ana@example.com", hostile]);
    assert!(bodies.iter().all(|body| body["type"] == "revoked" && body["tenant_id"] == "acme"), "{bodies:?}");
    assert!(users.iter().all(|body| !body.contains(['\u{202e}', '\r'])), "unsafe characters are escaped");
    let ana = ("ana@example.com".to_owned(), "done");
    let retry = |outcome: &(String, &str)| outcome.1 != "retry";
    let found: Vec<_> = outcomes(&rig).into_iter().filter(retry).collect();
    assert_eq!(found, [ana.clone(), ana, (hostile.to_owned(), "done")]);
    assert!(alerts.requests().iter().all(|asked| !asked.body.contains("A message to a user")));
    rig.stop();
}

#[test]
fn message_beyond_a_limit_is_sent_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let (smtp, hook, api, alerts) = (Smtp::start("smtps"), Web::start(), Web::start(), Web::start());
    let settings = UserNoticeSettings { email: None, ..settings(&smtp, &hook, folder.path()) };
    let first = rig(folder.path(), &settings, &api, &alerts);
    first.take(&[of("ana", 1)]);
    first.settled();
    first.stop();
    let rig = rig(folder.path(), &settings, &api, &alerts);
    let users = || -> Vec<String> {
        let bodies = hook.requests().into_iter().map(|asked| serde_json::from_str(&asked.body).expect("JSON"));
        bodies.map(|body: serde_json::Value| body["incident_id"].as_str().expect("an id").to_owned()).collect()
    };
    let other = Incident { tenant_id: "other".to_owned(), ..of("ana", 3) };
    // One a day for each user of a tenant, and three an hour.
    rig.take(&[of("ana", 2), other, of("bea", 4), of("dan", 5)]);
    rig.settled();
    assert_eq!(users(), ids(&[1, 3, 4]));
    assert_eq!(rig.outbox.held(), 2);
    let capped = |rig: &Rig| outcomes(rig).into_iter().filter(|(_, outcome)| *outcome == "capped").count();
    assert_eq!(capped(&rig), 2, "{:?}", outcomes(&rig));
    rig.clock.advance(Duration::from_secs(3_600));
    rig.until("the limit of an hour ends", |_| users() == ids(&[1, 3, 4, 5]));
    rig.clock.advance(Duration::from_secs(82_800));
    rig.until("the limit of a day ends", |_| users() == ids(&[1, 3, 4, 5, 2]));
    assert_eq!((capped(&rig), rig.outbox.held()), (2, 0));
    rig.stop();
}

#[test]
fn spellings_of_an_address_have_one_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let (smtp, hook, api, alerts) = (Smtp::start("smtps"), Web::start(), Web::start(), Web::start());
    let settings = UserNoticeSettings { webhook: None, ..settings(&smtp, &hook, folder.path()) };
    let rig = rig(folder.path(), &settings, &api, &alerts);
    let other = Incident { tenant_id: "other".to_owned(), ..of("ana@example.com", 2) };
    rig.take(&[of("ana@example.com", 1), other, of("Ana@EXAMPLE.com", 3), of("ana+x@example.com", 4)]);
    rig.settled();
    assert_eq!(smtp.mails().len(), 1, "{:?}", smtp.mails());
    assert_eq!(rig.outbox.held(), 3);
    rig.stop();
}

#[test]
fn wrong_text_of_the_operator_is_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let (smtp, hook, api, alerts) = (Smtp::start("smtps"), Web::start(), Web::start(), Web::start());
    std::fs::create_dir(folder.path().join("texts")).expect("a folder");
    let file = folder.path().join("texts/revoked.txt");
    std::fs::write(&file, "Subject: Access ended\n\nSee {app_id}.").expect("a file");
    let settings = UserNoticeSettings { webhook: None, ..settings(&smtp, &hook, folder.path()) };
    let rig = rig(folder.path(), &settings, &api, &alerts);
    rig.take(&[of("ana@example.com", 1)]);
    rig.settled();
    assert!(smtp.mails()[0].contains("Subject: Your access was revoked to protect your account"));
    let report = |asked: &support::web::Asked| asked.body.contains("A text for users cannot be used");
    let report = alerts.requests().into_iter().find(report).expect("a report");
    assert!(report.body.contains("revoked.txt") && report.body.contains("{app_id}"), "{}", report.body);
    std::fs::write(&file, "Subject: Access ended\n\nSee {incident}.").expect("a file");
    rig.take(&[of("bea@example.com", 2)]);
    rig.settled();
    assert!(smtp.mails()[1].contains("Subject: Access ended") && smtp.mails()[1].contains("See INC-0000000000000002."));
    rig.stop();
}

#[test]
fn rejected_message_to_a_user_goes_to_no_other_channel() {
    let folder = tempfile::tempdir().expect("a folder");
    let (smtp, hook, api, alerts) = (Smtp::start("smtps"), Web::start(), Web::start(), Web::start());
    smtp.reject("550 5.1.1 no such user: ana@example.com");
    let settings = UserNoticeSettings { webhook: None, ..settings(&smtp, &hook, folder.path()) };
    let rig = rig(folder.path(), &settings, &api, &alerts);
    rig.take(&[of("ana@example.com", 1), of("ana", 2)]);
    rig.settled();
    let expected = [("ana".to_owned(), "failed"), ("ana@example.com".to_owned(), "failed")];
    assert_eq!(outcomes(&rig), expected, "rejected, and no address");
    assert_eq!(incidents_of(&alerts), ids(&[1, 2]));
    assert_eq!(alerts.requests().len(), 2, "{:?}", alerts.requests());
    rig.stop();
}
