//! A cloud that lies to a device in a masked sum: each move is refused by name, nothing leaves the device, and what it holds
//! still serves the sum that it took part in.
//!
//! The devices are the shipped roles, event by event, without a network. The cloud's words come from the real session
//! (`fed::masks::cloud`) and are changed on their way.

use littoral_fed::masks::cloud::{Masking, Say};
use littoral_fed::masks::context;
use littoral_fed::masks::{SealingStep, ThreatName};
use littoral_fed::roster::{self, Register};
use littoral_fed::round::Phase;
use littoral_node::job::{JobSpec, Task};
use littoral_node::role::device::{Device, DeviceIdentity};
use littoral_node::role::{Effect, Entropy, Event, LinkId, Report, Role, Row, Timer, Write};
use littoral_node::work::{LocalNote, Output, Work};
use littoral_privacy::secagg::codec::Bitmap;
use littoral_privacy::secagg::message::{Consents, Neighbours, Survivors};
use littoral_wire::message::{Effort, Work as Kind};
use littoral_wire::object::{Chain, Manifest};
use littoral_wire::{Blob, Collection, JobId, Message, NodeId, SecretKey};
use std::collections::BTreeMap;

const DEVICES: u8 = 5;
const LINK: LinkId = LinkId(1);

fn job(threat: &str) -> JobSpec {
    JobSpec::parse(&format!(
        r#"
        name = "moves"
        model = {{ kind = "softmax" }}
        data = {{ set = "blobs", standardise = false, schema = {{ label = {{ name = "c", classes = ["a", "b"] }}, fields = [{{ name = "x" }}] }} }}
        algorithm = {{ name = "fedavg" }}
        local = {{ optimiser = {{ name = "sgd", learning_rate = 0.1 }} }}
        cohort = {{ target = 5, min = 3 }}
        rounds = {{ count = 2 }}
        secure_aggregation = {{ threat = "{threat}", adversary = 0.2 }}
        "#
    ))
    .unwrap()
}

fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes([number; 32])
}

fn cloud() -> NodeId {
    key(200).id()
}

fn register(signer: u8, number: u64) -> Register {
    let devices: Vec<NodeId> = (1..=DEVICES).map(|n| key(n).id()).collect();
    Register::new(roster::sign(&key(signer), cloud(), number, &devices), &devices).unwrap()
}

/// A device, and what a host would keep for it.
struct Host {
    device: Device,
    number: u8,
    rows: BTreeMap<littoral_node::role::RowKey, Vec<u8>>,
}

/// What came of a message: steps and declines that left, and warnings.
#[derive(Debug, Default)]
struct Came {
    steps: Vec<(SealingStep, Vec<u8>)>,
    offers: usize,
    refused: Vec<String>,
}

impl Host {
    fn new(number: u8) -> Self {
        let mut host = Self { device: device(number, Vec::new()), number, rows: BTreeMap::new() };
        host.connect();
        host
    }

    fn connect(&mut self) {
        self.step(Event::Connected { link: LINK, peer: NodeId([9; 32]), dialled: true, kernels: Default::default() });
        let message = Message::Attached { cloud: cloud(), upstreams: Default::default() };
        self.step(Event::Received { link: LINK, message });
    }

    /// `kill -9` and a new start from what was stored.
    fn restart(&mut self) {
        let rows = self.rows.iter().map(|(key, value)| Row { key: key.clone(), value: value.clone() }).collect();
        self.device = device(self.number, rows);
        self.connect();
    }

    /// One event; works end at once, with objects that nobody looks into.
    fn step(&mut self, event: Event) -> Came {
        let (mut came, mut events) = (Came::default(), vec![event]);
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            self.device.step(0, event, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Send { message: Message::Sealing { step, body, .. }, .. } => {
                        came.steps.push((step, body.into_vec()));
                    }
                    Effect::Send { message: Message::Declined { reason, .. }, .. } => {
                        came.refused.push(reason.to_string());
                    }
                    Effect::Send { message: Message::Offer { .. }, .. } => came.offers += 1,
                    Effect::Report(Report::Warning { what }) => came.refused.push(what),
                    Effect::Store(writes) => self.store(writes),
                    Effect::Begin(manifest) => {
                        events.push(Event::Begun { object: manifest.id(), missing: Vec::new() });
                    }
                    Effect::Load { object, index } => {
                        events.push(Event::Loaded { object, index, bytes: Some(vec![self.number; 64].into()) });
                    }
                    Effect::Work { id, work } => {
                        let result = match *work {
                            Work::Mask { .. } => Output::Masked { update: Manifest::of(&[self.number; 64]).unwrap() },
                            _ => Output::Local {
                                update: Manifest::of(&[100 + self.number; 64]).unwrap(),
                                state: None,
                                personal: None,
                                learnt: None,
                                note: LocalNote::default(),
                            },
                        };
                        events.push(Event::Worked { id, result: Ok(result) });
                    }
                    _ => {}
                }
            }
        }
        came
    }

    fn store(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Put { key, value } => drop(self.rows.insert(key, value)),
                Write::Delete { key } => drop(self.rows.remove(&key)),
                Write::Object(_) => {}
            }
        }
    }

    fn hear(&mut self, collection: Collection, step: SealingStep, body: &[u8]) -> Came {
        let body = Blob::new(body.to_vec()).unwrap();
        self.step(Event::Received { link: LINK, message: Message::Sealing { collection, step, body } })
    }

    /// The message is refused with these words and nothing leaves.
    #[track_caller]
    fn refuses(&mut self, collection: Collection, step: SealingStep, body: &[u8], words: &str) {
        let came = self.hear(collection, step, body);
        assert!(came.refused.iter().any(|why| why.contains(words)), "{words:?} expected, got {came:?}");
        assert!(came.steps.is_empty() && came.offers == 0, "something left: {came:?}");
    }
}

