//! What becomes of the sums of a private job before the algorithm sees them: noise, if devices added none; back from the
//! rotation, if they rotated; to this version's clip, if it follows the updates.
//!
//! Block by block, in order, each once.

use super::apply::refused;
use super::{WorkFault, local};
use crate::job::JobSpec;
use crate::role::Entropy;
use littoral_fed::dp::{ClipBit, Correlated, Noise};
use littoral_privacy::noise::DiscreteGaussian;
use littoral_privacy::noise::matrix::{Decoder, Encoder};
use littoral_privacy::rotate::Rotation;
use littoral_wire::message::Collection;
use rand_chacha::ChaCha20Rng;

pub struct Private<'a> {
    added: Added<'a>,
    generator: ChaCha20Rng,
    /// Where devices rotated what they sent.
    rotation: Option<Rotation>,
    clip: Option<Clip>,
    /// Coordinates of a sketch, and their sum as it was sent.
    sketched: usize,
    sketch: Vec<f64>,
}

/// What is added here.
enum Added<'a> {
    /// Devices did.
    Nothing,
    White(Box<DiscreteGaussian>),
    Correlated {
        noise: &'a Correlated,
        begins: bool,
    },
}

/// A clip that follows the updates.
struct Clip {
    bit: ClipBit,
    /// Of this version.
    now: f32,
    /// The sum of bits as they were sent.
    bits: f64,
}

impl<'a> Private<'a> {
    /// `clip`: the version's, if it has one of its own.
    pub fn new(
        noise: &'a Noise,
        spec: &JobSpec,
        collection: Collection,
        clip: Option<f32>,
        entropy: &Entropy,
    ) -> Result<Self, WorkFault> {
        let added = match (&noise.correlated, noise.central_variance()) {
            (Some(noise), _) => Added::Correlated { noise, begins: noise.begins(collection.version) },
            (None, Some(variance)) => Added::White(Box::new(DiscreteGaussian::new(variance).map_err(refused)?)),
            (None, None) => Added::Nothing,
        };
        let clip = noise.bit.zip(clip).map(|(bit, now)| {
            let now = bit.check(now).map_err(refused)?;
            Ok::<_, WorkFault>(Clip { bit, now, bits: 0.0 })
        });
        Ok(Self {
            added,
            generator: entropy.generator("noise on the sum"),
            rotation: noise.on_devices().then(|| local::rotation(spec, collection)),
            clip: clip.transpose()?,
            sketched: noise.sketch.map_or(0, |sketch| sketch.bins),
            sketch: Vec::new(),
        })
    }

    /// Coordinates of the sum behind those of the model.
    pub fn appended(&self) -> usize {
        usize::from(self.clip.is_some()) + self.sketched
    }

    /// White noise, for sums of whole numbers that go another way.
    pub fn add_noise(&mut self, words: &mut [i64]) {
        if let Added::White(noise) = &self.added {
            noise.add_to(words, &mut self.generator);
        }
    }

    /// The words of the coordinates from `first` on, as they were summed, become `sum`. `memory`: what correlated noise remembers of
    /// these coordinates, and then what it is to remember. In the last block there are [`Private::appended`] more words.
    pub fn block(
        &mut self,
        first: usize,
        len: usize,
        words: &mut [i64],
        memory: &mut [u8],
        sum: &mut Vec<f64>,
    ) -> Result<(), WorkFault> {
        sum.clear();
        match &self.added {
            Added::Correlated { noise, begins } => {
                *sum = correlated(noise, *begins, words, memory, &mut self.generator)?;
            }
            Added::White(noise) => {
                noise.add_to(words, &mut self.generator);
                sum.extend(words.iter().map(|&word| word as f64));
            }
            Added::Nothing => sum.extend(words.iter().map(|&word| word as f64)),
        }
        if let Some(rotation) = &self.rotation {
            let mut narrow: Vec<f32> = sum.iter().map(|&sum| sum as f32).collect();
            rotation.inverse_from(first, &mut narrow);
            sum.iter_mut().zip(narrow).for_each(|(sum, narrow)| *sum = narrow.into());
        }
        if self.sketched > 0 {
            self.sketch.extend(sum.drain(len..));
        }
        if let Some(clip) = &mut self.clip {
            clip.bits += sum.drain(len..).sum::<f64>();
            let scale = f64::from(clip.now) / f64::from(clip.bit.clip);
            sum.iter_mut().for_each(|sum| *sum *= scale);
        }
        Ok(())
    }

    /// The sum of sketches with its noise, in steps as they were sent; empty without one.
    pub fn sketch(&self) -> &[f64] {
        &self.sketch
    }

    /// The next version's clip. `step`: of the sum; `devices`: what it is divided by.
    pub fn next_clip(&self, step: f64, devices: f64) -> Option<f32> {
        self.clip.as_ref().map(|clip| clip.bit.next(clip.now, clip.bits * step, devices))
    }
}

/// The last sums, 8 bytes for each coordinate, then the last results; each the newest first.
fn correlated(
    noise: &Correlated,
    begins: bool,
    words: &[i64],
    memory: &mut [u8],
    generator: &mut ChaCha20Rng,
) -> Result<Vec<f64>, WorkFault> {
    let row = 8 * words.len();
    let (sums, results) = memory.split_at_mut(memory.len() / 2);
    // At a beginning nothing is remembered.
    let kept = if begins { 0 } else { noise.matrix.bands() - 1 };
    let eights = |row: &[u8]| row.as_chunks::<8>().0.to_vec();
    let past_sums = sums.chunks_exact(row.max(1)).take(kept);
    let past_sums: Vec<Vec<i64>> =
        past_sums.map(|row| eights(row).into_iter().map(i64::from_le_bytes).collect()).collect();
    let past_results = results.chunks_exact(row.max(1)).take(kept);
    let past_results: Vec<Vec<f64>> =
        past_results.map(|row| eights(row).into_iter().map(f64::from_le_bytes).collect()).collect();
    let encoder = Encoder::new(noise.matrix.clone(), noise.variance, words.len());
    let mut encoder = encoder.and_then(|encoder| encoder.after(past_sums)).map_err(refused)?;
    let mut decoder = Decoder::new(noise.matrix.clone()).after(past_results, words.len()).map_err(refused)?;
    let released = encoder.release(words, generator).map_err(refused)?;
    let result = decoder.round(&released);
    sums.fill(0);
    results.fill(0);
    for (row, past) in sums.chunks_exact_mut(row.max(1)).zip(encoder.past()) {
        row.as_chunks_mut::<8>().0.iter_mut().zip(past).for_each(|(eight, value)| *eight = value.to_le_bytes());
    }
    for (row, past) in results.chunks_exact_mut(row.max(1)).zip(decoder.past()) {
        row.as_chunks_mut::<8>().0.iter_mut().zip(past).for_each(|(eight, value)| *eight = value.to_le_bytes());
    }
    Ok(result)
}
