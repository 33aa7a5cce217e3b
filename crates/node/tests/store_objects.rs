//! Objects in files: arrival in any order, tears, damage, and what a restart finds.

mod host_scratch;

use host_scratch::Scratch;
use littoral_node::store::{Collected, FileObjects, KeepFault, Workshop};
use littoral_node::work::{ObjectFault, Objects};
use littoral_wire::object::{CHUNK_BYTES, Manifest};
use std::os::unix::fs::FileExt;

/// Bytes that differ from chunk to chunk.
fn object(chunks: usize, tail: usize) -> (Manifest, Vec<u8>) {
    let bytes: Vec<u8> = (0..chunks * CHUNK_BYTES + tail).map(|i| (i / 251 + i) as u8).collect();
    (Manifest::of(&bytes).unwrap(), bytes)
}

fn chunk(bytes: &[u8], index: u32) -> &[u8] {
    bytes.chunks(CHUNK_BYTES).nth(index as usize).unwrap()
}

#[test]
fn chunks_arrive_in_any_order() {
    let dir = Scratch::new("order");
    let objects = FileObjects::open(dir.path()).unwrap();
    let (manifest, bytes) = object(4, 17);
    let id = manifest.id();
    assert_eq!(objects.keep(id, 0, chunk(&bytes, 0)), Err(KeepFault::NotBegun(id)));
    assert_eq!(objects.begin(&manifest).unwrap(), [0, 1, 2, 3, 4]);
    for index in [3, 0, 4, 1] {
        objects.keep(id, index, chunk(&bytes, index)).unwrap();
    }
    assert!(matches!(objects.keep(id, 2, chunk(&bytes, 1)), Err(KeepFault::Chunk(_))));
    assert_eq!(objects.read(id, 0, &mut [0]), Err(ObjectFault::Missing(id)), "not whole, so not here");
    assert_eq!(objects.begin(&manifest).unwrap(), [2]);
    objects.keep(id, 2, chunk(&bytes, 2)).unwrap();
    objects.keep(id, 2, chunk(&bytes, 2)).unwrap();

    let mut read = vec![0; bytes.len() - 5];
    objects.read(id, 5, &mut read).unwrap();
    assert!(read == bytes[5..]);
    assert_eq!(objects.chunk(id, 4).unwrap(), chunk(&bytes, 4));
    assert!(objects.chunk(id, 5).is_err());
    assert!(objects.read(id, 6, &mut read).is_err(), "one byte past the end");
}

#[test]
fn a_restart_finds_kept_chunks_and_torn_ones() {
    let dir = Scratch::new("torn");
    let (manifest, bytes) = object(6, 0);
    let id = manifest.id();
    let objects = FileObjects::open(dir.path()).unwrap();
    objects.begin(&manifest).unwrap();
    for index in [0, 2, 3, 5] {
        objects.keep(id, index, chunk(&bytes, index)).unwrap();
    }
    drop(objects);
    // A crash in the middle of a write.
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join(format!("arriving/{id}"))).unwrap();
    file.write_all_at(&[0; CHUNK_BYTES / 2], (3 * CHUNK_BYTES + CHUNK_BYTES / 2) as u64).unwrap();
    let objects = FileObjects::open(dir.path()).unwrap();
    assert_eq!(objects.begin(&manifest).unwrap(), [1, 3, 4]);
}

#[test]
fn a_rotten_object_is_fetched_again_and_only_where_it_is_rotten() {
    let dir = Scratch::new("rotten");
    let (manifest, bytes) = object(3, 9);
    let id = manifest.id();
    let objects = FileObjects::open(dir.path()).unwrap();
    objects.put(&manifest, bytes.clone()).unwrap();
    objects.sync(&[id]).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join(format!("objects/{id}"))).unwrap();
    file.write_all_at(&[bytes[CHUNK_BYTES] ^ 1], CHUNK_BYTES as u64).unwrap();
    assert!(matches!(objects.chunk(id, 1), Err(ObjectFault::Damaged { .. })), "even in the same run");

    let objects = FileObjects::open(dir.path()).unwrap();
    let refused = objects.read(id, 0, &mut [0; 4]);
    assert!(matches!(refused, Err(ObjectFault::Damaged { .. })), "not even its sound bytes are used: {refused:?}");
    assert_eq!(objects.begin(&manifest).unwrap(), [1]);
    objects.keep(id, 1, chunk(&bytes, 1)).unwrap();
    assert_eq!(objects.chunk(id, 1).unwrap(), chunk(&bytes, 1));
    objects.read(id, 0, &mut [0; 4]).unwrap();
}

