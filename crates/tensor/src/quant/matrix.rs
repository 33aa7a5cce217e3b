//! A matrix of stored weights, repacked for the kernels, and products with it.

use super::kernel::{Shape, kernel};
use super::lanes::ROWS;
use super::memory::{Arena, CACHE_LINE};
use super::{Kind, Panels, Shared, dequantise};
use crate::pool::Pool;
use std::ops::Range;
use thiserror::Error;

/// What is repacked before its source is told to be done with.
const PIECE_BYTES: usize = 8 << 20;

/// Why bytes are no matrix.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum MatrixError {
    #[error("a row of {columns} weights in {kind}: a multiple of {expected} expected")]
    Columns { kind: Kind, columns: usize, expected: usize },
    #[error("{rows} rows of {columns} weights in {kind}: {expected} bytes expected, got {got}")]
    Bytes { kind: Kind, rows: usize, columns: usize, expected: usize, got: usize },
    #[error("{rows} rows of {columns} weights in {kind}: strips of {expected} bytes expected, got {got}")]
    Strips { kind: Kind, rows: usize, columns: usize, expected: usize, got: usize },
    #[error("strips: an address that is a multiple of {CACHE_LINE} expected, got one {got} bytes behind it")]
    Alignment { got: usize },
    #[error("{bytes} bytes for weights: more than this machine gives")]
    Memory { bytes: usize },
}

/// Weights at the density of their file, in strips of sixteen rows ([`super::formats`]).
///
/// How strips lie follows from kind, rows and columns alone: it is the same for all instruction sets, which differ in how
/// activations lie ([`Panels`]). So strips that one machine packed serve another, as long as both have the same
/// [`KERNELS`](super::KERNELS).
#[derive(Debug)]
pub struct Matrix {
    kind: Kind,
    rows: usize,
    columns: usize,
    shape: Shape,
    strip_bytes: usize,
    strips: Shared,
}

impl Matrix {
    /// Repacks `rows` rows of `columns` weights. The last strip is filled up with zero rows.
    pub fn pack(kind: Kind, rows: usize, columns: usize, bytes: &[u8], pool: &Pool) -> Result<Self, MatrixError> {
        Self::pack_piecewise(kind, rows, columns, bytes, &mut Arena::default(), pool, &mut |_| {})
    }

    /// As [`Self::pack`], into the arena's memory; `done` hears of each piece of `bytes` that was copied, about [`PIECE_BYTES`] of them, so that
    /// what they lie in need never be in memory as a whole.
    pub fn pack_piecewise(
        kind: Kind,
        rows: usize,
        columns: usize,
        bytes: &[u8],
        arena: &mut Arena,
        pool: &Pool,
        done: &mut dyn FnMut(Range<usize>),
    ) -> Result<Self, MatrixError> {
        let shape = kind.shape();
        let strip_bytes = strip_bytes(kind, columns)?;
        let row_bytes = strip_bytes / ROWS;
        let expected = rows.saturating_mul(row_bytes);
        if expected != bytes.len() || rows == 0 {
            return Err(MatrixError::Bytes { kind, rows, columns, expected, got: bytes.len() });
        }
        let memory = rows.div_ceil(ROWS) * strip_bytes;
        let mut strips = arena.take(memory).ok_or(MatrixError::Memory { bytes: memory })?;
        let nothing = vec![0; kind.bytes()];
        let strips_at_once = (PIECE_BYTES / strip_bytes).max(1);
        for (piece, strips) in strips.chunks_mut(strips_at_once * strip_bytes).enumerate() {
            let first = piece * strips_at_once;
            let mut places: Vec<(usize, &mut [u8])> = strips.chunks_exact_mut(strip_bytes).enumerate().collect();
            pool.each(&mut places, 1, |(strip, place)| {
                for (block, tile) in place.chunks_exact_mut(shape.tile).enumerate() {
                    let of_row = |r: usize| match (first + *strip) * ROWS + r {
                        row if row < rows => &bytes[row * row_bytes + block * kind.bytes()..][..kind.bytes()],
                        _ => &nothing[..],
                    };
                    (shape.pack)(std::array::from_fn(of_row), tile);
                }
            });
            let row_at = |strip: usize| (strip * ROWS).min(rows) * row_bytes;
            done(row_at(first)..row_at(first + strips_at_once));
        }
        Ok(Self { kind, rows, columns, shape, strip_bytes, strips: strips.into() })
    }

    /// A matrix of strips that were packed before ([`Self::packed`]) and lie where they are, in a mapped file for instance, from
    /// a multiple of 64 on.
    ///
    /// # Errors
    /// No such rows, another number of bytes, or another alignment. What the bytes say is not looked at: any are weights.
    pub fn from_packed(kind: Kind, rows: usize, columns: usize, strips: Shared) -> Result<Self, MatrixError> {
        let strip_bytes = strip_bytes(kind, columns)?;
        let expected = Self::packed_bytes(kind, rows, columns)?;
        if expected != strips.len() || rows == 0 {
            return Err(MatrixError::Strips { kind, rows, columns, expected, got: strips.len() });
        }
        // Kernels would take any address, with two cache lines for each load.
        match strips.as_ptr().addr() % CACHE_LINE {
            0 => Ok(Self { kind, rows, columns, shape: kind.shape(), strip_bytes, strips }),
            got => Err(MatrixError::Alignment { got }),
        }
    }

