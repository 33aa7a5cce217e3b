//! A device whose store was lost must not go on as if it had kept nothing: the cloud says what counts it.

use littoral_fed::included::{Tree, announce};
use littoral_node::job::JobSpec;
use littoral_node::role::cloud::{Cloud, CloudIdentity};
use littoral_node::role::device::{Device, DeviceIdentity};
use littoral_node::role::{Effect, Entropy, Event, LinkId, Report, Role, Row, RowKey, WorkId, Write};
use littoral_node::work::{LocalNote, Output, Work};
use littoral_wire::message::{Asked, DataOffer, Fate, ROTATE_DOMAIN, Role as Kind, Verdict, Work as Collects};
use littoral_wire::{Blob, Chain, Collection, JobId, List, Manifest, Message, NodeId, SecretKey};
use std::collections::BTreeMap;

fn key(name: &str) -> SecretKey {
    SecretKey::from_bytes(*blake3::hash(name.as_bytes()).as_bytes())
}

fn job(algorithm: &str) -> String {
    format!(
        r#"
        name = "lost"
        seed = 1
        model = {model}
        data = {{ set = "blobs", standardise = false, schema = {{ label = {{ name = "class", classes = ["a", "b"] }}, fields = [{{ name = "x" }}] }} }}
        algorithm = {{ name = "{algorithm}" }}
        local = {{ optimiser = {{ name = "sgd", learning_rate = 0.1 }} }}
        cohort = {{ target = 2, min = 2 }}
        rounds = {{ count = 9 }}
        precision = {{ weighting = "uniform" }}
        {compression}
        "#,
        model = if algorithm == "fedper" { "{ kind = \"mlp\", hidden = [2] }" } else { "{ kind = \"softmax\" }" },
        // Not an algorithm, but one with a residual.
        algorithm = algorithm.trim_end_matches(" and top-k"),
        compression = if algorithm.ends_with("top-k") { "compression = { uplink = { name = \"top-k\" } }" } else { "" },
    )
}

/// The rows that a role stored.
#[derive(Clone, Default)]
struct Rows(BTreeMap<RowKey, Vec<u8>>);

impl Rows {
    fn load(&self) -> Vec<Row> {
        self.0.iter().map(|(key, value)| Row { key: key.clone(), value: value.clone() }).collect()
    }
}

/// Steps a role and keeps what it stores.
fn step(role: &mut dyn Role, rows: &mut Rows, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    role.step(0, event, &mut effects);
    for write in
        effects.iter().filter_map(|e| if let Effect::Store(writes) = e { Some(writes) } else { None }).flatten()
    {
        match write.clone() {
            Write::Put { key, value } => drop(rows.0.insert(key, value)),
            Write::Delete { key } => drop(rows.0.remove(&key)),
            Write::Object(_) => {}
        }
    }
    effects
}

fn said(effects: &[Effect]) -> impl Iterator<Item = &Message> {
    effects.iter().filter_map(|e| if let Effect::Send { message, .. } = e { Some(message) } else { None })
}

fn work(effects: &[Effect]) -> WorkId {
    let ordered = |e: &Effect| if let Effect::Work { id, .. } = e { Some(*id) } else { None };
    effects.iter().find_map(ordered).expect("a work was ordered")
}

const UP: LinkId = LinkId(1);

fn collection(version: u64) -> Collection {
    Collection { job: JobId(1), version, work: Collects::Train, attempt: 0 }
}

fn device(rows: &Rows) -> Device {
    let identity = DeviceIdentity {
        key: key("device"),
        roster: None,
        masks: None,
        group_min: 3,
        entropy: Entropy::new([0; 32]),
        name: "device".into(),
        cloud: key("cloud").id(),
        upstreams: Vec::new(),
        data: Vec::new(),
    };
    let mut device = Device::new(identity, rows.load());
    step(
        &mut device,
        &mut Rows::default(),
        Event::Connected { link: UP, peer: key("edge").id(), dialled: true, kernels: Default::default() },
    );
    device
}

fn task(algorithm: &str, version: u64, counted: u32) -> Event {
    let spec = JobSpec::parse(&job(algorithm)).unwrap();
    let encoded = littoral_node::job::Task { spec, population: 2 }.encode();
    let message = Message::Task {
        collection: collection(version),
        spec: Blob::new(encoded).unwrap(),
        model: Manifest::of(b"model").unwrap(),
        before: Chain::default(),
        inline: None,
        counted,
        commitment: None,
        effort: littoral_wire::message::Effort::Job,
    };
    Event::Received { link: UP, message }
}

