//! What is asked and chosen where tests talk to one end of a conversation.

use littoral_wire::bounded::List;
use littoral_wire::speculation::{Committed, Drafts, Real, Request, Sampling};

/// One token of prompt, nothing of note.
pub fn request(drafts: Drafts, max_tokens: u32) -> Request {
    let zero = Real::new(0.0);
    let sampling = Sampling {
        temperature: zero,
        top_k: 0,
        top_p: zero,
        min_p: zero,
        typical_p: zero,
        repetition_penalty: zero,
        repetition_window: 0,
        frequency_penalty: zero,
        presence_penalty: zero,
        logit_bias: List::default(),
        seed: 0,
    };
    Request {
        tokeniser: [0; 32],
        prompt: List::new(vec![1]).expect("short"),
        sampling,
        max_tokens,
        ignore_end: false,
        top_logprobs: None,
        drafts,
    }
}

pub fn committed(ids: &[u32]) -> Vec<Committed> {
    ids.iter().map(|&id| Committed { id, logprobs: None }).collect()
}
