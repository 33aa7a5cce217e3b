//! A device's part of a collection: from its rows to a sealed update.
//!
//! Nothing of the rows leaves but what the job's plan has words for: sums of columns, an algorithm's update, counts of
//! right answers. All three go the one road of [`littoral_fed::seal`].

use super::bench::{Bench, Room};
use super::compressed::{Compressed, compress, map_of, shared_seed};
use super::drift::sketch;
use super::training::{Training, rows_per_step};
use super::version::{Version, VersionError, put_wholes, wholes};
use super::{LocalData, LocalNote, Objects, Output, Rows, Watch, WorkFault, learnt, personal};
use crate::data::statistics::Sums;
use crate::job::{JobSpec, LOSS_PER_UNIT, Sketched, Task};
use crate::role::Entropy;
use littoral_fed::algorithm::{Start, State};
use littoral_fed::compress::alternating::Basis;
use littoral_fed::distribution::Distribution;
use littoral_fed::drift::Sketch;
use littoral_fed::learner::Learner;
use littoral_fed::masks::device::Masks;
use littoral_fed::seal::{Packed, Raw};
use littoral_fed::staleness::UNIT;
use littoral_model::{Clipping, Evaluation, Standardise, View};
use littoral_privacy::rotate::Rotation;
use littoral_wire::codec::Wire;
use littoral_wire::message::{Collection, Work};
use littoral_wire::object::{Chain, Manifest};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use std::fmt::Display;
use std::sync::Arc;

/// A sum of losses counts as at most this much: a cohort's worth of them fits an i128.
const LOSS_WHOLE_MAX: f64 = 1e27;

/// What a device keeps of a job between rounds.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    /// The algorithm's integers, or a residual.
    pub state: Option<&'a Manifest>,
    /// What is the device's own.
    pub personal: Option<&'a Manifest>,
    /// What it learnt from which version.
    pub learnt: Option<(u64, &'a Manifest)>,
}

#[allow(clippy::too_many_arguments)] // The fields of one work.
pub fn run(
    collection: Collection,
    task: &Arc<[u8]>,
    model: (&Manifest, &Chain),
    kept: Kept<'_>,
    name: &str,
    steps_max: usize,
    entropy: &Entropy,
    objects: &dyn Objects,
    data: &dyn LocalData,
) -> Result<Output, WorkFault> {
    Bench::with(task, |task, room| {
        let rows = data.rows(&task.spec).map_err(WorkFault::Declined)?;
        task.spec.model().check(&rows.examples).map_err(declined)?;
        match collection.work {
            Work::Statistics => statistics(collection, &task.spec, &rows, objects),
            Work::Evaluate => evaluate(collection, &task.spec, model, kept.personal, name, &rows, room, objects),
            Work::Train | Work::Prepare => {
                let effort = Effort { steps_max, watch: &*data.watch() };
                train(collection, task, model, kept, name, effort, entropy, &rows, room, objects)
            }
        }
    })
    .map_err(declined)?
}

fn statistics(collection: Collection, spec: &JobSpec, rows: &Rows, objects: &dyn Objects) -> Result<Output, WorkFault> {
    let inputs = spec.text().data.schema.inputs();
    let sums = Sums::of_rows(rows.examples.features(), &rows.train, &inputs).map_err(declined)?;
    let wholes = sums.to_words().into_iter().map(i128::from).collect();
    let examples = rows.train.len() as u64;
    count(collection, spec, examples, wholes, objects)
}

#[allow(clippy::too_many_arguments)]
fn evaluate(
    collection: Collection,
    spec: &JobSpec,
    model: (&Manifest, &Chain),
    own: Option<&Manifest>,
    name: &str,
    rows: &Rows,
    room: &mut Option<Room>,
    objects: &dyn Objects,
) -> Result<Output, WorkFault> {
    // Where devices are private, counts of right answers are not told.
    let (evaluation, examples) = match spec.private() {
        true => (Evaluation::default(), 0),
        false => {
            let version = Version::read(spec, objects, model)?;
            let own = personal::Own::read(spec, own, &version.w, objects)?;
            let step_rows = own.as_ref().map_or(1, |_| rows_per_step(&spec.text().local, rows.train.len()));
            let room = Room::of(room, spec.model(), step_rows);
            let seed = order_seed(spec.seed(), collection.version, name);
            let standardise = version.standardise.as_ref();
            let model = |own: &personal::Own<'_>, room: &mut Room| {
                own.model(spec, &version.w, &view(rows, &rows.train, standardise)?, seed, room)
            };
            let w = own.as_ref().map(|own| model(own, room)).transpose()?;
            let w = w.as_deref().unwrap_or(&version.w);
            (held_out(spec, w, standardise, rows, room)?, rows.held_out.len() as u64)
        }
    };
    count(collection, spec, examples, wholes_of(spec, collection.work, &evaluation), objects)
}

