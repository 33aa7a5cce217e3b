//! A small model drafts here, a large one verifies there: many answers at once, over links that lose and break.

use littoral_infer::engine::{Engine, Event, Finish, Limits, Refused, Request, SequenceId};
use littoral_infer::model::Model;
use littoral_infer::sample::SamplingParams;
use littoral_infer::speculate::asked;
use littoral_infer::speculate::controller::Controller;
use littoral_infer::speculate::costs::Costs;
use littoral_infer::speculate::drafter::{Mode, Patience, Policy, Sources, Yields};
use littoral_infer::speculate::drafting::Drafting;
use littoral_infer::speculate::sessions::Sessions;
use littoral_model::lm::CacheType;
use littoral_tensor::pool::Pool;
use littoral_wire::bounded::List;
use littoral_wire::speculation::{Digest, Want};
use littoral_wire::{NodeId, Speculation, Wire};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tiny::model;

mod tiny;

/// Greedy and drawn, with log-probabilities, and one that ends where the model says so.
fn request(seed: u32, prompt_tokens: usize, max_tokens: usize) -> Request {
    let mut request = tiny::request(seed, prompt_tokens, max_tokens);
    request.sampling.temperature = (seed % 3) as f32 / 2.0;
    Request { top_logprobs: (seed == 2).then_some(3), ignore_end: seed != 4, ..request }
}

/// Log-probabilities come along: they must be the same, too.
type Texts = BTreeMap<SequenceId, (Vec<(u32, Option<f32>)>, Option<Finish>)>;

fn hear(events: Vec<Event>, texts: &mut Texts) {
    for event in events {
        match event {
            Event::Started { sequence, .. } => drop(texts.entry(sequence).or_default()),
            Event::Token { sequence, id, logprob, .. } => texts.get_mut(&sequence).unwrap().0.push((id, logprob)),
            Event::Finished { sequence, why } => texts.get_mut(&sequence).unwrap().1 = Some(why),
            Event::Tried { .. } | Event::Embedded { .. } => {}
        }
    }
}

fn engine(model: &Arc<Model>) -> Engine {
    Engine::new(model.clone(), CacheType::F16, Limits { prompt_tokens_per_pass: 20, ..Limits::default() }).unwrap()
}

fn alone(model: &Arc<Model>, request: Request) -> (Vec<(u32, Option<f32>)>, Option<Finish>) {
    let (mut engine, mut texts) = (engine(model), Texts::new());
    engine.submit(request).unwrap();
    while !engine.idle() {
        hear(engine.step(&Pool::new(1)), &mut texts);
    }
    texts.into_values().next().unwrap()
}

/// Two ends in virtual time, a millisecond a turn, and what is between them.
struct World {
    drafting: Drafting,
    small: Engine,
    /// Turns that a pass of the small model takes, of which several are on their way at a time then.
    lag: u64,
    away: VecDeque<(u64, u64, Vec<f32>)>,
    events: Vec<Event>,
    big: Engine,
    sessions: Sessions,
    there: VecDeque<(u64, Vec<u8>)>,
    back: VecDeque<(u64, Vec<u8>)>,
    now_us: u64,
    delay_us: u64,
    pool: Pool,
}

const EDGE: NodeId = NodeId([5; 32]);

impl World {
    fn new(big: &Arc<Model>, small: &Arc<Model>, delay_us: u64) -> Self {
        let (big, small) = (engine(big), engine(small));
        Self {
            drafting: Drafting::new(&small, 100, Patience { first_us: 60_000, ..Patience::default() }),
            small,
            lag: 0,
            away: VecDeque::new(),
            events: Vec::new(),
            sessions: Sessions::new(&big),
            big,
            there: VecDeque::new(),
            back: VecDeque::new(),
            now_us: 0,
            delay_us,
            pool: Pool::new(1),
        }
    }

    fn submit(&mut self, request: Request, policy: Policy) -> Result<SequenceId, Refused> {
        self.drafting.submit(&mut self.small, request, policy, 0)
    }

    fn idle(&self) -> bool {
        self.drafting.idle() && self.small.idle()
    }

    fn events(&mut self) -> Vec<Event> {
        self.events.extend(self.drafting.events());
        std::mem::take(&mut self.events)
    }

    /// As one machine does it, or as a chain of several does.
    fn step_small(&mut self) -> Vec<Event> {
        if self.lag == 0 {
            return self.small.step(&self.pool);
        }
        while self.away.len() < 3
            && let Some(planned) = self.small.plan(1)
        {
            let vectors = self.small.run(&planned, &self.pool);
            self.away.push_back((self.now_us + 1_000 * self.lag, planned.number, vectors));
        }
        if self.away.front().is_some_and(|(at, ..)| *at <= self.now_us)
            && let Some((_, number, vectors)) = self.away.pop_front()
        {
            self.small.finish(number, &vectors, &self.pool);
        }
        self.small.events()
    }

