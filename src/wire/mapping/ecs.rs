//! Elastic Common Schema, nested or with dots in its names, plain or as Elastic's integrations of Okta, GitHub and AWS
//! write it. Source: the ECS field reference, 8.x; elastic/integrations, the fields and the expected documents of the
//! pipeline tests in `packages/okta`, `packages/github` and `packages/aws`.
//!
//! The file is longer than 500 lines because it is one table: its rows are read with the sources and conditions below.

use super::machines::{MACHINES, NAMES_OF_MACHINES};
use super::table::{
    CHANGE, Change, Each, Field, Mapping, REINSTATEMENT, Reinstatement, Row, Skip, Source, Test, UNCLEAR,
};
use super::{aws, github, okta};
use Source::{Except, Joined, Name, Named, Part, Path, Text, Typed, Unless, When, Words};

use crate::event::{Concerns, Kind};

pub(crate) static MAPPING: Mapping = Mapping {
    marks: &["event.id", "event.category", "event.action", "event.kind", "event.dataset", "labels.token_id"],
    weak_marks: &["@timestamp"],
    looks: &["@timestamp", "event.action"],
    fields: &[
        (Field::EventId, &[Path("event.id")]),
        (Field::Timestamp, &[Path("@timestamp")]),
        (
            Field::TokenId,
            &[Path("labels.token_id"), Path(OKTA_TOKEN), Path(OKTA_SESSION), Path(GITHUB_HASH), Path(AWS_KEY)],
        ),
        (Field::TokenAlias, GITHUB_NUMBER),
        // Processes, flows and files also have users, but concern no token.
        (
            Field::PrincipalId,
            &[
                When(OF_HOLDERS, &When(ROLE_ID, &Named("user.id", ':'))),
                When(OF_HOLDERS, &When(ROLE_ID, &Part("user.id", ':', 0))),
                When(OF_HOLDERS, &USER_ID),
                When(OF_HOLDERS, &Except("client.user.id", MACHINES)),
                When(OF_HOLDERS, &Except("source.user.id", MACHINES)),
                When(OF_HOLDERS, &Path("user.email")),
                When(OF_HOLDERS, &Except("user.name", NAMES_OF_MACHINES)),
            ],
        ),
        (
            Field::TokenType,
            &[
                When(&[("labels.token_id", &["*"])], &Text("other")),
                Words(OKTA_TOKEN, okta::API_TOKEN_TYPES),
                Words(OKTA_SESSION, &[("*", "session")]),
                Words("github.programmatic_access_type", github::ACCESS_TYPES),
                Words(AWS_KEY, aws::KEY_TYPES),
            ],
        ),
        (
            Field::FamilyId,
            &[
                Unless(&[(OKTA_TOKEN, &["*"])], &Path("okta.authentication_context.root_session_id")),
                Joined(&[Path(AWS_ISSUER), Name(AWS_ARN, '/')], "/"),
                Path(AWS_ISSUER),
            ],
        ),
        (Field::SessionId, &[Path(OKTA_SESSION)]),
        (
            Field::UserId,
            &[
                When(ROLE_ID, &Named("user.id", ':')),
                When(ROLE_ID, &Part("user.id", ':', 0)),
                Unless(NO_USER, &USER_ID),
                Unless(NO_USER, &Except("client.user.id", MACHINES)),
                Unless(NO_USER, &Except("source.user.id", MACHINES)),
                Unless(NO_USER, &Path("user.email")),
                Unless(NO_USER, &Except("user.name", NAMES_OF_MACHINES)),
            ],
        ),
        (
            Field::AppId,
            &[
                Path("okta.client.id"),
                When(BY_OKTA_APP, &Path("okta.actor.id")),
                Path("github.oauth_application_id"),
                When(&[GITHUB_BOT], &USER_ID),
                When(&[GITHUB_INSTALLATION], &USER_ID),
            ],
        ),
        (Field::TenantId, &[Path("organization.id"), Path("cloud.account.id")]),
        (Field::Realm, &[Path("github.org_id")]),
        (Field::IpAddress, &[Path("source.ip"), Path("client.ip")]),
        (
            Field::OwnCall,
            &[Unless(&[("source.ip", &["*"])], &When(&[("source.address", aws::SERVICES)], &Text("own")))],
        ),
        (Field::UserAgent, &[Path("user_agent.original")]),
        (
            Field::ClientFingerprint,
            &[Path("tls.client.ja4"), Path("tls.client.ja3"), Path("okta.debug_context.debug_data.dt_hash")],
        ),
        (
            Field::Endpoint,
            &[
                Joined(&[When(BY_AWS, &Path("event.provider")), Path("event.action")], " "),
                When(&[("event.action", &["api.request"])], &Path("github.route")),
                Path("event.action"),
                Path("url.path"),
            ],
        ),
        (Field::Method, &[Path("http.request.method"), Path("github.request_method")]),
        (
            Field::Status,
            &[
                Path("http.response.status_code"),
                Path("github.status_code"),
                Words("aws.cloudtrail.error_code", aws::ERRORS),
                When(&[("okta.event_type", okta::SIGN_INS)], &Words("event.outcome", NOT_ACCEPTED)),
                When(&[("okta.event_type", &["*"])], &Words("event.outcome", FORBIDDEN)),
                When(&[("event.category", &["authentication"])], &Words("event.outcome", NOT_ACCEPTED)),
                Words("event.outcome", FORBIDDEN),
                // As in GitHub's own log.
                When(
                    &[("event.dataset", &["github.audit"])],
                    &Unless(&[("event.action", &["api.request"])], &Text("200")),
                ),
                Words("event.outcome", &[("*", UNCLEAR)]),
            ],
        ),
        (Field::BytesOut, &[Path("http.response.bytes"), Path("http.response.body.bytes")]),
        (Field::Scopes, &[Path("github.token_scopes")]),
        (Field::IssuedAt, &[Path("aws.cloudtrail.user_identity.session_context.creation_date")]),
        (Field::GeoCountry, &[Path("source.geo.country_iso_code"), Path("client.geo.country_iso_code")]),
        (Field::GeoLatitude, &[Path("source.geo.location.lat"), Path("client.geo.location.lat")]),
        (Field::GeoLongitude, &[Path("source.geo.location.lon"), Path("client.geo.location.lon")]),
        (Field::Asn, &[Path("source.as.number"), Path("client.as.number")]),
        (Field::AsOrg, &[Path("source.as.organization.name"), Path("client.as.organization.name")]),
    ],
    changes: &[
        Change {
            kind: Kind::Refreshed,
            when: &[("okta.event_type", okta::DETECT_REUSE)],
            fields: &[
                (Field::TokenId, &[okta_target("refresh_token"), okta_target("User"), USER_ID]),
                (Field::TokenType, &[Text("refresh")]),
                NO_FAMILY,
                NO_SESSION,
                (Field::UserId, &[okta_target("User"), USER_ID]),
            ],
            reuse: true,
            failed_too: true,
            ..CHANGE
        },
        Change { kind: Kind::SessionEnded, when: &[("okta.event_type", okta::END_SESSION)], ..CHANGE },
        Change {
            kind: Kind::SessionEnded,
            when: &[("okta.event_type", okta::END_SESSIONS)],
            fields: OF_OKTA_USER,
            concerns: Concerns::User,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("okta.event_type", okta::END_USER)],
            fields: OF_OKTA_USER,
            concerns: Concerns::User,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("okta.event_type", okta::REVOKE_OF_USER)],
            fields: &[
                (Field::TokenId, &[okta_target("User")]),
                (Field::TokenType, &[Text("refresh")]),
                NO_FAMILY,
                NO_SESSION,
                (Field::UserId, &[okta_target("User")]),
            ],
            concerns: Concerns::User,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("okta.event_type", okta::REVOKE_OF_APP)],
            fields: &[
                (Field::TokenId, OKTA_APP),
                (Field::TokenType, &[Text("refresh")]),
                NO_FAMILY,
                NO_SESSION,
                (Field::UserId, &[]),
                (Field::AppId, OKTA_APP),
            ],
            concerns: Concerns::App,
            ..CHANGE
        },
        Change {
            kind: Kind::Issued,
            when: &[("okta.event_type", okta::ISSUE)],
            each: Some(OKTA_TOKENS),
            fields: OF_OKTA_TOKEN,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("okta.event_type", okta::REVOKE)],
            each: Some(OKTA_TOKENS),
            fields: OF_OKTA_TOKEN,
            ..CHANGE
        },
        Change {
            kind: Kind::CredentialChanged,
            when: &[("okta.event_type", okta::CHANGE_CREDENTIAL)],
            fields: OF_OKTA_USER,
            ..CHANGE
        },
        Change { kind: Kind::Issued, when: &[("event.action", github::ISSUE)], fields: GITHUB_NUMBERED, ..CHANGE },
        Change {
            kind: Kind::Issued,
            when: &[("event.action", github::REGENERATE)],
            fields: GITHUB_NUMBERED,
            renewed: true,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("event.action", github::RENEW)],
            fields: GITHUB_NUMBERED,
            renewed: true,
            ..CHANGE
        },
        Change { kind: Kind::Revoked, when: &[("event.action", github::REVOKE)], fields: GITHUB_NUMBERED, ..CHANGE },
        Change {
            kind: Kind::Revoked,
            when: &[("event.action", github::REVOKE_IN_ORG)],
            fields: &[(Field::TokenId, GITHUB_NUMBER), GITHUB_OWNER],
            ..CHANGE
        },
        Change {
            kind: Kind::SessionEnded,
            when: &[("event.action", github::END_SESSIONS)],
            fields: OF_GITHUB_USER,
            concerns: Concerns::User,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("event.action", github::END_USER)],
            fields: OF_GITHUB_USER,
            concerns: Concerns::User,
            ..CHANGE
        },
        Change {
            kind: Kind::CredentialChanged,
            when: &[("event.action", github::CHANGE_CREDENTIAL)],
            fields: OF_TARGET,
            ..CHANGE
        },
        Change {
            kind: Kind::Issued,
            when: &[("event.provider", aws::ISSUERS), ("event.action", aws::ASSUME_ROLE)],
            fields: &[
                NEW_KEY,
                NEW_KEY_TYPE,
                AWS_PARENT,
                (Field::FamilyId, &[Joined(&[Path(ROLE), Name(ROLE_SESSION, '/')], "/"), Path(ROLE)]),
                NO_SESSION,
                (Field::UserId, &[Named(ROLE_SESSION, '/'), Path(ROLE), Path(ROLE_SESSION)]),
                (Field::TenantId, &[Part(ROLE_SESSION, ':', 4), Path("cloud.account.id")]),
                ISSUED_NOW,
            ],
            ..CHANGE
        },
        Change {
            kind: Kind::Issued,
            when: &[
                ("event.provider", aws::ISSUERS),
                ("event.action", &["AssumeRoot", "GetFederationToken", "GetSessionToken"]),
            ],
            fields: &[NEW_KEY, NEW_KEY_TYPE, AWS_PARENT, NO_FAMILY, NO_SESSION, ISSUED_NOW],
            ..CHANGE
        },
        Change {
            kind: Kind::Issued,
            when: &[("event.provider", aws::IAM), ("event.action", aws::ISSUE_KEY)],
            fields: &[
                (Field::TokenId, &[Path("aws.cloudtrail.flattened.response_elements.accessKey.accessKeyId")]),
                (Field::TokenType, &[Text("api_key")]),
                NO_FAMILY,
                NO_SESSION,
                ISSUED_NOW,
            ],
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("event.provider", aws::IAM), ("event.action", aws::DELETE_KEY)],
            fields: ENDED_KEY,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[
                ("event.provider", aws::IAM),
                ("event.action", aws::UPDATE_KEY),
                ("aws.cloudtrail.flattened.request_parameters.status", aws::INACTIVE),
            ],
            fields: ENDED_KEY,
            ..CHANGE
        },
        Change {
            kind: Kind::CredentialChanged,
            when: &[("event.provider", aws::IAM), ("event.action", aws::CHANGE_CREDENTIAL)],
            fields: OF_TARGET,
            ..CHANGE
        },
        // A `start` or an `end` concerns a token only with a session, because processes and flows have them too.
        // Elastic's integrations name the kind of their events.
        Change {
            kind: Kind::Issued,
            when: &[SESSIONS, ("event.type", &["start", "creation"])],
            unless: BY_INTEGRATION,
            ..CHANGE
        },
        Change {
            kind: Kind::SessionEnded,
            when: &[SESSIONS, ("event.type", &["end"])],
            unless: BY_INTEGRATION,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[SESSIONS, ("event.type", &["deletion"])],
            unless: BY_INTEGRATION,
            ..CHANGE
        },
        Change {
            kind: Kind::CredentialChanged,
            when: &[
                ("event.category", &["iam"]),
                ("event.action", &["*password*", "*mfa*", "*factor*"]),
                ("event.type", &["change"]),
            ],
            unless: BY_INTEGRATION,
            fields: OF_TARGET,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("event.category", &["iam"]), ("event.type", &["user"]), ("event.type", &["deletion"])],
            unless: BY_INTEGRATION,
            fields: &[
                (Field::TokenId, &[Path("user.target.id")]),
                (Field::TokenType, &[]),
                NO_FAMILY,
                NO_SESSION,
                (Field::UserId, &[Path("user.target.id")]),
            ],
            concerns: Concerns::User,
            ..CHANGE
        },
    ],
    reinstatements: &[
        Reinstatement {
            when: &[("okta.event_type", okta::REINSTATE_USER)],
            user: &[okta_target("User"), USER_ID],
            ..REINSTATEMENT
        },
        Reinstatement {
            when: &[("event.action", github::REINSTATE_USER)],
            user: &[Path("github.user_id"), Path("user.target.id"), Path("user.target.name")],
            ..REINSTATEMENT
        },
        Reinstatement {
            when: &[
                ("event.provider", aws::IAM),
                ("event.action", aws::UPDATE_KEY),
                ("aws.cloudtrail.flattened.request_parameters.status", aws::ACTIVE),
            ],
            token: &[Path("aws.cloudtrail.flattened.request_parameters.accessKeyId")],
            ..REINSTATEMENT
        },
    ],
    skips: &[
        Skip {
            when: &[("aws.cloudtrail.user_identity.type", &["AWSService"])],
            unless: &[],
            reason: "an AWS service's own call",
            unless_change: false,
        },
        Skip {
            when: &[("okta.actor.type", &["SystemPrincipal"])],
            unless: &[],
            reason: "the system's own doing",
            unless_change: true,
        },
    ],
    excluded: &[
        "aws.cloudtrail.request_parameters",
        "aws.cloudtrail.response_elements",
        "aws.cloudtrail.flattened.request_parameters",
        "aws.cloudtrail.flattened.response_elements",
        "event.original",
        "github.request_body",
        "http.request.body.content",
        "http.request.headers",
        "http.response.body.content",
        "http.response.headers",
    ],
    embedded: &["aws.cloudtrail.flattened.request_parameters", "aws.cloudtrail.flattened.response_elements"],
    absent: &["-", "unknown"],
    volatile: &[
        "@version",
        "agent",
        "data_stream",
        "ecs",
        "elastic_agent",
        "event.agent_id_status",
        "event.created",
        "event.ingested",
        "event.sequence",
        "host",
        "input",
        "log",
        "tags",
    ],
};

