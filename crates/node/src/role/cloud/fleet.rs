//! Machines: which are enrolled, which are here, and where.

use super::{Cloud, CloudIdentity, EDGE_GRACE_MS, Effect, LinkId, Millis, Report, Row, Table, Write, fleet_row, put};
use littoral_fed::round;
use littoral_wire::codec::Wire;
use littoral_wire::message::{
    DataOffer, Incarnation, Name, OpenState, ROTATE_DOMAIN, Reason, Role, SocketName, UPSTREAMS_MAX, Upstream,
};
use littoral_wire::{Collection, List, Message, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An enrolled machine, as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub role: String,
    pub name: String,
    pub revoked: bool,
    pub since_ms: Millis,
    /// Keys that this machine had before, by rotation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<String>,
}

impl Machine {
    fn new(role: Role, name: &str, since_ms: Millis) -> Self {
        Self { role: role_name(role).into(), name: name.into(), revoked: false, since_ms, replaced: Vec::new() }
    }
}

/// A ticket that can still be used, as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Unspent {
    role: String,
    uses: u32,
    expires_ms: Millis,
}

#[derive(Debug)]
pub(super) struct EdgeHere {
    pub link: Option<LinkId>,
    pub listen: String,
    /// When the link was lost.
    away_since: Option<Millis>,
    /// What it said it holds, for jobs that were not running yet.
    pub holds: Vec<(Incarnation, Vec<NodeId>)>,
}

#[derive(Clone, Debug)]
pub struct DeviceHere {
    pub edge: NodeId,
    pub data: Vec<DataOffer>,
}

#[derive(Debug, Default)]
pub struct Fleet {
    machines: BTreeMap<NodeId, Machine>,
    /// The key that a machine has now, by those it had before.
    current: BTreeMap<NodeId, NodeId>,
    tickets: BTreeMap<Vec<u8>, Unspent>,
    pub(super) edges: BTreeMap<NodeId, EdgeHere>,
    pub(super) devices: BTreeMap<NodeId, DeviceHere>,
}

pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Cloud => "cloud",
        Role::Edge => "edge",
        Role::Device => "device",
        Role::Operator => "operator",
    }
}

fn ticket_item(secret: &[u8; 16]) -> Vec<u8> {
    // The secret itself is not kept: who reads the database cannot enrol.
    blake3::hash(secret).as_bytes()[..16].to_vec()
}

impl Fleet {
    pub(super) fn restore(&mut self, row: &Row) {
        let id = || NodeId::from_bytes(&row.key.item).ok();
        match row.key.table {
            Table::Node => {
                if let (Some(id), Ok(machine)) = (id(), serde_json::from_slice(&row.value)) {
                    self.insert(id, machine);
                }
            }
            Table::Ticket => {
                if let Ok(ticket) = serde_json::from_slice(&row.value) {
                    self.tickets.insert(row.key.item.clone(), ticket);
                }
            }
            _ => {}
        }
    }

    /// What rows tell; who is here stays.
    pub(super) fn forget_rows(&mut self) {
        self.machines.clear();
        self.current.clear();
        self.tickets.clear();
    }

    /// As if all edges had just gone. Returns their links, and the devices that were here.
    pub(super) fn forget_presence(&mut self, now: Millis) -> (Vec<LinkId>, Vec<NodeId>) {
        let mut links = Vec::new();
        for here in self.edges.values_mut() {
            here.holds.clear();
            if let Some(link) = here.link.take() {
                here.away_since = Some(now);
                links.push(link);
            }
        }
        (links, std::mem::take(&mut self.devices).into_keys().collect())
    }

    fn insert(&mut self, key: NodeId, machine: Machine) {
        let before = machine.replaced.iter().filter_map(|old| old.parse().ok());
        self.current.extend(before.map(|old: NodeId| (old, key)));
        self.machines.insert(key, machine);
    }

    pub fn machines(&self) -> impl Iterator<Item = (&NodeId, &Machine)> {
        self.machines.iter()
    }

    pub fn device(&self, device: NodeId) -> Option<&DeviceHere> {
        self.devices.get(&device)
    }

    pub fn is_here(&self, node: NodeId) -> bool {
        self.devices.contains_key(&node) || self.edges.get(&node).is_some_and(|e| e.link.is_some())
    }

    pub fn name(&self, node: NodeId) -> String {
        self.machines.get(&node).map_or_else(|| node.short(), |m| m.name.clone())
    }

