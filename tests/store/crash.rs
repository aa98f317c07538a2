//! Rows are written once, whatever other processes have written.

use std::ops::Range;

use tempfile::TempDir;
use tokenwarden::checkpoint::Position;
use tokenwarden::port::{EventRow, Rows as _, Store as _};
use tokenwarden::store::{ClickHouse, EpochRows, Reader};
use tokenwarden::verdict::{IncidentId, Outcome};

use super::rows::{INGESTED, allowed, epoch, event, push};
use super::{ask, change, child, embedded, physical_rows, turn};

/// A process is killed between an insert and the commit of its offsets. The next one reads the same messages in epochs
/// of another size, from an earlier offset on.
#[tokio::test]
async fn rows_of_a_killed_process_are_written_once() {
    const OTHER_EPOCH: u64 = 700;
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let mut writer = child::start("write", directory.path(), child::PLAIN);
    while writer.line() != "5" {}
    writer.signal("KILL");
    drop(writer);

    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    let before: u64 = physical_rows(&reader, "token_events").await.parse().unwrap();
    assert!(before >= 5 * child::EPOCH, "{before}");
    let end = before.next_multiple_of(OTHER_EPOCH) + OTHER_EPOCH;
    for begin in (OTHER_EPOCH..end).step_by(OTHER_EPOCH as usize) {
        store.write(&epoch(begin..begin + OTHER_EPOCH)).await.unwrap();
    }
    let end = end.to_string();
    assert_eq!(physical_rows(&reader, "token_events").await, end);
    let positions = "SELECT uniqExact(source_partition, source_offset), max(source_offset) + 1 FROM token_events";
    assert_eq!(ask(&reader, positions).await, format!("{end}\t{end}"));
    // The rollup counts the distinct events of an hour, approximately from some thousands on.
    let hours = "SELECT sum(events) FROM baseline_activity";
    let counted = ask(&reader, hours).await;
    let expected = "SELECT sum(events) FROM (SELECT uniq(concat(event_id, '/', toString(row_id))) AS events \
                    FROM token_events GROUP BY baseline, toStartOfHour(timestamp))";
    assert_eq!(counted, ask(&reader, expected).await);
    store.close().await;
}

/// Another member of the group wrote rows of a partition and ended before its commit. The partition comes back.
#[tokio::test]
async fn rows_of_another_member_are_written_once() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    let other = ClickHouse::open(&settings).await.unwrap();
    store.write(&epoch(0..100)).await.unwrap();
    other.write(&epoch(100..250)).await.unwrap();
    store.partitions_changed();
    store.write(&epoch(100..200)).await.unwrap();
    store.write(&epoch(200..300)).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    assert_eq!(physical_rows(&reader, "token_events").await, "300");
    other.close().await;
    store.close().await;
}

/// The engine died after it had written rows, and before it had written their part of the rollup.
#[tokio::test]
async fn rollup_of_existing_rows_is_completed() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    store.write(&epoch(0..50)).await.unwrap();
    change(&settings, "DETACH TABLE tokenwarden.baseline_hours_writer").await;
    store.write(&epoch(50..100)).await.unwrap();
    change(&settings, "ATTACH TABLE tokenwarden.baseline_hours_writer").await;
    let reader = Reader::open(&settings).await.unwrap();
    let hours = "SELECT sum(events) FROM baseline_activity";
    assert_eq!(ask(&reader, hours).await, "50");
    reader.close().await;
    store.close().await;

    let store = ClickHouse::open(&settings).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    store.write(&epoch(20..80)).await.unwrap();
    store.write(&epoch(80..120)).await.unwrap();
    assert_eq!(physical_rows(&reader, "token_events").await, "120");
    assert_eq!(ask(&reader, hours).await, "120");
    store.close().await;
}

/// Messages are read again after a change of rules, and are now part of an incident.
#[tokio::test]
async fn row_with_another_incident_replaces_the_earlier_one() {
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    store.write(&epoch(0..50)).await.unwrap();
    store.close().await;

    let store = ClickHouse::open(&settings).await.unwrap();
    let mut again = EpochRows::new();
    for number in 0..50 {
        let incident_id = (number == 7).then_some(IncidentId(7));
        push(&mut again, &event(number), &Outcome { incident_id, ..allowed() }, number as i64);
    }
    store.write(&again).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    assert_eq!(physical_rows(&reader, "token_events").await, "51", "one row is written again");
    let found = "SELECT count(), countIf(incident_id != '') FROM token_events FINAL";
    assert_eq!(ask(&reader, found).await, "50\t1");
    store.close().await;
}

/// A replay of more files than one statement looks up, repeated by another process in two halves.
#[tokio::test]
async fn rows_of_many_files_are_written_once() {
    const FILES: u64 = 210;
    let of_files = |files: Range<u64>| {
        let mut rows = EpochRows::new();
        for file in files {
            let position = Position::new(format!("events-{file}.ndjson"), 0, 7);
            let (event, outcome) = (event(file), allowed());
            rows.push_event(&EventRow {
                event: &event,
                outcome: &outcome,
                position: &position,
                index: 0,
                scored_at: 0,
                ingested_at: INGESTED,
            });
        }
        rows
    };
    let _turn = turn().await;
    let directory = TempDir::new().unwrap();
    let settings = embedded(directory.path());
    let store = ClickHouse::open(&settings).await.unwrap();
    store.write(&of_files(0..FILES)).await.unwrap();
    store.close().await;

    let store = ClickHouse::open(&settings).await.unwrap();
    store.write(&of_files(1..FILES + 1)).await.unwrap();
    store.write(&of_files(0..FILES / 2)).await.unwrap();
    let reader = Reader::open(&settings).await.unwrap();
    assert_eq!(physical_rows(&reader, "token_events").await, (FILES + 1).to_string());
    store.close().await;
}
