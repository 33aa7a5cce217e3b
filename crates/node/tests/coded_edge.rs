//! An edge decodes coded updates: what it hands in is the sum of their words, and nothing of a malformed one is in it.

use littoral_fed::compress::accumulate::decode_into_words;
use littoral_fed::plan::Plan;
use littoral_fed::seal::Raw;
use littoral_node::job::{JobSpec, Task};
use littoral_node::role::edge::{Edge, EdgeIdentity};
use littoral_node::role::{Effect, Event, LinkId, Peer, Role};
use littoral_wire::message::{Asked, Collection, Effort, Fate, Gather, Incarnation, Work};
use littoral_wire::object::{CHUNK_BYTES, Manifest};
use littoral_wire::{Blob, Chain, JobId, List, Message, NodeId};

const CLOUD: NodeId = NodeId([1; 32]);
const COLLECTION: Collection = Collection { job: JobId(1), version: 0, work: Work::Train, attempt: 0 };
const INCARNATION: Incarnation = Incarnation { collection: COLLECTION, number: 1 };

/// 902,510 parameters in four bits each: updates of four chunks.
fn job() -> JobSpec {
    let classes: Vec<String> = (0..10).map(|class| format!("\"{class}\"")).collect();
    JobSpec::parse(&format!(
        r#"
        name = "coded"
        model = {{ kind = "softmax" }}
        algorithm = {{ name = "fedavg" }}
        local = {{ optimiser = {{ name = "sgd", learning_rate = 0.1 }} }}
        cohort = {{ target = 4 }}
        rounds = {{ count = 2 }}
        precision = {{ weighting = "uniform" }}
        compression = {{ uplink = {{ name = "quantise", bits = 4, entropy = false }} }}
        data = {{ set = "t", schema = {{ image = {{ height = 300, width = 300, channels = 1, classes = [{}] }} }} }}
        "#,
        classes.join(", ")
    ))
    .unwrap()
}

fn update(spec: &JobSpec, device: u8) -> Vec<u8> {
    let plan = spec.plan(Work::Train);
    let delta = (0..plan.sections()[0].len).map(|i| ((i * usize::from(device)) % 101) as f32 / 50.0 - 1.0).collect();
    let raw = Raw { examples: 9, loss: 0.5, wholes: vec![0; plan.wholes()], sections: vec![delta] };
    let codec = spec.codec(Work::Train).unwrap();
    raw.unclipped().code(plan, codec, &[device; 32]).unwrap().pack().plain().to_vec()
}

/// The sum of updates' words, added one by one: those of a device are whole numbers of at most 32 bits.
fn sum_of(spec: &JobSpec, updates: &[&[u8]]) -> Manifest {
    let plan: &Plan = spec.plan(Work::Train);
    assert_eq!(plan.bits(), 32);
    let mut sum = vec![0u32; plan.format().words() as usize];
    for update in updates {
        let mut words = Vec::new();
        let mut emit = |piece: &[u8]| {
            words.extend_from_slice(piece);
            Ok(())
        };
        decode_into_words(spec.codec(Work::Train).unwrap(), plan, update, &mut emit).unwrap();
        let words = words.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four));
        sum.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(word));
    }
    Manifest::of(&sum.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()).unwrap()
}

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

    fn offer(&mut self, device: u8, update: &[u8], rides: bool) -> Vec<Effect> {
        let inline = rides.then(|| Blob::new(update.to_vec()).unwrap());
        let update = Manifest::of(update).unwrap();
        self.hear(device.into(), Message::Offer { collection: COLLECTION, update, inline, note: None })
    }

    /// Its chunks are on the disk already. What is in memory of it at once: one update, in chunks in order.
    fn spooled(&mut self, update: &[u8]) -> Vec<Effect> {
        let object = Manifest::of(update).unwrap().id();
        let mut effects = self.step(Event::Begun { object, missing: Vec::new() });
        for (index, chunk) in update.chunks(CHUNK_BYTES).enumerate() {
            let index = index as u32;
            assert!(matches!(effects[..], [Effect::Load { object: o, index: i }] if (o, i) == (object, index)));
            effects = self.step(Event::Loaded { object, index, bytes: Some(chunk.to_vec().into()) });
        }
        effects
    }
}