    /// Keys that this machine had before.
    pub(super) fn replaced_by(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.machines.get(&node).into_iter().flat_map(|m| &m.replaced).filter_map(|key| key.parse().ok())
    }

    pub(super) fn install(&mut self, key: NodeId, role: Role, name: &str) {
        self.insert(key, Machine::new(role, name, 0));
    }

    pub(super) fn may(&self, node: NodeId, role: Role) -> bool {
        self.machines.get(&node).is_some_and(|m| !m.revoked && m.role == role_name(role))
    }

    pub(super) fn revoked(&self, node: NodeId) -> bool {
        self.machines.get(&node).is_some_and(|m| m.revoked)
    }

    /// The key under which a machine is known now: this one, unless it was replaced.
    pub(super) fn current(&self, key: NodeId) -> NodeId {
        self.current.get(&key).copied().unwrap_or(key)
    }

    /// Why a key is not let in.
    pub(super) fn why_cut(&self, key: NodeId) -> &'static str {
        match self.revoked(key) {
            true if self.current(key) != key => "this key was replaced by another",
            true => "this key was revoked",
            false => "this key is not enrolled; get a ticket and run `littoral join TICKET`",
        }
    }

    pub(super) fn add_ticket(
        &mut self,
        secret: &[u8; 16],
        role: Role,
        uses: u32,
        expires_ms: Millis,
        effects: &mut Vec<Effect>,
    ) {
        let ticket = Unspent { role: role_name(role).into(), uses, expires_ms };
        let item = ticket_item(secret);
        effects.push(put(fleet_row(Table::Ticket, &item), serde_json::to_vec(&ticket).unwrap_or_default()));
        self.tickets.insert(item, ticket);
    }

    pub(super) fn edge_link(&self, edge: NodeId) -> Option<LinkId> {
        self.edges.get(&edge)?.link
    }

    pub(super) fn edge_links(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.edges.values().filter_map(|e| e.link)
    }

    pub(super) fn edge_disconnected(&mut self, edge: NodeId, link: LinkId, now: Millis) {
        if let Some(here) = self.edges.get_mut(&edge)
            && here.link == Some(link)
        {
            here.link = None;
            here.away_since = Some(now);
        }
    }

    /// Returns whether the device was there.
    pub(super) fn device_left(&mut self, device: NodeId, edge: NodeId) -> bool {
        let there = self.devices.get(&device).is_some_and(|d| d.edge == edge);
        if there {
            self.devices.remove(&device);
        }
        there
    }

    /// Where devices may dial: the edges that are here, then the cloud.
    fn upstreams(&self, cloud: NodeId, identity: &CloudIdentity) -> List<Upstream, UPSTREAMS_MAX> {
        let edges = self.edges.iter().filter(|(id, e)| e.link.is_some() && **id != cloud && !e.listen.is_empty());
        let mut all: Vec<Upstream> = edges
            .take(UPSTREAMS_MAX - identity.replicas.len().clamp(1, UPSTREAMS_MAX))
            .map(|(id, e)| Upstream { id: *id, address: SocketName::new(e.listen.as_str()) })
            .collect();
        let alone = std::slice::from_ref(&identity.listen);
        let addresses = if identity.replicas.is_empty() { alone } else { &identity.replicas };
        all.extend(addresses.iter().map(|at| Upstream { id: cloud, address: SocketName::new(at.as_str()) }));
        List::new(all).unwrap_or_default()
    }
}

