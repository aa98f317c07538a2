//! OCSF, classes API Activity (6003) and Authentication (3002). Source: schema.ocsf.io, 1.1 and later.

use super::{Change, Field, Mapping, Row, Source};
use Source::{Path, Words};

use crate::event::Kind;

pub static MAPPING: Mapping = Mapping {
    fields: &[
        (Field::EventId, &[Path("metadata.uid")]),
        (Field::Timestamp, &[Path("time"), Path("time_dt")]),
        (Field::TokenId, &[Path("api.token.uid"), Path("actor.session.uid"), Path("session.uid")]),
        (Field::PrincipalId, &[Path("actor.user.uid"), Path("user.uid")]),
        (
            Field::TokenType,
            &[
                Words("api.token.type_id", TOKEN_TYPES),
                Words("actor.session.uid", SESSION),
                Words("session.uid", SESSION),
            ],
        ),
        (Field::SessionId, &[Path("actor.session.uid"), Path("session.uid")]),
        (Field::UserId, &[Path("actor.user.uid"), Path("user.uid")]),
        (Field::AppId, &[Path("actor.app_uid")]),
        (Field::TenantId, &[Path("metadata.tenant_uid")]),
        (Field::IpAddress, &[Path("src_endpoint.ip")]),
        (Field::UserAgent, &[Path("http_request.user_agent")]),
        (Field::Endpoint, &[Path("api.operation"), Path("http_request.url.path"), Path("activity_name")]),
        (Field::Method, &[Path("http_request.http_method")]),
        (Field::Status, &[Path("http_response.code"), Words("status_id", &[("1", "200"), ("2", "403")])]),
        (Field::BytesOut, &[Path("http_response.length")]),
        (Field::IssuedAt, &[Path("actor.session.created_time")]),
        (Field::ExpiresAt, &[Path("actor.session.expiration_time")]),
        (Field::GeoCountry, &[Path("src_endpoint.location.country")]),
        (Field::GeoLatitude, &[Path("src_endpoint.location.lat")]),
        (Field::GeoLongitude, &[Path("src_endpoint.location.long")]),
        (Field::Asn, &[Path("src_endpoint.autonomous_system.number")]),
        (Field::AsOrg, &[Path("src_endpoint.autonomous_system.name")]),
    ],
    changes: &[
        Change { kind: Kind::Issued, when: &[AUTHENTICATION, ("activity_id", &["1"])], fields: SUBJECT },
        Change { kind: Kind::SessionEnded, when: &[AUTHENTICATION, ("activity_id", &["2"])], fields: SUBJECT },
    ],
    skips: &[],
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
    absent: &[],
    batch: None,
};

const AUTHENTICATION: (&str, &[&str]) = ("class_uid", &["3002"]);

/// Authentication speaks of the user and session that it concerns, and of the actor where somebody else asked.
const SUBJECT: &[Row] = &[
    (Field::TokenId, &[Path("api.token.uid"), Path("session.uid"), Path("actor.session.uid")]),
    (Field::SessionId, &[Path("session.uid"), Path("actor.session.uid")]),
    (Field::UserId, &[Path("user.uid"), Path("actor.user.uid")]),
    (Field::IssuedAt, &[Path("session.created_time")]),
    (Field::ExpiresAt, &[Path("session.expiration_time")]),
];

const TOKEN_TYPES: &[(&str, &str)] = &[("7", "api_key"), ("6", "access"), ("4", "refresh"), ("*", "other")];

const SESSION: &[(&str, &str)] = &[("*", "session")];
