//! Scenarios: events of owners and thieves, and the expected verdicts.
//!
//! Each scenario runs in a town of forty other people with ordinary traffic, so that there is a population to compare
//! with. Everything is as in the service: events are JSON and decoded by the real decoder.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test that cannot go on says so")]

mod attack;
mod clock;
mod ends;
mod feedback;
mod honest;
mod keys;
mod outputs;
mod refused;
mod scenario;
mod source;
mod tenants;
mod thefts;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use scenario::{Atlas, DAY, Event, HOUR, MINUTE, SECOND, Scenario, address, fired, neighbours_call, share};
use tokenwarden::checkpoint::Position;
use tokenwarden::engine;
use tokenwarden::enrich::Enricher;
use tokenwarden::lab::simulate::{Settings, Simulation};
use tokenwarden::notify;
use tokenwarden::pipeline::{Epoch, Pipeline, VerdictOutput};
use tokenwarden::port::{Message, Origin};
use tokenwarden::rule::RuleSet;
use tokenwarden::source::file::FileSource;
use tokenwarden::store::{NullRows, NullStore};
use tokenwarden::telemetry::{Health, Metrics, SystemClock};
use tokenwarden::token::TokenHasher;
use tokenwarden::verdict::RuleId::{
    AppFanout, BindingMismatch, ConcurrentUse, ImpossibleTravel, IpFanout, NewClient, NewCountry, NewIp, NewNetwork,
    RefreshReuse, UseAfterExpiry, UseAfterRevocation, UseAfterSessionEnd,
};
use tokenwarden::verdict::{Action, Outcome, Verdict};
use tokenwarden::wire::{Decoded, Decoder, Format};
use tokenwarden::worker::{Environment, Limits, Spread, Worker};

/// Milliseconds since the epoch, a Monday.
const NOW: i64 = 1_790_000_000_000;

fn pipeline() -> Pipeline {
    pipeline_with(engine::Settings::default())
}

fn pipeline_with(settings: engine::Settings) -> Pipeline {
    pipeline_of(&TokenHasher::new(b"a key for stories"), settings)
}

fn pipeline_of(hasher: &TokenHasher, settings: engine::Settings) -> Pipeline {
    let enricher = Enricher::with_lookup(Box::new(Atlas));
    let rules = Arc::new(RuleSet::builtin());
    Pipeline::new(enricher, rules, hasher.clone(), settings)
}

fn verdicts_of(pipeline: Pipeline, file: &std::path::Path, spread: Spread, epoch_messages_max: u64) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let environment = Environment {
        store: Arc::new(NullStore),
        outbox: None,
        clock: Arc::new(SystemClock),
        metrics: Arc::new(Metrics::new()),
        health: Arc::new(Health::default()),
        runtime: runtime.handle().clone(),
        limits: Limits { epoch_messages_max, ..Limits::REPLAY },
        reload: None,
    };
    let mut source = FileSource::open(vec![file.to_owned()]).expect("the file opens");
    let mut worker = Worker::new(pipeline, spread, VerdictOutput::Lines, environment);
    let mut lines = Vec::new();
    let done = worker.run(&mut source, &AtomicBool::new(false), &mut |epoch| {
        lines.extend_from_slice(epoch.verdicts.as_deref().unwrap_or_default());
        Ok(())
    });
    assert_eq!(done.expect("the file is read").dead_letters, 0);
    lines
}
