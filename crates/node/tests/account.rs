//! What a device counts by itself, whatever its cloud asks for.

use littoral_node::job::{JobSpec, SAMPLE_TOML, Task};
use littoral_node::role::device::{Device, DeviceIdentity};
use littoral_node::role::{Effect, Entropy, Event, LinkId, Peer, Role, Row, Table, Write};
use littoral_node::work::{LocalNote, Output};
use littoral_wire::message::{Collection, Effort, SocketName, Upstream, Work};
use littoral_wire::object::{Chain, Manifest};
use littoral_wire::{Blob, JobId, List, Message, NodeId, SecretKey};

const CLOUD: NodeId = NodeId([1; 32]);
const EDGE: NodeId = NodeId([3; 32]);

fn spec(noise: &str) -> Vec<u8> {
    let mut text: toml::Table = SAMPLE_TOML.parse().unwrap();
    text["rounds"].as_table_mut().unwrap().remove("target_accuracy");
    text["data"].as_table_mut().unwrap().insert("standardise".into(), false.into());
    text.insert("algorithm".into(), toml::Table::from_iter([("name".to_owned(), "fedavg".into())]).into());
    let noise = format!("clip = 1.0\nnoise_multiplier = 1.0\nepsilon = 1000.0\n{noise}");
    text.insert("differential_privacy".into(), noise.parse::<toml::Table>().unwrap().into());
    Task { spec: JobSpec::parse(&text.to_string()).unwrap(), population: 1 }.encode()
}

/// A device and its durable rows.
struct Scene {
    device: Device,
    rows: Vec<Row>,
}

impl Scene {
    fn new(rows: Vec<Row>) -> Self {
        let identity = DeviceIdentity {
            key: SecretKey::from_bytes([2; 32]),
            name: "d".into(),
            cloud: CLOUD,
            upstreams: vec![Peer { id: EDGE, address: "edge:1".into() }],
            data: Vec::new(),
            roster: None,
            masks: None,
            group_min: 3,
            entropy: Entropy::new([0; 32]),
        };
        let mut scene = Self { device: Device::new(identity, rows.clone()), rows };
        scene.step(Event::Connected { link: LinkId(1), peer: EDGE, dialled: true, kernels: Default::default() });
        let upstream = Upstream { id: EDGE, address: SocketName::new("edge:1") };
        let upstreams = List::new(vec![upstream]).unwrap();
        let message = Message::Attached { cloud: CLOUD, upstreams };
        scene.step(Event::Received { link: LinkId(1), message });
        scene
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.device.step(0, event, &mut effects);
        for write in
            effects.iter().filter_map(|e| if let Effect::Store(writes) = e { Some(writes) } else { None }).flatten()
        {
            if let Write::Put { key, value } = write {
                self.rows.retain(|row| row.key != *key);
                self.rows.push(Row { key: key.clone(), value: value.clone() });
            }
        }
        effects
    }

    /// Asked for a version, its model being here: what it does.
    fn asked(&mut self, version: u64, spec: &[u8]) -> Vec<Effect> {
        let model = Manifest::of(&[7; 100]).unwrap();
        let message = Message::Task {
            collection: Collection { job: JobId(1), version, work: Work::Train, attempt: 0 },
            spec: Blob::new(spec.to_vec()).unwrap(),
            model: model.clone(),
            before: Chain::default(),
            inline: None,
            counted: 0,
            commitment: None,
            effort: Effort::Job,
        };
        let mut effects = self.step(Event::Received { link: LinkId(1), message });
        effects.extend(self.step(Event::Begun { object: model.id(), missing: vec![] }));
        effects
    }

    /// It has trained.
    fn trained(&mut self, asked: &[Effect], byte: u8) -> Vec<Effect> {
        let id =
            asked.iter().find_map(|e| if let Effect::Work { id, .. } = e { Some(*id) } else { None }).expect("work");
        let update = Manifest::of(&[byte; 50]).unwrap();
        let output = Output::Local { update, state: None, personal: None, learnt: None, note: LocalNote::default() };
        self.step(Event::Worked { id, result: Ok(output) })
    }

    fn sealed(&self) -> usize {
        self.rows.iter().filter(|row| row.key.table == Table::Sealed).count()
    }
}

fn declined(effects: &[Effect]) -> Option<String> {
    effects.iter().find_map(|e| match e {
        Effect::Send { message: Message::Declined { reason, .. }, .. } => Some(reason.to_string()),
        _ => None,
    })
}

/// A cloud that asks for older versions before the first update is sealed finds each check passed at the beginning.
#[test]
fn what_was_begun_side_by_side_is_counted_one_after_another() {
    for (noise, field) in [
        ("mechanism = 'central'\nparticipations_max = 1", "participations_max"),
        ("mechanism = 'dp-ftrl'\nbands = 3", "bands"),
    ] {
        let (mut scene, spec) = (Scene::new(Vec::new()), spec(noise));
        let asked: Vec<Vec<Effect>> = [2, 1].map(|version| scene.asked(version, &spec)).into();
        assert_eq!(declined(&scene.trained(&asked[0], 1)), None);
        let refused = declined(&scene.trained(&asked[1], 2)).expect("declined");
        assert!(refused.contains(field), "{refused}");
        assert_eq!(scene.sealed(), 1, "{field}");
    }
}

/// The count and the terms are those of the first update, also after a restart; what cannot be read is more than any account.
#[test]
fn a_job_that_comes_back_under_other_terms_is_declined() {
    let first = spec("mechanism = 'central'\nparticipations_max = 1");
    let mut scene = Scene::new(Vec::new());
    let asked = scene.asked(0, &first);
    scene.trained(&asked, 1);
    // As if the verdict had come.
    let rows: Vec<Row> = scene.rows.iter().filter(|row| row.key.table == Table::Ledger).cloned().collect();
    assert_eq!(rows.len(), 1);
    for (noise, told) in [
        ("mechanism = 'central'\nparticipations_max = 1", "has sealed an update 1 times"),
        ("mechanism = 'central'\nparticipations_max = 9", "a job keeps its terms"),
        ("mechanism = 'central'\nparticipations_max = 1\ndelta = 1e-6", "a job keeps its terms"),
    ] {
        let mut again = Scene::new(rows.clone());
        let refused = declined(&again.asked(1, &spec(noise))).expect(noise);
        assert!(refused.contains(told), "{noise}: {refused}");
    }
    let damaged = vec![Row { key: rows[0].key.clone(), value: vec![1] }];
    let refused = declined(&Scene::new(damaged).asked(1, &first)).expect("declined");
    assert!(refused.contains("participations_max"), "{refused}");
}
