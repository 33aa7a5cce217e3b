//! Works without learning: the same objects of the same sizes as real ones, by arithmetic instead of training.
//!
//! For drills: what is tried is how machines fare, not how models do. Small integers that follow from collection and
//! device are sealed, summed and added to the model; an algorithm with state on devices keeps its sums, so that every
//! checker has something to check.

use littoral_fed::algorithm::Personal;
use littoral_fed::masks::cloud::Opening;
use littoral_fed::round::Given;
use littoral_node::job::{JobSpec, Task, Totals};
use littoral_node::work::{LocalData, LocalNote, ObjectFault, Objects, Output, Work, WorkFault};
use littoral_tensor::fixed;
use littoral_wire::Collection;
use littoral_wire::codec::Wire;
use littoral_wire::message::Work as Kind;
use littoral_wire::object::{Chain, Manifest};

/// In place of [`littoral_node::work::run`].
pub fn run(work: &Work, objects: &dyn Objects, data: &dyn LocalData) -> Result<Output, WorkFault> {
    match work {
        Work::Local { collection, task, model, state, personal, name, .. } => {
            let spec = Task::decode(task).map_err(|e| WorkFault::Declined(e.to_string()))?.spec;
            // Training reads the model; so does this.
            read(objects, model)?;
            if collection.work == Kind::Prepare {
                let learnt = write(objects, &[&collection.to_bytes()[..], name.as_bytes()].concat())?;
                return Ok(Output::Prepared { learnt, note: LocalNote::default() });
            }
            local(&spec, *collection, (state.as_ref(), personal.as_ref()), name, objects)
        }
        Work::Seal { collection, task, learnt, name, .. } => {
            let spec = Task::decode(task).map_err(|e| WorkFault::Declined(e.to_string()))?.spec;
            read(objects, learnt)?;
            local(&spec, *collection, (None, None), name, objects)
        }
        Work::Initial { spec } => {
            let layout = spec.version();
            let model = write(objects, &vec![0; layout.model_bytes()])?;
            let state = (layout.kept > 0).then(|| write(objects, &vec![0; layout.state_bytes()])).transpose()?;
            Ok(Output::Initial { model, state })
        }
        // Masks, lists and sums of sums are real.
        Work::Mask { .. } | Work::Bundle { .. } | Work::Merge { .. } => littoral_node::work::run(work, objects, data),
        Work::Apply {
            spec, collection, model, state, partials, names, given, devices, population, opening, ..
        } => {
            let opening = opening.as_ref();
            let given = (&names[..], given);
            apply(spec, *collection, model, state.as_ref(), partials, given, *devices, *population, opening, objects)
        }
    }
}

fn read(objects: &dyn Objects, manifest: &Manifest) -> Result<Vec<u8>, ObjectFault> {
    let mut bytes = vec![0; manifest.bytes() as usize];
    objects.read(manifest.id(), 0, &mut bytes)?;
    Ok(bytes)
}

fn write(objects: &dyn Objects, bytes: &[u8]) -> Result<Manifest, ObjectFault> {
    let mut writer = objects.create()?;
    writer.append(bytes)?;
    writer.finish()
}

fn broken(why: impl ToString) -> WorkFault {
    WorkFault::Failed(why.to_string())
}

fn local(
    spec: &JobSpec,
    collection: Collection,
    (state, personal): (Option<&Manifest>, Option<&Manifest>),
    name: &str,
    objects: &dyn Objects,
) -> Result<Output, WorkFault> {
    if spec.text().compression.is_some() {
        return Err(WorkFault::Declined("a drill sends words as they are: try compression with real works".into()));
    }
    let plan = spec.plan(collection.work);
    let mut chance = blake3::Hasher::new().update(&collection.to_bytes()).update(name.as_bytes()).finalize_xof();
    let mut words = vec![0; plan.format().words() as usize];
    // The first word is the weight.
    words[0] = 1;
    let mut update = vec![0; plan.format().bytes()];
    fixed::pack(&words, plan.bits(), &mut update).map_err(broken)?;
    let mut last = Vec::new();
    for (i, section) in plan.sections().iter().enumerate() {
        let mut draws = vec![0; section.len];
        chance.fill(&mut draws);
        last = draws.iter().map(|draw| i64::from(draw % 16) - 8).collect();
        fixed::pack(&last, plan.bits(), &mut update[plan.section_bytes(i, 0..section.len)]).map_err(broken)?;
    }
    let keeps = spec.algorithm().device_state().is_some() && !last.is_empty();
    let state = match state {
        _ if !keeps => None,
        Some(state) => Some(read(objects, state)?),
        None => Some(vec![0; 4 * last.len()]),
    };
    let state = state.map(|mut state| {
        add(&mut state, &last);
        write(objects, &state)
    });
    let keeps = spec.algorithm().keeps().filter(|_| spec.keeps_own() && collection.work == Kind::Train);
    let own = |keeps| own(Personal::len(keeps, spec.home()), personal, &mut chance, objects);
    let personal = keeps.map(own).transpose()?;
    let (update, state) = (write(objects, &update)?, state.transpose()?);
    Ok(Output::Local { update, state, personal, learnt: None, note: LocalNote::default() })
}

