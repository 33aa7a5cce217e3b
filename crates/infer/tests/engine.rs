//! The engine over a tiny made-up model: nobody's text depends on who else is there.

use littoral_infer::constrain::{Constraint, Vocabulary, VocabularyIndex};
use littoral_infer::engine::{Engine, Event, Finish, Limits, Refused, Request, SequenceId};
use littoral_infer::model::Model;
use littoral_infer::pass::{PassError, Runner, Tokens};
use littoral_infer::sample::SamplingParams;
use littoral_model::lm::CacheType;
use littoral_tensor::pool::Pool;
use std::collections::VecDeque;
use std::sync::Arc;
use tiny::{Texts, WIDTH, alone, hear, request};

mod tiny;

fn model() -> Arc<Model> {
    tiny::model(2)
}

/// Four, each with something open in it, so that what the model would say shows.
fn constrained(model: &Model) -> Vec<Request> {
    let index = model.index().unwrap();
    let schema = r#"{"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 9}"#;
    let constraints = [
        Constraint::json_schema(index, schema),
        Constraint::regex(index, "([A-F]{2,6}-){3,5}[0-9]+"),
        Constraint::grammar(index, "start: \"(\" start \")\" | /[0-9]/ start | \"!\""),
        Constraint::choice(index, &["YES!".into(), "NO".into(), "NOT \"\\".into()]),
    ];
    let requests = constraints.into_iter().zip(20..).map(|(constraint, seed)| Request {
        constraint: Some(constraint.unwrap()),
        ignore_end: false,
        ..request(seed, 5 + seed as usize, 40)
    });
    requests.collect()
}

fn text(model: &Model, ids: &[u32]) -> String {
    model.tokeniser.decode(ids)
}

#[test]
fn a_text_is_the_same_alone_and_in_a_crowd() {
    let model = model();
    let pool = Pool::new(3);
    let mut requests: Vec<Request> = (0..9).map(|i| request(i, 1 + 9 * i as usize, 3 + i as usize)).collect();
    let mut expected: Vec<_> = requests.iter().map(|request| alone(&model, request.clone())).collect();
    assert!(expected.iter().zip(&requests).all(|((text, _), request)| text.len() == request.max_tokens));
    // Those that must have a form, between the others.
    for (at, request) in constrained(&model).into_iter().enumerate() {
        expected.insert(2 * at, alone(&model, request.clone()));
        requests.insert(2 * at, request);
    }
    // Few places, prompts in small pieces, some who come late and one who leaves; then all again, over kept states.
    let limits = Limits { running_max: 4, prompt_tokens_per_pass: 7, ..Limits::default() };
    let mut engine = Engine::new(model, CacheType::F16, limits).unwrap();
    for round in 0..2 {
        let (mut texts, mut ids) = (Texts::new(), Vec::new());
        let (early, late) = requests.split_at(5);
        early.iter().for_each(|request| ids.push(engine.submit(request.clone()).unwrap()));
        let leaves = engine.submit(request(77, 20, 50)).unwrap();
        for _ in 0..4 {
            hear(engine.step(&pool), &mut texts);
        }
        late.iter().for_each(|request| ids.push(engine.submit(request.clone()).unwrap()));
        engine.cancel(leaves);
        while !engine.idle() {
            assert!(engine.running() <= 4);
            hear(engine.step(&pool), &mut texts);
        }
        for (id, expected) in ids.iter().zip(&expected) {
            assert_eq!(&texts[id], expected, "round {round}");
        }
    }
}

/// What was tried, and how much of it stood.
#[derive(Default)]
struct Tried {
    proposed: usize,
    accepted: usize,
    passes: usize,
}

