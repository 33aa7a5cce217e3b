//! A chain of machines writes what one machine writes, whoever is lost on the way.

use littoral_infer::engine::{Engine, Limits, Request, SequenceId};
use littoral_infer::model::Model;
use littoral_infer::split::head::{Head, Link};
use littoral_infer::split::worker::{To, Worker};
use littoral_model::lm::{CacheType, Stage};
use littoral_tensor::pool::Pool;
use littoral_wire::pipeline::{Activations, Pipeline};
use littoral_wire::{NodeId, Wire};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use tiny::{Texts, alone, hear, request};

mod tiny;

const LAYERS: usize = 6;
const LOG: usize = 1 << 20;

struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

/// One message on its way, in order between two machines.
type Wires = BTreeMap<(Option<NodeId>, Option<NodeId>), VecDeque<Vec<u8>>>;

struct World {
    file: Vec<u8>,
    pool: Pool,
    head: Head,
    workers: BTreeMap<NodeId, Worker>,
    wires: Wires,
    draws: Draws,
    replays: usize,
    lost: usize,
}

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// `at`: boundaries of the ranges.
fn link(machine: Option<u8>, at: &[usize]) -> Link {
    Link { machine: machine.map(node), ranges: at.windows(2).map(|pair| pair[0]..pair[1]).collect() }
}

impl World {
    fn new(seed: u64, limits: Limits, log_bytes_max: usize, workers: u8) -> Self {
        let (file, pool) = (tiny::file(LAYERS as u32), Pool::new(1));
        let ends = Arc::new(Model::load_ends(&file, &pool, &mut |_| ()).unwrap());
        let engine = Engine::new(ends, CacheType::F16, limits).unwrap();
        let mut head = Head::new(engine, [7; 32], CacheType::F16, Activations::F32, log_bytes_max);
        let config = Model::config(&file).unwrap();
        let workers: BTreeMap<NodeId, Worker> =
            (1..=workers).map(|n| (node(n), Worker::new(config.clone(), log_bytes_max))).collect();
        for worker in workers.keys() {
            head.up(*worker, "here:1".into());
        }
        Self { file, pool, head, workers, wires: Wires::new(), draws: Draws(seed), replays: 0, lost: 0 }
    }

    fn load(&self, ranges: Vec<Range<usize>>) -> Vec<Arc<Stage>> {
        let load = |range| Arc::new(Model::load_layers(&self.file, range, &self.pool).unwrap());
        ranges.into_iter().map(load).collect()
    }

    fn place(&mut self, chain: Vec<Link>) {
        let lacking = self.head.place(chain, 0);
        let stages = self.load(lacking);
        self.head.loaded(stages, &self.pool, 0).unwrap();
    }

    /// Some machines, some cuts: whoever is up may be in it, in any order, the head with layers or without.
    fn any_chain(&mut self) -> Vec<Link> {
        let mut machines: Vec<NodeId> = self.workers.keys().copied().collect();
        let count = self.draws.below(machines.len() + 1);
        while machines.len() > count {
            machines.remove(self.draws.below(machines.len()));
        }
        for i in (1..machines.len()).rev() {
            machines.swap(i, self.draws.below(i + 1));
        }
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let mut at = 0;
        while at < LAYERS {
            let end = at + 1 + self.draws.below(LAYERS - at);
            ranges.push(at..end);
            at = end;
        }
        let mut chain = vec![Link { machine: None, ranges: Vec::new() }];
        chain.extend(machines.into_iter().map(|id| Link { machine: Some(id), ranges: Vec::new() }));
        let mut link = self.draws.below(2).min(chain.len() - 1);
        for range in ranges {
            chain[link].ranges.push(range);
            link = (link + self.draws.below(2)).min(chain.len() - 1);
        }
        chain.retain(|link| link.machine.is_none() || !link.ranges.is_empty());
        chain
    }

    /// The layers of one that is lost go to a neighbour or to one that has none.
    fn takeover(&mut self, lost: NodeId) -> Vec<Link> {
        let mut chain = self.head.chain().to_vec();
        let at = chain.iter().position(|link| link.machine == Some(lost)).expect("one of the chain");
        let gone = chain.remove(at);
        let spare = self.workers.keys().find(|id| !chain.iter().any(|link| link.machine == Some(**id))).copied();
        match (self.draws.below(3), spare) {
            (0, Some(spare)) => chain.insert(at, Link { machine: Some(spare), ranges: gone.ranges }),
            (1, _) if at < chain.len() => {
                let own = std::mem::replace(&mut chain[at].ranges, gone.ranges);
                chain[at].ranges.extend(own);
            }
            _ => chain[at - 1].ranges.extend(gone.ranges),
        }
        chain
    }

