//! One run: some rounds of the MNIST work with one recipe, or with none.

use super::super::fedavg::{self, collection, conclude, device, participate};
use super::super::mnist::{self, BATCH, Mnist};
use super::super::{broken, team};
use crate::output::Failure;
use littoral_fed::aggregate::Partial;
use littoral_fed::algorithm::fedavg::FedAvg;
use littoral_fed::algorithm::{Algorithm, Chunk, Start, apply_chunk};
use littoral_fed::compress::alternating::{Alternating, Basis};
use littoral_fed::compress::downlink::{self, Codes, Image};
use littoral_fed::compress::powersgd::{Matrix, PowerSgd};
use littoral_fed::compress::random::{Seed, derive};
use littoral_fed::compress::{Codec, Compressor, Linear, Recipe, accumulate, chain, in_steps, residual, values};
use littoral_fed::open::{open_header, open_section};
use littoral_fed::plan::{Plan, Resolution, Section, Weighting};
use littoral_fed::seal::{Raw, Sent};
use littoral_model::Model;
use littoral_node::work::{Room, Training};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub struct World {
    mnist: Mnist,
    model: Model,
    /// Of an update that is not compressed, and of what coded updates become.
    plan: Plan,
    rooms: Vec<Option<Room>>,
}

pub struct Outcome {
    pub accuracy: f64,
    /// Sealed bytes of one device in one round, the mean.
    pub bytes_per_device: f64,
    /// Of all coordinates that were summed: how many lay outside their range.
    pub saturated_share: f64,
    /// Of the delta to a version, the mean; of the model in f32 without deltas.
    pub bytes_per_version: f64,
}

/// What a run keeps between rounds.
struct Run<'a> {
    world: &'a World,
    seed: u64,
    w: Vec<f32>,
    /// What devices have of it: the same, or the image that deltas reach.
    theirs: Vec<f32>,
    /// Each client's residual, if the recipe has one.
    residuals: Option<Vec<Mutex<Vec<i32>>>>,
    bytes: AtomicU64,
    saturated: AtomicU64,
    summed: AtomicU64,
}

/// What a thread has to itself.
struct Place<'r> {
    room: &'r mut Option<Room>,
    partial: Partial,
}

/// What a client keeps between two sums.
struct Waiting {
    client: usize,
    update: Vec<f32>,
    p: Option<Vec<i32>>,
}

impl World {
    pub fn new(mnist: Mnist, model: Model, threads: usize) -> Result<Self, Failure> {
        let cohort_max = mnist.cohorts.iter().map(Vec::len).max().unwrap_or(1) as u32;
        let plan = fedavg::plan(&FedAvg {}, cohort_max, model.layout().len())
            .map_err(|e| broken("littoral bench compress")(&e))?;
        Ok(Self { mnist, model, plan, rooms: (0..threads).map(|_| None).collect() })
    }

    pub fn model_bytes(&self) -> usize {
        4 * self.model.layout().len()
    }

    fn compressor(&self, recipe: &Recipe) -> Result<Compressor, Failure> {
        let matrices = self.model.layout().segments().iter().filter_map(|segment| match segment.shape[..] {
            [rows, columns] => Some(Matrix { start: segment.offset, rows, columns }),
            _ => None,
        });
        let matrices: Vec<Matrix> = matrices.collect();
        recipe.build(self.model.layout().len(), &matrices).map_err(|e| broken("a recipe")(&e))
    }

    /// Whether a recipe's sums can be masked, and why not.
    pub fn masked(&self, recipe: Option<&Recipe>) -> Result<(bool, Option<&'static str>), Failure> {
        let Some(recipe) = recipe else { return Ok((true, None)) };
        let why = self.compressor(recipe)?.masked().err();
        Ok((why.is_none(), why))
    }

