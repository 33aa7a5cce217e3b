//! The command as people and programs meet it: the real binary, real processes, real sockets on loopback.

mod enrolment;
mod replay;
mod words;
mod world;
