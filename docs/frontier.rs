//! Prints how many thefts of a scenario are caught, by whether the token had been used from the thief's address and with
//! the thief's user agent before. Then it lists the missed thefts. docs/results.md shows the output for bulk exports.
//!
//! Input: folders that `simulate` wrote and `evaluate DIR --json DIR/figures.json` measured.
//!
//! `cargo run --release --example frontier -- bulk_export DIR [DIR ...]`

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a figure that cannot be made says so and ends")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokenwarden::route;

#[derive(Deserialize)]
struct Call {
    event_id: String,
    timestamp: String,
    token_id: String,
    family_id: Option<String>,
    ip_address: Option<String>,
    user_agent: Option<String>,
    endpoint: Option<String>,
    #[serde(default)]
    bytes_out: u64,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let scenario = arguments.next().expect("a scenario, and folders");
    let mut table: BTreeMap<[bool; 2], [u32; 4]> = BTreeMap::new();
    for folder in arguments {
        tell(Path::new(&folder), &scenario, &mut table);
    }
    println!("\naddress known, agent known: cases, caught at 1, at 5, at 20");
    for ([address, agent], [cases, at_1, at_5, at_20]) in table {
        println!("{address}, {agent}: {cases}, {at_1}, {at_5}, {at_20}");
    }
}

fn tell(folder: &Path, scenario: &str, table: &mut BTreeMap<[bool; 2], [u32; 4]>) {
    let open = |name: &str| BufReader::new(File::open(folder.join(name)).expect("figures.json, labels and events"));
    let figures: Value = serde_json::from_reader(open("figures.json")).expect("JSON");
    let thefts: Vec<&Value> = figures["each_theft"]
        .as_array()
        .expect("thefts")
        .iter()
        .filter(|theft| theft["scenario"] == scenario)
        .collect();
    let case_of: HashMap<String, String> = open("labels.ndjson")
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.expect("text")).expect("a label"))
        .filter(|label| label["scenario"] == scenario)
        .map(|label| (text(&label["event_id"]), text(&label["case"])))
        .collect();
    let subjects: HashSet<String> = thefts.iter().map(|theft| text(&theft["most_telling"]["subject"])).collect();
    let mut calls: HashMap<String, Vec<Call>> = HashMap::new();
    for line in BufReader::new(zstd::Decoder::new(open("events.ndjson.zst")).expect("zstd")).lines() {
        let call: Call = serde_json::from_str(&line.expect("text")).expect("an event");
        let subject = call.family_id.clone().unwrap_or_else(|| call.token_id.clone());
        if subjects.contains(&subject) {
            calls.entry(subject).or_default().push(call);
        }
    }
    for theft in thefts {
        let (case, telling) = (text(&theft["case"]), &theft["most_telling"]);
        let mut calls: Vec<&Call> = calls[&text(&telling["subject"])].iter().collect();
        calls.sort_by(|a, b| a.timestamp.cmp(&b.timestamp));
        let stolen: Vec<&Call> =
            calls.iter().copied().filter(|call| case_of.get(&call.event_id) == Some(&case)).collect();
        let first = stolen.first().expect("a theft has events");
        let own = || {
            let before = calls.iter().take_while(|call| call.timestamp < first.timestamp);
            before.filter(|call| !case_of.contains_key(&call.event_id))
        };
        let known = [
            own().any(|call| call.ip_address == first.ip_address),
            own().any(|call| call.user_agent == first.user_agent),
        ];
        let caught_at = theft["caught_at"].as_f64();
        let counts = table.entry(known).or_default();
        counts[0] += 1;
        for (count, budget) in counts[1..].iter_mut().zip([1.0, 5.0, 20.0]) {
            *count += u32::from(caught_at.is_some_and(|caught_at| caught_at <= budget));
        }
        if caught_at != Some(1.0) {
            let of = |call: &Call| call.endpoint.as_deref().map(|endpoint| route::template(endpoint).into_owned());
            println!(
                "{} {case:?}: {} calls, {} bytes, called {} times before by {:?}, known {known:?}, caught at {caught_at:?}, z {:.1}",
                folder.display(),
                stolen.len(),
                stolen.iter().map(|call| call.bytes_out).sum::<u64>(),
                own().filter(|call| of(call) == of(first)).count(),
                first.user_agent.as_deref().unwrap_or("nobody"),
                telling["log_odds"].as_f64().expect("a number"),
            );
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}
