//! What stored blocks mean: the specification that everything faster is compared with.
//!
//! Layouts are those of GGUF files (ggml's `block_*` structures). In words: the `_0` kinds have one half-precision scale
//! `d` a block and values around zero, the `_1` kinds a scale and an offset; the `_K` kinds cut 256 weights into
//! sub-blocks of 16 or 32 whose small integer scales are multiplied by `d`.

use super::Kind;
use super::half::{bf16_to_f32, f16_to_f32};

fn half(bytes: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// Weights of whole blocks. `out` has one place for each.
///
/// # Panics
/// If the lengths do not fit each other.
pub fn dequantise(kind: Kind, blocks: &[u8], out: &mut [f32]) {
    assert_eq!(kind.row_bytes(out.len()), Some(blocks.len()), "bytes of {} weights in {kind}", out.len());
    for (block, out) in blocks.chunks_exact(kind.bytes()).zip(out.chunks_exact_mut(kind.columns())) {
        match kind {
            Kind::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            Kind::F16 => out[0] = half(block, 0),
            Kind::BF16 => out[0] = bf16_to_f32(u16::from_le_bytes([block[0], block[1]])),
            Kind::Q4_0 => nibbles(half(block, 0), -8, 0.0, &block[2..], None, out),
            Kind::Q4_1 => nibbles(half(block, 0), 0, half(block, 2), &block[4..], None, out),
            Kind::Q5_0 => nibbles(half(block, 0), -16, 0.0, &block[6..], Some(&block[2..6]), out),
            Kind::Q5_1 => nibbles(half(block, 0), 0, half(block, 2), &block[8..], Some(&block[4..8]), out),
            Kind::Q8_0 => {
                let d = half(block, 0);
                out.iter_mut().zip(&block[2..]).for_each(|(w, q)| *w = d * f32::from(*q as i8));
            }
            Kind::Q2_K => q2_k(block, out),
            Kind::Q3_K => q3_k(block, out),
            Kind::Q4_K => q45_k(block, &block[16..144], None, out),
            Kind::Q5_K => q45_k(block, &block[48..176], Some(&block[16..48]), out),
            Kind::Q6_K => q6_k(block, out),
        }
    }
}

/// 32 weights: column i in the low nibble of byte i, column i + 16 in its high one; bit i of `fifth` is column i's.
fn nibbles(d: f32, offset: i32, m: f32, low: &[u8], fifth: Option<&[u8]>, out: &mut [f32]) {
    for (i, w) in out.iter_mut().enumerate() {
        let nibble = if i < 16 { low[i] & 15 } else { low[i - 16] >> 4 };
        let bit = fifth.map_or(0, |bits| bits[i / 8] >> (i % 8) & 1);
        *w = d * (i32::from(nibble | bit << 4) + offset) as f32 + m;
    }
}

/// The j-th of eight six-bit scales and of eight six-bit minima, as packed in the 12 bytes of Q4_K and Q5_K.
pub(super) fn six_bits(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    }
}

/// d, dmin, 12 bytes of scales; 64 columns share 32 bytes, the first half in low nibbles.
fn q45_k(block: &[u8], low: &[u8], fifth: Option<&[u8]>, out: &mut [f32]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = six_bits(&block[4..16], j);
        for (i, w) in out.iter_mut().enumerate() {
            let byte = low[j / 2 * 32 + i];
            let nibble = if j % 2 == 0 { byte & 15 } else { byte >> 4 };
            let bit = fifth.map_or(0, |bits| bits[i] >> j & 1);
            *w = d * f32::from(scale) * f32::from(nibble | bit << 4) - dmin * f32::from(min);
        }
    }
}

/// 128 bytes of low nibbles, 64 of upper bit pairs, 16 signed scales, d. Sub-blocks of 16.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&block[..128], &block[128..192], &block[192..208], half(block, 208));
    for (column, w) in out.iter_mut().enumerate() {
        *w = d * f32::from(scales[column / 16] as i8) * (i32::from(q6_value(low, high, column)) - 32) as f32;
    }
}

pub(super) fn q6_value(low: &[u8], high: &[u8], column: usize) -> u8 {
    let (half, quarter, i) = (column / 128, column % 128 / 32, column % 32);
    let byte = low[half * 64 + quarter % 2 * 32 + i];
    let nibble = if quarter < 2 { byte & 15 } else { byte >> 4 };
    nibble | (high[half * 32 + i] >> (2 * quarter) & 3) << 4
}

/// 16 bytes of scale (low nibble) and minimum (high nibble), 64 bytes of bit pairs, d, dmin. Sub-blocks of 16.
fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, pairs) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half(block, 80), half(block, 82));
    for (column, w) in out.iter_mut().enumerate() {
        let scale = scales[column / 16];
        let value = pair(pairs, column);
        *w = d * f32::from(scale & 15) * f32::from(value) - dmin * f32::from(scale >> 4);
    }
}

/// Two bits of a column: 128 columns share 32 bytes, a bit pair for each 32 of them.
pub(super) fn pair(pairs: &[u8], column: usize) -> u8 {
    pairs[column / 128 * 32 + column % 32] >> (column % 128 / 32 * 2) & 3
}

/// 32 bytes of upper bits (a clear one subtracts 4), 64 bytes of bit pairs, 12 bytes of scales, d. Sub-blocks of 16.
fn q3_k(block: &[u8], out: &mut [f32]) {
    let (upper, pairs, scales, d) = (&block[..32], &block[32..96], &block[96..108], half(block, 108));
    for (column, w) in out.iter_mut().enumerate() {
        let bit = upper[column % 32] >> (column / 32) & 1;
        let value = i32::from(pair(pairs, column)) + 4 * i32::from(bit) - 4;
        *w = d * f32::from(q3_scale(scales, column / 16)) * value as f32;
    }
}

/// One of sixteen six-bit scales, -32 to 31: low nibbles in 8 bytes, upper pairs in 4.
pub(super) fn q3_scale(packed: &[u8], j: usize) -> i8 {
    let low = if j < 8 { packed[j] & 15 } else { packed[j - 8] >> 4 };
    let high = packed[8 + j % 4] >> (j / 4 * 2) & 3;
    (low | high << 4) as i8 - 32
}
