//! `littoral pull` and `littoral models` as people meet them: the real binary, and a server on loopback that speaks as a
//! hub, a package index and a proxy do, cuts connections and lies.

mod crash;
mod hub;
mod index;
mod names;
mod server;
#[path = "../serve/tiny.rs"]
mod tiny;
mod world;
