//! Properties of simulated traffic.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use super::theft::TheftKind;
use super::*;
use crate::event::Kind;
use crate::millis::{DAY_MS, HOUR_MS, MINUTE_MS};
use crate::token::TokenHasher;
use crate::wire::{Decoded, Decoder, Format};

const NOW: i64 = 1_790_000_000_000;
/// 2026-10-24, before the end of a month and of summer time in Europe and America.
const START: i64 = 1_792_800_000_000;

static FORTNIGHT: LazyLock<Simulated> = LazyLock::new(|| simulated(Settings::fortnight(NOW)));
static AFTERNOON: LazyLock<Simulated> = LazyLock::new(|| simulated(Settings::afternoon(1, START)));

struct Simulated {
    events: Vec<u8>,
    labels: Vec<u8>,
    thefts: Vec<Theft>,
}

#[derive(Deserialize)]
struct Line<'a> {
    event_id: &'a str,
    timestamp: &'a str,
    token_id: &'a str,
    family_id: Option<&'a str>,
}

#[derive(Deserialize)]
struct LabelLine {
    event_id: String,
    label: String,
    scenario: String,
    case: String,
}

fn simulated(settings: Settings) -> Simulated {
    let (mut simulation, mut events, mut labels) = (Simulation::new(settings), Vec::new(), Vec::new());
    while simulation.next_day(&mut events) {
        labels.extend(simulation.take_labels());
    }
    Simulated { events, labels, thefts: simulation.thefts().to_vec() }
}

impl Simulated {
    fn lines(&self) -> impl DoubleEndedIterator<Item = &str> {
        std::str::from_utf8(&self.events).expect("text").lines()
    }

    fn labels(&self) -> Vec<LabelLine> {
        let lines = std::str::from_utf8(&self.labels).expect("text").lines();
        lines.map(|line| serde_json::from_str(line).expect("one object a line")).collect()
    }
}

fn small() -> Settings {
    Settings { people: 60, services: 12, build_jobs: 6, plugin_users: 8, ..Settings::afternoon(1, START) }
}

/// All populations, for long enough that devices sleep.
fn more(seed: u64) -> Settings {
    Settings {
        days: 50,
        theft_days: 25,
        people: 20,
        others: Others {
            service_clients: 60,
            devices: 150,
            aggregator_users: 60,
            vpn_people: 30,
            account_holders: 40,
            developers: 40,
        },
        thefts: TheftKind::WIDE.map(|kind| (kind, 2)).to_vec(),
        ..Settings::afternoon(seed, START)
    }
}

#[test]
fn simulation_repeats_with_the_same_seed() {
    let (a, b) = (simulated(small()), simulated(small()));
    assert!(a.events == b.events && a.labels == b.labels);
    let other = simulated(Settings { seed: 2, ..small() });
    assert!(a.events != other.events);
}

#[test]
fn fortnight_is_large_ordered_and_has_thefts() {
    let settings = Settings::fortnight(NOW);
    let (start, end) = (settings.start, settings.start + 14 * DAY_MS);
    assert!(end <= NOW && NOW - end < 7 * DAY_MS);
    let (mut events, mut last, mut ids, mut tokens) = (0, start, HashSet::new(), HashSet::new());
    for line in FORTNIGHT.lines() {
        let line: Line<'_> = serde_json::from_str(line).expect("one object a line");
        let at = line.timestamp.parse::<jiff::Timestamp>().expect("RFC 3339").as_millisecond();
        assert!((last..end).contains(&at));
        last = at;
        tokens.insert(line.family_id.unwrap_or(line.token_id));
        assert!(ids.insert(line.event_id));
        events += 1;
    }
    assert!(events >= 200_000, "{events}");
    assert!(tokens.len() >= 2_000, "{}", tokens.len());
    for (kind, planned) in TheftKind::FORTNIGHT {
        let of_kind: Vec<&Theft> = FORTNIGHT.thefts.iter().filter(|theft| theft.kind == kind).collect();
        assert_eq!(of_kind.len(), planned as usize, "{kind:?}");
        for theft in of_kind {
            assert!(theft.first_at >= end - 3 * DAY_MS && !theft.event_ids.is_empty());
            let expected = if kind == TheftKind::Campaign { 5.. } else { 1.. };
            assert!(expected.contains(&theft.victims.len()));
        }
    }
}

