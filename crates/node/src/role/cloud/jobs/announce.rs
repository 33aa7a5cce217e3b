//! How a collection ended: announced to all, and told to whoever asks later.

use super::super::Effect;
use super::super::fleet::Fleet;
use super::{Jobs, Made, State, objects_of};
use crate::role::Report;
use littoral_fed::included::{self, Tree};
use littoral_wire::message::{Announcement, COHORT_MAX, Verdict};
use littoral_wire::{Collection, JobId, List, Message, NodeId, ObjectId, SecretKey};

/// The line of versions that training makes.
pub const TRAINING_CHANNEL: &str = "train";

impl Jobs {
    #[allow(clippy::too_many_arguments)] // The fields of one decision.
    pub(super) fn announce(
        &mut self,
        id: JobId,
        collection: Collection,
        version: u64,
        model: ObjectId,
        included: Vec<NodeId>,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(key), Some(job)) = (&self.key, self.jobs.get_mut(&id)) else { return };
        let included = under_current_keys(included, fleet);
        let announcement = announce(key, collection, version, model, &included);
        let line = std::mem::take(&mut job.line);
        let now_current: Vec<ObjectId> = job.round().into_iter().flat_map(objects_of).collect();
        let stale = match now_current == job.current {
            true => Vec::new(),
            false => std::mem::replace(&mut job.previous, std::mem::replace(&mut job.current, now_current)),
        };
        let began = std::mem::take(&mut job.began).into_iter();
        let began = began.map(|(device, version)| (fleet.current(device), version)).collect();
        let made = Made { announcement: announcement.clone(), included: included.clone(), began, line: line.clone() };
        job.note_made(made);
        if let Ok(list) = List::<NodeId, COHORT_MAX>::new(included.clone()) {
            for link in fleet.edge_links() {
                let message = Message::Announce { announcement: announcement.clone(), included: list.clone() };
                effects.push(Effect::Send { link, message });
            }
        }
        effects.extend(stale.into_iter().map(Effect::Drop));
        effects.push(Effect::Report(Report::Version { collection, version, model, included, line: Box::new(line) }));
    }

    /// A machine's key was replaced. What its old key was counted for the machine is told under its new one: versions
    /// that list the old key are announced anew, to whoever asks from now on.
    pub(in crate::role::cloud) fn rotated(&mut self, from: NodeId, to: NodeId) {
        let Some(key) = &self.key else { return };
        for (collection, made) in self.jobs.values_mut().flat_map(|job| &mut job.made) {
            if let Ok(at) = made.included.binary_search(&from) {
                made.included[at] = to;
                made.included.sort_unstable();
                if let Some(version) = made.began.remove(&from) {
                    made.began.insert(to, version);
                }
                let Announcement { version, model, .. } = made.announcement;
                made.announcement = announce(key, *collection, version, model, &made.included);
                self.tree = None;
            }
        }
    }

    /// How a collection ended for a device, if it has ended.
    pub(in crate::role::cloud) fn verdict(&mut self, collection: Collection, device: NodeId) -> Option<Verdict> {
        let Some(job) = self.jobs.get(&collection.job) else {
            // Another replica knows.
            if self.shared {
                return None;
            }
            return Some(Verdict { collection, announcement: None, proof: None });
        };
        if let Some(made) = job.made.get(&collection) {
            // A crowd asks about the same version: its tree is made once.
            if !matches!(&self.tree, Some((of, _)) if *of == collection) {
                self.tree = Some((collection, Tree::new(&made.included)));
            }
            let proof = self.tree.as_ref().and_then(|(_, tree)| tree.proof(device));
            return Some(Verdict { collection, announcement: Some(made.announcement.clone()), proof });
        }
        // Undecided, or given up.
        let undecided = match &job.state {
            State::Preparing(_) | State::Halted(_) => true,
            State::Running(round) => round.collection() <= collection && !job.finished(),
            State::Failed(_) => false,
        };
        (!undecided).then_some(Verdict { collection, announcement: None, proof: None })
    }
}

/// The same machines, each by the key that it has now. Its update may have been counted under an earlier one.
pub(super) fn under_current_keys(mut devices: Vec<NodeId>, fleet: &Fleet) -> Vec<NodeId> {
    devices.iter_mut().for_each(|device| *device = fleet.current(*device));
    devices.sort_unstable();
    devices
}

pub(super) fn announce(
    key: &SecretKey,
    collection: Collection,
    version: u64,
    model: ObjectId,
    included: &[NodeId],
) -> Announcement {
    included::announce(key, collection, version, TRAINING_CHANNEL, model, included)
}
