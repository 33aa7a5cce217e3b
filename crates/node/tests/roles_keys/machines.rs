//! The cloud and edges as roles, joined by links without delay; devices and operators are played by the test.

use littoral_node::job::{JobSpec, Totals};
use littoral_node::role::cloud::{Cloud, CloudIdentity, command::Right};
use littoral_node::role::edge::{Edge, EdgeIdentity};
use littoral_node::role::{Effect, Entropy, Event, LinkId, Peer, Role, Row, RowKey, Table, Timer, Write};
use littoral_node::work::{Output, Work, WorkFault};
use littoral_wire::message::{COMMAND_DOMAIN, DataOffer, Name, ROTATE_DOMAIN, command_bytes};
use littoral_wire::object::{Chain, Manifest};
use littoral_wire::{Blob, Collection, JobId, List, Message, NodeId, ObjectId, SecretKey};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

pub const JOB: &str = r#"
    name = "keys"
    model = { kind = "softmax" }
    data = { set = "blobs", standardise = false, schema = { label = { name = "class", classes = ["a", "b"] }, fields = [{ name = "x" }] } }
    algorithm = { name = "scaffold" }
    local = { optimiser = { name = "sgd", learning_rate = 0.1 } }
    cohort = { target = 2, min = 1 }
    rounds = { count = 5, deadline_ms = 20000, close_ms = 10000, wait_ms = 1000 }
    precision = { weighting = "uniform" }
"#;

pub fn key(name: &str) -> SecretKey {
    SecretKey::from_bytes(*blake3::hash(name.as_bytes()).as_bytes())
}

pub fn id(name: &str) -> NodeId {
    key(name).id()
}

/// Machines by the names of their keys.
pub struct Machines {
    pub now: u64,
    roles: BTreeMap<NodeId, Box<dyn Role>>,
    rows: BTreeMap<RowKey, Vec<u8>>,
    objects: BTreeMap<ObjectId, Vec<u8>>,
    /// Both ends of each link that is up.
    links: BTreeMap<LinkId, [NodeId; 2]>,
    next_link: u64,
    events: VecDeque<(NodeId, Event)>,
    /// What those who are played by the test have heard.
    heard: BTreeMap<NodeId, Vec<Message>>,
    /// How the cloud's work ends from now on, if not well.
    pub fault: Option<WorkFault>,
}

impl Machines {
    /// A cloud with these edges, devices and one operator enrolled, and one job.
    pub fn new(edges: &[&str], devices: &[&str]) -> Self {
        let mut machines = Self {
            now: 1,
            roles: BTreeMap::new(),
            rows: BTreeMap::new(),
            objects: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 0,
            events: VecDeque::new(),
            heard: BTreeMap::new(),
            fault: None,
        };
        for (names, role) in [(edges, "edge"), (devices, "device")] {
            for name in names {
                let machine = serde_json::json!({"role": role, "name": name, "revoked": false, "since_ms": 0});
                let key = RowKey { table: Table::Node, job: JobId(0), version: 0, item: id(name).0.to_vec() };
                machines.rows.insert(key, machine.to_string().into_bytes());
            }
        }
        let mut cloud = machines.cloud(1);
        let mut first = Vec::new();
        cloud.install_operator(id("operator"), "operator", Right::Administer, &mut first);
        cloud.submit(0, JOB, &mut first).expect("a good job");
        machines.roles.insert(id("cloud"), Box::new(cloud));
        first.into_iter().for_each(|effect| machines.perform(id("cloud"), effect));
        machines.run();
        for name in edges {
            let cloud = Peer { id: id("cloud"), address: String::new() };
            let identity = EdgeIdentity {
                id: id(name),
                name: (*name).into(),
                cloud,
                replicas: vec![],
                listen: format!("{name}:1"),
            };
            machines.roles.insert(id(name), Box::new(Edge::new(identity)));
            machines.event(id(name), Event::Start);
        }
        machines
    }

