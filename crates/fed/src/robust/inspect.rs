//! What whoever reads a plain update can check of it before it counts: that its words are such as an honest device's plan
//! makes, and that its delta is no longer than the job's bound. An edge does, chunk by chunk as it reads its spool.
//!
//! Not checked, because nobody can: whether the numbers were learnt from rows. And nothing at all is seen of masked words.

use crate::plan::{GROUP, Plan};
use crate::seal::l2_after_rounding;
use littoral_tensor::fixed::{self, FixedError};
use thiserror::Error;

/// Words that are unpacked at a time, whole groups.
const WORDS: usize = 4096;

/// An update that is being read from front to back.
#[derive(Debug)]
pub struct Inspection {
    plan: Plan,
    bound: Option<f32>,
    /// Bytes behind the last whole group: fewer than a group has.
    open: Vec<u8>,
    /// Words that were read.
    read: u64,
    header: Vec<u8>,
    /// `None` before the first group.
    weight: Option<i64>,
    /// Σ v² of the first section.
    squares: f64,
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum Malformed {
    #[error("an update of this collection has {expected} bytes, got {got}")]
    Length { expected: usize, got: usize },
    #[error("a weight is 0 to {most} in this job, the update says {got}")]
    Weight { most: u32, got: i64 },
    #[error(
        "section `{section}`, coordinate {coordinate}: at most {levels} steps times weight {weight} expected, got {got}"
    )]
    Coordinate { section: &'static str, coordinate: u64, levels: u32, weight: i64, got: i64 },
    #[error("word {word} only fills a part up: 0 expected, got {got}")]
    Filling { word: u64, got: i64 },
    #[error("update norm {norm:.4} above norm_bound {bound}")]
    Norm { norm: f64, bound: f32 },
    #[error("{what} of held-out rows: {allowed} expected, got {got}")]
    Counts { what: &'static str, allowed: String, got: i128 },
    #[error("{what}: {allowed} expected, got something else")]
    Told { what: &'static str, allowed: &'static str },
    #[error(transparent)]
    Fixed(#[from] FixedError),
}

impl Inspection {
    pub fn new(plan: &Plan, bound: Option<f32>) -> Self {
        let plan = plan.clone();
        Self { plan, bound, open: Vec::new(), read: 0, header: Vec::new(), weight: None, squares: 0.0 }
    }

    /// All at once, for an update that is in memory.
    pub fn of(plan: &Plan, bound: Option<f32>, update: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut inspection = Self::new(plan, bound);
        inspection.push(update)?;
        inspection.finish()
    }

    /// The next bytes, as many as there are.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let group = self.plan.bits() as usize;
        let mut rest = bytes;
        if !self.open.is_empty() {
            let (head, tail) = rest.split_at((group - self.open.len()).min(rest.len()));
            self.open.extend_from_slice(head);
            rest = tail;
            if self.open.len() < group {
                return Ok(());
            }
            let whole = std::mem::take(&mut self.open);
            self.groups(&whole)?;
        }
        let (whole, tail) = rest.split_at(rest.len() / group * group);
        whole.chunks(WORDS / GROUP * group).try_for_each(|some| self.groups(some))?;
        self.open.extend_from_slice(tail);
        Ok(())
    }

    /// All bytes are in. Returns the whole part's, which [`crate::open::open_header`] reads.
    pub fn finish(self) -> Result<Vec<u8>, Malformed> {
        let Self { plan, bound, open, read, header, squares, .. } = self;
        let got = (read / GROUP as u64 * u64::from(plan.bits())) as usize + open.len();
        if got != plan.format().bytes() {
            return Err(Malformed::Length { expected: plan.format().bytes(), got });
        }
        if let (Some(bound), Some(section)) = (bound, plan.sections().first()) {
            // Devices clip before they round, and rounding may lengthen by half a step in each coordinate.
            let (norm, step) = (squares.sqrt() * plan.step(0), plan.step(0));
            if norm > l2_after_rounding(bound, step, section.len) * (1.0 + 1e-9) {
                return Err(Malformed::Norm { norm, bound });
            }
        }
        Ok(header)
    }

    fn groups(&mut self, packed: &[u8]) -> Result<(), Malformed> {
        let plan = &self.plan;
        let count = packed.len() / plan.bits() as usize * GROUP;
        let mut words = [0i64; WORDS];
        let words = &mut words[..count];
        fixed::unpack(packed, plan.bits(), words)?;
        let first = self.read;
        self.read += count as u64;
        if self.read > plan.format().words() {
            let got = (self.read / GROUP as u64 * u64::from(plan.bits())) as usize;
            return Err(Malformed::Length { expected: plan.format().bytes(), got });
        }
        let weight = match self.weight {
            Some(weight) => weight,
            None => {
                let most = plan.weight_max();
                if !(0..=i64::from(most)).contains(&words[0]) {
                    return Err(Malformed::Weight { most, got: words[0] });
                }
                *self.weight.insert(words[0])
            }
        };
        let mut at = 0;
        let header = plan.header_words().saturating_sub(first as usize).min(count);
        if header > 0 {
            self.header.extend_from_slice(&packed[..header / GROUP * plan.bits() as usize]);
            at = header;
        }
        while at < count {
            let word = first + at as u64;
            let section = plan.section_of(word);
            let (begins, ends) = plan.section_words(section);
            let here = &words[at..count.min((ends - first) as usize)];
            let told = &plan.sections()[section];
            let times = if told.weighted { weight } else { 1 };
            let most = i64::from(plan.levels()) * times;
            for (i, &value) in here.iter().enumerate() {
                let coordinate = word + i as u64 - begins;
                if coordinate >= told.len as u64 {
                    if value != 0 {
                        return Err(Malformed::Filling { word: word + i as u64, got: value });
                    }
                } else if value.unsigned_abs() > most as u64 || (times > 1 && value % times != 0) {
                    let (section, levels) = (told.name, plan.levels());
                    return Err(Malformed::Coordinate { section, coordinate, levels, weight: times, got: value });
                }
            }
            if section == 0 && self.bound.is_some() {
                let unit = times.max(1) as f64;
                self.squares += here.iter().map(|&value| value as f64 / unit).map(|v| v * v).sum::<f64>();
            }
            at += here.len();
        }
        Ok(())
    }
}