/// All that stands is what would have been written anyway: greedy, sampled, with penalties, under constraints, with
/// log-probabilities; whatever is proposed.
#[test]
fn a_text_with_proposals_is_the_text_without() {
    let model = model();
    let pool = Pool::new(2);
    let mut requests: Vec<Request> = (0..6).map(|i| request(i, 1 + 9 * i as usize, 30)).collect();
    requests[1].sampling = SamplingParams::greedy();
    requests[2].sampling.repetition_penalty = 1.3;
    requests[2].sampling.frequency_penalty = 0.7;
    requests[3].top_logprobs = Some(2);
    requests[4].sampling.top_k = 5;
    requests.extend(constrained(&model));
    let expected: Vec<_> = requests.iter().map(|request| alone(&model, request.clone())).collect();
    let mut engine = Engine::new(model, CacheType::F16, Limits { running_max: 20, ..Limits::default() }).unwrap();
    for request in &requests {
        engine.submit(request.clone()).unwrap();
    }
    let (mut texts, mut tried, mut turn) = (Texts::new(), Tried::default(), 0u32);
    while !engine.idle() {
        turn += 1;
        tried.passes += 1;
        let ahead: Vec<(SequenceId, usize, Vec<u32>)> = engine
            .answers()
            .map(|(id, _, answer)| {
                // The right ones, and from some place on wrong ones; for some none, for some too many or no ids at all.
                let right = expected[id.0 as usize].0.iter().skip(answer.len()).copied();
                let wrong_at = (turn + id.0 as u32) % 7;
                let mixed = right.zip(0u32..).map(|(token, at)| if at < wrong_at { token } else { (token + 1) % 64 });
                let mut tokens: Vec<u32> = mixed.take((turn % 9) as usize).collect();
                tokens.extend([u32::MAX, 1].iter().take((turn % 3) as usize));
                (id, answer.len(), tokens)
            })
            .collect();
        for (id, at, tokens) in ahead {
            engine.propose(id, at + usize::from(turn % 11 == 0), &tokens);
        }
        let events = engine.step(&pool);
        for event in &events {
            if let Event::Tried { proposed, accepted, .. } = event {
                tried.proposed += proposed;
                tried.accepted += accepted;
            }
        }
        hear(events, &mut texts);
    }
    for (index, expected) in expected.iter().enumerate() {
        assert_eq!(&texts[&SequenceId(index as u64)], expected, "sequence {index}");
    }
    let tokens: usize = expected.iter().map(|(text, _)| text.len()).max().unwrap();
    assert!(tried.accepted > 100 && tried.accepted < tried.proposed, "{} of {}", tried.accepted, tried.proposed);
    assert!(tried.passes < tokens, "{} passes, the longest text has {tokens} tokens", tried.passes);
}

/// What is told of a prompt's tokens is what was told when the model wrote them, bit for bit: read in pieces, in a crowd, over
/// kept states, and whatever else is proposed.
#[test]
fn a_prompt_is_told_as_it_was_written() {
    let (model, pool) = (model(), Pool::new(2));
    let greedy = Request { top_logprobs: Some(2), sampling: SamplingParams::greedy(), ..request(3, 20, 30) };
    let limits = Limits { prompt_tokens_per_pass: 7, ..Limits::default() };
    let mut engine = Engine::new(model, CacheType::F16, limits).unwrap();
    engine.submit(greedy.clone()).unwrap();
    let (mut written, mut told) = (Vec::new(), Vec::new());
    while !engine.idle() {
        for event in engine.step(&pool) {
            if let Event::Token { id, logprob, top, .. } = event {
                written.push((id, logprob.unwrap(), top));
            }
        }
    }
    let text = [greedy.prompt.clone(), written.iter().map(|(id, ..)| *id).collect()].concat();
    let id = engine.submit(Request { prompt: text.clone(), max_tokens: 2, ..greedy }).unwrap();
    engine.tell_prompt(id, 2);
    engine.submit(request(9, 30, 20)).unwrap();
    engine.propose(id, 0, &[1, 2]);
    while !engine.idle() {
        engine.step(&pool);
        told.extend(engine.prompts());
    }
    assert!(told.iter().all(|token| token.sequence == id));
    let whole: Vec<(usize, u32)> = told.iter().map(|token| (token.at, token.id)).collect();
    assert_eq!(whole, text.iter().copied().enumerate().skip(1).collect::<Vec<_>>());
    for (token, (id, logprob, top)) in told[19..].iter().zip(&written) {
        assert_eq!((token.id, token.logprob, &token.top, token.rank), (*id, *logprob, top, 1));
    }
}

