//! Pathological label skew: every device has rows of k classes only (McMahan et al. 2017, "Communication-efficient
//! learning of deep networks from decentralized data", section 3, where k = 2; as drawn here, Li et al. 2022,
//! arXiv:2102.02079, section 4.1: k class numbers for each device, and each class dealt evenly among those who have it).

use super::{Shares, ascending, check_devices};
use crate::data::error::Invalid;
use crate::data::random::{below, seeded, shuffle};
use std::collections::BTreeMap;

/// `k` is how many classes a device has, 1 to all of them. A device's first class goes round, so that every class has
/// somebody; the others are drawn.
pub fn by_label(classes: &[u32], devices: usize, k: usize, seed: u64) -> Result<Shares, Invalid> {
    check_devices(classes.len(), devices, 1)?;
    let mut by_class = BTreeMap::<u32, Vec<usize>>::new();
    for (row, class) in classes.iter().enumerate() {
        by_class.entry(*class).or_default().push(row);
    }
    let mut members: Vec<Vec<usize>> = by_class.into_values().collect();
    let count = members.len();
    if k == 0 || k > count {
        return Err(Invalid::new("label", k, format!("1 to {count} classes for each device")));
    }
    if devices * k < count {
        let allowed = format!("at least {}: the {count} classes need somebody each", count.div_ceil(k));
        return Err(Invalid::new("devices", devices, allowed));
    }
    let mut random = seeded("littoral data partition label 1", seed);
    // The classes in an order of their own, so that classes and devices do not go in step.
    let mut order: Vec<usize> = (0..count).collect();
    shuffle(&mut random, &mut order);
    let mut owners = vec![Vec::<usize>::new(); count];
    for device in 0..devices {
        let mut mine: Vec<usize> = Vec::with_capacity(k);
        for turn in 0..k {
            // While devices x turns do not reach all classes yet, the next one in order; after that, any other.
            let next = turn * devices + device;
            let mut class = if next < count || turn == 0 { order[next % count] } else { below(&mut random, count) };
            while mine.contains(&class) {
                class = below(&mut random, count);
            }
            mine.push(class);
            owners[class].push(device);
        }
    }
    let mut shares = vec![Vec::new(); devices];
    for (rows, owners) in members.iter_mut().zip(&mut owners) {
        shuffle(&mut random, rows);
        // Who gets one row more is by chance too.
        shuffle(&mut random, owners);
        for (at, row) in rows.iter().enumerate() {
            shares[owners[at % owners.len()]].push(*row);
        }
    }
    if shares.iter().any(Vec::is_empty) {
        let allowed = "fewer: with so many, some get no row of their classes";
        return Err(Invalid::new("devices", devices, allowed));
    }
    Ok(ascending(shares))
}
