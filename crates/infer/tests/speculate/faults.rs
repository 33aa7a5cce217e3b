//! Any interleaving, loss, doubling and break of the link: the committed text is that of plain decoding.

use crate::world::{Link, Models, Repeats, Run, World};
use littoral_infer::speculate::controller::Controller;
use littoral_infer::speculate::costs::Costs;
use littoral_infer::speculate::drafter::{Mode, Over, Policy, Sources};
use littoral_wire::speculation::Ending;
use proptest::prelude::*;

fn policy(kind: usize, tokens: usize, ahead: usize) -> Policy {
    match kind {
        0 => Policy::Fixed(Mode::Stream),
        1 => Policy::Fixed(Mode::Rounds { tokens }),
        2 => Policy::Fixed(Mode::Ahead { block: tokens.min(8), ahead }),
        3 => Policy::Fixed(Mode::Along { block: tokens.min(8), ahead }),
        _ => Policy::Learning(Box::new(Controller::new(Costs::GUESS))),
    }
}

fn run(models: &Models, link: Link, policy: Policy, sources: Sources) -> Run {
    World::run(models.clone(), link, policy, sources, 120)
}

/// Half of them texts that repeat themselves, some without end.
fn repeats() -> impl Strategy<Value = Option<Repeats>> {
    let repeats = |(passage, copied, broken)| Repeats { passage, copied, broken };
    proptest::option::of((1..40usize, 0.3..1.5f64, prop_oneof![Just(0.0), 0.0..0.3f64]).prop_map(repeats))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_text_is_that_of_plain_decoding(
        seed in any::<u64>(), kind in 0..5usize, tokens in 1..64usize, ahead in 1..100usize, alpha in 0.0..1.0f64,
        round_trip_us in prop_oneof![Just(0u64), 1_000..300_000u64], lost in 0..300u64, doubled in 0..300u64,
        jitter_us in 0..200_000u64, breaks_us in proptest::option::of(1_000..3_000_000u64),
        end_at in proptest::option::of(0..130usize), draft_us in 500..40_000u64, repeats in repeats(),
        sources in prop_oneof![Just(Sources::Model), Just(Sources::Lookup), Just(Sources::Both)],
    ) {
        let models = Models {
            seed, acceptance: |_, alpha| alpha, alpha, repeats, end_at, draft_us, pass_us: 30_000, pass_token_us: 1_000,
        };
        let link = Link { round_trip_us, lost, doubled, jitter_us, breaks_us, becomes: None };
        let run = run(&models, link, policy(kind, tokens, ahead), sources);
        prop_assert_eq!(&run.text, &models.text(120));
        let ending = if run.text.len() == 120 { Ending::Length } else { Ending::End };
        prop_assert_eq!(run.over, Some(Over::Finished(ending)));
        prop_assert_eq!((run.counted.tokens, run.counted.passes), (run.text.len() as u64, run.passes));
        let yields = run.yields;
        prop_assert!(sources != Sources::Model || yields.text.drafted == 0);
        prop_assert!(sources != Sources::Lookup || yields.model.drafted == 0);
        prop_assert!(yields.text.held <= yields.text.drafted && yields.model.held <= yields.model.drafted);
        // A pass commits one token more than it accepts, except where the answer ends before that one.
        prop_assert!((0..=1).contains(&(run.counted.passes_saved() as i64 - run.counted.accepted as i64).abs()));
    }
}
