//! What a job may say about compression, and what follows from it for devices, edges and cloud.
//!
//! Two kinds that a job can run ([`littoral_fed::compress`]): **linear maps**, of which sums are summed as they are sent, under
//! masks too, and the cloud maps the total back; and **codes**, which an edge decodes before it adds them. A combination that
//! nobody could run, or nobody has proven, is refused with the field and the reason.

use super::{JobError, JobText};
use littoral_fed::algorithm::Algorithm;
use littoral_fed::compress::alternating::{Alternating, Basis, Projection};
use littoral_fed::compress::powersgd::Matrix;
use littoral_fed::compress::recipe::{Downlink, PowerSgdText, RandomKText};
use littoral_fed::compress::{Codec, CompressError, Compressor, Linear, Recipe};
use littoral_fed::dp::DifferentialPrivacy;
use littoral_fed::home::Home;
use littoral_fed::plan::{Plan, Resolution};
use littoral_model::Model;
use littoral_wire::object::{CHAIN_CHUNKS_MAX, CHUNK_BYTES, INLINE_BYTES_MAX};
use serde::{Deserialize, Serialize};

/// What a job says: `[compression]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompressionText {
    /// Of what devices send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<Recipe>,
    /// Of the model that they get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downlink: Option<Downlink>,
}

/// How a job's updates are compressed.
pub enum Uplink {
    Linear {
        map: Map,
        /// Of what is sent.
        resolution: Resolution,
        range: f32,
    },
    Coded(Box<dyn Codec>),
}

/// The linear map of a job, or what its versions make theirs of.
pub enum Map {
    /// One for all versions; a seed tells them apart.
    Fixed(Box<dyn Linear>),
    /// Each version brings the basis along onto which updates are projected.
    Alternating(Alternating),
}

/// The map of one version.
pub enum MapOf<'a> {
    Fixed(&'a dyn Linear),
    Projection(Projection<'a>),
}

impl Map {
    fn name(&self) -> &'static str {
        match self {
            Self::Fixed(linear) => linear.name(),
            Self::Alternating(_) => "powersgd",
        }
    }

    /// Coordinates that are sent of a model's `params`, in any version.
    pub fn sent_len(&self, params: usize) -> usize {
        match self {
            Self::Fixed(linear) => linear.sent_len(params),
            Self::Alternating(shape) => shape.sent_len(),
        }
    }

    /// As [`Linear::l2_bound`].
    pub fn l2_bound(&self, before: f64, params: usize) -> Option<f64> {
        match self {
            Self::Fixed(linear) => linear.l2_bound(before, params),
            Self::Alternating(shape) => Some(shape.l2_bound(before)),
        }
    }

    /// Bytes that a version carries for it.
    pub fn basis_bytes(&self) -> usize {
        match self {
            Self::Fixed(_) => 0,
            Self::Alternating(shape) => shape.basis_bytes(),
        }
    }

    /// Of the version that carries this basis; `None` if there must be one and there is none.
    pub fn of<'a>(&'a self, basis: Option<&'a Basis>) -> Option<MapOf<'a>> {
        match self {
            Self::Fixed(linear) => Some(MapOf::Fixed(&**linear)),
            Self::Alternating(shape) => basis.map(|basis| MapOf::Projection(shape.with(basis))),
        }
    }
}

impl<'a> MapOf<'a> {
    pub fn linear(&self) -> &(dyn Linear + 'a) {
        match self {
            Self::Fixed(linear) => *linear,
            Self::Projection(projection) => projection,
        }
    }
}

/// A model's matrices in what is shared of its parameters: of a segment of more than two dimensions the first counts the rows.
fn matrices(model: &Model, home: &Home) -> Vec<Matrix> {
    let segments = model.layout().segments().iter();
    let matrix = segments.filter_map(|segment| match segment.shape[..] {
        [rows, _, ..] => {
            let start = home.place(segment.range())?.start;
            Some(Matrix { start, rows, columns: segment.len / rows.max(1) })
        }
        _ => None,
    });
    matrix.collect()
}

/// Names what a device keeps between rounds.
pub const RESIDUAL: &str = "residual of compression";
/// Steps of a residual where the sum's own are coarse; 32 bits of them reach ±128.
const FINE_STEP: f64 = 1.0 / 16_777_216.0;

const SENDS_ONE_VECTOR: &str = "an algorithm whose devices send one vector and keep nothing, since updates are compressed: fedavg, \
                                fedprox, fedavgm, fedadagrad, fedadam, fedyogi or fednova";

