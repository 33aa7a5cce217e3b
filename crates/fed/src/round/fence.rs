//! Fencing: what an incarnation holds is given up, durably, before its devices may send elsewhere.

use super::members::MemberState;
use super::{Effect, Record, Round, Stage, Standing};
use littoral_wire::NodeId;

impl Round {
    /// From now on nothing of this incarnation is used; its devices are free to send elsewhere.
    pub(super) fn fence(&mut self, number: u64, effects: &mut Vec<Effect>) {
        let Some(desk) = self.desks.get(&number) else { return };
        if desk.standing == Standing::Kept {
            return;
        }
        let (edge, incarnation) = (desk.edge, self.incarnation(number));
        effects.push(Effect::Record(Record::Fenced { incarnation, edge }));
        effects.push(Effect::Fence { edge, incarnation });
        self.fenced.insert(number);
        self.desks.remove(&number);
        self.set_adrift(number, |_| true);
        if matches!(self.stage, Stage::Collect { .. }) {
            self.ask_adrift(effects);
        }
    }

    pub(super) fn fence_all(&mut self, effects: &mut Vec<Effect>) {
        // Not one by one through `fence`: nobody is to be asked again.
        let live: Vec<u64> = self.desks.iter().filter(|(_, d)| d.live()).map(|(n, _)| *n).collect();
        for number in live {
            let edge = self.desks[&number].edge;
            let incarnation = self.incarnation(number);
            effects.push(Effect::Record(Record::Fenced { incarnation, edge }));
            effects.push(Effect::Fence { edge, incarnation });
            self.fenced.insert(number);
            self.desks.remove(&number);
        }
    }

    /// Frees the members of this incarnation whose state fits.
    pub(super) fn set_adrift(&mut self, number: u64, fits: impl Fn(&MemberState) -> bool) {
        let of_it = |state: &MemberState| state.number() == Some(number) && fits(state);
        let freed: Vec<NodeId> = self.members.iter().filter(|(_, m)| of_it(&m.state)).map(|(d, _)| *d).collect();
        freed.into_iter().for_each(|device| self.set(device, MemberState::Adrift));
    }
}
