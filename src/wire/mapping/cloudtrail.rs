//! AWS CloudTrail. Source: the AWS CloudTrail user guide, "CloudTrail record contents" and "userIdentity element".

use super::aws;
use super::table::{CHANGE, Change, Field, Mapping, REINSTATEMENT, Reinstatement, Row, Skip, Source, Test};
use Source::{Except, Joined, Name, Named, Part, Path, Text, When, Words};

use crate::event::{Concerns, Kind};

pub(crate) static MAPPING: Mapping = Mapping {
    marks: &[
        "eventTime",
        "eventType",
        "eventCategory",
        "userIdentity.type",
        "userIdentity.accessKeyId",
        "digestS3Object",
    ],
    weak_marks: &[],
    looks: &["eventName", "eventSource", "userIdentity"],
    fields: &[
        (Field::EventId, &[Path("eventID")]),
        (Field::Timestamp, &[Path("eventTime")]),
        (Field::TokenId, &[Path("userIdentity.accessKeyId"), Path("userIdentity.credentialId")]),
        (
            Field::PrincipalId,
            &[
                Named("userIdentity.principalId", ':'),
                Path(ISSUER_ID),
                Path("userIdentity.principalId"),
                Path("userIdentity.onBehalfOf.userId"),
                Path("userIdentity.arn"),
                Path("userIdentity.userName"),
            ],
        ),
        (Field::TokenType, &[Words("userIdentity.accessKeyId", aws::KEY_TYPES), When(PORTAL, &Text("session"))]),
        // A role's keys change every hour. Role and session name are stable if a person chose the name.
        (
            Field::FamilyId,
            &[
                Joined(&[Path(ISSUER), Name("userIdentity.arn", '/')], "/"),
                Joined(&[Path(ISSUER), Path("userIdentity.onBehalfOf.userId")], "/"),
                Path(ISSUER),
            ],
        ),
        (Field::Role, &[Joined(&[Path(ROLE_ACCOUNT), Path(ROLE_NAME)], "/")]),
        (Field::SessionId, &[Path("userIdentity.principalId"), Path("userIdentity.credentialId")]),
        (
            Field::UserId,
            &[
                Named("userIdentity.arn", '/'),
                // The person of a role's session (trusted identity propagation).
                Path("userIdentity.onBehalfOf.userId"),
                Path(ISSUER),
                Path("userIdentity.arn"),
                Path("userIdentity.principalId"),
                Path("userIdentity.userName"),
            ],
        ),
        // The account of the credential, not the account where it was used.
        (Field::TenantId, &[Path("userIdentity.accountId"), Path("recipientAccountId")]),
        (Field::IpAddress, &[Except("sourceIPAddress", aws::SERVICES)]),
        (Field::OwnCall, &[When(&[("sourceIPAddress", aws::SERVICES)], &Text("own"))]),
        (Field::UserAgent, &[Path("userAgent")]),
        (Field::Endpoint, &[Joined(&[Path("eventSource"), Path("eventName")], " ")]),
        (Field::Method, &[Words("readOnly", &[("true", "read"), ("false", "write")])]),
        (
            Field::Status,
            &[
                When(&[("eventSource", aws::COGNITO)], &Words("errorCode", aws::COGNITO_ERRORS)),
                Words("errorCode", aws::ERRORS),
                Words("responseElements.ConsoleLogin", aws::SIGN_IN),
                Words("responseElements.CheckMfa", aws::SIGN_IN),
                Words("responseElements.SwitchRole", &[("Failure", "403")]),
                Words("serviceEventDetails.CredentialVerification", aws::SIGN_IN),
                Words("serviceEventDetails.CredentialChallenge", aws::SIGN_IN),
                Words("serviceEventDetails.UserAuthentication", aws::SIGN_IN),
                Words("errorMessage", &[("Failed authentication", "401"), ("No username found*", "401")]),
                Text("200"),
            ],
        ),
        (Field::BytesOut, &[Path("additionalEventData.bytesTransferredOut")]),
        (Field::IssuedAt, &[Path("userIdentity.sessionContext.attributes.creationDate")]),
    ],
    changes: &[
        Change {
            kind: Kind::Issued,
            when: &[("eventSource", aws::ISSUERS), ("eventName", aws::ASSUME_ROLE)],
            fields: &[
                NEW_KEY,
                NEW_KEY_TYPE,
                PARENT,
                NO_ROLE,
                (
                    Field::FamilyId,
                    &[
                        Joined(&[Path("requestParameters.roleArn"), Name(ROLE_SESSION, '/')], "/"),
                        Path("requestParameters.roleArn"),
                    ],
                ),
                (
                    Field::SessionId,
                    &[Path("responseElements.assumedRoleUser.assumedRoleId"), Path("userIdentity.principalId")],
                ),
                (Field::UserId, &[Named(ROLE_SESSION, '/'), Path("requestParameters.roleArn"), Path(ROLE_SESSION)]),
                (Field::TenantId, &[Part(ROLE_SESSION, ':', 4), Path("userIdentity.accountId")]),
                ISSUED_NOW,
            ],
            ..CHANGE
        },
        // Keys for a certificate of a workload outside AWS; the session's name is that of the certificate by default.
        Change {
            kind: Kind::Issued,
            when: &[("eventSource", aws::ROLES_ANYWHERE), ("eventName", aws::CREATE_SESSION)],
            fields: &[
                (Field::TokenId, &[Path(ANYWHERE_KEY)]),
                (Field::TokenType, &[Words(ANYWHERE_KEY, aws::KEY_TYPES)]),
                (Field::ParentTokenId, &[]),
                NO_ROLE,
                (
                    Field::FamilyId,
                    &[
                        Joined(&[Path("requestParameters.roleArn"), Name(ANYWHERE_SESSION, '/')], "/"),
                        Path("requestParameters.roleArn"),
                    ],
                ),
                (Field::SessionId, &[Path("responseElements.credentialSet.0.assumedRoleUser.assumedRoleId")]),
                (Field::UserId, &[Named(ANYWHERE_SESSION, '/'), Path("requestParameters.roleArn")]),
                (Field::TenantId, &[Part("requestParameters.roleArn", ':', 4), Path("recipientAccountId")]),
                ISSUED_NOW,
            ],
            ..CHANGE
        },
        Change {
            kind: Kind::Issued,
            when: &[("eventSource", aws::ISSUERS), ("eventName", &["AssumeRoot"])],
            fields: &[
                NEW_KEY,
                NEW_KEY_TYPE,
                PARENT,
                NO_ROLE,
                (Field::FamilyId, &[]),
                (Field::SessionId, &[]),
                // An account's number, or its root user.
                (
                    Field::UserId,
                    &[
                        When(
                            &[("requestParameters.targetPrincipal", &["arn:*"])],
                            &Path("requestParameters.targetPrincipal"),
                        ),
                        Joined(&[Text("arn:aws:iam:"), Path("requestParameters.targetPrincipal"), Text("root")], ":"),
                    ],
                ),
                (
                    Field::TenantId,
                    &[Part("requestParameters.targetPrincipal", ':', 4), Path("requestParameters.targetPrincipal")],
                ),
                ISSUED_NOW,
            ],
            ..CHANGE
        },
        Change {
            kind: Kind::Issued,
            when: &[("eventSource", aws::ISSUERS), ("eventName", &["GetFederationToken"])],
            fields: &[
                NEW_KEY,
                NEW_KEY_TYPE,
                PARENT,
                NO_ROLE,
                // The issuer of the federated session is the caller.
                (
                    Field::FamilyId,
                    &[
                        Joined(&[Path("userIdentity.arn"), Name("responseElements.federatedUser.arn", '/')], "/"),
                        Path("userIdentity.arn"),
                    ],
                ),
                (Field::SessionId, &[Path("responseElements.federatedUser.federatedUserId")]),
                (Field::UserId, &[Named("responseElements.federatedUser.arn", '/'), Path("userIdentity.arn")]),
                ISSUED_NOW,
            ],
            ..CHANGE
        },
        // Keys of the user's own remain the user's.
        Change {
            kind: Kind::Issued,
            when: &[("eventSource", aws::ISSUERS), ("eventName", aws::OWN_SESSION)],
            fields: &[NEW_KEY, NEW_KEY_TYPE, PARENT, (Field::FamilyId, &[]), ISSUED_NOW],
            ..CHANGE
        },
        Change {
            kind: Kind::Issued,
            when: &[("eventSource", aws::IAM), ("eventName", aws::ISSUE_KEY)],
            fields: &[
                (Field::TokenId, &[Path("responseElements.accessKey.accessKeyId")]),
                (Field::TokenType, &[Text("api_key")]),
                NO_ROLE,
                (Field::FamilyId, &[]),
                (Field::SessionId, &[]),
                (Field::UserId, &[USER_OF_KEY, CALLER]),
                ISSUED_NOW,
            ],
            ..CHANGE
        },
        Change {
            kind: Kind::Issued,
            when: &[("eventSource", aws::IAM), ("eventName", aws::ISSUE_SERVICE_KEY)],
            fields: &[
                (Field::TokenId, &[Path("responseElements.serviceSpecificCredential.serviceSpecificCredentialId")]),
                (Field::TokenType, &[Text("api_key")]),
                NO_ROLE,
                (Field::FamilyId, &[]),
                (Field::SessionId, &[]),
                (Field::UserId, &[USER_OF_SERVICE_KEY, CALLER]),
                ISSUED_NOW,
            ],
            ..CHANGE
        },
        Change {
            kind: Kind::Issued,
            when: &[("eventSource", aws::IAM), ("eventName", aws::ISSUE_PUBLIC_KEY)],
            fields: &[
                (
                    Field::TokenId,
                    &[
                        Path("responseElements.sSHPublicKey.sSHPublicKeyId"),
                        Path("responseElements.certificate.certificateId"),
                    ],
                ),
                (Field::TokenType, &[Text("api_key")]),
                NO_ROLE,
                (Field::FamilyId, &[]),
                (Field::SessionId, &[]),
                (Field::UserId, &[USER_OF_REQUEST, CALLER]),
                ISSUED_NOW,
            ],
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("eventSource", aws::IAM), ("eventName", aws::DELETE_KEY)],
            fields: ENDED_KEY,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[
                ("eventSource", aws::IAM),
                ("eventName", aws::UPDATE_KEY),
                ("requestParameters.status", aws::INACTIVE),
            ],
            fields: ENDED_KEY,
            ..CHANGE
        },
        Change {
            kind: Kind::CredentialChanged,
            when: &[("eventSource", aws::IAM), ("eventName", aws::CHANGE_CREDENTIAL)],
            fields: OF_IAM_USER,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("eventSource", aws::IAM), ("eventName", aws::DELETE_USER)],
            fields: OF_IAM_USER,
            concerns: Concerns::User,
            ..CHANGE
        },
        Change {
            kind: Kind::CredentialChanged,
            when: &[("eventSource", aws::SIGN_IN_PAGE), ("eventName", aws::CHANGE_ROOT_CREDENTIAL)],
            fields: OF_IAM_USER,
            ..CHANGE
        },
        // The policy denies everything to sessions older than it: AWS's own way to revoke a role's sessions.
        Change {
            kind: Kind::Revoked,
            when: &[
                ("eventSource", aws::IAM),
                ("eventName", &["PutRolePolicy"]),
                ("requestParameters.policyName", aws::REVOKING_POLICY),
            ],
            fields: OF_ROLE,
            concerns: Concerns::Role,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("eventSource", aws::IAM), ("eventName", &["DeleteRole"])],
            fields: OF_ROLE,
            concerns: Concerns::Role,
            ..CHANGE
        },
        Change {
            kind: Kind::CredentialChanged,
            when: &[("eventSource", aws::DIRECTORY), ("eventName", aws::CHANGE_DIRECTORY_CREDENTIAL)],
            fields: OF_DIRECTORY_USER,
            ..CHANGE
        },
        Change {
            kind: Kind::Revoked,
            when: &[("eventSource", aws::DIRECTORY), ("eventName", aws::DELETE_DIRECTORY_USER)],
            fields: OF_DIRECTORY_USER,
            concerns: Concerns::User,
            ..CHANGE
        },
        Change {
            kind: Kind::SessionEnded,
            when: &[("eventSource", &["sso.amazonaws.com", "signin.amazonaws.com"]), ("eventName", aws::LOGOUT)],
            ..CHANGE
        },
    ],
    reinstatements: &[
        Reinstatement {
            when: &[
                ("eventSource", aws::IAM),
                ("eventName", aws::UPDATE_KEY),
                ("requestParameters.status", aws::ACTIVE),
            ],
            token: KEY_OF_REQUEST,
            ..REINSTATEMENT
        },
        Reinstatement {
            when: &[
                ("eventSource", aws::IAM),
                ("eventName", &["DeleteRolePolicy"]),
                ("requestParameters.policyName", aws::REVOKING_POLICY),
            ],
            role: &[ROLE_OF_REQUEST],
            ..REINSTATEMENT
        },
        Reinstatement {
            when: &[("eventSource", aws::DIRECTORY), ("eventName", &["EnableUser"])],
            user: &[Path("requestParameters.userId")],
            ..REINSTATEMENT
        },
    ],
    skips: &[
        Skip {
            when: &[("userIdentity.type", &["AWSService"])],
            unless: &[("eventSource", aws::ROLES_ANYWHERE)],
            reason: "an AWS service's own call",
            unless_change: false,
        },
        Skip {
            when: &[("digestS3Object", &["*"])],
            unless: &[],
            reason: "a digest file of CloudTrail",
            unless_change: false,
        },
        Skip {
            when: &[("eventSource", &["aws:s3"])],
            unless: &[],
            reason: "a notification of Amazon S3",
            unless_change: false,
        },
        Skip {
            when: &[("eventCategory", &["Insight"])],
            unless: &[],
            reason: "an insight of CloudTrail",
            unless_change: false,
        },
    ],
    excluded: &["requestParameters", "responseElements"],
    embedded: &["requestParameters", "responseElements"],
    absent: &["HIDDEN_DUE_TO_SECURITY_REASONS"],
    volatile: &[],
};

