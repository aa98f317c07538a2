//! The schema on a cluster (`store.cluster`). The statements of the migrations are rewritten:
//!
//! | on one server | on a cluster |
//! |---|---|
//! | table `X` | table `X_local` with a Replicated engine on every node, and `X` with the engine Distributed over them |
//! | materialized view | the same on every node, from `X_local` to `Y_local` |
//! | view | the same on every node; it reads the Distributed tables |
//! | `schema_migrations` | one table that all nodes replicate, whatever their shard |
//!
//! All readers and writers use the names without `_local`. Rows of one Kafka partition have one shard. A repeated insert
//! is therefore split in the same way, and each shard recognises its part by the deduplication token.

use super::statement::quoted_text;

/// The tables with a part on each shard, and what the shard depends on.
const SHARDED: [(&str, &str); 7] = [
    ("token_events", "cityHash64(source_topic) + toUInt64(source_partition)"),
    ("incidents", "cityHash64(incident_id)"),
    ("actions", "cityHash64(action_id)"),
    ("dead_letters", "cityHash64(source_topic) + toUInt64(source_partition)"),
    ("feedback", "cityHash64(incident_id)"),
    ("incident_work", "cityHash64(incident_id)"),
    ("baseline_hours", "baseline"),
];
/// The table that all nodes replicate.
const EVERYWHERE: &str = "schema_migrations";
/// Time for which a repeated insert is recognised, seconds: a week. The server's default is an hour, and rows can wait
/// in the spool for longer.
const DEDUPLICATION_S: u32 = 604_800;

/// A cluster, as a server knows it.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    /// Name and database, quoted.
    name: String,
    database: String,
}

impl Cluster {
    pub(super) fn new(name: &str, database: &str) -> Self {
        Self { name: quoted_text(name), database: quoted_text(database) }
    }

    /// ` ON CLUSTER 'name'`, to follow the name of what is created or changed.
    pub(super) fn on(&self) -> String {
        format!(" ON CLUSTER {}", self.name)
    }

    /// `clusterAllReplicas('name', table)`.
    pub(super) fn all_replicas(&self, table: &str) -> String {
        format!("clusterAllReplicas({}, {table})", self.name)
    }

    /// The statements that take the place of a statement of a migration.
    pub(super) fn rewrite(&self, sql: &str) -> Vec<String> {
        let on = self.on();
        if let Some((head, name, rest)) = cut(sql, &["CREATE TABLE IF NOT EXISTS "]) {
            let local = if name == EVERYWHERE { name.to_owned() } else { local(name) };
            let mut statements = vec![format!("{head}{local}{on}{}", replicated(name, rest))];
            statements.extend(self.distributed(name));
            return statements;
        }
        if let Some((head, name, rest)) = cut(sql, &["ALTER TABLE "]) {
            let is_sharded = SHARDED.iter().any(|(table, _)| *table == name);
            // The other tables are views that write.
            let (table, rest) =
                if is_sharded { (local(name), rest.to_owned()) } else { (name.to_owned(), with_local_names(rest)) };
            let mut statements = vec![format!("{head}{table}{on}{rest}")];
            // Its columns are those of the local tables.
            statements.extend(self.distributed(name));
            return statements;
        }
        if let Some((head, name, rest)) = cut(sql, &["CREATE MATERIALIZED VIEW IF NOT EXISTS "]) {
            return vec![format!("{head}{name}{on}{}", with_local_names(rest))];
        }
        if let Some((head, name, rest)) = cut(sql, &["CREATE OR REPLACE VIEW "]) {
            // Otherwise each shard would ask all others.
            return vec![format!("{head}{name}{on}{}", rest.replace(" IN (SELECT", " GLOBAL IN (SELECT"))];
        }
        unreachable!("a migration has a statement of another kind: {sql}")
    }

    /// The statement that creates the Distributed table, or replaces it after a change of columns. It contains no rows.
    fn distributed(&self, name: &str) -> Option<String> {
        let (_, key) = SHARDED.iter().find(|(table, _)| *table == name)?;
        let (cluster, database, on, local) = (&self.name, &self.database, self.on(), local(name));
        Some(format!(
            "CREATE OR REPLACE TABLE {name}{on} AS {local} ENGINE = Distributed({cluster}, {database}, '{local}', {key})"
        ))
    }
}

/// Name of the part of a table on one node.
pub(super) fn local(table: &str) -> String {
    format!("{table}_local")
}

/// The statement in three parts: one of `heads`, the name that follows it, and the rest.
fn cut<'s>(sql: &'s str, heads: &[&'static str]) -> Option<(&'static str, &'s str, &'s str)> {
    heads.iter().find_map(|head| {
        let rest = sql.strip_prefix(head)?;
        let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        Some((*head, &rest[..end], &rest[end..]))
    })
}

