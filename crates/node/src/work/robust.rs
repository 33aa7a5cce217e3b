//! What a robust rule says of updates that were not summed: read block by block from all lists at once.
//!
//! Of each block all rows are in memory, at most 32 MB of them, and one row as it is read. A rule that needs distances makes
//! the cloud read all updates once more for each of its looks.

use super::WorkFault;
use super::apply::{Partials, refused};
use crate::job::BLOCK;
use littoral_fed::open::open_section;
use littoral_fed::plan::Plan;
use littoral_fed::robust::{Block, Judge, Rule, block_len};
use std::ops::Range;

/// The one section that a rule judges: the delta.
const DELTA: usize = 0;

/// A rule over the updates of one collection, all looks taken.
pub(super) struct Unmerged<'a> {
    plan: &'a Plan,
    updates: &'a Partials<'a>,
    judge: Box<dyn Judge>,
    /// Coordinates of a block.
    len: usize,
    /// Row by row.
    values: Vec<i32>,
    words: Vec<i64>,
    packed: Vec<u8>,
}

impl<'a> Unmerged<'a> {
    pub fn judged(rule: &dyn Rule, plan: &'a Plan, updates: &'a Partials<'a>) -> Result<Self, WorkFault> {
        let (devices, least) = (updates.rows(), rule.least());
        if devices < least {
            return Err(refused(format!("{} needs at least {least} updates, got {devices}", rule.name())));
        }
        let (len, judge) = (block_len(devices, BLOCK), rule.judge(devices, plan.step(DELTA)));
        let (values, words, packed) = (Vec::new(), Vec::new(), Vec::new());
        let mut all = Self { plan, updates, judge, len, values, words, packed };
        while all.judge.looks() {
            for block in cut(0..plan.sections()[DELTA].len, len) {
                all.read(block.clone())?;
                all.judge.look(&Block::new(&all.values, block.len()));
            }
            all.judge.looked();
        }
        Ok(all)
    }

    /// Rows whose updates the rule took, if it left others out.
    pub fn chosen(&self) -> &[usize] {
        self.judge.chosen()
    }

    /// What stands in for the sum at these coordinates.
    pub fn sum(&mut self, coordinates: Range<usize>, sum: &mut [f64]) -> Result<(), WorkFault> {
        let first = coordinates.start;
        for block in cut(coordinates, self.len) {
            self.read(block.clone())?;
            let out = &mut sum[block.start - first..block.end - first];
            self.judge.sum(&Block::new(&self.values, block.len()), out);
        }
        Ok(())
    }

    /// All rows of a block.
    fn read(&mut self, block: Range<usize>) -> Result<(), WorkFault> {
        self.values.clear();
        self.words.resize(block.len(), 0);
        let place = self.plan.section_bytes(DELTA, block.clone());
        for row in 0..self.updates.rows() {
            self.updates.read_row(row, place.clone(), &mut self.packed)?;
            open_section(self.plan, DELTA, block.clone(), &self.packed, &mut self.words).map_err(refused)?;
            // Weights are 1, so an honest coordinate has 32 bits at most; edges refuse others.
            let narrow = |word: &i64| (*word).clamp(i32::MIN.into(), i32::MAX.into()) as i32;
            self.values.extend(self.words.iter().map(narrow));
        }
        Ok(())
    }
}

/// Blocks of `len` coordinates, from the first on.
fn cut(coordinates: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let end = coordinates.end;
    coordinates.step_by(len).map(move |first| first..end.min(first + len))
}
