//! Robust rules: what stands in for the sum of updates where some devices may lie. One file each, its paper named.
//!
//! A sum hides nobody and stops nobody: one device that sends a huge vector moves it anywhere. A [`Rule`] looks at the
//! updates one by one, all of a collection side by side, and says a value that a minority cannot drag far:
//!
//! | file | what it says | liars that it bears |
//! |---|---|---|
//! | `median` | per coordinate, the middle value | fewer than half |
//! | `trimmed_mean` | per coordinate, the mean without the `trim` smallest and largest | `trim` |
//! | `krum` | the update nearest its neighbours, or the mean of several such | `byzantine`, of 2f + 3 and more |
//! | `bulyan` | Krum's choices, then per coordinate the mean of those nearest their median | `byzantine`, of 4f + 3 and more |
//! | `geometric_median` | the point with the least sum of distances to all updates | fewer than half |
//!
//! `weiszfeld` is the geometric median by sums alone, for jobs whose updates nobody sees.
//!
//! Beside a rule, or without one, a job may bound the norm of each update: `inspect` has what a reader of a plain update
//! can check of it.
//!
//! What no rule here does: find out who lies, keep a liar from being drawn again, or judge what devices say beside their
//! vectors (losses, counts of right answers, statistics of columns: those stay sums).
//!
//! **In blocks.** Updates do not fit into memory together. A rule sees a [`Block`] at a time, all devices' values of some
//! neighbouring coordinates; one that needs distances between whole updates first takes a [`Judge::look`] at every block.
//! **The same bits.** Rows stand in the order of the devices' names, values are the integers that devices sent, and
//! distances are added in one order whatever the cut ([`distance`]). So neither the order of arrival, nor the tree, nor the
//! size of blocks leaves a trace.

pub mod bulyan;
mod distance;
pub mod geometric_median;
pub mod inspect;
pub mod krum;
pub mod median;
pub mod trimmed_mean;
pub mod weiszfeld;

pub use distance::Pairs;

use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// Blocks are cut at multiples of this, so that distances have the same bits.
pub const ALIGN: usize = distance::GROUP;
/// Memory of a block in bytes, at most; with what it is read from an applying cloud stays below 64 MB.
const BLOCK_BYTES_MAX: usize = 32 << 20;
/// Devices whose updates are compared in pairs, at most: their distances take 16 MB.
pub const PAIRS_MAX: u32 = 2_048;

/// What a job says: `[robust]`. Each rule reads its own parameters; those of others are refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobustSpec {
    /// Default `mean`: sums, as without any of this, for jobs that only bound norms.
    #[serde(default)]
    pub rule: RuleName,
    /// Above 0. An update whose delta is longer (L2, in the model's units) is refused; devices clip theirs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm_bound: Option<f32>,
    /// `trimmed_mean`: values dropped at each end, below half of `cohort.min`. 0 gives the mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trim: Option<u32>,
    /// `krum`, `multi_krum`, `bulyan`: liars that are borne, the papers' f.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byzantine: Option<u32>,
    /// `multi_krum`: updates that are averaged, the paper's m: 1 to n − f − 2. 1 gives Krum. Default: n − f − 2 of the n that came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<u32>,
    /// `geometric_median`: steps of Weiszfeld's algorithm, 1 to 100; each reads all updates once. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterations: Option<u32>,
    /// `geometric_median`: distances below this, in the model's units, count as this much. Above 0. Default 1e-6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoothing: Option<f32>,
}

/// Every rule that a job may name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleName {
    #[default]
    Mean,
    Median,
    TrimmedMean,
    Krum,
    MultiKrum,
    Bulyan,
    GeometricMedian,
}

impl RuleName {
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Median => "median",
            Self::TrimmedMean => "trimmed_mean",
            Self::Krum => "krum",
            Self::MultiKrum => "multi_krum",
            Self::Bulyan => "bulyan",
            Self::GeometricMedian => "geometric_median",
        }
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A parameter outside its range, or of another rule.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("robust.{field}: {allowed} expected, got {got}")]
pub struct SpecError {
    pub field: &'static str,
    pub allowed: String,
    pub got: String,
}

/// Fewer updates than a rule can say anything about.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{rule} needs at least {least} updates, got {got}")]
pub struct TooFew {
    pub rule: &'static str,
    pub least: usize,
    pub got: usize,
}

