//! `tokenwarden demo`: the whole of it at work, on a made-up fortnight and embedded parts.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use clap::Args;
use clap::builder::styling::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::sql::{self, Output};
use super::{Failure, grouped};
use crate::checkpoint::Position;
use crate::config::{Config, cache_folder};
use crate::deliver::{self, Deliverer, Outbox};
use crate::enrich::Enricher;
use crate::lab::simulate::{Score, Settings, Simulation, Theft, score};
use crate::notify;
use crate::pipeline::{Pipeline, Tally};
use crate::port::{self, Alert, Clock, DeliveryError, Message, Notice, Notifier, Polled, Source, SourceError};
use crate::sanitize;
use crate::store::ClickHouse;
use crate::telemetry::{self, Health, Metrics, SystemClock};
use crate::token::TokenHasher;
use crate::verdict::{Incident, Severity};
use crate::wire::Format;
use crate::worker::{Limits, Outside, Spread, Worker};

/// Show tokenwarden at work: a made-up fortnight with planted thefts, through the engine and the alerts of the
/// service, into an embedded ClickHouse. Needs no server.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where the data goes, made anew each time; a folder that something else is in is left alone.
    /// [default: demo in the cache folder]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Another number makes another fortnight.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many people the fortnight is about; machines go with them. Fewer than a few hundred leave judgement little
    /// to compare with.
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

/// Epochs as in the service, so that alerts come as the fortnight goes by; somebody waits.
const LIMITS: Limits = Limits { epoch_age_ms_max: Limits::LIVE.epoch_age_ms_max, ..Limits::REPLAY };

/// How long the last alerts may take to be told and noted.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(30);

/// The made-up tokens are none, so that any key serves.
const KEY_OF_DEMOS: &[u8] = b"tokenwarden demo";

/// Says that a folder was made by a demo, and may be taken away by the next one.
const MARK: &str = "made-by-tokenwarden-demo";

/// What an analyst may ask first: said above the answer, and the question. No character in them means something to a
/// shell within double quotes.
const QUESTIONS: [(&str, &str); 3] = [
    (
        "The incidents as they stand, gravest first:",
        "SELECT incident_id, severity, user_id, app_id, rules, round(log_odds, 1) AS z FROM incidents_latest \
         ORDER BY z DESC LIMIT 5",
    ),
    (
        "What was called from the addresses of an incident, the most first:",
        "SELECT incident_id, app_id, method, route, suspect_calls, suspect_bytes_out FROM blast_radius \
         WHERE suspect_calls > 0 ORDER BY suspect_calls DESC LIMIT 5",
    ),
    (
        "The networks that suspect events came from, by users:",
        "SELECT as_org, country, uniq(user_id) AS users, count() AS events FROM token_events \
         WHERE verdict IN ('alert', 'revoke') GROUP BY as_org, country ORDER BY users DESC, events DESC LIMIT 5",
    ),
];

/// Results go to stdout; the progress bar, where there is a terminal, to stderr.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    telemetry::start_logging("warn");
    let mut config = Config::load(None)?;
    config.geoip = super::installed_geoip();
    let folder = arguments.data.clone().or_else(|| Some(cache_folder()?.join("demo")));
    let folder = folder.ok_or_else(|| Failure::Usage("there is no cache folder: say --data DIR".to_owned()))?;
    make_anew(&folder)?;
    config.store.url = format!("embedded:{}", folder.display());
    config.outbox.dir = folder.join("outbox");

    let settings = arguments.settings(SystemClock.now_millis());
    let screen = Screen::new(settings.days);
    let runtime = super::runtime()?;
    let store = Arc::new(runtime.block_on(ClickHouse::open(&config.store))?);
    let shown = work(&config, settings, &runtime, &store, &screen).and_then(|done| {
        screen.report(&done)?;
        screen.say(&format!("\nthe data: {}", config.store.url))?;
        questions(&config, &runtime, &screen)
    });
    if let Some(store) = Arc::into_inner(store) {
        runtime.block_on(store.close());
    }
    shown
}

