//! What a device learnt before it is known for which version: served to nobody, there after a restart, sealed when it is asked
//! for, gone when a version has it.

use littoral_node::job::{JobSpec, SAMPLE_TOML, Task};
use littoral_node::role::device::{Device, DeviceIdentity};
use littoral_node::role::{Effect, Entropy, Event, LinkId, Peer, Role, Row, Write};
use littoral_node::work::{LocalNote, Output, Work};
use littoral_wire::message::{Collection, Effort, Work as Kind};
use littoral_wire::object::{Chain, Manifest};
use littoral_wire::{Blob, JobId, Message, NodeId, SecretKey};

const EDGE: NodeId = NodeId([3; 32]);
const UP: LinkId = LinkId(1);

struct Scene {
    device: Device,
    rows: Vec<Row>,
    spec: Vec<u8>,
}

fn learnt() -> Manifest {
    Manifest::of(b"what it learnt, in real numbers").unwrap()
}

fn prepare(version: u64) -> Collection {
    Collection { job: JobId(1), version, work: Kind::Prepare, attempt: 0 }
}

fn train(version: u64) -> Collection {
    Collection { work: Kind::Train, ..prepare(version) }
}

impl Scene {
    fn new(rows: Vec<Row>, more: &str) -> Self {
        let job = SAMPLE_TOML.replace("name = \"fedavg\"", "name = \"fedbuff\"");
        let spec = JobSpec::parse(&format!("{job}\n[pace]\nstaleness_max = 5\n{more}")).unwrap();
        let identity = DeviceIdentity {
            key: SecretKey::from_bytes([2; 32]),
            name: "d".into(),
            cloud: NodeId([1; 32]),
            upstreams: vec![Peer { id: EDGE, address: "edge:1".into() }],
            data: Vec::new(),
            roster: None,
            masks: None,
            group_min: 3,
            entropy: Entropy::new([0; 32]),
        };
        let spec = Task { spec, population: 1 }.encode();
        let mut scene = Self { device: Device::new(identity, rows.clone()), rows, spec };
        scene.step(Event::Connected { link: UP, peer: EDGE, dialled: true, kernels: Default::default() });
        scene
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.device.step(0, event, &mut effects);
        for write in effects.iter().filter_map(|e| if let Effect::Store(w) = e { Some(w) } else { None }).flatten() {
            match write {
                Write::Put { key, value } => {
                    self.rows.retain(|row| row.key != *key);
                    self.rows.push(Row { key: key.clone(), value: value.clone() });
                }
                Write::Delete { key } => self.rows.retain(|row| row.key != *key),
                Write::Object(_) => {}
            }
        }
        effects
    }

    /// Asked, its model being here.
    fn asked(&mut self, collection: Collection, effort: Effort) -> Vec<Effect> {
        let model = Manifest::of(&[7; 100]).unwrap();
        let spec = Blob::new(self.spec.clone()).unwrap();
        let (before, inline, counted, commitment) = (Chain::default(), None, 0, None);
        let object = model.id();
        let message = Message::Task { collection, spec, model, before, inline, counted, commitment, effort };
        let mut effects = self.step(Event::Received { link: UP, message });
        effects.extend(self.step(Event::Begun { object, missing: vec![] }));
        effects
    }

    fn trains(&mut self, version: u64) -> Vec<Effect> {
        let asked = self.asked(prepare(version), Effort::Job);
        let id = asked.iter().find_map(|e| if let Effect::Work { id, .. } = e { Some(*id) } else { None });
        let output = Output::Prepared { learnt: learnt(), note: LocalNote::default() };
        self.step(Event::Worked { id: id.expect("work"), result: Ok(output) })
    }
}

fn works(effects: &[Effect]) -> impl Iterator<Item = &Work> {
    effects.iter().filter_map(|e| if let Effect::Work { work, .. } = e { Some(&**work) } else { None })
}

fn place(effects: &[Effect], fits: impl Fn(&Effect) -> bool) -> Option<usize> {
    effects.iter().position(fits)
}

