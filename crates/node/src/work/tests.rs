//! Whole rounds in memory: devices' work, sums, the cloud's work, and what must come of them.

use super::version::Version;
use super::*;
use crate::job::{BLOCK, Map, Task};
use crate::role::Entropy;
use littoral_fed::aggregate::Partial;
use littoral_fed::algorithm::{self, State};
use littoral_fed::compress::Linear;
use littoral_model::{Batch, Descent, Features, Labels, Scratch, View, Worker};
use littoral_wire::JobId;
use littoral_wire::message::Work as Kind;
use std::collections::BTreeMap;
use std::sync::Mutex;

mod drift;
mod examples;
mod given;
mod image;
mod merge;
mod personal;
mod private;

/// Objects in memory.
#[derive(Default)]
struct Shelf(Mutex<BTreeMap<ObjectId, Vec<u8>>>);

struct Begun<'a>(&'a Shelf, Vec<u8>);

impl Shelf {
    fn bytes(&self, object: &Manifest) -> Vec<u8> {
        self.0.lock().unwrap()[&object.id()].clone()
    }

    fn put(&self, bytes: &[u8]) -> Manifest {
        let mut object = self.create().unwrap();
        object.append(bytes).unwrap();
        object.finish().unwrap()
    }
}

impl Objects for Shelf {
    fn read(&self, object: ObjectId, offset: u64, out: &mut [u8]) -> Result<(), ObjectFault> {
        let objects = self.0.lock().unwrap();
        let bytes = objects.get(&object).ok_or(ObjectFault::Missing(object))?;
        let part = bytes.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(part.ok_or(ObjectFault::Damaged { object, why: "too short".into() })?);
        Ok(())
    }

    fn create(&self) -> Result<Box<dyn ObjectWriter + '_>, ObjectFault> {
        Ok(Box::new(Begun(self, Vec::new())))
    }
}

impl ObjectWriter for Begun<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), ObjectFault> {
        self.1.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Manifest, ObjectFault> {
        let manifest = Manifest::of(&self.1).unwrap();
        self.0.0.lock().unwrap().insert(manifest.id(), self.1);
        Ok(manifest)
    }
}

impl LocalData for Rows {
    fn rows(&self, _: &JobSpec) -> Result<Rows, String> {
        Ok(self.clone())
    }
}

/// A job over rows of `fields` numbers with three classes.
fn job(algorithm: &str, fields: usize, local: &str, cohort: usize, weighting: &str) -> JobSpec {
    let fields: String = (0..fields).map(|i| format!("{{ name = \"f{i}\" }}, ")).collect();
    JobSpec::parse(&format!(
        r#"
        name = "test"
        seed = 5
        model = {{ kind = "softmax" }}
        algorithm = {algorithm}
        local = {local}
        cohort = {{ target = {cohort} }}
        rounds = {{ count = 3 }}
        precision = {{ range = 1.0, resolution = {{ levels = 65536 }}, weighting = {weighting} }}
        [data]
        set = "t"
        [data.schema]
        label = {{ name = "l", classes = ["a", "b", "c"] }}
        fields = [{fields}]
        "#
    ))
    .unwrap()
}

const FULL: &str = "{ epochs = 1, batch = 0, optimiser = { name = \"sgd\", learning_rate = 0.5 } }";
const MINI: &str = "{ epochs = 2, batch = 4, optimiser = { name = \"sgd\", learning_rate = 0.1 } }";
const UNIFORM: &str = "\"uniform\"";
/// Weights that are exactly the numbers of rows.
const BY_ROWS: &str = "{ by_examples = { examples_max = 64, weight_max = 64 } }";

/// Numbers without a pattern that a model of this size could know.
fn noise(i: usize) -> f32 {
    (i.wrapping_mul(2_654_435_761).wrapping_add(12_345) % 1009) as f32 / 504.5 - 1.0
}

/// A device's rows: `train` that train and 5 that are held out.
fn table(device: usize, width: usize, train: usize) -> Rows {
    let rows = train + 5;
    let values = (0..rows * width).map(|i| noise(i + 7919 * device)).collect();
    let ids = (0..rows).map(|row| ((row * row + device) % 3) as u32).collect();
    let labels = Labels::Classes { ids, classes: 3 };
    let examples = Examples::new(Features::F32 { width, values }, labels).unwrap();
    Rows {
        examples: examples.into(),
        train: (0..train as u32).collect(),
        held_out: (train as u32..rows as u32).collect(),
    }
}

fn collection(work: Kind, version: u64) -> Collection {
    Collection { job: JobId(3), version, work, attempt: 1 }
}

/// A job under way, as the cloud sees it.
struct Run {
    spec: JobSpec,
    shelf: Shelf,
    model: Manifest,
    before: Chain,
    state: Option<Manifest>,
    version: u64,
    population: u64,
}

