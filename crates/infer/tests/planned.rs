//! Places by plans as machines come and go: closed forms of four layers of a megabyte each.

use littoral_infer::engine::{Engine, Limits};
use littoral_infer::model::Model;
use littoral_infer::split::head::{Head, Link};
use littoral_infer::split::measured::Measured;
use littoral_infer::split::membership::{Bounds, Decision, Membership, Settings};
use littoral_infer::split::place::HeadLayers;
use littoral_infer::split::plan::{self, Demand, LayerCost, ModelCost, Objective, Recovery};
use littoral_infer::split::planned::Planner;
use littoral_model::lm::CacheType;
use littoral_tensor::pool::Pool;
use littoral_wire::NodeId;
use littoral_wire::bounded::List;
use littoral_wire::pipeline::{Activations, Layers, Pipeline, Profile};
use std::collections::BTreeSet;
use std::sync::Arc;

mod tiny;

const LAYERS: usize = 4;
const SECOND: u64 = 1_000_000;
const MB: u64 = 1_000_000;
const MOST: usize = usize::MAX;

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn profile(name: &str, read_mb_per_s: u64, memory_mb: u64) -> Profile {
    Profile {
        name: name.into(),
        host: [0; 16],
        memory_bytes: memory_mb * MB,
        disk_free_bytes: MB,
        disk_read_bytes_per_s: 0,
        read_bytes_per_s: read_mb_per_s * MB,
        prefill_flops_per_s: 1_000_000 * MB,
        timed_bytes: MB,
    }
}

fn measured(n: u8, read_mb_per_s: u64, memory_mb: u64) -> Measured {
    Measured {
        profile: profile(&format!("m{n}"), read_mb_per_s, memory_mb),
        link: plan::Link { rtt_s: 1e-3, bytes_per_s: 1e9 },
    }
}

/// The head reads a megabyte a second, and has room for that many.
fn planner(memory_mb: u64) -> Planner {
    let layer = LayerCost { weight_bytes: MB, kv_bytes: 0, window: 0, flops: 1, flops_per_position: 0 };
    let model = ModelCost {
        layers: vec![layer; LAYERS],
        ends_bytes: 0,
        output_bytes: 0,
        output_flops: 0,
        width: 1,
        scratch_bytes: 0,
        logits_bytes: 0,
    };
    let demand = Demand {
        objective: Objective::Latency,
        streams: 1,
        context: 1,
        prompt: 1,
        activations: Activations::F32,
        recovery: Recovery::default(),
    };
    Planner::new(model, demand, profile("head", 1, memory_mb))
}

fn shown(chain: &[Link]) -> String {
    let link = |link: &Link| format!("{}{:?}", link.machine.map_or(0, |id| id.0[0]), link.ranges);
    chain.iter().map(link).collect::<Vec<_>>().join(" ")
}

struct World {
    file: Vec<u8>,
    head: Head,
    membership: Membership,
    pool: Pool,
    up: BTreeSet<u8>,
}

impl World {
    /// Machines 1, 2, ... have room for so many layers, and are up.
    fn new(planner: Planner, head_room: usize, rooms: &[usize]) -> Self {
        let (file, pool) = (tiny::file(LAYERS as u32), Pool::new(1));
        let ends = Arc::new(Model::load_ends(&file, &pool, &mut |_| ()).unwrap());
        let engine = Engine::new(ends, CacheType::F16, Limits::default()).unwrap();
        let head = Head::new(engine, [7; 32], CacheType::F16, Activations::F32, 1 << 20);
        let mut membership = Membership::new(Settings {
            machines: (1..=rooms.len() as u8).map(node).collect(),
            head_layers: HeadLayers::Just(0),
            head_room,
            bounds: Bounds::default(),
        });
        membership.follow(planner);
        let mut world = Self { file, head, membership, pool, up: BTreeSet::new() };
        rooms.iter().zip(1..).for_each(|(room, n)| world.up(n, *room, 0));
        world
    }