#[test]
fn a_manifest_that_a_power_cut_took_is_made_again() {
    let dir = Scratch::new("manifest");
    let (manifest, bytes) = object(2, 3);
    let id = manifest.id();
    let objects = FileObjects::open(dir.path()).unwrap();
    objects.put(&manifest, bytes.clone()).unwrap();
    let path = dir.path().join(format!("objects/{id}.manifest"));
    for torn in [&b""[..], b"torn"] {
        std::fs::write(&path, torn).unwrap();
        let objects = FileObjects::open(dir.path()).unwrap();
        assert_eq!(objects.chunk(id, 2).unwrap(), chunk(&bytes, 2));
        assert!(std::fs::metadata(&path).unwrap().len() > 32);
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::write(dir.path().join(format!("objects/{id}")), &bytes[1..]).unwrap();
    assert!(matches!(FileObjects::open(dir.path()).unwrap().manifest(id), Err(ObjectFault::Damaged { .. })));
}

#[test]
fn an_object_is_written_from_front_to_back() {
    let dir = Scratch::new("writer");
    let objects = FileObjects::open(dir.path()).unwrap();
    let (manifest, bytes) = object(2, 100);
    let mut writer = objects.create().unwrap();
    for piece in bytes.chunks(50_000) {
        writer.append(piece).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), manifest);
    objects.sync(&[manifest.id()]).unwrap();
    assert!(objects.begin(&manifest).unwrap().is_empty());

    let mut given_up = objects.create().unwrap();
    given_up.append(&bytes).unwrap();
    drop(given_up);
    assert_eq!(std::fs::read_dir(dir.path().join("arriving")).unwrap().count(), 0);
    let empty = objects.create().unwrap().finish().unwrap();
    assert_eq!((empty.bytes(), objects.begin(&empty).unwrap()), (0, vec![]));
}

#[test]
fn put_refuses_other_bytes_and_remove_leaves_nothing() {
    let dir = Scratch::new("put");
    let objects = FileObjects::open(dir.path()).unwrap();
    let (manifest, mut bytes) = object(1, 1);
    bytes[0] ^= 1;
    assert!(matches!(objects.put(&manifest, bytes.clone()), Err(ObjectFault::Damaged { .. })));
    bytes[0] ^= 1;
    objects.put(&manifest, bytes).unwrap();
    let (other, _) = object(2, 0);
    objects.begin(&other).unwrap();
    let (kept, garbage) = (manifest.id(), other.id());
    objects.remove(kept).unwrap();
    objects.remove(garbage).unwrap();
    objects.remove(garbage).unwrap();
    assert_eq!(objects.chunk(kept, 0), Err(ObjectFault::Missing(kept)));
    assert_eq!(objects.sync(&[kept]), Err(ObjectFault::Missing(kept)));
    for folder in ["objects", "arriving"] {
        assert_eq!(std::fs::read_dir(dir.path().join(folder)).unwrap().count(), 0);
    }
}

#[test]
fn half_written_files_are_swept() {
    let dir = Scratch::new("sweep");
    drop(FileObjects::open(dir.path()).unwrap());
    for name in ["arriving/new-3", "objects/ab.manifest#1"] {
        std::fs::write(dir.path().join(name), b"half").unwrap();
    }
    drop(FileObjects::open(dir.path()).unwrap());
    assert!(!dir.path().join("arriving/new-3").exists() && !dir.path().join("objects/ab.manifest#1").exists());
}

#[test]
fn a_start_collects_what_nobody_needs_and_what_partly_arrived_can_be_resumed_once() {
    let dir = Scratch::new("collect");
    let (needed, old, partial) = (object(1, 0), object(1, 1), object(3, 0));
    let objects = FileObjects::open(dir.path()).unwrap();
    for (manifest, bytes) in [&needed, &old] {
        objects.put(manifest, bytes.clone()).unwrap();
    }
    objects.begin(&partial.0).unwrap();
    objects.keep(partial.0.id(), 1, chunk(&partial.1, 1)).unwrap();
    // A crash, and the next start.
    let start = || {
        let objects = FileObjects::open(dir.path()).unwrap();
        let collected = objects.collect(|object| object == needed.0.id()).unwrap();
        (objects, collected)
    };
    let (objects, collected) = start();
    assert_eq!(collected, Collected { dropped: 1, left: 1 });
    assert_eq!(objects.chunk(old.0.id(), 0), Err(ObjectFault::Missing(old.0.id())));
    assert_eq!(objects.begin(&partial.0).unwrap(), [0, 2], "the chunk that had come is found again");
    let (objects, collected) = start();
    assert_eq!(collected, Collected { dropped: 0, left: 1 }, "asked for in the last run");
    drop(objects);
    let (objects, collected) = start();
    assert_eq!(collected, Collected { dropped: 1, left: 0 }, "not asked for");
    assert_eq!(std::fs::read_dir(dir.path().join("arriving")).unwrap().count(), 0);
    assert_eq!(objects.chunk(needed.0.id(), 0).unwrap(), needed.1);
}

#[test]
fn what_a_work_made_gets_its_name_when_it_is_published() {
    let dir = Scratch::new("made");
    let objects = FileObjects::open(dir.path()).unwrap();
    let make = |workshop: &Workshop<'_>| {
        let mut writer = workshop.create().unwrap();
        writer.append(b"equal").unwrap();
        writer.finish().unwrap().id()
    };
    let workshop = Workshop::new(&objects);
    let id = make(&workshop);
    // The drop of another job's equal bytes, ordered before.
    objects.remove(id).unwrap();
    assert_eq!(objects.chunk(id, 0), Err(ObjectFault::Missing(id)));
    // The work itself reads it, and no more than there is.
    let mut bytes = [0; 3];
    workshop.read(id, 2, &mut bytes).unwrap();
    assert_eq!(&bytes, b"ual");
    assert!(matches!(workshop.read(id, 3, &mut bytes), Err(ObjectFault::Damaged { .. })));
    for made in workshop.into_made() {
        objects.publish_made(&made).unwrap();
    }
    assert_eq!(objects.chunk(id, 0).unwrap(), b"equal");

    let unwanted = Workshop::new(&objects);
    make(&unwanted);
    drop(unwanted);
    assert_eq!(std::fs::read_dir(dir.path().join("arriving")).unwrap().count(), 0);
}
