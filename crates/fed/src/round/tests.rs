//! Short scenes, each with one point. Random schedules with crashes are the simulator's.

mod pool;

use super::*;
use littoral_wire::codec::Wire;
use littoral_wire::message::Fate;

const A: NodeId = NodeId([0xa; 32]);
const B: NodeId = NodeId([0xb; 32]);
const DEADLINE_MS: Millis = 1_000;

fn device(i: u8) -> NodeId {
    NodeId([i; 32])
}

fn manifest(bytes: &[u8]) -> Manifest {
    Manifest::of(bytes).expect("small")
}

fn settings(target: u32, min: u32) -> Settings {
    Settings {
        cohort: Cohort { target, min, over_select: 1.0 },
        pace: Pace::default(),
        deadline_ms: DEADLINE_MS,
        wait_ms: 100,
        close_ms: 500,
        retry_ms: 50,
        rounds: 2,
        target_accuracy: None,
        statistics: false,
        seed: 1,
        sampling: Default::default(),
        spacing: 1,
        steps: 1,
        selection: Default::default(),
        masked: None,
    }
    .checked()
    .expect("runs")
}

/// A round and everything that it has decided. Device `i` is named `d<i>`.
struct Scene {
    round: Round,
    decided: Vec<Effect>,
}

impl Scene {
    /// At time 0 these devices are here, each at its edge.
    fn new(target: u32, min: u32, devices: &[(u8, NodeId)]) -> Self {
        let round = Round::new(JobId(1), settings(target, min), manifest(b"w0"), None, 1, [0; 32], 0);
        let mut scene = Self { round, decided: Vec::new() };
        devices.iter().for_each(|(i, edge)| drop(scene.here(0, *i, *edge)));
        scene
    }

    /// The cloud died and is back: records survive, through their bytes.
    fn restored(&self, now: Millis) -> Self {
        let records: Vec<Record> =
            self.records().map(|r| Record::from_bytes(&r.to_bytes()).expect("its own bytes")).collect();
        let settings = self.round.settings.clone();
        let round = Round::new(JobId(1), settings, manifest(b"w0"), None, 2, [0; 32], now);
        Self { round: round.after(now, &records), decided: Vec::new() }
    }

    fn step(&mut self, now: Millis, event: Event) -> Vec<Effect> {
        let mut decided = Vec::new();
        self.round.step(now, event, &mut decided);
        self.decided.extend(decided.clone());
        decided
    }

    fn here(&mut self, now: Millis, i: u8, edge: NodeId) -> Vec<Effect> {
        self.named(now, i, &format!("d{i}"), edge)
    }

    fn named(&mut self, now: Millis, i: u8, name: &str, edge: NodeId) -> Vec<Effect> {
        self.step(now, Event::Device { device: device(i), name: name.into(), edge, rows: 1 })
    }

    /// The device's edge says this of it, under the incarnation under which it was last asked.
    fn says(&mut self, now: Millis, i: u8, fate: Fate, reason: &str) -> Vec<Effect> {
        let incarnation = self.asked(i);
        self.step(now, Event::Progress { incarnation, device: device(i), fate, reason: reason.into(), note: None })
    }

    fn absorbed(&mut self, now: Millis, i: u8) -> Vec<Effect> {
        self.says(now, i, Fate::Absorbed, "")
    }

    fn hands_in(&mut self, now: Millis, incarnation: Incarnation, devices: &[u8]) -> Vec<Effect> {
        let devices = devices.iter().map(|i| device(*i)).collect();
        self.step(now, Event::Partial { incarnation, devices, sum: manifest(b"sum") })
    }

    fn applied(&mut self, now: Millis, model: &[u8]) -> Vec<Effect> {
        let outcome = Outcome::default();
        self.step(
            now,
            Event::Applied {
                model: manifest(model),
                before: Chain::default(),
                state: None,
                given: Given::new(),
                outcome,
                line: Vec::new(),
            },
        )
    }

    /// A whole version of what these devices were asked for, all at one edge.
    fn version(&mut self, now: Millis, devices: &[u8], model: &[u8]) -> Vec<Effect> {
        let incarnation = self.asked(devices[0]);
        devices.iter().for_each(|i| drop(self.absorbed(now, *i)));
        self.hands_in(now, incarnation, devices);
        self.applied(now, model)
    }

