//! What a mail about an alert says. Everything in it that came from an event is escaped for the place it stands in.

use std::fmt::Write as _;

use super::words;
use crate::port::{Alert, Notice, Progress, Revocation};
use crate::rule::RuleSet;
use crate::verdict::{Incident, Severity, Signal};

/// Longest subject before the incident's id, characters.
const REASON_CHARS_MAX: usize = 90;
/// Steps of the runbooks that are shown.
const STEPS_MAX: usize = 6;
/// Signals that are shown.
const SIGNALS_MAX: usize = 8;
/// Victims that are named; the others are counted.
const VICTIMS_MAX: usize = 50;
/// Revocations of other targets that are named; the others are counted.
const OUTCOMES_MAX: usize = 50;

/// A mail's texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// One line without control characters.
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// Writes the mail; `rules` have the runbooks.
#[must_use]
pub fn compose(alert: Alert<'_>, rules: &RuleSet) -> Mail {
    match alert {
        Alert::Incident { incident, progress } => Story::of(incident, progress, rules).mail(),
        Alert::Notice(notice) => of_notice(notice),
    }
}

/// All that the mail tells, in plain words, before it is text or HTML.
struct Story<'a> {
    incident: &'a Incident,
    progress: &'a Progress,
    facts: Vec<(&'static str, String)>,
    /// The signals that speak for theft, the strongest first.
    signals: Vec<&'a Signal>,
    odds: String,
    answer: String,
    outcomes: Vec<String>,
    victims: Vec<String>,
    steps: Vec<String>,
    queries: Vec<(&'static str, String)>,
}

impl<'a> Story<'a> {
    fn of(incident: &'a Incident, progress: &'a Progress, rules: &RuleSet) -> Self {
        let names = [
            ("User", &incident.user_id),
            ("App", &incident.app_id),
            ("Tenant", &incident.tenant_id),
            ("Grant", &incident.family_id),
            ("Token", &incident.token_id),
        ];
        let mut facts: Vec<_> =
            names.iter().filter(|(_, id)| !id.is_empty()).map(|(name, id)| (*name, words::plain(id))).collect();
        facts.push(("First seen", time(incident.opened_at.millis())));
        if incident.updated_at != incident.opened_at {
            facts.push(("Last change", time(incident.updated_at.millis())));
        }
        let signals: Vec<_> = incident.signals.iter().filter(|signal| signal.share > 0.0).take(SIGNALS_MAX).collect();
        let (mut outcomes, more) = words::other_outcomes(incident, progress, OUTCOMES_MAX);
        if more > 0 {
            outcomes.push(format!("{more} more revocations: \"All revocations\" below lists them."));
        }
        let (mut victims, more) = words::victims(incident, progress, VICTIMS_MAX);
        if incident.victims_total <= 1 {
            victims.clear();
        } else if more > 0 {
            victims.push(format!("{more} more: \"All grants and tokens\" below lists them."));
        }
        Self {
            incident,
            progress,
            facts,
            odds: odds(incident.log_odds),
            answer: words::answer(incident, &progress.revocation),
            outcomes,
            victims,
            steps: steps(&signals, progress, rules),
            signals,
            queries: queries(incident),
        }
    }

    fn mail(&self) -> Mail {
        Mail { subject: self.subject(), text: self.text(), html: self.html() }
    }

    /// `[HIGH] Token acme/ci-deploy: two holders, DE and BR, REVOKED (INC-…)`
    fn subject(&self) -> String {
        let incident = self.incident;
        let reason = words::shortened(words::plain(&incident.reason).trim_end_matches('.'), REASON_CHARS_MAX);
        let whose = words::shortened(&words::subjects(incident, '/'), REASON_CHARS_MAX);
        let badge = words::badge(self.progress).map_or_else(String::new, |badge| format!(", {badge}"));
        format!("[{}] Token {whose}: {reason}{badge} ({})", severity(incident.severity), incident.id)
    }

    fn text(&self) -> String {
        let incident = self.incident;
        let mut text = String::new();
        let _ = writeln!(text, "{}: {}\n", severity(incident.severity), words::plain(&incident.reason));
        for (name, value) in &self.facts {
            let _ = writeln!(text, "  {name:<12} {value}");
        }
        let _ = writeln!(text, "  {:<12} {}\n", "Incident", incident.id);
        let _ = writeln!(text, "WHAT WAS DONE\n  {}", self.answer);
        for outcome in &self.outcomes {
            let _ = writeln!(text, "  {outcome}");
        }
        text.push('\n');
        if !self.victims.is_empty() {
            let _ = writeln!(text, "GRANTS AND TOKENS ({})", incident.victims_total);
            for victim in &self.victims {
                let _ = writeln!(text, "  {victim}");
            }
            text.push('\n');
        }
        let _ = writeln!(text, "WHY\n  {}", self.odds);
        for signal in &self.signals {
            let _ = writeln!(text, "  {:>+5.1}  {}: {}", signal.share, signal.rule, words::plain(&signal.reason));
            let (observed, expected) = (words::plain(&signal.observed), words::plain(&signal.expected));
            let _ = writeln!(text, "         seen  {observed}\n         usual {expected}");
        }
        if !self.steps.is_empty() {
            text.push_str("\nWHAT TO DO\n");
            for (number, step) in self.steps.iter().enumerate() {
                let _ = writeln!(text, "  {}. {step}", number + 1);
            }
        }
        text.push_str("\nLOOK FURTHER\n");
        for (title, query) in &self.queries {
            let _ = writeln!(text, "  {title}:\n    {query}");
        }
        text
    }

    fn html(&self) -> String {
        let incident = self.incident;
        let mut page = Page::new(severity(incident.severity), colour(incident.severity), &self.subject());
        page.title(&format!("Token {}", words::subjects(incident, '/')), &incident.reason);
        page.banner(&self.answer, banner_colours(&self.progress.revocation));
        page.list(&self.outcomes);
        page.facts(self.facts.iter().map(|(name, value)| (*name, value.as_str())));
        if !self.victims.is_empty() {
            page.heading(&format!("Grants and tokens ({})", incident.victims_total));
            page.list(&self.victims);
        }
        page.heading("Why");
        page.paragraph(&self.odds);
        page.signals(&self.signals);
        if !self.steps.is_empty() {
            page.heading("What to do");
            page.steps(&self.steps);
        }
        page.heading("Look further");
        for (title, query) in &self.queries {
            page.query(title, query);
        }
        page.end(&incident.id.to_string())
    }
}

fn of_notice(notice: &Notice) -> Mail {
    let title = words::plain(&notice.title);
    let mut page = Page::new("NOTICE", "#9a3412", &title);
    page.title(&title, "");
    page.paragraph(&notice.text);
    Mail {
        subject: format!("[tokenwarden] {title}"),
        text: format!("{title}\n\n{}\n\n{}\n", words::plain(&notice.text), time(notice.at)),
        html: page.end(&time(notice.at)),
    }
}

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "INFO",
        Severity::Low => "LOW",
        Severity::Medium => "MEDIUM",
        Severity::High => "HIGH",
        Severity::Critical => "CRITICAL",
    }
}

