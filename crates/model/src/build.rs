//! From a spec to layers and their segments.
//!
//! Segments that no derivative moves (running statistics) come last, so that the trained parameters are one prefix.

use crate::examples::Shape;
use crate::init::Init;
use crate::layers::{BatchNorm, Convolution, Elementwise, Embedding, GroupNorm, Gru, Layer, Linear, Lstm, MaxPool};
use crate::model::Model;
use crate::spec::{Activation, Cell, Initial, ModelSpec, Norm, SpecError};
use littoral_tensor::Layout;
use std::ops::Range;

impl Model {
    /// Builds the model, or says which size is not allowed.
    pub fn build(spec: &ModelSpec, inputs: Shape, outputs: usize) -> Result<Self, SpecError> {
        spec.validate(inputs, outputs)?;
        let mut builder = Builder::default();
        match (spec, inputs) {
            (ModelSpec::Softmax {}, Shape::Values { width }) => builder.linear(width, outputs, 0.0)?,
            (ModelSpec::Mlp { hidden, activation, init, .. }, Shape::Values { width }) => {
                builder.initial = *init;
                let width = builder.hidden(width, hidden, *activation)?;
                builder.linear(width, outputs, 1.0)?;
            }
            (ModelSpec::Cnn { image, channels, kernel, pool, norm, hidden, init, .. }, Shape::Values { .. }) => {
                builder.initial = *init;
                let mut image = *image;
                for channels in channels {
                    builder.convolution(&mut image, *channels, *kernel, *norm)?;
                    builder.pool(&mut image, *pool);
                }
                let hidden = if *hidden > 0 { std::slice::from_ref(hidden) } else { &[] };
                let width = builder.hidden(image.iter().product(), hidden, Activation::Relu)?;
                builder.linear(width, outputs, 1.0)?;
            }
            (ModelSpec::Recurrent { cell, vocabulary, embedding, hidden }, Shape::Tokens { window }) => {
                builder.embedding(*vocabulary, *embedding)?;
                builder.recurrent(*cell, *embedding, *hidden, window)?;
                builder.linear(*hidden, outputs, 1.0)?;
            }
            // validate() has refused these.
            (_, shape) => {
                let (field, allowed) = ("kind".into(), format!("a kind for {shape}"));
                return Err(SpecError { field, got: spec.kind().into(), allowed });
            }
        }
        let trained = builder.layout.len();
        builder.running_statistics()?;
        Ok(Self {
            inputs,
            outputs,
            loss: spec.loss(),
            embedding: builder.embedding,
            layers: builder.layers,
            layout: builder.layout,
            inits: builder.inits,
            trained,
        })
    }
}

#[derive(Default)]
struct Builder {
    embedding: Option<Embedding>,
    layers: Vec<Layer>,
    layout: Layout,
    inits: Vec<Init>,
    initial: Initial,
    linears: usize,
    convolutions: usize,
}

impl Builder {
    fn segment(&mut self, name: String, shape: &[usize], init: Init) -> Result<Range<usize>, SpecError> {
        self.inits.push(init);
        self.layout.push(name, shape).map_err(|error| SpecError {
            field: "parameters".into(),
            got: error.to_string(),
            allowed: "segments of other names, that fit into memory".into(),
        })
    }

    /// The first weights and biases of a linear layer or a convolution; a gain of 0 means zeros.
    fn initial(&self, fan_in: usize, gain_squared: f32) -> (Init, Init) {
        match self.initial {
            _ if gain_squared == 0.0 => (Init::Zeros, Init::Zeros),
            Initial::He => (Init::variance(fan_in, gain_squared), Init::Zeros),
            Initial::FanIn => (Init::variance(fan_in, 1.0 / 3.0), Init::variance(fan_in, 1.0 / 3.0)),
        }
    }

    fn linear(&mut self, inputs: usize, outputs: usize, gain_squared: f32) -> Result<(), SpecError> {
        let (weight, bias) = self.initial(inputs, gain_squared);
        self.linears += 1;
        let name = format!("fc{}", self.linears);
        let weight = self.segment(format!("{name}.weight"), &[inputs, outputs], weight)?;
        let bias = self.segment(format!("{name}.bias"), &[outputs], bias)?;
        self.layers.push(Layer::Linear(Linear { inputs, outputs, weight, bias }));
        Ok(())
    }