    pub fn run(
        &mut self,
        recipe: Option<&Recipe>,
        down: Option<Codes>,
        seed: u64,
        rounds: usize,
    ) -> Result<Outcome, Failure> {
        let mut rooms = std::mem::take(&mut self.rooms);
        let clients = self.mnist.clients.len();
        let keeps = recipe.is_some_and(Recipe::residual);
        let mut run = Run {
            world: self,
            seed,
            w: self.model.init(seed),
            theirs: Vec::new(),
            residuals: keeps.then(|| (0..clients).map(|_| Mutex::default()).collect()),
            bytes: AtomicU64::new(0),
            saturated: AtomicU64::new(0),
            summed: AtomicU64::new(0),
        };
        let compressor = recipe.map(|recipe| self.compressor(recipe)).transpose()?;
        let (mut q, mut basis, mut image, mut bytes_down) = (None, None, None, 0);
        for round in 0..rounds {
            bytes_down += run.announce(&mut image, down)?;
            match (&compressor, recipe) {
                (Some(Compressor::Coded(codec)), _) => run.coded(round, &mut rooms, &**codec)?,
                (Some(Compressor::Linear(linear)), Some(recipe)) => {
                    run.linear(round, &mut rooms, recipe, &**linear)?;
                }
                (Some(Compressor::Alternating(shape)), Some(recipe)) => {
                    let before: Basis = basis.take().unwrap_or_else(|| shape.basis_at_first(&run.shared(round)));
                    bytes_down += shape.basis_bytes();
                    basis = Some(run.by_turns(round, &mut rooms, recipe, shape, &before)?);
                }
                (Some(Compressor::TwoSums(powersgd)), Some(recipe)) => {
                    let before = q.take().unwrap_or_else(|| powersgd.q_at_first(&run.shared(round)));
                    q = Some(run.two_sums(round, &mut rooms, recipe, powersgd, before)?);
                }
                _ => run.plain(round, &mut rooms)?,
            }
        }
        let updates: usize = self.mnist.cohorts.iter().take(rounds).map(Vec::len).sum();
        // What devices have of the last version is what is used.
        bytes_down += run.announce(&mut image, down)?;
        let accuracy = mnist::accuracy(&self.model, &run.theirs, &self.mnist, rooms.iter_mut())?;
        let share = |count: &AtomicU64, of: f64| count.load(Ordering::Relaxed) as f64 / of.max(1.0);
        let outcome = Outcome {
            accuracy,
            bytes_per_device: share(&run.bytes, updates as f64),
            saturated_share: share(&run.saturated, run.summed.load(Ordering::Relaxed) as f64),
            bytes_per_version: bytes_down as f64 / (rounds + 1) as f64,
        };
        self.rooms = rooms;
        Ok(outcome)
    }
}

