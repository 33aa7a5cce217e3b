//! One model over several machines: what a machine keeps on its disk for it.
//!
//! | file | what |
//! |---|---|
//! | `tiles` | a folder of layers as files, named by their content: made, fetched, checked, mapped in |
//! | `shelf` | which tile goes when room is wanted |
//! | `arrival` | a tile on its way from another machine |
//! | `packed` | which tiles a model's file becomes, so that it is hashed and packed once only |
//!
//! What a tile is stands in [`littoral_model::lm::Tile`]; who fetches which from whom is not here.

mod arrival;
mod packed;
mod shelf;
mod tiles;

pub use arrival::Arrival;
pub use tiles::{Tiles, TilesError};
