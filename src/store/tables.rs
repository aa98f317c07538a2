//! The tables: the columns of each, and next to them the code that writes a row in the same order.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::native as put;
use super::native::Row;
use crate::checkpoint::{DeadLetter, Position};
use crate::place::NetworkClass;
use crate::port::{ActionRow, EventRow, Radius};
use crate::route;
use crate::verdict::{Incident, Signal};

/// A table to write: its name, and name and type of each column in the order of writing.
#[derive(Debug)]
pub(super) struct Table {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [(&'static str, &'static str)],
}

impl Table {
    /// Number of the column `name`.
    pub(super) fn column(&self, name: &str) -> usize {
        self.columns.iter().position(|(column, _)| *column == name).unwrap_or_else(|| unreachable!("column {name}"))
    }

    /// The statement before the rows.
    pub(super) fn insert(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|(name, _)| format!("`{name}`")).collect();
        format!("INSERT INTO {} ({}) FORMAT Native", self.name, columns.join(", "))
    }
}

const TIME: &str = "DateTime64(3, 'UTC')";
const NULLABLE_TIME: &str = "Nullable(DateTime64(3, 'UTC'))";
const TEXT: &str = "String";
/// Type of texts with few distinct values.
const WORD: &str = "LowCardinality(String)";
const TEXTS: &str = "Array(String)";
const WORDS: &str = "Array(LowCardinality(String))";
const NUMBERS: &str = "Array(Float64)";

pub(super) static TABLES: [&Table; 4] = [&TOKEN_EVENTS, &INCIDENTS, &ACTIONS, &DEAD_LETTERS];

pub(super) static TOKEN_EVENTS: Table = Table {
    name: "token_events",
    columns: &[
        ("event_id", TEXT),
        ("timestamp", TIME),
        ("ingested_at", TIME),
        ("kind", WORD),
        ("tenant_id", WORD),
        ("user_id", TEXT),
        ("app_id", WORD),
        ("family_id", TEXT),
        ("token_id", TEXT),
        ("token_type", WORD),
        ("parent_token_id", TEXT),
        ("session_id", TEXT),
        ("baseline", "UInt64"),
        ("ip_address", "IPv6"),
        ("asn", "UInt32"),
        ("as_org", WORD),
        ("network_class", WORD),
        ("country", WORD),
        ("city", WORD),
        ("latitude", "Nullable(Float32)"),
        ("longitude", "Nullable(Float32)"),
        ("accuracy_km", "Nullable(UInt16)"),
        ("user_agent", TEXT),
        ("client_family", WORD),
        ("client_version", WORD),
        ("device", WORD),
        ("client_fingerprint", TEXT),
        ("method", WORD),
        ("endpoint", TEXT),
        ("route", WORD),
        ("status", "UInt16"),
        ("bytes_out", "UInt64"),
        ("scopes", WORDS),
        ("issued_at", NULLABLE_TIME),
        ("expires_at", NULLABLE_TIME),
        ("binding", TEXT),
        ("verdict", WORD),
        ("score", "Float64"),
        ("log_odds", "Float64"),
        ("p_value", "Float64"),
        ("prior_log_odds", "Nullable(Float64)"),
        ("alert_from", "Nullable(Float64)"),
        ("rules", WORDS),
        ("reasons", TEXTS),
        ("signal_shares", NUMBERS),
        ("signal_p_values", NUMBERS),
        ("signal_fired", "Array(Bool)"),
        ("signal_observed", TEXTS),
        ("signal_expected", TEXTS),
        ("decisive", WORDS),
        ("incident_id", TEXT),
        ("action", WORD),
        ("mode", WORD),
        ("source_topic", WORD),
        ("source_partition", "Int32"),
        ("source_offset", "Int64"),
        ("source_index", "UInt32"),
        ("row_id", "UInt64"),
        ("attrs", "Map(LowCardinality(String), String)"),
    ],
};

