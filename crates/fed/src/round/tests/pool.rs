//! Devices that train first.

use super::*;
use littoral_wire::message::{Effort, Work};

/// Two updates a version, three devices in flight.
fn asynchronous(pool: u32, dispatch: u32, staleness_max: u32) -> Settings {
    let pace = Pace { pool, dispatch, staleness_max, ..Pace::default() };
    Settings { pace, ..settings(2, 2) }.checked().expect("runs")
}

fn scene(pace: Settings, devices: &[(u8, NodeId)]) -> Scene {
    let round = Round::new(JobId(1), pace, manifest(b"w0"), None, 1, [0; 32], 0);
    let mut scene = Scene { round, decided: Vec::new() };
    devices.iter().for_each(|(i, edge)| drop(scene.here(0, *i, *edge)));
    scene
}

impl Scene {
    fn ready(&mut self, now: Millis, i: u8) -> Vec<Effect> {
        self.says(now, i, Fate::Ready, "")
    }

    /// How many were dispatched, each time.
    fn opened_prepared(&self) -> Vec<usize> {
        let dispatched = |record: &Record| match record {
            Record::Dispatched { cohort, .. } => Some(cohort.len()),
            _ => None,
        };
        self.records().filter_map(dispatched).collect()
    }

    /// Of the devices asked for a sum now: at which version each began, and how much it counts.
    fn group(&self, devices: &[u8]) -> Vec<Effort> {
        devices.iter().map(|i| self.round.effort(self.round.collection(), device(*i))).collect()
    }
}

fn kept(version: u64, times: u16) -> Effort {
    Effort::Kept { version, times }
}

#[test]
fn who_is_ready_first_makes_the_version_and_the_others_count_less_in_the_next() {
    let mut scene = scene(asynchronous(3, 1, 4), &[(1, A), (2, A), (3, A)]);
    assert_eq!(scene.asked(3).collection.work, Work::Prepare);
    scene.ready(10, 1);
    assert!(scene.why().contains("1 of 2 updates are ready; 2 devices train"), "{}", scene.why());
    scene.ready(11, 2);
    assert_eq!(scene.asked(1).collection.work, Work::Train);
    assert_eq!(scene.group(&[1, 2, 3]), [kept(0, 256), kept(0, 256), Effort::Job]);
    scene.version(20, &[1, 2], b"w1");
    // Those two train anew, from the version that is current now; the third is still at the old one.
    assert_eq!(scene.asked(1).collection, Collection { version: 1, work: Work::Prepare, ..scene.round.collection() });
    assert!(scene.round.needs(manifest(b"w0").id()), "somebody trains from it");
    scene.ready(30, 3);
    scene.ready(31, 1);
    // 256 / √2.
    assert_eq!(scene.group(&[1, 3]), [kept(1, 256), kept(0, 181)]);
    let decided = scene.version(40, &[3, 1], b"w2");
    assert!(!scene.round.needs(manifest(b"w0").id()));
    assert!(
        decided.iter().any(|e| matches!(e, Effect::Discard { objects } if objects.contains(&manifest(b"w0").id())))
    );
}

#[test]
fn a_pool_of_one_version_dispatched_as_a_whole_is_synchronous() {
    let mut scene = scene(asynchronous(2, 2, 4), &[(1, A), (2, B), (3, A)]);
    assert_eq!(scene.opened_prepared(), [2], "as many as a version takes, or none");
    for version in 0..2 {
        let flying: Vec<u8> = (1..=3).filter(|i| scene.round.pool.get(&device(*i)).is_some()).collect();
        assert_eq!(flying.len(), 2);
        flying.iter().for_each(|i| drop(scene.ready(10, *i)));
        let (a, b) = (flying[0], flying[1]);
        assert_eq!(scene.group(&[a, b]), [kept(version, 256); 2]);
        // Nobody is dispatched before the version is made.
        assert_eq!(scene.round.in_flight(), (0, 0));
        for i in [a, b] {
            scene.absorbed(20, i);
        }
        let mut desks: Vec<(Incarnation, Vec<u8>)> = Vec::new();
        for i in [a, b] {
            let incarnation = scene.asked(i);
            match desks.iter_mut().find(|(of, _)| *of == incarnation) {
                Some((_, devices)) => devices.push(i),
                None => desks.push((incarnation, vec![i])),
            }
        }
        desks.into_iter().for_each(|(incarnation, devices)| drop(scene.hands_in(21, incarnation, &devices)));
        scene.applied(22, format!("w{}", version + 1).as_bytes());
    }
    assert_eq!(scene.round.trained(), 2);
}

#[test]
fn an_attempt_that_came_to_nothing_costs_no_training() {
    let mut scene = scene(asynchronous(2, 1, 4), &[(1, A), (2, A)]);
    scene.ready(10, 1);
    scene.ready(11, 2);
    // One of the two never sends.
    scene.absorbed(12, 1);
    let decided = scene.step(11 + DEADLINE_MS, Event::Tick);
    assert!(aborted(&decided).is_some(), "{decided:?}");
    // Both are asked whether they are ready, for what they have.
    let asked = scene.asked(2).collection;
    assert_eq!((asked.work, asked.version), (Work::Prepare, 0));
    scene.ready(2_000, 1);
    scene.ready(2_001, 2);
    assert_eq!(scene.round.collection().attempt, 1);
    scene.version(2_010, &[1, 2], b"w1");
    assert_eq!(scene.round.trained(), 1);
}

