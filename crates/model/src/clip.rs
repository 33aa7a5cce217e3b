//! Sums of clipped gradients, one gradient per example, of which none is written down.
//!
//! Abadi et al. 2016, "Deep learning with differential privacy" (arXiv:1607.00133), algorithm 1: each example's gradient is
//! scaled to an L2 norm of at most the bound, then all are added. Plain descent never has one example's gradient: it has
//! products over a batch. But norms can be read off the factors of these products (see `layers::squares`), and once they are
//! known a scaled sum is the same product with scaled rows (Bu et al. 2022, "Differentially private optimization on large model at
//! small cost", arXiv:2210.00038, "book-keeping"). So there is one backward pass, which keeps each layer's upstream derivative, and
//! after it one product per layer.
//!
//! What holds of the floats that come out: with f32 weights a batch of one leaves at most the bound, whichever model; that is
//! tested, and [`INSIDE`] leaves room for it. A batch of n leaves at most n times that. Products over more rows round more: who takes
//! the bound for a sensitivity must add a margin for that.
//!
//! What is not protected: nothing here is noised, and how long it takes depends on the data.

use crate::batch::Batch;
use crate::layers::squares::{self, Work};
use crate::layers::{Layer, Mode, Room};
use crate::model::{Model, Scratch, Step};
use crate::sink::Sink;
use littoral_tensor::Real;
use thiserror::Error;

/// Norms, and sums over an example's pixels or steps, are rounded by a few 2^-24 of the sums of their terms' sizes, which may be
/// some ten times the norm; this covers some hundred such roundings.
const INSIDE: f64 = 1.0 - 1.0 / (1u32 << 14) as f64;

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
    /// The first so many rows of the batch count. The others only fill it, and add nothing: a matrix product of one size gives a
    /// row the same bits whichever rows stand beside it, one of another size need not.
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
    upstream: Vec<Vec<T>>,
    embedded: Vec<T>,
    squares: Vec<f64>,
    factors: Vec<T>,
    work: Work<T>,
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
        Ok(Self {
            upstream: model.layers.iter().map(|layer| vec![T::ZERO; rows * width(layer)]).collect(),
            embedded: vec![T::ZERO; rows * embedded],
            squares: Vec::with_capacity(rows_max),
            factors: Vec::with_capacity(rows_max),
            work: Work::default(),
        })
    }

    /// The norm of each row's gradient in the last batch, before clipping.
    pub fn norms(&self) -> impl Iterator<Item = f64> + '_ {
        self.squares.iter().map(|square| square.sqrt())
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
    gradient: &mut [T],
) -> Result<ClippedBatch, NotFinite> {
    assert_eq!(weights.len(), gradient.len(), "weights and gradient");
    assert!(clip.bound > 0.0, "a bound of {}", clip.bound);
    let examples = batch.rows();
    if examples == 0 {
        gradient.fill(T::ZERO);
        return Ok(ClippedBatch::default());
    }
    let rows = examples * model.steps();
    let tally = model.forward(weights, batch, scratch, Mode::Train);
    // From the mean over the batch to each row's own.
    let count = T::from_f64(examples as f64);
    scratch.upstream[..rows * model.outputs].iter_mut().for_each(|d| *d *= count);

    let Clipping { upstream, embedded, squares, factors, work } = clipping;
    squares.clear();
    squares.resize(examples, 0.0);
    model.walk_back(batch, scratch, |Step { place, layer, x, y, dy, dx, mut room }| {
        layer.inputs(weights, x, y, dy, dx, &mut room);
        layer.squares(x, y, dy, &mut room, work, squares);
        if layer.reads_upstream() {
            upstream[place][..dy.len()].copy_from_slice(dy);
        }
    });
    if let Some(embedding) = &model.embedding {
        let dy = &scratch.upstream[..rows * embedding.width];
        embedding.squares(batch.tokens(), dy, work, squares);
        embedded[..dy.len()].copy_from_slice(dy);
    }
    if let Some(row) = squares.iter().position(|square| !square.is_finite()) {
        return Err(NotFinite { row });
    }

    let mut clipped = 0;
    factors.clear();
    factors.extend(squares.iter().enumerate().map(|(row, square)| {
        let norm = square.sqrt();
        if row >= clip.counted {
            return T::ZERO;
        }
        // Norms close to the bound are clipped too, so that what they are measured with does not matter.
        if norm <= clip.bound * INSIDE {
            return T::ONE;
        }
        clipped += usize::from(norm > clip.bound);
        T::from_f64(clip.bound / norm * INSIDE)
    }));

    gradient[model.trained_len()..].fill(T::ZERO);
    let sink = &mut Sink::Gradient { weights, gradient };
    let inputs = model.embedding.as_ref().map(|embedding| &scratch.embedded[..rows * embedding.width]);
    let inputs = inputs.unwrap_or(batch.values());
    for (place, layer) in model.layers.iter().enumerate() {
        let (before, after) = scratch.activations.split_at(place);
        let (inputs_width, outputs_width) = layer.widths();
        let x = before.last().map_or(inputs, |x| &x[..rows * inputs_width]);
        let dy = if layer.reads_upstream() { &mut upstream[place][..rows * outputs_width] } else { &mut [] };
        let sizes = layer.sizes(rows);
        let mut room = Room {
            kept: &mut scratch.kept[place][..sizes.kept],
            chosen: &mut scratch.chosen[place][..sizes.chosen],
            work: &mut scratch.work[..sizes.work],
        };
        layer.scale(dy, room.kept, factors);
        layer.parameters(x, &after[0][..rows * outputs_width], dy, &mut room, sink);
    }
    if let Some(embedding) = &model.embedding {
        let dy = &mut embedded[..rows * embedding.width];
        squares::scale(dy, embedding.width, factors);
        embedding.backward(batch.tokens(), dy, sink);
    }
    Ok(ClippedBatch { loss: tally.loss_sum / rows as f64, clipped })
}