    /// The incarnation under which the device was last asked.
    fn asked(&self, i: u8) -> Incarnation {
        self.ever_asked(i).expect("asked")
    }

    fn ever_asked(&self, i: u8) -> Option<Incarnation> {
        self.decided.iter().rev().find_map(|e| match e {
            Effect::Open { incarnation, devices, .. } if devices.contains(&device(i)) => Some(*incarnation),
            _ => None,
        })
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        self.decided.iter().filter_map(|e| match e {
            Effect::Record(record) => Some(record),
            _ => None,
        })
    }

    fn opened(&self) -> usize {
        self.records().filter(|r| matches!(r, Record::Opened { .. })).count()
    }

    fn why(&self) -> String {
        self.round.why("scans").expect("it waits")
    }
}

/// Where the first effect of this kind stands.
fn place(decided: &[Effect], fits: impl Fn(&Effect) -> bool) -> usize {
    decided.iter().position(fits).unwrap_or_else(|| panic!("{decided:?}"))
}

fn aborted(decided: &[Effect]) -> Option<&str> {
    decided.iter().find_map(|e| match e {
        Effect::Aborted { why, .. } => Some(why.as_str()),
        _ => None,
    })
}

#[test]
fn a_version_is_made_and_announced_with_the_devices_of_its_partials() {
    let mut scene = Scene::new(2, 2, &[(1, A), (2, B)]);
    let (a, b) = (scene.asked(1), scene.asked(2));
    scene.absorbed(1, 1);
    let decided = scene.absorbed(1, 2);
    assert!(decided.contains(&Effect::Close { edge: A, incarnation: a }));
    scene.hands_in(2, a, &[1]);
    let decided = scene.hands_in(2, b, &[2]);
    assert!(matches!(&decided[1], Effect::Apply { partials, .. } if partials.len() == 2), "{decided:?}");
    let decided = scene.applied(3, b"w1");
    let recorded = place(&decided, |e| matches!(e, Effect::Record(Record::Applied { version: 1, .. })));
    let both = [device(1), device(2)];
    let announced =
        place(&decided, |e| matches!(e, Effect::Announce { version: 1, included, .. } if *included == both));
    assert!(recorded < announced, "durable before it is announced");
}

/// Keys and edges may be others the next time; names are not.
#[test]
fn updates_are_ordered_by_the_names_of_devices() {
    let mut scene = Scene::new(3, 3, &[]);
    for (i, name, edge) in [(1, "c", A), (2, "a", B), (3, "b", A)] {
        scene.named(0, i, name, edge);
    }
    let (a, b) = (scene.asked(1), scene.asked(2));
    (1..=3).for_each(|i| drop(scene.absorbed(1, i)));
    scene.hands_in(2, b, &[2]);
    let decided = scene.hands_in(2, a, &[1, 3]);
    let Effect::Apply { partials, order, .. } = &decided[1] else { panic!("{decided:?}") };
    let ordered: Vec<NodeId> =
        order.iter().map(|place| partials[place.partial as usize].devices[place.row as usize]).collect();
    assert_eq!(ordered, [2, 3, 1].map(device));
}

#[test]
fn a_device_that_moved_is_asked_elsewhere_only_when_it_was_let_go() {
    let moved = || {
        let mut scene = Scene::new(1, 1, &[(1, A)]);
        let a = scene.asked(1);
        let decided = scene.here(1, 1, B);
        assert_eq!(decided, [Effect::Release { edge: A, incarnation: a, device: device(1) }]);
        (scene, a)
    };
    let (mut scene, _) = moved();
    let decided = scene.says(2, 1, Fate::Released, "");
    assert!(matches!(&decided[..], [Effect::Open { edge: B, .. }]), "{decided:?}");
    // And if the old edge had it already, it stays there.
    let (mut scene, a) = moved();
    let decided = scene.absorbed(2, 1);
    assert_eq!(decided.last(), Some(&Effect::Close { edge: A, incarnation: a }));
}

