//! Which devices are here, which rest, which have just gone. Asked at every message of a crowd, so it counts as devices
//! move.
//!
//! A device that declined *rests*: it is not drawn again until it connects anew, or until the time of a whole round has
//! passed. What was wrong there seldom mends itself in between.

use super::Millis;
use littoral_wire::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// A device of the fleet, as this job sees it.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    pub name: String,
    pub edge: NodeId,
    /// Rows of the job's data set that it offers; 0: it does not offer it.
    pub rows: u64,
}

impl Attached {
    pub fn eligible(&self) -> bool {
        self.rows > 0
    }
}

#[derive(Debug, Default)]
pub(super) struct Presence {
    here: BTreeMap<NodeId, Attached>,
    /// Eligible devices that are here and do not rest.
    willing: usize,
    /// Devices that are here and declined, and until when they rest.
    resting: Times,
    /// Eligible devices that are away, and since when.
    left: Times,
}

impl Presence {
    pub fn came(&mut self, device: NodeId, attached: Attached) {
        self.left.remove(device);
        let same_connection = self.here.get(&device).is_some_and(|before| before.edge == attached.edge);
        self.counting(device, |all| {
            if !same_connection {
                all.resting.remove(device);
            }
            all.here.insert(device, attached);
        });
    }

    pub fn went(&mut self, now: Millis, device: NodeId) {
        if self.forget(device).is_some_and(|a| a.eligible()) {
            self.left.insert(now, device);
        }
    }

    /// It will not come back.
    pub fn forget(&mut self, device: NodeId) -> Option<Attached> {
        self.counting(device, |all| {
            all.resting.remove(device);
            all.here.remove(&device)
        })
    }

    /// It declined.
    pub fn rest(&mut self, until: Millis, device: NodeId) {
        if self.here.contains_key(&device) {
            self.counting(device, |all| all.resting.insert(until, device));
        }
    }

    /// Devices that have rested long enough may be drawn again.
    pub fn wake(&mut self, now: Millis) {
        while let Some((_, device)) = self.resting.first().filter(|(until, _)| *until <= now) {
            self.counting(device, |all| all.resting.remove(device));
        }
    }

    /// A change to one device, and what it means for the count.
    fn counting<T>(&mut self, device: NodeId, change: impl FnOnce(&mut Self) -> T) -> T {
        self.willing -= usize::from(self.is_willing(&device));
        let changed = change(self);
        self.willing += usize::from(self.is_willing(&device));
        changed
    }

    /// Did it decline lately?
    pub fn rests(&self, device: &NodeId) -> bool {
        self.resting.contains(device)
    }

    fn is_willing(&self, device: &NodeId) -> bool {
        self.here.get(device).is_some_and(Attached::eligible) && !self.rests(device)
    }

    pub fn get(&self, device: &NodeId) -> Option<&Attached> {
        self.here.get(device)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Attached)> {
        self.here.iter()
    }

    /// Devices that may be drawn.
    pub fn willing(&self) -> impl Iterator<Item = (&NodeId, &Attached)> {
        self.here.iter().filter(|(device, _)| self.is_willing(device))
    }

    pub fn count_willing(&self) -> usize {
        self.willing
    }

    /// When the first of those that rest may be drawn again.
    pub fn first_awake(&self) -> Option<Millis> {
        self.resting.first().map(|(until, _)| until)
    }

    /// When the last of those that are away left.
    pub fn last_left(&self) -> Option<Millis> {
        self.left.last().map(|(at, _)| at)
    }
}

/// Devices with a time each, in the order of these times too.
#[derive(Debug, Default)]
struct Times {
    at: BTreeMap<NodeId, Millis>,
    by_time: BTreeSet<(Millis, NodeId)>,
}

impl Times {
    fn insert(&mut self, at: Millis, device: NodeId) {
        self.remove(device);
        self.at.insert(device, at);
        self.by_time.insert((at, device));
    }

    fn remove(&mut self, device: NodeId) {
        if let Some(at) = self.at.remove(&device) {
            self.by_time.remove(&(at, device));
        }
    }

    fn contains(&self, device: &NodeId) -> bool {
        self.at.contains_key(device)
    }

    fn first(&self) -> Option<(Millis, NodeId)> {
        self.by_time.first().copied()
    }

    fn last(&self) -> Option<(Millis, NodeId)> {
        self.by_time.last().copied()
    }
}
