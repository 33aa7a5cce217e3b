//! [`Lanes`] with NEON and the dot-product extension: a vector is four registers of four rows.
//!
//! With the extension for matrices of bytes (i8mm) one instruction multiplies eight columns of two rows with two tokens:
//! twice as much as a dot product, for kernels of two and four tokens.
//!
//! ```text
//! a vector as it lies in memory:  r0 r1 r2 r3 | r4 r5 r6 r7 | r8 … | r12 …      four columns of each row
//! the first turn's, of two:       r0 r0' r1 r1' | r2 r2' r3 r3' | r4 … | r6 …   ' is from the second of them
//! sums[2p]:                       r0s r0t r1s r1t | r2s r2t r3s r3t | …         of tokens s = 2p and t = 2p + 1
//! sums[2p + 1]:                   likewise from row 8 on: the second turn's
//! ```
//! Half of the rows at a time, because sums of two sub-blocks and four tokens then fill half of the registers; all
//! rows', or those of eight tokens, would fill them all.
//!
//! `sdot` and `smmla` have no stable intrinsics, so each is one line of assembly.

use super::Lanes;
use std::arch::aarch64::*;
use std::arch::asm;

/// `PAIRS`: tokens two by two, with i8mm.
pub struct Neon<const PAIRS: bool>;

type Four = [uint8x16_t; 4];
type FourInts = [int32x4_t; 4];
type FourFloats = [float32x4_t; 4];

/// `sums[i] + w[4i..4i + 4] · a[4i..4i + 4]`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot(mut sums: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) w, in(vreg) a,
             options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// `sums[2r + t] + w[8r..8r + 8] · a[8t..8t + 8]`, for r and t of 0 and 1. Bytes are signed, nothing saturates.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn smmla(mut sums: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    unsafe {
        asm!("smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) w, in(vreg) a,
             options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// No instruction, but four values in registers.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn settled([mut a, mut b, mut c, mut d]: FourInts) -> FourInts {
    unsafe {
        asm!("/* {0:v} {1:v} {2:v} {3:v} */", inout(vreg) a, inout(vreg) b, inout(vreg) c, inout(vreg) d,
             options(nomem, nostack, preserves_flags));
    }
    [a, b, c, d]
}

#[inline(always)]
fn four<T: Copy>(f: impl Fn(usize) -> T) -> [T; 4] {
    [f(0), f(1), f(2), f(3)]
}

impl<const PAIRS: bool> Lanes for Neon<PAIRS> {
    type Bytes = Four;
    type Ints = FourInts;
    type Floats = FourFloats;
    const TURNS: usize = if PAIRS { 2 } else { 1 };

    #[inline(always)]
    unsafe fn load(at: *const u8) -> Four {
        four(|i| unsafe { vld1q_u8(at.add(16 * i)) })
    }
    #[inline(always)]
    unsafe fn low(bytes: Four) -> Four {
        four(|i| unsafe { vandq_u8(bytes[i], vdupq_n_u8(15)) })
    }
    #[inline(always)]
    unsafe fn high(bytes: Four) -> Four {
        four(|i| unsafe { vshrq_n_u8::<4>(bytes[i]) })
    }
    #[inline(always)]
    unsafe fn down<const BY: u32>(bytes: Four, mask: u8) -> Four {
        four(|i| unsafe { vandq_u8(vshlq_u8(bytes[i], vdupq_n_s8(-(BY as i8))), vdupq_n_u8(mask)) })
    }
    #[inline(always)]
    unsafe fn up<const BY: u32>(bytes: Four, mask: u8) -> Four {
        four(|i| unsafe { vandq_u8(vshlq_u8(bytes[i], vdupq_n_s8(BY as i8)), vdupq_n_u8(mask)) })
    }
    #[inline(always)]
    unsafe fn or(a: Four, b: Four) -> Four {
        four(|i| unsafe { vorrq_u8(a[i], b[i]) })
    }
    #[inline(always)]
    unsafe fn put_bytes(bytes: Four, to: *mut u8) {
        four(|i| unsafe { vst1q_u8(to.add(16 * i), bytes[i]) });
    }

