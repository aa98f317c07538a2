//! Mail, with an SMTP server.

use super::*;

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
