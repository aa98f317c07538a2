//! Decoding by plain `serde_json`, the reference for the pipeline.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// A native event as plain serde decodes it: every field, borrowed if possible, without checks.
#[derive(Deserialize)]
#[expect(dead_code, reason = "decoding is what is measured")]
struct Bare<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    token_id: Cow<'a, str>,
    token_type: Option<Cow<'a, str>>,
    family_id: Option<Cow<'a, str>>,
    parent_token_id: Option<Cow<'a, str>>,
    session_id: Option<Cow<'a, str>>,
    user_id: Option<Cow<'a, str>>,
    app_id: Option<Cow<'a, str>>,
    tenant_id: Option<Cow<'a, str>>,
    ip_address: Option<Cow<'a, str>>,
    user_agent: Option<Cow<'a, str>>,
    client_fingerprint: Option<Cow<'a, str>>,
    method: Option<Cow<'a, str>>,
    endpoint: Option<Cow<'a, str>>,
    status: Option<u16>,
    bytes_out: Option<u64>,
    scopes: Option<Vec<Cow<'a, str>>>,
    issued_at: Option<Cow<'a, str>>,
    expires_at: Option<Cow<'a, str>>,
    binding: Option<Cow<'a, str>>,
    attrs: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

/// Time that `serde_json` alone takes to decode lines of native events.
pub(crate) fn decode(events: &[u8]) -> Duration {
    let began = Instant::now();
    let text = std::str::from_utf8(events).expect("UTF-8");
    for line in text.lines() {
        black_box(serde_json::from_str::<Bare<'_>>(line).expect("an event"));
    }
    began.elapsed()
}
