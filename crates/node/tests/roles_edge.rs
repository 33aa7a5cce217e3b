//! The edge alone, event by event.

use littoral_node::role::edge::{Edge, EdgeIdentity};
use littoral_node::role::{Effect, Event, LinkId, Peer, Role, Timer};
use littoral_wire::message::{Asked, Collection, Effort, Gather, Incarnation, SealingStep, Work};
use littoral_wire::object::{CHUNK_BYTES, Manifest};
use littoral_wire::{Blob, Chain, JobId, List, Message, NodeId};

const CLOUD: NodeId = NodeId([1; 32]);

fn step(edge: &mut Edge, now: u64, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    edge.step(now, event, &mut effects);
    effects
}

fn connected(link: u64) -> Event {
    Event::Connected { link: LinkId(link), peer: CLOUD, dialled: true, kernels: Default::default() }
}

fn edge_with_a_cloud() -> Edge {
    let cloud = Peer { id: CLOUD, address: "cloud:1".into() };
    let identity =
        EdgeIdentity { id: NodeId([2; 32]), name: "edge".into(), cloud, replicas: vec![], listen: "edge:1".into() };
    let mut edge = Edge::new(identity);
    step(&mut edge, 0, connected(1));
    edge
}

fn open(model: &Manifest, inline: Option<&[u8]>, devices: Vec<Asked>) -> Event {
    let collection = Collection { job: JobId(1), version: 0, work: Work::Train, attempt: 0 };
    let message = Message::Open {
        incarnation: Incarnation { collection, number: 1 },
        spec: Blob::new(Vec::new()).unwrap(),
        model: model.clone(),
        before: Chain::default(),
        inline: inline.map(|bytes| Blob::new(bytes.to_vec()).unwrap()),
        devices: List::new(devices).unwrap(),
        words: 8,
        bits: 32,
        commitment: None,
        gather: Gather::Sum,
        given: Default::default(),
    };
    Event::Received { link: LinkId(1), message }
}

/// Names of the messages to one link.
fn said(effects: &[Effect], to: u64) -> Vec<&'static str> {
    let to_it = |effect: &Effect| match effect {
        Effect::Send { link, message } if *link == LinkId(to) => Some(message.name()),
        _ => None,
    };
    effects.iter().filter_map(to_it).collect()
}

/// A cloud that came back gives chunks to nobody before it knows who asks; what was asked too early would be asked again
/// only seconds later.
#[test]
fn a_reconnected_edge_says_who_it_is_before_it_asks_for_chunks() {
    let mut edge = edge_with_a_cloud();
    let model = Manifest::of(&vec![7; 3 * CHUNK_BYTES]).unwrap();
    step(&mut edge, 1, open(&model, None, Vec::new()));
    step(&mut edge, 2, Event::Begun { object: model.id(), missing: vec![0, 1, 2] });
    step(&mut edge, 3, Event::Disconnected { link: LinkId(1), reason: "the cloud was killed".into() });
    assert_eq!(said(&step(&mut edge, 4, connected(2)), 2), ["EdgeAttach", "GetChunk", "GetChunk", "GetChunk"]);
}

/// The cloud asks again every few seconds. A device that works has heard it; the model would go to it each time.
#[test]
fn a_device_is_told_its_task_once_over_each_link() {
    let mut edge = edge_with_a_cloud();
    let device = NodeId([3; 32]);
    let arrive = |edge: &mut Edge, link| {
        step(
            edge,
            1,
            Event::Connected { link: LinkId(link), peer: device, dialled: false, kernels: Default::default() },
        );
        let attach = Message::Attach { name: "ward".into(), data: List::default(), held: List::default() };
        step(edge, 1, Event::Received { link: LinkId(link), message: attach });
        let admit = Message::Admit { device };
        said(&step(edge, 1, Event::Received { link: LinkId(1), message: admit }), link)
    };
    assert!(arrive(&mut edge, 7).is_empty());
    let model = Manifest::of(b"small").unwrap();
    let asked = || vec![Asked { device, counted: 0, effort: Effort::Job }];
    assert_eq!(said(&step(&mut edge, 2, open(&model, Some(b"small"), asked())), 7), ["Task"]);
    // Again, now without the model, which is here.
    assert!(said(&step(&mut edge, 3, open(&model, None, asked())), 7).is_empty());
    step(&mut edge, 4, Event::Disconnected { link: LinkId(7), reason: "out of range".into() });
    assert_eq!(arrive(&mut edge, 8), ["Task"]);
}

