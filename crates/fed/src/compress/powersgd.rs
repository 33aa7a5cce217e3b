//! PowerSGD: Vogels et al. 2019, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization"
//! (NeurIPS), algorithm 1. A matrix M (n x m) becomes P̂ Qᵀ with r columns each, one step of power iteration per round.
//!
//! ```text
//! everybody   Q (m x r, orthonormal columns): of the last round, at first of a seed
//! device      P_i = M_i Q                         first sum, Σ P_i
//! cloud       P̂ = orthonormal basis of Σ P_i
//! device      Q_i = M_iᵀ P̂                        second sum, Σ Q_i
//! cloud       Σ M_i ≈ P̂ (Σ Q_i)ᵀ                  and Q for the next round from Σ Q_i
//! ```
//!
//! Both are linear in the update given what the cloud sent, so both can be masked and summed in the ring; the second waits for
//! the first, so a round has two collections over the same devices with the same M_i. Rounds of a job have one: there the two
//! sums take turns (`alternating`), and this form is what that is measured against (`littoral bench compress`). It is P̂ P̂ᵀ Σ M_i: exact if the sum
//! has rank r or less. Columns are orthonormal, so ‖P_i‖ ≤ ‖M_i‖ and ‖Q_i‖ ≤ ‖M_i‖: each sum has the update's sensitivity
//! bound. With a residual, a device keeps M_i − P̂ Q_iᵀ.
//!
//! Vectors, and matrices that would not shrink, travel as they are, with the second sum. All sums are in f64 in a fixed
//! order: the same bits on every machine.
//!
//! Not hidden: P̂ and Q are broadcast; they are functions of sums alone.

use super::random::{Draws, Seed, derive};
use super::{CompressError, expect};
use std::ops::Range;

/// Where a matrix lies in the flat parameters, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    pub start: usize,
    pub rows: usize,
    pub columns: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PowerSgd {
    len: usize,
    rank: usize,
    /// Those that shrink, in order.
    matrices: Vec<Matrix>,
    /// Everything between them.
    plain: Vec<Range<usize>>,
}

/// Those of the matrices that are wanted, and what lies between them: both in the order of the parameters.
pub(super) fn part(
    len: usize,
    matrices: &[Matrix],
    rank: usize,
    wanted: impl Fn(&Matrix) -> bool,
) -> Result<(Vec<Matrix>, Vec<Range<usize>>), CompressError> {
    if rank == 0 {
        return Err(CompressError::Setting { field: "rank", allowed: "1 or more", got: "0".into() });
    }
    let (mut kept, mut plain, mut at) = (Vec::new(), Vec::new(), 0);
    for matrix in matrices {
        let size = matrix.rows.checked_mul(matrix.columns);
        let end = size.and_then(|size| matrix.start.checked_add(size)).filter(|&end| end <= len);
        let Some(end) = end.filter(|_| matrix.start >= at) else {
            let got = format!("{matrix:?} after coordinate {at} of {len}");
            return Err(CompressError::Setting { field: "matrices", allowed: "in order, inside, apart", got });
        };
        if wanted(matrix) {
            plain.push(at..matrix.start);
            kept.push(matrix.clone());
            at = end;
        }
    }
    plain.push(at..len);
    plain.retain(|range| !range.is_empty());
    Ok((kept, plain))
}

impl PowerSgd {
    /// `matrices` in the order of the parameters, none over another; `rank` 1 or more.
    pub fn new(len: usize, matrices: &[Matrix], rank: usize) -> Result<Self, CompressError> {
        let shrinks =
            |matrix: &Matrix| rank.saturating_mul(matrix.rows + matrix.columns) < matrix.rows * matrix.columns;
        let (matrices, plain) = part(len, matrices, rank, shrinks)?;
        Ok(Self { len, rank, matrices, plain })
    }

    /// Coordinates of the first sum.
    pub fn first_len(&self) -> usize {
        self.matrices.iter().map(|matrix| matrix.rows * self.rank).sum()
    }

    /// Coordinates of Q, with which the second sum begins.
    pub fn q_len(&self) -> usize {
        self.matrices.iter().map(|matrix| matrix.columns * self.rank).sum()
    }

    /// Coordinates of the second sum: Q, then what is plain.
    pub fn second_len(&self) -> usize {
        self.q_len() + self.plain.iter().map(Range::len).sum::<usize>()
    }

    /// Of the first and of the second sum, each.
    pub fn l2_bound(&self, before: f64) -> Option<f64> {
        // Columns are orthonormal to 2^-22 together with f32's rounding of them and of the products.
        Some(before * (1.0 + self.rank as f64 * 2f64.powi(-21)))
    }

    /// Q of the first round.
    pub fn q_at_first(&self, seed: &Seed) -> Vec<f32> {
        self.q_next(&vec![0.0; self.q_len()], seed)
    }

    /// Q of the next round: an orthonormal basis of this round's sum of Q (its first [`PowerSgd::q_len`] coordinates, in any
    /// scale). Directions that the sum lacks are drawn.
    pub fn q_next(&self, sum: &[f32], seed: &Seed) -> Vec<f32> {
        let mut q = sum[..self.q_len()].to_vec();
        let mut at = 0;
        for (i, matrix) in self.matrices.iter().enumerate() {
            let place = at..at + matrix.columns * self.rank;
            at = place.end;
            orthonormal(&mut q[place], self.rank, Some(&mut Draws::new(&derive(seed, "powersgd", i as u64))));
        }
        q
    }

