//! What a job may say about devices that lie, and what follows from it: `[robust]`.
//!
//! A rule ([`littoral_fed::robust`]) must see each update, so with one nothing is summed on the way; a bound on norms is
//! checked where plain words are read, at the edge. What cannot be checked is refused or said: nobody sees into masked
//! words, and noise that hides a device hides a liar.
//!
//! The geometric median alone needs no more than sums. Under masks it is worked out in several, each a version of its own
//! ([`littoral_fed::robust::weiszfeld`]).

use super::{JobError, JobSpec, JobText};
use littoral_fed::algorithm::Algorithm;
use littoral_fed::plan::{Plan, UPDATE_BYTES_MAX};
use littoral_fed::robust::weiszfeld::Weiszfeld;
use littoral_fed::robust::{Rule, RuleName, SpecError};
use littoral_fed::round::Settings;
use littoral_wire::message::Work;
use std::sync::Arc;

/// What a job with `[robust]` does beside summing.
pub(super) struct Robust {
    /// `None`: sums, and a bound on norms.
    pub rule: Option<Box<dyn Rule>>,
    pub norm_bound: Option<f32>,
    /// The geometric median by sums.
    pub by_sums: Option<BySums>,
}

/// R and ν of the geometric median by sums.
#[derive(Clone, Copy)]
pub(super) struct BySums {
    pub steps: u32,
    pub smoothing: f32,
}

/// Under masks every device tells its weight in fixed point, where 1 is ν.
const SMOOTHING_BY_SUMS_MIN: f32 = 1e-3;
/// ν, if the job does not say.
const SMOOTHING_BY_SUMS: f32 = 0.1;

/// Can this job be robust as it says?
pub(super) fn robust(
    text: &JobText,
    algorithm: &dyn Algorithm,
    settings: &Settings,
    params: usize,
) -> Result<Option<Robust>, JobError> {
    let Some(spec) = &text.robust else { return Ok(None) };
    let named = spec.rule;
    let refused =
        |field: &str, expected: String, got: String| Err(JobError::new(format!("robust.{field}"), expected, got));
    let ruled = named != RuleName::Mean;
    // What a rule may be here is said before what its numbers may be.
    let masked = text.secure_aggregation.is_some();
    if ruled && masked && named != RuleName::GeometricMedian {
        let expected = "none or geometric_median, since the job has secure_aggregation: it compares devices' updates, and under masks \
                        nobody sees any of them, only their sum";
        return refused("rule", expected.into(), named.to_string());
    }
    if text.differential_privacy.is_some() {
        let expected = match ruled {
            true => {
                "none, since the job has differential_privacy, whose noise is accounted for a sum: what a rule's value tells \
                 of one device is not known"
            }
            false => "none, since the job has differential_privacy: its clip bounds what one device adds",
        };
        let (field, got) = match (ruled, spec.norm_bound) {
            (false, Some(bound)) => ("norm_bound", bound.to_string()),
            _ => ("rule", named.to_string()),
        };
        return refused(field, expected.into(), got);
    }
    let mut rule = spec.build(settings.cohort.min, settings.cohort_size() as u32).map_err(wrong)?;
    if text.compression.as_ref().is_some_and(|compression| compression.uplink.is_some()) {
        let expected = "none, since the job is robust: rules and norms are of the delta itself, and what is sent would be another vector";
        return Err(JobError::new("compression.uplink", expected, "a recipe"));
    }
    if algorithm.wholes() > 0 || algorithm.sections(params, 1.0).len() != 1 {
        let expected = "an algorithm whose devices send one vector and nothing beside it, since only that is judged: fedavg, \
                        fedprox, fedavgm, fedadagrad, fedadam or fedyogi";
        return Err(JobError::new("algorithm.name", expected, algorithm.name()));
    }
    let by_sums = if ruled && masked { Some(by_sums(text, algorithm)?) } else { None };
    if by_sums.is_some() {
        rule = None;
    }
    Ok(Some(Robust { rule, norm_bound: spec.norm_bound, by_sums }))
}

/// Can this job have its geometric median by sums? That it has the rule, masks and one vector was seen.
fn by_sums(text: &JobText, algorithm: &dyn Algorithm) -> Result<BySums, JobError> {
    let spec = text.robust.clone().unwrap_or_default();
    let (steps, smoothing) = (spec.iterations.unwrap_or(3), spec.smoothing.unwrap_or(SMOOTHING_BY_SUMS));
    let why = "since under masks geometric_median is worked out in";
    if smoothing < SMOOTHING_BY_SUMS_MIN {
        let expected = format!("at least {SMOOTHING_BY_SUMS_MIN}, {why} fixed point");
        return Err(JobError::new("robust.smoothing", expected, smoothing));
    }
    if !text.rounds.count.is_multiple_of(u64::from(steps)) {
        let expected =
            format!("a multiple of robust.iterations, {steps}, {why} so many sums, each of which is a version");
        return Err(JobError::new("rounds.count", expected, text.rounds.count));
    }
    if text.pace.staleness_max > 0 {
        let expected = format!("0, {why} several sums of the same updates");
        return Err(JobError::new("pace.staleness_max", expected, text.pace.staleness_max));
    }
    if text.local.time_ms.is_some() {
        let expected = format!("none, {why} several sums, and a device that trains again must learn the same");
        return Err(JobError::new("local.time_ms", expected, "a time"));
    }
    if algorithm.keeps().is_some() {
        let expected = format!("one whose devices keep nothing of their own, {why} several sums of one training");
        return Err(JobError::new("algorithm.name", expected, algorithm.name()));
    }
    Ok(BySums { steps, smoothing })
}

