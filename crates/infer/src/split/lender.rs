//! A machine that lends its layers, without its sockets: which head has it, whose vectors it takes, when it is ready.
//!
//! One head at a time has it. Links have numbers that the host gives; what is to be done with them are [`Act`]s. Stages may
//! dial before the head has named them, and nothing is read of them until it has. If the link to the next machine breaks, it
//! is dialled again, and the head hears that passes were lost; that machine itself may be dead, which is the head's to notice.

use super::worker::{To, Worker};
use littoral_model::lm::{Config, Stage};
use littoral_tensor::pool::Pool;
use littoral_wire::message::Reason;
use littoral_wire::pipeline::{self, Assign, Get, Held, Neighbour, Offer, SEGMENTS_MAX};
use littoral_wire::{List, NodeId, Pipeline};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Stages that may wait to be named.
const WAITING_MAX: usize = 16;

/// Where layers come from.
pub trait Layers {
    /// The model's file, or layers that were fetched, if they are here.
    fn open(&mut self, model: [u8; 32]) -> Result<Config, String>;
    /// Layers of the model that was opened last.
    fn load(&mut self, ranges: Vec<Range<usize>>, pool: &Pool) -> Result<Vec<Arc<Stage>>, String>;
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    Tell {
        link: u64,
        said: Pipeline,
    },
    HangUp {
        link: u64,
    },
    /// Of a link that [`Lender::joined`] was told of: from now on it is read.
    Listen {
        link: u64,
    },
    /// [`Lender::next_up`] says what came of it.
    Dial {
        epoch: u32,
        to: Neighbour,
    },
    /// The head wants this machine to have layers of whose model there is no file here. It takes the place of an earlier one;
    /// [`Lender::fetched`] says what came of it, or [`Lender::cannot_fetch`] that nothing will.
    Fetch {
        head: NodeId,
        get: Get,
    },
}

/// An assignment that waits for the link to the next machine.
struct Forming {
    epoch: u32,
    stages: Vec<Arc<Stage>>,
    load_us: u64,
}

/// The next machine.
struct Next {
    at: Neighbour,
    link: u64,
    alive: bool,
}

pub struct Lender {
    log_bytes_max: usize,
    head: Option<(u64, NodeId)>,
    /// The last one that there was.
    had: Option<NodeId>,
    before: Option<(u64, NodeId)>,
    /// Links of stages that nobody named yet. Whoever has some key may be one of them.
    waiting: BTreeMap<u64, NodeId>,
    next: Option<Next>,
    model: Option<([u8; 32], Worker)>,
    forming: Option<Forming>,
    /// What was told to the next machine last: a replay that may not have come to its end.
    replaying: bool,
    /// Those may fetch tiles.
    shared: BTreeSet<NodeId>,
    acts: Vec<Act>,
}

impl Lender {
    /// What it sends is kept up to so many bytes.
    pub fn new(log_bytes_max: usize) -> Self {
        Self {
            log_bytes_max,
            head: None,
            had: None,
            before: None,
            waiting: BTreeMap::new(),
            next: None,
            model: None,
            forming: None,
            replaying: false,
            shared: BTreeSet::new(),
            acts: Vec::new(),
        }
    }

    /// What is to be done, in order.
    pub fn acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    pub fn head(&self) -> Option<NodeId> {
        self.head.map(|(_, peer)| peer)
    }

    /// How far it is, for beats: its epoch, and passes of it that went through.
    pub fn progress(&self) -> (u32, u64) {
        let worker = self.model.as_ref().map(|(_, worker)| worker);
        worker.map_or((0, 0), |worker| (worker.epoch().unwrap_or(0), worker.done()))
    }

    /// The layers' states and what was sent.
    pub fn worker(&self) -> Option<&Worker> {
        self.model.as_ref().map(|(_, worker)| worker)
    }

    /// A head's link is up.
    pub fn head_up(&mut self, link: u64, peer: NodeId, offer: Offer) {
        if self.head.is_some_and(|(_, head)| head != peer) {
            let reason = "another head has this machine".into();
            self.tell(link, Pipeline::Refused { epoch: 0, reason });
            return self.acts.push(Act::HangUp { link });
        }
        // The same head again: it has lost its link, and will say anew what is to be.
        self.release();
        // What a model's numbers are the head before had said.
        if self.had != Some(peer) {
            self.model = None;
        }
        (self.head, self.had) = (Some((link, peer)), Some(peer));
        self.tell(link, Pipeline::Offer { offer });
    }

    /// Another stage is here. It is not read before [`Act::Listen`].
    pub fn joined(&mut self, link: u64, peer: NodeId) {
        // Of one machine the newest counts.
        let older = self.waiting.iter().find(|(_, other)| **other == peer).map(|(link, _)| *link);
        let oldest = || self.waiting.keys().next().copied().filter(|_| self.waiting.len() >= WAITING_MAX);
        if let Some(link) = older.or_else(oldest) {
            self.waiting.remove(&link);
            self.acts.push(Act::HangUp { link });
        }
        self.waiting.insert(link, peer);
        self.adopt();
    }

