//! Attention of some queries over a cache of keys and values in half precision.
//!
//! ```text
//! keys:    blocks of sixteen positions, from position 0: element d of position p at (p / 16) 16 D + 16 d + p mod 16
//! values:  position after position: element d of position p at p D + d
//! ```
//! A vector holds one element of sixteen keys, so sixteen scores grow side by side and no lane is ever summed with
//! another. Blocks begin at position 0 whatever the chunks in which a prompt came, and a query at position p sees
//! positions up to p only, so its bits depend neither on chunks nor on what came later.

mod kernel;

use crate::elementary::exp_f32;
use crate::processor::for_this_processor;
use crate::quant::Instructions;
use crate::quant::half::{f16_to_f32, f32_to_f16};
use crate::vectors::sum_lanes;
use kernel::kernel;

/// Positions in a block of keys.
pub const BLOCK: usize = 16;
/// Queries that share a pass over the cache.
pub const QUERIES_MAX: usize = 8;

/// Elements that the cache of one head needs for `positions`: as many for keys as for values.
pub fn cache_elements(positions: usize, width: usize) -> usize {
    positions.next_multiple_of(BLOCK) * width
}

/// Puts the key of a position in its place.
pub fn store_key(keys: &mut [u16], position: usize, key: &[f32]) {
    let block = &mut keys[position / BLOCK * BLOCK * key.len()..];
    for (d, k) in key.iter().enumerate() {
        block[d * BLOCK + position % BLOCK] = f32_to_f16(*k);
    }
}

/// Puts the value of a position in its place.
pub fn store_value(values: &mut [u16], position: usize, value: &[f32]) {
    let place = &mut values[position * value.len()..][..value.len()];
    place.iter_mut().zip(value).for_each(|(place, v)| *place = f32_to_f16(*v));
}

/// What a head's attention looks like.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Elements of a query, key or value.
    pub width: usize,
    /// Scores are multiplied by it.
    pub scale: f32,
    /// Positions that a query sees, itself included; 0: all before it.
    pub window: usize,
    /// Scores s become cap tanh(s / cap); 0: they stay.
    pub cap: f32,
}

impl Look {
    /// The first position that a query at `position` sees.
    fn first(&self, position: usize) -> usize {
        if self.window == 0 { 0 } else { (position + 1).saturating_sub(self.window) }
    }
}

/// The keys and values of one head.
#[derive(Clone, Copy, Debug)]
pub struct Cache<'a> {
    pub keys: &'a [u16],
    pub values: &'a [u16],
}

/// Queries of one head at `position..position + count`; the n-th begins at n `stride`.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    pub position: usize,
    pub count: usize,
    pub elements: &'a [f32],
    pub stride: usize,
}

impl<'a> Queries<'a> {
    fn from(&self, done: usize) -> Self {
        let elements = &self.elements[done * self.stride..];
        Self { position: self.position + done, count: self.count - done, elements, ..*self }
    }
}

/// Attention of queries whose keys and values are in the cache already: `out` gets `look.width` elements for each.
/// `room` is to work in; it grows. `instructions`: one of [`Instructions::here`].
pub fn attend(
    instructions: Instructions,
    look: &Look,
    cache: Cache<'_>,
    queries: Queries<'_>,
    out: &mut [f32],
    room: &mut Vec<f32>,
) {
    let mut done = 0;
    while done < queries.count {
        let (rest, out) = (queries.from(done), &mut out[done * look.width..]);
        done += match rest.count {
            QUERIES_MAX.. => attend_some::<QUERIES_MAX>(instructions, look, cache, rest, out, room),
            2.. => attend_some::<2>(instructions, look, cache, rest, out, room),
            _ => attend_some::<1>(instructions, look, cache, rest, out, room),
        };
    }
}

/// The first `N` of them; returns `N`.
fn attend_some<const N: usize>(
    instructions: Instructions,
    look: &Look,
    cache: Cache<'_>,
    queries: Queries<'_>,
    out: &mut [f32],
    room: &mut Vec<f32>,
) -> usize {
    let (width, Queries { position, stride, .. }) = (look.width, queries);
    let kernel = kernel::<N>(instructions);
    let first_block = look.first(position) / BLOCK;
    let start = first_block * BLOCK;
    let places = (position + N - 1) / BLOCK * BLOCK + BLOCK - start;
    let seen = position + N - start;
    room.resize(N * (2 * places + width), 0.0);
    // Scores lie query after query; elements and weights with those of all queries side by side, as kernels read them.
    let (scores, rest) = room.split_at_mut(N * places);
    let (weights, elements) = rest.split_at_mut(N * places);
    for (d, elements) in elements.chunks_exact_mut(N).enumerate() {
        for (n, element) in elements.iter_mut().enumerate() {
            *element = queries.elements[n * stride + d];
        }
    }
    kernel.scores(&cache.keys[start * width..][..places * width], width, elements, scores);

    let mut totals = [0f32; N];
    for (n, (total, scores)) in totals.iter_mut().zip(scores.chunks_exact_mut(places)).enumerate() {
        let (first, last) = (look.first(position + n) - start, position + n - start);
        *total = weigh(look, scores, first, last);
        for (weights, weight) in weights.chunks_exact_mut(N).zip(scores) {
            weights[n] = *weight;
        }
    }

    let values = &cache.values[start * width..][..seen * width];
    let mut sums = [[0f32; 16]; N];
    for part in (0..width).step_by(16) {
        let lanes = (width - part).min(16);
        if lanes == 16 {
            kernel.sums(values, width, part, weights, sums.as_flattened_mut());
        } else {
            sums = [[0.0; 16]; N];
            for (value, weights) in values.chunks_exact(width).zip(weights.chunks_exact(N)) {
                for (sums, weight) in sums.iter_mut().zip(weights) {
                    for (sum, v) in sums.iter_mut().zip(&value[part..]) {
                        *sum = weight.mul_add(f16_to_f32(*v), *sum);
                    }
                }
            }
        }
        for (n, sums) in sums.iter().enumerate() {
            for (out, sum) in out[n * width + part..][..lanes].iter_mut().zip(sums) {
                // Adding zero makes -0, which a position that is not seen could turn into 0, the same for all.
                *out = *sum / totals[n] + 0.0;
            }
        }
    }
    N
}