/// A task as far as the sealed update.
fn seal(device: &mut Device, rows: &mut Rows, algorithm: &str, version: u64, counted: u32) {
    let begun = step(device, rows, task(algorithm, version, counted));
    assert!(begun.iter().any(|e| matches!(e, Effect::Begin(_))), "{begun:?}");
    let object = Manifest::of(b"model").unwrap().id();
    let id = work(&step(device, rows, Event::Begun { object, missing: Vec::new() }));
    let made = |what: &str| Manifest::of(format!("{what} {version}").as_bytes()).unwrap();
    let output = Output::Local {
        update: made("update"),
        state: Some(made("state")),
        personal: None,
        learnt: None,
        note: LocalNote::default(),
    };
    step(device, rows, Event::Worked { id, result: Ok(output) });
}

fn told(version: u64) -> Event {
    let (cloud, me) = (key("cloud"), key("device").id());
    let model = Manifest::of(b"next").unwrap().id();
    let announcement = announce(&cloud, collection(version), version + 1, "train", model, &[me]);
    let proof = Tree::new(&[me]).proof(me);
    let verdict = Verdict { collection: collection(version), announcement: Some(announcement), proof };
    Event::Received { link: UP, message: Message::Told { verdict } }
}

/// Why the device declines; none: it begins.
fn declined(device: &mut Device, event: Event) -> Option<String> {
    let effects = step(device, &mut Rows::default(), event);
    let why = said(&effects).find_map(|m| match m {
        Message::Declined { reason, .. } => Some(reason.to_string()),
        _ => None,
    });
    assert_eq!(why.is_none(), effects.iter().any(|e| matches!(e, Effect::Begin(_))), "{effects:?}");
    why
}

#[test]
fn a_device_takes_part_only_with_the_state_that_the_cloud_counts() {
    let mut rows = Rows::default();
    let mut first = device(&rows);
    seal(&mut first, &mut rows, "scaffold", 0, 0);
    step(&mut first, &mut rows, told(0));
    let older = rows.clone();
    seal(&mut first, &mut rows, "scaffold", 1, 1);
    let waiting = rows.clone();
    step(&mut first, &mut rows, told(1));

    let named = |what: &str| Manifest::of(what.as_bytes()).unwrap().id();
    assert!(device(&rows).needs(named("state 1")) && !device(&rows).needs(named("state 0")));
    assert!(device(&waiting).needs(named("update 1")) && !device(&rows).needs(named("update 1")));

    assert_eq!(declined(&mut device(&rows), task("scaffold", 2, 2)), None, "all is here");
    let why = declined(&mut device(&Rows::default()), task("scaffold", 2, 2)).expect("its store is lost");
    for part in ["control variate", "that of version 2 expected", "got none", "restore", "another name"] {
        assert!(why.contains(part), "{why}");
    }
    let why = declined(&mut device(&older), task("scaffold", 2, 2)).expect("its store is an old copy");
    assert!(why.contains("got that of version 1"), "{why}");
    let why = declined(&mut device(&rows), task("scaffold", 2, 1)).expect("the cloud's store is an old copy");
    assert!(why.contains("the cloud's folder"), "{why}");
    assert_eq!(declined(&mut device(&Rows::default()), task("fedavg", 2, 2)), None, "nothing is kept of such a job");

    // A cloud whose folder is an old copy asks again for what this device knows the end of.
    let why = declined(&mut device(&rows), task("fedavg", 1, 0)).expect("it would seal twice for one collection");
    for part in ["after version 1 expected", "got one for version 1", "the cloud's folder is an old copy"] {
        assert!(why.contains(part), "{why}");
    }

    // The update that counts it is here, its verdict has not come yet: it waits, and then begins.
    let mut restarted = device(&waiting);
    let effects = step(&mut restarted, &mut Rows::default(), task("scaffold", 2, 2));
    assert!(said(&effects).all(|m| matches!(m, Message::Attach { .. })), "{effects:?}");
    assert_eq!(declined(&mut restarted, told(1)), None);
}

