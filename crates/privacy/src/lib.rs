//! Secrets: what is done to an update so that it tells little about anyone.
//!
//! Mechanisms over slices: this crate knows no model, opens no socket, reads no clock and draws no random number that
//! it was not handed. It depends on none of our crates, so that an auditor can read it alone.
//!
//! Today it holds clipping ([`clip`]), the step that gives every later mechanism its sensitivity bound. Noise,
//! accountants and secure aggregation arrive here, beside it.
#![forbid(unsafe_code)]

pub mod clip;
