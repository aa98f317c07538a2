//! GitHub audit log. Source: GitHub documentation, "Audit log events for your enterprise" and "Identifying audit log
//! events performed by an access token".

use super::table::{CHANGE, Change, Field, Mapping, REINSTATEMENT, Reinstatement, Row, Source, Test};
use Source::{Except, Path, Text, Unless, When, Words};

use crate::event::{Concerns, Kind};

pub(crate) static MAPPING: Mapping = Mapping {
    marks: &["action", "_document_id"],
    weak_marks: &[],
    looks: &["action", "actor", "@timestamp"],
    fields: &[
        (Field::EventId, &[Path("_document_id")]),
        (Field::Timestamp, &[Path("@timestamp"), Path("created_at")]),
        // The SHA-256 of the token used for the call.
        (Field::TokenId, &[Path("hashed_token")]),
        (Field::TokenAlias, NUMBER),
        (Field::PrincipalId, &[Path("actor_id"), Path("actor")]),
        (Field::TokenType, &[Words("programmatic_access_type", ACCESS_TYPES)]),
        // The bot of a GitHub App is not a user: its tokens last one hour, and the application continues.
        (Field::UserId, &[Unless(BY_BOT, &Path("actor_id")), Unless(BY_BOT, &Path("actor"))]),
        (Field::AppId, APP_OR_BOT),
        // A token belongs to its enterprise, and may be used in several organizations.
        (Field::TenantId, &[Path("business_id")]),
        (Field::Realm, &[Path("org_id")]),
        (Field::IpAddress, &[Path("actor_ip")]),
        (Field::UserAgent, &[Path("user_agent")]),
        // For API requests the action is only `api.request`.
        (Field::Endpoint, &[Path("url_path"), When(&[("action", &["api.request"])], &Path("route")), Path("action")]),
        (Field::Method, &[Path("request_method")]),
        (
            Field::Status,
            &[
                Path("status_code"),
                Words("action", &[("user.failed_login", "401"), ("*_challenge_failure", "401")]),
                // Every logged action succeeded, except that the log does not give the outcome of API requests.
                Unless(&[("action", &["api.request"])], &When(&[("action", &["*"])], &Text("200"))),
            ],
        ),
        (Field::Scopes, &[Path("token_scopes")]),
        (Field::GeoCountry, &[Path("actor_location.country_code")]),
    ],
    changes: &[
        Change {
            kind: Kind::Issued,
            when: &[("action", ISSUE)],
            fields: &[
                (
                    Field::TokenId,
                    &[
                        Except("token_id", NO_NUMBER),
                        Except("user_programmatic_access_id", NO_NUMBER),
                        Path("hashed_token"),
                    ],
                ),
                TYPE,
                OWNER,
                NO_REALM,
            ],
            ..CHANGE
        },
        // The old secret of this number ends; a new secret gets the number.
        Change { kind: Kind::Issued, when: &[("action", REGENERATE)], fields: NUMBERED, renewed: true, ..CHANGE },
        Change { kind: Kind::Revoked, when: &[("action", RENEW)], fields: NUMBERED, renewed: true, ..CHANGE },
        Change { kind: Kind::Revoked, when: &[("action", REVOKE)], fields: NUMBERED, ..CHANGE },
        // The token loses access to one organization and stays valid in others.
        Change { kind: Kind::Revoked, when: &[("action", REVOKE_IN_ORG)], fields: NUMBERED_IN_ORG, ..CHANGE },
        Change {
            kind: Kind::Revoked,
            when: &[("action", REVOKE_OF_APP)],
            fields: &[(Field::TokenId, APP), (Field::TokenType, &[Text("access")]), (Field::UserId, &[]), NO_REALM],
            concerns: Concerns::App,
            ..CHANGE
        },
        Change {
            kind: Kind::SessionEnded,
            when: &[("action", END_SESSIONS)],
            fields: OF_OWNER,
            concerns: Concerns::User,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("action", END_USER)],
            fields: OF_OWNER,
            concerns: Concerns::User,
            ..CHANGE
        },
        Change { kind: Kind::CredentialChanged, when: &[("action", CHANGE_CREDENTIAL)], fields: OF_OWNER, ..CHANGE },
    ],
    reinstatements: &[Reinstatement {
        when: &[("action", REINSTATE_USER)],
        user: &[Path("user_id"), Path("user")],
        ..REINSTATEMENT
    }],
    skips: &[],
    excluded: &["request_body"],
    embedded: &[],
    absent: &[],
    volatile: &[],
};

