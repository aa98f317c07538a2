//! OCSF: the classes of identity and access management (3001 to 3006), Web Resources Activity (6001) and API Activity
//! (6003). Source: schema.ocsf.io, 1.1 and later; ocsf/examples, the mappings of CloudTrail and Okta.

use super::machines::{MACHINES, NAMES_OF_MACHINES};
use super::table::{
    CHANGE, Change, Each, Field, Mapping, REINSTATEMENT, Reinstatement, Row, Skip, Source, Test, UNCLEAR,
};
use super::{aws, okta};
use Source::{Except, Head, Joined, Name, Named, Path, Text, Typed, Unless, When, Words};

use crate::event::{Concerns, Kind};

pub(crate) static MAPPING: Mapping = Mapping {
    marks: &["class_uid", "type_uid", "category_uid"],
    weak_marks: &[],
    looks: &["class_uid", "metadata"],
    fields: &[
        (Field::EventId, &[Path("metadata.uid"), Path("metadata.original_event_uid")]),
        // OCSF specifies milliseconds.
        (Field::Timestamp, &[Path("time"), Path("time_dt")]),
        (Field::TokenId, TOKEN),
        (
            Field::PrincipalId,
            &[
                When(ROLE_ID, &Named("actor.user.uid", ':')),
                When(ROLE_ID, &Head("actor.user.uid", ':')),
                USER_ID,
                USER_ALT,
                SUBJECT_ID,
                Path("actor.user.email_addr"),
                Path("user.email_addr"),
                USER_NAME,
                SUBJECT_NAME,
            ],
        ),
        (
            Field::TokenType,
            &[
                Words("api.token.type_id", TOKEN_TYPES),
                Words("actor.user.credential_uid", aws::KEY_TYPES),
                Words("actor.session.credential_uid", aws::KEY_TYPES),
                Words(FIRST_CREDENTIAL, aws::KEY_TYPES),
                Unless(HAS_CREDENTIAL, &When(&[("actor.session.uid", &["*"])], &Text("session"))),
                Unless(HAS_CREDENTIAL, &When(&[("session.uid", &["*"])], &Text("session"))),
            ],
        ),
        // As for an assumed role in CloudTrail: the issuer, and the session's name if a person chose it.
        (
            Field::FamilyId,
            &[
                Joined(&[Path(ISSUER), Name("actor.user.uid", '/')], "/"),
                Joined(&[Path(ISSUER), Name("actor.user.uid", ':')], "/"),
                Path(ISSUER),
                When(ASSUMED_ROLE, &Joined(&[Head("actor.user.uid", '/'), Name("actor.user.uid", '/')], "/")),
                When(ASSUMED_ROLE, &Head("actor.user.uid", '/')),
                When(ROLE_ID, &Joined(&[Head("actor.user.uid", ':'), Name("actor.user.uid", ':')], "/")),
                When(ROLE_ID, &Head("actor.user.uid", ':')),
                Path("unmapped.authenticationContext.rootSessionId"),
            ],
        ),
        (Field::SessionId, &[Except("actor.session.uid", LOGON_IDS), Except("session.uid", LOGON_IDS)]),
        (
            Field::UserId,
            &[
                When(ASSUMED_ROLE, &Named("actor.user.uid", '/')),
                When(ASSUMED_ROLE, &Path(ISSUER)),
                When(ASSUMED_ROLE, &Head("actor.user.uid", '/')),
                When(ROLE_ID, &Named("actor.user.uid", ':')),
                When(ROLE_ID, &Path(ISSUER)),
                When(ROLE_ID, &Head("actor.user.uid", ':')),
                USER_ID,
                USER_ALT,
                SUBJECT_ID,
                Path("actor.user.email_addr"),
                Path("user.email_addr"),
                USER_NAME,
                SUBJECT_NAME,
            ],
        ),
        (Field::AppId, &[Path("actor.app_uid")]),
        (Field::TenantId, &[Path("metadata.tenant_uid"), Path("actor.user.account.uid"), Path("cloud.account.uid")]),
        (Field::IpAddress, &[Except("src_endpoint.ip", aws::SERVICES)]),
        (
            Field::OwnCall,
            &[
                When(&[("src_endpoint.ip", aws::SERVICES)], &Text("own")),
                Unless(&[("src_endpoint.ip", &["*"])], &When(&[("src_endpoint.domain", aws::SERVICES)], &Text("own"))),
            ],
        ),
        (Field::UserAgent, &[Path("http_request.user_agent")]),
        (
            Field::ClientFingerprint,
            &[Path("tls.ja4_fingerprint_list.0.value"), Path("unmapped.debugContext.debugData.dtHash")],
        ),
        (Field::Endpoint, &[Path("api.operation"), Path("http_request.url.path"), Path("activity_name")]),
        (Field::Method, &[Path("http_request.http_method")]),
        (
            Field::Status,
            &[
                Path("http_response.code"),
                Words("api.response.error", aws::ERRORS),
                Words("api.response.code", &[("401", "401"), ("403", "403"), ("404", "404"), ("429", "429")]),
                When(&[AUTHENTICATION], &Words("status_id", &[("2", "401")])),
                When(&[AUTHENTICATION], &Words("status", &[("Failure", "401")])),
                When(&[("metadata.event_code", okta::SIGN_INS)], &Words("status_id", &[("2", "401")])),
                Words("status_id", &[("1", "200"), ("2", "403")]),
                Words("status", &[("Success", "200"), ("Failure", "403")]),
                Words("status_id", &[("*", UNCLEAR)]),
                Words("status", &[("*", UNCLEAR)]),
            ],
        ),
        (Field::BytesOut, &[Path("http_response.length")]),
        (Field::IssuedAt, &[Path("actor.session.created_time"), Path("actor.session.created_time_dt")]),
        (Field::ExpiresAt, &[Path("actor.session.expiration_time"), Path("actor.session.expiration_time_dt")]),
        (Field::GeoCountry, &[Path("src_endpoint.location.country")]),
        (Field::GeoLatitude, &[Path("src_endpoint.location.lat")]),
        (Field::GeoLongitude, &[Path("src_endpoint.location.long")]),
        (Field::Asn, &[Path("src_endpoint.autonomous_system.number")]),
        (Field::AsOrg, &[Path("src_endpoint.autonomous_system.name")]),
    ],
    changes: &[
        Change {
            kind: Kind::Refreshed,
            when: &[("metadata.event_code", okta::DETECT_REUSE)],
            fields: &[
                (Field::TokenId, &[Path("api.token.uid"), Path("unmapped.target.0.id"), SUBJECT_ID, USER_ID]),
                (Field::TokenType, &[Text("refresh")]),
                (Field::FamilyId, &[]),
                (Field::SessionId, &[]),
                SUBJECT_USER,
            ],
            reuse: true,
            failed_too: true,
            ..CHANGE
        },
        Change { kind: Kind::SessionEnded, when: &[("metadata.event_code", okta::END_SESSION)], ..CHANGE },
        Change {
            kind: Kind::SessionEnded,
            when: &[("metadata.event_code", okta::END_SESSIONS)],
            fields: OF_SUBJECT,
            concerns: Concerns::User,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("metadata.event_code", okta::END_USER)],
            fields: OF_SUBJECT,
            concerns: Concerns::User,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("metadata.event_code", okta::REVOKE_OF_USER)],
            fields: &[
                (Field::TokenId, &[okta_target("User"), SUBJECT_ID]),
                (Field::TokenType, &[Text("refresh")]),
                (Field::FamilyId, &[]),
                (Field::SessionId, &[]),
                (Field::UserId, &[okta_target("User"), SUBJECT_ID]),
            ],
            concerns: Concerns::User,
            ..CHANGE
        },
        Change {
            kind: Kind::Issued,
            when: &[("metadata.event_code", okta::ISSUE)],
            each: Some(OKTA_TOKENS),
            fields: OF_OKTA_TOKEN,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("metadata.event_code", okta::REVOKE)],
            each: Some(OKTA_TOKENS),
            fields: OF_OKTA_TOKEN,
            ..CHANGE
        },
        // Keys by their calls, as CloudTrail's bodies name them.
        Change {
            kind: Kind::Issued,
            when: &[("api.operation", aws::ASSUME_ROLE)],
            fields: &[
                (Field::TokenId, &[NEW_KEY, NEW_KEY_UNMAPPED]),
                (
                    Field::TokenType,
                    &[Words(NEW_KEY_PATH, aws::KEY_TYPES), Words(NEW_KEY_UNMAPPED_PATH, aws::KEY_TYPES)],
                ),
                PARENT,
                (
                    Field::FamilyId,
                    &[
                        Joined(&[Path(ROLE), Name(ROLE_SESSION, '/')], "/"),
                        Path(ROLE),
                        Joined(&[Path(ROLE_UNMAPPED), Name(ROLE_SESSION_UNMAPPED, '/')], "/"),
                        Path(ROLE_UNMAPPED),
                    ],
                ),
                (Field::SessionId, &[]),
                (
                    Field::UserId,
                    &[Named(ROLE_SESSION, '/'), Path(ROLE), Named(ROLE_SESSION_UNMAPPED, '/'), Path(ROLE_UNMAPPED)],
                ),
                ISSUED_NOW,
            ],
            ..CHANGE
        },
        Change {
            kind: Kind::Issued,
            when: &[("api.operation", &["AssumeRoot", "GetFederationToken", "GetSessionToken"])],
            fields: &[
                (Field::TokenId, &[NEW_KEY, NEW_KEY_UNMAPPED]),
                (
                    Field::TokenType,
                    &[Words(NEW_KEY_PATH, aws::KEY_TYPES), Words(NEW_KEY_UNMAPPED_PATH, aws::KEY_TYPES)],
                ),
                PARENT,
                (Field::FamilyId, &[]),
                (Field::SessionId, &[]),
                ISSUED_NOW,
            ],
            ..CHANGE
        },
        Change {
            kind: Kind::Issued,
            when: &[("api.operation", aws::ISSUE_KEY)],
            fields: &[
                (
                    Field::TokenId,
                    &[
                        Path("api.response.data.accessKey.accessKeyId"),
                        Path("unmapped.responseElements.accessKey.accessKeyId"),
                    ],
                ),
                (Field::TokenType, &[Text("api_key")]),
                (Field::FamilyId, &[]),
                (Field::SessionId, &[]),
                SUBJECT_USER,
                ISSUED_NOW,
            ],
            ..CHANGE
        },
        Change { kind: Kind::Revoked, when: &[("api.operation", aws::DELETE_KEY)], fields: ENDED_KEY, ..CHANGE },
        Change {
            kind: Kind::Revoked,
            when: &[("api.operation", aws::UPDATE_KEY), ("api.request.data.status", aws::INACTIVE)],
            fields: ENDED_KEY,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("api.operation", aws::UPDATE_KEY), ("unmapped.requestParameters.status", aws::INACTIVE)],
            fields: ENDED_KEY,
            ..CHANGE
        },
        Change { kind: Kind::Issued, when: &[AUTHENTICATION, ("activity_id", &["1"])], fields: SUBJECT, ..CHANGE },
        Change {
            kind: Kind::SessionEnded,
            when: &[AUTHENTICATION, ("activity_id", &["2"])],
            fields: SUBJECT,
            ..CHANGE
        },
        // Password Change, Password Reset, MFA Factor Enable and MFA Factor Disable.
        Change {
            kind: Kind::CredentialChanged,
            when: &[ACCOUNT_CHANGE, ("activity_id", &["3", "4", "10", "11"])],
            unless: BY_AWS,
            fields: OF_SUBJECT,
            ..CHANGE
        },
        // Disable and Delete.
        Change {
            kind: Kind::Revoked,
            when: &[ACCOUNT_CHANGE, ("activity_id", &["5", "6"])],
            unless: BY_AWS,
            fields: OF_SUBJECT,
            concerns: Concerns::User,
            ..CHANGE
        },
        Change {
            kind: Kind::CredentialChanged,
            when: &[("metadata.event_code", okta::CHANGE_CREDENTIAL)],
            fields: OF_SUBJECT,
            ..CHANGE
        },
    ],
    reinstatements: &[
        Reinstatement {
            when: &[("api.operation", aws::UPDATE_KEY), ("api.request.data.status", aws::ACTIVE)],
            token: KEY_OF_REQUEST,
            ..REINSTATEMENT
        },
        Reinstatement {
            when: &[("api.operation", aws::UPDATE_KEY), ("unmapped.requestParameters.status", aws::ACTIVE)],
            token: KEY_OF_REQUEST,
            ..REINSTATEMENT
        },
        Reinstatement {
            when: &[("metadata.event_code", okta::REINSTATE_USER)],
            user: &[okta_target("User"), SUBJECT_ID],
            ..REINSTATEMENT
        },
        // Enable.
        Reinstatement {
            when: &[ACCOUNT_CHANGE, ("activity_id", &["2"])],
            user: &[Unless(BY_AWS, &SUBJECT_ID)],
            ..REINSTATEMENT
        },
    ],
    skips: &[Skip {
        when: &[("class_uid", &["*"])],
        unless: &[("class_uid", CLASSES)],
        reason: "an OCSF class that holds no token",
        unless_change: false,
    }],
    excluded: &[
        "api.request.data",
        "api.response",
        "http_request.body",
        "http_request.http_headers",
        "http_response.body",
        "http_response.http_headers",
        "raw_data",
        "unmapped.requestParameters",
        "unmapped.responseElements",
    ],
    embedded: &["api.request.data", "api.response.data", "unmapped.requestParameters", "unmapped.responseElements"],
    absent: &["-"],
    volatile: &[
        "metadata.logged_time",
        "metadata.logged_time_dt",
        "metadata.processed_time",
        "metadata.processed_time_dt",
    ],
};

