//! Secure aggregation between real processes: masks change no bit of what is learnt, and no aggregator ever holds a device's
//! plain update.

use super::trial::{Folder, RECORD, follow, kill, pids, record, up};
use littoral_node::config::{Config, DeviceConfig};
use littoral_node::data::Limits;
use littoral_node::deploy::DeviceData;
use littoral_node::deploy::replay::replay_updates;
use littoral_node::store::FileObjects;
use littoral_node::work::LocalData;
use littoral_sim::checkers::Needles;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const MASKED: &str = "--secure-aggregation";

/// Versions and models.
fn bits(dir: &Path) -> Vec<(u64, Vec<String>, String)> {
    record(&dir.join(RECORD))
}

/// With the default settings of `--secure-aggregation`, the cloud may lie: a fleet with masks makes the models of one
/// without, also if a device, an edge and the cloud are killed on the way, each more than once.
#[test]
fn masks_change_no_bit_whoever_is_killed() {
    let (plain, calm, rough) = (Folder::new("plain"), Folder::new("masked"), Folder::new("masked-rough"));
    let rounds = ["--rounds", "40"];
    let masked = ["--rounds", "40", MASKED];
    let (without, _) = follow(up(&plain.0, &rounds), |_| {});
    let (with, _) = follow(up(&calm.0, &masked), |_| {});
    assert_eq!(bits(&plain.0), bits(&calm.0));
    let sent = [&without, &with].map(|report| report["bytes_up_per_device"].as_u64().unwrap());
    println!("bytes up per device: {} without masks, {} with", sent[0], sent[1]);
    // 62 parameters: the keys of a round and their signatures are longer than an update.
    assert!(sent[1] > sent[0] && sent[1] < 40 * sent[0], "{sent:?}");

    // Last one first.
    let mut victims =
        vec![(32, "cloud"), (28, "hospital-3"), (24, "edge-2"), (18, "cloud"), (12, "edge-1"), (6, "hospital-2")];
    let killed = victims.len();
    let (report, said) = follow(up(&rough.0, &masked), |round| {
        if let Some((_, victim)) = victims.pop_if(|(at, _)| *at <= round) {
            assert!(kill(pids(&rough.0)[victim]));
        }
    });
    assert!(victims.is_empty(), "the run was over before {victims:?}: {said}");
    assert_eq!(said.matches("was killed by signal 9; it runs again").count(), killed, "{said}");
    println!("with kills: {} bytes up per device", report["bytes_up_per_device"]);
    assert_eq!(bits(&plain.0), bits(&rough.0), "{said}");
}

/// The search of real memory: both edges' memory is copied three times while a fleet trains. Afterwards each device's plain
/// updates are made again from its folder, as `job replay` does, and looked for in the copies. Without masks edges get them,
/// and they are found; with masks they are not.
#[test]
#[cfg(target_os = "linux")]
fn an_edges_memory_has_plain_updates_only_without_masks() {
    // Without masks rounds are quick, and the last copy must be made long before the end.
    for (name, options, masked) in
        [("memory-plain", &["--rounds", "80"][..], false), ("memory-masked", &["--rounds", "28", MASKED], true)]
    {
        let folder = Folder::new(name);
        let mut copies: Vec<(String, Vec<Vec<u8>>)> = Vec::new();
        follow(up(&folder.0, options), |round| {
            if round.is_multiple_of(8) && copies.len() < 6 {
                let pids = pids(&folder.0);
                copies.extend(["edge-1", "edge-2"].map(|edge| (edge.to_owned(), memory(pids[edge]))));
            }
        });
        assert_eq!(copies.len(), 6);
        let needles = plain_updates(&folder.0);
        let bytes: usize = copies.iter().flat_map(|(_, regions)| regions).map(Vec::len).sum();
        // More than the program itself: its heap is there.
        assert!(bytes > 6 << 20, "{bytes} bytes of memory were read");
        let found: Vec<String> = copies
            .iter()
            .flat_map(|(edge, regions)| {
                regions.iter().filter_map(|region| needles.find(region)).map(move |whose| format!("{edge}: {whose}"))
            })
            .collect();
        println!("{name}: {} MB of memory, found: {found:?}", bytes >> 20);
        match masked {
            true => assert_eq!(found, [] as [String; 0]),
            false => assert!(!found.is_empty(), "without masks an edge has plain updates, and none was found"),
        }
    }
}

/// What a process may read of its own memory.
#[cfg(target_os = "linux")]
fn memory(pid: u32) -> Vec<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut regions = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        // Pages of the kernel's are not the process's own.
        if !rights.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let ends = range.split_once('-').unwrap();
        let [start, end] = [ends.0, ends.1].map(|end| u64::from_str_radix(end, 16).unwrap());
        let mut region = vec![0; (end - start) as usize];
        // A region that has gone since is none.
        if memory.read_exact_at(&mut region, start).is_ok() {
            regions.push(region);
        }
    }
    regions
}

/// Windows of every update that every device made in this run.
fn plain_updates(dir: &Path) -> Needles {
    let record = serde_json::from_slice(&fs::read(dir.join(RECORD)).unwrap()).unwrap();
    let devices: BTreeMap<String, Arc<dyn LocalData>> = (1..=4)
        .map(|n| {
            let name = format!("hospital-{n}");
            let (config, base) = DeviceConfig::load(None, Some(&dir.join(&name))).unwrap();
            (name, Arc::new(DeviceData::new(config.data, &base, Limits::default())) as Arc<dyn LocalData>)
        })
        .collect();
    let scratch = Folder::new(&format!("{}-replay", dir.file_name().unwrap().to_string_lossy()));
    fs::create_dir_all(&scratch.0).unwrap();
    let objects = FileObjects::open(&scratch.0).unwrap();
    let (mut needles, mut windows) = (Needles::default(), 0);
    let remember = |name: &str, update: &[u8]| windows += needles.remember(update, name);
    replay_updates(&record, &devices, &objects, remember, |made| assert!(made.equal(), "{made:?}")).unwrap();
    // Two at least of each training update; counts and sums have few different bytes.
    assert!(windows >= 28 * 4 * 2, "{windows} windows of plain updates");
    needles
}
