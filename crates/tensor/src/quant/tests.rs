//! Kernels against their specification, and against each other bit for bit.

use super::activations::{Blocks, quantise};
use super::kernel::Instructions;
use super::lanes::{Lanes, scalar::Scalar};
use super::*;
use crate::pool::Pool;
use proptest::prelude::*;

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From -1 to 1, with an outlier now and then.
    fn value(&mut self) -> f32 {
        let value = (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0;
        if self.next().is_multiple_of(97) { 40.0 * value } else { value }
    }
}

/// Where a block's half-precision scales are.
fn scales_of(kind: Kind) -> &'static [usize] {
    match kind {
        Kind::F32 | Kind::F16 | Kind::BF16 => &[],
        Kind::Q4_0 | Kind::Q5_0 | Kind::Q8_0 => &[0],
        Kind::Q4_1 | Kind::Q5_1 | Kind::Q4_K | Kind::Q5_K => &[0, 2],
        Kind::Q2_K => &[80, 82],
        Kind::Q3_K => &[108],
        Kind::Q6_K => &[208],
    }
}

/// Random bits everywhere but in the scales, which are small numbers of either sign, zero and subnormal ones included.
fn weights(kind: Kind, rows: usize, columns: usize, draws: &mut Draws) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..rows * kind.row_bytes(columns).unwrap()).map(|_| draws.next() as u8).collect();
    for block in bytes.chunks_exact_mut(kind.bytes()) {
        for at in scales_of(kind) {
            let d = match draws.next() % 11 {
                0 => 0.0,
                1 => 3e-7,
                _ => draws.value() * 0.01,
            };
            block[*at..at + 2].copy_from_slice(&half::f32_to_f16(d).to_le_bytes());
        }
        match kind {
            Kind::F32 => block.copy_from_slice(&draws.value().to_le_bytes()),
            Kind::F16 => block.copy_from_slice(&half::f32_to_f16(draws.value()).to_le_bytes()),
            Kind::BF16 => block.copy_from_slice(&((draws.value().to_bits() >> 16) as u16).to_le_bytes()),
            _ => {}
        }
    }
    bytes
}

fn product(matrix: &Matrix, x: &[f32], instructions: Instructions, threads: usize) -> Vec<f32> {
    let pool = Pool::new(threads);
    let tokens = x.len() / matrix.columns();
    let mut panels = Panels::new(instructions);
    panels.renew(tokens, matrix.columns());
    panels.prepare(matrix.kind(), x, &pool);
    let mut out = vec![f32::NAN; tokens * matrix.padded_rows()];
    multiply(&[matrix], &panels, &mut out, &pool);
    out
}

/// The product of the dequantised weights with the dequantised activations, in f64.
fn exact(kind: Kind, bytes: &[u8], x: &[f32], columns: usize) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    match kind.shape().activations {
        None => y.iter_mut().zip(x).for_each(|(y, x)| *y = f64::from(*x)),
        Some(blocks) => {
            let mut panel = vec![0; x.len() / blocks.columns() * blocks.bytes(1)];
            quantise(blocks, x, 0, 1, 4, &mut panel);
            for (y, block) in y.chunks_mut(blocks.columns()).zip(panel.chunks(blocks.bytes(1))) {
                let d = f32::from_le_bytes(block[blocks.columns()..][..4].try_into().unwrap());
                y.iter_mut().zip(block).for_each(|(y, q)| *y = f64::from(d) * f64::from(*q as i8));
            }
        }
    }
    let mut row = vec![0.0; columns];
    bytes
        .chunks_exact(kind.row_bytes(columns).unwrap())
        .map(|bytes| {
            dequantise(kind, bytes, &mut row);
            row.iter().zip(&y).map(|(w, y)| f64::from(*w) * y).sum()
        })
        .collect()
}

#[test]
fn rows_come_back_as_they_were() {
    let pool = Pool::new(2);
    for kind in Kind::ALL {
        let (rows, columns, mut draws) = (37, 3 * kind.columns().max(16), Draws(kind.code().into()));
        let bytes = weights(kind, rows, columns, &mut draws);
        let matrix = Matrix::pack(kind, rows, columns, &bytes, &pool).unwrap();
        let mut expected = vec![0.0; rows * columns];
        dequantise(kind, &bytes, &mut expected);
        let mut row = vec![0.0; columns];
        for (index, expected) in expected.chunks(columns).enumerate() {
            matrix.row(index, &mut row);
            assert_eq!(row, expected, "row {index} in {kind}");
        }
        // At the file's own density, but for the rows that fill the last strip.
        assert!(matrix.bytes() <= bytes.len() * 48 / 37 + 3 * 64, "{kind}: {} from {}", matrix.bytes(), bytes.len());
    }
}

