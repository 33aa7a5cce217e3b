//! The database's schema, and how an older one becomes the current one. Both engines count alike.
//!
//! `MIGRATIONS[n]` leads from schema `n` to `n + 1`; a migration that was released is never edited. There is no way
//! back: a schema newer than this list is refused.

use super::StoreError;
use crate::role::Table;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use std::path::Path;

/// Who executes the statements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Sqlite,
    /// First released with schema 3, but made of the same steps.
    Postgres,
}

type Migration = fn(Engine) -> Vec<String>;

const MIGRATIONS: [Migration; 4] = [first, checksums, privacy, replicas];

/// The current schema.
pub(super) const KNOWN: i64 = MIGRATIONS.len() as i64;

/// The tables of schemas 1 and 2.
const FIRST: [Table; 9] = [
    Table::Node,
    Table::Ticket,
    Table::Operator,
    Table::Command,
    Table::Job,
    Table::Record,
    Table::Sealed,
    Table::DeviceState,
    Table::Channel,
];

impl Engine {
    /// As statements name it. PostgreSQL's database may have tables of others: ours are in a schema of their own.
    pub(super) fn table(self, name: &str) -> String {
        match self {
            Engine::Sqlite => name.to_owned(),
            Engine::Postgres => format!("littoral.{name}"),
        }
    }

    /// A table of rows as roles know them.
    fn row_table(self, table: Table, sum: &str) -> String {
        let name = self.table(table.name());
        match self {
            Engine::Sqlite => format!(
                "CREATE TABLE {name} (job INTEGER NOT NULL, version INTEGER NOT NULL, item BLOB NOT NULL, \
                 value BLOB NOT NULL, {sum}PRIMARY KEY (job, version, item)) WITHOUT ROWID"
            ),
            Engine::Postgres => format!(
                "CREATE TABLE {name} (job BIGINT NOT NULL, version BIGINT NOT NULL, item BYTEA NOT NULL, \
                 value BYTEA NOT NULL, {sum}PRIMARY KEY (job, version, item))"
            ),
        }
    }

    fn sum(self) -> &'static str {
        match self {
            Engine::Sqlite => "sum BLOB NOT NULL DEFAULT x''",
            Engine::Postgres => "sum BYTEA NOT NULL DEFAULT ''",
        }
    }
}

/// A table per kind of row, all of one shape, and the leases.
fn first(engine: Engine) -> Vec<String> {
    let row_table = |table: &Table| engine.row_table(*table, "");
    let others: &[&str] = match engine {
        Engine::Sqlite => {
            &["CREATE TABLE lease (job INTEGER PRIMARY KEY, holder TEXT NOT NULL, token INTEGER NOT NULL, \
                            until_ms INTEGER NOT NULL)"]
        }
        Engine::Postgres => &[
            "CREATE TABLE littoral.lease (name TEXT PRIMARY KEY, holder TEXT NOT NULL, token BIGINT NOT NULL, \
             until TIMESTAMPTZ NOT NULL)",
            "CREATE INDEX lease_until ON littoral.lease (until)",
            // What is in the bucket, since when it is not known to be needed, and whether it was dropped then.
            "CREATE TABLE littoral.object (id BYTEA PRIMARY KEY, dropped BOOLEAN NOT NULL DEFAULT FALSE, \
             since TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())",
            "CREATE INDEX object_since ON littoral.object (since)",
            "CREATE TABLE littoral.cloud (one BOOLEAN PRIMARY KEY CHECK (one), id BYTEA NOT NULL)",
            // Keys of rows that replicas have in memory, and who wrote them, in the order of their commits.
            "CREATE TABLE littoral.change (seq BIGINT PRIMARY KEY, origin TEXT NOT NULL, name TEXT NOT NULL, \
             job BIGINT NOT NULL, version BIGINT NOT NULL, item BYTEA NOT NULL)",
            // From one replica to another. Worth nothing after a crash of the server.
            "CREATE UNLOGGED TABLE littoral.mail (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, addressee TEXT NOT NULL, \
             sender TEXT NOT NULL, link BIGINT NOT NULL, peer BYTEA NOT NULL, body BYTEA NOT NULL, \
             at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())",
            "CREATE INDEX mail_addressee ON littoral.mail (addressee)",
        ],
    };
    FIRST.iter().map(row_table).chain(others.iter().map(ToString::to_string)).collect()
}