/// Can this job compress as it says?
pub(super) fn uplink(
    text: &JobText,
    algorithm: &dyn Algorithm,
    model: &Model,
    home: &Home,
) -> Result<Option<Uplink>, JobError> {
    let Some(CompressionText { uplink: Some(recipe), .. }) = &text.compression else { return Ok(None) };
    let params = home.shared_len();
    let refused = |field: &str, expected: String, got: &str| {
        let place = if field.is_empty() { "compression.uplink".into() } else { format!("compression.uplink.{field}") };
        Err(JobError::new(place, expected, got))
    };
    if text.differential_privacy.as_ref().is_some_and(DifferentialPrivacy::by_example) {
        let expected = "none, since single examples are protected, and what compression tells beside an update is not accounted for";
        return Err(JobError::new("compression", expected, "one"));
    }
    if let Recipe::PowerSgd(PowerSgdText { sums: 2, .. }) = recipe {
        return refused("sums", "1 (a round of a job is one sum)".into(), "2");
    }
    if let Recipe::RandomK(RandomKText { rescaled: true, residual: true, .. }) = recipe {
        let expected =
            "false, or rescaled = false (what is rescaled overshoots, and a residual would grow without end)";
        return refused("residual", expected.into(), "true");
    }
    if algorithm.device_state().is_some() || algorithm.sections(params, 1.0).len() != 1 {
        return Err(JobError::new("algorithm.name", SENDS_ONE_VECTOR, algorithm.name()));
    }
    let compressor = recipe.build(params, &matrices(model, home)).map_err(unbuilt)?;
    let name = compressor.name();
    if let Err(why) = compressor.masked() {
        let since = match (text.secure_aggregation.is_some(), text.differential_privacy.is_some()) {
            (true, _) => "sums are masked",
            (_, true) => "the job has differential privacy",
            _ => "",
        };
        if !since.is_empty() {
            return refused("name", format!("random-k, rotation or powersgd, since {since}, and {why}"), name);
        }
    }
    if let Some(dp) = &text.differential_privacy {
        let since = |why: &str| format!("none, since the job has differential privacy, and {why}");
        if compressor.l2_bound(1.0, params).is_none() {
            let why =
                format!("{name} has no proven bound on the norm of what is sent, to which noise could be calibrated");
            return refused("", since(&why), name);
        }
        if recipe.residual() {
            return refused(
                "residual",
                since("what is left of one round would be told in another").replace("none", "false"),
                "true",
            );
        }
        if dp.on_devices() {
            return refused(
                "",
                since("where devices add the noise, differential_privacy.bits says how many each coordinate takes"),
                name,
            );
        }
    }
    match (compressor, recipe.words().map_err(unbuilt)?) {
        (Compressor::Linear(linear), Some((resolution, range))) => {
            Ok(Some(Uplink::Linear { map: Map::Fixed(linear), resolution, range }))
        }
        (Compressor::Alternating(shape), Some((resolution, range))) => {
            Ok(Some(Uplink::Linear { map: Map::Alternating(shape), resolution, range }))
        }
        (Compressor::Coded(codec), _) => Ok(Some(Uplink::Coded(codec))),
        _ => refused("", "a recipe of one sum".into(), name),
    }
}

/// More could not be told by a chain that has a few changes.
const IMAGE_PARAMS_MAX: usize = CHAIN_CHUNKS_MAX * CHUNK_BYTES / 4;

/// Can the model go down the link as the job says?
pub(super) fn downlink(text: &JobText, algorithm: &dyn Algorithm, home: &Home) -> Result<(), JobError> {
    let Some(compression) = &text.compression else { return Ok(()) };
    let Some(downlink) = &compression.downlink else {
        return match compression.uplink {
            Some(_) => Ok(()),
            None => Err(JobError::new("compression", "uplink, downlink or both", "neither")),
        };
    };
    downlink.check().map_err(|error| match error {
        CompressError::Setting { field, allowed, got } => {
            JobError::new(format!("compression.downlink.{field}"), allowed, got)
        }
        other => JobError::new("compression.downlink", "a recipe", other),
    })?;
    if algorithm.cloud_state().iter().any(|vector| vector.broadcast) {
        let expected = "none, or an algorithm whose devices get the model and nothing beside it (not scaffold)";
        return Err(JobError::new("compression.downlink", expected, algorithm.name()));
    }
    let params = home.shared_len();
    match params > IMAGE_PARAMS_MAX {
        true => {
            let expected = format!("none, or a model of at most {IMAGE_PARAMS_MAX} parameters");
            Err(JobError::new("compression.downlink", expected, params))
        }
        false => Ok(()),
    }
}

fn unbuilt(error: CompressError) -> JobError {
    match error {
        CompressError::Setting { field, allowed, got } => {
            JobError::new(format!("compression.uplink.{field}"), allowed, got)
        }
        other => JobError::new("compression.uplink", "a recipe for a model of this size", other),
    }
}

impl Uplink {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Linear { map, .. } => map.name(),
            Self::Coded(codec) => codec.name(),
        }
    }

    /// In what steps a device keeps what it did not send: those of what edges add, or finer ones where these are coarse.
    pub fn residual_step(&self, plan: &Plan) -> f64 {
        match self {
            Self::Linear { .. } => FINE_STEP,
            Self::Coded(_) => plan.step(0),
        }
    }
}

