//! Attention of some queries over a cache of keys and values, in half precision or in q8_0.
//!
//! A vector holds one element of sixteen keys, so sixteen scores grow side by side and no lane is ever summed with
//! another. Blocks begin at position 0 whatever the chunks in which a prompt came, and a query at position p sees
//! positions up to p only, so its bits depend neither on chunks nor on what came later. What the type of the cache decides
//! is which elements are seen; what is done with them is the same, operation by operation.

mod cache;
mod kernel;

pub use cache::{BLOCK, Cache, CacheType, Layout};

use crate::elementary::exp_f32;
use crate::processor::for_this_processor;
use crate::quant::Instructions;
use crate::quant::half::f16_to_f32;
use crate::vectors::sum_lanes;
use kernel::kernel;

/// Queries that share a pass over the cache.
pub const QUERIES_MAX: usize = 8;

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
    let (kernel, row_bytes) = (kernel::<N>(instructions, cache.cache_type), cache.cache_type.row_bytes(width));
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
    kernel.scores(&cache.keys[start * row_bytes..][..places * row_bytes], width, elements, scores);

    let mut totals = [0f32; N];
    for (n, (total, scores)) in totals.iter_mut().zip(scores.chunks_exact_mut(places)).enumerate() {
        let (first, last) = (look.first(position + n) - start, position + n - start);
        *total = weigh(look, scores, first, last);
        for (weights, weight) in weights.chunks_exact_mut(N).zip(scores) {
            weights[n] = *weight;
        }
    }

    let (values, out) = (&cache.values[start * row_bytes..], &mut out[..N * width]);
    kernel.sums(values, seen, width, weights, out);
    // Only half precision has widths that are no multiple.
    for d in width / 16 * 16..width {
        for n in 0..N {
            out[n * width + d] = values.chunks_exact(row_bytes).zip(weights.chunks_exact(N)).take(seen).fold(
                0.0,
                |sum, (value, weights)| {
                    weights[n].mul_add(f16_to_f32(u16::from_le_bytes([value[2 * d], value[2 * d + 1]])), sum)
                },
            );
        }
    }
    for (out, total) in out.chunks_exact_mut(width).zip(totals) {
        // Adding zero makes -0, which a position that is not seen could turn into 0, the same for all.
        out.iter_mut().for_each(|sum| *sum = *sum / total + 0.0);
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
    use crate::quant::{Kind, dequantise};

    fn draw(seed: &mut u64) -> f32 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((*seed >> 40) as f32) / (1 << 23) as f32 - 1.0
    }

    /// One query, one element after the other: the order of operations that all kernels keep.
    fn in_order(look: &Look, p: usize, query: &[f32], keys: &[Vec<f32>], values: &[Vec<f32>]) -> Vec<f32> {
        let start = look.first(p) / BLOCK * BLOCK;
        let mut weights = vec![0.0; (p + 1 - start).next_multiple_of(BLOCK)];
        for (score, key) in weights.iter_mut().zip(&keys[start..=p]) {
            *score = query.iter().zip(key).fold(0.0, |sum, (q, k)| q.mul_add(*k, sum));
        }
        let total = weigh(look, &mut weights, look.first(p) - start, p - start);
        let sum = |d: usize| weights.iter().zip(&values[start..=p]).fold(0f32, |sum, (w, v)| w.mul_add(v[d], sum));
        (0..look.width).map(|d| sum(d) / total + 0.0).collect()
    }

    /// Over windows, caps, widths and types of cache: bit for bit that of the elements as they were kept, whatever the number
    /// of queries at once and the instructions; and against the definition in f64.
    #[test]
    fn attention_is_its_definition_and_does_not_depend_on_company() {
        use CacheType::{F16, Q8_0};
        let (positions, stride) = (75, 100);
        for (cache_type, width, window, cap) in [
            (F16, 64, 0, 0.0),
            (F16, 20, 0, 0.0),
            (F16, 64, 19, 0.0),
            (F16, 48, 33, 5.0),
            (Q8_0, 64, 0, 0.0),
            (Q8_0, 32, 19, 0.0),
            (Q8_0, 96, 33, 5.0),
        ] {
            let look = Look { width, scale: 0.3, window, cap };
            let mut seed = width as u64;
            let mut rows =
                || -> Vec<Vec<f32>> { (0..positions).map(|_| (0..width).map(|_| draw(&mut seed)).collect()).collect() };
            let (k, v, q) = (rows(), rows(), rows());
            let queries: Vec<f32> = q.iter().flat_map(|q| [q, &vec![f32::NAN; stride - width][..]].concat()).collect();
            // The rows, kept, and what they are then.
            let keep = |keys, rows: &[Vec<f32>]| {
                let layout = Layout { cache_type, width, keys };
                let mut bytes = vec![0; cache_type.head_bytes(positions, width)];
                rows.iter().enumerate().for_each(|(p, row)| layout.store(&mut bytes, p, row));
                let kept = (0..positions).map(|p| {
                    let (mut row, mut elements) = (Vec::new(), vec![0.0; width]);
                    layout.take_row(&bytes, p, &mut row);
                    dequantise(if cache_type == F16 { Kind::F16 } else { Kind::Q8_0 }, &row, &mut elements);
                    elements
                });
                let kept: Vec<Vec<f32>> = kept.collect();
                // A half has 11 bits; half a step of 1 / 127 and the rounding of the scale are less than 1 / 225.
                let close = if cache_type == F16 { 1.0 / 2048.0 } else { 1.0 / 225.0 };
                assert!(rows.iter().flatten().zip(kept.iter().flatten()).all(|(x, kept)| (x - kept).abs() < close));
                (bytes, kept)
            };
            let ((keys, k), (values, v)) = (keep(true, &k), keep(false, &v));
            let alone: Vec<Vec<f32>> = (0..positions).map(|p| in_order(&look, p, &q[p], &k, &v)).collect();

            let (cache, mut scores) = (Cache { cache_type, keys: &keys, values: &values }, Vec::new());
            for instructions in Instructions::here() {
                for (from, at_once) in [(0, 1), (0, 75), (1, 75), (13, 75), (0, 7)] {
                    for position in (from..positions).step_by(at_once) {
                        let count = at_once.min(positions - position);
                        let queries = Queries { position, count, elements: &queries[position * stride..], stride };
                        let mut out = vec![0.0; count * width];
                        attend(instructions, &look, cache, queries, &mut out, &mut scores);
                        let expected = alone[position..position + count].iter().flatten();
                        let same = out.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{cache_type} of {width} on {} at {position}", instructions.name());
                    }
                }
            }

            for p in 0..positions {
                let first = look.first(p);
                let weights: Vec<f64> = (first..=p)
                    .map(|at| {
                        let dot: f64 = q[p].iter().zip(&k[at]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                        let score = dot * f64::from(look.scale);
                        if cap > 0.0 { (f64::from(cap) * (score / f64::from(cap)).tanh()).exp() } else { score.exp() }
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for d in 0..width {
                    let expected: f64 =
                        (first..=p).zip(&weights).map(|(at, w)| w * f64::from(v[at][d])).sum::<f64>() / total;
                    // Some hundred roundings of f32 on values below 1.
                    assert!((f64::from(alone[p][d]) - expected).abs() < 1e-5, "position {p}");
                }
            }
        }
    }
}
