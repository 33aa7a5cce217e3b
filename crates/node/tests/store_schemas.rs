//! Databases of every released schema are brought to the current one, and what was in them is read back.
//!
//! A fixture is what that release left on the disk, as SQL. Who adds a migration adds the fixture of the schema before it.

mod host_scratch;
mod shared_store;

use host_scratch::Scratch;
use littoral_node::role::{Row, Table};
use littoral_node::store::{SqliteStore, Store, StoreError};
use littoral_wire::JobId;
use shared_store::{Postgres, bucket, open};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use std::path::Path;

/// By schema, from 1.
const SQLITE: [&str; 4] = [
    include_str!("schemas/sqlite-1.sql"),
    include_str!("schemas/sqlite-2.sql"),
    include_str!("schemas/sqlite-3.sql"),
    include_str!("schemas/sqlite-4.sql"),
];
/// The first that was released on PostgreSQL has the number of SQLite's at that time.
const POSTGRES: [(i64, &str); 2] =
    [(3, include_str!("schemas/postgres-3.sql")), (4, include_str!("schemas/postgres-4.sql"))];

async fn sqlite(path: &Path, sql: &str) {
    let mut connection =
        sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// What the fixtures hold: schema 3 has two tables more, schema 4 one.
fn check(rows: &[Row], schema: i64) {
    let of = |table: Table| rows.iter().filter(|row| row.key.table == table).collect::<Vec<_>>();
    assert_eq!(rows.len(), [10, 10, 12, 13][schema as usize - 1]);
    let node = of(Table::Node)[0];
    assert_eq!((node.key.job, node.key.item.as_slice()), (JobId(0), &[1; 32][..]));
    assert!(node.value.starts_with(br#"{"role":"device","name":"ward-7""#));
    let records = of(Table::Record);
    assert_eq!(records[0].value, b"\x00\xff\x27''");
    assert_eq!((records[1].key.version, records[1].value.as_slice()), (u64::MAX, &b""[..]));
    assert_eq!(of(Table::Sealed)[0].value, (0..=255).collect::<Vec<u8>>());
    assert_eq!(of(Table::Channel)[0].key.version, 5);
    assert_eq!(of(Table::Roster).len(), usize::from(schema >= 3));
    assert_eq!(of(Table::Ledger).len(), usize::from(schema >= 3));
    assert_eq!(of(Table::Status).len(), usize::from(schema >= 4));
}

#[tokio::test]
async fn sqlite_of_every_release_is_migrated() {
    for (schema, sql) in (1..).zip(SQLITE) {
        let dir = Scratch::new("schema");
        let path = dir.path().join("littoral.sqlite");
        sqlite(&path, sql).await;
        // Twice: the second start finds the current schema.
        for _ in 0..2 {
            let store = SqliteStore::open(dir.path()).await.unwrap();
            check(&store.load().await.unwrap(), schema);
            store.close().await;
        }
        let store = SqliteStore::open(dir.path()).await.unwrap();
        assert_eq!(store.acquire(JobId(1), "cloud", 0, 1, true).await.unwrap().token, 5, "tokens go on");
    }
}

/// A fixture is missing for the schema that this release knows.
#[tokio::test]
async fn every_schema_has_its_fixture() {
    let dir = Scratch::new("fixtures");
    let path = dir.path().join("littoral.sqlite");
    sqlite(&path, "CREATE TABLE schema (version INTEGER NOT NULL); INSERT INTO schema VALUES (99)").await;
    let refused = SqliteStore::open(dir.path()).await.err().unwrap();
    assert_eq!(refused, StoreError::Newer { path, known: SQLITE.len() as i64, got: 99 });
    assert_eq!(POSTGRES.last().unwrap().0, SQLITE.len() as i64);
}

/// What a migration that fails in the middle leaves is the old schema.
#[tokio::test]
async fn a_migration_is_whole_or_not_at_all() {
    let dir = Scratch::new("half");
    let path = dir.path().join("littoral.sqlite");
    // Schema 3 makes a table that is here already.
    sqlite(&path, &format!("{}; CREATE TABLE ledger (x)", SQLITE[1])).await;
    assert!(SqliteStore::open(dir.path()).await.is_err());
    sqlite(&path, "DROP TABLE ledger").await;
    let store = SqliteStore::open(dir.path()).await.unwrap();
    check(&store.load().await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_of_every_release_is_migrated() {
    let Some(server) = Postgres::here().await else { return };
    for (schema, sql) in POSTGRES {
        let (dir, url) = (Scratch::new("schema"), server.database().await);
        let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        let bucket = bucket(None, "", &dir.path().join("bucket"));
        for _ in 0..2 {
            let store = open(&url, &bucket, &dir.path().join("machine")).await;
            check(&store.load().await.unwrap(), schema);
            store.close().await;
        }
        let store = open(&url, &bucket, &dir.path().join("machine")).await;
        assert_eq!(store.acquire(JobId(1), "cloud", 0, 1, true).await.unwrap().token, 5, "tokens go on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_at_once_migrate_once_and_a_newer_schema_is_refused() {
    let Some(server) = Postgres::here().await else { return };
    let (dir, url) = (Scratch::new("at-once"), server.database().await);
    let bucket = bucket(None, "", &dir.path().join("bucket"));
    let replica = |n: u32| {
        let (url, bucket, dir) = (url.clone(), bucket.clone(), dir.path().join(n.to_string()));
        tokio::spawn(async move { open(&url, &bucket, &dir).await.load().await.unwrap().len() })
    };
    for done in (0..4).map(replica).collect::<Vec<_>>() {
        assert_eq!(done.await.unwrap(), 0);
    }
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::query("UPDATE littoral.schema SET version = 99").execute(&mut connection).await.unwrap();
    let place = littoral_node::store::PgPlace::parse(&url).unwrap();
    let opened = littoral_node::store::Bucket::new(&bucket).unwrap();
    let refused = littoral_node::store::PgStore::open(&place, opened, &dir.path().join("late")).await.err().unwrap();
    assert_eq!(refused, StoreError::Newer { path: place.at().into(), known: SQLITE.len() as i64, got: 99 });
}