fn is_ready(effect: &Effect, of: u64) -> bool {
    matches!(effect, Effect::Send { message: Message::Ready { collection, .. }, .. } if *collection == prepare(of))
}

fn declined(effects: &[Effect]) -> Option<String> {
    effects.iter().find_map(|e| match e {
        Effect::Send { message: Message::Declined { reason, .. }, .. } => Some(reason.to_string()),
        _ => None,
    })
}

#[test]
fn it_is_durable_before_it_is_said_and_nobody_is_served_it() {
    let mut scene = Scene::new(Vec::new(), "");
    let done = scene.trains(4);
    let stored = place(&done, |e| matches!(e, Effect::Store(w) if w.contains(&Write::Object(learnt().id()))));
    assert!(stored.is_some() && stored < place(&done, |e| is_ready(e, 4)), "{done:?}");
    assert!(scene.device.needs(learnt().id()));
    let ask = Message::GetChunk { object: learnt().id(), index: 0 };
    let answer = scene.step(Event::Received { link: UP, message: ask });
    assert!(matches!(&answer[..], [Effect::Send { message: Message::NoChunk { .. }, .. }]), "{answer:?}");
}

#[test]
fn after_a_restart_it_need_not_train_again() {
    let mut scene = Scene::new(Vec::new(), "");
    scene.trains(4);
    let mut back = Scene::new(scene.rows.clone(), "");
    assert!(back.device.needs(learnt().id()));
    let again = back.asked(prepare(4), Effort::Job);
    assert!(works(&again).next().is_none() && again.iter().any(|e| is_ready(e, 4)), "{again:?}");
    // Another version is another training, and takes its place.
    back.trains(6);
    let old = back.asked(train(7), Effort::Kept { version: 4, times: 256 });
    assert!(declined(&old).expect("declined").contains("from version 4"), "{old:?}");
}

#[test]
fn it_is_sealed_as_it_is_asked_for_and_kept_until_a_version_has_it() {
    let mut scene = Scene::new(Vec::new(), "");
    scene.trains(4);
    let asked = scene.asked(train(6), Effort::Kept { version: 4, times: 148 });
    match works(&asked).collect::<Vec<_>>()[..] {
        [Work::Seal { collection, learnt: of, times: 148, .. }] => {
            assert_eq!((*collection, of.id()), (train(6), learnt().id()));
        }
        ref other => panic!("{other:?}"),
    }
    let id = asked.iter().find_map(|e| if let Effect::Work { id, .. } = e { Some(*id) } else { None }).unwrap();
    let update = Manifest::of(&[9; 50]).unwrap();
    let note = LocalNote::default();
    scene.step(Event::Worked {
        id,
        result: Ok(Output::Local { update, state: None, personal: None, learnt: None, note }),
    });
    assert!(scene.device.needs(learnt().id()), "the attempt may come to nothing");
    // It did: no version lists the device.
    let verdict = littoral_wire::message::Verdict { collection: train(6), announcement: None, proof: None };
    scene.step(Event::Received { link: UP, message: Message::Told { verdict } });
    let again = scene.asked(prepare(4), Effort::Job);
    assert!(again.iter().any(|e| is_ready(e, 4)) && works(&again).next().is_none(), "{again:?}");
}

/// A device that stopped charging does not train, but what it has learnt costs it nothing more.
#[test]
fn a_device_that_is_not_eligible_any_more_seals_what_it_has() {
    let charging = |is| Event::Conditions(littoral_node::job::Conditions { charging: Some(is), ..Default::default() });
    let mut scene = Scene::new(Vec::new(), "[eligibility]\ncharging = true\n");
    scene.step(charging(true));
    scene.trains(4);
    scene.step(charging(false));
    let asked = scene.asked(train(6), Effort::Kept { version: 4, times: 148 });
    assert!(matches!(works(&asked).next(), Some(Work::Seal { .. })), "{asked:?}");
    let asked = Scene::new(Vec::new(), "[eligibility]\ncharging = true\n").asked(prepare(4), Effort::Job);
    assert!(declined(&asked).expect("declined").contains("eligibility.charging"), "{asked:?}");
}
