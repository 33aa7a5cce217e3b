//! Random-k: k of n coordinates, drawn anew each round from a seed that all share. Konečný et al. 2016, "Federated Learning:
//! Strategies for Improving Communication Efficiency" (arXiv:1610.05492), section 2 (random mask); Stich et al. 2018
//! (NeurIPS), definition 2.1.
//!
//! No index travels, and as all devices keep the same coordinates, their sums are sums of k words: it works under masks.
//!
//! Two forms, told apart by type:
//!
//! - [`Kept`]: coordinates as they are. E‖x − C(x)‖² = (1 − k/n) ‖x‖²: a contraction, for error feedback; what is sent is no
//!   longer than what was there, so a sensitivity bound survives.
//! - [`Rescaled`]: times n/k on the way back, so that E C(x) = x. One draw may hold all of a vector's length, so ‖C(x)‖
//!   reaches n/k · ‖x‖: rescaling grows the norm, so no bound is told and no noise can be calibrated to it. (Who wants noise
//!   too takes [`Kept`] and a server step of n/k: what is summed has the bound, and the step scales its noise openly.)
//!
//! After a rotation (`chain`) every coordinate is as large as any other, and one draw is as good as the next.

use super::random::{Draws, Seed};
use super::{CompressError, Linear};
use std::marker::PhantomData;

/// Coordinates as they are: a contraction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kept;
/// Times n/k: unbiased.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rescaled;

/// How kept coordinates are told back.
pub trait Scaling: Send + Sync + 'static {
    const UNBIASED: bool;
}

impl Scaling for Kept {
    const UNBIASED: bool = false;
}

impl Scaling for Rescaled {
    const UNBIASED: bool = true;
}

/// `kept_ppm` millionths of the coordinates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomK<S> {
    kept_ppm: u32,
    scaling: PhantomData<S>,
}

impl<S: Scaling> RandomK<S> {
    /// `kept`: 1e-6 to 1, in millionths.
    pub fn new(kept: f32) -> Result<Self, CompressError> {
        Ok(Self { kept_ppm: ppm(kept)?, scaling: PhantomData })
    }
}

/// A share of coordinates in millionths, so that counts are the same everywhere.
pub(super) fn ppm(kept: f32) -> Result<u32, CompressError> {
    let ppm = (f64::from(kept) * 1e6).round();
    match (1.0..=1e6).contains(&ppm) {
        true => Ok(ppm as u32),
        false => Err(CompressError::Setting { field: "kept", allowed: "0.000001 to 1", got: kept.to_string() }),
    }
}

/// ⌈n · ppm / 10^6⌉: at least one of any.
pub(super) fn share(len: usize, ppm: u32) -> usize {
    (len as u128 * u128::from(ppm)).div_ceil(1_000_000) as usize
}

/// k of n indices, ascending, each set as likely as any other (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S).
pub fn indices(len: usize, k: usize, seed: &Seed) -> impl Iterator<Item = usize> {
    let (mut draws, mut wanted) = (Draws::new(seed), k.min(len) as u64);
    (0..len).filter(move |&i| {
        let taken = wanted > 0 && draws.chance(wanted, (len - i) as u64);
        wanted -= u64::from(taken);
        taken
    })
}

impl<S: Scaling> Linear for RandomK<S> {
    fn name(&self) -> &'static str {
        if S::UNBIASED { "random-k, rescaled" } else { "random-k" }
    }

    fn sent_len(&self, len: usize) -> usize {
        share(len, self.kept_ppm)
    }

    fn forward(&self, x: &[f32], seed: &Seed) -> Vec<f32> {
        indices(x.len(), self.sent_len(x.len()), seed).map(|i| x[i]).collect()
    }

    fn backward(&self, sent: &[f32], len: usize, seed: &Seed) -> Vec<f32> {
        assert_eq!(sent.len(), self.sent_len(len));
        let times = if S::UNBIASED { len as f64 / sent.len().max(1) as f64 } else { 1.0 };
        let mut x = vec![0.0; len];
        for (i, &v) in indices(len, sent.len(), seed).zip(sent) {
            x[i] = (f64::from(v) * times) as f32;
        }
        x
    }

    fn l2_bound(&self, before: f64, _: usize) -> Option<f64> {
        (!S::UNBIASED).then_some(before)
    }

    fn needs_residual(&self) -> bool {
        !S::UNBIASED
    }
}
