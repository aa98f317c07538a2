//! Outcome of a revocation: the status of the response determines it, and the body if configured.

use std::time::Duration;

use serde::Deserialize;

use crate::outgoing::{BodyTest, error_code, is_retriable};
use crate::port::{Confirmation, DeliveryError, Mistake, Revoked};

/// Maximum number of bytes that are read of a body.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;

/// Response of a provider.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    /// The first [`BODY_BYTES_MAX`] bytes.
    pub(super) body: &'a [u8],
    /// Time at which it was received, milliseconds since the epoch, wall clock.
    pub(super) at: i64,
}

impl Answer<'_> {
    fn reason(&self, verb: &str) -> String {
        let code = error_code(self.body).map_or_else(String::new, |code| format!(" ({code})"));
        format!("the provider {verb} {}{code}", self.status)
    }
}

/// Error codes of RFC 6749 section 5.2 and RFC 6750 section 3.1 that reject tokenwarden's own credential.
const OWN_CREDENTIAL: [&str; 4] = ["invalid_client", "unauthorized_client", "access_denied", "insufficient_scope"];

/// The keys that classify an answer, in the configuration or in a preset.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AnswerSettings {
    pub(super) done: Option<Vec<u16>>,
    pub(super) done_when: Option<BodyTest>,
    pub(super) already_gone: Option<Vec<u16>>,
    pub(super) already_gone_when: Option<BodyTest>,
    pub(super) retry: Option<Vec<u16>>,
    pub(super) retry_when: Option<BodyTest>,
    pub(super) refused_when: Option<BodyTest>,
}

/// Classification of responses.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answers(AnswerSettings);

impl Answers {
    /// `own` has precedence over the `preset`. The error is about a key in `[revoke.http]`.
    pub(super) fn of(own: AnswerSettings, preset: &AnswerSettings) -> Result<Self, Mistake> {
        let preset = preset.clone();
        let answers = AnswerSettings {
            done: own.done.or(preset.done),
            done_when: own.done_when.or(preset.done_when),
            already_gone: own.already_gone.or(preset.already_gone),
            already_gone_when: own.already_gone_when.or(preset.already_gone_when),
            retry: own.retry.or(preset.retry),
            retry_when: own.retry_when.or(preset.retry_when),
            refused_when: own.refused_when.or(preset.refused_when),
        };
        for (key, test) in [
            ("done_when", &answers.done_when),
            ("already_gone_when", &answers.already_gone_when),
            ("retry_when", &answers.retry_when),
            ("refused_when", &answers.refused_when),
        ] {
            test.as_ref().map_or(Ok(()), BodyTest::check).map_err(Mistake::of(key))?;
        }
        for (key, statuses) in [("done", &answers.done), ("already_gone", &answers.already_gone)] {
            if statuses.iter().flatten().any(|status| is_about_own_credential(*status)) {
                let problem = "contains 401 or 403, which reject the credential of tokenwarden; remove it";
                return Err(Mistake::new(key, problem));
            }
        }
        Ok(Self(answers))
    }

    /// Whether the body may change the outcome that the status has.
    pub(super) fn look_at_body(&self) -> bool {
        let AnswerSettings { done_when, already_gone_when, retry_when, refused_when, .. } = &self.0;
        [done_when, already_gone_when, retry_when, refused_when].into_iter().any(Option::is_some)
    }

    /// Classifies a response: done, already gone, to be retried, or refused.
    pub(super) fn classify(&self, answer: &Answer<'_>) -> Result<Revoked, DeliveryError> {
        let Answer { status, retry_after, body, at } = *answer;
        let confirmation = Confirmation::at(at);
        let Self(answers) = self;
        let holds = |test: &Option<BodyTest>| test.as_ref().map(|test| test.holds(body));
        let lists = |statuses: &Option<Vec<u16>>| statuses.as_ref().map(|statuses| statuses.contains(&status));
        let refused = |verb: &str| Err(DeliveryError::Permanent { reason: answer.reason(verb), status });
        let retried = || Err(DeliveryError::Retriable { reason: answer.reason("answered"), status, retry_after });
        let is_to_be_retried = lists(&answers.retry).unwrap_or(is_retriable(status));
        if is_about_own_credential(status) {
            // `invalid_token` is then not about the token to revoke. Some APIs limit the rate with 403 and `Retry-After`.
            let is_rate_limit = status == 403 && retry_after.is_some();
            let is_to_be_retried = is_to_be_retried || is_rate_limit || holds(&answers.retry_when) == Some(true);
            return if is_to_be_retried { retried() } else { refused("answered") };
        }
        if holds(&answers.refused_when) == Some(true) {
            return refused("refused with status");
        }
        if error_code(body).is_some_and(|code| OWN_CREDENTIAL.contains(&code.as_str())) {
            return if (200..300).contains(&status) { refused("refused with status") } else { refused("answered") };
        }
        if holds(&answers.already_gone_when) == Some(true) {
            return Ok(Revoked::AlreadyGone { status, confirmation });
        }
        if holds(&answers.retry_when) == Some(true) {
            return retried();
        }
        if lists(&answers.done).unwrap_or((200..300).contains(&status)) {
            return match holds(&answers.done_when) {
                Some(false) => refused("refused with status"),
                Some(true) | None => Ok(Revoked::Done { status, confirmation }),
            };
        }
        match lists(&answers.already_gone) {
            Some(true) => Ok(Revoked::AlreadyGone { status, confirmation }),
            _ if is_to_be_retried => retried(),
            _ => refused("answered"),
        }
    }
}

