//! Quantised weights: what they mean, how they lie in memory, and products with activations.
//!
//! A [`Matrix`] holds weights as dense as their file; [`Panels`] hold the activations of some tokens; [`multiply`] gives
//! their products. Integer products are exact and floats are summed in one fixed order per row, so a token's result has
//! the same bits whoever is computed beside it, on however many threads, with whichever instructions ([`Instructions`]).
//!
//! [`dequantise`] says what stored blocks mean; tests compare everything with it.

// Vectors are read from and written to memory by address, and live in functions that only some processors can run. Each
// use says why it may.
#![allow(unsafe_code)]
#![allow(unsafe_op_in_unsafe_fn)]

mod activations;
mod dequantise;
mod formats;
pub mod half;
mod kernel;
mod kind;
pub(crate) mod lanes;
mod matrix;
mod memory;
mod panels;
mod shared;
#[cfg(test)]
mod tests;

pub use dequantise::dequantise;
pub use kernel::{Instructions, KERNELS};
pub use kind::Kind;
pub use matrix::{Matrix, MatrixError, multiply};
pub use memory::{Arena, Memory};
pub use panels::Panels;
pub use shared::Shared;
