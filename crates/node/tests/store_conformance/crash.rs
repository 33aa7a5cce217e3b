//! A process that commits in a loop is killed with SIGKILL, again and again.

use super::{Opened, Place, open_embedded, open_shared, shared_store};
use littoral_node::role::{RowKey, Table, Write};
use littoral_node::store::BucketOptions;
use littoral_wire::object::Manifest;
use littoral_wire::{JobId, ObjectId};
use std::collections::BTreeMap;
use std::hint::spin_loop;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// Folder, database, endpoint, each in its line; the last two empty for an embedded store.
const STORE: &str = "LITTORAL_TEST_CRASHING_STORE";
const KILLS: u64 = 6;
const TABLES: [Table; 3] = [Table::Job, Table::Record, Table::Sealed];

/// Commit `n`: a row in three tables and an object, which the rows name.
fn commit(n: u64) -> (Manifest, Vec<u8>, Vec<Write>) {
    let bytes: Vec<u8> = n.to_le_bytes().repeat(3_000);
    let manifest = Manifest::of(&bytes).unwrap();
    let value = manifest.id().0.to_vec();
    let row = |table| RowKey { table, job: JobId(1), version: n, item: vec![] };
    let rows = TABLES.map(|table| Write::Put { key: row(table), value: value.clone() });
    let writes = rows.into_iter().chain([Write::Object(manifest.id())]).collect();
    (manifest, bytes, writes)
}

/// Not a test: what the killed process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_child() {
    let Ok(place) = std::env::var(STORE) else { return };
    let fields: Vec<&str> = place.split('\n').collect();
    let store = match fields[..] {
        [dir, "", _] => open_embedded(Path::new(dir)).await,
        [dir, url, endpoint] => {
            let bucket: BucketOptions = shared_store::bucket(Some(endpoint), "models", Path::new(dir));
            open_shared(url, &bucket, &Path::new(dir).join("child")).await
        }
        _ => unreachable!(),
    };
    let next = store.rows.load().await.unwrap().iter().map(|row| row.key.version + 1).max().unwrap_or(0);
    for n in next.. {
        let (manifest, bytes, writes) = commit(n);
        store.blocking(move |objects| objects.folder().put(&manifest, bytes)).await.unwrap();
        store.rows.commit(writes, vec![]).await.unwrap();
        writeln!(std::io::stdout(), "\nacknowledged {n}").unwrap();
    }
}

pub async fn acknowledged_commits_survive_and_none_is_half_there(place: Place) {
    let dir = place.dir.path().display().to_string();
    let child = match &place.shared {
        None => format!("{dir}\n\n"),
        Some(shared) => format!("{dir}\n{}\n{}", shared.url, shared.s3.endpoint),
    };
    let mut acknowledged = 0;
    let mut state = 1_u64;
    for kill in 0..KILLS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (acks, spins, child) = (1 + (state >> 61), (state >> 40) % 2_000_000, child.clone());
        let last = tokio::task::spawn_blocking(move || run_and_kill(&child, acks, spins)).await.unwrap();
        acknowledged = acknowledged.max(last);
        let store = place.open().await;
        check(&store, acknowledged).await;
        store.close().await;
        assert!(acknowledged >= kill, "every process got at least one commit through");
    }
}

/// Returns the last acknowledged number.
fn run_and_kill(store: &str, acks: u64, spins: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::crash_child", "--nocapture"])
        .env(STORE, store)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said = lines.by_ref().filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok());
    let last = said.by_ref().take(acks as usize).last().expect("the child got to its first commit");
    (0..spins).for_each(|_| spin_loop());
    child.kill().unwrap();
    child.wait().unwrap();
    // What it said before it died.
    said.last().unwrap_or(last)
}

async fn check(store: &Opened, acknowledged: u64) {
    let mut rows: BTreeMap<u64, Vec<(Table, ObjectId)>> = BTreeMap::new();
    for row in store.rows.load().await.unwrap() {
        rows.entry(row.key.version).or_default().push((row.key.table, ObjectId(row.value.try_into().unwrap())));
    }
    for n in 0..=acknowledged {
        assert!(rows.contains_key(&n), "commit {n} was acknowledged and is gone");
    }
    for (n, found) in rows {
        let (manifest, ..) = commit(n);
        assert_eq!(found, TABLES.map(|table| (table, manifest.id())), "commit {n} is half there");
        let missing = store.blocking(move |objects| objects.begin(&manifest)).await.unwrap();
        assert!(missing.is_empty(), "the object of commit {n} is not whole");
    }
}