/// What compression left out is kept like an algorithm's state: current if the update was included, over restarts too. But who
/// lost it goes on without.
#[test]
fn a_residual_survives_restarts_and_is_forgotten_if_it_is_of_another_version() {
    const JOB: &str = "fedavg and top-k";
    let state_of = |device: &mut Device, rows: &mut Rows, version: u64, counted: u32| {
        let begun = step(device, rows, task(JOB, version, counted));
        assert!(begun.iter().any(|e| matches!(e, Effect::Begin(_))), "{begun:?}");
        let object = Manifest::of(b"model").unwrap().id();
        let effects = step(device, rows, Event::Begun { object, missing: Vec::new() });
        effects.iter().find_map(|e| match e {
            Effect::Work { work, .. } => match &**work {
                Work::Local { state, .. } => Some(state.as_ref().map(Manifest::id)),
                _ => None,
            },
            _ => None,
        })
    };
    let made = |what: &str| Some(Some(Manifest::of(what.as_bytes()).unwrap().id()));
    let mut rows = Rows::default();
    let mut first = device(&rows);
    seal(&mut first, &mut rows, JOB, 0, 0);
    step(&mut first, &mut rows, told(0));
    let older = rows.clone();
    // Included, and then one that is not.
    seal(&mut first, &mut rows, JOB, 1, 1);
    step(&mut first, &mut rows, told(1));
    seal(&mut first, &mut rows, JOB, 2, 2);
    let verdict = Verdict { collection: collection(2), announcement: None, proof: None };
    step(&mut first, &mut rows, Event::Received { link: UP, message: Message::Told { verdict } });

    assert_eq!(state_of(&mut device(&rows), &mut rows.clone(), 3, 2), made("state 1"));
    for (mut rows, what) in [(older, "an old copy"), (Rows::default(), "lost")] {
        assert_eq!(state_of(&mut device(&rows), &mut rows, 3, 2), Some(None), "{what}");
        assert!(device(&rows).state(JobId(1)).is_none(), "{what}, after a restart");
    }
}

/// What is a device's own becomes current with its update, over restarts too. Whoever lost it is not turned away: it begins anew and
/// says so, and nobody is served any of it.
#[test]
fn a_devices_own_part_survives_restarts_and_may_be_lost() {
    let made = |what: &str| Manifest::of(what.as_bytes()).unwrap();
    let notes = |effects: &[Effect]| {
        let note = |e: &&Effect| matches!(e, Effect::Report(Report::Note { what }) if what.contains("begins anew"));
        effects.iter().filter(note).count()
    };
    // What it begins from, and how often it says that this was lost.
    let begin = |device: &mut Device, rows: &mut Rows, version: u64, counted: u32| {
        let begun = step(device, rows, task("fedper", version, counted));
        let effects = step(device, rows, Event::Begun { object: made("model").id(), missing: Vec::new() });
        let ordered = effects.iter().find_map(|e| match e {
            Effect::Work { id, work } => match &**work {
                Work::Local { personal, state: None, .. } => Some((*id, personal.clone())),
                _ => None,
            },
            _ => None,
        });
        let (id, personal) = ordered.expect("a work was ordered");
        (id, personal, notes(&begun))
    };
    let worked = |device: &mut Device, rows: &mut Rows, id, version: u64, anew: bool| {
        let note = LocalNote { anew, ..LocalNote::default() };
        let (update, personal) = (made(&format!("update {version}")), Some(made(&format!("own {version}"))));
        let output = Output::Local { update, state: None, personal, learnt: None, note };
        step(device, rows, Event::Worked { id, result: Ok(output) })
    };
    let mut rows = Rows::default();
    let mut first = device(&rows);
    let (id, personal, said) = begin(&mut first, &mut rows, 0, 0);
    assert_eq!((personal, said), (None, 0), "there was nothing to lose");
    worked(&mut first, &mut rows, id, 0, false);
    let asked = Event::Received { link: UP, message: Message::GetChunk { object: made("own 0").id(), index: 0 } };
    let answer = step(&mut first, &mut rows, asked);
    assert!(said_no(&answer), "nobody is served it: {answer:?}");
    // Killed while it waits: it is still there, with the update, and not current.
    let mut second = device(&rows);
    assert!(second.needs(made("own 0").id()) && second.personal(JobId(1)).is_none());
    step(&mut second, &mut rows, told(0));
    assert_eq!(device(&rows).personal(JobId(1)), Some(&made("own 0")));

    // Not included: what there was before is what the next attempt begins from.
    let (id, personal, said) = begin(&mut second, &mut rows, 1, 1);
    assert_eq!((personal, said), (Some(made("own 0")), 0));
    worked(&mut second, &mut rows, id, 1, false);
    let verdict = Verdict { collection: collection(1), announcement: None, proof: None };
    let effects = step(&mut second, &mut rows, Event::Received { link: UP, message: Message::Told { verdict } });
    assert!(effects.iter().any(|e| matches!(e, Effect::Drop(object) if *object == made("own 1").id())));
    let mut third = device(&rows);
    assert!(!third.needs(made("own 1").id()) && third.needs(made("own 0").id()));
    assert_eq!(begin(&mut third, &mut rows, 2, 1).1, Some(made("own 0")));

    // Its store is gone, or what is in it cannot be read.
    let (id, personal, said) = begin(&mut device(&Rows::default()), &mut Rows::default(), 2, 1);
    assert_eq!((personal, said), (None, 1));
    let mut unread = device(&rows);
    begin(&mut unread, &mut rows, 2, 1);
    assert_eq!(notes(&worked(&mut unread, &mut rows, id, 2, true)), 1);
}

