//! A federation small enough to check on paper: devices hold quadratics, rounds go through every byte of the real path.

use littoral_fed::Learner;
use littoral_fed::aggregate::Partial;
use littoral_fed::algorithm::{Algorithm, AlgorithmSpec, Start, State, StateView, advance};
use littoral_fed::learner::{Batch, Correct};
use littoral_fed::plan::{Plan, Resolution, Weighting};
use littoral_fed::seal::Sealed;
use littoral_wire::message::Work;
use littoral_wire::{Collection, JobId, NodeId};

/// f(w) = ½ Σ a_j (w_j − b_j)², trained with SGD: u ← ρ u + g, w ← w − η u.
#[derive(Clone, Debug)]
pub struct Quadratic {
    pub a: Vec<f32>,
    pub b: Vec<f32>,
    pub examples: u64,
    pub steps: usize,
    pub learning_rate: f32,
    pub momentum: f32,
    pub velocity: Vec<f32>,
}

impl Quadratic {
    pub fn new(a: &[f32], b: &[f32], steps: usize, learning_rate: f32) -> Self {
        let velocity = vec![0.0; a.len()];
        Self { a: a.into(), b: b.into(), examples: 1, steps, learning_rate, momentum: 0.0, velocity }
    }

    pub fn gradient(&self, w: &[f32]) -> Vec<f32> {
        (0..w.len()).map(|j| self.a[j] * (w[j] - self.b[j])).collect()
    }
}

impl Learner for Quadratic {
    fn examples(&self) -> u64 {
        self.examples
    }
    fn steps(&self) -> usize {
        self.steps
    }
    fn loss(&mut self, w: &[f32]) -> f64 {
        (0..w.len()).map(|j| f64::from(0.5 * self.a[j] * (w[j] - self.b[j]).powi(2))).sum()
    }
    fn learning_rate(&self) -> f32 {
        self.learning_rate
    }
    fn momentum(&self) -> f32 {
        self.momentum
    }
    fn step(&mut self, w: &mut [f32], correct: Option<Correct<'_>>) -> f32 {
        let mut g = vec![0.0; w.len()];
        let loss = Learner::gradient(self, w, Batch::Next, &mut g);
        if let Some(correct) = correct {
            correct(w, &mut g);
        }
        self.descend(w, &mut g);
        loss
    }
    fn gradient(&mut self, w: &[f32], _: Batch, gradient: &mut [f32]) -> f32 {
        gradient.copy_from_slice(&Quadratic::gradient(self, w));
        (0..w.len()).map(|j| 0.5 * self.a[j] * (w[j] - self.b[j]).powi(2)).sum()
    }
    fn descend(&mut self, w: &mut [f32], gradient: &mut [f32]) {
        for ((w, u), g) in w.iter_mut().zip(&mut self.velocity).zip(gradient) {
            *u = self.momentum * *u + *g;
            *w -= self.learning_rate * *u;
        }
    }
    fn restart(&mut self) {
        self.velocity.fill(0.0);
    }
}

/// The argmin of Σ f_i: coordinate by coordinate (Σ a_i)⁻¹ Σ a_i b_i.
pub fn argmin(devices: &[Quadratic]) -> Vec<f64> {
    let sum = |j, of: &dyn Fn(&Quadratic, usize) -> f64| devices.iter().map(|q| of(q, j)).sum::<f64>();
    let (a, ab) = (|q: &Quadratic, j: usize| f64::from(q.a[j]), |q: &Quadratic, j: usize| f64::from(q.a[j] * q.b[j]));
    (0..devices[0].a.len()).map(|j| sum(j, &ab) / sum(j, &a)).collect()
}

pub fn device(i: usize) -> NodeId {
    NodeId([i as u8; 32])
}

/// A cloud and its devices, without anything between them.
pub struct Fleet {
    pub algorithm: Box<dyn Algorithm>,
    pub plan: Plan,
    pub devices: Vec<Quadratic>,
    /// What each device keeps, if its algorithm has it keep anything.
    pub kept: Vec<Option<Vec<i32>>>,
    pub model: Vec<f32>,
    pub state: Vec<State>,
    pub version: u64,
    pub chunk_len: usize,
}

