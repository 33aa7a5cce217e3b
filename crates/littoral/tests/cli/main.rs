//! The command as people and programs meet it: the real binary, real processes, real sockets on loopback.

mod ends;
mod enrolment;
mod field;
mod full_disk;
mod inspect;
mod kinds;
mod operators;
mod privacy;
mod replay;
mod sweep;
mod usage;
mod words;
mod world;
