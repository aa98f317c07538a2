//! Policies: a violation raises the verdict, within the scope of the policy and outside its exceptions, and does not
//! change the log-odds. The test cases in `rules/` cover each kind of policy.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use tokenwarden::config::rule_file;
use tokenwarden::engine::{self, State, Step};
use tokenwarden::enrich::Enricher;
use tokenwarden::rule::{Rule, RuleSet};
use tokenwarden::token::TokenHasher;
use tokenwarden::verdict::{Action, Mode, Outcome, RuleId, Verdict};
use tokenwarden::wire::{Decoded, Decoder, Format};

/// 2 March 2026, 08:00 UTC.
const START: i64 = 1_772_438_400_000;

/// The shipped rule with `policies` added.
fn rule(id: &str, policies: &str) -> Result<(Rule, rule_file::RuleCases), Vec<String>> {
    let file = Path::new("rules").join(format!("{id}.toml"));
    let text = std::fs::read_to_string(&file).expect("a shipped file");
    let text = text.replacen("threshold = ", &format!("policies = {policies}\nthreshold = "), 1);
    let messages = |errors: Vec<rule_file::RuleFileError>| errors.into_iter().map(|error| error.message).collect();
    rule_file::parse(&file, &text).map_err(messages)
}

/// Outcomes of `uses` (seconds after the start, address) with the policies.
fn outcomes(id: &str, policies: &str, mode: Mode, uses: &[(i64, &str)]) -> Vec<Outcome> {
    let (rule, cases) = rule(id, policies).expect("the policies are good");
    let rules = RuleSet::new(vec![Rule { mode, ..rule }]);
    let mut enricher = Enricher::with_lookup(Box::new((*cases.places).clone()));
    let mut state = State::new(engine::Settings { mode: Mode::Enforce, ..engine::Settings::default() });
    let mut decoder = Decoder::new(Format::Native, TokenHasher::new(b"a key for tests"));
    let mut outcomes = Vec::new();
    for (number, (seconds, address)) in uses.iter().enumerate() {
        let at = START + seconds * 1_000;
        let event = format!(
            r#"{{"event_id":"{number}","timestamp":{at},"token_id":"t","tenant_id":"acme","app_id":"crm","ip_address":"{address}"}}"#
        );
        decoder.decode(event.as_bytes(), &mut |decoded| {
            let Ok(Decoded::Event(event)) = decoded else { panic!("no event: {decoded:?}") };
            let Step::Scored(outcome) = engine::step(&mut state, &rules, &enricher.enrich(event)) else { return };
            outcomes.push(outcome);
        });
    }
    outcomes
}

const BERLIN: &str = "192.0.2.10";
const SYDNEY: &str = "198.51.100.9";

#[test]
fn policy_raises_the_verdict_not_the_log_odds() {
    for (configured, verdict, action) in [
        ("watch", Verdict::Watch, Action::None),
        ("alert", Verdict::Alert, Action::Alert),
        ("revoke", Verdict::Revoke, Action::RevokeToken),
    ] {
        let policies = format!(r#"[{{ name = "at home", allow = ["DE"], verdict = "{configured}" }}]"#);
        let [home, away] = &outcomes("new_country", &policies, Mode::Enforce, &[(0, BERLIN), (60, SYDNEY)])[..] else {
            panic!("two outcomes")
        };
        assert_eq!((home.verdict, home.signals.len()), (Verdict::Allow, 0));
        assert_eq!((away.verdict, away.action, away.mode), (verdict, action, Mode::Enforce));
        let without = outcomes("new_country", "[]", Mode::Enforce, &[(0, BERLIN), (60, SYDNEY)]);
        assert_eq!(away.log_odds.to_bits(), without[1].log_odds.to_bits());
        let signal = &away.signals[0];
        assert_eq!((signal.rule, signal.fired, signal.share.to_bits()), (RuleId::NewCountry, true, 0_f64.to_bits()));
        assert_eq!(signal.reason, "violates the policy \"at home\": used from AU; allowed: DE");
        let incident = away.incident.as_ref().map(|incident| (incident.report, incident.revoke.is_some()));
        assert_eq!(incident, (verdict > Verdict::Watch).then_some((true, verdict == Verdict::Revoke)));
    }
}

#[test]
fn policy_action_is_limited_by_the_mode_of_its_rule() {
    let policies = r#"[{ name = "at home", allow = ["DE"], verdict = "revoke" }]"#;
    for mode in Mode::ALL {
        let outcome = &outcomes("new_country", policies, mode, &[(0, SYDNEY)])[0];
        assert_eq!((outcome.verdict, outcome.mode), (Verdict::Revoke, mode));
    }
}

#[test]
fn highest_policy_verdict_decides() {
    let policies = r#"[
        { name = "mild", deny = ["AU"], verdict = "watch" },
        { name = "of others", tenant = "globex", deny = ["AU"], verdict = "revoke" },
        { name = "grave", app = "crm", deny = ["AU"], verdict = "alert" },
    ]"#;
    let outcome = &outcomes("new_country", policies, Mode::Shadow, &[(0, SYDNEY)])[0];
    assert_eq!(outcome.verdict, Verdict::Alert);
    let named: Vec<&str> = outcome.signals.iter().filter_map(|signal| signal.reason.split('"').nth(1)).collect();
    assert_eq!(named, ["grave", "mild"]);
}

