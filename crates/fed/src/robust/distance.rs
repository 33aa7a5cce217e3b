//! Squared distances between updates, over all their coordinates, block by block and always with the same bits.
//!
//! Squares are added eight neighbours at a time, as a tree, and the groups one after another: the cut into blocks falls
//! between groups ([`super::ALIGN`]), so it changes nothing.

use super::Block;

/// Coordinates whose squares are added as a tree.
pub(super) const GROUP: usize = 8;
/// Coordinates of all rows that stay in the cache while they are compared.
const TILE: usize = 1024;

/// Σ (a − b)² over some coordinates, onto `sum`.
pub(super) fn add_squares<A: Copy, B: Copy>(a: &[A], b: &[B], difference: impl Fn(A, B) -> f64, sum: &mut f64) {
    let (a_groups, a_rest) = a.as_chunks::<GROUP>();
    let (b_groups, b_rest) = b.as_chunks::<GROUP>();
    let square = |a, b| {
        let d = difference(a, b);
        d * d
    };
    for (a, b) in a_groups.iter().zip(b_groups) {
        let s: [f64; GROUP] = std::array::from_fn(|i| square(a[i], b[i]));
        *sum += ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
    }
    let mut s = [0.0; GROUP];
    a_rest.iter().zip(b_rest).zip(&mut s).for_each(|((a, b), s)| *s = square(*a, *b));
    *sum += ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

/// Of every two devices, as far as coordinates were seen.
pub struct Pairs {
    devices: usize,
    /// Row by row, what lies above the diagonal.
    upper: Vec<f64>,
}

impl Pairs {
    pub fn new(devices: usize) -> Self {
        Self { devices, upper: vec![0.0; devices * devices.saturating_sub(1) / 2] }
    }

    pub fn devices(&self) -> usize {
        self.devices
    }

    /// Blocks in order, each cut at a multiple of [`super::ALIGN`] but for the last.
    pub fn add<T: Copy + Into<f64>>(&mut self, block: &Block<'_, T>) {
        for first in (0..block.len()).step_by(TILE) {
            let tile = first..block.len().min(first + TILE);
            let mut sums = self.upper.iter_mut();
            for i in 0..self.devices {
                let a = &block.row(i)[tile.clone()];
                for (j, sum) in (i + 1..self.devices).zip(&mut sums) {
                    let difference = |a: T, b: T| a.into() - b.into();
                    add_squares(a, &block.row(j)[tile.clone()], difference, sum);
                }
            }
        }
    }

    /// Between two devices; 0 from one to itself.
    pub fn of(&self, a: usize, b: usize) -> f64 {
        let (i, j) = (a.min(b), a.max(b));
        match i == j {
            true => 0.0,
            // The rows before row i have devices − 1, devices − 2, … elements.
            false => self.upper[i * (2 * self.devices - i - 1) / 2 + (j - i - 1)],
        }
    }
}
