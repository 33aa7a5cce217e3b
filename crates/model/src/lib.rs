//! Models that train: architectures, the training step, optimisers.
//!
//! A [`Model`] is built from a [`ModelSpec`] and holds no weights: those are one flat slice whose parts its
//! [`layout`](Model::layout) names. [`Examples`] are the data, a [`View`] is one client's share of them, and a [`Batch`]
//! is some of its rows made ready. Then there are three verbs: [`gradient`] writes the derivative of the mean loss,
//! [`descend`] makes a step of plain gradient descent without ever writing it, [`evaluate`] counts. A fourth,
//! [`clipped_gradient`], adds up gradients of which each example's has a bounded norm.
//!
//! Everything a step needs is allocated beforehand, in a [`Scratch`] that one thread uses for client after client
//! ([`Worker`] bundles it). A step is never parallel inside; run several workers. The same seed gives the same bits.
//!
//! [`text`] is for language models: tokenisers and chat templates, as model files bring them.
//!
//! What this crate does not know: files, clocks, peers, rounds, and how weights are averaged.
//!
//! ```
//! use littoral_model::{Descent, Examples, Features, Labels, Model, ModelSpec, View, Worker};
//!
//! let points = Features::F32 { width: 1, values: vec![-2.0, -1.0, 1.0, 2.0] };
//! let labels = Labels::Classes { ids: vec![0, 0, 1, 1], classes: 2 };
//! let view = View::all(Examples::new(points, labels)?.into());
//!
//! let model = Model::build(&ModelSpec::Softmax {}, view.examples().shape(), 2)?;
//! let mut weights = model.init(7);
//! let mut worker = Worker::new(&model, 4);
//! let descent = Descent { epochs: 20, batch: 2, learning_rate: 0.5, seed: 1 };
//! worker.descend(&model, &mut weights, &view, &descent)?;
//! assert_eq!(worker.evaluate(&model, &weights, &view)?.correct, 4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod build;
mod clip;
mod examples;
mod init;
mod layers;
pub mod lm;
mod model;
mod optimiser;
mod sink;
mod spec;
pub mod text;
mod train;

pub use batch::{Batch, Epoch};
pub use clip::{Clip, ClippedBatch, Clipping, Coupled, NotFinite, clipped_gradient};
pub use examples::{Examples, ExamplesError, Features, Labels, Mismatch, Shape, Standardise, View};
pub use model::{Model, Scratch};
pub use optimiser::{Adam, Sgd};
pub use spec::{Activation, Cell, Initial, Loss, ModelSpec, Norm, SpecError};
pub use train::{Descent, Evaluation, Trained, Worker, descend, evaluate, gradient};