#[test]
fn a_lost_edge_is_fenced_durably_before_its_devices_are_asked_again() {
    let mut scene = Scene::new(2, 2, &[(1, A), (2, A)]);
    let a = scene.asked(1);
    scene.absorbed(1, 1);
    scene.here(2, 1, B);
    let decided = scene.step(3, Event::EdgeLost { edge: A });
    let fenced =
        place(&decided, |e| matches!(e, Effect::Record(Record::Fenced { incarnation, .. }) if *incarnation == a));
    let asked = place(&decided, |e| matches!(e, Effect::Open { edge: B, .. }));
    assert!(fenced < asked, "{decided:?}");
    // Whatever comes of the fenced one now is of no use.
    assert_eq!(scene.hands_in(4, a, &[1]), []);
}

#[test]
fn a_restarted_edge_has_lost_what_it_does_not_hold() {
    let mut scene = Scene::new(2, 2, &[(1, A), (2, A)]);
    let old = scene.asked(1);
    scene.absorbed(1, 1);
    scene.step(2, Event::Edge { edge: A, holds: Vec::new() });
    assert_ne!(old, scene.asked(1));
    assert!(scene.records().any(|r| *r == Record::Fenced { incarnation: old, edge: A }));
}

#[test]
fn partials_whose_devices_overlap_never_both_count() {
    let mut scene = Scene::new(2, 2, &[(1, A), (2, B)]);
    let (a, b) = (scene.asked(1), scene.asked(2));
    scene.absorbed(1, 1);
    scene.absorbed(1, 2);
    scene.hands_in(2, a, &[1]);
    scene.hands_in(2, b, &[1, 2]);
    assert_eq!(scene.records().filter(|r| matches!(r, Record::Kept(_))).count(), 1);
}

#[test]
fn too_few_at_the_deadline_is_a_new_attempt() {
    let mut scene = Scene::new(2, 2, &[(1, A), (2, A)]);
    scene.absorbed(1, 1);
    let decided = scene.step(DEADLINE_MS, Event::Tick);
    assert!(aborted(&decided).is_some(), "{decided:?}");
    let second = scene.asked(1).collection;
    assert_eq!((second.version, second.attempt), (0, 1));
}

#[test]
fn a_restored_round_goes_on_where_the_records_end() {
    let mut scene = Scene::new(2, 2, &[(1, A), (2, B)]);
    let (a, b) = (scene.asked(1), scene.asked(2));
    scene.absorbed(1, 1);
    scene.absorbed(1, 2);
    scene.hands_in(2, a, &[1]);
    let mut scene = scene.restored(10);
    let decided = scene.step(10, Event::Edge { edge: B, holds: vec![(b, vec![device(2)])] });
    assert!(decided.contains(&Effect::Close { edge: B, incarnation: b }), "{decided:?}");
    let decided = scene.hands_in(11, b, &[2]);
    assert!(matches!(&decided[1], Effect::Apply { partials, .. } if partials.len() == 2), "{decided:?}");
}

// ---- devices that decline ----

#[test]
fn whoever_is_counted_has_not_declined() {
    let mut scene = Scene::new(2, 2, &[(1, A), (2, A)]);
    scene.absorbed(1, 1);
    assert_eq!(scene.says(2, 1, Fate::Declined, "too late"), []);
}

#[test]
fn another_takes_the_place_of_one_that_declined() {
    let mut scene = Scene::new(2, 2, &[(1, A), (2, A)]);
    scene.here(0, 3, B);
    let first = scene.asked(1).collection;
    scene.says(1, 1, Fate::Declined, "no");
    let joined = Record::Joined { collection: first, cohort: vec![(device(3), "d3".into())] };
    assert!(scene.records().any(|r| *r == joined), "{:?}", scene.decided);
    assert_eq!(scene.asked(3).collection, first);
}

#[test]
fn a_collection_that_nobody_here_can_fill_is_given_up_at_once() {
    let mut scene = Scene::new(2, 2, &[(1, A), (2, A)]);
    scene.absorbed(1, 2);
    let decided = scene.says(1, 1, Fate::Declined, "no column `age`");
    let why = "1 of the 2 updates needed at least can come; 1 will not take part (d1): no column `age`";
    assert_eq!(aborted(&decided), Some(why));
    assert_eq!(
        scene.why(),
        "needs 2 devices with data set `scans`, 2 are here: d1, d2; 1 declined (d1): no column `age`"
    );
    // It does not spin: nothing more is recorded until somebody else comes.
    scene.step(2, Event::Tick);
    scene.here(3, 1, A);
    assert_eq!(scene.opened(), 1, "the same device over the same connection");
    scene.here(4, 3, B);
    assert_eq!((scene.opened(), scene.asked(3).collection.attempt), (2, 1));
}