fn said_no(effects: &[Effect]) -> bool {
    said(effects).any(|m| matches!(m, Message::NoChunk { .. }))
        && !effects.iter().any(|e| matches!(e, Effect::SendChunk { .. }))
}

const EDGE: LinkId = LinkId(7);

/// A cloud with one edge and two devices, whose works end as this file says.
struct Scene {
    cloud: Cloud,
    rows: Rows,
    /// What the cloud has asked for last.
    asked: Option<(littoral_wire::message::Incarnation, Vec<Asked>)>,
}

impl Scene {
    fn start(rows: Rows) -> Self {
        let identity = CloudIdentity {
            key: key("cloud"),
            name: "cloud".into(),
            listen: "cloud:1".into(),
            epoch: 1,
            replicas: Vec::new(),
            entropy: Entropy::new([1; 32]),
        };
        let mut cloud = Cloud::new(identity, rows.load());
        // Before its first step, when a host asks what may go.
        let made = |version: u8| cloud.needs(Manifest::of(&[version]).unwrap().id());
        assert_eq!([1, 2, 3].map(made), [false, !rows.0.is_empty(), false]);
        cloud.install_machine(key("edge").id(), Kind::Edge, "edge");
        let mut scene = Self { cloud, rows, asked: None };
        if scene.rows.0.is_empty() {
            for name in ["a", "b"] {
                scene.cloud.install_machine(key(name).id(), Kind::Device, name);
            }
            let mut effects = Vec::new();
            scene.cloud.submit(0, &job("scaffold"), &mut effects).unwrap();
            scene.follow(effects);
        }
        scene.feed(Event::Start);
        scene.feed(Event::Connected {
            link: EDGE,
            peer: key("edge").id(),
            dialled: false,
            kernels: Default::default(),
        });
        let message = Message::EdgeAttach { name: "edge".into(), listen: "edge:1".into(), open: List::default() };
        scene.hear(message);
        scene
    }

    fn feed(&mut self, event: Event) {
        let effects = step(&mut self.cloud, &mut self.rows, event);
        self.follow(effects);
    }

