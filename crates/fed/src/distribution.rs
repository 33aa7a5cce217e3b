//! How a quality is spread over devices, as integers whose sums are exact: under masks too, and merged in any order.
//!
//! A device tells in which of twenty bins its accuracy lies, its accuracy, and the square of that. From the sums follow the mean
//! over devices, each counting once however many rows it has; the variance; and, from the bins, the mean of the worst tenth.
//!
//! Four whole numbers: seven bins of 18 bits in each of the first three, so that 2^18 − 1 devices fit a bin; the sum of
//! accuracies in steps of 2^−30 and that of squares, 60 bits each, in the last.

/// Each a twentieth wide; the last one has its upper end too.
pub const BINS: usize = 20;
/// Whole numbers of an update.
pub const WHOLES: usize = 4;

const BIN_BITS: u32 = 18;
const BINS_PER_WHOLE: usize = 7;
const SUM_BITS: u32 = 60;
const PER_UNIT: f64 = 1_073_741_824.0;

/// Over the devices that had rows to measure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    bins: [u64; BINS],
    /// In steps of 2^−30.
    sum: u64,
    squares: u64,
}

impl Distribution {
    /// Of one device: so many of so many right; of none nothing is told.
    pub fn of(right: u64, rows: u64) -> Self {
        let mut one = Self::default();
        if rows > 0 {
            let right = right.min(rows);
            // In integers, so that a bin's edge is where it is on every machine.
            let bin = (u128::from(right) * BINS as u128 / u128::from(rows)) as usize;
            one.bins[bin.min(BINS - 1)] = 1;
            let accuracy = right as f64 / rows as f64;
            one.sum = (accuracy * PER_UNIT).round() as u64;
            one.squares = (accuracy * accuracy * PER_UNIT).round() as u64;
        }
        one
    }

    pub fn to_wholes(&self) -> [i128; WHOLES] {
        let packed = |bins: &[u64]| {
            bins.iter().enumerate().map(|(at, &bin)| i128::from(bin) << (BIN_BITS * at as u32)).sum::<i128>()
        };
        let mut wholes = [0; WHOLES];
        wholes.iter_mut().zip(self.bins.chunks(BINS_PER_WHOLE)).for_each(|(whole, bins)| *whole = packed(bins));
        wholes[WHOLES - 1] = i128::from(self.sum) | i128::from(self.squares) << SUM_BITS;
        wholes
    }

    /// From the sum of what devices told. `None`: that is no such sum, some device told something else.
    pub fn from_wholes(wholes: &[i128], devices: u64) -> Option<Self> {
        let wholes: [i128; WHOLES] = wholes.try_into().ok()?;
        let part = |whole: i128, at: u32, bits: u32| (whole >> at & ((1 << bits) - 1)) as u64;
        let mut read = Self::default();
        for (at, bin) in read.bins.iter_mut().enumerate() {
            *bin = part(wholes[at / BINS_PER_WHOLE], BIN_BITS * (at % BINS_PER_WHOLE) as u32, BIN_BITS);
        }
        let both = wholes[WHOLES - 1];
        (read.sum, read.squares) = (part(both, 0, SUM_BITS), part(both, SUM_BITS, SUM_BITS));
        let most = read.devices() as f64 * PER_UNIT;
        let sound = read.to_wholes() == wholes
            && read.devices() <= devices
            && read.sum as f64 <= most
            // Each square was rounded by itself.
            && read.squares <= read.sum + read.devices();
        sound.then_some(read)
    }

    /// Devices that told one.
    pub fn devices(&self) -> u64 {
        self.bins.iter().sum()
    }

    /// Devices in each bin, the worst first.
    pub fn bins(&self) -> &[u64; BINS] {
        &self.bins
    }

    /// Each device counts once. Exact to 2^−31.
    pub fn mean(&self) -> Option<f64> {
        let devices = self.devices();
        (devices > 0).then(|| self.sum as f64 / PER_UNIT / devices as f64)
    }

    /// Of accuracy over these devices (not an estimate for others). Exact to 2^−29.
    pub fn variance(&self) -> Option<f64> {
        let mean = self.mean()?;
        Some((self.squares as f64 / PER_UNIT / self.devices() as f64 - mean * mean).max(0.0))
    }

