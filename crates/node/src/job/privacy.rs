//! What a private job may be, and what it costs each viewer.
//!
//! A combination of selection, deadline and account that no proof covers is refused, with the field; so is a job that would
//! cost the viewers of its models more than it says.
//!
//! There are two statements, and a job makes one of them: that what is seen hardly depends on any one device, or that it hardly
//! depends on any one example of a device. The second is nearly the same for all viewers, for noise is in the updates
//! themselves; but edges and cloud also see attempts that came to nothing.

use super::{JobError, JobText, Uplink};
use littoral_fed::algorithm::Algorithm;
use littoral_fed::dp::{DifferentialPrivacy, DpError, ExampleNoise, MechanismName, Noise, Sampling, Summed, Viewer};
use littoral_fed::masks::ThreatName;
use littoral_fed::plan::Plan;
use littoral_fed::round::Settings;
use littoral_model::{Clipping, Model};
use littoral_privacy::account::{self, Accountant, Adjacency, Composition, Loss, Method};

/// What a job's releases cost a viewer.
#[derive(Clone, Debug, PartialEq)]
pub struct Guarantee {
    pub viewer: Viewer,
    /// `None`: nothing is guaranteed.
    pub epsilon: Option<f64>,
    pub delta: f64,
    /// One sentence: what it sees, and what the number rests on.
    pub why: String,
}

/// What a private job adds, and where.
#[derive(Clone, Debug)]
pub enum Protection {
    /// To updates or their sum.
    Devices(Noise),
    /// To every step of a device's training.
    Examples(ExampleNoise),
}

/// Can this job be private as it says? Its plan is made from what comes back.
pub fn protection(
    text: &JobText,
    model: &Model,
    algorithm: &dyn Algorithm,
    settings: &Settings,
    mapped: Option<(&Uplink, &Plan)>,
) -> Result<Option<Protection>, JobError> {
    let Some(dp) = &text.differential_privacy else { return Ok(None) };
    let params = model.layout().len();
    let refused = |field: &str, expected: String, got: &str| {
        Err(JobError::new(field, format!("{expected}, since the job has differential privacy"), got))
    };
    if text.data.has_statistics() {
        let expected = "false (its sums of columns would be released without noise)".into();
        return refused("data.standardise", expected, "true");
    }
    let sections = algorithm.sections(params, 1.0);
    if algorithm.device_state().is_some() || algorithm.wholes() > 0 || sections.len() != 1 {
        let expected =
            "an algorithm whose devices send one vector and keep nothing: fedavg, fedprox, fedavgm, fedadagrad, \
                        fedadam or fedyogi"
                .into();
        return refused("algorithm.name", expected, algorithm.name());
    }
    if text.rounds.target_accuracy.is_some() {
        return refused("rounds.target_accuracy", "none (counts of right answers are not released)".into(), "one");
    }
    let of_field = |e: DpError| JobError::new(format!("differential_privacy.{}", e.field), e.expected, e.got);
    if dp.by_example() {
        if let Err(coupled) = Clipping::<f32>::new(model, 0) {
            return Err(JobError::new("model.norm", "none or group", coupled));
        }
        if text.local.batch == 0 {
            let expected = "above 0, the rows that a step is expected to have: steps are divided by it".into();
            return refused("local.batch", expected, "0");
        }
        let noise = dp.example_noise(text.local.epochs, model.trained_len()).map_err(of_field)?;
        within_budget(dp, &of_examples(&noise, dp, settings)?[0])?;
        return Ok(Some(Protection::Examples(noise)));
    }
    let masked = text.secure_aggregation.is_some();
    let shares = matches!(dp.mechanism, MechanismName::DistributedDiscreteGaussian | MechanismName::DistributedSkellam);
    if shares && !masked {
        let expected = "a section [secure_aggregation], since each device adds a share of the noise only".into();
        return refused("secure_aggregation", expected, "none");
    }
    let min = settings.cohort.min.max(1);
    let summed = match mapped {
        Some((Uplink::Linear { linear, .. }, plan)) => {
            let l2 = linear.l2_bound(f64::from(dp.clip as f32), params).unwrap_or(f64::INFINITY);
            // Never below it.
            Summed { len: linear.sent_len(params), l2: (l2 as f32).next_up(), step: plan.step(0) }
        }
        _ => dp.summed(params),
    };
    let noise = dp.noise(settings.cohort_size() as u32, min, summed).map_err(of_field)?;
    within_budget(dp, &of_devices(&noise, settings, masked)?[0])?;
    Ok(Some(Protection::Devices(noise)))
}

