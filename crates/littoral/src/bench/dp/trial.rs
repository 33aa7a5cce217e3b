//! One run: rounds of the MNIST work with one mechanism, or with none.

use super::super::fedavg::{collection, device};
use super::super::mnist::{self, BATCH, Mnist};
use super::super::{broken, team};
use crate::output::Failure;
use littoral_fed::aggregate::Partial;
use littoral_fed::algorithm::fedavgm::FedAvgM;
use littoral_fed::algorithm::{Algorithm, Chunk, Start, State, StateSlice, apply_chunk};
use littoral_fed::dp::Noise;
use littoral_fed::open::{open_header, open_section};
use littoral_fed::plan::{Plan, Resolution, Weighting};
use littoral_model::Model;
use littoral_node::role::Entropy;
use littoral_node::work::{Room, Training};
use littoral_privacy::noise::DiscreteGaussian;
use littoral_privacy::rotate::Rotation;
use std::sync::atomic::{AtomicU64, Ordering};

pub struct World {
    pub mnist: Mnist,
    pub model: Model,
    rooms: Vec<Option<Room>>,
}

/// How the cloud uses a sum.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    pub rate: f32,
    pub momentum: f32,
}

pub struct Outcome {
    pub accuracy: f64,
    /// Share of updates that were clipped.
    pub clipped: f64,
}

struct Place<'r> {
    room: &'r mut Option<Room>,
    partial: Partial,
}

impl World {
    pub fn new(mnist: Mnist, model: Model, threads: usize) -> Self {
        Self { mnist, model, rooms: (0..threads).map(|_| None).collect() }
    }

    pub fn params(&self) -> usize {
        self.model.layout().len()
    }

    /// How often the client that takes part most does so.
    pub fn participations_max(&self, rounds: usize) -> u64 {
        let mut counts = vec![0; self.mnist.clients.len()];
        self.mnist.cohorts.iter().take(rounds).flatten().for_each(|&client| counts[client] += 1);
        counts.into_iter().max().unwrap_or(0)
    }

    fn plan(&self, algorithm: &dyn Algorithm, noise: Option<&Noise>, cohort: u32) -> Result<Plan, Failure> {
        let fault = |e: littoral_fed::plan::PlanError| broken("a plan")(&e);
        let range = noise.map_or(4.0, |noise| noise.spec.clip as f32);
        let sections = algorithm.sections(self.params(), range);
        match noise {
            Some(noise) => noise.plan(cohort, sections, 0).map_err(fault),
            None => Plan::new(cohort, Weighting::Uniform, Resolution::Fit32, sections, 0).map_err(fault),
        }
    }

