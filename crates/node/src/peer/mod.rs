//! Links between machines that run language models together: who is there is known by its key, and speaks our protocol.

pub mod greet;
mod keep;
mod link;

pub use greet::Greeted;
pub use keep::keep;
pub use link::{Link, Place};
