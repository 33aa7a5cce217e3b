//! A model version in its object: read whole where one trains, block by block where one applies a sum.
//!
//! The order of bytes is [`VersionLayout`]'s. All numbers are little-endian: weights f32, state f32 or i32 by its
//! [`Initial`].

use super::{ObjectFault, Objects};
use crate::job::{JobSpec, VersionLayout};
use littoral_fed::algorithm::{Initial, State, StateVector};
use littoral_model::{ExamplesError, Standardise};
use littoral_wire::object::Manifest;
use std::sync::Arc;
use thiserror::Error;

/// All that a device starts from.
pub struct Version {
    pub w: Vec<f32>,
    /// What devices get beside the weights, in the algorithm's order.
    pub broadcast: Vec<State>,
    /// What every row goes through before the model sees it.
    pub standardise: Option<Arc<Standardise>>,
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
}

impl Version {
    pub fn read(spec: &JobSpec, objects: &dyn Objects, model: &Manifest) -> Result<Self, VersionError> {
        let layout = spec.version();
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
        let (standardise, clip) = (standardise(layout, objects, model)?, clip(layout, objects, model)?);
        Ok(Self { w, broadcast, standardise, clip })
    }
}

/// Does this object have a version's length?
pub fn check(layout: &VersionLayout, model: &Manifest) -> Result<(), VersionError> {
    let expected = layout.model_bytes();
    match model.bytes() == expected as u64 {
        true => Ok(()),
        false => Err(VersionError::Length { object: model.clone(), expected, got: model.bytes() }),
    }
}

fn standardise(
    layout: &VersionLayout,
    objects: &dyn Objects,
    model: &Manifest,
) -> Result<Option<Arc<Standardise>>, VersionError> {
    if layout.inputs == 0 {
        return Ok(None);
    }
    let mut bytes = vec![0; 8 * layout.inputs];
    objects.read(model.id(), layout.standardisation_at() as u64, &mut bytes)?;
    let (mean, inv_std) = bytes.split_at(4 * layout.inputs);
    Ok(Some(Arc::new(Standardise::new(reals(mean).collect(), reals(inv_std).collect())?)))
}

/// The norm to which devices clip in this version, if it has its own.
pub fn clip(layout: &VersionLayout, objects: &dyn Objects, model: &Manifest) -> Result<Option<f32>, ObjectFault> {
    if !layout.clip {
        return Ok(None);
    }
    let mut bytes = [0; 4];
    objects.read(model.id(), layout.clip_at() as u64, &mut bytes)?;
    Ok(Some(f32::from_le_bytes(bytes)))
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
