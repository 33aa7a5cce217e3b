//! Devices that lie, for simulations and tests: a share of a fleet, chosen by the seed, each doing the same.
//!
//! A liar runs the shipped roles as everybody does; it does what it likes with what is its own: its rows (`rows`), or the
//! words of its update before they are sealed (`words`). Held-out rows stay honest, so that the accuracy that a fleet tells
//! is the model's.
//!
//! | kind | a liar sends | paper |
//! |---|---|---|
//! | `sign_flip` | −s · its update | Li et al. 2019, "RSA", section 5 |
//! | `scaled_replacement` | s · an update learnt from backdoored rows | Bagdasaryan et al. 2020, "How To Backdoor Federated Learning" |
//! | `label_flip` | what it learns from rows of class c that it calls classes − 1 − c | Fang et al. 2020, "Local Model Poisoning Attacks" |
//! | `backdoor` | what it learns when half of its rows carry a trigger and the label 0 | Gu et al. 2017, "BadNets" |
//! | `alie` | the liars' mean − z · their deviation, in each coordinate | Baruch et al. 2019, "A Little Is Enough" |
//! | `colluding` | −s · the liars' mean: all the same | Xie et al. 2019, "Fall of Empires", inner-product manipulation |
//!
//! The last two are told what all liars would have learnt (at most [`COLLUDERS_MAX`] of them are asked), and guess from it
//! what honest devices send. Words stay within the plan's range, so no edge can refuse them for that.

mod rows;
mod words;

pub use rows::triggered;

use crate::stream::Stream;
use crate::workers::Runner;
use littoral_node::job::{JobError, JobSpec, Task, Uplink};
use littoral_node::work::{LocalData, Objects, Output, Work, WorkFault};
use littoral_wire::message::{Collection, Work as Gathered};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

/// Liars whose updates the colluding kinds reckon with.
pub const COLLUDERS_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    SignFlip,
    ScaledReplacement,
    LabelFlip,
    Backdoor,
    Alie,
    Colluding,
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::SignFlip, Kind::ScaledReplacement, Kind::LabelFlip, Kind::Backdoor, Kind::Alie, Kind::Colluding];
    pub const NAMES: [&str; 6] = ["sign_flip", "scaled_replacement", "label_flip", "backdoor", "alie", "colluding"];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    fn changes_rows(self) -> bool {
        matches!(self, Self::LabelFlip | Self::Backdoor | Self::ScaledReplacement)
    }

    fn changes_words(self) -> bool {
        !matches!(self, Self::LabelFlip | Self::Backdoor)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attack {
    pub kind: Kind,
    /// Fraction of the fleet's devices that lie, rounded down; 0 to below 1.
    pub share: f64,
    /// s or z of the table. Default: 5; of `scaled_replacement` the cohort's target, so that the mean becomes the liar's; of
    /// `alie` what the paper reckons from the numbers of liars and devices.
    pub strength: Option<f64>,
}

impl Attack {
    /// Can this attack go with this job?
    pub fn check(&self, job: &JobSpec) -> Result<(), JobError> {
        let refused = |place, expected, got| Err(JobError::new(place, expected, got));
        if !(0.0..1.0).contains(&self.share) {
            return refused("attackers", "a fraction of at least 0 and below 1", self.share.to_string());
        }
        if let Some(strength) = self.strength.filter(|strength| !strength.is_finite()) {
            return refused("attack strength", "a finite number", strength.to_string());
        }
        let name = self.kind.name().to_owned();
        if self.kind.changes_rows() && job.text().data.schema.classes().is_none() {
            let expected = "one that changes no labels (sign_flip, alie, colluding), since the job predicts no classes";
            return refused("attack", expected, name);
        }
        if self.kind.changes_words() && matches!(job.uplink(), Some(Uplink::Coded(_))) {
            let expected = "one on rows (label_flip, backdoor), since the job's updates are coded and a simulated liar changes words";
            return refused("attack", expected, name);
        }
        Ok(())
    }

    /// Which of so many devices lie.
    pub fn liars(&self, devices: usize, seed: u64) -> BTreeSet<usize> {
        // Whole shares are not always whole in floats.
        let count = (self.share * devices as f64 + 1e-9) as usize;
        let mut all: Vec<usize> = (0..devices).collect();
        let mut chance = Stream::new(seed, "who lies");
        for i in 0..count.min(devices) {
            all.swap(i, i + chance.below((devices - i) as u64) as usize);
        }
        all.into_iter().take(count).collect()
    }
}

/// A fleet's liars, and what they know of each other.
pub struct Liars {
    kind: Kind,
    strength: f64,
    names: BTreeSet<String>,
    /// Those that the colluding kinds ask, with their rows.
    colluders: Vec<(String, Arc<dyn LocalData>)>,
    /// What all of them send, in steps before the weight, by collection: it follows from the collection alone.
    agreed: Mutex<BTreeMap<Collection, Arc<[f64]>>>,
}

impl fmt::Debug for Liars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} liars by {}", self.names.len(), self.kind.name())
    }
}

impl Liars {
    /// `devices`: the fleet's, by name. Changes the liars' rows, if the attack does.
    pub fn new(
        attack: &Attack,
        job: &JobSpec,
        seed: u64,
        devices: &mut [(String, Arc<dyn LocalData>)],
    ) -> Result<Arc<Self>, JobError> {
        attack.check(job)?;
        let liars = attack.liars(devices.len(), seed);
        for liar in &liars {
            let data = &mut devices[*liar].1;
            if attack.kind.changes_rows() {
                *data = Arc::new(rows::Poisoned::new(attack.kind, Arc::clone(data)));
            }
        }
        let cohort = job.settings().cohort.target as f64;
        let strength = attack.strength.unwrap_or_else(|| match attack.kind {
            Kind::ScaledReplacement => cohort,
            Kind::Alie => words::alie_z(cohort, (attack.share * cohort).floor()),
            _ => 5.0,
        });
        let names = liars.iter().map(|liar| devices[*liar].0.clone()).collect();
        let colluders = liars.iter().take(COLLUDERS_MAX).map(|liar| devices[*liar].clone()).collect();
        Ok(Arc::new(Self { kind: attack.kind, strength, names, colluders, agreed: Mutex::default() }))
    }

    /// A work as the machine that ordered it does it.
    pub fn run(
        &self,
        runner: Runner,
        work: &Work,
        objects: &dyn Objects,
        data: &dyn LocalData,
    ) -> Result<Output, WorkFault> {
        match work {
            Work::Local { collection, task, name, .. }
                if collection.work == Gathered::Train && self.kind.changes_words() && self.names.contains(name) =>
            {
                let spec = Task::decode(task).map_err(|e| WorkFault::Declined(e.to_string()))?.spec;
                self.lie(runner, &spec, work, objects, data)
            }
            _ => runner(work, objects, data),
        }
    }
}
