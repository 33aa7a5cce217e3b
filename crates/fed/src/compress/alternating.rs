//! PowerSGD in one sum per version: Zhang, Zhang, Shi, Chu, Li 2023, "Evaluation and Optimization of Gradient Compression
//! for Distributed Deep Learning" (ICDCS), section IV (ACP-SGD); the two-sum form is `powersgd`.
//!
//! The two sums of a step of power iteration are taken in successive versions, each of the update of its own version:
//!
//! ```text
//! turn     everybody has                        device sends      the version moves by      everybody has next
//! left     Q, orthonormal columns (m x r)       P_i = M_i Q       (Σ P_i) Qᵀ                P̂, a basis of Σ P_i
//! right    P̂, orthonormal columns (n x r)       Q_i = M_iᵀ P̂      P̂ (Σ Q_i)ᵀ                Q, a basis of Σ Q_i
//! ```
//!
//! With a basis given, what is sent is a linear map of the update ([`Projection`]), so it is rounded, masked and summed as any
//! section is, and needs no second collection. It is a projection, M_i Q Qᵀ or P̂ P̂ᵀ M_i: what it leaves out is orthogonal to
//! what it sends, and ‖P_i‖, ‖Q_i‖ ≤ ‖M_i‖: the update's sensitivity bound stays. A basis that is not orthonormal would break
//! that, so whoever reads one checks it.
//!
//! **Both turns are as long.** Updates of a job have one length, and a tall matrix (784 x 200) would send four times as much
//! in one turn as in the other. So matrices take their turns against each other, the largest differences first, and one more
//! than twice as long as it is wide is cut into two halves, which then do. What is left is padded with zeros: less than a third
//! for any one matrix, nothing for pairs. Vectors, and matrices that would not shrink, travel as they are in both turns.
//!
//! Bases are functions of released sums and of a public seed: with noise in the sums they are post-processing. All sums are in
//! f64 in a fixed order: the same bits on every machine.

use super::powersgd::{Matrix, orthonormal, part};
use super::random::{Draws, Seed, derive};
use super::{CompressError, Linear, expect};
use std::ops::Range;

/// A longer side of more than this many shorter ones is cut in half.
const SLIM: usize = 2;
/// How far products of a basis' columns may be from 1 and 0: rounding to f32 leaves half of it.
const ORTHONORMAL: f64 = 1.0 / 4_194_304.0;

/// Which side is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Even,
    Odd,
}

impl Turn {
    fn other(self) -> Self {
        match self {
            Self::Even => Self::Odd,
            Self::Odd => Self::Even,
        }
    }
}

/// A part of a matrix: rows of `columns` coordinates, `stride` apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Block {
    start: usize,
    stride: usize,
    rows: usize,
    columns: usize,
    /// When it sends M Q; in the other turn it sends Mᵀ P̂.
    left: Turn,
}

/// Which matrices of `len` coordinates are sent by their factors, and when which.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternating {
    len: usize,
    rank: usize,
    blocks: Vec<Block>,
    /// Everything between them.
    plain: Vec<Range<usize>>,
}

/// What everybody has of the last sum: of each block, orthonormal columns of the side that is not sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Basis {
    turn: Turn,
    /// Block after block, row by row.
    columns: Vec<f32>,
}

/// The map of one version.
#[derive(Clone, Copy, Debug)]
pub struct Projection<'a> {
    shape: &'a Alternating,
    basis: &'a Basis,
}

impl Alternating {
    /// `matrices` in the order of the parameters, none over another; `rank` 1 or more.
    pub fn new(len: usize, matrices: &[Matrix], rank: usize) -> Result<Self, CompressError> {
        let (matrices, plain) = part(len, matrices, rank, |matrix| rank < matrix.rows.min(matrix.columns))?;
        let blocks = matrices.iter().flat_map(halves).collect();
        let mut shape = Self { len, rank, blocks, plain };
        shape.take_turns();
        Ok(shape)
    }