/// Each row carries a checksum: SQLite finds a damaged page only if its structure suffers. Rows of before get theirs in
/// [`super::database`], which knows how it is made.
fn checksums(engine: Engine) -> Vec<String> {
    let column = |table: &Table| format!("ALTER TABLE {} ADD COLUMN {}", engine.table(table.name()), engine.sum());
    FIRST.iter().map(column).collect()
}

/// Rosters, and what was spent of privacy budgets.
fn privacy(engine: Engine) -> Vec<String> {
    let sum = format!("{}, ", engine.sum());
    [Table::Roster, Table::Ledger].map(|table| engine.row_table(table, &sum)).to_vec()
}

/// What jobs' holders say of them, and sums that others may add up.
fn replicas(engine: Engine) -> Vec<String> {
    let status = engine.row_table(Table::Status, &format!("{}, ", engine.sum()));
    let shard: &[&str] = match engine {
        Engine::Sqlite => &["CREATE TABLE shard (round BLOB NOT NULL, number INTEGER NOT NULL, job INTEGER NOT NULL, \
                             body BLOB NOT NULL, made BLOB NOT NULL DEFAULT x'', holder TEXT NOT NULL DEFAULT '', \
                             token INTEGER NOT NULL DEFAULT 0, until_ms INTEGER NOT NULL DEFAULT 0, \
                             PRIMARY KEY (round, number)) WITHOUT ROWID"],
        Engine::Postgres => &[
            "CREATE TABLE littoral.shard (round BYTEA NOT NULL, number BIGINT NOT NULL, job BIGINT NOT NULL, \
             body BYTEA NOT NULL, made BYTEA NOT NULL DEFAULT '', holder TEXT NOT NULL DEFAULT '', \
             token BIGINT NOT NULL DEFAULT 0, until TIMESTAMPTZ NOT NULL DEFAULT '-infinity', \
             PRIMARY KEY (round, number))",
            "CREATE INDEX shard_free ON littoral.shard (until) WHERE made = ''",
            "CREATE INDEX shard_job ON littoral.shard (job)",
        ],
    };
    [status].into_iter().chain(shard.iter().map(ToString::to_string)).collect()
}

/// What leads from schema `got` to the current one.
///
/// # Errors
/// [`StoreError::Newer`] if a later release wrote it.
pub(super) fn statements(engine: Engine, got: i64, path: &Path) -> Result<Vec<String>, StoreError> {
    if !(0..=KNOWN).contains(&got) {
        return Err(StoreError::Newer { path: path.to_owned(), known: KNOWN, got });
    }
    Ok(MIGRATIONS[got as usize..].iter().flat_map(|migration| migration(engine)).collect())
}

/// Brings the database to the current schema; to be called inside a transaction. Returns whether it was of before
/// checksums, with rows that need theirs.
pub(super) async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<bool, StoreError> {
    let failed = |e: sqlx::Error| super::database::fault(path, e);
    let made = "CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL)";
    sqlx::query(made).execute(&mut *connection).await.map_err(failed)?;
    let row = sqlx::query("SELECT version FROM schema").fetch_optional(&mut *connection).await.map_err(failed)?;
    let got: i64 = row.map_or(Ok(0), |row| row.try_get(0)).map_err(failed)?;
    let statements = statements(Engine::Sqlite, got, path)?;
    if got == KNOWN {
        return Ok(false);
    }
    for statement in statements {
        // Built from this file and table names only.
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection).await.map_err(failed)?;
    }
    sqlx::query("DELETE FROM schema").execute(&mut *connection).await.map_err(failed)?;
    let insert = sqlx::query("INSERT INTO schema VALUES (?)").bind(KNOWN);
    insert.execute(&mut *connection).await.map_err(failed)?;
    Ok(got == 1)
}