    /// The mean of the worst tenth of devices, a device counting in part where a tenth is not a whole number. Each is taken to lie
    /// in the middle of its bin: right to 0.025; and never above the mean.
    pub fn worst_decile(&self) -> Option<f64> {
        let mean = self.mean()?;
        let wanted = self.devices() as f64 / 10.0;
        let (mut left, mut sum) = (wanted, 0.0);
        for (at, &bin) in self.bins.iter().enumerate() {
            let taken = left.min(bin as f64);
            sum += taken * (at as f64 + 0.5) / BINS as f64;
            left -= taken;
        }
        Some((sum / wanted).min(mean))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summed(devices: &[(u64, u64)]) -> [i128; WHOLES] {
        let mut sum = [0; WHOLES];
        for &(right, rows) in devices {
            sum.iter_mut().zip(Distribution::of(right, rows).to_wholes()).for_each(|(sum, whole)| *sum += whole);
        }
        sum
    }

    #[test]
    fn what_is_summed_tells_mean_variance_and_the_worst() {
        // Twenty devices: two bad ones are the worst tenth. One has no rows, and is nowhere.
        let mut devices = vec![(1, 10), (3, 10), (0, 0)];
        devices.extend([(9, 10); 17]);
        devices.push((10, 10));
        let told = Distribution::from_wholes(&summed(&devices), 21).unwrap();
        assert_eq!(
            (told.devices(), told.bins()[2], told.bins()[6], told.bins()[18], told.bins()[19]),
            (20, 1, 1, 17, 1)
        );
        let accuracies: Vec<f64> = devices.iter().filter(|d| d.1 > 0).map(|d| d.0 as f64 / d.1 as f64).collect();
        let mean = accuracies.iter().sum::<f64>() / 20.0;
        let variance = accuracies.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / 20.0;
        assert!((told.mean().unwrap() - mean).abs() < 2f64.powi(-31));
        assert!((told.variance().unwrap() - variance).abs() < 2f64.powi(-29));
        // The mean of 0.1 and 0.3, each moved to the middle of its bin.
        assert!((told.worst_decile().unwrap() - 0.225).abs() < 1e-12);
        // Of one device a tenth is still that one; perfect ones are not said to be worse than they are by more than half a bin.
        let (one, half) = (Distribution::from_wholes(&summed(&[(4, 8)]), 1), Some(0.5));
        assert_eq!(one.unwrap().worst_decile(), half);
        let perfect = Distribution::from_wholes(&summed(&[(7, 7); 3]), 3).unwrap();
        assert_eq!((perfect.mean(), perfect.variance(), perfect.worst_decile()), (Some(1.0), Some(0.0), Some(0.975)));
        assert_eq!(Distribution::default().worst_decile(), None);
    }

    #[test]
    fn as_many_devices_as_a_cohort_may_have_fit_one_bin() {
        let most = littoral_wire::message::COHORT_MAX as i128;
        for one in [Distribution::of(1, 1), Distribution::of(0, 1), Distribution::of(13, 20)] {
            let sum = one.to_wholes().map(|whole| whole * most);
            let told = Distribution::from_wholes(&sum, most as u64).unwrap();
            assert_eq!((told.devices(), told.mean()), (most as u64, one.mean()));
        }
    }

    #[test]
    fn what_is_no_sum_of_devices_is_none() {
        let sound = summed(&[(1, 2), (2, 2)]);
        assert!(Distribution::from_wholes(&sound, 2).is_some());
        assert!(Distribution::from_wholes(&sound, 1).is_none(), "more than there are");
        assert!(Distribution::from_wholes(&sound[1..], 2).is_none());
        for (at, wrong) in [(0, -1), (0, 1 << 126), (3, -5), (3, 1 << 121), (3, sound[3] + (1 << 32))] {
            let mut sum = sound;
            sum[at] = wrong;
            assert!(Distribution::from_wholes(&sum, 2).is_none(), "{at}: {wrong}");
        }
    }
}
