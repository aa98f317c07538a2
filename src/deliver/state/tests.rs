use std::collections::BTreeSet;

use proptest::prelude::*;

use super::revocations::HELD_OF_TENANT_MAX;
use super::*;
use crate::deliver::digest::Collected;
use crate::deliver::limits::{Caps, Limits};
use crate::event::{BaselineId, Timestamp};
use crate::port::{
    ActionOutcome, ActionRow, BreakerCause, BreakerId, BreakerScope, BreakerStop, Confirmation, Limit, Radius, Reached,
    StoppedBy,
};
use crate::verdict::{Action, CampaignId, Incident, IncidentId, Mode, RuleId, Severity, Target, Verdict};

/// Without limits of rules and applications.
fn limits(of_tenant: u32, total: u32) -> Limits {
    Limits { of_rule: Some(of_tenant), of_rule_total: Some(total), ..Limits::new(of_tenant, total) }
}

const REACHED: Reached = Reached { limit: Limit::Tenant, cap: 2 };

fn incident(id: u64, victim: u32) -> Incident {
    let at = Timestamp::from_millis(1_795_000_000_000).expect("a time");
    Incident {
        id: IncidentId(id),
        opened_at: at,
        updated_at: at,
        severity: if victim > 3 { Severity::Critical } else { Severity::High },
        verdict: Verdict::Revoke,
        baseline: BaselineId(id),
        subject: "s".to_owned(),
        tenant_id: format!("t-{}", id % 2),
        token_id: format!("at-{victim}"),
        family_id: String::new(),
        user_id: String::new(),
        app_id: String::new(),
        session_id: String::new(),
        token_type: crate::event::TokenType::Other,
        expires_at: None,
        event_id: "e".to_owned(),
        change: u64::from(victim),
        campaign_id: CampaignId(1),
        victims: Vec::new(),
        victims_total: victim,
        tenant_is_new: false,
        log_odds: 8.0,
        signals: Vec::new(),
        reason: "r".to_owned(),
        action: Action::RevokeToken,
        mode: Mode::Enforce,
        report: true,
        revoke: Some(Target::Token(format!("at-{victim}"))),
    }
}

fn taken(incident: Incident, at: i64, lanes: &[&str]) -> Record {
    let key = change_key(&incident);
    let lanes = lanes.iter().map(|lane| (*lane).to_owned()).collect();
    Record::Taken { key, at, work: Work::Incident(Box::new(incident)), lanes }
}

/// The observable parts of a state.
fn view(state: &State) -> impl PartialEq + std::fmt::Debug {
    let dues = |lane: &str| {
        let due = state.lanes.get(lane).into_iter().flatten();
        due.map(|due| (due.at, due.item.clone())).collect::<Vec<_>>()
    };
    let mut settled: Vec<_> = state.settled.iter().map(|(key, settled)| format!("{key} {settled:?}")).collect();
    settled.sort();
    let mut threads: Vec<_> = state.threads.iter().map(|(id, thread)| format!("{id} {thread:?}")).collect();
    threads.sort();
    let mut open: Vec<_> =
        state.revocations.iter().map(|(key, asked)| format!("{key} {} {:?}", asked.at, asked.effect)).collect();
    open.sort();
    (
        [dues("a"), dues("b"), dues(REVOKE)],
        (state.waiting(), state.held(), state.known.order.clone()),
        (settled, threads, open),
        state.first_capped(Caps { limits: &limits(2, 3), weight: 1 }, 0),
        (state.first_paused().map(str::to_owned), format!("{:?}", state.digests)),
        state.oldest_revocation().map(|(at, key)| (at, key.to_owned())),
        (format!("{:?} {:?}", state.stops, state.full), state.stopped.len()),
    )
}

