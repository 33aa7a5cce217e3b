//! What a job may say. All that is wrong and can be seen by itself is said at once.

use super::{Eligibility, JobError, JobText, OptimiserText};
use littoral_fed::algorithm::Algorithm;
use littoral_fed::dp::DifferentialPrivacy;
use littoral_fed::home::{Home, HomeError, Places};
use littoral_fed::plan::PlanError;
use littoral_fed::round::selection::Policy;
use littoral_fed::round::{Pace, Settings};
use littoral_model::{Loss, Model, ModelSpec};

/// The parts of a job that was found good.
pub(super) struct Parts {
    pub model: Model,
    pub algorithm: Box<dyn Algorithm>,
    pub settings: Settings,
    /// What of the model is shared.
    pub home: Home,
}

/// Pause before a sum that could not be applied is tried again.
const RETRY_MS: u64 = 5_000;

pub(super) fn parts(text: &JobText) -> Result<Parts, JobError> {
    let mut wrong = Vec::new();
    note(&mut wrong, name("name", &text.name));
    note(&mut wrong, name("data.set", &text.data.set));
    note(&mut wrong, held_out(text.data.held_out));
    note(&mut wrong, text.local.check());
    note(&mut wrong, text.eligibility.as_ref().map_or(Ok(()), Eligibility::check));
    let algorithm = note(&mut wrong, algorithm(text));
    let settings = note(&mut wrong, settings(text));
    // A model is measured by the schema.
    let model = note(&mut wrong, schema(text)).and_then(|()| note(&mut wrong, model(text)));
    match (model, algorithm, settings) {
        (Some(model), Some(algorithm), Some(settings)) if wrong.is_empty() => {
            fit(text, &model, &*algorithm)?;
            let home = home(text, &model, &*algorithm)?;
            Ok(Parts { model, algorithm, settings, home })
        }
        _ => Err(JobError::all(&wrong)),
    }
}

fn note<T>(wrong: &mut Vec<JobError>, part: Result<T, JobError>) -> Option<T> {
    part.map_err(|error| wrong.push(error)).ok()
}

fn name(field: &str, value: &str) -> Result<(), JobError> {
    // It is printed at other people's terminals.
    match value.trim().is_empty() || value.len() > 64 || value.chars().any(char::is_control) {
        true => {
            let expected = "1 to 64 bytes without control characters that are not all blank";
            Err(JobError::new(field, expected, format!("{value:?}")))
        }
        false => Ok(()),
    }
}

fn held_out(fraction: f64) -> Result<(), JobError> {
    match (0.0..1.0).contains(&fraction) {
        true => Ok(()),
        false => Err(JobError::new("data.held_out", "a fraction of at least 0 and below 1", fraction)),
    }
}

fn schema(text: &JobText) -> Result<(), JobError> {
    text.data.schema.check().map_err(|e| JobError::new(format!("data.schema.{}", e.field), e.allowed, e.value))
}

fn algorithm(text: &JobText) -> Result<Box<dyn Algorithm>, JobError> {
    text.algorithm.build().map_err(|e| JobError::new(format!("algorithm.{}", e.field), e.allowed, e.value))
}

fn settings(text: &JobText) -> Result<Settings, JobError> {
    let rounds = &text.rounds;
    let settings = Settings {
        cohort: text.cohort.clone(),
        pace: Pace { ..text.pace.clone() },
        deadline_ms: rounds.deadline_ms,
        wait_ms: rounds.wait_ms,
        close_ms: rounds.close_ms,
        retry_ms: RETRY_MS,
        rounds: rounds.count,
        target_accuracy: rounds.target_accuracy,
        statistics: text.data.has_statistics(),
        seed: text.seed,
        selection: text.selection.clone(),
        sampling: text.differential_privacy.as_ref().map_or_else(Default::default, |dp| dp.sampling),
        spacing: text.differential_privacy.as_ref().map_or(1, |dp| dp.spacing()),
        steps: 1,
        masked: None,
    };
    let place = |field: &str| match field {
        "rounds" => "rounds.count".to_owned(),
        "deadline_ms" | "wait_ms" | "close_ms" | "target_accuracy" => format!("rounds.{field}"),
        _ => field.to_owned(),
    };
    settings.checked().map_err(|e| JobError::new(place(e.field), e.allowed, e.got))
}

