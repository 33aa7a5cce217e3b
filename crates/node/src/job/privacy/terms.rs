//! What a private job releases, to whom and how often: all that an account needs, without the job.

use super::super::JobError;
use littoral_fed::dp::{DifferentialPrivacy, DpError, MechanismName, POISSON_MEAN, Sampling, Summed, Viewer};
use littoral_privacy::account::distributed::Release;
use littoral_privacy::account::{self, Accountant, Adjacency, Composition, Loss, Mechanism, Method};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    pub dp: DifferentialPrivacy,
    pub noised: Noised,
    /// Models that are released.
    pub models: u64,
    /// How often one device sends something at most. Attempts that are given up count.
    pub participations: u64,
}

/// What noise is added to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Noised {
    /// Sums over devices, or what each device adds to one: the unit is a device.
    Sums(Sums),
    /// The steps of a device's training, of so many coordinates, in so many expected passes over its rows: the unit is an example.
    Steps { dim: usize, epochs: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Devices in a sum: as many as can be, as are wanted, and at least.
    pub clients: u32,
    pub target: u32,
    pub min: u32,
    /// Fewest shares of noise in a sum that is opened: of a group, if groups are opened.
    pub shares_min: u32,
    pub summed: Summed,
    pub masked: bool,
}

/// What a viewer gets to see of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub viewer: Viewer,
    /// `None`: what no noise was added to.
    pub loss: Option<Loss>,
    /// With this probability, at most, the law of sampling was not the one that the loss says.
    pub unlike: f64,
    pub why: String,
}

impl Terms {
    /// How often a device takes part at most, before it refuses. Without a word of the job: in every round, and in as many
    /// attempts that are given up as an eighth of that.
    pub fn cap(dp: &DifferentialPrivacy, rounds: u64) -> u64 {
        match dp.participations_max {
            0 => rounds + 1 + rounds / 8,
            most => most,
        }
    }

    /// What one release is to an account.
    pub fn release(&self) -> Result<Release, DpError> {
        match &self.noised {
            Noised::Sums(sums) => {
                let &Sums { clients, target, shares_min, summed, .. } = sums;
                Ok(self.dp.noise(clients, target, shares_min, summed, self.models)?.release)
            }
            Noised::Steps { dim, epochs } => Ok(self.dp.example_noise(*epochs, *dim)?.grid.law()),
        }
    }

    pub fn adjacency(&self) -> Adjacency {
        if self.dp.vectors_changed() == 2 { Adjacency::ReplaceOne } else { Adjacency::AddRemove }
    }

    /// For each viewer, the one of released models first. `release`: as [`Terms::release`] gives it.
    pub fn seen(&self, release: &Release) -> [Seen; 3] {
        match &self.noised {
            Noised::Sums(sums) => self.seen_of_devices(release, sums),
            Noised::Steps { epochs, .. } => self.seen_of_examples(release, *epochs),
        }
    }

    /// Nothing here is amplified by who takes part: the draw of a step's rows is the device's, and secret to all.
    fn seen_of_examples(&self, release: &Release, epochs: u32) -> [Seen; 3] {
        let Self { dp, models, participations, .. } = self;
        let (rate, steps) = dp.steps(epochs);
        let all = |times: u64| Loss {
            mechanism: Mechanism::Distributed(*release),
            sampling: account::Sampling::Poisson { rate },
            count: times.saturating_mul(steps),
        };
        let law = format!(
            "each row of a device is drawn in secret with probability {rate} in each of {steps} steps of each time it takes part, \
             and each step is noised on the device"
        );
        let once = *models.min(participations);
        let model = format!("sees released models, of which a device is part of {once} at most; {law}");
        let update = format!(
            "knows how many rows a device has, and sees at most its updates, {participations} of them, attempts that came to \
             nothing among them; {law}"
        );
        let seen = |viewer, times, why: &str| Seen { viewer, loss: Some(all(times)), unlike: 0.0, why: why.into() };
        [
            seen(Viewer::Model, once, &model),
            seen(Viewer::Edge, *participations, &update),
            seen(Viewer::Cloud, *participations, &update),
        ]
    }

