//! Which model: a small table in a job file, checked before anything is built from it.
//!
//! Jobs come from outside, so that every size has a bound here, and a wrong one is refused with the field, the value and
//! what is allowed.

use crate::examples::Shape;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An architecture. In TOML or JSON its `kind` names the variant.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ModelSpec {
    /// Softmax regression: one linear layer and cross-entropy.
    Softmax {},
    /// Linear layers with an activation between them. With no hidden layer and `loss = "mse"`: linear regression.
    Mlp {
        /// Width of each hidden layer; up to 16 of 1 to 65,536.
        hidden: Vec<usize>,
        #[serde(default)]
        activation: Activation,
        #[serde(default)]
        loss: Loss,
        #[serde(default)]
        init: Initial,
    },
    /// Per entry of `channels` a convolution, a norm, ReLU and pooling; then a hidden layer if it has width; then the outputs.
    Cnn {
        /// Height, width, channels; their product is the width of a row, in that order.
        image: [usize; 3],
        /// Channels after each convolution; 1 to 8 entries of 1 to 4,096.
        channels: Vec<usize>,
        /// Side of the convolution, odd, 1 to 15; the padding keeps the size of the image.
        kernel: usize,
        /// Side of the square of max pooling, 1 to 8; 1 pools nothing.
        pool: usize,
        #[serde(default)]
        norm: Norm,
        /// Width of the hidden layer, 0 (none) to 65,536.
        #[serde(default)]
        hidden: usize,
        #[serde(default)]
        loss: Loss,
        #[serde(default)]
        init: Initial,
    },
    /// Next-token model: embedding, one recurrent layer, outputs over the vocabulary.
    Recurrent {
        cell: Cell,
        /// 2 to 65,536 tokens.
        vocabulary: usize,
        /// Width of a token, 1 to 4,096.
        embedding: usize,
        /// Width of the state, 1 to 8,192.
        hidden: usize,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    #[default]
    Relu,
    Tanh,
    Gelu,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    #[default]
    CrossEntropy,
    /// Mean over rows and outputs of the squared difference.
    Mse,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    #[default]
    None,
    /// Group normalisation with 8 groups, or with the largest number below that divides the channels.
    Group,
    Batch,
}

/// How wide the first weights of linear layers and convolutions are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Initial {
    /// Uniform in `±gain * sqrt(3 / fan_in)`, gain sqrt(2) before a ReLU or GELU and 1 elsewhere; biases zero.
    #[default]
    He,
    /// Uniform in `±1 / sqrt(fan_in)`, biases too: what PyTorch does, for runs that are compared with it.
    FanIn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    Gru,
    Lstm,
}

/// A size that is not allowed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("model: {field} is {got}; allowed: {allowed}")]
pub struct SpecError {
    pub field: String,
    pub got: String,
    pub allowed: String,
}

/// A model may have this many parameters: 1 GiB of f32.
const PARAMETERS_MAX: usize = 1 << 28;
/// One example may need this many activations: 256 MiB of f32.
const ACTIVATIONS_MAX: usize = 1 << 26;
const WIDTH_MAX: usize = 1 << 16;

impl ModelSpec {
    pub fn loss(&self) -> Loss {
        match self {
            Self::Softmax {} | Self::Recurrent { .. } => Loss::CrossEntropy,
            Self::Mlp { loss, .. } | Self::Cnn { loss, .. } => *loss,
        }
    }

