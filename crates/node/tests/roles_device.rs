//! The device alone, event by event.

use littoral_node::role::device::{Device, DeviceIdentity};
use littoral_node::role::{Effect, Entropy, Event, LinkId, Peer, Role, Row, Table, Timer, Write};
use littoral_wire::message::{Collection, Effort, SocketName, Upstream, Work};
use littoral_wire::object::{Chain, Manifest};
use littoral_wire::{Blob, JobId, List, Message, NodeId, SecretKey};

const CLOUD: NodeId = NodeId([1; 32]);
const EDGE: NodeId = NodeId([3; 32]);

fn step(device: &mut Device, now: u64, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    device.step(now, event, &mut effects);
    effects
}

fn connected(link: u64, peer: NodeId) -> Event {
    Event::Connected { link: LinkId(link), peer, dialled: true, kernels: Default::default() }
}

fn attached(link: u64) -> Event {
    let upstream = |id, address| Upstream { id, address: SocketName::new(address) };
    let upstreams = List::new(vec![upstream(EDGE, "edge:1"), upstream(CLOUD, "cloud:1")]).unwrap();
    Event::Received { link: LinkId(link), message: Message::Attached { cloud: CLOUD, upstreams } }
}

/// Does the device hang up when its tick comes?
fn leaves(device: &mut Device, now: u64) -> bool {
    let effects = step(device, now, Event::Timer(Timer::Tick));
    effects.iter().any(|effect| matches!(effect, Effect::Hangup { .. }))
}

#[test]
fn a_device_at_the_cloud_goes_to_an_edge_that_comes_when_nothing_is_in_hand() {
    let upstreams = vec![Peer { id: CLOUD, address: "cloud:1".into() }];
    let identity = DeviceIdentity {
        key: SecretKey::from_bytes([2; 32]),
        name: "d".into(),
        cloud: CLOUD,
        upstreams,
        data: Vec::new(),
        roster: None,
        masks: None,
        group_min: 3,
        entropy: Entropy::new([0; 32]),
    };
    let mut device = Device::new(identity, Vec::new());
    step(&mut device, 0, connected(1, CLOUD));
    // The answer to its own attaching: it may be here because that edge takes nobody.
    step(&mut device, 1, attached(1));
    assert!(!leaves(&mut device, 4_000));

    step(&mut device, 4_001, attached(1));
    let collection = Collection { job: JobId(1), version: 0, work: Work::Train, attempt: 0 };
    let task = Message::Task {
        collection,
        spec: Blob::new(Vec::new()).unwrap(),
        model: Manifest::of(&[7; 100]).unwrap(),
        before: Chain::default(),
        inline: None,
        counted: 0,
        commitment: None,
        effort: Effort::Job,
    };
    step(&mut device, 4_002, Event::Received { link: LinkId(1), message: task });
    assert!(!leaves(&mut device, 8_000), "it has a task");
    let verdict = littoral_wire::message::Verdict { collection, announcement: None, proof: None };
    step(&mut device, 8_001, Event::Received { link: LinkId(1), message: Message::Told { verdict } });
    assert!(leaves(&mut device, 12_000));

    step(&mut device, 12_001, Event::Disconnected { link: LinkId(1), reason: "an edge is here".into() });
    let dialled = step(&mut device, 13_000, Event::Timer(Timer::Redial));
    assert!(matches!(&dialled[..], [Effect::Dial(Peer { id: EDGE, address })] if address == "edge:1"), "{dialled:?}");
    step(&mut device, 13_001, connected(2, EDGE));
    step(&mut device, 13_002, attached(2));
    step(&mut device, 13_003, attached(2));
    assert!(!leaves(&mut device, 16_000), "it is where it should be");
}

