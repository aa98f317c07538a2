//! `tokenwarden demo`: the whole service on a generated fortnight, with an embedded ClickHouse engine.

mod provider;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use clap::Args;
use clap::builder::styling::Style;
use indicatif::ProgressBar;

use self::provider::Provider;
use super::alert::{self, Shown, ShownAlert};
use super::failure::Failure;
use super::setup::{installed_geoip, load_rules, start_runtime};
use super::sql::{self, Output};
use super::terminal::{PERCENT, progress_bar};
use crate::config::{Config, cache_folder};
use crate::deliver::{self, Deliverer, Outbox};
use crate::enrich::Enricher;
use crate::lab::simulate::{Score, Settings, score};
use crate::lab::simulated_source::SimulatedSource;
use crate::lock::unpoisoned;
use crate::notify;
use crate::number::grouped;
use crate::pipeline::{Pipeline, VerdictOutput};
use crate::port::{self, Accepted, Alert, Clock, DeliveryError, Notice, Notifier};
use crate::rule::{Rule, RuleSet};
use crate::sanitize;
use crate::store::ClickHouse;
use crate::tally::Tally;
use crate::telemetry::{self, Health, Metrics, SystemClock};
use crate::token::TokenHasher;
use crate::verdict::{Incident, Mode, RuleId};
use crate::wire::Format;
use crate::worker::{Environment, Limits, Spread, Worker};

/// Run the service on a generated fortnight with thefts, with an embedded ClickHouse engine. Needs no server.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Folder for the data. Each demo replaces the data of the previous one; a folder with other files is refused.
    /// [default: demo in the cache folder]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Seed of the generated fortnight.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Number of people; the number of machines is in proportion. With fewer than a few hundred, detection is less
    /// accurate.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(30..=100_000))]
    people: u32,
}

impl Arguments {
    fn settings(&self, now: i64) -> Settings {
        let whole = Settings::fortnight(now);
        let share = |count: u32| (u64::from(count) * u64::from(self.people) / u64::from(whole.people)) as u32;
        Settings {
            seed: self.seed,
            people: self.people,
            services: share(whole.services),
            build_jobs: share(whole.build_jobs),
            plugin_users: share(whole.plugin_users),
            ..whole
        }
    }
}

/// Epochs of the same length as in the service, so that alerts appear during the run.
const LIMITS: Limits = Limits { epoch_age_ms_max: Limits::LIVE.epoch_age_ms_max, ..Limits::REPLAY };

/// Maximum time for the delivery of the last alerts.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(30);

/// The generated tokens are not secret, so the key may be public.
const KEY_OF_DEMOS: &[u8] = b"tokenwarden demo";

/// File that marks a folder as created by a demo. The next demo may delete such a folder.
const MARK: &str = "made-by-tokenwarden-demo";

/// Example queries: title and SQL. They contain no character that is special to a shell within double quotes.
const QUERIES: [(&str, &str); 4] = [
    (
        "Alert and revocation of an incident. The provider is the demo provider, a local server of this demo:",
        "SELECT incident_id, kind, target, outcome, requested_at, revoked_at, verified_at FROM actions WHERE outcome = 'done' AND \
         incident_id IN (SELECT incident_id FROM actions WHERE isNotNull(verified_at) ORDER BY requested_at LIMIT 1) \
         ORDER BY requested_at LIMIT 1 BY kind",
    ),
    (
        "Incidents with the highest log-odds:",
        "SELECT incident_id, severity, user_id, app_id, rules, round(log_odds, 1) AS z FROM incidents_latest \
         ORDER BY z DESC LIMIT 5",
    ),
    (
        "Routes called most from the addresses of an incident:",
        "SELECT incident_id, app_id, method, route, suspect_calls, suspect_bytes_out FROM blast_radius \
         WHERE suspect_calls > 0 ORDER BY suspect_calls DESC LIMIT 5",
    ),
    (
        "Networks of suspicious events, by number of users:",
        "SELECT as_org, country, uniq(user_id) AS users, count() AS events FROM token_events \
         WHERE verdict IN ('alert', 'revoke') GROUP BY as_org, country ORDER BY users DESC, events DESC LIMIT 5",
    ),
];

