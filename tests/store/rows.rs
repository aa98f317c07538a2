//! Rows for the tests.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use tokenwarden::checkpoint::{DeadLetter, Position, Spot};
use tokenwarden::enrichment::{Client, Device, EnrichedEvent, Surroundings};
use tokenwarden::event::{Address, Event, Kind, Timestamp, TokenType};
use tokenwarden::key::KeyHasher;
use tokenwarden::place::{Coordinates, Country, Network, NetworkClass, Place};
use tokenwarden::port::{ActionOutcome, ActionRow, EventRow, Rows as _};
use tokenwarden::route::Route;
use tokenwarden::store::EpochRows;
use tokenwarden::token::{TokenHasher, TokenId};
use tokenwarden::verdict::{
    Action, CampaignId, Incident, IncidentId, Mode, Outcome, RuleId, Severity, Signal, Target, Verdict,
};

/// 2023-11-14T22:13:20Z: older than any retention, like replayed past events.
pub(crate) const START: i64 = 1_700_000_000_000;
/// Also older than the retention, which uses the database's clock only.
pub(crate) const INGESTED: i64 = 1_710_000_000_000;

/// Characters that break encoders, SQL and terminals, for every text column.
pub(crate) const NASTY: &str =
    "a\nb\r\n\tc\0d'; DROP TABLE token_events; -- \"e\" `f` \\ \u{1b}[31m 😀 é \u{202e} {x:String} ?";

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis).expect("in range")
}

pub(crate) fn token(text: &str) -> TokenId<'static> {
    TokenHasher::new(b"test").name(Cow::Owned(text.to_owned())).0
}

/// Ordinary event number `number`, one per second.
pub(crate) fn event(number: u64) -> EnrichedEvent<'static> {
    EnrichedEvent::new(
        Event {
            event_id: format!("event-{number}").into(),
            timestamp: at(START + number as i64 * 1000),
            token_id: token("token-1"),
            token_type: TokenType::Access,
            family_id: Some("family-1".into()),
            user_id: Some("user-1".into()),
            app_id: Some("app-1".into()),
            tenant_id: Some("tenant-1".into()),
            address: Some(Address::new(IpAddr::from([192, 0, 2, 7]))),
            user_agent: Some("curl/8.5.0".into()),
            method: Some("GET".into()),
            endpoint: Some("/v1/keys".into()),
            status: Some(200),
            bytes_out: Some(512),
            ..Event::default()
        },
        Surroundings {
            place: None,
            network: None,
            client: client("curl", "8.5.0", Device::Machine),
            route: Route::default(),
        },
        &KeyHasher::default(),
    )
}

/// An event with required fields only.
pub(crate) fn bare_event() -> EnrichedEvent<'static> {
    let mut enriched = event(0);
    enriched.event = Event {
        event_id: "bare".into(),
        timestamp: enriched.event.timestamp,
        token_id: enriched.event.token_id,
        token_type: enriched.event.token_type,
        ..Event::default()
    };
    enriched.client = client("", "", Device::Unknown);
    numbered(enriched)
}

/// An event with every field set, and [`NASTY`] in every text.
pub(crate) fn full_event() -> EnrichedEvent<'static> {
    let mut enriched = event(0);
    let nasty = || Some(Cow::Borrowed(NASTY));
    enriched.event = Event {
        event_id: NASTY.into(),
        timestamp: Timestamp::MAX,
        kind: Kind::CredentialChanged,
        token_id: token(NASTY),
        token_type: TokenType::ApiKey,
        family_id: nasty(),
        parent_token_id: Some(token(NASTY)),
        session_id: nasty(),
        user_id: nasty(),
        app_id: nasty(),
        tenant_id: nasty(),
        address: Some(Address::new("2001:db8::1".parse().expect("an address"))),
        user_agent: nasty(),
        client_fingerprint: nasty(),
        method: nasty(),
        endpoint: nasty(),
        status: Some(u16::MAX),
        outcome_unclear: false,
        reuse_reported: false,
        bytes_out: Some(u64::MAX),
        scopes: vec![NASTY.into(), "".into()],
        issued_at: Some(Timestamp::MIN),
        expires_at: Some(Timestamp::MAX),
        binding: nasty(),
        geo: None,
        // Names and texts of more than 127 bytes have a two-byte length.
        attrs: vec![(NASTY.into(), "x".repeat(300).into()), ("".into(), NASTY.into())],
        facts: None,
    };
    enriched.place = Some(Arc::new(Place {
        country: Country::parse("de").expect("a code"),
        city: NASTY.into(),
        coordinates: Some(Coordinates { latitude: -52.5, longitude: 13.25, accuracy_km: Some(20) }),
    }));
    enriched.network = Some(Arc::new(Network { asn: u32::MAX, org: NASTY.into(), class: NetworkClass::Anonymiser }));
    enriched.client = client(NASTY, NASTY, Device::Mobile);
    numbered(enriched)
}

