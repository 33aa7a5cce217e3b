//! An edge that sums nothing: what it hands in is a list of its devices' updates, each looked into before it is in it.

use littoral_fed::distribution::Distribution;
use littoral_fed::drift::Sketch;
use littoral_fed::seal::Raw;
use littoral_node::job::{DriftText, EvaluationText, JobSpec, Task};
use littoral_node::role::edge::{Edge, EdgeIdentity};
use littoral_node::role::{Effect, Event, LinkId, Peer, Role};
use littoral_node::work::{Output, Work as Deed};
use littoral_tensor::fixed;
use littoral_wire::message::{Asked, Collection, Fate, Gather, Incarnation, Work};
use littoral_wire::object::{CHUNK_BYTES, Manifest};
use littoral_wire::{Blob, Chain, JobId, List, Message, NodeId};

const CLOUD: NodeId = NodeId([1; 32]);
const COLLECTION: Collection = Collection { job: JobId(1), version: 0, work: Work::Train, attempt: 0 };
const INCARNATION: Incarnation = Incarnation { collection: COLLECTION, number: 1 };

/// 200,010 parameters in words of 32 bits: updates of seven chunks.
fn job(robust: &str) -> JobSpec {
    let classes: Vec<String> = (0..10).map(|class| format!("\"{class}\"")).collect();
    JobSpec::parse(&format!(
        r#"
        name = "unmerged"
        model = {{ kind = "softmax" }}
        algorithm = {{ name = "fedavg" }}
        local = {{ optimiser = {{ name = "sgd", learning_rate = 0.1 }} }}
        cohort = {{ target = 4 }}
        rounds = {{ count = 2 }}
        precision = {{ weighting = "uniform" }}
        robust = {{ {robust} }}
        data = {{ set = "t", schema = {{ image = {{ height = 200, width = 100, channels = 1, classes = [{}] }} }} }}
        "#,
        classes.join(", ")
    ))
    .unwrap()
}

fn update(spec: &JobSpec, scale: f32) -> Vec<u8> {
    let plan = spec.plan(Work::Train);
    let delta = (0..plan.sections()[0].len).map(|i| (i % 101) as f32 / 1e5 * scale).collect();
    let raw = Raw { examples: 9, loss: 0.5, wholes: vec![4, 3, 0], sections: vec![delta] };
    raw.unclipped().round(plan).unwrap().pack().plain().to_vec()
}

struct Scene(Edge);

impl Scene {
    /// An edge with five devices that are asked for their updates.
    fn open(spec: &JobSpec, gather: Gather) -> (Self, Vec<Effect>) {
        let cloud = Peer { id: CLOUD, address: "cloud:1".into() };
        let identity = EdgeIdentity {
            id: NodeId([9; 32]),
            name: "edge".into(),
            cloud,
            listen: "edge:1".into(),
            replicas: Vec::new(),
        };
        let mut edge = Self(Edge::new(identity));
        let up =
            |link, peer, dialled| Event::Connected { link: LinkId(link), peer, dialled, kernels: Default::default() };
        edge.step(up(1, CLOUD, true));
        for device in 2..=6u8 {
            edge.step(up(device.into(), NodeId([device; 32]), false));
            let attach = Message::Attach { name: "d".into(), data: List::default(), held: List::default() };
            edge.hear(device.into(), attach);
        }
        let format = spec.plan(Work::Train).format();
        let asked =
            (2..=6).map(|n| Asked { device: NodeId([n; 32]), counted: 0, effort: littoral_wire::message::Effort::Job });
        let open = Message::Open {
            incarnation: INCARNATION,
            spec: Blob::new(Task { spec: spec.clone(), population: 4 }.encode()).unwrap(),
            model: Manifest::of(b"model").unwrap(),
            before: Chain::default(),
            inline: Some(Blob::new(b"model".to_vec()).unwrap()),
            devices: List::new(asked.collect()).unwrap(),
            words: format.words(),
            bits: format.bits() as u8,
            commitment: None,
            gather,
            given: Default::default(),
        };
        let said = edge.hear(1, open);
        (edge, said)
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.0.step(1, event, &mut effects);
        effects
    }

    fn hear(&mut self, link: u64, message: Message) -> Vec<Effect> {
        self.step(Event::Received { link: LinkId(link), message })
    }

