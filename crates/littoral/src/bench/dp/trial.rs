//! One run: rounds of the MNIST work with one mechanism, or with none.

use super::super::fedavg::{collection, device};
use super::super::mnist::{self, BATCH, Mnist};
use super::super::{broken, team};
use super::masked::Fleet;
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
use std::time::{Duration, Instant};

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
    /// Wall-clock seconds of all rounds, and those of them that masks took (where devices lay masks on side by side, the threads'
    /// mean).
    pub seconds: f64,
    pub masking_seconds: f64,
    /// What was learnt, to be held against another run.
    #[cfg(test)]
    pub w: Vec<f32>,
}

struct Place<'r> {
    room: &'r mut Option<Room>,
    partial: Partial,
    masking: Duration,
}

impl World {
    pub fn new(mnist: Mnist, model: Model, threads: usize) -> Self {
        Self { mnist, model, rooms: (0..threads).map(|_| None).collect() }
    }

    pub fn params(&self) -> usize {
        self.model.layout().len()
    }

    /// The largest cohort.
    pub fn cohort(&self) -> u32 {
        self.mnist.cohorts.iter().map(Vec::len).max().unwrap_or(1) as u32
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

    /// With a fleet, sums to which devices add noise are masked.
    pub fn run(
        &mut self,
        noise: Option<&Noise>,
        fleet: Option<&Fleet>,
        server: Server,
        seed: u64,
        rounds: usize,
    ) -> Result<Outcome, Failure> {
        let fault = |e: &dyn std::fmt::Display| broken("littoral bench dp")(e);
        let cohort = self.cohort();
        let algorithm = FedAvgM { learning_rate: server.rate, beta: server.momentum };
        let plan = self.plan(&algorithm, noise, cohort)?;
        let mut w = self.model.init(seed);
        let mut states: Vec<State> = algorithm.cloud_state().iter().map(|v| v.initial.state(w.len())).collect();
        // Noise here follows from the seed, so that a run can be repeated.
        let entropy = |purpose: &str, round: usize, client: usize| {
            let subject: Vec<u8> =
                [seed, round as u64, client as u64].iter().flat_map(|number| number.to_le_bytes()).collect();
            Entropy::new(Entropy::new([0; 32]).draw(purpose, &subject))
        };
        let generator = |purpose: &str, round, client| entropy(purpose, round, client).generator("littoral bench dp");
        let fleet = fleet.filter(|_| noise.is_some_and(Noise::on_devices));
        let (clipped, updates) = (AtomicU64::new(0), AtomicU64::new(0));
        let (start, mut masking) = (Instant::now(), Duration::ZERO);
        let mut rooms = std::mem::take(&mut self.rooms);
        let local = mnist::local();
        for round in 0..rounds {
            let rotation = Rotation::new(w.len(), &mut generator("rotation", round, 0));
            let clients = &self.mnist.cohorts[round];
            let threads = rooms.len();
            let session = fleet.map(|fleet| {
                fleet.agree(clients, collection(round), plan.format(), &entropy("masks", round, 0), threads)
            });
            let mut session = session.transpose()?;
            let place = |room| Place { room, partial: Partial::empty(plan.format()), masking: Duration::ZERO };
            let mut places: Vec<Place<'_>> = rooms.iter_mut().map(place).collect();
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
                let (id, sealed) = match (&session, fleet) {
                    (Some(session), Some(fleet)) => {
                        let start = Instant::now();
                        let masked = packed.mask(&session.masks(index)?).map_err(|e| fault(&e))?;
                        place.masking += start.elapsed();
                        (fleet.id(client), masked.seal(collection(round)))
                    }
                    _ => (device(client), packed.seal(collection(round))),
                };
                place.partial.absorb(id, sealed.bytes()).map_err(|e| fault(&e))
            })?;
            let mut total = Partial::empty(plan.format());
            for place in &places {
                total.merge(&place.partial).map_err(|e| fault(&e))?;
            }
            let mut bytes = total.bytes().map_err(|e| fault(&e))?.to_vec();
            if let Some(session) = &mut session {
                session.open(&mut bytes, plan.bits())?;
                let laid: Duration = places.iter().map(|place| place.masking).sum();
                masking += session.spent + laid / threads as u32;
            }
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
            let chunk = Chunk { first: 0, model: &mut w, state: &mut state, sum: &sum, began: None };
            apply_chunk(&algorithm, &plan, &totals, 0, chunk).map_err(|e| fault(&e))?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let accuracy = mnist::accuracy(&self.model, &w, &self.mnist, rooms.iter_mut())?;
        self.rooms = rooms;
        let share = clipped.load(Ordering::Relaxed) as f64 / updates.load(Ordering::Relaxed).max(1) as f64;
        Ok(Outcome {
            accuracy,
            clipped: share,
            seconds,
            masking_seconds: masking.as_secs_f64(),
            #[cfg(test)]
            w,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_fed::dp::{DifferentialPrivacy, MechanismName, Sampling};
    use littoral_fed::masks::ThreatName;
    use littoral_model::{Activation, Examples, Features, Initial, Labels, Loss, ModelSpec, Shape, View};
    use std::sync::Arc;

    /// Twenty clients with six rows each, cohorts of twelve.
    fn world() -> World {
        let (rows, width) = (120u32, 16);
        let values = (0..rows * width).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let features = Features::U8 { width: width as usize, values, scale: 1.0 / 255.0, offset: 0.0 };
        let labels = Labels::Classes { ids: (0..rows).map(|row| row % 3).collect(), classes: 3 };
        let all = Arc::new(Examples::new(features, labels).unwrap());
        let clients =
            (0..20).map(|client| View::new(Arc::clone(&all), (6 * client..6 * client + 6).collect()).unwrap());
        let clients = clients.collect();
        let cohorts = vec![(0..12).collect(), (8..20).rev().collect(), (0..20).step_by(2).chain([1, 3]).collect()];
        let spec = ModelSpec::Mlp {
            hidden: vec![9],
            activation: Activation::Relu,
            loss: Loss::CrossEntropy,
            init: Initial::FanIn,
        };
        let model = Model::build(&spec, Shape::Values { width: width as usize }, 3).unwrap();
        World::new(Mnist { test: all, clients, cohorts }, model, 2)
    }

    fn noise(mechanism: MechanismName, noise_multiplier: f64, params: usize) -> Noise {
        let spec = DifferentialPrivacy {
            mechanism,
            clip: 0.1,
            noise_multiplier,
            epsilon: 8.0,
            delta: 1e-5,
            unit: None,
            sampling_rate: None,
            attempts_max: None,
            adaptive_clip: None,
            bands: None,
            restart_rounds: None,
            sampling: Sampling::Fixed(20),
            participations_max: 0,
            colluding: 0.0,
            bits: 20,
            rounding_beta: 0.6,
        };
        spec.noise(12, 12, 12, spec.summed(params, 12, 1, None).unwrap(), 1).unwrap()
    }

    #[test]
    fn what_is_added_is_as_wide_as_accounted_whoever_adds_it() {
        let mut world = world();
        let server = Server { rate: 1.0, momentum: 0.0 };
        for mechanism in
            [MechanismName::Central, MechanismName::DistributedDiscreteGaussian, MechanismName::DistributedSkellam]
        {
            // So much that what is learnt is nothing beside it.
            let noise = noise(mechanism, 20.0, world.params());
            let mut squares = 0.0;
            let seeds = 100;
            for seed in 0..seeds {
                let before = world.run(None, None, server, seed, 0).unwrap().w;
                let after = world.run(Some(&noise), None, server, seed, 1).unwrap().w;
                squares += after.iter().zip(&before).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            }
            let draws = (seeds as usize * world.params()) as f64;
            // Two vectors of norm 0.1 change in the sum of twelve.
            let ratio = (squares / draws).sqrt() / (20.0 * 2.0 * 0.1 / 12.0);
            // Five standard errors of a deviation; rounding to whole steps asks for up to one in a hundred more.
            let error = 5.0 / (2.0 * draws).sqrt();
            assert!(ratio > 1.0 - error && ratio < 1.01 + error, "{mechanism:?}: {ratio}");
        }
    }

    #[test]
    fn masks_change_no_bit_of_what_is_learnt() {
        let mut world = world();
        let server = Server { rate: 1.0, momentum: 0.9 };
        for mechanism in [MechanismName::DistributedDiscreteGaussian, MechanismName::DistributedSkellam] {
            let noise = noise(mechanism, 0.7, world.params());
            let plain = world.run(Some(&noise), None, server, 7, 3).unwrap();
            assert_eq!(plain.masking_seconds, 0.0);
            for threat in [ThreatName::Honest, ThreatName::Active] {
                let fleet = Fleet::new(20, threat).unwrap();
                let masked = world.run(Some(&noise), Some(&fleet), server, 7, 3).unwrap();
                assert!(masked.masking_seconds > 0.0);
                let bits = |w: &[f32]| w.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
                assert!(bits(&masked.w) == bits(&plain.w), "{mechanism:?} {threat:?}");
            }
            let other = world.run(Some(&noise), None, server, 8, 3).unwrap();
            assert!(other.w != plain.w, "another seed learns something else");
        }
    }
}
