//! Places for layers by the planner's numbers, as machines come and go.
//!
//! At a start, and when somebody comes, layers lie as the best plan over those that are here says; who is not in it is a
//! spare. After a loss as little as possible moves: the lost layers go, in one piece, to the spare or the neighbour with which
//! a token is quickest. When nobody is being answered the plan over those that are left counts again.

use super::head::Link;
use super::measured::{self, Measured};
use super::plan::{self, Demand, Fleet, ModelCost, Plan, PlanError, Stage};
use littoral_wire::NodeId;
use littoral_wire::pipeline::Profile;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A machine (`None`: the head) and how many layers it has, in their order.
pub type Share = (Option<NodeId>, usize);

pub struct Planner {
    model: ModelCost,
    demand: Demand,
    head: Profile,
    machines: BTreeMap<NodeId, Measured>,
    /// The last plan and of whom it was: it is asked for many times a second.
    made: Option<(Vec<NodeId>, Option<Vec<Share>>)>,
}

impl Planner {
    pub fn new(model: ModelCost, demand: Demand, head: Profile) -> Self {
        Self { model, demand, head, machines: BTreeMap::new(), made: None }
    }

    /// What was measured of a machine; the last counts.
    pub fn know(&mut self, machine: NodeId, measured: Measured) {
        self.machines.insert(machine, measured);
        self.made = None;
    }

    pub fn knows(&self, machine: NodeId) -> bool {
        self.machines.contains_key(&machine)
    }

    /// The best plan over these machines in their order, and the fleet that it is of; those of which nothing is known are left
    /// out.
    ///
    /// # Errors
    /// There is none.
    pub fn plan(&self, machines: &[NodeId]) -> Result<(Plan, Fleet), PlanError> {
        let fleet = self.fleet(machines)?;
        Ok((plan::plan(&self.model, &fleet, &self.demand)?, fleet))
    }

    /// How many layers each of them has in that plan, the head first; `None` if there is no plan.
    pub fn shares(&mut self, machines: &[NodeId]) -> Option<Vec<Share>> {
        if let Some((of, shares)) = &self.made
            && of == machines
        {
            return shares.clone();
        }
        let known = self.known(machines);
        let machine = |device: usize| device.checked_sub(1).and_then(|at| known.get(at).copied());
        let share = |stage: &Stage| (machine(stage.device), stage.layers.len());
        let plan = self.plan(machines).ok();
        let shares = plan.map(|(plan, _)| plan.stages.iter().map(|stage| share(&stage.stage)).collect::<Vec<Share>>());
        self.made = Some((machines.to_vec(), shares.clone()));
        shares
    }

    /// The same chain without machines that are not up; `None` if that cannot be. `fits`: has a machine room for that?
    pub fn without_lost(
        &self,
        chain: &[Link],
        up: &BTreeSet<NodeId>,
        fits: &dyn Fn(&Link) -> bool,
    ) -> Option<Vec<Link>> {
        let lost = |link: &Link| link.machine.is_some_and(|id| !up.contains(&id));
        let mut chain = chain.to_vec();
        while let Some(at) = chain.iter().position(lost) {
            let gone = chain[at].ranges.clone();
            let spares = up.iter().filter(|id| !chain.iter().any(|link| link.machine == Some(**id)));
            let mut ways: Vec<(usize, Vec<Link>)> = Vec::new();
            for spare in spares {
                let mut way = chain.clone();
                way[at].machine = Some(*spare);
                ways.push((at, way));
            }
            let behind = Some(at + 1).filter(|behind| *behind < chain.len());
            for (neighbour, before) in [(Some(at - 1), true), (behind, false)] {
                let Some(neighbour) = neighbour.filter(|neighbour| !lost(&chain[*neighbour])) else { continue };
                let mut way = chain.clone();
                let own = std::mem::take(&mut way[neighbour].ranges);
                let pair = if before { [own, gone.clone()] } else { [gone.clone(), own] };
                way[neighbour].ranges = pair.concat();
                way.remove(at);
                ways.push((if before { neighbour } else { at }, way));
            }
            let took = |(taker, way): &(usize, Vec<Link>)| fits(&way[*taker]);
            let way =
                ways.into_iter().filter(took).min_by(|(_, a), (_, b)| self.token_s(a).total_cmp(&self.token_s(b)));
            chain = way?.1;
        }
        Some(chain)
    }

    /// From a token to the next one; infinite where something is not known of a machine.
    fn token_s(&self, chain: &[Link]) -> f64 {
        let machines: Vec<NodeId> = chain.iter().filter_map(|link| link.machine).collect();
        if !machines.iter().all(|machine| self.knows(*machine)) {
            return f64::INFINITY;
        }
        let mut end = 0;
        let stages = chain.iter().enumerate().map(|(device, link)| {
            let start = end;
            end += link.ranges.iter().map(Range::len).sum::<usize>();
            Stage { device, layers: start..end }
        });
        let stages: Vec<Stage> = stages.collect();
        let time = self.fleet(&machines).and_then(|fleet| plan::predict(&self.model, &fleet, &self.demand, &stages));
        time.unwrap_or(f64::INFINITY)
    }

    fn known(&self, machines: &[NodeId]) -> Vec<NodeId> {
        machines.iter().copied().filter(|machine| self.knows(*machine)).collect()
    }

    fn fleet(&self, machines: &[NodeId]) -> Result<Fleet, PlanError> {
        let measured: Vec<Measured> =
            machines.iter().filter_map(|machine| self.machines.get(machine).cloned()).collect();
        measured::fleet(&self.head, &measured)
    }
}
