//! Secrets: what is done to an update so that it tells little about anyone.
//!
//! Mechanisms over slices: this crate knows no model, opens no socket, reads no clock and draws no random number that
//! it was not handed. It depends on none of our crates, so that an auditor can read it alone.
//!
//! It holds clipping ([`clip`]), the step that gives every later mechanism its sensitivity bound, and secure aggregation
//! ([`secagg`]): both sides of the protocol as state machines. Noise and accountants arrive here, beside them.
#![forbid(unsafe_code)]

pub mod clip;
pub mod secagg;
