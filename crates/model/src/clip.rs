//! Sums of clipped gradients, one gradient per example, of which none is written down.
//!
//! Abadi et al. 2016, "Deep learning with differential privacy" (arXiv:1607.00133), algorithm 1: each example's gradient is
//! scaled to an L2 norm of at most the bound, then all are added. Plain descent never has one example's gradient: it has
//! products over a batch. But norms can be read off the factors of these products (see `layers::squares`), and once they are
//! known a scaled sum is the same product with scaled rows (Bu et al. 2022, "Differentially private optimization on large model at
//! small cost", arXiv:2210.00038, "book-keeping"). So there is one backward pass, which keeps each layer's upstream derivative, and
//! after it one product per layer.
//!
//! What holds of the floats that come out, C the bound and P the terms of the longest sum in an example's derivative ([`terms`]:
//! its pixels, or steps):
//!
//! - An example's vector is what its f32 activations and upstream derivatives make *without* rounding, times its factor. In f32 they
//!   are the same bits whoever else is in the batch ([`block`]).
//! - Its norm is measured as n̂, with an error of at most κ A: A = Σ ‖termₜ‖ bounds what a sum of products may be off, by (P + 1) 2^-24 A,
//!   and κ = (P + 4096) 2^-24. It is scaled as if its norm were n̂ + κ A. So **the vector is not longer than C**, and what goes into
//!   its sum is not longer than C / κ, though it may cancel.
//! - The products over a batch of n ≤ 16 are in f64, whose sums of nP terms err by at most nP 2^-53 of the terms together, n C / κ:
//!   **a batch's sum errs by at most 2^-33 P C**, and never by more than 2^-21 C.
//!
//! What is not protected: nothing here is noised, and how long it takes depends on the data.
//!
//! [`terms`]: Clipping::terms
//! [`block`]: Clipping::block

use crate::batch::Batch;
use crate::layers::squares::{self, Length, Work};
use crate::layers::{Layer, Mode, Room};
use crate::model::{Model, Scratch, Step};
use crate::sink::Sink;
use littoral_tensor::Real;
use thiserror::Error;

/// κ: what P terms may be off, and as much as 4,096 would be, so that what cancels in f64 is bounded too.
fn share_of_terms(terms: usize) -> f64 {
    (terms as f64 + 4096.0) / (1u32 << 24) as f64
}

/// A factor's own roundings.
const INSIDE: f64 = 1.0 - 1.0 / (1u64 << 40) as f64;

/// A power of two, for that is what convolutions take at once.
const BLOCK: usize = 16;

/// A model that has no gradient per example.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{layer}` takes means over a batch, so that no example has a gradient of its own to be clipped; norm = \"group\" does not"
)]
pub struct Coupled {
    /// The name of the layer in the model's layout.
    pub layer: String,
}

/// An example whose gradient is not made of numbers; nothing was summed. The others can be, in a batch without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("row {row} of the batch has a gradient that is not finite")]
pub struct NotFinite {
    pub row: usize,
}

/// How a batch is clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// L2 norm that no example's gradient passes; above 0.
    pub bound: f64,
    /// The first so many rows of the batch count. The others only fill it, and add nothing.
    pub counted: usize,
}

/// What clipping found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClippedBatch {
    /// The mean loss over all rows, also those that do not count.
    pub loss: f64,
    /// Examples whose gradients were longer than the bound.
    pub clipped: usize,
}

/// Room for clipping, beside the scratch: each layer's upstream derivative, and norms.
#[derive(Clone, Debug)]
pub struct Clipping<T> {
    /// Of layers whose parameters' derivatives are made of it.
    upstream: Vec<Vec<f64>>,
    embedded: Vec<f64>,
    lengths: Vec<Length>,
    factors: Vec<f64>,
    terms: usize,
    work: Work<T>,
    wide: Wide,
}

/// One layer's values, in f64.
#[derive(Clone, Debug, Default)]
struct Wide {
    x: Vec<f64>,
    y: Vec<f64>,
    kept: Vec<f64>,
    work: Vec<f64>,
}

impl Clipping<f32> {
    /// Rows of a batch in which each has the same derivative, bit for bit, wherever it stands and whoever stands beside it: 1 where
    /// matrix products promise no order.
    pub fn block() -> usize {
        if littoral_tensor::rows_apart() { BLOCK } else { 1 }
    }
}

impl<T: Real> Clipping<T> {
    /// Room for batches of up to `rows_max` rows.
    pub fn new(model: &Model, rows_max: usize) -> Result<Self, Coupled> {
        let coupled = model.layers.iter().find_map(|layer| match layer {
            Layer::BatchNorm(norm) => Some(norm.name.clone()),
            _ => None,
        });
        if let Some(layer) = coupled {
            return Err(Coupled { layer });
        }
        let rows = rows_max * model.steps();
        let width = |layer: &Layer| if layer.reads_upstream() { layer.widths().1 } else { 0 };
        let embedded = model.embedding.as_ref().map_or(0, |embedding| embedding.width);
        let terms = model.layers.iter().map(|layer| layer.terms() * model.steps()).max();
        Ok(Self {
            upstream: model.layers.iter().map(|layer| vec![0.0; rows * width(layer)]).collect(),
            embedded: vec![0.0; rows * embedded],
            lengths: Vec::with_capacity(rows_max),
            factors: Vec::with_capacity(rows_max),
            terms: terms.unwrap_or(1),
            work: Work::default(),
            wide: Wide::default(),
        })
    }

