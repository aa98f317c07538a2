//! Writes to and reads from ClickHouse: a server, or the same engine inside this process.
//!
//! Rows are encoded as they arrive ([`EpochRows`]) and sent together over HTTP, with a deduplication token that
//! identifies them. The server thus stores an epoch once, however often it is sent. An embedded directory is served by
//! its owner on loopback, so all processes, including the owner, use it like a server.

mod cluster;
mod embedded;
mod endpoint;
mod engine;
mod fault;
mod feedback;
mod incident_work;
mod migration;
mod native;
mod null;
mod rows;
mod settings;
mod statement;
mod stored;
mod tables;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clickhouse::query::BytesCursor;
use clickhouse::{Client, Compression};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Mutex;

pub(crate) use self::feedback::Feedback;
pub(crate) use self::incident_work::{WorkChange, WorkStatus};
pub use self::migration::schema;
pub use self::null::{NullRows, NullStore};
use self::rows::Batch;
pub use self::rows::EpochRows;
use self::settings::Location;
pub use self::settings::StoreSettings;
pub use self::settings::library_in;
use self::stored::Stored;
use self::tables::TABLES;
use crate::kill_point::{Step, reach};
use crate::outgoing::is_loopback;
use crate::port::{Rows as _, Store, StoreError};

/// Timeout for all requests that opening sends.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout for sending one piece of an insert.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// Timeout for the server to write an insert. Afterwards the insert is sent again.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// Size in bytes of the pieces of an insert.
const PIECE_BYTES: usize = 1 << 20;

/// A ClickHouse database for writing. The first write opens it if necessary.
#[derive(Debug)]
pub struct ClickHouse {
    settings: StoreSettings,
    /// `None` until it is opened, and after a failure that opening it again may solve.
    link: Mutex<Option<Arc<Link>>>,
    inserts: Vec<(&'static str, String)>,
    stored: Stored,
}

/// An open connection to the engine.
#[derive(Debug)]
struct Link {
    client: Writer,
    owner: Option<embedded::Owner>,
}

/// A client, whose own `Debug` would show the password.
struct Writer(Client);

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer(..)")
    }
}

impl ClickHouse {
    /// The store of `settings`, not opened yet.
    pub(crate) fn new(settings: &StoreSettings) -> Self {
        let inserts = TABLES.iter().map(|table| (table.name, table.insert())).collect();
        Self {
            settings: settings.clone(),
            link: Mutex::default(),
            inserts,
            stored: Stored::new(settings.on_cluster().as_ref()),
        }
    }

    /// Opens the store of `settings`, and creates or updates its tables. A missing embedded directory is created. If
    /// another process has it open, that process is used as a server.
    pub async fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        let store = Self::new(settings);
        store.connect().await?;
        Ok(store)
    }

    /// Opens the store if it is not open.
    pub(crate) async fn connect(&self) -> Result<(), StoreError> {
        self.link().await.map(drop)
    }

    /// Closes an embedded engine. Dropping does the same but blocks the thread.
    pub async fn close(self) {
        close(self.link.into_inner().and_then(Arc::into_inner).and_then(|link| link.owner)).await;
    }

    /// Stores a verdict of a person. A repeated call with the same value has no effect.
    pub(crate) async fn give(&self, feedback: &Feedback) -> Result<(), StoreError> {
        self.append("feedback", feedback::INSERT, &feedback.values()).await
    }

    /// Adds a change of the work on an incident.
    pub(crate) async fn change_work(&self, change: &WorkChange) -> Result<(), StoreError> {
        self.append("incident_work", incident_work::INSERT, &change.values()).await
    }

    /// Adds a row by `sql`, in which every question mark stands for one of `values`, each escaped as a text.
    async fn append(&self, table: &str, sql: &str, values: &[String]) -> Result<(), StoreError> {
        let link = self.link().await?;
        let insert = values.iter().fold(link.client.0.query(sql), |insert, value| insert.bind(value));
        insert.execute().await.map_err(|error| fault::store_error(&format!("writing to {table}"), &error))
    }

    async fn link(&self) -> Result<Arc<Link>, StoreError> {
        let mut slot = self.link.lock().await;
        if let Some(link) = &*slot {
            return Ok(Arc::clone(link));
        }
        let link = Arc::new(Link::open(&self.settings).await?);
        *slot = Some(Arc::clone(&link));
        Ok(link)
    }

    /// Makes the next write open the store again, if that can help: the owner of an embedded directory may have ended,
    /// or tables and rights of a server may have been restored.
    async fn reopen_after(&self, fault: fault::Fault, lost: &Arc<Link>) {
        let mut slot = self.link.lock().await;
        let may_help = fault == fault::Fault::Network || !fault.is_retriable();
        if may_help && lost.owner.is_none() && slot.as_ref().is_some_and(|link| Arc::ptr_eq(link, lost)) {
            *slot = None;
        }
    }

    async fn insert(&self, link: &Link, batch: &Batch) -> Result<(), clickhouse::error::Error> {
        let statement = self.inserts.iter().find(|(table, _)| *table == batch.table.name);
        let statement = statement.map_or_else(|| batch.table.insert(), |(_, statement)| statement.clone());
        let mut insert = link
            .client
            .0
            .insert_formatted_with(statement)
            .with_setting("insert_deduplication_token", batch.deduplication_token())
            .with_timeouts(Some(SEND_TIMEOUT), Some(END_TIMEOUT));
        let mut bytes = Bytes::from(batch.encoded());
        while !bytes.is_empty() {
            insert.send(bytes.split_to(bytes.len().min(PIECE_BYTES))).await?;
        }
        insert.end().await
    }

    /// Inserts those rows of `events` that the table does not have.
    async fn insert_events(&self, link: &Link, events: &Batch) -> Result<(), clickhouse::error::Error> {
        let (rest, ends) = self.stored.missing(&link.client.0, events).await?;
        let missing = rest.as_ref().unwrap_or(events);
        if !missing.is_empty() {
            self.insert(link, missing).await?;
        }
        self.stored.wrote(ends);
        Ok(())
    }

    /// Reports a failed insert of `batch`.
    async fn checked(
        &self,
        link: &Arc<Link>,
        batch: &Batch,
        written: Result<(), clickhouse::error::Error>,
    ) -> Result<(), StoreError> {
        let Err(error) = written else { return Ok(()) };
        self.reopen_after(fault::Fault::of(&error), link).await;
        Err(fault::store_error(&format!("writing to {}", batch.table.name), &error))
    }
}