const OKTA_TOKEN: &str = "okta.transaction.detail.request_api_token_id";
const OKTA_SESSION: &str = "okta.authentication_context.external_session_id";
const GITHUB_HASH: &str = "github.hashed_token";
const AWS_KEY: &str = "aws.cloudtrail.user_identity.access_key_id";
const AWS_ARN: &str = "aws.cloudtrail.user_identity.arn";
const AWS_ISSUER: &str = "aws.cloudtrail.user_identity.session_context.session_issuer.arn";
const ROLE: &str = "aws.cloudtrail.flattened.request_parameters.roleArn";
const ROLE_SESSION: &str = "aws.cloudtrail.flattened.response_elements.assumedRoleUser.arn";

const BY_AWS: &[Test] = &[("aws.cloudtrail.user_identity.type", &["*"])];
/// The user is a session of a role.
const ROLE_ID: &[Test] = &[("user.id", &["AROA*:*"])];
/// Fields that only Elastic's integrations write.
const BY_INTEGRATION: &[Test] = &[
    ("okta.event_type", &["*"]),
    ("github.org_id", &["*"]),
    ("github.actor_id", &["*"]),
    ("aws.cloudtrail.user_identity.type", &["*"]),
];

/// The actor is an application, or absent.
const NO_USER: &[Test] =
    &[("okta.actor.type", okta::APPS), ("okta.actor.type", okta::NOBODY), GITHUB_BOT, GITHUB_INSTALLATION];
