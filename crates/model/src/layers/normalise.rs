//! Group normalisation (Wu and He 2018) and batch normalisation (Ioffe and Szegedy 2015) over images.
//!
//! Both take values to mean 0 and variance 1 and then to `weight * x^ + bias` per channel; they differ in what they
//! take the mean over. Group: one example's pixels and a group of channels, the same in training and after it. Batch: all
//! examples' pixels of one channel; for evaluation a *running* mean and variance, which are segments of the parameters
//! that no derivative moves. In a federation the running statistics of clients with other data disagree: FedBN (Li et al. 2021)
//! keeps all segments of a norm at home, and group normalisation avoids the question.

use super::squares::{Length, Work};
use super::{Mode, Room, Sizes};
use crate::sink::Sink;
use littoral_tensor::Real;
use std::ops::Range;

/// Added to the variance, as in PyTorch.
const EPSILON: f64 = 1e-5;

/// The share of a new batch in the running statistics, as in PyTorch.
const MOMENTUM: f64 = 0.1;

#[derive(Clone, Debug)]
pub(crate) struct GroupNorm {
    pub pixels: usize,
    pub channels: usize,
    /// Divides `channels`.
    pub groups: usize,
    pub weight: Range<usize>,
    pub bias: Range<usize>,
}

impl GroupNorm {
    pub fn sizes(&self, rows: usize) -> Sizes {
        // Kept: mean and inverse deviation per row and channel (equal within a group, so that loops run over channels).
        Sizes { kept: 2 * rows * self.channels, chosen: 0, work: 4 * self.channels }
    }

    pub fn forward<T: Real>(&self, weights: &[T], x: &[T], y: &mut [T], room: Room<'_, T>) {
        let (weight, bias) = (&weights[self.weight.clone()], &weights[self.bias.clone()]);
        let image = self.pixels * self.channels;
        let rows = x.chunks_exact(image).zip(y.chunks_exact_mut(image));
        for ((x, y), kept) in rows.zip(room.kept.chunks_exact_mut(2 * self.channels)) {
            let (mean, inv_std) = kept.split_at_mut(self.channels);
            sum_of_channels(x, mean, |x, _| x);
            self.share(mean);
            sum_of_channels(x, inv_std, |x, c| (x - mean[c]) * (x - mean[c]));
            self.share(inv_std);
            inverse_deviation(inv_std);
            normalise(x, y, mean, inv_std, weight, bias);
        }
    }

    pub fn inputs<T: Real>(&self, weights: &[T], x: &[T], dy: &[T], dx: Option<&mut [T]>, room: &mut Room<'_, T>) {
        let Some(dx) = dx else { return };
        let weight = &weights[self.weight.clone()];
        let dx = &mut dx.chunks_exact_mut(self.pixels * self.channels);
        self.each_row(x, dy, room, |x, dy, [mean, inv_std], [across, along], _| {
            for ((across, along), weight) in across.iter_mut().zip(along.iter_mut()).zip(weight) {
                *across *= *weight;
                *along *= *weight;
            }
            self.share(across);
            self.share(along);
            if let Some(dx) = dx.next() {
                spread(x, dy, dx, mean, inv_std, weight, across, along);
            }
        });
    }

