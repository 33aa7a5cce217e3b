//! The world, tried with roles of a few lines.

use super::*;
use crate::faults::{Blow, Every, LinkShape};
use littoral_node::role::{Entropy, Role, Row, RowKey, Table, Write};
use littoral_node::work::{LocalData, LocalNote, Objects, Output, Rows, Work, WorkFault};
use littoral_wire::message::{Collection, JobId, Work as Kind_};
use littoral_wire::object::{Chain, Manifest};
use std::sync::{Arc, Mutex};

struct NoData;

impl LocalData for NoData {
    fn rows(&self, _: &littoral_node::job::JobSpec) -> Result<Rows, String> {
        Err("there is none".into())
    }
}

/// A role that is one closure.
struct Script<F>(F);

impl<F: FnMut(Millis, Event, &mut Vec<Effect>) + Send> Role for Script<F> {
    fn step(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        (self.0)(now, event, effects);
    }

    fn needs(&self, _: ObjectId) -> bool {
        false
    }
}

fn machine(seed: u64, kind: Kind, number: usize, factory: Factory) -> MachineSpec {
    MachineSpec {
        kind,
        name: format!("{}-{}", kind.name(), number + 1),
        secret: World::key(seed, kind, number),
        address: String::new(),
        rows: Vec::new(),
        data: Arc::new(NoData),
        factory,
    }
}