/// Seals an update that is nothing but exact integers.
fn count(
    collection: Collection,
    spec: &JobSpec,
    examples: u64,
    wholes: Vec<i128>,
    objects: &dyn Objects,
) -> Result<Output, WorkFault> {
    let raw = Raw { examples, loss: 0.0, wholes, sections: Vec::new() };
    let rounded = raw.unclipped().round(spec.plan(collection.work)).map_err(declined)?;
    let update = send(rounded.pack(), collection, spec.settings().masked.is_some(), objects)?;
    let note = LocalNote { examples, ..LocalNote::default() };
    Ok(Output::Local { update, state: None, personal: None, learnt: None, note })
}

/// How long a training goes on.
struct Effort<'a> {
    /// Steps at most; 0: as the job says.
    steps_max: usize,
    watch: &'a dyn Watch,
}

#[allow(clippy::too_many_arguments)]
fn train(
    collection: Collection,
    task: &Task,
    model: (&Manifest, &Chain),
    kept: Kept<'_>,
    name: &str,
    effort: Effort<'_>,
    entropy: &Entropy,
    rows: &Rows,
    room: &mut Option<Room>,
    objects: &dyn Objects,
) -> Result<Output, WorkFault> {
    let spec = &task.spec;
    if let Some(noise) = spec.example_noise() {
        accounted(collection, noise.attempts, spec.settings().rounds)?;
    }
    // Whether it has any is not told where each example is private.
    if rows.train.is_empty() && spec.example_noise().is_none() {
        return Err(WorkFault::Declined(format!("data set `{}` has no training rows here", spec.data_set())));
    }
    let version = Version::read(spec, objects, model)?;
    let mut own = personal::Own::read(spec, kept.personal, &version.w, objects)?;
    let kept_state = match spec.device_state() {
        Some(what) => Some(integers(what, spec.version().params, kept.state, objects)?),
        None => None,
    };
    let local = &spec.text().local;
    let rows_max = spec.example_noise().map_or(rows_per_step(local, rows.train.len()), |_| Clipping::block());
    let room = Room::of(room, spec.model(), rows_max);
    let view = view(rows, &rows.train, version.standardise.as_ref())?;
    // Where a version is made in steps, devices learn the same in all of them, and once if what they learnt is still here.
    let base = spec.settings().base(collection.version);
    let before = kept.learnt.filter(|(version, _)| spec.settings().steps > 1 && *version == base);
    let before = before.and_then(|(_, learnt)| learnt::read(learnt, objects).ok());
    let seed = order_seed(spec.seed(), base, name);
    // Before training: how good is what everybody got, or what this device makes of it? Where devices are private, these counts
    // are not told.
    let evaluation = match spec.private() {
        false => {
            let w = own.as_ref().map(|own| own.model(spec, &version.w, &view, seed, room)).transpose()?;
            held_out(spec, w.as_deref().unwrap_or(&version.w), version.standardise.as_ref(), rows, room)?
        }
        true => Evaluation::default(),
    };

    let mut training = match spec.example_noise() {
        None => Training::new(spec.model(), &view, local, seed, room),
        Some(noise) => {
            let generator = entropy.generator("samples and noise of training");
            Training::private(spec.model(), &view, local, noise, generator, room).map_err(declined)?
        }
    }
    .within(effort.steps_max, local.time_ms, effort.watch);
    let broadcast: Vec<_> = version.broadcast.iter().map(State::view).collect();
    let plan = spec.plan(Work::Train);
    let start = Start {
        w: &version.w,
        broadcast: &broadcast,
        device_state: kept_state.as_deref().filter(|_| spec.algorithm().device_state().is_some()),
        population: task.population.max(1),
        plan,
    };
    let (mut raw, steps, new) = match before {
        Some((raw, steps)) => (raw, steps, false),
        None => {
            let raw = match &mut own {
                None => spec.algorithm().local(&start, &mut training),
                Some(own) => spec.algorithm().local_personal(&start, &mut own.personal, &mut training),
            };
            (raw.map_err(declined)?, training.steps_made() as u64, true)
        }
    };
    let (examples, mean_loss) = (training.examples(), f64::from(raw.loss));
    if let Some(fault) = training.fault() {
        return Err(declined(fault));
    }
    let anew = own.as_ref().is_some_and(|own| own.anew);
    let note = LocalNote { examples, steps, mean_loss, saturated: 0, anew };
    let more = spec.settings().step_of(collection.version) + 1 < spec.settings().steps.into();
    let keeps = more && new && collection.work == Work::Train;
    let kept_learnt = if keeps { Some(learnt::write(&raw, &note, objects)?) } else { None };
    spec.algorithm().tell(&start, &mut raw).map_err(declined)?;
    raw.wholes.extend(wholes_of(spec, collection.work, &evaluation));
    if let Some(sketched) = spec.sketched() {
        raw.wholes.extend(sketch(sketched, &view, spec.seed()).to_wholes());
    }
    if collection.work == Work::Prepare {
        return Ok(Output::Prepared { learnt: learnt::write(&raw, &note, objects)?, note });
    }
    let given = Given { basis: version.basis.as_ref(), clip: version.clip, times: UNIT };
    let mut output = sealed(spec, collection, raw, note, kept_state, given, name, entropy, objects)?;
    if let Output::Local { personal, learnt, .. } = &mut output {
        *personal = own.map(|own| own.keep(objects)).transpose()?.flatten();
        *learnt = kept_learnt;
    }
    Ok(output)
}

