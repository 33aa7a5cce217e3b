//! A total becomes numbers again, where the algorithm's cloud half can use them.
//!
//! The whole part is opened first ([`open_header`]); sections are opened a range of coordinates at a time into the
//! caller's buffer ([`open_section`]), so that a cloud can stream a model of any size from its store. Only a plan tells
//! what the words mean.

use crate::plan::{GROUP, LOSS_PER_UNIT, Plan};
use crate::whole;
use littoral_tensor::fixed::{self, FixedError};
use std::ops::Range;
use thiserror::Error;

/// What a total's whole part says.
#[derive(Clone, Debug, PartialEq)]
pub struct Totals {
    /// Devices in the sum.
    pub devices: u64,
    /// Σ weight; what a weighted section's sum is divided by.
    pub weight_sum: u64,
    /// Coordinates that lay outside their section's range, over all devices.
    pub saturated: u64,
    /// Weighted mean of the devices' training losses; `None` without sections or weight.
    pub loss: Option<f64>,
    /// Σ of each of the algorithm's exact integers.
    pub wholes: Vec<i128>,
}

/// From a sum's integer to the devices' mean, for one section.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    step: f64,
    divisor: f64,
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum OpenError {
    #[error("{what}: {expected} expected, got {got}")]
    Length { what: &'static str, expected: usize, got: usize },
    #[error("the plan's sums have room for {cohort_max} devices, this one holds {got}")]
    TooManyDevices { cohort_max: u32, got: u64 },
    #[error("{devices} devices weigh 0 to {weight_max} each, the sum says {got}: an update was malformed")]
    Weight { devices: u64, weight_max: u32, got: i64 },
    #[error("section {section} has {len} coordinates, {start}..{end} were asked for")]
    Coordinates { section: usize, len: usize, start: usize, end: usize },
    #[error("no device in the sum has any weight, so there is no mean")]
    NoWeight,
    #[error(transparent)]
    Fixed(#[from] FixedError),
}

/// Opens the whole part of a sum over `devices` devices: its first `plan.header_bytes()` bytes.
pub fn open_header(plan: &Plan, devices: u64, header: &[u8]) -> Result<Totals, OpenError> {
    expect("bytes of the whole part", plan.header_bytes(), header.len())?;
    if devices > u64::from(plan.cohort_max()) {
        return Err(OpenError::TooManyDevices { cohort_max: plan.cohort_max(), got: devices });
    }
    let mut words = vec![0; plan.header_words()];
    fixed::unpack(header, plan.bits(), &mut words)?;

    let weight_max = plan.weight_max();
    let weight_sum = match u64::try_from(words[0]) {
        Ok(sum) if sum <= devices * u64::from(weight_max) => sum,
        _ => return Err(OpenError::Weight { devices, weight_max, got: words[0] }),
    };
    let mut integers =
        words[1..].chunks_exact(whole::limbs(plan.limb_bits())).map(|limbs| whole::join(limbs, plan.limb_bits()));
    let (mut saturated, mut loss) = (0, None);
    if plan.reports() {
        saturated = integers.next().map_or(0, |sum| sum.clamp(0, u64::MAX.into()) as u64);
        loss = integers.next().filter(|_| weight_sum > 0).map(|sum| sum as f64 / LOSS_PER_UNIT / weight_sum as f64);
    }
    Ok(Totals { devices, weight_sum, saturated, loss, wholes: integers.take(plan.wholes()).collect() })
}

/// Opens some coordinates of a section into `out`, as integers that sum the devices' words. `bytes` are those at
/// `plan.section_bytes(section, coordinates)` of the sum.
pub fn open_section(
    plan: &Plan,
    section: usize,
    coordinates: Range<usize>,
    bytes: &[u8],
    out: &mut [i64],
) -> Result<(), OpenError> {
    let Range { start, end } = coordinates.clone();
    let len = plan.sections().get(section).map_or(0, |section| section.len);
    if section >= plan.sections().len() || start > end || end > len {
        return Err(OpenError::Coordinates { section, len, start, end });
    }
    expect("coordinates to open", end - start, out.len())?;
    expect("bytes of the section", plan.section_bytes(section, coordinates).len(), bytes.len())?;

    // Neighbours of the first coordinates in their group come along; they are read and dropped.
    let lead = start % GROUP;
    let (head, rest) = out.split_at_mut(if lead == 0 { 0 } else { (GROUP - lead).min(end - start) });
    let (head_bytes, rest_bytes) = bytes.split_at(if head.is_empty() { 0 } else { plan.bits() as usize });
    if !head.is_empty() {
        let mut group = [0; GROUP];
        fixed::unpack(head_bytes, plan.bits(), &mut group)?;
        head.copy_from_slice(&group[lead..lead + head.len()]);
    }
    if !rest.is_empty() {
        fixed::unpack(rest_bytes, plan.bits(), rest)?;
    }
    Ok(())
}

impl Totals {
    /// How a section's sums become means: over the weights if it is weighted, else over the devices. Panics past the
    /// last section.
    pub fn mean(&self, plan: &Plan, section: usize) -> Result<Mean, OpenError> {
        let divisor = if plan.sections()[section].weighted { self.weight_sum } else { self.devices };
        match divisor {
            0 => Err(OpenError::NoWeight),
            _ => Ok(Mean { step: plan.step(section), divisor: divisor as f64 }),
        }
    }
}

impl Mean {
    /// sum · step / divisor. The sum is exact up to 2^53; there are three roundings to f64 at most.
    pub fn of(self, sum: f64) -> f64 {
        sum * self.step / self.divisor
    }
}

fn expect(what: &'static str, expected: usize, got: usize) -> Result<(), OpenError> {
    match expected == got {
        true => Ok(()),
        false => Err(OpenError::Length { what, expected, got }),
    }
}