/// What there is to tell at the end.
struct Done {
    tally: Tally,
    /// Milliseconds of wall clock from the first event made up to the last one stored and told.
    took_ms: i64,
    score: Score,
}

fn work(
    config: &Config,
    settings: Settings,
    runtime: &tokio::runtime::Runtime,
    store: &Arc<ClickHouse>,
    screen: &Screen,
) -> Result<Done, Failure> {
    let rules = super::load_rules(config)?;
    let enricher = Enricher::new(&config.geoip, config.detection.trust_event_geo);
    if enricher.versions().is_empty() {
        screen.say("no GeoIP files: places and networks are not judged, and thefts are missed; run deploy/setup.sh")?;
    }
    let pipeline =
        Pipeline::new(enricher, Arc::new(rules.rules), TokenHasher::new(KEY_OF_DEMOS), config.engine_settings());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::default()));
    let notifiers: Vec<Arc<dyn Notifier>> = vec![Arc::new(Console { screen: screen.clone() })];
    let outbox = Outbox::open(&config.outbox.dir, &notifiers, Arc::clone(&clock)).map(Arc::new);
    let outbox = outbox.map_err(|error| Failure::Unavailable(format!("cannot open the outbox: {error}")))?;
    let deliverer = Deliverer {
        outbox: Arc::clone(&outbox),
        notifiers,
        revoker: None,
        store: Arc::clone(store),
        clock: Arc::clone(&clock),
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        settings: deliver::Settings { rows_wait: Duration::from_millis(100), ..deliver::Settings::default() },
    };
    let deliverer = deliverer.start(runtime.handle());
    let alerts = Arc::new(Alerts { outbox, taken: Mutex::default() });
    let outside = Outside {
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
    let (mut fortnight, author) = Story::begin(settings, screen.bar.clone())?;
    let mut worker = Worker::new(pipeline, Spread::Whole(Format::Native.into()), false, outside);
    let done = worker.run(&mut fortnight, &AtomicBool::new(false), &mut |_| Ok(()));
    let untold = runtime.block_on(async {
        let left = deliverer.settle(DELIVERY_PATIENCE).await;
        deliverer.stop(Duration::from_secs(1)).await;
        left
    });
    let tally = done?;
    let took_ms = SystemClock.now_millis() - began;
    let thefts = author.join().map_err(|_| Failure::Unavailable("the fortnight could not be made up".to_owned()))?;
    screen.bar.finish_and_clear();
    if untold > 0 {
        return Err(Failure::Unavailable(format!("{untold} alerts could not be told in time")));
    }
    let alerts = std::mem::take(&mut *alerts.taken.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Done { tally, took_ms, score: score(&thefts, &alerts) })
}

/// The channel of a demo: who is told sits in front of it.
struct Console {
    screen: Screen,
}

/// Keeps what is alerted, to be compared with what was planted: a message may combine several changes of an incident.
struct Alerts {
    outbox: Arc<Outbox>,
    taken: Mutex<Vec<Incident>>,
}

impl port::Outbox for Alerts {
    fn take(&self, incidents: &[Incident]) -> std::io::Result<()> {
        self.outbox.take(incidents)?;
        let told = incidents.iter().filter(|incident| incident.tell).cloned();
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).extend(told);
        Ok(())
    }

    fn notify(&self, key: &str, notice: Notice) -> std::io::Result<()> {
        self.outbox.notify(key, notice)
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

    async fn notify(&self, alert: Alert<'_>, _: &str) -> Result<u16, DeliveryError> {
        let told = match alert {
            Alert::Incident { incident, .. } => self.screen.alert(incident),
            Alert::Notice(notice) => self.screen.write(Style::new(), &notice.title),
        };
        // Nobody reads any more: the end of the demo says so.
        told.map(|()| 0).map_err(|error| DeliveryError::Permanent { reason: error.to_string(), status: 0 })
    }

    async fn probe(&self) -> Result<(), DeliveryError> {
        Ok(())
    }
}