    fn cloud(&self, epoch: u32) -> Cloud {
        let identity = CloudIdentity {
            key: key("cloud"),
            name: "cloud".into(),
            listen: "cloud:1".into(),
            epoch,
            replicas: Vec::new(),
            entropy: Entropy::new([epoch as u8; 32]),
        };
        let rows = self.rows.iter().map(|(key, value)| Row { key: key.clone(), value: value.clone() });
        Cloud::new(identity, rows.collect())
    }

    /// The cloud dies and is back, with what it had made durable; edges dial it again.
    pub fn restart_cloud(&mut self) {
        let up: Vec<LinkId> = self.links_of(id("cloud"));
        up.into_iter().for_each(|link| self.hang_up(link));
        self.roles.insert(id("cloud"), Box::new(self.cloud(2)));
        self.event(id("cloud"), Event::Start);
        let edges: Vec<NodeId> = self.roles.keys().copied().filter(|role| *role != id("cloud")).collect();
        edges.into_iter().for_each(|edge| self.event(edge, Event::Timer(Timer::Redial)));
    }

    /// Time passes; everybody's timer runs out.
    pub fn wait(&mut self, ms: u64) {
        self.now += ms;
        let roles: Vec<NodeId> = self.roles.keys().copied().collect();
        roles.into_iter().for_each(|role| self.event(role, Event::Timer(Timer::Tick)));
    }

    // ---- those who are played ----

    pub fn dial(&mut self, from: NodeId, to: NodeId) -> LinkId {
        self.next_link += 1;
        let link = LinkId(self.next_link);
        self.links.insert(link, [from, to]);
        for (end, peer, dialled) in [(from, to, true), (to, from, false)] {
            self.event(end, Event::Connected { link, peer, dialled, kernels: Default::default() });
        }
        link
    }

    pub fn attach(&mut self, device: &str, edge: &str, held: &[Collection]) -> LinkId {
        let link = self.dial(id(device), id(edge));
        let data = List::new(vec![DataOffer { name: Name::from("blobs"), rows: 8 }]).expect("one");
        let held = List::new(held.to_vec()).expect("few");
        self.say(device, link, Message::Attach { name: Name::from(device), data, held });
        link
    }

    /// An update of zeros.
    pub fn offer(&mut self, device: &str, link: LinkId, collection: Collection) {
        let bytes = vec![0; JobSpec::parse(JOB).expect("a good job").plan(collection.work).format().bytes()];
        let update = Manifest::of(&bytes).expect("small");
        self.say(device, link, Message::Offer { collection, update, inline: Blob::new(bytes).ok(), note: None });
    }

    pub fn rotate(&mut self, from: &str, to: &str) {
        let link = self.dial(id(from), id("cloud"));
        let signature = key(to).sign(ROTATE_DOMAIN, &id(from).0);
        self.say(from, link, Message::Rotate { to: id(to), signature });
        assert!(self.heard(from).contains(&Message::Rotated { to: id(to) }), "{:?}", self.heard(from));
    }

    pub fn revoke(&mut self, name: &str) {
        self.order(&serde_json::json!({"command": "fleet_revoke", "node": name}));
    }

    /// A command of the operator, and the cloud's answer.
    pub fn order(&mut self, command: &Value) -> Value {
        let link = self.dial(id("operator"), id("cloud"));
        let body = command.to_string().into_bytes();
        let (nonce, issued_at_ms) = (self.now, self.now);
        let signed = command_bytes(id("cloud"), &body, nonce, issued_at_ms);
        let signature = key("operator").sign(COMMAND_DOMAIN, &signed);
        let body = Blob::new(body).expect("short");
        self.say("operator", link, Message::Command { body, nonce, issued_at_ms, signature });
        match self.heard("operator").last() {
            Some(Message::Reply { body, .. }) => serde_json::from_slice(body).expect("JSON"),
            other => panic!("no reply: {other:?}"),
        }
    }

    pub fn say(&mut self, from: &str, link: LinkId, message: Message) {
        if let Some(to) = self.other_end(link, id(from)) {
            self.event(to, Event::Received { link, message });
        }
    }

