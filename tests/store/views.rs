//! The views for analysts, on a small theft.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokenwarden::enrichment::{Device, EnrichedEvent};
use tokenwarden::event::Address;
use tokenwarden::place::{Country, Network, NetworkClass, Place};
use tokenwarden::port::{ActionOutcome, ActionRow, Confirmation, Rows as _, Store as _};
use tokenwarden::store::{ClickHouse, EpochRows, Reader};
use tokenwarden::verdict::{CampaignId, Incident, Severity};

use super::rows::{action, alarming, allowed, client, event, incident, numbered, push, token};
use super::{ask, embedded, row, turn};

/// Ten ordinary calls of the owner, then four calls of a thief from another address, one of them refused, and one call
/// of the owner between them. The thief's address also uses another user's token.
pub(crate) fn theft() -> EpochRows {
    let mut rows = EpochRows::new();
    for number in 0..10 {
        push(&mut rows, &placed(event(number), 7, "DE", 3320), &allowed(), number as i64);
    }
    for number in 10..14 {
        push(&mut rows, &stolen(number), &alarming(1), number as i64);
    }
    push(&mut rows, &placed(event(14), 7, "DE", 3320), &allowed(), 14);
    let mut other = stolen(15);
    other.event.family_id = Some("family-2".into());
    other.event.user_id = Some("user-2".into());
    other.event.token_id = token("token-2");
    push(&mut rows, &numbered(other), &allowed(), 15);
    rows.push_incident(&incident(1, 10, Severity::Medium));
    rows.push_incident(&incident(1, 12, Severity::Critical));
    rows.push_action(&action(1, 1, ActionOutcome::Retry));
    let confirmation = Some(Confirmation::at(1_710_000_000_123));
    rows.push_action(&ActionRow { confirmation, ..action(1, 2, ActionOutcome::Done) });
    rows
}

fn stolen(number: u64) -> EnrichedEvent<'static> {
    let mut stolen = placed(event(number), 200, "BR", 9009);
    stolen.event.endpoint = Some("/v1/export".into());
    stolen.event.user_agent = Some("python-requests/2.31".into());
    stolen.event.status = Some(if number == 13 { 403 } else { 200 });
    stolen.client = client("python-requests", "2.31", Device::Machine);
    stolen
}

fn placed(mut event: EnrichedEvent<'static>, host: u8, country: &str, asn: u32) -> EnrichedEvent<'static> {
    event.event.address = Some(Address::new(IpAddr::from([192, 0, 2, host])));
    let country = Country::parse(country).unwrap();
    event.place = Some(Arc::new(Place { country, city: "Town".into(), coordinates: None }));
    event.network = Some(Arc::new(Network { asn, org: "Net".into(), class: NetworkClass::Access }));
    event
}

#[tokio::test]
async fn views_show_a_theft() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    store.write(&theft()).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    let id = "INC-0000000000000001";

    let latest = row(&reader, "SELECT incident_id, severity, event_id, opened_at FROM incidents_latest").await;
    let opened = "2023-11-14 22:13:20.000";
    assert_eq!(latest, json!({"incident_id": id, "severity": "critical", "event_id": "event-12", "opened_at": opened}));

    let steps = ask(
        &reader,
        "SELECT what, count(), arrayStringConcat(groupUniqArray(outcome), ',') FROM incident_timeline \
         WHERE incident_id = 'INC-0000000000000001' GROUP BY what ORDER BY what",
    );
    let steps = steps.await;
    assert!(steps.starts_with("action\t2\t"), "{steps}");
    assert!(steps.contains("\nevent\t4\talert\nincident\t2\talert"), "{steps}");
    let first = "SELECT summary FROM incident_timeline WHERE what = 'event' ORDER BY at LIMIT 1";
    let first = row(&reader, first).await;
    let summary = first["summary"].as_str().unwrap();
    assert!(summary.starts_with("use GET /v1/export -> 200 from 192.0.2.200 Town BR AS9009 Net: "), "{summary}");

    let touched = "SELECT route, calls, suspect_calls, suspect_calls_accepted, suspect_bytes_out, suspect_tokens \
                   FROM blast_radius WHERE incident_id = 'INC-0000000000000001' ORDER BY suspect_calls DESC";
    let touched = ask(&reader, &format!("{touched} FORMAT JSONCompactEachRow")).await;
    let touched: Vec<Value> = touched.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(touched, [json!(["/v1/export", 4, 4, 3, 2048, ["token-1"]]), json!(["/v1/keys", 11, 0, 0, 0, []])]);

    let normal = "SELECT events, addresses, networks, countries, clients, routes, hours_utc FROM token_profile \
                  WHERE family_id = 'family-1'";
    let normal = row(&reader, normal).await;
    let expected = json!({"events": 11, "addresses": 1, "networks": ["AS3320 Net"], "countries": ["DE"],
        "clients": ["curl"], "routes": ["GET /v1/keys"], "hours_utc": [22]});
    assert_eq!(normal, expected);

    let shared = "SELECT indicator, value, other_tokens, other_users, token_ids, events FROM shared_indicators \
                  ORDER BY indicator FORMAT JSONCompactEachRow";
    let shared = ask(&reader, shared).await;
    let shared: Vec<Value> = shared.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = [("address", "192.0.2.200"), ("client", "python-requests/2.31"), ("network", "AS9009")]
        .map(|(indicator, value)| json!([indicator, value, 1, 1, ["token-2"], 1]));
    assert_eq!(shared, expected);

    let hours = "SELECT events, suspect_events, addresses, routes FROM baseline_activity ORDER BY events DESC LIMIT 1";
    assert_eq!(ask(&reader, hours).await, "15\t4\t2\t2");
    store.close().await;
}

