//! The events of an incident, as records of the log of feedback.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::explain::field;
use crate::by_hand::{ACCEPTED, CHECKED};
use crate::feed::Feed;
use crate::number::random_id;
use crate::port::{
    FeedbackId, FeedbackKey, FeedbackRecord, FeedbackState, GivenFeedback, SourcePartition, StoredEvent,
};
use crate::token::TokenHasher;
use crate::verdict::{IncidentId, Judgement};
use crate::wire::{Decoded, Decoder};

/// Maximum number of subjects of an incident from which detection learns.
const SUBJECTS_MAX: usize = 100;
/// Maximum size of the events of a record, bytes. Clients choose most of it, and every member keeps it.
const EVENTS_BYTES_MAX: usize = 64 << 10;

/// Columns of a subject: a user, or a baseline without a user.
const SUBJECT: &str = "source_topic, source_partition, tenant_id, user_id, grant";

/// The uses of an incident: whether each has an accepted credential, and was received up to the last change. `topics`: number
/// of topics in which the status 0 may be an unclear outcome. Values: the topics, the incident, the event of the last
/// change, and the incident again.
fn uses(topics: usize) -> String {
    let topics = ", ?".repeat(topics);
    // Another event with the same id may be sent later.
    format!(
        "SELECT *, if(user_id = '', toString(baseline), '') AS grant, \
            ({ACCEPTED} AND {CHECKED} AND NOT (status = 0 AND source_topic IN (''{topics}))) AS is_accepted, \
            ingested_at <= (SELECT min(ingested_at) FROM token_events WHERE incident_id = ? AND event_id = ?) AS is_seen \
        FROM token_events WHERE incident_id = ? AND kind IN ('use', 'refreshed')"
    )
}

/// One event of each place, client and route of each subject, up to 64 of a subject: first the latest of each network and
/// client family, so that many texts of one client do not displace the others. The subjects that the incident had first come
/// first. Requests whose credential was not accepted are left out, because anyone can send them.
pub(super) fn events(topics: usize) -> String {
    let uses = uses(topics);
    format!(
        "SELECT * FROM (\
            SELECT *, min(first_at) OVER (PARTITION BY {SUBJECT}) AS subject_at, \
                row_number() OVER (PARTITION BY {SUBJECT}, asn, client_family ORDER BY until DESC, event_id) AS rank \
            FROM (\
                SELECT {SUBJECT}, \
                    argMax(event_id, (timestamp, row_id)) AS event_id, argMax(kind, (timestamp, row_id)) AS kind, \
                    argMax(token_id, (timestamp, row_id)) AS token_id, argMax(token_type, (timestamp, row_id)) AS token_type, \
                    argMax(family_id, (timestamp, row_id)) AS family_id, argMax(app_id, (timestamp, row_id)) AS app_id, \
                    argMax(endpoint, (timestamp, row_id)) AS endpoint, argMax(status, (timestamp, row_id)) AS status, \
                    toString(ip_address) AS ip_address, user_agent, client_fingerprint, method, \
                    any(client_family) AS client_family, \
                    any(country) AS country, any(latitude) AS latitude, any(longitude) AS longitude, \
                    any(accuracy_km) AS accuracy_km, any(asn) AS asn, any(as_org) AS as_org, \
                    toUnixTimestamp64Milli(min(timestamp)) AS since, toUnixTimestamp64Milli(max(timestamp)) AS until, \
                    toUnixTimestamp64Milli(min(ingested_at)) AS first_at \
                FROM (SELECT * FROM ({uses}) WHERE is_accepted AND is_seen) \
                GROUP BY {SUBJECT}, ip_address, user_agent, client_fingerprint, method, route)) \
        ORDER BY subject_at, {SUBJECT}, rank, until DESC, event_id \
        LIMIT 64 BY {SUBJECT} LIMIT 6400"
    )
}

/// Numbers of distinct places, clients and routes that [`events`] covers without its limits, and of other uses.
pub(super) fn counts(topics: usize) -> String {
    let uses = uses(topics);
    format!(
        "SELECT uniqExactIf(({SUBJECT}, ip_address, user_agent, client_fingerprint, method, route), is_accepted AND is_seen) \
            AS covered, countIf(is_accepted AND NOT is_seen) AS later, countIf(NOT is_accepted) AS unaccepted \
        FROM ({uses})"
    )
}

/// Author and verdict.
pub(super) struct Given<'a> {
    pub(super) incident: IncidentId,
    pub(super) judgement: Judgement,
    pub(super) by: &'a str,
    /// Milliseconds since the epoch, wall clock.
    pub(super) at: i64,
}

