//! A job: which model is trained, on what, by which algorithm, by how many devices, for how long.
//!
//! A job is a TOML text. [`JobSpec::parse`] refuses a wrong one with the field, the value and what is allowed, and works
//! out everything that follows from it: the model's size, the plan of fixed point, the settings of its rounds. The same
//! text goes to devices inside a [`Task`], so that all sides reckon with the same numbers.

mod check;
pub mod compression;
pub mod drift;
mod eligibility;
mod evaluation;
mod given;
pub mod privacy;
mod robust;
mod text;
mod version;

pub use compression::{CompressionText, Map, MapOf, Uplink};
pub use drift::{DriftLine, DriftText, Sketched};
pub use eligibility::{Conditions, Eligibility};
pub use evaluation::EvaluationText;
pub use privacy::{Guarantee, Terms};
pub use text::{DataText, JobText, LocalText, OptimiserText, PrecisionText, RoundsText, SAMPLE_TOML};
pub use version::{BLOCK, VersionLayout};

use littoral_fed::algorithm::{Algorithm, AlgorithmSpec, Keeps};
use littoral_fed::compress::recipe::Downlink;
use littoral_fed::compress::{Codec, Recipe, accumulate};
use littoral_fed::distribution::{self, Distribution};
use littoral_fed::dp::{ExampleNoise, Noise};
use littoral_fed::home::Home;
use littoral_fed::plan::{Plan, Resolution, Weighting};
use littoral_fed::robust::Rule;
use littoral_fed::round::{Masked, Settings};
use littoral_model::{Model, Shape};
use littoral_wire::bounded::printable;
use littoral_wire::message::{Gather, SPEC_BYTES_MAX, Work};
use littoral_wire::object::{CHUNK_BYTES, CHUNKS_MAX, Chain, Manifest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use thiserror::Error;

use self::check::{Parts, unplanned};
use self::evaluation::Spread;
use self::given::Given;
use self::privacy::{Noised, Protection};
use self::robust::Robust;
use crate::data::statistics::WORDS_PER_INPUT;
use crate::toml_text::{Mistake, mistake};

/// Exact integers that tell how well a version does on held-out rows: rows, right answers, loss in steps of 2^-20.
pub const EVALUATION_WHOLES: usize = 3;
/// Levels of a job whose devices keep integers between rounds, unless it says otherwise: sums of 32,768 devices fit.
const STATE_LEVELS_MAX: u32 = 1 << 16;
/// One unit of loss in an evaluation's integer.
pub const LOSS_PER_UNIT: f64 = 1_048_576.0;

/// A checked job and what follows from it. Cloning is cheap.
#[derive(Clone)]
pub struct JobSpec {
    inner: Arc<Inner>,
}

struct Inner {
    text: JobText,
    model: Model,
    algorithm: Box<dyn Algorithm>,
    settings: Settings,
    train: Plan,
    statistics: Plan,
    evaluate: Plan,
    version: VersionLayout,
    protection: Option<Protection>,
    terms: Option<Terms>,
    guarantees: OnceLock<Vec<Guarantee>>,
    uplink: Option<Uplink>,
    robust: Option<Robust>,
    /// Where each device is given a model of its own.
    given: Option<Given>,
    /// The algorithm where a version is made in several steps, in the last of them.
    last_step: Option<Box<dyn Algorithm>>,
    home: Home,
    spread: Spread,
    sketched: Option<Sketched>,
}

impl std::fmt::Debug for JobSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.text.fmt(f)
    }
}

/// A job that cannot run as it is written.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{place}: {expected} expected, got {got}")]
pub struct JobError {
    /// The field, or the line of the file.
    pub place: String,
    pub expected: String,
    pub got: String,
}

impl JobError {
    /// Control characters that stand in the job are escaped: an error is one line.
    pub fn new(place: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
        let [place, expected, got] =
            [place.into(), expected.into(), got.to_string()].map(|part| printable(&part).into_owned());
        Self { place, expected, got }
    }

