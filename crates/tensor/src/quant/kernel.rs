//! Which kernel multiplies which kind on this processor.
//!
//! A [`Kernel`] is a function for a kind, a number of tokens and an instruction set. All instruction sets give the same
//! bits; [`KERNELS`] names what "the same" is: machines whose names are equal may share exact work.

use super::Kind;
use super::activations::Blocks;
use super::formats::*;
use super::lanes::{Lanes, ROWS, scalar::Scalar};

/// The arithmetic of this release, and how its strips lie in files. It changes when any bit of any product or strip may.
pub const KERNELS: &str = "littoral-kernels-1";

/// A strip of sixteen rows times a panel of tokens: `out[m * stride + r]` for token m and row r.
///
/// # Safety
/// The processor has the instruction set that the kernel was chosen for. The strip and the panel are as [`Shape`] and
/// the panel's tokens say; `out` has room for the last token's sixteen.
pub type Kernel = unsafe fn(strip: *const u8, blocks: usize, panel: *const u8, out: *mut f32, stride: usize);

/// Instruction sets that kernels exist for, the best one first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    NeonI8mm,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Scalar,
}

impl Instructions {
    /// Those of this kind of processor, best first.
    pub(super) const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "aarch64")]
        Self::NeonI8mm,
        #[cfg(target_arch = "aarch64")]
        Self::Neon,
        Self::Scalar,
    ];

    /// Those that this very processor has, best first; the last is [`Instructions::Scalar`].
    pub fn here() -> Vec<Self> {
        Self::ALL.iter().copied().filter(|instructions| instructions.is_here()).collect()
    }

    /// Whether this processor has them. What runs kernels asks, so that a wrong choice panics and does nothing worse.
    pub fn is_here(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
                    && Self::Avx2.is_here()
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm => std::arch::is_aarch64_feature_detected!("i8mm") && Self::Neon.is_here(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("dotprod"),
            Self::Scalar => true,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm => "neon-i8mm",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon-dotprod",
            Self::Scalar => "scalar",
        }
    }

    /// Tokens that a kernel of this set takes at once, ascending: as many as fit into its registers.
    pub fn tokens(self) -> &'static [usize] {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => &[1, 2, 4, 8, 12],
            _ => &[1, 2, 4],
        }
    }

    /// Columns of a token that lie side by side in a panel of several.
    pub(super) fn columns(self) -> usize {
        match self {
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm => 8,
            _ => 4,
        }
    }
}

/// How a kind lies in strips.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Columns of a tile.
    pub columns: usize,
    /// Bytes of a tile.
    pub tile: usize,
    /// How activations must be; `None`: as they are.
    pub activations: Option<Blocks>,
    pub pack: fn([&[u8]; ROWS], &mut [u8]),
    pub unpack: fn(&[u8], usize, &mut [u8]),
}

fn quantised<F: Format>() -> Shape {
    Shape {
        columns: F::KIND.columns(),
        tile: F::TILE,
        activations: Some(F::ACTIVATIONS),
        pack: F::pack,
        unpack: F::unpack,
    }
}

fn pack_float<const BYTES: usize>(rows: [&[u8]; ROWS], tile: &mut [u8]) {
    for (to, row) in tile.chunks_exact_mut(BYTES).zip(rows) {
        to.copy_from_slice(row);
    }
}

fn unpack_float<const BYTES: usize>(tile: &[u8], row: usize, block: &mut [u8]) {
    block.copy_from_slice(&tile[row * BYTES..][..BYTES]);
}

fn float<const BYTES: usize>() -> Shape {
    let (pack, unpack) = (pack_float::<BYTES>, unpack_float::<BYTES>);
    Shape { columns: 1, tile: BYTES * ROWS, activations: None, pack, unpack }
}

impl Kind {
    pub fn shape(self) -> Shape {
        match self {
            Kind::F32 => float::<4>(),
            Kind::F16 | Kind::BF16 => float::<2>(),
            Kind::Q4_0 => quantised::<Q4_0>(),
            Kind::Q4_1 => quantised::<Q4_1>(),
            Kind::Q5_0 => quantised::<Q5_0>(),
            Kind::Q5_1 => quantised::<Q5_1>(),
            Kind::Q8_0 => quantised::<Q8_0>(),
            Kind::Q2_K => quantised::<Q2K>(),
            Kind::Q3_K => quantised::<Q3K>(),
            Kind::Q4_K => quantised::<Q4K>(),
            Kind::Q5_K => quantised::<Q5K>(),
            Kind::Q6_K => quantised::<Q6K>(),
        }
    }
}