impl Run<'_> {
    /// The seed that a round's devices share.
    fn shared(&self, round: usize) -> Seed {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        derive(&seed, "round", round as u64)
    }

    fn own(&self, round: usize, client: usize) -> Seed {
        derive(&self.shared(round), "device", client as u64)
    }

    /// The model goes down the link. Returns its bytes.
    fn announce(&mut self, image: &mut Option<Image>, down: Option<Codes>) -> Result<usize, Failure> {
        let broken = broken("the model down the link");
        let Some(codes) = down else {
            self.theirs.clone_from(&self.w);
            return Ok(4 * self.w.len());
        };
        let bytes = match image {
            None => {
                let (key, first) = downlink::whole(&self.w).map_err(|e| broken(&e))?;
                *image = Some(first);
                key.len()
            }
            Some(image) => downlink::delta(image, &self.w, codes).map_err(|e| broken(&e))?.len(),
        };
        self.theirs = image.as_ref().map(Image::values).unwrap_or_default();
        Ok(bytes)
    }

    /// Does `part(place, client, training)` for each client of a round, and returns the places' partials.
    fn cohort(
        &self,
        round: usize,
        rooms: &mut [Option<Room>],
        plan: &Plan,
        part: impl Fn(&mut Partial, usize, &mut Training<'_>) -> Result<(), Failure> + Sync,
    ) -> Result<Vec<Partial>, Failure> {
        let World { mnist, model, .. } = self.world;
        let cohort = &mnist.cohorts[round];
        let local = mnist::local();
        let places = rooms.iter_mut().map(|room| Place { room, partial: Partial::empty(plan.format()) });
        let mut places: Vec<Place<'_>> = places.collect();
        team::share(&mut places, cohort.len(), |place, index| {
            let client = cohort[index];
            let room = Room::of(place.room, model, BATCH as usize);
            let seed = self.seed ^ ((round as u64) << 32 | client as u64);
            let mut training = Training::new(model, &mnist.clients[client], &local, seed, room);
            part(&mut place.partial, client, &mut training)?;
            match training.fault() {
                Some(fault) => Err(broken("training")(&fault)),
                None => Ok(()),
            }
        })?;
        Ok(places.into_iter().map(|place| place.partial).collect())
    }

    fn count(&self, bytes: usize, saturated: u64, summed: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.saturated.fetch_add(saturated, Ordering::Relaxed);
        self.summed.fetch_add(summed as u64, Ordering::Relaxed);
    }

    /// A device's training.
    fn train(&self, training: &mut Training<'_>) -> Result<Raw, Failure> {
        let start =
            Start { w: &self.theirs, broadcast: &[], device_state: None, population: 1, plan: &self.world.plan };
        FedAvg {}.local(&start, training).map_err(|e| broken("a device's training")(&e))
    }

    /// Adds the client's residual to its update. `None`: the recipe has none.
    fn owed(&self, client: usize, update: &mut [f32]) -> Result<Option<Vec<i32>>, Failure> {
        let Some(residuals) = &self.residuals else { return Ok(None) };
        let residual = residuals[client].lock().map_err(|e| broken("a residual")(&e))?;
        let p = residual::add(update, &residual, self.world.plan.step(0)).map_err(|e| broken("a residual")(&e))?;
        Ok(Some(p))
    }

    /// Everybody is included here, so what is pending becomes current at once.
    fn keep(&self, client: usize, p: Option<Vec<i32>>, sent: &[i32]) -> Result<(), Failure> {
        let (Some(residuals), Some(p)) = (&self.residuals, p) else { return Ok(()) };
        let left = residual::left(p, sent).map_err(|e| broken("a residual")(&e))?;
        *residuals[client].lock().map_err(|e| broken("a residual")(&e))? = left;
        Ok(())
    }

    fn plain(&mut self, round: usize, rooms: &mut [Option<Room>]) -> Result<(), Failure> {
        let plan = &self.world.plan;
        let mut partials = self.cohort(round, rooms, plan, |partial, client, training| {
            self.count(plan.format().bytes(), 0, self.w.len());
            participate(&FedAvg {}, plan, &self.theirs, training, collection(round), device(client), partial)
        })?;
        conclude(&FedAvg {}, plan, partials.iter_mut(), &mut self.w)
    }

    fn coded(&mut self, round: usize, rooms: &mut [Option<Room>], codec: &dyn Codec) -> Result<(), Failure> {
        let broken = broken("a coded update");
        let plan = &self.world.plan;
        let mut partials = self.cohort(round, rooms, plan, |partial, client, training| {
            let mut raw = self.train(training)?;
            let p = self.owed(client, &mut raw.sections[0])?;
            let coded = raw.unclipped().code(plan, codec, &self.own(round, client)).map_err(|e| broken(&e))?;
            self.keep(client, p, &coded.rounded().sent(0).map_err(|e| broken(&e))?)?;
            let saturated = coded.rounded().saturated()[0];
            let sealed = coded.pack().seal(collection(round));
            self.count(sealed.bytes().len(), saturated, self.w.len());
            accumulate::absorb(partial, device(client), codec, plan, sealed.bytes()).map_err(|e| broken(&e))
        })?;
        conclude(&FedAvg {}, plan, partials.iter_mut(), &mut self.w)
    }

    /// The plan of one sum of `len` coordinates.
    fn sum_plan(&self, recipe: &Recipe, name: &'static str, len: usize) -> Result<Plan, Failure> {
        let broken = broken("a plan");
        let (resolution, range) =
            recipe.words().map_err(|e| broken(&e))?.unwrap_or((Resolution::Fit32, self.world.plan.sections()[0].range));
        let section = Section { name, len, range, weighted: true };
        Plan::new(self.world.plan.cohort_max(), Weighting::Uniform, resolution, vec![section], 0)
            .map_err(|e| broken(&e))
    }

    /// Seals and absorbs one section; returns what was sent, as values.
    fn send(
        &self,
        round: usize,
        client: usize,
        plan: &Plan,
        mut section: Vec<f32>,
        partial: &mut Partial,
    ) -> Result<Vec<f32>, Failure> {
        let broken = broken("an update to be summed");
        chain::to_grid(&mut section, plan.step(0), &derive(&self.own(round, client), plan.sections()[0].name, 0))
            .map_err(|e| broken(&e))?;
        let raw = Raw { examples: 1, loss: 0.0, wholes: Vec::new(), sections: vec![section] };
        let rounded = raw.unclipped().round(plan).map_err(|e| broken(&e))?;
        let sent = rounded.sent(0).map_err(|e| broken(&e))?;
        let saturated = rounded.saturated()[0];
        let sealed = rounded.pack().seal(collection(round));
        self.count(sealed.bytes().len(), saturated, sent.len());
        partial.absorb(device(client), sealed.bytes()).map_err(|e| broken(&e))?;
        Ok(values(sent.into_iter().map(i64::from), plan.step(0)))
    }

    /// Adds the places' sums up; returns the total's only section as values, and its whole part.
    fn open(&self, plan: &Plan, partials: Vec<Partial>) -> Result<(Vec<f32>, littoral_fed::open::Totals), Failure> {
        let broken = broken("a total");
        let mut total = Partial::empty(plan.format());
        for partial in &partials {
            total.merge(partial).map_err(|e| broken(&e))?;
        }
        let bytes = total.bytes().map_err(|e| broken(&e))?;
        let devices = total.devices().len() as u64;
        let totals = open_header(plan, devices, &bytes[..plan.header_bytes()]).map_err(|e| broken(&e))?;
        let len = plan.sections()[0].len;
        let mut sums = vec![0; len];
        let place = plan.section_bytes(0, 0..len);
        open_section(plan, 0, 0..len, &bytes[place], &mut sums).map_err(|e| broken(&e))?;
        Ok((values(sums, plan.step(0)), totals))
    }

    /// The cloud half, from a sum that was mapped back.
    fn apply(&mut self, sum: &[f32], totals: &littoral_fed::open::Totals) -> Result<(), Failure> {
        let plan = &self.world.plan;
        let sum = in_steps(sum, plan.step(0));
        let sum: Vec<f64> = sum.iter().map(|&sum| sum as f64).collect();
        let chunk = Chunk { first: 0, model: &mut self.w, state: &mut [], sum: &sum, began: None };
        apply_chunk(&FedAvg {}, plan, totals, 0, chunk).map_err(|e| broken("the cloud's part")(&e))
    }

    /// Returns the sum of what was sent.
    fn linear(
        &mut self,
        round: usize,
        rooms: &mut [Option<Room>],
        recipe: &Recipe,
        linear: &dyn Linear,
    ) -> Result<Vec<f32>, Failure> {
        let (len, shared) = (self.w.len(), self.shared(round));
        let plan = self.sum_plan(recipe, "sent", linear.sent_len(len))?;
        let partials = self.cohort(round, rooms, &plan, |partial, client, training| {
            let mut update = self.train(training)?.sections.swap_remove(0);
            let p = self.owed(client, &mut update)?;
            let sent = self.send(round, client, &plan, linear.forward(&update, &shared), partial)?;
            if p.is_some() {
                let told = linear.backward(&sent, len, &shared);
                let told: Vec<i32> = in_steps(&told, self.world.plan.step(0)).into_iter().map(|v| v as i32).collect();
                self.keep(client, p, &told)?;
            }
            Ok(())
        })?;
        let (sum, totals) = self.open(&plan, partials)?;
        self.apply(&linear.backward(&sum, len, &shared), &totals)?;
        Ok(sum)
    }

    /// The basis goes down the link with the model.
    fn by_turns(
        &mut self,
        round: usize,
        rooms: &mut [Option<Room>],
        recipe: &Recipe,
        shape: &Alternating,
        basis: &Basis,
    ) -> Result<Basis, Failure> {
        let sum = self.linear(round, rooms, recipe, &shape.with(basis))?;
        shape.basis_next(basis, &sum, &self.shared(round)).map_err(|e| broken("a basis")(&e))
    }

    fn two_sums(
        &mut self,
        round: usize,
        rooms: &mut [Option<Room>],
        recipe: &Recipe,
        powersgd: &PowerSgd,
        q: Vec<f32>,
    ) -> Result<Vec<f32>, Failure> {
        let broken = broken("PowerSGD");
        let waiting: Mutex<Vec<Waiting>> = Mutex::default();
        let plan = self.sum_plan(recipe, "first", powersgd.first_len())?;
        let partials = self.cohort(round, rooms, &plan, |partial, client, training| {
            let mut update = self.train(training)?.sections.swap_remove(0);
            let p = self.owed(client, &mut update)?;
            let first = powersgd.first(&update, &q).map_err(|e| broken(&e))?;
            self.send(round, client, &plan, first, partial)?;
            waiting.lock().map_err(|e| broken(&e))?.push(Waiting { client, update, p });
            Ok(())
        })?;
        let (first, _) = self.open(&plan, partials)?;
        let basis = powersgd.basis(&first).map_err(|e| broken(&e))?;
        let plan = self.sum_plan(recipe, "second", powersgd.second_len())?;
        let mut partial = Partial::empty(plan.format());
        for Waiting { client, update, p } in waiting.into_inner().map_err(|e| broken(&e))? {
            let second = powersgd.second(&update, &basis).map_err(|e| broken(&e))?;
            let sent = self.send(round, client, &plan, second, &mut partial)?;
            if p.is_some() {
                let told = powersgd.approximate(&basis, &sent).map_err(|e| broken(&e))?;
                let told: Vec<i32> = in_steps(&told, self.world.plan.step(0)).into_iter().map(|v| v as i32).collect();
                self.keep(client, p, &told)?;
            }
        }
        let (second, totals) = self.open(&plan, vec![partial])?;
        self.apply(&powersgd.approximate(&basis, &second).map_err(|e| broken(&e))?, &totals)?;
        Ok(powersgd.q_next(&second, &self.shared(round)))
    }
}
