//! Decoding alone, compared with `serde_json` on the same bytes.

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;
use tokenwarden::secret;
use tokenwarden::token::TokenHasher;
use tokenwarden::wire::{self, Decoder, Format};

/// An ordinary event of about 365 bytes.
fn native(number: u64) -> String {
    format!(
        r#"{{"event_id":"5f0c8a1e-7b32-4d7e-9a41-0000{number:08x}","timestamp":"2026-11-22T10:15:30.123Z","token_id":"at-{number:06}","token_type":"access","family_id":"grant-{number:05}","user_id":"u-{number:05}","app_id":"crm","tenant_id":"acme","ip_address":"192.0.2.{}","user_agent":"Mozilla/5.0 (X11; Linux x86_64) Chrome/141.0","method":"GET","endpoint":"/v1/contacts/{number}","status":200}}"#,
        number % 256
    )
}

/// The same fields, decoded by plain serde.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only decoding is measured")]
struct Bare<'a> {
    event_id: &'a str,
    timestamp: &'a str,
    token_id: &'a str,
    token_type: &'a str,
    family_id: &'a str,
    user_id: &'a str,
    app_id: &'a str,
    tenant_id: &'a str,
    ip_address: &'a str,
    user_agent: &'a str,
    method: &'a str,
    endpoint: &'a str,
    status: u16,
}

fn hasher() -> TokenHasher {
    TokenHasher::new(b"a key for measuring")
}

fn run<T: AsRef<[u8]>>(
    group: &mut BenchmarkGroup<'_, criterion::measurement::WallTime>,
    name: &str,
    messages: &[T],
    mut each: impl FnMut(&[u8]),
) {
    group.throughput(Throughput::Elements(messages.len() as u64));
    group.bench_function(name, |bencher| {
        bencher.iter(|| messages.iter().for_each(|message| each(black_box(message.as_ref()))));
    });
}

fn decode(criterion: &mut Criterion) {
    let messages: Vec<String> = (0..1000).map(native).collect();
    let mut group = criterion.benchmark_group("decode");
    run(&mut group, "bare serde_json", &messages, |message| {
        let text = std::str::from_utf8(message).unwrap_or_default();
        black_box(serde_json::from_str::<Bare<'_>>(text).is_ok());
    });
    let mut decoder = Decoder::new(Format::Native, hasher());
    run(&mut group, "native", &messages, |message| {
        decoder.decode(message, &mut |record| {
            black_box(&record);
        });
    });
    run(&mut group, "search for secrets", &messages, |message| {
        black_box(secret::may_hold_secret(message));
    });
    run(&mut group, "redact a dead letter", &messages, |message| {
        black_box(wire::redact(message, &hasher()));
    });
    for format in [Format::Cloudtrail, Format::Okta, Format::Github, Format::Ocsf, Format::Ecs] {
        let file = format!("{}/tests/data/formats/{format}.ndjson", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let messages: Vec<&str> = text.lines().collect();
        let mut decoder = Decoder::new(format, hasher());
        run(&mut group, format.as_str(), &messages, |message| {
            decoder.decode(message, &mut |record| {
                black_box(&record);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