const fn colour(severity: Severity) -> &'static str {
    match severity {
        Severity::Info | Severity::Low => "#475569",
        Severity::Medium => "#b45309",
        Severity::High => "#b91c1c",
        Severity::Critical => "#7f1d1d",
    }
}

/// Background, border and text.
const fn banner_colours(revocation: &Revocation) -> [&'static str; 3] {
    match revocation {
        Revocation::Done | Revocation::AlreadyGone => ["#ecfdf5", "#059669", "#065f46"],
        Revocation::NotAsked | Revocation::Shadow | Revocation::Proposed => ["#f1f5f9", "#64748b", "#1e293b"],
        Revocation::Waiting(_) | Revocation::Capped(_) | Revocation::Paused | Revocation::Failed(_) => {
            ["#fef2f2", "#dc2626", "#991b1b"]
        }
    }
}

/// What log-odds mean, as odds that people know from bets.
fn odds(log_odds: f64) -> String {
    let odds = libm::exp(log_odds);
    let odds = if log_odds < 0.0 {
        "the token is more likely in its owner's hands".to_owned()
    } else if odds < 1_000_000.0 {
        format!("about {} to 1 that somebody else holds it", rounded(odds))
    } else {
        "more than a million to 1 that somebody else holds it".to_owned()
    };
    format!("Log-odds {log_odds:.1}: {odds}. Each line's share of that, in nats:")
}