pub(super) fn put_event(to: &mut Row<'_>, row: &EventRow<'_>) {
    let enriched = row.event;
    let event = &enriched.event;
    let outcome = row.outcome;

    put::text(to, &event.event_id);
    put::i64(to, event.timestamp.millis());
    put::i64(to, row.ingested_at);
    put::text(to, event.kind.as_str());
    put::optional_text(to, event.tenant_id.as_deref());
    put::optional_text(to, event.user_id.as_deref());
    put::optional_text(to, event.app_id.as_deref());
    put::optional_text(to, event.family_id.as_deref());
    put::text(to, event.token_id.as_str());
    put::text(to, event.token_type.as_str());
    put::text(to, event.parent_token_id.as_ref().map_or("", |parent| parent.as_str()));
    put::optional_text(to, event.session_id.as_deref());
    put::u64(to, enriched.baseline_id().0);

    put::ipv6(to, event.address.map_or(std::net::Ipv6Addr::UNSPECIFIED, crate::event::Address::to_ipv6));
    let network = enriched.network.as_deref();
    put::u32(to, network.map_or(0, |network| network.asn));
    put::text(to, network.map_or("", |network| &network.org));
    put::text(to, network.map_or("", |network| network_class(network.class)));
    let place = enriched.place.as_deref();
    put::text(to, place.map_or("", |place| place.country.as_str()));
    put::text(to, place.map_or("", |place| &place.city));
    let at = place.and_then(|place| place.coordinates);
    put::nullable(to, at.map(|at| at.latitude.to_le_bytes()));
    put::nullable(to, at.map(|at| at.longitude.to_le_bytes()));
    put::nullable(to, at.and_then(|at| at.accuracy_km).map(u16::to_le_bytes));

    put::optional_text(to, event.user_agent.as_deref());
    put::text(to, &enriched.client.family);
    put::text(to, &enriched.client.version);
    put::text(to, enriched.client.device.as_str());
    put::optional_text(to, event.client_fingerprint.as_deref());
    put::optional_text(to, event.method.as_deref());
    let endpoint = event.endpoint.as_deref().unwrap_or_default();
    put::text(to, endpoint);
    put::text(to, &route::template(endpoint));
    put::u16(to, event.status.unwrap_or_default());
    put::u64(to, event.bytes_out.unwrap_or_default());
    put::array(to, event.scopes.iter(), |to, scope| to.text(scope));
    put::nullable(to, event.issued_at.map(|at| at.millis().to_le_bytes()));
    put::nullable(to, event.expires_at.map(|at| at.millis().to_le_bytes()));
    put::optional_text(to, event.binding.as_deref());

    put::text(to, outcome.verdict.as_str());
    put::f64(to, outcome.score());
    put::f64(to, outcome.log_odds);
    put::f64(to, outcome.p_value);
    put::nullable(to, Some(outcome.prior_log_odds.to_le_bytes()));
    put::nullable(to, Some(outcome.alert_from.to_le_bytes()));
    put_signals(to, &outcome.signals);
    let decisive: smallvec::SmallVec<[_; 8]> = outcome.decisive().collect();
    put::array(to, decisive.iter(), |to, rule| to.text(rule.as_str()));
    match outcome.incident_id {
        // Few events belong to an incident.
        Some(id) => put::text(to, &id.to_string()),
        None => put::text(to, ""),
    }
    put::text(to, outcome.action.as_str());
    put::text(to, outcome.mode.as_str());

    put::text(to, &row.position.topic);
    put::i32(to, row.position.partition);
    put::i64(to, row.position.offset);
    put::u32(to, row.index);
    put::u64(to, row_id(row.position, row.index));
    put::map(to, event.attrs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
}

/// Identifies the event: equal if the event is read again, different for every other one, whatever id the producer
/// chose.
pub(super) fn row_id(position: &Position, index: u32) -> u64 {
    let Position { topic, topic_id, partition, offset } = position;
    let place = u128::from(*partition as u32) << 96 | u128::from(index) << 64 | u128::from(*offset as u64);
    // A topic that was deleted and created again has the same offsets with other messages.
    let topic = xxh3_64_with_seed(&topic_id.0, xxh3_64(topic.as_bytes()));
    xxh3_64_with_seed(&place.to_le_bytes(), topic)
}

/// The columns `rules` to `signal_expected`.
fn put_signals(to: &mut Row<'_>, signals: &[Signal]) {
    put_rules(to, signals);
    put::array(to, signals.iter(), |to, signal| to.f64(signal.p_value));
    put::array(to, signals.iter(), |to, signal| to.flag(signal.fired));
    put::array(to, signals.iter(), |to, signal| to.text(&signal.observed));
    put::array(to, signals.iter(), |to, signal| to.text(&signal.expected));
}

/// The columns `rules`, `reasons` and `signal_shares`.
fn put_rules(to: &mut Row<'_>, signals: &[Signal]) {
    put::array(to, signals.iter(), |to, signal| to.text(signal.rule.as_str()));
    put::array(to, signals.iter(), |to, signal| to.text(&signal.reason));
    put::array(to, signals.iter(), |to, signal| to.f64(signal.share));
}

const fn network_class(class: NetworkClass) -> &'static str {
    match class {
        NetworkClass::Access => "access",
        NetworkClass::Hosting => "hosting",
        NetworkClass::Anonymiser => "anonymiser",
    }
}