const ISSUER: &str = "userIdentity.sessionContext.sessionIssuer.arn";
const ISSUER_ID: &str = "userIdentity.sessionContext.sessionIssuer.principalId";
const ROLE_SESSION: &str = "responseElements.assumedRoleUser.arn";
const ROLE_ACCOUNT: &str = "userIdentity.sessionContext.sessionIssuer.accountId";
const ROLE_NAME: &str = "userIdentity.sessionContext.sessionIssuer.userName";
/// Names of roles are unique in their account; paths do not matter.
const ROLE_OF_REQUEST: Source = Joined(&[Path("userIdentity.accountId"), Path("requestParameters.roleName")], "/");
const NO_ROLE: Row = (Field::Role, &[]);

// Members of the answer by the API reference of IAM Roles Anywhere, "CreateSession": one set of keys.
const ANYWHERE_KEY: &str = "responseElements.credentialSet.0.credentials.accessKeyId";
const ANYWHERE_SESSION: &str = "responseElements.credentialSet.0.assumedRoleUser.arn";

/// A user of IAM Identity Center, with the session of the access portal as credential.
const PORTAL: &[Test] = &[("userIdentity.credentialId", &["*"])];

const NEW_KEY: Row = (Field::TokenId, &[Path("responseElements.credentials.accessKeyId")]);
const NEW_KEY_TYPE: Row = (Field::TokenType, &[Words("responseElements.credentials.accessKeyId", aws::KEY_TYPES)]);
const PARENT: Row = (Field::ParentTokenId, &[Path("userIdentity.accessKeyId"), Path("userIdentity.credentialId")]);
const ISSUED_NOW: Row = (Field::IssuedAt, &[Path("eventTime")]);
const CALLER: Source = Path("userIdentity.arn");

