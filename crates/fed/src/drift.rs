//! Distribution shift, watched over versions: each device counts its rows in a few histograms, sums of those are compared with the
//! sums of the first versions.
//!
//! A **sketch** is some histograms, each a device's rows in some bins, as parts of its rows: a device counts once, however many rows
//! it has. Parts are in steps of 2^-16 that add up to 1 exactly, so that sums are exact in any order
//! and under masks, and a sum that is none of so many devices is found. Three bins of 42 bits are one whole number.
//!
//! A [`Watch`] gathers the first `baseline` versions and compares the last `baseline` of the later ones with them, by total variation
//! (half the sum of absolute differences, 0 to 1). How far apart versions are that have not drifted depends on how many devices they
//! have and how different those are, so it is measured: `usual` is the largest of [`SPLITS`] distances between one half of the baseline
//! and the other, over √2, since halves are noisier than wholes. Noise that is added for privacy is in it too. A histogram has drifted
//! once it is more than twice as far away as is usual, and more than [`FLOOR`]; so
//! that a fleet that does not move is hardly ever called drifted over hundreds of versions with several histograms (a test counts).

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use thiserror::Error;

/// A device's parts of a histogram add up to this.
pub const UNIT: u64 = 1 << 16;
/// Versions that a baseline may have.
pub const BASELINE: RangeInclusive<u32> = 8..=64;
/// Ways to halve a baseline that are tried.
pub const SPLITS: usize = 64;
/// Shifts up to here are told and are no drift.
pub const FLOOR: f64 = 0.05;
/// Bins of a sketch, at most.
pub const BINS_MAX: usize = 256;

const BIN_BITS: u32 = 42;
const BINS_PER_WHOLE: usize = 3;

/// Bins of each histogram, one or more; [`BINS_MAX`] or fewer together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    bins: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a sketch has histograms of 1 bin or more each, and at most {BINS_MAX} bins, got {got:?}")]
pub struct LayoutError {
    pub got: Vec<usize>,
}

/// Parts of histograms in a layout's order: of a device, they add up to [`UNIT`] in each; of a sum, to that times devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    parts: Vec<u64>,
}

impl Layout {
    pub fn new(bins: Vec<usize>) -> Result<Self, LayoutError> {
        let all: usize = bins.iter().fold(0, |all, bins| all.saturating_add(*bins));
        match !bins.is_empty() && bins.iter().all(|bins| *bins > 0) && all <= BINS_MAX {
            true => Ok(Self { bins }),
            false => Err(LayoutError { got: bins }),
        }
    }

    pub fn histograms(&self) -> usize {
        self.bins.len()
    }

    /// Of one histogram; 0 past the last.
    pub fn bins_of(&self, histogram: usize) -> usize {
        self.bins.get(histogram).copied().unwrap_or(0)
    }

    /// Over all histograms.
    pub fn bins(&self) -> usize {
        self.bins.iter().sum()
    }

    /// Whole numbers of an update.
    pub fn wholes(&self) -> usize {
        self.bins().div_ceil(BINS_PER_WHOLE)
    }

    /// A sum of sketches, noised or not, as parts: each histogram adds up to 1. `None` if one has no positive sum.
    pub fn parts(&self, sums: &[f64]) -> Option<Vec<f64>> {
        let mut parts = Vec::with_capacity(sums.len());
        for histogram in self.split(sums) {
            let sum: f64 = histogram.iter().sum();
            if !(sum > 0.0 && sum.is_finite()) {
                return None;
            }
            parts.extend(histogram.iter().map(|part| part / sum));
        }
        (parts.len() == self.bins()).then_some(parts)
    }

    /// What stands for each histogram in a slice of all bins.
    fn split<'a, T>(&self, mut all: &'a [T]) -> Vec<&'a [T]> {
        let mut split = Vec::with_capacity(self.bins.len());
        for bins in &self.bins {
            let (first, rest) = all.split_at((*bins).min(all.len()));
            split.push(first);
            all = rest;
        }
        split
    }
}