/// Several passes on their way, passes that are lost, and states that are: the text is the same.
#[test]
fn passes_that_overlap_or_are_lost_change_nothing() {
    let model = model();
    let pool = Pool::new(1);
    let width = model.stage.config().width;
    let requests: Vec<Request> = (0..7).map(|i| request(i, 1 + 12 * i as usize, 9)).collect();
    let expected: Vec<_> = requests.iter().map(|request| alone(&model, request.clone())).collect();
    let limits = Limits { prompt_tokens_per_pass: 10, ..Limits::default() };
    let mut engine = Engine::new(model.clone(), CacheType::F16, limits).unwrap();
    let mut elsewhere = Runner::new(&model.stage, CacheType::F16).unwrap();
    let texts_to_read: Vec<Vec<u32>> = (5..8).map(|i| request(i, 25, 1).prompt).collect();
    for round in 0..2u64 {
        for request in &requests {
            engine.submit(request.clone()).unwrap();
        }
        engine.submit_texts(texts_to_read.clone()).unwrap();
        let (mut texts, mut vectors, mut away, mut turn) = (Texts::new(), Vec::new(), VecDeque::new(), 0u32);
        while !engine.idle() {
            turn += 1;
            while away.len() < 3
                && let Some(planned) = engine.plan(2)
            {
                away.push_back(planned);
            }
            assert_eq!(engine.passes(), away.len());
            if turn.is_multiple_of(13) {
                // Some were run before they were lost.
                for planned in away.drain(..).take(1) {
                    elsewhere.run(&model.stage, &planned.pass, Tokens::Ids(&planned.ids), &pool).unwrap();
                }
                away.clear();
                engine.void();
                if turn.is_multiple_of(2) {
                    elsewhere.clear();
                }
                continue;
            }
            let planned = away.front().unwrap();
            match elsewhere.run(&model.stage, &planned.pass, Tokens::Ids(&planned.ids), &pool) {
                Ok(out) => {
                    let wanted = planned.pass.select(out, width);
                    engine.finish(planned.number, &wanted, &pool);
                    away.pop_front();
                }
                Err(PassError::Lacking { slot, got, .. }) => {
                    away.clear();
                    engine.void();
                    engine.rewind(slot, got);
                }
                Err(other) => panic!("{other}"),
            }
            let events = engine.events();
            vectors.extend(events.iter().filter_map(|event| match event {
                Event::Embedded { vector, .. } => Some(vector.clone()),
                _ => None,
            }));
            hear(events.into_iter().filter(|event| !matches!(event, Event::Embedded { .. })).collect(), &mut texts);
        }
        for (index, expected) in expected.iter().enumerate() {
            assert_eq!(&texts[&SequenceId(8 * round + index as u64)], expected, "round {round}, sequence {index}");
        }
        let mut whole = Engine::new(model.clone(), CacheType::F16, Limits::default()).unwrap();
        whole.submit_texts(texts_to_read.clone()).unwrap();
        let mut alone = Vec::new();
        while !whole.idle() {
            alone.extend(whole.step(&pool).into_iter().filter_map(|event| match event {
                Event::Embedded { vector, .. } => Some(vector),
                _ => None,
            }));
        }
        assert_eq!(vectors, alone, "round {round}");
    }
}

/// A draft follows what another decides, and stops where it is told.
#[test]
fn an_answer_that_is_rewritten_goes_on_from_there() {
    let model = model();
    let pool = Pool::new(1);
    let request = request(4, 20, 30);
    let (expected, _) = alone(&model, request.clone());
    let mut engine = Engine::new(model, CacheType::F16, Limits::default()).unwrap();
    let id = engine.submit(request).unwrap();
    let answer = |engine: &Engine| engine.answers().next().unwrap().2.to_vec();
    let write = |engine: &mut Engine, tokens: usize| {
        engine.pace(id, tokens);
        (0..40).for_each(|_| drop(engine.step(&pool)));
    };
    write(&mut engine, 0);
    assert!(answer(&engine).is_empty());
    write(&mut engine, 10);
    assert_eq!(answer(&engine), expected[..10]);
    // Other tokens from the sixth on, then the right ones again, more than were written.
    let mut other = expected[..5].to_vec();
    other.extend([1, 2, 3]);
    engine.rewrite(id, &other);
    write(&mut engine, 12);
    assert_eq!(answer(&engine)[..8], other);
    engine.rewrite(id, &expected[..15]);
    write(&mut engine, 20);
    assert_eq!(answer(&engine), expected[..20]);
    engine.rewrite(id, &expected[..3]);
    write(&mut engine, 29);
    assert_eq!(answer(&engine), expected[..29]);
}

