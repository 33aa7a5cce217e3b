//! The cloud's part: version 0, and from a version and a collection's sums the next one.
//!
//! A model of any size passes through block by block: of the sums, the version and the cloud's state only one block
//! each is in memory (but of sums that were compressed by a linear map: `compressed`). Sums are integers, so neither the order of partials nor the cut into blocks leaves a trace.

use super::compressed::{MappedBack, put_first_basis};
use super::given::Mixing;
use super::image;
use super::private::Private;
use super::robust::Unmerged;
use super::version::{self, Version, put_reals, put_wholes, reals, wholes};
use super::{ObjectWriter, Objects, Output, WorkFault};
use crate::data::statistics::Sums;
use crate::job::{BLOCK, Down, JobSpec, LOSS_PER_UNIT, Totals, VersionLayout};
use crate::role::Entropy;
use littoral_fed::algorithm::{Began, Chunk, State, StateSlice, StateVector, apply_chunk};
use littoral_fed::distribution::Distribution;
use littoral_fed::drift::Sketch;
use littoral_fed::masks::cloud::Opening;
use littoral_fed::open::{self, open_header, open_section};
use littoral_fed::plan::Plan;
use littoral_fed::round::{Given, Place};
use littoral_fed::staleness::UNIT;
use littoral_model::Loss;
use littoral_tensor::fixed::add_packed;
use littoral_wire::ObjectId;
use littoral_wire::message::{Collection, Work};
use littoral_wire::object::{Chain, Manifest};
use std::fmt::Display;
use std::ops::Range;

/// A job's version 0: the model's first weights, the algorithm's first state, and a standardisation that changes nothing.
pub fn initial(spec: &JobSpec, objects: &dyn Objects) -> Result<Output, WorkFault> {
    let layout = spec.version();
    let w = spec.home().into_shared(spec.model().init(spec.seed()));
    let mut next = Next::begin(spec, None, objects)?;
    let vectors = spec.algorithm().cloud_state();
    for block in layout.blocks() {
        let states: Vec<State> = vectors.iter().map(|vector| vector.initial.state(block.len())).collect();
        let memory = vec![0; 16 * layout.memory * block.len()];
        next.append(&w[block], &vectors, &states, &memory)?;
    }
    let mut tail = Vec::with_capacity(8 * layout.inputs + 4);
    put_reals(&vec![0.0; layout.inputs], &mut tail);
    put_reals(&vec![1.0; layout.inputs], &mut tail);
    put_first_basis(spec, &mut tail);
    if let Some(bit) = spec.noise().and_then(|noise| noise.bit) {
        put_reals(&[bit.clip], &mut tail);
    }
    let (model, _, state) = next.finish(&tail)?;
    Ok(Output::Initial { model, state })
}

/// The sum of a collection, as it comes to be applied.
pub struct Sum<'a> {
    /// In any order.
    pub partials: &'a [Manifest],
    /// Where each device's update is, if these are lists.
    pub order: &'a [Place],
    /// Their names, in that order; and what devices were given, of an algorithm that gives each a model of its own.
    pub names: &'a [String],
    pub given: &'a Given,
    pub devices: u32,
    /// Devices of the fleet that offer the data set.
    pub population: u64,
    /// What to take from it, if it is masked.
    pub opening: Option<&'a Opening>,
    /// Where the one update in it began, and how much it counts, in 256ths.
    pub began: Option<&'a (Manifest, Chain, u16)>,
    /// For the noise that is added to it.
    pub entropy: &'a Entropy,
}

