//! Leases over connections of their own: who was stalled writes nothing, and no update is lost.

mod host_scratch;
mod shared_store;

use host_scratch::Scratch;
use littoral_node::role::{Row, RowKey, Table, Write};
use littoral_node::store::{Lease, PgStore, Store, StoreError};
use littoral_wire::JobId;
use shared_store::{Postgres, bucket, open};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const JOB: JobId = JobId(7);
/// Longer than any test runs.
const LONG_MS: u64 = 3_600_000;
/// Folder and database, each in its line.
const STORE: &str = "LITTORAL_TEST_STALLED_HOLDER";
const STALLED_TTL_MS: u64 = 200;

struct Shared {
    dir: Scratch,
    url: String,
}

impl Shared {
    async fn new(name: &str) -> Option<Self> {
        Some(Self { url: Postgres::here().await?.database().await, dir: Scratch::new(name) })
    }

    async fn open(&self, replica: &str) -> PgStore {
        let bucket = bucket(None, "", &self.dir.path().join("bucket"));
        open(&self.url, &bucket, &self.dir.path().join(replica)).await
    }
}

fn put(job: JobId, table: Table, item: &[u8], value: &[u8]) -> Write {
    Write::Put { key: RowKey { table, job, version: 0, item: item.to_vec() }, value: value.to_vec() }
}

async fn claim_one(store: &PgStore, holder: &str) -> Lease {
    loop {
        if let Some(lease) = store.claim(holder, 0, LONG_MS, 1).await.unwrap().pop() {
            return lease;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_claim_at_once_get_different_jobs() {
    let Some(shared) = Shared::new("claims").await else { return };
    let store = shared.open("a").await;
    let jobs: BTreeSet<JobId> = (1..=100).map(JobId).collect();
    let rows = jobs.iter().map(|job| put(*job, Table::Job, b"", b"x")).collect();
    store.commit(rows, vec![]).await.unwrap();
    let replica = |n: u32| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claimed = store.claim(&format!("replica-{n}"), 0, LONG_MS, 3).await.unwrap();
                if claimed.is_empty() {
                    return mine;
                }
                mine.extend(claimed);
            }
        })
    };
    let mut claimed = Vec::new();
    for done in (0..6).map(replica).collect::<Vec<_>>() {
        claimed.extend(done.await.unwrap());
    }
    assert_eq!(claimed.len(), jobs.len());
    assert_eq!(claimed.iter().map(|lease| lease.job).collect::<BTreeSet<_>>(), jobs);
    assert!(claimed.iter().all(|lease| lease.token == 1));
    // One that is given back may be had at once, under the next number; the old one is worth nothing.
    store.release(&claimed[0]).await.unwrap();
    let again = claim_one(&store, "late").await;
    assert_eq!((again.job, again.token), (claimed[0].job, 2));
    let stale = store.commit(vec![put(again.job, Table::Record, b"", b"")], vec![claimed[0].clone()]).await;
    assert_eq!(stale, Err(StoreError::Fenced { job: again.job, ours: 1, current: 2 }));
}

/// A takeover waits for a commit that is under way, and a commit for a takeover: either is before the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_and_a_takeover_never_cross() {
    let Some(shared) = Shared::new("cross").await else { return };
    let (holder, other) = (shared.open("a").await, shared.open("b").await);
    for round in 0..40_u64 {
        let lease = holder.acquire(JOB, "holder", 0, LONG_MS, true).await.unwrap();
        let mut writes = vec![put(JOB, Table::Job, b"by", b"holder")];
        writes.extend((0..20_u8).map(|n| put(JOB, Table::Record, &[n], &round.to_le_bytes())));
        let commit = holder.commit(writes, vec![lease]);
        let takeover = async {
            let lease = other.acquire(JOB, "other", 0, LONG_MS, true).await.unwrap();
            other.commit(vec![put(JOB, Table::Job, b"by", b"other")], vec![lease]).await.unwrap();
        };
        let (committed, ()) = tokio::join!(commit, takeover);
        assert!(matches!(&committed, Ok(()) | Err(StoreError::Fenced { .. })), "{committed:?}");
        let rows = holder.load().await.unwrap();
        let by = rows.iter().find(|row| row.key.table == Table::Job).unwrap();
        assert_eq!(by.value, b"other", "round {round}: the last word is the new holder's");
        let of_round = |row: &&Row| row.key.table == Table::Record && row.value == round.to_le_bytes();
        let written = rows.iter().filter(of_round).count();
        assert_eq!(written, if committed.is_ok() { 20 } else { 0 }, "round {round}");
    }
}

