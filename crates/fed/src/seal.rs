//! What happens to an update before it may leave the device. The order is the privacy argument, so it is spelled by
//! the types; there is no other road, and only its last step makes a [`Sealed`]:
//!
//! ```text
//! Raw ──clip──▶ Clipped ──round──▶ Rounded ──pack──▶ Packed ──seal──▶ Sealed
//!     └─unclipped─┘     └─code──▶ Coded ──pack──┘
//! ```
//!
//! A [`Coded`] update is one that the edge decodes; it has no masks and no noise after it.
//!
//! Each stage after clipping carries a bound on the L2 norm of the first section (the model's delta), if there is one.
//! Compression's residual stands before clipping, a transform after it, noise after rounding and masks after packing;
//! they are further types between these.
//!
//! Coordinates are rounded and laid into the words that will leave in one pass; after that there are no floats, and
//! whoever wants to know what was sent reads it back from the very same bytes.

use crate::compress::{Codec, CompressError, Seed, accumulate};
use crate::plan::{LOSS_PER_UNIT, Plan, Section, Weight};
use crate::whole;
use littoral_privacy::clip::{self, ClipError};
use littoral_tensor::fixed::{self, FixedError};
use littoral_wire::{Collection, Manifest};
use std::sync::OnceLock;
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

/// An update whose delta has a known norm, or that chose to have none.
#[derive(Clone, Debug)]
pub struct Clipped {
    raw: Raw,
    clip: Option<clip::Clipped>,
}

/// An update in integers, at the plan's width.
#[derive(Clone, Debug)]
pub struct Rounded<'p> {
    plan: &'p Plan,
    weight: Weight,
    saturated: Vec<u64>,
    l2_bound: Option<f64>,
    bytes: Vec<u8>,
}

/// An update in a codec's bytes, and in the integers that an edge will add.
#[derive(Clone, Debug)]
pub struct Coded<'p> {
    rounded: Rounded<'p>,
    bytes: Vec<u8>,
}

/// An update as bytes, to be masked or not.
#[derive(Clone, Debug)]
pub struct Packed {
    bytes: Vec<u8>,
}

