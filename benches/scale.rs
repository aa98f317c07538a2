//! Judgement with very many baselines: what `engine::step` costs an event when hardly one of them is in a cache, and
//! what the process holds. `cargo bench --bench scale` takes ten million tokens; `cargo bench --bench scale -- 2000000`
//! as many as it says.
//!
//! Every token is used once a day from its own address, at the same hour, within which the order is shuffled anew each
//! day: who follow each other did not do so before, and do not lie beside each other in memory either. On the first
//! and the third day each use is one call, so that every event begins a visit; on the second and the fourth it is four
//! calls, to four routes, some minutes apart, as many as in the simulated quarters. The last two days are what to look at.
//!
//! Beside them stands what the same machine needs for reading as much memory as a baseline takes, and for decoding a
//! call. An event asks for other memory too (tables that find it, its holder, visit and user), and half of it only where a
//! visit begins: the wall tells the machine, and is no floor.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a bench measures time")]

#[path = "wall/bare.rs"]
mod bare;
#[path = "wall/memory.rs"]
mod memory;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use tokenwarden::engine::{self, State, Step};
use tokenwarden::enrich::{Enricher, GeoSettings};
use tokenwarden::event::{Address, Event, Timestamp};
use tokenwarden::rule::RuleSet;
use tokenwarden::token::TokenHasher;
use tokenwarden::wire::{Decoded, Decoder, Format};

const TOKENS: u64 = 10_000_000;
/// Calls a visit, by day.
const DAYS: [u64; 4] = [1, 4, 1, 4];
/// Between two calls of a visit so many tokens' share begin theirs: seven minutes' worth, and with ten million tokens far
/// more than any cache holds.
const APART: u64 = 200;
const DAY_MS: i64 = 86_400_000;
/// Monday, 2 February 2026, 00:00 UTC.
const START: i64 = 1_769_990_400_000;
/// Events made before their judgement is timed.
const BATCH: u64 = 256;
/// For the wall of decoding.
const CALLS_DECODED: usize = 100_000;
const DECODE_TURNS: usize = 7;
/// Of a caller from a common browser; the rest is each token's own.
const CALL: &[u8] = br#"{"event_id":"e","timestamp":"2026-02-02T00:00:00Z","token_id":"t","user_id":"u","app_id":"crm","tenant_id":"acme","ip_address":"192.0.2.1","user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/144.0.0.0 Safari/537.36","method":"GET","endpoint":"/v1/contacts","status":200}"#;

fn main() {
    let tokens = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(TOKENS);
    // As many in each hour.
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
    let mut enricher = Enricher::new(&GeoSettings::default(), false);
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
                    if let Step::Judged(outcome) = black_box(&engine::step(&mut state, &rules, event)) {
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
}

/// In which order the tokens of an hour come on a day: shuffled, another way each day.
fn order(day: i64, tokens: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..tokens).collect();
    order.sort_by_cached_key(|token| BuildHasherDefault::<DefaultHasher>::default().hash_one((day, token)));
    order
}

/// The token whose turn is `turn`-th of a day.
fn nth_token(turn: u64, order: &[u64]) -> u64 {
    let of_hour = order.len() as u64;
    turn / of_hour * of_hour + order[(turn % of_hour) as usize]
}

/// The `nth` call of a visit, `at` so many milliseconds after the beginning.
fn called<'a>(call: &Event<'a>, token: u64, nth: usize, at: i64) -> Event<'a> {
    const ROUTES: [&str; 4] = ["/v1/contacts", "/v1/deals", "/v1/notes", "/v1/contacts/search"];
    let mut event = call.clone();
    event.event_id = format!("{at}-{token}").into();
    // Each token begins with its own, so that short visits call in all what long ones do.
    event.endpoint = Some(ROUTES[(nth + token as usize) % ROUTES.len()].into());
    event.family_id = Some(format!("grant-{token}").into());
    event.user_id = Some(format!("user-{token}").into());
    event.address = Some(Address::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | token as u32))));
    event.timestamp = Timestamp::from_millis(START + at).expect("before the year 2200");
    event
}

/// Memory of this process that is in RAM, kB (proc(5)).
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is among them");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