/// What was learnt before is sealed for a collection.
pub fn seal(
    collection: Collection,
    task: &Arc<[u8]>,
    learnt: &Manifest,
    times: u16,
    name: &str,
    entropy: &Entropy,
    objects: &dyn Objects,
) -> Result<Output, WorkFault> {
    Bench::with(task, |task, _| {
        let (raw, steps) = learnt::read(learnt, objects)?;
        let note = LocalNote { examples: raw.examples, steps, mean_loss: raw.loss.into(), ..LocalNote::default() };
        // Jobs whose versions say how updates are sealed take no old ones.
        let times = if task.spec.algorithm().alone() { UNIT } else { times };
        let given = Given { basis: None, clip: None, times };
        sealed(&task.spec, collection, raw, note, None, given, name, entropy, objects)
    })
    .map_err(declined)?
}

/// What a device is given for the road of its update.
struct Given<'a> {
    /// Onto what it is projected.
    basis: Option<&'a Basis>,
    /// The version's own, if it has one.
    clip: Option<f32>,
    /// How much it counts by its age, in 256ths.
    times: u16,
}

/// The road of an update, to where it waits to be pulled.
#[allow(clippy::too_many_arguments)]
fn sealed(
    spec: &JobSpec,
    collection: Collection,
    mut raw: Raw,
    note: LocalNote,
    mut kept: Option<Vec<i32>>,
    given: Given<'_>,
    name: &str,
    entropy: &Entropy,
    objects: &dyn Objects,
) -> Result<Output, WorkFault> {
    let Given { basis, clip, times } = given;
    let plan = spec.plan(Work::Train);
    let masked = spec.settings().masked.is_some();
    let note = |saturated| LocalNote { saturated, ..note };
    if let Some(noise) = spec.noise() {
        let sketch = match (&noise.sketch, spec.sketched()) {
            (Some(noise), Some(Sketched { layout, .. })) => {
                let wholes = raw.wholes.split_off(raw.wholes.len().saturating_sub(layout.wholes()));
                let sketch = Sketch::from_wholes(layout, &wholes, 1);
                Some((noise, sketch.ok_or_else(|| declined("a sketch of this device's rows expected, got another"))?))
            }
            _ => None,
        };
        let clipped = match (&noise.bit, clip) {
            (Some(bit), Some(clip)) => {
                let clipped = raw.clip(bit.check(clip).map_err(declined)?);
                clipped.and_then(|clipped| clipped.with_clip_bit(bit))
            }
            _ => {
                let clipped = raw.clip(noise.spec.clip as f32);
                let with_sketch = clipped.and_then(|clipped| match &sketch {
                    Some((noise, sketch)) => clipped.with_sketch(noise, sketch),
                    None => Ok(clipped),
                });
                with_sketch.map(|clipped| clipped.weigh(times))
            }
        };
        let clipped = clipped.map_err(declined)?;
        let packed = match noise.on_devices() {
            // The cloud adds the noise; what it is added to is as long as was accounted for.
            false => match map_of(spec, basis)? {
                None => clipped.round(plan),
                Some(map) => {
                    let transformed = clipped.transform_within(map.linear(), &shared_seed(spec, collection));
                    transformed.and_then(|transformed| transformed.round(plan))
                }
            }
            .map_err(declined)?
            .pack(),
            true => {
                let mut generator = entropy.generator("share of noise");
                let rotation = rotation(spec, collection);
                let rounded = clipped.rotate(&rotation).and_then(|transformed| {
                    transformed.round_conditionally(plan, noise.spec.rounding_beta, &mut generator)
                });
                let noised = rounded.and_then(|rounded| rounded.noise(noise.law(), &noise.release, &mut generator));
                noised.map_err(declined)?.pack()
            }
        };
        let update = send(packed, collection, masked, objects)?;
        return Ok(Output::Local { update, state: None, personal: None, learnt: None, note: note(0) });
    }
    if let Some(uplink) = spec.uplink() {
        let Compressed { packed, saturated, residual } =
            compress(spec, uplink, basis, collection, name, raw, times, kept.as_deref())?;
        let update = send(packed, collection, masked, objects)?;
        let state = residual.map(|residual| keep(&residual, objects)).transpose()?;
        return Ok(Output::Local { update, state, personal: None, learnt: None, note: note(saturated) });
    }
    if let Some(bound) = spec.norm_bound() {
        // A longer one would be refused, where somebody can see it.
        let rounded = raw.clip(bound).and_then(|clipped| clipped.weigh(times).round(plan)).map_err(declined)?;
        let saturated = rounded.saturated().iter().sum();
        let update = send(rounded.pack(), collection, masked, objects)?;
        return Ok(Output::Local { update, state: None, personal: None, learnt: None, note: note(saturated) });
    }
    let rounded = raw.unclipped().weigh(times).round(plan).map_err(declined)?;
    let saturated = rounded.saturated().iter().sum();
    if let Some(kept) = &mut kept {
        spec.algorithm().pending(kept, &rounded).map_err(declined)?;
    }
    let update = send(rounded.pack(), collection, masked, objects)?;
    let state = kept.map(|kept| keep(&kept, objects)).transpose()?;
    Ok(Output::Local { update, state, personal: None, learnt: None, note: note(saturated) })
}

