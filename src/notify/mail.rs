//! The mail of an alert. The texts are the templates in `templates/`; [`super::escape`] is applied to every value in them.

mod queries;

use std::fmt::Write as _;

use askama::Template;

use self::queries::{Query, queries};
use super::{summary, words};
use crate::number::grouped;
use crate::port::{Alert, Notice, Progress, Revocation};
use crate::rule::RuleSet;
use crate::verdict::{Incident, Severity, Signal};

/// Longest names and reasons in the subject and the title, characters.
const ACCOUNT_CHARS_MAX: usize = 90;
const WHAT_CHARS_MAX: usize = 90;
/// Steps of the runbooks that are shown.
const STEPS_MAX: usize = 6;
/// Reasons that are shown.
const REASONS_MAX: usize = 8;
/// Victims that are listed. The others are counted.
const VICTIMS_MAX: usize = 50;
/// Revocations of other targets that are listed. The others are counted.
const OUTCOMES_MAX: usize = 50;
/// Width of the bar of the largest share, pixels.
const BAR_MAX: f64 = 56.0;

/// The texts of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// One line without control characters.
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// Renders the mail. `rules` have the runbooks.
pub fn compose(alert: Alert<'_>, rules: &RuleSet) -> Mail {
    match alert {
        Alert::Incident { incident, progress } => of_incident(incident, progress, rules),
        Alert::Notice(notice) => of_notice(notice),
    }
}

fn of_incident(incident: &Incident, progress: &Progress, rules: &RuleSet) -> Mail {
    let alert = IncidentView::of(incident, progress, rules);
    let (id, colour, badge) = (alert.id.as_str(), colour(incident.severity), alert.badge);
    let outcome = words::badge(progress).map_or_else(String::new, |badge| format!(", {badge}"));
    let subject = format!("[{badge}] {}: {}{outcome} ({id})", alert.account, alert.what);
    let text = rendered(&AlertText { alert: &alert });
    let html = rendered(&AlertPage { alert: &alert, subject: &subject, colour, badge, foot: id });
    Mail { subject, text, html }
}

fn of_notice(notice: &Notice) -> Mail {
    let (title, text) = (words::plain(&notice.title), &notice.text);
    let foot = time(notice.at);
    let subject = format!("[tokenwarden] {title}");
    let page = NoticePage { subject: &title, colour: "#9a3412", badge: "NOTICE", foot: &foot, title: &title, text };
    Mail { text: rendered(&NoticeText { title: &title, text, foot: &foot }), html: rendered(&page), subject }
}

/// Writing into memory cannot fail, so that an error is a defect of a template. It contains no value.
fn rendered(template: &impl Template) -> String {
    // Templates are compiled without their last line break.
    template.render().unwrap_or_else(|error| format!("tokenwarden cannot render this alert: {error}")) + "\n"
}

#[derive(Template)]
#[template(path = "alert.html", config = "src/notify/askama.toml")]
struct AlertPage<'a> {
    alert: &'a IncidentView<'a>,
    subject: &'a str,
    colour: &'static str,
    badge: &'static str,
    foot: &'a str,
}

#[derive(Template)]
#[template(path = "alert.txt", config = "src/notify/askama.toml")]
struct AlertText<'a> {
    alert: &'a IncidentView<'a>,
}

#[derive(Template)]
#[template(path = "notice.html", config = "src/notify/askama.toml")]
struct NoticePage<'a> {
    subject: &'a str,
    colour: &'static str,
    badge: &'static str,
    foot: &'a str,
    title: &'a str,
    text: &'a str,
}

#[derive(Template)]
#[template(path = "notice.txt", config = "src/notify/askama.toml")]
struct NoticeText<'a> {
    title: &'a str,
    text: &'a str,
    foot: &'a str,
}

/// The values that the templates of an incident show.
struct IncidentView<'a> {
    badge: &'static str,
    account: String,
    what: String,
    /// UTC, to the minute.
    time: String,
    id: String,
    reasons: Vec<ReasonView<'a>>,
    total: String,
    total_aligned: String,
    odds: String,
    revocation: String,
    banner: Banner,
    outcomes: Vec<String>,
    victims: Vec<String>,
    victims_total: u32,
    facts: Vec<Fact>,
    steps: Vec<String>,
    queries: Vec<Query>,
}

struct ReasonView<'a> {
    share: String,
    share_aligned: String,
    /// Width of the share's bar, pixels.
    bar: u32,
    rule: &'static str,
    text: &'a str,
    observed: &'a str,
    expected: &'a str,
}