    /// The largest difference between two sides first, the longer side into the turn that is shorter so far.
    fn take_turns(&mut self) {
        let mut order: Vec<usize> = (0..self.blocks.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.blocks[i].rows.abs_diff(self.blocks[i].columns)));
        let (mut even, mut odd) = (0, 0);
        for i in order {
            let block = &mut self.blocks[i];
            let left_is_longer = block.rows >= block.columns;
            block.left = if (even <= odd) == left_is_longer { Turn::Even } else { Turn::Odd };
            even += block.side(block.left == Turn::Even);
            odd += block.side(block.left == Turn::Odd);
        }
    }

    /// Coordinates that are sent of the blocks in a turn: as many as the other turn's basis has.
    fn factor_len(&self, turn: Turn) -> usize {
        self.rank * self.blocks.iter().map(|block| block.side(block.left == turn)).sum::<usize>()
    }

    fn factors_len(&self) -> usize {
        self.factor_len(Turn::Even).max(self.factor_len(Turn::Odd))
    }

    /// Coordinates that are sent in either turn.
    pub fn sent_len(&self) -> usize {
        self.factors_len() + self.plain.iter().map(Range::len).sum::<usize>()
    }

    /// Of what is sent, given one of the update's own.
    pub fn l2_bound(&self, before: f64) -> f64 {
        // A basis' largest singular value is 1 + rank · 2^-23 at most, and products are rounded to f32.
        before * (1.0 + self.rank as f64 * 2f64.powi(-21))
    }

    /// Bytes of any [`Basis`].
    pub fn basis_bytes(&self) -> usize {
        4 + 4 * self.factors_len()
    }

    /// Before the first sum.
    pub fn basis_at_first(&self, seed: &Seed) -> Basis {
        self.basis_of(Turn::Even, vec![0.0; self.factor_len(Turn::Odd)], seed)
    }

    /// After a sum of what was sent with `basis`, in any scale. Directions that the sum lacks are drawn.
    pub fn basis_next(&self, basis: &Basis, sum: &[f32], seed: &Seed) -> Result<Basis, CompressError> {
        expect("coordinates of the sum", self.sent_len(), sum.len())?;
        let factors = sum[..self.factor_len(basis.turn)].to_vec();
        Ok(self.basis_of(basis.turn.other(), factors, seed))
    }

    /// For this turn, from the side that it does not send.
    fn basis_of(&self, turn: Turn, mut columns: Vec<f32>, seed: &Seed) -> Basis {
        for (i, place) in self.places(turn.other()).enumerate() {
            let mut draws = Draws::new(&derive(seed, "basis", i as u64));
            orthonormal(&mut columns[place], self.rank, Some(&mut draws));
        }
        Basis { turn, columns }
    }

    /// The turn, then the columns, filled up with zeros: [`Alternating::basis_bytes`].
    pub fn put_basis(&self, basis: &Basis, out: &mut Vec<u8>) {
        let end = out.len() + self.basis_bytes();
        out.extend_from_slice(&u32::from(basis.turn == Turn::Odd).to_le_bytes());
        out.extend(basis.columns.iter().flat_map(|v| v.to_le_bytes()));
        out.resize(end, 0);
    }

    /// What [`Alternating::put_basis`] wrote. Any bytes give orthonormal columns or an error.
    pub fn basis(&self, bytes: &[u8]) -> Result<Basis, CompressError> {
        expect("bytes of a basis", self.basis_bytes(), bytes.len())?;
        let mut words = bytes.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four));
        let turn = match words.next() {
            Some(0) => Turn::Even,
            Some(1) => Turn::Odd,
            got => {
                let got = got.unwrap_or_default().to_string();
                return Err(CompressError::Value { what: "turn", allowed: "0 or 1", got });
            }
        };
        let columns: Vec<f32> = words.by_ref().take(self.factor_len(turn.other())).map(f32::from_bits).collect();
        if words.any(|word| word != 0) {
            return Err(CompressError::Value { what: "behind a basis", allowed: "zeros", got: "more".into() });
        }
        for place in self.places(turn.other()) {
            check_orthonormal(&columns[place], self.rank)?;
        }
        Ok(Basis { turn, columns })
    }

    /// Where each block's part lies in what is sent in a turn.
    fn places(&self, turn: Turn) -> impl Iterator<Item = Range<usize>> + '_ {
        self.blocks.iter().scan(0, move |at, block| {
            let start = *at;
            *at += self.rank * block.side(block.left == turn);
            Some(start..*at)
        })
    }

    pub fn with<'a>(&'a self, basis: &'a Basis) -> Projection<'a> {
        Projection { shape: self, basis }
    }
}

/// A matrix as it is, or cut across its longer side.
fn halves(matrix: &Matrix) -> Vec<Block> {
    let &Matrix { start, rows, columns } = matrix;
    let block = |start, rows, columns| Block { start, stride: matrix.columns, rows, columns, left: Turn::Even };
    if rows > SLIM * columns {
        let first = rows / 2;
        vec![block(start, first, columns), block(start + first * columns, rows - first, columns)]
    } else if columns > SLIM * rows {
        let first = columns / 2;
        vec![block(start, rows, first), block(start + first, rows, columns - first)]
    } else {
        vec![block(start, rows, columns)]
    }
}