    /// All turns until every answer has its end.
    fn texts(&mut self) -> Texts {
        let mut texts = Texts::new();
        while !self.idle() {
            assert!(self.now_us < 50_000_000, "no end");
            self.turn(false);
            hear(self.events(), &mut texts);
        }
        texts
    }

    /// All that happens until every answer has its end.
    fn texts_after(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while !self.idle() {
            assert!(self.now_us < 50_000_000, "no end");
            self.turn(false);
            events.extend(self.events());
        }
        events
    }

    fn turn(&mut self, loses: bool) {
        self.now_us += 1_000;
        let now = self.now_us;
        while self.there.front().is_some_and(|(at, _)| *at <= now) {
            let said = Speculation::from_bytes(&self.there.pop_front().unwrap().1).unwrap();
            for told in self.sessions.hear(&mut self.big, EDGE, said, now) {
                self.back.push_back((now + self.delay_us, told.to_bytes()));
            }
        }
        self.sessions.linked(EDGE, now);
        self.sessions.before(&mut self.big, now);
        let events = self.big.step(&self.pool);
        for (_, told) in self.sessions.after(&events, 1_000) {
            self.back.push_back((now + self.delay_us, told.to_bytes()));
        }
        while self.back.front().is_some_and(|(at, _)| *at <= now) {
            let said = Speculation::from_bytes(&self.back.pop_front().unwrap().1).unwrap();
            self.drafting.hear(&mut self.small, said, now);
        }
        self.drafting.before(&mut self.small, now);
        let events = self.step_small();
        let told = self.drafting.after(&mut self.small, events, now);
        self.events.extend(told);
        self.drafting.tick(&mut self.small, now);
        self.events.extend(self.drafting.events());
        for said in self.drafting.outbox() {
            self.there.push_back((now + self.delay_us, said.to_bytes()));
        }
        if loses {
            self.there.clear();
            self.back.clear();
            self.drafting.reconnected(&mut self.small, now);
        }
    }
}

fn policies() -> Vec<Policy> {
    vec![
        Policy::Fixed(Mode::Stream),
        Policy::Fixed(Mode::Rounds { tokens: 4 }),
        Policy::Fixed(Mode::Ahead { block: 3, ahead: 20 }),
        Policy::Learning(Box::new(Controller::new(Costs::GUESS))),
        Policy::Fixed(Mode::Rounds { tokens: 1 }),
        Policy::Fixed(Mode::Along { block: 2, ahead: 20 }),
    ]
}

/// All ways of drafting at once, beside answers that are written here; the link is lost now and then.
#[test]
fn an_answer_that_is_drafted_here_is_the_one_that_is_written_there() {
    let (big, small) = (model(3), model(1));
    let requests: Vec<Request> = (0..6).map(|i| request(i, 1 + 12 * i as usize, 36)).collect();
    let expected: Vec<_> = requests.iter().map(|request| alone(&big, request.clone())).collect();
    let own = request(7, 30, 25);
    let expected_own = alone(&small, own.clone());
    let never = u64::MAX;
    let links = [(0, never, 0), (7_000, never, 0), (3_000, 17, 0), (2_000, never, 3), (3_000, 17, 5)];
    let sources = [Sources::Model, Sources::Lookup, Sources::Both];
    let each = links.iter().flat_map(|link| sources.map(|sources| (*link, sources)));
    for ((delay_us, loses_every, lag), sources) in each {
        let mut world = World { lag, ..World::new(&big, &small, delay_us) };
        world.drafting.set_sources(sources);
        let mut ids = Vec::new();
        for (request, policy) in requests.iter().zip(policies()) {
            ids.push(world.submit(request.clone(), policy).unwrap());
        }
        let here = world.small.submit(own.clone()).unwrap();
        let (mut texts, mut turns) = (Texts::new(), 0u64);
        while !world.idle() {
            turns += 1;
            assert!(turns < 50_000, "no end");
            world.turn(turns.is_multiple_of(loses_every));
            hear(world.events(), &mut texts);
        }
        for (id, expected) in ids.iter().zip(&expected) {
            assert_eq!(&texts[id], expected, "{delay_us} us, lost every {loses_every}, {lag} turns, {sources:?}");
        }
        let yields = ids.iter().map(|id| world.drafting.far(*id).unwrap().yields).fold(Yields::default(), Yields::and);
        let drafted = (yields.model.drafted > 0, yields.text.drafted > 0 || sources == Sources::Both);
        assert_eq!(drafted, (sources != Sources::Lookup, sources != Sources::Model), "{yields:?}");
        assert_eq!(texts[&here], expected_own);
    }
}