    /// Several mistakes in one: places, what is allowed and what was found, each in the same order.
    fn all(mistakes: &[Self]) -> Self {
        let join = |part: fn(&Self) -> &str| mistakes.iter().map(part).collect::<Vec<_>>().join("; ");
        Self::new(join(|e| &e.place), join(|e| &e.expected), join(|e| &e.got))
    }

    /// As the command line prints it.
    pub fn parts(&self) -> Value {
        json!({"what": "the job was refused", "where": self.place, "expected": self.expected, "got": self.got})
    }
}

impl JobSpec {
    pub fn parse(toml: &str) -> Result<Self, JobError> {
        if toml.len() > SPEC_BYTES_MAX / 2 {
            return Err(JobError::new(
                "job",
                format!("at most {} bytes", SPEC_BYTES_MAX / 2),
                format!("{} bytes", toml.len()),
            ));
        }
        let text: JobText = toml::from_str(toml).map_err(|e| {
            let Mistake { line, field, expected, got } = mistake(&e, toml);
            let place = if field.is_empty() { format!("line {line}") } else { format!("line {line}, {field}") };
            JobError::new(place, expected, got)
        })?;
        Self::check(text)
    }

    pub fn check(text: JobText) -> Result<Self, JobError> {
        let Parts { model, mut algorithm, mut settings, home } = check::parts(&text)?;
        let cohort_max = settings.cohort_size() as u32;
        // Of the job's vector. What devices keep to themselves is in none of what follows.
        let params = home.shared_len();
        let given = given::given(&text, &*algorithm, &settings, params)?;
        let uplink = compression::uplink(&text, &*algorithm, &model, &home)?;
        compression::downlink(&text, &*algorithm, &home)?;
        let robust = robust::robust(&text, &*algorithm, &settings, params)?;
        let mut last_step = None;
        if let Some(Robust { by_sums: Some(by_sums), norm_bound, .. }) = robust {
            let [step, last] = by_sums.around(algorithm, norm_bound);
            (algorithm, last_step, settings.steps) = (step, Some(last), by_sums.steps);
        }
        let coded = matches!(&uplink, Some(Uplink::Coded(_)));
        let spread = evaluation::spread(&text, &*algorithm, &model)?;
        let evaluated = |spread: bool| EVALUATION_WHOLES + if spread { distribution::WHOLES } else { 0 };
        let sketched = drift::sketched(&text, &settings)?;
        // Where devices are private it goes the way of the update, with its noise.
        let open_sketch = sketched.as_ref().filter(|_| text.differential_privacy.is_none());
        let sketch_wholes = open_sketch.map_or(0, |sketched| sketched.layout.wholes());
        let wholes = algorithm.wholes() + evaluated(spread.train) + sketch_wholes + usize::from(coded);
        let mapped = match &uplink {
            Some(Uplink::Linear { map, resolution, range }) => {
                let weighting = match text.differential_privacy {
                    None => text.precision.weighting,
                    Some(_) => Weighting::Uniform,
                };
                let sections = algorithm.sections(map.sent_len(params), *range);
                Some(Plan::new(cohort_max, weighting, *resolution, sections, wholes).map_err(unplanned)?)
            }
            _ => None,
        };
        let mapping = uplink.as_ref().zip(mapped.as_ref());
        let private = privacy::protection(&text, &model, params, &*algorithm, &settings, mapping, sketched.as_ref())?;
        let (protection, terms) = private.unzip();
        let plan = |resolution| match (&mapped, &protection) {
            (Some(plan), None) => Ok(plan.clone()),
            (Some(plan), Some(_)) => plan.clone().quiet().map_err(unplanned),
            // Nothing is longer than the clip; every device counts once.
            (None, Some(Protection::Devices(noise))) => {
                let sections = algorithm.sections(params + noise.appended(), noise.l2());
                noise.plan(cohort_max, sections, wholes).map_err(unplanned)
            }
            // How many examples a device has, and how well they are learnt, is not told.
            (None, Some(Protection::Examples(_))) => {
                let sections = algorithm.sections(params, text.precision.range);
                let plan = Plan::new(cohort_max, Weighting::Uniform, resolution, sections, wholes);
                plan.and_then(Plan::quiet).map_err(unplanned)
            }
            (None, None) => {
                let sections = algorithm.sections(params, text.precision.range);
                // A liar would have the most examples.
                let judged = |robust: &Robust| robust.rule.is_some() || robust.by_sums.is_some();
                let weighting = match given.is_some() || robust.as_ref().is_some_and(judged) {
                    true => Weighting::Uniform,
                    false => text.precision.weighting,
                };
                Plan::new(cohort_max, weighting, resolution, sections, wholes).map_err(unplanned)
            }
        };
        let mut train = plan(text.precision.resolution)?;
        // What devices keep in integers adds up at the cloud, over the whole population, in 32 bits.
        if text.precision.resolution == Resolution::Fit32
            && algorithm.device_state().is_some()
            && train.levels() > STATE_LEVELS_MAX
        {
            train = plan(Resolution::Levels(STATE_LEVELS_MAX))?;
        }
        if robust.as_ref().is_some_and(|robust| robust.rule.is_some()) {
            robust::fits(&train, cohort_max)?;
        }
        if given.is_some() {
            given::fits(&train, cohort_max)?;
        }
        // Counts and sums take words of 64 bits: they are few.
        let whole = |wholes| {
            let levels = Resolution::Levels(((1u64 << 30) / u64::from(cohort_max)).clamp(2, 1 << 30) as u32);
            Plan::new(cohort_max, Weighting::Uniform, levels, Vec::new(), wholes).map_err(unplanned)
        };
        let width = match text.data.inputs() {
            Shape::Values { width } if settings.statistics => width,
            _ => 0,
        };
        let statistics_plan = whole(width * WORDS_PER_INPUT)?;
        let evaluate = whole(evaluated(spread.evaluate))?;
        if let Some(agreement) = &text.secure_aggregation {
            let job = *blake3::hash(&serde_json::to_vec(&text).unwrap_or_default()).as_bytes();
            let formats = [statistics_plan.format(), train.format(), evaluate.format()];
            let mut agreement = agreement.clone();
            // Devices open no sum with fewer shares of noise than the account holds for.
            if let Some(Terms { dp, noised: Noised::Sums(sums), .. }) = &terms
                && dp.on_devices()
            {
                agreement.group_min = agreement.group_min.max(sums.shares_min);
            }
            let masked = Masked { agreement, job, formats };
            settings = settings.with_masks(masked).map_err(|e| JobError::new(e.field, e.allowed, e.got))?;
        }
        let broadcast = algorithm.cloud_state().iter().filter(|s| s.broadcast).count();
        let kept = algorithm.cloud_state().len() - broadcast;
        let image = text.compression.as_ref().is_some_and(|compression| compression.downlink.is_some());
        let basis_bytes = match &uplink {
            Some(Uplink::Linear { map, .. }) => map.basis_bytes(),
            _ => 0,
        };
        let noise = match &protection {
            Some(Protection::Devices(noise)) => Some(noise),
            _ => None,
        };
        let memory = noise.and_then(|noise| noise.correlated.as_ref()).map_or(0, |c| c.matrix.bands() - 1);
        let clip = noise.is_some_and(|noise| noise.bit.is_some());
        let version = VersionLayout { params, broadcast, kept, inputs: width, image, basis_bytes, clip, memory };
        let bytes_max = CHUNK_BYTES * CHUNKS_MAX;
        if version.state_bytes() > bytes_max {
            let expected = format!(
                "fewer: what the cloud remembers of a model of {params} parameters takes at most {bytes_max} bytes"
            );
            return Err(JobError::new("differential_privacy.bands", expected, memory + 1));
        }
        let inner = Inner {
            text,
            model,
            algorithm,
            settings,
            train,
            statistics: statistics_plan,
            evaluate,
            version,
            protection,
            terms,
            guarantees: OnceLock::new(),
            uplink,
            robust,
            given,
            last_step,
            home,
            spread,
            sketched,
        };
        let spec = Self { inner: Arc::new(inner) };
        // Written as JSON a job may be much longer than its text.
        let told = Task { spec: spec.clone(), population: u64::MAX }.encode().len();
        if told > SPEC_BYTES_MAX {
            let expected = format!("at most {SPEC_BYTES_MAX} bytes as devices are told it");
            return Err(JobError::new("job", expected, format!("{told} bytes")));
        }
        Ok(spec)
    }

