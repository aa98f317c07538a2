//! `tokenwarden run`: the service. It runs until SIGTERM or SIGINT.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::Retryable as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

use super::failure::Failure;
use super::observe::Observer;
use super::setup::{NO_SOURCE, load_rules, open_file, open_state, start_runtime};
use super::{campaigns, delivery, denylist, record_log, signals_receiver, user_api};
use crate::campaign::Stage;
use crate::config::Config;
use crate::config::reload::Follower;
use crate::config::rule_file::LoadedRules;
use crate::enrich::Enricher;
use crate::pipeline::{Pipeline, SubjectSplitter, VerdictOutput};
use crate::port::{Clock, FeedbackRecord, Snapshots, Source, StateRestorer, StoreError};
use crate::retry::RetryPolicy;
use crate::source::kafka::rekey::{self, Forwarder};
use crate::source::kafka::{KafkaSettings, KafkaSource, Permitted, StateTopic, StateTopicUse};
use crate::state_dir::StateDir;
use crate::store::ClickHouse;
use crate::telemetry::{self, Condition, Health, Metrics, SystemClock, admin};
use crate::token::TokenHasher;
use crate::worker::{
    Environment, FeedbackLog, FeedbackSource, Limits, Reload, RestoredStates, SnapshotSettings, SpoolSettings, Spread,
    Worker,
};

/// Maximum time for deliveries in progress at a stop. All others remain on disk.
const DELIVERER_WAIT: Duration = Duration::from_millis(1_200);
/// Maximum time that the start waits for the store. After it, the service starts without the store.
const STORE_WAIT: Duration = Duration::from_secs(3);
/// Maximum time that the start waits for feedback.
const FEEDBACK_WAIT: Duration = Duration::from_secs(30);
/// Attempts to open the store.
const STORE_RETRY: RetryPolicy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(5));
/// Maximum time for tasks to end at a stop.
const TASKS_WAIT: Duration = Duration::from_millis(500);
/// The same, for an embedded engine that is still being loaded at a stop, and after a start that failed. Its library
/// crashes if the process ends meanwhile.
const LOADING_WAIT: Duration = Duration::from_secs(5);
const LOADING_WAIT_AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Maximum time of a stop, after which the process exits. No data are lost: they are on disk or are read again from Kafka.
const STOP_MAX: Duration = Duration::from_millis(9_500);

/// Run the service: read events, detect stolen tokens, store, alert and revoke.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the service until a signal stops it. All events read by then are stored and committed.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    telemetry::start_logging("info");
    let runtime = start_runtime()?;
    // First, because a signal without a handler ends the process, SIGHUP too.
    let signals = runtime
        .block_on(async { listen_to_signals() })
        .map_err(|error| Failure::Unavailable(format!("cannot install signal handlers: {error}")))?;
    let config = Config::load(Some(&arguments.config))?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let rules = load_rules(&config)?;
    let store = Arc::new(ClickHouse::new(&config.store));
    let done = serve(&config, rules, &runtime, &store, signals);
    // The tasks that use the store have ended, so dropping it closes an embedded engine.
    runtime.shutdown_timeout(match (&done, config.store.is_embedded()) {
        (_, false) => TASKS_WAIT,
        (Ok(()), true) => LOADING_WAIT,
        (Err(_), true) => LOADING_WAIT_AFTER_FAILURE,
    });
    drop(store);
    done
}