/// The verifier is gone for good: the small model goes on from what was committed, although its own passes may still be on their
/// way through several machines.
#[test]
fn when_the_verifier_is_lost_the_rest_is_written_here() {
    for lag in [0, 1, 2, 5] {
        lost_for_good(3, lag, false);
    }
    // By another token than its own an answer may happen to go on as it should.
    for seed in [0, 1, 2, 3, 5] {
        lost_for_good(seed, 3, true);
    }
}

/// As many as the small model has places for go on at once, and the others after them, from what was committed.
#[test]
fn answers_whose_twins_have_no_place_go_on_after_those_that_have() {
    let (big, small) = (model(3), model(1));
    let limits = Limits { running_max: 2, ..Limits::default() };
    let small = Engine::new(small, CacheType::F16, limits).unwrap();
    let mut world = World { small, ..World::new(&big, &model(1), 1_000) };
    let requests: Vec<Request> = (0..6).map(|i| request(i, 1 + 8 * i as usize, 40)).collect();
    let submit = |(request, policy): (&Request, Policy)| world.submit(request.clone(), policy).unwrap();
    let ids: Vec<_> = requests.iter().zip(policies()).map(submit).collect();
    let mut texts = Texts::new();
    while world.drafting.far(ids[0]).unwrap().tokens < 10 {
        world.turn(false);
        hear(world.events(), &mut texts);
    }
    world.drafting.lost(&mut world.small, 0);
    hear(world.texts_after(), &mut texts);
    let whole = |id: &SequenceId| texts[id].1 == Some(Finish::Length) || texts[id].1 == Some(Finish::End);
    assert!(ids.iter().all(whole), "{texts:?}");
    for (id, request) in ids.iter().zip(&requests) {
        let far = world.drafting.far(*id).unwrap().tokens as usize;
        assert_eq!(texts[id].0[..far], alone(&big, request.clone()).0[..far]);
    }
}

/// `drafting`: it is known at once, while a draft is on its way.
fn lost_for_good(seed: u32, lag: u64, drafting: bool) {
    let (big, small) = (model(3), model(1));
    let request = request(seed, 20, 40);
    let (expected, _) = alone(&big, request.clone());
    let mut world = World { lag, ..World::new(&big, &small, 1_000) };
    let policy = Policy::Fixed(Mode::Rounds { tokens: 3 });
    let id = world.submit(request.clone(), policy).unwrap();
    let mut texts = Texts::new();
    while texts.get(&id).is_none_or(|(text, _)| text.len() < 10) {
        world.turn(false);
        hear(world.events(), &mut texts);
    }
    // Beyond what is committed.
    let drafts = |world: &World| {
        let far = world.drafting.far(id).unwrap().tokens as usize;
        world.small.is_away(id) && world.small.answers().any(|(other, _, text)| other == id && text.len() > far)
    };
    while drafting && !drafts(&world) {
        world.turn(false);
        hear(world.events(), &mut texts);
    }
    if drafting {
        world.drafting.lost(&mut world.small, 0);
    }
    while !world.idle() {
        world.there.clear();
        world.back.clear();
        world.turn(false);
        hear(world.events(), &mut texts);
        assert!(world.now_us < 300_000_000, "no end");
    }
    let (text, why) = &texts[&id];
    let far = world.drafting.far(id).unwrap().tokens as usize;
    assert!((10..40).contains(&far) && text[..far] == expected[..far], "{far}");
    assert_eq!((text.len(), why), (40, &Some(Finish::Length)));
    // What follows is what the small model writes behind that.
    let mut prompt = request.prompt.clone();
    prompt.extend(text[..far].iter().map(|(id, _)| *id));
    let mut engine = engine(&small);
    let twin = engine.submit(Request { max_tokens: 40, ..request.clone() }).unwrap();
    engine.pace(twin, 0);
    engine.step(&world.pool);
    engine.rewrite(twin, &prompt[request.prompt.len()..]);
    engine.pace(twin, usize::MAX);
    let mut rest = Texts::from([(twin, Default::default())]);
    while !engine.idle() {
        hear(engine.step(&world.pool), &mut rest);
    }
    assert_eq!(rest[&twin].0, text[far..]);
}

