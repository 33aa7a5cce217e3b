//! The embedded store's folder and database file. What any store does is in `store_conformance`, older schemas are in
//! `store_schemas`.

mod host_scratch;

use host_scratch::Scratch;
use littoral_node::role::{RowKey, Table, Write};
use littoral_node::store::{SqliteStore, Store, StoreError};
use littoral_wire::JobId;
use sqlx::{ConnectOptions, Connection};
use std::os::unix::fs::MetadataExt;

const JOB: JobId = JobId(7);

fn key(table: Table, version: u64, item: &[u8]) -> RowKey {
    RowKey { table, job: JOB, version, item: item.to_vec() }
}

fn put(table: Table, version: u64, item: &[u8], value: &[u8]) -> Write {
    Write::Put { key: key(table, version, item), value: value.to_vec() }
}

#[tokio::test]
async fn two_cannot_have_one_directory() {
    let dir = Scratch::new("two");
    let _first = SqliteStore::open(dir.path()).await.unwrap();
    let second = SqliteStore::open(dir.path()).await.err();
    let pid = std::process::id().to_string();
    assert_eq!(second, Some(StoreError::InUse { dir: dir.path().to_owned(), pid }));
}

#[tokio::test]
async fn only_the_owner_can_read() {
    let dir = Scratch::new("modes");
    let inner = dir.path().join("new");
    let store = SqliteStore::open(&inner).await.unwrap();
    store.commit(vec![put(Table::Job, 0, b"a", b"a")], vec![]).await.unwrap();
    let mode = |name: &str| std::fs::metadata(inner.join(name)).unwrap().mode() & 0o777;
    assert_eq!([mode("."), mode("objects"), mode("arriving")], [0o700; 3]);
    assert_eq!([mode("littoral.sqlite"), mode("littoral.sqlite-wal"), mode("lock")], [0o600; 3]);
}

#[tokio::test]
async fn a_damaged_database_is_left_as_it_is() {
    let dir = Scratch::new("damaged");
    let path = dir.path().join("littoral.sqlite");
    let garbage = b"this is not a database, and it is longer than a header, which has one hundred bytes; so it goes on"
        .repeat(40);
    std::fs::write(&path, &garbage).unwrap();
    let refused = SqliteStore::open(dir.path()).await.err().unwrap();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    assert!(!refused.to_string().contains('\n'));
    assert_eq!(std::fs::read(&path).unwrap(), garbage);
}

#[tokio::test]
async fn a_damaged_page_is_found() {
    let dir = Scratch::new("page");
    let store = SqliteStore::open(dir.path()).await.unwrap();
    for item in 0..64_u8 {
        store.commit(vec![put(Table::Record, 0, &[item], &[item; 2_000])], vec![]).await.unwrap();
    }
    store.close().await;
    let path = dir.path().join("littoral.sqlite");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8_192].fill(0xa5);
    std::fs::write(&path, &bytes).unwrap();
    let refused = SqliteStore::open(dir.path()).await.err().unwrap();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
}

async fn sql(path: &std::path::Path, statements: &[&'static str]) {
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    for statement in statements {
        sqlx::query(*statement).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
}

/// SQLite's own check sees structure only. A row that says something else than was written would become a job that
/// vanished, a machine that is not enrolled, a device that was never counted.
#[tokio::test]
async fn a_row_that_was_changed_is_found() {
    for change in [
        "UPDATE record SET value = x'016f'",
        "UPDATE record SET item = x'01'",
        "UPDATE record SET version = 4",
        "UPDATE record SET sum = x''",
    ] {
        let dir = Scratch::new("changed");
        let store = SqliteStore::open(dir.path()).await.unwrap();
        store.commit(vec![put(Table::Record, 3, &[0], &[0, 0x6f])], vec![]).await.unwrap();
        store.close().await;
        sql(&dir.path().join("littoral.sqlite"), &[change]).await;
        let refused = SqliteStore::open(dir.path()).await.unwrap().load().await;
        let Err(StoreError::Corrupt { why, .. }) = refused else { panic!("{change}: {refused:?}") };
        assert!(why.contains("table record, job 7, version"), "{why}");
    }
}
