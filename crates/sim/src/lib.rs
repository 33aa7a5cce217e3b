//! Sim: fleets of thousands of machines under virtual time, network and disk, from one seed.
//!
//! The roles are those of [`littoral_node`], unchanged: this crate is their second host. It serves a researcher, who
//! wants to see an algorithm on a thousand devices in a minute, and whoever changes a role, who wants to know what
//! happens when machines die at the worst moment.
//!
//! Four nouns: a [`world`] runs machines, a [`fleet`] is a cloud, edges and devices in a world with a job, the [`field`]
//! is when devices are there and how fast, and [`checkers`] watch what must always hold. Beside them stands [`serving`]: language
//! models over machines that die. There is no socket, no file, no wall clock and no thread whose timing
//! could show.
#![forbid(unsafe_code)]

pub mod assignment;
pub mod attack;
pub mod checkers;
pub mod disk;
pub mod drill;
pub mod faults;
pub mod field;
pub mod fleet;
pub mod helper;
pub mod network;
pub mod queue;
pub mod report;
pub mod serving;
pub mod stream;
pub mod svg;
pub mod synthetic;
pub mod workers;
pub mod world;
