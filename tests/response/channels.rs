//! Deliveries of a channel: retries, rejections, restarts and notices.

use super::*;

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
