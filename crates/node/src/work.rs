//! Work: the computations that roles order and hosts run: training, evaluating, making a first model, applying a sum.
//!
//! [`run`] is a pure function of the work, the objects and the device's rows. Hosts run it where they like, several at
//! a time; the same work gives the same bytes.

mod apply;
mod bench;
mod bundle;
mod compressed;
mod drift;
mod given;
mod image;
mod learnt;
mod local;
mod merge;
mod personal;
mod private;
mod robust;
mod steps;
mod training;
mod version;

pub use bench::Room;
pub use image::expand;
pub use steps::StepsError;
pub use training::Training;
pub use version::VersionError;

use crate::job::{JobSpec, Totals};
use crate::role::Entropy;
use littoral_fed::masks::cloud::Opening;
use littoral_fed::masks::device::Masks;
use littoral_fed::round::{Given, Place};
use littoral_model::Examples;
use littoral_wire::message::Collection;
use littoral_wire::object::{Chain, Manifest};
use littoral_wire::{NodeId, ObjectId};
use std::sync::Arc;
use thiserror::Error;

/// What is to be computed.
#[derive(Clone, Debug)]
pub enum Work {
    /// A device's part of a collection: statistics, an update, or counts; sealed.
    Local {
        collection: Collection,
        /// An encoded [`crate::job::Task`].
        task: Arc<[u8]>,
        model: Manifest,
        /// What the model builds on.
        before: Chain,
        /// What the device keeps of this job between rounds.
        state: Option<Manifest>,
        /// What the device has of its own: segments of the model, or a model.
        personal: Option<Manifest>,
        /// What it learnt from this version before, for a version that is made in steps.
        learnt: Option<(u64, Manifest)>,
        device: NodeId,
        /// Seeds the order of examples together with the job's seed and the version.
        name: String,
        /// Steps of training at most; 0: as the job says.
        steps_max: u32,
        /// For noise that nobody can guess.
        entropy: Entropy,
    },
    /// Seals for a collection what the device learnt before ([`Output::Prepared`]).
    Seal {
        collection: Collection,
        task: Arc<[u8]>,
        learnt: Manifest,
        /// How much it counts by its age, in 256ths.
        times: u16,
        name: String,
        entropy: Entropy,
    },
    /// Lays masks on an update that [`Work::Local`] made of a masked job.
    Mask {
        collection: Collection,
        /// The words as they are.
        plain: Manifest,
        masks: Arc<Masks>,
    },
    /// A job's version 0.
    Initial { spec: Arc<JobSpec> },
    /// An edge's list: updates one after another.
    Bundle {
        /// Each one's object and its bytes.
        updates: Vec<(ObjectId, u64)>,
    },
    /// Sums of one collection as one: a part of `Apply`, done before it.
    Merge {
        /// Of a word.
        bits: u32,
        /// Of each sum: whole groups of words.
        bytes: u64,
        sums: Vec<ObjectId>,
    },
    /// Merge partials and take the algorithm's cloud half, chunk by chunk.
    Apply {
        spec: Arc<JobSpec>,
        collection: Collection,
        model: Manifest,
        /// What the model builds on.
        before: Chain,
        state: Option<Manifest>,
        /// The sums, in any order, or lists of updates.
        partials: Vec<Manifest>,
        /// Where each device's update is, if these are lists.
        order: Vec<Place>,
        /// Their names, in that order, and what devices were given, of an algorithm that gives each a model of its own.
        names: Vec<String>,
        given: Given,
        devices: u32,
        /// Devices of the fleet that offer the data set.
        population: u64,
        /// What to take from a masked sum.
        opening: Option<Opening>,
        /// Of an algorithm that takes one update at a time: the version at which it began, if that is an older one, what that builds
        /// on, and how much the update counts, in 256ths.
        began: Option<(Manifest, Chain, u16)>,
        /// For noise that nobody can guess.
        entropy: Entropy,
    },
}

#[derive(Clone, Debug)]
pub enum Output {
    Local {
        update: Manifest,
        /// Becomes the device's state if the update is included.
        state: Option<Manifest>,
        /// Becomes what the device has of its own, if the update is included. It never leaves.
        personal: Option<Manifest>,
        /// For the steps that follow, where a version is made in several.
        learnt: Option<Manifest>,
        note: LocalNote,
    },
    /// Of a collection of [`Kind::Prepare`](littoral_wire::message::Work::Prepare): what the device learnt. It never leaves as it
    /// is.
    Prepared {
        learnt: Manifest,
        note: LocalNote,
    },
    Masked {
        update: Manifest,
    },
    Initial {
        model: Manifest,
        state: Option<Manifest>,
    },
    Bundled {
        list: Manifest,
    },
    Merged {
        sum: Manifest,
    },
    Applied {
        model: Manifest,
        /// What it builds on.
        before: Chain,
        state: Option<Manifest>,
        /// Models that devices are given instead, by their names.
        given: Given,
        totals: Totals,
    },
}

