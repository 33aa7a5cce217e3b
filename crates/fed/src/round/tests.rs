//! Short scenes, each with one point. Random schedules with crashes are the simulator's.

use super::*;
use littoral_wire::message::Fate;

const A: NodeId = NodeId([0xa; 32]);
const B: NodeId = NodeId([0xb; 32]);

fn device(i: u8) -> NodeId {
    NodeId([i; 32])
}

fn settings(target: u32, min: u32) -> Settings {
    Settings {
        cohort: Cohort { target, min, over_select: 1.0 },
        pace: Pace::default(),
        deadline_ms: 1_000,
        wait_ms: 100,
        close_ms: 500,
        retry_ms: 50,
        rounds: 2,
        target_accuracy: None,
        statistics: false,
        seed: 1,
    }
    .checked()
    .expect("runs")
}

/// A round and everything that it has decided since last asked.
struct Scene {
    round: Round,
    decided: Vec<Effect>,
    records: Vec<Record>,
}

impl Scene {
    fn new(target: u32, min: u32) -> Self {
        let round = Round::new(JobId(1), settings(target, min), manifest(b"w0"), None, 1, 0);
        Self { round, decided: Vec::new(), records: Vec::new() }
    }

    fn step(&mut self, now: Millis, event: Event) -> Vec<Effect> {
        let mut decided = Vec::new();
        self.round.step(now, event, &mut decided);
        self.records.extend(decided.iter().filter_map(|e| match e {
            Effect::Record(record) => Some(record.clone()),
            _ => None,
        }));
        self.decided.extend(decided.clone());
        decided
    }

    fn here(&mut self, now: Millis, i: u8, edge: NodeId) -> Vec<Effect> {
        let event = Event::Device { device: device(i), name: format!("d{i}"), edge, eligible: true };
        self.step(now, event)
    }

    /// The incarnation under which this edge was last asked for the device.
    fn asked(&self, i: u8, at: NodeId) -> Incarnation {
        let found = self.decided.iter().rev().find_map(|e| match e {
            Effect::Open { edge, incarnation, devices } if *edge == at && devices.contains(&device(i)) => {
                Some(*incarnation)
            }
            _ => None,
        });
        found.expect("asked")
    }

    fn says(&mut self, now: Millis, incarnation: Incarnation, i: u8, fate: Fate) -> Vec<Effect> {
        self.step(now, Event::Progress { incarnation, device: device(i), fate, reason: String::new() })
    }

    fn hands_in(&mut self, now: Millis, incarnation: Incarnation, devices: &[u8]) -> Vec<Effect> {
        let devices = devices.iter().map(|i| device(*i)).collect();
        self.step(now, Event::Partial { incarnation, devices, sum: manifest(b"sum") })
    }

    fn applied(&mut self, now: Millis, model: &[u8]) -> Vec<Effect> {
        let outcome = Outcome::default();
        self.step(now, Event::Applied { model: manifest(model), state: None, outcome, line: Vec::new() })
    }
}

fn manifest(bytes: &[u8]) -> Manifest {
    Manifest::of(bytes).expect("small")
}

#[test]
fn a_version_is_made_and_announced_with_the_devices_of_its_partials() {
    let mut scene = Scene::new(2, 2);
    scene.here(0, 1, A);
    scene.here(0, 2, B);
    let (a, b) = (scene.asked(1, A), scene.asked(2, B));
    scene.says(1, a, 1, Fate::Absorbed);
    let decided = scene.says(1, b, 2, Fate::Absorbed);
    assert!(decided.contains(&Effect::Close { edge: A, incarnation: a }));
    scene.hands_in(2, a, &[1]);
    let decided = scene.hands_in(2, b, &[2]);
    assert!(matches!(&decided[1], Effect::Apply { partials, .. } if partials.len() == 2), "{decided:?}");
    let decided = scene.applied(3, b"w1");
    let announced = decided.iter().position(
        |e| matches!(e, Effect::Announce { version: 1, included, .. } if *included == [device(1), device(2)]),
    );
    let recorded = decided.iter().position(|e| matches!(e, Effect::Record(Record::Applied { version: 1, .. })));
    assert!(recorded < announced && recorded.is_some(), "durable before it is announced");
}

#[test]
fn a_device_that_moved_is_asked_elsewhere_only_when_it_was_let_go() {
    let mut scene = Scene::new(1, 1);
    scene.here(0, 1, A);
    let a = scene.asked(1, A);
    let decided = scene.here(1, 1, B);
    assert_eq!(decided, [Effect::Release { edge: A, incarnation: a, device: device(1) }]);
    let decided = scene.says(2, a, 1, Fate::Released);
    assert!(matches!(&decided[..], [Effect::Open { edge: B, .. }]), "{decided:?}");
    // And if the old edge had it already, it stays there.
    let mut scene = Scene::new(1, 1);
    scene.here(0, 1, A);
    let a = scene.asked(1, A);
    scene.here(1, 1, B);
    let decided = scene.says(2, a, 1, Fate::Absorbed);
    assert_eq!(decided.last(), Some(&Effect::Close { edge: A, incarnation: a }));
}

