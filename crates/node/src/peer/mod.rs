//! Links between machines that run language models together: who is there is known by its key, and speaks our protocol.

pub mod greet;
mod link;

pub use greet::Greeted;
pub use link::Link;
