//! A built model: layers over flat weights, and the two passes through them.

use crate::batch::{Batch, Targets};
use crate::examples::{Examples, Labels, Mismatch, Shape};
use crate::init::{self, Init};
use crate::layers::{Embedding, Layer, Mode, Room, Tally, cross_entropy, mean_squared_error};
use crate::sink::Sink;
use crate::spec::Loss;
use littoral_tensor::{Layout, Real, Segment};

/// An architecture with its sizes. It holds no weights and never changes; share it between threads.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) inputs: Shape,
    pub(crate) outputs: usize,
    pub(crate) loss: Loss,
    pub(crate) embedding: Option<Embedding>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) layout: Layout,
    pub(crate) inits: Vec<Init>,
    pub(crate) trained: usize,
}

impl Model {
    /// The names and places of the segments in the flat weights. Linear weights are (inputs, outputs), convolutions
    /// (kernel, kernel, inputs, outputs).
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The first so many weights are trained by descent; those after them are running statistics of batch norms, which
    /// a training pass moves otherwise. A federated average includes both; an optimiser or a norm of an update only the first.
    pub fn trained_len(&self) -> usize {
        self.trained
    }

    /// The segments of normalisation layers: those that FedBN keeps on the device.
    pub fn norm_segments(&self) -> Vec<&str> {
        let names = self.layout.segments().iter().map(|segment| segment.name.as_str());
        names.filter(|name| name.starts_with("norm")).collect()
    }

    /// The segments of each layer that has any, from the first to the last; those of a normalisation count with the layer before it.
    pub fn layer_segments(&self) -> Vec<Vec<&Segment>> {
        let mut layers: Vec<(String, Vec<&Segment>)> = Vec::new();
        for segment in self.layout.segments() {
            let layer = segment.name.split('.').next().unwrap_or_default();
            // Norm 3 follows convolution 3; running statistics come behind all that is trained.
            let layer = layer.replace("norm", "conv");
            match layers.iter_mut().find(|(name, _)| *name == layer) {
                Some((_, segments)) => segments.push(segment),
                None => layers.push((layer, vec![segment])),
            }
        }
        layers.into_iter().map(|(_, segments)| segments).collect()
    }

    /// The weights to begin with, the same for the same seed everywhere (see the module `init` for the distributions).
    pub fn init(&self, seed: u64) -> Vec<f32> {
        let segments =
            self.layout.segments().iter().zip(&self.inits).map(|(segment, init)| (segment.len, init.clone()));
        init::init(segments, self.layout.len(), seed)
    }

