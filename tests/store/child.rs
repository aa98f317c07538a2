//! Support for tests with a second process: it is this test binary, started with the name of a part.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use tokenwarden::port::Store as _;
use tokenwarden::store::{ClickHouse, Reader, StoreSettings};

use super::rows::{epoch, full_event, push};
use super::{ask, embedded};

/// Variables with the child's part and its directory.
const PART: &str = "TOKENWARDEN_TEST_PART";
const DIRECTORY: &str = "TOKENWARDEN_TEST_DIRECTORY";
/// Prefix of lines for the parent; the test harness prints others.
const LINE: &str = "child: ";

/// A running child. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

/// Rows in one epoch of the part `write`.
pub(crate) const EPOCH: u64 = 500;

/// Starts a child with `part` on `directory`. `wrapper` is a shell script that ends with `"$@"`.
pub(crate) fn start(part: &str, directory: &Path, wrapper: &str) -> Running {
    let mut child = Command::new("bash")
        .args(["-c", wrapper, "bash"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child::child_runs_its_part", "--nocapture"])
        .env(PART, part)
        .env(DIRECTORY, directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    Running { child, lines }
}

pub(crate) const PLAIN: &str = r#"exec "$@""#;
/// In the directory, whose file `config.xml` the engine reads.
pub(crate) const INSIDE: &str = r#"cd "$TOKENWARDEN_TEST_DIRECTORY" && exec "$@""#;

impl Running {
    /// The next line from the child; panics if the child has ended.
    pub(crate) fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the child ended");
            // The harness may have printed the start of the line.
            if let Some((_, said)) = line.trim_end().split_once(LINE) {
                return said.to_owned();
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Ends the child and waits for it. Returns its exit code; `None` if a signal ended it.
    pub(crate) fn end(mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        let mut rest = Vec::new();
        self.lines.read_to_end(&mut rest).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the part that the environment names. Without one, it does nothing.
#[test]
fn child_runs_its_part() {
    let Some(part) = std::env::var_os(PART) else { return };
    let directory = std::env::var_os(DIRECTORY).expect("a directory");
    let settings = embedded(Path::new(&directory));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let code = runtime.block_on(play(&part.to_string_lossy(), &settings));
    // As `main` does.
    std::process::exit(code);
}

async fn play(part: &str, settings: &StoreSettings) -> i32 {
    let store = ClickHouse::open(settings).await.unwrap();
    match part {
        // Writes until it is killed.
        "write" => {
            for number in 0.. {
                store.write(&epoch(number * EPOCH..(number + 1) * EPOCH)).await.unwrap();
                say(&(number + 1).to_string());
            }
        }
        // Owns the directory until its standard input ends.
        "own" => {
            store.write(&epoch(0..10)).await.unwrap();
            say("ready");
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        }
        // Writes and reads while another process owns the directory.
        "visit" => {
            store.write(&epoch(10..30)).await.unwrap();
            let reader = Reader::open(settings).await.unwrap();
            say(&ask(&reader, "SELECT count() FROM token_events").await);
        }
        // Exits without closing anything.
        "leave" => {
            store.write(&epoch(0..10)).await.unwrap();
            std::mem::forget(store);
            return 7;
        }
        // Waits for SIGTERM, and closes in order.
        "wait" => {
            let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
            say("ready");
            terminated.recv().await;
        }
        // Writes more than the file limit allows, then a little.
        "overfill" => {
            let mut rows = epoch(0..0);
            for number in 0..20_000 {
                let mut event = full_event();
                event.event.event_id = format!("{number}").into();
                event.event.endpoint = Some(format!("/{:0>300}", number * 7_919_111).into());
                push(&mut rows, &event, &super::rows::allowed(), number);
            }
            say(&match store.write(&rows).await {
                Ok(()) => "written".to_owned(),
                Err(error) => error.to_string(),
            });
        }
        other => panic!("unknown part {other}"),
    }
    store.close().await;
    3
}

fn say(text: &str) {
    use std::io::Write as _;
    // Not through the harness, which may buffer it.
    let mut out = std::io::stdout().lock();
    writeln!(out, "{LINE}{text}").and_then(|()| out.flush()).unwrap();
}
