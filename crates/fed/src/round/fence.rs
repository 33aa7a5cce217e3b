//! Fencing: what an incarnation holds is given up, durably, before its devices may send elsewhere.

use super::desk::Desk;
use super::members::MemberState;
use super::{Effect, Record, Round, Stage};
use littoral_wire::NodeId;

impl Round {
    /// From now on nothing of this incarnation is used; its devices are free to send elsewhere.
    pub(super) fn fence(&mut self, number: u64, effects: &mut Vec<Effect>) {
        self.give_up(number, effects);
        if matches!(self.stage, Stage::Collect { .. }) {
            self.ask_adrift(effects);
        }
    }

    fn give_up(&mut self, number: u64, effects: &mut Vec<Effect>) {
        let Some(desk) = self.desks.get(&number).filter(|desk| desk.live()) else { return };
        let (edge, incarnation) = (desk.edge, self.incarnation(number));
        effects.push(Effect::Record(Record::Fenced { incarnation, edge }));
        effects.push(Effect::Fence { edge, incarnation });
        self.fenced.insert(number);
        self.desks.remove(&number);
        self.let_go(number, |_| true);
    }

    /// Fences what this edge holds and has not handed in.
    pub(super) fn edge_lost(&mut self, edge: NodeId, effects: &mut Vec<Effect>) {
        self.live(|desk| desk.edge == edge).into_iter().for_each(|number| self.fence(number, effects));
        self.desks_of(edge).into_iter().for_each(|number| self.desk_lost(number, effects));
    }

    /// The collection ends without a version: nobody is asked again.
    pub(super) fn fence_all(&mut self, effects: &mut Vec<Effect>) {
        self.live(|_| true).into_iter().for_each(|number| self.give_up(number, effects));
    }

    /// Incarnations whose partial could still be lost.
    pub(super) fn live(&self, which: impl Fn(&Desk) -> bool) -> Vec<u64> {
        self.desks.iter().filter(|(_, desk)| desk.live() && which(desk)).map(|(number, _)| *number).collect()
    }

    /// Frees the members of this incarnation whose state fits.
    pub(super) fn let_go(&mut self, number: u64, fits: impl Fn(&MemberState) -> bool) {
        let of_it = |state: &MemberState| state.number() == Some(number) && fits(state);
        let freed: Vec<(NodeId, MemberState)> =
            self.members.iter().filter(|(_, m)| of_it(&m.state)).map(|(d, m)| (*d, m.state.let_go())).collect();
        freed.into_iter().for_each(|(device, state)| self.set(device, state));
    }
}
