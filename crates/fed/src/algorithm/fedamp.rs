//! FedAMP: Huang et al. 2021, "Personalized Cross-Silo Federated Learning on Non-IID Data" (AAAI; arXiv:2007.03797), Algorithm 1
//! with equations 3 to 5.
//!
//! ```text
//! cloud    u_i = Σ_j ξ_ij w_j        ξ_ij = α A'(‖w_i − w_j‖²) for j ≠ i        ξ_ii = 1 − Σ_{j≠i} ξ_ij
//!          A(x) = 1 − e^(−x/σ)       so A'(x) = e^(−x/σ) / σ
//! device   minimises F_i(w) + λ/2α ‖w − u_i‖², from u_i, that is: gradient ← gradient + λ/α (w − u_i)        Δ_i = w_i − u_i
//! ```
//!
//! A device is given a model of its own, u_i: a mean of all devices' models in which those that are near its own count most. So
//! devices that learn alike find each other, and nobody says how many kinds there are. The device half is FedProx's, from u_i.
//!
//! ξ is a row of weights only while α Σ_{j≠i} A' ≤ 1, and how many devices there are, and how near, is not known when a job is
//! written. So α is not refused but **scaled**: in each round it is the job's, or the largest with which every ξ_ii is 0 or more. (The
//! paper's α is a step size that falls from round to round anyway.) Devices' pull is that of the job's α.
//!
//! Every model must be seen by itself: no masks. A device that was in no round yet has no w_i; it is given the mean of all w_i,
//! which is the job's version. Of one that is not in this round the last w_i counts on. Not here: HeurFedAMP (the paper's section 5), and
//! a schedule for α.

use super::{Algorithm, ApplyError, Chunk, LocalError, SpecError, Start, above_zero, fedavg, fedprox, within};
use crate::learner::Learner;
use crate::open::Totals;
use crate::plan::Plan;
use crate::robust::{Block, Pairs};
use crate::seal::Raw;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FedAmp {
    /// α > 0: how much others count. α / σ is the weight of a device with the very same model.
    pub alpha: f32,
    /// σ > 0: how near is near, as a squared distance between whole models.
    pub sigma: f32,
    /// λ ≥ 0: λ / α is the pull towards the model that the device was given; 0 is none.
    pub lambda: f32,
}

impl Default for FedAmp {
    fn default() -> Self {
        Self { alpha: 0.02, sigma: 0.1, lambda: 0.002 }
    }
}

/// Devices whose models the cloud keeps, at most: their weights for each other take 8 MB.
pub const DEVICES_MAX: usize = 1_024;

/// ξ: a row of weights for each device, in the order of the devices' names.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    devices: usize,
    weights: Vec<f64>,
    alpha: f64,
}

impl FedAmp {
    /// ξ, by the squared distances between devices' models.
    pub fn mixture(&self, squares: &Pairs) -> Mixture {
        let (devices, sigma) = (squares.devices(), f64::from(self.sigma));
        let mut weights = vec![0.0; devices * devices];
        let mut most = 0f64;
        for (i, row) in weights.chunks_exact_mut(devices.max(1)).enumerate() {
            for (j, weight) in row.iter_mut().enumerate().filter(|(j, _)| *j != i) {
                // The same on every machine, so not the machine's own.
                *weight = libm::exp(-squares.of(i, j) / sigma) / sigma;
            }
            most = most.max(row.iter().sum());
        }
        let alpha = match f64::from(self.alpha) * most > 1.0 {
            true => most.recip(),
            false => self.alpha.into(),
        };
        for (i, row) in weights.chunks_exact_mut(devices.max(1)).enumerate() {
            row.iter_mut().for_each(|weight| *weight *= alpha);
            // The largest row's sum may be rounded to a little above 1.
            row[i] = (1.0 - row.iter().sum::<f64>()).max(0.0);
        }
        Mixture { devices, weights, alpha }
    }
}

impl Mixture {
    /// The α that was used: the job's, or a smaller one.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// How much each device counts for this one. Panics past the last device.
    pub fn row(&self, device: usize) -> &[f64] {
        &self.weights[device * self.devices..(device + 1) * self.devices]
    }

    /// u_i at a block's coordinates, of which `models` has every device's w_j.
    pub fn model(&self, device: usize, models: &Block<'_, f32>, out: &mut [f32]) {
        weighed(self.row(device), models, out);
    }
}

