//! Federated algorithms: one file each, both halves in it, its paper named.
//!
//! The **device half** ([`Algorithm::local`]) trains through a [`Learner`] and tells a [`Raw`] update; after sealing,
//! [`Algorithm::pending`] says what the device will remember of it *if* the update is included. The **cloud half**
//! ([`Algorithm::apply`]) turns sums into the next model, element by element, so that a model of any size passes
//! through in chunks and no bit depends on how it was cut.
//!
//! Sorted from simple to complex, each adding one thing:
//!
//! | file | adds | half |
//! |---|---|---|
//! | `fedavg` | the weighted mean of deltas | |
//! | `fedprox` | a pull towards the model that training began at | device |
//! | `fedavgm` | momentum over versions | cloud |
//! | `fedopt` | the family of the next three: a step size per coordinate | cloud |
//! | `fedadagrad`, `fedadam`, `fedyogi` | how the second moment grows | cloud |
//! | `fednova` | devices that took different numbers of steps | both |
//! | `qfedavg` | devices that the model serves badly | both |
//! | `fedbuff` | updates of different ages | cloud |
//! | `fedasync` | a version of each update, by itself | cloud |
//! | `scaffold` | control variates, kept on device and cloud | both |
//! | `fedbn` | normalisation that stays on the device | device |
//! | `fedper` | last layers that stay on the device | device |
//! | `fedrep` | …and train first, by themselves | device |
//! | `ditto` | a whole model of the device's own, pulled towards the version | device |
//! | `perfedavg` | a version from which one step leads to a good model of one's own | device |
//! | `fedamp` | a model given to each device, mixed at the cloud from those near its own | both |
//!
//! Which devices, when, over what network and how often is not decided here.

mod fedopt;
mod personal;

pub use personal::{Keeps, Personal};