fn identity(number: u8) -> DeviceIdentity {
    DeviceIdentity {
        key: key(number),
        name: format!("d{number}"),
        cloud: cloud(),
        upstreams: Vec::new(),
        data: Vec::new(),
        roster: Some(key(201).id()),
        masks: None,
        group_min: 3,
        entropy: Entropy::new([number; 32]),
    }
}

fn device(number: u8, rows: Vec<Row>) -> Device {
    Device::new(identity(number), rows)
}

/// A session under way: the devices by key, and what the cloud wants to say next.
struct Session {
    collection: Collection,
    masking: Masking,
    register: Register,
    says: Vec<Say>,
}

/// Asks all devices, which train, and takes their keys.
fn begin(hosts: &mut [Host], spec: &JobSpec, attempt: u32, register: Register) -> Session {
    let collection = Collection { job: JobId(1), version: 0, work: Kind::Train, attempt };
    let masked = spec.settings().masked.clone().unwrap();
    let model = Manifest::of(&[7; 24]).unwrap();
    let format = masked.format(Kind::Train);
    let bound = context(collection, &masked.job, model.id(), format);
    let mut masking = Masking::begin(masked.agreement, bound, format, [attempt as u8; 32]);
    let commitment = Some(masking.commitment());
    let task = Task { spec: spec.clone(), population: DEVICES.into() }.encode();
    for host in hosts.iter_mut() {
        let spec = Blob::new(task.clone()).unwrap();
        let message = Message::Task {
            collection,
            spec,
            model: model.clone(),
            before: Chain::default(),
            inline: None,
            counted: 0,
            commitment,
            effort: Effort::Job,
        };
        let came = host.step(Event::Received { link: LINK, message });
        let [(SealingStep::Keys, body)] = &came.steps[..] else { panic!("keys expected, got {came:?}") };
        masking.hear(key(host.number).id(), cloud(), SealingStep::Keys, body).unwrap();
    }
    let (says, _) = masking.next(Some(&register)).unwrap();
    Session { collection, masking, register, says }
}

impl Session {
    /// Says what is to be said and takes the answers, until the cloud would say this step.
    fn until(&mut self, hosts: &mut [Host], step: SealingStep) {
        while self.says[0].step != step {
            for say in std::mem::take(&mut self.says) {
                for device in &say.devices {
                    let host = hosts.iter_mut().find(|host| key(host.number).id() == *device).unwrap();
                    let came = host.hear(self.collection, say.step, &say.body);
                    assert!(came.refused.is_empty(), "{came:?}");
                    for (step, body) in came.steps {
                        self.masking.hear(*device, cloud(), step, &body).unwrap();
                    }
                }
            }
            self.says = match self.masking.phase() {
                Phase::Upload => {
                    let all: Vec<NodeId> = (1..=DEVICES).map(|n| key(n).id()).collect();
                    self.masking.survivors(&all).unwrap()
                }
                _ => self.masking.next(Some(&self.register)).unwrap().0,
            };
        }
    }

    fn body(&self, number: u8) -> Vec<u8> {
        let id = key(number).id();
        self.says.iter().find(|say| say.devices.contains(&id)).unwrap().body.to_vec()
    }
}

fn hosts() -> Vec<Host> {
    (1..=DEVICES).map(Host::new).collect()
}