fn serve(
    config: &Config,
    loaded: LoadedRules,
    runtime: &tokio::runtime::Runtime,
    store: &Arc<ClickHouse>,
    signals: Signals,
) -> Result<(), Failure> {
    let Signals { stop, nudge, look_at_files } = signals;
    let metrics = Arc::new(Metrics::new());
    let health = Arc::new(Health::default());
    open_store(config, runtime, store, &health)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let enricher = open_enricher(config);
    let hasher = config.token_hasher()?;
    let rules = Arc::new(loaded.rules.clone());
    let (rules_sender, rules_receiver) = watch::channel(Arc::clone(&rules));
    // The mail transport spawns a task, which needs a runtime.
    let inside = runtime.enter();
    let delivery = delivery::open(config, &rules_receiver, &clock)?;
    for warning in delivery.warnings(config) {
        tracing::warn!("{warning}");
    }
    let observer = Observer {
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        outbox: delivery.outbox(),
        clock: Arc::clone(&clock),
    };
    let storage = open_snapshots(config, &health)?;
    let restored = storage.as_ref().map(|storage| {
        let (clock, metrics, health) = (Arc::clone(&clock), Arc::clone(&metrics), Arc::clone(&health));
        Arc::new(RestoredStates::new(storage.snapshots(), &hasher, clock, metrics, health))
    });
    let (mut source, spread, partitions) = open_source(config, observer.clone(), restored.clone(), storage.as_ref())?;
    let forwarder = start_forwarder(config, &hasher, &observer)?;
    let feedback = follow_feedback(config, runtime, &clock, &health)?;
    let (denylist, revoker) = (delivery.denylist(), delivery.revoker());
    let incident_tasks = delivery.incident_tasks(config, store, &clock, &health);
    let (outbox, deliverer) = delivery.start(store, &clock, &metrics, &health, runtime.handle());
    drop(inside);
    runtime.block_on(async {
        serve_admin(config, &observer).await?;
        denylist::serve(config, denylist, &hasher, &observer).await?;
        signals_receiver::serve(config, (&clock, &metrics)).await?;
        user_api::serve(config, revoker, store, (&clock, &metrics)).await
    })?;
    if let Some(dir) = config.rules_dir.clone() {
        let follower = Follower {
            dir,
            in_force: loaded,
            rules: rules_sender,
            nudge,
            metrics: Arc::clone(&metrics),
            outbox: Arc::clone(&outbox),
            clock: Arc::clone(&clock),
        };
        runtime.spawn(follower.run());
    }
    incident_tasks.start(runtime.handle());
    let campaigns = campaigns::start(config, (observer, &hasher, &rules_receiver), (store, runtime.handle()), &stop)?;
    let pipeline = Pipeline::new(enricher, rules, hasher, config.engine_settings().for_one_of(partitions));
    let outside = Environment {
        store: Arc::clone(store),
        outbox: Some(outbox),
        clock,
        metrics,
        health,
        runtime: runtime.handle().clone(),
        limits: Limits::LIVE,
        reload: Some(Reload { rules: rules_receiver, look_at_files }),
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), admin = %config.admin.listen, "started");
    let spool = SpoolSettings {
        dir: config.store.spool_dir.clone().unwrap_or_else(|| config.outbox.dir.join("spool")),
        bytes_max: config.store.spool_bytes_max,
    };
    let output = verdict_output(config);
    let worker = Worker::new(pipeline, spread, output, outside).with_spool(spool);
    let mut worker = with_parts(worker, config, feedback, storage.zip(restored));
    let done = worker.run(&mut *source, &stop, &mut |_| Ok(()));
    drop((source, forwarder));
    campaigns::stop(campaigns, &stop);
    runtime.block_on(deliverer.stop(DELIVERER_WAIT));
    let tally = done?;
    tracing::info!(events = tally.events, dead_letters = tally.dead_letters, "stopped");
    Ok(())
}

/// Serves metrics and health checks.
async fn serve_admin(config: &Config, observer: &Observer) -> Result<(), Failure> {
    let (admin, detection, metrics) = (&config.admin, &config.detection, &observer.metrics);
    if let (Some(mib), Some(states)) = (detection.memory_mib_max, detection.states_bytes()) {
        metrics.memory_limits(mib << 20, states as u64);
    }
    let pages = admin::Pages {
        metrics: Arc::clone(metrics),
        health: Arc::clone(&observer.health),
        clock: Arc::clone(&observer.clock),
        token: admin.token.clone(),
        hosts: admin::Hosts::new(admin.listen, &admin.hosts),
    };
    let served = admin::serve(admin.listen, pages).await.map(drop);
    served.map_err(|error| Failure::Unavailable(format!("cannot listen on {} (admin.listen): {error}", admin.listen)))
}

