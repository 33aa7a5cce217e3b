//! The coordinate-wise median: Yin, Chen, Ramchandran and Bartlett 2018, "Byzantine-Robust Distributed Learning: Towards
//! Optimal Statistical Rates" (arXiv:1803.01498), Option I of Algorithm 1.
//!
//! ```text
//! g_k = med { x_i,k : i }        of an even number of values: the mean of the two in the middle
//! ```
//!
//! While fewer than half of the devices lie, each coordinate stays between two honest values. It is not the mean: where
//! honest devices differ much, as with skewed labels, it leaves out what only some of them know.

use super::{Block, Judge, Rule, RuleName};

#[derive(Clone, Debug)]
pub struct Median {}

struct Middle {}

impl Rule for Median {
    fn name(&self) -> RuleName {
        RuleName::Median
    }

    fn least(&self) -> usize {
        1
    }

    fn judge(&self, _: usize, _: f64) -> Box<dyn Judge> {
        Box::new(Middle {})
    }

    fn bears(&self) -> String {
        "fewer than half of the devices".into()
    }
}

impl Judge for Middle {
    fn sum(&self, block: &Block<'_>, out: &mut [f64]) {
        let mut column = Vec::with_capacity(block.devices());
        // Half of the two middle values, or all of the one that is both.
        let half = block.devices() as f64 / 2.0;
        for (coordinate, out) in out.iter_mut().enumerate() {
            block.column(coordinate, &mut column);
            *out = two_middle(&mut column) as f64 * half;
        }
    }
}

/// The sum of the two values in the middle, of an odd number twice the one. The values change places.
pub(super) fn two_middle(values: &mut [i32]) -> i64 {
    let (upper, even) = (values.len() / 2, values.len().is_multiple_of(2));
    let (below, &mut middle, _) = values.select_nth_unstable(upper);
    let lower = match below.iter().max() {
        Some(&lower) if even => lower,
        _ => middle,
    };
    i64::from(lower) + i64::from(middle)
}
