//! The command as people and programs meet it: the real binary, real processes, real sockets on loopback.

mod drift;
mod ends;
mod enrolment;
mod field;
mod full_disk;
mod inspect;
mod kinds;
mod operators;
mod plan;
mod privacy;
mod replay;
mod serve_beside;
#[path = "../../../node/tests/shared_store/mod.rs"]
mod shared_store;
mod sim_dir;
mod sweep;
#[path = "../serve/tiny.rs"]
mod tiny;
mod usage;
mod words;
mod world;
