//! How vectors travel: exact, or smaller and not exact.
//!
//! `F32` is 4 bytes an element and gives the text of one machine, bit for bit. `F16` is half of that; `Int8` is blocks of 64
//! elements, each with the largest magnitude / 127 as f32 before it (1.06 bytes an element): blocks that narrow keep a few
//! huge elements of a vector, which language models have, from drowning all others.

use littoral_tensor::quant::half::{f16_to_f32, f32_to_f16};
use littoral_wire::pipeline::Activations;

const BLOCK: usize = 64;

/// Bytes that vectors of so many elements take, all together; a last block may be shorter.
pub fn bytes(activations: Activations, elements: usize) -> usize {
    match activations {
        Activations::F32 => 4 * elements,
        Activations::F16 => 2 * elements,
        Activations::Int8 => elements + 4 * elements.div_ceil(BLOCK),
    }
}

/// Does a text stay as it is on one machine?
pub fn is_exact(activations: Activations) -> bool {
    activations == Activations::F32
}

pub fn encode(activations: Activations, vectors: &[f32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes(activations, vectors.len()));
    match activations {
        Activations::F32 => vectors.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Activations::F16 => vectors.iter().for_each(|x| out.extend_from_slice(&f32_to_f16(*x).to_le_bytes())),
        Activations::Int8 => {
            for block in vectors.chunks(BLOCK) {
                let scale = block.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0;
                out.extend_from_slice(&scale.to_le_bytes());
                let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                out.extend(block.iter().map(|x| (x * inverse).round().clamp(-127.0, 127.0) as i8 as u8));
            }
        }
    }
    out
}

/// `None`: these are not so many elements.
pub fn decode(activations: Activations, encoded: &[u8], elements: usize) -> Option<Vec<f32>> {
    if encoded.len() != bytes(activations, elements) {
        return None;
    }
    let four = |chunk: &[u8]| f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    Some(match activations {
        Activations::F32 => encoded.chunks_exact(4).map(four).collect(),
        Activations::F16 => encoded.chunks_exact(2).map(|x| f16_to_f32(u16::from_le_bytes([x[0], x[1]]))).collect(),
        Activations::Int8 => {
            let mut vectors = Vec::with_capacity(elements);
            for block in encoded.chunks(4 + BLOCK) {
                let (scale, levels) = block.split_at(4);
                let scale = four(scale);
                vectors.extend(levels.iter().map(|level| f32::from(*level as i8) * scale));
            }
            vectors
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_survive_as_far_as_they_may() {
        let vectors: Vec<f32> = (0..200).map(|i| ((i * 37) % 101) as f32 / 13.0 - 3.0).collect();
        for (activations, most) in
            [(Activations::F32, 0.0), (Activations::F16, 2e-3), (Activations::Int8, 0.5 / 127.0 * 4.8)]
        {
            let encoded = encode(activations, &vectors);
            assert_eq!(encoded.len(), bytes(activations, 200));
            let decoded = decode(activations, &encoded, 200).unwrap();
            let worst = vectors.iter().zip(&decoded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= most, "{activations:?}: {worst}");
            assert_eq!(decode(activations, &encoded[1..], 200), None);
            assert_eq!(decode(activations, &encoded, 201), None);
        }
        assert_eq!(encode(Activations::F32, &[f32::NAN, -0.0])[..4], f32::NAN.to_le_bytes());
    }

    /// One element of 60 times the size of the others: what is left of those (ALGORITHMS, E.7: 12.9 % with one scale for all
    /// 4096, 1.7 % with blocks of 64).
    #[test]
    fn a_huge_element_spoils_its_block_only() {
        let mut seed = 7u64;
        let mut draw = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // The sum of a few uniforms is normal enough.
            (0..6).map(|i| ((seed >> (8 * i + 8)) & 255) as f32 / 128.0 - 1.0).sum::<f32>() / 1.4
        };
        let mut vectors: Vec<f32> = (0..4096).map(|_| draw()).collect();
        vectors[100] = 60.0;
        let decoded = decode(Activations::Int8, &encode(Activations::Int8, &vectors), 4096).unwrap();
        let others = || vectors.iter().zip(&decoded).enumerate().filter(|(i, _)| *i != 100).map(|(_, pair)| pair);
        let error = others().map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        let size = others().map(|(a, _)| f64::from(*a).powi(2)).sum::<f64>();
        assert!((error / size).sqrt() < 0.03, "{}", (error / size).sqrt());
    }
}
