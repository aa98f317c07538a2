//! What makes appearances one campaign: time, order and number of users.

use crate::appearance::Appearance;
use crate::math::ln;
use crate::millis::HOUR_MS;

/// Maximum time between the first and the last appearance of a campaign's users.
pub(super) const WINDOW_MS: i64 = 2 * HOUR_MS;
/// Number of users from which a group is evidence.
pub(super) const USERS_MIN: usize = 3;

/// A campaign of a tenant: the network, and the day (UTC, since the epoch) of its victims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CampaignKey {
    pub(super) tenant: u64,
    pub(super) network: u32,
    pub(super) day: i64,
}

/// The evidence of `users` users, nats: `0.75·(users − 1) + ln(users − 2)`, as [`crate::detector::fan`] adds up the
/// evidence of the calls of each, 1.25 nats with the weight 0.6. 0 below three users.
pub(super) fn share(users: usize) -> f64 {
    if users < USERS_MIN { 0.0 } else { 0.75 * (users as f64 - 1.0) + ln(users as f64 - 2.0) }
}

/// Order of appearances: by time, then by event.
pub(super) const fn order_of(appearance: &Appearance) -> (i64, u64) {
    (appearance.at.millis(), appearance.event)
}
