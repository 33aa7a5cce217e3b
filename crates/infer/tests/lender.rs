//! Whom a machine lends its layers to, step by step; the simulator's `serving` scenarios run the same at length.

use littoral_infer::model::Model;
use littoral_infer::split::lender::{Act, Layers, Lender};
use littoral_model::lm::{Config, Stage};
use littoral_tensor::pool::Pool;
use littoral_wire::NodeId;
use littoral_wire::bounded::{Blob, List};
use littoral_wire::message::Name;
use littoral_wire::pipeline::{self, Activations, Assign, Neighbour, Offer, Piece, Pipeline};
use std::ops::Range;
use std::sync::Arc;

mod tiny;

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// The machines' names here.
const HEAD: u8 = 1;
const BEFORE: u8 = 2;
const NEXT: u8 = 3;

struct File(Vec<u8>);

impl Layers for File {
    fn open(&mut self, _: [u8; 32]) -> Result<Config, String> {
        Model::config(&self.0).map_err(|e| e.to_string())
    }

    fn load(&mut self, ranges: Vec<Range<usize>>, pool: &Pool) -> Result<Vec<Arc<Stage>>, String> {
        Ok(ranges.into_iter().map(|range| Arc::new(Model::load_layers(&self.0, range, pool).unwrap())).collect())
    }
}

struct World {
    lender: Lender,
    file: File,
    pool: Pool,
}

impl World {
    /// A head is there, over link 0.
    fn new() -> Self {
        let mut lender = Lender::new(1 << 20);
        lender.head_up(0, node(HEAD), offer());
        assert!(matches!(&lender.acts()[..], [Act::Tell { link: 0, said: Pipeline::Offer { .. } }]));
        Self { lender, file: File(tiny::file(2)), pool: Pool::new(1) }
    }

    fn hear(&mut self, link: u64, said: Pipeline) -> Vec<Act> {
        self.lender.hear(link, said, &mut self.file, &self.pool, &mut || 0);
        self.lender.acts()
    }

    fn joined(&mut self, link: u64, peer: u8) -> Vec<Act> {
        self.lender.joined(link, node(peer));
        self.lender.acts()
    }

    fn next_up(&mut self, epoch: u32, link: u64, peer: u8) -> Vec<Act> {
        self.lender.next_up(epoch, Ok((link, node(peer))));
        self.lender.acts()
    }

    /// Layers of the middle; the next machine is reached over link 9.
    fn assigned() -> Self {
        let mut world = Self::new();
        assert_eq!(world.hear(0, assign(1, Some(BEFORE), Some(NEXT))), [dial(1)]);
        assert_eq!(world.next_up(1, 9, NEXT), [ready(1)]);
        world
    }
}

fn offer() -> Offer {
    Offer {
        name: Name::new("here".to_owned()),
        memory_bytes: 0,
        threads: 1,
        at: "here:1".into(),
        models: List::default(),
    }
}

fn neighbour(n: u8) -> Neighbour {
    Neighbour { id: node(n), at: "there:1".into() }
}

fn assign(epoch: u32, from: Option<u8>, to: Option<u8>) -> Pipeline {
    let assign = Assign {
        epoch,
        model: [7; 32],
        segments: List::new(vec![pipeline::Layers { start: 0, end: 2 }]).unwrap(),
        cache_type: 1,
        activations: Activations::F32,
        from: from.map(node),
        to: to.map(neighbour),
    };
    Pipeline::Assign { assign }
}

/// One token of a sequence.
fn pass(epoch: u32, number: u64, vectors: usize) -> Pipeline {
    let pass = pipeline::Pass {
        epoch,
        number,
        forks: List::default(),
        freed: List::default(),
        pieces: List::new(vec![Piece { slot: 3, start: number as u32, tokens: 1, wanted: 1 }]).unwrap(),
        times_us: List::default(),
        vectors: Blob::new(vec![0; 4 * vectors]).unwrap(),
    };
    Pipeline::Pass { pass }
}

fn dial(epoch: u32) -> Act {
    Act::Dial { epoch, to: neighbour(NEXT) }
}

fn ready(epoch: u32) -> Act {
    Act::Tell { link: 0, said: Pipeline::Ready { epoch, load_us: 0 } }
}

/// What the head is told of a refusal.
fn refused(acts: &[Act]) -> String {
    let [Act::Tell { link: 0, said: Pipeline::Refused { reason, .. } }] = acts else { panic!("{acts:?}") };
    reason.to_string()
}

#[test]
fn strangers_are_read_when_the_head_has_named_them_and_the_newest_of_one_counts() {
    let mut world = World::new();
    assert_eq!(world.joined(1, BEFORE), []);
    assert_eq!(world.joined(2, BEFORE), [Act::HangUp { link: 1 }]);
    assert_eq!(world.joined(3, 77), []);
    let acts = world.hear(0, assign(1, Some(BEFORE), None));
    assert_eq!(acts, [ready(1), Act::Listen { link: 2 }]);
    // Another one later, for the older may be dead.
    assert_eq!(world.joined(4, BEFORE), [Act::HangUp { link: 2 }, Act::Listen { link: 4 }]);
    assert_eq!(world.hear(2, pass(1, 0, tiny::WIDTH)), []);
    assert!(matches!(
        &world.hear(4, pass(1, 0, tiny::WIDTH))[..],
        [Act::Tell { link: 0, said: Pipeline::Pass { .. } }]
    ));
    // However many keys somebody makes up, sixteen may wait, of which one does already.
    let hung_up: usize = (100..200).map(|n| world.joined(n, n as u8).len()).sum();
    assert_eq!(hung_up, 100 + 1 - 16);
}