/// A device keeps what the next version builds on, over a restart, and asks for nothing that it has.
#[test]
fn a_device_keeps_the_objects_of_a_chain_and_fetches_what_it_lacks() {
    let spec = {
        let toml = format!("{}\n[compression]\ndownlink = {{ name = \"delta\" }}\n", littoral_node::job::SAMPLE_TOML);
        let spec = littoral_node::job::JobSpec::parse(&toml).unwrap();
        littoral_node::job::Task { spec, population: 1 }.encode()
    };
    let upstreams = vec![Peer { id: EDGE, address: "edge:1".into() }];
    let identity = || DeviceIdentity {
        key: SecretKey::from_bytes([2; 32]),
        name: "d".into(),
        cloud: CLOUD,
        upstreams: upstreams.clone(),
        data: Vec::new(),
        roster: None,
        masks: None,
        group_min: 3,
        entropy: Entropy::new([0; 32]),
    };
    let object = |n: u8| Manifest::of(&[n; 100]).unwrap();
    let (mut device, mut rows) = (Device::new(identity(), Vec::new()), std::collections::BTreeMap::new());
    // Versions 0 (whole), 1, then 4 and 5 after two that it missed; 6 is whole again.
    let chains: [(u64, &[u8]); 5] =
        [(0, &[0]), (1, &[0, 1]), (4, &[0, 1, 2, 3, 4]), (5, &[0, 1, 2, 3, 4, 5]), (6, &[6])];
    let mut here: Vec<u8> = Vec::new();
    for (version, chain) in chains {
        step(&mut device, 0, connected(version, EDGE));
        step(&mut device, 0, attached(version));
        let collection = Collection { job: JobId(1), version, work: Work::Train, attempt: 0 };
        let (newest, before) = chain.split_last().unwrap();
        let message = Message::Task {
            collection,
            spec: Blob::new(spec.clone()).unwrap(),
            model: object(*newest),
            before: Chain::new(before.iter().map(|n| object(*n)).collect()).unwrap(),
            inline: None,
            counted: 0,
            commitment: None,
            effort: Effort::Job,
        };
        let mut effects = step(&mut device, 1, Event::Received { link: LinkId(version), message });
        let mut asked = Vec::new();
        let mut work = None;
        while !effects.is_empty() {
            let mut events = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Begin(manifest) => {
                        let missing = if here.iter().any(|n| object(*n) == manifest) { vec![] } else { vec![0] };
                        events.push(Event::Begun { object: manifest.id(), missing });
                    }
                    Effect::Send { message: Message::GetChunk { object: of, index: 0 }, .. } => {
                        let n = *chain.iter().find(|n| object(**n).id() == of).unwrap();
                        asked.push(n);
                        let bytes = Blob::new(vec![n; 100]).unwrap();
                        let message = Message::Chunk { object: of, index: 0, bytes };
                        events.push(Event::Received { link: LinkId(version), message });
                    }
                    Effect::Keep { object, index, .. } => events.push(Event::Kept { object, index, fault: None }),
                    Effect::Work { id, work: ordered } => {
                        assert!(asked.iter().all(|n| !here.contains(n)), "{asked:?}");
                        work = Some((id, ordered));
                    }
                    _ => {}
                }
            }
            effects = events.into_iter().flat_map(|event| step(&mut device, 2, event)).collect();
        }
        let lacked: Vec<u8> = chain.iter().copied().filter(|n| !here.contains(n)).collect();
        assert_eq!(asked, lacked, "version {version}");
        let (id, work) = work.unwrap();
        let littoral_node::work::Work::Local { model, before, .. } = *work else { panic!("{work:?}") };
        assert_eq!((model, before.len()), (object(*newest), chain.len() - 1));
        here.extend(lacked);
        let update = Manifest::of(b"update").unwrap();
        let output = littoral_node::work::Output::Local {
            update,
            state: None,
            personal: None,
            learnt: None,
            note: Default::default(),
        };
        for effect in step(&mut device, 3, Event::Worked { id, result: Ok(output) }) {
            match effect {
                Effect::Store(writes) => writes.into_iter().for_each(|write| match write {
                    Write::Put { key, value } => drop(rows.insert(key, value)),
                    Write::Delete { key } => drop(rows.remove(&key)),
                    Write::Object(of) => assert!(of != object(9).id()),
                }),
                Effect::Drop(of) if !device.needs(of) => here.retain(|n| object(*n).id() != of),
                _ => {}
            }
        }
        assert!(chain.iter().all(|n| device.needs(object(*n).id())));
        assert_eq!(here, chain, "what no chain names is gone");
        let verdict = littoral_wire::message::Verdict { collection, announcement: None, proof: None };
        step(&mut device, 4, Event::Received { link: LinkId(version), message: Message::Told { verdict } });
        // It is killed and comes again.
        let stored = rows.iter().filter(|(key, _)| key.table == Table::DeviceState);
        device = Device::new(
            identity(),
            stored.map(|(key, value)| Row { key: key.clone(), value: value.clone() }).collect(),
        );
        assert!(chain.iter().all(|n| device.needs(object(*n).id())), "also after a restart");
    }
}
