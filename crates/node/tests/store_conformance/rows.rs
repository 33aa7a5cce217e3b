//! Rows, batches, leases.

use super::{JOB, Opened, Place, key, put};
use littoral_node::role::{Row, Table, Write};
use littoral_node::store::{Lease, StoreError};
use littoral_wire::{JobId, ObjectId};

/// Longer than any test runs.
const LONG_MS: u64 = 3_600_000;

async fn values(store: &Opened) -> Vec<Vec<u8>> {
    store.rows.load().await.unwrap().into_iter().map(|row| row.value).collect()
}

pub async fn rows_come_back_sorted_and_exact(place: Place) {
    let store = place.open().await;
    let writes = vec![
        put(Table::Record, u64::MAX, b"\0\xff", b"late"),
        put(Table::Record, 3, b"", b""),
        put(Table::Node, 0, b"n", b"old"),
        put(Table::Node, 0, b"n", b"new"),
        put(Table::Channel, 1, b"gone", b"x"),
        Write::Delete { key: key(Table::Channel, 1, b"gone") },
    ];
    store.rows.commit(writes, vec![]).await.unwrap();
    let every = Table::ALL.map(|table| put(table, 5, b"\x7f", table.name().as_bytes()));
    store.rows.commit(every.to_vec(), vec![]).await.unwrap();
    let row = |key, value: &[u8]| Row { key, value: value.to_vec() };
    let mut expected = vec![
        row(key(Table::Node, 0, b"n"), b"new"),
        row(key(Table::Record, 3, b""), b""),
        row(key(Table::Record, u64::MAX, b"\0\xff"), b"late"),
    ];
    expected.extend(Table::ALL.map(|table| row(key(table, 5, b"\x7f"), table.name().as_bytes())));
    expected.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(store.rows.load().await.unwrap(), expected);
    store.close().await;
    assert_eq!(place.open().await.rows.load().await.unwrap(), expected);
}

pub async fn a_batch_that_names_an_absent_object_is_not_written(place: Place) {
    let store = place.open().await;
    let absent = Write::Object(ObjectId([1; 32]));
    let refused = store.rows.commit(vec![put(Table::Job, 0, b"a", b"a"), absent], vec![]).await;
    assert!(matches!(refused, Err(StoreError::Object(_))), "{refused:?}");
    assert!(values(&store).await.is_empty());
}

pub async fn a_fenced_commit_writes_nothing_and_spoils_nothing(place: Place) {
    let store = place.open().await;
    let now = 1_000;
    let old = store.rows.acquire(JOB, "first", now, LONG_MS, false).await.unwrap();
    let held = store.rows.acquire(JOB, "second", now, LONG_MS, false).await;
    assert!(matches!(&held, Err(StoreError::Held { job: JOB, holder, .. }) if holder == "first"), "{held:?}");
    let new = store.rows.acquire(JOB, "second", now, LONG_MS, true).await.unwrap();
    assert_eq!((old.token, new.token), (1, 2));

    let commit = |lease: &Lease, value: &[u8]| {
        let writes = vec![put(Table::Job, 0, value, value), put(Table::Record, 0, value, value)];
        store.rows.commit(writes, vec![lease.clone()])
    };
    let (a, b, c) = tokio::join!(commit(&new, b"a"), commit(&old, b"b"), commit(&new, b"c"));
    assert_eq!((a, c), (Ok(()), Ok(())));
    assert_eq!(b, Err(StoreError::Fenced { job: JOB, ours: 1, current: 2 }));
    assert_eq!(values(&store).await, [b"a", b"c", b"a", b"c"]);

    // One stale lease of several is enough.
    let other = store.rows.acquire(JobId(8), "first", now, LONG_MS, false).await.unwrap();
    let mixed = store.rows.commit(vec![put(Table::Job, 0, b"d", b"d")], vec![other, old.clone()]).await;
    assert!(matches!(mixed, Err(StoreError::Fenced { job: JOB, .. })), "{mixed:?}");
    assert!(matches!(store.rows.renew(&old, now, LONG_MS).await, Err(StoreError::Fenced { .. })));
    assert_eq!(store.rows.renew(&new, now, LONG_MS).await.unwrap(), Lease { until: now + LONG_MS, ..new });
    assert_eq!(values(&store).await, [b"a", b"c", b"a", b"c"]);
}

pub async fn tokens_grow_over_restarts(place: Place) {
    for token in 1..=3 {
        let store = place.open().await;
        assert_eq!(store.rows.acquire(JOB, "cloud", 0, LONG_MS, true).await.unwrap().token, token);
        let rows = store.rows.clone();
        store.close().await;
        assert_eq!(rows.load().await, Err(StoreError::Closed));
    }
}

pub async fn a_lease_that_ran_out_may_be_taken(place: Place) {
    let store = place.open().await;
    let first = store.rows.acquire(JOB, "first", 1_000, 0, false).await.unwrap();
    // It ran out at once, but nobody has it: what is written under it is good.
    store.rows.commit(vec![put(Table::Job, 0, b"a", b"a")], vec![first.clone()]).await.unwrap();
    let second = store.rows.acquire(JOB, "second", 1_001, LONG_MS, false).await.unwrap();
    assert_eq!((first.token, second.token), (1, 2));
    let late = store.rows.commit(vec![put(Table::Job, 0, b"b", b"b")], vec![first]).await;
    assert_eq!(late, Err(StoreError::Fenced { job: JOB, ours: 1, current: 2 }));
    assert_eq!(values(&store).await, [b"a"]);
}

/// Side by side, to rows of their own and to one that they share.
pub async fn many_writers_lose_nothing(place: Place) {
    let store = place.open().await;
    let writer = |writer: u8| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..20_u64 {
                let own = put(Table::Record, n, &[writer], &[writer, n as u8]);
                let shared = put(Table::Job, 0, b"shared", &[writer, n as u8]);
                store.rows.commit(vec![own, shared], vec![]).await.unwrap();
            }
        })
    };
    for done in (0..12).map(writer).collect::<Vec<_>>() {
        done.await.unwrap();
    }
    let rows = store.rows.load().await.unwrap();
    let records: Vec<&Row> = rows.iter().filter(|row| row.key.table == Table::Record).collect();
    assert_eq!(records.len(), 12 * 20);
    assert!(records.iter().all(|row| row.value == [row.key.item[0], row.key.version as u8]));
    // Some writer's last word.
    assert_eq!(rows.iter().find(|row| row.key.table == Table::Job).unwrap().value[1], 19);
}

pub async fn big_values_come_back(place: Place) {
    let store = place.open().await;
    let big: Vec<u8> = (0..8 << 20).map(|n: u32| ((n * 31) >> 3) as u8).collect();
    store.rows.commit(vec![put(Table::Record, 0, b"big", &big)], vec![]).await.unwrap();
    assert!(values(&store).await == [big], "8 MB came back as they were");
}
