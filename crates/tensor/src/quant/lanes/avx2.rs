//! [`Lanes`] with AVX2, FMA and F16C: a vector is two registers, rows 0 to 7 and 8 to 15.

use super::Lanes;
use std::arch::asm;
use std::arch::x86_64::*;

pub struct Avx2;

type Two = [__m256i; 2];
type TwoFloats = [__m256; 2];

/// Each half by itself.
#[inline(always)]
unsafe fn each(a: Two, f: impl Fn(__m256i) -> __m256i) -> Two {
    [f(a[0]), f(a[1])]
}

/// `sums + w · a` for w of 0 to 127: the 16-bit sums of two products do not saturate.
#[inline(always)]
unsafe fn dot_half(sums: __m256i, w: __m256i, a: __m256i) -> __m256i {
    unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), _mm256_set1_epi16(1))) }
}

/// No instruction, but both values in registers.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn settled([mut a, mut b]: Two) -> Two {
    unsafe { asm!("/* {0} {1} */", inout(ymm_reg) a, inout(ymm_reg) b, options(nomem, nostack, preserves_flags)) };
    [a, b]
}

impl Lanes for Avx2 {
    type Bytes = Two;
    type Ints = Two;
    type Floats = TwoFloats;

    #[inline(always)]
    unsafe fn load(at: *const u8) -> Two {
        unsafe { [_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())] }
    }
    #[inline(always)]
    unsafe fn low(bytes: Two) -> Two {
        unsafe { each(bytes, |b| _mm256_and_si256(b, _mm256_set1_epi8(15))) }
    }
    #[inline(always)]
    unsafe fn high(bytes: Two) -> Two {
        unsafe { Self::down::<4>(bytes, 15) }
    }
    #[inline(always)]
    unsafe fn down<const BY: u32>(bytes: Two, mask: u8) -> Two {
        debug_assert!(u32::from(mask) >> (8 - BY) == 0);
        let by = _mm_cvtsi32_si128(BY as i32);
        unsafe { each(bytes, |b| _mm256_and_si256(_mm256_srl_epi16(b, by), _mm256_set1_epi8(mask as i8))) }
    }
    #[inline(always)]
    unsafe fn up<const BY: u32>(bytes: Two, mask: u8) -> Two {
        debug_assert!(u32::from(mask) & ((1 << BY) - 1) == 0);
        let by = _mm_cvtsi32_si128(BY as i32);
        unsafe { each(bytes, |b| _mm256_and_si256(_mm256_sll_epi16(b, by), _mm256_set1_epi8(mask as i8))) }
    }
    #[inline(always)]
    unsafe fn or(a: Two, b: Two) -> Two {
        unsafe { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn put_bytes(bytes: Two, to: *mut u8) {
        unsafe {
            _mm256_storeu_si256(to.cast(), bytes[0]);
            _mm256_storeu_si256(to.add(32).cast(), bytes[1]);
        }
    }

    #[inline(always)]
    unsafe fn dot(sums: Two, w: Two, a: *const u8) -> Two {
        unsafe {
            let a = _mm256_set1_epi32(a.cast::<i32>().read_unaligned());
            settled([dot_half(sums[0], w[0], a), dot_half(sums[1], w[1], a)])
        }
    }
    #[inline(always)]
    unsafe fn start_signed(_sum: *const u8) -> Two {
        unsafe { Self::zero() }
    }
    /// |w| and a with w's sign: 128 * 127 * 2 fits in 16 bits.
    #[inline(always)]
    unsafe fn dot_signed(sums: Two, w: Two, a: *const u8) -> Two {
        unsafe {
            let a = _mm256_set1_epi32(a.cast::<i32>().read_unaligned());
            let half = |sums, w| dot_half(sums, _mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
            settled([half(sums[0], w[0]), half(sums[1], w[1])])
        }
    }
    #[inline(always)]
    unsafe fn dot_pairs(sums: Two, w: *const u8, a: *const u8) -> Two {
        unsafe {
            let a = _mm256_set1_epi32(a.cast::<i32>().read_unaligned());
            let half = |sums, w: *const u8| {
                let w = _mm256_cvtepu8_epi16(_mm_loadu_si128(w.cast()));
                _mm256_add_epi32(sums, _mm256_madd_epi16(w, a))
            };
            [half(sums[0], w), half(sums[1], w.add(16))]
        }
    }

    #[inline(always)]
    unsafe fn zero() -> Two {
        unsafe { [_mm256_setzero_si256(); 2] }
    }
    #[inline(always)]
    unsafe fn same(value: i32) -> Two {
        unsafe { [_mm256_set1_epi32(value); 2] }
    }
    #[inline(always)]
    unsafe fn unsigned(at: *const u8) -> Two {
        unsafe {
            let half = |at: *const u8| _mm256_cvtepu8_epi32(_mm_loadl_epi64(at.cast()));
            [half(at), half(at.add(8))]
        }
    }
    #[inline(always)]
    unsafe fn signed(at: *const u8) -> Two {
        unsafe {
            let half = |at: *const u8| _mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast()));
            [half(at), half(at.add(8))]
        }
    }
    #[inline(always)]
    unsafe fn multiply_add(sums: Two, a: Two, b: Two) -> Two {
        unsafe {
            let half = |i: usize| _mm256_add_epi32(sums[i], _mm256_mullo_epi32(a[i], b[i]));
            [half(0), half(1)]
        }
    }

    #[inline(always)]
    unsafe fn settled(ints: Two) -> Two {
        unsafe { settled(ints) }
    }
    #[inline(always)]
    unsafe fn to_floats(ints: Two) -> TwoFloats {
        unsafe { [_mm256_cvtepi32_ps(ints[0]), _mm256_cvtepi32_ps(ints[1])] }
    }
    #[inline(always)]
    unsafe fn zeros() -> TwoFloats {
        unsafe { [_mm256_setzero_ps(); 2] }
    }
    #[inline(always)]
    unsafe fn every(at: *const u8) -> TwoFloats {
        unsafe { [_mm256_set1_ps(at.cast::<f32>().read_unaligned()); 2] }
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> TwoFloats {
        unsafe {
            let half = |at: *const u8| _mm256_cvtph_ps(_mm_loadu_si128(at.cast()));
            [half(at), half(at.add(16))]
        }
    }
    #[inline(always)]
    unsafe fn upper_halves(at: *const u8) -> TwoFloats {
        unsafe {
            let half = |at: *const u8| {
                _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast())), 16))
            };
            [half(at), half(at.add(16))]
        }
    }
    #[inline(always)]
    unsafe fn floats(at: *const u8) -> TwoFloats {
        unsafe { [_mm256_loadu_ps(at.cast()), _mm256_loadu_ps(at.add(32).cast())] }
    }
    #[inline(always)]
    unsafe fn multiply(a: TwoFloats, b: TwoFloats) -> TwoFloats {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn add(a: TwoFloats, b: TwoFloats) -> TwoFloats {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn fused(a: TwoFloats, b: TwoFloats, c: TwoFloats) -> TwoFloats {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    unsafe fn fused_from(a: TwoFloats, b: TwoFloats, c: TwoFloats) -> TwoFloats {
        unsafe { [_mm256_fnmadd_ps(a[0], b[0], c[0]), _mm256_fnmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    unsafe fn put(floats: TwoFloats, to: *mut f32) {
        unsafe {
            _mm256_storeu_ps(to, floats[0]);
            _mm256_storeu_ps(to.add(8), floats[1]);
        }
    }

    #[inline(always)]
    unsafe fn soon(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}
