//! Inference: sessions, sampling, draft and verify, routing, split planning.
//!
//! This crate is the third of row 2. It may use `tensor`, `model` and `wire`, and knows neither federation nor sockets.
//! A [`Model`](model::Model) is weights, tokeniser and chat template; [`engine`] runs many sequences over one pass of the
//! weights, each a [`pass`]; [`sample`] turns logits into tokens; [`constrain`] says which tokens keep the text in a demanded
//! form; [`pooling`] makes one vector of a text's; [`split`] runs a model's layers on several machines; [`speculate`] drafts
//! tokens and says which hold.
#![forbid(unsafe_code)]

pub mod constrain;
pub mod engine;
pub mod model;
pub mod pass;
pub mod pooling;
pub mod route;
pub mod sample;
pub mod speculate;
pub mod split;