impl Cloud {
    #[allow(clippy::too_many_arguments)] // The fields of one message.
    pub(super) fn join(
        &mut self,
        now: Millis,
        link: LinkId,
        peer: NodeId,
        secret: [u8; 16],
        role: Role,
        name: &Name,
        effects: &mut Vec<Effect>,
    ) {
        let item = ticket_item(&secret);
        let deny = |expected: &str, got: &str| Message::Denied {
            what: "join refused".into(),
            place: "ticket".into(),
            expected: expected.into(),
            got: got.into(),
        };
        // Whoever is in already asks again because the answer was lost.
        let enrolled = self.fleet.may(peer, role);
        let usable = match self.fleet.tickets.get(&item) {
            _ if enrolled => Ok(()),
            None => Err(deny("a ticket that was issued here and is not used up", "an unknown or spent one")),
            Some(t) if t.expires_ms < now => Err(deny("a ticket that has not expired", "an expired one")),
            Some(t) if t.role != role_name(role) => {
                Err(deny(&format!("role {}", t.role), &format!("role {}", role_name(role))))
            }
            Some(_) if self.fleet.revoked(peer) => Err(deny("a key that was not revoked", "a revoked key")),
            Some(_) => Ok(()),
        };
        if let Err(message) = usable {
            return effects.push(Effect::Send { link, message });
        }
        if enrolled {
            let (name, upstreams) = (self.fleet.name(peer), self.fleet.upstreams(self.id, &self.identity));
            return effects.push(Effect::Send { link, message: Message::Joined { name: Name::new(name), upstreams } });
        }
        // Names are how people and cohorts tell machines apart: no two alike.
        let taken = |name: &str| self.fleet.machines.iter().any(|(id, m)| m.name == name && *id != peer);
        let wanted = if name.is_empty() { format!("{}-{}", role_name(role), peer.short()) } else { name.to_string() };
        let name = if taken(&wanted) { format!("{wanted}-{}", peer.short()) } else { wanted };
        let machine = Machine::new(role, &name, now);
        let mut writes = vec![Write::Put {
            key: fleet_row(Table::Node, &peer.0),
            value: serde_json::to_vec(&machine).unwrap_or_default(),
        }];
        self.fleet.insert(peer, machine);
        if let Some(ticket) = self.fleet.tickets.get_mut(&item) {
            ticket.uses -= 1;
            let key = fleet_row(Table::Ticket, &item);
            if ticket.uses == 0 {
                self.fleet.tickets.remove(&item);
                writes.push(Write::Delete { key });
            } else {
                writes.push(Write::Put { key, value: serde_json::to_vec(ticket).unwrap_or_default() });
            }
        }
        effects.push(Effect::Store(writes));
        let upstreams = self.fleet.upstreams(self.id, &self.identity);
        effects.push(Effect::Send { link, message: Message::Joined { name: Name::new(name), upstreams } });
    }

    /// A machine's key is replaced: the new one has its name and what it is owed, the old one is cut off.
    pub(super) fn rotate(
        &mut self,
        now: Millis,
        link: LinkId,
        peer: NodeId,
        to: NodeId,
        signature: &[u8; 64],
        effects: &mut Vec<Effect>,
    ) {
        // The new key signs the old one's id: whoever holds both asks for the change.
        let denied = |expected: &str, got: &str| Message::Denied {
            what: "rotation refused".into(),
            place: "key".into(),
            expected: expected.into(),
            got: got.into(),
        };
        let Some(machine) = self.fleet.machines.get(&peer).filter(|m| !m.revoked).cloned() else {
            return effects
                .push(Effect::Send { link, message: denied("an enrolled key", "an unknown or revoked key") });
        };
        if to.verify(ROTATE_DOMAIN, &peer.0, signature).is_err() {
            let message = denied("the new key's signature over the old key", "another signature");
            return effects.push(Effect::Send { link, message });
        }
        // Asked again after an interruption: it is done.
        if to == peer {
            return effects.push(Effect::Send { link, message: Message::Rotated { to } });
        }
        if self.fleet.machines.contains_key(&to) {
            let message = denied("a new key", "one that is or was enrolled");
            return effects.push(Effect::Send { link, message });
        }
        let (mut old, mut machine) = (machine.clone(), machine);
        machine.replaced.push(peer.to_string());
        old.replaced.clear();
        old.revoked = true;
        old.name = format!("{} (replaced)", machine.name);
        let row = |id: NodeId, m: &Machine| Write::Put {
            key: fleet_row(Table::Node, &id.0),
            value: serde_json::to_vec(m).unwrap_or_default(),
        };
        effects.push(Effect::Store(vec![row(peer, &old), row(to, &machine)]));
        self.fleet.insert(peer, old);
        self.fleet.insert(to, machine);
        self.expel(now, peer, effects);
        self.jobs.rotated(peer, to);
        effects.push(Effect::Send { link, message: Message::Rotated { to } });
    }

    /// Cuts a key off for good.
    pub(super) fn revoke(&mut self, now: Millis, node: NodeId, effects: &mut Vec<Effect>) -> bool {
        let Some(machine) = self.fleet.machines.get_mut(&node) else { return false };
        machine.revoked = true;
        let value = serde_json::to_vec(machine).unwrap_or_default();
        effects.push(put(fleet_row(Table::Node, &node.0), value));
        self.expel(now, node, effects);
        true
    }

