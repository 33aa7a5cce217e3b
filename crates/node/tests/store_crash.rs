//! A process that commits in a loop is killed with SIGKILL, again and again; and a disk that fills up.

mod host_scratch;

use host_scratch::Scratch;
use littoral_node::role::{RowKey, Table, Write};
use littoral_node::store::{FileObjects, SqliteStore, Store};
use littoral_node::work::{ObjectFault, Objects};
use littoral_wire::object::Manifest;
use littoral_wire::{JobId, ObjectId};
use std::collections::BTreeMap;
use std::hint::spin_loop;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

const DIR: &str = "LITTORAL_TEST_CRASH_DIR";
const KILLS: u64 = 20;
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
#[tokio::test]
async fn crash_child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = SqliteStore::open(Path::new(&dir)).await.unwrap();
    let next = store.load().await.unwrap().iter().map(|row| row.key.version + 1).max().unwrap_or(0);
    for n in next.. {
        let (manifest, bytes, writes) = commit(n);
        store.objects().put(&manifest, bytes).unwrap();
        store.commit(writes, vec![]).await.unwrap();
        writeln!(std::io::stdout(), "\nacknowledged {n}").unwrap();
    }
}

#[tokio::test]
async fn acknowledged_commits_survive_and_none_is_half_there() {
    let dir = Scratch::new("killed");
    let mut acknowledged = None;
    // A small generator, so that kills come at other points each time, and the same ones in each run of this test.
    let mut state = 1_u64;
    for _ in 0..KILLS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (acks, spins) = (1 + (state >> 60), (state >> 40) % 2_000_000);
        acknowledged = acknowledged.max(Some(run_and_kill(dir.path(), acks, spins)));
        check(dir.path(), acknowledged.unwrap()).await;
    }
    assert!(acknowledged.unwrap() >= KILLS - 1, "every process got at least one commit through");
}

/// Returns the last acknowledged number.
fn run_and_kill(dir: &Path, acks: u64, spins: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash_child", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said = lines.by_ref().filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok());
    let mut last = said.by_ref().take(acks as usize).last().expect("the child got to its first commit");
    (0..spins).for_each(|_| spin_loop());
    child.kill().unwrap();
    child.wait().unwrap();
    // What it said before it died.
    last = said.last().unwrap_or(last);
    last
}

async fn check(dir: &Path, acknowledged: u64) {
    let store = SqliteStore::open(dir).await.unwrap();
    let objects = store.objects();
    let mut rows: BTreeMap<u64, Vec<(Table, ObjectId)>> = BTreeMap::new();
    for row in store.load().await.unwrap() {
        rows.entry(row.key.version).or_default().push((row.key.table, ObjectId(row.value.try_into().unwrap())));
    }
    for n in 0..=acknowledged {
        assert!(rows.contains_key(&n), "commit {n} was acknowledged and is gone");
    }
    for (n, found) in rows {
        let (manifest, ..) = commit(n);
        assert_eq!(found, TABLES.map(|table| (table, manifest.id())), "commit {n} is half there");
        assert!(objects.begin(&manifest).unwrap().is_empty(), "the object of commit {n} is not whole");
    }
    store.close().await;
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let dir = Scratch::new("second");
    let _store = SqliteStore::open(dir.path()).await.unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash_child", "--nocapture"])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr).into_owned() + &String::from_utf8_lossy(&child.stdout);
    assert!(
        !child.status.success() && said.contains("InUse") && said.contains(&std::process::id().to_string()),
        "{said}"
    );
}

/// A file system of 2 MB, for those who may mount one.
struct SmallDisk(Scratch);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = Scratch::new("full");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(dir.path()).output();
        match mounted {
            Ok(out) if out.status.success() => Some(Self(dir)),
            Ok(out) => {
                println!("skipped: no small disk: {}", String::from_utf8_lossy(&out.stderr).trim());
                None
            }
            Err(e) => {
                println!("skipped: no small disk: mount: {e}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_half_written_shows() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.0.path();
    let store = SqliteStore::open(dir).await.unwrap();
    let objects: std::sync::Arc<FileObjects> = store.objects();
    let row = |version, bytes| Write::Put {
        key: RowKey { table: Table::Job, job: JobId(1), version, item: vec![] },
        value: vec![1; bytes],
    };
    store.commit(vec![row(0, 10)], vec![]).await.unwrap();

    let big = vec![3; 4 << 20];
    let manifest = Manifest::of(&big).unwrap();
    let mut writer = objects.create().unwrap();
    let full = writer.append(&big).unwrap_err();
    assert!(matches!(&full, ObjectFault::Disk(why) if why.contains("No space left")), "{full}");
    drop(writer);
    let full = objects.put(&manifest, big.clone()).unwrap_err();
    assert!(matches!(&full, ObjectFault::Disk(why) if why.contains("No space left")), "{full}");
    assert_eq!(objects.read(manifest.id(), 0, &mut [0]), Err(ObjectFault::Missing(manifest.id())));

    let full = store.commit(vec![row(1, 10), row(2, 4 << 20)], vec![]).await.unwrap_err();
    assert!(full.may_pass(), "{full}");
    assert_eq!(full.to_string().lines().count(), 1);
    assert_eq!(store.load().await.unwrap().len(), 1, "none of a refused commit");
    store.commit(vec![row(1, 10)], vec![]).await.unwrap();
    assert_eq!(store.load().await.unwrap().len(), 2, "and it goes on when there is room");
}
