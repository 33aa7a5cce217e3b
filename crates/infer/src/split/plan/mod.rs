//! The planner: which devices have which layers of a model, how fast that will be, and why.
//!
//! A device's time for a layer is that of reading its weights, keys and values, and an overhead; a hop is half a round trip
//! and the vector's bytes. Two objectives: the time of a token of one stream is the sum of all that; with many streams a
//! step is as long as the busiest stage, link or host is busy, or as the whole way takes for the batches on it. Memory is
//! weights, keys and values of all streams' contexts, what a stage works in, and a log of the vectors that it sent, within
//! what [`HEADROOM`] leaves.
//!
//! Up to [`DEVICES_EXACT_MAX`] devices the plan is proven to be the best by these rules (`exact`), beyond it is searched
//! (`beam`). Sentences come from planning again with and without each device (`why`). Of equal plans that of fewer devices
//! is taken, then of those that come first in the list; the same input gives the same plan everywhere.
//!
//! Not here: measuring devices and links, and files that say what they are. E.6 of ALGORITHMS counts half a round trip as time
//! that a link is busy; here a link can send the next vector while the last one is on its way.

mod beam;
mod costs;
mod demand;
mod error;
mod exact;
mod fleet;
mod model_cost;
mod prompt;
mod relaxed;
mod ring;
mod search;
mod standby;
#[cfg(test)]
pub(super) mod tests;
mod why;
mod words;

pub use demand::{Demand, LAYERS_MAX, Objective, POSITIONS_MAX, Recovery, STREAMS_MAX};
pub use error::PlanError;
pub use fleet::{BYTES_MAX, DEVICES_MAX, Device, Fleet, HEADROOM, Link, RATE_MAX, RATE_MIN, SECONDS_MAX};
pub use model_cost::{LayerCost, ModelCost};
pub use prompt::PromptTime;
pub use ring::Stage;
pub use search::{DEVICES_EXACT_MAX, Proof};
pub use standby::{Cover, Standby};
pub use why::{Solo, Verdict};

use costs::{Costs, seconds};
use exact::Table;
use search::{Only, Search};
use standby::Planned;
use why::Why;

/// A stage with its times, of one token of one stream.
#[derive(Clone, PartialEq, Debug)]
pub struct StagePlan {
    pub stage: Stage,
    pub compute_s: f64,
    /// To the next stage; of the last one back to the head.
    pub hop_s: f64,
    /// Of all streams.
    pub memory_bytes: u64,
    pub usable_bytes: u64,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// In the order of the way; the head is the first.
    pub stages: Vec<StagePlan>,
    /// From a token to the next one, if there is one stream.
    pub token_s: f64,
    /// Of all streams together, in batches of `batch`.
    pub streams_tok_s: f64,
    pub batch: u64,
    pub prompt: PromptTime,
    pub solo: Solo,
    pub proof: Proof,
    /// One sentence about the whole.
    pub summary: String,
    /// One for each device of the fleet, in its order.
    pub verdicts: Vec<Verdict>,
    /// One for each stage but the head's.
    pub covers: Vec<Cover>,
}

impl Plan {
    /// Of one stream.
    pub fn tok_s(&self) -> f64 {
        1.0 / self.token_s
    }
}

