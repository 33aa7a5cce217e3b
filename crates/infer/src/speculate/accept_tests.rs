//! The law of what comes out, exactly where numbers are exact and within five standard errors where they are drawn.

use super::*;
use crate::sample::{History, Sampler, SamplingParams};

const ONE: u32 = Declared::ONE;

/// Masses of ids 0 to n - 1 that add up to [`ONE`], some of them 0.
fn masses(seed: u64, position: u64, n: usize) -> Vec<u32> {
    let noise = Noise::new(seed, position);
    let mut cuts: Vec<u32> = (1..n as u32).map(|id| (noise.uniform(id) * f64::from(ONE + 1)) as u32).collect();
    // Two of the same cut: a token without mass.
    if n > 3 && noise.uniform(0) < 0.5 {
        cuts[0] = cuts[1];
    }
    cuts.extend([0, ONE]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

fn declared(masses: &[u32]) -> Declared {
    let named = (0..).zip(masses).filter(|(_, mass)| **mass > 0);
    Declared::new(named.map(|(id, mass)| Share { id, less_one: (mass - 1) as u16 }).collect()).expect("they add up")
}

fn sparse(masses: &[u32]) -> Vec<(u32, f64)> {
    let named = (0..).zip(masses).filter(|(_, mass)| **mass > 0);
    named.map(|(id, mass)| (id, f64::from(*mass) / f64::from(ONE))).collect()
}

/// How many of the `n` numbers (i + 1/2) / n satisfy a condition that holds up to some point.
fn count_of(n: u32, holds: impl Fn(f64) -> bool) -> u32 {
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = (low + high) / 2;
        let uniform = (f64::from(middle) + 0.5) / f64::from(n);
        (low, high) = if holds(uniform) { (middle + 1, high) } else { (low, middle) };
    }
    low
}

/// E.1: the law of the output is p, as integers. All masses are over 65,536. Of the q(x) numbers between 0 and 1 that are as
/// many as x's mass, those that accept are counted; of as many as p has more than q, those that draw each token in its place.
#[test]
fn the_law_is_the_targets_for_500_random_pairs() {
    for case in 0..500 {
        let n = 2 + case as usize % 7;
        let (p, q) = (masses(1, case, n), masses(2, case, n));
        let (target, draft) = (sparse(&p), declared(&q));
        let mut law = vec![0; n];
        for (x, &mass) in (0u32..).zip(&q).filter(|(_, mass)| **mass > 0) {
            law[x as usize] += count_of(mass, |uniform| accepts(&target, &draft, x, uniform));
        }
        // The residual's order is p's, which is by id here.
        let rejected = ONE - law.iter().sum::<u32>();
        let mut before = 0;
        for x in 0..n as u32 {
            let up_to = count_of(rejected, |uniform| residual(&target, &draft, uniform).is_some_and(|id| id <= x));
            law[x as usize] += up_to - before;
            before = up_to;
        }
        assert_eq!(law, p, "case {case}: q {q:?}");
    }
}

#[test]
fn what_is_declared_is_exactly_what_is_drawn_from() {
    for case in 0..50 {
        let q = masses(3, case, 9);
        let draft = declared(&q);
        let mut before = 0;
        for (id, mass) in (0u32..).zip(q) {
            let up_to = count_of(ONE, |uniform| draw_by(&draft, uniform) <= id);
            assert_eq!((up_to - before, draft.mass(id)), (mass, mass), "case {case}, token {id}");
            before = up_to;
        }
    }
}

#[test]
fn a_declared_distribution_is_near_the_one_it_was_cut_from() {
    let weights: Vec<f64> = (0..100).map(|i| 0.9f64.powi(i)).collect();
    let total: f64 = weights.iter().sum();
    let distribution: Vec<(u32, f64)> = (0u32..).zip(&weights).map(|(i, w)| (1_000 - 7 * i, w / total)).collect();
    let draft = declare(&distribution).expect("not empty");
    assert_eq!((draft.len(), draft.iter().map(Share::mass).sum::<u32>()), (DECLARED_MAX, ONE));
    let kept: f64 = distribution[..DECLARED_MAX].iter().map(|(_, p)| p).sum();
    for (id, p) in &distribution[..DECLARED_MAX] {
        assert!((f64::from(draft.mass(*id)) - p / kept * f64::from(ONE)).abs() < 1.0);
    }
    // One that has it all, some that have next to nothing, none at all.
    assert_eq!(declare(&[(5, 1.0), (6, 1e-9)]).expect("not empty").to_vec(), [Share { id: 5, less_one: u16::MAX }]);
    assert_eq!(declare(&[]), None);
}

#[test]
fn a_token_that_was_not_drawn_from_what_is_declared_never_holds() {
    let (p, q) = ([(3, 0.75), (1, 0.25)], declared(&[0, ONE]));
    assert!(!accepts(&p, &q, 3, 0.001));
    // Equal distributions reject by rounding at most; then the target's best stands in.
    assert_eq!(residual(&[(1, 1.0)], &q, 0.5), Some(1));
    assert_eq!(judge(&[], &q, 1, 0, 0), None);
}

/// A Markov chain over a few tokens, as rows of masses.
struct Chain(u64, usize);

impl Chain {
    fn row(&self, last: u32) -> Vec<u32> {
        masses(self.0, u64::from(last), self.1)
    }
}

/// The text of rounds of two drafts each, until it has three tokens.
fn text(target: &Chain, draft: &Chain, seed: u64) -> [u32; 3] {
    let mut text = vec![0];
    while text.len() < 4 {
        let begin = text.len();
        let mut drafts = text.clone();
        for position in begin..begin + 2 {
            drafts.push(draw(&declared(&draft.row(drafts[position - 1])), seed, position as u64));
        }
        for position in begin..begin + 3 {
            let p = sparse(&target.row(text[position - 1]));
            let Some(&drafted) = drafts.get(position) else {
                // All held: one more, by the sampler's own noise.
                text.push(draw_by(
                    &declared(&target.row(text[position - 1])),
                    Noise::new(seed, position as u64).uniform(0),
                ));
                break;
            };
            let q = declared(&draft.row(drafts[position - 1]));
            match judge(&p, &q, drafted, seed, position as u64).expect("p is not empty") {
                Verdict::Accepted => text.push(drafted),
                Verdict::Rejected { instead } => {
                    text.push(instead);
                    break;
                }
            }
        }
    }
    [text[1], text[2], text[3]]
}

/// E.1: over several rounds, the joint law of three tokens is the target's. 20 pairs, 20 000 texts each: the statistic of
/// Pearson's test over 27 texts, by its standard deviation of sqrt(2 * 26) from its mean of 26; 20 pairs stay below 5.
#[test]
fn the_joint_law_of_three_tokens_is_the_targets() {
    for pair in 0..20 {
        let (target, draft) = (Chain(100 + pair, 3), Chain(200 + pair, 3));
        let texts = 20_000;
        let mut counts = [0u32; 27];
        for seed in 0..texts {
            let [a, b, c] = text(&target, &draft, seed + pair * texts);
            counts[(a * 9 + b * 3 + c) as usize] += 1;
        }
        let part = |last: u32, next: u32| f64::from(target.row(last)[next as usize]) / f64::from(ONE);
        let (mut statistic, mut cells) = (0.0, 0.0);
        for (index, count) in (0u32..).zip(counts) {
            let [a, b, c] = [index / 9, index / 3 % 3, index % 3];
            let expected = part(0, a) * part(a, b) * part(b, c) * texts as f64;
            if expected < 5.0 {
                // Too rare for the test's law; what is impossible must not come.
                assert!(expected > 0.0 || count == 0, "pair {pair}: {a} {b} {c} came {count} times");
                continue;
            }
            statistic += (f64::from(count) - expected).powi(2) / expected;
            cells += 1.0;
        }
        let freedom: f64 = cells - 1.0;
        assert!(statistic < freedom + 5.0 * (2.0 * freedom).sqrt(), "pair {pair}: {statistic} over {cells} texts");
    }
}

/// E.2: drafts that share the verifier's noise hold with a chance between (1 - D) / (1 + D) and 1 - D, D the distance in total
/// variation. 20 000 draws: the bounds are widened by five standard errors of at most 0.0036.
#[test]
fn shared_noise_keeps_drafts_within_the_known_bounds() {
    for pair in 0..8 {
        let logits = |seed| -> Vec<f32> { (0..24).map(|id| 3.0 * Noise::new(seed, pair).uniform(id) as f32).collect() };
        let (large, near) = (logits(11), logits(12));
        // Between a copy and a stranger.
        let mix = pair as f32 / 7.0;
        let small: Vec<f32> = large.iter().zip(&near).map(|(a, b)| a + mix * (b - a)).collect();
        let mut sampler = Sampler::new(SamplingParams { seed: 5, ..SamplingParams::default() }).expect("valid");
        let mut by_id = |logits: &[f32]| {
            let mut p = sampler.distribution(logits, History::default(), None).expect("finite");
            p.sort_unstable_by_key(|(id, _)| *id);
            p
        };
        let (p, q) = (by_id(&large), by_id(&small));
        let distance = p.iter().zip(&q).map(|(p, q)| (p.1 - q.1).abs()).sum::<f64>() / 2.0;
        let draws = 20_000u64;
        let same = (0..draws).filter(|&position| {
            let mut pick = |logits: &[f32]| {
                sampler.seek(position);
                sampler.pick(logits, History::default(), None).expect("finite")
            };
            pick(&large) == pick(&small)
        });
        let kept = same.count() as f64 / draws as f64;
        let (low, high) = ((1.0 - distance) / (1.0 + distance), 1.0 - distance);
        assert!(kept > low - 0.018 && kept < high + 0.018, "D {distance}: {kept} not in {low} to {high}");
    }
}