    pub fn text(&self) -> &JobText {
        &self.inner.text
    }
    pub fn name(&self) -> &str {
        &self.inner.text.name
    }
    pub fn seed(&self) -> u64 {
        self.inner.text.seed
    }
    pub fn data_set(&self) -> &str {
        &self.inner.text.data.set
    }
    pub fn model(&self) -> &Model {
        &self.inner.model
    }
    pub fn algorithm(&self) -> &dyn Algorithm {
        &*self.inner.algorithm
    }
    /// Both halves as they are for the collection that follows on this version.
    pub fn algorithm_of(&self, version: u64) -> &dyn Algorithm {
        let settings = &self.inner.settings;
        let last = settings.step_of(version) + 1 == u64::from(settings.steps);
        let last = self.inner.last_step.as_ref().filter(|_| last);
        &**last.unwrap_or(&self.inner.algorithm)
    }
    pub fn algorithm_name(&self) -> &'static str {
        self.inner.algorithm.name()
    }
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }
    pub fn version(&self) -> &VersionLayout {
        &self.inner.version
    }
    /// Which of the model's parameters are shared, and so in versions and updates, and which stay on devices.
    pub fn home(&self) -> &Home {
        &self.inner.home
    }

    /// Whether a device keeps something of its own between rounds.
    pub fn keeps_own(&self) -> bool {
        self.inner.algorithm.keeps().is_some_and(|keeps| keeps != Keeps::Nothing)
    }

    /// Names of the model's segments that stay on devices.
    pub fn own_segments(&self) -> Vec<&str> {
        let segments = self.inner.model.layout().segments().iter();
        let own = segments.filter(|segment| self.inner.home.place(segment.range()).is_none());
        own.map(|segment| segment.name.as_str()).collect()
    }

    /// Whether updates of a collection tell how accuracy is spread over devices.
    pub fn tells_spread(&self, work: Work) -> bool {
        match work {
            Work::Statistics => false,
            Work::Train | Work::Prepare => self.inner.spread.train,
            Work::Evaluate => self.inner.spread.evaluate,
        }
    }

    /// How updates of training tell of a device's rows, where the job watches for drift.
    pub fn sketched(&self) -> Option<&Sketched> {
        self.inner.sketched.as_ref()
    }

    /// Exact integers at the end of a collection's that are a sketch; those of a private job are not told exactly.
    pub fn sketch_wholes(&self, work: Work) -> usize {
        let sketched = self.sketched().filter(|_| matches!(work, Work::Train | Work::Prepare) && !self.private());
        sketched.map_or(0, |sketched| sketched.layout.wholes())
    }

    /// Exact integers before a sketch that tell how well devices do.
    pub fn evaluation_wholes(&self, work: Work) -> usize {
        EVALUATION_WHOLES + if self.tells_spread(work) { distribution::WHOLES } else { 0 }
    }

    /// How a collection's words are laid out.
    pub fn plan(&self, work: Work) -> &Plan {
        match work {
            Work::Statistics => &self.inner.statistics,
            Work::Train | Work::Prepare => &self.inner.train,
            Work::Evaluate => &self.inner.evaluate,
        }
    }

    /// How updates are compressed.
    pub fn uplink(&self) -> Option<&Uplink> {
        self.inner.uplink.as_ref()
    }

    /// How the model goes down the link, if not as it is.
    pub fn downlink(&self) -> Option<&Downlink> {
        self.inner.text.compression.as_ref()?.downlink.as_ref()
    }

    /// The code of a collection's updates, if they have one.
    pub fn codec(&self, work: Work) -> Option<&dyn Codec> {
        match &self.inner.uplink {
            Some(Uplink::Coded(codec)) if work == Work::Train => Some(&**codec),
            _ => None,
        }
    }

    /// The maps through which sums of training go, if they do.
    pub fn map(&self) -> Option<&Map> {
        match &self.inner.uplink {
            Some(Uplink::Linear { map, .. }) => Some(map),
            _ => None,
        }
    }

    /// What stands in for the sum of training's updates; `None`: the sum.
    pub fn rule(&self) -> Option<&dyn Rule> {
        self.inner.robust.as_ref()?.rule.as_deref()
    }

    /// Must each of a collection's updates be seen?
    pub fn unmerged(&self, work: Work) -> bool {
        work == Work::Train && (self.rule().is_some() || self.inner.given.is_some())
    }

    /// What edges make of a collection's updates.
    pub fn gather(&self, work: Work) -> Gather {
        if self.unmerged(work) { Gather::Each } else { Gather::Sum }
    }

    /// Devices whose models the cloud keeps, at most, where each is given one of its own; 0 where none is.
    pub fn given_max(&self) -> usize {
        self.inner.given.map_or(0, |given| given.devices_max)
    }

    /// The L2 norm that no update may pass, and to which devices clip.
    pub fn norm_bound(&self) -> Option<f32> {
        self.inner.robust.as_ref()?.norm_bound
    }

    /// Do edges look into a collection's updates before these count?
    pub fn inspected(&self, work: Work) -> bool {
        // Statistics are whole numbers of any size; of what is prepared nothing comes.
        let looks = self.inner.robust.is_some() || self.inner.given.is_some();
        matches!(work, Work::Train | Work::Evaluate) && looks && self.settings().masked.is_none()
    }

    /// Steps in which devices keep what compression left out; `None`: they do not.
    pub fn residual_step(&self) -> Option<f64> {
        let keeps =
            self.inner.text.compression.as_ref().and_then(|text| text.uplink.as_ref()).is_some_and(Recipe::residual);
        let uplink = self.inner.uplink.as_ref().filter(|_| keeps)?;
        Some(uplink.residual_step(&self.inner.train))
    }

    /// What a device keeps of the job between rounds, one integer per parameter: the algorithm's, or a residual.
    pub fn device_state(&self) -> Option<&'static str> {
        self.inner.algorithm.device_state().or(self.residual_step().map(|_| compression::RESIDUAL))
    }

    /// Bytes of one device's update of training as planned: exactly, or at most if it is coded.
    pub fn update_bytes(&self) -> u64 {
        let plan = &self.inner.train;
        match self.codec(Work::Train) {
            Some(codec) => accumulate::bytes_max(codec, plan).min(compression::coded_bytes_max(plan)) as u64,
            None => plan.format().bytes() as u64,
        }
    }

    /// Bytes of the model's parameters in 32 bits: an update of a job that compresses nothing.
    pub fn uncompressed_bytes(&self) -> u64 {
        4 * self.inner.version.params as u64
    }

    /// Whether counts and losses, which are not noised, are for nobody.
    pub fn private(&self) -> bool {
        self.inner.protection.is_some()
    }

    /// The noise on updates or their sum, of a job that protects devices.
    pub fn noise(&self) -> Option<&Noise> {
        match &self.inner.protection {
            Some(Protection::Devices(noise)) => Some(noise),
            _ => None,
        }
    }

    /// The noise in training steps, of a job that protects examples.
    pub fn example_noise(&self) -> Option<&ExampleNoise> {
        match &self.inner.protection {
            Some(Protection::Examples(noise)) => Some(noise),
            _ => None,
        }
    }

    /// Refused if a private job costs more than it says. Not part of [`JobSpec::parse`]: what a job costs changes nothing of what
    /// devices do, and takes up to a second to work out.
    pub fn within_epsilon(self) -> Result<Self, JobError> {
        match self.inner.protection.as_ref().zip(self.inner.terms.as_ref()) {
            Some((protection, terms)) => privacy::within_epsilon(protection, terms).map(|()| self),
            None => Ok(self),
        }
    }

    /// What a private job releases.
    pub fn terms(&self) -> Option<&Terms> {
        self.inner.terms.as_ref()
    }

    /// What a private job costs each viewer, the one of released models first; empty for others. The first call may take a
    /// second.
    pub fn guarantees(&self) -> &[Guarantee] {
        self.inner.guarantees.get_or_init(|| {
            let private = self.inner.protection.as_ref().zip(self.inner.terms.as_ref());
            // It could be accounted for when the job was checked.
            private.and_then(|(protection, terms)| privacy::guarantees(protection, terms).ok()).unwrap_or_default()
        })
    }

    /// What the submitter should know about what follows from the job.
    pub fn remarks(&self) -> Vec<String> {
        let plan = &self.inner.train;
        let mut out = vec![format!(
            "{} parameters; updates of {} words of {} bits, {} bytes; {} levels per coordinate range of ±{}",
            self.inner.version.params,
            plan.format().words(),
            plan.bits(),
            plan.format().bytes(),
            plan.levels(),
            plan.sections().first().map_or(self.inner.text.precision.range, |section| section.range),
        )];
        out.extend(evaluation::remark(self));
        if let Some(uplink) = &self.inner.uplink {
            let (bytes, whole) = (self.update_bytes(), self.uncompressed_bytes());
            let (name, at_most) = (uplink.name(), if self.codec(Work::Train).is_some() { "at most " } else { "" });
            let ratio = whole as f64 / bytes as f64;
            out.push(format!("compressed by {name}: {at_most}{bytes} bytes of {whole} without, {ratio:.1} x fewer"));
        }
        out.extend(plan.remark());
        out.extend(robust::remarks(self));
        out.extend(given::remarks(self));
        out.extend(drift::remark(self));
        out.extend(self.inner.text.eligibility.as_ref().and_then(Eligibility::remark));
        if self.private() {
            out.push(privacy::sentences(&self.inner.text, self.guarantees()));
        }
        out
    }
}

