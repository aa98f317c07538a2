//! `/readyz` of the running service while Kafka is unavailable and available.

use super::*;

/// Status and body of `/readyz`.
fn readyz(service: &Service) -> (u16, String) {
    let url = format!("http://127.0.0.1:{}/readyz", service.admin);
    let asked = blocking(async {
        let answer = reqwest::get(&url).await?;
        Ok::<_, reqwest::Error>((answer.status().as_u16(), answer.text().await?))
    });
    asked.unwrap_or_default()
}

/// Waits until `/readyz` returns 503 with a line that begins with `condition`.
fn until_unready(service: &Service, condition: &str) {
    let found = eventually(Duration::from_secs(40), condition, || {
        let (status, text) = readyz(service);
        (status == 503 && text.lines().any(|line| line.starts_with(condition))).then_some(())
    });
    assert!(found.is_some(), "{condition}: {:?}\n{}", readyz(service), service.log());
}

#[test]
fn readyz_follows_assignment_and_the_broker() {
    let (folder, mut kafka) = (tempfile::tempdir().expect("a folder"), Kafka::start());
    kafka.create_topic(TOPIC, 3);
    let source = format!(
        "[source.kafka]\nbrokers = '{}'\ntopics = ['{TOPIC}']\n\
         properties = {{ 'session.timeout.ms' = '6000', 'partition.assignment.strategy' = 'range' }}\n",
        kafka.brokers
    );
    configure_from(folder.path(), &source);
    let mut ledger = Ledger::default();
    ledger.ordinary(500);
    ledger.send(&kafka);

    // No member gets a partition while another member of the group has not released its own.
    let held = kafka.hold_group("tokenwarden", TOPIC);
    let service = Service::start(folder.path(), free_port());
    assert_eq!(service.page("/healthz"), "ok\n");
    until_unready(&service, "no_partitions: ");
    assert_eq!(service.page("/healthz"), "ok\n", "a restart does not help");
    drop(held);
    assert_eq!(service.page("/readyz"), "ok\n");
    service.until("SELECT uniqExact(event_id) FROM token_events", "500");

    let began = Instant::now();
    kafka.stop();
    assert_eq!(readyz(&service).0, 200, "a short outage of the broker is not reported");
    until_unready(&service, "broker: ");
    assert!(began.elapsed() > Duration::from_secs(13), "{:?}", began.elapsed());
    assert_eq!(service.page("/healthz"), "ok\n");
    kafka.resume();
    assert_eq!(service.page("/readyz"), "ok\n");
    ledger.ordinary(100);
    ledger.send(&kafka);
    service.until("SELECT uniqExact(event_id) FROM token_events", "600");
    assert_eq!(service.terminate().0.code(), Some(0));
}

#[test]
fn signals_during_the_start_are_handled() {
    let folder = tempfile::tempdir().expect("a folder");
    configure_from(folder.path(), "[source.file]\npath = '-'\n");
    let start = |member: &str| {
        let admin = free_port();
        let mut command = Service::command(folder.path(), member, admin);
        command.env_remove("TOKENWARDEN__SOURCE__KAFKA__PROPERTIES__GROUP_INSTANCE_ID");
        let log = folder.path().join(format!("log of {member}"));
        let service = Service::spawn(command.stdin(std::process::Stdio::piped()), &log, admin);
        // Its first lines are warnings about the configuration.
        let begun = || (!service.log().is_empty()).then_some(());
        eventually(Duration::from_secs(60), "the start has begun", begun).expect("a line of the log");
        service
    };
    let service = start("one");
    service.signal("-HUP");
    assert_eq!(service.page("/readyz"), "ok\n");
    drop(service);
    let (status, took) = start("two").terminate();
    assert_eq!(status.code(), Some(0), "after {took:?}");
}
