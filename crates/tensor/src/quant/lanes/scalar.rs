//! The specification of [`Lanes`], for any processor.

use super::{Lanes, ROWS};
use crate::quant::half::{bf16_to_f32, f16_to_f32};
use std::array::from_fn;

pub struct Scalar;

/// SAFETY of the reads below: the caller of each function vouches for its address.
unsafe fn bytes<const N: usize>(at: *const u8) -> [u8; N] {
    unsafe { at.cast::<[u8; N]>().read_unaligned() }
}

unsafe fn dot_of(sums: [i32; ROWS], a: *const u8, w: impl Fn(usize) -> i32) -> [i32; ROWS] {
    let a: [u8; 4] = unsafe { bytes(a) };
    from_fn(|r| (0..4).fold(sums[r], |sum, i| sum.wrapping_add(w(4 * r + i) * i32::from(a[i] as i8))))
}

impl Lanes for Scalar {
    type Bytes = [u8; 64];
    type Ints = [i32; ROWS];
    type Floats = [f32; ROWS];

    unsafe fn load(at: *const u8) -> Self::Bytes {
        unsafe { bytes(at) }
    }
    unsafe fn low(bytes: Self::Bytes) -> Self::Bytes {
        bytes.map(|b| b & 15)
    }
    unsafe fn high(bytes: Self::Bytes) -> Self::Bytes {
        bytes.map(|b| b >> 4)
    }
    unsafe fn down<const BY: u32>(bytes: Self::Bytes, mask: u8) -> Self::Bytes {
        bytes.map(|b| b >> BY & mask)
    }
    unsafe fn up<const BY: u32>(bytes: Self::Bytes, mask: u8) -> Self::Bytes {
        bytes.map(|b| b << BY & mask)
    }
    unsafe fn or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        from_fn(|i| a[i] | b[i])
    }
    unsafe fn put_bytes(bytes: Self::Bytes, to: *mut u8) {
        unsafe { to.cast::<[u8; 64]>().write_unaligned(bytes) }
    }

    unsafe fn dot(sums: Self::Ints, w: Self::Bytes, a: *const u8) -> Self::Ints {
        debug_assert!(w.iter().all(|w| *w < 128));
        unsafe { dot_of(sums, a, |i| i32::from(w[i])) }
    }
    unsafe fn start_signed(_sum: *const u8) -> Self::Ints {
        [0; ROWS]
    }
    unsafe fn dot_signed(sums: Self::Ints, w: Self::Bytes, a: *const u8) -> Self::Ints {
        unsafe { dot_of(sums, a, |i| i32::from(w[i] as i8)) }
    }
    unsafe fn dot_pairs(sums: Self::Ints, w: *const u8, a: *const u8) -> Self::Ints {
        let (w, a): ([u8; 32], [u8; 4]) = unsafe { (bytes(w), bytes(a)) };
        let a = [i16::from_le_bytes([a[0], a[1]]), i16::from_le_bytes([a[2], a[3]])].map(i32::from);
        from_fn(|r| sums[r].wrapping_add(i32::from(w[2 * r]) * a[0] + i32::from(w[2 * r + 1]) * a[1]))
    }

    unsafe fn zero() -> Self::Ints {
        [0; ROWS]
    }
    unsafe fn same(value: i32) -> Self::Ints {
        [value; ROWS]
    }
    unsafe fn unsigned(at: *const u8) -> Self::Ints {
        unsafe { bytes::<ROWS>(at) }.map(i32::from)
    }
    unsafe fn signed(at: *const u8) -> Self::Ints {
        unsafe { bytes::<ROWS>(at) }.map(|b| i32::from(b as i8))
    }
    unsafe fn multiply_add(sums: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        from_fn(|r| sums[r].wrapping_add(a[r].wrapping_mul(b[r])))
    }
    unsafe fn settled(ints: Self::Ints) -> Self::Ints {
        ints
    }

    unsafe fn to_floats(ints: Self::Ints) -> Self::Floats {
        ints.map(|i| i as f32)
    }
    unsafe fn zeros() -> Self::Floats {
        [0.0; ROWS]
    }
    unsafe fn every(at: *const u8) -> Self::Floats {
        [f32::from_le_bytes(unsafe { bytes(at) }); ROWS]
    }
    unsafe fn halves(at: *const u8) -> Self::Floats {
        let at: [u8; 32] = unsafe { bytes(at) };
        from_fn(|r| f16_to_f32(u16::from_le_bytes([at[2 * r], at[2 * r + 1]])))
    }
    unsafe fn upper_halves(at: *const u8) -> Self::Floats {
        let at: [u8; 32] = unsafe { bytes(at) };
        from_fn(|r| bf16_to_f32(u16::from_le_bytes([at[2 * r], at[2 * r + 1]])))
    }
    unsafe fn floats(at: *const u8) -> Self::Floats {
        from_fn(|r| f32::from_le_bytes(unsafe { bytes(at.add(4 * r)) }))
    }
    unsafe fn multiply(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|r| a[r] * b[r])
    }
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|r| a[r] + b[r])
    }
    unsafe fn fused(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        from_fn(|r| a[r].mul_add(b[r], c[r]))
    }
    unsafe fn fused_from(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        from_fn(|r| (-a[r]).mul_add(b[r], c[r]))
    }
    unsafe fn put(floats: Self::Floats, to: *mut f32) {
        unsafe { to.cast::<[f32; ROWS]>().write_unaligned(floats) }
    }

    unsafe fn soon(_at: *const u8) {}
}
