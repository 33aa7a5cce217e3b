//! Small fleets whose edges send away who has nothing to do.

use super::tests::{fleet, job};
use super::*;
use crate::checkers::Seen;
use crate::world::Machine;
use littoral_node::role::Millis;
use littoral_wire::Message;
use std::sync::Mutex;

const ROUNDS: u64 = 500;

/// Virtual seconds at which devices were sent away and came.
#[derive(Clone, Default)]
struct Comings(Arc<Mutex<(Vec<Millis>, Vec<Millis>)>>);

impl checkers::Checker for Comings {
    fn name(&self) -> &'static str {
        "comings"
    }
    fn see(&mut self, now: Millis, _: &Machine, seen: &Seen<'_>) {
        let mut told = self.0.lock().unwrap();
        match seen {
            Seen::Sent { message: Message::Later { .. }, .. } => told.0.push(now / 1_000),
            // Who holds an update was here all along: it asks for its verdict in this way.
            Seen::Sent { message: Message::Attach { held, .. }, .. } if held.is_empty() => told.1.push(now / 1_000),
            _ => {}
        }
    }
    fn finish(&mut self, _: &[Machine]) {}
    fn broken(&self) -> &[String] {
        &[]
    }
}

/// Forty devices, a minute's period: when they left and came.
fn run(gather_below: u32, faults: &str) -> (Vec<Millis>, Vec<Millis>) {
    let check_in = CheckIn { every_ms: 60_000, stay_ms: 8_000, gather_below };
    let spec = fleet(6, 40, 2, job("scaffold", ROUNDS, 6), Faults::profile(faults).unwrap(), 1);
    let spec = FleetSpec { limit_ms: 10 * 3_600_000, ..spec };
    let mut fleet = Fleet::among(spec, &Field { check_in, ..Field::default() }, None).unwrap();
    let comings = Comings::default();
    fleet.watch(Box::new(comings.clone()));
    let outcome = fleet.run(&mut |_| {});
    assert_eq!(outcome.checks_broken, [] as [String; 0], "gather below {gather_below}, {faults}");
    assert_eq!(outcome.rounds_completed, ROUNDS, "gather below {gather_below}, {faults}: {outcome:?}");
    let told = comings.0.lock().unwrap();
    told.clone()
}

#[test]
fn few_devices_meet_and_many_do_not() {
    // Each came once by itself at the start.
    let after_start = |comings: Vec<Millis>| comings.into_iter().filter(|at| *at > 20).collect::<Vec<_>>();
    let (left, came) = run(1_000, "none");
    let came = after_start(came);
    assert!(left.len() > 40 && came.len() > 40, "{} left, {} came", left.len(), came.len());
    assert!(came.iter().all(|at| at % 60 < 3), "{came:?}");
    let (_, came) = run(0, "none");
    let came = after_start(came);
    let at_meeting = came.iter().filter(|at| **at % 60 < 3).count();
    assert!(came.len() > 40 && at_meeting * 4 < came.len(), "{at_meeting} of {}", came.len());
}

#[test]
fn faults_and_absences_break_no_checker() {
    run(1_000, "default");
    run(0, "default");
}