/// In the middle of its answers this machine can do no more: one with the same model goes on with them. Of another model nothing is
/// given out, and this machine goes on.
#[test]
fn what_was_begun_here_is_handed_over() {
    let small = model(1);
    let requests: Vec<Request> = (0..6).map(|i| request(i, 1 + 12 * i as usize, 60)).collect();
    for (above, lag) in [(1, u64::from(u32::MAX)), (9, 0)] {
        let mut world = World::new(&model(above), &small, 3_000);
        let ids: Vec<_> = requests.iter().map(|request| world.small.submit(request.clone()).unwrap()).collect();
        let mut texts = Texts::new();
        let written = |texts: &Texts, at: usize| texts.get(&ids[at]).map_or(0, |(text, _)| text.len());
        while written(&texts, 0) < 20 {
            world.turn(false);
            hear(world.events(), &mut texts);
        }
        let before: Vec<usize> = (0..6).map(|at| written(&texts, at)).collect();
        for (id, policy) in ids.iter().zip(policies()) {
            assert!(world.drafting.hand_over(&mut world.small, *id, policy, world.now_us));
            assert!(!world.drafting.hand_over(&mut world.small, *id, Policy::Fixed(Mode::Stream), world.now_us));
        }
        world.lag = lag;
        while !(world.drafting.idle() && (above == 1 || world.small.idle())) {
            assert!(world.now_us < 50_000_000, "no end");
            world.turn(false);
            hear(world.events(), &mut texts);
        }
        for ((id, request), before) in ids.iter().zip(&requests).zip(before) {
            let expected = alone(&small, request.clone());
            assert_eq!(texts[id], expected, "{before} before, {above} above");
            let (far, length) = (world.drafting.far(*id).unwrap(), expected.0.len());
            assert_eq!(far.before as usize, before);
            assert!(if above == 1 {
                far.tokens as usize == length - before
            } else {
                far.tokens as usize + before < length
            });
        }
    }
}

#[test]
fn a_session_with_another_vocabulary_or_an_impossible_request_is_refused() {
    let (big, small) = (model(3), model(1));
    let mut world = World::new(&big, &small, 0);
    let impossible =
        Request { sampling: SamplingParams { top_p: 7.0, ..SamplingParams::default() }, ..request(1, 3, 3) };
    let refused = world.submit(impossible, Policy::Fixed(Mode::Stream)).unwrap_err();
    assert!(refused.to_string().contains("top_p"), "{refused}");
    let asked = asked::tell(&request(1, 3, 3), [0; 32]).unwrap();
    let said = world.sessions.hear(&mut world.big, EDGE, Speculation::Open { session: 1, request: asked }, 0);
    assert!(matches!(&said[..], [Speculation::Refused { session: 1, reason }] if reason.contains("vocabulary")));
    let digest = Digest::EMPTY;
    let said = world.sessions.hear(&mut world.big, EDGE, Speculation::Resume { session: 9, commit: 0, digest }, 0);
    assert!(matches!(&said[..], [Speculation::Gone { session: 9, .. }]));
}

impl World {
    /// The verifier is gone with all it knew, and another takes its place.
    fn another(&mut self, big: &Arc<Model>, verifier: usize) {
        self.big = engine(big);
        self.sessions = Sessions::new(&self.big);
        self.there.clear();
        self.back.clear();
        self.drafting.set_verifier(verifier);
        self.drafting.moved(&mut self.small, verifier - 1, verifier, None, self.now_us);
    }
}

/// It never gets a place, or it stands still in the middle: the large model does not wait for its drafts.
#[test]
fn a_small_model_that_drafts_nothing_holds_nobody_up() {
    let (big, small) = (model(3), model(1));
    let requests: Vec<Request> = (0..6).map(|i| request(i, 1 + 12 * i as usize, 36)).collect();
    for stands_at in [0, 40] {
        let mut world = World::new(&big, &small, 3_000);
        let submit = |(request, policy): (&Request, Policy)| world.submit(request.clone(), policy).unwrap();
        let ids: Vec<_> = requests.iter().zip(policies()).map(submit).collect();
        let (mut texts, mut turns) = (Texts::new(), 0);
        while !world.drafting.idle() {
            assert!(turns < 5_000, "no end");
            // Passes that never come back.
            world.lag = if turns < stands_at { 0 } else { u64::from(u32::MAX) };
            world.turn(false);
            hear(world.events(), &mut texts);
            turns += 1;
        }
        for (id, request) in ids.iter().zip(&requests) {
            assert_eq!(texts[id], alone(&big, request.clone()), "from turn {stands_at} on");
        }
    }
}

