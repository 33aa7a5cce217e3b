//! Recurrent cells through time: GRU (Cho et al. 2014, in the form of cuDNN and PyTorch) and LSTM (Hochreiter and
//! Schmidhuber 1997, with forget gate).
//!
//! Rows are ordered by time: all sequences' first step, then all second steps. So the products with the inputs, and
//! those for the derivatives of all weights, are one matrix product over the whole of time; only `h W` goes step by step.
//! A sequence begins with a state of zero.

mod gru;
mod lstm;

pub(crate) use gru::Gru;
pub(crate) use lstm::Lstm;
