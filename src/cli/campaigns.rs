//! The thread that searches for campaigns over the partitions of Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::failure::Failure;
use super::observe::{Observer, SightingsObserver};
use crate::campaigns::Lane;
use crate::config::Config;
use crate::port::Source;
use crate::rule::RuleSet;
use crate::source::kafka::KafkaSource;
use crate::store::ClickHouse;
use crate::token::TokenHasher;

/// Starts the thread, if the source is Kafka and the search is switched on.
pub(super) fn start(
    config: &Config,
    (observer, hasher, rules): (Observer, &TokenHasher, &watch::Receiver<Arc<RuleSet>>),
    (store, runtime): (&Arc<ClickHouse>, &Handle),
    stop: &Arc<AtomicBool>,
) -> Result<Option<JoinHandle<()>>, Failure> {
    let Some(kafka) = config.source.kafka.clone().filter(|_| config.detection.campaigns) else { return Ok(None) };
    let Observer { metrics, health, outbox, clock } = observer.clone();
    let observer = Arc::new(SightingsObserver(observer));
    let lane = Lane {
        open: Box::new(move || {
            let source = KafkaSource::of_sightings(&kafka, Arc::clone(&observer) as _)?;
            Ok(Box::new(source) as Box<dyn Source>)
        }),
        key: hasher.key_hasher().check(),
        mode: config.revoke.mode,
        budget: config.engine_settings().campaign_budget(),
        rules: rules.clone(),
        outbox,
        store: Arc::clone(store),
        runtime: runtime.clone(),
        clock,
        metrics,
        health,
    };
    let started = lane.start(Arc::clone(stop));
    started.map(Some).map_err(|error| Failure::Unavailable(format!("cannot start threads: {error}")))
}

/// Stops the thread and waits for its end.
pub(super) fn stop(started: Option<JoinHandle<()>>, stop: &AtomicBool) {
    // If the worker has failed, no signal has set it.
    stop.store(true, Ordering::Relaxed);
    if let Some(thread) = started {
        // It catches and logs panics.
        let _ = thread.join();
    }
}
