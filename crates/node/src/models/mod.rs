//! Models by name: where they come from, and where they are kept.
//!
//! A model is known by the SHA-256 of its file. Whatever a source sends is believed only when it has that hash, so an
//! index, a hub, a mirror and a proxy need not be trusted with more than being there.
//!
//! | file | what |
//! |---|---|
//! | `reference` | what a person asks for: a name, a hub's file, a URL |
//! | `catalogue` | the models that are known by name, and their sources |
//! | `store` | what is on this disk: files by hash, names |
//! | `claim` | one process at a time fetches one file; what it has so far survives it |
//! | `web` | requests: proxies, redirects, who is shown a password |
//! | `download` | a file, from where it was cut |
//! | `hub` | a model hub: which hash it declares |
//! | `index`, `wheel` | a Python package index, and the wheels that carry a model |
//! | `pull` | the sources in turn, until the file is whole |
//!
//! The HTTP client reads proxies (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`) and certificates
//! (`SSL_CERT_FILE`, `SSL_CERT_DIR`) from the environment itself, as such libraries do; all else comes as [`Settings`].

mod catalogue;
mod claim;
mod digest;
mod download;
mod fault;
mod hub;
mod index;
mod pip;
mod pull;
mod reference;
mod store;
mod web;
mod wheel;

pub use catalogue::{Catalogue, DEFAULT, Entry, Piece, Source};
pub use digest::Digest;
pub use fault::{Fault, FaultKind};
pub use hub::Hub;
pub use index::Index;
pub use pip::{PipConfig, pip_config};
pub use pull::{Pulled, Report, Settings, Wanted, pull, wanted_of_hub};
pub use reference::{HubFile, Reference};
pub(crate) use store::write_whole;
pub use store::{Record, Removed, State, Store};
pub use web::Web;
pub(crate) use web::tls;