    fn up(&mut self, n: u8, room: usize, now_us: u64) {
        self.membership.up(&mut self.head, node(n), "here:1".into(), room, now_us);
        self.up.insert(n);
    }

    fn down(&mut self, n: u8, now_us: u64) {
        self.up.remove(&n);
        assert!(self.membership.down(&mut self.head, node(n), now_us));
    }

    /// When all have answered their beats.
    fn decide(&mut self, now_us: u64) -> Option<Decision> {
        for n in &self.up {
            self.membership.beat(&self.head, node(*n), u32::MAX, 0, now_us);
        }
        self.membership.decide(&self.head, now_us)
    }

    /// A machine is to get these layers, and nothing else is to be done before.
    fn gets(&mut self, n: u8, layers: std::ops::Range<usize>, now_us: u64) {
        let layers = vec![layers];
        assert_eq!(self.decide(now_us), Some(Decision::Get { machine: node(n), layers, sources: Vec::new() }));
    }

    fn hear(&mut self, n: u8, said: &Pipeline, now_us: u64) {
        assert_eq!(self.membership.hear(&mut self.head, node(n), said, &self.pool, now_us), None);
    }

    /// What is to be done; a placement gets ready. Empty: nothing.
    fn placed(&mut self, now_us: u64) -> String {
        let chain = match self.decide(now_us) {
            None => return String::new(),
            Some(Decision::Place(chain)) => chain,
            Some(other) => panic!("{other:?}"),
        };
        let said = shown(&chain);
        let machines: Vec<NodeId> = chain.iter().filter_map(|link| link.machine).collect();
        let lacking = self.head.place(chain, now_us);
        let load = |range| Arc::new(Model::load_layers(&self.file, range, &self.pool).unwrap());
        let stages = lacking.into_iter().map(load).collect();
        self.head.loaded(stages, &self.pool, now_us).unwrap();
        let ready = Pipeline::Ready { epoch: self.head.epoch(), load_us: 0 };
        for machine in machines {
            assert_eq!(self.membership.hear(&mut self.head, machine, &ready, &self.pool, now_us), None);
        }
        assert!(self.head.running());
        said
    }
}

#[test]
fn layers_lie_on_the_quickest_and_go_to_the_next_when_it_is_lost() {
    let mut planner = planner(100);
    planner.know(node(1), measured(1, 5, 100));
    planner.know(node(2), measured(2, 10, 100));
    let mut world = World::new(planner, MOST, &[MOST, MOST]);
    // 400 ms and two hops, against 800 ms on the other and 4 s on the head.
    assert_eq!(world.placed(0), "0[] 2[0..4]");
    assert_eq!(world.placed(SECOND), "");
    world.down(2, SECOND);
    assert_eq!(world.placed(SECOND), "0[] 1[0..4]");
    world.down(1, 2 * SECOND);
    assert_eq!(world.placed(2 * SECOND), "0[0..4]");
    world.up(1, MOST, 3 * SECOND);
    world.up(2, MOST, 3 * SECOND);
    // Nobody is being answered.
    assert_eq!(world.placed(3 * SECOND), "0[] 2[0..4]");
}

#[test]
fn machines_that_would_only_slow_the_head_are_spares_and_their_coming_changes_nothing() {
    let mut planner = planner(100);
    planner.know(node(1), measured(1, 1, 100));
    let (plan, fleet) = planner.plan(&[node(1), node(2)]).unwrap();
    // Of the second nothing is known.
    assert_eq!(fleet.devices().len(), 2);
    assert!(plan.verdicts[1].why.starts_with("out: each token would wait 1.0"), "{}", plan.verdicts[1].why);
    let mut world = World::new(planner, MOST, &[MOST, MOST]);
    assert_eq!(world.placed(0), "0[0..4]");
    world.down(1, SECOND);
    world.up(1, MOST, 2 * SECOND);
    assert_eq!(world.placed(2 * SECOND), "");
    // It is quicker than was thought.
    world.membership.know(node(2), measured(2, 50, 100));
    assert_eq!(world.placed(3 * SECOND), "0[] 2[0..4]");
}

