//! What a private job may be, and what it costs each viewer.
//!
//! A combination of selection, deadline and account that no proof covers is refused, with the field; so is a job that would
//! cost the viewers of its models more than it says.
//!
//! There are two statements, and a job makes one of them: that what is seen hardly depends on any one device, or that it hardly
//! depends on any one example of a device. The second is nearly the same for all viewers, for noise is in the updates
//! themselves; but edges and cloud also see attempts that came to nothing.

pub mod terms;

use super::{DriftText, JobError, JobText, Sketched, Uplink};
use littoral_fed::algorithm::Algorithm;
use littoral_fed::dp::{DifferentialPrivacy, DpError, ExampleNoise, MechanismName, Noise, Summed, Viewer};
use littoral_fed::masks::{Groups, ThreatName};
use littoral_fed::plan::Plan;
use littoral_fed::round::Settings;
use littoral_model::{Clipping, Model};
use littoral_privacy::account::distributed::Release;
pub use terms::{Noised, Seen, Sums, Terms};

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

impl Protection {
    fn release(&self) -> Release {
        match self {
            Protection::Devices(noise) => noise.release,
            Protection::Examples(noise) => noise.grid.law(),
        }
    }
}

/// Can this job be private as it says? Its plan is made from what comes back. `params`: those that are shared.
pub fn protection(
    text: &JobText,
    model: &Model,
    params: usize,
    algorithm: &dyn Algorithm,
    settings: &Settings,
    mapped: Option<(&Uplink, &Plan)>,
    sketched: Option<&Sketched>,
) -> Result<Option<(Protection, Terms)>, JobError> {
    let Some(dp) = &text.differential_privacy else { return Ok(None) };
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
    if let Some(why) = dp.refuses_sketch().filter(|_| sketched.is_some()) {
        return Err(JobError::new("drift", format!("none, since {why}"), "one"));
    }
    if sketched.is_some() && mapped.is_some() {
        return Err(JobError::new(
            "drift",
            "none, or no [compression], which maps what a sketch is appended to",
            "one",
        ));
    }
    let private = if dp.by_example() {
        let (noise, terms) = of_examples(text, dp, model, settings)?;
        (Protection::Examples(noise), terms)
    } else {
        let (noise, terms) = of_devices(text, dp, settings, params, mapped, sketched)?;
        (Protection::Devices(noise), terms)
    };
    Ok(Some(private))
}

fn of_field(e: DpError) -> JobError {
    JobError::new(format!("differential_privacy.{}", e.field), e.expected, e.got)
}

fn of_examples(
    text: &JobText,
    dp: &DifferentialPrivacy,
    model: &Model,
    settings: &Settings,
) -> Result<(ExampleNoise, Terms), JobError> {
    if let Err(coupled) = Clipping::<f32>::new(model, 0) {
        return Err(JobError::new("model.norm", "none or group", coupled));
    }
    if text.data.held_out != 0.0 {
        let expected = "0, since the job protects single examples: which rows are held out hangs on all rows, and nothing is \
                        evaluated on them anyway";
        return Err(JobError::new("data.held_out", expected, text.data.held_out));
    }
    if text.local.batch == 0 {
        let expected = "above 0, the rows that a step is expected to have: steps are divided by it";
        return Err(JobError::new("local.batch", expected, "0"));
    }
    let noise = dp.example_noise(text.local.epochs, model.trained_len()).map_err(of_field)?;
    let terms = Terms {
        dp: dp.clone(),
        noised: Noised::Steps { dim: model.trained_len(), epochs: text.local.epochs },
        models: settings.rounds,
        // No version is trained on in more attempts, and no version above the last.
        participations: match (settings.rounds.saturating_mul(noise.attempts.into()), dp.participations_max) {
            (all, 0) => all,
            (all, most) => all.min(most),
        },
    };
    Ok((noise, terms))
}