pub fn run(
    spec: &JobSpec,
    collection: Collection,
    (model, before): (&Manifest, &Chain),
    state: Option<&Manifest>,
    sum: &Sum<'_>,
    objects: &dyn Objects,
) -> Result<Output, WorkFault> {
    let plan = spec.plan(collection.work);
    let &Sum { partials, order, names, given, devices, population, opening, began, entropy } = sum;
    let sums = match spec.unmerged(collection.work) {
        false => Partials::new(plan, partials, opening, objects)?,
        true => Partials::lists(plan, partials, order, objects)?,
    };
    let mut header = Vec::new();
    sums.read(0..plan.header_bytes(), &mut header)?;
    let mut opened = open_header(plan, devices.into(), &header).map_err(refused)?;
    let mut totals = Totals {
        devices: opened.devices,
        population,
        weight_sum: opened.weight_sum,
        saturated: opened.saturated,
        train_loss: opened.loss,
        classifies: spec.model().loss() == Loss::CrossEntropy,
        ..Totals::default()
    };
    if spec.codec(collection.work).is_some() {
        totals.update_bytes = opened.wholes.pop().map(|bytes| bytes.clamp(0, u64::MAX.into()) as u64);
    } else if collection.work == Work::Train {
        totals.update_bytes = Some(opened.devices * plan.format().bytes() as u64);
    }
    totals.downlink = spec.version().image.then(|| Down::of(model, before));
    let sketched = spec.sketched();
    if collection.work != Work::Statistics {
        let before_sketch = opened.wholes.len().saturating_sub(spec.sketch_wholes(collection.work));
        let wholes = opened.wholes.split_off(before_sketch);
        if let Some(sketched) = sketched.filter(|_| !wholes.is_empty()) {
            let sketch = Sketch::from_wholes(&sketched.layout, &wholes, opened.devices);
            totals.sketch = sketch.and_then(|sketch| sketched.layout.parts(&sketch.to_reals().collect::<Vec<_>>()));
        }
        // The algorithm's own integers come first; it does not know of these.
        let own = opened.wholes.len().saturating_sub(spec.evaluation_wholes(collection.work));
        if let [rows, correct, loss, spread @ ..] = &opened.wholes.split_off(own)[..] {
            totals.rows = (*rows).clamp(0, u64::MAX.into()) as u64;
            totals.correct = (*correct).clamp(0, u64::MAX.into()) as u64;
            totals.loss_sum = *loss as f64 / LOSS_PER_UNIT;
            totals.distribution = Distribution::from_wholes(spread, opened.devices).map(Box::new);
        }
    }
    let (model, before, state, given) = match collection.work {
        Work::Evaluate => (model.clone(), before.clone(), state.cloned(), given.clone()),
        Work::Statistics => {
            let (model, before) = standardise(spec, (model, before), state, &opened, objects)?;
            // They were made with another standardisation; but it comes before any is made.
            (model, before, state.cloned(), Given::new())
        }
        Work::Prepare => return Err(refused("a collection that is summed expected, got one that devices prepare for")),
        Work::Train => {
            if let Some(mixer) = spec.algorithm().mixes() {
                let tail = version::tail_of(spec, objects, (model, before))?;
                let (tail, version) = (&tail[..], collection.version);
                let mixing =
                    Mixing { spec, mixer, plan, model, version, tail, state, sums: &sums, names, given, objects };
                let (model, state, given) = mixing.step()?;
                return Ok(Output::Applied { model, before: Chain::default(), state: Some(state), given, totals });
            }
            // A rule counts every device once, whatever an update says of its weight.
            if spec.rule().is_some() {
                opened.weight_sum = opened.devices;
            }
            // How many came is not what the sum is divided by: that would tell of who is there.
            if spec.noise().is_some() {
                opened.weight_sum = spec.settings().cohort.target.into();
            }
            totals.clip = version::clip(spec.version(), &version::tail_of(spec, objects, (model, before))?);
            let private = spec.noise().map(|noise| Private::new(noise, spec, collection, totals.clip, entropy));
            let private = private.transpose()?;
            let began = began.map(|began| old_weights(spec, began, objects)).transpose()?;
            let began = began.as_ref().map(|(w, weight)| (&w[..], *weight));
            let Stepped { made: (model, before, state), sketch, chosen } =
                step(spec, collection, plan, (model, before), state, &sums, &opened, private, began, objects)?;
            totals.sketch = totals.sketch.or_else(|| sketched?.layout.parts(&sketch));
            totals.chosen = chosen.iter().filter_map(|row| names.get(*row).cloned()).collect();
            totals.chosen.sort_unstable();
            (model, before, state, Given::new())
        }
    };
    Ok(Output::Applied { model, before, state, given, totals })
}

