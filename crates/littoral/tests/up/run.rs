//! `littoral up` as a user runs it.

use super::trial::{Folder, RECORD, follow, kill, lives, pids, record, up};
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

#[test]
fn a_fleet_trains_reports_and_leaves_nothing_behind() {
    let folder = Folder::new("up");
    let (report, _) = follow(up(&folder.0, &["--rounds", "3"]), |_| {});
    let keys: Vec<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "bytes_up_per_device",
        "central_accuracy",
        "federated_accuracy",
        "local_mean_accuracy",
        "rounds",
        "seeds",
        "test_rows",
        "wall_s",
    ];
    assert_eq!(keys, expected);
    // A fifth of 569 rows, rounded on each of four devices.
    assert!((112..=116).contains(&report["test_rows"].as_u64().unwrap()), "{report}");
    assert_eq!((report["rounds"].as_u64(), report["seeds"].as_u64()), (Some(3), Some(1)));
    for accuracy in ["federated_accuracy", "central_accuracy", "local_mean_accuracy"] {
        // 63 % of the rows are benign: what a constant answer would reach.
        let got = report[accuracy].as_f64().unwrap();
        assert!((0.63..=1.0).contains(&got), "{accuracy} {got}");
    }
    // Three updates of 62 parameters at 20 to 32 bits, statistics and envelopes: kilobytes, not megabytes.
    let sent = report["bytes_up_per_device"].as_u64().unwrap();
    assert!((1_000..100_000).contains(&sent), "{sent}");
    assert!(folder.0.join("hospitals.safetensors").metadata().unwrap().len() > 62 * 4);
    // Statistics, three rounds, and the evaluation of the last version.
    assert_eq!(record(&folder.0.join(RECORD)).len(), 5);
    assert!(pids(&folder.0).values().all(|pid| !lives(*pid)));
}

/// Two devices and both edges are killed in the middle of rounds, and the cloud seven times: more often than a machine may
/// end by itself. The run says so, goes on, counts every device once in every version, and ends with the bits of a run that
/// nobody disturbed.
#[test]
fn killed_machines_change_no_bit() {
    let (calm, rough) = (Folder::new("calm"), Folder::new("rough"));
    let rounds = ["--rounds", "250"];
    follow(up(&calm.0, &rounds), |_| {});
    // Last one first.
    let mut victims: Vec<(u64, &str)> = (0..6).map(|again| (230 - 10 * again, "cloud")).collect();
    victims.extend([(150, "hospital-3"), (120, "edge-2"), (80, "cloud"), (50, "edge-1"), (20, "hospital-2")]);
    let killed = victims.len();
    let (_, said) = follow(up(&rough.0, &rounds), |round| {
        // One at a time: the next only after a round that was made since.
        if let Some((_, victim)) = victims.pop_if(|(at, _)| *at <= round) {
            assert!(kill(pids(&rough.0)[victim]));
        }
    });
    assert!(victims.is_empty(), "the run was over before {victims:?}: {said}");
    assert_eq!(said.matches("was killed by signal 9; it runs again").count(), killed, "{said}");
    let (calm, rough) = (record(&calm.0.join(RECORD)), record(&rough.0.join(RECORD)));
    assert!(calm.iter().all(|(_, included, _)| included.len() == 4));
    assert_eq!(calm, rough);
}

/// `kill -9` of `up` itself: the machines notice and go.
#[test]
fn no_process_outlives_its_parent() {
    let folder = Folder::new("orphans");
    let mut run = up(&folder.0, &["--rounds", "10000"]);
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("round 5/")));
    let pids = pids(&folder.0);
    assert_eq!(pids.len(), 7);
    assert!(pids.values().all(|pid| lives(*pid)));
    assert!(kill(run.id()));
    run.wait().unwrap();
    // Goodbyes take milliseconds; a loaded machine may need seconds.
    let until = Instant::now() + Duration::from_secs(30);
    while pids.values().any(|pid| lives(*pid)) {
        assert!(Instant::now() < until, "left behind: {pids:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
