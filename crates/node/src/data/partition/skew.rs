//! How uneven a partition is, in the numbers that papers give: sizes, and how far a device's label shares are from the
//! whole's.

/// A partition in four numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Skew {
    pub smallest: usize,
    pub median: usize,
    pub largest: usize,
    /// Mean over devices of the total-variation distance, half the sum of absolute differences, between the device's
    /// label shares and the whole's: 0 all alike, towards 1 no class in common. None without labels.
    pub label_distance: Option<f64>,
}

/// Each device's rows of each class.
pub fn counts(shares: &[Vec<usize>], classes: &[u32], class_count: usize) -> Vec<Vec<u64>> {
    let of = |rows: &Vec<usize>| {
        let mut counts = vec![0; class_count];
        rows.iter().for_each(|row| counts[classes[*row] as usize] += 1);
        counts
    };
    shares.iter().map(of).collect()
}

impl Skew {
    /// `counts`: by device, by class, if rows have classes.
    pub fn of(shares: &[Vec<usize>], counts: Option<&[Vec<u64>]>) -> Self {
        let mut sizes: Vec<usize> = shares.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        let at = |place: usize| sizes.get(place).copied().unwrap_or(0);
        let label_distance = counts.map(|counts| {
            let classes = counts.first().map_or(0, Vec::len);
            let whole: Vec<u64> = (0..classes).map(|class| counts.iter().map(|mine| mine[class]).sum()).collect();
            let shares_of = |counts: &[u64]| {
                let total = counts.iter().sum::<u64>().max(1) as f64;
                counts.iter().map(|count| *count as f64 / total).collect::<Vec<_>>()
            };
            let whole = shares_of(&whole);
            let distance = |mine: &Vec<u64>| -> f64 {
                shares_of(mine).iter().zip(&whole).map(|(mine, whole)| (mine - whole).abs()).sum::<f64>() / 2.0
            };
            counts.iter().map(distance).sum::<f64>() / counts.len().max(1) as f64
        });
        Self {
            smallest: at(0),
            median: at(sizes.len() / 2),
            largest: at(sizes.len().saturating_sub(1)),
            label_distance,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{dirichlet, iid};
    use super::*;

    #[test]
    fn distances_are_what_they_say() {
        let classes = [0, 0, 1, 1];
        let of = |shares: &[Vec<usize>]| Skew::of(shares, Some(&counts(shares, &classes, 2)));
        assert_eq!(of(&[vec![0, 1], vec![2, 3]]).label_distance, Some(0.5), "one class of two equal ones each");
        assert_eq!(of(&[vec![0, 2], vec![1, 3]]).label_distance, Some(0.0));
        let uneven = of(&[vec![0], vec![1, 2, 3]]);
        assert_eq!((uneven.smallest, uneven.largest), (1, 3));
    }

    /// A Dirichlet distribution of infinite alpha is the IID split: what is left of the distance is no more than chance
    /// leaves in a random deal of the same sizes.
    #[test]
    fn dirichlet_goes_to_iid() {
        let classes: Vec<u32> = (0..20_000).map(|row| row % 10).collect();
        let distance = |shares: &[Vec<usize>]| {
            Skew::of(shares, Some(&counts(shares, &classes, 10))).label_distance.expect("labels")
        };
        let by = |alpha| distance(&dirichlet(&classes, 50, alpha, 1, 7).expect("splits"));
        let random = distance(&iid(20_000, 50, 7).expect("splits"));
        // A random deal of n = 400 rows over ten equal classes: half the sum of ten mean absolute deviations, each
        // sqrt(2 / pi) sqrt(0.09 / n): 0.0598. Devices' mean varies by a few per cent of it.
        assert!((random - 0.0598).abs() < 0.006, "{random}");
        // Portions are equal to 1 / sqrt(alpha) = 0.1 %, and rows are whole: one of 40 at most.
        assert!(by(1e6) < 0.02, "{}", by(1e6));
        assert!(by(100.0) < by(1.0) && by(1.0) < by(0.1), "more alpha, less skew");
        assert!(by(0.1) > 0.5, "{}", by(0.1));
    }
}
