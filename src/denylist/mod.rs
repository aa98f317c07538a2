//! The denylist: revoked tokens and grants, for gateways that accept self-contained tokens without asking the provider.
//! A revocation adds an entry and sends the request to the provider. An entry expires when the token can no longer be valid.

mod lifetimes;
mod list;
mod presented;
mod revoker;
#[cfg(test)]
mod testing;

pub(crate) use self::lifetimes::Lifetimes;
pub(crate) use self::list::Denylist;
pub(crate) use self::presented::{Claims, Presented, presented};
pub(crate) use self::revoker::{DENIED_ONLY, DenyingRevoker, IfLogFails, LOG_RETRY};
