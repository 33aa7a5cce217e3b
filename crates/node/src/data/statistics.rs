//! Mean and standard deviation of every input over the whole fleet, in one round, without a central copy.
//!
//! Each device adds up its own rows ([`Sums::of`]): present values, missing values, sum, sum of squares, the latter two
//! as [`Wide`] numbers. The words of all devices are added; the total gives one [`Standardisation`] for all. Because
//! values are f32 (their squares are exact in f64) and the sums are integers, the result has the same bits for every
//! way of laying the rows on devices, as if they lay in one place.
//!
//! Not here: clipping and noise. A device's sums tell about its rows; a job that must hide them sends the words through
//! secure aggregation, which takes integers.

use super::error::{DataError, Problem};
use super::prepared::{Features, Prepared};
use super::wide::{LIMBS, Wide, power_of_two};

/// Words per input: present, missing, sum, sum of squares.
pub const WORDS_PER_INPUT: usize = 2 + 2 * LIMBS;

/// Sums over some rows, one entry per input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sums {
    inputs: Vec<InputSums>,
}

/// Sums of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InputSums {
    /// Rows that have a value.
    pub present: u64,
    /// Rows that have none.
    pub missing: u64,
    /// Sum of the values.
    pub sum: Wide,
    /// Sum of their squares.
    pub squares: Wide,
}

impl Sums {
    /// The sums of a device's training rows. Only number features have statistics: for pixels and tokens there are no
    /// inputs to sum. An error names the input (by its index and, if `inputs` gives them, its name) that is out of range.
    pub fn of(prepared: &Prepared, inputs: &[String]) -> Result<Self, DataError> {
        let Features::F32 { width, values } = &prepared.features else {
            return Ok(Self::default());
        };
        Self::over(*width, values.chunks_exact((*width).max(1)), inputs)
    }

    /// The sums of some rows of what trains. Rows beyond the last are passed over. Errors as in [`Sums::of`].
    pub fn of_rows(features: &littoral_model::Features, rows: &[u32], inputs: &[String]) -> Result<Self, DataError> {
        let littoral_model::Features::F32 { width, values } = features else {
            return Ok(Self::default());
        };
        let row = |row: &u32| {
            let start = (*row as usize).saturating_mul(*width);
            values.get(start..start.saturating_add(*width))
        };
        Self::over(*width, rows.iter().filter_map(row), inputs)
    }

    fn over<'a>(width: usize, rows: impl Iterator<Item = &'a [f32]>, inputs: &[String]) -> Result<Self, DataError> {
        let mut sums = vec![InputSums::default(); width];
        let out_of_range = |index: usize| {
            let hint = "give this column a `scale` or `offset` in the mapping, so that its values are of ordinary size";
            let error =
                DataError::new(Problem::OutOfRange, "values whose squares add up to less than 2^80", "more", hint);
            error.in_column(inputs.get(index).map_or(&format!("input {index}"), |name| name))
        };
        for row in rows {
            for (index, (sum, value)) in sums.iter_mut().zip(row).enumerate() {
                if value.is_nan() {
                    sum.missing += 1;
                    continue;
                }
                let value = f64::from(*value);
                sum.present += 1;
                sum.sum.add(value).and_then(|()| sum.squares.add(value * value)).map_err(|_| out_of_range(index))?;
            }
        }
        for (index, sum) in sums.iter_mut().enumerate() {
            if !sum.sum.fits_device() || !sum.squares.fits_device() {
                return Err(out_of_range(index));
            }
            // Carried, so that each word of the message has 32 bits and a fleet's worth of them fits 64.
            (sum.sum, sum.squares) = (sum.sum.normalised(), sum.squares.normalised());
        }
        Ok(Self { inputs: sums })
    }

    /// The sums of each input.
    pub fn inputs(&self) -> &[InputSums] {
        &self.inputs
    }

    /// The words that a device sends, [`WORDS_PER_INPUT`] for each input; the fleet's words are their sums.
    pub fn to_words(&self) -> Vec<i64> {
        let mut words = Vec::with_capacity(self.inputs.len() * WORDS_PER_INPUT);
        for input in &self.inputs {
            words.extend([input.present as i64, input.missing as i64]);
            words.extend(input.sum.limbs());
            words.extend(input.squares.limbs());
        }
        words
    }

    /// The sums from words, those of a device or of a fleet. `None` if they are not whole inputs or a count is negative.
    pub fn from_words(words: &[i64]) -> Option<Self> {
        let (chunks, rest) = words.as_chunks::<WORDS_PER_INPUT>();
        if !rest.is_empty() {
            return None;
        }
        let input = |words: &[i64; WORDS_PER_INPUT]| {
            let limbs = |from: usize| words[from..from + LIMBS].try_into().ok().map(Wide::from_limbs);
            Some(InputSums {
                present: words[0].try_into().ok()?,
                missing: words[1].try_into().ok()?,
                sum: limbs(2)?,
                squares: limbs(2 + LIMBS)?,
            })
        };
        Some(Self { inputs: chunks.iter().map(input).collect::<Option<_>>()? })
    }

    /// Mean and inverse standard deviation of each input.
    pub fn standardisation(&self) -> Standardisation {
        let (mut mean, mut inv_std) = (Vec::new(), Vec::new());
        for input in &self.inputs {
            let (m, s) = input.mean_and_inv_std();
            mean.push(m);
            inv_std.push(s);
        }
        Standardisation { mean, inv_std }
    }
}