/// Runs the demo. Results go to stdout. The progress bar goes to stderr if that is a terminal.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    telemetry::start_logging("warn");
    let mut config = Config::load(None)?;
    config.geoip = installed_geoip();
    let folder = arguments.data.clone().or_else(|| Some(cache_folder()?.join("demo")));
    let folder = folder.ok_or_else(|| Failure::Usage("no cache folder: set HOME or give --data DIR".to_owned()))?;
    create_empty(&folder)?;
    config.store.url = format!("embedded:{}", folder.display());
    config.outbox.dir = folder.join("outbox");
    // The rules of the build are in shadow mode. One of them revokes, at the provider of the demo.
    config.revoke.mode = Mode::Enforce;

    let settings = arguments.settings(SystemClock.now_millis());
    let screen = Screen::new(settings.days);
    let runtime = start_runtime()?;
    let store = Arc::new(runtime.block_on(ClickHouse::open(&config.store))?);
    let shown = work(&config, settings, &runtime, &store, &screen).and_then(|done| {
        screen.report(&done)?;
        screen.print(&format!("\nData: {}", config.store.url))?;
        run_queries(&config, &runtime, &screen)
    });
    if let Some(store) = Arc::into_inner(store) {
        runtime.block_on(store.close());
    }
    shown
}

/// Results that the demo prints at the end.
struct Done {
    tally: Tally,
    /// Wall-clock time in milliseconds from the start of the generator to the delivery of the last alert.
    took_ms: i64,
    score: Score,
    /// Uses of revoked grants at the demo provider after their revocation, and how many it refused.
    later_uses: (usize, usize),
}

fn work(
    config: &Config,
    settings: Settings,
    runtime: &tokio::runtime::Runtime,
    store: &Arc<ClickHouse>,
    screen: &Screen,
) -> Result<Done, Failure> {
    let rules = load_rules(config)?;
    let enricher = Enricher::new(&config.geoip).trust_event_geo(config.detection.trust_event_geo);
    if enricher.versions().is_empty() {
        screen
            .print("No GeoIP files: places and networks are not scored and thefts are missed. Run deploy/setup.sh.")?;
    }
    let rules = rules.rules.iter().map(|rule| match rule.id {
        RuleId::RefreshReuse => Rule { mode: Mode::Enforce, ..rule.clone() },
        _ => rule.clone(),
    });
    let rules = Arc::new(RuleSet::new(rules.collect()));
    let pipeline = Pipeline::new(enricher, rules, TokenHasher::new(KEY_OF_DEMOS), config.engine_settings());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::default()));
    let notifiers: Vec<Arc<dyn Notifier>> = vec![Arc::new(Console { screen: screen.clone() })];
    let outbox = Outbox::open(&config.outbox.dir, &notifiers, Arc::clone(&clock)).map(Arc::new);
    let outbox = outbox.map_err(|error| Failure::Unavailable(format!("cannot open the outbox: {error}")))?;
    let failed = |problem: String| Failure::Unavailable(format!("the demo provider does not work: {problem}"));
    let provider = Arc::new(runtime.block_on(Provider::start()).map_err(failed)?);
    let revoker = provider.revoker(Arc::clone(&clock)).map_err(failed)?;
    let deliverer = Deliverer {
        outbox: Arc::clone(&outbox),
        notifiers,
        revoker: Some(Arc::new(revoker)),
        store: Arc::clone(store),
        clock: Arc::clone(&clock),
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        settings: deliver::Settings {
            mode: config.revoke.mode,
            rows_wait: Duration::from_millis(100),
            ..deliver::Settings::default()
        },
    };
    let deliverer = deliverer.start(runtime.handle());
    let alerts = Arc::new(Alerts { outbox, provider: Arc::clone(&provider), taken: Mutex::default() });
    let environment = Environment {
        store: Arc::clone(store),
        outbox: Some(Arc::clone(&alerts) as _),
        clock,
        metrics,
        health,
        runtime: runtime.handle().clone(),
        limits: LIMITS,
        reload: None,
    };
    let began = SystemClock.now_millis();
    let bar = screen.bar.clone();
    let (mut fortnight, generator) = SimulatedSource::start(settings, move |progress| {
        bar.set_position((progress.days * STEPS_OF_A_DAY as f64) as u64);
        bar.set_message(format!("day {}, {} events", progress.day, grouped(progress.events)));
    })
    .map_err(|error| Failure::Unavailable(format!("cannot start a thread: {error}")))?;
    let mut worker = Worker::new(pipeline, Spread::Whole(Format::Native.into()), VerdictOutput::None, environment);
    let done = worker.run(&mut fortnight, &AtomicBool::new(false), &mut |_| Ok(()));
    let undelivered = runtime.block_on(async {
        let left = deliverer.settle(DELIVERY_PATIENCE).await;
        deliverer.stop(Duration::from_secs(1)).await;
        left
    });
    let tally = done?;
    let took_ms = SystemClock.now_millis() - began;
    let thefts = generator.join().map_err(|_| Failure::Unavailable("the traffic generator failed".to_owned()))?;
    screen.bar.finish_and_clear();
    if undelivered > 0 {
        return Err(Failure::Unavailable(format!("{undelivered} alerts were not delivered in time")));
    }
    let later_uses = runtime.block_on(provider.use_revoked()).map_err(failed)?;
    let alerts = std::mem::take(&mut *unpoisoned(&alerts.taken));
    Ok(Done { tally, took_ms, score: score(&thefts, &alerts), later_uses })
}

