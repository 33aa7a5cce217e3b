//! Which machines have layers, decided step by step; the simulator's `serving` scenarios run the same at length.

use littoral_infer::engine::{Engine, Event, Finish, Limits, Request};
use littoral_infer::model::Model;
use littoral_infer::sample::SamplingParams;
use littoral_infer::split::head::{Head, Link};
use littoral_infer::split::membership::{Bounds, Decision, Membership, Settings};
use littoral_infer::split::place::HeadLayers;
use littoral_infer::split::worker::Worker;
use littoral_model::lm::CacheType;
use littoral_tensor::pool::Pool;
use littoral_wire::pipeline::{Activations, Assign, Layers, Pipeline};
use littoral_wire::{List, NodeId};
use std::sync::Arc;

mod tiny;

const LAYERS: usize = 4;
const SECOND: u64 = 1_000_000;

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

struct World {
    head: Head,
    membership: Membership,
    pool: Pool,
}

impl World {
    /// All machines are up from the beginning.
    fn new(machines: u8, head_room: usize, room: usize) -> Self {
        let (file, pool) = (tiny::file(LAYERS as u32), Pool::new(1));
        let ends = Arc::new(Model::load_ends(&file, &pool, &mut |_| ()).unwrap());
        let engine = Engine::new(ends, CacheType::F16, Limits::default()).unwrap();
        let mut head = Head::new(engine, [7; 32], CacheType::F16, Activations::F32, 1 << 20);
        let machines: Vec<NodeId> = (1..=machines).map(node).collect();
        let mut membership = Membership::new(Settings {
            machines: machines.clone(),
            head_layers: HeadLayers::Just(0),
            head_room,
            bounds: Bounds::default(),
        });
        machines.iter().for_each(|id| membership.up(&mut head, *id, "here:1".into(), room, 0));
        Self { head, membership, pool }
    }

    fn decide(&mut self, now_us: u64) -> Option<Decision> {
        self.membership.decide(&self.head, now_us)
    }

    /// A placement is to be decided; all get ready. Returns who has layers.
    fn placed(&mut self, now_us: u64) -> Vec<u8> {
        let Some(Decision::Place(chain)) = self.decide(now_us) else { panic!("a placement expected") };
        let machines: Vec<NodeId> = chain.iter().filter_map(|link: &Link| link.machine).collect();
        self.head.place(chain, now_us);
        let epoch = self.head.epoch();
        self.head.loaded(Vec::new(), &self.pool, now_us).unwrap();
        for machine in &machines {
            self.hear(*machine, Pipeline::Ready { epoch, load_us: 0 }, now_us);
        }
        assert!(self.head.running());
        machines.iter().map(|id| id.0[0]).collect()
    }

    fn hear(&mut self, machine: NodeId, said: Pipeline, now_us: u64) -> Option<String> {
        self.membership.hear(&mut self.head, machine, &said, &self.pool, now_us)
    }

    fn refuse(&mut self, machine: u8, epoch: u32, now_us: u64) -> Option<String> {
        self.hear(node(machine), Pipeline::Refused { epoch, reason: "no".into() }, now_us)
    }
}

#[test]
fn one_that_refuses_is_used_again_a_minute_later_and_an_old_refusal_counts_for_nothing() {
    let mut world = World::new(2, 9, 9);
    assert_eq!(world.placed(0), [1, 2]);
    assert_eq!(world.refuse(2, 1, SECOND), Some("it refuses: no".into()));
    assert_eq!(world.placed(SECOND), [1]);
    assert_eq!(world.refuse(1, 1, SECOND), None);
    assert_eq!(world.decide(60 * SECOND), None);
    // Its link was up all the time.
    assert_eq!(world.placed(61 * SECOND), [1, 2]);
}

#[test]
fn machines_that_no_layer_is_left_for_are_no_reason_to_place_anew() {
    let mut world = World::new(6, 9, 9);
    assert_eq!(world.placed(0).len(), LAYERS);
    assert_eq!(world.decide(SECOND), None);
}