/// What goes to devices with a request: the job, and what changes from version to version.
#[derive(Clone, Debug)]
pub struct Task {
    pub spec: JobSpec,
    /// Devices of the fleet that offer the data set.
    pub population: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EncodedTask {
    job: JobText,
    population: u64,
}

impl Task {
    /// JSON. At most [`SPEC_BYTES_MAX`] bytes: [`JobSpec::check`] refuses a job that takes more.
    pub fn encode(&self) -> Vec<u8> {
        let encoded = EncodedTask { job: self.spec.text().clone(), population: self.population };
        serde_json::to_vec(&encoded).unwrap_or_default()
    }

    /// Whether a task's job says anything about what devices send, and about what they get: most do not, and an edge need not
    /// read further.
    pub fn compresses(bytes: &[u8]) -> (bool, bool) {
        #[derive(Deserialize)]
        struct Told {
            job: Part,
        }
        #[derive(Deserialize)]
        struct Part {
            compression: Option<Ways>,
        }
        #[derive(Deserialize)]
        struct Ways {
            uplink: Option<serde::de::IgnoredAny>,
            downlink: Option<serde::de::IgnoredAny>,
        }
        let told = serde_json::from_slice(bytes).ok().and_then(|told: Told| told.job.compression);
        told.map_or((false, false), |ways| (ways.uplink.is_some(), ways.downlink.is_some()))
    }