/// Alert channel of the demo: standard output.
struct Console {
    screen: Screen,
}

/// Outbox that also keeps every alert, to compare the alerts with the generated thefts. One message may combine several
/// changes of an incident.
struct Alerts {
    outbox: Arc<Outbox>,
    provider: Arc<Provider>,
    taken: Mutex<Vec<Incident>>,
}

impl port::Outbox for Alerts {
    fn take(&self, incidents: &[Incident]) -> std::io::Result<()> {
        for target in incidents.iter().filter_map(|incident| incident.revoke.as_ref()) {
            self.provider.hold(target.id());
        }
        self.outbox.take(incidents)?;
        let reported = incidents.iter().filter(|incident| incident.report).cloned();
        unpoisoned(&self.taken).extend(reported);
        Ok(())
    }

    fn notify(&self, key: &str, notice: Notice) -> std::io::Result<()> {
        self.outbox.notify(key, notice)
    }

    fn persist(&self) -> std::io::Result<()> {
        self.outbox.persist()
    }
}

#[async_trait]
impl Notifier for Console {
    fn name(&self) -> &'static str {
        "console"
    }

    fn target(&self) -> String {
        "standard output".to_owned()
    }

    async fn notify(&self, alert: Alert<'_>, _: &str) -> Result<Accepted, DeliveryError> {
        let printed = match alert {
            Alert::Incident { incident, .. } => self.screen.alert(incident),
            Alert::Notice(notice) => self.screen.write(Style::new(), &notice.title),
        };
        // If stdout is closed, the end of the demo reports it.
        printed
            .map(|()| Accepted::default())
            .map_err(|error| DeliveryError::Permanent { reason: error.to_string(), status: 0 })
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        Ok(())
    }
}

/// Prints each example query as a command line, and below it its result.
fn run_queries(config: &Config, runtime: &tokio::runtime::Runtime, screen: &Screen) -> Result<(), Failure> {
    let program = std::env::args().next().unwrap_or_else(|| "tokenwarden".to_owned());
    for (title, query) in QUERIES {
        let store = &config.store.url;
        screen.print(&format!("\n{title}\n{program} sql --store '{store}' \"{query}\""))?;
        let mut out = std::io::stdout().lock();
        runtime.block_on(sql::answer(&config.store, query, Output::Table, &mut out))?;
    }
    Ok(())
}

/// Creates an empty folder for this demo. The data of an earlier demo are deleted. Fails if the folder has other contents.
fn create_empty(folder: &Path) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::Usage(format!("cannot replace the data folder {}: {error}", folder.display()));
    let has_contents = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(failed(error)),
    };
    if has_contents {
        if !folder.join(MARK).is_file() {
            let problem = format!("{} has contents that no demo created; give another folder", folder.display());
            return Err(Failure::Usage(problem));
        }
        let lock = std::fs::File::open(folder.join("lock"));
        if lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock))) {
            let problem = format!("another process uses {}; stop it or give --data DIR", folder.display());
            return Err(Failure::Unavailable(problem));
        }
        std::fs::remove_dir_all(folder).map_err(failed)?;
    }
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(folder.join(MARK), "")).map_err(failed)
}

/// Steps of the progress bar per day.
const STEPS_OF_A_DAY: u64 = 1_000;

/// Output of the demo: results on stdout, in colour on a terminal, and a progress bar on stderr.
#[derive(Clone)]
struct Screen {
    bar: ProgressBar,
    /// Alerts that can be updated in place. `None` if stdout is not a terminal that can move its cursor.
    shown: Option<Arc<Mutex<Shown>>>,
}