/// The worker with the configured optional parts.
fn with_parts(
    mut worker: Worker<ClickHouse>,
    config: &Config,
    feedback: Option<FeedbackSource>,
    snapshots: Option<(Storage, Arc<RestoredStates>)>,
) -> Worker<ClickHouse> {
    if let Some(source) = feedback {
        worker = worker.with_feedback(source);
    }
    if config.detection.campaigns && config.source.file.is_some() {
        worker = worker.with_campaigns(Stage::new(config.revoke.mode, config.engine_settings().campaign_budget()));
    }
    if let Some((storage, restored)) = snapshots {
        let settings = SnapshotSettings { to: storage.snapshots(), interval_ms: Some(config.snapshots.interval_ms) };
        worker = worker.with_snapshots(settings).with_restored(restored);
    }
    worker
}

/// Form of the verdicts for their topic, if it is configured.
fn verdict_output(config: &Config) -> VerdictOutput {
    match &config.source.kafka {
        Some(kafka) if kafka.verdicts_topic => VerdictOutput::Records,
        _ => VerdictOutput::None,
    }
}

/// Starts to forward messages, if that is configured.
fn start_forwarder(config: &Config, hasher: &TokenHasher, observer: &Observer) -> Result<Option<Forwarder>, Failure> {
    let Some(kafka) = config.source.kafka.as_ref().filter(|kafka| kafka.rekey) else { return Ok(None) };
    let splitter = Box::new(SubjectSplitter::new(kafka.feeds(), hasher));
    let clock = Arc::clone(&observer.clock);
    Ok(Some(Forwarder::start(kafka, splitter, Arc::new(observer.clone()), clock)?))
}

/// Opens the GeoIP files, and logs them.
fn open_enricher(config: &Config) -> Enricher {
    let enricher = Enricher::new(&config.geoip).trust_event_geo(config.detection.trust_event_geo);
    for version in enricher.versions() {
        tracing::info!(version, "GeoIP file");
    }
    for problem in enricher.problems() {
        tracing::error!(problem, "a GeoIP file cannot be used; places and networks are scored without it");
    }
    enricher
}

/// Opens the store, in the background if it takes longer than [`STORE_WAIT`]. Fails only if an embedded engine cannot be
/// loaded, because a retry would not help.
fn open_store(
    config: &Config,
    runtime: &tokio::runtime::Runtime,
    store: &Arc<ClickHouse>,
    health: &Arc<Health>,
) -> Result<(), Failure> {
    let (store, health, is_embedded) = (Arc::clone(store), Arc::clone(health), config.store.is_embedded());
    let mut opening = runtime.spawn(async move {
        let connect = || async {
            let opened = store.connect().await;
            health.set(Condition::Store, opened.is_err());
            opened
        };
        let mut logged = String::new();
        let log = |error: &StoreError, _| {
            let reason = error.to_string();
            if logged != reason {
                tracing::error!(reason, "cannot open the store; retrying");
                logged = reason;
            }
        };
        let may_help = |error: &StoreError| !(is_embedded && matches!(error, StoreError::Permanent(_)));
        connect.retry(STORE_RETRY).when(may_help).notify(log).await
    });
    let Ok(opened) = runtime.block_on(async { tokio::time::timeout(STORE_WAIT, &mut opening).await }) else {
        tracing::warn!("starting without the store; rows wait in the spool");
        return Ok(());
    };
    opened.map_err(|error| Failure::Unavailable(error.to_string()))?.map_err(Failure::from)
}

/// Where snapshots are stored.
enum Storage {
    Topic(StateTopic),
    Folder(Arc<StateDir>),
}

impl Storage {
    fn snapshots(&self) -> Arc<dyn Snapshots> {
        match self {
            Self::Topic(topic) => Arc::new(topic.clone()),
            Self::Folder(folder) => Arc::clone(folder) as _,
        }
    }
}