    /// Whether edges look into what devices of a task's job send: for devices that lie, or because each update is seen by itself. Of
    /// others an edge need not read further.
    pub fn is_looked_into(bytes: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Told {
            job: Part,
        }
        #[derive(Deserialize)]
        struct Part {
            robust: Option<serde::de::IgnoredAny>,
            algorithm: AlgorithmSpec,
        }
        let mixes = |spec: &AlgorithmSpec| spec.build().is_ok_and(|algorithm| algorithm.mixes().is_some());
        serde_json::from_slice(bytes).is_ok_and(|told: Told| told.job.robust.is_some() || mixes(&told.job.algorithm))
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, JobError> {
        let encoded: EncodedTask =
            serde_json::from_slice(bytes).map_err(|e| JobError::new("task", "a job of this release", e))?;
        Ok(Self { spec: JobSpec::check(encoded.job)?, population: encoded.population })
    }
}

/// What the sum of a collection said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    pub devices: u64,
    pub population: u64,
    pub weight_sum: u64,
    pub saturated: u64,
    pub train_loss: Option<f64>,
    /// Held-out rows, how many were answered right, and the sum of their losses, under the version that devices
    /// started from.
    pub rows: u64,
    pub correct: u64,
    pub loss_sum: f64,
    /// Right and wrong are words for classes, not for numbers.
    pub classifies: bool,
    /// How right answers are spread over devices, each with the model that it would use.
    pub distribution: Option<Box<Distribution>>,
    /// Bytes of all devices' updates of training.
    pub update_bytes: Option<u64>,
    /// How many versions old each update was, where they may be old.
    pub ages: Vec<u64>,
    /// The norm to which devices clipped, where it follows the updates.
    pub clip: Option<f32>,
    /// Bytes of the model that devices started from, if it came as an image.
    pub downlink: Option<Down>,
    /// Names of the devices whose updates a rule took, sorted, if it left others out.
    pub chosen: Vec<String>,
    /// How the rows of these devices are spread, each histogram adding up to 1, where the job watches for drift.
    pub sketch: Option<Vec<f64>>,
}

/// What a device gets to have a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Down {
    /// With the version before.
    pub follows: u64,
    /// With none.
    pub is_new: u64,
}

