//! The cloud with an edge of its own inside, so that devices can come straight to it.
//!
//! The inner edge has the cloud's key and an inner link; everything else it does as any edge. A connection belongs to
//! the inner edge if its first message is a device's, to the cloud otherwise.

use super::cloud::Cloud;
use super::edge::{Edge, EdgeIdentity, FIRST_WORK};
use super::{Effect, Event, Kernels, LinkId, Millis, Peer, Role, Timer};
use littoral_fed::check_in::CheckIn;
use littoral_tensor::quant::KERNELS;
use littoral_wire::{Message, NodeId, ObjectId};
use std::collections::{BTreeMap, VecDeque};

/// The link between the two: a number that no host comes to.
const INNER: LinkId = LinkId(u64::MAX);

pub struct WholeCloud {
    id: NodeId,
    cloud: Cloud,
    edge: Edge,
    /// Links whose first message has not come, and whose they are after that.
    owners: BTreeMap<LinkId, Owner>,
}

#[derive(Clone, PartialEq)]
enum Owner {
    Unknown { peer: NodeId, dialled: bool, kernels: Kernels },
    Cloud,
    Edge,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Cloud,
    Edge,
}

impl WholeCloud {
    /// `listen`: `host:port` at which machines reach the cloud.
    pub fn new(id: NodeId, listen: &str, cloud: Cloud) -> Self {
        let peer = Peer { id, address: listen.into() };
        let (name, replicas) = ("cloud".into(), Vec::new());
        let identity = EdgeIdentity { id, name, cloud: peer, replicas, listen: listen.into() };
        Self { id, cloud, edge: Edge::new(identity), owners: BTreeMap::new() }
    }

    /// With this rule for when devices come that have no edge.
    pub fn checking_in(self, rule: CheckIn) -> Self {
        Self { edge: self.edge.checking_in(rule), ..self }
    }

    pub fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    pub fn cloud_mut(&mut self) -> &mut Cloud {
        &mut self.cloud
    }

    /// Steps one part and passes on what it says to the other, until both are silent. Effects come out in the order
    /// in which they were decided, so that a barrier of one part also holds back what the other does because of it.
    fn run(&mut self, now: Millis, part: Part, event: Event, effects: &mut Vec<Effect>) {
        let mut queue = VecDeque::from([(part, event)]);
        while let Some((part, event)) = queue.pop_front() {
            let mut decided = Vec::new();
            match part {
                Part::Cloud => self.cloud.step(now, event, &mut decided),
                Part::Edge => self.edge.step(now, event, &mut decided),
            }
            let other = if part == Part::Cloud { Part::Edge } else { Part::Cloud };
            for effect in decided {
                match effect {
                    Effect::Send { link: INNER, message } => {
                        queue.push_back((other, Event::Received { link: INNER, message }));
                    }
                    // The inner link is up as long as the process is.
                    Effect::Hangup { link: INNER, .. } => {}
                    Effect::Dial(_) if part == Part::Edge => {}
                    Effect::SendChunk { link: INNER, object, index } => {
                        // Everything that the cloud could send is in the folder already.
                        let message = Message::NoChunk { object, index };
                        queue.push_back((other, Event::Received { link: INNER, message }));
                    }
                    // One timer for both.
                    Effect::SetTimer { timer: Timer::Tick, .. } if part == Part::Edge => {}
                    other => effects.push(other),
                }
            }
        }
    }

    fn part(&mut self, now: Millis, link: LinkId, message: &Message, effects: &mut Vec<Effect>) -> Option<Part> {
        match self.owners.get(&link)? {
            Owner::Cloud => Some(Part::Cloud),
            Owner::Edge => Some(Part::Edge),
            Owner::Unknown { peer, dialled, kernels } => {
                let (peer, dialled, kernels) = (*peer, *dialled, kernels.clone());
                let (owner, part) = match message {
                    Message::Ping { .. } | Message::Pong { .. } => return Some(Part::Cloud),
                    Message::Attach { .. } => (Owner::Edge, Part::Edge),
                    _ => (Owner::Cloud, Part::Cloud),
                };
                self.owners.insert(link, owner);
                self.run(now, part, Event::Connected { link, peer, dialled, kernels }, effects);
                Some(part)
            }
        }
    }
}

impl Role for WholeCloud {
    fn step(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Start => {
                self.run(now, Part::Cloud, Event::Start, effects);
                for (part, dialled) in [(Part::Cloud, false), (Part::Edge, true)] {
                    let kernels = Kernels::new(KERNELS);
                    self.run(now, part, Event::Connected { link: INNER, peer: self.id, dialled, kernels }, effects);
                }
            }
            Event::Connected { link, peer, dialled, kernels } => {
                self.owners.insert(link, Owner::Unknown { peer, dialled, kernels });
            }
            Event::Disconnected { link, reason } => match self.owners.remove(&link) {
                Some(Owner::Cloud) => self.run(now, Part::Cloud, Event::Disconnected { link, reason }, effects),
                Some(Owner::Edge) => self.run(now, Part::Edge, Event::Disconnected { link, reason }, effects),
                Some(Owner::Unknown { .. }) | None => {}
            },
            Event::Received { link, message } => {
                if let Some(part) = self.part(now, link, &message, effects) {
                    self.run(now, part, Event::Received { link, message }, effects);
                }
            }
            Event::Timer(Timer::Tick) => {
                self.run(now, Part::Cloud, Event::Timer(Timer::Tick), effects);
                self.run(now, Part::Edge, Event::Timer(Timer::Tick), effects);
            }
            Event::Timer(timer) => self.run(now, Part::Cloud, Event::Timer(timer), effects),
            Event::DialFailed { .. } => {}
            // Answers about objects: each part knows what it asked for.
            Event::Begun { object, missing } => {
                self.run(now, Part::Cloud, Event::Begun { object, missing: missing.clone() }, effects);
                self.run(now, Part::Edge, Event::Begun { object, missing }, effects);
            }
            Event::Kept { object, index, fault } => {
                self.run(now, Part::Cloud, Event::Kept { object, index, fault: fault.clone() }, effects);
                self.run(now, Part::Edge, Event::Kept { object, index, fault }, effects);
            }
            Event::Loaded { object, index, bytes } => {
                self.run(now, Part::Cloud, Event::Loaded { object, index, bytes: bytes.clone() }, effects);
                self.run(now, Part::Edge, Event::Loaded { object, index, bytes }, effects);
            }
            Event::Worked { id, result } => {
                let part = if id.0 >= FIRST_WORK { Part::Edge } else { Part::Cloud };
                self.run(now, part, Event::Worked { id, result }, effects);
            }
            event @ (Event::Leased { .. } | Event::Shared { .. } | Event::Answered { .. }) => {
                self.run(now, Part::Cloud, event, effects);
            }
            Event::Conditions(_) => {}
        }
    }

    /// Both parts share one folder.
    fn needs(&self, object: ObjectId) -> bool {
        self.cloud.needs(object) || self.edge.needs(object)
    }
}
