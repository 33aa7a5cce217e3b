//! What a private job may be, and what it costs each viewer.
//!
//! A combination of selection, deadline and account that no proof covers is refused, with the field; so is a job that would
//! cost the viewers of its models more than it says.

pub mod terms;

use super::{JobError, JobText, Uplink};
use littoral_fed::algorithm::Algorithm;
use littoral_fed::dp::{MechanismName, Noise, Summed, Viewer};
use littoral_fed::masks::{Groups, ThreatName};
use littoral_fed::plan::Plan;
use littoral_fed::round::Settings;
pub use terms::{Seen, Terms};

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

/// Can this job be private as it says? Its plan is made from what comes back.
pub fn noise(
    text: &JobText,
    algorithm: &dyn Algorithm,
    settings: &Settings,
    params: usize,
    mapped: Option<(&Uplink, &Plan)>,
) -> Result<Option<(Noise, Terms)>, JobError> {
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
    let masked = text.secure_aggregation.is_some();
    let shares = matches!(dp.mechanism, MechanismName::DistributedDiscreteGaussian | MechanismName::DistributedSkellam);
    if shares && !masked {
        let expected = "a section [secure_aggregation], since each device adds a share of the noise only".into();
        return refused("secure_aggregation", expected, "none");
    }
    let summed = match mapped {
        Some((Uplink::Linear { linear, .. }, plan)) => {
            let l2 = linear.l2_bound(f64::from(dp.clip as f32), params).unwrap_or(f64::INFINITY);
            // Never below it.
            Summed { len: linear.sent_len(params), l2: (l2 as f32).next_up(), step: plan.step(0) }
        }
        _ => dp.summed(params),
    };
    let min = settings.cohort.min.max(1);
    // Each group that is opened is a release of its own.
    let per_edge = text.secure_aggregation.as_ref().filter(|agreement| agreement.groups == Groups::PerEdge);
    let terms = Terms {
        dp: dp.clone(),
        clients: settings.cohort_size() as u32,
        target: settings.cohort.target,
        min,
        shares_min: per_edge.map_or(min, |agreement| agreement.group_min),
        summed,
        masked,
        models: settings.rounds,
        participations: Terms::cap(dp, settings.rounds),
    };
    let noise = terms.noise();
    let noise = noise.map_err(|e| JobError::new(format!("differential_privacy.{}", e.field), e.expected, e.got))?;
    Ok(Some((noise, terms)))
}

/// Does the job cost the viewers of its models at most what it says? May take a second.
pub fn within_epsilon(noise: &Noise, terms: &Terms) -> Result<(), JobError> {
    let ([model, ..], dp) = (terms.seen(noise), &terms.dp);
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
pub fn guarantees(noise: &Noise, terms: &Terms) -> Result<Vec<Guarantee>, JobError> {
    let guarantee = |seen: &Seen| {
        let epsilon = terms::epsilon_of_job(seen, terms, None)?;
        Ok(Guarantee { viewer: seen.viewer, epsilon, delta: terms.dp.delta, why: seen.why.clone() })
    };
    terms.seen(noise).iter().map(guarantee).collect()
}

/// Two sentences on what a job guarantees to whom, for people.
pub fn sentences(text: &JobText, guarantees: &[Guarantee]) -> String {
    let unit = text.differential_privacy.as_ref().map_or("", |dp| dp.unit.as_str());
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
    format!("What is seen hardly depends on {unit}: {}. {masks}", all.join(", "))
}

pub fn name(viewer: Viewer) -> &'static str {
    match viewer {
        Viewer::Model => "whoever gets the models",
        Viewer::Edge => "an edge",
        Viewer::Cloud => "the cloud",
    }
}