impl Sketch {
    /// Of one device. `counts`: its rows in each bin. A histogram without rows has its parts in equal measure everywhere: whether
    /// there are any is not told.
    pub fn of(layout: &Layout, counts: &[u64]) -> Self {
        let parts = layout.split(counts).into_iter().flat_map(shares).collect();
        Self { parts }
    }

    pub fn to_wholes(&self) -> Vec<i128> {
        let packed =
            |parts: &[u64]| parts.iter().zip(0..).map(|(&part, at)| i128::from(part) << (BIN_BITS * at)).sum::<i128>();
        self.parts.chunks(BINS_PER_WHOLE).map(packed).collect()
    }

    /// From the sum of what devices told. `None`: that is no such sum, some device told something else.
    pub fn from_wholes(layout: &Layout, wholes: &[i128], devices: u64) -> Option<Self> {
        let part = |at: usize| {
            let whole = wholes.get(at / BINS_PER_WHOLE)?;
            let shift = BIN_BITS * (at % BINS_PER_WHOLE) as u32;
            Some((whole >> shift & ((1 << BIN_BITS) - 1)) as u64)
        };
        let parts: Vec<u64> = (0..layout.bins()).map(part).collect::<Option<_>>()?;
        let sketch = Self { parts };
        let whole = |histogram: &[u64]| histogram.iter().sum::<u64>() == devices * UNIT;
        let sound = sketch.to_wholes() == wholes && layout.split(&sketch.parts).into_iter().all(whole);
        sound.then_some(sketch)
    }

    /// As reals: of one device they add up to 1 in each histogram.
    pub fn to_reals(&self) -> impl Iterator<Item = f64> + '_ {
        self.parts.iter().map(|&part| part as f64 / UNIT as f64)
    }
}

/// Rows of one histogram as parts of [`UNIT`], by largest remainders; of equal ones the first.
fn shares(counts: &[u64]) -> Vec<u64> {
    let rows: u128 = counts.iter().map(|&count| u128::from(count)).sum();
    let (counts, rows) = match rows {
        0 => (vec![1; counts.len()], counts.len() as u128),
        rows => (counts.to_vec(), rows),
    };
    let scaled = |count: u64| u128::from(count) * u128::from(UNIT);
    let mut parts: Vec<u64> = counts.iter().map(|&count| (scaled(count) / rows) as u64).collect();
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(scaled(counts[at]) % rows));
    let missing = UNIT - parts.iter().sum::<u64>();
    order.into_iter().take(missing as usize).for_each(|at| parts[at] += 1);
    parts
}

/// How far a histogram is from where it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// Which one, in the layout's order.
    pub histogram: usize,
    /// Total variation between the last versions and the baseline, 0 to 1.
    pub distance: f64,
    /// As far away as versions are that have not drifted.
    pub usual: f64,
}

impl Shift {
    pub fn drifted(&self) -> bool {
        self.distance > self.limit()
    }

    fn limit(&self) -> f64 {
        FLOOR.max(2.0 * self.usual)
    }
}

/// Sketches of a job's versions as they come.
#[derive(Clone, Debug)]
pub struct Watch {
    layout: Layout,
    baseline: usize,
    first: Vec<Vec<f64>>,
    /// Of each histogram, once the baseline is whole.
    usual: Vec<f64>,
    last: VecDeque<Vec<f64>>,
}

impl Watch {
    /// `baseline` is in [`BASELINE`].
    pub fn new(layout: Layout, baseline: u32) -> Self {
        Self { layout, baseline: baseline as usize, first: Vec::new(), usual: Vec::new(), last: VecDeque::new() }
    }

    /// One more version, by the parts of its sum. From twice the baseline on: the histogram that is closest to a drift, or furthest beyond.
    pub fn add(&mut self, parts: Vec<f64>) -> Option<Shift> {
        if parts.len() != self.layout.bins() {
            return None;
        }
        if self.first.len() < self.baseline {
            self.first.push(parts);
            if self.first.len() == self.baseline {
                self.usual = self.usual();
            }
            return None;
        }
        self.last.push_back(parts);
        if self.last.len() > self.baseline {
            self.last.pop_front();
        }
        if self.last.len() < self.baseline {
            return None;
        }
        let now = mean(self.last.iter());
        let then = mean(self.first.iter());
        let shifts = self.distances(&now, &then).into_iter().zip(&self.usual).enumerate();
        shifts
            .map(|(histogram, (distance, &usual))| Shift { histogram, distance, usual })
            .max_by(|a, b| (a.distance / a.limit()).total_cmp(&(b.distance / b.limit())))
    }