/// `3294.5` as `3,300`: two digits that mean something.
fn rounded(number: f64) -> String {
    let mut unit = 1_u64;
    while number / unit as f64 >= 100.0 {
        unit *= 10;
    }
    let digits = ((number / unit as f64).round() as u64 * unit).to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| String::new(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// The runbooks of the rules that spoke, the leading one first, without repetitions.
fn steps(signals: &[&Signal], progress: &Progress, rules: &RuleSet) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    if progress.not_revoked > 0 || words::is_not_revoked(&progress.revocation) {
        steps.push("Revoke by hand at the provider what tokenwarden has not revoked.".to_owned());
    }
    let spoke = signals.iter().filter(|signal| signal.fired);
    for step in spoke.flat_map(|signal| &rules.rule(signal.rule).runbook) {
        let step = words::plain(step);
        if steps.len() < STEPS_MAX && !steps.contains(&step) {
            steps.push(step);
        }
    }
    steps
}

/// Commands to paste into a shell.
fn queries(incident: &Incident) -> Vec<(&'static str, String)> {
    let id = incident.id;
    let (column, name) = match (&*incident.family_id, &*incident.token_id) {
        ("", token) => ("token_id", token),
        (family, _) => ("family_id", family),
    };
    let command = |sql: String| format!("tokenwarden sql --config FILE \"{sql}\"");
    let mut queries = Vec::new();
    if incident.victims_total > 1 {
        queries.push((
            "All grants and tokens",
            command(format!(
                "SELECT family_id, token_id, user_id, app_id, min(timestamp), count() FROM token_events WHERE \
                 incident_id = '{id}' GROUP BY ALL ORDER BY 5"
            )),
        ));
        queries.push((
            "All revocations",
            command(format!(
                "SELECT requested_at, kind, target, outcome, reason FROM actions WHERE incident_id = '{id}' AND kind \
                 LIKE 'revoke%' ORDER BY 1"
            )),
        ));
    }
    queries.extend([
        (
            "What happened, step by step",
            command(format!(
                "SELECT at, what, outcome, summary FROM incident_timeline WHERE incident_id = '{id}' ORDER BY at"
            )),
        ),
        (
            "What was touched since",
            command(format!(
                "SELECT method, route, suspect_calls, suspect_bytes_out FROM blast_radius WHERE incident_id = '{id}' \
                 ORDER BY 3 DESC"
            )),
        ),
        (
            "The token's last uses",
            command(format!(
                "SELECT timestamp, ip_address, country, as_org, method, endpoint, verdict FROM token_events WHERE \
                 {column} = {} ORDER BY timestamp DESC LIMIT 50",
                literal(name)
            )),
        ),
    ]);
    queries
}

/// `text` as an SQL text that means nothing to a shell either, inside double quotes: letters, digits and a few marks
/// as they are, anything else in hexadecimal.
fn literal(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/@+=".contains(&byte)) {
        return format!("'{text}'");
    }
    let mut hex = String::new();
    for byte in text.bytes() {
        let _ = write!(hex, "{byte:02x}");
    }
    format!("unhex('{hex}')")
}

/// An HTML page that mail clients show as it is meant: tables and inline styles, no more than 640 pixels wide.
struct Page(String);

const FONT: &str = "font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;";
const MONO: &str = "font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;";
const CELL: &str = "padding:0 24px;";

impl Page {
    fn new(badge: &str, colour: &str, preview: &str) -> Self {
        let mut page = Self(String::new());
        let preview = escaped(preview);
        let badge = escaped(badge);
        page.push(&format!(
            "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light\">\
             <title>{preview}</title></head>\n<body style=\"margin:0;background:#eef2f6;\">\
             <div style=\"display:none;max-height:0;overflow:hidden;\">{preview}</div>\n\
             <table role=\"presentation\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\" \
             style=\"background:#eef2f6;\"><tr><td align=\"center\" style=\"padding:24px 8px;\">\n\
             <table role=\"presentation\" width=\"640\" cellpadding=\"0\" cellspacing=\"0\" style=\"width:100%;\
             max-width:640px;background:#ffffff;border:1px solid #d8dfe7;border-radius:8px;{FONT}font-size:14px;\
             line-height:1.5;color:#1e293b;\">\n<tr><td style=\"{CELL}background:{colour};border-radius:7px 7px 0 0;\
             color:#ffffff;padding-top:10px;padding-bottom:10px;font-size:12px;letter-spacing:1px;\">\
             <b>{badge}</b> &nbsp;tokenwarden</td></tr>"
        ));
        page
    }

    fn push(&mut self, html: &str) {
        self.0.push_str(html);
        self.0.push('\n');
    }

    fn row(&mut self, style: &str, html: &str) {
        self.push(&format!("<tr><td style=\"{CELL}{style}\">{html}</td></tr>"));
    }

    fn title(&mut self, title: &str, below: &str) {
        self.row("padding-top:20px;font-size:20px;line-height:1.3;", &format!("<b>{}</b>", escaped(title)));
        if !below.is_empty() {
            self.row("padding-top:4px;font-size:16px;color:#475569;", &escaped(below));
        }
    }