impl InputSums {
    /// (mean, 1 / standard deviation), of the population: divided by the number of values. A constant input, or one
    /// without values, has 0 as its inverse: it becomes 0 in every row and teaches nothing, which is right.
    fn mean_and_inv_std(&self) -> (f64, f64) {
        if self.present == 0 {
            return (0.0, 0.0);
        }
        let count = self.present as f64;
        // sum of squares - sum^2 / n, in pairs of f64: with 106 bits the cancellation leaves every digit that f32 has.
        let (s, s_low) = self.sum.to_f64_pair();
        let (q, q_low) = self.squares.to_f64_pair();
        let mean = s / count;
        let mean_low = ((-mean).mul_add(count, s) + s_low) / count;
        // sum * mean, with the products' own errors.
        let product = s * mean;
        let product_low = s.mul_add(mean, -product) + s * mean_low + s_low * mean;
        let variance = ((q - product) + (q_low - product_low)) / count;
        // Below this the "variance" is the rounding of squares to 2^-80 or of the pairs: the column is constant.
        let noise = power_of_two(-79) + mean * mean * power_of_two(-96);
        if variance <= noise { (mean, 0.0) } else { (mean, 1.0 / variance.sqrt()) }
    }
}

/// What every device applies to its features before training and evaluation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Standardisation {
    /// Of the present values, per input.
    pub mean: Vec<f64>,
    /// 1 / standard deviation; 0 for a constant input.
    pub inv_std: Vec<f64>,
}

impl Standardisation {
    /// Puts the fleet's mean where a value is missing, for a model that standardises by itself: there it becomes 0.
    pub fn fill_missing(&self, features: &mut Features) -> Result<(), DataError> {
        self.each(features, |value, mean, _| if value.is_nan() { mean as f32 } else { value })
    }

    /// `(x - mean) * inv_std` in place; a missing value takes the fleet's mean and so becomes 0. Pixels and tokens are
    /// left as they are.
    pub fn apply(&self, features: &mut Features) -> Result<(), DataError> {
        self.each(
            features,
            |value, mean, inv_std| {
                if value.is_nan() { 0.0 } else { ((f64::from(value) - mean) * inv_std) as f32 }
            },
        )
    }

