//! A model version in its object: read whole where one trains, block by block where one applies a sum.
//!
//! The order of bytes is [`VersionLayout`]'s. All numbers are little-endian: weights f32, state f32 or i32 by its
//! [`Initial`].

use super::image::{self, Told};
use super::{ObjectFault, Objects};
use crate::job::{JobSpec, Map, VersionLayout};
use littoral_fed::algorithm::{Initial, State, StateVector};
use littoral_fed::compress::CompressError;
use littoral_fed::compress::alternating::Basis;
use littoral_model::{ExamplesError, Standardise};
use littoral_wire::ObjectId;
use littoral_wire::object::{Chain, Manifest};
use std::sync::Arc;
use thiserror::Error;

/// What lies behind a version's weights.
pub fn tail_of(
    spec: &JobSpec,
    objects: &dyn Objects,
    (model, before): (&Manifest, &Chain),
) -> Result<Vec<u8>, VersionError> {
    let layout = spec.version();
    check(layout, model)?;
    let start = if layout.image { image::tail_at(before) } else { layout.standardisation_at() };
    if model.bytes() < (start + layout.tail_bytes()) as u64 {
        return Err(VersionError::Length { object: model.clone(), expected: layout.whole_bytes(), got: model.bytes() });
    }
    let mut bytes = vec![0; layout.tail_bytes()];
    objects.read(model.id(), start as u64, &mut bytes)?;
    Ok(bytes)
}

/// All that a device starts from.
pub struct Version {
    pub w: Vec<f32>,
    /// What devices get beside the weights, in the algorithm's order.
    pub broadcast: Vec<State>,
    /// What every row goes through before the model sees it.
    pub standardise: Option<Arc<Standardise>>,
    /// Onto what updates are projected, if they are.
    pub basis: Option<Basis>,
    /// The L2 norm to which devices clip, where it changes from version to version.
    pub clip: Option<f32>,
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum VersionError {
    #[error("a version of this job has {expected} bytes, {object:?} has {got}")]
    Length { object: Manifest, expected: usize, got: u64 },
    #[error(transparent)]
    Object(#[from] ObjectFault),
    #[error(transparent)]
    Standardise(#[from] ExamplesError),
    #[error("object {object} of a model changes another object than {expected}, which comes before it")]
    Chain { object: ObjectId, expected: ObjectId },
    #[error(transparent)]
    Told(#[from] CompressError),
}

impl Version {
    /// `before`: what the model builds on.
    pub fn read(
        spec: &JobSpec,
        objects: &dyn Objects,
        (model, before): (&Manifest, &Chain),
    ) -> Result<Self, VersionError> {
        let layout = spec.version();
        if layout.image {
            let told = Told::read(layout, objects, model, before)?;
            let (standardise, basis) = (standardise(layout, &told.tail)?, basis(spec, &told.tail)?);
            let clip = clip(layout, &told.tail);
            return Ok(Self { w: told.values(), broadcast: Vec::new(), standardise, basis, clip });
        }
        check(layout, model)?;
        let id = model.id();
        let mut w = Vec::with_capacity(layout.params);
        let vectors = spec.algorithm().cloud_state().into_iter().filter(|vector| vector.broadcast);
        let mut broadcast: Vec<State> = vectors.map(|vector| empty(&vector, layout.params)).collect();
        let mut bytes = Vec::new();
        for block in layout.blocks() {
            // A block's vectors lie side by side.
            bytes.resize(4 * block.len() * (1 + layout.broadcast), 0);
            objects.read(id, layout.at(&block, 0, 1 + layout.broadcast).start as u64, &mut bytes)?;
            let mut parts = bytes.chunks_exact(4 * block.len());
            if let Some(part) = parts.next() {
                w.extend(reals(part));
            }
            for (state, part) in broadcast.iter_mut().zip(parts) {
                match state {
                    State::Real(values) => values.extend(reals(part)),
                    State::Whole(values) => values.extend(wholes(part)),
                }
            }
        }
        let tail = tail_of(spec, objects, (model, before))?;
        let (standardise, basis, clip) = (standardise(layout, &tail)?, basis(spec, &tail)?, clip(layout, &tail));
        Ok(Self { w, broadcast, standardise, basis, clip })
    }
}

/// Does this object have a version's length? An image's newest object has its tail at least.
pub fn check(layout: &VersionLayout, model: &Manifest) -> Result<(), VersionError> {
    let (expected, fits) = match layout.image {
        true => (layout.whole_bytes(), model.bytes() >= layout.tail_bytes() as u64),
        false => (layout.model_bytes(), model.bytes() == layout.model_bytes() as u64),
    };
    match fits {
        true => Ok(()),
        false => Err(VersionError::Length { object: model.clone(), expected, got: model.bytes() }),
    }
}

fn standardise(layout: &VersionLayout, tail: &[u8]) -> Result<Option<Arc<Standardise>>, VersionError> {
    if layout.inputs == 0 {
        return Ok(None);
    }
    let (mean, inv_std) = tail[..8 * layout.inputs].split_at(4 * layout.inputs);
    Ok(Some(Arc::new(Standardise::new(reals(mean).collect(), reals(inv_std).collect())?)))
}

/// The basis in a version's tail, if its job projects updates.
pub fn basis(spec: &JobSpec, tail: &[u8]) -> Result<Option<Basis>, VersionError> {
    let Some(Map::Alternating(shape)) = spec.map() else { return Ok(None) };
    let (layout, at) = (spec.version(), spec.version().basis_at());
    Ok(Some(shape.basis(&tail[at.start - layout.standardisation_at()..][..at.len()])?))
}

/// The norm in a version's tail to which devices clip, if it has its own.
pub fn clip(layout: &VersionLayout, tail: &[u8]) -> Option<f32> {
    let four = &tail[layout.clip_at() - layout.standardisation_at()..];
    reals(four).next().filter(|_| layout.clip)
}

fn empty(vector: &StateVector, capacity: usize) -> State {
    match vector.initial {
        Initial::Real(_) => State::Real(Vec::with_capacity(capacity)),
        Initial::Whole(_) => State::Whole(Vec::with_capacity(capacity)),
    }
}

/// The numbers in whole fours of bytes.
pub fn reals(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four))
}

/// The numbers in whole fours of bytes.
pub fn wholes(bytes: &[u8]) -> impl Iterator<Item = i32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|four| i32::from_le_bytes(*four))
}

pub fn put_reals(values: &[f32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

pub fn put_wholes(values: &[i32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}
