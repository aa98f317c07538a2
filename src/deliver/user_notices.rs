//! Channels, texts and limits of messages to users.

use std::sync::Arc;

use crate::notify::UserTexts;
use crate::port::UserNotifier;

/// The beginning of the names of the lanes.
const USERS: &str = "users";

/// Channels, texts and limits of messages to users.
pub struct UserNotices {
    pub notifiers: Vec<Arc<dyn UserNotifier>>,
    pub texts: UserTexts,
    pub limits: UserLimits,
}

/// Maximum numbers of messages of one channel.
#[derive(Clone, Copy, Debug)]
pub struct UserLimits {
    /// To one user within 24 hours.
    pub per_user_per_day: u32,
    /// To all users within an hour.
    pub per_hour: u32,
}

pub(super) fn user_lane(notifier: &dyn UserNotifier) -> String {
    format!("{USERS} {}", notifier.name())
}