#[test]
fn a_kept_state_is_used_and_changes_nothing() {
    let model = model();
    let pool = Pool::new(1);
    let first = request(1, 40, 5);
    let mut longer = first.clone();
    longer.prompt.extend([7, 8, 9]);
    let expected = alone(&model, longer.clone());
    let mut engine = Engine::new(model, CacheType::F16, Limits::default()).unwrap();
    let (mut texts, mut reused) = (Texts::new(), Vec::new());
    for request in [first, longer] {
        engine.submit(request).unwrap();
        while !engine.idle() {
            let events = engine.step(&pool);
            reused.extend(events.iter().filter_map(|event| match event {
                Event::Started { reused, .. } => Some(*reused),
                _ => None,
            }));
            hear(events, &mut texts);
        }
    }
    assert_eq!(reused, [0, 40]);
    assert_eq!(texts[&SequenceId(1)], expected);
}

#[test]
fn a_constrained_text_has_its_form_and_ends_with_it() {
    let model = model();
    let ended = |request: Request| {
        let (ids, why) = alone(&model, request);
        (text(&model, &ids), why)
    };
    let [schema, regex, grammar, choice] = constrained(&model).try_into().unwrap();
    let (numbers, why) = ended(schema.clone());
    match why {
        Some(Finish::End) => {
            let numbers: Vec<f64> = serde_json::from_str(&numbers).unwrap_or_else(|e| panic!("{e}: {numbers}"));
            assert!((3..=9).contains(&numbers.len()));
        }
        why => assert_eq!((why, &numbers[..1]), (Some(Finish::Length), "[")),
    }
    // Cut in the middle, it says so.
    let (cut, why) = ended(Request { max_tokens: 2, ..schema });
    assert_eq!((why, cut.len()), (Some(Finish::Length), 2));
    let (letters, _) = ended(regex);
    assert!(letters.split('-').next().is_some_and(|part| (2..=6).contains(&part.len())), "{letters}");
    let (nested, why) = ended(grammar);
    assert!(why == Some(Finish::Length) || nested.matches('(').count() == nested.matches(')').count(), "{nested}");
    // Nothing can follow: the end is not a token of its own.
    let (word, why) = ended(Request { max_tokens: 4, ..choice });
    assert!(["YES!", "NO"].contains(&word.as_str()) || word == "NOT ", "{word}");
    assert_eq!(why == Some(Finish::End), word != "NOT ", "{word}");
}

#[test]
fn a_vector_is_the_same_alone_and_in_a_crowd() {
    let model = model();
    // Of one token, of more than a pass reads, and two that are alike.
    let texts: Vec<Vec<u32>> = [1, 3, 80, 20, 20, 2].iter().map(|tokens| request(3, *tokens, 1).prompt).collect();
    let limits = Limits { running_max: 3, prompt_tokens_per_pass: 16, ..Limits::default() };
    let vectors = |engine: &mut Engine, texts: &[Vec<u32>], pool: &Pool| {
        let id = engine.submit_texts(texts.to_vec()).unwrap();
        let mut vectors = Vec::new();
        while !engine.idle() {
            for event in engine.step(pool) {
                match event {
                    Event::Embedded { sequence, text, vector } if sequence == id => {
                        assert_eq!(text, vectors.len());
                        vectors.push(vector);
                    }
                    Event::Embedded { .. } => panic!("a vector of another"),
                    _ => {}
                }
            }
        }
        vectors
    };
    let mut engine = Engine::new(model.clone(), CacheType::F16, limits).unwrap();
    let alone: Vec<Vec<f32>> =
        texts.iter().flat_map(|text| vectors(&mut engine, std::slice::from_ref(text), &Pool::new(1))).collect();
    for seed in 0..2 {
        engine.submit(request(seed, 50, 30)).unwrap();
    }
    let together = vectors(&mut engine, &texts, &Pool::new(3));
    assert_eq!(together, alone);
    assert_eq!(alone[3], alone[4]);
    assert_ne!(alone[2], alone[3]);
    for vector in &alone {
        let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        // 32 elements, each rounded to f32.
        assert!(vector.len() == WIDTH && (length - 1.0).abs() < 1e-6, "{length}");
    }
    let refused = |engine: &mut Engine, texts: Vec<Vec<u32>>| engine.submit_texts(texts).unwrap_err().to_string();
    assert!(refused(&mut engine, vec![]).contains("at least one text"));
    assert!(refused(&mut engine, vec![vec![1], vec![]]).contains("none in text 1"));
    assert!(refused(&mut engine, vec![vec![64]]).contains("ids below 64"));
    assert!(refused(&mut engine, vec![vec![1; 97]]).contains("at most 96 tokens"));
}