/// How the updates of a collection become one.
pub trait Rule: Send + Sync + fmt::Debug {
    fn name(&self) -> RuleName;

    /// Fewest updates that it says anything about.
    fn least(&self) -> usize;

    /// For a collection of so many devices, whose coordinates are in steps of `step` of the model's units.
    fn judge(&self, devices: usize, step: f64) -> Box<dyn Judge>;

    /// What it bears, for people.
    fn bears(&self) -> String;
}

/// A rule over the updates of one collection. While [`Judge::looks`], every block of the section is shown in order and
/// [`Judge::looked`] follows; after that [`Judge::sum`] may be asked for any block.
pub trait Judge: Send {
    /// Must all coordinates be seen (once more) before a value can be said?
    fn looks(&self) -> bool {
        false
    }

    fn look(&mut self, _block: &Block<'_>) {}

    /// All blocks were shown.
    fn looked(&mut self) {}

    /// Rows that the value comes from, in any order, if others were left out; after all looks.
    fn chosen(&self) -> &[usize] {
        &[]
    }

    /// What stands in for the devices' sum at each coordinate of the block: the rule's value times the number of devices.
    fn sum(&self, block: &Block<'_>, out: &mut [f64]);
}

/// What all devices sent at some neighbouring coordinates, in steps: a row per device, in the order of their names. (Or their
/// models' values there, in f32.)
#[derive(Clone, Copy, Debug)]
pub struct Block<'a, T = i32> {
    values: &'a [T],
    len: usize,
}

impl<'a, T> Block<'a, T> {
    /// `values`: rows of `len` each.
    pub fn new(values: &'a [T], len: usize) -> Self {
        debug_assert!(len > 0 && values.len().is_multiple_of(len));
        Self { values, len }
    }

    /// Coordinates.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn devices(&self) -> usize {
        self.values.len() / self.len
    }

    pub fn row(&self, device: usize) -> &'a [T] {
        &self.values[device * self.len..(device + 1) * self.len]
    }

    pub fn rows(&self) -> impl ExactSizeIterator<Item = &'a [T]> + use<'a, T> {
        self.values.chunks_exact(self.len)
    }
}

impl Block<'_> {
    /// All devices' values of one coordinate, into `column`.
    fn column(&self, coordinate: usize, column: &mut Vec<i32>) {
        column.clear();
        column.extend(self.rows().map(|row| row[coordinate]));
    }
}

/// Coordinates of a block of so many devices: a multiple of [`ALIGN`], at most `most`.
pub fn block_len(devices: usize, most: usize) -> usize {
    let fit = BLOCK_BYTES_MAX / (size_of::<i32>() * devices.max(1));
    (fit.min(most) / ALIGN).max(1) * ALIGN
}

/// The sum of one coordinate over some rows. Whole numbers: in any order the same.
fn total(values: impl IntoIterator<Item = i32>) -> f64 {
    values.into_iter().map(i64::from).sum::<i64>() as f64
}