fn shared(bytes: &[u8]) -> Shared {
    let mut memory = Memory::zeroed(bytes.len()).unwrap();
    memory.copy_from_slice(bytes);
    memory.into()
}

/// Files hold strips, and other machines read them.
#[test]
fn strips_lie_as_kernels_of_this_name_read_them() {
    let pool = Pool::new(1);
    // FNV-1a of the strips of all kinds. Another value, and KERNELS must have another name.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for kind in Kind::ALL {
        let (rows, columns, mut draws) = (21, 2 * kind.columns(), Draws(kind.code().into()));
        let matrix = Matrix::pack(kind, rows, columns, &weights(kind, rows, columns, &mut draws), &pool).unwrap();
        assert_eq!(Matrix::packed_bytes(kind, rows, columns), Ok(matrix.bytes()));
        hash = matrix.packed().iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    }
    assert_eq!((KERNELS, hash), ("littoral-kernels-1", 0xab19_2ae2_cd70_9363));
}

#[test]
fn packed_strips_are_the_matrix_again() {
    let pool = Pool::new(1);
    for kind in Kind::ALL {
        let (rows, columns, mut draws) = (37, 3 * kind.columns().max(16), Draws(kind.code().into()));
        let matrix = Matrix::pack(kind, rows, columns, &weights(kind, rows, columns, &mut draws), &pool).unwrap();
        // Behind others of its file.
        let file = shared(&[&[7; 128], matrix.packed(), &[9; 5]].concat());
        let strips = file.part(128..128 + matrix.bytes()).unwrap();
        let again = Matrix::from_packed(kind, rows, columns, strips.clone()).unwrap();
        let copy = again.copy_into(&mut Arena::default()).unwrap();
        let x: Vec<f32> = (0..5 * columns).map(|_| draws.value()).collect();
        for instructions in Instructions::here() {
            let bits = |matrix| product(matrix, &x, instructions, 1).into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let expected = bits(&matrix);
            assert!(bits(&again) == expected && bits(&copy) == expected, "{kind} on {}", instructions.name());
        }

        let bytes = matrix.bytes();
        let said = |rows, columns, strips| Matrix::from_packed(kind, rows, columns, strips).unwrap_err().to_string();
        let expected = format!("{rows} rows of {columns} weights in {kind}: strips of {bytes} bytes expected, got");
        let short = file.part(128..128 + bytes - 64).unwrap();
        assert_eq!(said(rows, columns, short), format!("{expected} {}", bytes - 64));
        let shifted = file.part(129..129 + bytes).unwrap();
        assert_eq!(
            said(rows, columns, shifted),
            "strips: an address that is a multiple of 64 expected, got one 1 bytes behind it"
        );
        for (rows, columns) in [(0, columns), (rows, 0), (rows + 16, columns), (usize::MAX, columns), (1, usize::MAX)] {
            assert!(Matrix::from_packed(kind, rows, columns, strips.clone()).is_err(), "{rows} x {columns} in {kind}");
        }
        assert!(Matrix::from_packed(kind, 0, columns, file.part(0..0).unwrap()).is_err());
    }
}

#[test]
#[allow(clippy::reversed_empty_ranges)] // Those are to be refused.
fn a_part_lies_in_the_whole() {
    let whole = shared(&[1, 2, 3, 4]);
    let part = whole.part(1..3).unwrap();
    assert_eq!((&*part, &*part.part(1..2).unwrap(), part.part(2..2).unwrap().len()), (&[2, 3][..], &[3][..], 0));
    for range in [0..3, 3..3, 2..1, usize::MAX..usize::MAX, 1..usize::MAX] {
        assert!(part.part(range.clone()).is_none(), "{range:?}");
    }
}

