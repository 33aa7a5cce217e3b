//! `littoral sim --dir DIR`: a simulation that may be killed, and that others may help with.
//!
//! A device's work is a pure function of its input ([`littoral_sim::assignment`]), so what came of it is kept under a digest of the
//! input. That one thing serves both: a simulation that is run again goes through the same events and reads what it had
//! computed; and whoever else computes a work hands in the same bytes.
//!
//! ```text
//! DIR/simulation.json   which simulation this is: the folder is of no use to another
//! DIR/results           what came of devices' works (`results`)
//! DIR/littoral.sqlite   the board: works on offer and answers, under leases (`board`); or PostgreSQL, with --shared
//! DIR/parcels/          what offers and answers say, while they are on the board; or a bucket
//! DIR/lock              the process that runs the simulation
//! ```
//!
//! Nothing hangs on a lease but that nobody computes what another is computing: a result is the same whoever computed it.

mod board;
mod join;
mod lending;
mod results;
mod simulation;

pub use join::run as join;
pub use simulation::{Data, Lies, Simulation, build};

use crate::output::Failure;
use board::Board;
use lending::Lending;
use littoral_node::config::{CloudConfig, Config};
use littoral_node::store::DirectoryLock;
use littoral_sim::fleet::Fleet;
use littoral_sim::workers::Kept;
use results::ResultsFile;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// The folder of a simulation that runs here.
pub struct SimDir {
    simulation: Simulation,
    results: Arc<ResultsFile>,
    lending: Lending,
    helpers: u32,
}

impl SimDir {
    /// Makes the folder, or goes on in it. `shared`: a file with the database and the bucket in which helpers are met, instead
    /// of the folder.
    ///
    /// # Errors
    /// The folder is another simulation's, or in use.
    pub fn open(dir: &Path, simulation: Simulation, shared: Option<&Path>, helpers: u32) -> Result<Self, Failure> {
        let lock = DirectoryLock::take(dir)?;
        simulation.claim(dir)?;
        let results = Arc::new(ResultsFile::open(&dir.join("results"), simulation.run_id())?);
        let board = match shared {
            None => Board::of_folder(dir, Some(lock))?,
            Some(file) => Board::shared(&shared_config(file)?, dir, Some(lock))?,
        };
        let lending = Lending::start(board, &simulation, Arc::clone(&results))?;
        Ok(Self { simulation, results, lending, helpers })
    }

    /// This fleet's works are looked for here, kept here, and lent. Returns when as many helpers are here as were asked for.
    pub fn take_part(&self, fleet: &mut Fleet) {
        fleet.keep(Kept { run: self.simulation.run_id(), results: self.results.clone() });
        self.lending.lend(fleet.lender());
        self.lending.wait_for(self.helpers);
    }

    /// The simulation is over: helpers go.
    pub fn close(self) {
        self.lending.end();
    }
}

/// For the report; it differs from run to run.
pub fn tally(tally: littoral_sim::workers::Tally) -> Value {
    json!({"computed": tally.computed, "found": tally.found, "by_helpers": tally.by_others})
}

/// Where processes on several machines meet: the `[shared]` of a cloud's configuration.
fn shared_config(file: &Path) -> Result<CloudConfig, Failure> {
    let (config, _) = CloudConfig::load(Some(file), None)?;
    match config.shared.database.is_empty() {
        false => Ok(config),
        true => Err(Failure::new(
            "nothing is shared",
            file.display().to_string(),
            "[shared] with a database and a bucket",
            "none",
        )),
    }
}
