//! Campaigns: several users who make an unusual call at one new place within two hours, through one application or from
//! one address. The second stage of detection: its input are the [appearances](crate::appearance::Appearance) of all partitions.
//!
//! Below the limits in `held.rs`, the campaigns are a function of the set of appearances: their order, and repetitions, do
//! not matter. A further appearance can add victims and never removes one, so accounts of a thief hide no campaign. The alert
//! budget only limits which campaigns are reported.

mod evidence;
mod found;
mod held;
mod stage;
mod window;

pub use self::found::Campaign;
pub use self::stage::Stage;

#[cfg(test)]
mod tests;
