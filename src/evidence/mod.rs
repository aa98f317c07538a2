//! Evidence for a decision about a rule: what it would have revoked, and how often that would have been right.
//!
//! [`mod@read`] reads the revocations that rules requested or would have requested, and what became known about them.
//! [`by_rule`] counts them.

mod count;
mod proportion;
mod read;
mod refutations;
mod revocation;

pub(crate) use self::count::{Evidence, THIN_BELOW, by_rule};
pub(crate) use self::proportion::interval;
pub(crate) use self::read::{confirming_topics, read};
pub use self::refutations::StoredRefutations;