impl Run {
    fn new(spec: JobSpec, population: u64) -> Self {
        let shelf = Shelf::default();
        let data = table(0, 1, 1);
        let output = run(&Work::Initial { spec: Arc::new(spec.clone()) }, &shelf, &data).unwrap();
        let Output::Initial { model, state } = output else { panic!("{output:?}") };
        Self { spec, shelf, model, before: Chain::default(), state, version: 0, population }
    }

    fn local(&self, work: Kind, device: usize, state: Option<Manifest>, data: &Rows) -> Result<Output, WorkFault> {
        let task = Task { spec: self.spec.clone(), population: self.population }.encode();
        let work = Work::Local {
            steps_max: 0,
            entropy: Entropy::new([device as u8; 32]),
            collection: collection(work, self.version),
            task: task.into(),
            model: self.model.clone(),
            before: self.before.clone(),
            state,
            personal: None,
            learnt: None,
            device: NodeId([device as u8; 32]),
            name: format!("device-{device}"),
        };
        run(&work, &self.shelf, data)
    }

    fn update(&self, work: Kind, device: usize, state: Option<Manifest>, data: &Rows) -> (Manifest, Option<Manifest>) {
        match self.local(work, device, state, data).unwrap() {
            Output::Local { update, state, .. } => (update, state),
            other => panic!("{other:?}"),
        }
    }

    fn apply(&self, work: Kind, partials: Vec<Manifest>, devices: u32) -> Result<Output, WorkFault> {
        let work = Work::Apply {
            began: None,
            entropy: Entropy::new([self.version as u8; 32]),
            spec: Arc::new(self.spec.clone()),
            collection: collection(work, self.version),
            model: self.model.clone(),
            before: self.before.clone(),
            state: self.state.clone(),
            partials,
            order: Vec::new(),
            names: Vec::new(),
            given: Default::default(),
            devices,
            population: self.population,
            opening: None,
        };
        run(&work, &self.shelf, &table(0, 1, 1))
    }

    /// Goes on to the next version.
    fn advance(&mut self, work: Kind, partials: Vec<Manifest>, devices: u32) -> Totals {
        let output = self.apply(work, partials, devices).unwrap();
        let Output::Applied { model, before, state, totals, .. } = output else { panic!("{output:?}") };
        (self.model, self.before, self.state, self.version) = (model, before, state, self.version + 1);
        totals
    }

    /// The sum of some updates, as an edge hands it in.
    fn sum(&self, work: Kind, updates: &[&Manifest]) -> Partial {
        let mut sum = Partial::empty(self.spec.plan(work).format());
        for (device, update) in updates.iter().enumerate() {
            sum.absorb(NodeId([device as u8; 32]), &self.shelf.bytes(update)).unwrap();
        }
        sum
    }

    fn read(&self) -> Version {
        Version::read(&self.spec, &self.shelf, (&self.model, &self.before)).unwrap()
    }
}

#[test]
fn fedavg_with_one_full_step_is_gradient_descent_on_all_rows_in_one_place() {
    for devices in [1, 3] {
        let mut it = Run::new(job("{ name = \"fedavg\" }", 6, FULL, devices, BY_ROWS), devices as u64);
        let data: Vec<Rows> = (0..devices).map(|device| table(device, 6, 20 + 7 * device)).collect();
        let start = it.read().w;
        let updates: Vec<Manifest> =
            data.iter().enumerate().map(|(device, data)| it.update(Kind::Train, device, None, data).0).collect();
        let totals = it.advance(Kind::Train, updates, devices as u32);

        // In f64, with all rows side by side.
        let (mut values, mut ids) = (Vec::new(), Vec::new());
        for rows in &data {
            let (Features::F32 { values: v, .. }, Labels::Classes { ids: i, .. }) =
                (rows.examples.features(), rows.examples.labels())
            else {
                panic!("a table")
            };
            values.extend_from_slice(&v[..6 * rows.train.len()]);
            ids.extend_from_slice(&i[..rows.train.len()]);
        }
        let all = Examples::new(Features::F32 { width: 6, values }, Labels::Classes { ids, classes: 3 }).unwrap();
        let view = View::all(all.into());
        let model = it.spec.model();
        let (mut batch, mut scratch) = (Batch::new(model, view.len()), Scratch::new(model, view.len()));
        batch.fill(&view, view.rows()).unwrap();
        let start: Vec<f64> = start.iter().map(|&w| w.into()).collect();
        let mut slope = vec![0.0; start.len()];
        let loss = littoral_model::gradient(model, &start, &batch, &mut scratch, &mut slope);

        // Half a step of fixed point per device at most, so in their mean; and what f32 loses on numbers around 1.
        let tolerance = 0.5 * it.spec.plan(Kind::Train).step(0) + 1e-6;
        for ((w, w0), g) in it.read().w.iter().zip(&start).zip(&slope) {
            let expected = w0 - 0.5 * g;
            assert!((f64::from(*w) - expected).abs() <= tolerance, "{w} is not {expected}");
        }
        assert!(slope.iter().any(|g| g.abs() > 100.0 * tolerance), "the step is far larger than the tolerance");
        assert!((totals.train_loss.unwrap() - loss).abs() < 1e-6, "{totals:?}, {loss}");
        assert_eq!((totals.weight_sum, totals.rows), (view.len() as u64, 5 * devices as u64));
    }
}

