//! The two floats that a layer may be written for: `f32` to train, `f64` to check gradients.

use crate::Matrix;
use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// `f32` or `f64`. Sealed: [`gemm`](crate::gemm()) has kernels for these two only.
pub trait Real:
    sealed::Sealed
    + Copy
    + Debug
    + Default
    + Display
    + PartialOrd
    + Send
    + Sync
    + Sum
    + Add<Output = Self>
    + AddAssign
    + Div<Output = Self>
    + DivAssign
    + Mul<Output = Self>
    + MulAssign
    + Neg<Output = Self>
    + Sub<Output = Self>
    + SubAssign
    + 'static
{
    const ZERO: Self;
    const ONE: Self;
    const INFINITY: Self;

    fn from_f32(value: f32) -> Self;
    /// Rounds to nearest when `Self` is narrower.
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
    fn sqrt(self) -> Self;
    fn ln(self) -> Self;
    fn exp(self) -> Self;
    fn max(self, other: Self) -> Self;
    fn is_nan(self) -> bool;
    /// `c = alpha c + beta a b`, if this processor has a kernel of ours for it; else false.
    #[doc(hidden)]
    fn tiled(alpha: Self, c: &mut [Self], beta: Self, a: Matrix<'_, Self>, b: Matrix<'_, Self>) -> bool;
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const INFINITY: Self = f32::INFINITY;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self.into()
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    #[inline(always)]
    fn ln(self) -> Self {
        // By way of f64, where libraries differ in bits that the rounding to f32 removes.
        f64::from(self).ln() as f32
    }
    #[inline(always)]
    fn exp(self) -> Self {
        crate::elementary::exp_f32(self)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.max(other)
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        self.is_nan()
    }
    #[cfg(target_arch = "x86_64")]
    fn tiled(alpha: Self, c: &mut [Self], beta: Self, a: Matrix<'_, Self>, b: Matrix<'_, Self>) -> bool {
        crate::tile::product(alpha, c, beta, a, b)
    }
    #[cfg(not(target_arch = "x86_64"))]
    fn tiled(_: Self, _: &mut [Self], _: Self, _: Matrix<'_, Self>, _: Matrix<'_, Self>) -> bool {
        false
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const INFINITY: Self = f64::INFINITY;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value.into()
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    #[inline(always)]
    fn ln(self) -> Self {
        self.ln()
    }
    #[inline(always)]
    fn exp(self) -> Self {
        self.exp()
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.max(other)
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        self.is_nan()
    }
    fn tiled(_: Self, _: &mut [Self], _: Self, _: Matrix<'_, Self>, _: Matrix<'_, Self>) -> bool {
        false
    }
}
