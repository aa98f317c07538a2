//! Cost of `engine::step` with very many baselines, most of them outside of the caches, and the memory of the process.
//! `cargo bench --bench scale` uses ten million tokens; `cargo bench --bench scale -- 2000000` uses the given number.
//!
//! Each token is used once a day from its own address, in the same hour, in an order that is shuffled every day.
//! Consecutive tokens were therefore not consecutive before and are not adjacent in memory. On the first and third day
//! each use is one call, so every event begins a visit. On the second and fourth day it is four calls to four routes,
//! some minutes apart, as in the simulated quarters. The last two days are the result.
//!
//! At the end, the benchmark prints the cost of a snapshot of the state and of its restoration.
//!
//! For comparison the benchmark prints the time to read as much memory as a baseline, and to decode a call. An event
//! also reads other memory (tables, user, visit), half of it only when a visit begins. The comparison characterises the
//! machine and is not a lower bound.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a bench measures time")]

#[path = "wall/bare.rs"]
mod bare;
#[path = "wall/memory.rs"]
mod memory;

use std::convert::Infallible;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use tokenwarden::engine::{self, STATE_FORMAT, State, Step};
use tokenwarden::enrich::{Enricher, GeoSettings};
use tokenwarden::event::{Address, Event, Timestamp};
use tokenwarden::rule::RuleSet;
use tokenwarden::snapshot::{read, write};
use tokenwarden::token::TokenHasher;
use tokenwarden::wire::{Decoded, Decoder, Format};

const TOKENS: u64 = 10_000_000;
/// Calls per visit, by day.
const DAYS: [u64; 4] = [1, 4, 1, 4];
/// Number of tokens that begin between two calls of a visit: seven minutes of traffic, with ten million tokens far more
/// than any cache holds.
const APART: u64 = 200;
const DAY_MS: i64 = 86_400_000;
/// Monday, 2 February 2026, 00:00 UTC.
const START: i64 = 1_769_990_400_000;
/// Events that are prepared before their scoring is timed.
const BATCH: u64 = 256;
/// Number of calls for the decoding time.
const CALLS_DECODED: usize = 100_000;
const DECODE_TURNS: usize = 7;
/// Level of zstd with which snapshots are stored.
const LEVEL: i32 = 1;
/// A call from a common browser; other fields differ by token.
const CALL: &[u8] = br#"{"event_id":"e","timestamp":"2026-02-02T00:00:00Z","token_id":"t","user_id":"u","app_id":"crm","tenant_id":"acme","ip_address":"192.0.2.1","user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/144.0.0.0 Safari/537.36","method":"GET","endpoint":"/v1/contacts","status":200}"#;

fn main() {
    let tokens = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(TOKENS);
    // The same number of tokens in each hour.
    let tokens: u64 = tokens.next_multiple_of(24);
    let (one_by_one, ahead) = memory::entry(tokens as usize, engine::GROUP);
    println!(
        "scale: walls: reading as much as a baseline {one_by_one:.0} ns, {ahead:.0} ns where {} are looked ahead for",
        engine::GROUP
    );
    let lines = [CALL, b"\n"].concat().repeat(CALLS_DECODED);
    let mut turns: Vec<Duration> = (0..DECODE_TURNS).map(|_| bare::decode(&lines)).collect();
    turns.sort_unstable();
    let decode = turns[DECODE_TURNS / 2].as_nanos() as usize / CALLS_DECODED;
    println!("scale: walls: bare decode of a call, the same again and again: {decode} ns");
    let mut decoder = Decoder::new(Format::Native, TokenHasher::new(b"a key for the bench"));
    decoder.decode(CALL, &mut |decoded| {
        let Ok(Decoded::Event(call)) = decoded else { unreachable!("the call is an event") };
        measure(tokens, &call);
    });
}

