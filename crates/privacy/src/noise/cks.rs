//! The samplers as Canonne, Kamath and Steinke 2020 (arXiv:2004.00010) give them: algorithms 1 (Bernoulli(exp(-γ))), 2
//! (discrete Laplace) and 3 (discrete Gaussian), with rational parameters and integers only.
//!
//! Some ten times slower than [`cells`](super::cells): they are the specification that the fast samplers are tested against, and
//! take any generator as they are.

use super::bits::Bits;
use rand_core::CryptoRng;

/// True with probability exp(-a / b); b < 2^80, a < 2^96. Algorithm 1.
pub fn bernoulli_exp<R: CryptoRng>(a: u128, b: u128, rng: &mut R) -> bool {
    exp_coin(a, b, &mut Bits::new(rng, 1))
}

fn exp_coin<R: CryptoRng>(a: u128, b: u128, bits: &mut Bits<'_, R>) -> bool {
    // exp(-γ) = exp(-1)^⌊γ⌋ exp(-(γ - ⌊γ⌋)).
    (0..a / b).all(|_| small_exp_coin(1, 1, bits)) && small_exp_coin(a % b, b, bits)
}

/// γ = a / b ≤ 1: the number of successes in coins of bias γ / 1, γ / 2, γ / 3, … is even with probability exp(-γ).
fn small_exp_coin<R: CryptoRng>(a: u128, b: u128, bits: &mut Bits<'_, R>) -> bool {
    let mut k = 1;
    while bits.coin(a, b * k) {
        k += 1;
    }
    k % 2 == 1
}

/// The discrete Laplace law with scale t / s. Algorithm 2.
pub fn discrete_laplace<R: CryptoRng>(t: u64, s: u64, rng: &mut R) -> i64 {
    laplace(t, s, &mut Bits::new(rng, 1))
}

fn laplace<R: CryptoRng>(t: u64, s: u64, bits: &mut Bits<'_, R>) -> i64 {
    loop {
        let u = bits.below(t);
        if !small_exp_coin(u.into(), t.into(), bits) {
            continue;
        }
        let mut v = 0u64;
        while small_exp_coin(1, 1, bits) {
            v += 1;
        }
        let magnitude = ((u + t * v) / s) as i64;
        let negative = bits.word() & 1 == 1;
        if !(negative && magnitude == 0) {
            return if negative { -magnitude } else { magnitude };
        }
    }
}

/// N_ℤ(0, n / d), for σ² = n / d with n d σ² below 2^36 or so (its squares are kept in 128 bits). Algorithm 3.
pub fn discrete_gaussian<R: CryptoRng>(n: u64, d: u64, rng: &mut R) -> i64 {
    let bits = &mut Bits::new(rng, 4);
    let t = (n / d).isqrt() + 1;
    loop {
        let y = laplace(t, 1, bits);
        // (|y| - σ²/t)² / 2σ² = (|y| t d - n)² / (2 n d t²).
        let distance = (u128::from(y.unsigned_abs()) * u128::from(t) * u128::from(d)).abs_diff(n.into());
        let below = 2 * u128::from(n) * u128::from(d) * u128::from(t) * u128::from(t);
        if exp_coin(distance * distance, below, bits) {
            return y;
        }
    }
}
