//! AWS CloudTrail. Source: the AWS CloudTrail user guide, "CloudTrail record contents" and "userIdentity element".

use super::{Change, Field, Mapping, Skip, Source};
use Source::{Except, Joined, Path, Tail, Words};

use crate::event::Kind;

pub static MAPPING: Mapping = Mapping {
    fields: &[
        (Field::EventId, &[Path("eventID")]),
        (Field::Timestamp, &[Path("eventTime")]),
        (Field::TokenId, &[Path("userIdentity.accessKeyId")]),
        (Field::PrincipalId, &[Path("userIdentity.principalId"), Path("userIdentity.arn")]),
        (Field::TokenType, &[Words("userIdentity.accessKeyId", KEY_TYPES)]),
        (
            Field::FamilyId,
            // An assumed role's keys change by the hour; role and session name stay.
            &[Joined(&[Path("userIdentity.sessionContext.sessionIssuer.arn"), Tail("userIdentity.arn", '/')], "/")],
        ),
        (Field::SessionId, &[Path("userIdentity.principalId")]),
        (Field::UserId, &[Path("userIdentity.arn")]),
        (Field::TenantId, &[Path("recipientAccountId"), Path("userIdentity.accountId")]),
        // A service's name, or `AWS Internal`, is no address: the call is the provider's own, and has no place.
        (Field::IpAddress, &[Except("sourceIPAddress", SERVICES)]),
        (Field::UserAgent, &[Path("userAgent")]),
        (Field::Endpoint, &[Joined(&[Path("eventSource"), Path("eventName")], " ")]),
        (Field::Method, &[Words("readOnly", &[("true", "read"), ("false", "write")])]),
        (
            Field::Status,
            &[
                Words("errorCode", ERRORS),
                Words("responseElements.ConsoleLogin", &[("Failure", "401")]),
                Source::Text("200"),
            ],
        ),
        (Field::BytesOut, &[Path("additionalEventData.bytesTransferredOut")]),
        (Field::IssuedAt, &[Path("userIdentity.sessionContext.attributes.creationDate")]),
    ],
    changes: &[Change {
        kind: Kind::Issued,
        when: &[
            ("eventSource", &["sts.amazonaws.com"]),
            ("eventName", &["AssumeRole*", "GetSessionToken", "GetFederationToken"]),
        ],
        fields: &[
            (Field::TokenId, &[Path("responseElements.credentials.accessKeyId")]),
            (Field::ParentTokenId, &[Path("userIdentity.accessKeyId")]),
            (Field::TokenType, &[Words("responseElements.credentials.accessKeyId", KEY_TYPES)]),
            // As the new key's own uses will name them. Keys from GetSessionToken remain the user's.
            (
                Field::FamilyId,
                &[Joined(&[Path("requestParameters.roleArn"), Tail("responseElements.assumedRoleUser.arn", '/')], "/")],
            ),
            (
                Field::SessionId,
                &[Path("responseElements.assumedRoleUser.assumedRoleId"), Path("userIdentity.principalId")],
            ),
            (
                Field::UserId,
                &[
                    Path("responseElements.assumedRoleUser.arn"),
                    Path("responseElements.federatedUser.arn"),
                    Path("userIdentity.arn"),
                ],
            ),
            (Field::IssuedAt, &[Path("eventTime")]),
        ],
    }],
    skips: &[Skip {
        path: "userIdentity.type",
        word: "AWSService",
        reason: "an AWS service's own call",
        unless_change: false,
    }],
    excluded: &["requestParameters", "responseElements"],
    absent: &[],
    batch: Some("Records"),
};

/// What stands for an address in a call of the provider's own.
const SERVICES: &[&str] = &["*.amazonaws.com", "*.amazonaws.com.cn", "*.aws.internal", "AWS Internal*"];

const KEY_TYPES: &[(&str, &str)] = &[("ASIA*", "session"), ("AKIA*", "api_key")];

/// Status of the answer by its error code. Codes that do not tell are the caller's mistakes, by far the most.
const ERRORS: &[(&str, &str)] = &[
    ("*AccessDenied*", "403"),
    ("*Unauthorized*", "403"),
    ("*Forbidden*", "403"),
    ("*NotAuthorized*", "403"),
    ("*ExpiredToken*", "401"),
    ("*InvalidClientTokenId*", "401"),
    ("*InvalidAccessKeyId*", "401"),
    ("*UnrecognizedClient*", "401"),
    ("*SignatureDoesNotMatch*", "401"),
    ("*AuthFailure*", "401"),
    ("*Throttl*", "429"),
    ("*TooManyRequests*", "429"),
    ("*RequestLimitExceeded*", "429"),
    ("*SlowDown*", "503"),
    ("*ServiceUnavailable*", "503"),
    ("*Internal*", "500"),
    ("*NotFound*", "404"),
    ("*NoSuch*", "404"),
    ("*", "400"),
];
