//! Documented requests and answers of the receivers, for the contract tests. The sources are in the preset files.

use serde_json::{Value, json};

/// The contract of one preset.
pub(super) struct Contract {
    pub(super) kind: &'static str,
    /// What the preset requires. `URL` stands for the receiver.
    pub(super) keys: &'static str,
    /// Method, path and query of the request.
    pub(super) line: &'static str,
    pub(super) headers: &'static [(&'static str, &'static str)],
    /// Documented answers with their outcomes.
    pub(super) answers: &'static [(u16, &'static str, &'static str)],
    /// Maximum size of a body, bytes.
    pub(super) bytes_max: usize,
    /// Maximum length of the text at each JSON pointer, characters.
    pub(super) lengths: &'static [(&'static str, usize)],
    pub(super) body: fn() -> Value,
}

const JSON: (&str, &str) = ("content-type", "application/json");
pub(super) const HEADLINE: &str = "[HIGH] acme/ana crm: two holders, new country, new client, REVOKED";
const LINES: [&str; 6] = [
    "Revoked: the grant ci-deploy.",
    "+4.6 two holders take turns",
    "+2.6 never seen in Brazil",
    "+0.9 a client that it has never used",
    "tenant acme, user ana, app crm, grant ci-deploy, token at-9",
    "INC-0000000000000042, opened 2026-11-18 11:06 UTC. Why: tokenwarden explain INC-0000000000000042",
];
const ID: &str = "INC-0000000000000042";
const SLACK_TEXTS: &[(&str, usize)] = &[("/text", 140), ("/blocks/0/text/text", 150), ("/blocks/1/text/text", 3_000)];

fn details() -> String {
    LINES.join("\n")
}

fn blocks() -> Value {
    json!([
        { "type": "header", "text": { "type": "plain_text", "text": HEADLINE, "emoji": false } },
        { "type": "section", "text": { "type": "plain_text", "text": details(), "emoji": false } },
    ])
}