// ARNs of the caller's account's IAM users, made of their names: right for users without a path, as nearly all are.
const USER_OF_KEY: Source = Joined(&[ACCOUNT, USER_PATH, Path("responseElements.accessKey.userName")], "");
const USER_OF_SERVICE_KEY: Source =
    Joined(&[ACCOUNT, USER_PATH, Path("responseElements.serviceSpecificCredential.userName")], "");
const USER_OF_REQUEST: Source = Joined(&[ACCOUNT, USER_PATH, Path("requestParameters.userName")], "");
const USER_PATH: Source = Text(":user/");
/// `arn:aws:iam::111122223333`
const ACCOUNT: Source = Joined(
    &[Text("arn"), Part("userIdentity.arn", ':', 1), Text("iam"), Text(""), Part("userIdentity.arn", ':', 4)],
    ":",
);

const KEY_OF_REQUEST: &[Source] = &[
    Path("requestParameters.accessKeyId"),
    Path("requestParameters.serviceSpecificCredentialId"),
    Path("requestParameters.sSHPublicKeyId"),
    Path("requestParameters.certificateId"),
];

const ENDED_KEY: &[Row] = &[
    (Field::TokenId, KEY_OF_REQUEST),
    (Field::TokenType, &[Text("api_key")]),
    NO_ROLE,
    (Field::FamilyId, &[]),
    (Field::SessionId, &[]),
    (Field::UserId, &[USER_OF_REQUEST, CALLER]),
    (Field::IssuedAt, &[]),
];

