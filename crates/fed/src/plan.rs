//! Fixed point, decided once per job and known to all: how an update becomes words whose sums are exact.
//!
//! Sums are integers modulo 2^`bits`, so any arrival order and any tree of aggregators give the same bits (and masks,
//! when they come, cancel). With at most `cohort_max` devices, weights up to `weight_max` and coordinates in
//! [−`levels`, `levels`), a sum needs
//!
//! ```text
//! bits = ⌈log2(2 · cohort_max · weight_max · levels)⌉
//! ```
//!
//! An update's words, in order:
//!
//! ```text
//! whole part   weight                      one word, 0 ..= weight_max
//!              saturated, loss             exact integers, only if there are sections and no privacy: clamped coordinates, and
//!                                          weight × mean training loss in steps of 2^-32
//!              wholes                      exact integers (see `whole`), the algorithm's first
//! section 0    v or v · weight             one word per coordinate, v = clamp(round(x · levels / range))
//! section 1    …
//! ```
//!
//! Each part is filled with zero words to a multiple of eight: eight words take exactly `bits` bytes, so every part
//! starts at a byte boundary.

use crate::whole;
use littoral_wire::message::COHORT_MAX;
use littoral_wire::object::{CHUNK_BYTES, CHUNKS_MAX};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use thiserror::Error;

/// A coordinate is an `i32` before it is weighted: v in [−2^31, 2^31).
pub const LEVELS_MAX: u32 = 1 << 31;
/// An update travels as one object.
pub const UPDATE_BYTES_MAX: u64 = CHUNKS_MAX as u64 * CHUNK_BYTES as u64;
/// Words that take a whole number of bytes together.
pub(crate) const GROUP: usize = 8;
/// One training loss counts this many steps per unit.
pub(crate) const LOSS_PER_UNIT: f64 = 4_294_967_296.0;
/// Loss and saturation, in front of the algorithm's wholes when there are sections.
pub(crate) const REPORTS: usize = 2;

/// Real coordinates that are summed together: a model's delta, a control variate's.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    pub name: &'static str,
    /// Coordinates.
    pub len: usize,
    /// Coordinates outside [−`range`, `range`) saturate.
    pub range: f32,
    /// Whether a device's coordinates count as often as its weight says, or once.
    pub weighted: bool,
}

/// How much a device counts in a weighted section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Weighting {
    /// Every device has weight 1.
    Uniform,
    /// weight = round(examples / `examples_max` · `weight_max`), at least 1 with any example at all.
    ByExamples {
        /// More examples than this count as this many; 1 or more.
        examples_max: u64,
        /// 1 or more. Larger keeps ratios of small devices finer and costs bits.
        weight_max: u32,
    },
}

/// How finely coordinates are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// A range of [−r, r) has 2 · levels steps; 2 ..= 2^31.
    Levels(u32),
    /// As many levels as fit words of 32 bits.
    Fit32,
}

/// A device's weight under a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    pub value: u32,
    /// It has more examples than the plan allows for, and counts as if it had the most.
    pub saturated: bool,
}