impl Down {
    pub fn of(model: &Manifest, before: &Chain) -> Self {
        let follows = model.bytes();
        Self { follows, is_new: follows + before.iter().map(Manifest::bytes).sum::<u64>() }
    }
}

impl Totals {
    pub fn accuracy(&self) -> Option<f64> {
        (self.classifies && self.rows > 0).then(|| self.correct as f64 / self.rows as f64)
    }
}

/// Names in a line.
const CHOSEN_SHOWN: usize = 100;

/// One version in a run's record, for people and programs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub devices: u64,
    pub population: u64,
    pub weight_sum: u64,
    /// Coordinates outside the job's range, over all devices.
    pub saturated: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_loss: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_loss: Option<f64>,
    pub test_rows: u64,
    /// Over devices, each counting once, where they tell: the mean of their accuracies,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_mean_over_devices: Option<f64>,
    /// their variance,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_variance: Option<f64>,
    /// and the mean of the worst tenth, right to 0.025.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_decile_accuracy: Option<f64>,
    /// Of one device, the mean over those that are in the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_bytes: Option<u64>,
    /// Of the model that devices started from, if it came as an image: what a device gets that has the version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downlink_bytes: Option<u64>,
    /// The same for one that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downlink_bytes_new: Option<u64>,
    /// How many versions old the updates were, in the mean and at most, where they may be old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staleness: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staleness_max: Option<u64>,
    /// The norm to which devices clipped, where it follows their updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f32>,
    /// Of the devices whose updates a rule took, if it left others out: how many, and the first hundred by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen_devices: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chosen: Vec<String>,
    /// How the rows of its devices are spread over the bins of a job that watches for drift, in millionths; noised where it is private.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sketch: Vec<i32>,
    /// How far that is from the first versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftLine>,
    /// From asking devices to the applied sum.
    pub took_ms: u64,
    pub at_ms: u64,
}

