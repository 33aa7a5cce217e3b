//! A stage as a host of the shipped code: it lends its layers to a head.

use super::chain::{LOG_BYTES, MODEL};
use super::checks::{Bug, Checks};
use super::net::{Input, Net, Node, Purpose, id, node_of};
use crate::queue::Micros;
use littoral_infer::engine::Limits;
use littoral_infer::model::Model;
use littoral_infer::split::lender::{self, Act, Lender};
use littoral_model::lm::{Config, Stage};
use littoral_tensor::pool::Pool;
use littoral_wire::bounded::Blob;
use littoral_wire::message::Name;
use littoral_wire::pipeline::Offer;
use littoral_wire::{List, NodeId, Pipeline, Wire};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

pub(super) struct StageHost {
    lender: Lender,
    /// What came over links that are not listened to yet.
    unheard: BTreeMap<u64, Vec<Vec<u8>>>,
    /// Layers of its assignment, and what was loaded since this was last looked at.
    layers: usize,
    loaded: usize,
    /// What it is to fetch, if it has no file.
    order: Option<Order>,
}

/// Layers that a head wants a stage to have.
struct Order {
    number: u64,
    head: NodeId,
    model: [u8; 32],
    wanted: Vec<usize>,
}

/// Lends the world's files to a lender, of a stage without one what it fetched.
struct Loads<'a> {
    net: &'a mut Net,
    node: Node,
    pool: &'a Pool,
    loaded: &'a mut usize,
}

impl lender::Layers for Loads<'_> {
    fn open(&mut self, _: [u8; 32]) -> Result<Config, String> {
        Model::config(&self.net.files.big).map_err(|e| e.to_string())
    }

    fn load(&mut self, ranges: Vec<Range<usize>>, _: &Pool) -> Result<Vec<Arc<Stage>>, String> {
        let held = self.net.disks.get(&self.node);
        let here = |layer: usize| held.is_some_and(|held| held.contains(&layer));
        if !self.net.scenario.has_file(self.node) && !ranges.iter().cloned().flatten().all(here) {
            let node = self.node;
            self.net.checks.add(|| format!("stage {node} was given layers {ranges:?}, and does not have all of them"));
            return Err("they are not all here".into());
        }
        *self.loaded += ranges.iter().map(Range::len).sum::<usize>();
        ranges.into_iter().map(|range| self.net.files.load(range, self.pool)).collect()
    }
}

impl StageHost {
    pub fn new() -> Self {
        Self { lender: Lender::new(LOG_BYTES), unheard: BTreeMap::new(), layers: 0, loaded: 0, order: None }
    }

    pub fn progress(&self) -> (u32, u64) {
        self.lender.progress()
    }

    /// Handles one input; what comes of it leaves when it is computed.
    pub fn turn(&mut self, node: Node, net: &mut Net) {
        let Some(input) = net.input(node) else { return };
        let now = net.now();
        let mut cost = 0;
        match input {
            Input::Up { conn, peer, purpose: Purpose::Head } => {
                self.lender.head_up(conn, id(peer), offer(node, net.scenario.has_file(node)));
            }
            Input::Up { conn, peer, purpose: Purpose::Join { epoch } } if net.dialler(conn) == Some(node) => {
                self.lender.next_up(epoch, Ok((conn, id(peer))));
            }
            Input::Up { conn, peer, .. } => {
                self.unheard.insert(conn, Vec::new());
                self.lender.joined(conn, id(peer));
            }
            Input::NotReached { purpose: Purpose::Join { epoch }, .. } => {
                self.lender.next_up(epoch, Err("no answer".into()));
            }
            Input::Heard { conn, bytes } => match self.unheard.get_mut(&conn) {
                Some(unheard) => unheard.push(bytes),
                None => cost += self.hear(node, conn, &bytes, net),
            },
            Input::Ended { conn } => {
                self.unheard.remove(&conn);
                self.lender.down(conn);
            }
            Input::Fetched { order, layer } => self.fetched(node, order, layer, net),
            _ => {}
        }
        let mut at = now + cost;
        // Those that came over a link that is listened to from now on are heard at once, and may lead to more.
        let mut acts = VecDeque::from(self.lender.acts());
        while let Some(act) = acts.pop_front() {
            match act {
                Act::Tell { link, said } => {
                    if let Pipeline::Refused { reason, .. } = &said
                        && reason.contains(" expected, got ")
                    {
                        net.checks.add(|| format!("stage {node} cannot read: {}", &**reason));
                    }
                    net.send(link, node, at, said.to_bytes());
                }
                Act::HangUp { link } => {
                    self.unheard.remove(&link);
                    net.close(link, node, at);
                }
                Act::Listen { link } => {
                    for bytes in self.unheard.remove(&link).unwrap_or_default() {
                        at += self.hear(node, link, &bytes, net);
                    }
                    acts.extend(self.lender.acts());
                }
                Act::Fetch { head, get } => {
                    let wanted = get.layers.iter().flat_map(|part| part.start as usize..part.end as usize).collect();
                    self.order = Some(Order { number: net.order(), head, model: get.model, wanted });
                    self.fetch(node, at, net);
                    acts.extend(self.lender.acts());
                }
                Act::Dial { epoch, to } => net.dial(node, node_of(to.id), Purpose::Join { epoch }, at),
            }
        }
        if let Some(worker) = self.lender.worker() {
            net.memory_bytes_max = net.memory_bytes_max.max(worker.bytes() as u64);
        }
        net.busy(node, at);
        if !net.waits(node) {
            net.plan(node, at);
        }
    }

