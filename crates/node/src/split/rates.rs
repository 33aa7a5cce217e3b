//! How fast this machine is at a model's layers: some are loaded and timed, with the kernels that serve.
//!
//! - *Reading*: one token after the other goes through as many layers as hold more weights than caches keep ([`read_bytes`]), or
//!   through all. Its median time is that of their bytes; what a layer takes beside reading is in the rate.
//! - *Prefill*: [`PREFILL_TOKENS`] go through one layer at once.
//!
//! Where there is no file of the model a matrix of eight-bit weights stands for its layers.

use littoral_infer::model::{Model, ModelError};
use littoral_infer::pass::{Pass, Piece, Runner, Slot, Tokens};
use littoral_infer::split::plan::ModelCost;
use littoral_model::lm::{self, CacheType, Stage, StateError, Wanted};
use littoral_tensor::gguf::Gguf;
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::{Instructions, Kind, Matrix, MatrixError, Panels, multiply};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Weights that one token reads, where caches are small or nobody tells; and however large they are.
const READ_BYTES: u64 = 128 << 20;
const READ_BYTES_MAX: u64 = 1 << 30;
/// Of the memory that is free, the measurement takes at most this part.
const PART_OF_MEMORY: u64 = 4;
const PREFILL_TOKENS: usize = 64;
/// For each of the two, beside what the first run takes.
const TIME: Duration = Duration::from_millis(200);
const RUNS_MAX: usize = 64;
/// Of the matrix that stands for layers; blocks of 32.
const COLUMNS: usize = 2_048;

#[derive(Debug, Error)]
pub enum RatesError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    #[error("a pass of the measurement: {0}")]
    Pass(#[from] littoral_infer::pass::PassError),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rates {
    /// Of weights, by the bytes that they take in the file.
    pub read_bytes_per_s: u64,
    pub prefill_flops_per_s: u64,
    /// Of the layers that were timed; 0: a matrix was.
    pub timed_bytes: u64,
    /// Of the file from its disk; 0: nobody has measured that.
    pub disk_read_bytes_per_s: u64,
}

impl Rates {
    /// With layers of a GGUF file. `memory_bytes`: what is free; 0: nobody knows.
    ///
    /// # Errors
    /// The file's layers cannot be loaded.
    pub fn of_layers(file: &[u8], memory_bytes: u64, pool: &Pool) -> Result<Self, RatesError> {
        let gguf = Gguf::parse(file).map_err(ModelError::from)?;
        let config = lm::config(&gguf).map_err(ModelError::from)?;
        let cost = ModelCost::of(&gguf, &config, CacheType::F16).map_err(ModelError::from)?;
        let most = read_bytes();
        let most = if memory_bytes == 0 { most } else { most.min(memory_bytes / PART_OF_MEMORY) };
        let (mut count, mut bytes) = (0, 0);
        // One is always timed.
        while count < cost.layers.len() && (count == 0 || bytes + cost.layers[count].weight_bytes <= most) {
            bytes += cost.layers[count].weight_bytes;
            count += 1;
        }
        let mut run = Run::new(Model::load_layers(file, 0..count, pool)?)?;
        let decode_s = median_s(&mut |nth| run.tokens(nth, 1, pool))?;
        let mut run = Run::new(Model::load_layers(file, 0..1, pool)?)?;
        let prefill_s = median_s(&mut |nth| run.tokens(nth * PREFILL_TOKENS, PREFILL_TOKENS, pool))?;
        let flops = PREFILL_TOKENS as u64 * cost.layers[0].flops;
        Ok(Self {
            read_bytes_per_s: (bytes as f64 / decode_s) as u64,
            prefill_flops_per_s: (flops as f64 / prefill_s) as u64,
            timed_bytes: bytes,
            disk_read_bytes_per_s: 0,
        })
    }