/// The role is the token's id.
const OF_ROLE: &[Row] = &[
    (Field::TokenId, &[Joined(&[ACCOUNT, Text(":role/"), Path("requestParameters.roleName")], "")]),
    (Field::TokenType, &[Text("session")]),
    (Field::Role, &[ROLE_OF_REQUEST]),
    (Field::FamilyId, &[]),
    (Field::SessionId, &[]),
    (Field::UserId, &[]),
    (Field::IssuedAt, &[]),
];

/// The user whose credential changed; the caller may be an administrator. The user is the token's id.
const OF_IAM_USER: &[Row] = &[
    (Field::TokenId, &[USER_OF_REQUEST, CALLER]),
    (Field::TokenType, &[]),
    NO_ROLE,
    (Field::FamilyId, &[]),
    (Field::SessionId, &[]),
    (Field::UserId, &[USER_OF_REQUEST, CALLER]),
    (Field::IssuedAt, &[]),
];

const OF_DIRECTORY_USER: &[Row] = &[
    (Field::TokenId, &[Path("requestParameters.userId")]),
    (Field::TokenType, &[]),
    NO_ROLE,
    (Field::FamilyId, &[]),
    (Field::SessionId, &[]),
    (Field::UserId, &[Path("requestParameters.userId")]),
    (Field::IssuedAt, &[]),
];