    pub fn run(&mut self, noise: Option<&Noise>, server: Server, seed: u64, rounds: usize) -> Result<Outcome, Failure> {
        let fault = |e: &dyn std::fmt::Display| broken("littoral bench dp")(e);
        let cohort = self.mnist.cohorts.iter().map(Vec::len).max().unwrap_or(1) as u32;
        let algorithm = FedAvgM { learning_rate: server.rate, beta: server.momentum };
        let plan = self.plan(&algorithm, noise, cohort)?;
        let mut w = self.model.init(seed);
        let mut states: Vec<State> = algorithm.cloud_state().iter().map(|v| v.initial.state(w.len())).collect();
        // Noise here follows from the seed, so that a run can be repeated.
        let generator = |purpose: &str, round: usize, client: usize| {
            let subject: Vec<u8> =
                [seed, round as u64, client as u64].iter().flat_map(|number| number.to_le_bytes()).collect();
            Entropy::new(Entropy::new([0; 32]).draw(purpose, &subject)).generator("littoral bench dp")
        };
        let (clipped, updates) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut rooms = std::mem::take(&mut self.rooms);
        let local = mnist::local();
        for round in 0..rounds {
            let rotation = Rotation::new(w.len(), &mut generator("rotation", round, 0));
            let clients = &self.mnist.cohorts[round];
            let places = rooms.iter_mut().map(|room| Place { room, partial: Partial::empty(plan.format()) });
            let mut places: Vec<Place<'_>> = places.collect();
            team::share(&mut places, clients.len(), |place, index| {
                let client = clients[index];
                let room = Room::of(place.room, &self.model, BATCH as usize);
                let order = seed ^ ((round as u64) << 32 | client as u64);
                let mut training = Training::new(&self.model, &self.mnist.clients[client], &local, order, room);
                let start = Start { w: &w, broadcast: &[], device_state: None, population: 1, plan: &plan };
                let raw = algorithm.local(&start, &mut training).map_err(|e| fault(&e))?;
                let packed = match noise {
                    None => raw.unclipped().round(&plan).map_err(|e| fault(&e))?.pack(),
                    Some(noise) => {
                        let update = raw.clip(noise.spec.clip as f32).map_err(|e| fault(&e))?;
                        let longer = update.norm().is_some_and(|norm| norm > noise.spec.clip);
                        clipped.fetch_add(longer.into(), Ordering::Relaxed);
                        match noise.on_devices() {
                            false => update.round(&plan).map_err(|e| fault(&e))?.pack(),
                            true => {
                                let mut rng = generator("share", round, client);
                                let update = update.rotate(&rotation).map_err(|e| fault(&e))?;
                                let rounded = update.round_conditionally(&plan, noise.spec.rounding_beta, &mut rng);
                                let rounded = rounded.map_err(|e| fault(&e))?;
                                rounded.noise(noise.law(), &noise.release, &mut rng).map_err(|e| fault(&e))?.pack()
                            }
                        }
                    }
                };
                updates.fetch_add(1, Ordering::Relaxed);
                let sealed = packed.seal(collection(round));
                place.partial.absorb(device(client), sealed.bytes()).map_err(|e| fault(&e))
            })?;
            let mut total = Partial::empty(plan.format());
            for place in &places {
                total.merge(&place.partial).map_err(|e| fault(&e))?;
            }
            let bytes = total.bytes().map_err(|e| fault(&e))?;
            let devices = total.devices().len() as u64;
            let mut totals = open_header(&plan, devices, &bytes[..plan.header_bytes()]).map_err(|e| fault(&e))?;
            totals.weight_sum = cohort.into();
            let mut words = vec![0; w.len()];
            let place = plan.section_bytes(0, 0..w.len());
            open_section(&plan, 0, 0..w.len(), &bytes[place], &mut words).map_err(|e| fault(&e))?;
            if let Some(variance) = noise.and_then(Noise::central_variance) {
                let law = DiscreteGaussian::new(variance).map_err(|e| fault(&e))?;
                law.add_to(&mut words, &mut generator("sum", round, 0));
            }
            let mut sum: Vec<f64> = words.iter().map(|&word| word as f64).collect();
            if noise.is_some_and(Noise::on_devices) {
                let mut narrow: Vec<f32> = sum.iter().map(|&sum| sum as f32).collect();
                rotation.inverse(&mut narrow);
                sum.iter_mut().zip(narrow).for_each(|(sum, narrow)| *sum = narrow.into());
            }
            let len = w.len();
            let mut state: Vec<StateSlice<'_>> = states.iter_mut().map(|state| state.slice(0, len)).collect();
            let chunk = Chunk { first: 0, model: &mut w, state: &mut state, sum: &sum };
            apply_chunk(&algorithm, &plan, &totals, 0, chunk).map_err(|e| fault(&e))?;
        }
        let accuracy = mnist::accuracy(&self.model, &w, &self.mnist, rooms.iter_mut())?;
        self.rooms = rooms;
        let share = clipped.load(Ordering::Relaxed) as f64 / updates.load(Ordering::Relaxed).max(1) as f64;
        Ok(Outcome { accuracy, clipped: share })
    }
}
