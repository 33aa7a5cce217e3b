//! A device's rows in the histograms of a job that watches for distribution shift.
//!
//! Inputs that are numbers are projected onto a few random directions, the same on all devices: what moves moves most projections.
//! Bins are the eighths of a normal distribution, which is what projections of standardised columns are close to. An image is
//! brought to mean 0 and deviation 1 by itself; how bright it was is a histogram of its own.

use crate::job::drift::{BINS, Counts, NUMBER_BINS, PROJECTIONS, Sketched};
use littoral_fed::drift::Sketch;
use littoral_model::{Features, Labels, Standardise, View};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// Upper ends of all but the last eighth of a normal distribution, above its middle: quantiles 5/8, 6/8 and 7/8.
const EIGHTHS: [f64; 3] = [0.318_639_363_964_375, 0.674_489_750_196_082, 1.150_349_380_376_008];

/// Of the rows of a view that is as the model sees it. `seed`: the job's, which decides on the directions.
pub(super) fn sketch(sketched: &Sketched, view: &View, seed: u64) -> Sketch {
    let mut counts = Vec::with_capacity(sketched.layout.bins());
    let image = sketched.counts.contains(&Counts::Brightness);
    let mut inputs = Inputs::new(view, seed, image);
    let classes = sketched.layout.bins_of(0);
    let mut labels = vec![0; classes];
    let mut others = vec![[0; BINS]; sketched.counts.len() - 1];
    for &row in view.rows() {
        count_labels(view, row as usize, &mut labels);
        if others.is_empty() {
            continue;
        }
        let (brightness, projections) = inputs.of(view, row as usize);
        for (counted, bins) in sketched.counts[1..].iter().zip(&mut others) {
            let bin = match counted {
                Counts::Brightness => (brightness * BINS as f64).clamp(0.0, (BINS - 1) as f64) as usize,
                Counts::Projection(at) => eighth(projections[usize::from(*at)]),
                Counts::Classes | Counts::Numbers => continue,
            };
            bins[bin] += 1;
        }
    }
    counts.extend(labels);
    counts.extend(others.into_iter().flatten());
    Sketch::of(&sketched.layout, &counts)
}

fn count_labels(view: &View, row: usize, bins: &mut [u64]) {
    let examples = view.examples();
    match (examples.labels(), examples.features()) {
        (Labels::Classes { ids, .. }, _) => bins[ids[row] as usize % bins.len()] += 1,
        (Labels::Values { width, values }, _) => {
            for value in &values[row * width..(row + 1) * width] {
                bins[number_bin(f64::from(*value)).min(bins.len() - 1)] += 1;
            }
        }
        (Labels::NextToken, Features::Tokens { ids, window }) => {
            // A row's labels are its tokens one place later.
            for id in &ids[row * window + 1..(row + 1) * window + 1] {
                bins[usize::from(*id) % bins.len()] += 1;
            }
        }
        (Labels::NextToken, _) => {}
    }
}

/// Eight bins for each sign: below 1/16, below 1/4 and so on, up to 256 and beyond.
fn number_bin(value: f64) -> usize {
    let half = NUMBER_BINS / 2;
    let mut size = 0;
    let mut end = 1.0 / 16.0;
    while size < half - 1 && value.abs() >= end {
        size += 1;
        end *= 4.0;
    }
    if value < 0.0 { half - 1 - size } else { half + size }
}

fn eighth(value: f64) -> usize {
    let above = EIGHTHS.iter().filter(|end| value.abs() >= **end).count();
    if value < 0.0 { BINS / 2 - 1 - above } else { BINS / 2 + above }
}

/// A row's inputs as numbers, and where they point.
struct Inputs {
    row: Vec<f64>,
    /// ± 1 per input and projection.
    directions: Vec<[f64; PROJECTIONS]>,
    image: bool,
}