fn role(make: impl Fn(Boot<'_>) -> Box<dyn Role> + 'static) -> Factory {
    Arc::new(move |boot| Ok(make(boot)))
}

fn row(item: &str) -> RowKey {
    RowKey { table: Table::Job, job: JobId(1), version: 0, item: item.into() }
}

fn put(item: &str) -> Write {
    Write::Put { key: row(item), value: Vec::new() }
}

/// A client that calls the first cloud and, once connected, pings it every 100 ms with the numbers that were not
/// answered; rows say which were.
fn pinger(seed: u64, count: u64) -> Factory {
    let peer = Peer { id: World::key(seed, Kind::Cloud, 0).id(), address: String::new() };
    role(move |boot| {
        let mut open: Vec<u64> =
            (0..count).filter(|n| !boot.rows.iter().any(|r| r.key.item == n.to_le_bytes())).collect();
        let mut up: Option<LinkId> = None;
        let peer = peer.clone();
        Box::new(Script(move |now, event, effects: &mut Vec<Effect>| match event {
            Event::Start => effects.push(Effect::Dial(peer.clone())),
            Event::Connected { link, .. } => {
                assert!(up.is_none(), "one call at a time");
                up = Some(link);
                effects.push(Effect::SetTimer { timer: Timer::Tick, at: now });
            }
            Event::DialFailed { .. } => effects.push(Effect::SetTimer { timer: Timer::Redial, at: now + 500 }),
            Event::Disconnected { link, .. } => {
                assert_eq!(up.take(), Some(link));
                effects.push(Effect::SetTimer { timer: Timer::Redial, at: now + 500 });
            }
            Event::Timer(Timer::Redial) => effects.push(Effect::Dial(peer.clone())),
            Event::Timer(_) => {
                let Some(link) = up else { return };
                for &nonce in open.iter().take(3) {
                    effects.push(Effect::Send { link, message: Message::Ping { nonce } });
                }
                if !open.is_empty() {
                    effects.push(Effect::SetTimer { timer: Timer::Tick, at: now + 100 });
                }
            }
            Event::Received { link, message: Message::Pong { nonce } } => {
                assert_eq!(up, Some(link), "nothing arrives on a link that is gone");
                open.retain(|n| *n != nonce);
                let key = RowKey { item: nonce.to_le_bytes().into(), ..row("") };
                effects.push(Effect::Store(vec![Write::Put { key, value: Vec::new() }]));
                if open.is_empty() {
                    effects.push(Effect::Report(Report::Note { what: "all answered".into() }));
                }
            }
            other => panic!("{other:?}"),
        }))
    })
}

/// Answers pings, after `store`.
fn ponger(store: bool) -> Factory {
    role(move |_| {
        Box::new(Script(move |_, event, effects: &mut Vec<Effect>| {
            if let Event::Received { link, message: Message::Ping { nonce } } = event {
                if store {
                    effects.push(Effect::Store(vec![put("first")]));
                }
                effects.push(Effect::Send { link, message: Message::Pong { nonce } });
                if store {
                    effects.push(Effect::Store(vec![put("second")]));
                }
            }
        }))
    })
}

/// Stops a server at a point of handling its first ping; what is durable then, and did the answer arrive?
fn killed_at(moment: Moment) -> (bool, bool, bool) {
    let mut world = World::new(Settings::new(1, Faults::default()));
    let server = world.add(machine(1, Kind::Cloud, 0, ponger(true)));
    let client = world.add(machine(1, Kind::Device, 0, pinger(1, 1)));
    world.begin(1);
    world.strike(server, Blow::Damage);
    // The kill is for the first run of the server only; 400 ms are before its restart's first ping.
    while world.machine(server).kill.is_none() {
        assert!(world.step(1_000_000));
        world.strike(server, Blow::Kill(Kill { on: "Ping", moment }));
    }
    while world.machine(server).is_up() {
        assert!(world.step(1_000_000), "it is killed");
    }
    let durable = |item| world.machine(server).disk.row(&row(item)).is_some();
    let (first, second) = (durable("first"), durable("second"));
    // The restarted server does not answer before the client calls again, 500 ms later.
    while world.step(400_000) {}
    (first, !world.machine(client).disk.rows().is_empty(), second)
}

#[test]
fn a_crash_takes_the_effects_that_were_not_performed() {
    assert_eq!(killed_at(Moment::Before), (false, false, false));
    assert_eq!(killed_at(Moment::AfterEffects(0)), (false, false, false));
    assert_eq!(killed_at(Moment::AfterEffects(1)), (true, false, false), "stored, not sent");
    assert_eq!(killed_at(Moment::AfterEffects(2)), (true, true, false), "stored and sent");
    assert_eq!(killed_at(Moment::AfterEffects(usize::MAX)), (true, true, true));
}

#[test]
fn nothing_behind_a_store_happens_before_it_is_durable() {
    let mut world = World::new(Settings::new(1, Faults { sync_us: 5_000, ..Faults::default() }));
    let server = world.add(machine(1, Kind::Cloud, 0, ponger(true)));
    world.add(machine(1, Kind::Device, 0, pinger(1, 1)));
    let answers = Arc::new(Mutex::new(Vec::new()));
    struct Watch(NodeId, Arc<Mutex<Vec<(Millis, bool)>>>);
    impl Checker for Watch {
        fn name(&self) -> &'static str {
            "watch"
        }
        fn see(&mut self, now: Millis, machine: &Machine, seen: &Seen<'_>) {
            if let (true, Seen::Sent { message: Message::Pong { .. }, .. }) = (machine.id == self.0, seen) {
                self.1.lock().unwrap().push((now, machine.disk.row(&row("first")).is_some()));
            }
        }
        fn finish(&mut self, _: &[Machine]) {}
        fn broken(&self) -> &[String] {
            &[]
        }
    }
    world.watch(Box::new(Watch(world.machine(server).id, Arc::clone(&answers))));
    world.begin(1);
    while world.step(2_000_000) {}
    // Call at 2 ms, up at 3, ping at 4, stored at 9.
    assert_eq!(answers.lock().unwrap()[0], (9, true));
    assert!(world.breaches().is_empty());
}

#[test]
fn a_full_disk_holds_back_what_is_behind_a_store() {
    let mut world = World::new(Settings::new(1, Faults::default()));
    let server = world.add(machine(1, Kind::Cloud, 0, ponger(true)));
    world.add(machine(1, Kind::Device, 0, pinger(1, 1)));
    world.begin(1);
    world.strike(server, Blow::DiskFull { for_us: 3_000_000 });
    assert!(world.run(10_000_000));
    assert!((3_000..3_200).contains(&world.now_ms()), "{}", world.now_ms());
}