/// It began to fetch the model at another edge, which had it on disk; it asks here for the rest.
#[test]
fn a_model_that_rides_along_is_there_for_who_asks_for_it() {
    let mut edge = edge_with_a_cloud();
    let device = NodeId([3; 32]);
    step(&mut edge, 1, Event::Connected { link: LinkId(7), peer: device, dialled: false, kernels: Default::default() });
    let attach = Message::Attach { name: "ward".into(), data: List::default(), held: List::default() };
    step(&mut edge, 1, Event::Received { link: LinkId(7), message: attach });
    let model = Manifest::of(b"small").unwrap();
    step(&mut edge, 2, open(&model, Some(b"small"), vec![Asked { device, counted: 0, effort: Effort::Job }]));
    let ask = Message::GetChunk { object: model.id(), index: 0 };
    let effects = step(&mut edge, 3, Event::Received { link: LinkId(7), message: ask });
    let bytes = effects.iter().find_map(|effect| match effect {
        Effect::Send { link: LinkId(7), message: Message::Chunk { bytes, .. } } => Some(bytes.to_vec()),
        _ => None,
    });
    assert_eq!(bytes.as_deref(), Some(&b"small"[..]), "{effects:?}");
}

/// Steps of secure aggregation are passed on for devices that are asked here, or that come with something sealed; a bounded
/// number of them, and only those that go up. A device that floods the edge does not flood the cloud.
#[test]
fn an_edge_passes_on_a_bounded_number_of_steps() {
    let mut edge = edge_with_a_cloud();
    let (asked, moved, stranger) = (NodeId([3; 32]), NodeId([4; 32]), NodeId([5; 32]));
    let collection = Collection { job: JobId(1), version: 0, work: Work::Train, attempt: 0 };
    for (link, peer, held) in [(7, asked, vec![]), (8, moved, vec![collection]), (9, stranger, vec![])] {
        step(&mut edge, 1, Event::Connected { link: LinkId(link), peer, dialled: false, kernels: Default::default() });
        let attach = Message::Attach { name: "w".into(), data: List::default(), held: List::new(held).unwrap() };
        step(&mut edge, 1, Event::Received { link: LinkId(link), message: attach });
    }
    let model = Manifest::of(b"small").unwrap();
    step(&mut edge, 2, open(&model, Some(b"small"), vec![Asked { device: asked, counted: 0, effort: Effort::Job }]));
    let say = |edge: &mut Edge, link, step_said, bytes: usize| {
        let message = Message::Sealing { collection, step: step_said, body: Blob::new(vec![1; bytes]).unwrap() };
        said(&step(edge, 3, Event::Received { link: LinkId(link), message }), 1).len()
    };
    for link in [7, 8] {
        let passed: usize = (0..1_000).map(|_| say(&mut edge, link, SealingStep::Keys, 200)).sum();
        assert!((8..=64).contains(&passed), "{passed} of 1,000 steps over link {link} were passed on");
    }
    assert_eq!(say(&mut edge, 9, SealingStep::Keys, 200), 0);
    // The next tick lets some pass again.
    step(&mut edge, 4, Event::Timer(Timer::Tick));
    assert_eq!(say(&mut edge, 7, SealingStep::Shared, 200), 0, "this step goes the other way");
    assert_eq!(say(&mut edge, 7, SealingStep::Keys, 100_000), 0, "no keys are that long");
    assert_eq!(say(&mut edge, 7, SealingStep::Shares, 100_000), 1);
    let big: usize = (0..32).map(|_| say(&mut edge, 7, SealingStep::Shares, 2 << 20)).sum();
    assert!(big <= 2, "{big} steps of 2 MiB were passed on");
}