#[test]
fn exception_applies_to_its_scope_until_its_end() {
    for (app, verdicts) in [("crm", [Verdict::Allow, Verdict::Allow, Verdict::Alert]), ("mail", [Verdict::Alert; 3])] {
        let policies = format!(
            r#"[{{ name = "no", deny = ["AU"], verdict = "alert", exceptions = [
                {{ author = "ben", reason = "a trial", until = 2026-03-02T09:00:00Z, app = "{app}" }}] }}]"#
        );
        let outcomes =
            outcomes("new_country", &policies, Mode::Shadow, &[(0, SYDNEY), (3_599, SYDNEY), (3_600, SYDNEY)]);
        assert_eq!(outcomes.iter().map(|outcome| outcome.verdict).collect::<Vec<_>>(), verdicts, "{app}");
    }
}

#[test]
fn call_limits_count_each_call_once() {
    use Verdict::{Alert, Allow, Watch};
    let policies = r#"[
        { name = "three", calls_per_minute_max = 3, verdict = "watch" },
        { name = "five", calls_per_minute_max = 5, verdict = "alert" },
    ]"#;
    let uses: Vec<(i64, &str)> = (0..6).map(|second| (second, BERLIN)).chain([(60, BERLIN)]).collect();
    let outcomes = outcomes("volume_spike", policies, Mode::Shadow, &uses);
    assert_eq!(
        outcomes.iter().map(|outcome| outcome.verdict).collect::<Vec<_>>(),
        [Allow, Allow, Allow, Watch, Watch, Alert, Allow]
    );
}

#[test]
fn errors_in_policies_state_the_fix() {
    let country = |policy: &str| rule("new_country", &format!("[{{ {policy} }}]"));
    for (parsed, message) in [
        (
            country(r#"name = "a", verdict = "alert", alow = ["DE"], deny = ["AU"]"#),
            "a policy has no key `alow`; did you mean `allow`?",
        ),
        (
            country(r#"name = "a", verdict = "alert", allow = ["DE"], deny = ["AU"]"#),
            "a policy needs either `allow` or `deny`; for both, use two policies",
        ),
        (
            country(r#"name = "a", verdict = "alert", allow = ["Germany"]"#),
            "`Germany` is not a two-letter country code",
        ),
        (country(r#"name = "a", verdict = "alert", allow = []"#), "`allow` is empty"),
        (
            country(r#"name = "a", verdict = "alrt", allow = ["DE"]"#),
            "`verdict` is `alrt`, but must be one of watch, alert, revoke; did you mean \"alert\"?",
        ),
        (
            country(r#"name = "a", allow = ["DE"]"#),
            "a policy lacks the key `verdict`: \"watch\", \"alert\" or \"revoke\"",
        ),
        (country(r#"verdict = "alert", allow = ["DE"]"#), "a policy lacks the key `name`"),
        (
            country(r#"name = "a", verdict = "alert", deny = ["DE"], tenant = """#),
            "`tenant` is empty; omit the key to match any value",
        ),
        (
            country(r#"name = "a", verdict = "alert", deny = ["DE"], exceptions = [{ author = "b", reason = "c" }]"#),
            "an exception lacks the key `until`: its end, such as 2026-12-31T00:00:00Z",
        ),
        (
            country(
                r#"name = "a", verdict = "alert", deny = ["DE"] }, { name = "a", verdict = "watch", deny = ["AU"]"#,
            ),
            "there is another policy with the name `a`",
        ),
        (
            rule("new_network", r#"[{ name = "a", verdict = "alert", deny = ["3320"] }]"#),
            "`3320` is not a network, such as \"AS3320\" or \"192.0.2.0/24\"",
        ),
        (
            rule("unusual_time", r#"[{ name = "a", verdict = "alert", hours = "7-19" }]"#),
            "`hours` is `7-19`: expected a range in UTC, such as \"07:00-19:30\"",
        ),
        (
            rule("unusual_time", r#"[{ name = "a", verdict = "alert", weekdays = ["monday"] }]"#),
            "`monday` is not a weekday; expected one of mon, tue, wed, thu, fri, sat, sun",
        ),
        (
            rule("volume_spike", r#"[{ name = "a", verdict = "alert", calls_per_minute_max = 0 }]"#),
            "`calls_per_minute_max` must be between 1 and 1000000",
        ),
        (
            rule("new_ip", r#"[{ name = "a", verdict = "alert", deny = ["DE"] }]"#),
            "the rule `new_ip` does not support policies; rules that do: new_country, new_network, unusual_time, new_client, volume_spike",
        ),
    ] {
        assert_eq!(parsed.map(|(rule, _)| rule.policies).expect_err(message), [message]);
    }
}
