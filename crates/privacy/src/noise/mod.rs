//! Noise on integers, drawn exactly from its law.
//!
//! A mechanism's proof speaks of a law on the integers; these samplers have that law and not one near it: parameters are
//! rational, everything is decided by integers, and no float takes part (Mironov 2012, "On significance of the least significant
//! bits for differential privacy", shows what floats give away). The generator is handed in and must be cryptographic,
//! such as ChaCha20; the law of what comes out is exact for a generator whose bits are uniform.
//!
//! [`DiscreteGaussian`], [`Skellam`] and [`DiscreteLaplace`] have the same three calls: `sample`, `fill`, `add_to`.
//! [`matrix`] correlates discrete Gaussian noise over rounds.
//! [`cks`] holds the published loops, which the fast samplers are tested against.
//!
//! Not protected: drawing does not take constant time, and random words are not wiped from memory.

mod bits;
mod cells;
pub mod cks;
mod discrete_gaussian;
mod discrete_laplace;
mod exp;
mod fixed;
pub mod matrix;
mod poisson;
mod ratio;
mod skellam;
#[cfg(test)]
mod tests;

pub use discrete_gaussian::DiscreteGaussian;
pub use discrete_laplace::DiscreteLaplace;
pub use ratio::{NoiseError, Ratio};
pub use skellam::Skellam;

/// The calls that all samplers share.
macro_rules! bulk {
    ($sampler:ty) => {
        impl $sampler {
            /// One draw.
            pub fn sample<R: CryptoRng>(&self, rng: &mut R) -> i64 {
                self.draw(&mut Bits::new(rng, 1))
            }

            /// Independent draws.
            pub fn fill<R: CryptoRng>(&self, out: &mut [i64], rng: &mut R) {
                let mut bits = Bits::new(rng, out.len());
                out.iter_mut().for_each(|x| *x = self.draw(&mut bits));
            }

            /// Adds an independent draw to each; wraps around at 64 bits, as a sum modulo a power of two may.
            pub fn add_to<R: CryptoRng>(&self, values: &mut [i64], rng: &mut R) {
                let mut bits = Bits::new(rng, values.len());
                values.iter_mut().for_each(|x| *x = x.wrapping_add(self.draw(&mut bits)));
            }
        }
    };
}
use bulk;
