//! Inference: sessions, sampling, draft and verify, routing, split planning.
//!
//! This crate is the third of row 2 and holds nothing yet: language models come with a release of their own. Its place
//! in the rows is fixed, so that what is built now does not stand in its way: `infer` may use `tensor`, `model` and
//! `wire`, and knows neither federation nor sockets.
#![forbid(unsafe_code)]
