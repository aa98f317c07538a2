//! The first unusual call of a user at a new place: the input of the search for campaigns ([`crate::campaign`]).

use serde::{Deserialize, Serialize};

use crate::event::{Timestamp, TokenType};
use crate::verdict::SharedVictim;

/// The first call of a user in an area that the user has not used before, within two hours of the user's first use of a
/// place that is new to the user. It depends only on the events of this user. Numbers are keys of names ([`crate::key`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Appearance {
    /// Time of the event.
    pub at: Timestamp,
    /// The event, by tenant, id and content.
    pub event: u64,
    pub tenant: u64,
    pub user: u64,
    /// `None`: the event names no application.
    pub app: Option<u64>,
    pub network: u32,
    pub address: u32,
    /// The grant, or the token without a grant.
    pub grant: u64,
    /// The tenant has at least 1,000 visits in the partition of the user, so its name is not invented.
    pub tenant_is_known: bool,
    pub tenant_id: String,
    pub victim: SharedVictim,
    pub token_type: TokenType,
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    pub event_id: String,
    /// Place and network of the event, for people: `Amsterdam, NL, AS60781 LeaseWeb Netherlands B.V.`
    pub place: String,
    /// The address as text.
    pub from: String,
}