impl Inputs {
    fn new(view: &View, seed: u64, image: bool) -> Self {
        let width = match view.examples().features() {
            Features::F32 { width, .. } | Features::U8 { width, .. } => *width,
            Features::Tokens { .. } => 0,
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"littoral/projections\0");
        hasher.update(&seed.to_le_bytes());
        let mut generator = ChaCha20Rng::from_seed(*hasher.finalize().as_bytes());
        let directions = (0..width).map(|_| {
            let bits = generator.next_u32();
            std::array::from_fn(|at| if bits >> at & 1 == 1 { 1.0 } else { -1.0 })
        });
        Self { row: Vec::with_capacity(width), directions: directions.collect(), image }
    }

    /// Mean of the inputs, and their projections.
    fn of(&mut self, view: &View, row: usize) -> (f64, [f64; PROJECTIONS]) {
        self.read(view, row);
        let width = self.row.len().max(1) as f64;
        let mean = self.row.iter().sum::<f64>() / width;
        let mut scale = 1.0 / width.sqrt();
        let mut centre = 0.0;
        if self.image {
            let variance = self.row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width;
            centre = mean;
            scale = if variance > 0.0 { scale / variance.sqrt() } else { 0.0 };
        }
        let mut projections = [0.0; PROJECTIONS];
        for (x, direction) in self.row.iter().zip(&self.directions) {
            let x = (x - centre) * scale;
            projections.iter_mut().zip(direction).for_each(|(sum, sign)| *sum += x * sign);
        }
        (mean, projections)
    }

    fn read(&mut self, view: &View, row: usize) {
        self.row.clear();
        match view.examples().features() {
            Features::F32 { width, values } => {
                self.row.extend(values[row * width..(row + 1) * width].iter().map(|x| f64::from(*x)));
            }
            Features::U8 { width, values, scale, offset } => {
                let bytes = values[row * width..(row + 1) * width].iter();
                self.row.extend(bytes.map(|x| f64::from(f32::from(*x) * scale + offset)));
            }
            Features::Tokens { .. } => {}
        }
        if let Some(standardise) = view.standardise() {
            let columns = Standardise::mean(standardise).iter().zip(standardise.inv_std());
            self.row.iter_mut().zip(columns).for_each(|(x, (mean, inv_std))| {
                *x = (*x - f64::from(*mean)) * f64::from(*inv_std);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_model::Examples;
    use std::sync::Arc;

    #[test]
    fn numbers_are_binned_by_sign_and_size() {
        let bins = [-1e9, -1.0, -0.01, 0.0, 0.01, 0.0625, 1.0, 255.0, 256.0, 1e30].map(number_bin);
        assert_eq!(bins, [0, 4, 7, 8, 8, 9, 11, 14, 15, 15]);
    }

    /// Quantiles of a normal distribution: each bin has an eighth of it.
    #[test]
    fn eighths_are_eighths() {
        let bins = [-9.0, -1.151, -1.150, -0.1, 0.0, 0.31, 0.32, 1.2].map(eighth);
        assert_eq!(bins, [0, 0, 1, 3, 4, 4, 5, 7]);
    }

    /// An image that is brighter, or has more contrast, has the same projections; only its brightness is another.
    #[test]
    fn brightness_is_a_histogram_of_its_own() {
        let values: Vec<u8> = (0..32u32).map(|i| (i * 37 % 100) as u8).collect();
        let view = |offset| {
            let features = Features::U8 { width: 16, values: values.clone(), scale: 1.0 / 255.0, offset };
            let labels = Labels::Classes { ids: vec![0, 1], classes: 2 };
            View::all(Arc::new(Examples::new(features, labels).unwrap()))
        };
        let (dark, bright) = (view(0.0), view(0.4));
        let of = |view: &View| Inputs::new(view, 7, true).of(view, 1);
        let (of_dark, of_bright) = (of(&dark), of(&bright));
        assert!((of_bright.0 - of_dark.0 - 0.4).abs() < 1e-6);
        for (a, b) in of_dark.1.iter().zip(of_bright.1) {
            // Pixels are rounded to floats before they are scaled back by a deviation of 0.1.
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}