/// Lost twice in the middle, the second time before the one that took over had caught up; messages are lost on top.
#[test]
fn another_verifier_goes_on_with_the_same_answer() {
    let (big, small) = (model(3), model(1));
    let requests: Vec<Request> = (0..6).map(|i| request(i, 1 + 12 * i as usize, 150)).collect();
    let expected: Vec<_> = requests.iter().map(|request| alone(&big, request.clone())).collect();
    let mut world = World::new(&big, &small, 2_000);
    let policies = policies().into_iter();
    let ids: Vec<_> =
        requests.iter().zip(policies).map(|(request, policy)| world.submit(request.clone(), policy).unwrap()).collect();
    let (mut texts, mut turns, mut verifier, mut lost_at) = (Texts::new(), 0u64, 0, u64::MAX);
    while !world.idle() {
        turns += 1;
        assert!(turns < 50_000, "no end");
        world.turn(turns.is_multiple_of(29));
        hear(world.events(), &mut texts);
        let longest = texts.values().map(|(text, _)| text.len()).max().unwrap_or(0);
        if verifier == 0 && longest > 60 {
            lost_at = turns;
        }
        // Six turns later there was one answer at most from the one that took over.
        if turns == lost_at || (verifier == 1 && turns == lost_at + 6) {
            verifier += 1;
            world.another(&big, verifier);
        }
    }
    assert_eq!(verifier, 2);
    for (id, expected) in ids.iter().zip(&expected) {
        assert_eq!(&texts[id], expected);
        let far = world.drafting.far(*id).unwrap();
        assert_eq!(far.parts.iter().map(|(_, tokens)| tokens).sum::<u64>(), far.tokens);
        assert_eq!(far.tokens as usize, expected.0.len());
    }
    let parts: Vec<_> = ids.iter().map(|id| world.drafting.far(*id).unwrap().parts).collect();
    assert!(parts.iter().any(|parts| matches!(parts[..], [(0, 1..), .., (2, 1..)])), "{parts:?}");
}

/// It is of another model: nothing that it says is given out, and the small model writes the rest.
#[test]
fn a_verifier_that_would_have_written_otherwise_does_not_go_on() {
    let (big, small) = (model(3), model(1));
    let request = request(3, 20, 40);
    let (expected, _) = alone(&big, request.clone());
    let mut world = World::new(&big, &small, 1_000);
    let policy = Policy::Fixed(Mode::Rounds { tokens: 2 });
    let id = world.submit(request, policy).unwrap();
    let mut texts = Texts::new();
    let mut moved = false;
    while !world.idle() {
        world.turn(false);
        hear(world.events(), &mut texts);
        if !moved && texts.get(&id).is_some_and(|(text, _)| text.len() >= 20) {
            world.another(&model(9), 1);
            moved = true;
        }
        assert!(world.now_us < 300_000_000, "no end");
    }
    let far = world.drafting.far(id).unwrap().tokens as usize;
    let (text, why) = &texts[&id];
    assert!((20..40).contains(&far) && text[..far] == expected[..far], "{far}");
    assert_eq!((text.len(), why), (40, &Some(Finish::Length)));
}

/// The small model's context has room for 40 tokens: beyond them nobody drafts, and the large model goes on by itself.
#[test]
fn an_answer_that_is_too_long_for_the_small_model_is_the_large_ones_to_its_end() {
    let small = Arc::new(Model::load(&tiny::file_of(1, 40), &Pool::new(1), &mut |_| ()).unwrap());
    let (big, mut world) = (model(3), World::new(&model(3), &small, 2_000));
    let requests: Vec<Request> = (0..6).map(|seed| request(seed, 20, 50)).collect();
    let ids: Vec<SequenceId> = requests
        .iter()
        .zip(policies())
        .map(|(request, policy)| world.submit(request.clone(), policy).unwrap())
        .collect();
    let texts = world.texts();
    let mut long = 0;
    for (id, request) in ids.iter().zip(&requests) {
        let (text, why) = alone(&big, request.clone());
        long += usize::from(text.len() > 25);
        assert_eq!(world.drafting.far(*id).unwrap().tokens, text.len() as u64);
        assert_eq!(texts[id], (text, why));
    }
    assert!(long >= 4, "{long} of 5 answers go beyond the small context");
}

/// Drafting ahead for nobody takes it to the end of its context; the answer is written all the same, from its beginning.
#[test]
fn a_twin_that_has_drafted_all_its_context_still_goes_on_with_the_answer() {
    let small = Arc::new(Model::load(&tiny::file_of(1, 40), &Pool::new(1), &mut |_| ()).unwrap());
    let mut world = World::new(&model(3), &small, 2_000);
    let request = request(3, 25, 30);
    let policy = Policy::Fixed(Mode::Ahead { block: 2, ahead: 30 });
    let id = world.submit(request.clone(), policy).unwrap();
    for _ in 0..60 {
        world.there.clear();
        world.turn(false);
    }
    world.drafting.lost(&mut world.small, 0);
    let texts = world.texts();
    assert_eq!(texts[&id], alone(&small, request));
    assert_eq!(texts[&id].0.len(), 15);
}

