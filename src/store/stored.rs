//! Rows that the store already has. A process that ends between an insert and the commit of its offsets leaves rows of
//! messages that the next owner of the partition reads again, in other epochs. Before the first insert of a partition,
//! and whenever its offsets go back, the rows of its messages are looked up, and those that exist are not sent again.
//!
//! A repeated insert of the same process is recognised by its deduplication token instead.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use clickhouse::Client;
use clickhouse::error::Error;

use super::cluster::Cluster;
use super::fault::Fault;
use super::rows::{Batch, RowKey, Span};
use crate::lock::unpoisoned;

/// Inserts that run now. A process may have ended while the server still executes its insert.
fn running(cluster: Option<&Cluster>) -> String {
    // A node that receives a part of an insert runs it in another database.
    let (processes, database) = match cluster {
        None => ("system.processes".to_owned(), " AND current_database = currentDatabase()"),
        Some(cluster) => (cluster.all_replicas("system.processes"), ""),
    };
    format!(
        "SELECT query_id FROM {processes} WHERE query_kind = 'Insert'{database} AND position(query, 'token_events') > 0"
    )
}
const ACCESS_DENIED: u32 = 497;
/// Time for which a running insert of another process is awaited, and time between two looks.
const RUNNING_WAIT: Duration = Duration::from_secs(30);
const RUNNING_LOOK: Duration = Duration::from_millis(50);
/// Partitions in one statement, which may have 256 KiB. Each path of a replay is one.
const SPANS_MAX: usize = 200;

/// For each partition: the hour in which the oldest row at or after an offset was ingested, and the last offset. The
/// projection `positions` answers it from a few rows per part.
const LAST: &str = "SELECT toString(source_topic), source_partition, toInt64(toUnixTimestamp(min(hour))), max(last) \
                    FROM (SELECT source_topic, source_partition, toStartOfHour(ingested_at) AS hour, \
                    max(source_offset) AS last FROM token_events GROUP BY source_topic, source_partition, hour) WHERE ";
/// Rows of a partition between two offsets.
const ROWS: &str = "SELECT row_id, toUnixTimestamp64Milli(timestamp), event_id, incident_id FROM token_events \
                    WHERE source_topic = ? AND source_partition = ? AND source_offset BETWEEN ? AND ? \
                    AND ingested_at >= toDateTime(?, 'UTC')";

/// Adds rows between two offsets to the rollup. The engine writes a row and its part of the rollup one after the other,
/// so that the rollup may lack rows that exist. Rows that it has are not counted again, because it counts distinct rows.
const ROLLUP: &str = concat!(
    "INSERT INTO baseline_hours ",
    include_str!("rollup.sql"),
    "WHERE source_topic = ? AND source_partition = ? AND source_offset BETWEEN ? AND ? \
     AND ingested_at >= toDateTime(?, 'UTC') GROUP BY tenant_id, baseline, hour, ingested_month"
);

/// The partitions whose rows before an offset are known to be stored, and that have none from it on.
#[derive(Debug)]
pub(super) struct Stored {
    known: Mutex<Known>,
    /// The statement that lists the inserts that run now.
    running: String,
}

#[derive(Debug, Default)]
struct Known {
    /// Next offset by topic and partition.
    next: HashMap<(String, i32), i64>,
    /// Number of calls of [`Stored::forget`]. An insert that began before the last one proves nothing any more.
    forgotten: u64,
}

/// What the store has of the partition of a span, from the first offset of the span on.
struct Present {
    span: Span,
    /// Unix time of the hour.
    since: i64,
    last: i64,
}

impl Stored {
    pub(super) fn new(cluster: Option<&Cluster>) -> Self {
        Self { known: Mutex::default(), running: running(cluster) }
    }

    /// Forgets all partitions, because other processes may have written to them.
    pub(super) fn forget(&self) {
        let mut known = self.known();
        known.next.clear();
        known.forgotten += 1;
    }