#[tokio::test]
async fn queries_of_the_analyst_guide_run() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    store.write(&theft()).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    let guide = include_str!("../../docs/analyst.md");
    let queries: Vec<&str> = guide.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let reading = queries.iter().filter(|query| query.trim_start().starts_with(['S', 'W']));
    assert!(reading.clone().count() >= 8, "{}", queries.len());
    // The engine here has no users, so only the syntax of these statements is tested.
    for statement in queries.iter().filter(|query| query.starts_with("CREATE")).flat_map(|script| script.split(';')) {
        let statement = statement.trim().replace('\'', "\\'");
        if !statement.is_empty() {
            ask(&reader, &format!("SELECT formatQuery('{statement}')")).await;
        }
    }
    for query in reading {
        assert_ne!(ask(&reader, query.trim().trim_end_matches(';')).await, "", "{query}");
    }
    store.close().await;
}

/// A thief's 70 calls have the ids and times of the owner's. They are separate rows, once each, however often they are
/// written; likewise two changes of an incident by two of them.
#[tokio::test]
async fn rows_of_one_event_id_are_kept_apart() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    for _ in 0..2 {
        let mut rows = EpochRows::new();
        for number in 0..70 {
            push(&mut rows, &placed(event(number), 7, "DE", 3320), &allowed(), number as i64);
            push(&mut rows, &stolen(number), &alarming(1), 100 + number as i64);
        }
        rows.push_incident(&incident(1, 3, Severity::Medium));
        rows.push_incident(&Incident { change: 4_000, ..incident(1, 3, Severity::Critical) });
        store.write(&rows).await.unwrap();
        // Another epoch, so that it is not the same insert again.
        let mut other = EpochRows::new();
        push(&mut other, &event(500), &allowed(), 500);
        store.write(&other).await.unwrap();
    }
    let reader = Reader::open(&settings).await.unwrap();
    let told = "SELECT count(), uniqExact(event_id), countIf(verdict = 'alert') FROM token_events FINAL WHERE source_offset < 500";
    assert_eq!(ask(&reader, told).await, "140\t70\t70");
    let hours = "SELECT sum(events), sum(suspect_events) FROM baseline_activity WHERE toHour(hour) = 22";
    assert_eq!(ask(&reader, hours).await, "141\t70", "uniq() counts them exactly");
    assert_eq!(ask(&reader, "SELECT count() FROM incidents FINAL").await, "2");
    store.close().await;
}

#[tokio::test]
async fn victims_and_campaigns_are_listed() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    let mut rows = EpochRows::new();
    for number in 0..150 {
        let mut victim = stolen(number);
        victim.event.family_id = Some(format!("grant-{number:03}").into());
        push(&mut rows, &numbered(victim), &alarming(1), number as i64);
    }
    let of = |id, tenant: &str, campaign, victims_total| Incident {
        tenant_id: tenant.to_owned(),
        campaign_id: CampaignId(campaign),
        victims_total,
        ..incident(id, id, Severity::High)
    };
    for incident in [of(1, "acme", 7, 150), of(2, "globex", 7, 3), of(3, "acme", 8, 1)] {
        rows.push_incident(&incident);
    }
    store.write(&rows).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    let victims = "SELECT count(), min(family_id), max(family_id), sum(suspect_calls) FROM incident_victims \
                   WHERE incident_id = 'INC-0000000000000001'";
    assert_eq!(ask(&reader, victims).await, "150\tgrant-000\tgrant-149\t150");
    let campaigns = row(&reader, "SELECT campaign_id, tenants, incidents, victims FROM campaigns").await;
    let expected = json!({"campaign_id": "CAM-0000000000000007", "tenants": ["acme", "globex"],
        "incidents": ["INC-0000000000000001", "INC-0000000000000002"], "victims": 153});
    assert_eq!(campaigns, expected, "one of a single tenant is none");
    store.close().await;
}