    /// A layer is here, unless something else was ordered meanwhile, or the head is gone that gave it.
    fn fetched(&mut self, node: Node, order: u64, layer: usize, net: &mut Net) {
        let current = self.order.as_ref().filter(|current| current.number == order);
        if current.is_some_and(|current| self.lender.head() == Some(current.head)) {
            net.fetched += u64::from(net.disks.entry(node).or_default().insert(layer));
            self.fetch(node, net.now(), net);
        }
    }

    /// Says what it has of what was ordered, and asks for the next layer.
    fn fetch(&mut self, node: Node, at: Micros, net: &mut Net) {
        let Some(Order { number, head, model, wanted }) = &self.order else { return };
        let disk = net.disks.entry(node).or_default();
        let (mut has, lacks): (BTreeSet<usize>, BTreeSet<usize>) =
            wanted.iter().partition(|layer| disk.contains(layer));
        if net.bug == Some(Bug::ClaimsLayers) {
            has.extend(&lacks);
        }
        self.lender.fetched(*head, *model, &has, None);
        if let Some(layer) = lacks.first() {
            net.fetch(node, *number, *layer, at);
        }
    }

    /// Returns what it costs.
    fn hear(&mut self, node: Node, conn: u64, bytes: &[u8], net: &mut Net) -> u64 {
        let Ok(mut said) = Pipeline::from_bytes(bytes) else { return 0 };
        let now = net.now();
        let (pass_us, layer_us) = (net.scenario.pass_us, net.scenario.layer_us);
        let work = match &mut said {
            Pipeline::Pass { pass } | Pipeline::Again { pass, .. } => {
                match net.bug {
                    Some(Bug::KeepsStates) => pass.freed = List::default(),
                    Some(Bug::Miscomputes) if pass.number % 7 == 3 => {
                        let mut bytes = pass.vectors.to_vec();
                        bytes.iter_mut().skip(2).step_by(4).for_each(|byte| *byte ^= 0x40);
                        pass.vectors = Blob::new(bytes).unwrap_or_default();
                    }
                    Some(Bug::Shortens) if pass.number % 7 == 3 => {
                        let bytes = pass.vectors.len() / 2;
                        pass.vectors = Blob::new(pass.vectors[..bytes].to_vec()).unwrap_or_default();
                    }
                    _ => {}
                }
                let tokens: u64 = pass.pieces.iter().map(|piece| u64::from(piece.tokens)).sum();
                pass_us + tokens * self.layers as u64 * layer_us
            }
            Pipeline::Assign { assign } => {
                self.layers = assign.segments.iter().map(|part| (part.end - part.start) as usize).sum();
                0
            }
            _ => 0,
        };
        let work = net.cost(node, work);
        let mut asked = 0;
        let mut clock = || {
            asked += 1;
            if asked == 1 { now } else { now + work }
        };
        let pool = Pool::new(1);
        let mut layers = Loads { net, node, pool: &pool, loaded: &mut self.loaded };
        self.lender.hear(conn, said, &mut layers, &pool, &mut clock);
        work + net.cost(node, std::mem::take(&mut self.loaded) as u64 * net.scenario.load_us)
    }

    /// `kept`: states of ended answers that the head may keep.
    pub fn finish(&self, node: Node, limits: &Limits, kept: usize, checks: &mut Checks) {
        // What was freed last goes with the next pass; that is as many as ran together at most.
        let slots = self.lender.worker().map_or(0, |worker| worker.slots());
        let most = limits.running_max + kept;
        if slots > most {
            checks.add(|| format!("stage {node} has {slots} states at the end, at most {most} expected"));
        }
    }
}

fn offer(node: Node, has_file: bool) -> Offer {
    let models = if has_file { vec![MODEL] } else { Vec::new() };
    Offer {
        name: Name::new(format!("stage {node}")),
        memory_bytes: 0,
        threads: 1,
        at: format!("stage-{node}:1").as_str().into(),
        models: List::new(models).unwrap_or_default(),
    }
}