/// Who listens to a slow answer need not say that it does. Who is to say something and does not is gone.
#[test]
fn sessions_that_stream_stay_while_there_is_a_link_and_those_that_wait_do_not() {
    const SILENT_US: u64 = 120_000_000;
    let big = model(3);
    let expected = alone(&big, request(3, 20, 40)).0;
    for (want, linked, whole) in [(Want::Stream, true, true), (Want::Stream, false, false), (Want::Wait, true, false)] {
        let mut engine = engine(&big);
        let (mut sessions, pool, mut got) = (Sessions::new(&engine), Pool::new(1), Vec::new());
        let asked = asked::tell(&request(3, 20, 40), asked::tokeniser_digest(&big)).unwrap();
        let round = Speculation::Round {
            session: 1,
            number: 1,
            epoch: 0,
            commit: 0,
            start: 0,
            digest: Digest::EMPTY,
            tokens: List::default(),
            distributions: None,
            want,
        };
        sessions.hear(&mut engine, EDGE, Speculation::Open { session: 1, request: asked }, 0);
        sessions.hear(&mut engine, EDGE, round, 0);
        // A token every ten seconds.
        for now_us in (0..60).map(|turn| turn * 10_000_000) {
            if linked {
                sessions.linked(EDGE, now_us);
            }
            sessions.expire(&mut engine, now_us.saturating_sub(SILENT_US));
            sessions.before(&mut engine, now_us);
            for (_, told) in sessions.after(&engine.step(&pool), 10_000_000) {
                let Speculation::Commit { tokens, .. } = told else { panic!("{told:?}") };
                got.extend(tokens.iter().map(|token| token.id));
            }
        }
        assert_eq!(got.len() == expected.len(), whole, "{want:?}, linked: {linked}: {} tokens", got.len());
        assert!(expected.iter().map(|(id, _)| *id).take(got.len()).eq(got));
        assert_eq!((sessions.running(), engine.running()), (0, 0));
    }
}

/// It has no place for it: the small model writes all of it, with what is told of each token.
#[test]
fn an_answer_that_is_refused_is_written_here() {
    let (big, small) = (model(3), model(1));
    let mut world = World::new(&big, &small, 1_000);
    let request = request(2, 20, 12);
    let expected = alone(&small, request.clone());
    let id = world.submit(request, Policy::Fixed(Mode::Stream)).unwrap();
    let reason = littoral_wire::message::Reason::new("64 requests wait already");
    world.drafting.hear(&mut world.small, Speculation::Refused { session: 100, reason }, 1_000);
    // The other end hears that nobody wants it any more, also if it goes on.
    assert!(world.drafting.outbox().contains(&Speculation::Close { session: 100 }));
    world.drafting.hear(&mut world.small, Speculation::Opened { session: 100 }, 2_000);
    assert_eq!(world.drafting.outbox(), [Speculation::Close { session: 100 }]);
    let mut texts = Texts::new();
    while !world.idle() {
        world.turn(false);
        hear(world.events(), &mut texts);
    }
    assert_eq!(texts[&id], expected);
    assert_eq!(world.drafting.far(id).map(|far| far.tokens), Some(0));
    world.drafting.forget(id);
    assert_eq!(world.drafting.far(id), None);
}

/// The second verifier says that the answer ends where the first one went on: that is not believed.
#[test]
fn a_verifier_that_takes_over_does_not_end_what_was_longer() {
    let (big, small) = (model(3), model(1));
    let request = request(3, 20, 40);
    let mut world = World::new(&big, &small, 1_000);
    let id = world.submit(request, Policy::Fixed(Mode::Stream)).unwrap();
    let mut texts = Texts::new();
    while texts.get(&id).is_none_or(|(text, _)| text.len() < 20) {
        world.turn(false);
        hear(world.events(), &mut texts);
    }
    world.another(&big, 1);
    let said: Vec<_> = texts[&id].0.iter().take(5).map(|(id, _)| asked::committed(*id, None, &[])).collect();
    let commit = Speculation::Commit {
        session: 101,
        epoch: 0,
        start: 0,
        tokens: littoral_wire::List::new(said).unwrap(),
        finished: Some(littoral_wire::speculation::Ending::End),
        passes: 1,
        pass_us: 1,
        tried: 0,
    };
    let now_us = world.now_us;
    world.drafting.hear(&mut world.small, commit, now_us);
    while !world.idle() {
        world.turn(false);
        hear(world.events(), &mut texts);
    }
    let (text, why) = &texts[&id];
    assert_eq!((text.len(), why), (40, &Some(Finish::Length)));
}

