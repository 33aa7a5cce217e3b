//! Objects: whole or absent, durable once synced, checked when they are read.

use super::{Opened, Place, put};
use littoral_node::role::{Table, Write};
use littoral_node::store::Workshop;
use littoral_node::work::{ObjectFault, Objects};
use littoral_wire::object::{CHUNK_BYTES, Manifest};

/// More than two parts of an upload.
const BIG_BYTES: usize = 20_000_001;

fn body(seed: u32, bytes: usize) -> (Manifest, Vec<u8>) {
    let body: Vec<u8> =
        (0..bytes as u32).map(|n| (n.wrapping_mul(2_654_435_761).wrapping_add(seed << 24) >> 24) as u8).collect();
    (Manifest::of(&body).unwrap(), body)
}

async fn name(store: &Opened, manifest: &Manifest) -> Result<(), littoral_node::store::StoreError> {
    let row = put(Table::Record, 0, &manifest.id().0, b"");
    store.rows.commit(vec![row, Write::Object(manifest.id())], vec![]).await
}

async fn read(store: &Opened, manifest: &Manifest) -> Result<Vec<u8>, ObjectFault> {
    let (id, bytes) = (manifest.id(), manifest.bytes() as usize);
    store
        .blocking(move |objects| {
            let mut out = vec![0; bytes];
            objects.read(id, 0, &mut out).map(|()| out)
        })
        .await
}

pub async fn an_object_is_whole_or_absent(place: Place) {
    let store = place.open().await;
    let (manifest, bytes) = body(1, CHUNK_BYTES + 10);
    let id = manifest.id();
    let arriving = manifest.clone();
    assert_eq!(store.blocking(move |o| o.begin(&arriving)).await, Ok(vec![0, 1]));
    let first = bytes[..CHUNK_BYTES].to_vec();
    store.blocking(move |o| o.folder().keep(id, 0, &first)).await.unwrap();
    // Half of it: nobody gets anything, and no row may name it.
    assert_eq!(store.blocking(move |o| o.chunk(id, 0)).await, Err(ObjectFault::Missing(id)));
    assert_eq!(read(&store, &manifest).await, Err(ObjectFault::Missing(id)));
    assert!(name(&store, &manifest).await.is_err());
    let wrong = vec![0; 10];
    assert!(store.blocking(move |o| o.folder().keep(id, 1, &wrong)).await.is_err());
    let second = bytes[CHUNK_BYTES..].to_vec();
    store.blocking(move |o| o.folder().keep(id, 1, &second)).await.unwrap();
    name(&store, &manifest).await.unwrap();
    assert_eq!(store.blocking(move |o| o.chunk(id, 1)).await.unwrap(), bytes[CHUNK_BYTES..]);
    assert_eq!(read(&store, &manifest).await.unwrap(), bytes);
}

pub async fn what_was_synced_is_there_after_a_restart(place: Place) {
    let store = place.open().await;
    let all: Vec<_> =
        [0, 1, CHUNK_BYTES, BIG_BYTES].iter().enumerate().map(|(n, bytes)| body(n as u32, *bytes)).collect();
    for (manifest, bytes) in &all {
        let (manifest, bytes, to_name) = (manifest.clone(), bytes.clone(), manifest.clone());
        store.blocking(move |o| o.folder().put(&manifest, bytes)).await.unwrap();
        name(&store, &to_name).await.unwrap();
    }
    store.close().await;
    let store = place.open().await;
    for (manifest, bytes) in &all {
        let asked = manifest.clone();
        assert_eq!(store.blocking(move |o| o.begin(&asked)).await, Ok(vec![]));
        assert!(read(&store, manifest).await.unwrap() == *bytes, "{} bytes", bytes.len());
    }
}

pub async fn a_work_makes_objects_that_get_their_names_later(place: Place) {
    let store = place.open().await;
    let (manifest, bytes) = body(9, 3 * CHUNK_BYTES);
    let id = manifest.id();
    let made = store
        .blocking(move |objects| {
            let workshop = Workshop::new(objects);
            let mut writer = workshop.create().unwrap();
            bytes.chunks(1_000).for_each(|piece| writer.append(piece).unwrap());
            assert_eq!(writer.finish().unwrap().id(), id);
            workshop.into_made()
        })
        .await;
    assert_eq!(store.blocking(move |o| o.chunk(id, 0)).await, Err(ObjectFault::Missing(id)));
    store.blocking(move |o| made.iter().for_each(|made| o.folder().publish_made(made).unwrap())).await;
    name(&store, &manifest).await.unwrap();
    assert!(store.blocking(move |o| o.chunk(id, 2)).await.is_ok());
}

pub async fn dropped_is_gone(place: Place) {
    let store = place.open().await;
    let ((kept, kept_bytes), (dropped, dropped_bytes)) = (body(1, 1_000), body(2, 1_000));
    for (manifest, bytes) in [(kept.clone(), kept_bytes.clone()), (dropped.clone(), dropped_bytes.clone())] {
        let named = manifest.clone();
        store.blocking(move |o| o.folder().put(&manifest, bytes)).await.unwrap();
        name(&store, &named).await.unwrap();
    }
    let id = dropped.id();
    store.blocking(move |o| o.remove(id)).await.unwrap();
    // From a shared place it goes when it is swept.
    if let super::Engine::Postgres(shared) = &store.engine {
        let s3 = &place.shared.as_ref().unwrap().s3;
        assert_eq!(s3.names().len(), 4);
        let hour = std::time::Duration::from_secs(3_600);
        assert_eq!(shared.sweep(hour, |_| |_| false).await, Ok(0), "too early");
        let needed = std::time::Duration::ZERO;
        assert_eq!(shared.sweep(needed, |rows| move |_| rows.len() == 2).await, Ok(0), "a job needs it");
        let again = dropped_bytes.clone();
        let named = dropped.clone();
        store.blocking(move |o| o.folder().put(&named, again)).await.unwrap();
        name(&store, &dropped).await.unwrap();
        store.blocking(move |o| o.remove(id)).await.unwrap();
        assert_eq!(shared.sweep(std::time::Duration::ZERO, |_| |_| false).await, Ok(1));
        assert_eq!(shared.objects().bucket().list().await.unwrap(), [kept.id()]);
    }
    assert_eq!(read(&store, &dropped).await, Err(ObjectFault::Missing(id)));
    assert_eq!(read(&store, &kept).await.unwrap(), kept_bytes);
    // And it may come again.
    let again = dropped.clone();
    store.blocking(move |o| o.folder().put(&again, dropped_bytes)).await.unwrap();
    name(&store, &dropped).await.unwrap();
    store.close().await;
    assert!(read(&place.open().await, &dropped).await.is_ok());
}
