//! Steps on bytes: masks, and the seal.

use super::SealError;
use crate::masks;
use littoral_privacy::secagg::mask::Masks;
use littoral_wire::{Collection, Manifest};
use std::sync::OnceLock;

/// An update as bytes, to be masked or not.
#[derive(Clone, Debug)]
pub struct Packed {
    pub(super) bytes: Vec<u8>,
}

/// An update as bytes that say nothing by themselves: masked words.
#[derive(Clone, Debug)]
pub struct Masked {
    bytes: Vec<u8>,
}

/// An update that may leave: bytes for one collection. It cannot be made otherwise, changed, or taken apart.
#[derive(Clone, Debug)]
pub struct Sealed {
    collection: Collection,
    bytes: Vec<u8>,
    manifest: OnceLock<Manifest>,
}

impl Packed {
    /// For a sum that is not masked.
    pub fn seal(self, collection: Collection) -> Sealed {
        Sealed { collection, bytes: self.bytes, manifest: OnceLock::new() }
    }

    /// The words as they are, for the device's own disk while it waits for the keys of its masks.
    pub fn plain(&self) -> &[u8] {
        &self.bytes
    }

    /// Words that waited on the device's own disk.
    pub fn restored(plain: Vec<u8>) -> Self {
        Self { bytes: plain }
    }

    /// Lays masks on: one of the device's own, one per neighbour.
    pub fn mask(mut self, masks: &Masks) -> Result<Masked, SealError> {
        masks::lay_on(masks, 0, &mut self.bytes)?;
        Ok(Masked { bytes: self.bytes })
    }
}

impl Masked {
    pub fn seal(self, collection: Collection) -> Sealed {
        Sealed { collection, bytes: self.bytes, manifest: OnceLock::new() }
    }
}

impl Sealed {
    pub fn collection(&self) -> Collection {
        self.collection
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes as an object to be pulled. Hashed when first asked for: a simulated fleet may never ask.
    pub fn manifest(&self) -> &Manifest {
        self.manifest.get_or_init(|| {
            // A plan has no more bytes than an object may have.
            Manifest::of(&self.bytes).expect("a plan's update fits one object")
        })
    }
}