pub(super) const CONTRACTS: &[Contract] = &[
    Contract {
        kind: "slack",
        keys: "url = 'URL/api'\ntoken = 'xoxb-example'\nvalues = { channel = 'C0123' }",
        line: "POST /api/chat.postMessage",
        headers: &[("content-type", "application/json; charset=utf-8"), ("authorization", "Bearer xoxb-example")],
        answers: &[
            (200, r#"{"ok":true,"channel":"C0123","ts":"1503435956.000247"}"#, "accepted, root 1503435956.000247"),
            (200, r#"{"ok":false,"error":"ratelimited"}"#, "retry"),
            (200, r#"{"ok":false,"error":"internal_error"}"#, "retry"),
            (200, r#"{"ok":false,"error":"not_in_channel"}"#, "retry"),
            (200, r#"{"ok":false,"error":"invalid_auth"}"#, "retry"),
            (200, r#"{"ok":false,"error":"invalid_blocks"}"#, "rejected"),
            (200, r#"{"ok": false, "error": "msg_too_long"}"#, "rejected"),
            (200, "<html>sign in</html>", "retry"),
            (503, "", "retry"),
        ],
        bytes_max: 100_000,
        lengths: SLACK_TEXTS,
        body: || {
            json!({
                "channel": "C0123", "text": HEADLINE, "mrkdwn": false, "parse": "none", "link_names": false,
                "unfurl_links": false, "unfurl_media": false, "blocks": blocks(),
            })
        },
    },
    Contract {
        kind: "slack_webhook",
        keys: "webhook_url = 'URL/services/T0/B0/xyz'",
        line: "POST /services/T0/B0/xyz",
        headers: &[JSON],
        answers: &[
            (200, "ok", "accepted"),
            (400, "invalid_payload", "rejected"),
            (403, "action_prohibited", "retry"),
            (404, "no_service", "retry"),
            (410, "channel_is_archived", "rejected"),
            (500, "rollup_error", "retry"),
        ],
        bytes_max: 100_000,
        lengths: SLACK_TEXTS,
        body: || json!({ "text": HEADLINE, "unfurl_links": false, "unfurl_media": false, "blocks": blocks() }),
    },
    Contract {
        kind: "teams",
        keys: "webhook_url = 'URL/workflows/1/triggers/manual/paths/invoke?sig=x%2Fy'",
        line: "POST /workflows/1/triggers/manual/paths/invoke?sig=x%2Fy",
        headers: &[JSON],
        answers: &[
            (202, "", "accepted"),
            (200, "1", "accepted"),
            (400, r#"{"error":{"code":"TriggerInputSchemaMismatch"}}"#, "rejected"),
            (401, r#"{"error":{"code":"DirectApiAuthorizationRequired"}}"#, "retry"),
            (404, r#"{"error":{"code":"WorkflowNotFound"}}"#, "retry"),
            (413, "", "rejected"),
        ],
        bytes_max: 28_000,
        lengths: &[("/attachments/0/content/body/0/inlines/0/text", 200)],
        body: || {
            let line = |line: &str| json!({ "type": "RichTextBlock", "spacing": "Small", "inlines": [{ "type": "TextRun", "text": line }] });
            let title = json!({ "type": "TextRun", "text": HEADLINE, "weight": "Bolder", "size": "Medium" });
            let title = json!({ "type": "RichTextBlock", "inlines": [title] });
            let body: Vec<_> = std::iter::once(title).chain(LINES.into_iter().map(line)).collect();
            let content = json!({
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
                "fallbackText": format!("tokenwarden alert {ID}"), "msteams": { "width": "Full" }, "body": body,
            });
            let card = json!({ "contentType": "application/vnd.microsoft.card.adaptive", "content": content });
            json!({ "type": "message", "attachments": [card] })
        },
    },
    Contract {
        kind: "pagerduty",
        keys: "url = 'URL'\ntoken = 'R0123456789012345678901234567890'",
        line: "POST /v2/enqueue",
        headers: &[JSON],
        answers: &[
            (202, r#"{"status":"success","message":"Event processed","dedup_key":"x"}"#, "accepted"),
            (400, r#"{"status":"invalid event","message":"Event object is invalid"}"#, "rejected"),
            (403, "", "retry"),
            (500, "", "retry"),
        ],
        bytes_max: 512_000,
        lengths: &[("/payload/summary", 1_024), ("/dedup_key", 255)],
        body: || {
            json!({
                "routing_key": "R0123456789012345678901234567890", "event_action": "trigger", "dedup_key": ID,
                "client": "tokenwarden",
                "payload": {
                    "summary": HEADLINE, "source": "tokenwarden", "severity": "error", "timestamp": "2026-11-18T11:15:30Z",
                    "component": "crm", "class": "concurrent_use,new_country",
                    "custom_details": {
                        "details": details(), "incident": ID, "tenant": "acme", "user": "ana", "grant": "ci-deploy",
                        "token": "at-9", "revocation": "done",
                    },
                },
            })
        },
    },
    Contract {
        kind: "opsgenie",
        keys: "url = 'URL'\ntoken = 'eb243592-example'",
        line: "POST /v2/alerts",
        headers: &[JSON, ("authorization", "GenieKey eb243592-example")],
        answers: &[
            (202, r#"{"result":"Request will be processed","took":0.3,"requestId":"43a29c5c"}"#, "accepted"),
            (401, r#"{"message":"Could not authenticate"}"#, "retry"),
            (403, "", "retry"),
            (422, r#"{"message":"Request body is not processable."}"#, "rejected"),
        ],
        bytes_max: 100_000,
        lengths: &[("/message", 130), ("/alias", 512), ("/entity", 512), ("/description", 15_000)],
        body: || {
            json!({
                "message": HEADLINE, "alias": ID, "description": details(), "priority": "P2", "source": "tokenwarden",
                "entity": "ana", "tags": ["tokenwarden"],
                "details": {
                    "incident": ID, "tenant": "acme", "user": "ana", "app": "crm", "grant": "ci-deploy", "token": "at-9",
                    "rules": "concurrent_use,new_country", "revocation": "done",
                },
            })
        },
    },
    Contract {
        kind: "alertmanager",
        keys: "url = 'URL/am'\ntoken = 'proxy-token'",
        line: "POST /am/api/v2/alerts",
        headers: &[JSON, ("authorization", "Bearer proxy-token")],
        answers: &[(200, "", "accepted"), (400, "\"bad request\"", "rejected"), (500, "\"internal\"", "retry")],
        bytes_max: 100_000,
        lengths: &[("/0/annotations/summary", 300), ("/0/annotations/description", 4_000)],
        body: || {
            json!([{
                "startsAt": "2026-11-18T11:06:40Z", "endsAt": "2026-11-27T10:00:00Z",
                "labels": {
                    "alertname": "TokenwardenIncident", "incident": ID, "severity": "high", "tenant": "acme",
                    "user": "ana", "app": "crm",
                },
                "annotations": {
                    "summary": HEADLINE, "description": details(), "revocation": "done",
                    "rules": "concurrent_use,new_country",
                },
            }])
        },
    },
];
