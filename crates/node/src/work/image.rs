//! The model as devices have it, where it goes down the link in fewer bytes: an image, told by a chain of objects.
//!
//! ```text
//! whole     tail, then every weight in 16 bits
//! change    id of the object before it, tail, then the change (`littoral_fed::compress::downlink`)
//! ```
//!
//! The tail is what lies behind the weights of a model object otherwise. Each change names the object that it changes, so an
//! object's id stands for the whole chain, and every road to a version ends at the same bits: images are integers. The cloud
//! keeps the exact weights in its state object and goes on from them; devices train from the image, are evaluated with it, and
//! the model that is taken out is it.

use super::version::{VersionError, put_reals};
use super::{Objects, WorkFault, local};
use crate::job::{JobSpec, VersionLayout};
use littoral_fed::compress::CompressError;
use littoral_fed::compress::downlink::{self, Image};
use littoral_wire::ObjectId;
use littoral_wire::object::{CHAIN_CHUNKS_MAX, CHAIN_MAX, Chain, Manifest};

const ID_BYTES: usize = 32;

/// Where the tail stands in the newest object.
pub fn tail_at(before: &Chain) -> usize {
    if before.is_empty() { 0 } else { ID_BYTES }
}

/// An image and the newest tail.
pub struct Told {
    image: Image,
    pub tail: Vec<u8>,
}

impl Told {
    /// The weights.
    pub fn values(&self) -> Vec<f32> {
        self.image.values()
    }

    /// From the objects of a chain, each read by `read`, the whole one first.
    fn from_objects(
        layout: &VersionLayout,
        objects: &[&Manifest],
        mut read: impl FnMut(usize) -> Result<Vec<u8>, VersionError>,
    ) -> Result<Self, VersionError> {
        let mut told: Option<Self> = None;
        let mut before: Option<ObjectId> = None;
        for (at, object) in objects.iter().enumerate() {
            let most = layout.whole_bytes() + ID_BYTES;
            let fits = match before {
                None => object.bytes() == layout.whole_bytes() as u64,
                Some(_) => (layout.tail_bytes() + ID_BYTES..=most).contains(&(object.bytes() as usize)),
            };
            if !fits {
                let (object, got) = ((*object).clone(), object.bytes());
                return Err(VersionError::Length { object, expected: layout.whole_bytes(), got });
            }
            let bytes = read(at)?;
            match (&mut told, before) {
                (Some(told), Some(before)) => {
                    let (named, rest) = bytes.split_at(ID_BYTES);
                    if named != before.0 {
                        return Err(VersionError::Chain { object: object.id(), expected: before });
                    }
                    let (tail, change) = rest.split_at(layout.tail_bytes());
                    told.image.apply(change)?;
                    told.tail = tail.to_vec();
                }
                _ => {
                    let (tail, halves) = bytes.split_at(layout.tail_bytes());
                    told = Some(Self { image: Image::of_whole(halves, layout.params)?, tail: tail.to_vec() });
                }
            }
            before = Some(object.id());
        }
        // There is a newest object always.
        told.ok_or_else(|| CompressError::Shape { what: "objects of a model", expected: 1, got: 0 }.into())
    }

    pub fn read(
        layout: &VersionLayout,
        objects: &dyn Objects,
        model: &Manifest,
        before: &Chain,
    ) -> Result<Self, VersionError> {
        let all: Vec<&Manifest> = before.iter().chain([model]).collect();
        Self::from_objects(layout, &all, |at| {
            let mut bytes = vec![0; all[at].bytes() as usize];
            objects.read(all[at].id(), 0, &mut bytes)?;
            Ok(bytes)
        })
    }
}

/// The objects of a version's chain, the whole one first, as one model object of a job that has no chains: weights in 32 bits,
/// then the tail.
pub fn expand(spec: &JobSpec, parts: &[Vec<u8>]) -> Result<Vec<u8>, VersionError> {
    let manifests: Result<Vec<Manifest>, _> = parts.iter().map(|part| Manifest::of(part)).collect();
    let manifests = manifests.map_err(|_| CompressError::Shape { what: "objects of a model", expected: 1, got: 0 })?;
    let all: Vec<&Manifest> = manifests.iter().collect();
    let told = Told::from_objects(spec.version(), &all, |at| Ok(parts[at].clone()))?;
    let mut bytes = Vec::with_capacity(spec.version().model_bytes());
    put_reals(&told.values(), &mut bytes);
    bytes.extend_from_slice(&told.tail);
    Ok(bytes)
}

/// Tells the model `w`: by a change of the version that `from` is, or whole. Returns its object and what that builds on.
pub fn tell(
    spec: &JobSpec,
    objects: &dyn Objects,
    from: Option<(&Manifest, &Chain)>,
    w: &[f32],
    tail: &[u8],
) -> Result<(Manifest, Chain), WorkFault> {
    let mut object = objects.create()?;
    if let (Some(codes), Some((model, before))) = (spec.downlink().and_then(|down| down.codes()), from)
        && let Some(chain) = longer(model, before)
    {
        let mut told = Told::read(spec.version(), objects, model, before)?;
        let change = downlink::delta(&mut told.image, w, codes).map_err(local::declined)?;
        // Seldom: noise of a great size may not be worth coding.
        if ID_BYTES + tail.len() + change.len() < spec.version().whole_bytes() {
            object.append(&model.id().0)?;
            object.append(tail)?;
            object.append(&change)?;
            return Ok((object.finish()?, chain));
        }
    }
    let (halves, _) = downlink::whole(w).map_err(local::declined)?;
    object.append(tail)?;
    object.append(&halves)?;
    Ok((object.finish()?, Chain::default()))
}

/// The chain of which `model` is one more part; `None` if it is time for a whole one.
fn longer(model: &Manifest, before: &Chain) -> Option<Chain> {
    let all: Vec<Manifest> = before.iter().chain([model]).cloned().collect();
    let mut sizes = all.iter().map(|object| object.bytes() as usize);
    let mut chain = downlink::Chain::new(0, sizes.next()?);
    sizes.for_each(|bytes| chain.push(bytes));
    let chunks: usize = all.iter().map(|object| object.chunks() as usize).sum();
    let room = all.len() <= CHAIN_MAX && chunks <= CHAIN_CHUNKS_MAX;
    if chain.key_is_due() || !room { None } else { Chain::new(all).ok() }
}