#[test]
fn a_device_that_is_stuck_or_too_old_gives_its_place_away() {
    let mut stuck = scene(asynchronous(2, 1, 1), &[(1, A), (2, A), (3, A)]);
    let waits: Vec<u8> = (1..=3).filter(|i| stuck.round.pool.get(&device(*i)).is_none()).collect();
    stuck.step(DEADLINE_MS, Event::Tick);
    assert!(stuck.round.pool.get(&device(waits[0])).is_some(), "it is dispatched in another's place");

    // At most one version behind: after two versions of others it is asked for nothing that it has.
    let mut old = scene(asynchronous(3, 1, 1), &[(1, A), (2, A), (3, A)]);
    for version in 1..=2u64 {
        old.ready(10 * version, 1);
        old.ready(10 * version, 2);
        old.version(10 * version + 1, &[1, 2], format!("w{version}").as_bytes());
    }
    let Settings { rounds, .. } = old.round.settings();
    assert_eq!(old.round.trained(), *rounds);
    assert_eq!(old.round.in_flight(), (0, 0), "the job evaluates now, and nobody trains");
    assert!(!old.round.needs(manifest(b"w0").id()));
}

#[test]
fn who_is_ready_and_leaves_for_good_gives_its_place_away() {
    let mut scene = scene(asynchronous(2, 1, 4), &[(1, A), (2, A)]);
    scene.ready(10, 1);
    scene.step(20, Event::DeviceLeft { device: device(1) });
    scene.ready(30, 2);
    assert_eq!(scene.round.in_flight(), (1, 1), "one update alone makes no version");
    // It may come back with what it has learnt, and need not train again.
    scene.here(40, 1, B);
    assert_eq!((scene.asked(1).collection.work, scene.round.in_flight()), (Work::Prepare, (1, 1)));
    scene.step(50, Event::DeviceLeft { device: device(1) });
    scene.here(60, 3, A);
    assert!(scene.round.pool.get(&device(3)).is_none());
    scene.step(40 + DEADLINE_MS, Event::Tick);
    assert!(scene.round.pool.get(&device(1)).is_none() && scene.round.pool.get(&device(3)).is_some());
}

/// Records say who was dispatched and not who was let go: a device that was sent off twice began at the later version.
#[test]
fn a_model_that_nobody_is_at_any_more_goes_after_a_restart_too() {
    let mut scene = scene(asynchronous(3, 1, 4), &[(1, A), (2, A), (3, A)]);
    scene.ready(10, 1);
    scene.ready(11, 2);
    scene.version(20, &[1, 2], b"w1");
    // The third is stuck, is let go, and is sent off anew.
    scene.step(DEADLINE_MS, Event::Tick);
    scene.step(2 * DEADLINE_MS + 1, Event::Tick);
    assert_eq!(scene.round.pool.get(&device(3)).map(|flight| flight.version), Some(1));
    let mut back = scene.restored(5_000);
    back.step(5_000, Event::Tick);
    assert!(!back.round.needs(manifest(b"w0").id()));
    assert!(back.round.needs(manifest(b"w1").id()));
}

#[test]
fn a_cloud_that_is_back_knows_who_trains_from_what() {
    let mut scene = scene(asynchronous(3, 1, 4), &[(1, A), (2, A), (3, B)]);
    scene.ready(10, 1);
    scene.ready(11, 2);
    scene.version(20, &[1, 2], b"w1");
    scene.ready(30, 3);
    // In the middle of the next one, with an old update in it.
    scene.ready(31, 1);
    let efforts = scene.group(&[1, 2, 3]);
    let mut back = scene.restored(40);
    assert_eq!(back.group(&[1, 2, 3]), efforts);
    assert_eq!(back.round.model_of(0).map(|(model, _)| model.id()), Some(manifest(b"w0").id()));
    [(1, A), (2, A), (3, B)].iter().for_each(|(i, edge)| drop(back.here(41, *i, *edge)));
    let asked = back.asked(2).collection;
    assert_eq!((asked.work, asked.version), (Work::Prepare, 1), "what it was asked for before");
    assert_eq!(back.asked(3).collection, back.round.collection());
}

#[test]
fn devices_of_an_edge_that_is_lost_or_forgot_are_asked_through_another() {
    let mut scene = scene(asynchronous(3, 1, 4), &[(1, A), (2, A), (3, A)]);
    let before = scene.asked(1);
    // It restarted and has nothing.
    scene.step(5, Event::Edge { edge: A, holds: Vec::new() });
    assert!(scene.asked(1).number > before.number);
    scene.step(6, Event::EdgeLost { edge: A });
    scene.here(7, 1, B);
    let decided = scene.here(8, 2, B);
    assert!(decided.iter().any(|e| matches!(e, Effect::Open { edge: B, .. })), "{decided:?}");
    scene.ready(10, 1);
    scene.ready(10, 2);
    assert_eq!(scene.asked(1).collection.work, Work::Train);
    // What it said under its old number counts no more.
    let late = Event::Progress {
        incarnation: before,
        device: device(3),
        fate: Fate::Ready,
        reason: String::new(),
        note: None,
    };
    scene.step(11, late);
    assert_eq!(scene.round.in_flight(), (1, 0));
}
