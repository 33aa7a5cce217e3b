//! Steps on integers: rounding into the plan's words.

use super::{Bound, Clipped, L2, NoBound, Packed, Raw, SealError, Sent, Transformed, expect};
use crate::compress::{Seed, chain};
use crate::plan::{LOSS_PER_UNIT, Plan, Section, Weight};
use crate::whole;
use littoral_privacy::account::distributed::{Noise as Law, Release};
use littoral_privacy::noise::{DiscreteGaussian, Skellam};
use littoral_privacy::round::Rounding;
use littoral_tensor::fixed::{self, FixedError};
use rand_core::CryptoRng;

/// An update in integers with this device's share of the noise.
#[derive(Clone, Debug)]
pub struct Noised {
    bytes: Vec<u8>,
    sigma: f64,
}

/// An update in integers, at the plan's width.
#[derive(Clone, Debug)]
pub struct Rounded<'p, B> {
    pub(super) plan: &'p Plan,
    pub(super) weight: Weight,
    pub(super) saturated: Vec<u64>,
    pub(super) bound: B,
    pub(super) bytes: Vec<u8>,
}

impl<B: Bound> Clipped<B> {
    /// Rounds every coordinate to the plan's steps; what lies outside its section's range saturates and is counted.
    pub fn round(self, plan: &Plan) -> Result<Rounded<'_, B>, SealError> {
        rounded(self.raw, self.bound, plan)
    }
}

impl<B: Bound> Transformed<B> {
    /// As [`Clipped::round`].
    pub fn round(self, plan: &Plan) -> Result<Rounded<'_, B>, SealError> {
        rounded(self.raw, self.bound, plan)
    }

    /// The same, but the first section's coordinates go up or down by chance, so that errors on many devices average out where
    /// steps are coarse. The seed is this device's own. Lengths may grow, and no bound is told.
    pub fn round_by_chance<'p>(mut self, plan: &'p Plan, seed: &Seed) -> Result<Rounded<'p, NoBound>, SealError> {
        self.raw.expect_shape(plan)?;
        if let Some(sent) = self.raw.sections.first_mut() {
            chain::to_grid(sent, plan.step(0), seed)?;
        }
        rounded(self.raw, NoBound, plan)
    }
}

fn rounded<B: Bound>(raw: Raw, bound: B, plan: &Plan) -> Result<Rounded<'_, B>, SealError> {
    raw.expect_shape(plan)?;
    let Raw { examples, loss, wholes, sections } = raw;
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
    let (step, len) = plan.sections().first().map_or((0.0, 0), |section| (plan.step(0), section.len));
    let bound = bound.after(|l2| rounded_l2(l2, step, len));
    Ok(Rounded { plan, weight, saturated, bound, bytes })
}

/// What the L2 norm of `len` coordinates clipped to `clip` is at most when they are rounded to steps of `step`: what the cloud
/// accounts with, and devices keep.
pub fn l2_after_rounding(clip: f32, step: f64, len: usize) -> f64 {
    rounded_l2(clip.into(), step, len)
}

/// Scaling in f32 errs by 2^-23 of a coordinate at most; rounding moves each of n by at most half a step, and so a vector
/// by at most √n / 2 steps.
fn rounded_l2(l2: f64, step: f64, len: usize) -> f64 {
    l2 * (1.0 + 2f64.powi(-23)) + 0.5 * step * (len as f64).sqrt()
}

