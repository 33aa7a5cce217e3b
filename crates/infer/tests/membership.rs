//! Which machines have layers, decided step by step; the simulator's `serving` scenarios run the same at length.

use littoral_infer::engine::{Engine, Event, Finish, Limits};
use littoral_infer::model::Model;
use littoral_infer::split::head::{Head, Link};
use littoral_infer::split::membership::{Bounds, Decision, Membership, Settings};
use littoral_infer::split::place::HeadLayers;
use littoral_infer::split::worker::{To, Worker};
use littoral_model::lm::CacheType;
use littoral_tensor::pool::Pool;
use littoral_wire::NodeId;
use littoral_wire::bounded::{Blob, List};
use littoral_wire::pipeline::{Activations, Layers, Pipeline};
use std::collections::{BTreeMap, VecDeque};
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
            // Before a pass that does not come back is late.
            bounds: Bounds { holding_max_us: 10 * SECOND, ..Bounds::default() },
        });
        machines.iter().for_each(|id| membership.up(&mut head, *id, "here:1".into(), room, 0));
        Self { head, membership, pool }
    }

    /// All that are up answer their beats, of no epoch.
    fn decide(&mut self, now_us: u64) -> Option<Decision> {
        (1..=8).for_each(|n| self.beat(n, now_us));
        self.membership.decide(&self.head, now_us)
    }

    fn beat(&mut self, n: u8, now_us: u64) {
        self.membership.beat(&self.head, node(n), u32::MAX, 0, now_us);
    }

    /// A placement is to be decided; all get ready. Returns who has layers.
    fn placed(&mut self, now_us: u64) -> Vec<u8> {
        let Some(Decision::Place(chain)) = self.decide(now_us) else { panic!("a placement expected") };
        let machines: Vec<NodeId> = chain.iter().filter_map(|link: &Link| link.machine).collect();
        let lacking = self.head.place(chain, now_us);
        let epoch = self.head.epoch();
        let file = tiny::file(LAYERS as u32);
        let load = |range| Arc::new(Model::load_layers(&file, range, &self.pool).unwrap());
        self.head.loaded(lacking.into_iter().map(load).collect(), &self.pool, now_us).unwrap();
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
    // It was dialled again at once.
    world.membership.up(&mut world.head, node(2), "here:1".into(), 9, 2 * SECOND);
    assert_eq!(world.decide(60 * SECOND), None);
    assert_eq!(world.placed(61 * SECOND), [1, 2]);
}

/// Its link is up, and says nothing of it; nor do its beats, whose connection may never have come up again.
#[test]
fn a_machine_of_which_nothing_is_heard_is_lost_and_one_that_does_not_beat_gets_nothing() {
    let mut world = World::new(2, 9, 9);
    assert_eq!(world.placed(0), [1, 2]);
    world.beat(1, 700_000);
    assert_eq!(world.membership.decide(&world.head, 750_000), None);
    let lost = Decision::GiveUp { machines: vec![node(2)], why: "nothing is heard of it" };
    assert_eq!(world.membership.decide(&world.head, 800_000), Some(lost));
    world.membership.down(&mut world.head, node(2), 800_000);
    world.membership.up(&mut world.head, node(2), "here:1".into(), 9, 900_000);
    let Some(Decision::Place(chain)) = world.membership.decide(&world.head, 900_000) else { panic!("a placement") };
    assert_eq!(chain.iter().filter_map(|link| link.machine).collect::<Vec<_>>(), [node(1)]);
    world.head.place(chain, 900_000);
    world.head.loaded(Vec::new(), &world.pool, 900_000).unwrap();
    let epoch = world.head.epoch();
    world.hear(node(1), Pipeline::Ready { epoch, load_us: 0 }, 900_000);
    assert_eq!(world.membership.decide(&world.head, 900_000), None);
    assert_eq!(world.placed(SECOND), [1, 2]);
}

#[test]
fn machines_that_no_layer_is_left_for_are_no_reason_to_place_anew() {
    let mut world = World::new(6, 9, 9);
    assert_eq!(world.placed(0).len(), LAYERS);
    assert_eq!(world.decide(SECOND), None);
}

