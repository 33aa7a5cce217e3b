//! The Fourier transform of two real sequences at once, in place; a power of two long.
//!
//! Cooley and Tukey 1965, in the order of Gentleman and Sande 1966: the forward transform leaves its output in bit-reversed order,
//! the inverse takes it in that order, so nothing is ever permuted. Halves are transformed one after the other, so that from
//! some level on everything happens in the cache. Own code because it is a page, and an auditor reads it here.

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Complex {
    pub re: f64,
    pub im: f64,
}

impl Complex {
    fn plus(self, b: Self) -> Self {
        Self { re: self.re + b.re, im: self.im + b.im }
    }

    fn minus(self, b: Self) -> Self {
        Self { re: self.re - b.re, im: self.im - b.im }
    }

    pub fn times(self, b: Self) -> Self {
        Self { re: self.re * b.re - self.im * b.im, im: self.re * b.im + self.im * b.re }
    }

    fn conjugate(self) -> Self {
        Self { re: self.re, im: -self.im }
    }

    /// By squaring. The error grows with the power, as it does in any way.
    pub fn power(self, mut exponent: u64) -> Self {
        let (mut square, mut result) = (self, Self { re: 1.0, im: 0.0 });
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = result.times(square);
            }
            square = square.times(square);
            exponent >>= 1;
        }
        result
    }
}

/// The roots of unity exp(-2πi k / n), k < n/2, for every level n, the largest first.
pub(super) struct Roots(Vec<Vec<Complex>>);

impl Roots {
    /// For transforms of length `n`, a power of two.
    pub fn new(n: usize) -> Self {
        let mut levels = Vec::new();
        let mut size = n;
        while size >= 2 {
            levels.push(roots(size));
            size /= 2;
        }
        Self(levels)
    }

    /// Forward: natural order in, bit-reversed order out.
    pub fn forward(&self, x: &mut [Complex]) {
        forward(x, &self.0);
    }

    /// Inverse, without the factor 1 / n: bit-reversed order in, natural order out.
    pub fn inverse(&self, x: &mut [Complex]) {
        inverse(x, &self.0);
    }
}

/// Each root is one product of two that were computed directly: within 2 ulp.
fn roots(n: usize) -> Vec<Complex> {
    let half = n / 2;
    let block = 1usize << (half.ilog2() / 2);
    let root = |k: usize| {
        let angle = -std::f64::consts::TAU * (k as f64 / n as f64);
        Complex { re: libm::cos(angle), im: libm::sin(angle) }
    };
    let fine: Vec<Complex> = (0..block).map(root).collect();
    let mut all = Vec::with_capacity(half);
    for coarse in (0..half).step_by(block).map(root) {
        all.extend(fine.iter().map(|fine| coarse.times(*fine)));
    }
    all
}

fn forward(x: &mut [Complex], levels: &[Vec<Complex>]) {
    let Some((roots, smaller)) = levels.split_first() else { return };
    let (left, right) = x.split_at_mut(roots.len());
    for ((a, b), w) in left.iter_mut().zip(right.iter_mut()).zip(roots) {
        let difference = a.minus(*b);
        *a = a.plus(*b);
        *b = difference.times(*w);
    }
    forward(left, smaller);
    forward(right, smaller);
}

fn inverse(x: &mut [Complex], levels: &[Vec<Complex>]) {
    let Some((roots, smaller)) = levels.split_first() else { return };
    let (left, right) = x.split_at_mut(roots.len());
    inverse(left, smaller);
    inverse(right, smaller);
    for ((a, b), w) in left.iter_mut().zip(right.iter_mut()).zip(roots) {
        let turned = b.times(w.conjugate());
        *b = a.minus(turned);
        *a = a.plus(turned);
    }
}

/// What becomes of the two spectra of z = x + iy where their frequencies are k and n - k: `each(X(k), Y(k))` is asked once
/// for both, since X(n - k) is the conjugate of X(k).
///
/// In bit-reversed order the partner of place i in [2^j, 2^(j+1)) is 3 · 2^j - 1 - i; places 0 and 1 (frequencies 0 and n/2)
/// are their own.
pub(super) fn each_pair(z: &mut [Complex], mut each: impl FnMut(Complex, Complex) -> (Complex, Complex)) {
    let mut at = |i: usize, j: usize, z: &mut [Complex]| {
        let (a, b) = (z[i], z[j].conjugate());
        let (sum, difference) = (a.plus(b), a.minus(b));
        let x = Complex { re: sum.re / 2.0, im: sum.im / 2.0 };
        let y = Complex { re: difference.im / 2.0, im: -difference.re / 2.0 };
        let (x, y) = each(x, y);
        let turned = Complex { re: -y.im, im: y.re };
        z[j] = x.minus(turned).conjugate();
        z[i] = x.plus(turned);
    };
    for i in 0..z.len().min(2) {
        at(i, i, z);
    }
    let mut block = 2;
    while block < z.len() {
        for i in block..block + block / 2 {
            at(i, 3 * block - 1 - i, z);
        }
        block *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn convolutions_of_two_sequences_at_once() {
        let n = 64;
        let x: Vec<f64> = (0..n).map(|i| ((i * i) as f64 * 0.37).sin()).collect();
        let y: Vec<f64> = (0..n).map(|i| 1.0 / (1.0 + i as f64)).collect();
        let direct = |x: &[f64]| {
            let mut twice = vec![0.0; n];
            for i in 0..n {
                for j in 0..n {
                    twice[(i + j) % n] += x[i] * x[j];
                }
            }
            twice
        };
        let mut z: Vec<Complex> = x.iter().zip(&y).map(|(&re, &im)| Complex { re, im }).collect();
        let roots = Roots::new(n);
        roots.forward(&mut z);
        each_pair(&mut z, |x, y| (x.power(2), y.power(2)));
        roots.inverse(&mut z);
        for ((z, x), y) in z.iter().zip(direct(&x)).zip(direct(&y)) {
            // 64 terms of size 1, some dozen roundings each.
            assert!((z.re / n as f64 - x).abs() < 1e-13 && (z.im / n as f64 - y).abs() < 1e-13, "{z:?} {x} {y}");
        }
    }
}
