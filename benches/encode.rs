//! Cost of encoding a row for the store: `push_event` of an ordinary event, and of one with three signals, compared
//! with copying as many bytes as the row has.
//!
//! Run with `cargo bench --bench encode`.

use std::borrow::Cow;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokenwarden::checkpoint::Position;
use tokenwarden::enrichment::{Client, Device, EnrichedEvent, Surroundings};
use tokenwarden::event::{Address, Event, Timestamp, TokenType};
use tokenwarden::key::KeyHasher;
use tokenwarden::place::{Coordinates, Country, Network, NetworkClass, Place};
use tokenwarden::port::{EventRow, Rows as _};
use tokenwarden::route::Route;
use tokenwarden::store::EpochRows;
use tokenwarden::token::TokenHasher;
use tokenwarden::verdict::{IncidentId, Mode, Outcome, RuleId, Signal, Verdict};

/// Rows per epoch, after which the buffer is reused.
const EPOCH: usize = 50_000;

fn encode(criterion: &mut Criterion) {
    let event = event();
    let position = Position::new("token-events", 3, 123_456_789);
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    for (name, outcome) in [("ordinary", ordinary()), ("alarming", alarming())] {
        let row = EventRow {
            event: &event,
            outcome: &outcome,
            position: &position,
            index: 0,
            scored_at: 0,
            ingested_at: 1_790_000_000_000,
        };
        let mut rows = EpochRows::new();
        rows.push_event(&row);
        let bytes = vec![7_u8; rows.bytes()];
        group.bench_function(format!("{name} ({} bytes)", bytes.len()), |bencher| {
            bencher.iter(|| {
                if rows.len() == EPOCH {
                    rows.clear();
                }
                rows.push_event(black_box(&row));
            });
        });
        let mut copy = Vec::with_capacity(EPOCH * bytes.len());
        group.bench_function(format!("{name}, copying its bytes"), |bencher| {
            bencher.iter(|| {
                if copy.len() == EPOCH * bytes.len() {
                    copy.clear();
                }
                copy.extend_from_slice(black_box(&bytes));
            });
        });
    }
    group.finish();
}

fn event() -> EnrichedEvent<'static> {
    let place = Place {
        country: Country::parse("DE").unwrap_or_else(|| unreachable!("a code")),
        city: "Berlin".into(),
        coordinates: Some(Coordinates { latitude: 52.52, longitude: 13.4, accuracy_km: Some(20) }),
    };
    EnrichedEvent::new(
        Event {
            event_id: "0192f5c1-7a3e-7c4d-9f1e-2b7c8d9e0f1a".into(),
            timestamp: Timestamp::from_millis(1_790_000_000_000).unwrap_or(Timestamp::MIN),
            token_id: TokenHasher::new(b"bench").name(Cow::Borrowed("tok_7f3a9c1e5b2d4860")).0,
            token_type: TokenType::Access,
            family_id: Some("fam_2c9b7d1f".into()),
            session_id: Some("sess_83b1".into()),
            user_id: Some("user-48211@example.com".into()),
            app_id: Some("ci-deploy".into()),
            tenant_id: Some("acme".into()),
            address: Some(Address::new(IpAddr::from([192, 0, 2, 7]))),
            user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0".into()),
            client_fingerprint: Some("t13d1516h2_8daaf6152771_02713d6af862".into()),
            method: Some("GET".into()),
            endpoint: Some("/v1/repos/list".into()),
            status: Some(200),
            bytes_out: Some(18_234),
            scopes: vec!["read".into(), "write".into()],
            ..Event::default()
        },
        Surroundings {
            place: Some(Arc::new(place)),
            network: Some(Arc::new(Network {
                asn: 3320,
                org: "Deutsche Telekom AG".into(),
                class: NetworkClass::Access,
            })),
            client: Arc::new(Client {
                family: "Firefox".into(),
                version: "133.0".into(),
                device: Device::Desktop,
                family_key: 1,
                version_key: 2,
                agent_key: 3,
            }),
            route: Route::default(),
        },
        &KeyHasher::default(),
    )
}

fn ordinary() -> Outcome {
    Outcome::quiet(-7.0, 2.5, Mode::Shadow)
}

fn alarming() -> Outcome {
    let signal = |rule| Signal {
        rule,
        share: 2.6,
        p_value: 2e-3,
        fired: true,
        observed: "Sydney, AU, AS1221".to_owned(),
        expected: "Berlin, DE, AS3320 (412 of 413 sightings)".to_owned(),
        reason: "15,900 km in 41 min".to_owned(),
    };
    Outcome {
        verdict: Verdict::Alert,
        log_odds: 4.5,
        signals: [RuleId::ImpossibleTravel, RuleId::NewNetwork, RuleId::NewClient].map(signal).into(),
        incident_id: Some(IncidentId(0xABC)),
        ..ordinary()
    }
}

criterion_group!(benches, encode);
criterion_main!(benches);