#[test]
fn a_constraint_of_another_vocabulary_is_refused() {
    struct Bytes;
    impl Vocabulary for Bytes {
        fn size(&self) -> usize {
            2
        }
        fn bytes(&self, id: u32) -> Option<&[u8]> {
            [Some(&b"a"[..]), None][id as usize]
        }
        fn ends(&self) -> &[u32] {
            &[1]
        }
    }
    let constraint = Constraint::regex(&VocabularyIndex::new(&Bytes).unwrap(), "a+").unwrap();
    let mut engine = Engine::new(model(), CacheType::F16, Limits::default()).unwrap();
    let refused = engine.submit(Request { constraint: Some(constraint), ..request(1, 3, 3) }).unwrap_err();
    assert_eq!(refused.to_string(), "constraint: one over 64 tokens expected, got 2");
}

#[test]
fn what_cannot_be_answered_is_refused_by_name() {
    let wide = Engine::new(model(), CacheType::Q8_0, Limits::default()).err().map(|why| why.to_string());
    let expected = "a cache of type q8_0: heads of a multiple of 32 elements expected, got 8: take type f16";
    assert_eq!(wide.as_deref(), Some(expected));
    let limits = Limits { running_max: 1, waiting_max: 2, ..Limits::default() };
    let mut engine = Engine::new(model(), CacheType::F16, limits).unwrap();
    let wrong = |engine: &mut Engine, change: fn(&mut Request)| {
        let mut request = request(1, 3, 3);
        change(&mut request);
        engine.submit(request).unwrap_err().to_string()
    };
    assert!(wrong(&mut engine, |r| r.prompt.clear()).contains("prompt: at least one token"));
    assert!(wrong(&mut engine, |r| r.prompt[1] = 64).contains("ids below 64 expected, got 64"));
    assert!(wrong(&mut engine, |r| r.max_tokens = 0).contains("max_tokens"));
    assert!(wrong(&mut engine, |r| r.sampling.top_p = 2.0).contains("top_p"));
    let long = wrong(&mut engine, |r| r.prompt = vec![1; 96]);
    assert!(long.contains("96 tokens") && long.contains("at most 95"), "{long}");
    engine.submit(request(1, 90, 50)).unwrap();
    engine.submit(request(2, 3, 3)).unwrap();
    assert_eq!(engine.submit(request(3, 3, 3)), Err(Refused::Busy { waiting: 2 }));
    // The context ends the first one: 90 and 6 are 96.
    let mut texts = Texts::new();
    while !engine.idle() {
        hear(engine.step(&Pool::new(1)), &mut texts);
    }
    let (text, why) = &texts[&SequenceId(0)];
    assert_eq!((text.len(), why), (6, &Some(Finish::Context)));
}

/// Whoever was to hear of it in a pass that was lost has not.
#[test]
fn what_was_freed_in_a_pass_that_was_lost_is_freed_again() {
    let limits = Limits { kept_bytes_max: 0, ..Limits::default() };
    let mut engine = Engine::new(model(), CacheType::F16, limits).unwrap();
    engine.submit(request(1, 3, 1)).unwrap();
    let slot = engine.plan(usize::MAX).unwrap().pass.pieces[0].slot;
    engine.void();
    while !engine.idle() {
        engine.step(&Pool::new(1));
    }
    engine.submit(request(2, 3, 1)).unwrap();
    let lost = engine.plan(usize::MAX).unwrap();
    assert_eq!(lost.pass.freed, [slot]);
    engine.void();
    let again = engine.plan(usize::MAX).unwrap();
    assert_eq!((again.pass.freed, again.number), (vec![slot], lost.number + 1));
}
