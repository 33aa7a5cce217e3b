//! Error feedback: what it adds up to, and what it mends.

use super::*;
use littoral_fed::compress::in_steps;
use littoral_fed::compress::residual::{add, left};
use littoral_fed::compress::sign::Sign;
use littoral_fed::compress::topk::{TopK, Values};

const STEP: f64 = 1.0 / 65_536.0;

/// One participation: (what the edge adds, what the device keeps if it is included).
fn participate(codec: &dyn Codec, update: &[f32], kept: &[i32], number: u64) -> (Vec<i32>, Vec<i32>) {
    let mut update = update.to_vec();
    let p = add(&mut update, kept, STEP).unwrap();
    let sent: Vec<i32> =
        in_steps(&through(codec, &update, &seed(number)), STEP).into_iter().map(|v| v as i32).collect();
    let left = left(p, &sent).unwrap();
    (sent, left)
}

fn steps(update: &[f32]) -> Vec<i64> {
    in_steps(update, STEP)
}

#[test]
fn what_was_sent_and_what_is_left_are_all_updates_exactly() {
    let codecs: [Box<dyn Codec>; 3] = [
        Box::new(Sign),
        Box::new(TopK::new(0.05, Values::Signs).unwrap()),
        Box::new(TopK::new(0.05, Values::Bits(4)).unwrap()),
    ];
    for codec in codecs {
        let (mut kept, mut sent_sum, mut update_sum) = (Vec::new(), vec![0i64; 300], vec![0i64; 300]);
        for round in 0..50 {
            let update = uneven(300, round);
            let (sent, left) = participate(&*codec, &update, &kept, round);
            sent_sum.iter_mut().zip(sent).for_each(|(sum, v)| *sum += i64::from(v));
            update_sum.iter_mut().zip(steps(&update)).for_each(|(sum, v)| *sum += v);
            kept = left;
        }
        sent_sum.iter_mut().zip(&kept).for_each(|(sum, &e)| *sum += i64::from(e));
        assert_eq!(sent_sum, update_sum, "{}", codec.name());
    }
}

/// A device that is away for k rounds keeps its residual as it is, and one that was not included keeps the one before.
#[test]
fn a_residual_waits_unchanged_and_moves_only_if_it_was_included() {
    let codec = TopK::new(0.1, Values::Signs).unwrap();
    let run = |away: u64, lost: bool| {
        let (_, kept) = participate(&codec, &uneven(200, 1), &[], 1);
        if lost {
            // Sealed and sent, but the announcement did not list it: what was pending is forgotten.
            let _forgotten = participate(&codec, &uneven(200, 3), &kept, 2);
        }
        // Draws hang on the version; what is kept does not.
        participate(&codec, &uneven(200, 2), &kept, 10 + away)
    };
    let soon = run(1, false);
    for away in [2, 20, 1000] {
        assert_eq!(run(away, false), soon, "away for {away} rounds");
    }
    assert_eq!(run(1, true), soon);
}

#[test]
fn what_leaves_32_bits_is_refused() {
    assert!(add(&mut [1e6], &[], STEP).unwrap_err().to_string().contains("2^31 steps"));
    assert!(add(&mut [1.0], &[i32::MAX], STEP).is_err());
    assert!(add(&mut [f32::NAN], &[], STEP).is_err());
    assert!(add(&mut [1.0, 2.0], &[0], STEP).is_err());
    assert!(left(vec![i32::MIN], &[1]).is_err());
    assert!(left(vec![0], &[1, 2]).is_err());
}

/// Karimireddy et al. 2019, counter-example 1: gradients 4 with probability 1/4 and −1 with 3/4 on [−1, 1]. The mean gradient
/// is 1/4, so the optimum is −1; the mean sign is −1/2.
#[test]
fn bare_signs_climb_where_scaled_signs_with_feedback_descend() {
    let mut draws = Draws::new(&seed(1));
    let rate = 0.01;
    let (mut bare, mut mended, mut kept) = (0f32, 0f32, Vec::new());
    for round in 0..2000 {
        let gradient = if draws.chance(1, 4) { 4.0 } else { -1.0 };
        bare = (bare - rate * f32::signum(gradient)).clamp(-1.0, 1.0);
        let (sent, left) = participate(&Sign, &[rate * gradient], &kept, round);
        kept = left;
        mended = (mended - (f64::from(sent[0]) * STEP) as f32).clamp(-1.0, 1.0);
    }
    assert!(bare > 0.9, "signs alone end at the worst point: {bare}");
    assert!(mended < -0.9, "with scale and feedback at the best one: {mended}");
}

/// Their counter-example 2: f(x) = ε|x₁ + x₂| + |x₁ − x₂| from (1, 1). Every sign is ±(1, −1), so x₁ + x₂ never moves.
#[test]
fn scaled_signs_are_stuck_without_feedback_and_not_with_it() {
    let epsilon = 0.25f32;
    let f = |x: [f32; 2]| epsilon * (x[0] + x[1]).abs() + (x[0] - x[1]).abs();
    // Subgradients, the second sign of 0 being 1.
    let g = |x: [f32; 2]| {
        let (sum, difference) = (epsilon * (x[0] + x[1]).signum(), (x[0] - x[1]).signum());
        [sum + difference, sum - difference]
    };
    let run = |feedback: bool| {
        let (mut x, mut kept, mut best) = ([1f32, 1.0], Vec::new(), f32::MAX);
        for round in 0..4000 {
            let rate = 0.1 / (1.0 + round as f32).sqrt();
            let (sent, left) = participate(&Sign, &g(x).map(|g| rate * g), &kept, round);
            if feedback {
                kept = left;
            }
            x.iter_mut().zip(sent).for_each(|(x, v)| *x -= (f64::from(v) * STEP) as f32);
            best = best.min(f(x));
        }
        (x, best)
    };
    let (x, best) = run(false);
    assert!((x[0] + x[1] - 2.0).abs() < 1e-3 && best >= 2.0 * epsilon * 0.999, "{x:?} {best}");
    let (x, best) = run(true);
    assert!(best < 0.05, "{x:?} {best}");
}