    fn banner(&mut self, text: &str, [background, border, colour]: [&str; 3]) {
        let style = format!(
            "background:{background};border-left:4px solid {border};color:{colour};padding:10px 14px;font-size:14px;"
        );
        let text = escaped(text);
        self.row(
            "padding-top:16px;",
            &format!(
                "<table role=\"presentation\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\"><tr>\
                 <td style=\"{style}\"><b>{text}</b></td></tr></table>"
            ),
        );
    }

    fn facts<'f>(&mut self, facts: impl Iterator<Item = (&'f str, &'f str)>) {
        let mut rows = String::new();
        for (name, value) in facts {
            let _ = write!(
                rows,
                "<tr><td style=\"padding:2px 16px 2px 0;color:#64748b;white-space:nowrap;vertical-align:top;\">{}</td>\
                 <td style=\"padding:2px 0;word-break:break-word;\">{}</td></tr>",
                escaped(name),
                escaped(value)
            );
        }
        self.row(
            "padding-top:16px;",
            &format!("<table role=\"presentation\" cellpadding=\"0\" cellspacing=\"0\">{rows}</table>"),
        );
    }

    fn heading(&mut self, text: &str) {
        let style = "padding-top:20px;font-size:12px;letter-spacing:1px;color:#64748b;text-transform:uppercase;";
        self.row(style, &format!("<b>{}</b>", escaped(text)));
    }

    fn paragraph(&mut self, text: &str) {
        self.row("padding-top:4px;", &escaped(text));
    }

    fn list(&mut self, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        let lines: Vec<_> = lines.iter().map(|line| escaped(line)).collect();
        self.row("padding-top:8px;word-break:break-word;", &lines.join("<br>"));
    }

    fn signals(&mut self, signals: &[&Signal]) {
        let largest = signals.iter().map(|signal| signal.share).fold(1.0, f64::max);
        let mut rows = String::new();
        for signal in signals {
            let width = (signal.share / largest * 56.0).clamp(2.0, 56.0).round();
            let _ = write!(
                rows,
                "<tr><td width=\"64\" style=\"padding:10px 12px 0 0;vertical-align:top;\">\
                 <b>{:+.1}</b><div style=\"height:4px;width:{width:.0}px;background:#dc2626;margin-top:2px;\"></div></td>\
                 <td style=\"padding:10px 0 0 0;word-break:break-word;\"><b>{}</b> \
                 <span style=\"{MONO}font-size:12px;color:#64748b;\">{}</span><br>\
                 <span style=\"color:#64748b;\">seen</span> {}<br><span style=\"color:#64748b;\">usual</span> {}\
                 </td></tr>",
                signal.share,
                escaped(&signal.reason),
                escaped(signal.rule.as_str()),
                escaped(&signal.observed),
                escaped(&signal.expected)
            );
        }
        self.row(
            "",
            &format!("<table role=\"presentation\" width=\"100%\" cellpadding=\"0\" cellspacing=\"0\">{rows}</table>"),
        );
    }

    fn steps(&mut self, steps: &[String]) {
        let mut items = String::new();
        for step in steps {
            let _ = write!(items, "<li style=\"padding:2px 0;\">{}</li>", escaped(step));
        }
        self.row("", &format!("<ol style=\"margin:4px 0 0 0;padding-left:22px;\">{items}</ol>"));
    }

    fn query(&mut self, title: &str, query: &str) {
        self.row("padding-top:8px;", &escaped(title));
        self.row(
            "padding-top:4px;",
            &format!(
                "<div style=\"{MONO}font-size:12px;line-height:1.45;background:#f1f5f9;padding:8px 10px;\
                 border-radius:4px;word-break:break-word;\">{}</div>",
                escaped(query)
            ),
        );
    }

    fn end(mut self, foot: &str) -> String {
        self.row("padding-top:20px;padding-bottom:20px;font-size:12px;color:#94a3b8;", &escaped(foot));
        self.0.push_str("</table>\n</td></tr></table></body></html>\n");
        self.0
    }
}

