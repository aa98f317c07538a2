//! The command `tokenwarden sql`.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use tokenwarden::port::{Rows as _, Store as _};
use tokenwarden::store::{ClickHouse, EpochRows};

use super::rows::{NASTY, allowed, event, push};
use super::{embedded, library, turn};

fn sql(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tokenwarden"))
        .arg("sql")
        .args(["--store", &format!("embedded:{}", directory.display())])
        .args(arguments)
        // The folder of the store may be missing.
        .current_dir(std::env::temp_dir())
        .env("TOKENWARDEN__STORE__LIBRARY", library())
        .output()
        .unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn sql_prints_table_json_and_csv() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let store = ClickHouse::open(&embedded(directory.path())).await.unwrap();
    let mut rows = EpochRows::new();
    for (number, user) in [(0, "alice"), (1, NASTY)] {
        let mut event = event(number);
        event.event.user_id = Some(user.into());
        push(&mut rows, &event, &allowed(), number as i64);
    }
    assert_eq!(rows.len(), 2);
    store.write(&rows).await.unwrap();
    let query = "SELECT event_id, user_id FROM token_events ORDER BY event_id";

    // First while another process owns the store, then alone.
    let beside = printed(&sql(directory.path(), &[query]));
    store.close().await;
    let table = printed(&sql(directory.path(), &[query]));
    assert_eq!(table, beside);
    assert!(table.contains("event-0") && table.contains("alice") && table.contains('│'), "{table}");
    assert!(!table.chars().any(|c| c.is_control() && c != '\n'), "{table:?}");
    assert!(table.contains("␛[31m") && !table.contains('\u{202e}'), "{table}");

    let json = printed(&sql(directory.path(), &["--output", "json", query]));
    let second: serde_json::Value = serde_json::from_str(json.lines().nth(1).unwrap()).unwrap();
    assert_eq!(second["user_id"], NASTY);
    let csv = printed(&sql(directory.path(), &["--output", "csv", query]));
    assert!(csv.starts_with("\"event_id\",\"user_id\"\n\"event-0\",\"alice\"\n\"event-1\",\"a\nb\r\n"), "{csv}");
    let own = printed(&sql(directory.path(), &["SELECT 1 AS one FORMAT TSVWithNames"]));
    assert_eq!(own, "one\n1\n");
}

#[tokio::test]
async fn sql_errors_have_their_exit_status() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    ClickHouse::open(&embedded(directory.path())).await.unwrap().close().await;
    let missing = directory.path().join("missing");
    for (directory, query, status, told) in [
        (directory.path(), "SELEC 1", 2, "only SELECT"),
        (directory.path(), "SELECT * FROM nowhere", 2, "UNKNOWN_TABLE"),
        (directory.path(), "DROP TABLE token_events", 2, "only SELECT"),
        (missing.as_path(), "SELECT 1", 78, "there is no embedded store in"),
    ] {
        let output = sql(directory, &[query]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{query}: {said}");
        assert!(said.contains(told), "{query}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(output.stdout.is_empty());
    }
    assert!(!missing.exists());
}