#[inline(always)]
unsafe fn run<L: Lanes, F: Format, const M: usize>(
    strip: *const u8,
    blocks: usize,
    panel: *const u8,
    out: *mut f32,
    stride: usize,
) {
    unsafe {
        let mut totals = [L::zeros(); M];
        for block in 0..blocks {
            let tile = strip.add(block * F::TILE);
            let panel = panel.add(block * F::ACTIVATIONS.bytes(M));
            F::step::<L, M>(tile, panel, &mut totals);
        }
        for (m, total) in totals.into_iter().enumerate() {
            L::put(total, out.add(m * stride));
        }
    }
}

#[inline(always)]
unsafe fn run_float<L: Lanes, W: Float, const M: usize>(
    strip: *const u8,
    columns: usize,
    panel: *const u8,
    out: *mut f32,
    stride: usize,
) {
    unsafe {
        let totals = float_strip::<L, W, M>(strip, columns, panel);
        for (m, total) in totals.into_iter().enumerate() {
            L::put(total, out.add(m * stride));
        }
    }
}

/// The kernels of one instruction set: `$name(kind, tokens)`.
macro_rules! kernels {
    ($(#[$attribute:meta])* $name:ident, $lanes:ty, $($tokens:literal),+) => {
        mod $name {
            use super::*;

            $(#[$attribute])*
            unsafe fn quantised<F: Format, const M: usize>(
                strip: *const u8, blocks: usize, panel: *const u8, out: *mut f32, stride: usize,
            ) {
                unsafe { run::<$lanes, F, M>(strip, blocks, panel, out, stride) }
            }

            $(#[$attribute])*
            unsafe fn float<W: Float, const M: usize>(
                strip: *const u8, columns: usize, panel: *const u8, out: *mut f32, stride: usize,
            ) {
                unsafe { run_float::<$lanes, W, M>(strip, columns, panel, out, stride) }
            }

            pub fn kernel(kind: Kind, tokens: usize) -> Option<Kernel> {
                Some(match tokens {
                    $($tokens => match kind {
                        Kind::F32 => float::<Single, $tokens>,
                        Kind::F16 => float::<Half, $tokens>,
                        Kind::BF16 => float::<Brain, $tokens>,
                        Kind::Q4_0 => quantised::<Q4_0, $tokens>,
                        Kind::Q4_1 => quantised::<Q4_1, $tokens>,
                        Kind::Q5_0 => quantised::<Q5_0, $tokens>,
                        Kind::Q5_1 => quantised::<Q5_1, $tokens>,
                        Kind::Q8_0 => quantised::<Q8_0, $tokens>,
                        Kind::Q2_K => quantised::<Q2K, $tokens>,
                        Kind::Q3_K => quantised::<Q3K, $tokens>,
                        Kind::Q4_K => quantised::<Q4K, $tokens>,
                        Kind::Q5_K => quantised::<Q5K, $tokens>,
                        Kind::Q6_K => quantised::<Q6K, $tokens>,
                    },)+
                    _ => return None,
                })
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    avx512,
    super::super::lanes::avx512::Avx512,
    1,
    2,
    4,
    8,
    12
);
#[cfg(target_arch = "x86_64")]
kernels!(
    #[target_feature(enable = "avx2,fma,f16c")]
    avx2,
    super::super::lanes::avx2::Avx2,
    1,
    2,
    4
);
#[cfg(target_arch = "aarch64")]
kernels!(
    #[target_feature(enable = "neon,dotprod")]
    neon,
    super::super::lanes::neon::Neon<false>,
    1,
    2,
    4
);
#[cfg(target_arch = "aarch64")]
kernels!(
    #[target_feature(enable = "neon,dotprod,i8mm")]
    neon_i8mm,
    super::super::lanes::neon::Neon<true>,
    2,
    4
);
kernels!(
    #[inline(never)]
    scalar,
    Scalar,
    1,
    2,
    4
);

/// The kernel for `tokens` tokens at once, which must be one of [`Instructions::tokens`].
pub fn kernel(instructions: Instructions, kind: Kind, tokens: usize) -> Option<Kernel> {
    match instructions {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => avx512::kernel(kind, tokens),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => avx2::kernel(kind, tokens),
        // A token by itself has none to be multiplied with, and lies in its panel as it does for the others.
        #[cfg(target_arch = "aarch64")]
        Instructions::NeonI8mm if tokens == 1 => neon::kernel(kind, tokens),
        #[cfg(target_arch = "aarch64")]
        Instructions::NeonI8mm => neon_i8mm::kernel(kind, tokens),
        #[cfg(target_arch = "aarch64")]
        Instructions::Neon => neon::kernel(kind, tokens),
        Instructions::Scalar => scalar::kernel(kind, tokens),
    }
}
