//! A large and a small model over one step: the text is the large one's, and what was saved is counted as it was.

use littoral_infer::engine::{Engine, Limits, Request, SequenceId};
use littoral_infer::model::Model;
use littoral_infer::speculate::pair::Pair;
use littoral_model::lm::CacheType;
use littoral_tensor::pool::Pool;
use std::sync::Arc;
use tiny::{Texts, alone, hear, model, request};

mod tiny;

fn engine(model: &Arc<Model>) -> Engine {
    Engine::new(model.clone(), CacheType::F16, Limits::default()).unwrap()
}

/// Steps while anybody may write.
fn write(pair: &mut Pair, texts: &mut Texts, until: impl Fn(&Texts) -> bool) {
    let (pool, mut now_us) = (Pool::new(1), 0);
    for _ in 0..400 {
        if until(texts) {
            return;
        }
        let mut clock = || {
            now_us += 1_000;
            now_us
        };
        hear(pair.step(&pool, &mut clock), texts);
    }
    panic!("no end: {texts:?}");
}

fn over(texts: &Texts, id: SequenceId) -> bool {
    texts.get(&id).is_some_and(|(_, why)| why.is_some())
}

/// A sequence that waits in the middle of its answer takes part in no pass: nothing is counted for it meanwhile. The small model is
/// the large one, so that drafts hold.
#[test]
fn passes_are_counted_for_those_who_are_in_them() {
    let big = model(2);
    let requests: [Request; 2] = [request(1, 20, 60), request(2, 9, 60)];
    let mut pair = Pair::new(engine(&big), Some(engine(&big))).unwrap();
    let mut texts = Texts::new();
    let [first, second] = requests.clone().map(|request| pair.engine_mut().submit(request).unwrap());
    pair.engine_mut().pace(first, 3);
    write(&mut pair, &mut texts, |texts| over(texts, second));
    let waited = texts[&first].0.len();
    assert!((3..40).contains(&waited), "{waited}");
    let counted = pair.counted();
    // A first token is the prompt's, and is no business of drafts.
    assert_eq!(counted.tokens as usize, texts[&first].0.len() + texts[&second].0.len() - 2);
    let passes = counted.passes;
    pair.engine_mut().pace(first, usize::MAX);
    write(&mut pair, &mut texts, |texts| over(texts, first));
    for (id, request) in [first, second].into_iter().zip(requests) {
        assert_eq!(texts[&id], alone(&big, request));
    }
    let counted = pair.counted();
    assert_eq!(counted.tokens, 2 * 59);
    assert_eq!(counted.passes_saved(), counted.accepted, "{counted:?}");
    assert!(passes < counted.passes && counted.accepted > 0, "{counted:?}");
}
