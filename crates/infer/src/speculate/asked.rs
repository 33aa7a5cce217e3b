//! Between requests to an engine here and requests on the wire.

use crate::engine::{self, Finish};
use crate::model::Model;
use crate::sample::{SamplingParams, TokenLogProb};
use littoral_wire::bounded::{List, OverBound};
use littoral_wire::speculation::{Bias, Committed, Drafts, Ending, Real, Request, Sampling, TokenLogProbs, TopToken};

/// Why nothing that is drafted by a certain machine can ever be verified.
pub const OTHER_VOCABULARY: &str = "a draft model with the vocabulary of the large one expected, got another";

/// What both ends must have in common: which bytes each id stands for, and which ids end a text.
pub fn tokeniser_digest(model: &Model) -> [u8; 32] {
    let (tokeniser, mut hasher, mut bytes) = (&model.tokeniser, blake3::Hasher::new(), Vec::new());
    for id in 0..tokeniser.len() as u32 {
        bytes.clear();
        tokeniser.bytes(id, &mut bytes);
        hasher.update(&(bytes.len() as u32).to_le_bytes());
        hasher.update(&bytes);
        hasher.update(&[u8::from(tokeniser.ends(id))]);
    }
    *hasher.finalize().as_bytes()
}

/// # Errors
/// A list of it is longer than one message takes.
pub fn tell(request: &engine::Request, tokeniser: [u8; 32]) -> Result<Request, OverBound> {
    let SamplingParams {
        temperature,
        top_k,
        top_p,
        min_p,
        typical_p,
        repetition_penalty,
        repetition_window,
        frequency_penalty,
        presence_penalty,
        logit_bias,
        seed,
    } = &request.sampling;
    let bias = |(id, bias): (&u32, &f32)| Bias { id: *id, bias: Real::new(*bias) };
    Ok(Request {
        tokeniser,
        prompt: List::new(request.prompt.clone())?,
        sampling: Sampling {
            temperature: Real::new(*temperature),
            top_k: u32::try_from(*top_k).unwrap_or(u32::MAX),
            top_p: Real::new(*top_p),
            min_p: Real::new(*min_p),
            typical_p: Real::new(*typical_p),
            repetition_penalty: Real::new(*repetition_penalty),
            repetition_window: u32::try_from(*repetition_window).unwrap_or(u32::MAX),
            frequency_penalty: Real::new(*frequency_penalty),
            presence_penalty: Real::new(*presence_penalty),
            logit_bias: List::new(logit_bias.iter().map(bias).collect())?,
            seed: *seed,
        },
        max_tokens: u32::try_from(request.max_tokens).unwrap_or(u32::MAX),
        ignore_end: request.ignore_end,
        top_logprobs: request.top_logprobs.map(|count| count.min(255) as u8),
        drafts: Drafts::Ids,
    })
}

/// Ranges are the engine's to check.
pub fn hear(request: &Request) -> engine::Request {
    let Sampling { logit_bias, .. } = &request.sampling;
    let of = &request.sampling;
    engine::Request {
        prompt: request.prompt.to_vec(),
        max_tokens: request.max_tokens as usize,
        sampling: SamplingParams {
            temperature: of.temperature.get(),
            top_k: of.top_k as usize,
            top_p: of.top_p.get(),
            min_p: of.min_p.get(),
            typical_p: of.typical_p.get(),
            repetition_penalty: of.repetition_penalty.get(),
            repetition_window: of.repetition_window as usize,
            frequency_penalty: of.frequency_penalty.get(),
            presence_penalty: of.presence_penalty.get(),
            logit_bias: logit_bias.iter().map(|bias| (bias.id, bias.bias.get())).collect(),
            seed: of.seed,
        },
        constraint: None,
        top_logprobs: request.top_logprobs.map(usize::from),
        ignore_end: request.ignore_end,
    }
}

/// A token that was chosen, for the wire.
pub fn committed(id: u32, logprob: Option<f32>, top: &[TokenLogProb]) -> Committed {
    let top = || top.iter().map(|one| TopToken { id: one.id, logprob: Real::new(one.logprob) }).take(20).collect();
    let logprobs =
        logprob.map(|logprob| TokenLogProbs { logprob: Real::new(logprob), top: List::new(top()).unwrap_or_default() });
    Committed { id, logprobs }
}

/// The same as an engine says it.
pub fn chosen(token: &Committed) -> (u32, Option<f32>, Vec<TokenLogProb>) {
    let Some(told) = &token.logprobs else { return (token.id, None, Vec::new()) };
    let one = |top: &TopToken| TokenLogProb { id: top.id, logprob: top.logprob.get() };
    (token.id, Some(told.logprob.get()), told.top.iter().map(one).collect())
}

/// `None`: it failed.
pub fn ending(finish: &Finish) -> Option<Ending> {
    match finish {
        Finish::End => Some(Ending::End),
        Finish::Length => Some(Ending::Length),
        Finish::Context => Some(Ending::Context),
        Finish::Unfit(_) | Finish::Failed(_) => None,
    }
}

pub fn finish(ending: Ending) -> Finish {
    match ending {
        Ending::End => Finish::End,
        Ending::Length => Finish::Length,
        Ending::Context => Finish::Context,
    }
}
