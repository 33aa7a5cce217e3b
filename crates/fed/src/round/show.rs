//! What a round shows of itself: to its host, and to people who want to know what it waits for.

use super::members::{Member, MemberState};
use super::presence::Attached;
use super::{Decline, Round, Settings, Stage, Standing};
use littoral_wire::message::{Collection, Incarnation};
use littoral_wire::object::Manifest;
use littoral_wire::{JobId, NodeId, ObjectId};
use std::collections::BTreeMap;

impl Round {
    pub fn job(&self) -> JobId {
        self.job
    }
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
    pub fn stage(&self) -> &Stage {
        &self.stage
    }
    /// What is being gathered, or will be next.
    pub fn collection(&self) -> Collection {
        self.collection
    }
    /// The current version's model.
    pub fn model(&self) -> &Manifest {
        &self.model
    }
    /// What the algorithm keeps beside the model.
    pub fn state(&self) -> Option<&Manifest> {
        self.state.as_ref()
    }
    /// Devices that offer the data set, as of the current collection.
    pub fn population(&self) -> u64 {
        self.population
    }
    /// Objects that this round still needs: the model, its state and kept partials.
    pub fn needs(&self, object: ObjectId) -> bool {
        self.model.id() == object
            || self.state.as_ref().is_some_and(|s| s.id() == object)
            || self.desks.values().filter_map(|d| d.kept.as_ref()).any(|k| k.sum.id() == object)
    }
    /// Versions made by training so far.
    pub fn trained(&self) -> u64 {
        self.trained
    }
    /// Is this incarnation still good for something?
    pub fn expects(&self, incarnation: Incarnation) -> bool {
        incarnation.collection == self.collection
            && matches!(self.stage, Stage::Collect { .. } | Stage::Close { .. })
            && self.desks.get(&incarnation.number).is_some_and(|d| d.standing != Standing::Kept)
    }

    /// Is this partial durable here?
    pub fn kept(&self, incarnation: Incarnation) -> bool {
        incarnation.collection == self.collection
            && self.desks.get(&incarnation.number).is_some_and(|d| d.standing == Standing::Kept)
    }
    pub fn edge_of(&self, incarnation: Incarnation) -> Option<NodeId> {
        (incarnation.collection == self.collection).then(|| self.desks.get(&incarnation.number).map(|d| d.edge))?
    }

    /// One sentence on what the job waits for or why it has ended, or `None` if it goes on by itself.
    pub fn why(&self, data_set: &str) -> Option<String> {
        match &self.stage {
            Stage::Wait { .. } => Some(self.why_wait(data_set)),
            Stage::Collect { .. } | Stage::Close { .. } => Some(self.why_collect()),
            Stage::Stuck { why, .. } => Some(format!("the sum could not be applied, it will be tried again: {why}")),
            Stage::Finished { why, .. } => Some(why.clone()),
            Stage::Apply => None,
        }
    }

    fn why_wait(&self, data_set: &str) -> String {
        let (mut have, mut resting, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (device, Attached { name, eligible, .. }) in self.presence.iter() {
            match eligible {
                false => others.push(name.clone()),
                true => have.push(name.clone()),
            }
            if let (true, Some(decline)) = (self.presence.rests(device), self.declines.get(name)) {
                resting.push(format!("{name} declined version {}: {}", decline.collection.version, decline.why));
            }
        }
        let (need, here) = (self.settings.cohort.min, have.len());
        let mut text = format!("needs {need} devices with data set `{data_set}`, {here} are here");
        if !have.is_empty() {
            text += &format!(": {}", listed(&have));
        }
        if !resting.is_empty() {
            text += &format!("; of which {}", listed(&resting));
        }
        if !others.is_empty() {
            text += &format!("; without that data set: {}", listed(&others));
        }
        if self.presence.count_willing() >= need as usize {
            text += "; waiting a little for more";
        }
        text
    }

    fn why_collect(&self) -> String {
        let mut by_state: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (device, Member { name, state }) in self.members.iter() {
            let away = self.presence.get(device).is_none();
            let state = match state {
                MemberState::Adrift if away => "away",
                MemberState::Asked(_) if away => "away since it was asked",
                MemberState::Adrift => "not asked yet",
                MemberState::Asked(_) => "working",
                MemberState::Releasing(_) => "moving to another edge",
                MemberState::Expelling { .. } => "being cut off",
                MemberState::In(_) | MemberState::Out { .. } => continue,
            };
            by_state.entry(state).or_default().push(name.clone());
        }
        let mut text = format!("{} of {} updates are in", self.members.tally().0, self.settings.cohort.target);
        for (state, names) in by_state {
            text += &format!("; {state}: {}", listed(&names));
        }
        text + &self.who_is_out()
    }

    /// "; not taking part: …", or nothing.
    pub(super) fn who_is_out(&self) -> String {
        let out: Vec<String> = self.members.out().map(|(name, why)| format!("{name} ({why})")).collect();
        if out.is_empty() { String::new() } else { format!("; not taking part: {}", listed(&out)) }
    }

    /// Machines that declined, by name: the latest of each, whatever has become of the collection.
    pub fn declines(&self) -> impl Iterator<Item = (&str, &Decline)> {
        self.declines.iter()
    }

    /// Updates in, and updates wanted.
    pub fn progress_of_collection(&self) -> (usize, usize) {
        (self.members.tally().0, self.settings.cohort.target as usize)
    }
}

/// The first few, and how many more.
fn listed(names: &[String]) -> String {
    let shown = names.len().min(8);
    let more = if names.len() > shown { format!(" and {} more", names.len() - shown) } else { String::new() };
    names[..shown].join(", ") + &more
}