impl Fleet {
    /// Every device counts the same; as many levels as fit 32 bits.
    pub fn new(toml: &str, devices: &[Quadratic], model: &[f32]) -> Self {
        Self::with(toml, Weighting::Uniform, Resolution::Fit32, devices, model)
    }

    /// Deltas in [−4, 4).
    pub fn with(
        toml: &str,
        weighting: Weighting,
        resolution: Resolution,
        devices: &[Quadratic],
        model: &[f32],
    ) -> Self {
        let algorithm = toml::from_str::<AlgorithmSpec>(toml).unwrap().build().unwrap();
        Self::of(algorithm, weighting, resolution, devices, model)
    }

    /// Of an algorithm that no job names.
    #[allow(dead_code)] // Not every test has one.
    pub fn around(algorithm: Box<dyn Algorithm>, devices: &[Quadratic], model: &[f32]) -> Self {
        Self::of(algorithm, Weighting::Uniform, Resolution::Fit32, devices, model)
    }

    fn of(
        algorithm: Box<dyn Algorithm>,
        weighting: Weighting,
        resolution: Resolution,
        devices: &[Quadratic],
        model: &[f32],
    ) -> Self {
        let sections = algorithm.sections(model.len(), 4.0);
        let plan = Plan::new(devices.len() as u32, weighting, resolution, sections, algorithm.wholes()).unwrap();
        let state = algorithm.cloud_state().iter().map(|vector| vector.initial.state(model.len())).collect();
        let (devices, kept) = (devices.to_vec(), vec![None; devices.len()]);
        Self { algorithm, plan, devices, kept, model: model.into(), state, version: 0, chunk_len: 64 }
    }

    /// One device's participation: its sealed update, and what it will keep if that is included.
    pub fn participate(&self, i: usize) -> (Sealed, Option<Vec<i32>>) {
        let vectors = self.algorithm.cloud_state();
        let broadcast: Vec<StateView<'_>> =
            self.state.iter().zip(&vectors).filter(|(_, v)| v.broadcast).map(|(s, _)| s.view()).collect();
        let start = Start {
            w: &self.model,
            broadcast: &broadcast,
            device_state: self.kept[i].as_deref(),
            population: self.devices.len() as u64,
            plan: &self.plan,
        };
        let mut raw = self.algorithm.local(&start, &mut self.devices[i].clone()).unwrap();
        self.algorithm.tell(&start, &mut raw).unwrap();
        let rounded = raw.unclipped().round(&self.plan).unwrap();
        assert_eq!(rounded.saturated().iter().sum::<u64>(), 0, "these tests stay inside the range");
        let pending = self.algorithm.device_state().map(|_| {
            let mut state = self.kept[i].clone().unwrap_or(vec![0; self.model.len()]);
            self.algorithm.pending(&mut state, &rounded).unwrap();
            state
        });
        let collection = Collection { job: JobId(1), version: self.version, work: Work::Train, attempt: 0 };
        (rounded.pack().seal(collection), pending)
    }

    /// One version: these devices train, and the updates of those that `included` says reach the cloud.
    pub fn round(&mut self, cohort: &[usize], included: impl Fn(usize) -> bool) {
        let mut total = Partial::empty(self.plan.format());
        let mut commits = Vec::new();
        for &i in cohort {
            let (sealed, pending) = self.participate(i);
            if included(i) {
                total.absorb(device(i), sealed.bytes()).unwrap();
                commits.push((i, pending));
            }
        }
        advance(&*self.algorithm, &self.plan, &total, &mut self.model, &mut self.state, self.chunk_len).unwrap();
        commits.into_iter().for_each(|(i, pending)| self.kept[i] = pending);
        self.version += 1;
    }

    pub fn rounds(&mut self, count: usize) -> &mut Self {
        let everybody: Vec<usize> = (0..self.devices.len()).collect();
        (0..count).for_each(|_| self.round(&everybody, |_| true));
        self
    }

    pub fn bits(&self) -> Vec<u32> {
        self.model.iter().map(|w| w.to_bits()).collect()
    }
}

/// The largest |model − target|.
pub fn distance(model: &[f32], target: &[f64]) -> f64 {
    model.iter().zip(target).map(|(&w, t)| (f64::from(w) - t).abs()).fold(0.0, f64::max)
}