#[test]
fn no_order_and_no_tree_leaves_a_trace() {
    let it = Run::new(job("{ name = \"fedavgm\" }", 6, MINI, 4, UNIFORM), 4);
    let updates: Vec<Manifest> =
        (0..4).map(|device| it.update(Kind::Train, device, None, &table(device, 6, 9 + device)).0).collect();
    let [a, b, c, d] = &updates[..] else { panic!("four") };
    let put = |updates: &[&Manifest]| it.shelf.put(it.sum(Kind::Train, updates).bytes().unwrap());
    let trees = [
        vec![put(&[a, b, c, d])],
        vec![put(&[d, b]), put(&[a, c])],
        vec![put(&[c]), put(&[d, a, b])],
        vec![d.clone(), c.clone(), b.clone(), a.clone()],
    ];
    let made: Vec<_> = trees
        .map(|partials| match it.apply(Kind::Train, partials, 4).unwrap() {
            Output::Applied { model, state, totals, .. } => (model.id(), state.unwrap().id(), totals),
            other => panic!("{other:?}"),
        })
        .into();
    assert_ne!(made[0].0, it.model.id());
    assert!(made.iter().all(|other| *other == made[0]), "{made:?}");
}

/// A job over images of 85 x 85 bytes and ten classes: 72,260 parameters, more than one block.
fn large_job(algorithm: &str) -> (JobSpec, Vec<Rows>) {
    let spec = JobSpec::parse(&format!(
        r#"
        name = "large"
        model = {{ kind = "softmax" }}
        algorithm = {algorithm}
        local = {{ batch = 3, optimiser = {{ name = "sgd", learning_rate = 0.01 }} }}
        cohort = {{ target = 2 }}
        rounds = {{ count = 2 }}
        [data]
        set = "t"
        [data.schema]
        image = {{ height = 85, width = 85, channels = 1, classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"] }}
        "#
    ))
    .unwrap();
    let data = (0..2).map(|device| {
        let values = (0..7 * 7225).map(|i| (noise(i + 31 * device) * 127.0 + 128.0) as u8).collect();
        let features = Features::U8 { width: 7225, values, scale: 1.0 / 255.0, offset: 0.0 };
        let labels = Labels::Classes { ids: (0..7).map(|row| (row + device as u32) % 10).collect(), classes: 10 };
        Rows {
            examples: Examples::new(features, labels).unwrap().into(),
            train: (0..5).collect(),
            held_out: vec![5, 6],
        }
    });
    (spec, data.collect())
}

#[test]
fn block_by_block_is_the_same_as_all_in_memory() {
    for algorithm in ["{ name = \"fedyogi\" }", "{ name = \"scaffold\" }", "{ name = \"fedavg\" }"] {
        let (spec, data) = large_job(algorithm);
        assert!(spec.version().params > BLOCK);
        let mut it = Run::new(spec.clone(), 9);
        let mut w = it.read().w;
        let vectors = spec.algorithm().cloud_state();
        let mut states: Vec<State> = vectors.iter().map(|vector| vector.initial.state(w.len())).collect();
        let mut kept = vec![None; 2];
        for _ in 0..2 {
            let mut updates = Vec::new();
            for (device, kept) in kept.iter_mut().enumerate() {
                let (update, state) = it.update(Kind::Train, device, kept.take(), &data[device]);
                *kept = state;
                updates.push(update);
            }
            let total = it.sum(Kind::Train, &[&updates[0], &updates[1]]);
            let plan = spec.plan(Kind::Train);
            algorithm::advance(spec.algorithm(), plan, &total, &mut w, &mut states, usize::MAX).unwrap();
            it.advance(Kind::Train, updates, 2);
        }
        // All f32 are compared as they are printed, sign of zero and all.
        let version = it.read();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&version.w), bits(&w), "{algorithm}");
        let of = |broadcast: bool| {
            let chosen = states.iter().zip(&vectors).filter(move |(_, vector)| vector.broadcast == broadcast);
            chosen.map(|(state, _)| state.clone()).collect::<Vec<_>>()
        };
        assert_eq!(version.broadcast, of(true), "{algorithm}");

        // The cloud's own state, as the layout has it: each block's vectors side by side.
        let layout = spec.version();
        let mut expected = vec![0; layout.state_bytes()];
        for block in layout.blocks() {
            for (vector, state) in of(false).iter().enumerate() {
                let State::Real(values) = state else { panic!("moments") };
                let bytes = &mut expected[layout.at(&block, vector, layout.kept)];
                littoral_tensor::bytes::write_f32(&values[block.clone()], bytes).unwrap();
            }
        }
        assert_eq!(it.state.as_ref().map_or(Vec::new(), |state| it.shelf.bytes(state)), expected, "{algorithm}");
    }
}