/// Runs three pingers until all are answered; says when.
fn pings(faults: Faults, seed: u64, minutes: u64) -> (Option<Millis>, World) {
    let mut world = World::new(Settings::new(seed, faults));
    world.add(machine(seed, Kind::Cloud, 0, ponger(true)));
    for number in 0..3 {
        world.add(machine(seed, Kind::Device, number, pinger(seed, 400)));
    }
    world.begin(1_000);
    let mut done = [false; 4];
    while world.run(minutes * 60_000_000) {
        for said in world.take_reports() {
            done[said.node as usize] = true;
        }
        if done == [false, true, true, true] {
            return (Some(world.now_ms()), world);
        }
    }
    (None, world)
}

#[test]
fn every_ping_is_answered_whatever_goes_wrong_and_the_same_way_each_time() {
    let mut faults = Faults::profile("harsh").unwrap();
    // More misfortune in less time.
    faults.crash = Every { cloud_ms: 4_000, edge_ms: 0, device_ms: 8_000 };
    faults.partition = Every { device_ms: 10_000, ..faults.partition };
    let (at, world) = pings(faults.clone(), 3, 30);
    assert!(at.is_some(), "{:?}", world.injected());
    assert!(world.breaches().is_empty(), "{:?}", world.breaches());
    for kind in ["cloud crash", "device crash", "partition", "loss", "duplication", "reordering", "link death"] {
        assert!(world.injected().of(kind) > 0, "no {kind} in {:?}", world.injected());
    }
    let (_, again) = pings(faults.clone(), 3, 30);
    assert_eq!(world.fingerprint(), again.fingerprint());
    assert_eq!((world.injected(), world.events()), (again.injected(), again.events()));
    assert_ne!(world.fingerprint(), pings(faults, 4, 30).1.fingerprint());
}

#[test]
fn a_long_partition_kills_links_and_the_client_comes_back_after_it() {
    let seed = 2;
    let mut world = World::new(Settings::new(seed, Faults::default()));
    world.add(machine(seed, Kind::Cloud, 0, ponger(false)));
    let client = world.add(machine(seed, Kind::Device, 0, pinger(seed, 400)));
    world.begin(1);
    while world.step(1_000_000) {}
    let before = world.machine(client).disk.rows().len();
    world.strike(client, Blow::Partition { into: true, out: true, upstream_only: false, for_us: 30_000_000 });
    while world.step(29_000_000) {}
    assert!(world.machine(client).disk.rows().len() <= before + 3, "what was under way may arrive, no more");
    assert!(world.injected().of("link death") > 0 && world.injected().of("call into partition") > 0);
    assert!(world.run(120_000_000), "it ends well");
}

#[test]
fn healing_starts_whoever_is_down() {
    let seed = 2;
    let mut world = World::new(Settings::new(seed, Faults::default()));
    world.add(machine(seed, Kind::Cloud, 0, ponger(false)));
    let client = world.add(machine(seed, Kind::Device, 0, pinger(seed, 400)));
    world.begin(1);
    while world.step(500_000) {}
    world.strike(client, Blow::Vanish { for_us: 3_600_000_000 });
    while world.step(1_000_000) {}
    assert!(!world.machine(client).is_up());
    world.heal();
    assert!(world.run(120_000_000));
}

/// Writes an object that is its task's bytes, many times over.
fn stretch(work: &Work, objects: &dyn Objects, _: &dyn LocalData) -> Result<Output, WorkFault> {
    let Work::Local { task, .. } = work else { return Err(WorkFault::Failed("not this".into())) };
    let mut writer = objects.create()?;
    for i in 0..2_000u32 {
        writer.append(blake3::hash(&[task, &i.to_le_bytes()[..]].concat()).as_bytes())?;
    }
    Ok(Output::Local {
        update: writer.finish()?,
        state: None,
        personal: None,
        learnt: None,
        note: LocalNote::default(),
    })
}