/// A record for each subject in rows of [`events`], in their order.
pub(super) fn of(rows: &[Value], given: &Given<'_>) -> Vec<FeedbackRecord> {
    let mut subjects = BTreeMap::<_, (usize, Vec<&Value>)>::new();
    for (index, row) in rows.iter().enumerate() {
        let texts = ["source_topic", "tenant_id", "user_id", "grant"].map(|name| field(row, name));
        let key = (texts, number(row, "source_partition"));
        subjects.entry(key).or_insert_with(|| (index, Vec::new())).1.push(row);
    }
    let mut subjects: Vec<_> = subjects.into_iter().collect();
    subjects.sort_by_key(|(_, (first, _))| *first);
    let records = subjects.into_iter().filter_map(|(([topic, ..], partition), (_, rows))| {
        let source = SourcePartition { topic, partition: i32::try_from(partition?).ok()? };
        record(&rows, source, given)
    });
    records.take(SUBJECTS_MAX).collect()
}

fn record(rows: &[&Value], source: SourcePartition, given: &Given<'_>) -> Option<FeedbackRecord> {
    let mut bytes = 0;
    let mut fits = |event: &StoredEvent| {
        let size = bytes + event.json().len();
        if size <= EVENTS_BYTES_MAX {
            bytes = size;
        }
        size <= EVENTS_BYTES_MAX
    };
    let stored = |row: &&Value| StoredEvent::new(&event(row)?).ok();
    let (rows, events): (Vec<&&Value>, Vec<_>) =
        rows.iter().filter_map(|row| Some((row, stored(row)?))).filter(|(_, event)| fits(event)).unzip();
    let subject = events.first().and_then(subject_key)?;
    // Of these events only: the evidence of later calls of the same holder stays.
    let times = |name: &'static str| rows.iter().filter_map(move |row| number(row, name));
    let (since, until) = (times("since").min()?, times("until").max()?);
    let Given { incident, judgement, at, .. } = *given;
    let key = FeedbackKey { feedback: FeedbackId(random_id()), subject, partition: None };
    let by = given.by.to_owned();
    let given = GivenFeedback { incident, judgement, by, at, source, since, until, events };
    Some(FeedbackRecord { key, state: FeedbackState::Given(given) })
}

/// Number of events of a record.
pub(super) const fn len(record: &FeedbackRecord) -> usize {
    if let FeedbackState::Given(given) = &record.state { given.events.len() } else { 0 }
}

/// The events of a record, a text for each, for the output of the command. The texts are not sanitized.
pub(super) fn listed(record: &FeedbackRecord) -> Vec<String> {
    let FeedbackState::Given(given) = &record.state else { return Vec::new() };
    let text = |event: &StoredEvent| {
        let event: Value = serde_json::from_str(event.json()).unwrap_or_default();
        let fields = ["ip_address", "user_agent", "method", "endpoint"].map(|name| field(&event, name));
        let country = field(&event["geo"], "country");
        let known = fields.iter().chain([&country]).filter(|field| !field.is_empty());
        let parts: Vec<_> = std::iter::once(&record.key.subject).chain(known).map(String::as_str).collect();
        parts.join(", ")
    };
    given.events.iter().map(text).collect()
}

/// The native event of a row.
fn event(row: &Value) -> Option<Value> {
    let mut event = Map::new();
    for name in [
        "event_id",
        "kind",
        "tenant_id",
        "user_id",
        "token_id",
        "token_type",
        "family_id",
        "app_id",
        "user_agent",
        "client_fingerprint",
        "method",
        "endpoint",
    ] {
        let text = field(row, name);
        if !text.is_empty() {
            event.insert(name.to_owned(), text.into());
        }
    }
    event.insert("timestamp".to_owned(), number(row, "until")?.into());
    let address = field(row, "ip_address");
    if address != "::" {
        event.insert("ip_address".to_owned(), address.into());
    }
    if let Some(status) = number(row, "status").filter(|status| *status != 0) {
        event.insert("status".to_owned(), status.into());
    }
    // Used only with `detection.trust_event_geo`, as in the event itself.
    let geo = ["country", "latitude", "longitude", "accuracy_km", "asn", "as_org"].map(|name| (name, &row[name]));
    let is_known = |value: &Value| !value.is_null() && value != "" && value != 0;
    let geo: Map<_, _> = geo
        .into_iter()
        .filter(|(_, value)| is_known(value))
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
    if geo.contains_key("country") {
        event.insert("geo".to_owned(), geo.into());
    }
    Some(event.into())
}