fn model(text: &JobText) -> Result<Model, JobError> {
    let (spec, schema) = (&text.model, &text.data.schema);
    let numbers = schema.label.as_ref().is_some_and(|label| label.classes.is_none());
    match (numbers, spec, spec.loss()) {
        (true, ModelSpec::Softmax {}, _) => {
            let expected = "mlp or cnn with loss = \"mse\", since the label is a number";
            return Err(JobError::new("model.kind", expected, "softmax"));
        }
        (true, _, Loss::CrossEntropy) => {
            return Err(JobError::new("model.loss", "mse, since the label is a number", "cross_entropy"));
        }
        (false, _, Loss::Mse) => {
            return Err(JobError::new("model.loss", "cross_entropy, since classes are predicted", "mse"));
        }
        _ => {}
    }
    if let (ModelSpec::Recurrent { vocabulary, .. }, Some(text)) = (spec, &schema.text)
        && *vocabulary != text.tokens()
    {
        let of =
            if text.words.is_empty() { "characters of data.schema.text.alphabet" } else { "data.schema.text.words" };
        return Err(JobError::new("model.vocabulary", format!("{}, the number of {of}", text.tokens()), vocabulary));
    }
    let place = |field: &str| match field {
        "inputs" => "data.schema.fields".to_owned(),
        "outputs" => "data.schema".to_owned(),
        "window" => "data.schema.text.window".to_owned(),
        size if size.contains(' ') => format!("model, {size}"),
        field => format!("model.{field}"),
    };
    Model::build(spec, text.data.inputs(), text.data.outputs())
        .map_err(|e| JobError::new(place(&e.field), e.allowed, e.got))
}

/// Whether parts that are good by themselves go together.
fn fit(text: &JobText, model: &Model, algorithm: &dyn Algorithm) -> Result<(), JobError> {
    // What these two reckon with is a number of plain steps.
    let plain = matches!(text.local.optimiser, OptimiserText::Sgd { .. });
    if !plain && matches!(algorithm.name(), "scaffold" | "fednova") {
        let expected = format!("sgd, since {} counts plain steps", algorithm.name());
        return Err(JobError::new("local.optimiser.name", expected, "adam"));
    }
    if algorithm.name() == "scaffold" && model.trained_len() < model.layout().len() {
        let expected = "none or group: running statistics are not trained, so their control variate would drift";
        return Err(JobError::new("model.norm", expected, "batch"));
    }
    if let (Some(ms), Some(dp)) = (text.local.time_ms, &text.differential_privacy)
        && dp.by_example()
    {
        let expected = "none, since privacy of single examples is accounted for as many steps as the job says";
        return Err(JobError::new("local.time_ms", expected, ms));
    }
    selection(text)?;
    asynchronous(text, algorithm)
}

/// Whether devices may be chosen as the job says.
fn selection(text: &JobText) -> Result<(), JobError> {
    let needs_losses = text.selection.needs_losses();
    let hides = match (&text.secure_aggregation, &text.differential_privacy) {
        (Some(_), _) if needs_losses => "a masked job: no device tells its own loss",
        (_, Some(_)) if needs_losses => "a job with differential privacy: no device tells its own loss",
        (_, Some(_)) if text.selection.policy != Policy::Uniform => {
            "a job with differential privacy: how many rows a device has would say whether it is asked"
        }
        _ => return Ok(()),
    };
    Err(JobError::new(
        "selection.policy.name",
        format!("one that needs nothing of a single device, in {hides}"),
        "another",
    ))
}

