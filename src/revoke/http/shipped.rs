//! The presets of the build, from the files in `src/revoke/presets`.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// A preset of the build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PresetName {
    pub(super) name: &'static str,
    /// The file.
    pub(super) text: &'static str,
}

/// Declares the presets of the build by the names of their files.
macro_rules! presets {
    ($($name:literal,)+) => {
        pub(super) const PRESETS: &[PresetName] =
            &[$(PresetName { name: $name, text: include_str!(concat!("../presets/", $name, ".toml")) },)+];
        const NAMES: &[&str] = &[$($name,)+];
    };
}

presets! {
    "auth0_grant",
    "auth0_refresh_token",
    "auth0_sessions",
    "aws_access_key",
    "aws_role_sessions",
    "by_id",
    "entra_sessions",
    "github_fine_grained",
    "github_oauth_grant",
    "github_oauth_token",
    "gitlab_token",
    "global_token_revocation",
    "google",
    "google_workspace_sign_out",
    "google_workspace_token",
    "keycloak_consent",
    "keycloak_session",
    "keycloak_user",
    "okta_grant",
    "okta_sessions",
    "okta_universal_logout",
    "rfc7009",
    "slack",
    "slack_sessions",
    "twitch",
}

impl<'de> Deserialize<'de> for PresetName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        let known = PRESETS.iter().find(|known| known.name == name);
        known.copied().ok_or_else(|| D::Error::unknown_variant(&name, NAMES))
    }
}
