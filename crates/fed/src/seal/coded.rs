//! An update in a codec's bytes, for edges that decode: it has no masks and no noise after it.

use super::whole::header;
use super::{Bound, Clipped, NoBound, Packed, Raw, Rounded, SealError};
use crate::compress::{Codec, Seed, accumulate};
use crate::plan::{Plan, REPORTS};
use crate::whole;
use littoral_tensor::fixed;

/// An update in a codec's bytes, and in the integers that an edge will add.
#[derive(Clone, Debug)]
pub struct Coded<'p> {
    rounded: Rounded<'p, NoBound>,
    bytes: Vec<u8>,
}

impl<B: Bound> Clipped<B> {
    /// Codes every section for an edge that decodes. The seed is this device's own for this round.
    pub fn code<'p>(self, plan: &'p Plan, codec: &dyn Codec, seed: &Seed) -> Result<Coded<'p>, SealError> {
        self.raw.expect_shape(plan)?;
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
        Ok(Coded { rounded: Rounded { plan, weight, saturated, bound: NoBound, bytes: words }, bytes })
    }
}

impl<'p> Coded<'p> {
    /// The update in the words that edges add: what an algorithm's pending state and the residual are reckoned from.
    pub fn rounded(&self) -> &Rounded<'p, NoBound> {
        &self.rounded
    }

    /// Bytes of the update as it travels.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Tells [`Coded::len`] in the whole part: in place of its last exact integer, which the plan must have.
    pub fn telling_its_length(mut self) -> Result<Self, SealError> {
        let plan = self.rounded.plan;
        let place = ..plan.header_bytes();
        let mut words = vec![0; plan.header_words()];
        fixed::unpack(&self.bytes[place], plan.bits(), &mut words)?;
        let told = whole::split(self.bytes.len() as i128, plan.limb_bits());
        let integers = plan.wholes() + if plan.reports() { REPORTS } else { 0 };
        let first = 1 + (integers - 1) * whole::limbs(plan.limb_bits());
        words.splice(first..first + whole::limbs(plan.limb_bits()), told);
        for bytes in [&mut self.bytes, &mut self.rounded.bytes] {
            fixed::pack(&words, plan.bits(), &mut bytes[place])?;
        }
        Ok(self)
    }

    pub fn pack(self) -> Packed {
        Packed { bytes: self.bytes }
    }
}