/// The same weights, with the fleet's means and deviations.
fn standardise(
    spec: &JobSpec,
    (model, before): (&Manifest, &Chain),
    state: Option<&Manifest>,
    opened: &open::Totals,
    objects: &dyn Objects,
) -> Result<(Manifest, Chain), WorkFault> {
    let layout = spec.version();
    version::check(layout, model).map_err(refused)?;
    let words: Result<Vec<i64>, _> = opened.wholes.iter().map(|&whole| i64::try_from(whole)).collect();
    let sums = words.ok().and_then(|words| Sums::from_words(&words));
    let sums = sums.filter(|sums| sums.inputs().len() == layout.inputs);
    let sums = sums.ok_or_else(|| refused("the sums of statistics are not sums of rows: an update was malformed"))?;
    let standardisation = sums.standardisation();

    let mut tail = Vec::new();
    for part in [&standardisation.mean, &standardisation.inv_std] {
        let narrow: Vec<f32> = part.iter().map(|&value| value as f32).collect();
        put_reals(&narrow, &mut tail);
    }
    let old = version::tail_of(spec, objects, (model, before))?;
    tail.extend_from_slice(&old[tail.len()..]);
    if layout.image {
        let w = exact_weights(layout, state, objects)?;
        return image::tell(spec, objects, Some((model, before)), &w, &tail);
    }
    let mut next = objects.create()?;
    copy(objects, model.id(), 0..layout.standardisation_at(), &mut Vec::new(), &mut *next)?;
    next.append(&tail)?;
    Ok((next.finish()?, Chain::default()))
}

/// The weights that lie with the state.
fn exact_weights(
    layout: &VersionLayout,
    state: Option<&Manifest>,
    objects: &dyn Objects,
) -> Result<Vec<f32>, WorkFault> {
    let state = state.filter(|state| state.bytes() == layout.state_bytes() as u64);
    let state = state.ok_or_else(|| refused("a state with the weights expected, got another or none"))?;
    let (mut w, mut bytes) = (Vec::with_capacity(layout.params), Vec::new());
    for block in layout.blocks() {
        bytes.resize(4 * block.len(), 0);
        objects.read(state.id(), layout.at(&block, 0, layout.state_vectors()).start as u64, &mut bytes)?;
        w.extend(reals(&bytes));
    }
    Ok(w)
}

/// The weights of an older version, all of them in memory, and how much an update counts that began there.
fn old_weights(
    spec: &JobSpec,
    (model, before, times): &(Manifest, Chain, u16),
    objects: &dyn Objects,
) -> Result<(Vec<f32>, f32), WorkFault> {
    let version = Version::read(spec, objects, (model, before))?;
    Ok((version.w, f32::from(*times) / f32::from(UNIT)))
}

/// A version's object, what it builds on, and the cloud's state.
type Made = (Manifest, Chain, Option<Manifest>);

/// What comes of one step.
struct Stepped {
    made: Made,
    /// The sum of sketches, where they are noised with the updates.
    sketch: Vec<f64>,
    /// Rows that a rule took, if it left others out.
    chosen: Vec<usize>,
}

