//! Language models: immutable weights ([`Stage`]) and what a sequence leaves behind ([`State`]).
//!
//! Local, batched, speculative and split inference are uses of these two types. A pass over a stage takes tokens of any
//! number of sequences; what it computes for a token depends on that token's sequence only, bit for bit, however the
//! prompt was cut, whoever was computed beside it, on any number of threads and with any instructions.

mod check;
mod config;
mod layer;
mod load;
mod stage;
mod state;
#[cfg(test)]
mod tests;
mod tile;

pub use littoral_tensor::attention::CacheType;

pub use check::ConfigError;
pub use config::{Architecture, Config, Gate, Rope, Yarn};
pub use load::{LoadError, check, config, load};
pub use stage::{Input, Output, Part, Scratch, Stage, Wanted};
pub use state::{State, StateError};
pub use tile::{Tile, TileError};
