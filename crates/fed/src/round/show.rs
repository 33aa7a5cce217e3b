//! What a round shows of itself: to its host, and to people who want to know what it waits for.

use super::members::{Member, MemberState};
use super::{Decline, Given, Phase, Round, Settings, Stage, Standing};
use crate::masks::cloud::Known;
use littoral_wire::message::{Collection, Incarnation};
use littoral_wire::object::{Chain, Manifest};
use littoral_wire::{JobId, NodeId, ObjectId};
use std::cmp::Reverse;
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
    /// What that model builds on; empty: it is whole.
    pub fn before(&self) -> &Chain {
        &self.before
    }
    /// What the algorithm keeps beside the model.
    pub fn state(&self) -> Option<&Manifest> {
        self.state.as_ref()
    }
    /// Devices that offer the data set, as of the current collection.
    pub fn population(&self) -> u64 {
        self.population
    }
    /// Models that devices are given instead of the version, by the devices' names; empty: all are given the version.
    pub fn given(&self) -> &Given {
        &self.given
    }
    /// Objects that this round still needs: the model, what it builds on, its state, models that devices are given and kept partials.
    pub fn needs(&self, object: ObjectId) -> bool {
        self.model.id() == object
            || self.before.iter().any(|before| before.id() == object)
            || self.state.as_ref().is_some_and(|s| s.id() == object)
            || self.given.values().any(|given| given.id() == object)
            || self.pool.needs(object)
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
            Stage::Wait { .. } if self.asynchronous() && self.in_flight() != (0, 0) => Some(self.why_pool()),
            Stage::Wait { .. } => Some(self.why_wait(data_set)),
            Stage::Collect { phase: Phase::Upload, .. } | Stage::Close { .. } => Some(self.why_collect()),
            Stage::Collect { phase, .. } => Some(self.why_keys(*phase)),
            Stage::Stuck { why, .. } => Some(format!("the sum could not be applied, it will be tried again: {why}")),
            Stage::Finished { why, .. } => Some(why.clone()),
            Stage::Open { phase, .. } => {
                let (answered, expected) = self.masking.as_ref().map_or((0, 0), |m| (m.answered(), m.expected()));
                Some(format!("the sum is being opened: {answered} of {expected} devices {}", phase.words()))
            }
            Stage::Apply => None,
        }
    }

    fn why_wait(&self, data_set: &str) -> String {
        let (mut have, mut resting, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (device, attached) in self.presence.iter() {
            let name = &attached.name;
            match attached.eligible() {
                false => others.push(name.as_str()),
                true => have.push(name.as_str()),
            }
            if let (true, Some(decline)) = (self.presence.rests(device), self.declines.get(name)) {
                resting.push((name.as_str(), decline.why.as_str()));
            }
        }
        let (need, here) = (self.settings.here_min(), have.len());
        let mut text = format!("needs {need} devices with data set `{data_set}`, {here} are here");
        if !have.is_empty() {
            text += &format!(": {}", listed(have));
        }
        if !others.is_empty() {
            text += &format!("; without that data set: {}", listed(others));
        }
        let spaced = self.presence.willing().filter(|(_, a)| !self.may_be_drawn(&a.name)).count();
        if spaced > 0 {
            let spacing = self.settings.spacing;
            text += &format!(
                "; {spaced} of them were in one of the last {} versions, and may be in one of {spacing} only",
                spacing - 1
            );
        }
        if self.presence.count_willing() - spaced >= need {
            text += "; waiting a little for more";
        }
        text + &by_reason("declined", resting)
    }

    fn why_pool(&self) -> String {
        let (training, ready) = self.in_flight();
        let need = self.settings.cohort.target;
        let oldest = self.pool.flights().map(|(_, flight)| flight.version).min();
        let behind = oldest.map_or(0, |oldest| self.collection.version.saturating_sub(oldest));
        let mut text = format!("{ready} of {need} updates are ready; {training} devices train");
        if behind > 0 {
            text += &format!(", the oldest from {behind} versions ago");
        }
        let resting = self.presence.iter().filter(|(device, _)| self.presence.rests(device));
        let resting = resting.filter_map(|(_, a)| Some((a.name.as_str(), self.declines.get(&a.name)?.why.as_str())));
        text + &by_reason("declined", resting)
    }

    fn why_keys(&self, phase: Phase) -> String {
        let answered = self.masking.as_ref().map_or(0, |masking| masking.answered());
        let open = self.members.tally().1;
        format!("{answered} of {open} devices {}{}", phase.words(), self.who_is_out())
    }

    /// The step that is under way; empty while none is.
    pub fn phase(&self) -> &'static str {
        match &self.stage {
            Stage::Collect { phase, .. } | Stage::Open { phase, .. } => phase.words(),
            _ => "",
        }
    }

    /// What the newest masked sum was fixed to; empty for jobs without masks.
    pub fn sessions(&self) -> &[Known] {
        &self.sessions
    }

    fn why_collect(&self) -> String {
        let mut by_state: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
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
            by_state.entry(state).or_default().push(name);
        }
        let mut text = format!("{} of {} updates are in", self.members.tally().0, self.settings.cohort.target);
        for (state, names) in by_state {
            text += &format!("; {state}: {}", listed(names));
        }
        text + &self.who_is_out()
    }

    /// "; 2 will not take part (…): …", or nothing.
    pub(super) fn who_is_out(&self) -> String {
        by_reason("will not take part", self.members.out())
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

/// A line names so many machines of a kind, so many reasons, and so much of each: what devices said is in
/// [`Round::declines`] in full.
const NAMES_SHOWN: usize = 3;
const REASONS_SHOWN: usize = 2;
const REASON_CHARACTERS: usize = 75;

/// The first few, in order, and how many more.
fn listed(mut names: Vec<&str>) -> String {
    names.sort_unstable();
    let shown = names.len().min(NAMES_SHOWN);
    let more = if names.len() > shown { format!(" and {} more", names.len() - shown) } else { String::new() };
    names[..shown].join(", ") + &more
}

/// "; 4 declined (a, b, c, …): why" for each reason, the most frequent first: what reads alike is said once.
fn by_reason<'a>(what: &str, machines: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut by_why: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    machines.into_iter().for_each(|(name, why)| by_why.entry(cut(why)).or_default().push(name));
    let mut groups: Vec<(String, Vec<&str>)> = by_why.into_iter().collect();
    groups.sort_by_key(|(_, names)| Reverse(names.len()));
    let mut text = String::new();
    for (why, names) in groups.iter_mut().take(REASONS_SHOWN) {
        names.sort_unstable();
        let (count, shown) = (names.len(), names.len().min(NAMES_SHOWN));
        let more = if count > shown { ", …" } else { "" };
        text += &format!("; {count} {what} ({}{more}): {why}", names[..shown].join(", "));
    }
    match groups.iter().skip(REASONS_SHOWN).map(|(_, names)| names.len()).sum() {
        0 => text,
        others => format!("{text}; {others} for other reasons"),
    }
}

fn cut(why: &str) -> String {
    match why.char_indices().nth(REASON_CHARACTERS) {
        Some((at, _)) => format!("{}…", &why[..at]),
        None => why.to_owned(),
    }
}