    /// Without a file.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn of_matrix(memory_bytes: u64, pool: &Pool) -> Result<Self, RatesError> {
        let kind = Kind::Q8_0;
        let row_bytes = kind.row_bytes(COLUMNS).unwrap_or(COLUMNS) as u64;
        let most = if memory_bytes == 0 { READ_BYTES } else { read_bytes().min(memory_bytes / PART_OF_MEMORY / 2) };
        let rows = (most / row_bytes).max(16) as usize;
        let matrix = Matrix::pack(kind, rows, COLUMNS, &vec![1; rows * row_bytes as usize], pool)?;
        let few =
            Matrix::pack(kind, rows.min(COLUMNS), COLUMNS, &vec![1; rows.min(COLUMNS) * row_bytes as usize], pool)?;
        let mut panels = Panels::new(Instructions::here()[0]);
        let mut out = vec![0.0; matrix.padded_rows().max(PREFILL_TOKENS * few.padded_rows())];
        let mut through = |matrix: &Matrix, tokens: usize| {
            panels.renew(tokens, COLUMNS);
            panels.prepare(kind, &vectors(tokens * COLUMNS), pool);
            multiply(&[matrix], &panels, &mut out, pool);
            Ok(())
        };
        let decode_s = median_s(&mut |_| through(&matrix, 1))?;
        let prefill_s = median_s(&mut |_| through(&few, PREFILL_TOKENS))?;
        let flops = 2 * PREFILL_TOKENS * few.rows() * COLUMNS;
        Ok(Self {
            read_bytes_per_s: ((rows as u64 * row_bytes) as f64 / decode_s) as u64,
            prefill_flops_per_s: (flops as f64 / prefill_s) as u64,
            timed_bytes: 0,
            disk_read_bytes_per_s: 0,
        })
    }
}

/// Twice what the largest cache holds: of the last read little is left in it then. Some machines' hold a small model.
fn read_bytes() -> u64 {
    let folder = "/sys/devices/system/cpu/cpu0/cache";
    let sizes = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = sizes.filter_map(|cache| cache_bytes(&std::fs::read_to_string(cache.path().join("size")).ok()?));
    (2 * sizes.max().unwrap_or_default()).clamp(READ_BYTES, READ_BYTES_MAX)
}

/// As Linux writes it: `32K`, `491520K`.
fn cache_bytes(size: &str) -> Option<u64> {
    let (number, unit) = size.trim().split_at_checked(size.trim().len().checked_sub(1)?)?;
    let unit = match unit {
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    // More than that nobody has.
    number.parse::<u64>().ok().filter(|number| *number < 1 << 30)?.checked_mul(unit)
}

/// Layers, and a sequence that goes through them.
struct Run {
    stage: Stage,
    runner: Runner,
}

impl Run {
    fn new(stage: Stage) -> Result<Self, StateError> {
        Ok(Self { runner: Runner::new(&stage, CacheType::F16)?, stage })
    }

    /// Behind the first `start` positions.
    fn tokens(&mut self, start: usize, tokens: usize, pool: &Pool) -> Result<(), RatesError> {
        // What a model was trained for may be less.
        let start = if start + tokens <= self.stage.config().context { start } else { 0 };
        let pieces = vec![Piece { slot: Slot(0), start, tokens, wanted: Wanted::None }];
        let input = vectors(tokens * self.stage.config().width);
        self.runner.run(&self.stage, &Pass { pieces, ..Pass::default() }, Tokens::Vectors(&input), pool)?;
        Ok(())
    }
}

/// Of no meaning, and no zeros.
fn vectors(elements: usize) -> Vec<f32> {
    (0..elements).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.01).collect()
}

/// Of runs that are numbered from 0; the first, which finds nothing in a cache, counts only if it took all the time.
fn median_s(run: &mut dyn FnMut(usize) -> Result<(), RatesError>) -> Result<f64, RatesError> {
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < RUNS_MAX && (times.len() < 2 || begun.elapsed() < TIME) {
        let run_begun = Instant::now();
        run(times.len())?;
        times.push(run_begun.elapsed().as_secs_f64());
        if times[0] > TIME.as_secs_f64() {
            break;
        }
    }
    let mut times = if times.len() > 1 { times.split_off(1) } else { times };
    times.sort_by(f64::total_cmp);
    // A clock may be coarse.
    Ok(times[times.len() / 2].max(1e-9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_the_model_has_rates_too() {
        let rates = Rates::of_matrix(8 << 20, &Pool::new(1)).unwrap();
        assert!(rates.read_bytes_per_s > 0 && rates.prefill_flops_per_s > 0, "{rates:?}");
        assert_eq!(rates.timed_bytes, 0);
    }

    #[test]
    fn sizes_of_caches_as_linux_writes_them() {
        let sizes = ["32K\n", "491520K", "2M", "", "K", "12", "-1K", "99999999999G"].map(cache_bytes);
        let expected = [Some(32_768), Some(480 << 20), Some(2 << 20), None, None, None, None, None];
        assert_eq!(sizes, expected);
        assert!((READ_BYTES..=READ_BYTES_MAX).contains(&read_bytes()));
    }

    #[test]
    fn the_first_run_does_not_count_and_runs_are_bounded() {
        let mut runs = 0;
        let nothing = median_s(&mut |nth| {
            assert_eq!(nth, runs);
            runs += 1;
            Ok(())
        });
        assert!(nothing.unwrap() >= 1e-9);
        assert!((2..=RUNS_MAX).contains(&runs), "{runs}");
    }
}