/// Most bytes of a coded update: with it, its share on the way and the sum an edge stays below one and a half updates that are
/// not compressed. Small ones ride in messages anyway.
pub fn coded_bytes_max(plan: &Plan) -> usize {
    (plan.format().bytes() / 5 * 2).max(INLINE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use crate::job::{JobError, JobSpec, SAMPLE_TOML};
    use littoral_wire::message::Work;

    fn job(algorithm: &str, more: &str) -> Result<JobSpec, JobError> {
        let (start, rest) = SAMPLE_TOML.split_once("[algorithm]").unwrap();
        let (_, end) = rest.split_once("\n[").unwrap();
        JobSpec::parse(&format!("{start}[algorithm]\nname = \"{algorithm}\"\n[{end}\n{more}"))
    }

    fn compressed(recipe: &str, more: &str) -> Result<JobSpec, JobError> {
        job("fedavg", &format!("[compression]\nuplink = {{ {recipe} }}\n{more}"))
    }

    const MASKS: &str = "[secure_aggregation]\n";
    const PRIVATE: &str =
        "[differential_privacy]\nmechanism = \"central\"\nclip = 1.0\nnoise_multiplier = 5.0\nepsilon = 50.0\n";
    const LOCAL: &str = "[differential_privacy]\nmechanism = \"local-discrete-gaussian\"\nclip = 1.0\nnoise_multiplier = 5.0\nepsilon = 50.0\n";

    #[test]
    fn what_cannot_run_is_refused_with_the_field_and_the_reason() {
        for (recipe, more, place, told) in [
            (
                "name = \"eden\"",
                MASKS,
                "name",
                "random-k, rotation or powersgd, since sums are masked, and each device",
            ),
            ("name = \"top-k\"", MASKS, "name", "which they are tells what it learnt"),
            ("name = \"quantise\"", PRIVATE, "name", "since the job has differential privacy, and "),
            ("name = \"random-k\"", PRIVATE, "", "random-k, rescaled has no proven bound on the norm"),
            ("name = \"rotation\"", LOCAL, "", "where devices add the noise, differential_privacy.bits"),
            ("name = \"random-k\", rescaled = false, residual = true", PRIVATE, "residual", "told in another"),
            ("name = \"powersgd\", sums = 2", "", "sums", "a round of a job is one sum"),
            ("name = \"powersgd\", rank = 0", "", "rank", "1 or more"),
            ("name = \"powersgd\"", LOCAL, "", "where devices add the noise, differential_privacy.bits"),
            ("name = \"powersgd\", residual = true", PRIVATE, "residual", "told in another"),
            ("name = \"eden\", bits = 9", "", "bits", "1 to 4"),
            ("name = \"random-k\", kept = 0.0", "", "kept", "0.000001 to 1"),
            ("name = \"random-k\", sent_range = -1.0", "", "sent_range", "above 0"),
            ("name = \"random-k\", residual = true", "", "residual", "would grow without end"),
        ] {
            let refused = compressed(recipe, more).unwrap_err();
            let at = if place.is_empty() { "compression.uplink".into() } else { format!("compression.uplink.{place}") };
            assert_eq!(refused.place, at, "{recipe}: {refused}");
            assert!(refused.expected.contains(told), "{recipe}: {refused}");
        }
        let down = |recipe: &str| format!("[compression]\ndownlink = {{ {recipe} }}");
        for (algorithm, more, place, told) in [
            ("fedavg", down("name = \"delta\", bits = 5"), "compression.downlink.bits", "4 or 8"),
            ("scaffold", down("name = \"half\""), "compression.downlink", "not scaffold"),
            ("fedavg", "[compression]\n".into(), "compression", "uplink, downlink or both"),
        ] {
            let refused = job(algorithm, &more).unwrap_err();
            assert!(refused.place == place && refused.expected.contains(told), "{more}: {refused}");
        }
        let refused = job("scaffold", "[compression]\nuplink = { name = \"eden\" }").unwrap_err();
        assert!(refused.place == "algorithm.name" && refused.expected.contains("keep nothing"), "{refused}");
        let unknown = compressed("name = \"zip\"", "").unwrap_err();
        assert!(unknown.to_string().contains("random-k"), "{unknown}");
    }

    #[test]
    fn words_are_as_the_recipe_says_and_codes_change_none() {
        let plain = job("fedavg", "").unwrap();
        let params = plain.version().params;
        let linear = compressed("name = \"random-k\", kept = 0.5, levels = 4, sent_range = 0.5", MASKS).unwrap();
        let section = &linear.plan(Work::Train).sections()[0];
        assert_eq!((section.len, section.range), (params.div_ceil(2), 0.5));
        assert_eq!(linear.plan(Work::Train).levels(), 4);
        let masked = linear.settings().masked.as_ref().unwrap();
        assert_eq!(masked.format(Work::Train), linear.plan(Work::Train).format());
        assert_eq!((linear.device_state(), linear.codec(Work::Train).is_some()), (None, false));

        let coded = compressed("name = \"top-k\"", "").unwrap();
        assert_eq!(coded.plan(Work::Train).sections(), plain.plan(Work::Train).sections());
        assert_eq!((coded.device_state(), coded.codec(Work::Evaluate).is_some()), (Some(super::RESIDUAL), false));
        assert_eq!(coded.residual_step(), Some(plain.plan(Work::Train).step(0)));
        assert!(coded.remarks().iter().any(|remark| remark.starts_with("compressed by top-k: at most")));
    }
}