impl Link {
    async fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        let (client, owner) = connect(settings, Rights::Write).await?;
        let migrated = tokio::time::timeout(OPEN_TIMEOUT, migration::migrate(&client, settings)).await;
        let late = || StoreError::Retriable(format!("{}: no answer", settings.opening()));
        match migrated.unwrap_or_else(|_| Err(late())) {
            Ok(client) => {
                let client = client
                    .with_setting("async_insert", "0")
                    .with_setting("insert_deduplicate", "1")
                    // Merges remove copies. Looking for them in every insert takes most of its time.
                    .with_setting("optimize_on_insert", "0")
                    .with_setting("deduplicate_blocks_in_dependent_materialized_views", "1");
                // An insert into a Distributed table is acknowledged when all shards have their rows.
                let client = match &settings.cluster {
                    Some(_) => client
                        .with_setting("distributed_foreground_insert", "1")
                        // Otherwise shards run the repair of the rollup with the name of another table.
                        .with_setting("parallel_distributed_insert_select", "0"),
                    None => client,
                };
                Ok(Self { client: Writer(client), owner })
            }
            Err(error) => {
                close(owner).await;
                Err(error)
            }
        }
    }
}

#[async_trait]
impl Store for ClickHouse {
    type Rows = EpochRows;

    fn new_rows(&self) -> EpochRows {
        EpochRows::new()
    }

    async fn write(&self, rows: &EpochRows) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let link = self.link().await?;
        let [events, others @ ..] = rows.batches();
        if !events.is_empty() {
            self.checked(&link, events, self.insert_events(&link, events).await).await?;
            reach(Step::BetweenInserts);
        }
        for batch in others.into_iter().filter(|batch| !batch.is_empty()) {
            self.checked(&link, batch, self.insert(&link, batch).await).await?;
        }
        Ok(())
    }

    fn partitions_changed(&self) {
        self.stored.forget();
    }
}

/// A ClickHouse database for reading only.
pub struct Reader {
    client: Client,
    owner: Option<embedded::Owner>,
}