/// Texts are written all the time, one after another.
#[test]
fn a_machine_that_came_is_taken_in_although_somebody_is_always_answered() {
    let request = tiny::request(3, 3, 30);
    // Between two texts; and all the same, if one has no end.
    for ends in [true, false] {
        let mut world = World::new(2, 9, 9);
        world.membership.down(&mut world.head, node(2), 0);
        assert_eq!(world.placed(5 * SECOND), [1]);
        let first = world.head.engine_mut().submit(request.clone()).unwrap();
        let pool = Pool::new(1);
        assert!(world.head.pump(&pool, &mut || 0));
        let running = world.head.engine().running();
        world.membership.up(&mut world.head, node(2), "here:1".into(), 9, 6 * SECOND);
        assert_eq!(world.decide(6 * SECOND), None);
        assert_eq!(world.decide(10 * SECOND), None);
        assert_eq!(world.decide(11 * SECOND), Some(Decision::Hold(true)));
        world.head.engine_mut().hold(true);
        world.head.engine_mut().submit(request.clone()).unwrap();
        assert_eq!((world.decide(12 * SECOND), world.head.engine().running()), (None, running));
        let at_us = if ends {
            world.head.engine_mut().cancel(first);
            13 * SECOND
        } else {
            assert_eq!(world.decide(20 * SECOND), None);
            21 * SECOND
        };
        assert_eq!(world.placed(at_us), [1, 2]);
        assert!(world.head.pump(&pool, &mut || 0), "nobody waits any more");
        assert_eq!(world.decide(at_us + SECOND), None);
    }
    // Who leaves again is not waited for.
    let mut world = World::new(2, 9, 9);
    world.membership.down(&mut world.head, node(2), 0);
    assert_eq!(world.placed(5 * SECOND), [1]);
    world.head.engine_mut().submit(request).unwrap();
    assert!(world.head.pump(&Pool::new(1), &mut || 0));
    world.membership.up(&mut world.head, node(2), "here:1".into(), 9, 6 * SECOND);
    assert_eq!(world.decide(6 * SECOND), None);
    assert_eq!(world.decide(11 * SECOND), Some(Decision::Hold(true)));
    world.membership.down(&mut world.head, node(2), 12 * SECOND);
    assert_eq!(world.decide(12 * SECOND), Some(Decision::Hold(false)));
}

#[test]
fn requests_for_layers_that_nobody_can_have_fail_after_half_a_minute() {
    let mut world = World::new(2, 1, 2);
    assert_eq!(world.placed(0), [1, 2]);
    let request = tiny::request(3, 3, 3);
    world.head.engine_mut().submit(request).unwrap();
    assert!(world.membership.down(&mut world.head, node(2), SECOND));
    assert_eq!(world.decide(SECOND), None);
    assert_eq!(world.decide(30 * SECOND), None);
    let Some(Decision::Fail(why)) = world.decide(31 * SECOND) else { panic!("no end") };
    assert!(why.starts_with("layers 3 to 3 of 4 have had no machine for 30 s: 1 of 2 machines are away"), "{why}");
    let events = world.head.fail_requests(&why);
    assert!(
        matches!(&events[..], [Event::Started { .. }, Event::Finished { why: Finish::Failed(_), .. }]),
        "{events:?}"
    );
    assert_eq!(world.decide(32 * SECOND), None);
    // It is back.
    world.membership.up(&mut world.head, node(2), "here:1".into(), 2, 40 * SECOND);
    assert_eq!(world.placed(40 * SECOND), [1, 2]);
}

fn has(start: u32, end: u32) -> Pipeline {
    Pipeline::Has { model: [7; 32], layers: List::new(vec![Layers { start, end }]).unwrap(), why: None }
}

fn get(machine: u8, layers: std::ops::Range<usize>, sources: &[u8]) -> Option<Decision> {
    let sources = sources.iter().map(|n| node(*n)).collect();
    Some(Decision::Get { machine: node(machine), layers: std::iter::once(layers).collect(), sources })
}