const CLASSES: &[&str] = &["3001", "3002", "3003", "3004", "3005", "3006", "6001", "6003"];
const AUTHENTICATION: Test = ("class_uid", &["3002"]);
const ACCOUNT_CHANGE: Test = ("class_uid", &["3001"]);

/// Numbers of Windows' logon sessions, which are unique on their host only.
const LOGON_IDS: &[&str] = &["0x*", "0X*"];

const ISSUER: &str = "actor.session.issuer";
const FIRST_CREDENTIAL: &str = "actor.user.programmatic_credentials.0.uid";
/// The user is a session of a role, by its ARN or by the role's id.
const ASSUMED_ROLE: &[Test] = &[("actor.user.uid", &["arn:aws*:assumed-role/*"])];
const ROLE_ID: &[Test] = &[("actor.user.uid", &["AROA*:*"])];
/// The mapping of CloudTrail names the caller as the user that an account change is about.
const BY_AWS: &[Test] = &[("metadata.product.vendor_name", &["AWS"]), ("cloud.provider", &["AWS"])];

const TOKEN: &[Source] = &[
    Path("api.token.uid"),
    Path("actor.user.credential_uid"),
    Path("actor.session.credential_uid"),
    Path(FIRST_CREDENTIAL),
    Except("actor.session.uid", LOGON_IDS),
    Except("session.uid", LOGON_IDS),
];
/// The token is another credential than the session.
const HAS_CREDENTIAL: &[Test] = &[
    ("api.token.uid", &["*"]),
    ("actor.user.credential_uid", &["*"]),
    ("actor.session.credential_uid", &["*"]),
    (FIRST_CREDENTIAL, &["*"]),
];