/// What sites say of a table with many columns: one line says it once, and the declines have it in full.
#[test]
fn reasons_to_wait_are_said_once_and_short() {
    let devices: Vec<(u8, NodeId)> = (1..=8).map(|i| (i, A)).collect();
    let mut scene = Scene::new(8, 1, &devices);
    let reason = |i: u8| {
        let column = if i.is_multiple_of(2) { "even" } else { "odd" };
        format!("no column `age`, got columns {} at site {i}", [column; 60].join(", "))
    };
    let mut notes = Vec::new();
    for i in 1..=8 {
        notes.extend(aborted(&scene.says(1, i, Fate::Declined, &reason(i))).map(str::to_owned));
    }
    let why = scene.why();
    assert!(why.contains("; 4 declined (d1, d3, d5, …): no column `age`, got columns odd, odd"), "{why}");
    assert_eq!(notes.len(), 1);
    for line in [&why, &notes[0]] {
        assert!(line.chars().count() <= 300 && line.matches("no column").count() == 2, "{line}");
    }
    assert!((1..=8).all(|i| scene.round.declines().any(|(_, decline)| decline.why == reason(i))));
}

#[test]
fn whoever_declined_is_asked_again_over_a_new_connection_or_after_a_rounds_time() {
    let declined = || {
        let mut scene = Scene::new(1, 1, &[(1, A)]);
        scene.says(1, 1, Fate::Declined, "no");
        assert_eq!(scene.opened(), 1);
        scene
    };
    let mut scene = declined();
    scene.step(2, Event::DeviceLeft { device: device(1) });
    scene.here(3, 1, A);
    assert_eq!(scene.opened(), 2);

    let mut scene = declined();
    scene.here(2, 1, B);
    assert_eq!(scene.opened(), 2);

    let mut scene = declined();
    assert!(scene.decided.contains(&Effect::Wake { at: DEADLINE_MS + 1 }), "{:?}", scene.decided);
    scene.step(DEADLINE_MS, Event::Tick);
    assert_eq!(scene.opened(), 1);
    scene.step(DEADLINE_MS + 1, Event::Tick);
    assert_eq!(scene.opened(), 2);
}

#[test]
fn a_decline_is_remembered_when_its_collection_is_over_and_recorded_once_per_reason() {
    let mut scene = Scene::new(1, 1, &[(1, A)]);
    for (attempt, why) in [(0, "no"), (1, "no"), (2, "never")] {
        assert_eq!(scene.asked(1).collection.attempt, attempt);
        scene.says(1, 1, Fate::Declined, why);
        scene.step(2, Event::DeviceLeft { device: device(1) });
        scene.here(3, 1, A);
        let times = scene.round.declines().map(|(_, decline)| decline.times).collect::<Vec<_>>();
        assert_eq!(times, [[1, 2, 1][attempt as usize]]);
    }
    assert_eq!(scene.records().filter(|r| matches!(r, Record::Declined { .. })).count(), 2);
    scene.version(4, &[1], b"w1");
    for round in [&scene.round, &scene.restored(10).round] {
        let all: Vec<_> = round.declines().map(|(name, d)| (name, d.collection.attempt, d.why.as_str())).collect();
        assert_eq!(all, [("d1", 2, "never")]);
    }
}

// ---- keys that are cut off or replaced ----

#[test]
fn of_a_key_that_was_cut_off_only_what_is_in_a_partial_counts() {
    let mut scene = Scene::new(3, 1, &[(1, A), (2, A), (3, A)]);
    let a = scene.asked(1);
    scene.absorbed(1, 1);
    let expelled = |i| Event::Expelled { device: device(i), why: "its key was revoked".into() };
    assert_eq!(scene.step(2, expelled(1)), []);
    assert_eq!(scene.step(2, expelled(2)), [Effect::Release { edge: A, incarnation: a, device: device(2) }]);
    scene.says(3, 2, Fate::Released, "");
    assert!(scene.why().ends_with("1 will not take part (d2): its key was revoked"), "{}", scene.why());
    scene.absorbed(4, 3);
    // An edge that counts it all the same is not believed.
    let mut lying = Scene { round: scene.restored(5).round, decided: scene.decided.clone() };
    lying.step(5, expelled(2));
    lying.step(5, Event::Edge { edge: A, holds: vec![(a, vec![device(1), device(2)])] });
    assert_eq!(lying.hands_in(6, a, &[1, 2]), []);
    // The next collection goes without both.
    scene.hands_in(6, a, &[1, 3]);
    scene.applied(7, b"w1");
    scene.step(7 + DEADLINE_MS, Event::Tick);
    let Some(Record::Opened { cohort, .. }) = scene.records().last() else { panic!("{:?}", scene.decided) };
    assert_eq!(*cohort, [(device(3), "d3".to_string())]);
}

