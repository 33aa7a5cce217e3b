//! [`Lanes`] with AVX-512 (F, BW, DQ, VL, VNNI): a vector is one register.

use super::Lanes;
use std::arch::asm;
use std::arch::x86_64::*;

pub struct Avx512;

/// No instruction, but the value in a register.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn settled(mut ints: __m512i) -> __m512i {
    unsafe { asm!("/* {0} */", inout(zmm_reg) ints, options(nomem, nostack, preserves_flags)) };
    ints
}

/// One i32 for all rows.
#[inline(always)]
unsafe fn all(at: *const u8) -> __m512i {
    unsafe { _mm512_set1_epi32(at.cast::<i32>().read_unaligned()) }
}

impl Lanes for Avx512 {
    type Bytes = __m512i;
    type Ints = __m512i;
    type Floats = __m512;

    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(at.cast()) }
    }
    #[inline(always)]
    unsafe fn low(bytes: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(bytes, _mm512_set1_epi8(15)) }
    }
    #[inline(always)]
    unsafe fn high(bytes: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(_mm512_srli_epi16(bytes, 4), _mm512_set1_epi8(15)) }
    }
    #[inline(always)]
    unsafe fn down<const BY: u32>(bytes: __m512i, mask: u8) -> __m512i {
        // Of the bits that come over from the next byte, the mask must leave none.
        debug_assert!(u32::from(mask) >> (8 - BY) == 0);
        unsafe { _mm512_and_si512(_mm512_srli_epi16(bytes, BY), _mm512_set1_epi8(mask as i8)) }
    }
    #[inline(always)]
    unsafe fn up<const BY: u32>(bytes: __m512i, mask: u8) -> __m512i {
        debug_assert!(u32::from(mask) & ((1 << BY) - 1) == 0);
        unsafe { _mm512_and_si512(_mm512_slli_epi16(bytes, BY), _mm512_set1_epi8(mask as i8)) }
    }
    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn put_bytes(bytes: __m512i, to: *mut u8) {
        unsafe { _mm512_storeu_si512(to.cast(), bytes) }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m512i, w: __m512i, a: *const u8) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sums, w, all(a)) }
    }
    /// The instruction takes unsigned w, so w + 128 is given to it; this takes 128 times the sum of a away beforehand.
    #[inline(always)]
    unsafe fn start_signed(sum: *const u8) -> __m512i {
        unsafe { _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(all(sum), 7)) }
    }
    #[inline(always)]
    unsafe fn dot_signed(sums: __m512i, w: __m512i, a: *const u8) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sums, _mm512_xor_si512(w, _mm512_set1_epi8(-128)), all(a)) }
    }
    #[inline(always)]
    unsafe fn dot_pairs(sums: __m512i, w: *const u8, a: *const u8) -> __m512i {
        unsafe { _mm512_dpwssd_epi32(sums, _mm512_cvtepu8_epi16(_mm256_loadu_si256(w.cast())), all(a)) }
    }

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn same(value: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(value) }
    }
    #[inline(always)]
    unsafe fn unsigned(at: *const u8) -> __m512i {
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast())) }
    }
    #[inline(always)]
    unsafe fn signed(at: *const u8) -> __m512i {
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast())) }
    }
    #[inline(always)]
    unsafe fn multiply_add(sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(sums, _mm512_mullo_epi32(a, b)) }
    }
    #[inline(always)]
    unsafe fn settled(ints: __m512i) -> __m512i {
        unsafe { settled(ints) }
    }

    #[inline(always)]
    unsafe fn to_floats(ints: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(ints) }
    }
    #[inline(always)]
    unsafe fn zeros() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn every(at: *const u8) -> __m512 {
        unsafe { _mm512_set1_ps(at.cast::<f32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
    }
    #[inline(always)]
    unsafe fn upper_halves(at: *const u8) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast())), 16)) }
    }
    #[inline(always)]
    unsafe fn floats(at: *const u8) -> __m512 {
        unsafe { _mm512_loadu_ps(at.cast()) }
    }
    #[inline(always)]
    unsafe fn multiply(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fused(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn fused_from(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn put(floats: __m512, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, floats) }
    }

    #[inline(always)]
    unsafe fn soon(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}
