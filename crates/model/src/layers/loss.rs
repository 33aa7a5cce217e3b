//! What training makes small.

use littoral_tensor::Real;

/// Counts over some rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub loss_sum: f64,
    /// Rows whose largest output is the right class.
    pub correct: u64,
}

/// Softmax and cross-entropy: per row `ln(sum exp(z)) - z[class]`.
///
/// `derivative`, if asked for, becomes that of the mean over the rows: `(softmax(z) - one_hot(class)) / rows`.
pub(crate) fn cross_entropy<T: Real>(
    outputs: &[T],
    width: usize,
    classes: &[u32],
    mut derivative: Option<&mut [T]>,
) -> Tally {
    let scale = T::ONE / T::from_f64(classes.len() as f64);
    let mut tally = Tally::default();
    for (row, (z, &class)) in outputs.chunks_exact(width).zip(classes).enumerate() {
        let class = class as usize;
        let mut largest = 0;
        for (j, value) in z.iter().enumerate() {
            if *value > z[largest] {
                largest = j;
            }
        }
        let peak = z[largest];
        tally.correct += u64::from(largest == class);
        let mut sum = T::ZERO;
        if let Some(derivative) = derivative.as_deref_mut() {
            let d = &mut derivative[row * width..(row + 1) * width];
            for (d, z) in d.iter_mut().zip(z) {
                *d = (*z - peak).exp();
            }
            for d in d.iter() {
                sum += *d;
            }
            let factor = scale / sum;
            for d in d.iter_mut() {
                *d *= factor;
            }
            d[class] -= scale;
        } else {
            for z in z {
                sum += (*z - peak).exp();
            }
        }
        tally.loss_sum += (sum.ln() - (z[class] - peak)).to_f64();
    }
    tally
}

/// Per row the mean of `(y - target)^2` over the outputs.
///
/// `derivative`, if asked for, becomes that of the mean over the rows.
pub(crate) fn mean_squared_error<T: Real>(
    outputs: &[T],
    width: usize,
    targets: &[T],
    mut derivative: Option<&mut [T]>,
) -> Tally {
    let scale = T::from_f64(2.0 / outputs.len() as f64);
    let mut sum = 0.0;
    for (i, (y, target)) in outputs.iter().zip(targets).enumerate() {
        let difference = *y - *target;
        sum += (difference * difference).to_f64();
        if let Some(derivative) = derivative.as_deref_mut() {
            derivative[i] = scale * difference;
        }
    }
    Tally { loss_sum: sum / width as f64, correct: 0 }
}