impl BySums {
    /// The algorithm in its steps: all but the last, and the last.
    pub fn around(self, inner: Box<dyn Algorithm>, norm_bound: Option<f32>) -> [Box<dyn Algorithm>; 2] {
        let inner: Arc<dyn Algorithm> = inner.into();
        let step = |last| Weiszfeld { inner: Arc::clone(&inner), smoothing: self.smoothing, norm_bound, last };
        [false, true].map(|last| Box::new(step(last)) as Box<dyn Algorithm>)
    }
}

/// A list of updates travels as one object.
pub(super) fn fits(plan: &Plan, cohort: u32) -> Result<(), JobError> {
    let bytes = plan.format().bytes() as u64 * u64::from(cohort);
    match bytes > UPDATE_BYTES_MAX {
        true => {
            let expected = format!(
                "mean, or a cohort whose updates have at most {UPDATE_BYTES_MAX} bytes together, since none are summed"
            );
            Err(JobError::new("robust.rule", expected, format!("{bytes} bytes")))
        }
        false => Ok(()),
    }
}

fn wrong(error: SpecError) -> JobError {
    JobError::new(format!("robust.{}", error.field), error.allowed, error.got)
}

/// Who checks what of an update, and what a rule costs: a sentence each, for whoever submits the job.
pub(super) fn remarks(spec: &JobSpec) -> Vec<String> {
    let mut out = Vec::new();
    let Some(robust) = &spec.inner.robust else { return out };
    let masked = spec.settings().masked.is_some();
    if let Some(rule) = &robust.rule {
        let (one, cohort) = (spec.plan(Work::Train).format().bytes() as u64, spec.settings().cohort_size() as u64);
        out.push(format!(
            "robust: {} bears {}; every device counts once, whatever precision.weighting says",
            rule.name(),
            rule.bears()
        ));
        out.push(format!(
            "updates go unmerged: edges spill each to disk and pass all on, up to {} bytes to the cloud in a round instead of \
             {one} per edge; the cloud sees each by itself",
            one * cohort
        ));
    }
    if let Some(BySums { steps, smoothing }) = robust.by_sums {
        out.push(
            "robust: geometric_median bears fewer than half of the devices whose data or training is bad; of a device that breaks the \
             protocol nobody sees the weight, which is NOT ENFORCED; every device counts once"
                .into(),
        );
        out.push(format!(
            "a model is made in {steps} masked sums of the same devices, each a version (rounds.count); smoothing {smoothing}, so that \
             updates within it of the median count alike"
        ));
    }
    match (robust.norm_bound, masked) {
        (Some(bound), false) => {
            out.push(format!("norm_bound {bound}: devices clip to it, edges refuse what is longer"));
        }
        (Some(bound), true) => out.push(format!(
            "norm_bound {bound} is NOT ENFORCED: devices clip to it, and under masks nobody can check that they did"
        )),
        (None, _) => {}
    }
    out.push(match masked {
        true => "checked of an update under masks: its length, version, sender, and that it comes once; its numbers by nobody"
            .into(),
        false => format!(
            "checked of an update by its edge: its length, version, sender, that it comes once, its weight and that each \
             coordinate is within ±{}; whether it was learnt from rows, by nobody",
            spec.plan(Work::Train).sections().first().map_or(0.0, |section| section.range)
        ),
    });
    if spec.settings().statistics {
        out.push("not robust: the sums behind data.standardise; one device can move means and deviations".into());
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::job::{JobError, JobSpec, SAMPLE_TOML};
    use littoral_fed::plan::Weighting;
    use littoral_wire::message::{Gather, Work};

    /// The sample has a cohort of 8, at least 6.
    fn job(algorithm: &str, more: &str) -> Result<JobSpec, JobError> {
        let sample = SAMPLE_TOML.replace("name = \"fedavg\"", &format!("name = {algorithm:?}"));
        JobSpec::parse(&format!("{sample}\n{more}"))
    }

    const MASKS: &str = "[secure_aggregation]\n";
    const PRIVATE: &str =
        "[differential_privacy]\nmechanism = \"central\"\nclip = 1.0\nnoise_multiplier = 5.0\nepsilon = 50.0\n";
    const CODED: &str = "[compression]\nuplink = { name = \"eden\" }\n";

    #[test]
    fn what_cannot_be_robust_is_refused_with_the_field_and_the_reason() {
        for (algorithm, robust, more, place, told) in [
            ("fedavg", "rule = \"median\"", MASKS, "robust.rule", "under masks nobody sees any of them"),
            ("fedavg", "rule = \"geometric_median\"", MASKS, "rounds.count", "a multiple of robust.iterations, 3"),
            ("fedavg", "rule = \"geometric_median\"\nsmoothing = 1e-6", MASKS, "robust.smoothing", "fixed point"),
            ("ditto", "rule = \"geometric_median\"\niterations = 5", MASKS, "algorithm.name", "nothing of their own"),
            ("fedavg", "rule = \"krum\"\nbyzantine = 1", PRIVATE, "robust.rule", "accounted for a sum"),
            ("fedavg", "norm_bound = 2.0", PRIVATE, "robust.norm_bound", "its clip bounds"),
            ("fedavg", "rule = \"median\"", CODED, "compression.uplink", "of the delta itself"),
            ("scaffold", "rule = \"median\"", "", "algorithm.name", "one vector and nothing beside it"),
            ("fednova", "norm_bound = 2.0", "", "algorithm.name", "one vector and nothing beside it"),
            ("fedavg", "rule = \"trimmed_mean\"\ntrim = 3", "", "robust.trim", "cohort.min of at least 7"),
            ("fedavg", "rule = \"krum\"\nbyzantine = 2", "", "robust.byzantine", "cohort.min of at least 7"),
            ("fedavg", "rule = \"multi_krum\"\nbyzantine = 1\nselect = 4", "", "robust.select", "1 to 3"),
            ("fedavg", "rule = \"bulyan\"\nbyzantine = 1", "", "robust.byzantine", "cohort.min of at least 7"),
            ("fedavg", "rule = \"krum\"", "", "robust.byzantine", "since the rule is krum"),
            ("fedavg", "rule = \"median\"\ntrim = 1", "", "robust.trim", "a parameter of trimmed_mean"),
            ("fedavg", "rule = \"geometric_median\"\nsmoothing = 0.0", "", "robust.smoothing", "above 0"),
            ("fedavg", "norm_bound = -1.0", "", "robust.norm_bound", "above 0"),
            ("fedavg", "", "", "robust.rule", "a norm_bound"),
        ] {
            let refused = job(algorithm, &format!("[robust]\n{robust}\n{more}")).unwrap_err();
            assert_eq!(refused.place, place, "{robust}: {refused}");
            assert!(refused.expected.contains(told), "{robust}: {refused}");
        }
        let unknown = job("fedavg", "[robust]\nrule = \"mode\"").unwrap_err();
        assert!(unknown.to_string().contains("geometric_median"), "{unknown}");
    }

    #[test]
    fn under_masks_a_version_of_the_geometric_median_is_made_in_steps() {
        let masked =
            job("fedavgm", &format!("[robust]\nrule = \"geometric_median\"\niterations = 5\n{MASKS}")).unwrap();
        let settings = masked.settings();
        // The sample begins with statistics: version 1 is the first that trains.
        assert_eq!((settings.statistics, settings.steps), (true, 5));
        assert_eq!([0, 1, 5, 6, 10].map(|version| settings.base(version)), [0, 1, 1, 6, 6]);
        assert_eq!((masked.gather(Work::Train), masked.plan(Work::Train).weight_max()), (Gather::Sum, 1));
        assert!(masked.rule().is_none() && !masked.inspected(Work::Train));
        // The point goes down the link with the weights, the velocity does not.
        assert_eq!((masked.version().broadcast, masked.version().kept), (1, 1));
        let told = masked.remarks().join("\n");
        assert!(told.contains("5 masked sums") && told.contains("NOT ENFORCED"), "{told}");
    }

    #[test]
    fn a_rule_sees_each_update_and_a_bound_a_sum() {
        let ruled = job("fedadam", "[robust]\nrule = \"trimmed_mean\"\ntrim = 2").unwrap();
        assert_eq!((ruled.gather(Work::Train), ruled.gather(Work::Evaluate)), (Gather::Each, Gather::Sum));
        assert_eq!(ruled.plan(Work::Train).weight_max(), 1);
        let told = ruled.remarks().join("\n");
        assert!(told.contains("updates go unmerged") && told.contains("not robust: the sums behind"), "{told}");

        let weighting = "by_examples = { examples_max = 9, weight_max = 9 }";
        let sample = SAMPLE_TOML.replace("weighting = \"uniform\"", &format!("weighting = {{ {weighting} }}"));
        let bound = JobSpec::parse(&format!("{sample}\n[robust]\nnorm_bound = 2.0")).unwrap();
        assert_eq!(bound.text().precision.weighting, Weighting::ByExamples { examples_max: 9, weight_max: 9 });
        assert_eq!((bound.gather(Work::Train), bound.plan(Work::Train).weight_max()), (Gather::Sum, 9));
        assert!(bound.remarks().join("\n").contains("edges refuse what is longer"));
        let masked = JobSpec::parse(&format!("{sample}\n[robust]\nnorm_bound = 2.0\n{MASKS}")).unwrap();
        assert!(masked.remarks().join("\n").contains("NOT ENFORCED"));
        assert!(masked.norm_bound().is_some() && !masked.inspected(Work::Train) && bound.inspected(Work::Train));
    }
}
