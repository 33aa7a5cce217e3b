//! The edge alone, event by event.

use littoral_node::role::edge::{Edge, EdgeIdentity};
use littoral_node::role::{Effect, Event, LinkId, Peer, Role};
use littoral_wire::message::{Collection, Incarnation, Work};
use littoral_wire::object::{CHUNK_BYTES, Manifest};
use littoral_wire::{Blob, JobId, List, Message, NodeId};

const CLOUD: NodeId = NodeId([1; 32]);

fn step(edge: &mut Edge, now: u64, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    edge.step(now, event, &mut effects);
    effects
}

fn connected(link: u64) -> Event {
    Event::Connected { link: LinkId(link), peer: CLOUD, dialled: true }
}

/// A cloud that came back gives chunks to nobody before it knows who asks; what was asked too early would be asked again
/// only seconds later.
#[test]
fn a_reconnected_edge_says_who_it_is_before_it_asks_for_chunks() {
    let cloud = Peer { id: CLOUD, address: "cloud:1".into() };
    let identity = EdgeIdentity { id: NodeId([2; 32]), name: "edge".into(), cloud, listen: "edge:1".into() };
    let mut edge = Edge::new(identity);
    step(&mut edge, 0, connected(1));
    let model = Manifest::of(&vec![7; 3 * CHUNK_BYTES]).unwrap();
    let collection = Collection { job: JobId(1), version: 0, work: Work::Train, attempt: 0 };
    let open = Message::Open {
        incarnation: Incarnation { collection, number: 1 },
        spec: Blob::new(Vec::new()).unwrap(),
        model: model.clone(),
        inline: None,
        devices: List::default(),
        deadline_ms: 0,
        words: 8,
        bits: 32,
    };
    step(&mut edge, 1, Event::Received { link: LinkId(1), message: open });
    step(&mut edge, 2, Event::Begun { object: model.id(), missing: vec![0, 1, 2] });
    step(&mut edge, 3, Event::Disconnected { link: LinkId(1), reason: "the cloud was killed".into() });

    let effects = step(&mut edge, 4, connected(2));
    let said: Vec<&str> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { link: LinkId(2), message } => Some(message.name()),
            _ => None,
        })
        .collect();
    assert_eq!(said, ["EdgeAttach", "GetChunk", "GetChunk", "GetChunk"]);
}
