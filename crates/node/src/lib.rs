//! Node: the roles of machines, and the host that lets them act in the real world.

pub mod data;
pub mod job;
pub mod role;
pub mod transport;
pub mod work;
