//! EDEN: Vargaftik et al. 2022, "EDEN: Communication-Efficient and Robust Distributed Mean Estimation for Federated
//! Learning" (ICML), algorithm 1; with one bit DRIVE, Vargaftik et al. 2021 (NeurIPS), section 4.
//!
//! ```text
//! device   z = H D x per block, scaled to mean square 1      nearly normal, whatever x was
//!          c_i = the nearest of 2^bits centroids             the best ones for a normal variable (Lloyd, Max)
//!          S = ‖x‖² / ⟨z, c⟩                                 makes the estimate unbiased
//! edge     x̂ = S · D H c
//! ```
//!
//! E‖x̂ − x‖² / ‖x‖² = 1/v − 1, v the share of variance that the centroids hold: π/2 − 1 = 0.571 with one bit, 0.134, 0.036
//! and 0.0096 with two, three and four. Devices rotate by seeds of their own, so that their errors are independent and a mean
//! of n devices errs n times less; the seed's first 8 bytes travel. Unbiased over uniform rotations exactly; Hadamard's are
//! near to that from some 2^6 coordinates on.
//!
//! Fewer than 2^6 last coordinates travel as f32. Hides nothing; S differs between devices, so sums need decoding.

use super::random::{Draws, Seed, derive};
use super::rotate::{blocks, rotate, tail, unrotate};
use super::{BLOCK, Codec, CompressError, Sink, ended, finite, scale, take};
use littoral_tensor::fixed;

/// The positive centroids of a standard normal variable for 1 to 4 bits: Max 1960, "Quantizing for minimum distortion",
/// table 1. Cells end half-way between neighbours.
const CENTROIDS: [&[f32]; 4] = [
    &[0.797_884_6],
    &[0.452_780_2, 1.510_418],
    &[0.245_094_18, 0.756_005_4, 1.343_909_4, 2.151_945_8],
    &[0.128_395_08, 0.388_048_2, 0.656_759_2, 0.942_340_8, 1.256_231_2, 1.618_046, 2.069_016_2, 2.732_589_7],
];

/// Bytes of the seed that travel: rotations need to differ, not to be hidden.
const SEED_BYTES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eden {
    bits: u32,
}

impl Eden {
    /// `bits` per coordinate, 1 to 4.
    pub fn new(bits: u32) -> Result<Self, CompressError> {
        match bits {
            1..=4 => Ok(Self { bits }),
            _ => Err(CompressError::Setting { field: "bits", allowed: "1 to 4", got: bits.to_string() }),
        }
    }

    fn centroids(&self) -> &'static [f32] {
        CENTROIDS[self.bits as usize - 1]
    }
}

fn rotation(nonce: &[u8]) -> Draws {
    let mut seed = [0; 32];
    seed[..SEED_BYTES].copy_from_slice(nonce);
    Draws::new(&derive(&seed, "eden", 0))
}

/// Σ a_i b_i in f64, in order.
fn dot(a: &[f32], b: impl Iterator<Item = f32>) -> f64 {
    a.iter().zip(b).map(|(&a, b)| f64::from(a) * f64::from(b)).sum()
}

impl Codec for Eden {
    fn name(&self) -> &'static str {
        if self.bits == 1 { "eden (1 bit: drive)" } else { "eden" }
    }

    fn bytes_max(&self, len: usize) -> usize {
        SEED_BYTES
            + blocks(len).map(|block| 4 + block.len() / 8 * self.bits as usize).sum::<usize>()
            + 4 * tail(len).len()
    }

    fn encode(&self, x: &[f32], seed: &Seed, out: &mut Vec<u8>) -> Result<(), CompressError> {
        finite(x)?;
        let (centroids, nonce) = (self.centroids(), &seed[..SEED_BYTES]);
        let units = table(centroids, 1.0);
        out.extend_from_slice(nonce);
        let mut draws = rotation(nonce);
        for block in blocks(x.len()) {
            let mut z = x[block.clone()].to_vec();
            let square = dot(&z, z.iter().copied());
            rotate(&mut z, &mut draws);
            // From rotated coordinates to a standard normal's.
            let per_unit = if square > 0.0 { ((z.len() as f64 / square).sqrt()) as f32 } else { 0.0 };
            // Codes are two's complement: c ≥ 0 means centroid c, c < 0 the negative of centroid −1 − c.
            let codes: Vec<i64> = z.iter().map(|v| nearest(v * per_unit, centroids)).collect();
            let along = dot(&z, codes.iter().map(|&c| at(&units, c)));
            if !along.is_finite() {
                return Err(CompressError::NotFinite { index: block.start, value: f32::INFINITY });
            }
            let s = if along > 0.0 { (square / along) as f32 } else { 0.0 };
            out.extend_from_slice(&s.to_le_bytes());
            let start = out.len();
            out.resize(start + fixed::packed_len(codes.len(), self.bits), 0);
            fixed::pack(&codes, self.bits, &mut out[start..])?;
        }
        x[tail(x.len())].iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
        Ok(())
    }

    fn decode(&self, len: usize, mut bytes: &[u8], sink: Sink<'_>) -> Result<(), CompressError> {
        let centroids = self.centroids();
        let mut draws = rotation(take(&mut bytes, SEED_BYTES)?);
        let (mut codes, mut z) = ([0i64; BLOCK], [0f32; BLOCK]);
        for block in blocks(len) {
            let size = block.len();
            // A block's values add up before they are scaled down again: BLOCK times the largest centroid.
            let s = scale(take(&mut bytes, 4)?.try_into().unwrap_or_default(), 4.0 * BLOCK as f32)?;
            fixed::unpack(take(&mut bytes, fixed::packed_len(size, self.bits))?, self.bits, &mut codes[..size])?;
            let scaled = table(centroids, s);
            z.iter_mut().zip(&codes[..size]).for_each(|(v, &c)| *v = at(&scaled, c));
            unrotate(&mut z[..size], &mut draws);
            sink(&z[..size])?;
        }
        let tail = tail(len).len();
        let plain = take(&mut bytes, 4 * tail)?.as_chunks::<4>().0;
        for (v, &plain) in z.iter_mut().zip(plain) {
            *v = f32::from_le_bytes(plain);
        }
        finite(&z[..tail])?;
        if tail > 0 {
            sink(&z[..tail])?;
        }
        ended(bytes)
    }

    fn l2_bound(&self, _: f64, _: usize) -> Option<f64> {
        None
    }

    fn why_not_masked(&self) -> &'static str {
        "each device scales and rotates its update its own way, so a sum of bits is no sum of updates"
    }

    fn needs_residual(&self) -> bool {
        false
    }
}

/// The code of the centroid next to `v`: comparisons with the middles between neighbours.
fn nearest(v: f32, centroids: &[f32]) -> i64 {
    let magnitude = v.abs();
    let level: i64 = centroids.windows(2).map(|pair| i64::from(magnitude > (pair[0] + pair[1]) * 0.5)).sum();
    if v < 0.0 { -1 - level } else { level }
}

/// `times` each centroid, by the low four bits of its code.
fn table(centroids: &[f32], times: f32) -> [f32; 16] {
    let mut table = [0.0; 16];
    for (level, c) in centroids.iter().enumerate() {
        table[level] = times * c;
        table[15 - level] = -(times * c);
    }
    table
}

fn at(table: &[f32; 16], code: i64) -> f32 {
    table[(code & 15) as usize]
}
