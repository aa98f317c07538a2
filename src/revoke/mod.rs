//! Revocation of tokens and grants by an HTTP request to their provider. The configuration defines the request.

mod http;

pub(crate) use self::http::rejects_own_credential;
pub use self::http::{HttpRevoker, HttpRevokerSettings};