/// Words per update and bits per word: all that an aggregator must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    words: u64,
    bits: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    cohort_max: u32,
    weighting: Weighting,
    levels: u32,
    format: Format,
    sections: Vec<Section>,
    wholes: usize,
    limb_bits: u32,
    /// The first word of each section; the first one is also where the whole part ends.
    first_words: Vec<u64>,
    /// Loss and saturation are told.
    reports: bool,
    /// Of a ring: one step of its section.
    ring_step: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum PlanError {
    #[error("a cohort has 1 to {COHORT_MAX} devices, got {got}")]
    Cohort { got: u32 },
    #[error("{field} is 1 or more, got 0")]
    Weighting { field: &'static str },
    #[error("levels are 2 to {LEVELS_MAX}, got {got}")]
    Levels { got: u32 },
    #[error(
        "a cohort of {cohort_max} with weights up to {weight_max} leaves {levels} levels in 32 bits, at least 2 are \
         needed: lower weight_max, or choose the levels for wider words"
    )]
    NoRoom { cohort_max: u32, weight_max: u32, levels: u64 },
    #[error(
        "words of {bits} bits are needed, at most 64 are possible: ⌈log2(2 · {cohort_max} devices · weight {weight_max} \
         · {levels} levels)⌉"
    )]
    TooManyBits { bits: u32, cohort_max: u32, weight_max: u32, levels: u32 },
    #[error(
        "a ring for the sum of {cohort_max} devices has {least} to 40 bits, got {got}: 1 for the sign, 1 or more for each device"
    )]
    RingBits { cohort_max: u32, least: u32, got: u32 },
    #[error("section `{section}`: a range is a finite number above 0, got {got}")]
    Range { section: &'static str, got: f32 },
    #[error("words have 1 to 64 bits, got {got}")]
    Bits { got: u32 },
    #[error("an update has whole groups of 8 words, got {got} words")]
    Words { got: u64 },
    #[error("an update has at most {UPDATE_BYTES_MAX} bytes, {words} words of {bits} bits need more")]
    TooBig { words: u64, bits: u32 },
}

impl Format {
    /// `words` is a multiple of 8, 1 ≤ `bits` ≤ 64.
    pub fn new(words: u64, bits: u32) -> Result<Self, PlanError> {
        if !(1..=64).contains(&bits) {
            return Err(PlanError::Bits { got: bits });
        }
        if !words.is_multiple_of(8) {
            return Err(PlanError::Words { got: words });
        }
        if u128::from(words) / 8 * u128::from(bits) > u128::from(UPDATE_BYTES_MAX) {
            return Err(PlanError::TooBig { words, bits });
        }
        Ok(Self { words, bits })
    }

    pub fn words(self) -> u64 {
        self.words
    }

    pub fn bits(self) -> u32 {
        self.bits
    }

    /// Bytes of one update, and of any sum of updates.
    pub fn bytes(self) -> usize {
        (self.words / 8 * u64::from(self.bits)) as usize
    }
}

impl Weighting {
    pub fn weight_max(self) -> u32 {
        match self {
            Self::Uniform => 1,
            Self::ByExamples { weight_max, .. } => weight_max,
        }
    }

    /// In integers, halves up: the same on every machine.
    pub fn weight(self, examples: u64) -> Weight {
        let Self::ByExamples { examples_max, weight_max } = self else {
            return Weight { value: 1, saturated: false };
        };
        let counted = u128::from(examples.min(examples_max));
        let (most, unit) = (u128::from(examples_max), u128::from(weight_max));
        let value = ((2 * counted * unit + most) / (2 * most)) as u32;
        Weight { value: value.max(u32::from(examples > 0)), saturated: examples > examples_max }
    }
}

impl Plan {
    /// `wholes` counts exact integers: the algorithm's come first, others may follow.
    pub fn new(
        cohort_max: u32,
        weighting: Weighting,
        resolution: Resolution,
        sections: Vec<Section>,
        wholes: usize,
    ) -> Result<Self, PlanError> {
        if !(1..=COHORT_MAX as u32).contains(&cohort_max) {
            return Err(PlanError::Cohort { got: cohort_max });
        }
        if let Weighting::ByExamples { examples_max, weight_max } = weighting {
            for (field, value) in [("examples_max", examples_max), ("weight_max", weight_max.into())] {
                if value == 0 {
                    return Err(PlanError::Weighting { field });
                }
            }
        }
        for Section { name, range, .. } in &sections {
            if !(range.is_finite() && *range > 0.0) {
                return Err(PlanError::Range { section: name, got: *range });
            }
        }
        let weight_max = weighting.weight_max();
        let levels = match resolution {
            Resolution::Levels(levels) if (2..=LEVELS_MAX).contains(&levels) => levels,
            Resolution::Levels(got) => return Err(PlanError::Levels { got }),
            Resolution::Fit32 => match (1u64 << 31) / (u64::from(cohort_max) * u64::from(weight_max)) {
                levels @ 0..2 => return Err(PlanError::NoRoom { cohort_max, weight_max, levels }),
                levels => levels as u32,
            },
        };
        let bits = ceil_log2(2 * u128::from(cohort_max) * u128::from(weight_max) * u128::from(levels));
        if bits > 64 {
            return Err(PlanError::TooManyBits { bits, cohort_max, weight_max, levels });
        }
        let reports = !sections.is_empty();
        Self::laid_out(cohort_max, weighting, levels, bits, sections, wholes, reports)
    }

