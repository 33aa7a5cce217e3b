//! Keys that are revoked or replaced in the middle of a round, told to the real cloud and edges by a signed command; and
//! what an operator is told of jobs.

mod machines;

use littoral_fed::included::{Included, check_verdict};
use littoral_node::work::WorkFault;
use littoral_wire::Message;
use littoral_wire::message::Verdict;
use machines::{Machines, id};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn absorbed(machines: &Machines, device: &str) -> bool {
    let task = machines.task(device).expect("asked");
    machines.heard(device).iter().any(|m| matches!(m, Message::Absorbed { collection } if *collection == task))
}

/// The last verdict that the device heard.
fn verdict<'a>(machines: &'a Machines, device: &str) -> &'a Verdict {
    let told = machines.heard(device).iter().rev().find_map(|message| match message {
        Message::Told { verdict } => Some(verdict),
        _ => None,
    });
    told.unwrap_or_else(|| panic!("{device} heard {:?}", machines.heard(device)))
}

fn cut(machines: &Machines, node: &str) -> Option<String> {
    machines.heard(node).iter().find_map(|message| match message {
        Message::Cut { reason, .. } => Some(reason.to_string()),
        _ => None,
    })
}

#[test]
fn a_revoked_device_is_hung_up_and_neither_absorbed_nor_asked_again() {
    let mut machines = Machines::new(&["e1", "e2"], &["d1", "d2"]);
    let link = machines.attach("d1", "e1", &[]);
    let other = machines.attach("d2", "e2", &[]);
    let first = machines.task("d1").expect("asked");
    machines.revoke("d1");
    assert_eq!(cut(&machines, "d1").as_deref(), Some("this key was revoked"));
    assert!(!machines.up(link), "the edge that held the link hangs up");
    // Neither over a new link nor at another edge.
    for edge in ["e1", "e2"] {
        let link = machines.attach("d1", edge, &[first]);
        machines.offer("d1", link, first);
        assert!(!machines.up(link) && !absorbed(&machines, "d1"), "{:?}", machines.heard("d1"));
    }
    machines.offer("d2", other, first);
    let second = machines.task("d2").expect("asked");
    assert!(second > first, "the version was made without it");
    assert_eq!(machines.task("d1"), Some(first));
}

#[test]
fn a_device_that_is_away_when_it_is_revoked_finds_the_door_shut() {
    for cloud_restarts in [false, true] {
        let mut machines = Machines::new(&["e1"], &["d1", "d2"]);
        let link = machines.attach("d1", "e1", &[]);
        machines.attach("d2", "e1", &[]);
        let first = machines.task("d1").expect("asked");
        machines.leave(link);
        machines.revoke("d1");
        if cloud_restarts {
            machines.restart_cloud();
        }
        let link = machines.attach("d1", "e1", &[first]);
        machines.offer("d1", link, first);
        machines.wait(4_000);
        assert!(!absorbed(&machines, "d1") && !machines.up(link), "{:?}", machines.heard("d1"));
    }
}

#[test]
fn a_revoked_edge_sends_its_devices_away_and_its_partial_counts_for_nothing() {
    let mut machines = Machines::new(&["e1", "e2"], &["d1", "d2"]);
    let link = machines.attach("d1", "e1", &[]);
    let other = machines.attach("d2", "e2", &[]);
    let first = machines.task("d1").expect("asked");
    machines.offer("d1", link, first);
    assert!(absorbed(&machines, "d1"));
    machines.revoke("e1");
    assert!(!machines.up(link));
    let again = machines.attach("d2", "e1", &[]);
    assert!(!machines.up(again), "nor does it let anybody in");
    // What it had is collected again elsewhere.
    let link = machines.attach("d1", "e2", &[first]);
    machines.offer("d1", link, first);
    machines.offer("d2", other, first);
    for device in ["d1", "d2"] {
        assert_eq!(check_verdict(id("cloud"), id(device), verdict(&machines, device)), Ok(Included::Yes), "{device}");
    }
}

