//! The machine of a chain that has the text: it plans passes, sends them round, and chooses tokens from what comes back.
//!
//! Pure: it is told what arrived, and says what is to be sent. Who has which layers is decided elsewhere ([`Head::place`]);
//! when a machine is lost the head says so ([`Head::broken`]) and waits to be told who has its layers now. Then:
//!
//! 1. all are told their place in the next epoch, and say when they are ready;
//! 2. who lacks states for its layers hears again what the machine before it sent; what nobody knows any more is read again
//!    from its ids, through all layers;
//! 3. passes that were on their way are planned anew. A token that was chosen stays: the sampler draws by seed and
//!    position, so the text is the one that an undisturbed run writes.

use super::words::{self, Those};
use super::worker::cache_code;
use super::{Holder, pace::Pace, requests::Requests};
use crate::engine::{Engine, Event, Planned};
use crate::pass::{PassError, Slot};
use littoral_model::lm::{CacheType, Stage, StateError};
use littoral_tensor::pool::Pool;
use littoral_wire::NodeId;
use littoral_wire::bounded::List;
use littoral_wire::message::SocketName;
use littoral_wire::pipeline::{Activations, Assign, Held, Layers, Neighbour, Pipeline};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// One machine of a chain and its layers: ranges next to each other, or none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// `None`: the head itself, which is the first.
    pub machine: Option<NodeId>,
    pub ranges: Vec<Range<usize>>,
}

/// What the head is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    /// Nobody has said who has which layers, or somebody was lost.
    Broken,
    /// These are not ready yet; the head itself may be one of them.
    Forming {
        waiting: BTreeSet<Option<NodeId>>,
    },
    /// The first of these steps is under way.
    Replaying {
        steps: VecDeque<Step>,
    },
    Running,
}

/// One link hears again what another (or it itself) sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Step {
    sender: usize,
    hears: usize,
}

/// How long the parts of a recovery took, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovery {
    /// From the new placement until all were ready.
    pub load_us: u64,
    /// From there until passes went round again.
    pub replay_us: u64,
}

struct Away {
    number: u64,
    left_us: u64,
    tokens: usize,
}

pub struct Head {
    engine: Engine,
    requests: Requests,
    holder: Holder,
    model: [u8; 32],
    cache_type: CacheType,
    activations: Activations,
    epoch: u32,
    chain: Vec<Link>,
    /// Where machines are dialled.
    places: BTreeMap<NodeId, SocketName>,
    /// Layers whose states somebody has: of each machine, since it came up.
    warm: BTreeMap<Option<NodeId>, Vec<Range<usize>>>,
    phase: Phase,
    /// Passes on their way.
    away: VecDeque<Away>,
    pace: Pace,
    outbox: Vec<(NodeId, Pipeline)>,
    placed_at_us: u64,
    ready_at_us: u64,
    recovery: Recovery,
}

impl Head {
    /// `engine`: over a model of no layers with both ends. `model`: BLAKE3 of its file. What is sent is kept up to so many
    /// bytes.
    pub fn new(
        engine: Engine,
        model: [u8; 32],
        cache_type: CacheType,
        activations: Activations,
        log_bytes_max: usize,
    ) -> Self {
        let width = engine.model().stage.config().width;
        Self {
            engine,
            requests: Requests::default(),
            holder: Holder::new(width, cache_type, log_bytes_max),
            model,
            cache_type,
            activations,
            epoch: 0,
            chain: Vec::new(),
            places: BTreeMap::new(),
            warm: BTreeMap::new(),
            phase: Phase::Broken,
            away: VecDeque::new(),
            pace: Pace::default(),
            outbox: Vec::new(),
            placed_at_us: 0,
            ready_at_us: 0,
            recovery: Recovery::default(),
        }
    }

    /// How vectors travel.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// What happened since this was last asked.
    pub fn events(&mut self) -> Vec<Event> {
        self.requests.events(&mut self.engine)
    }

    /// All that is asked fails for this reason, for nobody can have some layers. Returns what happened.
    pub fn fail_requests(&mut self, why: &str) -> Vec<Event> {
        self.fail();
        self.requests.fail(&mut self.engine, why)
    }

    /// BLAKE3 of the model's file.
    pub fn digest(&self) -> [u8; 32] {
        self.model
    }

