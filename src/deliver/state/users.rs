//! Messages to users that were sent, for their limits.

use super::data::{Informed, State};
use crate::deliver::user_notices::UserLimits;
use crate::millis::{DAY_MS, HOUR_MS};

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::deliver) struct UserLimit {
    pub(crate) reason: &'static str,
    /// Time at which the message is tried again, milliseconds since the epoch, wall clock.
    pub(crate) until: i64,
}

impl State {
    /// The limit because of which a message to `user` is not sent at `now`.
    pub(in crate::deliver) fn user_limit(
        &self,
        lane: &str,
        user: &str,
        limits: UserLimits,
        now: i64,
    ) -> Option<UserLimit> {
        let of_lane = self.informed.iter().filter(|informed| informed.lane == lane);
        let today = of_lane.clone().filter(|informed| informed.user == user && now - informed.at < DAY_MS);
        // The oldest message that must leave the window of 24 hours before another one is sent.
        if let Some(first) = today.rev().nth(limits.per_user_per_day.saturating_sub(1) as usize) {
            let reason = "the user got the messages of a day (notify_users.per_user_per_day)";
            return Some(UserLimit { reason, until: first.at + DAY_MS });
        }
        let this_hour = of_lane.filter(|informed| now - informed.at < HOUR_MS).count();
        let reason = "the limit of an hour is reached (notify_users.max_per_hour)";
        (this_hour >= limits.per_hour as usize).then_some(UserLimit { reason, until: now + HOUR_MS })
    }

    pub(super) fn inform(&mut self, informed: Informed) {
        while self.informed.front().is_some_and(|first| informed.at - first.at >= DAY_MS) {
            self.informed.pop_front();
        }
        self.informed.push_back(informed);
    }
}
