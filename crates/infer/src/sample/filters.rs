//! The filters over candidates: typical, top-p, min-p.

use super::rank::rank;
use littoral_tensor::weights::mass;
use std::cmp::Ordering;

/// A token that may still be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub id: u32,
    /// The logarithm of the weight; finite.
    pub log_weight: f32,
    /// Above 0, at most 1.
    pub weight: f32,
}

pub(super) fn by_weight(a: &Candidate, b: &Candidate) -> Ordering {
    rank((a.log_weight, a.id), (b.log_weight, b.id))
}

pub(super) fn sum(candidates: &[Candidate]) -> u64 {
    candidates.iter().map(|c| mass(c.weight)).sum()
}

/// How much mass a share of a total is. The product is rounded once, upwards.
fn share(total: u64, part: f32) -> u64 {
    (total as f64 * f64::from(part)).ceil() as u64
}

/// Keeps the first candidates that together hold `target` or more, at least one; all if even all hold less. First is
/// whose `key`, a number from 0, is least, and among equals whose weight is greatest, then whose id is least. The order
/// of the kept ones is not specified.
///
/// No sort: one pass adds the masses of candidates with nearby keys, which shows where the cut is to 1/64, and only the
/// candidates there are told apart.
fn keep_mass(candidates: &mut Vec<Candidate>, target: u64, key: impl Fn(&Candidate) -> f64) {
    // Keys beyond 64, whose candidates are 10^-28 as probable as the first, share the last slot.
    const SLOTS: usize = 64 * 64;
    // An empty slot must not be the cut.
    let target = target.max(1);
    let slot = |c: &Candidate| ((key(c) * 64.0) as usize).min(SLOTS - 1);
    let mut masses = vec![0u64; SLOTS];
    for c in candidates.iter() {
        masses[slot(c)] += mass(c.weight);
    }
    let mut held = 0;
    let cut = masses.iter().position(|&mass| {
        held += mass;
        held >= target
    });
    let Some(cut) = cut else { return };
    held -= masses[cut];
    candidates.retain(|c| slot(c) <= cut);
    let mut certain = 0;
    for i in 0..candidates.len() {
        if slot(&candidates[i]) < cut {
            candidates.swap(certain, i);
            certain += 1;
        }
    }
    let compare = |a: &Candidate, b: &Candidate| {
        key(a).partial_cmp(&key(b)).unwrap_or(Ordering::Equal).then_with(|| by_weight(a, b))
    };
    let more = head_with(&mut candidates[certain..], target - held, compare);
    candidates.truncate(certain + more);
}

/// Brings the first candidates that together hold `target` to the front, at least one, and returns how many they are.
/// Selection by halving: the half that holds the cut is halved again.
fn head_with(candidates: &mut [Candidate], target: u64, compare: impl Fn(&Candidate, &Candidate) -> Ordering) -> usize {
    // All before `low` is in and holds `held`; nothing from `high` on is needed.
    let (mut low, mut high, mut held) = (0, candidates.len(), 0);
    while high - low > 1 {
        let middle = (high - low) / 2;
        let range = &mut candidates[low..high];
        range.select_nth_unstable_by(middle, &compare);
        let half = sum(&range[..middle]);
        if held + half >= target {
            high = low + middle;
        } else {
            held += half;
            low += middle;
        }
    }
    high
}

/// Locally typical sampling (Meister et al. 2023): candidates by how far their surprise -ln p is from the entropy, the
/// closest first, as many as hold the share `typical_p`. `total` is the sum of their masses. Among equals the more
/// probable goes first, then the lower id.
pub(super) fn typical(candidates: &mut Vec<Candidate>, total: u64, typical_p: f32) {
    // With s = ln of the weight and Z their sum: surprise = ln Z - s, entropy = ln Z - mean of s. So ln Z falls out.
    // The mean is a sum of floats: by id, in one order.
    candidates.sort_unstable_by_key(|c| c.id);
    let weighted: f64 = candidates.iter().map(|c| mass(c.weight) as f64 * f64::from(c.log_weight)).sum();
    let mean = weighted / total as f64;
    let distance = |c: &Candidate| (f64::from(c.log_weight) - mean).abs();
    keep_mass(candidates, share(total, typical_p), distance);
}

/// Nucleus sampling (Holtzman et al. 2020): the most probable candidates that hold the share `top_p` of `total`. The
/// token that crosses the share is in.
pub(super) fn top_p(candidates: &mut Vec<Candidate>, total: u64, top_p: f32) {
    keep_mass(candidates, share(total, top_p), |c| -f64::from(c.log_weight));
}

/// Candidates at least `min_p` times as probable as the most probable one.
pub(super) fn min_p(candidates: &mut Vec<Candidate>, min_p: f32) {
    let most = candidates.iter().fold(0.0f32, |most, c| most.max(c.weight));
    candidates.retain(|c| c.weight >= min_p * most);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Slots and halving against a sort and a running sum.
        #[test]
        fn keep_mass_is_the_shortest_head_with_enough(
            steps in proptest::collection::vec(prop_oneof![0u8..30, 0u8..=255], 1..300), part in 0.0f32..=1.0,
        ) {
            let candidates: Vec<Candidate> = (0u32..).zip(&steps).map(|(id, &step)| {
                // Steps of 1/100: several to a slot, and ties.
                let log_weight = -f32::from(step) / 100.0;
                Candidate { id, log_weight, weight: littoral_tensor::exp(log_weight) }
            }).collect();
            let target = share(sum(&candidates), part);
            let mut sorted = candidates.clone();
            sorted.sort_by(by_weight);
            let enough = (1..sorted.len()).find(|&n| sum(&sorted[..n]) >= target).unwrap_or(sorted.len());
            let mut kept = candidates;
            keep_mass(&mut kept, target, |c| -f64::from(c.log_weight));
            kept.sort_by(by_weight);
            prop_assert_eq!(kept, &sorted[..enough]);
        }
    }
}