/// The subject key of a native event. `None` if it cannot be read.
fn subject_key(event: &StoredEvent) -> Option<String> {
    let mut key = None;
    // Nothing of the event is stored, so the key of the hashes does not matter.
    let mut decoder = Decoder::new(Feed::default(), TokenHasher::new(b"for a subject key"));
    decoder.decode(event.json().as_bytes(), &mut |decoded| {
        if let Ok(Decoded::Event(event)) = decoded {
            key = Some(event.subject_key());
        }
    });
    key
}

/// A number that ClickHouse may write as a text.
fn number(row: &Value, name: &str) -> Option<i64> {
    row[name].as_i64().or_else(|| row[name].as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(user: &str, changes: &Value) -> Value {
        let mut row = json!({
            "source_topic": "events", "source_partition": 2, "tenant_id": "acme", "user_id": user, "grant": "",
            "event_id": "e\u{202e}\n", "kind": "use", "token_id": "at", "token_type": "access", "family_id": "g",
            "app_id": "", "endpoint": "/v1/\"x", "status": 200, "ip_address": "::ffff:198.51.100.9",
            "user_agent": "curl", "client_fingerprint": "", "method": "GET", "country": "AU", "latitude": -33.9,
            "longitude": 151.2, "accuracy_km": null, "asn": 1221, "as_org": "", "since": "1000", "until": 2000,
        });
        let (Some(row_fields), Some(changes)) = (row.as_object_mut(), changes.as_object()) else { return row };
        row_fields.extend(changes.clone());
        row
    }

    #[test]
    fn record_has_the_events_of_one_subject() {
        let given = Given { incident: IncidentId(1), judgement: Judgement::True, by: "ana", at: 9_000 };
        let rows = [
            row("ann", &json!({})),
            row("bea", &json!({"ip_address": "::", "status": 0, "country": "", "asn": 0})),
            row("ann", &json!({"until": "5000", "since": 500})),
            row("ann", &json!({"source_partition": "3"})),
            row("", &json!({"token_id": "", "grant": "17"})),
        ];
        let records = of(&rows, &given);
        let read = |record: &FeedbackRecord| {
            let FeedbackState::Given(given) = &record.state else { panic!("{record:?}") };
            (record.key.subject.clone(), given.source.partition, given.since, given.until, given.events.len())
        };
        let found: Vec<_> = records.iter().map(read).collect();
        let subject = |name: &str| format!("acme/{name}");
        // The row without a token cannot be read as an event.
        let expected = [
            (subject("ann"), 2, 500, 5_000, 2),
            (subject("ann"), 3, 1_000, 2_000, 1),
            (subject("bea"), 2, 1_000, 2_000, 1),
        ];
        assert_eq!(found.into_iter().collect::<std::collections::BTreeSet<_>>(), expected.into_iter().collect());
        let bea = records.iter().find(|record| record.key.subject == "acme/bea").expect("a record");
        let FeedbackState::Given(GivenFeedback { events, .. }) = &bea.state else { panic!("{bea:?}") };
        let expected = json!({
            "event_id": "e\u{202e}\n", "kind": "use", "tenant_id": "acme", "user_id": "bea", "token_id": "at",
            "token_type": "access", "family_id": "g", "user_agent": "curl", "method": "GET", "endpoint": "/v1/\"x",
            "timestamp": 2000,
        });
        assert_eq!(serde_json::from_str::<Value>(events[0].json()).expect("JSON"), expected);
        assert_eq!(listed(bea), ["acme/bea, curl, GET, /v1/\"x"]);
    }

    /// Clients choose the sizes of most values.
    #[test]
    fn large_event_displaces_no_other() {
        let given = Given { incident: IncidentId(1), judgement: Judgement::True, by: "ana", at: 9_000 };
        let large = row("ann", &json!({"endpoint": "x".repeat(EVENTS_BYTES_MAX), "since": 1}));
        let records = of(&[large, row("ann", &json!({})), row("ann", &json!({"method": "PUT"}))], &given);
        let FeedbackState::Given(given) = &records[0].state else { panic!("{records:?}") };
        assert_eq!((given.events.len(), given.since, given.until), (2, 1_000, 2_000));
    }

    #[test]
    fn subjects_keep_the_order_of_the_rows() {
        let given = Given { incident: IncidentId(1), judgement: Judgement::True, by: "ana", at: 9_000 };
        let rows: Vec<_> = (0..SUBJECTS_MAX + 20).map(|n| row(&format!("u{}", 900 - n), &json!({}))).collect();
        let records = of(&rows, &given);
        let subjects: Vec<_> = records.iter().map(|record| record.key.subject.as_str()).collect();
        assert_eq!((subjects.len(), subjects[0], subjects[99]), (SUBJECTS_MAX, "acme/u900", "acme/u801"));
    }
}
