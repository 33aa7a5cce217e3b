//! The cloud as an edge sees it: a link to each of its replicas, and which of them runs which job.
//!
//! Replicas have one key and differ by their addresses. A link that comes up does not say which address it has, so they are
//! dialled one at a time. What concerns a job goes to the replica that spoke of it last; what concerns the edge or its
//! devices goes to all. A cloud of one process is the case of one replica.

use crate::role::redial::Redial;
use crate::role::{Effect, LinkId, Millis, Peer, Timer};
use littoral_wire::message::UPSTREAMS_MAX;
use littoral_wire::{JobId, Message, NodeId};
use std::collections::BTreeMap;

pub(super) struct Clouds {
    me: NodeId,
    replicas: Vec<Replica>,
    /// The one that is being dialled.
    dialling: Option<usize>,
    /// By job, the link over which it was spoken of last.
    jobs: BTreeMap<JobId, LinkId>,
}

struct Replica {
    peer: Peer,
    redial: Redial,
    link: Option<LinkId>,
    /// Not to be dialled before.
    again_at: Millis,
}

impl Clouds {
    /// `peers`: at least one; one address counts once.
    pub fn new(me: NodeId, peers: impl Iterator<Item = Peer>) -> Self {
        let mut replicas: Vec<Replica> = Vec::new();
        for peer in peers {
            if replicas.iter().all(|known| known.peer.address != peer.address) {
                replicas.push(Replica::new(me, peer));
            }
        }
        Self { me, replicas, dialling: None, jobs: BTreeMap::new() }
    }

    /// Replicas that were not known.
    pub fn learn(&mut self, now: Millis, peers: impl Iterator<Item = Peer>, effects: &mut Vec<Effect>) {
        let before = self.replicas.len();
        for peer in peers {
            let known = self.replicas.iter().any(|replica| replica.peer.address == peer.address);
            if !known && self.replicas.len() < UPSTREAMS_MAX {
                self.replicas.push(Replica::new(self.me, peer));
            }
        }
        if self.replicas.len() > before {
            self.dial(now, effects);
        }
    }

    /// Dials the next replica without a link, or waits until one may be dialled again.
    pub fn dial(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if self.dialling.is_some() {
            return;
        }
        let away = self.replicas.iter_mut().enumerate().filter(|(_, replica)| replica.link.is_none());
        let Some((at, replica)) = away.min_by_key(|(_, replica)| replica.again_at) else { return };
        if replica.again_at > now {
            return effects.push(Effect::SetTimer { timer: Timer::Redial, at: replica.again_at });
        }
        self.dialling = Some(at);
        replica.redial.dial(effects);
    }

    /// The pause is over for the replica that waits the shortest.
    pub fn paused(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let away = self.replicas.iter_mut().filter(|replica| replica.link.is_none());
        if let Some(replica) = away.min_by_key(|replica| replica.again_at) {
            replica.again_at = replica.again_at.min(now);
        }
        self.dial(now, effects);
    }

    pub fn dial_failed(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if let Some(at) = self.dialling.take() {
            self.replicas[at].failed(now);
        }
        self.dial(now, effects);
    }

    /// What we dialled answers.
    pub fn connected(&mut self, now: Millis, link: LinkId, effects: &mut Vec<Effect>) {
        // A cloud's own edge has its link without dialling.
        let at = self.dialling.take().unwrap_or(0);
        self.replicas[at].link = Some(link);
        self.dial(now, effects);
    }

    pub fn disconnected(&mut self, now: Millis, link: LinkId, effects: &mut Vec<Effect>) {
        self.jobs.retain(|_, of| *of != link);
        if let Some(replica) = self.replicas.iter_mut().find(|replica| replica.link == Some(link)) {
            replica.link = None;
            replica.failed(now);
        }
        self.dial(now, effects);
    }

    /// It has let us in.
    pub fn succeeded(&mut self, link: LinkId) {
        let replica = self.replicas.iter_mut().find(|replica| replica.link == Some(link));
        replica.into_iter().for_each(|replica| replica.redial.succeeded());
    }

    /// We were told to go away.
    pub fn refused(&mut self) {
        self.replicas.iter_mut().for_each(|replica| replica.redial.refused());
    }

    pub fn has(&self, link: LinkId) -> bool {
        self.links().any(|of| of == link)
    }

    /// Links that are up.
    pub fn links(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.replicas.iter().filter_map(|replica| replica.link)
    }

    /// Who spoke of this job runs it.
    pub fn heard(&mut self, link: LinkId, message: &Message) {
        let job = match message {
            Message::Open { incarnation, .. }
            | Message::Release { incarnation, .. }
            | Message::Close { incarnation }
            | Message::PartialKept { incarnation } => incarnation.collection.job,
            Message::SealingTo { collection, .. } => collection.job,
            _ => return,
        };
        if self.replicas.len() > 1 {
            self.jobs.insert(job, link);
        }
    }

    /// Whom a message is for.
    pub fn of(&self, message: &Message) -> Vec<LinkId> {
        let job = match message {
            Message::Progress { incarnation, .. }
            | Message::Partial { incarnation, .. }
            | Message::NoPartial { incarnation } => incarnation.collection.job,
            Message::SealingFrom { collection, .. } => collection.job,
            _ => return self.links().collect(),
        };
        match self.replicas.as_slice() {
            [only] => only.link.into_iter().collect(),
            _ => self.jobs.get(&job).copied().into_iter().collect(),
        }
    }
}

impl Replica {
    fn new(me: NodeId, peer: Peer) -> Self {
        Self { redial: Redial::new(me, vec![peer.clone()]), peer, link: None, again_at: 0 }
    }

    fn failed(&mut self, now: Millis) {
        self.again_at = now + self.redial.pause_ms();
    }
}
