//! Language models over machines that die: split, drafts and their links in virtual time, from one seed.
//!
//! A [`Scenario`] has a head with stages that share one model's layers, a verifier with all of it, and edges whose small
//! model drafts for the verifier; or, in three tiers, for the head, which drafts for a verifier with a larger model. What they decide is the shipped code of `littoral_infer` (`split::{head, membership, lender}`,
//! `speculate::{drafting, sessions}`), and what links do is [`littoral_node::transport::shaper`]; here are the processes, the
//! sockets and the clock that they meet in the world. Models are of a few kilobytes, made up from a seed; computing them is
//! real, its time is not.
//!
//! | file | what |
//! |---|---|
//! | `scenario` | what is simulated, as a file says it |
//! | `world` | what happens when: requests, faults, beats |
//! | `net` | time, processes, connections |
//! | `chain`, `stage` | the head and its stages as hosts of the shipped code |
//! | `drafts` | edges and the verifier |
//! | `above`, `below` | what any of them does for the machine above that verifies, and for machines below that draft |
//! | `checks` | what must hold, judged from outside |
//! | `tiny` | the models |
//! | `report` | what came of it |

mod above;
mod below;
mod chain;
mod checks;
mod drafts;
mod net;
mod report;
mod routed;
mod scenario;
mod stage;
mod tiny;
mod world;

pub use checks::Bug;
pub use report::Outcome;
pub use scenario::{Faults, Link, Scenario, ScenarioError};

/// Runs a scenario to its end.
///
/// # Errors
/// The scenario is not one.
pub fn run(scenario: &Scenario) -> Result<Outcome, ScenarioError> {
    run_broken(scenario, None)
}

/// The same with a mistake built in, which a checker must find.
///
/// # Errors
/// The scenario is not one.
pub fn run_broken(scenario: &Scenario, bug: Option<Bug>) -> Result<Outcome, ScenarioError> {
    scenario.check()?;
    Ok(world::World::new(scenario.clone(), bug).run())
}
