//! Every layer's backward pass against central finite differences of its forward pass, in f64; and the fused step
//! against the gradient it never writes.

mod models;

use littoral_model::{Batch, Descent, Scratch, View, Worker, descend, gradient};
use models::{model_and_view, weights};

fn check(spec: &str, width: usize, outputs: usize) {
    let (model, view) = model_and_view(spec, width, outputs);
    let mut batch = Batch::<f64>::new(&model, view.len() + 2);
    let mut scratch = Scratch::new(&model, view.len() + 2);
    batch.fill(&view, view.rows()).unwrap();
    let mut weights = weights(&model);
    let mut analytic = vec![f64::NAN; weights.len()];
    gradient(&model, &weights, &batch, &mut scratch, &mut analytic);

    // Truncation is of order step^2 and cancellation of order 1e-16 / step: both near 1e-10. The tolerance leaves a factor
    // of a thousand for curvature; an error in a derivative is of the derivative's own order.
    let step = 1e-5;
    let mut other = vec![0.0; weights.len()];
    for segment in model.layout().segments() {
        let stride = (segment.len / 40).max(1);
        for i in segment.range().step_by(stride) {
            let value = weights[i];
            weights[i] = value + step;
            let above = gradient(&model, &weights, &batch, &mut scratch, &mut other);
            weights[i] = value - step;
            let below = gradient(&model, &weights, &batch, &mut scratch, &mut other);
            weights[i] = value;
            let numeric = (above - below) / (2.0 * step);
            let error = (numeric - analytic[i]).abs();
            assert!(
                error < 1e-7,
                "{spec}: {}[{}] is {}, differences give {numeric}",
                segment.name,
                i - segment.offset,
                analytic[i]
            );
        }
    }

    // Both ways do the same sums in another order.
    let mut expected = weights.clone();
    gradient(&model, &weights, &batch, &mut scratch, &mut analytic);
    for (w, g) in expected.iter_mut().zip(&analytic) {
        *w -= 0.1 * g;
    }
    model.absorb_statistics(&mut expected, &batch, &scratch);
    let loss = descend(&model, &mut weights, &batch, &mut scratch, 0.1);
    assert!(loss.is_finite() && loss > 0.0);
    for (i, (fused, expected)) in weights.iter().zip(&expected).enumerate() {
        assert!((fused - expected).abs() < 1e-13, "{spec}: weight {i} is {fused} fused, {expected} not");
    }
    assert!(analytic[..model.trained_len()].iter().any(|g| g.abs() > 1e-4), "{spec}: nothing to learn");
}

