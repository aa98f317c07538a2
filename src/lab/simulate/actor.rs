//! The interface of everyone who has events.

use super::networks::Network;
use super::record::Record;

/// A holder of tokens.
pub(super) trait Actor: std::fmt::Debug + Send {
    /// Appends the events of the day that begins at `midnight`, UTC. `weekday` 0 is Monday.
    fn day(&mut self, midnight: i64, weekday: u8, networks: &[Network], out: &mut Vec<Record>);
}