const USER_ID: Source = Except("actor.user.uid", MACHINES);
const USER_ALT: Source = Except("actor.user.uid_alt", MACHINES);
const SUBJECT_ID: Source = Except("user.uid", MACHINES);
/// The last source, because names change.
const USER_NAME: Source = Except("actor.user.name", NAMES_OF_MACHINES);
const SUBJECT_NAME: Source = Except("user.name", NAMES_OF_MACHINES);
const SUBJECT_USER: Row = (Field::UserId, &[SUBJECT_ID, USER_ID, USER_ALT]);

/// Authentication names the affected user and session, and the actor if another user requested it.
const SUBJECT: &[Row] = &[
    (
        Field::TokenId,
        &[
            Path("api.token.uid"),
            Path("user.credential_uid"),
            Path("session.credential_uid"),
            Except("session.uid", LOGON_IDS),
            Except("actor.session.uid", LOGON_IDS),
        ],
    ),
    (Field::SessionId, &[Except("session.uid", LOGON_IDS), Except("actor.session.uid", LOGON_IDS)]),
    SUBJECT_USER,
    (Field::IssuedAt, &[Path("session.created_time"), Path("session.created_time_dt")]),
    (Field::ExpiresAt, &[Path("session.expiration_time"), Path("session.expiration_time_dt")]),
];

