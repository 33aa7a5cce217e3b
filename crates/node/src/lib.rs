//! Node: the roles of machines, and the host that lets them act in the real world.
//!
//! Read in this order: [`job`] (what is to be trained), [`role`] (what machines decide), [`work`] (what they compute),
//! [`data`] (a device's own rows), [`transport`] (how frames travel), [`store`] (what survives a crash), [`host`] (the
//! loop that performs what roles decide), [`config`] and [`deploy`] (from a file to a running machine), [`operator`]
//! (commands to a cloud). Beside them stand [`models`]: where language models come from, and [`serve`]: language models for
//! programs that speak HTTP; [`split`]: one model over several machines.
pub mod config;
pub mod data;
pub mod deploy;
pub mod host;
pub mod job;
pub mod models;
pub mod operator;
pub mod peer;
pub mod role;
pub mod serve;
pub mod speculate;
pub mod split;
pub mod store;
mod toml_text;
pub mod transport;
pub mod work;
