//! How a model version lies in its object, and the algorithm's state in its own.
//!
//! Vectors of one 4-byte element per parameter are cut into blocks of [`BLOCK`] elements and interleaved block by block,
//! so that a version can be read and written from front to back in bounded memory:
//!
//! ```text
//! model object   for each block:  w, then each vector that devices get with it (SCAFFOLD's C)
//!                then             mean (f32 per input), 1 / standard deviation (f32 per input)
//!                then             the norm to which devices clip (f32), if it changes from version to version
//! state object   for each block:  each vector that only the cloud needs (m, v), then what noise that is correlated over
//!                                 versions remembers: last sums (i64), last results (f64), each the newest first
//! ```

use std::ops::Range;

/// Elements per block.
pub const BLOCK: usize = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionLayout {
    pub params: usize,
    /// Vectors beside the weights in the model object.
    pub broadcast: usize,
    /// Vectors in the state object.
    pub kept: usize,
    /// Inputs that are standardised; 0: none.
    pub inputs: usize,
    /// The norm to which devices clip changes from version to version.
    pub clip: bool,
    /// Versions that noise on sums remembers.
    pub memory: usize,
}

impl VersionLayout {
    /// Parameters of each block.
    pub fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let params = self.params;
        (0..params).step_by(BLOCK).map(move |first| first..(first + BLOCK).min(params))
    }

    pub fn model_bytes(&self) -> usize {
        self.clip_at() + if self.clip { 4 } else { 0 }
    }

    /// Where the clip stands in the model object, if it does; behind all else.
    pub fn clip_at(&self) -> usize {
        self.standardisation_at() + 8 * self.inputs
    }

    pub fn state_bytes(&self) -> usize {
        4 * self.params * self.state_vectors()
    }

    /// Vectors of four bytes per parameter in the state object.
    pub fn state_vectors(&self) -> usize {
        self.kept + 4 * self.memory
    }

    /// Where a block's vector stands in an object of `vectors` vectors. `vector` 0 of the model object is w.
    pub fn at(&self, block: &Range<usize>, vector: usize, vectors: usize) -> Range<usize> {
        let start = 4 * (block.start * vectors + vector * block.len());
        start..start + 4 * block.len()
    }

    /// Where the means stand in the model object; the inverse deviations follow.
    pub fn standardisation_at(&self) -> usize {
        4 * self.params * (1 + self.broadcast)
    }
}