/// Runs the ready questions as `tokenwarden sql` would, each after the line that asks it.
fn questions(config: &Config, runtime: &tokio::runtime::Runtime, screen: &Screen) -> Result<(), Failure> {
    let program = std::env::args().next().unwrap_or_else(|| "tokenwarden".to_owned());
    for (said, question) in QUESTIONS {
        let store = &config.store.url;
        screen.say(&format!("\n{said}\n{program} sql --store '{store}' \"{question}\""))?;
        let mut out = std::io::stdout().lock();
        runtime.block_on(sql::answer(&config.store, question, Output::Table, &mut out))?;
    }
    Ok(())
}

/// An empty folder for this demo. What an earlier one has left is taken away; anything else is not ours to take.
fn make_anew(folder: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::Usage(format!("the data folder {} cannot be made anew: {error}", folder.display()))
    };
    let there = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(failed(error)),
    };
    if there {
        if !folder.join(MARK).is_file() {
            let said = format!("{} holds something that no demo has made: name another folder", folder.display());
            return Err(Failure::Usage(said));
        }
        let lock = std::fs::File::open(folder.join("lock"));
        if lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock))) {
            let said = format!("another process has {} open: end it, or say --data DIR", folder.display());
            return Err(Failure::Unavailable(said));
        }
        std::fs::remove_dir_all(folder).map_err(failed)?;
    }
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(folder.join(MARK), "")).map_err(failed)
}

/// The fortnight as a source. Another thread makes it up, a day ahead.
struct Story {
    days: Receiver<Vec<u8>>,
    today: Vec<u8>,
    /// Bytes of today that were handed over.
    read: usize,
    days_done: u64,
    position: Position,
    bar: ProgressBar,
}

/// Steps of the progress bar for a day.
const STEPS_OF_A_DAY: u64 = 1_000;

impl Story {
    /// The thread gives what was planted once the story has been told.
    fn begin(settings: Settings, bar: ProgressBar) -> Result<(Self, JoinHandle<Vec<Theft>>), Failure> {
        let (sender, days) = mpsc::sync_channel(1);
        let author = std::thread::Builder::new().name("author".to_owned()).spawn(move || make_up(settings, &sender));
        let author = author.map_err(|error| Failure::Unavailable(format!("cannot start a thread: {error}")))?;
        let position = Position::new("demo", 0, 0);
        Ok((Self { days, today: Vec::new(), read: 0, days_done: 0, position, bar }, author))
    }
}

fn make_up(settings: Settings, days: &SyncSender<Vec<u8>>) -> Vec<Theft> {
    let mut simulation = Simulation::new(settings);
    loop {
        let mut day = Vec::new();
        // Where nobody listens any more, something else has gone wrong and is told there.
        if !simulation.next_day(&mut day) || days.send(day).is_err() {
            return simulation.thefts().to_vec();
        }
    }
}

impl Source for Story {
    fn poll(
        &mut self,
        max: usize,
        timeout: Duration,
        take: &mut dyn FnMut(Message<'_>),
    ) -> Result<Polled, SourceError> {
        if max > 0 && self.read == self.today.len() {
            match self.days.recv_timeout(timeout) {
                Ok(day) => (self.today, self.read, self.days_done) = (day, 0, self.days_done + 1),
                Err(RecvTimeoutError::Timeout) => return Ok(Polled::Messages(0)),
                Err(RecvTimeoutError::Disconnected) => return Ok(Polled::End),
            }
        }
        let mut count = 0;
        for line in self.today.get(self.read..).unwrap_or_default().split_inclusive(|byte| *byte == b'\n').take(max) {
            self.read += line.len();
            let payload = line.trim_ascii_end();
            take(Message { position: &self.position, key: None, payload, logged_at: None, replayed: false });
            self.position.offset += 1;
            count += 1;
        }
        let of_today = STEPS_OF_A_DAY * self.read as u64 / self.today.len().max(1) as u64;
        self.bar.set_position(self.days_done.saturating_sub(1) * STEPS_OF_A_DAY + of_today);
        self.bar.set_message(format!("day {}, {} events", self.days_done, grouped(self.position.offset as u64)));
        Ok(Polled::Messages(count))
    }
}

/// Where people look: results on stdout, in colour where it is a terminal, around the bar on stderr.
#[derive(Clone)]
struct Screen {
    /// Draws nothing where stderr is no terminal.
    bar: ProgressBar,
}

impl Screen {
    fn new(days: u32) -> Self {
        let steps = u64::from(days) * STEPS_OF_A_DAY;
        // Hides itself where stderr is no terminal.
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:40} {percent:>3} % {msg} {eta}");
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message("starting ClickHouse, reading GeoIP files");
        bar.tick();
        Self { bar }
    }

