//! Rule files: errors state line and fix, no input makes the parser panic, and the shipped files are valid.

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;
use tokenwarden::config::rule_file::{self, Expect, Places, trial};
use tokenwarden::engine;
use tokenwarden::place::NetworkClass;
use tokenwarden::port::GeoLookup as _;
use tokenwarden::rule::Status;
use tokenwarden::verdict::{Mode, RuleId};

const GOOD: &str = r#"id = "new_ip"
title = "Detects a new address"
description = "Weighs it."
status = "stable"
severity = "low"
mode = "shadow"
attack = ["T1528"]
threshold = 2
false_positives = ["A new line."]
blind_spots = ["The same house."]
runbook = ["Ask."]

[places]
"192.0.2.0/24" = { country = "DE", city = "Berlin", latitude = 52.5, longitude = 13.4, asn = 3320, org = "Telekom" }

[base]
ip_address = "192.0.2.1"

[[cases]]
name = "two days"
expect = "quiet"
start = 2026-03-02T00:00:00Z
history = [
    { repeat = { every = "1d", times = 2, as = "day" }, token_id = "t{day}", events = [
        { endpoint = "/{day}", expires_at = "+1h" },
        { after = "90s", endpoint = "/{day+1}" },
    ] },
]
events = [{ after = "1h", token_id = "t", kind = "revoked" }]
"#;

