//! Comparison of the disturbed service with one that read the same messages undisturbed.

use std::collections::BTreeMap;

use super::super::*;
use super::fault::{Failure, Fault, Receiver};
use super::stage::Stage;

/// Result of the comparison. The first [`Self::violations`] counts should be 0; the others are for information.
pub(super) struct Findings {
    pub(super) counts: Vec<(&'static str, usize)>,
    violations: usize,
}

impl Findings {
    /// `applied`: how often each fault happened.
    pub(super) fn of(stage: &Stage, calm: &Receivers, applied: &BTreeMap<Fault, u64>) -> Self {
        let position = "source_partition, source_offset";
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for table in ["token_events FINAL", "dead_letters FINAL"] {
            for row in stage.rows("faulty", position, table) {
                *found.entry(row).or_default() += 1;
            }
        }
        let ends = stage.ends();
        let expected: BTreeSet<String> = (0..)
            .zip(&ends)
            .flat_map(|(partition, end)| (0..*end).map(move |at| format!("{partition},{at}")))
            .collect();
        let verdict = format!("{position}, event_id, verdict, toString(score), incident_id, country, asn");
        let [rows, calm_rows] = ["faulty", "calm"].map(|database| stage.rows(database, &verdict, "token_events FINAL"));
        let placed = calm_rows.iter().filter(|row| row.ends_with(",\"DE\",3320")).count();
        let (rows, calm_rows) = (BTreeSet::from_iter(rows), BTreeSet::from_iter(calm_rows));
        let incidents: BTreeSet<String> = stage.rows("calm", "incident_id", "incidents FINAL").into_iter().collect();
        let given_up = "actions FINAL WHERE kind = 'alert_email' AND outcome = 'failed' AND incident_id != ''";
        let given_up: BTreeSet<String> = stage.rows("faulty", "DISTINCT incident_id", given_up).into_iter().collect();
        let done = "actions FINAL WHERE kind = 'revoke_family' AND outcome IN ('done', 'already_gone')";
        let done: BTreeSet<String> = stage.rows("faulty", "DISTINCT target", done).into_iter().collect();
        let Receivers { smtp, hook, api } = &stage.receivers;
        let bodies: Vec<String> = hook.requests().into_iter().map(|asked| asked.body).collect();
        // Joins quoted-printable lines.
        let mails: Vec<String> = smtp.mails().into_iter().map(|mail| mail.replace("=\r\n", "")).collect();
        let (bodies, mails) = (mentioned(&bodies, &incidents), mentioned(&mails, &incidents));
        let accepted: BTreeSet<String> = api.accepted().into_iter().map(|asked| asked.path).collect();
        let mut keys: BTreeMap<String, BTreeSet<Option<String>>> = BTreeMap::new();
        for asked in api.requests() {
            let key = asked.header("idempotency-key").map(str::to_owned);
            keys.entry(asked.path).or_default().insert(key);
        }
        let revoked: BTreeSet<String> = calm.api.requests().into_iter().map(|asked| asked.path).collect();
        let target = |path: &str| format!("\"{}\"", path.trim_start_matches("/grants/"));
        let may_give_up = applied.contains_key(&Fault::Of(Receiver::Mail, Failure::Rejects));
        let is_mailed = |id: &String| mails.contains(id) || (may_give_up && given_up.contains(id));
        let violations = vec![
            (
                "messages that are neither in `token_events` nor in `dead_letters`",
                expected.iter().filter(|at| !found.contains_key(*at)).count(),
            ),
            ("messages that are there more than once", found.values().filter(|count| **count > 1).count()),
            ("rows without a message", found.keys().filter(|at| !expected.contains(*at)).count()),
            (
                "verdicts, scores, incidents or places of events that differ from the undisturbed run",
                calm_rows.symmetric_difference(&rows).count(),
            ),
            (
                "incidents of the undisturbed run that no webhook reported",
                incidents.iter().filter(|id| !bodies.contains(*id)).count(),
            ),
            (
                "incidents of the undisturbed run that no mail reported, and that were not given up after a 550",
                incidents.iter().filter(|id| !is_mailed(id)).count(),
            ),
            (
                "revocations of the undisturbed run that the API did not accept",
                revoked.iter().filter(|path| !accepted.contains(*path)).count(),
            ),
            (
                "revocations of the undisturbed run without a row `done` or `already_gone` in `actions`",
                revoked.iter().filter(|path| !done.contains(&target(path))).count(),
            ),
            ("grants revoked in addition", keys.keys().filter(|path| !revoked.contains(*path)).count()),
            (
                "grants revoked under more than one idempotency key",
                keys.values().filter(|keys| keys.len() != 1).count(),
            ),
        ];
        let information = [
            ("messages", expected.len()),
            ("events with a place from the GeoIP file", placed),
            ("incidents", incidents.len()),
            ("incidents whose mail was given up after a 550", given_up.len()),
            ("revocations", revoked.len()),
        ];
        let (counts, violations) = ([violations.as_slice(), &information].concat(), violations.len());
        Self { counts, violations }
    }

    /// The counts that should be 0 and are not.
    pub(super) fn faults(&self) -> Vec<&(&'static str, usize)> {
        self.counts[..self.violations].iter().filter(|(_, count)| *count > 0).collect()
    }
}

/// The incidents whose ids are in one of the texts.
fn mentioned(texts: &[String], incidents: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for text in texts {
        for (at, _) in text.match_indices("INC-") {
            let rest = &text[at + 4..];
            let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let id = format!("\"{}\"", &text[at..at + 4 + end]);
            if incidents.contains(&id) {
                found.insert(id);
            }
        }
    }
    found
}