    /// P_i = M_i Q for each matrix, one after another, row by row.
    pub fn first(&self, x: &[f32], q: &[f32]) -> Result<Vec<f32>, CompressError> {
        expect("coordinates", self.len, x.len())?;
        expect("coordinates of Q", self.q_len(), q.len())?;
        let (mut p, mut at) = (Vec::with_capacity(self.first_len()), 0);
        let mut row_sums = vec![0f64; self.rank];
        for matrix in &self.matrices {
            let q = &q[at..at + matrix.columns * self.rank];
            at += q.len();
            for row in matrix.of(x).chunks_exact(matrix.columns) {
                row_sums.fill(0.0);
                for (&v, q) in row.iter().zip(q.chunks_exact(self.rank)) {
                    row_sums.iter_mut().zip(q).for_each(|(sum, &q)| *sum += f64::from(v) * f64::from(q));
                }
                p.extend(row_sums.iter().map(|&sum| sum as f32));
            }
        }
        Ok(p)
    }

    /// P̂: an orthonormal basis of the first sum, in any scale. A direction that the sum lacks is left out (zeros).
    pub fn basis(&self, first: &[f32]) -> Result<Vec<f32>, CompressError> {
        expect("coordinates of the first sum", self.first_len(), first.len())?;
        let (mut p, mut at) = (first.to_vec(), 0);
        for matrix in &self.matrices {
            let place = at..at + matrix.rows * self.rank;
            at = place.end;
            orthonormal(&mut p[place], self.rank, None);
        }
        Ok(p)
    }

    /// Q_i = M_iᵀ P̂ for each matrix, then what is plain.
    pub fn second(&self, x: &[f32], basis: &[f32]) -> Result<Vec<f32>, CompressError> {
        expect("coordinates", self.len, x.len())?;
        expect("coordinates of P", self.first_len(), basis.len())?;
        let (mut second, mut at) = (Vec::with_capacity(self.second_len()), 0);
        for matrix in &self.matrices {
            let mut sums = vec![0f64; matrix.columns * self.rank];
            for row in matrix.of(x).chunks_exact(matrix.columns) {
                let p = &basis[at..at + self.rank];
                at += self.rank;
                for (&v, sums) in row.iter().zip(sums.chunks_exact_mut(self.rank)) {
                    sums.iter_mut().zip(p).for_each(|(sum, &p)| *sum += f64::from(v) * f64::from(p));
                }
            }
            second.extend(sums.into_iter().map(|sum| sum as f32));
        }
        self.plain.iter().for_each(|range| second.extend_from_slice(&x[range.clone()]));
        Ok(second)
    }

    /// P̂ Qᵀ and what is plain, for one device's second vector or for a sum of them.
    pub fn approximate(&self, basis: &[f32], second: &[f32]) -> Result<Vec<f32>, CompressError> {
        expect("coordinates of P", self.first_len(), basis.len())?;
        expect("coordinates of the second sum", self.second_len(), second.len())?;
        let (mut x, mut p_at, mut q_at) = (vec![0.0; self.len], 0, 0);
        for matrix in &self.matrices {
            let q = &second[q_at..q_at + matrix.columns * self.rank];
            q_at += q.len();
            let place = matrix.start..matrix.start + matrix.rows * matrix.columns;
            for row in x[place].chunks_exact_mut(matrix.columns) {
                let p = &basis[p_at..p_at + self.rank];
                p_at += self.rank;
                for (v, q) in row.iter_mut().zip(q.chunks_exact(self.rank)) {
                    *v = p.iter().zip(q).map(|(&p, &q)| f64::from(p) * f64::from(q)).sum::<f64>() as f32;
                }
            }
        }
        for range in &self.plain {
            x[range.clone()].copy_from_slice(&second[q_at..q_at + range.len()]);
            q_at += range.len();
        }
        Ok(x)
    }
}

impl Matrix {
    fn of<'a>(&self, x: &'a [f32]) -> &'a [f32] {
        &x[self.start..self.start + self.rows * self.columns]
    }
}

/// Makes the columns of a matrix (row by row, `rank` columns) orthonormal: modified Gram-Schmidt, each column twice (Giraud
/// et al. 2005: twice is enough). A column that depends on those before it, or is zero, is drawn (signs), or becomes zeros
/// if there is nothing to draw from or no room.
pub(super) fn orthonormal(matrix: &mut [f32], rank: usize, mut draws: Option<&mut Draws>) {
    let rows = matrix.len() / rank;
    let mut columns: Vec<Vec<f64>> =
        (0..rank).map(|c| matrix.iter().skip(c).step_by(rank).map(|&v| f64::from(v)).collect()).collect();
    for c in 0..rank {
        let (done, rest) = columns.split_at_mut(c);
        let column = &mut rest[0];
        let mut kept = project_out(column, done);
        if let Some(draws) = draws.as_deref_mut().filter(|_| !kept && c < rows) {
            column.iter_mut().for_each(|v| *v = if draws.word() & 1 == 0 { 1.0 } else { -1.0 });
            kept = project_out(column, done);
        }
        if !kept {
            column.fill(0.0);
        }
    }
    for (i, row) in matrix.chunks_exact_mut(rank).enumerate() {
        row.iter_mut().zip(&columns).for_each(|(v, column)| *v = column[i] as f32);
    }
}

/// Takes out what lies along the columns before it and scales to length 1. False if a ten-thousandth or less is left.
fn project_out(column: &mut [f64], done: &[Vec<f64>]) -> bool {
    let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
    let before = norm(column);
    for _ in 0..2 {
        for other in done {
            let along: f64 = column.iter().zip(other).map(|(a, b)| a * b).sum();
            column.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
        }
    }
    let after = norm(column);
    let kept = after.is_finite() && after > 1e-4 * before;
    if kept {
        column.iter_mut().for_each(|v| *v /= after);
    }
    kept
}