#[test]
fn scaffold_keeps_c_the_sum_of_every_devices_c_i() {
    let spec = job("{ name = \"scaffold\" }", 4, MINI, 2, UNIFORM);
    let data: Vec<Rows> = (0..3).map(|device| table(device, 4, 8 + 5 * device)).collect();
    let mut it = Run::new(spec, 3);
    let mut kept: Vec<Option<Manifest>> = vec![None; 3];
    for round in 0..3 {
        // Two are in the version; the third one trained for nothing and keeps what it had.
        let out = (round + 2) % 3;
        let mut updates = Vec::new();
        for device in 0..3 {
            let (update, state) = it.update(Kind::Train, device, kept[device].clone(), &data[device]);
            if device != out {
                kept[device] = state;
                updates.push(update);
            }
        }
        it.advance(Kind::Train, updates, 2);
        let mut sum = vec![0i32; it.spec.version().params];
        for state in kept.iter().flatten() {
            let bytes = it.shelf.bytes(state);
            sum.iter_mut().zip(version::wholes(&bytes)).for_each(|(sum, c_i)| *sum += c_i);
        }
        assert!(sum.iter().any(|&c| c != 0));
        assert_eq!(it.read().broadcast, [State::Whole(sum)], "after round {round}");
    }
    assert!(kept.iter().all(Option::is_some), "everybody was in at least once");
}

#[test]
fn the_clouds_state_goes_from_version_to_version() {
    let mut it = Run::new(job("{ name = \"fedadam\", beta1 = 0.5 }", 4, FULL, 1, UNIFORM), 1);
    let data = table(0, 4, 12);
    let params = it.spec.version().params;
    let moment =
        |it: &Run| version::reals(&it.shelf.bytes(it.state.as_ref().unwrap())[..4 * params]).collect::<Vec<_>>();
    assert_eq!(moment(&it), vec![0.0; params]);
    let mut deltas = Vec::new();
    for _ in 0..2 {
        let (update, kept) = it.update(Kind::Train, 0, None, &data);
        assert_eq!(kept, None, "FedAdam keeps nothing on the device");
        let plan = it.spec.plan(Kind::Train).clone();
        let mut sum = vec![0; params];
        let bytes = &it.shelf.bytes(&update)[plan.section_bytes(0, 0..params)];
        littoral_fed::open::open_section(&plan, 0, 0..params, bytes, &mut sum).unwrap();
        deltas.push(sum.iter().map(|&sum| (sum as f64 * plan.step(0)) as f32).collect::<Vec<_>>());
        it.advance(Kind::Train, vec![update], 1);
    }
    // m = 0.5 (0.5 · Δ1) + 0.5 · Δ2; halves are exact, the sum rounds as below.
    let expected: Vec<f32> = deltas[0].iter().zip(&deltas[1]).map(|(a, b)| 0.5 * (0.5 * a) + 0.5 * b).collect();
    assert_eq!(moment(&it), expected);

    // Without it, there is no next version, however often one tries.
    let (update, _) = it.update(Kind::Train, 0, None, &data);
    it.state = None;
    assert!(matches!(it.apply(Kind::Train, vec![update], 1), Err(WorkFault::Declined(_))));
}

#[test]
fn fednova_with_equal_steps_is_fedavg() {
    // Its own integer lies in front of the evaluation's. 2 epochs of 3 batches are 6 steps.
    let made = ["{ name = \"fedavg\" }", "{ name = \"fednova\", reference_steps = 6.0 }"].map(|algorithm| {
        let mut it = Run::new(job(algorithm, 4, MINI, 2, UNIFORM), 2);
        let updates = (0..2).map(|device| it.update(Kind::Train, device, None, &table(device, 4, 12)).0).collect();
        let totals = it.advance(Kind::Train, updates, 2);
        // One more integer takes some bytes.
        (it.model.id(), Totals { update_bytes: None, ..totals })
    });
    assert_eq!(made[0], made[1]);
    assert_eq!(made[0].1.rows, 10);
}

