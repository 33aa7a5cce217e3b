//! The device alone, event by event.

use littoral_node::role::device::{Device, DeviceIdentity};
use littoral_node::role::{Effect, Entropy, Event, LinkId, Peer, Role, Timer};
use littoral_wire::message::{Collection, SocketName, Upstream, Work};
use littoral_wire::object::Manifest;
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
        inline: None,
        counted: 0,
        commitment: None,
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
