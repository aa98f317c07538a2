//! tokenwarden catches stolen OAuth and API tokens while they are being used, and takes them away from the thief.
//!
//! The way of an event is `decode → enrich → step → fan out (store | alert | revoke) → checkpoint`: read [`pipeline`]
//! first. The house has seven floors, and imports go down only (a test checks it):
//!
//! 0. words: [`key`], [`event`], [`token`], [`secret`], [`sanitize`], [`mod@format`], [`feed`], [`place`], [`route`], [`enrichment`], [`verdict`], [`checkpoint`], [`tally`]
//! 1. judgement: [`math`], [`memory`], [`detector`], [`rule`], [`policy`], [`decide`], [`engine`]
//! 2. ports: [`port`], the way out that two adapters share: [`outgoing`], and the policy of all retries: [`retry`]
//! 3. adapters: [`wire`], [`enrich`], [`source`], [`store`], [`notify`], [`revoke`]
//! 4. running: [`pipeline`], [`worker`], [`deliver`], [`config`], [`telemetry`]
//! 5. measuring, which the service does without: [`lab`]
//! 6. commands: [`cli`]
//!
//! What always holds:
//! - [`engine::step`] is total: any events in any order, never a panic.
//! - The same events from the same state give the same outcomes, byte for byte.
//! - No raw token reaches judgement, storage or a log.
//! - Losing GeoIP weakens signals and never stops the stream.
//! - Nothing before the fan-out is visible outside.
//! - Every queue, map and window has a named limit.

pub mod checkpoint;
pub mod enrichment;
pub mod event;
pub mod feed;
pub mod format;
pub mod key;
pub mod place;
pub mod route;
pub mod sanitize;
pub mod secret;
pub mod tally;
pub mod token;
pub mod verdict;

pub mod decide;
pub mod detector;
pub mod engine;
pub mod math;
pub mod memory;
pub mod policy;
pub mod rule;

pub mod outgoing;
pub mod port;
pub mod retry;

pub mod enrich;
pub mod notify;
pub mod revoke;
pub mod source;
pub mod store;
pub mod wire;

pub mod cli;
pub mod config;
pub mod deliver;
pub mod lab;
pub mod pipeline;
pub mod telemetry;
pub mod worker;
