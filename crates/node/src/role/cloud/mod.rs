//! The cloud: enrols machines, takes jobs, runs their rounds, applies sums, announces versions.
//!
//! The decisions of a round are [`littoral_fed::round`]'s; this role connects them to machines ([`fleet`]), to
//! objects and rows ([`jobs`]) and to operators ([`operators`], [`command`]). Everything that matters is a row before anybody is told;
//! [`Cloud::new`] rebuilds the role from those rows.

pub mod command;
mod fleet;
mod jobs;
mod ledger;
mod operators;
mod replica;
mod roster;

pub use replica::FLEET;

use super::links::{Links, TICK_MS};
use super::{Effect, Entropy, Event, LinkId, Millis, Report, Role, Row, RowKey, Table, Timer, Write};
use fleet::Fleet;
use jobs::Jobs;
use littoral_wire::message::Reason;
use littoral_wire::{JobId, Message, NodeId, ObjectId, SecretKey};
use operators::Operators;
use replica::Replica;
use std::collections::{BTreeMap, BTreeSet};

/// How long an edge may be away before what it holds is given up.
pub const EDGE_GRACE_MS: u64 = 4_000;

/// What the cloud is, from its configuration.
#[derive(Clone, Debug)]
pub struct CloudIdentity {
    pub key: SecretKey,
    pub name: String,
    /// `host:port` at which machines reach the cloud.
    pub listen: String,
    /// Grows each time the cloud starts (the fencing token of its lease).
    pub epoch: u32,
    pub entropy: Entropy,
    /// `host:port` of all replicas, where the cloud is several; none: it is this process.
    pub replicas: Vec<String>,
}

pub struct Cloud {
    identity: CloudIdentity,
    id: NodeId,
    links: Links,
    fleet: Fleet,
    operators: Operators,
    jobs: Jobs,
    watchers: command::Watchers,
    /// Nonces of commands that changed something.
    spent: BTreeSet<(NodeId, u64)>,
    replica: Option<Replica>,
}

impl Cloud {
    /// `rows`: all that was stored; of a replica, what is the fleet's, jobs' descriptions and their lines of the ledger.
    pub fn new(identity: CloudIdentity, rows: Vec<Row>) -> Self {
        let (id, alone) = (identity.key.id(), identity.replicas.is_empty());
        let mut jobs = Jobs::new(identity.epoch, identity.entropy.clone());
        jobs.sign_with(identity.key.clone());
        let mut cloud = Self {
            identity,
            id,
            links: Links::default(),
            fleet: Fleet::default(),
            operators: Operators::default(),
            jobs,
            watchers: BTreeMap::new(),
            spent: BTreeSet::new(),
            replica: (!alone).then(Replica::default),
        };
        rows.iter().for_each(|row| cloud.restore_shared(row));
        if alone {
            cloud.jobs.restore(rows);
        } else {
            cloud.jobs.are_shared();
        }
        cloud
    }

    fn restore_spent(&mut self, row: &Row) {
        if row.key.table == Table::Command
            && let (Some((key, rest)), true) = (row.key.item.split_first_chunk::<32>(), row.key.item.len() == 40)
            && let Ok(nonce) = rest.try_into()
        {
            self.spent.insert((NodeId(*key), u64::from_le_bytes(nonce)));
        }
    }

    /// Lets an operator key in; for the first key of a new cloud, which has to come from its own machine.
    pub fn install_operator(&mut self, key: NodeId, name: &str, right: command::Right, effects: &mut Vec<Effect>) {
        // Of a cloud without operators there is none to be the last.
        let _ = self.operators.add(key, name, right, effects);
    }

    pub fn has_operators(&self) -> bool {
        !self.operators.is_empty()
    }

    /// Lets a machine in without a ticket: for simulated fleets, whose keys are made together with the cloud.
    pub fn install_machine(&mut self, key: NodeId, role: littoral_wire::message::Role, name: &str) {
        self.fleet.install(key, role, name);
    }

