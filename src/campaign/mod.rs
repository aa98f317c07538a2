//! Campaigns: several users who make an unusual call at one new place within two hours, through one application or from
//! one address. The second stage of detection: its input are the [appearances](crate::appearance::Appearance) of all partitions.
//!
//! The result is a function of the set of appearances. Their order, and repetitions, do not matter. A further appearance
//! can add victims and never removes one, so no account of a thief hides a campaign.

mod evidence;
mod found;
mod rooms;
mod stage;
mod window;

pub use self::found::Campaign;
pub use self::stage::Stage;

#[cfg(test)]
mod tests;