#[test]
fn one_round_of_statistics_makes_the_union_standard() {
    let mut it = Run::new(job("{ name = \"fedavg\" }", 3, FULL, 3, BY_ROWS), 3);
    let data: Vec<Rows> = (0..3usize)
        .map(|device| {
            let rows = 10 + 20 * device;
            // Devices differ in mean and spread; the second column is 100 times as large, the third never changes.
            let value = |row: usize, column: usize| match column {
                2 => 4.5,
                1 if row % 4 == device => f32::NAN,
                1 => 100.0 * noise(row + 50 * device) + 300.0 * device as f32,
                _ => noise(3 * row) * (1 + device) as f32,
            };
            let values = (0..rows).flat_map(|row| (0..3).map(move |column| value(row, column))).collect();
            let labels = Labels::Classes { ids: (0..rows as u32).map(|row| row % 3).collect(), classes: 3 };
            let examples = Examples::new(Features::F32 { width: 3, values }, labels).unwrap();
            let train = rows as u32 - 4;
            Rows { examples: examples.into(), train: (0..train).collect(), held_out: (train..train + 4).collect() }
        })
        .collect();
    let w = it.read().w;
    let updates =
        data.iter().enumerate().map(|(device, data)| it.update(Kind::Statistics, device, None, data).0).collect();
    let totals = it.advance(Kind::Statistics, updates, 3);
    assert_eq!((totals.devices, totals.rows, totals.train_loss), (3, 0, None));
    let version = it.read();
    assert_eq!(version.w, w, "statistics move no weight");

    let standardise = version.standardise.unwrap();
    let (mut count, mut sum, mut squares) = ([0.0; 3], [0.0; 3], [0.0; 3]);
    for rows in &data {
        let Features::F32 { values, .. } = rows.examples.features() else { panic!("a table") };
        for row in values.chunks_exact(3).take(rows.train.len()) {
            for (column, &value) in row.iter().enumerate().filter(|(_, value)| !value.is_nan()) {
                let x = f64::from((value - standardise.mean()[column]) * standardise.inv_std()[column]);
                count[column] += 1.0;
                sum[column] += x;
                squares[column] += x * x;
            }
        }
    }
    for column in 0..2 {
        let (mean, square) = (sum[column] / count[column], squares[column] / count[column]);
        // Mean and deviation were narrowed to f32, 6e-8 of values within a few deviations of a mean of a few more.
        assert!(mean.abs() < 1e-6 && (square - 1.0).abs() < 1e-6, "column {column}: {mean}, {square}");
    }
    assert!(count[1] < count[0], "values are missing");
    assert_eq!((sum[2], squares[2]), (0.0, 0.0), "a constant column says nothing");

    // Rows with missing values train and count.
    let output = it.local(Kind::Train, 1, None, &data[1]).unwrap();
    let Output::Local { note, .. } = output else { panic!("{output:?}") };
    assert!(note.mean_loss.is_finite() && note.mean_loss > 0.0 && note.examples == 26, "{note:?}");
}

#[test]
fn evaluation_counts_every_held_out_row_once() {
    let mut it = Run::new(job("{ name = \"fedavg\" }", 4, FULL, 2, UNIFORM), 2);
    let data = [table(0, 4, 6), table(1, 4, 6)];
    let model = it.model.clone();
    let w = it.read().w;
    let (mut correct, mut loss) = (0, 0.0);
    for rows in &data {
        let view = View::new(rows.examples.clone(), rows.held_out.clone()).unwrap();
        let evaluation = Worker::new(it.spec.model(), 8).evaluate(it.spec.model(), &w, &view).unwrap();
        (correct, loss) = (correct + evaluation.correct, loss + evaluation.loss_sum);
    }
    let trained = [0, 1].map(|device| it.update(Kind::Train, device, None, &data[device]).0);
    let updates = [0, 1].map(|device| it.update(Kind::Evaluate, device, None, &data[device]).0);
    let totals = it.advance(Kind::Evaluate, updates.into(), 2);
    assert_eq!(it.model, model, "evaluation makes no model");
    assert_eq!((totals.rows, totals.correct), (10, correct));
    // Two roundings to steps of 2^-20.
    assert!((totals.loss_sum - loss).abs() <= 1.0 / 1_048_576.0, "{totals:?}");
    assert_eq!(totals.accuracy(), Some(correct as f64 / 10.0));

    // Training tells the same of the version that it started from.
    let alongside = it.advance(Kind::Train, trained.into(), 2);
    assert_eq!((alongside.rows, alongside.correct, alongside.loss_sum), (10, correct, totals.loss_sum));
}