    fn say(&mut self, from: Option<NodeId>, to: Option<NodeId>, said: &Pipeline) {
        self.wires.entry((from, to)).or_default().push_back(said.to_bytes());
    }

    /// Delivers one message of some wire.
    fn deliver(&mut self) {
        let full: Vec<_> = self.wires.iter().filter(|(_, wire)| !wire.is_empty()).map(|(ends, _)| *ends).collect();
        let Some((from, to)) = (!full.is_empty()).then(|| full[self.draws.below(full.len())]) else { return };
        let bytes = self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front).unwrap();
        let said = Pipeline::from_bytes(&bytes).unwrap();
        let Some(to) = to else {
            return self.head.hear(from.unwrap(), &said, &self.pool, 0);
        };
        let Some(mut worker) = self.workers.remove(&to) else { return };
        match &said {
            Pipeline::Assign { assign } => {
                let lacking = worker.assign(assign).unwrap();
                worker.ready(self.load(lacking)).unwrap();
                self.say(Some(to), None, &Pipeline::Ready { epoch: assign.epoch, load_us: 0 });
            }
            other => {
                self.replays += usize::from(matches!(other, Pipeline::Again { .. } | Pipeline::Replay { .. }));
                for (there, said) in worker.hear(other, &self.pool, &mut || 0).unwrap() {
                    let chain = self.head.chain();
                    let at = chain.iter().position(|link| link.machine == Some(to));
                    let next = match there {
                        To::Head => None,
                        // It says so to whom it was told to, who may be lost by now.
                        To::Next => at.and_then(|at| chain.get(at + 1)).and_then(|link| link.machine).or(Some(node(0))),
                    };
                    self.say(Some(to), next, &said);
                }
            }
        }
        self.workers.insert(to, worker);
    }

    fn kill(&mut self, lost: NodeId) {
        let used = self.head.chain().iter().any(|link| link.machine == Some(lost));
        self.workers.remove(&lost);
        self.wires.retain(|(from, to), _| *from != Some(lost) && *to != Some(lost));
        self.head.down(lost);
        self.lost += 1;
        if used {
            assert!(self.head.broken());
            let chain = self.takeover(lost);
            self.place(chain);
        }
        // It comes back, and knows nothing.
        let config = Model::config(&self.file).unwrap();
        self.workers.insert(lost, Worker::new(config, LOG));
        self.head.up(lost, "here:1".into());
    }

    fn turn(&mut self) {
        self.head.pump(&self.pool, &mut || 0);
        for (machine, said) in self.head.outbox() {
            self.say(None, Some(machine), &said);
        }
        self.deliver();
    }
}

/// Any chain, any order of arrival between machines, any loss at any time, takeovers by neighbours, by spare machines and
/// by the head, machines that come back, logs that are too small: the texts are those of one machine.
#[test]
fn a_chain_writes_what_one_machine_writes() {
    let model = tiny::model(LAYERS as u32);
    let requests: Vec<Request> = (0..5).map(|i| request(i, 1 + 12 * i as usize, 40)).collect();
    let expected: Vec<_> = requests.iter().map(|request| alone(&model, request.clone())).collect();
    let (mut replays, mut lost, mut passes_at_once) = (0, 0, 0);
    for seed in 0..120 {
        let limits = Limits { running_max: 4, prompt_tokens_per_pass: 9, ..Limits::default() };
        let log = if seed % 5 == 4 { 4_000 } else { LOG };
        let mut world = World::new(seed, limits, log, 4);
        let chain = world.any_chain();
        world.place(chain);
        for request in &requests {
            world.head.engine_mut().submit(request.clone()).unwrap();
        }
        let (mut texts, mut turns) = (Texts::new(), 0);
        while !world.head.engine().idle() {
            turns += 1;
            assert!(turns < 20_000, "seed {seed}: no end, {:?}", world.head.chain());
            world.turn();
            passes_at_once = passes_at_once.max(world.head.engine().passes());
            if seed % 3 > 0 && world.draws.below(30) == 0 {
                // Mostly one that has layers.
                let used: Vec<NodeId> = world.head.chain().iter().filter_map(|link| link.machine).collect();
                let any = node(1 + world.draws.below(4) as u8);
                let victim = if used.is_empty() { any } else { used[world.draws.below(used.len())] };
                world.kill(victim);
            }
            // Those that came back get layers again, at any time.
            if seed % 3 > 0 && world.draws.below(150) == 0 {
                let chain = world.any_chain();
                world.place(chain);
            }
            hear(world.head.engine_mut().events(), &mut texts);
        }
        for (index, expected) in expected.iter().enumerate() {
            assert_eq!(&texts[&SequenceId(index as u64)], expected, "seed {seed}, sequence {index}");
        }
        replays += world.replays;
        lost += world.lost;
    }
    assert!(replays > 100 && lost > 200 && passes_at_once >= 3, "{replays} replays, {lost} lost, {passes_at_once}");
}

