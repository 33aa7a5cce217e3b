//! Probabilities before they are divided by their sum: weights, and their exact sums.
//!
//! A token's weight is e^((logit - highest) / temperature), between 0 and 1. Its *mass* is the weight as an integer
//! number of 2^-40. Sums of masses are exact, so they are the same in any order and at any vector width. What a mass
//! loses by rounding is at most 2^-41: over 262 144 tokens 1.2e-7 of the most probable token's weight.

use littoral_tensor::exp;

/// The mass of a weight of 1.
pub(super) const ONE: u64 = 1 << 40;

/// `weight` is in 0..=1. Rounds to nearest, halves to even.
#[inline(always)]
pub(super) fn mass(weight: f32) -> u64 {
    // In 2^12..2^13 the unit of an f64's last place is 2^-40: the addition rounds, and the integer is in the mantissa.
    (f64::from(weight) + 4096.0).to_bits().wrapping_sub(4096f64.to_bits())
}

/// The logarithm of a weight: at most 0. Division rather than multiplication by the inverse, which may overflow.
#[inline(always)]
pub(super) fn log_weight(logit: f32, highest: f32, temperature: f32) -> f32 {
    (logit - highest) / temperature
}

#[inline(always)]
pub(super) fn weight(log_weight: f32) -> f32 {
    let weight = exp(log_weight);
    // NaN has no weight.
    if weight > 0.0 { weight } else { 0.0 }
}

/// The weights of all logits, and the sum of their masses.
pub(super) fn weigh(logits: &[f32], highest: f32, temperature: f32, weights: &mut Vec<f32>) -> u64 {
    weights.resize(logits.len(), 0.0);
    let mut total = 0;
    for (out, &logit) in weights.iter_mut().zip(logits) {
        *out = weight(log_weight(logit, highest, temperature));
        total = u64::wrapping_add(total, mass(*out));
    }
    total
}

/// The sum of the masses of all logits at temperature 1.
pub(super) fn total_mass(logits: &[f32], highest: f32) -> u64 {
    logits.iter().fold(0, |total, &logit| u64::wrapping_add(total, mass(weight(logit - highest))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mass_rounds_to_nearest() {
        assert_eq!(mass(0.0), 0);
        assert_eq!(mass(1.0), ONE);
        assert_eq!(mass(0.5), ONE / 2);
        assert_eq!(mass(2f32.powi(-40)), 1);
        assert_eq!(mass(2f32.powi(-40) * 1.75), 2);
        assert_eq!(mass(2f32.powi(-42)), 0);
    }

    #[test]
    fn the_least_temperature_leaves_only_the_highest() {
        let mut weights = Vec::new();
        let logits = [1.0, 3.0, f32::NAN, 3.0, f32::NEG_INFINITY, -3e38];
        assert_eq!(weigh(&logits, 3.0, f32::from_bits(1), &mut weights), 2 * ONE);
        assert_eq!(weights, [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    }
}