pub(super) static INCIDENTS: Table = Table {
    name: "incidents",
    columns: &[
        ("incident_id", TEXT),
        ("campaign_id", TEXT),
        ("opened_at", TIME),
        ("updated_at", TIME),
        ("severity", WORD),
        ("verdict", WORD),
        ("baseline", "UInt64"),
        ("subject", TEXT),
        ("tenant_id", WORD),
        ("token_id", TEXT),
        ("family_id", TEXT),
        ("user_id", TEXT),
        ("app_id", WORD),
        ("victims", "UInt32"),
        ("event_id", TEXT),
        ("change_id", "UInt64"),
        ("log_odds", "Float64"),
        ("rules", WORDS),
        ("reasons", TEXTS),
        ("signal_shares", NUMBERS),
        ("reason", TEXT),
        ("action", WORD),
        ("mode", WORD),
        ("target", TEXT),
    ],
};

pub(super) fn put_incident(to: &mut Row<'_>, incident: &Incident) {
    put::text(to, &incident.id.to_string());
    put::text(to, &incident.campaign_id.to_string());
    put::i64(to, incident.opened_at.millis());
    put::i64(to, incident.updated_at.millis());
    put::text(to, incident.severity.as_str());
    put::text(to, incident.verdict.as_str());
    put::u64(to, incident.baseline.0);
    put::text(to, &incident.subject);
    put::text(to, &incident.tenant_id);
    put::text(to, &incident.token_id);
    put::text(to, &incident.family_id);
    put::text(to, &incident.user_id);
    put::text(to, &incident.app_id);
    put::u32(to, incident.victims_total);
    put::text(to, &incident.event_id);
    put::u64(to, incident.change);
    put::f64(to, incident.log_odds);
    put_rules(to, &incident.signals);
    put::text(to, &incident.reason);
    put::text(to, incident.action.as_str());
    put::text(to, incident.mode.as_str());
    match &incident.revoke {
        Some(target) => put::text(to, &format!("{}:{}", target.kind(), target.id())),
        None => put::text(to, ""),
    }
}

pub(super) static ACTIONS: Table = Table {
    name: "actions",
    columns: &[
        ("action_id", TEXT),
        ("incident_id", TEXT),
        ("requested_at", TIME),
        ("kind", WORD),
        ("target", TEXT),
        ("mode", WORD),
        ("attempt", "UInt32"),
        ("outcome", WORD),
        ("http_status", "UInt16"),
        ("latency_ms", "UInt32"),
        ("requested_by", WORD),
        ("reason", TEXT),
        ("tenant_id", WORD),
        ("user_id", TEXT),
        ("radius", WORD),
        ("revoked_at", NULLABLE_TIME),
        ("verified_at", NULLABLE_TIME),
    ],
};

pub(super) fn put_action(to: &mut Row<'_>, action: &ActionRow) {
    put::text(to, &action.action_id);
    put::text(to, &action.incident_id);
    put::i64(to, action.requested_at);
    put::text(to, &action.kind);
    put::text(to, &action.target);
    put::text(to, action.mode.as_str());
    put::u32(to, action.attempt);
    put::text(to, action.outcome.as_str());
    put::u16(to, action.http_status);
    put::u32(to, action.latency_ms);
    put::text(to, &action.requested_by);
    put::text(to, &action.reason);
    put::text(to, &action.tenant_id);
    put::text(to, &action.user_id);
    put::text(to, action.radius.map_or("", Radius::as_str));
    put::nullable(to, action.confirmation.map(|confirmation| confirmation.revoked_at.to_le_bytes()));
    put::nullable(to, action.confirmation.and_then(|confirmation| confirmation.verified_at).map(i64::to_le_bytes));
}

pub(super) static DEAD_LETTERS: Table = Table {
    name: "dead_letters",
    columns: &[
        ("source_topic", WORD),
        ("source_partition", "Int32"),
        ("source_offset", "Int64"),
        ("received_at", TIME),
        ("reason", TEXT),
        ("fault_byte", "UInt64"),
        ("fault_line", "UInt32"),
        ("fault_column", "UInt32"),
        ("payload", TEXT),
    ],
};

pub(super) fn put_dead_letter(to: &mut Row<'_>, letter: &DeadLetter) {
    put::text(to, &letter.position.topic);
    put::i32(to, letter.position.partition);
    put::i64(to, letter.position.offset);
    put::i64(to, letter.received_at);
    put::text(to, &letter.reason);
    // Lines count from 1, so 0 stands for the whole message.
    let (byte, line, column) = letter.at.map_or((0, 0, 0), |at| (at.byte, at.line, at.column));
    put::u64(to, byte as u64);
    put::u32(to, u32::try_from(line).unwrap_or(u32::MAX));
    put::u32(to, u32::try_from(column).unwrap_or(u32::MAX));
    put::text_bytes(to, &letter.payload);
}
