//! Whole fleets on this machine: real processes, real sockets, the shipped data.

mod deployed;
mod kills;
mod memory;
mod run;
mod trial;
