//! Appearances of users, and requests that anyone can send in their name.

use super::*;
use crate::millis::DAY_MS;

/// A request: day, minute, address, path and status.
type Request<'a> = (i64, i64, &'a str, &'a str, u16);

/// Number of appearances of a user with the usual calls on four days, and then `requests`.
fn appearances(requests: &[Request<'_>]) -> usize {
    let settings = engine::Settings { campaigns: true, ..engine::Settings::default() };
    let enricher = Enricher::with_lookup(Box::new(PanickingLookup));
    let hasher = TokenHasher::new(b"a key for tests");
    let mut pipeline = Pipeline::new(enricher, Arc::new(RuleSet::builtin()), hasher, settings);
    let usual = (0..4).map(|day| (day, 0, "198.51.100.7", "/v1/messages", 200));
    let lines: Vec<_> = usual.chain(requests.iter().copied()).enumerate().map(|(number, request)| {
        let (day, minute, address, path, status) = request;
        let at = 1_790_000_000_000 + day * DAY_MS + minute * MINUTE_MS;
        format!(
            r#"{{"event_id":"e{number}","timestamp":{at},"token_id":"t","family_id":"f","user_id":"u","app_id":"crm","ip_address":"{address}","endpoint":"{path}","status":{status}}}"#
        )
    }).collect();
    let mut partition = pipeline.partition(Format::Native);
    let mut epoch = Epoch::new(TestRows::default());
    let positions: Vec<_> = (0..lines.len()).map(|place| Position::new("events", 0, place as i64)).collect();
    pipeline.process(&mut partition, &messages(&lines, &positions), 0, &mut epoch);
    assert_eq!(epoch.rows.len(), lines.len());
    epoch.appearances.len()
}

#[test]
fn first_unusual_call_at_a_new_place_is_an_appearance() {
    assert_eq!(appearances(&[(4, 0, "203.0.113.9", "/v2/export", 200)]), 1);
    assert_eq!(appearances(&[(4, 0, "203.0.113.9", "/v2/export", 403)]), 1, "the credential was accepted");
}

/// Services send these statuses before they check the credential.
#[test]
fn unchecked_requests_neither_make_nor_hide_an_appearance() {
    for status in [400, 401, 429, 503] {
        assert_eq!(appearances(&[(4, 0, "203.0.113.9", "/v2/export", status)]), 0, "{status}");
        let paths: Vec<_> = (0..600).map(|number| format!("/{}/x", word(number))).collect();
        let addresses: Vec<_> = (0..20).map(|number| format!("100.{number}.0.1")).collect();
        let flood = paths.iter().zip(addresses.iter().cycle());
        let mut requests: Vec<_> = flood.map(|(path, address)| (4, 0, &**address, &**path, status)).collect();
        requests.push((4, 10, "203.0.113.9", "/v2/export", 200));
        assert_eq!(appearances(&requests), 1, "{status}");
    }
}

/// A word of letters, because numbers in a path are ids.
fn word(number: usize) -> String {
    [number / 400, number / 20 % 20, number % 20].map(|digit| char::from(b'a' + digit as u8)).iter().collect()
}
