//! GitHub audit log. Source: GitHub documentation, "Audit log events for your enterprise" and "Identifying audit log
//! events performed by an access token".

use super::{Change, Field, Mapping, Row, Source};
use Source::{Path, Words};

use crate::event::Kind;

pub static MAPPING: Mapping = Mapping {
    fields: &[
        (Field::EventId, &[Path("_document_id")]),
        (Field::Timestamp, &[Path("@timestamp"), Path("created_at")]),
        // The SHA-256 of the token that the call was made with.
        (Field::TokenId, &[Path("hashed_token")]),
        (Field::PrincipalId, &[Path("actor_id"), Path("actor")]),
        (Field::TokenType, &[Words("programmatic_access_type", ACCESS_TYPES)]),
        (Field::UserId, &[Path("actor_id"), Path("actor")]),
        (Field::AppId, &[Path("oauth_application_id"), Path("application_client_id")]),
        (Field::TenantId, &[Path("org_id"), Path("business_id")]),
        (Field::IpAddress, &[Path("actor_ip")]),
        (Field::UserAgent, &[Path("user_agent")]),
        // Of API requests the action says no more than that they are some.
        (Field::Endpoint, &[Path("url_path"), Path("action")]),
        (Field::Method, &[Path("request_method")]),
        (Field::Status, &[Path("status_code")]),
        (Field::Scopes, &[Path("token_scopes")]),
        (Field::GeoCountry, &[Path("actor_location.country_code")]),
    ],
    changes: &[
        Change {
            kind: Kind::Issued,
            when: &[(
                "action",
                &[
                    "oauth_access.create",
                    "oauth_access.regenerate",
                    "personal_access_token.create",
                    "personal_access_token.access_granted",
                ],
            )],
            fields: &[
                (Field::TokenId, &[Path("token_id"), Path("user_programmatic_access_id"), Path("hashed_token")]),
                TYPE,
            ],
        },
        // `hashed_token` is no source here: it is the token that asked, not the one that was taken away.
        Change {
            kind: Kind::Revoked,
            when: &[(
                "action",
                &[
                    "oauth_access.destroy",
                    "oauth_access.revoke",
                    "personal_access_token.destroy",
                    "personal_access_token.access_revoked",
                ],
            )],
            fields: &[(Field::TokenId, &[Path("token_id"), Path("user_programmatic_access_id")]), TYPE],
        },
    ],
    skips: &[],
    excluded: &["request_body"],
    absent: &[],
    batch: None,
};

const TYPE: Row =
    (Field::TokenType, &[Words("action", &[("oauth_access.*", "access"), ("personal_access_token.*", "personal")])]);

const ACCESS_TYPES: &[(&str, &str)] =
    &[("*ersonal access token*", "personal"), ("*OAuth*", "access"), ("*GitHub App*", "access"), ("*key*", "api_key")];