#[test]
fn linear() {
    check(r#"{"kind":"softmax"}"#, 7, 4);
    check(r#"{"kind":"mlp","hidden":[],"loss":"mse"}"#, 6, 1);
}

#[test]
fn activations() {
    check(r#"{"kind":"mlp","hidden":[9,8],"activation":"relu"}"#, 7, 4);
    check(r#"{"kind":"mlp","hidden":[9],"activation":"tanh","loss":"mse"}"#, 7, 3);
    check(r#"{"kind":"mlp","hidden":[9],"activation":"gelu"}"#, 7, 4);
}

#[test]
fn convolution() {
    check(r#"{"kind":"cnn","image":[5,4,3],"channels":[4],"kernel":3,"pool":1}"#, 60, 3);
    check(r#"{"kind":"cnn","image":[2,1,2],"channels":[3,2],"kernel":5,"pool":1}"#, 4, 2);
}

#[test]
fn max_pool() {
    check(r#"{"kind":"cnn","image":[7,6,1],"channels":[3,4],"kernel":3,"pool":2,"hidden":5}"#, 42, 3);
    check(r#"{"kind":"cnn","image":[7,7,2],"channels":[4],"kernel":1,"pool":3,"loss":"mse"}"#, 98, 2);
}

#[test]
fn group_norm() {
    check(r#"{"kind":"cnn","image":[6,5,2],"channels":[4,16],"kernel":3,"pool":2,"norm":"group"}"#, 60, 3);
    check(r#"{"kind":"cnn","image":[4,4,1],"channels":[7,6],"kernel":3,"pool":1,"norm":"group"}"#, 16, 3);
}

#[test]
fn batch_norm() {
    check(r#"{"kind":"cnn","image":[6,5,2],"channels":[4,5],"kernel":3,"pool":2,"norm":"batch","hidden":4}"#, 60, 3);
}

#[test]
fn gru() {
    check(r#"{"kind":"recurrent","cell":"gru","vocabulary":11,"embedding":4,"hidden":6}"#, 7, 11);
    check(r#"{"kind":"recurrent","cell":"gru","vocabulary":5,"embedding":2,"hidden":3}"#, 1, 5);
}

#[test]
fn lstm() {
    check(r#"{"kind":"recurrent","cell":"lstm","vocabulary":11,"embedding":4,"hidden":6}"#, 7, 11);
    check(r#"{"kind":"recurrent","cell":"lstm","vocabulary":5,"embedding":2,"hidden":3}"#, 1, 5);
}

#[test]
fn many_images_at_once_or_one_by_one() {
    // 40 * 40 pixels with 5 * 5 * 8 neighbours are more than patches are made for at once.
    check(r#"{"kind":"cnn","image":[40,40,1],"channels":[8,2],"kernel":5,"pool":1}"#, 1600, 2);
}

#[test]
fn in_f32_the_fused_step_is_the_other_within_rounding() {
    let (model, view) = model_and_view(r#"{"kind":"mlp","hidden":[64,32]}"#, 100, 10);
    let mut worker = Worker::<f32>::new(&model, 5);
    worker.batch.fill(&view, view.rows()).unwrap();
    let before = model.init(1);
    let (mut fused, mut gradients) = (before.clone(), vec![0.0; before.len()]);
    let loss = gradient(&model, &before, &worker.batch, &mut worker.scratch, &mut gradients);
    assert_eq!(loss, descend(&model, &mut fused, &worker.batch, &mut worker.scratch, 0.05));
    for ((fused, before), gradient) in fused.iter().zip(&before).zip(&gradients) {
        // One rounding of the weight and a few of a sum over five rows.
        let tolerance = 4.0 * f32::EPSILON * (before.abs() + gradient.abs());
        assert!((fused - (before - 0.05 * gradient)).abs() <= tolerance);
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_whatever_the_room_was_used_for() {
    let (model, view) = model_and_view(r#"{"kind":"mlp","hidden":[16]}"#, 12, 4);
    let descent = Descent { epochs: 3, batch: 2, learning_rate: 0.1f32, seed: 9 };
    let train = |worker: &mut Worker<f32>, descent: &Descent<f32>| {
        let mut weights = model.init(5);
        worker.descend(&model, &mut weights, &view, descent).unwrap();
        weights.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let mut used = Worker::new(&model, 5);
    let other_order = train(&mut used, &Descent { seed: 10, ..descent });
    let again = train(&mut used, &descent);
    assert_eq!(again, train(&mut Worker::new(&model, 2), &descent));
    assert_ne!(again, other_order);
}

#[test]
fn running_statistics_come_to_stand_for_the_batch() {
    let spec = r#"{"kind":"cnn","image":[6,5,2],"channels":[4],"kernel":3,"pool":1,"norm":"batch"}"#;
    let (model, view) = model_and_view(spec, 60, 3);
    let mut worker = Worker::<f64>::new(&model, view.len());
    let mut weights = weights(&model);
    let mut derivative = weights.clone();
    let per_row = |worker: &mut Worker<f64>, weights: &[f64]| {
        let evaluation = worker.evaluate(&model, weights, &view).unwrap();
        evaluation.loss_sum / evaluation.rows as f64
    };
    let strange = per_row(&mut worker, &weights);
    let mut loss = 0.0;
    for _ in 0..300 {
        worker.batch.fill(&view, view.rows()).unwrap();
        loss = gradient(&model, &weights, &worker.batch, &mut worker.scratch, &mut derivative);
        model.absorb_statistics(&mut weights, &worker.batch, &worker.scratch);
    }
    // The running variance is the unbiased one, 1/149 larger than the batch's.
    assert!((per_row(&mut worker, &weights) - loss).abs() < 0.02 * loss);
    assert!((strange - loss).abs() > 0.05 * loss, "statistics that say nothing give {strange}, the batch {loss}");
    assert_eq!(model.norm_segments(), ["norm1.weight", "norm1.bias", "norm1.running_mean", "norm1.running_variance"]);
    let layers = model.layer_segments();
    let names: Vec<Vec<&str>> = layers.iter().map(|layer| layer.iter().map(|s| s.name.as_str()).collect()).collect();
    assert_eq!(names[0][..2], ["conv1.weight", "conv1.bias"]);
    assert_eq!(names[0][2..], model.norm_segments());
    assert_eq!(names.last().unwrap().len(), 2, "a linear layer: {names:?}");
    assert!(derivative[model.trained_len()..].iter().all(|g| *g == 0.0));
}

#[test]
fn a_worker_can_go_to_another_thread() {
    fn sendable<T: Send>(_: &T) {}
    let (model, _) = model_and_view(r#"{"kind":"softmax"}"#, 3, 2);
    sendable(&Worker::<f32>::new(&model, 1));
}

#[test]
fn data_that_does_not_fit_is_refused() {
    let (model, _) = model_and_view(r#"{"kind":"softmax"}"#, 3, 2);
    let (_, wider) = model_and_view(r#"{"kind":"softmax"}"#, 4, 2);
    let (_, more) = model_and_view(r#"{"kind":"softmax"}"#, 3, 5);
    let (_, fits) = model_and_view(r#"{"kind":"softmax"}"#, 3, 2);
    let mut worker = Worker::<f32>::new(&model, 4);
    let mut error = |view: &View| {
        let weights = model.init(0);
        worker.evaluate(&model, &weights, view).map(|e| e.rows).map_err(|e| e.to_string())
    };
    assert_eq!(
        error(&wider).unwrap_err(),
        "features: the model expects rows of 3 values, the data has rows of 4 values"
    );
    assert_eq!(error(&more).unwrap_err(), "labels: the model expects at most 2 classes, the data has 5");
    assert_eq!(error(&fits), Ok(5));
    let too_many = worker.batch.fill(&fits, fits.rows()).unwrap_err();
    assert_eq!(too_many.to_string(), "batch: the model expects at most 4 rows, the data has 5");
}