    /// Whether such a model can be built for inputs of that shape and that many outputs.
    pub fn validate(&self, inputs: Shape, outputs: usize) -> Result<(), SpecError> {
        let least = if self.loss() == Loss::CrossEntropy { 2 } else { 1 };
        within("outputs", outputs, least, WIDTH_MAX)?;
        match (self, inputs) {
            (Self::Recurrent { vocabulary, .. }, Shape::Tokens { window }) => {
                within("window", window, 1, 4096)?;
                if outputs != *vocabulary {
                    return refuse("outputs", outputs, format!("the vocabulary, {vocabulary}"));
                }
            }
            (Self::Recurrent { .. }, Shape::Values { width }) => {
                return refuse("kind", "recurrent", format!("softmax, mlp or cnn, for rows of {width} values"));
            }
            (_, Shape::Values { width }) => within("inputs", width, 1, 1 << 22)?,
            (_, Shape::Tokens { .. }) => {
                return refuse("kind", self.kind(), "recurrent, for text".into());
            }
        }
        match self {
            Self::Softmax {} => {}
            Self::Mlp { hidden, .. } => {
                within("hidden's length", hidden.len(), 0, 16)?;
                for (i, width) in hidden.iter().enumerate() {
                    within(&format!("hidden[{i}]"), *width, 1, WIDTH_MAX)?;
                }
            }
            Self::Cnn { image, channels, kernel, pool, hidden, .. } => {
                validate_cnn(*image, channels, *kernel, *pool, *hidden, inputs)?;
            }
            Self::Recurrent { vocabulary, embedding, hidden, .. } => {
                within("vocabulary", *vocabulary, 2, WIDTH_MAX)?;
                within("embedding", *embedding, 1, 4096)?;
                within("hidden", *hidden, 1, 8192)?;
            }
        }
        let (parameters, activations) = self.extent(inputs, outputs);
        if parameters > PARAMETERS_MAX {
            return refuse("number of parameters", parameters, format!("up to {PARAMETERS_MAX}"));
        }
        if activations > ACTIVATIONS_MAX {
            return refuse("activations per example", activations, format!("up to {ACTIVATIONS_MAX}"));
        }
        Ok(())
    }

    /// As a job names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Softmax {} => "softmax",
            Self::Mlp { .. } => "mlp",
            Self::Cnn { .. } => "cnn",
            Self::Recurrent { .. } => "recurrent",
        }
    }

    /// Parameters, and activations of one example, both roughly and without overflow: each size is bounded already.
    fn extent(&self, inputs: Shape, outputs: usize) -> (usize, usize) {
        match (self, inputs) {
            (Self::Recurrent { embedding, hidden, vocabulary, .. }, Shape::Tokens { window }) => {
                let parameters = vocabulary * embedding + 4 * hidden * (embedding + hidden) + hidden * outputs;
                (parameters, window * (embedding + 6 * hidden + outputs))
            }
            (Self::Cnn { image: [height, width, depth], channels, kernel, pool, hidden, .. }, _) => {
                let (mut height, mut width, mut depth) = (*height, *width, *depth);
                let (mut parameters, mut activations) = (0, 0);
                for &next in channels {
                    parameters += kernel * kernel * depth * next;
                    activations += height * width * (kernel * kernel * depth + 3 * next);
                    (height, width, depth) = (height / pool, width / pool, next);
                }
                let flat = height * width * depth;
                let head = if *hidden > 0 { (flat + outputs) * hidden } else { flat * outputs };
                (parameters.saturating_add(head), activations + flat + hidden + outputs)
            }
            (Self::Mlp { hidden, .. }, Shape::Values { width }) => {
                let mut before = width;
                let (mut parameters, mut activations) = (0, width);
                for &next in hidden.iter().chain([&outputs]) {
                    parameters += before * next;
                    activations += 2 * next;
                    before = next;
                }
                (parameters, activations)
            }
            (_, Shape::Values { width }) => (width * outputs, width + outputs),
            (_, Shape::Tokens { window }) => (0, window),
        }
    }
}

fn validate_cnn(
    image: [usize; 3],
    channels: &[usize],
    kernel: usize,
    pool: usize,
    hidden: usize,
    inputs: Shape,
) -> Result<(), SpecError> {
    within("image[0]", image[0], 1, 4096)?;
    within("image[1]", image[1], 1, 4096)?;
    within("image[2]", image[2], 1, 4096)?;
    let values = image.iter().product::<usize>();
    if inputs != (Shape::Values { width: values }) {
        return refuse("image", format!("{image:?} ({values} values)"), format!("as many values as {inputs}"));
    }
    within("channels' length", channels.len(), 1, 8)?;
    for (i, channels) in channels.iter().enumerate() {
        within(&format!("channels[{i}]"), *channels, 1, 4096)?;
    }
    within("kernel", kernel, 1, 15)?;
    if kernel.is_multiple_of(2) {
        return refuse("kernel", kernel, "odd, 1 to 15".into());
    }
    within("pool", pool, 1, 8)?;
    let shrunk = pool.pow(channels.len() as u32);
    if image[0] / shrunk == 0 || image[1] / shrunk == 0 {
        return refuse(
            "pool",
            pool,
            format!("a side that leaves a pixel of {image:?} after {} poolings", channels.len()),
        );
    }
    within("hidden", hidden, 0, WIDTH_MAX)
}

