//! What a round shows of itself: to its host, and to people who want to know what it waits for.

use super::members::MemberState;
use super::{Round, Settings, Stage, Standing};
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
    pub fn incarnations_of(&self, edge: NodeId) -> Vec<Incarnation> {
        self.desks.iter().filter(|(_, d)| d.edge == edge).map(|(number, _)| self.incarnation(*number)).collect()
    }

    /// One sentence on what the job waits for, or `None` if it does not wait.
    pub fn why(&self, data_set: &str) -> Option<String> {
        let count = |eligible: bool| self.presence.iter().filter(|(_, a)| a.eligible == eligible).count();
        match &self.stage {
            Stage::Wait { .. } => {
                let (need, here) = (self.settings.cohort.min, count(true));
                let others: Vec<&str> =
                    self.presence.iter().filter(|(_, a)| !a.eligible).map(|(_, a)| a.name.as_str()).take(8).collect();
                let have: Vec<&str> =
                    self.presence.iter().filter(|(_, a)| a.eligible).map(|(_, a)| a.name.as_str()).take(8).collect();
                let mut text = format!("needs {need} devices with data set `{data_set}`, {here} are here");
                if !have.is_empty() {
                    text += &format!(": {}", have.join(", "));
                }
                if !others.is_empty() {
                    text += &format!("; without that data set: {}", others.join(", "));
                }
                if here >= need as usize {
                    text += "; waiting a little for more";
                }
                Some(text)
            }
            Stage::Collect { .. } | Stage::Close { .. } => {
                let mut by_state: BTreeMap<&str, Vec<String>> = BTreeMap::new();
                for (device, member) in self.members.iter() {
                    let away = self.presence.get(device).is_none();
                    let state = match &member.state {
                        MemberState::Adrift if away => "away",
                        MemberState::Asked(_) if away => "away since it was asked",
                        MemberState::Adrift => "not asked yet",
                        MemberState::Asked(_) => "working",
                        MemberState::Releasing(_) => "moving to another edge",
                        MemberState::In(_) => continue,
                        MemberState::Out { .. } => "not taking part",
                    };
                    let reason = match &member.state {
                        MemberState::Out { why } => format!("{} ({why})", member.name),
                        _ => member.name.clone(),
                    };
                    by_state.entry(state).or_default().push(reason);
                }
                let (absorbed, _) = self.members.tally();
                let mut text = format!("{absorbed} of {} updates are in", self.settings.cohort.target);
                for (state, names) in by_state {
                    text += &format!("; {state}: {}", names[..names.len().min(8)].join(", "));
                    if names.len() > 8 {
                        text += &format!(" and {} more", names.len() - 8);
                    }
                }
                Some(text)
            }
            Stage::Apply => None,
            Stage::Stuck { why, .. } => Some(format!("the sum could not be applied, it will be tried again: {why}")),
            Stage::Finished { .. } => None,
        }
    }

    /// Names and reasons of devices that declined the current collection.
    pub fn declined(&self) -> &[(String, String)] {
        &self.declined
    }

    /// Updates in, and updates wanted.
    pub fn progress_of_collection(&self) -> (usize, usize) {
        (self.members.tally().0, self.settings.cohort.target as usize)
    }
}
