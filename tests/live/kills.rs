//! The service is killed during its work.

use super::*;

#[test]
fn deliveries_keep_their_keys_after_a_kill() {
    let (folder, kafka, receivers) = staged();
    let mut ledger = Ledger::default();
    let start = || {
        let service = Service::start(folder.path(), free_port());
        assert_eq!(service.page("/readyz"), "ok\n");
        service
    };
    let service = start();
    for person in ["ana", "ben", "cem", "dan"] {
        ledger.rotating(person);
    }
    ledger.theft("ana");
    ledger.send(&kafka);
    receivers.wait_for("ana");

    // Killed after the mail server received the mail and before it responded, while events are processed.
    receivers.smtp.hold();
    ledger.theft("ben");
    ledger.ordinary(10_000);
    ledger.send(&kafka);
    receivers.wait_for("ben");
    service.kill();
    receivers.smtp.answer();
    let service = start();
    let again = || Some(receivers.of("ben")).filter(|theft| theft.mails.len() >= 2);
    let theft = eventually(Duration::from_secs(30), "the mail is sent again", again).expect("a second mail");
    assert_eq!(theft.message_ids().len(), 1, "{:?}", theft.message_ids());
    assert_eq!((theft.revocations.len(), theft.webhook_ids().len()), (1, 1), "{theft:?}");

    // Killed after the provider received the request and before it responded.
    receivers.api.hold(true);
    ledger.theft("cem");
    ledger.send(&kafka);
    let asked = || Some(()).filter(|()| receivers.of("cem").revocations.len() == 1);
    eventually(Duration::from_secs(30), "the provider receives the request", asked).expect("a revocation");
    service.kill();
    receivers.api.hold(false);
    let service = start();
    receivers.wait_for("cem");
    service.until("SELECT count() FROM actions WHERE target = 'grant-cem' AND outcome = 'done'", "1");
    let theft = receivers.of("cem");
    assert_eq!((theft.revocations.len(), theft.revocation_keys().len()), (2, 1), "{theft:?}");
    assert_eq!((theft.message_ids().len(), theft.webhook_ids().len()), (1, 1), "{theft:?}");

    // Stopped while the provider, and then the webhook, do not respond.
    receivers.api.hold(true);
    receivers.hook.hold(true);
    ledger.theft("dan");
    ledger.send(&kafka);
    let asked = || Some(()).filter(|()| receivers.of("dan").revocations.len() == 1);
    eventually(Duration::from_secs(30), "the provider receives the request", asked).expect("a revocation");
    let (status, took) = service.terminate();
    assert_eq!(status.code(), Some(0), "{}", read(&folder.path().join("log of one")));
    assert!(took < Duration::from_secs(10), "it took {took:?} to stop");
    receivers.api.hold(false);
    receivers.hook.hold(false);
    let service = start();
    let theft = receivers.wait_for("dan");
    assert_eq!((theft.revocation_keys().len(), theft.message_ids().len()), (1, 1), "{theft:?}");

    service.until("SELECT uniqExact(event_id) FROM token_events", &ledger.ids.len().to_string());
    service.until("SELECT count() FROM token_events WHERE verdict = 'revoke'", "4");
    service.until("SELECT uniqExact(incident_id) FROM incidents", "4");
    assert_eq!(service.terminate().0.code(), Some(0));
    ledger.compare(folder.path());
    for person in ["ana", "ben", "cem", "dan"] {
        let theft = receivers.of(person);
        let keys = [theft.revocation_keys().len(), theft.message_ids().len(), theft.webhook_ids().len()];
        assert_eq!(keys, [1, 1, 1], "{person}: {theft:?}");
    }
}

#[test]
#[ignore = "slow: the service is killed a dozen times"]
fn events_survive_kills_at_any_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let kafka = Kafka::start();
    kafka.create_topic(TOPIC, 3);
    configure(folder.path(), &kafka);
    let mut ledger = Ledger::default();
    let admin = free_port();
    for round in 0..12 {
        let service = Service::start(folder.path(), admin);
        assert_eq!(service.page("/readyz"), "ok\n");
        ledger.ordinary(8_000);
        ledger.send(&kafka);
        // The kills are spread over the duration of an epoch.
        std::thread::sleep(Duration::from_millis(150 * round));
        service.kill();
    }
    let service = Service::start(folder.path(), admin);
    assert_eq!(service.page("/readyz"), "ok\n");
    service.until("SELECT uniqExact(event_id) FROM token_events", &ledger.ids.len().to_string());
    assert_eq!(service.terminate().0.code(), Some(0));
    ledger.compare(folder.path());
}

#[test]
#[ignore = "slow: members wait for each other"]
fn events_survive_take_overs_between_members() {
    let folder = tempfile::tempdir().expect("a folder");
    let kafka = Kafka::start();
    kafka.create_topic(TOPIC, 6);
    configure(folder.path(), &kafka);
    let mut ledger = Ledger::default();
    let mut send = |count: usize| {
        ledger.ordinary(count);
        ledger.send(&kafka);
        ledger.ids.len().to_string()
    };
    let stored = "SELECT uniqExact(event_id) FROM token_events";

    let one = Service::start_as(folder.path(), "one", free_port());
    assert_eq!(one.page("/readyz"), "ok\n");
    send(5_000);
    let two = Service::start_as(folder.path(), "two", free_port());
    assert_eq!(two.page("/readyz"), "ok\n");
    one.until_metric("tokenwarden_partitions 3");
    one.until(stored, &send(5_000));
    two.until_metric("tokenwarden_partitions 3");

    // Suspended like a virtual machine that is moved. Its partitions go to the other member, so that it has lost them
    // when it resumes.
    two.signal("-STOP");
    one.until(stored, &send(5_000));
    two.signal("-CONT");
    one.until(stored, &send(5_000));

    // Killed during its work. The other member then also takes over the embedded store.
    let all = send(5_000);
    one.kill();
    two.until(stored, &all);
    let all = send(5_000);
    two.until(stored, &all);
    assert_eq!(two.terminate().0.code(), Some(0));
    ledger.compare(folder.path());
}
