//! Reading a prompt: its pieces, micro-batches, follow each other through the stages (ALGORITHMS E.6).

use super::costs::Costs;
use super::costs::{pass_s, seconds};
use super::demand::Demand;
use super::fleet::Fleet;
use super::model_cost::ModelCost;
use super::ring::Stage;
use crate::engine::Limits;

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PromptTime {
    /// From the first token read to the logits behind the last.
    pub total_s: f64,
    pub micro_batches: u64,
}

/// In as many pieces as the engine cuts it into, on one machine too. E.6 has a best number of them, which nobody can ask an
/// engine for.
///
/// Equal pieces through machines in a row take the first one's whole way, and then the slowest machine's time for each
/// other: sum p_i + (M - 1) max p_i. E.6's (M + s - 1) max p_i is the same where all stages take equally long, and
/// more elsewhere. Stages of one host are one machine.
pub(super) fn prompt_time(
    model: &ModelCost,
    fleet: &Fleet,
    demand: &Demand,
    costs: &Costs,
    ring: &[Stage],
) -> PromptTime {
    let n = demand.prompt;
    let micro_batches = n.div_ceil(Limits::default().prompt_tokens_per_pass as u64);
    let tokens = n.div_ceil(micro_batches);
    let vectors = (tokens * demand.vector_bytes(model.width)) as f64;
    let (mut whole_s, mut slowest_s) = (0.0, 0.0f64);
    let mut of_hosts = vec![0.0; costs.devices];
    for (index, stage) in ring.iter().enumerate() {
        let own_s = stage_s(model, fleet, stage, tokens, n);
        of_hosts[costs.hosts[stage.device]] += own_s;
        whole_s += own_s;
        if let Some(next) = ring.get(index + 1) {
            let link = fleet.link(stage.device, next.device);
            whole_s += link.hop_s(vectors);
            slowest_s = slowest_s.max(link.transfer_s(vectors));
        }
    }
    slowest_s = of_hosts.into_iter().fold(slowest_s, f64::max);
    // Home goes the last token's vector alone.
    let last = ring.last().map_or(costs.head, |stage| stage.device);
    let home_s = fleet.link(last, costs.head).hop_s(demand.vector_bytes(model.width) as f64);
    let total_s = whole_s + (micro_batches - 1) as f64 * slowest_s + home_s + seconds(costs.ends_ps);
    PromptTime { total_s, micro_batches }
}

/// A piece of `tokens` of a prompt of `positions` through a stage; each token looks back at half of them on average.
pub(super) fn stage_s(model: &ModelCost, fleet: &Fleet, stage: &Stage, tokens: u64, positions: u64) -> f64 {
    let device = &fleet.devices()[stage.device];
    let layers = model.layers[stage.layers.clone()].iter().map(|cost| {
        let seen = (positions as f64 / 2.0).min(if cost.window == 0 { f64::INFINITY } else { cost.window as f64 });
        let attention = tokens as f64 * seen * cost.flops_per_position as f64;
        pass_s(device, cost.weight_bytes, tokens as f64 * cost.flops as f64) + attention / device.prefill_flops_per_s
    });
    layers.sum()
}