use crate::aggregate::{Partial, Refused};
use crate::home::{Home, HomeError, Places};
use crate::learner::{Correct, Learner};
use crate::open::{self, OpenError, Totals};
use crate::plan::{Plan, Section};
use crate::seal::{Raw, SealError, Sent};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Makes each file a module, a variant of [`AlgorithmSpec`] and a name that jobs can use.
macro_rules! register {
    ($($file:ident::$Algorithm:ident = $name:literal,)*) => {
        $(pub mod $file;)*

        /// An algorithm and its parameters, as a job names them: `name = "fedprox"`, `mu = 0.1`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "name")]
        pub enum AlgorithmSpec {
            $(#[serde(rename = $name)] $Algorithm($file::$Algorithm),)*
        }

        /// Every name that a job may use.
        pub const NAMES: &[&str] = &[$($name),*];

        impl AlgorithmSpec {
            /// The algorithm, if its parameters are in range.
            pub fn build(&self) -> Result<Box<dyn Algorithm>, SpecError> {
                match self {
                    $(Self::$Algorithm(algorithm) => {
                        algorithm.check()?;
                        Ok(Box::new(algorithm.clone()))
                    })*
                }
            }
        }
    };
}

// To add an algorithm: write its file, and its line here.
register! {
    fedavg::FedAvg = "fedavg",
    fedprox::FedProx = "fedprox",
    fedavgm::FedAvgM = "fedavgm",
    fedadagrad::FedAdagrad = "fedadagrad",
    fedadam::FedAdam = "fedadam",
    fedyogi::FedYogi = "fedyogi",
    fednova::FedNova = "fednova",
    fedbuff::FedBuff = "fedbuff",
    fedasync::FedAsync = "fedasync",
    qfedavg::QFedAvg = "qfedavg",
    scaffold::Scaffold = "scaffold",
    fedbn::FedBn = "fedbn",
    fedper::FedPer = "fedper",
    fedrep::FedRep = "fedrep",
    ditto::Ditto = "ditto",
    perfedavg::PerFedAvg = "perfedavg",
    fedamp::FedAmp = "fedamp",
}

/// Both halves of a federated algorithm. What most algorithms do not need has a default.
pub trait Algorithm: Send + Sync {
    fn name(&self) -> &'static str;

    /// Are the parameters in range?
    fn check(&self) -> Result<(), SpecError> {
        Ok(())
    }

    /// The real sections of an update to a model of `params` parameters. Section 0 is the delta; `range` bounds its
    /// coordinates.
    fn sections(&self, params: usize, range: f32) -> Vec<Section> {
        vec![delta(params, range)]
    }

    /// Exact integers that an update carries, its first ones.
    fn wholes(&self) -> usize {
        0
    }

    /// Vectors that the cloud keeps between versions, one element per parameter each.
    fn cloud_state(&self) -> Vec<StateVector> {
        Vec::new()
    }

    /// The name of the integer vector that a device keeps between participations, one element per parameter, zeros at
    /// first.
    fn device_state(&self) -> Option<&'static str> {
        None
    }

    /// Whether a version is made of one update, which may be old: then the cloud half gets where it began
    /// ([`Chunk::began`]), and weighs it by its age itself. Else devices do, before they round.
    fn alone(&self) -> bool {
        false
    }

    /// How the cloud mixes a model for each device from those of all; `None`: all are given the version. With it every update is
    /// seen by itself, and a device's [`Start::w`] is what it is given.
    fn mixes(&self) -> Option<&fedamp::FedAmp> {
        None
    }

    /// What devices keep to themselves, so that each has a model of its own; `None`: all have the version.
    fn keeps(&self) -> Option<Keeps> {
        None
    }

    /// Which parameters of a model never leave a device. The plan, sections, state and cloud half are of the others.
    fn home(&self, places: &Places) -> Result<Home, HomeError> {
        Ok(Home::empty(places.params))
    }

    /// Device half: one participation.
    fn local(&self, start: &Start<'_>, learner: &mut dyn Learner) -> Result<Raw, LocalError>;

    /// Device half: what is told of what was learnt, where that hangs on more of the version than training does. What was learnt
    /// once may be told of several versions.
    fn tell(&self, _start: &Start<'_>, _raw: &mut Raw) -> Result<(), LocalError> {
        Ok(())
    }

    /// Device half of an algorithm that [keeps](Algorithm::keeps) something on devices: `personal` becomes what it is if the update
    /// is included.
    fn local_personal(
        &self,
        start: &Start<'_>,
        _personal: &mut Personal<'_>,
        learner: &mut dyn Learner,
    ) -> Result<Raw, LocalError> {
        self.local(start, learner)
    }

    /// The device's own model, the whole of it: what it would use, and what is evaluated. `w`: the version.
    fn own_model(
        &self,
        w: &[f32],
        personal: &Personal<'_>,
        _learner: &mut dyn Learner,
    ) -> Result<Vec<f32>, LocalError> {
        Ok(personal.home.whole(w, &personal.own)?)
    }

    /// Device half: makes of the device's state what it becomes if `sent` is included. On an error the state must be
    /// thrown away, as it is when the update is not included.
    fn pending(&self, _state: &mut [i32], _sent: &dyn Sent) -> Result<(), StateError> {
        Ok(())
    }

    /// Cloud half: takes some coordinates of one section into the model and the cloud's state, element by element.
    /// Every section is applied once per version, in order; [`apply_chunk`] is how to call it. On an error the chunk
    /// is in no defined state and must be thrown away.
    fn apply(&self, plan: &Plan, totals: &Totals, section: usize, chunk: &mut Chunk<'_>) -> Result<(), ApplyError>;
}

/// What a device starts from.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    /// The model's parameters.
    pub w: &'a [f32],
    /// The cloud's broadcast state vectors, in the order of [`Algorithm::cloud_state`].
    pub broadcast: &'a [StateView<'a>],
    /// What the device keeps; `None` before its first inclusion.
    pub device_state: Option<&'a [i32]>,
    /// Devices that may ever take part in the job; 1 or more.
    pub population: u64,
    pub plan: &'a Plan,
}

/// A vector that the cloud keeps: one 4-byte element per parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StateVector {
    pub name: &'static str,
    pub initial: Initial,
    /// Whether devices get it with the model.
    pub broadcast: bool,
}

/// A state vector's kind, and every element's first value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    Real(f32),
    Whole(i32),
}

/// A state vector, or a part of one, to read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StateView<'a> {
    Real(&'a [f32]),
    Whole(&'a [i32]),
}

/// A state vector, or a part of one, to change.
#[derive(Debug)]
pub enum StateSlice<'a> {
    Real(&'a mut [f32]),
    Whole(&'a mut [i32]),
}

/// A state vector in memory.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    Real(Vec<f32>),
    Whole(Vec<i32>),
}

/// Some neighbouring coordinates of everything that the cloud half touches; all slices have one length.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// The first coordinate's place in the model, for messages.
    pub first: usize,
    pub model: &'a mut [f32],
    /// In the order of [`Algorithm::cloud_state`].
    pub state: &'a mut [StateSlice<'a>],
    /// The section's sums in its plan's steps: whole numbers, as devices sent them, below 2^53 exactly; or real ones, where
    /// devices sent a transform.
    pub sum: &'a [f64],
    /// Where the one update of an algorithm that takes one at a time began; `None`: at this very version.
    pub began: Option<Began<'a>>,
}

