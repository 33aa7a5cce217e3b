//! Sixteen rows side by side: the few vector operations that kernels are written in.
//!
//! A kernel is written once over [`Lanes`] and compiled for each instruction set. Every operation has one exact meaning:
//! integers wrap, floats round to nearest as IEEE 754 says, `fused` rounds once. A row has a lane to itself, so nothing
//! is ever summed across lanes. Hence all instruction sets give the same bits, by construction; [`scalar`] is the
//! specification, and tests compare.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod scalar;

/// Rows in a vector.
pub const ROWS: usize = 16;

/// Some instructions multiply eight columns of some rows with eight of two tokens at once. With them rows take turns
/// ([`Self::TURNS`] is 2): a vector of weights holds eight columns of half of the rows, put [`together`](Self::together)
/// from two vectors as they lie in memory, and the sums of tokens 2p and 2p + 1 are mixed until they are taken
/// [`apart`](Self::apart). Kernels need not know how: they use the functions of `M` tokens, whose defaults say what is meant.
///
/// # Safety
/// All functions: the processor has the instructions. Those with an address: as many values as they say may be read or
/// written there, aligned or not.
pub trait Lanes {
    /// 4 bytes of each row: those of row r at 4r.
    type Bytes: Copy;
    /// An i32 of each row.
    type Ints: Copy;
    /// An f32 of each row.
    type Floats: Copy;
    /// One or two. With two, the number of tokens is even.
    const TURNS: usize = 1;

    /// 64 bytes.
    unsafe fn load(at: *const u8) -> Self::Bytes;
    /// The lower four bits of each byte.
    unsafe fn low(bytes: Self::Bytes) -> Self::Bytes;
    /// The upper four.
    unsafe fn high(bytes: Self::Bytes) -> Self::Bytes;
    /// Each byte shifted down by `BY`, and `mask`.
    unsafe fn down<const BY: u32>(bytes: Self::Bytes, mask: u8) -> Self::Bytes;
    /// Each byte shifted up by `BY`, and `mask`.
    unsafe fn up<const BY: u32>(bytes: Self::Bytes, mask: u8) -> Self::Bytes;
    unsafe fn or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Writes 64 bytes.
    unsafe fn put_bytes(bytes: Self::Bytes, to: *mut u8);

    /// `sums[r] + w[4r..4r + 4] · a[..4]`; w: 0 to 127, a: four i8.
    unsafe fn dot(sums: Self::Ints, w: Self::Bytes, a: *const u8) -> Self::Ints;
    /// What a series of [`Self::dot_signed`] starts from; `sum`: an i32, the sum of all a that will come.
    unsafe fn start_signed(sum: *const u8) -> Self::Ints;
    /// As `dot`, for w from -128 to 127. Only after [`Self::start_signed`], and complete.
    unsafe fn dot_signed(sums: Self::Ints, w: Self::Bytes, a: *const u8) -> Self::Ints;
    /// `sums[r] + w[2r] a[0] + w[2r + 1] a[1]`; w: 32 u8, a: two i16.
    unsafe fn dot_pairs(sums: Self::Ints, w: *const u8, a: *const u8) -> Self::Ints;

    /// Eight columns of the rows whose turn it is, from two vectors of four columns; only where there are two turns.
    #[inline(always)]
    unsafe fn together(_turn: usize, _first: Self::Bytes, _second: Self::Bytes) -> Self::Bytes {
        unreachable!("rows have one turn")
    }
    /// Lets the sums of token m start from `values(m)`. They may also start from [`Self::zero`].
    #[inline(always)]
    unsafe fn start<const M: usize>(sums: &mut [Self::Ints; M], values: impl Fn(usize) -> i32) {
        for (m, sum) in sums.iter_mut().enumerate() {
            *sum = unsafe { Self::same(values(m)) };
        }
    }
    /// [`Self::dot`] with each token, [settled](Self::settled); `a`: four i8 of each, or eight if there are two turns.
    #[inline(always)]
    unsafe fn dots<const M: usize>(sums: &mut [Self::Ints; M], _turn: usize, w: Self::Bytes, a: *const u8) {
        for (m, sum) in sums.iter_mut().enumerate() {
            *sum = unsafe { Self::settled(Self::dot(*sum, w, a.add(4 * m))) };
        }
    }
    /// [`Self::dot_signed`] likewise.
    #[inline(always)]
    unsafe fn dots_signed<const M: usize>(sums: &mut [Self::Ints; M], _turn: usize, w: Self::Bytes, a: *const u8) {
        for (m, sum) in sums.iter_mut().enumerate() {
            *sum = unsafe { Self::dot_signed(*sum, w, a.add(4 * m)) };
        }
    }
    /// `sums + subs scale`, where each row has its scale; [settled](Self::settled).
    #[inline(always)]
    unsafe fn add_scaled<const M: usize>(sums: &mut [Self::Ints; M], subs: [Self::Ints; M], scale: Self::Ints) {
        for (sum, sub) in sums.iter_mut().zip(subs) {
            *sum = unsafe { Self::settled(Self::multiply_add(*sum, sub, scale)) };
        }
    }
    /// From here on each token's sums are [`Self::Ints`] like any others.
    #[inline(always)]
    unsafe fn apart<const M: usize>(_sums: &mut [Self::Ints; M]) {}

    unsafe fn zero() -> Self::Ints;
    unsafe fn same(value: i32) -> Self::Ints;
    /// 16 u8.
    unsafe fn unsigned(at: *const u8) -> Self::Ints;
    /// 16 i8.
    unsafe fn signed(at: *const u8) -> Self::Ints;
    /// `sums + a b`.
    unsafe fn multiply_add(sums: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// The same value, computed by now. A compiler that sees a long sum may regroup it, and then keeps all its terms until
    /// the end, in memory, because registers do not suffice: four times slower. Registers only: it costs nothing.
    unsafe fn settled(ints: Self::Ints) -> Self::Ints;

    /// Rounds to nearest, ties to even, where an i32 has more than 24 bits.
    unsafe fn to_floats(ints: Self::Ints) -> Self::Floats;
    unsafe fn zeros() -> Self::Floats;
    /// One f32 for all rows.
    unsafe fn every(at: *const u8) -> Self::Floats;
    /// 16 f16.
    unsafe fn halves(at: *const u8) -> Self::Floats;
    /// 16 bf16.
    unsafe fn upper_halves(at: *const u8) -> Self::Floats;
    /// 16 f32.
    unsafe fn floats(at: *const u8) -> Self::Floats;
    unsafe fn multiply(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a b + c`, rounded once.
    unsafe fn fused(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c - a b`, rounded once.
    unsafe fn fused_from(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// Writes 16 f32.
    unsafe fn put(floats: Self::Floats, to: *mut f32);

    /// A hint that this cache line will be read; the address need not exist.
    unsafe fn soon(at: *const u8);
}
