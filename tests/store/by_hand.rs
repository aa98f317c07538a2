//! The command `tokenwarden revoke`, with the real engine and a local provider.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokenwarden::event::Kind;
use tokenwarden::port::Store as _;
use tokenwarden::sanitize::is_unsafe;
use tokenwarden::store::{ClickHouse, EpochRows, Reader, StoreSettings};
use tokio::runtime::Runtime;

use super::rows::{START, allowed, at, event, numbered, push, token};
use super::support::process::{eventually, free_port};
use super::support::web::Web;
use super::{ask, embedded, library, turn};

const PATIENCE: Duration = Duration::from_secs(60);

/// A grant in the store: tenant, user, grant.
type Stored = (&'static str, String, String);

/// A folder with a configuration, whose provider is `web`. Its mode is the default, `shadow`.
fn service(web: &Web, store: &str, provider: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    configure(folder.path(), web, store, provider);
    folder
}

fn configure(folder: &Path, web: &Web, store: &str, provider: &str) {
    let provider = provider.replace("WEB", &web.url);
    let text = format!("[store]\nurl = '{store}'\n[revoke.http]\ntoken = 's3cret'\n{provider}\n");
    std::fs::write(folder.join("t.toml"), text).unwrap();
}

/// An id that breaks terminals, URLs and SQL.
const HOSTILE: &str =
    "a\nb\r\n\tc d'; DROP TABLE token_events; -- \"e\" `f` \\ \u{1b}[31m 😀 \u{202e} {x:String} ? ../..%2f";

/// A provider that revokes a grant or token by its id.
const BY_ID: &str = "method = 'DELETE'\nurl = 'WEB/{tenant_id}/{id}'";

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwarden"));
    command.arg("revoke").args(arguments).args(["--config", "t.toml"]).current_dir(folder);
    command.env("TOKENWARDEN__STORE__LIBRARY", library()).stdin(Stdio::null());
    command
}

