//! The sampler: parameters, a position, and room that is used again.

use super::chain::Chain;
use super::filters::{by_weight, sum};
use super::logprobs::LogProbs;
use super::mask::TokenMask;
use super::noise::Noise;
use super::params::{ParamsError, SamplingParams};
use super::penalties::Penalties;
use super::rank::highest;
use littoral_tensor::weights::mass;

/// The tokens before the one to choose. Penalties look at it, and nothing else does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History<'a> {
    pub prompt: &'a [u32],
    pub answer: &'a [u32],
}

impl History<'_> {
    /// The last `window` tokens of prompt and answer.
    pub(super) fn last(&self, window: usize) -> impl Iterator<Item = u32> {
        self.prompt.iter().chain(self.answer).rev().take(window).copied()
    }

    pub(super) fn check(&self, vocabulary: usize) -> Result<(), SampleError> {
        match self.prompt.iter().chain(self.answer).find(|&&id| id as usize >= vocabulary) {
            Some(&id) => Err(SampleError::HistoryOutside { id, vocabulary }),
            None => Ok(()),
        }
    }
}

/// A chosen token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    pub id: u32,
    /// Natural logarithm, under the model's own distribution: before penalties, temperature and filters.
    pub logprob: f32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    #[error("no token can be chosen: none of {vocabulary} logits is a number above minus infinity")]
    NoCandidate { vocabulary: usize },
    #[error("the logit of token {id} is infinite")]
    Infinite { id: u32 },
    #[error("the history holds token {id}, but the vocabulary has {vocabulary} tokens")]
    HistoryOutside { id: u32, vocabulary: usize },
    #[error("logit_bias names token {id}, but the vocabulary has {vocabulary} tokens")]
    BiasOutside { id: u32, vocabulary: usize },
    #[error("the mask is for {mask} tokens, but the vocabulary has {vocabulary}")]
    MaskLength { mask: usize, vocabulary: usize },
}

/// Chooses one token after another.
///
/// All that a sampler knows is its parameters and its position, the index in the answer of the next token; a generation
/// that moves to another machine takes these and its history along, and goes on with [`Sampler::resume`]. To fork one,
/// clone it.
pub struct Sampler {
    params: SamplingParams,
    position: u64,
    penalties: Penalties,
    chain: Chain,
}

impl Clone for Sampler {
    /// Without the room for intermediate results, which holds nothing between two calls.
    fn clone(&self) -> Self {
        Self {
            params: self.params.clone(),
            position: self.position,
            penalties: Penalties::default(),
            chain: Chain::default(),
        }
    }
}

impl Sampler {
    pub fn new(params: SamplingParams) -> Result<Self, ParamsError> {
        Self::resume(params, 0)
    }

    /// A sampler whose next token is at `position` of the answer.
    pub fn resume(params: SamplingParams, position: u64) -> Result<Self, ParamsError> {
        params.validate()?;
        Ok(Self { params, position, penalties: Penalties::default(), chain: Chain::default() })
    }

    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    /// Moves to another position: back when a draft was refused, forward when tokens were forced.
    pub fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// Chooses the token at this position and moves to the next. After an error the position is as before.
    pub fn sample(&mut self, logits: &[f32], history: History<'_>) -> Result<Choice, SampleError> {
        self.sample_allowed(logits, history, None)
    }

    /// The same among the tokens of a mask.
    pub fn sample_allowed(
        &mut self,
        logits: &[f32],
        history: History<'_>,
        allowed: Option<&TokenMask>,
    ) -> Result<Choice, SampleError> {
        let id = self.pick(logits, history, allowed)?;
        Ok(Choice { id, logprob: LogProbs::of(logits).get(id) })
    }

    /// The same token without its log-probability, which costs a pass over the vocabulary of its own.
    pub fn pick(
        &mut self,
        logits: &[f32],
        history: History<'_>,
        allowed: Option<&TokenMask>,
    ) -> Result<u32, SampleError> {
        let logits = self.penalties.apply(&self.params, logits, history, allowed)?;
        let highest = finite_highest(logits)?;
        let id = if self.params.temperature == 0.0 {
            first(logits, highest)
        } else {
            self.chain.draw(&self.params, logits, highest, Noise::new(self.params.seed, self.position))
        };
        let id = id.ok_or(SampleError::NoCandidate { vocabulary: logits.len() })?;
        self.position += 1;
        Ok(id)
    }

    /// What the next token would be drawn from: ids with their probabilities, the most probable first. For greedy one
    /// id with probability 1. The position stays.
    pub fn distribution(
        &mut self,
        logits: &[f32],
        history: History<'_>,
        allowed: Option<&TokenMask>,
    ) -> Result<Vec<(u32, f64)>, SampleError> {
        let logits = self.penalties.apply(&self.params, logits, history, allowed)?;
        let highest = finite_highest(logits)?;
        if self.params.temperature == 0.0 {
            return Ok(first(logits, highest).map(|id| (id, 1.0)).into_iter().collect());
        }
        let survivors = self.chain.survivors(&self.params, logits, highest);
        survivors.sort_unstable_by(by_weight);
        let total = sum(survivors) as f64;
        Ok(survivors.iter().map(|c| (c.id, mass(c.weight) as f64 / total)).collect())
    }
}

fn finite_highest(logits: &[f32]) -> Result<f32, SampleError> {
    match highest(logits) {
        f32::NEG_INFINITY => Err(SampleError::NoCandidate { vocabulary: logits.len() }),
        f32::INFINITY => Err(SampleError::Infinite { id: first(logits, f32::INFINITY).unwrap_or(0) }),
        highest => Ok(highest),
    }
}

/// The lowest id with this logit.
fn first(logits: &[f32], wanted: f32) -> Option<u32> {
    logits.iter().position(|&logit| logit == wanted).map(|id| id as u32)
}