    /// Rounds go on without this key, and wherever it is connected it is hung up.
    pub(super) fn expel(&mut self, now: Millis, node: NodeId, effects: &mut Vec<Effect>) {
        self.fleet.devices.remove(&node);
        // Before its link is cut: what an edge has not absorbed by now it refuses, over whatever link it comes.
        let why = self.fleet.why_cut(node).to_string();
        self.jobs.each_round(now, round::Event::Expelled { device: node, why: why.clone() }, &self.fleet, effects);
        let reason = Reason::new(why);
        for link in self.fleet.edge_links() {
            effects.push(Effect::Send { link, message: Message::Cut { node, reason: reason.clone() } });
        }
        if let Some(edge) = self.fleet.edges.remove(&node) {
            if let Some(link) = edge.link {
                effects.push(Effect::Hangup { link, reason: reason.to_string() });
            }
            self.edge_is_lost(now, node, effects);
        }
    }

    #[allow(clippy::too_many_arguments)] // The fields of one message.
    pub(super) fn edge_attached(
        &mut self,
        now: Millis,
        link: LinkId,
        edge: NodeId,
        name: &Name,
        listen: &str,
        open: Vec<OpenState>,
        effects: &mut Vec<Effect>,
    ) {
        let holds: Vec<(Incarnation, Vec<NodeId>)> =
            open.into_iter().map(|state| (state.incarnation, state.absorbed.into_vec())).collect();
        let here = EdgeHere { link: Some(link), listen: listen.into(), away_since: None, holds: holds.clone() };
        let before = self.fleet.edges.insert(edge, here);
        if let Some(old) = before.and_then(|e| e.link)
            && old != link
        {
            effects.push(Effect::Hangup { link: old, reason: "the same machine has connected again".into() });
        }
        let upstreams = self.fleet.upstreams(self.id, &self.identity);
        // All edges tell their devices where else they may go.
        for (id, here) in &self.fleet.edges {
            let Some(link) = here.link else { continue };
            let name = if *id == edge { name.clone() } else { Name::new(self.fleet.name(*id)) };
            effects.push(Effect::Send { link, message: Message::EdgeAttached { name, upstreams: upstreams.clone() } });
        }
        self.jobs.edge_attached(now, edge, holds, &self.fleet, effects);
    }

    pub(super) fn lost_edges(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let gone = |e: &EdgeHere| e.away_since.is_some_and(|since| now >= since + EDGE_GRACE_MS);
        let lost: Vec<NodeId> = self.fleet.edges.iter().filter(|(_, e)| gone(e)).map(|(id, _)| *id).collect();
        for edge in lost {
            self.fleet.edges.remove(&edge);
            let name = self.fleet.name(edge);
            effects.push(Effect::Report(Report::Warning {
                what: format!("edge {name} is away: its partials are fenced"),
            }));
            self.edge_is_lost(now, edge, effects);
        }
    }

    fn edge_is_lost(&mut self, now: Millis, edge: NodeId, effects: &mut Vec<Effect>) {
        let gone: Vec<NodeId> =
            self.fleet.devices.iter().filter(|(_, d)| d.edge == edge).map(|(device, _)| *device).collect();
        for device in gone {
            self.fleet.devices.remove(&device);
            self.jobs.each_round(now, round::Event::DeviceLeft { device }, &self.fleet, effects);
        }
        self.jobs.each_round(now, round::Event::EdgeLost { edge }, &self.fleet, effects);
    }

    #[allow(clippy::too_many_arguments)] // The fields of one message.
    pub(super) fn device_attached(
        &mut self,
        now: Millis,
        link: LinkId,
        edge: NodeId,
        device: NodeId,
        data: Vec<DataOffer>,
        held: Vec<Collection>,
        effects: &mut Vec<Effect>,
    ) {
        if !self.fleet.may(device, Role::Device) {
            let reason = Reason::new(self.fleet.why_cut(device));
            return effects.push(Effect::Send { link, message: Message::Cut { node: device, reason } });
        }
        self.fleet.devices.insert(device, DeviceHere { edge, data: data.clone() });
        effects.push(Effect::Send { link, message: Message::Admit { device } });
        for collection in held {
            if let Some(verdict) = self.jobs.verdict(collection, device) {
                effects.push(Effect::Send { link, message: Message::Tell { device, verdict } });
            }
        }
        self.jobs.device_attached(now, device, &self.fleet, effects);
    }
}
