//! Functions of one value: ReLU, tanh, GELU.

use crate::spec::Activation;
use littoral_tensor::{Real, tanh};

#[derive(Clone, Debug)]
pub(crate) struct Elementwise {
    pub width: usize,
    pub function: Activation,
}

impl Elementwise {
    pub fn forward<T: Real>(&self, x: &[T], y: &mut [T]) {
        match self.function {
            // Written so that a NaN stays one: divergence must show.
            Activation::Relu => each(x, y, |x| if x < T::ZERO { T::ZERO } else { x }),
            Activation::Tanh => each(x, y, tanh),
            Activation::Gelu => each(x, y, |x| half::<T>() * x * (T::ONE + tanh(gelu_inner(x)))),
        }
    }

    pub fn backward<T: Real>(&self, x: &[T], y: &[T], dy: &[T], dx: Option<&mut [T]>) {
        let Some(dx) = dx else { return };
        match self.function {
            Activation::Relu => each_pair(y, dy, dx, |y, dy| if y > T::ZERO { dy } else { T::ZERO }),
            Activation::Tanh => each_pair(y, dy, dx, |y, dy| dy * (T::ONE - y * y)),
            Activation::Gelu => each_pair(x, dy, dx, |x, dy| {
                let t = tanh(gelu_inner(x));
                let inner = T::from_f64(ROOT_TWO_OVER_PI) * (T::ONE + T::from_f64(3.0 * CUBIC) * x * x);
                dy * half::<T>() * (T::ONE + t + x * (T::ONE - t * t) * inner)
            }),
        }
    }
}

const ROOT_TWO_OVER_PI: f64 = 0.797_884_560_802_865_4;
const CUBIC: f64 = 0.044715;

/// The tanh form of GELU (Hendrycks and Gimpel 2016, section 2): x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
#[inline(always)]
fn gelu_inner<T: Real>(x: T) -> T {
    T::from_f64(ROOT_TWO_OVER_PI) * (x + T::from_f64(CUBIC) * x * x * x)
}

#[inline(always)]
fn half<T: Real>() -> T {
    T::from_f64(0.5)
}

#[inline(always)]
fn each<T: Real>(x: &[T], y: &mut [T], function: impl Fn(T) -> T) {
    for (x, y) in x.iter().zip(y) {
        *y = function(*x);
    }
}

#[inline(always)]
fn each_pair<T: Real>(a: &[T], b: &[T], out: &mut [T], function: impl Fn(T, T) -> T) {
    for ((a, b), out) in a.iter().zip(b).zip(out) {
        *out = function(*a, *b);
    }
}
