//! Routes of alerts, and the fallback of a channel that rejects or fails.

use super::*;

fn route(tenant: Option<&str>, channel: &str) -> Route {
    let tenants = tenant.map(|tenant| BTreeSet::from([tenant.to_owned()]));
    let of = RouteOf::Incidents { severity: None, tenants, rules: None };
    Route { of, channels: vec![channel.to_owned()], continues: false }
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
