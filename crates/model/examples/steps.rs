//! How fast a step of training is: `cargo run --release -p littoral-model --example steps`.
//!
//! Prints steps per second of plain gradient descent, one thread, batch 10, for the two models that peers are
//! measured with, the GFLOP/s this means, and what the matrix product alone reaches at its best shape. Each is the
//! fastest of many short runs, so that neighbours on the machine hardly show; random data.

use littoral_model::{Batch, Descent, Examples, Features, Labels, Model, ModelSpec, Scratch, View, Worker, descend};
use littoral_tensor::{Matrix, gemm};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (what, rows, inner, columns) in [
        ("square", 1024, 1024, 1024),
        ("linear, forward", 10, 784, 200),
        ("linear, update", 784, 10, 200),
        ("linear, evaluation", 256, 784, 200),
        ("convolution, forward", 196, 800, 64),
        ("convolution, update", 800, 196, 64),
    ] {
        println!(
            "gemm {what}, {rows} x {inner} x {columns}: {:.0} GFLOP/s",
            product_gflop_s(rows, inner, columns, false)
        );
    }
    for (what, rows, inner, columns) in [("linear, back", 10, 200, 200), ("convolution, back", 196, 64, 800)] {
        println!(
            "gemm {what}, {rows} x {inner} x {columns} turned: {:.0} GFLOP/s",
            product_gflop_s(rows, inner, columns, true)
        );
    }
    let pixels: Vec<u8> = (0..784 * 2000usize).map(|i| ((i * 2654435761) >> 7) as u8).collect();
    let features = Features::U8 { width: 784, values: pixels, scale: 1.0 / 255.0, offset: 0.0 };
    let labels = Labels::Classes { ids: (0..2000).map(|row| row * 7 % 10).collect(), classes: 10 };
    let view = View::all(Examples::new(features, labels)?.into());
    let specs = [
        (
            "mlp 784-200-200-10",
            ModelSpec::Mlp {
                hidden: vec![200, 200],
                activation: Default::default(),
                loss: Default::default(),
                init: Default::default(),
            },
            4,
        ),
        (
            "cnn 32-64-512",
            ModelSpec::Cnn {
                image: [28, 28, 1],
                channels: vec![32, 64],
                kernel: 5,
                pool: 2,
                norm: Default::default(),
                hidden: 512,
                loss: Default::default(),
                init: Default::default(),
            },
            1,
        ),
    ];
    for (name, spec, steps) in specs {
        let model = Model::build(&spec, view.examples().shape(), 10)?;
        let mut weights = model.init(1);
        let (mut batch, mut scratch) = (Batch::new(&model, 10), Scratch::new(&model, 10));
        batch.fill(&view, &view.rows()[..10])?;
        let seconds = fastest(|| {
            for _ in 0..steps {
                descend(&model, &mut weights, &batch, &mut scratch, 0.01);
            }
        }) / f64::from(steps);
        let gflop = 10e-9 * model.train_flops() as f64;
        println!("{name}: {:.0} steps/s, {:.1} us, {:.0} GFLOP/s", 1.0 / seconds, seconds * 1e6, gflop / seconds);

        if model.layout().len() < 1_000_000 {
            // A client of the measured federation: its own copy of the weights, 60 rows, one epoch.
            let initial = model.init(1);
            let share = View::new(view.examples().clone().into(), (0..60).collect())?;
            let mut worker = Worker::new(&model, 10);
            let descent = Descent { epochs: 1, batch: 10, learning_rate: 0.05, seed: 3 };
            let seconds = fastest(|| {
                for _ in 0..1 {
                    weights.copy_from_slice(&initial);
                    worker.descend(&model, &mut weights, &share, &descent).unwrap();
                }
            });
            println!("  a client (copy, 6 steps): {:.0} us", seconds * 1e6);
        }
        let mut worker = Worker::new(&model, model.evaluation_rows());
        let seconds = fastest(|| {
            worker.evaluate(&model, &weights, &view).unwrap();
        });
        println!("  evaluation, {} rows at once: {:.1} us per row", model.evaluation_rows(), seconds * 1e6 / 2000.0);
    }
    Ok(())
}

fn product_gflop_s(rows: usize, inner: usize, columns: usize, turned: bool) -> f64 {
    let (a, b) = (vec![0.5f32; rows * inner], vec![0.25f32; inner * columns]);
    let mut c = vec![0.0; rows * columns];
    let flop = 2.0 * (rows * inner * columns) as f64;
    let repeats = (2e7 / flop).ceil() as usize;
    let seconds = fastest(|| {
        for _ in 0..repeats {
            let b = if turned { Matrix::new(&b, columns, inner).t() } else { Matrix::new(&b, inner, columns) };
            gemm(0.0, &mut c, 1.0, Matrix::new(&a, rows, inner), b);
        }
    });
    flop * repeats as f64 / seconds * 1e-9
}

/// Seconds of the fastest of many short runs: what the processor does when nobody else has it.
fn fastest(mut run: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut seconds = f64::INFINITY;
    while begin.elapsed().as_secs_f64() < 0.7 {
        let start = Instant::now();
        run();
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    seconds
}