/// The storage of snapshots, if one is configured. Creates the topic of forwarded messages first, if it is needed.
fn open_snapshots(config: &Config, health: &Health) -> Result<Option<Storage>, Failure> {
    if let Some(kafka) = &config.source.kafka {
        // The states are of its partitions.
        if kafka.rekey {
            rekey::ensure_topic(kafka)?;
        }
        match kafka.state_topic {
            StateTopicUse::Required => return Ok(Some(Storage::Topic(StateTopic::open(kafka)?))),
            StateTopicUse::IfPermitted => return Ok(open_if_permitted(kafka, health)?.map(Storage::Topic)),
            StateTopicUse::Never => {}
        }
    }
    let dir = config.snapshots.dir.as_deref().map(open_state).transpose()?;
    Ok(dir.map(|dir| Storage::Folder(Arc::new(dir))))
}

/// The topic of snapshots, or a report that it cannot be used.
fn open_if_permitted(kafka: &KafkaSettings, health: &Health) -> Result<Option<StateTopic>, Failure> {
    let reason = match StateTopic::open_if_permitted(kafka)? {
        Permitted::Yes(topic) => return Ok(Some(topic)),
        Permitted::Refused(reason) => reason,
    };
    let topic = StateTopic::name(kafka);
    health.set_of(Condition::SnapshotsOff, &topic, true);
    tracing::warn!(
        topic,
        reason,
        remember_messages_max = kafka.remember_messages_max,
        "snapshots are off: a restart rebuilds the memory from the last remember_messages_max messages of each partition. \
         Permit the topic (docs/operations.md, Snapshots) or set source.kafka.state_topic = false"
    );
    Ok(None)
}

/// Feedback from which detection learns, if it is configured. All of it is read before the first message, so that each
/// partition learns it at its place.
fn follow_feedback(
    config: &Config,
    runtime: &tokio::runtime::Runtime,
    clock: &Arc<dyn Clock>,
    health: &Arc<Health>,
) -> Result<Option<FeedbackSource>, Failure> {
    if config.feedback.is_none() {
        return Ok(None);
    }
    record_log::prepare::<FeedbackRecord>(config, clock.now_millis())?;
    let log = FeedbackLog::follow(record_log::open(config)?, Arc::clone(health));
    if !runtime.block_on(log.read(FEEDBACK_WAIT)) {
        tracing::error!("the feedback is not read yet; messages are processed without it until then");
    }
    Ok(Some(FeedbackSource::Log(log)))
}

/// The source, the assignment of its messages to partitions, and the number of partitions.
fn open_source(
    config: &Config,
    observer: Observer,
    restored: Option<Arc<RestoredStates>>,
    storage: Option<&Storage>,
) -> Result<(Box<dyn Source>, Spread, u32), Failure> {
    if let Some(kafka) = &config.source.kafka {
        let states = restored.map(|restored| restored as Arc<dyn StateRestorer>);
        let topic = storage.and_then(|storage| if let Storage::Topic(topic) = storage { Some(topic) } else { None });
        let source = KafkaSource::restoring(kafka, Arc::new(observer), states, topic)?;
        let partitions = source.partitions();
        return Ok((Box::new(source), Spread::ByPartition(kafka.scored_feeds()), partitions));
    }
    if let Some(file) = &config.source.file {
        let source = open_file(config, file)?;
        return Ok((Box::new(source), Spread::Whole(file.feed()), 1));
    }
    Err(Failure::Configuration(NO_SOURCE.to_owned()))
}

/// What signals request.
#[derive(Clone, Default)]
struct Signals {
    stop: Arc<AtomicBool>,
    /// Notified when the rules are to be reloaded.
    nudge: Arc<Notify>,
    /// Whether the GeoIP files are to be checked.
    look_at_files: Arc<AtomicBool>,
}

/// SIGTERM and SIGINT stop; SIGHUP reloads rules and GeoIP files.
fn listen_to_signals() -> std::io::Result<Signals> {
    let signals = Signals::default();
    let Signals { stop, nudge, look_at_files } = signals.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    nudge.notify_one();
                    look_at_files.store(true, Ordering::Relaxed);
                }
            }
        }
        tracing::info!("stopping: storing and committing the events read so far");
        stop.store(true, Ordering::Relaxed);
        // A thread does not depend on the runtime, which may hang.
        std::thread::spawn(|| {
            std::thread::sleep(STOP_MAX);
            tracing::warn!("the stop takes too long; exiting now, uncommitted events are read again at the next start");
            std::process::exit(0);
        });
    });
    Ok(signals)
}
