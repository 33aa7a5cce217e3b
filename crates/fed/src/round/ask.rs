//! Asking devices for their work, through the edges where they are.

use super::desk::{Desk, Standing};
use super::members::MemberState;
use super::{Effect, Round};
use littoral_wire::NodeId;
use std::collections::BTreeMap;

impl Round {
    /// Asks every member that is attached and that nobody asks yet, through the edge where it is.
    pub(super) fn ask_adrift(&mut self, effects: &mut Vec<Effect>) {
        let adrift: Vec<(NodeId, NodeId)> = self
            .members
            .iter()
            .filter(|(_, m)| m.state == MemberState::Adrift)
            .filter_map(|(device, _)| Some((*device, self.presence.get(device)?.edge)))
            .collect();
        let mut by_desk: BTreeMap<u64, Vec<NodeId>> = BTreeMap::new();
        for (device, edge) in adrift {
            let number = self.desk_for(edge, device);
            self.set(device, MemberState::Asked(number));
            by_desk.entry(number).or_default().push(device);
        }
        for (number, devices) in by_desk {
            let edge = self.desks[&number].edge;
            effects.push(Effect::Open { edge, incarnation: self.incarnation(number), devices });
        }
    }

    /// Asks one member through the edge where it is.
    pub(super) fn ask(&mut self, device: NodeId, edge: NodeId, effects: &mut Vec<Effect>) {
        let number = self.desk_for(edge, device);
        self.set(device, MemberState::Asked(number));
        effects.push(Effect::Open { edge, incarnation: self.incarnation(number), devices: vec![device] });
    }

    /// An open desk of this edge that has not let the device go before, or a new one.
    fn desk_for(&mut self, edge: NodeId, device: NodeId) -> u64 {
        let fits = |d: &Desk| d.edge == edge && d.standing == Standing::Open && !d.released.contains(&device);
        let open = self.desks.iter().find(|(_, d)| fits(d)).map(|(number, _)| *number);
        open.unwrap_or_else(|| {
            let number = self.next_number;
            self.next_number += 1;
            self.desks.insert(number, Desk::new(edge));
            number
        })
    }

    pub(super) fn asked_of(&self, number: u64) -> Vec<NodeId> {
        self.members.iter().filter(|(_, m)| m.state == MemberState::Asked(number)).map(|(d, _)| *d).collect()
    }

    /// Says again what has not been answered; for the host's regular tick.
    pub fn repeat(&self, effects: &mut Vec<Effect>) {
        self.repeat_pool(effects);
        for (number, desk) in &self.desks {
            let incarnation = self.incarnation(*number);
            match desk.standing {
                Standing::Open => {
                    let devices = self.asked_of(*number);
                    if !devices.is_empty() {
                        effects.push(Effect::Open { edge: desk.edge, incarnation, devices });
                    }
                }
                Standing::Closing => effects.push(Effect::Close { edge: desk.edge, incarnation }),
                Standing::Kept => {}
            }
        }
        for (device, member) in self.members.iter() {
            if let MemberState::Releasing(number) | MemberState::Expelling { number, .. } = &member.state
                && let Some(desk) = self.desks.get(number)
            {
                let incarnation = self.incarnation(*number);
                effects.push(Effect::Release { edge: desk.edge, incarnation, device: *device });
            }
        }
    }
}
