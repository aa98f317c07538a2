//! Formats of messages.

use serde::{Deserialize, Serialize};

/// Format of a topic's or a file's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The token event that `docs/event.md` describes.
    #[default]
    Native,
    /// OCSF: API Activity (6003) and Authentication (3002).
    Ocsf,
    /// Elastic Common Schema.
    Ecs,
    /// AWS CloudTrail.
    Cloudtrail,
    /// Okta System Log.
    Okta,
    /// GitHub audit log.
    Github,
}

impl Format {
    pub const ALL: [Self; 6] = [Self::Native, Self::Ocsf, Self::Ecs, Self::Cloudtrail, Self::Okta, Self::Github];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Ocsf => "ocsf",
            Self::Ecs => "ecs",
            Self::Cloudtrail => "cloudtrail",
            Self::Okta => "okta",
            Self::Github => "github",
        }
    }

    /// Name for texts.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Native => "token event",
            Self::Ocsf => "OCSF",
            Self::Ecs => "ECS",
            Self::Cloudtrail => "CloudTrail",
            Self::Okta => "Okta System Log",
            Self::Github => "GitHub audit log",
        }
    }

    /// Where records of this format contain the address of a call, and what enables it.
    pub(crate) const fn address_hint(self) -> &'static str {
        match self {
            Self::Native => "producers send it as ip_address",
            Self::Ocsf => "the field is src_endpoint.ip",
            Self::Ecs => "the field is source.ip or client.ip",
            Self::Cloudtrail => "the field is sourceIPAddress",
            Self::Okta => "the field is client.ipAddress",
            Self::Github => {
                "GitHub sends actor_ip only after an owner of the enterprise has enabled it: Settings, Audit log, Settings, \
                 \"Enable source IP disclosure\""
            }
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == text)
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