    /// Terms of the longest sum in one example's derivative: its pixels or steps, or 1.
    pub fn terms(&self) -> usize {
        self.terms
    }

    /// The norm of each row's gradient in the last batch, before clipping.
    pub fn norms(&self) -> impl Iterator<Item = f64> + '_ {
        self.lengths.iter().map(|length| length.square.sqrt())
    }
}

/// Writes into `gradient` (as long as the weights; zero for running statistics) the *sum*, over the rows that count, of
/// each row's gradient scaled down to the bound. A row's loss is the mean over its positions.
///
/// Without rows the sum is 0.
///
/// # Panics
/// If slices, batch, scratch and clipping are not of this model's sizes, or the bound is not above 0.
pub fn clipped_gradient<T: Real>(
    model: &Model,
    weights: &[T],
    batch: &Batch<T>,
    scratch: &mut Scratch<T>,
    clipping: &mut Clipping<T>,
    clip: Clip,
    gradient: &mut [f64],
) -> Result<ClippedBatch, NotFinite> {
    assert_eq!(weights.len(), gradient.len(), "weights and gradient");
    assert!(clip.bound > 0.0, "a bound of {}", clip.bound);
    let examples = batch.rows();
    if examples == 0 {
        gradient.fill(0.0);
        return Ok(ClippedBatch::default());
    }
    let rows = examples * model.steps();
    let tally = model.forward(weights, batch, scratch, Mode::Train);
    // From the mean over the batch to each row's own.
    let count = T::from_f64(examples as f64);
    scratch.upstream[..rows * model.outputs].iter_mut().for_each(|d| *d *= count);

    let Clipping { upstream, embedded, lengths, factors, terms, work, wide } = clipping;
    lengths.clear();
    lengths.resize(examples, Length::default());
    model.walk_back(batch, scratch, |Step { place, layer, x, y, dy, dx, mut room }| {
        layer.inputs(weights, x, y, dy, dx, &mut room);
        layer.squares(x, y, dy, &mut room, work, lengths);
        if layer.reads_upstream() {
            widen_into(dy, &mut upstream[place]);
        }
    });
    if let Some(embedding) = &model.embedding {
        let dy = &scratch.upstream[..rows * embedding.width];
        embedding.squares(batch.tokens(), dy, work, lengths);
        widen_into(dy, embedded);
    }
    if let Some(row) = lengths.iter().position(|length| !length.square.is_finite()) {
        return Err(NotFinite { row });
    }

    let (mut clipped, share) = (0, share_of_terms(*terms));
    factors.clear();
    factors.extend(lengths.iter().enumerate().map(|(row, length)| {
        if row >= clip.counted {
            return 0.0;
        }
        let norm = length.square.sqrt();
        clipped += usize::from(norm > clip.bound);
        let at_most = norm + share * length.terms.sqrt();
        if at_most <= clip.bound { 1.0 } else { clip.bound / at_most * INSIDE }
    }));

    gradient[model.trained_len()..].fill(0.0);
    let sink = &mut Sink::Gradient { weights: &[], gradient };
    let inputs = model.embedding.as_ref().map(|embedding| &scratch.embedded[..rows * embedding.width]);
    let inputs = inputs.unwrap_or(batch.values());
    for (place, layer) in model.layers.iter().enumerate() {
        if let Layer::Elementwise(_) | Layer::MaxPool(_) = layer {
            continue;
        }
        let (before, after) = scratch.activations.split_at(place);
        let (inputs_width, outputs_width) = layer.widths();
        let sizes = layer.sizes(rows);
        widen(before.last().map_or(inputs, |x| &x[..rows * inputs_width]), &mut wide.x);
        widen(&after[0][..rows * outputs_width], &mut wide.y);
        widen(&scratch.kept[place][..sizes.kept], &mut wide.kept);
        wide.work.resize(sizes.work.max(wide.work.len()), 0.0);
        let dy = if layer.reads_upstream() { &mut upstream[place][..rows * outputs_width] } else { &mut [] };
        layer.scale(dy, &mut wide.kept, factors);
        let mut room = Room {
            kept: &mut wide.kept,
            chosen: &mut scratch.chosen[place][..sizes.chosen],
            work: &mut wide.work[..sizes.work],
        };
        layer.parameters(&wide.x, &wide.y, dy, &mut room, sink);
    }
    if let Some(embedding) = &model.embedding {
        let dy = &mut embedded[..rows * embedding.width];
        squares::scale(dy, embedding.width, factors);
        embedding.backward(batch.tokens(), dy, sink);
    }
    Ok(ClippedBatch { loss: tally.loss_sum / rows as f64, clipped })
}

fn widen<T: Real>(values: &[T], into: &mut Vec<f64>) {
    into.clear();
    into.extend(values.iter().map(|value| value.to_f64()));
}

fn widen_into<T: Real>(values: &[T], into: &mut [f64]) {
    into.iter_mut().zip(values).for_each(|(into, value)| *into = value.to_f64());
}