    pub fn chain(&self) -> &[Link] {
        &self.chain
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Nothing is done until [`Self::place`] is called.
    pub fn broken(&self) -> bool {
        self.phase == Phase::Broken
    }

    pub fn running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Machines that a placement waits for.
    pub fn awaited(&self) -> Vec<NodeId> {
        match &self.phase {
            Phase::Forming { waiting } => waiting.iter().flatten().copied().collect(),
            Phase::Replaying { steps } => {
                steps.front().and_then(|step| self.chain[step.hears].machine).into_iter().collect()
            }
            Phase::Broken | Phase::Running => Vec::new(),
        }
    }

    /// What the last placement took.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// What is to be sent, in order.
    pub fn outbox(&mut self) -> Vec<(NodeId, Pipeline)> {
        std::mem::take(&mut self.outbox)
    }

    /// A machine can be reached: it has nothing yet.
    pub fn up(&mut self, machine: NodeId, at: SocketName) {
        self.places.insert(machine, at);
        self.warm.remove(&Some(machine));
    }

    /// A machine cannot be reached any more, or is not to be waited for.
    pub fn down(&mut self, machine: NodeId) {
        self.places.remove(&machine);
        self.warm.remove(&Some(machine));
        if self.chain.iter().any(|link| link.machine == Some(machine)) {
            self.fail();
        }
    }

    /// Passes on their way are lost.
    fn fail(&mut self) {
        self.away.clear();
        self.engine.void();
        self.phase = Phase::Broken;
    }

    /// These have the layers from now on. Returns what the head must load for itself, see [`Self::loaded`].
    ///
    /// # Panics
    /// If the chain does not begin with the head, its ranges are not all layers in their order, or a machine is not up.
    pub fn place(&mut self, chain: Vec<Link>, now_us: u64) -> Vec<Range<usize>> {
        let layers = self.engine.model().stage.config().layers;
        let mut at = 0;
        for range in chain.iter().flat_map(|link| &link.ranges) {
            assert!(range.start == at && range.end > at, "layers {range:?} behind {at} layers");
            at = range.end;
        }
        assert!(at == layers && chain.first().is_some_and(|link| link.machine.is_none()), "{chain:?}");
        self.fail();
        self.engine.hold(false);
        self.epoch += 1;
        self.placed_at_us = now_us;
        let before = std::mem::replace(&mut self.chain, chain);
        let left = before.iter().filter_map(|link| link.machine).filter(|id| self.places.contains_key(id));
        let stays = |id: &NodeId| self.chain.iter().any(|link| link.machine == Some(*id));
        let left: Vec<NodeId> = left.filter(|id| !stays(id)).collect();
        for machine in left {
            self.warm.remove(&Some(machine));
            self.outbox.push((machine, Pipeline::Release {}));
        }
        self.phase = Phase::Forming { waiting: self.chain.iter().map(|link| link.machine).collect() };
        self.pace.forget();
        for (index, link) in self.chain.iter().enumerate().skip(1) {
            let machine = link.machine.expect("only the first is the head");
            let segment = |range: &Range<usize>| Layers { start: range.start as u32, end: range.end as u32 };
            let to = self
                .chain
                .get(index + 1)
                .and_then(|next| next.machine)
                .map(|id| Neighbour { id, at: self.places.get(&id).expect("a machine that is up").clone() });
            let assign = Assign {
                epoch: self.epoch,
                model: self.model,
                segments: List::new(link.ranges.iter().map(segment).collect()).unwrap_or_default(),
                cache_type: cache_code(self.cache_type),
                activations: self.activations,
                from: self.chain[index - 1].machine,
                to,
            };
            self.outbox.push((machine, Pipeline::Assign { assign }));
        }
        self.holder.lacking(&self.chain[0].ranges)
    }

    /// What [`Self::place`] asked for is here.
    pub fn loaded(&mut self, stages: Vec<Arc<Stage>>, pool: &Pool, now_us: u64) -> Result<(), StateError> {
        let ranges = self.chain[0].ranges.clone();
        self.holder.set(&ranges, stages)?;
        self.ready(None, pool, now_us);
        Ok(())
    }

    fn ready(&mut self, machine: Option<NodeId>, pool: &Pool, now_us: u64) {
        let Phase::Forming { waiting } = &mut self.phase else { return };
        waiting.remove(&machine);
        if !waiting.is_empty() {
            return;
        }
        self.ready_at_us = now_us;
        self.recovery = Recovery { load_us: now_us - self.placed_at_us, replay_us: 0 };
        let mut steps = VecDeque::new();
        for (hears, link) in self.chain.iter().enumerate() {
            let warm = self.warm.get(&link.machine).cloned().unwrap_or_default();
            let cold = |range: &Range<usize>| !warm.contains(range);
            for (index, _) in link.ranges.iter().enumerate().filter(|(_, range)| cold(range)) {
                // Ranges behind one that hears again hear what comes out of it.
                match index.checked_sub(1).map(|before| &link.ranges[before]) {
                    Some(before) if cold(before) => {}
                    Some(_) => steps.push_back(Step { sender: hears, hears }),
                    None => steps.push_back(Step { sender: hears.saturating_sub(1), hears }),
                }
            }
        }
        self.warm = self.chain.iter().map(|link| (link.machine, link.ranges.clone())).collect();
        // Where nothing was written yet there is nothing to hear.
        if self.wanted().is_empty() {
            steps.clear();
        }
        self.phase = Phase::Replaying { steps };
        self.step(pool, now_us);
    }

    /// States that are needed: those of sequences that run.
    fn wanted(&self) -> Vec<(Slot, usize)> {
        self.engine.states().filter(|(_, positions)| *positions > 0).collect()
    }

    /// Begins the next step of a replay, as far as it need not be waited for.
    fn step(&mut self, pool: &Pool, now_us: u64) {
        while let Phase::Replaying { steps } = &self.phase {
            let Some(Step { sender, hears }) = steps.front().copied() else {
                self.recovery.replay_us = now_us - self.ready_at_us;
                self.phase = Phase::Running;
                return;
            };
            let wanted = self.wanted();
            if sender > 0 {
                let held = |(slot, positions): &(Slot, usize)| Held { slot: slot.0, positions: *positions as u32 };
                let states = List::new(wanted.iter().map(held).collect()).unwrap_or_default();
                let sender = self.chain[sender].machine.expect("only the first is the head");
                self.outbox.push((sender, Pipeline::Replay { epoch: self.epoch, states }));
                return;
            }
            let passes = self.holder.replay(&wanted, pool).unwrap_or_default();
            if hears > 0 {
                let machine = self.chain[hears].machine.expect("only the first is the head");
                let told = super::again(self.epoch, passes, self.activations);
                self.outbox.extend(told.into_iter().map(|again| (machine, again)));
                return;
            }
            // The head heard itself. Its first layers hear ids again, if they are cold: nobody has what went into them.
            let have: Vec<(Slot, usize)> =
                wanted.iter().map(|(slot, _)| (*slot, self.holder.positions(*slot))).collect();
            self.replayed(&have);
        }
    }

    /// So much of each state is there now.
    fn replayed(&mut self, have: &[(Slot, usize)]) {
        for (slot, positions) in self.wanted() {
            let got = have.iter().find(|(other, _)| *other == slot).map_or(0, |(_, positions)| *positions);
            if got < positions {
                self.engine.rewind(slot, got);
            }
        }
        if let Phase::Replaying { steps } = &mut self.phase {
            steps.pop_front();
        }
    }

    /// Something came from a machine. What does not fit, or comes from an earlier epoch, changes nothing.
    pub fn hear(&mut self, machine: NodeId, said: &Pipeline, pool: &Pool, now_us: u64) {
        match said {
            Pipeline::Ready { epoch, .. } if *epoch == self.epoch => self.ready(Some(machine), pool, now_us),
            Pipeline::Refused { epoch, .. } if *epoch == self.epoch => self.down(machine),
            Pipeline::Replayed { epoch, states, .. } if *epoch == self.epoch => {
                let expected = match &self.phase {
                    Phase::Replaying { steps } => steps.front().and_then(|step| self.chain[step.hears].machine),
                    _ => None,
                };
                if expected == Some(machine) {
                    let have: Vec<(Slot, usize)> =
                        states.iter().map(|held| (Slot(held.slot), held.positions as usize)).collect();
                    self.replayed(&have);
                    self.step(pool, now_us);
                }
            }
            Pipeline::Lacking { epoch, number, held }
                if *epoch == self.epoch && self.away.iter().any(|away| away.number == *number) =>
            {
                self.lacking(Slot(held.slot), held.positions as usize);
            }
            Pipeline::Pass { pass } if pass.epoch == self.epoch && self.phase == Phase::Running => {
                let last = self.chain.last().and_then(|link| link.machine);
                // Those that were lost meanwhile come back late.
                if last != Some(machine) || self.away.front().is_none_or(|away| away.number != pass.number) {
                    return;
                }
                let (width, context) = {
                    let config = self.engine.model().stage.config();
                    (config.width, config.context)
                };
                let Ok((of, vectors)) = words::hear(pass, Those::Wanted, self.activations, width, context) else {
                    return self.down(machine);
                };
                // What it says of the pass is its own word.
                if self.engine.awaited() != vectors.len() / width {
                    return self.down(machine);
                }
                let Some(Away { left_us, .. }) = self.away.pop_front() else { return };
                self.pace.heard(of.tokens(), now_us.saturating_sub(left_us), &pass.times_us);
                self.engine.finish(pass.number, &vectors, pool);
            }
            _ => {}
        }
    }

    /// A state is not where it should be: what it lacks is read again from its ids.
    fn lacking(&mut self, slot: Slot, positions: usize) {
        self.away.clear();
        self.engine.void();
        self.engine.rewind(slot, positions);
    }

    /// Runs and sends one pass, if as many are on their way as there are machines not yet: then none need idle. False if
    /// there is nothing to do until something arrives.
    pub fn pump(&mut self, pool: &Pool, now_us: &mut dyn FnMut() -> u64) -> bool {
        if self.phase != Phase::Running || self.away.len() >= self.chain.len() {
            return false;
        }
        let writing = self.engine.running().div_ceil(self.chain.len());
        let Some(planned) = self.engine.plan(writing.max(1)) else { return false };
        self.send(planned, pool, now_us);
        true
    }

    fn send(&mut self, planned: Planned, pool: &Pool, now_us: &mut dyn FnMut() -> u64) {
        let begun = now_us();
        let vectors = self.engine.run(&planned, pool);
        let Planned { number, pass, .. } = planned;
        let vectors = match self.holder.run(&pass, vectors, pool) {
            Ok(vectors) => vectors,
            Err(PassError::Lacking { slot, got, .. }) => return self.lacking(slot, got),
            Err(PassError::Other { what, expected, got }) => panic!("a pass of {what}: {expected}, {got}"),
        };
        let Some(next) = self.chain.get(1).and_then(|link| link.machine) else {
            let vectors = pass.select(&vectors, self.engine.model().stage.config().width);
            self.pace.heard(pass.tokens(), 0, &[(now_us() - begun) as u32]);
            self.engine.finish(number, &vectors, pool);
            return;
        };
        let own = (now_us() - begun) as u32;
        match words::tell(self.epoch, number, &pass, vec![own], self.activations, &vectors) {
            Ok(told) => {
                self.away.push_back(Away { number, left_us: now_us(), tokens: pass.tokens() });
                self.outbox.push((next, Pipeline::Pass { pass: told }));
            }
            // Limits of the engine keep passes small enough; see `Head::tokens_max`.
            Err(over) => panic!("a pass of {} tokens: {over}", pass.tokens()),
        }
    }

    /// The machine that passes wait for longer than they should, if there is one. `done`: how many passes of this epoch each
    /// machine has run.
    pub fn late(&self, done: &BTreeMap<NodeId, u64>, now_us: u64) -> Option<NodeId> {
        let Away { number, left_us, .. } = self.away.front()?;
        // Those behind it wait for it, and it for those before: the longest of them is what there is to wait for.
        let tokens = self.away.iter().map(|away| away.tokens).max()?;
        if now_us.saturating_sub(*left_us) < self.pace.patience_us(tokens) {
            return None;
        }
        let machines = || self.chain.iter().filter_map(|link| link.machine);
        let waits = machines().find(|machine| done.get(machine).is_none_or(|done| *done <= *number));
        // All have run it, and it is not here: it is stuck on its way back.
        waits.or_else(|| machines().next_back())
    }

    /// What a pass was for the last measurements: microseconds of each machine of the chain, and of all hops together, for
    /// one token.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Tokens of vectors of this width that fit into one message.
    pub fn tokens_max(width: usize, activations: Activations) -> usize {
        let bytes = super::encoding::bytes(activations, width);
        littoral_wire::pipeline::VECTORS_BYTES_MAX / bytes.max(1)
    }
}
