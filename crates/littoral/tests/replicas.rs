//! Replicas of a cloud that are killed at random, from a seed: `littoral bench replicas` at a small size.

use serde_json::Value;
use std::process::Command;

#[test]
fn replicas_that_are_killed_at_random_lose_nothing_and_change_no_bit() {
    let size = ["--devices", "20", "--own", "4", "--crowds", "2", "--edges", "4", "--rounds", "5", "--width", "16"];
    let kills = ["--seconds", "15", "--lives-ms", "5000", "--gone-ms", "1500", "--lease-ms", "1000", "--seed", "3"];
    let run = Command::new(env!("CARGO_BIN_EXE_littoral"))
        .args(["bench", "replicas", "--json"])
        .args(size)
        .args(kills)
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&run.stdout).unwrap_or_default();
    let talk = String::from_utf8_lossy(&run.stderr);
    if said["error"]["where"] == "PostgreSQL" {
        return println!("skipped: PostgreSQL is not installed (apt-get install postgresql)");
    }
    assert!(run.status.success(), "{said}\n{talk}");
    assert!(said["kills"].as_u64().unwrap() >= 3, "{said}");
    // Every job came to its end.
    let jobs = said["jobs"].as_u64().unwrap();
    assert!(jobs >= 3 && said["rounds_trained"] == jobs * 5, "{said}");
    assert_eq!((&said["jobs_lost"], &said["counted_twice"]), (&0.into(), &0.into()));
    assert_eq!(said["same_bits"], true);
}
