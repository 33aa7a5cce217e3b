//! Two-dimensional convolution, stride 1, zero padding that keeps the size, as a product of patches and weights.
//!
//! Each pixel's neighbourhood becomes one row of a patch matrix ("im2col"), so that convolution is `patches * W + b`.
//! Patches are `kernel^2` times as large as the image; they are made for as many images at once as stay in the
//! cache, and made again in the backward pass, which costs less than to write and read them.

use super::Sizes;
use super::squares::{Length, Work};
use crate::sink::Sink;
use littoral_tensor::{Matrix, Real, gemm};
use std::ops::Range;

#[derive(Clone, Debug)]
pub(crate) struct Convolution {
    pub height: usize,
    pub width: usize,
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Odd.
    pub kernel: usize,
    /// (kernel, kernel, inputs, outputs)
    pub weight: Range<usize>,
    /// (outputs)
    pub bias: Range<usize>,
}

/// Patches are made for at most this many values at once, or for one image.
const PATCH_VALUES: usize = 1 << 18;

impl Convolution {
    pub fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Values in a pixel's neighbourhood.
    pub fn patch(&self) -> usize {
        self.kernel * self.kernel * self.inputs
    }

    /// A power of two: a batch that is one too passes in products of one size, which treat all its rows alike.
    fn images_at_once(&self) -> usize {
        1 << (PATCH_VALUES / (self.pixels() * self.patch())).max(1).ilog2()
    }

    pub fn sizes(&self, rows: usize) -> Sizes {
        Sizes { work: self.images_at_once().min(rows) * self.pixels() * self.patch(), ..Sizes::default() }
    }

    pub fn forward<T: Real>(&self, weights: &[T], x: &[T], y: &mut [T], work: &mut [T]) {
        let bias = &weights[self.bias.clone()];
        for pixel in y.chunks_exact_mut(self.outputs) {
            pixel.copy_from_slice(bias);
        }
        let weight = Matrix::new(&weights[self.weight.clone()], self.patch(), self.outputs);
        for (x, y) in
            self.some_images(x, self.inputs).zip(y.chunks_mut(self.images_at_once() * self.pixels() * self.outputs))
        {
            let patches = self.extract(x, work);
            gemm(T::ONE, y, T::ONE, patches, weight);
        }
    }

    pub fn inputs<T: Real>(&self, weights: &[T], dy: &[T], dx: Option<&mut [T]>, work: &mut [T]) {
        let Some(dx) = dx else { return };
        let weight = Matrix::new(&weights[self.weight.clone()], self.patch(), self.outputs);
        let some = self.images_at_once() * self.pixels() * self.inputs;
        for (dx, dy) in dx.chunks_mut(some).zip(self.some_images(dy, self.outputs)) {
            let pixels = dy.len() / self.outputs;
            let patches = &mut work[..pixels * self.patch()];
            gemm(T::ZERO, patches, T::ONE, Matrix::new(dy, pixels, self.outputs), weight.t());
            self.fold(patches, dx);
        }
    }

    pub fn squares<T: Real>(&self, x: &[T], dy: &[T], work: &mut [T], room: &mut Work<T>, lengths: &mut [Length]) {
        let (x, dy) = (x.chunks_exact(self.pixels() * self.inputs), dy.chunks_exact(self.pixels() * self.outputs));
        for ((x, dy), length) in x.zip(dy).zip(lengths) {
            self.extract(x, work);
            let patches = &work[..self.pixels() * self.patch()];
            *length += room.of_product(patches, dy, [self.patch(), self.outputs]);
            *length += room.of_sum(self.outputs, dy.chunks_exact(self.outputs));
        }
    }

    pub fn parameters<T: Real>(&self, x: &[T], dy: &[T], work: &mut [T], sink: &mut Sink<'_, T>) {
        let mut target = sink.target(&self.weight);
        target.begin();
        for (x, dy) in self.some_images(x, self.inputs).zip(self.some_images(dy, self.outputs)) {
            let pixels = dy.len() / self.outputs;
            let patches = self.extract(x, work);
            target.product(patches.t(), Matrix::new(dy, pixels, self.outputs));
        }
        sink.target(&self.bias).sum_of_rows(dy);
    }

    fn some_images<'a, T>(&self, images: &'a [T], channels: usize) -> std::slice::Chunks<'a, T> {
        images.chunks(self.images_at_once() * self.pixels() * channels)
    }

    /// The patches of some images, one row per pixel, in `work`.
    fn extract<'a, T: Real>(&self, images: &[T], work: &'a mut [T]) -> Matrix<'a, T> {
        let pixels = images.len() / self.inputs;
        let patches = &mut work[..pixels * self.patch()];
        let run = self.kernel * self.inputs;
        let per_image = self.pixels() * self.patch();
        for (image, patches) in
            images.chunks_exact(self.pixels() * self.inputs).zip(patches.chunks_exact_mut(per_image))
        {
            self.each_run(|patch, inside, source| {
                let out = &mut patches[patch..patch + run];
                out[..inside.start].fill(T::ZERO);
                out[inside.clone()].copy_from_slice(&image[source..source + inside.len()]);
                out[inside.end..].fill(T::ZERO);
            });
        }
        Matrix::new(patches, pixels, self.patch())
    }

    /// The reverse of [`extract`](Self::extract): adds each patch to the pixels it came from.
    fn fold<T: Real>(&self, patches: &[T], images: &mut [T]) {
        images.fill(T::ZERO);
        let per_image = self.pixels() * self.patch();
        for (image, patches) in
            images.chunks_exact_mut(self.pixels() * self.inputs).zip(patches.chunks_exact(per_image))
        {
            self.each_run(|patch, inside, source| {
                let part = &patches[patch + inside.start..patch + inside.end];
                for (pixel, part) in image[source..source + part.len()].iter_mut().zip(part) {
                    *pixel += *part;
                }
            });
        }
    }

    /// Visits each row of each pixel's neighbourhood. Arguments: where that row begins in the image's patches, which
    /// part of the row lies inside the image, and where this part begins in the image.
    #[inline(always)]
    fn each_run(&self, mut visit: impl FnMut(usize, Range<usize>, usize)) {
        let (reach, channels) = (self.kernel / 2, self.inputs);
        let run = self.kernel * channels;
        for top in 0..self.height {
            for left in 0..self.width {
                // Columns of the kernel that fall inside: left + column - reach in 0..width.
                let first = reach.saturating_sub(left);
                let last = self.kernel.min(self.width + reach - left);
                let pixel = (top * self.width + left) * self.patch();
                for row in 0..self.kernel {
                    let patch = pixel + row * run;
                    let from = top + row;
                    if from < reach || from - reach >= self.height {
                        visit(patch, 0..0, 0);
                        continue;
                    }
                    let source = ((from - reach) * self.width + left + first - reach) * channels;
                    visit(patch, first * channels..last * channels, source);
                }
            }
        }
    }
}