fn errors_of(text: &str) -> Vec<String> {
    match rule_file::parse(Path::new("new_ip.toml"), text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// The single error that results from replacing `old` by `new`.
fn error_of(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    let errors_of = errors_of(&GOOD.replacen(old, new, 1));
    assert_eq!(errors_of.len(), 1, "{errors_of:#?}");
    errors_of.into_iter().next().unwrap_or_default()
}

#[test]
fn case_expands_to_events_with_counts() {
    let (rule, cases) = rule_file::parse(Path::new("some/new_ip.toml"), GOOD).expect("the file is good");
    assert_eq!((rule.id, rule.threshold.to_bits(), rule.mode), (RuleId::NewIp, 2_f64.to_bits(), Mode::Shadow));
    let case = &cases.cases[0];
    assert_eq!((case.expect, case.line), (Expect::Quiet, 19));
    let written: Vec<&str> = case.history.iter().chain(&case.events).map(|event| event.json.as_str()).collect();
    assert_eq!(
        written,
        [
            r#"{"endpoint":"/1","event_id":"2","expires_at":1772413200000,"ip_address":"192.0.2.1","timestamp":1772409600000,"token_id":"t1"}"#,
            r#"{"endpoint":"/2","event_id":"3","ip_address":"192.0.2.1","timestamp":1772409690000,"token_id":"t1"}"#,
            r#"{"endpoint":"/2","event_id":"5","expires_at":1772499600000,"ip_address":"192.0.2.1","timestamp":1772496000000,"token_id":"t2"}"#,
            r#"{"endpoint":"/3","event_id":"6","ip_address":"192.0.2.1","timestamp":1772496090000,"token_id":"t2"}"#,
            r#"{"event_id":"7","ip_address":"192.0.2.1","kind":"revoked","timestamp":1772499690000,"token_id":"t"}"#,
        ]
    );
    assert_eq!(case.history[1].line, 26);
}

#[test]
fn errors_state_file_line_and_fix() {
    for (old, new, message) in [
        ("threshold", "treshold", "new_ip.toml:8: the rule has no key `treshold`; did you mean `threshold`?"),
        ("\"new_ip\"", "\"new_iq\"", "new_ip.toml:1: unknown rule `new_iq`; did you mean `new_ip`?"),
        (
            "\"new_ip\"",
            "\"new_client\"",
            "new_ip.toml:1: the file of the rule `new_client` must be named new_client.toml",
        ),
        ("id = \"new_ip\"\n", "", "new_ip.toml:1: the rule lacks the key `id`"),
        (
            "= \"low\"",
            "= \"hihg\"",
            "new_ip.toml:5: `severity` is `hihg`, but must be one of info, low, medium, high, critical; did you mean \"high\"?",
        ),
        ("= 2\n", "= \"2\"\n", "new_ip.toml:8: `threshold` must be a number, not a string"),
        ("= 2\n", "= -1\n", "new_ip.toml:8: `threshold` must be between 0 and 20"),
        ("= 2\n", "= nan\n", "new_ip.toml:8: `threshold` must be between 0 and 20"),
        ("= 2\n", "= 99999999999999999999\n", "new_ip.toml:8: `threshold` must be between 0 and 20"),
        ("T1528", "1528", "new_ip.toml:7: `1528` is not an ATT&CK technique, such as \"T1528\" or \"T1550.001\""),
        ("[\"Ask.\"]", "[]", "new_ip.toml:11: the rule lacks `runbook`: an array of sentences"),
        ("[\"Ask.\"]", "[1]", "new_ip.toml:11: `runbook` must be an array of strings, not a whole number"),
        ("\"Detects", "\"Finds", "new_ip.toml:2: `title` must be one line that begins with \"Detects \""),
        (
            "192.0.2.0/24",
            "192.0.2.0/33",
            "new_ip.toml:14: `192.0.2.0/33` is not an address or prefix, such as \"192.0.2.7\" or \"2001:db8::/48\"",
        ),
        ("latitude = 52.5, ", "", "new_ip.toml:14: `latitude` and `longitude` must be set together"),
        ("\"DE\"", "\"Germany\"", "new_ip.toml:14: `Germany` is not a two-letter country code"),
        ("192.0.2.1\"", "192.0.2\"", "new_ip.toml:25: `192.0.2` is not an IP address"),
        (
            "192.0.2.1\"",
            "192.0.3.1\"",
            "new_ip.toml:25: no place for `192.0.3.1`; add it to [places], or {} if its place is unknown",
        ),
        ("endpoint =", "endpiont =", "new_ip.toml:25: an event has no key `endpiont`; did you mean `endpoint`?"),
        ("{day+1}", "{dya+1}", "new_ip.toml:26: `endpoint` uses the unknown count `dya+1`; did you mean `day`?"),
        ("\"t\"", "\"{n}\"", "new_ip.toml:29: `token_id` uses the count `n`, but is not inside a `repeat`"),
        ("\"90s\"", "\"90 s\"", "new_ip.toml:26: `after` is `90 s`: expected a duration such as 90s, 45m, 1h30m or 2d"),
        ("times = 2", "times = 0", "new_ip.toml:24: `times` must be between 1 and 100000"),
        ("times = 2", "times = 1.5", "new_ip.toml:24: `times` must be a whole number"),
        ("times = 2", "times = 60000", "new_ip.toml:25: the case has more than 100000 events; reduce `times`"),
        (
            "\"quiet\"",
            "\"quite\"",
            "new_ip.toml:21: `expect` is `quite`, but must be one of fires, quiet; did you mean \"quiet\"?",
        ),
        (
            "2026-03-02T00:00:00Z",
            "2026-03-02T00:00:00",
            "new_ip.toml:22: `start` must be a time with UTC offset, such as 2026-03-02T08:00:00Z, in the years 1970 to 2199",
        ),
        (
            "after = \"1h\"",
            "after = \"99999d\"",
            "new_ip.toml:29: the time of the event must be in the years 1970 to 2199",
        ),
    ] {
        assert_eq!(error_of(old, new), message, "for {new}");
    }
}

#[test]
fn rule_file_sets_parameters() {
    let file = Path::new("rules/token_age.toml");
    let text = std::fs::read_to_string(file).expect("a shipped file");
    let values = |text: &str| rule_file::parse(file, text).map(|(rule, _)| rule.values);
    assert_eq!(values(&text), Ok(vec![1.0, 30.0]));
    let longer = text.replacen("access_hours_max = 1\n", "access_hours_max = 8.5\n", 1);
    assert_eq!(values(&longer), Ok(vec![8.5, 30.0]));
    assert_eq!(values(&text.replacen("access_hours_max = 1\n", "", 1)), Ok(vec![1.0, 30.0]), "its default");
    for (new, message) in [
        (
            "acces_hours_max = 8",
            "rules/token_age.toml:28: `parameters` has no key `acces_hours_max`; did you mean `access_hours_max`?",
        ),
        ("access_hours_max = 0", "rules/token_age.toml:28: `access_hours_max` must be between 0.1 and 87600"),
    ] {
        let errors = values(&text.replacen("access_hours_max = 1", new, 1)).expect_err(new);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [message]);
    }
}

#[test]
fn network_class_of_a_place_follows_its_org() {
    let text = GOOD.replacen("org = \"Telekom\"", "org = \"Hetzner Online GmbH\"", 1);
    for (text, class) in [(GOOD, NetworkClass::Access), (&text, NetworkClass::Hosting)] {
        let (_, cases) = rule_file::parse(Path::new("new_ip.toml"), text).expect("the file is good");
        let (_, network) = Places::clone(&cases.places).lookup("192.0.2.1".parse().expect("an address"));
        assert_eq!(network.map(|network| network.class), Some(class));
    }
}

#[test]
fn errors_are_all_reported_in_line_order() {
    let text = GOOD
        .replacen("severity = \"low\"", "severty = \"low\"", 1)
        .replacen("= 2\n", "= 200\n", 1)
        .replacen("\"DE\"", "\"D\"", 1)
        .replacen("\"quiet\"", "\"silent\"", 1);
    assert_eq!(
        errors_of(&text),
        [
            "new_ip.toml:1: the rule lacks the key `severity`: \"info\", \"low\", \"medium\", \"high\" or \"critical\"",
            "new_ip.toml:5: the rule has no key `severty`; did you mean `severity`?",
            "new_ip.toml:8: `threshold` must be between 0 and 20",
            "new_ip.toml:14: `D` is not a two-letter country code",
            "new_ip.toml:21: `expect` is `silent`, but must be one of fires, quiet",
        ]
    );
}

#[test]
fn errors_replace_control_characters() {
    let message = error_of("severity = \"low\"", "severity = \"\\u001b[2Jlow\"");
    assert!(message.contains("␛[2Jlow") && !message.contains('\u{1b}'), "{message}");
}

#[test]
fn nested_repeats_without_events_end() {
    let nest = |inner: &str| format!("{{ repeat = {{ every = \"0s\", times = 100000 }}, events = [{inner}] }}");
    let bomb = (0..30).fold(String::new(), |inner, _| nest(&inner));
    let message = error_of("{ after = \"1h\", token_id = \"t\", kind = \"revoked\" }", &bomb);
    assert!(message.contains("more than 100000 events"), "{message}");
}

#[test]
fn expanded_events_have_a_size_limit() {
    let long = format!("{{ repeat = {{ every = \"1s\", times = 1000 }}, user_agent = \"{}\" }}", "x".repeat(100_000));
    let message = error_of("{ after = \"1h\", token_id = \"t\", kind = \"revoked\" }", &long);
    assert_eq!(message, "new_ip.toml:29: the events of the file have more than 67108864 bytes; reduce `times`");
}

#[test]
fn shipped_rules_equal_those_of_the_directory() {
    let from_directory = rule_file::load(Path::new("rules")).expect("the shipped files are good");
    let shipped = rule_file::shipped().expect("the shipped files are good");
    assert_eq!(from_directory.rules, shipped.rules);
    assert_eq!(from_directory.cases.len(), RuleId::COUNT);
    assert_eq!(from_directory.missing, []);
}

#[test]
fn shipped_rules_are_in_shadow_and_have_both_cases() {
    let loaded = rule_file::shipped().expect("the shipped files are good");
    for rule in loaded.rules.iter() {
        assert_eq!(rule.mode, Mode::Shadow, "{}", rule.id);
        let cases = loaded.cases.iter().find(|cases| cases.rule == rule.id).expect("the rule has cases");
        for expect in [Expect::Fires, Expect::Quiet] {
            assert!(cases.cases.iter().any(|case| case.expect == expect), "{} lacks {expect:?}", rule.id);
        }
    }
}

#[test]
fn shipped_rules_pass_their_cases() {
    let loaded = rule_file::shipped().expect("the shipped files are good");
    let mut wrong = String::new();
    for cases in &loaded.cases {
        for (case, trial) in trial::run(&loaded, cases, &engine::Settings::default()) {
            if !trial.passed {
                let (file, line, name) = (cases.file.display(), case.line, &case.name);
                writeln!(wrong, "{file}:{line}: {:?}: {name}: {trial:?}", case.expect).expect("writing to a string");
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn rule_without_a_file_is_disabled() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("new_ip.toml"), GOOD).expect("written");
    std::fs::write(dir.path().join("README.md"), "not a rule").expect("written");
    let loaded = rule_file::load(dir.path()).expect("the file is good");
    assert_eq!(loaded.missing.len(), RuleId::COUNT - 1);
    assert_eq!(loaded.rules.rule(RuleId::NewIp).status, Status::Stable);
    assert_eq!(loaded.rules.rule(RuleId::NewCountry).status, Status::Disabled);
}

#[test]
fn directory_without_readable_rules_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let message = |dir: &Path| rule_file::load(dir).expect_err("nothing to load")[0].to_string();
    assert!(message(dir.path()).ends_with("the directory has no rule file (*.toml)"));
    assert!(message(&dir.path().join("none")).contains("cannot be read"));
    std::fs::create_dir(dir.path().join("new_ip.toml")).expect("made");
    assert!(message(dir.path()).contains("cannot be read"));
    std::fs::write(dir.path().join("new_country.toml"), b"id = \"new_country\"\ntitle = \"\xff\"\n").expect("written");
    assert!(message(dir.path()).ends_with("new_country.toml:2: is not UTF-8 text"));
}

proptest! {
    #[test]
    fn parse_does_not_panic_for_any_text(text in "(?s).{0,400}") {
        let _ = rule_file::parse(Path::new("new_ip.toml"), &text);
    }

    /// A valid file with one part replaced is accepted or refused.
    #[test]
    fn parse_does_not_panic_for_edited_files(
        from in 0..GOOD.len(), length in 0..40_usize, put in r#"[\[\]{}"=.,+0-9a-z\n\-]{0,12}"#,
    ) {
        let end = (from + length).min(GOOD.len());
        let text = format!("{}{put}{}", &GOOD[..from], &GOOD[end..]);
        if let Err(errors) = rule_file::parse(Path::new("new_ip.toml"), &text) {
            prop_assert!(!errors.is_empty());
        }
    }
}
