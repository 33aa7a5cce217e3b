//! The MNIST work that peers were measured with: images, who has which, who is asked when.
//!
//! `LITTORAL_DATA/mnist` holds the four original IDX files, gzipped; `partition_dir0.3_1000x60.npy`, the training rows of
//! 1,000 clients; `cohorts_20x50.npy`, the clients of 20 rounds. Images stay bytes. Rounds after those 20 have the cohorts
//! that `bench/cohorts.py` drew.
//!
//! A client trains one epoch of batches of 10 at learning rate 0.05 on a 784-200-200-10 MLP with ReLU.

use super::{broken, team};
use crate::output::Failure;
use littoral_model::{Activation, Examples, Features, Initial, Labels, Loss, Model, ModelSpec, Shape, View};
use littoral_node::data::Limits;
use littoral_node::data::array::{Array, Elements};
use littoral_node::data::read::{gunzip, idx, npy};
use littoral_node::job::{LocalText, OptimiserText};
use littoral_node::work::Room;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const CLASSES: u32 = 10;
pub const BATCH: u32 = 10;
/// Rounds that have cohorts: 20 of the file, 80 more.
pub const ROUNDS_MAX: u16 = 100;
/// Clients of rounds 20 to 99, a line each.
const LATER_COHORTS: &str = include_str!("../../../../bench/cohorts_20_to_99.txt");
/// Where the folder is looked for.
pub const VARIABLE: &str = "LITTORAL_DATA";

pub struct Mnist {
    /// The test set.
    pub test: Arc<Examples>,
    /// Each client's training rows.
    pub clients: Vec<View>,
    /// Each round's clients.
    pub cohorts: Vec<Vec<usize>>,
}

impl Mnist {
    /// From the folder that the environment names.
    pub fn load() -> Result<Self, Failure> {
        let folder = std::env::var_os(VARIABLE).map(PathBuf::from).ok_or_else(|| {
            Failure::new("there is no data", VARIABLE, "a folder with mnist/", "nothing: the variable is not set")
                .hint("its README says what the folder holds: LITTORAL_DATA=../shared/data littoral bench fedavg")
        })?;
        let folder = folder.join("mnist");
        let train = Arc::new(examples(&folder, "train")?);
        let test = Arc::new(examples(&folder, "t10k")?);
        let file = folder.join("partition_dir0.3_1000x60.npy");
        let clients = rows(&file)?.into_iter().map(|rows| {
            let rows = rows.into_iter().map(|row| u32::try_from(row).map_err(|_| row)).collect::<Result<_, _>>();
            let rows = rows.map_err(|row| malformed(&file, "indices of training rows", row))?;
            View::new(Arc::clone(&train), rows).map_err(|error| malformed(&file, "indices of training rows", error))
        });
        let clients = clients.collect::<Result<Vec<_>, _>>()?;
        let file = folder.join("cohorts_20x50.npy");
        let mut cohorts = rows(&file)?;
        // Written by a script beside this code, so it is well formed.
        cohorts.extend(LATER_COHORTS.lines().map(|line| line.split(' ').flat_map(str::parse).collect()));
        match cohorts.iter().flatten().find(|&&client| client >= clients.len()) {
            Some(client) => Err(malformed(&file, "numbers of clients", client)),
            None => Ok(Self { test, clients, cohorts }),
        }
    }
}

pub fn model() -> Result<Model, Failure> {
    let spec = ModelSpec::Mlp {
        hidden: vec![200, 200],
        activation: Activation::Relu,
        loss: Loss::CrossEntropy,
        init: Initial::FanIn,
    };
    let model = Model::build(&spec, Shape::Values { width: 784 }, CLASSES as usize);
    model.map_err(|e| broken("the model of the MNIST work")(&e))
}

pub fn local() -> LocalText {
    let optimiser = OptimiserText::Sgd { learning_rate: 0.05, momentum: 0.0, weight_decay: 0.0 };
    LocalText { epochs: 1, batch: BATCH, optimiser, time_ms: None }
}

/// The fraction of test images that are told right, on a thread per room.
pub fn accuracy<'a>(
    model: &Model,
    w: &[f32],
    mnist: &Mnist,
    rooms: impl Iterator<Item = &'a mut Option<Room>>,
) -> Result<f64, Failure> {
    let broken = broken("evaluation");
    let (rows, at_once) = (mnist.test.rows() as u32, model.evaluation_rows());
    let mut places: Vec<(&mut Option<Room>, u64)> = rooms.map(|room| (room, 0)).collect();
    team::share(&mut places, (rows as usize).div_ceil(at_once), |(room, correct), index| {
        let part = (index * at_once) as u32..rows.min(((index + 1) * at_once) as u32);
        let part = View::new(Arc::clone(&mnist.test), part.collect()).map_err(|e| broken(&e))?;
        let room = Room::of(room, model, 1);
        *correct += room.worker.evaluate(model, w, &part).map_err(|e| broken(&e))?.correct;
        Ok::<(), Failure>(())
    })?;
    let correct: u64 = places.iter().map(|(_, correct)| correct).sum();
    Ok(correct as f64 / f64::from(rows))
}

fn examples(folder: &Path, part: &str) -> Result<Examples, Failure> {
    let file = folder.join(format!("{part}-images-idx3-ubyte.gz"));
    let images = read_idx(&file)?;
    let width = images.row_width();
    let Elements::U8(values) = images.elements else { return Err(malformed(&file, "bytes", "other numbers")) };
    let features = Features::U8 { width, values, scale: 1.0 / 255.0, offset: 0.0 };
    let file = folder.join(format!("{part}-labels-idx1-ubyte.gz"));
    let Elements::U8(labels) = read_idx(&file)?.elements else {
        return Err(malformed(&file, "bytes", "other numbers"));
    };
    let labels = Labels::Classes { ids: labels.into_iter().map(u32::from).collect(), classes: CLASSES };
    Examples::new(features, labels).map_err(|error| malformed(&file, "MNIST", error))
}

fn read_idx(path: &Path) -> Result<Array, Failure> {
    let unpacked = gunzip(BufReader::new(open(path)?)).map_err(|error| malformed(path, "gzip", error))?;
    idx::read(unpacked, &Limits::default()).map_err(|error| malformed(path, "IDX", error))
}

/// A matrix of indices, row by row.
fn rows(path: &Path) -> Result<Vec<Vec<usize>>, Failure> {
    let array = npy::read(open(path)?, &Limits::default()).map_err(|error| malformed(path, "NumPy's .npy", error))?;
    let width = array.row_width().max(1);
    let index = |i| array.integer(i).and_then(|value| usize::try_from(value).ok());
    let indices = (0..array.rows() * width).map(|i| index(i).ok_or_else(|| malformed(path, "indices", "others")));
    let indices = indices.collect::<Result<Vec<_>, _>>()?;
    Ok(indices.chunks(width).map(<[usize]>::to_vec).collect())
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| malformed(path, "a file", error))
}

fn malformed(path: &Path, expected: &str, got: impl ToString) -> Failure {
    Failure::new("the data cannot be read", path.display().to_string(), expected, got)
}
