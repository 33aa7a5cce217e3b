//! One data set cut into shares for n devices, for `up`, `sim` and `partition`.
//!
//! Real devices have their own data; a partition imitates how differently they may look. All are deterministic in the
//! seed, give every row to exactly one device, and list each share in ascending order. They cost O(rows + devices x
//! classes) and hold nothing but row numbers, so that a hundred thousand devices can share in memory.
//!
//! [`split`] names the ways to cut, [`quantity`] and [`labels`] are two of them, [`feature`] changes what devices see
//! instead of who gets it, [`skew`] says how uneven the result is.

use super::error::Invalid;
use super::random::{below, ln_gamma_draw, seeded, shuffle};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

pub mod feature;
mod labels;
mod quantity;
pub mod skew;
pub mod split;

pub use labels::by_label;
pub use quantity::{SizeLaw, by_quantity};

/// Each device's rows.
pub type Shares = Vec<Vec<usize>>;

/// Every device the same distribution: rows are dealt after a shuffle, shares differ by one row at most.
pub fn iid(rows: usize, devices: usize, seed: u64) -> Result<Shares, Invalid> {
    check_devices(rows, devices, 1)?;
    let mut order: Vec<usize> = (0..rows).collect();
    shuffle(&mut seeded("littoral data partition iid 1", seed), &mut order);
    let mut shares = vec![Vec::new(); devices];
    for (index, row) in order.into_iter().enumerate() {
        shares[index % devices].push(row);
    }
    Ok(ascending(shares))
}

/// Label skew: for each class, the devices' portions are drawn from a symmetric Dirichlet(alpha) distribution
/// (Yurochkin et al. 2019, "Bayesian nonparametric federated learning of neural networks", section 4; the distribution-
/// based label imbalance of Li et al. 2022, arXiv:2102.02079). Sizes differ as well as class mixtures.
///
/// A large alpha gives every device the whole's mixture, a small one gives each class to few devices. Every device has
/// `rows_min` rows at least: a device that drew fewer is filled with random rows of the one that has most.
pub fn dirichlet(classes: &[u32], devices: usize, alpha: f64, rows_min: usize, seed: u64) -> Result<Shares, Invalid> {
    check_devices(classes.len(), devices, rows_min)?;
    if !(ALPHA_MIN..=ALPHA_MAX).contains(&alpha) {
        return Err(Invalid::new("alpha", alpha, format!("{ALPHA_MIN} to {ALPHA_MAX}")));
    }
    let mut random = seeded("littoral data partition dirichlet 1", seed);
    let mut by_class = std::collections::BTreeMap::<u32, Vec<usize>>::new();
    for (row, class) in classes.iter().enumerate() {
        by_class.entry(*class).or_default().push(row);
    }
    let mut shares = vec![Vec::new(); devices];
    for rows in by_class.values_mut() {
        shuffle(&mut random, rows);
        // A Dirichlet draw is a vector of Gamma draws over their sum; relative to the largest, in logarithms.
        let draws: Vec<f64> = (0..devices).map(|_| ln_gamma_draw(&mut random, alpha)).collect();
        let largest = draws.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = draws.iter().map(|draw| libm::exp(draw - largest)).collect();
        let total: f64 = weights.iter().sum();
        // Cut at the rounded running sums: no row is lost or given twice.
        let (mut reached, mut start) = (0.0, 0);
        for (device, weight) in weights.iter().enumerate() {
            reached += weight;
            let share = (rows.len() as f64 * reached / total).round() as usize;
            let end = if device + 1 == devices { rows.len() } else { share.clamp(start, rows.len()) };
            shares[device].extend(&rows[start..end]);
            start = end;
        }
    }
    // The largest share first, of equal ones the first device's. Sizes in here may be out of date: they are compared
    // again when they come up.
    let mut largest: BinaryHeap<_> =
        shares.iter().enumerate().map(|(device, rows)| (rows.len(), Reverse(device))).collect();
    for device in 0..devices {
        while shares[device].len() < rows_min {
            // The largest share has more than `rows_min`, as long as some device has fewer: rows >= devices * rows_min.
            let Some((rows, Reverse(giver))) = largest.pop() else { break };
            if shares[giver].len() != rows {
                continue;
            }
            let taken = below(&mut random, rows);
            let row = shares[giver].swap_remove(taken);
            shares[device].push(row);
            largest.push((rows - 1, Reverse(giver)));
        }
    }
    Ok(ascending(shares))
}

/// Range of the Dirichlet parameter: below the first every class goes to one device, above the last it is IID.
const ALPHA_MIN: f64 = 0.001;
const ALPHA_MAX: f64 = 1e6;