#[test]
fn requests_for_layers_that_nobody_can_have_fail_after_half_a_minute() {
    let mut world = World::new(2, 1, 2);
    assert_eq!(world.placed(0), [1, 2]);
    let request = Request {
        prompt: vec![1, 2, 3],
        max_tokens: 3,
        sampling: SamplingParams::default(),
        constraint: None,
        top_logprobs: None,
        ignore_end: true,
    };
    world.head.engine_mut().submit(request).unwrap();
    assert!(world.membership.down(&mut world.head, node(2), SECOND));
    assert_eq!(world.decide(SECOND), None);
    assert_eq!(world.decide(30 * SECOND), None);
    let Some(Decision::Fail(why)) = world.decide(31 * SECOND) else { panic!("no end") };
    assert!(why.starts_with("layers 3 to 3 of 4 have no machine since 30 s: 1 of 2 machines are away"), "{why}");
    world.head.engine_mut().fail(&why);
    let events = world.head.engine_mut().events();
    assert!(matches!(&events[..], [Event::Finished { why: Finish::Failed(_), .. }]), "{events:?}");
    assert_eq!(world.decide(32 * SECOND), None);
    // It is back.
    world.membership.up(&mut world.head, node(2), "here:1".into(), 2, 40 * SECOND);
    assert_eq!(world.placed(40 * SECOND), [1, 2]);
}

#[test]
fn one_that_does_not_get_ready_is_given_up() {
    let mut world = World::new(2, 9, 9);
    let Some(Decision::Place(chain)) = world.decide(0) else { panic!("a placement expected") };
    world.head.place(chain, 0);
    world.head.loaded(Vec::new(), &world.pool, 0).unwrap();
    world.hear(node(1), Pipeline::Ready { epoch: 1, load_us: 0 }, 0);
    assert_eq!(world.decide(120 * SECOND), None);
    let given_up = Decision::GiveUp { machine: node(2), why: "it did not get ready" };
    assert_eq!(world.decide(121 * SECOND), Some(given_up));
    world.membership.down(&mut world.head, node(2), 121 * SECOND);
    assert_eq!(world.placed(121 * SECOND), [1]);
}

/// It was not told which of its states are free by now; nobody would tell it ever after.
#[test]
fn a_machine_that_was_out_of_the_chain_has_no_states_when_it_is_back() {
    let (file, pool) = (tiny::file(LAYERS as u32), Pool::new(1));
    let mut worker = Worker::new(Model::config(&file).unwrap(), 1 << 20);
    let assign = |epoch| Assign {
        epoch,
        model: [7; 32],
        segments: List::new(vec![Layers { start: 0, end: 4 }]).unwrap(),
        cache_type: 1,
        activations: Activations::F32,
        from: None,
        to: None,
    };
    let pass = |epoch| {
        let pieces = vec![littoral_wire::pipeline::Piece { slot: 3, start: 0, tokens: 1, wanted: 1 }];
        Pipeline::Pass(littoral_wire::pipeline::Pass {
            epoch,
            number: 0,
            forks: List::default(),
            freed: List::default(),
            pieces: List::new(pieces).unwrap(),
            times_us: List::default(),
            vectors: littoral_wire::bounded::Blob::new(vec![0; 4 * tiny::WIDTH]).unwrap(),
        })
    };
    let lacking = worker.assign(&assign(1)).unwrap();
    let load = |range| Arc::new(Model::load_layers(&file, range, &pool).unwrap());
    worker.ready(lacking.into_iter().map(load).collect()).unwrap();
    worker.hear(&pass(1), &pool, &mut || 0).unwrap();
    assert!(worker.assign(&assign(2)).unwrap().is_empty());
    assert_eq!(worker.slots(), 1);
    // Its layers stay.
    assert!(worker.assign(&assign(4)).unwrap().is_empty());
    assert_eq!(worker.slots(), 0);
}
