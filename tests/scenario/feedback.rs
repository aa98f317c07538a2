//! Detection learns from the verdicts of people on incidents.

use tokenwarden::engine::Learnt;
use tokenwarden::verdict::Judgement::{Benign, False, True};
use tokenwarden::verdict::{IncidentId, Judgement, Outcome, RuleId, Verdict};

use super::scenario::{DAY, Event, HOUR, MINUTE, SECOND, Scenario, TestFeedback, address, fired};

/// Calls of unusual routes with a library as client, within four minutes. Returns their messages and outcomes.
fn burst(scenario: &mut Scenario, owner: &Event, from: &str, agent: &str, area: &str) -> (Vec<String>, Vec<Outcome>) {
    let calls = owner.from(from).agent(agent);
    let calls = (0..12).map(|number| {
        scenario.wait(20 * SECOND);
        let line = scenario.write(&calls.clone().set("endpoint", format!("/v1/{area}/{number}")));
        let outcome = scenario.score(&line).expect("its id is new");
        (line, outcome)
    });
    calls.unzip()
}

fn gravest(outcomes: &[Outcome]) -> Verdict {
    outcomes.iter().map(|outcome| outcome.verdict).max().unwrap_or(Verdict::Allow)
}

fn incident(outcomes: &[Outcome]) -> IncidentId {
    outcomes.iter().find_map(|outcome| outcome.incident_id).expect("an incident")
}

const LIBRARY: &str = "python-requests/2.31.0";

/// A week in which the owner works as usual.
fn own_week(scenario: &mut Scenario, owner: &Event) {
    for _ in 0..7 {
        scenario.wait(15 * HOUR);
        for _ in 0..4 {
            scenario.wait(2 * HOUR);
            let seen = scenario.see(owner);
            assert!(seen.verdict < Verdict::Alert, "{seen:#?}");
        }
        scenario.wait(HOUR);
    }
}

/// A backup from a rented server that raised an alert, and the owner's week after the feedback about it.
fn reviewed(judgement: Option<Judgement>) -> (Scenario, Event, Vec<String>) {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    let (lines, outcomes) = burst(&mut scenario, &ana, address::LEIPZIG_HOST, LIBRARY, "backup");
    assert!(gravest(&outcomes) >= Verdict::Alert, "{outcomes:#?}");
    if let Some(judgement) = judgement {
        let learnt = scenario.learn(&TestFeedback { id: 1, incident: incident(&outcomes), judgement, lines: &lines });
        assert_eq!(learnt, Learnt::Now);
    }
    own_week(&mut scenario, &ana);
    (scenario, ana, lines)
}

#[test]
fn benign_feedback_teaches_place_client_and_routes() {
    let (mut scenario, ana, _) = reviewed(None);
    let (_, again) = burst(&mut scenario, &ana, address::LEIPZIG_HOST, LIBRARY, "backup");
    assert!(gravest(&again) >= Verdict::Alert, "without feedback: {again:#?}");
    for judgement in [Benign, False] {
        let (mut scenario, ana, _) = reviewed(Some(judgement));
        let (_, again) = burst(&mut scenario, &ana, address::LEIPZIG_HOST, LIBRARY, "backup");
        assert!(gravest(&again) < Verdict::Alert, "{judgement:?}: {again:#?}");
        assert!(again.iter().all(|outcome| outcome.incident_id.is_none()), "{judgement:?}: {again:#?}");

        // The same pattern with a token of another user, and another thief of this one.
        let other = super::scenario::neighbours_call(4);
        let (_, others) = burst(&mut scenario, &other, address::LEIPZIG_HOST, LIBRARY, "backup");
        assert!(gravest(&others) >= Verdict::Alert, "{judgement:?}: {others:#?}");
        let (_, thief) = burst(&mut scenario, &ana, address::SYDNEY, "Go-http-client/2.0", "admin/keys");
        assert!(gravest(&thief) >= Verdict::Alert, "{judgement:?}: {thief:#?}");
    }
}

