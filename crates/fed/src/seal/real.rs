//! Steps on real numbers: what was left over before, and a known norm.

use super::{Bound, L2, NoBound, Raw, SealError, expect};
use crate::compress::{Linear, Seed, residual};
use crate::dp::{ClipBit, SketchNoise};
use crate::drift::Sketch;
use crate::staleness::UNIT;
use littoral_privacy::clip;
use littoral_privacy::rotate::{self, Rotation};

/// An update with what compression kept back before added to its delta.
#[derive(Clone, Debug)]
pub struct WithResidual {
    raw: Raw,
}

/// An update whose delta has a known norm, or that chose to have none.
#[derive(Clone, Debug)]
pub struct Clipped<B> {
    pub(super) raw: Raw,
    pub(super) bound: B,
    norm: Option<f64>,
}

/// An update whose delta was mapped to what will be sent, the same way on all devices, so that sums stay sums.
#[derive(Clone, Debug)]
pub struct Transformed<B> {
    pub(super) raw: Raw,
    pub(super) bound: B,
}

impl Raw {
    /// Adds what was kept back to the delta. Before clipping, so that the norm that counts is of what is sent.
    pub fn with_residual(mut self, residual: &[f32]) -> Result<WithResidual, SealError> {
        if let Some(delta) = self.sections.first_mut() {
            expect("residual", delta.len(), residual.len())?;
            delta.iter_mut().zip(residual).for_each(|(d, r)| *d += r);
        }
        Ok(WithResidual { raw: self })
    }

    /// The same in integer steps, so that nothing of it is ever lost to rounding. The second vector is what is to be sent, in
    /// steps: less what then is sent, it is the next residual ([`residual::left`]). `residual` is empty before the first one.
    pub fn with_residual_steps(mut self, residual: &[i32], step: f64) -> Result<(WithResidual, Vec<i32>), SealError> {
        let owed = match self.sections.first_mut() {
            Some(delta) => residual::add(delta, residual, step)?,
            None => Vec::new(),
        };
        Ok((WithResidual { raw: self }, owed))
    }

    /// Clips the first section to an L2 ball of radius `bound`; an update without sections has nothing to clip.
    pub fn clip(mut self, bound: f32) -> Result<Clipped<L2>, SealError> {
        let norm = match self.sections.first_mut() {
            Some(delta) => Some(clip::l2(delta, bound)?.norm),
            None => None,
        };
        Ok(Clipped { raw: self, bound: L2(bound.into()), norm })
    }

    /// Goes on without a bound: right where no noise is to follow.
    pub fn unclipped(self) -> Clipped<NoBound> {
        Clipped { raw: self, bound: NoBound, norm: None }
    }
}

impl WithResidual {
    /// What will be sent, as far as it can be: the delta and what was kept back.
    pub fn delta(&self) -> &[f32] {
        self.raw.sections.first().map_or(&[], Vec::as_slice)
    }

    /// As [`Raw::clip`].
    pub fn clip(self, bound: f32) -> Result<Clipped<L2>, SealError> {
        self.raw.clip(bound)
    }

    /// As [`Raw::unclipped`].
    pub fn unclipped(self) -> Clipped<NoBound> {
        self.raw.unclipped()
    }
}

impl<B: Bound> Clipped<B> {
    /// An update that is old counts `times` 256ths, at most all of them: its delta is scaled, and so is the bound. A fresh one stays as it
    /// is, bit for bit.
    pub fn weigh(mut self, times: u16) -> Self {
        let weight = f32::from(times.min(UNIT)) / f32::from(UNIT);
        if let (true, Some(delta)) = (weight < 1.0, self.raw.sections.first_mut()) {
            delta.iter_mut().for_each(|x| *x *= weight);
            // A product is rounded by 2^-24 of itself at most.
            self.bound = self.bound.after(|l2| l2 * f64::from(weight) * (1.0 + 2f64.powi(-23)));
        }
        self
    }

    /// The delta's norm before clipping; `None` if it was not clipped.
    pub fn norm(&self) -> Option<f64> {
        self.norm
    }

    /// Maps the first section to what is sent of it, the same way on all devices of a collection, which share the seed. Nothing is
    /// proven about the norm after it: that is [`Clipped::transform_within`].
    pub fn transform(self, linear: &dyn Linear, seed: &Seed) -> Result<Transformed<NoBound>, SealError> {
        Ok(Transformed { raw: mapped(self.raw, linear, seed)?, bound: NoBound })
    }
}

fn mapped(mut raw: Raw, linear: &dyn Linear, seed: &Seed) -> Result<Raw, SealError> {
    if let Some(delta) = raw.sections.first_mut() {
        // After a map that mixes coordinates nobody could say which one it was.
        if let Some(index) = delta.iter().position(|x| !x.is_finite()) {
            return Err(SealError::NotFinite { section: "delta", index, value: delta[index] });
        }
        *delta = linear.forward(delta, seed);
    }
    Ok(raw)
}

impl Clipped<L2> {
    pub fn l2(&self) -> f64 {
        self.bound.0
    }

    /// Scales the delta from the clip that it was clipped to, to the one that noise is calibrated to, and appends whether it was
    /// longer before as one more coordinate ([`ClipBit`]). An update without sections is refused.
    pub fn with_clip_bit(mut self, bit: &ClipBit) -> Result<Self, SealError> {
        let (clipped_to, short) = (self.bound.0, self.norm.is_some_and(|norm| norm <= self.bound.0));
        expect("sections", 1, self.raw.sections.len())?;
        let delta = &mut self.raw.sections[0];
        let scale = f64::from(bit.clip) / clipped_to;
        delta.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
        // Scaling rounds; the bound is of the floats that come out.
        clip::l2(delta, bit.clip)?;
        delta.push(if short { bit.height } else { -bit.height });
        self.bound = L2(bit.l2.into());
        Ok(self)
    }

    /// Appends a sketch of the device's rows, as high as noise is calibrated to ([`SketchNoise`]). An update without sections, and a
    /// sketch of another layout, are refused.
    pub fn with_sketch(mut self, noise: &SketchNoise, sketch: &Sketch) -> Result<Self, SealError> {
        expect("sections", 1, self.raw.sections.len())?;
        let delta = &mut self.raw.sections[0];
        let before = delta.len();
        delta.extend(sketch.to_reals().map(|part| (part * f64::from(noise.height)) as f32));
        expect("bins of a sketch", noise.bins, delta.len() - before)?;
        self.bound = L2(noise.l2.into());
        Ok(self)
    }

    /// As [`Clipped::transform`], by a map that has a proven bound; one that has none is refused.
    pub fn transform_within(self, linear: &dyn Linear, seed: &Seed) -> Result<Transformed<L2>, SealError> {
        let len = self.raw.sections.first().map_or(0, Vec::len);
        let l2 = linear.l2_bound(self.bound.0, len).ok_or(SealError::Unbounded { map: linear.name() })?;
        Ok(Transformed { raw: mapped(self.raw, linear, seed)?, bound: L2(l2) })
    }

    /// Rotates the first section, the same way on all devices of a collection.
    pub fn rotate(mut self, rotation: &Rotation) -> Result<Transformed<L2>, SealError> {
        if let Some(delta) = self.raw.sections.first_mut() {
            expect("coordinates to rotate", rotation.len(), delta.len())?;
            rotation.forward(delta);
        }
        let bound = self.bound.after(|l2| l2 * (1.0 + rotate::MARGIN));
        Ok(Transformed { raw: self.raw, bound })
    }
}

impl Transformed<L2> {
    pub fn l2(&self) -> f64 {
        self.bound.0
    }
}