    /// May this machine fetch tiles from here? The head says who.
    pub fn shares_with(&self, machine: NodeId) -> bool {
        self.shared.contains(&machine)
    }

    /// Layers of [`Act::Fetch`]'s that are here; `why`: the next one does not come for now.
    pub fn fetched(&mut self, head: NodeId, model: [u8; 32], layers: &BTreeSet<usize>, why: Option<String>) {
        if self.head() != Some(head) {
            return;
        }
        let mut parts: Vec<pipeline::Layers> = Vec::new();
        for layer in layers.iter().map(|layer| *layer as u32) {
            match parts.last_mut().filter(|part| part.end == layer) {
                Some(part) => part.end += 1,
                None => parts.push(pipeline::Layers { start: layer, end: layer + 1 }),
            }
        }
        parts.truncate(SEGMENTS_MAX);
        let layers = List::new(parts).unwrap_or_default();
        self.tell_head(Pipeline::Has { model, layers, why: why.map(Reason::new) });
    }

    /// Layers of [`Act::Fetch`]'s cannot be had here at all.
    pub fn cannot_fetch(&mut self, head: NodeId, why: String) {
        if self.head() == Some(head) {
            self.tell_head(Pipeline::Cannot { reason: Reason::new(why) });
        }
    }

    /// A link is down.
    pub fn down(&mut self, link: u64) {
        self.waiting.remove(&link);
        if self.head.is_some_and(|(head, _)| head == link) {
            self.release();
        }
        if self.before.is_some_and(|(before, _)| before == link) {
            self.before = None;
        }
        if let Some(next) = self.next.as_mut().filter(|next| next.link == link && next.alive) {
            next.alive = false;
            let to = next.at.clone();
            if let Some(epoch) = self.worker().and_then(Worker::epoch) {
                self.acts.push(Act::Dial { epoch, to });
            }
        }
    }

    /// Something came over a link.
    pub fn hear(
        &mut self,
        link: u64,
        said: Pipeline,
        layers: &mut dyn Layers,
        pool: &Pool,
        now_us: &mut dyn FnMut() -> u64,
    ) {
        if self.head.is_some_and(|(head, _)| head == link) {
            self.hear_head(said, layers, pool, now_us);
        } else if self.before.is_some_and(|(before, _)| before == link)
            && matches!(said, Pipeline::Pass { .. } | Pipeline::Again { .. })
        {
            self.work(&said, pool, now_us);
        }
    }

    /// What came of [`Act::Dial`]: the number of the link, and whose it is.
    pub fn next_up(&mut self, epoch: u32, link: Result<(u64, NodeId), String>) {
        let at = self.worker().filter(|worker| worker.epoch() == Some(epoch)).and_then(Worker::to).cloned();
        match (at, link) {
            (Some(at), Ok((link, peer))) if at.id == peer => {
                let old = self.next.replace(Next { at, link, alive: true });
                match self.forming {
                    Some(_) => self.formed(epoch),
                    None => self.say_lost(epoch),
                }
                self.acts.extend(old.map(|old| Act::HangUp { link: old.link }));
            }
            // Dialled in an earlier epoch, or for an earlier head.
            (_, Ok((link, _))) => self.acts.push(Act::HangUp { link }),
            (None, Err(_)) => {}
            // Once it was there: whether it is lost the head knows better.
            (Some(_), Err(_)) if self.forming.is_none() => {}
            (Some(_), Err(why)) => self.refuse(epoch, format!("the next machine was not reached: {why}")),
        }
    }

    /// The link to the next machine is another one, and what was on the old one is lost.
    fn say_lost(&mut self, epoch: u32) {
        if std::mem::take(&mut self.replaying) {
            return self.refuse(epoch, "the link to the next machine broke in a replay".into());
        }
        if let Some(number) = self.progress().1.checked_sub(1) {
            // It lacks nothing itself: the head is to send again what did not come back.
            let held = Held { slot: u64::MAX, positions: u32::MAX };
            self.tell_head(Pipeline::Lacking { epoch, number, held });
        }
    }

    fn hear_head(&mut self, said: Pipeline, layers: &mut dyn Layers, pool: &Pool, now_us: &mut dyn FnMut() -> u64) {
        match said {
            Pipeline::Assign { assign } => {
                let epoch = assign.epoch;
                if let Err(why) = self.assign(assign, layers, pool, now_us) {
                    self.refuse(epoch, why);
                }
                self.adopt();
            }
            Pipeline::Release {} => self.vacate(),
            Pipeline::Get { get } => self.acts.extend(self.head().map(|head| Act::Fetch { head, get })),
            Pipeline::Share { machines } => self.shared = machines.iter().copied().collect(),
            other => {
                // The head is the one before, if no other was named.
                let hear_head = self.worker().is_some_and(|worker| worker.from().is_none());
                if hear_head || matches!(other, Pipeline::Replay { .. }) {
                    self.work(&other, pool, now_us);
                }
            }
        }
    }