pub(crate) fn client(family: &str, version: &str, device: Device) -> Arc<Client> {
    Arc::new(Client {
        family: family.into(),
        version: version.into(),
        device,
        family_key: 1,
        version_key: 2,
        agent_key: 3,
    })
}

pub(crate) fn allowed() -> Outcome {
    Outcome::quiet(-7.0, 2.5, Mode::Shadow)
}

pub(crate) fn signal(rule: RuleId, share: f64, reason: &str) -> Signal {
    Signal {
        rule,
        share,
        p_value: 0.001,
        fired: share >= 1.5,
        observed: format!("observed {reason}"),
        expected: format!("expected {reason}"),
        reason: reason.to_owned(),
    }
}

/// The outcome of an event of incident `id`.
pub(crate) fn alarming(id: u64) -> Outcome {
    Outcome {
        verdict: Verdict::Alert,
        log_odds: 4.5,
        p_value: 1e-4,
        signals: vec![signal(RuleId::NewCountry, 6.25, NASTY), signal(RuleId::UnusualTime, -0.5, "at night")],
        incident_id: Some(IncidentId(id)),
        action: Action::RevokeFamily,
        ..Outcome::quiet(-7.5, 2.5, Mode::Alert)
    }
}

/// A change of incident `id` by event `number`.
pub(crate) fn incident(id: u64, number: u64, severity: Severity) -> Incident {
    let event = event(number);
    Incident {
        id: IncidentId(id),
        opened_at: at(START),
        updated_at: event.event.timestamp,
        severity,
        verdict: Verdict::Alert,
        baseline: event.baseline_id(),
        subject: "family-1".to_owned(),
        tenant_id: "tenant-1".to_owned(),
        token_id: "token-1".to_owned(),
        family_id: "family-1".to_owned(),
        user_id: "user-1".to_owned(),
        app_id: "app-1".to_owned(),
        session_id: String::new(),
        token_type: tokenwarden::event::TokenType::Other,
        expires_at: None,
        event_id: event.event.event_id.into_owned(),
        change: number,
        campaign_id: CampaignId(0x43),
        victims: Vec::new(),
        victims_total: 1,
        tenant_is_new: false,
        log_odds: 4.5,
        signals: alarming(id).signals,
        reason: format!("change by {number}: {NASTY}"),
        action: Action::RevokeFamily,
        mode: Mode::Alert,
        report: true,
        revoke: Some(Target::Family("family-1".to_owned())),
    }
}

pub(crate) fn action(incident: u64, attempt: u32, outcome: ActionOutcome) -> ActionRow {
    ActionRow {
        action_id: format!("revoke-{incident}"),
        incident_id: IncidentId(incident).to_string(),
        requested_at: INGESTED + i64::from(attempt),
        kind: "revoke_family".to_owned(),
        target: "family-1".to_owned(),
        mode: Mode::Enforce,
        attempt,
        outcome,
        http_status: 503,
        latency_ms: 120,
        requested_by: "tokenwarden".to_owned(),
        reason: NASTY.to_owned(),
        tenant_id: "tenant-1".to_owned(),
        user_id: "user-1".to_owned(),
        radius: None,
        confirmation: None,
    }
}

/// Its payload contains every byte value.
pub(crate) fn dead_letter(offset: i64) -> DeadLetter {
    DeadLetter {
        position: position(offset),
        received_at: INGESTED,
        reason: format!("not JSON at byte {offset}: {NASTY}"),
        at: Some(Spot { byte: 70_000, line: 3, column: 9 }),
        payload: (0..=255).collect(),
    }
}

/// Recomputes the keys from the names.
pub(crate) fn numbered(event: EnrichedEvent<'static>) -> EnrichedEvent<'static> {
    let EnrichedEvent { event, place, network, client, route, .. } = event;
    EnrichedEvent::new(event, Surroundings { place, network, client, route }, &KeyHasher::default())
}

fn position(offset: i64) -> Position {
    Position::new("token-events", 3, offset)
}

pub(crate) fn push(rows: &mut EpochRows, event: &EnrichedEvent<'_>, outcome: &Outcome, offset: i64) {
    push_received(rows, event, outcome, (offset, INGESTED));
}

/// As [`push`], for an event that was received a second later.
pub(crate) fn push_later(rows: &mut EpochRows, event: &EnrichedEvent<'_>, outcome: &Outcome, offset: i64) {
    push_received(rows, event, outcome, (offset, INGESTED + 1_000));
}

fn push_received(
    rows: &mut EpochRows,
    event: &EnrichedEvent<'_>,
    outcome: &Outcome,
    (offset, ingested_at): (i64, i64),
) {
    let position = position(offset);
    rows.push_event(&EventRow { event, outcome, position: &position, index: 0, scored_at: 0, ingested_at });
}

/// Rows of the events `numbers`, all allowed.
pub(crate) fn epoch(numbers: Range<u64>) -> EpochRows {
    let mut rows = EpochRows::new();
    for number in numbers {
        push(&mut rows, &event(number), &allowed(), number as i64);
    }
    rows
}