    /// Submits a job from inside the process.
    pub fn submit(
        &mut self,
        now: Millis,
        toml: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<JobId, crate::job::JobError> {
        self.jobs.submit(now, toml, "local", effects)
    }

    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    fn received(&mut self, now: Millis, link: LinkId, message: Message, effects: &mut Vec<Effect>) {
        let Some(peer) = self.links.peer(link) else { return };
        match message {
            Message::Attach { .. } if self.replica.is_some() => self.send_device_away(link, effects),
            message @ (Message::Join { .. } | Message::Rotate { .. }) if self.is_elsewhere(FLEET) => {
                self.pass_join(link, peer, message, effects);
            }
            Message::Join { secret, role, name } => self.join(now, link, peer, secret, role, &name, effects),
            Message::Rotate { to, signature } => self.rotate(now, link, peer, to, &signature, effects),
            Message::Command { body, nonce, issued_at_ms, signature } => {
                if let Some(job) = self.command_elsewhere(peer, &body) {
                    let message = Message::Command { body, nonce, issued_at_ms, signature };
                    return self.pass(job, link, peer, message, effects);
                }
                self.command(now, link, peer, &body, nonce, issued_at_ms, &signature, effects);
            }
            Message::EdgeAttach { name, listen, open } => {
                if !self.fleet.may(peer, littoral_wire::message::Role::Edge) && peer != self.id {
                    return self.cut(link, peer, effects);
                }
                self.edge_attached(now, link, peer, &name, &listen, open.into_vec(), effects);
            }
            _ if self.fleet.edge_link(peer) == Some(link) => self.hear_edge(now, link, peer, message, effects),
            Message::GetChunk { object, index } => {
                // Operators fetch finished models.
                let lent = self.replica.as_ref().is_some_and(|replica| replica.lends(link, object));
                if self.operators.right(peer).is_some() && (lent || self.jobs.offers(object)) {
                    effects.push(Effect::SendChunk { link, object, index });
                } else {
                    effects.push(Effect::Send { link, message: Message::NoChunk { object, index } });
                }
            }
            Message::GetModel { job } if self.is_known_elsewhere(job) && self.operators.right(peer).is_some() => {
                self.pass(job, link, peer, Message::GetModel { job }, effects);
            }
            Message::GetModel { job } => self.tell_model(link, peer, job, effects),
            Message::Bye { reason } => effects.push(Effect::Hangup { link, reason: reason.to_string() }),
            _ => {}
        }
    }

    fn cut(&self, link: LinkId, node: NodeId, effects: &mut Vec<Effect>) {
        let reason = Reason::new(self.fleet.why_cut(node));
        effects.push(Effect::Send { link, message: Message::Cut { node, reason: reason.clone() } });
        effects.push(Effect::Hangup { link, reason: reason.to_string() });
    }

    fn hear_edge(&mut self, now: Millis, link: LinkId, edge: NodeId, message: Message, effects: &mut Vec<Effect>) {
        match message {
            Message::DeviceAttached { device, name: _, data, held } => {
                self.device_attached(now, link, edge, device, data.into_vec(), held.into_vec(), effects);
            }
            Message::DeviceDetached { device } => {
                let was_there = self.fleet.device_left(device, edge);
                let event = littoral_fed::round::Event::DeviceLeft { device };
                was_there.then(|| self.jobs.each_round(now, event, &self.fleet, effects));
            }
            Message::Progress { incarnation, device, fate, reason, note } => {
                let event = littoral_fed::round::Event::Progress {
                    incarnation,
                    device,
                    fate,
                    reason: reason.to_string(),
                    note,
                };
                self.jobs.round(now, incarnation.collection.job, event, &self.fleet, effects);
            }
            // Of a device that is here through this edge.
            Message::SealingFrom { device, collection, step, body }
                if self.fleet.device(device).is_some_and(|here| here.edge == edge) =>
            {
                let event = littoral_fed::round::Event::Sealing { device, step, body: body.into_vec() };
                self.jobs.of_collection(now, collection, event, &self.fleet, effects);
            }
            Message::Partial { incarnation, devices, sum, inline } => {
                self.jobs.partial(now, link, edge, incarnation, devices.into_vec(), sum, inline, &self.fleet, effects);
            }
            Message::NoPartial { incarnation } => {
                let event = littoral_fed::round::Event::NoPartial { incarnation };
                self.jobs.round(now, incarnation.collection.job, event, &self.fleet, effects);
            }
            Message::GetChunk { object, index } => effects.push(Effect::SendChunk { link, object, index }),
            Message::Chunk { object, index, bytes } => {
                self.jobs.chunk(link, object, index, bytes.into_bytes(), effects)
            }
            Message::Bye { reason } => effects.push(Effect::Hangup { link, reason: reason.to_string() }),
            _ => {}
        }
    }
}

impl Role for Cloud {
    fn step(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Start => {
                effects.push(Effect::SetTimer { timer: Timer::Tick, at: now + TICK_MS });
                self.jobs.start(effects);
            }
            Event::Connected { link, peer, kernels, .. } => self.links.connected(now, link, peer, kernels),
            Event::DialFailed { .. } => {}
            Event::Disconnected { link, .. } => {
                if let Some(peer) = self.links.disconnected(link) {
                    self.passed_link_lost(link, peer, effects);
                    self.fleet.edge_disconnected(peer, link, now);
                    self.jobs.link_lost(link);
                    self.drop_watcher(link);
                }
            }
            Event::Received { link, message } => {
                if let Some(message) = self.links.received(now, link, message, effects) {
                    self.received(now, link, message, effects);
                }
            }
            Event::Timer(Timer::Tick) => {
                effects.push(Effect::SetTimer { timer: Timer::Tick, at: now + TICK_MS / 4 });
                self.links.tick(now, effects);
                self.replica.iter_mut().for_each(Replica::tick);
                self.lost_edges(now, effects);
                self.jobs.tick(now, &self.fleet, effects);
                self.tell_standings(effects);
            }
            Event::Timer(Timer::Job(job)) => {
                self.jobs.round(now, job, littoral_fed::round::Event::Tick, &self.fleet, effects);
            }
            Event::Timer(Timer::Redial) => {}
            Event::Begun { object, missing } => self.jobs.begun(now, object, missing, &self.fleet, effects),
            Event::Kept { object, index, fault } => {
                if let Some(why) = &fault {
                    effects.push(Effect::Report(Report::Warning { what: format!("chunk {index}: {why}") }));
                }
                self.jobs.kept(now, object, index, fault.is_none(), &self.fleet, effects);
            }
            Event::Loaded { object, bytes, .. } => self.jobs.loaded(object, bytes, &self.fleet, effects),
            Event::Worked { id, result } => self.jobs.worked(now, id, result, &self.fleet, effects),
            Event::Conditions(_) => {}
            Event::Leased { job, token, rows } => self.leased(now, job, token, rows, effects),
            Event::Shared { rows } => self.shared(now, rows, effects),
            Event::Answered { link, message } => self.answered(link, message, effects),
        }
        if !self.watchers.is_empty() {
            self.tell_watchers(effects);
        }
    }

    fn needs(&self, object: ObjectId) -> bool {
        self.jobs.needs(object)
    }
}

/// A fleet-wide row.
fn fleet_row(table: Table, item: &[u8]) -> RowKey {
    RowKey { table, job: JobId(0), version: 0, item: item.to_vec() }
}

fn put(key: RowKey, value: Vec<u8>) -> Effect {
    Effect::Store(vec![Write::Put { key, value }])
}