/// What the next model builds on stays at the edge between rounds, and goes when no model builds on it.
#[test]
fn an_edge_keeps_a_chain_as_long_as_models_build_on_it() {
    let mut edge = edge_with_a_cloud();
    let device = NodeId([3; 32]);
    step(&mut edge, 1, Event::Connected { link: LinkId(5), peer: device, dialled: false, kernels: Default::default() });
    let attach = Message::Attach { name: "ward".into(), data: List::default(), held: List::default() };
    step(&mut edge, 1, Event::Received { link: LinkId(5), message: attach });
    step(&mut edge, 1, Event::Received { link: LinkId(1), message: Message::Admit { device } });
    let object = |n: u8| Manifest::of(&vec![n; CHUNK_BYTES + 1]).unwrap();
    for (version, chain, lacks) in [(0, &[0][..], &[0][..]), (1, &[0, 1], &[1]), (4, &[0, 1, 2], &[2]), (5, &[7], &[7])]
    {
        let collection = Collection { job: JobId(1), version, work: Work::Train, attempt: 0 };
        let incarnation = Incarnation { collection, number: version };
        let (newest, before) = chain.split_last().unwrap();
        let message = Message::Open {
            incarnation,
            spec: Blob::new(br#"{"job": {"compression": {"downlink": {"name": "delta"}}}}"#.to_vec()).unwrap(),
            model: object(*newest),
            before: Chain::new(before.iter().map(|n| object(*n)).collect()).unwrap(),
            inline: None,
            devices: List::new(vec![Asked { device, counted: 0, effort: Effort::Job }]).unwrap(),
            words: 8,
            bits: 32,
            commitment: None,
            gather: Gather::Sum,
            given: Default::default(),
        };
        let mut effects = step(&mut edge, 2, Event::Received { link: LinkId(1), message });
        let begun = effects.iter().filter_map(|effect| match effect {
            Effect::Begin(manifest) => Some(manifest.clone()),
            _ => None,
        });
        let begun: Vec<Manifest> = begun.collect();
        assert_eq!(begun, lacks.iter().map(|n| object(*n)).collect::<Vec<_>>(), "version {version}");
        assert!(!said(&effects, 5).contains(&"Task"), "nobody is told of what is not here");
        for manifest in begun {
            effects.extend(step(&mut edge, 3, Event::Begun { object: manifest.id(), missing: Vec::new() }));
        }
        let told = effects.iter().find_map(|effect| match effect {
            Effect::Send { message: Message::Task { model, before, .. }, .. } => Some((model.clone(), before.to_vec())),
            _ => None,
        });
        assert_eq!(told, Some((object(*newest), before.iter().map(|n| object(*n)).collect())));
        // The round is over.
        step(&mut edge, 4, Event::Received { link: LinkId(1), message: Message::Fence { incarnation } });
        for n in 0..8 {
            let (id, kept) = (object(n).id(), chain.contains(&n));
            assert_eq!(edge.needs(id), kept, "object {n} after version {version}");
            let message = Message::GetChunk { object: id, index: 1 };
            let answer = step(&mut edge, 5, Event::Received { link: LinkId(5), message });
            assert_eq!(matches!(answer[..], [Effect::SendChunk { index: 1, .. }]), kept);
        }
    }
}

fn dialled(effects: &[Effect]) -> Vec<&str> {
    fn address(effect: &Effect) -> Option<&str> {
        if let Effect::Dial(peer) = effect { Some(&peer.address) } else { None }
    }
    effects.iter().filter_map(address).collect()
}

/// Replicas have one key and differ by address: what is about a job goes to the one that runs it, all else to all.
#[test]
fn an_edge_of_a_cloud_of_replicas_has_a_link_to_each() {
    let peer = |address: &str| Peer { id: CLOUD, address: address.into() };
    let replicas = vec![peer("cloud:2"), peer("cloud:1"), peer("cloud:3")];
    let identity = EdgeIdentity {
        id: NodeId([2; 32]),
        name: "edge".into(),
        cloud: peer("cloud:1"),
        replicas,
        listen: "edge:1".into(),
    };
    let mut edge = Edge::new(identity);
    assert_eq!(dialled(&step(&mut edge, 0, Event::Start)), ["cloud:1"]);
    assert_eq!(dialled(&step(&mut edge, 1, connected(1))), ["cloud:2"], "one at a time, each address once");
    let refused = Event::DialFailed { peer: peer("cloud:2"), reason: "nobody there".into() };
    assert_eq!(dialled(&step(&mut edge, 2, refused)), ["cloud:3"], "one that is down keeps nobody waiting");
    step(&mut edge, 3, connected(3));
    assert_eq!(dialled(&step(&mut edge, 4_000, Event::Timer(Timer::Redial))), ["cloud:2"]);
    step(&mut edge, 4_001, connected(2));

    let device = NodeId([3; 32]);
    step(
        &mut edge,
        5_000,
        Event::Connected { link: LinkId(7), peer: device, dialled: false, kernels: Default::default() },
    );
    let attach = Message::Attach { name: "ward".into(), data: List::default(), held: List::default() };
    let told = step(&mut edge, 5_000, Event::Received { link: LinkId(7), message: attach });
    assert_eq!([1, 2, 3].map(|link| said(&told, link)), [["DeviceAttached"]; 3]);

    // The job is asked for over link 1, and then, after a takeover, over link 2.
    let collection = Collection { job: JobId(1), version: 0, work: Work::Train, attempt: 0 };
    let decline = |edge: &mut Edge| {
        let message = Message::Declined { collection, reason: Default::default() };
        let told = step(edge, 5_001, Event::Received { link: LinkId(7), message });
        [1, 2, 3].map(|link| said(&told, link).len())
    };
    let model = Manifest::of(b"small").unwrap();
    let asked = || vec![Asked { device, counted: 0, effort: Effort::Job }];
    step(&mut edge, 5_000, open(&model, Some(b"small"), asked()));
    assert_eq!(decline(&mut edge), [1, 0, 0]);
    step(&mut edge, 5_002, Event::Disconnected { link: LinkId(1), reason: "killed".into() });
    let Event::Received { message, .. } = open(&model, Some(b"small"), asked()) else { unreachable!() };
    let again = step(&mut edge, 5_003, Event::Received { link: LinkId(2), message });
    assert_eq!([1, 2, 3].map(|link| said(&again, link).len()), [0, 1, 0], "how it stands is told to who asks");
}
