//! Logs as their senders write them, read from a file and scored in one stream.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use tokenwarden::engine::{self, State, Step};
use tokenwarden::enrich::{Enricher, GeoSettings};
use tokenwarden::event::Event;
use tokenwarden::port::{Polled, Source as _};
use tokenwarden::rule::RuleSet;
use tokenwarden::source::file::FileSource;
use tokenwarden::token::TokenHasher;
use tokenwarden::verdict::{Mode, RuleId, Verdict};
use tokenwarden::wire::{Decoded, Decoder, Format};

/// Scores records in order.
struct Stream {
    decoder: Decoder,
    enricher: Enricher,
    state: State,
    rules: RuleSet,
}

/// An event's id, its verdict and the rules that it fired.
type Scored = (String, Verdict, Vec<RuleId>);

impl Stream {
    fn new(format: Format) -> Self {
        Self {
            decoder: Decoder::new(format, TokenHasher::new(b"a key for tests")),
            enricher: Enricher::new(&GeoSettings::default()).trust_event_geo(true),
            state: State::new(engine::Settings { mode: Mode::Enforce, ..engine::Settings::default() }),
            rules: RuleSet::builtin(),
        }
    }

    fn take(&mut self, record: &[u8]) -> Vec<Scored> {
        let Self { decoder, enricher, state, rules } = self;
        let mut scored = Vec::new();
        decoder.decode(record, &mut |decoded| {
            let event = match decoded {
                Ok(Decoded::Event(event)) => event,
                Ok(Decoded::Skipped(_)) => return,
                Err(error) => panic!("{error}"),
            };
            let id = event.event_id.to_string();
            if let Step::Scored(outcome) = engine::step(state, rules, &enricher.enrich(event)) {
                scored.push((id, outcome.verdict, outcome.signals.iter().map(|signal| signal.rule).collect()));
            }
        });
        scored
    }

    /// The result of the last of these records.
    fn last(format: Format, records: &[impl AsRef<[u8]>]) -> (Verdict, Vec<RuleId>) {
        let mut stream = Self::new(format);
        let scored: Vec<_> = records.iter().flat_map(|record| stream.take(record.as_ref())).collect();
        let (_, verdict, rules) = scored.last().expect("events").clone();
        (verdict, rules)
    }
}

fn lines(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new("tests/data/cases").join(name)).expect("a case");
    text.lines().map(str::to_owned).collect()
}

/// Content of a file, one line per record.
fn shown(format: Format, name: &str) -> String {
    let path = Path::new("tests/data/cases").join(name);
    let mut source = FileSource::open(vec![path]).expect("a case");
    let mut decoder = Decoder::new(format, TokenHasher::new(b"a key for tests"));
    let mut shown = String::new();
    while source
        .poll(1000, Duration::from_secs(1), &mut |message| {
            decoder.decode(message.payload, &mut |decoded| match decoded {
                Ok(Decoded::Event(event)) => write(&mut shown, &event),
                Ok(Decoded::Skipped(reason)) => {
                    writeln!(shown, "skipped: {reason}").expect("a String accepts all text");
                }
                Err(error) => writeln!(shown, "dead: {error}").expect("a String accepts all text"),
            });
        })
        .expect("a case")
        != Polled::End
    {}
    shown
}

fn write(shown: &mut String, event: &Event<'_>) {
    let mut line =
        format!("{} {} {} {}", event.event_id, event.timestamp.millis(), event.kind.as_str(), event.token_id.as_str());
    for (name, value) in [
        ("user", &event.user_id),
        ("tenant", &event.tenant_id),
        ("family", &event.family_id),
        ("session", &event.session_id),
        ("endpoint", &event.endpoint),
    ] {
        if let Some(value) = value {
            write!(line, " {name}={value}").expect("a String accepts all text");
        }
    }
    if let Some(address) = event.address {
        write!(line, " from={address}").expect("a String accepts all text");
    }
    writeln!(shown, "{line} {:?}", event.status).expect("a String accepts all text");
}

#[test]
fn records_are_read_as_sent() {
    use Format::{Cloudtrail, Ecs, Github, Native, Ocsf, Okta};
    for (format, name) in [
        (Cloudtrail, "cloudtrail-identity-center.ndjson"),
        (Cloudtrail, "cloudtrail-key-life-cycle.ndjson"),
        (Cloudtrail, "envelopes/cloudtrail-cloudwatch.ndjson"),
        (Cloudtrail, "envelopes/cloudtrail-eventbridge.ndjson"),
        (Cloudtrail, "envelopes/cloudtrail-lookup-events.json"),
        (Cloudtrail, "envelopes/cloudtrail-pretty.json"),
        (Ecs, "ecs-elastic-modules.ndjson"),
        (Ecs, "ecs-other-categories.ndjson"),
        (Github, "github-git-events-without-id.ndjson"),
        (Github, "github-token-id.ndjson"),
        (Native, "envelopes/native-schema-registry.bin"),
        (Native, "ipv6-transition-addresses.ndjson"),
        (Ocsf, "ocsf-other-classes.ndjson"),
        (Ocsf, "ocsf-time-in-microseconds.ndjson"),
        (Ocsf, "ocsf-time-in-seconds.ndjson"),
        (Okta, "envelopes/okta-event-hook.ndjson"),
        (Okta, "okta-api-token.ndjson"),
        (Okta, "okta-refresh-reuse.ndjson"),
        (Okta, "okta-url-secrets.ndjson"),
    ] {
        let (stem, _) = name.rsplit_once('.').expect("a file");
        insta::assert_snapshot!(stem.replace('/', "-"), shown(format, name));
    }
}