/// The algorithm's cloud half.
#[allow(clippy::too_many_arguments)]
fn step(
    spec: &JobSpec,
    collection: Collection,
    plan: &Plan,
    (model, before): (&Manifest, &Chain),
    state: Option<&Manifest>,
    sums: &Partials<'_>,
    opened: &open::Totals,
    mut private: Option<Private<'_>>,
    began: Option<(&[f32], f32)>,
    objects: &dyn Objects,
) -> Result<Stepped, WorkFault> {
    let (layout, algorithm) = (spec.version(), spec.algorithm_of(collection.version));
    version::check(layout, model).map_err(refused)?;
    let (expected, got) = (layout.state_bytes() as u64, state.map_or(0, Manifest::bytes));
    if expected != got {
        return Err(refused(format!("the state of {} has {expected} bytes, got {got}", algorithm.name())));
    }
    let vectors = algorithm.cloud_state();
    let mut states: Vec<State> = vectors.iter().map(|vector| vector.initial.state(BLOCK.min(layout.params))).collect();
    let mut w = vec![0.0; BLOCK.min(layout.params)];
    let mut words = vec![0; BLOCK.min(layout.params)];
    let mut sum = vec![0.0; words.len()];
    let (mut bytes, mut packed) = (Vec::new(), Vec::new());
    let add_noise = |words: &mut [i64]| private.iter_mut().for_each(|private| private.add_noise(words));
    let mut tail = version::tail_of(spec, objects, (model, before))?;
    let basis = version::basis(spec, &tail)?;
    let back = MappedBack::read(spec, basis.as_ref(), collection, plan, sums, add_noise)?;
    let mut unmerged = spec.rule().map(|rule| Unmerged::judged(rule, plan, sums)).transpose()?;
    let mut next = Next::begin(spec, Some((model, before)), objects)?;
    let mut memory = Vec::new();
    for block in layout.blocks() {
        let len = block.len();
        for state in &mut states {
            truncate(state, len);
        }
        w.truncate(len);
        sum.truncate(len);
        // What lies in the model's object: w and the broadcast vectors. Of an image w lies with the state.
        let read_w = |w: &mut [f32], part: Option<&[u8]>| {
            part.into_iter().for_each(|part| w.iter_mut().zip(reals(part)).for_each(|(w, value)| *w = value));
        };
        if !layout.image {
            bytes.resize(4 * len * (1 + layout.broadcast), 0);
            objects.read(model.id(), layout.at(&block, 0, 1 + layout.broadcast).start as u64, &mut bytes)?;
            let mut parts = bytes.chunks_exact(4 * len);
            read_w(&mut w, parts.next());
            take(&mut states, &vectors, true, parts);
        }
        if let Some(state) = state {
            let vectors_kept = layout.state_vectors();
            bytes.resize(4 * len * vectors_kept, 0);
            objects.read(state.id(), layout.at(&block, 0, vectors_kept).start as u64, &mut bytes)?;
            let (exact, rest) = bytes.split_at(4 * len * usize::from(layout.image));
            if layout.image {
                read_w(&mut w, Some(exact));
            }
            let (kept, remembered) = rest.split_at(4 * len * layout.kept);
            take(&mut states, &vectors, false, kept.chunks_exact(4 * len));
            memory.clear();
            memory.extend_from_slice(remembered);
        }
        for section in 0..plan.sections().len() {
            if let Some(back) = &back {
                back.copy_to(block.start, &mut sum);
            } else if let Some(unmerged) = &mut unmerged {
                unmerged.sum(block.clone(), &mut sum)?;
            } else {
                let appended = private.as_ref().filter(|_| block.end == layout.params).map_or(0, Private::appended);
                let summed = block.start..block.end + appended;
                words.resize(summed.len(), 0);
                sums.read(plan.section_bytes(section, summed.clone()), &mut packed)?;
                open_section(plan, section, summed, &packed, &mut words).map_err(refused)?;
                match &mut private {
                    Some(private) => private.block(block.start, len, &mut words, &mut memory, &mut sum)?,
                    None => sum.iter_mut().zip(&words).for_each(|(sum, &word)| *sum = word as f64),
                }
            }
            let mut state: Vec<StateSlice<'_>> = states.iter_mut().map(|state| state.slice(0, len)).collect();
            let began = began.map(|(w, weight)| Began { model: &w[block.clone()], weight });
            let chunk = Chunk { first: block.start, model: &mut w, state: &mut state, sum: &sum, began };
            apply_chunk(algorithm, plan, opened, section, chunk).map_err(refused)?;
        }
        next.append(&w, &vectors, &states, &memory)?;
    }
    tail.truncate(layout.standardisation().len());
    tail.extend(back.map(|back| back.next_basis).unwrap_or_default());
    let next_clip = || private.as_ref()?.next_clip(plan.step(0), opened.weight_sum as f64);
    put_reals(next_clip().as_slice(), &mut tail);
    let sketch = private.as_ref().map_or_else(Vec::new, |private| private.sketch().to_vec());
    let chosen = unmerged.map_or_else(Vec::new, |unmerged| unmerged.chosen().to_vec());
    Ok(Stepped { made: next.finish(&tail)?, sketch, chosen })
}