/// What an edge opens and says, and the verifier in virtual time, with clients of its own beside.
struct Places {
    engine: Engine,
    sessions: Sessions,
    now_us: u64,
    linked: bool,
    pool: Pool,
    /// Tokens of each session, and of each answer that is not a drafter's.
    told: BTreeMap<u64, Vec<u32>>,
    own: Texts,
}

impl Places {
    fn new(limits: Limits) -> Self {
        let engine = Engine::new(model(3), CacheType::F16, limits).unwrap();
        let sessions = Sessions::new(&engine);
        let (told, own) = (BTreeMap::new(), Texts::new());
        Self { engine, sessions, now_us: 0, linked: true, pool: Pool::new(1), told, own }
    }

    fn say(&mut self, said: Speculation) -> Vec<Speculation> {
        self.sessions.hear(&mut self.engine, EDGE, said, self.now_us)
    }

    fn open(&mut self, session: u64, request: &Request) -> Vec<Speculation> {
        let asked = asked::tell(request, asked::tokeniser_digest(self.engine.model())).unwrap();
        self.say(Speculation::Open { session, request: asked })
    }

    /// The next tokens of an answer of which so many were told.
    fn round(&mut self, session: u64, number: u32, tokens: &[u32], want: Want) {
        let told = self.told.get(&session).cloned().unwrap_or_default();
        let at = told.len() as u32;
        let (tokens, digest) = (List::new(tokens.to_vec()).unwrap(), Digest::of(&told));
        let distributions = None;
        self.say(Speculation::Round {
            session,
            number,
            epoch: 0,
            commit: at,
            start: at,
            digest,
            tokens,
            distributions,
            want,
        });
    }

    fn turn(&mut self, us: u64) {
        self.now_us += us;
        if self.linked {
            self.sessions.linked(EDGE, self.now_us);
        }
        self.sessions.expire(&mut self.engine, self.now_us.saturating_sub(120_000_000));
        self.sessions.before(&mut self.engine, self.now_us);
        let events = self.engine.step(&self.pool);
        for (_, told) in self.sessions.after(&events, 1_000) {
            let Speculation::Commit { session, start, tokens, .. } = told else { panic!("{told:?}") };
            let all = self.told.entry(session).or_default();
            assert_eq!(all.len(), start as usize);
            all.extend(tokens.iter().map(|token| token.id));
        }
        for event in events {
            let own = match &event {
                Event::Started { sequence, .. } => !self.sessions.has(*sequence),
                Event::Token { sequence, .. } | Event::Finished { sequence, .. } => self.own.contains_key(sequence),
                Event::Tried { .. } | Event::Embedded { .. } => false,
            };
            if own {
                hear(vec![event], &mut self.own);
            }
        }
    }
}

fn ids(text: &[(u32, Option<f32>)]) -> Vec<u32> {
    text.iter().map(|(id, _)| *id).collect()
}

/// As many answers as there are places were in flight when the drafter died: somebody else is answered at once. Over a new link the
/// drafter goes on where it was, in the same text, whether its states were kept or are read again.
#[test]
fn a_drafter_that_is_gone_keeps_no_place_and_goes_on_when_it_is_back() {
    for kept_bytes_max in [0, 1 << 20] {
        let mut places = Places::new(Limits { running_max: 3, kept_bytes_max, ..Limits::default() });
        let requests: Vec<Request> = (0..3).map(|seed| request(seed, 20, 40)).collect();
        let expected: Vec<Vec<u32>> = requests.iter().map(|one| ids(&alone(&model(3), one.clone()).0)).collect();
        for (session, request) in (0..).zip(&requests) {
            assert_eq!(places.open(session, request), [Speculation::Opened { session }]);
            // The first token of the second answer is drafted well, of the third ill.
            let drafted = [vec![], expected[1][..4].to_vec(), vec![expected[2][0] ^ 1]];
            let want = if session == 0 { Want::Stream } else { Want::Wait };
            places.round(session, 1, &drafted[session as usize], want);
        }
        (0..12).for_each(|_| places.turn(1_000));
        assert_eq!((places.told[&1].len(), places.told[&2].len()), (5, 1));
        assert_eq!((places.sessions.running(), places.engine.running()), (3, 3));
        places.linked = false;
        let client = places.engine.submit(request(5, 30, 10)).unwrap();
        let begun_us = places.now_us;
        while places.own.get(&client).is_none_or(|(_, why)| why.is_none()) {
            places.turn(1_000);
            assert!(places.now_us < begun_us + 20_000, "{:?}", places.own);
        }
        assert_eq!(places.own[&client], alone(&model(3), request(5, 30, 10)));
        assert_eq!((places.sessions.running(), places.engine.running()), (0, 0));
        // A minute later it is back, and says where it stands.
        places.turn(60_000_000);
        places.linked = true;
        for session in 0..3 {
            let told = places.told[&session].clone();
            let said = Speculation::Resume { session, commit: told.len() as u32, digest: Digest::of(&told) };
            assert!(matches!(&places.say(said)[..], [Speculation::Commit { tokens, .. }] if tokens.is_empty()));
            places.round(session, 2, &[], Want::Stream);
        }
        (0..100).for_each(|_| places.turn(1_000));
        assert_eq!(places.told.values().cloned().collect::<Vec<_>>(), expected, "{kept_bytes_max} bytes are kept");
    }
}