/// What of the model the algorithm leaves on devices.
fn home(text: &JobText, model: &Model, algorithm: &dyn Algorithm) -> Result<Home, JobError> {
    let norms = model.norm_segments();
    let segments = model.layout().segments().iter();
    let places = Places {
        params: model.layout().len(),
        norms: segments.filter(|s| norms.contains(&s.name.as_str())).map(|s| s.range()).collect(),
        layers: model
            .layer_segments()
            .into_iter()
            .map(|layer| layer.into_iter().map(|s| s.range()).collect())
            .collect(),
    };
    let (name, kind) = (algorithm.name(), text.model.kind());
    let home = algorithm.home(&places).map_err(|error| match (error, &text.model) {
        (HomeError::NoNorm, ModelSpec::Cnn { .. }) => {
            JobError::new("model.norm", format!("group or batch, since {name} keeps norms on devices"), "none")
        }
        (HomeError::NoNorm, _) => {
            let expected = format!("cnn with norm = \"batch\" or \"group\", since {name} keeps norms on devices");
            JobError::new("model.kind", expected, kind)
        }
        (HomeError::Layers { most: 0, .. }, _) => {
            let expected =
                format!("one of two layers or more, since {name} keeps the last ones on devices and shares the others");
            JobError::new("model.kind", expected, kind)
        }
        (HomeError::Layers { most, got }, _) => {
            JobError::new("algorithm.layers", format!("1 to {most}, since the others are shared"), got)
        }
        (other, _) => JobError::new("algorithm.name", "an algorithm for this model", other),
    })?;
    if algorithm.keeps().is_none() {
        return Ok(home);
    }
    if text.pace.staleness_max > 0 {
        let expected = format!("0, since a device of {name} trains its own part with the version that it is sent with");
        return Err(JobError::new("pace.staleness_max", expected, text.pace.staleness_max));
    }
    if text.differential_privacy.as_ref().is_some_and(DifferentialPrivacy::by_example) {
        let expected = "one without a personal model, since the account of single examples counts the steps of one training: fedavg, \
                        fedprox, fedavgm, fedadagrad, fedadam or fedyogi";
        return Err(JobError::new("algorithm.name", expected, name));
    }
    Ok(home)
}

/// Whether updates may be old in this job.
fn asynchronous(text: &JobText, algorithm: &dyn Algorithm) -> Result<(), JobError> {
    let name = algorithm.name();
    let wrong = |place: &str, expected: &str, got: &str| Err(JobError::new(place, expected, got));
    if algorithm.alone() {
        if text.secure_aggregation.is_some() {
            let expected =
                format!("a job without it, since {name} makes a version of each update: there is nothing to hide in");
            return wrong("secure_aggregation", &expected, "a job with it");
        }
        if text.cohort.target != 1 {
            let expected = format!("1, since {name} makes a version of each update");
            return Err(JobError::new("cohort.target", expected, text.cohort.target));
        }
        if text.compression.is_some() || text.differential_privacy.is_some() {
            let expected = format!(
                "a job without [compression] and [differential_privacy], since {name} moves to where the device is"
            );
            return wrong("algorithm.name", &expected, name);
        }
    }
    if text.pace.staleness_max == 0 {
        return match name {
            "fedasync" | "fedbuff" => {
                let expected = format!("1 or more, since {name} takes updates that are old (or choose fedavg)");
                wrong("pace.staleness_max", &expected, "0")
            }
            _ => Ok(()),
        };
    }
    // What devices keep between rounds is of one version, and what they send must be of that version too.
    if let Some(kept) = algorithm.device_state() {
        let expected = format!("0, since devices of {name} keep a {kept} that belongs to the newest version");
        return Err(JobError::new("pace.staleness_max", expected, text.pace.staleness_max));
    }
    if let Some(compression) = &text.compression {
        let what = "0, since what this job compresses belongs to one version";
        let uplink = compression.uplink.as_ref();
        if compression.downlink.is_some() || uplink.is_some_and(|uplink| uplink.residual() || uplink.of_a_version()) {
            return Err(JobError::new("pace.staleness_max", what, text.pace.staleness_max));
        }
    }
    match &text.differential_privacy {
        Some(dp) if dp.of_a_version() => {
            let expected = "0, since the noise or the clip of this job belongs to one version";
            Err(JobError::new("pace.staleness_max", expected, text.pace.staleness_max))
        }
        _ => Ok(()),
    }
}

/// A plan of fixed point that cannot be made.
pub(super) fn unplanned(error: PlanError) -> JobError {
    match error {
        PlanError::Range { got, .. } => JobError::new("precision.range", "a finite number above 0", got),
        PlanError::Levels { got } => JobError::new("precision.resolution.levels", "2 to 2147483648", got),
        PlanError::Weighting { field } => {
            JobError::new(format!("precision.weighting.by_examples.{field}"), "1 or more", 0)
        }
        other => JobError::new("precision", "a plan that fits", other),
    }
}
