//! Probabilities before they are divided by their sum: weights, and their exact sums.
//!
//! A token's weight is e^((logit - highest) / temperature), between 0 and 1. Its *mass* is the weight as an integer
//! number of 2^-40. Sums of masses are exact, so they are the same in any order and at any vector width. What a mass
//! loses by rounding is at most 2^-41: over 262 144 tokens 1.2e-7 of the most probable token's weight.

use crate::elementary::exp_f32;
use crate::processor::for_this_processor;

/// The mass of a weight of 1.
pub const ONE: u64 = 1 << 40;

/// The mass of a weight in 0..=1, rounded to nearest, halves to even.
#[inline(always)]
pub fn mass(weight: f32) -> u64 {
    // In 2^12..2^13 the unit of an f64's last place is 2^-40: the addition rounds, and the integer is in the mantissa.
    (f64::from(weight) + 4096.0).to_bits().wrapping_sub(4096f64.to_bits())
}

/// The logarithm of a weight: at most 0. Division rather than multiplication by the inverse, which may overflow.
#[inline(always)]
pub fn log_weight(logit: f32, highest: f32, temperature: f32) -> f32 {
    (logit - highest) / temperature
}

/// A weight from its logarithm. NaN has no weight.
#[inline(always)]
pub fn weight(log_weight: f32) -> f32 {
    let weight = exp_f32(log_weight);
    if weight > 0.0 { weight } else { 0.0 }
}

for_this_processor! {
    /// Writes the weights of all logits and returns the sum of their masses. `highest` is the highest logit, finite; the
    /// temperature is above 0; both slices have one length, at most 2^23.
    pub fn weigh(logits: &[f32], highest: f32, temperature: f32, weights: &mut [f32]) -> u64 {
        assert_eq!(logits.len(), weights.len());
        let mut total = 0u64;
        for (out, &logit) in weights.iter_mut().zip(logits) {
            *out = weight(log_weight(logit, highest, temperature));
            // Wrapping only so that no check stands in the way of vector code.
            total = total.wrapping_add(mass(*out));
        }
        total
    }
}

for_this_processor! {
    /// The sum of the masses of all logits at temperature 1.
    pub fn total_mass(logits: &[f32], highest: f32) -> u64 {
        let mut total = 0u64;
        for &logit in logits {
            total = total.wrapping_add(mass(weight(logit - highest)));
        }
        total
    }
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
        let mut weights = [0.5; 6];
        let logits = [1.0, 3.0, f32::NAN, 3.0, f32::NEG_INFINITY, -3e38];
        assert_eq!(weigh(&logits, 3.0, f32::from_bits(1), &mut weights), 2 * ONE);
        assert_eq!(weights, [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let logits: Vec<f32> = (0..10_007).map(|i| ((i * 7919 % 10_009) as f32 - 9_000.0) * 0.011).collect();
        let (mut chosen, mut plain) = (vec![0.0; logits.len()], vec![0.0; logits.len()]);
        let total = super::weigh(&logits, 11.1, 0.7, &mut chosen);
        assert_eq!(total, super::weigh::plain(&logits, 11.1, 0.7, &mut plain));
        assert_eq!(chosen, plain);
        assert_eq!(total, chosen.iter().rev().map(|&w| mass(w)).sum(), "in any order");
        assert_eq!(super::total_mass(&logits, 11.1), super::total_mass::plain(&logits, 11.1));
    }
}