/// Who has a link and says nothing loses its place only to somebody who waits, and has it again with its next round.
#[test]
fn a_drafter_that_says_nothing_makes_room_for_those_who_wait() {
    let mut places = Places::new(Limits { running_max: 1, ..Limits::default() });
    let asked = request(3, 20, 40);
    let expected = ids(&alone(&model(3), asked.clone()).0);
    places.open(7, &asked);
    places.round(7, 1, &expected[..4], Want::Wait);
    (0..5).for_each(|_| places.turn(1_000));
    (0..30).for_each(|_| places.turn(1_000_000));
    assert_eq!((places.told[&7].len(), places.sessions.running()), (5, 1));
    let client = places.engine.submit(request(5, 30, 10)).unwrap();
    (0..20).for_each(|_| places.turn(1_000));
    assert!(places.own[&client].1.is_some() && places.sessions.running() == 0);
    places.round(7, 2, &expected[5..9], Want::Wait);
    (0..5).for_each(|_| places.turn(1_000));
    assert_eq!((&places.told[&7][..], places.sessions.running()), (&expected[..10], 1));
}

/// More answers at once than one machine may have, and more than may wait here: they are refused, and those before go on.
#[test]
fn what_is_too_much_is_refused_and_nothing_that_is_written_is_dropped() {
    let limits = Limits { running_max: 2, waiting_max: 128, ..Limits::default() };
    let mut places = Places::new(limits);
    let reason = |said: Vec<Speculation>| match &said[..] {
        [Speculation::Opened { .. }] => String::new(),
        [Speculation::Refused { reason, .. }] => reason.to_string(),
        other => panic!("{other:?}"),
    };
    for session in 0..64 {
        assert_eq!(reason(places.open(session, &request(1, 3, 3))), "");
        places.turn(1_000);
    }
    assert!(reason(places.open(64, &request(1, 3, 3))).contains("at most 64 answers"));
    places.say(Speculation::Close { session: 5 });
    assert_eq!(reason(places.open(64, &request(1, 3, 3))), "");
    // It died, and begins anew: what it left behind goes.
    places.linked = false;
    places.turn(1_000_000);
    places.linked = true;
    places.turn(5_000_000);
    assert!(reason(places.open(65, &request(1, 3, 3))).contains("at most 64 answers"));
    places.turn(5_000_000);
    assert_eq!(reason(places.open(65, &request(1, 3, 3))), "");
    // Drafters leave half of the places to wait in to others.
    let mut crowd = Places::new(Limits { running_max: 1, waiting_max: 8, ..Limits::default() });
    let told: Vec<String> = (0..6).map(|session| reason(crowd.open(session, &request(1, 3, 3)))).collect();
    assert!(told[..4].iter().all(String::is_empty) && told[4..].iter().all(|told| told.contains("wait")), "{told:?}");
    assert_eq!(crowd.engine.waiting_room(), 4);
}

/// Ends are told again to who asks, those of the last answers: what goes is the oldest, whoever's it is.
#[test]
fn the_oldest_ends_are_forgotten_first() {
    let mut places = Places::new(Limits::default());
    // Numbers of sessions are drawn, so their order says nothing.
    let sessions: Vec<u64> = (0..300u64).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    for session in &sessions {
        places.open(*session, &request(1, 3, 1));
        places.round(*session, 1, &[], Want::Stream);
        (0..3).for_each(|_| places.turn(1_000));
    }
    let known = |places: &mut Places, session: u64| {
        let told = places.say(Speculation::Resume { session, commit: 0, digest: Digest::EMPTY });
        !matches!(told[..], [Speculation::Gone { .. }])
    };
    let known: Vec<bool> = sessions.iter().map(|session| known(&mut places, *session)).collect();
    assert_eq!(known.iter().position(|known| *known), Some(44));
    assert!(known[44..].iter().all(|known| *known));
}
