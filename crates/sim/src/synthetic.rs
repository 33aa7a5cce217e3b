//! Made-up data for fleets without any: each class is a cloud of points around its own centre, and each device sees
//! some classes more than others. Enough to tell a working algorithm from a broken one, no more.

use crate::stream::Stream;
use littoral_model::{Examples, Features, Labels, Shape};
use littoral_node::job::JobSpec;
use littoral_node::work::{LocalData, Rows};
use std::sync::{Arc, OnceLock};

/// One device's rows. They follow from the seed, the device's number and the job's shape.
#[derive(Debug)]
pub struct Synthetic {
    seed: u64,
    device: usize,
    rows: usize,
    /// The first job's; a device of a simulated fleet has one.
    made: OnceLock<Result<Rows, String>>,
}

/// Of 8 rows, how many are of the device's favourite class.
const FAVOURITE_OF_8: u64 = 4;

impl Synthetic {
    pub fn new(seed: u64, device: usize, rows: usize) -> Self {
        Self { seed, device, rows, made: OnceLock::new() }
    }

    fn make(&self, spec: &JobSpec) -> Result<Rows, String> {
        let Shape::Values { width } = spec.text().data.inputs() else {
            return Err("made-up data has numbers only: this job wants text".into());
        };
        let classes = spec.text().data.outputs().max(1);
        let mut common = Stream::new(self.seed, "synthetic centres");
        let centres: Vec<f32> = (0..width * classes).map(|_| 2.0 * gaussian(&mut common)).collect();
        let mut own = Stream::new(self.seed, &format!("synthetic device {}", self.device));
        let favourite = self.device % classes;
        let (mut values, mut ids) = (Vec::with_capacity(width * self.rows), Vec::with_capacity(self.rows));
        for _ in 0..self.rows {
            let class = match own.below(8) {
                0..FAVOURITE_OF_8 => favourite,
                _ => own.below(classes as u64) as usize,
            };
            let centre = &centres[class * width..(class + 1) * width];
            values.extend(centre.iter().map(|c| c + gaussian(&mut own)));
            ids.push(class as u32);
        }
        let labels = match spec.text().data.schema.classes() {
            Some(_) => Labels::Classes { ids, classes: classes as u32 },
            None => {
                // A number to predict: the mean of the row.
                let means = values.chunks(width).map(|row| row.iter().sum::<f32>() / width as f32).collect();
                Labels::Values { width: 1, values: means }
            }
        };
        let examples = Examples::new(Features::F32 { width, values }, labels).map_err(|e| e.to_string())?;
        let held_out = (self.rows as f64 * spec.text().data.held_out) as u32;
        let rows = self.rows as u32;
        Ok(Rows { examples: Arc::new(examples), train: (held_out..rows).collect(), held_out: (0..held_out).collect() })
    }
}

impl LocalData for Synthetic {
    fn rows(&self, spec: &JobSpec) -> Result<Rows, String> {
        self.made.get_or_init(|| self.make(spec)).clone()
    }
}

/// Mean 0, variance 1: the sum of twelve uniforms less six (Irwin and Hall), in integers until the end.
fn gaussian(stream: &mut Stream) -> f32 {
    let sum: u64 = (0..12).map(|_| stream.below(1 << 20)).sum();
    (sum as f32 - 6.0 * 1_048_575.0) / 1_048_576.0
}