struct Fact {
    name: &'static str,
    name_aligned: String,
    value: String,
}

struct Banner {
    background: &'static str,
    border: &'static str,
    text: &'static str,
}

impl<'a> IncidentView<'a> {
    fn of(incident: &'a Incident, progress: &Progress, rules: &RuleSet) -> Self {
        let (signals, more) = summary::reasons(incident, REASONS_MAX);
        let (mut outcomes, outcomes_left) = words::other_outcomes(incident, progress, OUTCOMES_MAX);
        if outcomes_left > 0 {
            outcomes.push(format!("{outcomes_left} more revocations. The command \"All revocations\" lists them."));
        }
        let (mut victims, victims_left) = words::victims(incident, progress, VICTIMS_MAX);
        if incident.victims_total <= 1 {
            victims.clear();
        } else if victims_left > 0 {
            victims.push(format!("{victims_left} more. The command \"All grants and tokens\" lists them."));
        }
        let total = format!("{:.1}", incident.log_odds);
        let mut odds = odds(incident.log_odds);
        if more > 0 {
            let _ = write!(odds, " ({})", summary::more(more));
        }
        Self {
            badge: summary::severity(incident.severity),
            account: summary::account(incident, ACCOUNT_CHARS_MAX),
            what: summary::what(incident, WHAT_CHARS_MAX),
            time: summary::minute(incident.updated_at.millis()),
            id: incident.id.to_string(),
            total_aligned: format!("{total:>7}"),
            total,
            odds,
            revocation: words::answer(incident, progress),
            banner: banner(&progress.revocation),
            outcomes,
            victims,
            victims_total: incident.victims_total,
            facts: facts(incident),
            steps: steps(&signals, progress, rules),
            reasons: reasons(&signals),
            queries: queries(incident),
        }
    }
}

fn reasons<'a>(signals: &[&'a Signal]) -> Vec<ReasonView<'a>> {
    let largest = signals.iter().map(|signal| signal.share).fold(1.0, f64::max);
    let view = |signal: &&'a Signal| {
        let share = summary::share(signal);
        ReasonView {
            share_aligned: format!("{share:>7}"),
            share,
            bar: (signal.share / largest * BAR_MAX).clamp(2.0, BAR_MAX).round() as u32,
            rule: signal.rule.as_str(),
            text: &signal.reason,
            observed: &signal.observed,
            expected: &signal.expected,
        }
    };
    signals.iter().map(view).collect()
}

fn facts(incident: &Incident) -> Vec<Fact> {
    let fact = |name: &'static str, value| Fact { name, name_aligned: format!("{name:<12}"), value };
    let names = [
        ("User", &incident.user_id),
        ("App", &incident.app_id),
        ("Tenant", &incident.tenant_id),
        ("Grant", &incident.family_id),
        ("Token", &incident.token_id),
    ];
    let mut facts: Vec<_> =
        names.iter().filter(|(_, id)| !id.is_empty()).map(|(name, id)| fact(name, (*id).clone())).collect();
    facts.push(fact("First seen", time(incident.opened_at.millis())));
    if incident.updated_at != incident.opened_at {
        facts.push(fact("Last change", time(incident.updated_at.millis())));
    }
    facts.push(fact("Incident", incident.id.to_string()));
    facts
}

const fn colour(severity: Severity) -> &'static str {
    match severity {
        Severity::Info | Severity::Low => "#475569",
        Severity::Medium => "#b45309",
        Severity::High => "#b91c1c",
        Severity::Critical => "#7f1d1d",
    }
}

/// Red if a token that should be revoked still works.
const fn banner(revocation: &Revocation) -> Banner {
    match revocation {
        Revocation::Done | Revocation::AlreadyGone => {
            Banner { background: "#ecfdf5", border: "#059669", text: "#065f46" }
        }
        Revocation::NotAsked | Revocation::Shadow | Revocation::Proposed => {
            Banner { background: "#f1f5f9", border: "#64748b", text: "#1e293b" }
        }
        Revocation::Waiting(_)
        | Revocation::Capped(_)
        | Revocation::Paused
        | Revocation::Stopped(_)
        | Revocation::Failed(_) => Banner { background: "#fef2f2", border: "#dc2626", text: "#991b1b" },
    }
}

