//! Each model against PyTorch: loss, gradient, and the weights after a few steps of two optimisers. The files in `golden/` and
//! their script, `oracles/torch_golden.py`, are in the repository.

use littoral_model::{Adam, Batch, Examples, Features, Labels, Model, ModelSpec, Scratch, Sgd, Shape, View, gradient};
use serde_json::Value;

struct Golden {
    record: Value,
    model: Model,
    view: View,
}

impl Golden {
    fn parse(json: &str) -> Self {
        let record: Value = serde_json::from_str(json).unwrap();
        let spec: ModelSpec = serde_json::from_value(record["spec"].clone()).unwrap();
        let size = |name: &str| record[name].as_u64().unwrap() as usize;
        let outputs = size("outputs");
        let numbers = |name| numbers(&record, name);
        let narrow = |name| numbers(name).into_iter().map(|x| x as f32).collect::<Vec<_>>();
        let examples = if record["window"].is_u64() {
            let mut ids: Vec<u16> = numbers("inputs").into_iter().map(|x| x as u16).collect();
            ids.push(*numbers("targets").last().unwrap() as u16);
            Examples::new(Features::Tokens { ids, window: size("window") }, Labels::NextToken)
        } else {
            let features = Features::F32 { width: size("width"), values: narrow("inputs") };
            let labels = if record["spec"]["loss"] == "mse" {
                Labels::Values { width: outputs, values: narrow("targets") }
            } else {
                let ids = numbers("targets").into_iter().map(|x| x as u32).collect();
                Labels::Classes { ids, classes: outputs as u32 }
            };
            Examples::new(features, labels)
        };
        let view = View::all(examples.unwrap().into());
        let model = Model::build(&spec, view.examples().shape(), outputs).unwrap();
        Self { record, model, view }
    }

    fn check(&self) {
        let Self { record, model, view } = self;
        let segments: Vec<Value> =
            model.layout().segments().iter().map(|s| serde_json::json!([s.name, s.shape])).collect();
        assert_eq!(record["segments"], Value::Array(segments));

        let mut batch = Batch::<f64>::new(model, view.len());
        let mut scratch = Scratch::new(model, view.len());
        batch.fill(view, view.rows()).unwrap();
        let start = numbers(record, "weights");
        let mut derivative = vec![0.0; start.len()];
        let loss = gradient(model, &start, &batch, &mut scratch, &mut derivative);

        let trained = model.trained_len();
        // The files have twelve digits.
        let near = 1e-10;
        assert_near("loss", &[loss], &[record["loss"].as_f64().unwrap()], near);
        assert_near("gradient", &derivative[..trained], &numbers(record, "gradient"), near);

        let mut after = |step: &mut dyn FnMut(&mut [f64], &[f64])| {
            let mut weights = start.clone();
            for _ in 0..3 {
                gradient(model, &weights, &batch, &mut scratch, &mut derivative);
                step(&mut weights[..trained], &derivative[..trained]);
                model.absorb_statistics(&mut weights, &batch, &scratch);
            }
            weights
        };
        let mut sgd = Sgd::new(trained, 0.1, 0.9, 0.01);
        assert_near("after SGD", &after(&mut |w, g| sgd.step(w, g)), &numbers(record, "after_sgd"), near);
        let mut adam = Adam::new(trained, 0.02);
        adam.weight_decay = 0.1;
        // Adam divides small gradients by their own size, and so enlarges their rounding.
        assert_near("after AdamW", &after(&mut |w, g| adam.step(w, g)), &numbers(record, "after_adamw"), 1e-8);

        // What really trains is f32: the same within its rounding over a few hundred additions.
        let mut batch = Batch::<f32>::new(model, view.len());
        let mut scratch = Scratch::new(model, view.len());
        batch.fill(view, view.rows()).unwrap();
        let start: Vec<f32> = start.iter().map(|&w| w as f32).collect();
        let mut derivative = vec![0.0; start.len()];
        let loss = gradient(model, &start, &batch, &mut scratch, &mut derivative);
        let derivative: Vec<f64> = derivative[..trained].iter().map(|&g| g.into()).collect();
        assert_near("loss in f32", &[loss], &[record["loss"].as_f64().unwrap()], 1e-5);
        assert_near("gradient in f32", &derivative, &numbers(record, "gradient"), 1e-5);
    }
}

fn numbers(record: &Value, name: &str) -> Vec<f64> {
    record[name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn assert_near(what: &str, got: &[f64], expected: &[f64], near: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= near * expected.abs().max(1.0), "{what}[{i}] is {got}, torch has {expected}");
    }
}

macro_rules! golden {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            Golden::parse(include_str!(concat!("golden/", stringify!($name), ".json"))).check();
        }
    )* };
}

golden!(softmax mlp mlp_regression cnn_none cnn_group cnn_batch gru lstm);

#[test]
fn shapes_of_features_reach_the_model() {
    let golden = Golden::parse(include_str!("golden/gru.json"));
    assert_eq!(golden.model.inputs(), Shape::Tokens { window: 5 });
}
