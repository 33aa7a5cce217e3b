//! Top-k: the k coordinates of largest magnitude. Stich et al. 2018, "Sparsified SGD with Memory" (NeurIPS), definition 2.1;
//! with equal magnitudes Sattler et al. 2019, "Robust and Communication-Efficient Federated Learning from Non-IID Data"
//! (sparse ternary compression), algorithm 1.
//!
//! ‖x − top_k(x)‖² ≤ (1 − k/d) ‖x‖²: a contraction, to be used with a residual. Where they are travels as gaps through the
//! range coder: the gap's length in bits, its next two bits, then the rest as they are. What they are, as [`Values`] says.
//!
//! Of equal magnitudes the earlier coordinate goes first, so a vector has one top-k on every machine.

use super::entropy::{Decoder, Encoder, Frequencies};
use super::random::{Draws, Seed};
use super::randomk::{ppm, share};
use super::{BLOCK, Codec, CompressError, Sink, finite};

/// What is told of a kept coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Its sign; all have their mean magnitude: still a contraction, of the kept part too.
    Signs,
    /// Its sign and its magnitude in this many bits, 2 to 8, rounded by chance between 0 and the largest.
    Bits(u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopK {
    kept_ppm: u32,
    values: Values,
}

impl TopK {
    /// `kept`: the share of coordinates, 1e-6 to 1, in millionths.
    pub fn new(kept: f32, values: Values) -> Result<Self, CompressError> {
        match values {
            Values::Signs | Values::Bits(2..=8) => Ok(Self { kept_ppm: ppm(kept)?, values }),
            Values::Bits(bits) => {
                Err(CompressError::Setting { field: "bits", allowed: "2 to 8", got: bits.to_string() })
            }
        }
    }

    pub fn k(&self, len: usize) -> usize {
        share(len, self.kept_ppm)
    }
}

/// Indices of the k largest magnitudes that are not zero, ascending: at most k.
pub fn largest(x: &[f32], k: usize) -> Vec<usize> {
    // Magnitudes of finite floats are in the order of their bits. Largest first, then the earliest.
    let rank = |i: &usize| (std::cmp::Reverse(x[*i].abs().to_bits()), *i);
    let mut kept: Vec<usize> = (0..x.len()).filter(|&i| x[i] != 0.0).collect();
    if k < kept.len() {
        kept.select_nth_unstable_by_key(k, rank);
        kept.truncate(k);
    }
    kept.sort_unstable();
    kept
}

/// Both sides' counts for gaps.
struct Gaps {
    lengths: Frequencies,
    next: Vec<Frequencies>,
}

impl Gaps {
    fn new() -> Self {
        Self { lengths: Frequencies::new(32), next: vec![Frequencies::new(4); 32] }
    }

    /// `gap` ≥ 1, below 2^32.
    fn put(&mut self, gap: u32, encoder: &mut Encoder<'_>) {
        let length = gap.ilog2();
        let split = length.saturating_sub(2);
        encoder.symbol(length as usize, &mut self.lengths);
        let next = (gap ^ 1 << length) >> split;
        encoder.symbol(next as usize, &mut self.next[length as usize]);
        encoder.raw(gap, split);
    }

    fn take(&mut self, decoder: &mut Decoder<'_>) -> Result<u32, CompressError> {
        let length = decoder.symbol(&mut self.lengths)? as u32;
        let split = length.saturating_sub(2);
        let next = decoder.symbol(&mut self.next[length as usize])? as u32;
        // Two bits where the length has only one or none: no encoder writes it.
        if next >> (length - split) != 0 {
            return Err(CompressError::Value {
                what: "a gap's bits",
                allowed: "as many as it has",
                got: next.to_string(),
            });
        }
        Ok(1 << length | next << split | decoder.raw(split)?)
    }
}

impl Codec for TopK {
    fn name(&self) -> &'static str {
        match self.values {
            Values::Signs => "top-k, signs",
            Values::Bits(_) => "top-k",
        }
    }

    fn bytes_max(&self, len: usize) -> usize {
        // Count and scale; per coordinate two symbols of at most 16 bits, 30 raw bits, a sign and a code of at most 16 bits.
        4 + 4 + 4 + self.k(len) * 10
    }

    fn encode(&self, x: &[f32], seed: &Seed, out: &mut Vec<u8>) -> Result<(), CompressError> {
        finite(x)?;
        if x.len() > u32::MAX as usize {
            return Err(CompressError::Shape { what: "coordinates", expected: u32::MAX as usize, got: x.len() });
        }
        let kept = largest(x, self.k(x.len()));
        let scale = match self.values {
            // Cut to f32, so that the norm does not grow.
            Values::Signs => {
                let mean = kept.iter().map(|&i| f64::from(x[i].abs())).sum::<f64>() / kept.len().max(1) as f64;
                let nearest = mean as f32;
                if f64::from(nearest) > mean { nearest.next_down() } else { nearest }
            }
            Values::Bits(_) => kept.iter().map(|&i| x[i].abs()).fold(0.0, f32::max),
        };
        let mut draws = Draws::new(seed);
        let (mut encoder, mut gaps) = (Encoder::new(out), Gaps::new());
        encoder.raw(kept.len() as u32, 32);
        encoder.raw(scale.to_bits(), 32);
        let mut levels = self.levels();
        let mut after = 0;
        for i in kept {
            gaps.put((i - after + 1) as u32, &mut encoder);
            after = i + 1;
            encoder.raw(u32::from(x[i] < 0.0), 1);
            if let Some((top, counts)) = &mut levels {
                let level = draws.round(f64::from(x[i].abs()) / f64::from(scale) * f64::from(*top)).min(*top);
                encoder.symbol(level as usize, counts);
            }
        }
        encoder.finish();
        Ok(())
    }

    fn decode(&self, len: usize, bytes: &[u8], sink: Sink<'_>) -> Result<(), CompressError> {
        let (mut decoder, mut gaps) = (Decoder::new(bytes)?, Gaps::new());
        let count = decoder.raw(32)? as usize;
        if count > self.k(len) {
            let (expected, got) = (self.k(len), count);
            return Err(CompressError::Shape { what: "kept coordinates, at most", expected, got });
        }
        let scale = super::scale(decoder.raw(32)?.to_le_bytes(), 1.0)?;
        let mut levels = self.levels();
        let mut values = [0f32; BLOCK];
        // The block that is being filled begins here.
        let (mut first, mut after) = (0, 0);
        for _ in 0..count {
            let gap = gaps.take(&mut decoder)? as usize;
            let index = after + gap - 1;
            if index >= len {
                return Err(CompressError::Shape { what: "a kept coordinate below", expected: len, got: index });
            }
            after = index + 1;
            while index >= first + BLOCK {
                sink(&values)?;
                values.fill(0.0);
                first += BLOCK;
            }
            let negative = decoder.raw(1)? == 1;
            let magnitude = match &mut levels {
                None => scale,
                Some((top, counts)) => (f64::from(scale) * decoder.symbol(counts)? as f64 / f64::from(*top)) as f32,
            };
            values[index - first] = if negative { -magnitude } else { magnitude };
        }
        while first < len {
            let size = BLOCK.min(len - first);
            sink(&values[..size])?;
            values.fill(0.0);
            first += size;
        }
        decoder.finish()
    }

    fn l2_bound(&self, before: f64, len: usize) -> Option<f64> {
        // The mean is a sum of f64s, each addition within 2^-53 of it.
        (self.values == Values::Signs).then_some(before * (1.0 + self.k(len) as f64 * 2f64.powi(-53)))
    }

    fn why_not_masked(&self) -> &'static str {
        "each device keeps coordinates of its own, and which they are tells what it learnt"
    }

    fn needs_residual(&self) -> bool {
        true
    }
}

impl TopK {
    /// The highest level and the counts of levels.
    fn levels(&self) -> Option<(u32, Frequencies)> {
        match self.values {
            Values::Signs => None,
            Values::Bits(bits) => Some(((1 << bits) - 1, Frequencies::new(1 << bits))),
        }
    }
}