/// A provider that always fails for the tokens of one tenant delays neither new revocations nor repetitions of others.
#[test]
fn new_and_repeated_revocations_alternate() {
    let mut state = State::default();
    for victim in 1..=3 {
        state.apply(taken(incident(1, victim), i64::from(victim), &[REVOKE]));
    }
    let keys: Vec<String> = (1..=3).map(|victim| change_key(&incident(1, victim))).collect();
    for key in &keys[..2] {
        let (allowance, rule, application) = (String::new(), None, String::new());
        state.apply(Record::Called { key: key.clone(), at: 3, allowance, rule, application, weight: 1 });
    }
    assert_eq!(state.next_due(100, Turn::New), Some((3, keys[2].as_str())), "the others are due earlier");
    assert_eq!(state.next_due(100, Turn::Repeated), Some((1, keys[0].as_str())));
    assert_eq!(state.next_due(2, Turn::New), Some((1, keys[0].as_str())), "no new one is due");
    assert_eq!(state.next_due(0, Turn::New), Some((1, keys[0].as_str())), "none is due");
    let effect = |key: &str| state.revocations[key].effect.clone();
    assert_eq!((Turn::after(&effect(&keys[2])), Turn::after(&effect(&keys[0]))), (Turn::Repeated, Turn::New));
}