#[test]
fn benign_feedback_closes_the_incident_at_once() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    let (lines, outcomes) = burst(&mut scenario, &ana, address::LEIPZIG_HOST, LIBRARY, "backup");
    let first = incident(&outcomes);
    scenario.learn(&TestFeedback { id: 1, incident: first, judgement: Benign, lines: &lines });
    scenario.wait(MINUTE);
    let (_, again) = burst(&mut scenario, &ana, address::LEIPZIG_HOST, LIBRARY, "backup");
    assert!(gravest(&again) < Verdict::Alert, "{again:#?}");
    let (_, thief) = burst(&mut scenario, &ana, address::SYDNEY, "Go-http-client/2.0", "admin/keys");
    assert!(gravest(&thief) >= Verdict::Alert && incident(&thief) != first, "a new incident: {thief:#?}");
}

/// The feedback is about the first three events. The evidence of the later ones stays.
#[test]
fn benign_feedback_does_not_cover_later_calls() {
    let evidence_after = |reviewed: usize| {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 30);
        let (lines, outcomes) = burst(&mut scenario, &ana, address::LEIPZIG_HOST, LIBRARY, "admin/secrets");
        let given = TestFeedback { id: 1, incident: incident(&outcomes), judgement: Benign, lines: &lines[..reviewed] };
        scenario.learn(&given);
        scenario.wait(20 * SECOND);
        let call = ana.from(address::LEIPZIG_HOST).agent(LIBRARY).set("endpoint", "/v1/admin/secrets/1");
        scenario.see(&call).log_odds
    };
    let (all, some) = (evidence_after(12), evidence_after(3));
    assert!(some > all + 2.0, "{some} after feedback about three events, {all} after feedback about all");
}

/// A thief at one place, with one ordinary call a day. The owner works as usual.
fn slow_month(judgement: Option<Judgement>) -> (Scenario, Event, Vec<Outcome>) {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    let (lines, outcomes) = burst(&mut scenario, &ana, address::SYDNEY, LIBRARY, "admin/secrets");
    assert!(gravest(&outcomes) >= Verdict::Alert, "{outcomes:#?}");
    if let Some(judgement) = judgement {
        scenario.learn(&TestFeedback { id: 1, incident: incident(&outcomes), judgement, lines: &lines });
    }
    let mut later = Vec::new();
    for _ in 0..25 {
        scenario.wait(4 * HOUR);
        later.push(scenario.see(&ana.from(address::SYDNEY).agent(LIBRARY)));
        scenario.wait(11 * HOUR);
        for _ in 0..4 {
            scenario.wait(2 * HOUR);
            let own = scenario.see(&ana);
            assert!(own.verdict < Verdict::Alert, "{own:#?}");
        }
        scenario.wait(HOUR);
    }
    (scenario, ana, later)
}

#[test]
fn thief_of_true_feedback_stays_a_thief() {
    let (_, _, unjudged) = slow_month(None);
    assert!(unjudged.last().is_some_and(|last| last.verdict < Verdict::Alert), "it is learnt: {unjudged:#?}");
    let (mut scenario, ana, later) = slow_month(Some(True));
    for (day, seen) in later.iter().enumerate() {
        assert!(seen.verdict >= Verdict::Alert, "on day {day}: {seen:#?}");
        let of_place = [RuleId::NewCountry, RuleId::NewNetwork, RuleId::NewIp].map(|rule| fired(seen, rule));
        assert!(of_place.contains(&true), "on day {day}: {seen:#?}");
        let reasons: Vec<_> = seen.signals.iter().map(|signal| &*signal.reason).collect();
        assert!(reasons.iter().any(|reason| reason.contains("a theft that feedback has confirmed")), "{reasons:?}");
    }
    // With another grant of the user, and with the token of another user.
    let grant = ana.clone().set("family_id", "another grant").set("token_id", "another token");
    for day in 0..10 {
        scenario.wait(DAY + day * MINUTE);
        scenario.see(&grant);
    }
    scenario.wait(HOUR);
    let stolen = scenario.see(&grant.from(address::SYDNEY).agent(LIBRARY));
    assert!(stolen.verdict >= Verdict::Alert, "{stolen:#?}");
    let other = super::scenario::neighbours_call(3).agent(LIBRARY);
    assert!(scenario.see(&other).verdict < Verdict::Alert, "another user at the thief's network");
    let own = scenario.see(&ana);
    assert!(own.verdict < Verdict::Alert, "{own:#?}");
}

