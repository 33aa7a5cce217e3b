//! Whole fleets on this machine: real processes, real sockets, the shipped data.

mod chat;
mod deployed;
mod kills;
mod masked;
mod memory;
mod run;
#[path = "../serve/tiny.rs"]
mod tiny;
mod trial;