/// By a column: the rows of one hospital, speaker or writer stay together. `groups[row]` is any number that names the
/// group. With as many devices as groups each gets one; with fewer, groups go, largest first, to the device that has
/// fewest rows.
pub fn by_group(groups: &[u32], devices: usize) -> Result<Shares, Invalid> {
    check_devices(groups.len(), devices, 1)?;
    let mut members = std::collections::BTreeMap::<u32, Vec<usize>>::new();
    for (row, group) in groups.iter().enumerate() {
        members.entry(*group).or_default().push(row);
    }
    if devices > members.len() {
        return Err(Invalid::new(
            "devices",
            devices,
            format!("1 to {}: the column has that many groups", members.len()),
        ));
    }
    let mut members: Vec<Vec<usize>> = members.into_values().collect();
    // Stable: among groups of one size the lower number comes first.
    members.sort_by_key(|rows| std::cmp::Reverse(rows.len()));
    let mut shares: Shares = vec![Vec::new(); devices];
    for rows in members {
        let smallest =
            (0..devices).fold(0, |best, next| if shares[next].len() < shares[best].len() { next } else { best });
        shares[smallest].extend(rows);
    }
    Ok(ascending(shares))
}

fn check_devices(rows: usize, devices: usize, rows_min: usize) -> Result<(), Invalid> {
    let devices_max = rows / rows_min.max(1);
    if devices == 0 || devices > devices_max {
        let allowed = format!("1 to {devices_max}: {rows} rows, at least {} for each device", rows_min.max(1));
        return Err(Invalid::new("devices", devices, allowed));
    }
    Ok(())
}

fn ascending(mut shares: Shares) -> Shares {
    shares.iter_mut().for_each(|rows| rows.sort_unstable());
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn every_row_once(shares: &Shares, rows: usize) {
        let mut all: Vec<usize> = shares.concat();
        all.sort_unstable();
        assert_eq!(all, (0..rows).collect::<Vec<_>>());
    }

    /// Mean over devices of the share of the device's most frequent class.
    fn purity(shares: &Shares, classes: &[u32]) -> f64 {
        let pure = |rows: &Vec<usize>| {
            let mut counts = [0u32; 10];
            rows.iter().for_each(|row| counts[classes[*row] as usize] += 1);
            f64::from(*counts.iter().max().expect("ten")) / rows.len() as f64
        };
        shares.iter().map(pure).sum::<f64>() / shares.len() as f64
    }

    #[test]
    fn alpha_goes_from_one_class_each_to_iid() {
        let classes: Vec<u32> = (0..10_000).map(|row| row % 10).collect();
        let skewed = dirichlet(&classes, 10, 0.01, 10, 3).expect("partitions");
        let even = dirichlet(&classes, 10, 1e6, 10, 3).expect("partitions");
        assert!(purity(&skewed, &classes) > 0.5, "{}", purity(&skewed, &classes));
        // Ten classes, portions equal to within 1 % at this alpha: a tenth each.
        assert!(purity(&even, &classes) < 0.11, "{}", purity(&even, &classes));
        assert_ne!(skewed, dirichlet(&classes, 10, 0.01, 10, 4).expect("another seed"));
    }

    /// The same bits on every kind of machine: the digest is of x86-64, and 64-bit ARM gives it too.
    #[test]
    fn a_seed_names_one_partition() {
        let classes: Vec<u32> = (0..10_000).map(|row| row % 7).collect();
        let shares = dirichlet(&classes, 40, 0.3, 5, 9).expect("partitions");
        let mut digest = blake3::Hasher::new();
        for (device, row) in
            shares.iter().enumerate().flat_map(|(device, rows)| rows.iter().map(move |row| (device, row)))
        {
            digest.update(&[device as u32, *row as u32].map(u32::to_le_bytes).concat());
        }
        assert_eq!(
            digest.finalize().to_hex().as_str(),
            "48aeb107e1fb005bda951f2ee06ebb81f07ac2db67753075313aa6e692fdf355"
        );
    }

    #[test]
    fn groups_stay_together() {
        let groups = [7, 7, 7, 1, 1, 9];
        assert_eq!(by_group(&groups, 3).expect("three"), [vec![0, 1, 2], vec![3, 4], vec![5]]);
        assert_eq!(by_group(&groups, 2).expect("two"), [vec![0, 1, 2], vec![3, 4, 5]]);
        assert_eq!(by_group(&groups, 4).expect_err("too many").field, "devices");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(iid(3, 4, 0).expect_err("rows").field, "devices");
        assert_eq!(iid(3, 0, 0).expect_err("none").field, "devices");
        assert_eq!(dirichlet(&[0; 10], 3, 1.0, 4, 0).expect_err("rows").field, "devices");
        for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(dirichlet(&[0; 10], 2, alpha, 1, 0).expect_err("alpha").field, "alpha");
        }
    }

    proptest! {
        #[test]
        fn every_row_goes_to_one_device(
            classes in proptest::collection::vec(0u32..5, 20..200),
            devices in 1usize..10,
            alpha in 0.01..10.0f64,
            rows_min in 0usize..3,
            seed: u64,
        ) {
            let rows = classes.len();
            let shares = dirichlet(&classes, devices, alpha, rows_min, seed).expect("partitions");
            every_row_once(&shares, rows);
            prop_assert!(shares.iter().all(|share| share.len() >= rows_min));
            prop_assert_eq!(&shares, &dirichlet(&classes, devices, alpha, rows_min, seed).expect("again"));
            let shares = iid(rows, devices, seed).expect("partitions");
            every_row_once(&shares, rows);
            prop_assert!(shares.iter().all(|share| share.len().abs_diff(rows / devices) <= 1));
        }
    }
}
