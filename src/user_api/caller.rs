//! The caller of a request: a user of one tenant.

/// Maximum length of a tenant or user, bytes: that of ids in events.
const ID_BYTES_MAX: usize = 256;
/// Beginning of `requested_by` in the table `actions`. The user id follows.
pub(super) const BY: &str = "user ";

/// A user of one tenant, as a credential names them. The API shows and revokes what belongs to both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Caller {
    pub(super) tenant: String,
    pub(super) user: String,
    pub(super) via: Via,
}

/// The credential of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Via {
    Jwt,
    AccountPage,
}

impl Via {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "a token of the user",
            Self::AccountPage => "the account page",
        }
    }
}

impl Caller {
    /// `None` if the tenant or user cannot be that of an event.
    pub(super) fn new(tenant: String, user: String, via: Via) -> Option<Self> {
        let is_long = tenant.len() > ID_BYTES_MAX || user.len() > ID_BYTES_MAX;
        (!user.is_empty() && !is_long).then_some(Self { tenant, user, via })
    }
}

/// Why a request has no caller. The texts contain no value of the request.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    #[error("{0}")]
    Credential(String),
    #[error("{0}")]
    Unavailable(&'static str),
}

impl Denied {
    pub(super) fn credential(problem: impl Into<String>) -> Self {
        Self::Credential(problem.into())
    }
}
