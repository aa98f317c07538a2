//! Okta System Log. Source: the Okta developer reference, "System Log API" and "Event types".

use super::table::{
    CHANGE, Change, Each, Field, Mapping, REINSTATEMENT, Reinstatement, Row, Skip, Source, Test, UNCLEAR,
};
use Source::{Except, Path, Text, Typed, Unless, When, Words};

use crate::event::{Concerns, Kind, TokenType};

pub(crate) static MAPPING: Mapping = Mapping {
    marks: &["uuid", "published"],
    weak_marks: &[],
    looks: &["eventType", "published", "actor"],
    fields: &[
        (Field::EventId, &[Path("uuid")]),
        (Field::Timestamp, &[Path("published")]),
        // The session of a call with an API token lasts for that call only.
        (Field::TokenId, &[Path(API_TOKEN), Path("authenticationContext.externalSessionId")]),
        (Field::PrincipalId, &[Unless(NO_HOLDER, &Path("actor.id"))]),
        (
            Field::TokenType,
            &[Words(API_TOKEN, API_TOKEN_TYPES), Words("authenticationContext.externalSessionId", &[("*", "session")])],
        ),
        (Field::FamilyId, &[Unless(BY_API_TOKEN, &Path("authenticationContext.rootSessionId"))]),
        (Field::SessionId, &[Path("authenticationContext.externalSessionId")]),
        // An application, an address or Okta itself is no user.
        (Field::UserId, &[Unless(NO_USER, &Path("actor.id"))]),
        (Field::AppId, &[Path("client.id"), When(BY_APP, &Path("actor.id"))]),
        (Field::IpAddress, &[Path("client.ipAddress")]),
        (Field::UserAgent, &[Path("client.userAgent.rawUserAgent")]),
        // The hash of the cookie by which Okta recognises a browser.
        (Field::ClientFingerprint, &[Path("debugContext.debugData.dtHash")]),
        (Field::Endpoint, &[Path("eventType")]),
        (
            Field::Status,
            &[
                When(&[("eventType", SIGN_INS)], &Words("outcome.result", SIGN_IN_OUTCOMES)),
                Words("outcome.result", OUTCOMES),
            ],
        ),
        (Field::GeoCountry, &[Path("client.geographicalContext.country")]),
        (Field::GeoLatitude, &[Path("client.geographicalContext.geolocation.lat")]),
        (Field::GeoLongitude, &[Path("client.geographicalContext.geolocation.lon")]),
        (Field::Asn, &[Path("securityContext.asNumber")]),
        (Field::AsOrg, &[Path("securityContext.asOrg")]),
    ],
    changes: &[
        Change {
            kind: Kind::Refreshed,
            when: &[("eventType", DETECT_REUSE)],
            fields: &[
                // Without a token among the targets, the user is the id, so that the verdict is not lost.
                (Field::TokenId, &[target("refresh_token"), target("User"), Path("actor.id")]),
                (Field::TokenType, &[Text("refresh")]),
                (Field::FamilyId, &[]),
                (Field::SessionId, &[]),
                USER,
            ],
            reuse: true,
            failed_too: true,
            ..CHANGE
        },
        Change { kind: Kind::SessionEnded, when: &[("eventType", END_SESSION)], ..CHANGE },
        Change {
            kind: Kind::SessionEnded,
            when: &[("eventType", END_SESSIONS)],
            fields: OF_USER,
            concerns: Concerns::User,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("eventType", END_USER)],
            fields: OF_USER,
            concerns: Concerns::User,
            ..CHANGE
        },
        // Before the changes of named tokens: these name none.
        Change {
            kind: Kind::Revoked,
            when: &[("eventType", REVOKE_OF_USER)],
            fields: &[
                (Field::TokenId, &[target("User")]),
                (Field::TokenType, &[Text("refresh")]),
                FAMILY,
                SESSION,
                USER,
            ],
            concerns: Concerns::User,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("eventType", REVOKE_OF_APP)],
            fields: &[
                (Field::TokenId, APP_TARGET),
                (Field::TokenType, &[Text("refresh")]),
                FAMILY,
                SESSION,
                (Field::UserId, &[]),
                (Field::AppId, APP_TARGET),
            ],
            concerns: Concerns::App,
            ..CHANGE
        },
        Change { kind: Kind::Issued, when: &[("eventType", ISSUE)], each: Some(TOKENS), fields: OF_TOKEN, ..CHANGE },
        Change { kind: Kind::Revoked, when: &[("eventType", REVOKE)], each: Some(TOKENS), fields: OF_TOKEN, ..CHANGE },
        Change { kind: Kind::CredentialChanged, when: &[("eventType", CHANGE_CREDENTIAL)], fields: OF_USER, ..CHANGE },
    ],
    reinstatements: &[Reinstatement {
        when: &[("eventType", REINSTATE_USER)],
        user: &[target("User"), Path("actor.id")],
        ..REINSTATEMENT
    }],
    skips: &[Skip {
        when: &[("actor.type", &["SystemPrincipal"])],
        unless: &[],
        reason: "the system's own doing",
        unless_change: true,
    }],
    excluded: &[],
    embedded: &[],
    absent: &["unknown"],
    volatile: &[],
};

const API_TOKEN: &str = "transaction.detail.requestApiTokenId";
const BY_API_TOKEN: &[Test] = &[(API_TOKEN, &["*"])];
/// Ids of OAuth access tokens begin with `AT.`.
pub(crate) const API_TOKEN_TYPES: &[(&str, &str)] = &[("AT.*", "access"), ("*", "api_key")];