fn progress(effects: &[Effect]) -> Option<(Fate, String)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { message: Message::Progress { fate, reason, .. }, .. } => Some((*fate, reason.to_string())),
        _ => None,
    })
}

#[test]
fn whole_updates_are_summed_and_a_malformed_one_leaves_no_trace() {
    let spec = job();
    let cloud = Peer { id: CLOUD, address: "cloud:1".into() };
    let identity =
        EdgeIdentity { id: NodeId([9; 32]), name: "edge".into(), cloud, replicas: vec![], listen: "edge:1".into() };
    let mut edge = Scene(Edge::new(identity));
    let up = |link, peer, dialled| Event::Connected { link: LinkId(link), peer, dialled, kernels: Default::default() };
    edge.step(up(1, CLOUD, true));
    for device in 2..=6u8 {
        edge.step(up(device.into(), NodeId([device; 32]), false));
        let attach = Message::Attach { name: "d".into(), data: List::default(), held: List::default() };
        edge.hear(device.into(), attach);
    }
    let open = |format: (u64, u8)| Message::Open {
        incarnation: INCARNATION,
        spec: Blob::new(Task { spec: spec.clone(), population: 4 }.encode()).unwrap(),
        model: Manifest::of(b"model").unwrap(),
        before: Chain::default(),
        inline: Some(Blob::new(b"model".to_vec()).unwrap()),
        devices: List::new(
            (2..=6).map(|n| Asked { device: NodeId([n; 32]), counted: 0, effort: Effort::Job }).collect::<Vec<_>>(),
        )
        .unwrap(),
        words: format.0,
        bits: format.1,
        commitment: None,
        gather: Gather::Sum,
        given: Default::default(),
    };
    // Words that are not the job's.
    let refused = edge.hear(1, open((8, 32)));
    assert!(
        refused.iter().any(|e| matches!(e, Effect::Send { message: Message::NoPartial { .. }, .. })),
        "{refused:?}"
    );
    let plan = spec.plan(Work::Train);
    edge.hear(1, open((plan.format().words(), plan.bits() as u8)));

    let [a, b] = [2, 3].map(|device| update(&spec, device));
    assert!(a.len() > 3 * CHUNK_BYTES && a.len() < plan.format().bytes() / 5 * 2, "{}", a.len());
    edge.offer(2, &a, false);
    assert_eq!(progress(&edge.spooled(&a)).unwrap().0, Fate::Absorbed);

    // A scale that is no number, in the middle; a whole update and a byte; nothing but a beginning; a whole one in words.
    let mut damaged = b.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 4096].fill(0xff);
    damaged.truncate(damaged.len() - 1);
    edge.offer(4, &damaged, false);
    let (fate, why) = progress(&edge.spooled(&damaged)).unwrap();
    assert_eq!(fate, Fate::Refused, "{why}");
    assert!(why.contains("a coded update"), "{why}");
    let (fate, why) = progress(&edge.offer(5, &b[..plan.header_bytes() + 4], true)).unwrap();
    assert!(fate == Fate::Refused && why.contains("a coded update ends"), "{why}");
    let (fate, why) = progress(&edge.offer(6, &vec![0; plan.format().bytes()], false)).unwrap();
    assert!(fate == Fate::Refused && why.contains("a coded update of this collection has"), "{why}");

    edge.offer(3, &b, false);
    assert_eq!(progress(&edge.spooled(&b)).unwrap().0, Fate::Absorbed);
    let closed = edge.hear(1, Message::Close { incarnation: INCARNATION });
    let handed_in = closed.iter().find_map(|effect| match effect {
        Effect::Send { message: Message::Partial { devices, sum, .. }, .. } => Some((devices.to_vec(), sum.clone())),
        _ => None,
    });
    let (devices, sum) = handed_in.expect("a partial");
    assert_eq!(devices, [NodeId([2; 32]), NodeId([3; 32])]);
    assert_eq!(sum, sum_of(&spec, &[&a, &b]));
}
