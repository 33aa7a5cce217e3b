//! One model over several machines: what stands between `littoral_infer::split`, which decides, and the world.

mod fleet_file;

pub use fleet_file::{FLEET_SAMPLE_TOML, FleetFile};