    pub fn inputs(&self) -> Shape {
        self.inputs
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// How many predictions one row asks for: one, or one per token of its window.
    pub fn steps(&self) -> usize {
        match self.inputs {
            Shape::Values { .. } => 1,
            Shape::Tokens { window } => window,
        }
    }

    /// Floating-point operations in the matrix products of one row's forward pass.
    pub fn forward_flops(&self) -> u64 {
        self.layers.iter().map(Layer::flops).sum::<u64>() * self.steps() as u64
    }

    /// Floating-point operations in the matrix products of one row's training step. Backward takes two products for
    /// each forward one, but the derivative by the inputs themselves is not computed.
    pub fn train_flops(&self) -> u64 {
        let first = match (&self.embedding, self.layers.first()) {
            (None, Some(first)) => first.flops(),
            _ => 0,
        };
        3 * self.forward_flops() - first
    }

    /// How many rows to evaluate at once: enough for full-sized matrix products, few enough for 16 MiB of activations.
    pub fn evaluation_rows(&self) -> usize {
        let per_row: usize = self.steps() * self.layers.iter().map(|layer| layer.widths().1).sum::<usize>();
        ((1 << 22) / per_row.max(1)).clamp(1, 256)
    }

    /// Whether these examples can train this model.
    pub fn check(&self, examples: &Examples) -> Result<(), Mismatch> {
        let mismatch = |what, expected: String, got: String| Err(Mismatch { what, expected, got });
        if examples.shape() != self.inputs {
            return mismatch("features", self.inputs.to_string(), examples.shape().to_string());
        }
        match (examples.labels(), self.loss) {
            (Labels::Classes { classes, .. }, Loss::CrossEntropy) => {
                if *classes as usize > self.outputs {
                    return mismatch("labels", format!("at most {} classes", self.outputs), classes.to_string());
                }
            }
            (Labels::Values { width, .. }, Loss::Mse) => {
                if *width != self.outputs {
                    return mismatch("labels", format!("{} values per row", self.outputs), width.to_string());
                }
            }
            // A model over tokens always has an embedding, since the shapes agree.
            (Labels::NextToken, Loss::CrossEntropy) => {
                if examples.tokens() > self.outputs {
                    let got = format!("token {}", examples.tokens() - 1);
                    return mismatch("tokens", format!("tokens below {}", self.outputs), got);
                }
            }
            (_, Loss::CrossEntropy) => {
                return mismatch("labels", "classes".into(), "values".into());
            }
            (_, Loss::Mse) => return mismatch("labels", "values".into(), "classes".into()),
        }
        Ok(())
    }

    /// Runs the layers, and the loss over their outputs. In training its derivative is left in the scratch.
    pub(crate) fn forward<T: Real>(
        &self,
        weights: &[T],
        batch: &Batch<T>,
        scratch: &mut Scratch<T>,
        mode: Mode,
    ) -> Tally {
        let rows = batch.rows() * self.steps();
        assert!(rows <= scratch.rows, "a batch of {rows} rows in a scratch for {}", scratch.rows);
        assert_eq!(weights.len(), self.layout.len(), "number of weights");
        let embedded = self.embedding.as_ref().map(|embedding| {
            let y = &mut scratch.embedded[..rows * embedding.width];
            embedding.forward(weights, batch.tokens(), y);
            &*y
        });
        let mut x = embedded.unwrap_or(batch.values());
        let places = scratch.activations.iter_mut().zip(&mut scratch.kept).zip(&mut scratch.chosen);
        for (layer, ((y, kept), chosen)) in self.layers.iter().zip(places) {
            let sizes = layer.sizes(rows);
            let y = &mut y[..rows * layer.widths().1];
            let room = Room {
                kept: &mut kept[..sizes.kept],
                chosen: &mut chosen[..sizes.chosen],
                work: &mut scratch.work[..sizes.work],
            };
            layer.forward(weights, x, y, room, mode);
            x = y;
        }
        let derivative = (mode == Mode::Train).then_some(&mut scratch.upstream[..rows * self.outputs]);
        match batch.targets() {
            Targets::Classes(classes) => cross_entropy(x, self.outputs, classes, derivative),
            Targets::Values(values) => mean_squared_error(x, self.outputs, values, derivative),
        }
    }

    /// Takes the derivative that [`forward`](Self::forward) left back through the layers, into the sink.
    pub(crate) fn backward<T: Real>(&self, batch: &Batch<T>, scratch: &mut Scratch<T>, sink: &mut Sink<'_, T>) {
        self.walk_back(batch, scratch, |Step { layer, x, y, dy, dx, mut room, .. }| {
            layer.inputs(sink.weights(), x, y, dy, dx, &mut room);
            layer.parameters(x, y, dy, &mut room, sink);
        });
        if let Some(embedding) = &self.embedding {
            let rows = batch.rows() * self.steps();
            embedding.backward(batch.tokens(), &scratch.upstream[..rows * embedding.width], sink);
        }
    }

    /// Visits the layers from the last to the first; each visit fills `dx`, which is the next one's `dy`. The derivative by what
    /// the embedding gave is left in the scratch's `upstream`.
    pub(crate) fn walk_back<T: Real>(
        &self,
        batch: &Batch<T>,
        scratch: &mut Scratch<T>,
        mut visit: impl FnMut(Step<'_, T>),
    ) {
        let rows = batch.rows() * self.steps();
        let embedded = self.embedding.as_ref().map(|embedding| &scratch.embedded[..rows * embedding.width]);
        let inputs = embedded.unwrap_or(batch.values());
        for (place, layer) in self.layers.iter().enumerate().rev() {
            let (before, after) = scratch.activations.split_at(place);
            let (inputs_width, outputs_width) = layer.widths();
            let x = before.last().map_or(inputs, |x| &x[..rows * inputs_width]);
            let y = &after[0][..rows * outputs_width];
            let dy = &scratch.upstream[..rows * outputs_width];
            // Nobody asks how the loss depends on the data.
            let wanted = place > 0 || self.embedding.is_some();
            let dx = wanted.then(|| &mut scratch.downstream[..rows * inputs_width]);
            let sizes = layer.sizes(rows);
            let room = Room {
                kept: &mut scratch.kept[place][..sizes.kept],
                chosen: &mut scratch.chosen[place][..sizes.chosen],
                work: &mut scratch.work[..sizes.work],
            };
            visit(Step { place, layer, x, y, dy, dx, room });
            std::mem::swap(&mut scratch.upstream, &mut scratch.downstream);
        }
    }

    /// Moves running statistics toward those of the last training pass in `scratch`, which was over `batch`. After
    /// [`gradient`](crate::gradient) this is the caller's to do, once, when it has moved the weights;
    /// [`descend`](crate::descend) does it itself. Models without batch norm: nothing happens.
    pub fn absorb_statistics<T: Real>(&self, weights: &mut [T], batch: &Batch<T>, scratch: &Scratch<T>) {
        if batch.rows() == 0 {
            return;
        }
        for (layer, kept) in self.layers.iter().zip(&scratch.kept) {
            if let Layer::BatchNorm(norm) = layer {
                norm.absorb(weights, kept, batch.rows());
            }
        }
    }
}

/// A layer on the way back.
pub(crate) struct Step<'a, T> {
    pub place: usize,
    pub layer: &'a Layer,
    pub x: &'a [T],
    pub y: &'a [T],
    pub dy: &'a [T],
    pub dx: Option<&'a mut [T]>,
    pub room: Room<'a, T>,
}

/// Room for every activation of one pass, allocated once for a model and a largest batch, and used by one thread for
/// client after client. Nothing in it outlives a pass, but for a batch's statistics.
#[derive(Clone, Debug)]
pub struct Scratch<T> {
    /// The most rows (positions, for text) it has room for.
    rows: usize,
    pub(crate) embedded: Vec<T>,
    pub(crate) activations: Vec<Vec<T>>,
    pub(crate) kept: Vec<Vec<T>>,
    pub(crate) chosen: Vec<Vec<u32>>,
    pub(crate) work: Vec<T>,
    pub(crate) upstream: Vec<T>,
    downstream: Vec<T>,
}

impl<T: Real> Scratch<T> {
    pub fn new(model: &Model, rows_max: usize) -> Self {
        let rows = rows_max * model.steps();
        let sizes: Vec<_> = model.layers.iter().map(|layer| layer.sizes(rows)).collect();
        let embedded = model.embedding.as_ref().map_or(0, |embedding| embedding.width);
        let widest = model.layers.iter().map(|layer| layer.widths().1).max().unwrap_or(0).max(embedded);
        Self {
            rows,
            embedded: vec![T::ZERO; rows * embedded],
            activations: model.layers.iter().map(|layer| vec![T::ZERO; rows * layer.widths().1]).collect(),
            kept: sizes.iter().map(|sizes| vec![T::ZERO; sizes.kept]).collect(),
            chosen: sizes.iter().map(|sizes| vec![0; sizes.chosen]).collect(),
            work: vec![T::ZERO; sizes.iter().map(|sizes| sizes.work).max().unwrap_or(0)],
            upstream: vec![T::ZERO; rows * widest],
            downstream: vec![T::ZERO; rows * widest],
        }
    }
}