/// The words of the whole part, with their filling.
pub(super) fn header(plan: &Plan, weight: Weight, saturated: u64, loss: f32, wholes: &[i128]) -> Vec<i64> {
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

impl Transformed<L2> {
    /// Rounds by chance, drawing again while the result is longer than [`littoral_privacy::round`] allows: for sums that devices
    /// noise. The plan is a ring's; its step is one whole unit.
    pub fn round_conditionally<'p>(
        self,
        plan: &'p Plan,
        beta: f64,
        rng: &mut impl CryptoRng,
    ) -> Result<Rounded<'p, L2>, SealError> {
        let Raw { wholes, sections, .. } = self.raw;
        expect("wholes", plan.wholes(), wholes.len())?;
        expect("sections", 1, plan.sections().len().max(sections.len()))?;
        let delta = &sections[0];
        expect("delta", plan.sections()[0].len, delta.len())?;
        if let Some(index) = delta.iter().position(|x| !x.is_finite()) {
            return Err(SealError::NotFinite { section: plan.sections()[0].name, index, value: delta[index] });
        }
        let rounding = Rounding { scale: plan.step(0).recip(), clip: self.bound.0, beta };
        let mut words = vec![0; delta.len()];
        let l2_steps = rounding.round(delta, &mut words, rng)?;
        let mut bytes = vec![0; plan.format().bytes()];
        pack_modulo(&mut words, plan.bits(), &mut bytes[plan.section_bytes(0, 0..delta.len())])?;
        // Nothing else is told: neither a loss nor a number of rows.
        let weight = plan.weight(1);
        fixed::pack(&header(plan, weight, 0, 0.0, &wholes), plan.bits(), &mut bytes[..plan.header_bytes()])?;
        let bound = L2(l2_steps * plan.step(0));
        Ok(Rounded { plan, weight, saturated: vec![0], bound, bytes })
    }
}

/// Packs whole numbers as elements of a ring of 2^`bits`.
fn pack_modulo(words: &mut [i64], bits: u32, out: &mut [u8]) -> Result<(), FixedError> {
    let unused = 64 - bits;
    words.iter_mut().for_each(|word| *word = *word << unused >> unused);
    fixed::pack(words, bits, out)
}

impl<B: Bound> Sent for Rounded<'_, B> {
    fn sent(&self, section: usize) -> Result<Vec<i32>, SealError> {
        let Section { len, weighted, .. } = self.plan.sections()[section];
        let mut words = vec![0; len];
        fixed::unpack(&self.bytes[self.plan.section_bytes(section, 0..len)], self.plan.bits(), &mut words)?;
        // v · weight is at most cohort_max-th of what a word holds, so it has not wrapped and divides exactly.
        let times = if weighted { i64::from(self.weight.value).max(1) } else { 1 };
        Ok(words.into_iter().map(|word| (word / times) as i32).collect())
    }
}

impl<B: Bound> Rounded<'_, B> {
    pub fn weight(&self) -> Weight {
        self.weight
    }

    /// Coordinates of each section that lay outside its range.
    pub fn saturated(&self) -> &[u64] {
        &self.saturated
    }

    pub fn pack(self) -> Packed {
        Packed { bytes: self.bytes }
    }
}

impl Rounded<'_, L2> {
    /// Of the first section as it is sent, before the weight, in the section's units.
    pub fn l2(&self) -> f64 {
        self.bound.0
    }

    /// The same in the plan's steps: the sensitivity of a sum of integers to one device, if its weight is 1.
    pub fn l2_steps(&self) -> f64 {
        match self.plan.sections() {
            [] => 0.0,
            _ => self.bound.0 / self.plan.step(0),
        }
    }

    /// Adds this device's share of the noise to the first section. The account was made for a bound of `release.l2_rounded`; a
    /// larger one is refused.
    pub fn noise(mut self, law: Law, release: &Release, rng: &mut impl CryptoRng) -> Result<Noised, SealError> {
        let (bound, expected) = (self.l2_steps(), release.l2_rounded);
        // Both are worked out from the same numbers, by way of a step and its reciprocal: some roundings of 2^-53.
        if bound > expected * (1.0 + 1e-12) {
            return Err(SealError::Unaccounted { expected, got: bound });
        }
        let mut noise = vec![0; self.plan.sections()[0].len];
        match law {
            Law::DiscreteGaussian => DiscreteGaussian::new(release.share_variance)?.fill(&mut noise, rng),
            Law::Skellam => Skellam::new(release.share_variance)?.fill(&mut noise, rng),
        }
        let place = self.plan.section_bytes(0, 0..noise.len());
        let mut packed = vec![0; place.len()];
        pack_modulo(&mut noise, self.plan.bits(), &mut packed)?;
        fixed::add_packed(&mut self.bytes[place], &packed, self.plan.bits())?;
        Ok(Noised { bytes: self.bytes, sigma: release.share_variance.to_f64().sqrt() })
    }
}

impl Noised {
    /// Standard deviation of this device's share, in steps of the plan.
    pub fn sigma(&self) -> f64 {
        self.sigma
    }

    pub fn pack(self) -> Packed {
        Packed { bytes: self.bytes }
    }
}