fn of_devices(
    text: &JobText,
    dp: &DifferentialPrivacy,
    settings: &Settings,
    params: usize,
    mapped: Option<(&Uplink, &Plan)>,
    sketched: Option<&Sketched>,
) -> Result<(Noise, Terms), JobError> {
    let masked = text.secure_aggregation.is_some();
    let shares = matches!(dp.mechanism, MechanismName::DistributedDiscreteGaussian | MechanismName::DistributedSkellam);
    if shares && !masked {
        let expected = "a section [secure_aggregation], since each device adds a share of the noise only";
        return Err(JobError::new("secure_aggregation", expected, "none"));
    }
    if let Some(agreement) =
        text.secure_aggregation.as_ref().filter(|agreement| shares && dp.colluding < agreement.adversary)
    {
        let expected = format!(
            "at least {}, secure_aggregation.adversary: devices that stand with the cloud tell it their noise",
            agreement.adversary
        );
        return Err(JobError::new("differential_privacy.colluding", expected, dp.colluding));
    }
    if dp.mechanism == MechanismName::DpFtrl && masked {
        let expected =
            "none: under dp-ftrl the cloud holds what devices sent in last versions, and hides it by noise only";
        return Err(JobError::new("secure_aggregation", expected, "a section [secure_aggregation]"));
    }
    if mapped.is_some() && (dp.mechanism == MechanismName::DpFtrl || dp.adaptive_clip.is_some()) {
        let (field, what) = match dp.adaptive_clip {
            Some(_) => ("differential_privacy.adaptive_clip", "a clip that follows the updates"),
            None => ("differential_privacy.mechanism", "noise that is correlated over versions"),
        };
        let expected = format!(
            "another one, or no [compression]: maps differ from version to version, which {what} does not go with"
        );
        return Err(JobError::new(field, expected, "one with compressed updates"));
    }
    let (target, rounds) = (settings.cohort.target, settings.rounds);
    let on_bins = text.drift.as_ref().map_or(DriftText::NOISE, DriftText::noise);
    let sketch = sketched.map(|sketched| dp.sketch(&sketched.layout, on_bins, target)).transpose();
    let sketch = sketch.map_err(|least| {
        let expected = format!("more than {least:.4}, since the noise on a sketch is a part of all noise");
        JobError::new("drift.noise", expected, on_bins)
    })?;
    let summed = match mapped {
        Some((Uplink::Linear { map, .. }, plan)) => {
            let l2 = map.l2_bound(f64::from(dp.clip as f32), params).unwrap_or(f64::INFINITY);
            // Never below it.
            Summed { len: map.sent_len(params), l2: (l2 as f32).next_up(), step: plan.step(0) }
        }
        _ => dp.summed(params, target, rounds, sketch.as_ref()).map_err(of_field)?,
    };
    let min = settings.cohort.min.max(1);
    // Each group that is opened is a release of its own.
    let per_edge = text.secure_aggregation.as_ref().filter(|agreement| agreement.groups == Groups::PerEdge);
    let sums = Sums {
        clients: settings.cohort_size() as u32,
        target,
        min,
        shares_min: per_edge.map_or(min, |agreement| agreement.group_min),
        summed,
        masked,
    };
    let noise = dp.noise(sums.clients, target, sums.shares_min, summed, rounds).map_err(of_field)?;
    let noise = Noise { sketch, ..noise };
    let terms = Terms {
        dp: dp.clone(),
        noised: Noised::Sums(sums),
        models: settings.rounds,
        participations: Terms::cap(dp, settings.rounds),
    };
    Ok((noise, terms))
}

/// Does the job cost the viewers of its models at most what it says? May take a second.
pub fn within_epsilon(protection: &Protection, terms: &Terms) -> Result<(), JobError> {
    let ([model, ..], dp) = (terms.seen(&protection.release()), &terms.dp);
    match terms::epsilon_of_job(&model, terms, Some(dp.epsilon))? {
        Some(epsilon) if epsilon <= dp.epsilon => Ok(()),
        Some(epsilon) => {
            let expected =
                format!("a budget that holds: noise of multiplier {} costs {epsilon:.4}", dp.noise_multiplier);
            Err(JobError::new("differential_privacy.epsilon", expected, dp.epsilon))
        }
        None => Err(JobError::new("differential_privacy", "a guarantee for the viewers of released models", model.why)),
    }
}

/// For each viewer, the one of released models first.
pub fn guarantees(protection: &Protection, terms: &Terms) -> Result<Vec<Guarantee>, JobError> {
    let guarantee = |seen: &Seen| {
        let epsilon = terms::epsilon_of_job(seen, terms, None)?;
        Ok(Guarantee { viewer: seen.viewer, epsilon, delta: terms.dp.delta, why: seen.why.clone() })
    };
    terms.seen(&protection.release()).iter().map(guarantee).collect()
}

/// Two sentences on what a job guarantees to whom, for people.
pub fn sentences(text: &JobText, guarantees: &[Guarantee]) -> String {
    let unit = text.differential_privacy.as_ref().map_or("", DifferentialPrivacy::unit);
    let by_example = text.differential_privacy.as_ref().is_some_and(DifferentialPrivacy::by_example);
    let told = |g: &Guarantee| match g.epsilon {
        // That much is hardly a guarantee, and a number of twenty digits would look like one.
        Some(epsilon) if epsilon >= 1000.0 => format!("{} (ε = {epsilon:.1e}, δ = {:.0e})", name(g.viewer), g.delta),
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