/// Is this training one that the account of a job that protects examples has counted? Each tells something anew, also that of a
/// version whose first attempt came to nothing: edges have seen its updates. Of one attempt there is one update at most, since
/// a device stores what it seals before it sends it, and then sends that or nothing.
fn accounted(collection: Collection, attempts: u32, rounds: u64) -> Result<(), WorkFault> {
    let Collection { version, attempt, .. } = collection;
    let told = "since this job's account of what devices tell of their examples counts no more";
    if version >= rounds {
        return Err(WorkFault::Declined(format!("a version below {rounds} expected, {told}, got {version}")));
    }
    if attempt >= attempts {
        let got = u64::from(attempt) + 1;
        return Err(WorkFault::Declined(format!(
            "version {version}: at most {attempts} attempts expected, {told} (differential_privacy.attempts_max), got attempt {got}"
        )));
    }
    Ok(())
}

/// The rest of the road: packed, sealed, and stored where it waits to be pulled. Of a masked sum it waits, packed, for its
/// masks, and nobody is served.
fn send(packed: Packed, collection: Collection, masked: bool, objects: &dyn Objects) -> Result<Manifest, WorkFault> {
    let mut object = objects.create()?;
    match masked {
        true => object.append(packed.plain())?,
        false => object.append(packed.seal(collection).bytes())?,
    }
    Ok(object.finish()?)
}

/// Lays masks on an update that waited for them.
pub fn mask(
    collection: Collection,
    plain: &Manifest,
    masks: &Masks,
    objects: &dyn Objects,
) -> Result<Output, WorkFault> {
    let mut bytes = vec![0; plain.bytes() as usize];
    objects.read(plain.id(), 0, &mut bytes)?;
    let sealed = Packed::restored(bytes).mask(masks).map_err(declined)?.seal(collection);
    let mut object = objects.create()?;
    object.append(sealed.bytes())?;
    Ok(Output::Masked { update: object.finish()? })
}

