//! Models that single devices are given instead of a job's version, each an object of its own.

use crate::bounded::{List, OverBound};
use crate::codec::{DecodeError, Reader, Wire, wire_struct};
use crate::identity::NodeId;
use crate::object::Manifest;

/// Devices in one list, at most.
pub const GIVEN_MAX: usize = 1_024;
/// Chunks of their models, all together: 524 MB. Of more, several messages tell.
pub const GIVEN_CHUNKS_MAX: usize = 4_000;

wire_struct! {
    /// This device's model is this object.
    pub struct GivenModel {
        pub device: NodeId,
        pub model: Manifest,
    }
}

/// Which model each of some devices is given; empty: the version, as all others.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Given(List<GivenModel, GIVEN_MAX>);

impl Given {
    pub fn new(models: Vec<GivenModel>) -> Result<Self, OverBound> {
        let chunks = chunks_of(&models);
        match chunks > GIVEN_CHUNKS_MAX {
            true => Err(OverBound { maximum: GIVEN_CHUNKS_MAX, got: chunks }),
            false => List::new(models).map(Self),
        }
    }

    pub fn into_vec(self) -> Vec<GivenModel> {
        self.0.into_vec()
    }
}

fn chunks_of(models: &[GivenModel]) -> usize {
    models.iter().map(|given| given.model.chunks() as usize).sum()
}

impl std::ops::Deref for Given {
    type Target = [GivenModel];
    fn deref(&self) -> &[GivenModel] {
        &self.0
    }
}

impl Wire for Given {
    const BYTES_MIN: usize = 4;
    const BYTES_MAX: usize = 4 + GIVEN_MAX * GivenModel::BYTES_MIN + GIVEN_CHUNKS_MAX * 32;
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = reader.offset();
        let models = List::<GivenModel, GIVEN_MAX>::take(reader)?;
        match chunks_of(&models) > GIVEN_CHUNKS_MAX {
            true => Err(DecodeError::Invalid { what: "given models", offset, why: "at most 4000 chunks expected" }),
            false => Ok(Self(models)),
        }
    }
}
