//! Inference: sessions, sampling, draft and verify, routing, split planning.
//!
//! This crate is the third of row 2. It may use `tensor`, `model` and `wire`, and knows neither federation nor sockets.
//! [`sample`] turns logits into tokens; [`constrain`] says which tokens keep the text in a demanded form.
#![forbid(unsafe_code)]

pub mod constrain;
pub mod sample;