#[test]
fn what_the_old_key_was_counted_for_the_machine_is_told_under_its_new_one() {
    let mut machines = Machines::new(&["e1", "e2"], &["d1", "d2"]);
    let link = machines.attach("d1", "e1", &[]);
    let other = machines.attach("d2", "e2", &[]);
    let first = machines.task("d1").expect("asked");
    machines.offer("d1", link, first);
    machines.rotate("d1", "d1 anew");
    assert_eq!(cut(&machines, "d1").as_deref(), Some("this key was replaced by another"));
    // In this collection the machine is counted already.
    let link = machines.attach("d1 anew", "e2", &[first]);
    assert_eq!(machines.task("d1 anew"), None);
    machines.offer("d2", other, first);
    let told = |machines: &Machines, name: &str| {
        let verdict = verdict(machines, name);
        assert_eq!(verdict.collection, first);
        assert_eq!(check_verdict(id("cloud"), id(name), verdict), Ok(Included::Yes), "{name}");
        assert_eq!(verdict.announcement.as_ref().map(|a| a.included_count), Some(2));
    };
    told(&machines, "d1 anew");
    // A verdict that was not heard is told under whatever key the machine has when it asks, also by a restarted cloud.
    machines.leave(link);
    machines.rotate("d1 anew", "d1 once more");
    let link = machines.attach("d1 once more", "e1", &[first]);
    told(&machines, "d1 once more");
    machines.leave(link);
    machines.rotate("d1 once more", "d1 at last");
    machines.restart_cloud();
    machines.attach("d1 at last", "e1", &[first]);
    told(&machines, "d1 at last");
}

#[test]
fn an_update_that_was_not_absorbed_does_not_come_under_the_old_key() {
    let mut machines = Machines::new(&["e1", "e2"], &["d1", "d2"]);
    let link = machines.attach("d1", "e1", &[]);
    let other = machines.attach("d2", "e2", &[]);
    let first = machines.task("d1").expect("asked");
    machines.leave(link);
    machines.rotate("d1", "d1 anew");
    let link = machines.attach("d1", "e1", &[first]);
    machines.offer("d1", link, first);
    assert!(!absorbed(&machines, "d1") && !machines.up(link));
    // Nor does the machine wait for ever: it is told that its update is not in, and takes part in what comes next.
    machines.attach("d1 anew", "e1", &[first]);
    machines.offer("d2", other, first);
    let verdict = verdict(&machines, "d1 anew");
    assert_eq!(check_verdict(id("cloud"), id("d1 anew"), verdict), Ok(Included::No));
    assert_eq!(machines.task("d1 anew").map(|c| c.version), Some(1));
}

/// The only job, as `job ls` has it.
fn listed(machines: &mut Machines) -> Value {
    machines.now += 1;
    machines.order(&json!({"command": "job_list"}))["jobs"][0].clone()
}

#[test]
fn a_job_whose_sums_can_never_be_applied_has_failed_and_says_as_much_as_one_that_runs() {
    let mut machines = Machines::new(&["e1"], &["d1"]);
    let fields = |job: &Value| job.as_object().expect("a job").keys().cloned().collect::<BTreeSet<String>>();
    let waiting = listed(&mut machines);
    machines.fault = Some(WorkFault::Declined("w".repeat(1_000)));
    let link = machines.attach("d1", "e1", &[]);
    machines.wait(1_000);
    let first = machines.task("d1").expect("asked");
    let collecting = listed(&mut machines);
    machines.offer("d1", link, first);
    let failed = listed(&mut machines);
    machines.fault = None;
    machines.restart_cloud();
    let restored = listed(&mut machines);
    machines.fault = Some(WorkFault::Failed("the disk is full".into()));
    machines.restart_cloud();
    let preparing = listed(&mut machines);
    for (job, state) in [
        (&waiting, "waiting"),
        (&collecting, "collecting"),
        (&failed, "failed"),
        (&restored, "failed"),
        (&preparing, "preparing"),
    ] {
        assert_eq!(job["state"], state, "{job}");
        assert_eq!(fields(job), fields(&waiting), "{state}");
    }
    assert_eq!(failed["why"], restored["why"]);
    assert!(restored["why"].as_str().is_some_and(|why| why.starts_with("www") && why.chars().count() <= 301));
}
