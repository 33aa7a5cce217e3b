//! A link that becomes another in the middle of an answer: however the answer is made, that is seen.

use crate::world::{Link, Models, World};
use littoral_infer::speculate::controller::Controller;
use littoral_infer::speculate::costs::Costs;
use littoral_infer::speculate::drafter::{Mode, Policy, Sources};

const MODELS: Models = Models {
    seed: 3,
    acceptance: |_, alpha| alpha,
    alpha: 0.8,
    repeats: None,
    end_at: None,
    draft_us: 8_000,
    pass_us: 30_000,
    pass_token_us: 1_000,
};

/// The round trip that was measured when 600 tokens are written, over a link that becomes the other after five seconds.
fn measured_ms(from_ms: u64, to_ms: u64, policy: Policy) -> f64 {
    let becomes = Some((5_000_000, to_ms * 1_000));
    let link = Link { round_trip_us: from_ms * 1_000, becomes, ..Link::default() };
    let run = World::run(MODELS, link, policy, Sources::Model, 600);
    assert_eq!(run.text, MODELS.text(600));
    run.costs.expect("a controller measures").round_trip_s * 1e3
}

#[test]
fn a_round_trip_is_measured_as_long_as_an_answer_is_made() {
    let ways = [
        Mode::Stream,
        Mode::Rounds { tokens: 4 },
        Mode::Ahead { block: 4, ahead: 40 },
        Mode::Along { block: 2, ahead: 40 },
    ];
    for (from_ms, to_ms) in [(10, 150), (150, 10)] {
        for mode in ways {
            let controller = Controller::new(Costs::GUESS).pinned_to(mode);
            let measured = measured_ms(from_ms, to_ms, Policy::Learning(Box::new(controller)));
            // What is drafted along waits for a pass that is being made: the least of eight is a ninth of one too much.
            let expected = to_ms as f64;
            assert!((-0.1..10.0).contains(&(measured - expected)), "{mode:?} to {to_ms} ms: {measured}");
        }
        let measured = measured_ms(from_ms, to_ms, Policy::Learning(Box::new(Controller::new(Costs::GUESS))));
        assert!((-0.1..10.0).contains(&(measured - to_ms as f64)), "the controller's way to {to_ms} ms: {measured}");
    }
}
