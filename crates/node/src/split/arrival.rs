//! A tile on its way from another machine, chunk by chunk.

use super::tiles::{Tiles, TilesError};
use littoral_wire::ObjectId;
use littoral_wire::object::Manifest;
use std::sync::Arc;

/// A tile that arrives. What has come stays when this goes, for the next who begins with it, also after a crash.
#[derive(Debug)]
pub struct Arrival<'a> {
    pub(super) tiles: &'a Tiles,
    pub(super) manifest: Manifest,
    pub(super) object: ObjectId,
    /// While it lives the tile's room is not taken.
    pub(super) _arriving: Arc<()>,
}

impl Arrival<'_> {
    /// Chunks that are not here, ascending; none: the tile is whole and durable.
    pub fn missing(&self) -> Result<Vec<u32>, TilesError> {
        let missing = self.tiles.objects.begin(&self.manifest)?;
        if missing.is_empty() {
            self.tiles.objects.sync(&[self.object])?;
        }
        Ok(missing)
    }

    /// Checks a chunk and keeps it; after the last one the tile is whole and durable.
    pub fn keep(&self, index: u32, bytes: &[u8]) -> Result<(), TilesError> {
        self.tiles.objects.keep(self.object, index, bytes)?;
        if self.tiles.has(self.object) {
            self.tiles.objects.sync(&[self.object])?;
        }
        Ok(())
    }
}