    fn alert(&self, incident: &Incident) -> std::io::Result<()> {
        let at = jiff::Timestamp::from_millisecond(incident.updated_at.millis()).unwrap_or_default();
        self.write(colour(incident.severity), &format!("{} {}", at.strftime("%a %d %b %H:%M"), notify::line(incident)))
    }

    fn report(&self, done: &Done) -> Result<(), Failure> {
        let Done { tally, took_ms, score } = done;
        let seconds = (*took_ms).max(1) as f64 / 1_000.0;
        self.say(&format!(
            "\n{} events in {seconds:.1} s, {} events/s: made up, judged and stored",
            grouped(tally.events),
            grouped((tally.events as f64 / seconds) as u64)
        ))?;
        if tally.dead_letters > 0 {
            self.say(&format!("{} dead letters", grouped(tally.dead_letters)))?;
        }
        self.say(&format!(
            "\n{:40} {:>7} {:>6} {:>7}   {}",
            "what was planted", "planted", "found", "missed", "first alert after"
        ))?;
        let (mut planted, mut found) = (0, 0);
        for kind in &score.by_kind {
            planted += kind.planted;
            found += kind.found;
            let after = kind.minutes_to_alert.map_or(String::new(), |minutes| format!("{minutes:.0} min (median)"));
            let missed = kind.planted - kind.found;
            self.say(&format!("{:40} {:7} {:6} {missed:7}   {after}", kind.kind.title(), kind.planted, kind.found))?;
        }
        self.say(&format!("{:40} {planted:7} {found:6} {:7}", "all", planted - found))?;
        self.say(&format!("raised falsely: {}", raised_falsely(&score.raised_falsely)))
    }

    /// Plain text on a line of its own.
    fn say(&self, text: &str) -> Result<(), Failure> {
        self.write(Style::new(), text).map_err(|error| Failure::output("the answer", &error))
    }

    fn write(&self, style: Style, text: &str) -> std::io::Result<()> {
        let text = sanitize::lines(text);
        self.bar.suspend(|| writeln!(anstream::stdout().lock(), "{style}{text}{style:#}"))
    }
}

fn colour(severity: Severity) -> Style {
    let colour = match severity {
        Severity::Critical => AnsiColor::BrightRed,
        Severity::High => AnsiColor::Red,
        Severity::Medium => AnsiColor::Yellow,
        Severity::Low | Severity::Info => return Style::new(),
    };
    colour.on_default()
}

/// `3 (impossible_travel 2, new_client 1)`: how many, and by which rule with the largest share.
fn raised_falsely(incidents: &[Incident]) -> String {
    let mut by_rule: BTreeMap<&str, usize> = BTreeMap::new();
    for incident in incidents {
        let rule = incident.signals.first().map_or("no rule", |signal| signal.rule.as_str());
        *by_rule.entry(rule).or_default() += 1;
    }
    let parts: Vec<_> = by_rule.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
    if parts.is_empty() { "0".to_owned() } else { format!("{} ({})", incidents.len(), parts.join(", ")) }
}