/// w_i at some coordinates: `w` is what the device was given, `sent` what it sent, in steps. `first`: the first one's place in the model.
pub fn learnt(w: &mut [f32], first: usize, sent: &[i32], step: f64) -> Result<(), ApplyError> {
    w.iter_mut().zip(sent).for_each(|(w, sent)| *w += (f64::from(*sent) * step) as f32);
    match w.iter().position(|w| !w.is_finite()) {
        Some(at) => Err(ApplyError::Diverged { index: first + at, value: w[at] }),
        None => Ok(()),
    }
}

/// The mean of all w_j at a block's coordinates: the version, for whoever has no model there.
pub fn mean(models: &Block<'_, f32>, out: &mut [f32]) {
    weighed(&vec![1.0 / models.devices() as f64; models.devices()], models, out);
}

/// Device after device, in f64, so that no bit depends on the cut.
fn weighed(weights: &[f64], models: &Block<'_, f32>, out: &mut [f32]) {
    let mut sums = vec![0f64; out.len()];
    for (weight, row) in weights.iter().zip(models.rows()) {
        sums.iter_mut().zip(row).for_each(|(sum, w)| *sum += weight * f64::from(*w));
    }
    out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = *sum as f32);
}

impl Algorithm for FedAmp {
    fn name(&self) -> &'static str {
        "fedamp"
    }

    fn check(&self) -> Result<(), SpecError> {
        above_zero("alpha", self.alpha)?;
        above_zero("sigma", self.sigma)?;
        let Self { alpha, lambda, .. } = *self;
        let pull = lambda / alpha;
        within(lambda >= 0.0 && pull.is_finite(), "lambda", lambda, "0 or more, and lambda / alpha a finite number")?;
        within(
            (alpha / self.sigma).is_finite(),
            "sigma",
            self.sigma,
            "a finite number above 0, and alpha / sigma a finite number",
        )
    }

    fn mixes(&self) -> Option<&FedAmp> {
        Some(self)
    }

    /// `start.w` is u_i.
    fn local(&self, start: &Start<'_>, learner: &mut dyn Learner) -> Result<Raw, LocalError> {
        fedprox::FedProx { mu: self.lambda / self.alpha }.local(start, learner)
    }

    /// What the mean of all w_i comes to where all devices were given the same model, as in a first round. The cloud, which
    /// has each device's, works out [`Mixture`] and [`mean`].
    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError> {
        fedavg::FedAvg {}.apply(plan, totals, section, chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMP: FedAmp = FedAmp { alpha: 1.0, sigma: 4.0, lambda: 0.5 };

    fn pairs(models: &[Vec<f32>], cut: usize) -> Pairs {
        let mut pairs = Pairs::new(models.len());
        for first in (0..models[0].len()).step_by(cut) {
            let end = models[0].len().min(first + cut);
            let values: Vec<f32> = models.iter().flat_map(|model| &model[first..end]).copied().collect();
            pairs.add(&Block::new(&values, end - first));
        }
        pairs
    }

    /// Devices around two centres, even ones around the first.
    fn two_kinds(devices: usize, params: usize, apart: f32) -> Vec<Vec<f32>> {
        let at =
            |i: usize, j: usize| 0.1 * ((i * 31 + j * 17) as f32).sin() + if i.is_multiple_of(2) { 0.0 } else { apart };
        (0..devices).map(|i| (0..params).map(|j| at(i, j)).collect()).collect()
    }

    #[test]
    fn weights_are_those_of_the_paper() {
        // Squared distances 1, 4 and 5.
        let models = [vec![0.0, 0.0], vec![1.0, 0.0], vec![0.0, 2.0]];
        let mixture = AMP.mixture(&pairs(&models, 8));
        let of = |square: f64| (-square / 4.0).exp() / 4.0;
        let expected = [
            [1.0 - of(1.0) - of(4.0), of(1.0), of(4.0)],
            [of(1.0), 1.0 - of(1.0) - of(5.0), of(5.0)],
            [of(4.0), of(5.0), 1.0 - of(4.0) - of(5.0)],
        ];
        for (device, row) in expected.iter().enumerate() {
            // Two libraries' exponentials differ by an ulp or two.
            mixture.row(device).iter().zip(row).for_each(|(got, is)| assert!((got - is).abs() < 1e-15, "{mixture:?}"));
        }
        assert_eq!(mixture.alpha(), 1.0);
        let values: Vec<f32> = models.concat();
        let mut u = [0.0; 2];
        mixture.model(0, &Block::new(&values, 2), &mut u);
        assert_eq!(u, [of(1.0) as f32, (2.0 * of(4.0)) as f32]);
    }

    /// However many devices, however near, and whatever α: a row is a row of weights.
    #[test]
    fn rows_sum_to_one_and_no_weight_is_below_zero() {
        for devices in [1, 2, 3, 16, 65] {
            for (alpha, apart) in [(1e-3, 0.0), (1.0, 0.1), (1e3, 0.1), (1e30, 1.0), (1e30, 1e3)] {
                let amp = FedAmp { alpha, ..AMP };
                let mixture = amp.mixture(&pairs(&two_kinds(devices, 20, apart), 8));
                for device in 0..devices {
                    let row = mixture.row(device);
                    // A sum of 65 numbers of at most 1, each rounded at 2^-53.
                    assert!((row.iter().sum::<f64>() - 1.0).abs() < 65.0 * f64::EPSILON, "{devices}, {alpha}: {row:?}");
                    assert!(row.iter().all(|weight| (0.0..=1.0).contains(weight)), "{devices}, {alpha}: {row:?}");
                }
                let off =
                    |i: usize| mixture.row(i).iter().enumerate().filter(|(j, _)| *j != i).map(|(_, w)| w).sum::<f64>();
                let most = (0..devices).map(off).fold(0.0, f64::max);
                // α is as large as may be, and never larger than the job's.
                let scaled = mixture.alpha() < f64::from(alpha);
                assert!(!scaled || (most - 1.0).abs() < 65.0 * f64::EPSILON, "{most}");
                assert!(mixture.alpha() <= f64::from(alpha));
            }
        }
    }

    #[test]
    fn who_is_nearer_counts_more_and_who_is_far_counts_nothing() {
        let models: Vec<Vec<f32>> = (0..8).map(|i| vec![(i * i) as f32 * 0.2; 3]).collect();
        let mixture = AMP.mixture(&pairs(&models, 8));
        assert!(mixture.row(0)[1..].is_sorted_by(|a, b| a > b), "{:?}", mixture.row(0));
        let mut before = f64::INFINITY;
        for apart in [0.5, 1.0, 2.0, 4.0, 8.0] {
            let mixture = AMP.mixture(&pairs(&two_kinds(8, 20, apart), 8));
            let across: f64 =
                (0..8).map(|i| (0..8).filter(|j| (i + j) % 2 == 1).map(|j| mixture.row(i)[j]).sum::<f64>()).sum();
            assert!(across < before, "{apart}: {across}");
            before = across;
        }
        // e^(−20 · 8² / 4): nothing.
        assert!(before < 1e-100);
    }

    #[test]
    fn no_bit_depends_on_the_cut() {
        let models = two_kinds(5, 37, 0.3);
        let whole = AMP.mixture(&pairs(&models, 40));
        for cut in [8, 16, 24] {
            assert_eq!(AMP.mixture(&pairs(&models, cut)), whole);
        }
        let values: Vec<f32> = models.concat();
        let (mut all, mut part) = (vec![0.0; 37], vec![0.0; 8]);
        whole.model(3, &Block::new(&values, 37), &mut all);
        let values: Vec<f32> = models.iter().flat_map(|model| &model[16..24]).copied().collect();
        whole.model(3, &Block::new(&values, 8), &mut part);
        assert_eq!(part, all[16..24]);
    }

    /// f_i = ½ ‖w − b_i‖² of two kinds of devices: each ends with its own kind's, not with everybody's mean.
    #[test]
    fn two_kinds_of_devices_find_each_other() {
        let amp = FedAmp { alpha: 0.2, sigma: 1.0, lambda: 0.02 };
        let best = two_kinds(8, 20, 1.0);
        let mut given = vec![vec![0.5f32; 20]; 8];
        let mut across = f64::INFINITY;
        for _ in 0..60 {
            let models: Vec<Vec<f32>> = given
                .iter()
                .zip(&best)
                .map(|(u, b)| {
                    let mut w = u.clone();
                    for _ in 0..5 {
                        for ((w, b), u) in w.iter_mut().zip(b).zip(u) {
                            *w -= 0.2 * ((*w - b) + amp.lambda / amp.alpha * (*w - u));
                        }
                    }
                    w
                })
                .collect();
            let mixture = amp.mixture(&pairs(&models, 8));
            let values = models.concat();
            (0..8).for_each(|i| mixture.model(i, &Block::new(&values, 20), &mut given[i]));
            across = (0..8).filter(|j| j % 2 == 1).map(|j| mixture.row(0)[j]).sum();
        }
        assert!(across < 1e-4, "{across}");
        for (i, u) in given.iter().enumerate() {
            let centre = if i.is_multiple_of(2) { 0.0 } else { 1.0 };
            assert!(u.iter().all(|u| (u - centre).abs() < 0.15), "{i}: {u:?}");
        }
    }
}