/// Fills the state vectors that devices get, or those that they do not get, from an object's bytes.
fn take<'a>(states: &mut [State], vectors: &[StateVector], broadcast: bool, parts: impl Iterator<Item = &'a [u8]>) {
    let wanted = states.iter_mut().zip(vectors).filter(|(_, vector)| vector.broadcast == broadcast);
    for ((state, _), part) in wanted.zip(parts) {
        match state {
            State::Real(values) => values.iter_mut().zip(reals(part)).for_each(|(value, read)| *value = read),
            State::Whole(values) => values.iter_mut().zip(wholes(part)).for_each(|(value, read)| *value = read),
        }
    }
}

fn truncate(state: &mut State, len: usize) {
    match state {
        State::Real(values) => values.truncate(len),
        State::Whole(values) => values.truncate(len),
    }
}

/// A version that is being written, and the cloud's state beside it.
struct Next<'a> {
    spec: &'a JobSpec,
    objects: &'a dyn Objects,
    /// What it comes after.
    from: Option<(&'a Manifest, &'a Chain)>,
    model: Wanted<'a>,
    state: Option<Box<dyn ObjectWriter + 'a>>,
    bytes: Vec<u8>,
}

/// How the model is told.
enum Wanted<'a> {
    Object(Box<dyn ObjectWriter + 'a>),
    /// The weights so far, for an image.
    Image(Vec<f32>),
}

impl<'a> Next<'a> {
    fn begin(
        spec: &'a JobSpec,
        from: Option<(&'a Manifest, &'a Chain)>,
        objects: &'a dyn Objects,
    ) -> Result<Self, WorkFault> {
        let layout = *spec.version();
        let state = if layout.state_vectors() > 0 { Some(objects.create()?) } else { None };
        let model = match layout.image {
            true => Wanted::Image(Vec::with_capacity(layout.params)),
            false => Wanted::Object(objects.create()?),
        };
        Ok(Self { spec, objects, from, model, state, bytes: Vec::new() })
    }

    /// The next block. `memory`: what noise remembers.
    fn append(&mut self, w: &[f32], vectors: &[StateVector], states: &[State], memory: &[u8]) -> Result<(), WorkFault> {
        self.bytes.clear();
        put_reals(w, &mut self.bytes);
        match &mut self.model {
            Wanted::Object(model) => {
                put(states, vectors, true, &mut self.bytes);
                model.append(&self.bytes)?;
                self.bytes.clear();
            }
            Wanted::Image(weights) => weights.extend_from_slice(w),
        }
        if let Some(writer) = &mut self.state {
            put(states, vectors, false, &mut self.bytes);
            self.bytes.extend_from_slice(memory);
            writer.append(&self.bytes)?;
        }
        Ok(())
    }

    /// `tail`: what stands behind the blocks of the model, as it is in an object.
    fn finish(self, tail: &[u8]) -> Result<Made, WorkFault> {
        let state = self.state.map(|state| state.finish()).transpose()?;
        let (model, before) = match self.model {
            Wanted::Object(mut model) => {
                model.append(tail)?;
                (model.finish()?, Chain::default())
            }
            Wanted::Image(w) => image::tell(self.spec, self.objects, self.from, &w, tail)?,
        };
        Ok((model, before, state))
    }
}

fn put(states: &[State], vectors: &[StateVector], broadcast: bool, out: &mut Vec<u8>) {
    for (state, _) in states.iter().zip(vectors).filter(|(_, vector)| vector.broadcast == broadcast) {
        match state {
            State::Real(values) => put_reals(values, out),
            State::Whole(values) => put_wholes(values, out),
        }
    }
}

