//! `littoral serve` as its clients meet it: a real process, real sockets on loopback, and a tiny made-up model.
//!
//! With LITTORAL_MODELS set to a folder that has it, a real model answers too.

mod above;
mod ask;
mod client;
mod costs;
mod crowd;
mod echo;
mod embeddings;
mod ends;
mod far;
mod fetch;
mod front;
mod hosts;
mod keys;
mod planned;
mod python;
mod refused;
mod server;
mod stages;
mod structured;
mod tap;
mod tiers;
mod tiny;
mod tls;
mod tools;
mod upstream;
