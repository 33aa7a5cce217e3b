//! Small fleets in the field: they come and go, differ in speed, and say when they are not eligible.

use super::tests::{fleet, job};
use super::*;
use crate::checkers::Seen;
use crate::field::availability::{Interval, State};
use crate::field::diurnal::Diurnal;
use crate::field::{Availability, SpeedLaw, Speeds};
use crate::synthetic::Synthetic;
use crate::world::Machine;
use littoral_node::role::Millis;
use littoral_node::work::Work as Deed;

fn names(devices: usize) -> Vec<String> {
    (1..=devices).map(|n| format!("device-{n}")).collect()
}

/// Away means down, there means up, at any moment; and nothing that must hold breaks by it.
#[test]
fn a_trace_is_what_the_sim_shows() {
    let model = Diurnal { days: 1, seed: 4, outages_per_day: 12.0, regions: 2, ..Diurnal::default() };
    let traces = Arc::new(model.make(names(30)));
    let field = Field { availability: Some(traces.clone()), speeds: None, ..Field::default() };
    let mut fleet = Fleet::in_field(fleet(3, 30, 2, job("scaffold", 400, 4), Faults::default(), 1), &field).unwrap();
    let devices = fleet.world.of_kind(Kind::Device).to_vec();
    let (mut there, mut away) = (0, 0);
    for minute in 1..36 * 60 {
        // A tenth of a second off the whole seconds at which traces change; after a day it begins again.
        let at = minute * 60_000_000 + 100_000;
        while fleet.world.run(at) {}
        for (device, node) in devices.iter().enumerate() {
            let state = traces.state(device, at);
            let machine = fleet.world.machine(*node);
            assert_eq!(machine.is_up(), state.available, "{} in minute {minute}", machine.name);
            if state.available { there += 1 } else { away += 1 }
        }
    }
    assert!(there > 5_000 && away > 5_000, "{there} and {away}");
    assert!(fleet.world.injected().of("device away") > 100);
}

#[test]
fn devices_that_come_and_go_break_no_check_and_threads_do_not_show() {
    let speeds = Speeds::drawn(SpeedLaw::Pareto { shape: 1.0 }, 5, names(40));
    // Each is there for 30 of 40 seconds, one after the other.
    let there = |(device, name): (usize, String)| {
        let interval = |turn: usize| {
            let from_s = (device * 7 % 40 + turn * 40) as u32;
            let state = State { available: true, charging: true, idle: true, unmetered: true };
            Interval { from_s, until_s: from_s + 30, state }
        };
        (name, (0..100).map(interval).collect())
    };
    let traces = Availability::of(names(40).into_iter().enumerate().map(there), 4_040);
    let field = Field { availability: Some(Arc::new(traces)), speeds: Some(Arc::new(speeds)), ..Field::default() };
    let run = |threads, faults: &str| {
        let faults = Faults::profile(faults).unwrap();
        let spec = fleet(6, 40, 2, job("scaffold", 20, 6), faults, threads);
        let spec =
            FleetSpec { costs: Costs { step_us: 200_000, ..Costs::default() }, limit_ms: 10 * 3_600_000, ..spec };
        Fleet::in_field(spec, &field).unwrap().run(&mut |_| {})
    };
    for faults in ["none", "default"] {
        let outcome = run(1, faults);
        assert_eq!(outcome.checks_broken, [] as [String; 0]);
        assert!(outcome.counts(20) && outcome.faults_injected.of("device away") > 20, "{faults}: {outcome:?}");
        assert_eq!(outcome, run(2, faults));
    }
}

/// Work takes as long as it is much, on a device as fast as it is.
#[test]
fn time_grows_with_rows_and_falls_with_speed() {
    let run = |rows: u64, speed: &str, step_us| {
        let spec = fleet(1, 1, 1, job("fedavg", 10, 1), Faults::default(), 1);
        let data: DeviceData =
            Arc::new(move |device| (Arc::new(Synthetic::new(1, device, rows as usize)) as Arc<dyn LocalData>, rows));
        let spec = FleetSpec { data, costs: Costs { step_us, ..Costs::default() }, ..spec };
        let speeds = Speeds::read(format!("device,speed\ndevice-1,{speed}\n").as_bytes()).unwrap();
        let outcome = Fleet::in_field(spec, &Field { speeds: Some(Arc::new(speeds)), ..Field::default() }).unwrap();
        let lines = outcome.run(&mut |_| {}).lines;
        lines[9].at_ms - lines[8].at_ms
    };
    // 40 rows, of which 32 train: two epochs of four batches, 8 steps of 100 ms; 400 rows: 80 steps.
    let ordinary = run(40, "1", 100_000);
    assert_eq!(run(40, "0.5", 100_000) - ordinary, 800);
    assert_eq!(run(400, "1", 100_000) - ordinary, 7_200);
    // Without a cost of steps it is 300 ms, whatever there is to do.
    assert_eq!(run(400, "1", 0), run(40, "1", 0));
    assert_eq!(ordinary - run(40, "1", 0), 500);
    assert_eq!(run(40, "0.1", 0) - run(40, "1", 0), 2_700);
}

/// Devices of these names must not work.
struct Idle(Vec<&'static str>, Vec<String>);

impl Checker for Idle {
    fn name(&self) -> &'static str {
        "who is not eligible does not work"
    }

    fn see(&mut self, _: Millis, machine: &Machine, seen: &Seen<'_>) {
        if matches!(seen, Seen::Worked { work: Deed::Local { .. }, .. }) && self.0.contains(&machine.name.as_str()) {
            self.1.push(machine.name.clone());
        }
    }

    fn finish(&mut self, _: &[Machine]) {}

    fn broken(&self) -> &[String] {
        &self.1
    }
}

#[test]
fn who_is_not_eligible_declines_and_another_takes_its_place() {
    let trace = "device,from_s,until_s,charging\ndevice-1,0,9000,0\ndevice-2,0,9000,1\ndevice-3,0,9000,1\ndevice-4,0,9000,0\ndevice-5,0,9000,1\n";
    let speeds =
        "device,speed,memory_mb\ndevice-1,1,900\ndevice-2,1,900\ndevice-3,1,900\ndevice-4,1,900\ndevice-5,1,400\n";
    let field = Field {
        availability: Some(Arc::new(Availability::read(trace.as_bytes()).unwrap())),
        speeds: Some(Arc::new(Speeds::read(speeds.as_bytes()).unwrap())),
        ..Field::default()
    };
    let toml = job("fedavg", 5, 2) + "\neligibility = { charging = true, memory_mb = 512 }\n";
    let mut fleet = Fleet::in_field(fleet(2, 5, 1, toml, Faults::default(), 1), &field).unwrap();
    fleet.watch(Box::new(Idle(vec!["device-1", "device-4", "device-5"], Vec::new())));
    let outcome = fleet.run(&mut |_| {});
    assert_eq!(outcome.checks_broken, [] as [String; 0]);
    assert_eq!(outcome.rounds_completed, 5, "{outcome:?}");
    // When the job begins not all of them have arrived.
    assert_eq!(outcome.lines.last().map(|version| version.line.devices), Some(2), "{outcome:?}");
    let declined = outcome.last_warning.unwrap_or_default();
    assert!(declined.contains("eligibility."), "{declined}");
}
