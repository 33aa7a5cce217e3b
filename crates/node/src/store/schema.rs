//! The database's schema, and how an older one becomes the current one.
//!
//! `MIGRATIONS[n]` leads from schema `n` to `n + 1`; a migration that was released is never edited. A schema newer
//! than this list is refused.

use super::StoreError;
use crate::role::Table;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use std::path::Path;

type Migration = fn() -> Vec<String>;

const MIGRATIONS: [Migration; 3] = [first, checksums, privacy];

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

/// A table per kind of row, all of one shape, and the leases.
fn first() -> Vec<String> {
    let row_table = |table: &Table| {
        format!(
            "CREATE TABLE {} (job INTEGER NOT NULL, version INTEGER NOT NULL, item BLOB NOT NULL, value BLOB NOT NULL, \
             PRIMARY KEY (job, version, item)) WITHOUT ROWID",
            table.name()
        )
    };
    let lease = "CREATE TABLE lease (job INTEGER PRIMARY KEY, holder TEXT NOT NULL, token INTEGER NOT NULL, \
                 until_ms INTEGER NOT NULL)";
    FIRST.iter().map(row_table).chain([lease.to_owned()]).collect()
}

/// Each row carries a checksum: SQLite finds a damaged page only if its structure suffers. Rows of before get theirs in
/// [`super::database`], which knows how it is made.
fn checksums() -> Vec<String> {
    let column = |table: &Table| format!("ALTER TABLE {} ADD COLUMN sum BLOB NOT NULL DEFAULT x''", table.name());
    FIRST.iter().map(column).collect()
}

/// Rosters, and what was spent of privacy budgets.
fn privacy() -> Vec<String> {
    let row_table = |table: Table| {
        format!(
            "CREATE TABLE {} (job INTEGER NOT NULL, version INTEGER NOT NULL, item BLOB NOT NULL, value BLOB NOT NULL, \
             sum BLOB NOT NULL DEFAULT x'', PRIMARY KEY (job, version, item)) WITHOUT ROWID",
            table.name()
        )
    };
    [Table::Roster, Table::Ledger].map(row_table).to_vec()
}

/// Brings the database to the current schema; to be called inside a transaction. Returns whether it was of before
/// checksums, with rows that need theirs.
pub(super) async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<bool, StoreError> {
    let failed = |e: sqlx::Error| super::database::fault(path, e);
    let made = "CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL)";
    sqlx::query(made).execute(&mut *connection).await.map_err(failed)?;
    let row = sqlx::query("SELECT version FROM schema").fetch_optional(&mut *connection).await.map_err(failed)?;
    let got: i64 = row.map_or(Ok(0), |row| row.try_get(0)).map_err(failed)?;
    let known = MIGRATIONS.len() as i64;
    if !(0..=known).contains(&got) {
        return Err(StoreError::Newer { path: path.to_owned(), known, got });
    }
    if got == known {
        return Ok(false);
    }
    for migration in &MIGRATIONS[got as usize..] {
        for statement in migration() {
            // Built from this file and table names only.
            sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection).await.map_err(failed)?;
        }
    }
    sqlx::query("DELETE FROM schema").execute(&mut *connection).await.map_err(failed)?;
    let insert = sqlx::query("INSERT INTO schema VALUES (?)").bind(known);
    insert.execute(&mut *connection).await.map_err(failed)?;
    Ok(got == 1)
}
