//! What clipping every example's gradient costs: `cargo run --release -p littoral-model --example clipping`.
//!
//! Per batch: the plain gradient, the sum of clipped gradients, and the same sum one example at a time. One thread; each is
//! the fastest of many short runs; random data.

use littoral_model::{
    Batch, Clip, Clipping, Examples, Features, Labels, Model, ModelSpec, Scratch, View, clipped_gradient, gradient,
};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pixels: Vec<u8> = (0..784 * 64usize).map(|i| ((i * 2654435761) >> 7) as u8).collect();
    let features = Features::U8 { width: 784, values: pixels, scale: 1.0 / 255.0, offset: 0.0 };
    let labels = Labels::Classes { ids: (0..64).map(|row| row * 7 % 10).collect(), classes: 10 };
    let images = View::all(Examples::new(features, labels)?.into());
    let tokens = Features::Tokens { ids: (0..64 * 80 + 1).map(|i| (i * i % 65) as u16).collect(), window: 80 };
    let text = View::all(Examples::new(tokens, Labels::NextToken)?.into());
    for (spec, view, outputs) in [
        (r#"{"kind":"mlp","hidden":[200,200]}"#, &images, 10),
        (r#"{"kind":"cnn","image":[28,28,1],"channels":[16,32],"kernel":5,"pool":2,"norm":"group"}"#, &images, 10),
        (r#"{"kind":"recurrent","cell":"gru","vocabulary":65,"embedding":8,"hidden":128}"#, &text, 65),
        (r#"{"kind":"recurrent","cell":"lstm","vocabulary":65,"embedding":8,"hidden":128}"#, &text, 65),
    ] {
        let model = Model::build(&serde_json::from_str::<ModelSpec>(spec)?, view.examples().shape(), outputs)?;
        let weights = model.init(1);
        let (mut out, mut out_wide) = (vec![0f32; weights.len()], vec![0f64; weights.len()]);
        for rows in [16, 64] {
            let (mut batch, mut scratch) = (Batch::new(&model, rows), Scratch::new(&model, rows));
            let mut clipping = Clipping::new(&model, rows)?;
            let rows = &view.rows()[..rows];
            batch.fill(view, rows)?;
            let plain = fastest(|| {
                gradient(&model, &weights, &batch, &mut scratch, &mut out);
            });
            let clip = Clip { bound: 0.1, counted: rows.len() };
            let clipped = fastest(|| {
                clipped_gradient(&model, &weights, &batch, &mut scratch, &mut clipping, clip, &mut out_wide).unwrap();
            });
            let mut sum = vec![0f32; weights.len()];
            let alone = fastest(|| {
                for row in rows {
                    batch.fill(view, &[*row]).unwrap();
                    gradient(&model, &weights, &batch, &mut scratch, &mut out);
                    let norm = out.iter().map(|g| g * g).sum::<f32>().sqrt();
                    let factor = (0.1 / norm).min(1.0);
                    sum.iter_mut().zip(&out).for_each(|(sum, g)| *sum += factor * g);
                }
            });
            println!(
                "{} {} weights, {} rows: plain {:.0} us, clipped {:.0} us ({:.2} x), one by one {:.0} us ({:.2} x)",
                serde_json::from_str::<serde_json::Value>(spec)?["kind"],
                weights.len(),
                rows.len(),
                plain * 1e6,
                clipped * 1e6,
                clipped / plain,
                alone * 1e6,
                alone / plain
            );
        }
    }
    Ok(())
}

/// Seconds of the fastest of many short runs: what the processor does when nobody else has it.
fn fastest(mut run: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut seconds = f64::INFINITY;
    while begin.elapsed().as_secs_f64() < 0.4 {
        let start = Instant::now();
        run();
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    seconds
}