/// One operation on a random incident.
#[derive(Clone, Copy, Debug)]
enum Op {
    Change { id: u64, victim: u32, revokes: bool },
    Message { id: u64, lane: &'static str, accepted: Option<bool> },
    Revocation { id: u64, victim: u32, to: u8 },
    GiveUp { id: u64, lane: &'static str },
    Reroute { id: u64 },
    Collect { id: u64, lane: &'static str },
    Digested,
    Breaker { id: u64, what: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    let (id, victim) = (1_u64..4, 1_u32..6);
    prop_oneof![
        (id.clone(), victim.clone(), any::<bool>()).prop_map(|(id, victim, revokes)| Op::Change {
            id,
            victim,
            revokes
        }),
        (id.clone(), prop_oneof![Just("a"), Just("b")], any::<Option<bool>>())
            .prop_map(|(id, lane, accepted)| Op::Message { id, lane, accepted }),
        (id.clone(), prop_oneof![Just("a"), Just("b")]).prop_map(|(id, lane)| Op::GiveUp { id, lane }),
        id.clone().prop_map(|id| Op::Reroute { id }),
        (id.clone(), prop_oneof![Just("a"), Just("b")]).prop_map(|(id, lane)| Op::Collect { id, lane }),
        Just(Op::Digested),
        (id.clone(), 0_u8..3).prop_map(|(id, what)| Op::Breaker { id, what }),
        (id, victim, 0_u8..8).prop_map(|(id, victim, to)| Op::Revocation { id, victim, to }),
    ]
}

fn record(state: &State, op: Op, at: i64) -> Option<Record> {
    match op {
        Op::Change { id, victim, revokes } => {
            let incident = incident(id, victim);
            let is_known = state.has(&change_key(&incident));
            // Lane `b` gets other incidents only by a reroute.
            let channels: &[&str] = if id == 3 { &["a"] } else { &["a", "b"] };
            let lanes = &*[channels, if revokes { &[REVOKE] } else { &[] }].concat();
            (!is_known).then(|| taken(incident, at, lanes))
        }
        Op::Message { id, lane, accepted } => {
            let thread = state.threads.get(&id)?;
            let (key, lane) = (thread.key.clone(), lane.to_owned());
            let (revocation, row) = (None, None);
            Some(match accepted {
                Some(true) => {
                    let sent = Some(thread.sent_by(&lane, Severity::High, at));
                    Record::Ended { key, lane, revocation, row, at, channels: Vec::new(), sent }
                }
                Some(false) => {
                    let (due_at, panicked) = (at + 9, false);
                    Record::Tried { key, lane, attempt: 1, due_at, revocation, row, at, panicked }
                }
                None => {
                    let (due_at, hold) = (at + 99, Hold::Rejected);
                    let channels = Vec::new();
                    Record::Held { key, lane, attempt: 1, at, due_at, hold, revocation, row, channels }
                }
            })
        }
        Op::GiveUp { id, lane } => {
            let (key, lane) = (state.threads.get(&id)?.key.clone(), lane.to_owned());
            let (revocation, row, channels) = (None, None, Vec::new());
            Some(Record::Ended { key, lane, revocation, row, at, channels, sent: None })
        }
        Op::Collect { id, lane } => {
            let thread = state.threads.get(&id)?;
            let alert = Collected { key: thread.key.clone(), incident: id, severity: Severity::High };
            Some(Record::Collected { lane: lane.to_owned(), at, due_at: at + 900, alerts: vec![alert] })
        }
        Op::Breaker { id, what } => {
            let (breaker, limit) = (BreakerId(id), [Limit::Tenant, Limit::Rule, Limit::Application][id as usize % 3]);
            let scope = BreakerScope::of_limit(&incident(id, 1), limit)?;
            Some(match what {
                0 => Record::Full { scope, at },
                1 => {
                    Record::Stopped { breaker, stop: BreakerStop { scope, cause: BreakerCause::Full { hours: 3 }, at } }
                }
                _ => Record::Lifted { breaker, at },
            })
        }
        Op::Digested => Some(Record::Digested { lane: "a".to_owned() }),
        Op::Reroute { id } => {
            let key = state.threads.get(&id)?.key.clone();
            Some(Record::Rerouted { key, lane: "a".to_owned(), to: vec!["b".to_owned()], at })
        }
        Op::Revocation { id, victim, to } => {
            let key = change_key(&incident(id, victim));
            let asked = state.revocations.get(&key)?;
            let (lane, row, channels) = (REVOKE.to_owned(), None, vec!["a".to_owned(), "b".to_owned()]);
            let held = |hold, revocation| Record::Held {
                key: key.clone(),
                lane: REVOKE.to_owned(),
                attempt: 1,
                at,
                due_at: at + 99,
                hold,
                revocation: Some(revocation),
                row: None,
                channels: vec!["a".to_owned(), "b".to_owned()],
            };
            Some(match to {
                0 => {
                    let Scope { allowance, rule, application } = Scope::of(&asked.incident);
                    Record::Called { key, at, allowance, rule, application, weight: 1 }
                }
                1 => held(Hold::Capped, Revocation::Capped(REACHED)),
                2 => held(Hold::Paused, Revocation::Paused),
                3 => held(Hold::Refused, Revocation::Failed("x".to_owned())),
                4 => Record::Nudged { key, at },
                6 => {
                    let (breaker, cause) = (BreakerId(1), BreakerCause::Full { hours: 3 });
                    held(Hold::Stopped, Revocation::Stopped(StoppedBy { breaker, scope: Limit::Rule, cause }))
                }
                5 => {
                    let (due_at, revocation) = (at + 9, Some(Revocation::Waiting("x".to_owned())));
                    Record::Tried { key, lane, attempt: 1, due_at, revocation, row, at, panicked: true }
                }
                _ => {
                    let revocation = Some(Revocation::Done);
                    let row = Some(confirmed_row(at));
                    Record::Ended { key, lane, revocation, row, at, channels, sent: None }
                }
            })
        }
    }
}

/// The row of a revocation that its provider confirmed.
fn confirmed_row(at: i64) -> ActionRow {
    ActionRow {
        action_id: "INC-1-revoke-2".to_owned(),
        incident_id: "INC-1".to_owned(),
        requested_at: at,
        kind: "revoke_family".to_owned(),
        target: "g-1".to_owned(),
        mode: Mode::Enforce,
        attempt: 1,
        outcome: ActionOutcome::Done,
        http_status: 200,
        latency_ms: 1,
        requested_by: "tokenwarden".to_owned(),
        reason: String::new(),
        tenant_id: "acme".to_owned(),
        user_id: "ana".to_owned(),
        radius: Some(Radius::Session),
        confirmation: Some(Confirmation { revoked_at: at, verified_at: Some(at + 1), radius: Some(Radius::Session) }),
    }
}

proptest! {
    #[test]
    fn state_from_its_own_records_is_equal(ops in proptest::collection::vec(op(), 1..60)) {
        let mut state = State::default();
        for (step, op) in ops.into_iter().enumerate() {
            if let Some(record) = record(&state, op, step as i64 * 1_000) {
                state.apply(record);
            }
            let mut again = State::default();
            for record in state.records() {
                let line = serde_json::to_string(&record).expect("JSON");
                again.apply(serde_json::from_str(&line).expect("a record"));
            }
            prop_assert_eq!(view(&again), view(&state));
        }
        // Waiting and held deliveries are those that are due in a lane, capped, paused or stopped.
        let due: usize = state.lanes.values().map(BTreeSet::len).sum();
        let aside = state.paused.len() + state.stopped.len() + state.capped.values().map(BTreeSet::len).sum::<usize>();
        prop_assert_eq!(due + aside, state.waiting() + state.held());
    }
}

#[test]
fn journal_of_an_earlier_version_is_read() {
    let mut old = serde_json::to_value(incident(7, 1)).expect("JSON");
    let fields = old.as_object_mut().expect("an object");
    for field in ["change", "campaign_id", "victims", "victims_total"] {
        fields.remove(field);
    }
    let key = "INC-0000000000000007-00000000000000aa";
    let other = "INC-0000000000000007-00000000000000bb";
    let lines = [
        serde_json::json!({"record": "settled", "key": "INC-x-revoke-y", "revocation": "done"}),
        serde_json::json!({"record": "taken", "key": key, "at": 5, "work": {"incident": old}, "lanes": []}),
        serde_json::json!({"record": "kept", "key": key, "lane": "a",
            "effect": {"attempts": 2, "due_at": 9, "called": false}}),
        serde_json::json!({"record": "kept", "key": key, "lane": "revoke",
            "effect": {"attempts": 1, "due_at": 8, "called": true}}),
        serde_json::json!({"record": "called", "key": key, "at": 6}),
        serde_json::json!({"record": "taken", "key": other, "at": 7, "work": {"incident": old}, "lanes": ["a", "b"]}),
        serde_json::json!({"record": "ended", "key": key, "lane": "a", "revocation": null, "row": null}),
        serde_json::json!({"record": "ended", "key": other, "lane": "b", "revocation": null, "row": null}),
        serde_json::json!({"record": "taken", "key": "capped-1", "at": 7,
            "work": {"notice": {"title": "t", "text": "x", "at": 7}}, "lanes": ["b"]}),
    ];
    let mut state = State::default();
    for line in lines {
        state.apply(serde_json::from_value(line).expect("a record"));
    }
    let due = |lane| state.first(lane).map(|due| (due.at, due.item.clone()));
    assert_eq!(due("a"), Some((7, Item::Thread(7))), "the later change is not sent yet");
    assert_eq!(due("b"), Some((7, Item::Notice("capped-1".to_owned()))));
    assert_eq!(due(REVOKE), Some((8, Item::Revocation(key.to_owned()))));
    assert!(state.revocations[key].effect.called);
    assert_eq!(state.waiting(), 3);
}

#[test]
fn revocation_keys_are_of_one_tenant_and_target() {
    let incident = incident(7, 1);
    let key = |incident: &Incident| revocation_key(incident).expect("a key");
    let variants = [
        Incident { tenant_id: "other".to_owned(), ..incident.clone() },
        Incident { id: IncidentId(8), ..incident.clone() },
        Incident { revoke: Some(Target::Family("at-1".to_owned())), ..incident.clone() },
        // The same letters, divided differently.
        Incident {
            tenant_id: "t-1token".to_owned(),
            revoke: Some(Target::Token("at-1".to_owned())),
            ..incident.clone()
        },
    ];
    for other in &variants {
        assert_ne!(key(other), key(&incident), "{other:?}");
    }
    let again = Incident { change: 99, event_id: "f".to_owned(), ..incident.clone() };
    assert_eq!(key(&again), key(&incident), "the key is the same for all changes of an incident");
}

#[test]
fn cap_counts_requests_by_their_weight() {
    const MINUTE: i64 = 60_000;
    let scope = |tenant: &str| Scope { allowance: tenant.to_owned(), rule: None, application: String::new() };
    let mut state = State::default();
    for (minute, weight) in [(0, 5), (1, 1), (2, 5)] {
        state.apply(called(scope("acme"), minute * MINUTE, weight));
    }
    let room =
        |of_tenant, weight| state.room(&scope("acme"), Caps { limits: &limits(of_tenant, 100), weight }, 3 * MINUTE).at;
    assert_eq!(room(12, 1), 3 * MINUTE, "eleven are counted");
    assert_eq!(room(11, 1), 60 * MINUTE, "when the first is an hour old");
    assert_eq!(room(12, 5), 60 * MINUTE);
    assert_eq!(room(10, 5), 61 * MINUTE);
    assert_eq!(room(5, 5), 62 * MINUTE);
    assert_eq!(room(4, 5), i64::MAX, "never");
    let other = state.room(&scope("other"), Caps { limits: &limits(5, 15), weight: 5 }, 3 * MINUTE);
    assert_eq!((other.at, other.last), (60 * MINUTE, Limit::Total));
}

fn called(scope: Scope, at: i64, weight: u32) -> Record {
    let Scope { allowance, rule, application } = scope;
    Record::Called { key: String::new(), at, allowance, rule, application, weight }
}

#[test]
fn limit_that_has_room_last_is_reported() {
    let scope = |tenant: &str, rule, application: &str| Scope {
        allowance: tenant.to_owned(),
        rule: Some(rule),
        application: application.to_owned(),
    };
    let mut state = State::default();
    let crm = scope("acme", RuleId::NewCountry, "crm");
    for at in 0..4 {
        state.apply(called(crm.clone(), at, 1));
    }
    let limits = Limits { of_application: Some(5), ..Limits::new(8, 14) };
    let last = |scope: &Scope| {
        let room = state.room(scope, Caps { limits: &limits, weight: 1 }, 10);
        (room.at > 10).then_some((room.at, room.last))
    };
    assert_eq!(last(&crm), Some((HOUR_MS, Limit::Rule)), "four of eight");
    assert_eq!(last(&scope("acme", RuleId::NewIp, "crm")), None, "another rule");
    assert_eq!(last(&scope("other", RuleId::NewCountry, "crm")), None, "another tenant");
    for at in 4..7 {
        state.apply(called(scope("other", RuleId::NewCountry, "erp"), at, 1));
    }
    let last = |state: &State, scope: &Scope| state.room(scope, Caps { limits: &limits, weight: 1 }, 10).last;
    assert_eq!(last(&state, &scope("third", RuleId::NewCountry, "erp")), Limit::RuleTotal, "seven of fourteen");
    state.apply(called(scope("acme", RuleId::NewIp, "crm"), 7, 1));
    assert_eq!(last(&state, &scope("acme", RuleId::NewClient, "crm")), Limit::Application, "five of five");
}

/// After a start, held revocations are due for a moment. A lift that leaves them to people must find them too.
#[test]
fn unrequested_revocations_of_a_scope_need_no_hold() {
    let mut state = State::default();
    for id in 1..=4 {
        state.apply(taken(incident(id, id as u32), 0, &[REVOKE]));
    }
    let asked = incident(3, 3);
    let (allowance, rule, application) = (asked.tenant_id.clone(), None, String::new());
    state.apply(Record::Called { key: change_key(&asked), at: 1, allowance, rule, application, weight: 1 });
    let scope = BreakerScope { tenant: Some("t-1".to_owned()), ..BreakerScope::default() };
    assert_eq!(state.unrequested_within(&scope), [change_key(&incident(1, 1))]);
}

#[test]
fn held_revocations_are_bounded_by_tenant() {
    let mut state = State::default();
    for number in 0..=HELD_OF_TENANT_MAX as u64 {
        let incident = Incident { tenant_id: "attacker".to_owned(), ..incident(number, 1) };
        let key = change_key(&incident);
        state.apply(taken(incident, 0, &[REVOKE]));
        let (lane, revocation) = (REVOKE.to_owned(), Some(Revocation::Capped(REACHED)));
        let (row, channels, hold) = (None, Vec::new(), Hold::Capped);
        state.apply(Record::Held { key, lane, attempt: 1, at: 0, due_at: 0, hold, revocation, row, channels });
        let expected = (number == HELD_OF_TENANT_MAX as u64).then(|| change_key(&self::incident(0, 1)));
        assert_eq!(state.too_many_held(), expected, "{number}");
    }
}
