//! Sums of clipped gradients against the plain way: every example's gradient by itself, clipped, added.

mod models;

use littoral_model::{
    Batch, Clip, Clipping, Examples, Features, Labels, Model, Scratch, View, clipped_gradient, gradient,
};
use models::{model_and_view, weights};

/// Kind, values per row or window, outputs: every layer that has parameters, with one position per example and with several;
/// few weights and many, so that norms come by both ways.
const MODELS: &[(&str, usize, usize)] = &[
    (r#"{"kind":"softmax"}"#, 7, 4),
    (r#"{"kind":"mlp","hidden":[9,8],"activation":"gelu"}"#, 7, 4),
    (r#"{"kind":"mlp","hidden":[9],"activation":"tanh","loss":"mse"}"#, 7, 3),
    (r#"{"kind":"cnn","image":[7,6,1],"channels":[3,4],"kernel":3,"pool":2,"hidden":5}"#, 42, 3),
    (r#"{"kind":"cnn","image":[3,2,8],"channels":[40,64],"kernel":3,"pool":1}"#, 48, 3),
    (r#"{"kind":"cnn","image":[6,5,2],"channels":[4,16],"kernel":3,"pool":2,"norm":"group"}"#, 60, 3),
    (r#"{"kind":"recurrent","cell":"gru","vocabulary":11,"embedding":4,"hidden":6}"#, 7, 11),
    (r#"{"kind":"recurrent","cell":"gru","vocabulary":60,"embedding":30,"hidden":40}"#, 3, 60),
    (r#"{"kind":"recurrent","cell":"gru","vocabulary":5,"embedding":2,"hidden":3}"#, 1, 5),
    (r#"{"kind":"recurrent","cell":"lstm","vocabulary":11,"embedding":4,"hidden":6}"#, 7, 11),
    (r#"{"kind":"recurrent","cell":"lstm","vocabulary":60,"embedding":30,"hidden":40}"#, 3, 60),
];

fn norm(gradient: &[f64]) -> f64 {
    gradient.iter().map(|g| g * g).sum::<f64>().sqrt()
}

/// Each row's gradient, by itself.
fn one_by_one(model: &Model, weights: &[f64], view: &View) -> Vec<Vec<f64>> {
    let (mut batch, mut scratch) = (Batch::new(model, 1), Scratch::new(model, 1));
    let of = |row: &u32| {
        let mut one = vec![0.0; weights.len()];
        batch.fill(view, &[*row]).unwrap();
        gradient(model, weights, &batch, &mut scratch, &mut one);
        one
    };
    view.rows().iter().map(of).collect()
}

#[test]
fn the_sum_is_that_of_clipped_gradients() {
    for &(spec, width, outputs) in MODELS {
        let (model, view) = model_and_view(spec, width, outputs);
        let weights = weights(&model);
        let each = one_by_one(&model, &weights, &view);
        let norms: Vec<f64> = each.iter().map(|one| norm(one)).collect();
        let mut batch = Batch::<f64>::new(&model, view.len() + 1);
        let mut scratch = Scratch::new(&model, view.len() + 1);
        let mut clipping = Clipping::new(&model, view.len() + 1).unwrap();
        batch.fill(&view, view.rows()).unwrap();
        let mut sorted = norms.clone();
        sorted.sort_by(f64::total_cmp);
        // All clipped, some, none.
        for bound in [sorted[0] / 3.0, sorted[2] * 1.01, sorted[4] * 2.0] {
            let mut sum = vec![f64::NAN; weights.len()];
            let clip = Clip { bound, counted: view.len() };
            let found =
                clipped_gradient(&model, &weights, &batch, &mut scratch, &mut clipping, clip, &mut sum).unwrap();
            assert_eq!(found.clipped, norms.iter().filter(|norm| **norm > bound).count(), "{spec} {bound}");
            for (found, norm) in clipping.norms().zip(&norms) {
                assert!((found / norm - 1.0).abs() < 1e-12, "{spec}: {found} {norm}");
            }
            for (at, sum) in sum.iter().enumerate() {
                let scaled = |(one, norm): (&Vec<f64>, &f64)| one[at] * (bound / norm).min(1.0);
                let expected: f64 = each.iter().zip(&norms).map(scaled).sum();
                // What keeps vectors inside the bound: 2^-12 and a little, of terms of which less than nine tenths cancel.
                assert!((sum - expected).abs() < 5.0 * bound * 2.5e-3, "{spec} {bound}: {at} is {sum}, not {expected}");
            }
        }
        // Far from the bound nothing but the order of sums differs.
        let mut sum = vec![0.0; weights.len()];
        let clip = Clip { bound: 1e9, counted: view.len() - 1 };
        clipped_gradient(&model, &weights, &batch, &mut scratch, &mut clipping, clip, &mut sum).unwrap();
        for (at, sum) in sum.iter().enumerate() {
            let expected: f64 = each[..view.len() - 1].iter().map(|one| one[at]).sum();
            assert!((sum - expected).abs() < 1e-12, "{spec}: {at} is {sum}, not {expected}");
        }
    }
}

#[test]
fn in_f32_no_example_passes_the_bound() {
    for &(spec, width, outputs) in MODELS {
        let (model, view) = model_and_view(spec, width, outputs);
        let weights: Vec<f32> = weights(&model).into_iter().map(|w| w as f32).collect();
        let (mut batch, mut scratch) = (Batch::<f32>::new(&model, 16), Scratch::new(&model, 16));
        let mut clipping = Clipping::new(&model, 16).unwrap();
        let mut sum = vec![0f64; weights.len()];
        for bound in [1e-6, 0.01, 1.0 / 3.0, 0.9, 7.7] {
            for &row in view.rows() {
                // Alone, and beside others that do not count.
                for rows in [vec![row], [row, 0, 1, 2, 3, 4].repeat(3)[..16].to_vec()] {
                    batch.fill(&view, &rows).unwrap();
                    let clip = Clip { bound, counted: 1 };
                    clipped_gradient(&model, &weights, &batch, &mut scratch, &mut clipping, clip, &mut sum).unwrap();
                    let length = norm(&sum);
                    assert!(length <= bound, "{spec}: {length} is above {bound}");
                    let before = clipping.norms().next().unwrap();
                    // As above.
                    assert!(length > bound.min(before) * (1.0 - 2.5e-3), "{spec}: {length}, {before} before, {bound}");
                }
            }
        }
    }
}

/// In a batch of one size a row's gradient has the same bits wherever it stands, whoever stands beside it: that is what keeps
/// one example from changing what another adds.
#[test]
fn rows_do_not_touch_each_other() {
    if Clipping::block() == 1 {
        return eprintln!("not checked: this processor's products promise no order, so rows are alone");
    }
    // The last convolution takes fewer images at once than a batch has, and few pixels.
    let more = (r#"{"kind":"cnn","image":[3,3,200],"channels":[9],"kernel":3,"pool":1}"#, 1800, 3);
    for &(spec, width, outputs) in MODELS.iter().chain([&more]) {
        let (model, view) = model_and_view(spec, width, outputs);
        let weights: Vec<f32> = weights(&model).into_iter().map(|w| w as f32).collect();
        let (mut batch, mut scratch) = (Batch::<f32>::new(&model, 16), Scratch::new(&model, 16));
        let mut clipping = Clipping::new(&model, 16).unwrap();
        let mut sum = vec![0f64; weights.len()];
        let mut norms: Vec<Vec<u64>> = vec![Vec::new(); 5];
        for shift in 0..5 {
            let rows: Vec<u32> = (0..16).map(|place| (place * place + shift) % 5).collect();
            batch.fill(&view, &rows).unwrap();
            let clip = Clip { bound: 0.1, counted: 16 };
            clipped_gradient(&model, &weights, &batch, &mut scratch, &mut clipping, clip, &mut sum).unwrap();
            for (row, norm) in rows.iter().zip(clipping.norms()) {
                norms[*row as usize].push(norm.to_bits());
            }
        }
        for norms in norms {
            assert!(norms.len() > 3 && norms.iter().all(|norm| *norm == norms[0]), "{spec}: {norms:?}");
        }
    }
}

#[test]
fn what_has_no_gradient_of_its_own_is_refused_by_name() {
    let spec = r#"{"kind":"cnn","image":[6,5,2],"channels":[4],"kernel":3,"pool":2,"norm":"batch"}"#;
    let (model, _) = model_and_view(spec, 60, 3);
    let refused = Clipping::<f32>::new(&model, 4).unwrap_err();
    assert_eq!(refused.layer, "norm1");
}

#[test]
fn a_gradient_that_is_not_finite_is_named() {
    let (model, view) = model_and_view(r#"{"kind":"mlp","hidden":[],"loss":"mse"}"#, 6, 1);
    let (mut batch, mut scratch) = (Batch::<f32>::new(&model, 5), Scratch::new(&model, 5));
    let mut clipping = Clipping::new(&model, 5).unwrap();
    batch.fill(&view, view.rows()).unwrap();
    let weights = vec![f32::MAX; model.layout().len()];
    let mut sum = vec![0.0; weights.len()];
    let clip = Clip { bound: 1.0, counted: 5 };
    let result = clipped_gradient(&model, &weights, &batch, &mut scratch, &mut clipping, clip, &mut sum);
    assert!(result.unwrap_err().row < 5);
    batch.fill(&view, &[]).unwrap();
    sum.fill(f64::INFINITY);
    clipped_gradient(&model, &weights, &batch, &mut scratch, &mut clipping, clip, &mut sum).unwrap();
    assert!(sum.iter().all(|g| *g == 0.0));
}

/// What was measured is scaled as if all that f32 may have got wrong had been in its favour: terms that cancel show it.
#[test]
fn what_cancels_is_clipped_by_what_it_was_made_of() {
    // Images whose halves are opposite.
    let (model, _) = model_and_view(r#"{"kind":"cnn","image":[16,16,1],"channels":[4],"kernel":3,"pool":1}"#, 256, 3);
    let noise = |i: usize| ((i * 2654435761 + 12345) % 1009) as f32 / 504.5 - 1.0;
    let values = (0..256).map(|i| if i < 128 { noise(i) } else { -noise(i - 128) }).collect();
    let labels = Labels::Classes { ids: vec![1], classes: 3 };
    let view = View::all(Examples::new(Features::F32 { width: 256, values }, labels).unwrap().into());
    let wide = weights(&model);
    let narrow: Vec<f32> = wide.iter().map(|w| *w as f32).collect();
    let exact = norm(&one_by_one(&model, &wide, &view)[0]);
    let (mut batch, mut scratch) = (Batch::<f32>::new(&model, 1), Scratch::new(&model, 1));
    let mut clipping = Clipping::new(&model, 1).unwrap();
    assert_eq!(clipping.terms(), 256);
    batch.fill(&view, view.rows()).unwrap();
    let mut sum = vec![0.0; wide.len()];
    // A hair above the norm: f32 cannot know, so it is clipped.
    let clip = Clip { bound: exact * (1.0 + 1e-6), counted: 1 };
    clipped_gradient(&model, &narrow, &batch, &mut scratch, &mut clipping, clip, &mut sum).unwrap();
    assert!(norm(&sum) < exact * (1.0 - 2f64.powi(-12)), "{} {exact}", norm(&sum));
}
