//! Numbers: flat parameters with named segments, matrix products, fixed-point words.
//!
//! A model's parameters are one flat slice. [`Layout`] gives names and shapes to ranges of it; everything that
//! trains, compresses, masks or sums works on the plain slice. [`gemm`](gemm()) multiplies matrices that are slices too.
//! [`fixed`] turns floats into the integers that a federation adds, and packs them at exactly the agreed width.
//!
//! [`gguf`] reads and writes files of language models, as bytes.
//!
//! This crate knows no networks, no paths and no federation. It is the only one with `unsafe`: each use stands in
//! a module that says why, and calls code chosen for the processor it runs on, the C library's allocator, or
//! the system's memory.

#![deny(unsafe_code)]

#[cfg(target_os = "linux")]
mod affinity;
mod allocator;
pub mod attention;
pub mod bytes;
mod elementary;
pub mod fixed;
mod gemm;
pub mod gguf;
mod mapped;
mod params;
pub mod pool;
mod processor;
pub mod quant;
mod real;
mod tile;
pub mod vectors;
pub mod weights;

pub use allocator::share_one_heap;
pub use elementary::{exp, ln, sigmoid, tanh};
pub use gemm::{Matrix, gemm, rows_apart};
pub use mapped::Mapped;
pub use params::{Layout, Params, ParamsError, Segment};
pub use real::Real;
