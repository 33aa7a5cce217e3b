//! How long a sample takes, and what comes before it, on one core.
//!
//!     cargo run -p littoral-privacy --example noise

use littoral_privacy::noise::{DiscreteGaussian, DiscreteLaplace, Ratio, Skellam, cks};
use littoral_privacy::rotate::Rotation;
use littoral_privacy::round::Rounding;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::time::Instant;

const SAMPLES: usize = 1_000_000;

fn main() {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let mut out = vec![0i64; SAMPLES];
    let mut words = vec![0u8; 8 * SAMPLES];
    let report = |name: &str, sigma: f64, took: std::time::Duration| {
        println!("{name:24} sigma {sigma:>9} {:8.1} ns/sample", took.as_secs_f64() * 1e9 / SAMPLES as f64);
    };
    let start = Instant::now();
    rng.fill_bytes(&mut words);
    report("one random word", 0.0, start.elapsed());
    for sigma in [0.5, 1.0, 3.0, 10.0, 30.0, 100.0, 1e3, 1e4, 1e5, 1e6] {
        let variance = Ratio::at_least(sigma * sigma).unwrap();
        let start = Instant::now();
        DiscreteGaussian::new(variance).unwrap().fill(&mut out, &mut rng);
        report("discrete Gaussian", sigma, start.elapsed());
        let start = Instant::now();
        Skellam::new(variance).unwrap().fill(&mut out, &mut rng);
        report("Skellam", sigma, start.elapsed());
        let start = Instant::now();
        DiscreteLaplace::new(Ratio::at_least(sigma / std::f64::consts::SQRT_2).unwrap())
            .unwrap()
            .fill(&mut out, &mut rng);
        report("discrete Laplace", sigma, start.elapsed());
    }
    let start = Instant::now();
    out.iter_mut().for_each(|x| *x = cks::discrete_gaussian(10_000, 1, &mut rng));
    report("the paper's loops", 100.0, start.elapsed());
    let mut x: Vec<f32> = (0..SAMPLES).map(|i| (i as f32 * 0.37).sin() / 1000.0).collect();
    let rotation = Rotation::new(SAMPLES, &mut rng);
    let start = Instant::now();
    (0..50).for_each(|_| rotation.forward(&mut x));
    println!("rotation {:.2} GB/s", 50.0 * 4.0 * SAMPLES as f64 / start.elapsed().as_secs_f64() / 1e9);
    let rounding = Rounding { scale: 1000.0, clip: 1.0, beta: 0.6 };
    let start = Instant::now();
    rounding.round(&x, &mut out, &mut rng).unwrap();
    report("rounding", 0.0, start.elapsed());
}