    #[inline(always)]
    unsafe fn dot(sums: FourInts, w: Four, a: *const u8) -> FourInts {
        unsafe { Self::dot_signed(sums, w, a) }
    }
    #[inline(always)]
    unsafe fn start_signed(_sum: *const u8) -> FourInts {
        unsafe { Self::zero() }
    }
    #[inline(always)]
    unsafe fn dot_signed(sums: FourInts, w: Four, a: *const u8) -> FourInts {
        unsafe {
            let a = vreinterpretq_s8_s32(vdupq_n_s32(a.cast::<i32>().read_unaligned()));
            four(|i| sdot(sums[i], vreinterpretq_s8_u8(w[i]), a))
        }
    }
    #[inline(always)]
    unsafe fn dot_pairs(sums: FourInts, w: *const u8, a: *const u8) -> FourInts {
        unsafe {
            let a = vreinterpretq_s16_s32(vdupq_n_s32(a.cast::<i32>().read_unaligned()));
            four(|i| {
                let w = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(w.add(8 * i))));
                let low = vmull_s16(vget_low_s16(w), vget_low_s16(a));
                let high = vmull_high_s16(w, a);
                vaddq_s32(sums[i], vpaddq_s32(low, high))
            })
        }
    }

    #[inline(always)]
    unsafe fn together(turn: usize, first: Four, second: Four) -> Four {
        debug_assert!(PAIRS);
        let words = |bytes: Four, i: usize| unsafe { vreinterpretq_u32_u8(bytes[2 * turn + i / 2]) };
        four(|i| unsafe {
            let (a, b) = (words(first, i), words(second, i));
            vreinterpretq_u8_u32(if i % 2 == 0 { vzip1q_u32(a, b) } else { vzip2q_u32(a, b) })
        })
    }
    #[inline(always)]
    unsafe fn start<const M: usize>(sums: &mut [FourInts; M], values: impl Fn(usize) -> i32) {
        unsafe {
            for (m, sum) in sums.iter_mut().enumerate() {
                *sum = if PAIRS {
                    let [s, t] = [values(m / 2 * 2), values(m / 2 * 2 + 1)].map(|value| u64::from(value as u32));
                    [vreinterpretq_s32_u64(vdupq_n_u64(s | t << 32)); 4]
                } else {
                    Self::same(values(m))
                };
            }
        }
    }
    #[inline(always)]
    unsafe fn dots<const M: usize>(sums: &mut [FourInts; M], turn: usize, w: Four, a: *const u8) {
        unsafe { Self::dots_signed(sums, turn, w, a) }
    }
    #[inline(always)]
    unsafe fn dots_signed<const M: usize>(sums: &mut [FourInts; M], turn: usize, w: Four, a: *const u8) {
        unsafe {
            if PAIRS {
                const { assert!(!PAIRS || M % 2 == 0, "tokens in pairs") };
                for (pair, sums) in sums.chunks_exact_mut(2).enumerate() {
                    let a = vld1q_s8(a.add(16 * pair).cast());
                    sums[turn] = four(|i| smmla(sums[turn][i], vreinterpretq_s8_u8(w[i]), a));
                }
            } else {
                for (m, sum) in sums.iter_mut().enumerate() {
                    *sum = Self::dot_signed(*sum, w, a.add(4 * m));
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn add_scaled<const M: usize>(sums: &mut [FourInts; M], subs: [FourInts; M], scale: FourInts) {
        unsafe {
            let scales = if PAIRS {
                // Each row's twice, for two tokens; rows of the first turn, then of the second.
                let twice = scale.map(|rows| [vzip1q_s32(rows, rows), vzip2q_s32(rows, rows)]);
                [four(|i| twice[i / 2][i % 2]), four(|i| twice[2 + i / 2][i % 2])]
            } else {
                [scale; 2]
            };
            for (m, (sum, sub)) in sums.iter_mut().zip(subs).enumerate() {
                *sum = settled(Self::multiply_add(*sum, sub, scales[m % 2]));
            }
        }
    }
    #[inline(always)]
    unsafe fn apart<const M: usize>(sums: &mut [FourInts; M]) {
        if PAIRS {
            for pair in sums.chunks_exact_mut(2) {
                let tile = |i: usize| pair[i / 4][i % 4];
                let of_first = four(|i| unsafe { vuzp1q_s32(tile(2 * i), tile(2 * i + 1)) });
                let of_second = four(|i| unsafe { vuzp2q_s32(tile(2 * i), tile(2 * i + 1)) });
                pair.copy_from_slice(&[of_first, of_second]);
            }
        }
    }

    #[inline(always)]
    unsafe fn zero() -> FourInts {
        unsafe { [vdupq_n_s32(0); 4] }
    }
    #[inline(always)]
    unsafe fn same(value: i32) -> FourInts {
        unsafe { [vdupq_n_s32(value); 4] }
    }
    #[inline(always)]
    unsafe fn unsigned(at: *const u8) -> FourInts {
        unsafe {
            let bytes = vld1q_u8(at);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
            [vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low), vmovl_u16(vget_low_u16(high)), vmovl_high_u16(high)]
                .map(|x| vreinterpretq_s32_u32(x))
        }
    }
    #[inline(always)]
    unsafe fn signed(at: *const u8) -> FourInts {
        unsafe {
            let bytes = vld1q_s8(at.cast());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)]
        }
    }
    #[inline(always)]
    unsafe fn multiply_add(sums: FourInts, a: FourInts, b: FourInts) -> FourInts {
        four(|i| unsafe { vmlaq_s32(sums[i], a[i], b[i]) })
    }

    #[inline(always)]
    unsafe fn settled(ints: FourInts) -> FourInts {
        unsafe { settled(ints) }
    }
    #[inline(always)]
    unsafe fn to_floats(ints: FourInts) -> FourFloats {
        four(|i| unsafe { vcvtq_f32_s32(ints[i]) })
    }
    #[inline(always)]
    unsafe fn zeros() -> FourFloats {
        unsafe { [vdupq_n_f32(0.0); 4] }
    }
    #[inline(always)]
    unsafe fn every(at: *const u8) -> FourFloats {
        unsafe { [vdupq_n_f32(at.cast::<f32>().read_unaligned()); 4] }
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> FourFloats {
        four(|i| unsafe {
            let bits: u64 = at.add(8 * i).cast::<u64>().read_unaligned();
            let mut out = vdupq_n_f32(0.0);
            let bits = vcreate_u16(bits);
            asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) out, in(vreg) bits, options(pure, nomem, nostack, preserves_flags));
            out
        })
    }
    #[inline(always)]
    unsafe fn upper_halves(at: *const u8) -> FourFloats {
        four(|i| unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(at.add(8 * i).cast()))) })
    }
    #[inline(always)]
    unsafe fn floats(at: *const u8) -> FourFloats {
        four(|i| unsafe { vreinterpretq_f32_u8(vld1q_u8(at.add(16 * i))) })
    }
    #[inline(always)]
    unsafe fn multiply(a: FourFloats, b: FourFloats) -> FourFloats {
        four(|i| unsafe { vmulq_f32(a[i], b[i]) })
    }
    #[inline(always)]
    unsafe fn add(a: FourFloats, b: FourFloats) -> FourFloats {
        four(|i| unsafe { vaddq_f32(a[i], b[i]) })
    }
    #[inline(always)]
    unsafe fn fused(a: FourFloats, b: FourFloats, c: FourFloats) -> FourFloats {
        four(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }
    #[inline(always)]
    unsafe fn fused_from(a: FourFloats, b: FourFloats, c: FourFloats) -> FourFloats {
        four(|i| unsafe { vfmsq_f32(c[i], a[i], b[i]) })
    }
    #[inline(always)]
    unsafe fn put(floats: FourFloats, to: *mut f32) {
        four(|i| unsafe { vst1q_f32(to.add(4 * i), floats[i]) });
    }

    #[inline(always)]
    unsafe fn soon(at: *const u8) {
        unsafe { asm!("prfm pldl1keep, [{0}]", in(reg) at, options(nostack, preserves_flags, readonly)) }
    }
}