/// What a device has of its own: as much as it would have, and made of what it had before.
fn own(
    len: usize,
    before: Option<&Manifest>,
    chance: &mut blake3::OutputReader,
    objects: &dyn Objects,
) -> Result<Manifest, WorkFault> {
    let mut bytes = vec![0; 4 * len];
    chance.fill(&mut bytes);
    // What cannot be read was lost, and it begins anew.
    let before = before.and_then(|before| read(objects, before).ok());
    bytes.iter_mut().zip(before.iter().flatten()).for_each(|(new, old)| *new ^= old);
    Ok(write(objects, &bytes)?)
}

/// Adds to 32-bit integers.
fn add(integers: &mut [u8], more: &[i64]) {
    for (four, more) in integers.as_chunks_mut::<4>().0.iter_mut().zip(more) {
        *four = i32::from_le_bytes(*four).wrapping_add(*more as i32).to_le_bytes();
    }
}

#[allow(clippy::too_many_arguments)] // The fields of one work.
fn apply(
    spec: &JobSpec,
    collection: Collection,
    model: &Manifest,
    state: Option<&Manifest>,
    partials: &[Manifest],
    (names, given): (&[String], &Given),
    devices: u32,
    population: u64,
    opening: Option<&Opening>,
    objects: &dyn Objects,
) -> Result<Output, WorkFault> {
    let plan = spec.plan(collection.work);
    let mut sum = vec![0; plan.format().bytes()];
    for partial in partials {
        // A list has several.
        for update in read(objects, partial)?.chunks(plan.format().bytes()) {
            fixed::add_packed(&mut sum, update, plan.bits()).map_err(broken)?;
        }
    }
    if let Some(opening) = opening {
        opening.unmask(0, &mut sum).map_err(broken)?;
    }
    let mut words = vec![0; plan.format().words() as usize];
    fixed::unpack(&sum, plan.bits(), &mut words).map_err(broken)?;
    if words[0] != i64::from(devices) {
        return Err(broken(format!("the sum weighs {}, it should be of {devices} devices", words[0])));
    }
    let mut bytes = read(objects, model)?;
    let layout = spec.version();
    for (i, section) in plan.sections().iter().enumerate().take(1 + layout.broadcast) {
        let mut total = vec![0; section.len];
        fixed::unpack(&sum[plan.section_bytes(i, 0..section.len)], plan.bits(), &mut total).map_err(broken)?;
        for block in layout.blocks() {
            add(&mut bytes[layout.at(&block, i, 1 + layout.broadcast)], &total[block]);
        }
    }
    let totals = Totals { devices: devices.into(), population, weight_sum: devices.into(), ..Totals::default() };
    let mut given = if collection.work == Kind::Statistics { Given::new() } else { given.clone() };
    for name in names.iter().filter(|_| collection.work == Kind::Train && spec.given_max() > 0) {
        // Its own, of the length of a version.
        let mut own = bytes.clone();
        let mut chance = blake3::Hasher::new().update(&collection.to_bytes()).update(name.as_bytes()).finalize_xof();
        chance.fill(&mut own[..4 * layout.params]);
        given.insert(name.clone(), write(objects, &own)?);
    }
    let model = write(objects, &bytes)?;
    Ok(Output::Applied { model, before: Chain::default(), state: state.cloned(), given, totals })
}