    /// A device's update, whose chunks are on the disk at once. What is in memory of it at a time: one chunk.
    fn offer(&mut self, device: u8, update: &[u8]) -> Vec<Effect> {
        let manifest = Manifest::of(update).unwrap();
        let object = manifest.id();
        self.hear(device.into(), Message::Offer { collection: COLLECTION, update: manifest, inline: None, note: None });
        let mut effects = self.step(Event::Begun { object, missing: Vec::new() });
        while let [Effect::Load { object: asked, index }] = effects[..] {
            assert_eq!(asked, object);
            let chunk = update.chunks(CHUNK_BYTES).nth(index as usize).unwrap();
            effects = self.step(Event::Loaded { object, index, bytes: Some(chunk.to_vec().into()) });
        }
        effects
    }
}

fn progress(effects: &[Effect]) -> (Fate, String) {
    let said = effects.iter().find_map(|effect| match effect {
        Effect::Send { message: Message::Progress { fate, reason, .. }, .. } => Some((*fate, reason.to_string())),
        _ => None,
    });
    said.unwrap_or_else(|| panic!("{effects:?}"))
}

#[test]
fn updates_are_looked_into_and_listed_in_the_order_of_devices() {
    let spec = job("rule = \"median\"");
    let plan = spec.plan(Work::Train);
    let (mut edge, _) = Scene::open(&spec, Gather::Each);
    let [a, b] = [1.0, 2.0].map(|scale| update(&spec, scale));
    assert_eq!(a.len().div_ceil(CHUNK_BYTES), 7);
    // Later in the order comes first in time.
    assert_eq!(progress(&edge.offer(5, &b)), (Fate::Absorbed, String::new()));
    // A coordinate in the last chunk that no honest device makes; more right answers than rows; an update cut short.
    let mut far = a.clone();
    let last = plan.section_bytes(0, 200_000..200_008);
    fixed::pack(&[i64::from(plan.levels()) + 1; 8], plan.bits(), &mut far[last]).unwrap();
    let (fate, why) = progress(&edge.offer(2, &far));
    assert!(fate == Fate::Refused && why.contains("section `delta`, coordinate 200000"), "{why}");
    let raw = Raw { examples: 9, loss: 0.5, wholes: vec![4, 5, 0], sections: vec![vec![0.0; 200_010]] };
    let (fate, why) = progress(&edge.offer(3, raw.unclipped().round(plan).unwrap().pack().plain()));
    assert!(fate == Fate::Refused && why == "right answers of held-out rows: 0 to 4 expected, got 5", "{why}");
    let manifest = Manifest::of(&a[1..]).unwrap();
    let short = edge.hear(4, Message::Offer { collection: COLLECTION, update: manifest, inline: None, note: None });
    assert_eq!(progress(&short).0, Fate::Refused);
    assert_eq!(progress(&edge.offer(6, &a)), (Fate::Absorbed, String::new()));

    let closed = edge.hear(1, Message::Close { incarnation: INCARNATION });
    let [Effect::Work { id, work }] = &closed[..] else { panic!("{closed:?}") };
    let Deed::Bundle { updates } = &**work else { panic!("{work:?}") };
    let of = |update: &[u8]| (Manifest::of(update).unwrap().id(), update.len() as u64);
    assert_eq!(*updates, [of(&b), of(&a)]);
    // Until the list is whole the updates are needed, from then on it is.
    assert!(edge.0.needs(of(&a).0));
    let list = Manifest::of(&[&b[..], &a[..]].concat()).unwrap();
    let written = edge.step(Event::Worked { id: *id, result: Ok(Output::Bundled { list: list.clone() }) });
    assert!(!edge.0.needs(of(&a).0) && edge.0.needs(list.id()));
    let handed_in = written.iter().find_map(|effect| match effect {
        Effect::Send { message: Message::Partial { devices, sum, inline, .. }, .. } => {
            Some((devices.to_vec(), sum.clone(), inline.is_some()))
        }
        _ => None,
    });
    assert_eq!(handed_in, Some((vec![NodeId([5; 32]), NodeId([6; 32])], list.clone(), false)));
    let chunk = edge.hear(1, Message::GetChunk { object: list.id(), index: 9 });
    assert!(matches!(chunk[..], [Effect::SendChunk { index: 9, .. }]), "{chunk:?}");
    let kept = edge.hear(1, Message::PartialKept { incarnation: INCARNATION });
    assert!(matches!(kept[..], [Effect::Drop(object)] if object == list.id()) && !edge.0.needs(list.id()));
}