#[test]
fn training_is_the_models_own_descent_in_an_order_that_the_name_decides() {
    let it = Run::new(job("{ name = \"fedavg\" }", 4, MINI, 1, UNIFORM), 1);
    let data = table(0, 4, 11);
    let output = it.local(Kind::Train, 7, None, &data).unwrap();
    let Output::Local { update, note, .. } = output else { panic!("{output:?}") };
    assert_eq!((note.examples, note.steps, note.saturated), (11, 6, 0));

    let mut seed = [0; 8];
    let mut hashed = b"littoral/examples\0".to_vec();
    hashed.extend_from_slice(&5u64.to_le_bytes());
    hashed.extend_from_slice(&0u64.to_le_bytes());
    hashed.extend_from_slice(b"device-7");
    seed.copy_from_slice(&blake3::hash(&hashed).as_bytes()[..8]);
    let version = it.read();
    let view = View::new(data.examples.clone(), data.train.clone()).unwrap();
    let view = view.standardised(version.standardise.unwrap()).unwrap();
    let descent = Descent { epochs: 2, batch: 4, learning_rate: 0.1, seed: u64::from_le_bytes(seed) };
    let mut w = version.w.clone();
    Worker::new(it.spec.model(), 4).descend(it.spec.model(), &mut w, &view, &descent).unwrap();
    let plan = it.spec.plan(Kind::Train);
    let mut sum = vec![0; w.len()];
    let bytes = &it.shelf.bytes(&update)[plan.section_bytes(0, 0..w.len())];
    littoral_fed::open::open_section(plan, 0, 0..w.len(), bytes, &mut sum).unwrap();
    let expected: Vec<i64> =
        w.iter().zip(&version.w).map(|(y, w)| (f64::from(y - w) / plan.step(0)).round_ties_even() as i64).collect();
    assert_eq!(sum, expected);

    assert_ne!(it.update(Kind::Train, 8, None, &data).0, update, "another name, another order");
}

#[test]
fn what_a_thread_did_before_leaves_no_trace() {
    let momentum =
        "{ batch = 4, optimiser = { name = \"sgd\", learning_rate = 0.1, momentum = 0.9, weight_decay = 0.01 } }";
    let adam = "{ batch = 0, optimiser = { name = \"adam\", learning_rate = 0.01 } }";
    let runs = [momentum, adam, MINI].map(|local| Run::new(job("{ name = \"fedavg\" }", 4, local, 1, UNIFORM), 1));
    let (small, large) = (table(0, 4, 11), table(1, 4, 600));
    let fresh: Vec<Manifest> = runs
        .iter()
        .map(|it| std::thread::scope(|s| s.spawn(|| it.update(Kind::Train, 0, None, &small).0).join().unwrap()))
        .collect();
    assert!(fresh[0] != fresh[1] && fresh[1] != fresh[2] && fresh[0] != fresh[2]);
    for _ in 0..2 {
        for (it, fresh) in runs.iter().zip(&fresh) {
            it.update(Kind::Train, 1, None, &large);
            assert_eq!(it.update(Kind::Train, 0, None, &small).0, *fresh);
        }
    }
}

#[test]
fn what_does_not_fit_is_declined_or_fails_with_a_sentence() {
    let mut it = Run::new(job("{ name = \"scaffold\" }", 4, MINI, 1, UNIFORM), 1);
    let declined = |output: Result<Output, WorkFault>, what: &str| match output {
        Err(WorkFault::Declined(why)) => assert!(why.contains(what), "{why}"),
        other => panic!("{other:?}"),
    };
    let failed = |output: Result<Output, WorkFault>, what: &str| match output {
        Err(WorkFault::Failed(why)) => assert!(why.contains(what), "{why}"),
        other => panic!("{other:?}"),
    };
    let none = Rows { train: Vec::new(), ..table(0, 4, 6) };
    declined(it.local(Kind::Train, 0, None, &none), "`t` has no training rows");
    declined(it.local(Kind::Train, 0, None, &table(0, 5, 6)), "the data has rows of 5 values");
    let short = it.shelf.put(&[0; 8]);
    declined(
        it.local(Kind::Train, 0, Some(short.clone()), &table(0, 4, 6)),
        "control variate has 8 bytes, 60 expected",
    );
    declined(it.apply(Kind::Train, vec![short.clone()], 1), "bytes");
    let huge = Examples::new(
        Features::F32 { width: 4, values: vec![f32::MAX; 8] },
        Labels::Classes { ids: vec![0, 1], classes: 3 },
    );
    let huge = Rows { examples: huge.unwrap().into(), train: vec![0], held_out: vec![1] };
    declined(it.local(Kind::Statistics, 0, None, &huge), "f0");
    declined(it.local(Kind::Train, 0, None, &huge), "not finite");

    let update = it.update(Kind::Train, 0, None, &table(0, 4, 6)).0;
    declined(it.apply(Kind::Train, vec![update], 2), "devices");
    declined(it.apply(Kind::Train, Vec::new(), 0), "no device");
    it.model = short;
    declined(it.local(Kind::Train, 0, None, &table(0, 4, 6)), "a version of this job has");
    let gone = Manifest::of(&vec![1; it.spec.version().model_bytes()]).unwrap();
    it.model = gone;
    failed(it.local(Kind::Train, 0, None, &table(0, 4, 6)), "is not here");
}

/// The large job with a recipe: more than one block.
fn compressed(recipe: &str) -> (Run, Vec<Rows>) {
    let (spec, data) = large_job("{ name = \"fedavg\" }");
    let mut text = spec.text().clone();
    text.compression = toml::from_str(&format!("uplink = {{ {recipe} }}")).unwrap();
    text.precision = toml::from_str("weighting = \"uniform\"").unwrap();
    (Run::new(JobSpec::check(text).unwrap(), 9), data)
}