/// How the updates of a collection are rotated: the same way on all devices, and back at the cloud. Public.
pub(super) fn rotation(spec: &JobSpec, collection: Collection) -> Rotation {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"littoral/rotation\0");
    hasher.update(&spec.seed().to_le_bytes());
    hasher.update(&collection.to_bytes());
    // What is sent: the model's coordinates, and perhaps one more.
    let len = spec.plan(collection.work).sections().first().map_or(0, |section| section.len);
    Rotation::new(len, &mut ChaCha20Rng::from_seed(*hasher.finalize().as_bytes()))
}

/// What this device keeps of the job: zeros before its first inclusion.
fn integers(what: &str, params: usize, state: Option<&Manifest>, objects: &dyn Objects) -> Result<Vec<i32>, WorkFault> {
    let Some(state) = state else {
        return Ok(vec![0; params]);
    };
    if state.bytes() != 4 * params as u64 {
        let (expected, got) = (4 * params, state.bytes());
        return Err(WorkFault::Declined(format!("this device's {what} has {got} bytes, {expected} expected")));
    }
    let mut bytes = vec![0; 4 * params];
    objects.read(state.id(), 0, &mut bytes)?;
    Ok(wholes(&bytes).collect())
}

fn keep(kept: &[i32], objects: &dyn Objects) -> Result<Manifest, WorkFault> {
    let mut bytes = Vec::with_capacity(4 * kept.len());
    put_wholes(kept, &mut bytes);
    let mut object = objects.create()?;
    object.append(&bytes)?;
    Ok(object.finish()?)
}

/// How a model does on the rows that never train.
fn held_out(
    spec: &JobSpec,
    w: &[f32],
    standardise: Option<&Arc<Standardise>>,
    rows: &Rows,
    room: &mut Room,
) -> Result<Evaluation, WorkFault> {
    let mut total = Evaluation::default();
    // Always as many rows at once, so that the sum of losses is rounded in the same way in every room.
    for part in rows.held_out.chunks(spec.model().evaluation_rows()) {
        let view = view(rows, part, standardise)?;
        let part = room.worker.evaluate(spec.model(), w, &view).map_err(declined)?;
        total.rows += part.rows;
        total.correct += part.correct;
        total.loss_sum += part.loss_sum;
    }
    Ok(total)
}

fn wholes_of(spec: &JobSpec, work: Work, evaluation: &Evaluation) -> Vec<i128> {
    let loss = evaluation.loss_sum * LOSS_PER_UNIT;
    // A model that diverged has no loss that could be summed.
    let loss = if loss.is_finite() { loss.round().clamp(-LOSS_WHOLE_MAX, LOSS_WHOLE_MAX) as i128 } else { 0 };
    let mut wholes = vec![evaluation.rows.into(), evaluation.correct.into(), loss];
    if spec.tells_spread(work) {
        wholes.extend(Distribution::of(evaluation.correct, evaluation.rows).to_wholes());
    }
    wholes
}

fn view(rows: &Rows, of: &[u32], standardise: Option<&Arc<Standardise>>) -> Result<View, WorkFault> {
    let view = View::new(Arc::clone(&rows.examples), of.to_vec()).map_err(declined)?;
    match standardise {
        Some(standardise) => view.standardised(Arc::clone(standardise)).map_err(declined),
        None => Ok(view),
    }
}

/// Decides the order of a device's rows: by its name, so that neither a new key nor a second attempt changes it.
pub(super) fn order_seed(job_seed: u64, version: u64, name: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"littoral/examples\0");
    hasher.update(&job_seed.to_le_bytes());
    hasher.update(&version.to_le_bytes());
    hasher.update(name.as_bytes());
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

pub(super) fn declined(why: impl Display) -> WorkFault {
    WorkFault::Declined(why.to_string())
}

/// A version that cannot be read may be read later; one that is no version of this job never will.
impl From<VersionError> for WorkFault {
    fn from(error: VersionError) -> Self {
        match error {
            VersionError::Object(fault) => fault.into(),
            error => declined(error),
        }
    }
}