    fn assign(
        &mut self,
        assign: Assign,
        layers: &mut dyn Layers,
        pool: &Pool,
        now_us: &mut dyn FnMut() -> u64,
    ) -> Result<(), String> {
        let begun = now_us();
        if self.model.as_ref().is_none_or(|(digest, _)| *digest != assign.model) {
            self.model = None;
            let config = layers.open(assign.model)?;
            self.model = Some((assign.model, Worker::new(config, self.log_bytes_max)));
        }
        let Some((_, worker)) = &mut self.model else { return Ok(()) };
        self.forming = None;
        self.replaying = false;
        let lacking = worker.assign(&assign).map_err(|e| e.to_string())?;
        let reached = match (&assign.to, &self.next) {
            (Some(to), Some(Next { at, alive: true, .. })) => to == at,
            (to, _) => to.is_none(),
        };
        if !reached || assign.to.is_none() {
            self.hang_up_next();
        }
        if let (Some(to), false) = (&assign.to, reached) {
            self.acts.push(Act::Dial { epoch: assign.epoch, to: to.clone() });
        }
        let stages = layers.load(lacking, pool)?;
        let load_us = now_us().saturating_sub(begun);
        self.forming = Some(Forming { epoch: assign.epoch, stages, load_us });
        if reached {
            self.formed(assign.epoch);
        }
        Ok(())
    }

    fn formed(&mut self, epoch: u32) {
        let Some(Forming { stages, load_us, .. }) = self.forming.take_if(|forming| forming.epoch == epoch) else {
            return;
        };
        let Some((_, worker)) = &mut self.model else { return };
        match worker.ready(stages) {
            Ok(()) => self.tell_head(Pipeline::Ready { epoch, load_us }),
            Err(why) => self.refuse(epoch, why.to_string()),
        }
    }

    /// Takes the link of the machine that the head named, if it is here.
    fn adopt(&mut self) {
        let from = self.worker().and_then(Worker::from);
        if let Some((link, peer)) = self.before
            && Some(peer) != from
        {
            self.before = None;
            self.acts.push(Act::HangUp { link });
        }
        let found = self.waiting.iter().find(|(_, peer)| Some(**peer) == from).map(|(link, peer)| (*link, *peer));
        let Some((link, peer)) = found else { return };
        self.waiting.remove(&link);
        // The newer one: the older may be dead without knowing.
        let old = self.before.replace((link, peer));
        self.acts.extend(old.map(|(link, _)| Act::HangUp { link }));
        self.acts.push(Act::Listen { link });
    }

    fn work(&mut self, said: &Pipeline, pool: &Pool, now_us: &mut dyn FnMut() -> u64) {
        let Some((_, worker)) = self.model.as_mut() else { return };
        let told = match worker.hear(said, pool, now_us) {
            Ok(told) => told,
            Err(why) => {
                // Whoever it came from, the head would wait for it.
                let epoch = worker.epoch().unwrap_or(0);
                return self.refuse(epoch, format!("{}: {why}", said.name()));
            }
        };
        for (to, said) in told {
            let next = self.next.as_ref().map(|next| next.link);
            match (to, next) {
                (To::Head, _) => self.tell_head(said),
                (To::Next, Some(link)) => {
                    self.replaying = matches!(said, Pipeline::Again { .. });
                    self.tell(link, said);
                }
                (To::Next, None) => {}
            }
        }
    }

    /// The head is gone, or another.
    fn release(&mut self) {
        self.shared.clear();
        self.acts.extend(self.head.take().map(|(link, _)| Act::HangUp { link }));
        self.vacate();
    }

    /// It has no layers any more.
    fn vacate(&mut self) {
        self.acts.extend(self.before.take().map(|(link, _)| Act::HangUp { link }));
        self.hang_up_next();
        self.forming = None;
        if let Some((_, worker)) = &mut self.model {
            worker.release();
        }
    }

    fn hang_up_next(&mut self) {
        self.acts.extend(self.next.take().map(|next| Act::HangUp { link: next.link }));
    }

    fn refuse(&mut self, epoch: u32, why: String) {
        self.tell_head(Pipeline::Refused { epoch, reason: Reason::new(why) });
    }

    fn tell_head(&mut self, said: Pipeline) {
        if let Some((link, _)) = self.head {
            self.tell(link, said);
        }
    }

    fn tell(&mut self, link: u64, said: Pipeline) {
        self.acts.push(Act::Tell { link, said });
    }
}