/// The number of a token in its life-cycle events. Tokens of GitHub Apps have the number 0, which identifies none.
const NUMBER: &[Source] = &[Except("token_id", NO_NUMBER), Except("user_programmatic_access_id", NO_NUMBER)];
pub(crate) const NO_NUMBER: &[&str] = &["0"];

const APP: &[Source] =
    &[Path("oauth_application_id"), Path("application_client_id"), Path("integration_id"), Path("application_id")];
const APP_OR_BOT: &[Source] = &[
    Path("oauth_application_id"),
    Path("application_client_id"),
    Path("integration_id"),
    Path("application_id"),
    When(&[IS_BOT], &Path("actor_id")),
    When(&[NAMED_BOT], &Path("actor_id")),
    When(&[NAMED_BOT], &Path("actor")),
    When(&[OF_INSTALLATION], &Path("actor_id")),
];

/// The actor is an application. A user account that a team created for a machine is a user.
const BY_BOT: &[Test] = &[IS_BOT, NAMED_BOT, OF_INSTALLATION];
const IS_BOT: Test = ("actor_is_bot", &["true"]);
const NAMED_BOT: Test = ("actor", BOT_NAMES);
const OF_INSTALLATION: Test = ("programmatic_access_type", INSTALLATION);
/// Names of applications' bots.
pub(crate) const BOT_NAMES: &[&str] = &["*[bot]"];
/// The type of an application's own tokens, which act for an installation and not for a user.
pub(crate) const INSTALLATION: &[&str] = &["*server-to-server*"];

const TYPE: Row =
    (Field::TokenType, &[Words("action", &[("oauth_*", "access"), ("personal_access_token.*", "personal")])]);
/// The owner of the token; the actor may be an owner of the organization.
const OWNER: Row = (Field::UserId, &[Path("user_id"), Path("actor_id"), Path("actor")]);
const NO_REALM: Row = (Field::Realm, &[]);

/// `hashed_token` is no source here: it is the token of the call, not the changed one.
const NUMBERED: &[Row] = &[(Field::TokenId, NUMBER), TYPE, OWNER, NO_REALM];
const NUMBERED_IN_ORG: &[Row] = &[(Field::TokenId, NUMBER), TYPE, OWNER];

/// The user is the token's id.
const OF_OWNER: &[Row] = &[
    (Field::TokenId, &[Path("user_id"), Path("user"), Path("actor_id"), Path("actor")]),
    (Field::TokenType, &[]),
    (Field::UserId, &[Path("user_id"), Path("user"), Path("actor_id"), Path("actor")]),
    NO_REALM,
];

pub(crate) const ISSUE: &[&str] = &[
    "oauth_access.create",
    "personal_access_token.create",
    "personal_access_token.access_granted",
    "org_credential_authorization.grant",
];
pub(crate) const REGENERATE: &[&str] = &["oauth_access.regenerate"];
pub(crate) const RENEW: &[&str] = &["personal_access_token.credential_regenerated"];
pub(crate) const REVOKE: &[&str] = &[
    "oauth_access.destroy",
    "oauth_access.revoke",
    "oauth_authorization.destroy",
    "personal_access_token.destroy",
    "personal_access_token.credential_revoked",
    "personal_access_token.credential_expired",
    "personal_access_token.expired",
    "oauth_application.revoke_tokens",
    "integration.revoke_tokens",
];
pub(crate) const REVOKE_IN_ORG: &[&str] = &[
    "personal_access_token.access_revoked",
    "org_credential_authorization.revoke",
    "org_credential_authorization.deauthorize",
];
pub(crate) const REVOKE_OF_APP: &[&str] = &["integration.revoke_all_tokens", "oauth_application.revoke_all_tokens"];
pub(crate) const END_SESSIONS: &[&str] = &["*.revoke_sso_session"];
pub(crate) const END_USER: &[&str] = &["user.suspend", "user.delete"];
pub(crate) const REINSTATE_USER: &[&str] = &["user.unsuspend"];
pub(crate) const CHANGE_CREDENTIAL: &[&str] = &[
    "user.change_password",
    "user.password_reset",
    "user.reset_password",
    "two_factor_authentication.*",
    "security_key.*",
    "passkey.*",
    "*.revoke_external_identity",
    "account_recovery_token.recover",
];

pub(crate) const ACCESS_TYPES: &[(&str, &str)] = &[
    ("*ersonal access token*", "personal"),
    ("*OAuth*", "access"),
    ("*GitHub App*", "access"),
    ("*key*", "api_key"),
    ("*Key*", "api_key"),
];
