//! What a job may say whose algorithm gives each device a model of its own, and what follows from it.
//!
//! The cloud mixes each device's model from those of all ([`littoral_fed::algorithm::fedamp`]), so it sees every update by itself, keeps
//! every device's model, and makes an object for each. What hides devices from it, or changes what they send, is refused.

use super::{JobError, JobSpec, JobText};
use littoral_fed::algorithm::Algorithm;
use littoral_fed::algorithm::fedamp::DEVICES_MAX;
use littoral_fed::plan::{Plan, UPDATE_BYTES_MAX};
use littoral_fed::round::Settings;
use littoral_wire::given::GIVEN_CHUNKS_MAX;
use littoral_wire::object::{CHUNK_BYTES, CHUNKS_MAX};

/// Devices whose models the cloud keeps, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub devices_max: usize,
}

/// Bytes of the cloud's state beside devices' models, at most: their names, and when each was counted last.
const HEAD_BYTES_MAX: usize = 128 * DEVICES_MAX;

/// Can this job give devices models of their own?
pub(super) fn given(
    text: &JobText,
    algorithm: &dyn Algorithm,
    settings: &Settings,
    params: usize,
) -> Result<Option<Given>, JobError> {
    if algorithm.mixes().is_none() {
        return Ok(None);
    }
    let name = algorithm.name();
    let refused = |field: &str, why: &str, got: &str| Err(JobError::new(field, format!("none, since {why}"), got));
    if text.secure_aggregation.is_some() {
        let why = format!(
            "{name} compares devices' models, and under masks nobody sees any of them, only their sum; ditto, fedbn, fedper, fedrep and \
             perfedavg have personal models under masks"
        );
        return refused("secure_aggregation", &why, "masks");
    }
    if text.differential_privacy.is_some() {
        let why = format!("{name} gives devices mixtures of single devices' models, and noise is accounted for a sum");
        return refused("differential_privacy", &why, "noise");
    }
    if text.robust.is_some() {
        return refused(
            "robust",
            &format!("{name} has no one value that a rule could stand in for"),
            "a rule or a bound",
        );
    }
    if let Some(compression) = &text.compression {
        let why = "compares what devices learnt, and what is sent would be another vector";
        if compression.uplink.is_some() {
            return refused("compression.uplink", &format!("{name} {why}"), "a recipe");
        }
        if compression.downlink.is_some() {
            let why = format!("with {name} a device's model does not build on the version before");
            return refused("compression.downlink", &why, "a recipe");
        }
    }
    if text.pace.staleness_max > 0 {
        let expected = format!("0, since a device of {name} begins at the model that it is given for a version");
        return Err(JobError::new("pace.staleness_max", expected, text.pace.staleness_max));
    }
    let cohort = settings.cohort_size();
    if cohort > DEVICES_MAX {
        let expected = format!(
            "a cohort of at most {DEVICES_MAX} devices, over-selection included, since {name} compares all pairs"
        );
        return Err(JobError::new("cohort.target", expected, cohort));
    }
    // One device's model must fit into one request.
    let params_max = GIVEN_CHUNKS_MAX * CHUNK_BYTES / 8;
    if params > params_max {
        let expected =
            format!("at most {params_max} parameters, since with {name} each device is given an object of its own");
        return Err(JobError::new("model", expected, params));
    }
    let devices_max = ((CHUNK_BYTES * CHUNKS_MAX - HEAD_BYTES_MAX) / (4 * params.max(1))).min(DEVICES_MAX);
    if cohort > devices_max {
        let expected = format!(
            "at most {devices_max}, over-selection included, since with {name} the cloud keeps each device's {params} parameters, in an \
             object of at most {} bytes",
            CHUNK_BYTES * CHUNKS_MAX
        );
        return Err(JobError::new("cohort.target", expected, cohort));
    }
    Ok(Some(Given { devices_max }))
}

/// A list of updates travels as one object.
pub(super) fn fits(plan: &Plan, cohort: u32) -> Result<(), JobError> {
    let bytes = plan.format().bytes() as u64 * u64::from(cohort);
    match bytes > UPDATE_BYTES_MAX {
        true => {
            let expected = format!(
                "one whose updates have at most {UPDATE_BYTES_MAX} bytes together, since with a model for each device none are summed"
            );
            Err(JobError::new("cohort.target", expected, format!("{bytes} bytes")))
        }
        false => Ok(()),
    }
}