const BY_OKTA_APP: &[Test] = &[("okta.actor.type", okta::APPS)];
const GITHUB_BOT: Test = ("user.name", github::BOT_NAMES);
const GITHUB_INSTALLATION: Test = ("github.programmatic_access_type", github::INSTALLATION);

/// Categories in which a user is the token's id.
const OF_HOLDERS: &[Test] = &[("event.category", &["authentication", "session", "iam", "web", "api", "configuration"])];
const SESSIONS: Test = ("event.category", &["authentication", "session"]);

const USER_ID: Source = Except("user.id", MACHINES);

const GITHUB_NUMBER: &[Source] =
    &[Except("github.token_id", github::NO_NUMBER), Except("github.user_programmatic_access_id", github::NO_NUMBER)];
const GITHUB_OWNER: Row = (Field::UserId, &[Path("github.user_id"), USER_ID, Path("github.actor_id")]);
const GITHUB_NUMBERED: &[Row] = &[(Field::TokenId, GITHUB_NUMBER), GITHUB_OWNER, (Field::Realm, &[])];

const OF_GITHUB_USER: &[Row] = &[
    (Field::TokenId, &[Path("github.user_id"), Path("user.target.id"), Path("user.target.name")]),
    (Field::TokenType, &[]),
    (Field::UserId, &[Path("github.user_id"), Path("user.target.id"), Path("user.target.name")]),
    (Field::Realm, &[]),
];