fn measure(tokens: u64, call: &Event<'_>) {
    let mut enricher = Enricher::new(&GeoSettings::default());
    let rules = RuleSet::builtin();
    let mut state = State::new(engine::Settings::default());
    for (day, calls) in (0..).zip(DAYS) {
        let order = order(day, tokens / 24);
        let mut spent = Duration::ZERO;
        let (mut number, mut told) = (0, 0);
        while number < tokens * calls {
            let events = (number..(tokens * calls).min(number + BATCH)).map(|number| {
                let (visit, nth) = (number / calls, number % calls);
                let token = nth_token((visit + tokens - nth * (tokens / APART)) % tokens, &order);
                let at = day * DAY_MS + (number as i64 * DAY_MS) / (tokens * calls) as i64;
                enricher.enrich(called(call, token, nth as usize, at))
            });
            let events: Vec<_> = events.collect();
            let began = Instant::now();
            for group in events.chunks(engine::GROUP) {
                engine::look_ahead(group.iter().map(|event| (&state, event)));
                for event in group {
                    if let Step::Scored(outcome) = black_box(&engine::step(&mut state, &rules, event)) {
                        told += u64::from(!outcome.signals.is_empty());
                    }
                }
            }
            spent += began.elapsed();
            number += BATCH;
        }
        let (bytes, baselines) = state.memory();
        println!(
            "scale: day {}, {calls} a visit: {} ns an event, {} % with signals; {baselines} baselines of {} bytes; {} MB resident",
            day + 1,
            spent.as_nanos() / u128::from(tokens * calls),
            100 * told / (tokens * calls),
            bytes / baselines.max(1),
            resident_kb() / 1_024
        );
    }
    snapshot(&state);
}

/// Cost of a snapshot of the state, and of its restoration.
fn snapshot(state: &State) {
    let (bytes, baselines) = state.memory();
    let mut records = Vec::new();
    let began = Instant::now();
    let written = write(state, STATE_FORMAT, &mut |record| -> Result<(), Infallible> {
        records.push(record);
        Ok(())
    });
    let (Ok(extent), writing) = (written, began.elapsed());
    let began = Instant::now();
    let compressed: usize =
        records.iter().map(|record| zstd::bulk::compress(record, LEVEL).expect("it is compressed").len()).sum();
    let compressing = began.elapsed();
    let per_baseline = |time: Duration| time.as_nanos() / baselines.max(1) as u128;
    println!(
        "scale: snapshot: {} MB in {} records of {baselines} baselines ({} MB of memory), {} MB compressed; written in \
         {} ms ({} ns a baseline), compressed in {} ms",
        extent.bytes >> 20,
        extent.records,
        bytes >> 20,
        compressed >> 20,
        writing.as_millis(),
        per_baseline(writing),
        compressing.as_millis()
    );
    let mut records = records.into_iter();
    let began = Instant::now();
    let read = read::<State, Infallible>(STATE_FORMAT, extent, &mut || Ok(records.next()));
    let reading = began.elapsed();
    assert_eq!(read.expect("it was written").memory().1, baselines);
    println!("scale: snapshot: restored in {} ms ({} ns a baseline)", reading.as_millis(), per_baseline(reading));
}

/// Order of an hour's tokens on a day, shuffled differently each day.
fn order(day: i64, tokens: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..tokens).collect();
    order.sort_by_cached_key(|token| BuildHasherDefault::<DefaultHasher>::default().hash_one((day, token)));
    order
}

/// The token at position `turn` of a day.
fn nth_token(turn: u64, order: &[u64]) -> u64 {
    let of_hour = order.len() as u64;
    turn / of_hour * of_hour + order[(turn % of_hour) as usize]
}

/// Call number `nth` of a visit, `at` milliseconds after the start.
fn called<'a>(call: &Event<'a>, token: u64, nth: usize, at: i64) -> Event<'a> {
    const ROUTES: [&str; 4] = ["/v1/contacts", "/v1/deals", "/v1/notes", "/v1/contacts/search"];
    let mut event = call.clone();
    event.event_id = format!("{at}-{token}").into();
    // Each token begins with another route, so that short visits use all of them too.
    event.endpoint = Some(ROUTES[(nth + token as usize) % ROUTES.len()].into());
    event.family_id = Some(format!("grant-{token}").into());
    event.user_id = Some(format!("user-{token}").into());
    event.address = Some(Address::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | token as u32))));
    event.timestamp = Timestamp::from_millis(START + at).expect("before the year 2200");
    event
}

/// Resident memory of this process in kB (proc(5)).
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is among them");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
