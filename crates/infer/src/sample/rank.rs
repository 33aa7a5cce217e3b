//! The highest logits, without a sort of the vocabulary.

use std::cmp::Ordering;

/// A token with its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scored {
    pub id: u32,
    pub logit: f32,
}

/// The higher number first, and among equals the lower id. No number here is NaN.
pub(super) fn rank(a: (f32, u32), b: (f32, u32)) -> Ordering {
    b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1))
}

/// The highest logit; minus infinity if none is above it. NaN is passed over.
pub(super) fn highest(logits: &[f32]) -> f32 {
    // Independent lanes, so that the compiler compares many at once.
    let mut lanes = [f32::NEG_INFINITY; 32];
    let mut chunks = logits.chunks_exact(32);
    for chunk in &mut chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    lanes
        .iter()
        .chain(chunks.remainder())
        .fold(f32::NEG_INFINITY, |best, &logit| if logit > best { logit } else { best })
}

/// The `k` highest logits by [`rank`], in that order; fewer if fewer are above minus infinity. `k` is at least 1.
///
/// One pass: whatever is above the k-th best so far is kept, and the kept ones are cut back to k when there are twice as
/// many. Most blocks of the vocabulary hold nothing above the floor and cost one vectorised maximum.
pub(super) fn best(logits: &[f32], k: usize, kept: &mut Vec<Scored>) {
    const BLOCK: usize = 128;
    kept.clear();
    let k = k.min(logits.len());
    let room = (2 * k).max(256);
    // What equals the floor comes later, has the higher id, and loses.
    let mut floor = f32::NEG_INFINITY;
    for (block, values) in logits.chunks(BLOCK).enumerate() {
        if highest(values) > floor {
            let ids = (block * BLOCK) as u32..;
            kept.extend(ids.zip(values).filter(|&(_, &l)| l > floor).map(|(id, &logit)| Scored { id, logit }));
            if kept.len() >= room {
                kept.select_nth_unstable_by(k - 1, by_rank);
                kept.truncate(k);
                floor = kept[k - 1].logit;
            }
        }
    }
    if kept.len() > k {
        kept.select_nth_unstable_by(k - 1, by_rank);
        kept.truncate(k);
    }
    kept.sort_unstable_by(by_rank);
}

fn by_rank(a: &Scored, b: &Scored) -> Ordering {
    rank((a.logit, a.id), (b.logit, b.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Few distinct values, so that ties are everywhere; long enough that the floor rises several times.
        #[test]
        fn best_is_the_head_of_a_stable_sort(
            values in proptest::collection::vec(prop_oneof![
                (0i8..20).prop_map(f32::from), Just(f32::NAN), Just(f32::NEG_INFINITY), Just(-0.0)
            ], 0..3000),
            k in 1usize..400,
        ) {
            let mut sorted: Vec<(u32, f32)> =
                (0u32..).zip(values.iter().copied()).filter(|&(_, l)| l > f32::NEG_INFINITY).collect();
            sorted.sort_by(|a, b| b.1.partial_cmp(&a.1).expect("no NaN"));
            sorted.truncate(k);
            let mut kept = Vec::new();
            best(&values, k, &mut kept);
            prop_assert_eq!(kept.iter().map(|s| (s.id, s.logit)).collect::<Vec<_>>(), sorted.clone());
            prop_assert_eq!(highest(&values), sorted.first().map_or(f32::NEG_INFINITY, |s| s.1));
        }
    }
}