impl RobustSpec {
    /// The rule, if its parameters are in range for collections of `min` to `most` devices; `None`: sums.
    pub fn build(&self, min: u32, most: u32) -> Result<Option<Box<dyn Rule>>, SpecError> {
        let Self { rule, norm_bound, trim, byzantine, select, iterations, smoothing } = *self;
        if let Some(bound) = norm_bound.filter(|bound| !(*bound > 0.0 && bound.is_finite())) {
            return wrong("norm_bound", "a finite number above 0", bound);
        }
        use RuleName::*;
        let of = |field, given: Option<String>, rules: &[RuleName]| match given {
            Some(got) if !rules.contains(&rule) => {
                let rules: Vec<_> = rules.iter().map(|rule| rule.name()).collect();
                wrong(
                    field,
                    format!("none, since it is a parameter of {} and the rule is {rule}", rules.join(", ")),
                    got,
                )
            }
            _ => Ok(()),
        };
        of("trim", trim.map(|v| v.to_string()), &[TrimmedMean])?;
        of("byzantine", byzantine.map(|v| v.to_string()), &[Krum, MultiKrum, Bulyan])?;
        of("select", select.map(|v| v.to_string()), &[MultiKrum])?;
        of("iterations", iterations.map(|v| v.to_string()), &[GeometricMedian])?;
        of("smoothing", smoothing.map(|v| v.to_string()), &[GeometricMedian])?;
        let given = |field, value: Option<u32>| match value {
            Some(value) => Ok(value),
            None => wrong(field, format!("a number, since the rule is {rule}"), "none"),
        };
        let built: Box<dyn Rule> = match rule {
            Mean => {
                return match norm_bound {
                    Some(_) => Ok(None),
                    None => wrong("rule", "a rule, a norm_bound, or no [robust]", "mean without a norm_bound"),
                };
            }
            Median => Box::new(median::Median {}),
            TrimmedMean => Box::new(trimmed_mean::TrimmedMean { trim: given("trim", trim)? }),
            Krum => Box::new(krum::Krum { byzantine: given("byzantine", byzantine)?, select: Some(1), name: rule }),
            MultiKrum => {
                let byzantine = given("byzantine", byzantine)?;
                // Said before the number that is bounded by it.
                least(&krum::Krum { byzantine, select, name: rule }, min)?;
                if let Some(select) = select
                    && !(1..=min - byzantine - 2).contains(&select)
                {
                    let allowed = format!("1 to {}, cohort.min less byzantine less 2", min - byzantine - 2);
                    return wrong("select", allowed, select);
                }
                Box::new(krum::Krum { byzantine, select, name: rule })
            }
            Bulyan => Box::new(bulyan::Bulyan { byzantine: given("byzantine", byzantine)? }),
            GeometricMedian => {
                let (iterations, smoothing) = (iterations.unwrap_or(3), smoothing.unwrap_or(1e-6));
                if !(1..=100).contains(&iterations) {
                    return wrong("iterations", "1 to 100", iterations);
                }
                if !(smoothing > 0.0 && smoothing.is_finite()) {
                    return wrong("smoothing", "a finite number above 0", smoothing);
                }
                Box::new(geometric_median::GeometricMedian { iterations, smoothing })
            }
        };
        least(&*built, min)?;
        if matches!(rule, Krum | MultiKrum | Bulyan) && most > PAIRS_MAX {
            let allowed =
                format!("another rule, or cohorts of at most {PAIRS_MAX} devices, which {rule} compares in pairs");
            return wrong("rule", allowed, format!("{most} devices"));
        }
        Ok(Some(built))
    }
}

fn least(rule: &dyn Rule, min: u32) -> Result<(), SpecError> {
    let (least, field) = (rule.least(), if rule.name() == RuleName::TrimmedMean { "trim" } else { "byzantine" });
    match (min as usize) < least {
        true => {
            let allowed = format!("a cohort.min of at least {least}, since the rule bears {}", rule.bears());
            wrong(field, allowed, format!("cohort.min = {min}"))
        }
        false => Ok(()),
    }
}

fn wrong<T>(field: &'static str, allowed: impl Into<String>, got: impl ToString) -> Result<T, SpecError> {
    Err(SpecError { field, allowed: allowed.into(), got: got.to_string() })
}

/// A rule over updates that are all in memory, each a row of whole numbers in the order of the devices' names, `block_len`
/// coordinates at a time, which changes no bit. For tests and small things; the cloud reads blocks from its disk.
pub fn sum_of(rule: &dyn Rule, rows: &[Vec<i32>], step: f64, block_len: usize) -> Result<Vec<f64>, TooFew> {
    if rows.len() < rule.least() {
        return Err(TooFew { rule: rule.name().name(), least: rule.least(), got: rows.len() });
    }
    let block_len = (block_len / ALIGN).max(1) * ALIGN;
    let len = rows.first().map_or(0, Vec::len);
    let mut judge = rule.judge(rows.len(), step);
    let mut out = vec![0.0; len];
    let mut values = Vec::new();
    loop {
        let looks = judge.looks();
        for first in (0..len).step_by(block_len) {
            let end = len.min(first + block_len);
            values.clear();
            rows.iter().for_each(|row| values.extend_from_slice(&row[first..end]));
            let block = Block::new(&values, end - first);
            match looks {
                true => judge.look(&block),
                false => judge.sum(&block, &mut out[first..end]),
            }
        }
        if !looks {
            return Ok(out);
        }
        judge.looked();
    }
}