    /// The same plan for a job with differential privacy: what a device tells beside its section and the wholes, loss and
    /// saturation, has no place.
    pub fn quiet(self) -> Result<Self, PlanError> {
        let Self { cohort_max, weighting, levels, format, sections, wholes, .. } = self;
        Self::laid_out(cohort_max, weighting, levels, format.bits, sections, wholes, false)
    }

    /// A plan whose words are elements of a ring of 2^`bits`, in which one section's sum may wrap around: where steps of `step` are
    /// chosen so that it does with a negligible chance only, and noise covers what rounding leaves. Weights are 1, and
    /// nothing is told beside the section and the wholes.
    pub fn ring(cohort_max: u32, bits: u32, step: f64, mut section: Section, wholes: usize) -> Result<Self, PlanError> {
        if !(1..=COHORT_MAX as u32).contains(&cohort_max) {
            return Err(PlanError::Cohort { got: cohort_max });
        }
        if bits > 40 || bits < 2 + ceil_log2(cohort_max.into()) {
            return Err(PlanError::RingBits { cohort_max, least: 2 + ceil_log2(cohort_max.into()), got: bits });
        }
        // No one coordinate leaves the ring.
        let levels = 1u32 << (bits - 1).min(31);
        section.range = (step * f64::from(levels)) as f32;
        if !(section.range.is_finite() && section.range > 0.0) {
            return Err(PlanError::Range { section: section.name, got: section.range });
        }
        let mut plan = Self::laid_out(cohort_max, Weighting::Uniform, levels, bits, vec![section], wholes, false)?;
        plan.ring_step = Some(step);
        Ok(plan)
    }

    fn laid_out(
        cohort_max: u32,
        weighting: Weighting,
        levels: u32,
        bits: u32,
        sections: Vec<Section>,
        wholes: usize,
        reports: bool,
    ) -> Result<Self, PlanError> {
        // At least one bit: 2 · cohort_max · levels ≤ 2^bits and levels ≥ 2, or the ring is wide enough.
        let limb_bits = (bits - 1 - ceil_log2(cohort_max.into())).min(32);
        let integers = if reports { REPORTS } else { 0 };
        let too_big = |words| PlanError::TooBig { words, bits };
        let integers = wholes.checked_add(integers).ok_or_else(|| too_big(u64::MAX))?;
        let header = integers.checked_mul(whole::limbs(limb_bits)).ok_or_else(|| too_big(u64::MAX))?;
        let mut words = (header as u64).saturating_add(1).next_multiple_of(8);
        let mut first_words = vec![words];
        for section in &sections {
            let len = (section.len as u64).checked_next_multiple_of(8);
            words = len.and_then(|len| words.checked_add(len)).ok_or_else(|| too_big(u64::MAX))?;
            first_words.push(words);
        }
        let format = Format::new(words, bits)?;
        let ring_step = None;
        Ok(Self { cohort_max, weighting, levels, format, sections, wholes, limb_bits, first_words, reports, ring_step })
    }

    pub fn cohort_max(&self) -> u32 {
        self.cohort_max
    }

    pub fn weight_max(&self) -> u32 {
        self.weighting.weight_max()
    }

    pub fn weight(&self, examples: u64) -> Weight {
        self.weighting.weight(examples)
    }

    pub fn levels(&self) -> u32 {
        self.levels
    }

