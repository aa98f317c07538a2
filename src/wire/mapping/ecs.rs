//! Elastic Common Schema, nested or with dots in its names. Source: the ECS field reference, 8.x.

use super::{Change, Field, Mapping, Source};
use Source::{Path, Words};

use crate::event::Kind;

pub static MAPPING: Mapping = Mapping {
    fields: &[
        (Field::EventId, &[Path("event.id")]),
        (Field::Timestamp, &[Path("@timestamp")]),
        (Field::TokenId, &[Path("labels.token_id")]),
        (Field::PrincipalId, &[Path("user.id")]),
        (Field::UserId, &[Path("user.id")]),
        (Field::TenantId, &[Path("organization.id")]),
        (Field::IpAddress, &[Path("source.ip")]),
        (Field::UserAgent, &[Path("user_agent.original")]),
        (Field::Endpoint, &[Path("event.action"), Path("url.path")]),
        (Field::Method, &[Path("http.request.method")]),
        (
            Field::Status,
            &[Path("http.response.status_code"), Words("event.outcome", &[("success", "200"), ("failure", "403")])],
        ),
        (Field::BytesOut, &[Path("http.response.bytes"), Path("http.response.body.bytes")]),
        (Field::GeoCountry, &[Path("source.geo.country_iso_code")]),
        (Field::GeoLatitude, &[Path("source.geo.location.lat")]),
        (Field::GeoLongitude, &[Path("source.geo.location.lon")]),
        (Field::Asn, &[Path("source.as.number")]),
        (Field::AsOrg, &[Path("source.as.organization.name")]),
    ],
    // A `start` or an `end` is one of a token only where sessions are spoken of: processes and flows have them too.
    changes: &[
        Change { kind: Kind::Issued, when: &[SESSIONS, ("event.type", &["start", "creation"])], fields: &[] },
        Change { kind: Kind::SessionEnded, when: &[SESSIONS, ("event.type", &["end"])], fields: &[] },
        Change { kind: Kind::Revoked, when: &[SESSIONS, ("event.type", &["deletion"])], fields: &[] },
    ],
    skips: &[],
    excluded: &[
        "event.original",
        "http.request.body.content",
        "http.request.headers",
        "http.response.body.content",
        "http.response.headers",
    ],
    absent: &[],
    batch: None,
};

const SESSIONS: (&str, &[&str]) = ("event.category", &["authentication", "session"]);