#[test]
fn use_after_end_alerts_in_provider_formats() {
    for (format, name, rule) in [
        (Format::Github, "github-token-id.ndjson", RuleId::UseAfterRevocation),
        (Format::Okta, "okta-api-token.ndjson", RuleId::UseAfterRevocation),
        (Format::Okta, "okta-refresh-reuse.ndjson", RuleId::RefreshReuse),
        (Format::Okta, "okta-life-cycle-without-address.ndjson", RuleId::UseAfterSessionEnd),
    ] {
        let (verdict, rules) = Stream::last(format, &lines(name));
        assert!(verdict >= Verdict::Alert && rules.contains(&rule), "{name}: {verdict:?} {rules:?}");
    }
}

/// A GitHub record, `hours` after a start time.
fn github(hours: i64, members: &str) -> String {
    let at = 1_790_000_000_000 + hours * 3_600_000;
    format!(
        r#"{{"@timestamp":{at},"_document_id":"d{hours}","actor_id":11111,"business_id":222,"user_agent":"git/2.47.0",{members}}}"#
    )
}

const CLONE: &str = r#""action":"git.clone","hashed_token":"mXk1vWq7bT9yR3fJ0dLs5uHcNz8aGeP2iVo4xBt6QwE=","org_id":3"#;

#[test]
fn github_token_names_are_one_token() {
    let both = github(0, &format!(r#"{CLONE},"token_id":5"#));
    let clone = github(2, CLONE);
    let ended = |members: &str| {
        let (verdict, rules) = Stream::last(Format::Github, &[both.clone(), github(1, members), clone.clone()]);
        let alerts = verdict >= Verdict::Alert;
        assert_eq!(alerts, rules.contains(&RuleId::UseAfterRevocation), "{members}");
        alerts
    };
    assert!(ended(r#""action":"oauth_access.destroy","token_id":5"#));
    assert!(ended(r#""action":"personal_access_token.credential_revoked","token_id":5"#));
    assert!(ended(r#""action":"personal_access_token.credential_regenerated","token_id":5"#));
    assert!(ended(r#""action":"org_credential_authorization.revoke","token_id":5,"org_id":3"#));
    assert!(ended(r#""action":"user.suspend","user_id":11111"#));
    assert!(
        !ended(r#""action":"org_credential_authorization.revoke","token_id":5,"org_id":4"#),
        "another organization"
    );
    assert!(!ended(r#""action":"oauth_access.destroy","token_id":6"#), "another token");
    assert!(!ended(r#""action":"oauth_access.destroy","token_id":0"#), "no token");
    assert!(!ended(r#""action":"user.suspend","user_id":11112"#), "another user");
}

#[test]
fn revoked_role_ends_its_older_sessions() {
    let at = |hours: i64| jiff::Timestamp::from_millisecond(1_790_000_000_000 + hours * 3_600_000).expect("a time");
    let call = |hours: i64, role: &str, issued: i64| {
        format!(
            r#"{{"eventVersion":"1.11","eventID":"e{hours}","eventTime":"{}","eventType":"AwsApiCall","eventSource":"s3.amazonaws.com","eventName":"ListBuckets","sourceIPAddress":"192.0.2.7","userAgent":"aws-cli/2.31.0","userIdentity":{{"type":"AssumedRole","principalId":"AROA{role}:ana","arn":"arn:aws:sts::111122223333:assumed-role/{role}/ana","accountId":"111122223333","accessKeyId":"ASIA{role}{issued}","sessionContext":{{"sessionIssuer":{{"type":"Role","principalId":"AROA{role}","arn":"arn:aws:iam::111122223333:role/jobs/{role}","accountId":"111122223333","userName":"{role}"}},"attributes":{{"creationDate":"{}"}}}}}}}}"#,
            at(hours),
            at(issued)
        )
    };
    let iam = |hours: i64, name: &str| {
        format!(
            r#"{{"eventVersion":"1.11","eventID":"r{hours}","eventTime":"{}","eventType":"AwsApiCall","eventSource":"iam.amazonaws.com","eventName":"{name}","sourceIPAddress":"192.0.2.9","userAgent":"aws-cli/2.31.0","userIdentity":{{"type":"IAMUser","principalId":"AIDAADMIN","arn":"arn:aws:iam::111122223333:user/admin","accountId":"111122223333","accessKeyId":"AKIAADMIN"}},"requestParameters":{{"roleName":"Export","policyName":"AWSRevokeOlderSessions"}}}}"#,
            at(hours)
        )
    };
    let ended = |records: &[String]| {
        let (verdict, rules) = Stream::last(Format::Cloudtrail, records);
        assert_eq!(verdict >= Verdict::Alert, rules.contains(&RuleId::UseAfterRevocation), "{verdict:?} {rules:?}");
        verdict >= Verdict::Alert
    };
    let first = call(0, "Export", 0);
    assert!(ended(&[first.clone(), iam(1, "PutRolePolicy"), call(2, "Export", 0)]));
    assert!(ended(&[first.clone(), iam(1, "DeleteRole"), call(2, "Export", 0)]));
    assert!(!ended(&[first.clone(), iam(1, "PutRolePolicy"), call(3, "Export", 2)]), "a session of afterwards");
    assert!(!ended(&[first.clone(), iam(1, "PutRolePolicy"), call(2, "Reader", 0)]), "another role");
    assert!(!ended(&[first, iam(1, "PutRolePolicy"), iam(2, "DeleteRolePolicy"), call(3, "Export", 0)]), "reinstated");
}

#[test]
fn reinstated_token_is_accepted_again() {
    let key = |hours: i64, name: &str, members: &str| {
        let at = jiff::Timestamp::from_millisecond(1_790_000_000_000 + hours * 3_600_000).expect("a time");
        format!(
            r#"{{"eventVersion":"1.11","eventID":"e{hours}","eventTime":"{at}","eventType":"AwsApiCall",{members},"eventName":"{name}",
            "awsRegion":"eu-central-1","sourceIPAddress":"192.0.2.7","userAgent":"aws-cli/2.31.0"}}"#
        )
        .replace('\n', "")
    };
    let by = |user: &str, id: &str| {
        format!(
            r#""userIdentity":{{"type":"IAMUser","principalId":"AIDA{user}","arn":"arn:aws:iam::111122223333:user/{user}","accountId":"111122223333","accessKeyId":"{id}"}}"#
        )
    };
    let used = by("ci", "AKIAEXAMPLE000000001");
    let update = |status: &str| {
        format!(
            r#"{},"eventSource":"iam.amazonaws.com","requestParameters":{{"userName":"ci","accessKeyId":"AKIAEXAMPLE000000001","status":"{status}"}}"#,
            by("admin", "AKIAEXAMPLE000000002")
        )
    };
    let call = format!(r#"{used},"eventSource":"s3.amazonaws.com""#);
    let off = key(1, "UpdateAccessKey", &update("Inactive"));
    let on = key(2, "UpdateAccessKey", &update("Active"));
    let first = key(0, "ListBuckets", &call);
    let last = key(3, "ListBuckets", &call);
    let (verdict, rules) = Stream::last(Format::Cloudtrail, &[&first, &off, &last]);
    assert!(verdict >= Verdict::Alert && rules.contains(&RuleId::UseAfterRevocation), "{verdict:?} {rules:?}");
    let (verdict, rules) = Stream::last(Format::Cloudtrail, &[&first, &off, &on, &last]);
    assert!(verdict == Verdict::Allow && rules.is_empty(), "{verdict:?} {rules:?}");
}

#[test]
fn event_without_address_is_scored() {
    let mut stream = Stream::new(Format::Github);
    let mut quiet =
        |record: String| stream.take(record.as_bytes()).iter().all(|(_, verdict, _)| *verdict == Verdict::Allow);
    for day in 0..30 {
        for hour in [9, 14] {
            assert!(quiet(github(day * 24 + hour, CLONE)), "day {day}");
        }
    }
    let mut alerts = 0;
    for number in 0..60_i64 {
        let at = 1_790_000_000_000 + (30 * 24 + 20) * 3_600_000 + number * 15_000;
        let call = ["orgs/acme/members", "repos/acme/a/zipball", "orgs/acme/actions/secrets", "user/keys"];
        let record = format!(
            r#"{{"@timestamp":{at},"_document_id":"n{number}","action":"api.request","actor_id":11111,"business_id":222,"user_agent":"python-requests/2.32","hashed_token":"mXk1vWq7bT9yR3fJ0dLs5uHcNz8aGeP2iVo4xBt6QwE=","request_method":"GET","status_code":200,"url_path":"/{}"}}"#,
            call[number as usize % call.len()]
        );
        alerts += stream.take(record.as_bytes()).iter().filter(|(_, verdict, _)| *verdict >= Verdict::Alert).count();
    }
    assert!(alerts >= 10, "{alerts} of 60");
}
