//! Taking tokens away: an HTTP request to their provider, built from configuration.

mod http;

pub use self::http::{HttpRevoker, HttpRevokerSettings};
