//! Small models of every kind, with rows that fit them.

use littoral_model::{Examples, Features, Labels, Model, ModelSpec, View};

/// A small set of rows that fits the spec, and the model.
pub fn model_and_view(spec: &str, width: usize, outputs: usize) -> (Model, View) {
    let spec: ModelSpec = serde_json::from_str(spec).unwrap();
    let rows = 5;
    let noise = |i: usize| ((i * 2654435761 + 12345) % 1009) as f32 / 504.5 - 1.0;
    let examples = match &spec {
        ModelSpec::Recurrent { vocabulary, .. } => {
            let ids = (0..rows * (width + 1)).map(|i| ((i * i + 3 * i) % vocabulary) as u16).collect();
            Examples::new(Features::Tokens { ids, window: width }, Labels::NextToken)
        }
        spec => {
            let features = Features::F32 { width, values: (0..rows * width).map(noise).collect() };
            let labels = match spec.loss() {
                littoral_model::Loss::CrossEntropy => {
                    let ids = (0..rows as u32).map(|row| row * 7 % outputs as u32).collect();
                    Labels::Classes { ids, classes: outputs as u32 }
                }
                littoral_model::Loss::Mse => {
                    Labels::Values { width: outputs, values: (0..rows * outputs).map(|i| noise(i + 77)).collect() }
                }
            };
            Examples::new(features, labels)
        }
    };
    let view = View::all(examples.unwrap().into());
    let model = Model::build(&spec, view.examples().shape(), outputs).unwrap();
    (model, view)
}

/// Weights off the beaten track: no zero biases, no unit norms.
pub fn weights(model: &Model) -> Vec<f64> {
    let perturb = |(i, w): (usize, f32)| f64::from(w) + 0.1 * ((i * 7919 % 97) as f64 / 48.5 - 1.0);
    model.init(3).into_iter().enumerate().map(perturb).collect()
}