    /// Linear layers, each followed by the activation. Returns the width that comes out.
    fn hidden(&mut self, inputs: usize, hidden: &[usize], function: Activation) -> Result<usize, SpecError> {
        let gain_squared = if function == Activation::Tanh { 1.0 } else { 2.0 };
        let mut before = inputs;
        for &width in hidden {
            self.linear(before, width, gain_squared)?;
            self.layers.push(Layer::Elementwise(Elementwise { width, function }));
            before = width;
        }
        Ok(before)
    }

    fn convolution(
        &mut self,
        image: &mut [usize; 3],
        outputs: usize,
        kernel: usize,
        norm: Norm,
    ) -> Result<(), SpecError> {
        self.convolutions += 1;
        let place = self.convolutions;
        let [height, width, inputs] = *image;
        let (weight, bias) = self.initial(kernel * kernel * inputs, 2.0);
        let weight = self.segment(format!("conv{place}.weight"), &[kernel, kernel, inputs, outputs], weight)?;
        let bias = self.segment(format!("conv{place}.bias"), &[outputs], bias)?;
        self.layers.push(Layer::Convolution(Convolution { height, width, inputs, outputs, kernel, weight, bias }));
        *image = [height, width, outputs];

        let (pixels, channels, name) = (height * width, outputs, format!("norm{place}"));
        if norm != Norm::None {
            let weight = self.segment(format!("{name}.weight"), &[channels], Init::Ones)?;
            let bias = self.segment(format!("{name}.bias"), &[channels], Init::Zeros)?;
            self.layers.push(if norm == Norm::Group {
                let groups = (1..=8).rev().find(|groups| channels % groups == 0).unwrap_or(1);
                Layer::GroupNorm(GroupNorm { pixels, channels, groups, weight, bias })
            } else {
                // Where the running statistics lie is known when all trained segments do.
                let (running_mean, running_variance) = (0..0, 0..0);
                Layer::BatchNorm(BatchNorm { name, pixels, channels, weight, bias, running_mean, running_variance })
            });
        }
        let function = Activation::Relu;
        self.layers.push(Layer::Elementwise(Elementwise { width: pixels * channels, function }));
        Ok(())
    }

    fn pool(&mut self, image: &mut [usize; 3], side: usize) {
        if side > 1 {
            let [height, width, channels] = *image;
            self.layers.push(Layer::MaxPool(MaxPool { height, width, channels, side }));
            *image = [height / side, width / side, channels];
        }
    }

    fn embedding(&mut self, vocabulary: usize, width: usize) -> Result<(), SpecError> {
        let init = Init::Uniform { bound: 3f32.sqrt() };
        let weight = self.segment("embedding.weight".into(), &[vocabulary, width], init)?;
        self.embedding = Some(Embedding { width, weight });
        Ok(())
    }

    fn recurrent(&mut self, cell: Cell, inputs: usize, hidden: usize, steps: usize) -> Result<(), SpecError> {
        let (name, gates) = match cell {
            Cell::Gru => ("gru", 3 * hidden),
            Cell::Lstm => ("lstm", 4 * hidden),
        };
        let init = Init::variance(3 * hidden, 1.0);
        let input_weight = self.segment(format!("{name}.input_weight"), &[inputs, gates], init.clone())?;
        let hidden_weight = self.segment(format!("{name}.hidden_weight"), &[hidden, gates], init)?;
        match cell {
            Cell::Gru => {
                let bias = self.segment("gru.bias".into(), &[gates], Init::Zeros)?;
                let hidden_bias = self.segment("gru.hidden_bias".into(), &[hidden], Init::Zeros)?;
                self.layers.push(Layer::Gru(Gru {
                    inputs,
                    hidden,
                    steps,
                    input_weight,
                    hidden_weight,
                    bias,
                    hidden_bias,
                }));
            }
            Cell::Lstm => {
                let bias = self.segment("lstm.bias".into(), &[gates], Init::ForgetGate)?;
                self.layers.push(Layer::Lstm(Lstm { inputs, hidden, steps, input_weight, hidden_weight, bias }));
            }
        }
        Ok(())
    }

    fn running_statistics(&mut self) -> Result<(), SpecError> {
        let mut layers = std::mem::take(&mut self.layers);
        for layer in &mut layers {
            if let Layer::BatchNorm(norm) = layer {
                let shape = [norm.channels];
                norm.running_mean = self.segment(format!("{}.running_mean", norm.name), &shape, Init::Zeros)?;
                norm.running_variance = self.segment(format!("{}.running_variance", norm.name), &shape, Init::Ones)?;
            }
        }
        self.layers = layers;
        Ok(())
    }
}