/// Does the job cost the viewers of released models no more than it says?
fn within_budget(dp: &DifferentialPrivacy, model: &Guarantee) -> Result<(), JobError> {
    match model.epsilon {
        Some(epsilon) if epsilon <= dp.epsilon => Ok(()),
        Some(epsilon) => {
            let expected =
                format!("a budget that holds: noise of multiplier {} costs {epsilon:.4}", dp.noise_multiplier);
            Err(JobError::new("differential_privacy.epsilon", expected, dp.epsilon))
        }
        None => Err(JobError::new(
            "differential_privacy",
            "a guarantee for the viewers of released models",
            model.why.clone(),
        )),
    }
}

/// For each viewer, the one of released models first.
pub fn of_examples(
    noise: &ExampleNoise,
    dp: &DifferentialPrivacy,
    settings: &Settings,
) -> Result<Vec<Guarantee>, JobError> {
    // A device may be in every round; that it takes part in fewer is not relied on.
    let ExampleNoise { steps, rate, attempts, .. } = *noise;
    let rounds = settings.rounds;
    let epsilon = |times: u64| {
        let epsilon = noise.grid.epsilon(rate, rounds.saturating_mul(steps).saturating_mul(times), dp.delta);
        epsilon.map_err(|e| JobError::new("differential_privacy", "what can be accounted for", e))
    };
    let (once, always) = (epsilon(1)?, epsilon(attempts.into())?);
    let law = format!(
        "each row of a device is drawn in secret with probability {rate} in each of {steps} steps of each of {rounds} rounds, \
         and each step is noised on the device"
    );
    let cost = |viewer, epsilon, why| Guarantee { viewer, epsilon: Some(epsilon), delta: dp.delta, why };
    let update = format!(
        "knows how many rows a device has, and sees at most its updates, of up to {attempts} attempts at each round; {law}"
    );
    Ok(vec![
        cost(Viewer::Model, once, format!("sees released models; {law}")),
        cost(Viewer::Edge, always, update.clone()),
        cost(Viewer::Cloud, always, update),
    ])
}

/// For each viewer, the one of released models first.
pub fn of_devices(noise: &Noise, settings: &Settings, masked: bool) -> Result<Vec<Guarantee>, JobError> {
    let dp = &noise.spec;
    let rounds = settings.rounds;
    let part = if dp.participations_max == 0 { rounds } else { rounds.min(dp.participations_max) };
    let each = |count| Loss { mechanism: noise.mechanism(), sampling: account::Sampling::ALL, count };
    let cost = |viewer, loss: Loss, delta: f64, why: String| {
        let epsilon = epsilon(loss, delta, dp)?;
        Ok(Guarantee { viewer, epsilon: Some(epsilon), delta: dp.delta, why })
    };
    let nothing = |viewer, why: &str| Ok(Guarantee { viewer, epsilon: None, delta: dp.delta, why: why.into() });

    let (loss, delta, law) = match dp.sampling {
        Sampling::Present => {
            (each(part), dp.delta, format!("every participation counts in full, {part} of them at most"))
        }
        Sampling::Poisson(rate) => {
            let sampled = Loss { sampling: account::Sampling::Poisson { rate }, ..each(rounds) };
            let delta = dp.delta - unusual_samples(settings, dp);
            if delta < dp.delta / 2.0 {
                let expected = "a lower cohort.min or a larger cohort.target: samples outside of what can be summed would be too \
                                frequent for delta";
                return Err(JobError::new("cohort.min", expected, settings.cohort.min));
            }
            (
                sampled,
                delta,
                format!("each device is drawn in secret with probability {rate} in each of {rounds} rounds"),
            )
        }
        Sampling::Fixed(population) => {
            let rate = f64::from(settings.cohort.target) / f64::from(population);
            let sampled = Loss { sampling: account::Sampling::Fixed { rate }, ..each(rounds) };
            let target = settings.cohort.target;
            (
                sampled,
                dp.delta,
                format!("{target} of at least {population} devices are drawn in secret in each of {rounds} rounds"),
            )
        }
    };
    let model = cost(Viewer::Model, loss, delta, format!("sees released models; {law}"))?;

    let told = format!("knows who took part, so there is no amplification by sampling: {part} participations at most");
    let local = dp.mechanism == MechanismName::LocalDiscreteGaussian;
    let edge = match () {
        () if masked => {
            cost(Viewer::Edge, each(part), dp.delta, format!("sees masked words and released models; {told}"))
        }
        () if local => cost(Viewer::Edge, each(part), dp.delta, format!("sees each device's noised update; {told}")),
        () => nothing(Viewer::Edge, "sees each device's update as it is: add [secure_aggregation]"),
    }?;
    let cloud = match dp.mechanism {
        MechanismName::Central if masked => nothing(Viewer::Cloud, "sees each sum before it adds the noise"),
        MechanismName::Central => nothing(Viewer::Cloud, "could see each device's update, and adds the noise itself"),
        _ => {
            let sees = if local { "each device's noised update" } else { "each noised sum" };
            let with = match noise.release.honest {
                honest if !local => format!(", whose noise counts as that of {honest} honest devices"),
                _ => String::new(),
            };
            cost(Viewer::Cloud, each(part), dp.delta, format!("sees {sees}{with}; {told}"))
        }
    }?;
    Ok(vec![model, edge, cloud])
}

