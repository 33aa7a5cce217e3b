//! Objects in a bucket that several machines use: what breaks on the way shows to nobody, and damage is found.

mod host_scratch;
mod shared_store;

use host_scratch::Scratch;
use littoral_node::role::{RowKey, Table, Write};
use littoral_node::store::{BucketObjects, BucketOptions, ObjectStore, PgStore, Store, StoreError};
use littoral_node::work::{ObjectFault, Objects};
use littoral_wire::JobId;
use littoral_wire::object::Manifest;
use shared_store::{Postgres, bucket, open, s3::S3};
use std::sync::Arc;

struct Shared {
    dir: Scratch,
    url: String,
    s3: S3,
}

impl Shared {
    async fn new(name: &str) -> Option<Self> {
        let url = Postgres::here().await?.database().await;
        Some(Self { url, dir: Scratch::new(name), s3: S3::start().await })
    }

    fn options(&self) -> BucketOptions {
        bucket(Some(&self.s3.endpoint), "models", self.dir.path())
    }

    async fn machine(&self, name: &str) -> PgStore {
        open(&self.url, &self.options(), &self.dir.path().join(name)).await
    }
}

fn body(bytes: usize) -> (Manifest, Vec<u8>) {
    let body: Vec<u8> = (0..bytes as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    (Manifest::of(&body).unwrap(), body)
}

/// Calls about objects block.
async fn blocking<T: Send + 'static>(
    store: &PgStore,
    deed: impl FnOnce(Arc<BucketObjects>) -> T + Send + 'static,
) -> T {
    let objects = store.objects();
    tokio::task::spawn_blocking(move || deed(objects)).await.unwrap()
}

async fn commit(store: &PgStore, manifest: &Manifest) -> Result<(), StoreError> {
    let key = RowKey { table: Table::Record, job: JobId(1), version: 0, item: vec![] };
    store.commit(vec![Write::Put { key, value: vec![] }, Write::Object(manifest.id())], vec![]).await
}

async fn read(store: &PgStore, manifest: &Manifest) -> Result<Vec<u8>, ObjectFault> {
    let (id, bytes) = (manifest.id(), manifest.bytes() as usize);
    blocking(store, move |objects| {
        let mut out = vec![0; bytes];
        objects.read(id, 0, &mut out).map(|()| out)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_shows_to_nobody_and_may_be_tried_again() {
    let Some(shared) = Shared::new("breaks").await else { return };
    let (here, there) = (shared.machine("here").await, shared.machine("there").await);
    // Three parts, or one body; and its manifest.
    for (bytes, puts) in [(20_000_000, 4), (1_000, 2)] {
        let (manifest, whole) = body(bytes);
        let put = manifest.clone();
        blocking(&here, move |objects| objects.folder().put(&put, whole)).await.unwrap();
        for taken in 0..puts {
            shared.s3.take_only(Some(taken));
            let refused = commit(&here, &manifest).await;
            assert!(matches!(&refused, Err(e @ StoreError::Object(_)) if e.may_pass()), "{refused:?}");
            assert_eq!(
                read(&there, &manifest).await,
                Err(ObjectFault::Missing(manifest.id())),
                "after {taken} of {puts}"
            );
            assert!(!there.load().await.unwrap().iter().any(|row| row.value == manifest.id().0));
        }
        shared.s3.take_only(None);
        commit(&here, &manifest).await.unwrap();
        assert_eq!(read(&there, &manifest).await.unwrap(), body(bytes).1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_the_bucket_is_found_and_named() {
    let Some(shared) = Shared::new("damage").await else { return };
    let here = shared.machine("here").await;
    let (manifest, whole) = body(300_000);
    let (id, put) = (manifest.id(), manifest.clone());
    blocking(&here, move |objects| objects.folder().put(&put, whole)).await.unwrap();
    commit(&here, &manifest).await.unwrap();
    for end in [id.to_string(), format!("{id}.manifest")] {
        shared.s3.damage(&end);
        let there = shared.machine(&format!("there-{}", end.len())).await;
        let refused = read(&there, &manifest).await;
        assert!(matches!(&refused, Err(ObjectFault::Damaged { object, .. }) if *object == id), "{refused:?}");
        let asked = manifest.clone();
        assert!(!blocking(&there, move |objects| objects.begin(&asked)).await.unwrap().is_empty());
        // Whoever has it still has it.
        assert!(read(&here, &manifest).await.is_ok());
        shared.s3.damage(&end);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_on_a_machine_is_mended_from_the_bucket() {
    let Some(shared) = Shared::new("mend").await else { return };
    let here = shared.machine("here").await;
    let (manifest, whole) = body(300_000);
    let (id, put) = (manifest.id(), manifest.clone());
    blocking(&here, move |objects| objects.folder().put(&put, whole)).await.unwrap();
    commit(&here, &manifest).await.unwrap();
    here.close().await;
    let path = shared.dir.path().join(format!("here/objects/{id}"));
    std::fs::write(&path, b"rotten").unwrap();
    let here = shared.machine("here").await;
    assert_eq!(blocking(&here, move |objects| objects.chunk(id, 1)).await.unwrap(), body(300_000).1[131_072..262_144]);
    assert_eq!(read(&here, &manifest).await.unwrap(), body(300_000).1);
}

#[test]
fn a_secret_is_never_said() {
    let options = BucketOptions { secret_key: "s3cret".into(), access_key: "AKID".into(), ..BucketOptions::default() };
    assert!(!format!("{options:?}").contains("s3cret"));
    let refused = littoral_node::store::Bucket::new(&BucketOptions { url: "ftp://x".into(), ..options }).err().unwrap();
    assert!(refused.to_string().contains("s3://bucket/prefix or file:///folder expected"), "{refused}");
}
