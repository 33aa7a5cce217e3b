//! Secrets: what is done to an update so that it tells little about anyone, and what that costs.
//!
//! Mechanisms over slices: this crate knows no model, opens no socket, reads no clock and draws no random number that
//! it was not handed. It depends on none of our crates, so that an auditor can read it alone.
//!
//! In the order in which an update meets them: [`clip`] bounds its norm, which gives every later mechanism its
//! sensitivity; [`rotate`] spreads it; [`round`] makes it whole numbers of bounded norm; [`noise`] is drawn exactly from laws on
//! the whole numbers; [`secagg`] masks it, so that nobody sees more than a sum: both sides of the protocol as state machines.
//! [`examples`] joins sampling, rounding and noise to the step of example-level training.
//! [`account`] says what a row of such releases costs in (ε, δ), and finds the noise for a target.
#![forbid(unsafe_code)]

pub mod account;
pub mod clip;
pub mod examples;
pub mod noise;
pub mod rotate;
pub mod round;
pub mod secagg;
