//! One model's layers on several machines, over real sockets.
//!
//! What is decided and computed is in [`littoral_infer::split`]; here are the processes: [`stage`] is a machine that lends its
//! layers, [`chain`] the head of such machines. Connections are those of [`crate::transport`], encrypted and mutually
//! authenticated; what comes over them is bounded and decoded totally.
//!
//! Sockets are served by threads that never compute, and beats ([`beats`]) by a thread of their own with connections of their
//! own: a machine at full load, or a long frame on its way, is not taken for a dead one.

pub mod beats;
pub mod chain;
mod greet;
mod link;
pub mod stage;