#[test]
fn a_lost_edge_is_fenced_durably_before_its_devices_are_asked_again() {
    let mut scene = Scene::new(2, 2);
    scene.here(0, 1, A);
    scene.here(0, 2, A);
    let a = scene.asked(1, A);
    scene.says(1, a, 1, Fate::Absorbed);
    scene.here(2, 1, B);
    let decided = scene.step(3, Event::EdgeLost { edge: A });
    let fenced = decided
        .iter()
        .position(|e| matches!(e, Effect::Record(Record::Fenced { incarnation, .. }) if *incarnation == a));
    let asked = decided.iter().position(|e| matches!(e, Effect::Open { edge: B, .. }));
    assert!(fenced < asked && fenced.is_some(), "{decided:?}");
    // Whatever comes of the fenced one now is of no use.
    assert_eq!(scene.hands_in(4, a, &[1]), []);
}

#[test]
fn a_restarted_edge_has_lost_what_it_does_not_hold() {
    let mut scene = Scene::new(2, 2);
    scene.here(0, 1, A);
    scene.here(0, 2, A);
    let old = scene.asked(1, A);
    scene.says(1, old, 1, Fate::Absorbed);
    scene.step(2, Event::Edge { edge: A, holds: Vec::new() });
    let new = scene.asked(1, A);
    assert_ne!(old, new);
    assert!(scene.records.contains(&Record::Fenced { incarnation: old, edge: A }));
}

#[test]
fn partials_whose_devices_overlap_never_both_count() {
    let mut scene = Scene::new(2, 2);
    scene.here(0, 1, A);
    scene.here(0, 2, B);
    let (a, b) = (scene.asked(1, A), scene.asked(2, B));
    scene.says(1, a, 1, Fate::Absorbed);
    scene.says(1, b, 2, Fate::Absorbed);
    scene.hands_in(2, a, &[1]);
    scene.hands_in(2, b, &[1, 2]);
    let kept: Vec<_> = scene.records.iter().filter(|r| matches!(r, Record::Kept(_))).collect();
    assert_eq!(kept.len(), 1);
}

#[test]
fn too_few_at_the_deadline_is_a_new_attempt() {
    let mut scene = Scene::new(2, 2);
    scene.here(0, 1, A);
    scene.here(0, 2, A);
    let first = scene.asked(1, A);
    scene.says(1, first, 1, Fate::Absorbed);
    let decided = scene.step(1_001, Event::Tick);
    assert!(decided.iter().any(|e| matches!(e, Effect::Aborted { .. })), "{decided:?}");
    let second = scene.asked(1, A);
    assert_eq!((second.collection.version, second.collection.attempt), (0, 1));
}

#[test]
fn a_restored_round_goes_on_where_the_records_end() {
    let mut scene = Scene::new(2, 2);
    scene.here(0, 1, A);
    scene.here(0, 2, B);
    let (a, b) = (scene.asked(1, A), scene.asked(2, B));
    scene.says(1, a, 1, Fate::Absorbed);
    scene.says(1, b, 2, Fate::Absorbed);
    scene.hands_in(2, a, &[1]);
    // The cloud dies here. Records survive, through their bytes.
    use littoral_wire::codec::Wire;
    let records: Vec<Record> =
        scene.records.iter().map(|r| Record::from_bytes(&r.to_bytes()).expect("its own bytes")).collect();
    let round = Round::restore(JobId(1), settings(2, 2), manifest(b"w0"), None, 2, 10, &records);
    let mut scene = Scene { round, decided: Vec::new(), records };
    scene.step(10, Event::Edge { edge: B, holds: vec![(b, vec![device(2)])] });
    assert!(scene.decided.contains(&Effect::Close { edge: B, incarnation: b }), "{:?}", scene.decided);
    let decided = scene.hands_in(11, b, &[2]);
    assert!(matches!(&decided[1], Effect::Apply { partials, .. } if partials.len() == 2), "{decided:?}");
}

#[test]
fn whoever_comes_takes_the_place_of_one_that_declined() {
    let mut scene = Scene::new(2, 2);
    scene.here(0, 1, A);
    scene.here(0, 2, A);
    let first = scene.asked(1, A);
    scene.says(1, first, 1, Fate::Declined);
    scene.here(2, 3, B);
    let joined = Record::Joined { collection: first.collection, cohort: vec![(device(3), "d3".into())] };
    assert!(scene.records.contains(&joined), "{:?}", scene.records);
    assert_eq!(scene.asked(3, B).collection, first.collection);
}

#[test]
fn waiting_says_why() {
    let mut scene = Scene::new(4, 4);
    scene.here(0, 1, A);
    let event = Event::Device { device: device(2), name: "d2".into(), edge: A, eligible: false };
    scene.step(0, event);
    let why = scene.round.why("scans").expect("it waits");
    assert_eq!(why, "needs 4 devices with data set `scans`, 1 are here: d1; without that data set: d2");
}

#[test]
fn after_the_last_round_comes_an_evaluation_and_the_end() {
    let mut scene = Scene::new(1, 1);
    scene.here(0, 1, A);
    for (version, model) in [(0, &b"w1"[..]), (1, b"w2"), (2, b"w2")] {
        let incarnation = scene.asked(1, A);
        assert_eq!(incarnation.collection.version, version);
        scene.says(1, incarnation, 1, Fate::Absorbed);
        scene.hands_in(1, incarnation, &[1]);
        scene.applied(1, model);
    }
    assert_eq!(*scene.round.stage(), Stage::Finished { why: "2 rounds are done".into() });
}
