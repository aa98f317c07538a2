//! Measures detection on labelled events, which take the same path as all others.
//!
//! [`Measure`] takes the place of the store's rows: the [`pipeline`](crate::pipeline) passes every scored event to it.
//! It keeps the scores of each token-day and each case ([`ledger`]) and finally makes a [`Report`] of them.
//! `docs/evaluation.md` defines the figures.

pub mod board;
pub mod budget;
pub mod calibration;
pub mod labels;
pub mod ledger;
mod measure;
pub mod observation;
pub mod peer;
pub mod report;
mod roc;
#[cfg(test)]
mod samples;
mod table;
mod text;

pub use self::measure::{FalseRevocation, Measure, ToldEvent};
pub use self::report::Report;