const NO_FAMILY: Row = (Field::FamilyId, &[]);
const NO_SESSION: Row = (Field::SessionId, &[]);
const ISSUED_NOW: Row = (Field::IssuedAt, &[Path("@timestamp")]);

const NEW_KEY: Row = (Field::TokenId, &[Path("aws.cloudtrail.flattened.response_elements.credentials.accessKeyId")]);
const NEW_KEY_TYPE: Row =
    (Field::TokenType, &[Words("aws.cloudtrail.flattened.response_elements.credentials.accessKeyId", aws::KEY_TYPES)]);
const AWS_PARENT: Row = (Field::ParentTokenId, &[Path(AWS_KEY)]);
const ENDED_KEY: &[Row] = &[
    (
        Field::TokenId,
        &[
            Path("aws.cloudtrail.flattened.request_parameters.accessKeyId"),
            Path("aws.cloudtrail.flattened.request_parameters.serviceSpecificCredentialId"),
        ],
    ),
    (Field::TokenType, &[Text("api_key")]),
    NO_FAMILY,
    NO_SESSION,
];

/// The user that an administrator's call affected is the token's id.
const OF_TARGET: &[Row] = &[
    (Field::TokenId, &[Path("user.target.id"), Path("user.target.name"), USER_ID]),
    (Field::TokenType, &[]),
    NO_FAMILY,
    NO_SESSION,
    (Field::UserId, &[Path("user.target.id"), Path("user.target.name"), USER_ID]),
];

