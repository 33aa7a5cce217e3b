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

/// Plans that are kept: machines come and go, and the same sets of them are here again.
const MADE_MAX: usize = 16;

pub struct Planner {
    model: ModelCost,
    demand: Demand,
    head: Profile,
    machines: BTreeMap<NodeId, Measured>,
    /// Plans and of whom they are: they are asked for many times a second.
    made: BTreeMap<Vec<NodeId>, Option<Vec<Share>>>,
}

impl Planner {
    pub fn new(model: ModelCost, demand: Demand, head: Profile) -> Self {
        Self { model, demand, head, machines: BTreeMap::new(), made: BTreeMap::new() }
    }

    /// What was measured of a machine; the last counts.
    pub fn know(&mut self, machine: NodeId, measured: Measured) {
        if self.machines.get(&machine) != Some(&measured) {
            self.made.retain(|of, _| !of.contains(&machine));
            self.machines.insert(machine, measured);
        }
    }

    /// Why a machine is in no plan, whatever it could do.
    pub fn out(&self, machine: NodeId) -> Option<&'static str> {
        self.machines.get(&machine)?.out()
    }

    pub fn knows(&self, machine: NodeId) -> bool {
        self.machines.contains_key(&machine)
    }

    /// The best plan over these machines in their order, and the fleet that it is of; those of which nothing is known, and those
    /// that [`Self::out`] has a reason for, are left out.
    ///
    /// # Errors
    /// There is none.
    pub fn plan(&self, machines: &[NodeId]) -> Result<(Plan, Fleet), PlanError> {
        let fleet = self.fleet(&self.known(machines))?;
        Ok((plan::plan(&self.model, &fleet, &self.demand)?, fleet))
    }

    /// How many layers each of them has in that plan, the head first; `None` if there is no plan.
    pub fn shares(&mut self, machines: &[NodeId]) -> Option<Vec<Share>> {
        let known = self.known(machines);
        if let Some(shares) = self.made.get(&known) {
            return shares.clone();
        }
        let machine = |device: usize| device.checked_sub(1).and_then(|at| known.get(at).copied());
        let share = |stage: &Stage| (machine(stage.device), stage.layers.len());
        let plan = self.plan(&known).ok();
        let shares = plan.map(|(plan, _)| plan.stages.iter().map(|stage| share(&stage.stage)).collect::<Vec<Share>>());
        if self.made.len() == MADE_MAX {
            self.made.clear();
        }
        self.made.insert(known, shares.clone());
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
        let planned = |machine: &NodeId| self.machines.get(machine).is_some_and(|measured| measured.out().is_none());
        machines.iter().copied().filter(planned).collect()
    }

    fn fleet(&self, machines: &[NodeId]) -> Result<Fleet, PlanError> {
        let measured: Vec<Measured> =
            machines.iter().filter_map(|machine| self.machines.get(machine).cloned()).collect();
        measured::fleet(&self.head, &measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::plan::tests::instances::{Draw, demand, even_model};
    use crate::split::plan::{Link, Objective};

    fn measured(read_bytes_per_s: u64) -> Measured {
        let profile = Profile {
            name: "".into(),
            host: [0; 16],
            memory_bytes: 0,
            disk_free_bytes: 0,
            disk_read_bytes_per_s: 0,
            read_bytes_per_s,
            prefill_flops_per_s: 1,
            timed_bytes: 1,
        };
        Measured { profile, link: Link { rtt_s: 0.0, bytes_per_s: 1e9 } }
    }

    /// What is kept is what is answered, so a kept answer that no planning would give shows when it is used.
    #[test]
    fn a_set_of_machines_is_planned_once_until_one_of_them_is_measured_anew() {
        let (model, demand) = (even_model(4), demand(&mut Draw::new(1), Objective::Latency));
        let mut planner = Planner::new(model, demand, measured(1).profile);
        let [one, two, other] = [1, 2, 3].map(|n| NodeId([n; 32]));
        planner.know(one, measured(1));
        planner.know(two, measured(1));
        let (kept, odd) = (|made: &[NodeId]| made.to_vec(), Some(vec![(None, 77)]));
        planner.made.insert(kept(&[one]), odd.clone());
        planner.made.insert(kept(&[one, two]), odd.clone());
        // Of the third nothing is known, so these are the same machines.
        assert_eq!((planner.shares(&[one, two, other]), planner.shares(&[one])), (odd.clone(), odd.clone()));
        planner.know(two, measured(1));
        assert_eq!(planner.shares(&[one, two]), odd, "nothing was learnt");
        planner.know(two, measured(2));
        assert_eq!(planner.shares(&[one]), odd);
        assert_ne!(planner.shares(&[one, two]), odd);
        for n in 0..2 * MADE_MAX as u8 {
            let machine = NodeId([n + 10; 32]);
            planner.know(machine, measured(1));
            planner.shares(&[machine]);
            assert!(planner.made.len() <= MADE_MAX);
        }
    }
}