/// The log-odds as odds.
fn odds(log_odds: f64) -> String {
    let odds = libm::exp(log_odds);
    let odds = if log_odds < 0.0 {
        "the owner is more likely to hold the token".to_owned()
    } else if odds < 1_000_000.0 {
        format!("about {} to 1 that a party other than the owner holds the token", rounded(odds))
    } else {
        "more than 1,000,000 to 1 that a party other than the owner holds the token".to_owned()
    };
    format!("log-odds in total, prior included: {odds}")
}

/// `3294.5` as `3,300`: two significant digits.
fn rounded(number: f64) -> String {
    let mut unit = 1_u64;
    while number / unit as f64 >= 100.0 {
        unit *= 10;
    }
    grouped((number / unit as f64).round() as u64 * unit)
}

fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| String::new(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// The runbooks of the rules that fired, in the order of the reasons, without repetitions.
fn steps(signals: &[&Signal], progress: &Progress, rules: &RuleSet) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    if progress.not_revoked > 0 || progress.revocation.is_not_done() {
        steps.push("Revoke at the provider what tokenwarden has not revoked.".to_owned());
    }
    let fired = signals.iter().filter(|signal| signal.fired);
    for step in fired.flat_map(|signal| &rules.rule(signal.rule).runbook) {
        if steps.len() < STEPS_MAX && !steps.contains(step) {
            steps.push(step.clone());
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use askama::filters::Escaper as _;
    use proptest::prelude::*;

    use super::super::escape;
    use super::super::tests::incident;
    use super::*;
    use crate::port::{Asked, Limit, Reached};
    use crate::rule::{Rule, RuleSet};
    use crate::sanitize::is_unsafe;
    use crate::verdict::{RuleId, Target, Victim};

    const CAPPED: Reached = Reached { limit: Limit::Tenant, cap: 20 };

    fn rules() -> RuleSet {
        let mut rule: Rule = RuleSet::builtin().rule(RuleId::ConcurrentUse).clone();
        rule.runbook = vec!["Revoke the grant.".to_owned(), "Ask the <owner> by phone.".to_owned()];
        RuleSet::new(vec![rule])
    }

    fn escaped(text: &str) -> String {
        let mut escaped = String::new();
        escape::Html.write_escaped_str(&mut escaped, text).expect("a string takes everything");
        escaped
    }

    fn mail(incident: &Incident, revocation: &Revocation) -> Mail {
        mail_of(incident, &Progress::of(revocation.clone()))
    }

    fn mail_of(incident: &Incident, progress: &Progress) -> Mail {
        compose(Alert::Incident { incident, progress }, &rules())
    }

    #[test]
    fn subject_names_user_reasons_and_revocation() {
        let subject = |revocation| mail(&incident(), &revocation).subject;
        assert_eq!(
            subject(Revocation::Done),
            "[HIGH] acme/ana crm: two holders, new country, new client, REVOKED (INC-0000000000000042)"
        );
        assert_eq!(
            subject(Revocation::Shadow),
            "[HIGH] acme/ana crm: two holders, new country, new client, would revoke (shadow) (INC-0000000000000042)"
        );
        assert!(subject(Revocation::Capped(CAPPED)).contains(", NOT REVOKED ("));
    }

    #[test]
    fn text_matches_its_snapshot() {
        insta::assert_snapshot!(mail(&incident(), &Revocation::Shadow).text);
    }

    #[test]
    fn steps_begin_with_a_failed_revocation() {
        let mail = mail(&incident(), &Revocation::Failed("the provider answered 401".to_owned()));
        assert!(mail.text.contains("1. Revoke at the provider"), "{}", mail.text);
        assert!(mail.text.contains("the provider answered 401"), "{}", mail.text);
        assert!(mail.html.contains("Ask the &lt;owner&gt; by phone."), "{}", mail.html);
    }

    #[test]
    fn victims_and_outcomes_are_listed_or_counted() {
        let victim = |number: u32| Victim { family_id: format!("g-{number}"), ..Victim::default() };
        let victims: Vec<_> = (0..100).map(|number| victim(number).into()).collect();
        let asked = |number: u32, revocation| Asked {
            target: Target::Family(format!("g-{number}")),
            revocation,
            confirmation: None,
        };
        let incident = Incident { victims, victims_total: 240, ..incident() };
        let progress = Progress {
            outcomes: vec![asked(239, Revocation::Capped(CAPPED)), asked(3, Revocation::Done)],
            revoked: 20,
            not_revoked: 220,
            root: None,
            outcomes_total: 240,
            joined: vec![victim(238), victim(239)],
            revocation: Revocation::Done,
            confirmation: None,
        };
        let mail = mail_of(&incident, &progress);
        let start = "[HIGH] acme/ana crm and 239 others: two holders, new country, new client, 20 REVOKED, 220 NOT \
                     REVOKED (";
        assert!(mail.subject.starts_with(start), "{}", mail.subject);
        let listed: Vec<_> = mail.text.lines().filter_map(|line| line.strip_prefix("  grant ")).collect();
        assert_eq!((listed.len(), listed[0], listed[1], listed[49]), (50, "g-239", "g-238", "g-47"));
        for line in [
            "  190 more. The command \"All grants and tokens\" lists them.",
            "  NOT revoked: the grant g-239. The limit of 20 revocations per hour of this tenant is reached. The revocation is requested \
             when the limit allows it. If that is too late, revoke the grant at the provider.",
            "  Revoked: the grant g-3.",
            "  238 more revocations. The command \"All revocations\" lists them.",
            "  1. Revoke at the provider what tokenwarden has not revoked.",
        ] {
            assert!(mail.text.lines().any(|found| found == line), "{line} is missing in\n{}", mail.text);
            assert!(mail.html.contains(&escaped(line.trim().trim_start_matches("1. "))), "{line}\n{}", mail.html);
        }
    }

    #[test]
    fn notice_is_escaped() {
        let text = "5 < 6 & \u{1b}[2J".to_owned();
        let notice = Notice { title: "<b>the limit\r\nX: y".to_owned(), text, at: 1_795_000_000_000, about: None };
        let mail = compose(Alert::Notice(&notice), &rules());
        assert_eq!(mail.subject, "[tokenwarden] <b>the limit␍␊X: y");
        assert_eq!(mail.text, "<b>the limit␍␊X: y\n\n5 < 6 & ␛[2J\n\n2026-11-18 11:06:40 UTC\n");
        assert!(mail.html.contains("<b>&lt;b&gt;the limit␍␊X: y</b>"), "{}", mail.html);
        assert!(mail.html.contains("5 &lt; 6 &amp; ␛[2J"), "{}", mail.html);
    }

    #[test]
    fn odds_have_two_significant_digits() {
        assert_eq!([1.0, 54.6, 3294.5, 999_999.0].map(rounded), ["1", "55", "3,300", "1,000,000"]);
        assert!(odds(-2.0).contains("the owner is more likely"));
        assert!(odds(700.0).contains("more than 1,000,000 to 1"));
    }

    proptest! {
        /// With any text in an event, a mail has the tags of an ordinary mail, and its subject is one line.
        #[test]
        fn mail_contains_no_markup_from_an_event(text in "(\\PC|[<>&\"'\r\n\0\u{202e}\u{2066}\u{200b}\u{e0041}]){1,40}") {
            let mut evil = incident();
            evil.reason.clone_from(&text);
            for field in [&mut evil.subject, &mut evil.tenant_id, &mut evil.user_id, &mut evil.app_id,
                &mut evil.family_id, &mut evil.token_id] {
                *field = format!("x{text}");
            }
            for signal in &mut evil.signals {
                signal.observed.clone_from(&text);
                signal.expected.clone_from(&text);
                signal.reason.clone_from(&text);
            }
            evil.revoke = Some(Target::Family(text.clone()));
            evil.victims_total = 3;
            let progress = |text: &str| Progress {
                revocation: Revocation::Waiting(text.to_owned()),
                outcomes: vec![Asked {
                    target: Target::Token(format!("x{text}")),
                    revocation: Revocation::Failed(text.to_owned()),
                    confirmation: None,
                }],
                confirmation: None,
                outcomes_total: 2,
                not_revoked: 2,
                root: None,
                revoked: 0,
                joined: vec![Victim { family_id: text.to_owned(), ..Victim::default() }],
            };
            let plain = Incident { victims_total: 3, ..incident() };
            let (evil, plain) = (mail_of(&evil, &progress(&text)), mail_of(&plain, &progress("x")));
            let marks = |html: &str| html.matches(['<', '>', '"', '\'']).collect::<String>();
            let paragraphs = |html: &str| html.matches(['<', '>']).count();
            prop_assert_eq!(paragraphs(&evil.html), paragraphs(&plain.html));
            prop_assert_eq!(marks(&evil.html), marks(&plain.html));
            prop_assert!(!evil.subject.contains(is_unsafe));
            prop_assert!(evil.text.chars().chain(evil.html.chars()).all(|c| c == '\n' || !is_unsafe(c)));
            prop_assert_eq!(evil.text.lines().count(), plain.text.lines().count());
        }
    }
}