#[test]
fn a_linear_maps_sum_comes_back_block_by_block_as_it_does_all_at_once() {
    for recipe in ["name = \"rotation\"", "name = \"random-k\", kept = 0.3"] {
        let (mut it, data) = compressed(&format!("{recipe}, levels = 64, sent_range = 1.0"));
        let before = it.read().w;
        let updates = [0, 1].map(|device| it.update(Kind::Train, device, None, &data[device]).0);
        let plan = it.spec.plan(Kind::Train).clone();
        let len = plan.sections()[0].len;
        let mut words = vec![0; len];
        let total = it.sum(Kind::Train, &[&updates[0], &updates[1]]);
        let bytes = &total.bytes().unwrap()[plan.section_bytes(0, 0..len)];
        littoral_fed::open::open_section(&plan, 0, 0..len, bytes, &mut words).unwrap();
        let sent: Vec<f32> = words.iter().map(|&word| word as f32).collect();
        // The seed that all share: of the job's and the version.
        let mut hashed = b"littoral/compression\0".to_vec();
        hashed.extend_from_slice(&[0; 16]);
        let back = it.spec.map().unwrap().of(None).unwrap().linear().backward(
            &sent,
            before.len(),
            blake3::hash(&hashed).as_bytes(),
        );

        let totals = it.advance(Kind::Train, updates.into(), 2);
        assert_eq!(totals.update_bytes, Some(2 * plan.format().bytes() as u64));
        let step = plan.step(0) / 2.0;
        for ((after, before), back) in it.read().w.iter().zip(&before).zip(&back) {
            assert_eq!(*after, (f64::from(*before) + f64::from(*back) * step) as f32, "{recipe}");
        }
        assert!(back.iter().filter(|&&back| back != 0.0).count() > len / 4);
    }
}

/// Each version moves by its sum's way back and brings the basis that the sum makes; both sides reckon with the one that the
/// version brought, also after statistics.
#[test]
fn versions_take_turns_and_carry_what_the_next_one_projects_onto() {
    let (mut it, data) = compressed("name = \"powersgd\", rank = 2, residual = true, levels = 4096, sent_range = 4.0");
    let Some(Map::Alternating(shape)) = it.spec.map() else { panic!("no turns") };
    let (shape, plan) = (shape.clone(), it.spec.plan(Kind::Train).clone());
    let len = plan.sections()[0].len;
    assert_eq!((len, it.read().basis), (shape.sent_len(), Some(shape.basis_at_first(&seed(0)))));
    let mut kept = [None, None];
    for version in 0..3 {
        let (before, basis) = (it.read().w, it.read().basis.unwrap());
        let updates = [0, 1].map(|device| {
            let (update, state) = it.update(Kind::Train, device, kept[device].clone(), &data[device]);
            kept[device] = state;
            update
        });
        let mut words = vec![0; len];
        let total = it.sum(Kind::Train, &[&updates[0], &updates[1]]);
        let bytes = &total.bytes().unwrap()[plan.section_bytes(0, 0..len)];
        littoral_fed::open::open_section(&plan, 0, 0..len, bytes, &mut words).unwrap();
        let sent: Vec<f32> = words.iter().map(|&word| word as f32).collect();
        let back = shape.with(&basis).backward(&sent, before.len(), &[0; 32]);
        it.advance(Kind::Train, updates.into(), 2);
        let (after, next) = (it.read().w, it.read().basis);
        for ((after, before), back) in after.iter().zip(&before).zip(&back) {
            assert_eq!(*after, (f64::from(*before) + f64::from(*back) * plan.step(0) / 2.0) as f32);
        }
        assert!(back.iter().filter(|&&back| back != 0.0).count() > before.len() / 2);
        assert_eq!(next, Some(shape.basis_next(&basis, &sent, &seed(version)).unwrap()));
    }
    // A basis that is none is not trained on.
    let mut bytes = it.shelf.bytes(&it.model);
    let at = it.spec.version().basis_at();
    bytes[at.start + 7] ^= 0x40;
    it.model = it.shelf.put(&bytes);
    let declined = it.local(Kind::Train, 0, None, &data[0]).unwrap_err();
    assert!(declined.to_string().contains("orthonormal columns"), "{declined}");
}

/// That all devices of a version share.
fn seed(version: u64) -> [u8; 32] {
    let mut hashed = b"littoral/compression\0".to_vec();
    hashed.extend_from_slice(&[0; 8]);
    hashed.extend_from_slice(&version.to_le_bytes());
    *blake3::hash(&hashed).as_bytes()
}