#[test]
fn a_machine_without_the_file_fetches_its_layers_and_joins_between_requests() {
    let mut world = World::new(3, 9, 9);
    world.membership.lacks_file(node(2));
    world.membership.lacks_file(node(3));
    assert_eq!(world.decide(0), get(2, 1..2, &[]));
    assert_eq!(world.decide(0), get(3, 2..4, &[]));
    assert_eq!(world.placed(0), [1]);
    // Of another model it says nothing.
    let layers = List::new(vec![Layers { start: 0, end: 4 }]).unwrap();
    world.hear(node(3), Pipeline::Has { model: [8; 32], layers, why: None }, SECOND);
    world.hear(node(3), has(2, 3), SECOND);
    assert_eq!((world.decide(SECOND), world.membership.holdings().progress(node(3))), (None, Some((1, 2))));
    let id = world.head.engine_mut().submit(tiny::request(3, 20, 20)).unwrap();
    assert!(world.head.pump(&Pool::new(1), &mut || SECOND));
    world.hear(node(3), has(2, 4), 2 * SECOND);
    assert_eq!(world.decide(2 * SECOND), None, "while somebody is answered");
    world.head.engine_mut().cancel(id);
    assert_eq!(world.placed(3 * SECOND), [1, 3]);
    // What the others shall have now one of them has in part.
    world.membership.down(&mut world.head, node(1), 4 * SECOND);
    assert_eq!(world.decide(4 * SECOND), get(2, 0..2, &[]));
    assert_eq!(world.placed(4 * SECOND), [3], "the head has the others");
    assert_eq!(world.head.chain()[0].ranges.first(), Some(&(0..2)));
    world.hear(node(2), has(0, 2), 5 * SECOND);
    assert_eq!(world.placed(5 * SECOND), [2, 3]);
    world.membership.down(&mut world.head, node(3), 6 * SECOND);
    assert_eq!(world.decide(6 * SECOND), get(2, 0..4, &[]));
    assert_eq!(world.placed(6 * SECOND), Vec::<u8>::new(), "what it has is not the last");
    // It comes back, has forgotten nothing, and may be asked.
    world.membership.up(&mut world.head, node(3), "here:1".into(), 9, 7 * SECOND);
    world.membership.lacks_file(node(3));
    assert_eq!(world.decide(7 * SECOND), get(2, 0..2, &[]));
    assert_eq!(world.decide(7 * SECOND), get(3, 2..4, &[]));
    world.hear(node(3), has(2, 4), 7 * SECOND);
    assert_eq!(world.placed(7 * SECOND), [2, 3]);
}

/// One more machine comes, and all are to have other layers, which they do not hold yet. They keep what they compute meanwhile; also
/// when one of them is lost.
#[test]
fn what_a_machine_computes_it_keeps_while_it_fetches_others() {
    let mut world = World::new(3, 9, 9);
    let late = 20 * SECOND;
    world.membership.down(&mut world.head, node(3), 0);
    (1..=2).for_each(|n| world.membership.lacks_file(node(n)));
    assert_eq!(world.decide(late), get(1, 0..2, &[]));
    assert_eq!(world.decide(late), get(2, 2..4, &[]));
    world.hear(node(1), has(0, 2), late);
    world.hear(node(2), has(2, 4), late);
    assert_eq!(world.placed(late), [1, 2]);
    world.membership.up(&mut world.head, node(3), "here:1".into(), 9, late + SECOND);
    world.membership.lacks_file(node(3));
    assert_eq!(world.decide(late + SECOND), get(1, 0..1, &[]));
    assert_eq!(world.decide(late + SECOND), get(2, 1..2, &[1]));
    assert_eq!(world.decide(late + SECOND), get(3, 2..4, &[2]));
    // Each says what it holds of what it is to have now.
    world.hear(node(1), has(0, 1), late + SECOND);
    world.hear(node(2), has(0, 0), late + SECOND);
    assert_eq!(world.decide(late + SECOND), None, "the chain stays as it is");
    world.membership.down(&mut world.head, node(1), late + 2 * SECOND);
    let mut placed = None;
    while placed.is_none() {
        let Some(decision) = world.decide(late + 2 * SECOND) else { panic!("no placement") };
        if let Decision::Place(chain) = decision {
            placed = chain.into_iter().find(|link| link.machine == Some(node(2)));
            assert_eq!(placed.as_ref().map(|link| &link.ranges[..]), Some(std::slice::from_ref(&(2..4))));
        }
    }
}