#[test]
fn another_set_of_survivors_and_both_shares_are_refused_also_after_a_restart() {
    for (threat, answer) in [("active", SealingStep::Agree), ("honest", SealingStep::Reveal)] {
        let (mut hosts, spec) = (hosts(), job(threat));
        let mut session = begin(&mut hosts, &spec, 0, register(201, 1));
        session.until(&mut hosts, SealingStep::Survivors);
        let (collection, honest) = (session.collection, session.body(1));
        let said = hosts[0].hear(collection, SealingStep::Survivors, &honest).steps;
        assert!(matches!(&said[..], [(step, _)] if *step == answer), "{threat}: {said:?}");
        // Without one of the others: that one's other share would be asked for.
        let mut other = Survivors::decode(&honest).unwrap();
        let mut fewer = Bitmap::new(other.set.len());
        (1..fewer.len()).for_each(|place| fewer.insert(place));
        other.set = fewer;
        for restarted in [false, true] {
            if restarted {
                hosts[0].restart();
            }
            let came = hosts[0].hear(collection, SealingStep::Survivors, &other.encode());
            let named = ["another set of survivors", "both shares", "not among the survivors"];
            assert!(came.steps.is_empty(), "{came:?}");
            assert!(came.refused.iter().any(|why| named.iter().any(|name| why.contains(name))), "{came:?}");
            // The first set is still answered, in the same words.
            assert_eq!(hosts[0].hear(collection, SealingStep::Survivors, &honest).steps, said, "{threat}");
        }
    }
}

#[test]
fn signatures_of_too_few_or_over_another_set_reveal_nothing() {
    let (mut hosts, spec) = (hosts(), job("active"));
    let mut session = begin(&mut hosts, &spec, 0, register(201, 1));
    session.until(&mut hosts, SealingStep::Agreed);
    let (collection, honest) = (session.collection, session.body(1));
    let mut forged = Consents::decode(&honest).unwrap();
    forged.signatures.iter_mut().for_each(|signature| signature[40] ^= 1);
    hosts[0].refuses(collection, SealingStep::Agreed, &forged.encode(), "0 neighbours confirm this set");
    let mut few = Consents::decode(&honest).unwrap();
    few.signers = Bitmap::new(few.signers.len());
    few.signatures.clear();
    hosts[0].refuses(collection, SealingStep::Agreed, &few.encode(), "neighbours confirm this set");
    let said = hosts[0].hear(collection, SealingStep::Agreed, &honest).steps;
    assert!(matches!(&said[..], [(SealingStep::Reveal, _)]), "{said:?}");
    assert_eq!(hosts[0].hear(collection, SealingStep::Agreed, &honest).steps, said);
}

#[test]
fn a_changed_parameter_is_refused() {
    for threat in ["active", "honest"] {
        let changes: [fn(&mut Neighbours); 4] = [
            |message| message.terms.threshold -= 1,
            |message| message.terms.degree -= 1,
            |message| message.terms.bits += 1,
            |message| message.terms.min_group -= 1,
        ];
        for change in changes {
            let (mut hosts, spec) = (hosts(), job(threat));
            let mut session = begin(&mut hosts, &spec, 0, register(201, 1));
            session.until(&mut hosts, SealingStep::Neighbours);
            let mut message = Neighbours::decode(&session.body(1)).unwrap();
            change(&mut message);
            hosts[0].refuses(session.collection, SealingStep::Neighbours, &message.encode(), "the server changed");
            // Its keys are gone: what was right comes too late.
            let late = hosts[0].hear(session.collection, SealingStep::Neighbours, &session.body(1));
            assert!(late.steps.is_empty(), "{late:?}");
            // It is there for the next attempt.
            begin(&mut hosts, &spec, 1, register(201, 1)).until(&mut hosts, SealingStep::Survivors);
        }
    }
}

#[test]
fn words_of_an_older_attempt_are_refused() {
    let (mut hosts, spec) = (hosts(), job("active"));
    let mut old = begin(&mut hosts, &spec, 0, register(201, 1));
    old.until(&mut hosts, SealingStep::Neighbours);
    let neighbours = old.body(1);
    // The first attempt is given up; devices are asked again.
    let mut new = begin(&mut hosts, &spec, 1, register(201, 1));
    new.until(&mut hosts, SealingStep::Neighbours);
    hosts[0].refuses(new.collection, SealingStep::Neighbours, &neighbours, "of another session");

    let mut hosts = self::hosts();
    let mut old = begin(&mut hosts, &spec, 0, register(201, 1));
    old.until(&mut hosts, SealingStep::Survivors);
    let survivors = old.body(1);
    let mut others = self::hosts();
    let mut new = begin(&mut others, &spec, 1, register(201, 1));
    new.until(&mut others, SealingStep::Survivors);
    others[0].refuses(new.collection, SealingStep::Survivors, &survivors, "of another session");
    let said = others[0].hear(new.collection, SealingStep::Survivors, &new.body(1)).steps;
    assert!(matches!(&said[..], [(SealingStep::Agree, _)]), "{said:?}");
}

