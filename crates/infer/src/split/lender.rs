//! A machine that lends its layers, without its sockets: which head has it, whose vectors it takes, when it is ready.
//!
//! One head at a time has it. Links have numbers that the host gives; what is to be done with them are [`Act`]s. Stages may
//! dial before the head has said that they may, and their words wait until it has. If the link to the next machine breaks, it
//! is dialled again, and the head hears that passes were lost; that machine itself may be dead, which is the head's to notice.

use super::words::Unfit;
use super::worker::{To, Worker};
use littoral_model::lm::{Config, Stage};
use littoral_tensor::pool::Pool;
use littoral_wire::message::Reason;
use littoral_wire::pipeline::{Assign, Held, Neighbour, Offer};
use littoral_wire::{NodeId, Pipeline};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Stages that may wait to be named, and words of each.
const WAITING_MAX: usize = 16;

/// Where layers come from.
pub trait Layers {
    /// The model's file, if it is here.
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
    /// [`Lender::next_up`] says what came of it.
    Dial {
        epoch: u32,
        to: Neighbour,
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
    before: Option<(u64, NodeId)>,
    /// Links of stages that nobody named yet, and what they said.
    waiting: BTreeMap<u64, (NodeId, Vec<Pipeline>)>,
    next: Option<Next>,
    model: Option<([u8; 32], Worker)>,
    forming: Option<Forming>,
    /// What was told to the next machine last: a replay that may not have come to its end.
    replaying: bool,
    acts: Vec<Act>,
}

impl Lender {
    /// What it sends is kept up to so many bytes.
    pub fn new(log_bytes_max: usize) -> Self {
        Self {
            log_bytes_max,
            head: None,
            before: None,
            waiting: BTreeMap::new(),
            next: None,
            model: None,
            forming: None,
            replaying: false,
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
        self.head = Some((link, peer));
        self.tell(link, Pipeline::Offer(offer));
    }

    /// Another stage's link is up.
    pub fn joined(&mut self, link: u64, peer: NodeId, pool: &Pool, now_us: &mut dyn FnMut() -> u64) -> Option<Unfit> {
        if self.waiting.len() >= WAITING_MAX
            && let Some((oldest, _)) = self.waiting.pop_first()
        {
            self.acts.push(Act::HangUp { link: oldest });
        }
        self.waiting.insert(link, (peer, Vec::new()));
        self.adopt(pool, now_us)
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

    /// Something came over a link. Returns what does not fit, for the log.
    pub fn hear(
        &mut self,
        link: u64,
        said: Pipeline,
        layers: &mut dyn Layers,
        pool: &Pool,
        now_us: &mut dyn FnMut() -> u64,
    ) -> Option<Unfit> {
        if self.head.is_some_and(|(head, _)| head == link) {
            return self.from_head(said, layers, pool, now_us);
        }
        if let Some((_, waiting)) = self.waiting.get_mut(&link) {
            // It may speak as soon as the head says so, and the head says so when all are ready.
            if waiting.len() < WAITING_MAX {
                waiting.push(said);
            } else {
                self.waiting.remove(&link);
                self.acts.push(Act::HangUp { link });
            }
            return None;
        }
        let from_before = self.before.is_some_and(|(before, _)| before == link);
        match said {
            Pipeline::Pass(_) | Pipeline::Again { .. } if from_before => self.work(&said, pool, now_us),
            _ => None,
        }
    }

    /// What came of [`Act::Dial`].
    pub fn next_up(&mut self, epoch: u32, link: Result<u64, String>) {
        let at = self.worker().filter(|worker| worker.epoch() == Some(epoch)).and_then(Worker::to).cloned();
        match (at, link) {
            (None, Ok(link)) => self.acts.push(Act::HangUp { link }),
            (None, Err(_)) => {}
            (Some(at), Ok(link)) => {
                let again = self.next.replace(Next { at, link, alive: true });
                match self.forming {
                    Some(_) => self.formed(epoch),
                    None => self.say_lost(epoch),
                }
                self.acts.extend(again.map(|old| Act::HangUp { link: old.link }));
            }
            // Once it was there: whether it is lost the head knows better.
            (Some(_), Err(_)) if self.forming.is_none() => {}
            (Some(_), Err(why)) => {
                let reason = Reason::new(format!("the next machine was not reached: {why}"));
                self.tell_head(Pipeline::Refused { epoch, reason });
            }
        }
    }

    /// The link to the next machine is another one, and what was on the old one is lost.
    fn say_lost(&mut self, epoch: u32) {
        if std::mem::take(&mut self.replaying) {
            let reason = Reason::new("the link to the next machine broke in a replay");
            return self.tell_head(Pipeline::Refused { epoch, reason });
        }
        if let Some(number) = self.progress().1.checked_sub(1) {
            // It lacks nothing itself: the head is to send again what did not come back.
            let held = Held { slot: u64::MAX, positions: u32::MAX };
            self.tell_head(Pipeline::Lacking { epoch, number, held });
        }
    }

    fn from_head(
        &mut self,
        said: Pipeline,
        layers: &mut dyn Layers,
        pool: &Pool,
        now_us: &mut dyn FnMut() -> u64,
    ) -> Option<Unfit> {
        match said {
            Pipeline::Assign(assign) => {
                let epoch = assign.epoch;
                if let Err(why) = self.assign(assign, layers, pool, now_us) {
                    self.tell_head(Pipeline::Refused { epoch, reason: Reason::new(why) });
                }
                self.adopt(pool, now_us)
            }
            Pipeline::Release => {
                self.release();
                None
            }
            other => {
                // The head is the one before, if no other was named.
                let from_head = self.worker().is_some_and(|worker| worker.from().is_none());
                let heard = from_head || matches!(other, Pipeline::Replay { .. });
                if heard { self.work(&other, pool, now_us) } else { None }
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
        let said = match worker.ready(stages) {
            Ok(()) => Pipeline::Ready { epoch, load_us },
            Err(why) => Pipeline::Refused { epoch, reason: Reason::new(why.to_string()) },
        };
        self.tell_head(said);
    }

    /// Takes the link of the machine that the head named, if it is here.
    fn adopt(&mut self, pool: &Pool, now_us: &mut dyn FnMut() -> u64) -> Option<Unfit> {
        let from = self.worker().and_then(Worker::from);
        if let Some((link, peer)) = self.before
            && Some(peer) != from
        {
            self.before = None;
            self.acts.push(Act::HangUp { link });
        }
        // The newest: an older one may be dead without knowing.
        let newest = self.waiting.iter().rev().find(|(_, (peer, _))| Some(*peer) == from).map(|(link, _)| *link)?;
        let (peer, said) = self.waiting.remove(&newest)?;
        let old = self.before.replace((newest, peer));
        self.acts.extend(old.map(|(link, _)| Act::HangUp { link }));
        said.iter().filter_map(|said| self.work(said, pool, now_us)).last()
    }

    fn work(&mut self, said: &Pipeline, pool: &Pool, now_us: &mut dyn FnMut() -> u64) -> Option<Unfit> {
        let (_, worker) = self.model.as_mut()?;
        let told = match worker.hear(said, pool, now_us) {
            Ok(told) => told,
            Err(unfit) => return Some(unfit),
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
        None
    }

    fn release(&mut self) {
        let links = self.head.take().into_iter().chain(self.before.take()).map(|(link, _)| link);
        self.acts.extend(links.map(|link| Act::HangUp { link }));
        self.hang_up_next();
        self.forming = None;
        if let Some((_, worker)) = &mut self.model {
            worker.release();
        }
    }

    fn hang_up_next(&mut self) {
        self.acts.extend(self.next.take().map(|next| Act::HangUp { link: next.link }));
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