#[test]
fn a_machine_with_a_new_key_joins_only_when_its_old_one_cannot_count() {
    // Device 9 is device 1 under a new key.
    let rotated = |absorbed_before: bool| {
        let mut scene = Scene::new(2, 1, &[(1, A), (2, A)]);
        if absorbed_before {
            scene.absorbed(1, 1);
        }
        scene.step(2, Event::Expelled { device: device(1), why: "its key was replaced".into() });
        scene.named(3, 9, "d1", B);
        scene
    };
    // Absorbed already: when another is wanted, the machine is not.
    let mut scene = rotated(true);
    scene.says(4, 2, Fate::Declined, "no");
    assert_eq!(scene.ever_asked(9), None);
    // Not yet: first the old edge lets go of the old key.
    let mut scene = rotated(false);
    assert_eq!(scene.ever_asked(9), None);
    scene.says(4, 1, Fate::Released, "");
    assert_eq!(scene.asked(9).collection.attempt, 0);
    scene.absorbed(5, 9);
    assert!(scene.decided.contains(&Effect::Open { edge: B, incarnation: scene.asked(9), devices: vec![device(9)] }));
}

#[test]
fn a_machine_that_is_here_under_two_keys_is_drawn_once() {
    let mut scene = Scene::new(2, 2, &[(1, A)]);
    scene.named(1, 9, "d1", B);
    scene.step(DEADLINE_MS, Event::Tick);
    assert_eq!(scene.opened(), 0);
}

// ---- what a job says and how it ends ----

#[test]
fn waiting_says_why() {
    let mut scene = Scene::new(4, 4, &[(1, A)]);
    scene.step(0, Event::Device { device: device(2), name: "d2".into(), edge: A, rows: 0 });
    assert_eq!(scene.why(), "needs 4 devices with data set `scans`, 1 are here: d1; without that data set: d2");
}

#[test]
fn after_the_last_round_comes_an_evaluation_and_the_end() {
    let mut scene = Scene::new(1, 1, &[(1, A)]);
    for (version, model) in [(0, &b"w1"[..]), (1, b"w2"), (2, b"w2")] {
        assert_eq!(scene.asked(1).collection.version, version);
        scene.version(1, &[1], model);
    }
    assert_eq!(*scene.round.stage(), Stage::Finished { end: End::Done, why: "2 rounds are done".into() });
    // A cloud that died between the last version and the record of the end evaluates nothing again.
    scene.decided.retain(|e| !matches!(e, Effect::Record(Record::Finished { .. })));
    let mut back = scene.restored(50);
    back.here(50, 1, A);
    assert!(back.records().all(|r| matches!(r, Record::Finished { end: End::Done, .. })), "{:?}", back.decided);
    assert_eq!(back.round.stage(), scene.round.stage());
}

#[test]
fn a_job_that_was_stopped_or_has_failed_is_not_done_also_after_a_restart() {
    let why = || "why".to_owned();
    for (event, end) in [(Event::Stop { why: why() }, End::Stopped), (Event::Fail { why: why() }, End::Failed)] {
        let mut scene = Scene::new(1, 1, &[(1, A)]);
        scene.step(1, event);
        for round in [&scene.round, &scene.restored(2).round] {
            assert_eq!(*round.stage(), Stage::Finished { end, why: why() });
        }
    }
}

/// A name is stored as it is: what messages show escaped must not come back as another name.
#[test]
fn a_record_keeps_names_to_the_letter() {
    let collection = Scene::new(1, 1, &[]).round.collection();
    for record in [
        Record::Joined { collection, cohort: vec![(device(1), "a\u{5}b".into())] },
        Record::Aborted { collection, why: "a\nb".into() },
        Record::Finished { end: End::Failed, why: "a\nb".into() },
    ] {
        assert_eq!(Record::from_bytes(&record.to_bytes()), Ok(record));
    }
}