fn revoke(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

fn start(folder: &Path, arguments: &[&str]) -> Child {
    command(folder, arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Runs the command on a terminal of its own. Returns the exit status and all output.
fn on_terminal(folder: &Path, arguments: &[&str], typed: &str) -> (i32, String) {
    const SPAWN: &str = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut terminal = Command::new("python3");
    terminal.args(["-c", SPAWN, env!("CARGO_BIN_EXE_tokenwarden"), "revoke"]).args(arguments);
    terminal.args(["--config", "t.toml"]).current_dir(folder).env("TOKENWARDEN__STORE__LIBRARY", library());
    let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Exit status, lines of stdout as JSON, and stderr.
fn ended(output: &Output) -> (i32, Vec<Value>, String) {
    let (stdout, stderr) = (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(stdout.chars().chain(stderr.chars()).all(|c| c == '\n' || !is_unsafe(c)), "{stdout:?} {stderr:?}");
    assert!(!stderr.contains("s3cret") && !stdout.contains("s3cret"));
    (
        output.status.code().unwrap(),
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        stderr.into(),
    )
}

/// Runs `work` outside of the runtime of [`Web`].
fn now<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(work)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// The engine with the store of a folder, which the commands use as a server.
struct Engine {
    runtime: Runtime,
    settings: StoreSettings,
    store: ClickHouse,
}

impl Engine {
    /// Stores events of `grants`, used one hour after the other.
    fn start(folder: &Path, grants: &[Stored]) -> Self {
        let (runtime, settings) = (runtime(), embedded(&folder.join("data")));
        let store = runtime.block_on(ClickHouse::open(&settings)).unwrap();
        let mut rows = EpochRows::new();
        for (number, (tenant, user, family)) in grants.iter().enumerate() {
            let mut event = event(number as u64);
            event.event.timestamp = at(START + number as i64 * 3_600_000);
            event.event.tenant_id = Some((*tenant).into());
            event.event.user_id = Some(user.clone().into());
            event.event.family_id = Some(family.clone().into());
            event.event.session_id = Some("session-1".into());
            event.event.token_id = token(&format!("token-{number}"));
            push(&mut rows, &numbered(event), &allowed(), number as i64);
        }
        runtime.block_on(store.write(&rows)).unwrap();
        Self { runtime, settings, store }
    }

    /// Stores rejected credentials that name a user and the grant of another.
    fn attempts(&self, user: &str, family: &str) {
        let mut rows = EpochRows::new();
        for (number, (kind, status)) in [(Kind::Use, 401), (Kind::Refreshed, 400)].into_iter().enumerate() {
            let mut event = event(1_000 + number as u64);
            event.event.timestamp = at(START + 100 * 3_600_000);
            event.event.tenant_id = Some("acme".into());
            event.event.user_id = Some(user.to_owned().into());
            event.event.family_id = Some(family.to_owned().into());
            (event.event.kind, event.event.status) = (kind, Some(status));
            push(&mut rows, &numbered(event), &allowed(), 1_000 + number as i64);
        }
        self.runtime.block_on(self.store.write(&rows)).unwrap();
    }

    fn actions(&self) -> Vec<Value> {
        let sql = "SELECT action_id, kind, target, attempt, outcome, http_status, requested_by, reason FROM actions \
                   FINAL ORDER BY action_id, attempt FORMAT JSONEachRow";
        let text = self.runtime.block_on(async {
            let reader = Reader::open(&self.settings).await.unwrap();
            let text = ask(&reader, sql).await;
            reader.close().await;
            text
        });
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn stop(self) {
        self.runtime.block_on(self.store.close());
    }
}

fn grants(count: usize) -> Vec<Stored> {
    (0..count).map(|number| ("acme", "ana".to_owned(), format!("grant-{number:02}"))).collect()
}

#[test]
fn revoke_finds_previews_and_audits() {
    let _turn = now(turn());
    let web = Web::start();
    let folder = service(&web, "embedded:data", BY_ID);
    let folder = folder.path();
    let mut stored = grants(3);
    // The same ids in another tenant, and ids that are no ids.
    stored
        .extend([("other", "ana".to_owned(), "grant-00".to_owned()), ("acme", HOSTILE.to_owned(), HOSTILE.to_owned())]);
    let engine = Engine::start(folder, &stored);

    let (status, _, stderr) = ended(&revoke(folder, &["user", "ana", "--reason", "x", "--yes", "4"]));
    assert_eq!(status, 2, "{stderr}");
    assert!(stderr.contains(r#"the id occurs in 2 tenants: "acme", "other""#), "{stderr}");

    let acme = ["user", "ana", "--tenant", "acme"];
    let (status, preview, stderr) = ended(&revoke(folder, &[&acme[..], &["--dry-run"]].concat()));
    assert_eq!((status, &*stderr), (0, ""));
    let preview = &preview[0]["preview"];
    for (name, value) in [("requests", 3), ("grants", 3), ("users", 1), ("apps", 1)] {
        assert_eq!(preview[name], value, "{preview}");
    }
    assert_eq!(preview["last_use"], "2023-11-15T00:13:20Z");
    assert_eq!(preview["sample"][0]["target"], "family:grant-02", "the last used first");

    // Two of the three were used since then, and one was issued before.
    for (option, time, expected) in
        [("--since", "2023-11-14T23:00:00Z", 2), ("--issued-before", "2023-11-14T23:00:00Z", 1)]
    {
        let (_, preview, _) = ended(&revoke(folder, &[&acme[..], &["--dry-run", option, time]].concat()));
        assert_eq!(preview[0]["preview"]["requests"], expected, "{option}");
    }

    let reason = ["--reason", "laptop stolen"];
    for (yes, problem) in [(&["--yes", "4"][..], "the number of requests is 3"), (&[], "add --yes 3")] {
        let (status, _, stderr) = ended(&revoke(folder, &[&acme[..], &reason, yes].concat()));
        assert_eq!(status, 2, "{stderr}");
        assert!(stderr.contains(problem) && stderr.contains("nothing was requested"), "{stderr}");
    }
    assert!(web.requests().is_empty());

    // The mode is shadow, and the operator revokes nevertheless. One grant is already gone.
    web.answer(&[200, 404, 200]);
    let fast = ["--yes", "3", "--per-minute", "6000", "--by", "Ana Müller"];
    let (status, results, stderr) = ended(&revoke(folder, &[&acme[..], &reason, &fast].concat()));
    assert_eq!(status, 0, "{stderr}");
    let requests = web.requests();
    let paths: Vec<_> = requests.iter().map(|request| &*request.path).collect();
    assert_eq!(paths, ["/acme/grant-02", "/acme/grant-01", "/acme/grant-00"]);
    let totals = &results[3];
    assert_eq!(results[0]["radius"], "grant");
    assert!(results[0]["revoked_at"].is_string() && results[0]["verified_at"].is_null(), "{}", results[0]);
    assert_eq!((&totals["done"], &totals["already_gone"], &totals["rows_waiting"]), (&json!(2), &json!(1), &json!(0)));
    let rows = engine.actions();
    let [preview, first, second, _] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((&preview["kind"], &preview["target"]), (&json!("revoke_by_hand"), &json!("user:ana")));
    assert_eq!(first["action_id"], requests[0].header("idempotency-key").unwrap());
    assert_eq!((&first["outcome"], &second["outcome"]), (&json!("done"), &json!("already_gone")));
    assert_eq!((&first["requested_by"], &first["reason"]), (&json!("Ana Müller"), &json!("laptop stolen")));

    // An id is data.
    let (status, _, stderr) =
        ended(&revoke(folder, &["grant", HOSTILE, "--reason", "x", "--yes", "1", "--per-minute", "6000"]));
    assert_eq!(status, 0, "{stderr}");
    assert!(web.requests()[3].path.starts_with("/acme/a%0Ab%0D%0A"), "{:?}", web.requests()[3].path);
    assert_eq!(engine.actions().iter().filter(|row| row["target"] == HOSTILE).count(), 1);
    let (status, _, stderr) = ended(&revoke(folder, &["user", "x' OR '1' = '1", "--reason", "x", "--yes", "4"]));
    assert_eq!(status, 2, "{stderr}");
    assert!(stderr.contains("no matching events"), "{stderr}");
    let (status, _, _) = ended(&revoke(folder, &["user", "", "--reason", "x", "--yes", "4"]));
    assert_eq!((status, web.requests().len()), (2, 4));
    engine.stop();
}

#[test]
fn revoke_by_user_asks_once_per_user() {
    let _turn = now(turn());
    let web = Web::start();
    let provider = "preset = 'okta_sessions'\nurl = 'WEB'\nradius = 'user'";
    let folder = service(&web, "embedded:data", provider);
    let folder = folder.path();
    let mut stored = grants(3);
    stored.extend([("acme", "bob".to_owned(), "grant-9".to_owned()), ("acme", String::new(), "grant-8".to_owned())]);
    let engine = Engine::start(folder, &stored);
    web.answer(&[204, 204]);
    let arguments = ["app", "app-1", "--reason", "x", "--yes", "2", "--per-minute", "6000"];
    let (status, _, stderr) = ended(&revoke(folder, &arguments));
    // The grant without a user is refused before the start.
    assert_eq!(status, 69, "{stderr}");
    assert!(stderr.contains("NOT POSSIBLE  1 grant") && stderr.contains("a user, whose id is not known"), "{stderr}");
    assert!(stderr.contains("okta_sessions: revokes all Okta sessions of a user"), "{stderr}");
    assert!(stderr.contains(": 1 of 2 requests are done") && stderr.contains(": 2 of 2 requests are done"), "{stderr}");
    let paths: Vec<_> = web.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/api/v1/users/bob/sessions?oauthTokens=true", "/api/v1/users/ana/sessions?oauthTokens=true"]);
    let rows = engine.actions();
    let of =
        |kind: &str, outcome: &str| rows.iter().filter(|row| row["kind"] == kind && row["outcome"] == outcome).count();
    assert_eq!((of("revoke_user", "done"), of("revoke_family", "failed")), (2, 1), "{rows:?}");
    engine.stop();
}

#[test]
fn revoke_informs_users_on_request() {
    let _turn = now(turn());
    let (web, users) = (Web::start(), Web::start());
    let folder = service(&web, "embedded:data", BY_ID);
    let folder = folder.path();
    let mut stored = grants(2);
    stored.extend([
        ("acme", "bob".to_owned(), "grant-7".to_owned()),
        ("acme", "eve".to_owned(), "grant-8".to_owned()),
        ("acme", String::new(), "grant-9".to_owned()),
    ]);
    let engine = Engine::start(folder, &stored);
    let arguments = ["app", "app-1", "--reason", "x", "--yes", "5", "--per-minute", "6000"];
    let with_messages = [&arguments[..], &["--notify-users"]].concat();
    let (status, _, stderr) = ended(&revoke(folder, &with_messages));
    assert!(status == 2 && stderr.contains("--notify-users needs [notify_users]"), "{stderr}");
    assert!(web.requests().is_empty());

    let file = folder.join("t.toml");
    let section =
        format!("[notify_users.webhook]\nurl = '{}/users'\nsecret = 'a-secret-of-more-than-16-bytes'\n", users.url);
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + &section).unwrap();
    // The grant without a user, those of eve and bob, and two of ana. That of eve is already gone.
    web.answer(&[200, 404, 200, 200, 200]);
    let (status, _, stderr) = ended(&revoke(folder, &with_messages));
    assert_eq!(status, 0, "{stderr}");
    assert!(stderr.contains("messages to users: 2 sent, 0 failed"), "{stderr}");
    let bodies: Vec<Value> =
        users.requests().iter().map(|request| serde_json::from_str(&request.body).unwrap()).collect();
    let informed: Vec<_> = bodies.iter().map(|body| (&body["type"], &body["user_id"])).collect();
    let revoked = json!("revoked");
    assert_eq!(informed, [(&revoked, &json!("ana")), (&revoked, &json!("bob"))], "each user once");
    for body in &bodies {
        assert!(body["incident_id"].as_str().unwrap().starts_with("HAND-"), "{body}");
        assert!(body["text"].as_str().unwrap().contains("HAND-"), "{body}");
    }
    engine.stop();
}

/// Anyone can send a rejected credential with the ids of others.
#[test]
fn attempts_choose_no_grant_to_revoke() {
    let _turn = now(turn());
    let web = Web::start();
    let folder = service(&web, "embedded:data", "preset = 'okta_sessions'\nurl = 'WEB'\nradius = 'user'");
    let folder = folder.path();
    let engine = Engine::start(folder, &grants(2));
    engine.attempts("mallory", "grant-00");
    engine.attempts("ceo", "grant-01");
    let (status, _, stderr) = ended(&revoke(folder, &["user", "mallory", "--reason", "x", "--yes", "1"]));
    assert_eq!(status, 2, "{stderr}");
    assert!(stderr.contains("no matching events"), "{stderr}");
    web.answer(&[204]);
    let fast = ["--reason", "x", "--yes", "1", "--per-minute", "6000"];
    let (status, _, stderr) = ended(&revoke(folder, &[&["grant", "grant-01"][..], &fast].concat()));
    assert_eq!(status, 0, "{stderr}");
    let paths: Vec<_> = web.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/api/v1/users/ana/sessions?oauthTokens=true"]);
    engine.stop();
}

#[test]
fn revoke_survives_every_answer() {
    let _turn = now(turn());
    let web = Web::start();
    let folder = service(&web, "embedded:data", BY_ID);
    let folder = folder.path();
    let engine = Engine::start(folder, &grants(8));
    web.answer_come_again(1);
    web.answer_come_again_at("Sun, 06 Nov 1994 08:49:37 GMT");
    web.answer(&[500, 404]);
    web.answer_body(200, "\u{1b}[2J garbage \u{202e}");
    web.answer_elsewhere("http://127.0.0.1:9/elsewhere");
    web.answer(&[200, 401]);
    let arguments = ["session", "session-1", "--reason", "x", "--yes", "8", "--per-minute", "6000"];
    let (status, results, stderr) = ended(&revoke(folder, &arguments));
    assert_eq!(status, 69, "{stderr}");
    assert!(stderr.contains("rejects the credential of [revoke.http]: the provider answered 401"), "{stderr}");
    let first = web.requests();
    assert_eq!(first.len(), 8, "nothing is requested after a 401");
    assert!(first[1].at - first[0].at >= Duration::from_secs(1), "Retry-After of a second");
    let done = |results: &[Value]| results.iter().filter(|result| result["outcome"] == "done").count();
    assert_eq!((done(&results), &results[8]["already_gone"], &results[8]["left"]), (2, &json!(1), &json!(4)));

    // The same command offers the unfinished job, and the resumed job repeats no request that succeeded.
    let (status, _, stderr) = ended(&revoke(folder, &arguments));
    let job = results[8]["job"].as_str().unwrap();
    assert_eq!(status, 2, "{stderr}");
    assert!(stderr.contains(&format!("--resume {job}")) && stderr.contains("4 of 8 requests"), "{stderr}");
    let (status, results, stderr) = ended(&revoke(folder, &["--resume", job, "--per-minute", "6000"]));
    assert_eq!(status, 0, "{stderr}");
    assert_eq!((&results[8]["done"], &results[8]["already_gone"]), (&json!(7), &json!(1)));
    let again = web.requests().split_off(8);
    assert_eq!(again.len(), 5, "four were left, and the redirect had failed");
    let key = |number: usize, requests: &[super::support::web::Asked]| {
        requests.iter().filter(|r| r.header("idempotency-key") == results[number]["key"].as_str()).count()
    };
    assert_eq!((0..8).map(|number| key(number, &again)).sum::<usize>(), 5);
    let rows = engine.actions();
    let of = |outcome: &str| rows.iter().filter(|row| row["outcome"] == outcome).count();
    // Retried: two of 429, one of 500. Failed: the redirect, and the rejected credential.
    assert_eq!((of("retry"), of("failed"), of("done"), of("already_gone")), (3, 2, 7, 1), "{rows:?}");
    engine.stop();
}

#[test]
fn killed_job_is_resumed_without_repetition() {
    let _turn = now(turn());
    let web = Web::start();
    let folder = service(&web, "embedded:data", BY_ID);
    let folder = folder.path();
    let engine = Engine::start(folder, &grants(30));
    let arguments = ["user", "ana", "--reason", "x", "--yes", "30", "--per-minute", "3000"];
    let mut child = start(folder, &arguments);
    web.wait_for(8);
    web.hold(true);
    let held = web.requests().len();
    // The request that gets no answer.
    web.wait_for(held + 1);
    let (status, _, stderr) = ended(&revoke(folder, &arguments));
    assert_eq!(status, 69, "{stderr}");
    assert!(stderr.contains("another process works on the same command"), "{stderr}");
    child.kill().unwrap();
    child.wait().unwrap();
    web.hold(false);
    let before = web.requests().len();
    let (status, _, stderr) = ended(&revoke(folder, &arguments));
    assert_eq!(status, 2, "{stderr}");
    let job = stderr.split("--resume ").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    let (status, results, stderr) = ended(&revoke(folder, &["--resume", job, "--per-minute", "6000"]));
    assert_eq!(status, 0, "{stderr}");
    assert_eq!((&results[30]["done"], &results[30]["rows_waiting"]), (&json!(30), &json!(0)));
    let all = web.requests();
    let key = |index: usize| all[index].header("idempotency-key").unwrap();
    let early: Vec<_> = (0..before).map(key).collect();
    let repeated: Vec<_> = (before..all.len()).map(key).filter(|key| early.contains(key)).collect();
    // Only the request whose answer never came is repeated, with its key.
    assert_eq!(repeated, [early[before - 1]]);
    assert_eq!(all.len(), 31);
    let rows = engine.actions();
    assert_eq!(rows.iter().filter(|row| row["outcome"] == "done").count(), 30);
    engine.stop();
}

#[test]
fn failing_provider_stops_the_job() {
    let _turn = now(turn());
    let web = Web::start();
    let folder = service(&web, "embedded:data", BY_ID);
    // The command starts the engine itself.
    Engine::start(folder.path(), &grants(20)).stop();
    web.answer(&[400; 20]);
    let arguments = ["user", "ana", "--reason", "x", "--yes", "20", "--per-minute", "6000"];
    let (status, _, stderr) = ended(&revoke(folder.path(), &arguments));
    assert_eq!(status, 69, "{stderr}");
    assert!(stderr.contains("stopped: 10 of 10 requests failed, which is more than 20 %"), "{stderr}");
    assert_eq!(web.requests().len(), 10);
}

#[test]
fn token_is_revoked_while_the_store_is_away() {
    let _turn = now(turn());
    let web = Web::start();
    let away = format!("http://127.0.0.1:{}", free_port());
    let provider = "method = 'DELETE'\nurl = 'WEB/{id}'";
    let folder = service(&web, &away, provider);
    let folder = folder.path();
    let (status, _, stderr) = ended(&revoke(folder, &["user", "ana", "--reason", "x", "--yes", "1"]));
    assert_eq!(status, 69, "{stderr}");
    std::fs::create_dir(folder.join("outbox")).unwrap();
    std::fs::write(folder.join("outbox/pause-actions"), "").unwrap();
    let arguments = ["token", "tok-1", "--reason", "leaked key", "--yes", "1", "--journal", "job.ndjson"];
    let (status, _, stderr) = ended(&revoke(folder, &arguments));
    assert_eq!((status, web.requests().len()), (69, 0), "{stderr}");
    assert!(stderr.contains("--despite-pause"), "{stderr}");
    let (status, results, stderr) = ended(&revoke(folder, &[&arguments[..], &["--despite-pause"]].concat()));
    assert_eq!(status, 0, "{stderr}");
    assert!(stderr.contains("NOTHING KNOWN") && stderr.contains("the store has not got 2 rows"), "{stderr}");
    assert_eq!(web.requests().iter().map(|r| &*r.path).collect::<Vec<_>>(), ["/tok-1"]);
    assert_eq!((&results[0]["outcome"], &results[1]["rows_waiting"]), (&json!("done"), &json!(2)));
    let (status, _, stderr) = ended(&revoke(folder, &[&arguments[..], &["--despite-pause"]].concat()));
    assert_eq!(status, 2, "{stderr}");

    // With the store, the job writes its rows and requests nothing.
    let engine = Engine::start(folder, &[]);
    configure(folder, &web, "embedded:data", provider);
    std::fs::remove_file(folder.join("outbox/pause-actions")).unwrap();
    let job = results[1]["job"].as_str().unwrap();
    let (status, results, stderr) = ended(&revoke(folder, &["--resume", job, "--journal", "job.ndjson"]));
    assert_eq!((status, &results[1]["rows_waiting"]), (0, &json!(0)), "{stderr}");
    assert_eq!(web.requests().len(), 1);
    let rows = engine.actions();
    assert_eq!(rows.iter().map(|row| &row["target"]).collect::<Vec<_>>(), ["token:tok-1", "tok-1"]);

    // A signal stops a job after the request.
    web.hold(true);
    let mut child = start(folder, &["token", "tok-2", "--reason", "x", "--yes", "1"]);
    web.wait_for(2);
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    web.hold(false);
    let ended = eventually(PATIENCE, "the job ends", || child.try_wait().unwrap());
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "its only request was answered");

    // On a terminal, the id or the number confirms, and nothing else.
    for (typed, expected, requests) in [("yes\n", 2, 2), ("tok-3\n", 0, 3), ("1\n", 0, 4)] {
        let (status, shown) = on_terminal(folder, &["token", "tok-3", "--reason", "x"], typed);
        assert_eq!((status, web.requests().len()), (expected, requests), "{typed}{shown}");
        assert!(shown.contains("Type 1, the number of requests, or tok-3, the id, to revoke:"), "{shown}");
        assert_eq!(shown.contains("done                  1"), expected == 0, "a table: {shown}");
    }
    engine.stop();
}
