//! `tokenwarden investigate`: activity of a token, user, application or address.

use std::net::IpAddr;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::explain::{StoreArguments, field, line, store_error};
use super::failure::Failure;
use crate::config::Config;
use crate::event::Address;

/// Show the activity of a token or grant, a user, an application or an address.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    store: StoreArguments,
    /// Kind of the id.
    #[arg(value_enum)]
    kind: Subject,
    /// The id. For `token`, a token id or a family id.
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    Token,
    User,
    App,
    Ip,
}

impl Subject {
    /// SQL condition for its events. Every question mark stands for the id.
    const fn condition(self) -> &'static str {
        match self {
            Self::Token => "(token_id = ? OR family_id = ?)",
            Self::User => "user_id = ?",
            Self::App => "app_id = ?",
            Self::Ip => "ip_address = toIPv6(?)",
        }
    }
}

/// Parts of the result, and the query of each.
const PARTS: [(&str, &str); 5] = [
    (
        "places",
        "SELECT address, any(country) AS country, any(city) AS city, any(asn) AS asn, any(as_org) AS as_org, \
         min(timestamp) AS first_seen, max(timestamp) AS last_seen, count() AS calls, \
         countIf(verdict IN ('alert', 'revoke')) AS suspect_calls \
         FROM token_events WHERE SUBJECT GROUP BY address ORDER BY suspect_calls DESC, calls DESC, address LIMIT 50",
    ),
    (
        "routes",
        "SELECT method, route, count() AS calls, countIf(status NOT IN (401, 403)) AS accepted, \
         sum(bytes_out) AS bytes_out, min(timestamp) AS first_seen, max(timestamp) AS last_seen, \
         countIf(verdict IN ('alert', 'revoke')) AS suspect_calls \
         FROM token_events WHERE SUBJECT AND route != '' GROUP BY method, route \
         ORDER BY suspect_calls DESC, calls DESC, method, route LIMIT 50",
    ),
    (
        "clients",
        "SELECT user_agent, any(client_family) AS client, min(timestamp) AS first_seen, max(timestamp) AS last_seen, \
         count() AS calls, countIf(verdict IN ('alert', 'revoke')) AS suspect_calls \
         FROM token_events WHERE SUBJECT GROUP BY user_agent ORDER BY suspect_calls DESC, calls DESC, user_agent LIMIT 50",
    ),
    (
        "tokens",
        "SELECT tenant_id, user_id, app_id, family_id, uniq(token_id) AS tokens, argMax(token_id, timestamp) AS last_token, \
         min(timestamp) AS first_seen, max(timestamp) AS last_seen, count() AS calls, \
         countIf(verdict IN ('alert', 'revoke')) AS suspect_calls, max(score) AS score_max \
         FROM token_events WHERE SUBJECT GROUP BY tenant_id, user_id, app_id, family_id, if(family_id = '', token_id, '') \
         ORDER BY suspect_calls DESC, calls DESC, last_token LIMIT 50",
    ),
    (
        "incidents",
        "SELECT incident_id, opened_at, updated_at, severity, verdict, token_id, reason FROM incidents_latest \
         WHERE incident_id GLOBAL IN (SELECT incident_id FROM token_events WHERE SUBJECT AND incident_id != '') \
         ORDER BY updated_at DESC, incident_id LIMIT 50",
    ),
];

const SUMMARY: &str = "SELECT count() AS events, min(timestamp) AS first_seen, max(timestamp) AS last_seen, \
                       uniq(ip_address) AS addresses, uniq(route) AS routes, countIf(status IN (401, 403)) AS refused, \
                       countIf(verdict = 'watch') AS watched, countIf(verdict = 'alert') AS alerted, \
                       countIf(verdict = 'revoke') AS revoked FROM token_events WHERE SUBJECT";

/// Queries the store and prints the result.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let settings = Config::load(arguments.store.config())?.store;
    let id = match arguments.kind {
        Subject::Ip => {
            let address: IpAddr = arguments.id.parse().map_err(|_| {
                Failure::Usage(format!("{} is not an IP address, such as 192.0.2.7 or 2001:db8::7", arguments.id))
            })?;
            Address::new(address).to_ipv6().to_string()
        }
        _ => arguments.id.clone(),
    };
    let condition = arguments.kind.condition();
    let bound: Vec<&str> = condition.matches('?').map(|_| &*id).collect();
    arguments.store.answer(settings, text, async |reader| {
        let query = async |sql: &str| {
            reader.rows(&sql.replace("SUBJECT", condition), &bound).await.map_err(|error| store_error(&error))
        };
        let summary = query(SUMMARY).await?.into_iter().next().unwrap_or_default();
        if summary["events"].as_u64().unwrap_or_default() == 0 {
            return Err(Failure::Usage(format!("the store has no events of {}", arguments.id)));
        }
        let mut answer = json!({ "id": arguments.id, "summary": summary });
        for (part, sql) in PARTS {
            answer[part] = query(sql).await?.into();
        }
        Ok(answer)
    })
}

fn text(answer: &Value) -> String {
    let mut text = String::new();
    line(&mut text, &[&field(answer, "id")]);
    fields(&mut text, &answer["summary"]);
    for (part, _) in PARTS {
        let rows = answer[part].as_array().map(Vec::as_slice).unwrap_or_default();
        if !rows.is_empty() {
            line(&mut text, &[part]);
        }
        for row in rows {
            fields(&mut text, row);
        }
    }
    text
}

/// `  name value, name value`, without empty values.
fn fields(text: &mut String, row: &Value) {
    let named = row.as_object().into_iter().flatten();
    let named = named.map(|(name, _)| (name, field(row, name))).filter(|(_, value)| !value.is_empty());
    let fields: Vec<String> = named.map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect();
    line(text, &["  ", &fields.join(", ")]);
}