/// The least that an accountant can show.
fn epsilon(loss: Loss, delta: f64, dp: &DifferentialPrivacy) -> Result<f64, JobError> {
    let adjacency = if dp.vectors_changed() == 2 { Adjacency::ReplaceOne } else { Adjacency::AddRemove };
    let mut all = Composition::new();
    let refused = |e: account::AccountError| JobError::new("differential_privacy", "what can be accounted for", e);
    all.add(loss).map_err(refused)?;
    let by = |accountant| all.epsilon(delta, Method { accountant, adjacency, ..Method::default() });
    // Skellam noise has Rényi bounds only.
    let rdp = by(Accountant::Rdp).map_err(refused)?;
    Ok(by(Accountant::Pld).map_or(rdp, |pld| pld.min(rdp)))
}

/// What is added to δ because samples of unusual sizes are drawn again: in each round a chance t, and so at most t (1 + e^ε).
/// Sizes are Poisson-distributed with the target as mean, or narrower.
fn unusual_samples(settings: &Settings, dp: &DifferentialPrivacy) -> f64 {
    let mean = f64::from(settings.cohort.target);
    // P[X <= k] and P[X >= k] by Chernoff: exp(k - mean - k ln(k / mean)).
    let tail = |k: f64| (k - mean - k * (k / mean).ln()).exp();
    let below = f64::from(settings.cohort.min) - 1.0;
    let low = if below < 0.0 {
        0.0
    } else if below == 0.0 {
        (-mean).exp()
    } else if below >= mean {
        1.0
    } else {
        tail(below)
    };
    let high = tail(settings.cohort_size() as f64 + 1.0);
    settings.rounds as f64 * (low + high) * (1.0 + dp.epsilon.min(700.0).exp())
}

/// Two sentences on what a job guarantees to whom, for people.
pub fn sentences(text: &JobText, guarantees: &[Guarantee]) -> String {
    let unit = text.differential_privacy.as_ref().map_or("", DifferentialPrivacy::unit);
    let by_example = text.differential_privacy.as_ref().is_some_and(DifferentialPrivacy::by_example);
    let told = |g: &Guarantee| match g.epsilon {
        Some(epsilon) => format!("{} (ε = {epsilon:.2}, δ = {:.0e})", name(g.viewer), g.delta),
        None => format!("{} (no guarantee)", name(g.viewer)),
    };
    let all: Vec<String> = guarantees.iter().map(told).collect();
    let masks = match text.secure_aggregation.as_ref().map(|agreement| agreement.threat) {
        None => "Sums are not masked: edges and cloud could look at single updates.",
        Some(ThreatName::Honest) => "Sums are masked against a cloud that follows the protocol.",
        Some(ThreatName::Active) => "Sums are masked, also against a cloud that lies.",
    };
    let limit = match by_example {
        true => " Of all examples of a device together it may well tell: the device is not what is protected.",
        false => "",
    };
    format!("What is seen hardly depends on {unit}: {}.{limit} {masks}", all.join(", "))
}

pub fn name(viewer: Viewer) -> &'static str {
    match viewer {
        Viewer::Model => "whoever gets the models",
        Viewer::Edge => "an edge",
        Viewer::Cloud => "the cloud",
    }
}