    /// The rows of `events` that are not in the store; `None` if that is all of them. The second part is to be passed to
    /// [`Self::wrote`] after the insert.
    pub(super) async fn missing(&self, client: &Client, events: &Batch) -> Result<(Option<Batch>, Ends), Error> {
        let spans = events.spans();
        let mut ends: Vec<_> = spans.iter().map(|span| (span.topic.clone(), span.partition, span.last + 1)).collect();
        let (unknown, forgotten): (Vec<Span>, u64) = {
            let known = self.known();
            let next = |span: &Span| known.next.get(&(span.topic.clone(), span.partition)).copied();
            let is_unknown = |span: &Span| next(span).is_none_or(|next| span.first < next);
            // If one is unknown, all are looked up. Otherwise a repetition of this insert would contain other rows.
            let unknown = if spans.iter().any(is_unknown) { spans } else { Vec::new() };
            (unknown, known.forgotten)
        };
        if unknown.is_empty() {
            return Ok((None, Ends { ends, forgotten }));
        }
        wait_for_inserts(client, &self.running).await?;
        let mut present = Vec::new();
        for some in unknown.chunks(SPANS_MAX) {
            present.extend(self::present(client, some).await?);
        }
        let mut known = HashSet::new();
        for Present { span, since, last } in &present {
            let between = |sql| {
                let query = client.query(sql).bind(&span.topic).bind(span.partition);
                query.bind(span.first).bind(span.last).bind(since)
            };
            let rows = between(ROWS).fetch_all::<(u64, i64, String, String)>().await?;
            if !rows.is_empty() {
                between(ROLLUP).execute().await?;
            }
            known.extend(
                rows.iter()
                    .map(|(id, at, event, incident)| RowKey::of(*id, *at, [event.as_bytes(), incident.as_bytes()])),
            );
            // Later epochs are looked up too, until they are past the rows that exist.
            if *last > span.last {
                ends.retain(|(topic, partition, _)| *partition != span.partition || *topic != span.topic);
            }
        }
        if !known.is_empty() {
            tracing::info!(rows = known.len(), "rows of an earlier process are in the store and are not sent again");
        }
        Ok(((!known.is_empty()).then(|| events.without(&known)), Ends { ends, forgotten }))
    }

    /// Records that the rows up to `ends` are stored.
    pub(super) fn wrote(&self, Ends { ends, forgotten }: Ends) {
        let mut known = self.known();
        if known.forgotten == forgotten {
            known.next.extend(ends.into_iter().map(|(topic, partition, next)| ((topic, partition), next)));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        unpoisoned(&self.known)
    }
}

/// The ends of an insert.
pub(super) struct Ends {
    /// Topic, partition and next offset.
    ends: Vec<(String, i32, i64)>,
    /// [`Known::forgotten`] before the insert.
    forgotten: u64,
}

/// Waits until the inserts that run now have ended. Later inserts of other processes are not awaited.
async fn wait_for_inserts(client: &Client, statement: &str) -> Result<(), Error> {
    let began = tokio::time::Instant::now();
    let mut running: Option<HashSet<String>> = None;
    loop {
        let now: HashSet<String> = match client.query(statement).fetch_all::<String>().await {
            Ok(ids) => ids.into_iter().collect(),
            // The user may not read the list.
            Err(error) if Fault::of(&error) == Fault::Exception(ACCESS_DENIED) => return Ok(()),
            Err(error) => return Err(error),
        };
        let left: HashSet<String> = match running {
            None => now,
            Some(running) => running.intersection(&now).cloned().collect(),
        };
        if left.is_empty() {
            return Ok(());
        }
        if began.elapsed() > RUNNING_WAIT {
            tracing::warn!(
                "an insert has run for 30 s; if it is that of an earlier process, its rows may be stored twice"
            );
            return Ok(());
        }
        running = Some(left);
        tokio::time::sleep(RUNNING_LOOK).await;
    }
}

/// The spans whose partition has rows from their first offset on.
async fn present(client: &Client, spans: &[Span]) -> Result<Vec<Present>, Error> {
    let each = vec!["(source_topic = ? AND source_partition = ? AND last >= ?)"; spans.len()];
    let sql = format!("{LAST}{} GROUP BY source_topic, source_partition", each.join(" OR "));
    let bind =
        |query: clickhouse::query::Query, span: &Span| query.bind(&span.topic).bind(span.partition).bind(span.first);
    let found = spans.iter().fold(client.query(&sql), bind).fetch_all::<(String, i32, i64, i64)>().await?;
    let present = spans.iter().filter_map(|span| {
        let is_same =
            |(topic, partition, ..): &&(String, i32, i64, i64)| *topic == span.topic && *partition == span.partition;
        let (.., since, last) = *found.iter().find(is_same)?;
        Some(Present { span: span.clone(), since, last })
    });
    Ok(present.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insert_of_an_earlier_assignment_is_not_recorded() {
        let stored = Stored::new(None);
        let insert = |forgotten| Ends { ends: vec![("topic".to_owned(), 0, 7)], forgotten };
        let recorded = |stored: &Stored| stored.known().next.len();
        stored.wrote(insert(0));
        assert_eq!(recorded(&stored), 1);
        stored.forget();
        stored.wrote(insert(0));
        assert_eq!(recorded(&stored), 0);
        stored.wrote(insert(1));
        assert_eq!(recorded(&stored), 1);
    }

    /// The view and the repair compute the same.
    #[test]
    fn rollup_is_that_of_the_view() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        let view = words(include_str!("migrations/0006_row_identity.sql"));
        assert!(view.contains(&words(include_str!("rollup.sql"))), "{view}");
    }
}