/// What it costs and who sees what: a sentence each, for whoever submits the job.
pub(super) fn remarks(spec: &JobSpec) -> Vec<String> {
    let (Some(Given { devices_max }), Some(mixer)) = (spec.inner.given, spec.algorithm().mixes()) else {
        return Vec::new();
    };
    let (name, cohort) = (spec.algorithm_name(), spec.settings().cohort_size());
    let (update, model) = (spec.update_bytes(), spec.version().model_bytes());
    let mut out = vec![
        format!(
            "{name}: each device is given a model of its own, mixed from those of all; the version, which is evaluated by nobody and which \
             `job model` fetches, is their mean, for devices that have none yet"
        ),
        format!(
            "updates go unmerged: edges spill each to disk and pass all on, up to {} bytes to the cloud in a round instead of {update} per \
             edge, and an edge fetches {model} bytes for each of its devices; edges and the cloud see each device's model, other devices \
             do not",
            update * cohort as u64
        ),
        format!(
            "the cloud keeps the models of at most {devices_max} devices, {} bytes each; beyond, who was counted longest ago is forgotten",
            4 * spec.version().params
        ),
    ];
    let reach = f64::from(mixer.sigma) / f64::from(mixer.alpha);
    if (cohort - 1) as f64 > reach {
        out.push(format!(
            "algorithm.alpha is made smaller in rounds where more than {reach:.1} devices are near one device, so that no weight is below 0"
        ));
    }
    out.push("every device counts as itself, whatever precision.weighting says".into());
    out
}

#[cfg(test)]
mod tests {
    use crate::job::{JobError, JobSpec, SAMPLE_TOML, Task};
    use littoral_wire::message::{Gather, Work};

    /// The sample has a cohort of 8, at least 6.
    fn job(more: &str) -> Result<JobSpec, JobError> {
        let sample = SAMPLE_TOML.replace("name = \"fedavg\"", "name = \"fedamp\"");
        JobSpec::parse(&format!("{sample}\n{more}"))
    }

    #[test]
    fn what_hides_a_device_or_changes_what_it_sends_is_refused() {
        for (more, place, told) in [
            ("[secure_aggregation]", "secure_aggregation", "under masks nobody sees any of them"),
            (
                "[differential_privacy]\nmechanism = \"central\"\nclip = 1.0\nnoise_multiplier = 5.0\nepsilon = 50.0",
                "differential_privacy",
                "accounted for a sum",
            ),
            ("[robust]\nrule = \"median\"", "robust", "no one value"),
            ("[compression]\nuplink = { name = \"eden\" }", "compression.uplink", "another vector"),
            ("[pace]\nstaleness_max = 2", "pace.staleness_max", "0, since"),
        ] {
            let refused = job(more).unwrap_err();
            assert_eq!(refused.place, place, "{refused}");
            assert!(refused.expected.contains(told) && !refused.to_string().contains('\n'), "{refused}");
        }
        let sample = SAMPLE_TOML.replace("name = \"fedavg\"", "name = \"fedamp\"");
        let crowd = sample.replace("target = 8", "target = 1025");
        assert_ne!(crowd, sample);
        let refused = JobSpec::parse(&crowd).unwrap_err();
        assert_eq!((refused.place.as_str(), refused.got.as_str()), ("cohort.target", "1025"), "{refused}");
        for wrong in ["alpha = 0", "sigma = -1", "lambda = -1", "alpha = 1e-38\nlambda = 1e38"] {
            let text = sample.replace("name = \"fedamp\"", &format!("name = \"fedamp\"\n{wrong}"));
            assert!(JobSpec::parse(&text).unwrap_err().place.starts_with("algorithm"), "{wrong}");
        }
    }

    #[test]
    fn every_update_is_seen_and_the_submitter_is_told() {
        let spec = job("").unwrap();
        assert_eq!((spec.gather(Work::Train), spec.gather(Work::Evaluate)), (Gather::Each, Gather::Sum));
        assert_eq!(spec.plan(Work::Train).weight_max(), 1);
        assert!(spec.tells_spread(Work::Train) && spec.inspected(Work::Train));
        assert!(Task::is_looked_into(&Task { spec: spec.clone(), population: 1 }.encode()));
        let told = spec.remarks().join("\n");
        assert!(told.contains("updates go unmerged") && told.contains("other devices do not"), "{told}");
        let plain = JobSpec::parse(SAMPLE_TOML).unwrap();
        assert!(!Task::is_looked_into(&Task { spec: plain, population: 1 }.encode()));
    }
}