/// An older version, at which an update began.
#[derive(Clone, Copy, Debug)]
pub struct Began<'a> {
    pub model: &'a [f32],
    /// s(τ): how much the update counts by its age; above 0, at most 1.
    pub weight: f32,
}

/// A parameter outside its range.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("algorithm.{field} is {value}, allowed is {allowed}")]
pub struct SpecError {
    pub field: &'static str,
    pub value: f32,
    pub allowed: &'static str,
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum LocalError {
    #[error("{what}: {expected} expected, got {got}")]
    Shape { what: &'static str, expected: usize, got: usize },
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error("{algorithm} divides by {what}, which must be finite and above 0, got {got}")]
    Divisor { algorithm: &'static str, what: &'static str, got: f64 },
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum StateError {
    #[error(transparent)]
    Sent(#[from] SealError),
    #[error("{state} has {expected} elements, the update {got}")]
    Length { state: &'static str, expected: usize, got: usize },
    #[error("{state}, element {index}: {value} + {added} leaves 32 bits; {remedy}")]
    Overflow { state: &'static str, index: usize, value: i32, added: i64, remedy: &'static str },
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum ApplyError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Partial(#[from] Refused),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("{what}: {expected} expected, got {got}")]
    Shape { what: &'static str, expected: usize, got: usize },
    #[error("{algorithm} keeps {expected}, the chunk has something else")]
    WrongState { algorithm: &'static str, expected: &'static str },
    #[error("parameter {index} would become {value}; the training diverged")]
    Diverged { index: usize, value: f32 },
}

impl Initial {
    /// The vector at the job's beginning.
    pub fn state(self, params: usize) -> State {
        match self {
            Self::Real(value) => State::Real(vec![value; params]),
            Self::Whole(value) => State::Whole(vec![value; params]),
        }
    }
}

impl State {
    pub fn view(&self) -> StateView<'_> {
        match self {
            Self::Real(v) => StateView::Real(v),
            Self::Whole(v) => StateView::Whole(v),
        }
    }

    /// Elements `first..first + len`. Panics past the end.
    pub fn slice(&mut self, first: usize, len: usize) -> StateSlice<'_> {
        match self {
            Self::Real(v) => StateSlice::Real(&mut v[first..first + len]),
            Self::Whole(v) => StateSlice::Whole(&mut v[first..first + len]),
        }
    }
}

impl StateSlice<'_> {
    /// The same elements, for as long as this is borrowed.
    pub fn again(&mut self) -> StateSlice<'_> {
        match self {
            Self::Real(v) => StateSlice::Real(v),
            Self::Whole(v) => StateSlice::Whole(v),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Real(v) => v.len(),
            Self::Whole(v) => v.len(),
        }
    }
}

/// The cloud half on one chunk: [`Algorithm::apply`] between a check of the shapes and a check that the model is still
/// made of numbers.
pub fn apply_chunk(
    algorithm: &dyn Algorithm,
    plan: &Plan,
    totals: &Totals,
    section: usize,
    mut chunk: Chunk<'_>,
) -> Result<(), ApplyError> {
    let expect = |what, expected, got| match expected == got {
        true => Ok(()),
        false => Err(ApplyError::Shape { what, expected, got }),
    };
    let expected = chunk.sum.len();
    expect("parameters in the chunk", expected, chunk.model.len())?;
    if let Some(began) = &chunk.began {
        expect("parameters of the version at which the update began", expected, began.model.len())?;
    }
    expect("state vectors", algorithm.cloud_state().len(), chunk.state.len())?;
    for state in chunk.state.iter() {
        expect("state elements in the chunk", expected, state.len())?;
    }
    algorithm.apply(plan, totals, section, &mut chunk)?;
    match chunk.model.iter().position(|w| !w.is_finite()) {
        Some(at) => Err(ApplyError::Diverged { index: chunk.first + at, value: chunk.model[at] }),
        None => Ok(()),
    }
}

/// The cloud half for a model that is all in memory: opens the total and applies it, `chunk_len` coordinates at a
/// time, which changes no bit.
pub fn advance(
    algorithm: &dyn Algorithm,
    plan: &Plan,
    total: &Partial,
    model: &mut [f32],
    state: &mut [State],
    chunk_len: usize,
) -> Result<Totals, ApplyError> {
    let bytes = total.bytes()?;
    if plan.format() != total.format() {
        let (expected, got) = (plan.format().bytes(), total.format().bytes());
        return Err(ApplyError::Shape { what: "bytes of the total", expected, got });
    }
    let totals = open::open_header(plan, total.devices().len() as u64, &bytes[..plan.header_bytes()])?;
    let chunk_len = chunk_len.max(1);
    let mut words = vec![0; chunk_len.min(model.len())];
    let mut sum = vec![0.0; words.len()];
    for section in 0..plan.sections().len() {
        for first in (0..model.len()).step_by(chunk_len) {
            let len = chunk_len.min(model.len() - first);
            let place = plan.section_bytes(section, first..first + len);
            open::open_section(plan, section, first..first + len, &bytes[place], &mut words[..len])?;
            sum.iter_mut().zip(&words).for_each(|(sum, &word)| *sum = word as f64);
            let mut state: Vec<StateSlice<'_>> = state.iter_mut().map(|s| s.slice(first, len)).collect();
            let model = &mut model[first..first + len];
            apply_chunk(
                algorithm,
                plan,
                &totals,
                section,
                Chunk { first, model, state: &mut state, sum: &sum[..len], began: None },
            )?;
        }
    }
    Ok(totals)
}

/// The first section of every algorithm here.
fn delta(params: usize, range: f32) -> Section {
    Section { name: "delta", len: params, range, weighted: true }
}

/// What a participation's steps came to.
struct Trained {
    /// w_i − w.
    delta: Vec<f32>,
    loss: f32,
    steps: usize,
}

/// Local training as every algorithm here does it: the steps of a participation, from `start.w`, all of them or as many as
/// there is time for.
fn train(start: &Start<'_>, learner: &mut dyn Learner, correct: Option<Correct<'_>>) -> Trained {
    let mut w = start.w.to_vec();
    let most = learner.steps();
    let (loss, steps) = run(&mut w, most, learner, correct);
    w.iter_mut().zip(start.w).for_each(|(local, &w)| *local -= w);
    Trained { delta: w, loss, steps }
}

/// Moves `w` by so many steps, or as many as there is time for. Returns the mean loss, and how many were made.
fn run(w: &mut [f32], most: usize, learner: &mut dyn Learner, mut correct: Option<Correct<'_>>) -> (f32, usize) {
    let mut loss = 0f64;
    let mut steps = 0;
    while steps < most {
        loss += f64::from(match &mut correct {
            Some(correct) => learner.step(w, Some(&mut **correct)),
            None => learner.step(w, None),
        });
        steps += 1;
        if learner.spent() {
            break;
        }
    }
    ((loss / steps.max(1) as f64) as f32, steps)
}

/// ‖a‖₁ of Wang et al. 2020, section 4: how many plain steps a participation's steps amount to. With momentum ρ the
/// step at k of τ goes on in those after it, (1 − ρ^(τ−k)) / (1 − ρ) in all; without, this is τ.
fn effective_steps(learner: &dyn Learner, steps: usize) -> f64 {
    let (tau, rho) = (steps as f64, f64::from(learner.momentum()));
    (tau - rho * (1.0 - rho.powf(tau)) / (1.0 - rho)) / (1.0 - rho)
}

/// One parameter's range.
fn within(allowed: bool, field: &'static str, value: f32, range: &'static str) -> Result<(), SpecError> {
    // NaN compares false with everything, so it is in no range.
    if allowed { Ok(()) } else { Err(SpecError { field, value, allowed: range }) }
}

const ABOVE_ZERO: &str = "a finite number above 0";
const ZERO_TO_ONE: &str = "0 <= value < 1";

fn above_zero(field: &'static str, value: f32) -> Result<(), SpecError> {
    within(value > 0.0 && value.is_finite(), field, value, ABOVE_ZERO)
}

fn zero_to_one(field: &'static str, value: f32) -> Result<(), SpecError> {
    within((0.0..1.0).contains(&value), field, value, ZERO_TO_ONE)
}

#[cfg(test)]
mod tests;
