//! tokenwarden detects stolen OAuth and API tokens in a stream of token events and revokes them.
//!
//! The path of an event is `decode → enrich → step → fan out (store | alert | revoke) → checkpoint`. Read [`pipeline`]
//! first. The modules form seven layers. A module imports only its own layer and lower ones (`tests/layers.rs` checks
//! it):
//!
//! 0. types: [`key`], [`event`], [`token`], [`secret`], [`sanitize`], [`mod@format`], [`millis`], [`number`], [`lock`], [`kill_point`], [`feed`], [`place`], [`route`], [`enrichment`], [`verdict`], [`appearance`], [`checkpoint`], [`snapshot`], [`tally`]
//! 1. detection: [`math`], [`memory`], [`detector`], [`rule`], [`policy`], [`decide`], [`engine`], [`campaign`]
//! 2. ports: the traits of [`port`], the shared HTTP client [`outgoing`], the retry policy [`retry`], lines of journals [`line`], signed tokens [`jose`], and the keys of their issuers [`jwks`]
//! 3. adapters: [`wire`], [`enrich`], [`source`], [`store`], [`notify`], [`revoke`], [`denylist`], [`record_file`], [`state_dir`]
//! 4. service: [`pipeline`], [`worker`], [`campaigns`], [`deliver`], [`closing`], [`repeating`], [`by_hand`], [`evidence`], [`gate`], [`listener`], [`user_api`], [`signals_receiver`], [`config`], [`telemetry`]
//! 5. lab (simulation and evaluation, which the service does not import): [`lab`]
//! 6. commands: [`cli`]
//!
//! Invariants:
//! - [`engine::step`] does not panic, for any events in any order.
//! - The same events from the same state give the same outcomes, byte for byte.
//! - No raw token reaches detection, storage or a log.
//! - If GeoIP is unavailable, location is not scored, and processing continues.
//! - Nothing before the fan-out has effects outside of the process.
//! - Every queue, map and window has a named limit.

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "the crate is the program, so its documentation has no other readers"
)]

pub mod appearance;
pub mod checkpoint;
pub mod enrichment;
pub mod event;
pub mod feed;
pub mod format;
pub mod key;
pub mod kill_point;
mod lock;
mod millis;
mod number;
pub mod place;
pub mod route;
pub mod sanitize;
pub mod secret;
pub mod snapshot;
pub mod tally;
pub mod token;
pub mod verdict;

pub mod campaign;
mod decide;
pub mod detector;
pub mod engine;
mod math;
pub mod memory;
pub mod policy;
pub mod rule;

mod jose;
mod jwks;
mod line;
mod outgoing;
pub mod port;
pub mod retry;

mod denylist;
pub mod enrich;
pub mod notify;
mod record_file;
pub mod revoke;
pub mod source;
mod state_dir;
pub mod store;
pub mod wire;

mod by_hand;
mod campaigns;
pub mod cli;
pub mod closing;
pub mod config;
pub mod deliver;
pub mod evidence;
mod gate;
pub mod lab;
mod listener;
pub mod pipeline;
pub mod repeating;
mod signals_receiver;
pub mod telemetry;
mod user_api;
pub mod worker;
