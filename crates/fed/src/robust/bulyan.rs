//! Bulyan: El Mhamdi, Guerraoui and Rouault 2018, "The Hidden Vulnerability of Distributed Learning in Byzantium"
//! (arXiv:1802.07927), section 4, over Krum.
//!
//! ```text
//! θ = n − 2f times: Krum over those that are left, which takes one of them out
//! g_k = mean of the β = θ − 2f values of the chosen, at coordinate k, that are nearest to their median
//! ```
//!
//! Krum looks at whole vectors, so a liar may hide a large change of one coordinate in a vector that is near the others;
//! the second step takes that away. With n ≥ 4f + 3. With f = 0 it is the mean, bit for bit.
//!
//! It reads all updates twice; choosing takes n · n² log n steps beside the n² · d of distances.

use super::distance::Pairs;
use super::krum::scores;
use super::median::two_middle;
use super::{Block, Judge, Rule, RuleName, total};

#[derive(Clone, Debug)]
pub struct Bulyan {
    /// f.
    pub byzantine: u32,
}

struct Chosen {
    byzantine: usize,
    pairs: Pairs,
    chosen: Vec<usize>,
}

impl Rule for Bulyan {
    fn name(&self) -> RuleName {
        RuleName::Bulyan
    }

    fn least(&self) -> usize {
        4 * self.byzantine as usize + 3
    }

    fn judge(&self, devices: usize, _: f64) -> Box<dyn Judge> {
        Box::new(Chosen { byzantine: self.byzantine as usize, pairs: Pairs::new(devices), chosen: Vec::new() })
    }

    fn bears(&self) -> String {
        format!("{} devices of 4f + 3 or more", self.byzantine)
    }
}

impl Judge for Chosen {
    fn looks(&self) -> bool {
        self.chosen.is_empty()
    }

    fn look(&mut self, block: &Block<'_>) {
        self.pairs.add(block);
    }

    fn looked(&mut self) {
        let mut left: Vec<usize> = (0..self.pairs.devices()).collect();
        for _ in 0..self.pairs.devices() - 2 * self.byzantine {
            let scores = scores(&self.pairs, &left, self.byzantine);
            let best = scores.into_iter().min_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
            let Some((best, _)) = best else { return };
            left.retain(|device| *device != best);
            self.chosen.push(best);
        }
    }

    fn chosen(&self) -> &[usize] {
        &self.chosen
    }

    fn sum(&self, block: &Block<'_>, out: &mut [f64]) {
        let beta = self.chosen.len() - 2 * self.byzantine;
        let scale = block.devices() as f64 / beta as f64;
        let mut column = Vec::with_capacity(self.chosen.len());
        for (coordinate, out) in out.iter_mut().enumerate() {
            column.clear();
            column.extend(self.chosen.iter().map(|device| block.row(*device)[coordinate]));
            *out = total(nearest_to_median(&mut column, beta).iter().copied()) * scale;
        }
    }
}

/// The `count` values nearest to the median of all; of two that are equally far the smaller one.
fn nearest_to_median(values: &mut [i32], count: usize) -> &[i32] {
    let median_twice = two_middle(values);
    values.sort_unstable();
    // Sorted, they lie side by side: the farther end goes until they are as few.
    let (mut low, mut high) = (0, values.len());
    let far = |value: i32| (2 * i64::from(value) - median_twice).abs();
    while high - low > count {
        if far(values[low]) > far(values[high - 1]) {
            low += 1;
        } else {
            high -= 1;
        }
    }
    &values[low..high]
}