/// Not a test: a holder that writes in a loop, and is stopped by others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holder_child() {
    let Ok(place) = std::env::var(STORE) else { return };
    let (dir, url) = place.split_once('\n').unwrap();
    let bucket = bucket(None, "", &Path::new(dir).join("bucket"));
    let store = open(url, &bucket, &Path::new(dir).join("child")).await;
    let lease = store.acquire(JOB, "child", 0, STALLED_TTL_MS, false).await.unwrap();
    for n in 0_u64.. {
        match store.commit(vec![put(JOB, Table::Record, &n.to_be_bytes(), b"")], vec![lease.clone()]).await {
            Ok(()) => writeln!(std::io::stdout(), "\nwrote {n}").unwrap(),
            Err(StoreError::Fenced { ours, current, .. }) => {
                return writeln!(std::io::stdout(), "\nfenced {ours} {current}").unwrap();
            }
            // Its transaction was ended while it stood still.
            Err(e) if e.may_pass() => writeln!(std::io::stdout(), "\nagain {n}: {e}").unwrap(),
            Err(e) => panic!("{e}"),
        }
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_stalled_writes_nothing_once_another_has_the_lease() {
    let Some(shared) = Shared::new("stalled").await else { return };
    let store = shared.open("other").await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holder_child", "--nocapture"])
        .env(STORE, format!("{}\n{}", shared.dir.path().display(), shared.url))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    // It writes on beyond the end of its lease, which nobody else wants yet.
    assert!(lines.by_ref().any(|line| line == "wrote 20"));
    signal(&child, "-STOP");
    // A transaction in which it may have been stopped is ended by the database, and then its lease can be had.
    let lease = claim_one(&store, "other").await;
    assert_eq!((lease.job, lease.token), (JOB, 2));
    let before = store.load_job(JOB).await.unwrap();
    store.commit(vec![put(JOB, Table::Job, b"", b"taken")], vec![lease]).await.unwrap();
    signal(&child, "-CONT");
    assert!(lines.any(|line| line == "fenced 1 2"), "it is told so");
    assert!(child.wait().unwrap().success());
    let after: Vec<Row> = store.load_job(JOB).await.unwrap();
    let records: Vec<Row> = after.into_iter().filter(|row| row.key.table == Table::Record).collect();
    assert!(records == before, "not a row more: {} of {}", records.len(), before.len());
}

/// A counter that is read and written back, by writers that sometimes dawdle until their lease has run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_update_is_lost() {
    let Some(shared) = Shared::new("counter").await else { return };
    let store = shared.open("a").await;
    store.commit(vec![put(JOB, Table::Job, b"", &0_u64.to_le_bytes())], vec![]).await.unwrap();
    let writer = |n: u64| {
        let store = store.clone();
        tokio::spawn(async move {
            let (mut done, mut fenced) = (0_u64, 0_u64);
            for turn in 0.. {
                if done == 8 {
                    break;
                }
                let dawdles = (n + turn).is_multiple_of(5);
                let ttl_ms = if dawdles { 1 } else { 2_000 };
                let Some(lease) = store.claim(&format!("writer-{n}"), 0, ttl_ms, 1).await.unwrap().pop() else {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                };
                let rows = store.load_job(JOB).await.unwrap();
                let count = u64::from_le_bytes(rows[0].value.clone().try_into().unwrap());
                if dawdles {
                    tokio::time::sleep(Duration::from_millis(15)).await;
                }
                match store
                    .commit(vec![put(JOB, Table::Job, b"", &(count + 1).to_le_bytes())], vec![lease.clone()])
                    .await
                {
                    Ok(()) => done += 1,
                    Err(StoreError::Fenced { .. }) => fenced += 1,
                    Err(e) => panic!("{e}"),
                }
                store.release(&lease).await.unwrap();
            }
            (done, fenced)
        })
    };
    let (mut done, mut fenced) = (0, 0);
    for finished in (0..8).map(writer).collect::<Vec<_>>() {
        let (d, f) = finished.await.unwrap();
        (done, fenced) = (done + d, fenced + f);
    }
    let rows = store.load_job(JOB).await.unwrap();
    assert_eq!(rows[0].value, done.to_le_bytes(), "{done} commits, {fenced} refused");
    assert!(fenced > 0, "some of those who dawdled were fenced");
}
