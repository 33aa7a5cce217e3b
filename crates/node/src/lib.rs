//! Node: the roles of machines, and the host that lets them act in the real world.

pub mod data;
pub mod host;
pub mod job;
pub mod role;
pub mod store;
pub mod transport;
pub mod work;
