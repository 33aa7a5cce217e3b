//! What it costs to carry vectors between machines in fewer bits: tried on a text before anybody is answered, by a machine that
//! has the whole file. Layers are loaded a few at a time, so that it takes little memory beside both ends.

use super::encoding;
use crate::model::{Model, ModelError};
use crate::pass::{Pass, Piece, Runner, Slot, Tokens};
use littoral_model::lm::{CacheType, Stage, StateError, Wanted};
use littoral_tensor::pool::Pool;
use littoral_wire::pipeline::Activations;
use std::fmt;
use std::ops::Range;
use thiserror::Error;

/// A mean divergence above this is refused: about what a model loses that is stored in half a bit less per weight.
pub const DIVERGENCE_MAX: f64 = 0.01;
/// Layers that are in memory at once.
const LAYERS: usize = 4;
const TOKENS_MAX: usize = 96;
const TEXT: &str = "The tide comes in twice a day, and the harbour knows it. def area(width, height):\n    return width * height\n\n\
    {\"name\": \"Ada\", \"tides\": [3.2, 4.1], \"open\": true}\nWhat is the capital of Norway? Oslo. 17 + 25 = 42, and twice that is 84.";

/// How far the next token's distribution moves, over the tokens of the probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Certificate {
    pub activations: Activations,
    pub tokens: usize,
    /// Times that vectors go from one machine to another.
    pub hops: usize,
    /// Kullback-Leibler, of the exact distribution from the other, in nats.
    pub divergence_mean: f64,
    pub divergence_max: f64,
    /// Tokens after which the most probable next one is the same.
    pub same: usize,
}

impl Certificate {
    pub fn holds(&self) -> bool {
        self.divergence_mean <= DIVERGENCE_MAX
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, hops, divergence_mean, divergence_max, same, .. } = self;
        write!(
            f,
            "over {hops} hops a mean divergence of {divergence_mean:.6} nats, {divergence_max:.4} at most; the same first choice \
             after {same} of {tokens} tokens"
        )
    }
}

#[derive(Debug, Error)]
pub enum CertifyError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the probe: {0}")]
    Probe(String),
}

/// Sends a text through all layers twice, once exactly and once as it would travel over `machines` machines beside the head.
/// `ends`: both ends of the model; `load`: some of its layers.
pub fn certify(
    ends: &Model,
    load: &mut dyn FnMut(Range<usize>) -> Result<Stage, ModelError>,
    activations: Activations,
    machines: usize,
    pool: &Pool,
) -> Result<Certificate, CertifyError> {
    let mut ids = ends.tokeniser.encode_document(TEXT, false);
    ids.truncate(TOKENS_MAX.min(ends.context()));
    let (layers, tokens) = (ends.stage.config().layers, ids.len());
    let pass = |slot| Pass {
        pieces: vec![Piece { slot: Slot(slot), start: 0, tokens, wanted: Wanted::None }],
        ..Pass::default()
    };
    let probe = |e: crate::pass::PassError| CertifyError::Probe(e.to_string());
    let mut outer = Runner::new(&ends.stage, CacheType::F16)?;
    let mut exact = outer.run(&ends.stage, &pass(0), Tokens::Ids(&ids), pool).map_err(probe)?.to_vec();
    let travel = |vectors: Vec<f32>| {
        let encoded = encoding::encode(activations, &vectors);
        encoding::decode(activations, &encoded, vectors.len()).unwrap_or(vectors)
    };
    // The head's own layers come first, and the last machine's vectors come back to it.
    let (mut coded, mut hops) = (exact.clone(), 0);
    let parts = machines + 1;
    for part in (0..parts).map(|at| layers * at / parts..layers * (at + 1) / parts) {
        for start in part.clone().step_by(LAYERS) {
            let stage = load(start..part.end.min(start + LAYERS))?;
            let mut runner = Runner::new(&stage, CacheType::F16)?;
            exact = runner.run(&stage, &pass(0), Tokens::Vectors(&exact), pool).map_err(probe)?.to_vec();
            coded = runner.run(&stage, &pass(1), Tokens::Vectors(&coded), pool).map_err(probe)?.to_vec();
        }
        coded = travel(coded);
        hops += 1;
    }
    let exact = outer.logits(&ends.stage, &exact, pool).to_vec();
    let coded = outer.logits(&ends.stage, &coded, pool);
    let vocabulary = ends.stage.config().vocabulary;
    let (mut sum, mut most, mut same) = (0.0, 0f64, 0);
    for (p, q) in exact.chunks(vocabulary).zip(coded.chunks(vocabulary)) {
        let divergence = divergence(p, q);
        sum += divergence;
        most = most.max(divergence);
        same += usize::from(best(p) == best(q));
    }
    let divergence_mean = if tokens == 0 { 0.0 } else { sum / tokens as f64 };
    Ok(Certificate { activations, tokens, hops, divergence_mean, divergence_max: most, same })
}

fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]))
}

/// Of two distributions by their logits.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p, q) = (log_softmax(p), log_softmax(q));
    let sum: f64 = p.iter().zip(&q).map(|(p, q)| libm::exp(*p) * (p - q)).sum();
    // Not less than 0, but for rounding.
    sum.max(0.0)
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|x| libm::exp(f64::from(*x) - most)).sum();
    let log = most + libm::log(sum);
    logits.iter().map(|x| f64::from(*x) - log).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_of_known_distributions() {
        let logits = |p: [f64; 2]| p.map(|p| p.ln() as f32 + 3.0);
        // 0.5 ln(0.5 / 0.9) + 0.5 ln(0.5 / 0.1).
        let expected = 0.5 * (0.5f64 / 0.9).ln() + 0.5 * (0.5f64 / 0.1).ln();
        let got = divergence(&logits([0.5, 0.5]), &logits([0.9, 0.1]));
        // Logits are f32.
        assert!((got - expected).abs() < 1e-6, "{got}");
        assert_eq!(divergence(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        assert_eq!(best(&[0.0, 3.0, -1.0]), Some(1));
    }
}
