//! A ClickHouse engine that another process owns, its CPU time, and simulated events.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokenwarden::config::cache_folder;
use tokenwarden::lab::simulate::{Settings, Simulation};
use tokenwarden::store::{ClickHouse, Reader, StoreSettings, library_in};

/// Variables with the part of a child process, and its folder.
pub(crate) const PART: &str = "TOKENWARDEN_BENCH_PART";
pub(crate) const FOLDER: &str = "TOKENWARDEN_BENCH_FOLDER";
/// Part of the process that owns the engine.
pub(crate) const OWN: &str = "own";
/// Prefix of the result line of a child process.
pub(crate) const RESULT: &str = "result: ";
/// Unit of CPU times in `/proc`: `USER_HZ` is 100 on all architectures of Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// `binary`, a benchmark, as the child process that does `part`.
pub(crate) fn child(binary: &Path, part: &str, folder: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env(PART, part).env(FOLDER, folder);
    command
}

/// The store in `folder`.
pub(crate) fn settings(folder: &Path) -> StoreSettings {
    let library = library_in(&cache_folder().expect("a cache folder"));
    assert!(library.is_file(), "{} is missing: deploy/setup.sh fetches the engine", library.display());
    StoreSettings {
        url: format!("embedded:{}", folder.join("data").display()),
        library: Some(library),
        ..StoreSettings::default()
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// The part [`OWN`]: owns the store until the standard input ends.
pub(crate) fn own(folder: &Path) {
    runtime().block_on(async {
        let store = ClickHouse::open(&settings(folder)).await.expect("the store opens");
        println!("ready");
        std::io::stdin().read_to_end(&mut Vec::new()).expect("the input ends");
        store.close().await;
    });
}

/// The process that owns an empty store in `folder`. The store is removed at the end.
pub(crate) struct Owner {
    process: Child,
    data: std::path::PathBuf,
}

impl Owner {
    pub(crate) fn start(folder: &Path) -> Self {
        let data = folder.join("data");
        let _ = std::fs::remove_dir_all(&data);
        let this = std::env::current_exe().expect("this file");
        let mut command = child(&this, OWN, folder);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the owner starts");
        let mut said = String::new();
        let mut output = BufReader::new(process.stdout.take().expect("its output"));
        output.read_line(&mut said).expect("the owner opens the store");
        assert_eq!(said, "ready\n", "the owner opens the store");
        Self { process, data }
    }

    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(&self.process.id().to_string())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

/// The only value of the result of `sql`.
pub(crate) async fn number(reader: &Reader, sql: &str) -> f64 {
    let mut answer = reader.query(sql, "TabSeparated", &[]).await.expect("the query runs");
    let mut text = Vec::new();
    while let Some(bytes) = answer.next().await.expect("an answer") {
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text).expect("text").trim_end().parse().expect("a number")
}

/// User and system time of all threads of a process (proc(5), fields 14 and 15 of `stat`). `process`: its number, or
/// `self`.
pub(crate) fn cpu_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("the process runs");
    let fields = stat.rsplit_once(')').expect("the name is in parentheses").1.split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).map(|field| field.parse().expect("a number")).collect();
    ticks.iter().sum::<u64>() as f64 / TICKS_PER_SECOND
}

/// The lines of `events` events, in order of time.
pub(crate) fn simulate(events: usize) -> Vec<u8> {
    let mut simulation = Simulation::new(Settings { days: 3_650, ..Settings::fortnight(1_790_000_000_000) });
    let (mut lines, mut count, mut end) = (Vec::new(), 0, 0);
    while count < events {
        assert!(simulation.next_day(&mut lines), "there are enough days");
        while count < events
            && let Some(length) = lines[end..].iter().position(|byte| *byte == b'\n')
        {
            end += length + 1;
            count += 1;
        }
    }
    lines.truncate(end);
    lines
}