#[test]
fn where_nobody_else_has_room_the_head_waits_for_a_machine_that_fetches() {
    let mut world = World::new(2, 1, 3);
    world.membership.lacks_file(node(2));
    assert_eq!(world.decide(0), get(2, 2..4, &[]));
    // The head with one layer, and three on the first.
    assert_eq!(world.placed(0), [1]);
    let mut world = World::new(2, 1, 2);
    world.membership.lacks_file(node(2));
    assert_eq!(world.decide(0), get(2, 2..4, &[]));
    world.head.engine_mut().submit(tiny::request(3, 20, 20)).unwrap();
    assert_eq!(world.decide(0), None);
    let Some(Decision::Fail(why)) = world.decide(30 * SECOND) else { panic!("no end") };
    assert!(why.contains("0 of 2 machines are away, 1 still fetch their layers"), "{why}");
    world.head.fail_requests(&why);
    world.hear(node(2), has(2, 4), 31 * SECOND);
    assert_eq!(world.placed(31 * SECOND), [1, 2]);
}

#[test]
fn one_that_does_not_get_ready_is_given_up() {
    let mut world = World::new(2, 9, 9);
    let Some(Decision::Place(chain)) = world.decide(0) else { panic!("a placement expected") };
    world.head.place(chain, 0);
    world.head.loaded(Vec::new(), &world.pool, 0).unwrap();
    world.hear(node(1), Pipeline::Ready { epoch: 1, load_us: 0 }, 0);
    assert_eq!(world.decide(120 * SECOND), None);
    let given_up = Decision::GiveUp { machines: vec![node(2)], why: "it did not get ready" };
    assert_eq!(world.decide(121 * SECOND), Some(given_up));
    world.membership.down(&mut world.head, node(2), 121 * SECOND);
    assert_eq!(world.placed(121 * SECOND), [1]);
}

/// The last machine answers with half a vector: it is not asked again for a while, and the other one's text is the one that one
/// machine writes.
#[test]
fn a_machine_whose_vectors_are_too_short_is_not_used_again_for_a_while() {
    let mut world = World::new(2, 9, 9);
    let file = tiny::file(LAYERS as u32);
    let load = |range| Arc::new(Model::load_layers(&file, range, &Pool::new(1)).unwrap());
    let mut workers: BTreeMap<NodeId, Worker> =
        (1..=2).map(|n| (node(n), Worker::new(Model::config(&file).unwrap(), 1 << 20))).collect();
    let request = tiny::request(3, 20, 20);
    let expected = tiny::alone(&tiny::model(LAYERS as u32), request.clone());
    let id = world.head.engine_mut().submit(request).unwrap();
    let (mut texts, mut shunned) = (tiny::Texts::new(), Vec::new());
    for turn in 0.. {
        assert!(turn < 1_000, "no end");
        let now_us = turn * 1_000;
        while let Some(decision) = world.decide(now_us) {
            let Decision::Place(chain) = decision else { panic!("{decision:?}") };
            let lacking = world.head.place(chain, now_us);
            world.head.loaded(lacking.into_iter().map(load).collect(), &world.pool, now_us).unwrap();
        }
        world.head.pump(&world.pool, &mut || now_us);
        let mut wire: VecDeque<(NodeId, Pipeline)> = world.head.outbox().into();
        while let Some((to, said)) = wire.pop_front() {
            let worker = workers.get_mut(&to).unwrap();
            let told = if let Pipeline::Assign { assign } = &said {
                let lacking = worker.assign(assign).unwrap();
                worker.ready(lacking.into_iter().map(load).collect()).unwrap();
                vec![(To::Head, Pipeline::Ready { epoch: assign.epoch, load_us: 0 })]
            } else {
                worker.hear(&said, &world.pool, &mut || 0).unwrap()
            };
            for (there, mut said) in told {
                if there == To::Next {
                    wire.push_back((node(2), said));
                    continue;
                }
                if let (Pipeline::Pass { pass }, true) = (&mut said, to == node(2) && texts_of(&texts) == 5) {
                    pass.vectors = Blob::new(pass.vectors[..2 * tiny::WIDTH].to_vec()).unwrap();
                }
                shunned.extend(world.hear(to, said, now_us).map(|why| (to, why)));
            }
        }
        tiny::hear(world.head.events(), &mut texts);
        if world.head.engine().idle() {
            break;
        }
    }
    assert_eq!(shunned, [(node(2), "what it sent does not fit".into())]);
    assert_eq!(texts[&id], expected);
    let machines: Vec<_> = world.head.chain().iter().filter_map(|link| link.machine).collect();
    assert_eq!(machines, [node(1)]);
}

/// Tokens so far.
fn texts_of(texts: &tiny::Texts) -> usize {
    texts.values().map(|(text, _)| text.len()).sum()
}