    /// Bytes of all strips of such a matrix; [`usize::MAX`] if that is no number.
    pub fn packed_bytes(kind: Kind, rows: usize, columns: usize) -> Result<usize, MatrixError> {
        Ok(rows.div_ceil(ROWS).saturating_mul(strip_bytes(kind, columns)?))
    }

    /// All strips, one after another, for [`Self::from_packed`].
    pub fn packed(&self) -> &[u8] {
        &self.strips
    }

    /// The same matrix in the arena's memory.
    pub fn copy_into(&self, arena: &mut Arena) -> Result<Self, MatrixError> {
        let bytes = self.strips.len();
        let mut strips = arena.take(bytes).ok_or(MatrixError::Memory { bytes })?;
        strips.copy_from_slice(&self.strips);
        Ok(Self { strips: strips.into(), ..*self })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rows with those that fill the last strip: what a product writes.
    pub fn padded_rows(&self) -> usize {
        self.rows.next_multiple_of(ROWS)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.strips.len()
    }

    /// One row as floats.
    ///
    /// # Panics
    /// If there is no such row, or `out` has another length than the columns.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.columns, "row {row} of {} x {}", self.rows, self.columns);
        let strip = &self.strips[row / ROWS * self.strip_bytes..][..self.strip_bytes];
        let mut block = [0; 256];
        let block = &mut block[..self.kind.bytes()];
        for (tile, out) in strip.chunks_exact(self.shape.tile).zip(out.chunks_exact_mut(self.shape.columns)) {
            (self.shape.unpack)(tile, row % ROWS, block);
            dequantise(self.kind, block, out);
        }
    }
}

/// Bytes of sixteen rows: as many as they have in a file.
fn strip_bytes(kind: Kind, columns: usize) -> Result<usize, MatrixError> {
    let row_bytes = kind.row_bytes(columns).filter(|bytes| *bytes > 0);
    let strip_bytes = row_bytes.and_then(|bytes| bytes.checked_mul(ROWS));
    strip_bytes.ok_or(MatrixError::Columns { kind, columns, expected: kind.columns() })
}

/// `matrices[i] x` for all tokens at once: row r of matrix i and token t is at `t stride + starts[i] + r`, where the
/// starts are the sums of [`Matrix::padded_rows`] before, and the stride is their total.
///
/// The bits of a token's row depend on neither its neighbours nor the threads.
///
/// # Panics
/// If a matrix has another number of columns than `x`, `x` is not prepared for its kind, or `out` is too short.
pub fn multiply(matrices: &[&Matrix], x: &Panels, out: &mut [f32], pool: &Pool) {
    let stride: usize = matrices.iter().map(|m| m.padded_rows()).sum();
    assert!(out.len() >= stride * x.tokens(), "{} values of {} tokens", stride * x.tokens(), x.tokens());
    assert!(matrices.iter().all(|m| m.columns == x.columns()), "columns of all matrices are those of x");
    let out = Out(out.as_mut_ptr());
    let strips = stride / ROWS;
    // Enough pieces that no thread waits long for the last, few enough that claiming one costs nothing.
    let grain = (strips / (8 * pool.threads())).clamp(1, 16);
    pool.run(strips, grain, |range| {
        let (mut index, mut before, mut strip) = (0, 0, range.start);
        while strip < range.end {
            while strip - before >= matrices[index].padded_rows() / ROWS {
                before += matrices[index].padded_rows() / ROWS;
                index += 1;
            }
            let matrix = matrices[index];
            let strips: &[u8] = &matrix.strips;
            let end = range.end.min(before + matrix.padded_rows() / ROWS);
            let together = strip..end.min(strip + (STRIPS_BYTES / matrix.strip_bytes).max(1));
            for group in x.groups() {
                let panel = x.panel(matrix.shape.activations, *group);
                let kernel = kernel(x.instructions(), matrix.kind, group.tokens).expect("panels have such sizes");
                for strip in together.clone() {
                    let weights = &strips[(strip - before) * matrix.strip_bytes..][..matrix.strip_bytes];
                    let blocks = matrix.columns / matrix.shape.columns;
                    // SAFETY: the panels were made for instructions that this processor has. The strip holds `blocks`
                    // tiles of this kind; the panel holds the group's tokens in the kind's form. The last value written
                    // is (first + tokens - 1) stride + 16 strip + 15, below the length of `out` by the assertion above;
                    // no other strip writes there.
                    unsafe {
                        let to = out.at(group.first * stride + strip * ROWS);
                        kernel(weights.as_ptr(), blocks, panel.as_ptr(), to, stride);
                    }
                }
            }
            strip = together.end;
        }
    });
}

/// Strips that all groups of tokens meet before the next ones: they and a group's panel stay in the second-level cache,
/// and panels that do not fit there are read once for several strips.
const STRIPS_BYTES: usize = 512 << 10;

/// Where strips write, each its own sixteen columns.
struct Out(*mut f32);

// SAFETY: threads write to disjoint places; see `multiply`.
unsafe impl Sync for Out {}

impl Out {
    /// # Safety
    /// `index` is within what was given.
    unsafe fn at(&self, index: usize) -> *mut f32 {
        unsafe { self.0.add(index) }
    }
}