/// Sums of updates that together are one sum; or the updates themselves.
pub(super) struct Partials<'a> {
    bits: u32,
    objects: &'a dyn Objects,
    /// Each one's object, and where in it it begins.
    places: Vec<(ObjectId, u64)>,
    opening: Option<&'a Opening>,
}

impl<'a> Partials<'a> {
    fn new(
        plan: &Plan,
        partials: &[Manifest],
        opening: Option<&'a Opening>,
        objects: &'a dyn Objects,
    ) -> Result<Self, WorkFault> {
        let expected = plan.format().bytes() as u64;
        if let Some(partial) = partials.iter().find(|partial| partial.bytes() != expected) {
            return Err(refused(format!("a sum of this collection has {expected} bytes, {partial:?} is another")));
        }
        let places = partials.iter().map(|partial| (partial.id(), 0)).collect();
        Ok(Self { bits: plan.bits(), objects, places, opening })
    }

    /// Of lists: each update by itself, in the order given.
    fn lists(plan: &Plan, lists: &[Manifest], order: &[Place], objects: &'a dyn Objects) -> Result<Self, WorkFault> {
        let bytes = plan.format().bytes() as u64;
        let held: u64 = lists.iter().map(|list| list.bytes() / bytes).sum();
        if let Some(list) = lists.iter().find(|list| !list.bytes().is_multiple_of(bytes)) {
            return Err(refused(format!(
                "updates of this collection have {bytes} bytes each, {list:?} is no list of them"
            )));
        }
        let place = |place: &Place| {
            let list = lists.get(place.partial as usize)?;
            let start = u64::from(place.row) * bytes;
            (start < list.bytes()).then(|| (list.id(), start))
        };
        let places: Option<Vec<_>> = order.iter().map(place).collect();
        match places.filter(|places| places.len() as u64 == held) {
            Some(places) => Ok(Self { bits: plan.bits(), objects, places, opening: None }),
            None => Err(refused(format!("{} lists hold {held} updates, the devices are others", lists.len()))),
        }
    }

    /// How many there are.
    pub(super) fn rows(&self) -> usize {
        self.places.len()
    }

    /// Some bytes of one of them.
    pub(super) fn read_row(&self, row: usize, range: Range<usize>, bytes: &mut Vec<u8>) -> Result<(), WorkFault> {
        let (object, start) = self.places[row];
        bytes.resize(range.len(), 0);
        Ok(self.objects.read(object, start + range.start as u64, bytes)?)
    }

    /// Some bytes of the one sum: whole groups of words.
    pub(super) fn read(&self, range: Range<usize>, sum: &mut Vec<u8>) -> Result<(), WorkFault> {
        sum.clear();
        sum.resize(range.len(), 0);
        if self.places.is_empty() {
            return Ok(());
        }
        self.read_row(0, range.clone(), sum)?;
        let mut other = Vec::new();
        for row in 1..self.rows() {
            self.read_row(row, range.clone(), &mut other)?;
            add_packed(sum, &other, self.bits).map_err(refused)?;
        }
        if let Some(opening) = self.opening {
            opening.unmask(range.start as u64, sum).map_err(refused)?;
        }
        Ok(())
    }
}

/// Copies some bytes of an object, a block at a time.
fn copy(
    objects: &dyn Objects,
    from: ObjectId,
    range: Range<usize>,
    bytes: &mut Vec<u8>,
    to: &mut dyn ObjectWriter,
) -> Result<(), WorkFault> {
    for start in range.clone().step_by(4 * BLOCK) {
        bytes.resize((4 * BLOCK).min(range.end - start), 0);
        objects.read(from, start as u64, bytes)?;
        to.append(bytes)?;
    }
    Ok(())
}

/// What no second try mends: the sum, the version and the algorithm do not go together. Faults of the disk, which may
/// pass, come by themselves.
pub(super) fn refused(why: impl Display) -> WorkFault {
    WorkFault::Declined(why.to_string())
}
