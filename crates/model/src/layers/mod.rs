//! The closed set of layers, each with its forward and its hand-written backward pass.
//!
//! A layer is sizes and the ranges of its segments; it owns no values. Activations are row-major: one row per
//! example, or per position of a sequence (all examples of the first time step, then of the second, …). Images are
//! height, width, channel within a row, so that one matrix product covers a whole batch.

mod activation;
mod convolution;
mod embedding;
mod linear;
mod loss;
mod normalise;
mod pool;
mod recurrent;
pub(crate) mod squares;

pub(crate) use activation::Elementwise;
pub(crate) use convolution::Convolution;
pub(crate) use embedding::Embedding;
pub(crate) use linear::Linear;
pub(crate) use loss::{Tally, cross_entropy, mean_squared_error};
pub(crate) use normalise::{BatchNorm, GroupNorm};
pub(crate) use pool::MaxPool;
pub(crate) use recurrent::{Gru, Lstm};

use crate::sink::Sink;
use littoral_tensor::Real;
use squares::{Length, Work};

#[derive(Clone, Debug)]
pub(crate) enum Layer {
    Linear(Linear),
    Elementwise(Elementwise),
    Convolution(Convolution),
    MaxPool(MaxPool),
    GroupNorm(GroupNorm),
    BatchNorm(BatchNorm),
    Gru(Gru),
    Lstm(Lstm),
}

/// How many values a layer keeps from its forward to its backward pass, and how many it needs for the moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizes {
    pub kept: usize,
    pub chosen: usize,
    pub work: usize,
}

/// What a layer keeps from forward to backward, and room to work in, as large as its [`Sizes`] say.
pub(crate) struct Room<'a, T> {
    pub kept: &'a mut [T],
    pub chosen: &'a mut [u32],
    pub work: &'a mut [T],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Train,
    Evaluate,
}

impl Layer {
    /// Values per row that go in and come out.
    pub fn widths(&self) -> (usize, usize) {
        match self {
            Self::Linear(layer) => (layer.inputs, layer.outputs),
            Self::Elementwise(layer) => (layer.width, layer.width),
            Self::Convolution(layer) => (layer.pixels() * layer.inputs, layer.pixels() * layer.outputs),
            Self::MaxPool(layer) => (layer.inputs(), layer.outputs()),
            Self::GroupNorm(layer) => (layer.pixels * layer.channels, layer.pixels * layer.channels),
            Self::BatchNorm(layer) => (layer.pixels * layer.channels, layer.pixels * layer.channels),
            Self::Gru(layer) => (layer.inputs, layer.hidden),
            Self::Lstm(layer) => (layer.inputs, layer.hidden),
        }
    }

    pub fn sizes(&self, rows: usize) -> Sizes {
        match self {
            Self::Linear(_) | Self::Elementwise(_) => Sizes::default(),
            Self::Convolution(layer) => layer.sizes(rows),
            Self::MaxPool(layer) => Sizes { chosen: rows * layer.outputs(), ..Sizes::default() },
            Self::GroupNorm(layer) => layer.sizes(rows),
            Self::BatchNorm(layer) => layer.sizes(),
            Self::Gru(layer) => layer.sizes(rows),
            Self::Lstm(layer) => layer.sizes(rows),
        }
    }

    /// Floating-point operations of the matrix products of a forward pass, per row.
    pub fn flops(&self) -> u64 {
        let products = match self {
            Self::Linear(layer) => layer.inputs * layer.outputs,
            Self::Convolution(layer) => layer.pixels() * layer.patch() * layer.outputs,
            Self::Gru(layer) => 3 * layer.hidden * (layer.inputs + layer.hidden),
            Self::Lstm(layer) => 4 * layer.hidden * (layer.inputs + layer.hidden),
            Self::Elementwise(_) | Self::MaxPool(_) | Self::GroupNorm(_) | Self::BatchNorm(_) => 0,
        };
        2 * products as u64
    }