impl Line {
    pub fn new(totals: &Totals, took_ms: u64, at_ms: u64) -> Self {
        Self {
            devices: totals.devices,
            population: totals.population,
            weight_sum: totals.weight_sum,
            saturated: totals.saturated,
            train_loss: totals.train_loss,
            accuracy: totals.accuracy(),
            test_loss: (totals.rows > 0).then(|| totals.loss_sum / totals.rows as f64),
            test_rows: totals.rows,
            accuracy_mean_over_devices: totals.distribution.as_deref().and_then(Distribution::mean),
            accuracy_variance: totals.distribution.as_deref().and_then(Distribution::variance),
            worst_decile_accuracy: totals.distribution.as_deref().and_then(Distribution::worst_decile),
            update_bytes: totals.update_bytes.filter(|_| totals.devices > 0).map(|bytes| bytes / totals.devices),
            downlink_bytes: totals.downlink.map(|down| down.follows),
            downlink_bytes_new: totals.downlink.map(|down| down.is_new),
            staleness: (!totals.ages.is_empty())
                .then(|| totals.ages.iter().sum::<u64>() as f64 / totals.ages.len() as f64),
            staleness_max: totals.ages.iter().max().copied(),
            clip: totals.clip,
            chosen_devices: (!totals.chosen.is_empty()).then_some(totals.chosen.len() as u64),
            chosen: totals.chosen.iter().take(CHOSEN_SHOWN).cloned().collect(),
            sketch: totals.sketch.iter().flatten().map(|part| (part * 1e6).round() as i32).collect(),
            drift: None,
            took_ms,
            at_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line() {
        let task = Task::decode(b"{\"j\\nb\": 1}").unwrap_err();
        assert!(task.got.starts_with("unknown field `j\\nb`"), "{task}");
        let text = JobSpec::parse("\"a\\u001b[2J\" = 1").unwrap_err();
        assert!(!text.to_string().contains(char::is_control), "{text:?}");
    }

    /// Numbers are read from TOML at the cloud and from JSON on devices.
    #[test]
    fn devices_reckon_with_the_same_numbers() {
        let mut x = 0.3_f64;
        for _ in 0..2000 {
            x = (x * 3.9 * (1.0 - x)).clamp(0.01, 0.99);
            let toml = SAMPLE_TOML.replace("held_out = 0.2", &format!("held_out = {x}"));
            let spec = JobSpec::parse(&toml).unwrap();
            let told = Task::decode(&Task { spec: spec.clone(), population: 1 }.encode()).unwrap();
            assert_eq!(told.spec.text(), spec.text());
        }
    }

    /// A text may have 32 KiB, a task 64: what is short in TOML may be long in JSON.
    #[test]
    fn a_job_that_no_device_can_be_told_is_refused() {
        let job = |count: usize| {
            let fields: Vec<String> = (0..count).map(|i| format!("{{name=\"{i}\"}}")).collect();
            let (start, rest) = SAMPLE_TOML.split_once("fields = [").unwrap();
            let (_, end) = rest.split_once("\n]\n").unwrap();
            JobSpec::parse(&format!("{start}fields = [{}]\n{end}", fields.join(",")))
        };
        assert!(job(1_500).is_ok());
        let refused = job(2_200).unwrap_err();
        assert_eq!(
            (refused.place.as_str(), refused.expected.as_str()),
            ("job", "at most 65536 bytes as devices are told it")
        );
    }
}