    /// Answers as a host would.
    fn follow(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Store(writes) => {
                    for write in writes {
                        if let Write::Put { key, value } = write {
                            self.rows.0.insert(key, value);
                        }
                    }
                }
                Effect::Work { id, work } => {
                    let version = match &*work {
                        Work::Apply { collection, .. } => collection.version + 1,
                        _ => 0,
                    };
                    let model = Manifest::of(&[version as u8]).unwrap();
                    let output = match *work {
                        Work::Apply { .. } => Output::Applied {
                            model,
                            before: Chain::default(),
                            state: None,
                            given: Default::default(),
                            totals: Default::default(),
                        },
                        _ => Output::Initial { model, state: None },
                    };
                    self.feed(Event::Worked { id, result: Ok(output) });
                }
                Effect::Load { object, index } => {
                    let bytes = (0..9).find(|v| Manifest::of(&[*v]).unwrap().id() == object).map(|v| vec![v]);
                    self.feed(Event::Loaded { object, index, bytes: bytes.map(Into::into) });
                }
                Effect::Send { link: EDGE, message: Message::Open { incarnation, devices, .. } } => {
                    self.asked = Some((incarnation, devices.into_vec()));
                }
                _ => {}
            }
        }
    }

    fn hear(&mut self, message: Message) {
        self.feed(Event::Received { link: EDGE, message });
    }

    fn attach(&mut self, name: &str) {
        let data = List::new(vec![DataOffer { name: "blobs".into(), rows: 9 }]).unwrap();
        self.hear(Message::DeviceAttached { device: key(name).id(), name: name.into(), data, held: List::default() });
    }

    /// What the cloud says of this device in its present request.
    fn counted(&self, name: &str) -> u32 {
        let (_, devices) = self.asked.as_ref().expect("a request");
        devices.iter().find(|asked| asked.device == key(name).id()).expect("it is asked").counted
    }

    /// All who are asked are counted.
    fn complete(&mut self) {
        let (incarnation, devices) = self.asked.take().expect("a request");
        let devices: Vec<NodeId> = devices.iter().map(|asked| asked.device).collect();
        for device in &devices {
            self.hear(Message::Progress {
                incarnation,
                device: *device,
                fate: Fate::Absorbed,
                reason: Default::default(),
                note: None,
            });
        }
        let bytes = JobSpec::parse(&job("scaffold")).unwrap().plan(Collects::Train).format().bytes();
        let sum = Manifest::of(&vec![0; bytes]).unwrap();
        let inline = Some(Blob::new(vec![0; bytes]).unwrap());
        self.hear(Message::Partial { incarnation, devices: List::new(devices).unwrap(), sum, inline });
    }
}

#[test]
fn the_cloud_says_what_counts_a_device_also_after_a_restart_and_under_a_new_key() {
    let mut scene = Scene::start(Rows::default());
    scene.attach("a");
    scene.attach("b");
    assert_eq!((scene.counted("a"), scene.counted("b")), (0, 0));
    scene.complete();
    assert_eq!((scene.counted("a"), scene.counted("b")), (1, 1));
    scene.complete();
    assert_eq!((scene.counted("a"), scene.counted("b")), (2, 2));

    for (old, new) in [("a", "a2"), ("a2", "a3")] {
        let link = LinkId(8);
        scene.feed(Event::Connected { link, peer: key(old).id(), dialled: false, kernels: Default::default() });
        let signature = key(new).sign(ROTATE_DOMAIN, &key(old).id().0);
        scene.feed(Event::Received { link, message: Message::Rotate { to: key(new).id(), signature } });
    }
    let rows = std::mem::take(&mut scene.rows);
    let mut scene = Scene::start(rows);
    scene.cloud.install_machine(key("b").id(), Kind::Device, "b");
    scene.attach("a3");
    scene.attach("b");
    // The cohort that the records name holds the old key, which is cut off: another attempt asks the new one.
    let (_, asked) = scene.asked.as_ref().expect("a request");
    let mut asked: Vec<(NodeId, u32)> = asked.iter().map(|a| (a.device, a.counted)).collect();
    asked.sort_unstable();
    let mut both = [(key("a3").id(), 2), (key("b").id(), 2)];
    both.sort_unstable();
    assert_eq!(asked, both, "restored from its records, twice rotated");
}

/// All that follows would be built on it: no version, rather than a wrong one.
#[test]
fn a_job_whose_model_is_damaged_at_the_cloud_stands_still_and_says_so() {
    let mut scene = Scene::start(Rows::default());
    scene.attach("a");
    scene.attach("b");
    scene.complete();
    scene.complete();
    let rows = std::mem::take(&mut scene.rows);
    let records = rows.0.len();

    let mut scene = Scene::start(rows);
    scene.feed(Event::Begun { object: Manifest::of(&[2]).unwrap().id(), missing: vec![0] });
    scene.asked = None;
    scene.attach("a");
    scene.attach("b");
    assert!(scene.asked.is_none(), "nobody is asked to train it");
    assert_eq!(scene.rows.0.len(), records, "nothing is decided");
    let job = scene.cloud.jobs().get(JobId(1)).unwrap();
    assert!(job.halted() && !job.finished());
    let why = job.failure().unwrap();
    assert!(why.contains("version 2, model") && why.contains("restore its folder from a copy"), "{why}");
}