    fn each(&self, features: &mut Features, change: impl Fn(f32, f64, f64) -> f32) -> Result<(), DataError> {
        let Features::F32 { width, values } = features else {
            return Ok(());
        };
        if *width != self.mean.len() || *width != self.inv_std.len() {
            let expected = format!("statistics of {width} inputs");
            let got = format!("{} inputs", self.mean.len());
            let hint = "the statistics belong to another schema: run the statistics round of this job again";
            return Err(DataError::new(Problem::WrongShape, expected, got, hint));
        }
        for row in values.chunks_exact_mut((*width).max(1)) {
            for ((value, mean), inv_std) in row.iter_mut().zip(&self.mean).zip(&self.inv_std) {
                *value = change(*value, *mean, *inv_std);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::prepared::Labels;
    use super::*;

    fn prepared(width: usize, values: Vec<f32>) -> Prepared {
        let labels = Labels::Values { width: 1, values: vec![0.0; values.len() / width] };
        Prepared { features: Features::F32 { width, values }, labels }
    }

    fn fleet(devices: &[Prepared]) -> Standardisation {
        let mut words = Vec::new();
        for device in devices {
            let own = Sums::of(device, &[]).expect("in range").to_words();
            words.resize(own.len(), 0);
            words.iter_mut().zip(own).for_each(|(sum, word)| *sum += word);
        }
        Sums::from_words(&words).expect("whole").standardisation()
    }

    #[test]
    fn missing_and_constant_inputs() {
        let nan = f32::NAN;
        let rows = prepared(3, vec![1.0, 5.0, nan, nan, 5.0, nan, 3.0, 5.0, nan]);
        let statistics = fleet(std::slice::from_ref(&rows));
        assert_eq!(statistics, Standardisation { mean: vec![2.0, 5.0, 0.0], inv_std: vec![1.0, 0.0, 0.0] });
        let mut filled = rows.features.clone();
        statistics.fill_missing(&mut filled).expect("same width");
        let expected = vec![1.0, 5.0, 0.0, 2.0, 5.0, 0.0, 3.0, 5.0, 0.0];
        assert_eq!(filled, Features::F32 { width: 3, values: expected });
        let mut features = rows.features;
        statistics.apply(&mut features).expect("same width");
        let expected = vec![-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0];
        assert_eq!(features, Features::F32 { width: 3, values: expected });
    }

    #[test]
    fn a_small_spread_on_a_large_mean_survives() {
        // Seconds since 1970 within two minutes: in plain f64 the variance would lose its last digits or its sign.
        let values: Vec<f32> = (0..1000).map(|i| 1.7e9 + 128.0 * (i % 2) as f32).collect();
        let statistics = fleet(&[prepared(1, values)]);
        assert_eq!(statistics.inv_std, [1.0 / 64.0]);
        // Farads: 1 and 3 nF.
        let statistics = fleet(&[prepared(1, vec![1e-9, 3e-9])]);
        // 2e-24 of resolution on a square of 1e-18, and f32's own 6e-8 on the inputs.
        assert!((statistics.inv_std[0] * 1e-9 - 1.0).abs() < 1e-6, "{statistics:?}");
        let tenth = fleet(&[prepared(1, vec![0.1; 1000])]);
        assert_eq!(tenth.inv_std, [0.0], "0.1 is constant however it is rounded");
    }

    #[test]
    fn out_of_range_names_the_input() {
        let error = Sums::of(&prepared(2, vec![1.0, 1e20]), &["a".into(), "b".into()]).expect_err("1e40");
        assert_eq!((error.problem, error.column.as_deref()), (Problem::OutOfRange, Some("\"b\"")));
        assert_eq!(Sums::from_words(&[1; WORDS_PER_INPUT - 1]), None);
        assert_eq!(Sums::from_words(&[-1; WORDS_PER_INPUT]), None);
    }

    proptest! {
        #[test]
        fn the_fleet_has_the_bits_of_one_place(
            values in proptest::collection::vec(prop_oneof![9 => -1e6f32..1e6, 1 => Just(f32::NAN)], 2..80),
            owner in proptest::collection::vec(0usize..4, 80),
        ) {
            let central = fleet(&[prepared(1, values.clone())]);
            let mut devices = vec![Vec::new(); 4];
            for (value, owner) in values.iter().zip(owner) {
                devices[owner].push(*value);
            }
            let devices: Vec<Prepared> = devices.into_iter().map(|values| prepared(1, values)).collect();
            prop_assert_eq!(fleet(&devices), central.clone());
            // And it is the mean: to 1e-12 of the largest value, what a naive f64 sum of 80 values loses at most.
            let present: Vec<f64> = values.iter().filter(|v| !v.is_nan()).map(|v| f64::from(*v)).collect();
            if !present.is_empty() {
                let mean = present.iter().sum::<f64>() / present.len() as f64;
                prop_assert!((central.mean[0] - mean).abs() <= 1e-6);
            }
        }
    }
}