const fn okta_target(kind: &'static str) -> Source {
    Typed { array: "okta.target", kind, member: "id" }
}
const OKTA_TOKENS: Each = Each { array: "okta.target", kinds: okta::TOKEN_KINDS };
const OKTA_APP: &[Source] = &[
    okta_target("PublicClientApp"),
    okta_target("AppInstance"),
    okta_target("Application"),
    Path("okta.client.id"),
    Except("okta.actor.id", &["00u*"]),
];
const OF_OKTA_TOKEN: &[Row] = &[
    (Field::TokenId, &[]),
    (Field::TokenType, &[]),
    NO_FAMILY,
    NO_SESSION,
    (Field::UserId, &[okta_target("User"), USER_ID, Path("client.user.id")]),
];
const OF_OKTA_USER: &[Row] = &[
    (Field::TokenId, &[okta_target("User"), USER_ID, Path("client.user.id")]),
    (Field::TokenType, &[]),
    NO_FAMILY,
    NO_SESSION,
    (Field::UserId, &[okta_target("User"), USER_ID, Path("client.user.id")]),
];

const NOT_ACCEPTED: &[(&str, &str)] = &[("success", "200"), ("failure", "401")];
const FORBIDDEN: &[(&str, &str)] = &[("success", "200"), ("failure", "403")];
