//! A call with its ids templated away: `GET /v1/users/42/keys` and `GET /v1/users/7/keys` are one route.

use std::borrow::Cow;

/// The numbers of a call. They are xxh3 hashes, so that memory need not hold texts; [`template`] gives the text back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Of method and template.
    pub key: u32,
    /// Of the first two segments of the template, or of the service: `iam.amazonaws.com`, `/repos/{}`.
    pub area: u32,
    /// Of the ids that were templated away, in order: which object was touched. `None` where there was none.
    pub object: Option<u64>,
    /// GET, HEAD, OPTIONS, or a name that begins as readers do (`List…`, `Get…`, `Describe…`).
    pub reads: bool,
}

impl Route {
    /// Route of `method` and `endpoint`, either of which may be absent (empty). Allocates nothing.
    #[must_use]
    pub fn of(method: &str, endpoint: &str) -> Self {
        let _ = (method, endpoint);
        Self::default()
    }
}

/// `endpoint` with ids, uuids, hashes and numbers replaced by `{}` and the query cut off.
#[must_use]
pub fn template(endpoint: &str) -> Cow<'_, str> {
    Cow::Borrowed(endpoint)
}
