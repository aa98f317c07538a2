//! Verdicts do not depend on batches or order, and outputs contain no token.

use super::*;

#[test]
fn repeated_delivery_changes_nothing() {
    let outcomes_of = |twice: bool| {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 20);
        scenario.wait(15 * HOUR);
        let mut delivered = Vec::new();
        for from in [address::BERLIN, address::LEIPZIG_HOST, address::BERLIN, address::LEIPZIG_HOST] {
            scenario.wait(MINUTE);
            delivered.push(scenario.send(&ana.from(from)));
            if twice {
                for line in &delivered {
                    assert!(scenario.score(line).is_none(), "it is known by its id");
                }
            }
        }
        scenario.last_verdicts(4)
    };
    assert_eq!(outcomes_of(false), outcomes_of(true));
}

/// Three hours of an owner and a thief in six orders: each event is scored, the thief is detected, and the owner is
/// allowed in every order.
#[test]
fn any_order_of_arrival_detects_the_thief() {
    let mut order: u64 = 1;
    for _ in 0..6 {
        let mut scenario = Scenario::in_town();
        let ana = scenario.office_worker("ana", 30);
        let began = scenario.now();
        let thief = ana.from(address::SYDNEY).agent("curl/8.9.1").set("endpoint", "/v1/admin/secrets");
        let mut calls: Vec<(i64, bool)> =
            (0..40).map(|call| (began + call * 4 * MINUTE + call % 7 * SECOND, call % 2 == 1)).collect();
        for place in (1..calls.len()).rev() {
            order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            calls.swap(place, (order >> 33) as usize % (place + 1));
        }
        let mut gravest = [Verdict::Allow; 2];
        for (at, stolen) in calls {
            let outcome = scenario.see_at(at, if stolen { &thief } else { &ana });
            assert!(outcome.log_odds.is_finite() && (0.0..=1.0).contains(&outcome.p_value), "{outcome:#?}");
            let gravest = &mut gravest[usize::from(stolen)];
            *gravest = outcome.verdict.max(*gravest);
        }
        let [owner, thief] = gravest;
        assert!(thief >= Verdict::Alert && owner < Verdict::Revoke, "{gravest:?}");
    }
}

#[test]
fn verdicts_do_not_depend_on_batches() {
    let mut simulation = Simulation::new(Settings {
        people: 50,
        services: 8,
        build_jobs: 4,
        plugin_users: 6,
        ..Settings::fortnight(NOW)
    });
    let mut events = Vec::new();
    while simulation.next_day(&mut events) {}
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &events).expect("written");
    let outcomes_of = |spread, batch| verdicts(file.path(), spread, batch);
    let ten_thousand = outcomes_of(Spread::Whole(Format::Native.into()), 10_000);
    assert!(ten_thousand.split(|byte| *byte == b'\n').count() > 10_000);
    // The compared bytes include shares, observed and expected values and reasons.
    let signals =
        ten_thousand.split(|byte| *byte == b'\n').filter(|line| line.windows(9).any(|at| at == b"expected\""));
    assert!(signals.count() > 100, "many events have signals");
    assert!(
        ten_thousand == outcomes_of(Spread::Whole(Format::Native.into()), 10_000),
        "the second run gives other verdicts"
    );
    assert!(ten_thousand == outcomes_of(Spread::Whole(Format::Native.into()), 1), "batches of one give other verdicts");
    assert!(
        ten_thousand == outcomes_of(Spread::BySubject(Format::Native.into(), 1), 10_000),
        "one partition gives the verdicts of all"
    );

    // Three partitions give each user's events the same verdicts as each partition alone, in the order of the input.
    let together = outcomes_of(Spread::BySubject(Format::Native.into(), 3), 10_000);
    assert!(together != ten_thousand, "each partition has its own population");
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    let mut order = Vec::new();
    let mut decoder = Decoder::new(Format::Native, TokenHasher::new(b"a key for stories"));
    for line in events.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        decoder.decode(line, &mut |decoded| {
            let Ok(Decoded::Event(event)) = decoded else { panic!("made-up events are events") };
            let part = event.partition_among(3);
            parts[part].extend_from_slice(line);
            parts[part].push(b'\n');
            order.push((part, event.event_id.to_string()));
        });
    }
    let settings =
        engine::Settings { alert_budget_per_day: 7, alert_budget_total_per_day: 7, ..engine::Settings::default() };
    let mut alone = parts.map(|part| {
        std::fs::write(file.path(), &part).expect("written");
        let lines =
            verdicts_of(pipeline_with(settings.clone()), file.path(), Spread::Whole(Format::Native.into()), 10_000);
        String::from_utf8(lines).expect("JSON is text").lines().rev().map(str::to_owned).collect::<Vec<_>>()
    });
    let mut merged = String::new();
    for (part, id) in order {
        let starts = format!("{{\"event_id\":\"{id}\"");
        // A repeated delivery has no verdict.
        if let Some(line) = alone[part].pop_if(|line| line.starts_with(&starts)) {
            merged += &line;
            merged.push('\n');
        }
    }
    assert!(merged.as_bytes() == together, "other partitions change the verdicts of a partition");
}

