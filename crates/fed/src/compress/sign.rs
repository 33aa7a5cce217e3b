//! Signs and a mean magnitude: Bernstein et al. 2018, "signSGD" (ICML); scaled and with error feedback Karimireddy et al.
//! 2019, "Error Feedback Fixes SignSGD and other Gradient Compression Schemes" (ICML), algorithm 1.
//!
//! C(p) = ‖p‖₁/d · sign(p) per block of 4,096 coordinates, sign(0) = 1. A contraction: ‖p − C(p)‖² = ‖p‖² − ‖p‖₁²/d, and
//! ‖C(p)‖ = ‖p‖₁/√d ≤ ‖p‖ (lemma 8 there). Biased: small coordinates are told as large as large ones, always in the same
//! way, so without a residual it may go to the wrong place and stay there (their counter-example is a test here).

use super::random::Seed;
use super::{BLOCK, Codec, CompressError, Sink, ended, finite, scale, take};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sign;

impl Codec for Sign {
    fn name(&self) -> &'static str {
        "sign"
    }

    fn bytes_max(&self, len: usize) -> usize {
        4 * len.div_ceil(BLOCK) + len.div_ceil(8)
    }

    fn encode(&self, x: &[f32], _: &Seed, out: &mut Vec<u8>) -> Result<(), CompressError> {
        finite(x)?;
        for block in x.chunks(BLOCK) {
            let mean = block.iter().map(|v| f64::from(v.abs())).sum::<f64>() / block.len() as f64;
            // Cut and not rounded, so that the norm does not grow.
            let nearest = mean as f32;
            let scale = if f64::from(nearest) > mean { nearest.next_down() } else { nearest };
            out.extend_from_slice(&scale.to_le_bytes());
            out.extend(
                block
                    .chunks(8)
                    .map(|group| group.iter().enumerate().fold(0, |byte, (i, v)| byte | u8::from(*v < 0.0) << i)),
            );
        }
        Ok(())
    }

    fn decode(&self, len: usize, mut bytes: &[u8], sink: Sink<'_>) -> Result<(), CompressError> {
        let mut values = [0f32; BLOCK];
        for start in (0..len).step_by(BLOCK) {
            let values = &mut values[..BLOCK.min(len - start)];
            let scale = scale(take(&mut bytes, 4)?.try_into().unwrap_or_default(), 1.0)?;
            let signs = take(&mut bytes, values.len().div_ceil(8))?;
            for (group, &byte) in values.chunks_mut(8).zip(signs) {
                for (i, v) in group.iter_mut().enumerate() {
                    *v = if byte >> i & 1 == 1 { -scale } else { scale };
                }
                if byte as usize >> group.len() != 0 {
                    return Err(CompressError::Value { what: "a filling of", allowed: "0", got: byte.to_string() });
                }
            }
            sink(values)?;
        }
        ended(bytes)
    }

    fn l2_bound(&self, before: f64, _: usize) -> Option<f64> {
        // The mean is a sum of f64s, each addition within 2^-53 of it.
        Some(before * (1.0 + BLOCK as f64 * 2f64.powi(-53)))
    }

    fn why_not_masked(&self) -> &'static str {
        "each device's signs have a magnitude of its own, so a sum of signs is no sum of updates"
    }

    fn needs_residual(&self) -> bool {
        true
    }
}