/// Whether a response with this status rejects tokenwarden's own credential.
pub(super) const fn is_about_own_credential(status: u16) -> bool {
    matches!(status, 401 | 403)
}

/// Whether `error` rejects tokenwarden's own credential, so that every further request would be rejected, too: status 401
/// or 403, or an error code of [`OWN_CREDENTIAL`], which [`Answer::reason`] appends.
pub(crate) fn rejects_own_credential(error: &DeliveryError) -> bool {
    match error {
        DeliveryError::Permanent { reason, status } => {
            is_about_own_credential(*status) || OWN_CREDENTIAL.iter().any(|code| reason.ends_with(&format!("({code})")))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::preset::Preset;
    use super::super::settings::HttpRevokerSettings;
    use super::*;

    fn answers(toml: &str) -> Result<Answers, Mistake> {
        let settings: HttpRevokerSettings = toml::from_str(toml).expect("settings");
        Answers::of(settings.answers(), &Preset::of(&settings).expect("a preset").answer)
    }

    #[test]
    fn outcome_follows_the_status() {
        let meaning = |toml: &str, status: u16| {
            let answer =
                Answer { status, retry_after: (status > 403).then_some(Duration::from_secs(9)), body: b"", at: 0 };
            match answers(toml).expect("settings").classify(&answer) {
                Ok(Revoked::Done { .. }) => "done",
                Ok(Revoked::AlreadyGone { .. }) => "gone",
                Err(DeliveryError::Retriable { .. }) => "retry",
                Err(_) => "give up",
            }
        };
        let outcomes =
            |toml: &str| [200, 204, 302, 400, 401, 404, 410, 429, 500, 503].map(|status| meaning(toml, status));
        let rfc7009 = "preset = 'rfc7009'\nurl = 'https://h.example/'";
        assert_eq!(
            outcomes(rfc7009),
            ["done", "done", "give up", "give up", "give up", "give up", "give up", "retry", "retry", "retry"]
        );
        let by_id = "preset = 'by_id'\nurl = 'https://h.example/'";
        assert_eq!(
            outcomes(by_id),
            ["done", "done", "give up", "give up", "give up", "gone", "gone", "retry", "retry", "retry"]
        );
        let own = "url = 'https://h.example/'\ndone = [302]\nalready_gone = [400]\nretry = [401]";
        assert_eq!(
            outcomes(own),
            ["give up", "give up", "done", "gone", "retry", "give up", "give up", "give up", "give up", "give up"]
        );
    }

    fn outcome(toml: &str, status: u16, body: &str) -> Result<&'static str, String> {
        match answers(toml).expect("settings").classify(&Answer {
            status,
            retry_after: None,
            body: body.as_bytes(),
            at: 0,
        }) {
            Ok(Revoked::Done { .. }) => Ok("done"),
            Ok(Revoked::AlreadyGone { .. }) => Ok("already_gone"),
            Err(DeliveryError::Retriable { .. }) => Ok("retry"),
            Err(DeliveryError::Permanent { reason, .. } | DeliveryError::Rejected { reason, .. }) => Err(reason),
        }
    }

    #[test]
    fn outcome_follows_the_configured_body_tests() {
        let own = "url = 'https://h.example/'\ndone_when = '\"ok\":true'\nalready_gone_when = 'token_revoked'";
        let refused = |code: &str| Err(format!("the provider refused with status 200 ({code})"));
        assert_eq!(outcome(own, 200, r#"{"ok":false,"error":"not_authed"}"#), refused("not_authed"));
        assert_eq!(outcome(own, 200, r#"{"ok":false,"error":"token_revoked"}"#), Ok("already_gone"));
        assert_eq!(outcome(own, 200, "{\n  \"ok\" : true, \"revoked\": true}"), Ok("done"), "white space is ignored");
        assert_eq!(outcome(own, 200, ""), Err("the provider refused with status 200".to_owned()));
        assert_eq!(outcome(own, 500, r#"{"ok":true}"#), Ok("retry"), "the status takes precedence");
        let rfc7009 = "preset = 'rfc7009'\nurl = 'https://h.example/'\nalready_gone_when = 'invalid_token'";
        assert_eq!(outcome(rfc7009, 400, r#"{"error":"invalid_token"}"#), Ok("already_gone"));
        let reason = "the provider answered 400 (invalid_request)".to_owned();
        assert_eq!(outcome(rfc7009, 400, r#"{"error":"invalid_request"}"#), Err(reason));
        for status in [401, 403] {
            let reason = format!("the provider answered {status} (invalid_token)");
            assert_eq!(
                outcome(rfc7009, status, r#"{"error":"invalid_token"}"#),
                Err(reason),
                "tokenwarden's own credential"
            );
        }
        let value = "url = 'https://h.example/'\ndone_when = { pointer = '/result/ok', equals = true }";
        assert_eq!(outcome(value, 200, r#"{"result":{"ok":true}}"#), Ok("done"));
        assert!(outcome(value, 200, r#"{"result":{"ok":"true"}}"#).is_err());
        assert!(outcome(value, 200, r#"{"result":{"ok":true"#).is_err(), "cut short");
    }

    #[test]
    fn own_credential_is_never_already_gone() {
        let own = "url = 'https://h.example/'\nalready_gone = [400, 404]\nalready_gone_when = 'invalid'";
        for (status, body) in [
            (401, r#"{"error":"invalid_token"}"#),
            (403, r#"{"error":"invalid_token"}"#),
            (400, r#"{"error":"invalid_client"}"#),
            (404, r#"{"error":"unauthorized_client","error_description":"invalid"}"#),
            (200, r#"{"error":"invalid_client"}"#),
        ] {
            assert!(outcome(own, status, body).is_err(), "{status} {body}");
        }
        for key in ["done", "already_gone"] {
            for status in [401, 403] {
                let wrong = answers(&format!("url = 'https://h.example/'\n{key} = [404, {status}]"));
                assert_eq!(wrong.expect_err("a mistake").key, key);
            }
        }
    }

    #[test]
    fn rate_limit_with_403_is_retried() {
        let answers = answers("url = 'https://h.example/'").expect("settings");
        let meaning = |retry_after| answers.classify(&Answer { status: 403, retry_after, body: b"", at: 0 });
        assert!(matches!(meaning(Some(Duration::from_secs(9))), Err(DeliveryError::Retriable { .. })));
        assert!(matches!(meaning(None), Err(DeliveryError::Permanent { .. })));
    }

    #[test]
    fn error_does_not_repeat_the_body() {
        let own = "url = 'https://h.example/'\ndone_when = 'yes'";
        for body in [r#"{"error":"xoxb-1-2-abcdefghij"}"#, r#"{"error":"user ana@example.com"}"#, "secret", "{"] {
            assert_eq!(outcome(own, 200, body), Err("the provider refused with status 200".to_owned()), "{body}");
        }
    }

    #[test]
    fn presets_classify_responses_of_their_vendors() {
        let preset = |name: &str| format!("preset = '{name}'\nclient_id = 'c'\nurl = 'https://h.example/'");
        let (slack, google, twitch) = (preset("slack"), preset("google"), preset("twitch"));
        assert_eq!(outcome(&slack, 200, r#"{"ok": true, "revoked": true}"#), Ok("done"));
        assert_eq!(outcome(&slack, 200, r#"{"ok": false, "error": "token_revoked"}"#), Ok("already_gone"));
        assert!(outcome(&slack, 200, r#"{"ok": false, "error": "invalid_auth"}"#).is_err());
        assert_eq!(outcome(&slack, 429, ""), Ok("retry"));
        assert_eq!(outcome(&google, 200, ""), Ok("done"));
        assert!(outcome(&google, 400, r#"{"error": "invalid_token"}"#).is_err());
        assert!(outcome(&google, 400, r#"{"error": "invalid_request"}"#).is_err());
        assert!(outcome(&twitch, 400, r#"{"status": 400, "message": "Invalid token"}"#).is_err());
        assert!(outcome(&twitch, 404, r#"{"status": 404, "message": "client does not exist"}"#).is_err());
    }

    #[test]
    fn own_credential_is_told_from_the_target() {
        let is_own = |status: u16, body: &str| {
            let answer = Answer { status, retry_after: None, body: body.as_bytes(), at: 0 };
            let error = answers("url = 'https://h.example'").expect("answers").classify(&answer).expect_err("refused");
            rejects_own_credential(&error)
        };
        assert!(is_own(401, "") && is_own(403, "no"));
        assert!(is_own(400, r#"{"error":"invalid_client"}"#) && is_own(200, r#"{"error":"invalid_client"}"#));
        assert!(!is_own(400, r#"{"error":"invalid_request"}"#) && !is_own(500, "") && !is_own(302, ""));
    }
}