#[test]
fn afternoon_has_every_theft_and_hard_case() {
    const HONEST: &[&str] = &[
        "app_migration",
        "backfill",
        "browser_upgrade",
        "client_update",
        "clock_ahead",
        "deploy_day",
        "expiry_leeway",
        "held_back",
        "honest_export",
        "in_flight",
        "kept_credential",
        "late_event",
        "load_balancer",
        "lost_refresh",
        "month_end",
        "new_device",
        "new_login",
        "new_secret",
        "new_task",
        "night_work",
        "office_move",
        "provider_change",
        "refresh_race",
        "region_move",
        "relocation",
        "runner_pool",
        "script",
        "security_scan",
        "shared_account",
        "stale_client",
        "summer_time",
        "travel",
        "vpn_on_off",
        "vpn_rollout",
    ];
    let mut cases: BTreeMap<(String, String), HashSet<String>> = BTreeMap::new();
    for label in AFTERNOON.labels() {
        assert!(label.case.starts_with(&label.scenario));
        cases.entry((label.label, label.scenario)).or_default().insert(label.case);
    }
    for (kind, planned) in Settings::afternoon(1, START).thefts {
        let found = cases.remove(&("theft".to_owned(), kind.scenario().to_owned())).unwrap_or_default();
        assert_eq!(found.len(), planned as usize, "{kind:?}");
    }
    for scenario in HONEST {
        assert!(cases.remove(&("honest".to_owned(), (*scenario).to_owned())).is_some(), "no {scenario}");
    }
    assert_eq!(cases.into_keys().collect::<Vec<_>>(), [], "scenarios that this test does not list");
    let events = AFTERNOON.lines().count();
    assert!((40_000..100_000).contains(&events), "{events}");
    let first_theft = AFTERNOON.thefts.iter().map(|theft| theft.first_at).min().expect("thefts");
    assert!(first_theft >= START + 10 * DAY_MS / 3);
}

#[test]
fn other_populations_have_their_thefts_and_hard_cases() {
    const HONEST: &[&str] = &[
        "aggregator_move",
        "aggregator_push",
        "border_crossing",
        "certificate_rotation",
        "client_autoscaled",
        "client_backfill",
        "client_deploy",
        "client_region_move",
        "consumer_vpn",
        "device_woke",
        "firmware_update",
        "new_repository",
        "partner_move",
        "travel_login",
        "vpn_adopted",
    ];
    let traffic = simulated(more(1));
    let labels = traffic.labels();
    let cases = |label: &str, scenario: &str| {
        let of = labels.iter().filter(|line| line.label == label && line.scenario == scenario);
        of.map(|line| line.case.as_str()).collect::<HashSet<_>>().len()
    };
    for kind in TheftKind::WIDE {
        assert_eq!(cases("theft", kind.scenario()), 2, "{kind:?}");
    }
    for scenario in HONEST {
        assert!(cases("honest", scenario) > 0, "no {scenario}");
    }
}

/// The companies have the same traffic with and without the other populations.
#[test]
fn other_populations_do_not_change_the_companies() {
    let lines = |settings: Settings| {
        let traffic = simulated(Settings { days: 4, theft_days: 3, ..settings });
        let of_company = |line: &&str| company::all_tenants().any(|tenant| line.contains(&tenant));
        let without_id = |line: &str| line.split_once(',').map(|(_, rest)| rest.to_owned());
        traffic.lines().filter(of_company).filter_map(without_id).collect::<Vec<_>>()
    };
    let alone = small();
    let thefts = [alone.thefts.as_slice(), &TheftKind::WIDE.map(|kind| (kind, 1))].concat();
    let others = Others { service_clients: 20, devices: 20, developers: 20, ..Others::default() };
    assert!(lines(alone.clone()) == lines(Settings { others, thefts, ..alone }));
}