    pub fn parameters<T: Real>(&self, x: &[T], dy: &[T], room: &mut Room<'_, T>, sink: &mut Sink<'_, T>) {
        room.work[2 * self.channels..].fill(T::ZERO);
        self.each_row(x, dy, room, |_, _, _, sums, totals| {
            for (totals, sums) in totals.chunks_exact_mut(self.channels).zip(sums) {
                totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += *sum);
            }
        });
        let (d_weight, d_bias) = room.work[2 * self.channels..4 * self.channels].split_at(self.channels);
        sink.target(&self.weight).sum_of_rows(d_weight);
        sink.target(&self.bias).sum_of_rows(d_bias);
    }

    /// Each channel's derivatives are sums over pixels; here in f64.
    pub fn squares<T: Real>(&self, x: &[T], dy: &[T], kept: &[T], work: &mut Work<T>, lengths: &mut [Length]) {
        let (image, channels) = (self.pixels * self.channels, self.channels);
        work.wide.resize(4 * channels, 0.0);
        let rows = x.chunks_exact(image).zip(dy.chunks_exact(image)).zip(kept.chunks_exact(2 * channels));
        for (((x, dy), kept), length) in rows.zip(lengths) {
            let (mean, inv_std) = kept.split_at(channels);
            let sums = &mut work.wide[..4 * channels];
            sums.fill(0.0);
            for (x, dy) in x.chunks_exact(channels).zip(dy.chunks_exact(channels)) {
                for (c, sums) in sums.chunks_exact_mut(4).enumerate() {
                    let dy = dy[c].to_f64();
                    let across = dy * ((x[c].to_f64() - mean[c].to_f64()) * inv_std[c].to_f64());
                    sums[0] += across;
                    sums[1] += across.abs();
                    sums[2] += dy;
                    sums[3] += dy.abs();
                }
            }
            for sums in sums.chunks_exact(2) {
                *length += Length { square: sums[0] * sums[0], terms: sums[1] * sums[1] };
            }
        }
    }

    /// Visits each example: its x and dy, its mean and inverse deviation, its derivatives by weight and by bias; and the rest of
    /// the room.
    fn each_row<T: Real>(
        &self,
        x: &[T],
        dy: &[T],
        room: &mut Room<'_, T>,
        mut visit: impl FnMut(&[T], &[T], [&[T]; 2], [&mut [T]; 2], &mut [T]),
    ) {
        let image = self.pixels * self.channels;
        let (across, rest) = room.work.split_at_mut(self.channels);
        let (along, rest) = rest.split_at_mut(self.channels);
        let kept = room.kept.chunks_exact(2 * self.channels);
        for ((x, dy), kept) in x.chunks_exact(image).zip(dy.chunks_exact(image)).zip(kept) {
            let (mean, inv_std) = kept.split_at(self.channels);
            products_of_channels(x, dy, mean, inv_std, across, along);
            visit(x, dy, [mean, inv_std], [&mut *across, &mut *along], rest);
        }
    }

    /// Turns sums per channel into the mean of the group, given to each of its channels.
    fn share<T: Real>(&self, sums: &mut [T]) {
        let members = self.channels / self.groups;
        let count = T::from_f64((members * self.pixels) as f64);
        for group in sums.chunks_exact_mut(members) {
            let mean = group.iter().copied().sum::<T>() / count;
            group.fill(mean);
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct BatchNorm {
    pub name: String,
    pub pixels: usize,
    pub channels: usize,
    pub weight: Range<usize>,
    pub bias: Range<usize>,
    /// Not trained: moved by [`absorb`](Self::absorb).
    pub running_mean: Range<usize>,
    pub running_variance: Range<usize>,
}

impl BatchNorm {
    pub fn sizes(&self) -> Sizes {
        // Kept: mean, inverse deviation and variance of the batch.
        Sizes { kept: 3 * self.channels, chosen: 0, work: 2 * self.channels }
    }

    pub fn forward<T: Real>(&self, weights: &[T], x: &[T], y: &mut [T], kept: &mut [T], mode: Mode) {
        let (mean, rest) = kept.split_at_mut(self.channels);
        let (inv_std, variance) = rest.split_at_mut(self.channels);
        match mode {
            Mode::Train => {
                let count = T::from_f64((x.len() / self.channels) as f64);
                sum_of_channels(x, mean, |x, _| x);
                mean.iter_mut().for_each(|mean| *mean /= count);
                sum_of_channels(x, variance, |x, c| (x - mean[c]) * (x - mean[c]));
                variance.iter_mut().for_each(|variance| *variance /= count);
            }
            Mode::Evaluate => {
                mean.copy_from_slice(&weights[self.running_mean.clone()]);
                variance.copy_from_slice(&weights[self.running_variance.clone()]);
            }
        }
        inv_std.copy_from_slice(variance);
        inverse_deviation(inv_std);
        normalise(x, y, mean, inv_std, &weights[self.weight.clone()], &weights[self.bias.clone()]);
    }

    pub fn inputs<T: Real>(&self, weights: &[T], x: &[T], dy: &[T], dx: Option<&mut [T]>, room: &mut Room<'_, T>) {
        let Some(dx) = dx else { return };
        let channels = self.channels;
        let (mean, inv_std) = room.kept[..2 * channels].split_at(channels);
        let (across, along) = room.work[..2 * channels].split_at_mut(channels);
        products_of_channels(x, dy, mean, inv_std, across, along);
        let weight = &weights[self.weight.clone()];
        let count = T::from_f64((x.len() / channels) as f64);
        // spread() takes means of dx^ = weight * dy; the plain sums are the derivatives by weight and bias.
        for c in 0..channels {
            across[c] *= weight[c] / count;
            along[c] *= weight[c] / count;
        }
        spread(x, dy, dx, mean, inv_std, weight, across, along);
    }

    pub fn parameters<T: Real>(&self, x: &[T], dy: &[T], room: &mut Room<'_, T>, sink: &mut Sink<'_, T>) {
        let channels = self.channels;
        let (mean, inv_std) = room.kept[..2 * channels].split_at(channels);
        let (across, along) = room.work[..2 * channels].split_at_mut(channels);
        products_of_channels(x, dy, mean, inv_std, across, along);
        sink.target(&self.weight).sum_of_rows(across);
        sink.target(&self.bias).sum_of_rows(along);
    }

    /// Moves the running statistics toward those of the last training pass over `rows` rows; the variance that
    /// is absorbed is the unbiased one.
    pub fn absorb<T: Real>(&self, weights: &mut [T], kept: &[T], rows: usize) {
        let count = (rows * self.pixels) as f64;
        let unbiased = if count > 1.0 { count / (count - 1.0) } else { 1.0 };
        let (share, keep) = (T::from_f64(MOMENTUM), T::from_f64(1.0 - MOMENTUM));
        let (mean, variance) = (&kept[..self.channels], &kept[2 * self.channels..]);
        for (running, mean) in weights[self.running_mean.clone()].iter_mut().zip(mean) {
            *running = keep * *running + share * *mean;
        }
        for (running, variance) in weights[self.running_variance.clone()].iter_mut().zip(variance) {
            *running = keep * *running + share * T::from_f64(unbiased) * *variance;
        }
    }
}

/// `sums[c]` = the sum of `of(x, c)` over the pixels.
#[inline(always)]
fn sum_of_channels<T: Real>(x: &[T], sums: &mut [T], of: impl Fn(T, usize) -> T) {
    sums.fill(T::ZERO);
    for pixel in x.chunks_exact(sums.len()) {
        for (c, (sum, x)) in sums.iter_mut().zip(pixel).enumerate() {
            *sum += of(*x, c);
        }
    }
}

fn inverse_deviation<T: Real>(variance: &mut [T]) {
    for value in variance {
        *value = T::ONE / (*value + T::from_f64(EPSILON)).sqrt();
    }
}

/// `y = weight * (x - mean) * inv_std + bias`, per channel.
fn normalise<T: Real>(x: &[T], y: &mut [T], mean: &[T], inv_std: &[T], weight: &[T], bias: &[T]) {
    let channels = mean.len();
    let (inv_std, weight, bias) = (&inv_std[..channels], &weight[..channels], &bias[..channels]);
    for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
        for c in 0..channels {
            y[c] = weight[c] * ((x[c] - mean[c]) * inv_std[c]) + bias[c];
        }
    }
}

/// `across[c]` = sum of dy * x^, `along[c]` = sum of dy.
fn products_of_channels<T: Real>(x: &[T], dy: &[T], mean: &[T], inv_std: &[T], across: &mut [T], along: &mut [T]) {
    let channels = mean.len();
    let inv_std = &inv_std[..channels];
    let (across, along) = (&mut across[..channels], &mut along[..channels]);
    across.fill(T::ZERO);
    along.fill(T::ZERO);
    for (x, dy) in x.chunks_exact(channels).zip(dy.chunks_exact(channels)) {
        for c in 0..channels {
            across[c] += dy[c] * ((x[c] - mean[c]) * inv_std[c]);
            along[c] += dy[c];
        }
    }
}

/// `dx = inv_std * (dx^ - mean(dx^) - x^ * mean(dx^ * x^))` with dx^ = weight * dy; `along` and `across` are the means.
#[allow(clippy::too_many_arguments)]
fn spread<T: Real>(
    x: &[T],
    dy: &[T],
    dx: &mut [T],
    mean: &[T],
    inv_std: &[T],
    weight: &[T],
    across: &[T],
    along: &[T],
) {
    let channels = mean.len();
    let (inv_std, weight) = (&inv_std[..channels], &weight[..channels]);
    let (across, along) = (&across[..channels], &along[..channels]);
    let pixels = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
    for ((x, dy), dx) in pixels.zip(dx.chunks_exact_mut(channels)) {
        for c in 0..channels {
            let normal = (x[c] - mean[c]) * inv_std[c];
            dx[c] = inv_std[c] * (weight[c] * dy[c] - along[c] - normal * across[c]);
        }
    }
}
