//! Roles from configuration to a running process: state folder, key, enrolment, data, listener, host.
//!
//! ```text
//! DIR/lock              one process per folder
//! DIR/unfinished         only while a new folder is made
//! DIR/key               who this machine is (0600)
//! DIR/enrolment.toml    which cloud let it in, under which name, whom to dial (devices and edges)
//! DIR/address           key@host:port of a cloud or edge that runs here
//! DIR/operator.key      cloud: the first operator's key (0600), made at the first start
//! DIR/littoral.sqlite   rows; DIR/objects, DIR/arriving: models, updates, sums
//! ```
//!
//! Of a cloud of several replicas a folder has `lock`, `key`, `address` and objects in use; its rows are elsewhere.
//!
//! [`start_cloud`], [`start_edge`] and [`start_device`] give a [`Running`] that a caller may stop; the `run_` functions
//! run until a future says stop. Not here: reading the environment, printing, signals; that is the command's business.

mod cloud;
mod conditions;
pub mod data;
mod device;
mod edge;
mod enrol;
mod export;
mod folder;
mod listen;
pub mod replay;
mod replica;
mod running;
mod session;

pub use cloud::{OPERATOR_KEY_FILE, run_cloud, start_cloud};
pub use data::{DeviceData, NoData, offers};
pub use device::{run_device, start_device};
pub use edge::{run_edge, start_edge};
pub use enrol::{ENROLMENT_FILE, Enrolment, Joining, join, rotate};
pub use export::{ExportError, safetensors, whole};
pub use listen::{ADDRESS_FILE, read_address};
pub use running::{Running, log_report};
pub use session::{Session, SessionError};

use crate::host::HostError;
use crate::host::keys::KeyError;
use crate::store::StoreError;
use crate::transport::TransportError;
use std::path::PathBuf;
use thiserror::Error;

/// The machine's own key in its state folder.
pub const KEY_FILE: &str = "key";

/// Why a role does not run, or a machine did not join.
#[derive(Debug, Error)]
pub enum DeployError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The cloud said no.
    #[error("{what}: {place}: {expected} expected, got {got}")]
    Denied { what: String, place: String, expected: String, got: String },
    #[error("{dir}: this machine is not enrolled")]
    NotEnrolled { dir: PathBuf },
    /// A file that the machine cannot be without is gone, and others are here. Nothing was made in its place.
    #[error(
        "{dir}: {missing} expected beside {beside}, got none: it was lost; restore the folder from a copy, or start anew \
         in an empty one"
    )]
    NotWhole { dir: PathBuf, missing: String, beside: &'static str },
    #[error("{path}: {expected} expected, got {got}")]
    File { path: PathBuf, expected: String, got: String },
    /// A field that only shows to be wrong when it is used.
    #[error("{field}: {expected} expected, got {got}")]
    Field { field: &'static str, expected: String, got: String },
}