    /// Of each histogram, once the baseline is whole.
    fn usual(&self) -> Vec<f64> {
        let mut generator = ChaCha20Rng::from_seed([0; 32]);
        let mut order: Vec<usize> = (0..self.baseline).collect();
        let mut largest = vec![0.0; self.layout.histograms()];
        for _ in 0..SPLITS {
            // Any order will do: it is the same one everywhere.
            order.sort_by_cached_key(|_| generator.next_u64());
            let (one, other) = order.split_at(self.baseline / 2);
            let half = |half: &[usize]| mean(half.iter().map(|&at| &self.first[at]));
            let distances = self.distances(&half(one), &half(other));
            largest.iter_mut().zip(distances).for_each(|(largest, distance)| *largest = distance.max(*largest));
        }
        largest.iter_mut().for_each(|largest| *largest *= std::f64::consts::FRAC_1_SQRT_2);
        largest
    }

    /// Of each histogram.
    fn distances(&self, a: &[f64], b: &[f64]) -> Vec<f64> {
        let pairs = self.layout.split(a).into_iter().zip(self.layout.split(b));
        pairs.map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0).collect()
    }
}

fn mean<'a>(all: impl Iterator<Item = &'a Vec<f64>>) -> Vec<f64> {
    let (mut sum, mut count): (Vec<f64>, u32) = (Vec::new(), 0);
    for one in all {
        sum.resize(one.len(), 0.0);
        sum.iter_mut().zip(one).for_each(|(sum, x)| *sum += x);
        count += 1;
    }
    sum.iter_mut().for_each(|sum| *sum /= f64::from(count.max(1)));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new(vec![2, 5]).unwrap()
    }

    #[test]
    fn parts_add_up_to_one_and_sums_are_found_again() {
        let layout = layout();
        let devices: [[u64; 7]; 3] =
            [[1, 2, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 7], [u64::MAX / 2, 1, 1, 0, 0, 0, u64::MAX / 2]];
        let sketches = devices.map(|counts| Sketch::of(&layout, &counts));
        let thirds: Vec<u64> = sketches[0].parts[..2].to_vec();
        assert_eq!(thirds, [21845, 43691], "the larger remainder");
        assert_eq!(sketches[0].parts[2..], [13108, 13107, 13107, 13107, 13107], "of equal ones the first");
        assert_eq!(sketches[1].parts[..2], [UNIT / 2, UNIT / 2], "no rows are not told");
        let mut sum = vec![0; layout.wholes()];
        for sketch in &sketches {
            sum.iter_mut().zip(sketch.to_wholes()).for_each(|(sum, whole)| *sum += whole);
        }
        let read = Sketch::from_wholes(&layout, &sum, 3).unwrap();
        for at in 0..7 {
            assert_eq!(read.parts[at], sketches.iter().map(|sketch| sketch.parts[at]).sum::<u64>());
        }
        assert!(Sketch::from_wholes(&layout, &sum, 2).is_none(), "of other devices");
        assert!(Sketch::from_wholes(&layout, &sum[1..], 3).is_none());
        for (at, wrong) in [(0, sum[0] - 1), (0, -1), (2, sum[2] + (1 << 42)), (1, 1 << 126)] {
            let mut sum = sum.clone();
            sum[at] = wrong;
            assert!(Sketch::from_wholes(&layout, &sum, 3).is_none(), "{at}: {wrong}");
        }
    }

    #[test]
    fn as_many_devices_as_a_cohort_may_have_fit() {
        let most = littoral_wire::message::COHORT_MAX as u64;
        let one = Sketch::of(&layout(), &[0, 1, 0, 0, 9, 0, 0]);
        let sum: Vec<i128> = one.to_wholes().iter().map(|whole| whole * i128::from(most)).collect();
        let read = Sketch::from_wholes(&layout(), &sum, most).unwrap();
        assert_eq!((read.parts[1], read.parts[4]), (most * UNIT, most * UNIT));
    }

    /// Versions of 20 devices with 30 rows of ten classes each, of which a device has two.
    fn version(generator: &mut ChaCha20Rng, shifted: bool) -> Vec<f64> {
        let layout = Layout::new(vec![10]).unwrap();
        let mut sum = vec![0.0; 10];
        for _ in 0..20 {
            let classes = [generator.next_u64() % 10, generator.next_u64() % 10];
            let mut counts = [0; 10];
            for _ in 0..30 {
                let class = classes[(generator.next_u64() % 2) as usize] as usize;
                // A third of the classes is taken for another.
                counts[if shifted && class < 3 { class + 3 } else { class }] += 1;
            }
            sum.iter_mut().zip(Sketch::of(&layout, &counts).to_reals()).for_each(|(sum, part)| *sum += part);
        }
        sum
    }

    #[test]
    fn a_shift_is_seen_and_none_is_not() {
        let (mut seen, mut false_alarms) = (0, 0);
        for seed in 0..50 {
            let mut generator = ChaCha20Rng::seed_from_u64(seed);
            let mut watch = Watch::new(Layout::new(vec![10]).unwrap(), 16);
            for at in 0..64 {
                let parts = watch.layout.parts(&version(&mut generator, at >= 48)).unwrap();
                let shift = watch.add(parts);
                assert_eq!(shift.is_some(), at >= 31, "two times the baseline");
                let drifted = shift.is_some_and(|shift| shift.drifted());
                false_alarms += u32::from(drifted && at < 48);
                seen += u32::from(drifted && at == 63);
            }
        }
        // 50 runs of 17 versions without and of one with sixteen shifted ones: 0.3 of all rows are elsewhere.
        assert_eq!((seen, false_alarms), (50, 0));
    }

    /// Sixty fleets that stay where they are, of devices that differ as much as they can, for 200 versions of eight devices.
    #[test]
    fn fleets_that_stay_are_hardly_ever_called_drifted() {
        let layout = Layout::new(vec![2, 8, 8, 8, 8]).unwrap();
        let mut called = 0;
        for seed in 0..60 {
            let mut generator = ChaCha20Rng::seed_from_u64(1000 + seed);
            let mut watch = Watch::new(layout.clone(), 16);
            let mut drifted = false;
            for _ in 0..200 {
                let mut sum = vec![0.0; layout.bins()];
                for _ in 0..8 {
                    // All rows of a device are in one bin of each histogram.
                    let counts = [2, 8, 8, 8, 8].map(|bins| {
                        let own = generator.next_u64() % bins;
                        (0..bins).map(move |bin| u64::from(bin == own))
                    });
                    let counts: Vec<u64> = counts.into_iter().flatten().collect();
                    sum.iter_mut().zip(Sketch::of(&layout, &counts).to_reals()).for_each(|(sum, part)| *sum += part);
                }
                drifted |= watch.add(layout.parts(&sum).unwrap()).is_some_and(|shift| shift.drifted());
            }
            called += u32::from(drifted);
        }
        assert!(called <= 2, "{called} of 60");
    }

    #[test]
    fn what_is_no_sketch_is_left_out() {
        assert!(Layout::new(vec![]).is_err() && Layout::new(vec![3, 0]).is_err() && Layout::new(vec![257]).is_err());
        let mut watch = Watch::new(layout(), 8);
        assert_eq!(layout().parts(&[0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]), None);
        assert_eq!(layout().parts(&[f64::NAN, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]), None);
        assert_eq!(layout().parts(&[1.0; 3]), None);
        // Noise may leave less than nothing in a bin.
        assert!(layout().parts(&[-0.1, 1.1, 1.0, 0.0, 0.0, 0.0, 0.0]).is_some());
        assert_eq!(watch.add(vec![1.0; 3]), None);
    }
}