/// What a neighbour logged is heard again, and nothing is read twice from its ids.
#[test]
fn only_what_was_lost_is_computed_again() {
    let mut world = World::new(1, Limits::default(), LOG, 3);
    world.place(vec![link(None, &[]), link(Some(1), &[0, 2]), link(Some(2), &[2, 4]), link(Some(3), &[4, 6])]);
    let expected = alone(&tiny::model(LAYERS as u32), request(3, 40, 20));
    world.head.engine_mut().submit(request(3, 40, 20)).unwrap();
    let mut texts = Texts::new();
    let written = |texts: &Texts| texts.values().next().map_or(0, |(text, _)| text.len());
    // Three machines in turn are lost, the layers go to the one before, to the one behind, and to the head.
    let chains = [
        (2, vec![link(None, &[]), link(Some(1), &[0, 2, 4]), link(Some(3), &[4, 6])]),
        (1, vec![link(None, &[]), link(Some(3), &[0, 2, 4, 6])]),
        (3, vec![link(None, &[0, 2, 4, 6])]),
    ];
    for (lost, chain) in chains {
        let before = written(&texts);
        while written(&texts) < before + 4 {
            world.turn();
            hear(world.head.engine_mut().events(), &mut texts);
        }
        world.workers.remove(&node(lost));
        world.wires.retain(|(from, to), _| *from != Some(node(lost)) && *to != Some(node(lost)));
        world.head.down(node(lost));
        let states: Vec<_> = world.head.engine().states().collect();
        world.place(chain);
        while !world.head.running() {
            world.turn();
        }
        // No state went back: all was heard again.
        assert_eq!(world.head.engine().states().collect::<Vec<_>>(), states, "without {lost}");
    }
    while !world.head.engine().idle() {
        world.turn();
        hear(world.head.engine_mut().events(), &mut texts);
    }
    assert_eq!(texts.into_values().next().unwrap(), expected);
}

/// A machine that got layers while nobody was answered kept what it had sent before for itself: it must not take that for what
/// the next one lacks.
#[test]
fn a_loss_in_an_answer_is_made_good_after_one_between_answers() {
    let mut world = World::new(1, Limits::default(), LOG, 4);
    let lose = |world: &mut World, n: u8, chain: Vec<Link>| {
        world.workers.remove(&node(n));
        world.wires.retain(|(from, to), _| *from != Some(node(n)) && *to != Some(node(n)));
        world.head.down(node(n));
        world.place(chain);
        for _ in 0..200 {
            world.turn();
        }
        assert!(world.head.running(), "without {n}");
    };
    world.place(vec![link(None, &[]), link(Some(1), &[0, 2]), link(Some(2), &[2, 4]), link(Some(3), &[4, 6])]);
    let mut texts = Texts::new();
    world.head.engine_mut().submit(request(3, 40, 8)).unwrap();
    while !world.head.engine().idle() {
        world.turn();
        hear(world.head.engine_mut().events(), &mut texts);
    }
    lose(&mut world, 2, vec![link(None, &[]), link(Some(1), &[0, 2, 4]), link(Some(3), &[4, 6])]);
    let again = request(5, 30, 20);
    world.head.engine_mut().submit(again.clone()).unwrap();
    while world.head.engine().states().all(|(_, positions)| positions < 35) {
        world.turn();
        hear(world.head.engine_mut().events(), &mut texts);
    }
    let states: Vec<_> = world.head.engine().states().collect();
    lose(&mut world, 3, vec![link(None, &[]), link(Some(1), &[0, 2, 4]), link(Some(4), &[4, 6])]);
    assert!(
        world
            .head
            .engine()
            .states()
            .all(|state| states.iter().any(|before| before.0 == state.0 && before.1 <= state.1))
    );
    while !world.head.engine().idle() {
        world.turn();
        hear(world.head.engine_mut().events(), &mut texts);
    }
    hear(world.head.engine_mut().events(), &mut texts);
    assert_eq!(texts[&SequenceId(1)], alone(&tiny::model(LAYERS as u32), again));
}
