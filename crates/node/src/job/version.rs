//! How a model version lies in its object, and the algorithm's state in its own.
//!
//! Vectors of one 4-byte element per parameter are cut into blocks of [`BLOCK`] elements and interleaved block by block,
//! so that a version can be read and written from front to back in bounded memory:
//!
//! ```text
//! model object   for each block:  w, then each vector that devices get with it (SCAFFOLD's C)
//!                then             mean (f32 per input), 1 / standard deviation (f32 per input)
//!                then             the basis onto which updates are projected, if they are (`littoral_fed::compress::alternating`)
//!                then             the norm to which devices clip (f32), if it changes from version to version
//! state object   for each block:  each vector that only the cloud needs (m, v), then what noise that is correlated over
//!                                 versions remembers: last sums (i64), last results (f64), each the newest first
//! ```
//!
//! Where the model goes down the link as an image (`crate::work`'s `image`), devices get other objects, and w is the first
//! vector of the state object.

use std::ops::Range;

/// Elements per block.
pub const BLOCK: usize = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionLayout {
    pub params: usize,
    /// Vectors beside the weights in the model object.
    pub broadcast: usize,
    /// Vectors of the algorithm in the state object.
    pub kept: usize,
    /// Inputs that are standardised; 0: none.
    pub inputs: usize,
    /// Whether devices have an image of the weights, and the weights lie with the state. Then nothing is broadcast.
    pub image: bool,
    /// Bytes of a basis; 0: updates are not projected.
    pub basis_bytes: usize,
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
        self.basis_at().end
    }

    /// What lies behind the weights and the vectors beside them.
    pub fn tail_bytes(&self) -> usize {
        self.model_bytes() - self.standardisation_at()
    }

    /// Of an image that is told whole.
    pub fn whole_bytes(&self) -> usize {
        self.tail_bytes() + 2 * self.params
    }

    /// Vectors of four bytes per parameter in the state object: w, if it lies there, those of the algorithm, what noise remembers.
    pub fn state_vectors(&self) -> usize {
        usize::from(self.image) + self.kept + 4 * self.memory
    }

    pub fn state_bytes(&self) -> usize {
        4 * self.params * self.state_vectors()
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

    pub fn standardisation(&self) -> Range<usize> {
        self.standardisation_at()..self.standardisation_at() + 8 * self.inputs
    }

    /// Where the basis stands in the model object.
    pub fn basis_at(&self) -> Range<usize> {
        let start = self.standardisation().end;
        start..start + self.basis_bytes
    }
}
