//! Sums in shards: offered, taken, closed, forgotten.

use super::{JOB, Opened, Place};
use littoral_node::store::{Shard, StoreError};
use littoral_wire::message::{Collection, Work};
use littoral_wire::object::Manifest;
use littoral_wire::{JobId, ObjectId};
use std::collections::BTreeSet;

/// Longer than any test runs.
const LONG_MS: u64 = 3_600_000;
const NOW: u64 = 1_000;

fn round(version: u64) -> Collection {
    Collection { job: JOB, version, work: Work::Train, attempt: 0 }
}

/// So many shards of two sums each.
fn offered(version: u64, shards: u32) -> Vec<Shard> {
    let shard = |number| Shard {
        collection: round(version),
        number,
        bits: 20,
        bytes: 40,
        sums: vec![ObjectId([number as u8; 32]), ObjectId([200; 32])],
        made: None,
    };
    (0..shards).map(shard).collect()
}

/// What comes out of a shard: an object that is here, and not durable yet.
async fn sum(store: &Opened, byte: u8) -> Manifest {
    let bytes = vec![byte; 40];
    let manifest = Manifest::of(&bytes).unwrap();
    let put = manifest.clone();
    store.blocking(move |objects| objects.folder().put(&put, bytes).unwrap()).await;
    manifest
}

pub async fn a_shard_is_taken_by_one_and_closed_once(place: Place) {
    let store = place.open().await;
    let shards = offered(3, 12);
    store.rows.offer_shards(shards.clone(), vec![]).await.unwrap();
    // Side by side; one is left to itself by whoever took it.
    let taker = |n: u32| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            let ttl = if n == 0 { 0 } else { LONG_MS };
            while let Some(lease) = store.rows.take_shard(&n.to_string(), NOW, ttl).await.unwrap() {
                taken.push(lease);
                if n == 0 {
                    break;
                }
            }
            taken
        })
    };
    let stalled = taker(0).await.unwrap();
    let mut taken = Vec::new();
    for takers in (1..5).map(taker).collect::<Vec<_>>() {
        taken.extend(takers.await.unwrap());
    }
    let numbers: BTreeSet<u32> = taken.iter().map(|lease| lease.shard.number).collect();
    assert_eq!((taken.len(), numbers), (12, (0..12).collect()));
    for lease in &taken {
        assert_eq!(lease.shard, shards[lease.shard.number as usize]);
    }

    let made = sum(&store, 1).await;
    let fenced = StoreError::Fenced { job: JOB, ours: 1, current: 2 };
    assert_eq!(store.rows.close_shard(&stalled[0], made.clone()).await, Err(fenced.clone()));
    assert_eq!(store.rows.renew_shard(&stalled[0], NOW, LONG_MS).await, Err(fenced));
    let renewed = store.rows.renew_shard(&taken[0], NOW + 5, LONG_MS).await.unwrap();
    assert_eq!((renewed.until, renewed.token), (NOW + 5 + LONG_MS, taken[0].token));
    for lease in &taken {
        let made = sum(&store, lease.shard.number as u8).await;
        store.rows.close_shard(lease, made).await.unwrap();
    }
    assert_eq!(store.rows.take_shard("late", NOW, LONG_MS).await.unwrap(), None);
    // They are what was offered and what came out, after a restart too.
    store.close().await;
    let store = place.open().await;
    let found = store.rows.shards(round(3)).await.unwrap();
    for (n, shard) in found.iter().enumerate() {
        let made = shard.made.clone().unwrap();
        assert_eq!(Shard { made: None, ..shard.clone() }, shards[n]);
        let read = store.blocking(move |objects| objects.chunk(made.id(), 0)).await.unwrap();
        assert_eq!(read, vec![n as u8; 40]);
    }
    assert_eq!(found.len(), 12);
}

pub async fn shards_are_offered_by_whoever_runs_the_job(place: Place) {
    let store = place.open().await;
    let old = store.rows.acquire(JOB, "first", NOW, LONG_MS, false).await.unwrap();
    store.rows.offer_shards(offered(3, 2), vec![old.clone()]).await.unwrap();
    let done = store.rows.take_shard("any", NOW, LONG_MS).await.unwrap().unwrap();
    store.rows.close_shard(&done, sum(&store, 7).await).await.unwrap();

    // The next holder offers the same: what is done is done.
    let new = store.rows.acquire(JOB, "second", NOW, LONG_MS, true).await.unwrap();
    let refused = store.rows.offer_shards(offered(9, 2), vec![old.clone()]).await;
    assert!(matches!(refused, Err(StoreError::Fenced { job: JOB, .. })), "{refused:?}");
    assert!(store.rows.shards(round(9)).await.unwrap().is_empty());
    store.rows.offer_shards(offered(3, 2), vec![new.clone()]).await.unwrap();
    let made: Vec<bool> = store.rows.shards(round(3)).await.unwrap().iter().map(|s| s.made.is_some()).collect();
    assert_eq!(made, [done.shard.number == 0, done.shard.number == 1]);
    let other = store.rows.take_shard("any", NOW, LONG_MS).await.unwrap().unwrap();
    assert_ne!(other.shard.number, done.shard.number);

    // Another round takes the place of the job's old ones, and of no other job's.
    let elsewhere = Shard { collection: Collection { job: JobId(8), ..round(3) }, ..offered(3, 1).remove(0) };
    store.rows.offer_shards(vec![elsewhere.clone()], vec![]).await.unwrap();
    store.rows.offer_shards(offered(4, 1), vec![new.clone()]).await.unwrap();
    assert!(store.rows.shards(round(3)).await.unwrap().is_empty());
    let lost = store.rows.close_shard(&other, sum(&store, 8).await).await;
    assert_eq!(lost, Err(StoreError::Fenced { job: JOB, ours: 1, current: 0 }));
    assert!(matches!(store.rows.forget_shards(JOB, vec![old]).await, Err(StoreError::Fenced { .. })));
    store.rows.forget_shards(JOB, vec![new]).await.unwrap();
    assert!(store.rows.shards(round(4)).await.unwrap().is_empty());
    assert_eq!(store.rows.shards(elsewhere.collection).await.unwrap(), [elsewhere]);
}