impl Reader {
    /// Opens the store of `settings`. It must exist.
    pub async fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        let (client, owner) = connect(settings, Rights::Read).await?;
        let reader = Self { client: client.clone().with_database(settings.database.as_str()), owner };
        let there = client.query("SELECT count() FROM system.databases WHERE name = ?");
        let error = match there.bind(settings.database.as_str()).fetch_one::<u64>().await {
            Ok(1) => return Ok(reader),
            Ok(_) => StoreError::Permanent(format!("there is no database {} (store.database)", settings.database)),
            Err(error) => fault::store_error(&settings.opening(), &error),
        };
        reader.close().await;
        Err(error)
    }

    /// The result of `sql` as text in the output format `format`, unless `sql` names one. `options` are ClickHouse
    /// settings; they are left out if the user may not set any.
    pub async fn query(&self, sql: &str, format: &str, options: &[(&str, &str)]) -> Result<Answer, StoreError> {
        self.answer(&self.client.query_raw(sql), format, options).await
    }

    /// The rows of `sql`, with its question marks replaced by `bound`, each escaped as a text.
    pub(crate) async fn rows(&self, sql: &str, bound: &[&str]) -> Result<Vec<serde_json::Value>, StoreError> {
        let query = bound.iter().fold(self.client.query(sql), |query, value| query.bind(*value));
        let mut answer =
            self.answer(&query, "JSONEachRow", &[("output_format_json_quote_64bit_integers", "0")]).await?;
        let mut text = Vec::new();
        while let Some(bytes) = answer.next().await? {
            text.extend_from_slice(&bytes);
        }
        let rows = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        rows.map(serde_json::from_slice)
            .collect::<Result<_, _>>()
            .map_err(|error| StoreError::Permanent(format!("the response is not valid JSON: {error}")))
    }

    async fn answer(
        &self,
        query: &clickhouse::query::Query,
        format: &str,
        options: &[(&str, &str)],
    ) -> Result<Answer, StoreError> {
        let ask = |options: &[(&str, &str)]| {
            let query = query.clone();
            options.iter().fold(query, |query, (name, value)| query.with_setting(*name, *value)).fetch_bytes(format)
        };
        // On a server, the user's rights forbid writing. This setting protects users with more rights.
        let read_only = [options, &[("readonly", "1"), ("final", "1")]].concat();
        let first = Answer::begin(ask(&read_only)).await;
        match first {
            // The user is already read-only and may not change that setting.
            Err(error) if is_about_settings(&error) => Answer::begin(ask(&[])).await,
            other => other,
        }
        .map_err(|error| fault::store_error("the query failed", &error))
    }

    pub async fn close(self) {
        close(self.owner).await;
    }
}

/// Whether the query itself names the format of its result.
pub(crate) fn names_format(sql: &str) -> bool {
    statement::format(sql.as_bytes()).is_some()
}

fn is_about_settings(error: &clickhouse::error::Error) -> bool {
    fault::Fault::of(error) == fault::Fault::Exception(164) && error.to_string().contains("Cannot modify")
}

/// A result while it is received.
pub struct Answer {
    cursor: BytesCursor,
    next: Option<Bytes>,
}

impl Answer {
    /// Waits for the first bytes, because only then it is known whether the query failed.
    async fn begin(cursor: Result<BytesCursor, clickhouse::error::Error>) -> Result<Self, clickhouse::error::Error> {
        let mut cursor = cursor?;
        let next = cursor.next().await?;
        Ok(Self { cursor, next })
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let Some(bytes) = self.next.take() else { return Ok(None) };
        self.next = self.cursor.next().await.map_err(|error| fault::store_error("the query failed", &error))?;
        Ok(Some(bytes))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rights {
    Read,
    Write,
}

/// A client without a database, and the engine if this process runs it.
async fn connect(settings: &StoreSettings, rights: Rights) -> Result<(Client, Option<embedded::Owner>), StoreError> {
    let client = Client::default().with_product_info("tokenwarden", env!("CARGO_PKG_VERSION"));
    match settings.location()? {
        Location::Embedded(_) if settings.database == "default" => {
            let problem = "store.database cannot be `default` in the embedded store; choose another name";
            Err(StoreError::Permanent(problem.to_owned()))
        }
        Location::Embedded(directory) => {
            let (library, listen) = (settings.library_file(), settings.listen);
            let opened = tokio::task::spawn_blocking(move || {
                embedded::open(&directory, library.as_ref(), listen, rights == Rights::Write)
            });
            let (access, owner) = opened.await.map_err(|error| StoreError::Permanent(error.to_string()))??;
            let (user, password) = if rights == Rights::Write { access.owner } else { access.analyst };
            let client = client.with_url(access.url).with_compression(Compression::None);
            Ok((with_credentials(client, Some(&user), Some(&password)), owner))
        }
        Location::Server(url) => {
            // On the same machine, compression costs more than sending the bytes.
            let is_near = url.host_str().is_some_and(is_loopback);
            let client = client.with_compression(if is_near { Compression::None } else { Compression::Lz4 });
            let client = client.with_url(url);
            Ok((with_credentials(client, settings.user.as_deref(), settings.password.as_ref()), None))
        }
    }
}

fn with_credentials(client: Client, user: Option<&str>, password: Option<&SecretString>) -> Client {
    let client = user.map_or(client.clone(), |user| client.with_user(user));
    password.map_or(client.clone(), |password| client.with_password(password.expose_secret()))
}

/// Closes an embedded engine without blocking the runtime.
async fn close(owner: Option<embedded::Owner>) {
    if let Some(owner) = owner {
        // The only failure is a panic in the drop, which has been logged already.
        let _ = tokio::task::spawn_blocking(move || drop(owner)).await;
    }
}
