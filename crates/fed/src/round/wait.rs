//! Wait → collect: choosing a cohort when enough devices are here.

use super::members::Members;
use super::presence::Attached;
use super::selection::{Candidate, Policy};
use super::{Effect, Millis, Record, Round, Stage};
use crate::dp::{POISSON_MEAN, Sampling};
use littoral_wire::NodeId;
use littoral_wire::codec::Wire;
use littoral_wire::message::Work;

enum Choice {
    /// Key and name of each device chosen.
    Cohort(Vec<(NodeId, String)>),
    /// More are expected, or some will have rested.
    WaitUntil(Millis),
    TooFew,
}

impl Round {
    pub(super) fn try_open(&mut self, now: Millis, since: Millis, effects: &mut Vec<Effect>) {
        match self.choose(now, since) {
            Choice::Cohort(cohort) => {
                self.clear();
                self.population = self.population.max(self.seen.len() as u64);
                effects.push(Effect::Record(Record::Opened {
                    collection: self.collection,
                    population: self.population,
                    cohort: cohort.clone(),
                }));
                self.members = Members::new(cohort);
                self.collect(now, effects);
            }
            Choice::WaitUntil(at) => effects.push(Effect::Wake { at }),
            Choice::TooFew => {}
        }
    }

    /// The cohort is recorded: it is asked.
    pub(super) fn collect(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.opened_at = now;
        self.begin_masking(effects);
        let until = now + self.settings.deadline_ms;
        self.stage = Stage::Collect { phase: self.settings.first_phase(), until };
        effects.push(Effect::Wake { at: until });
        self.ask_adrift(effects);
    }

