//! What one revocation ends at the provider.

use serde::{Deserialize, Serialize};

use crate::verdict::Target;

/// What one request revokes, from the smallest to the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Radius {
    /// One token.
    Token,
    /// The tokens of one grant: of one user for one application.
    Grant,
    /// A sign-in session with the tokens of all its applications.
    Session,
    /// All sessions and tokens of a user.
    User,
    /// All sessions of a role, which several users and programs may have.
    Role,
    /// All tokens of an application.
    App,
}

impl Radius {
    /// The name in the configuration and in the table `actions`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Grant => "grant",
            Self::Session => "session",
            Self::User => "user",
            Self::Role => "role",
            Self::App => "app",
        }
    }

    /// What a request with this radius ends at `target`.
    pub(crate) fn of(radius: Option<Self>, target: &Target) -> Self {
        let smallest = match target {
            Target::Token(_) => Self::Token,
            Target::Family(_) => Self::Grant,
        };
        radius.map_or(smallest, |radius| radius.max(smallest))
    }

    /// The revocations as which one of this radius counts towards the caps.
    pub(crate) const fn weight(self) -> u32 {
        match self {
            Self::Token | Self::Grant | Self::Session => 1,
            Self::User => 5,
            Self::Role | Self::App => 20,
        }
    }
}