#[test]
fn a_coded_update_is_shorter_and_what_it_leaves_out_is_kept_to_the_last_step() {
    let (mut it, data) = compressed("name = \"top-k\", kept = 0.05");
    let plan = it.spec.plan(Kind::Train).clone();
    let params = it.spec.version().params;
    let mut kept = None;
    for _ in 0..2 {
        let start = it.read().w;
        let (update, state) = it.update(Kind::Train, 0, kept.clone(), &data[0]);
        let mut sum = Partial::empty(plan.format());
        let codec = it.spec.codec(Kind::Train).unwrap();
        let bytes = it.shelf.bytes(&update);
        littoral_fed::compress::accumulate::absorb(&mut sum, NodeId([1; 32]), codec, &plan, &bytes).unwrap();
        let mut sent = vec![0; params];
        let place = plan.section_bytes(0, 0..params);
        littoral_fed::open::open_section(&plan, 0, 0..params, &sum.bytes().unwrap()[place], &mut sent).unwrap();

        // The same training without compression, on the same shelf.
        let mut text = it.spec.text().clone();
        text.compression = None;
        let plain = JobSpec::check(text).unwrap();
        assert_eq!(plain.plan(Kind::Train).step(0), plan.step(0));
        let own = std::mem::replace(&mut it.spec, plain.clone());
        let whole = it.update(Kind::Train, 0, None, &data[0]).0;
        it.spec = own;
        let mut wanted = vec![0; params];
        let bytes = &it.shelf.bytes(&whole)[plain.plan(Kind::Train).section_bytes(0, 0..params)];
        littoral_fed::open::open_section(plain.plan(Kind::Train), 0, 0..params, bytes, &mut wanted).unwrap();
        let read = |state: &Option<Manifest>| match state {
            Some(state) => version::wholes(&it.shelf.bytes(state)).map(i64::from).collect(),
            None => vec![0; params],
        };
        let (before, after): (Vec<i64>, Vec<i64>) = (read(&kept), read(&state));
        for at in 0..params {
            // The two round halves in other ways.
            let owed = wanted[at] + before[at] - sent[at] - after[at];
            assert!(owed.abs() <= 1, "coordinate {at}: {owed} steps are lost");
        }
        assert!(after.iter().any(|&left| left != 0) && update.bytes() * 8 < whole.bytes());
        kept = state;
        let partial = it.shelf.put(sum.bytes().unwrap());
        let totals = it.advance(Kind::Train, vec![partial], 1);
        assert_eq!((totals.update_bytes, totals.devices), (Some(update.bytes()), 1));
        assert_ne!(it.read().w, start);
    }
}

/// Clipped, mapped by what keeps the norm, rounded to the nearest: and the cloud's noise is as much as that needs.
#[test]
fn noise_on_a_mapped_sum_covers_what_one_device_can_change() {
    let (it, data) = compressed("name = \"random-k\", kept = 0.5, rescaled = false, levels = 4096, sent_range = 0.02");
    let mut text = it.spec.text().clone();
    let private = "mechanism = \"central\"\nclip = 0.05\nnoise_multiplier = 1.0\nepsilon = 100.0";
    text.differential_privacy = Some(toml::from_str(private).unwrap());
    let mut it = Run::new(JobSpec::check(text).unwrap(), 9);
    let (before, plan) = (it.read().w, it.spec.plan(Kind::Train).clone());
    let (len, step) = (plan.sections()[0].len, plan.step(0));
    // The map keeps the norm but for roundings, and rounding moves each coordinate by half a step at most.
    let bound = 0.05 * (1.0 + 1e-5) + 0.5 * step * (len as f64).sqrt();
    let mut sum = vec![0; len];
    let updates = [0, 1].map(|device| it.update(Kind::Train, device, None, &data[device]).0);
    for update in &updates {
        let mut words = vec![0; len];
        let place = plan.section_bytes(0, 0..len);
        littoral_fed::open::open_section(&plan, 0, 0..len, &it.shelf.bytes(update)[place], &mut words).unwrap();
        let norm = step * words.iter().map(|&word| (word as f64).powi(2)).sum::<f64>().sqrt();
        assert!(norm <= bound && norm > 0.3 * bound, "{norm} {bound}");
        sum.iter_mut().zip(words).for_each(|(sum, word)| *sum += word);
    }
    it.advance(Kind::Train, updates.into(), 2);
    let moved: Vec<f32> = it.read().w.iter().zip(&before).map(|(after, before)| after - before).collect();
    let mut hashed = b"littoral/compression\0".to_vec();
    hashed.extend_from_slice(&[0; 16]);
    let told = it.spec.map().unwrap().of(None).unwrap().linear().forward(&moved, blake3::hash(&hashed).as_bytes());
    let noise = told.iter().zip(&sum).map(|(&told, &sum)| 2.0 * f64::from(told) - sum as f64 * step);
    let variance = noise.map(|noise| noise * noise).sum::<f64>() / len as f64;
    // Of 36,130 draws a variance is known to √(2/36,130) = 0.75 %; five of these.
    assert!((variance / bound.powi(2) - 1.0).abs() < 0.04, "{variance} {}", bound.powi(2));
}