    /// Uniform among the eligible devices that are here and have not declined lately. The draw is a hash of the job's seed, the collection and the
    /// device's *name*, so that it depends neither on the order in which devices came nor on their keys.
    fn choose(&mut self, now: Millis, since: Millis) -> Choice {
        self.presence.wake(now);
        if self.settings.sampling != Sampling::Present {
            return self.sample(now);
        }
        let here = match self.settings.spacing {
            1 if self.settings.selection.uses_max == 0 => self.presence.count_willing(),
            _ => self.presence.willing().filter(|(_, a)| self.may_be_drawn(&a.name)).count(),
        };
        let wanted = self.settings.cohort_size();
        if here < self.settings.cohort.min as usize {
            return self.presence.first_awake().map_or(Choice::TooFew, Choice::WaitUntil);
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
        let cohort = self.draw(wanted, |_, name| self.may_be_drawn(name));
        // Fewer are drawn than are here if a machine is here under two keys.
        if cohort.len() < self.settings.cohort.min as usize { Choice::TooFew } else { Choice::Cohort(cohort) }
    }

    /// By the law that privacy is accounted by, with lots that nobody outside can know. A sample that is too small or too large
    /// to be summed is let go, and another one drawn a little later; nothing is told of it, and the account knows how rare that is.
    fn sample(&mut self, now: Millis) -> Choice {
        let here = self.presence.count_willing();
        if here < self.settings.here_min() {
            return Choice::TooFew;
        }
        let mut hash = blake3::Hasher::new_keyed(&self.entropy);
        hash.update(b"littoral/sample\0");
        hash.update(&self.collection.to_bytes());
        hash.update(&self.samples.to_le_bytes());
        let key = *hash.finalize().as_bytes();
        let lot = |device: &NodeId| *blake3::keyed_hash(&key, &device.0).as_bytes();
        let willing = self.presence.willing().map(|(device, a)| (lot(device), *device, a.name.clone()));
        let mut cohort: Vec<([u8; 32], NodeId, String)> = match self.settings.sampling {
            Sampling::Poisson(rate) => {
                let rate = rate.min(POISSON_MEAN.end() * f64::from(self.settings.cohort.target) / here as f64);
                willing.filter(|(lot, ..)| below(lot, rate)).collect()
            }
            Sampling::Fixed(_) | Sampling::Present => willing.collect(),
        };
        cohort.sort_unstable();
        if let Sampling::Fixed(_) = self.settings.sampling {
            cohort.truncate(self.settings.cohort.target as usize);
        }
        let sizes = self.settings.cohort.min as usize..=self.settings.cohort_size();
        if !sizes.contains(&cohort.len()) {
            self.samples += 1;
            return Choice::WaitUntil(now + self.settings.retry_ms);
        }
        let mut cohort: Vec<(NodeId, String)> = cohort.into_iter().map(|(_, device, name)| (device, name)).collect();
        cohort.sort_unstable();
        Choice::Cohort(cohort)
    }

    /// It was in none of the last versions, of which it may be in one only.
    pub(super) fn may_be_drawn(&self, name: &str) -> bool {
        self.collection.work != Work::Train
            || !self.acquaintance.used_up(&self.settings.selection, name)
                && self.spaced.get(name).is_none_or(|first| self.collection.version >= *first)
    }

    /// `allowed`: of this key and name.
    pub(super) fn draw(&self, wanted: usize, allowed: impl Fn(&NodeId, &str) -> bool) -> Vec<(NodeId, String)> {
        let mut drawn: Vec<([u8; 32], NodeId, String)> = self
            .presence
            .willing()
            .filter(|(device, a)| allowed(device, &a.name))
            .map(|(device, a)| (self.lot(a), *device, a.name.clone()))
            .collect();
        drawn.sort_unstable();
        // A machine whose key was replaced may be here under both; equal names draw equal lots.
        drawn.dedup_by(|a, b| a.2 == b.2);
        // Statistics and evaluations are of whoever comes.
        let policy = match self.collection.work {
            Work::Train => &self.settings.selection.policy,
            _ => &Policy::Uniform,
        };
        if *policy == Policy::Uniform {
            drawn.truncate(wanted);
        } else {
            let rows = |device: &NodeId| self.presence.get(device).map_or(0, |attached| attached.rows);
            let candidate = |(lot, device, name): &([u8; 32], NodeId, String)| (name.clone(), *lot, rows(device));
            let known: Vec<(String, [u8; 32], u64)> = drawn.iter().map(candidate).collect();
            let candidates: Vec<Candidate<'_>> =
                known.iter().map(|(name, lot, rows)| Candidate { name, lot: *lot, rows: *rows }).collect();
            let chosen = self.acquaintance.draw(policy, &candidates, wanted, self.collection.version);
            drawn = chosen.into_iter().map(|place| drawn[place].clone()).collect();
        }
        let mut cohort: Vec<(NodeId, String)> = drawn.into_iter().map(|(_, device, name)| (device, name)).collect();
        cohort.sort_unstable();
        cohort
    }

    fn lot(&self, attached: &Attached) -> [u8; 32] {
        let mut hash = blake3::Hasher::new();
        hash.update(b"littoral/cohort\0");
        // Steps of one version are for the same devices.
        let version = self.settings.base(self.collection.version);
        for number in [self.settings.seed, version, self.collection.work as u64, self.collection.attempt.into()] {
            hash.update(&number.to_le_bytes());
        }
        hash.update(attached.name.as_bytes());
        *hash.finalize().as_bytes()
    }

    /// Somebody will not take part: ask as many others, while there are any. Returns whether there were.
    pub(super) fn top_up(&mut self, effects: &mut Vec<Effect>) -> bool {
        // Where sums are masked it is fixed with the keys who takes part; where a law draws devices, with the draw; where devices
        // train first, others have nothing to send.
        let fixed = self.settings.sampling != Sampling::Present || self.asynchronous();
        if fixed || !matches!(self.stage, Stage::Collect { phase, .. } if phase == self.settings.first_phase()) {
            return false;
        }
        let (absorbed, open) = self.members.tally();
        let missing = self.settings.cohort_size().saturating_sub(absorbed + open);
        let names = self.members.names();
        let added = self.draw(missing, |device, name| {
            self.members.get(device).is_none() && !names.contains(name) && self.may_be_drawn(name)
        });
        if added.is_empty() {
            return false;
        }
        for (device, name) in &added {
            self.members.join(*device, name.clone());
        }
        effects.push(Effect::Record(Record::Joined { collection: self.collection, cohort: added }));
        self.ask_adrift(effects);
        true
    }
}

/// Is a uniform lot among the first `rate` of all? To 53 bits, and never more than `rate`.
fn below(lot: &[u8; 32], rate: f64) -> bool {
    let mut first = [0; 8];
    first.copy_from_slice(&lot[..8]);
    let uniform = (u64::from_le_bytes(first) >> 11) as f64;
    uniform + 1.0 <= rate * (1u64 << 53) as f64
}
