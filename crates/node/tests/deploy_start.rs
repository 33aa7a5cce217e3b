//! A role from its folder: what an earlier run left there.

mod host_scratch;

use host_scratch::Scratch;
use littoral_node::config::{CloudConfig, Network, TransportName};
use littoral_node::deploy::{ADDRESS_FILE, DeployError, KEY_FILE, Running, start_cloud};
use littoral_node::host::OnReport;
use littoral_node::role::Report;
use littoral_node::store::{FileObjects, StoreError};
use littoral_wire::object::{CHUNK_BYTES, Manifest};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

fn config(dir: &Path) -> CloudConfig {
    let network = Network { transport: TransportName::Tcp, ..Network::default() };
    CloudConfig { dir: dir.into(), listen: "127.0.0.1:0".into(), network, ..CloudConfig::default() }
}

async fn start(dir: &Path, notes: &UnboundedSender<String>) -> Running {
    let config = config(dir);
    let notes = notes.clone();
    let on_report: OnReport = Arc::new(move |report| {
        if let Report::Note { what } | Report::Warning { what } = report {
            notes.send(what).unwrap();
        }
    });
    loop {
        match start_cloud(&config, on_report.clone()).await {
            // The run before may take a moment to give the folder back.
            Err(DeployError::Store(StoreError::InUse { .. })) => tokio::task::yield_now().await,
            started => return started.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_start_drops_what_nothing_refers_to_and_says_so_once() {
    let dir = Scratch::new("garbage");
    let (notes, mut noted) = unbounded_channel();
    start(dir.path(), &notes).await.stop().await.unwrap();
    let (old, half) = (vec![1; 10], vec![2; 2 * CHUNK_BYTES]);
    let objects = FileObjects::open(dir.path()).unwrap();
    objects.put(&Manifest::of(&old).unwrap(), old).unwrap();
    let manifest = Manifest::of(&half).unwrap();
    objects.begin(&manifest).unwrap();
    objects.keep(manifest.id(), 0, &half[..CHUNK_BYTES]).unwrap();
    drop(objects);

    for said in ["1 were dropped, 1 that had partly arrived", "1 were dropped, 0 that had partly arrived"] {
        start(dir.path(), &notes).await.stop().await.unwrap();
        let note = noted.try_recv().unwrap();
        assert!(note.contains(said), "{note}");
        assert!(noted.try_recv().is_err(), "one line");
    }
    start(dir.path(), &notes).await.stop().await.unwrap();
    assert!(noted.try_recv().is_err(), "nothing to say");
    for folder in ["objects", "arriving"] {
        assert_eq!(std::fs::read_dir(dir.path().join(folder)).unwrap().count(), 0);
    }
}

/// One wrong digit is another identity, which no machine of the fleet would dial.
#[tokio::test]
async fn a_cloud_does_not_start_under_another_key_than_before() {
    let dir = Scratch::new("other-key");
    let (notes, _noted) = unbounded_channel();
    start(dir.path(), &notes).await.stop().await.unwrap();
    let address = std::fs::read(dir.path().join(ADDRESS_FILE)).unwrap();
    let file = dir.path().join(KEY_FILE);
    let mut digits = std::fs::read(&file).unwrap();
    digits[9] = if digits[9] == b'0' { b'1' } else { b'0' };
    std::fs::write(&file, digits).unwrap();
    let refused = loop {
        match start_cloud(&config(dir.path()), Arc::new(|_| ())).await {
            Err(DeployError::Store(StoreError::InUse { .. })) => tokio::task::yield_now().await,
            refused => break refused.err().expect("another cloud"),
        }
    };
    let DeployError::File { path, expected, .. } = refused else { panic!("{refused}") };
    let address_text = String::from_utf8(address.clone()).unwrap();
    assert!(path == file && expected.contains(address_text.split('@').next().unwrap()), "{expected}");
    assert_eq!(std::fs::read(dir.path().join(ADDRESS_FILE)).unwrap(), address);
}