const BY_APP: &[Test] = &[("actor.type", APPS)];
const NO_USER: &[Test] = &[("actor.type", APPS), ("actor.type", NOBODY)];
const NO_HOLDER: &[Test] = &[("actor.type", NOBODY)];
/// Types of actors that are applications: `PublicClientApp`, `ServiceApp`.
pub(crate) const APPS: &[&str] = &["*App", "*Application", "*Client", "*AppInstance", "*Service*"];
/// Types of actors without a token.
pub(crate) const NOBODY: &[&str] = &["SystemPrincipal", "IP*", "*Address*", "*Agent", "Device*", "Unknown", "unknown"];

/// Fields of a token's events: the token among the targets, and its user.
const OF_TOKEN: &[Row] = &[(Field::TokenId, &[]), (Field::TokenType, &[]), FAMILY, SESSION, USER];
const FAMILY: Row = (Field::FamilyId, &[]);
const SESSION: Row = (Field::SessionId, &[]);
const USER: Row = (Field::UserId, &[target("User"), Unless(NO_USER, &Path("actor.id"))]);

/// The user whose sessions or credential are affected; the actor may be an administrator. The user is the token's id.
const OF_USER: &[Row] = &[
    (Field::TokenId, &[target("User"), Path("actor.id")]),
    (Field::TokenType, &[]),
    FAMILY,
    SESSION,
    (Field::UserId, &[target("User"), Path("actor.id")]),
];

/// Types of the targets that are tokens, in each format that carries an Okta event.
pub(crate) const TOKEN_KINDS: &[(&str, TokenType)] = &[
    ("access_token", TokenType::Access),
    ("refresh_token", TokenType::Refresh),
    ("device_secret", TokenType::Other),
    ("Token", TokenType::ApiKey),
    ("API Token", TokenType::ApiKey),
    ("ApiToken", TokenType::ApiKey),
];

const TOKENS: Each = Each { array: "target", kinds: TOKEN_KINDS };

const fn target(kind: &'static str) -> Source {
    Typed { array: "target", kind, member: "id" }
}

const APP_TARGET: &[Source] = &[
    target("PublicClientApp"),
    target("AppInstance"),
    target("Application"),
    Path("client.id"),
    Except("actor.id", &["00u*"]),
];

// Names of events, which other formats contain too.

pub(crate) const DETECT_REUSE: &[&str] = &["app.oauth2.*token.detect_reuse"];
pub(crate) const END_SESSION: &[&str] = &["user.session.end", "user.session.expire", "user.session.impersonation.end"];
pub(crate) const END_SESSIONS: &[&str] =
    &["user.session.clear", "user.lifecycle.suspend", "user.authentication.universal_logout"];
/// Events that end all tokens of the user.
pub(crate) const END_USER: &[&str] = &["user.lifecycle.deactivate", "user.lifecycle.delete.*"];
pub(crate) const REINSTATE_USER: &[&str] =
    &["user.lifecycle.activate", "user.lifecycle.reactivate", "user.lifecycle.unsuspend"];
pub(crate) const REVOKE_OF_USER: &[&str] = &[
    "app.oauth2.*token.revoke.implicit.user",
    "app.oauth2.*consent.revoke.user",
    "app.oauth2.*consent.revoke.implicit.user",
];
pub(crate) const REVOKE_OF_APP: &[&str] = &[
    "app.oauth2.*token.revoke.implicit.client",
    "app.oauth2.*consent.revoke.implicit.client",
    "app.oauth2.client.lifecycle.deactivate",
    "app.oauth2.client.lifecycle.delete",
];
pub(crate) const ISSUE: &[&str] = &[
    "app.oauth2.*token.grant*",
    "app.oauth2.*authorize.implicit.access_token",
    "system.api_token.create",
    "system.api_token.enable",
];
pub(crate) const REVOKE: &[&str] =
    &["app.oauth2.*token.revoke*", "system.api_token.revoke", "system.api_token.disable"];
pub(crate) const CHANGE_CREDENTIAL: &[&str] = &[
    "user.account.update_password",
    "user.account.reset_password",
    "user.account.expire_password",
    "user.import.password",
    "user.mfa.factor.*",
];

/// Sign-in events. A failure means that the credential was rejected.
pub(crate) const SIGN_INS: &[&str] = &[
    "user.session.start",
    "user.authentication.*",
    "user.mfa.okta_verify*",
    "user.mfa.attempt_bypass",
    "user.account.lock*",
    "user.account.use_token",
    "app.oauth2.*token.grant*",
    "app.oauth2.*token.detect_reuse",
    "app.oauth2.*authorize*",
    "app.oauth2.signon",
    "app.oauth2.*interact*",
    "app.oauth2.invalid_client_credentials",
    "app.generic.unauth_app_access_attempt",
    "app.kerberos_rich_client.*",
    "policy.evaluate_sign_on",
    "security.authenticator*",
    "security.request.blocked",
];
/// A challenge has no answer yet.
const SIGN_IN_OUTCOMES: &[(&str, &str)] =
    &[("FAILURE", "401"), ("DENY", "401"), ("CHALLENGE", "401"), ("ABANDONED", "401"), ("UNANSWERED", "401")];
/// For any other call, a failure means that an accepted credential was denied access.
const OUTCOMES: &[(&str, &str)] = &[
    ("SUCCESS", "200"),
    ("ALLOW", "200"),
    ("CHALLENGE", "401"),
    ("DENY", "403"),
    ("FAILURE", "403"),
    ("RATE_LIMIT", "429"),
    ("*", UNCLEAR),
];