/// A definition with the Replicated engine in place of the other one. The nodes of a shard have one path in Keeper.
fn replicated(name: &str, definition: &str) -> String {
    let path = "/clickhouse/tables/{shard}/{database}/{table}";
    let arguments = if name == EVERYWHERE {
        "'/clickhouse/tables/{database}/{table}', '{shard}-{replica}'".to_owned()
    } else {
        format!("'{path}', '{{replica}}'")
    };
    let (before, engine) = definition.split_once("ENGINE = ").unwrap_or_else(|| unreachable!("table {name}"));
    let end = engine.find(|c: char| !is_word(c)).unwrap_or(engine.len());
    let (engine, rest) = engine.split_at(end);
    let (own, rest) = match rest.strip_prefix('(').and_then(|inside| inside.split_once(')')) {
        Some((own, rest)) => (format!(", {own}"), rest),
        None => (String::new(), rest),
    };
    let window =
        format!("replicated_deduplication_window = 1000, replicated_deduplication_window_seconds = {DEDUPLICATION_S}");
    let rest = rest.replace("non_replicated_deduplication_window = 1000", &window);
    format!("{before}ENGINE = Replicated{engine}({arguments}{own}){rest}")
}

/// The text with the names of the local tables in place of those of [`SHARDED`].
fn with_local_names(text: &str) -> String {
    let mut renamed = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        renamed.push_str(word);
        if SHARDED.iter().any(|(table, _)| *table == word) {
            renamed.push_str("_local");
        }
        let next = after.find(is_word).unwrap_or(after.len());
        renamed.push_str(&after[..next]);
        rest = &after[next..];
    }
    renamed
}

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(sql: &str) -> Vec<String> {
        Cluster::new("blue", "warden").rewrite(sql)
    }

    #[test]
    fn table_becomes_local_and_distributed() {
        let sql = "CREATE TABLE IF NOT EXISTS dead_letters\n(\n    reason String\n)\nENGINE = ReplacingMergeTree(received_at)\n\
                   ORDER BY reason\nSETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1";
        assert_eq!(
            rewritten(sql),
            [
                "CREATE TABLE IF NOT EXISTS dead_letters_local ON CLUSTER 'blue'\n(\n    reason String\n)\n\
                 ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', received_at)\n\
                 ORDER BY reason\nSETTINGS replicated_deduplication_window = 1000, \
                 replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1",
                "CREATE OR REPLACE TABLE dead_letters ON CLUSTER 'blue' AS dead_letters_local ENGINE = Distributed('blue', \
                 'warden', 'dead_letters_local', cityHash64(source_topic) + toUInt64(source_partition))",
            ]
        );
        assert_eq!(
            rewritten("CREATE TABLE IF NOT EXISTS schema_migrations (v UInt32) ENGINE = ReplacingMergeTree ORDER BY v"),
            ["CREATE TABLE IF NOT EXISTS schema_migrations ON CLUSTER 'blue' (v UInt32) ENGINE = \
              ReplicatedReplacingMergeTree('/clickhouse/tables/{database}/{table}', '{shard}-{replica}') ORDER BY v"]
        );
    }

    #[test]
    fn views_write_locally_and_read_all_shards() {
        assert_eq!(
            rewritten(
                "CREATE MATERIALIZED VIEW IF NOT EXISTS w TO baseline_hours AS SELECT token_events.a FROM token_events"
            ),
            ["CREATE MATERIALIZED VIEW IF NOT EXISTS w ON CLUSTER 'blue' TO baseline_hours_local AS \
              SELECT token_events_local.a FROM token_events_local"]
        );
        assert_eq!(
            rewritten("CREATE OR REPLACE VIEW v AS SELECT 1 FROM token_events WHERE b IN (SELECT b FROM incidents)"),
            [
                "CREATE OR REPLACE VIEW v ON CLUSTER 'blue' AS SELECT 1 FROM token_events WHERE b GLOBAL IN (SELECT b FROM incidents)"
            ]
        );
    }

    #[test]
    fn changed_columns_reach_the_distributed_table() {
        let [local, distributed] = &rewritten("ALTER TABLE incidents\n    ADD COLUMN x UInt8")[..] else {
            panic!("two statements")
        };
        assert_eq!(local, "ALTER TABLE incidents_local ON CLUSTER 'blue'\n    ADD COLUMN x UInt8");
        assert!(
            distributed.starts_with("CREATE OR REPLACE TABLE incidents ON CLUSTER 'blue' AS incidents_local ENGINE")
        );
    }

    #[test]
    fn names_are_quoted() {
        let cluster = Cluster::new("a'b", "c\\d");
        assert_eq!(cluster.on(), " ON CLUSTER 'a\\'b'");
        assert!(cluster.distributed("feedback").is_some_and(|sql| sql.contains("'c\\\\d', 'feedback_local'")));
    }
}