#[test]
fn a_plan_is_kept_to_as_far_as_there_is_room() {
    let mut planner = planner(100);
    planner.know(node(1), measured(1, 5, 100));
    planner.know(node(2), measured(2, 10, 100));
    // The first is a spare by the plan, and gets what the second has no room for.
    let mut world = World::new(planner, 1, &[MOST, 3]);
    assert_eq!(world.placed(0), "0[] 2[0..3] 1[3..4]");
    world.down(2, SECOND);
    // To the neighbour; the head has no room for three.
    assert_eq!(world.placed(SECOND), "0[] 1[0..3, 3..4]");
    world.down(1, 2 * SECOND);
    assert_eq!(world.placed(2 * SECOND), "");
}

#[test]
fn where_nothing_fits_by_the_plan_layers_are_spread_evenly() {
    let mut planner = planner(1);
    planner.know(node(1), measured(1, 5, 1));
    assert!(planner.plan(&[node(1)]).is_err());
    assert_eq!(planner.shares(&[node(1)]), None);
    let mut world = World::new(planner, MOST, &[MOST, MOST]);
    assert_eq!(world.placed(0), "0[] 1[0..2] 2[2..4]");
}

#[test]
fn a_model_too_big_for_the_head_is_split_and_the_lost_part_goes_where_a_token_is_quickest() {
    // Of 4 MB, 3.2 may be used: three layers each.
    let mut planner = planner(4);
    for (n, read_mb_per_s) in [(1, 1), (2, 20), (3, 4)] {
        planner.know(node(n), measured(n, read_mb_per_s, 4));
    }
    assert_eq!(planner.shares(&[1, 2, 3].map(node)), Some(vec![(None, 0), (Some(node(2)), 3), (Some(node(3)), 1)]));
    let mut world = World::new(planner, 3, &[3; 3]);
    assert_eq!(world.placed(0), "0[] 2[0..3] 3[3..4]");
    world.down(3, SECOND);
    // The neighbour is full; the spare is as slow as the head, which needs no hop.
    assert_eq!(world.placed(SECOND), "0[] 2[0..3] 1[3..4]");
    // Now that nobody is being answered the plan counts.
    assert_eq!(world.placed(2 * SECOND), "0[0..1] 2[1..4]");
}

/// The quicker one has three layers. When the other turns out to be quicker still, the same two are cut otherwise, once.
#[test]
fn another_cut_of_the_same_machines_is_made_when_nobody_is_answered() {
    let mut planner = planner(4);
    planner.know(node(1), measured(1, 20, 4));
    planner.know(node(2), measured(2, 10, 4));
    let mut world = World::new(planner, 3, &[3; 2]);
    assert_eq!(world.placed(0), "0[] 1[0..3] 2[3..4]");
    world.membership.know(node(2), measured(2, 100, 4));
    assert_eq!(world.placed(SECOND), "0[] 1[0..1] 2[1..4]");
    assert_eq!(world.placed(2 * SECOND), "");
}

fn has(start: u32, end: u32) -> Pipeline {
    let layers = List::new(vec![Layers { start, end }]).unwrap();
    Pipeline::Has { model: [7; 32], layers, why: None }
}