/// What a device tells of its rows must be something that a device can tell.
#[test]
fn a_spread_or_a_sketch_that_is_none_is_refused() {
    let mut text = job("rule = \"median\"").text().clone();
    text.drift = Some(DriftText::default());
    text.evaluation = Some(EvaluationText { distribution: Some(true) });
    let spec = JobSpec::check(text).unwrap();
    let layout = &spec.sketched().unwrap().layout;
    let counts: Vec<u64> = (0..layout.bins() as u64).collect();
    let told = |right: u64, more: i128| {
        let mut sketch = Sketch::of(layout, &counts).to_wholes();
        sketch[1] += more;
        let spread = Distribution::of(right, 4).to_wholes();
        let wholes = [4, 3, 0].into_iter().chain(spread).chain(sketch).collect();
        let raw = Raw { examples: 9, loss: 0.5, wholes, sections: vec![vec![0.0; 200_010]] };
        raw.unclipped().round(spec.plan(Work::Train)).unwrap().pack().plain().to_vec()
    };
    let (mut edge, _) = Scene::open(&spec, Gather::Each);
    assert_eq!(progress(&edge.offer(2, &told(3, 0))), (Fate::Absorbed, String::new()));
    let (fate, why) = progress(&edge.offer(3, &told(4, 0)));
    assert!(fate == Fate::Refused && why.starts_with("accuracy in the spread"), "{why}");
    // One step more in one bin.
    let (fate, why) = progress(&edge.offer(4, &told(3, 1)));
    assert!(fate == Fate::Refused && why.starts_with("sketch of its rows"), "{why}");
}

/// A list that cannot be written is lost as a sum is: the cloud hears of it and asks again.
#[test]
fn a_list_that_cannot_be_written_starts_anew() {
    let spec = job("rule = \"median\"");
    let (mut edge, _) = Scene::open(&spec, Gather::Each);
    let a = update(&spec, 1.0);
    edge.offer(2, &a);
    let closed = edge.hear(1, Message::Close { incarnation: INCARNATION });
    let [Effect::Work { id, .. }] = &closed[..] else { panic!("{closed:?}") };
    let fault = littoral_node::work::WorkFault::Failed("the disk is full".into());
    let told = edge.step(Event::Worked { id: *id, result: Err(fault) });
    let lost = |effect: &Effect| matches!(effect, Effect::Send { message: Message::NoPartial { .. }, .. });
    assert!(told.iter().any(lost) && !edge.0.needs(Manifest::of(&a).unwrap().id()), "{told:?}");
}

/// Nobody is asked to sum what must not be summed, and what is too long is not in a sum.
#[test]
fn an_edge_gathers_as_the_job_says_and_sums_what_is_short_enough() {
    let ruled = job("rule = \"median\"");
    let (_, said) = Scene::open(&ruled, Gather::Sum);
    assert!(said.iter().any(|e| matches!(e, Effect::Send { message: Message::NoPartial { .. }, .. })), "{said:?}");

    let bounded = job("norm_bound = 0.5");
    let (mut edge, _) = Scene::open(&bounded, Gather::Sum);
    // Their norms are 0.26 and 0.52 times the scale.
    let [a, b] = [1.0, 2.0].map(|scale| update(&bounded, scale));
    assert_eq!(progress(&edge.offer(2, &b)), (Fate::Refused, "update norm 0.5177 above norm_bound 0.5".into()));
    assert_eq!(progress(&edge.offer(3, &a)), (Fate::Absorbed, String::new()));
    let closed = edge.hear(1, Message::Close { incarnation: INCARNATION });
    let sum = closed.iter().find_map(|effect| match effect {
        Effect::Send { message: Message::Partial { devices, sum, .. }, .. } => Some((devices.len(), sum.clone())),
        _ => None,
    });
    assert_eq!(sum, Some((1, Manifest::of(&a).unwrap())));
}