    pub fn bits(&self) -> u32 {
        self.format.bits
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Exact integers in an update.
    pub fn wholes(&self) -> usize {
        self.wholes
    }

    /// What a person who submits the job should know about its words.
    pub fn remark(&self) -> Option<String> {
        let (bits, cohort, weight, levels) = (self.bits(), self.cohort_max, self.weight_max(), self.levels);
        (bits > 32).then(|| {
            format!(
                "sums need words of {bits} bits (2 · {cohort} devices · weight {weight} · {levels} levels), so they are \
                 kept in 64-bit accumulators and each update takes {bits}/32 of the bytes of 32-bit words"
            )
        })
    }

    /// One integer step of a section, in the section's units: range / levels. Panics past the last section.
    pub fn step(&self, section: usize) -> f64 {
        self.ring_step.unwrap_or_else(|| f64::from(self.sections[section].range) / f64::from(self.levels))
    }

    /// Bytes of the whole part, with which every update and every sum begins.
    pub fn header_bytes(&self) -> usize {
        self.byte_at(self.first_words[0])
    }

    /// Where coordinates of a section lie in an update or a sum: whole groups, so a few neighbours may come along.
    /// Panics past the last section.
    pub fn section_bytes(&self, section: usize, coordinates: Range<usize>) -> Range<usize> {
        let first = self.first_words[section];
        let start = first + (coordinates.start as u64 / 8) * 8;
        let end = first + (coordinates.end as u64).next_multiple_of(8);
        self.byte_at(start)..self.byte_at(end.max(start))
    }

    /// The section that has this word, which lies behind the whole part.
    pub(crate) fn section_of(&self, word: u64) -> usize {
        self.first_words
            .partition_point(|first| *first <= word)
            .saturating_sub(1)
            .min(self.sections.len().saturating_sub(1))
    }

    /// A section's first word, and the one behind its last, filling and all. Panics past the last section.
    pub(crate) fn section_words(&self, section: usize) -> (u64, u64) {
        (self.first_words[section], self.first_words[section + 1])
    }

    pub(crate) fn limb_bits(&self) -> u32 {
        self.limb_bits
    }

    /// Whether the whole part tells saturation and loss.
    pub(crate) fn reports(&self) -> bool {
        self.reports
    }

    /// Words of the whole part, with its filling.
    pub(crate) fn header_words(&self) -> usize {
        self.first_words[0] as usize
    }

    /// `word` is a multiple of 8.
    fn byte_at(&self, word: u64) -> usize {
        (word / 8 * u64::from(self.format.bits)) as usize
    }
}

/// ⌈log2 n⌉ for n ≥ 1.
fn ceil_log2(n: u128) -> u32 {
    u128::BITS - (n - 1).leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_examples(weight_max: u32) -> Weighting {
        Weighting::ByExamples { examples_max: 1000, weight_max }
    }

    #[test]
    fn bits_are_the_formula() {
        let bits = |cohort, weight, levels| {
            Plan::new(cohort, by_examples(weight), Resolution::Levels(levels), vec![], 0).map(|p| p.bits())
        };
        assert_eq!(bits(1, 1, 2), Ok(2));
        // A product that is a power of two fits exactly; one more needs a bit more.
        assert_eq!(bits(8, 16, 1 << 20), Ok(28));
        assert_eq!(bits(8, 16, (1 << 20) + 1), Ok(29));
        assert_eq!(bits(3, 1, 2), Ok(4));
        assert_eq!(bits(1 << 15, 1 << 17, LEVELS_MAX), Ok(64));
        assert_eq!(
            bits(1 << 15, (1 << 17) + 1, LEVELS_MAX),
            Err(PlanError::TooManyBits {
                bits: 65,
                cohort_max: 1 << 15,
                weight_max: (1 << 17) + 1,
                levels: LEVELS_MAX
            })
        );
        let crowd = COHORT_MAX as u32 + 1;
        assert_eq!(bits(crowd, 1, 2), Err(PlanError::Cohort { got: crowd }));
        assert_eq!(bits(0, 1, 2), Err(PlanError::Cohort { got: 0 }));
        assert_eq!(bits(1, 0, 2), Err(PlanError::Weighting { field: "weight_max" }));
        assert_eq!(bits(1, 1, 1), Err(PlanError::Levels { got: 1 }));
    }

    #[test]
    fn as_many_levels_as_fit_32_bits() {
        for (cohort, weight, levels) in [(1, 1, LEVELS_MAX), (8, 100, (1 << 31) / 800), (1 << 15, 1 << 15, 2)] {
            let plan = Plan::new(cohort, by_examples(weight), Resolution::Fit32, vec![], 0).unwrap();
            assert_eq!((plan.levels(), plan.bits()), (levels, 32));
            assert_eq!(plan.remark(), None);
            // One more would not fit.
            let more = Plan::new(cohort, by_examples(weight), Resolution::Levels(levels + 1), vec![], 0);
            assert!(more.is_err() || more.unwrap().bits() == 33);
        }
        let refused = Plan::new(1 << 15, by_examples(1 << 16), Resolution::Fit32, vec![], 0);
        assert_eq!(refused, Err(PlanError::NoRoom { cohort_max: 1 << 15, weight_max: 1 << 16, levels: 1 }));
    }

    #[test]
    fn wide_words_are_remarked_on() {
        let plan = Plan::new(8, by_examples(1000), Resolution::Levels(1 << 24), vec![], 0).unwrap();
        assert_eq!(plan.bits(), 38);
        assert!(plan.remark().unwrap().contains("38 bits"));
    }

    #[test]
    fn weights_round_saturate_and_never_lose_a_device() {
        let weight = |examples| by_examples(10).weight(examples);
        let exact = |value| Weight { value, saturated: false };
        assert_eq!([0, 1, 149, 150, 1000].map(weight), [0, 1, 1, 2, 10].map(exact));
        assert_eq!(weight(1001), Weight { value: 10, saturated: true });
        assert_eq!(Weighting::Uniform.weight(0), exact(1));
        let largest = Weighting::ByExamples { examples_max: u64::MAX, weight_max: u32::MAX };
        assert_eq!(largest.weight(u64::MAX), exact(u32::MAX));
    }

    #[test]
    fn parts_start_at_byte_boundaries() {
        let section = |len| Section { name: "delta", len, range: 1.0, weighted: true };
        let sections = vec![section(13), section(8)];
        let plan = Plan::new(3, Weighting::Uniform, Resolution::Levels(100), sections, 1).unwrap();
        // 10 bits: limbs of 10 - 1 - 2 = 7 bits, 19 of them; 1 + 3 · 19 = 58 words, filled to 64.
        assert_eq!((plan.bits(), plan.header_bytes()), (10, 80));
        assert_eq!(plan.section_bytes(0, 0..13), 80..100);
        assert_eq!(plan.section_bytes(0, 9..10), 90..100);
        assert_eq!(plan.section_bytes(1, 0..8), 100..110);
        assert_eq!(plan.section_bytes(1, 3..3), 100..110);
        assert_eq!((plan.format().words(), plan.format().bytes()), (88, 110));
    }

    #[test]
    fn sizes_and_ranges_are_bounded() {
        let plan = |len, range| {
            let section = Section { name: "delta", len, range, weighted: true };
            Plan::new(2, Weighting::Uniform, Resolution::Fit32, vec![section], 0)
        };
        assert!(plan(1 << 30, 1.0).is_ok());
        for len in [usize::MAX, usize::MAX - 8, 1 << 32] {
            assert!(matches!(plan(len, 1.0), Err(PlanError::TooBig { .. })));
        }
        for range in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(matches!(plan(1, range), Err(PlanError::Range { section: "delta", .. })));
        }
        assert_eq!(Format::new(7, 32), Err(PlanError::Words { got: 7 }));
        assert_eq!(Format::new(8, 0), Err(PlanError::Bits { got: 0 }));
        assert_eq!(Format::new(8, 65), Err(PlanError::Bits { got: 65 }));
        assert!(matches!(Format::new(u64::MAX - 7, 64), Err(PlanError::TooBig { .. })));
    }
}