/// For the device's own log; nothing of it leaves the device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LocalNote {
    pub examples: u64,
    pub steps: u64,
    pub mean_loss: f64,
    pub saturated: u64,
    /// What the device had of its own could not be read: it began anew.
    pub anew: bool,
}

/// Why there is no output.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum WorkFault {
    /// It cannot be done as things are, however often it is tried: a device's data do not fit, or a sum cannot be
    /// applied. The sentence goes to the cloud.
    #[error("{0}")]
    Declined(String),
    /// It may go better later: a full disk, say.
    #[error("{0}")]
    Failed(String),
}

/// An object could not be read or written.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ObjectFault {
    #[error("object {0} is not here")]
    Missing(ObjectId),
    #[error("object {object}: {why}")]
    Damaged { object: ObjectId, why: String },
    #[error("{0}")]
    Disk(String),
}

impl From<ObjectFault> for WorkFault {
    fn from(fault: ObjectFault) -> Self {
        WorkFault::Failed(fault.to_string())
    }
}

/// Where objects are. Calls block; works run on threads that may.
pub trait Objects: Send + Sync {
    /// Fills `out` from `offset` on; the object must have that many bytes.
    fn read(&self, object: ObjectId, offset: u64, out: &mut [u8]) -> Result<(), ObjectFault>;
    /// A new object, written from front to back.
    fn create(&self) -> Result<Box<dyn ObjectWriter + '_>, ObjectFault>;
}

pub trait ObjectWriter {
    fn append(&mut self, bytes: &[u8]) -> Result<(), ObjectFault>;
    /// The object is here from now on, under its manifest's id; durable only after [`crate::role::Write::Object`].
    fn finish(self: Box<Self>) -> Result<Manifest, ObjectFault>;
}

/// What a work finds on its device and nowhere else: rows, and how long steps take.
pub trait LocalData: Send + Sync {
    /// The device's own rows, brought to a job's schema. They are as they are in the files: standardisation comes with the
    /// model.
    fn rows(&self, spec: &JobSpec) -> Result<Rows, String>;

    /// A watch that starts now, for jobs whose training ends when its time is up.
    fn watch(&self) -> Box<dyn Watch> {
        Box::new(Stopped)
    }
}

/// Tells how long a training has taken so far.
pub trait Watch {
    /// Milliseconds since it started; `steps` were made since.
    fn ms(&self, steps: u64) -> u64;
}

/// On a machine without time training takes none.
struct Stopped;

impl Watch for Stopped {
    fn ms(&self, _: u64) -> u64 {
        0
    }
}

/// A device's rows and its own split of them.
#[derive(Clone, Debug)]
pub struct Rows {
    pub examples: Arc<Examples>,
    /// Rows that train.
    pub train: Vec<u32>,
    /// Rows that evaluate, and never train.
    pub held_out: Vec<u32>,
}

pub fn run(work: &Work, objects: &dyn Objects, data: &dyn LocalData) -> Result<Output, WorkFault> {
    match work {
        Work::Local {
            collection,
            task,
            model,
            before,
            state,
            personal,
            learnt,
            device: _,
            name,
            steps_max,
            entropy,
        } => {
            let steps_max = *steps_max as usize;
            let learnt = learnt.as_ref().map(|(version, learnt)| (*version, learnt));
            let kept = local::Kept { state: state.as_ref(), personal: personal.as_ref(), learnt };
            local::run(*collection, task, (model, before), kept, name, steps_max, entropy, objects, data)
        }
        Work::Seal { collection, task, learnt, times, name, entropy } => {
            local::seal(*collection, task, learnt, *times, name, entropy, objects)
        }
        Work::Mask { collection, plain, masks } => local::mask(*collection, plain, masks, objects),
        Work::Initial { spec } => apply::initial(spec, objects),
        Work::Bundle { updates } => bundle::run(updates, objects),
        Work::Merge { bits, bytes, sums } => merge::run(*bits, *bytes, sums, objects),
        Work::Apply {
            spec,
            collection,
            model,
            before,
            state,
            partials,
            order,
            names,
            given,
            devices,
            population,
            opening,
            began,
            entropy,
        } => {
            let (devices, population, opening) = (*devices, *population, opening.as_ref());
            let began = began.as_ref();
            let sum = apply::Sum { partials, order, names, given, devices, population, opening, began, entropy };
            apply::run(spec, *collection, (model, before), state.as_ref(), &sum, objects)
        }
    }
}

#[cfg(test)]
mod tests;