fn check_orthonormal(columns: &[f32], rank: usize) -> Result<(), CompressError> {
    let column = |c: usize| columns.iter().skip(c).step_by(rank).map(|&v| f64::from(v));
    for a in 0..rank {
        for b in 0..=a {
            let product: f64 = column(a).zip(column(b)).map(|(a, b)| a * b).sum();
            let off = (product - if a == b { 1.0 } else { 0.0 }).abs();
            // Where there was no room a column is zeros.
            if !(off <= ORTHONORMAL || a == b && product == 0.0) {
                let got = format!("{product} of columns {b} and {a}");
                return Err(CompressError::Value { what: "a product", allowed: "orthonormal columns", got });
            }
        }
    }
    Ok(())
}

impl Block {
    /// Rows, if it is the left side that is meant, or columns.
    fn side(&self, left: bool) -> usize {
        if left { self.rows } else { self.columns }
    }

    fn row(&self, i: usize) -> Range<usize> {
        let start = self.start + i * self.stride;
        start..start + self.columns
    }

    /// M Q, row by row.
    fn times(&self, x: &[f32], q: &[f32], rank: usize, out: &mut Vec<f32>) {
        let mut sums = vec![0f64; rank];
        for i in 0..self.rows {
            sums.fill(0.0);
            for (&v, q) in x[self.row(i)].iter().zip(q.chunks_exact(rank)) {
                sums.iter_mut().zip(q).for_each(|(sum, &q)| *sum += f64::from(v) * f64::from(q));
            }
            out.extend(sums.iter().map(|&sum| sum as f32));
        }
    }

    /// Mᵀ P, row by row.
    fn transposed_times(&self, x: &[f32], p: &[f32], rank: usize, out: &mut Vec<f32>) {
        let mut sums = vec![0f64; rank * self.columns];
        for (i, p) in p.chunks_exact(rank).enumerate() {
            for (&v, sums) in x[self.row(i)].iter().zip(sums.chunks_exact_mut(rank)) {
                sums.iter_mut().zip(p).for_each(|(sum, &p)| *sum += f64::from(v) * f64::from(p));
            }
        }
        out.extend(sums.into_iter().map(|sum| sum as f32));
    }

    /// P Qᵀ.
    fn put(&self, p: &[f32], q: &[f32], rank: usize, x: &mut [f32]) {
        for (i, p) in p.chunks_exact(rank).enumerate() {
            for (v, q) in x[self.row(i)].iter_mut().zip(q.chunks_exact(rank)) {
                *v = p.iter().zip(q).map(|(&p, &q)| f64::from(p) * f64::from(q)).sum::<f64>() as f32;
            }
        }
    }
}

impl Linear for Projection<'_> {
    fn name(&self) -> &'static str {
        "powersgd"
    }

    fn sent_len(&self, len: usize) -> usize {
        assert_eq!(len, self.shape.len);
        self.shape.sent_len()
    }

    fn forward(&self, x: &[f32], _: &Seed) -> Vec<f32> {
        let Self { shape, basis: Basis { turn, columns } } = self;
        assert_eq!(x.len(), shape.len);
        let mut sent = Vec::with_capacity(shape.sent_len());
        for (block, place) in shape.blocks.iter().zip(shape.places(turn.other())) {
            match block.left == *turn {
                true => block.times(x, &columns[place], shape.rank, &mut sent),
                false => block.transposed_times(x, &columns[place], shape.rank, &mut sent),
            }
        }
        sent.resize(shape.factors_len(), 0.0);
        shape.plain.iter().for_each(|range| sent.extend_from_slice(&x[range.clone()]));
        sent
    }

    fn backward(&self, sent: &[f32], len: usize, _: &Seed) -> Vec<f32> {
        let Self { shape, basis: Basis { turn, columns } } = self;
        assert_eq!((sent.len(), len), (shape.sent_len(), shape.len));
        let mut x = vec![0.0; len];
        let places = shape.places(*turn).zip(shape.places(turn.other()));
        for (block, (factor, basis)) in shape.blocks.iter().zip(places) {
            let (factor, basis) = (&sent[factor], &columns[basis]);
            let (p, q) = if block.left == *turn { (factor, basis) } else { (basis, factor) };
            block.put(p, q, shape.rank, &mut x);
        }
        let mut at = shape.factors_len();
        for range in &shape.plain {
            x[range.clone()].copy_from_slice(&sent[at..at + range.len()]);
            at += range.len();
        }
        x
    }

    fn l2_bound(&self, before: f64, _: usize) -> Option<f64> {
        Some(self.shape.l2_bound(before))
    }

    fn needs_residual(&self) -> bool {
        true
    }
}
