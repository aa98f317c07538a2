//! Contract tests: each preset against a server that checks the documented request of the receiver and gives the documented
//! answers. The sources are in the preset files.

use serde_json::json;

use super::contract_table::{CONTRACTS, Contract, HEADLINE};
use super::*;
use crate::notify::shipped::PRESETS;
use crate::notify::tests::incident;
use crate::outgoing::receiver::{At, Receiver, Seen};
use crate::port::{About, Handled, HandledStep, IncidentState, Notice, Progress, Revocation};
use crate::sanitize;
use crate::verdict::{Incident, IncidentId, Severity, Victim};

/// A channel with `keys` in its section.
fn channel(keys: &str) -> Result<HttpChannel, (&'static str, String)> {
    let settings = toml::from_str(keys).unwrap_or_else(|error| panic!("{keys}: {error}"));
    HttpChannel::new("test", &settings, Arc::new(At))
}

impl Contract {
    fn channel(&self, url: &str) -> HttpChannel {
        let keys = format!("kind = '{}'\n{}", self.kind, self.keys.replace("URL", url));
        channel(&keys).unwrap_or_else(|error| panic!("{keys}: {error:?}"))
    }

    /// An answer that accepts a message.
    fn accepted(&self) -> (u16, &'static str) {
        (self.answers[0].0, self.answers[0].1)
    }
}

fn outcome(result: &Result<Accepted, DeliveryError>) -> String {
    match result {
        Ok(Accepted { root: Some(root), .. }) => format!("accepted, root {root}"),
        Ok(_) => "accepted".to_owned(),
        Err(DeliveryError::Retriable { retry_after: Some(wait), .. }) => format!("retry after {}", wait.as_secs()),
        Err(DeliveryError::Retriable { .. }) => "retry".to_owned(),
        Err(DeliveryError::Permanent { .. } | DeliveryError::Rejected { .. }) => "rejected".to_owned(),
    }
}

async fn send(channel: &HttpChannel, incident: &Incident) -> Result<Accepted, DeliveryError> {
    let progress = Progress::of(Revocation::Done);
    channel.notify(Alert::Incident { incident, progress: &progress }, "INC-42-a").await
}

fn json_of(seen: &Seen) -> Value {
    serde_json::from_str(&seen.body).unwrap_or_else(|error| panic!("{error}: {}", seen.body))
}

#[tokio::test]
async fn presets_send_the_documented_requests() {
    let (receiver, url) = Receiver::start().await;
    for contract in CONTRACTS {
        let channel = contract.channel(&url);
        assert_eq!(channel.target(), url, "{}: without the path, which may be secret", contract.kind);
        for (status, body, expected) in contract.answers {
            receiver.reply(*status, body);
            assert_eq!(outcome(&send(&channel, &incident()).await), *expected, "{}: {status} {body}", contract.kind);
            let seen = receiver.take();
            assert_eq!(seen.len(), 1, "{}", contract.kind);
            assert_eq!(seen[0].line, contract.line, "{}", contract.kind);
            assert_eq!(json_of(&seen[0]), (contract.body)(), "{}", contract.kind);
            for (name, value) in contract.headers {
                assert_eq!(seen[0].header(name), *value, "{}: {name}", contract.kind);
            }
        }
    }
}