#[test]
fn no_time_of_a_job_goes_beyond_the_clock() {
    for field in ["deadline_ms", "wait_ms", "close_ms"] {
        let mut wrong = settings(1, 1);
        match field {
            "deadline_ms" => wrong.deadline_ms = u64::MAX,
            "wait_ms" => wrong.wait_ms = u64::MAX,
            _ => wrong.close_ms = u64::MAX,
        }
        assert_eq!(wrong.checked().unwrap_err().field, field);
    }
}

/// Neither a damaged row nor an edge that lies brings a number that cannot be counted on from.
#[test]
fn numbers_that_nobody_gave_are_refused() {
    let mut scene = Scene::new(1, 1, &[(1, A)]);
    let asked = scene.asked(1);
    let collection = asked.collection;
    for record in [
        Record::Aborted { collection: Collection { attempt: u32::MAX, ..collection }, why: String::new() },
        Record::Aborted { collection: Collection { version: u64::MAX, ..collection }, why: String::new() },
        Record::Fenced { incarnation: Incarnation { number: u64::MAX, collection }, edge: A },
    ] {
        assert!(Record::from_bytes(&record.to_bytes()).is_err(), "{record:?}");
    }
    for number in [asked.number + 1, u64::MAX] {
        let lie = Incarnation { number, collection };
        let said = scene.step(1, Event::Edge { edge: B, holds: vec![(lie, vec![])] });
        assert_eq!(said, [Effect::Fence { edge: B, incarnation: lie }]);
    }
}

/// Noise that is correlated over versions is accounted for devices that come back late enough.
#[test]
fn a_device_is_drawn_for_one_of_so_many_versions_also_after_a_restart() {
    let mut scene = Scene::new(1, 1, &[]);
    scene.round.settings.spacing = 3;
    scene.round.settings.rounds = 9;
    (1..=4).for_each(|i| drop(scene.here(0, i, A)));
    let mut drawn = Vec::new();
    for version in 0..6u64 {
        scene.step(1_000 * version + 200, Event::Tick);
        let is_asked = |i: &u8| scene.ever_asked(*i).is_some_and(|at| at.collection.version == version);
        let asked: Vec<u8> = (1..=4).filter(is_asked).collect();
        let [one] = asked[..] else { panic!("version {version}: {asked:?}") };
        assert!(!drawn.iter().rev().take(2).any(|before| *before == one), "{drawn:?}, then {one}");
        drawn.push(one);
        scene.version(1_000 * version + 300, &[one], &[version as u8]);
    }
    // Two of three are spaced out, the third one is enough; without it the job waits, and says for what.
    let last = scene.decided.iter().rposition(|e| matches!(e, Effect::Record(Record::Applied { .. })));
    scene.decided.truncate(last.unwrap() + 1);
    let mut back = scene.restored(7_000);
    for i in [drawn[5], drawn[4]] {
        back.here(7_000, i, A);
    }
    back.step(7_200, Event::Tick);
    assert_eq!(back.round.stage(), &Stage::Wait { since: 7_000 });
    let why = back.round.why("t").unwrap();
    assert!(why.contains("2 of them were in one of the last 2 versions"), "{why}");
    back.here(7_300, drawn[3], A);
    assert!(back.ever_asked(drawn[3]).is_some());
}

/// The account of samples that are drawn again is of a mean near the target.
#[test]
fn devices_are_drawn_in_secret_only_when_enough_are_here() {
    let mut scene = Scene::new(4, 1, &[]);
    scene.round.settings.sampling = crate::dp::Sampling::Poisson(0.5);
    (1..=6).for_each(|i| drop(scene.here(0, i, A)));
    for now in [1, 1_000, 100_000] {
        scene.step(now, Event::Tick);
        assert_eq!(scene.round.stage(), &Stage::Wait { since: 0 });
    }
    // Four fifths of four, at one half.
    assert!(scene.round.why("t").unwrap().starts_with("needs 7 devices"), "{:?}", scene.round.why("t"));
    scene.here(100_000, 7, A);
    (0..100).for_each(|i| drop(scene.step(100_000 + 50 * i, Event::Tick)));
    assert!(matches!(scene.round.stage(), Stage::Collect { .. }));
}
