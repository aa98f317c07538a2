//! Messages to users that were sent, for their limits.

use super::data::{Informed, State};
use crate::deliver::user_notices::UserLimits;
use crate::millis::{DAY_MS, HOUR_MS};

impl State {
    /// The limit because of which a message to `user` is not sent at `now`.
    pub(in crate::deliver) fn user_limit(
        &self,
        lane: &str,
        user: &str,
        limits: UserLimits,
        now: i64,
    ) -> Option<&'static str> {
        let of_lane = self.informed.iter().filter(|informed| informed.lane == lane);
        let today = of_lane.clone().filter(|informed| informed.user == user && now - informed.at < DAY_MS).count();
        let this_hour = of_lane.filter(|informed| now - informed.at < HOUR_MS).count();
        if today >= limits.per_user_per_day as usize {
            return Some("the user got the messages of a day (notify_users.per_user_per_day)");
        }
        (this_hour >= limits.per_hour as usize).then_some("the limit of an hour is reached (notify_users.max_per_hour)")
    }

    pub(super) fn inform(&mut self, informed: Informed) {
        while self.informed.front().is_some_and(|first| informed.at - first.at >= DAY_MS) {
            self.informed.pop_front();
        }
        self.informed.push_back(informed);
    }
}