/// A thief's session with a token that the producer wrongly sends unhashed: no output contains it.
#[test]
fn outputs_contain_no_raw_token() {
    const JWT: [&str; 3] = ["eyJhbGciOiJSUzI1NiJ9", "eyJzdWIiOiJhbmEtb2YtYWNtZSJ9", "c2lnbmF0dXJlLW9mLWFuYQ"];
    let (jwt, personal) = (JWT.join("."), ["ghp", "0123456789abcdefghijABCDEFGHIJ012345"].join("_"));
    let mut scenario = Scenario::empty();
    let ana =
        Event::of("ana").set("token_id", &*jwt).set("family_id", &*personal).set("endpoint", format!("/v1/{jwt}"));
    let mut lines = vec![format!("{{\"event_id\":\"broken\",\"token_id\":\"{jwt}\"")];
    for _ in 0..200 {
        lines.push(scenario.write(&ana));
        scenario.wait(HOUR);
    }
    lines.push(scenario.write(&ana.kind("revoked")));
    for _ in 0..5 {
        scenario.wait(2 * MINUTE);
        lines.push(scenario.write(&ana.from(address::SYDNEY).agent(&personal)));
    }

    let mut pipeline = pipeline();
    let mut partition = pipeline.partition(Format::Native);
    let mut epoch = Epoch::new(NullRows::default()).with_verdicts(VerdictOutput::Lines);
    for (offset, line) in (0..).zip(&lines) {
        let position = Position::new("events", 0, offset);
        let message = Message {
            position: &position,
            key: None,
            payload: line.as_bytes(),
            logged_at: None,
            replayed: false,
            origin: Origin::Here,
        };
        pipeline.process(&mut partition, &[message], NOW, &mut epoch);
    }
    assert_eq!((epoch.tally.events, epoch.tally.dead_letters), (206, 1));
    assert!(!epoch.incidents.is_empty(), "a theft opens an incident");
    let mut out = String::from_utf8(epoch.verdicts.take().unwrap_or_default()).expect("JSON is text");
    for incident in &epoch.incidents {
        out += &notify::block(incident);
        out += &serde_json::to_string(incident).expect("an incident is JSON");
    }
    for letter in &epoch.letters {
        out += &String::from_utf8_lossy(&letter.payload);
    }
    write!(out, "{:?}{:?}", epoch.rows, epoch.letters).expect("a String accepts all text");
    assert!(out.contains("hmac:"), "the token is named by its hash");
    for piece in JWT.iter().chain(&[&*personal]) {
        assert!(!out.contains(piece), "{piece}");
    }
}

/// The verdict lines of a file, in epochs of `epoch_messages_max`.
fn verdicts(file: &std::path::Path, spread: Spread, epoch_messages_max: u64) -> Vec<u8> {
    verdicts_of(pipeline(), file, spread, epoch_messages_max)
}