#[test]
fn a_roster_that_is_older_or_not_the_operators_is_refused() {
    let spec = job("active");
    // By another key.
    let mut hosts = self::hosts();
    let mut session = begin(&mut hosts, &spec, 0, register(202, 1));
    session.until(&mut hosts, SealingStep::Neighbours);
    hosts[0].refuses(session.collection, SealingStep::Neighbours, &session.body(1), "is not on the roster");

    // Number 2 was believed once; number 1 is not any more, also after a restart.
    let mut hosts = self::hosts();
    begin(&mut hosts, &spec, 0, register(201, 2)).until(&mut hosts, SealingStep::Shared);
    for attempt in 1..=2 {
        if attempt == 2 {
            hosts[0].restart();
        }
        let mut session = begin(&mut hosts, &spec, attempt, register(201, 1));
        session.until(&mut hosts, SealingStep::Neighbours);
        hosts[0].refuses(session.collection, SealingStep::Neighbours, &session.body(1), "is not on the roster");
    }
    // The same number, or a newer one, is good.
    begin(&mut hosts, &spec, 3, register(201, 2)).until(&mut hosts, SealingStep::Survivors);
}

#[test]
fn a_device_that_wants_larger_sums_declines_and_says_so() {
    let mut hosts = hosts();
    let spec = job("active");
    let masked = spec.settings().masked.clone().unwrap();
    assert_eq!(masked.agreement.group_min, 3);
    hosts[0].device = Device::new(DeviceIdentity { group_min: 4, ..identity(1) }, Vec::new());
    hosts[0].connect();
    let collection = Collection { job: JobId(1), version: 0, work: Kind::Train, attempt: 0 };
    let message = Message::Task {
        collection,
        spec: Blob::new(Task { spec, population: 5 }.encode()).unwrap(),
        model: Manifest::of(&[7; 24]).unwrap(),
        before: Chain::default(),
        inline: None,
        counted: 0,
        commitment: Some([1; 32]),
        effort: Effort::Job,
    };
    let came = hosts[0].step(Event::Received { link: LINK, message });
    assert!(came.steps.is_empty() && came.offers == 0, "{came:?}");
    assert!(came.refused.iter().any(|why| why.contains("group_min: 4 or more expected")), "{came:?}");
}

/// Whoever writes jobs decides whether sums are masked, unless a device asks for masks itself.
#[test]
fn a_device_that_wants_masks_takes_part_in_nothing_less() {
    let mut open = job("active").text().clone();
    open.secure_aggregation = None;
    let jobs = [JobSpec::check(open).unwrap(), job("honest"), job("active")];
    for (least, enough) in [(ThreatName::Honest, [false, true, true]), (ThreatName::Active, [false, false, true])] {
        for (spec, enough) in jobs.iter().zip(enough) {
            let mut hosts = hosts();
            hosts[0].device = Device::new(DeviceIdentity { masks: Some(least), ..identity(1) }, Vec::new());
            hosts[0].connect();
            let masked = spec.settings().masked.is_some();
            let message = Message::Task {
                collection: Collection { job: JobId(1), version: 0, work: Kind::Train, attempt: 0 },
                spec: Blob::new(Task { spec: spec.clone(), population: 5 }.encode()).unwrap(),
                model: Manifest::of(&[7; 24]).unwrap(),
                before: Chain::default(),
                inline: None,
                counted: 0,
                commitment: masked.then_some([1; 32]),
                effort: Effort::Job,
            };
            let came = hosts[0].step(Event::Received { link: LINK, message });
            let takes_part = came.offers > 0 || !came.steps.is_empty();
            assert_eq!(takes_part, enough, "{least:?}, {:?}: {came:?}", spec.text().secure_aggregation);
            let told = came.refused.iter().any(|why| why.contains("expected by this device's configuration"));
            assert_eq!(told, !enough, "{came:?}");
        }
    }
}

#[test]
fn a_device_says_again_what_it_said_and_seals_once() {
    let (mut hosts, spec) = (hosts(), job("active"));
    let mut session = begin(&mut hosts, &spec, 0, register(201, 1));
    session.until(&mut hosts, SealingStep::Shared);
    let (collection, body) = (session.collection, session.body(1));
    assert_eq!(hosts[0].hear(collection, SealingStep::Shared, &body).offers, 1);
    // Masks are on: the same shares again change nothing, and so does a tick.
    assert!(hosts[0].hear(collection, SealingStep::Shared, &body).steps.is_empty());
    let before = hosts[0].rows.clone();
    assert!(hosts[0].step(Event::Timer(Timer::Tick)).steps.is_empty());
    assert_eq!(hosts[0].rows, before);
}