#[test]
fn decoder_accepts_every_simulated_event() {
    let mut decoder = Decoder::new(Format::Native, TokenHasher::new(b"the key of a test"));
    let (mut kinds, mut bound, mut bare, mut again) = (HashSet::new(), 0, 0, 0);
    let mut ids = HashSet::new();
    for line in AFTERNOON.lines() {
        let mut events = 0;
        decoder.decode(line.as_bytes(), &mut |decoded| match decoded {
            Ok(Decoded::Event(event)) => {
                events += 1;
                kinds.insert(event.kind);
                bound += usize::from(event.binding.is_some());
                bare += usize::from(event.kind == Kind::Use && event.client_fingerprint.is_none());
                again += usize::from(!ids.insert(event.event_id.into_owned()));
                assert!(event.attrs.is_empty(), "a field without a meaning: {line}");
            }
            other => panic!("{line}: {other:?}"),
        });
        assert_eq!(events, 1);
    }
    assert_eq!(decoder.take_notes().redactions, 0);
    assert!(!kinds.contains(&Kind::Confirmed), "the simulator writes no confirmations");
    assert_eq!(kinds.len(), Kind::ALL.len() - 1);
    assert!(bound > 1_000 && bare > 1_000 && again > 10, "{bound} {bare} {again}");
}

#[test]
fn events_arrive_slightly_out_of_order() {
    let at = |line: &str| {
        let line: Line<'_> = serde_json::from_str(line).expect("one object a line");
        line.timestamp.parse::<jiff::Timestamp>().expect("RFC 3339").as_millisecond()
    };
    let (mut latest, mut lates) = (0, Vec::new());
    for line in AFTERNOON.lines() {
        latest = latest.max(at(line));
        lates.push(latest - at(line));
    }
    let share = |least: i64| lates.iter().filter(|late| **late >= least).count() as f64 / lates.len() as f64;
    assert!((0.05..0.7).contains(&share(1)), "{}", share(1));
    assert!((0.0001..0.01).contains(&share(15 * MINUTE_MS)), "{}", share(15 * MINUTE_MS));
    assert!(share(6 * HOUR_MS) < 0.000_5, "{}", share(6 * HOUR_MS));
}

/// A rule on one field, with its best value, threshold or absence, does not separate thefts from legitimate use on
/// the same days. Each case has the same weight, independent of its number of events.
#[test]
fn single_field_does_not_separate_thefts() {
    let thefts = TheftKind::DEEP.map(|kind| (kind, 5)).to_vec();
    check_single_fields(
        "companies",
        0.3,
        Settings { people: 240, plugin_users: 60, thefts, ..Settings::afternoon(3, START) },
    );
}

/// The same for each population beside the companies.
#[test]
fn single_field_does_not_separate_other_thefts() {
    // An aggregator and a fleet have few addresses, clients and routes.
    const SEPARATION_MAX: f64 = 0.4;
    let check = |population: &str, group: Group, others: Others| {
        let kinds: Vec<TheftKind> = TheftKind::WIDE.into_iter().filter(|kind| kind.group() == group).collect();
        let thefts = kinds.iter().map(|kind| (*kind, 80 / kinds.len() as u32)).collect();
        let companies = Settings { people: 0, services: 0, shared_accounts: 0, build_jobs: 0, vendors: 0, ..more(1) };
        check_single_fields(population, SEPARATION_MAX, Settings { others, thefts, ..companies });
    };
    let none = Others::default();
    check("service clients", Group::ServiceClients, Others { service_clients: 150, ..none });
    check("fleets", Group::Fleets, Others { devices: 400, ..none });
    check("aggregators", Group::Aggregators, Others { aggregator_users: 600, ..none });
    check("VPN people", Group::VpnPeople, Others { vpn_people: 150, ..none });
    check("account holders", Group::AccountHolders, Others { account_holders: 150, ..none });
    check("developers", Group::Developers, Others { developers: 120, ..none });
}

