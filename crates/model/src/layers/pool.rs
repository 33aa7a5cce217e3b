//! Max pooling over squares that do not overlap. What is left over at the right and the bottom is dropped.

use littoral_tensor::Real;

#[derive(Clone, Debug)]
pub(crate) struct MaxPool {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// Side of the square.
    pub side: usize,
}

impl MaxPool {
    pub fn inputs(&self) -> usize {
        self.height * self.width * self.channels
    }

    pub fn outputs(&self) -> usize {
        (self.height / self.side) * (self.width / self.side) * self.channels
    }

    /// Writes into `chosen` the place in the square of each maximum; of equal values the first.
    pub fn forward<T: Real>(&self, x: &[T], y: &mut [T], chosen: &mut [u32]) {
        let images = x.chunks_exact(self.inputs()).zip(y.chunks_exact_mut(self.outputs()));
        for ((x, y), chosen) in images.zip(chosen.chunks_exact_mut(self.outputs())) {
            self.each_square(|out, source, place| {
                let (y, chosen) = (&mut y[out..out + self.channels], &mut chosen[out..out + self.channels]);
                let x = &x[source..source + self.channels];
                if place == 0 {
                    y.copy_from_slice(x);
                    chosen.fill(0);
                    return;
                }
                for ((y, chosen), x) in y.iter_mut().zip(chosen).zip(x) {
                    // A NaN wins and stays: divergence must show.
                    let wins = *x > *y || x.is_nan();
                    *y = if wins { *x } else { *y };
                    *chosen = if wins { place as u32 } else { *chosen };
                }
            });
        }
    }

    pub fn backward<T: Real>(&self, dy: &[T], dx: Option<&mut [T]>, chosen: &[u32]) {
        let Some(dx) = dx else { return };
        dx.fill(T::ZERO);
        let images = dx.chunks_exact_mut(self.inputs()).zip(dy.chunks_exact(self.outputs()));
        for ((dx, dy), chosen) in images.zip(chosen.chunks_exact(self.outputs())) {
            self.each_square(|out, source, place| {
                let (dy, chosen) = (&dy[out..out + self.channels], &chosen[out..out + self.channels]);
                for ((dx, dy), chosen) in dx[source..source + self.channels].iter_mut().zip(dy).zip(chosen) {
                    *dx = if *chosen == place as u32 { *dy } else { T::ZERO };
                }
            });
        }
    }

    /// Visits each pixel of each square: where its output begins, where its input begins, its place in the square.
    #[inline(always)]
    fn each_square(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let (rows, columns) = (self.height / self.side, self.width / self.side);
        for row in 0..rows {
            for column in 0..columns {
                let out = (row * columns + column) * self.channels;
                for place in 0..self.side * self.side {
                    let (down, right) = (row * self.side + place / self.side, column * self.side + place % self.side);
                    visit(out, (down * self.width + right) * self.channels, place);
                }
            }
        }
    }
}
