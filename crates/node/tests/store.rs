//! Rows, leases and the database file.

mod host_scratch;

use host_scratch::Scratch;
use littoral_node::role::{Row, RowKey, Table, Write};
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

async fn values(store: &SqliteStore) -> Vec<Vec<u8>> {
    store.load().await.unwrap().into_iter().map(|row| row.value).collect()
}

#[tokio::test]
async fn rows_come_back_sorted_and_exact() {
    let dir = Scratch::new("rows");
    let store = SqliteStore::open(dir.path()).await.unwrap();
    let writes = vec![
        put(Table::Record, u64::MAX, b"\0\xff", b"late"),
        put(Table::Record, 3, b"", b""),
        put(Table::Node, 0, b"n", b"old"),
        put(Table::Node, 0, b"n", b"new"),
        put(Table::Channel, 1, b"gone", b"x"),
        Write::Delete { key: key(Table::Channel, 1, b"gone") },
    ];
    store.commit(writes, vec![]).await.unwrap();
    let row = |key, value: &[u8]| Row { key, value: value.to_vec() };
    let expected = vec![
        row(key(Table::Node, 0, b"n"), b"new"),
        row(key(Table::Record, 3, b""), b""),
        row(key(Table::Record, u64::MAX, b"\0\xff"), b"late"),
    ];
    assert_eq!(store.load().await.unwrap(), expected);
}

#[tokio::test]
async fn a_row_that_names_an_absent_object_is_not_written() {
    let dir = Scratch::new("absent");
    let store = SqliteStore::open(dir.path()).await.unwrap();
    let absent = littoral_wire::ObjectId([1; 32]);
    let refused = store.commit(vec![put(Table::Job, 0, b"a", b"a"), Write::Object(absent)], vec![]).await;
    assert!(matches!(refused, Err(StoreError::Object(_))), "{refused:?}");
    assert!(values(&store).await.is_empty());
}

#[tokio::test]
async fn a_fenced_commit_writes_nothing_and_spoils_nothing() {
    let dir = Scratch::new("fenced");
    let store = SqliteStore::open(dir.path()).await.unwrap();
    let old = store.acquire(JOB, "first", 1_000, 500, false).await.unwrap();
    let held = store.acquire(JOB, "second", 1_499, 500, false).await;
    assert_eq!(held, Err(StoreError::Held { job: JOB, holder: "first".into(), until: 1_500 }));
    let new = store.acquire(JOB, "second", 1_499, 500, true).await.unwrap();
    assert_eq!((old.token, new.token), (1, 2));

    // Queued together, so that they may share a transaction.
    let commit = |lease: &littoral_node::store::Lease, value: &[u8]| {
        store.commit(vec![put(Table::Job, 0, value, value), put(Table::Record, 0, value, value)], vec![lease.clone()])
    };
    let (a, b, c) = tokio::join!(commit(&new, b"a"), commit(&old, b"b"), commit(&new, b"c"));
    assert_eq!((a, c), (Ok(()), Ok(())));
    assert_eq!(b, Err(StoreError::Fenced { job: JOB, ours: 1, current: 2 }));
    assert_eq!(values(&store).await, [b"a", b"c", b"a", b"c"]);

    assert!(matches!(store.renew(&old, 1_600, 500).await, Err(StoreError::Fenced { .. })));
    assert_eq!(store.renew(&new, 1_600, 500).await.unwrap().until, 2_100);
    // It ran out: anybody may have it, without a takeover.
    assert_eq!(store.acquire(JOB, "third", 2_100, 500, false).await.unwrap().token, 3);
}

#[tokio::test]
async fn tokens_grow_over_restarts() {
    let dir = Scratch::new("tokens");
    for token in 1..=3 {
        let store = SqliteStore::open(dir.path()).await.unwrap();
        assert_eq!(store.acquire(JOB, "cloud", 0, 60_000, true).await.unwrap().token, token);
        store.close().await;
        assert_eq!(store.load().await, Err(StoreError::Closed));
    }
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

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let dir = Scratch::new("newer");
    SqliteStore::open(dir.path()).await.unwrap().close().await;
    let path = dir.path().join("littoral.sqlite");
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::query("UPDATE schema SET version = 99").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let refused = SqliteStore::open(dir.path()).await.err().unwrap();
    assert_eq!(refused, StoreError::Newer { path, known: 3, got: 99 });
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

#[tokio::test]
async fn rows_of_the_first_schema_are_kept_and_get_checksums() {
    let dir = Scratch::new("older");
    let store = SqliteStore::open(dir.path()).await.unwrap();
    store.commit(vec![put(Table::Node, 0, b"n", b"ward"), put(Table::Record, 3, b"", b"")], vec![]).await.unwrap();
    let rows = store.load().await.unwrap();
    store.close().await;
    let path = dir.path().join("littoral.sqlite");
    let mut older = vec!["UPDATE schema SET version = 1"];
    older.extend(Table::ALL.map(|table| -> &str {
        match table {
            Table::Roster | Table::Ledger => format!("DROP TABLE {}", table.name()).leak(),
            _ => format!("ALTER TABLE {} DROP COLUMN sum", table.name()).leak(),
        }
    }));
    sql(&path, &older).await;
    let store = SqliteStore::open(dir.path()).await.unwrap();
    assert_eq!(store.load().await.unwrap(), rows);
}