#[test]
fn products_are_those_of_the_specification() {
    let pool = Pool::new(1);
    for kind in Kind::ALL {
        let (rows, columns, mut draws) = (32, 4 * kind.columns().max(24), Draws(u64::from(kind.code()) << 8));
        let bytes = weights(kind, rows, columns, &mut draws);
        let matrix = Matrix::pack(kind, rows, columns, &bytes, &pool).unwrap();
        let x: Vec<f32> = (0..columns).map(|_| draws.value()).collect();
        let expected = exact(kind, &bytes, &x, columns);
        // Some hundred roundings of f32, each of at most 2^-24 of a partial sum.
        let scale = expected.iter().fold(0f64, |most, y| most.max(y.abs()));
        for instructions in Instructions::here() {
            for (r, got) in product(&matrix, &x, instructions, 1)[..rows].iter().enumerate() {
                let error = (f64::from(*got) - expected[r]).abs();
                assert!(error < 2e-5 * scale, "{kind} on {}: row {r}: {got}, not {}", instructions.name(), expected[r]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The promise on which exact speculation and splitting stand.
    #[test]
    fn a_tokens_bits_depend_on_nothing_but_itself(
        seed in any::<u64>(),
        rows in 1usize..70,
        blocks in 1usize..5,
        tokens in 1usize..30,
    ) {
        for kind in Kind::ALL {
            let (columns, mut draws) = (blocks * kind.columns().max(8), Draws(seed ^ u64::from(kind.code())));
            let bytes = weights(kind, rows, columns, &mut draws);
            let matrix = Matrix::pack(kind, rows, columns, &bytes, &Pool::new(1)).unwrap();
            let x: Vec<f32> = (0..tokens * columns).map(|_| draws.value()).collect();
            // Each token alone, by the scalar specification.
            let alone: Vec<f32> =
                x.chunks(columns).flat_map(|x| product(&matrix, x, Instructions::Scalar, 1)).collect();
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            for instructions in Instructions::here() {
                for threads in [1, 3] {
                    let together = product(&matrix, &x, instructions, threads);
                    prop_assert_eq!(bits(&together), bits(&alone), "{} on {}", kind, instructions.name());
                }
            }
        }
    }
}

/// All operations of one instruction set on the same values as the specification, over the edges of their ranges.
fn operations_agree<L: Lanes>(
    bytes: impl Fn(L::Bytes) -> [u8; 64],
    ints: impl Fn(L::Ints) -> [i32; 16],
    floats: impl Fn(L::Floats) -> [f32; 16],
) {
    #[repr(align(64))]
    struct Aligned([u8; 64]);
    let mut draws = Draws(5);
    for round in 0..500 {
        let mut w = Aligned(std::array::from_fn(|_| draws.next() as u8));
        let mut a: [i8; 4] = std::array::from_fn(|_| (draws.next() % 255) as i8);
        a.iter_mut().for_each(|a| *a = (*a).max(-127));
        if round % 5 == 0 {
            // The widest sums: 16-bit halves must not saturate.
            w.0 = [if round % 2 == 0 { 0x80 } else { 0x7f }; 64];
            a = [if round % 3 == 0 { 127 } else { -127 }; 4];
        }
        let sum: i32 = a.iter().map(|a| i32::from(*a)).sum();
        let sum = sum.to_le_bytes();
        let (at, a) = (w.0.as_ptr(), a.as_ptr().cast());
        let f: [f32; 16] = std::array::from_fn(|_| draws.value());
        let f = f.as_ptr().cast();
        // SAFETY: 64 aligned bytes, 4 bytes, 64 bytes of floats; the caller of this function has asked the processor.
        unsafe {
            let (l, s) = (L::load(at), Scalar::load(at));
            assert_eq!(bytes(L::low(l)), Scalar::low(s));
            assert_eq!(bytes(L::high(l)), Scalar::high(s));
            assert_eq!(bytes(L::up::<3>(l, 0x18)), Scalar::up::<3>(s, 0x18));
            assert_eq!(bytes(L::down::<2>(l, 0x30)), Scalar::down::<2>(s, 0x30));
            assert_eq!(bytes(L::or(L::low(l), L::high(l))), Scalar::or(Scalar::low(s), Scalar::high(s)));
            let (lw, sw) = (L::down::<1>(l, 127), Scalar::down::<1>(s, 127));
            assert_eq!(ints(L::dot(L::same(-7), lw, a)), Scalar::dot([-7; 16], sw, a));
            let start = (L::start_signed(sum.as_ptr()), Scalar::start_signed(sum.as_ptr()));
            assert_eq!(ints(L::dot_signed(start.0, l, a)), Scalar::dot_signed(start.1, s, a));
            assert_eq!(ints(L::dot_pairs(L::same(-7), at, a)), Scalar::dot_pairs([-7; 16], at, a));
            let (lu, su) = (L::unsigned(at), Scalar::unsigned(at));
            let (ls, ss) = (L::signed(at), Scalar::signed(at));
            assert_eq!((ints(lu), ints(ls)), (su, ss));
            let [x, y] = [draws.next(), draws.next()].map(|x| x as i32);
            let (lm, sm) = (L::multiply_add(L::same(x), L::same(y), ls), Scalar::multiply_add([x; 16], [y; 16], ss));
            assert_eq!(ints(lm), sm);
            let same = |l: L::Floats, s: [f32; 16]| {
                for (l, s) in floats(l).into_iter().zip(s) {
                    assert!(l.to_bits() == s.to_bits() || l.is_nan() && s.is_nan(), "{l:e} {s:e}");
                }
            };
            same(L::to_floats(lm), Scalar::to_floats(sm));
            same(L::halves(at), Scalar::halves(at));
            same(L::upper_halves(at), Scalar::upper_halves(at));
            let (lf, sf) = (L::floats(f), Scalar::floats(f));
            let (lg, sg) = (L::to_floats(lu), Scalar::to_floats(su));
            same(L::multiply(lf, lg), Scalar::multiply(sf, sg));
            same(L::add(lf, lg), Scalar::add(sf, sg));
            same(L::fused(lf, lg, L::every(f)), Scalar::fused(sf, sg, Scalar::every(f)));
            same(L::fused_from(lf, lg, L::every(f)), Scalar::fused_from(sf, sg, Scalar::every(f)));
            let columns = [&w.0, &std::array::from_fn(|_| draws.next() as u8)];
            let q: [[i8; 8]; 4] = std::array::from_fn(|_| std::array::from_fn(|i| a.cast::<i8>().add(i % 4).read()));
            let q = q.map(|q| if round % 5 == 0 { q } else { q.map(|_| ((draws.next() % 255) as i8).max(-127)) });
            let expected = products::<Scalar, 4>(|i| i, columns, &q);
            assert_eq!(products::<L, 4>(&ints, columns, &q), expected);
            assert_eq!(products::<L, 2>(&ints, columns, &[q[0], q[1]])[..], expected[..2]);
        }
    }
}

/// All that sums of several tokens go through, for eight columns.
///
/// # Safety
/// The processor has the instructions of `L`.
unsafe fn products<L: Lanes, const M: usize>(
    ints: impl Fn(L::Ints) -> [i32; 16],
    columns: [&[u8; 64]; 2],
    q: &[[i8; 8]; M],
) -> [[i32; 16]; M] {
    let [first, second] = columns.map(|w| unsafe { L::load(w.as_ptr()) });
    // As in a panel: four columns of each token in turn, or eight.
    let panel: Vec<i8> = match L::TURNS {
        1 => [0, 4].iter().flat_map(|at| q.iter().flat_map(move |q| q[*at..at + 4].to_vec())).collect(),
        _ => q.as_flattened().to_vec(),
    };
    let (a, after) = (panel.as_ptr().cast::<u8>(), panel[4 * M..].as_ptr().cast::<u8>());
    // SAFETY: `a` has eight bytes of each token, `after` four; scales are read from 64 bytes.
    unsafe {
        let (mut sums, mut subs, mut signed) = ([L::zero(); M], [L::zero(); M], [L::zero(); M]);
        L::start(&mut subs, |m| -1000 * m as i32 - 3);
        for (sum, q) in signed.iter_mut().zip(q) {
            let all: i32 = q.iter().map(|q| i32::from(*q)).sum();
            *sum = L::start_signed(all.to_le_bytes().as_ptr());
        }
        for turn in 0..L::TURNS {
            let all = match L::TURNS {
                1 => vec![(first, a), (second, after)],
                _ => vec![(L::together(turn, first, second), a)],
            };
            for (w, a) in all {
                L::dots(&mut subs, turn, L::down::<1>(w, 127), a);
                L::dots_signed(&mut signed, turn, w, a);
            }
        }
        L::add_scaled(&mut sums, subs, L::signed(columns[0].as_ptr()));
        L::add_scaled(&mut sums, signed, L::unsigned(columns[1].as_ptr()));
        L::apart(&mut sums);
        sums.map(ints)
    }
}

/// Other tests compare what they find; CI asks for this one where everything should be found.
#[test]
#[ignore = "for a processor with all instruction sets of its kind, such as an emulated one"]
fn no_instruction_set_is_missing_here() {
    assert_eq!(Instructions::here(), Instructions::ALL);
}

#[test]
fn every_operation_of_every_instruction_set_is_exact() {
    for instructions in Instructions::here() {
        match instructions {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => unsafe {
                operations_agree::<lanes::avx512::Avx512>(
                    |b| std::mem::transmute(b),
                    |i| std::mem::transmute(i),
                    |f| std::mem::transmute(f),
                );
            },
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe {
                operations_agree::<lanes::avx2::Avx2>(
                    |b| std::mem::transmute(b),
                    |i| std::mem::transmute(i),
                    |f| std::mem::transmute(f),
                );
            },
            #[cfg(target_arch = "aarch64")]
            Instructions::NeonI8mm => unsafe {
                operations_agree::<lanes::neon::Neon<true>>(
                    |b| std::mem::transmute(b),
                    |i| std::mem::transmute(i),
                    |f| std::mem::transmute(f),
                );
            },
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => unsafe {
                operations_agree::<lanes::neon::Neon<false>>(
                    |b| std::mem::transmute(b),
                    |i| std::mem::transmute(i),
                    |f| std::mem::transmute(f),
                );
            },
            Instructions::Scalar => {}
        }
    }
    assert_eq!(Blocks::Of32.bytes(1), 44);
}