/// The quickest by the plan lacks the file. Until it has all that the plan gives it the next one computes, also when it has some;
/// and when it can get nothing after all the plan is the one without it.
#[test]
fn a_plan_counts_on_a_machine_that_lacks_the_file_when_it_has_its_layers() {
    let planned = || {
        let mut planner = planner(100);
        planner.know(node(1), measured(1, 5, 100));
        planner.know(node(2), measured(2, 10, 100));
        let mut world = World::new(planner, MOST, &[MOST, MOST]);
        world.membership.lacks_file(node(2));
        world.gets(2, 0..4, 0);
        assert_eq!(world.placed(0), "0[] 1[0..4]");
        world
    };
    let mut world = planned();
    world.hear(2, &has(0, 3), SECOND);
    assert_eq!(world.placed(SECOND), "");
    world.hear(2, &has(0, 4), 2 * SECOND);
    assert_eq!(world.placed(2 * SECOND), "0[] 2[0..4]");
    // Lost, and here again: nobody knows yet what it has kept.
    world.down(2, 3 * SECOND);
    assert_eq!(world.placed(3 * SECOND), "0[] 1[0..4]");
    world.up(2, MOST, 4 * SECOND);
    world.membership.lacks_file(node(2));
    world.gets(2, 0..4, 4 * SECOND);
    assert_eq!(world.placed(4 * SECOND), "");
    world.hear(2, &has(0, 4), 5 * SECOND);
    assert_eq!(world.placed(5 * SECOND), "0[] 2[0..4]");

    let mut world = planned();
    world.hear(2, &Pipeline::Cannot { reason: "no folder".into() }, SECOND);
    assert_eq!(world.membership.holdings().cannot(node(2)), Some("no folder"));
    assert_eq!(world.placed(SECOND), "");
    world.down(1, 2 * SECOND);
    assert_eq!(world.placed(2 * SECOND), "0[0..4]");
    // Its process is another one.
    world.up(2, MOST, 3 * SECOND);
    world.membership.lacks_file(node(2));
    world.gets(2, 0..4, 3 * SECOND);
}

/// Three layers fit on the quick one and one more machine is needed, of which one cannot get it: requests do not wait for that one.
#[test]
fn layers_that_a_machine_cannot_get_go_to_another() {
    let mut planner = planner(4);
    for (n, read_mb_per_s) in [(1, 20), (2, 10), (3, 5)] {
        planner.know(node(n), measured(n, read_mb_per_s, 4));
    }
    let mut world = World::new(planner, 0, &[3; 3]);
    world.membership.lacks_file(node(2));
    world.gets(2, 3..4, 0);
    assert_eq!(world.placed(0), "0[] 1[0..3] 3[3..4]");
    world.hear(2, &Pipeline::Cannot { reason: "no folder".into() }, SECOND);
    assert_eq!(world.placed(SECOND), "");
    world.down(3, 2 * SECOND);
    world.head.engine_mut().submit(tiny::request(3, 20, 20)).unwrap();
    assert_eq!(world.decide(2 * SECOND), None);
    let Some(Decision::Fail(why)) = world.decide(32 * SECOND) else { panic!("no end") };
    assert!(why.contains("1 of 3 machines are away, 1 can get none, and those"), "{why}");
}

#[test]
fn a_machine_with_neither_the_file_nor_a_folder_is_in_no_plan() {
    let mut planner = planner(100);
    let mut quick = measured(2, 100, 100);
    (quick.profile.timed_bytes, quick.profile.disk_free_bytes) = (0, 0);
    planner.know(node(1), measured(1, 5, 100));
    planner.know(node(2), quick.clone());
    assert_eq!((planner.out(node(1)), planner.out(node(2))), (None, quick.out()));
    assert!(quick.out().is_some_and(|why| why.starts_with("out: it has no copy of the model's file")));
    let machines = [1, 2].map(node);
    assert_eq!(planner.plan(&machines).unwrap().1.devices().len(), 2, "the head and the other");
    assert_eq!(planner.shares(&machines), Some(vec![(None, 0), (Some(node(1)), 4)]));
    // With a folder it can fetch.
    quick.profile.disk_free_bytes = 1;
    planner.know(node(2), quick);
    assert_eq!(planner.shares(&machines), Some(vec![(None, 0), (Some(node(2)), 4)]));
}