#[tokio::test]
async fn presets_survive_bad_answers() {
    let (receiver, url) = Receiver::start().await;
    let redirect = format!("{url}/elsewhere");
    for contract in CONTRACTS {
        let channel = contract.channel(&url);
        let date = [("retry-after", "Thu, 26 Nov 2026 10:00:40 GMT")];
        for (status, headers, body, expected) in [
            (429, &[("retry-after", "7")][..], "", "retry after 7"),
            (429, &date, "", "retry after 40"),
            (429, &[], "", "retry"),
            (503, &[("retry-after", "100000")], "", "retry after 3600"),
            (500, &[], "\u{0}\u{7f}garbage", "retry"),
            (302, &[("location", redirect.as_str())], "", "rejected"),
            (307, &[("location", redirect.as_str())], "", "rejected"),
            (401, &[], r#"{"error":"user ana@example.com xoxb-1"}"#, "retry"),
        ] {
            receiver.reply_with(status, headers, body);
            let result = send(&channel, &incident()).await;
            assert_eq!(outcome(&result), expected, "{}: {status} {body}", contract.kind);
            assert!(!result.expect_err("a failure").to_string().contains("xoxb"), "{}", contract.kind);
            assert_eq!(receiver.take().len(), 1, "{}: {status} is not followed", contract.kind);
        }
    }
    // Nobody listens at this port.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let channel = CONTRACTS[0].channel(&format!("http://{free}"));
    assert_eq!(outcome(&send(&channel, &incident()).await), "retry");
}

/// An incident whose values contain everything that has a meaning somewhere, `times` over.
fn hostile(times: usize) -> Incident {
    let text = "<!channel> <@U1|x> <http://evil.example|ok> & *b* _i_ `c` [a](http://evil.example) \
                <at>x</at> {{DATE(x)}} ${x} {id} \"]}'\\ \u{1b}[2J\r\n\u{202e}\u{200b}é😀"
        .repeat(times);
    let mut incident = incident();
    for value in [
        &mut incident.user_id,
        &mut incident.app_id,
        &mut incident.tenant_id,
        &mut incident.token_id,
        &mut incident.family_id,
        &mut incident.event_id,
        &mut incident.reason,
    ] {
        value.clone_from(&text);
    }
    incident.signals = vec![incident.signals[0].clone(); 12];
    incident.signals.iter_mut().for_each(|signal| signal.reason.clone_from(&text));
    let victim = Victim { user_id: text.clone(), token_id: text.clone(), family_id: text.clone(), app_id: text };
    incident.victims = vec![victim.into(); 100];
    incident.victims_total = 5_000;
    incident
}

/// Keys of all objects.
fn shape(body: &Value) -> Vec<String> {
    match body {
        Value::Array(items) => items.iter().flat_map(shape).collect(),
        Value::Object(fields) => {
            fields.iter().flat_map(|(key, value)| [vec![key.clone()], shape(value)].concat()).collect()
        }
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn hostile_values_stay_text_within_the_limits() {
    let (receiver, url) = Receiver::start().await;
    for contract in CONTRACTS {
        let channel = contract.channel(&url);
        for times in [1, 3, 40] {
            receiver.reply(contract.accepted().0, contract.accepted().1);
            assert!(send(&channel, &hostile(times)).await.is_ok(), "{}", contract.kind);
            let seen = receiver.take();
            assert!(seen[0].body.len() <= contract.bytes_max, "{}: {}", contract.kind, seen[0].body.len());
            assert!(!seen[0].body.contains(sanitize::is_unsafe), "{}", contract.kind);
            assert_eq!(seen[0].line, contract.line);
            let body = json_of(&seen[0]);
            for (pointer, max) in contract.lengths {
                let text = body.pointer(pointer).and_then(Value::as_str).expect(pointer);
                let length = text.encode_utf16().count();
                assert!(length <= *max, "{} {pointer}: {length}", contract.kind);
            }
            let texts = body.to_string();
            if contract.kind.starts_with("slack") {
                assert!(!texts.contains('<') && !texts.contains('>'), "{texts}");
                assert!(texts.contains("&lt;!channel&gt;"), "{texts}");
                assert_eq!(body["blocks"].as_array().map(Vec::len), Some(2));
            }
            let known = [shape(&(contract.body)()), shape(&body)].map(|mut keys| {
                keys.sort();
                keys.dedup();
                keys
            });
            assert_eq!(known[0], known[1], "{}: an alert adds no key", contract.kind);
        }
    }
}

#[tokio::test]
async fn notices_have_a_key_and_a_severity() {
    let (receiver, url) = Receiver::start().await;
    let notice = Notice { title: "Caps".to_owned(), text: "One.\nTwo.".to_owned(), at: 1_795_000_000_000, about: None };
    for contract in CONTRACTS {
        receiver.reply(contract.accepted().0, contract.accepted().1);
        let sent = contract.channel(&url).notify(Alert::Notice(&notice), "notice-caps").await;
        assert!(sent.is_ok(), "{}", contract.kind);
        let body = json_of(&receiver.take()[0]).to_string();
        assert!(body.contains("[tokenwarden] Caps") && body.contains("One.") && body.contains("Two."), "{body}");
        let has_id = !contract.kind.starts_with("slack");
        assert_eq!(body.contains("notice-caps"), has_id, "{body}");
    }
}

#[tokio::test]
async fn steps_send_the_documented_requests() {
    let (receiver, url) = Receiver::start().await;
    let state = |severity, user: &str| IncidentState {
        severity,
        tenant_id: "acme".to_owned(),
        user_id: user.to_owned(),
        app_id: "crm".to_owned(),
    };
    let hostile = "ana\u{202e}\n\"";
    let labels = |severity: &str, user: &str| {
        json!([{
            "startsAt": "2026-11-18T11:06:40Z", "endsAt": "2026-11-26T10:00:00Z",
            "labels": {
                "alertname": "TokenwardenIncident", "incident": "INC-0000000000000042", "severity": severity,
                "tenant": "acme", "user": user, "app": "crm",
            },
            "annotations": { "summary": "[tokenwarden] closed" },
        }])
    };
    let firing = |severity: &str, user: &str| {
        let mut alerts = labels(severity, user);
        alerts[0]["endsAt"] = json!("2026-11-27T10:00:00Z");
        alerts[0]["annotations"]["description"] = json!("By ana.");
        alerts
    };
    let event = |action: &str| {
        let key = "R0123456789012345678901234567890";
        json!({ "routing_key": key, "event_action": action, "dedup_key": "INC-0000000000000042" })
    };
    let close = json!({ "source": "tokenwarden", "note": "[tokenwarden] closed" });
    let resolved = HandledStep::Resolved;
    let expected: &[(&str, HandledStep, &str, Vec<Value>)] = &[
        ("pagerduty", HandledStep::Acknowledged, "POST /v2/enqueue", vec![event("acknowledge")]),
        ("pagerduty", resolved, "POST /v2/enqueue", vec![event("resolve")]),
        ("opsgenie", resolved, "POST /v2/alerts/INC-0000000000000042/close?identifierType=alias", vec![close]),
        (
            "alertmanager",
            HandledStep::Open,
            "POST /am/api/v2/alerts",
            vec![firing("high", "ana"), firing("critical", "ana\u{fffd}␊\"")],
        ),
        (
            "alertmanager",
            resolved,
            "POST /am/api/v2/alerts",
            vec![labels("high", "ana"), labels("critical", "ana\u{fffd}␊\"")],
        ),
    ];
    for (kind, step, line, bodies) in expected {
        let contract = CONTRACTS.iter().find(|contract| contract.kind == *kind).expect("a contract");
        let channel = contract.channel(&url);
        assert!(channel.handles(*step), "{kind}");
        let states = vec![state(Severity::High, "ana"), state(Severity::Critical, hostile)];
        let (incident, opened_at) = (IncidentId(0x42), 1_795_000_000_000);
        let about = Some(Box::new(About::Handled(Handled { incident, step: *step, opened_at, states })));
        let at = crate::outgoing::receiver::NOW;
        let notice = Notice { title: "closed".to_owned(), text: "By ana.".to_owned(), at, about };
        let (code, body) = contract.accepted();
        for _ in bodies {
            receiver.reply(code, body);
        }
        let sent = channel.notify(Alert::Notice(&notice), "notice-closed").await;
        assert_eq!(outcome(&sent), "accepted", "{kind}");
        let seen = receiver.take();
        assert!(seen.iter().all(|seen| seen.line == *line), "{kind}: {seen:?}");
        assert_eq!(seen.iter().map(json_of).collect::<Vec<_>>(), *bodies, "{kind}");
        for (code, body, _) in contract.answers.iter().filter(|(_, _, expected)| *expected == "retry") {
            receiver.reply(*code, body);
            assert_eq!(outcome(&channel.notify(Alert::Notice(&notice), "notice-closed").await), "retry", "{kind}");
        }
        receiver.take();
        receiver.forget_replies();
    }
    for contract in CONTRACTS.iter().filter(|contract| expected.iter().all(|(kind, ..)| *kind != contract.kind)) {
        let channel = contract.channel(&url);
        assert!(!channel.handles(resolved) && !channel.handles(HandledStep::Acknowledged), "{}", contract.kind);
    }
}

#[tokio::test]
async fn slack_messages_of_one_incident_form_a_thread() {
    let (receiver, url) = Receiver::start().await;
    let channel = CONTRACTS[0].channel(&url);
    let incident = incident();
    let mut progress = Progress::of(Revocation::Done);
    let mut sent = Vec::new();
    for _ in 0..2 {
        receiver.reply(200, r#"{"ok":true,"ts":"1503435956.000247"}"#);
        let alert = Alert::Incident { incident: &incident, progress: &progress };
        progress.root = channel.notify(alert, "INC-42-a").await.expect("accepted").root;
        sent.push(json_of(&receiver.take()[0])["thread_ts"].clone());
    }
    assert_eq!(sent, [Value::Null, json!("1503435956.000247")]);
    for ts in ["", "a b", "x\n", &"9".repeat(200)] {
        receiver.reply(200, &json!({ "ok": true, "ts": ts }).to_string());
        assert_eq!(send(&channel, &incident).await.expect("accepted").root, None, "{ts}");
    }
}

#[tokio::test]
async fn slack_probe_tests_the_token() {
    let (receiver, url) = Receiver::start().await;
    let channel = CONTRACTS[0].channel(&url);
    receiver.reply(200, r#"{"ok":true,"team":"T"}"#);
    assert!(channel.probe().await.is_ok());
    receiver.reply(200, r#"{"ok":false,"error":"invalid_auth"}"#);
    let error = channel.probe().await.expect_err("the token is wrong").to_string();
    assert!(error.contains("(invalid_auth)"), "{error}");
    let seen = receiver.take();
    assert_eq!((&*seen[0].line, seen[0].header("authorization")), ("POST /api/auth.test", "Bearer xoxb-example"));
    // The others have no request without a side effect, and send none.
    for contract in &CONTRACTS[1..] {
        assert!(contract.channel(&url).probe().await.is_ok());
    }
    assert!(receiver.take().is_empty());
}

#[tokio::test]
async fn preset_of_the_operator_sends_the_finding() {
    let (receiver, url) = Receiver::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("own.toml");
    let keys =
        format!("kind = 'http'\npreset_file = '{}'\nurl = '{url}/x'\nvalues = {{ team = 'soc' }}", file.display());
    let open = |preset: &str| {
        std::fs::write(&file, preset).expect("a file");
        channel(&keys)
    };
    let preset = "markup = 'markdown'\n[request.body]\nteam = '{team}'\nalert = '{finding}'\ntitle = '{headline}'";
    let own = open(preset).expect("a channel");
    receiver.reply(204, "");
    assert_eq!(send(&own, &incident()).await.expect("accepted"), Accepted::with(204));
    let body = json_of(&receiver.take()[0]);
    assert_eq!((&body["team"], &body["alert"]["class_uid"]), (&json!("soc"), &json!(2004)));
    assert!(body["title"].as_str().is_some_and(|title| title.starts_with("\\[HIGH\\] acme\\/ana")), "{body}");
    // A finding cannot be cut.
    let small = open("[request]\nbytes_max = 500\nbody = { alert = '{finding}' }").expect("a channel");
    assert_eq!(outcome(&send(&small, &incident()).await), "rejected");
    let mistake = |preset: &str| open(preset).map(|_| ()).expect_err(preset);
    assert!(mistake("[request.body]\nx = '{hedline}'").1.contains("{headline}"));
    assert!(mistake("[request.body]\nx = 'a {finding}'").1.contains("whole value"));
    assert!(mistake("[request]\nbody = {}\nheaders = { X = '{nothing}' }").1.contains("{team}"));
    assert_eq!(mistake("[request.body]\nx = '{}'\n[request.headers]\n'a b' = 'x'").0, "preset_file");
}

#[test]
fn channel_settings_error_has_the_key_and_no_secret() {
    let mistake = |keys: &str| channel(keys).map(|_| ()).expect_err(keys);
    assert_eq!(mistake("kind = 'slack'\nvalues = { channel = 'C1' }").0, "token");
    assert_eq!(mistake("kind = 'slack'\ntoken = 'xoxb'").0, "values");
    assert_eq!(mistake("kind = 'teams'").0, "webhook_url");
    assert_eq!(mistake("kind = 'alertmanager'").0, "url");
    assert_eq!(mistake("kind = 'alertmanager'\nurl = 'https://a.example/?x=y'").0, "url");
    assert_eq!(mistake("kind = 'alertmanager'\nurl = 'https://10.0.0.1'").0, "url");
    assert_eq!(mistake("kind = 'http'").0, "preset_file");
    assert_eq!(mistake("kind = 'teams'\nwebhook_url = 'https://a.example'\nca_file = '/none'").0, "ca_file");
    for url in ["http://hooks.example/s3cret", "https://me:s3cret@hooks.example/", "s3cret"] {
        let (key, problem) = mistake(&format!("kind = 'slack_webhook'\nwebhook_url = '{url}'"));
        assert!(key == "webhook_url" && !problem.contains("s3cret"), "{key} {problem}");
    }
    let (key, problem) = mistake("kind = 'alertmanager'\nurl = 'https://a.example'\ntoken = \"s3cret\\n\"");
    assert!(key == "token" && !problem.contains("s3cret"), "{key} {problem}");
}

#[test]
fn every_preset_has_a_contract() {
    for preset in PRESETS {
        assert!(CONTRACTS.iter().any(|contract| contract.kind == preset.name()), "{}", preset.name());
    }
    assert!(HEADLINE.len() < 130, "the example is not cut");
}
