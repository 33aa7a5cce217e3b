//! Compressed updates: a device's half of the road, and the cloud's way back.
//!
//! Two seeds, both public. All devices of a version share one, so that a map is the same for all of them. By the other a device
//! rounds; it follows from the device's name, so that neither a second attempt nor a repeated run rounds otherwise.

use super::apply::Partials;
use super::{WorkFault, local};
use crate::job::{BLOCK, JobSpec, Map, MapOf, Uplink, compression};
use littoral_fed::compress::alternating::Basis;
use littoral_fed::compress::{Seed, in_steps, random, residual, values};
use littoral_fed::open::open_section;
use littoral_fed::plan::Plan;
use littoral_fed::seal::{Packed, Raw, SealError, Sent};
use littoral_wire::message::{Collection, Work};

/// A compressed update.
pub struct Compressed {
    pub packed: Packed,
    pub saturated: u64,
    /// What the device keeps if it is included.
    pub residual: Option<Vec<i32>>,
}

/// The map of the version that carries this basis, if the job has maps.
pub fn map_of<'a>(spec: &'a JobSpec, basis: Option<&'a Basis>) -> Result<Option<MapOf<'a>>, WorkFault> {
    let Some(map) = spec.map() else { return Ok(None) };
    map.of(basis).map(Some).ok_or_else(|| local::declined("a version with a basis expected, got one without"))
}

/// `basis`: the version's; `kept`: the device's residual, empty before the first one; `None` if the job has none; `times`:
/// how much the update counts by its age, in 256ths.
#[allow(clippy::too_many_arguments)] // What one update's road takes.
pub fn compress(
    spec: &JobSpec,
    uplink: &Uplink,
    basis: Option<&Basis>,
    collection: Collection,
    name: &str,
    mut raw: Raw,
    times: u16,
    kept: Option<&[i32]>,
) -> Result<Compressed, WorkFault> {
    let plan = spec.plan(Work::Train);
    let (len, own) = (spec.version().params, device_seed(spec, collection, name));
    let step = uplink.residual_step(plan);
    if let Uplink::Coded(_) = uplink {
        // The place of its length.
        raw.wholes.push(0);
    }
    let (update, owed) = match kept {
        Some(kept) => {
            let (update, owed) = raw.with_residual_steps(kept, step).map_err(local::declined)?;
            (update.unclipped().weigh(times), Some(owed))
        }
        None => (raw.unclipped().weigh(times), None),
    };
    let (packed, saturated, sent) = match uplink {
        Uplink::Linear { map, .. } => {
            let shared = shared_seed(spec, collection);
            let map = map.of(basis).ok_or_else(|| local::declined("a version without its basis"))?;
            let linear = map.linear();
            let transformed = update.transform(linear, &shared);
            let rounded = transformed.and_then(|update| update.round_by_chance(plan, &own)).map_err(local::declined)?;
            let back = || -> Result<Vec<i32>, SealError> {
                let sent = values(rounded.sent(0)?.into_iter().map(i64::from), plan.step(0));
                let told = in_steps(&linear.backward(&sent, len, &shared), step);
                Ok(told.into_iter().map(|v| v.clamp(i32::MIN.into(), i32::MAX.into()) as i32).collect())
            };
            let sent = owed.is_some().then(back).transpose().map_err(local::declined)?;
            let saturated = rounded.saturated()[0];
            (rounded.pack(), saturated, sent)
        }
        Uplink::Coded(codec) => {
            let coded = update.code(plan, &**codec, &own).and_then(|coded| coded.telling_its_length());
            let coded = coded.map_err(local::declined)?;
            let (got, most) = (coded.len(), compression::coded_bytes_max(plan));
            if got > most {
                let name = codec.name();
                return Err(local::declined(format!(
                    "compression.uplink: {name} made an update of {got} bytes, at most {most} expected, two fifths of one that is not \
                     compressed: choose fewer bits or coordinates"
                )));
            }
            let sent = owed.is_some().then(|| coded.rounded().sent(0)).transpose().map_err(local::declined)?;
            let saturated = coded.rounded().saturated()[0];
            (coded.pack(), saturated, sent)
        }
    };
    let left = owed.zip(sent).map(|(owed, sent)| residual::left(owed, &sent));
    Ok(Compressed { packed, saturated, residual: left.transpose().map_err(local::declined)? })
}

/// The sums of a linear map's images, mapped back to the model's coordinates: all of them in memory, 4 bytes each.
pub struct MappedBack {
    sum: Vec<f32>,
    /// What the next version carries behind its standardisation.
    pub next_basis: Vec<u8>,
}

impl MappedBack {
    /// `basis`: the version's. `add_noise` gets the sums as they came, in order, each once.
    pub fn read(
        spec: &JobSpec,
        basis: Option<&Basis>,
        collection: Collection,
        plan: &Plan,
        sums: &Partials<'_>,
        mut add_noise: impl FnMut(&mut [i64]),
    ) -> Result<Option<Self>, WorkFault> {
        let Some(map) = map_of(spec, basis)? else { return Ok(None) };
        let len = plan.sections().first().map_or(0, |section| section.len);
        let mut sent = Vec::with_capacity(len);
        let (mut packed, mut words) = (Vec::new(), Vec::new());
        for first in (0..len).step_by(BLOCK) {
            let block = first..len.min(first + BLOCK);
            words.resize(block.len(), 0);
            sums.read(plan.section_bytes(0, block.clone()), &mut packed)?;
            open_section(plan, 0, block, &packed, &mut words).map_err(local::declined)?;
            add_noise(&mut words);
            // A map of sums in steps is sums in steps.
            sent.extend(words.iter().map(|&word| word as f32));
        }
        let seed = shared_seed(spec, collection);
        let mut next_basis = Vec::new();
        if let (Some(Map::Alternating(shape)), Some(basis)) = (spec.map(), basis) {
            let next = shape.basis_next(basis, &sent, &seed).map_err(local::declined)?;
            shape.put_basis(&next, &mut next_basis);
        }
        Ok(Some(Self { sum: map.linear().backward(&sent, spec.version().params, &seed), next_basis }))
    }

    /// Of these coordinates, in the plan's steps.
    pub fn copy_to(&self, first: usize, sum: &mut [f64]) {
        sum.iter_mut().zip(&self.sum[first..]).for_each(|(sum, &back)| *sum = back.into());
    }
}

/// What version 0 carries behind its standardisation, appended.
pub fn put_first_basis(spec: &JobSpec, out: &mut Vec<u8>) {
    if let Some(Map::Alternating(shape)) = spec.map() {
        shape.put_basis(&shape.basis_at_first(&seed_of(spec, 0)), out);
    }
}

/// Of a version: whatever happens between two attempts, the map is one.
pub fn shared_seed(spec: &JobSpec, collection: Collection) -> Seed {
    seed_of(spec, collection.version)
}

fn seed_of(spec: &JobSpec, version: u64) -> Seed {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"littoral/compression\0");
    hasher.update(&spec.seed().to_le_bytes());
    hasher.update(&version.to_le_bytes());
    *hasher.finalize().as_bytes()
}

fn device_seed(spec: &JobSpec, collection: Collection, name: &str) -> Seed {
    random::derive(&shared_seed(spec, collection), &format!("device {name}"), 0)
}
