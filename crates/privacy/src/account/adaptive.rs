//! Adaptive clipping: how the noise is split between the update and the clip bit.
//!
//! Andrew, Thakkar, McMahan and Ramaswamy 2021, "Differentially private learning with adaptive clipping" (arXiv:1905.03871),
//! theorem 1: a vector with noise multiplier z_Δ and a count of bits, each shifted to ±1/2, with noise σ_b, are together one
//! Gaussian of multiplier z if z_Δ = (z^-2 - (2 σ_b)^-2)^(-1/2).

use super::AccountError;

/// z_Δ for the update, so that update and bit together have the noise multiplier `z`. `bit_sigma` is the standard deviation on
/// the sum of the bits; the paper's choice is a twentieth of the cohort.
pub fn split_noise(z: f64, bit_sigma: f64) -> Result<f64, AccountError> {
    if !(z > 0.0 && z.is_finite()) {
        return Err(AccountError::Range { what: "the noise multiplier", expected: "a finite number above 0", got: z });
    }
    let rest = z.powi(-2) - (2.0 * bit_sigma).powi(-2);
    let good = bit_sigma > 0.0 && rest > 0.0;
    if good {
        Ok(rest.sqrt().recip())
    } else {
        let expected = "a noise on the bits that is more than half the noise multiplier";
        Err(AccountError::Range { what: "the clip bits", expected, got: bit_sigma })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_split_comes_out() {
        // σ_b = 0.05 m as TensorFlow Federated has it, for cohorts of m and multipliers z.
        for (m, z, wanted) in [(100.0, 1.0, 1.005_037_815), (20.0, 1.0, 1.154_700_538), (100.0, 0.5, 0.500_626_174)] {
            let found = split_noise(z, 0.05 * m).unwrap();
            assert!((found - wanted).abs() < 1e-9, "{m} {z}: {found}");
        }
        assert!(split_noise(2.0, 1.0).is_err() && split_noise(2.1, 1.0).is_err() && split_noise(1.0, 0.0).is_err());
    }
}