fn check_single_fields(population: &str, separation_max: f64, settings: Settings) {
    let traffic = simulated(settings);
    let cases: HashMap<String, String> = traffic
        .labels()
        .into_iter()
        .filter(|label| label.label == "theft")
        .map(|label| (label.event_id, label.case))
        .collect();
    let mut case_events: HashMap<&str, f64> = HashMap::new();
    for case in cases.values() {
        *case_events.entry(case).or_default() += 1.0;
    }
    assert!(case_events.len() > 60, "{}", case_events.len());
    let first = traffic.thefts.iter().map(|theft| theft.first_at).min().expect("thefts");
    // By field: the value as a number and as text, with its weight in thefts and in legitimate use.
    let mut fields: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
    let (mut whole, mut number) = ([0.0; 2], 0.0);
    for line in traffic.lines() {
        let event: serde_json::Map<String, Value> = serde_json::from_str(line).expect("one object a line");
        let at = event["timestamp"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok()).expect("a time");
        if at.as_millisecond() < first {
            continue;
        }
        number += 1.0;
        let weight = match cases.get(event["event_id"].as_str().expect("text")) {
            Some(case) => [1.0 / case_events[case.as_str()], 0.0],
            None => [0.0, 1.0],
        };
        whole = [whole[0] + weight[0], whole[1] + weight[1]];
        let mut look = |field: &str, number: Option<f64>, text: String| {
            fields.entry(field.to_owned()).or_default().push((number, text, weight));
        };
        look("order of arrival", Some(number), String::new());
        look("hour", Some((at.as_millisecond() % DAY_MS) as f64), String::new());
        look("fields", Some(event.len() as f64), event.keys().cloned().collect::<Vec<_>>().join(","));
        for (field, value) in &event {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            look(field, value.as_f64().or(Some(text.len() as f64)), text);
        }
    }
    let separating: Vec<String> = fields
        .into_iter()
        .map(|(field, mut seen)| (separation(&mut seen, whole), field))
        .filter(|(best, _)| *best >= separation_max)
        .map(|(best, field)| format!("{field}: {best:.2}"))
        .collect();
    assert!(separating.is_empty(), "{population}: {}", separating.join(", "));
}

/// A value as a number and as text, and its weights in thefts and in legitimate use.
type Seen = (Option<f64>, String, [f64; 2]);

/// Largest difference between the shares of thefts and of legitimate use that one rule on the field matches.
fn separation(seen: &mut [Seen], whole: [f64; 2]) -> f64 {
    let difference = |caught: [f64; 2]| (caught[0] / whole[0] - caught[1] / whole[1]).abs();
    let mut values: HashMap<&str, [f64; 2]> = HashMap::new();
    let mut present = [0.0; 2];
    for (_, text, [theft, life]) in seen.iter() {
        let of_value = values.entry(text).or_default();
        *of_value = [of_value[0] + theft, of_value[1] + life];
        present = [present[0] + theft, present[1] + life];
    }
    let mut best = values.values().copied().map(difference).fold(difference(present), f64::max);
    seen.sort_by(|a, b| a.0.unwrap_or(0.0).total_cmp(&b.0.unwrap_or(0.0)));
    let mut below = [0.0; 2];
    for (at, (number, _, [theft, life])) in seen.iter().enumerate() {
        below = [below[0] + theft, below[1] + life];
        if seen.get(at + 1).is_none_or(|next| next.0 != *number) {
            best = best.max(difference(below));
        }
    }
    best
}

/// One field does not reveal thieves: most holders with any given value are legitimate.
#[test]
fn single_value_does_not_reveal_fortnight_thefts() {
    // Fields with names of people, tokens and objects, and fields that differ between all events.
    const UNIQUE: &[&str] = &[
        "event_id",
        "timestamp",
        "token_id",
        "parent_token_id",
        "family_id",
        "session_id",
        "user_id",
        "ip_address",
        "expires_at",
        "bytes_out",
        "endpoint",
    ];
    let stolen: HashSet<&str> =
        FORTNIGHT.thefts.iter().flat_map(|theft| theft.event_ids.iter().map(String::as_str)).collect();
    let mut holders: HashMap<String, [HashSet<String>; 2]> = HashMap::new();
    // The first and the last days are enough.
    let lines: Vec<&str> = FORTNIGHT.lines().collect();
    for line in lines.iter().take(60_000).chain(lines.iter().rev().take(90_000)) {
        let event: serde_json::Map<String, Value> = serde_json::from_str(line).expect("one object a line");
        let is_stolen = usize::from(stolen.contains(event["event_id"].as_str().expect("an id")));
        let holder = format!("{}{}", event["user_id"], event["app_id"]);
        let mut see = |value: String| holders.entry(value).or_default()[is_stolen].insert(holder.clone());
        see(event.keys().cloned().collect::<Vec<_>>().join(","));
        for (field, value) in event.iter().filter(|(field, _)| !UNIQUE.contains(&field.as_str())) {
            see(format!("{field}={value}"));
        }
    }
    for (value, [honest, stolen]) in holders {
        assert!(honest.len() > stolen.len(), "{value}: {} honest, {} stolen", honest.len(), stolen.len());
    }
}