/// Twenty workers, each with ten works in hand at once, and crashes among them.
fn works(threads: usize) -> (Fingerprint, u64) {
    let mut settings = Settings::new(6, Faults { slow: 0.3, slow_factor: 3, ..Faults::default() });
    settings.faults.crash = Every { device_ms: 5_000, ..Every::default() };
    settings.threads = threads;
    settings.runner = stretch;
    let mut world = World::new(settings);
    for number in 0..20 {
        let factory = role(move |boot| {
            let life = boot.entropy[0];
            let mut started = 0;
            Box::new(Script(move |_, event, effects: &mut Vec<Effect>| {
                if let Event::Worked { result, .. } = &event
                    && let Ok(Output::Local { update, .. }) = result
                {
                    let key = RowKey { item: update.id().0.into(), ..row("") };
                    effects
                        .push(Effect::Store(vec![Write::Object(update.id()), Write::Put { key, value: vec![life] }]));
                }
                let wanted = if matches!(event, Event::Start) { 10 } else { 1 };
                for _ in 0..wanted {
                    started += 1;
                    let collection = Collection { job: JobId(1), version: 0, work: Kind_::Train, attempt: 0 };
                    let work = Box::new(Work::Local {
                        steps_max: 0,
                        entropy: Entropy::new([0; 32]),
                        collection,
                        task: Arc::from([number as u8, life, started as u8]),
                        model: Manifest::of(b"").unwrap(),
                        before: Chain::default(),
                        state: None,
                        personal: None,
                        learnt: None,
                        device: NodeId([0; 32]),
                        name: String::new(),
                    });
                    if started < 30 {
                        effects.push(Effect::Work { id: WorkId(started), work });
                    }
                }
            }))
        });
        world.add(machine(6, Kind::Device, number, factory));
    }
    world.begin(100_000);
    while world.step(8_000_000) {}
    let made: usize = world.machines().iter().map(|m| m.disk.rows().len()).sum();
    assert!(made > 100 && world.injected().of("device crash") > 5, "{made} {:?}", world.injected());
    assert!(world.breaches().is_empty(), "{:?}", world.breaches());
    (world.fingerprint(), world.events())
}

#[test]
fn the_number_of_threads_does_not_show() {
    let alone = works(1);
    assert_eq!(alone, works(2));
    assert_eq!(alone, works(4));
}

#[test]
fn a_timer_that_is_moved_rings_once() {
    let rung = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&rung);
    let mut world = World::new(Settings::new(1, Faults::default()));
    let factory = role(move |_| {
        let heard = Arc::clone(&heard);
        Box::new(Script(move |now, event, effects: &mut Vec<Effect>| match event {
            Event::Start => {
                for at in [50, 20, 70, 30] {
                    effects.push(Effect::SetTimer { timer: Timer::Tick, at });
                }
                effects.push(Effect::SetTimer { timer: Timer::Redial, at: 40 });
            }
            Event::Timer(timer) => {
                heard.lock().unwrap().push((now, timer));
                if timer == Timer::Redial {
                    effects.push(Effect::SetTimer { timer: Timer::Tick, at: 10 });
                }
            }
            _ => {}
        }))
    });
    world.add(machine(1, Kind::Cloud, 0, factory));
    world.begin(1);
    while world.step(1_000_000) {}
    let expected = [(30, Timer::Tick), (40, Timer::Redial), (40, Timer::Tick)];
    assert_eq!(*rung.lock().unwrap(), expected, "a time that has passed is now");
}

#[test]
fn a_quiet_link_neither_loses_nor_repeats() {
    let faults = Faults { device_link: LinkShape { jitter_us: 30_000, ..LinkShape::default() }, ..Faults::default() };
    let (at, world) = pings(faults, 1, 5);
    assert!(at.is_some());
    assert_eq!(world.injected().total(), 0);
    let _: Vec<Row> = world.machine(0).disk.rows();
}
