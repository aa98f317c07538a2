//! Outcome of a revocation: the status of the response determines it, and the body if configured.

use std::time::Duration;

use super::settings::{BodyTest, HttpRevokerSettings, Preset, ValueTest};
use crate::port::{DeliveryError, Revoked};

/// Maximum number of bytes that are read of a body.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;

/// Response of a provider.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    /// The first [`BODY_BYTES_MAX`] bytes. Empty if no test of the body is configured.
    pub(super) body: &'a [u8],
}

impl Answer<'_> {
    /// The error code in a JSON body, as in RFC 6749 and most APIs. Other content may be a secret or a value of an
    /// event, so
    /// it is not repeated.
    fn error_code(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(self.body).ok()?;
        let code = body.get("error")?.as_str()?;
        let is_code = !code.is_empty()
            && code.len() <= ERROR_CODE_BYTES_MAX
            && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        is_code.then(|| code.to_owned())
    }

    fn reason(&self, verb: &str) -> String {
        let code = self.error_code().map_or_else(String::new, |code| format!(" ({code})"));
        format!("the provider {verb} {}{code}", self.status)
    }
}

/// Maximum length of an error code that is repeated. A token is longer.
const ERROR_CODE_BYTES_MAX: usize = 30;

impl BodyTest {
    /// Rejects a test that every body would pass.
    fn check(&self) -> Result<(), String> {
        let texts = match self {
            Self::Text(text) => std::slice::from_ref(text),
            Self::AnyText(texts) => texts,
            Self::Value(test) if test.pointer.is_empty() || test.pointer.starts_with('/') => return Ok(()),
            Self::Value(_) => {
                return Err("has a `pointer` that does not begin with `/`; an example is \"/ok\"".to_owned());
            }
        };
        if texts.is_empty() || texts.iter().any(|text| text.trim().is_empty()) {
            return Err("is empty: every answer would match it".to_owned());
        }
        Ok(())
    }

    fn holds(&self, body: &[u8]) -> bool {
        match self {
            Self::Text(text) => holds_text(body, text),
            Self::AnyText(texts) => texts.iter().any(|text| holds_text(body, text)),
            Self::Value(test) => serde_json::from_slice::<serde_json::Value>(body)
                .is_ok_and(|body| body.pointer(&test.pointer) == Some(&test.equals)),
        }
    }
}

fn holds_text(body: &[u8], text: &str) -> bool {
    let without_space = |bytes: &[u8]| bytes.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect::<Vec<_>>();
    memchr::memmem::find(&without_space(body), &without_space(text.as_bytes())).is_some()
}

/// Classification of responses.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answers {
    done: Option<Vec<u16>>,
    done_when: Option<BodyTest>,
    already_gone: Vec<u16>,
    already_gone_when: Option<BodyTest>,
    retry: Option<Vec<u16>>,
}

impl Answers {
    /// The error is the key in `[revoke.http]` and the problem.
    pub(super) fn of(settings: &HttpRevokerSettings) -> Result<Self, (&'static str, String)> {
        let gone = match settings.preset {
            Preset::Custom | Preset::ById => vec![404, 410],
            // In RFC 7009, an unknown token is a success. The other presets have their own statuses and texts. So 404
            // means
            // that the URL or the client is wrong.
            Preset::Rfc7009 | Preset::Slack | Preset::Google | Preset::Twitch => Vec::new(),
        };
        let value = |pointer: &str, equals: serde_json::Value| {
            Some(BodyTest::Value(ValueTest { pointer: pointer.to_owned(), equals }))
        };
        let texts = |texts: &[&str]| Some(BodyTest::AnyText(texts.iter().map(|text| (*text).to_owned()).collect()));
        let (done_when, already_gone_when) = match settings.preset {
            Preset::Custom | Preset::Rfc7009 | Preset::ById => (None, None),
            Preset::Slack => (value("/ok", true.into()), texts(&SLACK_GONE)),
            Preset::Google => (None, value("/error", "invalid_token".into())),
            Preset::Twitch => (None, value("/message", "Invalid token".into())),
        };
        let answers = Self {
            done: settings.done.clone(),
            done_when: settings.done_when.clone().or(done_when),
            already_gone: settings.already_gone.clone().unwrap_or(gone),
            already_gone_when: settings.already_gone_when.clone().or(already_gone_when),
            retry: settings.retry.clone(),
        };
        for (key, test) in [("done_when", &answers.done_when), ("already_gone_when", &answers.already_gone_when)] {
            test.as_ref().map_or(Ok(()), BodyTest::check).map_err(|problem| (key, problem))?;
        }
        Ok(answers)
    }

    pub(super) const fn look_at_body(&self) -> bool {
        self.done_when.is_some() || self.already_gone_when.is_some()
    }

    /// Classifies a response: done, already gone, to be retried, or refused.
    pub(super) fn classify(&self, answer: &Answer<'_>) -> Result<Revoked, DeliveryError> {
        let Answer { status, retry_after, body } = *answer;
        let holds = |test: &Option<BodyTest>| test.as_ref().map(|test| test.holds(body));
        // These statuses reject tokenwarden's own credentials, so `invalid_token` is not about the token to revoke.
        let is_about_own_credentials = matches!(status, 401 | 403);
        if !is_about_own_credentials && holds(&self.already_gone_when) == Some(true) {
            return Ok(Revoked::AlreadyGone { status });
        }
        let done = self.done.as_ref().map_or((200..300).contains(&status), |done| done.contains(&status));
        let retry =
            self.retry.as_ref().map_or(matches!(status, 408 | 425 | 429 | 500..=599), |retry| retry.contains(&status));
        if done {
            return match holds(&self.done_when) {
                Some(false) => Err(DeliveryError::Permanent { reason: answer.reason("refused with status"), status }),
                Some(true) | None => Ok(Revoked::Done { status }),
            };
        }
        if self.already_gone.contains(&status) {
            Ok(Revoked::AlreadyGone { status })
        } else if retry {
            Err(DeliveryError::Retriable { reason: answer.reason("answered"), status, retry_after })
        } else {
            Err(DeliveryError::Permanent { reason: answer.reason("answered"), status })
        }
    }
}

/// Errors of Slack's `auth.revoke` for a token that no longer works.
const SLACK_GONE: [&str; 3] =
    [r#""error":"token_revoked""#, r#""error":"token_expired""#, r#""error":"account_inactive""#];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_follows_the_status() {
        let meaning = |toml: &str, status: u16| {
            let settings: HttpRevokerSettings = toml::from_str(toml).expect("settings");
            let answer = Answer { status, retry_after: Some(Duration::from_secs(9)), body: b"" };
            match Answers::of(&settings).expect("settings").classify(&answer) {
                Ok(Revoked::Done { .. }) => "done",
                Ok(Revoked::AlreadyGone { .. }) => "gone",
                Err(DeliveryError::Retriable { retry_after: Some(_), .. }) => "retry",
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
        let settings: HttpRevokerSettings = toml::from_str(toml).expect("settings");
        let answers = Answers::of(&settings).expect("settings");
        match answers.classify(&Answer { status, retry_after: None, body: body.as_bytes() }) {
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
        assert_eq!(outcome(&google, 400, r#"{"error": "invalid_token"}"#), Ok("already_gone"));
        assert!(outcome(&google, 400, r#"{"error": "invalid_request"}"#).is_err());
        assert_eq!(outcome(&twitch, 400, r#"{"status": 400, "message": "Invalid token"}"#), Ok("already_gone"));
        assert!(outcome(&twitch, 404, r#"{"status": 404, "message": "client does not exist"}"#).is_err());
    }
}