/// `text` as it may stand between tags and in a quoted attribute.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in words::plain(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::incident;
    use super::*;
    use crate::port::Asked;
    use crate::rule::{Rule, RuleSet};
    use crate::sanitize::is_unsafe;
    use crate::verdict::{RuleId, Target, Victim};

    fn rules() -> RuleSet {
        let mut rule: Rule = RuleSet::builtin().rule(RuleId::ConcurrentUse).clone();
        rule.runbook = vec!["Revoke the grant.".to_owned(), "Ask the <owner> by phone.".to_owned()];
        RuleSet::new(vec![rule])
    }

    fn mail(incident: &Incident, revocation: &Revocation) -> Mail {
        mail_of(incident, &Progress::of(revocation.clone()))
    }

    fn mail_of(incident: &Incident, progress: &Progress) -> Mail {
        compose(Alert::Incident { incident, progress }, &rules())
    }

    #[test]
    fn the_subject_says_what_who_and_what_was_done() {
        let subject = |revocation| mail(&incident(), &revocation).subject;
        assert_eq!(
            subject(Revocation::Done),
            "[HIGH] Token acme/ci-deploy: two holders, DE and BR, within 9 minutes, REVOKED (INC-0000000000000042)"
        );
        assert_eq!(
            subject(Revocation::Shadow),
            "[HIGH] Token acme/ci-deploy: two holders, DE and BR, within 9 minutes, would have revoked \
             (INC-0000000000000042)"
        );
        assert!(subject(Revocation::Capped(20)).contains(", NOT REVOKED ("));
    }

    #[test]
    fn the_text_is_whole() {
        insta::assert_snapshot!(mail(&incident(), &Revocation::Shadow).text);
    }

    #[test]
    fn a_revocation_that_did_not_happen_is_the_first_thing_to_do() {
        let mail = mail(&incident(), &Revocation::Failed("the provider answered 401".to_owned()));
        assert!(mail.text.contains("1. Revoke by hand"), "{}", mail.text);
        assert!(mail.text.contains("the provider answered 401"), "{}", mail.text);
        assert!(mail.html.contains("Ask the &lt;owner&gt; by phone."), "{}", mail.html);
    }

    #[test]
    fn mail_about_many_victims_names_or_counts_all() {
        let victim = |number: u32| Victim { family_id: format!("g-{number}"), ..Victim::default() };
        let victims: Vec<_> = (0..100).map(victim).collect();
        let asked = |number: u32, revocation| Asked { target: Target::Family(format!("g-{number}")), revocation };
        let incident = Incident { victims, victims_total: 240, ..incident() };
        let progress = Progress {
            outcomes: vec![asked(239, Revocation::Capped(20)), asked(3, Revocation::Done)],
            revoked: 20,
            not_revoked: 220,
            outcomes_total: 240,
            joined: vec![victim(238), victim(239)],
            revocation: Revocation::Done,
        };
        let mail = mail_of(&incident, &progress);
        let start = "[HIGH] Token acme/ci-deploy and 239 others: two holders, DE and BR, within 9 minutes, 20 REVOKED, \
                     220 NOT REVOKED (";
        assert!(mail.subject.starts_with(start), "{}", mail.subject);
        let listed: Vec<_> = mail.text.lines().filter_map(|line| line.strip_prefix("  grant ")).collect();
        assert_eq!((listed.len(), listed[0], listed[1], listed[49]), (50, "g-239", "g-238", "g-47"));
        for line in [
            "  190 more: \"All grants and tokens\" below lists them.",
            "  NOT revoked: the family g-239. The cap of 20 revocations an hour is reached. It will be requested when \
             the cap has room; revoke it by hand if that is too late.",
            "  Revoked: the family g-3.",
            "  238 more revocations: \"All revocations\" below lists them.",
            "  1. Revoke by hand at the provider what tokenwarden has not revoked.",
        ] {
            assert!(mail.text.lines().any(|found| found == line), "{line} is missing in\n{}", mail.text);
            assert!(mail.html.contains(&escaped(line.trim().trim_start_matches("1. "))), "{line}\n{}", mail.html);
        }
    }

    #[test]
    fn a_name_cannot_break_out_of_its_query() {
        assert_eq!(literal("ci-deploy.v2@x"), "'ci-deploy.v2@x'");
        assert_eq!(literal("a'; DROP"), "unhex('61273b2044524f50')");
        assert_eq!(literal("$`\\\""), "unhex('24605c22')");
    }

    #[test]
    fn odds_are_rounded_to_what_they_mean() {
        assert_eq!([1.0, 54.6, 3294.5, 999_999.0].map(rounded), ["1", "55", "3,300", "1,000,000"]);
        assert!(odds(-2.0).contains("owner's hands"));
        assert!(odds(700.0).contains("more than a million"));
    }

    proptest! {
        /// Whatever stands in an event, a mail has the tags of an ordinary one, and one line of subject.
        #[test]
        fn nothing_from_an_event_becomes_markup(text in "(\\PC|[<>&\"'\r\n\0\u{202e}\u{2066}\u{200b}\u{e0041}]){1,40}") {
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
                }],
                outcomes_total: 2,
                not_revoked: 2,
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
