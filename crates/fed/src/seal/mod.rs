//! What happens to an update before it may leave the device. The order is the privacy argument, so it is spelled by
//! the types; there is no other road, and only its last step makes a [`Sealed`]:
//!
//! ```text
//! Raw ─residual─▶ WithResidual ─clip─▶ Clipped ─transform─▶ Transformed ─round─▶ Rounded ─noise─▶ Noised ─pack─▶ Packed ─mask─▶ Masked
//!  └─────────────clip / unclipped──────▲ └─────────────round─────────────────────▲  └─────────pack──────────────▲  │               │seal
//!                                                                                                                └──────seal────▶ Sealed
//! ```
//!
//! From clipping on, a stage says in its type whether the L2 norm of the first section (the model's delta) has a proven
//! bound, [`L2`], or [`NoBound`]; each step hands on the bound that it leaves. What has none cannot be noised:
//!
//! ```compile_fail
//! # use littoral_fed::{plan::Plan, seal::Raw};
//! fn noise_without_a_bound(raw: Raw, plan: &Plan) -> f64 {
//!     raw.unclipped().round(plan).unwrap().l2_steps()
//! }
//! ```
//!
//! A map without a proven bound leaves none, and so does rounding by chance:
//!
//! ```compile_fail
//! # use littoral_fed::{compress::Linear, plan::Plan, seal::Raw};
//! fn noise_after_any_map(raw: Raw, linear: &dyn Linear, plan: &Plan) -> f64 {
//!     raw.clip(1.0).unwrap().transform(linear, &[0; 32]).unwrap().round(plan).unwrap().l2_steps()
//! }
//! ```
//! ```compile_fail
//! # use littoral_fed::{compress::Linear, plan::Plan, seal::Raw};
//! fn noise_after_chance(raw: Raw, linear: &dyn Linear, plan: &Plan) -> f64 {
//!     raw.clip(1.0).unwrap().transform_within(linear, &[0; 32]).unwrap().round_by_chance(plan, &[1; 32]).unwrap().l2_steps()
//! }
//! ```
//!
//! Nor can steps change places: what is rounded cannot be clipped, what is packed cannot be rounded again, and what is raw
//! cannot be sealed.
//!
//! ```compile_fail
//! # use littoral_fed::{plan::Plan, seal::Raw};
//! fn clipping_after_rounding(raw: Raw, plan: &Plan) {
//!     raw.unclipped().round(plan).unwrap().clip(1.0);
//! }
//! ```
//! ```compile_fail
//! # use littoral_fed::seal::{Raw, Sealed};
//! # use littoral_wire::Collection;
//! fn sealed_as_it_is(raw: Raw, collection: Collection) -> Sealed {
//!     raw.seal(collection)
//! }
//! ```
//! ```compile_fail
//! # use littoral_fed::{plan::Plan, seal::Raw};
//! fn a_residual_after_clipping(raw: Raw, residual: &[f32]) {
//!     raw.clip(1.0).unwrap().with_residual(residual);
//! }
//! ```
//! ```compile_fail
//! # use littoral_fed::seal::Sealed;
//! # use littoral_wire::Collection;
//! fn made_by_hand(collection: Collection) -> Sealed {
//!     Sealed { collection, bytes: vec![0; 8], manifest: Default::default() }
//! }
//! ```
//!
//! Coordinates are rounded and laid into the words that will leave in one pass; after that there are no floats, and
//! whoever wants to know what was sent reads it back from the very same bytes.
//!
//! A [`Coded`] update is a branch of its own: one that edges decode, without masks or noise.
//!
//! Read in this order: this file, `real` (steps on real numbers), `whole` (on integers), `bytes`, `coded`.

mod bytes;
mod coded;
mod real;
#[cfg(test)]
mod tests;
mod whole;

pub use bytes::{Masked, Packed, Sealed};
pub use coded::Coded;
pub use real::{Clipped, Transformed, WithResidual};
pub use whole::{Noised, Rounded, l2_after_rounding};

use crate::compress::CompressError;
use crate::plan::Plan;
use littoral_privacy::clip::ClipError;
use littoral_privacy::noise::NoiseError;
use littoral_privacy::round::RoundError;
use littoral_privacy::secagg::mask::RangeError;
use littoral_tensor::fixed::FixedError;
use thiserror::Error;

/// What an algorithm's device half has to tell, as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    /// Local training rows; the plan makes a weight of them.
    pub examples: u64,
    /// Mean training loss over this participation. Told if there are sections.
    pub loss: f32,
    /// Exact integers, as many as the plan says: the algorithm's, then those of whoever planned more.
    pub wholes: Vec<i128>,
    /// Real coordinates, one vector per section of the plan. The first is the model's delta.
    pub sections: Vec<Vec<f32>>,
}

/// The first section's L2 norm is at most this, in the section's units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct L2(f64);

/// Nothing is proven about the first section's norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoBound;

/// An update in integers, for those who remember what they sent.
pub trait Sent {
    /// The integers that a section sends, before the weight: what a device commits to its own state. A device without
    /// weight sends zeros. Panics past the last section.
    fn sent(&self, section: usize) -> Result<Vec<i32>, SealError>;
}

/// [`L2`] or [`NoBound`].
pub trait Bound: Copy + private::Only {
    /// The bound after a step that turns one of `b` into one of `step(b)`.
    fn after(self, step: impl FnOnce(f64) -> f64) -> Self;
}

mod private {
    pub trait Only {}
    impl Only for super::L2 {}
    impl Only for super::NoBound {}
}

impl Bound for L2 {
    fn after(self, step: impl FnOnce(f64) -> f64) -> Self {
        Self(step(self.0))
    }
}

impl Bound for NoBound {
    fn after(self, _: impl FnOnce(f64) -> f64) -> Self {
        self
    }
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum SealError {
    #[error("section `{section}`, coordinate {index}: {value} is not finite; the model or its data diverged")]
    NotFinite { section: &'static str, index: usize, value: f32 },
    #[error("the training loss is {value}, which is not finite; the model or its data diverged")]
    Loss { value: f32 },
    #[error("{what}: the plan expects {expected}, the update has {got}")]
    Shape { what: &'static str, expected: usize, got: usize },
    #[error("the noise was accounted for a norm of {expected} steps, the update may have {got}")]
    Unaccounted { expected: f64, got: f64 },
    #[error("{map} has no proven bound on the norm of what is sent, so no noise can be calibrated to it")]
    Unbounded { map: &'static str },
    #[error(transparent)]
    Mask(#[from] RangeError),
    #[error(transparent)]
    Round(#[from] RoundError),
    #[error(transparent)]
    Noise(#[from] NoiseError),
    #[error(transparent)]
    Clip(#[from] ClipError),
    #[error(transparent)]
    Fixed(#[from] FixedError),
    #[error(transparent)]
    Compress(#[from] CompressError),
}

impl Raw {
    fn expect_shape(&self, plan: &Plan) -> Result<(), SealError> {
        expect("wholes", plan.wholes(), self.wholes.len())?;
        expect("sections", plan.sections().len(), self.sections.len())?;
        for (section, x) in plan.sections().iter().zip(&self.sections) {
            expect(section.name, section.len, x.len())?;
        }
        match plan.reports() && !self.loss.is_finite() {
            true => Err(SealError::Loss { value: self.loss }),
            false => Ok(()),
        }
    }
}

fn expect(what: &'static str, expected: usize, got: usize) -> Result<(), SealError> {
    match expected == got {
        true => Ok(()),
        false => Err(SealError::Shape { what, expected, got }),
    }
}