fn within(field: &str, got: usize, least: usize, most: usize) -> Result<(), SpecError> {
    if (least..=most).contains(&got) { Ok(()) } else { refuse(field, got, format!("{least} to {most}")) }
}

fn refuse(field: &str, got: impl ToString, allowed: String) -> Result<(), SpecError> {
    Err(SpecError { field: field.to_owned(), got: got.to_string(), allowed })
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: Shape = Shape::Values { width: 784 };

    fn check(json: &str, inputs: Shape, outputs: usize, expected: &str) {
        let spec: ModelSpec = serde_json::from_str(json).unwrap();
        let got = spec.validate(inputs, outputs).map_or_else(|error| error.to_string(), |()| String::new());
        assert_eq!(got, expected, "{json}");
    }

    #[test]
    fn sizes_are_checked_by_name() {
        let cnn = r#"{"kind":"cnn","image":[28,28,1],"channels":[8],"kernel":5,"pool":2,"norm":"group","hidden":32}"#;
        let gru = r#"{"kind":"recurrent","cell":"gru","vocabulary":65,"embedding":8,"hidden":32}"#;
        let text = Shape::Tokens { window: 80 };
        check(r#"{"kind":"softmax"}"#, IMAGE, 10, "");
        check(r#"{"kind":"mlp","hidden":[200,200]}"#, IMAGE, 10, "");
        check(r#"{"kind":"mlp","hidden":[],"loss":"mse"}"#, IMAGE, 1, "");
        check(cnn, IMAGE, 10, "");
        check(gru, text, 65, "");

        check(r#"{"kind":"softmax"}"#, IMAGE, 1, "model: outputs is 1; allowed: 2 to 65536");
        check(r#"{"kind":"mlp","hidden":[8,0]}"#, IMAGE, 10, "model: hidden[1] is 0; allowed: 1 to 65536");
        check(
            r#"{"kind":"mlp","hidden":[65536,65536]}"#,
            IMAGE,
            10,
            "model: number of parameters is 4347002880; allowed: up to 268435456",
        );
        check(r#"{"kind":"softmax"}"#, text, 65, "model: kind is softmax; allowed: recurrent, for text");
        check(gru, text, 66, "model: outputs is 66; allowed: the vocabulary, 65");
        check(gru, IMAGE, 65, "model: kind is recurrent; allowed: softmax, mlp or cnn, for rows of 784 values");
        check(
            &cnn.replace("28,28", "28,27"),
            IMAGE,
            10,
            "model: image is [28, 27, 1] (756 values); allowed: as many values as rows of 784 values",
        );
        check(&cnn.replace(":5", ":4"), IMAGE, 10, "model: kernel is 4; allowed: odd, 1 to 15");
        check(
            &cnn.replace("[8]", "[8,8,8,8,8]"),
            IMAGE,
            10,
            "model: pool is 2; allowed: a side that leaves a pixel of [28, 28, 1] after 5 poolings",
        );
    }

    #[test]
    fn fields_that_nobody_knows_are_refused() {
        for json in [
            r#"{"kind":"softmax","hidden":[3]}"#,
            r#"{"kind":"mlp","hiden":[3]}"#,
            r#"{"kind":"mlp","hidden":[3],"extra":1}"#,
            r#"{"kind":"perceptron"}"#,
        ] {
            assert!(serde_json::from_str::<ModelSpec>(json).is_err(), "{json}");
        }
    }
}
