//! Compression: each mechanism's property as its paper states it, and what an edge makes of coded bytes.

mod alternating;
mod codecs;
mod downlink;
mod edge;
mod feedback;
mod linear;
mod same_bits;

use littoral_fed::compress::random::{Draws, Seed, derive};
use littoral_fed::compress::{Codec, decoded};

fn seed(number: u64) -> Seed {
    derive(&[5; 32], "tests", number)
}

/// Values of very different size, of both signs, some of them zero.
fn uneven(len: usize, number: u64) -> Vec<f32> {
    let mut draws = Draws::new(&seed(number));
    let value = |draws: &mut Draws| {
        let (unit, size) = (draws.word() as i32 as f32 * 2f32.powi(-31), draws.word() % 12);
        if draws.word().is_multiple_of(10) { 0.0 } else { unit * 0.5f32.powi(size as i32) }
    };
    (0..len).map(|_| value(&mut draws)).collect()
}

fn square(x: &[f32]) -> f64 {
    x.iter().map(|&v| f64::from(v).powi(2)).sum()
}

fn difference(a: &[f32], b: &[f32]) -> Vec<f32> {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// There and back.
fn through(codec: &dyn Codec, x: &[f32], seed: &Seed) -> Vec<f32> {
    let mut bytes = Vec::new();
    codec.encode(x, seed, &mut bytes).unwrap();
    assert!(bytes.len() <= codec.bytes_max(x.len()), "{}: {} bytes of {}", codec.name(), bytes.len(), x.len());
    decoded(codec, x.len(), &bytes).unwrap()
}

/// Mean over `count` seeds of an estimate of x, and of its squared error over ‖x‖².
fn over_seeds(x: &[f32], count: u64, mut estimate: impl FnMut(&Seed) -> Vec<f32>) -> (Vec<f64>, f64) {
    let (mut mean, mut error) = (vec![0.0; x.len()], 0.0);
    for number in 0..count {
        let told = estimate(&seed(1000 + number));
        mean.iter_mut().zip(&told).for_each(|(m, &v)| *m += f64::from(v) / count as f64);
        error += square(&difference(&told, x)) / count as f64;
    }
    (mean, error / square(x))
}

/// ‖mean − x‖² / ‖x‖².
fn bias(mean: &[f64], x: &[f32]) -> f64 {
    mean.iter().zip(x).map(|(m, &v)| (m - f64::from(v)).powi(2)).sum::<f64>() / square(x)
}

/// An unbiased estimate's mean over n seeds has an error of `nmse` / n in expectation, and n · error / nmse is near to 1 when
/// many coordinates are summed. Twice that leaves room for chance (errors of coordinates in one block hang together); a bias
/// of a tenth of the vector would be n / 100 times as much.
fn unbiased(name: &str, x: &[f32], count: u64, estimate: impl FnMut(&Seed) -> Vec<f32>) -> f64 {
    let (mean, nmse) = over_seeds(x, count, estimate);
    let bias = bias(&mean, x);
    assert!(bias <= 2.0 * nmse / count as f64 + 1e-12, "{name}: bias {bias}, nmse {nmse}");
    nmse
}
