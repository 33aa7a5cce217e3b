//! The planner against all plans there are, on instances small enough to write them all down.

pub(in crate::split) mod instances;
mod many_devices;
mod model;
mod optimum;
mod oracle;
mod sentences;
mod survival;
mod time;