for_this_processor! {
    /// Turns the scores of a query that sees places `first` to `last` into weights; returns their sum.
    fn weigh(look: &Look, scores: &mut [f32], first: usize, last: usize) -> f32 {
        let (first, last) = (first as i32, last as i32);
        let mut most = [f32::NEG_INFINITY; BLOCK];
        for (block, scores) in scores.chunks_exact_mut(BLOCK).enumerate() {
            for (i, (score, most)) in scores.iter_mut().zip(&mut most).enumerate() {
                let at = (block * BLOCK + i) as i32;
                let mut value = *score * look.scale;
                if look.cap > 0.0 {
                    value = look.cap * crate::tanh(value / look.cap);
                }
                let value = if at < first || at > last { f32::NEG_INFINITY } else { value };
                *most = if value > *most { value } else { *most };
                *score = value;
            }
        }
        let most = most.into_iter().fold(f32::NEG_INFINITY, |most, m| if m > most { m } else { most });
        let mut lanes = [0f32; 16];
        for block in scores.chunks_exact_mut(16) {
            for (lane, score) in lanes.iter_mut().zip(block) {
                let weight = exp_f32(*score - most);
                *score = weight;
                *lane += weight;
            }
        }
        sum_lanes(lanes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: &mut u64) -> f32 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*seed >> 40) as f32) / (1 << 23) as f32 - 1.0
    }

    /// Against the definition in f64, over windows, caps and widths; and whatever the number of queries at once and
    /// the instructions.
    #[test]
    fn attention_is_its_definition_and_does_not_depend_on_company() {
        let (positions, stride) = (75, 100);
        for (width, window, cap) in [(64, 0, 0.0), (20, 0, 0.0), (64, 19, 0.0), (48, 33, 5.0)] {
            let look = Look { width, scale: 0.3, window, cap };
            let mut seed = width as u64;
            let (mut keys, mut values) = (vec![0; cache_elements(positions, width)], vec![0; positions * width]);
            let mut rows = |_| (0..width).map(|_| draw(&mut seed)).collect::<Vec<f32>>();
            let (k, v): (Vec<_>, Vec<_>) =
                ((0..positions).map(&mut rows).collect(), (0..positions).map(&mut rows).collect());
            let queries: Vec<f32> = (0..positions)
                .flat_map(|i| {
                    let mut row = rows(i);
                    row.resize(stride, f32::NAN);
                    row
                })
                .collect();
            for p in 0..positions {
                store_key(&mut keys, p, &k[p]);
                store_value(&mut values, p, &v[p]);
            }
            let (cache, mut scores) = (Cache { keys: &keys, values: &values }, Vec::new());
            let some =
                |position: usize, count| Queries { position, count, elements: &queries[position * stride..], stride };
            let mut alone = vec![0.0; positions * width];
            for (p, out) in alone.chunks_exact_mut(width).enumerate() {
                attend(Instructions::Scalar, &look, cache, some(p, 1), out, &mut scores);
            }
            for from in [0, 1, 13] {
                let mut out = vec![0.0; (positions - from) * width];
                for instructions in Instructions::here() {
                    attend(instructions, &look, cache, some(from, positions - from), &mut out, &mut scores);
                    assert!(out.iter().zip(&alone[from * width..]).all(|(a, b)| a.to_bits() == b.to_bits()));
                }
            }
            let half = |x: f32| f64::from(f16_to_f32(f32_to_f16(x)));
            for p in 0..positions {
                let first = if window == 0 { 0 } else { (p + 1).saturating_sub(window) };
                let weights: Vec<f64> = (first..=p)
                    .map(|at| {
                        let dot: f64 = (0..width).map(|d| f64::from(queries[p * stride + d]) * half(k[at][d])).sum();
                        let score = dot * f64::from(look.scale);
                        if cap > 0.0 { (f64::from(cap) * (score / f64::from(cap)).tanh()).exp() } else { score.exp() }
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for d in 0..width {
                    let expected: f64 =
                        (first..=p).zip(&weights).map(|(at, w)| w * half(v[at][d])).sum::<f64>() / total;
                    // Some hundred roundings of f32 on values below 1.
                    assert!((f64::from(alone[p * width + d]) - expected).abs() < 1e-5, "position {p}");
                }
            }
        }
    }
}