impl Screen {
    fn new(days: u32) -> Self {
        let steps = u64::from(days) * STEPS_OF_A_DAY;
        let bar = progress_bar(steps, PERCENT);
        bar.set_message("starting ClickHouse, reading GeoIP files");
        bar.tick();
        let can_move = std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|name| name != "dumb");
        Self { bar, shown: can_move.then(Arc::default) }
    }

    /// Prints an incident. On a terminal a change replaces the earlier state of the incident.
    fn alert(&self, incident: &Incident) -> std::io::Result<()> {
        let alert =
            ShownAlert { id: incident.id, style: alert::colour(incident.severity), text: notify::block(incident) };
        let Some(shown) = &self.shown else { return self.bar.suspend(|| write_alert(&alert)) };
        let mut shown = unpoisoned(shown);
        let size = console::Term::stdout().size_checked().unwrap_or((24, 80));
        let (up, alerts) = shown.put(alert, size);
        self.bar.suspend(|| {
            if up > 0 {
                // Up, to the first column, and clear to the end of the screen (ECMA-48). `anstream` would remove this
                // where colours are disabled.
                write!(std::io::stdout(), "\x1b[{up}A\r\x1b[J")?;
            }
            alerts.iter().try_for_each(write_alert)
        })
    }

    fn report(&self, done: &Done) -> Result<(), Failure> {
        let Done { tally, took_ms, score, later_uses: (uses, refused) } = done;
        let seconds = (*took_ms).max(1) as f64 / 1_000.0;
        self.print(&format!(
            "\n{} events in {seconds:.1} s, {} events/s: generated, scored and stored",
            grouped(tally.events),
            grouped((tally.events as f64 / seconds) as u64)
        ))?;
        if tally.dead_letters > 0 {
            self.print(&format!("{} dead letters", grouped(tally.dead_letters)))?;
        }
        self.print(&format!(
            "\n{:40} {:>7} {:>6} {:>7}   {}",
            "theft", "planted", "found", "missed", "time to first alert"
        ))?;
        let (mut planted, mut found) = (0, 0);
        for kind in &score.by_kind {
            planted += kind.planted;
            found += kind.found;
            let after = kind.minutes_to_alert.map_or(String::new(), |minutes| format!("{minutes:.0} min (median)"));
            let missed = kind.planted - kind.found;
            self.print(&format!("{:40} {:7} {:6} {missed:7}   {after}", kind.kind.title(), kind.planted, kind.found))?;
        }
        self.print(&format!("{:40} {planted:7} {found:6} {:7}", "all", planted - found))?;
        self.print(&format!("false alerts: {}", false_alerts(&score.raised_falsely)))?;
        self.print(&format!(
            "uses of revoked grants at the demo provider: {} refused, {} accepted",
            grouped(*refused as u64),
            grouped((uses - refused) as u64)
        ))
    }

    /// Prints `text` and a line break.
    fn print(&self, text: &str) -> Result<(), Failure> {
        self.write(Style::new(), text).map_err(|error| Failure::output("the results", &error))
    }

    fn write(&self, style: Style, text: &str) -> std::io::Result<()> {
        if let Some(shown) = &self.shown {
            unpoisoned(shown).clear();
        }
        let text = sanitize::lines(text);
        self.bar.suspend(|| writeln!(anstream::stdout().lock(), "{style}{text}{style:#}"))
    }
}

/// Writes the first line of an alert in its colour, and the reasons below it.
fn write_alert(alert: &ShownAlert) -> std::io::Result<()> {
    let mut out = anstream::stdout().lock();
    let style = alert.style;
    for (number, line) in alert.text.lines().enumerate() {
        if number == 0 { writeln!(out, "{style}{line}{style:#}")? } else { writeln!(out, "{line}")? }
    }
    Ok(())
}

/// `3 (impossible_travel 2, new_client 1)`: number of false incidents, and how many by the rule with the largest share.
fn false_alerts(incidents: &[Incident]) -> String {
    let mut by_rule: BTreeMap<&str, usize> = BTreeMap::new();
    for incident in incidents {
        let rule = incident.signals.first().map_or("no rule", |signal| signal.rule.as_str());
        *by_rule.entry(rule).or_default() += 1;
    }
    let parts: Vec<_> = by_rule.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
    if parts.is_empty() { "0".to_owned() } else { format!("{} ({})", incidents.len(), parts.join(", ")) }
}
