//! An edge whose devices are given models of their own: each is told its own one, and no other's bytes are served to it.

use littoral_node::role::edge::{Edge, EdgeIdentity};
use littoral_node::role::{Effect, Event, LinkId, Peer, Role};
use littoral_wire::given::GivenModel;
use littoral_wire::message::{Asked, Collection, Effort, Gather, Incarnation, Work};
use littoral_wire::object::Manifest;
use littoral_wire::{Blob, Chain, Given, JobId, List, Message, NodeId, ObjectId};

const CLOUD: NodeId = NodeId([1; 32]);
const COLLECTION: Collection = Collection { job: JobId(1), version: 3, work: Work::Train, attempt: 0 };

struct Scene(Edge);

impl Scene {
    fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.0.step(1, event, &mut effects);
        effects
    }

    fn hear(&mut self, link: u64, message: Message) -> Vec<Effect> {
        self.step(Event::Received { link: LinkId(link), message })
    }

    /// The model that was asked for over the cloud's link is on this disk now.
    fn arrives(&mut self, object: ObjectId) -> Vec<Effect> {
        self.step(Event::Begun { object, missing: Vec::new() })
    }

    fn serves(&mut self, device: u8, object: ObjectId) -> bool {
        let effects = self.hear(device.into(), Message::GetChunk { object, index: 0 });
        match &effects[..] {
            [Effect::SendChunk { object: sent, .. }] => *sent == object,
            // What came with the request is in memory.
            [Effect::Send { message: Message::Chunk { object: sent, .. }, .. }] => *sent == object,
            [Effect::Send { message: Message::NoChunk { .. }, .. }] => false,
            other => panic!("{other:?}"),
        }
    }
}

fn model_of(device: u8) -> Manifest {
    Manifest::of(&[device; 64]).unwrap()
}

/// Which device is told which model.
fn told(effects: &[Effect]) -> Vec<(u64, ObjectId)> {
    let told = effects.iter().filter_map(|effect| match effect {
        Effect::Send { link, message: Message::Task { model, .. } } => Some((link.0, model.id())),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_device_gets_its_own_model_and_no_others() {
    let cloud = Peer { id: CLOUD, address: "cloud:1".into() };
    let identity =
        EdgeIdentity { id: NodeId([9; 32]), name: "edge".into(), cloud, listen: "edge:1".into(), replicas: Vec::new() };
    let mut edge = Scene(Edge::new(identity));
    let up = |link, peer, dialled| Event::Connected { link: LinkId(link), peer, dialled, kernels: Default::default() };
    edge.step(up(1, CLOUD, true));
    for device in 2..=4u8 {
        edge.step(up(device.into(), NodeId([device; 32]), false));
        let attach = Message::Attach { name: "d".into(), data: List::default(), held: List::default() };
        edge.hear(device.into(), attach);
        edge.hear(1, Message::Admit { device: NodeId([device; 32]) });
    }
    let version = Manifest::of(b"version").unwrap();
    // Device 4 has no model of its own yet.
    let given = [2, 3].map(|device| GivenModel { device: NodeId([device; 32]), model: model_of(device) });
    let asked = (2..=4).map(|n| Asked { device: NodeId([n; 32]), counted: 0, effort: Effort::Job });
    let open = Message::Open {
        incarnation: Incarnation { collection: COLLECTION, number: 1 },
        spec: Blob::new(Vec::new()).unwrap(),
        model: version.clone(),
        before: Chain::default(),
        inline: Some(Blob::new(b"version".to_vec()).unwrap()),
        devices: List::new(asked.collect()).unwrap(),
        words: 8,
        bits: 32,
        commitment: None,
        gather: Gather::Sum,
        given: Given::new(given.to_vec()).unwrap(),
    };
    // The version is here already: who is new begins, others wait for theirs.
    let said = edge.hear(1, open.clone());
    assert_eq!(told(&said), [(4, version.id())]);
    for device in [2, 3] {
        assert!(!edge.serves(device, model_of(device).id()), "it is not here yet");
        let said = edge.arrives(model_of(device).id());
        assert_eq!(told(&said), [(device.into(), model_of(device).id())]);
    }
    for device in 2..=4 {
        for whose in [2, 3] {
            assert_eq!(edge.serves(device, model_of(whose).id()), device == whose, "{device} asks for that of {whose}");
        }
        assert!(edge.serves(device, version.id()));
    }
    // Said again it changes nothing.
    assert_eq!(told(&edge.hear(1, open)), []);
    // With its collection it goes from the disk.
    let gone = edge.hear(1, Message::Fence { incarnation: Incarnation { collection: COLLECTION, number: 1 } });
    let dropped = |object: ObjectId| gone.iter().any(|effect| matches!(effect, Effect::Drop(of) if *of == object));
    assert!([2, 3].iter().all(|device| dropped(model_of(*device).id())), "{gone:?}");
    assert!(!edge.serves(2, model_of(2).id()) && !edge.0.needs(model_of(2).id()));
}
