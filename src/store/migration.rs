//! The schema: numbered SQL files, applied in order at open. Each is applied once and can be repeated without harm.

use clickhouse::Client;

use super::cluster::{Cluster, local};
use super::fault::store_error;
use super::tables::TABLES;
use super::{settings::StoreSettings, statement};
use crate::port::StoreError;

struct Migration {
    version: u32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 11] = [
    Migration { version: 1, name: "tables", sql: include_str!("migrations/0001_tables.sql") },
    Migration { version: 2, name: "rollup", sql: include_str!("migrations/0002_rollup.sql") },
    Migration { version: 3, name: "views", sql: include_str!("migrations/0003_views.sql") },
    Migration { version: 4, name: "decisive", sql: include_str!("migrations/0004_decisive.sql") },
    Migration { version: 5, name: "dead_letter_places", sql: include_str!("migrations/0005_dead_letter_places.sql") },
    Migration { version: 6, name: "row identity", sql: include_str!("migrations/0006_row_identity.sql") },
    Migration { version: 7, name: "positions", sql: include_str!("migrations/0007_positions.sql") },
    Migration { version: 8, name: "feedback", sql: include_str!("migrations/0008_feedback.sql") },
    Migration { version: 9, name: "incident work", sql: include_str!("migrations/0009_incident_work.sql") },
    Migration { version: 10, name: "confirmations", sql: include_str!("migrations/0010_confirmations.sql") },
    Migration { version: 11, name: "subjects", sql: include_str!("migrations/0011_subjects.sql") },
];

impl Migration {
    /// The statements in order. `cluster`: where the tables are on a cluster.
    fn statements(&self, cluster: Option<&Cluster>) -> Vec<String> {
        let statements = statement::split(self.sql).into_iter();
        match cluster {
            None => statements.map(str::to_owned).collect(),
            Some(cluster) => statements.flat_map(|sql| cluster.rewrite(sql)).collect(),
        }
    }
}

/// All statements that create the schema of `settings`, in order.
pub fn schema(settings: &StoreSettings) -> Vec<String> {
    let cluster = settings.on_cluster();
    MIGRATIONS.iter().flat_map(|migration| migration.statements(cluster.as_ref())).collect()
}

/// Creates the database if needed and updates it to this build's schema. Then checks that every column that is written
/// has the expected type. `client` has no database of its own; `at` is the database to use.
pub(super) async fn migrate(client: &Client, settings: &StoreSettings) -> Result<Client, StoreError> {
    let what = "preparing the tables";
    let cluster = settings.on_cluster();
    let at = client.clone().with_database(settings.database.as_str());
    let databases =
        client.query("SELECT count() FROM system.databases WHERE name = ?").bind(settings.database.as_str());
    if databases.fetch_one::<u64>().await.map_err(|error| store_error(&settings.opening(), &error))? == 0 {
        let on = cluster.as_ref().map(Cluster::on).unwrap_or_default();
        let create = format!("CREATE DATABASE IF NOT EXISTS ?{}", on.replace('?', "??"));
        let create = client.query(&create).bind(clickhouse::sql::Identifier(&settings.database));
        create.execute().await.map_err(|error| store_error("creating the database (store.database)", &error))?;
    }

    check_engine(&at, settings).await?;
    let applied = applied_versions(&at).await?;
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    if let Some(newer) = applied.iter().find(|version| **version > known) {
        return Err(StoreError::Permanent(format!(
            "database {} has schema {newer} of a newer tokenwarden; this version supports {known}",
            settings.database
        )));
    }
    for migration in MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.version)) {
        for sql in migration.statements(cluster.as_ref()) {
            at.query_raw(&sql).execute().await.map_err(|error| store_error(what, &error))?;
        }
        let note = at.query("INSERT INTO schema_migrations (version, name) VALUES (?, ?)");
        let note = note.bind(migration.version).bind(migration.name);
        note.execute().await.map_err(|error| store_error(what, &error))?;
    }
    retain(&at, settings).await?;
    check_columns(&at).await?;
    Ok(at)
}

/// Refuses a database whose tables are not where `settings` say: on one server, or on a cluster.
async fn check_engine(client: &Client, settings: &StoreSettings) -> Result<(), StoreError> {
    let engine =
        client.query("SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = 'token_events'");
    let engine =
        engine.fetch_all::<String>().await.map_err(|error| store_error("reading the engine of the tables", &error))?;
    let is_distributed = engine.first().map(|engine| engine == "Distributed");
    let database = &settings.database;
    match (is_distributed, &settings.cluster) {
        (Some(false), Some(_)) => Err(StoreError::Permanent(format!(
            "database {database} has the tables of a single server; with store.cluster, set store.database to another name"
        ))),
        (Some(true), None) => Err(StoreError::Permanent(format!(
            "database {database} has the tables of a cluster; set store.cluster to its name"
        ))),
        _ => Ok(()),
    }
}

async fn applied_versions(client: &Client) -> Result<Vec<u32>, StoreError> {
    let what = "reading the schema's version";
    let exists = client.query("EXISTS TABLE schema_migrations").fetch_one::<u8>().await;
    if exists.map_err(|error| store_error(what, &error))? == 0 {
        return Ok(Vec::new());
    }
    let versions = client.query("SELECT DISTINCT version FROM schema_migrations").fetch_all::<u32>().await;
    versions.map_err(|error| store_error(what, &error))
}

/// Sets the retention if it differs from the configured one. It counts from the time of writing, by the database's
/// clock: replayed past events stay as long as new ones, and a wrong clock here deletes nothing.
async fn retain(client: &Client, settings: &StoreSettings) -> Result<(), StoreError> {
    let what = "setting the retention (store.retention_days)";
    let cluster = settings.on_cluster();
    let on = cluster.as_ref().map(Cluster::on).unwrap_or_default();
    for table in ["token_events", "dead_letters", "baseline_hours"] {
        let table = &cluster.as_ref().map_or_else(|| table.to_owned(), |_| local(table));
        let created = client
            .query("SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = ?");
        let created = created.bind(table).fetch_one::<String>().await.map_err(|error| store_error(what, &error))?;
        let change = match settings.retention_days {
            0 if created.contains(" TTL ") => format!("ALTER TABLE {table}{on} REMOVE TTL"),
            0 => continue,
            days if created.contains(&format!("toIntervalDay({days})")) => continue,
            days => format!("ALTER TABLE {table}{on} MODIFY TTL written_at + toIntervalDay({days})"),
        };
        client.query_raw(&change).execute().await.map_err(|error| store_error(what, &error))?;
    }
    Ok(())
}

/// Finds changed columns before rows are lost to them.
async fn check_columns(client: &Client) -> Result<(), StoreError> {
    let what = "reading the columns of the tables";
    for table in TABLES {
        let columns =
            client.query("SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = ?");
        let columns = columns.bind(table.name).fetch_all::<(String, String)>().await;
        let columns = columns.map_err(|error| store_error(what, &error))?;
        for (name, kind) in table.columns {
            match columns.iter().find(|(column, _)| column == name) {
                Some((_, found)) if found == kind => {}
                Some((_, found)) => {
                    return Err(StoreError::Permanent(format!(
                        "column {}.{name} is {found}; this build needs {kind}; change it back with ALTER TABLE",
                        table.name
                    )));
                }
                None => {
                    return Err(StoreError::Permanent(format!("column {}.{name} is missing", table.name)));
                }
            }
        }
    }
    Ok(())
}