/// A theft from the network and with the client of the owner. The owner's uses do not become those of a thief.
#[test]
fn true_feedback_spares_the_owners_place() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    let line = scenario.send(&ana);
    scenario.learn(&TestFeedback { id: 1, incident: IncidentId(1), judgement: True, lines: &[line] });
    own_week(&mut scenario, &ana);
}

#[test]
fn later_feedback_replaces_earlier_feedback() {
    let (mut scenario, ana, lines) = reviewed(Some(True));
    let (_, again) = burst(&mut scenario, &ana, address::LEIPZIG_HOST, LIBRARY, "backup");
    assert!(gravest(&again) >= Verdict::Alert);
    scenario.wait(DAY);
    let incident = incident(&again);
    scenario.learn(&TestFeedback { id: 2, incident, judgement: False, lines: &lines });
    scenario.wait(DAY);
    let (_, again) = burst(&mut scenario, &ana, address::LEIPZIG_HOST, LIBRARY, "backup");
    assert!(gravest(&again) < Verdict::Alert, "{again:#?}");
    let given = TestFeedback { id: 1, incident, judgement: True, lines: &lines };
    let before = format!("{:?}", scenario.state());
    assert_eq!(scenario.learn(&given), Learnt::Before, "it was learnt earlier");
    assert_eq!(format!("{:?}", scenario.state()), before);
}

/// A request whose credential was not accepted, or not checked, which anyone can send, is neither the owner's nor a
/// thief's.
#[test]
fn feedback_ignores_requests_without_credential() {
    let log_odds_after = |statuses: &[&str], judgement: Option<Judgement>| {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 30);
        let call = ana.from(address::SYDNEY).agent(LIBRARY);
        let lines: Vec<_> = statuses.iter().map(|status| scenario.send(&call.clone().set("status", *status))).collect();
        if let Some(judgement) = judgement {
            scenario.learn(&TestFeedback { id: 1, incident: IncidentId(1), judgement, lines: &lines });
        }
        scenario.wait(HOUR);
        scenario.see(&call).log_odds
    };
    let unchecked = ["401", "429", "503", "unreadable"];
    let (with, without) = (log_odds_after(&unchecked, Some(Benign)), log_odds_after(&unchecked, None));
    assert_eq!(with.to_bits(), without.to_bits(), "{with} and {without}");
    assert!(log_odds_after(&["200"], Some(Benign)) < log_odds_after(&["200"], None), "the control is learnt");
}

/// A state that is rebuilt learns old feedback before it has the owner's history.
#[test]
fn rebuilt_state_has_the_same_thieves() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    let own = scenario.send(&ana);
    let (mut lines, _) = burst(&mut scenario, &ana, address::SYDNEY, LIBRARY, "admin/secrets");
    lines.push(own);
    let given = TestFeedback { id: 1, incident: IncidentId(1), judgement: True, lines: &lines };
    let (decided, undecided) = (scenario.decided(&given), scenario.undecided(&given));
    for feedback in [decided, undecided] {
        let is_decided = feedback.thieves.is_some();
        scenario.rebuild(&feedback);
        own_week(&mut scenario, &ana);
        let stolen = scenario.see(&ana.from(address::SYDNEY).agent(LIBRARY));
        let is_known =
            stolen.signals.iter().any(|signal| signal.reason.contains("a theft that feedback has confirmed"));
        assert_eq!(is_known, is_decided, "{stolen:#?}");
    }
}

/// A thief has a new grant of the user, and uses it at the user's provider and with the same client family. The other
/// grants of the user do not become those of a thief.
#[test]
fn true_feedback_spares_places_of_other_grants() {
    let mut scenario = Scenario::in_town();
    let ana = scenario.office_worker("ana", 30);
    let grant = |name: &str| ana.clone().set("family_id", name).set("token_id", name);
    scenario.wait(HOUR);
    let lines: Vec<_> = (0..4)
        .map(|_| {
            scenario.wait(MINUTE);
            scenario.send(&grant("phished"))
        })
        .collect();
    scenario.learn(&TestFeedback { id: 1, incident: IncidentId(1), judgement: True, lines: &lines });
    scenario.wait(15 * HOUR);
    for name in ["next", "after next"] {
        scenario.wait(HOUR);
        let seen = scenario.see(&grant(name));
        assert!(seen.verdict < Verdict::Alert, "{seen:#?}");
    }
}
