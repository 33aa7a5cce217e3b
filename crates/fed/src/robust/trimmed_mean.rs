//! The coordinate-wise trimmed mean: Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
//! Rates" (arXiv:1803.01498), Option II of Algorithm 1.
//!
//! ```text
//! g_k = mean of { x_i,k } without the b smallest and the b largest        b = trim
//! ```
//!
//! While at most `trim` devices lie, each coordinate stays between two honest values. With 0 it is the mean, bit for bit.
//! (The paper names a fraction β; a number of devices says more plainly what is borne.)

use super::{Block, Judge, Rule, RuleName, total};

#[derive(Clone, Debug)]
pub struct TrimmedMean {
    /// b: values dropped at each end, 2b below the number of devices.
    pub trim: u32,
}

struct Kept {
    trim: usize,
}

impl Rule for TrimmedMean {
    fn name(&self) -> RuleName {
        RuleName::TrimmedMean
    }

    fn least(&self) -> usize {
        2 * self.trim as usize + 1
    }

    fn judge(&self, _: usize, _: f64) -> Box<dyn Judge> {
        Box::new(Kept { trim: self.trim as usize })
    }

    fn bears(&self) -> String {
        format!("{} devices", self.trim)
    }
}

impl Judge for Kept {
    fn sum(&self, block: &Block<'_>, out: &mut [f64]) {
        let (devices, trim) = (block.devices(), self.trim);
        let kept = devices - 2 * trim;
        let scale = devices as f64 / kept as f64;
        let mut column = Vec::with_capacity(devices);
        for (coordinate, out) in out.iter_mut().enumerate() {
            block.column(coordinate, &mut column);
            if trim > 0 {
                // The b smallest to the front, then of the rest the b largest to the end.
                column.select_nth_unstable(trim);
                column[trim..].select_nth_unstable(kept - 1);
            }
            *out = total(column[trim..trim + kept].iter().copied()) * scale;
        }
    }
}