/// An update that may leave: bytes for one collection. It cannot be made otherwise, changed, or taken apart.
#[derive(Clone, Debug)]
pub struct Sealed {
    collection: Collection,
    bytes: Vec<u8>,
    manifest: OnceLock<Manifest>,
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum SealError {
    #[error("section `{section}`, coordinate {index}: {value} is not finite; the model or its data diverged")]
    NotFinite { section: &'static str, index: usize, value: f32 },
    #[error("the training loss is {value}, which is not finite; the model or its data diverged")]
    Loss { value: f32 },
    #[error("{what}: the plan expects {expected}, the update has {got}")]
    Shape { what: &'static str, expected: usize, got: usize },
    #[error(transparent)]
    Clip(#[from] ClipError),
    #[error(transparent)]
    Fixed(#[from] FixedError),
    #[error(transparent)]
    Compress(#[from] CompressError),
}

impl Raw {
    /// Clips the first section to an L2 ball of radius `bound`; an update without sections has nothing to clip.
    pub fn clip(mut self, bound: f32) -> Result<Clipped, SealError> {
        let clip = self.sections.first_mut().map(|delta| clip::l2(delta, bound)).transpose()?;
        Ok(Clipped { raw: self, clip })
    }

    /// Goes on without a bound: right where no noise is to follow.
    pub fn unclipped(self) -> Clipped {
        Clipped { raw: self, clip: None }
    }
}

impl Clipped {
    /// The delta's norm before clipping; `None` if it was not clipped.
    pub fn norm(&self) -> Option<f64> {
        self.clip.map(|c| c.norm)
    }

    pub fn l2_bound(&self) -> Option<f64> {
        self.clip.map(|c| c.bound)
    }

    /// Rounds every coordinate to the plan's steps; what lies outside its section's range saturates and is counted.
    pub fn round(self, plan: &Plan) -> Result<Rounded<'_>, SealError> {
        self.expect_shape(plan)?;
        let Raw { examples, loss, wholes, sections } = self.raw;
        let weight = plan.weight(examples);
        let mut bytes = vec![0; plan.format().bytes()];
        let mut saturated = Vec::with_capacity(sections.len());
        for (i, (section, x)) in plan.sections().iter().zip(&sections).enumerate() {
            let place = &mut bytes[plan.section_bytes(i, 0..section.len)];
            let (levels, times) = (plan.levels().into(), if section.weighted { weight.value.into() } else { 1 });
            let inv_step = plan.step(i).recip() as f32;
            let clamped = match fixed::quantise_pack(x, inv_step, levels, times, plan.bits(), place) {
                // Only what saturates can be infinite.
                Ok(0) => 0,
                Ok(clamped) if x.iter().all(|x| x.is_finite()) => clamped,
                Ok(_) | Err(FixedError::NotANumber { .. }) => {
                    let (index, &value) = x.iter().enumerate().find(|(_, x)| !x.is_finite()).unwrap_or((0, &f32::NAN));
                    return Err(SealError::NotFinite { section: section.name, index, value });
                }
                Err(error) => return Err(error.into()),
            };
            saturated.push(clamped);
        }
        let header = header(plan, weight, saturated.iter().sum(), loss, &wholes);
        fixed::pack(&header, plan.bits(), &mut bytes[..plan.header_bytes()])?;
        let l2_bound = self.clip.map(|c| rounded_bound(plan, c.bound));
        Ok(Rounded { plan, weight, saturated, l2_bound, bytes })
    }

    /// Codes every section for an edge that decodes. The seed is this device's own for this round.
    pub fn code<'p>(self, plan: &'p Plan, codec: &dyn Codec, seed: &Seed) -> Result<Coded<'p>, SealError> {
        self.expect_shape(plan)?;
        let l2_bound = match (self.clip, plan.sections().first()) {
            (Some(clip), Some(delta)) => codec.l2_bound(clip.bound, delta.len).map(|bound| rounded_bound(plan, bound)),
            _ => None,
        };
        let Raw { examples, loss, wholes, sections } = self.raw;
        let weight = plan.weight(examples);
        // Both begin with the whole part, which is known last.
        let mut words = vec![0; plan.header_bytes()];
        let mut bytes = words.clone();
        let mut saturated = Vec::with_capacity(sections.len());
        for (i, (section, x)) in plan.sections().iter().zip(&sections).enumerate() {
            if let Some(index) = x.iter().position(|x| !x.is_finite()) {
                return Err(SealError::NotFinite { section: section.name, index, value: x[index] });
            }
            let start = bytes.len();
            bytes.extend_from_slice(&[0; 4]);
            codec.encode(x, &accumulate::section_seed(seed, i), &mut bytes)?;
            let length = bytes.len() - start - 4;
            let told = u32::try_from(length).map_err(|_| SealError::Shape {
                what: "bytes of a section's code, at most",
                expected: u32::MAX as usize,
                got: length,
            })?;
            bytes[start..start + 4].copy_from_slice(&told.to_le_bytes());
            // What the edge will make of it.
            let code = &bytes[start + 4..];
            saturated.push(accumulate::section_into_words(codec, plan, i, weight.value, code, &mut |block| {
                words.extend_from_slice(block);
                Ok(())
            })?);
        }
        let header = header(plan, weight, saturated.iter().sum(), loss, &wholes);
        fixed::pack(&header, plan.bits(), &mut words[..plan.header_bytes()])?;
        bytes[..plan.header_bytes()].copy_from_slice(&words[..plan.header_bytes()]);
        Ok(Coded { rounded: Rounded { plan, weight, saturated, l2_bound, bytes: words }, bytes })
    }

    fn expect_shape(&self, plan: &Plan) -> Result<(), SealError> {
        let Raw { loss, wholes, sections, .. } = &self.raw;
        let expect = |what, expected, got| match expected == got {
            true => Ok(()),
            false => Err(SealError::Shape { what, expected, got }),
        };
        expect("wholes", plan.wholes(), wholes.len())?;
        expect("sections", plan.sections().len(), sections.len())?;
        for (section, x) in plan.sections().iter().zip(sections) {
            expect(section.name, section.len, x.len())?;
        }
        match plan.reports() && !loss.is_finite() {
            true => Err(SealError::Loss { value: *loss }),
            false => Ok(()),
        }
    }
}

/// Of the first section once it is in steps. Scaling in f32 errs by 2^-23 of a coordinate at most; rounding moves each of n
/// by at most half a step, and so a vector by at most √n / 2 steps.
fn rounded_bound(plan: &Plan, bound: f64) -> f64 {
    bound * (1.0 + 2f64.powi(-23)) + 0.5 * plan.step(0) * (plan.sections()[0].len as f64).sqrt()
}

/// The words of the whole part, with their filling.
fn header(plan: &Plan, weight: Weight, saturated: u64, loss: f32, wholes: &[i128]) -> Vec<i64> {
    let mut words = Vec::with_capacity(plan.header_words());
    words.push(weight.value.into());
    if plan.reports() {
        // An f32 in steps of 2^-32 is below 2^160: huge losses saturate at what the cohort's sum has room for.
        let room = (i128::MAX / i128::from(plan.cohort_max()) / i128::from(plan.weight_max())) as f64 / 2.0;
        let loss = (f64::from(loss) * LOSS_PER_UNIT).round().clamp(-room, room) as i128;
        words.extend(whole::split(saturated.into(), plan.limb_bits()));
        words.extend(whole::split(loss * i128::from(weight.value), plan.limb_bits()));
    }
    for &value in wholes {
        words.extend(whole::split(value, plan.limb_bits()));
    }
    words.resize(plan.header_words(), 0);
    words
}

impl Rounded<'_> {
    /// The integers that a section sends, before the weight: what a device commits to its own state. A device without
    /// weight sends zeros. Panics past the last section.
    pub fn sent(&self, section: usize) -> Result<Vec<i32>, SealError> {
        let Section { len, weighted, .. } = self.plan.sections()[section];
        let mut words = vec![0; len];
        fixed::unpack(&self.bytes[self.plan.section_bytes(section, 0..len)], self.plan.bits(), &mut words)?;
        // v · weight is at most cohort_max-th of what a word holds, so it has not wrapped and divides exactly.
        let times = if weighted { i64::from(self.weight.value).max(1) } else { 1 };
        Ok(words.into_iter().map(|word| (word / times) as i32).collect())
    }

    pub fn weight(&self) -> Weight {
        self.weight
    }

    /// Coordinates of each section that lay outside its range.
    pub fn saturated(&self) -> &[u64] {
        &self.saturated
    }

    /// Of the first section as it is sent, before the weight, in the section's units.
    pub fn l2_bound(&self) -> Option<f64> {
        self.l2_bound
    }

    pub fn pack(self) -> Packed {
        Packed { bytes: self.bytes }
    }
}

impl<'p> Coded<'p> {
    /// The update in the words that edges add: what an algorithm's pending state and the residual are reckoned from.
    pub fn rounded(&self) -> &Rounded<'p> {
        &self.rounded
    }

    pub fn pack(self) -> Packed {
        Packed { bytes: self.bytes }
    }
}

impl Packed {
    pub fn seal(self, collection: Collection) -> Sealed {
        Sealed { collection, bytes: self.bytes, manifest: OnceLock::new() }
    }
}

impl Sealed {
    pub fn collection(&self) -> Collection {
        self.collection
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes as an object to be pulled. Hashed when first asked for: a simulated fleet may never ask.
    pub fn manifest(&self) -> &Manifest {
        self.manifest.get_or_init(|| {
            // A plan has no more bytes than an object may have.
            Manifest::of(&self.bytes).expect("a plan's update fits one object")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Resolution, Weighting};

    fn plan() -> Plan {
        let delta = Section { name: "delta", len: 4, range: 2.0, weighted: true };
        let control = Section { name: "control", len: 2, range: 1.0, weighted: false };
        let weighting = Weighting::ByExamples { examples_max: 10, weight_max: 10 };
        Plan::new(4, weighting, Resolution::Levels(8), vec![delta, control], 1).unwrap()
    }

    fn raw() -> Raw {
        Raw { examples: 3, loss: 0.5, wholes: vec![-7], sections: vec![vec![0.25, -0.5, 3.0, -2.1], vec![0.125, 9.0]] }
    }

    #[test]
    fn saturation_is_counted_and_what_is_sent_is_known() {
        let plan = plan();
        let rounded = raw().unclipped().round(&plan).unwrap();
        assert_eq!(rounded.sent(0).unwrap(), [1, -2, 7, -8]);
        assert_eq!(rounded.sent(1).unwrap(), [1, 7]);
        assert_eq!(rounded.saturated(), [1, 1], "3.0 and 9.0; -2.1 rounds to the range's end");
        assert_eq!(rounded.weight(), Weight { value: 3, saturated: false });
        assert_eq!(rounded.pack().bytes.len(), plan.format().bytes());
    }

    #[test]
    fn what_is_not_finite_is_refused_by_name() {
        let mut diverged = raw();
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            diverged.sections[1][1] = value;
            let refused = diverged.clone().unclipped().round(&plan()).unwrap_err();
            assert!(matches!(refused, SealError::NotFinite { section: "control", index: 1, .. }), "{refused}");
        }
        let refused = Raw { loss: f32::INFINITY, ..raw() }.unclipped().round(&plan()).unwrap_err();
        assert_eq!(refused, SealError::Loss { value: f32::INFINITY });
    }

    #[test]
    fn another_shape_is_refused() {
        let mut short = raw();
        short.sections[0].pop();
        let refused = short.unclipped().round(&plan()).unwrap_err();
        assert_eq!(refused, SealError::Shape { what: "delta", expected: 4, got: 3 });
        let refused = Raw { wholes: vec![], ..raw() }.unclipped().round(&plan()).unwrap_err();
        assert_eq!(refused, SealError::Shape { what: "wholes", expected: 1, got: 0 });
    }

    #[test]
    fn the_bound_survives_rounding() {
        let plan = plan();
        let clipped = raw().clip(1.0).unwrap();
        assert!(clipped.norm().unwrap() > 3.6);
        assert_eq!(clipped.l2_bound(), Some(1.0));
        let rounded = clipped.round(&plan).unwrap();
        let norm = plan.step(0) * rounded.sent(0).unwrap().iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let bound = rounded.l2_bound().unwrap();
        // Half a step of 0.25 in each of four coordinates, and the margin for scaling.
        assert!(norm <= bound && (bound - 1.25).abs() < 1e-6, "{norm} {bound}");
    }
}