    pub fn heard(&self, name: &str) -> &[Message] {
        self.heard.get(&id(name)).map_or(&[], Vec::as_slice)
    }

    /// The last collection that the device was asked for.
    pub fn task(&self, device: &str) -> Option<Collection> {
        self.heard(device).iter().rev().find_map(|message| match message {
            Message::Task { collection, .. } => Some(*collection),
            _ => None,
        })
    }

    pub fn up(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    pub fn leave(&mut self, link: LinkId) {
        self.hang_up(link);
        self.run();
    }

    // ---- the host ----

    fn links_of(&self, node: NodeId) -> Vec<LinkId> {
        self.links.iter().filter(|(_, ends)| ends.contains(&node)).map(|(link, _)| *link).collect()
    }

    fn other_end(&self, link: LinkId, node: NodeId) -> Option<NodeId> {
        self.links.get(&link).map(|[a, b]| if *a == node { *b } else { *a })
    }

    fn hang_up(&mut self, link: LinkId) {
        for end in self.links.remove(&link).into_iter().flatten() {
            self.events.push_back((end, Event::Disconnected { link, reason: String::new() }));
        }
    }

    fn event(&mut self, node: NodeId, event: Event) {
        self.events.push_back((node, event));
        self.run();
    }

    fn run(&mut self) {
        while let Some((node, event)) = self.events.pop_front() {
            let mut effects = Vec::new();
            match self.roles.get_mut(&node) {
                Some(role) => role.step(self.now, event, &mut effects),
                None => {
                    if let Event::Received { message, .. } = event {
                        self.heard.entry(node).or_default().push(message);
                    }
                }
            }
            effects.into_iter().for_each(|effect| self.perform(node, effect));
        }
    }

    fn perform(&mut self, node: NodeId, effect: Effect) {
        match effect {
            Effect::Dial(peer) => {
                self.next_link += 1;
                let link = LinkId(self.next_link);
                self.links.insert(link, [node, peer.id]);
                self.events.push_back((
                    node,
                    Event::Connected { link, peer: peer.id, dialled: true, kernels: Default::default() },
                ));
                self.events.push_back((
                    peer.id,
                    Event::Connected { link, peer: node, dialled: false, kernels: Default::default() },
                ));
            }
            Effect::Hangup { link, .. } => self.hang_up(link),
            Effect::Send { link, message } => {
                if let Some(to) = self.other_end(link, node) {
                    self.events.push_back((to, Event::Received { link, message }));
                }
            }
            Effect::Store(writes) => writes.into_iter().for_each(|write| match write {
                Write::Put { key, value } => drop(self.rows.insert(key, value)),
                Write::Delete { key } => drop(self.rows.remove(&key)),
                Write::Object(_) => {}
            }),
            Effect::Put { manifest, bytes } => drop(self.objects.insert(manifest.id(), bytes)),
            Effect::Load { object, index } => {
                let bytes = self.objects.get(&object).cloned().map(Into::into);
                self.events.push_back((node, Event::Loaded { object, index, bytes }));
            }
            Effect::Work { id, work } => {
                let result = match self.fault.clone() {
                    Some(fault) => Err(fault),
                    None => Ok(self.work(&work)),
                };
                self.events.push_back((node, Event::Worked { id, result }));
            }
            _ => {}
        }
    }

    /// No model is trained here: each version is a few bytes that no other has.
    fn work(&mut self, work: &Work) -> Output {
        let made = match work {
            Work::Apply { collection, .. } => format!("{collection:?}"),
            _ => "version 0".into(),
        };
        let model = Manifest::of(made.as_bytes()).expect("small");
        self.objects.insert(model.id(), made.into_bytes());
        match work {
            Work::Apply { .. } => Output::Applied {
                model,
                before: Chain::default(),
                state: None,
                given: Default::default(),
                totals: Totals::default(),
            },
            _ => Output::Initial { model, state: None },
        }
    }
}
