//! Which devices are here, which have just gone. Asked at every message of a crowd, so it counts as devices move.

use super::Millis;
use littoral_wire::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// A device of the fleet, as this job sees it.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    pub name: String,
    pub edge: NodeId,
    /// It offers the job's data set.
    pub eligible: bool,
}

#[derive(Debug, Default)]
pub(super) struct Presence {
    here: BTreeMap<NodeId, Attached>,
    eligible: usize,
    /// Eligible devices that are away, and since when; the same by time.
    left: BTreeMap<NodeId, Millis>,
    left_by_time: BTreeSet<(Millis, NodeId)>,
}

impl Presence {
    pub fn came(&mut self, device: NodeId, attached: Attached) {
        if let Some(at) = self.left.remove(&device) {
            self.left_by_time.remove(&(at, device));
        }
        self.eligible += usize::from(attached.eligible);
        let before = self.here.insert(device, attached);
        self.eligible -= usize::from(before.is_some_and(|b| b.eligible));
    }

    pub fn went(&mut self, now: Millis, device: NodeId) {
        if self.here.remove(&device).is_some_and(|a| a.eligible) {
            self.eligible -= 1;
            self.left.insert(device, now);
            self.left_by_time.insert((now, device));
        }
    }

    pub fn get(&self, device: &NodeId) -> Option<&Attached> {
        self.here.get(device)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Attached)> {
        self.here.iter()
    }

    /// Eligible devices that are here.
    pub fn eligible(&self) -> usize {
        self.eligible
    }

    /// When the last of those that are away left.
    pub fn last_left(&self) -> Option<Millis> {
        self.left_by_time.last().map(|(at, _)| *at)
    }
}
