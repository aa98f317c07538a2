//! Okta System Log. Source: the Okta developer reference, "System Log API" and "Event types".

use super::{Change, Field, Mapping, Skip, Source};
use Source::{Path, Typed, Words};

use crate::event::Kind;

pub static MAPPING: Mapping = Mapping {
    fields: &[
        (Field::EventId, &[Path("uuid")]),
        (Field::Timestamp, &[Path("published")]),
        (Field::TokenId, &[Path("authenticationContext.externalSessionId")]),
        (Field::PrincipalId, &[Path("actor.id")]),
        (Field::TokenType, &[Words("authenticationContext.externalSessionId", &[("*", "session")])]),
        (Field::FamilyId, &[Path("authenticationContext.rootSessionId")]),
        (Field::SessionId, &[Path("authenticationContext.externalSessionId")]),
        (Field::UserId, &[Path("actor.id")]),
        (Field::AppId, &[Path("client.id")]),
        (Field::IpAddress, &[Path("client.ipAddress")]),
        (Field::UserAgent, &[Path("client.userAgent.rawUserAgent")]),
        (Field::Endpoint, &[Path("eventType")]),
        (Field::Status, &[Words("outcome.result", OUTCOMES)]),
        (Field::GeoCountry, &[Path("client.geographicalContext.country")]),
        (Field::GeoLatitude, &[Path("client.geographicalContext.geolocation.lat")]),
        (Field::GeoLongitude, &[Path("client.geographicalContext.geolocation.lon")]),
        (Field::Asn, &[Path("securityContext.asNumber")]),
        (Field::AsOrg, &[Path("securityContext.asOrg")]),
    ],
    changes: &[
        Change { kind: Kind::SessionEnded, when: &[("eventType", &["user.session.end"])], fields: &[] },
        Change {
            kind: Kind::Issued,
            when: &[("eventType", &["app.oauth2.*token.grant*", "system.api_token.create"])],
            fields: TOKEN,
        },
        Change {
            kind: Kind::Revoked,
            when: &[("eventType", &["app.oauth2.*token.revoke*", "system.api_token.revoke"])],
            fields: TOKEN,
        },
        Change {
            kind: Kind::CredentialChanged,
            when: &[(
                "eventType",
                &[
                    "user.account.update_password",
                    "user.account.reset_password",
                    "user.mfa.factor.activate",
                    "user.mfa.factor.deactivate",
                    "user.mfa.factor.reset_all",
                    "user.mfa.factor.update",
                ],
            )],
            // Whose credential it is: an administrator may have changed another's.
            fields: &[
                (Field::TokenId, &[user("id"), Path("actor.id")]),
                (Field::UserId, &[user("id"), Path("actor.id")]),
                (Field::TokenType, &[]),
                (Field::FamilyId, &[]),
                (Field::SessionId, &[]),
            ],
        },
    ],
    skips: &[Skip {
        path: "actor.type",
        word: "SystemPrincipal",
        reason: "the system's own doing",
        unless_change: true,
    }],
    excluded: &[],
    absent: &["unknown"],
    batch: None,
};

/// The token that an event is about is among its targets.
const TOKEN: &[super::Row] = &[
    (Field::TokenId, &[target("access_token"), target("refresh_token"), target("Token")]),
    (
        Field::TokenType,
        &[
            Words("eventType", &[("*access_token", "access"), ("*refresh_token", "refresh")]),
            Words("eventType", &[("system.api_token.*", "api_key")]),
        ],
    ),
    (Field::FamilyId, &[]),
];

const fn target(kind: &'static str) -> Source {
    Typed { array: "target", kind, member: "id" }
}

const fn user(member: &'static str) -> Source {
    Typed { array: "target", kind: "User", member }
}

/// A failure of which no more is told is taken for a refusal: it was not an accepted use.
const OUTCOMES: &[(&str, &str)] =
    &[("SUCCESS", "200"), ("ALLOW", "200"), ("CHALLENGE", "401"), ("DENY", "403"), ("FAILURE", "401")];