/// The best plan.
///
/// # Errors
/// A number of `demand` out of its bounds, or a fleet with too little memory: how much is missing, and where.
pub fn plan(model: &ModelCost, fleet: &Fleet, demand: &Demand) -> Result<Plan, PlanError> {
    demand.check(model)?;
    let search = Search::new(model, fleet, demand);
    let table = search.table();
    let best =
        search.best(table.as_ref(), Only::default()).ok_or_else(|| no_room(&search.costs[0], fleet, table.as_ref()))?;
    let why = Why { fleet, demand, search: &search, table: table.as_ref(), best: &best };
    let (verdicts, solo) = (why.verdicts(), why.solo());
    let summary = why.summary(&verdicts, &solo);
    // Of the ring as it is, the batches that are quickest.
    let rates = search.costs.iter().map(|costs| {
        let step_ps = costs.timing(&best.ring).step_ps(demand.streams / costs.batch);
        (costs.batch as f64 * 1e12 / step_ps.max(1) as f64, costs)
    });
    let (streams_tok_s, costs) =
        rates.fold((0.0, &search.costs[0]), |best, next| if next.0 > best.0 { next } else { best });
    let one = &search.costs[0];
    let stages = best.ring.iter().enumerate().map(|(index, stage)| StagePlan {
        compute_s: seconds(one.stage_ps(stage)),
        hop_s: seconds(one.hop_ps(stage.device, best.ring[(index + 1) % best.ring.len()].device)),
        memory_bytes: one.memory.used_bytes(&best.ring, stage.device),
        usable_bytes: fleet.devices()[stage.device].usable_bytes(),
        stage: stage.clone(),
    });
    Ok(Plan {
        stages: stages.collect(),
        token_s: seconds(one.timing(&best.ring).token_ps()),
        streams_tok_s,
        batch: costs.batch,
        prompt: prompt::prompt_time(model, fleet, demand, one, &best.ring),
        solo,
        proof: best.proof,
        summary,
        verdicts,
        covers: standby::covers(&Planned { model, fleet, demand, costs, ring: &best.ring }),
    })
}

/// What a placement promises, whether or not it is the best or fits: seconds from a token of one stream to the next.
/// `stages`: the head first, all layers in their order.
///
/// # Errors
/// A number of `demand` out of its bounds, stages that are not of this fleet, or that are not all layers of this model in
/// their order.
pub fn predict(model: &ModelCost, fleet: &Fleet, demand: &Demand, stages: &[Stage]) -> Result<f64, PlanError> {
    demand.check(model)?;
    check(model, fleet, stages)?;
    Ok(seconds(Costs::of(model, fleet, demand, 1).timing(stages).token_ps()))
}

fn check(model: &ModelCost, fleet: &Fleet, stages: &[Stage]) -> Result<(), PlanError> {
    let (last, head, layers) = (fleet.devices().len() - 1, fleet.head(), model.layers.len());
    let mut end = 0;
    for (nth, Stage { device, layers: own }) in stages.iter().enumerate() {
        let field = |name: &str| format!("stage {nth}: {name}");
        if *device > last || (nth == 0 && *device != head) {
            let expected = if nth == 0 { format!("{head}, the head") } else { format!("0 to {last}") };
            return Err(PlanError::field(field("device"), &expected, device));
        }
        if own.start != end || own.end < end || own.end > layers {
            return Err(PlanError::field(
                field("layers"),
                &format!("{end} up to {layers} at most"),
                format!("{own:?}"),
            ));
        }
        end = own.end;
    }
    if stages.is_empty() || end < layers {
        return Err(PlanError::field("stages".to_owned(), &format!("all {layers} layers"), end));
    }
    Ok(())
}

/// Nothing fits: how much is missing, and where.
fn no_room(costs: &Costs, fleet: &Fleet, table: Option<&Table<'_>>) -> PlanError {
    let (memory, head, layers) = (&costs.memory, &fleet.devices()[fleet.head()], costs.layers);
    if memory.room_bytes[fleet.head()].is_none() {
        let needed_bytes = memory.fixed_bytes[fleet.head()];
        return PlanError::Head { head: head.name.clone(), needed_bytes, usable_bytes: head.usable_bytes() };
    }
    let most = || (0..costs.devices).map(|device| memory.layers_max(device)[0]).sum::<usize>();
    let placed = table.map_or_else(most, Table::layers_placed);
    if placed >= layers {
        return PlanError::NotFound { devices: costs.devices, layers };
    }
    let usable = |device: usize| (fleet.devices()[device].name.clone(), memory.room_bytes[device].unwrap_or(0));
    PlanError::NoRoom {
        layers,
        placed,
        missing_bytes: memory.bytes(&(placed..layers)),
        usable_bytes: (0..costs.devices).map(usable).collect(),
    }
}