/// The user stands in for the token.
const OF_SUBJECT: &[Row] = &[
    (Field::TokenId, &[SUBJECT_ID, USER_ID, USER_ALT]),
    (Field::TokenType, &[]),
    (Field::FamilyId, &[]),
    (Field::SessionId, &[]),
    SUBJECT_USER,
    (Field::IssuedAt, &[]),
    (Field::ExpiresAt, &[]),
];

/// The targets of an event in the mapping of Okta.
const OKTA_TARGETS: &str = "unmapped.target";
const fn okta_target(kind: &'static str) -> Source {
    Typed { array: OKTA_TARGETS, kind, member: "id" }
}
const OKTA_TOKENS: Each = Each { array: OKTA_TARGETS, kinds: okta::TOKEN_KINDS };
const OF_OKTA_TOKEN: &[Row] = &[
    (Field::TokenId, &[]),
    (Field::TokenType, &[]),
    (Field::FamilyId, &[]),
    (Field::SessionId, &[]),
    (Field::UserId, &[okta_target("User"), SUBJECT_ID, USER_ID]),
];

const NEW_KEY_PATH: &str = "api.response.data.credentials.accessKeyId";
const NEW_KEY_UNMAPPED_PATH: &str = "unmapped.responseElements.credentials.accessKeyId";
const NEW_KEY: Source = Path(NEW_KEY_PATH);
const NEW_KEY_UNMAPPED: Source = Path(NEW_KEY_UNMAPPED_PATH);
const ROLE: &str = "api.request.data.roleArn";
const ROLE_UNMAPPED: &str = "unmapped.requestParameters.roleArn";
const ROLE_SESSION: &str = "api.response.data.assumedRoleUser.arn";
const ROLE_SESSION_UNMAPPED: &str = "unmapped.responseElements.assumedRoleUser.arn";
const PARENT: Row = (Field::ParentTokenId, &[Path("actor.user.credential_uid"), Path("actor.session.credential_uid")]);
const ISSUED_NOW: Row = (Field::IssuedAt, &[Path("time"), Path("time_dt")]);

const KEY_OF_REQUEST: &[Source] = &[
    Path("api.request.data.accessKeyId"),
    Path("unmapped.requestParameters.accessKeyId"),
    Path("api.request.data.serviceSpecificCredentialId"),
];
const ENDED_KEY: &[Row] = &[
    (Field::TokenId, KEY_OF_REQUEST),
    (Field::TokenType, &[Text("api_key")]),
    (Field::FamilyId, &[]),
    (Field::SessionId, &[]),
    SUBJECT_USER,
    (Field::IssuedAt, &[]),
];

/// `api.token.type_id`.
const TOKEN_TYPES: &[(&str, &str)] = &[("7", "api_key"), ("6", "access"), ("4", "refresh"), ("*", "other")];
