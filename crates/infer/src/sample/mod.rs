//! From logits to a token.
//!
//! # The order of the chain
//!
//! 1. **penalties**: repetition, then frequency and presence ([`SamplingParams`] says over which tokens);
//! 2. **bias**, then the mask of allowed tokens: after the penalties, because the repetition penalty multiplies, and a
//!    bias of +5 should be +5 whatever was said before;
//! 3. **temperature**; 0 means: take the highest logit now, the rest is skipped;
//! 4. **top-k**;
//! 5. **typical**;
//! 6. **top-p**;
//! 7. **min-p**;
//! 8. **draw**.
//!
//! Each filter sees the distribution that the one before left, made to sum to 1 again.
//!
//! llama.cpp's default order is the same (penalties, top-k, typical, top-p, min-p), except that it applies the
//! temperature *last*. There top-p cuts the model's own distribution, and a high temperature then spreads over what is
//! left. We apply it first, as OpenAI's API, vLLM and Hugging Face's `transformers` do: `top_p = 0.9` then means 90 % of
//! the distribution that is drawn from, and clients of an OpenAI-compatible server get what they would get elsewhere.
//! For top-k alone the two orders agree, since a temperature changes no rank.
//!
//! # The same bits everywhere
//!
//! The draw is a race: token v has an exponential clock of rate p(v), and the first to ring wins, which happens with
//! probability p(v). This is the Gumbel-max form argmax(log p + G) with G = -log E, spared one logarithm per token.
//! The clock of v depends on (seed, position, v) and on nothing else ([`Noise`]), so a token's draw does not depend on
//! how many were drawn before, in what order, or on which machine: a draft and its verifier that share a seed agree
//! exactly where their distributions do, and the verified text is the text of plain decoding.
//!
//! Sums of probabilities decide where top-p and typical cut. They are sums of integers ([`littoral_tensor::weights`]), so no order of
//! summation, no vector width and no version of a sorting routine moves a cut.

mod chain;
mod draw;
mod filters;
mod logprobs;
mod mask;
mod noise;
mod params;
mod penalties;
mod rank;
mod sampler;
pub mod stop;

pub use logprobs::{LogProbs, TokenLogProb};
pub use mask::TokenMask;
pub use noise::{Noise, Purpose};
pub use params::{ParamsError, SamplingParams};
pub use sampler::{Choice, History, SampleError, Sampler};