#[test]
fn one_head_at_a_time_and_all_goes_with_it() {
    let mut world = World::assigned();
    world.joined(4, BEFORE);
    world.hear(4, pass(1, 0, tiny::WIDTH));
    assert_eq!((world.lender.worker().unwrap().slots(), world.lender.progress()), (1, (1, 1)));
    world.lender.head_up(20, node(50), offer());
    let acts = world.lender.acts();
    assert!(matches!(&acts[..], [Act::Tell { link: 20, .. }, Act::HangUp { link: 20 }]), "{acts:?}");
    // One that leaves the chain has nothing left, and keeps its head.
    assert_eq!(world.hear(0, Pipeline::Release {}), [Act::HangUp { link: 4 }, Act::HangUp { link: 9 }]);
    assert_eq!((world.lender.worker().unwrap().slots(), world.lender.progress()), (0, (0, 0)));
    world.lender.down(0);
    world.lender.acts();
    world.lender.head_up(21, node(50), offer());
    assert!(matches!(&world.lender.acts()[..], [Act::Tell { link: 21, said: Pipeline::Offer { .. } }]));
}

#[test]
fn a_link_that_was_dialled_for_another_placement_is_none() {
    let mut world = World::new();
    world.hear(0, assign(1, None, Some(NEXT)));
    world.hear(0, assign(2, None, Some(NEXT)));
    assert_eq!(world.next_up(1, 8, NEXT), [Act::HangUp { link: 8 }]);
    // Of an earlier head, which had another machine next.
    assert_eq!(world.next_up(2, 9, 44), [Act::HangUp { link: 9 }]);
    assert_eq!(world.next_up(2, 10, NEXT), [ready(2)]);
    world.lender.next_up(2, Err("no answer".into()));
    assert_eq!(world.lender.acts(), []);
}

#[test]
fn a_next_machine_that_is_not_reached_and_a_pass_that_cannot_be_read_are_refused_at_the_head() {
    let mut world = World::new();
    world.hear(0, assign(1, None, Some(NEXT)));
    world.lender.next_up(1, Err("no answer".into()));
    assert_eq!(refused(&world.lender.acts()), "the next machine was not reached: no answer");
    let mut world = World::assigned();
    world.joined(4, BEFORE);
    let why = refused(&world.hear(4, pass(1, 0, tiny::WIDTH / 2)));
    assert!(why.starts_with("Pass: a pass of 1 tokens: 128 bytes of vectors expected, got 64"), "{why}");
}

/// What was on the link is lost, so the head is to send it again.
#[test]
fn a_link_that_breaks_is_dialled_again_and_the_head_hears_of_it() {
    let mut world = World::assigned();
    world.joined(4, BEFORE);
    for number in 0..2 {
        assert!(matches!(&world.hear(4, pass(1, number, tiny::WIDTH))[..], [Act::Tell { link: 9, .. }]));
    }
    world.lender.down(9);
    assert_eq!(world.lender.acts(), [dial(1)]);
    let acts = world.next_up(1, 10, NEXT);
    let lacking = |act: &Act| matches!(act, Act::Tell { link: 0, said: Pipeline::Lacking { epoch: 1, number: 1, .. } });
    assert!(acts.len() == 2 && lacking(&acts[0]) && acts[1] == Act::HangUp { link: 9 }, "{acts:?}");
    // In a replay nobody can tell what was heard.
    let heard = world.hear(0, Pipeline::Replay { epoch: 1, states: List::default() });
    let again = |act: &Act| matches!(act, Act::Tell { link: 10, said: Pipeline::Again { .. } });
    assert!(!heard.is_empty() && heard.iter().all(again), "{heard:?}");
    world.lender.down(10);
    world.lender.acts();
    world.lender.next_up(1, Ok((11, node(NEXT))));
    let acts = world.lender.acts();
    assert_eq!(refused(&acts[..1]), "the link to the next machine broke in a replay");
}

#[test]
fn what_is_fetched_is_told_to_the_head_that_wants_it() {
    let mut world = World::new();
    let layers = List::new(vec![pipeline::Layers { start: 1, end: 9 }]).unwrap();
    let get = pipeline::Get { model: [7; 32], layers, sources: List::default() };
    assert_eq!(world.hear(0, Pipeline::Get { get: get.clone() }), [Act::Fetch { head: node(HEAD), get }]);
    let here = std::collections::BTreeSet::from([1, 2, 3, 6]);
    world.lender.fetched(node(HEAD), [7; 32], &here, Some("a cable".into()));
    let layers = [(1, 4), (6, 7)].map(|(start, end)| pipeline::Layers { start, end });
    let layers = List::new(layers.to_vec()).unwrap();
    let said = Pipeline::Has { model: [7; 32], layers, why: Some("a cable".into()) };
    assert_eq!(world.lender.acts(), [Act::Tell { link: 0, said }]);
    let machines = List::new(vec![node(NEXT)]).unwrap();
    world.hear(0, Pipeline::Share { machines });
    assert!(world.lender.shares_with(node(NEXT)) && !world.lender.shares_with(node(BEFORE)));
    // Another head does not hear of it, and its machines are others.
    world.lender.down(0);
    world.lender.head_up(5, node(77), offer());
    world.lender.acts();
    world.lender.fetched(node(HEAD), [7; 32], &here, None);
    assert_eq!(world.lender.acts(), []);
    assert!(!world.lender.shares_with(node(NEXT)));
}
