//! Choosing a cohort, and saying why a job waits.

use super::members::MemberState;
use super::{Attached, Effect, Millis, Round, Stage};
use littoral_wire::NodeId;
use std::collections::BTreeMap;

pub(super) enum Choice {
    /// Key and name of each device chosen.
    Cohort(Vec<(NodeId, String)>),
    /// There would be enough, but more are expected.
    WaitUntil(Millis),
    TooFew,
}

impl Round {
    /// Uniform among the eligible devices that are here. The draw is a hash of the job's seed, the collection and the
    /// device's *name*, so that it depends neither on the order in which devices came nor on their keys.
    pub(super) fn choose(&mut self, now: Millis, since: Millis) -> Choice {
        let here = self.presence.eligible();
        let wanted = self.settings.cohort_size();
        if here < self.settings.cohort.min as usize {
            return Choice::TooFew;
        }
        if here < wanted {
            // Worth waiting for: the first devices after a start, and devices that left a moment ago.
            let wait_ms = self.settings.wait_ms;
            let first = self.trained == 0 && self.collection.attempt == 0;
            let left = self.presence.last_left().map_or(0, |at| at + wait_ms);
            let until = if first { since + wait_ms } else { left.min(since + wait_ms) };
            if now < until {
                return Choice::WaitUntil(until);
            }
        }
        Choice::Cohort(self.draw(wanted, |_| true))
    }

    fn draw(&self, wanted: usize, allowed: impl Fn(&NodeId) -> bool) -> Vec<(NodeId, String)> {
        let mut drawn: Vec<([u8; 32], NodeId, String)> = self
            .presence
            .iter()
            .filter(|(device, a)| a.eligible && allowed(device))
            .map(|(device, a)| (self.lot(a), *device, a.name.clone()))
            .collect();
        drawn.sort_unstable();
        drawn.truncate(wanted);
        let mut cohort: Vec<(NodeId, String)> = drawn.into_iter().map(|(_, device, name)| (device, name)).collect();
        cohort.sort_unstable();
        cohort
    }

    fn lot(&self, attached: &Attached) -> [u8; 32] {
        let mut hash = blake3::Hasher::new();
        hash.update(b"littoral/cohort\0");
        for number in
            [self.settings.seed, self.collection.version, self.collection.work as u64, self.collection.attempt.into()]
        {
            hash.update(&number.to_le_bytes());
        }
        hash.update(attached.name.as_bytes());
        *hash.finalize().as_bytes()
    }

    /// Somebody will not take part: ask as many others, while there are any.
    pub(super) fn top_up(&mut self, effects: &mut Vec<Effect>) {
        if !matches!(self.stage, Stage::Collect { .. }) {
            return;
        }
        let (absorbed, open) = self.members.tally();
        let missing = self.settings.cohort_size().saturating_sub(absorbed + open);
        let added = self.draw(missing, |device| self.members.get(device).is_none());
        if added.is_empty() {
            return;
        }
        for (device, name) in &added {
            self.members.join(*device, name.clone());
        }
        effects.push(Effect::Record(super::Record::Joined { collection: self.collection, cohort: added }));
        self.ask_adrift(effects);
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
