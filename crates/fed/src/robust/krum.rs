//! Krum and multi-Krum: Blanchard, El Mhamdi, Guerraoui and Stainer 2017, "Machine Learning with Adversaries: Byzantine
//! Tolerant Gradient Descent" (NeurIPS), section 4 and 5.
//!
//! ```text
//! score(i) = Σ ‖x_i − x_j‖² over the n − f − 2 devices j that are nearest to i
//! Krum: the update with the least score        multi-Krum: the mean of the m updates with the least scores
//! ```
//!
//! With n ≥ 2f + 3 an update far from all others is never chosen. It reads all updates twice and takes n² · d steps. Krum
//! by itself uses one device's update and throws the work of the others away; multi-Krum gives most of it back.
//!
//! m is at most n − f − 2, so that no liar needs to be among the chosen (the bound that El Mhamdi et al. 2018 give). Of
//! equal scores the device that comes first by name is taken.

use super::distance::Pairs;
use super::{Block, Judge, Rule, RuleName, total};

#[derive(Clone, Debug)]
pub struct Krum {
    /// f.
    pub byzantine: u32,
    /// m; `None`: n − f − 2.
    pub select: Option<u32>,
    /// Krum, or multi-Krum.
    pub name: RuleName,
}

struct Nearest {
    byzantine: usize,
    select: usize,
    pairs: Pairs,
    /// In the order of rows; none before all coordinates were seen.
    chosen: Vec<usize>,
}

impl Rule for Krum {
    fn name(&self) -> RuleName {
        self.name
    }

    fn least(&self) -> usize {
        2 * self.byzantine as usize + 3
    }

    fn judge(&self, devices: usize, _: f64) -> Box<dyn Judge> {
        let byzantine = self.byzantine as usize;
        let select = self.select.map_or(devices - byzantine - 2, |select| select as usize);
        Box::new(Nearest { byzantine, select, pairs: Pairs::new(devices), chosen: Vec::new() })
    }

    fn bears(&self) -> String {
        format!("{} devices of 2f + 3 or more", self.byzantine)
    }
}

impl Judge for Nearest {
    fn looks(&self) -> bool {
        self.chosen.is_empty()
    }

    fn look(&mut self, block: &Block<'_>) {
        self.pairs.add(block);
    }

    fn looked(&mut self) {
        let devices: Vec<usize> = (0..self.pairs.devices()).collect();
        let mut by_score = scores(&self.pairs, &devices, self.byzantine);
        by_score.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        self.chosen = by_score.into_iter().take(self.select.max(1)).map(|(device, _)| device).collect();
        self.chosen.sort_unstable();
    }

    fn chosen(&self) -> &[usize] {
        &self.chosen
    }

    fn sum(&self, block: &Block<'_>, out: &mut [f64]) {
        let scale = block.devices() as f64 / self.chosen.len() as f64;
        for (coordinate, out) in out.iter_mut().enumerate() {
            *out = total(self.chosen.iter().map(|device| block.row(*device)[coordinate])) * scale;
        }
    }
}

/// Each device's score among these: the sum of its squared distances to the nearest `devices` − `byzantine` − 2 others, from
/// the nearest on.
pub(super) fn scores(pairs: &Pairs, devices: &[usize], byzantine: usize) -> Vec<(usize, f64)> {
    let neighbours = devices.len().saturating_sub(byzantine + 2);
    let mut distances = Vec::with_capacity(devices.len());
    let mut score = |i: usize| {
        distances.clear();
        distances.extend(devices.iter().filter(|j| **j != i).map(|j| pairs.of(i, *j)));
        distances.sort_unstable_by(f64::total_cmp);
        distances.iter().take(neighbours).sum()
    };
    devices.iter().map(|&device| (device, score(device))).collect()
}
