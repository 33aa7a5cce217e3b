//! Secure aggregation through its public face: real keys and signatures, every message through its bytes.

mod dropouts;
mod uniform;
mod world;
