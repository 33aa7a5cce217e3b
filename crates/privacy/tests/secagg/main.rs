//! Secure aggregation through its public face: real keys and signatures, every message through its bytes.

mod decoding;
mod dropouts;
mod moves;
mod secrets;
mod uniform;
mod world;