    fn seen_of_devices(&self, release: &Release, sums: &Sums) -> [Seen; 3] {
        let (Self { dp, models, participations: part, .. }, Sums { target, masked, .. }) = (self, *sums);
        let of = |sampling, count| Loss { mechanism: Mechanism::Distributed(*release), sampling, count };
        let each = |count: u64| of(account::Sampling::ALL, count);
        let (loss, unlike, law) = match dp.sampling {
            _ if dp.mechanism == MechanismName::DpFtrl => {
                let (versions, times) = dp.stretch(*models);
                let stretches = models.div_ceil(versions);
                let law = format!(
                    "noise is correlated over {versions} versions in a row, of which a device is part of {times} at most, \
                     {} apart; {stretches} times",
                    dp.spacing()
                );
                (each(stretches), 0.0, law)
            }
            Sampling::Present => {
                let most = *models.min(part);
                (each(most), 0.0, format!("every participation counts in full, {most} of them at most"))
            }
            Sampling::Poisson(rate) => {
                let loss = of(account::Sampling::Poisson { rate }, *models);
                let law = format!("each device is drawn in secret with probability {rate} in each of {models} rounds");
                (loss, sums.unusual_samples(*models), law)
            }
            Sampling::Fixed(population) => {
                let loss = of(account::Sampling::Fixed { rate: f64::from(target) / f64::from(population) }, *models);
                let law =
                    format!("{target} of at least {population} devices are drawn in secret in each of {models} rounds");
                (loss, 0.0, law)
            }
        };
        let model =
            Seen { viewer: Viewer::Model, loss: Some(loss), unlike, why: format!("sees released models; {law}") };

        let told =
            format!("knows who took part, so there is no amplification by sampling: {part} participations at most");
        let whole = |viewer, sees: &str| {
            let why = format!("{sees}; {told}");
            Seen { viewer, loss: Some(each(*part)), unlike: 0.0, why }
        };
        let nothing = |viewer, why: &str| Seen { viewer, loss: None, unlike: 0.0, why: why.into() };
        let local = dp.mechanism == MechanismName::LocalDiscreteGaussian;
        let edge = match () {
            () if masked && dp.on_devices() => {
                whole(Viewer::Edge, "sees masked words, noised sums and released models")
            }
            // What opens a sum passes through it.
            () if masked => {
                nothing(Viewer::Edge, "could open a sum before noise is added, if all devices in it are its own")
            }
            () if local => whole(Viewer::Edge, "sees each device's noised update"),
            () => nothing(Viewer::Edge, "sees each device's update as it is: add [secure_aggregation]"),
        };
        let cloud = match dp.mechanism {
            MechanismName::Central if masked => nothing(Viewer::Cloud, "sees each sum before it adds the noise"),
            MechanismName::Central | MechanismName::DpFtrl => {
                nothing(Viewer::Cloud, "could see each device's update, and adds the noise itself")
            }
            _ if local => whole(Viewer::Cloud, "sees each device's noised update"),
            _ => {
                let honest = release.honest;
                whole(
                    Viewer::Cloud,
                    &format!("sees each noised sum, whose noise counts as that of {honest} honest devices"),
                )
            }
        };
        [model, edge, cloud]
    }
}

impl Sums {
    /// The probability that a sample of some round is of a size that is drawn again. Sizes are Poisson-distributed, or narrower,
    /// with a mean in [`POISSON_MEAN`] of the target, which the round machine sees to.
    fn unusual_samples(&self, rounds: u64) -> f64 {
        let mean = f64::from(self.target) * POISSON_MEAN.start();
        let largest = f64::from(self.target) * POISSON_MEAN.end();
        // P[X <= k] and P[X >= k] by Chernoff: exp(k - mean - k ln(k / mean)).
        let tail_of = |mean: f64, k: f64| (k - mean - k * (k / mean).ln()).exp();
        let tail = |k| tail_of(mean, k);
        let below = f64::from(self.min) - 1.0;
        let low = if below < 0.0 {
            0.0
        } else if below == 0.0 {
            (-mean).exp()
        } else if below >= mean {
            1.0
        } else {
            tail(below)
        };
        // A cohort of the protocol's largest size may leave no room above the mean.
        let above = f64::from(self.clients) + 1.0;
        let high = if above <= largest { 1.0 } else { tail_of(largest, above) };
        rounds as f64 * (low + high)
    }
}

/// What is added to δ where, with probability `unlike`, the law was another one: outcomes of an ε-close pair under it.
pub fn lost(unlike: f64, epsilon: f64) -> f64 {
    unlike * (1.0 + epsilon.min(700.0).exp())
}

/// Losses up to which loss distributions are composed: each costs up to a second.
const DISTRIBUTIONS_MAX: usize = 16;

/// The least ε that an accountant can show for these losses together. With a target, the first that is not above it.
pub fn epsilon(
    losses: &[Loss],
    adjacency: Adjacency,
    delta: f64,
    target: Option<f64>,
) -> Result<f64, account::AccountError> {
    let mut all = Composition::new();
    losses.iter().try_for_each(|loss| all.add(loss.clone()))?;
    let by = |accountant| all.epsilon(delta, Method { accountant, adjacency, ..Method::default() });
    let rdp = by(Accountant::Rdp)?;
    if target.is_some_and(|target| rdp <= target) || all.losses().len() > DISTRIBUTIONS_MAX {
        return Ok(rdp);
    }
    // Skellam noise has Rényi bounds only.
    Ok(by(Accountant::Pld).map_or(rdp, |pld| pld.min(rdp)))
}

/// The same as a refusal of a job.
pub(super) fn epsilon_of_job(seen: &Seen, terms: &Terms, target: Option<f64>) -> Result<Option<f64>, JobError> {
    let Some(loss) = &seen.loss else { return Ok(None) };
    let dp = &terms.dp;
    let delta = dp.delta - lost(seen.unlike, dp.epsilon);
    if delta < dp.delta / 2.0 {
        let expected = "a lower cohort.min or a larger cohort.target: samples outside of what can be summed would be too frequent for delta";
        let min = if let Noised::Sums(sums) = &terms.noised { sums.min } else { 0 };
        return Err(JobError::new("cohort.min", expected, min));
    }
    let found = epsilon(std::slice::from_ref(loss), terms.adjacency(), delta, target);
    found.map(Some).map_err(|e| JobError::new("differential_privacy", "what can be accounted for", e))
}