    /// `y = layer(x)` for rows of x.
    pub fn forward<T: Real>(&self, weights: &[T], x: &[T], y: &mut [T], room: Room<'_, T>, mode: Mode) {
        match self {
            Self::Linear(layer) => layer.forward(weights, x, y),
            Self::Elementwise(layer) => layer.forward(x, y),
            Self::Convolution(layer) => layer.forward(weights, x, y, room.work),
            Self::MaxPool(layer) => layer.forward(x, y, room.chosen),
            Self::GroupNorm(layer) => layer.forward(weights, x, y, room),
            Self::BatchNorm(layer) => layer.forward(weights, x, y, room.kept, mode),
            Self::Gru(layer) => layer.forward(weights, x, y, room),
            Self::Lstm(layer) => layer.forward(weights, x, y, room.kept),
        }
    }

    /// From `dy`, the derivative of the loss by `y`, to that by `x`, where somebody wants it. What
    /// [`parameters`](Self::parameters) needs beside `dy` is left in `room.kept`.
    pub fn inputs<T: Real>(
        &self,
        weights: &[T],
        x: &[T],
        y: &[T],
        dy: &[T],
        dx: Option<&mut [T]>,
        room: &mut Room<'_, T>,
    ) {
        match self {
            Self::Linear(layer) => layer.inputs(weights, dy, dx),
            Self::Elementwise(layer) => layer.backward(x, y, dy, dx),
            Self::Convolution(layer) => layer.inputs(weights, dy, dx, room.work),
            Self::MaxPool(layer) => layer.backward(dy, dx, room.chosen),
            Self::GroupNorm(layer) => layer.inputs(weights, x, dy, dx, room),
            Self::BatchNorm(layer) => layer.inputs(weights, x, dy, dx, room),
            Self::Gru(layer) => layer.inputs(weights, y, dy, dx, room),
            Self::Lstm(layer) => layer.inputs(weights, dy, dx, room),
        }
    }

    /// The derivative by the layer's parameters, into the sink; after [`inputs`](Self::inputs).
    pub fn parameters<T: Real>(&self, x: &[T], y: &[T], dy: &[T], room: &mut Room<'_, T>, sink: &mut Sink<'_, T>) {
        match self {
            Self::Linear(layer) => layer.parameters(x, dy, sink),
            Self::Convolution(layer) => layer.parameters(x, dy, room.work, sink),
            Self::GroupNorm(layer) => layer.parameters(x, dy, room, sink),
            Self::BatchNorm(layer) => layer.parameters(x, dy, room, sink),
            Self::Gru(layer) => layer.parameters(x, y, room.kept, sink),
            Self::Lstm(layer) => layer.parameters(x, y, room.kept, sink),
            Self::Elementwise(_) | Self::MaxPool(_) => {}
        }
    }

    /// Adds the length of each example's derivative by the parameters; after [`inputs`](Self::inputs).
    pub fn squares<T: Real>(
        &self,
        x: &[T],
        y: &[T],
        dy: &[T],
        room: &mut Room<'_, T>,
        work: &mut Work<T>,
        lengths: &mut [Length],
    ) {
        match self {
            Self::Linear(layer) => layer.squares(x, dy, work, lengths),
            Self::Convolution(layer) => layer.squares(x, dy, room.work, work, lengths),
            Self::GroupNorm(layer) => layer.squares(x, dy, room.kept, work, lengths),
            Self::Gru(layer) => layer.squares(x, y, room.kept, work, lengths),
            Self::Lstm(layer) => layer.squares(x, y, room.kept, work, lengths),
            // No example has a derivative of its own; `Clipping::new` has refused it.
            Self::BatchNorm(_) => lengths.fill(Length::one(f64::NAN)),
            Self::Elementwise(_) | Self::MaxPool(_) => {}
        }
    }

    /// Multiplies by each example's factor what [`parameters`](Self::parameters) will read.
    pub fn scale(&self, dy: &mut [f64], kept: &mut [f64], factors: &[f64]) {
        match self {
            Self::Gru(layer) => layer.scale(kept, factors),
            Self::Lstm(layer) => layer.scale(kept, factors),
            _ => squares::scale(dy, self.widths().1, factors),
        }
    }

    /// Terms of the longest sum in one row's derivative.
    pub fn terms(&self) -> usize {
        match self {
            Self::Convolution(layer) => layer.pixels(),
            Self::GroupNorm(layer) => layer.pixels,
            _ => 1,
        }
    }

    /// Whether [`parameters`](Self::parameters) reads `dy`.
    pub fn reads_upstream(&self) -> bool {
        matches!(self, Self::Linear(_) | Self::Convolution(_) | Self::GroupNorm(_) | Self::BatchNorm(_))
    }
}
