//! One model's layers on several machines: the processes and their disks.
//!
//! What is decided and computed is in [`littoral_infer::split`]. Here:
//!
//! | file | what |
//! |---|---|
//! | `stage` | a machine that lends its layers |
//! | `chain` | the head of such machines |
//! | `standby` | layers that a machine may be given, packed beforehand |
//! | `survey`, `rates`, `disk` | how fast machines, the links to them and their disks are, measured |
//! | `fetch` | layers that a machine without the file asks for, and keeps |
//! | `supply` | who has tiles answers who asks |
//! | `supplies` | the machines without the file that a head answers |
//! | `beats` | who lives: a thread that asks every machine |
//! | `fleet_file` | devices and links as a file says them, for the planner |
//! | `tiles` | a folder of layers as files, named by their content: made, fetched, checked, mapped in |
//! | `shelf` | which tile goes when room is wanted |
//! | `arrival` | a tile on its way from another machine |
//! | `packed` | which tiles a model's file becomes, so that it is hashed and packed once only |
//!
//! Connections are those of [`crate::transport`], encrypted and mutually authenticated; what comes over them is bounded and
//! decoded totally. Sockets are served by threads that never compute, and beats by a thread of their own with connections of
//! their own: a machine at full load, or a long frame on its way, is not taken for a dead one.

mod arrival;
pub mod beats;
pub mod chain;
mod disk;
mod door;
mod fetch;
mod fleet_file;
mod packed;
mod rates;
mod shelf;
pub mod stage;
mod standby;
mod supplies;
mod supply;
pub mod survey;
mod tiles;

pub use arrival::Arrival;
pub use fleet_file::{FLEET_SAMPLE_TOML, FleetFile};
pub use rates::{Rates, RatesError};
pub use standby::{Standby, StandbyError};
pub use tiles::{Tiles, TilesError};
